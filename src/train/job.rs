//! A run from start to results.

use super::result::Results;
use super::{Output, Saved, Setup, TrainError};
use crate::back::costs;
use crate::params::Params;
use crate::vmc::driver::{
    self, BoundOf, Outcome, Timings, Vmc, VmcError, evaluate, evaluate_exactly,
};
use crate::vmc::sampler::{Sampler, ScreenBound, Target, Unbounded};
use crate::vmc::stats::Summary;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Where a run starts.
#[derive(Clone, Debug)]
pub enum Start {
    /// From initial parameters.
    Fresh,
    /// From the parameters of another run: its directory or parameter file.
    Warm(PathBuf),
    /// Where this checkpoint was taken.
    Resume(Box<Saved>),
}

/// What a run tells while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Everything is compiled and the chains are warm.
    Started {
        /// Real parameters of the network.
        parameters: usize,
        /// Iterations done before.
        done: usize,
        /// Iterations in all.
        total: usize,
        /// Where files go.
        directory: &'a Path,
    },
    /// An iteration is complete.
    Iteration {
        /// Iterations done.
        done: usize,
        /// Iterations in all.
        total: usize,
        /// The energy at the parameters before the step.
        energy: &'a Summary,
        /// Where its time went.
        timings: Timings,
    },
    /// Something the user should know.
    Message(&'a str),
    /// Training is over and saved; the final measurement begins.
    Evaluating {
        /// Samples to be drawn; none where the whole basis is summed.
        samples: Option<usize>,
    },
}

/// How a run ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// With a measurement.
    Finished(Box<Results>),
    /// All iterations are done; no measurement was asked for.
    Unmeasured,
    /// By the stop flag, after so many iterations; a checkpoint is written.
    Stopped(usize),
    /// The time was up after so many iterations; a checkpoint is written.
    TimeUp(usize),
}

fn failed(error: VmcError) -> TrainError {
    let help = match &error {
        VmcError::Failed(_) => {
            return TrainError::Diverged {
                what: error.to_string(),
                help: "lower `optimiser.rate`, raise `optimiser.shift`, or draw more samples; \
                       the parameters written are the last good ones"
                    .into(),
            };
        }
        VmcError::Machine(_) => {
            "`--resume` goes on from the last checkpoint with the same numbers, with `--backend cpu` without a GPU; \
             `dnetc doctor` says what was found"
        }
        VmcError::ForeignCheckpoint { .. } => "start a new run with --from",
        VmcError::Sampler(_) => "change the keys of [sampler] back, or start a new run with --from",
        VmcError::Options(_) => "change the run file",
    };
    TrainError::new(error.to_string(), help)
}

/// Writes what a run leaves behind and remembers when it began.
struct Recorder<'a> {
    setup: &'a Setup,
    output: &'a Output,
    like: Params,
    before: f64,
    started: Instant,
    /// What the time went into, earlier parts of the run included.
    spent: Timings,
}

impl Recorder<'_> {
    fn seconds(&self) -> f64 {
        self.before + self.started.elapsed().as_secs_f64()
    }

    fn checkpoint(&mut self, vmc: &Vmc) -> Result<(), TrainError> {
        let state = vmc.checkpoint();
        self.like.set_flat(&state.params);
        let saved = Saved::new(self.setup, state, self.seconds(), self.spent);
        self.output
            .checkpoint(&saved, &self.like, &self.setup.metadata)
    }

    /// After an iteration: whatever is due.
    fn iteration(&mut self, vmc: &Vmc) -> Result<(), TrainError> {
        let (done, table) = (vmc.iteration(), &self.setup.run.output);
        if done.is_multiple_of(table.log_every) {
            self.output.log(vmc.log())?;
        }
        if done.is_multiple_of(table.checkpoint_every) {
            self.checkpoint(vmc)?;
        }
        Ok(())
    }
}

/// Trains and measures. Whatever ends the run, a checkpoint is written before
/// this returns, unless it could not be.
///
/// `stop` may be raised from outside; the iteration under way is then undone.
///
/// # Errors
/// Parameters that do not fit, files that cannot be written, an optimisation
/// that diverges in spite of smaller and smaller steps.
pub fn run(
    setup: &Setup,
    start: Start,
    output: &Output,
    stop: &AtomicBool,
    max_time: Option<Duration>,
    tell: &mut dyn FnMut(Event),
) -> Result<Ended, TrainError> {
    let started = Instant::now();
    output.run_file(&setup.run)?;
    let params = match &start {
        Start::Warm(path) => setup.warm(path)?,
        Start::Fresh | Start::Resume(_) => setup.initial()?,
    };
    if let Start::Resume(saved) = &start
        && !costs::set(&saved.costs)
    {
        tell(Event::Message(&format!(
            "the costs in force are not those of the checkpoint ({}): the last digits may differ",
            saved.costs
        )));
    }
    let mut psi = setup.wave_function(&params)?;
    let screens = setup.screen_bound(&params)?.is_some();
    let like = params.clone();
    let derive: BoundOf = &|psi| screen_bound(setup, &like, psi.params());
    let bound = screens.then_some(derive);
    let mut recorder = Recorder {
        setup,
        output,
        like: params,
        before: 0.0,
        started,
        spent: Timings::default(),
    };
    let mut vmc = match start {
        Start::Resume(saved) => {
            saved.check(setup)?;
            recorder.before = saved.seconds;
            recorder.spent = saved.timings;
            Vmc::resume(
                psi.as_mut(),
                &setup.operator,
                bound,
                setup.options.clone(),
                saved.state,
            )
        }
        Start::Fresh | Start::Warm(_) => {
            Vmc::new(psi.as_mut(), &setup.operator, bound, setup.options.clone())
        }
    }
    .map_err(failed)?;
    let total = setup.options.iterations;
    tell(Event::Started {
        parameters: recorder.like.count(),
        done: vmc.iteration(),
        total,
        directory: output.directory(),
    });
    let mut failure = None;
    let mut said = String::new();
    let mut trained = vmc.run(stop, max_time, &mut |vmc, event| match event {
        driver::Event::Iteration {
            energy, timings, ..
        } => {
            let done = vmc.iteration();
            recorder.spent += timings;
            tell(Event::Iteration {
                done,
                total,
                energy,
                timings,
            });
            if let Err(error) = recorder.iteration(vmc) {
                failure = Some(error);
                stop.store(true, Ordering::Relaxed);
            }
        }
        // the same remark at every iteration is one remark
        driver::Event::Message(text) if text == said => {}
        driver::Event::Message(text) => {
            text.clone_into(&mut said);
            tell(Event::Message(text));
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    output.log(vmc.log())?;
    recorder.checkpoint(&vmc)?;
    let done = vmc.iteration();
    match trained.as_mut().map_err(|e| failed(e.clone()))? {
        Outcome::Stopped => return Ok(Ended::Stopped(done)),
        Outcome::TimeUp => return Ok(Ended::TimeUp(done)),
        Outcome::Finished => {}
    }
    let seconds = (recorder.seconds(), recorder.spent);
    let (log, chains) = (vmc.log().clone(), vmc.checkpoint().sampler);
    drop(vmc);
    let results = if setup.run.evaluation.samples == 0 {
        None
    } else {
        let exactly = setup.sums_exactly();
        tell(Event::Evaluating {
            samples: (!exactly).then_some(setup.run.evaluation.samples),
        });
        let made = bound.map(|derive| derive(psi.as_ref()));
        let target = Target {
            psi: psi.as_ref(),
            bound: made.as_deref(),
        };
        let results = measure(setup, target, chains, done, seconds)?;
        match psi.failure() {
            Some(reason) if !results.energy.is_finite() => {
                return Err(failed(VmcError::Machine(reason)));
            }
            Some(reason) => tell(Event::Message(&format!(
                "worked around a failure: {reason}"
            ))),
            None => {}
        }
        Some(results)
    };
    if let Some(results) = &results {
        output.result(results)?;
    }
    if setup.run.output.plots {
        for text in output.plots(&log, results.as_ref())? {
            tell(Event::Message(&text));
        }
    }
    Ok(results.map_or(Ended::Unmeasured, |r| Ended::Finished(Box::new(r))))
}

/// The rigorous bound at the parameters in force. Parameters that have none
/// screen nothing: every decision is then made by the exact ratio.
fn screen_bound(setup: &Setup, like: &Params, theta: &[f64]) -> Box<dyn ScreenBound> {
    let mut params = like.clone();
    params.set_flat(theta);
    match setup.screen_bound(&params) {
        Ok(Some(bound)) => Box::new(bound),
        Ok(None) | Err(_) => Box::new(Unbounded),
    }
}

/// The final measurement, from the chains as training left them and with
/// random numbers of its own.
fn measure(
    setup: &Setup,
    target: Target,
    chains: crate::vmc::sampler::SamplerState,
    iterations: usize,
    seconds: (f64, Timings),
) -> Result<Results, TrainError> {
    let psi = target.psi;
    if setup.sums_exactly() {
        let magnetization = setup.options.sampler.magnetization;
        let evaluation = evaluate_exactly(psi, &setup.operator, magnetization);
        let parameters = psi.param_count();
        return Ok(Results::new(
            setup,
            parameters,
            iterations,
            seconds,
            &evaluation,
        ));
    }
    let options = setup.evaluation_sampler();
    let per_chain = setup.run.evaluation.samples / options.chains;
    let mut sampler =
        Sampler::resume(options, setup.lattice.sites(), chains).map_err(|e| failed(e.into()))?;
    let evaluation = evaluate(
        target,
        &setup.operator,
        &mut sampler,
        setup.run.evaluation.burn_in,
        per_chain,
    );
    Ok(Results::new(
        setup,
        psi.param_count(),
        iterations,
        seconds,
        &evaluation,
    ))
}
