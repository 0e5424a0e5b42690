//! Mixers as real linear systems, channel by channel.
//!
//! A channel is one real component of a mixer, or a pair (real, imaginary part);
//! its state is p real numbers, f <- L f + B v, y = C f, with dense small matrices,
//! whatever the scan's form: diagonal, diagonal plus rank one, dense. Stretches of
//! sites are passed in one step, so that a dense L^n costs no more per site than a
//! structured L would, and no basis has to be chosen: S4 stays in the basis it is
//! given in, never diagonalised.

use crate::interp::Tensor;
use crate::ir::Scan;

/// A dense matrix, row major, f64.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Matrix {
    pub rows: usize,
    pub columns: usize,
    pub data: Vec<f64>,
}

impl Matrix {
    pub fn zeros(rows: usize, columns: usize) -> Matrix {
        Matrix {
            rows,
            columns,
            data: vec![0.0; rows * columns],
        }
    }
    pub fn identity(n: usize) -> Matrix {
        let mut unit = Matrix::zeros(n, n);
        for i in 0..n {
            unit.data[i * n + i] = 1.0;
        }
        unit
    }
    pub fn at(&self, r: usize, c: usize) -> f64 {
        self.data[r * self.columns + c]
    }
    pub fn times(&self, o: &Matrix) -> Matrix {
        let mut product = Matrix::zeros(self.rows, o.columns);
        for r in 0..self.rows {
            for k in 0..self.columns {
                let a = self.at(r, k);
                let row = &o.data[k * o.columns..(k + 1) * o.columns];
                let out = &mut product.data[r * o.columns..(r + 1) * o.columns];
                out.iter_mut().zip(row).for_each(|(x, b)| *x += a * b);
            }
        }
        product
    }
    pub fn transposed(&self) -> Matrix {
        let mut t = Matrix::zeros(self.columns, self.rows);
        for r in 0..self.rows {
            for c in 0..self.columns {
                t.data[c * self.rows + r] = self.at(r, c);
            }
        }
        t
    }
    /// `(1 - self)^-1`; `None` if singular.
    pub fn resolvent(&self) -> Option<Matrix> {
        let n = self.rows;
        let mut a = Matrix::identity(n);
        a.data.iter_mut().zip(&self.data).for_each(|(x, y)| *x -= y);
        let mut inverse = Matrix::identity(n);
        for c in 0..n {
            let pivot = (c..n).max_by(|&i, &j| a.at(i, c).abs().total_cmp(&a.at(j, c).abs()))?;
            if a.at(pivot, c) == 0.0 || !a.at(pivot, c).is_finite() {
                return None;
            }
            for m in [&mut a, &mut inverse] {
                for k in 0..n {
                    m.data.swap(pivot * n + k, c * n + k);
                }
            }
            let scale = 1.0 / a.at(c, c);
            for m in [&mut a, &mut inverse] {
                m.data[c * n..(c + 1) * n]
                    .iter_mut()
                    .for_each(|x| *x *= scale);
            }
            for r in (0..n).filter(|&r| r != c) {
                let factor = a.at(r, c);
                for m in [&mut a, &mut inverse] {
                    for k in 0..n {
                        m.data[r * n + k] -= factor * m.data[c * n + k];
                    }
                }
            }
        }
        Some(inverse)
    }
}

/// One channel of a scan.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    /// L, p x p.
    pub transition: Matrix,
    /// B, p x parts.
    pub input: Matrix,
    /// C, parts x p.
    pub output: Matrix,
}

impl Channel {
    /// `C L^n B` for n = 0..count.
    pub fn kernel(&self, count: usize) -> Vec<Matrix> {
        let mut state = self.input.clone();
        (0..count)
            .map(|_| {
                let g = self.output.times(&state);
                state = self.transition.times(&state);
                g
            })
            .collect()
    }
}

/// The kernel on a ring, all windings summed, near displacement 0.
pub(super) struct Wound {
    sites: i64,
    /// Displacements from 0 up.
    low: Vec<Matrix>,
    /// Displacements from `sites - high.len()` up.
    high: Vec<Matrix>,
}

impl Wound {
    /// `sum_k G(r + k sites)` over all windings k >= 0 of a displacement within reach.
    pub fn at(&self, r: i64) -> &Matrix {
        let r = r.rem_euclid(self.sites);
        let first = self.sites - self.high.len() as i64;
        if (r as usize) < self.low.len() {
            &self.low[r as usize]
        } else {
            &self.high[(r - first) as usize]
        }
    }
}

impl Channel {
    /// The kernel on a ring of so many sites, for displacements up to `reach` either
    /// way; `None` if there is no periodic solution.
    pub fn wound(&self, sites: usize, reach: usize) -> Option<Wound> {
        let closure = power_of(&self.transition, sites).resolvent()?;
        let mut one = self.clone();
        one.input = closure.times(&self.input);
        let low = one.kernel(reach + 1);
        let count = reach.min(sites);
        one.input = power_of(&self.transition, sites - count).times(&one.input);
        Some(Wound {
            sites: sites as i64,
            low,
            high: one.kernel(count),
        })
    }
}

/// `m^n` by repeated squaring.
pub(super) fn power_of(m: &Matrix, mut n: usize) -> Matrix {
    let (mut result, mut square) = (Matrix::identity(m.rows), m.clone());
    while n > 0 {
        if n & 1 == 1 {
            result = result.times(&square);
        }
        n >>= 1;
        if n > 0 {
            square = square.times(&square);
        }
    }
    result
}

/// The channels of a scan from its coefficient tensors, for `inputs` real
/// components.
pub(super) fn channels(scan: Scan, coefficients: &[&Tensor], inputs: usize) -> Vec<Channel> {
    let parts = if scan.complex { 2 } else { 1 };
    let count = inputs / parts;
    let output = coefficients[coefficients.len() - 1];
    let input = coefficients[coefficients.len() - 2];
    let states = output.data.len() / (parts * count);
    let read = |t: &Tensor, entry: usize, c: usize| -> [f64; 2] {
        let (half, at) = (t.data.len() / parts, entry * count + c);
        [t.data[at], if parts == 2 { t.data[half + at] } else { 0.0 }]
    };
    let put = |m: &mut Matrix, row: usize, column: usize, z: [f64; 2]| {
        let n = m.columns;
        if parts == 1 {
            m.data[row * n + column] += z[0];
        } else {
            let (r, c) = (2 * row, 2 * column);
            m.data[r * n + c] += z[0];
            m.data[r * n + c + 1] -= z[1];
            m.data[(r + 1) * n + c] += z[1];
            m.data[(r + 1) * n + c + 1] += z[0];
        }
    };
    let p = parts * states;
    (0..count)
        .map(|c| {
            let mut one = Channel {
                transition: Matrix::zeros(p, p),
                input: Matrix::zeros(p, parts),
                output: Matrix::zeros(parts, p),
            };
            for n in 0..states {
                put(&mut one.input, n, 0, read(input, n, c));
                put(&mut one.output, 0, n, read(output, n, c));
                for k in 0..states {
                    let mut a = [0.0; 2];
                    if scan.dense {
                        a = read(coefficients[0], n * states + k, c);
                    } else if n == k {
                        a = read(coefficients[0], n, c);
                    }
                    if scan.low_rank {
                        let (x, y) = (read(coefficients[1], n, c), read(coefficients[2], k, c));
                        a[0] -= x[0] * y[0] - x[1] * y[1];
                        a[1] -= x[0] * y[1] + x[1] * y[0];
                    }
                    put(&mut one.transition, n, k, a);
                }
            }
            one
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Matrix;

    #[test]
    fn resolvents_invert() {
        for n in 1..6 {
            let mut a = Matrix::zeros(n, n);
            for (k, x) in a.data.iter_mut().enumerate() {
                *x = (1.3 * k as f64 + n as f64).sin();
            }
            let inverse = a.resolvent().expect("a generic matrix");
            // X - A X = 1
            let product = a.times(&inverse);
            for (k, x) in inverse.data.iter().enumerate() {
                let unit = f64::from(u8::from(k / n == k % n));
                assert!((x - product.data[k] - unit).abs() < 1e-10);
            }
        }
        assert!(Matrix::identity(2).resolvent().is_none());
    }
}
