//! Recurrences with fewer states, where the error is checked and below rounding.
//!
//! Balanced truncation on the length of the chain: with factors X and Y of the
//! Gramians `sum_n L^n B B' L'^n = X X'` and `sum_n L'^n C' C L^n = Y Y'`, the
//! singular values of `Y' X` say what each state contributes, and the leading ones
//! give the reduced recurrence in a well-conditioned basis (nothing is
//! diagonalised). The factors are formed by doubling and never squared, so small
//! singular values keep their digits. What decides is the kernel: every
//! displacement is compared with the exact one.

use super::recurrence::{Channel, Matrix, power_of};
use faer::Mat;

/// The channels with as few states as keep, for every channel,
/// `sum_n |change of G(n)| <= tolerance sum_n |G(n)|` over all displacements of
/// `sites` sites, closed to a ring if `ring`. All results have the same size; the
/// channels themselves where nothing is gained.
pub(super) fn reduced(
    channels: Vec<Channel>,
    sites: usize,
    ring: bool,
    tolerance: f64,
) -> Vec<Channel> {
    let Some(first) = channels.first() else {
        return channels;
    };
    let (p, parts) = (first.transition.rows, first.input.columns);
    let mut balanced = Vec::new();
    for channel in &channels {
        match Balanced::new(channel, sites) {
            Some(b) => balanced.push(b),
            None => return channels,
        }
    }
    let exact: Vec<Vec<f64>> = channels.iter().map(|c| kernel(c, sites, ring)).collect();
    let passes = |k: usize, order: usize| {
        let scale: f64 = exact[k].iter().map(|g| g.abs()).sum();
        let got = kernel(&balanced[k].truncated(order), sites, ring);
        let pairs = exact[k].iter().zip(&got);
        pairs.map(|(a, b)| (a - b).abs()).sum::<f64>() <= tolerance * scale
    };
    // the channel that failed last is asked first
    let (count, mut hardest) = (channels.len(), 0);
    for order in (parts..p).step_by(parts) {
        let failed = (0..count)
            .map(|k| (hardest + k) % count)
            .find(|&k| !passes(k, order));
        match failed {
            Some(k) => hardest = k,
            None => return balanced.iter().map(|b| b.truncated(order)).collect(),
        }
    }
    channels
}

/// `C L^n B` for all displacements, closed to a ring if wanted; all elements.
fn kernel(channel: &Channel, sites: usize, ring: bool) -> Vec<f64> {
    let mut state = channel.input.clone();
    if ring {
        match power_of(&channel.transition, sites).resolvent() {
            Some(closure) => state = closure.times(&state),
            None => return vec![f64::NAN],
        }
    }
    let mut all = Vec::with_capacity(sites);
    for _ in 0..sites {
        all.extend(channel.output.times(&state).data);
        state = channel.transition.times(&state);
    }
    all
}

/// A channel with its balancing transformation.
struct Balanced<'a> {
    channel: &'a Channel,
    x: Mat<f64>,
    y: Mat<f64>,
    left: Mat<f64>,
    values: Vec<f64>,
    right: Mat<f64>,
}

impl<'a> Balanced<'a> {
    fn new(channel: &'a Channel, sites: usize) -> Option<Balanced<'a>> {
        let x = gramian(&channel.transition, &channel.input, sites)?;
        let transposed = channel.transition.transposed();
        let y = gramian(&transposed, &channel.output.transposed(), sites)?;
        let svd = (y.transpose() * &x).thin_svd().ok()?;
        let s = svd.S().column_vector();
        Some(Balanced {
            channel,
            values: (0..s.nrows()).map(|k| s[k]).collect(),
            left: svd.U().to_owned(),
            right: svd.V().to_owned(),
            x,
            y,
        })
    }

    /// The recurrence of the leading `order` states; zeros beyond its rank.
    fn truncated(&self, order: usize) -> Channel {
        let c = self.channel;
        let (p, parts) = (c.transition.rows, c.input.columns);
        let floor = self.values[0] * 1e-14;
        let rank = self
            .values
            .iter()
            .filter(|v| **v > floor)
            .count()
            .min(order);
        let mut into = Matrix::zeros(order, p);
        let mut out = Matrix::zeros(p, order);
        for k in 0..rank {
            let scale = 1.0 / self.values[k].sqrt();
            for i in 0..p {
                for j in 0..self.x.ncols() {
                    out.data[i * order + k] += scale * self.x[(i, j)] * self.right[(j, k)];
                }
                for j in 0..self.y.ncols() {
                    into.data[k * p + i] += scale * self.y[(i, j)] * self.left[(j, k)];
                }
            }
        }
        debug_assert_eq!(parts, c.output.rows);
        Channel {
            transition: into.times(&c.transition).times(&out),
            input: into.times(&c.input),
            output: c.output.times(&out),
        }
    }
}

/// X with `X X' = sum_{n < sites} L^n B B' L'^n` (for at least `sites` terms).
fn gramian(transition: &Matrix, input: &Matrix, sites: usize) -> Option<Mat<f64>> {
    let p = transition.rows;
    let dense = |m: &Matrix| Mat::from_fn(m.rows, m.columns, |r, c| m.at(r, c));
    let (mut x, mut power) = (dense(input), dense(transition));
    let mut terms = 1;
    while terms < sites {
        let more = &power * &x;
        let n = x.ncols();
        let both = Mat::from_fn(
            p,
            2 * n,
            |r, c| {
                if c < n { x[(r, c)] } else { more[(r, c - n)] }
            },
        );
        x = if 2 * n > p {
            let svd = both.thin_svd().ok()?;
            let s = svd.S().column_vector();
            let u = svd.U();
            Mat::from_fn(p, p, |r, c| u[(r, c)] * s[c])
        } else {
            both
        };
        power = &power * &power;
        terms *= 2;
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Damped oscillators with frequencies and rates so close that some are
    /// not needed.
    fn channel(p: usize) -> Channel {
        let mut one = Channel {
            transition: Matrix::zeros(p, p),
            input: Matrix::zeros(p, 1),
            output: Matrix::zeros(1, p),
        };
        for k in 0..p {
            one.transition.data[k * p + k] = 0.9 - 0.02 * k as f64;
            one.input.data[k] = 1.0;
            one.output.data[k] = 1.0 + 0.3 * k as f64;
        }
        one
    }

    #[test]
    fn kernels_survive_within_the_tolerance() {
        for ring in [false, true] {
            for tolerance in [1e-4, 1e-7] {
                let exact = channel(10);
                let less = reduced(vec![exact.clone(), channel(10)], 60, ring, tolerance);
                assert!(less[0].transition.rows < 10);
                let (a, b) = (kernel(&exact, 60, ring), kernel(&less[0], 60, ring));
                let scale: f64 = a.iter().map(|x| x.abs()).sum();
                let error: f64 = a.iter().zip(&b).map(|(x, y)| (x - y).abs()).sum();
                assert!(error <= tolerance * scale, "{error:e} of {scale}");
                assert_eq!(less[0].transition.rows, less[1].transition.rows);
            }
        }
    }

    #[test]
    fn what_cannot_be_reduced_stays() {
        let exact = channel(3);
        let same = reduced(vec![exact.clone()], 40, false, 1e-15);
        assert_eq!(same[0].transition, exact.transition);
    }
}
