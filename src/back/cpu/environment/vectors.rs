//! Products with one vector at a time, as a [`slice`](super::slice) takes them.

use super::mixer::{Direction, MixerTables};
use super::product::{Left, Rows, RowsMut, multiply};
use crate::back::cpu::simd::{Isa, Real};
use std::ops::Range;

/// `sum = x + dx`.
pub(super) fn total<T: Real>(x: &[T], dx: &[T], sum: &mut [T]) {
    for ((sum, x), dx) in sum.iter_mut().zip(x).zip(dx) {
        *sum = *x + *dx;
    }
}

/// `out += A x` with A stored by columns of `rows` numbers.
pub(super) fn matrix<T: Real>(
    isa: Isa,
    block: &[T],
    at: usize,
    (rows, columns): (usize, usize),
    x: &[T],
    out: &mut [T],
) {
    let a = Rows::new(block, at, rows);
    let out = RowsMut::new(out, 0, rows);
    multiply(
        isa,
        [1, rows, columns],
        Left::rows(x, 0, columns),
        a,
        out,
        true,
    );
}

/// `y += diag(matrices) x`, matrices given transposed.
pub(super) fn blocks<T: Real>(
    isa: Isa,
    channels: usize,
    p: usize,
    transposed: &[T],
    x: &[T],
    y: &mut [T],
) {
    for c in 0..channels {
        let rows = Rows::new(transposed, c * p * p, p);
        let out = RowsMut::new(y, c * p, p);
        multiply(isa, [1, p, p], Left::rows(x, c * p, p), rows, out, true);
    }
}

/// The state a slice emits: `sum_j L^(n-1-j) B v[j]` along (`end` = n), or
/// `sum_j L^j B v[j]` against.
pub(super) fn emit<T: Real>(
    isa: Isa,
    mixer: &MixerTables<T>,
    direction: &Direction<T>,
    v: &[T],
    active: Range<usize>,
    end: Option<usize>,
    out: &mut [T],
) {
    let (p, parts, w) = (direction.p, mixer.parts, mixer.padded);
    out[..direction.states].fill(T::default());
    if active.is_empty() {
        return;
    }
    let (first, step, power) = match end {
        Some(n) => (active.end - 1, -(w as isize), n - active.end),
        None => (active.start, w as isize, active.start),
    };
    for c in 0..mixer.channels {
        for part in 0..parts {
            let x = Left {
                data: v,
                origin: first * w + part * mixer.channels + c,
                row: 0,
                column: step,
            };
            let rows = Rows::new(
                &direction.inject,
                ((c * (mixer.reach + 1) + power) * parts + part) * p,
                parts * p,
            );
            let target = RowsMut::new(out, c * p, p);
            multiply(isa, [1, p, active.len()], x, rows, target, true);
        }
    }
}
