//! Bounds on what mixers carry between two flips.
//!
//! With `sup` over all configurations, `D_j` the change by the flip of spin j and
//! `D_fj` the mixed change by two flips, the product rule of differences gives for
//! the normal form `v_m = S_m + sum_k A_mk y_k`, `y_m = G_m v_m`
//!
//! ```text
//! |D_j  v_m| <= |D_j  S_m| + sum_k |D_j A_mk| |y_k| + |A_mk| |D_j y_k|
//! |D_fj v_m| <= |D_fj S_m| + sum_k |D_fj A_mk| |y_k| + |D_f A_mk| |D_j y_k|
//!               + |D_j A_mk| |D_f y_k| + |A_mk| |D_fj y_k|
//! |D y_m|    <= |G_m| |D v_m|
//! ```
//!
//! The terms of the second line without its last live on the sites that see f or
//! j; absolute links carry them to the features. Nothing depends on the
//! configuration: a bound is made once per parameter set.

use super::NoBound;
use super::patterns::{Explorer, Ranges};
use crate::check::core::{Place, Token};
use crate::interp::Evaluation;
use crate::ir::{Boundary, NodeId};
use crate::pass::abacus::Network;
use crate::pass::link::Kernel;
use crate::pass::normal_form::{Affine, MixerClass, PoolKind};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// An affine value with the ranges of its coefficients.
struct Bounded {
    width: usize,
    token: Token,
    sites: usize,
    source: Ranges,
    /// By mixer; matrices, rows are components of the value.
    vertices: BTreeMap<usize, Ranges>,
    /// Sites with a coefficient that sees a spin, by spin.
    near: Vec<Vec<usize>>,
}

/// What is known of the flips of some spins, at all sites: `width` numbers per
/// site and column.
struct Field {
    width: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Field {
    fn zeros(sites: usize, columns: usize, width: usize) -> Field {
        Field {
            width,
            columns,
            values: vec![0.0; sites * columns * width],
        }
    }
    fn at(&self, site: usize, column: usize) -> &[f64] {
        &self.values[(site * self.columns + column) * self.width..][..self.width]
    }
    fn at_mut(&mut self, site: usize, column: usize) -> &mut [f64] {
        &mut self.values[(site * self.columns + column) * self.width..][..self.width]
    }
}

/// Which coefficients of a kernel a field is multiplied by.
#[derive(Clone, Copy, PartialEq)]
enum Parts {
    Signed,
    Absolute,
}

/// `G x`, or `G^T x`.
fn mixed(kernel: &Kernel, x: &Field, parts: Parts, transposed: bool) -> Field {
    let (sites, others, width) = if transposed {
        (kernel.sources(), kernel.targets(), kernel.inputs())
    } else {
        (kernel.targets(), kernel.sources(), kernel.outputs())
    };
    let mut y = Field::zeros(sites, x.columns, width);
    let row = x.columns * width;
    if row == 0 {
        return y;
    }
    y.values.par_chunks_mut(row).enumerate().for_each(|(i, y)| {
        for l in 0..others {
            let block = if transposed {
                kernel.block(l, i)
            } else {
                kernel.block(i, l)
            };
            for (r, c, g) in block {
                let g = if parts == Parts::Absolute { g.abs() } else { g };
                let (to, from) = if transposed { (c, r) } else { (r, c) };
                for column in 0..x.columns {
                    y[column * width + to] += g * x.at(l, column)[from];
                }
            }
        }
    });
    y
}

/// `y += |A| x` for a matrix given by rows.
fn add_product(matrix: &[f64], x: &[f64], y: &mut [f64]) {
    for (row, y) in matrix.chunks_exact(x.len().max(1)).zip(y) {
        *y += row.iter().zip(x).map(|(a, x)| a.abs() * x).sum::<f64>();
    }
}

/// Bounds of features: everything up to the readout.
pub(super) struct Envelope<'a> {
    net: &'a Network<'a>,
    mixers: Vec<Bounded>,
    pools: Vec<Bounded>,
    /// Spins whose flips are followed; the others are translations of these.
    pub(super) columns: Vec<usize>,
    /// Spins per axis after which everything repeats.
    cell: [usize; 2],
    /// `|y_k|` by mixer, one column.
    magnitude: Vec<Field>,
    /// `|D_j y_k|` by mixer, for the columns.
    single: Vec<Field>,
    /// `|d Omega / d v_m|` by mixer, one column per feature.
    links: Vec<Field>,
    /// Centres and radii of the features, in the order of the pools.
    pub(super) features: [Vec<f64>; 2],
}

impl<'a> Envelope<'a> {
    pub(super) fn new(net: &'a Network<'a>, constants: &'a Evaluation) -> Result<Self, NoBound> {
        let (uniform, cell) = symmetry(net, constants)?;
        let explorer = Explorer::new(net, constants, uniform, cell);
        let lattice = net.lattice;
        let gathers = net.form.pools.iter().any(|p| p.kind == PoolKind::Gather);
        let dense = |m: &crate::pass::normal_form::Mixer| m.class == MixerClass::Dense;
        let translates = uniform
            && lattice.boundary == Boundary::Periodic
            && !gathers
            && !net.form.mixers.iter().any(dense);
        let cell = if translates { cell } else { lattice.extent };
        let columns = (0..cell[0])
            .flat_map(|x| (0..cell[1]).map(move |y| x * lattice.extent[1] + y))
            .collect();
        let bounded = |node: NodeId, affine: &Affine| {
            let Place::Site(token) = net.graph.ty(node).place else {
                return Err(NoBound::Operation("a value off the sites".to_owned()));
            };
            let sites = net.tokens(node)?.count();
            let source = explorer.ranges(node, None, affine.source.window())?;
            let vertices: BTreeMap<usize, Ranges> = affine
                .vertices
                .iter()
                .filter(|(_, v)| !v.coefficient.is_zero())
                .map(|(&k, v)| Ok((k, explorer.ranges(node, Some(k), v.coefficient.window())?)))
                .collect::<Result<_, NoBound>>()?;
            let mut near = vec![Vec::new(); lattice.sites()];
            for site in 0..sites {
                for ranges in vertices.values().chain([&source]) {
                    for &spin in ranges.seen(site) {
                        if near[spin].last() != Some(&site) {
                            near[spin].push(site);
                        }
                    }
                }
            }
            Ok(Bounded {
                width: constants.value(node).shape[1..].iter().product(),
                token,
                sites,
                source,
                vertices,
                near,
            })
        };
        let mut envelope = Envelope {
            net,
            mixers: (net.form.mixers.iter())
                .map(|m| bounded(m.input, &m.affine))
                .collect::<Result<_, _>>()?,
            pools: (net.form.pools.iter())
                .map(|p| bounded(p.input, &p.affine))
                .collect::<Result<_, _>>()?,
            columns,
            cell,
            magnitude: Vec::new(),
            single: Vec::new(),
            links: Vec::new(),
            features: [Vec::new(), Vec::new()],
        };
        let kernels = (0..net.form.mixers.len())
            .map(|m| Kernel::new(net, constants, m))
            .collect::<Result<Vec<_>, _>>()?;
        envelope.follow(&kernels);
        envelope.link(&kernels);
        Ok(envelope)
    }

    /// Number of features.
    pub(super) fn width(&self) -> usize {
        self.features[0].len()
    }

    /// Ranges and single changes, mixer by mixer.
    fn follow(&mut self, kernels: &[Kernel]) {
        let mut centres: Vec<[Field; 2]> = Vec::new();
        for (m, kernel) in kernels.iter().enumerate() {
            let v = &self.mixers[m];
            let [middle, radius] = self.range(v, &centres);
            let mut change = Field::zeros(v.sites, self.columns.len(), v.width);
            for site in 0..v.sites {
                for column in 0..self.columns.len() {
                    let d = self.change(v, site, self.columns[column]);
                    for ((to, d), r) in
                        (change.at_mut(site, column).iter_mut().zip(d)).zip(radius.at(site, 0))
                    {
                        // never more than the whole range
                        *to = d.min(2.0 * r);
                    }
                }
            }
            let middle = mixed(kernel, &middle, Parts::Signed, false);
            let radius = mixed(kernel, &radius, Parts::Absolute, false);
            let mut single = mixed(kernel, &change, Parts::Absolute, false);
            let mut magnitude = Field::zeros(kernel.targets(), 1, kernel.outputs());
            for site in 0..kernel.targets() {
                for c in 0..kernel.outputs() {
                    let reach = radius.at(site, 0)[c];
                    magnitude.at_mut(site, 0)[c] = middle.at(site, 0)[c].abs() + reach;
                    for column in 0..self.columns.len() {
                        let d = &mut single.at_mut(site, column)[c];
                        *d = d.min(2.0 * reach);
                    }
                }
            }
            centres.push([middle, radius]);
            self.magnitude.push(magnitude);
            self.single.push(single);
        }
        let mut features = [Vec::new(), Vec::new()];
        for (pool, of) in self.pools.iter().zip(&self.net.form.pools) {
            for (part, all) in self.range(pool, &centres).iter().zip(&mut features) {
                match of.kind {
                    PoolKind::Gather => all.extend(&part.values),
                    PoolKind::Sum => all.extend((0..pool.width).map(|c| {
                        let values = part.values.iter().skip(c).step_by(pool.width);
                        values.sum::<f64>()
                    })),
                }
            }
        }
        self.features = features;
    }

    /// Absolute links from every mixer's input to the features.
    fn link(&mut self, kernels: &[Kernel]) {
        let features = self.width();
        let mut links: Vec<Option<Field>> = kernels.iter().map(|_| None).collect();
        for m in (0..kernels.len()).rev() {
            let outputs = kernels[m].outputs();
            let mut y = Field::zeros(kernels[m].targets(), features, outputs);
            let mut first = 0;
            for (pool, of) in self.pools.iter().zip(&self.net.form.pools) {
                for site in 0..pool.sites {
                    let offset = match of.kind {
                        PoolKind::Sum => first,
                        PoolKind::Gather => first + site * pool.width,
                    };
                    let Some(r) = pool.vertices.get(&m) else {
                        continue;
                    };
                    let matrix = top(r, site);
                    for (a, row) in matrix.chunks_exact(outputs).enumerate() {
                        let y = y.at_mut(site, offset + a);
                        y.iter_mut().zip(row).for_each(|(y, r)| *y += r);
                    }
                }
                first += match of.kind {
                    PoolKind::Sum => pool.width,
                    PoolKind::Gather => pool.width * pool.sites,
                };
            }
            for (v, link) in self.mixers.iter().zip(&links).skip(m + 1) {
                let (Some(a), Some(link)) = (v.vertices.get(&m), link) else {
                    continue;
                };
                for site in 0..v.sites {
                    let matrix = top(a, site);
                    for feature in 0..features {
                        let from = link.at(site, feature);
                        let to = y.at_mut(site, feature);
                        for (w, row) in from.iter().zip(matrix.chunks_exact(outputs)) {
                            to.iter_mut().zip(row).for_each(|(y, a)| *y += w * a);
                        }
                    }
                }
            }
            links[m] = Some(mixed(&kernels[m], &y, Parts::Absolute, true));
        }
        self.links = links.into_iter().flatten().collect();
    }

    /// Centre and radius of an affine value.
    fn range(&self, v: &Bounded, centres: &[[Field; 2]]) -> [Field; 2] {
        let mut out = [0, 1].map(|_| Field::zeros(v.sites, 1, v.width));
        let [middle, radius] = &mut out;
        for site in 0..v.sites {
            let (m, r) = (middle.at_mut(site, 0), radius.at_mut(site, 0));
            m.copy_from_slice(v.source.middle(site));
            r.copy_from_slice(v.source.radius(site));
            for (&k, a) in &v.vertices {
                let [y, reach] = centres[k].each_ref().map(|f| f.at(site, 0));
                let (centre, spread) = (a.middle(site), a.radius(site));
                let width = y.len().max(1);
                for (at, (a, s)) in centre.iter().zip(spread).enumerate() {
                    let (row, c) = (at / width, at % width);
                    m[row] += a * y[c];
                    r[row] += a.abs() * reach[c] + s * (y[c].abs() + reach[c]);
                }
            }
        }
        out
    }

    /// `|D_j|` of an affine value at a site.
    fn change(&self, v: &Bounded, site: usize, spin: usize) -> Vec<f64> {
        let mut out = vec![0.0; v.width];
        if let Some(d) = v.source.first(site, spin) {
            out.copy_from_slice(d);
        }
        for (&k, a) in &v.vertices {
            if let Some(d) = a.first(site, spin) {
                add_product(d, self.magnitude[k].at(site, 0), &mut out);
            }
            let carried = self.flip_of(k, v.token, site, spin);
            add_product(&top(a, site), carried, &mut out);
        }
        out
    }

    /// `|D_j y_k|` at a site of a token lattice for any spin.
    fn flip_of(&self, k: usize, token: Token, site: usize, spin: usize) -> &[f64] {
        let extent = self.net.lattice.extent;
        let tokens = [0, 1].map(|a| extent[a] / token.0[a]);
        let (at, home) = (
            [site / tokens[1], site % tokens[1]],
            [spin / extent[1], spin % extent[1]],
        );
        let inside = [0, 1].map(|a| home[a] % self.cell[a]);
        let back = [0, 1].map(|a| (home[a] - inside[a]) / token.0[a]);
        let moved = [0, 1].map(|a| (at[a] + tokens[a] - back[a]) % tokens[a]);
        let column = inside[0] * self.cell[1] + inside[1];
        self.single[k].at(moved[0] * tokens[1] + moved[1], column)
    }

    /// The mixed change of an affine value at a site, what mixers carry of mixed
    /// changes elsewhere left out.
    fn event(&self, v: &Bounded, site: usize, [f, j]: [usize; 2], out: &mut [f64]) {
        out.fill(0.0);
        if let Some(d) = v.source.second(site, [f, j]) {
            out.copy_from_slice(d);
        }
        for (&k, a) in &v.vertices {
            if let Some(d) = a.second(site, [f, j]) {
                add_product(d, self.magnitude[k].at(site, 0), out);
            }
            for (near, far) in [(f, j), (j, f)] {
                if let Some(d) = a.first(site, near) {
                    add_product(d, self.flip_of(k, v.token, site, far), out);
                }
            }
        }
    }

    /// `|D_j Omega|`.
    pub(super) fn single_features(&self, spin: usize) -> Vec<f64> {
        let mut out = Vec::with_capacity(self.width());
        for (pool, of) in self.pools.iter().zip(&self.net.form.pools) {
            let sites = (0..pool.sites).map(|site| self.change(pool, site, spin));
            match of.kind {
                PoolKind::Gather => sites.for_each(|d| out.extend(d)),
                PoolKind::Sum => {
                    let mut total = vec![0.0; pool.width];
                    sites.for_each(|d| total.iter_mut().zip(d).for_each(|(t, d)| *t += d));
                    out.extend(total);
                }
            }
        }
        out.iter_mut()
            .zip(&self.features[1])
            .for_each(|(d, r)| *d = d.min(2.0 * r));
        out
    }

    /// `|D_fj Omega|` for two spins.
    pub(super) fn mixed_features(&self, pair: [usize; 2]) -> Vec<f64> {
        let mut out = vec![0.0; self.width()];
        let mut first = 0;
        for (pool, of) in self.pools.iter().zip(&self.net.form.pools) {
            let mut event = vec![0.0; pool.width];
            for site in seeing(pool, pair) {
                self.event(pool, site, pair, &mut event);
                let offset = match of.kind {
                    PoolKind::Sum => first,
                    PoolKind::Gather => first + site * pool.width,
                };
                out[offset..]
                    .iter_mut()
                    .zip(&event)
                    .for_each(|(o, e)| *o += e);
            }
            first += match of.kind {
                PoolKind::Sum => pool.width,
                PoolKind::Gather => pool.width * pool.sites,
            };
        }
        for (v, links) in self.mixers.iter().zip(&self.links) {
            let mut event = vec![0.0; v.width];
            for site in seeing(v, pair) {
                self.event(v, site, pair, &mut event);
                for (feature, out) in out.iter_mut().enumerate() {
                    let link = links.at(site, feature).iter();
                    *out += link.zip(&event).map(|(w, e)| w * e).sum::<f64>();
                }
            }
        }
        out
    }

    /// The spin and its partner moved together so that the spin is a column.
    pub(super) fn moved(&self, f: usize, j: usize) -> (usize, usize) {
        let extent = self.net.lattice.extent;
        let home = [j / extent[1], j % extent[1]];
        let inside = [0, 1].map(|a| home[a] % self.cell[a]);
        let at = [f / extent[1], f % extent[1]];
        let to = [0, 1].map(|a| (at[a] + extent[a] + inside[a] - home[a]) % extent[a]);
        (
            to[0] * extent[1] + to[1],
            inside[0] * self.cell[1] + inside[1],
        )
    }
}

/// Largest sizes of a matrix at a site.
fn top(a: &Ranges, site: usize) -> Vec<f64> {
    let parts = a.middle(site).iter().zip(a.radius(site));
    parts.map(|(m, r)| m.abs() + r).collect()
}

/// Sites of a value that see either of two spins.
fn seeing(v: &Bounded, [f, j]: [usize; 2]) -> Vec<usize> {
    let mut sites = v.near[f].clone();
    sites.extend(&v.near[j]);
    sites.sort_unstable();
    sites.dedup();
    sites
}

/// Whether no constant distinguishes sites, and after how many spins per axis
/// the tokens repeat.
fn symmetry(net: &Network, constants: &Evaluation) -> Result<(bool, [usize; 2]), NoBound> {
    let (graph, form) = (net.graph, &net.form);
    let (mut uniform, mut cell) = (true, [1, 1]);
    let used = form.locals.iter().chain(&form.linears);
    for &id in used.chain(form.mixers.iter().map(|m| &m.output)) {
        for &node in graph.args(id).iter().chain([&id]) {
            let Place::Site(token) = graph.ty(node).place else {
                continue;
            };
            for (cell, t) in cell.iter_mut().zip(token.0) {
                *cell = least_common_multiple(*cell, t);
            }
            if form.kinds.get(node) == crate::ir::kinds::Dependence::Const {
                let value = constants.value(node);
                let rows = value.data.len() / value.shape[0].max(1);
                let mut each = value.data.chunks_exact(rows.max(1));
                let one = each.next();
                uniform &= each.all(|row| Some(row) == one);
            }
        }
    }
    Ok((uniform, cell))
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x.max(1) * b
}
