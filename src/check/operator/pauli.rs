//! Pauli matrices and symbolic products of them.

use super::number::{Base, FoldError, Number, Operation, Site};
use crate::syntax::ast::Span;
use num_complex::Complex64;

/// A Pauli matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pauli {
    /// Flips.
    X,
    /// `Y|s> = i s |-s>`
    Y,
    /// `Z|s> = s |s>`
    Z,
}

impl Pauli {
    /// The product `self * other` as a phase and a Pauli matrix; `None` is the
    /// identity.
    pub fn times(self, other: Pauli) -> Option<(Complex64, Pauli)> {
        let (quarter, product) = self.quarter_times(other)?;
        Some((
            Complex64::new(0.0, if quarter == 1 { 1.0 } else { -1.0 }),
            product,
        ))
    }

    /// As [`times`](Self::times), the phase as a power of i.
    fn quarter_times(self, other: Pauli) -> Option<(u8, Pauli)> {
        use Pauli::{X, Y, Z};
        match (self, other) {
            (X, Y) => Some((1, Z)),
            (Y, Z) => Some((1, X)),
            (Z, X) => Some((1, Y)),
            (Y, X) => Some((3, Z)),
            (Z, Y) => Some((3, X)),
            (X, Z) => Some((3, Y)),
            (X, X) | (Y, Y) | (Z, Z) => None,
        }
    }
}

/// A Pauli matrix on a symbolic site.
#[derive(Clone, Debug, PartialEq)]
pub struct Factor {
    /// Which.
    pub pauli: Pauli,
    /// Where.
    pub site: Site,
    /// The text it came from.
    pub span: Span,
}

/// A Pauli string with its coefficient `i^quarter * number`.
#[derive(Clone, Debug)]
pub struct Product {
    /// Power of the imaginary unit, 0 to 3.
    pub quarter: u8,
    /// The real part of the coefficient.
    pub number: Number,
    /// In order; factors on sites that may coincide are not interchanged.
    pub factors: Vec<Factor>,
    /// What made the coefficient imaginary: the last two places.
    pub imaginary: Vec<Span>,
}

/// Whether two symbolic sites coincide: `None` where it depends on the turn of
/// the loop. Displacements that wrap around a small lattice are not
/// considered; expanding refuses them.
fn coincide(a: &Site, b: &Site) -> Option<bool> {
    match (&a.base, &b.base) {
        (Base::First, Base::First) | (Base::Second, Base::Second) => Some(a.offset == b.offset),
        (Base::First, Base::Second) | (Base::Second, Base::First) if a.offset == b.offset => {
            Some(false)
        }
        (Base::Absolute(m), Base::Absolute(n)) => match (m.known_int(), n.known_int()) {
            (Some(m), Some(n)) if a.offset == [0; 2] && b.offset == [0; 2] => Some(m == n),
            _ if m == n => Some(a.offset == b.offset),
            _ => None,
        },
        _ => None,
    }
}

impl Product {
    /// A number.
    pub fn number(number: Number) -> Product {
        Product {
            quarter: 0,
            number,
            factors: Vec::new(),
            imaginary: Vec::new(),
        }
    }

    /// A single Pauli matrix.
    pub fn single(pauli: Pauli, site: Site, span: Span) -> Product {
        Product {
            factors: vec![Factor { pauli, site, span }],
            ..Product::number(Number::int(1))
        }
    }

    /// The matrix product, with equal sites multiplied out.
    ///
    /// # Errors
    /// Where the numbers do not fold.
    pub fn times(&self, other: &Product) -> Result<Product, FoldError> {
        let mut product = Product {
            quarter: (self.quarter + other.quarter) % 4,
            number: Number::binary(Operation::Mul, self.number.clone(), other.number.clone())?,
            factors: self.factors.clone(),
            imaginary: [self.imaginary.as_slice(), other.imaginary.as_slice()].concat(),
        };
        for factor in &other.factors {
            product.append(factor);
        }
        Ok(product)
    }

    fn append(&mut self, factor: &Factor) {
        for k in (0..self.factors.len()).rev() {
            match coincide(&self.factors[k].site, &factor.site) {
                Some(false) => {}
                None => break,
                Some(true) => {
                    let left = &self.factors[k];
                    match left.pauli.quarter_times(factor.pauli) {
                        None => {
                            self.factors.remove(k);
                        }
                        Some((quarter, pauli)) => {
                            self.quarter = (self.quarter + quarter) % 4;
                            self.imaginary = vec![left.span, factor.span];
                            self.factors[k].pauli = pauli;
                        }
                    }
                    return;
                }
            }
        }
        self.factors.push(factor.clone());
    }

    /// Whether the coefficient is real whatever the lattice: no power of i,
    /// and no factors whose order may matter.
    pub fn certainly_real(&self) -> bool {
        let separate = self.factors.iter().enumerate().all(|(k, a)| {
            self.factors[..k]
                .iter()
                .all(|b| coincide(&a.site, &b.site) == Some(false))
        });
        self.quarter.is_multiple_of(2) && separate
    }

    /// `i^quarter`
    pub fn phase(&self) -> Complex64 {
        [
            Complex64::new(1.0, 0.0),
            Complex64::new(0.0, 1.0),
            Complex64::new(-1.0, 0.0),
            Complex64::new(0.0, -1.0),
        ][usize::from(self.quarter % 4)]
    }
}
