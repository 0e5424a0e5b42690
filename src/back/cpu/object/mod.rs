//! Ahead-of-time code: an object file, its C header and a block of parameters.
//!
//! The object does for one network on one lattice what this process does: log psi,
//! its gradient, and ratios of local changes of a background by the flip program.
//! What follows from parameters (weights, static rows, symbols of mixers, tables of
//! local windows) is computed here and stored as a *block*: the object contains that of the
//! parameters it was made with, and takes others of the same network as data.
//!
//! The code is the same loop-level programs that run in this process, one
//! `section` each: the fused loops as they are, the steps between them as small
//! routines over tables of offsets (`routines`), local windows of log psi by lookups
//! (`tabulated`), mixers by Fourier transforms
//! (`fourier`) or, on short lattices, by their sums. It needs nothing but the C
//! mathematics library. `entry` holds the functions a C program calls.

mod correlating;
mod entry;
mod fourier;
mod header;
mod mixing;
mod reference;
mod routines;
mod section;
mod tabulated;

use super::compiled::CompileError;
use super::constants::param_shape;
use super::flips::extended;
use super::gradient;
use super::jit::{JitError, define_kernel, host_isa, library_calls};
use super::kernels::Kernels;
use super::math::{LibFn, Precision};
use super::simd::Real;
use super::work::work;
use crate::interp::TokenLattice;
use crate::ir::text::text;
use crate::ir::{Graph, Lattice};
use crate::kernel::lower::{lower, lower_without_tables};
use crate::kernel::{Expr, LowerError, Program};
use crate::pass::flips::{Family, FlipProgram, common_token};
use crate::pass::normal_form::NormalForm;
use cranelift_module::{DataDescription, FuncId, Module, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use entry::{Entry, Flips};
use routines::Routines;
use section::{Finished, Section, Source};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};

/// Version of the functions of an object and of its blocks.
pub const ABI: u32 = 3;

/// Bytes of a block before its numbers: the fingerprint.
const BLOCK_HEAD: usize = 64;

/// An object file for this machine and what it is used with.
#[derive(Clone, Debug)]
pub struct Object {
    /// Contents of the `.o` file.
    pub bytes: Vec<u8>,
    /// Contents of the `.h` file.
    pub header: String,
    /// The block of the parameters: what the object contains, as a file of its own.
    pub block: Vec<u8>,
}

/// What the driver does, step by step: a routine and its arguments.
struct Call {
    routine: FuncId,
    arguments: Vec<Argument>,
}

#[derive(Clone, Copy)]
enum Argument {
    Number(i64),
    /// Offset into the memory of a section.
    Arena(i64),
    /// Offset into the tables of the object.
    Data(usize),
    /// Offset into the block of parameters.
    Params(usize),
    /// The configuration, or the inputs of a section without one.
    Given,
    /// Where outputs go.
    Out,
}

/// Read-only data under construction.
struct Data {
    bytes: Vec<u8>,
    argument: fn(usize) -> Argument,
}

impl Data {
    fn new(argument: fn(usize) -> Argument) -> Data {
        Data {
            bytes: Vec::new(),
            argument,
        }
    }
    /// Appends bytes, aligned to cache lines.
    fn bytes(&mut self, bytes: &[u8]) -> Argument {
        let at = self.bytes.len().next_multiple_of(64);
        self.bytes.resize(at, 0);
        self.bytes.extend_from_slice(bytes);
        (self.argument)(at)
    }
    /// A table of 32-bit offsets.
    fn offsets(&mut self, entries: &[usize]) -> Argument {
        let entries = entries.iter().flat_map(|&x| (x as i32).to_le_bytes());
        let bytes: Vec<u8> = entries.collect();
        self.bytes(&bytes)
    }
    /// 64-bit numbers.
    fn words(&mut self, entries: &[usize]) -> Argument {
        let entries = entries.iter().flat_map(|&x| (x as i64).to_le_bytes());
        let bytes: Vec<u8> = entries.collect();
        self.bytes(&bytes)
    }
    fn numbers(&mut self, precision: Precision, values: impl IntoIterator<Item = f64>) -> Argument {
        let mut bytes = Vec::new();
        for x in values {
            match precision {
                Precision::F32 => bytes.extend((x as f32).to_le_bytes()),
                Precision::F64 => bytes.extend(x.to_le_bytes()),
            }
        }
        self.bytes(&bytes)
    }
}

/// An object under construction.
struct Writer {
    module: ObjectModule,
    precision: Precision,
    routines: Routines,
    /// Those of transforms, once there is one.
    around: Option<fourier::Around>,
    /// Those of sums over entries, once there is one.
    entries: Option<reference::Entries>,
    kernels: HashMap<(Expr, Precision), FuncId>,
    libraries: BTreeMap<(LibFn, bool), FuncId>,
    /// What follows from the network alone.
    tables: Data,
    /// What follows from its parameters.
    params: Data,
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

/// Compiles a network, whose outputs are `[Re log psi]` or `[Re, Im]`, for use from
/// C, under names that start with `dnet_` and `name`; `theta` are the parameters it
/// contains. Without the parts that have no code (a gradient through an operation
/// that the interpreter evaluates) the header says so.
///
/// # Errors
/// Networks whose log psi takes steps that only this process can run (nodes
/// evaluated by the interpreter), and failures of code generation.
pub fn object<T: Real>(
    graph: &Graph,
    lattice: Lattice,
    theta: &[f64],
    name: &str,
) -> Result<Object, CompileError> {
    let name = format!("dnet_{}", identifier(name));
    let mut out = Writer::new::<T>(&name)?;
    out.params.bytes(&[0; BLOCK_HEAD]);
    let program = lower_without_tables(graph, lattice, &[], &[])?;
    let params = count(graph, &program)?;
    if params != theta.len() {
        return Err(CompileError::ParamCount {
            expected: params,
            found: theta.len(),
        });
    }
    let flips = flips::<T>(&mut out, graph, &program, theta)?;
    let gradient = gradient_sections::<T>(&mut out, graph, &program, theta);
    let (gradient, without) = match gradient {
        Ok(sections) => (Some(sections), None),
        Err(CompileError::Lower(e)) => (None, Some(e.to_string())),
        Err(CompileError::Reverse(e)) => (None, Some(e.to_string())),
        Err(e) => return Err(e),
    };
    let source = Source {
        graph,
        program: lower(graph, lattice, &[])?,
        theta,
        inputs: &[],
    };
    let log_psi = Section::<T>::write(&mut out, source)?;
    let fingerprint = fingerprint(graph, &program, T::PRECISION);
    out.params.bytes[..8].copy_from_slice(&fingerprint.to_le_bytes());
    let block = out.params.bytes.clone();
    let entry = Entry {
        name: &name,
        sites: lattice.sites(),
        params,
        fingerprint,
        log_psi,
        gradient,
        flips,
    };
    let sizes = entry.sizes(block.len());
    let header = header::header(&entry, &sizes, lattice, T::PRECISION, without.as_deref());
    let bytes = out.finish(entry, &sizes)?;
    Ok(Object {
        bytes,
        header,
        block,
    })
}

fn count(graph: &Graph, program: &Program) -> Result<usize, CompileError> {
    let mut total = 0;
    for p in &graph.params {
        let shape = param_shape(program, &p.ty).map_err(super::constants::ConstantError::from)?;
        total += shape.iter().product::<usize>();
    }
    Ok(total)
}

/// What blocks of parameters must belong to: the network, its lattice, the
/// precision and the layout of blocks.
fn fingerprint(graph: &Graph, program: &Program, precision: Precision) -> u64 {
    let mut hash = Sha256::new();
    let machine = (std::env::consts::ARCH, env!("CARGO_PKG_VERSION"));
    hash.update(format!(
        "{ABI} {machine:?} {:?} {precision:?}\n",
        program.lattice
    ));
    hash.update(text(graph));
    let bytes = hash.finalize();
    u64::from_le_bytes(std::array::from_fn(|k| bytes[k]))
}

/// The flip program of single flips, where there is one and it pays for all sites
/// of a background.
fn flips<T: Real>(
    out: &mut Writer,
    graph: &Graph,
    full: &Program,
    theta: &[f64],
) -> Result<Result<Flips, String>, CompileError> {
    let lattice = full.lattice;
    let derive = || {
        let form = NormalForm::new(graph)?;
        let shapes = Family::single().shapes(common_token(graph, &form)?);
        FlipProgram::new(graph, lattice, &shapes)
    };
    let program = match derive() {
        Ok(program) => program,
        Err(e) => return Ok(Err(e.to_string())),
    };
    let nodes: Vec<_> = program.changes.iter().flatten().copied().collect();
    let changes = lower_without_tables(&program.graph, lattice, &[], &nodes);
    let readout = lower_without_tables(&program.readout, lattice, &program.inputs, &[]);
    let (changes, readout) = match (changes, readout) {
        (Ok(changes), Ok(readout)) => (changes, readout),
        (Err(e), _) | (_, Err(e)) => return Ok(Err(e.to_string())),
    };
    let each = lattice.sites() as f64;
    if work(&changes) + each * work(&readout) > each * work(full) {
        return Ok(Err("so small a lattice".to_owned()));
    }
    let kernels = Kernels::new(graph, full, theta)?;
    let all = extended(&program.derived, &kernels, theta)?;
    let source = Source {
        graph: &program.graph,
        program: changes,
        theta: &all,
        inputs: &[],
    };
    let changes = Section::<T>::write(out, source)?;
    let source = Source {
        graph: &program.readout,
        program: readout,
        theta,
        inputs: &program.inputs,
    };
    let readout = Section::<T>::write(out, source)?;
    let tokens = TokenLattice::new(lattice, program.token).map_err(LowerError::from)?;
    // per spin the shape that flips it and its token
    let ([nx, ny], columns) = (program.token.0, lattice.extent[1]);
    let rows = (0..lattice.sites()).flat_map(|site| {
        let [x, y] = [site / columns, site % columns];
        let (shape, token) = (x % nx * ny + y % ny, tokens.site([x / nx, y / ny]));
        let first = shape * changes.width;
        (0..changes.width).map(move |k| (first + k, token))
    });
    let table: Vec<usize> = rows.map(|(row, token)| changes.sites[row][token]).collect();
    Ok(Ok(Flips {
        table: out.tables.offsets(&table),
        changes,
        readout,
    }))
}

/// The derivative above and below the cut, and the numbers at it.
fn gradient_sections<T: Real>(
    out: &mut Writer,
    graph: &Graph,
    full: &Program,
    theta: &[f64],
) -> Result<[Finished; 2], CompileError> {
    let lattice = full.lattice;
    let cut = gradient::cut(graph);
    let [above, below] = [gradient::above(graph, &cut)?, gradient::below(graph, &cut)?];
    let first = graph.params.len();
    let inputs: Vec<u32> = (first..first + cut.len()).map(|k| k as u32).collect();
    let program = lower_without_tables(&above, lattice, &[], &[])?;
    let second = lower_without_tables(&below, lattice, &inputs, &[])?;
    let values = gradient::values_at(graph, &cut, &second, theta)?;
    let source = Source {
        graph: &above,
        program,
        theta: &values,
        inputs: &[],
    };
    let above = Section::<T>::write(out, source)?;
    let source = Source {
        graph: &below,
        program: second,
        theta,
        inputs: &inputs,
    };
    let below = Section::<T>::write(out, source)?;
    Ok([above, below])
}

impl Writer {
    fn new<T: Real>(name: &str) -> Result<Writer, CompileError> {
        let builder = ObjectBuilder::new(host_isa(true)?, name, default_libcall_names());
        let mut module = ObjectModule::new(builder.map_err(JitError::new)?);
        Ok(Writer {
            routines: Routines::new(&mut module, T::PRECISION)?,
            precision: T::PRECISION,
            module,
            around: None,
            entries: None,
            kernels: HashMap::new(),
            libraries: BTreeMap::new(),
            tables: Data::new(Argument::Data),
            params: Data::new(Argument::Params),
        })
    }

    /// The loop of an expression.
    fn kernel(&mut self, expr: &Expr, precision: Precision) -> Result<FuncId, JitError> {
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
    fn finish(mut self, entry: Entry, sizes: &entry::Sizes) -> Result<Vec<u8>, CompileError> {
        let mut data = Vec::new();
        for bytes in [&mut self.tables.bytes, &mut self.params.bytes] {
            let id = self.module.declare_anonymous_data(false, false);
            let id = id.map_err(JitError::new)?;
            let mut description = DataDescription::new();
            description.set_align(64);
            // a symbol of its own for no bytes is refused by some linkers
            bytes.resize(bytes.len().max(1), 0);
            description.define(std::mem::take(bytes).into_boxed_slice());
            let defined = self.module.define_data(id, &description);
            defined.map_err(JitError::new)?;
            data.push(id);
        }
        entry.define(&mut self.module, [data[0], data[1]], self.precision, sizes)?;
        Ok(self.module.finish().emit().map_err(JitError::new)?)
    }
}
