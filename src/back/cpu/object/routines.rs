//! The loops an object file is made of besides its kernels.
//!
//! Every routine takes addresses and counts as 64-bit numbers and reads byte
//! offsets into the workspace from tables of 32-bit numbers.

use super::super::jit::JitError;
use super::super::math::{LibFn, Precision};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, Function, InstBuilder, MemFlagsData, Type, UserFuncName, Value, types,
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use cranelift_module::{FuncId, Linkage, Module};
use cranelift_object::ObjectModule;

/// Vectors of working precision that are added up before they are widened.
const BLOCK: i64 = 16;

/// A function under construction.
pub(super) struct Code<'a, 'f> {
    pub(super) b: &'a mut FunctionBuilder<'f>,
}

/// Declares and defines a function of 64-bit arguments, with a 32-bit result if
/// `body` returns one.
pub(super) fn define(
    module: &mut ObjectModule,
    (name, linkage): (&str, Linkage),
    (arguments, result): (usize, Option<Type>),
    body: impl FnOnce(&mut ObjectModule, &mut Code, &[Value]) -> Option<Value>,
) -> Result<FuncId, JitError> {
    let mut signature = module.make_signature();
    (signature.params).extend(std::iter::repeat_n(AbiParam::new(types::I64), arguments));
    signature.returns.extend(result.map(AbiParam::new));
    let id = module
        .declare_function(name, linkage, &signature)
        .map_err(JitError::new)?;
    let mut context = module.make_context();
    context.func = Function::with_name_signature(UserFuncName::user(0, id.as_u32()), signature);
    let mut frontend = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut context.func, &mut frontend);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let given = b.block_params(entry).to_vec();
    let value = body(module, &mut Code { b: &mut b }, &given);
    b.ins().return_(value.as_slice());
    b.seal_all_blocks();
    b.finalize(module.target_config());
    module
        .define_function(id, &mut context)
        .map_err(JitError::new)?;
    Ok(id)
}

/// Memory that any part of the object may write.
fn flags() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

impl Code<'_, '_> {
    pub(super) fn number(&mut self, x: i64) -> Value {
        self.b.ins().iconst(types::I64, x)
    }

    /// Runs `body` for 0..n.
    pub(super) fn for_each(&mut self, n: Value, body: impl FnOnce(&mut Self, Value)) {
        let [head, inside, done] = [(); 3].map(|()| self.b.create_block());
        self.b.append_block_param(head, types::I64);
        let zero = self.number(0);
        self.b.ins().jump(head, &[zero.into()]);
        self.b.switch_to_block(head);
        let k = self.b.block_params(head)[0];
        let more = self.b.ins().icmp(IntCC::SignedLessThan, k, n);
        self.b.ins().brif(more, inside, &[], done, &[]);
        self.b.switch_to_block(inside);
        body(self, k);
        let next = self.b.ins().iadd_imm_s(k, 1);
        self.b.ins().jump(head, &[next.into()]);
        self.b.switch_to_block(done);
    }

    /// Returns a number from a function with a 32-bit result, if `wrong`.
    pub(super) fn leave_if(&mut self, wrong: Value, code: i64) {
        let [leave, stay] = [(); 2].map(|()| self.b.create_block());
        self.b.ins().brif(wrong, leave, &[], stay, &[]);
        self.b.switch_to_block(leave);
        let code = self.b.ins().iconst(types::I32, code);
        self.b.ins().return_(&[code]);
        self.b.switch_to_block(stay);
    }

    /// `base + index * size`
    pub(super) fn at(&mut self, base: Value, index: Value, size: i64) -> Value {
        let bytes = self.b.ins().imul_imm_s(index, size);
        self.b.ins().iadd(base, bytes)
    }

    pub(super) fn add(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().iadd(a, b)
    }

    /// A 64-bit number of a table.
    pub(super) fn word(&mut self, table: Value, k: i64) -> Value {
        let at = self.b.ins().iadd_imm_s(table, 8 * k);
        self.load(types::I64, at)
    }

    /// `base +` entry `k` (plus `fixed`) of a table of 32-bit offsets.
    pub(super) fn entry(&mut self, base: Value, table: Value, k: Value, fixed: i32) -> Value {
        let p = self.at(table, k, 4);
        let offset = self.b.ins().sload32(flags(), p, 4 * fixed);
        self.add(base, offset)
    }

    pub(super) fn load(&mut self, ty: Type, p: Value) -> Value {
        self.b.ins().load(ty, flags(), p, 0)
    }

    pub(super) fn store(&mut self, x: Value, p: Value) {
        self.b.ins().store(flags(), x, p, 0);
    }

    pub(super) fn convert(&mut self, x: Value, from: Type, to: Type) -> Value {
        match (from, to) {
            (types::F32, types::F64) => self.b.ins().fpromote(to, x),
            (types::F64, types::F32) => self.b.ins().fdemote(to, x),
            _ => x,
        }
    }

    pub(super) fn zero(&mut self, ty: Type) -> Value {
        match ty {
            types::F32 => self.b.ins().f32const(0.0),
            types::F64 => self.b.ins().f64const(0.0),
            vector => {
                let x = self.zero(vector.lane_type());
                self.b.ins().splat(vector, x)
            }
        }
    }

    pub(super) fn sum(&mut self, ty: Type) -> Variable {
        let sum = self.b.declare_var(ty);
        let zero = self.zero(ty);
        self.b.def_var(sum, zero);
        sum
    }

    /// Sums what `add` makes of the sites of some rows: vectors of the working
    /// precision, at most [`BLOCK`] of them before they are added up in f64. The shape:
    /// lines, sites of a line, bytes from line to line.
    fn over_sites(
        &mut self,
        p: Precision,
        shape: Value,
        rows: &[Value],
        add: impl Fn(&mut Self, Variable, &[Value]),
    ) -> Value {
        let [lines, length, line] = [0, 1, 2].map(|k| self.word(shape, k));
        let (size, lanes) = (p.bytes() as i64, p.lanes() as i64);
        let vectors = self
            .b
            .ins()
            .ushr_imm_u(length, i64::from(lanes.trailing_zeros()));
        let covered = self.b.ins().imul_imm_s(vectors, lanes);
        let rest = self.b.ins().isub(length, covered);
        let more = self.b.ins().iadd_imm_s(vectors, BLOCK - 1);
        let blocks = self
            .b
            .ins()
            .ushr_imm_u(more, i64::from(BLOCK.trailing_zeros()));
        let total = self.sum(types::F64);
        let widen = |c: &mut Self, x: Value| {
            let x = c.convert(x, scalar(p), types::F64);
            let old = c.b.use_var(total);
            let new = c.b.ins().fadd(old, x);
            c.b.def_var(total, new);
        };
        self.for_each(lines, |c, l| {
            let skip = c.b.ins().imul(l, line);
            let rows: Vec<Value> = rows.iter().map(|&row| c.add(row, skip)).collect();
            c.for_each(blocks, |c, block| {
                let first = c.b.ins().imul_imm_s(block, BLOCK);
                let left = c.b.ins().isub(vectors, first);
                let most = c.number(BLOCK);
                let count = c.b.ins().smin(left, most);
                let sum = c.sum(vector(p));
                c.for_each(count, |c, v| {
                    let v = c.add(first, v);
                    let mut x = Vec::new();
                    for &row in &rows {
                        let at = c.at(row, v, 16);
                        x.push(c.load(vector(p), at));
                    }
                    add(c, sum, &x);
                });
                let parts = c.b.use_var(sum);
                for lane in 0..lanes as u8 {
                    let part = c.b.ins().extractlane(parts, lane);
                    widen(c, part);
                }
            });
            c.for_each(rest, |c, r| {
                let at = c.add(covered, r);
                let mut x = Vec::new();
                for &row in &rows {
                    let at = c.at(row, at, size);
                    x.push(c.load(scalar(p), at));
                }
                let sum = c.sum(scalar(p));
                add(c, sum, &x);
                let part = c.b.use_var(sum);
                widen(c, part);
            });
        });
        self.b.use_var(total)
    }

    pub(super) fn add_product(&mut self, sum: Variable, a: Value, b: Value) {
        let old = self.b.use_var(sum);
        let new = self.b.ins().fma(a, b, old);
        self.b.def_var(sum, new);
    }
}

pub(super) fn scalar(p: Precision) -> Type {
    match p {
        Precision::F32 => types::F32,
        Precision::F64 => types::F64,
    }
}

pub(super) fn vector(p: Precision) -> Type {
    match p {
        Precision::F32 => types::F32X4,
        Precision::F64 => types::F64X2,
    }
}

/// All routines of an object in one working precision.
pub(super) struct Routines {
    /// `(arena, table, n, spins)`: table of (offset, site).
    pub(super) spins: FuncId,
    /// `(source, target, table, n)`: table of (from, to) in working precision.
    pub(super) copy: FuncId,
    /// The same in f64.
    pub(super) copy64: FuncId,
    /// The same, from working precision to f64.
    pub(super) widen: FuncId,
    /// The same, from f64 to working precision.
    pub(super) narrow: FuncId,
    /// `(arena, table, n)`: table of what becomes zero.
    pub(super) clear: FuncId,
    /// `(arena, table, n, shape)`: for pairs (row, result) the sum over sites in f64.
    pub(super) pool: FuncId,
    /// `(arena, table, left, right, shape)`: sums over sites of products of every left
    /// row with every right one; then the places of the results, right factor fastest.
    pub(super) outer: FuncId,
    /// `(arena, table, weights, operands, results, bytes)`: operands, then results.
    pub(super) dense: [FuncId; 2],
    /// `(arena, table, n, bytes)`: result, then pairs of factors.
    pub(super) dot: [FuncId; 2],
    /// `(x, y, kernel, shape)`; see [`mix`]. The second one adds to y.
    pub(super) mix: [FuncId; 2],
    /// See [`tabulated`](super::tabulated).
    pub(super) lookup: FuncId,
}

impl Routines {
    pub(super) fn new(module: &mut ObjectModule, p: Precision) -> Result<Routines, JitError> {
        let work = scalar(p);
        let both = [(p, "own"), (Precision::F64, "f64")];
        let dense = both.map(|(p, name)| dense(module, p, &format!("dense_{name}")));
        let dot = both.map(|(p, name)| dot(module, p, &format!("dot_{name}")));
        let mix = [(false, "mix"), (true, "mix_more")].map(|(add, name)| mix(module, p, name, add));
        let [dense0, dense1] = dense;
        let [dot0, dot1] = dot;
        let [mix0, mix1] = mix;
        Ok(Routines {
            spins: spins(module, p)?,
            copy: moves(module, "copy", work, work)?,
            copy64: moves(module, "copy64", types::F64, types::F64)?,
            widen: moves(module, "widen", work, types::F64)?,
            narrow: moves(module, "narrow", types::F64, work)?,
            clear: clear(module, p)?,
            pool: pool(module, p)?,
            outer: outer(module, p)?,
            dense: [dense0?, dense1?],
            dot: [dot0?, dot1?],
            mix: [mix0?, mix1?],
            lookup: super::tabulated::lookup(module, p)?,
        })
    }
}

pub(super) type Defined = Result<FuncId, JitError>;

/// A name no linker sees.
pub(super) fn local(name: &str) -> (&str, Linkage) {
    (name, Linkage::Local)
}

fn spins(module: &mut ObjectModule, p: Precision) -> Defined {
    define(module, local("spins"), (4, None), |_, c, given| {
        let &[arena, table, n, spins] = given else {
            unreachable!("four arguments")
        };
        c.for_each(n, |c, k| {
            let two = c.b.ins().imul_imm_s(k, 2);
            let to = c.entry(arena, table, two, 0);
            let from = c.entry(spins, table, two, 1);
            let s = c.b.ins().sload8(types::I32, flags(), from, 0);
            let x = c.b.ins().fcvt_from_sint(scalar(p), s);
            c.store(x, to);
        });
        None
    })
}

fn moves(module: &mut ObjectModule, name: &str, from: Type, to: Type) -> Defined {
    define(module, local(name), (4, None), |_, c, given| {
        let &[source, target, table, n] = given else {
            unreachable!("four arguments")
        };
        c.for_each(n, |c, k| {
            let two = c.b.ins().imul_imm_s(k, 2);
            let at = c.entry(source, table, two, 0);
            let x = c.load(from, at);
            let x = c.convert(x, from, to);
            let at = c.entry(target, table, two, 1);
            c.store(x, at);
        });
        None
    })
}

fn clear(module: &mut ObjectModule, p: Precision) -> Defined {
    define(module, local("clear"), (3, None), |_, c, given| {
        let &[arena, table, n] = given else {
            unreachable!("three arguments")
        };
        let zero = c.zero(scalar(p));
        c.for_each(n, |c, k| {
            let to = c.entry(arena, table, k, 0);
            c.store(zero, to);
        });
        None
    })
}

fn pool(module: &mut ObjectModule, p: Precision) -> Defined {
    define(module, local("pool"), (4, None), |_, c, given| {
        let &[arena, table, n, shape] = given else {
            unreachable!("four arguments")
        };
        c.for_each(n, |c, k| {
            let two = c.b.ins().imul_imm_s(k, 2);
            let row = c.entry(arena, table, two, 0);
            let total = c.over_sites(p, shape, &[row], |c, sum, x| {
                let old = c.b.use_var(sum);
                let new = c.b.ins().fadd(old, x[0]);
                c.b.def_var(sum, new);
            });
            let to = c.entry(arena, table, two, 1);
            c.store(total, to);
        });
        None
    })
}

fn outer(module: &mut ObjectModule, p: Precision) -> Defined {
    define(module, local("outer"), (5, None), |_, c, given| {
        let &[arena, table, left, right, shape] = given else {
            unreachable!("five arguments")
        };
        let both = c.add(left, right);
        c.for_each(left, |c, i| {
            let a = c.entry(arena, table, i, 0);
            let first = c.b.ins().imul(i, right);
            let first = c.add(both, first);
            c.for_each(right, |c, j| {
                let at = c.add(left, j);
                let b = c.entry(arena, table, at, 0);
                let total = c.over_sites(p, shape, &[a, b], |c, sum, x| {
                    c.add_product(sum, x[0], x[1]);
                });
                let at = c.add(first, j);
                let to = c.entry(arena, table, at, 0);
                c.store(total, to);
            });
        });
        None
    })
}

/// Vectors worked on at once: rows are whole multiples of them.
const TILE: i64 = 4;

/// The vectors of a tile: `base + 16 (TILE tile + k)`.
fn tile(c: &mut Code, p: Precision, base: Value, tile: Value) -> [Value; TILE as usize] {
    let first = c.at(base, tile, 16 * TILE);
    [0, 1, 2, 3].map(|k| {
        let at = c.b.ins().iadd_imm_s(first, 16 * k);
        c.load(vector(p), at)
    })
}

fn put_tile(c: &mut Code, sums: [Variable; TILE as usize], base: Value, tile: Value) {
    let first = c.at(base, tile, 16 * TILE);
    for (k, sum) in sums.into_iter().enumerate() {
        let to = c.b.ins().iadd_imm_s(first, 16 * k as i64);
        let total = c.b.use_var(sum);
        c.store(total, to);
    }
}

fn dense(module: &mut ObjectModule, p: Precision, name: &str) -> Defined {
    define(module, local(name), (6, None), |_, c, given| {
        let &[arena, table, weights, operands, results, bytes] = given else {
            unreachable!("six arguments")
        };
        let size = p.bytes() as i64;
        let tiles = c.b.ins().ushr_imm_u(bytes, 6);
        let outputs = c.at(table, operands, 4);
        c.for_each(results, |c, o| {
            let first = c.b.ins().imul(o, operands);
            let row = c.at(weights, first, size);
            let out = c.entry(arena, outputs, o, 0);
            c.for_each(tiles, |c, t| {
                let sums = [(); TILE as usize].map(|()| c.sum(vector(p)));
                c.for_each(operands, |c, k| {
                    let w = c.at(row, k, size);
                    let w = c.load(scalar(p), w);
                    let w = c.b.ins().splat(vector(p), w);
                    let x = c.entry(arena, table, k, 0);
                    let x = tile(c, p, x, t);
                    for (sum, x) in sums.into_iter().zip(x) {
                        c.add_product(sum, w, x);
                    }
                });
                put_tile(c, sums, out, t);
            });
        });
        None
    })
}

fn dot(module: &mut ObjectModule, p: Precision, name: &str) -> Defined {
    define(module, local(name), (4, None), |_, c, given| {
        let &[arena, table, n, bytes] = given else {
            unreachable!("four arguments")
        };
        let tiles = c.b.ins().ushr_imm_u(bytes, 6);
        let zero = c.number(0);
        let out = c.entry(arena, table, zero, 0);
        c.for_each(tiles, |c, t| {
            let sums = [(); TILE as usize].map(|()| c.sum(vector(p)));
            c.for_each(n, |c, k| {
                let two = c.b.ins().imul_imm_s(k, 2);
                let [a, b] = [1, 2].map(|fixed| {
                    let row = c.entry(arena, table, two, fixed);
                    tile(c, p, row, t)
                });
                for ((sum, a), b) in sums.into_iter().zip(a).zip(b) {
                    c.add_product(sum, a, b);
                }
            });
            put_tile(c, sums, out, t);
        });
        None
    })
}

/// Entries of the shape of a mixing, in 64-bit numbers.
#[derive(Clone, Copy)]
pub(super) struct MixShape {
    /// Lines of the lattice, and sites of a line: contiguous in memory.
    pub(super) extent: [i64; 2],
    /// Bytes from line to line.
    pub(super) line: i64,
    /// The kernel of target (ix, iy) and source line jx starts at element
    /// `first + target . (ix, iy) + source jx`.
    pub(super) first: i64,
    /// See `first`.
    pub(super) target: [i64; 2],
    /// See `first`.
    pub(super) source: i64,
}

impl MixShape {
    /// As the routine reads it.
    pub(super) fn entries(self) -> [i64; 7] {
        let ([nx, ny], [tx, ty]) = (self.extent, self.target);
        [nx, ny, self.line, self.first, tx, ty, self.source]
    }
}

/// `y(ix, iy) = sum over lines jx of the product of a line of x with its kernel`.
fn mix(module: &mut ObjectModule, p: Precision, name: &str, add: bool) -> Defined {
    define(module, local(name), (4, None), |_, c, given| {
        let &[x, y, kernel, shape] = given else {
            unreachable!("four arguments")
        };
        let (size, lanes) = (p.bytes() as i64, p.lanes() as i64);
        let read = |c: &mut Code, k: i64| {
            let k = c.number(k);
            let at = c.at(shape, k, 8);
            c.load(types::I64, at)
        };
        let [nx, ny, line, first, tx, ty, source] = [0, 1, 2, 3, 4, 5, 6].map(|k| read(c, k));
        let vectors = c.b.ins().ushr_imm_u(ny, i64::from(lanes.trailing_zeros()));
        let covered = c.b.ins().imul_imm_s(vectors, lanes);
        let rest = c.b.ins().isub(ny, covered);
        c.for_each(nx, |c, ix| {
            c.for_each(ny, |c, iy| {
                let (wide, single) = (c.sum(vector(p)), c.sum(scalar(p)));
                c.for_each(nx, |c, jx| {
                    let mut element = first;
                    for (step, index) in [(tx, ix), (ty, iy), (source, jx)] {
                        let part = c.b.ins().imul(step, index);
                        element = c.add(element, part);
                    }
                    let k = c.at(kernel, element, size);
                    let skip = c.b.ins().imul(line, jx);
                    let from = c.add(x, skip);
                    c.for_each(vectors, |c, v| {
                        let [a, b] = [k, from].map(|p| c.at(p, v, 16));
                        let [a, b] = [a, b].map(|at| c.load(vector(p), at));
                        c.add_product(wide, a, b);
                    });
                    c.for_each(rest, |c, r| {
                        let r = c.add(covered, r);
                        let [a, b] = [k, from].map(|p| c.at(p, r, size));
                        let [a, b] = [a, b].map(|at| c.load(scalar(p), at));
                        c.add_product(single, a, b);
                    });
                });
                let mut total = c.b.use_var(single);
                let parts = c.b.use_var(wide);
                for lane in 0..lanes as u8 {
                    let part = c.b.ins().extractlane(parts, lane);
                    total = c.b.ins().fadd(total, part);
                }
                let skip = c.b.ins().imul(line, ix);
                let to = c.add(y, skip);
                let to = c.at(to, iy, size);
                if add {
                    let old = c.load(scalar(p), to);
                    total = c.b.ins().fadd(total, old);
                }
                c.store(total, to);
            });
        });
        None
    })
}

/// A routine that calls a function of the C library for every lane of a vector.
pub(super) fn library(module: &mut ObjectModule, f: LibFn, p: Precision) -> Defined {
    let (name, two) = match f {
        LibFn::Sin => ("sin", false),
        LibFn::Cos => ("cos", false),
        LibFn::Pow => ("pow", true),
        LibFn::Atan2 => ("atan2", true),
    };
    let symbol = f.symbol(p);
    define(module, local(&symbol), (3, None), |module, c, given| {
        let &[a, b, out] = given else {
            unreachable!("three arguments")
        };
        let mut signature = module.make_signature();
        let arguments = if two { 2 } else { 1 };
        (signature.params).extend(std::iter::repeat_n(AbiParam::new(types::F64), arguments));
        signature.returns.push(AbiParam::new(types::F64));
        // one declaration serves both precisions
        let Ok(callee) = module.declare_function(name, Linkage::Import, &signature) else {
            unreachable!("always declared with this signature")
        };
        let callee = module.declare_func_in_func(callee, c.b.func);
        for lane in 0..p.lanes() as i64 {
            let at = c.number(lane);
            let mut values = Vec::new();
            for operand in [a, b].into_iter().take(arguments) {
                let from = c.at(operand, at, p.bytes() as i64);
                let x = c.load(scalar(p), from);
                values.push(c.convert(x, scalar(p), types::F64));
            }
            let call = c.b.ins().call(callee, &values);
            let value = c.b.inst_results(call)[0];
            let value = c.convert(value, types::F64, scalar(p));
            let to = c.at(out, at, p.bytes() as i64);
            c.store(value, to);
        }
        None
    })
}
