//! Operations that move, join and contract elements.

use super::eval::Operand;
use super::places::TokenLattice;
use super::tensor::{Tensor, for_each_offset, strides};
use crate::check::core::{Einsum, Place};

/// Strides that read `operand` at the indices of a result of this shape (place
/// index first if `placed`): NumPy alignment, `Whole` into any place.
pub(super) fn aligned(operand: &Operand, shape: &[usize], placed: bool) -> Vec<usize> {
    let own = operand.value.strides();
    let own_placed = usize::from(operand.ty.place != Place::Whole);
    let axes = operand.ty.shape.len();
    let mut aligned = vec![0; shape.len()];
    if placed && own_placed == 1 {
        aligned[0] = own[0];
    }
    for k in 0..axes {
        let (from, to) = (own_placed + k, shape.len() - axes + k);
        // length-1 axes are repeated
        if operand.value.shape[from] == shape[to] {
            aligned[to] = own[from];
        }
    }
    aligned
}

/// Repeats elements to fill `shape`.
pub(super) fn broadcast(operand: &Operand, shape: &[usize], placed: bool) -> Tensor {
    let from = aligned(operand, shape, placed);
    let mut data = Vec::with_capacity(shape.iter().product());
    for_each_offset(shape, [&from], |[i]| data.push(operand.value.data[i]));
    Tensor {
        shape: shape.to_vec(),
        data,
    }
}

/// Elementwise function of two broadcast operands.
pub(super) fn zip(
    a: &Operand,
    b: &Operand,
    shape: &[usize],
    placed: bool,
    f: impl Fn(f64, f64) -> f64,
) -> Tensor {
    let (sa, sb) = (aligned(a, shape, placed), aligned(b, shape, placed));
    let mut data = Vec::with_capacity(shape.iter().product());
    for_each_offset(shape, [&sa, &sb], |[i, j]| {
        data.push(f(a.value.data[i], b.value.data[j]))
    });
    Tensor {
        shape: shape.to_vec(),
        data,
    }
}

/// Contraction: the sum over all letters that are not in the output. A letter
/// occurring twice in one operand reads its diagonal.
pub(super) fn einsum(spec: &Einsum, operands: &[Operand], shape: &[usize], placed: bool) -> Tensor {
    let mut letters = spec.output.clone();
    for &l in spec.inputs.iter().flatten() {
        if !letters.contains(&l) {
            letters.push(l);
        }
    }
    let place = usize::from(placed);
    let mut lengths = vec![1; place + letters.len()];
    if placed {
        lengths[0] = shape[0];
    }
    let mut reads = Vec::new();
    for (operand, word) in operands.iter().zip(&spec.inputs) {
        let own = operand.value.strides();
        let own_place = usize::from(operand.ty.place != Place::Whole);
        let mut read = vec![0; lengths.len()];
        if placed && own_place == 1 {
            read[0] = own[0];
        }
        for (k, l) in word.iter().enumerate() {
            let at = place
                + letters
                    .iter()
                    .position(|m| m == l)
                    .expect("letter collected above");
            lengths[at] = operand.value.shape[own_place + k];
            read[at] += own[own_place + k];
        }
        reads.push(read);
    }
    let mut write = strides(shape);
    write.resize(lengths.len(), 0);
    let mut result = Tensor::zeros(shape);
    match (reads.as_slice(), operands) {
        ([r], [x]) => for_each_offset(&lengths, [&write, r], |[o, i]| {
            result.data[o] += x.value.data[i];
        }),
        ([r, s], [x, y]) => for_each_offset(&lengths, [&write, r, s], |[o, i, j]| {
            result.data[o] += x.value.data[i] * y.value.data[j];
        }),
        _ => unreachable!("a valid contraction has one or two operands"),
    }
    result
}

/// Elements before, along, and after an axis of a tensor.
fn around(shape: &[usize], axis: usize) -> [usize; 3] {
    [
        shape[..axis].iter().product(),
        shape[axis],
        shape[axis + 1..].iter().product(),
    ]
}

/// Copies the operand into a result along one axis: element `from + k` of the
/// operand's axis to `to + k`, k < `len`; zero elsewhere.
pub(super) fn copy_along(
    x: &Tensor,
    result: &mut Tensor,
    axis: usize,
    [from, to, len]: [usize; 3],
) {
    let [outer, length, inner] = around(&x.shape, axis);
    let [_, length_to, _] = around(&result.shape, axis);
    for o in 0..outer {
        let (i, j) = ((o * length + from) * inner, (o * length_to + to) * inner);
        result.data[j..j + len * inner].copy_from_slice(&x.data[i..i + len * inner]);
    }
}

/// Offsets of a window in the order of its leading axis.
fn offsets(lo: [i64; 2], hi: [i64; 2]) -> impl Iterator<Item = [i64; 2]> {
    (lo[0]..=hi[0]).flat_map(move |x| (lo[1]..=hi[1]).map(move |y| [x, y]))
}

/// `w_i[r] = x_{i+r}`; `[sites, ..]` to `[sites, offsets, ..]`.
pub(super) fn window(
    sites: &TokenLattice,
    x: &Tensor,
    shape: &[usize],
    [lo, hi]: [[i64; 2]; 2],
) -> Tensor {
    let inner = x.data.len() / sites.count();
    let mut data = Vec::with_capacity(shape.iter().product());
    for i in 0..sites.count() {
        for r in offsets(lo, hi) {
            match sites.neighbour(i, r) {
                Some(j) => data.extend_from_slice(&x.data[j * inner..(j + 1) * inner]),
                None => data.resize(data.len() + inner, 0.0),
            }
        }
    }
    Tensor {
        shape: shape.to_vec(),
        data,
    }
}

/// `y_{i+r} += x_i[r]`; `[sites, offsets, ..]` to `[sites, ..]`.
pub(super) fn window_adjoint(
    sites: &TokenLattice,
    x: &Tensor,
    shape: &[usize],
    [lo, hi]: [[i64; 2]; 2],
) -> Tensor {
    let mut y = Tensor::zeros(shape);
    let inner = y.data.len() / sites.count();
    let mut slots = x.data.chunks_exact(inner.max(1));
    for i in 0..sites.count() {
        for r in offsets(lo, hi) {
            let slot = slots.next().unwrap_or(&[]);
            if let Some(j) = sites.neighbour(i, r) {
                for (a, b) in y.data[j * inner..(j + 1) * inner].iter_mut().zip(slot) {
                    *a += b;
                }
            }
        }
    }
    y
}

/// The fine site behind every (coarse site, part), in the order of `Patch`'s result.
pub(super) fn parts(fine: &TokenLattice, coarse: &TokenLattice, ratio: [usize; 2]) -> Vec<usize> {
    let mut parts = Vec::with_capacity(fine.count());
    for c in 0..coarse.count() {
        let at = coarse.coordinates(c);
        for x in 0..ratio[0] {
            for y in 0..ratio[1] {
                parts.push(fine.site([at[0] * ratio[0] + x, at[1] * ratio[1] + y]));
            }
        }
    }
    parts
}

/// Rows of `inner` elements: row k of the result is row `rows[k]` of x.
pub(super) fn take_rows(x: &Tensor, rows: &[usize], shape: &[usize]) -> Tensor {
    let inner = x.data.len() / rows.len();
    let data = rows
        .iter()
        .flat_map(|&r| &x.data[r * inner..(r + 1) * inner])
        .copied()
        .collect();
    Tensor {
        shape: shape.to_vec(),
        data,
    }
}

/// Inverse of [`take_rows`] for a permutation: row k of x goes to row `rows[k]`.
pub(super) fn put_rows(x: &Tensor, rows: &[usize], shape: &[usize]) -> Tensor {
    let inner = x.data.len() / rows.len();
    let mut y = Tensor::zeros(shape);
    for (k, &r) in rows.iter().enumerate() {
        y.data[r * inner..(r + 1) * inner].copy_from_slice(&x.data[k * inner..(k + 1) * inner]);
    }
    y
}

/// Sums the leading axis in groups: `[groups * size, ..]` to `[groups, ..]`.
pub(super) fn sum_leading(x: &Tensor, groups: usize, shape: &[usize]) -> Tensor {
    let mut y = Tensor::zeros(shape);
    let inner = y.data.len() / groups;
    if inner > 0 {
        let size = x.data.len() / (groups * inner);
        for (k, row) in x.data.chunks_exact(inner).enumerate() {
            let at = k / size * inner;
            for (a, b) in y.data[at..at + inner].iter_mut().zip(row) {
                *a += b;
            }
        }
    }
    y
}
