//! Running a bound program.

use super::arena::Memory;
use super::bind::{Bound, BoundStep};
use super::budget::{Budget, Loan};
use super::constants::{Constants, param_shape};
use super::dense::Pairs;
use super::jit::KernelCode;
use super::lookup::lookup;
use super::math::Precision;
use super::microkernel::{dense, dot};
use super::mixer::Plan;
use super::outer::outer;
use super::simd::{Isa, Real};
use crate::check::core::Place;
use crate::interp::{Context, Operand, Tensor, eval_node};
use crate::ir::{Graph, NodeId, NodeType, Op};
use crate::kernel::{Cell, Geometry, Program, Space};
use rustfft::num_complex::Complex;
use std::sync::Arc;

/// Memory one thread works in.
pub struct Workspace<T: Real> {
    /// Rows, and behind them the memory mixers work in: together they are large enough
    /// for huge pages more often than each alone.
    pub arena: Memory,
    /// Complex numbers of scratch memory, and the byte they begin at.
    scratch: (usize, usize),
    /// A segment for results nobody wants.
    spare: Vec<T>,
    _loan: Loan,
}

impl<T: Real> Workspace<T> {
    /// Memory for a binding out of a budget.
    pub fn new(
        program: &Program,
        bound: &Bound,
        constants: &Constants<T>,
        budget: &Arc<Budget>,
    ) -> Workspace<T> {
        let loan = budget.take(Self::bytes(program, bound, constants));
        let (first, numbers) = (rows(bound), constants.scratch(bound.samples));
        Workspace {
            arena: Memory::new(first + numbers * size_of::<Complex<T>>()),
            scratch: (numbers, first),
            spare: vec![T::default(); longest(program)],
            _loan: loan,
        }
    }

    /// Bytes of memory for a binding.
    pub fn bytes(program: &Program, bound: &Bound, constants: &Constants<T>) -> usize {
        let number = T::PRECISION.bytes();
        rows(bound) + number * (2 * constants.scratch(bound.samples) + longest(program))
    }

    /// Memory mixers work in.
    ///
    /// # Safety
    /// Nothing else may refer to it meanwhile; rows may be referred to.
    #[inline(always)]
    unsafe fn scratch<'a>(&mut self) -> &'a mut [Complex<T>] {
        let (numbers, first) = self.scratch;
        // SAFETY: room for it, zeroed at first; its start is on a cache line.
        unsafe {
            let start = self.arena.as_mut_ptr().add(first);
            std::slice::from_raw_parts_mut(start.cast(), numbers)
        }
    }
}

/// Bytes of all rows, in whole cache lines.
fn rows(bound: &Bound) -> usize {
    bound.arena_bytes().next_multiple_of(64)
}

/// Lanes of the longest segment.
fn longest(program: &Program) -> usize {
    let segments = program.geometries.iter().map(Geometry::segment);
    segments.max().unwrap_or(0)
}

/// What a run reads and does not change.
pub struct Executable<'a, T: Real> {
    /// The graph it was lowered from.
    pub graph: &'a Graph,
    /// The program.
    pub program: &'a Program,
    /// Its native code.
    pub code: &'a KernelCode,
    /// Its constants.
    pub constants: &'a Constants<T>,
    /// Its memory layout.
    pub bound: &'a Bound,
    /// Static rows in this layout.
    pub statics: &'a Memory,
    /// Instruction set of the micro-kernels.
    pub isa: Isa,
}

impl<T: Real> Executable<'_, T> {
    /// Runs all steps on `spins`, one configuration after the other; at most
    /// [`Bound::samples`] of them, fewer leave the remaining lanes as they are.
    pub fn run(&self, spins: &[i8], w: &mut Workspace<T>) {
        let samples = spins.len() / self.program.lattice.sites();
        self.run_samples(spins, samples, w);
    }

    /// As [`Executable::run`] for programs that may do without configurations:
    /// those whose inputs the host has written for `samples` configurations.
    pub fn run_samples(&self, spins: &[i8], samples: usize, w: &mut Workspace<T>) {
        assert!(
            w.arena.len() >= self.bound.arena_bytes(),
            "workspace of another binding"
        );
        let samples = samples.min(self.bound.samples);
        for step in &self.bound.steps {
            // SAFETY: the binding gives every row of the program room in the arena,
            // with a margin for shifted reads at both ends.
            unsafe { self.step(step, spins, samples, w) }
        }
    }

    /// The program's outputs for all samples, in f64, one sample after the other.
    pub fn read_all_outputs(&self, samples: usize, w: &Workspace<T>, out: &mut [f64]) {
        let count = self.program.outputs.len();
        for (k, (cell, &offset)) in (self.program.outputs.iter())
            .zip(&self.bound.outputs)
            .enumerate()
        {
            for sample in 0..samples {
                out[sample * count + k] = self.output(*cell, offset, sample, w);
            }
        }
    }

    /// The program's outputs for a sample, in f64.
    pub fn read_outputs(&self, sample: usize, w: &Workspace<T>, out: &mut [f64]) {
        let cells = self.program.outputs.iter().zip(&self.bound.outputs);
        for (out, (cell, &offset)) in out.iter_mut().zip(cells) {
            *out = self.output(*cell, offset, sample, w);
        }
    }

    #[inline(always)]
    fn output(&self, cell: Cell, offset: usize, sample: usize, w: &Workspace<T>) -> f64 {
        match cell {
            Cell::Number(x) => x,
            Cell::Scalar(k) => self.constants.pool64[k as usize],
            // SAFETY: outputs are rows of f64 with a lane per sample.
            Cell::Row(_) => unsafe {
                let row = w.arena.as_ptr().add(offset).cast::<f64>();
                row.add(sample).read()
            },
            Cell::Static(_) => f64::NAN,
        }
    }

    /// Writes a host-written input of one sample: all entries of the input, place
    /// index first. `input` counts [`Program::inputs`].
    pub fn write_input(&self, input: usize, sample: usize, values: &[f64], w: &mut Workspace<T>) {
        let buffer = self.program.inputs[input].1;
        let space = self.program.buffers[buffer.0 as usize].space;
        let rows = &self.bound.inputs[input];
        let arena = w.arena.as_mut_ptr();
        match space {
            Space::Batch => {
                for (&at, &x) in rows.iter().zip(values) {
                    // SAFETY: rows of f64 with a lane per sample.
                    unsafe { *arena.add(at).cast::<f64>().add(sample) = x };
                }
            }
            Space::Site(_) => {
                let g = self.program.geometry(space);
                for (row, &at) in rows.iter().enumerate() {
                    for site in 0..g.sites() {
                        let lane = sample * g.segment() + g.lane(site);
                        let x = T::rounded(values[site * rows.len() + row]);
                        // SAFETY: rows on sites have a segment per sample.
                        unsafe { *arena.add(at).cast::<T>().add(lane) = x };
                    }
                }
            }
        }
    }

    /// The sites of [`Program::site_outputs`] number `output` for a sample, in order.
    pub fn site_values<'w>(
        &self,
        output: usize,
        sample: usize,
        w: &'w Workspace<T>,
    ) -> SiteValues<'w, T> {
        let row = self.program.site_outputs[output];
        let space = self.program.buffers[row.buffer.0 as usize].space;
        let geometry = *self.program.geometry(space);
        let offset = self.bound.site_outputs[output];
        // SAFETY: a row on sites has a segment per sample.
        let segment = unsafe {
            let start = w
                .arena
                .as_ptr()
                .add(offset)
                .cast::<T>()
                .add(sample * geometry.segment());
            std::slice::from_raw_parts(start, geometry.segment())
        };
        SiteValues { segment, geometry }
    }

    /// Evaluates one node for one sample by the reference interpreter.
    unsafe fn reference(
        &self,
        node: NodeId,
        operands: &[Option<Vec<usize>>],
        out: &[usize],
        sample: usize,
        arena: *mut u8,
    ) {
        let site_rows = |ty: &NodeType| match ty.place {
            Place::Site(t) => Some(*self.program.geometry(Space::Site(t))),
            _ => None,
        };
        let shape = |ty: &NodeType| {
            param_shape(self.program, ty).expect("the lattice was checked when lowering")
        };
        let tensors: Vec<Option<Tensor>> = operands
            .iter()
            .zip(self.graph.args(node))
            .map(|(rows, &a)| {
                let rows = rows.as_ref()?;
                let ty = self.graph.ty(a);
                let shape = shape(ty);
                let data = match site_rows(ty) {
                    Some(g) => (0..g.sites() * rows.len())
                        .map(|k| {
                            let lane = sample * g.segment() + g.lane(k / rows.len());
                            unsafe {
                                (*arena.add(rows[k % rows.len()]).cast::<T>().add(lane)).widened()
                            }
                        })
                        .collect(),
                    None => rows
                        .iter()
                        .map(|&r| unsafe { *arena.add(r).cast::<f64>().add(sample) })
                        .collect(),
                };
                Some(Tensor { shape, data })
            })
            .collect();
        let operands: Vec<Operand> = tensors
            .iter()
            .zip(self.graph.args(node))
            .map(|(t, &a)| Operand {
                ty: self.graph.ty(a),
                value: t.as_ref().unwrap_or_else(|| &self.constants.kept[&a]),
            })
            .collect();
        let spins = vec![1; self.program.lattice.sites()];
        let value = Context::new(self.program.lattice, &[], &spins).and_then(|context| {
            eval_node(
                self.graph.op(node),
                self.graph.ty(node),
                &operands,
                &context,
            )
        });
        // an operation that fails at run time (a singular recurrence) yields NaN
        let read = |k: usize| value.as_ref().map_or(f64::NAN, |t| t.data[k]);
        match site_rows(self.graph.ty(node)) {
            Some(g) => {
                for (e, &r) in out.iter().enumerate() {
                    for site in 0..g.sites() {
                        let lane = sample * g.segment() + g.lane(site);
                        unsafe {
                            *arena.add(r).cast::<T>().add(lane) =
                                T::rounded(read(site * out.len() + e))
                        }
                    }
                }
            }
            None => {
                for (k, &r) in out.iter().enumerate() {
                    unsafe { *arena.add(r).cast::<f64>().add(sample) = read(k) }
                }
            }
        }
    }

    unsafe fn step(&self, step: &BoundStep, spins: &[i8], samples: usize, w: &mut Workspace<T>) {
        let arena = w.arena.as_mut_ptr();
        // SAFETY: one mixer works at a time.
        let scratch = unsafe { w.scratch() };
        let row = |offset: usize| unsafe { arena.add(offset).cast::<T>() };
        let segment = |offset: usize, sample: usize, g: &Geometry| unsafe {
            std::slice::from_raw_parts_mut(row(offset).add(sample * g.segment()), g.segment())
        };
        let number =
            |offset: usize, sample: usize| unsafe { arena.add(offset).cast::<f64>().add(sample) };
        match step {
            BoundStep::Spins { out, geometry } => {
                let sites = geometry.sites();
                for sample in 0..samples {
                    let s = &spins[sample * sites..(sample + 1) * sites];
                    geometry.scatter(
                        |site| T::rounded(f64::from(s[site])),
                        segment(*out, sample, geometry),
                    );
                }
            }
            BoundStep::Map {
                kernel,
                space,
                table,
                rows,
                bytes,
            } => {
                let pool = match space {
                    Space::Batch => self.constants.pool_for(Precision::F64, *space),
                    Space::Site(_) => self.constants.pool_for(T::PRECISION, *space),
                };
                let f = self.code.function(*kernel);
                unsafe {
                    f(
                        arena,
                        self.statics.as_ptr(),
                        pool,
                        table.as_ptr(),
                        *rows,
                        *bytes,
                    )
                }
            }
            BoundStep::Dense {
                batch: true,
                products,
                lanes,
            } => {
                for p in products {
                    unsafe { dense::<f64>(self.isa, arena, p, &self.constants.weights64, *lanes) }
                }
            }
            BoundStep::Dense {
                batch: false,
                products,
                lanes,
            } => {
                for p in products {
                    unsafe { dense::<T>(self.isa, arena, p, &self.constants.weights, *lanes) }
                }
            }
            BoundStep::Dot {
                batch,
                tiles,
                lanes,
            } => {
                for tile in tiles {
                    unsafe {
                        if *batch {
                            dot::<f64>(self.isa, arena, tile, *lanes);
                        } else {
                            dot::<T>(self.isa, arena, tile, *lanes);
                        }
                    }
                }
            }
            BoundStep::Lookup {
                table,
                index,
                quads,
                lanes,
            } => {
                let table = &self.constants.tables[*table];
                unsafe { lookup::<T>(self.isa, arena, table, *index, quads, *lanes) }
            }
            BoundStep::Halo { geometry, rows } => {
                for &r in rows {
                    for sample in 0..samples {
                        geometry.fill_halo(segment(r, sample, geometry));
                    }
                }
            }
            BoundStep::Mix {
                mixer,
                geometry,
                channels,
                rows,
            } => {
                let plan = &self.constants.mixers[*mixer];
                if let Plan::Batched(plan) = plan {
                    for sample in 0..samples {
                        let lane = sample * geometry.segment();
                        unsafe { plan.run(geometry, rows, arena, lane, scratch) }
                    }
                    return;
                }
                if let Plan::Dense(plan) = plan {
                    let units = (channels.as_slice(), rows.as_slice());
                    // SAFETY: as for every step.
                    unsafe { plan.run(geometry, units, arena, samples, scratch) }
                    return;
                }
                for (k, (&channels, &(x, out))) in channels.iter().zip(rows).enumerate() {
                    // units are sorted by input
                    let again = samples == 1 && k > 0 && rows[k - 1].0 == x;
                    for sample in 0..samples {
                        let x = x.map(|o| &*segment(o, sample, geometry));
                        let first = segment(out[0].unwrap_or_default(), sample, geometry);
                        let second = match out[1] {
                            Some(o) => segment(o, sample, geometry),
                            None => &mut w.spare,
                        };
                        let out = [first, second];
                        plan.run(geometry, channels, x, out, scratch, again);
                    }
                }
            }
            BoundStep::Pool { geometry, rows } => {
                for &(x, out) in rows {
                    for sample in 0..samples {
                        unsafe {
                            *number(out, sample) = sum(geometry, segment(x, sample, geometry))
                        }
                    }
                }
            }
            BoundStep::PoolProduct { geometry, groups } => {
                for sample in 0..samples {
                    for g in groups {
                        // SAFETY: as for every step.
                        unsafe { outer::<T>(self.isa, arena, g, sample, geometry) }
                    }
                }
            }
            BoundStep::Correlate {
                correlation,
                geometry,
                channels,
                out,
            } => {
                let plan = &self.constants.correlators[*correlation];
                for (c, rows) in channels.iter().enumerate() {
                    for sample in 0..samples {
                        let read = |k: usize, part: usize| {
                            let rows = &rows[k];
                            &*segment(rows[part.min(rows.len() - 1)], sample, geometry)
                        };
                        plan.run(
                            self.isa,
                            geometry,
                            (c, channels.len()),
                            &[read(0, 0), read(0, 1)],
                            &[read(1, 0), read(1, 1)],
                            scratch,
                            &mut |result, row, value| unsafe {
                                *number(out[result][row], sample) = value;
                            },
                        );
                    }
                }
            }
            BoundStep::Spread { geometry, rows } => {
                for &(x, out) in rows {
                    for sample in 0..samples {
                        segment(out, sample, geometry)
                            .fill(T::rounded(unsafe { *number(x, sample) }));
                    }
                }
            }
            BoundStep::Reference {
                node,
                operands,
                out,
            } => {
                if let (&Op::MixGrad { complex }, [Some(a), Some(b)]) =
                    (self.graph.op(*node), operands.as_slice())
                    && let Place::Site(token) = self.graph.ty(self.graph.args(*node)[0]).place
                    && a.len() == b.len()
                {
                    let pairs = Pairs {
                        complex,
                        factors: [a, b],
                        out,
                    };
                    let geometry = self.program.geometry(Space::Site(token));
                    // SAFETY: as for every step.
                    unsafe { pairs.run::<T>(geometry, arena, samples) }
                    return;
                }
                for sample in 0..samples {
                    // SAFETY: as for every step.
                    unsafe { self.reference(*node, operands, out, sample, arena) }
                }
            }
            BoundStep::Gather { geometry, rows } => {
                for (x, out) in rows {
                    for (site, &o) in out.iter().enumerate() {
                        let lane = geometry.lane(site);
                        for sample in 0..samples {
                            let lane = sample * geometry.segment() + lane;
                            unsafe { *number(o, sample) = (*row(*x).add(lane)).widened() }
                        }
                    }
                }
            }
            BoundStep::Patch {
                fine,
                coarse,
                ratio,
                rows,
                back,
            } => {
                for (from, part, to) in rows {
                    for sample in 0..samples {
                        let (f, c) = if *back { (*to, *from) } else { (*from, *to) };
                        let (f, c) = (segment(f, sample, fine), segment(c, sample, coarse));
                        for x in 0..coarse.extent[0] {
                            let line_c = coarse.origin() + x * coarse.stride();
                            let line_f =
                                fine.origin() + (x * ratio[0] + part[0]) * fine.stride() + part[1];
                            for y in 0..coarse.extent[1] {
                                if *back {
                                    f[line_f + y * ratio[1]] = c[line_c + y];
                                } else {
                                    c[line_c + y] = f[line_f + y * ratio[1]];
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A view of one row's sites.
pub struct SiteValues<'w, T> {
    segment: &'w [T],
    geometry: Geometry,
}

impl<T: Real> SiteValues<'_, T> {
    /// The value at a site (row-major index).
    pub fn at(&self, site: usize) -> f64 {
        self.segment[self.geometry.lane(site)].widened()
    }
}

/// Sum over the sites of a segment in f64, eight partial sums at a time.
fn sum<T: Real>(g: &Geometry, segment: &[T]) -> f64 {
    let mut partial = [0.0; 8];
    let mut rest = 0.0;
    // a chain has one value per x
    let (lines, length, stride) = if g.extent[1] == 1 && g.stride() == 1 {
        (1, g.extent[0], 0)
    } else {
        (g.extent[0], g.extent[1], g.stride())
    };
    for x in 0..lines {
        let line = &segment[g.origin() + x * stride..][..length];
        let chunks = line.chunks_exact(8);
        rest += chunks.remainder().iter().map(|v| v.widened()).sum::<f64>();
        for c in chunks {
            for (p, v) in partial.iter_mut().zip(c) {
                *p += v.widened();
            }
        }
    }
    partial.iter().sum::<f64>() + rest
}
