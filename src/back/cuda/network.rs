//! A network on a device as a [`WaveFunction`].

use super::background::OnDevice;
use super::chains::Chains;
use super::clusters::{Clusters, Network};
use super::code::{Code, CudaError, Operands, Source, fitting, gradients_at_once, spins};
use super::device::{Buffer, Device, DeviceError, Module, in_turns};
use super::emit::Options;
use super::environment::{NoSweep, SweepSource, Sweeper};
use super::flips::{FlipError, Flips};
use super::linear::{DeviceRows, Linear, RowBuilder};
use super::peak;
use super::sums::Sums;
use super::typewriter::Typewriter;
use crate::back::cpu::gradient::{above, below, cut, values_at};
use crate::back::cpu::network::Updates;
use crate::back::cpu::work::work;
use crate::ir::{Graph, Lattice, NodeId};
use crate::pass::flips::Family;
use crate::run::changes::Changes;
use crate::run::rows::CentredRows;
use crate::run::values::Values;
use crate::run::walk::{Proposals, Screened, Tally, Walk};
use crate::run::{Background, GradientRow, Peak, Spins, Strategy, Task, WaveFunction};
use num_complex::Complex64;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

/// Kernels of log psi and its derivatives, before there is a device.
pub struct NetworkSource {
    full: Source,
    above: Source,
    below: Source,
    cut: Vec<NodeId>,
}

impl NetworkSource {
    /// Emits the kernels of a graph whose outputs are `[Re log psi]` or `[Re, Im]`.
    ///
    /// # Errors
    /// See [`CudaError`].
    pub fn new(graph: &Graph, lattice: Lattice, options: &Options) -> Result<Self, CudaError> {
        let cut = cut(graph);
        let first = graph.params.len();
        let inputs: Vec<u32> = (0..cut.len()).map(|k| (first + k) as u32).collect();
        let source =
            |name, graph, inputs: &[u32]| Source::new(name, graph, lattice, inputs, &[], options);
        Ok(NetworkSource {
            full: source("log_psi", graph.clone(), &[])?,
            above: source("gradient_sites", above(graph, &cut)?, &[])?,
            below: source("gradient_parameters", below(graph, &cut)?, &inputs)?,
            cut,
        })
    }

    /// The kernels: log psi, derivatives on sites, derivatives by parameters.
    pub fn sources(&self) -> [&Source; 3] {
        [&self.full, &self.above, &self.below]
    }
}

/// What is done with the derivatives of some samples, while they are on the device.
type More<'a> = &'a dyn Fn(&Range<usize>, &Buffer) -> Result<(), DeviceError>;

/// `log psi` of one network on one lattice on a device, and everything derived
/// from it. Kernels besides that of log psi are compiled when they are first needed.
pub struct CudaNetwork {
    device: Arc<dyn Device>,
    options: Options,
    full: Code,
    theta: Vec<f64>,
    /// What [`CudaNetwork::gradient`] is made of.
    derivatives: Mutex<Option<[Source; 2]>>,
    cut: Vec<NodeId>,
    gradient: OnceLock<Result<Gradient, DeviceError>>,
    linear: OnceLock<Result<Arc<Linear>, DeviceError>>,
    clusters: Clusters,
    sums: OnceLock<Result<Arc<Sums>, DeviceError>>,
    chains: OnceLock<Result<Chains, CudaError>>,
    typewriter: OnceLock<Result<Typewriter, DeviceError>>,
    /// Derived and compiled when a sweep is first asked for.
    sweeper: OnceLock<Result<Sweeper, NoSweep>>,
    updates: Updates,
}

/// Derivatives on sites, and from them those by parameters.
struct Gradient {
    above: Code,
    below: Code,
}

impl Gradient {
    /// What new parameters change, for [`Gradient::install`].
    fn prepare(
        &self,
        graph: &Graph,
        cut: &[NodeId],
        theta: &[f64],
    ) -> Result<[[Buffer; 2]; 2], CudaError> {
        let values = values_at(graph, cut, &self.below.source.program, theta)?;
        Ok([self.above.prepare(&values)?, self.below.prepare(theta)?])
    }

    /// As [`Code::counts`], for one configuration.
    fn counts(&self) -> (f64, f64) {
        let parts = (self.above.outputs() / self.below.inputs().max(1)).max(1) as f64;
        let [(a, x), (b, y)] = [self.above.counts(), self.below.counts()];
        (a + parts * b, x + parts * y)
    }

    fn install(&mut self, [above, below]: [[Buffer; 2]; 2]) {
        self.above.install(above);
        self.below.install(below);
    }
}

/// An error as one of the device.
fn as_device(e: impl std::fmt::Display) -> DeviceError {
    DeviceError::new(e.to_string())
}

impl CudaNetwork {
    /// Emits the kernels of a network, compiles and loads that of log psi.
    ///
    /// # Errors
    /// See [`CudaError`].
    pub fn new(
        device: Arc<dyn Device>,
        graph: &Graph,
        lattice: Lattice,
        theta: &[f64],
        options: &Options,
    ) -> Result<CudaNetwork, CudaError> {
        let source = NetworkSource::new(graph, lattice, options)?;
        let text = source.full.kernel.text.as_str();
        let module: Arc<dyn Module> = Arc::from(device.load_kernels(options.precision, &[text])?);
        Ok(CudaNetwork {
            full: Code::new(source.full, options.precision, &device, &module, theta)?,
            derivatives: Mutex::new(Some([source.above, source.below])),
            cut: source.cut,
            options: options.clone(),
            device: device.clone(),
            theta: theta.to_vec(),
            gradient: OnceLock::new(),
            linear: OnceLock::new(),
            clusters: Clusters::default(),
            sums: OnceLock::new(),
            chains: OnceLock::new(),
            typewriter: OnceLock::new(),
            sweeper: OnceLock::new(),
            updates: Updates::default(),
        })
    }

    /// The kernels of derivatives.
    fn gradient(&self) -> Result<&Gradient, DeviceError> {
        let make = || {
            let mut waiting = self.derivatives.lock().unwrap_or_else(|e| e.into_inner());
            let none = || DeviceError::new("the kernels of derivatives failed before");
            let [above, below] = waiting.take().ok_or_else(none)?;
            let (device, precision) = (&self.device, self.options.precision);
            let texts = [&above, &below].map(|s| s.kernel.text.as_str());
            let module: Arc<dyn Module> = Arc::from(device.load_kernels(precision, &texts)?);
            let values = values_at(self.graph(), &self.cut, &below.program, &self.theta);
            let values = values.map_err(as_device)?;
            let code = |source, theta: &[f64]| {
                Code::new(source, precision, device, &module, theta).map_err(as_device)
            };
            Ok(Gradient {
                above: code(above, &values)?,
                below: code(below, &self.theta)?,
            })
        };
        self.gradient
            .get_or_init(make)
            .as_ref()
            .map_err(Clone::clone)
    }

    /// The device it runs on.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// How sequential sweeps are made.
    pub fn set_updates(&mut self, updates: Updates) {
        self.updates = updates;
        self.sweeper = OnceLock::new();
    }

    /// The sweep by environments, or why sweeps are evaluated in full.
    pub fn sweeper(&self) -> Result<&Sweeper, &NoSweep> {
        let make = || {
            let full = &self.full.source;
            let source = SweepSource::new(full, &self.theta, &self.options)?;
            let (environments, full) = (source.work(), source.work_in_full());
            if self.updates != Updates::Abacus && environments >= full {
                return Err(NoSweep::Dear { full, environments });
            }
            Sweeper::new(&self.device, source, &self.theta)
        };
        self.sweeper.get_or_init(make).as_ref()
    }

    /// The kernels of local sums.
    pub(super) fn sums(&self) -> Result<&Arc<Sums>, DeviceError> {
        let make = || Sums::new(&self.device).map(Arc::new);
        self.sums.get_or_init(make).as_ref().map_err(Clone::clone)
    }

    /// log psi.
    pub(super) fn full(&self) -> &Code {
        &self.full
    }

    fn graph(&self) -> &Graph {
        &self.full.source.graph
    }

    /// As [`WaveFunction::set_params`], with the reason where the parameters
    /// define no wave function; the old ones then stay in force.
    ///
    /// # Errors
    /// See [`CudaError`].
    pub fn try_set_params(&mut self, theta: &[f64]) -> Result<(), CudaError> {
        // nothing changes unless everything can
        let full = self.full.prepare(theta)?;
        let gradient = match self.gradient.get() {
            Some(Ok(g)) => Some(g.prepare(self.graph(), &self.cut, theta)?),
            _ => None,
        };
        let clusters = self.clusters.prepare(self.network(theta))?;
        self.clusters.install(clusters);
        self.full.install(full);
        if let (Some(Ok(g)), Some(new)) = (self.gradient.get_mut(), gradient) {
            g.install(new);
        }
        self.theta = theta.to_vec();
        let follows = match self.sweeper.get_mut() {
            Some(Ok(sweeper)) => sweeper.set_params(theta).is_ok(),
            _ => false,
        };
        if !follows {
            // derived anew when asked for
            self.sweeper = OnceLock::new();
        }
        Ok(())
    }

    fn network<'a>(&'a self, theta: &'a [f64]) -> Network<'a> {
        Network {
            device: &self.device,
            graph: self.graph(),
            program: &self.full.source.program,
            theta,
            options: &self.options,
        }
    }

    /// The program of single flips, or why they are evaluated in full.
    pub fn flips(&self) -> Result<&Arc<Flips>, &FlipError> {
        self.clusters.singles(self.network(&self.theta))
    }

    /// The flip program if all single flips are better evaluated by it than so many
    /// one by one.
    pub(super) fn flips_for(&self, count: usize) -> Option<&Arc<Flips>> {
        let full = work(&self.full.source.program) * count as f64;
        let all = self.lattice().sites() as f64;
        self.flips().ok().filter(|f| f.work(all) < full)
    }

    /// The program for families of which so many clusters of `samples`
    /// configurations are asked for, if it is less work than full evaluation.
    pub fn flips_of(&self, samples: usize, asked: &[(Family, usize)]) -> Option<Arc<Flips>> {
        let network = self.network(&self.theta);
        self.clusters.choose(network, samples, asked)
    }

    /// As [`WaveFunction::walk`].
    ///
    /// # Errors
    /// No kernel, failures of the device; the chains are then as they were.
    pub fn try_walk(&self, chains: &mut Spins, walk: &Walk) -> Result<Tally, DeviceError> {
        if matches!(walk.proposals, Proposals::Sequential)
            && self.updates != Updates::Full
            && let Ok(sweeper) = self.sweeper()
        {
            let in_full = |chains: &mut [i8], walk: &Walk| self.walk_in_full(chains, walk);
            return sweeper.walk(&self.full, chains, walk, &in_full);
        }
        self.walk_in_full(chains, walk)
    }

    /// Sequential sweeps by environments, without global moves: what became of the
    /// chains, and for every spin `Re log psi(s')/psi(s)` of its flip in the last one.
    ///
    /// # Errors
    /// No such sweep, failures of the device.
    pub fn sweep_with_ratios(
        &self,
        chains: &mut Spins,
        walk: &Walk,
    ) -> Result<(Tally, Vec<f64>), DeviceError> {
        let sweeper = self
            .sweeper()
            .map_err(|e| DeviceError::new(e.to_string()))?;
        let (mut moved, mut ratios) = (chains.to_vec(), Vec::new());
        let tally = sweeper.sweep(&self.full, &mut moved, walk, Some(&mut ratios))?;
        chains.copy_from_slice(&moved);
        Ok((tally, ratios))
    }

    /// As [`CudaNetwork::try_walk`], evaluating every proposal in full.
    fn walk_in_full(&self, chains: &mut Spins, walk: &Walk) -> Result<Tally, DeviceError> {
        let make = || Chains::new(&self.device, &self.full.source, &self.options);
        match self.chains.get_or_init(make) {
            Ok(kernel) => kernel.walk(&self.full, chains, walk),
            Err(e) => Err(as_device(e)),
        }
    }

    /// As [`WaveFunction::log_psi`].
    ///
    /// # Errors
    /// Failures of the device.
    pub fn try_log_psi(&self, batch: &Spins, out: &mut [Complex64]) -> Result<(), DeviceError> {
        let sites = self.lattice().sites();
        assert_eq!(
            batch.len(),
            out.len() * sites,
            "one result per configuration"
        );
        let (at_once, width) = (self.full.at_once(out.len()), self.full.outputs());
        let pieces = batch.chunks(at_once * sites).zip(out.chunks_mut(at_once));
        in_turns(
            &*self.device,
            pieces,
            |stream, (batch, out)| {
                let spins = spins(&self.device, stream, batch)?;
                let operands = Operands {
                    spins: spins.span(),
                    ..Operands::default()
                };
                let [values, _] = self.full.run(stream, out.len(), operands)?;
                Ok((values, out))
            },
            |(values, out)| {
                let values = values.numbers(out.len() * width)?;
                for (out, v) in out.iter_mut().zip(values.chunks_exact(width)) {
                    *out = Complex64::new(v[0], v.get(1).copied().unwrap_or(0.0));
                }
                Ok(())
            },
        )
    }

    /// As [`WaveFunction::gradients`].
    ///
    /// # Errors
    /// Failures of the device.
    pub fn try_gradients(&self, batch: &Spins, row: GradientRow) -> Result<(), DeviceError> {
        let (parts, width) = (self.full.outputs(), self.gradient()?.below.outputs());
        self.gradient_chunks(batch, &|_, _| Ok(()), &mut |of, values| {
            let values = values.numbers(of.len() * parts * width)?;
            for (sample, all) in of.zip(values.chunks_exact((parts * width).max(1))) {
                let (re, im) = all.split_at(width);
                row(sample, re, im);
            }
            Ok(())
        })
    }

    /// Gradients of as many configurations at a time as fit the memory. `more` goes on
    /// with them on the device, `visit` takes them, both with the numbers of the
    /// configurations: [configuration, part, parameter].
    fn gradient_chunks(
        &self,
        batch: &Spins,
        more: More<'_>,
        visit: &mut dyn FnMut(Range<usize>, Buffer) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let sites = self.lattice().sites();
        assert!(batch.len().is_multiple_of(sites), "whole configurations");
        let count = batch.len() / sites;
        let parts = self.full.outputs();
        let Gradient { above, below } = self.gradient()?;
        let ((one, a), (part, b)) = (above.memory(count), below.memory(count * parts));
        let fit = fitting(self.device.budget(), count, (one + parts * part, a + b));
        let each = [above.at_once(count), below.at_once(count * parts)];
        let at_once = gradients_at_once(fit, each, parts);
        in_turns(
            &*self.device,
            batch.chunks(at_once * sites).enumerate(),
            |stream, (k, batch)| {
                let samples = batch.len() / sites;
                let of = k * at_once..k * at_once + samples;
                let spins = spins(&self.device, stream, batch)?;
                let operands = Operands {
                    spins: spins.span(),
                    ..Operands::default()
                };
                let [inner, _] = above.run(stream, samples, operands)?;
                let operands = Operands {
                    inputs: inner.span(),
                    ..Operands::default()
                };
                let [values, _] = below.run(stream, samples * parts, operands)?;
                more(&of, &values)?;
                Ok((of, values))
            },
            |(of, values)| visit(of, values),
        )
    }

    /// As [`WaveFunction::centred_rows`]; `None` where they do not fit the memory
    /// beside the equations to be solved.
    ///
    /// # Errors
    /// Failures of the device.
    pub fn try_centred_rows(
        &self,
        batch: &Spins,
        weights: &[f64],
    ) -> Result<Option<DeviceRows>, DeviceError> {
        let (parts, params) = (self.full.outputs(), self.theta.len());
        let rows = weights.len() * parts;
        let equations = rows.max(1).min(params);
        let bytes = rows
            .checked_mul(params)
            .and_then(|n| n.checked_add(equations * equations));
        // what the solver keeps serves again
        let kept = self.linear.get().and_then(|l| l.as_ref().ok());
        let room = self.device.budget() + kept.map_or(0, |l| l.kept());
        let fits = bytes.is_some_and(|n| n <= room / 8);
        if !fits || params == 0 || params != self.gradient()?.below.outputs() {
            return Ok(None);
        }
        let make = || Linear::new(&self.device).map(Arc::new);
        let linear = self.linear.get_or_init(make).as_ref();
        let linear = linear.map_err(Clone::clone)?;
        let builder = RowBuilder::new(linear, weights.len(), parts, params)?;
        let place = |of: &Range<usize>, values: &Buffer| builder.place(of, values);
        self.gradient_chunks(batch, &place, &mut |_, _| Ok(()))?;
        builder.centre(weights).map(Some)
    }
}

/// Work that is not counted.
const UNCOUNTED: (f64, f64) = (f64::NAN, f64::NAN);

impl CudaNetwork {
    /// A device that fails leaves no numbers: everything becomes NaN, which samplers
    /// and optimisers refuse, and the device remembers why.
    pub(super) fn report(&self, e: &DeviceError) {
        self.device.report(e);
    }
}

pub(super) const UNKNOWN: Complex64 = Complex64::new(f64::NAN, f64::NAN);

impl WaveFunction for CudaNetwork {
    fn lattice(&self) -> Lattice {
        self.full.source.program.lattice
    }
    fn param_count(&self) -> usize {
        self.theta.len()
    }
    fn is_complex(&self) -> bool {
        self.full.outputs() > 1
    }
    fn set_params(&mut self, theta: &[f64]) {
        match self.try_set_params(theta) {
            Ok(()) => {}
            Err(CudaError::Device(e)) => self.report(&e),
            Err(e) => tracing::warn!("parameters rejected: {e}"),
        }
    }
    fn params(&self) -> &[f64] {
        &self.theta
    }
    fn log_psi(&self, batch: &Spins, out: &mut [Complex64]) {
        if let Err(e) = self.try_log_psi(batch, out) {
            self.report(&e);
            out.fill(UNKNOWN);
        }
    }
    fn gradients(&self, batch: &Spins, row: GradientRow) {
        if let Err(e) = self.try_gradients(batch, row) {
            self.report(&e);
            let unknown = vec![f64::NAN; self.theta.len()];
            let im = if self.is_complex() { &unknown[..] } else { &[] };
            for sample in 0..batch.len() / self.lattice().sites() {
                row(sample, &unknown, im);
            }
        }
    }
    fn centred_rows(&self, batch: &Spins, weights: &[f64]) -> Option<Box<dyn CentredRows>> {
        match self.try_centred_rows(batch, weights) {
            Ok(rows) => rows.map(|rows| -> Box<dyn CentredRows> { Box::new(rows) }),
            Err(e) => {
                self.report(&e);
                None
            }
        }
    }
    fn strategy(&self, task: Task) -> Strategy {
        let own = match task {
            Task::Sweep => self.sweeper().ok(),
            _ => None,
        };
        let name = match (task, own) {
            (Task::Sweep, Some(_)) => "environments",
            (Task::Sweep, None) => "full",
            _ => "device",
        };
        let (flops, traffic) = match (task, own) {
            (Task::Sweep, Some(s)) => (2.0 * s.products(), f64::NAN),
            (Task::Sweep | Task::LogPsi, _) => self.full.counts(),
            (Task::Gradient, _) => self.gradient().map_or(UNCOUNTED, Gradient::counts),
            (Task::Flips, _) => self.flips().map_or(UNCOUNTED, |f| f.counts()),
        };
        Strategy {
            name,
            bytes: own.map_or(0, Sweeper::bytes),
            flops,
            peak: f64::NAN,
            traffic,
        }
    }
    fn peak(&self) -> Option<Peak> {
        peak::measure(&self.device, self.options.precision)
            .inspect_err(|e| self.report(e))
            .ok()
    }
    fn failure(&self) -> Option<String> {
        self.device.failure().map(|e| e.to_string())
    }
    fn why_in_full(&self, task: Task) -> Option<String> {
        match task {
            Task::Sweep => self.sweeper().err().map(NoSweep::to_string),
            _ => Some("this back end evaluates everything in full".to_owned()),
        }
    }
    fn background<'a>(&'a self, spins: &Spins) -> Box<dyn Background + 'a> {
        Box::new(OnDevice::new(self, spins))
    }
    fn sweep(
        &self,
        _spins: &mut Spins,
        _reverse: bool,
        _decide: &mut dyn FnMut(usize, Complex64) -> bool,
    ) -> Option<()> {
        None
    }
    fn has_local_sums(&self) -> bool {
        true
    }
    fn local_sums(&self, batch: &Spins, changes: &Arc<Changes>) -> Option<Box<dyn Values>> {
        let values = (self.try_local_sums(batch, changes)).inspect_err(|e| self.report(e));
        Some(Box::new(values.ok()?))
    }
    fn moves_chains(&self) -> bool {
        true
    }
    fn typewriter(
        &self,
        chains: &mut Spins,
        walk: &Walk,
        errors: &mut [f64],
    ) -> Option<(Tally, Screened)> {
        let make = || {
            let source = self.network(&self.theta).source(&[Family::single()]);
            let source = source.map_err(as_device)?;
            Typewriter::new(&self.device, &source, &self.options).map_err(as_device)
        };
        if self.typewriter.get().is_none() {
            // two long compilations at once
            std::thread::scope(|threads| {
                threads.spawn(|| self.typewriter.get_or_init(make));
                self.flips().is_ok()
            });
        }
        // without a flip program every ratio is two full evaluations
        let flips = self.flips().ok()?;
        let done = match self.typewriter.get_or_init(make) {
            Ok(kernel) => kernel.walk(flips, chains, walk, errors),
            Err(e) => Err(e.clone()),
        };
        done.inspect_err(|e| self.report(e)).ok()
    }
    fn walk(&self, chains: &mut Spins, walk: &Walk) -> Option<Tally> {
        if matches!(walk.proposals, Proposals::Typewriter { .. }) {
            return None;
        }
        self.try_walk(chains, walk)
            .inspect_err(|e| self.report(e))
            .ok()
    }
}
