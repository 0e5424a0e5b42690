//! What a network computes or declares in vain.

use super::core::{CoreOp, NetworkInfo};
use super::modules::Modules;
use crate::diag::{Code, Diagnostic};

/// Warnings for parameters and mixers that do not reach `log_psi`.
pub fn warnings(modules: &Modules, info: &NetworkInfo) -> Vec<Diagnostic> {
    let mut live = vec![false; info.values.len()];
    let mut stack = vec![info.log_psi];
    while let Some(id) = stack.pop() {
        if !std::mem::replace(&mut live[id.0 as usize], true) {
            stack.extend(&info.value(id).args);
        }
    }
    let mut out = Vec::new();
    for (k, v) in info.values.iter().enumerate() {
        let CoreOp::Param(p) = v.op else { continue };
        if !live[k] {
            let param = &info.params[p.0 as usize];
            let outer = v
                .via
                .iter()
                .rev()
                .map(|c| c.1)
                .find(|s| !modules.in_std(*s));
            let span = if modules.in_std(param.span) {
                outer.unwrap_or(param.span)
            } else {
                param.span
            };
            out.push(
                Diagnostic::new(
                    Code::W0602,
                    format!("parameter `{}` does not influence `log_psi`", param.path),
                    span,
                    "declared here",
                )
                .help("use the value it makes, or remove it"),
            );
        }
    }
    for m in &info.mixers {
        // Mixers the library's mixers are made of die with them.
        if !live[m.output.0 as usize] && !modules.in_std(m.span) {
            out.push(
                Diagnostic::new(
                    Code::W0603,
                    format!("the result of mixer `{}` does not reach `log_psi`", m.name),
                    m.span,
                    "this mixer is dead",
                )
                .help("use its result, or remove it"),
            );
        }
    }
    out
}
