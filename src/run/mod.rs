//! Networks at run time: what samplers and estimators may ask of any back end.

pub mod changes;
pub mod clock;
pub mod full;
pub mod network;
pub mod reference;
pub mod rows;
pub mod values;
pub mod walk;

use crate::ir::Lattice;
use changes::Changes;
use num_complex::Complex64;
use rows::CentredRows;
use std::sync::Arc;
use values::Values;
use walk::{Screened, Tally, Walk};

/// A configuration: +1 or -1 per spin, sites in row-major order.
pub type Spins = [i8];

/// Receives gradients: sample, d Re log psi, d Im log psi (empty if real).
pub type GradientRow<'a> = &'a (dyn Fn(usize, &[f64], &[f64]) + Sync);

/// What a wave function can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// log psi of one configuration.
    LogPsi,
    /// Its gradient.
    Gradient,
    /// All single flips of a new background, or of one configuration of many.
    Flips,
    /// One proposal of an exact sweep by environments.
    Sweep,
}

/// How a task is done, and what it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Strategy {
    /// In words.
    pub name: &'static str,
    /// Bytes of working memory per thread; 0: not known.
    pub bytes: usize,
    /// Floating-point operations; NaN: not counted.
    pub flops: f64,
    /// Operations per nanosecond that one core could do at best; NaN: not known.
    pub peak: f64,
    /// Bytes read from and written to a device's memory, at least; NaN: not counted.
    pub traffic: f64,
}

/// What a device does at best, measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Operations per nanosecond in working precision, a multiply-add counting two.
    pub flops: f64,
    /// Bytes per nanosecond read from and written to its memory.
    pub bytes: f64,
}

/// What a thread works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Samples at a time.
    pub samples: usize,
    /// Bytes of working memory for them.
    pub bytes: usize,
}

/// A wave function with parameters, on a given lattice, on some back end.
///
/// Parameters are one flat vector in declaration order (each tensor row
/// major). Log amplitudes are natural logarithms; only differences and
/// `exp` of them are meaningful (the imaginary part is defined modulo 2 pi).
pub trait WaveFunction: Send + Sync {
    /// The lattice it was built for.
    fn lattice(&self) -> Lattice;
    /// Number of real parameters.
    fn param_count(&self) -> usize;
    /// Whether log psi has an imaginary part.
    fn is_complex(&self) -> bool;
    /// Replaces all parameters and rebuilds what depends on them alone.
    fn set_params(&mut self, theta: &[f64]);
    /// The parameters in force.
    fn params(&self) -> &[f64];
    /// Bytes that it, and what is computed from it, may work in; `None`: no limit.
    fn memory_limit(&self) -> Option<usize> {
        None
    }
    /// `log psi` of each configuration; `batch.len() == out.len() * sites`.
    fn log_psi(&self, batch: &Spins, out: &mut [Complex64]);
    /// Gradients `d log psi / d theta` per configuration; calls
    /// `row(sample, re, im)` once per configuration (`im` empty for real
    /// networks), in any order, possibly from several threads.
    fn gradients(&self, batch: &Spins, row: GradientRow);
    /// Gradients of configurations, centred and weighted as optimisers need them
    /// (one weight each, adding up to 1), if the back end keeps them itself and has
    /// room for them.
    fn centred_rows(&self, _batch: &Spins, _weights: &[f64]) -> Option<Box<dyn CentredRows>> {
        None
    }
    /// How a task is done.
    fn strategy(&self, _task: Task) -> Strategy {
        Strategy {
            name: "reference",
            bytes: 0,
            flops: f64::NAN,
            peak: f64::NAN,
            traffic: f64::NAN,
        }
    }
    /// What the device it runs on does at best; measured anew at every call. `None`
    /// without a device, or where it failed.
    fn peak(&self) -> Option<Peak> {
        None
    }
    /// What went wrong on its machine since this was last asked, one sentence: numbers
    /// that were asked for meanwhile may be NaN, and parameters not those that were set.
    fn failure(&self) -> Option<String> {
        None
    }
    /// Why there is no way of its own to do a task: it is done by full evaluations.
    /// `None` where there is one.
    fn why_in_full(&self, _task: Task) -> Option<String> {
        Some("this back end evaluates everything in full".to_owned())
    }
    /// What a thread works in for a task, where that is planned ahead.
    fn room(&self, _task: Task) -> Option<Room> {
        None
    }
    /// Everything needed to evaluate local changes of one configuration.
    fn background<'a>(&'a self, spins: &Spins) -> Box<dyn Background + 'a>;
    /// One exact sequential sweep: proposes every single-spin flip once, in
    /// site order or in reverse, each with the exact `log psi(s') - log psi(s)`
    /// of the *current* configuration; flips where `decide(site, log_ratio)`
    /// says so. Returns `None`, touching nothing, where this network has no
    /// sweep cheaper than re-evaluation.
    fn sweep(
        &self,
        spins: &mut Spins,
        reverse: bool,
        decide: &mut dyn FnMut(usize, Complex64) -> bool,
    ) -> Option<()>;
    /// As [`WaveFunction::sweep`], by environments wherever there are any, whatever
    /// they cost. `None` where there are none: [`WaveFunction::why_in_full`] says why.
    fn sweep_by_environments(
        &self,
        _spins: &mut Spins,
        _reverse: bool,
        _decide: &mut dyn FnMut(usize, Complex64) -> bool,
    ) -> Option<()> {
        None
    }
    /// Whether [`WaveFunction::local_sums`] does anything.
    fn has_local_sums(&self) -> bool {
        false
    }
    /// The sums over local changes of many configurations, where the back end computed
    /// them. `None` where it has no way of its own, or it failed.
    fn local_sums(&self, _batch: &Spins, _changes: &Arc<Changes>) -> Option<Box<dyn Values>> {
        None
    }
    /// Whether [`WaveFunction::walk`] does anything.
    fn moves_chains(&self) -> bool {
        false
    }
    /// Moves Markov chains, their configurations one after the other, on the back
    /// end itself. `None`, touching nothing, where it leaves them to the caller.
    fn walk(&self, _chains: &mut Spins, _walk: &Walk) -> Option<Tally> {
        None
    }
    /// As [`WaveFunction::walk`] by the typewriter, with empirical bounds: `errors`
    /// are the largest ones seen by number of accepted flips, as many for every chain
    /// as a pass has proposals, NaN where none was seen.
    fn typewriter(
        &self,
        _chains: &mut Spins,
        _walk: &Walk,
        _errors: &mut [f64],
    ) -> Option<(Tally, Screened)> {
        None
    }
}

/// The cached state of one configuration, from which local changes are cheap.
pub trait Background: Send {
    /// `log psi` of the background configuration.
    fn log_psi(&self) -> Complex64;
    /// `log psi(s') - log psi(s)` where s' is the background with the spins
    /// at `flips` (distinct sites) flipped.
    fn log_ratio(&mut self, flips: &[usize]) -> Complex64;
    /// `log_ratio` of many clusters: cluster k is
    /// `sites[ends[k - 1]..ends[k]]` (from 0 for the first). Back ends evaluate
    /// them together.
    ///
    /// # Panics
    /// If `ends` and `out` differ in length or `ends` exceeds `sites`.
    fn log_ratios(&mut self, sites: &[usize], ends: &[usize], out: &mut [Complex64]) {
        assert_eq!(ends.len(), out.len(), "one result per cluster");
        let mut start = 0;
        for (&end, out) in ends.iter().zip(out) {
            *out = self.log_ratio(&sites[start..end]);
            start = end;
        }
    }
    /// `log_ratio` of every single-spin flip, in site order: the connected
    /// elements of a transverse field. `out` has one entry per site.
    fn single_flips(&mut self, out: &mut [Complex64]) {
        for (site, out) in out.iter_mut().enumerate() {
            *out = self.log_ratio(&[site]);
        }
    }
    /// Does now what all single-spin flips have in common; `false` where that is
    /// nothing that can be done ahead.
    fn prepare(&mut self) -> bool {
        false
    }
    /// Makes the background with `flips` applied the new background.
    fn accept(&mut self, flips: &[usize]);
}
