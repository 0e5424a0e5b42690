//! A graph compiled for one lattice: batches of configurations in, outputs out.

use super::arena::Memory;
use super::bind::{Bound, KernelPlan};
use super::constants::{ConstantError, Constants, param_shape, tensors};
use super::exec::{Executable, SiteValues, Workspace};
use super::jit::{Compiler, JitError, KernelCode, Listing};
use super::lookup::TableData;
use super::simd::{Isa, Real};
use super::tables::TableProgram;
use crate::interp::Tensor;
use crate::ir::{Graph, Lattice, NodeId};
use crate::kernel::lower::{lower_with_sites, lower_without_tables};
use crate::kernel::{Geometry, LowerError, Program};
use rayon::prelude::*;
use rustfft::FftPlanner;
use std::sync::Mutex;

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

/// A layout for a number of samples, with its static rows and idle workspaces.
struct Layout<T: Real> {
    bound: Bound,
    statics: Memory,
    idle: Mutex<Vec<(Workspace<T>, Vec<f64>)>>,
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
    /// For one sample, and for many.
    layouts: Vec<Layout<T>>,
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
        program: Program,
        theta: &[f64],
        inputs: &[u32],
        listing: bool,
    ) -> Result<Self, CompileError> {
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
            isa: Isa::detect(),
        };
        network.lay_out()?;
        Ok(network)
    }

    fn lay_out(&mut self) -> Result<(), CompileError> {
        let segments = self.program.geometries.iter().map(Geometry::segment);
        let mut many = match segments.max() {
            Some(segment) => (TARGET_LANES / segment.max(1)).max(1),
            None => TARGET_SAMPLES,
        };
        let bind = |samples| {
            let bound = Bound::new(&self.program, &self.plan, samples);
            bound.addressable().then_some(bound)
        };
        let mut bounds = vec![bind(1).ok_or(CompileError::TooLarge)?];
        while many > 1 {
            if let Some(bound) = bind(many) {
                bounds.push(bound);
                break;
            }
            many /= 2;
        }
        self.layouts = bounds
            .into_iter()
            .map(|bound| Layout {
                statics: bound.static_memory(&self.program, &self.constants),
                bound,
                idle: Mutex::new(Vec::new()),
            })
            .collect();
        Ok(())
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
            l.idle.get_mut().unwrap_or_else(|e| e.into_inner()).clear();
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
    /// Bytes of working memory: for a single sample, and per thread in a batch.
    pub fn memory(&self) -> Vec<(usize, usize)> {
        self.layouts
            .iter()
            .map(|l| (l.bound.samples, l.bound.arena_bytes()))
            .collect()
    }

    /// Number of output elements per configuration.
    pub fn outputs(&self) -> usize {
        self.program.outputs.len()
    }

    /// Samples per run in a batch.
    pub fn samples_at_a_time(&self) -> usize {
        self.layouts.last().map_or(1, |l| l.bound.samples)
    }

    fn layout(&self, count: usize) -> &Layout<T> {
        let last = self.layouts.len() - 1;
        &self.layouts[if count > 1 { last } else { 0 }]
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
        let samples = self.layout(out.len()).bound.samples;
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
        let idle = layout.idle.lock().unwrap_or_else(|e| e.into_inner()).pop();
        let (mut w, mut values) = idle.unwrap_or_else(|| {
            (
                Workspace::new(&self.program, &layout.bound, &self.constants),
                vec![0.0; self.outputs()],
            )
        });
        run(&executable, &mut w, &mut values);
        layout
            .idle
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .push((w, values));
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
