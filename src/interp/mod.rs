//! The reference interpreter: the meaning of a [`Graph`], executed slowly.
//!
//! f64, direct sums, one node after the other. It shares no code with any pass
//! or back end, so that it can be the oracle for all of them: what it lacks in
//! speed it must make up for in being obviously what [`crate::ir`] says.

pub mod arbitrary;
mod context;
mod eval;
mod mixers;
mod places;
mod pointwise;
mod scan;
mod structure;
mod tensor;

pub use context::Context;
pub use eval::{Operand, eval_node};
pub use places::TokenLattice;
pub use pointwise::{erf, map, zip};
pub use tensor::Tensor;

use crate::ir::valid::{Invalid, validate};
use crate::ir::{Graph, Lattice, NodeId};
use num_complex::Complex64;
use std::collections::HashMap;

/// Why a graph cannot be evaluated on these inputs.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// The graph breaks a typing rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A lattice axis has no spins.
    #[error("the lattice has no spins along axis {axis}")]
    EmptyLattice {
        /// The axis.
        axis: usize,
    },
    /// Tokens do not tile the lattice.
    #[error("tokens of {token} spins do not tile {extent} spins along axis {axis}")]
    Tiling {
        /// The axis.
        axis: usize,
        /// Spins along it.
        extent: usize,
        /// Spins per token along it.
        token: usize,
    },
    /// A length `scale * N / per` is not an integer.
    #[error("{scale} * {sites} / {per} is not an integer")]
    FractionalLength {
        /// Numerator.
        scale: usize,
        /// Number of spins.
        sites: usize,
        /// Denominator.
        per: usize,
    },
    /// A value is indexed by momenta but the boundary is open.
    #[error("momenta exist on a ring only, the boundary is open")]
    MomentumOnOpenChain,
    /// A recurrence on a lattice with two axes.
    #[error("a scan runs along a chain, the lattice has {0} rows of tokens")]
    ScanOnSquare(usize),
    /// 1 - A^T has no inverse, so the recurrence has no unique periodic solution.
    #[error("the recurrence has no unique periodic solution (an eigenvalue is a root of unity)")]
    SingularScan,
    /// A parameter that fits no memory.
    #[error("parameter `{path}` has more than 2^31 elements on this lattice")]
    TooManyElements {
        /// The parameter.
        path: String,
    },
    /// Wrong number of parameter tensors.
    #[error("{expected} parameter tensors expected, {found} given")]
    ParamCount {
        /// Declared.
        expected: usize,
        /// Given.
        found: usize,
    },
    /// A parameter tensor of the wrong shape (place index first).
    #[error("parameter `{path}` has shape {expected:?}, {found:?} given")]
    ParamShape {
        /// Its path.
        path: String,
        /// Declared.
        expected: Vec<usize>,
        /// Given.
        found: Vec<usize>,
    },
    /// Wrong number of spins.
    #[error("the lattice has {expected} spins, {found} given")]
    SpinCount {
        /// Sites of the lattice.
        expected: usize,
        /// Given.
        found: usize,
    },
    /// A spin that is neither +1 nor -1.
    #[error("spin {site} is {value}, not +1 or -1")]
    SpinValue {
        /// Which.
        site: usize,
        /// Its value.
        value: i8,
    },
    /// A substituted value does not have the type of the node it replaces.
    #[error("node {node} has shape {expected:?}, a value of shape {found:?} was substituted")]
    Substitution {
        /// Index of the node.
        node: usize,
        /// Its shape (place index first).
        expected: Vec<usize>,
        /// Given.
        found: Vec<usize>,
    },
}

/// The value of every node at one configuration.
#[derive(Clone, Debug)]
pub struct Evaluation {
    values: Vec<Tensor>,
    outputs: Vec<NodeId>,
}

impl Evaluation {
    /// The value of a node; place index as leading axis unless `Whole`.
    pub fn value(&self, id: NodeId) -> &Tensor {
        &self.values[id.index()]
    }

    /// `log psi` from the outputs `[Re]` or `[Re, Im]`; zero where the graph
    /// has no outputs.
    pub fn log_psi(&self) -> Complex64 {
        let part = |k: usize| {
            self.outputs
                .get(k)
                .and_then(|&o| self.value(o).data.first())
                .copied()
                .unwrap_or(0.0)
        };
        Complex64::new(part(0), part(1))
    }
}

/// Evaluates every node of `graph` on a configuration (one spin, +1 or -1, per
/// site in row-major order, x slowest) with the given parameter tensors.
///
/// # Errors
/// Invalid graphs, tokens that do not tile the lattice, momenta on an open
/// chain, scans on a square, and inputs of the wrong length or shape.
pub fn evaluate(
    graph: &Graph,
    lattice: Lattice,
    params: &[Tensor],
    spins: &[i8],
) -> Result<Evaluation, EvalError> {
    evaluate_with(graph, lattice, params, spins, &HashMap::new())
}

/// The value of one node, evaluating nothing it does not depend on.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_node(
    graph: &Graph,
    lattice: Lattice,
    params: &[Tensor],
    spins: &[i8],
    node: NodeId,
) -> Result<Tensor, EvalError> {
    let context = Context::new(lattice, params, spins)?;
    let mut needed = vec![false; node.index() + 1];
    needed[node.index()] = true;
    for k in (0..=node.index()).rev() {
        if needed[k] {
            let operands = graph.args(NodeId::new(k));
            operands.iter().for_each(|a| needed[a.index()] = true);
        }
    }
    let mut values: Vec<Tensor> = Vec::with_capacity(needed.len());
    for (id, needed) in graph.ids().zip(&needed) {
        let operands = |&a: &NodeId| Operand {
            ty: graph.ty(a),
            value: &values[a.index()],
        };
        let value = if *needed {
            let operands: Vec<Operand> = graph.args(id).iter().map(operands).collect();
            eval_node(graph.op(id), graph.ty(id), &operands, &context)?
        } else {
            Tensor::zeros(&[0])
        };
        values.push(value);
    }
    Ok(values.swap_remove(node.index()))
}

/// As [`evaluate`], with the values of some nodes replaced before their users
/// read them (for derivatives with respect to intermediate values).
///
/// # Errors
/// As [`evaluate`], and substituted values of the wrong shape.
pub fn evaluate_with(
    graph: &Graph,
    lattice: Lattice,
    params: &[Tensor],
    spins: &[i8],
    substitutes: &HashMap<NodeId, Tensor>,
) -> Result<Evaluation, EvalError> {
    validate(graph)?;
    let context = Context::new(lattice, params, spins)?;
    context.check_params(graph)?;
    let mut values: Vec<Tensor> = Vec::with_capacity(graph.len());
    for id in graph.ids() {
        let value = match substitutes.get(&id) {
            Some(value) => {
                let expected = context.shape(graph.ty(id))?;
                if value.shape != expected {
                    let found = value.shape.clone();
                    return Err(EvalError::Substitution {
                        node: id.index(),
                        expected,
                        found,
                    });
                }
                value.clone()
            }
            None => {
                let operands: Vec<Operand> = graph
                    .args(id)
                    .iter()
                    .map(|&a| Operand {
                        ty: graph.ty(a),
                        value: &values[a.index()],
                    })
                    .collect();
                eval_node(graph.op(id), graph.ty(id), &operands, &context)?
            }
        };
        values.push(value);
    }
    Ok(Evaluation {
        values,
        outputs: graph.outputs.clone(),
    })
}
