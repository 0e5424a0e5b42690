//! The last values affine in the pooled features: their final links, their
//! changes, and the readout behind them.

use super::NoFlips;
use super::values::{Offset, Values, width};
use crate::check::core::{Dim, Place};
use crate::ir::kinds::Dependence;
use crate::ir::{Graph, GraphParam, MapFn, NodeId, NodeType, Op, ZipFn};
use crate::pass::normal_form::NormalForm;
use crate::pass::reverse::pullback;
use std::collections::{BTreeSet, HashMap};

/// See the module.
pub(crate) struct Frontier {
    pub(crate) nodes: Vec<NodeId>,
    /// Everything affine in the features, in order.
    affine: BTreeSet<NodeId>,
}

/// `T_m` per frontier node and element.
pub(super) struct FinalLinks {
    /// `[frontier node][element][mixer]`, nodes per site.
    nodes: Vec<Vec<Vec<NodeId>>>,
}

impl Frontier {
    pub(crate) fn new(graph: &Graph, form: &NormalForm) -> Result<Frontier, NoFlips> {
        let mut affine: BTreeSet<NodeId> = form.pools.iter().map(|p| p.output).collect();
        let constant = |n: NodeId| form.kinds.get(n) == Dependence::Const;
        let mut inner = BTreeSet::new();
        for &id in &form.readout {
            let args = graph.args(id);
            let known = |n: &&NodeId| affine.contains(*n);
            let all = args.iter().all(|a| affine.contains(a) || constant(*a));
            let count = args.iter().filter(known).count();
            let keeps = match graph.op(id) {
                Op::Map(MapFn::Neg) | Op::Zip(ZipFn::Add | ZipFn::Sub) => true,
                Op::Zip(ZipFn::Mul) | Op::Einsum(_) => count == 1,
                Op::Zip(ZipFn::Div) => count == 1 && affine.contains(&args[0]),
                Op::Reshape
                | Op::Slice { .. }
                | Op::Pad { .. }
                | Op::Concat { .. }
                | Op::Broadcast => true,
                _ => false,
            };
            if all && keeps {
                affine.insert(id);
            } else {
                inner.extend(args.iter().filter(known).copied());
            }
        }
        inner.extend(graph.outputs.iter().filter(|o| affine.contains(o)));
        let nodes: Vec<NodeId> = inner.into_iter().collect();
        if nodes.is_empty() {
            return Err(NoFlips::new("no pooled features"));
        }
        Ok(Frontier { nodes, affine })
    }

    /// Number of elements.
    pub(super) fn elements(&self, graph: &Graph) -> Result<usize, NoFlips> {
        self.nodes.iter().map(|&n| width(graph, n)).sum()
    }

    /// Extends the graph by the final links: the derivative of every element with
    /// respect to what a mixer receives, through its output only.
    pub(super) fn final_links(
        &self,
        graph: &mut Graph,
        form: &NormalForm,
    ) -> Result<FinalLinks, NoFlips> {
        let outputs: Vec<NodeId> = form.mixers.iter().map(|m| m.output).collect();
        let mut nodes = Vec::new();
        for &node in &self.nodes {
            let (shape, n) = (graph.ty(node).shape.clone(), width(graph, node)?);
            let mut elements = Vec::new();
            for element in 0..n {
                if outputs.is_empty() {
                    elements.push(Vec::new());
                    continue;
                }
                let one = graph.add(Op::Number(1.0), &[])?;
                let whole = |shape: Vec<Dim>| NodeType {
                    place: Place::Whole,
                    shape,
                };
                let one = graph.push(Op::Reshape, &[one], whole(vec![Dim::Static(1)]));
                let pad = Op::Pad {
                    axis: 0,
                    start: element,
                    len: n,
                };
                let unit = graph.add(pad, &[one])?;
                let unit = graph.push(Op::Reshape, &[unit], whole(shape.clone()));
                let reversed = pullback(graph, &[(node, unit)], &outputs)?;
                *graph = reversed.graph;
                let mut links = Vec::new();
                for (mixer, &g) in form.mixers.iter().zip(&reversed.gradients) {
                    // through the mixer alone: what it receives may be read elsewhere
                    let through = pullback(graph, &[(mixer.output, g)], &[mixer.input])?;
                    *graph = through.graph;
                    links.extend(through.gradients);
                }
                elements.push(links);
            }
            nodes.push(elements);
        }
        Ok(FinalLinks { nodes })
    }

    /// The change of every frontier node for the current shape, per token.
    pub(super) fn changes(
        &self,
        values: &mut Values,
        finals: &FinalLinks,
    ) -> Result<Vec<NodeId>, NoFlips> {
        let form = values.form;
        let mut known: HashMap<NodeId, Option<NodeId>> = HashMap::new();
        for pool in &form.pools {
            let windows = pool.affine.coefficients().filter_map(|c| c.window());
            let mut total = None;
            for at in values.affected(windows, pool.token) {
                if let Some(d) = values.difference(pool.input, at)? {
                    let d = values.masked_at(d, pool.token, at)?;
                    total = values.plus(total, Some(d))?;
                }
            }
            known.insert(pool.output, total);
        }
        let mut emissions: Vec<(usize, Offset, NodeId)> = Vec::new();
        for m in 0..form.mixers.len() {
            let all = values.emissions(m)?;
            emissions.extend(all.into_iter().map(|(at, e)| (m, at, e)));
        }
        let mut changes = Vec::new();
        for (&node, finals) in self.nodes.iter().zip(&finals.nodes) {
            let local = self.linear(values, node, &mut known)?;
            let (shape, n) = (values.graph.ty(node).shape.clone(), finals.len());
            let mut mixed = None;
            for (m, _) in form.mixers.iter().enumerate() {
                let sources: Vec<_> = emissions.iter().filter(|e| e.0 == m).collect();
                if sources.is_empty() {
                    continue;
                }
                let c = values.width(form.mixers[m].input)?;
                let flat = [Dim::Static(c)];
                let mut e = Vec::new();
                for (_, _, x) in &sources {
                    e.push(values.reshape(*x, &flat));
                }
                let e = values.stack(&e)?;
                let mut rows = Vec::new();
                for links in finals {
                    for (_, at, _) in &sources {
                        let t = values.shifted(links[m], *at)?;
                        rows.push(values.reshape(t, &flat));
                    }
                }
                let t = values.stack(&rows)?;
                let three = [n, sources.len(), c].map(Dim::Static);
                let t = values.reshape(t, &three);
                let part = values.einsum("hnc,nc->h", t, e)?;
                mixed = values.plus(mixed, Some(part))?;
            }
            let mixed = mixed.map(|x| values.reshape(x, &shape));
            let Some(change) = values.plus(local, mixed)? else {
                return Err(NoFlips::new("features that no change reaches"));
            };
            let ty = values.site(&shape);
            changes.push(if *values.graph.ty(change) == ty {
                change
            } else {
                values.graph.push(Op::Broadcast, &[change], ty)
            });
        }
        Ok(changes)
    }

    /// The linear part of an affine node applied to the changes of the features.
    fn linear(
        &self,
        values: &mut Values,
        id: NodeId,
        known: &mut HashMap<NodeId, Option<NodeId>>,
    ) -> Result<Option<NodeId>, NoFlips> {
        if let Some(&change) = known.get(&id) {
            return Ok(change);
        }
        if !self.affine.contains(&id) {
            return Ok(None);
        }
        let (op, args) = (values.graph.op(id).clone(), values.graph.args(id).to_vec());
        let ty = values.site(&values.graph.ty(id).shape.clone());
        let mut parts = Vec::new();
        for &a in &args {
            parts.push(self.linear(values, a, known)?);
        }
        let change = if parts.iter().all(Option::is_none) {
            None
        } else {
            let sum = match (&op, parts.as_slice()) {
                (Op::Zip(ZipFn::Add), &[a, b]) => values.plus(a, b)?,
                (Op::Zip(ZipFn::Sub), &[a, b]) => match b {
                    Some(b) => {
                        let b = values.graph.add(Op::Map(MapFn::Neg), &[b])?;
                        values.plus(a, Some(b))?
                    }
                    None => a,
                },
                (Op::Concat { .. }, _) => {
                    let mut operands = Vec::new();
                    for (part, &a) in parts.iter().zip(&args) {
                        operands.push(match part {
                            Some(p) => *p,
                            None => {
                                let zero = values.graph.add(Op::Number(0.0), &[])?;
                                let ty = values.site(&values.graph.ty(a).shape.clone());
                                values.graph.push(Op::Broadcast, &[zero], ty)
                            }
                        });
                    }
                    Some(values.graph.push(op, &operands, ty.clone()))
                }
                _ => {
                    let operands: Vec<NodeId> = parts
                        .iter()
                        .zip(&args)
                        .map(|(p, &a)| p.unwrap_or(a))
                        .collect();
                    Some(values.graph.push(op, &operands, ty.clone()))
                }
            };
            match sum {
                Some(x) if *values.graph.ty(x) != ty => {
                    Some(values.graph.push(Op::Broadcast, &[x], ty))
                }
                other => other,
            }
        };
        known.insert(id, change);
        Ok(change)
    }

    /// The graph behind the frontier, with the frontier as inputs.
    pub(crate) fn readout(&self, graph: &Graph) -> (Graph, Vec<u32>) {
        let mut readout = Graph::default();
        readout.params = graph.params.clone();
        let mut needed = vec![false; graph.len()];
        graph.outputs.iter().for_each(|o| needed[o.index()] = true);
        for id in graph.ids().rev() {
            if needed[id.index()] && !self.nodes.contains(&id) {
                graph.args(id).iter().for_each(|a| needed[a.index()] = true);
            }
        }
        let (mut copies, mut inputs) = (HashMap::new(), Vec::new());
        for id in graph.ids().filter(|id| needed[id.index()]) {
            let ty = graph.ty(id).clone();
            let copy = if self.nodes.contains(&id) {
                let index = readout.params.len() as u32;
                inputs.push(index);
                readout.params.push(GraphParam {
                    path: format!("frontier.{}", inputs.len() - 1),
                    ty: ty.clone(),
                });
                readout.push(Op::Param(index), &[], ty)
            } else {
                let args: Vec<NodeId> = graph.args(id).iter().map(|a| copies[a]).collect();
                readout.push(graph.op(id).clone(), &args, ty)
            };
            copies.insert(id, copy);
        }
        readout.outputs = graph.outputs.iter().map(|o| copies[o]).collect();
        (readout, inputs)
    }
}
