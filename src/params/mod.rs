//! Parameters by name: initial values, files, the flat vector optimisers see.

pub mod count;
mod file;
mod hippo;
mod init;

pub use file::{FileError, Metadata, load, mapping, metadata, save, write_atomically};
pub use init::{InitError, initialise, perturb};

use crate::interp::{Context, EvalError, Tensor};
use crate::ir::{Graph, Lattice};

/// The parameters of a network on a lattice, in declaration order.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Path of each tensor, as in saved files.
    pub paths: Vec<String>,
    /// Place index first (unless `Whole`), then the shape; row major.
    pub tensors: Vec<Tensor>,
}

impl Params {
    /// All zeros, in the shapes the graph declares on this lattice.
    ///
    /// # Errors
    /// Tokens that do not tile the lattice, momenta on an open chain, tensors of more
    /// than 2^31 elements.
    pub fn zeros(graph: &Graph, lattice: Lattice) -> Result<Params, EvalError> {
        let spins = vec![1; lattice.sites()];
        let context = Context::new(lattice, &[], &spins)?;
        let tensors = graph
            .params
            .iter()
            .map(|p| {
                let shape = context.shape(&p.ty)?;
                let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
                match elements.filter(|&n| n <= 1 << 31) {
                    Some(_) => Ok(Tensor::zeros(&shape)),
                    None => Err(EvalError::TooManyElements {
                        path: p.path.clone(),
                    }),
                }
            })
            .collect::<Result<_, EvalError>>()?;
        Ok(Params {
            paths: graph.params.iter().map(|p| p.path.clone()).collect(),
            tensors,
        })
    }

    /// Number of real parameters.
    pub fn count(&self) -> usize {
        self.tensors.iter().map(|t| t.data.len()).sum()
    }

    /// All values in one vector: tensors in order, each row major.
    pub fn flat(&self) -> Vec<f64> {
        self.tensors
            .iter()
            .flat_map(|t| t.data.iter().copied())
            .collect()
    }

    /// Replaces all values; `theta.len()` must be [`Params::count`].
    pub fn set_flat(&mut self, theta: &[f64]) {
        assert_eq!(theta.len(), self.count(), "one value per parameter");
        let mut rest = theta;
        for t in &mut self.tensors {
            let (now, later) = rest.split_at(t.data.len());
            t.data.copy_from_slice(now);
            rest = later;
        }
    }
}
