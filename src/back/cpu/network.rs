//! A compiled network.

use super::arena::Memory;
use super::bind::{Bound, KernelPlan};
use super::constants::{ConstantError, Constants, param_shape, tensors};
use super::exec::{Executable, Workspace};
use super::jit::{Compiler, JitError, KernelCode, Listing};
use super::simd::{Isa, Real};
use crate::ir::{Graph, Lattice};
use crate::kernel::lower::lower;
use crate::kernel::{Geometry, LowerError, Program};
use num_complex::Complex64;
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
    idle: Mutex<Vec<Workspace<T>>>,
}

/// `log psi` of one network on one lattice, compiled for this machine in working
/// precision `T`.
pub struct FullEvaluation<T: Real> {
    graph: Graph,
    program: Program,
    plan: KernelPlan,
    code: KernelCode,
    constants: Constants<T>,
    theta: Vec<f64>,
    planner: (FftPlanner<T>, FftPlanner<f64>),
    /// For one sample, and for many.
    layouts: Vec<Layout<T>>,
    isa: Isa,
}

impl<T: Real> FullEvaluation<T> {
    /// Compiles a graph whose outputs are `[Re log psi]` or `[Re, Im]`.
    /// `listing` keeps readable code.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn new(
        graph: Graph,
        lattice: Lattice,
        theta: &[f64],
        listing: bool,
    ) -> Result<Self, CompileError> {
        let program = lower(&graph, lattice, &[])?;
        let mut compiler = Compiler::new(listing)?;
        let plan = KernelPlan::new(&program, T::PRECISION, &mut compiler)?;
        let code = compiler.finish()?;
        let mut planner = (FftPlanner::new(), FftPlanner::new());
        check_count(&graph, &program, theta)?;
        let params = tensors(&graph, &program, theta, &[]).map_err(ConstantError::from)?;
        let constants = Constants::new(&graph, &program, &params, &mut planner)?;
        let mut network = FullEvaluation {
            graph,
            program,
            plan,
            code,
            constants,
            theta: theta.to_vec(),
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
    /// Wrong number of parameters, or mixers that do not exist for them; the old
    /// parameters stay in force.
    pub fn set_params(&mut self, theta: &[f64]) -> Result<(), CompileError> {
        check_count(&self.graph, &self.program, theta)?;
        let params =
            tensors(&self.graph, &self.program, theta, &[]).map_err(ConstantError::from)?;
        self.constants = Constants::new(&self.graph, &self.program, &params, &mut self.planner)?;
        self.theta = theta.to_vec();
        for l in &mut self.layouts {
            l.statics = l.bound.static_memory(&self.program, &self.constants);
        }
        Ok(())
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

    /// `log psi` of every configuration of a batch, in parallel.
    ///
    /// # Panics
    /// If the lengths do not fit the lattice.
    pub fn log_psi(&self, batch: &[i8], out: &mut [Complex64]) {
        let sites = self.program.lattice.sites();
        assert_eq!(
            batch.len(),
            out.len() * sites,
            "one result per configuration"
        );
        let layout = if out.len() > 1 {
            self.layouts.last()
        } else {
            self.layouts.first()
        };
        let Some(layout) = layout else { return };
        let samples = layout.bound.samples;
        if out.len() <= samples {
            return self.chunk(layout, batch, out);
        }
        batch
            .par_chunks(samples * sites)
            .zip(out.par_chunks_mut(samples))
            .for_each(|(spins, out)| self.chunk(layout, spins, out));
    }

    fn chunk(&self, layout: &Layout<T>, spins: &[i8], out: &mut [Complex64]) {
        let executable = Executable {
            program: &self.program,
            code: &self.code,
            constants: &self.constants,
            bound: &layout.bound,
            statics: &layout.statics,
            isa: self.isa,
        };
        let idle = layout.idle.lock().unwrap_or_else(|e| e.into_inner()).pop();
        let mut w =
            idle.unwrap_or_else(|| Workspace::new(&self.program, &layout.bound, &self.constants));
        executable.run(spins, &mut w);
        let complex = self.program.outputs.len() > 1;
        for (sample, out) in out.iter_mut().enumerate() {
            let im = if complex {
                executable.output(1, sample, &w)
            } else {
                0.0
            };
            *out = Complex64::new(executable.output(0, sample, &w), im);
        }
        layout
            .idle
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .push(w);
    }
}

fn check_count(graph: &Graph, program: &Program, theta: &[f64]) -> Result<(), CompileError> {
    let mut expected = 0;
    for p in &graph.params {
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
