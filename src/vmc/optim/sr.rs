//! Stochastic reconfiguration in parameter space, or in sample space (minSR,
//! Chen & Heyl 2024), with SPRING momentum (Goldshlager et al. 2024).

use super::jacobian::Jacobian;
use super::schedule::Schedule;
use crate::run::rows::System;
use serde::{Deserialize, Serialize};

/// Memory for gradients where nothing else is said, bytes.
pub(super) const DEFAULT_MEMORY: usize = 1 << 30;

/// Which linear system is solved; the step is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// The smaller one.
    Auto,
    /// Parameters by parameters (SR).
    Parameters,
    /// Samples by samples (minSR).
    Samples,
}

/// What is added to the diagonal of S: `absolute + relative S_kk`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shift {
    /// The same for all parameters.
    pub absolute: Schedule,
    /// In units of the diagonal itself.
    pub relative: Schedule,
}

/// Options of stochastic reconfiguration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SrOptions {
    /// Diagonal shift.
    pub shift: Shift,
    /// Which system is solved.
    pub form: Form,
    /// SPRING's decay mu of the previous step; 0 is plain SR.
    pub momentum: f64,
    /// Largest Euclidean norm of the direction; longer ones are shortened.
    pub max_norm: Option<f64>,
    /// Memory for gradients, bytes; beyond it they are streamed.
    pub memory: usize,
}

impl Default for SrOptions {
    fn default() -> Self {
        let shift = Shift {
            absolute: Schedule::Constant(1e-3),
            relative: Schedule::Constant(0.0),
        };
        SrOptions {
            shift,
            form: Form::Auto,
            momentum: 0.0,
            max_norm: None,
            memory: DEFAULT_MEMORY,
        }
    }
}

/// Why no step was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrError {
    /// Something on the way is NaN or infinite.
    #[error("{0} is not finite")]
    NotFinite(&'static str),
    /// Neither Cholesky nor the eigendecomposition gave a solution.
    #[error("the equations of stochastic reconfiguration have no solution")]
    NoSolution,
}

/// A natural gradient.
#[derive(Clone, Debug)]
pub struct SrStep {
    /// `(S + shift)^-1 F`, momentum included.
    pub direction: Vec<f64>,
    /// Which system was solved.
    pub form: Form,
    /// Remarks for the user.
    pub messages: Vec<String>,
}

/// Solves for the natural gradient at `iteration`.
///
/// With D the diagonal shift, `phi = mu previous` and [`Jacobian`]'s names:
/// `phi + (S + D)^-1 (F - S phi)`, or the identical
/// `phi + D^-1 Obar^T (Obar D^-1 Obar^T + 1)^-1 (eps - Obar phi)`.
/// `previous` may be empty. Parameters log psi does not depend on do not move.
///
/// # Errors
/// A system that cannot be solved.
pub fn natural_gradient(
    options: &SrOptions,
    iteration: usize,
    jacobian: &Jacobian,
    previous: &[f64],
) -> Result<SrStep, SrError> {
    let (p, rows) = (jacobian.params(), jacobian.rows());
    let form = match options.form {
        Form::Auto if p <= rows => Form::Parameters,
        Form::Auto => Form::Samples,
        chosen => chosen,
    };
    let absolute = options.shift.absolute.at(iteration);
    let relative = options.shift.relative.at(iteration);
    let phi: Vec<f64> = if previous.len() == p {
        previous.iter().map(|x| options.momentum * x).collect()
    } else {
        vec![0.0; p]
    };
    let mut residual = jacobian.eps().to_vec();
    if phi.iter().any(|x| *x != 0.0) {
        residual
            .iter_mut()
            .zip(jacobian.apply(&phi))
            .for_each(|(r, x)| *r -= x);
    }
    let solution = match form {
        Form::Samples => {
            // A uniform shift needs no division and may be zero.
            let uniform = relative == 0.0;
            let inverse: Vec<f64> = if uniform {
                vec![1.0; p]
            } else {
                let shift = jacobian
                    .metric_diagonal()
                    .into_iter()
                    .map(|s| absolute + relative * s);
                shift.map(|d| if d > 0.0 { 1.0 / d } else { 0.0 }).collect()
            };
            let system = System::Rows {
                scale: (!uniform).then(|| inverse.clone()),
                shift: if uniform { absolute } else { 1.0 },
            };
            jacobian.solve(&system, &residual).map(|mut solution| {
                let x = jacobian.adjoint(&solution.x);
                solution.x = x.iter().zip(&inverse).map(|(x, d)| x * d).collect();
                solution
            })
        }
        _ => {
            let system = System::Parameters { absolute, relative };
            jacobian.solve(&system, &jacobian.adjoint(&residual))
        }
    };
    let solution = solution.ok_or(SrError::NoSolution)?;
    let mut messages: Vec<String> = solution.message.into_iter().collect();
    if form == Form::Samples && absolute == 0.0 && relative == 0.0 {
        messages.push(
            "in sample space a diagonal shift of 0 leaves a singular matrix (the rows of centred \
             gradients add up to zero): give a positive one"
                .into(),
        );
    }
    let mut direction: Vec<f64> = solution
        .x
        .iter()
        .zip(&phi)
        .map(|(x, phi)| x + phi)
        .collect();
    if let Some(limit) = options.max_norm {
        let norm = direction.iter().map(|x| x * x).sum::<f64>().sqrt();
        if norm > limit {
            direction.iter_mut().for_each(|x| *x *= limit / norm);
            messages.push(format!(
                "the step of norm {norm:.3e} was shortened to {limit:.3e}"
            ));
        }
    }
    Ok(SrStep {
        direction,
        form,
        messages,
    })
}
