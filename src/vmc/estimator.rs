//! Local energies and other local estimators, streamed over samples.

use super::operator::Operator;
use super::sampler::Samples;
use super::stats::{Summary, summarize, summarize_exact};
use super::table::Table;
use crate::run::changes::Changes;
use crate::run::values::Values;
use crate::run::{Background, Spins, WaveFunction};
use num_complex::Complex64;
use rayon::prelude::*;
use std::sync::Arc;

/// An operator in the Z basis as the estimators need it.
pub trait LocalOperator: Send + Sync {
    /// `<s|H|s>`.
    fn diagonal(&self, spins: &Spins) -> f64;
    /// Calls `term(flips, <s|H|s'>)` for every s' other than s that H connects
    /// to s, where s' is s with the distinct sites `flips` flipped. A pair
    /// (s, s') may come in several parts.
    fn connected(&self, spins: &Spins, term: &mut dyn FnMut(&[usize], Complex64));
    /// All of it, for back ends that add up by themselves; `None` where it has not this
    /// form.
    fn changes(&self) -> Option<Arc<Changes>> {
        None
    }
}

impl LocalOperator for Operator {
    fn diagonal(&self, spins: &Spins) -> f64 {
        Operator::diagonal(self, spins)
    }
    fn connected(&self, spins: &Spins, term: &mut dyn FnMut(&[usize], Complex64)) {
        Operator::connected(self, spins, term);
    }
    fn changes(&self) -> Option<Arc<Changes>> {
        Some(Operator::changes(self))
    }
}

/// Connected configurations whose ratios are asked for at once.
const BATCH: usize = 256;

/// Local changes of one configuration that wait for their ratios.
#[derive(Default)]
struct Pending {
    /// Sites that all changes flip, one after the other.
    flips: Vec<usize>,
    /// Where the sites of each change end in `flips`.
    ends: Vec<usize>,
    elements: Vec<Complex64>,
}

/// `sum element * psi(s') / psi(s)` over the changes that wait, which are then
/// gone.
fn sum_of(pending: &mut Pending, background: &mut dyn Background) -> Complex64 {
    let mut ratios = vec![Complex64::default(); pending.ends.len()];
    background.log_ratios(&pending.flips, &pending.ends, &mut ratios);
    let energy = ratios
        .iter()
        .zip(&pending.elements)
        .map(|(ratio, element)| element * ratio.exp())
        .sum();
    pending.flips.clear();
    pending.ends.clear();
    pending.elements.clear();
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
    let mut flush = |pending: &mut Pending| {
        if let Some(make) = make.take() {
            made = Some(make());
        }
        made.as_mut()
            .map_or(Complex64::ZERO, |b| sum_of(pending, b.as_mut()))
    };
    let mut pending = Pending::default();
    operator.connected(spins, &mut |flips, element| {
        pending.flips.extend_from_slice(flips);
        pending.ends.push(pending.flips.len());
        pending.elements.push(element);
        if pending.ends.len() == BATCH {
            energy += flush(&mut pending);
        }
    });
    if !pending.ends.is_empty() {
        energy += flush(&mut pending);
    }
    energy
}

/// Local energies of all samples, in their order, see [`estimates`].
pub fn local_energies(
    psi: &dyn WaveFunction,
    operator: &dyn LocalOperator,
    samples: &Samples,
) -> Vec<Complex64> {
    estimates(psi, operator, samples).all()
}

/// Local energies of all samples, in their order, where the back end leaves them.
/// One that adds up local changes by itself is given them all; else parallel over
/// samples, each holding one background at a time. Where the basis was summed, ratios
/// are looked up in a table of all amplitudes.
pub fn estimates(
    psi: &dyn WaveFunction,
    operator: &dyn LocalOperator,
    samples: &Samples,
) -> Box<dyn Values> {
    if samples.weights.is_none()
        && psi.has_local_sums()
        && let Some(changes) = operator.changes()
        && let Some(values) = psi.local_sums(&samples.spins, &changes)
    {
        return values;
    }
    Box::new(one_by_one(psi, operator, samples))
}

fn one_by_one(
    psi: &dyn WaveFunction,
    operator: &dyn LocalOperator,
    samples: &Samples,
) -> Vec<Complex64> {
    let table = samples.weights.as_ref().map(|_| Table::new(psi, samples));
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

/// Mean, error and convergence of values per sample.
pub fn summary(samples: &Samples, values: &dyn Values) -> Summary {
    match &samples.weights {
        Some(weights) => summarize_exact(&values.all(), weights),
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
