//! A graph compiled for one lattice: batches of configurations in, outputs out.

use super::arena::Memory;
use super::bind::{Bound, KernelPlan};
use super::constants::{ConstantError, Constants, param_shape, tensors};
use super::exec::{Executable, SiteValues, Workspace};
use super::jit::{Compiler, JitError, KernelCode, Listing};
use super::simd::{Isa, Real};
use crate::ir::{Graph, Lattice, NodeId};
use crate::kernel::lower::lower_with_sites;
use crate::kernel::{Geometry, LowerError, Program, Row};
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
    /// Wrong number of parameters.
    #[error("{expected} parameters expected, {found} given")]
    ParamCount {
        /// Declared.
        expected: usize,
        /// Given.
        found: usize,
    },
}

/// Lanes a batch should fill at least, so that vectors and loops pay.
const TARGET_LANES: usize = 512;

/// A layout for a number of samples, with its static rows and idle workspaces.
struct Layout<T: Real> {
    bound: Bound,
    statics: Memory,
    idle: Mutex<Vec<(Workspace<T>, Vec<f64>)>>,
}

/// A graph on one lattice, compiled for this machine in working precision `T`.
pub struct Compiled<T: Real> {
    graph: Graph,
    program: Program,
    plan: KernelPlan,
    code: KernelCode,
    constants: Constants<T>,
    theta: Vec<f64>,
    inputs: Vec<u32>,
    planner: (FftPlanner<T>, FftPlanner<f64>),
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
        Compiled::with(graph, lattice, theta, &[], &[], listing)
    }

    /// As [`Compiled::new`] with parameters that are inputs per configuration
    /// (see [`Compiled::evaluate_inputs`]) and nodes on sites as further results
    /// (see [`Compiled::evaluate_sites`]). `theta` has nothing for the inputs.
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
        let mut compiler = Compiler::new(listing)?;
        let plan = KernelPlan::new(&program, T::PRECISION, &mut compiler)?;
        let code = compiler.finish()?;
        let mut planner = (FftPlanner::new(), FftPlanner::new());
        check_count(&graph, &program, theta, inputs)?;
        let params = tensors(&graph, &program, theta, inputs).map_err(ConstantError::from)?;
        let constants = Constants::new(&graph, &program, &params, &mut planner)?;
        let mut network = Compiled {
            graph,
            program,
            plan,
            code,
            constants,
            theta: theta.to_vec(),
            inputs: inputs.to_vec(),
            planner,
            layouts: Vec::new(),
            isa: Isa::detect(),
        };
        network.lay_out();
        Ok(network)
    }

    fn lay_out(&mut self) {
        let segment = self
            .program
            .geometries
            .iter()
            .map(Geometry::segment)
            .max()
            .unwrap_or(1);
        let many = TARGET_LANES.div_ceil(segment);
        let mut sizes = vec![1];
        if many > 1 {
            sizes.push(many);
        }
        self.layouts = sizes
            .into_iter()
            .map(|samples| {
                let bound = Bound::new(&self.program, &self.plan, samples);
                let statics = bound.static_memory(&self.program, &self.constants);
                Layout {
                    bound,
                    statics,
                    idle: Mutex::new(Vec::new()),
                }
            })
            .collect();
    }

    /// Replaces the parameters.
    ///
    /// # Errors
    /// Wrong number of parameters. or mixers that do not exist for them; the old
    /// parameters stay in force.
    pub fn set_params(&mut self, theta: &[f64]) -> Result<(), CompileError> {
        check_count(&self.graph, &self.program, theta, &self.inputs)?;
        let params = tensors(&self.graph, &self.program, theta, &self.inputs)
            .map_err(ConstantError::from)?;
        self.constants = Constants::new(&self.graph, &self.program, &params, &mut self.planner)?;
        self.theta = theta.to_vec();
        for l in &mut self.layouts {
            // workspaces hold scratch memory of the old mixers
            l.idle.get_mut().unwrap_or_else(|e| e.into_inner()).clear();
            l.statics = l.bound.static_memory(&self.program, &self.constants);
        }
        Ok(())
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

    /// Evaluates a batch in parallel; calls `each(sample, outputs)` once per
    /// configuration, in any order, from several threads.
    ///
    /// # Panics
    /// If the batch is not a whole number of configurations.
    pub fn evaluate(&self, batch: &[i8], each: &(dyn Fn(usize, &[f64]) + Sync)) {
        let sites = self.program.lattice.sites();
        assert!(batch.len().is_multiple_of(sites), "whole configurations");
        let count = batch.len() / sites;
        let layout = if count > 1 {
            self.layouts.last()
        } else {
            self.layouts.first()
        };
        let Some(layout) = layout else { return };
        let samples = layout.bound.samples;
        if count <= samples {
            return self.chunk(layout, batch, 0, each);
        }
        batch
            .par_chunks(samples * sites)
            .enumerate()
            .for_each(|(k, spins)| self.chunk(layout, spins, k * samples, each));
    }

    /// Evaluates one configuration; `read` sees the outputs and, for every
    /// element of the nodes on sites, its values.
    ///
    /// # Panics
    /// If `spins` is not one configuration.
    pub fn evaluate_sites(&self, spins: &[i8], read: &mut dyn FnMut(&[f64], &[SiteValues<'_, T>])) {
        assert_eq!(spins.len(), self.program.lattice.sites(), "a configuration");
        let Some(layout) = self.layouts.first() else {
            return;
        };
        self.with_workspace(layout, |executable, w, values| {
            executable.run(spins, w);
            executable.read_outputs(0, w, values);
            let site_values = |&row: &Row| executable.site_values(row, 0, w);
            let sites: Vec<_> = self.program.site_outputs.iter().map(site_values).collect();
            read(values, &sites);
        });
    }

    /// Evaluates the program for many sets of inputs, `width` numbers each, in
    /// order of the inputs and row major; `each(set, outputs)` is called in order.
    ///
    /// # Panics
    /// If `values` is not a whole number of sets of all inputs.
    pub fn evaluate_inputs(
        &self,
        values: &[f64],
        width: usize,
        each: &mut dyn FnMut(usize, &[f64]),
    ) {
        let rows = self.input_rows();
        assert!(rows.len() == width && width > 0, "all inputs");
        assert!(values.len().is_multiple_of(width), "whole sets of inputs");
        let Some(layout) = self.layouts.last() else {
            return;
        };
        let samples = layout.bound.samples;
        for (k, chunk) in values.chunks(samples * width).enumerate() {
            self.with_workspace(layout, |executable, w, outputs| {
                for (sample, set) in chunk.chunks_exact(width).enumerate() {
                    for (&row, &x) in rows.iter().zip(set) {
                        executable.write_input(row, sample, x, w);
                    }
                }
                executable.run_inputs(chunk.len() / width, w);
                for sample in 0..chunk.len() / width {
                    executable.read_outputs(sample, w, outputs);
                    each(k * samples + sample, outputs);
                }
            });
        }
    }

    /// Rows of the inputs, in order of the parameters.
    fn input_rows(&self) -> Vec<Row> {
        let mut inputs = self.program.inputs.clone();
        inputs.sort_unstable_by_key(|i| i.0);
        inputs
            .into_iter()
            .flat_map(|(_, buffer)| {
                let rows = self.program.buffers[buffer.0 as usize].rows;
                (0..rows).map(move |row| Row {
                    buffer,
                    row,
                    shift: 0,
                })
            })
            .collect()
    }

    fn with_workspace<R>(
        &self,
        layout: &Layout<T>,
        work: impl FnOnce(&Executable<T>, &mut Workspace<T>, &mut [f64]) -> R,
    ) -> R {
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
        let result = work(&executable, &mut w, &mut values);
        layout
            .idle
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .push((w, values));
        result
    }

    fn chunk(
        &self,
        layout: &Layout<T>,
        spins: &[i8],
        first: usize,
        each: &(dyn Fn(usize, &[f64]) + Sync),
    ) {
        self.with_workspace(layout, |executable, w, values| {
            executable.run(spins, w);
            for sample in 0..spins.len() / self.program.lattice.sites() {
                executable.read_outputs(sample, w, values);
                each(first + sample, values);
            }
        });
    }
}

fn check_count(
    graph: &Graph,
    program: &Program,
    theta: &[f64],
    inputs: &[u32],
) -> Result<(), CompileError> {
    let mut expected = 0;
    let own = |k: &(usize, _)| !inputs.contains(&(k.0 as u32));
    for (_, p) in graph.params.iter().enumerate().filter(own) {
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
