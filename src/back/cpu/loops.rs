//! The loops around an expression: for every row, for every vector of lanes, evaluate
//! it and store the result.
//!
//! Functions that take many operations are called on arrays where this machine has
//! vectors wider than those of generated code. The lanes of some rows, or part of the
//! lanes of one row, are then worked on together, stage by stage: a stage computes
//! arguments into memory of [`STRIP`] bytes each and calls the functions; the next one
//! begins with their values.

use super::math::wide::PIECE;
use super::math::{Arithmetic, Elementary, Lanes, LibFn, Precision, Test, Wide};
use crate::ir::{MapFn, ZipFn};
use crate::kernel::expr::{Expr, ExprNode, Leaf};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    FuncRef, InstBuilder, MemFlagsData, StackSlot, StackSlotData, StackSlotKind, Value, types,
};
use cranelift_frontend::{FunctionBuilder, Variable};
use std::collections::BTreeMap;

/// Bytes of arguments that a function is called on at once: enough to make the calls
/// cheap, few enough that all arguments stay in the first cache.
const STRIP: usize = 1024;

const _: () = assert!(STRIP.is_multiple_of(PIECE));

/// Bytes of a vector.
const VECTOR: i64 = 16;

/// Routines declared in a function under construction.
#[derive(Default)]
pub(super) struct Routines {
    /// On one vector.
    pub(super) vector: BTreeMap<LibFn, FuncRef>,
    /// On arrays; a function that is not among them is emitted inline.
    pub(super) wide: BTreeMap<Wide, FuncRef>,
}

/// Makes the function under construction a [`super::jit::KernelFn`].
pub(super) fn emit_loops(
    b: &mut FunctionBuilder,
    expr: &Expr,
    precision: Precision,
    routines: &Routines,
) {
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let [arena, statics, pool, table, rows, bytes] = *b.block_params(entry) else {
        unreachable!("six parameters")
    };
    let loops = Loops {
        expr,
        precision,
        routines,
        memory: [arena, statics, pool],
    };
    let zero = b.ins().iconst(types::I64, 0);
    let stages = Stages::new(b, expr, routines);
    if stages.count == 0 {
        let last = expr.nodes().len() - 1;
        loops.each_vector(b, table, (zero, rows), (zero, bytes), |l, operands, out| {
            let value = loops.value(l, last, &mut loops.known(operands));
            store(l.b, value, out);
        });
    } else {
        loops.strips(b, &stages, table, (rows, bytes));
    }
    b.ins().return_(&[]);
    b.seal_all_blocks();
}

/// How an expression is divided by the functions that are called on arrays.
struct Stages {
    /// Of every node: after how many calls in a row its value is known.
    level: Vec<usize>,
    /// Nodes that are such calls: the function, the argument, memory for it and then
    /// for the value.
    calls: BTreeMap<usize, (Wide, usize, StackSlot)>,
    /// Stages before the last one.
    count: usize,
}

impl Stages {
    fn new(b: &mut FunctionBuilder, expr: &Expr, routines: &Routines) -> Stages {
        let mut stages = Stages {
            level: Vec::new(),
            calls: BTreeMap::new(),
            count: 0,
        };
        for (k, &node) in expr.nodes().iter().enumerate() {
            let of = |a: usize| stages.level[a];
            let mut level = match node {
                ExprNode::Leaf(_) | ExprNode::Number(_) => 0,
                ExprNode::Map(_, a) | ExprNode::Sigmoid(a) => of(a),
                ExprNode::Zip(_, a, c) => of(a).max(of(c)),
                ExprNode::Fma(a, c, d) => of(a).max(of(c)).max(of(d)),
            };
            if let Some((f, a)) = Wide::of(node)
                && routines.wide.contains_key(&f)
            {
                level += 1;
                let data = StackSlotData::new(StackSlotKind::ExplicitSlot, STRIP as u32, 4);
                let memory = b.create_sized_stack_slot(data);
                stages.calls.insert(k, (f, a, memory));
            }
            stages.level.push(level);
            stages.count = stages.count.max(level);
        }
        stages
    }
}

/// Values of nodes in one place of the code, as far as they are known there.
type Known = Vec<Option<Value>>;

struct Loops<'e> {
    expr: &'e Expr,
    precision: Precision,
    routines: &'e Routines,
    /// Addresses of the memory of [`Leaf::Row`], [`Leaf::Static`], [`Leaf::Scalar`].
    memory: [Value; 3],
}

impl Loops<'_> {
    /// Bytes of the table per row.
    fn entry(&self) -> i64 {
        4 * (self.expr.leaves().len() as i64 + 1)
    }

    /// Every vector of some rows, from a byte of them to another. `body` gets the
    /// operands and the address of the result. `table` is the entry of the first row.
    fn each_vector(
        &self,
        b: &mut FunctionBuilder,
        table: Value,
        rows: (Value, Value),
        (from, to): (Value, Value),
        body: impl FnOnce(&mut Lanes, Vec<Value>, Value),
    ) {
        let entry = b.declare_var(types::I64);
        b.def_var(entry, table);
        each(b, rows, 1, |b, _| {
            let at = b.use_var(entry);
            let next = b.ins().iadd_imm_s(at, self.entry());
            b.def_var(entry, next);
            let (out, leaves) = self.addresses(b, at);
            each(b, (from, to), VECTOR, |b, byte| {
                let operands = self.operands(b, &leaves, byte);
                let out = b.ins().iadd(out, byte);
                let (precision, libs) = (self.precision, &self.routines.vector);
                body(&mut Lanes { b, precision, libs }, operands, out);
            });
        });
    }

    /// The address of the result of a row, and those of its operands; of a number for
    /// all lanes its value.
    fn addresses(&self, b: &mut FunctionBuilder, entry: Value) -> (Value, Vec<Value>) {
        let flags = MemFlagsData::trusted();
        let address = |b: &mut FunctionBuilder, base: Value, k: usize| {
            let offset = b.ins().sload32(flags, entry, (4 * k) as i32);
            b.ins().iadd(base, offset)
        };
        let [arena, statics, pool] = self.memory;
        let out = address(b, arena, 0);
        let leaves = (self.expr.leaves().iter().enumerate())
            .map(|(k, leaf)| match leaf {
                Leaf::Row => address(b, arena, k + 1),
                Leaf::Static => address(b, statics, k + 1),
                Leaf::Scalar => {
                    let p = address(b, pool, k + 1);
                    let (scalar, vector) = match self.precision {
                        Precision::F32 => (types::F32, types::F32X4),
                        Precision::F64 => (types::F64, types::F64X2),
                    };
                    let x = b.ins().load(scalar, flags, p, 0);
                    b.ins().splat(vector, x)
                }
            })
            .collect();
        (out, leaves)
    }

    /// Operands of a vector of lanes.
    fn operands(&self, b: &mut FunctionBuilder, leaves: &[Value], byte: Value) -> Vec<Value> {
        (self.expr.leaves().iter().zip(leaves))
            .map(|(leaf, &v)| match leaf {
                Leaf::Scalar => v,
                Leaf::Row | Leaf::Static => {
                    let p = b.ins().iadd(v, byte);
                    self.load(b, p)
                }
            })
            .collect()
    }

    fn load(&self, b: &mut FunctionBuilder, p: Value) -> Value {
        let ty = match self.precision {
            Precision::F32 => types::F32X4,
            Precision::F64 => types::F64X2,
        };
        let flags = MemFlagsData::new().with_notrap();
        b.ins().load(ty, flags, p, 0)
    }

    /// Nodes that are operands.
    fn known(&self, operands: Vec<Value>) -> Known {
        let operand = |n: &ExprNode| match n {
            ExprNode::Leaf(k) => Some(operands[*k]),
            _ => None,
        };
        self.expr.nodes().iter().map(operand).collect()
    }

    /// The value of a node.
    fn value(&self, v: &mut Lanes, node: usize, known: &mut Known) -> Value {
        if let Some(value) = known[node] {
            return value;
        }
        let mut of = |v: &mut Lanes, a: usize| self.value(v, a, known);
        let value = match self.expr.nodes()[node] {
            ExprNode::Leaf(_) => unreachable!("known from the start"),
            ExprNode::Number(bits) => v.constant(f64::from_bits(bits)),
            ExprNode::Map(f, a) => {
                let a = of(v, a);
                emit_map(v, f, a)
            }
            ExprNode::Sigmoid(a) => {
                let a = of(v, a);
                v.sigmoid(a)
            }
            ExprNode::Fma(a, b, c) => {
                let (a, b, c) = (of(v, a), of(v, b), of(v, c));
                v.fma(a, b, c)
            }
            ExprNode::Zip(f, a, b) => {
                let (a, b) = (of(v, a), of(v, b));
                emit_zip(v, f, a, b)
            }
        };
        known[node] = Some(value);
        value
    }

    /// All rows by strips: as many whole rows as fit one, or parts of one row.
    fn strips(
        &self,
        b: &mut FunctionBuilder,
        stages: &Stages,
        table: Value,
        (rows, bytes): (Value, Value),
    ) {
        let zero = b.ins().iconst(types::I64, 0);
        let whole = b.ins().iconst(types::I64, STRIP as i64);
        let least = b.ins().iconst(types::I64, VECTOR);
        // no rows are also none of no length
        let length = b.ins().smax(bytes, least);
        let length = b.ins().smin(length, whole);
        let group = b.ins().udiv(whole, length);
        let skip = b.ins().imul_imm_s(group, self.entry());
        let entry = b.declare_var(types::I64);
        b.def_var(entry, table);
        each(b, (zero, rows), group, |b, row| {
            let at = b.use_var(entry);
            let next = b.ins().iadd(at, skip);
            b.def_var(entry, next);
            let last = b.ins().iadd(row, group);
            let last = b.ins().smin(last, rows);
            each(b, (zero, bytes), length, |b, byte| {
                let end = b.ins().iadd(byte, length);
                let end = b.ins().smin(end, bytes);
                for stage in 0..=stages.count {
                    self.stage(b, (stages, stage), at, (row, last), (byte, end));
                }
            });
        });
    }

    /// One stage of a strip: the arguments of its calls, or, in the last one, the result.
    fn stage(
        &self,
        b: &mut FunctionBuilder,
        (stages, stage): (&Stages, usize),
        table: Value,
        rows: (Value, Value),
        bytes: (Value, Value),
    ) {
        let position = b.declare_var(types::I64);
        let zero = b.ins().iconst(types::I64, 0);
        b.def_var(position, zero);
        let calls = || {
            (stages.calls.iter())
                .filter(|(_, (_, a, _))| stage < stages.count && stages.level[*a] == stage)
                .map(|(_, call)| *call)
        };
        self.each_vector(b, table, rows, bytes, |l, operands, out| {
            let at = l.b.use_var(position);
            let place = |b: &mut FunctionBuilder, memory: StackSlot| {
                let p = b.ins().stack_addr(types::I64, memory, 0);
                b.ins().iadd(p, at)
            };
            let mut known = self.known(operands);
            // only what this stage needs: loads nobody uses are removed
            for (&node, &(_, _, memory)) in &stages.calls {
                if stages.level[node] <= stage {
                    let p = place(l.b, memory);
                    known[node] = Some(self.load(l.b, p));
                }
            }
            for (_, argument, memory) in calls() {
                let value = self.value(l, argument, &mut known);
                let p = place(l.b, memory);
                store(l.b, value, p);
            }
            if stage == stages.count {
                let value = self.value(l, self.expr.nodes().len() - 1, &mut known);
                store(l.b, value, out);
            }
            let next = l.b.ins().iadd_imm_s(at, VECTOR);
            l.b.def_var(position, next);
        });
        let bytes = b.use_var(position);
        let count = (b.ins()).ushr_imm_u(bytes, i64::from(self.precision.bytes().ilog2()));
        for (f, _, memory) in calls() {
            let p = b.ins().stack_addr(types::I64, memory, 0);
            b.ins().call(self.routines.wide[&f], &[p, count]);
        }
    }
}

fn store(b: &mut FunctionBuilder, value: Value, p: Value) {
    let flags = MemFlagsData::new().with_notrap();
    b.ins().store(flags, value, p, 0);
}

/// A step of a loop.
trait Stride {
    fn add(self, b: &mut FunctionBuilder, x: Value) -> Value;
}

impl Stride for i64 {
    fn add(self, b: &mut FunctionBuilder, x: Value) -> Value {
        b.ins().iadd_imm_s(x, self)
    }
}

impl Stride for Value {
    fn add(self, b: &mut FunctionBuilder, x: Value) -> Value {
        b.ins().iadd(x, self)
    }
}

/// `for x in (from..to).step_by(step) { body }`
fn each(
    b: &mut FunctionBuilder,
    (from, to): (Value, Value),
    step: impl Stride,
    body: impl FnOnce(&mut FunctionBuilder, Value),
) {
    let counter: Variable = b.declare_var(types::I64);
    b.def_var(counter, from);
    let (again, done) = (b.create_block(), b.create_block());
    let any = b.ins().icmp(IntCC::SignedLessThan, from, to);
    b.ins().brif(any, again, &[], done, &[]);
    b.switch_to_block(again);
    let x = b.use_var(counter);
    body(b, x);
    let next = step.add(b, x);
    b.def_var(counter, next);
    let more = b.ins().icmp(IntCC::SignedLessThan, next, to);
    b.ins().brif(more, again, &[], done, &[]);
    b.switch_to_block(done);
}

fn emit_map(v: &mut Lanes, f: MapFn, a: Value) -> Value {
    match f {
        MapFn::Neg => v.neg(a),
        MapFn::Exp => v.exp(a),
        MapFn::Log => v.log(a),
        MapFn::Log1p => v.log1p(a),
        MapFn::Sqrt => v.b.ins().sqrt(a),
        MapFn::Sin => v.sin(a),
        MapFn::Cos => v.cos(a),
        MapFn::Tanh => v.tanh(a),
        MapFn::LogCosh => v.log_cosh(a),
        MapFn::Abs => v.abs(a),
        MapFn::Sign => v.sign(a),
        MapFn::Erf => v.erf(a),
        MapFn::Floor => v.b.ins().floor(a),
        MapFn::Recip => {
            let one = v.constant(1.0);
            v.div(one, a)
        }
    }
}

fn emit_zip(v: &mut Lanes, f: ZipFn, a: Value, b: Value) -> Value {
    match f {
        ZipFn::Add => v.add(a, b),
        ZipFn::Sub => v.sub(a, b),
        ZipFn::Mul => v.mul(a, b),
        ZipFn::Div => v.div(a, b),
        ZipFn::Pow => v.library(LibFn::Pow, &[a, b]),
        ZipFn::Max => v.select(Test::Less, (a, b), b, a),
        ZipFn::Min => v.select(Test::Less, (b, a), b, a),
        ZipFn::Atan2 => v.library(LibFn::Atan2, &[a, b]),
        ZipFn::Mod => {
            let q = v.div(a, b);
            let q = v.b.ins().floor(q);
            let q = v.neg(q);
            v.fma(q, b, a)
        }
        ZipFn::Greater => {
            let (zero, one) = (v.constant(0.0), v.constant(1.0));
            v.select(Test::Greater, (a, b), one, zero)
        }
    }
}
