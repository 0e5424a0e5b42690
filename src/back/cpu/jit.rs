//! From kernel expressions to native code.
//!
//! A `Kernel` is one compiled loop nest: for every row, for every vector of
//! lanes, evaluate an expression and store it. Operand addresses come from a
//! table, so one piece of code serves all channels of a layer and all layers
//! that compute the same expression.

use super::math::{Lanes, LibFn, Precision};
use crate::ir::{MapFn, ZipFn};
use crate::kernel::expr::{Expr, ExprNode, Leaf};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{
    AbiParam, Function, InstBuilder, MemFlagsData, UserFuncName, Value, types,
};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, default_libcall_names};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A failure of the code generator: the host is not supported, or a bug.
#[derive(Debug, thiserror::Error)]
#[error("code generation failed: {0}")]
pub struct JitError(String);

impl JitError {
    pub(super) fn new(e: impl std::fmt::Display) -> JitError {
        JitError(e.to_string())
    }
}

/// Signature of a compiled kernel: `(arena, statics, pool, table, rows, bytes)`.
///
/// `table` holds, per row, the byte offset of the destination in the arena and
/// of every leaf in the memory of its class; `bytes` is the length of a row, a
/// multiple of 16.
pub type KernelFn = unsafe extern "C" fn(*mut u8, *const u8, *const u8, *const i32, i64, i64);

/// Index of a kernel in a [`KernelCode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelId(usize);

/// Collects expressions, then compiles them all.
pub struct Compiler {
    module: JITModule,
    contexts: (cranelift_codegen::Context, FunctionBuilderContext),
    known: HashMap<(Expr, Precision), KernelId>,
    functions: Vec<FuncId>,
    listing: Option<Listing>,
}

/// Text of every compiled kernel, in order.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Cranelift IR.
    pub clif: Vec<String>,
    /// Disassembly.
    pub asm: Vec<String>,
}

/// Executable kernels.
pub struct KernelCode {
    functions: Vec<KernelFn>,
    listing: Option<Listing>,
    module: Option<JITModule>,
}

// Finalised code is immutable, and the module is kept only to free its memory.
unsafe impl Send for KernelCode {}
unsafe impl Sync for KernelCode {}

impl Drop for KernelCode {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: function pointers are only handed out by reference to self.
            unsafe { module.free_memory() }
        }
    }
}

impl KernelCode {
    /// The entry point of a kernel; valid as long as `self` lives.
    pub fn function(&self, id: KernelId) -> KernelFn {
        self.functions[id.0]
    }
    /// Listings, if they were asked for.
    pub fn listing(&self) -> Option<&Listing> {
        self.listing.as_ref()
    }
}

/// The instruction set of this machine.
pub(super) fn host_isa(position_independent: bool) -> Result<OwnedTargetIsa, JitError> {
    let mut flags = settings::builder();
    for (name, value) in [
        ("opt_level", "speed"),
        (
            "is_pic",
            if position_independent {
                "true"
            } else {
                "false"
            },
        ),
        ("use_colocated_libcalls", "false"),
        ("enable_verifier", "false"),
    ] {
        flags.set(name, value).map_err(JitError::new)?;
    }
    cranelift_native::builder()
        .map_err(JitError::new)?
        .finish(settings::Flags::new(flags))
        .map_err(JitError::new)
}

impl Compiler {
    /// A compiler for this machine; `listing` keeps readable text of the code.
    pub fn new(listing: bool) -> Result<Compiler, JitError> {
        let mut builder = JITBuilder::with_isa(host_isa(false)?, default_libcall_names());
        for f in LibFn::ALL {
            for p in [Precision::F32, Precision::F64] {
                builder.symbol(f.symbol(p), f.address(p));
            }
        }
        let module = JITModule::new(builder);
        let contexts = (module.make_context(), FunctionBuilderContext::new());
        Ok(Compiler {
            module,
            contexts,
            known: HashMap::new(),
            functions: Vec::new(),
            listing: listing.then(Listing::default),
        })
    }

    /// Compiles an expression, or finds it compiled already.
    pub fn kernel(&mut self, expr: &Expr, precision: Precision) -> Result<KernelId, JitError> {
        if let Some(&id) = self.known.get(&(expr.clone(), precision)) {
            return Ok(id);
        }
        let id = KernelId(self.functions.len());
        let mut signature = self.module.make_signature();
        signature.params.extend([AbiParam::new(types::I64); 6]);
        let name = format!("kernel_{}", id.0);
        let func = self
            .module
            .declare_function(&name, Linkage::Export, &signature)
            .map_err(JitError::new)?;
        let context = &mut self.contexts.0;
        context.func =
            Function::with_name_signature(UserFuncName::user(0, func.as_u32()), signature);
        let mut libs = BTreeMap::new();
        for f in library_calls(expr) {
            let mut s = self.module.make_signature();
            s.params.extend([AbiParam::new(types::I64); 3]);
            let callee = self
                .module
                .declare_function(&f.symbol(precision), Linkage::Import, &s)
                .map_err(JitError::new)?;
            libs.insert(
                f,
                self.module.declare_func_in_func(callee, &mut context.func),
            );
        }
        let mut builder = FunctionBuilder::new(&mut context.func, &mut self.contexts.1);
        emit_loops(&mut builder, expr, precision, &libs);
        builder.finalize(self.module.target_config());
        if let Some(listing) = &mut self.listing {
            listing.clif.push(context.func.display().to_string());
            context.set_disasm(true);
        }
        self.module
            .define_function(func, context)
            .map_err(JitError::new)?;
        if let Some(listing) = &mut self.listing {
            listing.asm.push(
                context
                    .compiled_code()
                    .and_then(|c| c.vcode.clone())
                    .unwrap_or_default(),
            );
        }
        self.module.clear_context(context);
        self.functions.push(func);
        self.known.insert((expr.clone(), precision), id);
        Ok(id)
    }

    /// Makes everything compiled so far executable.
    pub fn finish(mut self) -> Result<KernelCode, JitError> {
        self.module.finalize_definitions().map_err(JitError::new)?;
        let functions = self
            .functions
            .iter()
            .map(|&f| {
                let address = self.module.get_finalized_function(f);
                // SAFETY: the code was generated with exactly this signature.
                unsafe { std::mem::transmute::<*const u8, KernelFn>(address) }
            })
            .collect();
        Ok(KernelCode {
            functions,
            listing: self.listing,
            module: Some(self.module),
        })
    }
}

/// Scalar routines an expression may call.
pub(super) fn library_calls(expr: &Expr) -> BTreeSet<LibFn> {
    let call = |n: &ExprNode| match n {
        ExprNode::Map(MapFn::Sin, _) => Some(LibFn::Sin),
        ExprNode::Map(MapFn::Cos, _) => Some(LibFn::Cos),
        ExprNode::Map(MapFn::Erf, _) => Some(LibFn::Erf),
        ExprNode::Zip(ZipFn::Pow, ..) => Some(LibFn::Pow),
        ExprNode::Zip(ZipFn::Atan2, ..) => Some(LibFn::Atan2),
        _ => None,
    };
    expr.nodes().iter().filter_map(call).collect()
}

/// Compiles an expression into another module; the routines it calls are there
/// already.
pub(super) fn define_kernel(
    module: &mut impl Module,
    name: &str,
    (expr, precision): (&Expr, Precision),
    routines: &BTreeMap<LibFn, FuncId>,
) -> Result<FuncId, JitError> {
    let mut signature = module.make_signature();
    signature.params.extend([AbiParam::new(types::I64); 6]);
    let id = module
        .declare_function(name, Linkage::Local, &signature)
        .map_err(JitError::new)?;
    let mut context = module.make_context();
    context.func = Function::with_name_signature(UserFuncName::user(0, id.as_u32()), signature);
    let mut libs = BTreeMap::new();
    for (&f, &routine) in routines {
        libs.insert(f, module.declare_func_in_func(routine, &mut context.func));
    }
    let mut frontend = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut frontend);
    emit_loops(&mut builder, expr, precision, &libs);
    builder.finalize(module.target_config());
    module
        .define_function(id, &mut context)
        .map_err(JitError::new)?;
    Ok(id)
}

/// for row in 0..rows { for byte in (0..bytes).step_by(16) { out = expr } }
fn emit_loops(
    b: &mut FunctionBuilder,
    expr: &Expr,
    precision: Precision,
    libs: &BTreeMap<LibFn, cranelift_codegen::ir::FuncRef>,
) {
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let [arena, statics, pool, table, rows, bytes] = *b.block_params(entry) else {
        unreachable!("six parameters")
    };
    let (outer, inner, next, done) = (
        b.create_block(),
        b.create_block(),
        b.create_block(),
        b.create_block(),
    );
    for block in [outer, next] {
        b.append_block_param(block, types::I64);
        b.append_block_param(block, types::I64);
    }
    b.append_block_param(inner, types::I64);
    let zero = b.ins().iconst(types::I64, 0);
    let any = b.ins().icmp(IntCC::SignedGreaterThan, rows, zero);
    b.ins()
        .brif(any, outer, &[zero.into(), table.into()], done, &[]);

    b.switch_to_block(outer);
    let (row, entry_ptr) = (b.block_params(outer)[0], b.block_params(outer)[1]);
    let flags = MemFlagsData::trusted();
    let offset =
        |b: &mut FunctionBuilder, k: usize| b.ins().sload32(flags, entry_ptr, (4 * k) as i32);
    let out = {
        let o = offset(b, 0);
        b.ins().iadd(arena, o)
    };
    let leaves: Vec<(Leaf, Value)> = expr
        .leaves()
        .iter()
        .enumerate()
        .map(|(k, &leaf)| {
            let o = offset(b, k + 1);
            let base = match leaf {
                Leaf::Row => arena,
                Leaf::Static => statics,
                Leaf::Scalar => pool,
            };
            let p = b.ins().iadd(base, o);
            if leaf != Leaf::Scalar {
                return (leaf, p);
            }
            let (scalar, vector) = match precision {
                Precision::F32 => (types::F32, types::F32X4),
                Precision::F64 => (types::F64, types::F64X2),
            };
            let x = b.ins().load(scalar, flags, p, 0);
            (leaf, b.ins().splat(vector, x))
        })
        .collect();
    b.ins().jump(inner, &[zero.into()]);

    b.switch_to_block(inner);
    let byte = b.block_params(inner)[0];
    let mut lanes = Lanes { b, precision, libs };
    let ty = lanes.ty();
    let operands: Vec<Value> = leaves
        .iter()
        .map(|&(leaf, v)| {
            if leaf == Leaf::Scalar {
                return v;
            }
            let p = lanes.b.ins().iadd(v, byte);
            lanes
                .b
                .ins()
                .load(ty, MemFlagsData::new().with_notrap(), p, 0)
        })
        .collect();
    let value = emit_expr(&mut lanes, expr, &operands);
    let p = b.ins().iadd(out, byte);
    b.ins()
        .store(MemFlagsData::new().with_notrap(), value, p, 0);
    let byte = b.ins().iadd_imm_s(byte, 16);
    let more = b.ins().icmp(IntCC::SignedLessThan, byte, bytes);
    let row_next = b.ins().iadd_imm_s(row, 1);
    let entry_next = b
        .ins()
        .iadd_imm_s(entry_ptr, 4 * (expr.leaves().len() as i64 + 1));
    b.ins().brif(
        more,
        inner,
        &[byte.into()],
        next,
        &[row_next.into(), entry_next.into()],
    );

    b.switch_to_block(next);
    let (row, entry_ptr) = (b.block_params(next)[0], b.block_params(next)[1]);
    let more = b.ins().icmp(IntCC::SignedLessThan, row, rows);
    b.ins()
        .brif(more, outer, &[row.into(), entry_ptr.into()], done, &[]);
    b.switch_to_block(done);
    b.ins().return_(&[]);
    b.seal_all_blocks();
}

/// Values of all nodes of an expression; returns that of the last.
fn emit_expr(v: &mut Lanes, expr: &Expr, operands: &[Value]) -> Value {
    let mut values: Vec<Value> = Vec::with_capacity(expr.nodes().len());
    for node in expr.nodes() {
        let value = match *node {
            ExprNode::Leaf(k) => operands[k],
            ExprNode::Number(bits) => v.constant(f64::from_bits(bits)),
            ExprNode::Map(f, a) => emit_map(v, f, values[a]),
            ExprNode::Sigmoid(a) => v.sigmoid(values[a]),
            ExprNode::Fma(a, b, c) => v.fma(values[a], values[b], values[c]),
            ExprNode::Zip(f, a, b) => emit_zip(v, f, values[a], values[b]),
        };
        values.push(value);
    }
    *values.last().expect("an expression has a node")
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
        MapFn::Erf => v.library(LibFn::Erf, &[a]),
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
        ZipFn::Max => v.select(FloatCC::LessThan, (a, b), b, a),
        ZipFn::Min => v.select(FloatCC::LessThan, (b, a), b, a),
        ZipFn::Atan2 => v.library(LibFn::Atan2, &[a, b]),
        ZipFn::Mod => {
            let q = v.div(a, b);
            let q = v.b.ins().floor(q);
            let q = v.neg(q);
            v.fma(q, b, a)
        }
        ZipFn::Greater => {
            let (zero, one) = (v.constant(0.0), v.constant(1.0));
            v.select(FloatCC::GreaterThan, (a, b), one, zero)
        }
    }
}
