//! From Pauli strings to a compiled [`Operator`].

use super::pairs::PairTable;
use super::{Clusters, Operator, Strings};
use crate::check::operator::Pauli;
use crate::ir::Lattice;
use num_complex::Complex64;

/// Why a sum of Pauli strings is no operator.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OperatorError {
    /// A string kept a complex coefficient after everything was added up.
    #[error(
        "the operator is not Hermitian on this lattice: {string} has the coefficient {re} {im:+}i"
    )]
    NotHermitian {
        /// The string, e.g. `X(3) Z(4)`.
        string: String,
        /// Real part.
        re: f64,
        /// Imaginary part.
        im: f64,
    },
    /// A coefficient is NaN or infinite.
    #[error("the coefficient of {string} is {value}")]
    NotFinite {
        /// The string.
        string: String,
        /// NaN or an infinity.
        value: f64,
    },
    /// A site that the lattice does not have.
    #[error("site {site} is not on a lattice of {sites} sites")]
    NoSuchSite {
        /// The site.
        site: usize,
        /// Number of sites.
        sites: usize,
    },
    /// More strings than memory is good for.
    #[error("the operator has more than {limit} Pauli strings on this lattice")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The operator was written for the other kind of lattice.
    #[error("{0}")]
    Lattice(String),
    /// A number of the operator cannot be evaluated on this lattice.
    #[error("{0}")]
    Number(String),
}

/// Most Pauli strings an operator may have; long-range diagonal couplings
/// that depend on the distance alone do not count.
pub const STRING_LIMIT: usize = 1 << 26;

/// Strings with the same flipped sites lie together after sorting, those with
/// the same signs beside each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Sites with X or Y, ascending.
    flips: Vec<u32>,
    /// Sites with Y or Z, ascending.
    signs: Vec<u32>,
}

/// Adds up Pauli strings.
#[derive(Clone, Debug)]
pub struct OperatorBuilder {
    lattice: Lattice,
    constant: Complex64,
    pairs: PairTable,
    strings: Vec<(Key, Complex64)>,
}

impl OperatorBuilder {
    /// The zero operator on a lattice.
    pub fn new(lattice: Lattice) -> OperatorBuilder {
        OperatorBuilder {
            lattice,
            constant: Complex64::new(0.0, 0.0),
            pairs: PairTable::new(lattice),
            strings: Vec::new(),
        }
    }

    /// Adds `coupling * Z_i Z_{i+d}` for every site i that has the site i + d:
    /// all of them on a torus. Displacements that lead back to i add constants.
    pub fn pair_coupling(&mut self, d: [i64; 2], coupling: f64) {
        if !self.pairs.add(d, coupling) {
            self.constant += coupling * self.lattice.sites() as f64;
        }
    }

    /// Adds `coefficient` times a product of Pauli matrices, multiplied in the
    /// order given; a site may occur more than once.
    ///
    /// # Errors
    /// A site beyond the lattice, or too many strings.
    pub fn string(
        &mut self,
        coefficient: Complex64,
        factors: &[(usize, Pauli)],
    ) -> Result<(), OperatorError> {
        let sites = self.lattice.sites();
        if let Some(&(site, _)) = factors.iter().find(|f| f.0 >= sites) {
            return Err(OperatorError::NoSuchSite { site, sites });
        }
        let (phase, factors) = multiply_out(factors);
        let coefficient = coefficient * phase;
        if factors.is_empty() {
            self.constant += coefficient;
            return Ok(());
        }
        if self.strings.len() >= STRING_LIMIT {
            return Err(OperatorError::TooLarge {
                limit: STRING_LIMIT,
            });
        }
        let select = |keep: fn(Pauli) -> bool| {
            factors
                .iter()
                .filter(|f| keep(f.1))
                .map(|f| f.0 as u32)
                .collect::<Vec<_>>()
        };
        let key = Key {
            flips: select(|p| p != Pauli::Z),
            signs: select(|p| p != Pauli::X),
        };
        self.strings.push((key, coefficient));
        Ok(())
    }

    /// Adds equal strings up and compiles.
    ///
    /// # Errors
    /// A coefficient that is complex or not finite.
    pub fn build(mut self) -> Result<Operator, OperatorError> {
        let scale = self
            .strings
            .iter()
            .map(|s| s.1.norm())
            .fold(self.constant.norm(), f64::max);
        // stable: equal strings are added in the order they were given
        self.strings.sort_by(|a, b| a.0.cmp(&b.0));
        self.strings.dedup_by(|next, kept| {
            let equal = next.0 == kept.0;
            if equal {
                kept.1 += next.1;
            }
            equal
        });
        check_real(
            self.constant,
            scale,
            &Key {
                flips: Vec::new(),
                signs: Vec::new(),
            },
        )?;
        for (key, coefficient) in &self.strings {
            check_real(*coefficient, scale, key)?;
        }
        self.strings.retain(|s| s.1.re.abs() > ROUNDING * scale);
        let mut diagonal = Strings::default();
        let mut clusters = Clusters::default();
        for (key, coefficient) in &self.strings {
            if key.flips.is_empty() {
                diagonal.push(coefficient.re, &key.signs);
            } else {
                let y_count = key
                    .signs
                    .iter()
                    .filter(|&s| key.flips.binary_search(s).is_ok())
                    .count();
                // <s|Y|-s> = -i s
                let phase = Complex64::new(0.0, -1.0).powu(y_count as u32);
                let phase = Complex64::new(phase.re.round(), phase.im.round());
                clusters.push(&key.flips, coefficient.re * phase, &key.signs);
            }
        }
        Ok(Operator {
            lattice: self.lattice,
            constant: self.constant.re,
            pairs: self.pairs.finish(),
            diagonal,
            clusters,
            changes: std::sync::OnceLock::new(),
        })
    }
}

/// What cancellations may leave behind, relative to the largest coefficient.
const ROUNDING: f64 = 1e-13;

fn check_real(c: Complex64, scale: f64, key: &Key) -> Result<(), OperatorError> {
    let string = || {
        let mut sites: Vec<u32> = key.flips.iter().chain(&key.signs).copied().collect();
        sites.sort_unstable();
        sites.dedup();
        let factor = |s: &u32| {
            let letter = match (key.flips.contains(s), key.signs.contains(s)) {
                (true, true) => 'Y',
                (true, false) => 'X',
                _ => 'Z',
            };
            format!("{letter}({s})")
        };
        if sites.is_empty() {
            "the identity".into()
        } else {
            sites.iter().map(factor).collect::<Vec<_>>().join(" ")
        }
    };
    if !c.is_finite() {
        let value = if c.re.is_finite() { c.im } else { c.re };
        return Err(OperatorError::NotFinite {
            string: string(),
            value,
        });
    }
    if c.im.abs() > ROUNDING * scale {
        return Err(OperatorError::NotHermitian {
            string: string(),
            re: c.re,
            im: c.im,
        });
    }
    Ok(())
}

/// The product of Pauli matrices as a phase times at most one per site, by
/// ascending site.
fn multiply_out(factors: &[(usize, Pauli)]) -> (Complex64, Vec<(usize, Pauli)>) {
    let mut phase = Complex64::new(1.0, 0.0);
    let mut sorted = factors.to_vec();
    // stable: the order on one site matters, between sites it does not
    sorted.sort_by_key(|f| f.0);
    let mut out: Vec<(usize, Pauli)> = Vec::with_capacity(sorted.len());
    for (site, pauli) in sorted {
        match out.last() {
            Some(&(last, left)) if last == site => {
                out.pop();
                if let Some((turn, product)) = left.times(pauli) {
                    phase *= turn;
                    out.push((site, product));
                }
            }
            _ => out.push((site, pauli)),
        }
    }
    (phase, out)
}
