//! The screened typewriter sampler (docs/abacus.md, Sec. 7; arXiv:2603.11189).
//!
//! Flips accepted during a pass are not applied to the background at once.
//! Ratios come from the frozen background; with accepted flips F they miss the
//! interaction of F with the proposal j. A bound on what is missing decides
//! most proposals; for the rest the background is rebuilt at the *current*
//! configuration, so that the exact new amplitude is compared with the exact
//! old one. Every decision equals that of exact sampling with the same u.

use super::Target;
use super::moves::flip;
use super::options::SamplerOptions;
use super::report::Report;
use crate::run::Background;
use crate::vmc::lossless;
use crate::vmc::rng::{ChainRng, Stream};
use num_complex::Complex64;
use serde::{Deserialize, Serialize};

/// A rigorous bound on the error of a frozen log ratio.
///
/// For the parameters in force: with `s` the frozen configuration and `s_F`
/// the one with the flips `accepted` made,
/// `|Re[ (log psi(s_F+j) - log psi(s_F)) - (log psi(s+j) - log psi(s)) ]|`
/// must not exceed `log_error(accepted, j)`, rounding of the network's
/// arithmetic included. Infinity is a valid answer: it forces a correction.
pub trait ScreenBound: Send + Sync {
    /// The bound; `accepted` holds distinct sites, none of them `site`.
    fn log_error(&self, accepted: &[usize], site: usize) -> f64;
}

/// The empirical bound: by number of accepted flips, the largest error seen.
///
/// Before the first observation at a count the bound is 0.2, as in the paper.
/// Samples of the first sweeps, while it is still being learnt, must be
/// discarded; it proves nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorBuffer {
    /// Entry n-1: the largest error seen with n accepted flips; NaN if none.
    #[serde(with = "lossless::floats")]
    worst: Vec<f64>,
}

impl ErrorBuffer {
    /// Bound before anything was observed.
    const INITIAL: f64 = 0.2;

    /// The bound in force for `count >= 1` accepted flips.
    pub fn bound(&self, count: usize) -> f64 {
        match self.worst.get(count - 1) {
            Some(worst) if !worst.is_nan() => *worst,
            _ => Self::INITIAL,
        }
    }

    /// The largest error seen with `count >= 1` accepted flips; NaN if none.
    pub(super) fn seen(&self, count: usize) -> f64 {
        self.worst.get(count - 1).copied().unwrap_or(f64::NAN)
    }

    /// Notes an error observed with `count >= 1` accepted flips.
    pub fn observe(&mut self, count: usize, error: f64) {
        if self.worst.len() < count {
            self.worst.resize(count, f64::NAN);
        }
        // f64::max prefers a number to NaN.
        self.worst[count - 1] = self.worst[count - 1].max(error);
    }

    /// Takes over the observations of another chain.
    pub fn merge(&mut self, other: &ErrorBuffer) {
        for (n, error) in other.worst.iter().enumerate() {
            if !error.is_nan() {
                self.observe(n + 1, *error);
            }
        }
    }
}

/// How a typewriter moves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// Sites per block.
    pub(super) width: usize,
    /// Whether bounds may decide.
    pub(super) screened: bool,
}

/// One chain during a call; its configuration stays with the caller.
pub(super) struct Typewriter<'a> {
    options: &'a SamplerOptions,
    rule: Rule,
    target: Target<'a>,
    chain: u32,
    buffer: ErrorBuffer,
    report: Report,
    /// Of the current configuration, kept between sweeps.
    background: Option<Box<dyn Background + 'a>>,
}

impl<'a> Typewriter<'a> {
    pub(super) fn new(
        options: &'a SamplerOptions,
        rule: Rule,
        target: Target<'a>,
        chain: usize,
        buffer: ErrorBuffer,
    ) -> Self {
        Typewriter {
            options,
            rule,
            target,
            chain: chain as u32,
            buffer,
            report: Report::default(),
            background: None,
        }
    }

    pub(super) fn finish(self) -> (Report, ErrorBuffer) {
        (self.report, self.buffer)
    }

    /// Sweep number `step` of this chain, and the inversion due after it.
    pub(super) fn sweep(&mut self, spins: &mut [i8], step: u64) {
        let mut rng = ChainRng::new(self.options.seed, self.chain, step, Stream::Sweep);
        let mut background = match self.background.take() {
            Some(background) => background,
            None => self.target.psi.background(spins),
        };
        self.passes(spins, background.as_mut(), &mut rng);
        self.background = Some(background);
        if self.options.inverts_after(step) {
            self.invert(spins, step);
        }
    }

    /// `width` times: even blocks, then odd ones, one random site in each.
    /// About as many proposals as sites, always the same number.
    fn passes(&mut self, spins: &mut [i8], background: &mut dyn Background, rng: &mut ChainRng) {
        let (n, width) = (spins.len(), self.rule.width);
        let blocks = n.div_ceil(width);
        for pass in 0..2 * width {
            let mut accepted = Vec::new();
            for block in (pass % 2..blocks).step_by(2) {
                let start = block * width;
                let length = width.min(n - start);
                let site = start + rng.below(length as u32) as usize;
                let threshold = self.options.acceptance.threshold(rng.uniform());
                if self.decide(background, &mut accepted, site, threshold) {
                    flip(spins, &[site]);
                    accepted.push(site);
                }
            }
            if !accepted.is_empty() {
                background.accept(&accepted);
            }
        }
    }

    /// Whether the flip at `site` is made: its exact log ratio, real part,
    /// exceeds `threshold`. May rebuild the background and clear `accepted`.
    fn decide(
        &mut self,
        background: &mut dyn Background,
        accepted: &mut Vec<usize>,
        site: usize,
        threshold: f64,
    ) -> bool {
        self.report.proposed += 1;
        let frozen = background.log_ratio(&[site]).re;
        let mut ratio = frozen;
        if !accepted.is_empty() {
            let bound = match self.target.bound {
                Some(bound) => bound.log_error(accepted, site),
                None => self.buffer.bound(accepted.len()),
            };
            let decided = frozen - bound > threshold || frozen + bound <= threshold;
            if self.rule.screened && decided {
                self.report.screened += 1;
            } else {
                background.accept(accepted);
                ratio = background.log_ratio(&[site]).re;
                let error = (ratio - frozen).abs();
                self.buffer.observe(accepted.len(), error);
                self.report.corrections += 1;
                self.report.worst_error = self.report.worst_error.max(error);
                if error > 0.0 {
                    self.report.worst_error_over_bound =
                        self.report.worst_error_over_bound.max(error / bound);
                }
                accepted.clear();
            }
        }
        self.report.not_a_number += u64::from(ratio.is_nan());
        let accept = ratio > threshold;
        self.report.accepted += u64::from(accept);
        accept
    }

    /// Proposes to flip every spin, by two full evaluations.
    fn invert(&mut self, spins: &mut [i8], step: u64) {
        let mut both = spins.to_vec();
        both.extend(spins.iter().map(|s| -s));
        let mut log_psi = [Complex64::default(); 2];
        self.target.psi.log_psi(&both, &mut log_psi);
        let u = ChainRng::new(self.options.seed, self.chain, step, Stream::Global).uniform();
        self.report.inversions += 1;
        if self
            .options
            .acceptance
            .accepts(log_psi[1].re - log_psi[0].re, u)
        {
            spins.iter_mut().for_each(|s| *s = -*s);
            self.background = None;
            self.report.inverted += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_starts_at_a_fifth_then_follows_the_first_error_then_the_maximum() {
        let mut buffer = ErrorBuffer::default();
        assert_eq!(buffer.bound(3), 0.2);
        buffer.observe(3, 0.01);
        assert_eq!((buffer.bound(3), buffer.bound(2)), (0.01, 0.2));
        buffer.observe(3, 0.005);
        assert_eq!(buffer.bound(3), 0.01);
        let mut other = ErrorBuffer::default();
        other.observe(1, 0.5);
        other.observe(3, 0.02);
        buffer.merge(&other);
        assert_eq!(
            (buffer.bound(1), buffer.bound(2), buffer.bound(3)),
            (0.5, 0.2, 0.02)
        );
    }
}
