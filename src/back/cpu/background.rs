//! One configuration and its local changes.

use super::flips::{Changes, Flips, Place};
use super::network::CpuNetwork;
use super::simd::Real;
use super::units::{Configuration, Units};
use crate::pass::flips::Family;
use crate::run::full::Full;
use crate::run::{Background, Spins, WaveFunction};
use num_complex::Complex64;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Networks with hidden units follow them. Otherwise clusters of a family come
/// from one run of a flip program once enough of them were asked for to pay for
/// it; everything else is evaluated in full.
pub(super) struct Updated<'a, T: Real> {
    network: &'a CpuNetwork<T>,
    full: Full<'a>,
    hidden: Option<Configuration<T>>,
    /// Clusters evaluated in full so far, by family.
    asked: BTreeMap<Family, usize>,
    /// How many of them justify another look at the costs.
    patience: usize,
    known: Vec<(Arc<Flips<T>>, Changes)>,
}

impl<'a, T: Real> Updated<'a, T> {
    pub(super) fn new(network: &'a CpuNetwork<T>, spins: &Spins) -> Self {
        Updated {
            network,
            full: Full::new(network, spins),
            hidden: None,
            asked: BTreeMap::new(),
            patience: 0,
            known: Vec::new(),
        }
    }

    /// The run that knows a family, and the family's number there.
    fn find(&self, family: &Family) -> Option<(usize, usize)> {
        self.known
            .iter()
            .enumerate()
            .find_map(|(run, (program, _))| {
                let place = program.families().iter().position(|f| f == family)?;
                Some((run, place))
            })
    }

    /// Counts requests for families that are not known, and runs a program if
    /// their number justifies it.
    fn ask(&mut self, families: &[(Family, usize)]) {
        let unknown: Vec<&(Family, usize)> = families
            .iter()
            .filter(|(f, _)| self.find(f).is_none())
            .collect();
        if unknown.is_empty() {
            return;
        }
        for (family, count) in unknown {
            *self.asked.entry(family.clone()).or_insert(0) += count;
        }
        if self.asked.values().sum::<usize>() <= self.patience {
            return;
        }
        let asked: Vec<_> = self.asked.iter().map(|(f, &n)| (f.clone(), n)).collect();
        match self.network.choose(&asked) {
            Some(program) => {
                self.asked.retain(|f, _| !program.families().contains(f));
                let changes = program.run(self.full.spins());
                self.known.push((program, changes));
                self.patience = 0;
            }
            None => {
                let total: usize = self.asked.values().sum();
                self.patience = total + total / 4;
            }
        }
    }
}

impl<T: Real> Updated<'_, T> {
    /// Ratios of clusters by their change of hidden units; returns those that it
    /// has none for.
    fn by_units<'s>(
        &mut self,
        units: &Units<T>,
        cluster: &dyn Fn(usize) -> &'s [usize],
        out: &mut [Complex64],
    ) -> Vec<usize> {
        let spins = self.full.spins();
        let hidden = (self.hidden).get_or_insert_with(|| units.configuration(spins));
        let mut rest = Vec::new();
        for (k, out) in out.iter_mut().enumerate() {
            *out = units.ratio(hidden, spins, cluster(k));
            if !out.is_finite() {
                rest.push(k);
            }
        }
        rest
    }

    /// Ratios of clusters by flip programs, where they pay; returns the other
    /// clusters.
    fn by_programs<'s>(
        &mut self,
        cluster: &dyn Fn(usize) -> &'s [usize],
        out: &mut [Complex64],
    ) -> Vec<usize> {
        let lattice = self.network.lattice();
        let mut families: Vec<(Family, usize)> = Vec::new();
        let mut index: HashMap<Family, usize> = HashMap::new();
        let placed: Vec<Option<Place>> = (0..out.len())
            .map(|k| {
                let (family, corner) = Family::of(lattice, cluster(k))?;
                let family = *index.entry(family).or_insert_with_key(|family| {
                    families.push((family.clone(), 0));
                    families.len() - 1
                });
                families[family].1 += 1;
                Some(Place { family, corner })
            })
            .collect();
        self.ask(&families);
        let found: Vec<_> = families.iter().map(|(f, _)| self.find(f)).collect();
        let mut rest = Vec::new();
        let mut by_run: Vec<(Vec<usize>, Vec<Place>)> = vec![Default::default(); self.known.len()];
        for (k, place) in placed.iter().enumerate() {
            match place.and_then(|p| Some((p.corner, found[p.family]?))) {
                Some((corner, (run, family))) => {
                    by_run[run].0.push(k);
                    by_run[run].1.push(Place { family, corner });
                }
                None => rest.push(k),
            }
        }
        for ((program, changes), (which, places)) in self.known.iter().zip(by_run) {
            let mut ratios = vec![Complex64::ZERO; places.len()];
            program.ratios(changes, &places, &mut ratios);
            for (k, ratio) in which.into_iter().zip(ratios) {
                out[k] = ratio;
                // windows may read sites beyond an open lattice, where a network
                // need not be finite
                if !ratio.is_finite() {
                    rest.push(k);
                }
            }
        }
        rest
    }
}

impl<T: Real> Updated<'_, T> {
    /// Ratios of clusters between environments, where they pay; returns the other
    /// clusters.
    fn by_environments<'s>(
        &self,
        which: Vec<usize>,
        cluster: &dyn Fn(usize) -> &'s [usize],
        out: &mut [Complex64],
    ) -> Vec<usize> {
        // a walk along the chain, however few are asked for
        if 2 * which.len() < self.full.spins().len() && !self.network.wants_abacus()
            || which.is_empty()
        {
            return which;
        }
        let Some(environments) = self.network.environments_if_they_pay() else {
            return which;
        };
        let (mut sites, mut ends) = (Vec::new(), Vec::new());
        for &k in &which {
            sites.extend_from_slice(cluster(k));
            ends.push(sites.len());
        }
        let mut ratios = vec![Complex64::ZERO; which.len()];
        let wide = environments.log_ratios(self.full.spins(), &sites, &ends, &mut ratios);
        for (&k, ratio) in which.iter().zip(&ratios) {
            out[k] = *ratio;
        }
        wide.into_iter().map(|k| which[k]).collect()
    }
}

impl<T: Real> Background for Updated<'_, T> {
    fn log_psi(&self) -> Complex64 {
        self.full.log_psi()
    }

    fn log_ratio(&mut self, flips: &[usize]) -> Complex64 {
        let mut out = [Complex64::ZERO];
        // proposals of a sampler that keeps its background
        if let [corner] = *flips
            && let Some((run, family)) = self.find(&Family::single())
        {
            let (program, changes) = &self.known[run];
            program.ratios(changes, &[Place { family, corner }], &mut out);
            if out[0].is_finite() {
                return out[0];
            }
        }
        self.log_ratios(flips, &[flips.len()], &mut out);
        out[0]
    }

    fn log_ratios(&mut self, sites: &[usize], ends: &[usize], out: &mut [Complex64]) {
        assert_eq!(ends.len(), out.len(), "one result per cluster");
        if !self.network.updates_locally() {
            return self.full.log_ratios(sites, ends, out);
        }
        let cluster = |k: usize| &sites[k.checked_sub(1).map_or(0, |k| ends[k])..ends[k]];
        let rest = match self.network.units() {
            Some(units) => self.by_units(units, &cluster, out),
            None => self.by_programs(&cluster, out),
        };
        let rest = self.by_environments(rest, &cluster, out);
        let (mut rest_sites, mut rest_ends) = (Vec::new(), Vec::new());
        for &k in &rest {
            rest_sites.extend_from_slice(cluster(k));
            rest_ends.push(rest_sites.len());
        }
        let mut ratios = vec![Complex64::ZERO; rest.len()];
        self.full.log_ratios(&rest_sites, &rest_ends, &mut ratios);
        for (k, ratio) in rest.into_iter().zip(ratios) {
            out[k] = ratio;
        }
    }

    fn single_flips(&mut self, out: &mut [Complex64]) {
        let sites: Vec<usize> = (0..out.len()).collect();
        let ends: Vec<usize> = (1..=out.len()).collect();
        self.log_ratios(&sites, &ends, out);
    }

    fn prepare(&mut self) -> bool {
        if !self.network.updates_locally() {
            return false;
        }
        if let Some(units) = self.network.units() {
            let spins = self.full.spins();
            (self.hidden).get_or_insert_with(|| units.configuration(spins));
            return true;
        }
        let single = Family::single();
        self.ask(&[(single.clone(), self.full.spins().len())]);
        self.find(&single).is_some()
    }

    fn accept(&mut self, flips: &[usize]) {
        if let (Some(hidden), Some(units)) = (&mut self.hidden, self.network.units()) {
            units.accept(hidden, self.full.spins(), flips);
        }
        self.full.accept(flips);
        self.asked.clear();
        self.patience = 0;
        self.known.clear();
    }
}
