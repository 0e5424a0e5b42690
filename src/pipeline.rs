//! The stages between a checked network and its users, as a list.
//!
//! ```text
//! check -> lower -> simplify -> fuse -> simplify = amplitude -+-> gradients = adjoints -> simplify
//!                  |                                         +-> normal form -> ABACUS, environments,
//!                  +-> parameters: initialisation, files     |                  cost, derivation
//!                                                            +-> kernels
//! ```
//!
//! Every stage takes a valid graph to a valid graph and keeps parameters and
//! outputs in their order.

use crate::check::core::NetworkInfo;
use crate::ir::lower::Parts;
use crate::ir::{Graph, Lowered, NodeId, lower};
use crate::pass::fuse::fuse;
use crate::pass::reverse::{ReverseError, Reversed, parameter_gradients};
use crate::pass::simplify::{Simplified, simplify};

/// The simplified graph of a network, with the nodes of all its values.
pub fn graph(info: &NetworkInfo) -> Lowered {
    let Lowered { graph, parts } = lower(info);
    let values: Vec<NodeId> = parts
        .iter()
        .flat_map(|p| [p.re, p.im.unwrap_or(p.re)])
        .collect();
    let Simplified { graph, kept } = simplify(&graph, &values);
    let parts = parts
        .iter()
        .zip(kept.chunks_exact(2))
        .map(|(old, new)| Parts {
            re: new[0],
            im: old.im.map(|_| new[1]),
        })
        .collect();
    Lowered { graph, parts }
}

/// Only what `log psi` depends on, with chains of affine maps on one site composed.
pub fn amplitude(lowered: &Lowered) -> Graph {
    let needed = simplify(&lowered.graph, &[]).graph;
    simplify(&fuse(&needed), &[]).graph
}

/// `log psi` and its derivatives with respect to all parameters, in one graph.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// Outputs as before; forward values are shared.
    pub graph: Graph,
    /// By output (Re, then Im log psi) and parameter: a node of the parameter's type.
    pub nodes: Vec<Vec<NodeId>>,
}

/// Derivatives of every output of `graph` with respect to every parameter.
///
/// # Errors
/// As [`parameter_gradients`].
pub fn gradients(graph: &Graph) -> Result<Gradients, ReverseError> {
    let mut extended = graph.clone();
    let mut wanted: Vec<NodeId> = vec![];
    for &output in &graph.outputs {
        let Reversed { graph, gradients } = parameter_gradients(&extended, output)?;
        extended = graph;
        wanted.extend(gradients);
    }
    let Simplified { graph, kept } = simplify(&extended, &wanted);
    let per_output = graph.params.len().max(1);
    let mut nodes: Vec<Vec<NodeId>> = kept.chunks(per_output).map(<[NodeId]>::to_vec).collect();
    nodes.resize(graph.outputs.len(), vec![]);
    Ok(Gradients { graph, nodes })
}
