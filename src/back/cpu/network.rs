//! A network on the CPU as a [`WaveFunction`].

use super::background::Updated;
use super::budget::Budget;
use super::clusters::Clusters;
pub use super::compiled::CompileError;
use super::compiled::Compiled;
use super::environment::{Environments, Refusal};
use super::flips::{FlipError, Flips};
use super::gradient::GradientCode;
use super::jit::Listing;
use super::peak;
use super::simd::Real;
use super::units::Units;
use super::work::{flops, work};
use crate::ir::{Graph, Lattice};
use crate::kernel::Program;
use crate::pass::flips::Family;
use crate::pass::flips::units::HiddenUnits;
use crate::run::{Background, Room, Spins, Strategy, Task, WaveFunction};
use num_complex::Complex64;
use std::sync::{Arc, OnceLock};

/// `log psi` of one network on one lattice in working precision `T`, and
/// everything derived from it.
pub struct CpuNetwork<T: Real> {
    full: Compiled<T>,
    gradient: GradientCode<T>,
    /// Compiled when local changes are asked for.
    clusters: Clusters<T>,
    /// Derived when a sweep is first asked for.
    environments: OnceLock<Result<Environments<T>, Refusal>>,
    /// Whether they are less work; the same for all parameters.
    environments_pay: OnceLock<bool>,
    /// The form of networks with hidden units.
    form: Option<HiddenUnits>,
    /// Their tables, made when local changes are asked for.
    units: OnceLock<Option<Units<T>>>,
    updates: Updates,
}

/// Work per proposal below which no environment of interest gets, in the units of
/// [`work`].
const CHEAPEST_ENVIRONMENT: f64 = 3e5;

/// How local changes are evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Updates {
    /// Whatever is estimated to be less work.
    #[default]
    Automatic,
    /// The flip program wherever there is one, environments elsewhere and for sweeps.
    Abacus,
    /// Full evaluation.
    Full,
}

/// What the ratios of local changes of a network come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalUpdates {
    /// Products over hidden units.
    HiddenUnits,
    /// Flip programs, where they pay.
    Programs,
    /// Full evaluation, and why.
    Full(String),
}

impl std::fmt::Display for LocalUpdates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LocalUpdates::HiddenUnits => f.write_str("products over hidden units"),
            LocalUpdates::Programs => f.write_str("flip programs"),
            LocalUpdates::Full(why) => write!(f, "full evaluation because of {why}"),
        }
    }
}

impl<T: Real> CpuNetwork<T> {
    /// Compiles a graph whose outputs are `[Re log psi]` or `[Re, Im]`.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn new(graph: Graph, lattice: Lattice, theta: &[f64]) -> Result<Self, CompileError> {
        let gradient = GradientCode::new(&graph, lattice, theta)?;
        let form = HiddenUnits::new(&graph).ok();
        let full = Compiled::new(graph, lattice, theta, false)?;
        Ok(CpuNetwork {
            clusters: Clusters::new(&full),
            environments: OnceLock::new(),
            environments_pay: OnceLock::new(),
            gradient,
            full,
            form,
            units: OnceLock::new(),
            updates: Updates::default(),
        })
    }

    /// Overrides how local changes are evaluated.
    pub fn set_updates(&mut self, updates: Updates) {
        self.updates = updates;
    }

    /// Works in the memory of a budget; results do not depend on it.
    ///
    /// # Errors
    /// A single configuration does not fit.
    pub fn work_within(&mut self, budget: &Arc<Budget>) -> Result<(), CompileError> {
        self.full.work_within(budget)?;
        self.gradient.work_within(budget)?;
        // made anew when asked for
        self.clusters = Clusters::new(&self.full);
        self.environments = OnceLock::new();
        self.environments_pay = OnceLock::new();
        Ok(())
    }

    /// The compiled program of single flips, or why they are evaluated in full.
    ///
    /// # Errors
    /// See [`FlipError`].
    pub fn flips(&self) -> Result<&Flips<T>, &FlipError> {
        self.clusters.singles(&self.full).map(Arc::as_ref)
    }

    /// How local changes are evaluated; compiles what that takes.
    pub fn local_updates(&self) -> LocalUpdates {
        match (self.updates, self.units(), self.flips()) {
            (Updates::Full, ..) => LocalUpdates::Full("the caller's wish".to_owned()),
            (_, Some(_), _) => LocalUpdates::HiddenUnits,
            (.., Ok(_)) => LocalUpdates::Programs,
            (.., Err(e)) => LocalUpdates::Full(e.to_string()),
        }
    }

    /// The tables of hidden units, if the network has that form.
    pub(super) fn units(&self) -> Option<&Units<T>> {
        let form = self.form.as_ref()?;
        let units = || Units::new(&self.full, form).ok();
        self.units.get_or_init(units).as_ref()
    }

    /// Whether changes are ever evaluated by a flip program.
    pub(super) fn updates_locally(&self) -> bool {
        self.updates != Updates::Full
    }

    /// Whether local updates are used whatever they cost.
    pub(super) fn wants_abacus(&self) -> bool {
        self.updates == Updates::Abacus
    }

    /// The program that pays for so many clusters of one configuration.
    pub(super) fn choose(&self, asked: &[(Family, usize)]) -> Option<Arc<Flips<T>>> {
        self.clusters.choose(&self.full, self.updates, asked)
    }

    /// Environments of the mixers, or why there are none.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn environments(&self) -> Result<&Environments<T>, &Refusal> {
        let new = || Environments::new(&self.full);
        self.environments.get_or_init(new).as_ref()
    }

    /// Environments, if a proposal costs less by them than by evaluating in full,
    /// or if they are asked for.
    pub(super) fn environments_if_they_pay(&self) -> Option<&Environments<T>> {
        let wanted = match self.updates {
            Updates::Automatic => *self.environments_pay.get_or_init(|| {
                let full = work(self.full.program());
                // deriving them only to find that they cannot pay costs more
                full > CHEAPEST_ENVIRONMENT && self.environments().is_ok_and(|e| e.work() < full)
            }),
            Updates::Abacus => true,
            Updates::Full => false,
        };
        wanted.then(|| self.environments().ok()).flatten()
    }

    /// Whether sequential sweeps go by environments; derives them if they may pay.
    pub fn sweeps_by_environments(&self) -> bool {
        self.environments_if_they_pay().is_some()
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

    /// Bytes of what depends on parameters alone, all threads together: of log psi, its
    /// gradient, and environments if they have been derived.
    pub fn constant_bytes(&self) -> usize {
        let environments = self.environments.get().and_then(|e| e.as_ref().ok());
        let environments = environments.map_or(0, Environments::constant_bytes);
        self.full.constant_bytes() + self.gradient.constant_bytes() + environments
    }

    /// Working memory per thread, for one sample and for more of them.
    pub fn memory(&self) -> Vec<Room> {
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
        let clusters = self.clusters.prepare(&self.full, theta)?;
        self.full.install(full);
        self.gradient.install(gradient);
        self.clusters.install(clusters);
        self.units = OnceLock::new();
        let used = self.updates == Updates::Abacus || self.environments_pay.get() == Some(&true);
        let follows = match self.environments.get_mut() {
            Some(Ok(environments)) if used => environments.set_params(&self.full).is_ok(),
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
    fn memory_limit(&self) -> Option<usize> {
        Some(self.full.budget().limit())
    }
    fn log_psi(&self, batch: &Spins, out: &mut [Complex64]) {
        self.full.evaluate(batch, out, &|value| {
            Complex64::new(value[0], value.get(1).copied().unwrap_or(0.0))
        });
    }
    fn gradients(&self, batch: &Spins, row: &(dyn Fn(usize, &[f64], &[f64]) + Sync)) {
        self.gradient.run(batch, row);
    }
    fn strategy(&self, task: Task) -> Strategy {
        let bytes = |c: &Compiled<T>| c.memory().first().map_or(0, |m| m.bytes);
        let tables = |c: &Compiled<T>| c.program().tables.is_some();
        let sites = self.lattice().sites();
        let full = flops(self.full.program());
        let (name, bytes, flops) = match task {
            Task::LogPsi if tables(&self.full) => ("tables", bytes(&self.full), full),
            Task::LogPsi => ("direct", bytes(&self.full), full),
            Task::Gradient => (
                "reverse",
                self.gradient.memory().bytes,
                self.gradient.flops(),
            ),
            Task::Flips => match (self.units(), self.choose(&[(Family::single(), sites)])) {
                (Some(units), _) => ("hidden units", units.bytes(), units.flops()),
                (_, Some(flips)) => ("flips", flips.bytes(), flips.flops()),
                _ => match self.environments_if_they_pay() {
                    Some(e) => (
                        "environments",
                        e.bytes(),
                        2.0 * e.products().total() * sites as f64,
                    ),
                    None => ("full", bytes(&self.full), full * (sites + 1) as f64),
                },
            },
            Task::Sweep => match self.environments() {
                Ok(e) => ("environments", e.bytes(), 2.0 * e.products().total()),
                Err(_) => ("full", bytes(&self.full), full),
            },
        };
        Strategy {
            name,
            bytes,
            flops,
            peak: peak::gflops::<T>(),
            traffic: f64::NAN,
        }
    }
    fn why_in_full(&self, task: Task) -> Option<String> {
        match task {
            Task::LogPsi | Task::Gradient => None,
            Task::Flips => match self.local_updates() {
                LocalUpdates::Full(why) => Some(why),
                _ => None,
            },
            Task::Sweep => self.environments().err().map(Refusal::to_string),
        }
    }
    fn room(&self, task: Task) -> Option<Room> {
        Some(match task {
            Task::LogPsi => *self.full.memory().last()?,
            Task::Gradient => self.gradient.memory(),
            Task::Flips | Task::Sweep => Room {
                samples: 1,
                bytes: self.strategy(task).bytes,
            },
        })
    }
    fn background<'a>(&'a self, spins: &Spins) -> Box<dyn Background + 'a> {
        Box::new(Updated::new(self, spins))
    }
    fn sweep(
        &self,
        spins: &mut Spins,
        reverse: bool,
        decide: &mut dyn FnMut(usize, Complex64) -> bool,
    ) -> Option<()> {
        self.environments_if_they_pay()?
            .sweep(&self.full, spins, reverse, decide);
        Some(())
    }
    fn sweep_by_environments(
        &self,
        spins: &mut Spins,
        reverse: bool,
        decide: &mut dyn FnMut(usize, Complex64) -> bool,
    ) -> Option<()> {
        let environments = self.environments().ok()?;
        environments.sweep(&self.full, spins, reverse, decide);
        Some(())
    }
}
