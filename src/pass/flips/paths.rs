//! Mixers that follow each other without a gate between.
//!
//! A vertex that is the same for all configurations makes the two mixers beside it
//! one linear map, known from the parameters. With `B_ml` the constant vertices,
//!
//! ```text
//! K_mk = sum_l G_m B_ml K_lk,   K_kk = G_k              paths
//! L_mk = K_mk + sum_{a,b} K_ma A_ab K_bk                links, at most one gate A_ab on the way
//! ```
//!
//! The host multiplies the kernels along a path; the program convolves the gate with
//! products of two of them, as it does for single mixers (`links`). Paths
//! are real: a complex channel is a block of two, its real and its imaginary part. Where
//! all vertices of a path keep channels apart a path has one block per channel, else
//! one block of everything.

use super::links::fixed;
use super::values::{Offset, Values};
use super::{Derived, NoFlips};
use crate::check::core::{Dim, Place};
use crate::interp::TokenLattice;
use crate::ir::kinds::Dependence;
use crate::ir::{Boundary, Graph, NodeId, NodeType, Op, ZipFn};
use crate::pass::normal_form::Coefficient;
use std::collections::HashMap;
use std::sync::Arc;

type Built = Result<NodeId, NoFlips>;

/// Most rows that one gate is convolved to: they grow with the fourth power of the width
/// where channels mix on both sides of it.
const MAX_ROWS: usize = 1 << 12;

/// The constant vertex between two mixers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Joint {
    /// The mixer that receives.
    pub last: usize,
    /// The mixer whose output it is.
    pub first: usize,
    /// Its elements, on tokens or the same for all: `[parts of first, parts of last,
    /// blocks]`, or one number.
    pub factor: NodeId,
}

/// All constant vertices of a network.
#[derive(Clone, Debug)]
pub struct Joints {
    /// A graph that has their elements; its parameters are the network's.
    pub graph: Graph,
    /// The vertices.
    pub all: Vec<Joint>,
}

/// `K_mk`: the sum over all ways from mixer `first` to mixer `last` through constant
/// vertices; the mixer itself if they are the same.
#[derive(Clone, Debug)]
pub struct Path {
    /// m.
    pub last: usize,
    /// k.
    pub first: usize,
    /// Whether blocks are channels, not one block of everything.
    pub diagonal: bool,
    /// Blocks, one for all that are equal.
    pub blocks: usize,
    /// Elements of a block of the result and of the input.
    pub parts: [usize; 2],
    /// Whether it depends on the displacement of its ends only.
    pub invariant: bool,
    /// The constant vertices it may run through.
    pub joints: Arc<Joints>,
}

impl PartialEq for Path {
    fn eq(&self, other: &Path) -> bool {
        let key = |p: &Path| (p.last, p.first, p.diagonal, p.blocks, p.parts, p.invariant);
        key(self) == key(other)
    }
}

impl Path {
    /// Numbers of the kernel, all blocks on all ends; 0 for a single mixer.
    pub fn numbers(&self, tokens: &TokenLattice) -> usize {
        if self.last == self.first {
            return 0;
        }
        let ends = if self.invariant { 1 } else { tokens.count() };
        let [out, into] = self.parts;
        [tokens.count(), ends, self.blocks, out, into]
            .into_iter()
            .fold(1, usize::saturating_mul)
    }
}

/// What is the same for all paths between mixers that constant vertices join.
#[derive(Clone, Copy, Debug)]
struct Group {
    /// Number of the first mixer of the group.
    group: usize,
    /// Vertices keep channels apart.
    diagonal: bool,
    /// All channels have the same kernel.
    shared: bool,
    /// Kernels depend on displacements only.
    invariant: bool,
}

/// The paths of a network.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    groups: Vec<Group>,
    joints: Arc<Joints>,
}

/// A link along two paths and through the gate between them, at all sources.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    displacements: Vec<Offset>,
    /// `[parts of the source, parts of the target, |D|, blocks]`, or with all pairs of
    /// blocks, those of the target last.
    response: NodeId,
    /// Whether blocks stay apart.
    diagonal: bool,
    /// Parts and blocks of source and target.
    source: [usize; 2],
    target: [usize; 2],
}

/// How a mixer's output at one token reaches that of another one.
#[derive(Clone, Debug)]
pub(super) enum Way {
    Straight(Path),
    Joined(Joined),
}

impl Values<'_> {
    /// Finds the constant vertices and what their paths have in common.
    pub(super) fn paths(&mut self) -> Result<Paths, NoFlips> {
        let form = self.form;
        let n = form.mixers.len();
        let constant: Vec<[usize; 2]> = (0..n)
            .flat_map(|m| (0..m).map(move |k| [m, k]))
            .filter(|&[m, k]| form.vertex(m, k) == Coefficient::Const)
            .collect();
        let mut group: Vec<usize> = (0..n).collect();
        for &[m, k] in &constant {
            let (new, old) = (group[m].min(group[k]), group[m].max(group[k]));
            group
                .iter_mut()
                .filter(|g| **g == old)
                .for_each(|g| *g = new);
        }
        let mut groups = Vec::with_capacity(n);
        for (m, &group) in group.iter().enumerate() {
            let [_, own] = self.channel_shapes(m)?;
            groups.push(Group {
                group,
                diagonal: true,
                shared: !self.channels(m)?.0 && own.iter().product::<usize>() == 1,
                invariant: !self.dense(m) && self.boundary() == Boundary::Periodic,
            });
        }
        for &[m, k] in &constant {
            groups[m].diagonal &= self.keeps_channels(m, k)?;
        }
        let merge = |groups: &mut [Group]| {
            for g in 0..n {
                let member = |other: &&Group| other.group == g;
                let all = |what: fn(&Group) -> bool| groups.iter().filter(member).all(what);
                let [diagonal, shared, invariant] =
                    [all(|g| g.diagonal), all(|g| g.shared), all(|g| g.invariant)];
                for one in groups.iter_mut().filter(|one| one.group == g) {
                    (one.diagonal, one.shared, one.invariant) = (diagonal, shared, invariant);
                }
            }
        };
        merge(&mut groups);
        let mut all = Vec::new();
        for &[last, first] in &constant {
            let one = match groups[last].shared {
                true => self.shared_factor(self.form.mixers[last].input, first)?,
                false => None,
            };
            groups[last].shared &= groups[last].diagonal && one.is_some();
            let factor = match (one, groups[last].diagonal) {
                (Some(one), true) => one,
                (_, true) => self.block_vertex(last, first)?,
                (_, false) => {
                    let [from, to] = [self.mixer_width(first)?, self.mixer_width(last)?];
                    let vertex = self.vertex(last, first)?;
                    self.reshape(vertex, &fixed(&[from, to, 1]))
                }
            };
            groups[last].invariant &= self.graph.ty(factor).place == Place::Whole;
            all.push(Joint {
                last,
                first,
                factor,
            });
        }
        merge(&mut groups);
        let graph = match all.is_empty() {
            true => Graph::default(),
            false => self.graph.clone(),
        };
        Ok(Paths {
            groups,
            joints: Arc::new(Joints { graph, all }),
        })
    }

    /// Elements of a mixer's output.
    fn mixer_width(&self, m: usize) -> Result<usize, NoFlips> {
        let (complex, c) = self.channels(m)?;
        Ok(if complex { 2 * c } else { c })
    }

    /// Parts and blocks of what mixer `m` receives and returns: of channels or, where its
    /// vertices mix these, of everything.
    fn blocks(&self, paths: &Paths, m: usize) -> Result<[usize; 2], NoFlips> {
        let (complex, c) = self.channels(m)?;
        Ok(match paths.groups[m].diagonal {
            true => [1 + usize::from(complex), c],
            false => [self.mixer_width(m)?, 1],
        })
    }

    fn path(&self, paths: &Paths, last: usize, first: usize) -> Result<Path, NoFlips> {
        let ([out, blocks], [into, _]) = (self.blocks(paths, last)?, self.blocks(paths, first)?);
        let group = &paths.groups[last];
        Ok(Path {
            last,
            first,
            diagonal: group.diagonal,
            blocks: if group.shared { 1 } else { blocks },
            parts: [out, into],
            invariant: group.invariant,
            joints: paths.joints.clone(),
        })
    }

    /// All ways by which mixer `first` reaches mixer `last`, but those that are one
    /// vertex and no more: whether there is such a one, and the others.
    ///
    /// # Errors
    /// Ways through several gates.
    pub(super) fn ways(
        &mut self,
        paths: &Paths,
        (last, first): (usize, usize),
        displacements: &[Offset],
    ) -> Result<(bool, Vec<Way>), NoFlips> {
        let form = self.form;
        let constant = |m: usize, k: usize| form.vertex(m, k) == Coefficient::Const;
        let gate = |m: usize, k: usize| form.vertex(m, k).window().is_some();
        // most gates on a way from `first` to each mixer; `None`: there is no way
        let mut gates: Vec<Option<usize>> = vec![None; last + 1];
        gates[first] = Some(0);
        let mut joined: Vec<bool> = (0..=last).map(|m| m == first).collect();
        for m in first + 1..=last {
            for k in first..m {
                if let Some(before) = gates[k].filter(|_| !form.vertex(m, k).is_zero()) {
                    gates[m] = gates[m].max(Some(before + usize::from(gate(m, k))));
                }
                joined[m] |= joined[k] && constant(m, k);
            }
        }
        if gates[last] > Some(1) {
            return Err(NoFlips::new("links through three mixers and two gates"));
        }
        let mut reaches = vec![false; last + 1];
        reaches[last] = true;
        for k in (first..last).rev() {
            reaches[k] = (k + 1..=last).any(|m| reaches[m] && constant(m, k));
        }
        let direct = !form.vertex(last, first).is_zero();
        let longer = (first + 1..last).any(|m| joined[m] && constant(last, m));
        let mut ways = Vec::new();
        if longer {
            ways.push(Way::Straight(self.path(paths, last, first)?));
        }
        for a in (first + 1..=last).filter(|&a| reaches[a]) {
            for b in (first..a).filter(|&b| joined[b] && gate(a, b)) {
                if (a, b) != (last, first) {
                    let ends = [self.path(paths, last, a)?, self.path(paths, b, first)?];
                    let joined = self.joined(paths, ends, displacements)?;
                    ways.push(Way::Joined(joined));
                }
            }
        }
        // a constant vertex is part of the path, if there is one
        Ok((direct && !(longer && constant(last, first)), ways))
    }

    /// `K_ma A_ab K_bk` for some displacements.
    fn joined(
        &mut self,
        paths: &Paths,
        [last, first]: [Path; 2],
        displacements: &[Offset],
    ) -> Result<Joined, NoFlips> {
        let [[alpha, a_blocks], [beta, b_blocks]] = [
            self.blocks(paths, last.first)?,
            self.blocks(paths, first.last)?,
        ];
        let ([rho, _], [_, sigma]) = (last.parts, first.parts);
        let n = displacements.len();
        let apart = [last.first, first.last].map(|m| paths.groups[m].diagonal) == [true; 2];
        let diagonal = apart && self.keeps_channels(last.first, first.last)?;
        let own = last.blocks.max(first.blocks);
        let (vertex, inner, kernel): (_, Vec<usize>, Vec<usize>) = match diagonal {
            true => (
                self.block_vertex(last.first, first.last)?,
                vec![beta, alpha, a_blocks],
                vec![beta, alpha, own],
            ),
            false => (
                self.vertex(last.first, first.last)?,
                vec![beta, b_blocks, alpha, a_blocks],
                vec![beta, first.blocks, alpha, last.blocks],
            ),
        };
        let invariant = last.invariant && first.invariant;
        let token = self.lattice_token();
        let place = match invariant {
            true => Place::Displacement(token),
            false => Place::Pair(token),
        };
        let what = Derived::Joined {
            last,
            first,
            diagonal,
            displacements: displacements.to_vec(),
        };
        let lead = [sigma, rho, n];
        let rows: usize = lead.iter().chain(&inner).product();
        if rows > MAX_ROWS {
            return Err(NoFlips::new(format!("links of {rows} numbers per token")));
        }
        let kernel = self.derive(what, place, &[&lead[..], &kernel].concat())?;
        let vertex = self.reshape(vertex, &fixed(&[&[1, 1, 1], &inner[..]].concat()));
        let ty = self.site(&fixed(&[&lead[..], &inner].concat()));
        let x = self.graph.push(Op::Broadcast, &[vertex], ty);
        let (complex, transposed) = (false, false);
        let op = match invariant {
            true => Op::Convolve {
                complex,
                transposed,
            },
            false => Op::Mix {
                complex,
                transposed,
            },
        };
        let mut response = self.graph.add(op, &[x, kernel])?;
        if alpha * beta > 1 {
            let sum = if diagonal {
                "stnbac->stnc"
            } else {
                "stnbcar->stncr"
            };
            response = self.contracted(sum, response)?;
        }
        let blocks = if diagonal {
            vec![a_blocks]
        } else {
            vec![b_blocks, a_blocks]
        };
        let response = self.reshape(response, &fixed(&[&lead[..], &blocks].concat()));
        Ok(Joined {
            displacements: displacements.to_vec(),
            response,
            diagonal,
            source: [sigma, b_blocks],
            target: [rho, a_blocks],
        })
    }

    /// What arrives at an offset by one of the ways: parts and blocks of the target.
    pub(super) fn by_way(
        &mut self,
        way: &Way,
        emissions: &[(Offset, NodeId)],
        at: Offset,
    ) -> Built {
        match way {
            Way::Straight(path) => self.by_path(path, emissions, at),
            Way::Joined(joined) => self.by_gate(joined, emissions, at),
        }
    }

    fn by_path(&mut self, path: &Path, emissions: &[(Offset, NodeId)], at: Offset) -> Built {
        let [out, into] = path.parts;
        let blocks = match emissions {
            [(_, e), ..] => self.width(*e)? / into,
            [] => return Err(NoFlips::new("no emission")),
        };
        let n = emissions.len();
        let places = emissions.iter().map(|(b, _)| (at, *b)).collect();
        let place = match path.invariant {
            true => Place::Whole,
            false => Place::Site(self.lattice_token()),
        };
        let what = Derived::Path {
            path: path.clone(),
            places,
        };
        let kernel = self.derive(what, place, &[n, into, out, path.blocks])?;
        let kernel = match path.blocks == blocks {
            true => kernel,
            false => {
                let shape = fixed(&[n, into, out, blocks]);
                let ty = NodeType { place, shape };
                self.graph.push(Op::Broadcast, &[kernel], ty)
            }
        };
        let e = self.sources(emissions, &[into, blocks])?;
        let e = self.reshape(e, &fixed(&[n, into, blocks]));
        self.einsum("nabc,nac->bc", kernel, e)
    }

    fn by_gate(&mut self, joined: &Joined, emissions: &[(Offset, NodeId)], at: Offset) -> Built {
        let ([sigma, sources], [rho, targets]) = (joined.source, joined.target);
        let inner = match joined.diagonal {
            true => vec![targets],
            false => vec![sources, targets],
        };
        let mut blocks = Vec::new();
        for (b, _) in emissions {
            let wanted = [at[0] - b[0], at[1] - b[1]];
            let Some(start) = joined.displacements.iter().position(|d| *d == wanted) else {
                return Err(NoFlips::new("a displacement without link"));
            };
            let there = self.shifted(joined.response, *b)?;
            let (axis, len) = (2, 1);
            let block = self.graph.add(Op::Slice { axis, start, len }, &[there])?;
            blocks.push(self.reshape(block, &fixed(&[&[sigma, rho], &inner[..]].concat())));
        }
        let n = blocks.len();
        let blocks = self.stack(&blocks)?;
        let blocks = self.reshape(blocks, &fixed(&[&[n, sigma, rho], &inner[..]].concat()));
        let e = self.sources(emissions, &[sigma, sources])?;
        let e = self.reshape(e, &fixed(&[n, sigma, sources]));
        let spec = match joined.diagonal {
            true => "nstc,nsc->tc",
            false => "nstcr,nsc->tr",
        };
        self.einsum(spec, blocks, e)
    }

    /// The vertex `A_mk` where it keeps channels apart: `[parts of k, parts of m,
    /// channels]`.
    fn block_vertex(&mut self, m: usize, k: usize) -> Built {
        let (output, input) = (self.form.mixers[k].output, self.form.mixers[m].input);
        let ((complex, c), (target, _)) = (self.channels(k)?, self.channels(m)?);
        let [parts, target] = [complex, target].map(|complex| 1 + usize::from(complex));
        // one in all channels of a part at a time
        let shape = self.graph.ty(output).shape.clone();
        let seed = self.unit(parts)?;
        let mut narrow = vec![Dim::Static(1); shape.len() + 1];
        narrow[0] = Dim::Static(parts);
        if complex {
            narrow[1] = Dim::Static(parts);
        }
        let seed = self.reshape(seed, &narrow);
        let ty = NodeType {
            place: Place::Whole,
            shape: [&[Dim::Static(parts)], &shape[..]].concat(),
        };
        let seed = self.graph.push(Op::Broadcast, &[seed], ty);
        let mut tangents = HashMap::from([(output, Some(seed))]);
        let Some(vertex) = self.tangent(input, parts, &mut tangents)? else {
            return Err(NoFlips::new("a vertex that vanishes"));
        };
        Ok(self.reshape(vertex, &fixed(&[parts, target, c])))
    }

    /// The factor between mixer `k` and a node in which all elements of its output are
    /// multiplied by the same number; `None` where that is not seen.
    fn shared_factor(&mut self, id: NodeId, k: usize) -> Result<Option<NodeId>, NoFlips> {
        if id == self.form.mixers[k].output {
            return Ok(Some(self.graph.add(Op::Number(1.0), &[])?));
        }
        if self.form.kinds.get(id) != Dependence::Linear || self.form.mixer_of(id).is_some() {
            return Ok(None);
        }
        let (op, args) = (self.graph.op(id).clone(), self.graph.args(id).to_vec());
        let linear = |n: NodeId| self.form.kinds.get(n) == Dependence::Linear;
        let same = |a: NodeId| self.graph.ty(a).shape == self.graph.ty(id).shape;
        let one = |n: NodeId| self.graph.ty(n).shape.iter().all(|d| *d == Dim::Static(1));
        Ok(match (&op, args.as_slice()) {
            (Op::Zip(f @ (ZipFn::Mul | ZipFn::Div)), &[x, g]) if linear(x) && same(x) && one(g) => {
                match self.shared_factor(x, k)? {
                    Some(x) => Some(self.zip(*f, x, g)?),
                    None => None,
                }
            }
            (Op::Zip(ZipFn::Mul), &[g, x]) if linear(x) && same(x) && one(g) => {
                match self.shared_factor(x, k)? {
                    Some(x) => Some(self.zip(ZipFn::Mul, x, g)?),
                    None => None,
                }
            }
            (Op::Broadcast | Op::Reshape, &[x]) if same(x) => self.shared_factor(x, k)?,
            _ => None,
        })
    }
}
