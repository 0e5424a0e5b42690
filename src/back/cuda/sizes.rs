//! Sizes that follow from a program alone.

use crate::back::cpu::mixer::smooth;
use crate::ir::{Boundary, Graph, NodeId, Scan};
use crate::kernel::shape::dims;
use crate::kernel::{Geometry, Program};

/// Momenta per axis of a mixer: those of the ring, or enough for an open lattice.
pub fn mixer_size(g: &Geometry) -> [usize; 2] {
    padded(g, |n| 2 * n - 1)
}

/// Momenta per axis of a correlation.
pub fn correlation_size(g: &Geometry) -> [usize; 2] {
    padded(g, |n| 2 * n)
}

fn padded(g: &Geometry, needed: impl Fn(usize) -> usize) -> [usize; 2] {
    match g.boundary {
        Boundary::Periodic => g.extent,
        Boundary::Open => g.extent.map(|n| if n == 1 { 1 } else { smooth(needed(n)) }),
    }
}

/// Factors of a transform length, in the order of its stages: fours, then primes.
/// A large prime is a stage of its own, at a cost proportional to it.
pub fn radices(mut n: usize) -> Vec<usize> {
    let mut factors = Vec::new();
    for p in [4, 2, 3, 5] {
        while n.is_multiple_of(p) {
            factors.push(p);
            n /= p;
        }
    }
    let mut p = 7;
    while n > 1 {
        if p * p > n {
            p = n;
        }
        while n.is_multiple_of(p) {
            factors.push(p);
            n /= p;
        }
        p += 2;
    }
    factors
}

/// Entries per channel of the coefficients a recurrence is differentiated by.
pub fn scan_entries(
    graph: &Graph,
    program: &Program,
    scan: Scan,
    kernel: &[NodeId],
    wrt: &[usize],
) -> Vec<usize> {
    let shape = kernel
        .last()
        .and_then(|&k| dims(program.lattice, graph.ty(k)).ok())
        .unwrap_or_default();
    let states = shape.get(usize::from(scan.complex)).copied().unwrap_or(0);
    let entries = |&w: &usize| {
        if scan.dense && w == 1 {
            states * states
        } else {
            states
        }
    };
    wrt.iter().map(entries).collect()
}

#[cfg(test)]
mod tests {
    use super::radices;

    #[test]
    fn factors_multiply_to_the_length() {
        for n in 1..2000 {
            assert_eq!(radices(n).iter().product::<usize>(), n);
        }
        assert_eq!(radices(500), [4, 5, 5, 5]);
        assert_eq!(radices(2 * 49 * 11), [2, 7, 7, 11]);
    }
}
