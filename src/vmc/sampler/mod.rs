//! Samplers of |psi|^2: many Markov chains in parallel, or the full basis.
//!
//! Every chain makes a fixed number of proposals per sample, whatever is
//! accepted: a sample taken after a state-dependent number of proposals is
//! biased. Random numbers are a function of (seed, chain, sweep), chains do
//! not interact, and reports are merged in chain order: results do not depend
//! on the number of threads, and a stored [`SamplerState`] continues exactly.
//!
//! Local moves are evaluated in full for many chains at once
//! ([`WaveFunction::log_psi`] of a batch), sequential sweeps from environments
//! where the network has them ([`WaveFunction::sweep`]), and the typewriter from
//! the background of each chain. A back end with a machine of its own moves all
//! chains there ([`WaveFunction::walk`], [`WaveFunction::typewriter`]), by the same
//! random numbers.

mod bound;
mod full_sum;
mod lockstep;
mod moves;
mod options;
mod remote;
mod report;
mod typewriter;

pub use bound::{NoBound, Rigorous, Unbounded};
pub use full_sum::{MAX_FULL_SUM_SITES, full_sum};
pub use moves::{Acceptance, Move};
pub use options::{Method, SamplerError, SamplerOptions};
pub use report::Report;
pub use typewriter::{ErrorBuffer, ScreenBound};

use super::lossless;
use super::rng::{ChainRng, Stream};
use crate::run::{Spins, WaveFunction};
use lockstep::Lockstep;
use rayon::prelude::*;
use typewriter::{Rule, Typewriter};

/// Configurations drawn from |psi|^2.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// Spins per configuration.
    pub sites: usize,
    /// Samples per chain; sample t of chain c has index `c * per_chain + t`.
    pub per_chain: usize,
    /// All configurations, one after the other.
    pub spins: Vec<i8>,
    /// Exact probabilities, adding up to one, where the basis was summed.
    pub weights: Option<Vec<f64>>,
}

impl Samples {
    /// Number of configurations.
    pub fn len(&self) -> usize {
        self.spins.len() / self.sites
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spins.is_empty()
    }
    /// Configuration `index`.
    pub fn get(&self, index: usize) -> &Spins {
        &self.spins[index * self.sites..(index + 1) * self.sites]
    }
    /// Weight of configuration `index` in averages.
    pub fn weight(&self, index: usize) -> f64 {
        match &self.weights {
            Some(weights) => weights[index],
            None => 1.0 / self.len() as f64,
        }
    }
}

/// What is sampled: a wave function, and what is known about its locality.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The wave function.
    pub psi: &'a dyn WaveFunction,
    /// A rigorous bound for the screened typewriter; without one it keeps
    /// empirical bounds.
    pub bound: Option<&'a dyn ScreenBound>,
}

impl<'a> Target<'a> {
    /// A wave function without a screening bound.
    pub fn new(psi: &'a dyn WaveFunction) -> Target<'a> {
        Target { psi, bound: None }
    }
}

/// All that a sampler remembers between calls.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SamplerState {
    /// Sweeps every chain has made.
    pub step: u64,
    /// Configurations, chain by chain.
    #[serde(with = "lossless::spins")]
    pub spins: Vec<i8>,
    /// Errors seen by the screened typewriter.
    pub buffer: ErrorBuffer,
}

/// A sampler: options and the state of its chains.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplerOptions,
    sites: usize,
    state: SamplerState,
}

impl Sampler {
    /// Chains at random configurations (of the fixed magnetisation, if any).
    ///
    /// # Errors
    /// Options that contradict each other or the number of sites.
    pub fn new(options: SamplerOptions, sites: usize) -> Result<Sampler, SamplerError> {
        options.check(sites)?;
        let mut spins = vec![1; options.walkers() * sites];
        for (chain, spins) in spins.chunks_exact_mut(sites).enumerate() {
            let mut rng = ChainRng::new(options.seed, chain as u32, 0, Stream::Init);
            options.draw_uniform(spins, &mut rng);
        }
        let state = SamplerState {
            step: 0,
            spins,
            buffer: ErrorBuffer::default(),
        };
        Ok(Sampler {
            options,
            sites,
            state,
        })
    }

    /// A sampler that continues from `state`.
    ///
    /// # Errors
    /// Bad options, or a state of another shape or magnetisation.
    pub fn resume(
        options: SamplerOptions,
        sites: usize,
        state: SamplerState,
    ) -> Result<Sampler, SamplerError> {
        options.check(sites)?;
        let fits = state.spins.len() == options.walkers() * sites
            && options.magnetization.is_none_or(|m| {
                state
                    .spins
                    .chunks_exact(sites)
                    .all(|s| s.iter().map(|&s| i64::from(s)).sum::<i64>() == m)
            });
        if !fits {
            return Err(SamplerError::ForeignState);
        }
        Ok(Sampler {
            options,
            sites,
            state,
        })
    }

    /// The options in force.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// What must be stored to continue.
    pub fn state(&self) -> &SamplerState {
        &self.state
    }

    /// Replaces the state by an earlier one of the same sampler.
    pub fn restore(&mut self, state: SamplerState) {
        self.state = state;
    }

    /// Moves every chain by `sweeps` sweeps without recording samples.
    pub fn advance(&mut self, target: Target, sweeps: usize) -> Report {
        if sweeps == 0 || self.options.method == Method::FullSum {
            return Report::default();
        }
        self.walk(target, 1, sweeps, None)
    }

    /// Draws `per_chain` samples from every chain, each after the configured
    /// number of sweeps; or sums the basis, whatever `per_chain`.
    pub fn sample(&mut self, target: Target, per_chain: usize) -> (Samples, Report) {
        let sites = self.sites;
        if self.options.method == Method::FullSum {
            return (
                full_sum(target.psi, self.options.magnetization),
                Report::default(),
            );
        }
        let per_chain = per_chain.max(1);
        let mut spins = vec![0; self.state.spins.len() * per_chain];
        let report = self.walk(
            target,
            per_chain,
            self.options.sweeps_per_sample,
            Some(&mut spins),
        );
        (
            Samples {
                sites,
                per_chain,
                spins,
                weights: None,
            },
            report,
        )
    }

    /// `rounds` times `sweeps` sweeps of every chain, each round recorded.
    fn walk(
        &mut self,
        target: Target,
        rounds: usize,
        sweeps: usize,
        mut out: Option<&mut [i8]>,
    ) -> Report {
        let (options, sites, start) = (&self.options, self.sites, self.state.step);
        let (much, spins) = ((rounds, sweeps), &mut self.state.spins);
        let recorded = out.as_deref_mut();
        let buffer = &mut self.state.buffer;
        if let Some(report) = remote::walk(options, target, much, start, (spins, buffer), recorded)
        {
            self.state.step += (rounds * sweeps) as u64;
            return report;
        }
        let buffer = &self.state.buffer;
        // the typewriter keeps a background per chain, all else moves in step
        let (together, rule) = match options.method {
            Method::Typewriter { width, screened } => (1, Some(Rule { width, screened })),
            _ => (lockstep::CHAINS, None),
        };
        let run = |group: usize, spins: &mut [i8], mut out: Option<&mut [i8]>| {
            let first = group * together;
            let mut rounds_of = |sweep: &mut dyn FnMut(&mut [i8], u64)| {
                for round in 0..rounds {
                    (0..sweeps).for_each(|k| sweep(spins, start + (round * sweeps + k) as u64));
                    let Some(out) = &mut out else { continue };
                    let chains = out.chunks_exact_mut(rounds * sites);
                    for (out, spins) in chains.zip(spins.chunks_exact(sites)) {
                        out[round * sites..(round + 1) * sites].copy_from_slice(spins);
                    }
                }
            };
            match rule {
                Some(rule) => {
                    let mut chain = Typewriter::new(options, rule, target, first, buffer.clone());
                    rounds_of(&mut |spins, step| chain.sweep(spins, step));
                    chain.finish()
                }
                None => {
                    let mut chains = Lockstep::new(options, target, sites, first);
                    rounds_of(&mut |spins, step| chains.sweep(spins, step));
                    (chains.finish(), ErrorBuffer::default())
                }
            }
        };
        let groups = self
            .state
            .spins
            .par_chunks_mut(together * sites)
            .enumerate();
        let results: Vec<(Report, ErrorBuffer)> = match out {
            None => groups.map(|(k, spins)| run(k, spins, None)).collect(),
            Some(out) => groups
                .zip(out.par_chunks_mut(together * rounds * sites))
                .map(|((k, spins), out)| run(k, spins, Some(out)))
                .collect(),
        };
        let mut report = Report::default();
        for (one, errors) in &results {
            report.merge(one);
            self.state.buffer.merge(errors);
        }
        self.state.step += (rounds * sweeps) as u64;
        report
    }
}
