//! Choices of a sampler and their consistency.

use super::full_sum::MAX_FULL_SUM_SITES;
use super::moves::{Acceptance, Move};
use crate::vmc::rng::ChainRng;
use serde::{Deserialize, Serialize};

/// How chains move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Every site once, in order, directions alternating, with exact ratios:
    /// from environments where the network has them.
    Sweep,
    /// Moves drawn at random, with exact ratios.
    Metropolis {
        /// Kinds of moves, each picked with equal probability.
        moves: Vec<Move>,
        /// Proposals that make up one sweep; as many as sites by default.
        #[serde(default)]
        proposals: Option<usize>,
    },
    /// The screened typewriter: blocks of `width` sites, even ones first.
    Typewriter {
        /// Sites per block.
        width: usize,
        /// Whether bounds may decide; if not, every decision is exact.
        #[serde(default = "yes")]
        screened: bool,
    },
    /// The whole basis with exact weights.
    FullSum,
}

fn yes() -> bool {
    true
}

/// A sampler's options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplerOptions {
    /// How chains move.
    pub method: Method,
    /// Rule by which moves are accepted.
    pub acceptance: Acceptance,
    /// Number of chains.
    pub chains: usize,
    /// Sweeps before each sample.
    pub sweeps_per_sample: usize,
    /// A global inversion is proposed after every this many sweeps; 0: never.
    pub inversion_every: u64,
    /// A configuration drawn uniformly (of the fixed magnetisation, if any) is
    /// proposed after every this many sweeps; 0: never. Local moves do not cross
    /// regions of small amplitude, and a network can grow where no chain is; in
    /// small spaces these proposals find it. Not with the typewriter.
    pub uniform_every: u64,
    /// Fixed sum of all spins (+-1 each).
    pub magnetization: Option<i64>,
    /// Seed of all chains.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        SamplerOptions {
            method: Method::Sweep,
            acceptance: Acceptance::HeatBath,
            chains: 512,
            sweeps_per_sample: 1,
            inversion_every: 0,
            uniform_every: 0,
            magnetization: None,
            seed: 0,
        }
    }
}

/// Why a sampler cannot be built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplerError {
    /// Nothing would be sampled.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// Chains are numbered with 32 bits.
    #[error("at most {} chains are possible", u32::MAX)]
    TooManyChains,
    /// No configuration has this sum of spins.
    #[error("no configuration of {sites} spins has magnetisation {magnetization}")]
    Magnetization {
        /// Spins.
        sites: usize,
        /// The impossible value.
        magnetization: i64,
    },
    /// A move leaves the sector.
    #[error("{0} changes the magnetisation; at fixed magnetisation use exchange moves")]
    LeavesSector(&'static str),
    /// The full sum is exponential.
    #[error("a full sum over {0} sites is too large (at most {MAX_FULL_SUM_SITES})")]
    TooLarge(usize),
    /// A cluster is empty, repeats a site, or leaves the lattice.
    #[error("cluster {0:?} is not a set of sites of the lattice")]
    Cluster(Vec<usize>),
    /// The state belongs to another sampler.
    #[error("the stored chains do not fit this sampler (sites, chains or magnetisation differ)")]
    ForeignState,
}

impl SamplerOptions {
    /// Chains that exist: none when the basis is summed.
    pub(super) fn walkers(&self) -> usize {
        if self.method == Method::FullSum {
            0
        } else {
            self.chains
        }
    }

    /// Whether an inversion is proposed after sweep number `step`.
    pub(super) fn inverts_after(&self, step: u64) -> bool {
        self.inversion_every > 0 && (step + 1).is_multiple_of(self.inversion_every)
    }

    /// Whether a uniform configuration is proposed after sweep number `step`.
    pub(super) fn scatters_after(&self, step: u64) -> bool {
        self.uniform_every > 0 && (step + 1).is_multiple_of(self.uniform_every)
    }

    /// Fills in a uniform configuration, of the fixed magnetisation if any.
    pub(super) fn draw_uniform(&self, spins: &mut [i8], rng: &mut ChainRng) {
        match self.magnetization {
            Some(m) => {
                let down = (spins.len() as i64 - m) as usize / 2;
                spins[..down].fill(-1);
                spins[down..].fill(1);
                rng.shuffle(spins);
            }
            None => spins
                .iter_mut()
                .for_each(|s| *s = if rng.bits() & 1 == 0 { 1 } else { -1 }),
        }
    }

    /// Checks the options for a lattice of `sites` spins.
    pub(super) fn check(&self, sites: usize) -> Result<(), SamplerError> {
        let positive = |value: usize, name| {
            if value == 0 {
                Err(SamplerError::Zero(name))
            } else {
                Ok(())
            }
        };
        positive(sites, "the number of sites")?;
        positive(self.chains, "the number of chains")?;
        positive(self.sweeps_per_sample, "the number of sweeps per sample")?;
        if u32::try_from(self.chains).is_err() {
            return Err(SamplerError::TooManyChains);
        }
        if let Some(magnetization) = self.magnetization {
            let n = sites as i64;
            if magnetization.abs() > n || (n - magnetization) % 2 != 0 {
                return Err(SamplerError::Magnetization {
                    sites,
                    magnetization,
                });
            }
            if self.inversion_every > 0 && magnetization != 0 {
                return Err(SamplerError::LeavesSector("global inversion"));
            }
        }
        let fixed = self.magnetization.is_some();
        match &self.method {
            Method::Sweep if fixed => Err(SamplerError::LeavesSector("the sequential sweep")),
            Method::Typewriter { .. } if fixed => Err(SamplerError::LeavesSector("the typewriter")),
            Method::Typewriter { width, .. } => positive(*width, "the block width"),
            Method::FullSum if sites > MAX_FULL_SUM_SITES => Err(SamplerError::TooLarge(sites)),
            Method::Metropolis { moves, proposals } => {
                positive(moves.len(), "the number of kinds of moves")?;
                positive(
                    proposals.unwrap_or(sites),
                    "the number of proposals per sweep",
                )?;
                moves.iter().try_for_each(|m| m.check(sites, fixed))
            }
            _ => Ok(()),
        }
    }
}
