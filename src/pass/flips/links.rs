//! How emissions reach later mixers: direct kernels and links through vertices.
//!
//! Between two translation-invariant mixers the link at displacement D is a
//! convolution of the vertex with a kernel known from the parameters,
//!
//! ```text
//! L_mk[q+D, q] = sum_j G_m(q+D-j) A_mk[j] G_k(j-q) = ( C_D * A_mk )(q),   C_D(n) = G_m(n+D) G_k(-n)
//! ```
//!
//! A vertex is real-linear; on complex channels `A z = P z + Q conj(z)`, and the two
//! parts are convolved with `G_m G_k` and `G_m conj(G_k)`: an emission e arrives as
//! `U e + V conj(e)`. Where only one of the two mixers is complex there is one part: the
//! real vertex acts on a real `y_k`, or `A z = Re( (A(1) - i A(i)) z )` becomes real.
//!
//! Where a mixer is dense, `C_D(q, j) = G_m(q+D, j) G_k(j, q)` depends on both ends: a
//! matrix, known from the parameters as well, takes the place of the convolution.

use super::paths::Way;
use super::values::{Offset, Values};
use super::{Derived, NoFlips, Shape};
use crate::check::core::{Dim, Einsum, Place, Window};
use crate::ir::kinds::Dependence;
use crate::ir::{MapFn, NodeId, NodeType, Op, ZipFn};
use crate::pass::normal_form::{Coefficient, MixerClass};
use std::collections::HashMap;

type Built = Result<NodeId, NoFlips>;

/// A link `L_mk` at all sources, for several displacements.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    displacements: Vec<Offset>,
    /// `[|D|, C, R]`, or `[2, |D|, C, R]` if the target is complex: U and V if the
    /// source is complex too, else per part of the source its response.
    responses: Vec<NodeId>,
    channels: [usize; 2],
    /// Whether source and target are complex.
    complex: [bool; 2],
}

fn is_complex(op: &Op) -> bool {
    match *op {
        Op::Scan(s) => s.complex,
        Op::Convolve { complex, .. } | Op::Modes { complex, .. } | Op::Mix { complex, .. } => {
            complex
        }
        _ => false,
    }
}

/// Numbers of the channels of a shape whose kernels differ: the first of each.
fn different(all: &[usize], own: &[usize]) -> Vec<usize> {
    let mut numbers = vec![0];
    for (&n, &own) in all.iter().zip(own) {
        let along = |k: usize| (0..own.min(n)).map(move |i| k * n + i);
        numbers = numbers.into_iter().flat_map(along).collect();
    }
    numbers
}

pub(super) fn fixed(shape: &[usize]) -> Vec<Dim> {
    shape.iter().map(|&n| Dim::Static(n)).collect()
}

impl Values<'_> {
    /// Whether mixer `m` works on complex channels, and their number.
    pub(super) fn channels(&self, m: usize) -> Result<(bool, usize), NoFlips> {
        let node = self.form.mixers[m].output;
        let complex = is_complex(self.graph.op(node));
        let width = self.width(node)?;
        Ok((complex, if complex { width / 2 } else { width }))
    }

    /// Whether the kernel of mixer `m` depends on both ends.
    pub(super) fn dense(&self, m: usize) -> bool {
        self.form.mixers[m].class == MixerClass::Dense
    }

    /// The shape of the channels of mixer `m`, and that of a dense kernel: of equal
    /// length, 1 where channels share it.
    pub(super) fn channel_shapes(&self, m: usize) -> Result<[Vec<usize>; 2], NoFlips> {
        let node = self.form.mixers[m].output;
        let (complex, c) = self.channels(m)?;
        if !self.dense(m) {
            return Ok([vec![c], vec![c]]);
        }
        let own = |id: NodeId| -> Result<Vec<usize>, NoFlips> {
            let shape = &self.graph.ty(id).shape;
            let dims = shape.iter().skip(usize::from(complex));
            dims.map(|d| match d {
                Dim::Static(n) => Ok(*n),
                Dim::Sites { .. } => Err(NoFlips::new("an axis over all sites")),
            })
            .collect()
        };
        let (all, mut kernel) = (own(node)?, own(self.graph.args(node)[1])?);
        let missing = all.len().saturating_sub(kernel.len());
        kernel.splice(0..0, std::iter::repeat_n(1, missing));
        Ok([all, kernel])
    }

    /// Builds every link that changes of the given shapes may need.
    pub(super) fn links(&mut self, shapes: &[Shape]) -> Result<(), NoFlips> {
        let form = self.form;
        let paths = self.paths()?;
        for last in 0..form.mixers.len() {
            let mixer = &form.mixers[last];
            // where a changed coefficient reads y_last
            let readers = form.mixers.iter().map(|m| &m.affine);
            let readers = readers.chain(form.pools.iter().map(|p| &p.affine));
            let read: Option<Window> = readers
                .filter_map(|a| a.coefficient(last).window())
                .reduce(Window::hull);
            let Some(read) = read else { continue };
            for first in (0..last).filter(|&k| form.linked(last, k)) {
                let source = &form.mixers[first].affine;
                let emits = source.coefficients().filter_map(Coefficient::window);
                let Some(emits) = emits.reduce(Window::hull) else {
                    continue;
                };
                let mut displacements: Vec<Offset> = Vec::new();
                for shape in shapes {
                    let targets = self.support(read, mixer.target_token, shape);
                    let sources = self.support(emits, mixer.source_token, shape);
                    for a in &targets {
                        displacements.extend(sources.iter().map(|b| [a[0] - b[0], a[1] - b[1]]));
                    }
                }
                displacements.sort_unstable();
                displacements.dedup();
                let (direct, ways) = self.ways(&paths, (last, first), &displacements)?;
                self.ways.insert((last, first), ways);
                if direct {
                    let chain = self.chain(last, first, displacements)?;
                    self.chains.insert((last, first), chain);
                }
            }
        }
        Ok(())
    }

    fn chain(
        &mut self,
        last: usize,
        first: usize,
        displacements: Vec<Offset>,
    ) -> Result<Chain, NoFlips> {
        let (complex, r) = self.channels(last)?;
        let (source_complex, c) = self.channels(first)?;
        let vertex = self.vertex(last, first)?;
        let ty = self.site(&self.graph.ty(vertex).shape.clone());
        let vertex = self.graph.push(Op::Broadcast, &[vertex], ty);
        let n = displacements.len();
        let dense = self.dense(last) || self.dense(first);
        let token = self.lattice_token();
        let place = match dense {
            true => Place::Pair(token),
            false => Place::Displacement(token),
        };
        let [r_shape, r_own] = self.channel_shapes(last)?;
        let [c_shape, c_own] = self.channel_shapes(first)?;
        let own = [c_own.as_slice(), &r_own].concat();
        let axes = [c_shape.as_slice(), &r_shape].concat();
        let derived = |conjugate| {
            let displacements = displacements.clone();
            match dense {
                true => Derived::ChainPairs {
                    last,
                    first,
                    channels: [different(&r_shape, &r_own), different(&c_shape, &c_own)],
                    displacements,
                    conjugate,
                },
                false => Derived::Chain {
                    last,
                    first,
                    displacements,
                    conjugate,
                },
            }
        };
        let responses = if complex && source_complex {
            let split = self.reshape(vertex, &fixed(&[2, c, 2, r]));
            let mut parts = Vec::new();
            for (input, output) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let mut x = split;
                for (axis, start) in [(0, input), (2, output)] {
                    x = self.graph.add(
                        Op::Slice {
                            axis,
                            start,
                            len: 1,
                        },
                        &[x],
                    )?;
                }
                parts.push(self.reshape(x, &fixed(&[1, 1, c, r])));
            }
            let half = self.graph.add(Op::Number(0.5), &[])?;
            // A(1) = P + Q and A(i) = i (P - Q)
            let mut halves = Vec::new();
            for (re, im, conjugate) in [
                (ZipFn::Add, ZipFn::Sub, false),
                (ZipFn::Sub, ZipFn::Add, true),
            ] {
                let re = self.zip(re, parts[0], parts[3])?;
                let im = self.zip(im, parts[1], parts[2])?;
                let x = self.graph.add(Op::Concat { axis: 0 }, &[re, im])?;
                let x = self.zip(ZipFn::Mul, x, half)?;
                let kernel =
                    self.derive(derived(conjugate), place, &[&[2, n], &own[..]].concat())?;
                halves.push(self.convolve(x, kernel, &[2, n, c, r], &axes)?);
            }
            halves
        } else if complex {
            // rows of the vertex: real parts, imaginary parts
            let split = self.reshape(vertex, &fixed(&[c, 2, r]));
            let mut parts = Vec::new();
            for start in 0..2 {
                let len = 1;
                let axis = 1;
                let part = self.graph.add(Op::Slice { axis, start, len }, &[split])?;
                parts.push(self.reshape(part, &fixed(&[1, 1, c, r])));
            }
            let x = self.graph.add(Op::Concat { axis: 0 }, &parts)?;
            let kernel = self.derive(derived(false), place, &[&[2, n], &own[..]].concat())?;
            vec![self.convolve(x, kernel, &[2, n, c, r], &axes)?]
        } else if source_complex {
            let split = self.reshape(vertex, &fixed(&[2, 1, 1, c, r]));
            let mut parts = Vec::new();
            for start in 0..2 {
                let (axis, len) = (0, 1);
                let part = self.graph.add(Op::Slice { axis, start, len }, &[split])?;
                parts.push(self.reshape(part, &fixed(&[1, 1, c, r])));
            }
            let minus = self.graph.add(Op::Map(MapFn::Neg), &[parts[1]])?;
            let x = self.graph.add(Op::Concat { axis: 0 }, &[parts[0], minus])?;
            let kernel = self.derive(derived(false), place, &[&[2, n], &own[..]].concat())?;
            let z = self.convolve(x, kernel, &[2, n, c, r], &axes)?;
            // Re(z e): the real part of e sees Re z, its imaginary part -Im z
            let mut responses = Vec::new();
            for start in 0..2 {
                let (axis, len) = (0, 1);
                let part = self.graph.add(Op::Slice { axis, start, len }, &[z])?;
                responses.push(self.reshape(part, &fixed(&[n, c, r])));
            }
            responses[1] = self.graph.add(Op::Map(MapFn::Neg), &[responses[1]])?;
            responses
        } else {
            let x = self.reshape(vertex, &fixed(&[1, c, r]));
            let kernel = self.derive(derived(false), place, &[&[n], &own[..]].concat())?;
            vec![self.convolve(x, kernel, &[n, c, r], &axes)?]
        };
        Ok(Chain {
            displacements,
            responses,
            channels: [c, r],
            complex: [source_complex, complex],
        })
    }

    /// One input under many kernels, on displacements or on pairs: a value of this
    /// shape, complex if it has four axes. The last two are those of `axes`, by which
    /// kernels are told apart.
    fn convolve(&mut self, x: NodeId, kernel: NodeId, shape: &[usize], axes: &[usize]) -> Built {
        let lead = &shape[..shape.len() - 2];
        let x_shape = &self.graph.ty(x).shape;
        let mut narrow = x_shape[..x_shape.len() - 2].to_vec();
        narrow.extend(fixed(axes));
        let x = self.reshape(x, &narrow);
        let ty = self.site(&fixed(&[lead, axes].concat()));
        let x = self.graph.push(Op::Broadcast, &[x], ty);
        let (complex, transposed) = (shape.len() == 4, false);
        let op = match self.graph.ty(kernel).place {
            Place::Pair(_) => Op::Mix {
                complex,
                transposed,
            },
            _ => Op::Convolve {
                complex,
                transposed,
            },
        };
        let all = self.graph.add(op, &[x, kernel])?;
        Ok(self.reshape(all, &fixed(shape)))
    }

    /// `A_mk` of the background: inputs of the vertex first. On sites, or the same for all.
    pub(super) fn vertex(&mut self, m: usize, k: usize) -> Built {
        let (output, input) = (self.form.mixers[k].output, self.form.mixers[m].input);
        let width = self.width(output)?;
        let mut shape = vec![Dim::Static(width)];
        shape.extend(self.graph.ty(output).shape.iter().copied());
        let unit = self.unit(width)?;
        let unit = self.reshape(unit, &shape);
        let mut tangents = HashMap::from([(output, Some(unit))]);
        let Some(vertex) = self.tangent(input, width, &mut tangents)? else {
            return Err(NoFlips::new("a vertex that vanishes"));
        };
        let rows = self.width(input)?;
        Ok(self.reshape(vertex, &fixed(&[width, rows])))
    }

    /// The unit matrix: rows of n zeros behind each 1, cut at length n.
    pub(super) fn unit(&mut self, width: usize) -> Built {
        let one = self.graph.add(Op::Number(1.0), &[])?;
        let column = NodeType {
            place: Place::Whole,
            shape: fixed(&[width, 1]),
        };
        let column = self.graph.push(Op::Broadcast, &[one], column);
        let pad = Op::Pad {
            axis: 1,
            start: 0,
            len: width + 1,
        };
        let padded = self.graph.add(pad, &[column])?;
        let flat = self.reshape(padded, &fixed(&[width * (width + 1)]));
        let cut = Op::Slice {
            axis: 0,
            start: 0,
            len: width * width,
        };
        let cut = self.graph.add(cut, &[flat])?;
        Ok(self.reshape(cut, &fixed(&[width, width])))
    }

    /// The linear part of a node in one mixer's output, `width` tangents at once
    /// as leading axis.
    pub(super) fn tangent(
        &mut self,
        id: NodeId,
        width: usize,
        known: &mut HashMap<NodeId, Option<NodeId>>,
    ) -> Result<Option<NodeId>, NoFlips> {
        if let Some(&t) = known.get(&id) {
            return Ok(t);
        }
        if self.form.kinds.get(id) != Dependence::Linear || self.form.mixer_of(id).is_some() {
            known.insert(id, None);
            return Ok(None);
        }
        let (op, args) = (self.graph.op(id).clone(), self.graph.args(id).to_vec());
        let shape = self.graph.ty(id).shape.clone();
        let mut parts = Vec::new();
        for &a in &args {
            parts.push(self.tangent(a, width, known)?);
        }
        let lead = |shape: &[Dim]| -> Vec<Dim> {
            [Dim::Static(width)].iter().chain(shape).copied().collect()
        };
        let result = if parts.iter().all(Option::is_none) {
            None
        } else {
            let place = |values: &Values, parts: &[NodeId]| {
                let site = parts
                    .iter()
                    .any(|&p| matches!(values.graph.ty(p).place, Place::Site(_)));
                NodeType {
                    place: if site {
                        Place::Site(values.lattice_token())
                    } else {
                        Place::Whole
                    },
                    shape: lead(&shape),
                }
            };
            Some(match (&op, parts.as_slice()) {
                (Op::Zip(f @ (ZipFn::Add | ZipFn::Sub)), &[a, b]) => {
                    let a = self.lift(a, shape.len());
                    let mut b = self.lift(b, shape.len());
                    if let (ZipFn::Sub, Some(x)) = (f, b) {
                        b = Some(self.graph.add(Op::Map(MapFn::Neg), &[x])?);
                    }
                    let sum = self.plus(a, b)?;
                    match sum {
                        Some(sum) if self.graph.ty(sum).shape == lead(&shape) => sum,
                        Some(sum) => {
                            let ty = place(self, &[sum]);
                            self.graph.push(Op::Broadcast, &[sum], ty)
                        }
                        None => return Ok(None),
                    }
                }
                (Op::Zip(f), &[a, b]) => {
                    let a = self.lift(a, shape.len()).unwrap_or(args[0]);
                    let b = self.lift(b, shape.len()).unwrap_or(args[1]);
                    self.zip(*f, a, b)?
                }
                (Op::Einsum(e), _) => {
                    let used = |l: &char| e.inputs.iter().flatten().any(|u| u == l);
                    let Some(letter) = ('A'..='Z').find(|l| !used(l)) else {
                        return Err(NoFlips::new("an einsum with too many axes"));
                    };
                    let mut e: Einsum = e.clone();
                    e.output.insert(0, letter);
                    let mut operands = args.clone();
                    for (k, part) in parts.iter().enumerate() {
                        if let Some(p) = part {
                            e.inputs[k].insert(0, letter);
                            operands[k] = *p;
                        }
                    }
                    self.graph.add(Op::Einsum(e), &operands)?
                }
                (Op::Concat { axis }, _) => {
                    let site = self.site(&[]).place;
                    let mut operands = Vec::new();
                    for (part, &a) in parts.iter().zip(&args) {
                        let shape = lead(&self.graph.ty(a).shape);
                        let p = match part {
                            Some(p) => *p,
                            None => self.graph.add(Op::Number(0.0), &[])?,
                        };
                        let ty = NodeType { place: site, shape };
                        operands.push(if *self.graph.ty(p) == ty {
                            p
                        } else {
                            self.graph.push(Op::Broadcast, &[p], ty)
                        });
                    }
                    self.graph.add(Op::Concat { axis: axis + 1 }, &operands)?
                }
                (_, &[Some(x)]) => {
                    let op = match op {
                        Op::Slice { axis, start, len } => Op::Slice {
                            axis: axis + 1,
                            start,
                            len,
                        },
                        Op::Pad { axis, start, len } => Op::Pad {
                            axis: axis + 1,
                            start,
                            len,
                        },
                        other => other,
                    };
                    let x = if op == Op::Broadcast {
                        self.lift(Some(x), shape.len()).unwrap_or(x)
                    } else {
                        x
                    };
                    let ty = place(self, &[x]);
                    self.graph.push(op, &[x], ty)
                }
                _ => return Err(NoFlips::new(format!("{op:?} of a linear value"))),
            })
        };
        known.insert(id, result);
        Ok(result)
    }

    /// A tangent with axes of length 1 behind its leading axis, so that it
    /// broadcasts like the value it belongs to.
    fn lift(&mut self, x: Option<NodeId>, rank: usize) -> Option<NodeId> {
        let x = x?;
        let mut shape = self.graph.ty(x).shape.clone();
        while shape.len() < rank + 1 {
            shape.insert(1, Dim::Static(1));
        }
        Some(self.reshape(x, &shape))
    }

    /// `Dy_m` at an offset, flattened; `None` if nothing arrives.
    pub(super) fn output_change(
        &mut self,
        m: usize,
        at: Offset,
    ) -> Result<Option<NodeId>, NoFlips> {
        let mut total = self.direct(m, at)?;
        for k in 0..m {
            if let Some(chain) = self.chains.get(&(m, k)).cloned() {
                let arriving = self.arriving(&chain, k, at)?;
                total = self.plus(total, arriving)?;
            }
            let ways = self.ways.get(&(m, k)).cloned().unwrap_or_default();
            total = self.along(&ways, (m, k), at, total)?;
        }
        Ok(total)
    }

    /// Adds what arrives at mixer `m` from mixer `k` by some ways.
    fn along(
        &mut self,
        ways: &[Way],
        (m, k): (usize, usize),
        at: Offset,
        mut total: Option<NodeId>,
    ) -> Result<Option<NodeId>, NoFlips> {
        for way in ways {
            let emissions = self.emissions(k)?;
            if !emissions.is_empty() {
                let arriving = self.by_way(way, &emissions, at)?;
                let (complex, c) = self.channels(m)?;
                let shape: &[usize] = if complex { &[2, c] } else { &[c] };
                let arriving = self.reshape(arriving, &fixed(shape));
                total = self.plus(total, Some(arriving))?;
            }
        }
        Ok(total)
    }

    fn direct(&mut self, m: usize, at: Offset) -> Result<Option<NodeId>, NoFlips> {
        let emissions = self.emissions(m)?;
        if emissions.is_empty() {
            return Ok(None);
        }
        let (complex, c) = self.channels(m)?;
        let n = emissions.len();
        let sources = emissions.iter().map(|(b, _)| *b);
        let (what, place) = match self.dense(m) {
            true => {
                let places = sources.map(|b| (at, b)).collect();
                let place = Place::Site(self.lattice_token());
                (Derived::DirectPairs { mixer: m, places }, place)
            }
            false => {
                let displacements = sources.map(|b| [at[0] - b[0], at[1] - b[1]]).collect();
                let what = Derived::Direct {
                    mixer: m,
                    displacements,
                };
                (what, Place::Whole)
            }
        };
        let shape: &[usize] = if complex { &[2, c] } else { &[c] };
        let e = self.sources(&emissions, shape)?;
        let y = if complex {
            let kernel = self.derive(what, place, &[n, 2, 2, c])?;
            self.einsum("nabc,nac->bc", kernel, e)?
        } else {
            let kernel = self.derive(what, place, &[n, c])?;
            self.einsum("nc,nc->c", kernel, e)?
        };
        Ok(Some(y))
    }

    pub(super) fn sources(&mut self, emissions: &[(Offset, NodeId)], shape: &[usize]) -> Built {
        let flat: Vec<NodeId> = emissions
            .iter()
            .map(|&(_, e)| self.reshape(e, &fixed(shape)))
            .collect();
        self.stack(&flat)
    }

    fn arriving(&mut self, chain: &Chain, k: usize, at: Offset) -> Result<Option<NodeId>, NoFlips> {
        let emissions = self.emissions(k)?;
        let [c, r] = chain.channels;
        let [source, target] = chain.complex;
        if emissions.is_empty() {
            return Ok(None);
        }
        let mut blocks = Vec::new();
        for (b, _) in &emissions {
            let wanted = [at[0] - b[0], at[1] - b[1]];
            let Some(start) = chain.displacements.iter().position(|d| *d == wanted) else {
                return Err(NoFlips::new("a displacement without link"));
            };
            for &response in &chain.responses {
                let there = self.shifted(response, *b)?;
                let slice = Op::Slice {
                    axis: usize::from(target),
                    start,
                    len: 1,
                };
                let block = self.graph.add(slice, &[there])?;
                let shape: &[usize] = if target { &[2, c, r] } else { &[c, r] };
                blocks.push(self.reshape(block, &fixed(shape)));
            }
        }
        let (n, blocks) = (blocks.len(), self.stack(&blocks)?);
        let y = if source && target {
            let e = self.both_parts(&emissions, c)?;
            let blocks = self.reshape(blocks, &fixed(&[2 * n, c, r]));
            self.einsum("lcr,lbc->br", blocks, e)?
        } else {
            let shape: &[usize] = if source { &[2, c] } else { &[c] };
            let e = self.sources(&emissions, shape)?;
            let e = self.reshape(e, &fixed(&[n, c]));
            let spec = if target { "lbcr,lc->br" } else { "lcr,lc->r" };
            self.einsum(spec, blocks, e)?
        };
        Ok(Some(y))
    }

    /// What the real and imaginary parts of U and V are multiplied with, for the real
    /// and the imaginary part of `U e + V conj(e)`: `[4 emissions, 2, C]`.
    fn both_parts(&mut self, emissions: &[(Offset, NodeId)], c: usize) -> Built {
        let mut all = Vec::new();
        for &(_, e) in emissions {
            let e = self.reshape(e, &fixed(&[2, c]));
            let part = |start| Op::Slice {
                axis: 0,
                start,
                len: 1,
            };
            let re = self.graph.add(part(0), &[e])?;
            let im = self.graph.add(part(1), &[e])?;
            let minus = self.graph.add(Op::Map(MapFn::Neg), &[im])?;
            for pair in [[re, im], [minus, re], [re, minus], [im, re]] {
                all.push(self.graph.add(Op::Concat { axis: 0 }, &pair)?);
            }
        }
        self.stack(&all)
    }
}
