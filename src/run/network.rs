//! Choosing a back end for a network.

use super::reference::Reference;
use super::{Background, Spins, WaveFunction, reference::Full};
use crate::back::cpu::network::FullEvaluation;
use crate::back::cpu::simd::Real;
use crate::ir::{Graph, Lattice};
use crate::params::Params;
use num_complex::Complex64;

/// Where a network runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Native code through Cranelift
    #[default]
    Cpu,
    /// The reference interpreter, f64 only
    Reference,
}

/// Working precision of the network; sums over sites and all statistics are f64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bit
    #[default]
    F32,
    /// 64 bit
    F64,
}

/// Why a network cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BuildError(String);

impl BuildError {
    fn of(e: impl std::fmt::Display) -> BuildError {
        BuildError(e.to_string())
    }
}

/// A network ready to run.
///
/// # Errors
/// Networks that do not fit the lattice or the parameters, or that the back
/// end cannot compile.
pub fn build(
    graph: &Graph,
    lattice: Lattice,
    params: &Params,
    precision: Precision,
    backend: Backend,
) -> Result<Box<dyn WaveFunction>, BuildError> {
    let reference = Reference::new(graph.clone(), lattice, params.clone()).map_err(BuildError::of)?;
    let theta = params.flat();
    Ok(match (backend, precision) {
        (Backend::Reference, _) => Box::new(reference),
        (Backend::Cpu, Precision::F32) => Box::new(Compiled::<f32> {
            full: FullEvaluation::new(graph.clone(), lattice, &theta, false).map_err(BuildError::of)?,
            reference,
        }),
        (Backend::Cpu, Precision::F64) => Box::new(Compiled::<f64> {
            full: FullEvaluation::new(graph.clone(), lattice, &theta, false).map_err(BuildError::of)?,
            reference,
        }),
    })
}

/// Amplitudes by native code; gradients by the interpreter.
struct Compiled<T: Real> {
    full: FullEvaluation<T>,
    reference: Reference,
}

impl<T: Real> WaveFunction for Compiled<T> {
    fn lattice(&self) -> Lattice {
        self.reference.lattice()
    }
    fn param_count(&self) -> usize {
        self.reference.param_count()
    }
    fn is_complex(&self) -> bool {
        self.reference.is_complex()
    }
    fn set_params(&mut self, theta: &[f64]) {
        self.reference.set_params(theta);
        // Parameters for which a mixer does not exist leave the old code in
        // force; the reference then gives NaN gradients, and the step is undone.
        let _ = self.full.set_params(theta);
    }
    fn params(&self) -> &[f64] {
        self.reference.params()
    }
    fn log_psi(&self, batch: &Spins, out: &mut [Complex64]) {
        self.full.log_psi(batch, out);
    }
    fn gradients(&self, batch: &Spins, row: &(dyn Fn(usize, &[f64], &[f64]) + Sync)) {
        self.reference.gradients(batch, row);
    }
    fn background<'a>(&'a self, spins: &Spins) -> Box<dyn Background + 'a> {
        Box::new(Full::new(self, spins))
    }
    fn sweep(&self, _: &mut Spins, _: bool, _: &mut dyn FnMut(usize, Complex64) -> bool) -> Option<()> {
        None
    }
}
