//! Checks that need the lattice: tokens tile it, windows fit it, the boundary
//! is one the primitives support.

use super::core::{CoreOp, Kind, NetworkInfo, Place, Token};
use super::elaborate::show_kind;
use super::modules::Modules;
use crate::diag::{Code, Diagnostic};
use crate::syntax::ast::{LatticeKind, Span};
use std::collections::HashSet;

/// Extent per axis (`[N, 1]` on a chain) and whether the boundary is periodic.
#[derive(Clone, Copy, Debug)]
pub struct Sites {
    /// Spins along each axis.
    pub extent: [usize; 2],
    /// Ring or torus.
    pub periodic: bool,
}

/// Everything that keeps a checked network from this lattice: E0501 (window),
/// E0502 (tokens), E0503 (boundary).
pub fn check(modules: &Modules, info: &NetworkInfo, sites: Sites) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    let mut seen = HashSet::new();
    let axes = if info.lattice == LatticeKind::Chain {
        1
    } else {
        2
    };
    let user = |v: &super::core::Value| -> Span {
        if modules.in_std(v.span) {
            v.via
                .iter()
                .rev()
                .map(|c| c.1)
                .find(|s| !modules.in_std(*s))
                .unwrap_or(v.span)
        } else {
            v.span
        }
    };
    for v in &info.values {
        let token = match v.ty.place {
            Place::Site(t) | Place::Displacement(t) | Place::Momentum(t) | Place::Pair(t) => t,
            Place::Whole => Token::SPIN,
        };
        let span = user(v);
        for axis in 0..axes {
            let (n, t) = (sites.extent[axis], token.0[axis]);
            if n % t != 0 && seen.insert((Code::E0502, t, axis)) {
                out.push(
                    Diagnostic::new(
                        Code::E0502,
                        format!("tokens of {t} spins do not tile {n} sites"),
                        span,
                        format!("{n} is not a multiple of {t}"),
                    )
                    .help(format!(
                        "choose a number of sites divisible by {t}, or another token size"
                    )),
                );
            }
            if let Kind::Local(w) = v.kind {
                let width = w.hi[axis] - w.lo[axis] + 1;
                if width > n as i64 && seen.insert((Code::E0501, 0, axis)) {
                    out.push(
                        Diagnostic::new(
                            Code::E0501,
                            format!("a window of {width} spins is wider than the lattice of {n}"),
                            span,
                            format!("this is {}", show_kind(v.kind, v.ty.place, info.lattice)),
                        )
                        .help("use more sites, fewer blocks or a narrower kernel"),
                    );
                }
            }
        }
        if !sites.periodic
            && matches!(v.op, CoreOp::Momentum { .. } | CoreOp::Modes)
            && seen.insert((Code::E0503, 0, 0))
        {
            out.push(
                Diagnostic::new(
                    Code::E0503,
                    "momenta exist on a ring only",
                    span,
                    "the boundary is open",
                )
                .help("use `--boundary periodic`, or a kernel in real space (`convolve`)"),
            );
        }
    }
    out
}
