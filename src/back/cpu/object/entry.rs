//! The functions a C program calls.

use super::super::jit::JitError;
use super::routines::{Code, define};
use super::{Argument, Call};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use cranelift_module::{DataId, FuncId, Linkage, Module};
use cranelift_object::ObjectModule;
use std::collections::HashMap;

/// Defines all of them. Results are offsets into the workspace, or numbers known
/// now; `bytes` are those of the arena, behind which a configuration has room.
pub(super) fn points(
    module: &mut ObjectModule,
    name: &str,
    calls: &[Call],
    data: DataId,
    (results, sites, bytes): (&[Result<usize, f64>], i64, i64),
) -> Result<(), JitError> {
    let one = define(
        module,
        ("evaluate", Linkage::Local),
        (3, None),
        |module, c, given| {
            let &[spins, out, arena] = given else {
                unreachable!("three arguments")
            };
            steps(module, c, calls, data, (spins, arena));
            for (k, result) in results.iter().enumerate() {
                let x = match *result {
                    Ok(at) => {
                        let at = c.b.ins().iadd_imm_s(arena, at as i64);
                        c.load(types::F64, at)
                    }
                    Err(x) => c.b.ins().f64const(x),
                };
                let to = c.b.ins().iadd_imm_s(out, 8 * k as i64);
                c.store(x, to);
            }
            None
        },
    )?;
    let width = results.len() as i64;
    define(
        module,
        (&format!("{name}_log_psi"), Linkage::Export),
        (4, Some(types::I32)),
        |module, c, given| {
            let &[spins, count, out, arena] = given else {
                unreachable!("four arguments")
            };
            clean(c, arena, bytes);
            let one = module.declare_func_in_func(one, c.b.func);
            c.for_each(count, |c, k| {
                let from = c.at(spins, k, sites);
                let to = c.at(out, k, 8 * width);
                c.b.ins().call(one, &[from, to, arena]);
            });
            Some(c.b.ins().iconst(types::I32, 0))
        },
    )?;
    ratio(module, name, one, (sites, width, bytes))?;
    let sizes = [
        (
            "workspace_bytes",
            bytes + (sites as u64).next_multiple_of(64) as i64,
        ),
        ("sites", sites),
        ("outputs", width),
    ];
    for (what, size) in sizes {
        define(
            module,
            (&format!("{name}_{what}"), Linkage::Export),
            (0, Some(types::I64)),
            |_, c, _| Some(c.number(size)),
        )?;
    }
    Ok(())
}

/// Calls one routine after the other.
fn steps(
    module: &mut ObjectModule,
    c: &mut Code,
    calls: &[Call],
    data: DataId,
    (spins, arena): (Value, Value),
) {
    let data = module.declare_data_in_func(data, c.b.func);
    let mut known = HashMap::new();
    for call in calls {
        let function = *known
            .entry(call.routine)
            .or_insert_with(|| module.declare_func_in_func(call.routine, c.b.func));
        let mut arguments = Vec::new();
        for argument in &call.arguments {
            arguments.push(match *argument {
                Argument::Number(n) => c.number(n),
                Argument::Arena(at) => c.b.ins().iadd_imm_s(arena, at),
                Argument::Data(at) => {
                    let start = c.b.ins().symbol_value(types::I64, data);
                    c.b.ins().iadd_imm_s(start, at as i64)
                }
                Argument::Spins => spins,
            });
        }
        c.b.ins().call(function, &arguments);
    }
}

/// Fills the workspace with zeros: lanes that belong to no site are computed too.
fn clean(c: &mut Code, arena: Value, bytes: i64) {
    let words = c.number(bytes / 8);
    let zero = c.number(0);
    c.for_each(words, |c, k| {
        let to = c.at(arena, k, 8);
        c.store(zero, to);
    });
}

/// `log psi(s') - log psi(s)` from two evaluations.
fn ratio(
    module: &mut ObjectModule,
    name: &str,
    one: FuncId,
    (sites, width, bytes): (i64, i64, i64),
) -> Result<FuncId, JitError> {
    define(
        module,
        (&format!("{name}_log_ratio"), Linkage::Export),
        (5, Some(types::I32)),
        |module, c, given| {
            let &[spins, flips, count, out, arena] = given else {
                unreachable!("five arguments")
            };
            clean(c, arena, bytes);
            let one = module.declare_func_in_func(one, c.b.func);
            c.b.ins().call(one, &[spins, out, arena]);
            let old: Vec<Value> = (0..width)
                .map(|k| {
                    let at = c.b.ins().iadd_imm_s(out, 8 * k);
                    c.load(types::F64, at)
                })
                .collect();
            let copy = c.b.ins().iadd_imm_s(arena, bytes);
            let all = c.number(sites);
            c.for_each(all, |c, k| {
                let [from, to] = [spins, copy].map(|p| c.add(p, k));
                let s = c.load(types::I8, from);
                c.store(s, to);
            });
            c.for_each(count, |c, k| {
                let at = c.at(flips, k, 8);
                let site = c.load(types::I64, at);
                let at = c.add(copy, site);
                let s = c.load(types::I8, at);
                let s = c.b.ins().ineg(s);
                c.store(s, at);
            });
            c.b.ins().call(one, &[copy, out, arena]);
            for (k, old) in old.into_iter().enumerate() {
                let at = c.b.ins().iadd_imm_s(out, 8 * k as i64);
                let new = c.load(types::F64, at);
                let difference = c.b.ins().fsub(new, old);
                c.store(difference, at);
            }
            Some(c.b.ins().iconst(types::I32, 0))
        },
    )
}
