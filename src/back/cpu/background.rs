//! One configuration and its local changes.

use super::network::CpuNetwork;
use super::simd::Real;
use crate::run::full::Full;
use crate::run::{Background, Spins};
use num_complex::Complex64;

/// Single flips come from one run of the flip program once enough of them were
/// asked for to pay for it; everything else is evaluated in full.
pub(super) struct Updated<'a, T: Real> {
    network: &'a CpuNetwork<T>,
    full: Full<'a>,
    /// Single flips evaluated one by one so far.
    asked: usize,
    /// All single flips, once known.
    ratios: Vec<Complex64>,
}

impl<'a, T: Real> Updated<'a, T> {
    pub(super) fn new(network: &'a CpuNetwork<T>, spins: &Spins) -> Self {
        Updated {
            network,
            full: Full::new(network, spins),
            asked: 0,
            ratios: Vec::new(),
        }
    }

    /// Whether all single flips are known, after computing them if `more` further
    /// ones justify that.
    fn prepared(&mut self, more: usize) -> bool {
        if self.ratios.is_empty() && more > 0 {
            self.asked += more;
            if let Some(flips) = self.network.flips_for(self.asked) {
                let mut ratios = vec![Complex64::ZERO; self.full.spins().len()];
                flips.ratios(self.full.spins(), &mut ratios);
                // windows may read sites beyond an open lattice, where a network
                // need not be finite
                if ratios.iter().all(|z| z.is_finite()) {
                    self.ratios = ratios;
                }
            }
        }
        !self.ratios.is_empty()
    }
}

impl<T: Real> Background for Updated<'_, T> {
    fn log_psi(&self) -> Complex64 {
        self.full.log_psi()
    }
    fn log_ratio(&mut self, flips: &[usize]) -> Complex64 {
        match *flips {
            [site] if self.prepared(1) => self.ratios[site],
            _ => self.full.log_ratio(flips),
        }
    }
    fn log_ratios(&mut self, sites: &[usize], ends: &[usize], out: &mut [Complex64]) {
        assert_eq!(ends.len(), out.len(), "one result per cluster");
        let cluster = |k: usize| k.checked_sub(1).map_or(0, |k| ends[k])..ends[k];
        let singles = (0..ends.len()).filter(|&k| cluster(k).len() == 1).count();
        if !self.prepared(singles) {
            return self.full.log_ratios(sites, ends, out);
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
        let mut found = vec![Complex64::ZERO; which.len()];
        self.full.log_ratios(&rest, &rest_ends, &mut found);
        for (k, z) in which.into_iter().zip(found) {
            out[k] = z;
        }
    }
    fn single_flips(&mut self, out: &mut [Complex64]) {
        if self.prepared(out.len()) {
            return out.copy_from_slice(&self.ratios);
        }
        let sites: Vec<usize> = (0..out.len()).collect();
        let ends: Vec<usize> = (1..=out.len()).collect();
        self.full.log_ratios(&sites, &ends, out);
    }
    fn accept(&mut self, flips: &[usize]) {
        self.full.accept(flips);
        self.asked = 0;
        self.ratios.clear();
    }
}
