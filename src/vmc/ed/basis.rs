//! Symmetry sectors of the spin space and their bases.
//!
//! A configuration is a number: bit j (from the least) is set where spin j is
//! down.

use crate::vmc::operator::Operator;

/// Which part of the space to diagonalise in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sector {
    /// All `2^N` configurations.
    Full,
    /// Even or odd under the inversion of all spins.
    Inversion {
        /// The eigenvalue of `prod X` is -1.
        odd: bool,
    },
    /// A fixed number of spins down.
    Magnetisation {
        /// How many.
        down: usize,
    },
    /// As many spins down as up, even or odd under inversion.
    Balanced {
        /// The eigenvalue of `prod X` is -1.
        odd: bool,
    },
}

/// An orthonormal basis of a sector.
///
/// Under inversion the basis state of a representative s (last spin up) is
/// `(|s> + p |-s>) / sqrt 2`.
#[derive(Clone, Debug)]
pub struct Basis {
    sites: usize,
    sector: Sector,
    /// Representatives in ascending order; empty where they are `0..dim`.
    states: Vec<u32>,
    dim: usize,
    /// Rank of a configuration of fixed magnetisation: `high[s >> half] + low[s & mask]`.
    high: Vec<u32>,
    low: Vec<u32>,
}

impl Basis {
    /// The basis of a sector of `sites` spins.
    ///
    /// # Errors
    /// A sector that does not exist: too many spins down, inversion of an odd
    /// number of balanced spins, no spins, or more than `MAX_SITES`.
    pub fn new(sites: usize, sector: Sector) -> Result<Basis, super::EdError> {
        use super::EdError;
        if sites == 0 || sites > super::MAX_SITES {
            return Err(EdError::Size { sites });
        }
        let down = match sector {
            Sector::Full | Sector::Inversion { .. } => {
                let dim = if sector == Sector::Full {
                    1 << sites
                } else {
                    1 << (sites - 1)
                };
                return Ok(Basis {
                    sites,
                    sector,
                    states: Vec::new(),
                    dim,
                    high: Vec::new(),
                    low: Vec::new(),
                });
            }
            Sector::Magnetisation { down } if down <= sites => down,
            Sector::Balanced { .. } if sites.is_multiple_of(2) => sites / 2,
            _ => return Err(EdError::Sector { sites, sector }),
        };
        // under inversion only states whose last spin is up represent
        let bits = if matches!(sector, Sector::Balanced { .. }) {
            sites - 1
        } else {
            sites
        };
        let states: Vec<u32> = (0..1u32 << bits)
            .filter(|s| s.count_ones() as usize == down)
            .collect();
        let half = sites.div_ceil(2);
        let mut high = vec![0; 1 << (sites - half)];
        let mut low = vec![0; 1 << half];
        let mut seen = vec![0; sites + 1];
        for (s, rank) in low.iter_mut().enumerate() {
            let ones = s.count_ones() as usize;
            *rank = seen[ones];
            seen[ones] += 1;
        }
        let mut previous = None;
        for (rank, &s) in states.iter().enumerate() {
            let upper = s as usize >> half;
            if previous != Some(upper) {
                // the first state of this upper half has the least lower half
                high[upper] = rank as u32 - low[s as usize & ((1 << half) - 1)];
                previous = Some(upper);
            }
        }
        Ok(Basis {
            sites,
            sector,
            dim: states.len(),
            states,
            high,
            low,
        })
    }

    /// The sectors an operator splits into that hold its ground state
    /// candidates: both parities where it commutes with the inversion, else
    /// all magnetisations where it conserves it, else the whole space.
    pub fn sectors_of(operator: &Operator) -> Vec<Sector> {
        let sites = operator.lattice().sites();
        let inversion = operator.commutes_with_inversion();
        if operator.conserves_magnetisation() {
            let mut sectors = Vec::new();
            if inversion && sites.is_multiple_of(2) {
                sectors.extend([false, true].map(|odd| Sector::Balanced { odd }));
                sectors.extend(
                    (0..sites / 2)
                        .rev()
                        .map(|down| Sector::Magnetisation { down }),
                );
            } else if inversion {
                sectors.extend(
                    (0..=sites / 2)
                        .rev()
                        .map(|down| Sector::Magnetisation { down }),
                );
            } else {
                sectors.extend((0..=sites).map(|down| Sector::Magnetisation { down }));
            }
            return sectors;
        }
        if inversion {
            return [false, true].map(|odd| Sector::Inversion { odd }).to_vec();
        }
        vec![Sector::Full]
    }

    /// Number of basis states.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of spins.
    pub fn sites(&self) -> usize {
        self.sites
    }

    /// The sector it spans.
    pub fn sector(&self) -> Sector {
        self.sector
    }

    /// The configuration that represents a basis state.
    pub fn state(&self, index: usize) -> u32 {
        if self.states.is_empty() {
            index as u32
        } else {
            self.states[index]
        }
    }

    /// Eigenvalue of the inversion, where the sector has one.
    pub fn parity(&self) -> Option<f64> {
        match self.sector {
            Sector::Inversion { odd } | Sector::Balanced { odd } => {
                Some(if odd { -1.0 } else { 1.0 })
            }
            _ => None,
        }
    }

    /// The basis state a configuration of this sector belongs to, and whether
    /// it is the inverse of the representative.
    pub fn index(&self, state: u32) -> (usize, bool) {
        let inverse = self.parity().is_some() && state >> (self.sites - 1) == 1;
        let state = if inverse {
            !state & (u32::MAX >> (32 - self.sites))
        } else {
            state
        } as usize;
        if self.states.is_empty() {
            return (state, inverse);
        }
        let half = self.sites.div_ceil(2);
        (
            (self.high[state >> half] + self.low[state & ((1 << half) - 1)]) as usize,
            inverse,
        )
    }

    /// Every configuration of the sector: representatives in order, followed,
    /// under inversion, by their inverses in the same order.
    pub fn configurations(&self) -> Vec<u32> {
        let mut all: Vec<u32> = (0..self.dim).map(|k| self.state(k)).collect();
        if self.parity().is_some() {
            all.extend((0..self.dim).map(|k| !self.state(k) & (u32::MAX >> (32 - self.sites))));
        }
        all
    }

    /// The spins (+1, -1) of a configuration.
    pub fn spins(&self, state: u32) -> Vec<i8> {
        (0..self.sites)
            .map(|j| if state >> j & 1 == 0 { 1 } else { -1 })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_inverts_state_in_every_sector() {
        for sites in 1..=9 {
            let mut sectors = vec![Sector::Full, Sector::Inversion { odd: true }];
            sectors.extend((0..=sites).map(|down| Sector::Magnetisation { down }));
            if sites % 2 == 0 {
                sectors.push(Sector::Balanced { odd: false });
            }
            for sector in sectors {
                let basis = Basis::new(sites, sector).unwrap();
                let all = basis.configurations();
                for (k, &state) in all.iter().enumerate() {
                    assert_eq!(
                        basis.index(state),
                        (k % basis.dim(), k >= basis.dim()),
                        "{sector:?} {state:b}"
                    );
                }
                let mut distinct = all.clone();
                distinct.sort_unstable();
                distinct.dedup();
                assert_eq!(distinct.len(), all.len());
            }
        }
        let dims: usize = (0..=9)
            .map(|down| Basis::new(9, Sector::Magnetisation { down }).unwrap().dim())
            .sum();
        assert_eq!(dims, 512);
    }

    #[test]
    fn impossible_sectors_are_refused() {
        assert!(Basis::new(5, Sector::Balanced { odd: false }).is_err());
        assert!(Basis::new(5, Sector::Magnetisation { down: 6 }).is_err());
        assert!(Basis::new(40, Sector::Full).is_err());
    }
}
