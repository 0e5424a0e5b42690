//! The formatter's expressions.

use super::ast::*;
use super::dump::operator;
use super::format::Printer;
use super::layout::Doc;

/// What a list does that is too long for one line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Long {
    /// Each item on its own line.
    Column,
    /// As many items on a line as fit.
    Fill,
}

/// `open item, item close`, on one line if it fits. `starts` are the places of
/// the items, `end` where the last one ends (without items: behind the opening
/// bracket).
pub(super) fn comma_list(
    printer: &mut Printer,
    long: Long,
    (open, close): (&'static str, &'static str),
    starts: &[u32],
    end: u32,
    mut print: impl FnMut(&mut Printer, usize) -> Doc,
) -> Doc {
    let mut inner = Vec::new();
    for (index, start) in starts.iter().enumerate() {
        if index > 0 {
            inner.push(Doc::text(","));
        }
        let line = printer.separator(*start, if index > 0 { Doc::Line } else { Doc::Soft });
        let item = print(printer, index);
        match long {
            Long::Fill if index > 0 => inner.push(Doc::group(vec![line, item])),
            _ => inner.extend([line, item]),
        }
    }
    if !starts.is_empty() {
        inner.push(Doc::IfBroken(","));
    }
    let closing = printer.closing(end);
    // Comments before the bracket are indented like the items, the bracket is not.
    let mut last = printer.separator(closing, Doc::Soft);
    if let Doc::Seq(parts) = &mut last {
        parts.pop();
        inner.push(last);
        last = Doc::Hard;
    }
    Doc::group(vec![
        Doc::text(open),
        Doc::nest(inner),
        last,
        Doc::text(close),
    ])
}

impl Printer<'_> {
    /// An expression, with the comments before it.
    pub(super) fn expr(&mut self, value: &Expr) -> Doc {
        let before = self.before(value.span.start);
        Doc::Seq(vec![before, self.bare(value)])
    }

    fn bare(&mut self, value: &Expr) -> Doc {
        match &value.kind {
            // As written: `1e-6` stays `1e-6`.
            ExprKind::Nat(_)
            | ExprKind::Real(_)
            | ExprKind::Imaginary(_)
            | ExprKind::Bool(_)
            | ExprKind::Str(_) => {
                Doc::text(&self.text[value.span.start as usize..value.span.end as usize])
            }
            ExprKind::Path(path) => self.path(path),
            ExprKind::Call(call) => self.call(call),
            ExprKind::Pipe(..) => self.pipes(value),
            ExprKind::Unary(op, inner) => {
                let op = Doc::text(if *op == UnaryOp::Neg { "-" } else { "not " });
                Doc::Seq(vec![op, self.expr(inner)])
            }
            ExprKind::Binary(BinaryOp::Pow, base, exponent) => {
                Doc::Seq(vec![self.expr(base), Doc::text("^"), self.expr(exponent)])
            }
            ExprKind::Binary(op, ..) => self.chain(value, level(*op)),
            ExprKind::Tuple(items) => self.exprs(("(", ")"), items),
            ExprKind::List(items) if items.is_empty() => {
                let list = comma_list(
                    self,
                    Long::Fill,
                    ("[", "]"),
                    &[],
                    value.span.start + 1,
                    |_, _| Doc::nothing(),
                );
                Doc::Seq(vec![list])
            }
            ExprKind::List(items) => self.exprs(("[", "]"), items),
            ExprKind::If(..) => self.branches(value),
            ExprKind::Sum(sum) => {
                let close = value.span.end - 1;
                Doc::Seq(vec![
                    Doc::text("sum("),
                    self.ident(&sum.var),
                    Doc::text(" in "),
                    self.expr(&sum.from),
                    Doc::text(".."),
                    self.expr(&sum.to),
                    Doc::text(": "),
                    self.expr(&sum.term),
                    self.separator(close, Doc::nothing()),
                    Doc::text(")"),
                ])
            }
            ExprKind::Paren(inner) => {
                let close = value.span.end - 1;
                // What can break inside indents its own lines.
                Doc::Seq(vec![
                    Doc::text("("),
                    self.expr(inner),
                    self.separator(close, Doc::nothing()),
                    Doc::text(")"),
                ])
            }
        }
    }

    /// Expressions between brackets.
    pub(super) fn exprs(&mut self, brackets: (&'static str, &'static str), items: &[Expr]) -> Doc {
        let starts: Vec<u32> = items.iter().map(|e| e.span.start).collect();
        let end = items.last().map_or(0, |e| e.span.end);
        comma_list(
            self,
            Long::Fill,
            brackets,
            &starts,
            end,
            |printer, index| printer.expr(&items[index]),
        )
    }

    fn call(&mut self, call: &Call) -> Doc {
        let mut parts = vec![self.path(&call.function)];
        if call.parens {
            let open = call
                .function
                .last()
                .map_or(call.span.start, |n| self.token_after(n.span.end));
            let starts: Vec<u32> = call
                .args
                .iter()
                .map(|(key, value)| key.as_ref().map_or(value.span.start, |k| k.span.start))
                .collect();
            let end = call
                .args
                .last()
                .map_or(open + 1, |(_, value)| value.span.end);
            parts.push(comma_list(
                self,
                Long::Column,
                ("(", ")"),
                &starts,
                end,
                |printer, index| {
                    let (key, value) = &call.args[index];
                    match key {
                        Some(key) => Doc::Seq(vec![
                            printer.ident(key),
                            Doc::text(": "),
                            printer.expr(value),
                        ]),
                        None => printer.expr(value),
                    }
                },
            ));
        }
        if let Some(label) = &call.label {
            parts.extend([Doc::text(" as "), self.ident(label)]);
        }
        Doc::Seq(parts)
    }

    /// `x |> f |> g`: all on one line, or each pipe on its own.
    fn pipes(&mut self, value: &Expr) -> Doc {
        let mut calls = Vec::new();
        let mut head = value;
        while let ExprKind::Pipe(left, call) = &head.kind {
            calls.push(call);
            head = left;
        }
        let first = self.expr(head);
        let mut rest = Vec::new();
        for call in calls.into_iter().rev() {
            rest.push(self.separator(call.span.start, Doc::Line));
            rest.extend([Doc::text("|> "), self.call(call)]);
        }
        Doc::group(vec![first, Doc::nest(rest)])
    }

    /// `a + b - c`: operators of one level, on one line or each beginning its own.
    fn chain(&mut self, value: &Expr, at: u8) -> Doc {
        let mut operands = Vec::new();
        let mut head = value;
        while let ExprKind::Binary(op, left, right) = &head.kind {
            if level(*op) != at {
                break;
            }
            operands.push((*op, right));
            head = left;
        }
        let first = self.expr(head);
        let mut rest = Vec::new();
        for (op, right) in operands.into_iter().rev() {
            rest.push(self.separator(right.span.start, Doc::Line));
            rest.extend([Doc::text(format!("{} ", operator(op))), self.expr(right)]);
        }
        Doc::group(vec![first, Doc::nest(rest)])
    }

    /// `if a { b } else if c { d } else { e }`: on one line, or every branch on its own.
    fn branches(&mut self, value: &Expr) -> Doc {
        let mut parts = Vec::new();
        let mut rest = value;
        while let ExprKind::If(cond, then, otherwise) = &rest.kind {
            if !std::ptr::eq(rest, value) {
                parts.push(self.before(rest.span.start));
            }
            parts.extend([Doc::text("if "), self.expr(cond), Doc::text(" ")]);
            parts.extend(self.branch(then));
            parts.push(Doc::text(" else "));
            rest = otherwise;
        }
        parts.extend(self.branch(rest));
        Doc::group(parts)
    }

    fn branch(&mut self, value: &Expr) -> [Doc; 4] {
        let first = self.separator(value.span.start, Doc::Line);
        let body = self.expr(value);
        let close = self.token_after(value.span.end);
        let last = self.separator(close, Doc::Line);
        [
            Doc::text("{"),
            Doc::nest(vec![first, body]),
            last,
            Doc::text("}"),
        ]
    }
}

fn level(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 1,
        BinaryOp::And => 2,
        BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge => {
            3
        }
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Rem | BinaryOp::MatMul => 5,
        BinaryOp::Pow => 6,
    }
}
