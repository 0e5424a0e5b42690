//! Expressions: from flat operator chains to trees.

use super::ast::*;
use super::build::{Builder, Built, Node, Nodes};
use super::grammar::Rule;
use super::parser::MAX_TREE_DEPTH;
use crate::diag::{Code, Diagnostic};
use std::iter::Peekable;

/// Binding strength of prefix operators: tighter than `*`, looser than `^`.
const PREFIX: u8 = 6;
const POWER: u8 = 7;
const COMPARISON: u8 = 3;

fn infix_operator(text: &str) -> (BinaryOp, u8) {
    match text {
        "or" => (BinaryOp::Or, 1),
        "and" => (BinaryOp::And, 2),
        "==" => (BinaryOp::Eq, COMPARISON),
        "!=" => (BinaryOp::Ne, COMPARISON),
        "<" => (BinaryOp::Lt, COMPARISON),
        "<=" => (BinaryOp::Le, COMPARISON),
        ">" => (BinaryOp::Gt, COMPARISON),
        ">=" => (BinaryOp::Ge, COMPARISON),
        "+" => (BinaryOp::Add, 4),
        "-" => (BinaryOp::Sub, 4),
        "*" => (BinaryOp::Mul, 5),
        "/" => (BinaryOp::Div, 5),
        "%" => (BinaryOp::Rem, 5),
        "@" => (BinaryOp::MatMul, 5),
        _ => (BinaryOp::Pow, POWER),
    }
}

impl Builder<'_> {
    /// An `expr` or `offset` pair: an operator chain and, in the former, pipes.
    pub(super) fn expr(&mut self, node: Node) -> Built<Expr> {
        let place = self.span(&node);
        // Every operator may add one level to the tree.
        let levels = 1 + node
            .clone()
            .into_inner()
            .filter(|n| matches!(n.as_rule(), Rule::infix | Rule::prefix | Rule::pipe))
            .count();
        self.nested(levels, place, |builder| {
            let mut parts = node.into_inner().peekable();
            let mut left = builder.operators(&mut parts, 0)?;
            for pipe in parts {
                left = builder.pipe(left, pipe)?;
            }
            Ok(left)
        })
    }

    /// Runs `inner` with the tree `levels` deeper, or reports E0002.
    pub(super) fn nested<T>(
        &mut self,
        levels: usize,
        place: Span,
        inner: impl FnOnce(&mut Self) -> Built<T>,
    ) -> Built<T> {
        if self.depth + levels > MAX_TREE_DEPTH {
            let message =
                format!("more than {MAX_TREE_DEPTH} operators and brackets inside each other");
            return Err(Box::new(
                Diagnostic::new(Code::E0002, message, place, "too deep")
                    .help("name inner parts with `let` or move them into functions"),
            ));
        }
        self.depth += levels;
        let result = inner(self);
        self.depth -= levels;
        result
    }

    fn pipe(&mut self, left: Expr, node: Node) -> Built<Expr> {
        let target = first(node);
        let call = self.call_parts(target)?;
        let span = left.span.to(call.span);
        Ok(Expr {
            kind: ExprKind::Pipe(Box::new(left), Box::new(call)),
            span,
        })
    }

    /// Precedence climbing over a flat chain; stops at a pipe.
    fn operators(&mut self, parts: &mut Peekable<Nodes>, min: u8) -> Built<Expr> {
        let mut left = self.operand(parts)?;
        let mut compared = false;
        while let Some(node) = parts.peek().filter(|n| n.as_rule() == Rule::infix) {
            let (op, strength) = infix_operator(node.as_str());
            if strength < min {
                break;
            }
            let place = self.span(node);
            if strength == COMPARISON && std::mem::replace(&mut compared, true) {
                return Err(Box::new(
                    Diagnostic::new(
                        Code::E0001,
                        "comparisons do not chain",
                        place,
                        "second comparison",
                    )
                    .help("write `a < b and b < c`"),
                ));
            }
            parts.next();
            let right = self.operators(
                parts,
                if strength == POWER {
                    POWER
                } else {
                    strength + 1
                },
            )?;
            let span = left.span.to(right.span);
            left = Expr {
                kind: ExprKind::Binary(op, Box::new(left), Box::new(right)),
                span,
            };
        }
        Ok(left)
    }

    fn operand(&mut self, parts: &mut Peekable<Nodes>) -> Built<Expr> {
        let node = parts.next().expect("the grammar puts an operand here");
        if node.as_rule() != Rule::prefix {
            return self.primary(node);
        }
        let op = if node.as_str() == "-" {
            UnaryOp::Neg
        } else {
            UnaryOp::Not
        };
        let start = self.span(&node);
        let inner = self.operators(parts, PREFIX)?;
        let span = start.to(inner.span);
        Ok(Expr {
            kind: ExprKind::Unary(op, Box::new(inner)),
            span,
        })
    }

    fn primary(&mut self, node: Node) -> Built<Expr> {
        let span = self.span(&node);
        let kind = match node.as_rule() {
            Rule::number => number(node.as_str(), span)?,
            Rule::string => ExprKind::Str(node.as_str().trim_matches('"').to_string()),
            Rule::bool => ExprKind::Bool(node.as_str() == "true"),
            Rule::if_expr => return self.if_expr(node),
            Rule::sum_loop => {
                let mut inner = parts(node);
                let var = self.ident(take(&mut inner));
                let (from, to, term) = (
                    self.expr(take(&mut inner))?,
                    self.expr(take(&mut inner))?,
                    self.expr(take(&mut inner))?,
                );
                ExprKind::Sum(Box::new(SumLoop {
                    var,
                    from,
                    to,
                    term,
                }))
            }
            Rule::call => {
                let call = self.call_parts(node)?;
                if call.parens {
                    ExprKind::Call(Box::new(call))
                } else {
                    ExprKind::Path(call.function)
                }
            }
            Rule::list => ExprKind::List(self.exprs(node)?),
            _ => {
                let comma = node
                    .clone()
                    .into_inner()
                    .any(|n| n.as_rule() == Rule::comma);
                let mut items = self.exprs(node)?;
                match items.pop() {
                    Some(only) if items.is_empty() => {
                        if comma {
                            return Err(Box::new(
                                Diagnostic::new(
                                    Code::E0001,
                                    "a tuple has at least two elements",
                                    span,
                                    "one element",
                                )
                                .help("remove the comma"),
                            ));
                        }
                        ExprKind::Paren(Box::new(only))
                    }
                    last => {
                        items.extend(last);
                        ExprKind::Tuple(items)
                    }
                }
            }
        };
        Ok(Expr { kind, span })
    }

    /// `if a {b} else if c {d} else {e}`, nested to the right.
    fn if_expr(&mut self, node: Node) -> Built<Expr> {
        let whole = self.span(&node);
        let mut branches: Vec<(u32, Node, Node)> = Vec::new();
        let mut otherwise = None;
        // Each inner `if` begins at its keyword and ends with the whole.
        let mut start = whole.start;
        let mut inner = node
            .into_inner()
            .filter(|n| n.as_rule() == Rule::kw_if || n.as_rule() == Rule::expr);
        while let Some(part) = inner.next() {
            if part.as_rule() == Rule::kw_if {
                start = self.span(&part).start;
            } else if let Some(value) = inner.next() {
                branches.push((start, part, value));
            } else {
                otherwise = Some(part);
            }
        }
        let otherwise = otherwise.expect("the grammar ends an `if` expression with `else`");
        self.nested(branches.len(), whole, |builder| {
            let mut result = builder.expr(otherwise)?;
            for (start, condition, value) in branches.into_iter().rev() {
                let (condition, value) = (builder.expr(condition)?, builder.expr(value)?);
                let span = Span { start, ..whole };
                result = Expr {
                    kind: ExprKind::If(Box::new(condition), Box::new(value), Box::new(result)),
                    span,
                };
            }
            Ok(result)
        })
    }

    /// `path`, `path(args)`, `path(args) as label`.
    fn call_parts(&mut self, node: Node) -> Built<Call> {
        let span = self.span(&node);
        let mut call = Call {
            function: Vec::new(),
            args: Vec::new(),
            parens: false,
            label: None,
            span,
        };
        for part in node.into_inner() {
            match part.as_rule() {
                Rule::path => call.function = parts(part).map(|n| self.ident(n)).collect(),
                Rule::args => {
                    call.parens = true;
                    for arg in parts(part) {
                        let mut inner = parts(arg);
                        let mut value = take(&mut inner);
                        let mut key = None;
                        if value.as_rule() == Rule::key {
                            key = Some(self.ident(first(value)));
                            value = take(&mut inner);
                        }
                        call.args.push((key, self.expr(value)?));
                    }
                }
                _ => call.label = Some(self.ident(first(part))),
            }
        }
        Ok(call)
    }

    /// All `expr` children.
    pub(super) fn exprs(&mut self, node: Node) -> Built<Vec<Expr>> {
        parts(node).map(|n| self.expr(n)).collect()
    }
}

/// The first child that is not a keyword.
pub(super) fn first(node: Node) -> Node {
    take(&mut parts(node))
}

/// The next pair; the grammar guarantees it.
pub(super) fn take<'i>(nodes: &mut impl Iterator<Item = Node<'i>>) -> Node<'i> {
    nodes.next().expect("the grammar puts a node here")
}

/// Children without keywords and punctuation.
pub(super) fn parts(node: Node) -> impl Iterator<Item = Node> {
    node.into_inner()
        .filter(|n| !super::build::is_token(n.as_rule()))
}

fn number(text: &str, span: Span) -> Built<ExprKind> {
    if let Some(digits) = text.strip_suffix('i') {
        return Ok(ExprKind::Imaginary(real(digits, span)?));
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return match text.parse() {
            Ok(value) => Ok(ExprKind::Nat(value)),
            Err(_) => Err(Box::new(
                Diagnostic::new(
                    Code::E0204,
                    "integer literal is too large",
                    span,
                    format!("more than {}", u64::MAX),
                )
                .help("write a real number, e.g. `1e20`"),
            )),
        };
    }
    Ok(ExprKind::Real(real(text, span)?))
}

fn real(text: &str, span: Span) -> Built<f64> {
    // The grammar's numbers are a subset of what `f64` reads.
    let value: f64 = text.parse().unwrap_or(f64::INFINITY);
    if value.is_finite() {
        return Ok(value);
    }
    Err(Box::new(Diagnostic::new(
        Code::E0204,
        "number literal is too large",
        span,
        "not a finite 64-bit number",
    )))
}
