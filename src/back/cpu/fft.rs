//! Many Fourier transforms of one length at once, one per vector lane.
//!
//! Stockham's algorithm with radices 2 to 5 on separate planes of real and
//! imaginary parts: element k of all transforms is one vector, so that nothing is
//! shuffled and every operation is a full vector.

use super::simd::{Real, Vector};
use std::f64::consts::TAU;

/// A transform of one length, forward; exchange real and imaginary parts on both
/// sides for the unnormalised inverse.
pub(super) struct Transform<T> {
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

/// Real and imaginary parts, `length` vectors each.
pub(super) type Planes<E> = [*mut E; 2];

impl<T: Real> Transform<T> {
    /// `None` where the length has other prime factors than 2, 3 and 5.
    pub(super) fn new(length: usize) -> Option<Transform<T>> {
        let (mut left, mut stride) = (length, 1);
        let mut stages = Vec::new();
        for radix in [4, 5, 3, 2] {
            while left > 1 && left.is_multiple_of(radix) {
                let count = left / radix;
                let twiddle = |p: usize, j: usize| {
                    let angle = -TAU * (p * j) as f64 / left as f64;
                    [T::rounded(angle.cos()), T::rounded(angle.sin())]
                };
                stages.push(Stage {
                    radix,
                    stride,
                    twiddles: (0..count)
                        .flat_map(|p| (1..radix).map(move |j| (p, j)))
                        .map(|(p, j)| twiddle(p, j))
                        .collect(),
                });
                stride *= radix;
                left = count;
            }
        }
        (left == 1).then_some(Transform { length, stages })
    }

    /// Transforms `x`, with `other` as working memory; returns where the result
    /// is, and the other one.
    ///
    /// # Safety
    /// Both have room for `length` vectors per plane; the machine has them.
    #[inline(always)]
    pub(super) unsafe fn run<V: Vector<Element = T>>(
        &self,
        x: Planes<T>,
        other: Planes<T>,
    ) -> (Planes<T>, Planes<T>) {
        let (mut from, mut to) = (x, other);
        for stage in &self.stages {
            unsafe {
                match stage.radix {
                    2 => stage.run::<V, 2>(self.length, from, to),
                    3 => stage.run::<V, 3>(self.length, from, to),
                    4 => stage.run::<V, 4>(self.length, from, to),
                    _ => stage.run::<V, 5>(self.length, from, to),
                }
            }
            (from, to) = (to, from);
        }
        (from, to)
    }
}

impl<T: Real> Stage<T> {
    #[inline(always)]
    unsafe fn run<V: Vector<Element = T>, const R: usize>(
        &self,
        length: usize,
        from: Planes<T>,
        to: Planes<T>,
    ) {
        let (count, apart) = (length / (self.stride * R), length / R);
        unsafe {
            let constants = Constants::<V>::new();
            for p in 0..count {
                let twiddles = self.twiddles.as_ptr().add(p * (R - 1));
                for q in 0..self.stride {
                    let mut z = [(constants.zero, constants.zero); R];
                    for (k, z) in z.iter_mut().enumerate() {
                        let at = (q + self.stride * p + apart * k) * V::LANES;
                        *z = (V::load(from[0].add(at)), V::load(from[1].add(at)));
                    }
                    let z = butterfly::<V, R>(z, &constants);
                    for (j, &(re, im)) in z.iter().enumerate() {
                        let at = (q + self.stride * (R * p + j)) * V::LANES;
                        let (re, im) = if j > 0 && p > 0 {
                            let [c, s] = *twiddles.add(j - 1);
                            let (c, s, minus) = (V::splat(c), V::splat(s), V::splat(-s));
                            (minus.fma(im, c.times(re)), s.fma(re, c.times(im)))
                        } else {
                            (re, im)
                        };
                        re.store(to[0].add(at));
                        im.store(to[1].add(at));
                    }
                }
            }
        }
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

    #[test]
    fn transforms_of_every_smooth_length() {
        for n in [1, 2, 3, 4, 5, 6, 8, 12, 15, 20, 50, 60, 96, 100, 125, 500] {
            let transform = Transform::<f64>::new(n).expect("a smooth length");
            let number = |k: usize| (k as f64 * 0.7).sin();
            let mut re: Vec<f64> = (0..2 * n).map(number).collect();
            let mut im: Vec<f64> = (0..2 * n).map(|k| number(k + 11)).collect();
            let (x, y) = (re.clone(), im.clone());
            let mut other = [vec![0.0; 2 * n], vec![0.0; 2 * n]];
            let [a, b] = &mut other;
            let planes = [re.as_mut_ptr(), im.as_mut_ptr()];
            let spare = [a.as_mut_ptr(), b.as_mut_ptr()];
            let (result, _) = unsafe { transform.run::<[f64; 2]>(planes, spare) };
            for q in 0..n {
                for lane in 0..2 {
                    let want = (0..n).fold((0.0, 0.0), |(s, t), k| {
                        let (sin, cos) = (-TAU * (k * q % n) as f64 / n as f64).sin_cos();
                        let (u, v) = (x[2 * k + lane], y[2 * k + lane]);
                        (s + u * cos - v * sin, t + u * sin + v * cos)
                    });
                    let got =
                        unsafe { (*result[0].add(2 * q + lane), *result[1].add(2 * q + lane)) };
                    let error = (got.0 - want.0).hypot(got.1 - want.1);
                    assert!(error < 1e-11 * n as f64, "length {n}, momentum {q}");
                }
            }
        }
        assert!(Transform::<f32>::new(14).is_none());
    }
}
