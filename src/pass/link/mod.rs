//! Link tensors: how a background passes a local emission on.
//!
//! `L_mk = d y_m / d v_k` at fixed coefficients, needed between a few sources
//! and targets only. Every strategy answers the same question, the block
//! `L_mk[i, j]`, and all are tested against each other:
//!
//! * [`LinkStrategy::Direct`]: `L_mm = G_m`, no background needed.
//! * [`LinkStrategy::Fft`]: two translation-invariant mixers and one vertex,
//!   a convolution per diagonal ([`fft`]).
//! * [`LinkStrategy::Product`]: any two mixers and one vertex, `G_m A_mk G_k` on
//!   the sites asked for.
//! * [`LinkStrategy::Dense`]: columns of the background Jacobian at any depth:
//!   unit vectors pushed through all mixers in between.
//!
//! State-space networks have a fourth way at any depth, without link tensors:
//! [`environment`]s, and the exact [`sweep`] built on them.

mod dense;
pub mod environment;
pub mod fft;
mod final_links;
mod kernel;
pub mod realisation;
pub mod segment;
pub mod sweep;

pub use final_links::FinalLinks;
pub use kernel::Kernel;
pub use realisation::Realisation;

use crate::pass::abacus::{AbacusError, Coefficients, Network};
use crate::pass::normal_form::{MixerClass, NormalForm};
use dense::Columns;
use std::collections::{BTreeMap, HashMap};

/// How a link `L_mk` is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkStrategy {
    /// The mixer's own kernel block (m = k).
    Direct,
    /// One Fourier transform per diagonal.
    Fft,
    /// `G_m A_mk G_k` on targets and sources.
    Product,
    /// Columns of the dense background Jacobian.
    Dense,
}

impl std::fmt::Display for LinkStrategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LinkStrategy::Direct => "direct",
            LinkStrategy::Fft => "fft",
            LinkStrategy::Product => "product",
            LinkStrategy::Dense => "dense",
        })
    }
}

/// Whether the only way from mixer k to mixer m is the vertex `A_mk` itself.
pub fn single_hop(form: &NormalForm, m: usize, k: usize) -> bool {
    k < m && (k + 1..m).all(|l| form.vertex(m, l).is_zero() || !form.linked(l, k))
}

/// Whether `strategy` can represent the link `L_mk` of this network.
pub fn applies(form: &NormalForm, m: usize, k: usize, strategy: LinkStrategy) -> bool {
    let shift_invariant = |i: usize| {
        let mixer = &form.mixers[i];
        mixer.source_token == mixer.target_token
            && matches!(
                mixer.class,
                MixerClass::StateSpace | MixerClass::Toeplitz | MixerClass::Stencil
            )
    };
    match strategy {
        LinkStrategy::Direct => m == k,
        LinkStrategy::Fft => single_hop(form, m, k) && shift_invariant(m) && shift_invariant(k),
        LinkStrategy::Product => single_hop(form, m, k),
        LinkStrategy::Dense => k <= m,
    }
}

/// The first strategy that represents each nonzero link, in order of
/// preference: direct, then `wanted` where it applies, then FFT, product, dense.
pub fn plan(
    form: &NormalForm,
    wanted: Option<LinkStrategy>,
) -> BTreeMap<(usize, usize), LinkStrategy> {
    use LinkStrategy::*;
    let mut plan = BTreeMap::new();
    for m in 0..form.mixers.len() {
        for k in (0..=m).filter(|&k| form.linked(m, k)) {
            let order = wanted.into_iter().chain([Direct, Fft, Product, Dense]);
            // Dense applies to every pair, so there is always a first one.
            let first = order
                .into_iter()
                .find(|&s| applies(form, m, k, s))
                .unwrap_or(Dense);
            plan.insert((m, k), first);
        }
    }
    plan
}

/// Links of one background, each computed when first asked for.
pub struct Links<'a> {
    kernels: &'a [Kernel],
    coefficients: &'a Coefficients,
    plan: BTreeMap<(usize, usize), LinkStrategy>,
    columns: Columns,
    diagonals: HashMap<(usize, usize, [i64; 2]), fft::Diagonal>,
}

impl<'a> Links<'a> {
    /// Prepares the links of a background with these kernels and coefficients.
    pub fn new(
        net: &Network,
        kernels: &'a [Kernel],
        coefficients: &'a Coefficients,
        wanted: Option<LinkStrategy>,
    ) -> Links<'a> {
        Links {
            kernels,
            coefficients,
            plan: plan(&net.form, wanted),
            columns: Columns::default(),
            diagonals: HashMap::new(),
        }
    }

    /// The strategy in use for each nonzero link (m, k).
    pub fn plan(&self) -> &BTreeMap<(usize, usize), LinkStrategy> {
        &self.plan
    }

    /// Adds `L_mk[target, source] e` to `out`; nothing if the link vanishes.
    ///
    /// # Errors
    /// [`AbacusError::Internal`] if the plan chose a strategy that does not fit.
    pub fn apply(
        &mut self,
        (m, k): (usize, usize),
        target: usize,
        source: usize,
        emission: &[f64],
        out: &mut [f64],
    ) -> Result<(), AbacusError> {
        match self.plan.get(&(m, k)) {
            None => {}
            Some(LinkStrategy::Direct) => self.kernels[m].apply(target, source, emission, out),
            Some(LinkStrategy::Product) => {
                let (first, last) = (&self.kernels[k], &self.kernels[m]);
                let mut y = vec![0.0; first.outputs()];
                let mut v = vec![0.0; last.inputs()];
                for j in 0..first.targets() {
                    y.fill(0.0);
                    v.fill(0.0);
                    first.apply(j, source, emission, &mut y);
                    if let Some(a) = self.coefficients.mixers[m][j].vertices.get(&k) {
                        multiply_add(a, &y, &mut v);
                    }
                    last.apply(target, j, &v, out);
                }
            }
            Some(LinkStrategy::Dense) => {
                let column = self
                    .columns
                    .column(self.kernels, self.coefficients, k, source);
                column.apply(m, target, emission, out);
            }
            Some(LinkStrategy::Fft) => {
                let lattice = self.kernels[k].target_lattice();
                let (to, from) = (lattice.coordinates(target), lattice.coordinates(source));
                let offset =
                    fft::representative(&lattice, [0, 1].map(|a| to[a] as i64 - from[a] as i64));
                let (kernels, coefficients) = (self.kernels, self.coefficients);
                let diagonal = self.diagonals.entry((m, k, offset)).or_insert_with(|| {
                    fft::diagonal(&kernels[m], &coefficients.mixers[m], k, &kernels[k], offset)
                });
                multiply_add(diagonal.block(source), emission, out);
            }
        }
        Ok(())
    }
}

/// `out += a x` with `a` row major, `out.len()` rows.
pub(crate) fn multiply_add(a: &[f64], x: &[f64], out: &mut [f64]) {
    if x.is_empty() {
        return;
    }
    for (row, y) in a.chunks_exact(x.len()).zip(out) {
        *y += row.iter().zip(x).map(|(a, b)| a * b).sum::<f64>();
    }
}
