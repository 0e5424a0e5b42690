//! From pooled values to log psi: the last values that are still affine in them
//! (the features Omega), and the readout behind, in f64.

use crate::back::cpu::compiled::{CompileError, Compiled};
use crate::back::cpu::constants::{ConstantError, tensors};
use crate::back::cpu::simd::Real;
use crate::interp::{Context, Operand, Tensor, eval_node};
use crate::ir::NodeId;
use crate::pass::flips::{Frontier, NoFlips};
use crate::pass::normal_form::NormalForm;
use num_complex::Complex64;
use std::collections::HashMap;

/// Features formed together.
pub(super) const CHUNK: usize = 8;

/// `Omega = weights pooled + constant`.
pub(super) struct Features {
    /// Features.
    pub count: usize,
    /// Pooled components, pool after pool, x features, a multiple of [`CHUNK`] of them.
    weights: Vec<f64>,
    /// What Omega is without anything pooled.
    pub constant: Vec<f64>,
}

impl Features {
    /// What a pooled component adds to the features, whole chunks of them.
    pub fn weights(&self, pooled: usize) -> &[f64] {
        let padded = self.count.next_multiple_of(CHUNK);
        &self.weights[pooled * padded..][..padded]
    }
}

/// `log psi = F(Omega)`.
pub(super) struct Readout<T: Real> {
    compiled: Compiled<T>,
    frontier: Vec<NodeId>,
}

impl<T: Real> Readout<T> {
    /// Compiles what follows the features.
    pub fn new(network: &Compiled<T>, form: &NormalForm) -> Result<Readout<T>, super::Refusal> {
        let graph = network.graph();
        let frontier = Frontier::new(graph, form)?;
        let (readout, inputs) = frontier.readout(graph);
        let compiled =
            Compiled::with_inputs(readout, network.lattice(), network.params(), &inputs, false)?;
        Ok(Readout {
            compiled,
            frontier: frontier.nodes,
        })
    }

    /// Follows new parameters.
    pub fn set_params(&mut self, theta: &[f64]) -> Result<(), CompileError> {
        let prepared = self.compiled.prepare(theta)?;
        self.compiled.install(prepared);
        Ok(())
    }

    /// `log psi`.
    pub fn log_psi(&self, omega: &[f64]) -> Complex64 {
        let mut z = Complex64::ZERO;
        self.compiled.map_here(1, &|_| omega, &mut |_, value| {
            z = Complex64::new(value[0], value.get(1).copied().unwrap_or(0.0));
        });
        z
    }

    /// The affine map to the features, by pushing unit vectors through it.
    pub fn features(
        &self,
        network: &Compiled<T>,
        form: &NormalForm,
    ) -> Result<Features, CompileError> {
        let (graph, lattice) = (network.graph(), network.lattice());
        let program = network.program();
        let params = tensors(graph, program, network.params(), &[]).map_err(ConstantError::from)?;
        let spins = vec![1; lattice.sites()];
        let context = Context::new(lattice, &params, &spins).map_err(ConstantError::from)?;
        let mut needed = vec![false; graph.len()];
        self.frontier.iter().for_each(|n| needed[n.index()] = true);
        let mut pools: HashMap<NodeId, Tensor> = HashMap::new();
        for pool in &form.pools {
            let shape = context
                .shape(graph.ty(pool.output))
                .map_err(ConstantError::from)?;
            pools.insert(pool.output, Tensor::zeros(&shape));
        }
        for id in graph.ids().rev() {
            if needed[id.index()] && !pools.contains_key(&id) {
                graph.args(id).iter().for_each(|a| needed[a.index()] = true);
            }
        }
        let mut constants: HashMap<NodeId, Tensor> = HashMap::new();
        let mut evaluate = |pools: &HashMap<NodeId, Tensor>| -> Result<Vec<f64>, CompileError> {
            let mut values: HashMap<NodeId, Tensor> = pools.clone();
            for id in graph.ids().filter(|id| needed[id.index()]) {
                if values.contains_key(&id) || constants.contains_key(&id) {
                    continue;
                }
                let known = |a: &NodeId| values.get(a).or_else(|| constants.get(a));
                let operands: Vec<Operand> = graph
                    .args(id)
                    .iter()
                    .filter_map(|a| {
                        let value = known(a)?;
                        Some(Operand {
                            ty: graph.ty(*a),
                            value,
                        })
                    })
                    .collect();
                let value = eval_node(graph.op(id), graph.ty(id), &operands, &context)
                    .map_err(ConstantError::from)?;
                let fixed = graph.args(id).iter().all(|a| constants.contains_key(a));
                if fixed {
                    constants.insert(id, value);
                } else {
                    values.insert(id, value);
                }
            }
            let all = self.frontier.iter();
            Ok(all
                .filter_map(|n| values.get(n).or_else(|| constants.get(n)))
                .flat_map(|t| t.data.iter().copied())
                .collect())
        };
        let constant = evaluate(&pools)?;
        let mut columns = Vec::new();
        for pool in &form.pools {
            for r in 0..pools[&pool.output].data.len() {
                let mut unit = pools.clone();
                if let Some(t) = unit.get_mut(&pool.output) {
                    t.data[r] = 1.0;
                }
                columns.push(evaluate(&unit)?);
            }
        }
        let (count, pooled) = (constant.len(), columns.len());
        let padded = count.next_multiple_of(CHUNK);
        let mut weights = vec![0.0; pooled * padded];
        for (row, column) in weights.chunks_exact_mut(padded.max(1)).zip(&columns) {
            for (to, (x, origin)) in row.iter_mut().zip(column.iter().zip(&constant)) {
                *to = x - origin;
            }
        }
        Ok(Features {
            count,
            weights,
            constant,
        })
    }
}

impl From<NoFlips> for super::Refusal {
    fn from(e: NoFlips) -> Self {
        super::Refusal::Derivation(e.to_string())
    }
}
