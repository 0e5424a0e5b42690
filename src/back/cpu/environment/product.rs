//! Products of small strided matrices, on the widest vectors there are.
//!
//! `c[i][j] (+)= sum_l a[i][l] b[l][j]`: `b` and `c` have contiguous rows, `a` any
//! strides, also negative ones (a Toeplitz block is a line of numbers read with
//! strides 1 and -1). Tiles of up to 8 x 3 vectors stay in registers.

use crate::back::cpu::simd::{Isa, Real, Vector};

/// The left factor: element (i, l) is `data[origin + i row + l column]`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a, T> {
    pub data: &'a [T],
    pub origin: usize,
    pub row: isize,
    pub column: isize,
}

impl<'a, T> Left<'a, T> {
    /// A row-major matrix.
    pub fn rows(data: &'a [T], origin: usize, stride: usize) -> Self {
        Left {
            data,
            origin,
            row: stride as isize,
            column: 1,
        }
    }
}

/// Contiguous rows: row l starts at `origin + l stride`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, T> {
    pub data: &'a [T],
    pub origin: usize,
    pub stride: usize,
}

/// Contiguous rows that are written.
pub(super) struct RowsMut<'a, T> {
    pub data: &'a mut [T],
    pub origin: usize,
    pub stride: usize,
}

impl<'a, T> Rows<'a, T> {
    pub fn new(data: &'a [T], origin: usize, stride: usize) -> Self {
        Rows {
            data,
            origin,
            stride,
        }
    }
}

impl<'a, T> RowsMut<'a, T> {
    pub fn new(data: &'a mut [T], origin: usize, stride: usize) -> Self {
        RowsMut {
            data,
            origin,
            stride,
        }
    }
}

#[derive(Clone, Copy)]
struct Operands<T> {
    k: usize,
    a: *const T,
    row: isize,
    column: isize,
    b: *const T,
    ldb: usize,
    c: *mut T,
    ldc: usize,
    add: bool,
}

/// `R` rows from the first one on, `W` vectors at the columns `at`, which may overlap:
/// all old values are read before anything is written.
#[inline(always)]
unsafe fn tile<V: Vector, const R: usize, const W: usize>(
    o: Operands<V::Element>,
    first: usize,
    at: [usize; W],
    zero: V,
) {
    unsafe {
        let c = o.c.add(first * o.ldc);
        let mut acc = [[zero; W]; R];
        if o.add {
            for (r, acc) in acc.iter_mut().enumerate() {
                for (x, at) in acc.iter_mut().zip(at) {
                    *x = V::load(c.add(r * o.ldc + at));
                }
            }
        }
        let a: [_; R] = std::array::from_fn(|r| o.a.offset((first + r) as isize * o.row));
        let mut b = o.b;
        let mut l = 0;
        for _ in 0..o.k {
            let mut v = [zero; W];
            for (v, at) in v.iter_mut().zip(at) {
                *v = V::load(b.add(at));
            }
            for (a, acc) in a.iter().zip(&mut acc) {
                let s = V::splat(*a.offset(l));
                for j in 0..W {
                    acc[j] = s.fma(v[j], acc[j]);
                }
            }
            l += o.column;
            b = b.wrapping_add(o.ldb);
        }
        for (r, acc) in acc.iter().enumerate() {
            for (x, at) in acc.iter().zip(at) {
                x.store(c.add(r * o.ldc + at));
            }
        }
    }
}

/// Some columns of all rows, eight rows at a time: the columns of `b` stay in the
/// nearest cache.
#[inline(always)]
unsafe fn panel<V: Vector, const W: usize>(
    o: Operands<V::Element>,
    m: usize,
    at: [usize; W],
    zero: V,
) {
    let bands = m.div_ceil(8).max(1);
    for k in 0..bands {
        let first = m * k / bands;
        unsafe {
            match m * (k + 1) / bands - first {
                0 => {}
                1 => tile::<V, 1, W>(o, first, at, zero),
                2 => tile::<V, 2, W>(o, first, at, zero),
                3 => tile::<V, 3, W>(o, first, at, zero),
                4 => tile::<V, 4, W>(o, first, at, zero),
                5 => tile::<V, 5, W>(o, first, at, zero),
                6 => tile::<V, 6, W>(o, first, at, zero),
                7 => tile::<V, 7, W>(o, first, at, zero),
                _ => tile::<V, 8, W>(o, first, at, zero),
            }
        }
    }
}

/// All columns with one kind of vector: W at a time while whole ones are left, the
/// last ones overlapping where the number is not a multiple; `false` if there are
/// fewer columns than lanes, and nothing was done.
#[inline(always)]
unsafe fn columns<V: Vector, const W: usize>(
    o: Operands<V::Element>,
    [m, n]: [usize; 2],
    zero: V,
) -> bool {
    let (lanes, mut at) = (V::LANES, 0);
    if n < lanes {
        return false;
    }
    unsafe {
        while at < n {
            let left = n - at;
            if W == 3 && (left == 3 * lanes || left >= 5 * lanes) {
                panel::<V, 3>(o, m, [at, at + lanes, at + 2 * lanes], zero);
                at += 3 * lanes;
            } else if left >= 3 * lanes || left == 2 * lanes {
                panel::<V, 2>(o, m, [at, at + lanes], zero);
                at += 2 * lanes;
            } else if left > lanes && left < 2 * lanes {
                panel::<V, 2>(o, m, [at, n - lanes], zero);
                at = n;
            } else {
                panel::<V, 1>(o, m, [at], zero);
                at += lanes;
            }
        }
    }
    true
}

#[inline(always)]
unsafe fn product<V: Vector, P: Vector<Element = V::Element>, const W: usize>(
    o: Operands<V::Element>,
    [m, n]: [usize; 2],
    zeros: (V, P),
) where
    V::Element: std::ops::Add<Output = V::Element> + std::ops::Mul<Output = V::Element>,
{
    unsafe {
        if columns::<V, W>(o, [m, n], zeros.0) || columns::<P, 2>(o, [m, n], zeros.1) {
            return;
        }
        for (r, j) in (0..m).flat_map(|r| (0..n).map(move |j| (r, j))) {
            let c = o.c.add(r * o.ldc + j);
            let mut terms = (0..o.k).map(|l| {
                let a = *o.a.offset(r as isize * o.row + l as isize * o.column);
                a * *o.b.add(l * o.ldb + j)
            });
            let first = if o.add { Some(*c) } else { terms.next() };
            if let Some(first) = first {
                *c = terms.fold(first, |sum, x| sum + x);
            }
        }
    }
}

/// `y[r] (+)= sum_j a[r][j] x[j]` for four rows at a time.
#[inline(always)]
unsafe fn dots<V: Vector, const R: usize>(
    a: *const V::Element,
    lda: usize,
    x: &[V::Element],
    y: &mut [V::Element],
    zero: V,
) where
    V::Element: std::ops::Add<Output = V::Element> + std::ops::Mul<Output = V::Element>,
{
    unsafe {
        let mut acc = [zero; R];
        let whole = x.len() / V::LANES * V::LANES;
        let mut at = 0;
        while at < whole {
            let v = V::load(x.as_ptr().add(at));
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = V::load(a.add(r * lda + at)).fma(v, *acc);
            }
            at += V::LANES;
        }
        for (r, acc) in acc.iter().enumerate() {
            let mut lanes = [y[0]; 16];
            acc.store(lanes.as_mut_ptr());
            let mut half = V::LANES / 2;
            while half > 0 {
                for k in 0..half {
                    lanes[k] = lanes[k] + lanes[k + half];
                }
                half /= 2;
            }
            let mut sum = lanes[0];
            for (j, x) in x.iter().enumerate().skip(whole) {
                sum = sum + *a.add(r * lda + j) * *x;
            }
            y[r] = y[r] + sum;
        }
    }
}

#[inline(always)]
unsafe fn apply<V: Vector>(
    a: *const V::Element,
    lda: usize,
    x: &[V::Element],
    y: &mut [V::Element],
    zero: V,
) where
    V::Element: std::ops::Add<Output = V::Element> + std::ops::Mul<Output = V::Element>,
{
    unsafe {
        let mut r = 0;
        while r + 4 <= y.len() {
            dots::<V, 4>(a.add(r * lda), lda, x, &mut y[r..r + 4], zero);
            r += 4;
        }
        while r < y.len() {
            dots::<V, 1>(a.add(r * lda), lda, x, &mut y[r..=r], zero);
            r += 1;
        }
    }
}

/// What [`convolve`] works on, as pointers.
#[derive(Clone, Copy)]
struct Convolution<T> {
    lanes: *const T,
    /// Elements from the kernel at r to that at r + 1, negative if mirrored.
    step: isize,
    signal: [*const T; 2],
    sources: [usize; 2],
    out: *mut T,
    targets: usize,
    width: usize,
}

#[inline(always)]
unsafe fn convolution<V: Vector>(o: Convolution<V::Element>) {
    unsafe {
        for to in 0..o.targets {
            let mut at = 0;
            while at < o.width {
                let p = o.out.add(to * o.width + at);
                let mut sum = V::load(p);
                for from in o.sources[0]..o.sources[1] {
                    let kernel = o
                        .lanes
                        .offset((to as isize - from as isize) * o.step)
                        .add(at);
                    let x = from * o.width + at;
                    sum = V::load(kernel).fma(V::load(o.signal[0].add(x)), sum);
                    sum = V::load(kernel.add(o.width)).fma(V::load(o.signal[1].add(x)), sum);
                }
                sum.store(p);
                at += V::LANES;
            }
        }
    }
}

macro_rules! instance {
    ($product:ident, $apply:ident, $convolve:ident, $width:ident, $narrow:ident, $together:literal $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $product<T: Real>(o: Operands<T>, shape: [usize; 2]) {
            unsafe {
                let zeros = (T::$width::splat(T::default()), T::$narrow::splat(T::default()));
                product::<T::$width, T::$narrow, $together>(o, shape, zeros)
            }
        }
        $(#[target_feature(enable = $feature)])?
        unsafe fn $apply<T: Real>(a: *const T, lda: usize, x: &[T], y: &mut [T]) {
            unsafe { apply::<T::$width>(a, lda, x, y, T::$width::splat(T::default())) }
        }
        $(#[target_feature(enable = $feature)])?
        unsafe fn $convolve<T: Real>(o: Convolution<T>) {
            unsafe { convolution::<T::$width>(o) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instance!(
    product_512,
    apply_512,
    convolve_512,
    Wide512,
    Wide256,
    3,
    "avx512f,avx512vl,fma"
);
#[cfg(target_arch = "x86_64")]
instance!(
    product_256,
    apply_256,
    convolve_256,
    Wide256,
    Portable,
    2,
    "avx2,fma"
);
instance!(
    product_portable,
    apply_portable,
    convolve_portable,
    Portable,
    Portable,
    2
);

/// `c (+)= a b` with `m x k` times `k x n`; `add` keeps what `c` holds.
///
/// # Panics
/// If an operand is too short for the shape.
pub(super) fn multiply<T: Real>(
    isa: Isa,
    [m, n, k]: [usize; 3],
    a: Left<T>,
    b: Rows<T>,
    c: RowsMut<T>,
    add: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !add {
            for r in 0..m {
                c.data[c.origin + r * c.stride..][..n].fill(T::default());
            }
        }
        return;
    }
    let (i, l) = ((m - 1) as isize * a.row, (k - 1) as isize * a.column);
    let first = a.origin as isize + i.min(0) + l.min(0);
    let last = a.origin as isize + i.max(0) + l.max(0);
    assert!(
        first >= 0
            && (last as usize) < a.data.len()
            && b.origin + (k - 1) * b.stride + n <= b.data.len()
            && c.origin + (m - 1) * c.stride + n <= c.data.len(),
        "operands hold the product"
    );
    // SAFETY: all elements touched lie inside the operands, checked above; the
    // machine has the instructions it was asked for.
    unsafe {
        let o = Operands {
            k,
            a: a.data.as_ptr().add(a.origin),
            row: a.row,
            column: a.column,
            b: b.data.as_ptr().add(b.origin),
            ldb: b.stride,
            c: c.data.as_mut_ptr().add(c.origin),
            ldc: c.stride,
            add,
        };
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => product_512(o, [m, n]),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => product_256(o, [m, n]),
            _ => product_portable(o, [m, n]),
        }
    }
}

/// `y += a x`, `a` row major with rows of `stride` numbers, the first `x.len()` used.
///
/// # Panics
/// If `a` is too short.
pub(super) fn apply_to<T: Real>(isa: Isa, a: &[T], stride: usize, x: &[T], y: &mut [T]) {
    if x.is_empty() || y.is_empty() {
        return;
    }
    assert!(
        (y.len() - 1) * stride + x.len() <= a.len(),
        "one row per result"
    );
    // SAFETY: rows lie inside the matrix, checked above; as for `multiply`.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => apply_512(a.as_ptr(), stride, x, y),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => apply_256(a.as_ptr(), stride, x, y),
            _ => apply_portable(a.as_ptr(), stride, x, y),
        }
    }
}

/// `out[i] += sum_j G(i - j) signal[j]` over sources j in a range, all channels
/// side by side; `lanes` as in `MixerTables::lanes`, with displacements
/// `-reach..=reach`, mirrored if `mirror`. `signal` is what there is and the same
/// with real and imaginary parts exchanged; rows are `width` long, a multiple of 16.
///
/// # Panics
/// If an operand is too short.
pub(super) fn convolve<T: Real>(
    isa: Isa,
    (lanes, reach, mirror): (&[T], usize, bool),
    signal: [&[T]; 2],
    sources: std::ops::Range<usize>,
    out: &mut [T],
    width: usize,
) {
    let targets = out.len() / width.max(1);
    if targets == 0 || sources.is_empty() {
        return;
    }
    assert!(
        width.is_multiple_of(16)
            && lanes.len() == (2 * reach + 1) * 2 * width
            && targets.max(sources.end) <= reach + 1
            && signal.iter().all(|s| s.len() >= sources.end * width),
        "operands hold the convolution"
    );
    let o = Convolution {
        // the kernel at r = 0
        lanes: lanes.as_ptr().wrapping_add(reach * 2 * width),
        step: 2 * width as isize * if mirror { -1 } else { 1 },
        signal: signal.map(<[T]>::as_ptr),
        sources: [sources.start, sources.end],
        out: out.as_mut_ptr(),
        targets,
        width,
    };
    // SAFETY: displacements stay within -reach..=reach and rows within their
    // arrays, checked above; as for `multiply`.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => convolve_512(o),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => convolve_256(o),
            _ => convolve_portable(o),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(isa: Isa) {
        let number = |i: usize, s: f64| (i as f64 * s).sin();
        for [m, n, k] in [
            [1, 1, 1],
            [14, 48, 7],
            [8, 23, 8],
            [17, 5, 3],
            [3, 16, 24],
            [5, 41, 2],
            [9, 12, 4],
        ] {
            let a: Vec<f64> = (0..m + k).map(|i| number(i, 0.7)).collect();
            let b: Vec<f64> = (0..k * (n + 2)).map(|i| number(i, 0.3)).collect();
            for add in [false, true] {
                let mut c: Vec<f64> = (0..m * (n + 1)).map(|i| number(i, 0.9)).collect();
                let before = c.clone();
                // a Toeplitz matrix: a[i][l] = line[k + i - l]
                let left = Left {
                    data: &a,
                    origin: k,
                    row: 1,
                    column: -1,
                };
                let rows = Rows {
                    data: &b,
                    origin: 1,
                    stride: n + 2,
                };
                let out = RowsMut {
                    data: &mut c,
                    origin: 0,
                    stride: n + 1,
                };
                multiply(isa, [m, n, k], left, rows, out, add);
                for i in 0..m {
                    for j in 0..n {
                        let sum: f64 = (0..k).map(|l| a[k + i - l] * b[1 + l * (n + 2) + j]).sum();
                        let start = if add { before[i * (n + 1) + j] } else { 0.0 };
                        assert!((c[i * (n + 1) + j] - sum - start).abs() < 1e-12);
                    }
                }
            }
            let mut y = vec![0.5; k];
            apply_to(isa, &b, n + 2, &before_vector(n), &mut y);
            for (l, y) in y.iter().enumerate() {
                let sum: f64 = (0..n).map(|j| b[l * (n + 2) + j] * number(j, 1.1)).sum();
                assert!((y - 0.5 - sum).abs() < 1e-12);
            }
        }
    }

    fn before_vector(n: usize) -> Vec<f64> {
        (0..n).map(|j| (j as f64 * 1.1).sin()).collect()
    }

    #[test]
    fn products_on_every_instruction_set() {
        close(Isa::Portable);
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                close(Isa::Avx2);
            }
            if Isa::detect() == Isa::Avx512 {
                close(Isa::Avx512);
            }
        }
    }
}
