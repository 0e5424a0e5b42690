//! Elementary functions, written once for whoever computes them: [`super::Lanes`]
//! emits their operations, [`super::wide`] performs them.
//!
//! Straight-line code throughout: where branches differ both are computed, and one
//! is chosen.

use super::{Precision, coefficients as coef};

/// A comparison of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// `a < b`
    Less,
    /// `a > b`
    Greater,
    /// `a == b`
    Equal,
    /// One of them is not a number.
    Unordered,
    /// `a < b`, or one of them is not a number.
    LessOrUnordered,
}

/// Operations on numbers of one precision (or vectors of them, element by element) and
/// on their bits.
pub trait Arithmetic {
    /// Numbers.
    type Float: Copy;
    /// As many bits, for whole numbers.
    type Int: Copy;
    /// Of the numbers.
    fn precision(&self) -> Precision;
    /// The number `x`, rounded.
    fn constant(&mut self, x: f64) -> Self::Float;
    /// These bits; the upper half is cut off in single precision.
    fn int_constant(&mut self, bits: u64) -> Self::Int;
    /// The bits of a number.
    fn as_int(&mut self, x: Self::Float) -> Self::Int;
    /// The number with these bits.
    fn as_float(&mut self, bits: Self::Int) -> Self::Float;
    /// `a + b`.
    fn add(&mut self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a - b`.
    fn sub(&mut self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a b`.
    fn mul(&mut self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a / b`.
    fn div(&mut self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a b + c`, rounded once.
    fn fma(&mut self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
    /// `|x|`.
    fn abs(&mut self, x: Self::Float) -> Self::Float;
    /// `-x`.
    fn neg(&mut self, x: Self::Float) -> Self::Float;
    /// `if a (test) b { x } else { y }`.
    fn select(
        &mut self,
        test: Test,
        operands: (Self::Float, Self::Float),
        x: Self::Float,
        y: Self::Float,
    ) -> Self::Float;
    /// `if n is odd { x } else { y }`.
    fn if_odd(&mut self, n: Self::Int, x: Self::Float, y: Self::Float) -> Self::Float;
    /// `a + b`, modulo a power of two.
    fn int_add(&mut self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Bits of both.
    fn and(&mut self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Bits of either.
    fn or(&mut self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Bits of one of them.
    fn xor(&mut self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Bits so many places up.
    fn shift_up(&mut self, a: Self::Int, places: u32) -> Self::Int;
    /// Bits so many places down.
    fn shift_down(&mut self, a: Self::Int, places: u32) -> Self::Int;
}

/// Elementary functions. Errors, tested densely against a higher precision: at most 4
/// ulp in `f32`, at most 1e-13 relative in `f64`; infinities, NaN, signed zeros of odd
/// functions and overflow behave as in the standard library.
pub trait Elementary: Arithmetic {
    /// Picks the constant for the precision.
    #[inline(always)]
    fn pick<T>(&self, single: T, double: T) -> T {
        match self.precision() {
            Precision::F32 => single,
            Precision::F64 => double,
        }
    }
    /// The number whose sum with a small integer shows it in the low mantissa bits.
    #[inline(always)]
    fn magic(&mut self) -> Self::Float {
        let magic = self.pick(12_582_912.0, 6_755_399_441_055_744.0);
        self.constant(magic)
    }
    /// Places of the mantissa.
    #[inline(always)]
    fn mantissa(&self) -> u32 {
        self.pick(23, 52)
    }
    /// `c x`.
    #[inline(always)]
    fn scaled(&mut self, x: Self::Float, c: f64) -> Self::Float {
        let c = self.constant(c);
        self.mul(x, c)
    }
    /// Horner's rule, coefficients from the constant term up.
    #[inline(always)]
    fn poly(&mut self, x: Self::Float, coefficients: &[f64]) -> Self::Float {
        let mut acc = self.constant(coefficients[coefficients.len() - 1]);
        for &c in coefficients[..coefficients.len() - 1].iter().rev() {
            let c = self.constant(c);
            acc = self.fma(acc, x, c);
        }
        acc
    }
    /// A polynomial with other coefficients in single and in double precision.
    #[inline(always)]
    fn either(&mut self, x: Self::Float, single: &[f64], double: &[f64]) -> Self::Float {
        match self.precision() {
            Precision::F32 => self.poly(x, single),
            Precision::F64 => self.poly(x, double),
        }
    }
    /// `2^n` for integral `n` inside the normal exponent range.
    #[inline(always)]
    fn pow2(&mut self, n: Self::Float) -> Self::Float {
        let shift = self.pick(12_582_912.0 + 127.0, 6_755_399_441_055_744.0 + 1023.0);
        let shift = self.constant(shift);
        let t = self.add(n, shift);
        let t = self.as_int(t);
        let t = self.shift_up(t, self.mantissa());
        self.as_float(t)
    }
    /// Nearest integer of a small number, as a number.
    #[inline(always)]
    fn round(&mut self, x: Self::Float) -> Self::Float {
        let magic = self.magic();
        let t = self.add(x, magic);
        self.sub(t, magic)
    }
    /// `exp(r)` and `n` with `x = n log 2 + r`.
    #[inline(always)]
    fn exp_parts(&mut self, x: Self::Float) -> (Self::Float, Self::Float) {
        let magic = self.magic();
        let log2e = self.constant(std::f64::consts::LOG2_E);
        let t = self.fma(x, log2e, magic);
        let n = self.sub(t, magic);
        let (hi, lo) = self.pick(
            (
                f64::from(std::f32::consts::LN_2),
                std::f64::consts::LN_2 - f64::from(std::f32::consts::LN_2),
            ),
            (std::f64::consts::LN_2, 2.319_046_813_846_299_6e-17),
        );
        let (hi, lo) = (self.constant(-hi), self.constant(-lo));
        let r = self.fma(n, hi, x);
        let r = self.fma(n, lo, r);
        (self.either(r, &coef::EXP_32, &coef::EXP_64), n)
    }
    /// `e^x`; overflows to infinity, underflows gradually.
    #[inline(always)]
    fn exp(&mut self, x: Self::Float) -> Self::Float {
        let (lo, hi) = self.pick((-104.0, 89.0), (-746.0, 710.0));
        let (lo, hi) = (self.constant(lo), self.constant(hi));
        let x = self.select(Test::Less, (x, lo), lo, x);
        let x = self.select(Test::Less, (hi, x), hi, x);
        let (p, n) = self.exp_parts(x);
        let half = self.scaled(n, 0.5);
        let first = self.round(half);
        let second = self.sub(n, first);
        let (first, second) = (self.pow2(first), self.pow2(second));
        let p = self.mul(p, first);
        self.mul(p, second)
    }
    /// `e^x` for `x <= 0` where a result below the normal range may be any
    /// number that small.
    #[inline(always)]
    fn exp_decay(&mut self, x: Self::Float) -> Self::Float {
        let lo = self.pick(-87.0, -708.0);
        let lo = self.constant(lo);
        let x = self.select(Test::Less, (x, lo), lo, x);
        let (p, n) = self.exp_parts(x);
        let scale = self.pow2(n);
        self.mul(p, scale)
    }
    /// `log x`; -inf at 0, NaN below.
    #[inline(always)]
    fn log(&mut self, x: Self::Float) -> Self::Float {
        let (tiny, up, exponent) = self.pick(
            (f64::from(f32::MIN_POSITIVE), 16_777_216.0, -24.0),
            (f64::MIN_POSITIVE, 1.801_439_850_948_198_4e16, -54.0),
        );
        let (tiny, zero, exponent) = (
            self.constant(tiny),
            self.constant(0.0),
            self.constant(exponent),
        );
        let scaled = self.scaled(x, up);
        let y = self.select(Test::Less, (x, tiny), scaled, x);
        let shift = self.select(Test::Less, (x, tiny), exponent, zero);
        // m in [sqrt(1/2), sqrt(2)), x = 2^k m
        let (one, root_half, mask, exponent_one) = self.pick(
            (0x3f80_0000, 0x3f35_04f3, 0x007f_ffff, 0x4b00_0000),
            (
                0x3ff0_0000_0000_0000,
                0x3fe6_a09e_667f_3bcd,
                0x000f_ffff_ffff_ffff,
                0x4330_0000_0000_0000,
            ),
        );
        let bits = self.as_int(y);
        let offset = self.int_constant(one - root_half);
        let bits = self.int_add(bits, offset);
        let k = self.shift_down(bits, self.mantissa());
        let k = {
            let carrier = self.int_constant(exponent_one);
            let k = self.or(k, carrier);
            let k = self.as_float(k);
            let base = self.pick(8_388_608.0 + 127.0, 4_503_599_627_370_496.0 + 1023.0);
            let base = self.constant(base);
            let k = self.sub(k, base);
            self.add(k, shift)
        };
        let m = {
            let mask = self.int_constant(mask);
            let root = self.int_constant(root_half);
            let m = self.and(bits, mask);
            let m = self.int_add(m, root);
            self.as_float(m)
        };
        let unit = self.constant(1.0);
        let f = self.sub(m, unit);
        let two = self.constant(2.0);
        let denominator = self.add(f, two);
        let s = self.div(f, denominator);
        let z = self.mul(s, s);
        let p = self.either(z, &coef::LOG_32, &coef::LOG_64);
        let p = self.mul(p, z);
        let p = self.add(p, p);
        let (hi, lo) = self.pick(
            (0.693_115_234_375, 3.194_618_494_530_941_7e-5),
            (0.693_147_180_369_123_8, 1.908_214_929_270_587_8e-10),
        );
        let (hi, lo) = (self.constant(hi), self.constant(lo));
        // log m = f - s (f - p)
        let tail = self.sub(f, p);
        let tail = self.mul(s, tail);
        let fine = self.mul(k, lo);
        let tail = self.sub(fine, tail);
        let tail = self.add(tail, f);
        let r = self.fma(k, hi, tail);
        let (inf, minus_inf, nan) = (
            self.constant(f64::INFINITY),
            self.constant(f64::NEG_INFINITY),
            self.constant(f64::NAN),
        );
        let r = self.select(Test::Equal, (x, inf), inf, r);
        let r = self.select(Test::Equal, (x, zero), minus_inf, r);
        self.select(Test::LessOrUnordered, (x, zero), nan, r)
    }
    /// `log(1 + x)`; -inf at -1, NaN below.
    #[inline(always)]
    fn log1p(&mut self, x: Self::Float) -> Self::Float {
        let one = self.constant(1.0);
        let u = self.add(x, one);
        let log = self.log(u);
        let back = self.sub(u, one);
        let lost = self.sub(x, back);
        let lost = self.div(lost, u);
        let r = self.add(log, lost);
        let (inf, minus_one) = (self.constant(f64::INFINITY), self.constant(-1.0));
        let r = self.select(Test::Equal, (x, inf), inf, r);
        // below -1 the sum is NaN already; signed zero stays
        let r = self.select(Test::Equal, (x, minus_one), log, r);
        self.select(Test::Equal, (u, one), x, r)
    }
    /// `log(1 + e)` for `0 <= e <= 1`.
    #[inline(always)]
    fn log1p_unit(&mut self, e: Self::Float) -> Self::Float {
        let two = self.constant(2.0);
        let denominator = self.add(e, two);
        let s = self.div(e, denominator);
        let z = self.mul(s, s);
        let p = self.either(z, &coef::LOG1P_32, &coef::LOG1P_64);
        let p = self.mul(p, z);
        let p = self.fma(p, s, s);
        self.add(p, p)
    }
    /// `1 / (1 + e^-x)`.
    #[inline(always)]
    fn sigmoid(&mut self, x: Self::Float) -> Self::Float {
        let a = self.abs(x);
        let a = self.neg(a);
        let e = self.exp(a);
        let (one, zero) = (self.constant(1.0), self.constant(0.0));
        let numerator = self.select(Test::Less, (x, zero), e, one);
        let denominator = self.add(e, one);
        self.div(numerator, denominator)
    }
    /// `tanh x`.
    #[inline(always)]
    fn tanh(&mut self, x: Self::Float) -> Self::Float {
        let z = self.mul(x, x);
        let p = self.either(z, &coef::TANH_32, &coef::TANH_64);
        let p = self.mul(p, z);
        let small = self.fma(p, x, x);
        let a = self.abs(x);
        let e = self.scaled(a, -2.0);
        let e = self.exp_decay(e);
        let one = self.constant(1.0);
        let (numerator, denominator) = (self.sub(one, e), self.add(one, e));
        let large = self.div(numerator, denominator);
        let large = self.copy_sign(large, x);
        let edge = self.constant(0.4);
        self.select(Test::Less, (z, edge), small, large)
    }
    /// A positive number with the sign of another one.
    #[inline(always)]
    fn copy_sign(&mut self, magnitude: Self::Float, sign: Self::Float) -> Self::Float {
        let bit = self.pick(0x8000_0000, 0x8000_0000_0000_0000);
        let bit = self.int_constant(bit);
        let (m, s) = (self.as_int(magnitude), self.as_int(sign));
        let s = self.and(s, bit);
        let r = self.or(m, s);
        self.as_float(r)
    }
    /// `log cosh x`, relative error small also near 0.
    #[inline(always)]
    fn log_cosh(&mut self, x: Self::Float) -> Self::Float {
        let z = self.mul(x, x);
        let p = self.either(z, &coef::LOG_COSH_32, &coef::LOG_COSH_64);
        let small = self.mul(p, z);
        let a = self.abs(x);
        let e = self.scaled(a, -2.0);
        let e = self.exp_decay(e);
        let l = self.log1p_unit(e);
        let ln2 = self.constant(std::f64::consts::LN_2);
        let l = self.sub(l, ln2);
        let large = self.add(a, l);
        let one = self.constant(1.0);
        self.select(Test::Less, (z, one), small, large)
    }
    /// -1, 0 or 1 (NaN for NaN).
    #[inline(always)]
    fn sign(&mut self, x: Self::Float) -> Self::Float {
        let (zero, one) = (self.constant(0.0), self.constant(1.0));
        let unit = self.copy_sign(one, x);
        let r = self.select(Test::Equal, (x, zero), zero, unit);
        self.select(Test::Unordered, (x, x), x, r)
    }
    /// Error function: a polynomial below 1, `1 - e^{-x^2}` times one above.
    #[inline(always)]
    fn erf(&mut self, x: Self::Float) -> Self::Float {
        let z = self.mul(x, x);
        let p = self.either(z, &coef::ERF_32, &coef::ERF_64);
        let small = self.mul(p, x);
        // from here on it is 1
        let (far, centre) = self.pick((4.25, 2.0), (6.25, 2.5));
        let (far, centre) = (self.constant(far), self.constant(centre));
        let a = self.abs(x);
        let a = self.select(Test::Less, (far, a), far, a);
        let (numerator, denominator) = (self.sub(a, centre), self.add(a, centre));
        let u = self.div(numerator, denominator);
        let q = self.either(u, &coef::ERFC_32, &coef::ERFC_64);
        let square = self.mul(a, a);
        let square = self.neg(square);
        let gauss = self.exp_decay(square);
        let rest = self.mul(gauss, q);
        let one = self.constant(1.0);
        let large = self.sub(one, rest);
        let large = self.copy_sign(large, x);
        self.select(Test::Less, (z, one), small, large)
    }
    /// Up to which argument [`Elementary::circular`] may be used.
    #[inline(always)]
    fn circular_edge(&self) -> f64 {
        self.pick(8192.0, 1e6)
    }
    /// Sine (`quarter = 0`) or cosine (`quarter = 1`) below the edge: beyond it the
    /// reduction by three parts of pi is not exact enough.
    #[inline(always)]
    fn circular(&mut self, x: Self::Float, quarter: u64) -> Self::Float {
        let magic = self.magic();
        let scale = self.constant(std::f64::consts::FRAC_2_PI);
        let t = self.fma(x, scale, magic);
        let n = self.sub(t, magic);
        let quadrant = {
            let bits = self.as_int(t);
            let quarter = self.int_constant(quarter);
            self.int_add(bits, quarter)
        };
        let mut r = x;
        for part in self.pick(coef::HALF_PI_32, coef::HALF_PI_64) {
            let part = self.constant(-part);
            r = self.fma(n, part, r);
        }
        let z = self.mul(r, r);
        let sine = {
            let p = self.either(z, &coef::SIN_32, &coef::SIN_64);
            let p = self.mul(p, z);
            self.fma(p, r, r)
        };
        let cosine = {
            let p = self.either(z, &coef::COS_32, &coef::COS_64);
            let z2 = self.mul(z, z);
            let (half, one) = (self.constant(-0.5), self.constant(1.0));
            let head = self.fma(z, half, one);
            self.fma(p, z2, head)
        };
        let value = self.if_odd(quadrant, cosine, sine);
        let two = self.int_constant(2);
        let flip = self.and(quadrant, two);
        let flip = self.shift_up(flip, self.pick(30, 62));
        let value = self.as_int(value);
        let value = self.xor(value, flip);
        self.as_float(value)
    }
}

impl<A: Arithmetic> Elementary for A {}
