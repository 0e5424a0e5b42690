//! Acceptance rules and random moves.

use super::options::SamplerError;
use crate::vmc::rng::ChainRng;
use serde::{Deserialize, Serialize};

/// When a proposed move is made, with `r = |psi(s')/psi(s)|^2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acceptance {
    /// With probability `min(1, r)`.
    Metropolis,
    /// With probability `r / (1 + r)`. The right rule for sequential sweeps of
    /// flat distributions: where every r is 1, Metropolis flips each spin of
    /// `s` in turn, arrives at `-s`, and never sees another configuration.
    HeatBath,
}

impl Acceptance {
    /// The smallest `Re log psi(s')/psi(s)` at which a move is accepted, given
    /// `u` uniform in [0, 1). Comparing logarithms cannot overflow, and a NaN
    /// ratio is refused.
    pub fn threshold(self, u: f64) -> f64 {
        0.5 * match self {
            Acceptance::Metropolis => u.ln(),
            Acceptance::HeatBath => u.ln() - (-u).ln_1p(),
        }
    }

    /// Whether a move with this log ratio is accepted.
    pub fn accepts(self, log_ratio: f64, u: f64) -> bool {
        log_ratio > self.threshold(u)
    }
}

/// A kind of symmetric random move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Move {
    /// One spin, any site.
    Single,
    /// Two spins at any two distinct sites.
    Pair,
    /// Two spins exchanged, any two distinct sites; keeps the magnetisation.
    Exchange,
    /// Two spins exchanged, one of these pairs of sites.
    ExchangePairs(Vec<[usize; 2]>),
    /// All spins of one of these sets of sites flipped.
    Clusters(Vec<Vec<usize>>),
}

impl Move {
    /// Whether its sites exist and it respects a fixed magnetisation.
    pub(super) fn check(&self, sites: usize, fixed: bool) -> Result<(), SamplerError> {
        let cluster = |c: &[usize]| {
            let distinct = c
                .iter()
                .enumerate()
                .all(|(i, site)| *site < sites && !c[..i].contains(site));
            if c.is_empty() || !distinct {
                Err(SamplerError::Cluster(c.to_vec()))
            } else {
                Ok(())
            }
        };
        let some = |count: usize| {
            if count == 0 {
                Err(SamplerError::Zero("the number of clusters"))
            } else {
                Ok(())
            }
        };
        match self {
            Move::Single if fixed => Err(SamplerError::LeavesSector("a single flip")),
            Move::Pair if fixed => Err(SamplerError::LeavesSector("a pair flip")),
            Move::Clusters(_) if fixed => Err(SamplerError::LeavesSector("a cluster flip")),
            Move::Pair | Move::Exchange if sites < 2 => {
                Err(SamplerError::Zero("the number of pairs"))
            }
            Move::ExchangePairs(pairs) => {
                some(pairs.len()).and_then(|()| pairs.iter().try_for_each(|p| cluster(p)))
            }
            Move::Clusters(sets) => {
                some(sets.len()).and_then(|()| sets.iter().try_for_each(|c| cluster(c)))
            }
            Move::Single | Move::Pair | Move::Exchange => Ok(()),
        }
    }

    /// Draws the sites to flip into `flips`; none for an exchange of equal
    /// spins, which is a proposal to stay.
    pub(super) fn draw(&self, spins: &[i8], rng: &mut ChainRng, flips: &mut Vec<usize>) {
        flips.clear();
        let n = spins.len();
        match self {
            Move::Single => flips.push(rng.below(n as u32) as usize),
            Move::Pair | Move::Exchange => {
                let a = rng.below(n as u32) as usize;
                let b = (a + 1 + rng.below(n as u32 - 1) as usize) % n;
                flips.extend([a, b]);
            }
            Move::ExchangePairs(pairs) => {
                flips.extend(pairs[rng.below(pairs.len() as u32) as usize])
            }
            Move::Clusters(sets) => flips.extend(&sets[rng.below(sets.len() as u32) as usize]),
        }
        if matches!(self, Move::Exchange | Move::ExchangePairs(_))
            && spins[flips[0]] == spins[flips[1]]
        {
            flips.clear();
        }
    }
}

/// Flips the spins at `sites`.
pub(super) fn flip(spins: &mut [i8], sites: &[usize]) {
    for &site in sites {
        spins[site] = -spins[site];
    }
}
