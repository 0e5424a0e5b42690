//! Kernels of several mixers in a row, multiplied out on the host.

use super::constants::constant_values;
use super::kernels::{Kernel, moved};
use crate::check::core::Place;
use crate::interp::{EvalError, Tensor, TokenLattice};
use crate::ir::{Boundary, Lattice};
use crate::pass::flips::paths::{Joint, Path};
use rustfft::num_complex::Complex64;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The products of a network's mixers that were needed so far.
pub(super) struct Products {
    lattice: Lattice,
    params: Vec<Tensor>,
    known: Mutex<HashMap<[usize; 2], Arc<Product>>>,
}

/// A product by target, element of the result, source, and part of the input. Elements
/// of the result are counted part by part.
pub(super) struct Product {
    lattice: TokenLattice,
    /// Sources: all tokens, or only the first one of a ring.
    sources: usize,
    /// Elements of the result, and parts of the input.
    width: usize,
    into: usize,
    entries: Vec<f64>,
}

/// A path as a matrix on tokens.
pub(super) enum Along<'k> {
    /// A single mixer.
    Mixer(&'k Kernel, &'k Path),
    /// Several mixers.
    Product(Arc<Product>, &'k Path),
}

/// What a path is between two tokens.
pub(super) enum Between<'a> {
    /// Per channel.
    Mixer(&'a [Complex64], &'a Path),
    /// By element of the result, with so many numbers in between.
    Product(&'a [f64], usize, &'a Path),
}

impl Along<'_> {
    /// The path between two tokens, wherever they are on a ring; `None` beyond an open
    /// lattice.
    pub(super) fn between(&self, target: [i64; 2], source: [i64; 2]) -> Option<Between<'_>> {
        match self {
            Along::Mixer(kernel, path) => {
                (kernel.between(target, source)).map(|g| Between::Mixer(g, path))
            }
            Along::Product(product, path) => {
                let by = match product.sources {
                    1 => [0, 1].map(|a| target[a] - source[a]),
                    _ => target,
                };
                let source = if product.sources == 1 { [0, 0] } else { source };
                let inside = |at| inside(&product.lattice, at);
                let (target, source) = (inside(by)?, inside(source)?);
                let from = target * product.width * product.sources * product.into;
                let entries = &product.entries[from + source * product.into..];
                let stride = product.sources * product.into;
                Some(Between::Product(entries, stride, path))
            }
        }
    }
}

impl Between<'_> {
    /// The element (part of the result, part of the input) of a block.
    pub(super) fn at(&self, out: usize, into: usize, block: usize) -> f64 {
        match *self {
            Between::Product(entries, stride, path) => {
                entries[(out * path.blocks + block) * stride + into]
            }
            Between::Mixer(g, path) if path.diagonal => element(g[block], out, into),
            // everything is one block
            Between::Mixer(g, _) => match (out % g.len(), into % g.len()) {
                (c, d) if c == d => element(g[c], out / g.len(), into / g.len()),
                _ => 0.0,
            },
        }
    }
}

/// Of the real matrix (part of the result, part of the input) of a complex number.
fn element(z: Complex64, out: usize, into: usize) -> f64 {
    match (out, into) {
        (0, 0) | (1, 1) => z.re,
        (0, _) => -z.im,
        _ => z.im,
    }
}

/// The token at coordinates, wherever they are on a ring.
pub(super) fn inside(lattice: &TokenLattice, at: [i64; 2]) -> Option<usize> {
    let mut found = [0; 2];
    for a in 0..2 {
        let t = lattice.extent[a] as i64;
        found[a] = match lattice.boundary {
            Boundary::Periodic => at[a].rem_euclid(t),
            Boundary::Open if (0..t).contains(&at[a]) => at[a],
            Boundary::Open => return None,
        } as usize;
    }
    Some(lattice.site(found))
}

impl Products {
    pub(super) fn new(lattice: Lattice, params: Vec<Tensor>) -> Products {
        Products {
            lattice,
            params,
            known: Mutex::new(HashMap::new()),
        }
    }

    /// A path, multiplied out if it was not yet.
    ///
    /// # Errors
    /// What the reference evaluator reports.
    pub(super) fn along<'k>(
        &self,
        mixers: &'k [Kernel],
        path: &'k Path,
    ) -> Result<Along<'k>, EvalError> {
        if path.last == path.first {
            return Ok(Along::Mixer(&mixers[path.last], path));
        }
        let key = [path.last, path.first];
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains_key(&key) {
            let factors = self.factors(path)?;
            self.multiply(mixers, path, &factors, &mut known);
        }
        Ok(Along::Product(known[&key].clone(), path))
    }

    /// The elements of the vertices on a path.
    fn factors<'p>(&self, path: &'p Path) -> Result<Vec<(&'p Joint, Vec<f64>)>, EvalError> {
        let joints = &path.joints;
        let on_path = |j: &&Joint| path.first <= j.first && j.last <= path.last;
        let all: Vec<&Joint> = joints.all.iter().filter(on_path).collect();
        let roots = all.iter().map(|j| j.factor);
        let values = constant_values(&joints.graph, self.lattice, &self.params, roots)?;
        let value = |j: &Joint| values[j.factor.index()].as_ref().map(|t| t.data.clone());
        Ok((all.into_iter().filter_map(|j| Some((j, value(j)?)))).collect())
    }

    /// Every product from the path's first mixer up to its last one.
    fn multiply(
        &self,
        mixers: &[Kernel],
        path: &Path,
        factors: &[(&Joint, Vec<f64>)],
        known: &mut HashMap<[usize; 2], Arc<Product>>,
    ) {
        let kernel = &mixers[path.first];
        let sources = if path.invariant { 1 } else { kernel.sites() };
        // one channel for all that are equal
        let channels = |m: usize| match path.diagonal && path.blocks == 1 {
            true => 1,
            false => mixers[m].channels(),
        };
        let mut reached: HashMap<usize, Arc<Product>> = HashMap::new();
        let own = Arc::new(kernel.as_product(path, channels(path.first), sources));
        reached.insert(path.first, own);
        let behind = mixers.iter().enumerate().take(path.last + 1);
        for (m, kernel) in behind.skip(path.first + 1) {
            let c = channels(m);
            let mut input = Product {
                width: kernel.parts() * c,
                entries: Vec::new(),
                ..Product::empty(kernel.lattice(), sources, path.parts[1])
            };
            for (joint, factor) in factors.iter().filter(|(j, _)| j.last == m) {
                if let Some(before) = reached.get(&joint.first) {
                    let per_site =
                        !matches!(path.joints.graph.ty(joint.factor).place, Place::Whole);
                    input.add_joined(before, factor, (per_site, path.blocks));
                }
            }
            if input.entries.is_empty() {
                continue;
            }
            let product = Arc::new(kernel.applied(&input, c));
            known.insert([m, path.first], product.clone());
            reached.insert(m, product);
        }
    }
}

impl Product {
    fn empty(lattice: &TokenLattice, sources: usize, into: usize) -> Product {
        Product {
            lattice: *lattice,
            sources,
            width: 0,
            into,
            entries: Vec::new(),
        }
    }

    fn row(&self) -> usize {
        self.sources * self.into
    }

    /// Adds a product behind a vertex: `[parts before, parts behind, blocks]`, per token
    /// or once, or one number for all elements.
    fn add_joined(&mut self, before: &Product, factor: &[f64], (per_site, blocks): (bool, usize)) {
        let (sites, row) = (self.lattice.count(), self.row());
        self.entries.resize(sites * self.width * row, 0.0);
        let [into, out] = [before.width / blocks, self.width / blocks];
        let per = factor.len() / if per_site { sites } else { 1 };
        for site in 0..sites {
            let factor = &factor[if per_site { site * per } else { 0 }..][..per];
            for a in 0..into {
                for b in 0..out {
                    for c in 0..blocks {
                        let f = match per {
                            1 => factor[0],
                            _ => factor[(a * out + b) * blocks + c],
                        };
                        let [from, to] = [
                            (site * before.width + a * blocks + c) * row,
                            (site * self.width + b * blocks + c) * row,
                        ];
                        add(
                            &mut self.entries[to..to + row],
                            f,
                            &before.entries[from..from + row],
                        );
                    }
                }
            }
        }
    }
}

/// Adds a multiple of a row.
fn add(to: &mut [f64], factor: f64, row: &[f64]) {
    if factor != 0.0 {
        to.iter_mut().zip(row).for_each(|(y, x)| *y += factor * x);
    }
}

impl Kernel {
    /// The mixer alone, for so many channels and sources.
    fn as_product(&self, path: &Path, channels: usize, sources: usize) -> Product {
        let (lattice, width) = (self.lattice(), self.parts() * channels);
        // parts of the mixer's own input
        let into = if path.diagonal { self.parts() } else { width };
        let mut product = Product {
            width,
            ..Product::empty(lattice, sources, into)
        };
        for target in 0..lattice.count() {
            for e in 0..width {
                for source in 0..sources {
                    let [i, j] = [target, source].map(|s| lattice.coordinates(s).map(|x| x as i64));
                    let g = self.between(i, j);
                    let at = |p: usize| match (g, path.diagonal) {
                        (Some(g), true) => element(g[e % channels], e / channels, p),
                        (Some(g), false) if p % channels == e % channels => {
                            element(g[e % channels], e / channels, p / channels)
                        }
                        _ => 0.0,
                    };
                    product.entries.extend((0..into).map(at));
                }
            }
        }
        product
    }

    /// The mixer behind a product.
    fn applied(&self, input: &Product, channels: usize) -> Product {
        let (lattice, row) = (self.lattice(), input.row());
        let (sites, width) = (lattice.count(), self.parts() * channels);
        let mut entries = vec![0.0; sites * width * row];
        for target in 0..sites {
            for source in 0..sites {
                let [i, j] = [target, source].map(|s| lattice.coordinates(s).map(|x| x as i64));
                let Some(g) = self.between(i, j) else {
                    continue;
                };
                for out in 0..self.parts() {
                    for into in 0..self.parts() {
                        for (c, &z) in g[..channels].iter().enumerate() {
                            let to = (target * width + out * channels + c) * row;
                            let from = (source * width + into * channels + c) * row;
                            let x = &input.entries[from..from + row];
                            add(&mut entries[to..to + row], element(z, out, into), x);
                        }
                    }
                }
            }
        }
        Product {
            width,
            entries,
            ..Product::empty(lattice, input.sources, input.into)
        }
    }
}

/// Coordinates of all tokens, in order.
pub(super) fn all(lattice: &TokenLattice) -> impl Iterator<Item = [i64; 2]> + use<> {
    let [nx, ny] = lattice.extent.map(|n| n as i64);
    (0..nx).flat_map(move |x| (0..ny).map(move |y| [x, y]))
}

/// The values of a path between places, per token or once.
pub(super) fn between_places(
    (along, path): (&Along, &Path),
    lattice: &TokenLattice,
    places: &[([i64; 2], [i64; 2])],
) -> Vec<f64> {
    let mut data = Vec::new();
    let tokens = if path.invariant { 1 } else { lattice.count() };
    let [outs, intos] = path.parts;
    for i in all(lattice).take(tokens) {
        for &(a, b) in places {
            let k = along.between(moved(i, a), moved(i, b));
            for into in 0..intos {
                for out in 0..outs {
                    let value = |c| k.as_ref().map_or(0.0, |k| k.at(out, into, c));
                    data.extend((0..path.blocks).map(value));
                }
            }
        }
    }
    data
}

/// Products of two paths with a gate in between, as [`Derived::Joined`] has them.
///
/// [`Derived::Joined`]: crate::pass::flips::Derived::Joined
pub(super) fn joined(
    [left, right]: [(&Along, &Path); 2],
    lattice: &TokenLattice,
    diagonal: bool,
    displacements: &[[i64; 2]],
) -> Vec<f64> {
    let ((left, last), (right, first)) = (left, right);
    let ([rho, alpha], [beta, sigma]) = (last.parts, first.parts);
    let invariant = last.invariant && first.invariant;
    let mut data = Vec::new();
    let mut add = |lefts: &[Option<Between>], right: Option<Between>| {
        for s in 0..sigma {
            for r in 0..rho {
                for l in lefts {
                    let (Some(l), Some(f)) = (l, &right) else {
                        let blocks = match diagonal {
                            true => last.blocks.max(first.blocks),
                            false => last.blocks * first.blocks,
                        };
                        data.extend(std::iter::repeat_n(0.0, alpha * beta * blocks));
                        continue;
                    };
                    for b in 0..beta {
                        if diagonal {
                            // what all channels share is block 0
                            let pick = |p: &Path, c| if p.blocks == 1 { 0 } else { c };
                            for a in 0..alpha {
                                data.extend((0..last.blocks.max(first.blocks)).map(|c| {
                                    l.at(r, a, pick(last, c)) * f.at(b, s, pick(first, c))
                                }));
                            }
                            continue;
                        }
                        for c in 0..first.blocks {
                            let f = f.at(b, s, c);
                            for a in 0..alpha {
                                data.extend((0..last.blocks).map(|d| l.at(r, a, d) * f));
                            }
                        }
                    }
                }
            }
        }
    };
    for i in all(lattice) {
        let sources = if invariant { 1 } else { lattice.count() };
        for j in all(lattice).take(sources) {
            let lefts: Vec<_> = (displacements.iter())
                .map(|&d| left.between(moved(i, d), j))
                .collect();
            add(&lefts, right.between(j, i));
        }
    }
    data
}
