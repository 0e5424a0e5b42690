//! Elementary functions on 128-bit vectors, emitted inline.
//!
//! [`Lanes`] appends straight-line Cranelift code for one vector of four `f32`
//! or two `f64`. Errors, tested densely against a higher precision: at most 4
//! ulp in `f32`, at most 1e-13 relative in `f64`; infinities, NaN, signed zeros
//! of odd functions and overflow behave as in the standard library. Arguments of
//! sine and cosine beyond the range of the three-part reduction, and the rare
//! functions (`erf`, `pow`, `atan2`), call the scalar routines of [`library`].

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::immediates::Ieee32;
use cranelift_codegen::ir::{
    ConstantData, Endianness, FuncRef, InstBuilder, MemFlagsData, StackSlotData, StackSlotKind,
    Type, Value, types,
};
use cranelift_frontend::FunctionBuilder;
use std::collections::BTreeMap;

mod coefficients;
pub mod library;
#[cfg(test)]
mod tests;

use coefficients as coef;
pub use library::LibFn;

/// Working precision of a piece of generated code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Precision {
    /// Four lanes of `f32`.
    F32,
    /// Two lanes of `f64`.
    F64,
}

impl Precision {
    /// Bytes per number.
    pub fn bytes(self) -> usize {
        match self {
            Precision::F32 => 4,
            Precision::F64 => 8,
        }
    }
    /// Numbers per 128-bit vector.
    pub fn lanes(self) -> usize {
        16 / self.bytes()
    }
}

/// Appends vector code to a function under construction.
pub struct Lanes<'a, 'f> {
    /// The function.
    pub b: &'a mut FunctionBuilder<'f>,
    /// Element type of every value.
    pub precision: Precision,
    /// Scalar routines declared in this function.
    pub libs: &'a BTreeMap<LibFn, FuncRef>,
}

impl Lanes<'_, '_> {
    /// The vector type.
    pub fn ty(&self) -> Type {
        match self.precision {
            Precision::F32 => types::F32X4,
            Precision::F64 => types::F64X2,
        }
    }
    fn int_ty(&self) -> Type {
        match self.precision {
            Precision::F32 => types::I32X4,
            Precision::F64 => types::I64X2,
        }
    }
    fn mantissa_bits(&self) -> i64 {
        match self.precision {
            Precision::F32 => 23,
            Precision::F64 => 52,
        }
    }
    /// The number whose sum with a small integer shows it in the low mantissa bits.
    fn magic(&self) -> f64 {
        match self.precision {
            Precision::F32 => 12_582_912.0,
            Precision::F64 => 6_755_399_441_055_744.0,
        }
    }
    fn bias(&self) -> f64 {
        match self.precision {
            Precision::F32 => 127.0,
            Precision::F64 => 1023.0,
        }
    }
    /// Picks the constant for the precision.
    fn pick<T>(&self, single: T, double: T) -> T {
        match self.precision {
            Precision::F32 => single,
            Precision::F64 => double,
        }
    }
    fn raw(&mut self, bits: u64, ty: Type) -> Value {
        let mut bytes = Vec::with_capacity(16);
        match self.precision {
            Precision::F32 => {
                (0..4).for_each(|_| bytes.extend_from_slice(&(bits as u32).to_le_bytes()))
            }
            Precision::F64 => (0..2).for_each(|_| bytes.extend_from_slice(&bits.to_le_bytes())),
        }
        let data = self
            .b
            .func
            .dfg
            .constants
            .insert(ConstantData::from(bytes.as_slice()));
        self.b.ins().vconst(ty, data)
    }
    /// The number `x` in every lane.
    pub fn constant(&mut self, x: f64) -> Value {
        let ty = self.ty();
        let bits = match self.precision {
            Precision::F32 => u64::from(Ieee32::with_float(x as f32).bits()),
            Precision::F64 => x.to_bits(),
        };
        self.raw(bits, ty)
    }
    fn int_constant(&mut self, bits: u64) -> Value {
        let ty = self.int_ty();
        self.raw(bits, ty)
    }
    fn cast(&mut self, ty: Type, v: Value) -> Value {
        self.b.ins().bitcast(
            ty,
            MemFlagsData::new().with_endianness(Endianness::Little),
            v,
        )
    }
    fn as_int(&mut self, v: Value) -> Value {
        let ty = self.int_ty();
        self.cast(ty, v)
    }
    fn as_float(&mut self, v: Value) -> Value {
        let ty = self.ty();
        self.cast(ty, v)
    }
    /// `a + b`.
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().fadd(a, b)
    }
    /// `a - b`.
    pub fn sub(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().fsub(a, b)
    }
    /// `a b`.
    pub fn mul(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().fmul(a, b)
    }
    /// `a / b`.
    pub fn div(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().fdiv(a, b)
    }
    /// `a b + c`, rounded once.
    pub fn fma(&mut self, a: Value, b: Value, c: Value) -> Value {
        self.b.ins().fma(a, b, c)
    }
    /// `|x|`.
    pub fn abs(&mut self, x: Value) -> Value {
        self.b.ins().fabs(x)
    }
    /// `-x`.
    pub fn neg(&mut self, x: Value) -> Value {
        self.b.ins().fneg(x)
    }
    fn mul_const(&mut self, x: Value, c: f64) -> Value {
        let c = self.constant(c);
        self.mul(x, c)
    }
    /// `if a (cc) b { x } else { y }`, lane by lane.
    pub fn select(&mut self, cc: FloatCC, (a, b): (Value, Value), x: Value, y: Value) -> Value {
        let mask = self.b.ins().fcmp(cc, a, b);
        let mask = self.as_float(mask);
        self.b.ins().bitselect(mask, x, y)
    }
    /// Horner's rule, coefficients from the constant term up.
    fn poly(&mut self, x: Value, coefficients: &[f64]) -> Value {
        let (last, rest) = coefficients
            .split_last()
            .expect("a polynomial has a coefficient");
        let mut acc = self.constant(*last);
        for &c in rest.iter().rev() {
            let c = self.constant(c);
            acc = self.fma(acc, x, c);
        }
        acc
    }
    /// `2^n` for integral `n` inside the normal exponent range.
    fn pow2(&mut self, n: Value) -> Value {
        let shift = self.constant(self.magic() + self.bias());
        let t = self.add(n, shift);
        let t = self.as_int(t);
        let bits = self.mantissa_bits();
        let t = self.b.ins().ishl_imm_u(t, bits);
        self.as_float(t)
    }
    /// Nearest integer of a small number, as a number.
    fn round(&mut self, x: Value) -> Value {
        let magic = self.constant(self.magic());
        let t = self.add(x, magic);
        self.sub(t, magic)
    }
    /// `exp(r)` and `n` with `x = n log 2 + r`.
    fn exp_parts(&mut self, x: Value) -> (Value, Value) {
        let magic = self.constant(self.magic());
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
        (self.poly(r, self.pick(&coef::EXP_32, &coef::EXP_64)), n)
    }
    /// `e^x`; overflows to infinity, underflows gradually.
    pub fn exp(&mut self, x: Value) -> Value {
        let (lo, hi) = self.pick((-104.0, 89.0), (-746.0, 710.0));
        let (lo, hi) = (self.constant(lo), self.constant(hi));
        let x = self.select(FloatCC::LessThan, (x, lo), lo, x);
        let x = self.select(FloatCC::LessThan, (hi, x), hi, x);
        let (p, n) = self.exp_parts(x);
        let half = self.mul_const(n, 0.5);
        let first = self.round(half);
        let second = self.sub(n, first);
        let (first, second) = (self.pow2(first), self.pow2(second));
        let p = self.mul(p, first);
        self.mul(p, second)
    }
    /// `e^x` for `x <= 0` where a result below the normal range may be any
    /// number that small.
    fn exp_decay(&mut self, x: Value) -> Value {
        let lo = self.constant(self.pick(-87.0, -708.0));
        let x = self.select(FloatCC::LessThan, (x, lo), lo, x);
        let (p, n) = self.exp_parts(x);
        let scale = self.pow2(n);
        self.mul(p, scale)
    }
    /// `log x`; -inf at 0, NaN below.
    pub fn log(&mut self, x: Value) -> Value {
        let (tiny, up, exponent) = self.pick(
            (f64::from(f32::MIN_POSITIVE), 16_777_216.0, -24.0),
            (f64::MIN_POSITIVE, 1.801_439_850_948_198_4e16, -54.0),
        );
        let (tiny, zero, exponent) = (
            self.constant(tiny),
            self.constant(0.0),
            self.constant(exponent),
        );
        let scaled = self.mul_const(x, up);
        let y = self.select(FloatCC::LessThan, (x, tiny), scaled, x);
        let shift = self.select(FloatCC::LessThan, (x, tiny), exponent, zero);
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
        let bits = self.b.ins().iadd(bits, offset);
        let width = self.mantissa_bits();
        let k = self.b.ins().ushr_imm_u(bits, width);
        let k = {
            let carrier = self.int_constant(exponent_one);
            let k = self.b.ins().bor(k, carrier);
            let k = self.as_float(k);
            let base =
                self.constant(self.pick(8_388_608.0 + 127.0, 4_503_599_627_370_496.0 + 1023.0));
            let k = self.sub(k, base);
            self.add(k, shift)
        };
        let m = {
            let mask = self.int_constant(mask);
            let root = self.int_constant(root_half);
            let m = self.b.ins().band(bits, mask);
            let m = self.b.ins().iadd(m, root);
            self.as_float(m)
        };
        let unit = self.constant(1.0);
        let f = self.sub(m, unit);
        let two = self.constant(2.0);
        let denominator = self.add(f, two);
        let s = self.div(f, denominator);
        let z = self.mul(s, s);
        let p = self.poly(z, self.pick(&coef::LOG_32, &coef::LOG_64));
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
        let r = self.select(FloatCC::Equal, (x, inf), inf, r);
        let r = self.select(FloatCC::Equal, (x, zero), minus_inf, r);
        self.select(FloatCC::UnorderedOrLessThan, (x, zero), nan, r)
    }
    /// `log(1 + x)`; -inf at -1, NaN below.
    pub fn log1p(&mut self, x: Value) -> Value {
        let one = self.constant(1.0);
        let u = self.add(x, one);
        let log = self.log(u);
        let back = self.sub(u, one);
        let lost = self.sub(x, back);
        let lost = self.div(lost, u);
        let r = self.add(log, lost);
        let (inf, minus_one) = (self.constant(f64::INFINITY), self.constant(-1.0));
        let r = self.select(FloatCC::Equal, (x, inf), inf, r);
        // below -1 the sum is NaN already; signed zero stays
        let r = self.select(FloatCC::Equal, (x, minus_one), log, r);
        self.select(FloatCC::Equal, (u, one), x, r)
    }
    /// `log(1 + e)` for `0 <= e <= 1`.
    fn log1p_unit(&mut self, e: Value) -> Value {
        let two = self.constant(2.0);
        let denominator = self.add(e, two);
        let s = self.div(e, denominator);
        let z = self.mul(s, s);
        let p = self.poly(z, self.pick(&coef::LOG1P_32, &coef::LOG1P_64));
        let p = self.mul(p, z);
        let p = self.fma(p, s, s);
        self.add(p, p)
    }
    /// `1 / (1 + e^-x)`.
    pub fn sigmoid(&mut self, x: Value) -> Value {
        let a = self.abs(x);
        let a = self.neg(a);
        let e = self.exp(a);
        let (one, zero) = (self.constant(1.0), self.constant(0.0));
        let numerator = self.select(FloatCC::LessThan, (x, zero), e, one);
        let denominator = self.add(e, one);
        self.div(numerator, denominator)
    }
    /// `tanh x`.
    pub fn tanh(&mut self, x: Value) -> Value {
        let z = self.mul(x, x);
        let p = self.poly(z, self.pick(&coef::TANH_32, &coef::TANH_64));
        let p = self.mul(p, z);
        let small = self.fma(p, x, x);
        let a = self.abs(x);
        let e = self.mul_const(a, -2.0);
        let e = self.exp_decay(e);
        let one = self.constant(1.0);
        let (numerator, denominator) = (self.sub(one, e), self.add(one, e));
        let large = self.div(numerator, denominator);
        let large = self.copy_sign(large, x);
        let edge = self.constant(0.4);
        self.select(FloatCC::LessThan, (z, edge), small, large)
    }
    fn copy_sign(&mut self, magnitude: Value, sign: Value) -> Value {
        let bit = self.int_constant(self.pick(0x8000_0000, 0x8000_0000_0000_0000));
        let (m, s) = (self.as_int(magnitude), self.as_int(sign));
        let s = self.b.ins().band(s, bit);
        let r = self.b.ins().bor(m, s);
        self.as_float(r)
    }
    /// `log cosh x`, relative error small also near 0.
    pub fn log_cosh(&mut self, x: Value) -> Value {
        let z = self.mul(x, x);
        let p = self.poly(z, self.pick(&coef::LOG_COSH_32, &coef::LOG_COSH_64));
        let small = self.mul(p, z);
        let a = self.abs(x);
        let e = self.mul_const(a, -2.0);
        let e = self.exp_decay(e);
        let l = self.log1p_unit(e);
        let ln2 = self.constant(std::f64::consts::LN_2);
        let l = self.sub(l, ln2);
        let large = self.add(a, l);
        let one = self.constant(1.0);
        self.select(FloatCC::LessThan, (z, one), small, large)
    }
    /// -1, 0 or 1 (NaN for NaN).
    pub fn sign(&mut self, x: Value) -> Value {
        let (zero, one) = (self.constant(0.0), self.constant(1.0));
        let unit = self.copy_sign(one, x);
        let r = self.select(FloatCC::Equal, (x, zero), zero, unit);
        self.select(FloatCC::Unordered, (x, x), x, r)
    }
    /// Sine (`quarter = 0`) or cosine (`quarter = 1`).
    fn circular(&mut self, x: Value, quarter: u64, slow: LibFn) -> Value {
        let magic = self.constant(self.magic());
        let scale = self.constant(std::f64::consts::FRAC_2_PI);
        let t = self.fma(x, scale, magic);
        let n = self.sub(t, magic);
        let quadrant = {
            let bits = self.as_int(t);
            let quarter = self.int_constant(quarter);
            self.b.ins().iadd(bits, quarter)
        };
        let mut r = x;
        for part in self.pick(coef::HALF_PI_32, coef::HALF_PI_64) {
            let part = self.constant(-part);
            r = self.fma(n, part, r);
        }
        let z = self.mul(r, r);
        let sine = {
            let p = self.poly(z, self.pick(&coef::SIN_32, &coef::SIN_64));
            let p = self.mul(p, z);
            self.fma(p, r, r)
        };
        let cosine = {
            let p = self.poly(z, self.pick(&coef::COS_32, &coef::COS_64));
            let z2 = self.mul(z, z);
            let (half, one) = (self.constant(-0.5), self.constant(1.0));
            let head = self.fma(z, half, one);
            self.fma(p, z2, head)
        };
        let one = self.int_constant(1);
        let odd = self.b.ins().band(quadrant, one);
        let odd = self.b.ins().icmp(IntCC::Equal, odd, one);
        let odd = self.as_float(odd);
        let value = self.b.ins().bitselect(odd, cosine, sine);
        let two = self.int_constant(2);
        let flip = self.b.ins().band(quadrant, two);
        let distance = self.pick(30, 62);
        let flip = self.b.ins().ishl_imm_u(flip, distance);
        let value = self.as_int(value);
        let value = self.b.ins().bxor(value, flip);
        let fast = self.as_float(value);
        let a = self.abs(x);
        let edge = self.constant(self.pick(8192.0, 1e6));
        let beyond = self.b.ins().fcmp(FloatCC::UnorderedOrGreaterThan, a, edge);
        let any = self.b.ins().vany_true(beyond);
        let (rare, join) = (self.b.create_block(), self.b.create_block());
        let ty = self.ty();
        let result = self.b.append_block_param(join, ty);
        self.b.set_cold_block(rare);
        self.b.ins().brif(any, rare, &[], join, &[fast.into()]);
        self.b.switch_to_block(rare);
        self.b.seal_block(rare);
        let exact = self.library(slow, &[x]);
        self.b.ins().jump(join, &[exact.into()]);
        self.b.switch_to_block(join);
        self.b.seal_block(join);
        result
    }
    /// `sin x`.
    pub fn sin(&mut self, x: Value) -> Value {
        self.circular(x, 0, LibFn::Sin)
    }
    /// `cos x`.
    pub fn cos(&mut self, x: Value) -> Value {
        self.circular(x, 1, LibFn::Cos)
    }
    /// Calls a scalar routine on every lane.
    ///
    /// # Panics
    /// If the routine was not declared in this function (a compiler bug).
    pub fn library(&mut self, f: LibFn, args: &[Value]) -> Value {
        let callee = self.libs[&f];
        let address = |b: &mut FunctionBuilder| {
            let slot =
                b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, 16, 4));
            b.ins().stack_addr(types::I64, slot, 0)
        };
        let flags = MemFlagsData::trusted();
        let mut operands = Vec::with_capacity(3);
        for k in 0..2 {
            let p = address(self.b);
            self.b.ins().store(flags, args[k.min(args.len() - 1)], p, 0);
            operands.push(p);
        }
        let out = address(self.b);
        operands.push(out);
        self.b.ins().call(callee, &operands);
        let ty = self.ty();
        self.b.ins().load(ty, flags, out, 0)
    }
}
