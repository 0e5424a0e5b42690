//! Where rows lie in the arenas, and what phases read and write there.

use super::super::ast::{Expr, Type};
use crate::kernel::Geometry;
use std::collections::BTreeSet;

/// Lanes of a space, as code sees them.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    /// The arena.
    pub(super) memory: &'static str,
    pub(super) ty: Type,
    pub(super) sites: usize,
    /// Elements from one row to the next.
    pub(super) stride: usize,
    pub(super) geometry: Option<Geometry>,
}

impl Lanes {
    /// Position of a site in its row.
    pub(super) fn at(&self, site: Expr) -> Expr {
        match self.geometry {
            None => Expr::Int(0),
            Some(g) => {
                let [x, y] = coordinates(&g, site);
                lane(&g, x, y)
            }
        }
    }
}

/// Coordinates of a site given by its number.
pub(super) fn coordinates(g: &Geometry, site: Expr) -> [Expr; 2] {
    match g.extent {
        [_, 1] => [site, Expr::Int(0)],
        [1, _] => [Expr::Int(0), site],
        [_, ny] => [site.clone() / Expr::int(ny), site % Expr::int(ny)],
    }
}

/// Position of the site (x, y) in a row.
pub(super) fn lane(g: &Geometry, x: Expr, y: Expr) -> Expr {
    x * Expr::int(g.stride()) + y + Expr::int(g.origin())
}

/// Rows of a buffer that a phase reads or writes.
pub(super) struct Access {
    pub(super) buffer: u32,
    pub(super) rows: BTreeSet<u32>,
    pub(super) write: bool,
    /// All of the buffer's memory.
    pub(super) memory: &'static str,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Access {
    /// Whether the order of two accesses matters: the same row, or memory that two
    /// buffers use one after the other.
    pub(super) fn conflicts(&self, other: &Access) -> bool {
        if !self.write && !other.write {
            return false;
        }
        if self.buffer == other.buffer {
            return !self.rows.is_disjoint(&other.rows);
        }
        self.memory == other.memory && self.start < other.end && other.start < self.end
    }

    /// All scratch memory of transforms.
    pub(super) fn scratch() -> Access {
        Access {
            buffer: u32::MAX,
            rows: BTreeSet::from([0]),
            write: true,
            memory: "scratch",
            start: 0,
            end: 1,
        }
    }
}
