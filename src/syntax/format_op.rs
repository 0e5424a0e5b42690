//! The formatter: statements of operators.

use super::ast::*;
use super::format::Printer;
use super::layout::Doc;

impl Printer<'_> {
    pub(super) fn op_block(&mut self, stmts: &[OpStmt], close: u32) -> Doc {
        let spans: Vec<Span> = stmts.iter().map(|s| s.span).collect();
        self.braces(&spans, close, |printer, index| {
            printer.op_stmt(&stmts[index])
        })
    }

    fn op_stmt(&mut self, stmt: &OpStmt) -> Doc {
        let mut parts = Vec::new();
        match &stmt.kind {
            OpStmtKind::Let { name, value } => {
                parts.extend([
                    Doc::text("let "),
                    self.ident(name),
                    Doc::text(" = "),
                    self.expr(value),
                ]);
            }
            OpStmtKind::Term(term) => parts.extend([Doc::text("term "), self.expr(term)]),
            OpStmtKind::For { domain, cond, term } => {
                parts.extend([Doc::text("for "), self.domain(domain)]);
                if let Some(cond) = cond {
                    parts.extend([Doc::text(" where "), self.expr(cond)]);
                }
                parts.extend([Doc::text(": "), self.expr(term)]);
            }
            OpStmtKind::If {
                cond,
                then,
                otherwise,
            } => {
                // The tree does not keep the places of these braces.
                let open = self.token_after(cond.span.end);
                let close = self.token_after(then.last().map_or(open + 1, |s| s.span.end));
                parts.extend([
                    Doc::text("if "),
                    self.expr(cond),
                    Doc::text(" "),
                    self.op_block(then, close),
                ]);
                if let [first, ..] = otherwise.as_slice() {
                    parts.push(Doc::text(" else "));
                    let brace = self.token_after(self.token_after(close + 1) + "else".len() as u32);
                    if brace == first.span.start {
                        parts.extend([self.before(brace), self.op_stmt(first)]);
                    } else {
                        let end = otherwise.last().map_or(brace, |s| s.span.end);
                        let close = self.token_after(end);
                        parts.push(self.op_block(otherwise, close));
                    }
                }
            }
        }
        Doc::Seq(parts)
    }

    fn domain(&mut self, domain: &ForDomain) -> Doc {
        Doc::Seq(match domain {
            ForDomain::Sites(i) => vec![self.ident(i)],
            ForDomain::Range(i, lo, hi) => {
                vec![
                    self.ident(i),
                    Doc::text(" in "),
                    self.expr(lo),
                    Doc::text(".."),
                    self.expr(hi),
                ]
            }
            ForDomain::Pairs(i, j) => vec![self.ident(i), Doc::text(" < "), self.ident(j)],
            ForDomain::Bonds(i, j, k) => vec![
                Doc::text("("),
                self.ident(i),
                Doc::text(", "),
                self.ident(j),
                Doc::text(") in bonds("),
                self.expr(k),
                Doc::text(")"),
            ],
        })
    }
}
