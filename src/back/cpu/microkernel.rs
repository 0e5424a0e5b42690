//! Products of small matrices with rows, and sums of products of rows.
//!
//! Rows are given by byte offsets into an arena. A tile of up to [`TILE`] results
//! times two vectors stays in registers while the operands stream by.

use super::simd::{Isa, Real, Vector};

/// Largest number of result rows computed together.
pub const TILE: usize = 7;

/// One matrix product: rows `out` = weights times rows `x`.
#[derive(Clone, Debug)]
pub struct Product {
    /// Byte offsets of the operands.
    pub x: Vec<i32>,
    /// Byte offsets of the results.
    pub out: Vec<i32>,
    /// Start of the packed weights.
    pub weights: usize,
}

/// Heights of the tiles that cover `n` results evenly.
pub fn tiles(n: usize) -> impl Iterator<Item = usize> {
    let count = n.div_ceil(TILE).max(1);
    (0..count).map(move |k| n * (k + 1) / count - n * k / count)
}

/// Packs row-major weights `[out][x]` in the order the kernel reads them:
/// tile by tile, all results of one operand together.
pub fn pack<T: Copy>(weights: &[T], x: usize, out: usize, packed: &mut Vec<T>) {
    let mut first = 0;
    for height in tiles(out) {
        for k in 0..x {
            packed.extend((first..first + height).map(|o| weights[o * x + k]));
        }
        first += height;
    }
}

#[inline(always)]
unsafe fn tile<V: Vector, const R: usize, const W: usize>(
    arena: *mut u8,
    x: &[i32],
    out: &[i32],
    weights: *const V::Element,
    lane: usize,
    zero: V,
) {
    unsafe {
        let mut acc = [[zero; W]; R];
        let mut w = weights;
        for &k in x {
            let p = arena.offset(k as isize).cast::<V::Element>().add(lane);
            let mut v = [zero; W];
            for (j, v) in v.iter_mut().enumerate() {
                *v = V::load(p.add(j * V::LANES));
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let c = V::splat(*w.add(r));
                for j in 0..W {
                    acc[j] = c.fma(v[j], acc[j]);
                }
            }
            w = w.add(R);
        }
        for r in 0..R {
            let p = arena.offset(out[r] as isize).cast::<V::Element>().add(lane);
            for (j, value) in acc[r].iter().enumerate() {
                value.store(p.add(j * V::LANES));
            }
        }
    }
}

#[inline(always)]
unsafe fn band<V: Vector, const R: usize>(
    arena: *mut u8,
    x: &[i32],
    out: &[i32],
    weights: *const V::Element,
    lanes: usize,
    zero: V,
) {
    unsafe {
        let mut lane = 0;
        while lane + 2 * V::LANES <= lanes {
            tile::<V, R, 2>(arena, x, out, weights, lane, zero);
            lane += 2 * V::LANES;
        }
        while lane < lanes {
            tile::<V, R, 1>(arena, x, out, weights, lane, zero);
            lane += V::LANES;
        }
    }
}

#[inline(always)]
unsafe fn product<V: Vector>(
    arena: *mut u8,
    p: &Product,
    packed: *const V::Element,
    lanes: usize,
    zero: V,
) {
    unsafe {
        let mut first = 0;
        let mut w = packed.add(p.weights);
        for height in tiles(p.out.len()) {
            let out = &p.out[first..first + height];
            match height {
                1 => band::<V, 1>(arena, &p.x, out, w, lanes, zero),
                2 => band::<V, 2>(arena, &p.x, out, w, lanes, zero),
                3 => band::<V, 3>(arena, &p.x, out, w, lanes, zero),
                4 => band::<V, 4>(arena, &p.x, out, w, lanes, zero),
                5 => band::<V, 5>(arena, &p.x, out, w, lanes, zero),
                6 => band::<V, 6>(arena, &p.x, out, w, lanes, zero),
                _ => band::<V, 7>(arena, &p.x, out, w, lanes, zero),
            }
            first += height;
            w = w.add(height * p.x.len());
        }
    }
}

/// `out = sum_k a[k] b[k]` on `lanes` lanes.
#[inline(always)]
unsafe fn sum_products<V: Vector>(
    arena: *mut u8,
    out: i32,
    factors: &[(i32, i32)],
    lanes: usize,
    zero: V,
) {
    unsafe {
        let row = |offset: i32| arena.offset(offset as isize).cast::<V::Element>();
        let mut lane = 0;
        while lane + 2 * V::LANES <= lanes {
            let mut acc = [zero; 2];
            for &(a, b) in factors {
                for (j, acc) in acc.iter_mut().enumerate() {
                    let at = lane + j * V::LANES;
                    *acc = V::load(row(a).add(at)).fma(V::load(row(b).add(at)), *acc);
                }
            }
            for (j, acc) in acc.iter().enumerate() {
                acc.store(row(out).add(lane + j * V::LANES));
            }
            lane += 2 * V::LANES;
        }
        while lane < lanes {
            let mut acc = zero;
            for &(a, b) in factors {
                acc = V::load(row(a).add(lane)).fma(V::load(row(b).add(lane)), acc);
            }
            acc.store(row(out).add(lane));
            lane += V::LANES;
        }
    }
}

macro_rules! instance {
    ($dense:ident, $dot:ident, $width:ident $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $dense<T: Real>(arena: *mut u8, p: &Product, packed: *const T, lanes: usize) {
            unsafe { product::<T::$width>(arena, p, packed, lanes, T::$width::splat(T::default())) }
        }
        $(#[target_feature(enable = $feature)])?
        unsafe fn $dot<T: Real>(arena: *mut u8, out: i32, factors: &[(i32, i32)], lanes: usize) {
            unsafe { sum_products::<T::$width>(arena, out, factors, lanes, T::$width::splat(T::default())) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instance!(dense_512, dot_512, Wide512, "avx512f,avx512vl,fma");
#[cfg(target_arch = "x86_64")]
instance!(dense_256, dot_256, Wide256, "avx2,fma");
instance!(dense_portable, dot_portable, Portable);

/// Runs a matrix product.
///
/// # Safety
/// All offsets plus `lanes` elements lie inside the arena, `lanes` is a multiple of
/// the widest vectors' lanes, `packed` holds the weights packed by [`pack`], and the machine has `isa`.
pub unsafe fn dense<T: Real>(isa: Isa, arena: *mut u8, p: &Product, packed: &[T], lanes: usize) {
    let packed = packed.as_ptr();
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => dense_512(arena, p, packed, lanes),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => dense_256(arena, p, packed, lanes),
            _ => dense_portable(arena, p, packed, lanes),
        }
    }
}

/// Runs a sum of products of rows.
///
/// # Safety
/// As [`dense`].
pub unsafe fn dot<T: Real>(
    isa: Isa,
    arena: *mut u8,
    out: i32,
    factors: &[(i32, i32)],
    lanes: usize,
) {
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => dot_512::<T>(arena, out, factors, lanes),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => dot_256::<T>(arena, out, factors, lanes),
            _ => dot_portable::<T>(arena, out, factors, lanes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(isa: Isa) {
        let (lanes, k) = (48, 5);
        for outs in [1, 3, 7, 8, 14, 28] {
            let mut arena: Vec<f32> = (0..(k + outs) * lanes)
                .map(|i| (i as f32 * 0.37).sin())
                .collect();
            let weights: Vec<f32> = (0..outs * k).map(|i| (i as f32 * 0.71).cos()).collect();
            let mut packed = Vec::new();
            pack(&weights, k, outs, &mut packed);
            let offset = |r: usize| (r * lanes * 4) as i32;
            let p = Product {
                x: (0..k).map(offset).collect(),
                out: (k..k + outs).map(offset).collect(),
                weights: 0,
            };
            unsafe { dense::<f32>(isa, arena.as_mut_ptr().cast(), &p, &packed, lanes) };
            for o in 0..outs {
                for l in 0..lanes {
                    let want: f32 = (0..k)
                        .map(|j| weights[o * k + j] * arena[j * lanes + l])
                        .sum();
                    assert!((arena[(k + o) * lanes + l] - want).abs() < 1e-5);
                }
            }
            let factors = [(offset(0), offset(1)), (offset(2), offset(3))];
            unsafe { dot::<f32>(isa, arena.as_mut_ptr().cast(), offset(k), &factors, lanes) };
            for l in 0..lanes {
                let want =
                    arena[l] * arena[lanes + l] + arena[2 * lanes + l] * arena[3 * lanes + l];
                assert!((arena[k * lanes + l] - want).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn products_on_every_instruction_set() {
        check(Isa::Portable);
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                check(Isa::Avx2);
            }
            if Isa::detect() == Isa::Avx512 {
                check(Isa::Avx512);
            }
        }
    }

    #[test]
    fn tiles_cover_evenly() {
        assert_eq!(tiles(14).collect::<Vec<_>>(), [7, 7]);
        assert_eq!(tiles(16).collect::<Vec<_>>(), [5, 5, 6]);
        assert_eq!(tiles(1).collect::<Vec<_>>(), [1]);
    }
}
