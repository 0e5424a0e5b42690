//! One function per phase: what the threads do between two barriers.
//!
//! Inside one large kernel the compiler keeps addresses and indices of all phases
//! in registers at once; as functions of their own they share none. Phases with the
//! same code, as stages of equal transforms have, are one function.

use super::super::ast::{Expr, Phase, Stmt, Type};
use super::super::names::Name;

/// Splits a kernel's body at its barriers: phases, and the code that calls them.
pub(super) fn outline(body: Vec<Stmt>) -> (Vec<Phase>, Vec<Stmt>) {
    let mut phases = Vec::new();
    let body = split(body, &[], &mut phases);
    (phases, body)
}

fn split(body: Vec<Stmt>, arguments: &[&'static str], phases: &mut Vec<Phase>) -> Vec<Stmt> {
    let mut code = Vec::new();
    let mut run = Vec::new();
    for s in body {
        match s {
            Stmt::Barrier => {
                finish(&mut run, arguments, phases, &mut code);
                code.push(Stmt::Barrier);
            }
            Stmt::Chunks(first, count, step, mut inner) => {
                finish(&mut run, arguments, phases, &mut code);
                // the number of things in this chunk comes first
                let head = inner.remove(0);
                let mut all = vec![head];
                all.extend(split(inner, &["first", "count"], phases));
                code.push(Stmt::Chunks(first, count, step, all));
            }
            other => run.push(other),
        }
    }
    finish(&mut run, arguments, phases, &mut code);
    code
}

fn finish(
    run: &mut Vec<Stmt>,
    arguments: &[&'static str],
    phases: &mut Vec<Phase>,
    code: &mut Vec<Stmt>,
) {
    if run.is_empty() {
        return;
    }
    let body = std::mem::take(run);
    let takes: Vec<Name> = arguments.iter().map(|&n| n.into()).collect();
    let known = phases
        .iter()
        .find(|p| p.arguments == takes && p.body == body);
    let name = match known {
        Some(p) => p.name.clone(),
        None => Name::numbered("phase_", phases.len()),
    };
    let mut given = vec![Expr::var("a"), Expr::var("sample")];
    given.extend(arguments.iter().map(|&n| Expr::var(n)));
    code.push(Stmt::Do(Expr::call(name.clone(), given, Type::Int)));
    if known.is_none() {
        phases.push(Phase {
            name,
            arguments: takes,
            body,
            blocks: Vec::new(),
        });
    }
}
