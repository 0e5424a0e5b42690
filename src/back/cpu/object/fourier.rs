//! Fourier transforms inside an object file.
//!
//! Stockham's algorithm with radices 2 to 5, as in `back::cpu::fft`, as code of the
//! object: element k of as many transforms as a vector has lanes is one vector, with
//! real and imaginary parts in separate planes. Lengths with other prime factors
//! are padded, so that a ring becomes a sum over all displacements of two sites.

use super::super::jit::JitError;
use super::super::math::Precision;
use super::super::mixer::smooth;
use super::routines::{Code, Defined, define, local, vector};
use super::{Argument, Data};
use crate::ir::Boundary;
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_module::FuncId;
use cranelift_object::ObjectModule;
use std::f64::consts::TAU;

const RADICES: [usize; 4] = [4, 5, 3, 2];

/// Sites from which on transforms are less work than direct sums.
pub(super) const LEAST: usize = 48;

/// A transform of a (padded) lattice: one pass after the other.
pub(super) struct Transform {
    /// Lines, and elements of a line: contiguous.
    pub(super) size: [usize; 2],
    /// Routine by number of the radix, shape, twiddles.
    passes: Vec<(usize, Argument, Argument)>,
}

/// Elements per axis that sums over all pairs of `extent` sites need.
pub(super) fn padded(extent: [usize; 2], boundary: Boundary) -> [usize; 2] {
    extent.map(|n| {
        if n == 1 || (boundary == Boundary::Periodic && smooth(n) == n) {
            n
        } else {
            smooth(2 * n - 1)
        }
    })
}

/// Where a displacement between two sites lies on a padded axis: once, or twice
/// where a ring has been unrolled.
pub(super) fn places(d: i64, n: usize, padded: usize, boundary: Boundary) -> Vec<usize> {
    let (m, own) = (padded as i64, n as i64);
    let wraps = boundary == Boundary::Periodic && padded != n;
    let all = if wraps && d != 0 {
        vec![d.rem_euclid(own), d.rem_euclid(own) - own]
    } else {
        vec![d]
    };
    all.into_iter().map(|d| d.rem_euclid(m) as usize).collect()
}

impl Transform {
    pub(super) fn new(size: [usize; 2], precision: Precision, tables: &mut Data) -> Transform {
        let mut passes = Vec::new();
        let total = size[0] * size[1];
        for (axis, &n) in size.iter().enumerate() {
            // along a line: one line after the other; across: all elements of a line at once
            let (lines, length, mut stride) = match axis {
                0 => (1, total, size[1]),
                _ => (size[0], size[1], 1),
            };
            let mut left = n;
            for (number, radix) in RADICES.into_iter().enumerate() {
                while left > 1 && left.is_multiple_of(radix) {
                    let count = left / radix;
                    let shape = [lines, 16 * length, count, stride, length / radix];
                    let twiddles = (0..count).flat_map(|p| (1..radix).map(move |j| p * j));
                    let twiddles = twiddles.flat_map(|turn| {
                        let angle = -TAU * turn as f64 / left as f64;
                        [angle.cos(), angle.sin()]
                    });
                    let twiddles = tables.numbers(precision, twiddles);
                    passes.push((number, tables.words(&shape), twiddles));
                    stride *= radix;
                    left = count;
                }
            }
        }
        Transform { size, passes }
    }

    /// The calls of a transform of the planes `x`, with `other` as working memory;
    /// where the result is. Exchange real and imaginary planes on both sides for the
    /// unnormalised inverse.
    pub(super) fn run(
        &self,
        routines: &[FuncId; 4],
        x: [i64; 2],
        other: [i64; 2],
        call: &mut dyn FnMut(FuncId, Vec<Argument>),
    ) -> [i64; 2] {
        let (mut from, mut to) = (x, other);
        for &(radix, shape, twiddles) in &self.passes {
            let planes = from.into_iter().chain(to).map(Argument::Arena);
            call(routines[radix], planes.chain([shape, twiddles]).collect());
            (from, to) = (to, from);
        }
        from
    }
}

/// A pass for every radix: `(from re, from im, to re, to im, shape, twiddles)`.
pub(super) fn passes(module: &mut ObjectModule, p: Precision) -> Result<[FuncId; 4], JitError> {
    let mut made = Vec::new();
    for radix in RADICES {
        made.push(pass(module, p, radix)?);
    }
    Ok([made[0], made[1], made[2], made[3]])
}

fn pass(module: &mut ObjectModule, p: Precision, radix: usize) -> Defined {
    let name = format!("pass_{radix}");
    define(module, local(&name), (6, None), |_, c, given| {
        let &[from_re, from_im, to_re, to_im, shape, twiddles] = given else {
            unreachable!("six arguments")
        };
        let [lines, line, count, stride, apart] = [0, 1, 2, 3, 4].map(|k| c.word(shape, k));
        let size = p.bytes() as i64;
        c.for_each(lines, |c, l| {
            let skip = c.b.ins().imul(l, line);
            let planes = [from_re, from_im, to_re, to_im].map(|plane| c.add(plane, skip));
            c.for_each(count, |c, k| {
                let first = c.b.ins().imul_imm_s(k, 2 * (radix as i64 - 1));
                let twiddle = c.at(twiddles, first, size);
                // c, s and -s for every result but the first
                let turns: Vec<[Value; 3]> = (1..radix as i64)
                    .map(|j| {
                        let [re, im] = [0, 1].map(|part| {
                            let at = c.b.ins().iadd_imm_s(twiddle, (2 * (j - 1) + part) * size);
                            let x = c.load(super::routines::scalar(p), at);
                            c.b.ins().splat(vector(p), x)
                        });
                        let minus = c.b.ins().fneg(im);
                        [re, im, minus]
                    })
                    .collect();
                let source = c.b.ins().imul(k, stride);
                let target = c.b.ins().imul_imm_s(source, radix as i64);
                c.for_each(stride, |c, q| {
                    let mut at = c.add(source, q);
                    let mut z = Vec::new();
                    for _ in 0..radix {
                        let number = [planes[0], planes[1]].map(|plane| {
                            let at = c.at(plane, at, 16);
                            c.load(vector(p), at)
                        });
                        z.push(number);
                        at = c.add(at, apart);
                    }
                    let z = butterfly(c, p, &z);
                    let mut at = c.add(target, q);
                    for (j, [re, im]) in z.into_iter().enumerate() {
                        let turned = match j {
                            0 => [re, im],
                            _ => {
                                let [cos, sin, minus] = turns[j - 1];
                                let a = c.b.ins().fmul(cos, re);
                                let b = c.b.ins().fmul(cos, im);
                                [c.b.ins().fma(minus, im, a), c.b.ins().fma(sin, re, b)]
                            }
                        };
                        for (x, plane) in turned.into_iter().zip([planes[2], planes[3]]) {
                            let to = c.at(plane, at, 16);
                            c.store(x, to);
                        }
                        at = c.add(at, stride);
                    }
                });
            });
        });
        None
    })
}

type Number = [Value; 2];

/// The transform of 2 to 5 numbers.
fn butterfly(c: &mut Code, p: Precision, z: &[Number]) -> Vec<Number> {
    let splat = |c: &mut Code, x: f64| {
        let x = match p {
            Precision::F32 => c.b.ins().f32const(x as f32),
            Precision::F64 => c.b.ins().f64const(x),
        };
        c.b.ins().splat(vector(p), x)
    };
    let plus = |c: &mut Code, a: Number, b: Number| [0, 1].map(|k| c.b.ins().fadd(a[k], b[k]));
    let minus = |c: &mut Code, a: Number, b: Number| [0, 1].map(|k| c.b.ins().fsub(a[k], b[k]));
    // x a + b for a real number x
    let scaled =
        |c: &mut Code, x: Value, a: Number, b: Number| [0, 1].map(|k| c.b.ins().fma(x, a[k], b[k]));
    // a - i b and a + i b
    let rotated = |c: &mut Code, a: Number, b: Number| {
        let down = [c.b.ins().fadd(a[0], b[1]), c.b.ins().fsub(a[1], b[0])];
        let up = [c.b.ins().fsub(a[0], b[1]), c.b.ins().fadd(a[1], b[0])];
        [down, up]
    };
    let zero = splat(c, 0.0);
    let zero = [zero; 2];
    match *z {
        [a, b] => vec![plus(c, a, b), minus(c, a, b)],
        [x, a, b] => {
            let (sum, difference) = (plus(c, a, b), minus(c, a, b));
            let (half, third) = (splat(c, -0.5), splat(c, (TAU / 3.0).sin()));
            let middle = scaled(c, half, sum, x);
            let turned = scaled(c, third, difference, zero);
            let [near, far] = rotated(c, middle, turned);
            vec![plus(c, x, sum), near, far]
        }
        [w, x, y, z] => {
            let (a, b) = (plus(c, w, y), minus(c, w, y));
            let (d, e) = (plus(c, x, z), minus(c, x, z));
            let [near, far] = rotated(c, b, e);
            vec![plus(c, a, d), near, minus(c, a, d), far]
        }
        [x, k1, k2, k3, k4] => {
            let (a, b) = (plus(c, k1, k4), minus(c, k1, k4));
            let (d, e) = (plus(c, k2, k3), minus(c, k2, k3));
            let circle = |c: &mut Code, turn: f64| {
                [splat(c, (TAU * turn).cos()), splat(c, (TAU * turn).sin())]
            };
            let ([c1, s1], [c2, s2]) = (circle(c, 0.2), circle(c, 0.4));
            let part = scaled(c, c2, d, x);
            let near = scaled(c, c1, a, part);
            let part = scaled(c, c1, d, x);
            let far = scaled(c, c2, a, part);
            let part = scaled(c, s2, e, zero);
            let turn = scaled(c, s1, b, part);
            let (part, other) = (scaled(c, s2, b, zero), scaled(c, s1, e, zero));
            let back = minus(c, part, other);
            let sum = plus(c, a, d);
            let [first, last] = rotated(c, near, turn);
            let [second, third] = rotated(c, far, back);
            vec![plus(c, x, sum), first, second, third, last]
        }
        _ => unreachable!("radices are 2 to 5"),
    }
}

/// What surrounds the transforms.
#[derive(Clone, Copy)]
pub(super) struct Around {
    pub(super) passes: [FuncId; 4],
    /// `(plane re, plane im, n)`: zeros.
    pub(super) clear: FuncId,
    /// `(arena, table, re, im, shape)`: rows into lanes; table: per lane the offset of
    /// the first site of the real part, then of the imaginary part.
    pub(super) load: FuncId,
    /// The reverse.
    pub(super) save: FuncId,
    /// `(x re, x im, y re, y im, symbol, n)`: y = x symbol.
    pub(super) multiply: FuncId,
    /// `(a re, a im, b re, b im, n, scale)`: a = scale a conj(b).
    pub(super) conjugate: FuncId,
    /// `(x re, x im, y re, y im, table, n)`: y = sums of four vectors of x.
    pub(super) fold: FuncId,
    /// `(x re, x im, matrix, rows, taps, y)`: y = conj(matrix) x, parts alternating.
    pub(super) reduce: FuncId,
}

impl Around {
    pub(super) fn new(module: &mut ObjectModule, p: Precision) -> Result<Around, JitError> {
        Ok(Around {
            passes: passes(module, p)?,
            clear: clear(module, p)?,
            load: lanes(module, p, false)?,
            save: lanes(module, p, true)?,
            multiply: multiply(module, p)?,
            conjugate: conjugate(module, p)?,
            fold: fold(module, p)?,
            reduce: reduce(module, p)?,
        })
    }
}

fn clear(module: &mut ObjectModule, p: Precision) -> Defined {
    define(module, local("clear_planes"), (3, None), |_, c, given| {
        let &[re, im, n] = given else {
            unreachable!("three arguments")
        };
        let zero = c.zero(vector(p));
        c.for_each(n, |c, k| {
            for plane in [re, im] {
                let to = c.at(plane, k, 16);
                c.store(zero, to);
            }
        });
        None
    })
}

fn lanes(module: &mut ObjectModule, p: Precision, save: bool) -> Defined {
    let name = if save { "from_lanes" } else { "to_lanes" };
    define(module, local(name), (5, None), |_, c, given| {
        let &[arena, table, re, im, shape] = given else {
            unreachable!("five arguments")
        };
        let (size, count) = (p.bytes() as i64, p.lanes());
        let [nx, ny, line, padded] = [0, 1, 2, 3].map(|k| c.word(shape, k));
        let zero = c.number(0);
        for (part, plane) in [re, im].into_iter().enumerate() {
            let rows: Vec<Value> = (0..count)
                .map(|lane| c.entry(arena, table, zero, (part * count + lane) as i32))
                .collect();
            c.for_each(nx, |c, x| {
                let skip = c.b.ins().imul(line, x);
                let first = c.b.ins().imul(padded, x);
                let rows: Vec<Value> = rows.iter().map(|&row| c.add(row, skip)).collect();
                c.for_each(ny, |c, y| {
                    let at = c.add(first, y);
                    let at = c.at(plane, at, 16);
                    for (lane, &row) in rows.iter().enumerate() {
                        let site = c.at(row, y, size);
                        let number = c.b.ins().iadd_imm_s(at, lane as i64 * size);
                        let (from, to) = if save { (number, site) } else { (site, number) };
                        let x = c.load(super::routines::scalar(p), from);
                        c.store(x, to);
                    }
                });
            });
        }
        None
    })
}

/// Reads the vectors `k` of two planes.
fn pair(c: &mut Code, p: Precision, planes: [Value; 2], k: Value) -> Number {
    planes.map(|plane| {
        let at = c.at(plane, k, 16);
        c.load(vector(p), at)
    })
}

fn put(c: &mut Code, planes: [Value; 2], k: Value, z: Number) {
    for (plane, x) in planes.into_iter().zip(z) {
        let at = c.at(plane, k, 16);
        c.store(x, at);
    }
}

fn multiply(module: &mut ObjectModule, p: Precision) -> Defined {
    define(module, local("multiply"), (6, None), |_, c, given| {
        let &[x_re, x_im, y_re, y_im, symbol, n] = given else {
            unreachable!("six arguments")
        };
        c.for_each(n, |c, k| {
            let [re, im] = pair(c, p, [x_re, x_im], k);
            let two = c.b.ins().imul_imm_s(k, 2);
            let at = c.at(symbol, two, 16);
            let s = c.load(vector(p), at);
            let at = c.b.ins().iadd_imm_s(at, 16);
            let t = c.load(vector(p), at);
            let minus = c.b.ins().fneg(t);
            let (a, b) = (c.b.ins().fmul(s, re), c.b.ins().fmul(s, im));
            let z = [c.b.ins().fma(minus, im, a), c.b.ins().fma(t, re, b)];
            put(c, [y_re, y_im], k, z);
        });
        None
    })
}

fn conjugate(module: &mut ObjectModule, p: Precision) -> Defined {
    define(module, local("conjugate"), (6, None), |_, c, given| {
        let &[a_re, a_im, b_re, b_im, n, scale] = given else {
            unreachable!("six arguments")
        };
        let scale = c.load(super::routines::scalar(p), scale);
        let scale = c.b.ins().splat(vector(p), scale);
        c.for_each(n, |c, k| {
            let [a, b] = pair(c, p, [a_re, a_im], k);
            let [x, y] = pair(c, p, [b_re, b_im], k);
            let [x, y] = [x, y].map(|v| c.b.ins().fmul(v, scale));
            // (a + i b)(x - i y)
            let minus = c.b.ins().fneg(y);
            let (first, second) = (c.b.ins().fmul(a, x), c.b.ins().fmul(b, x));
            let z = [c.b.ins().fma(b, y, first), c.b.ins().fma(a, minus, second)];
            put(c, [a_re, a_im], k, z);
        });
        None
    })
}

fn fold(module: &mut ObjectModule, p: Precision) -> Defined {
    define(module, local("fold"), (6, None), |_, c, given| {
        let &[x_re, x_im, y_re, y_im, table, n] = given else {
            unreachable!("six arguments")
        };
        c.for_each(n, |c, k| {
            let four = c.b.ins().imul_imm_s(k, 4);
            let sums = [x_re, x_im].map(|plane| {
                let mut total = None;
                for part in 0..4 {
                    let at = c.entry(plane, table, four, part);
                    let x = c.load(vector(p), at);
                    total = Some(match total {
                        None => x,
                        Some(t) => c.b.ins().fadd(t, x),
                    });
                }
                total.expect("four parts")
            });
            put(c, [y_re, y_im], k, sums);
        });
        None
    })
}

fn reduce(module: &mut ObjectModule, p: Precision) -> Defined {
    define(module, local("reduce"), (6, None), |_, c, given| {
        let &[x_re, x_im, matrix, rows, taps, out] = given else {
            unreachable!("six arguments")
        };
        c.for_each(rows, |c, r| {
            let (re, im) = (c.sum(vector(p)), c.sum(vector(p)));
            let row = c.b.ins().imul(r, taps);
            c.for_each(taps, |c, k| {
                let [a, b] = pair(c, p, [x_re, x_im], k);
                let at = c.add(row, k);
                let two = c.b.ins().imul_imm_s(at, 2);
                let at = c.at(matrix, two, 16);
                let m = c.load(vector(p), at);
                let at = c.b.ins().iadd_imm_s(at, 16);
                let n = c.load(vector(p), at);
                // (m - i n)(a + i b)
                let minus = c.b.ins().fneg(n);
                c.add_product(re, m, a);
                c.add_product(re, n, b);
                c.add_product(im, m, b);
                c.add_product(im, minus, a);
            });
            let two = c.b.ins().imul_imm_s(r, 2);
            let at = c.at(out, two, 16);
            let total = c.b.use_var(re);
            c.store(total, at);
            let at = c.b.ins().iadd_imm_s(at, 16);
            let total = c.b.use_var(im);
            c.store(total, at);
        });
        None
    })
}
