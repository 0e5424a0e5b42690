//! From kernel expressions to native code.
//!
//! A `Kernel` is one compiled loop nest: for every row, for every vector of
//! lanes, evaluate an expression and store it. Operand addresses come from a
//! table, so one piece of code serves all channels of a layer and all layers
//! that compute the same expression.

use super::loops::{Routines, emit_loops};
use super::math::{LibFn, Precision, Wide};
use crate::ir::{MapFn, ZipFn};
use crate::kernel::expr::{Expr, ExprNode};
use cranelift_codegen::ir::{AbiParam, Function, UserFuncName, types};
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
    /// Whether functions of many operations are called on arrays.
    wide: bool,
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
        // all of them, or none
        let wide = Wide::Exp.routine(Precision::F64).is_some();
        Compiler::with(listing, wide)
    }

    /// As [`Compiler::new`], with all code inline where not `wide`: slower, and the same
    /// numbers.
    pub(super) fn with(listing: bool, wide: bool) -> Result<Compiler, JitError> {
        let mut builder = JITBuilder::with_isa(host_isa(false)?, default_libcall_names());
        for f in LibFn::ALL {
            for p in [Precision::F32, Precision::F64] {
                builder.symbol(f.symbol(p), f.address(p));
            }
        }
        for f in Wide::ALL {
            for p in [Precision::F32, Precision::F64] {
                if let Some(routine) = f.routine(p) {
                    builder.symbol(f.symbol(p), routine as *const u8);
                }
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
            wide,
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
        let mut routines = Routines::default();
        let mut declare = |symbol: &str, parameters: usize| {
            let mut s = self.module.make_signature();
            s.params.extend(vec![AbiParam::new(types::I64); parameters]);
            let callee = (self.module)
                .declare_function(symbol, Linkage::Import, &s)
                .map_err(JitError::new)?;
            Ok((self.module).declare_func_in_func(callee, &mut context.func))
        };
        for f in library_calls(expr) {
            routines.vector.insert(f, declare(&f.symbol(precision), 3)?);
        }
        let called = |n: &ExprNode| Wide::of(*n).map(|(f, _)| f).filter(|_| self.wide);
        for f in expr.nodes().iter().filter_map(called) {
            routines.wide.insert(f, declare(&f.symbol(precision), 2)?);
        }
        let mut builder = FunctionBuilder::new(&mut context.func, &mut self.contexts.1);
        emit_loops(&mut builder, expr, precision, &routines);
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
    let mut declared = Routines::default();
    for (&f, &routine) in routines {
        let routine = module.declare_func_in_func(routine, &mut context.func);
        declared.vector.insert(f, routine);
    }
    let mut frontend = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut frontend);
    emit_loops(&mut builder, expr, precision, &declared);
    builder.finalize(module.target_config());
    module
        .define_function(id, &mut context)
        .map_err(JitError::new)?;
    Ok(id)
}
