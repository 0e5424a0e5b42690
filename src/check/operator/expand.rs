//! The Pauli strings of an elaborated operator on a given lattice.

use super::number::{Base, Evaluator, Number, Site, Turn};
use super::{Domain, Family, Geometry, OperatorInfo, Pauli, Product, Summand};
use num_complex::Complex64;

/// Receives the strings of an operator.
pub trait Sink {
    /// Why it can take no more.
    type Error;
    /// Adds `coefficient` times the product of the factors, in order.
    ///
    /// # Errors
    /// As the receiver decides.
    fn string(
        &mut self,
        coefficient: Complex64,
        factors: &[(usize, Pauli)],
    ) -> Result<(), Self::Error>;
    /// Adds `coupling * Z_i Z_{i+d}` for every site i for which i + d is on
    /// the lattice.
    ///
    /// # Errors
    /// As the receiver decides.
    fn pair_coupling(&mut self, d: [i64; 2], coupling: f64) -> Result<(), Self::Error>;
    /// Called before the strings of each summand; indices into
    /// [`OperatorInfo::families`] and [`Family::summands`].
    fn begin(&mut self, _family: usize, _summand: usize) {}
}

/// Why an operator has no strings on a lattice.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ExpandError<E> {
    /// The receiver refused.
    #[error(transparent)]
    Sink(E),
    /// Two sites of a term that are different on large lattices coincide.
    #[error("the lattice is too small: two sites of one term coincide on {sites} sites")]
    TooSmall {
        /// Number of sites.
        sites: usize,
    },
    /// A coefficient, bound or condition has no finite value.
    #[error("a number has no finite value on {sites} sites")]
    NotFinite {
        /// Number of sites.
        sites: usize,
    },
}

struct Expansion<'a, S: Sink> {
    numbers: Evaluator,
    sink: &'a mut S,
    factors: Vec<(usize, Pauli)>,
}

impl OperatorInfo {
    /// Writes the strings of a lattice to `sink`.
    ///
    /// # Errors
    /// Of the sink, numbers without a value, or a lattice on which a term
    /// wraps onto itself.
    pub fn expand<S: Sink>(
        &self,
        geometry: Geometry,
        sink: &mut S,
    ) -> Result<(), ExpandError<S::Error>> {
        let mut expansion = Expansion {
            numbers: Evaluator::new(geometry),
            sink,
            factors: Vec::new(),
        };
        for (f, family) in self.families.iter().enumerate() {
            if family
                .guards
                .iter()
                .all(|g| expansion.numbers.holds(g, Turn::default()))
            {
                for (s, summand) in family.summands.iter().enumerate() {
                    expansion.sink.begin(f, s);
                    expansion.summand(family, summand)?;
                }
            }
        }
        Ok(())
    }
}

impl<S: Sink> Expansion<'_, S> {
    fn geometry(&self) -> Geometry {
        self.numbers.geometry()
    }

    fn summand(&mut self, family: &Family, summand: &Summand) -> Result<(), ExpandError<S::Error>> {
        let condition = family.condition.as_ref();
        let absolute = |site: &&Site| matches!(site.base, Base::Absolute(_));
        if summand
            .sites
            .iter()
            .filter(absolute)
            .any(|s| self.numbers.site(s, Turn::default()).is_none())
        {
            return Ok(());
        }
        let mut rest = Vec::new();
        for product in &summand.products {
            if !self.couplings(family, summand, product)?
                && !self.marginals(family, summand, product)?
            {
                rest.push(product);
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
        let sites = self.geometry().sites();
        match &family.domain {
            Domain::Once => self.turn(condition, summand, &rest, Turn::default()),
            Domain::Sites => (0..sites).try_for_each(|first| {
                self.turn(
                    condition,
                    summand,
                    &rest,
                    Turn {
                        first,
                        second: first,
                    },
                )
            }),
            Domain::Range(from, to) => {
                let from = self.bound(from)?;
                let to = self.bound(to)?;
                for index in from..to {
                    let Some(first) = self.geometry().absolute(index) else {
                        continue;
                    };
                    self.turn(
                        condition,
                        summand,
                        &rest,
                        Turn {
                            first,
                            second: first,
                        },
                    )?;
                }
                Ok(())
            }
            Domain::Pairs => {
                for first in 0..sites {
                    for second in first + 1..sites {
                        self.turn(condition, summand, &rest, Turn { first, second })?;
                    }
                }
                Ok(())
            }
            Domain::Bonds(k) => {
                for (d, own) in self.geometry().shell(*k) {
                    for first in 0..sites {
                        let second = self
                            .geometry()
                            .shift(first, d)
                            .filter(|&second| !own || first < second);
                        if let Some(second) = second {
                            self.turn(condition, summand, &rest, Turn { first, second })?;
                        }
                    }
                }
                Ok(())
            }
        }
    }

    fn bound(&self, number: &Number) -> Result<i64, ExpandError<S::Error>> {
        let value = self.numbers.value(number, Turn::default());
        // a range beyond any lattice is a mistake, not a long loop
        if value.is_finite() && value.abs() < 1e9 {
            Ok(value as i64)
        } else {
            Err(ExpandError::NotFinite {
                sites: self.geometry().sites(),
            })
        }
    }

    fn turn(
        &mut self,
        condition: Option<&Number>,
        summand: &Summand,
        products: &[&Product],
        turn: Turn,
    ) -> Result<(), ExpandError<S::Error>> {
        let inside = |site: &Site| self.numbers.site(site, turn).is_some();
        if !summand.sites.iter().all(inside)
            || condition.is_some_and(|c| !self.numbers.holds(c, turn))
        {
            return Ok(());
        }
        for product in products {
            self.factors.clear();
            for (k, factor) in product.factors.iter().enumerate() {
                let Some(site) = self.numbers.site(&factor.site, turn) else {
                    return Ok(());
                };
                // the order of factors was changed on the premise that
                // different displacements are different sites
                let same_base = |earlier: &Site| {
                    matches!(
                        (&earlier.base, &factor.site.base),
                        (Base::First, Base::First) | (Base::Second, Base::Second)
                    )
                };
                if (0..k).any(|e| self.factors[e].0 == site && same_base(&product.factors[e].site))
                {
                    return Err(ExpandError::TooSmall {
                        sites: self.geometry().sites(),
                    });
                }
                self.factors.push((site, factor.pauli));
            }
            let coefficient = self.coefficient(product, turn)?;
            if coefficient != 0.0 {
                self.sink
                    .string(product.phase() * coefficient, &self.factors)
                    .map_err(ExpandError::Sink)?;
            }
        }
        Ok(())
    }

    fn coefficient(&self, product: &Product, turn: Turn) -> Result<f64, ExpandError<S::Error>> {
        let value = self.numbers.value(&product.number, turn);
        if value.is_finite() {
            Ok(value)
        } else {
            Err(ExpandError::NotFinite {
                sites: self.geometry().sites(),
            })
        }
    }

    /// Adds a product `J Z Z` that depends on the distance alone as couplings
    /// per displacement; false, adding nothing, if it is no such product.
    fn couplings(
        &mut self,
        family: &Family,
        summand: &Summand,
        product: &Product,
    ) -> Result<bool, ExpandError<S::Error>> {
        let [a, b] = product.factors.as_slice() else {
            return Ok(false);
        };
        let diagonal =
            a.pauli == Pauli::Z && b.pauli == Pauli::Z && product.quarter.is_multiple_of(2);
        let invariant = |number: &Number| !number.depends_on_position();
        if !diagonal
            || !invariant(&product.number)
            || !family.condition.as_ref().is_none_or(invariant)
        {
            return Ok(false);
        }
        match (&family.domain, &a.site.base, &b.site.base) {
            (Domain::Sites, Base::First, Base::First) => {
                self.shifted_couplings(family, summand, product)
            }
            (Domain::Pairs | Domain::Bonds(_), Base::First, Base::Second)
            | (Domain::Pairs | Domain::Bonds(_), Base::Second, Base::First)
                if on_the_pair(summand) =>
            {
                let displacements = match family.domain {
                    Domain::Bonds(k) => self.geometry().shell(k),
                    _ => self.geometry().half_displacements().collect(),
                };
                for (d, own) in displacements {
                    let first = self.geometry().representative(d);
                    let Some(second) = self.geometry().shift(first, d) else {
                        continue;
                    };
                    let turn = Turn { first, second };
                    if family
                        .condition
                        .as_ref()
                        .is_some_and(|c| !self.numbers.holds(c, turn))
                    {
                        continue;
                    }
                    // a displacement that is its own opposite meets each pair twice
                    let weight = if own { 0.5 } else { 1.0 };
                    self.coupling(product, turn, d, weight)?;
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// `for i: J Z(i + a) Z(i + b)`
    fn shifted_couplings(
        &mut self,
        family: &Family,
        summand: &Summand,
        product: &Product,
    ) -> Result<bool, ExpandError<S::Error>> {
        let (a, b) = (
            product.factors[0].site.offset,
            product.factors[1].site.offset,
        );
        let geometry = self.geometry();
        let mut corner = [0i64; 2];
        let mut reach = [0i64; 2];
        for axis in 0..2 {
            let offsets = || loop_sites(summand).map(|s| s.offset[axis]).chain([0]);
            let (low, high) = (offsets().min().unwrap_or(0), offsets().max().unwrap_or(0));
            corner[axis] = -low;
            reach[axis] = high - low;
        }
        let d = [b[0] - a[0], b[1] - a[1]];
        // on an open lattice the loop must visit exactly the pairs that exist
        let every_pair = (0..2).all(|axis| reach[axis] == d[axis].abs());
        if !geometry.periodic && !every_pair {
            return Ok(false);
        }
        let first = if geometry.periodic {
            Some(0)
        } else {
            geometry.shift(0, corner)
        };
        let fits =
            (0..2).all(|axis| geometry.periodic || reach[axis] < geometry.extent[axis] as i64);
        let Some(first) = first.filter(|_| fits) else {
            return Ok(true);
        };
        if geometry.shift(0, d) == Some(0) && geometry.periodic {
            return Err(ExpandError::TooSmall {
                sites: geometry.sites(),
            });
        }
        let turn = Turn {
            first,
            second: first,
        };
        if family
            .condition
            .as_ref()
            .is_none_or(|c| self.numbers.holds(c, turn))
        {
            self.coupling(product, turn, d, 1.0)?;
        }
        Ok(true)
    }

    /// Sums a product with at most one factor over the other site of
    /// `for i < j` on a chain, where its number depends on the distance alone
    /// (what densities `n_i n_j` expand to): one string per site instead of
    /// one per pair. False, adding nothing, if it is no such product.
    fn marginals(
        &mut self,
        family: &Family,
        summand: &Summand,
        product: &Product,
    ) -> Result<bool, ExpandError<S::Error>> {
        let invariant = |number: &Number| !number.depends_on_position();
        let geometry = self.geometry();
        let applies = matches!(family.domain, Domain::Pairs)
            && product.factors.len() <= 1
            && product
                .factors
                .iter()
                .all(|f| !matches!(f.site.base, Base::Absolute(_)))
            && on_the_pair(summand)
            && geometry.extent[1] == 1
            && invariant(&product.number)
            && family.condition.as_ref().is_none_or(invariant);
        if !applies {
            return Ok(false);
        }
        let sites = geometry.sites();
        // partial[d]: the coefficients of all distances up to d
        let mut partial = vec![0.0];
        for d in 1..sites {
            let turn = Turn {
                first: 0,
                second: d,
            };
            let holds = family
                .condition
                .as_ref()
                .is_none_or(|c| self.numbers.holds(c, turn));
            let coefficient = if holds {
                self.coefficient(product, turn)?
            } else {
                0.0
            };
            partial.push(partial[d - 1] + coefficient);
        }
        for site in 0..sites {
            let (total, factor) = match product.factors.first() {
                None => (partial[sites - 1 - site], None),
                Some(f) if f.site.base == Base::First => {
                    (partial[sites - 1 - site], Some((site, f.pauli)))
                }
                Some(f) => (partial[site], Some((site, f.pauli))),
            };
            if total != 0.0 {
                self.sink
                    .string(product.phase() * total, factor.as_slice())
                    .map_err(ExpandError::Sink)?;
            }
        }
        Ok(true)
    }

    fn coupling(
        &mut self,
        product: &Product,
        turn: Turn,
        d: [i64; 2],
        weight: f64,
    ) -> Result<(), ExpandError<S::Error>> {
        let coefficient = self.coefficient(product, turn)? * product.phase().re * weight;
        if coefficient == 0.0 {
            return Ok(());
        }
        self.sink
            .pair_coupling(d, coefficient)
            .map_err(ExpandError::Sink)
    }
}

/// The sites of a summand that move with the loop.
fn loop_sites(summand: &Summand) -> impl Iterator<Item = &Site> {
    summand
        .sites
        .iter()
        .filter(|site| !matches!(site.base, Base::Absolute(_)))
}

/// Whether a summand of a loop over pairs mentions no neighbours of the pair.
fn on_the_pair(summand: &Summand) -> bool {
    loop_sites(summand).all(|site| site.offset == [0; 2])
}
