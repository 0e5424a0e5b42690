//! The elementary functions on arrays, with the widest vectors of this machine.
//!
//! Scalar operations without branches in loops of known length: the compiler makes
//! vectors of them.

use super::super::simd::Isa;
use super::{Arithmetic, Elementary, Precision, Test};
use crate::ir::MapFn;
use crate::kernel::expr::ExprNode;

/// A function worth being called on an array: many operations per number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wide {
    /// `e^x`
    Exp,
    /// `log x`
    Log,
    /// `log(1 + x)`
    Log1p,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `log cosh x`
    LogCosh,
    /// Error function.
    Erf,
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
}

/// `(x, count)`: replaces numbers by values of the function. Memory is that of a whole
/// number of pieces of [`PIECE`] bytes, of which all may be overwritten.
pub type Routine = unsafe extern "C" fn(*mut u8, usize);

/// Bytes that are worked on at a time.
pub const PIECE: usize = 128;

impl Wide {
    /// All of them.
    pub const ALL: [Wide; 9] = [
        Wide::Exp,
        Wide::Log,
        Wide::Log1p,
        Wide::Sigmoid,
        Wide::Tanh,
        Wide::LogCosh,
        Wide::Erf,
        Wide::Sin,
        Wide::Cos,
    ];

    /// What a node of an expression computes, and its argument.
    pub fn of(node: ExprNode) -> Option<(Wide, usize)> {
        let (f, a) = match node {
            ExprNode::Sigmoid(a) => (Wide::Sigmoid, a),
            ExprNode::Map(MapFn::Exp, a) => (Wide::Exp, a),
            ExprNode::Map(MapFn::Log, a) => (Wide::Log, a),
            ExprNode::Map(MapFn::Log1p, a) => (Wide::Log1p, a),
            ExprNode::Map(MapFn::Tanh, a) => (Wide::Tanh, a),
            ExprNode::Map(MapFn::LogCosh, a) => (Wide::LogCosh, a),
            ExprNode::Map(MapFn::Erf, a) => (Wide::Erf, a),
            ExprNode::Map(MapFn::Sin, a) => (Wide::Sin, a),
            ExprNode::Map(MapFn::Cos, a) => (Wide::Cos, a),
            _ => return None,
        };
        Some((f, a))
    }

    /// The symbol generated code calls.
    pub fn symbol(self, precision: Precision) -> String {
        format!("dnet_{self:?}_{precision:?}").to_lowercase()
    }

    /// The routine for this machine; `None` where it has no vectors wider than those
    /// of generated code.
    pub fn routine(self, precision: Precision) -> Option<Routine> {
        match Isa::detect() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(avx512::routine(self, precision)),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(avx2::routine(self, precision)),
            _ => None,
        }
    }
}

/// A number type that is computed with here.
trait Number: Copy + Default + Sized {
    type Numbers: Arithmetic<Float = Self>;
    /// Its operations.
    const NUMBERS: Self::Numbers;
    fn widened(self) -> f64;
    fn rounded(x: f64) -> Self;
}

macro_rules! numbers {
    ($numbers:ident, $f:ty, $int:ty, $precision:expr) => {
        #[derive(Clone, Copy)]
        struct $numbers;

        impl Number for $f {
            type Numbers = $numbers;
            const NUMBERS: $numbers = $numbers;
            #[inline(always)]
            fn widened(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn rounded(x: f64) -> $f {
                x as $f
            }
        }

        impl Arithmetic for $numbers {
            type Float = $f;
            type Int = $int;
            #[inline(always)]
            fn precision(&self) -> Precision {
                $precision
            }
            #[inline(always)]
            fn constant(&mut self, x: f64) -> $f {
                x as $f
            }
            #[inline(always)]
            fn int_constant(&mut self, bits: u64) -> $int {
                bits as $int
            }
            #[inline(always)]
            fn as_int(&mut self, x: $f) -> $int {
                x.to_bits()
            }
            #[inline(always)]
            fn as_float(&mut self, bits: $int) -> $f {
                <$f>::from_bits(bits)
            }
            #[inline(always)]
            fn add(&mut self, a: $f, b: $f) -> $f {
                a + b
            }
            #[inline(always)]
            fn sub(&mut self, a: $f, b: $f) -> $f {
                a - b
            }
            #[inline(always)]
            fn mul(&mut self, a: $f, b: $f) -> $f {
                a * b
            }
            #[inline(always)]
            fn div(&mut self, a: $f, b: $f) -> $f {
                a / b
            }
            #[inline(always)]
            fn fma(&mut self, a: $f, b: $f, c: $f) -> $f {
                a.mul_add(b, c)
            }
            #[inline(always)]
            fn abs(&mut self, x: $f) -> $f {
                x.abs()
            }
            #[inline(always)]
            fn neg(&mut self, x: $f) -> $f {
                -x
            }
            #[inline(always)]
            fn select(&mut self, test: Test, (a, b): ($f, $f), x: $f, y: $f) -> $f {
                let holds = match test {
                    Test::Less => a < b,
                    Test::Greater => a > b,
                    Test::Equal => a == b,
                    Test::Unordered => a.is_nan() | b.is_nan(),
                    Test::LessOrUnordered => (a < b) | a.is_nan() | b.is_nan(),
                };
                if holds { x } else { y }
            }
            #[inline(always)]
            fn if_odd(&mut self, n: $int, x: $f, y: $f) -> $f {
                if n & 1 == 1 { x } else { y }
            }
            #[inline(always)]
            fn int_add(&mut self, a: $int, b: $int) -> $int {
                a.wrapping_add(b)
            }
            #[inline(always)]
            fn and(&mut self, a: $int, b: $int) -> $int {
                a & b
            }
            #[inline(always)]
            fn or(&mut self, a: $int, b: $int) -> $int {
                a | b
            }
            #[inline(always)]
            fn xor(&mut self, a: $int, b: $int) -> $int {
                a ^ b
            }
            #[inline(always)]
            fn shift_up(&mut self, a: $int, places: u32) -> $int {
                a << places
            }
            #[inline(always)]
            fn shift_down(&mut self, a: $int, places: u32) -> $int {
                a >> places
            }
        }
    };
}

numbers!(Single, f32, u32, Precision::F32);
numbers!(Double, f64, u64, Precision::F64);

/// What replaces the values of a function at arguments beyond an edge.
struct Beyond {
    edge: f64,
    exact: fn(f64) -> f64,
}

/// Applies a function piece by piece.
///
/// # Safety
/// As [`Routine`].
#[inline(always)]
unsafe fn apply<T: Number, const LANES: usize>(
    x: *mut u8,
    count: usize,
    f: impl Fn(&mut T::Numbers, T) -> T,
    beyond: &[Beyond],
) {
    const { assert!(LANES * size_of::<T>() == PIECE) }
    let pieces = x.cast::<[T; LANES]>();
    for k in 0..count.div_ceil(LANES) {
        // SAFETY: so many pieces are there; any alignment will do.
        let x = unsafe { pieces.add(k).read_unaligned() };
        let mut y = [T::default(); LANES];
        for (y, &x) in y.iter_mut().zip(&x) {
            *y = f(&mut { T::NUMBERS }, x);
        }
        for &Beyond { edge, exact } in beyond {
            // what follows the last number is none
            let own = (count - k * LANES).min(LANES);
            for (y, x) in y.iter_mut().zip(x).take(own) {
                let x = x.widened();
                if x.abs() > edge || x.is_nan() {
                    *y = T::rounded(exact(x));
                }
            }
        }
        unsafe { pieces.add(k).write_unaligned(y) };
    }
}

macro_rules! vectors {
    ($module:ident, $features:literal) => {
        #[cfg(target_arch = "x86_64")]
        mod $module {
            use super::*;

            vectors!(@functions $features,
                exp(|a, x| a.exp(x)),
                log(|a, x| a.log(x)),
                log1p(|a, x| a.log1p(x)),
                sigmoid(|a, x| a.sigmoid(x)),
                tanh(|a, x| a.tanh(x)),
                log_cosh(|a, x| a.log_cosh(x)),
                erf(|a, x| a.erf(x)),
                sin(|a, x| a.circular(x, 0), f64::sin),
                cos(|a, x| a.circular(x, 1), f64::cos),
            );

            /// The routine.
            pub(super) fn routine(f: Wide, precision: Precision) -> Routine {
                macro_rules! either {
                    ($name:ident) => {
                        match precision {
                            Precision::F32 => $name::<f32, { PIECE / 4 }>,
                            Precision::F64 => $name::<f64, { PIECE / 8 }>,
                        }
                    };
                }
                match f {
                    Wide::Exp => either!(exp),
                    Wide::Log => either!(log),
                    Wide::Log1p => either!(log1p),
                    Wide::Sigmoid => either!(sigmoid),
                    Wide::Tanh => either!(tanh),
                    Wide::LogCosh => either!(log_cosh),
                    Wide::Erf => either!(erf),
                    Wide::Sin => either!(sin),
                    Wide::Cos => either!(cos),
                }
            }
        }
    };
    (@functions $features:literal, $($name:ident($f:expr $(, $exact:expr)?),)*) => {$(
        /// # Safety
        /// As [`Routine`], on machines with these vectors.
        #[target_feature(enable = $features)]
        unsafe extern "C" fn $name<T: Number, const LANES: usize>(x: *mut u8, count: usize) {
            let beyond: &[Beyond] =
                &[$(Beyond { edge: T::NUMBERS.circular_edge(), exact: $exact })?];
            unsafe { apply::<T, LANES>(x, count, $f, beyond) }
        }
    )*};
}

vectors!(avx512, "avx512f,avx512vl,fma");
vectors!(avx2, "avx2,fma");
