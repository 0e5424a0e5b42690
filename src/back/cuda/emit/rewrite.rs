//! Code with other expressions and pointers in place of its own.

use super::super::ast::{Expr, Operator, Stmt};
use super::super::names::Name;

/// What takes the place of what.
pub(super) trait Rewrite {
    /// In place of an expression; `None` to go on with its parts.
    fn expr(&mut self, e: &Expr) -> Option<Expr>;
    /// In place of an index, which may be a lone integer.
    fn index(&mut self, at: &Expr) -> Expr;
    /// In place of a pointer.
    fn pointer(&mut self, name: &Name) -> Name;
}

/// Statements rewritten.
pub(super) fn list(body: &[Stmt], to: &mut impl Rewrite) -> Vec<Stmt> {
    body.iter().map(|s| stmt(s, to)).collect()
}

fn stmt(s: &Stmt, to: &mut impl Rewrite) -> Stmt {
    match s {
        Stmt::Comment(_) | Stmt::Array(..) | Stmt::Sums(..) | Stmt::Barrier => s.clone(),
        Stmt::Let(n, x) => Stmt::Let(n.clone(), expr(x, to)),
        Stmt::Var(n, x) => Stmt::Var(n.clone(), expr(x, to)),
        Stmt::Set(n, x) => Stmt::Set(n.clone(), expr(x, to)),
        Stmt::Do(x) => Stmt::Do(expr(x, to)),
        Stmt::Return(x) => Stmt::Return(expr(x, to)),
        Stmt::Store(n, at, x) => Stmt::Store(to.pointer(n), to.index(at), expr(x, to)),
        Stmt::For(n, count, b) => Stmt::For(n.clone(), expr(count, to), list(b, to)),
        Stmt::Each(n, count, b) => Stmt::Each(n.clone(), expr(count, to), list(b, to)),
        Stmt::Warps(n, count, b) => Stmt::Warps(n.clone(), expr(count, to), list(b, to)),
        Stmt::Lanes(n, count, b) => Stmt::Lanes(n.clone(), expr(count, to), list(b, to)),
        Stmt::If(condition, b) => Stmt::If(expr(condition, to), list(b, to)),
        Stmt::Chunks(n, count, step, b) => Stmt::Chunks(n.clone(), *count, *step, list(b, to)),
        Stmt::Unroll(n, count, b) => Stmt::Unroll(n.clone(), *count, list(b, to)),
    }
}

/// An expression rewritten.
pub(super) fn expr(e: &Expr, to: &mut impl Rewrite) -> Expr {
    if let Some(other) = to.expr(e) {
        return other;
    }
    let boxed = |e: &Expr, to: &mut _| Box::new(expr(e, to));
    match e {
        Expr::Int(_) | Expr::Number(..) => e.clone(),
        Expr::Var(name, ty) => Expr::Var(to.pointer(name), *ty),
        Expr::Load(name, at, ty) => Expr::Load(to.pointer(name), Box::new(to.index(at)), *ty),
        // as the operators have it, which leave out zeros
        Expr::Binary(Operator::Add, a, b) => expr(a, to) + expr(b, to),
        Expr::Binary(Operator::Sub, a, b) => expr(a, to) - expr(b, to),
        Expr::Binary(op, a, b) => Expr::Binary(*op, boxed(a, to), boxed(b, to)),
        Expr::Call(name, arguments, ty) => {
            let arguments = arguments.iter().map(|a| expr(a, to)).collect();
            Expr::Call(name.clone(), arguments, *ty)
        }
        Expr::Select(c, a, b) => Expr::Select(boxed(c, to), boxed(a, to), boxed(b, to)),
        Expr::Cast(ty, a) => Expr::Cast(*ty, boxed(a, to)),
        Expr::Negative(a) => Expr::Negative(boxed(a, to)),
    }
}
