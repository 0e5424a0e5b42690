//! Flips of networks with hidden units, as products instead of logarithms.
//!
//! See [`pass::flips::units`](crate::pass::flips::units) for the mathematics. Per
//! flip j one row `z_hj = exp(4 W_hj)` is read and one factor per unit multiplied up.
//! A factor is a mean of 1 and `z` with weights p and q, hence within the bounds of
//! the table whatever theta is: how many factors a product may take before its
//! exponent must be put aside is known from the parameters.

use super::compiled::Compiled;
use super::constants::tensors;
use super::math::Precision;
use super::simd::{Isa, Real, Vector};
use crate::interp::evaluate;
use crate::pass::flips::NoFlips;
use crate::pass::flips::units::{HiddenUnits, Responses};
use num_complex::Complex64;

/// Rows are padded to this: two of the widest vectors of f32.
const LANES: usize = 32;
/// Changes accepted before the weights are computed from theta again.
const REFRESH: usize = 16;
/// Real and imaginary parts.
type Planes<T> = [Vec<T>; 2];

/// Largest |log| of a product that leaves room for what multiplies it.
fn log_range<T: Real>() -> f64 {
    match T::PRECISION {
        Precision::F32 => 60.0,
        Precision::F64 => 600.0,
    }
}

/// The tables of one parameter set. Rows have one entry per unit, padded with
/// units that contribute the factor 1; complex numbers are planes of real and
/// imaginary parts, the second empty for real units.
pub(super) struct Units<T: Real> {
    units: usize,
    stride: usize,
    complex: bool,
    weight: f64,
    /// theta without spins.
    bias: Vec<Complex64>,
    /// Per spin W.
    w: Planes<T>,
    /// Per spin exp(4 W).
    z: Planes<T>,
    /// Per spin `2 sum_h W_hj`.
    offset: Vec<Complex64>,
    /// Per spin the derivative of what is affine in log psi.
    rest: Vec<Complex64>,
    /// Largest |Re 4 W|.
    largest: f64,
    isa: Isa,
}

/// The hidden units of one configuration.
pub(super) struct Configuration<T: Real> {
    theta: Vec<Complex64>,
    /// p, then q.
    weights: [Planes<T>; 2],
    accepted: usize,
}

impl<T: Real> Units<T> {
    /// Bytes of the tables that all single flips read.
    pub(super) fn bytes(&self) -> usize {
        self.z
            .iter()
            .map(|plane| plane.len() * size_of::<T>())
            .sum()
    }

    /// Floating-point operations of all single flips: a factor `p + q z` per unit,
    /// multiplied up.
    pub(super) fn flops(&self) -> f64 {
        let each = if self.complex { 14 } else { 3 };
        (each * self.units * self.rest.len()) as f64
    }

    /// The tables of a network of this form.
    ///
    /// # Errors
    /// Units that are not affine in the spins.
    pub(super) fn new(network: &Compiled<T>, form: &HiddenUnits) -> Result<Units<T>, NoFlips> {
        let (graph, lattice) = (network.graph(), network.lattice());
        let wrong = |e: crate::interp::EvalError| NoFlips::Unsupported(e.to_string());
        let params = tensors(graph, network.program(), network.params(), &[]).map_err(wrong)?;
        let spins = vec![1i8; lattice.sites()];
        let values = evaluate(graph, lattice, &params, &spins).map_err(wrong)?;
        let mut responses = Responses::new(graph, lattice, &params, &spins, &values)?;
        let sites = spins.len();
        let mut rest = vec![Complex64::ZERO; sites];
        for (output, terms) in form.rest.iter().enumerate() {
            let one = [Complex64::ONE, Complex64::I][output];
            for &(factor, term) in terms {
                for &(site, d) in responses.of(term)?[0].iter() {
                    rest[site as usize] += one * factor * d;
                }
            }
        }
        let units = values.value(form.theta[0]).data.len();
        let stride = units.next_multiple_of(LANES);
        let complex = form.theta.len() == 2;
        let mut w = vec![Complex64::ZERO; stride * sites];
        let mut bias = vec![Complex64::ZERO; stride];
        for (&theta, one) in form.theta.iter().zip([Complex64::ONE, Complex64::I]) {
            let value = values.value(theta);
            for (h, row) in responses.of(theta)?.iter().enumerate() {
                bias[h] += one * value.data[h];
                for &(site, d) in row.iter() {
                    w[site as usize * stride + h] += one * d;
                    bias[h] -= one * d;
                }
            }
        }
        let planes = |all: &[Complex64]| -> Planes<T> {
            let re = all.iter().map(|z| T::rounded(z.re)).collect();
            let im = all.iter().map(|z| T::rounded(z.im));
            [re, im.take(if complex { all.len() } else { 0 }).collect()]
        };
        let z: Vec<Complex64> = w.iter().map(|w| (4.0 * w).exp()).collect();
        let sum = |row: &[Complex64]| 2.0 * row.iter().sum::<Complex64>();
        Ok(Units {
            units,
            stride,
            complex,
            weight: form.weight,
            offset: w.chunks_exact(stride).map(sum).collect(),
            largest: w.iter().map(|w| 4.0 * w.re.abs()).fold(0.0, f64::max),
            w: planes(&w),
            z: planes(&z),
            bias,
            rest,
            isa: Isa::detect(),
        })
    }

    /// The hidden units of a configuration.
    pub(super) fn configuration(&self, spins: &[i8]) -> Configuration<T> {
        let mut theta = self.bias.clone();
        for (plane, one) in self.planes().zip([Complex64::ONE, Complex64::I]) {
            let mut sums = vec![0.0; self.stride];
            add_rows(self.isa, plane, spins, &mut sums);
            theta.iter_mut().zip(sums).for_each(|(t, s)| *t += one * s);
        }
        let mut found = Configuration {
            theta,
            weights: Default::default(),
            accepted: 0,
        };
        self.weigh(&mut found);
        found
    }

    fn planes(&self) -> impl Iterator<Item = &Vec<T>> {
        self.w.iter().take(if self.complex { 2 } else { 1 })
    }

    /// p and q from theta.
    fn weigh(&self, c: &mut Configuration<T>) {
        for (weights, sign) in c.weights.iter_mut().zip([-2.0, 2.0]) {
            let [re, im] = weights;
            re.clear();
            im.clear();
            for &theta in &c.theta {
                if self.complex {
                    let p = logistic(sign * theta);
                    re.push(T::rounded(p.re));
                    im.push(T::rounded(p.im));
                } else {
                    re.push(T::rounded(1.0 / (1.0 + (sign * theta.re).exp())));
                }
            }
        }
        // padding: both weights 1/2, both tables 1
    }

    /// `log psi(s') - log psi(s)`, the flips being distinct sites of the
    /// configuration `spins`.
    pub(super) fn ratio(&self, c: &Configuration<T>, spins: &[i8], flips: &[usize]) -> Complex64 {
        let mut affine = Complex64::ZERO;
        let mut offset = Complex64::ZERO;
        for &j in flips {
            affine -= 2.0 * f64::from(spins[j]) * self.rest[j];
            offset += self.offset[j];
        }
        let range = self.largest * flips.len() as f64;
        let factors = (log_range::<T>() / range.max(1e-3)) as usize;
        let product = if factors == 0 {
            None
        } else {
            // complex factors are bounded in all but rare cases
            let steps = if self.complex {
                factors.div_ceil(4)
            } else {
                factors
            };
            let steps = steps.min(self.stride);
            self.log_product(c, spins, flips, steps)
        };
        let units = match product {
            Some(log) => log - offset,
            None => self.one_by_one(c, spins, flips),
        };
        affine + self.weight * units
    }

    /// The logarithm of the product of all factors; `None` if it has left the
    /// range of numbers, as it may near a zero of psi.
    fn log_product(
        &self,
        c: &Configuration<T>,
        spins: &[i8],
        flips: &[usize],
        steps: usize,
    ) -> Option<Complex64> {
        let row = |plane: &'_ [T], j: usize| -> *const T {
            plane[j * self.stride..(j + 1) * self.stride].as_ptr()
        };
        let [p, q] = &c.weights;
        let log = if self.complex {
            let pick = |s: i8| -> Vec<[*const T; 2]> {
                let those = flips.iter().filter(|&&j| spins[j] == s);
                those
                    .map(|&j| [row(&self.z[0], j), row(&self.z[1], j)])
                    .collect()
            };
            complex_product([p, q], [&pick(-1), &pick(1)], steps)
        } else if let [j] = *flips {
            // the weight of the factor z comes last
            let weights = if spins[j] == 1 { [p, q] } else { [q, p] };
            let weights = weights.map(|w| w[0].as_slice());
            let z = &self.z[0][j * self.stride..(j + 1) * self.stride];
            Complex64::from(single_product(self.isa, weights, z, steps))
        } else {
            let pick = |s: i8| -> Vec<*const T> {
                let those = flips.iter().filter(|&&j| spins[j] == s);
                those.map(|&j| row(&self.z[0], j)).collect()
            };
            let weights = [p[0].as_slice(), q[0].as_slice()];
            Complex64::from(product(self.isa, weights, [&pick(-1), &pick(1)], steps))
        };
        log.is_finite().then_some(log)
    }

    /// Without tables: for parameters so large that the factors leave the range of
    /// numbers.
    fn one_by_one(&self, c: &Configuration<T>, spins: &[i8], flips: &[usize]) -> Complex64 {
        (0..self.units)
            .map(|h| {
                let d: Complex64 = (flips.iter())
                    .map(|&j| -2.0 * f64::from(spins[j]) * self.entry(j, h))
                    .sum();
                log_cosh(c.theta[h] + d) - log_cosh(c.theta[h])
            })
            .sum()
    }

    fn entry(&self, j: usize, h: usize) -> Complex64 {
        let at = j * self.stride + h;
        let im = self.w[1].get(at).map_or(0.0, |x| x.widened());
        Complex64::new(self.w[0][at].widened(), im)
    }

    /// Makes the change; `spins` is the configuration before it.
    pub(super) fn accept(&self, c: &mut Configuration<T>, spins: &[i8], flips: &[usize]) {
        for &j in flips {
            let change = -2.0 * f64::from(spins[j]);
            let row = j * self.stride..(j + 1) * self.stride;
            for (plane, one) in self.planes().zip([Complex64::ONE, Complex64::I]) {
                let rows = c.theta.iter_mut().zip(&plane[row.clone()]);
                rows.for_each(|(theta, w)| *theta += one * change * w.widened());
            }
        }
        c.accepted += 1;
        let small = self.largest * flips.len() as f64 <= log_range::<T>();
        if self.complex || !small || c.accepted.is_multiple_of(REFRESH) {
            return self.weigh(c);
        }
        // p N / (p N + q D), as the factors of a ratio
        let [p, q] = &mut c.weights;
        for &j in flips {
            let row = &self.z[0][j * self.stride..(j + 1) * self.stride];
            let (up, down) = if spins[j] == -1 {
                (&mut p[0], &mut q[0])
            } else {
                (&mut q[0], &mut p[0])
            };
            for ((up, down), &z) in up.iter_mut().zip(down.iter_mut()).zip(row) {
                let moved = *up * z;
                let sum = moved + *down;
                *up = moved / sum;
                *down = *down / sum;
            }
        }
    }
}

/// `1 / (1 + exp(x))`
fn logistic(x: Complex64) -> Complex64 {
    if x.re > 0.0 {
        let e = (-x).exp();
        e / (1.0 + e)
    } else {
        1.0 / (1.0 + x.exp())
    }
}

fn log_cosh(x: Complex64) -> Complex64 {
    let x = if x.re < 0.0 { -x } else { x };
    let e = (-2.0 * x).exp();
    if x.im == 0.0 {
        return Complex64::from(x.re + e.re.ln_1p() - std::f64::consts::LN_2);
    }
    x + (1.0 + e).ln() - std::f64::consts::LN_2
}

/// Products of [`LANES`] independent factors, with their exponents put aside.
struct Running {
    log: f64,
    mantissa: f64,
}

impl Running {
    /// Takes the product of all lanes.
    fn take<T: Real>(&mut self, lanes: &[T]) {
        for x in lanes {
            let (mantissa, exponent) = split(x.widened());
            self.mantissa *= mantissa;
            self.log += exponent;
        }
        let (mantissa, exponent) = split(self.mantissa);
        self.mantissa = mantissa;
        self.log += exponent;
    }
    fn log(&self) -> f64 {
        self.log * std::f64::consts::LN_2 + self.mantissa.ln()
    }
}

/// A positive normal number as mantissa in [1, 2) and exponent; others as they are.
fn split(x: f64) -> (f64, f64) {
    let bits = x.to_bits();
    let exponent = bits >> 52;
    if exponent == 0 || exponent >= 0x7ff {
        return (x, 0.0);
    }
    let mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    (mantissa, exponent as f64 - 1023.0)
}

/// Per pair of vectors `acc *= first + second z`.
#[inline(always)]
unsafe fn single_lanes<T: Real, V: Vector<Element = T>>(
    [first, second]: [&[T]; 2],
    z: &[T],
    steps: usize,
    run: &mut Running,
) {
    let block = 2 * V::LANES;
    unsafe {
        let (one, zero) = (V::splat(T::one()), V::splat(T::zero()));
        let mut at = 0;
        while at < z.len() {
            let end = z.len().min(at + steps * block);
            let mut acc = [one; 2];
            while at < end {
                for (k, acc) in acc.iter_mut().enumerate() {
                    let read = |x: &[T]| V::load(x.as_ptr().add(at + k * V::LANES));
                    *acc = acc.fma(read(second).fma(read(z), read(first)), zero);
                }
                at += block;
            }
            store(acc, run);
        }
    }
}

/// Per pair of vectors `acc *= p prod(up) + q prod(down)`.
#[inline(always)]
unsafe fn lanes<T: Real, V: Vector<Element = T>>(
    [p, q]: [&[T]; 2],
    [up, down]: [&[*const T]; 2],
    steps: usize,
    run: &mut Running,
) {
    let block = 2 * V::LANES;
    unsafe {
        let (one, zero) = (V::splat(T::one()), V::splat(T::zero()));
        let mut at = 0;
        while at < p.len() {
            let end = p.len().min(at + steps * block);
            let mut acc = [one; 2];
            while at < end {
                for (k, acc) in acc.iter_mut().enumerate() {
                    let lane = at + k * V::LANES;
                    let mut n = V::load(p.as_ptr().add(lane));
                    for z in up {
                        n = n.fma(V::load(z.add(lane)), zero);
                    }
                    let mut d = V::load(q.as_ptr().add(lane));
                    for z in down {
                        d = d.fma(V::load(z.add(lane)), zero);
                    }
                    *acc = acc.fma(n.fma(one, d), zero);
                }
                at += block;
            }
            store(acc, run);
        }
    }
}

#[inline(always)]
unsafe fn store<T: Real, V: Vector<Element = T>>(acc: [V; 2], run: &mut Running) {
    let mut values = [T::one(); LANES];
    for (k, acc) in acc.iter().enumerate() {
        unsafe { acc.store(values.as_mut_ptr().add(k * V::LANES)) }
    }
    run.take(&values[..2 * V::LANES]);
}

macro_rules! instance {
    ($single:ident, $many:ident, $rows:ident, $width:ident $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $single<T: Real>(w: [&[T]; 2], z: &[T], steps: usize, run: &mut Running) {
            unsafe { single_lanes::<T, T::$width>(w, z, steps, run) }
        }
        $(#[target_feature(enable = $feature)])?
        unsafe fn $many<T: Real>(
            w: [&[T]; 2], z: [&[*const T]; 2], steps: usize, run: &mut Running,
        ) {
            unsafe { lanes::<T, T::$width>(w, z, steps, run) }
        }
        $(#[target_feature(enable = $feature)])?
        unsafe fn $rows<T: Real>(plane: &[T], spins: &[i8], sums: &mut [f64]) {
            unsafe { signed_rows::<T, T::$width>(plane, spins, sums) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instance!(
    single_512,
    many_512,
    rows_512,
    Wide512,
    "avx512f,avx512vl,fma"
);
#[cfg(target_arch = "x86_64")]
instance!(single_256, many_256, rows_256, Wide256, "avx2,fma");
instance!(single_portable, many_portable, rows_portable, Portable);

/// `log prod (first + second z)`, the weights being those of the factors 1 and z.
fn single_product<T: Real>(isa: Isa, w: [&[T]; 2], z: &[T], steps: usize) -> f64 {
    assert!(w.iter().all(|w| w.len() == z.len()) && z.len().is_multiple_of(LANES));
    let mut run = Running {
        log: 0.0,
        mantissa: 1.0,
    };
    // SAFETY: the machine has `isa`, and all slices end with a whole block.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => single_512(w, z, steps, &mut run),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => single_256(w, z, steps, &mut run),
            _ => single_portable(w, z, steps, &mut run),
        }
    }
    run.log()
}

/// `log prod (p prod(up) + q prod(down))` over rows as long as the weights.
fn product<T: Real>(isa: Isa, w: [&[T]; 2], z: [&[*const T]; 2], steps: usize) -> f64 {
    assert!(w[0].len() == w[1].len() && w[0].len().is_multiple_of(LANES));
    let mut run = Running {
        log: 0.0,
        mantissa: 1.0,
    };
    // SAFETY: as above; rows of the table have the length of the weights.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => many_512(w, z, steps, &mut run),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => many_256(w, z, steps, &mut run),
            _ => many_portable(w, z, steps, &mut run),
        }
    }
    run.log()
}

/// As [`product`] for complex weights and rows; the phase is modulo 2 pi.
fn complex_product<T: Real>(
    [p, q]: [&Planes<T>; 2],
    [up, down]: [&[[*const T; 2]]; 2],
    steps: usize,
) -> Complex64 {
    const WIDTH: usize = 8;
    let times = |a: &mut [[T; WIDTH]; 2], b: [[T; WIDTH]; 2]| {
        for k in 0..WIDTH {
            let [x, y] = [a[0][k], a[1][k]];
            a[0][k] = x * b[0][k] - y * b[1][k];
            a[1][k] = x * b[1][k] + y * b[0][k];
        }
    };
    let weights = |w: &Planes<T>, at: usize| {
        [0, 1].map(|part| -> [T; WIDTH] { std::array::from_fn(|k| w[part][at + k]) })
    };
    // SAFETY: rows of the table have the length of the weights.
    let row = |z: &[*const T; 2], at: usize| {
        z.map(|z| unsafe { z.add(at).cast::<[T; WIDTH]>().read_unaligned() })
    };
    let (mut log, mut phase) = (0.0, Complex64::ONE);
    let one = [[T::one(); WIDTH], [T::zero(); WIDTH]];
    let mut acc = one;
    let mut since = 0;
    let len = p[0].len();
    for at in (0..len).step_by(WIDTH) {
        let mut n = weights(p, at);
        up.iter().for_each(|z| times(&mut n, row(z, at)));
        let mut d = weights(q, at);
        down.iter().for_each(|z| times(&mut d, row(z, at)));
        for (n, d) in n.iter_mut().zip(&d) {
            n.iter_mut().zip(d).for_each(|(n, &d)| *n = *n + d);
        }
        times(&mut acc, n);
        since += 1;
        if since == steps || at + WIDTH == len {
            let [re, im] = acc;
            for (re, im) in re.into_iter().zip(im) {
                let z = Complex64::new(re.widened(), im.widened());
                let size = z.norm();
                log += size.ln();
                phase *= z / size;
            }
            acc = one;
            since = 0;
        }
    }
    Complex64::new(log, phase.arg())
}

/// `sums += sum_j s_j row_j`: blocks of rows in working precision, blocks in f64.
#[inline(always)]
unsafe fn signed_rows<T: Real, V: Vector<Element = T>>(
    plane: &[T],
    spins: &[i8],
    sums: &mut [f64],
) {
    const ROWS: usize = 16;
    let stride = sums.len();
    let width = 2 * V::LANES;
    let mut buffer = [T::zero(); LANES];
    for (block, spins) in spins.chunks(ROWS).enumerate() {
        for (lane, sums) in sums.chunks_exact_mut(width).enumerate() {
            unsafe {
                let mut acc = [V::splat(T::zero()); 2];
                for (j, &s) in spins.iter().enumerate() {
                    let sign = V::splat(T::rounded(f64::from(s)));
                    let row = (plane.as_ptr()).add((block * ROWS + j) * stride + lane * width);
                    for (k, acc) in acc.iter_mut().enumerate() {
                        *acc = sign.fma(V::load(row.add(k * V::LANES)), *acc);
                    }
                }
                for (k, acc) in acc.iter().enumerate() {
                    acc.store(buffer.as_mut_ptr().add(k * V::LANES));
                }
            }
            sums.iter_mut()
                .zip(&buffer)
                .for_each(|(s, x)| *s += x.widened());
        }
    }
}

fn add_rows<T: Real>(isa: Isa, plane: &[T], spins: &[i8], sums: &mut [f64]) {
    assert!(plane.len() == spins.len() * sums.len() && sums.len().is_multiple_of(LANES));
    // SAFETY: the machine has `isa`, and rows consist of whole blocks.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => rows_512(plane, spins, sums),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => rows_256(plane, spins, sums),
            _ => rows_portable(plane, spins, sums),
        }
    }
}
