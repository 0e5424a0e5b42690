//! A graph compiled for one lattice: batches of configurations in, outputs out.

use super::arena::Memory;
use super::bind::{Bound, KernelPlan};
use super::budget::{Budget, Idle};
use super::constants::{ConstantError, Constants, param_shape, tensors};
use super::exec::{Executable, SiteValues, Workspace};
use super::jit::{Compiler, JitError, KernelCode, Listing};
use super::lookup::TableData;
use super::simd::{Isa, Real};
use super::tables::TableProgram;
use crate::interp::Tensor;
use crate::ir::{Graph, Lattice, NodeId, Op};
use crate::kernel::lower::{lower_with_sites, lower_without_tables};
use crate::kernel::{Geometry, LowerError, Program, Space, Step};
use crate::run::Room;
use rayon::prelude::*;
use rustfft::FftPlanner;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// Why a network cannot be compiled for the CPU.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The graph uses operations without kernels, or does not fit the lattice.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// Code generation failed.
    #[error(transparent)]
    Jit(#[from] JitError),
    /// Parameters out of range for a mixer.
    #[error(transparent)]
    Constants(#[from] ConstantError),
    /// The graph has no derivative.
    #[error(transparent)]
    Reverse(#[from] crate::pass::reverse::ReverseError),
    /// One configuration needs more memory than the generated code can address.
    #[error(
        "a single configuration needs more than 2 GB of working memory; use a smaller lattice or network"
    )]
    TooLarge,
    /// One configuration needs more memory than programs may work in.
    #[error(
        "a single configuration needs {} of working memory, the limit is {}; raise `--memory`",
        in_units(*needed),
        in_units(*limit)
    )]
    Memory {
        /// Bytes.
        needed: usize,
        /// Bytes.
        limit: usize,
    },
    /// Wrong number of parameters.
    #[error("{expected} parameters expected, {found} given")]
    ParamCount {
        /// Declared.
        expected: usize,
        /// Given.
        found: usize,
    },
}

/// Lanes a batch should fill, so that vectors and loops pay while the rows stay
/// in the cache.
const TARGET_LANES: usize = 512;

/// Samples at a time for programs without sites.
const TARGET_SAMPLES: usize = 16;

/// Samples at a time where they share weights, which are read once for all: few,
/// and many.
const SHARED_SAMPLES: [usize; 2] = [8, 32];

/// Bytes that many samples may take more than one, should they share weights.
const SHARED_ARENA: usize = 16 << 20;

/// Weights per configuration from which on samples share them.
const SHARED_WEIGHTS: usize = 4096;

/// A layout for a number of samples, with its static rows and idle workspaces.
struct Layout<T: Real> {
    bound: Bound,
    statics: Memory,
    idle: Arc<IdleWorkspaces<T>>,
}

/// Workspaces, each with room for the outputs of a sample.
struct IdleWorkspaces<T: Real>(Mutex<Vec<(Workspace<T>, Vec<f64>)>>);

impl<T: Real> IdleWorkspaces<T> {
    fn all(&self) -> MutexGuard<'_, Vec<(Workspace<T>, Vec<f64>)>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl<T: Real> Idle for IdleWorkspaces<T> {
    fn release(&self) {
        self.all().clear();
    }
}

/// Numbers of samples worth running at a time, the fewest first.
fn batches(program: &Program) -> Vec<usize> {
    let segments = program.geometries.iter().map(Geometry::segment);
    let many = match segments.max() {
        Some(segment) => TARGET_LANES / segment.max(1),
        None => TARGET_SAMPLES,
    };
    let shared = program.steps.iter().any(|step| match step {
        Step::Mix { mixer, .. } => matches!(program.mixers[*mixer].op, Op::Mix { .. }),
        Step::Dense {
            space: Space::Batch,
            groups,
        } => groups.iter().any(|g| g.weights.len() > SHARED_WEIGHTS),
        // outer products of sites: results of many samples lie side by side
        Step::Reference { operands, .. } => operands.iter().flatten().count() == 2,
        _ => false,
    });
    let mut batches = vec![1, many];
    if shared {
        batches.extend(SHARED_SAMPLES);
    }
    batches.retain(|&n| n > 0);
    batches.sort_unstable();
    batches.dedup();
    batches
}

/// Receives the outputs and, for every element of the nodes on sites, its values.
pub type ReadSites<'r, T> = &'r mut dyn FnMut(&[f64], &[SiteValues<'_, T>]);

/// A graph on one lattice, compiled for this machine in working precision `T`.
pub struct Compiled<T: Real> {
    graph: Graph,
    program: Program,
    plan: KernelPlan,
    code: KernelCode,
    tabulated: Option<Box<TableProgram>>,
    constants: Constants<T>,
    theta: Vec<f64>,
    /// Parameters that are values per configuration.
    inputs: Vec<u32>,
    planner: Mutex<(FftPlanner<T>, FftPlanner<f64>)>,
    /// For one sample, and for more of them.
    layouts: Vec<Layout<T>>,
    budget: Arc<Budget>,
    isa: Isa,
}

impl<T: Real> Compiled<T> {
    /// Compiles a graph whose outputs are `Whole` values. `listing` keeps
    /// readable code.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn new(
        graph: Graph,
        lattice: Lattice,
        theta: &[f64],
        listing: bool,
    ) -> Result<Self, CompileError> {
        Self::with_inputs(graph, lattice, theta, &[], listing)
    }

    /// As [`Compiled::new`], where the parameters in `inputs` are values per
    /// configuration; `theta` holds the others.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn with_inputs(
        graph: Graph,
        lattice: Lattice,
        theta: &[f64],
        inputs: &[u32],
        listing: bool,
    ) -> Result<Self, CompileError> {
        Self::with(graph, lattice, theta, inputs, &[], listing)
    }

    /// As [`Compiled::with_inputs`], with nodes on sites as further results (see
    /// [`Compiled::evaluate_sites`]).
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn with(
        graph: Graph,
        lattice: Lattice,
        theta: &[f64],
        inputs: &[u32],
        sites: &[NodeId],
        listing: bool,
    ) -> Result<Self, CompileError> {
        let program = lower_with_sites(&graph, lattice, inputs, sites)?;
        Self::from_program(graph, program, theta, inputs, listing)
    }

    /// As [`Compiled::with`], computing every local value: no tables.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn without_tables(
        graph: Graph,
        lattice: Lattice,
        theta: &[f64],
        sites: &[NodeId],
    ) -> Result<Self, CompileError> {
        let program = lower_without_tables(&graph, lattice, &[], sites)?;
        Self::from_program(graph, program, theta, &[], false)
    }

    fn from_program(
        graph: Graph,
        mut program: Program,
        theta: &[f64],
        inputs: &[u32],
        listing: bool,
    ) -> Result<Self, CompileError> {
        program.join_sums();
        let mut compiler = Compiler::new(listing)?;
        let plan = KernelPlan::new(&program, T::PRECISION, &mut compiler)?;
        let code = compiler.finish()?;
        let mut planner = (FftPlanner::new(), FftPlanner::new());
        check_count(&graph, &program, theta, inputs)?;
        let params = tensors(&graph, &program, theta, inputs).map_err(ConstantError::from)?;
        let tabulated = match &program.tables {
            Some(tables) => Some(Box::new(TableProgram::new(tables, &params)?)),
            None => None,
        };
        let tables = table_values(&program, tabulated.as_deref(), &params)?;
        let constants = Constants::new(&graph, &program, &params, tables, &mut planner)?;
        let mut network = Compiled {
            graph,
            program,
            plan,
            code,
            tabulated,
            constants,
            theta: theta.to_vec(),
            inputs: inputs.to_vec(),
            planner: Mutex::new(planner),
            layouts: Vec::new(),
            budget: Budget::of_the_process().clone(),
            isa: Isa::detect(),
        };
        network.lay_out()?;
        Ok(network)
    }

    fn lay_out(&mut self) -> Result<(), CompileError> {
        let (program, constants) = (&self.program, &self.constants);
        let bytes = |bound: &Bound| Workspace::bytes(program, bound, constants);
        let one = Bound::new(program, &self.plan, 1);
        if !one.addressable() {
            return Err(CompileError::TooLarge);
        }
        let (single, limit) = (bytes(&one), self.budget.limit());
        if single > limit {
            return Err(CompileError::Memory {
                needed: single,
                limit,
            });
        }
        // what several samples at a time may take
        let limit = limit.saturating_sub(self.constant_bytes());
        let mut bounds = vec![one];
        for many in batches(program).into_iter().skip(1) {
            let bound = Bound::new(program, &self.plan, many);
            let bytes = bytes(&bound);
            let lean = many * self.longest_segment() <= TARGET_LANES
                || bytes <= (single + SHARED_ARENA).max(2 * single);
            if bound.addressable() && lean && bytes <= limit / rayon::current_num_threads() {
                bounds.push(bound);
            }
        }
        self.layouts = bounds
            .into_iter()
            .map(|bound| {
                let idle = Arc::new(IdleWorkspaces(Mutex::default()));
                let weak: Weak<IdleWorkspaces<T>> = Arc::downgrade(&idle);
                self.budget.register(weak);
                Layout {
                    statics: bound.static_memory(&self.program, &self.constants),
                    bound,
                    idle,
                }
            })
            .collect();
        Ok(())
    }

    /// Bytes of what depends on parameters alone.
    pub fn constant_bytes(&self) -> usize {
        self.constants.bytes(&self.program)
    }

    fn longest_segment(&self) -> usize {
        let segments = self.program.geometries.iter().map(Geometry::segment);
        segments.max().unwrap_or(0)
    }

    /// Works in the memory of a budget.
    ///
    /// # Errors
    /// A single configuration does not fit; the old budget then stays in force.
    pub fn work_within(&mut self, budget: &Arc<Budget>) -> Result<(), CompileError> {
        if Arc::ptr_eq(&self.budget, budget) {
            return Ok(());
        }
        let old = std::mem::replace(&mut self.budget, budget.clone());
        self.lay_out().inspect_err(|_| self.budget = old)
    }

    /// What it works in.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// What new parameters change, for [`Compiled::install`].
    ///
    /// # Errors
    /// Wrong number of parameters, or mixers that do not exist for them.
    pub fn prepare(&self, theta: &[f64]) -> Result<Prepared<T>, CompileError> {
        let (graph, program) = (&self.graph, &self.program);
        check_count(graph, program, theta, &self.inputs)?;
        let params = tensors(graph, program, theta, &self.inputs).map_err(ConstantError::from)?;
        let tables = table_values(program, self.tabulated.as_deref(), &params)?;
        let mut planner = self.planner.lock().unwrap_or_else(|e| e.into_inner());
        Ok(Prepared {
            constants: Constants::new(graph, program, &params, tables, &mut planner)?,
            theta: theta.to_vec(),
        })
    }

    /// Puts prepared parameters in force.
    pub fn install(&mut self, prepared: Prepared<T>) {
        self.constants = prepared.constants;
        self.theta = prepared.theta;
        for l in &mut self.layouts {
            // workspaces hold scratch memory of the old mixers
            l.idle.release();
            l.statics = l.bound.static_memory(&self.program, &self.constants);
        }
    }

    /// The lattice.
    pub fn lattice(&self) -> Lattice {
        self.program.lattice
    }
    /// The parameters in force.
    pub fn params(&self) -> &[f64] {
        &self.theta
    }
    /// The loop-level program.
    pub fn program(&self) -> &Program {
        &self.program
    }
    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
    /// Native code listings, if asked for.
    pub fn listing(&self) -> Option<&Listing> {
        self.code.listing()
    }
    /// Working memory: for a single sample, and for more of them.
    pub fn memory(&self) -> Vec<Room> {
        let room = |l: &Layout<T>| Room {
            samples: l.bound.samples,
            bytes: Workspace::bytes(&self.program, &l.bound, &self.constants),
        };
        self.layouts.iter().map(room).collect()
    }

    /// Number of output elements per configuration.
    pub fn outputs(&self) -> usize {
        self.program.outputs.len()
    }

    /// Samples per run in a batch.
    pub fn samples_at_a_time(&self) -> usize {
        self.layouts.last().map_or(1, |l| l.bound.samples)
    }

    /// The smallest layout for so many samples, or the largest there is.
    fn layout(&self, count: usize) -> &Layout<T> {
        let last = self.layouts.len() - 1;
        let fits = self.layouts.iter().position(|l| l.bound.samples >= count);
        &self.layouts[fits.unwrap_or(last)]
    }

    /// Evaluates a batch in parallel and keeps `result(outputs)` of every
    /// configuration.
    ///
    /// # Panics
    /// If the batch is not one configuration per element of `out`.
    pub fn evaluate<R: Send>(
        &self,
        batch: &[i8],
        out: &mut [R],
        result: &(dyn Fn(&[f64]) -> R + Sync),
    ) {
        let sites = self.program.lattice.sites();
        assert_eq!(
            batch.len(),
            out.len() * sites,
            "one result per configuration"
        );
        // as many for every thread, however many there are
        let fair = out.len().div_ceil(rayon::current_num_threads()).max(1);
        let samples = fair.min(self.samples_at_a_time());
        let run = |(spins, out): (&[i8], &mut [R])| {
            self.evaluate_here(spins, &mut |k, values| out[k] = result(values));
        };
        if out.len() <= samples {
            return run((batch, out));
        }
        batch
            .par_chunks(samples * sites)
            .zip(out.par_chunks_mut(samples))
            .for_each(run);
    }

    /// Evaluates a batch on this thread; calls `each(sample, outputs)` in order.
    pub fn evaluate_here(&self, batch: &[i8], each: &mut dyn FnMut(usize, &[f64])) {
        let sites = self.program.lattice.sites();
        let count = batch.len() / sites;
        let layout = self.layout(count);
        let samples = layout.bound.samples;
        self.working(layout, |executable, w, values| {
            for (k, spins) in batch.chunks(samples * sites).enumerate() {
                executable.run(spins, w);
                for sample in 0..spins.len() / sites {
                    executable.read_outputs(sample, w, values);
                    each(k * samples + sample, values);
                }
            }
        });
    }

    /// All outputs of a batch, one sample after the other, on this thread.
    ///
    /// # Panics
    /// If `out` has no room for them.
    pub fn outputs_here(&self, batch: &[i8], out: &mut [f64]) {
        let sites = self.program.lattice.sites();
        let layout = self.layout(batch.len() / sites);
        let at_once = layout.bound.samples;
        self.working(layout, |executable, w, _| {
            let runs = batch.chunks(at_once * sites);
            for (spins, out) in runs.zip(out.chunks_mut(at_once * self.outputs())) {
                executable.run(spins, w);
                executable.read_all_outputs(spins.len() / sites, w, out);
            }
        });
    }

    /// Runs a program without configurations on `count` sets of inputs (at most
    /// [`Compiled::samples_at_a_time`]): `inputs(sample)` are the values of all
    /// inputs, one after the other in the order of their parameters.
    pub fn map_here<'i>(
        &self,
        count: usize,
        inputs: &dyn Fn(usize) -> &'i [f64],
        each: &mut dyn FnMut(usize, &[f64]),
    ) {
        let lengths: Vec<(usize, usize)> = self.input_spans();
        self.working(self.layout(count), |executable, w, values| {
            for sample in 0..count {
                let all = inputs(sample);
                for (k, &(start, length)) in lengths.iter().enumerate() {
                    executable.write_input(k, sample, &all[start..start + length], w);
                }
            }
            executable.run_samples(&[], count, w);
            for sample in 0..count {
                executable.read_outputs(sample, w, values);
                each(sample, values);
            }
        });
    }

    /// Evaluates configurations one after the other; `read` sees the outputs of
    /// each and, for every element of the nodes on sites, its values.
    pub fn evaluate_sites(&self, batch: &[i8], read: ReadSites<'_, T>) {
        let sites = self.program.lattice.sites();
        let layout = self.layout(batch.len() / sites);
        self.working(layout, |executable, w, values| {
            for spins in batch.chunks(layout.bound.samples * sites) {
                executable.run(spins, w);
                for sample in 0..spins.len() / sites {
                    executable.read_outputs(sample, w, values);
                    let site_values = |k| executable.site_values(k, sample, w);
                    let rows = 0..self.program.site_outputs.len();
                    read(values, &rows.map(site_values).collect::<Vec<_>>());
                }
            }
        });
    }

    /// Per input of the program, where its values are among all inputs given.
    fn input_spans(&self) -> Vec<(usize, usize)> {
        let mut starts = vec![(0, 0); self.graph.params.len()];
        let mut at = 0;
        for &k in &self.inputs {
            let shape = param_shape(&self.program, &self.graph.params[k as usize].ty);
            let length = shape.map_or(0, |s| s.iter().product());
            starts[k as usize] = (at, length);
            at += length;
        }
        let spans = self.program.inputs.iter().map(|&(k, _)| starts[k as usize]);
        spans.collect()
    }

    fn working(
        &self,
        layout: &Layout<T>,
        run: impl FnOnce(&Executable<T>, &mut Workspace<T>, &mut [f64]),
    ) {
        let executable = Executable {
            graph: &self.graph,
            program: &self.program,
            code: &self.code,
            constants: &self.constants,
            bound: &layout.bound,
            statics: &layout.statics,
            isa: self.isa,
        };
        let idle = layout.idle.all().pop();
        let (mut w, mut values) = idle.unwrap_or_else(|| {
            let (program, constants) = (&self.program, &self.constants);
            let w = Workspace::new(program, &layout.bound, constants, &self.budget);
            (w, vec![0.0; self.outputs()])
        });
        run(&executable, &mut w, &mut values);
        layout.idle.all().push((w, values));
    }
}

/// A number of bytes for people.
pub fn in_units(bytes: usize) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// New parameters and all that follows from them.
pub struct Prepared<T: Real> {
    constants: Constants<T>,
    theta: Vec<f64>,
}

fn table_values<T: Real>(
    program: &Program,
    tabulated: Option<&TableProgram>,
    params: &[Tensor],
) -> Result<Vec<TableData<T>>, CompileError> {
    match (&program.tables, tabulated) {
        (Some(tables), Some(t)) => t.values(tables, params),
        _ => Ok(Vec::new()),
    }
}

fn check_count(
    graph: &Graph,
    program: &Program,
    theta: &[f64],
    inputs: &[u32],
) -> Result<(), CompileError> {
    let mut expected = 0;
    for (k, p) in graph.params.iter().enumerate() {
        if inputs.contains(&(k as u32)) {
            continue;
        }
        expected += param_shape(program, &p.ty)
            .map_err(ConstantError::from)?
            .iter()
            .product::<usize>();
    }
    if expected != theta.len() {
        return Err(CompileError::ParamCount {
            expected,
            found: theta.len(),
        });
    }
    Ok(())
}
