//! All single flips of a batch of configurations.
//!
//! One run of the flip program gives every configuration's pooled features and
//! their change per flip; a second kernel adds them up to one set of features per
//! flip, in f64; the readout maps every set to log psi.

use super::ast::{Expr, Module as Tree, Phase, Stmt, Type};
use super::code::{Code, CudaError, Operands, Source};
use super::device::{Buffer, Device, DeviceError, Launch, Module};
use super::emit::{Kernel, Options};
use super::index::Positions;
use super::names::Comment;
use super::print::print;
use crate::back::cpu::compiled::CompileError;
use crate::back::cpu::kernels::Kernels;
use crate::back::cpu::work::work;
use crate::interp::TokenLattice;
use crate::ir::{Graph, Lattice};
use crate::kernel::Program;
use crate::pass::flips::{Derived, Family, FlipProgram, NoFlips, common_token};
use crate::pass::normal_form::NormalForm;
use crate::run::network::Precision;
use num_complex::Complex64;
use std::sync::Arc;

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

/// The flip program's kernels, before there is a device.
pub struct FlipSource {
    changes: Source,
    readout: Source,
    sets: Kernel,
    derived: Vec<Derived>,
}

/// The flip program of one network on a device.
pub struct Flips {
    changes: Code,
    readout: Code,
    sets: Kernel,
    derived: Vec<Derived>,
    device: Arc<dyn Device>,
    module: Arc<dyn Module>,
    spins: usize,
}

impl FlipSource {
    /// Derives the program of all single-spin flips and emits its kernels.
    ///
    /// # Errors
    /// See [`FlipError`].
    pub fn new(
        graph: &Graph,
        lattice: Lattice,
        options: &Options,
    ) -> Result<FlipSource, FlipError> {
        let form = NormalForm::new(graph).map_err(NoFlips::from)?;
        let token = common_token(graph, &form)?;
        let program = FlipProgram::new(graph, lattice, &Family::single().shapes(token))?;
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
        let width = changes.kernel.outputs;
        let [tx, ty] = program.token.0;
        let columns = tokens.extent[1] * ty;
        // where the change of the first feature is, for every spin
        let first = |spin: usize| {
            let (x, y) = (spin / columns, spin % columns);
            let shape = x % tx * ty + y % ty;
            let site = tokens.site([x / tx, y / ty]);
            (shape * width * tokens.count() + site) as i64
        };
        let first: Vec<i64> = (0..lattice.sites()).map(first).collect();
        let rows = changes.kernel.site_outputs;
        let sets = sets_kernel(&first, width, rows, tokens.count(), options);
        Ok(FlipSource {
            changes,
            readout,
            sets,
            derived: program.derived,
        })
    }

    /// The texts of its kernels.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        [&self.changes.kernel, &self.sets, &self.readout.kernel]
            .into_iter()
            .map(|k| k.text.as_str())
    }

    /// Estimated work for one configuration, in the units of [`work`].
    pub fn work(&self, spins: usize) -> f64 {
        work(&self.changes.program) + work(&self.readout.program) * spins as f64
    }
}

/// Features of the background, then of every flip: `inputs[e] + changes[flip, e]`.
fn sets_kernel(
    first: &[i64],
    width: usize,
    rows: usize,
    tokens: usize,
    options: &Options,
) -> Kernel {
    let sets = first.len() + 1;
    let v = Expr::var;
    let double = Type::Double;
    let mut positions = Positions::default();
    let flip = v("s") - Expr::Int(1);
    let start = positions.at(first, &flip, &|_| None);
    let change = v("sample") * Expr::int(rows) + start + v("e") * Expr::int(tokens);
    // the changes take the place of constants, one set per sample
    let changes = Expr::load("a.constants", change, Type::Real).cast(double);
    let background = Expr::load("a.inputs", v("sample") * Expr::int(width) + v("e"), double);
    let sum = Expr::Var("sum".into(), double);
    let to = v("sample") * Expr::int(sets * width) + v("k");
    let body = vec![
        Stmt::Comment(Comment::new(
            "features of the background, then of every flip",
        )),
        Stmt::Each(
            "k".into(),
            Expr::int(sets * width),
            vec![
                Stmt::Let("s".into(), v("k") / Expr::int(width)),
                Stmt::Let("e".into(), v("k") % Expr::int(width)),
                Stmt::Var("sum".into(), background),
                Stmt::If(
                    Expr::Int(0).less(v("s")),
                    vec![Stmt::Set("sum".into(), sum.clone() + changes)],
                ),
                Stmt::Store("a.outputs".into(), to, sum),
            ],
        ),
    ];
    let threads = (sets * width / 2).next_power_of_two().clamp(32, 256);
    let title = format!("flip_sets: {width} features for {} flips", first.len());
    let tree = Tree {
        title: vec![Comment::new(title)],
        kernel: "flip_sets".into(),
        threads,
        memory: vec![],
        constants: vec![],
        tables: positions.tables,
        functions: vec![],
        phases: vec![Phase {
            name: "sets".into(),
            arguments: vec![],
            body,
        }],
        body: vec![Stmt::Do(Expr::call(
            "sets",
            vec![v("a"), v("sample")],
            Type::Int,
        ))],
    };
    let text = print(&tree, options.precision == Precision::F32);
    Kernel {
        name: "flip_sets".to_owned(),
        text,
        threads,
        shared: 0,
        workspace: 0,
        blocks: vec![],
        constants: 0,
        constants64: 0,
        spins: 0,
        inputs: width,
        outputs: sets * width,
        site_outputs: 0,
    }
}

impl Flips {
    /// Puts a flip program on a device; `network` and `theta` are those of log psi.
    ///
    /// # Errors
    /// See [`CudaError`].
    pub fn new(
        source: FlipSource,
        precision: Precision,
        device: &Arc<dyn Device>,
        module: &Arc<dyn Module>,
        (graph, program): (&Graph, &Program),
        theta: &[f64],
    ) -> Result<Flips, CudaError> {
        let extended = extended(graph, program, theta, &source.derived)?;
        Ok(Flips {
            changes: Code::new(source.changes, precision, device, module, &extended)?,
            readout: Code::new(source.readout, precision, device, module, theta)?,
            sets: source.sets,
            derived: source.derived,
            device: device.clone(),
            module: module.clone(),
            spins: program.lattice.sites(),
        })
    }

    /// Follows new parameters of the network.
    ///
    /// # Errors
    /// See [`CudaError`]; the old parameters then stay in force.
    pub fn set_params(
        &mut self,
        (graph, program): (&Graph, &Program),
        theta: &[f64],
    ) -> Result<(), CudaError> {
        let extended = extended(graph, program, theta, &self.derived)?;
        let changes = self.changes.prepare(&extended)?;
        let readout = self.readout.prepare(theta)?;
        self.changes.install(changes);
        self.readout.install(readout);
        Ok(())
    }

    /// Estimated work for one configuration, in the units of [`work`].
    pub fn work(&self) -> f64 {
        let per_flip = work(&self.readout.source.program);
        work(&self.changes.source.program) + per_flip * self.spins as f64
    }

    /// `log psi(s') - log psi(s)` for every single-spin flip of every
    /// configuration, in site order.
    ///
    /// # Errors
    /// Too little memory, failures of the device.
    ///
    /// # Panics
    /// If `out` does not have one entry per spin of the batch.
    pub fn ratios(&self, batch: &[i8], out: &mut [Complex64]) -> Result<(), DeviceError> {
        assert_eq!(out.len(), batch.len(), "one ratio per spin");
        let samples = batch.len() / self.spins;
        let chunk = self.at_once(samples) * self.spins;
        for (spins, out) in batch.chunks(chunk).zip(out.chunks_mut(chunk)) {
            self.ratios_at_once(spins, out)?;
        }
        Ok(())
    }

    fn at_once(&self, samples: usize) -> usize {
        let sets = self.spins + 1;
        let (changes, a) = self.changes.memory(samples);
        let (readout, b) = self.readout.memory(samples * sets);
        let each = changes + readout * sets;
        let fit = self.device.budget().saturating_sub(a + b) / each;
        let longest = self
            .sets
            .outputs
            .max(self.changes.source.kernel.site_outputs);
        fit.min(i32::MAX as usize / longest)
            .clamp(1, samples.max(1))
    }

    fn ratios_at_once(&self, batch: &[i8], out: &mut [Complex64]) -> Result<(), DeviceError> {
        let samples = batch.len() / self.spins;
        let sets = self.spins + 1;
        let spins = super::code::spins(&self.device, batch)?;
        let operands = Operands {
            spins: spins.span(),
            ..Operands::default()
        };
        let [background, changes] = self.changes.run(samples, operands)?;
        let features = Buffer::new(&self.device, 8 * self.sets.outputs * samples)?;
        let launch = Launch {
            samples,
            inputs: background.span(),
            constants: changes.span(),
            outputs: features.span(),
            ..Launch::default()
        };
        let blocks = self.device.blocks().min(samples);
        self.module.launch(&self.sets, blocks, &launch)?;
        let operands = Operands {
            inputs: features.span(),
            ..Operands::default()
        };
        let [log_psi, _] = self.readout.run(samples * sets, operands)?;
        let width = self.readout.outputs();
        let values = log_psi.numbers(samples * sets * width)?;
        let value = |set: usize| {
            let v = &values[set * width..(set + 1) * width];
            Complex64::new(v[0], v.get(1).copied().unwrap_or(0.0))
        };
        for (k, out) in out.iter_mut().enumerate() {
            let (sample, spin) = (k / self.spins, k % self.spins);
            *out = value(sample * sets + spin + 1) - value(sample * sets);
        }
        Ok(())
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
            all.extend(kernels.derived(d));
        }
    }
    Ok(all)
}
