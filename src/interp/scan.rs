//! Linear recurrences along a chain and the gradients of their coefficients.

use super::EvalError;
use super::mixers::Channels;
use crate::ir::{Boundary, Scan};
use num_complex::Complex64;

type Vector = Vec<Complex64>;
/// Row major, square.
type Matrix = Vec<Vector>;

/// The coefficients of a scan, each `[states, channels]` (transition:
/// `[states * states, channels]`).
pub(super) struct Coefficients {
    scan: Scan,
    states: usize,
    /// In operand order: decay | transition, [p, q], input, output.
    values: Vec<Channels>,
}

impl Coefficients {
    /// Coefficients in operand order, each one entry per state (pair).
    pub(super) fn new(scan: Scan, states: usize, values: Vec<Channels>) -> Coefficients {
        Coefficients {
            scan,
            states,
            values,
        }
    }

    fn vector(&self, operand: usize, channel: usize) -> Vector {
        (0..self.states)
            .map(|n| self.values[operand].at(n)[channel])
            .collect()
    }

    fn input(&self, channel: usize) -> Vector {
        self.vector(self.values.len() - 2, channel)
    }

    fn output(&self, channel: usize) -> Vector {
        self.vector(self.values.len() - 1, channel)
    }

    /// `A = diag(decay)`, the dense transition, or either minus `p q^T`.
    fn transition(&self, channel: usize) -> Matrix {
        let s = self.states;
        let low_rank = self
            .scan
            .low_rank
            .then(|| [1, 2].map(|k| self.vector(k, channel)));
        let mut a = vec![vec![Complex64::ZERO; s]; s];
        for (n, row) in a.iter_mut().enumerate() {
            for (m, a) in row.iter_mut().enumerate() {
                if self.scan.dense {
                    *a = self.values[0].at(n * s + m)[channel];
                } else if n == m {
                    *a = self.values[0].at(n)[channel];
                }
                if let Some([p, q]) = &low_rank {
                    *a -= p[n] * q[m];
                }
            }
        }
        a
    }

    /// The orders in which sites are visited: one per direction.
    fn orders(&self, sites: usize) -> Vec<Vec<usize>> {
        let right: Vec<usize> = (0..sites).collect();
        let left: Vec<usize> = (0..sites).rev().collect();
        match (self.scan.mirror, self.scan.leftward) {
            (true, _) => vec![right, left],
            (false, true) => vec![left],
            (false, false) => vec![right],
        }
    }
}

/// `y_i = sum_n output_n h_{i,n}` with `h_i = A h_{i-1} + input x_i`.
///
/// # Errors
/// A recurrence without a unique periodic solution.
pub(super) fn scan(
    c: &Coefficients,
    x: &Channels,
    sites: usize,
    boundary: Boundary,
) -> Result<Channels, EvalError> {
    let mut y = Channels::zeros(sites, x.width);
    for channel in 0..x.width {
        let (a, input, output) = (c.transition(channel), c.input(channel), c.output(channel));
        for order in c.orders(sites) {
            let drive = driven(&order, &input, |i| x.at(i)[channel]);
            for (&i, h) in order.iter().zip(&states(&a, &drive, boundary)?) {
                y.at_mut(i)[channel] += dot(&output, h);
            }
        }
    }
    Ok(y)
}

/// The gradient of `Re sum_i conj(g_i) scan(x)_i` with respect to coefficient
/// `wrt` (1-based operand number): with the adjoint states
/// `l_i = A^H l_{i+1} + conj(output) g_i` it is `dA = sum_i l_i h_{i-1}^H`,
/// `d input = sum_i l_i conj(x_i)`, `d output = sum_i g_i conj(h_i)`.
///
/// # Errors
/// As [`scan`].
pub(super) fn scan_gradient(
    c: &Coefficients,
    wrt: usize,
    g: &Channels,
    x: &Channels,
    sites: usize,
    boundary: Boundary,
) -> Result<Channels, EvalError> {
    let s = c.states;
    let operands = c.values.len();
    let entries = if c.scan.dense && wrt == 1 { s * s } else { s };
    let mut gradient = Channels::zeros(entries, x.width);
    for channel in 0..x.width {
        let (a, input, output) = (c.transition(channel), c.input(channel), c.output(channel));
        let adjoint: Matrix = (0..s)
            .map(|n| (0..s).map(|m| a[m][n].conj()).collect())
            .collect();
        let conj_output: Vector = output.iter().map(Complex64::conj).collect();
        for order in c.orders(sites) {
            let h = states(&a, &driven(&order, &input, |i| x.at(i)[channel]), boundary)?;
            let back: Vec<usize> = order.iter().rev().copied().collect();
            let mut l = states(
                &adjoint,
                &driven(&back, &conj_output, |i| g.at(i)[channel]),
                boundary,
            )?;
            l.reverse();
            let mut add = |entry: usize, z: Complex64| gradient.at_mut(entry)[channel] += z;
            for (step, &i) in order.iter().enumerate() {
                if wrt == operands {
                    for (n, h) in h[step].iter().enumerate() {
                        add(n, g.at(i)[channel] * h.conj());
                    }
                    continue;
                }
                if wrt == operands - 1 {
                    for (n, l) in l[step].iter().enumerate() {
                        add(n, l * x.at(i)[channel].conj());
                    }
                    continue;
                }
                let before = match (step, boundary) {
                    (0, Boundary::Open) => continue,
                    (0, Boundary::Periodic) => &h[order.len() - 1],
                    _ => &h[step - 1],
                };
                for (n, l) in l[step].iter().enumerate() {
                    for (m, h) in before.iter().enumerate() {
                        let da = l * h.conj();
                        match wrt {
                            1 if c.scan.dense => add(n * s + m, da),
                            1 if n == m => add(n, da),
                            1 => {}
                            2 => add(n, -da * c.values[2].at(m)[channel].conj()),
                            _ => add(m, -da * c.values[1].at(n)[channel].conj()),
                        }
                    }
                }
            }
        }
    }
    Ok(gradient)
}

fn dot(a: &[Complex64], b: &[Complex64]) -> Complex64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `vector * x_i` in the order given.
fn driven(order: &[usize], vector: &[Complex64], x: impl Fn(usize) -> Complex64) -> Vec<Vector> {
    order
        .iter()
        .map(|&i| vector.iter().map(|b| b * x(i)).collect())
        .collect()
}

/// The states `h_k = A h_{k-1} + drive_k`: from zero, or the periodic solution.
fn states(a: &Matrix, drive: &[Vector], boundary: Boundary) -> Result<Vec<Vector>, EvalError> {
    let size = a.len();
    let run = |start: Vector| {
        let mut h = start;
        drive
            .iter()
            .map(|d| {
                h = (0..size).map(|n| dot(&a[n], &h) + d[n]).collect();
                h.clone()
            })
            .collect::<Vec<Vector>>()
    };
    let from_zero = run(vec![Complex64::ZERO; size]);
    match (boundary, from_zero.last()) {
        (Boundary::Periodic, Some(last)) => Ok(run(periodic_start(a, drive.len(), last)?)),
        _ => Ok(from_zero),
    }
}

/// The h with `h = A^steps h + last`, by Gaussian elimination with row pivots.
fn periodic_start(a: &Matrix, steps: usize, last: &[Complex64]) -> Result<Vector, EvalError> {
    let size = a.len();
    let product = |x: &Matrix, y: &Matrix| -> Matrix {
        (0..size)
            .map(|n| {
                (0..size)
                    .map(|m| (0..size).map(|k| x[n][k] * y[k][m]).sum())
                    .collect()
            })
            .collect()
    };
    let one = |n: usize, m: usize| Complex64::from(f64::from(u8::from(n == m)));
    let mut power: Matrix = (0..size)
        .map(|n| (0..size).map(|m| one(n, m)).collect())
        .collect();
    let (mut square, mut left) = (a.clone(), steps);
    while left > 0 {
        if left % 2 == 1 {
            power = product(&power, &square);
        }
        square = product(&square, &square);
        left /= 2;
    }
    let mut rows: Matrix = (0..size)
        .map(|n| {
            (0..size)
                .map(|m| one(n, m) - power[n][m])
                .chain([last[n]])
                .collect()
        })
        .collect();
    for k in 0..size {
        let pivot = (k..size)
            .max_by(|&i, &j| rows[i][k].norm().total_cmp(&rows[j][k].norm()))
            .unwrap_or(k);
        rows.swap(k, pivot);
        if rows[k][k] == Complex64::ZERO {
            return Err(EvalError::SingularScan);
        }
        let (above, below) = rows.split_at_mut(k + 1);
        let row = &above[k];
        for other in below {
            let factor = other[k] / row[k];
            for (o, r) in other.iter_mut().zip(row).skip(k) {
                *o -= factor * r;
            }
        }
    }
    let mut h = vec![Complex64::ZERO; size];
    for n in (0..size).rev() {
        let rest = dot(&rows[n][n + 1..size], &h[n + 1..]);
        h[n] = (rows[n][size] - rest) / rows[n][n];
    }
    Ok(h)
}
