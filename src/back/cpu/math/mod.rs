//! Elementary functions on vectors.
//!
//! [`Elementary`] has the algorithms. [`Lanes`] appends their straight-line Cranelift
//! code for one 128-bit vector, of four `f32` or two `f64`, which is all that
//! Cranelift knows; [`wide`] performs the same operations on the widest vectors of
//! this machine, to the same bits. Arguments of sine and cosine beyond the range of
//! the three-part reduction, and the rare functions (`pow`, `atan2`), call the scalar
//! routines of [`library`].

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::immediates::Ieee32;
use cranelift_codegen::ir::{
    ConstantData, Endianness, FuncRef, InstBuilder, MemFlagsData, StackSlotData, StackSlotKind,
    Type, Value, types,
};
use cranelift_frontend::FunctionBuilder;
use std::collections::BTreeMap;

mod coefficients;
mod functions;
pub mod library;
#[cfg(test)]
mod tests;
pub mod wide;

pub use functions::{Arithmetic, Elementary, Test};
pub use library::LibFn;
pub use wide::Wide;

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
        self.pick(types::F32X4, types::F64X2)
    }
    fn int_ty(&self) -> Type {
        self.pick(types::I32X4, types::I64X2)
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
    fn cast(&mut self, ty: Type, v: Value) -> Value {
        self.b.ins().bitcast(
            ty,
            MemFlagsData::new().with_endianness(Endianness::Little),
            v,
        )
    }
    /// `sin x`.
    pub fn sin(&mut self, x: Value) -> Value {
        let fast = self.circular(x, 0);
        self.beyond_edge(x, fast, LibFn::Sin)
    }
    /// `cos x`.
    pub fn cos(&mut self, x: Value) -> Value {
        let fast = self.circular(x, 1);
        self.beyond_edge(x, fast, LibFn::Cos)
    }
    /// Replaces values where one of the arguments is too large for them.
    fn beyond_edge(&mut self, x: Value, fast: Value, slow: LibFn) -> Value {
        let a = self.abs(x);
        let edge = self.constant(self.circular_edge());
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

impl Arithmetic for Lanes<'_, '_> {
    type Float = Value;
    type Int = Value;

    fn precision(&self) -> Precision {
        self.precision
    }
    fn constant(&mut self, x: f64) -> Value {
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
    fn as_int(&mut self, x: Value) -> Value {
        let ty = self.int_ty();
        self.cast(ty, x)
    }
    fn as_float(&mut self, bits: Value) -> Value {
        let ty = self.ty();
        self.cast(ty, bits)
    }
    fn add(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().fadd(a, b)
    }
    fn sub(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().fsub(a, b)
    }
    fn mul(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().fmul(a, b)
    }
    fn div(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().fdiv(a, b)
    }
    fn fma(&mut self, a: Value, b: Value, c: Value) -> Value {
        self.b.ins().fma(a, b, c)
    }
    fn abs(&mut self, x: Value) -> Value {
        self.b.ins().fabs(x)
    }
    fn neg(&mut self, x: Value) -> Value {
        self.b.ins().fneg(x)
    }
    fn select(&mut self, test: Test, (a, b): (Value, Value), x: Value, y: Value) -> Value {
        let condition = match test {
            Test::Less => FloatCC::LessThan,
            Test::Greater => FloatCC::GreaterThan,
            Test::Equal => FloatCC::Equal,
            Test::Unordered => FloatCC::Unordered,
            Test::LessOrUnordered => FloatCC::UnorderedOrLessThan,
        };
        let mask = self.b.ins().fcmp(condition, a, b);
        let mask = self.as_float(mask);
        self.b.ins().bitselect(mask, x, y)
    }
    fn if_odd(&mut self, n: Value, x: Value, y: Value) -> Value {
        let one = self.int_constant(1);
        let odd = self.and(n, one);
        let odd = self.b.ins().icmp(IntCC::Equal, odd, one);
        let odd = self.as_float(odd);
        self.b.ins().bitselect(odd, x, y)
    }
    fn int_add(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().iadd(a, b)
    }
    fn and(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().band(a, b)
    }
    fn or(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().bor(a, b)
    }
    fn xor(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().bxor(a, b)
    }
    fn shift_up(&mut self, a: Value, places: u32) -> Value {
        self.b.ins().ishl_imm_u(a, i64::from(places))
    }
    fn shift_down(&mut self, a: Value, places: u32) -> Value {
        self.b.ins().ushr_imm_u(a, i64::from(places))
    }
}
