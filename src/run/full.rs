//! A background that evaluates every change in full.

use super::{Background, Spins, WaveFunction};
use num_complex::Complex64;
use std::cell::OnceCell;

/// Right for any network, and the cheapest way on small lattices. Nothing is
/// evaluated twice: `log psi` of the configuration only when a ratio needs it,
/// and not at all after accepting the change that was asked for last.
pub struct Full<'a> {
    psi: &'a dyn WaveFunction,
    spins: Vec<i8>,
    log_psi: OnceCell<Complex64>,
    /// The last change asked for alone, and `log psi` with it.
    last: Option<(Vec<usize>, Complex64)>,
}

impl<'a> Full<'a> {
    /// The background of one configuration.
    pub fn new(psi: &'a dyn WaveFunction, spins: &Spins) -> Full<'a> {
        Full {
            psi,
            spins: spins.to_vec(),
            log_psi: OnceCell::new(),
            last: None,
        }
    }

    /// The configuration.
    pub fn spins(&self) -> &Spins {
        &self.spins
    }
}

impl Background for Full<'_> {
    fn log_psi(&self) -> Complex64 {
        *self.log_psi.get_or_init(|| {
            let mut out = [Complex64::ZERO];
            self.psi.log_psi(&self.spins, &mut out);
            out[0]
        })
    }

    fn log_ratio(&mut self, flips: &[usize]) -> Complex64 {
        let mut out = [Complex64::ZERO];
        self.log_ratios(flips, &[flips.len()], &mut out);
        out[0]
    }

    fn log_ratios(&mut self, sites: &[usize], ends: &[usize], out: &mut [Complex64]) {
        assert_eq!(ends.len(), out.len(), "one result per cluster");
        if ends.is_empty() {
            return;
        }
        // an unknown background is one more configuration of a batch
        if ends.len() == 1 {
            self.log_psi();
        }
        let unknown = usize::from(self.log_psi.get().is_none());
        let mut batch = Vec::with_capacity((ends.len() + unknown) * self.spins.len());
        let mut from = 0;
        for &end in ends {
            let first = batch.len();
            batch.extend_from_slice(&self.spins);
            for &site in &sites[from..end] {
                batch[first + site] = -batch[first + site];
            }
            from = end;
        }
        if unknown == 1 {
            batch.extend_from_slice(&self.spins);
            let mut all = vec![Complex64::ZERO; out.len() + 1];
            self.psi.log_psi(&batch, &mut all);
            out.copy_from_slice(&all[..out.len()]);
            self.log_psi = OnceCell::from(all[out.len()]);
        } else {
            self.psi.log_psi(&batch, out);
        }
        if let ([end], [log_psi]) = (ends, &*out) {
            self.last = Some((sites[..*end].to_vec(), *log_psi));
        }
        let old = self.log_psi();
        out.iter_mut().for_each(|z| *z -= old);
    }

    fn accept(&mut self, flips: &[usize]) {
        flips.iter().for_each(|&i| self.spins[i] = -self.spins[i]);
        self.log_psi = match self.last.take() {
            Some((known, log_psi)) if known == flips => OnceCell::from(log_psi),
            _ => OnceCell::new(),
        };
    }
}
