//! Values near a changed token, as values per token.

use super::{Derived, NoFlips, Shape, is_open};
use crate::check::core::{Dim, Einsum, Place, Token, Window};
use crate::ir::kinds::Dependence;
use crate::ir::{Boundary, Graph, GraphParam, MapFn, NodeId, NodeType, Op, ZipFn};
use crate::pass::normal_form::NormalForm;
use std::collections::{BTreeSet, HashMap};

pub(super) type Offset = [i64; 2];
type Built = Result<NodeId, NoFlips>;

/// Builds, for one shape at a time, the new value and the change of any node at
/// any offset from the changed token. Offsets count the node's own tokens, from
/// the first one inside the changed token.
pub(super) struct Values<'a> {
    pub(super) graph: Graph,
    pub(super) form: &'a NormalForm,
    token: Token,
    boundary: Boundary,
    shape: Shape,
    pub(super) derived: Vec<Derived>,
    /// Links `L_mk`, k < m, by (m, k).
    pub(super) chains: HashMap<(usize, usize), super::links::Chain>,
    /// Further ways from k to m, by (m, k).
    pub(super) ways: HashMap<(usize, usize), Vec<super::paths::Way>>,
    shifted: HashMap<(NodeId, Offset), NodeId>,
    new: HashMap<(NodeId, Offset), NodeId>,
    differences: HashMap<(NodeId, Offset), Option<NodeId>>,
    pub(super) emissions: HashMap<usize, Vec<(Offset, NodeId)>>,
    reach: [(i64, i64); 2],
}

impl<'a> Values<'a> {
    pub(super) fn new(
        graph: Graph,
        form: &'a NormalForm,
        token: Token,
        boundary: Boundary,
    ) -> Values<'a> {
        Values {
            graph,
            form,
            token,
            boundary,
            shape: Vec::new(),
            derived: Vec::new(),
            chains: HashMap::new(),
            ways: HashMap::new(),
            shifted: HashMap::new(),
            new: HashMap::new(),
            differences: HashMap::new(),
            emissions: HashMap::new(),
            reach: [(0, 0); 2],
        }
    }

    /// Turns to another shape.
    pub(super) fn begin(&mut self, shape: &Shape) {
        self.shape = shape.clone();
        self.new.clear();
        self.differences.clear();
        self.emissions.clear();
    }

    pub(super) fn finish(self) -> (Graph, Vec<Derived>) {
        (self.graph, self.derived)
    }

    /// Tokens touched along an axis, as an interval around the changed one.
    pub(super) fn reach(&self, axis: usize) -> i64 {
        self.reach[axis].1 - self.reach[axis].0 + 1
    }

    /// Offsets at which a window of a value on `token` sees some spin of the shape.
    pub(super) fn support(&self, window: Window, token: Token, shape: &Shape) -> Vec<Offset> {
        let mut all = BTreeSet::new();
        for spin in shape {
            let axis = |a: usize| {
                let t = token.0[a] as i64;
                -((window.hi[a] - spin[a]).div_euclid(t))..=(spin[a] - window.lo[a]).div_euclid(t)
            };
            let columns = axis(1);
            all.extend(axis(0).flat_map(|x| columns.clone().map(move |y| [x, y])));
        }
        all.into_iter().collect()
    }

    /// Offsets at which any of some coefficients may change.
    pub(super) fn affected(
        &self,
        windows: impl Iterator<Item = Window>,
        token: Token,
    ) -> Vec<Offset> {
        match windows.reduce(Window::hull) {
            Some(w) => self.support(w, token, &self.shape),
            None => Vec::new(),
        }
    }

    fn sees(&self, window: Window, token: Token, at: Offset) -> bool {
        self.shape.iter().any(|s| {
            (0..2).all(|a| {
                let first = token.0[a] as i64 * at[a];
                (first + window.lo[a]..=first + window.hi[a]).contains(&s[a])
            })
        })
    }

    fn token_of(&self, id: NodeId) -> Option<Token> {
        match self.graph.ty(id).place {
            Place::Site(t) => Some(t),
            _ => None,
        }
    }

    /// The changed token's own offset in units of coarse tokens, and the part inside.
    fn coarse(&self, token: Token, at: Offset) -> (Offset, [i64; 2]) {
        let ratio = [0, 1].map(|a| (self.token.0[a] / token.0[a]) as i64);
        (
            [0, 1].map(|a| at[a].div_euclid(ratio[a])),
            [0, 1].map(|a| at[a].rem_euclid(ratio[a])),
        )
    }

    fn visit(&mut self, coarse: Offset) {
        for (reach, c) in self.reach.iter_mut().zip(coarse) {
            *reach = (reach.0.min(c), reach.1.max(c));
        }
    }

    /// The background's value at an offset: zero beyond an open lattice.
    pub(super) fn shifted(&mut self, id: NodeId, at: Offset) -> Built {
        let Some(token) = self.token_of(id) else {
            return Ok(id);
        };
        let (coarse, part) = self.coarse(token, at);
        self.visit(coarse);
        if let Some(&known) = self.shifted.get(&(id, at)) {
            return Ok(known);
        }
        let shape = self.graph.ty(id).shape.clone();
        let ratio = [0, 1].map(|a| self.token.0[a] / token.0[a]);
        let parts = ratio[0] * ratio[1];
        let mut value = id;
        if parts > 1 {
            value = self.graph.add(Op::Patch { ratio }, &[id])?;
        }
        if coarse != [0, 0] {
            let own = self.graph.ty(value).shape.clone();
            let window = Op::Window {
                lo: coarse,
                hi: coarse,
            };
            value = self.graph.add(window, &[value])?;
            value = self.reshape(value, &own);
        }
        if parts > 1 {
            let start = part[0] as usize * ratio[1] + part[1] as usize;
            let slice = Op::Slice {
                axis: 0,
                start,
                len: 1,
            };
            value = self.graph.add(slice, &[value])?;
            value = self.reshape(value, &shape);
        }
        self.shifted.insert((id, at), value);
        Ok(value)
    }

    /// The new value of a node.
    pub(super) fn value(&mut self, id: NodeId, at: Offset) -> Built {
        match self.form.kinds.get(id) {
            Dependence::Const => self.shifted(id, at),
            Dependence::Local(w) => {
                let token = self.token_of(id).unwrap_or(Token::SPIN);
                let moves = matches!(self.graph.op(id), Op::Window { .. } | Op::Patch { .. });
                if self.sees(w, token, at) || moves {
                    self.recompute(id, at)
                } else {
                    self.shifted(id, at)
                }
            }
            Dependence::Linear => match self.form.mixer_of(id) {
                Some(k) => self.output(k, at),
                None => self.recompute(id, at),
            },
            _ => Err(NoFlips::new("a pooled value used on sites")),
        }
    }

    /// `y_k + Dy_k`.
    fn output(&mut self, k: usize, at: Offset) -> Built {
        let node = self.form.mixers[k].output;
        if let Some(&known) = self.new.get(&(node, at)) {
            return Ok(known);
        }
        let mut value = self.shifted(node, at)?;
        if let Some(change) = self.output_change(k, at)? {
            let shape = self.graph.ty(node).shape.clone();
            let change = self.reshape(change, &shape);
            value = self.zip(ZipFn::Add, value, change)?;
        }
        self.new.insert((node, at), value);
        Ok(value)
    }

    fn recompute(&mut self, id: NodeId, at: Offset) -> Built {
        if let Some(&known) = self.new.get(&(id, at)) {
            return Ok(known);
        }
        let token = self.token_of(id).unwrap_or(self.token);
        let (coarse, _) = self.coarse(token, at);
        self.visit(coarse);
        let (op, args) = (self.graph.op(id).clone(), self.graph.args(id).to_vec());
        let value = match op {
            Op::Spins => {
                let old = self.shifted(id, at)?;
                self.graph.add(Op::Map(MapFn::Neg), &[old])?
            }
            Op::Window { lo, hi } => {
                let mut parts = Vec::new();
                for x in lo[0]..=hi[0] {
                    for y in lo[1]..=hi[1] {
                        parts.push(self.neighbour(args[0], [at[0] + x, at[1] + y])?);
                    }
                }
                self.stack(&parts)?
            }
            Op::Patch { ratio } => {
                let mut parts = Vec::new();
                for x in 0..ratio[0] as i64 {
                    for y in 0..ratio[1] as i64 {
                        let fine = [at[0] * ratio[0] as i64 + x, at[1] * ratio[1] as i64 + y];
                        parts.push(self.value(args[0], fine)?);
                    }
                }
                self.stack(&parts)?
            }
            Op::Map(_)
            | Op::Zip(_)
            | Op::Einsum(_)
            | Op::Reshape
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Concat { .. }
            | Op::Broadcast => {
                let mut operands = Vec::new();
                for a in args {
                    operands.push(self.value(a, at)?);
                }
                if let Some(k) = restricted(&op) {
                    operands[k] = self.regular(operands[k], coarse)?;
                }
                let ty = self.per_token(id);
                self.graph.push(op, &operands, ty)
            }
            other => return Err(NoFlips::new(format!("{other:?} near a change"))),
        };
        self.new.insert((id, at), value);
        Ok(value)
    }

    /// A value read by a window: zero beyond an open lattice.
    fn neighbour(&mut self, id: NodeId, at: Offset) -> Built {
        let value = self.value(id, at)?;
        let token = self.token_of(id).unwrap_or(self.token);
        let changed = match self.form.kinds.get(id) {
            Dependence::Local(w) => self.sees(w, token, at),
            _ => false,
        };
        // recomputed values exist beyond the lattice too
        let recomputed = matches!(self.graph.op(id), Op::Window { .. } | Op::Patch { .. });
        if changed || recomputed {
            self.masked(value, self.coarse(token, at).0)
        } else {
            Ok(value)
        }
    }

    /// Zero where the token at an offset lies beyond an open lattice. What is masked must
    /// be a number there, too.
    pub(super) fn masked(&mut self, value: NodeId, coarse: Offset) -> Built {
        match self.inside(coarse)? {
            Some(inside) => self.zip(ZipFn::Mul, value, inside),
            None => Ok(value),
        }
    }

    /// One where the token at an offset lies beyond an open lattice, for functions that
    /// would not be finite there.
    fn regular(&mut self, value: NodeId, coarse: Offset) -> Built {
        // what is the same everywhere is regular everywhere
        let (Some(_), Some(inside)) = (self.token_of(value), self.inside(coarse)?) else {
            return Ok(value);
        };
        let one = self.graph.add(Op::Number(1.0), &[])?;
        let beyond = self.zip(ZipFn::Sub, one, inside)?;
        let value = self.zip(ZipFn::Mul, value, inside)?;
        self.zip(ZipFn::Add, value, beyond)
    }

    /// 1 where the token at an offset is on the lattice, 0 beyond; `None` if it is
    /// everywhere.
    fn inside(&mut self, coarse: Offset) -> Result<Option<NodeId>, NoFlips> {
        if !is_open(self.boundary) || coarse == [0, 0] {
            return Ok(None);
        }
        let one = self.graph.add(Op::Number(1.0), &[])?;
        let ty = NodeType {
            place: Place::Site(self.token),
            shape: Vec::new(),
        };
        let everywhere = self.graph.push(Op::Broadcast, &[one], ty);
        self.shifted(everywhere, coarse).map(Some)
    }

    /// As [`Values::masked`], for a value on finer tokens.
    pub(super) fn masked_at(&mut self, value: NodeId, token: Token, at: Offset) -> Built {
        let coarse = self.coarse(token, at).0;
        self.masked(value, coarse)
    }

    /// New minus old coefficients applied to the new outputs of mixers; `None`
    /// where nothing changed. Has the node's shape.
    pub(super) fn difference(&mut self, id: NodeId, at: Offset) -> Result<Option<NodeId>, NoFlips> {
        if let Some(&known) = self.differences.get(&(id, at)) {
            return Ok(known);
        }
        let difference = match self.form.kinds.get(id) {
            Dependence::Const => None,
            Dependence::Local(w) => {
                let token = self.token_of(id).unwrap_or(self.token);
                if self.sees(w, token, at) {
                    let (new, old) = (self.value(id, at)?, self.shifted(id, at)?);
                    Some(self.zip(ZipFn::Sub, new, old)?)
                } else {
                    None
                }
            }
            Dependence::Linear if self.form.mixer_of(id).is_some() => None,
            Dependence::Linear => self.linear_difference(id, at)?,
            _ => return Err(NoFlips::new("a pooled value used on sites")),
        };
        let difference = difference.map(|d| self.fill(d, id));
        self.differences.insert((id, at), difference);
        Ok(difference)
    }

    fn linear_difference(&mut self, id: NodeId, at: Offset) -> Result<Option<NodeId>, NoFlips> {
        let (op, args) = (self.graph.op(id).clone(), self.graph.args(id).to_vec());
        let mut parts = Vec::new();
        for &a in &args {
            parts.push(self.difference(a, at)?);
        }
        if parts.iter().all(Option::is_none) {
            return Ok(None);
        }
        let (coarse, _) = self.coarse(self.token_of(id).unwrap_or(self.token), at);
        Ok(match (&op, parts.as_slice()) {
            (Op::Zip(ZipFn::Add), [a, b]) => self.plus(*a, *b)?,
            (Op::Zip(ZipFn::Sub), [a, Some(b)]) => {
                let b = self.graph.add(Op::Map(MapFn::Neg), &[*b])?;
                self.plus(*a, Some(b))?
            }
            (Op::Zip(ZipFn::Sub), [a, None]) => *a,
            (Op::Zip(ZipFn::Div), [a, Some(_)]) => {
                // x'/g' - (x' - Dx)/g
                let x = self.value(args[0], at)?;
                let (g, old) = (self.value(args[1], at)?, self.shifted(args[1], at)?);
                let (g, old) = (self.regular(g, coarse)?, self.regular(old, coarse)?);
                let new = self.zip(ZipFn::Div, x, g)?;
                let before = match a {
                    Some(a) => self.zip(ZipFn::Sub, x, *a)?,
                    None => x,
                };
                let before = self.zip(ZipFn::Div, before, old)?;
                Some(self.zip(ZipFn::Sub, new, before)?)
            }
            (Op::Zip(ZipFn::Div), [Some(a), None]) => {
                let g = self.value(args[1], at)?;
                let g = self.regular(g, coarse)?;
                Some(self.zip(ZipFn::Div, *a, g)?)
            }
            (Op::Zip(ZipFn::Mul), [_, _]) | (Op::Einsum(_), [_, _]) => {
                // g' x' - g (x' - Dx) = Dg x' + g Dx
                let linear = |n: NodeId| self.form.kinds.get(n) == Dependence::Linear;
                let (x, g) = if linear(args[0]) { (0, 1) } else { (1, 0) };
                let ty = self.per_token(id);
                let mut total = None;
                for (part, other, old) in [(g, x, false), (x, g, true)] {
                    if let Some(d) = parts[part] {
                        let factor = if old {
                            self.shifted(args[other], at)?
                        } else {
                            self.value(args[other], at)?
                        };
                        let mut operands = [d, d];
                        operands[part] = d;
                        operands[other] = factor;
                        let term = self.graph.push(op.clone(), &operands, ty.clone());
                        total = self.plus(total, Some(term))?;
                    }
                }
                total
            }
            (Op::Concat { .. }, _) => {
                let mut operands = Vec::new();
                for (part, &a) in parts.iter().zip(&args) {
                    operands.push(match part {
                        Some(d) => *d,
                        None => {
                            let zero = self.graph.add(Op::Number(0.0), &[])?;
                            let ty = self.per_token(a);
                            self.graph.push(Op::Broadcast, &[zero], ty)
                        }
                    });
                }
                let ty = self.per_token(id);
                Some(self.graph.push(op, &operands, ty))
            }
            (_, [Some(d)]) => {
                let ty = self.per_token(id);
                Some(self.graph.push(op, &[*d], ty))
            }
            _ => return Err(NoFlips::new(format!("{op:?} of a linear value"))),
        })
    }

    /// `e_m` at every offset where it does not vanish, flattened.
    pub(super) fn emissions(&mut self, m: usize) -> Result<Vec<(Offset, NodeId)>, NoFlips> {
        if let Some(known) = self.emissions.get(&m) {
            return Ok(known.clone());
        }
        let mixer = &self.form.mixers[m];
        let windows = mixer.affine.coefficients().filter_map(|c| c.window());
        let mut all = Vec::new();
        for at in self.affected(windows, mixer.source_token) {
            if let Some(d) = self.difference(mixer.input, at)? {
                let masked = self.masked(d, at)?;
                all.push((at, masked));
            }
        }
        self.emissions.insert(m, all.clone());
        Ok(all)
    }

    // Construction helpers.

    /// The type of a node with its place replaced by the changed tokens.
    pub(super) fn per_token(&self, id: NodeId) -> NodeType {
        let ty = self.graph.ty(id);
        NodeType {
            place: match ty.place {
                Place::Site(_) => Place::Site(self.token),
                other => other,
            },
            shape: ty.shape.clone(),
        }
    }

    pub(super) fn site(&self, shape: &[Dim]) -> NodeType {
        NodeType {
            place: Place::Site(self.token),
            shape: shape.to_vec(),
        }
    }

    pub(super) fn zip(&mut self, f: ZipFn, a: NodeId, b: NodeId) -> Built {
        Ok(self.graph.add(Op::Zip(f), &[a, b])?)
    }

    /// Sum of what is there.
    pub(super) fn plus(
        &mut self,
        a: Option<NodeId>,
        b: Option<NodeId>,
    ) -> Result<Option<NodeId>, NoFlips> {
        Ok(match (a, b) {
            (Some(a), Some(b)) => Some(self.zip(ZipFn::Add, a, b)?),
            (a, b) => a.or(b),
        })
    }

    pub(super) fn einsum(&mut self, spec: &str, a: NodeId, b: NodeId) -> Built {
        let (inputs, output) = spec.split_once("->").unwrap_or((spec, ""));
        let spec = Einsum {
            inputs: inputs.split(',').map(|l| l.chars().collect()).collect(),
            output: output.chars().collect(),
        };
        Ok(self.graph.add(Op::Einsum(spec), &[a, b])?)
    }

    /// An operand summed over some of its axes.
    pub(super) fn contracted(&mut self, spec: &str, x: NodeId) -> Built {
        let (input, output) = spec.split_once("->").unwrap_or((spec, ""));
        let spec = Einsum {
            inputs: vec![input.chars().collect()],
            output: output.chars().collect(),
        };
        Ok(self.graph.add(Op::Einsum(spec), &[x])?)
    }

    pub(super) fn reshape(&mut self, x: NodeId, shape: &[Dim]) -> NodeId {
        let ty = NodeType {
            place: self.graph.ty(x).place,
            shape: shape.to_vec(),
        };
        if *self.graph.ty(x) == ty {
            x
        } else {
            self.graph.push(Op::Reshape, &[x], ty)
        }
    }

    /// Values of one shape with a new leading axis. Constants are put on sites.
    pub(super) fn stack(&mut self, parts: &[NodeId]) -> Built {
        let mut all = Vec::new();
        for &p in parts {
            let mut shape = self.graph.ty(p).shape.clone();
            let p = if self.token_of(p).is_none() {
                let ty = self.site(&shape);
                self.graph.push(Op::Broadcast, &[p], ty)
            } else {
                p
            };
            shape.insert(0, Dim::Static(1));
            all.push(self.reshape(p, &shape));
        }
        if let [one] = all.as_slice() {
            return Ok(*one);
        }
        Ok(self.graph.add(Op::Concat { axis: 0 }, &all)?)
    }

    /// `x` broadcast to the shape of a node.
    fn fill(&mut self, x: NodeId, like: NodeId) -> NodeId {
        let ty = self.per_token(like);
        if *self.graph.ty(x) == ty {
            x
        } else {
            self.graph.push(Op::Broadcast, &[x], ty)
        }
    }

    /// Number of elements of a node per index.
    pub(super) fn width(&self, id: NodeId) -> Result<usize, NoFlips> {
        width(&self.graph, id)
    }

    /// A new parameter that the host derives.
    pub(super) fn derive(&mut self, what: Derived, place: Place, shape: &[usize]) -> Built {
        let ty = NodeType {
            place,
            shape: shape.iter().map(|&n| Dim::Static(n)).collect(),
        };
        let index = self.graph.params.len() as u32;
        self.graph.params.push(GraphParam {
            path: format!("derived.{}", self.derived.len()),
            ty,
        });
        self.derived.push(what);
        Ok(self.graph.add(Op::Param(index), &[])?)
    }

    pub(super) fn boundary(&self) -> Boundary {
        self.boundary
    }

    pub(super) fn lattice_token(&self) -> Token {
        self.token
    }
}

/// The operand of a function that is finite for some of its values only.
fn restricted(op: &Op) -> Option<usize> {
    match op {
        Op::Zip(ZipFn::Div) => Some(1),
        Op::Zip(ZipFn::Pow) => Some(0),
        Op::Map(MapFn::Recip | MapFn::Log | MapFn::Log1p | MapFn::Sqrt) => Some(0),
        _ => None,
    }
}

/// Number of elements of a node per index of its place.
pub(super) fn width(graph: &Graph, id: NodeId) -> Result<usize, NoFlips> {
    graph
        .ty(id)
        .shape
        .iter()
        .map(|d| match d {
            Dim::Static(n) => Ok(*n),
            Dim::Sites { .. } => Err(NoFlips::new("an axis over all sites")),
        })
        .product()
}
