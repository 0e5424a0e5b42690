//! Reverse-mode differentiation, graph to graph.
//!
//! The adjoint of a value is the derivative of the output with respect to it
//! and has its type: place and shape. Nodes are visited users first; each hands
//! to its operands the part of their adjoints that flows through it
//! (`rules`), and the parts are summed. Only nodes between the wanted values and
//! the output take part. One implementation serves parameter gradients and the
//! background gradients `T_m = d Omega / d v_m`.
//!
//! At the kinks of abs, sign, floor, mod, max and min the derivative is that of
//! one side (abs: 0).

mod build;
mod rules;
mod scan;

use crate::ir::valid::{Fault, Invalid, validate};
use crate::ir::{Graph, NodeId, Op};
use build::Builder;
use std::collections::BTreeMap;

/// Why a graph cannot be differentiated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReverseError {
    /// The graph breaks a typing rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The output is not one number.
    #[error("node {0} is not one number per configuration")]
    NotScalar(usize),
    /// A cotangent that does not have the type of its output.
    #[error("the cotangent of node {0} does not have its type")]
    Cotangent(usize),
    /// Repeated letters of one operand on an axis of run-time length.
    #[error("the diagonal of an axis over all sites has no derivative here")]
    RuntimeDiagonal,
    /// An adjoint that could not be expressed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A graph extended by adjoints; the ids of the original nodes are unchanged.
#[derive(Clone, Debug)]
pub struct Reversed {
    /// The extended graph; parameters and outputs as before.
    pub graph: Graph,
    /// Per wanted value the node holding its derivative, of the same type.
    pub gradients: Vec<NodeId>,
}

/// `d output / d w` for each wanted node w (total derivatives: also through
/// other wanted nodes).
///
/// # Errors
/// Invalid graphs and outputs that are not one number (`Whole`, shape `[]`).
pub fn gradient(
    graph: &Graph,
    output: NodeId,
    wanted: &[NodeId],
) -> Result<Reversed, ReverseError> {
    let ty = graph.ty(output);
    if ty.place != crate::check::core::Place::Whole || !ty.shape.is_empty() {
        return Err(ReverseError::NotScalar(output.index()));
    }
    let mut extended = graph.clone();
    let one = extended.add(Op::Number(1.0), &[])?;
    pullback(&extended, &[(output, one)], wanted)
}

/// `sum_k <cotangent_k, d output_k / d w>` for each wanted node w. Cotangents
/// are nodes of the graph with the types of their outputs.
///
/// # Errors
/// Invalid graphs and cotangents of the wrong type.
pub fn pullback(
    graph: &Graph,
    cotangents: &[(NodeId, NodeId)],
    wanted: &[NodeId],
) -> Result<Reversed, ReverseError> {
    validate(graph)?;
    for &(output, cotangent) in cotangents {
        if graph.ty(output) != graph.ty(cotangent) {
            return Err(ReverseError::Cotangent(output.index()));
        }
    }
    let mut builder = Builder::new(graph.clone());
    let found = builder.pull(cotangents, wanted, 0)?;
    let gradients = wanted
        .iter()
        .zip(found)
        .map(|(&w, g)| match g {
            Some(g) => Ok(g),
            None => {
                let ty = builder.graph.ty(w).clone();
                builder.zeros(&ty)
            }
        })
        .collect::<Result<_, _>>()?;
    Ok(Reversed {
        graph: builder.graph,
        gradients,
    })
}

/// `d output / d parameter` for every parameter of the graph, in order; the
/// uses of one parameter by several nodes are summed.
///
/// # Errors
/// As [`gradient`].
pub fn parameter_gradients(graph: &Graph, output: NodeId) -> Result<Reversed, ReverseError> {
    let uses: Vec<(u32, NodeId)> = graph
        .ids()
        .filter_map(|id| match graph.op(id) {
            Op::Param(index) => Some((*index, id)),
            _ => None,
        })
        .collect();
    let wanted: Vec<NodeId> = uses.iter().map(|u| u.1).collect();
    let Reversed { graph, gradients } = gradient(graph, output, &wanted)?;
    let mut builder = Builder::new(graph);
    let mut per_param = Vec::new();
    for index in 0..builder.graph.params.len() {
        let mut sum = None;
        for (_, &g) in uses
            .iter()
            .zip(&gradients)
            .filter(|(u, _)| u.0 as usize == index)
        {
            sum = Some(builder.accumulate(sum, g)?);
        }
        per_param.push(match sum {
            Some(g) => g,
            None => {
                let ty = builder.graph.params[index].ty.clone();
                builder.zeros(&ty)?
            }
        });
    }
    Ok(Reversed {
        graph: builder.graph,
        gradients: per_param,
    })
}

impl Builder {
    /// Adds adjoints: of `wanted`, from the cotangents of some nodes, through
    /// nodes with index at least `floor` (wanted nodes may lie below).
    /// `None` where an adjoint is zero.
    fn pull(
        &mut self,
        cotangents: &[(NodeId, NodeId)],
        wanted: &[NodeId],
        floor: usize,
    ) -> Result<Vec<Option<NodeId>>, ReverseError> {
        let top = cotangents
            .iter()
            .map(|c| c.0.index() + 1)
            .max()
            .unwrap_or(0);
        let mut active = vec![false; top];
        for w in wanted {
            if let Some(a) = active.get_mut(w.index()) {
                *a = true;
            }
        }
        for id in self.graph.ids().skip(floor).take(top.saturating_sub(floor)) {
            active[id.index()] |= self.graph.args(id).iter().any(|a| active[a.index()]);
        }
        let mut adjoints: BTreeMap<NodeId, NodeId> = BTreeMap::new();
        for &(output, cotangent) in cotangents {
            let sum = self.accumulate(adjoints.get(&output).copied(), cotangent)?;
            adjoints.insert(output, sum);
        }
        for index in (floor..top).rev() {
            let id = NodeId::new(index);
            let Some(&g) = adjoints.get(&id) else {
                continue;
            };
            for (k, operand) in self.graph.args(id).to_vec().into_iter().enumerate() {
                if !active[operand.index()] {
                    continue;
                }
                if let Some(part) = self.operand_adjoint(id, k, g)? {
                    let sum = self.accumulate(adjoints.get(&operand).copied(), part)?;
                    adjoints.insert(operand, sum);
                }
            }
        }
        Ok(wanted.iter().map(|w| adjoints.get(w).copied()).collect())
    }
}
