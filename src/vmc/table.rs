//! All amplitudes of a small system, looked up.

use super::sampler::Samples;
use crate::run::{Background, Spins, WaveFunction};
use num_complex::Complex64;

/// Configurations evaluated at once.
const BATCH: usize = 4096;

/// The log amplitudes of a list of configurations of at most
/// [`MAX_FULL_SUM_SITES`](super::sampler::MAX_FULL_SUM_SITES) sites. What is not
/// in the list is evaluated when asked for.
pub struct Table<'a> {
    psi: &'a dyn WaveFunction,
    /// Bit i of the index is set where spin i is down; NaN where not known.
    log_psi: Vec<Complex64>,
}

fn index(spins: &Spins) -> usize {
    let bit = |(i, &s): (usize, &i8)| usize::from(s < 0) << i;
    spins.iter().enumerate().map(bit).sum()
}

impl<'a> Table<'a> {
    /// Evaluates every configuration of the samples once.
    pub fn new(psi: &'a dyn WaveFunction, samples: &Samples) -> Table<'a> {
        let sites = samples.sites;
        let mut log_psi = vec![Complex64::new(f64::NAN, f64::NAN); 1 << sites];
        for batch in samples.spins.chunks(BATCH * sites) {
            let mut out = vec![Complex64::ZERO; batch.len() / sites];
            psi.log_psi(batch, &mut out);
            for (spins, value) in batch.chunks_exact(sites).zip(out) {
                log_psi[index(spins)] = value;
            }
        }
        Table { psi, log_psi }
    }

    /// A background whose ratios are looked up.
    pub fn background(&self, spins: &Spins) -> impl Background {
        Looked {
            table: self,
            spins: spins.to_vec(),
            at: index(spins),
        }
    }
}

struct Looked<'t> {
    table: &'t Table<'t>,
    spins: Vec<i8>,
    at: usize,
}

impl Looked<'_> {
    fn value(&self, flips: &[usize]) -> Complex64 {
        let at = flips.iter().fold(self.at, |at, i| at ^ 1 << i);
        let known = self.table.log_psi[at];
        if !known.re.is_nan() {
            return known;
        }
        let mut spins = self.spins.clone();
        flips.iter().for_each(|&i| spins[i] = -spins[i]);
        let mut out = [Complex64::ZERO];
        self.table.psi.log_psi(&spins, &mut out);
        out[0]
    }
}

impl Background for Looked<'_> {
    fn log_psi(&self) -> Complex64 {
        self.value(&[])
    }
    fn log_ratio(&mut self, flips: &[usize]) -> Complex64 {
        self.value(flips) - self.value(&[])
    }
    fn accept(&mut self, flips: &[usize]) {
        flips.iter().for_each(|&i| self.spins[i] = -self.spins[i]);
        self.at = index(&self.spins);
    }
}
