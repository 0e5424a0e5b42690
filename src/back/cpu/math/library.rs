//! Scalar routines called from generated code, one vector at a time.

use super::Precision;

/// A function too rare to be worth inline code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LibFn {
    /// Sine at large arguments.
    Sin,
    /// Cosine at large arguments.
    Cos,
    /// Power.
    Pow,
    /// Angle of `(second, first)`.
    Atan2,
}

impl LibFn {
    /// All of them.
    pub const ALL: [LibFn; 4] = [LibFn::Sin, LibFn::Cos, LibFn::Pow, LibFn::Atan2];

    /// The symbol generated code calls.
    pub fn symbol(self, precision: Precision) -> String {
        let name = match self {
            LibFn::Sin => "sin",
            LibFn::Cos => "cos",
            LibFn::Pow => "pow",
            LibFn::Atan2 => "atan2",
        };
        match precision {
            Precision::F32 => format!("dnet_{name}_f32x4"),
            Precision::F64 => format!("dnet_{name}_f64x2"),
        }
    }

    /// The routine `(a, b, out)` on one vector; `b` is ignored by functions of
    /// one argument.
    pub fn address(self, precision: Precision) -> *const u8 {
        match (self, precision) {
            (LibFn::Sin, Precision::F32) => sin32 as *const u8,
            (LibFn::Sin, Precision::F64) => sin64 as *const u8,
            (LibFn::Cos, Precision::F32) => cos32 as *const u8,
            (LibFn::Cos, Precision::F64) => cos64 as *const u8,
            (LibFn::Pow, Precision::F32) => pow32 as *const u8,
            (LibFn::Pow, Precision::F64) => pow64 as *const u8,
            (LibFn::Atan2, Precision::F32) => atan32 as *const u8,
            (LibFn::Atan2, Precision::F64) => atan64 as *const u8,
        }
    }
}

macro_rules! routines {
    ($($name32:ident $name64:ident $f:expr;)*) => {$(
        extern "C" fn $name32(a: &[f32; 4], b: &[f32; 4], out: &mut [f32; 4]) {
            let f: fn(f64, f64) -> f64 = $f;
            for k in 0..4 { out[k] = f(f64::from(a[k]), f64::from(b[k])) as f32; }
        }
        extern "C" fn $name64(a: &[f64; 2], b: &[f64; 2], out: &mut [f64; 2]) {
            let f: fn(f64, f64) -> f64 = $f;
            for k in 0..2 { out[k] = f(a[k], b[k]); }
        }
    )*};
}

routines! {
    sin32 sin64 |a, _| a.sin();
    cos32 cos64 |a, _| a.cos();
    pow32 pow64 f64::powf;
    atan32 atan64 f64::atan2;
}
