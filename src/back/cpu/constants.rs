//! What depends on parameters alone, computed once per parameter set.

use super::correlation::Correlator;
use super::lookup::TableData;
use super::math::Precision;
use super::microkernel::pack;
use super::mixer::{MixerError, Plan};
use super::simd::Real;
use crate::interp::{Context, EvalError, Operand, Tensor, eval_node};
use crate::ir::{Graph, Lattice, NodeId};
use crate::kernel::shape::dims;
use crate::kernel::{Cell, CorrelationKind, DenseGroup, MixChannel, Program, Space, Step};
use rustfft::FftPlanner;
use std::collections::HashMap;

/// A failure to compute the constants of a network.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConstantError {
    /// The reference evaluator refused.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// A mixer cannot be built.
    #[error(transparent)]
    Mixer(#[from] MixerError),
}

/// Constants of a program in working precision `T`.
pub struct Constants<T: Real> {
    /// The pool in working precision.
    pub pool: Vec<T>,
    /// The pool in f64, for values per configuration.
    pub pool64: Vec<f64>,
    /// Site values of the static rows.
    pub statics: Vec<Vec<f64>>,
    /// Packed weights of dense steps on sites.
    pub weights: Vec<T>,
    /// Packed weights of dense steps per configuration.
    pub weights64: Vec<f64>,
    /// What lookups read.
    pub tables: Vec<TableData<T>>,
    /// Mixers.
    pub mixers: Vec<Plan<T>>,
    /// Derivatives with respect to kernels.
    pub correlators: Vec<Correlator<T>>,
    /// Whole values that reference steps read.
    pub kept: HashMap<NodeId, Tensor>,
    /// Numbers in the kernels of mixers and correlations.
    kernels: usize,
}

/// The parameters as tensors from one flat vector, in declaration order.
/// Parameters listed in `inputs` take nothing from it.
///
/// # Errors
/// Shapes that do not exist on the lattice.
///
/// # Panics
/// If `theta` is too short.
pub fn tensors(
    graph: &Graph,
    program: &Program,
    theta: &[f64],
    inputs: &[u32],
) -> Result<Vec<Tensor>, EvalError> {
    let mut at = 0;
    let mut tensors = Vec::with_capacity(graph.params.len());
    for (k, p) in graph.params.iter().enumerate() {
        if inputs.contains(&(k as u32)) {
            tensors.push(Tensor::zeros(&[0]));
            continue;
        }
        let shape = param_shape(program, &p.ty)?;
        let len: usize = shape.iter().product();
        tensors.push(Tensor {
            shape,
            data: theta[at..at + len].to_vec(),
        });
        at += len;
    }
    Ok(tensors)
}

/// Shape of a parameter, place index first.
///
/// # Errors
/// Shapes that do not exist on the lattice.
pub fn param_shape(program: &Program, ty: &crate::ir::NodeType) -> Result<Vec<usize>, EvalError> {
    use crate::check::core::{Place, Token};
    let token = match ty.place {
        Place::Whole => None,
        Place::Site(t) | Place::Displacement(t) | Place::Momentum(t) | Place::Pair(t) => Some(t),
    };
    let lattice = crate::interp::TokenLattice::new(program.lattice, token.unwrap_or(Token::SPIN))?;
    let mut shape = match token {
        Some(_) => vec![lattice.entries(ty.place)?],
        None => Vec::new(),
    };
    shape.extend(dims(program.lattice, ty)?);
    Ok(shape)
}

/// The values of some nodes that depend on parameters alone, and of all they need.
///
/// # Errors
/// What the reference evaluator reports.
pub fn constant_values(
    graph: &Graph,
    lattice: Lattice,
    params: &[Tensor],
    roots: impl Iterator<Item = NodeId>,
) -> Result<Vec<Option<Tensor>>, EvalError> {
    let spins = vec![1i8; lattice.sites()];
    let context = Context::new(lattice, params, &spins)?;
    let mut values: Vec<Option<Tensor>> = vec![None; graph.len()];
    let mut needed = vec![false; graph.len()];
    roots.for_each(|r| needed[r.index()] = true);
    for id in graph.ids().rev() {
        if needed[id.index()] {
            graph.args(id).iter().for_each(|a| needed[a.index()] = true);
        }
    }
    for id in graph.ids().filter(|id| needed[id.index()]) {
        let mut operands = Vec::new();
        for &a in graph.args(id) {
            if let Some(value) = &values[a.index()] {
                operands.push(Operand {
                    ty: graph.ty(a),
                    value,
                });
            }
        }
        let value = eval_node(graph.op(id), graph.ty(id), &operands, &context)?;
        values[id.index()] = Some(value);
    }
    Ok(values)
}

impl<T: Real> Constants<T> {
    /// Evaluates everything constant that the program uses; `tables` holds the
    /// values of its tables.
    ///
    /// # Errors
    /// What the reference evaluator reports, and mixers that do not exist.
    pub fn new(
        graph: &Graph,
        program: &Program,
        params: &[Tensor],
        tables: Vec<TableData<T>>,
        planner: &mut (FftPlanner<T>, FftPlanner<f64>),
    ) -> Result<Constants<T>, ConstantError> {
        Self::with_mixers(graph, program, params, tables, planner, |k| {
            let channels = program.steps.iter().find_map(|s| match s {
                Step::Mix { mixer, channels } if *mixer == k => Some(channels.as_slice()),
                _ => None,
            });
            channels.unwrap_or_default()
        })
    }

    /// As [`Constants::new`], with every mixer in the form other back ends read: as
    /// symbols or a matrix ([`Plan::kernels`]).
    ///
    /// # Errors
    /// As [`Constants::new`].
    pub(in crate::back) fn portable(
        graph: &Graph,
        program: &Program,
        params: &[Tensor],
        planner: &mut (FftPlanner<T>, FftPlanner<f64>),
    ) -> Result<Constants<T>, ConstantError> {
        Self::with_mixers(graph, program, params, Vec::new(), planner, |_| &[])
    }

    /// `applied`: to which rows a mixer is applied, for plans that depend on that.
    fn with_mixers<'p>(
        graph: &Graph,
        program: &'p Program,
        params: &[Tensor],
        tables: Vec<TableData<T>>,
        planner: &mut (FftPlanner<T>, FftPlanner<f64>),
        applied: impl Fn(usize) -> &'p [MixChannel],
    ) -> Result<Constants<T>, ConstantError> {
        let roots = program.scalars.iter().map(|s| s.node);
        let roots = roots.chain(program.statics.iter().map(|s| s.1.node));
        let roots = roots.chain(program.mixers.iter().flat_map(|m| m.kernel.iter().copied()));
        let kernels = |c: &'_ CorrelationKind| match c {
            CorrelationKind::Scan { kernel, .. } => kernel.clone(),
            _ => Vec::new(),
        };
        let roots = roots.chain(program.correlations.iter().flat_map(|c| kernels(&c.kind)));
        let roots = roots.chain(program.kept.iter().copied());
        let values = constant_values(graph, program.lattice, params, roots)?;
        let value = |id: NodeId| values[id.index()].as_ref().expect("marked as needed above");
        let pool64: Vec<f64> = program
            .scalars
            .iter()
            .map(|s| value(s.node).data[s.element as usize])
            .collect();
        let statics = program
            .statics
            .iter()
            .map(|(_, s)| {
                let t = value(s.node);
                let width: usize = t.shape[1..].iter().product();
                t.data
                    .iter()
                    .skip(s.element as usize)
                    .step_by(width)
                    .copied()
                    .collect()
            })
            .collect();
        let mut mixers = Vec::with_capacity(program.mixers.len());
        for (k, m) in program.mixers.iter().enumerate() {
            let kernel: Vec<&Tensor> = m.kernel.iter().map(|&k| value(k)).collect();
            let g = program.geometry(m.space);
            mixers.push(Plan::new(m, applied(k), g, &kernel, planner)?);
        }
        let mut correlators = Vec::with_capacity(program.correlations.len());
        for c in &program.correlations {
            let nodes = kernels(&c.kind);
            let kernel: Vec<&Tensor> = nodes.iter().map(|&k| value(k)).collect();
            correlators.push(Correlator::new(
                c,
                program.geometry(c.space),
                &kernel,
                planner,
            )?);
        }
        let (mut weights, mut weights64) = (Vec::new(), Vec::new());
        for step in &program.steps {
            if let Step::Dense { space, groups } = step {
                for g in groups {
                    let numbers = numbers(g, &pool64);
                    match space {
                        Space::Batch => pack(&numbers, g.x.len(), g.out.len(), &mut weights64),
                        Space::Site(_) => {
                            let numbers: Vec<T> = numbers.into_iter().map(T::rounded).collect();
                            pack(&numbers, g.x.len(), g.out.len(), &mut weights);
                        }
                    }
                }
            }
        }
        let kept = program
            .kept
            .iter()
            .map(|&k| (k, value(k).clone()))
            .collect();
        let pool = pool64.iter().map(|&x| T::rounded(x)).collect();
        let mixing = program.mixers.iter().flat_map(|m| m.kernel.iter().copied());
        let correlating = (program.correlations.iter()).flat_map(|c| kernels(&c.kind));
        let kernels = mixing.chain(correlating).map(|k| value(k).data.len()).sum();
        Ok(Constants {
            pool,
            pool64,
            statics,
            weights,
            weights64,
            tables,
            mixers,
            correlators,
            kept,
            kernels,
        })
    }

    /// Bytes held: exact but for mixers, which count as many numbers as their kernels
    /// and one complex number per channel and site.
    pub fn bytes(&self, program: &Program) -> usize {
        let transformed = program.mixers.iter().map(|m| {
            let channels = m.channels.iter().product::<usize>();
            2 * channels * program.geometry(m.space).segment()
        });
        let correlated =
            (program.correlations.iter()).map(|c| 2 * program.geometry(c.space).segment());
        let wide = self.pool64.len() + self.weights64.len();
        let wide = wide + self.statics.iter().map(Vec::len).sum::<usize>();
        let wide = wide + self.kept.values().map(|t| t.data.len()).sum::<usize>();
        let numbers = self.pool.len() + self.weights.len() + self.kernels;
        let numbers = numbers + transformed.sum::<usize>() + correlated.sum::<usize>();
        let tables = self.tables.iter().map(TableData::bytes).sum::<usize>();
        8 * wide + size_of::<T>() * numbers + tables
    }

    /// Complex numbers of scratch the mixers need for so many samples.
    pub fn scratch(&self, samples: usize) -> usize {
        let mixers = self.mixers.iter().map(|m| m.scratch(samples));
        let correlators = self.correlators.iter().map(Correlator::scratch);
        mixers.chain(correlators).max().unwrap_or(0)
    }

    /// First byte of the pool for code of this precision.
    pub fn pool_for(&self, precision: Precision, space: Space) -> *const u8 {
        debug_assert!(space != Space::Batch || precision == Precision::F64);
        match space {
            Space::Batch => self.pool64.as_ptr().cast(),
            Space::Site(_) => self.pool.as_ptr().cast(),
        }
    }
}

fn numbers(g: &DenseGroup, pool: &[f64]) -> Vec<f64> {
    g.weights
        .iter()
        .map(|w| match *w {
            Cell::Scalar(k) => pool[k as usize],
            Cell::Number(x) => x,
            // lowering puts nothing else here
            Cell::Row(_) | Cell::Static(_) => f64::NAN,
        })
        .collect()
}
