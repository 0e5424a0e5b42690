//! Ahead-of-time code: an object file and its C header.
//!
//! The object evaluates log psi of one network on one lattice with one set of
//! parameters: what follows from parameters (packed weights, static rows, kernels
//! of mixers) is computed here and stored as data. Its code is the same loop-level
//! program that runs in this process, with the steps between the fused loops as
//! small routines and mixers by direct sums, so that it needs nothing but the C
//! mathematics library.

mod entry;
mod header;
mod mixing;
mod routines;

use super::bind::{Bound, BoundStep, KernelPlan};
use super::compiled::{CompileError, Compiled};
use super::constants::{ConstantError, Constants, tensors};
use super::jit::{Compiler, JitError, define_kernel, host_isa, library_calls};
use super::math::{LibFn, Precision};
use super::simd::Real;
use crate::ir::Graph;
use crate::kernel::lower::lower_without_tables;
use crate::kernel::{Cell, Geometry, LowerError, Program, Row, Space, Step};
use cranelift_module::{DataDescription, FuncId, Module, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use routines::Routines;
use rustfft::FftPlanner;
use std::collections::{BTreeMap, HashMap};

/// An object file for this machine and the header to use it with.
#[derive(Clone, Debug)]
pub struct Object {
    /// Contents of the `.o` file.
    pub bytes: Vec<u8>,
    /// Contents of the `.h` file.
    pub header: String,
}

/// What the driver does, step by step: a routine and its arguments.
struct Call {
    routine: FuncId,
    arguments: Vec<Argument>,
}

#[derive(Clone, Copy)]
enum Argument {
    Number(i64),
    /// Offset into the workspace.
    Arena(i64),
    /// Offset into the data of the object.
    Data(usize),
    /// The configuration.
    Spins,
}

/// Read-only data under construction.
#[derive(Default)]
struct Data(Vec<u8>);

impl Data {
    fn align(&mut self) -> usize {
        self.0.resize(self.0.len().next_multiple_of(64), 0);
        self.0.len()
    }
    fn table(&mut self, entries: &[usize]) -> Argument {
        let at = self.align();
        (self.0).extend(entries.iter().flat_map(|&x| (x as i32).to_le_bytes()));
        Argument::Data(at)
    }
    fn bytes(&mut self, bytes: &[u8]) -> Argument {
        let at = self.align();
        self.0.extend_from_slice(bytes);
        Argument::Data(at)
    }
    fn numbers(&mut self, precision: Precision, values: impl IntoIterator<Item = f64>) -> Argument {
        let at = self.align();
        for x in values {
            match precision {
                Precision::F32 => self.0.extend((x as f32).to_le_bytes()),
                Precision::F64 => self.0.extend(x.to_le_bytes()),
            }
        }
        Argument::Data(at)
    }
}

/// Compiles `network` at its present parameters for use from C, under names that
/// start with `dnet_` and `name`.
///
/// # Errors
/// Steps that only this process can run (nodes evaluated by the interpreter), and
/// failures of code generation.
pub fn object<T: Real>(network: &Compiled<T>, name: &str) -> Result<Object, CompileError> {
    let name = format!("dnet_{}", identifier(name));
    let program = lower_without_tables(network.graph(), network.lattice(), &[], &[])?;
    let mut writer = Writer::<T>::new(network, &program, &name)?;
    for (k, step) in program.steps.iter().enumerate() {
        writer.step(k, step)?;
    }
    let workspace = writer.bound.arena_bytes();
    let bytes = writer.finish(&name)?;
    Ok(Object {
        bytes,
        header: header::header(network, &program, &name, workspace),
    })
}

fn unsupported(what: &str) -> CompileError {
    LowerError::Unsupported(format!("{what} in an object file")).into()
}

/// A name as C allows it.
fn identifier(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}

struct Writer<'a, T: Real> {
    graph: &'a Graph,
    program: &'a Program,
    module: ObjectModule,
    bound: Bound,
    constants: Constants<T>,
    mixers: Vec<mixing::MixKernel>,
    routines: Routines,
    kernels: HashMap<(crate::kernel::Expr, Precision), FuncId>,
    libraries: BTreeMap<(LibFn, bool), FuncId>,
    data: Data,
    calls: Vec<Call>,
    statics: Argument,
    pools: [Argument; 2],
}

impl<'a, T: Real> Writer<'a, T> {
    fn new(
        network: &'a Compiled<T>,
        program: &'a Program,
        name: &str,
    ) -> Result<Writer<'a, T>, CompileError> {
        let params = tensors(network.graph(), program, network.params(), &[]);
        let params = params.map_err(ConstantError::from)?;
        let mut planner = (FftPlanner::new(), FftPlanner::new());
        let constants = Constants::<T>::portable(network.graph(), program, &params, &mut planner)?;
        let plan = KernelPlan::new(program, T::PRECISION, &mut Compiler::new(false)?)?;
        let bound = Bound::new(program, &plan, 1);
        if !bound.addressable() {
            return Err(CompileError::TooLarge);
        }
        let builder = ObjectBuilder::new(host_isa(true)?, name, default_libcall_names());
        let mut module = ObjectModule::new(builder.map_err(JitError::new)?);
        let routines = Routines::new(&mut module, T::PRECISION)?;
        let mut data = Data::default();
        let memory = bound.static_memory(program, &constants);
        // SAFETY: the memory is that long.
        let rows = unsafe { std::slice::from_raw_parts(memory.as_ptr(), memory.len()) };
        let statics = data.bytes(rows);
        let pools = [
            data.numbers(T::PRECISION, constants.pool64.iter().copied()),
            data.numbers(Precision::F64, constants.pool64.iter().copied()),
        ];
        let mixers = mixing::kernels(network, program, &constants, &mut data)?;
        Ok(Writer {
            graph: network.graph(),
            program,
            module,
            bound,
            constants,
            mixers,
            routines,
            kernels: HashMap::new(),
            libraries: BTreeMap::new(),
            data,
            calls: Vec::new(),
            statics,
            pools,
        })
    }

    fn offset(&self, row: &Row) -> usize {
        self.bound.offset(self.program, *row)
    }

    fn geometry(&self, row: &Row) -> Geometry {
        *(self.program).geometry(self.program.buffers[row.buffer.0 as usize].space)
    }

    /// Offsets of the sites of a row.
    fn sites(&self, row: &Row) -> Vec<usize> {
        let (g, at) = (self.geometry(row), self.offset(row));
        (0..g.sites())
            .map(|site| at + g.lane(site) * T::PRECISION.bytes())
            .collect()
    }

    fn call(&mut self, routine: FuncId, arguments: Vec<Argument>) {
        self.calls.push(Call { routine, arguments });
    }

    /// A call of a routine `(arena, table, n, ..)`.
    fn listed(&mut self, routine: FuncId, table: &[usize], n: usize, more: &[Argument]) {
        let table = self.data.table(table);
        let mut arguments = vec![Argument::Arena(0), table, Argument::Number(n as i64)];
        arguments.extend_from_slice(more);
        self.call(routine, arguments);
    }

    /// Copies site by site.
    fn copies(&mut self, routine: FuncId, pairs: impl Iterator<Item = (usize, usize)>) {
        let table: Vec<usize> = pairs.flat_map(|(from, to)| [from, to]).collect();
        self.listed(routine, &table, table.len() / 2, &[]);
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
        Argument::Number(bytes)
    }

    fn precision(&self, space: Space) -> Precision {
        match space {
            Space::Batch => Precision::F64,
            Space::Site(_) => T::PRECISION,
        }
    }

    fn step(&mut self, number: usize, step: &Step) -> Result<(), CompileError> {
        match step {
            Step::Spins { out } => {
                let (sites, g) = (self.sites(out), self.geometry(out));
                let table: Vec<usize> = (sites.iter().enumerate())
                    .flat_map(|(site, &at)| [at, site])
                    .collect();
                let routine = self.routines.spins;
                self.listed(routine, &table, g.sites(), &[Argument::Spins]);
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
                let routine = self.kernel(expr, precision)?;
                let BoundStep::Map { table, .. } = &self.bound.steps[number] else {
                    unreachable!("bound steps are in order")
                };
                let table: Vec<usize> = table.iter().map(|&x| x as usize).collect();
                let table = self.data.table(&table);
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
                    let weights = g.weights.iter().map(|w| match *w {
                        Cell::Scalar(k) => pool[k as usize],
                        Cell::Number(x) => x,
                        Cell::Row(_) | Cell::Static(_) => f64::NAN,
                    });
                    let weights = self.data.numbers(self.precision(*space), weights);
                    let table = self.data.table(&table);
                    let [k, m] = [g.x.len(), g.out.len()].map(|n| Argument::Number(n as i64));
                    let bytes = self.bytes(number);
                    let routine = self.routines.dense[which];
                    self.call(
                        routine,
                        vec![Argument::Arena(0), table, weights, k, m, bytes],
                    );
                }
            }
            Step::Dot { space, rows } => {
                let routine = self.routines.dot[usize::from(*space == Space::Batch)];
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
                for c in channels {
                    self.mix(*mixer, c);
                }
            }
            Step::Pool { rows } => {
                for (x, out) in rows {
                    let sites = self.sites(x);
                    let table: Vec<usize> = [self.offset(out)].into_iter().chain(sites).collect();
                    let routine = self.routines.pool;
                    self.listed(routine, &table, table.len() - 1, &[]);
                }
            }
            Step::PoolProduct { groups, .. } => {
                for g in groups {
                    let pairs = g.a.iter().flat_map(|a| g.b.iter().map(move |b| (a, b)));
                    for ((a, b), out) in pairs.zip(&g.out) {
                        let sites = self.sites(a).into_iter().zip(self.sites(b));
                        let factors = sites.flat_map(|(a, b)| [a, b]);
                        let table: Vec<usize> =
                            [self.offset(out)].into_iter().chain(factors).collect();
                        let routine = self.routines.pool_product;
                        self.listed(routine, &table, table.len() / 2, &[]);
                    }
                }
            }
            Step::Spread { rows } => {
                for (x, out) in rows {
                    let (from, to) = (self.offset(x), self.sites(out));
                    let routine = self.routines.narrow;
                    self.copies(routine, to.into_iter().map(|to| (from, to)));
                    self.halo(out);
                }
            }
            Step::Gather { rows } => {
                for (x, out) in rows {
                    let to: Vec<usize> = out.iter().map(|r| self.offset(r)).collect();
                    let (routine, from) = (self.routines.widen, self.sites(x));
                    self.copies(routine, from.into_iter().zip(to));
                }
            }
            Step::Patch { ratio, rows } => {
                for (fine, part, coarse) in rows {
                    let (fine, coarse) = self.parts(fine, *ratio, *part, coarse);
                    let routine = self.routines.copy;
                    self.copies(routine, fine.into_iter().zip(coarse));
                }
            }
            Step::Unpatch { ratio, rows } => {
                for (coarse, part, fine) in rows {
                    let (fine, coarse) = self.parts(fine, *ratio, *part, coarse);
                    let routine = self.routines.copy;
                    self.copies(routine, coarse.into_iter().zip(fine));
                }
            }
            Step::Reference { node, .. } => {
                let op = format!("{:?}", self.graph.op(*node));
                let op: String = op.chars().take_while(|c| c.is_alphanumeric()).collect();
                return Err(unsupported(&format!(
                    "the operation {op}, which the interpreter evaluates,"
                )));
            }
            _ => return Err(unsupported("a derivative")),
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
        let [copy, clear] = [self.routines.copy, self.routines.clear];
        if !pairs.is_empty() {
            self.copies(copy, pairs.into_iter());
        }
        if !zeros.is_empty() {
            self.listed(clear, &zeros, zeros.len(), &[]);
        }
    }

    fn mix(&mut self, mixer: usize, c: &crate::kernel::MixChannel) {
        let m = &self.mixers[mixer];
        let (shape, origin, [re, im, minus]) = (m.shape, m.origin, m.channels[c.channel]);
        let row = |r: &Row| Argument::Arena((self.offset(r) + origin) as i64);
        let x: Vec<Argument> = c.x.iter().map(row).collect();
        let y: Vec<Argument> = c.out.iter().map(row).collect();
        let [set, add] = self.routines.mix;
        let calls = if m.complex {
            vec![
                (set, x[0], y[0], re),
                (add, x[1], y[0], minus),
                (set, x[0], y[1], im),
                (add, x[1], y[1], re),
            ]
        } else {
            vec![(set, x[0], y[0], re)]
        };
        for (routine, x, y, kernel) in calls {
            self.call(routine, vec![x, y, kernel, shape]);
        }
    }

    fn kernel(
        &mut self,
        expr: &crate::kernel::Expr,
        precision: Precision,
    ) -> Result<FuncId, JitError> {
        let key = (expr.clone(), precision);
        if let Some(&known) = self.kernels.get(&key) {
            return Ok(known);
        }
        let mut libraries = BTreeMap::new();
        for f in library_calls(expr) {
            let key = (f, precision == Precision::F64);
            let id = match self.libraries.get(&key) {
                Some(&id) => id,
                None => routines::library(&mut self.module, f, precision)?,
            };
            self.libraries.insert(key, id);
            libraries.insert(f, id);
        }
        let name = format!("kernel_{}", self.kernels.len());
        let id = define_kernel(&mut self.module, &name, (expr, precision), &libraries)?;
        self.kernels.insert(key, id);
        Ok(id)
    }

    /// Defines the entry points and writes everything.
    fn finish(mut self, name: &str) -> Result<Vec<u8>, CompileError> {
        let data = self.module.declare_anonymous_data(false, false);
        let data = data.map_err(JitError::new)?;
        let mut description = DataDescription::new();
        description.set_align(64);
        description.define(std::mem::take(&mut self.data.0).into_boxed_slice());
        let defined = self.module.define_data(data, &description);
        defined.map_err(JitError::new)?;
        let bytes = self.bound.arena_bytes() as i64;
        let (outputs, places) = (&self.program.outputs, &self.bound.outputs);
        let results: Vec<Result<usize, f64>> = (outputs.iter().zip(places))
            .map(|(cell, &at)| match *cell {
                Cell::Row(_) => Ok(at),
                Cell::Scalar(k) => Err(self.constants.pool64[k as usize]),
                Cell::Number(x) => Err(x),
                Cell::Static(_) => Err(f64::NAN),
            })
            .collect();
        let sites = self.program.lattice.sites() as i64;
        entry::points(
            &mut self.module,
            name,
            &self.calls,
            data,
            (&results, sites, bytes),
        )?;
        let product = self.module.finish();
        Ok(product.emit().map_err(JitError::new)?)
    }
}
