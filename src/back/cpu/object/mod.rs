//! Ahead-of-time code: an object file and its C header.
//!
//! The object evaluates log psi of one network on one lattice with one set of
//! parameters: what follows from parameters (packed weights, static rows, kernels
//! of mixers) is computed here and stored as data. Its code is the same loop-level
//! program that runs in this process, with the steps between the fused loops as
//! small routines and mixers by direct sums, so that it needs nothing but the C
//! mathematics library.

mod routines;

use super::bind::{Bound, BoundStep, KernelPlan};
use super::compiled::{CompileError, Compiled};
use super::constants::{ConstantError, Constants, tensors};
use super::jit::{Compiler, JitError, define_kernel, host_isa};
use super::kernels::Kernels;
use super::math::{LibFn, Precision};
use super::response::{Coefficients, Layout};
use super::simd::Real;
use crate::interp::{Tensor, evaluate_node};
use crate::ir::{Boundary, Op};
use crate::kernel::lower::lower;
use crate::kernel::{Cell, Geometry, LowerError, Program, Row, Space, Step};
use cranelift_codegen::ir::types;
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_module::{DataDescription, DataId, FuncId, Linkage, Module, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use num_complex::Complex64;
use routines::{Code, MixShape, Routines, define};
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
    let program = lower(network.graph(), network.lattice(), &[])?;
    let mut writer = Writer::<T>::new(network, &program, &name)?;
    for (k, step) in program.steps.iter().enumerate() {
        writer.step(k, step)?;
    }
    let workspace = writer.bound.arena_bytes();
    let bytes = writer.finish(&name)?;
    Ok(Object {
        bytes,
        header: header(network, &program, &name, workspace),
    })
}

/// A name as C allows it.
fn identifier(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}

struct Writer<'a, T: Real> {
    program: &'a Program,
    module: ObjectModule,
    bound: Bound,
    constants: Constants<T>,
    mixers: Vec<MixKernel>,
    routines: Routines,
    kernels: HashMap<(crate::kernel::Expr, Precision), FuncId>,
    libraries: BTreeMap<(LibFn, bool), FuncId>,
    data: Data,
    calls: Vec<Call>,
    statics: Argument,
    pools: [Argument; 2],
}

/// Where a mixer's kernel lies in the data: per channel real part, imaginary part,
/// and minus the imaginary part.
struct MixKernel {
    complex: bool,
    channels: Vec<[Argument; 3]>,
    shape: Argument,
    origin: usize,
}

impl<'a, T: Real> Writer<'a, T> {
    fn new(
        network: &Compiled<T>,
        program: &'a Program,
        name: &str,
    ) -> Result<Writer<'a, T>, CompileError> {
        let params = tensors(network.graph(), program, network.params(), &[]);
        let params = params.map_err(ConstantError::from)?;
        let mut planner = (FftPlanner::new(), FftPlanner::new());
        let constants = Constants::<T>::new(network.graph(), program, &params, &mut planner)?;
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
        let mixers = mixers(network, program, &constants, &mut data)?;
        Ok(Writer {
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
            other => {
                let text = format!("{other:?}");
                let word: String = text.chars().take_while(|c| c.is_alphanumeric()).collect();
                return Err(LowerError::Unsupported(format!(
                    "{} in an object file",
                    word.to_lowercase()
                ))
                .into());
            }
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
        for f in expr.library_calls() {
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
        let (calls, sites) = (&self.calls, self.program.lattice.sites() as i64);
        let module = &mut self.module;
        let one = define(
            module,
            ("evaluate", Linkage::Local),
            (3, None),
            |module, c, given| {
                let &[spins, out, arena] = given else {
                    unreachable!("three arguments")
                };
                steps(module, c, calls, data, (spins, arena));
                for (k, result) in results.iter().enumerate() {
                    let x = match *result {
                        Ok(at) => {
                            let at = c.b.ins().iadd_imm_s(arena, at as i64);
                            c.load(types::F64, at)
                        }
                        Err(x) => c.b.ins().f64const(x),
                    };
                    let to = c.b.ins().iadd_imm_s(out, 8 * k as i64);
                    c.store(x, to);
                }
                None
            },
        )?;
        let width = results.len() as i64;
        define(
            module,
            (&format!("{name}_log_psi"), Linkage::Export),
            (4, Some(types::I32)),
            |module, c, given| {
                let &[spins, count, out, arena] = given else {
                    unreachable!("four arguments")
                };
                clean(c, arena, bytes);
                let one = module.declare_func_in_func(one, c.b.func);
                c.for_each(count, |c, k| {
                    let from = c.at(spins, k, sites);
                    let to = c.at(out, k, 8 * width);
                    c.b.ins().call(one, &[from, to, arena]);
                });
                Some(c.b.ins().iconst(types::I32, 0))
            },
        )?;
        ratio(module, name, one, (sites, width, bytes))?;
        let sizes = [
            (
                "workspace_bytes",
                bytes + (sites as u64).next_multiple_of(64) as i64,
            ),
            ("sites", sites),
            ("outputs", width),
        ];
        for (what, size) in sizes {
            define(
                module,
                (&format!("{name}_{what}"), Linkage::Export),
                (0, Some(types::I64)),
                |_, c, _| Some(c.number(size)),
            )?;
        }
        let product = self.module.finish();
        Ok(product.emit().map_err(JitError::new)?)
    }
}

/// Calls one routine after the other.
fn steps(
    module: &mut ObjectModule,
    c: &mut Code,
    calls: &[Call],
    data: DataId,
    (spins, arena): (Value, Value),
) {
    let data = module.declare_data_in_func(data, c.b.func);
    let mut known = HashMap::new();
    for call in calls {
        let function = *known
            .entry(call.routine)
            .or_insert_with(|| module.declare_func_in_func(call.routine, c.b.func));
        let mut arguments = Vec::new();
        for argument in &call.arguments {
            arguments.push(match *argument {
                Argument::Number(n) => c.number(n),
                Argument::Arena(at) => c.b.ins().iadd_imm_s(arena, at),
                Argument::Data(at) => {
                    let start = c.b.ins().symbol_value(types::I64, data);
                    c.b.ins().iadd_imm_s(start, at as i64)
                }
                Argument::Spins => spins,
            });
        }
        c.b.ins().call(function, &arguments);
    }
}

/// Fills the workspace with zeros: lanes that belong to no site are computed too.
fn clean(c: &mut Code, arena: Value, bytes: i64) {
    let words = c.number(bytes / 8);
    let zero = c.number(0);
    c.for_each(words, |c, k| {
        let to = c.at(arena, k, 8);
        c.store(zero, to);
    });
}

/// `log psi(s') - log psi(s)` from two evaluations.
fn ratio(
    module: &mut ObjectModule,
    name: &str,
    one: FuncId,
    (sites, width, bytes): (i64, i64, i64),
) -> Result<FuncId, JitError> {
    define(
        module,
        (&format!("{name}_log_ratio"), Linkage::Export),
        (5, Some(types::I32)),
        |module, c, given| {
            let &[spins, flips, count, out, arena] = given else {
                unreachable!("five arguments")
            };
            clean(c, arena, bytes);
            let one = module.declare_func_in_func(one, c.b.func);
            c.b.ins().call(one, &[spins, out, arena]);
            let old: Vec<Value> = (0..width)
                .map(|k| {
                    let at = c.b.ins().iadd_imm_s(out, 8 * k);
                    c.load(types::F64, at)
                })
                .collect();
            let copy = c.b.ins().iadd_imm_s(arena, bytes);
            let all = c.number(sites);
            c.for_each(all, |c, k| {
                let [from, to] = [spins, copy].map(|p| c.add(p, k));
                let s = c.load(types::I8, from);
                c.store(s, to);
            });
            c.for_each(count, |c, k| {
                let at = c.at(flips, k, 8);
                let site = c.load(types::I64, at);
                let at = c.add(copy, site);
                let s = c.load(types::I8, at);
                let s = c.b.ins().ineg(s);
                c.store(s, at);
            });
            c.b.ins().call(one, &[copy, out, arena]);
            for (k, old) in old.into_iter().enumerate() {
                let at = c.b.ins().iadd_imm_s(out, 8 * k as i64);
                let new = c.load(types::F64, at);
                let difference = c.b.ins().fsub(new, old);
                c.store(difference, at);
            }
            Some(c.b.ins().iconst(types::I32, 0))
        },
    )
}

/// Kernels of all mixers as data.
fn mixers<T: Real>(
    network: &Compiled<T>,
    program: &Program,
    constants: &Constants<T>,
    data: &mut Data,
) -> Result<Vec<MixKernel>, CompileError> {
    let invariant = program
        .mixers
        .iter()
        .any(|m| !matches!(m.op, Op::Mix { .. }));
    let kernels = match invariant {
        true => Some(Kernels::new(network, network.params())?),
        false => None,
    };
    let mut found = Vec::new();
    for (number, m) in program.mixers.iter().enumerate() {
        let g = program.geometry(m.space);
        // the sites of a chain follow each other
        let chain = g.extent[1] == 1 && g.stride() == 1;
        let [nx, ny] = if chain { [1, g.extent[0]] } else { g.extent };
        let line = (g.stride() * T::PRECISION.bytes()) as i64;
        let (n, width) = (g.sites(), m.channels.iter().product::<usize>());
        let signed = [nx, ny].map(|n| n as i64);
        let (entries, shape): (Vec<Vec<Complex64>>, MixShape) = match (&m.op, &kernels) {
            (
                Op::Mix {
                    complex,
                    transposed,
                },
                _,
            ) => {
                let value = value(network, m.kernel[0])?;
                let layout = if *complex {
                    Layout::Inner
                } else {
                    Layout::Real
                };
                let k = Coefficients::read(&value, n * n, layout, &m.channels);
                let entry = |i: usize, j: usize| if *transposed { j * n + i } else { i * n + j };
                let matrix = |c: usize| (0..n * n).map(|e| k.at(entry(e / n, e % n), c)).collect();
                let step = signed[0] * signed[1];
                let shape = MixShape {
                    extent: signed,
                    line,
                    first: 0,
                    target: [signed[1] * step, step],
                    source: signed[1],
                };
                ((0..width).map(matrix).collect(), shape)
            }
            (_, Some(kernels)) => {
                // element (a, b) holds the displacement (nx - 1 - a, ny - 1 - b)
                let [lx, ly] = signed.map(|n| 2 * n - 1);
                let at = |e: i64| {
                    let d = [signed[0] - 1 - e / ly, signed[1] - 1 - e % ly];
                    kernels.at(number, if chain { [d[1], 0] } else { d })
                };
                let all: Vec<Vec<Complex64>> = (0..lx * ly).map(at).collect();
                let shape = MixShape {
                    extent: signed,
                    line,
                    first: (signed[0] - 1) * ly + signed[1] - 1,
                    target: [-ly, -1],
                    source: ly,
                };
                let channel = |c: usize| all.iter().map(|k| k[c]).collect();
                ((0..width).map(channel).collect(), shape)
            }
            (_, None) => unreachable!("kernels of every mixer that has some"),
        };
        let planes = |k: &Vec<Complex64>| {
            let signs: [fn(&Complex64) -> f64; 3] = [|z| z.re, |z| z.im, |z| -z.im];
            signs.map(|f| data.numbers(T::PRECISION, k.iter().map(f)))
        };
        let channels = entries.iter().map(planes).collect();
        let shape = shape.entries().map(i64::to_le_bytes).concat();
        found.push(MixKernel {
            complex: constants.mixers[number].complex(),
            channels,
            shape: data.bytes(&shape),
            origin: g.origin() * T::PRECISION.bytes(),
        });
    }
    Ok(found)
}

/// The value of a node that depends on parameters only.
fn value<T: Real>(network: &Compiled<T>, node: crate::ir::NodeId) -> Result<Tensor, CompileError> {
    let params = tensors(network.graph(), network.program(), network.params(), &[]);
    let params = params.map_err(ConstantError::from)?;
    let spins = vec![1; network.lattice().sites()];
    let (graph, lattice) = (network.graph(), network.lattice());
    let value = evaluate_node(graph, lattice, &params, &spins, node);
    Ok(value.map_err(ConstantError::from)?)
}

fn header<T: Real>(
    network: &Compiled<T>,
    program: &Program,
    name: &str,
    workspace: usize,
) -> String {
    let [x, y] = program.lattice.extent;
    let boundary = match program.lattice.boundary {
        Boundary::Periodic => "periodic",
        Boundary::Open => "open",
    };
    let precision = match T::PRECISION {
        Precision::F32 => "32 bit",
        Precision::F64 => "64 bit",
    };
    let parts = if network.outputs() > 1 {
        "real part, imaginary part"
    } else {
        "real"
    };
    let (guard, sites) = (name.to_uppercase(), program.lattice.sites());
    let bytes = workspace + sites.next_multiple_of(64);
    format!(
        "/* log psi of the network `{network}` with fixed parameters.\n\
         \n   {x} x {y} spins, {boundary} boundary, {precision}; code for the processor it was made on.\
         \n   Link with the mathematics library (-lm). Functions keep no state: threads may\
         \n   call them at the same time, each with a workspace of its own. */\n\
         #ifndef {guard}_H\n#define {guard}_H\n\n#include <stddef.h>\n#include <stdint.h>\n\n\
         #ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n\
         /* Spins of a configuration; numbers per log psi ({parts}); bytes of a workspace. */\n\
         #define {guard}_SITES {sites}\n\
         #define {guard}_OUTPUTS {outputs}\n\
         #define {guard}_WORKSPACE_BYTES {bytes}\n\n\
         /* The same, of the object that was linked. */\n\
         size_t {name}_sites(void);\nsize_t {name}_outputs(void);\nsize_t {name}_workspace_bytes(void);\n\n\
         /* log psi of `count` configurations, one after the other: `spins` holds +1 or -1,\
         \n   sites in row-major order, `out` takes {outputs} number(s) each. `workspace` is aligned\
         \n   to 64 bytes; its contents do not matter. Returns 0. */\n\
         int32_t {name}_log_psi(const int8_t *spins, size_t count, double *out, void *workspace);\n\n\
         /* log psi(s') - log psi(s), s' being s with `count` distinct sites flipped. Returns 0. */\n\
         int32_t {name}_log_ratio(const int8_t *spins, const size_t *flips, size_t count,\
         \n    double *out, void *workspace);\n\n\
         #ifdef __cplusplus\n}}\n#endif\n\n#endif\n",
        network = name.trim_start_matches("dnet_"),
        outputs = program.outputs.len(),
    )
}
