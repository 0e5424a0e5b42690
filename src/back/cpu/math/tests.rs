//! Dense tests of the emitted functions against higher precision.

use super::*;
use crate::back::cpu::jit::{Compiler, KernelCode, KernelId};
use crate::ir::{MapFn, ZipFn};
use crate::kernel::expr::{Expr, ExprNode, Leaf};

fn compile(
    node: fn(usize) -> ExprNode,
    precision: Precision,
    mut compiler: Compiler,
) -> (KernelCode, KernelId) {
    let mut expr = Expr::default();
    let x = expr.leaf(Leaf::Row);
    expr.push(node(x));
    let id = compiler.kernel(&expr, precision).unwrap();
    (compiler.finish().unwrap(), id)
}

/// Applies a function to numbers, in either precision, by inline code and as this
/// machine does it best: the same bits, except where the scalar routines take over.
fn apply<T: Copy + Default + Into<f64>>(
    node: fn(usize) -> ExprNode,
    precision: Precision,
    x: &[T],
) -> Vec<T> {
    let inline = apply_with(node, precision, x, Compiler::with(false, false).unwrap());
    let best = apply_with(node, precision, x, Compiler::new(false).unwrap());
    for ((&x, &a), &b) in x.iter().zip(&inline).zip(&best) {
        let [x, a, b] = [x, a, b].map(Into::<f64>::into);
        let alike = a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        assert!(alike || x.abs() > 1e3, "at {x:e}: {a:e} and {b:e}");
    }
    best
}

fn apply_with<T: Copy + Default>(
    node: fn(usize) -> ExprNode,
    precision: Precision,
    x: &[T],
    compiler: Compiler,
) -> Vec<T> {
    let (code, id) = compile(node, precision, compiler);
    let n = x.len().next_multiple_of(4);
    let mut arena = vec![T::default(); 2 * n];
    arena[..x.len()].copy_from_slice(x);
    let bytes = n * size_of::<T>();
    let table = [bytes as i32, 0];
    unsafe {
        code.function(id)(
            arena.as_mut_ptr().cast(),
            std::ptr::null(),
            std::ptr::null(),
            table.as_ptr(),
            1,
            bytes as i64,
        );
    }
    arena[n..n + x.len()].to_vec()
}

fn ulps(got: f32, want: f64) -> f64 {
    if want.is_nan() {
        return if got.is_nan() { 0.0 } else { f64::INFINITY };
    }
    let near = want as f32;
    if near.is_infinite() || near == got {
        return if near == got { 0.0 } else { f64::INFINITY };
    }
    let ulp = f64::from(near.abs().max(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON) / 2.0;
    let exponent = (near.abs().max(f32::MIN_POSITIVE)).to_bits() >> 23;
    let spacing =
        f64::from(f32::from_bits((exponent << 23) | 1)) - f64::from(f32::from_bits(exponent << 23));
    (f64::from(got) - want).abs() / spacing.max(ulp)
}

/// A dense grid over `[lo, hi]`, uniform and, near zero, logarithmic.
fn grid(lo: f64, hi: f64) -> Vec<f64> {
    let mut x: Vec<f64> = (0..=200_000)
        .map(|k| lo + (hi - lo) * f64::from(k) / 200_000.0)
        .collect();
    for e in -3000..=0 {
        let m = 10f64.powf(f64::from(e) / 100.0);
        x.extend([m, -m].into_iter().filter(|v| (lo..=hi).contains(v)));
    }
    x
}

const SPECIAL: [f64; 9] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
    3e38,
    -3e38,
];

fn check(name: &str, node: fn(usize) -> ExprNode, want: fn(f64) -> f64, lo: f64, hi: f64) {
    let mut x = grid(lo, hi);
    x.extend(SPECIAL);
    let single: Vec<f32> = x.iter().map(|&v| v as f32).collect();
    let got = apply(node, Precision::F32, &single);
    let mut histogram = [0usize; 5];
    for (&x, &y) in single.iter().zip(&got) {
        let e = ulps(y, want(f64::from(x)));
        assert!(
            e <= 4.0,
            "{name} f32 at {x:e}: got {y:e}, want {:e}, {e} ulp",
            want(f64::from(x))
        );
        histogram[e as usize] += 1;
    }
    assert!(
        histogram[0] + histogram[1] > single.len() / 2,
        "{name}: {histogram:?}"
    );
    let got = apply(node, Precision::F64, &x);
    for (&x, &y) in x.iter().zip(&got) {
        let w = want(x);
        let ok = if w.is_nan() {
            y.is_nan()
        } else {
            y == w || (y - w).abs() <= 1e-13 * w.abs() + 1e-300
        };
        assert!(ok, "{name} f64 at {x:e}: got {y:e}, want {w:e}");
    }
}

/// Reference without cancellation.
fn log_cosh(x: f64) -> f64 {
    let a = x.abs();
    if a > 1.0 {
        return a + ((-2.0 * a).exp().ln_1p() - std::f64::consts::LN_2);
    }
    // log cosh x = log1p(2 sinh^2(x/2))
    let s = (x / 2.0).sinh();
    (2.0 * s * s).ln_1p()
}

/// Reference with a relative error bound also far to the left.
fn sigmoid_of(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        x.exp() / (1.0 + x.exp())
    }
}

#[test]
fn exp() {
    check(
        "exp",
        |a| ExprNode::Map(MapFn::Exp, a),
        f64::exp,
        -105.0,
        90.0,
    );
}

#[test]
fn log() {
    check("log", |a| ExprNode::Map(MapFn::Log, a), f64::ln, -1.0, 40.0);
    check("log", |a| ExprNode::Map(MapFn::Log, a), f64::ln, 0.0, 1e30);
}

#[test]
fn log1p() {
    check(
        "log1p",
        |a| ExprNode::Map(MapFn::Log1p, a),
        f64::ln_1p,
        -1.5,
        40.0,
    );
}

#[test]
fn tanh() {
    check(
        "tanh",
        |a| ExprNode::Map(MapFn::Tanh, a),
        f64::tanh,
        -30.0,
        30.0,
    );
}

#[test]
fn sigmoids() {
    check("sigmoid", ExprNode::Sigmoid, sigmoid_of, -110.0, 110.0);
}

#[test]
fn log_cosh_everywhere() {
    check(
        "log_cosh",
        |a| ExprNode::Map(MapFn::LogCosh, a),
        log_cosh,
        -60.0,
        60.0,
    );
}

#[test]
fn sign() {
    let got = apply(
        |a| ExprNode::Map(MapFn::Sign, a),
        Precision::F64,
        &[2.0, -3.0, 0.0, f64::NAN],
    );
    assert_eq!(got[..3], [1.0, -1.0, 0.0]);
    assert!(got[3].is_nan());
}

/// Near a zero of the function the error is bounded relative to one, as for
/// any reduction by a finite pi; elsewhere in ulp.
#[test]
fn circular_functions() {
    for (node, want) in [
        (
            (|a| ExprNode::Map(MapFn::Sin, a)) as fn(usize) -> ExprNode,
            f64::sin as fn(f64) -> f64,
        ),
        (|a| ExprNode::Map(MapFn::Cos, a), f64::cos),
    ] {
        for (lo, hi) in [(-20.0, 20.0), (-9000.0, 9000.0), (-2e6, 2e6), (-1e30, 1e30)] {
            let x = grid(lo, hi);
            let single: Vec<f32> = x.iter().map(|&v| v as f32).collect();
            for (&x, &y) in single.iter().zip(&apply(node, Precision::F32, &single)) {
                assert!(
                    ulps(y, want(f64::from(x))) <= 4.0
                        || (f64::from(y) - want(f64::from(x))).abs() < 1e-9,
                    "at {x:e}: {y:e}"
                );
            }
            for (&x, &y) in x.iter().zip(&apply(node, Precision::F64, &x)) {
                assert!(
                    (y - want(x)).abs() <= 1e-13 * want(x).abs() + 1e-16,
                    "at {x:e}: {y:e} {:e}",
                    want(x)
                );
            }
        }
        assert!(
            apply(node, Precision::F64, &[f64::INFINITY, f64::NAN])
                .iter()
                .all(|y| y.is_nan())
        );
    }
}

#[test]
fn error_function() {
    check(
        "erf",
        |a| ExprNode::Map(MapFn::Erf, a),
        crate::interp::erf,
        -7.0,
        7.0,
    );
}

/// Expressions with functions of functions, on rows shorter and longer than what is
/// worked on together: inline code and calls on arrays give the same bits.
#[test]
fn rows_of_any_length_are_computed_alike() {
    let mut expr = Expr::default();
    let [x, y] = [Leaf::Row, Leaf::Static].map(|leaf| expr.leaf(leaf));
    let c = expr.leaf(Leaf::Scalar);
    let a = expr.push(ExprNode::Fma(x, y, c));
    let tanh = expr.push(ExprNode::Map(MapFn::Tanh, a));
    let product = expr.push(ExprNode::Zip(ZipFn::Mul, tanh, y));
    let sigmoid = expr.push(ExprNode::Sigmoid(product));
    let cosine = expr.push(ExprNode::Map(MapFn::Cos, x));
    let both = expr.push(ExprNode::Zip(ZipFn::Add, sigmoid, cosine));
    let exp = expr.push(ExprNode::Map(MapFn::Exp, both));
    expr.push(ExprNode::Zip(ZipFn::Sub, exp, tanh));
    for (rows, lanes) in [
        (0, 4),
        (1, 2),
        (3, 2),
        (70, 2),
        (5, 48),
        (3, 126),
        (2, 128),
        (2, 1000),
    ] {
        let number = |k: usize| (k as f64 * 0.37).sin() * 3.0;
        let size = rows * lanes;
        let statics: Vec<f64> = (0..size).map(|k| number(k + 7)).collect();
        let pool: Vec<f64> = (0..rows).map(|k| number(k + 3)).collect();
        let table: Vec<i32> = (0..rows)
            .flat_map(|r| {
                let row = (8 * r * lanes) as i32;
                // results from last to first
                let out = (8 * (2 * size - (r + 1) * lanes)) as i32;
                [out, row, row, 8 * r as i32]
            })
            .collect();
        let [inline, best] = [false, true].map(|best| {
            let mut compiler = match best {
                true => Compiler::new(false).unwrap(),
                false => Compiler::with(false, false).unwrap(),
            };
            let id = compiler.kernel(&expr, Precision::F64).unwrap();
            let code = compiler.finish().unwrap();
            let mut arena: Vec<f64> = (0..2 * size).map(number).collect();
            arena.extend([0.25; 4]);
            unsafe {
                code.function(id)(
                    arena.as_mut_ptr().cast(),
                    statics.as_ptr().cast(),
                    pool.as_ptr().cast(),
                    table.as_ptr(),
                    rows as i64,
                    8 * lanes as i64,
                );
            }
            arena
        });
        assert_eq!(inline, best, "{rows} rows of {lanes}");
        assert_eq!(
            best[2 * size..],
            [0.25; 4],
            "nothing behind the results is touched"
        );
        for (k, &y) in statics.iter().enumerate() {
            let (r, l) = (k / lanes, k % lanes);
            let tanh = number(k).mul_add(y, pool[r]).tanh();
            let both = sigmoid_of(tanh * y) + number(k).cos();
            let want = both.exp() - tanh;
            let got = best[2 * size - (r + 1) * lanes + l];
            assert!(
                (got - want).abs() < 1e-12,
                "row {r}, lane {l}: {got} {want}"
            );
        }
    }
}
