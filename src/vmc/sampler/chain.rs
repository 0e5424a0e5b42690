//! One chain: acceptance rules, random moves, sequential sweeps, inversion.

use super::Target;
use super::options::{Method, SamplerError, SamplerOptions};
use super::report::Report;
use super::typewriter::{self, ErrorBuffer};
use crate::run::Background;
use crate::vmc::rng::{ChainRng, Stream};
use num_complex::Complex64;
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
    fn draw(&self, spins: &[i8], rng: &mut ChainRng, flips: &mut Vec<usize>) {
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

/// One chain during a call; its configuration stays with the caller.
pub(super) struct Walker<'a> {
    options: &'a SamplerOptions,
    target: Target<'a>,
    chain: u32,
    buffer: ErrorBuffer,
    report: Report,
    /// Kept between sweeps by the methods that update it incrementally.
    background: Option<Box<dyn Background + 'a>>,
}

impl<'a> Walker<'a> {
    pub(super) fn new(
        options: &'a SamplerOptions,
        target: Target<'a>,
        chain: u32,
        buffer: ErrorBuffer,
    ) -> Self {
        Walker {
            options,
            target,
            chain,
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
        match &self.options.method {
            Method::Sweep => self.sequential(spins, step % 2 == 1, &mut rng),
            Method::Metropolis { moves, proposals } => {
                self.random(spins, moves, proposals.unwrap_or(spins.len()), &mut rng);
            }
            Method::Typewriter { width, screened } => {
                let background = match &mut self.background {
                    Some(background) => background,
                    empty => empty.insert(self.target.psi.background(spins)),
                };
                typewriter::Pass {
                    width: *width,
                    acceptance: self.options.acceptance,
                    bound: self.target.bound,
                    screened: *screened,
                    buffer: &mut self.buffer,
                    report: &mut self.report,
                }
                .sweep(spins, background.as_mut(), &mut rng);
            }
            Method::FullSum => {}
        }
        if self.options.inversion_every > 0
            && (step + 1).is_multiple_of(self.options.inversion_every)
        {
            self.invert(spins, step);
        }
    }

    /// Every site once, from environments or flip by flip; both read the
    /// random numbers in the order of the proposals and decide alike.
    fn sequential(&mut self, spins: &mut [i8], reverse: bool, rng: &mut ChainRng) {
        let (rule, report) = (self.options.acceptance, &mut self.report);
        let mut decide = |_site: usize, log_ratio: Complex64| {
            let accepted = rule.accepts(log_ratio.re, rng.uniform());
            report.proposed += 1;
            report.accepted += u64::from(accepted);
            report.not_a_number += u64::from(log_ratio.re.is_nan());
            accepted
        };
        if self.target.psi.sweep(spins, reverse, &mut decide).is_some() {
            return;
        }
        let background = match &mut self.background {
            Some(background) => background,
            empty => empty.insert(self.target.psi.background(spins)),
        };
        let n = spins.len();
        for k in 0..n {
            let site = [if reverse { n - 1 - k } else { k }];
            if decide(site[0], background.log_ratio(&site)) {
                background.accept(&site);
                flip(spins, &site);
            }
        }
        self.report.sweeps_without_environments += 1;
    }

    /// `proposals` random moves with exact ratios.
    fn random(&mut self, spins: &mut [i8], moves: &[Move], proposals: usize, rng: &mut ChainRng) {
        let background = match &mut self.background {
            Some(background) => background,
            empty => empty.insert(self.target.psi.background(spins)),
        };
        let mut flips = Vec::new();
        for _ in 0..proposals {
            let kind = if moves.len() == 1 {
                0
            } else {
                rng.below(moves.len() as u32) as usize
            };
            moves[kind].draw(spins, rng, &mut flips);
            let u = rng.uniform();
            self.report.proposed += 1;
            if flips.is_empty() {
                continue;
            }
            let log_ratio = background.log_ratio(&flips).re;
            self.report.not_a_number += u64::from(log_ratio.is_nan());
            if self.options.acceptance.accepts(log_ratio, u) {
                background.accept(&flips);
                flip(spins, &flips);
                self.report.accepted += 1;
            }
        }
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
