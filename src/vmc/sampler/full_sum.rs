//! The whole basis with exact weights.

use super::Samples;
use crate::run::WaveFunction;
use num_complex::Complex64;

/// Above this many sites a full sum is refused (a million configurations).
pub const MAX_FULL_SUM_SITES: usize = 20;

/// Configurations evaluated at once.
const BATCH: usize = 4096;

/// All configurations (of one magnetisation, if given) with their exact
/// probabilities |psi|^2 / <psi|psi>. Bit i of the basis index is site i,
/// set for spin down.
pub fn full_sum(psi: &dyn WaveFunction, magnetization: Option<i64>) -> Samples {
    let sites = psi.lattice().sites();
    let mut spins = Vec::new();
    for index in 0..1u64 << sites {
        let total = sites as i64 - 2 * i64::from(index.count_ones());
        if magnetization.is_none_or(|m| m == total) {
            spins.extend((0..sites).map(|i| 1 - 2 * (index >> i & 1) as i8));
        }
    }
    let mut log_psi = vec![Complex64::default(); spins.len() / sites];
    for (batch, out) in spins.chunks(BATCH * sites).zip(log_psi.chunks_mut(BATCH)) {
        psi.log_psi(batch, out);
    }
    let top = log_psi
        .iter()
        .fold(f64::NEG_INFINITY, |top, z| top.max(z.re));
    let mut weights: Vec<f64> = log_psi.iter().map(|z| (2.0 * (z.re - top)).exp()).collect();
    let norm: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= norm);
    Samples {
        sites,
        per_chain: weights.len(),
        spins,
        weights: Some(weights),
    }
}
