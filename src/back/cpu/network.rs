//! A network on the CPU as a [`WaveFunction`].

pub use super::compiled::CompileError;
use super::compiled::Compiled;
use super::gradient::GradientCode;
use super::jit::Listing;
use super::simd::Real;
use crate::ir::{Graph, Lattice};
use crate::kernel::Program;
use crate::run::{Background, Spins, WaveFunction};
use num_complex::Complex64;

/// `log psi` of one network on one lattice in working precision `T`, and
/// everything derived from it.
pub struct CpuNetwork<T: Real> {
    full: Compiled<T>,
    gradient: GradientCode<T>,
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
        })
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
        let mut background = Reevaluation {
            network: self,
            spins: spins.to_vec(),
            log_psi: Complex64::ZERO,
        };
        background.log_psi = background.at(&[]);
        Box::new(background)
    }
    fn sweep(
        &self,
        _spins: &mut Spins,
        _reverse: bool,
        _decide: &mut dyn FnMut(usize, Complex64) -> bool,
    ) -> Option<()> {
        None
    }
}

/// Local changes by full evaluation.
struct Reevaluation<'a, T: Real> {
    network: &'a CpuNetwork<T>,
    spins: Vec<i8>,
    log_psi: Complex64,
}

impl<T: Real> Reevaluation<'_, T> {
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

impl<T: Real> Background for Reevaluation<'_, T> {
    fn log_psi(&self) -> Complex64 {
        self.log_psi
    }
    fn log_ratio(&mut self, flips: &[usize]) -> Complex64 {
        self.at(flips) - self.log_psi
    }
    fn log_ratios(&mut self, sites: &[usize], ends: &[usize], out: &mut [Complex64]) {
        assert_eq!(ends.len(), out.len(), "one result per cluster");
        let mut batch = Vec::with_capacity(ends.len() * self.spins.len());
        let mut start = 0;
        for &end in ends {
            let first = batch.len();
            batch.extend_from_slice(&self.spins);
            for &f in &sites[start..end] {
                batch[first + f] = -batch[first + f];
            }
            start = end;
        }
        self.network.log_psi(&batch, out);
        out.iter_mut().for_each(|z| *z -= self.log_psi);
    }
    fn single_flips(&mut self, out: &mut [Complex64]) {
        let sites: Vec<usize> = (0..self.spins.len()).collect();
        let ends: Vec<usize> = (1..=self.spins.len()).collect();
        self.log_ratios(&sites, &ends, out);
    }
    fn accept(&mut self, flips: &[usize]) {
        self.log_psi = self.at(flips);
        self.flip(flips);
    }
}
