//! The reference interpreter as a wave function: slow, and right.

use super::full::Full;
use super::{Background, Spins, WaveFunction};
use crate::interp::{EvalError, evaluate};
use crate::ir::{Graph, Lattice};
use crate::params::Params;
use crate::pass::reverse::{ReverseError, Reversed, parameter_gradients};
use num_complex::Complex64;
use rayon::prelude::*;

/// Why a reference wave function cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReferenceError {
    /// The network does not fit the lattice or the parameters.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The network cannot be differentiated.
    #[error(transparent)]
    Reverse(#[from] ReverseError),
}

/// A network evaluated by [`crate::interp`], in full for every configuration.
#[derive(Clone, Debug)]
pub struct Reference {
    graph: Graph,
    lattice: Lattice,
    params: Params,
    theta: Vec<f64>,
    /// Gradients of Re and, for complex networks, Im log psi.
    gradients: Vec<Reversed>,
}

impl Reference {
    /// A network in f64 on a lattice.
    ///
    /// # Errors
    /// Networks that do not fit the lattice, parameters that do not fit the network.
    pub fn new(
        graph: Graph,
        lattice: Lattice,
        params: Params,
    ) -> Result<Reference, ReferenceError> {
        // One evaluation finds whatever does not fit.
        evaluate(&graph, lattice, &params.tensors, &vec![1; lattice.sites()])?;
        let gradients = graph
            .outputs
            .clone()
            .into_iter()
            .map(|out| parameter_gradients(&graph, out))
            .collect::<Result<_, _>>()?;
        let theta = params.flat();
        Ok(Reference {
            graph,
            lattice,
            params,
            theta,
            gradients,
        })
    }

    fn amplitude(&self, spins: &Spins) -> Complex64 {
        match evaluate(&self.graph, self.lattice, &self.params.tensors, spins) {
            Ok(values) => values.log_psi(),
            // Parameters for which a recurrence has no solution: not a number.
            Err(_) => Complex64::new(f64::NAN, f64::NAN),
        }
    }

    /// The gradient of one output: all parameters, flat.
    fn gradient(&self, which: &Reversed, spins: &Spins) -> Vec<f64> {
        match evaluate(&which.graph, self.lattice, &self.params.tensors, spins) {
            Ok(values) => which
                .gradients
                .iter()
                .flat_map(|&g| values.value(g).data.iter().copied())
                .collect(),
            Err(_) => vec![f64::NAN; self.theta.len()],
        }
    }
}

impl WaveFunction for Reference {
    fn lattice(&self) -> Lattice {
        self.lattice
    }
    fn param_count(&self) -> usize {
        self.theta.len()
    }
    fn is_complex(&self) -> bool {
        self.graph.outputs.len() > 1
    }
    fn set_params(&mut self, theta: &[f64]) {
        self.params.set_flat(theta);
        self.theta = theta.to_vec();
    }
    fn params(&self) -> &[f64] {
        &self.theta
    }
    fn log_psi(&self, batch: &Spins, out: &mut [Complex64]) {
        let sites = self.lattice.sites();
        assert_eq!(
            batch.len(),
            out.len() * sites,
            "one result per configuration"
        );
        batch
            .par_chunks(sites)
            .zip(out)
            .for_each(|(s, o)| *o = self.amplitude(s));
    }
    fn gradients(&self, batch: &Spins, row: &(dyn Fn(usize, &[f64], &[f64]) + Sync)) {
        batch
            .par_chunks(self.lattice.sites())
            .enumerate()
            .for_each(|(k, s)| {
                let parts: Vec<Vec<f64>> =
                    self.gradients.iter().map(|g| self.gradient(g, s)).collect();
                let im = parts.get(1).map_or(&[][..], Vec::as_slice);
                row(k, &parts[0], im);
            });
    }
    fn background<'a>(&'a self, spins: &Spins) -> Box<dyn Background + 'a> {
        Box::new(Full::new(self, spins))
    }
    fn sweep(
        &self,
        _: &mut Spins,
        _: bool,
        _: &mut dyn FnMut(usize, Complex64) -> bool,
    ) -> Option<()> {
        None
    }
}
