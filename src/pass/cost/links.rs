//! Costs of updates by links.

use super::UpdateCost;
use super::formula::Formula;
use super::nodes::{entries, per_entry, total, transform, width};
use crate::check::core::{Place, Token, Window};
use crate::ir::{Graph, NodeId, Op};
use crate::pass::cluster::Cluster;
use crate::pass::link::{LinkStrategy, plan};
use crate::pass::normal_form::{Coefficient, NormalForm, PoolKind};
use std::collections::BTreeMap;

/// Sizes of the sites concerned by one update.
pub(super) struct Sites<'a> {
    pub(super) form: &'a NormalForm,
    pub(super) cluster: &'a Cluster,
}

impl Sites<'_> {
    fn of(&self, window: Option<Window>, token: Token) -> f64 {
        window.map_or(0.0, |w| self.cluster.support_size(w, token) as f64)
    }
    /// Sites where mixer m's input changes locally.
    fn emission(&self, m: usize) -> f64 {
        let mixer = &self.form.mixers[m];
        self.of(hull(mixer.affine.coefficients()), mixer.source_token)
    }
    /// Sites where the pooled value changes locally.
    fn pooled(&self, p: usize) -> f64 {
        let pool = &self.form.pools[p];
        self.of(hull(pool.affine.coefficients()), pool.token)
    }
    /// Sites where an update of `y_m` is asked for.
    fn targets(&self, m: usize) -> Formula {
        let form = self.form;
        let token = form.mixers[m].target_token;
        let everywhere = form
            .pools
            .iter()
            .any(|p| p.kind == PoolKind::Gather && !p.affine.coefficient(m).is_zero());
        if everywhere {
            return entries(Place::Site(token));
        }
        let later = (m + 1..form.mixers.len()).map(|l| form.vertex(l, m));
        let window = hull(later.chain(form.pools.iter().map(|p| p.affine.coefficient(m))));
        Formula::constant(self.of(window, token))
    }
}

pub(super) fn hull(all: impl Iterator<Item = Coefficient>) -> Option<Window> {
    all.filter_map(Coefficient::window).reduce(Window::hull)
}

/// Local values on their supports, linear code on the slices, readout.
pub(super) fn local_part(graph: &Graph, form: &NormalForm, sites: &Sites, cost: &mut UpdateCost) {
    for &id in &form.locals {
        if let (Some(w), Place::Site(token)) = (form.kinds.window(id), graph.ty(id).place) {
            let count = sites.of(Some(w), token);
            cost.update.add(
                per_entry(graph, id).scaled(count),
                width(graph.ty(id)).scaled(2.0 * count),
            );
        }
    }
    // Each linear node on the largest slice that asks for it.
    let mut asked: BTreeMap<NodeId, f64> = BTreeMap::new();
    let mixers = form
        .mixers
        .iter()
        .enumerate()
        .map(|(m, x)| (x.input, sites.emission(m)));
    let pools = form
        .pools
        .iter()
        .enumerate()
        .map(|(p, x)| (x.input, sites.pooled(p)));
    for (node, count) in mixers.chain(pools) {
        let slot = asked.entry(node).or_insert(0.0);
        *slot = slot.max(count);
    }
    for &id in form.linears.iter().rev() {
        let count = asked.get(&id).copied().unwrap_or(0.0);
        cost.update.add(
            per_entry(graph, id).scaled(count),
            width(graph.ty(id)).scaled(2.0 * count),
        );
        for &a in graph.args(id) {
            let slot = asked.entry(a).or_insert(0.0);
            *slot = slot.max(count);
        }
    }
    // Features that keep their sites: read again everywhere.
    for pool in form
        .pools
        .iter()
        .filter(|p| p.kind == PoolKind::Gather && !p.affine.vertices.is_empty())
    {
        let size = &entries(Place::Site(pool.token)) * &width(graph.ty(pool.input));
        cost.update.add(size.clone(), size);
    }
    for &id in &form.readout {
        cost.update
            .add(total(graph, id), width(graph.ty(id)).scaled(2.0));
    }
}

/// Updates by link tensors.
pub(super) fn links(graph: &Graph, form: &NormalForm, cluster: &Cluster) -> UpdateCost {
    let sites = Sites { form, cluster };
    let mut cost = UpdateCost::default();
    local_part(graph, form, &sites, &mut cost);
    let inputs = |m: usize| width(graph.ty(form.mixers[m].input));
    let outputs = |m: usize| width(graph.ty(form.mixers[m].output));
    for (&(m, k), &strategy) in &plan(form, None) {
        let (targets, sources) = (sites.targets(m), sites.emission(k));
        let all = entries(Place::Site(form.mixers[k].target_token));
        let pairs = targets.scaled(sources);
        let block = &outputs(m) * &inputs(k);
        if pairs == Formula::zero() {
            continue;
        }
        match strategy {
            LinkStrategy::Direct => {
                // Channel by channel; complex channels mix their two parts.
                let factor = if is_complex(graph.op(form.mixers[m].output)) {
                    2.0
                } else {
                    1.0
                };
                let work = (&pairs * &outputs(m)).scaled(factor);
                cost.update.add(work.clone(), work);
            }
            LinkStrategy::Product => {
                let (first, last) = (outputs(k).scaled(sources), &targets * &inputs(m));
                let inner = &inputs(m) * &outputs(k);
                let work = &all * &(first + last + inner);
                cost.update.add(work.clone(), work);
            }
            LinkStrategy::Dense => {
                cost.update.add(&pairs * &block, &pairs * &block);
                let sources = &all * &inputs(k);
                let chain: Formula = (k..=m)
                    .map(|l| {
                        let mixer = &form.mixers[l];
                        let inner =
                            (&inputs(l) * &entries(Place::Site(mixer.source_token))).scaled(1.0);
                        total(graph, mixer.output) + &inner * &outputs(k)
                    })
                    .sum();
                cost.build
                    .add(&sources * &chain, &(&sources * &all) * &outputs(m));
                cost.cache += (&(&sources * &all) * &outputs(m)).scaled(super::WORD);
            }
            LinkStrategy::Fft => {
                cost.update.add(&pairs * &block, &pairs * &block);
                // One diagonal per difference of a target and a source.
                let diagonals = diagonals(&targets, sources, form.mixers[m].target_token);
                let one = transform(Place::Site(form.mixers[m].target_token));
                let vertex = &(&inputs(m) * &outputs(k)) * &one;
                let products = (&block * &all).scaled(4.0);
                let inverse = &block * &one;
                cost.build.add(
                    vertex + (products + inverse).scaled(diagonals),
                    (&block * &all).scaled(diagonals),
                );
                cost.cache += (&block * &all).scaled(diagonals * super::WORD);
            }
        }
    }
    // Final links: one adjoint pass per feature; applied on the slices.
    for (p, pool) in form.pools.iter().enumerate() {
        let features = width(graph.ty(pool.output));
        if pool.kind == PoolKind::Sum && !pool.affine.vertices.is_empty() {
            let linear = form
                .linears
                .iter()
                .copied()
                .chain(form.mixers.iter().map(|m| m.output));
            let pass: Formula = linear.map(|id| total(graph, id)).sum();
            cost.build.add(&pass * &features, Formula::zero());
            for m in 0..form.mixers.len() {
                let size = &inputs(m) * &features;
                let work = size.scaled(sites.emission(m));
                cost.update.add(work.clone(), work);
                cost.cache += (&size * &entries(Place::Site(form.mixers[m].source_token)))
                    .scaled(super::WORD);
            }
        }
        let work = (&width(graph.ty(pool.input)) * &Formula::constant(sites.pooled(p))).scaled(1.0);
        cost.update.add(work.clone(), work);
    }
    // One full evaluation makes the background.
    let full = super::full(graph);
    cost.build.operations += full.operations;
    cost.build.bytes += full.bytes;
    cost
}

/// Differences between intervals (boxes on a square) of targets and sources.
fn diagonals(targets: &Formula, sources: f64, token: Token) -> f64 {
    let targets = targets.at(1.0);
    let line = (targets + sources - 1.0).max(1.0);
    if token.0[1] == 1 {
        line
    } else {
        (targets.sqrt() + sources.sqrt() - 1.0).max(1.0).powi(2)
    }
}

fn is_complex(op: &Op) -> bool {
    match *op {
        Op::Scan(scan) => scan.complex,
        Op::Convolve { complex, .. } | Op::Modes { complex, .. } | Op::Mix { complex, .. } => {
            complex
        }
        _ => false,
    }
}
