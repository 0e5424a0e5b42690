//! Centred gradients of all samples, in memory or streamed in blocks.

use super::solve::{Solution, solve_positive};
use super::sr::SrError;
use crate::run::WaveFunction;
use crate::run::rows::{CentredRows, System};
use crate::run::values::Values;
use crate::vmc::sampler::Samples;
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Mat, MatRef, Par};
use num_complex::Complex64;
use std::sync::{Mutex, PoisonError};

/// The matrix `Obar` and the vector `eps` of [`super`], for real parameters.
///
/// Row `p * n + s` belongs to sample s of n and part p (0 real, 1 imaginary);
/// columns are parameters. A back end may hold them where it computed them, and then
/// solves equations there; else all rows are held where they fit the memory given;
/// otherwise blocks of samples are differentiated again whenever needed, and
/// Gram matrices are accumulated block by block (in a fixed order).
pub struct Jacobian<'a> {
    psi: &'a dyn WaveFunction,
    samples: &'a Samples,
    params: usize,
    /// 1 for real wave functions, 2 for complex ones.
    parts: usize,
    /// Samples per block.
    block: usize,
    /// Weighted mean gradient: real part, then imaginary part.
    mean: Vec<f64>,
    eps: Vec<f64>,
    held: Option<Vec<f64>>,
    /// All rows, held by the back end.
    remote: Option<Box<dyn CentredRows>>,
}

/// Rows of consecutive samples: all real parts, then all imaginary parts.
struct Block<'a> {
    start: usize,
    len: usize,
    rows: MatRef<'a, f64>,
}

/// Local energies less their mean, times the roots of their weights.
fn weighted(energies: &[Complex64], weights: &[f64], parts: usize) -> Vec<f64> {
    let mean: Complex64 = energies.iter().zip(weights).map(|(e, &w)| e * w).sum();
    let part: [fn(Complex64) -> f64; 2] = [|z| z.re, |z| z.im];
    let each = |&f: &fn(Complex64) -> f64| {
        let both = energies.iter().zip(weights);
        both.map(move |(e, w)| w.sqrt() * f(e - mean))
    };
    part[..parts].iter().flat_map(each).collect()
}

impl<'a> Jacobian<'a> {
    /// Gradients of `samples`, with their local energies, in at most about
    /// `memory` bytes (at least one sample at a time).
    ///
    /// # Errors
    /// A gradient or an energy that is not finite.
    pub fn new(
        psi: &'a dyn WaveFunction,
        samples: &'a Samples,
        energies: &dyn Values,
        memory: usize,
    ) -> Result<Self, SrError> {
        let params = psi.param_count();
        let parts = if psi.is_complex() { 2 } else { 1 };
        let n = samples.len();
        let eps = match &samples.weights {
            None => energies.centred(parts),
            Some(weights) => weighted(&energies.all(), weights, parts),
        };
        if eps.iter().any(|x| !x.is_finite()) {
            return Err(SrError::NotFinite("a local energy"));
        }
        let fitting = memory / (8 * parts * params.max(1));
        // Streaming needs two blocks at a time for sample-space products.
        let block = if fitting >= n {
            n
        } else {
            (fitting / 2).max(1)
        };
        let mut jacobian = Jacobian {
            psi,
            samples,
            params,
            parts,
            block,
            mean: Vec::new(),
            eps,
            held: None,
            remote: None,
        };
        let weights: Vec<f64> = (0..n).map(|s| samples.weight(s)).collect();
        match psi.centred_rows(&samples.spins, &weights) {
            Some(rows) => {
                jacobian.mean = rows.mean().to_vec();
                jacobian.remote = Some(rows);
            }
            None => jacobian.centre(),
        }
        if jacobian.mean.iter().any(|x| !x.is_finite()) {
            return Err(SrError::NotFinite("a gradient"));
        }
        Ok(jacobian)
    }

    /// Number of parameters.
    pub fn params(&self) -> usize {
        self.params
    }

    /// Number of rows: samples, twice for complex wave functions.
    pub fn rows(&self) -> usize {
        self.eps.len()
    }

    /// Whether all rows are held in memory.
    pub fn is_held(&self) -> bool {
        self.held.is_some() || self.remote.is_some()
    }

    /// The centred, weighted local energies, one per row.
    pub fn eps(&self) -> &[f64] {
        &self.eps
    }

    /// Gradients of the samples `start..start + len` as they come.
    fn raw(&self, start: usize, len: usize) -> Vec<f64> {
        let (p, sites) = (self.params, self.samples.sites);
        let mut data = vec![0.0; self.parts * len * p];
        if p == 0 {
            return data;
        }
        let (re, im) = data.split_at_mut(len * p);
        let mut im = im.chunks_exact_mut(p);
        let slots: Vec<_> = re
            .chunks_exact_mut(p)
            .map(|re| Mutex::new((re, im.next())))
            .collect();
        let spins = &self.samples.spins[start * sites..(start + len) * sites];
        self.psi.gradients(spins, &|sample, re, im| {
            let mut slot = slots[sample].lock().unwrap_or_else(PoisonError::into_inner);
            slot.0.copy_from_slice(re);
            if let Some(slot) = &mut slot.1 {
                slot.copy_from_slice(im);
            }
        });
        drop(slots);
        data
    }

    /// Subtracts the mean and multiplies by the root of the weights.
    fn normalise(&self, data: &mut [f64], start: usize, len: usize) {
        let p = self.params.max(1);
        for (row, data) in data.chunks_exact_mut(p).enumerate() {
            let weight = self.samples.weight(start + row % len).sqrt();
            let mean = &self.mean[row / len * p..][..p];
            data.iter_mut()
                .zip(mean)
                .for_each(|(x, m)| *x = weight * (*x - m));
        }
    }

    /// First pass: the mean gradient; keeps the rows where they fit.
    fn centre(&mut self) {
        let (n, p) = (self.samples.len(), self.params.max(1));
        self.mean = vec![0.0; self.parts * self.params];
        for start in (0..n).step_by(self.block.max(1)) {
            let len = self.block.min(n - start);
            let data = self.raw(start, len);
            for (row, data) in data.chunks_exact(p).enumerate() {
                let weight = self.samples.weight(start + row % len);
                let mean = &mut self.mean[row / len * p..][..p];
                // A configuration of weight zero may have any gradient.
                if weight > 0.0 {
                    mean.iter_mut()
                        .zip(data)
                        .for_each(|(m, x)| *m += weight * x);
                }
            }
            if len == n {
                let mut data = data;
                self.normalise(&mut data, 0, n);
                self.held = Some(data);
            }
        }
    }

    /// Calls `visit` for every block in order, from sample `from` on.
    fn blocks(&self, from: usize, visit: &mut dyn FnMut(Block)) {
        let (n, p) = (self.samples.len(), self.params);
        let mut start = from;
        while start < n {
            let len = self.block.min(n - start);
            match &self.held {
                Some(data) => visit(Block {
                    start,
                    len,
                    rows: MatRef::from_row_major_slice(data, self.parts * len, p),
                }),
                None => {
                    let mut data = self.raw(start, len);
                    self.normalise(&mut data, start, len);
                    visit(Block {
                        start,
                        len,
                        rows: MatRef::from_row_major_slice(&data, self.parts * len, p),
                    });
                }
            }
            start += len;
        }
    }

    /// Where row `row` of a block stands among all rows.
    fn row(&self, block: &Block, row: usize) -> usize {
        row / block.len * self.samples.len() + block.start + row % block.len
    }

    /// `Obar^T y`, `y` one number per row.
    pub fn adjoint(&self, y: &[f64]) -> Vec<f64> {
        if let Some(rows) = &self.remote {
            return rows.adjoint(y);
        }
        let mut out = Mat::<f64>::zeros(self.params, 1);
        self.blocks(0, &mut |block| {
            let y = Mat::from_fn(block.rows.nrows(), 1, |r, _| y[self.row(&block, r)]);
            matmul(
                out.as_mut(),
                Accum::Add,
                block.rows.transpose(),
                &y,
                1.0,
                Par::Seq,
            );
        });
        (0..self.params).map(|k| out[(k, 0)]).collect()
    }

    /// `Obar x`, one number per row.
    pub fn apply(&self, x: &[f64]) -> Vec<f64> {
        if let Some(rows) = &self.remote {
            return rows.apply(x);
        }
        let x = Mat::from_fn(self.params, 1, |k, _| x[k]);
        let mut out = vec![0.0; self.rows()];
        self.blocks(0, &mut |block| {
            let y = block.rows * &x;
            for r in 0..block.rows.nrows() {
                out[self.row(&block, r)] = y[(r, 0)];
            }
        });
        out
    }

    /// `F = Re <O^* E_loc>_c`, half the energy gradient.
    pub fn force(&self) -> Vec<f64> {
        self.adjoint(&self.eps)
    }

    /// The diagonal of S.
    pub fn metric_diagonal(&self) -> Vec<f64> {
        if let Some(rows) = &self.remote {
            return rows.column_squares();
        }
        let mut out = vec![0.0; self.params];
        self.blocks(0, &mut |block| {
            for r in 0..block.rows.nrows() {
                for (k, out) in out.iter_mut().enumerate() {
                    *out += block.rows[(r, k)] * block.rows[(r, k)];
                }
            }
        });
        out
    }

    /// Solves a system: where the rows are, by Cholesky, else or where that fails as
    /// [`solve_positive`] does.
    pub fn solve(&self, system: &System, rhs: &[f64]) -> Option<Solution> {
        let there = self.remote.as_ref().and_then(|r| r.solve(system, rhs));
        match there {
            Some(x) => Some(Solution { x, message: None }),
            None => solve_positive(self.matrix(system).as_ref(), rhs),
        }
    }

    /// The matrix of a system, lower triangle at least.
    pub fn matrix(&self, system: &System) -> Mat<f64> {
        if let Some(rows) = &self.remote {
            let n = match system {
                System::Parameters { .. } => self.params,
                System::Rows { .. } => self.rows(),
            };
            let all = rows.matrix(system);
            return Mat::from_fn(n, n, |i, j| if j <= i { all[i * n + j] } else { 0.0 });
        }
        match system {
            System::Parameters { absolute, relative } => {
                let mut metric = self.metric();
                for k in 0..self.params {
                    metric[(k, k)] += absolute + relative * metric[(k, k)];
                    if metric[(k, k)] == 0.0 {
                        metric[(k, k)] = 1.0;
                    }
                }
                metric
            }
            System::Rows { scale, shift } => {
                let ones = || vec![1.0; self.params];
                let mut gram = self.sample_gram(&scale.clone().unwrap_or_else(ones));
                for r in 0..self.rows() {
                    gram[(r, r)] += shift;
                }
                gram
            }
        }
    }

    /// `S = Re <O^* O>_c` (parameters by parameters), lower triangle; the
    /// upper one is zero.
    pub fn metric(&self) -> Mat<f64> {
        let mut out = Mat::zeros(self.params, self.params);
        self.blocks(0, &mut |block| {
            triangular::matmul(
                out.as_mut(),
                BlockStructure::TriangularLower,
                Accum::Add,
                block.rows.transpose(),
                BlockStructure::Rectangular,
                block.rows,
                BlockStructure::Rectangular,
                1.0,
                Par::rayon(0),
            );
        });
        out
    }

    /// `Obar diag(scale) Obar^T` (rows by rows), lower triangle at least.
    pub fn sample_gram(&self, scale: &[f64]) -> Mat<f64> {
        let mut out = Mat::zeros(self.rows(), self.rows());
        let plain = scale.iter().all(|s| *s == 1.0);
        self.blocks(0, &mut |left| {
            let mut copy = Vec::new();
            let scaled = if plain {
                left.rows
            } else {
                copy.reserve_exact(left.rows.nrows() * self.params);
                for r in 0..left.rows.nrows() {
                    copy.extend((0..self.params).map(|k| left.rows[(r, k)] * scale[k]));
                }
                MatRef::from_row_major_slice(&copy, left.rows.nrows(), self.params)
            };
            if left.len == self.samples.len() {
                // one block holds all rows, in the order of the result
                return triangular::matmul(
                    out.as_mut(),
                    BlockStructure::TriangularLower,
                    Accum::Replace,
                    scaled,
                    BlockStructure::Rectangular,
                    left.rows.transpose(),
                    BlockStructure::Rectangular,
                    1.0,
                    Par::rayon(0),
                );
            }
            let mut place = |right: Block| {
                let mut product = Mat::zeros(scaled.nrows(), right.rows.nrows());
                matmul(
                    product.as_mut(),
                    Accum::Replace,
                    scaled,
                    right.rows.transpose(),
                    1.0,
                    Par::rayon(0),
                );
                for c in 0..product.ncols() {
                    let column = self.row(&right, c);
                    for r in 0..product.nrows() {
                        let row = self.row(&left, r);
                        out[(row, column)] = product[(r, c)];
                        out[(column, row)] = product[(r, c)];
                    }
                }
            };
            self.blocks(left.start, &mut place);
        });
        out
    }
}
