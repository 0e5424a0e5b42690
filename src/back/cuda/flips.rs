//! Local changes of many configurations by flip programs.
//!
//! One run of the flip program gives every configuration's pooled features and
//! their change by every cluster of its families; a second kernel adds them up to
//! one set of features per change asked for, in f64; the readout maps every set to
//! log psi.

use super::code::{Code, CudaError, Operands, Source, bytes_of};
use super::device::{Buffer, Device, DeviceError, Launch, Module, Span, Stream, in_turns};
use super::emit::{Kernel, Options};
use crate::back::cpu::compiled::CompileError;
use crate::back::cpu::flips::Place;
use crate::back::cpu::kernels::Kernels;
use crate::back::cpu::work::work;
use crate::check::core::Token;
use crate::interp::TokenLattice;
use crate::ir::{Graph, Lattice};
use crate::kernel::Program;
use crate::pass::flips::{Derived, Family, FlipProgram, NoFlips, common_token};
use crate::pass::normal_form::NormalForm;
use num_complex::Complex64;
use std::sync::Arc;

/// The kernels written by hand, to follow the device library.
pub const LIBRARY: &str = include_str!("../../../kernels/flips.cuh");

/// Their names.
pub const KERNELS: [&str; 1] = ["flip_features"];

/// Sets of a part at most: enough to fill any device, few enough that one part is
/// copied there while another one is computed.
const PART: usize = 1 << 20;

/// In place of where a change is: none.
const UNCHANGED: u32 = u32::MAX;

/// Why flips of a network are evaluated in full.
#[derive(Debug, thiserror::Error)]
pub enum FlipError {
    /// No flip program exists.
    #[error(transparent)]
    Derivation(#[from] NoFlips),
    /// It cannot run on the device.
    #[error(transparent)]
    Cuda(#[from] CudaError),
}

/// A flip program's kernels, before there is a device.
pub struct FlipSource {
    families: Vec<Family>,
    changes: Source,
    readout: Source,
    derived: Vec<Derived>,
    tokens: TokenLattice,
    token: Token,
    options: Options,
}

/// The flip program of one network for some families of clusters on a device.
pub struct Flips {
    families: Vec<Family>,
    changes: Code,
    readout: Code,
    features: Kernel,
    derived: Vec<Derived>,
    tokens: TokenLattice,
    token: Token,
    device: Arc<dyn Device>,
    module: Arc<dyn Module>,
}

impl FlipSource {
    /// Derives the program of some families and emits its kernels.
    ///
    /// # Errors
    /// See [`FlipError`].
    pub fn new(
        graph: &Graph,
        lattice: Lattice,
        families: &[Family],
        options: &Options,
    ) -> Result<FlipSource, FlipError> {
        let form = NormalForm::new(graph).map_err(NoFlips::from)?;
        let token = common_token(graph, &form)?;
        let shapes: Vec<_> = families.iter().flat_map(|f| f.shapes(token)).collect();
        let program = FlipProgram::new(graph, lattice, &shapes)?;
        let tokens = TokenLattice::new(lattice, program.token)
            .map_err(|e| CudaError::Compile(CompileError::Lower(e.into())))?;
        let sites: Vec<_> = program.changes.iter().flatten().copied().collect();
        let changes = Source::new("flip_changes", program.graph, lattice, &[], &sites, options)?;
        let readout = Source::new(
            "flip_readout",
            program.readout,
            lattice,
            &program.inputs,
            &[],
            options,
        )?;
        Ok(FlipSource {
            families: families.to_vec(),
            changes,
            readout,
            derived: program.derived,
            tokens,
            token: program.token,
            options: options.clone(),
        })
    }

    /// The texts of its kernels, to follow the device library.
    pub fn texts(&self) -> [&str; 3] {
        let emitted = [&self.changes, &self.readout];
        let [changes, readout] = emitted.map(|s| s.kernel.text.as_str());
        [changes, readout, LIBRARY]
    }

    /// The program of changes and the readout.
    pub(super) fn parts(&self) -> [&Source; 2] {
        [&self.changes, &self.readout]
    }

    /// Estimated work for one configuration and so many of its changes, in the
    /// units of [`work`].
    pub fn work(&self, changes: f64) -> f64 {
        work(&self.changes.program) + work(&self.readout.program) * changes
    }
}

impl Flips {
    /// Puts a flip program on a device; `network` and `theta` are those of log psi.
    ///
    /// # Errors
    /// See [`CudaError`].
    pub fn new(
        source: FlipSource,
        device: &Arc<dyn Device>,
        (graph, program): (&Graph, &Program),
        theta: &[f64],
    ) -> Result<Flips, CudaError> {
        let module: Arc<dyn Module> =
            Arc::from(device.load_kernels(source.options.precision, &source.texts())?);
        let extended = extended(graph, program, theta, &source.derived)?;
        let precision = source.options.precision;
        let code = |source, theta: &[f64]| Code::new(source, precision, device, &module, theta);
        let [features] = KERNELS.map(Kernel::by_hand);
        Ok(Flips {
            families: source.families,
            changes: code(source.changes, &extended)?,
            readout: code(source.readout, theta)?,
            features,
            derived: source.derived,
            tokens: source.tokens,
            token: source.token,
            device: device.clone(),
            module: module.clone(),
        })
    }

    /// What new parameters of the network change, for [`Flips::install`].
    ///
    /// # Errors
    /// See [`CudaError`].
    pub fn prepare(
        &self,
        (graph, program): (&Graph, &Program),
        theta: &[f64],
    ) -> Result<[[Buffer; 2]; 2], CudaError> {
        let extended = extended(graph, program, theta, &self.derived)?;
        let changes = self.changes.prepare(&extended)?;
        Ok([changes, self.readout.prepare(theta)?])
    }

    /// Puts prepared parameters in force.
    pub fn install(&mut self, [changes, readout]: [[Buffer; 2]; 2]) {
        self.changes.install(changes);
        self.readout.install(readout);
    }

    /// The families it knows.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// The program of changes and the readout.
    pub(super) fn parts(&self) -> [&Code; 2] {
        [&self.changes, &self.readout]
    }

    /// Tokens of the lattice.
    pub(super) fn tokens(&self) -> usize {
        self.tokens.count()
    }

    /// Estimated work for one configuration and so many of its changes, in the
    /// units of [`work`].
    pub fn work(&self, changes: f64) -> f64 {
        let each = work(&self.readout.source.program);
        work(&self.changes.source.program) + each * changes
    }

    /// As [`Code::counts`], for one configuration and all its single flips: the program
    /// of changes; then, per set, its place in the list and its element, written and
    /// read, its features gathered, written and read, log psi likewise.
    pub fn counts(&self) -> (f64, f64) {
        let [(a, x), (b, y)] = [&self.changes, &self.readout].map(Code::counts);
        let width = self.changes.outputs();
        let change = self.changes.site_bytes() / self.changes.source.kernel.site_outputs.max(1);
        let sets = (self.spins() + 1) as f64;
        let each = 2 * 24 + width * (8 + change) + 8 * width + 8 * self.readout.outputs();
        (a + sets * (b + width as f64), x + sets * (y + each as f64))
    }

    /// Where the change of a cluster begins, as a list of sets has it.
    pub fn first(&self, place: Place) -> u32 {
        let [nx, ny] = self.token.0;
        let columns = self.tokens.extent[1] * ny;
        let [x, y] = [place.corner / columns, place.corner % columns];
        let shape = place.family * nx * ny + x % nx * ny + y % ny;
        let site = self.tokens.site([x / nx, y / ny]);
        (shape * self.changes.outputs() * self.tokens.count() + site) as u32
    }

    fn spins(&self) -> usize {
        self.changes.source.program.lattice.sites()
    }

    /// `log psi(s') - log psi(s)` for every single-spin flip of every
    /// configuration, in site order.
    ///
    /// # Errors
    /// Too little memory, failures of the device.
    ///
    /// # Panics
    /// If `out` does not have one entry per spin of the batch, or single flips are
    /// not the first family.
    pub fn ratios(&self, batch: &[i8], out: &mut [Complex64]) -> Result<(), DeviceError> {
        assert_eq!(out.len(), batch.len(), "one ratio per spin");
        assert_eq!(self.families[0], Family::single(), "single flips");
        let family = 0;
        let places = (0..self.spins()).map(|corner| Place { family, corner });
        let firsts: Vec<u32> = places.map(|p| self.first(p)).collect();
        let (samples, width) = (batch.len() / self.spins(), self.readout.outputs());
        let at_once = self.at_once(samples, self.spins() + 1);
        let pieces = batch
            .chunks(at_once * self.spins())
            .zip(out.chunks_mut(at_once * self.spins()));
        let start = |stream, (batch, out): (&[i8], _)| {
            let samples = batch.len() / self.spins();
            let spins = super::code::spins(&self.device, stream, batch)?;
            let set = |k: usize| {
                let all = std::iter::once(UNCHANGED).chain(firsts.iter().copied());
                all.flat_map(move |first| [k as u32, first])
            };
            let list: Vec<u32> = (0..samples).flat_map(set).collect();
            let count = list.len() / 2;
            let list = Buffer::holding_on(&self.device, stream, &bytes_of(&list))?;
            let sets = (count, list.span());
            let log_psi = self.log_psi(stream, (samples, spins.span()), sets)?;
            Ok((log_psi, count, out))
        };
        in_turns(
            &*self.device,
            pieces,
            start,
            |(log_psi, count, out): (Buffer, usize, &mut [Complex64])| {
                let values = log_psi.numbers(count * width)?;
                let value = |v: &[f64]| Complex64::new(v[0], v.get(1).copied().unwrap_or(0.0));
                let each = values.chunks_exact((self.spins() + 1) * width);
                for (values, out) in each.zip(out.chunks_exact_mut(self.spins())) {
                    let mut values = values.chunks_exact(width).map(value);
                    let old = values.next().unwrap_or_default();
                    out.iter_mut().zip(values).for_each(|(o, z)| *o = z - old);
                }
                Ok(())
            },
        )
    }

    /// Results per set.
    pub(super) fn outputs(&self) -> usize {
        self.readout.outputs()
    }

    /// Of so many configurations, each of at most so many sets, how many to take at
    /// once: all of them, or as many as may come in pieces on all streams.
    pub(super) fn at_once(&self, samples: usize, sets: usize) -> usize {
        let (width, outputs) = (self.changes.outputs(), self.readout.outputs());
        // features and log psi, the set and its element
        let per_set = 8 * (width + outputs) + 8 + 16;
        let (per_sample, fixed) = self.changes.memory(samples);
        let fixed = fixed + self.readout.memory(sets * samples).1;
        let each = per_sample + 8 + sets * per_set;
        let results = self.changes.source.kernel.site_outputs;
        let longest = results.max(sets * width.max(2)).max(1);
        let fit = |streams: usize| {
            let memory = self.device.budget().saturating_sub(streams * fixed) / (streams * each);
            memory.min(PART / sets).min(i32::MAX as usize / longest)
        };
        let at_once = match fit(1) {
            all if all >= samples => all,
            _ => fit(Stream::COUNT),
        };
        at_once.clamp(1, samples.max(1))
    }

    /// log psi of sets of some configurations: how many and where, each; a list has the
    /// number of its configuration and [`Flips::first`] of every set.
    pub(super) fn log_psi(
        &self,
        stream: Stream,
        (samples, spins): (usize, Span),
        (sets, list): (usize, Span),
    ) -> Result<Buffer, DeviceError> {
        let operands = Operands {
            spins,
            ..Operands::default()
        };
        let [background, changes] = self.changes.run(stream, samples, operands)?;
        let width = self.changes.outputs();
        let features = Buffer::on(&self.device, stream, 8 * width * sets)?;
        let rows = self.changes.source.kernel.site_outputs;
        let size = |n: usize| {
            i32::try_from(n).map_err(|_| DeviceError::new("too many changes for the GPU"))
        };
        let launch = Launch {
            samples: sets,
            sizes: [size(width)?, size(rows)?, size(self.tokens.count())?, 0],
            spins: list,
            inputs: background.span(),
            constants: changes.span(),
            outputs: features.span(),
            ..Launch::default()
        };
        size(sets)?;
        let blocks = (sets * width).div_ceil(self.features.threads);
        let blocks = blocks.min(self.device.blocks());
        let kernel = &self.features;
        self.module.launch_on(stream, kernel, blocks, &launch)?;
        let operands = Operands {
            inputs: features.span(),
            ..Operands::default()
        };
        let [log_psi, _] = self.readout.run(stream, sets, operands)?;
        Ok(log_psi)
    }
}

/// The network's parameters, then the derived ones.
fn extended(
    graph: &Graph,
    program: &Program,
    theta: &[f64],
    derived: &[Derived],
) -> Result<Vec<f64>, CudaError> {
    let mut all = theta.to_vec();
    if !derived.is_empty() {
        let kernels = Kernels::new(graph, program, theta)?;
        for d in derived {
            all.extend(kernels.derived(d)?);
        }
    }
    Ok(all)
}
