//! A network on a device as a [`WaveFunction`].

use super::chains::Chains;
use super::clusters::{Clusters, Network};
use super::code::{Code, CudaError, Operands, Source, spins};
use super::device::{Buffer, Device, DeviceError, Module};
use super::emit::Options;
use super::environment::{NoSweep, SweepSource, Sweeper};
use super::flips::{FlipError, Flips};
use super::linear::{DeviceRows, Linear, RowBuilder};
use super::translation_unit;
use super::typewriter::Typewriter;
use crate::back::cpu::gradient::{above, below, cut, values_at};
use crate::back::cpu::network::Updates;
use crate::back::cpu::work::work;
use crate::ir::{Graph, Lattice, NodeId};
use crate::pass::flips::Family;
use crate::run::rows::CentredRows;
use crate::run::terms::Terms;
use crate::run::walk::{Proposals, Screened, Tally, Walk};
use crate::run::{Background, GradientRow, Spins, Strategy, Task, WaveFunction};
use num_complex::Complex64;
use std::sync::{Arc, OnceLock};

/// Terms of local sums given at once: enough to fill any device, few enough for the
/// host's memory.
const TERMS: usize = 1 << 22;

/// Kernels of log psi and its derivatives, before there is a device.
pub struct NetworkSource {
    full: Source,
    above: Source,
    below: Source,
    cut: Vec<NodeId>,
    options: Options,
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
            options: options.clone(),
        })
    }

    /// The kernels: log psi, derivatives on sites, derivatives by parameters.
    pub fn sources(&self) -> [&Source; 3] {
        [&self.full, &self.above, &self.below]
    }

    /// The translation unit.
    pub fn text(&self) -> String {
        let texts = self.sources().map(|s| s.kernel.text.as_str());
        translation_unit(self.options.precision, texts.into_iter())
    }
}

/// `log psi` of one network on one lattice on a device, and everything derived
/// from it.
pub struct CudaNetwork {
    device: Arc<dyn Device>,
    options: Options,
    full: Code,
    above: Code,
    below: Code,
    cut: Vec<NodeId>,
    theta: Vec<f64>,
    /// Compiled when local changes are first asked for.
    /// Compiled when an optimiser first asks for it.
    linear: OnceLock<Result<Arc<Linear>, DeviceError>>,
    clusters: Clusters,
    /// Compiled when chains are first moved.
    chains: OnceLock<Result<Chains, CudaError>>,
    typewriter: OnceLock<Result<Typewriter, DeviceError>>,
    /// Derived and compiled when a sweep is first asked for.
    sweeper: OnceLock<Result<Sweeper, NoSweep>>,
    updates: Updates,
}

impl CudaNetwork {
    /// Emits, compiles and loads the kernels of a network.
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
        let texts = source.sources().map(|s| s.kernel.text.as_str());
        let module: Arc<dyn Module> = Arc::from(device.load_kernels(options.precision, &texts)?);
        let values = values_at(graph, &source.cut, &source.below.program, theta)?;
        let code =
            |source, theta: &[f64]| Code::new(source, options.precision, &device, &module, theta);
        Ok(CudaNetwork {
            full: code(source.full, theta)?,
            above: code(source.above, &values)?,
            below: code(source.below, theta)?,
            cut: source.cut,
            options: options.clone(),
            device: device.clone(),
            theta: theta.to_vec(),
            linear: OnceLock::new(),
            clusters: Clusters::default(),
            chains: OnceLock::new(),
            typewriter: OnceLock::new(),
            sweeper: OnceLock::new(),
            updates: Updates::default(),
        })
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
            let (environments, full) = (source.work(), work(&full.program));
            if self.updates != Updates::Abacus && environments >= full {
                return Err(NoSweep::Dear { full, environments });
            }
            Sweeper::new(&self.device, source, &self.theta)
        };
        self.sweeper.get_or_init(make).as_ref()
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
        let values = values_at(self.graph(), &self.cut, &self.below.source.program, theta)?;
        let (above, below) = (self.above.prepare(&values)?, self.below.prepare(theta)?);
        let clusters = self.clusters.prepare(self.network(theta))?;
        self.clusters.install(clusters);
        self.full.install(full);
        self.above.install(above);
        self.below.install(below);
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
    fn flips_for(&self, count: usize) -> Option<&Arc<Flips>> {
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
            Err(e) => Err(DeviceError::new(e.to_string())),
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
        let at_once = self.full.at_once(out.len());
        for (batch, out) in batch.chunks(at_once * sites).zip(out.chunks_mut(at_once)) {
            let spins = spins(&self.device, batch)?;
            let operands = Operands {
                spins: spins.span(),
                ..Operands::default()
            };
            let [values, _] = self.full.run(out.len(), operands)?;
            let width = self.full.outputs();
            let values = values.numbers(out.len() * width)?;
            for (out, v) in out.iter_mut().zip(values.chunks_exact(width)) {
                *out = Complex64::new(v[0], v.get(1).copied().unwrap_or(0.0));
            }
        }
        Ok(())
    }

    /// As [`WaveFunction::gradients`].
    ///
    /// # Errors
    /// Failures of the device.
    pub fn try_gradients(&self, batch: &Spins, row: GradientRow) -> Result<(), DeviceError> {
        let (parts, width) = (self.full.outputs(), self.below.outputs());
        self.gradient_chunks(batch, &mut |start, samples, values| {
            let values = values.numbers(samples * parts * width)?;
            for sample in 0..samples {
                let all = &values[sample * parts * width..(sample + 1) * parts * width];
                let (re, im) = all.split_at(width);
                row(start + sample, re, im);
            }
            Ok(())
        })
    }

    /// Gradients of as many configurations at a time as fit the memory: the first
    /// one, how many, and [configuration, part, parameter] on the device.
    fn gradient_chunks(
        &self,
        batch: &Spins,
        visit: &mut dyn FnMut(usize, usize, &Buffer) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let sites = self.lattice().sites();
        assert!(batch.len().is_multiple_of(sites), "whole configurations");
        let count = batch.len() / sites;
        let parts = self.full.outputs();
        let (above, a) = self.above.memory(count);
        let (below, b) = self.below.memory(count * parts);
        let fit = self.device.budget().saturating_sub(a + b) / (above + parts * below).max(1);
        let at_once = fit.clamp(1, self.above.at_once(count));
        for (k, batch) in batch.chunks(at_once * sites).enumerate() {
            let samples = batch.len() / sites;
            let spins = spins(&self.device, batch)?;
            let operands = Operands {
                spins: spins.span(),
                ..Operands::default()
            };
            let [inner, _] = self.above.run(samples, operands)?;
            let operands = Operands {
                inputs: inner.span(),
                ..Operands::default()
            };
            let [values, _] = self.below.run(samples * parts, operands)?;
            visit(k * at_once, samples, &values)?;
        }
        Ok(())
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
        let fits = bytes.is_some_and(|n| n <= self.device.budget() / 8);
        if !fits || params == 0 || params != self.below.outputs() {
            return Ok(None);
        }
        let make = || Linear::new(&self.device).map(Arc::new);
        let linear = self.linear.get_or_init(make).as_ref();
        let linear = linear.map_err(Clone::clone)?;
        let builder = RowBuilder::new(linear, weights.len(), parts, params)?;
        self.gradient_chunks(batch, &mut |start, samples, values| {
            builder.place(start, samples, values.span())
        })?;
        builder.centre(weights).map(Some)
    }
}

/// A device that fails leaves no numbers: everything becomes NaN, which samplers
/// and optimisers refuse.
fn report(e: &DeviceError) {
    tracing::error!("the device failed: {e}");
}

const UNKNOWN: Complex64 = Complex64::new(f64::NAN, f64::NAN);

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
        if let Err(e) = self.try_set_params(theta) {
            tracing::warn!("parameters rejected: {e}");
        }
    }
    fn params(&self) -> &[f64] {
        &self.theta
    }
    fn log_psi(&self, batch: &Spins, out: &mut [Complex64]) {
        if let Err(e) = self.try_log_psi(batch, out) {
            report(&e);
            out.fill(UNKNOWN);
        }
    }
    fn gradients(&self, batch: &Spins, row: GradientRow) {
        if let Err(e) = self.try_gradients(batch, row) {
            report(&e);
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
                report(&e);
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
        Strategy {
            name,
            bytes: own.map_or(0, Sweeper::bytes),
            flops: own.map_or(f64::NAN, |s| 2.0 * s.products()),
            peak: f64::NAN,
        }
    }
    fn why_in_full(&self, task: Task) -> Option<String> {
        match task {
            Task::Sweep => self.sweeper().err().map(NoSweep::to_string),
            _ => Some("this back end evaluates everything in full".to_owned()),
        }
    }
    fn background<'a>(&'a self, spins: &Spins) -> Box<dyn Background + 'a> {
        let mut log_psi = [UNKNOWN];
        self.log_psi(spins, &mut log_psi);
        Box::new(OnDevice {
            network: self,
            spins: spins.to_vec(),
            log_psi: log_psi[0],
            asked: 0,
            ratios: Vec::new(),
        })
    }
    fn sweep(
        &self,
        _spins: &mut Spins,
        _reverse: bool,
        _decide: &mut dyn FnMut(usize, Complex64) -> bool,
    ) -> Option<()> {
        None
    }
    fn terms_at_once(&self) -> Option<usize> {
        Some(TERMS)
    }
    fn local_sums(&self, batch: &Spins, terms: &[Terms], out: &mut [Complex64]) -> Option<()> {
        (self.try_local_sums(batch, terms, out))
            .inspect_err(report)
            .ok()
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
        // without a flip program every ratio is two full evaluations
        let flips = self.flips().ok()?;
        let make = || {
            let source = self.network(&self.theta).source(&[Family::single()]);
            let source = source.map_err(|e| DeviceError::new(e.to_string()))?;
            let made = Typewriter::new(&self.device, &source, &self.options);
            made.map_err(|e| DeviceError::new(e.to_string()))
        };
        let done = match self.typewriter.get_or_init(make) {
            Ok(kernel) => kernel.walk(flips, chains, walk, errors),
            Err(e) => Err(e.clone()),
        };
        done.inspect_err(report).ok()
    }
    fn walk(&self, chains: &mut Spins, walk: &Walk) -> Option<Tally> {
        if matches!(walk.proposals, Proposals::Typewriter { .. }) {
            return None;
        }
        self.try_walk(chains, walk).inspect_err(report).ok()
    }
}

/// One configuration: single flips from one run of the flip program once enough
/// were asked for to pay for it, everything else in full.
struct OnDevice<'a> {
    network: &'a CudaNetwork,
    spins: Vec<i8>,
    log_psi: Complex64,
    /// Single flips evaluated one by one so far.
    asked: usize,
    /// All single flips, once known.
    ratios: Vec<Complex64>,
}

impl OnDevice<'_> {
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
                    Err(e) => report(&e),
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
