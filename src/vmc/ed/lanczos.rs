//! The lowest eigenpairs of a large Hermitian matrix: thick-restart Lanczos
//! with full reorthogonalisation.
//!
//! The Krylov basis holds at most `capacity` vectors. When it is full, the
//! lowest Ritz vectors and the last residual start the next one. Eigenvectors
//! are found one by one and locked; each search starts from the best remaining
//! Ritz vector *plus a random part*, so degenerate partners are found too.

use super::Options;
use super::apply::Amplitude;
use faer::{Mat, Side};
use rayon::prelude::*;

/// What to compute and when to stop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanczos {
    /// How many eigenpairs.
    pub levels: usize,
    /// Residual norm that is small enough, absolute.
    pub tolerance: f64,
    /// Most Krylov vectors held at once.
    pub capacity: usize,
    /// Most applications of the matrix.
    pub max_steps: usize,
    /// Of the start vectors.
    pub seed: u64,
}

/// Eigenpairs, ascending.
#[derive(Clone, Debug)]
pub(super) struct Eigenpairs<T> {
    pub values: Vec<f64>,
    /// `|H v - E v|`, measured.
    pub residuals: Vec<f64>,
    pub vectors: Vec<Vec<T>>,
    /// Applications of the matrix.
    pub steps: usize,
    pub converged: bool,
}

/// Where a projection leaves less of a vector than this, rounding errors along the
/// basis have grown by the inverse, and it is projected once more.
const CANCELLED: f64 = 0.1;

/// Rows of the Krylov basis handled together.
const ROWS: usize = 4096;

/// Krylov vectors as columns of a row-major matrix, so that projections read
/// memory once.
struct Columns<T> {
    dim: usize,
    width: usize,
    used: usize,
    data: Vec<T>,
}

impl<T: Amplitude> Columns<T> {
    fn new(dim: usize, width: usize) -> Columns<T> {
        Columns {
            dim,
            width,
            used: 0,
            data: vec![T::default(); dim * width],
        }
    }

    fn push(&mut self, vector: &[T]) {
        let (width, column) = (self.width, self.used);
        self.data
            .par_chunks_mut(ROWS * width)
            .zip(vector.par_chunks(ROWS))
            .for_each(|(rows, vector)| {
                rows.chunks_exact_mut(width)
                    .zip(vector)
                    .for_each(|(row, &v)| row[column] = v);
            });
        self.used += 1;
    }

    fn column(&self, k: usize, into: &mut [T]) {
        into.par_chunks_mut(ROWS)
            .zip(self.data.par_chunks(ROWS * self.width))
            .for_each(|(into, rows)| {
                into.iter_mut()
                    .zip(rows.chunks_exact(self.width))
                    .for_each(|(v, row)| *v = row[k]);
            });
    }

    /// Removes the components of w along the columns and returns them.
    fn project_out(&self, w: &mut [T]) -> Vec<T> {
        let used = self.used;
        let partial: Vec<Vec<T>> = self
            .data
            .par_chunks(ROWS * self.width)
            .zip(w.par_chunks(ROWS))
            .map(|(rows, w)| {
                let mut sums = vec![T::default(); used];
                for (row, &w) in rows.chunks_exact(self.width).zip(w) {
                    sums.iter_mut()
                        .zip(row)
                        .for_each(|(sum, &v)| *sum += v.conj() * w);
                }
                sums
            })
            .collect();
        // summed in order: the result does not depend on the number of threads
        let mut components = vec![T::default(); used];
        for sums in partial {
            components.iter_mut().zip(sums).for_each(|(c, s)| *c += s);
        }
        w.par_chunks_mut(ROWS)
            .zip(self.data.par_chunks(ROWS * self.width))
            .for_each(|(w, rows)| {
                for (w, row) in w.iter_mut().zip(rows.chunks_exact(self.width)) {
                    let along = components
                        .iter()
                        .zip(row)
                        .fold(T::default(), |sum, (&c, &v)| sum + c * v);
                    *w = *w - along;
                }
            });
        components
    }

    /// Replaces the columns by the first `keep` columns of `self * rotation`.
    fn rotate(&mut self, rotation: &[Vec<f64>]) {
        let (used, width) = (self.used, self.width);
        self.data.par_chunks_mut(ROWS * width).for_each(|rows| {
            let mut rotated = vec![T::default(); rotation.len()];
            for row in rows.chunks_exact_mut(width) {
                for (r, coefficients) in rotated.iter_mut().zip(rotation) {
                    *r = row[..used]
                        .iter()
                        .zip(coefficients)
                        .fold(T::default(), |sum, (&v, &c)| sum + v * c);
                }
                row[..rotated.len()].copy_from_slice(&rotated);
            }
        });
        self.used = rotation.len();
    }

    fn combination(&self, coefficients: &[f64], into: &mut [T]) {
        into.par_chunks_mut(ROWS)
            .zip(self.data.par_chunks(ROWS * self.width))
            .for_each(|(into, rows)| {
                for (v, row) in into.iter_mut().zip(rows.chunks_exact(self.width)) {
                    *v = row[..self.used]
                        .iter()
                        .zip(coefficients)
                        .fold(T::default(), |sum, (&v, &c)| sum + v * c);
                }
            });
    }
}

/// `<a|b>`, summed in a fixed order.
pub(super) fn dot<T: Amplitude>(a: &[T], b: &[T]) -> T {
    let partial: Vec<T> = a
        .par_chunks(ROWS)
        .zip(b.par_chunks(ROWS))
        .map(|(a, b)| {
            a.iter()
                .zip(b)
                .fold(T::default(), |sum, (&a, &b)| sum + a.conj() * b)
        })
        .collect();
    partial.into_iter().fold(T::default(), |sum, p| sum + p)
}

fn norm<T: Amplitude>(a: &[T]) -> f64 {
    dot(a, a).re().sqrt()
}

fn scale<T: Amplitude>(a: &mut [T], by: f64) {
    a.par_chunks_mut(ROWS)
        .for_each(|a| a.iter_mut().for_each(|a| *a = *a * by));
}

/// Random amplitudes in [-1, 1), reproducible by (seed, index).
fn random<T: Amplitude>(dim: usize, seed: u64) -> Vec<T> {
    (0..dim as u64)
        .into_par_iter()
        .map(|k| {
            // splitmix64 of the counter
            let mut z = (seed ^ 0x5851_f42d_4c95_7f2d)
                .wrapping_add((k + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            T::from_complex(((z ^ z >> 31) as i64 as f64 / (1u64 << 63) as f64).into())
        })
        .collect()
}

/// Eigenvalues (ascending) and eigenvectors (by columns) of a small real
/// symmetric matrix given by columns.
fn small_eigen(t: &[Vec<f64>]) -> Option<(Vec<f64>, Vec<Vec<f64>>)> {
    let n = t.len();
    let matrix = Mat::from_fn(n, n, |i, j| 0.5 * (t[j][i] + t[i][j]));
    let eigen = matrix.self_adjoint_eigen(Side::Lower).ok()?;
    let values = (0..n).map(|k| eigen.S().column_vector()[k]).collect();
    let vectors = (0..n)
        .map(|k| (0..n).map(|i| eigen.U()[(i, k)]).collect())
        .collect();
    Some((values, vectors))
}

impl Lanczos {
    /// What `options` ask of a matrix of `dim` rows whose largest coefficient is
    /// `scale`.
    pub(super) fn new<T>(options: &Options, dim: usize, scale: f64) -> Lanczos {
        let bytes = dim.max(1) * size_of::<T>();
        Lanczos {
            levels: options.levels,
            tolerance: options.tolerance * scale,
            capacity: (options.memory / bytes).clamp(8, 48),
            max_steps: options.max_steps,
            seed: options.seed,
        }
    }

    /// The lowest eigenpairs of `apply` on vectors of length `dim`; fewer
    /// where `dim` is smaller.
    pub(super) fn run<T: Amplitude>(
        &self,
        dim: usize,
        apply: &dyn Fn(&[T], &mut [T]),
    ) -> Eigenpairs<T> {
        let levels = self.levels.min(dim);
        let mut locked = Columns::<T>::new(dim, levels);
        let mut found = Eigenpairs {
            values: vec![],
            residuals: vec![],
            vectors: vec![],
            steps: 0,
            converged: true,
        };
        let mut guess: Option<Vec<T>> = None;
        while found.values.len() < levels {
            let mut start = random::<T>(dim, self.seed.wrapping_add(found.values.len() as u64));
            if let Some(guess) = guess.take() {
                // enough of everything else to see a degenerate partner
                let small = 0.1 / norm(&start);
                start
                    .par_iter_mut()
                    .zip(&guess)
                    .for_each(|(v, &g)| *v = *v * small + g);
            }
            let search = self.lowest(
                dim,
                apply,
                &locked,
                start,
                self.max_steps.saturating_sub(found.steps),
            );
            found.steps += search.steps;
            found.converged &= search.converged;
            found.values.push(search.value);
            found.residuals.push(search.residual);
            locked.push(&search.vector);
            found.vectors.push(search.vector);
            guess = search.next;
        }
        let mut order: Vec<usize> = (0..levels).collect();
        order.sort_by(|&a, &b| found.values[a].total_cmp(&found.values[b]));
        found.values = order.iter().map(|&k| found.values[k]).collect();
        found.residuals = order.iter().map(|&k| found.residuals[k]).collect();
        found.vectors = order
            .iter()
            .map(|&k| std::mem::take(&mut found.vectors[k]))
            .collect();
        found
    }

    /// The lowest eigenpair orthogonal to the locked vectors.
    fn lowest<T: Amplitude>(
        &self,
        dim: usize,
        apply: &dyn Fn(&[T], &mut [T]),
        locked: &Columns<T>,
        start: Vec<T>,
        max_steps: usize,
    ) -> Search<T> {
        let capacity = self.capacity.min(dim - locked.used).max(1);
        let keep = (capacity / 3).max(1).min(capacity.saturating_sub(2).max(1));
        let mut basis = Columns::<T>::new(dim, capacity);
        // the projected matrix by columns; real, since every coupling is a norm
        let mut projected: Vec<Vec<f64>> = Vec::new();
        let mut v = start;
        orthogonalise(&mut v, locked, &basis);
        let length = norm(&v);
        scale(&mut v, 1.0 / length);
        let mut w = vec![T::default(); dim];
        let mut steps = 0;
        loop {
            basis.push(&v);
            apply(&v, &mut w);
            steps += 1;
            let before = norm(&w);
            locked.project_out(&mut w);
            let mut column: Vec<f64> = basis.project_out(&mut w).iter().map(|a| a.re()).collect();
            let mut beta = norm(&w);
            if beta < CANCELLED * before {
                // twice is enough
                locked.project_out(&mut w);
                let rest = basis.project_out(&mut w);
                column.iter_mut().zip(&rest).for_each(|(a, b)| *a += b.re());
                beta = norm(&w);
            }
            let m = basis.used;
            for (row, value) in projected.iter_mut().zip(&column) {
                row.push(*value);
            }
            projected.push(column);
            let full = m == capacity;
            let Some((values, vectors)) = small_eigen(&projected) else {
                return Search::give_up(&basis, projected[0][0], steps);
            };
            let estimate = beta * vectors[0][m - 1].abs();
            let exhausted = m == dim - locked.used || beta < 1e-13 * (1.0 + values[0].abs());
            let done = exhausted || estimate < self.tolerance;
            if done || steps >= max_steps {
                let mut vector = vec![T::default(); dim];
                basis.combination(&vectors[0], &mut vector);
                let next = (m > 1).then(|| {
                    basis.combination(&vectors[1], &mut v);
                    v
                });
                let length = norm(&vector);
                scale(&mut vector, 1.0 / length);
                apply(&vector, &mut w);
                let value = dot(&vector, &w).re();
                w.par_iter_mut()
                    .zip(&vector)
                    .for_each(|(w, &v)| *w = *w - v * value);
                return Search {
                    value,
                    residual: norm(&w),
                    vector,
                    next,
                    steps: steps + 1,
                    converged: done,
                };
            }
            std::mem::swap(&mut v, &mut w);
            scale(&mut v, 1.0 / beta);
            if full {
                basis.rotate(&vectors[..keep]);
                projected = (0..keep)
                    .map(|k| {
                        (0..keep)
                            .map(|i| if i == k { values[k] } else { 0.0 })
                            .collect()
                    })
                    .collect();
            }
        }
    }
}

/// Removes the components along both sets, twice.
fn orthogonalise<T: Amplitude>(v: &mut [T], locked: &Columns<T>, basis: &Columns<T>) {
    for _ in 0..2 {
        locked.project_out(v);
        basis.project_out(v);
    }
}

/// The result of one search.
struct Search<T> {
    value: f64,
    residual: f64,
    vector: Vec<T>,
    /// The next Ritz vector, a guess for the next search.
    next: Option<Vec<T>>,
    steps: usize,
    converged: bool,
}

impl<T: Amplitude> Search<T> {
    fn give_up(basis: &Columns<T>, value: f64, steps: usize) -> Search<T> {
        let mut vector = vec![T::default(); basis.dim];
        basis.column(0, &mut vector);
        Search {
            value,
            residual: f64::INFINITY,
            vector,
            next: None,
            steps,
            converged: false,
        }
    }
}
