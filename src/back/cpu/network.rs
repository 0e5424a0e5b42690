//! A network on the CPU as a [`WaveFunction`].

pub use super::compiled::CompileError;
use super::compiled::Compiled;
use super::environment::{Environments, Refusal};
use super::flips::{FlipError, Flips};
use super::gradient::GradientCode;
use super::jit::Listing;
use super::simd::Real;
use super::work::work;
use crate::ir::{Graph, Lattice};
use crate::kernel::Program;
use crate::run::{Background, Spins, WaveFunction};
use num_complex::Complex64;
use std::sync::OnceLock;

/// `log psi` of one network on one lattice in working precision `T`, and
/// everything derived from it.
pub struct CpuNetwork<T: Real> {
    full: Compiled<T>,
    gradient: GradientCode<T>,
    /// Compiled when local changes are first asked for.
    flips: OnceLock<Result<Flips<T>, FlipError>>,
    /// Derived when a sweep is first asked for.
    environments: OnceLock<Result<Environments<T>, Refusal>>,
    updates: Updates,
}

/// How local changes are evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Updates {
    /// Whatever is estimated to be less work.
    #[default]
    Automatic,
    /// The flip program wherever there is one.
    Abacus,
    /// Full evaluation.
    Full,
}

impl<T: Real> CpuNetwork<T> {
    /// Compiles a graph whose outputs are `[Re log psi]` or `[Re, Im]`.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn new(graph: Graph, lattice: Lattice, theta: &[f64]) -> Result<Self, CompileError> {
        Ok(CpuNetwork {
            gradient: GradientCode::new(&graph, lattice, theta)?,
            full: Compiled::new(graph, lattice, theta, false)?,
            flips: OnceLock::new(),
            environments: OnceLock::new(),
            updates: Updates::default(),
        })
    }

    /// Overrides how local changes are evaluated.
    pub fn set_updates(&mut self, updates: Updates) {
        self.updates = updates;
    }

    /// The compiled flip program, or why flips are evaluated in full.
    pub fn flips(&self) -> Result<&Flips<T>, &FlipError> {
        self.flips.get_or_init(|| Flips::new(&self.full)).as_ref()
    }

    /// The flip program if a number of flips of one configuration is better
    /// evaluated by it than one by one.
    fn flips_for(&self, count: usize) -> Option<&Flips<T>> {
        let flips = match self.updates {
            Updates::Full => return None,
            _ => self.flips().ok()?,
        };
        let full = work(self.full.program()) * count as f64;
        (self.updates == Updates::Abacus || flips.work() < full).then_some(flips)
    }

    /// Environments of the mixers, or why there are none.
    pub fn environments(&self) -> Result<&Environments<T>, &Refusal> {
        let new = || Environments::new(&self.full);
        self.environments.get_or_init(new).as_ref()
    }

    /// Environments if a proposal costs less by them than by evaluating in full.
    fn environments_for_sweeps(&self) -> Option<&Environments<T>> {
        if self.updates == Updates::Full {
            return None;
        }
        let environments = self.environments().ok()?;
        let pays = environments.work() < work(self.full.program());
        (self.updates == Updates::Abacus || pays).then_some(environments)
    }

    /// Environments if a number of changes of one configuration cost less by them
    /// than by evaluating each in full.
    fn environments_for(&self, count: usize) -> Option<&Environments<T>> {
        let sites = self.full.lattice().sites();
        if self.updates == Updates::Full || count == 0 {
            return None;
        }
        let environments = self.environments().ok()?;
        // a pass over the chain, whatever is asked
        let passes = environments.work() * (sites + count) as f64 / 2.0;
        let pays = passes < work(self.full.program()) * count as f64;
        (self.updates == Updates::Abacus || pays).then_some(environments)
    }

    /// The loop-level program of `log psi`.
    pub fn program(&self) -> &Program {
        self.full.program()
    }

    /// Readable code of `log psi`: Cranelift IR and disassembly per fused loop.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn listing(graph: Graph, lattice: Lattice, theta: &[f64]) -> Result<Listing, CompileError> {
        let compiled = Compiled::<T>::new(graph, lattice, theta, true)?;
        Ok(compiled.listing().cloned().unwrap_or_default())
    }

    /// Bytes of working memory per thread: (samples at a time, bytes).
    pub fn memory(&self) -> Vec<(usize, usize)> {
        self.full.memory()
    }

    /// As [`WaveFunction::set_params`], with the reason where the parameters
    /// define no wave function; the old ones then stay in force.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn try_set_params(&mut self, theta: &[f64]) -> Result<(), CompileError> {
        // nothing changes unless everything can
        let full = self.full.prepare(theta)?;
        let gradient = self.gradient.prepare(theta)?;
        self.full.install(full);
        self.gradient.install(gradient);
        if let Some(Ok(flips)) = self.flips.get_mut() {
            flips.set_params(&self.full)?;
        }
        let follows = match self.environments.get_mut() {
            Some(Ok(environments)) => environments.set_params(&self.full).is_ok(),
            _ => false,
        };
        if !follows {
            // derived anew when asked for
            self.environments = OnceLock::new();
        }
        Ok(())
    }

    /// The loop-level programs of the derivative: sites, then parameters.
    pub fn gradient_programs(&self) -> [&Program; 2] {
        self.gradient.programs()
    }
}

impl<T: Real> WaveFunction for CpuNetwork<T> {
    fn lattice(&self) -> Lattice {
        self.full.lattice()
    }
    fn param_count(&self) -> usize {
        self.full.params().len()
    }
    fn is_complex(&self) -> bool {
        self.full.outputs() > 1
    }
    fn set_params(&mut self, theta: &[f64]) {
        if let Err(e) = self.try_set_params(theta) {
            tracing::warn!("parameters rejected: {e}");
        }
    }
    fn params(&self) -> &[f64] {
        self.full.params()
    }
    fn log_psi(&self, batch: &Spins, out: &mut [Complex64]) {
        self.full.evaluate(batch, out, &|value| {
            Complex64::new(value[0], value.get(1).copied().unwrap_or(0.0))
        });
    }
    fn gradients(&self, batch: &Spins, row: &(dyn Fn(usize, &[f64], &[f64]) + Sync)) {
        self.gradient.run(batch, row);
    }
    fn background<'a>(&'a self, spins: &Spins) -> Box<dyn Background + 'a> {
        let mut background = Updated {
            network: self,
            spins: spins.to_vec(),
            log_psi: Complex64::ZERO,
            asked: 0,
            ratios: Vec::new(),
        };
        background.log_psi = background.at(&[]);
        Box::new(background)
    }
    fn sweep(
        &self,
        spins: &mut Spins,
        reverse: bool,
        decide: &mut dyn FnMut(usize, Complex64) -> bool,
    ) -> Option<()> {
        self.environments_for_sweeps()?
            .sweep(spins, reverse, decide);
        Some(())
    }
}

/// One configuration. Single flips come from one run of the flip program once
/// enough of them were asked for to pay for it; everything else is evaluated in
/// full.
struct Updated<'a, T: Real> {
    network: &'a CpuNetwork<T>,
    spins: Vec<i8>,
    log_psi: Complex64,
    /// Single flips evaluated one by one so far.
    asked: usize,
    /// All single flips, once known.
    ratios: Vec<Complex64>,
}

impl<T: Real> Updated<'_, T> {
    /// Whether all single flips are known, after computing them if `more` further
    /// ones justify that.
    fn prepared(&mut self, more: usize) -> bool {
        if self.ratios.is_empty() && more > 0 {
            self.asked += more;
            if let Some(flips) = self.network.flips_for(self.asked) {
                let mut ratios = vec![Complex64::ZERO; self.spins.len()];
                flips.ratios(&self.spins, &mut ratios);
                // windows may read sites beyond an open lattice, where a network
                // need not be finite
                if ratios.iter().all(|z| z.is_finite()) {
                    self.ratios = ratios;
                }
            } else if let Some(environments) = self.network.environments_for(self.asked) {
                let sites: Vec<usize> = (0..self.spins.len()).collect();
                let ends: Vec<usize> = (1..=sites.len()).collect();
                let mut ratios = vec![Complex64::ZERO; sites.len()];
                let wide = environments.log_ratios(&self.spins, &sites, &ends, &mut ratios);
                if wide.is_empty() {
                    self.ratios = ratios;
                }
            }
        }
        !self.ratios.is_empty()
    }
    fn other_ratios(&self, sites: &[usize], ends: &[usize], out: &mut [Complex64]) {
        let Some(environments) = self.network.environments_for(ends.len()) else {
            return self.full_ratios(sites, ends, out);
        };
        let wide = environments.log_ratios(&self.spins, sites, ends, out);
        let (mut rest, mut rest_ends) = (Vec::new(), Vec::new());
        for &k in &wide {
            rest.extend_from_slice(&sites[k.checked_sub(1).map_or(0, |k| ends[k])..ends[k]]);
            rest_ends.push(rest.len());
        }
        let mut found = vec![Complex64::ZERO; wide.len()];
        self.full_ratios(&rest, &rest_ends, &mut found);
        for (k, z) in wide.into_iter().zip(found) {
            out[k] = z;
        }
    }
    fn full_ratios(&self, sites: &[usize], ends: &[usize], out: &mut [Complex64]) {
        let mut batch = Vec::with_capacity(ends.len() * self.spins.len());
        let mut from = 0;
        for &end in ends {
            let first = batch.len();
            batch.extend_from_slice(&self.spins);
            for &f in &sites[from..end] {
                batch[first + f] = -batch[first + f];
            }
            from = end;
        }
        self.network.log_psi(&batch, out);
        out.iter_mut().for_each(|z| *z -= self.log_psi);
    }

    fn flip(&mut self, flips: &[usize]) {
        for &f in flips {
            self.spins[f] = -self.spins[f];
        }
    }
    fn at(&mut self, flips: &[usize]) -> Complex64 {
        self.flip(flips);
        let mut out = [Complex64::ZERO];
        self.network.log_psi(&self.spins, &mut out);
        self.flip(flips);
        out[0]
    }
}

impl<T: Real> Background for Updated<'_, T> {
    fn log_psi(&self) -> Complex64 {
        self.log_psi
    }
    fn log_ratio(&mut self, flips: &[usize]) -> Complex64 {
        match *flips {
            [site] if self.prepared(1) => self.ratios[site],
            _ => self.at(flips) - self.log_psi,
        }
    }
    fn log_ratios(&mut self, sites: &[usize], ends: &[usize], out: &mut [Complex64]) {
        assert_eq!(ends.len(), out.len(), "one result per cluster");
        let cluster = |k: usize| k.checked_sub(1).map_or(0, |k| ends[k])..ends[k];
        let singles = (0..ends.len()).filter(|&k| cluster(k).len() == 1).count();
        if !self.prepared(singles) {
            return self.other_ratios(sites, ends, out);
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
        self.other_ratios(&rest, &rest_ends, &mut found);
        for (k, z) in which.into_iter().zip(found) {
            out[k] = z;
        }
    }
    fn single_flips(&mut self, out: &mut [Complex64]) {
        if self.prepared(out.len()) {
            return out.copy_from_slice(&self.ratios);
        }
        let sites: Vec<usize> = (0..self.spins.len()).collect();
        let ends: Vec<usize> = (1..=self.spins.len()).collect();
        self.other_ratios(&sites, &ends, out);
    }
    fn accept(&mut self, flips: &[usize]) {
        self.log_psi = self.at(flips);
        self.flip(flips);
        self.asked = 0;
        self.ratios.clear();
    }
}
