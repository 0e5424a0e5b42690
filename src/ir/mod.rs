//! The network graph and what it means.
//!
//! A [`Graph`] is a straight-line program over **real** tensors. A value of
//! type ([`Place`](crate::check::core::Place), shape) is an array whose leading
//! index runs over the place (sites in row-major order of the lattice, x
//! slowest; displacements; momenta; pairs, target slowest; nothing for `Whole`)
//! and whose other axes are the shape. Complex values of the language are pairs
//! of real nodes, or carry a leading shape axis of length 2 (real part,
//! imaginary part) where a mixer works on complex channels; nothing below the
//! language knows another complex type.
//!
//! Every node is a pure function of its operands, the parameters, the
//! configuration and the [`Lattice`] (extents and boundary), all of them known
//! only at run time; shapes are static except for lengths proportional to the
//! number of sites.
//!
//! * **Displacements.** On a ring of T tokens place `Displacement` has T
//!   entries, entry n meaning target - source = n mod T. On an open chain it has
//!   2T-1, entry n meaning n - (T-1). Two axes: the outer product, x slowest.
//! * **Momenta.** Entry q means 2 pi q / T, q = 0..T-1; the *value* of the
//!   `Momentum` node is mapped to (-pi, pi]. Rings only.
//! * **Boundary.** `Window` reads zero outside an open lattice and wraps on a
//!   ring. Scans are zero before the first site of an open chain, and periodic
//!   on a ring (the unique periodic solution).
//! * **Dependence.** `kinds` recomputes for each node whether it is constant, local
//!   (with its window), linear, pooled or global, by the rules of docs/abacus.md
//!   Sec. 1, independently of the checker.
//!
//! * **Chains.** What acts on the shape axes of one site with constant coefficients
//!   (sums, multiples, contractions, transpositions) is affine, and affine maps
//!   compose: [`pass::fuse`](mod@crate::pass::fuse) makes one contraction and one sum of a
//!   chain of them. There is no node for a fused chain. Nonlinear elementwise
//!   chains stay one node per function here; back ends run them as one loop.
//!
//! Passes take a valid graph to a valid graph, never in place: they
//! build a new one, so ids are dense and topological.

pub mod graph;
pub mod kinds;
pub mod lower;
pub mod text;
pub mod valid;

pub use graph::{Graph, GraphParam, MapFn, Node, NodeId, NodeType, Op, Scan, ZipFn};
pub use lower::{Lowered, lower};

/// Periodic or open boundary, for all axes of the lattice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Boundary {
    /// A ring (torus).
    Periodic,
    /// An open chain (rectangle).
    Open,
}

/// A lattice of spins at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lattice {
    /// Spins along each axis; `[N, 1]` for a chain.
    pub extent: [usize; 2],
    /// Its boundary.
    pub boundary: Boundary,
}

impl Lattice {
    /// A chain of `n` spins.
    pub fn chain(n: usize, boundary: Boundary) -> Lattice {
        Lattice {
            extent: [n, 1],
            boundary,
        }
    }
    /// Number of spins.
    pub fn sites(&self) -> usize {
        self.extent[0] * self.extent[1]
    }
}
