//! Pauli matrices.

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
        use Pauli::{X, Y, Z};
        let (turn, product) = match (self, other) {
            (X, Y) => (1.0, Z),
            (Y, Z) => (1.0, X),
            (Z, X) => (1.0, Y),
            (Y, X) => (-1.0, Z),
            (Z, Y) => (-1.0, X),
            (X, Z) => (-1.0, Y),
            (X, X) | (Y, Y) | (Z, Z) => return None,
        };
        Some((Complex64::new(0.0, turn), product))
    }
}
