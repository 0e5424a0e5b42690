//! Visits the parts of a body that other passes ask about.

use crate::syntax::ast::*;

/// What the visitor is told about.
pub enum Node<'a> {
    /// A `param` statement.
    Param,
    /// A call, also of a pipe.
    Call(&'a Call),
}

/// Visits every `param` and every call of a body.
pub fn body<'a>(body: &'a Body, visit: &mut dyn FnMut(Node<'a>)) {
    match body {
        Body::Expr(e) => expr(e, visit),
        Body::Block(b) => block(b, visit),
    }
}

/// Visits a block.
pub fn block<'a>(b: &'a Block, visit: &mut dyn FnMut(Node<'a>)) {
    for stmt in &b.stmts {
        match &stmt.kind {
            StmtKind::Let { value, .. }
            | StmtKind::Var { value, .. }
            | StmtKind::Assign { value, .. }
            | StmtKind::AddAssign { value, .. }
            | StmtKind::Return(value) => expr(value, visit),
            StmtKind::Param(_) => visit(Node::Param),
            StmtKind::Repeat { body, .. } => block(body, visit),
            StmtKind::If {
                then, otherwise, ..
            } => {
                block(then, visit);
                if let Some(b) = otherwise {
                    block(b, visit);
                }
            }
        }
    }
}

/// Visits an expression. Long operator chains do not recurse per operator.
pub fn expr<'a>(e: &'a Expr, visit: &mut dyn FnMut(Node<'a>)) {
    let mut stack = vec![e];
    while let Some(e) = stack.pop() {
        match &e.kind {
            ExprKind::Call(call) => {
                visit(Node::Call(call));
                stack.extend(call.args.iter().map(|(_, a)| a));
            }
            ExprKind::Pipe(first, call) => {
                visit(Node::Call(call));
                stack.push(first);
                stack.extend(call.args.iter().map(|(_, a)| a));
            }
            _ => stack.extend(children(e)),
        }
    }
}

/// Direct subexpressions of anything but calls and pipes.
pub fn children(e: &Expr) -> Vec<&Expr> {
    match &e.kind {
        ExprKind::Unary(_, a) | ExprKind::Paren(a) => vec![a],
        ExprKind::Binary(_, a, b) => vec![a, b],
        ExprKind::Tuple(parts) | ExprKind::List(parts) => parts.iter().collect(),
        ExprKind::If(a, b, c) => vec![a, b, c],
        _ => vec![],
    }
}
