//! Chains in step: one batch of full evaluations per proposal of all of them.
//!
//! Two evaluations per proposal are one too many: the amplitude of the current
//! configuration is known since it was accepted, so a rejected move costs
//! nothing further. A batch fills vector lanes and, on a GPU, the machine.
//! Every chain reads its own random numbers in the order of its proposals:
//! which chains share a batch changes no number but the rounding of the
//! network's arithmetic.

use super::Target;
use super::moves::{Move, flip};
use super::options::{Method, SamplerOptions};
use super::report::Report;
use crate::run::WaveFunction;
use crate::vmc::rng::{ChainRng, Stream};
use num_complex::Complex64;
use rayon::prelude::*;

/// Chains of one batch: many enough to fill it, few enough that the batches of a
/// few hundred chains keep several cores busy.
pub(super) const CHAINS: usize = 64;

/// Fills in the sites to flip of a chain's configuration; returns the uniform number
/// of the decision.
type Draw<'a> = &'a mut dyn FnMut(usize, &[i8], &mut Vec<usize>) -> f64;

/// A proposal of one chain.
#[derive(Clone, Debug, Default)]
struct Proposal {
    /// Sites to flip; none is a proposal to stay.
    flips: Vec<usize>,
    /// A move is made where `Re log psi(s')/psi(s)` is larger.
    threshold: f64,
}

/// Outcomes of one proposal per chain.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    proposed: u64,
    accepted: u64,
    not_a_number: u64,
}

/// A group of chains during a call; their configurations stay with the caller.
pub(super) struct Lockstep<'a> {
    options: &'a SamplerOptions,
    psi: &'a dyn WaveFunction,
    sites: usize,
    /// Number of the first chain.
    first: usize,
    /// `Re log psi` of the current configurations; empty where unknown.
    log_psi: Vec<f64>,
    report: Report,
    proposals: Vec<Proposal>,
    batch: Vec<i8>,
    amplitudes: Vec<Complex64>,
}

impl<'a> Lockstep<'a> {
    /// Chains numbered from `first` on.
    pub(super) fn new(
        options: &'a SamplerOptions,
        target: Target<'a>,
        sites: usize,
        first: usize,
    ) -> Self {
        Lockstep {
            options,
            psi: target.psi,
            sites,
            first,
            log_psi: Vec::new(),
            report: Report::default(),
            proposals: Vec::new(),
            batch: Vec::new(),
            amplitudes: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Report {
        self.report
    }

    /// Sweep number `step` of all chains, and the global moves due after it.
    pub(super) fn sweep(&mut self, spins: &mut [i8], step: u64) {
        match &self.options.method {
            Method::Sweep => {
                let reverse = step % 2 == 1;
                if !self.environments(spins, reverse, step) {
                    self.sequential(spins, reverse, step);
                }
            }
            Method::Metropolis { moves, proposals } => {
                self.random(spins, moves, proposals.unwrap_or(self.sites), step);
            }
            Method::Typewriter { .. } | Method::FullSum => {}
        }
        if self.options.inverts_after(step) {
            self.invert(spins, step);
        }
        if self.options.scatters_after(step) {
            self.scatter(spins, step);
        }
    }

    /// The random numbers of every chain for one purpose.
    fn generators(&self, spins: &[i8], step: u64, stream: Stream) -> Vec<ChainRng> {
        (0..spins.len() / self.sites)
            .map(|k| ChainRng::new(self.options.seed, (self.first + k) as u32, step, stream))
            .collect()
    }

    /// Every site once from environments, chain by chain; false, with nothing
    /// touched, where the network has no such sweep.
    fn environments(&mut self, spins: &mut [i8], reverse: bool, step: u64) -> bool {
        let (rule, psi) = (self.options.acceptance, self.psi);
        let mut generators = self.generators(spins, step, Stream::Sweep);
        let swept: Vec<Option<Tally>> = spins
            .par_chunks_exact_mut(self.sites)
            .zip(&mut generators)
            .map(|(spins, rng)| {
                let mut tally = Tally::default();
                let mut decide = |_site: usize, log_ratio: Complex64| {
                    let accepted = rule.accepts(log_ratio.re, rng.uniform());
                    tally.proposed += 1;
                    tally.accepted += u64::from(accepted);
                    tally.not_a_number += u64::from(log_ratio.re.is_nan());
                    accepted
                };
                psi.sweep(spins, reverse, &mut decide).map(|()| tally)
            })
            .collect();
        // a network offers sweeps or it does not, whatever the configuration
        if !swept.iter().all(Option::is_some) {
            return false;
        }
        swept.into_iter().flatten().for_each(|t| self.count(t));
        self.log_psi.clear();
        true
    }

    /// Every site once, in order, from full evaluations: the same random numbers
    /// and decisions as from environments.
    fn sequential(&mut self, spins: &mut [i8], reverse: bool, step: u64) {
        let n = self.sites;
        let mut generators = self.generators(spins, step, Stream::Sweep);
        for k in 0..n {
            let site = if reverse { n - 1 - k } else { k };
            let tally = self.propose(spins, &mut |chain, _, flips| {
                flips.push(site);
                generators[chain].uniform()
            });
            self.count(tally);
        }
        self.report.sweeps_without_environments += (spins.len() / n) as u64;
    }

    /// `proposals` random moves of every chain.
    fn random(&mut self, spins: &mut [i8], moves: &[Move], proposals: usize, step: u64) {
        let mut generators = self.generators(spins, step, Stream::Sweep);
        for _ in 0..proposals {
            let tally = self.propose(spins, &mut |chain, spins, flips| {
                let rng = &mut generators[chain];
                let kind = match moves.len() {
                    1 => 0,
                    kinds => rng.below(kinds as u32) as usize,
                };
                moves[kind].draw(spins, rng, flips);
                rng.uniform()
            });
            self.count(tally);
        }
    }

    /// Proposes to flip every spin.
    fn invert(&mut self, spins: &mut [i8], step: u64) {
        let mut generators = self.generators(spins, step, Stream::Global);
        let all = 0..self.sites;
        let tally = self.propose(spins, &mut |chain, _, flips| {
            flips.extend(all.clone());
            generators[chain].uniform()
        });
        self.report.inversions += tally.proposed;
        self.report.inverted += tally.accepted;
    }

    /// Proposes a configuration drawn uniformly.
    fn scatter(&mut self, spins: &mut [i8], step: u64) {
        let mut generators = self.generators(spins, step, Stream::Uniform);
        let (options, mut other) = (self.options, vec![0; self.sites]);
        let tally = self.propose(spins, &mut |chain, spins, flips| {
            options.draw_uniform(&mut other, &mut generators[chain]);
            flips.extend((0..spins.len()).filter(|&i| spins[i] != other[i]));
            generators[chain].uniform()
        });
        self.report.uniform_proposed += tally.proposed;
        self.report.uniform_accepted += tally.accepted;
    }

    fn count(&mut self, tally: Tally) {
        self.report.proposed += tally.proposed;
        self.report.accepted += tally.accepted;
        self.report.not_a_number += tally.not_a_number;
    }

    /// One proposal of every chain: `draw(chain, spins, flips)` fills in the sites
    /// to flip and returns a uniform number for the decision.
    fn propose(&mut self, spins: &mut [i8], draw: Draw<'_>) -> Tally {
        self.know(spins);
        let chains = spins.len() / self.sites;
        self.proposals.resize_with(chains, Proposal::default);
        self.batch.clear();
        let current = spins.chunks_exact(self.sites);
        for (chain, (spins, p)) in current.zip(&mut self.proposals).enumerate() {
            p.flips.clear();
            p.threshold = self
                .options
                .acceptance
                .threshold(draw(chain, spins, &mut p.flips));
            if !p.flips.is_empty() {
                let start = self.batch.len();
                self.batch.extend_from_slice(spins);
                flip(&mut self.batch[start..], &p.flips);
            }
        }
        self.evaluate();
        let mut tally = Tally::default();
        let mut new = self.amplitudes.iter();
        let current = spins.chunks_exact_mut(self.sites).zip(&mut self.log_psi);
        for ((spins, log_psi), p) in current.zip(&self.proposals) {
            tally.proposed += 1;
            if p.flips.is_empty() {
                continue;
            }
            let Some(new) = new.next() else { break };
            let log_ratio = new.re - *log_psi;
            tally.not_a_number += u64::from(log_ratio.is_nan());
            if log_ratio > p.threshold {
                flip(spins, &p.flips);
                *log_psi = new.re;
                tally.accepted += 1;
            }
        }
        tally
    }

    /// Amplitudes of the current configurations, where they are not known.
    fn know(&mut self, spins: &[i8]) {
        if self.log_psi.is_empty() {
            self.batch.clear();
            self.batch.extend_from_slice(spins);
            self.evaluate();
            self.log_psi.extend(self.amplitudes.iter().map(|z| z.re));
        }
    }

    /// Amplitudes of the batch.
    fn evaluate(&mut self) {
        let count = self.batch.len() / self.sites;
        self.amplitudes.clear();
        self.amplitudes.resize(count, Complex64::default());
        if count > 0 {
            self.psi.log_psi(&self.batch, &mut self.amplitudes);
        }
    }
}
