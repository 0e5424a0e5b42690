//! From a loop-level program to one kernel.
//!
//! A block of threads computes one sample at a time: every step of the program
//! is a phase in which the threads share the work, and phases that depend on each
//! other are separated by barriers. Rows on sites and values per configuration
//! live in two arenas per block, in shared memory where they fit, else in the
//! workspace. Site values are computed on sites only; the frame around them is
//! filled by halo steps.

mod alike;
mod correlate;
mod fourier;
mod kernel;
mod moves;
mod outline;
mod places;
mod pointwise;
mod products;
mod reference;
mod rewrite;
mod steps;

use super::ast::{Constant, Entry, Expr, Function, Module, Place, Stmt, TABLES, Table, Type, View};
use super::constants::{Block, Data};
use super::index::Positions;
use super::names::{Comment, Name, counted};
use super::print::print;
use crate::back::cpu::arena::Assignment;
use crate::ir::Graph;
use crate::kernel::{Cell, Geometry, Program, Row, Space, Step};
use crate::run::network::Precision;
pub use kernel::{Kernel, Options};
use places::{Access, Lanes, coordinates, lane};
use std::collections::{BTreeMap, BTreeSet};

/// Why a program has no kernel.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EmitError {
    /// An operation without device code.
    #[error("no device code for {0}")]
    Unsupported(String),
    /// Indices would not fit 32 bits.
    #[error(
        "a single configuration needs more memory than 32-bit indices reach; use a smaller lattice or network"
    )]
    TooLarge,
}

/// Makes the kernel of a program; `graph` is what it was lowered from, `inputs`
/// are its parameters that the host writes per sample, `title` goes to its first
/// lines.
///
/// # Errors
/// See [`EmitError`].
pub fn emit(
    name: Name,
    title: &[String],
    graph: &Graph,
    program: &Program,
    inputs: &[u32],
    options: &Options,
) -> Result<Kernel, EmitError> {
    let mut emitter = Emitter::new(graph, program, inputs, options)?;
    emitter.program()?;
    emitter.finish(name, title, Entry::Once)
}

/// As [`emit`], as a part of another kernel with blocks of this many threads; only
/// the text is other.
///
/// # Errors
/// See [`EmitError`].
pub fn emit_part(
    name: Name,
    graph: &Graph,
    program: &Program,
    inputs: &[u32],
    options: &Options,
    threads: usize,
) -> Result<Kernel, EmitError> {
    let mut emitter = Emitter::new(graph, program, inputs, options)?;
    emitter.program()?;
    emitter.widest = 2 * threads;
    emitter.finish(name, &[], Entry::Part)
}

/// Makes the kernel that moves Markov chains by the program of log psi; its
/// constants are those of [`emit`]'s kernel. It needs [`super::chains::LIBRARY`].
///
/// # Errors
/// See [`EmitError`].
pub fn emit_chains(
    name: Name,
    title: &[String],
    graph: &Graph,
    program: &Program,
    options: &Options,
) -> Result<Kernel, EmitError> {
    let mut emitter = Emitter::new(graph, program, &[], options)?;
    emitter.program()?;
    let entry = Entry::Chains {
        sites: program.lattice.sites(),
        width: program.outputs.len(),
    };
    emitter.finish(name, title, entry)
}

struct Emitter<'p> {
    graph: &'p Graph,
    program: &'p Program,
    inputs: &'p [u32],
    options: &'p Options,
    /// First element of each buffer in its arena.
    offsets: Vec<usize>,
    rows: usize,
    numbers: usize,
    /// Complex numbers of scratch memory: spectra, and two to work on.
    spectra: usize,
    work: usize,
    positions: Positions,
    functions: Vec<Function>,
    maps: Vec<(crate::kernel::Expr, Type, Name)>,
    used: BTreeSet<u32>,
    blocks: Vec<Block>,
    body: Vec<Stmt>,
    /// Reads and writes since the last barrier.
    pending: Vec<Access>,
    /// Iterations of the widest phase.
    widest: usize,
}

impl<'p> Emitter<'p> {
    fn new(
        graph: &'p Graph,
        program: &'p Program,
        inputs: &'p [u32],
        options: &'p Options,
    ) -> Result<Self, EmitError> {
        let mut emitter = Emitter {
            graph,
            program,
            inputs,
            options,
            offsets: Vec::new(),
            rows: 0,
            numbers: 0,
            spectra: 0,
            work: 0,
            positions: Positions::default(),
            functions: Vec::new(),
            maps: Vec::new(),
            used: BTreeSet::new(),
            blocks: Vec::new(),
            body: Vec::new(),
            pending: Vec::new(),
            widest: 32,
        };
        let size = |b: usize, batch: bool| {
            let buffer = &program.buffers[b];
            if (buffer.space == Space::Batch) == batch {
                buffer.rows as usize * emitter.lanes(buffer.space).stride
            } else {
                0
            }
        };
        let [sites, batch] = [false, true].map(|k| Assignment::new(program, 0, |b| size(b, k)));
        let own = |b: usize| match program.buffers[b].space {
            Space::Batch => batch.offsets[b],
            Space::Site(_) => sites.offsets[b],
        };
        // one more row for results nobody wants
        let spare = program
            .geometries
            .iter()
            .map(Geometry::segment)
            .max()
            .unwrap_or(0);
        let offsets: Vec<usize> = (0..program.buffers.len()).map(own).collect();
        (emitter.rows, emitter.numbers) = (sites.size + spare, batch.size);
        emitter.offsets = offsets;
        if emitter.rows.max(emitter.numbers) > i32::MAX as usize / 2 {
            return Err(EmitError::TooLarge);
        }
        Ok(emitter)
    }

    fn lanes(&self, space: Space) -> Lanes {
        match space {
            Space::Batch => Lanes {
                memory: "numbers",
                ty: Type::Double,
                sites: 1,
                stride: 1,
                geometry: None,
            },
            Space::Site(_) => {
                let g = *self.program.geometry(space);
                Lanes {
                    memory: "rows",
                    ty: Type::Real,
                    sites: g.sites(),
                    stride: g.segment(),
                    geometry: Some(g),
                }
            }
        }
    }

    fn space(&self, row: &Row) -> Space {
        self.program.buffers[row.buffer.0 as usize].space
    }

    /// Position of a row in its arena.
    fn position(&self, row: &Row) -> i64 {
        let b = row.buffer.0 as usize;
        let stride = self.lanes(self.program.buffers[b].space).stride;
        (self.offsets[b] + row.row as usize * stride) as i64 + i64::from(row.shift)
    }

    /// Where a row for results nobody wants is.
    fn spare(&self) -> i64 {
        let segment = self.program.geometries.iter().map(Geometry::segment).max();
        (self.rows - segment.unwrap_or(0)) as i64
    }

    fn buffer_name(&self, b: u32) -> Name {
        Name::mangled("b", b as usize, &self.program.buffers[b as usize].name)
    }

    /// `rows[counter]` as a position.
    fn row(&mut self, rows: &[Row], counter: &Expr) -> Expr {
        let values: Vec<i64> = rows.iter().map(|r| self.position(r)).collect();
        let anchor = self.anchor(&rows[0]);
        self.positions
            .at(&values, counter, &|_| Some(anchor.clone()))
    }

    /// `rows[outer * inner_count + inner]` as a position.
    fn row2(&mut self, rows: &[Row], inner_count: usize, counters: [&Expr; 2]) -> Expr {
        let values: Vec<i64> = rows.iter().map(|r| self.position(r)).collect();
        let anchor = self.anchor(&rows[0]);
        self.positions
            .at2(&values, inner_count, counters, &|_| Some(anchor.clone()))
    }

    fn anchor(&mut self, row: &Row) -> (Name, i64) {
        let b = row.buffer.0;
        self.used.insert(b);
        (self.buffer_name(b), self.offsets[b as usize] as i64)
    }

    /// Numbers from a list that are not rows.
    fn index(&mut self, values: &[i64], counter: &Expr) -> Expr {
        self.positions.at(values, counter, &|_| None)
    }

    /// A block of constants, made on first use.
    fn constant(&mut self, data: Data, element: Type, length: usize) -> Name {
        if let Some(b) = self.blocks.iter().find(|b| b.data == data) {
            return b.name.clone();
        }
        let name = data.name();
        self.blocks.push(Block {
            name: name.clone(),
            data,
            element,
            offset: 0,
            length,
        });
        name
    }

    /// A loop over rows and sites, dealt to threads: `body(row, position in the row)`.
    fn each(
        &mut self,
        rows: usize,
        lanes: &Lanes,
        body: impl FnOnce(&mut Self, &Expr, &Expr) -> Vec<Stmt>,
    ) -> Stmt {
        self.each_site(rows, lanes.sites, |e, row, site| {
            let at = lanes.at(site.clone());
            if matches!(at, Expr::Int(_) | Expr::Var(..)) {
                return body(e, row, &at);
            }
            let mut all = vec![Stmt::Let("at".into(), at)];
            all.extend(body(e, row, &Expr::var("at")));
            all
        })
    }

    /// A loop over rows and sites, dealt to threads: `body(row, site)`.
    fn each_site(
        &mut self,
        rows: usize,
        sites: usize,
        body: impl FnOnce(&mut Self, &Expr, &Expr) -> Vec<Stmt>,
    ) -> Stmt {
        self.widest = self.widest.max(rows * sites);
        let (k, r, i) = (Expr::var("k"), Expr::var("r"), Expr::var("i"));
        let zero = Expr::Int(0);
        let inner = if rows == 1 {
            let body = body(self, &zero, &k);
            return Stmt::Each("k".into(), Expr::int(sites), body);
        } else if sites == 1 {
            body(self, &k, &zero)
        } else {
            let mut all = vec![
                Stmt::Let("r".into(), k.clone() / Expr::int(sites)),
                Stmt::Let("i".into(), k % Expr::int(sites)),
            ];
            all.extend(body(self, &r, &i));
            all
        };
        Stmt::Each("k".into(), Expr::int(rows * sites), inner)
    }

    /// Reads and writes of a step.
    fn accesses(&self, step: &Step) -> Vec<Access> {
        if let Step::Halo { buffer } = step {
            return vec![self.all_rows(buffer.0)];
        }
        let (mut read, mut written) = (BTreeMap::new(), BTreeMap::new());
        let note = |rows: &mut BTreeMap<u32, BTreeSet<u32>>, r: Row| {
            rows.entry(r.buffer.0).or_default().insert(r.row);
        };
        step.visit(&mut |r| note(&mut read, r), &mut |r| note(&mut written, r));
        let both = [(read, false), (written, true)];
        let each = both
            .into_iter()
            .flat_map(|(rows, write)| rows.into_iter().map(move |(b, rows)| (b, rows, write)));
        each.map(|(b, rows, write)| Access {
            rows,
            write,
            ..self.all_rows(b)
        })
        .collect()
    }

    /// Writing all of a buffer.
    fn all_rows(&self, b: u32) -> Access {
        let buffer = &self.program.buffers[b as usize];
        let lanes = self.lanes(buffer.space);
        let start = self.offsets[b as usize];
        Access {
            buffer: b,
            rows: (0..buffer.rows).collect(),
            write: true,
            memory: lanes.memory,
            start,
            end: start + buffer.rows as usize * lanes.stride,
        }
    }

    /// Adds a phase, after a barrier if it depends on what came before.
    fn phase(&mut self, accesses: Vec<Access>, barriers_inside: bool, code: Vec<Stmt>) {
        let depends = |a: &Access| self.pending.iter().any(|b| a.conflicts(b));
        let conflict = accesses.iter().any(depends);
        if conflict {
            self.body.push(Stmt::Barrier);
        }
        if conflict || barriers_inside {
            self.pending.clear();
        }
        self.pending.extend(accesses);
        self.body.extend(code);
    }

    fn program(&mut self) -> Result<(), EmitError> {
        self.inputs();
        for step in &self.program.steps {
            let mut accesses = self.accesses(step);
            let mut barriers = false;
            let code = match step {
                Step::Spins { out } => self.spins(out),
                Step::Map { space, expr, rows } => self.map(*space, expr, rows),
                Step::Dense { space, groups } => self.dense(*space, groups),
                Step::Dot { space, rows } => self.dot(*space, rows),
                Step::Halo { buffer } => self.halo(*buffer),
                Step::Lookup {
                    space,
                    table,
                    index,
                    rows,
                } => self.lookup(*space, *table, index, rows),
                Step::Pool { rows } => self.pool(rows),
                Step::PoolProduct { space, groups } => self.pool_product(*space, groups),
                Step::Spread { rows } => self.spread(rows),
                Step::Gather { rows } => self.gather(rows),
                Step::Patch { ratio, rows } => self.patch(*ratio, rows, false),
                Step::Unpatch { ratio, rows } => self.patch(*ratio, rows, true),
                Step::Mix { mixer, channels } => {
                    let code = self.mix(*mixer, channels);
                    barriers = code.contains(&Stmt::Barrier) || code.len() > 2;
                    accesses.push(Access::scratch());
                    code
                }
                Step::Correlate {
                    correlation,
                    channels,
                    out,
                } => {
                    barriers = true;
                    accesses.push(Access::scratch());
                    self.correlate(*correlation, channels, out)
                }
                Step::Reference {
                    node,
                    operands,
                    out,
                } => self.reference(*node, operands, out)?,
            };
            self.phase(accesses, barriers, code);
        }
        self.outputs()?;
        self.body.push(Stmt::Barrier);
        Ok(())
    }

    fn finish(mut self, name: Name, title: &[String], entry: Entry) -> Result<Kernel, EmitError> {
        let double = self.options.precision == Precision::F64;
        let real = if double { 8 } else { 4 };
        let (mut constants, mut constants64) = (0, 0);
        for b in &mut self.blocks {
            let (at, size) = match b.element {
                Type::Double => (&mut constants64, b.length),
                Type::Complex => (&mut constants, 2 * b.length),
                _ => (&mut constants, b.length),
            };
            b.offset = *at;
            // blocks begin on 128-byte lines
            *at += size.next_multiple_of(32);
        }
        // numbers and scratch first: they are used by most threads at once
        let wanted = [
            ("numbers", Type::Double, self.numbers, 8),
            ("work", Type::Complex, self.work, 2 * real),
            ("other", Type::Complex, self.work, 2 * real),
            ("spectra", Type::Complex, self.spectra, 2 * real),
            ("rows", Type::Real, self.rows, real),
        ];
        let (mut shared, mut workspace) = (0, 0);
        let mut memory = Vec::new();
        for (name, element, length, bytes) in wanted {
            if length == 0 {
                continue;
            }
            let doubles = (length * bytes).div_ceil(8).next_multiple_of(4);
            let fits = (shared + doubles) * 8 <= self.options.shared;
            let (place, offset) = if fits {
                (Place::Shared, &mut shared)
            } else {
                (Place::Workspace(0), &mut workspace)
            };
            memory.push(View {
                name: name.into(),
                element,
                place,
                offset: *offset,
                length,
            });
            *offset += doubles;
        }
        for v in &mut memory {
            if let Place::Workspace(size) = &mut v.place {
                *size = workspace;
            }
        }
        if workspace.max(constants).max(constants64) > i32::MAX as usize {
            return Err(EmitError::TooLarge);
        }
        memory.extend(self.blocks.iter().map(|b| View {
            name: b.name.clone(),
            element: b.element,
            place: match b.element {
                Type::Double => Place::Constants64,
                _ => Place::Constants,
            },
            offset: b.offset,
            length: b.length,
        }));
        let (pieces, parts) = outline::outline(std::mem::take(&mut self.body));
        let first = memory.len() - self.blocks.len();
        let tables = std::mem::take(&mut self.positions.tables);
        let buffer = |&b: &u32| {
            let space = self.program.buffers[b as usize].space;
            let at = self.offsets[b as usize] as i64;
            (self.buffer_name(b), (self.lanes(space).memory, at))
        };
        let table = |t: &Table| (t.name.clone(), (TABLES, t.start as i64));
        let buffers = self.used.iter().map(buffer);
        let names = alike::Names {
            positions: buffers.chain(tables.iter().map(table)).collect(),
            blocks: &memory[first..],
        };
        let functions = alike::share(pieces, parts, &names);
        let beginning = |t: &Table| Constant {
            name: t.name.clone(),
            value: t.start as i64,
            comment: Comment::new(format!(
                "{} of the tables",
                counted(t.values.len(), "number")
            )),
        };
        let named = |&b: &u32| {
            let buffer = &self.program.buffers[b as usize];
            let rows = buffer.rows;
            let what = match buffer.space {
                Space::Batch => "per configuration".to_owned(),
                Space::Site(t) => format!("on tokens of {} x {} spins", t.0[0], t.0[1]),
            };
            Constant {
                name: self.buffer_name(b),
                value: self.offsets[b as usize] as i64,
                comment: Comment::new(format!("{} {what}", counted(rows as usize, "row"))),
            }
        };
        let threads = (self.widest / 2).next_power_of_two().clamp(32, 256);
        let module = Module {
            title: title.iter().map(Comment::new).collect(),
            kernel: name.clone(),
            threads,
            memory,
            constants: (self.used.iter().map(named))
                .chain(tables.iter().map(beginning))
                .chain(functions.offsets)
                .collect(),
            tables,
            functions: std::mem::take(&mut self.functions),
            phases: functions.phases,
            steps: functions.steps,
            body: functions.body,
            entry,
        };
        let site_space = self.program.site_outputs.first().map(|r| self.space(r));
        Ok(Kernel {
            text: print(&module, !double),
            name: name.to_string(),
            threads,
            shared: shared * 8,
            workspace,
            blocks: self.blocks.clone(),
            constants,
            constants64,
            spins: match self
                .program
                .steps
                .iter()
                .any(|s| matches!(s, Step::Spins { .. }))
            {
                true => self.program.lattice.sites(),
                false => 0,
            },
            inputs: self.input_count(),
            outputs: self.program.outputs.len(),
            site_outputs: self.program.site_outputs.len()
                * site_space.map_or(0, |s| self.lanes(s).sites),
        })
    }
}

/// Cells of rows.
fn as_row(cell: &Cell) -> Option<Row> {
    match cell {
        Cell::Row(r) => Some(*r),
        _ => None,
    }
}
