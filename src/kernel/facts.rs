//! What is known about every node before code is made.

use super::LowerError;
use super::shape::row_shape;
use super::table::Tabulation;
use crate::check::core::{Place, Token};
use crate::interp::EvalError;
use crate::ir::{Graph, Lattice, NodeId, Op};
use std::collections::HashMap;

/// What is known about every node before code is made.
pub(super) struct Facts {
    pub(super) live: Vec<bool>,
    pub(super) dynamic: Vec<bool>,
    /// Must be rows of memory.
    pub(super) memory: Vec<bool>,
    /// Evaluations per element if inlined into its users.
    pub(super) uses: Vec<f64>,
}

pub(super) fn is_view(graph: &Graph, id: NodeId) -> bool {
    match graph.op(id) {
        Op::Reshape
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Concat { .. }
        | Op::Broadcast
        | Op::Window { .. } => true,
        Op::Einsum(e) => e.inputs.len() == 1 && super::contract::summed(e).is_empty(),
        _ => false,
    }
}

fn is_elementwise(graph: &Graph, id: NodeId) -> bool {
    match graph.op(id) {
        Op::Map(_) | Op::Zip(_) => true,
        Op::Einsum(e) => e.inputs.len() == 2 && super::contract::summed(e).is_empty(),
        _ => false,
    }
}

impl Facts {
    pub(super) fn new(
        graph: &Graph,
        lattice: Lattice,
        dynamic: Vec<bool>,
        sites: &[NodeId],
        tabulation: &Tabulation,
    ) -> Result<Facts, LowerError> {
        let n = graph.len();
        let (mut live, mut memory, mut uses) = (vec![false; n], vec![false; n], vec![0.0; n]);
        for o in graph.outputs.iter().chain(sites) {
            live[o.index()] = true;
            memory[o.index()] = true;
        }
        let size = |id: NodeId| {
            Ok::<f64, EvalError>(row_shape(lattice, graph.ty(id))?.iter().product::<usize>() as f64)
        };
        for id in graph.ids().rev().filter(|id| dynamic[id.index()]) {
            if !live[id.index()] || tabulation.has(id) {
                continue;
            }
            for &a in graph.args(id) {
                live[a.index()] = true;
                if !dynamic[a.index()] {
                    continue;
                }
                let copies = size(id)? / size(a)?.max(1.0);
                let moved = graph.ty(a).place != graph.ty(id).place;
                if is_view(graph, id) {
                    uses[a.index()] += uses[id.index()] * copies;
                    memory[a.index()] |=
                        memory[id.index()] || moved || matches!(graph.op(id), Op::Window { .. });
                } else if is_elementwise(graph, id) {
                    uses[a.index()] += copies.max(1.0);
                    memory[a.index()] |= moved;
                } else if matches!(graph.op(id), Op::Sum) {
                    // products are summed without being stored
                    uses[a.index()] += 1.0;
                } else {
                    memory[a.index()] = true;
                }
            }
        }
        Ok(Facts {
            live,
            dynamic,
            memory,
            uses,
        })
    }
}

/// For every node whether it depends on the configuration, or on host-written
/// values.
pub(super) fn dynamic(graph: &Graph, inputs: &[u32]) -> Vec<bool> {
    let mut dynamic = vec![false; graph.len()];
    for id in graph.ids() {
        dynamic[id.index()] = match graph.op(id) {
            Op::Spins => true,
            Op::Param(k) => inputs.contains(k),
            _ => graph.args(id).iter().any(|a| dynamic[a.index()]),
        };
    }
    dynamic
}

/// The largest lane offset any window reads at, per token lattice and axis.
pub(super) fn halos(
    graph: &Graph,
    live: &[bool],
    tabulation: &Tabulation,
) -> HashMap<Token, [usize; 2]> {
    let mut reach: Vec<[usize; 2]> = vec![[0, 0]; graph.len()];
    let mut halos: HashMap<Token, [usize; 2]> = HashMap::new();
    for (token, by) in tabulation.halos(graph) {
        let h = halos.entry(token).or_default();
        *h = [0, 1].map(|k| h[k].max(by[k]));
    }
    for id in graph.ids().filter(|id| live[id.index()]) {
        let adjoint = matches!(graph.op(id), Op::WindowAdjoint { .. });
        if !is_view(graph, id) && !adjoint {
            continue;
        }
        let mut r = [0, 0];
        for a in graph.args(id) {
            r = [0, 1].map(|k| r[k].max(reach[a.index()][k]));
        }
        if let Op::Window { lo, hi } | Op::WindowAdjoint { lo, hi } = graph.op(id) {
            r = [0, 1].map(|k| r[k] + lo[k].unsigned_abs().max(hi[k].unsigned_abs()) as usize);
        }
        reach[id.index()] = if adjoint { [0, 0] } else { r };
        if let Place::Site(token) = graph.ty(id).place {
            let h = halos.entry(token).or_default();
            *h = [0, 1].map(|k| h[k].max(r[k]));
        }
    }
    halos
}
