//! Sums over sites of outer products of rows, and small matrices times vectors.
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

/// The sum of the lanes, pairwise.
#[inline(always)]
unsafe fn total<V: Vector>(v: V) -> f64
where
    V::Element: Real,
{
    let mut lanes = [V::Element::default(); 16];
    unsafe { v.store(lanes.as_mut_ptr()) };
    let mut width = V::LANES;
    while width > 1 {
        width /= 2;
        for k in 0..width {
            lanes[k] = lanes[k] + lanes[k + width];
        }
    }
    lanes[0].widened()
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
                    *s += unsafe { total(v) };
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

/// `conj(m) . x` as (real part, imaginary part); all four of one length.
#[inline(always)]
unsafe fn conjugate_dot<V: Vector>(
    m: &Split<V::Element>,
    x: &Split<V::Element>,
    zero: V,
) -> [f64; 2]
where
    V::Element: Real,
{
    let mut acc = [zero; 4];
    let length = m.re.len().min(m.im.len()).min(x.re.len()).min(x.im.len());
    let whole = length / V::LANES;
    for k in 0..whole {
        let at = k * V::LANES;
        unsafe {
            let load = |s: &[V::Element]| V::load(s.as_ptr().add(at));
            let (mr, mi, xr, xi) = (load(m.re), load(m.im), load(x.re), load(x.im));
            acc[0] = mr.fma(xr, acc[0]);
            acc[1] = mi.fma(xi, acc[1]);
            acc[2] = mr.fma(xi, acc[2]);
            acc[3] = mi.fma(xr, acc[3]);
        }
    }
    let mut sums = [0.0; 4];
    for (s, v) in sums.iter_mut().zip(acc) {
        *s = unsafe { total(v) };
    }
    for k in whole * V::LANES..length {
        let (mr, mi) = (m.re[k].widened(), m.im[k].widened());
        let (xr, xi) = (x.re[k].widened(), x.im[k].widened());
        sums[0] += mr * xr;
        sums[1] += mi * xi;
        sums[2] += mr * xi;
        sums[3] += mi * xr;
    }
    [sums[0] + sums[1], sums[2] - sums[3]]
}

macro_rules! instance {
    ($outer:ident, $dot:ident, $width:ident $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $outer<T: Real>(arena: *mut u8, o: &Outer, sample: usize, g: &Geometry) {
            unsafe { product::<T::$width>(arena, o, sample, g, T::$width::splat(T::default())) }
        }
        $(#[target_feature(enable = $feature)])?
        unsafe fn $dot<T: Real>(m: &Split<T>, x: &Split<T>) -> [f64; 2] {
            unsafe { conjugate_dot::<T::$width>(m, x, T::$width::splat(T::default())) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instance!(outer_512, dot_512, Wide512, "avx512f,avx512vl,fma");
#[cfg(target_arch = "x86_64")]
instance!(outer_256, dot_256, Wide256, "avx2,fma");
instance!(outer_portable, dot_portable, Portable);

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

/// `sum_k conj(m_k) x_k` as (real part, imaginary part), summed up to the
/// shortest of the slices.
///
/// # Safety
/// The machine has `isa`.
pub unsafe fn conjugate_product<T: Real>(isa: Isa, m: &Split<T>, x: &Split<T>) -> [f64; 2] {
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => dot_512::<T>(m, x),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => dot_256::<T>(m, x),
            _ => dot_portable::<T>(m, x),
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

    #[test]
    fn conjugate_products() {
        let x: Vec<f32> = (0..83).map(|k| (k as f32 * 0.3).sin()).collect();
        let [mr, mi, xr, xi] = [&x[..43], &x[10..53], &x[20..63], &x[40..83]];
        let want = (0..43).fold([0.0, 0.0], |[re, im], k| {
            [
                re + mr[k] * xr[k] + mi[k] * xi[k],
                im + mr[k] * xi[k] - mi[k] * xr[k],
            ]
        });
        let got = unsafe {
            conjugate_product(
                Isa::detect(),
                &Split { re: mr, im: mi },
                &Split { re: xr, im: xi },
            )
        };
        assert!(
            (got[0] - f64::from(want[0])).abs() < 1e-5
                && (got[1] - f64::from(want[1])).abs() < 1e-5
        );
    }
}
