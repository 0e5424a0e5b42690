//! Products of small matrices with rows, and sums of products of rows.
//!
//! Rows are given by byte offsets into an arena. A tile of up to [`TILE`] results
//! times two vectors stays in registers while the operands stream by.

use super::simd::{Isa, Real, Vector};
use std::collections::BTreeMap;

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

/// Sums of products of rows, `out[r][c] = sum_k a[r][k] b[c][k]`, computed together.
#[derive(Clone, Debug)]
pub struct Dots {
    /// r and c.
    pub shape: [usize; 2],
    /// Byte offsets of the results, c fastest.
    pub out: Vec<i32>,
    /// Byte offsets of the factors: for every k all a, then all b.
    pub factors: Vec<i32>,
}

/// Lanes from which on rows are streamed; shorter ones stay in the cache.
const LONG: usize = 256;

/// Byte offsets of the first or the second factors of a sum.
type List = Vec<i32>;

/// Largest tiles of [`Dots`]: they stay in registers.
const DOTS: [[usize; 2]; 3] = [[4, 1], [2, 2], [2, 4]];

impl Dots {
    /// Sums, each with its lists a and b, as tiles of sums that share lists.
    pub fn tiles(sums: impl Iterator<Item = (i32, (List, List))>) -> Vec<Dots> {
        // by list a: per list b the result; sums of the same lists are told apart
        let mut by_a: BTreeMap<(usize, List), BTreeMap<List, i32>> = BTreeMap::new();
        for (out, (a, b)) in sums {
            let taken = |n: &usize| {
                by_a.get(&(*n, a.clone()))
                    .is_some_and(|r| r.contains_key(&b))
            };
            let again = (0..).find(|n| !taken(n)).unwrap_or_default();
            by_a.entry((again, a)).or_default().insert(b, out);
        }
        // lists a met by the same lists b
        let mut rectangles: BTreeMap<Vec<List>, Vec<(List, Vec<i32>)>> = BTreeMap::new();
        for ((_, a), results) in by_a {
            let (b, out) = results.into_iter().unzip();
            rectangles.entry(b).or_default().push((a, out));
        }
        let mut tiles = Vec::new();
        for (b, rows) in &rectangles {
            let [height, width] = DOTS[(b.len() - 1).min(2)];
            for first in (0..b.len()).step_by(width) {
                let columns = first..b.len().min(first + width);
                for rows in rows.chunks(height) {
                    let factors = (0..b[first].len()).flat_map(|k| {
                        let a = rows.iter().map(move |(a, _)| a[k]);
                        a.chain(b[columns.clone()].iter().map(move |b| b[k]))
                    });
                    tiles.push(Dots {
                        shape: [rows.len(), columns.len()],
                        out: (rows.iter())
                            .flat_map(|(_, out)| out[columns.clone()].iter().copied())
                            .collect(),
                        factors: factors.collect(),
                    });
                }
            }
        }
        tiles
    }
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

/// One tile of sums of products on some vectors.
#[inline(always)]
unsafe fn dots_at<V: Vector, const R: usize, const C: usize, const W: usize>(
    arena: *mut u8,
    d: &Dots,
    lane: usize,
    zero: V,
) {
    unsafe {
        let row = |offset: i32| arena.offset(offset as isize).cast::<V::Element>().add(lane);
        let mut acc = [[[zero; W]; C]; R];
        for k in d.factors.chunks_exact(R + C) {
            let mut b = [[zero; W]; C];
            for (c, b) in b.iter_mut().enumerate() {
                for (j, b) in b.iter_mut().enumerate() {
                    *b = V::load(row(k[R + c]).add(j * V::LANES));
                }
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                for j in 0..W {
                    let a = V::load(row(k[r]).add(j * V::LANES));
                    for (acc, b) in acc.iter_mut().zip(&b) {
                        acc[j] = a.fma(b[j], acc[j]);
                    }
                }
            }
        }
        for (acc, &out) in acc.iter().flatten().zip(&d.out) {
            for (j, value) in acc.iter().enumerate() {
                value.store(row(out).add(j * V::LANES));
            }
        }
    }
}

/// One tile of sums of products on long rows: a few factors at a time, from one end to
/// the other. All of them side by side would be more streams and more pages than a
/// processor follows.
#[inline(always)]
unsafe fn long_dots<V: Vector, const R: usize, const C: usize>(
    arena: *mut u8,
    d: &Dots,
    lanes: usize,
    zero: V,
) {
    unsafe {
        for (n, some) in d.factors.chunks(4 * (R + C)).enumerate() {
            let (out, first) = (d.out.as_slice(), n == 0);
            match some.len() / (R + C) {
                1 => some_dots::<V, R, C, 1>(arena, out, some, first, lanes, zero),
                2 => some_dots::<V, R, C, 2>(arena, out, some, first, lanes, zero),
                3 => some_dots::<V, R, C, 3>(arena, out, some, first, lanes, zero),
                _ => some_dots::<V, R, C, 4>(arena, out, some, first, lanes, zero),
            }
        }
    }
}

/// Vectors by which rows that are read once are asked for ahead: there are more of them
/// than streams a processor finds by itself.
const AHEAD: usize = 8;

/// K factors of a tile: the first ones, or added to the sums there are.
#[inline(always)]
unsafe fn some_dots<V: Vector, const R: usize, const C: usize, const K: usize>(
    arena: *mut u8,
    out: &[i32],
    factors: &[i32],
    first: bool,
    lanes: usize,
    zero: V,
) {
    unsafe {
        for lane in (0..lanes).step_by(V::LANES) {
            let row = |at: i32| arena.offset(at as isize).cast::<V::Element>().add(lane);
            let mut acc = [[zero; C]; R];
            if !first {
                for r in 0..R {
                    for c in 0..C {
                        acc[r][c] = V::load(row(out[r * C + c]));
                    }
                }
            }
            for k in 0..K {
                let at = &factors[k * (R + C)..(k + 1) * (R + C)];
                let mut b = [zero; C];
                for c in 0..C {
                    b[c] = V::load(row(at[R + c]));
                }
                for r in 0..R {
                    V::prefetch(row(at[r]).wrapping_add(AHEAD * V::LANES));
                    let a = V::load(row(at[r]));
                    for c in 0..C {
                        acc[r][c] = a.fma(b[c], acc[r][c]);
                    }
                }
            }
            for r in 0..R {
                for c in 0..C {
                    acc[r][c].store(row(out[r * C + c]));
                }
            }
        }
    }
}

/// One tile of sums of products on `lanes` lanes, W vectors at a time.
#[inline(always)]
unsafe fn dots<V: Vector, const R: usize, const C: usize, const W: usize>(
    arena: *mut u8,
    d: &Dots,
    lanes: usize,
    zero: V,
) {
    unsafe {
        if lanes > LONG {
            return long_dots::<V, R, C>(arena, d, lanes, zero);
        }
        let mut lane = 0;
        while lane + W * V::LANES <= lanes {
            dots_at::<V, R, C, W>(arena, d, lane, zero);
            lane += W * V::LANES;
        }
        while lane < lanes {
            dots_at::<V, R, C, 1>(arena, d, lane, zero);
            lane += V::LANES;
        }
    }
}

#[inline(always)]
unsafe fn sums<V: Vector>(arena: *mut u8, d: &Dots, lanes: usize, zero: V) {
    unsafe {
        match d.shape {
            [1, 1] => dots::<V, 1, 1, 2>(arena, d, lanes, zero),
            [2, 1] => dots::<V, 2, 1, 2>(arena, d, lanes, zero),
            [3, 1] => dots::<V, 3, 1, 2>(arena, d, lanes, zero),
            [4, 1] => dots::<V, 4, 1, 2>(arena, d, lanes, zero),
            [1, 2] => dots::<V, 1, 2, 2>(arena, d, lanes, zero),
            [2, 2] => dots::<V, 2, 2, 2>(arena, d, lanes, zero),
            [1, 3] => dots::<V, 1, 3, 2>(arena, d, lanes, zero),
            [2, 3] => dots::<V, 2, 3, 1>(arena, d, lanes, zero),
            [1, 4] => dots::<V, 1, 4, 2>(arena, d, lanes, zero),
            _ => dots::<V, 2, 4, 1>(arena, d, lanes, zero),
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
        unsafe fn $dot<T: Real>(arena: *mut u8, d: &Dots, lanes: usize) {
            unsafe { sums::<T::$width>(arena, d, lanes, T::$width::splat(T::default())) }
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

/// Runs a tile of sums of products of rows.
///
/// # Safety
/// As [`dense`].
pub unsafe fn dot<T: Real>(isa: Isa, arena: *mut u8, d: &Dots, lanes: usize) {
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => dot_512::<T>(arena, d, lanes),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => dot_256::<T>(arena, d, lanes),
            _ => dot_portable::<T>(arena, d, lanes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(isa: Isa, lanes: usize) {
        let k = 5;
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
        }
        // sums over pairs of rows, some of which share a list of factors or both
        let rows = 9;
        for columns in 1..7 {
            let (k, outs) = (6, rows * columns + 2);
            let mut arena: Vec<f32> = (0..(rows + columns) * k * lanes)
                .map(|i| (i as f32 * 0.37).sin())
                .collect();
            let x = arena.clone();
            let offset = |r: usize| (r * lanes * 4) as i32;
            let list = |first: usize| (first * k..(first + 1) * k).map(offset).collect();
            let result = |o: usize| (rows + columns) * k + o;
            arena.resize((result(outs)) * lanes, 0.0);
            let lists = |o: usize| (o % rows, o / rows % columns);
            let tiles = Dots::tiles((0..outs).map(|o| {
                let (row, column) = lists(o);
                (offset(result(o)), (list(row), list(rows + column)))
            }));
            for tile in &tiles {
                unsafe { dot::<f32>(isa, arena.as_mut_ptr().cast(), tile, lanes) };
            }
            for o in 0..outs {
                let (row, column) = lists(o);
                for l in 0..lanes {
                    let at = |list: usize, j: usize| x[(list * k + j) * lanes + l];
                    let want: f32 = (0..k).map(|j| at(row, j) * at(rows + column, j)).sum();
                    assert!((arena[result(o) * lanes + l] - want).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn products_on_every_instruction_set() {
        for lanes in [48, LONG + 16] {
            check(Isa::Portable, lanes);
            #[cfg(target_arch = "x86_64")]
            {
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    check(Isa::Avx2, lanes);
                }
                if Isa::detect() == Isa::Avx512 {
                    check(Isa::Avx512, lanes);
                }
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
