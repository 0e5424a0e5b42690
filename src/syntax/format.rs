//! The formatter: the tree written in the one style, with every comment.
//!
//! A line has at most 100 columns where that is possible, a level is indented
//! by four. Comments are printed where the walk over the tree reaches the first
//! node behind them, so none is lost and none changes places with another.

use super::ast::*;
use super::format_expr::{Long, comma_list};
use super::layout::{self, Doc};
use crate::diag::Diagnostic;

/// Formats a file.
///
/// The result parses to the same tree (up to spans) and is a fixed point.
///
/// # Errors
/// The syntax errors of the source.
pub fn format(source: &str) -> Result<String, Vec<Diagnostic>> {
    let mut sources = SourceMap::default();
    let file = sources.add("<source>", source);
    Ok(format_module(&sources, &super::parse(&sources, file)?))
}

/// Formats a parsed file.
pub fn format_module(sources: &SourceMap, module: &Module) -> String {
    let text = &sources.files[module.file.0 as usize].text;
    let mut printer = Printer {
        text,
        comments: &module.comments,
        next: 0,
    };
    let mut out = String::new();
    let mut previous_long = false;
    for item in &module.items {
        let leading = printer.leading(item.span.start);
        let body = printer.item(item);
        let trailing = printer.trailing(item.span.end);
        let body = layout::write(&Doc::Seq(vec![body, trailing]));
        let long = body.trim_end().contains('\n');
        let mut above = layout::write(&leading);
        if (long || previous_long) && !out.is_empty() && !above.starts_with('\n') {
            above.insert(0, '\n');
        }
        out.push_str(&above);
        out.push_str(&body);
        out.push('\n');
        previous_long = long;
    }
    let end = layout::write(&printer.leading(u32::MAX));
    out.push_str(end.trim_end());
    let body = out.trim();
    if body.is_empty() {
        String::new()
    } else {
        format!("{body}\n")
    }
}

pub(super) struct Printer<'a> {
    pub(super) text: &'a str,
    comments: &'a [Comment],
    /// First comment not printed yet.
    next: usize,
}

impl<'a> Printer<'a> {
    /// The next comment if it starts before `end`.
    fn comment_before(&mut self, end: u32) -> Option<&'a Comment> {
        let comment = self
            .comments
            .get(self.next)
            .filter(|c| c.span.start < end)?;
        self.next += 1;
        Some(comment)
    }

    /// Whether something else stands before `at` on its line.
    fn follows_on_line(&self, at: u32) -> bool {
        let before = self.text[..at as usize].trim_end_matches([' ', '\t', '\r']);
        !before.is_empty() && !before.ends_with('\n')
    }

    /// Whether an empty line ends right before the line of `at`.
    fn blank_above(&self, at: u32) -> bool {
        let before = &self.text[..at as usize];
        let blanks = &before[before.trim_end().len()..];
        blanks.bytes().filter(|&b| b == b'\n').count() > 1
    }

    /// Comments on lines of their own before a statement or item at `start`,
    /// with at most one empty line before each and before the statement.
    pub(super) fn leading(&mut self, start: u32) -> Doc {
        let mut parts = Vec::new();
        while let Some(comment) = self.comment_before(start) {
            if self.blank_above(comment.span.start) {
                parts.push(Doc::Blank);
            }
            parts.extend([Doc::text(&comment.text), Doc::Hard]);
        }
        if (start as usize) < self.text.len() && self.blank_above(start) {
            parts.push(Doc::Blank);
        }
        Doc::Seq(parts)
    }

    /// Comments left inside a statement that ends at `end`, and the one behind it on its line.
    fn trailing(&mut self, end: u32) -> Doc {
        let mut parts = Vec::new();
        while let Some(comment) = self.comments.get(self.next) {
            let inside = comment.span.start < end;
            let same_line = !inside
                && parts.is_empty()
                && !self.text[end as usize..comment.span.start as usize].contains(['\n', '}']);
            if !inside && !same_line {
                break;
            }
            self.next += 1;
            parts.push(if parts.is_empty() {
                Doc::text(" ")
            } else {
                Doc::Hard
            });
            parts.push(Doc::text(&comment.text));
        }
        Doc::Seq(parts)
    }

    /// The break between two tokens, the second at `next`: `line`, or the
    /// comments that stand there.
    pub(super) fn separator(&mut self, next: u32, line: Doc) -> Doc {
        let mut parts = Vec::new();
        while let Some(comment) = self.comment_before(next) {
            let behind = self.follows_on_line(comment.span.start) && parts.is_empty();
            parts.push(if behind { Doc::text(" ") } else { Doc::Hard });
            parts.push(Doc::text(&comment.text));
        }
        if parts.is_empty() {
            return line;
        }
        parts.push(Doc::Hard);
        Doc::Seq(parts)
    }

    /// Comments before a node at `start`, each ending its line.
    pub(super) fn before(&mut self, start: u32) -> Doc {
        let mut parts = Vec::new();
        while let Some(comment) = self.comment_before(start) {
            parts.extend([Doc::text(&comment.text), Doc::Hard]);
        }
        Doc::Seq(parts)
    }

    /// The first byte at or after `at` that is neither blank nor comment.
    pub(super) fn token_after(&self, at: u32) -> u32 {
        let mut at = at as usize;
        loop {
            let rest = &self.text[at..];
            at += rest.len() - rest.trim_start().len();
            if !self.text[at..].starts_with("//") {
                return at as u32;
            }
            at += self.text[at..].find('\n').unwrap_or(self.text.len() - at);
        }
    }

    /// The closing bracket behind a list that ends at `end`, past a trailing comma.
    pub(super) fn closing(&self, end: u32) -> u32 {
        let at = self.token_after(end);
        if self.text[at as usize..].starts_with(',') {
            self.token_after(at + 1)
        } else {
            at
        }
    }

    pub(super) fn ident(&mut self, ident: &Ident) -> Doc {
        Doc::Seq(vec![self.before(ident.span.start), Doc::text(&ident.name)])
    }

    pub(super) fn path(&mut self, path: &[Ident]) -> Doc {
        let mut parts = Vec::new();
        for (index, segment) in path.iter().enumerate() {
            if index > 0 {
                parts.push(Doc::text("::"));
            }
            parts.push(self.ident(segment));
        }
        Doc::Seq(parts)
    }

    fn item(&mut self, item: &Item) -> Doc {
        let mut parts = Vec::new();
        match &item.kind {
            ItemKind::Use(item) => {
                parts.extend([Doc::text("use "), self.path(&item.path)]);
                if let Some((last, new)) = item.names.last() {
                    let end = new.as_ref().unwrap_or(last).span.end;
                    let starts: Vec<u32> =
                        item.names.iter().map(|(name, _)| name.span.start).collect();
                    parts.push(Doc::text("::"));
                    parts.push(comma_list(
                        self,
                        Long::Fill,
                        ("{", "}"),
                        &starts,
                        end,
                        |printer, index| {
                            let (name, new) = &item.names[index];
                            let mut parts = vec![printer.ident(name)];
                            if let Some(new) = new {
                                parts.extend([Doc::text(" as "), printer.ident(new)]);
                            }
                            Doc::Seq(parts)
                        },
                    ));
                }
            }
            ItemKind::Const(item) => {
                parts.extend([
                    Doc::text("const "),
                    self.ident(&item.name),
                    Doc::text(" = "),
                    self.expr(&item.value),
                ]);
            }
            ItemKind::Fn(item) => {
                parts.extend([
                    Doc::text("fn "),
                    self.ident(&item.name),
                    self.params(&item.name, &item.params),
                ]);
                if let Some(role) = &item.role {
                    parts.extend([Doc::text(" : "), self.ident(role)]);
                }
                parts.push(self.body(&item.body));
            }
            ItemKind::Mixer(item) => {
                parts.extend([
                    Doc::text("mixer "),
                    self.ident(&item.name),
                    self.params(&item.name, &item.params),
                ]);
                let class = match item.class.0 {
                    MixerClass::Stencil => " : stencil",
                    MixerClass::StateSpace => " : state_space",
                    MixerClass::Toeplitz => " : toeplitz",
                    MixerClass::Dense => " : dense",
                };
                parts.extend([Doc::text(class), self.body(&item.body)]);
            }
            ItemKind::Network(item) => {
                let keyword = if item.full.is_some() {
                    "full network "
                } else {
                    "network "
                };
                parts.extend([
                    Doc::text(keyword),
                    self.ident(&item.name),
                    self.params(&item.name, &item.params),
                ]);
                parts.extend([Doc::text(on(item.lattice)), self.block(&item.body)]);
            }
            ItemKind::Operator(item) => {
                parts.extend([
                    Doc::text("operator "),
                    self.ident(&item.name),
                    self.params(&item.name, &item.params),
                ]);
                parts.extend([
                    Doc::text(on(item.lattice)),
                    self.op_block(&item.body, item.body_span.end - 1),
                ]);
            }
        }
        Doc::Seq(parts)
    }

    fn params(&mut self, name: &Ident, params: &[FnParam]) -> Doc {
        let open = self.token_after(name.span.end);
        let end = params.last().map_or(open + 1, |last| {
            let default = last.default.as_ref().map(|e| e.span.end);
            let range = last.range.as_ref().map(|(_, hi)| hi.span.end);
            let ty = last.ty.as_ref().map(|(_, span)| span.end);
            default.or(range).or(ty).unwrap_or(last.name.span.end)
        });
        let starts: Vec<u32> = params.iter().map(|p| p.name.span.start).collect();
        comma_list(
            self,
            Long::Fill,
            ("(", ")"),
            &starts,
            end,
            |printer, index| {
                let param = &params[index];
                let mut parts = vec![printer.ident(&param.name)];
                if let Some((ty, _)) = param.ty {
                    parts.push(Doc::text(match ty {
                        StaticType::Nat => ": nat",
                        StaticType::Int => ": int",
                        StaticType::Real => ": real",
                        StaticType::Bool => ": bool",
                    }));
                }
                if let Some((lo, hi)) = &param.range {
                    parts.extend([
                        Doc::text(" in "),
                        printer.expr(lo),
                        Doc::text("..="),
                        printer.expr(hi),
                    ]);
                }
                if let Some(default) = &param.default {
                    parts.extend([Doc::text(" = "), printer.expr(default)]);
                }
                Doc::Seq(parts)
            },
        )
    }

    fn body(&mut self, body: &Body) -> Doc {
        match body {
            Body::Expr(value) if matches!(value.kind, ExprKind::If(..)) => {
                Doc::Seq(vec![Doc::text(" = "), self.expr(value)])
            }
            Body::Expr(value) => {
                let line = self.separator(value.span.start, Doc::Line);
                Doc::group(vec![
                    Doc::text(" ="),
                    Doc::nest(vec![line, self.expr(value)]),
                ])
            }
            Body::Block(block) => Doc::Seq(vec![Doc::text(" "), self.block(block)]),
        }
    }

    fn block(&mut self, block: &Block) -> Doc {
        let starts: Vec<Span> = block.stmts.iter().map(|s| s.span).collect();
        self.braces(&starts, block.span.end - 1, |printer, index| {
            printer.stmt(&block.stmts[index])
        })
    }

    /// Statements between braces, the closing one at `close`.
    pub(super) fn braces(
        &mut self,
        spans: &[Span],
        close: u32,
        mut print: impl FnMut(&mut Self, usize) -> Doc,
    ) -> Doc {
        let mut lines = Vec::new();
        for (index, span) in spans.iter().enumerate() {
            let leading = without_blank(self.leading(span.start), index == 0);
            let stmt = print(self, index);
            let trailing = self.trailing(span.end);
            lines.extend([Doc::Hard, leading, stmt, trailing]);
        }
        let mut last = Vec::new();
        while let Some(comment) = self.comment_before(close) {
            let first = lines.is_empty() && last.is_empty();
            last.push(Doc::Hard);
            if !first && self.blank_above(comment.span.start) {
                last.push(Doc::Blank);
            }
            last.push(Doc::text(&comment.text));
        }
        lines.extend(last);
        if lines.is_empty() {
            return Doc::text("{}");
        }
        Doc::Seq(vec![
            Doc::text("{"),
            Doc::nest(lines),
            Doc::Hard,
            Doc::text("}"),
        ])
    }

    fn stmt(&mut self, stmt: &Stmt) -> Doc {
        let mut parts = Vec::new();
        match &stmt.kind {
            StmtKind::Let {
                pattern,
                tuple,
                annotation,
                value,
            } => {
                parts.push(Doc::text("let "));
                if *tuple {
                    let starts: Vec<u32> = pattern.iter().map(|n| n.span.start).collect();
                    let end = pattern.last().map_or(stmt.span.start, |n| n.span.end);
                    parts.push(comma_list(
                        self,
                        Long::Fill,
                        ("(", ")"),
                        &starts,
                        end,
                        |p, index| p.ident(&pattern[index]),
                    ));
                } else {
                    parts.extend(pattern.iter().map(|n| self.ident(n)));
                }
                parts.extend([
                    self.annotation(annotation),
                    Doc::text(" = "),
                    self.expr(value),
                ]);
            }
            StmtKind::Var {
                name,
                annotation,
                value,
            } => {
                parts.extend([
                    Doc::text("var "),
                    self.ident(name),
                    self.annotation(annotation),
                ]);
                parts.extend([Doc::text(" = "), self.expr(value)]);
            }
            StmtKind::Assign { name, value } => {
                parts.extend([self.ident(name), Doc::text(" = "), self.expr(value)]);
            }
            StmtKind::AddAssign { name, value } => {
                parts.extend([self.ident(name), Doc::text(" += "), self.expr(value)]);
            }
            StmtKind::Param(param) => {
                parts.extend([
                    Doc::text("param "),
                    self.ident(&param.name),
                    Doc::text(": "),
                ]);
                parts.push(self.value_type(param.complex, &param.shape));
                let per = match &param.per {
                    ParamPer::Whole => None,
                    ParamPer::Site(of) => Some((" per site of ", of)),
                    ParamPer::Displacement(of) => Some((" per displacement of ", of)),
                    ParamPer::Momentum(of) => Some((" per momentum of ", of)),
                    ParamPer::Pair(of) => Some((" per pair of ", of)),
                };
                if let Some((words, of)) = per {
                    parts.extend([Doc::text(words), self.expr(of)]);
                }
                if let Some(init) = &param.init {
                    parts.extend([Doc::text(" = "), self.expr(init)]);
                }
            }
            StmtKind::Repeat {
                var,
                from,
                to,
                label,
                shared,
                body,
            } => {
                parts.push(Doc::text("repeat "));
                if let (Some(var), Some(from)) = (var, from) {
                    parts.extend([
                        self.ident(var),
                        Doc::text(" in "),
                        self.expr(from),
                        Doc::text(".."),
                    ]);
                }
                parts.push(self.expr(to));
                if *shared {
                    parts.push(Doc::text(" shared"));
                }
                if let Some(label) = label {
                    parts.extend([Doc::text(" as "), self.ident(label)]);
                }
                parts.extend([Doc::text(" "), self.block(body)]);
            }
            StmtKind::If {
                cond,
                then,
                otherwise,
            } => {
                parts.extend([
                    Doc::text("if "),
                    self.expr(cond),
                    Doc::text(" "),
                    self.block(then),
                ]);
                match otherwise {
                    // `else if`: a block without braces of its own.
                    Some(block) if !self.text[block.span.start as usize..].starts_with('{') => {
                        parts.push(Doc::text(" else "));
                        for stmt in &block.stmts {
                            parts.extend([self.before(stmt.span.start), self.stmt(stmt)]);
                        }
                    }
                    Some(block) => parts.extend([Doc::text(" else "), self.block(block)]),
                    None => {}
                }
            }
            StmtKind::Return(value) => parts.extend([Doc::text("return "), self.expr(value)]),
        }
        Doc::Seq(parts)
    }

    fn annotation(&mut self, annotation: &Option<Annotation>) -> Doc {
        let Some(annotation) = annotation else {
            return Doc::nothing();
        };
        let mut parts = vec![Doc::text(":"), self.before(annotation.span.start)];
        match &annotation.kind {
            Some(KindAnnotation::Const) => parts.push(Doc::text(" const")),
            Some(KindAnnotation::Linear) => parts.push(Doc::text(" linear")),
            Some(KindAnnotation::Pooled) => parts.push(Doc::text(" pooled")),
            Some(KindAnnotation::Global) => parts.push(Doc::text(" global")),
            Some(KindAnnotation::Local(axes)) => {
                parts.push(Doc::text(" local"));
                match axes.as_slice() {
                    [(lo, hi)] => {
                        parts.extend([
                            Doc::text("["),
                            self.expr(lo),
                            Doc::text(", "),
                            self.expr(hi),
                            Doc::text("]"),
                        ]);
                    }
                    [(lo0, hi0), (lo1, hi1)] => {
                        let bounds = [("[(", lo0), (", ", lo1), ("), (", hi0), (", ", hi1)];
                        for (before, bound) in bounds {
                            parts.extend([Doc::text(before), self.expr(bound)]);
                        }
                        parts.push(Doc::text(")]"));
                    }
                    _ => {}
                }
            }
            None => {}
        }
        if let Some((complex, shape)) = &annotation.ty {
            parts.extend([Doc::text(" "), self.value_type(*complex, shape)]);
        }
        Doc::Seq(parts)
    }

    fn value_type(&mut self, complex: bool, shape: &[Expr]) -> Doc {
        let scalar = Doc::text(if complex { "complex" } else { "real" });
        if shape.is_empty() {
            scalar
        } else {
            Doc::Seq(vec![scalar, self.exprs(("[", "]"), shape)])
        }
    }
}

fn on(lattice: LatticeKind) -> &'static str {
    match lattice {
        LatticeKind::Chain => " on chain ",
        LatticeKind::Square => " on square ",
    }
}

/// Without the empty line at the start, for the first statement of a block.
fn without_blank(leading: Doc, first: bool) -> Doc {
    match leading {
        Doc::Seq(mut parts) if first && matches!(parts.first(), Some(Doc::Blank)) => {
            parts.remove(0);
            Doc::Seq(parts)
        }
        other => other,
    }
}
