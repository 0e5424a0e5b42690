//! The coefficients of the normal form as site values of a graph.
//!
//! `S_m[i;s]`, `A_mk[i;s]`, `q[i;s]` and `R_k[i;s]` depend on the configuration
//! through a window around the site only. This pass writes them down as nodes:
//! the source is a linear value with all mixer outputs zero, column c of `A_mk`
//! its response to the unit vector c in place of `y_k`. The graph has no mixers
//! and no sums over sites, so it can be evaluated on any stretch of the chain.

use super::normal_form::{Affine, MixerClass, NormalForm, PoolKind};
use crate::check::core::{Dim, Place, Token, Window};
use crate::interp::TokenLattice;
use crate::ir::kinds::Dependence;
use crate::ir::{Graph, Lattice, MapFn, NodeId, NodeType, Op, ZipFn};
use std::collections::HashMap;

/// Why a network has no such graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoVertices(String);

impl NoVertices {
    fn new(text: impl Into<String>) -> NoVertices {
        NoVertices(text.into())
    }
}

/// A node of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The node: on sites, or one value for all of them.
    pub node: NodeId,
    /// Whether it depends on the configuration.
    pub dynamic: bool,
}

/// One coefficient: a source (one column) or a vertex (one column per component
/// of the mixer's output).
#[derive(Clone, Debug)]
pub struct Piece {
    /// Per column its value, `None` where it vanishes.
    pub columns: Vec<Option<Part>>,
    /// First and last token it reads, relative to its own; `None`: no spin.
    pub window: Option<[i64; 2]>,
}

/// A linear value `S + sum_k A_k y_k`.
#[derive(Clone, Debug)]
pub struct AffineValue {
    /// Components.
    pub width: usize,
    /// S or q.
    pub source: Piece,
    /// A_k or R_k, by mixer; absent: zero.
    pub vertices: Vec<(usize, Piece)>,
}

/// The coefficients of a network; see the [module](self).
#[derive(Clone, Debug)]
pub struct Vertices {
    /// The graph, without outputs; its parameters are the network's.
    pub graph: Graph,
    /// Tokens of all mixers.
    pub token: Token,
    /// Input of every mixer.
    pub mixers: Vec<AffineValue>,
    /// Operand of every pool, summed over the parts of a token.
    pub pools: Vec<AffineValue>,
    /// Components of every mixer's output.
    pub outputs: Vec<usize>,
}

impl Vertices {
    /// Derives the graph for a chain of `lattice.sites()` spins.
    ///
    /// # Errors
    /// Mixers other than recurrences, several token sizes, features or parameters
    /// that know their position, lattices with two axes.
    pub fn new(graph: &Graph, form: &NormalForm, lattice: Lattice) -> Result<Vertices, NoVertices> {
        if lattice.extent[1] != 1 {
            return Err(NoVertices::new("the lattice is not a chain"));
        }
        let Some(first) = form.mixers.first() else {
            return Err(NoVertices::new("there is no mixer"));
        };
        let token = first.source_token;
        for mixer in &form.mixers {
            if mixer.class != MixerClass::StateSpace {
                return Err(NoVertices::new(format!(
                    "a {} mixer is not a recurrence",
                    mixer.class
                )));
            }
            if mixer.source_token != token || mixer.target_token != token {
                return Err(NoVertices::new("mixers on tokens of several sizes"));
            }
        }
        for param in &graph.params {
            let fixed = param.ty.shape.iter().all(|d| matches!(d, Dim::Static(_)));
            if param.ty.place != Place::Whole || !fixed {
                let text = format!("parameter `{}` knows positions", param.path);
                return Err(NoVertices::new(text));
            }
        }
        let mut empty = Graph::default();
        empty.params = graph.params.clone();
        let mut build = Builder {
            old: graph,
            form,
            lattice,
            token,
            graph: empty,
            dynamic: Vec::new(),
            copies: HashMap::new(),
            parts: HashMap::new(),
        };
        let outputs = form
            .mixers
            .iter()
            .map(|m| width(graph, m.output))
            .collect::<Result<Vec<_>, _>>()?;
        let mut mixers = Vec::new();
        for mixer in &form.mixers {
            mixers.push(build.affine(mixer.input, &mixer.affine, &outputs)?);
        }
        let mut pools = Vec::new();
        for pool in &form.pools {
            if pool.kind == PoolKind::Gather {
                return Err(NoVertices::new("pooled features keep their sites"));
            }
            pools.push(if pool.token == token {
                build.affine(pool.input, &pool.affine, &outputs)?
            } else {
                build.fine(pool.input, &pool.affine, pool.token)?
            });
        }
        let blind = |p: &Piece| p.window.is_none() && p.columns.iter().flatten().any(|c| c.dynamic);
        let all = Vertices {
            graph: build.graph,
            token,
            mixers,
            pools,
            outputs,
        };
        if all.pieces().any(blind) {
            return Err(NoVertices::new(
                "a coefficient reads spins it does not name",
            ));
        }
        Ok(all)
    }

    /// All coefficients.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.mixers
            .iter()
            .chain(&self.pools)
            .flat_map(|v| std::iter::once(&v.source).chain(v.vertices.iter().map(|(_, p)| p)))
    }

    /// First and last token read by any coefficient, containing 0.
    pub fn window(&self) -> [i64; 2] {
        self.pieces()
            .filter_map(|p| p.window)
            .fold([0, 0], |w, p| [w[0].min(p[0]), w[1].max(p[1])])
    }
}

fn width(graph: &Graph, id: NodeId) -> Result<usize, NoVertices> {
    graph
        .ty(id)
        .shape
        .iter()
        .map(|d| match d {
            Dim::Static(n) => Ok(*n),
            Dim::Sites { .. } => Err(NoVertices::new("a value with an axis over all sites")),
        })
        .product()
}

/// Which part of a linear value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Which {
    /// What it is without mixers.
    Source,
    /// Its response to a component of a mixer's output.
    Unit(usize, usize),
}

struct Builder<'a> {
    old: &'a Graph,
    form: &'a NormalForm,
    lattice: Lattice,
    token: Token,
    graph: Graph,
    dynamic: Vec<bool>,
    copies: HashMap<NodeId, NodeId>,
    parts: HashMap<(NodeId, Which), Option<NodeId>>,
}

impl Builder<'_> {
    fn push(&mut self, op: Op, args: &[NodeId], ty: NodeType) -> NodeId {
        let dynamic = matches!(op, Op::Spins) || args.iter().any(|a| self.dynamic[a.index()]);
        self.dynamic.push(dynamic);
        self.graph.push(op, args, ty)
    }

    fn part_of(&self, node: NodeId) -> Part {
        Part {
            node,
            dynamic: self.dynamic[node.index()],
        }
    }

    fn tokens(&self, window: Option<Window>, token: Token) -> Option<[i64; 2]> {
        let (lo, hi) = window?.tokens(token, 0);
        Some([lo, hi])
    }

    fn affine(
        &mut self,
        id: NodeId,
        affine: &Affine,
        outputs: &[usize],
    ) -> Result<AffineValue, NoVertices> {
        let source = self.part(id, Which::Source)?.map(|n| self.part_of(n));
        let mut vertices = Vec::new();
        for (&k, vertex) in &affine.vertices {
            let mut columns = Vec::new();
            for c in 0..outputs[k] {
                let column = self.part(id, Which::Unit(k, c))?;
                columns.push(column.map(|n| self.part_of(n)));
            }
            let window = self.tokens(vertex.coefficient.window(), self.token);
            vertices.push((k, Piece { columns, window }));
        }
        Ok(AffineValue {
            width: width(self.old, id)?,
            source: Piece {
                columns: vec![source],
                window: self.tokens(affine.source.window(), self.token),
            },
            vertices,
        })
    }

    /// A local value on finer tokens, summed over each token of the mixers.
    fn fine(
        &mut self,
        id: NodeId,
        affine: &Affine,
        fine: Token,
    ) -> Result<AffineValue, NoVertices> {
        let (coarse, t) = (self.token.0[0], fine.0[0]);
        if !affine.vertices.is_empty() || !coarse.is_multiple_of(t) {
            return Err(NoVertices::new("mixers and pools on different tokens"));
        }
        let (ratio, d) = (coarse / t, width(self.old, id)?);
        let value = self.copy(id)?;
        let place = Place::Site(self.token);
        let site = |shape: Vec<Dim>| NodeType { place, shape };
        let own = self.graph.ty(value).shape.clone();
        let (flat, sum) = (
            site(vec![Dim::Static(ratio), Dim::Static(d)]),
            site(own.clone()),
        );
        let mut joined = vec![Dim::Static(ratio)];
        joined.extend(own);
        let joined = site(joined);
        let placed = matches!(self.graph.ty(value).place, Place::Site(_));
        if !placed {
            return Err(NoVertices::new("a pool over constants"));
        }
        let patch = Op::Patch { ratio: [ratio, 1] };
        let value = self.push(patch, &[value], joined);
        let value = self.push(Op::Reshape, &[value], flat);
        let spec = crate::check::core::Einsum {
            inputs: vec![vec!['r', 'd']],
            output: vec!['d'],
        };
        let summed = site(vec![Dim::Static(d)]);
        let value = self.push(Op::Einsum(spec), &[value], summed);
        let value = self.push(Op::Reshape, &[value], sum);
        let window = affine.source.window().map(|w| w.patch(fine, [ratio, 1]));
        Ok(AffineValue {
            width: d,
            source: Piece {
                columns: vec![Some(self.part_of(value))],
                window: self.tokens(window, self.token),
            },
            vertices: Vec::new(),
        })
    }

    /// A constant or local node in the new graph.
    fn copy(&mut self, id: NodeId) -> Result<NodeId, NoVertices> {
        if let Some(&known) = self.copies.get(&id) {
            return Ok(known);
        }
        width(self.old, id)?;
        let ty = self.old.ty(id).clone();
        let count = |token| {
            TokenLattice::new(self.lattice, token).map_err(|e| NoVertices::new(e.to_string()))
        };
        let op = match self.old.op(id) {
            Op::SiteCount(token) => Op::Number(count(*token)?.count() as f64),
            Op::Extent { axis, token } => Op::Number(count(*token)?.extent[*axis] as f64),
            op => op.clone(),
        };
        let moved = matches!(
            op,
            Op::Window { .. } | Op::Patch { .. } | Op::Unpatch { .. }
        );
        let constant = |n: NodeId| self.form.kinds.get(n) == Dependence::Const;
        let allowed = match op {
            // beyond an open end there is no constant, only zero
            _ if moved => !constant(self.old.args(id)[0]),
            Op::Param(_)
            | Op::Number(_)
            | Op::Spins
            | Op::Map(_)
            | Op::Zip(_)
            | Op::Einsum(_)
            | Op::Reshape
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Concat { .. }
            | Op::Broadcast => true,
            _ => false,
        };
        if !allowed || !matches!(ty.place, Place::Whole | Place::Site(_)) {
            let name = super::normal_form::op_name(&op);
            return Err(NoVertices::new(format!("{name} knows positions")));
        }
        let mut args = Vec::new();
        for &a in self.old.args(id) {
            args.push(self.copy(a)?);
        }
        let copy = self.push(op, &args, ty);
        self.copies.insert(id, copy);
        Ok(copy)
    }

    /// A part of a value, of the value's shape; `None`: zero. It is on sites if
    /// anything it is made of is.
    fn part(&mut self, id: NodeId, which: Which) -> Result<Option<NodeId>, NoVertices> {
        if self.form.kinds.get(id) != Dependence::Linear {
            return Ok(match which {
                Which::Source => Some(self.copy(id)?),
                Which::Unit(..) => None,
            });
        }
        if let Some(&known) = self.parts.get(&(id, which)) {
            return Ok(known);
        }
        let part = match (self.form.mixer_of(id), which) {
            (Some(m), Which::Unit(k, c)) if m == k => Some(self.unit(id, c)?),
            (Some(_), _) => None,
            (None, _) => self.linear(id, which)?,
        };
        let shape = &self.old.ty(id).shape;
        let part = match part {
            Some(x) if self.graph.ty(x).shape != *shape => {
                let ty = NodeType {
                    place: self.graph.ty(x).place,
                    shape: shape.clone(),
                };
                Some(self.push(Op::Broadcast, &[x], ty))
            }
            other => other,
        };
        self.parts.insert((id, which), part);
        Ok(part)
    }

    /// The unit vector `c` in the shape of a mixer's output.
    fn unit(&mut self, id: NodeId, c: usize) -> Result<NodeId, NoVertices> {
        let n = width(self.old, id)?;
        let whole = |shape: Vec<Dim>| NodeType {
            place: Place::Whole,
            shape,
        };
        let one = self.push(Op::Number(1.0), &[], whole(vec![]));
        let one = self.push(Op::Reshape, &[one], whole(vec![Dim::Static(1)]));
        let pad = Op::Pad {
            axis: 0,
            start: c,
            len: n,
        };
        let unit = self.push(pad, &[one], whole(vec![Dim::Static(n)]));
        let shape = self.old.ty(id).shape.clone();
        Ok(self.push(Op::Reshape, &[unit], whole(shape)))
    }

    fn apply(&mut self, op: Op, args: &[NodeId], shape: &[Dim]) -> NodeId {
        let site = |n: &NodeId| matches!(self.graph.ty(*n).place, Place::Site(_));
        let place = if args.iter().any(site) {
            Place::Site(self.token)
        } else {
            Place::Whole
        };
        let shape = shape.to_vec();
        self.push(op, args, NodeType { place, shape })
    }

    fn linear(&mut self, id: NodeId, which: Which) -> Result<Option<NodeId>, NoVertices> {
        let (op, args) = (self.old.op(id).clone(), self.old.args(id).to_vec());
        let shape = self.old.ty(id).shape.clone();
        let linear = |b: &Self, n: NodeId| b.form.kinds.get(n) == Dependence::Linear;
        match op {
            Op::Zip(ZipFn::Add | ZipFn::Sub) => {
                let (a, b) = (self.part(args[0], which)?, self.part(args[1], which)?);
                Ok(match (a, b, &op) {
                    (Some(a), Some(b), _) => Some(self.apply(op, &[a, b], &shape)),
                    (a, None, _) => a,
                    (None, Some(b), Op::Zip(ZipFn::Add)) => Some(b),
                    (None, Some(b), _) => {
                        let shape = self.graph.ty(b).shape.clone();
                        Some(self.apply(Op::Map(MapFn::Neg), &[b], &shape))
                    }
                })
            }
            Op::Zip(ZipFn::Mul | ZipFn::Div) | Op::Einsum(_) => {
                let mut operands = Vec::new();
                for &a in &args {
                    operands.push(if linear(self, a) {
                        match self.part(a, which)? {
                            Some(part) => part,
                            None => return Ok(None),
                        }
                    } else {
                        self.copy(a)?
                    });
                }
                Ok(Some(self.apply(op, &operands, &shape)))
            }
            Op::Concat { .. } => {
                let mut operands = Vec::new();
                let mut any = false;
                for &a in &args {
                    let part = self.part(a, which)?;
                    any |= part.is_some();
                    operands.push(match part {
                        Some(part) => part,
                        None => {
                            let ty = NodeType {
                                place: Place::Whole,
                                shape: vec![],
                            };
                            let zero = self.push(Op::Number(0.0), &[], ty);
                            let shape = self.old.ty(a).shape.clone();
                            self.apply(Op::Broadcast, &[zero], &shape)
                        }
                    });
                }
                Ok(any.then(|| self.apply(op, &operands, &shape)))
            }
            Op::Map(MapFn::Neg)
            | Op::Reshape
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Broadcast => {
                let Some(part) = self.part(args[0], which)? else {
                    return Ok(None);
                };
                Ok(Some(self.apply(op, &[part], &shape)))
            }
            other => Err(NoVertices::new(format!(
                "{} of a linear value",
                super::normal_form::op_name(&other)
            ))),
        }
    }
}
