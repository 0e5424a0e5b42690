//! Multiply-adds of single nodes.

use super::formula::Formula;
use crate::check::core::{Dim, Place};
use crate::ir::{Graph, MapFn, NodeId, NodeType, Op};
use std::collections::BTreeMap;

/// Multiply-adds a transcendental function counts as (polynomial kernels).
const TRANSCENDENTAL: f64 = 12.0;

/// A length as a formula in N.
fn length(d: Dim) -> Formula {
    match d {
        Dim::Static(n) => Formula::constant(n as f64),
        Dim::Sites { scale, per } => Formula::linear(scale as f64 / per as f64),
    }
}

/// Elements per place index.
pub fn width(ty: &NodeType) -> Formula {
    ty.shape
        .iter()
        .fold(Formula::constant(1.0), |f, &d| &f * &length(d))
}

/// Number of place indices.
pub fn entries(place: Place) -> Formula {
    let sites = |t: crate::check::core::Token| Formula::linear(1.0 / t.volume() as f64);
    match place {
        Place::Whole => Formula::constant(1.0),
        Place::Site(t) | Place::Displacement(t) | Place::Momentum(t) => sites(t),
        Place::Pair(t) => &sites(t) * &sites(t),
    }
}

/// Multiply-adds of one complex Fourier transform over the sites of a place.
pub fn transform(place: Place) -> Formula {
    // n/2 log2 n butterflies of four multiply-adds.
    &entries(place) * &Formula::term(2.0, 0, 1)
}

/// Multiply-adds per place index of a node that is not a mixer.
pub fn per_entry(graph: &Graph, id: NodeId) -> Formula {
    let ty = graph.ty(id);
    match graph.op(id) {
        Op::Map(MapFn::Neg | MapFn::Abs | MapFn::Sign | MapFn::Floor) | Op::Zip(_) => width(ty),
        Op::Map(_) => width(ty).scaled(TRANSCENDENTAL),
        Op::Einsum(spec) => {
            let mut letters: BTreeMap<char, Dim> = BTreeMap::new();
            for (names, &a) in spec.inputs.iter().zip(graph.args(id)) {
                letters.extend(names.iter().copied().zip(graph.ty(a).shape.iter().copied()));
            }
            letters
                .values()
                .fold(Formula::constant(1.0), |f, &d| &f * &length(d))
        }
        Op::WindowAdjoint { .. } => width(graph.ty(graph.args(id)[0])),
        // Copies cost traffic, not arithmetic.
        _ => Formula::zero(),
    }
}

/// Multiply-adds of a whole node.
pub fn total(graph: &Graph, id: NodeId) -> Formula {
    let ty = graph.ty(id);
    let args = graph.args(id);
    match graph.op(id) {
        Op::Scan(scan) => {
            let output = graph.ty(args[args.len() - 1]);
            let states = match output.shape.get(usize::from(scan.complex)) {
                Some(Dim::Static(n)) => *n as f64,
                _ => 1.0,
            };
            let transition =
                if scan.dense { states } else { 1.0 } + if scan.low_rank { 2.0 } else { 0.0 };
            let directions = if scan.mirror { 2.0 } else { 1.0 };
            // A complex multiply-add is four real ones on half as many channels.
            let complex = if scan.complex { 2.0 } else { 1.0 };
            let per_state = directions * complex * (transition + 2.0);
            (&entries(ty.place) * &width(ty)).scaled(states * per_state)
        }
        // Forward and inverse transforms of all channels, and the product between;
        // two real channels share one transform.
        Op::Convolve { .. } | Op::Modes { .. } => {
            let channels = width(ty).scaled(0.5);
            let multiply = entries(ty.place).scaled(4.0);
            &channels * &(transform(ty.place).scaled(2.0) + multiply)
        }
        Op::Mix { complex, .. } => {
            let pairs = &entries(ty.place) * &entries(ty.place);
            (&pairs * &width(ty)).scaled(if *complex { 2.0 } else { 1.0 })
        }
        Op::Sum => {
            let x = graph.ty(args[0]);
            &entries(x.place) * &width(x)
        }
        Op::RowSum => &entries(graph.ty(args[0]).place) * &width(ty),
        _ => &entries(ty.place) * &per_entry(graph, id),
    }
}

/// Numbers read and written by a node.
pub fn traffic(graph: &Graph, id: NodeId) -> Formula {
    let size = |n: NodeId| &entries(graph.ty(n).place) * &width(graph.ty(n));
    size(id) + graph.args(id).iter().map(|&a| size(a)).sum()
}
