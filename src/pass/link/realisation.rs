//! Mixers as linear systems with a right-moving and a left-moving state.
//!
//! ```text
//! f_i = Lf f_{i-1} + Bf v_i          g_i = Lb g_{i+1} + Bb v_i
//! y_i = D v_i + Cf f_i + Cb Lb g_{i+1}
//! ```
//!
//! Scans are such systems with a few states per channel. A stencil on a linear
//! value is one too: its states are the values of the neighbours it reads.

use super::Kernel;
use crate::interp::{Evaluation, Tensor};
use crate::ir::{Op, Scan};
use crate::pass::abacus::{AbacusError, Network};

/// A dense real matrix, row major.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Elements.
    pub data: Vec<f64>,
}

impl Matrix {
    /// All elements zero.
    pub fn zeros(rows: usize, columns: usize) -> Matrix {
        Matrix {
            rows,
            columns,
            data: vec![0.0; rows * columns],
        }
    }
    /// The element at a row and column.
    pub fn at(&mut self, row: usize, column: usize) -> &mut f64 {
        &mut self.data[row * self.columns + column]
    }
    /// `self x` for a block of columns stored row by row: `x` has `columns` rows
    /// of `width` numbers each, and `self x` is added to `out`.
    pub fn multiply_add(&self, x: &[f64], out: &mut [f64], width: usize) {
        for r in 0..self.rows {
            let out = &mut out[r * width..(r + 1) * width];
            for c in 0..self.columns {
                let a = self.data[r * self.columns + c];
                if a != 0.0 {
                    for (o, x) in out.iter_mut().zip(&x[c * width..(c + 1) * width]) {
                        *o += a * x;
                    }
                }
            }
        }
    }
    /// The matrix product.
    pub fn times(&self, o: &Matrix) -> Matrix {
        let mut product = Matrix::zeros(self.rows, o.columns);
        self.multiply_add(&o.data, &mut product.data, o.columns);
        product
    }
}

/// One direction of a mixer: state transition L, input B, output C.
#[derive(Clone, Debug)]
pub struct Direction {
    /// States x states.
    pub transition: Matrix,
    /// States x inputs.
    pub input: Matrix,
    /// Outputs x states.
    pub output: Matrix,
}

impl Direction {
    fn none(inputs: usize, outputs: usize) -> Direction {
        Direction {
            transition: Matrix::zeros(0, 0),
            input: Matrix::zeros(0, inputs),
            output: Matrix::zeros(outputs, 0),
        }
    }
    /// Number of real states.
    pub fn states(&self) -> usize {
        self.transition.rows
    }
}

/// A mixer as a pair of recurrences; see the [module](self).
#[derive(Clone, Debug)]
pub struct Realisation {
    /// Instantaneous part D, outputs x inputs.
    pub direct: Matrix,
    /// Right-moving: Lf, Bf, Cf (reads the state after the site).
    pub right: Direction,
    /// Left-moving: Lb, Bb, Cb (reads the state before the site, moved onto it).
    pub left: Direction,
}

impl Realisation {
    /// The realisation of mixer `m`, from its constant coefficients.
    ///
    /// # Errors
    /// [`AbacusError::Strategy`] if the mixer is neither a scan nor a stencil along a chain.
    pub fn new(
        net: &Network,
        values: &Evaluation,
        kernel: &Kernel,
        m: usize,
    ) -> Result<Realisation, AbacusError> {
        let node = net.form.mixers[m].output;
        let refuse = |reason: &str| AbacusError::Strategy {
            strategy: "environments",
            reason: reason.to_owned(),
        };
        if net.lattice.extent[1] != 1 {
            return Err(refuse("the lattice is not a chain"));
        }
        let (inputs, outputs) = (kernel.inputs(), kernel.outputs());
        match *net.graph.op(node) {
            Op::Scan(scan) => {
                let coefficients: Vec<&Tensor> = net.graph.args(node)[1..]
                    .iter()
                    .map(|&a| values.value(a))
                    .collect();
                let one = recurrence(scan, &coefficients, inputs);
                let mut real = Realisation {
                    direct: Matrix::zeros(outputs, inputs),
                    right: Direction::none(inputs, outputs),
                    left: Direction::none(inputs, outputs),
                };
                if scan.leftward || scan.mirror {
                    // y_i = C g_i = C B v_i + C L g_{i+1}
                    let at_site = one.output.times(&one.input);
                    real.direct
                        .data
                        .iter_mut()
                        .zip(at_site.data)
                        .for_each(|(d, x)| *d += x);
                    real.left = one.clone();
                }
                if !scan.leftward || scan.mirror {
                    real.right = one;
                }
                Ok(real)
            }
            Op::Window { lo, hi } => {
                let copy = |offset: i64| {
                    (offset >= lo[0] && offset <= hi[0]).then(|| (offset - lo[0]) as usize)
                };
                Ok(delays(inputs, outputs, -lo[0], hi[0], |offset, c| {
                    Some((copy(offset)? * inputs + c, c))
                }))
            }
            Op::WindowAdjoint { lo, hi } => {
                // y_i = sum_r x_{i-r}[r]: offset -r reads part r.
                let part = |offset: i64| {
                    (-offset >= lo[0] && -offset <= hi[0]).then(|| (-offset - lo[0]) as usize)
                };
                Ok(delays(inputs, outputs, hi[0], -lo[0], |offset, c| {
                    let (from, row) = (c / outputs, c % outputs);
                    (part(offset)? == from).then_some((row, c))
                }))
            }
            ref op => Err(refuse(&format!(
                "mixer {} ({}) is not a recurrence",
                m + 1,
                crate::pass::normal_form::op_name(op)
            ))),
        }
    }

    /// Components of the input.
    pub fn inputs(&self) -> usize {
        self.direct.columns
    }
    /// Components of the output.
    pub fn outputs(&self) -> usize {
        self.direct.rows
    }
}

/// `f <- A f + B v, y = C f` over all channels, real form.
fn recurrence(scan: Scan, coefficients: &[&Tensor], inputs: usize) -> Direction {
    let parts = if scan.complex { 2 } else { 1 };
    let channels = inputs / parts;
    let output = coefficients[coefficients.len() - 1];
    let states = output.data.len() / (parts * channels);
    // Element (state, channel) of a coefficient, as (re, im).
    let read = |t: &Tensor, entry: usize, c: usize| -> (f64, f64) {
        let half = t.data.len() / parts;
        let at = entry * channels + c;
        (
            t.data[at],
            if scan.complex { t.data[half + at] } else { 0.0 },
        )
    };
    let size = states * inputs;
    let mut one = Direction {
        transition: Matrix::zeros(size, size),
        input: Matrix::zeros(size, inputs),
        output: Matrix::zeros(inputs, size),
    };
    let index = |c: usize, n: usize, part: usize| (c * states + n) * parts + part;
    let put = |matrix: &mut Matrix, rows: [usize; 2], columns: [usize; 2], z: (f64, f64)| {
        *matrix.at(rows[0], columns[0]) += z.0;
        if scan.complex {
            *matrix.at(rows[0], columns[1]) -= z.1;
            *matrix.at(rows[1], columns[0]) += z.1;
            *matrix.at(rows[1], columns[1]) += z.0;
        }
    };
    let last = parts - 1;
    for c in 0..channels {
        let signal = [c, c + last * channels];
        for n in 0..states {
            let state = |n: usize| [index(c, n, 0), index(c, n, last)];
            let (b, o) = (
                read(coefficients[coefficients.len() - 2], n, c),
                read(output, n, c),
            );
            put(&mut one.input, state(n), signal, b);
            put(&mut one.output, signal, state(n), o);
            for k in 0..states {
                let mut a = (0.0, 0.0);
                if scan.dense {
                    a = read(coefficients[0], n * states + k, c);
                } else if n == k {
                    a = read(coefficients[0], n, c);
                }
                if scan.low_rank {
                    let (p, q) = (read(coefficients[1], n, c), read(coefficients[2], k, c));
                    a = (a.0 - (p.0 * q.0 - p.1 * q.1), a.1 - (p.0 * q.1 + p.1 * q.0));
                }
                put(&mut one.transition, state(n), state(k), a);
            }
        }
    }
    one
}

/// Shift registers reading `before` sites to the left and `after` to the right;
/// `entry(offset, input)` says which output, if any, the input at that offset is copied to.
fn delays(
    inputs: usize,
    outputs: usize,
    before: i64,
    after: i64,
    entry: impl Fn(i64, usize) -> Option<(usize, usize)>,
) -> Realisation {
    let mut direct = Matrix::zeros(outputs, inputs);
    let copy = |matrix: &mut Matrix, offset: i64, first: usize| {
        for c in 0..inputs {
            if let Some((row, column)) = entry(offset, c) {
                *matrix.at(row, first + column) += 1.0;
            }
        }
    };
    copy(&mut direct, 0, 0);
    // Right-moving state after site i: v_i, v_{i-1}, .., v_{i-before}.
    let stages = (before.max(0) + 1) as usize;
    let mut right = register(stages, inputs, outputs);
    for stage in 1..stages {
        copy(&mut right.output, -(stage as i64), stage * inputs);
    }
    // Left-moving state of site i likewise; the transition is applied before reading.
    let stages = (after.max(0) + 1) as usize;
    let mut left = register(stages, inputs, outputs);
    for stage in 1..stages {
        copy(&mut left.output, stage as i64, stage * inputs);
    }
    // A window that does not contain the site itself still starts at stage 1.
    Realisation {
        direct,
        right,
        left,
    }
}

fn register(stages: usize, inputs: usize, outputs: usize) -> Direction {
    let size = stages * inputs;
    let mut one = Direction {
        transition: Matrix::zeros(size, size),
        input: Matrix::zeros(size, inputs),
        output: Matrix::zeros(outputs, size),
    };
    for c in 0..inputs {
        *one.input.at(c, c) = 1.0;
    }
    for s in inputs..size {
        *one.transition.at(s, s - inputs) = 1.0;
    }
    one
}
