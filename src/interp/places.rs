//! Index sets: the lattice of tokens, displacements, momenta, pairs.

use super::EvalError;
use crate::check::core::{Place, Token};
use crate::ir::{Boundary, Lattice};
use std::f64::consts::PI;

/// The lattice whose sites are tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenLattice {
    /// Tokens along each axis.
    pub extent: [usize; 2],
    /// Its boundary.
    pub boundary: Boundary,
}

impl TokenLattice {
    /// The tokens of a lattice of spins.
    ///
    /// # Errors
    /// Empty lattices, and extents the tokens do not divide.
    pub fn new(lattice: Lattice, token: Token) -> Result<TokenLattice, EvalError> {
        let mut extent = [0; 2];
        for (axis, tokens) in extent.iter_mut().enumerate() {
            let (spins, part) = (lattice.extent[axis], token.0[axis]);
            if spins == 0 {
                return Err(EvalError::EmptyLattice { axis });
            }
            if part == 0 || !spins.is_multiple_of(part) {
                return Err(EvalError::Tiling {
                    axis,
                    extent: spins,
                    token: part,
                });
            }
            *tokens = spins / part;
        }
        Ok(TokenLattice {
            extent,
            boundary: lattice.boundary,
        })
    }

    /// Number of tokens.
    pub fn count(&self) -> usize {
        self.extent[0] * self.extent[1]
    }

    /// Coordinates of a token: x slowest.
    pub fn coordinates(&self, site: usize) -> [usize; 2] {
        [site / self.extent[1], site % self.extent[1]]
    }

    /// The token at coordinates inside the lattice.
    pub fn site(&self, at: [usize; 2]) -> usize {
        at[0] * self.extent[1] + at[1]
    }

    /// The token at an offset: wrapped on a ring, `None` outside an open lattice.
    pub fn neighbour(&self, site: usize, offset: [i64; 2]) -> Option<usize> {
        let from = self.coordinates(site);
        let mut to = [0; 2];
        for axis in 0..2 {
            let (extent, there) = (self.extent[axis] as i64, from[axis] as i64 + offset[axis]);
            to[axis] = match self.boundary {
                Boundary::Periodic => there.rem_euclid(extent) as usize,
                Boundary::Open if (0..extent).contains(&there) => there as usize,
                Boundary::Open => return None,
            };
        }
        Some(self.site(to))
    }

    /// Entries of place `Displacement` along an axis: T on a ring, 2T-1 else.
    pub fn displacements(&self, axis: usize) -> usize {
        match self.boundary {
            Boundary::Periodic => self.extent[axis],
            Boundary::Open => 2 * self.extent[axis] - 1,
        }
    }

    /// The entry of place `Displacement` for target - source.
    pub fn displacement(&self, target: usize, source: usize) -> usize {
        let (i, j) = (self.coordinates(target), self.coordinates(source));
        let entry = |axis: usize| match self.boundary {
            Boundary::Periodic => (i[axis] + self.extent[axis] - j[axis]) % self.extent[axis],
            Boundary::Open => i[axis] + self.extent[axis] - 1 - j[axis],
        };
        entry(0) * self.displacements(1) + entry(1)
    }

    /// Entries of a place: 1 for `Whole`.
    ///
    /// # Errors
    /// Momenta of an open lattice.
    pub fn entries(&self, place: Place) -> Result<usize, EvalError> {
        Ok(match place {
            Place::Whole => 1,
            Place::Site(_) => self.count(),
            Place::Displacement(_) => self.displacements(0) * self.displacements(1),
            Place::Momentum(_) if self.boundary == Boundary::Open => {
                return Err(EvalError::MomentumOnOpenChain);
            }
            Place::Momentum(_) => self.count(),
            Place::Pair(_) => self.count() * self.count(),
        })
    }

    /// Value of the displacement entry along an axis: the representative in
    /// (-T/2, T/2] on a ring, in (-T, T) on an open chain.
    pub fn displacement_value(&self, entry: usize, axis: usize) -> f64 {
        let n = [entry / self.displacements(1), entry % self.displacements(1)][axis];
        match self.boundary {
            Boundary::Periodic => symmetric(n, self.extent[axis]),
            Boundary::Open => n as f64 - (self.extent[axis] - 1) as f64,
        }
    }

    /// Value of the momentum entry along an axis, in (-pi, pi].
    pub fn momentum_value(&self, entry: usize, axis: usize) -> f64 {
        let extent = self.extent[axis];
        2.0 * PI * symmetric(self.coordinates(entry)[axis], extent) / extent as f64
    }
}

/// The representative of n mod T in (-T/2, T/2].
fn symmetric(n: usize, extent: usize) -> f64 {
    if 2 * n > extent {
        n as f64 - extent as f64
    } else {
        n as f64
    }
}

/// The token of a place; `None` for `Whole`.
pub(super) fn token(place: Place) -> Option<Token> {
    match place {
        Place::Whole => None,
        Place::Site(t) | Place::Displacement(t) | Place::Momentum(t) | Place::Pair(t) => Some(t),
    }
}
