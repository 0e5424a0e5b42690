//! Constant folding, common subexpressions, dead code, merged views.
//!
//! A reshape of a reshape, a slice of a slice or of one part of a join, a join of
//! joins or of neighbouring slices, a contraction of a transposed tensor: each is
//! one operation on what was there before.
//!
//! Algebra on finite numbers: `0 * x` becomes 0 whatever x is. Values are
//! otherwise unchanged up to the sign of zeros.

use crate::check::core::{Dim, Place};
use crate::interp::{map, zip};
use crate::ir::valid::infer;
use crate::ir::{Graph, MapFn, NodeId, NodeType, Op, ZipFn};
use std::collections::HashMap;

/// A simplified graph.
#[derive(Clone, Debug)]
pub struct Simplified {
    /// The new graph: parameters and outputs of the old one.
    pub graph: Graph,
    /// The new ids of the values asked to be kept, in that order.
    pub kept: Vec<NodeId>,
}

/// Simplifies a valid graph. Nodes that neither outputs nor `keep` depend on
/// disappear; parameters stay declared.
pub fn simplify(graph: &Graph, keep: &[NodeId]) -> Simplified {
    let live = live(graph, keep);
    let mut s = Simplifier {
        graph: Graph::default(),
        known: HashMap::new(),
        uniform: Vec::new(),
    };
    s.graph.params.clone_from(&graph.params);
    let mut new: Vec<Option<NodeId>> = vec![None; graph.len()];
    let look = |new: &[Option<NodeId>], id: NodeId| {
        new[id.index()].unwrap_or_else(|| unreachable!("operands of live nodes are live"))
    };
    for id in graph.ids().filter(|id| live[id.index()]) {
        let args = graph.args(id).iter().map(|&a| look(&new, a)).collect();
        let made = s.node(graph.op(id).clone(), args, graph.ty(id));
        // Of several names for one value the first one stays.
        if let (Some(name), None) = (&graph.node(id).name, &s.graph.node(made).name) {
            s.graph.set_name(made, name);
        }
        new[id.index()] = Some(made);
    }
    s.graph.outputs = graph.outputs.iter().map(|&o| look(&new, o)).collect();
    let kept: Vec<NodeId> = keep.iter().map(|&k| look(&new, k)).collect();
    sweep(&s.graph, &kept)
}

/// Removes the nodes that neither outputs nor `keep` depend on.
pub fn sweep(graph: &Graph, keep: &[NodeId]) -> Simplified {
    let live = live(graph, keep);
    let mut swept = Graph::default();
    swept.params.clone_from(&graph.params);
    let mut new = vec![NodeId::new(0); graph.len()];
    for id in graph.ids().filter(|id| live[id.index()]) {
        let args: Vec<NodeId> = graph.args(id).iter().map(|a| new[a.index()]).collect();
        new[id.index()] = swept.push(graph.op(id).clone(), &args, graph.ty(id).clone());
        if let Some(name) = &graph.node(id).name {
            swept.set_name(new[id.index()], name);
        }
    }
    swept.outputs = graph.outputs.iter().map(|o| new[o.index()]).collect();
    Simplified {
        graph: swept,
        kept: keep.iter().map(|k| new[k.index()]).collect(),
    }
}

/// Per node whether an output or a value of `keep` depends on it.
fn live(graph: &Graph, keep: &[NodeId]) -> Vec<bool> {
    let mut live = vec![false; graph.len()];
    for root in graph.outputs.iter().chain(keep) {
        live[root.index()] = true;
    }
    for id in graph.ids().rev() {
        if live[id.index()] {
            for a in graph.args(id) {
                live[a.index()] = true;
            }
        }
    }
    live
}

/// An operation applied to operands, up to the order of commuting ones. `Op`
/// holds floating-point numbers, so it is compared by its debug text, which
/// tells all of them apart.
type Key = (String, Vec<NodeId>, NodeType);

/// What [`Simplifier::merged`] found.
enum Merged {
    /// The value is that of a node.
    Same(NodeId),
    /// An operation on other operands.
    Node(Op, Vec<NodeId>),
}

struct Simplifier {
    graph: Graph,
    known: HashMap<Key, NodeId>,
    /// Per node the number all its elements equal, where that is known.
    uniform: Vec<Option<f64>>,
}

impl Simplifier {
    /// A node equal to this operation on these operands.
    fn node(&mut self, op: Op, mut args: Vec<NodeId>, ty: &NodeType) -> NodeId {
        if let Some(x) = self.fold(&op, &args) {
            return self.constant(x, ty);
        }
        if let Some(same) = self.equal_operand(&op, &args, ty) {
            return same;
        }
        if let Op::Zip(f) = op {
            match (
                f,
                self.uniform[args[0].index()],
                self.uniform[args[1].index()],
            ) {
                (ZipFn::Sub, Some(0.0), _) => return self.negated(args[1], ty),
                (ZipFn::Mul, Some(-1.0), _) => return self.negated(args[1], ty),
                (ZipFn::Mul | ZipFn::Div, _, Some(-1.0)) => return self.negated(args[0], ty),
                _ => {}
            }
            self.drop_broadcasts(f, &mut args, ty);
        }
        match self.merged(op, args, ty) {
            Merged::Same(id) => id,
            Merged::Node(op, args) => self.intern(op, args, ty),
        }
    }

    /// The operation with the views among its operands taken into it.
    fn merged(&mut self, mut op: Op, mut args: Vec<NodeId>, ty: &NodeType) -> Merged {
        match &mut op {
            // Only the last of several broadcasts or reshapes counts.
            Op::Broadcast | Op::Reshape => {
                while *self.graph.op(args[0]) == op {
                    args[0] = self.graph.args(args[0])[0];
                }
                if self.graph.ty(args[0]) == ty {
                    return Merged::Same(args[0]);
                }
            }
            Op::Slice { axis, start, len } => loop {
                match *self.graph.op(args[0]) {
                    Op::Slice {
                        axis: a, start: s, ..
                    } if a == *axis => {
                        *start += s;
                        args[0] = self.graph.args(args[0])[0];
                    }
                    Op::Concat { axis: a } if a == *axis => {
                        let Some((part, before)) = self.part_of(args[0], a, *start, *len) else {
                            break;
                        };
                        *start -= before;
                        args[0] = part;
                    }
                    _ => break,
                }
                if self.graph.ty(args[0]) == ty {
                    return Merged::Same(args[0]);
                }
            },
            Op::Concat { axis } => {
                args = self.joined(*axis, args);
                if args.len() == 1 {
                    return Merged::Same(args[0]);
                }
            }
            Op::Einsum(spec) => {
                for (word, a) in spec.inputs.iter_mut().zip(&mut args) {
                    while let Op::Einsum(inner) = self.graph.op(*a) {
                        let turned =
                            inner.inputs.len() == 1 && inner.inputs[0].len() == inner.output.len();
                        if !turned {
                            break;
                        }
                        let letter = |c| inner.output.iter().position(|o| o == c);
                        let Some(new) = inner.inputs[0]
                            .iter()
                            .map(|c| letter(c).map(|k| word[k]))
                            .collect::<Option<Vec<char>>>()
                        else {
                            break;
                        };
                        *word = new;
                        *a = self.graph.args(*a)[0];
                    }
                }
                if args.len() == 1 && spec.inputs[0] == spec.output {
                    return Merged::Same(args[0]);
                }
            }
            _ => {}
        }
        Merged::Node(op, args)
    }

    /// The operand of a join that holds these elements, and those before it.
    fn part_of(
        &self,
        join: NodeId,
        axis: usize,
        start: usize,
        len: usize,
    ) -> Option<(NodeId, usize)> {
        let mut before = 0;
        for &part in self.graph.args(join) {
            let Some(&Dim::Static(own)) = self.graph.ty(part).shape.get(axis) else {
                return None;
            };
            if start >= before && start + len <= before + own {
                return Some((part, before));
            }
            before += own;
        }
        None
    }

    /// The parts of a join: joins along the axis opened, neighbouring slices of one
    /// value merged.
    fn joined(&mut self, axis: usize, args: Vec<NodeId>) -> Vec<NodeId> {
        let mut parts: Vec<NodeId> = vec![];
        for a in args {
            match *self.graph.op(a) {
                Op::Concat { axis: inner } if inner == axis => {
                    parts.extend(self.graph.args(a).to_vec());
                }
                _ => parts.push(a),
            }
        }
        let mut merged: Vec<NodeId> = vec![];
        for part in parts {
            let last = merged.last().copied();
            match last.and_then(|last| self.neighbours(axis, last, part)) {
                Some((of, start, len)) => {
                    let mut ty = self.graph.ty(of).clone();
                    ty.shape[axis] = Dim::Static(len);
                    merged.pop();
                    merged.push(self.node(Op::Slice { axis, start, len }, vec![of], &ty));
                }
                None => merged.push(part),
            }
        }
        merged
    }

    /// Two slices that follow each other, as one: (operand, start, length).
    fn neighbours(&self, axis: usize, a: NodeId, b: NodeId) -> Option<(NodeId, usize, usize)> {
        let slice = |id: NodeId| match *self.graph.op(id) {
            Op::Slice {
                axis: own,
                start,
                len,
            } if own == axis => Some((self.graph.args(id)[0], start, len)),
            _ => None,
        };
        let ((x, start, len), (y, next, more)) = (slice(a)?, slice(b)?);
        (x == y && start + len == next).then_some((x, start, len + more))
    }

    fn intern(&mut self, op: Op, mut args: Vec<NodeId>, ty: &NodeType) -> NodeId {
        if let Op::Zip(ZipFn::Add | ZipFn::Mul) = op {
            args.sort();
        }
        let key = (format!("{op:?}"), args.clone(), ty.clone());
        if let Some(&id) = self.known.get(&key) {
            return id;
        }
        let uniform = match op {
            Op::Number(x) => Some(x),
            Op::Broadcast => self.uniform[args[0].index()],
            _ => None,
        };
        let id = self.graph.push(op, &args, ty.clone());
        self.uniform.push(uniform);
        self.known.insert(key, id);
        id
    }

    /// A number repeated to fill a type.
    fn constant(&mut self, x: f64, ty: &NodeType) -> NodeId {
        let scalar = NodeType {
            place: Place::Whole,
            shape: Vec::new(),
        };
        let number = self.intern(Op::Number(x), Vec::new(), &scalar);
        self.broadcast(number, ty)
    }

    fn broadcast(&mut self, x: NodeId, ty: &NodeType) -> NodeId {
        if self.graph.ty(x) == ty {
            x
        } else {
            self.node(Op::Broadcast, vec![x], ty)
        }
    }

    /// `-x`, repeated to fill a type.
    fn negated(&mut self, x: NodeId, ty: &NodeType) -> NodeId {
        let own = self.graph.ty(x).clone();
        let minus = self.node(Op::Map(MapFn::Neg), vec![x], &own);
        self.broadcast(minus, ty)
    }

    /// The number all elements of the result equal.
    fn fold(&self, op: &Op, args: &[NodeId]) -> Option<f64> {
        let value = |k: usize| self.uniform[args[k].index()];
        let zero = |k: usize| (value(k) == Some(0.0)).then_some(0.0);
        match op {
            Op::Map(f) => Some(map(*f, value(0)?)),
            Op::Zip(f) => match (value(0), value(1)) {
                (Some(a), Some(b)) => Some(zip(*f, a, b)),
                _ => match f {
                    ZipFn::Mul => zero(0).or(zero(1)),
                    ZipFn::Div => zero(0),
                    _ => None,
                },
            },
            Op::Reshape | Op::Slice { .. } | Op::Gather | Op::Scatter | Op::Patch { .. } => {
                value(0)
            }
            Op::Unpatch { .. } | Op::RowBroadcast => value(0),
            Op::Concat { .. } => {
                let first = value(0)?;
                (1..args.len())
                    .all(|k| value(k) == Some(first))
                    .then_some(first)
            }
            // linear in each of these operands
            Op::Einsum(_) => (0..args.len()).find_map(zero),
            Op::Pad { .. } | Op::Window { .. } | Op::WindowAdjoint { .. } => zero(0),
            Op::Sum | Op::RowSum => zero(0),
            Op::Convolve { .. } | Op::Correlate { .. } | Op::Modes { .. } => zero(0).or(zero(1)),
            Op::ModesGrad { .. } | Op::Mix { .. } | Op::MixGrad { .. } => zero(0).or(zero(1)),
            Op::Scan(_) => zero(0),
            Op::ScanGrad { .. } => zero(0).or(zero(1)),
            _ => None,
        }
    }

    /// A node the result equals: an operand, or what an inverse was applied to.
    fn equal_operand(&mut self, op: &Op, args: &[NodeId], ty: &NodeType) -> Option<NodeId> {
        let value = |k: usize| self.uniform[args[k].index()];
        let found = match op {
            Op::Zip(ZipFn::Add) if value(0) == Some(0.0) => args[1],
            Op::Zip(ZipFn::Add | ZipFn::Sub) if value(1) == Some(0.0) => args[0],
            Op::Zip(ZipFn::Mul) if value(0) == Some(1.0) => args[1],
            Op::Zip(ZipFn::Mul | ZipFn::Div | ZipFn::Pow) if value(1) == Some(1.0) => args[0],
            Op::Einsum(spec) if args.len() == 1 && spec.inputs[0] == spec.output => args[0],
            Op::Slice { .. } | Op::Pad { .. } | Op::Concat { .. } | Op::Sum
                if args.len() == 1 && self.graph.ty(args[0]) == ty =>
            {
                args[0]
            }
            _ => {
                let inverse = match op {
                    Op::Map(MapFn::Neg) => Op::Map(MapFn::Neg),
                    Op::Map(MapFn::Recip) => Op::Map(MapFn::Recip),
                    Op::Patch { ratio } => Op::Unpatch { ratio: *ratio },
                    Op::Unpatch { ratio } => Op::Patch { ratio: *ratio },
                    Op::Gather => Op::Scatter,
                    Op::Scatter => Op::Gather,
                    _ => return None,
                };
                let inner = args[0];
                let original = *self.graph.args(inner).first()?;
                let undone = *self.graph.op(inner) == inverse && self.graph.ty(original) == ty;
                return undone.then_some(original);
            }
        };
        Some(self.broadcast(found, ty))
    }

    /// Elementwise functions broadcast by themselves.
    fn drop_broadcasts(&self, f: ZipFn, args: &mut [NodeId], ty: &NodeType) {
        for k in 0..2 {
            if *self.graph.op(args[k]) != Op::Broadcast {
                continue;
            }
            let before = self.graph.args(args[k])[0];
            let mut shorter = [args[0], args[1]];
            shorter[k] = before;
            let types = shorter.map(|a| self.graph.ty(a));
            if infer(&Op::Zip(f), &types).is_ok_and(|t| t.as_ref() == Some(ty)) {
                args[k] = before;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interp::arbitrary::{Sample, network, program};
    use crate::interp::evaluate;
    use crate::ir::valid::validate;
    use crate::pass::reverse::parameter_gradients;

    fn same_values(s: &Sample, keep: &[NodeId], what: &str) -> Simplified {
        let t = simplify(&s.graph, keep);
        validate(&t.graph).expect("valid before, valid after");
        assert!(t.graph.len() <= s.graph.len(), "{what}");
        let before = evaluate(&s.graph, s.lattice, &s.params, &s.spins).expect("a sample");
        let after = evaluate(&t.graph, s.lattice, &s.params, &s.spins).expect("as before");
        let pairs = keep
            .iter()
            .zip(&t.kept)
            .chain(s.graph.outputs.iter().zip(&t.graph.outputs));
        for (&old, &new) in pairs {
            assert_eq!(s.graph.ty(old), t.graph.ty(new), "{what}");
            for (x, y) in before.value(old).data.iter().zip(&after.value(new).data) {
                assert!(
                    (x - y).abs() <= 1e-13 * (1.0 + x.abs()),
                    "{what}: {x} became {y}"
                );
            }
        }
        t
    }

    #[test]
    fn random_graphs_keep_their_values() {
        for seed in 0..150 {
            for mut s in [program(seed, 25), network(seed, 6, true)] {
                same_values(&s, &[], &format!("seed {seed}"));
                let all: Vec<NodeId> = s.graph.ids().collect();
                same_values(&s, &all, &format!("seed {seed}, all kept"));
                let r = parameter_gradients(&s.graph, s.graph.outputs[0]).expect("differentiable");
                s.graph = r.graph;
                same_values(&s, &r.gradients, &format!("seed {seed}, gradients"));
            }
        }
    }

    #[test]
    fn simplifying_twice_is_simplifying_once() {
        for seed in 0..50 {
            let once = simplify(&program(seed, 25).graph, &[]).graph;
            let twice = simplify(&once, &[]).graph;
            assert_eq!(crate::ir::text::text(&once), crate::ir::text::text(&twice));
        }
    }

    #[test]
    fn views_of_views_merge() {
        use crate::check::core::Einsum;
        let site = Place::Site(crate::check::core::Token::SPIN);
        let mut g = Graph::default();
        let s = g.add(Op::Spins, &[]).expect("no operands");
        let x = g.push(Op::Broadcast, &[s], NodeType::fixed(site, &[2, 6]));
        let x = g.add(Op::Map(MapFn::Sin), &[x]).expect("any value");
        let slice = |g: &mut Graph, x, start, len| {
            let axis = 1;
            g.add(Op::Slice { axis, start, len }, &[x]).expect("inside")
        };
        let turn = |g: &mut Graph, x, from: &str, to: &str| {
            let spec = Einsum {
                inputs: vec![from.chars().collect()],
                output: to.chars().collect(),
            };
            g.add(Op::Einsum(spec), &[x]).expect("letters")
        };
        // x[1..6][2..4] = x[3..5]
        let inner = slice(&mut g, x, 1, 5);
        let inner = slice(&mut g, inner, 2, 2);
        // the parts of x, joined
        let (a, b) = (slice(&mut g, x, 0, 2), slice(&mut g, x, 2, 4));
        let all = g.add(Op::Concat { axis: 1 }, &[a, b]).expect("fits");
        // one part of a join
        let join = g.add(Op::Concat { axis: 1 }, &[inner, x]).expect("fits");
        let part = slice(&mut g, join, 3, 2);
        let back = turn(&mut g, x, "ab", "ba");
        let back = turn(&mut g, back, "xy", "yx");
        let sum = turn(&mut g, back, "ab", "");
        g.outputs = vec![inner, all, part, back, sum];
        let t = simplify(&g, &[]).graph;
        let text = crate::ir::text::text(&t);
        assert_eq!(t.outputs[1], t.outputs[3], "{text}");
        let op = |k: usize| t.op(t.outputs[k]).clone();
        assert_eq!(
            op(0),
            Op::Slice {
                axis: 1,
                start: 3,
                len: 2
            },
            "{text}"
        );
        assert_eq!(
            op(2),
            Op::Slice {
                axis: 1,
                start: 1,
                len: 2
            },
            "{text}"
        );
        assert_eq!(t.args(t.outputs[4])[0], t.outputs[1], "{text}");
    }

    #[test]
    fn arithmetic_with_known_numbers_disappears() {
        let mut g = Graph::default();
        let number = |g: &mut Graph, x| g.add(Op::Number(x), &[]).expect("a number");
        let s = g.add(Op::Spins, &[]).expect("no operands");
        let (zero, one, two) = (
            number(&mut g, 0.0),
            number(&mut g, 1.0),
            number(&mut g, 2.0),
        );
        let mut zip = |f, a, b| g.add(Op::Zip(f), &[a, b]).expect("broadcasts");
        let unit = zip(ZipFn::Sub, two, one);
        let same = zip(ZipFn::Mul, s, unit);
        let none = zip(ZipFn::Mul, zero, s);
        let sum = zip(ZipFn::Add, none, same);
        let twice = zip(ZipFn::Add, sum, s);
        let again = zip(ZipFn::Add, s, same);
        g.outputs = vec![twice, again];
        let t = simplify(&g, &[]).graph;
        assert_eq!(t.outputs[0], t.outputs[1]);
        assert_eq!(t.len(), 2, "{}", crate::ir::text::text(&t));
    }
}
