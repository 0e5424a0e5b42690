//! Coefficients of mixers, and the response of linear recurrences in f64.

use super::mixer::MixerError;
use crate::interp::Tensor;
use crate::ir::Scan;
use crate::kernel::shape::broadcast_map;
use rustfft::num_complex::Complex64;

/// Coefficients `[entries][states..][channel]` of a mixer, broadcast over channels.
pub(super) struct Coefficients {
    /// Per entry the values that differ.
    data: Vec<Complex64>,
    per: usize,
    /// Which of them a channel has.
    own: Vec<usize>,
}

impl Coefficients {
    /// Reads a tensor `[lead.., (2,) own..]` where `lead` entries come first.
    pub(super) fn read(
        t: &Tensor,
        lead: usize,
        complex: Layout,
        channels: &[usize],
    ) -> Coefficients {
        let (before, after) = match complex {
            Layout::Real => (lead, 0),
            Layout::Outer => (lead, 1),
            Layout::Inner => (lead, 2),
        };
        let per = t.data.len() / before.max(1) / if after > 0 { 2 } else { 1 };
        let entries = before;
        let own_shape: Vec<usize> = {
            let mut shape = t.shape.clone();
            // drop leading axes until the product is the size of one entry
            while shape.iter().product::<usize>() > per {
                shape.remove(0);
            }
            shape
        };
        let own = broadcast_map(&own_shape, channels);
        let mut data = Vec::with_capacity(entries * per);
        for e in 0..entries {
            for k in 0..per {
                data.push(match complex {
                    Layout::Real => t.data[e * per + k].into(),
                    Layout::Outer => {
                        Complex64::new(t.data[e * per + k], t.data[(entries + e) * per + k])
                    }
                    Layout::Inner => {
                        Complex64::new(t.data[2 * e * per + k], t.data[(2 * e + 1) * per + k])
                    }
                });
            }
        }
        Coefficients { data, per, own }
    }
    /// Of every channel the first one that has the same values.
    pub(super) fn first_alike(&self) -> Vec<usize> {
        let first = |own| self.own.iter().position(|o| o == own).unwrap_or(0);
        self.own.iter().map(first).collect()
    }
    pub(super) fn at(&self, entry: usize, channel: usize) -> Complex64 {
        self.data[entry * self.per + self.own[channel]]
    }
}

/// Where the axis (real part, imaginary part) is.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Layout {
    Real,
    /// Before the entries.
    Outer,
    /// After the entries.
    Inner,
}

/// The response of a linear recurrence, `A = diag(decay) - p q^T` or dense.
pub(super) struct Response {
    scan: Scan,
    states: usize,
    /// decay | transition, [p, q], input, output
    coefficients: Vec<Coefficients>,
}

impl Response {
    /// Reads the coefficients in operand order.
    pub(super) fn new(scan: Scan, values: &[&Tensor], channels: &[usize]) -> Response {
        let layout = if scan.complex {
            Layout::Outer
        } else {
            Layout::Real
        };
        let states = values
            .last()
            .map_or(0, |t| t.shape[usize::from(scan.complex)]);
        let mut response = Response {
            scan,
            states,
            coefficients: Vec::with_capacity(values.len()),
        };
        for (k, t) in values.iter().enumerate() {
            let entries = response.entries(k + 1);
            response
                .coefficients
                .push(Coefficients::read(t, entries, layout, channels));
        }
        response
    }

    /// Its kind.
    pub(super) fn scan(&self) -> Scan {
        self.scan
    }

    /// Number of states.
    pub(super) fn states(&self) -> usize {
        self.states
    }

    /// Number of coefficient operands.
    pub(super) fn operands(&self) -> usize {
        self.coefficients.len()
    }

    /// Entries per channel of coefficient `wrt` (1-based).
    pub(super) fn entries(&self, wrt: usize) -> usize {
        if self.scan.dense && wrt == 1 {
            self.states * self.states
        } else {
            self.states
        }
    }

    /// A coefficient other than a dense transition, by position.
    pub(super) fn vector(&self, operand: usize, channel: usize) -> Vec<Complex64> {
        (0..self.states)
            .map(|n| self.coefficients[operand].at(n, channel))
            .collect()
    }

    /// `b`; `c` for the transposed recurrence.
    fn drive(&self, channel: usize, transposed: bool) -> Vec<Complex64> {
        let last = self.coefficients.len() - 1;
        self.vector(if transposed { last } else { last - 1 }, channel)
    }

    /// `p` and `q`, exchanged for the transposed recurrence.
    fn low_rank(&self, channel: usize, transposed: bool) -> Option<[Vec<Complex64>; 2]> {
        let order = if transposed { [2, 1] } else { [1, 2] };
        self.scan
            .low_rank
            .then(|| order.map(|k| self.vector(k, channel)))
    }

    /// An element of the dense part of the transition.
    fn dense(&self, channel: usize, transposed: bool, n: usize, m: usize) -> Complex64 {
        let (n, m) = if transposed { (m, n) } else { (n, m) };
        self.coefficients[0].at(n * self.states + m, channel)
    }

    /// `A^n b` for n in 0..len; `(A^T)^n c` if transposed.
    pub(super) fn powers(
        &self,
        channel: usize,
        transposed: bool,
        len: usize,
    ) -> Vec<Vec<Complex64>> {
        let s = self.states;
        let mut h = self.drive(channel, transposed);
        let low_rank = self.low_rank(channel, transposed);
        let mut powers = Vec::with_capacity(len);
        for _ in 0..len {
            let mut next: Vec<Complex64> = if self.scan.dense {
                (0..s)
                    .map(|n| {
                        (0..s)
                            .map(|m| self.dense(channel, transposed, n, m) * h[m])
                            .sum()
                    })
                    .collect()
            } else {
                let decay = |n: usize| self.coefficients[0].at(n, channel);
                (0..s).map(|n| decay(n) * h[n]).collect()
            };
            if let Some([p, q]) = &low_rank {
                let qh = dot(q, &h);
                next.iter_mut().zip(p).for_each(|(x, p)| *x -= p * qh);
            }
            powers.push(std::mem::replace(&mut h, next));
        }
        powers
    }

    /// `c A^n b` for n in 0..len.
    pub(super) fn impulse(&self, channel: usize, len: usize) -> Vec<Complex64> {
        let c = self.drive(channel, true);
        let states = self.powers(channel, false, len);
        states.iter().map(|h| dot(&c, h)).collect()
    }

    /// `c (1 - u A)^-1 b` at `u = exp(-2 pi i q / len)`.
    ///
    /// # Errors
    /// A singular recurrence.
    pub(super) fn transfer(
        &self,
        channel: usize,
        len: usize,
    ) -> Result<Vec<Complex64>, MixerError> {
        let c = self.drive(channel, true);
        (0..len)
            .map(|q| {
                let u = Complex64::cis(-std::f64::consts::TAU * q as f64 / len as f64);
                let value = dot(&c, &self.resolvent(channel, false, u)?);
                value.is_finite().then_some(value).ok_or_else(singular)
            })
            .collect()
    }

    /// `(1 - u A)^-1 b`; `(1 - u A^T)^-1 c` if transposed.
    ///
    /// # Errors
    /// A singular matrix.
    pub(super) fn resolvent(
        &self,
        channel: usize,
        transposed: bool,
        u: Complex64,
    ) -> Result<Vec<Complex64>, MixerError> {
        let b = self.drive(channel, transposed);
        let low_rank = self.low_rank(channel, transposed);
        if self.scan.dense {
            return self.solve_dense(channel, transposed, u, &b, low_rank.as_ref());
        }
        // (L + u p q^T)^-1 with L = 1 - u diag(decay), by Sherman-Morrison
        let decay = |n: usize| self.coefficients[0].at(n, channel);
        let inverse = |v: &[Complex64]| -> Vec<Complex64> {
            v.iter()
                .enumerate()
                .map(|(n, v)| v / (1.0 - u * decay(n)))
                .collect()
        };
        let mut x = inverse(&b);
        if let Some([p, q]) = &low_rank {
            let y = inverse(p);
            let factor = u * dot(q, &x) / (1.0 + u * dot(q, &y));
            x.iter_mut().zip(y).for_each(|(x, y)| *x -= factor * y);
        }
        if x.iter().all(|x| x.is_finite()) {
            Ok(x)
        } else {
            Err(singular())
        }
    }

    fn solve_dense(
        &self,
        channel: usize,
        transposed: bool,
        u: Complex64,
        b: &[Complex64],
        low_rank: Option<&[Vec<Complex64>; 2]>,
    ) -> Result<Vec<Complex64>, MixerError> {
        let s = self.states;
        let mut rows: Vec<Vec<Complex64>> = (0..s)
            .map(|n| {
                let entry = |m: usize| {
                    let mut a = self.dense(channel, transposed, n, m);
                    if let Some([p, q]) = low_rank {
                        a -= p[n] * q[m];
                    }
                    Complex64::from(f64::from(u8::from(n == m))) - u * a
                };
                (0..s).map(entry).chain([b[n]]).collect()
            })
            .collect();
        for k in 0..s {
            let pivot = (k..s)
                .max_by(|&i, &j| rows[i][k].norm().total_cmp(&rows[j][k].norm()))
                .unwrap_or(k);
            rows.swap(k, pivot);
            if rows[k][k] == Complex64::ZERO {
                return Err(singular());
            }
            let (above, below) = rows.split_at_mut(k + 1);
            for row in below {
                let factor = row[k] / above[k][k];
                for (x, y) in row.iter_mut().zip(&above[k]).skip(k) {
                    *x -= factor * y;
                }
            }
        }
        let mut h = vec![Complex64::ZERO; s];
        for n in (0..s).rev() {
            let known: Complex64 = (n + 1..s).map(|m| rows[n][m] * h[m]).sum();
            h[n] = (rows[n][s] - known) / rows[n][n];
        }
        Ok(h)
    }
}

fn singular() -> MixerError {
    MixerError("the recurrence has no unique periodic solution".to_owned())
}

fn dot(a: &[Complex64], b: &[Complex64]) -> Complex64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
