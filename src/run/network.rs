//! Choosing a back end for a network.

use super::WaveFunction;
use super::reference::Reference;
use crate::back::cpu::network::CpuNetwork;
use crate::back::cuda::driver::Gpu;
use crate::back::cuda::emit::Options;
use crate::back::cuda::network::CudaNetwork;
use crate::ir::{Graph, Lattice};
use crate::params::Params;

/// Where a network runs.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Native code through Cranelift
    #[default]
    Cpu,
    /// An NVIDIA GPU
    Cuda,
    /// A GPU if there is one, else the CPU
    Auto,
    /// The reference interpreter, f64 only
    Reference,
}

/// Working precision of the network; sums over sites and all statistics are f64.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    clap::ValueEnum,
)]
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
    fit(graph, lattice, params)?;
    let theta = params.flat();
    let graph = graph.clone();
    let options = Options::new(precision);
    let on_gpu = || {
        let device = Gpu::first().map_err(BuildError::of)?;
        CudaNetwork::new(device, &graph, lattice, &theta, &options).map_err(BuildError::of)
    };
    let backend = match backend {
        Backend::Cuda => {
            return Ok(Box::new(on_gpu().map_err(|e| {
                BuildError(format!(
                    "{e}; `--backend cpu` needs no GPU, `dnetc doctor` says more"
                ))
            })?));
        }
        Backend::Auto => match on_gpu() {
            Ok(network) => return Ok(Box::new(network)),
            Err(e) => {
                tracing::info!("running on the CPU: {e}");
                Backend::Cpu
            }
        },
        other => other,
    };
    Ok(match (backend, precision) {
        (Backend::Reference, _) => {
            Box::new(Reference::new(graph, lattice, params.clone()).map_err(BuildError::of)?)
        }
        (_, Precision::F32) => {
            Box::new(CpuNetwork::<f32>::new(graph, lattice, &theta).map_err(BuildError::of)?)
        }
        (_, Precision::F64) => {
            Box::new(CpuNetwork::<f64>::new(graph, lattice, &theta).map_err(BuildError::of)?)
        }
    })
}

/// Whether the network exists on the lattice and the parameters are its own.
fn fit(graph: &Graph, lattice: Lattice, params: &Params) -> Result<(), BuildError> {
    let like = Params::zeros(graph, lattice).map_err(BuildError::of)?;
    if like.tensors.len() != params.tensors.len() {
        return Err(BuildError(format!(
            "the network has {} parameter tensors, {} were given",
            like.tensors.len(),
            params.tensors.len()
        )));
    }
    for ((path, own), given) in like.paths.iter().zip(&like.tensors).zip(&params.tensors) {
        if own.shape != given.shape || own.data.len() != given.data.len() {
            return Err(BuildError(format!(
                "parameter `{path}` has shape {:?} on this lattice, {:?} was given",
                own.shape, given.shape
            )));
        }
    }
    Ok(())
}
