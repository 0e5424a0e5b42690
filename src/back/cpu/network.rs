//! A network on the CPU as a [`WaveFunction`].

use super::background::Updated;
pub use super::compiled::CompileError;
use super::compiled::Compiled;
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
    pub(super) fn flips_for(&self, count: usize) -> Option<&Flips<T>> {
        let flips = match self.updates {
            Updates::Full => return None,
            _ => self.flips().ok()?,
        };
        let full = work(self.full.program()) * count as f64;
        (self.updates == Updates::Abacus || flips.work() < full).then_some(flips)
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
        Box::new(Updated::new(self, spins))
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
