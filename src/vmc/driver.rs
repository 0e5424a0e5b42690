//! The optimisation loop: sample, local energies, step, record.
//!
//! [`Vmc`] holds all that changes; [`Vmc::checkpoint`] is a plain value from
//! which [`Vmc::resume`] continues with the same bits. Files, signals and
//! progress bars are the caller's: through the observer of [`Vmc::run`].

use super::estimator::{LocalOperator, estimates, summary};
use super::log::RunLog;
use super::lossless;
use super::optim::{self, Guard, GuardOptions, OptimOptions, OptimState, Verdict};
use super::sampler::{
    Report, Sampler, SamplerError, SamplerOptions, SamplerState, Samples, ScreenBound, Target,
    full_sum,
};
use super::stats::{Summary, v_score};
use crate::run::WaveFunction;
use crate::run::values::Values;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Options of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VmcOptions {
    /// Steps to take.
    pub iterations: usize,
    /// Samples per chain and iteration.
    pub samples_per_chain: usize,
    /// Sweeps before the first iteration.
    pub burn_in: usize,
    /// Sweeps discarded at the beginning of every iteration.
    pub discard: usize,
    /// The sampler.
    pub sampler: SamplerOptions,
    /// The optimiser.
    pub optim: OptimOptions,
    /// When steps are rejected.
    #[serde(default)]
    pub guard: GuardOptions,
}

/// Why a run cannot start or go on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum VmcError {
    /// Bad sampler options.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// A number that cannot be used.
    #[error("{0}")]
    Options(String),
    /// No acceptable step.
    #[error("the optimisation failed: {0}")]
    Failed(String),
    /// The machine the wave function runs on.
    #[error("{0}")]
    Machine(String),
    /// The checkpoint belongs to another network.
    #[error("the checkpoint has {stored} parameters, the network has {needed}")]
    ForeignCheckpoint {
        /// Parameters stored.
        stored: usize,
        /// Parameters of the network.
        needed: usize,
    },
}

/// Where the last acceptable energy was found, and the step taken from there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Anchor {
    #[serde(with = "lossless::floats")]
    params: Vec<f64>,
    #[serde(with = "lossless::floats")]
    direction: Vec<f64>,
    #[serde(with = "lossless::floats")]
    rate: Vec<f64>,
    sampler: SamplerState,
    optim: OptimState,
}

/// Everything needed to continue a run with the same bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Iterations completed.
    pub iteration: usize,
    /// Parameters in force.
    #[serde(with = "lossless::floats")]
    pub params: Vec<f64>,
    /// Chains.
    pub sampler: SamplerState,
    /// What has been recorded.
    pub log: RunLog,
    optim: OptimState,
    guard: Guard,
    anchor: Option<Anchor>,
}

/// What a run tells while it goes on.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// An iteration is complete: its number, energy, and what the sampler did.
    Iteration {
        /// From 0.
        iteration: usize,
        /// The energy at the parameters before the step.
        energy: &'a Summary,
        /// The sampler's counts.
        report: &'a Report,
        /// Where its time went, rejected steps since the last one included.
        timings: Timings,
    },
    /// Something the user should know.
    Message(&'a str),
}

/// Seconds of wall time by what they were spent on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timings {
    /// Drawing configurations.
    pub sampling: f64,
    /// Local energies.
    pub estimator: f64,
    /// Gradients of log psi, centred.
    pub gradient: f64,
    /// Linear systems of the optimiser.
    pub solve: f64,
    /// Taking over new parameters.
    pub update: f64,
}

impl Timings {
    /// Name and seconds of every part, in the order of an iteration.
    pub fn parts(&self) -> [(&'static str, f64); 5] {
        [
            ("sampling", self.sampling),
            ("estimator", self.estimator),
            ("gradient", self.gradient),
            ("solve", self.solve),
            ("update", self.update),
        ]
    }

    /// All parts with three significant digits, e.g. `sampling 0.312, ...`.
    pub fn text(&self) -> String {
        let part = |(name, seconds): (&str, f64)| {
            let digits = (2.0 - seconds.max(1e-4).log10().floor()).clamp(0.0, 4.0) as usize;
            format!("{name} {seconds:.digits$}")
        };
        self.parts().map(part).join(", ")
    }
}

impl std::ops::AddAssign for Timings {
    fn add_assign(&mut self, other: Timings) {
        self.sampling += other.sampling;
        self.estimator += other.estimator;
        self.gradient += other.gradient;
        self.solve += other.solve;
        self.update += other.update;
    }
}

/// What `work` returns; its seconds are added to `clock`.
fn timed<R>(clock: &mut f64, work: impl FnOnce() -> R) -> R {
    let started = Instant::now();
    let result = work();
    *clock += started.elapsed().as_secs_f64();
    result
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All iterations are done.
    Finished,
    /// The stop flag was raised.
    Stopped,
    /// The time was up.
    TimeUp,
}

/// Makes a screening bound for the parameters in force.
pub type BoundOf<'a> =
    &'a (dyn for<'p> Fn(&'p dyn WaveFunction) -> Box<dyn ScreenBound + 'p> + Sync);

/// A variational Monte Carlo run.
pub struct Vmc<'a> {
    psi: &'a mut dyn WaveFunction,
    operator: &'a dyn LocalOperator,
    bound: Option<BoundOf<'a>>,
    options: VmcOptions,
    sampler: Sampler,
    optim: OptimState,
    guard: Guard,
    anchor: Option<Anchor>,
    iteration: usize,
    log: RunLog,
    /// Since the last completed iteration.
    timings: Timings,
    /// Parameters that the wave function's machine failed to take over, and why.
    lost: Option<(Vec<f64>, String)>,
}

impl<'a> Vmc<'a> {
    /// A new run from the parameters `psi` has, burn-in included.
    ///
    /// # Errors
    /// Options that make no sense.
    pub fn new(
        psi: &'a mut dyn WaveFunction,
        operator: &'a dyn LocalOperator,
        bound: Option<BoundOf<'a>>,
        options: VmcOptions,
    ) -> Result<Vmc<'a>, VmcError> {
        check(&options)?;
        let mut sampler = Sampler::new(options.sampler.clone(), psi.lattice().sites())?;
        let made = bound.map(|make| make(&*psi));
        sampler.advance(
            Target {
                psi: &*psi,
                bound: made.as_deref(),
            },
            options.burn_in,
        );
        drop(made);
        if let Some(reason) = psi.failure() {
            return Err(VmcError::Machine(reason));
        }
        Ok(Vmc {
            psi,
            operator,
            bound,
            options,
            sampler,
            optim: OptimState::default(),
            guard: Guard::default(),
            anchor: None,
            iteration: 0,
            log: RunLog::default(),
            timings: Timings::default(),
            lost: None,
        })
    }

    /// Continues from a checkpoint. Only `iterations` may differ from the
    /// options it was made with if the numbers are to be the same.
    ///
    /// # Errors
    /// Bad options, or a checkpoint of another network or sampler.
    pub fn resume(
        psi: &'a mut dyn WaveFunction,
        operator: &'a dyn LocalOperator,
        bound: Option<BoundOf<'a>>,
        options: VmcOptions,
        checkpoint: Checkpoint,
    ) -> Result<Vmc<'a>, VmcError> {
        check(&options)?;
        let needed = psi.param_count();
        let lengths = [checkpoint.params.len()].into_iter().chain(
            checkpoint
                .anchor
                .iter()
                .flat_map(|a| [a.params.len(), a.direction.len()]),
        );
        if let Some(stored) = lengths.into_iter().find(|stored| *stored != needed) {
            return Err(VmcError::ForeignCheckpoint { stored, needed });
        }
        let sites = psi.lattice().sites();
        let sampler = Sampler::resume(options.sampler.clone(), sites, checkpoint.sampler)?;
        if let Some(anchor) = &checkpoint.anchor {
            Sampler::resume(options.sampler.clone(), sites, anchor.sampler.clone())?;
        }
        psi.set_params(&checkpoint.params);
        if let Some(reason) = psi.failure() {
            return Err(VmcError::Machine(reason));
        }
        Ok(Vmc {
            psi,
            operator,
            bound,
            options,
            sampler,
            optim: checkpoint.optim,
            guard: checkpoint.guard,
            anchor: checkpoint.anchor,
            iteration: checkpoint.iteration,
            log: checkpoint.log,
            timings: Timings::default(),
            lost: None,
        })
    }

    /// The state of the run between iterations.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            iteration: self.iteration,
            params: self
                .lost
                .as_ref()
                .map_or(self.psi.params(), |(p, _)| p)
                .to_vec(),
            sampler: self.sampler.state().clone(),
            log: self.log.clone(),
            optim: self.optim.clone(),
            guard: self.guard.clone(),
            anchor: self.anchor.clone(),
        }
    }

    /// Iterations completed.
    pub fn iteration(&self) -> usize {
        self.iteration
    }
    /// What has been recorded.
    pub fn log(&self) -> &RunLog {
        &self.log
    }
    /// The wave function.
    pub fn psi(&self) -> &dyn WaveFunction {
        &*self.psi
    }

    /// Iterates until done, stopped, or out of time. The observer is called
    /// between iterations, when a checkpoint may be taken. An interrupted
    /// iteration is undone, so that continuing repeats it in full.
    ///
    /// # Errors
    /// [`VmcError::Failed`]; the run is then back at the last good parameters.
    /// [`VmcError::Machine`]; the iteration is then undone, and a checkpoint continues
    /// with the same bits.
    pub fn run(
        &mut self,
        stop: &AtomicBool,
        max_time: Option<Duration>,
        observer: &mut dyn FnMut(&Vmc, Event),
    ) -> Result<Outcome, VmcError> {
        let started = Instant::now();
        while self.iteration < self.options.iterations {
            if stop.load(Ordering::Relaxed) {
                return Ok(Outcome::Stopped);
            }
            if max_time.is_some_and(|limit| started.elapsed() >= limit) {
                return Ok(Outcome::TimeUp);
            }
            let before = self.sampler.state().clone();
            let mut timings = self.timings;
            let (samples, report) = timed(&mut timings.sampling, || self.draw());
            if stop.load(Ordering::Relaxed) {
                self.sampler.restore(before);
                return Ok(Outcome::Stopped);
            }
            let energies = timed(&mut timings.estimator, || {
                estimates(&*self.psi, self.operator, &samples)
            });
            self.timings = timings;
            let energy = summary(&samples, &*energies);
            let guard = self.guard.clone();
            let verdict = match self.guard.judge(&self.options.guard, &energy) {
                Verdict::Good => self.step(&samples, &*energies, &energy, observer),
                bad => bad,
            };
            let failure = self.psi.failure();
            match verdict {
                Verdict::Good => {
                    // what failed was done in another way
                    if let Some(e) = failure {
                        observer(
                            self,
                            Event::Message(&format!("worked around a failure: {e}")),
                        );
                    }
                    let iteration = self.iteration;
                    self.log
                        .push("Energy", iteration, &energy, self.psi.is_complex());
                    if report.proposed > 0 {
                        self.log
                            .push_scalar("Acceptance", iteration, report.acceptance());
                    }
                    self.iteration += 1;
                    let timings = std::mem::take(&mut self.timings);
                    observer(
                        self,
                        Event::Iteration {
                            iteration,
                            energy: &energy,
                            report: &report,
                            timings,
                        },
                    );
                }
                Verdict::Reject(_) | Verdict::GiveUp(_) if failure.is_some() => {
                    self.sampler.restore(before);
                    self.guard = guard;
                    return Err(VmcError::Machine(failure.unwrap_or_default()));
                }
                Verdict::Reject(text) if self.anchor.is_some() => {
                    self.retry();
                    observer(self, Event::Message(&text));
                }
                Verdict::Reject(text) | Verdict::GiveUp(text) => {
                    if let Some(anchor) = &self.anchor {
                        self.psi.set_params(&anchor.params);
                        self.sampler.restore(anchor.sampler.clone());
                    }
                    return Err(VmcError::Failed(text));
                }
            }
            if let Some((_, reason)) = &self.lost {
                return Err(VmcError::Machine(reason.clone()));
            }
        }
        Ok(Outcome::Finished)
    }

    fn draw(&mut self) -> (Samples, Report) {
        let bound = self.bound.map(|make| make(&*self.psi));
        let target = Target {
            psi: &*self.psi,
            bound: bound.as_deref(),
        };
        self.sampler.advance(target, self.options.discard);
        self.sampler.sample(target, self.options.samples_per_chain)
    }

    /// Finds the step, makes this point the anchor, and moves.
    fn step(
        &mut self,
        samples: &Samples,
        energies: &dyn Values,
        energy: &Summary,
        observer: &mut dyn FnMut(&Vmc, Event),
    ) -> Verdict {
        let mut state = self.optim.clone();
        let started = Instant::now();
        let step = optim::step(
            &self.options.optim,
            &mut state,
            self.iteration,
            &*self.psi,
            samples,
            energies,
        );
        let step = match step {
            Ok(step) => {
                self.timings.gradient += step.gradient_seconds;
                self.timings.solve += started.elapsed().as_secs_f64() - step.gradient_seconds;
                step
            }
            Err(error) => return self.guard.reject(&self.options.guard, &error.to_string()),
        };
        for message in &step.messages {
            observer(self, Event::Message(message));
        }
        self.guard.accept(&self.options.guard, energy);
        self.optim = state;
        self.anchor = Some(Anchor {
            params: self.psi.params().to_vec(),
            direction: step.direction,
            rate: vec![step.rate],
            sampler: self.sampler.state().clone(),
            optim: self.optim.clone(),
        });
        self.retry();
        Verdict::Good
    }

    /// From the anchor along its direction, by the rate now allowed.
    fn retry(&mut self) {
        if let Some(anchor) = &self.anchor {
            let rate = anchor.rate[0] * self.guard.factor();
            let theta: Vec<f64> = anchor
                .params
                .iter()
                .zip(&anchor.direction)
                .map(|(x, d)| x - rate * d)
                .collect();
            timed(&mut self.timings.update, || self.psi.set_params(&theta));
            if self.psi.params() != theta {
                self.lost = self.psi.failure().map(|reason| (theta, reason));
            }
            self.sampler.restore(anchor.sampler.clone());
            self.optim.clone_from(&anchor.optim);
        }
    }
}

fn check(options: &VmcOptions) -> Result<(), VmcError> {
    let refuse = |text: &str| Err(VmcError::Options(text.into()));
    if options.samples_per_chain == 0 {
        return refuse("the number of samples per chain must be at least 1");
    }
    if !options.optim.rate.is_valid() {
        return refuse("the learning rate must be finite and not negative");
    }
    if let optim::Method::Sr(sr) = &options.optim.method {
        if !(sr.shift.absolute.is_valid() && sr.shift.relative.is_valid()) {
            return refuse("diagonal shifts must be finite and not negative");
        }
        if !(0.0..1.0).contains(&sr.momentum) {
            return refuse("the momentum must be at least 0 and below 1");
        }
        if sr
            .max_norm
            .is_some_and(|limit| limit.is_nan() || limit <= 0.0)
        {
            return refuse("the largest step must be positive");
        }
    }
    let guard = &options.guard;
    let fine =
        guard.shrink > 0.0 && guard.shrink < 1.0 && guard.recover >= 1.0 && guard.jump_sigmas > 0.0;
    if !fine || guard.jump_fraction.is_nan() || guard.jump_fraction < 0.0 {
        return refuse(
            "the guard needs 0 < shrink < 1, recover >= 1, jump_sigmas > 0, jump_fraction >= 0",
        );
    }
    Ok(())
}

/// A separate measurement with frozen parameters.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Total energy.
    pub energy: Summary,
    /// Number of sites.
    pub sites: usize,
    /// What the sampler did, burn-in excluded.
    pub report: Report,
    /// Wall time.
    pub time: Duration,
    /// The samples, for further observables.
    pub samples: Samples,
}

impl Evaluation {
    /// V-score, given the energy at infinite temperature.
    pub fn v_score(&self, energy_infinite: f64) -> f64 {
        v_score(
            self.sites,
            self.energy.mean.re,
            self.energy.variance,
            energy_infinite,
        )
    }
}

/// Sums over the whole basis (of one magnetisation, if given): no statistical
/// error, and nothing is overlooked because no chain went there.
pub fn evaluate_exactly(
    psi: &dyn WaveFunction,
    operator: &dyn LocalOperator,
    magnetization: Option<i64>,
) -> Evaluation {
    let started = Instant::now();
    let samples = full_sum(psi, magnetization);
    let energy = summary(&samples, &*estimates(psi, operator, &samples));
    Evaluation {
        energy,
        sites: samples.sites,
        report: Report::default(),
        time: started.elapsed(),
        samples,
    }
}

/// Measures the energy with `per_chain` samples per chain after `burn_in`
/// sweeps of `sampler`.
pub fn evaluate(
    target: Target,
    operator: &dyn LocalOperator,
    sampler: &mut Sampler,
    burn_in: usize,
    per_chain: usize,
) -> Evaluation {
    let started = Instant::now();
    sampler.advance(target, burn_in);
    let (samples, report) = sampler.sample(target, per_chain);
    let energy = summary(&samples, &*estimates(target.psi, operator, &samples));
    Evaluation {
        energy,
        sites: samples.sites,
        report,
        time: started.elapsed(),
        samples,
    }
}
