//! Local changes of many configurations by flip programs.
//!
//! One run of the flip program gives every configuration's pooled features and
//! their change by every cluster of its families; a second kernel adds them up to
//! one set of features per change asked for, in f64; the readout maps every set to
//! log psi; a last kernel adds up ratios.

use super::code::{Code, CudaError, Operands, Source, bytes_of};
use super::device::{Buffer, Device, DeviceError, Launch, Module, Stream, in_turns};
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
use std::ops::Range;
use std::sync::Arc;

/// The kernels written by hand, to follow the device library.
pub const LIBRARY: &str = include_str!("../../../kernels/flips.cuh");

/// Their names.
pub const KERNELS: [&str; 2] = ["flip_features", "flip_sums"];

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
    sums: Kernel,
    derived: Vec<Derived>,
    tokens: TokenLattice,
    token: Token,
    device: Arc<dyn Device>,
    module: Arc<dyn Module>,
}

/// Changes of some configurations. Of each the first set is the configuration
/// itself.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    /// The configuration of every set, and where its change begins.
    sets: Vec<[u32; 2]>,
    /// Elements of a sum.
    elements: Vec<Complex64>,
    /// Where the sets of every configuration begin.
    starts: Vec<usize>,
}

impl Sets {
    /// Begins the next configuration; `element` belongs to no change.
    pub fn begin(&mut self, element: Complex64) {
        self.starts.push(self.sets.len());
        let sample = self.starts.len() as u32 - 1;
        self.sets.push([sample, UNCHANGED]);
        self.elements.push(element);
    }

    /// Adds a change of the last configuration, by [`Flips::first`].
    pub fn push(&mut self, first: u32, element: Complex64) {
        let sample = self.starts.len() as u32 - 1;
        self.sets.push([sample, first]);
        self.elements.push(element);
    }

    /// The sets of some configurations.
    fn range(&self, samples: &Range<usize>) -> Range<usize> {
        let start = |k: usize| self.starts.get(k).copied().unwrap_or(self.sets.len());
        start(samples.start)..start(samples.end)
    }
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
        let [features, sums] = KERNELS.map(Kernel::by_hand);
        Ok(Flips {
            families: source.families,
            changes: code(source.changes, &extended)?,
            readout: code(source.readout, theta)?,
            features,
            sums,
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

    /// Where the change of a cluster begins, for [`Sets::push`].
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
        let samples = batch.len() / self.spins();
        let mut sets = Sets::default();
        for _ in 0..samples {
            sets.begin(Complex64::ZERO);
            firsts.iter().for_each(|&f| sets.push(f, Complex64::ZERO));
        }
        let width = self.readout.outputs();
        let mut out = out.chunks_exact_mut(self.spins());
        let start = |stream, samples: Range<usize>| {
            let lists = self.lists(stream, batch, &sets, &samples)?;
            Ok((self.log_psi(&lists)?, lists.sets))
        };
        self.in_parts(batch, &sets, start, |(log_psi, count)| {
            let values = log_psi.numbers(count * width)?;
            let value = |v: &[f64]| Complex64::new(v[0], v.get(1).copied().unwrap_or(0.0));
            let each = values.chunks_exact((self.spins() + 1) * width);
            for (values, out) in each.zip(&mut out) {
                let mut values = values.chunks_exact(width).map(value);
                let old = values.next().unwrap_or_default();
                out.iter_mut().zip(values).for_each(|(o, z)| *o = z - old);
            }
            Ok(())
        })
    }

    /// For every configuration the sum over its sets of `element psi(s') / psi(s)`.
    ///
    /// # Errors
    /// Too little memory, failures of the device.
    ///
    /// # Panics
    /// If `batch`, `sets` and `out` are of different numbers of configurations.
    pub fn sums(
        &self,
        batch: &[i8],
        sets: &Sets,
        out: &mut [Complex64],
    ) -> Result<(), DeviceError> {
        assert_eq!(out.len(), sets.starts.len(), "one sum per configuration");
        let start = |stream, samples: Range<usize>| {
            // copies first: they may wait for what the stream was asked for before
            let lists = self.lists(stream, batch, sets, &samples)?;
            let part = sets.range(&samples);
            let begin = |k: usize| (sets.range(&(k..k)).start - part.start) as u32;
            let mut list = vec![self.readout.outputs() as u32];
            list.extend((samples.start..=samples.end).map(begin));
            let list = Buffer::holding_on(&self.device, stream, &bytes_of(&list))?;
            let mut elements = vec![0; 16 * part.len()];
            for (bytes, z) in elements.chunks_exact_mut(16).zip(&sets.elements[part]) {
                bytes[..8].copy_from_slice(&z.re.to_ne_bytes());
                bytes[8..].copy_from_slice(&z.im.to_ne_bytes());
            }
            let elements = Buffer::holding_on(&self.device, stream, &elements)?;
            let sums = Buffer::on(&self.device, stream, 16 * samples.len())?;
            let log_psi = self.log_psi(&lists)?;
            let launch = Launch {
                samples: samples.len(),
                spins: list.span(),
                inputs: log_psi.span(),
                constants64: elements.span(),
                outputs: sums.span(),
                ..Launch::default()
            };
            // eight configurations per block
            let blocks = samples.len().div_ceil(8).min(self.device.blocks());
            self.module.launch_on(stream, &self.sums, blocks, &launch)?;
            Ok((samples, sums))
        };
        self.in_parts(batch, sets, start, |(samples, sums)| {
            let sums = sums.numbers(2 * samples.len())?;
            for (out, z) in out[samples].iter_mut().zip(sums.chunks_exact(2)) {
                *out = Complex64::new(z[0], z[1]);
            }
            Ok(())
        })
    }

    /// Configurations in parts that fit the device, as [`in_turns`] takes them.
    fn in_parts<T>(
        &self,
        batch: &[i8],
        sets: &Sets,
        start: impl FnMut(Stream, Range<usize>) -> Result<T, DeviceError>,
        finish: impl FnMut(T) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let samples = sets.starts.len();
        assert_eq!(batch.len(), samples * self.spins(), "whole configurations");
        let mut parts = self.parts_of(sets, 1);
        if parts.len() > 1 {
            parts = self.parts_of(sets, Stream::COUNT);
        }
        in_turns(&*self.device, parts.into_iter(), start, finish)
    }

    /// Configurations in parts of which so many fit the device at once.
    fn parts_of(&self, sets: &Sets, streams: usize) -> Vec<Range<usize>> {
        let samples = sets.starts.len();
        let (width, outputs) = (self.changes.outputs(), self.readout.outputs());
        // features and log psi twice: as results of one kernel, operands of the next
        let per_set = 8 * (width + outputs) + 8 + 16;
        let (per_sample, fixed) = self.changes.memory(samples);
        let fixed = streams * (fixed + self.readout.memory(sets.sets.len()).1);
        let budget = self.device.budget().saturating_sub(fixed) / streams;
        let results = self.changes.source.kernel.site_outputs;
        let longest = i32::MAX as usize;
        let mut parts = Vec::new();
        let mut from = 0;
        while from < samples {
            let fits = |to: usize| {
                let (configurations, sets) = (to - from, sets.range(&(from..to)).len());
                configurations * per_sample + sets * per_set <= budget
                    && sets <= PART
                    && configurations * results <= longest
                    && sets * width.max(2) <= longest
            };
            let mut to = from + 1;
            while to < samples && fits(to + 1) {
                to += 1;
            }
            parts.push(from..to);
            from = to;
        }
        parts
    }

    /// Copies what log psi of the sets of some configurations is computed from.
    fn lists(
        &self,
        stream: Stream,
        batch: &[i8],
        sets: &Sets,
        samples: &Range<usize>,
    ) -> Result<Lists, DeviceError> {
        let batch = &batch[samples.start * self.spins()..samples.end * self.spins()];
        let spins = super::code::spins(&self.device, stream, batch)?;
        let rows = self.changes.source.kernel.site_outputs;
        let mut list = vec![
            self.changes.outputs() as u32,
            rows as u32,
            self.tokens.count() as u32,
            0,
        ];
        let sets = &sets.sets[sets.range(samples)];
        let first = samples.start as u32;
        list.extend(sets.iter().flat_map(|s| [s[0] - first, s[1]]));
        Ok(Lists {
            samples: samples.len(),
            spins,
            sets: sets.len(),
            list: Buffer::holding_on(&self.device, stream, &bytes_of(&list))?,
        })
    }

    /// log psi of sets.
    fn log_psi(&self, lists: &Lists) -> Result<Buffer, DeviceError> {
        let stream = lists.list.stream();
        let operands = Operands {
            spins: lists.spins.span(),
            ..Operands::default()
        };
        let [background, changes] = self.changes.run(stream, lists.samples, operands)?;
        let width = self.changes.outputs();
        let features = Buffer::on(&self.device, stream, 8 * width * lists.sets)?;
        let launch = Launch {
            samples: lists.sets,
            spins: lists.list.span(),
            inputs: background.span(),
            constants: changes.span(),
            outputs: features.span(),
            ..Launch::default()
        };
        let blocks = (lists.sets * width).div_ceil(self.features.threads);
        let blocks = blocks.min(self.device.blocks());
        let kernel = &self.features;
        self.module.launch_on(stream, kernel, blocks, &launch)?;
        let operands = Operands {
            inputs: features.span(),
            ..Operands::default()
        };
        let [log_psi, _] = self.readout.run(stream, lists.sets, operands)?;
        Ok(log_psi)
    }
}

/// Some configurations and their sets on a device.
struct Lists {
    samples: usize,
    spins: Buffer,
    sets: usize,
    /// See `flip_features`.
    list: Buffer,
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
            all.extend(kernels.derived(d));
        }
    }
    Ok(all)
}
