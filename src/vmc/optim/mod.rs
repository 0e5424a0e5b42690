//! Optimisers: stochastic reconfiguration in parameter or sample space, and
//! first-order methods.
//!
//! With centred, weighted gradients as rows of a real matrix
//! `Obar = [Re sqrt(w)(O - <O>); Im sqrt(w)(O - <O>)]` and `eps` the same of
//! the local energies, `S = Obar^T Obar` and `F = Obar^T eps` are the
//! metric and force of SR: real parameters, log psi complex if need be.
//! Energies descend along `-F` (the gradient is `2 F`).

mod first_order;
mod guard;
mod jacobian;
mod schedule;
mod solve;
mod sr;

pub use first_order::{Adam, AdamState};
pub use guard::{Guard, GuardOptions, Verdict};
pub use jacobian::Jacobian;
pub use schedule::Schedule;
pub use solve::{Solution, solve_positive};
pub use sr::{Form, Shift, SrError, SrOptions, SrStep, natural_gradient};

use super::lossless;
use super::sampler::Samples;
use crate::run::WaveFunction;
use crate::run::values::Values;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Which optimiser, with its schedules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Stochastic reconfiguration: `theta -= rate (S + shift)^-1 F`.
    Sr(SrOptions),
    /// Plain gradient descent: `theta -= rate F`.
    Sgd,
    /// Adam on F.
    Adam(Adam),
}

/// An optimiser's options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptimOptions {
    /// Which one.
    pub method: Method,
    /// Learning rate by iteration.
    pub rate: Schedule,
}

/// What an optimiser remembers between steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OptimState {
    /// The last natural gradient, for SPRING; empty before the first step.
    #[serde(with = "lossless::floats")]
    pub previous: Vec<f64>,
    /// Moments of Adam.
    pub adam: AdamState,
}

/// A step to be taken: `theta -= rate * direction`.
#[derive(Clone, Debug)]
pub struct Step {
    /// Direction, one number per parameter.
    pub direction: Vec<f64>,
    /// Learning rate of this iteration.
    pub rate: f64,
    /// What the user should know, e.g. that Cholesky failed.
    pub messages: Vec<String>,
    /// Seconds of wall time the gradients took.
    pub gradient_seconds: f64,
}

/// The step of iteration `iteration` from samples and their local energies.
/// Updates `state`.
///
/// # Errors
/// [`SrError`] where gradients or energies are not finite or no solve works.
pub fn step(
    options: &OptimOptions,
    state: &mut OptimState,
    iteration: usize,
    psi: &dyn WaveFunction,
    samples: &Samples,
    energies: &dyn Values,
) -> Result<Step, SrError> {
    let rate = options.rate.at(iteration);
    let memory = match &options.method {
        Method::Sr(sr) => sr.memory,
        _ => sr::DEFAULT_MEMORY,
    };
    // the network needs the other half while gradients are computed
    let memory = psi
        .memory_limit()
        .map_or(memory, |limit| memory.min(limit / 2));
    let started = Instant::now();
    let jacobian = Jacobian::new(psi, samples, energies, memory)?;
    let gradient_seconds = started.elapsed().as_secs_f64();
    let (direction, messages) = match &options.method {
        Method::Sr(sr) => {
            let step = natural_gradient(sr, iteration, &jacobian, &state.previous)?;
            if sr.momentum != 0.0 {
                state.previous.clone_from(&step.direction);
            }
            (step.direction, step.messages)
        }
        Method::Sgd => (jacobian.force(), Vec::new()),
        Method::Adam(adam) => {
            let direction = adam.direction(&mut state.adam, &jacobian.force());
            (direction, Vec::new())
        }
    };
    if direction.iter().any(|x| !x.is_finite()) {
        return Err(SrError::NotFinite("the step"));
    }
    Ok(Step {
        direction,
        rate,
        messages,
        gradient_seconds,
    })
}
