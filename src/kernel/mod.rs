//! Loop-level code shared by all back ends.
//!
//! A [`Program`] computes a network for a batch of configurations on one
//! lattice. Its values are *rows*: one number per lane, where the lanes of a
//! [`Space`] run over all sites of all samples, contiguously. A tensor of shape
//! `[14]` on sites is fourteen rows. Hence
//!
//! * elementwise code is a loop over lanes, the same for every row ([`Step::Map`],
//!   a whole chain of operations fused into one pass over memory);
//! * a dense layer is a product of a small matrix with rows ([`Step::Dense`]), a
//!   product of two site values a sum of products of rows ([`Step::Dot`]);
//! * reshapes, slices, concatenations and windows cost nothing: they rename rows,
//!   a window by shifting lanes, for which rows keep a halo ([`Step::Halo`]);
//! * mixers transform rows as a whole ([`Step::Mix`]);
//! * values that depend on a few spins around a site are read from tables
//!   ([`Step::Lookup`], [`table`]).
//!
//! Values that depend on parameters only are computed once per parameter set, in
//! f64: numbers go to a pool ([`Program::scalars`]), site values to
//! [`Program::statics`], mixer kernels to the back end. Rows on sites have the
//! working precision; values per configuration ([`Space::Batch`]) are always f64.

pub mod adjoint;
pub mod contract;
pub mod expr;
mod facts;
pub mod geometry;
mod lookup;
pub mod lower;
pub mod materialise;
mod mixer;
mod pattern;
pub mod print;
pub(crate) mod shape;
mod sites;
mod sums;
pub mod table;

use crate::ir::{Lattice, NodeId, Op};
pub use adjoint::{Correlation, CorrelationKind, OuterGroup};
pub use expr::{Expr, Leaf};
pub use geometry::{Geometry, Space};
pub use table::{Table, Tables};

/// Index of a buffer of a [`Program`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u32);

/// A row of a buffer, read `shift` lanes further on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    /// The buffer.
    pub buffer: BufferId,
    /// Row number.
    pub row: u32,
    /// Lane offset (windows).
    pub shift: i32,
}

/// A row that depends on parameters only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StaticRow {
    /// Index into [`Program::statics`].
    pub row: u32,
    /// Lane offset.
    pub shift: i32,
}

/// Where an element of a value is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// In the arena.
    Row(Row),
    /// In a static row.
    Static(StaticRow),
    /// In the pool: index into [`Program::scalars`].
    Scalar(u32),
    /// A number known now.
    Number(f64),
}

/// Consecutive rows in one space, the value of a node.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// The node's name, or its operation.
    pub name: String,
    /// Lanes.
    pub space: Space,
    /// Number of rows.
    pub rows: u32,
    /// Keeps its contents between steps of different runs: written by the host.
    pub external: bool,
}

/// Element `element` of the value of a node that depends on parameters only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The node.
    pub node: NodeId,
    /// Row-major index in its shape (the place index is the lane).
    pub element: u32,
}

/// One row of a [`Step::Map`].
#[derive(Clone, Debug)]
pub struct MapRow {
    /// Destination, shift 0.
    pub out: Row,
    /// Operands in the order of the expression's leaves.
    pub leaves: Vec<Cell>,
}

/// A matrix applied to rows: `out[o] = sum_k weights[o * K + k] x[k]`.
#[derive(Clone, Debug)]
pub struct DenseGroup {
    /// Destinations, shift 0.
    pub out: Vec<Row>,
    /// Operands.
    pub x: Vec<Row>,
    /// [`Cell::Scalar`] or [`Cell::Number`], row major.
    pub weights: Vec<Cell>,
}

/// A channel of a mixer: one row, or a real and an imaginary one.
#[derive(Clone, Debug)]
pub struct MixChannel {
    /// Input.
    pub x: Vec<Row>,
    /// Result, shift 0.
    pub out: Vec<Row>,
    /// Channel number inside the mixer's kernel (after broadcasting).
    pub channel: usize,
}

/// A step of a program.
#[derive(Clone, Debug)]
pub enum Step {
    /// The configuration as numbers, with halo.
    Spins {
        /// Destination in the space of spins.
        out: Row,
    },
    /// Fused elementwise code.
    Map {
        /// Lanes.
        space: Space,
        /// What is computed.
        expr: Expr,
        /// For which rows.
        rows: Vec<MapRow>,
    },
    /// Small matrices times rows.
    Dense {
        /// Lanes.
        space: Space,
        /// Independent products.
        groups: Vec<DenseGroup>,
    },
    /// `out = sum_k a[k] b[k]`.
    Dot {
        /// Lanes.
        space: Space,
        /// Per destination the factors.
        rows: Vec<(Row, Vec<(Row, Row)>)>,
    },
    /// Fills the halo of a buffer: wraps on a ring, zeros on an open lattice.
    Halo {
        /// The buffer.
        buffer: BufferId,
    },
    /// Values read from a table: column c of the entry `round(index)`, for pairs
    /// (c, destination). Lanes that belong to no site may hold any number as index,
    /// also none that is an entry: back ends clamp it.
    Lookup {
        /// Lanes.
        space: Space,
        /// Index into [`Tables::tables`].
        table: usize,
        /// Row with the number of each lane's pattern.
        index: Row,
        /// Pairs (column, destination), destinations with shift 0.
        rows: Vec<(u32, Row)>,
    },
    /// A mixer.
    Mix {
        /// Index into [`Program::mixers`].
        mixer: usize,
        /// Its channels.
        channels: Vec<MixChannel>,
    },
    /// Sums over sites into f64.
    Pool {
        /// Pairs (site row, batch row).
        rows: Vec<(Row, Row)>,
    },
    /// Sums over sites of products of rows, into f64.
    PoolProduct {
        /// Lanes of the factors.
        space: Space,
        /// Independent outer products.
        groups: Vec<OuterGroup>,
    },
    /// Correlates rows and adjoint rows: derivatives with respect to kernels.
    Correlate {
        /// Index into [`Program::correlations`].
        correlation: usize,
        /// Per channel the adjoint and the input: (real part, imaginary part).
        channels: Vec<[Vec<Row>; 2]>,
        /// Batch rows of each result, in the order of the correlation's kind.
        out: Vec<Vec<Row>>,
    },
    /// A batch row copied to all sites of its sample.
    Spread {
        /// Pairs (batch row, site row).
        rows: Vec<(Row, Row)>,
    },
    /// All sites of a row as batch rows.
    Gather {
        /// Site row, and the batch row of each site.
        rows: Vec<(Row, Vec<Row>)>,
    },
    /// Every `ratio`-th site of a fine lattice.
    Patch {
        /// Tokens joined per axis.
        ratio: [usize; 2],
        /// (fine row, part per axis, coarse row).
        rows: Vec<(Row, [usize; 2], Row)>,
    },
    /// A node evaluated by the reference interpreter.
    Reference {
        /// The node.
        node: NodeId,
        /// Rows of each operand; `None`: depends on parameters only.
        operands: Vec<Option<Vec<Row>>>,
        /// Its rows.
        out: Vec<Row>,
    },
    /// The inverse of `Patch`.
    Unpatch {
        /// Tokens joined per axis.
        ratio: [usize; 2],
        /// (coarse row, part per axis, fine row).
        rows: Vec<(Row, [usize; 2], Row)>,
    },
}

/// A mixer and what its kernel is made of.
#[derive(Clone, Debug)]
pub struct Mixer {
    /// One of `Convolve`, `Modes`, `Scan`, `Mix`.
    pub op: Op,
    /// The lattice it works on.
    pub space: Space,
    /// Coefficient nodes (all operands but the first).
    pub kernel: Vec<NodeId>,
    /// Shape of one site value, without a leading complex axis.
    pub channels: Vec<usize>,
    /// Of a dense mixer which matrix a channel has, among those of the kernel: channels
    /// the kernel is broadcast over share one. Empty for other mixers.
    pub matrices: Vec<usize>,
    /// Complex coefficients, but only the real part of the result for real input
    /// is wanted: channels are real.
    pub real: bool,
}

impl Mixer {
    /// Of the matrices of a dense mixer the first channel that has each.
    pub fn different(&self) -> Vec<usize> {
        let count = self.matrices.iter().max().map_or(0, |m| m + 1);
        let first = |m| self.matrices.iter().position(|x| *x == m).unwrap_or(0);
        (0..count).map(first).collect()
    }
}

/// Loop-level code for one network on one lattice.
#[derive(Clone, Debug)]
pub struct Program {
    /// The lattice.
    pub lattice: Lattice,
    /// Site geometries in use.
    pub geometries: Vec<Geometry>,
    /// Memory.
    pub buffers: Vec<Buffer>,
    /// In order of execution.
    pub steps: Vec<Step>,
    /// Numbers that depend on parameters only.
    pub scalars: Vec<Source>,
    /// Rows that depend on parameters only, each with its space.
    pub statics: Vec<(Space, Source)>,
    /// Mixers.
    pub mixers: Vec<Mixer>,
    /// What lookups read.
    pub tables: Option<Tables>,
    /// Derivatives with respect to mixer kernels.
    pub correlations: Vec<Correlation>,
    /// Elements of the graph's outputs, in order.
    pub outputs: Vec<Cell>,
    /// Host-written inputs: (parameter index, first row of its buffer).
    pub inputs: Vec<(u32, BufferId)>,
    /// Rows on sites that stay readable after a run, in the order asked for.
    pub site_outputs: Vec<Row>,
    /// Constant nodes whose whole values reference steps read.
    pub kept: Vec<NodeId>,
}

/// Why a graph has no loop-level program.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LowerError {
    /// The lattice does not fit the graph.
    #[error(transparent)]
    Lattice(#[from] crate::interp::EvalError),
    /// An operation outside what kernels express (attention and the like).
    #[error("no kernel for {0}")]
    Unsupported(String),
}

impl Step {
    /// Calls `read` and `write` for every row touched.
    pub fn visit(&self, read: &mut dyn FnMut(Row), write: &mut dyn FnMut(Row)) {
        match self {
            Step::Spins { out } => write(*out),
            Step::Map { rows, .. } => {
                for r in rows {
                    r.leaves.iter().for_each(|c| {
                        if let Cell::Row(x) = c {
                            read(*x)
                        }
                    });
                    write(r.out);
                }
            }
            Step::Dense { groups, .. } => {
                for g in groups {
                    g.x.iter().for_each(|r| read(*r));
                    g.out.iter().for_each(|r| write(*r));
                }
            }
            Step::Dot { rows, .. } => {
                for (out, factors) in rows {
                    factors.iter().for_each(|(a, b)| {
                        read(*a);
                        read(*b);
                    });
                    write(*out);
                }
            }
            Step::Halo { buffer } => {
                let row = Row {
                    buffer: *buffer,
                    row: 0,
                    shift: 0,
                };
                read(row);
                write(row);
            }
            Step::Lookup { index, rows, .. } => {
                read(*index);
                rows.iter().for_each(|(_, r)| write(*r));
            }
            Step::Mix { channels, .. } => {
                for c in channels {
                    c.x.iter().for_each(|r| read(*r));
                    c.out.iter().for_each(|r| write(*r));
                }
            }
            Step::Pool { rows } | Step::Spread { rows } => {
                for (x, out) in rows {
                    read(*x);
                    write(*out);
                }
            }
            Step::PoolProduct { groups, .. } => {
                for g in groups {
                    g.a.iter().chain(&g.b).for_each(|r| read(*r));
                    g.out.iter().for_each(|r| write(*r));
                }
            }
            Step::Correlate { channels, out, .. } => {
                channels.iter().flatten().flatten().for_each(|r| read(*r));
                out.iter().flatten().for_each(|r| write(*r));
            }
            Step::Gather { rows } => {
                for (x, out) in rows {
                    read(*x);
                    out.iter().for_each(|r| write(*r));
                }
            }
            Step::Reference { operands, out, .. } => {
                operands.iter().flatten().flatten().for_each(|r| read(*r));
                out.iter().for_each(|r| write(*r));
            }
            Step::Patch { rows, .. } | Step::Unpatch { rows, .. } => {
                for (x, _, out) in rows {
                    read(*x);
                    write(*out);
                }
            }
        }
    }
}

impl Program {
    /// The geometry of a site space.
    ///
    /// # Panics
    /// If the program has no such space.
    pub fn geometry(&self, space: Space) -> &Geometry {
        self.geometries
            .iter()
            .find(|g| g.space() == space)
            .expect("every site space has a geometry")
    }
}
