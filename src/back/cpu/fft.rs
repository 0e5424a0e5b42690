//! Many Fourier transforms of one length at once, one per vector lane.
//!
//! Stockham's algorithm with radices 2 to 5 on separate planes of real and
//! imaginary parts: element k of all transforms is one vector, so that nothing is
//! shuffled and every operation is a full vector.
//!
//! What does not fit into the nearest cache is a matrix of `rows` times `columns`
//! elements, n = a columns + b, k = k1 + rows k2:
//!
//! ```text
//! X[k1 + rows k2] = sum_b w^(b k1) w_columns^(b k2)  sum_a w_rows^(a k1) x[a columns + b]
//! ```
//!
//! Columns are transformed in place, then rows, each inside the cache; memory is
//! passed twice whatever the length. Momentum k1 + rows k2 then stands at
//! k1 columns + k2 ([`Transform::momentum`]); the inverse takes it from there.

use super::simd::{Real, Vector};
use std::f64::consts::TAU;
use std::ops::Range;

/// Bytes of a transform and its working memory that stay in the nearest cache.
const NEAR: usize = 32 << 10;

/// Columns transformed before their sites are read: whole cache lines of a result.
pub(super) const TOGETHER: usize = 16;

/// A transform of one length, forward and back.
pub(super) struct Transform<T> {
    rows: usize,
    columns: usize,
    column: Line<T>,
    row: Line<T>,
    /// `exp(-2 pi i b k1 / length)` for b in 0..columns, k1 in 0..rows.
    twiddles: Vec<[T; 2]>,
}

/// What is done before and after an inverse transform, part by part, while the part
/// is in the cache. Compiled into the transform: all of it is to be inlined.
pub(super) trait Around {
    /// Writes the spectrum at some places, just before they are needed.
    unsafe fn fill(&self, places: Range<usize>);
    /// Asks for what `fill` will read for some places.
    unsafe fn will_fill(&self, places: Range<usize>);
    /// Asks for what `done` will write for some sites.
    unsafe fn will_be_done(&self, sites: Range<usize>);
    /// Reads some sites, which are ready.
    unsafe fn done(&self, sites: Range<usize>);
    /// Sites up to where parts had best begin: there and [`TOGETHER`] sites apart.
    fn lead(&self) -> usize;
}

/// Transforms inside the cache.
struct Line<T> {
    length: usize,
    stages: Vec<Stage<T>>,
}

struct Stage<T> {
    radix: usize,
    /// Elements that share a twiddle.
    stride: usize,
    /// `exp(-2 pi i p j / (radix count))` for p in 0..count, j in 1..radix.
    twiddles: Vec<[T; 2]>,
}

/// Real and imaginary parts, a vector per element.
pub(super) type Planes<E> = [*mut E; 2];

/// Elements in memory: the first one, and vectors from one to the next.
#[derive(Clone, Copy)]
struct Strided<E> {
    planes: Planes<E>,
    step: usize,
}

/// Factors of the elements: none, of those read, of those written.
#[derive(Clone, Copy)]
enum Turn<T> {
    None,
    Read(*const [T; 2]),
    Write(*const [T; 2]),
}

/// The factors 4, 5, 3 and 2 of a length; `None` if it has others.
fn radices(length: usize) -> Option<Vec<usize>> {
    let (mut left, mut all) = (length, Vec::new());
    for radix in [4, 5, 3, 2] {
        while left > 1 && left.is_multiple_of(radix) {
            all.push(radix);
            left /= radix;
        }
    }
    (left == 1).then_some(all)
}

fn root<T: Real>(k: usize, n: usize) -> [T; 2] {
    let angle = -TAU * (k % n) as f64 / n as f64;
    [T::rounded(angle.cos()), T::rounded(angle.sin())]
}

impl<T: Real> Line<T> {
    fn new(length: usize) -> Option<Line<T>> {
        let (mut left, mut stride) = (length, 1);
        let mut stages = Vec::new();
        for radix in radices(length)? {
            let count = left / radix;
            let twiddles = (0..count)
                .flat_map(|p| (1..radix).map(move |j| p * j))
                .map(|k| root(k, left))
                .collect();
            stages.push(Stage {
                radix,
                stride,
                twiddles,
            });
            stride *= radix;
            left = count;
        }
        Some(Line { length, stages })
    }

    /// Transforms in place.
    #[inline(always)]
    unsafe fn run<V: Vector<Element = T>>(
        &self,
        x: Strided<T>,
        near: [Planes<T>; 2],
        turn: Turn<T>,
    ) {
        let near = near.map(|planes| Strided { planes, step: 1 });
        let last = self.stages.len().wrapping_sub(1);
        for (k, stage) in self.stages.iter().enumerate() {
            let from = if k == 0 { x } else { near[k % 2] };
            let to = if k == last { x } else { near[(k + 1) % 2] };
            let turn = match turn {
                Turn::Read(_) if k == 0 => turn,
                Turn::Write(_) if k == last => turn,
                _ => Turn::None,
            };
            unsafe {
                match stage.radix {
                    2 => stage.run::<V, 2>(self.length, from, to, turn),
                    3 => stage.run::<V, 3>(self.length, from, to, turn),
                    4 => stage.run::<V, 4>(self.length, from, to, turn),
                    _ => stage.run::<V, 5>(self.length, from, to, turn),
                }
            }
        }
    }
}

impl<T: Real> Transform<T> {
    /// For vectors of `bytes`; `None` where the length has other prime factors
    /// than 2, 3 and 5.
    pub(super) fn new(length: usize, bytes: usize) -> Option<Transform<T>> {
        radices(length)?;
        let rows = if 4 * length * bytes <= NEAR {
            1
        } else {
            // as square as the factors allow
            let divides = |n: &usize| length.is_multiple_of(*n);
            (1..=length.isqrt()).rev().find(divides)?
        };
        let columns = length / rows;
        let turned = if rows == 1 { 0 } else { columns };
        Some(Transform {
            rows,
            columns,
            column: Line::new(rows)?,
            row: Line::new(columns)?,
            twiddles: (0..turned)
                .flat_map(|b| (0..rows).map(move |k| root(b * k, length)))
                .collect(),
        })
    }

    /// Which momentum a place of a spectrum belongs to.
    pub(super) fn momentum(&self, place: usize) -> usize {
        place / self.columns + self.rows * (place % self.columns)
    }

    /// The place of the opposite momentum.
    #[inline(always)]
    pub(super) fn mirrored(&self, place: usize) -> usize {
        let (k1, k2) = (place / self.columns, place % self.columns);
        match k1 {
            0 => (self.columns - k2) % self.columns,
            _ => (self.rows - k1) * self.columns + self.columns - 1 - k2,
        }
    }

    /// Vectors in each of the four planes of working memory.
    pub(super) fn near(&self) -> usize {
        self.rows.max(self.columns)
    }

    /// Transforms in place: sites to places of the spectrum.
    ///
    /// # Safety
    /// `x` has room for the length in vectors, `near` for [`Transform::near`] of
    /// them; the machine has these vectors.
    #[inline(always)]
    pub(super) unsafe fn forward<V: Vector<Element = T>>(
        &self,
        x: Planes<T>,
        near: [Planes<T>; 2],
    ) {
        unsafe {
            if self.rows > 1 {
                for b in 0..self.columns {
                    let turn = Turn::Write(self.twiddles.as_ptr().add(b * self.rows));
                    self.column.run::<V>(self.column_at::<V>(x, b), near, turn);
                }
            }
            for k1 in 0..self.rows {
                self.row.run::<V>(self.row_at::<V>(x, k1), near, Turn::None);
            }
        }
    }

    /// Transforms in place, unnormalised: places of the spectrum to sites.
    ///
    /// # Safety
    /// As [`Transform::forward`].
    #[inline(always)]
    pub(super) unsafe fn inverse<V: Vector<Element = T>>(
        &self,
        x: Planes<T>,
        near: [Planes<T>; 2],
        around: &impl Around,
    ) {
        // parts exchanged on both sides
        let swapped = [x[1], x[0]];
        unsafe {
            for k1 in 0..self.rows {
                around.fill(k1 * self.columns..(k1 + 1) * self.columns);
                if k1 + 1 < self.rows {
                    around.will_fill((k1 + 1) * self.columns..(k1 + 2) * self.columns);
                }
                let row = self.row_at::<V>(swapped, k1);
                self.row.run::<V>(row, near, Turn::None);
            }
            if self.rows == 1 {
                return around.done(0..self.columns);
            }
            for first in (0..self.columns).step_by(TOGETHER) {
                let some = first..self.columns.min(first + TOGETHER);
                let lead = around.lead();
                for a in 0..self.rows {
                    around.will_be_done(self.part(a, &some, lead));
                }
                for b in some.clone() {
                    let turn = Turn::Read(self.twiddles.as_ptr().add(b * self.rows));
                    let column = self.column_at::<V>(swapped, b);
                    self.column.run::<V>(column, near, turn);
                }
                for a in 0..self.rows {
                    around.done(self.part(a, &some, lead));
                }
            }
        }
    }

    /// Sites of row `a` that are read when these columns are done: whole parts, the
    /// last one with what the next row has of it.
    #[inline(always)]
    fn part(&self, a: usize, columns: &Range<usize>, lead: usize) -> Range<usize> {
        let row = a * self.columns;
        let down = |site: usize| site - (site + TOGETHER - lead) % TOGETHER;
        let up = |site: usize| down(site + TOGETHER - 1);
        let start = match columns.start {
            0 if a == 0 => 0,
            0 => up(row),
            first => down(row + first),
        };
        let end = match row + columns.end {
            end if columns.end == self.columns => up(end),
            end => down(end),
        };
        start..end.min(self.rows * self.columns).max(start)
    }

    #[inline(always)]
    unsafe fn column_at<V: Vector<Element = T>>(&self, x: Planes<T>, b: usize) -> Strided<T> {
        let planes = x.map(|p| unsafe { p.add(b * V::LANES) });
        let step = self.columns;
        Strided { planes, step }
    }

    #[inline(always)]
    unsafe fn row_at<V: Vector<Element = T>>(&self, x: Planes<T>, k1: usize) -> Strided<T> {
        let planes = x.map(|p| unsafe { p.add(k1 * self.columns * V::LANES) });
        Strided { planes, step: 1 }
    }
}

impl<T: Real> Stage<T> {
    #[inline(always)]
    unsafe fn run<V: Vector<Element = T>, const R: usize>(
        &self,
        length: usize,
        from: Strided<T>,
        to: Strided<T>,
        turn: Turn<T>,
    ) {
        let (count, apart) = (length / (self.stride * R), length / R);
        unsafe {
            let constants = Constants::<V>::new();
            for p in 0..count {
                let twiddles = self.twiddles.as_ptr().add(p * (R - 1));
                for q in 0..self.stride {
                    let mut z = [(constants.zero, constants.zero); R];
                    for (k, z) in z.iter_mut().enumerate() {
                        let e = q + self.stride * p + apart * k;
                        let at = e * from.step * V::LANES;
                        *z = (
                            V::load(from.planes[0].add(at)),
                            V::load(from.planes[1].add(at)),
                        );
                        if let Turn::Read(t) = turn {
                            *z = turned(*z, *t.add(e));
                        }
                    }
                    let z = butterfly::<V, R>(z, &constants);
                    for (j, &z) in z.iter().enumerate() {
                        let e = q + self.stride * (R * p + j);
                        let at = e * to.step * V::LANES;
                        let mut z = z;
                        if j > 0 && p > 0 {
                            z = turned(z, *twiddles.add(j - 1));
                        }
                        if let Turn::Write(t) = turn {
                            z = turned(z, *t.add(e));
                        }
                        z.0.store(to.planes[0].add(at));
                        z.1.store(to.planes[1].add(at));
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn turned<V: Vector>((re, im): Number<V>, [c, s]: [V::Element; 2]) -> Number<V>
where
    V::Element: Real,
{
    unsafe {
        let (c, s, minus) = (V::splat(c), V::splat(s), V::splat(-s));
        (minus.fma(im, c.times(re)), s.fma(re, c.times(im)))
    }
}

/// Numbers the butterflies need.
struct Constants<V> {
    zero: V,
    half: V,
    /// sin(2 pi / 3)
    third: V,
    /// cos and sin of 2 pi / 5 and 4 pi / 5
    fifth: [[V; 2]; 2],
}

impl<V: Vector> Constants<V>
where
    V::Element: Real,
{
    #[inline(always)]
    unsafe fn new() -> Self {
        let splat = |x: f64| unsafe { V::splat(V::Element::rounded(x)) };
        let circle = |x: f64| [splat((TAU * x).cos()), splat((TAU * x).sin())];
        Constants {
            zero: splat(0.0),
            half: splat(-0.5),
            third: splat((TAU / 3.0).sin()),
            fifth: [circle(0.2), circle(0.4)],
        }
    }
}

type Number<V> = (V, V);

#[inline(always)]
unsafe fn plus<V: Vector>(a: Number<V>, b: Number<V>) -> Number<V> {
    unsafe { (a.0.plus(b.0), a.1.plus(b.1)) }
}
#[inline(always)]
unsafe fn minus<V: Vector>(a: Number<V>, b: Number<V>) -> Number<V> {
    unsafe { (a.0.minus(b.0), a.1.minus(b.1)) }
}
/// `a - i b`, `a + i b`
#[inline(always)]
unsafe fn rotated<V: Vector>(a: Number<V>, b: Number<V>) -> [Number<V>; 2] {
    unsafe {
        [
            (a.0.plus(b.1), a.1.minus(b.0)),
            (a.0.minus(b.1), a.1.plus(b.0)),
        ]
    }
}
/// `x a + c` for real x
#[inline(always)]
unsafe fn scaled<V: Vector>(x: V, a: Number<V>, c: Number<V>) -> Number<V> {
    unsafe { (x.fma(a.0, c.0), x.fma(a.1, c.1)) }
}

/// The transform of R numbers.
#[inline(always)]
unsafe fn butterfly<V: Vector, const R: usize>(
    mut z: [Number<V>; R],
    constants: &Constants<V>,
) -> [Number<V>; R] {
    let zero = (constants.zero, constants.zero);
    unsafe {
        match R {
            2 => {
                let (a, b) = (z[0], z[1]);
                z[0] = plus(a, b);
                z[1] = minus(a, b);
            }
            3 => {
                let (sum, difference) = (plus(z[1], z[2]), minus(z[1], z[2]));
                let middle = scaled(constants.half, sum, z[0]);
                let turned = scaled(constants.third, difference, zero);
                z[0] = plus(z[0], sum);
                [z[1], z[2]] = rotated(middle, turned);
            }
            4 => {
                let (a, b) = (plus(z[0], z[2]), minus(z[0], z[2]));
                let (c, d) = (plus(z[1], z[3]), minus(z[1], z[3]));
                z[0] = plus(a, c);
                z[2] = minus(a, c);
                [z[1], z[3]] = rotated(b, d);
            }
            _ => {
                let [[c1, s1], [c2, s2]] = constants.fifth;
                let (a, b) = (plus(z[1], z[4]), minus(z[1], z[4]));
                let (c, d) = (plus(z[2], z[3]), minus(z[2], z[3]));
                let near = scaled(c1, a, scaled(c2, c, z[0]));
                let far = scaled(c2, a, scaled(c1, c, z[0]));
                let turn = scaled(s1, b, scaled(s2, d, zero));
                let back = scaled(s2, b, zero);
                let back = minus(back, scaled(s1, d, zero));
                z[0] = plus(z[0], plus(a, c));
                [z[1], z[4]] = rotated(near, turn);
                [z[2], z[3]] = rotated(far, back);
            }
        }
    }
    z
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    struct Seen {
        filled: Cell<usize>,
        done: RefCell<Vec<bool>>,
        lead: usize,
    }

    impl Around for Seen {
        unsafe fn fill(&self, places: Range<usize>) {
            assert_eq!(self.filled.replace(places.end), places.start);
        }
        unsafe fn will_fill(&self, _: Range<usize>) {}
        unsafe fn will_be_done(&self, _: Range<usize>) {}
        unsafe fn done(&self, sites: Range<usize>) {
            let mut done = self.done.borrow_mut();
            assert!(!done[sites.clone()].contains(&true), "read twice");
            let whole = |site: usize| (site + TOGETHER - self.lead).is_multiple_of(TOGETHER);
            let ends = [sites.start == 0, sites.end == done.len()];
            if !sites.is_empty() && done.len() > TOGETHER {
                assert!(ends[0] || whole(sites.start));
                assert!(ends[1] || whole(sites.end));
            }
            done[sites].fill(true);
        }
        fn lead(&self) -> usize {
            self.lead
        }
    }

    /// Every length in one pass and as a matrix: `bytes` decides.
    fn check(n: usize, bytes: usize) {
        let transform = Transform::<f64>::new(n, bytes).expect("a smooth length");
        let number = |k: usize| (k as f64 * 0.7).sin();
        let mut re: Vec<f64> = (0..2 * n).map(number).collect();
        let mut im: Vec<f64> = (0..2 * n).map(|k| number(k + 11)).collect();
        let (x, y) = (re.clone(), im.clone());
        let mut near = vec![0.0; 8 * transform.near()];
        let near = near.as_mut_ptr();
        let near =
            [0, 2].map(|k| [k, k + 1].map(|k| unsafe { near.add(k * 2 * transform.near()) }));
        let planes = [re.as_mut_ptr(), im.as_mut_ptr()];
        unsafe { transform.forward::<[f64; 2]>(planes, near) };
        for place in 0..n {
            let q = transform.momentum(place);
            assert_eq!(transform.momentum(transform.mirrored(place)), (n - q) % n);
            for lane in 0..2 {
                let want = (0..n).fold((0.0, 0.0), |(s, t), k| {
                    let (sin, cos) = (-TAU * (k * q % n) as f64 / n as f64).sin_cos();
                    let (u, v) = (x[2 * k + lane], y[2 * k + lane]);
                    (s + u * cos - v * sin, t + u * sin + v * cos)
                });
                let error = (re[2 * place + lane] - want.0).hypot(im[2 * place + lane] - want.1);
                assert!(error < 1e-11 * n as f64, "length {n}, momentum {q}");
            }
        }
        let around = Seen {
            filled: Cell::new(0),
            done: RefCell::new(vec![false; n]),
            lead: n % TOGETHER,
        };
        let planes = [re.as_mut_ptr(), im.as_mut_ptr()];
        unsafe { transform.inverse::<[f64; 2]>(planes, near, &around) };
        assert_eq!(around.filled.get(), n);
        assert!(around.done.borrow().iter().all(|d| *d));
        for k in 0..2 * n {
            let error = (re[k] / n as f64 - x[k]).hypot(im[k] / n as f64 - y[k]);
            assert!(error < 1e-12, "length {n}, element {k}");
        }
    }

    #[test]
    fn transforms_of_every_smooth_length() {
        for n in [1, 2, 3, 4, 5, 6, 8, 12, 15, 20, 50, 60, 96, 100, 125, 500] {
            check(n, 16);
            check(n, NEAR);
        }
        assert!(Transform::<f32>::new(14, 32).is_none());
    }
}
