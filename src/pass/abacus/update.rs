//! The update itself: emissions, mixer outputs, pooled features, readout.

use super::background::Background;
use super::site_values::{MixerOutputs, SiteValues};
use super::support::{all_tokens, changed};
use super::{AbacusError, Network};
use crate::check::core::Token;
use crate::interp::{Context, Operand, Tensor, eval_node};
use crate::ir::NodeId;
use crate::pass::link::{Links, multiply_add};
use crate::pass::normal_form::{Affine, PoolKind};
use num_complex::Complex64;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// `e_m`: what a cluster of flips adds to a mixer's input by changing local
/// coefficients, on the sites where they changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Emission {
    /// One vector per site.
    pub sites: BTreeMap<usize, Vec<f64>>,
}

/// The result of one update.
#[derive(Clone, Debug)]
pub struct Update {
    /// Emissions into every mixer.
    pub emissions: Vec<Emission>,
    /// `Dy_m` on the sites that needed it, by (mixer, site).
    pub outputs: HashMap<(usize, usize), Vec<f64>>,
    /// New pooled features, in order of the pools.
    pub features: Vec<Tensor>,
    /// `log psi` of the new configuration.
    pub log_psi: Complex64,
}

/// The sites where an affine value's coefficients may change, and the sites
/// where those that multiply `y_k` may, by k.
pub(super) struct Slice {
    pub(super) all: BTreeSet<usize>,
    pub(super) vertices: BTreeMap<usize, BTreeSet<usize>>,
}

impl Slice {
    pub(super) fn new(net: &Network, affine: &Affine, token: Token, flips: &[usize]) -> Slice {
        let vertices: BTreeMap<usize, BTreeSet<usize>> = affine
            .vertices
            .iter()
            .map(|(&k, v)| (k, changed(v.coefficient, token, net.lattice, flips)))
            .collect();
        let mut all = changed(affine.source, token, net.lattice, flips);
        all.extend(vertices.values().flatten());
        Slice { all, vertices }
    }
}

impl Update {
    pub(super) fn new(
        background: &Background,
        links: &mut Links,
        flips: &[usize],
    ) -> Result<Update, AbacusError> {
        let net = background.net;
        let (spins, flips) = net.flipped(&background.spins, flips)?;
        let (values, form) = (&background.values, &net.form);
        let mixers: Vec<Slice> = form
            .mixers
            .iter()
            .map(|m| Slice::new(net, &m.affine, m.source_token, &flips))
            .collect();
        let pools: Vec<Slice> = form
            .pools
            .iter()
            .map(|p| Slice::new(net, &p.affine, p.token, &flips))
            .collect();

        // Mixer outputs are needed where a changed coefficient multiplies them,
        // and everywhere for features that keep their sites.
        let mut wanted: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); form.mixers.len()];
        for (&k, sites) in mixers.iter().chain(&pools).flat_map(|s| &s.vertices) {
            wanted[k].extend(sites);
        }
        for pool in form.pools.iter().filter(|p| p.kind == PoolKind::Gather) {
            for (&k, vertex) in &pool.affine.vertices {
                if !vertex.coefficient.is_zero() {
                    wanted[k].extend(all_tokens(net.tokens(pool.input)?));
                }
            }
        }

        let mut code = Emitter {
            new: SiteValues::new(net, values, &spins, &flips)?,
            old: SiteValues::new(net, values, &background.spins, &[])?,
            outputs: HashMap::new(),
        };
        let mut emissions: Vec<Emission> = vec![];
        for (m, mixer) in form.mixers.iter().enumerate() {
            let mut sites = BTreeMap::new();
            for &i in &mixers[m].all {
                sites.insert(i, code.difference(mixer.input, i)?);
            }
            emissions.push(Emission { sites });
            for &i in &wanted[m] {
                let mut dy = vec![0.0; background.kernels[m].outputs()];
                for (k, emission) in emissions.iter().enumerate() {
                    for (&j, e) in &emission.sites {
                        links.apply((m, k), i, j, e, &mut dy)?;
                    }
                }
                code.outputs.insert((m, i), dy);
            }
            code.publish();
        }

        let mut features = vec![];
        for (p, pool) in form.pools.iter().enumerate() {
            let mut omega = values.value(pool.output).clone();
            match pool.kind {
                PoolKind::Sum => {
                    for &i in &pools[p].all {
                        let change = code.difference(pool.input, i)?;
                        omega.data.iter_mut().zip(change).for_each(|(o, d)| *o += d);
                    }
                    for (m, emission) in emissions.iter().enumerate() {
                        for (&i, e) in &emission.sites {
                            multiply_add(background.final_links.get(p, m, i), e, &mut omega.data);
                        }
                    }
                }
                PoolKind::Gather => {
                    let tokens = all_tokens(net.tokens(pool.input)?);
                    let sites = if pool.affine.vertices.is_empty() {
                        &pools[p].all
                    } else {
                        &tokens
                    };
                    for &i in sites {
                        let x = code.new.at(pool.input, i)?.data;
                        let width = x.len();
                        omega.data[i * width..(i + 1) * width].copy_from_slice(&x);
                    }
                }
            }
            features.push(omega);
        }
        let log_psi = readout(background, &features, &spins)?;
        Ok(Update {
            emissions,
            outputs: code.outputs,
            features,
            log_psi,
        })
    }
}

/// New and old local code acting on the same updated mixer outputs.
struct Emitter<'a> {
    new: SiteValues<'a>,
    old: SiteValues<'a>,
    outputs: HashMap<(usize, usize), Vec<f64>>,
}

impl Emitter<'_> {
    /// `DS + sum_k DA_k ( y_k + Dy_k )` of a per-site node.
    fn difference(&mut self, node: NodeId, site: usize) -> Result<Vec<f64>, AbacusError> {
        let (new, old) = (self.new.at(node, site)?, self.old.at(node, site)?);
        Ok(new.data.iter().zip(&old.data).map(|(a, b)| a - b).collect())
    }
    /// Makes the outputs known so far visible to later mixers.
    fn publish(&mut self) {
        self.new
            .set_outputs(MixerOutputs::Updated(self.outputs.clone()));
        self.old
            .set_outputs(MixerOutputs::Updated(self.outputs.clone()));
    }
}

/// `F(Omega)`: evaluates what depends on pooled features.
pub(crate) fn readout(
    background: &Background,
    features: &[Tensor],
    spins: &[i8],
) -> Result<Complex64, AbacusError> {
    let net = background.net;
    let context = Context::new(net.lattice, &net.params, spins)?;
    let mut fresh: HashMap<NodeId, Tensor> = net
        .form
        .pools
        .iter()
        .zip(features)
        .map(|(p, f)| (p.output, f.clone()))
        .collect();
    for &id in &net.form.readout {
        let value = {
            let operands: Vec<Operand> = net
                .graph
                .args(id)
                .iter()
                .map(|&a| Operand {
                    ty: net.graph.ty(a),
                    value: fresh.get(&a).unwrap_or_else(|| background.values.value(a)),
                })
                .collect();
            eval_node(net.graph.op(id), net.graph.ty(id), &operands, &context)?
        };
        fresh.insert(id, value);
    }
    let part = |n: usize| {
        net.graph.outputs.get(n).map_or(0.0, |o| {
            fresh
                .get(o)
                .unwrap_or_else(|| background.values.value(*o))
                .data[0]
        })
    };
    Ok(Complex64::new(part(0), part(1)))
}
