//! The calls of a large kernel as data.
//!
//! A compiler spends as much on a call as on some machine instructions of its own: most
//! of its time, where several hundred calls share some sixty functions. As numbers in
//! memory they cost it nothing, and the GPU a look at them.

use super::super::ast::{Expr, Phase, Step, Stmt, What};
use super::super::names::Name;

/// The steps of a body made of calls and barriers, and what is left of it: barriers at its
/// end. All of it if there is anything else.
pub(super) fn steps(body: Vec<Stmt>, phases: &[Phase]) -> (Vec<Step>, Vec<Stmt>) {
    let mut steps = Vec::new();
    let mut waits = false;
    match add(&body, phases, &mut steps, &mut waits) {
        Some(()) => (
            steps,
            if waits {
                vec![Stmt::Barrier]
            } else {
                Vec::new()
            },
        ),
        None => (Vec::new(), body),
    }
}

fn add(body: &[Stmt], phases: &[Phase], steps: &mut Vec<Step>, waits: &mut bool) -> Option<()> {
    for s in body {
        let what = match s {
            Stmt::Barrier => {
                *waits = true;
                continue;
            }
            Stmt::Do(Expr::Call(name, given, _)) => {
                let number = phases.iter().position(|p| p.name == *name)?;
                let always = given.len() - phases[number].arguments.len();
                let own = given[always + phases[number].taken()..].to_vec();
                What::Call(number, own)
            }
            Stmt::Chunks(first, count, step, inner) if *first == Name::from(Phase::TAKEN[0]) => {
                let waited = std::mem::take(waits);
                steps.push(Step {
                    waits: waited,
                    what: What::Take(*count, *step),
                });
                // the number of things taken comes first
                add(&inner[1..], phases, steps, waits)?;
                What::Again
            }
            _ => return None,
        };
        steps.push(Step {
            waits: std::mem::take(waits),
            what,
        });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::back::cuda::ast::Type;

    fn call(phase: usize, given: &[Expr]) -> Stmt {
        let mut all = vec![Expr::var("a"), Expr::var("sample")];
        all.extend(given.iter().cloned());
        Stmt::Do(Expr::call(Name::numbered("phase_", phase), all, Type::Int))
    }

    /// The calls that steps make, with the things taken as numbers; `None`: a barrier.
    fn made(steps: &[Step], phases: &[Phase]) -> Vec<Option<(usize, Vec<Expr>)>> {
        let (mut all, mut at) = (Vec::new(), 0);
        let (mut first, mut total, mut size, mut begin) = (0, 0usize, 0, 0);
        while let Some(step) = steps.get(at) {
            all.extend(step.waits.then_some(None));
            at += 1;
            match &step.what {
                What::Call(phase, own) => {
                    let left = total.saturating_sub(first);
                    let taken = [first, size.min(left)].map(Expr::int);
                    let mut given = taken[..phases[*phase].taken()].to_vec();
                    given.extend(own.iter().cloned());
                    all.push(Some((*phase, given)));
                }
                What::Take(n, most) => (first, total, size, begin) = (0, *n, *most, at),
                What::Again => {
                    first += size;
                    if first < total {
                        at = begin;
                    }
                }
            }
        }
        all
    }

    #[test]
    fn steps_are_the_calls_they_were_made_of() {
        let phase = |k: usize, arguments: &[&'static str]| Phase {
            name: Name::numbered("phase_", k),
            arguments: arguments.iter().map(|&n| n.into()).collect(),
            body: Vec::new(),
            blocks: Vec::new(),
        };
        let phases = [
            phase(0, &[]),
            phase(1, &["at_0", "n_1"]),
            phase(2, &["first", "count", "at_0"]),
        ];
        let [first, count] = Phase::TAKEN.map(Expr::var);
        let chunk = |total: usize, size: usize| {
            let taken = vec![
                Stmt::Let("count".into(), Expr::int(size)),
                call(2, &[first.clone(), count.clone(), Expr::var("b0")]),
                Stmt::Barrier,
                call(0, &[]),
                Stmt::Barrier,
            ];
            Stmt::Chunks("first".into(), total, size, taken)
        };
        let body = vec![
            call(0, &[]),
            call(1, &[Expr::var("b3"), Expr::Int(7)]),
            Stmt::Barrier,
            chunk(7, 3),
            call(1, &[Expr::var("b4"), Expr::Int(8)]),
            chunk(2, 2),
            Stmt::Barrier,
        ];
        let (all, left) = steps(body.clone(), &phases);
        assert_eq!(left, [Stmt::Barrier]);
        let taken = |k: usize, n: usize| vec![Expr::int(k), Expr::int(n), Expr::var("b0")];
        let chunk = |k, n| [Some((2, taken(k, n))), None, Some((0, vec![])), None];
        let one = |name, k| Some((1, vec![Expr::var(name), Expr::Int(k)]));
        let mut want = vec![Some((0, vec![])), one("b3", 7), None];
        for (k, n) in [(0, 3), (3, 3), (6, 1)] {
            want.extend(chunk(k, n));
        }
        want.push(one("b4", 8));
        want.extend(chunk(0, 2));
        assert_eq!(made(&all, &phases), want);
        // what is no call stays as it is
        let other = [body, vec![Stmt::Let("x".into(), Expr::Int(1))]].concat();
        assert_eq!(steps(other.clone(), &phases), (Vec::new(), other));
    }
}
