//! Binding a program to memory: for a number of samples, every row gets its
//! address and every step its table of offsets. Nothing is allocated afterwards.

use super::arena::{Assignment, Memory};
use super::constants::Constants;
use super::jit::{Compiler, JitError, KernelId};
use super::lanes::Offsets;
use super::lookup::{Quad, quads};
use super::math::Precision;
use super::microkernel::{Dots, Product};
use super::mixer::{Unit, units};
use super::outer::Outer;
use super::simd::Real;
use crate::ir::NodeId;
use crate::kernel::{BufferId, Cell, Geometry, Program, Row, Space, StaticRow, Step};
use std::collections::HashMap;

/// Lanes of a row are a multiple of this, so that the widest vectors fit.
const LANE_BLOCK: usize = 16;

/// As [`LANE_BLOCK`] for rows of f64 with a lane per sample.
const BATCH_BLOCK: usize = 8;

/// The map steps of a program as native code, independent of the batch size.
pub struct KernelPlan {
    /// Kernel of each step that is a map.
    kernels: Vec<Option<KernelId>>,
    precision: Precision,
}

impl KernelPlan {
    /// Compiles every map step.
    ///
    /// # Errors
    /// Code generation failures.
    pub fn new(
        program: &Program,
        precision: Precision,
        compiler: &mut Compiler,
    ) -> Result<KernelPlan, JitError> {
        let mut kernels = Vec::with_capacity(program.steps.len());
        for step in &program.steps {
            kernels.push(match step {
                Step::Map { space, expr, .. } => {
                    Some(compiler.kernel(expr, precision_of(precision, *space))?)
                }
                _ => None,
            });
        }
        Ok(KernelPlan { kernels, precision })
    }
}

fn precision_of(working: Precision, space: Space) -> Precision {
    match space {
        Space::Batch => Precision::F64,
        Space::Site(_) => working,
    }
}

/// A step with addresses.
pub(super) enum BoundStep {
    Spins {
        out: usize,
        geometry: Geometry,
    },
    Map {
        kernel: KernelId,
        space: Space,
        table: Vec<i32>,
        rows: i64,
        bytes: i64,
    },
    Dense {
        batch: bool,
        products: Vec<Product>,
        lanes: usize,
    },
    Dot {
        batch: bool,
        tiles: Vec<Dots>,
        lanes: usize,
    },
    Lookup {
        table: usize,
        index: usize,
        quads: Vec<Quad>,
        lanes: usize,
    },
    Halo {
        geometry: Geometry,
        rows: Vec<usize>,
    },
    Mix {
        mixer: usize,
        geometry: Geometry,
        /// Per unit its channels, and its rows.
        channels: Vec<[usize; 2]>,
        rows: Vec<Offsets>,
    },
    Pool {
        geometry: Geometry,
        rows: Vec<(usize, usize)>,
    },
    PoolProduct {
        geometry: Geometry,
        groups: Vec<Outer>,
    },
    Correlate {
        correlation: usize,
        geometry: Geometry,
        channels: Vec<[Vec<usize>; 2]>,
        out: Vec<Vec<usize>>,
    },
    Spread {
        geometry: Geometry,
        rows: Vec<(usize, usize)>,
    },
    Gather {
        geometry: Geometry,
        rows: Vec<(usize, Vec<usize>)>,
    },
    Reference {
        node: NodeId,
        operands: Vec<Option<Vec<usize>>>,
        out: Vec<usize>,
    },
    Patch {
        fine: Geometry,
        coarse: Geometry,
        ratio: [usize; 2],
        rows: Vec<(usize, [usize; 2], usize)>,
        back: bool,
    },
}

/// A program bound to memory for up to `samples` configurations at a time.
pub struct Bound {
    /// Configurations per run.
    pub samples: usize,
    pub(super) steps: Vec<BoundStep>,
    /// Byte offset of every output that is a row.
    pub(super) outputs: Vec<usize>,
    /// Byte offset of every row the host writes, input by input.
    pub(super) inputs: Vec<Vec<usize>>,
    /// Byte offset of every row on sites that the host reads.
    pub(super) site_outputs: Vec<usize>,
    assignment: Assignment,
    lanes: HashMap<Space, usize>,
    strides: HashMap<Space, usize>,
    margin: usize,
    statics: Vec<usize>,
    statics_size: usize,
    precision: Precision,
}

impl Bound {
    /// Lays out memory and tables.
    pub fn new(program: &Program, plan: &KernelPlan, samples: usize) -> Bound {
        let working = plan.precision;
        let (mut lanes, mut strides) = (HashMap::new(), HashMap::new());
        let mut spaces: Vec<(Space, usize)> = program
            .geometries
            .iter()
            .map(|g| (g.space(), g.segment()))
            .collect();
        spaces.push((Space::Batch, 1));
        for (space, segment) in spaces {
            let block = match space {
                Space::Batch => BATCH_BLOCK,
                Space::Site(_) => LANE_BLOCK,
            };
            let count = (samples * segment).next_multiple_of(block);
            let lines = (count * precision_of(working, space).bytes()).div_ceil(64);
            lanes.insert(space, count);
            // an odd number of cache lines spreads rows over the cache sets
            strides.insert(space, 64 * (lines | 1));
        }
        let reach = program
            .geometries
            .iter()
            .map(|g| g.origin())
            .max()
            .unwrap_or(0);
        let margin = ((reach + LANE_BLOCK) * 8 * 4).next_multiple_of(64);
        let bytes =
            |b: usize| program.buffers[b].rows as usize * strides[&program.buffers[b].space];
        let assignment = Assignment::new(program, margin, bytes);
        let mut at = margin;
        let mut statics = Vec::with_capacity(program.statics.len());
        for (space, _) in &program.statics {
            statics.push(at);
            at += strides[space];
        }
        let mut bound = Bound {
            samples,
            steps: Vec::new(),
            outputs: Vec::new(),
            inputs: Vec::new(),
            site_outputs: Vec::new(),
            assignment,
            lanes,
            strides,
            margin,
            statics,
            statics_size: at + margin,
            precision: working,
        };
        bound.outputs = program
            .outputs
            .iter()
            .map(|c| {
                if let Cell::Row(r) = c {
                    bound.offset(program, *r)
                } else {
                    0
                }
            })
            .collect();
        let rows = |buffer: BufferId| {
            let row = move |row| Row {
                buffer,
                row,
                shift: 0,
            };
            (0..program.buffers[buffer.0 as usize].rows).map(row)
        };
        bound.inputs = program
            .inputs
            .iter()
            .map(|&(_, b)| rows(b).map(|r| bound.offset(program, r)).collect())
            .collect();
        bound.site_outputs = program
            .site_outputs
            .iter()
            .map(|&r| bound.offset(program, r))
            .collect();
        let (mut w, mut w64) = (0, 0);
        bound.steps = program
            .steps
            .iter()
            .zip(&plan.kernels)
            .map(|(step, kernel)| bound.step(program, step, *kernel, (&mut w, &mut w64)))
            .collect();
        bound
    }

    /// Whether all offsets fit the tables of the micro-kernels.
    pub fn addressable(&self) -> bool {
        self.assignment.size.max(self.statics_size) <= i32::MAX as usize
    }

    /// Bytes of working memory per run.
    pub fn arena_bytes(&self) -> usize {
        self.assignment.size
    }

    /// Byte offset of a row in the arena.
    pub fn offset(&self, program: &Program, row: Row) -> usize {
        let space = program.buffers[row.buffer.0 as usize].space;
        let base = self.assignment.offsets[row.buffer.0 as usize]
            + row.row as usize * self.strides[&space];
        let bytes = precision_of(self.precision, space).bytes();
        (base as i64 + i64::from(row.shift) * bytes as i64) as usize
    }

    fn static_offset(&self, program: &Program, row: StaticRow) -> usize {
        let space = program.statics[row.row as usize].0;
        let bytes = precision_of(self.precision, space).bytes();
        (self.statics[row.row as usize] as i64 + i64::from(row.shift) * bytes as i64) as usize
    }

    /// The static rows laid out for this binding.
    pub fn static_memory<T: Real>(&self, program: &Program, constants: &Constants<T>) -> Memory {
        let mut memory = Memory::new(self.statics_size);
        for ((&at, (space, _)), values) in self
            .statics
            .iter()
            .zip(&program.statics)
            .zip(&constants.statics)
        {
            let g = program.geometry(*space);
            for sample in 0..self.samples {
                // SAFETY: inside the row laid out in `new`.
                let segment = unsafe {
                    let start = memory
                        .as_mut_ptr()
                        .add(at)
                        .cast::<T>()
                        .add(sample * g.segment());
                    std::slice::from_raw_parts_mut(start, g.segment())
                };
                g.scatter(|site| T::rounded(values[site]), segment);
            }
        }
        memory
    }

    fn step(
        &self,
        program: &Program,
        step: &Step,
        kernel: Option<KernelId>,
        weights: (&mut usize, &mut usize),
    ) -> BoundStep {
        let at = |r: &Row| self.offset(program, *r);
        let table = |r: &Row| at(r) as i32;
        let geometry = |r: &Row| *program.geometry(program.buffers[r.buffer.0 as usize].space);
        match step {
            Step::Spins { out } => BoundStep::Spins {
                out: at(out),
                geometry: geometry(out),
            },
            Step::Map { space, rows, .. } => {
                let bytes = precision_of(self.precision, *space).bytes();
                let mut offsets = Vec::new();
                for r in rows {
                    offsets.push(table(&r.out));
                    offsets.extend(r.leaves.iter().map(|c| match c {
                        Cell::Row(r) => table(r),
                        Cell::Static(s) => self.static_offset(program, *s) as i32,
                        Cell::Scalar(k) => (*k as usize * bytes) as i32,
                        Cell::Number(_) => 0,
                    }));
                }
                BoundStep::Map {
                    kernel: kernel.expect("every map step was compiled"),
                    space: *space,
                    table: offsets,
                    rows: rows.len() as i64,
                    bytes: (self.lanes[space] * bytes) as i64,
                }
            }
            Step::Dense { space, groups } => {
                let batch = *space == Space::Batch;
                let used = if batch { weights.1 } else { weights.0 };
                let products = groups
                    .iter()
                    .map(|g| {
                        let first = *used;
                        *used += g.weights.len();
                        let offsets = |rows: &[Row]| rows.iter().map(table).collect();
                        Product {
                            x: offsets(&g.x),
                            out: offsets(&g.out),
                            weights: first,
                        }
                    })
                    .collect();
                BoundStep::Dense {
                    batch,
                    products,
                    lanes: self.lanes[space],
                }
            }
            Step::Dot { space, rows } => BoundStep::Dot {
                batch: *space == Space::Batch,
                tiles: Dots::tiles(rows.iter().map(|(out, factors)| {
                    let factors = factors.iter().map(|(a, b)| (table(a), table(b)));
                    (table(out), factors.unzip())
                })),
                lanes: self.lanes[space],
            },
            Step::Lookup {
                space,
                table: number,
                index,
                rows,
            } => BoundStep::Lookup {
                table: *number,
                index: at(index),
                quads: quads(rows.iter().map(|(column, out)| (*column, table(out)))),
                lanes: self.lanes[space],
            },
            Step::Halo { buffer } => {
                let rows = program.buffers[buffer.0 as usize].rows;
                let row = |row: u32| Row {
                    buffer: *buffer,
                    row,
                    shift: 0,
                };
                BoundStep::Halo {
                    geometry: geometry(&row(0)),
                    rows: (0..rows).map(|r| at(&row(r))).collect(),
                }
            }
            Step::Mix { mixer, channels } => {
                let geometry = *program.geometry(program.mixers[*mixer].space);
                let units = units(channels);
                let rows = |u: &Unit| (u.x.map(|r| at(&r)), u.out.map(|r| r.as_ref().map(at)));
                BoundStep::Mix {
                    mixer: *mixer,
                    geometry,
                    rows: units.iter().map(rows).collect(),
                    channels: units.iter().map(|u| u.channels).collect(),
                }
            }
            Step::Reference {
                node,
                operands,
                out,
            } => BoundStep::Reference {
                node: *node,
                operands: operands
                    .iter()
                    .map(|o| o.as_ref().map(|rows| rows.iter().map(at).collect()))
                    .collect(),
                out: out.iter().map(at).collect(),
            },
            Step::Pool { rows } => BoundStep::Pool {
                geometry: geometry(&rows[0].0),
                rows: rows.iter().map(|(x, o)| (at(x), at(o))).collect(),
            },
            Step::PoolProduct { space, groups } => BoundStep::PoolProduct {
                geometry: *program.geometry(*space),
                groups: groups
                    .iter()
                    .map(|g| {
                        let [a, b, out] = [&g.a, &g.b, &g.out].map(|r| r.iter().map(at).collect());
                        Outer { a, b, out }
                    })
                    .collect(),
            },
            Step::Correlate {
                correlation,
                channels,
                out,
            } => BoundStep::Correlate {
                correlation: *correlation,
                geometry: *program.geometry(program.correlations[*correlation].space),
                channels: channels
                    .iter()
                    .map(|c| [0, 1].map(|k| c[k].iter().map(at).collect()))
                    .collect(),
                out: out.iter().map(|r| r.iter().map(at).collect()).collect(),
            },
            Step::Spread { rows } => BoundStep::Spread {
                geometry: geometry(&rows[0].1),
                rows: rows.iter().map(|(x, o)| (at(x), at(o))).collect(),
            },
            Step::Gather { rows } => BoundStep::Gather {
                geometry: geometry(&rows[0].0),
                rows: rows
                    .iter()
                    .map(|(x, o)| (at(x), o.iter().map(at).collect()))
                    .collect(),
            },
            Step::Patch { ratio, rows } | Step::Unpatch { ratio, rows } => {
                let back = matches!(step, Step::Unpatch { .. });
                let (a, b) = (geometry(&rows[0].0), geometry(&rows[0].2));
                let (fine, coarse) = if back { (b, a) } else { (a, b) };
                let rows = rows.iter().map(|(x, p, o)| (at(x), *p, at(o))).collect();
                BoundStep::Patch {
                    fine,
                    coarse,
                    ratio: *ratio,
                    rows,
                    back,
                }
            }
        }
    }

    /// Bytes before the first and after the last row that shifted reads may touch.
    pub fn margin(&self) -> usize {
        self.margin
    }
}
