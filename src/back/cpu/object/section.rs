//! One loop-level program inside an object file: its memory, its constants and
//! the calls of routines that its steps become.

use super::super::bind::{Bound, BoundStep, KernelPlan};
use super::super::compiled::CompileError;
use super::super::constants::{ConstantError, Constants, tensors};
use super::super::jit::Compiler;
use super::super::math::Precision;
use super::super::simd::Real;
use super::super::tables::TableProgram;
use super::mixing::{MixKernel, Scratch, kernels};
use super::{Argument, Call, Writer};
use crate::ir::Graph;
use crate::kernel::{Cell, Geometry, Program, Row, Space, Step};
use cranelift_module::FuncId;
use rustfft::FftPlanner;

/// What a section computes, for which parameters.
pub(super) struct Source<'s> {
    pub(super) graph: &'s Graph,
    pub(super) program: Program,
    /// All parameters but the inputs.
    pub(super) theta: &'s [f64],
    /// Parameters that are values per configuration.
    pub(super) inputs: &'s [u32],
}

/// A program under construction. Offsets count from the start of its own memory.
pub(super) struct Section<'s, 'w, T: Real> {
    pub(super) out: &'w mut Writer,
    pub(super) graph: &'s Graph,
    pub(super) program: Program,
    pub(super) bound: Bound,
    pub(super) constants: Constants<T>,
    /// Numbers of the tables: entry by entry their columns.
    pub(super) tables: Vec<Vec<f64>>,
    pub(super) mixers: Vec<MixKernel>,
    pub(super) scratch: Scratch,
    calls: Vec<Call>,
    statics: Argument,
    pools: [Argument; 2],
}

/// A finished section.
pub(super) struct Finished {
    pub(super) calls: Vec<Call>,
    /// Bytes of memory.
    pub(super) bytes: i64,
    /// Numbers of the result.
    pub(super) width: usize,
    /// Byte offset of site values: by output, per site.
    pub(super) sites: Vec<Vec<usize>>,
}

impl<'s, 'w, T: Real> Section<'s, 'w, T> {
    /// Turns a program into calls: reads its inputs from [`Argument::Given`] and
    /// writes its outputs, in f64, to [`Argument::Out`].
    ///
    /// # Errors
    /// Steps that only this process can run, and failures of code generation.
    pub(super) fn write(out: &'w mut Writer, source: Source<'s>) -> Result<Finished, CompileError> {
        let mut section = Self::new(out, source)?;
        let program = section.program.clone();
        for (number, step) in program.steps.iter().enumerate() {
            section.step(number, step)?;
        }
        section.results();
        let sites = (program.site_outputs.iter())
            .map(|row| section.sites(row))
            .collect();
        Ok(Finished {
            bytes: section.scratch.end() as i64,
            width: program.outputs.len(),
            calls: section.calls,
            sites,
        })
    }

    fn new(out: &'w mut Writer, source: Source<'s>) -> Result<Self, CompileError> {
        let Source {
            graph,
            program,
            theta,
            inputs,
        } = source;
        let params = tensors(graph, &program, theta, inputs).map_err(ConstantError::from)?;
        let tables = match &program.tables {
            Some(tables) => TableProgram::new(tables, &params)?.numbers(tables, &params)?,
            None => Vec::new(),
        };
        let mut planner = (FftPlanner::new(), FftPlanner::new());
        let constants = Constants::<T>::portable(graph, &program, &params, &mut planner)?;
        let plan = KernelPlan::new(&program, T::PRECISION, &mut Compiler::new(false)?)?;
        let bound = Bound::new(&program, &plan, 1);
        let scratch = Scratch::new(&program, T::PRECISION, bound.arena_bytes());
        if !bound.addressable() || scratch.end() > i32::MAX as usize {
            return Err(CompileError::TooLarge);
        }
        let memory = bound.static_memory(&program, &constants);
        // SAFETY: the memory is that long.
        let rows = unsafe { std::slice::from_raw_parts(memory.as_ptr(), memory.len()) };
        let statics = out.params.bytes(rows);
        let pools = [T::PRECISION, Precision::F64]
            .map(|p| out.params.numbers(p, constants.pool64.iter().copied()));
        let mixers = kernels(graph, &program, theta, &constants, &mut *out)?;
        let mut section = Section {
            out,
            graph,
            program,
            bound,
            constants,
            tables,
            mixers,
            scratch,
            calls: Vec::new(),
            statics,
            pools,
        };
        section.given(inputs);
        Ok(section)
    }

    /// Copies the inputs, one after the other in the order of `inputs`.
    fn given(&mut self, inputs: &[u32]) {
        let mut first = 0;
        for &k in inputs {
            let known = self.program.inputs.iter().position(|i| i.0 == k);
            let ty = &self.graph.params[k as usize].ty;
            let shape = super::super::constants::param_shape(&self.program, ty);
            let length: usize = shape.map_or(0, |s| s.iter().product());
            if let Some(input) = known {
                let buffer = self.program.inputs[input].1;
                let rows = self.bound.inputs[input].clone();
                let space = self.program.buffers[buffer.0 as usize].space;
                let (routine, table): (FuncId, Vec<usize>) = match space {
                    Space::Batch => {
                        let pair = |(r, to): (usize, &usize)| [8 * (first + r), *to];
                        let table = rows.iter().enumerate().flat_map(pair);
                        (self.out.routines.copy64, table.collect())
                    }
                    Space::Site(_) => {
                        let g = *self.program.geometry(space);
                        let size = T::PRECISION.bytes();
                        let mut table = Vec::new();
                        for (r, at) in rows.iter().enumerate() {
                            for site in 0..g.sites() {
                                let from = 8 * (first + site * rows.len() + r);
                                table.extend([from, at + g.lane(site) * size]);
                            }
                        }
                        (self.out.routines.narrow, table)
                    }
                };
                let count = Argument::Number(table.len() as i64 / 2);
                let table = self.out.tables.offsets(&table);
                let (from, to) = (Argument::Given, Argument::Arena(0));
                self.call(routine, vec![from, to, table, count]);
            }
            first += length;
        }
    }

    /// Copies the outputs to where they are wanted.
    fn results(&mut self) {
        let (mut rows, mut scalars, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        let mut known = Vec::new();
        for (k, (cell, &at)) in self
            .program
            .outputs
            .iter()
            .zip(&self.bound.outputs)
            .enumerate()
        {
            match *cell {
                Cell::Row(_) => rows.extend([at, 8 * k]),
                Cell::Scalar(s) => scalars.extend([8 * s as usize, 8 * k]),
                Cell::Number(x) => {
                    numbers.extend([8 * known.len(), 8 * k]);
                    known.push(x);
                }
                Cell::Static(_) => unreachable!("outputs are values per configuration"),
            }
        }
        let known = self.out.tables.numbers(Precision::F64, known);
        let sources = [
            (Argument::Arena(0), rows),
            (self.pools[1], scalars),
            (known, numbers),
        ];
        for (from, table) in sources {
            if !table.is_empty() {
                let count = Argument::Number(table.len() as i64 / 2);
                let table = self.out.tables.offsets(&table);
                let routine = self.out.routines.copy64;
                self.call(routine, vec![from, Argument::Out, table, count]);
            }
        }
    }

    pub(super) fn offset(&self, row: &Row) -> usize {
        self.bound.offset(&self.program, *row)
    }

    fn geometry(&self, row: &Row) -> Geometry {
        *self
            .program
            .geometry(self.program.buffers[row.buffer.0 as usize].space)
    }

    /// Offsets of the sites of a row.
    pub(super) fn sites(&self, row: &Row) -> Vec<usize> {
        let (g, at) = (self.geometry(row), self.offset(row));
        (0..g.sites())
            .map(|site| at + g.lane(site) * T::PRECISION.bytes())
            .collect()
    }

    /// Offset of the first site of a row; lines, sites of a line, bytes between lines.
    pub(super) fn lines(&self, row: &Row) -> (usize, [usize; 3]) {
        let (g, size) = (self.geometry(row), T::PRECISION.bytes());
        let mut lines = g.lines();
        let (_, lane, length) = lines.next().unwrap_or_default();
        let count = lines.count() + 1;
        let shape = [count, length, g.stride() * size];
        (self.offset(row) + lane * size, shape)
    }

    pub(super) fn call(&mut self, routine: FuncId, arguments: Vec<Argument>) {
        self.calls.push(Call { routine, arguments });
    }

    /// A call of a routine `(arena, table, n, ..)`.
    fn listed(&mut self, routine: FuncId, table: &[usize], n: usize, more: &[Argument]) {
        let table = self.out.tables.offsets(table);
        let mut arguments = vec![Argument::Arena(0), table, Argument::Number(n as i64)];
        arguments.extend_from_slice(more);
        self.call(routine, arguments);
    }

    /// Copies site by site.
    pub(super) fn copies(&mut self, routine: FuncId, pairs: impl Iterator<Item = (usize, usize)>) {
        let table: Vec<usize> = pairs.flat_map(|(from, to)| [from, to]).collect();
        let count = Argument::Number(table.len() as i64 / 2);
        let table = self.out.tables.offsets(&table);
        let arena = Argument::Arena(0);
        self.call(routine, vec![arena, arena, table, count]);
    }

    /// Bytes of the rows a step works on.
    fn bytes(&self, step: usize) -> Argument {
        let bytes = match self.bound.steps[step] {
            BoundStep::Map { bytes, .. } => bytes,
            BoundStep::Dense { batch, lanes, .. } | BoundStep::Dot { batch, lanes, .. } => {
                let precision = if batch { Precision::F64 } else { T::PRECISION };
                (lanes * precision.bytes()) as i64
            }
            _ => 0,
        };
        debug_assert!(bytes % 64 == 0, "rows are whole cache lines");
        Argument::Number(bytes)
    }

    fn precision(&self, space: Space) -> Precision {
        match space {
            Space::Batch => Precision::F64,
            Space::Site(_) => T::PRECISION,
        }
    }

    pub(super) fn step(&mut self, number: usize, step: &Step) -> Result<(), CompileError> {
        match step {
            Step::Spins { out } => {
                let (sites, g) = (self.sites(out), self.geometry(out));
                let table: Vec<usize> = (sites.iter().enumerate())
                    .flat_map(|(site, &at)| [at, site])
                    .collect();
                let routine = self.out.routines.spins;
                self.listed(routine, &table, g.sites(), &[Argument::Given]);
                self.halo(out);
            }
            Step::Halo { buffer } => {
                for row in 0..self.program.buffers[buffer.0 as usize].rows {
                    self.halo(&Row {
                        buffer: *buffer,
                        row,
                        shift: 0,
                    });
                }
            }
            Step::Map { space, expr, rows } => {
                let precision = self.precision(*space);
                let routine = self.out.kernel(expr, precision)?;
                let BoundStep::Map { table, .. } = &self.bound.steps[number] else {
                    unreachable!("bound steps are in order")
                };
                let table: Vec<usize> = table.iter().map(|&x| x as usize).collect();
                let table = self.out.tables.offsets(&table);
                let pool = self.pools[usize::from(*space == Space::Batch)];
                let bytes = self.bytes(number);
                let count = Argument::Number(rows.len() as i64);
                let (arena, statics) = (Argument::Arena(0), self.statics);
                self.call(routine, vec![arena, statics, pool, table, count, bytes]);
            }
            Step::Dense { space, groups } => {
                let which = usize::from(*space == Space::Batch);
                for g in groups {
                    let rows = g.x.iter().chain(&g.out);
                    let table: Vec<usize> = rows.map(|r| self.offset(r)).collect();
                    let pool = &self.constants.pool64;
                    let weights: Vec<f64> = (g.weights.iter())
                        .map(|w| match *w {
                            Cell::Scalar(k) => pool[k as usize],
                            Cell::Number(x) => x,
                            Cell::Row(_) | Cell::Static(_) => f64::NAN,
                        })
                        .collect();
                    let precision = self.precision(*space);
                    let weights = self.out.params.numbers(precision, weights);
                    let table = self.out.tables.offsets(&table);
                    let [k, m] = [g.x.len(), g.out.len()].map(|n| Argument::Number(n as i64));
                    let bytes = self.bytes(number);
                    let routine = self.out.routines.dense[which];
                    self.call(
                        routine,
                        vec![Argument::Arena(0), table, weights, k, m, bytes],
                    );
                }
            }
            Step::Dot { space, rows } => {
                let routine = self.out.routines.dot[usize::from(*space == Space::Batch)];
                let bytes = self.bytes(number);
                for (out, factors) in rows {
                    let pairs = factors.iter().flat_map(|(a, b)| [a, b]);
                    let table: Vec<usize> = [out]
                        .into_iter()
                        .chain(pairs)
                        .map(|r| self.offset(r))
                        .collect();
                    self.listed(routine, &table, factors.len(), &[bytes]);
                }
            }
            Step::Mix { mixer, channels } => {
                self.mix(*mixer, channels)?;
            }
            Step::Pool { rows } => {
                let table: Vec<usize> = (rows.iter())
                    .flat_map(|(x, out)| [self.lines(x).0, self.offset(out)])
                    .collect();
                let shape = self.lines(&rows[0].0).1;
                let shape = self.out.tables.words(&shape);
                let routine = self.out.routines.pool;
                self.listed(routine, &table, rows.len(), &[shape]);
            }
            Step::PoolProduct { groups, .. } => {
                for g in groups {
                    let factors = g.a.iter().chain(&g.b).map(|r| self.lines(r).0);
                    let results = g.out.iter().map(|r| self.offset(r));
                    let table: Vec<usize> = factors.chain(results).collect();
                    let shape = self.lines(&g.a[0]).1;
                    let shape = self.out.tables.words(&shape);
                    let right = Argument::Number(g.b.len() as i64);
                    let routine = self.out.routines.outer;
                    self.listed(routine, &table, g.a.len(), &[right, shape]);
                }
            }
            Step::Spread { rows } => {
                for (x, out) in rows {
                    let (from, to) = (self.offset(x), self.sites(out));
                    let routine = self.out.routines.narrow;
                    self.copies(routine, to.into_iter().map(|to| (from, to)));
                    self.halo(out);
                }
            }
            Step::Gather { rows } => {
                for (x, out) in rows {
                    let to: Vec<usize> = out.iter().map(|r| self.offset(r)).collect();
                    let (routine, from) = (self.out.routines.widen, self.sites(x));
                    self.copies(routine, from.into_iter().zip(to));
                }
            }
            Step::Patch { ratio, rows } => {
                for (fine, part, coarse) in rows {
                    let (fine, coarse) = self.parts(fine, *ratio, *part, coarse);
                    let routine = self.out.routines.copy;
                    self.copies(routine, fine.into_iter().zip(coarse));
                }
            }
            Step::Unpatch { ratio, rows } => {
                for (coarse, part, fine) in rows {
                    let (fine, coarse) = self.parts(fine, *ratio, *part, coarse);
                    let routine = self.out.routines.copy;
                    self.copies(routine, coarse.into_iter().zip(fine));
                }
            }
            Step::Reference {
                node,
                operands,
                out,
            } => self.reference(*node, operands, out)?,
            Step::Correlate {
                correlation,
                channels,
                out,
            } => self.correlate(*correlation, channels, out)?,
            Step::Lookup {
                table, index, rows, ..
            } => self.look_up(number, (*table, index), rows)?,
        }
        Ok(())
    }

    /// One part of every coarse token, and the token.
    fn parts(
        &self,
        fine: &Row,
        ratio: [usize; 2],
        part: [usize; 2],
        coarse: &Row,
    ) -> (Vec<usize>, Vec<usize>) {
        let (all, tokens) = (self.sites(fine), self.sites(coarse));
        let (f, c) = (self.geometry(fine), self.geometry(coarse));
        let site = |token: usize| {
            let at = [token / c.extent[1], token % c.extent[1]];
            let at = [0, 1].map(|a| at[a] * ratio[a] + part[a]);
            at[0] * f.extent[1] + at[1]
        };
        ((0..tokens.len()).map(|t| all[site(t)]).collect(), tokens)
    }

    /// Fills the halo of a row.
    fn halo(&mut self, row: &Row) {
        let (g, at) = (self.geometry(row), self.offset(row));
        if g.halo == [0, 0] {
            return;
        }
        // what a halo holds is seen by filling one with numbers of sites
        let mut numbers = vec![0usize; g.segment()];
        g.scatter(|site| site + 1, &mut numbers);
        let own: Vec<usize> = (0..g.sites()).map(|site| g.lane(site)).collect();
        let size = T::PRECISION.bytes();
        let (mut pairs, mut zeros) = (Vec::new(), Vec::new());
        for (lane, &n) in numbers.iter().enumerate() {
            match n {
                0 => zeros.push(at + lane * size),
                n if own[n - 1] != lane => pairs.push((at + own[n - 1] * size, at + lane * size)),
                _ => {}
            }
        }
        let [copy, clear] = [self.out.routines.copy, self.out.routines.clear];
        if !pairs.is_empty() {
            self.copies(copy, pairs.into_iter());
        }
        if !zeros.is_empty() {
            self.listed(clear, &zeros, zeros.len(), &[]);
        }
    }
}
