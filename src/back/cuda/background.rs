//! Updates of one configuration on a device.

use super::network::{CudaNetwork, UNKNOWN};
use crate::run::{Background, WaveFunction};
use num_complex::Complex64;

/// One configuration: single flips from one run of the flip program once enough
/// were asked for to pay for it, everything else in full.
pub(super) struct OnDevice<'a> {
    network: &'a CudaNetwork,
    spins: Vec<i8>,
    log_psi: Complex64,
    /// Single flips evaluated one by one so far.
    asked: usize,
    /// All single flips, once known.
    ratios: Vec<Complex64>,
}

impl OnDevice<'_> {
    /// From one configuration.
    pub(super) fn new<'a>(network: &'a CudaNetwork, spins: &[i8]) -> OnDevice<'a> {
        let mut log_psi = [UNKNOWN];
        network.log_psi(spins, &mut log_psi);
        OnDevice {
            network,
            spins: spins.to_vec(),
            log_psi: log_psi[0],
            asked: 0,
            ratios: Vec::new(),
        }
    }

    /// Whether all single flips are known, after computing them if `more` further
    /// ones justify that.
    fn known(&mut self, more: usize) -> bool {
        if self.ratios.is_empty() && more > 0 {
            self.asked += more;
            if let Some(flips) = self.network.flips_for(self.asked) {
                let mut ratios = vec![Complex64::ZERO; self.spins.len()];
                match flips.ratios(&self.spins, &mut ratios) {
                    // windows may read sites beyond an open lattice, where a
                    // network need not be finite
                    Ok(()) if ratios.iter().all(|z| z.is_finite()) => self.ratios = ratios,
                    Ok(()) => {}
                    Err(e) => self.network.report(&e),
                }
            }
        }
        !self.ratios.is_empty()
    }

    fn in_full(&self, sites: &[usize], ends: &[usize], out: &mut [Complex64]) {
        let n = self.spins.len();
        let mut batch = self.spins.repeat(ends.len());
        let mut from = 0;
        for (k, &end) in ends.iter().enumerate() {
            for &f in &sites[from..end] {
                batch[k * n + f] = -batch[k * n + f];
            }
            from = end;
        }
        self.network.log_psi(&batch, out);
        out.iter_mut().for_each(|z| *z -= self.log_psi);
    }
}

impl Background for OnDevice<'_> {
    fn log_psi(&self) -> Complex64 {
        self.log_psi
    }
    fn log_ratio(&mut self, flips: &[usize]) -> Complex64 {
        let mut out = [UNKNOWN];
        self.log_ratios(flips, &[flips.len()], &mut out);
        out[0]
    }
    fn log_ratios(&mut self, sites: &[usize], ends: &[usize], out: &mut [Complex64]) {
        assert_eq!(ends.len(), out.len(), "one result per cluster");
        let cluster = |k: usize| k.checked_sub(1).map_or(0, |k| ends[k])..ends[k];
        let singles = (0..ends.len()).filter(|&k| cluster(k).len() == 1).count();
        if !self.known(singles) {
            return self.in_full(sites, ends, out);
        }
        let (mut rest, mut rest_ends, mut which) = (Vec::new(), Vec::new(), Vec::new());
        for (k, out) in out.iter_mut().enumerate() {
            match sites[cluster(k)] {
                [site] => *out = self.ratios[site],
                ref flips => {
                    rest.extend_from_slice(flips);
                    rest_ends.push(rest.len());
                    which.push(k);
                }
            }
        }
        if which.is_empty() {
            return;
        }
        let mut found = vec![UNKNOWN; which.len()];
        self.in_full(&rest, &rest_ends, &mut found);
        for (k, z) in which.into_iter().zip(found) {
            out[k] = z;
        }
    }
    fn single_flips(&mut self, out: &mut [Complex64]) {
        let sites: Vec<usize> = (0..self.spins.len()).collect();
        let ends: Vec<usize> = (1..=self.spins.len()).collect();
        self.log_ratios(&sites, &ends, out);
    }
    fn accept(&mut self, flips: &[usize]) {
        for &f in flips {
            self.spins[f] = -self.spins[f];
        }
        let mut log_psi = [UNKNOWN];
        self.network.log_psi(&self.spins, &mut log_psi);
        self.log_psi = log_psi[0];
        self.asked = 0;
        self.ratios.clear();
    }
}
