//! Links between two translation-invariant mixers by Fourier transforms.
//!
//! With the background vertex A(k) between them, the diagonal at displacement D is
//!
//! ```text
//! L[q+D, q] = sum_k G_m(q+D-k) A[k] G_k(k-q) = ( C_D * A )(q),   C_D(n) = G_m(n+D) G_k(-n)
//! ```
//!
//! a convolution over k with n = q - k: one transform of A and one inverse
//! transform per diagonal give the link at all sites. Open lattices are padded
//! with zeros to twice their extent.

use super::Kernel;
use crate::interp::TokenLattice;
use crate::ir::Boundary;
use crate::pass::abacus::SiteCoefficients;
use num_complex::Complex64;
use rustfft::{FftDirection, FftPlanner};

/// `L_mk[q + D, q]` at all q, for one displacement D.
#[derive(Clone, Debug)]
pub struct Diagonal {
    /// Components per source.
    len: usize,
    /// Per q: matrix outputs of m x inputs of k.
    blocks: Vec<f64>,
}

impl Diagonal {
    /// The block whose source is `q`; meaningless if `q + D` lies outside an open lattice.
    pub fn block(&self, q: usize) -> &[f64] {
        &self.blocks[q * self.len..(q + 1) * self.len]
    }
}

/// The representative of a displacement that names its diagonal: residues on a ring.
pub fn representative(lattice: &TokenLattice, offset: [i64; 2]) -> [i64; 2] {
    match lattice.boundary {
        Boundary::Periodic => [0, 1].map(|a| offset[a].rem_euclid(lattice.extent[a] as i64)),
        Boundary::Open => offset,
    }
}

/// Computes the diagonal at displacement `offset` for kernels `last` (of m) and
/// `first` (of k) with the vertices `A_mk` in `coefficients`.
pub fn diagonal(
    last: &Kernel,
    coefficients: &[SiteCoefficients],
    k: usize,
    first: &Kernel,
    offset: [i64; 2],
) -> Diagonal {
    let lattice = first.target_lattice();
    let period = lattice.extent.map(|t| match lattice.boundary {
        Boundary::Periodic => t,
        Boundary::Open => 2 * t,
    });
    let size = period[0] * period[1];
    let (rows, columns) = (last.outputs(), first.inputs());
    let (inner_rows, inner_columns) = (last.inputs(), first.outputs());
    let mut planner = FftPlanner::new();

    // Transforms of every element of the vertex.
    let mut vertex = vec![vec![Complex64::ZERO; size]; inner_rows * inner_columns];
    for (site, c) in coefficients.iter().enumerate() {
        let at = lattice.coordinates(site);
        if let Some(a) = c.vertices.get(&k) {
            for (signal, a) in vertex.iter_mut().zip(a) {
                signal[at[0] * period[1] + at[1]].re = *a;
            }
        }
    }
    vertex
        .iter_mut()
        .for_each(|v| transform(&mut planner, v, period, FftDirection::Forward));

    // C_D for every pair of kernel elements that share a displacement.
    let mut pairs: std::collections::BTreeMap<[usize; 4], Vec<Complex64>> = Default::default();
    for (n, at) in displacements(period, lattice) {
        let (Some(left), Some(right)) = (
            element(&lattice, last, [n[0] + offset[0], n[1] + offset[1]]),
            element(&lattice, first, [-n[0], -n[1]]),
        ) else {
            continue;
        };
        for &(r, a, g) in &left {
            for &(b, c, h) in &right {
                pairs
                    .entry([r, a, b, c])
                    .or_insert_with(|| vec![Complex64::ZERO; size])[at]
                    .re += g * h;
            }
        }
    }

    let mut spectra = vec![vec![Complex64::ZERO; size]; rows * columns];
    for ([r, a, b, c], mut signal) in pairs {
        transform(&mut planner, &mut signal, period, FftDirection::Forward);
        let sum = &mut spectra[r * columns + c];
        for ((s, x), y) in sum
            .iter_mut()
            .zip(&signal)
            .zip(&vertex[a * inner_columns + b])
        {
            *s += x * y;
        }
    }
    let len = rows * columns;
    let mut blocks = vec![0.0; len * lattice.count()];
    for (element, mut spectrum) in spectra.into_iter().enumerate() {
        transform(&mut planner, &mut spectrum, period, FftDirection::Inverse);
        for q in 0..lattice.count() {
            let at = lattice.coordinates(q);
            blocks[q * len + element] = spectrum[at[0] * period[1] + at[1]].re / size as f64;
        }
    }
    Diagonal { len, blocks }
}

/// Displacements n = q - k that occur, each with its place in the padded signal.
fn displacements(period: [usize; 2], lattice: TokenLattice) -> Vec<([i64; 2], usize)> {
    let axis = |a: usize| -> Vec<i64> {
        let t = lattice.extent[a] as i64;
        match lattice.boundary {
            Boundary::Periodic => (0..t).collect(),
            Boundary::Open => (1 - t..t).collect(),
        }
    };
    let wrap = |n: i64, a: usize| n.rem_euclid(period[a] as i64) as usize;
    let columns = axis(1);
    axis(0)
        .into_iter()
        .flat_map(|x| columns.iter().map(move |&y| [x, y]))
        .map(|n| (n, wrap(n[0], 0) * period[1] + wrap(n[1], 1)))
        .collect()
}

/// The kernel's block at a displacement; `None` if no two sites have it.
fn element(
    lattice: &TokenLattice,
    kernel: &Kernel,
    n: [i64; 2],
) -> Option<Vec<(usize, usize, f64)>> {
    let mut source = [0; 2];
    let mut target = [0; 2];
    for a in 0..2 {
        let t = lattice.extent[a] as i64;
        let d = match lattice.boundary {
            Boundary::Periodic => n[a].rem_euclid(t),
            Boundary::Open if n[a].abs() < t => n[a],
            Boundary::Open => return None,
        };
        source[a] = (-d).max(0) as usize;
        target[a] = d.max(0) as usize;
    }
    Some(kernel.block(lattice.site(target), lattice.site(source)))
}

/// Unnormalised transform of a row-major array along both axes.
fn transform(
    planner: &mut FftPlanner<f64>,
    data: &mut [Complex64],
    size: [usize; 2],
    direction: FftDirection,
) {
    let rows = planner.plan_fft(size[1], direction);
    data.chunks_exact_mut(size[1])
        .for_each(|row| rows.process(row));
    let columns = planner.plan_fft(size[0], direction);
    let mut column = vec![Complex64::ZERO; size[0]];
    for y in 0..size[1] {
        for (x, c) in column.iter_mut().enumerate() {
            *c = data[x * size[1] + y];
        }
        columns.process(&mut column);
        for (x, c) in column.iter().enumerate() {
            data[x * size[1] + y] = *c;
        }
    }
}
