//! Local energies and other local estimators, streamed over samples.

use super::operator::Operator;
use super::sampler::Samples;
use super::stats::{Summary, summarize, summarize_exact};
use super::table::Table;
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

/// Connected configurations waiting for their ratios.
#[derive(Default)]
struct Pending {
    flips: Vec<usize>,
    ends: Vec<usize>,
    elements: Vec<Complex64>,
}

impl Pending {
    fn push(&mut self, flips: &[usize], element: Complex64) {
        self.flips.extend_from_slice(flips);
        self.ends.push(self.flips.len());
        self.elements.push(element);
    }

    /// `sum element * psi(s') / psi(s)` over what waits, which is then gone.
    fn flush(&mut self, background: &mut dyn Background) -> Complex64 {
        let mut ratios = vec![Complex64::default(); self.ends.len()];
        background.log_ratios(&self.flips, &self.ends, &mut ratios);
        let energy = ratios
            .iter()
            .zip(&self.elements)
            .map(|(ratio, element)| element * ratio.exp())
            .sum();
        self.flips.clear();
        self.ends.clear();
        self.elements.clear();
        energy
    }
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
            .map_or(Complex64::ZERO, |b| pending.flush(b.as_mut()))
    };
    let mut pending = Pending::default();
    operator.connected(spins, &mut |flips, element| {
        pending.push(flips, element);
        if pending.ends.len() == BATCH {
            energy += flush(&mut pending);
        }
    });
    if !pending.ends.is_empty() {
        energy += flush(&mut pending);
    }
    energy
}

/// Local energies of all samples, in their order. Parallel over samples; each
/// holds one background at a time. Where the basis was summed, ratios are
/// looked up in a table of all amplitudes.
pub fn local_energies(
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
