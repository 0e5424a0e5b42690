//! Sums over sites of outer products of rows, and matrices times vectors.
//!
//! Partial sums stay in vectors of the working precision for at most `BLOCK`
//! terms per lane and are then added in f64.

use super::simd::{Isa, Real, Vector};
use crate::kernel::Geometry;

/// Terms per vector lane before a partial sum is widened.
const BLOCK: usize = 64;

/// Factors and results of one outer product; byte offsets into the arena.
#[derive(Clone, Debug)]
pub struct Outer {
    /// Left factors.
    pub a: Vec<usize>,
    /// Right factors.
    pub b: Vec<usize>,
    /// Results, f64 with a lane per sample; right factor fastest.
    pub out: Vec<usize>,
}

/// Lines of consecutive sites of a segment: (first lane, lines, lines' distance, length).
fn lines(g: &Geometry) -> (usize, usize, usize, usize) {
    if g.extent[1] == 1 && g.stride() == 1 {
        (g.origin(), 1, 0, g.extent[0])
    } else {
        (g.origin(), g.extent[0], g.stride(), g.extent[1])
    }
}

#[inline(always)]
unsafe fn tile<V: Vector, const R: usize, const C: usize>(
    a: [*const V::Element; R],
    b: [*const V::Element; C],
    g: &Geometry,
    zero: V,
) -> [[f64; C]; R]
where
    V::Element: Real,
{
    let mut sums = [[0.0; C]; R];
    let (origin, count, stride, length) = lines(g);
    for line in 0..count {
        let first = origin + line * stride;
        let whole = length / V::LANES;
        let mut done = 0;
        while done < whole {
            let stop = whole.min(done + BLOCK);
            let mut acc = [[zero; C]; R];
            for k in done..stop {
                let at = first + k * V::LANES;
                unsafe {
                    let mut right = [zero; C];
                    for (v, p) in right.iter_mut().zip(b) {
                        *v = V::load(p.add(at));
                    }
                    for (acc, p) in acc.iter_mut().zip(a) {
                        let left = V::load(p.add(at));
                        for (acc, right) in acc.iter_mut().zip(right) {
                            *acc = left.fma(right, *acc);
                        }
                    }
                }
            }
            for (sums, acc) in sums.iter_mut().zip(acc) {
                for (s, v) in sums.iter_mut().zip(acc) {
                    *s += unsafe { v.total() }.widened();
                }
            }
            done = stop;
        }
        for at in first + whole * V::LANES..first + length {
            for (sums, p) in sums.iter_mut().zip(a) {
                let left = unsafe { *p.add(at) }.widened();
                for (s, q) in sums.iter_mut().zip(b) {
                    *s += left * unsafe { *q.add(at) }.widened();
                }
            }
        }
    }
    sums
}

#[inline(always)]
unsafe fn strip<V: Vector, const R: usize>(
    arena: *mut u8,
    o: &Outer,
    first: usize,
    sample: usize,
    g: &Geometry,
    zero: V,
) where
    V::Element: Real,
{
    let lane = sample * g.segment();
    let row = |offset: usize| unsafe {
        arena
            .add(offset)
            .cast::<V::Element>()
            .add(lane)
            .cast_const()
    };
    let a = std::array::from_fn(|r| row(o.a[first + r]));
    let put = |r: usize, c: usize, x: f64| unsafe {
        let out = o.out[(first + r) * o.b.len() + c];
        *arena.add(out).cast::<f64>().add(sample) = x;
    };
    let mut c = 0;
    while c < o.b.len() {
        if o.b.len() - c >= 4 {
            let b = std::array::from_fn(|k| row(o.b[c + k]));
            let sums = unsafe { tile::<V, R, 4>(a, b, g, zero) };
            for (r, sums) in sums.iter().enumerate() {
                for (k, &x) in sums.iter().enumerate() {
                    put(r, c + k, x);
                }
            }
            c += 4;
        } else {
            let sums = unsafe { tile::<V, R, 1>(a, [row(o.b[c])], g, zero) };
            for (r, sums) in sums.iter().enumerate() {
                put(r, c, sums[0]);
            }
            c += 1;
        }
    }
}

#[inline(always)]
unsafe fn product<V: Vector>(arena: *mut u8, o: &Outer, sample: usize, g: &Geometry, zero: V)
where
    V::Element: Real,
{
    let mut r = 0;
    while r < o.a.len() {
        unsafe {
            if o.a.len() - r >= 4 {
                strip::<V, 4>(arena, o, r, sample, g, zero);
                r += 4;
            } else {
                strip::<V, 1>(arena, o, r, sample, g, zero);
                r += 1;
            }
        }
    }
}

/// Complex numbers as separate rows of real and imaginary parts.
pub struct Split<'a, T> {
    /// Real parts.
    pub re: &'a [T],
    /// Imaginary parts.
    pub im: &'a [T],
}

/// Rows of a matrix kept in registers together.
const ROWS: usize = 64;

/// See [`conjugate_product`].
#[inline(always)]
unsafe fn matrix_vector<V: Vector, const W: usize>(
    m: &[V::Element],
    rows: usize,
    x: &Split<V::Element>,
    zero: V,
    put: &mut dyn FnMut(usize, [f64; 2]),
) where
    V::Element: Real,
{
    let taps = x.re.len().min(x.im.len()).min(m.len() / (2 * rows));
    for first in (0..rows).step_by(W * V::LANES) {
        let mut sums = [[0.0; ROWS]; 2];
        let mut done = 0;
        while done < taps {
            let stop = taps.min(done + BLOCK);
            let (mut re, mut im) = ([zero; W], [zero; W]);
            for k in done..stop {
                let (xr, xi) = (x.re[k], x.im[k]);
                unsafe {
                    let (r, i, minus) = (V::splat(xr), V::splat(xi), V::splat(-xr));
                    let column = m.as_ptr().add(2 * k * rows + first);
                    for j in 0..W {
                        let mr = V::load(column.add(j * V::LANES));
                        let mi = V::load(column.add(rows + j * V::LANES));
                        re[j] = mi.fma(i, mr.fma(r, re[j]));
                        im[j] = mi.fma(minus, mr.fma(i, im[j]));
                    }
                }
            }
            for (part, sums) in [re, im].into_iter().zip(&mut sums) {
                let mut lanes = [V::Element::default(); ROWS];
                for (j, v) in part.into_iter().enumerate() {
                    unsafe { v.store(lanes.as_mut_ptr().add(j * V::LANES)) };
                }
                for (s, lane) in sums.iter_mut().zip(lanes).take(W * V::LANES) {
                    *s += lane.widened();
                }
            }
            done = stop;
        }
        let [re, im] = sums;
        for (k, (re, im)) in re.into_iter().zip(im).take(W * V::LANES).enumerate() {
            put(first + k, [re, im]);
        }
    }
}

macro_rules! instance {
    ($outer:ident, $product:ident, $width:ident $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $outer<T: Real>(arena: *mut u8, o: &Outer, sample: usize, g: &Geometry) {
            unsafe { product::<T::$width>(arena, o, sample, g, T::$width::splat(T::default())) }
        }
        $(#[target_feature(enable = $feature)])?
        unsafe fn $product<T: Real>(
            m: &[T],
            rows: usize,
            x: &Split<T>,
            put: &mut dyn FnMut(usize, [f64; 2]),
        ) {
            // SAFETY: the machine has these vectors.
            unsafe {
                let zero = T::$width::splat(T::default());
                if rows.is_multiple_of(4 * <T::$width as Vector>::LANES) {
                    matrix_vector::<T::$width, 4>(m, rows, x, zero, put)
                } else {
                    matrix_vector::<T::$width, 1>(m, rows, x, zero, put)
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instance!(outer_512, product_512, Wide512, "avx512f,avx512vl,fma");
#[cfg(target_arch = "x86_64")]
instance!(outer_256, product_256, Wide256, "avx2,fma");
instance!(outer_portable, product_portable, Portable);

/// Runs an outer product for one sample.
///
/// # Safety
/// All factors are rows of `T` on the sites of `g` inside the arena, all results
/// rows of f64 with a lane per sample, and the machine has `isa`.
pub unsafe fn outer<T: Real>(isa: Isa, arena: *mut u8, o: &Outer, sample: usize, g: &Geometry) {
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => outer_512::<T>(arena, o, sample, g),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => outer_256::<T>(arena, o, sample, g),
            _ => outer_portable::<T>(arena, o, sample, g),
        }
    }
}

/// Rows of the matrices of [`conjugate_product`] come in multiples of this.
pub const ROW_BLOCK: usize = 16;

/// `sum_k conj(m_rk) x_k` for all rows r: calls `put(row, [real part, imaginary
/// part])`. `m` holds, column after column, the real parts of `rows` rows, then
/// their imaginary parts.
///
/// # Safety
/// The machine has `isa`; `rows` is a multiple of [`ROW_BLOCK`].
pub unsafe fn conjugate_product<T: Real>(
    isa: Isa,
    m: &[T],
    rows: usize,
    x: &Split<T>,
    put: &mut dyn FnMut(usize, [f64; 2]),
) {
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => product_512::<T>(m, rows, x, put),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => product_256::<T>(m, rows, x, put),
            _ => product_portable::<T>(m, rows, x, put),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::core::Token;
    use crate::ir::Boundary;

    #[test]
    fn outer_products_leave_out_the_halo() {
        for (extent, halo) in [([37, 1], [2, 0]), ([5, 19], [1, 3])] {
            let g = Geometry {
                token: Token::SPIN,
                extent,
                halo,
                boundary: Boundary::Periodic,
            };
            let (rows, samples) = (11, 2);
            let lanes = samples * g.segment();
            let value = |r: usize, lane: usize| ((r * lanes + lane) as f64 * 0.37).sin();
            let mut arena: Vec<f64> = (0..rows * lanes)
                .map(|k| value(k / lanes, k % lanes))
                .collect();
            let first = arena.len();
            arena.resize(first + 30 * samples, 0.0);
            let o = Outer {
                a: (0..5).map(|r| r * lanes * 8).collect(),
                b: (5..11).map(|r| r * lanes * 8).collect(),
                out: (0..30).map(|k| (first + k * samples) * 8).collect(),
            };
            for sample in 0..samples {
                unsafe { outer::<f64>(Isa::detect(), arena.as_mut_ptr().cast(), &o, sample, &g) };
                for k in 0..30 {
                    let term = |site: usize| {
                        let lane = sample * g.segment() + g.lane(site);
                        value(k / 6, lane) * value(5 + k % 6, lane)
                    };
                    let want: f64 = (0..g.sites()).map(term).sum();
                    assert!((arena[first + k * samples + sample] - want).abs() < 1e-12);
                }
            }
        }
    }

    fn conjugate_products<T: Real>(isa: Isa) {
        for (rows, taps) in [(16, 5), (64, 70), (80, 130)] {
            let number = |k: usize| T::rounded((k as f64 * 0.3).sin());
            let m: Vec<T> = (0..2 * rows * taps).map(number).collect();
            let x: Vec<T> = (7..7 + 2 * taps).map(number).collect();
            let (re, im) = x.split_at(taps);
            let mut seen = 0;
            let mut put = |row: usize, got: [f64; 2]| {
                let want = (0..taps).fold([0.0; 2], |[a, b], k| {
                    let at = |part: usize| m[(2 * k + part) * rows + row].widened();
                    let (mr, mi) = (at(0), at(1));
                    let (xr, xi) = (re[k].widened(), im[k].widened());
                    [a + mr * xr + mi * xi, b + mr * xi - mi * xr]
                });
                assert!((got[0] - want[0]).abs() < 1e-4, "{isa:?} row {row}");
                assert!((got[1] - want[1]).abs() < 1e-4, "{isa:?} row {row}");
                seen += 1;
            };
            unsafe { conjugate_product(isa, &m, rows, &Split { re, im }, &mut put) };
            assert_eq!(seen, rows);
        }
    }

    #[test]
    fn conjugate_products_on_every_instruction_set() {
        conjugate_products::<f32>(Isa::Portable);
        conjugate_products::<f32>(Isa::detect());
        conjugate_products::<f64>(Isa::detect());
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            conjugate_products::<f32>(Isa::Avx2);
        }
    }
}
