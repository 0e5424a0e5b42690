//! Chains of affine maps on one site, composed.
//!
//! A *link* of a chain acts on the shape axes of one value with coefficients
//! that do not depend on the configuration: a sum with a constant, a multiple, a
//! contraction with a constant tensor, a transposition. Links that only feed the
//! next link compose to
//!
//! ```text
//! y[o] = sum_a M[a, o] x[a] + b[o]
//! ```
//!
//! with coefficients `M` and `b` that are computed once per parameter set instead
//! of once per site and configuration: the scale and bias of a norm disappear in
//! the dense layer behind it, dense layers without anything between them become
//! one. A link joins its chain where that takes no more multiply-adds per site
//! than staying apart; otherwise it starts a chain of its own. Nonlinear
//! elementwise chains need no composing here: back ends run them as one loop.

#[cfg(test)]
mod tests;

use crate::check::core::{Dim, Einsum, Place};
use crate::ir::kinds::{Dependence, Kinds};
use crate::ir::{Graph, MapFn, NodeId, NodeType, Op, ZipFn};
use std::collections::BTreeMap;

/// Composes chains of affine maps in a valid graph. Values agree up to rounding;
/// parameters and outputs stay. Coefficients that are no longer used, and
/// intermediate values, are left to [`simplify`](super::simplify::simplify).
pub fn fuse(graph: &Graph) -> Graph {
    let mut f = Fusion {
        old: graph,
        kinds: Kinds::new(graph),
        uses: uses(graph),
        graph: Graph::default(),
        made: vec![None; graph.len()],
        pending: (0..graph.len()).map(|_| None).collect(),
        lengths: vec![],
    };
    f.graph.params.clone_from(&graph.params);
    for id in graph.ids() {
        match f.link(id) {
            Some(link) => f.pending[id.index()] = Some(f.extended(id, link)),
            None => f.copy(id),
        }
    }
    let outputs = graph.outputs.iter().map(|&o| f.value(o)).collect();
    f.graph.outputs = outputs;
    f.graph
}

/// How often the value of each node is read.
fn uses(graph: &Graph) -> Vec<usize> {
    let mut uses = vec![0; graph.len()];
    let read = graph.ids().flat_map(|id| graph.args(id)).copied();
    for id in read.chain(graph.outputs.iter().copied()) {
        uses[id.index()] += 1;
    }
    uses
}

/// The axes of a tensor, by label; equal labels are summed or multiplied together.
type Word = Vec<usize>;

/// A constant tensor with the labels of its axes.
#[derive(Clone)]
struct Factor {
    node: NodeId,
    axes: Word,
}

/// A chain: `matrix . base + bias`, in nodes of the new graph.
#[derive(Clone)]
struct Chain {
    base: NodeId,
    /// Labels of the base's axes, and of the result's.
    from: Word,
    to: Word,
    matrix: Option<Factor>,
    /// Broadcasts to the result.
    bias: Option<NodeId>,
    /// Multiply-adds per place index, composed and link by link.
    cost: usize,
    apart: usize,
    /// Its nodes in the old graph.
    links: Vec<NodeId>,
}

/// What one link does to its operand.
enum Effect {
    /// Adds a constant.
    Shift(NodeId),
    /// Multiplies by a constant that broadcasts to the operand.
    Scale(NodeId),
    /// Multiplies by a constant, then adds one.
    ScaleShift(NodeId, NodeId),
    /// A contraction with a constant; `spec` names the operand first.
    Contract(NodeId, Einsum),
    /// A transposition.
    Rearrange(Einsum),
}

/// A link: the operand it acts on (old graph) and what it does.
struct Link {
    operand: NodeId,
    effect: Effect,
}

struct Fusion<'g> {
    old: &'g Graph,
    kinds: Kinds,
    uses: Vec<usize>,
    graph: Graph,
    made: Vec<Option<NodeId>>,
    pending: Vec<Option<Chain>>,
    /// Length of each label.
    lengths: Vec<usize>,
}

fn lengths(ty: &NodeType) -> Option<Vec<usize>> {
    let fixed = |d: &Dim| match *d {
        Dim::Static(n) => Some(n),
        Dim::Sites { .. } => None,
    };
    ty.shape.iter().map(fixed).collect()
}

fn distinct(word: &[char]) -> bool {
    word.iter().enumerate().all(|(k, c)| !word[..k].contains(c))
}

impl Fusion<'_> {
    /// The node as a link, if it is one.
    fn link(&mut self, id: NodeId) -> Option<Link> {
        let old = self.old;
        let constant = |f: &Self, id: NodeId| f.kinds.get(id) == Dependence::Const;
        // The operand acted on, and its place among the operands.
        let (operand, coefficient, at) = match *old.args(id) {
            _ if constant(self, id) => return None,
            [x] => (x, None, 0),
            [x, c] if constant(self, c) => (x, Some(c), 0),
            [c, x] if constant(self, c) => (x, Some(c), 1),
            _ => return None,
        };
        let fixed = |a: NodeId| lengths(old.ty(a)).is_some();
        if !old.args(id).iter().copied().chain([id]).all(fixed)
            || old.ty(id).place != old.ty(operand).place
        {
            return None;
        }
        let c = coefficient.map(|c| self.value(c));
        let whole = coefficient.is_some_and(|c| old.ty(c).place == Place::Whole);
        let keeps_shape = old.ty(id).shape == old.ty(operand).shape;
        let effect = match (old.op(id), c) {
            (Op::Map(MapFn::Neg), None) => Effect::Scale(self.number(-1.0)),
            (Op::Zip(ZipFn::Add), Some(c)) if keeps_shape => Effect::Shift(c),
            (Op::Zip(ZipFn::Sub), Some(c)) if keeps_shape && at == 0 => {
                Effect::Shift(self.map(MapFn::Neg, c))
            }
            (Op::Zip(ZipFn::Sub), Some(c)) if keeps_shape => {
                Effect::ScaleShift(self.number(-1.0), c)
            }
            (Op::Zip(ZipFn::Mul), Some(c)) if keeps_shape && whole => Effect::Scale(c),
            (Op::Zip(ZipFn::Div), Some(c)) if keeps_shape && whole && at == 0 => {
                Effect::Scale(self.map(MapFn::Recip, c))
            }
            // Sums over axes are left alone: a factor folded into one makes it a product.
            (Op::Einsum(spec), None)
                if distinct(&spec.inputs[0]) && spec.inputs[0].len() == spec.output.len() =>
            {
                Effect::Rearrange(spec.clone())
            }
            (Op::Einsum(spec), Some(c)) if whole && spec.inputs.iter().all(|w| distinct(w)) => {
                let mut spec = spec.clone();
                spec.inputs.swap(0, at);
                Effect::Contract(c, spec)
            }
            _ => return None,
        };
        Some(Link { operand, effect })
    }

    /// The chain that ends with this link: the operand's, longer, or a new one.
    fn extended(&mut self, id: NodeId, link: Link) -> Chain {
        let alone = self.multiply_adds(id);
        if self.uses[link.operand.index()] == 1
            && let Some(chain) = self.pending[link.operand.index()].clone()
        {
            let mut longer = self.apply(&chain, &link.effect);
            if longer.cost <= chain.cost + alone {
                longer.apart += alone;
                longer.links.push(id);
                return longer;
            }
        }
        let base = self.value(link.operand);
        let from = self.fresh(base);
        let start = Chain {
            base,
            to: from.clone(),
            from,
            matrix: None,
            bias: None,
            cost: 0,
            apart: alone,
            links: vec![id],
        };
        let mut chain = self.apply(&start, &link.effect);
        chain.cost = alone;
        chain
    }

    /// The chain followed by one more effect.
    fn apply(&mut self, chain: &Chain, effect: &Effect) -> Chain {
        let mut next = chain.clone();
        match effect {
            Effect::Shift(c) => next.bias = Some(self.shifted(chain.bias, *c)),
            Effect::Scale(s) => self.scale(&mut next, *s),
            Effect::ScaleShift(s, c) => {
                self.scale(&mut next, *s);
                next.bias = Some(self.shifted(next.bias, *c));
            }
            Effect::Rearrange(spec) => {
                next.to = self.rename(&spec.output, &spec.inputs[0], &chain.to, &mut vec![]);
                if let Some(m) = &chain.matrix {
                    next.matrix = Some(self.contracted(m, None, &next));
                }
                next.bias = chain.bias.map(|b| {
                    let b = self.filled(b, &chain.to);
                    self.einsum(spec.clone(), &[b])
                });
            }
            Effect::Contract(c, spec) => {
                let mut known = vec![];
                let axes = self.rename(&spec.inputs[1], &spec.inputs[0], &chain.to, &mut known);
                self.measure(*c, &axes);
                next.to = self.rename(&spec.output, &spec.inputs[0], &chain.to, &mut known);
                let factor = Factor { node: *c, axes };
                next.matrix = Some(match &chain.matrix {
                    Some(m) => self.contracted(m, Some(&factor), &next),
                    None => self.contracted(&factor, None, &next),
                });
                next.bias = chain.bias.map(|b| {
                    let b = self.filled(b, &chain.to);
                    self.einsum(spec.clone(), &[b, *c])
                });
            }
        }
        next.cost = self.cost(&next);
        next
    }

    fn scale(&mut self, chain: &mut Chain, s: NodeId) {
        let factor = self.squeezed(s, &chain.to);
        chain.bias = chain.bias.map(|b| self.zip(ZipFn::Mul, b, s));
        chain.matrix = Some(match chain.matrix.take() {
            Some(m) => self.contracted(&m, Some(&factor), chain),
            None => factor,
        });
    }

    fn shifted(&mut self, bias: Option<NodeId>, by: NodeId) -> NodeId {
        bias.map_or(by, |b| self.zip(ZipFn::Add, b, by))
    }

    /// The product of constants, with the axes that the chain's ends still name.
    fn contracted(&mut self, a: &Factor, b: Option<&Factor>, chain: &Chain) -> Factor {
        let mut axes: Word = vec![];
        for &l in chain.from.iter().chain(&chain.to) {
            let named = a.axes.contains(&l) || b.is_some_and(|b| b.axes.contains(&l));
            if named && !axes.contains(&l) {
                axes.push(l);
            }
        }
        // A matrix that is only scaled keeps the order of its axes.
        let same =
            |f: &&Factor| f.axes.len() == axes.len() && axes.iter().all(|l| f.axes.contains(l));
        if let Some(kept) = [b, Some(a)].into_iter().flatten().find(same) {
            axes = kept.axes.clone();
        }
        if b.is_none() && a.axes == axes {
            return a.clone();
        }
        let words: Vec<&[usize]> = [Some(a), b].iter().flatten().map(|f| &f.axes[..]).collect();
        let spec = letters(&words, &axes);
        let operands: Vec<NodeId> = [Some(a), b].iter().flatten().map(|f| f.node).collect();
        let node = self.einsum(spec, &operands);
        Factor { node, axes }
    }

    /// A constant with its axes in the order of another word that has them all.
    fn ordered(&mut self, m: &Factor, like: &[usize]) -> Factor {
        let axes: Word = like
            .iter()
            .copied()
            .filter(|l| m.axes.contains(l))
            .collect();
        if axes == m.axes {
            return m.clone();
        }
        let node = self.einsum(letters(&[&m.axes], &axes), &[m.node]);
        Factor { node, axes }
    }

    /// A scale without its axes of length one, labelled as the value it multiplies.
    fn squeezed(&mut self, s: NodeId, to: &[usize]) -> Factor {
        let shape = lengths(self.graph.ty(s)).unwrap_or_default();
        let aligned = &to[to.len() - shape.len()..];
        let kept: Vec<usize> = (0..shape.len()).filter(|&k| shape[k] != 1).collect();
        let axes = kept.iter().map(|&k| aligned[k]).collect();
        let short: Vec<usize> = kept.iter().map(|&k| shape[k]).collect();
        Factor {
            node: self.reshaped(s, &short),
            axes,
        }
    }

    /// A bias with all axes of the value it is added to.
    fn filled(&mut self, bias: NodeId, to: &[usize]) -> NodeId {
        let shape: Vec<usize> = to.iter().map(|&l| self.lengths[l]).collect();
        let ty = NodeType::fixed(self.graph.ty(bias).place, &shape);
        if *self.graph.ty(bias) == ty {
            bias
        } else {
            self.graph.push(Op::Broadcast, &[bias], ty)
        }
    }

    /// Labels of a word whose letters are those of `operand` (labelled `axes`),
    /// of words seen before, or new.
    fn rename(
        &mut self,
        word: &[char],
        operand: &[char],
        axes: &[usize],
        known: &mut Vec<(char, usize)>,
    ) -> Word {
        word.iter()
            .map(|c| {
                if let Some(k) = operand.iter().position(|o| o == c) {
                    return axes[k];
                }
                if let Some((_, l)) = known.iter().find(|(o, _)| o == c) {
                    return *l;
                }
                self.lengths.push(0);
                known.push((*c, self.lengths.len() - 1));
                self.lengths.len() - 1
            })
            .collect()
    }

    /// New labels for the axes of a node.
    fn fresh(&mut self, node: NodeId) -> Word {
        let lengths = lengths(self.graph.ty(node)).unwrap_or_default();
        let first = self.lengths.len();
        self.lengths.extend(lengths);
        (first..self.lengths.len()).collect()
    }

    /// Notes the lengths of labels from a tensor that has them.
    fn measure(&mut self, node: NodeId, axes: &[usize]) {
        let own = lengths(self.graph.ty(node)).unwrap_or_default();
        for (&l, n) in axes.iter().zip(own) {
            self.lengths[l] = n;
        }
    }

    fn volume(&self, labels: impl IntoIterator<Item = usize>) -> usize {
        let mut seen: Word = vec![];
        for l in labels {
            if !seen.contains(&l) {
                seen.push(l);
            }
        }
        seen.iter().map(|&l| self.lengths[l]).product()
    }

    /// Multiply-adds of a chain per place index, as it would be written.
    fn cost(&self, c: &Chain) -> usize {
        let all = |m: &[usize]| self.volume(c.from.iter().chain(m).chain(&c.to).copied());
        // A transposition renames.
        let linear = c.matrix.as_ref().map_or(0, |m| all(&m.axes));
        let bias = c.bias.map_or(0, |_| self.volume(c.to.iter().copied()));
        linear + bias
    }

    /// Multiply-adds of a link per place index, as it stands.
    fn multiply_adds(&self, id: NodeId) -> usize {
        let volume =
            |n: NodeId| -> usize { lengths(self.old.ty(n)).unwrap_or_default().iter().product() };
        match self.old.op(id) {
            Op::Einsum(spec) => {
                let mut known: BTreeMap<char, usize> = BTreeMap::new();
                for (word, &a) in spec.inputs.iter().zip(self.old.args(id)) {
                    let own = lengths(self.old.ty(a)).unwrap_or_default();
                    known.extend(word.iter().copied().zip(own));
                }
                let renames = spec.inputs.len() == 1 && known.len() == spec.output.len();
                if renames { 0 } else { known.values().product() }
            }
            _ => volume(id),
        }
    }

    /// The node of the new graph with the value of an old one.
    fn value(&mut self, id: NodeId) -> NodeId {
        if let Some(done) = self.made[id.index()] {
            return done;
        }
        let chain = self.pending[id.index()].clone();
        let chain = chain.unwrap_or_else(|| unreachable!("operands come before their users"));
        let moved = chain.matrix.is_some() || chain.from != chain.to;
        let nodes = usize::from(moved) + usize::from(chain.bias.is_some());
        if chain.cost == chain.apart && nodes >= chain.links.len() {
            // Nothing gained: as it was.
            chain.links.iter().for_each(|&link| self.copy(link));
        } else {
            let made = self.written(&chain);
            self.keep(id, made);
        }
        self.made[id.index()].unwrap_or_else(|| unreachable!("just made"))
    }

    /// A composed chain as nodes.
    fn written(&mut self, chain: &Chain) -> NodeId {
        let mut y = chain.base;
        match &chain.matrix {
            // A matrix without other axes than those it keeps is a scale.
            Some(m) if chain.from == chain.to => {
                let m = self.ordered(m, &chain.to);
                let axis = |&l: &usize| {
                    if m.axes.contains(&l) {
                        self.lengths[l]
                    } else {
                        1
                    }
                };
                let shape: Vec<usize> = chain.to.iter().map(axis).collect();
                let scale = self.reshaped(m.node, &shape);
                y = self.zip(ZipFn::Mul, y, scale);
            }
            Some(m) => {
                let spec = letters(&[&chain.from, &m.axes], &chain.to);
                y = self.einsum(spec, &[y, m.node]);
            }
            None if chain.from != chain.to => {
                y = self.einsum(letters(&[&chain.from], &chain.to), &[y]);
            }
            None => {}
        }
        chain.bias.map_or(y, |b| self.zip(ZipFn::Add, y, b))
    }

    /// An old node on the new values of its operands.
    fn copy(&mut self, id: NodeId) {
        let args: Vec<NodeId> = self.old.args(id).iter().map(|&a| self.value(a)).collect();
        let node = self.old.node(id);
        let made = self.graph.push(node.op.clone(), &args, node.ty.clone());
        self.keep(id, made);
    }

    /// Notes where an old node's value is; of several names the first one stays.
    fn keep(&mut self, id: NodeId, made: NodeId) {
        if let Some(name) = &self.old.node(id).name {
            self.graph.set_name(made, name);
        }
        self.made[id.index()] = Some(made);
    }

    fn number(&mut self, x: f64) -> NodeId {
        self.graph
            .push(Op::Number(x), &[], NodeType::fixed(Place::Whole, &[]))
    }

    fn map(&mut self, f: MapFn, x: NodeId) -> NodeId {
        let ty = self.graph.ty(x).clone();
        self.graph.push(Op::Map(f), &[x], ty)
    }

    fn zip(&mut self, f: ZipFn, a: NodeId, b: NodeId) -> NodeId {
        self.add(Op::Zip(f), &[a, b])
    }

    fn einsum(&mut self, spec: Einsum, operands: &[NodeId]) -> NodeId {
        self.add(Op::Einsum(spec), operands)
    }

    fn add(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        self.graph
            .add(op, operands)
            .unwrap_or_else(|e| unreachable!("coefficients of a valid chain: {e}"))
    }

    fn reshaped(&mut self, x: NodeId, shape: &[usize]) -> NodeId {
        let ty = NodeType::fixed(self.graph.ty(x).place, shape);
        if *self.graph.ty(x) == ty {
            x
        } else {
            self.graph.push(Op::Reshape, &[x], ty)
        }
    }
}

/// Labels as the letters of a contraction.
fn letters(inputs: &[&[usize]], output: &[usize]) -> Einsum {
    let mut order: Word = vec![];
    let mut letter = |l: &usize| {
        let k = order.iter().position(|o| o == l).unwrap_or_else(|| {
            order.push(*l);
            order.len() - 1
        });
        // A network has a handful of axes; letters beyond z are letters too.
        char::from_u32(u32::from('a') + k as u32).unwrap_or('?')
    };
    Einsum {
        inputs: inputs
            .iter()
            .map(|w| w.iter().map(&mut letter).collect())
            .collect(),
        output: output.iter().map(letter).collect(),
    }
}
