//! Local energies and other local estimators, streamed over samples.

use super::operator::Operator;
use super::sampler::Samples;
use super::stats::{Summary, summarize, summarize_exact};
use super::table::Table;
use crate::run::terms::Terms;
use crate::run::{Background, Spins, WaveFunction};
use num_complex::Complex64;
use rayon::prelude::*;

/// An operator in the Z basis as the estimators need it.
pub trait LocalOperator: Send + Sync {
    /// `<s|H|s>`.
    fn diagonal(&self, spins: &Spins) -> f64;
    /// Calls `term(flips, <s|H|s'>)` for every s' other than s that H connects
    /// to s, where s' is s with the distinct sites `flips` flipped. A pair
    /// (s, s') may come in several parts.
    fn connected(&self, spins: &Spins, term: &mut dyn FnMut(&[usize], Complex64));
}

impl LocalOperator for Operator {
    fn diagonal(&self, spins: &Spins) -> f64 {
        Operator::diagonal(self, spins)
    }
    fn connected(&self, spins: &Spins, term: &mut dyn FnMut(&[usize], Complex64)) {
        Operator::connected(self, spins, term);
    }
}

/// Connected configurations whose ratios are asked for at once.
const BATCH: usize = 256;

/// `sum element * psi(s') / psi(s)` over the changes that wait, which are then
/// gone.
fn sum_of(pending: &mut Terms, background: &mut dyn Background) -> Complex64 {
    let mut ratios = vec![Complex64::default(); pending.len()];
    background.log_ratios(&pending.flips, &pending.ends, &mut ratios);
    let energy = ratios
        .iter()
        .zip(&pending.elements)
        .map(|(ratio, element)| element * ratio.exp())
        .sum();
    pending.clear();
    energy
}

/// `E_loc(s) = sum_s' <s|H|s'> psi(s') / psi(s)` of the configuration `spins`,
/// whose background is made where s is connected to anything. Ratios are
/// evaluated in batches of bounded size, whatever the number of terms.
pub fn local_energy<'p>(
    operator: &dyn LocalOperator,
    spins: &Spins,
    background: impl FnOnce() -> Box<dyn Background + 'p>,
) -> Complex64 {
    let mut energy = Complex64::from(operator.diagonal(spins));
    let (mut make, mut made) = (Some(background), None);
    let mut flush = |pending: &mut Terms| {
        if let Some(make) = make.take() {
            made = Some(make());
        }
        made.as_mut()
            .map_or(Complex64::ZERO, |b| sum_of(pending, b.as_mut()))
    };
    let mut pending = Terms::default();
    operator.connected(spins, &mut |flips, element| {
        pending.push(flips, element);
        if pending.len() == BATCH {
            energy += flush(&mut pending);
        }
    });
    if !pending.is_empty() {
        energy += flush(&mut pending);
    }
    energy
}

/// Local energies of all samples, in their order. Parallel over samples; each
/// holds one background at a time. Where the basis was summed, ratios are
/// looked up in a table of all amplitudes. A back end that takes the terms of many
/// samples at once is given them.
pub fn local_energies(
    psi: &dyn WaveFunction,
    operator: &dyn LocalOperator,
    samples: &Samples,
) -> Vec<Complex64> {
    let table = samples.weights.as_ref().map(|_| Table::new(psi, samples));
    if table.is_none()
        && let Some(at_once) = psi.terms_at_once()
        && let Some(energies) = together(psi, operator, samples, at_once)
    {
        return energies;
    }
    // An outcome of probability zero has no local energy and no weight.
    let vanishes = |i: usize| samples.weights.is_some() && samples.weight(i) == 0.0;
    (0..samples.len())
        .into_par_iter()
        .map(|i| {
            if vanishes(i) {
                Complex64::default()
            } else {
                let spins = samples.get(i);
                local_energy(operator, spins, || match &table {
                    Some(table) => Box::new(table.background(spins)) as Box<dyn Background>,
                    None => psi.background(spins),
                })
            }
        })
        .collect()
}

/// Local energies from sums over about `at_once` terms at a time; `None` if the
/// wave function cannot.
fn together(
    psi: &dyn WaveFunction,
    operator: &dyn LocalOperator,
    samples: &Samples,
    at_once: usize,
) -> Option<Vec<Complex64>> {
    let terms_of = |i: usize| {
        let spins = samples.get(i);
        let mut terms = Terms {
            diagonal: operator.diagonal(spins).into(),
            ..Terms::default()
        };
        operator.connected(spins, &mut |flips, element| terms.push(flips, element));
        terms
    };
    let mut energies = vec![Complex64::ZERO; samples.len()];
    let mut from = 0;
    while from < samples.len() {
        let typical = terms_of(from).len().max(1);
        let to = samples.len().min(from + (at_once / typical).max(1));
        let terms: Vec<Terms> = (from..to).into_par_iter().map(terms_of).collect();
        let spins = &samples.spins[from * samples.sites..to * samples.sites];
        psi.local_sums(spins, &terms, &mut energies[from..to])?;
        from = to;
    }
    Some(energies)
}

/// Mean, error and convergence of values per sample.
pub fn summary(samples: &Samples, values: &[Complex64]) -> Summary {
    match &samples.weights {
        Some(weights) => summarize_exact(values, weights),
        None => summarize(values, samples.per_chain),
    }
}

/// The translation average `C(r) = <Z_i Z_{i+r}>`, r = 0..=N/2, on a ring of
/// the samples' sites in row-major order, with statistical summaries.
pub fn ring_correlations(samples: &Samples) -> Vec<Summary> {
    let n = samples.sites;
    (0..=n / 2)
        .map(|r| {
            let values: Vec<Complex64> = (0..samples.len())
                .into_par_iter()
                .map(|i| {
                    let s = samples.get(i);
                    let sum: i32 = (0..n).map(|j| i32::from(s[j] * s[(j + r) % n])).sum();
                    Complex64::from(f64::from(sum) / n as f64)
                })
                .collect();
            summary(samples, &values)
        })
        .collect()
}
