//! From the grammar's pairs to items and statements.

use super::ast::*;
use super::build_expr::{first, parts, take};
use super::grammar::Rule;
use super::parser::span;
use crate::diag::Diagnostic;
use pest::iterators::{Pair, Pairs};

pub(super) type Node<'i> = Pair<'i, Rule>;
pub(super) type Nodes<'i> = Pairs<'i, Rule>;
/// Diagnostics are large: boxed, results stay small.
pub(super) type Built<T> = Result<T, Box<Diagnostic>>;

/// Builds the tree of one item.
pub(super) struct Builder<'a> {
    text: &'a str,
    file: FileId,
    /// Offset of the item's text in the file.
    base: usize,
    /// All comments of the file, in order.
    comments: &'a [(usize, usize)],
    /// Depth of the tree above the node being built.
    pub(super) depth: usize,
}

/// Whether a rule is a keyword or punctuation, without content of its own.
pub(super) fn is_token(rule: Rule) -> bool {
    use Rule::*;
    matches!(
        rule,
        kw_use
            | kw_self
            | kw_as
            | kw_const
            | kw_fn
            | kw_mixer
            | kw_full
            | kw_network
            | kw_operator
            | kw_on
            | kw_in
            | kw_let
            | kw_var
            | kw_param
            | kw_per
            | kw_of
            | kw_repeat
            | kw_shared
            | kw_if
            | kw_else
            | kw_return
            | kw_term
            | kw_for
            | kw_where
            | kw_bonds
            | kw_sum
            | kw_local
            | open_paren
            | close_paren
            | open_bracket
            | close_bracket
            | open_brace
            | close_brace
            | comma
            | colon
            | path_sep
            | equals
            | until_op
            | range_op
            | pipe_op
            | less
    )
}

impl<'a> Builder<'a> {
    /// A builder for the item at byte `base` of `text`.
    pub(super) fn new(
        text: &'a str,
        file: FileId,
        base: usize,
        comments: &'a [(usize, usize)],
    ) -> Self {
        Builder {
            text,
            file,
            base,
            comments,
            depth: 0,
        }
    }

    /// The item in the pairs of `one_item`; its documentation is added by the caller.
    pub(super) fn item(mut self, mut pairs: Nodes) -> Result<Item, Diagnostic> {
        let node = first(take(&mut pairs));
        let span = self.span(&node);
        match self.item_kind(node) {
            Ok(kind) => Ok(Item {
                docs: Vec::new(),
                kind,
                span,
            }),
            Err(error) => Err(*error),
        }
    }

    /// A pair's place in the file. Pairs may end in blanks and comments, which
    /// the grammar skips while looking for an optional part; they are cut off.
    pub(super) fn span(&self, node: &Node) -> Span {
        let place = node.as_span();
        let start = self.base + place.start();
        let mut end = self.base + place.end();
        loop {
            end = start + self.text[start..end].trim_end().len();
            let index = self.comments.partition_point(|&(_, stop)| stop < end);
            match self.comments.get(index) {
                Some(&(from, stop)) if stop >= end && from < end && from >= start => end = from,
                _ => return span(self.file, start, end),
            }
        }
    }

    /// A `name` pair.
    pub(super) fn ident(&self, node: Node) -> Ident {
        Ident {
            name: node.as_str().to_string(),
            span: self.span(&node),
        }
    }

    fn item_kind(&mut self, node: Node) -> Built<ItemKind> {
        let rule = node.as_rule();
        if rule == Rule::use_item {
            return Ok(ItemKind::Use(self.use_item(node)));
        }
        let (mut name, mut params, mut role, mut class, mut full) =
            (None, Vec::new(), None, None, None);
        let (mut lattice, mut value, mut body, mut ops) = (LatticeKind::Chain, None, None, None);
        for part in parts(node) {
            match part.as_rule() {
                Rule::name => name = Some(self.ident(part)),
                Rule::params => {
                    params = parts(part)
                        .map(|n| self.fn_param(n))
                        .collect::<Built<_>>()?
                }
                Rule::role => role = Some(self.ident(first(part))),
                Rule::mixer_class => class = Some((mixer_class(part.as_str()), self.span(&part))),
                Rule::full_mark => full = Some(self.span(&part)),
                Rule::lattice => {
                    lattice = if first(part).as_str() == "square" {
                        LatticeKind::Square
                    } else {
                        LatticeKind::Chain
                    };
                }
                Rule::expr => value = Some(self.expr(part)?),
                Rule::body => {
                    let inner = first(part);
                    body = Some(match inner.as_rule() {
                        Rule::block => Body::Block(self.block(inner)?),
                        _ => Body::Expr(self.expr(inner)?),
                    });
                }
                Rule::block => body = Some(Body::Block(self.block(part)?)),
                _ => ops = Some((self.span(&part), self.op_block(part)?)),
            }
        }
        let name = name.expect("every item but `use` has a name");
        Ok(match (rule, body, value, class, ops) {
            (Rule::const_item, _, Some(value), ..) => ItemKind::Const(ConstItem { name, value }),
            (Rule::fn_item, Some(body), ..) => ItemKind::Fn(FnItem {
                name,
                params,
                role,
                body,
            }),
            (Rule::mixer_item, Some(body), _, Some(class), _) => ItemKind::Mixer(MixerItem {
                name,
                params,
                class,
                body,
            }),
            (Rule::network_item, Some(Body::Block(body)), ..) => ItemKind::Network(NetworkItem {
                name,
                full,
                params,
                lattice,
                body,
            }),
            (Rule::operator_item, .., Some((body_span, body))) => {
                ItemKind::Operator(OperatorItem {
                    name,
                    params,
                    lattice,
                    body,
                    body_span,
                })
            }
            _ => unreachable!("the grammar gives each item its parts"),
        })
    }

    fn use_item(&mut self, node: Node) -> Use {
        let mut item = Use {
            path: Vec::new(),
            names: Vec::new(),
        };
        for part in parts(node) {
            match part.as_rule() {
                Rule::use_path => item.path = parts(part).map(|n| self.ident(n)).collect(),
                _ => {
                    for entry in parts(part) {
                        let mut inner = parts(entry);
                        let name = self.ident(take(&mut inner));
                        item.names.push((name, inner.next().map(|n| self.ident(n))));
                    }
                }
            }
        }
        item
    }

    fn fn_param(&mut self, node: Node) -> Built<FnParam> {
        let mut inner = parts(node);
        let name = self.ident(take(&mut inner));
        let mut param = FnParam {
            name,
            ty: None,
            range: None,
            default: None,
        };
        for part in inner {
            match part.as_rule() {
                Rule::static_type => {
                    param.ty = Some((static_type(part.as_str()), self.span(&part)))
                }
                Rule::param_range => {
                    let mut bounds = parts(part);
                    param.range =
                        Some((self.expr(take(&mut bounds))?, self.expr(take(&mut bounds))?));
                }
                _ => param.default = Some(self.expr(first(part))?),
            }
        }
        Ok(param)
    }

    fn block(&mut self, node: Node) -> Built<Block> {
        let place = self.span(&node);
        self.nested(1, place, |builder| {
            let stmts = parts(node).map(|n| builder.stmt(n)).collect::<Built<_>>()?;
            Ok(Block { stmts, span: place })
        })
    }

    fn stmt(&mut self, node: Node) -> Built<Stmt> {
        let place = self.span(&node);
        let rule = node.as_rule();
        let kind = match rule {
            Rule::if_stmt => return self.if_stmt(node),
            Rule::repeat_stmt => self.repeat(node)?,
            Rule::param_stmt => StmtKind::Param(self.param(node)?),
            Rule::return_stmt => StmtKind::Return(self.expr(first(node))?),
            Rule::assign_stmt => {
                let mut inner = parts(node);
                let name = self.ident(take(&mut inner));
                let add = take(&mut inner).as_str() == "+=";
                let value = self.expr(take(&mut inner))?;
                if add {
                    StmtKind::AddAssign { name, value }
                } else {
                    StmtKind::Assign { name, value }
                }
            }
            _ => {
                let mut inner = parts(node);
                let target = take(&mut inner);
                let tuple = target.as_rule() == Rule::tuple_pattern;
                let mut pattern: Vec<Ident> = match tuple {
                    true => parts(target).map(|n| self.ident(n)).collect(),
                    false => vec![self.ident(target)],
                };
                let mut next = take(&mut inner);
                let mut annotation = None;
                if next.as_rule() == Rule::annotation {
                    annotation = Some(self.annotation(next)?);
                    next = take(&mut inner);
                }
                let value = self.expr(next)?;
                if rule == Rule::var_stmt {
                    StmtKind::Var {
                        name: pattern.remove(0),
                        annotation,
                        value,
                    }
                } else {
                    StmtKind::Let {
                        pattern,
                        tuple,
                        annotation,
                        value,
                    }
                }
            }
        };
        Ok(Stmt { kind, span: place })
    }

    fn annotation(&mut self, node: Node) -> Built<Annotation> {
        let mut annotation = Annotation {
            kind: None,
            ty: None,
            span: self.span(&node),
        };
        for part in parts(node) {
            match part.as_rule() {
                Rule::value_kind => annotation.kind = Some(self.kind(first(part))?),
                _ => annotation.ty = Some(self.value_type(part)?),
            }
        }
        Ok(annotation)
    }

    fn kind(&mut self, node: Node) -> Built<KindAnnotation> {
        if node.as_rule() == Rule::plain_kind {
            return Ok(match node.as_str() {
                "const" => KindAnnotation::Const,
                "linear" => KindAnnotation::Linear,
                "pooled" => KindAnnotation::Pooled,
                _ => KindAnnotation::Global,
            });
        }
        let Some(bounds) = parts(node).next() else {
            return Ok(KindAnnotation::Local(Vec::new()));
        };
        if bounds.as_rule() == Rule::window {
            let (lo, hi) = self.offsets(bounds)?;
            return Ok(KindAnnotation::Local(vec![(lo, hi)]));
        }
        let mut corners = parts(bounds);
        let (lo0, lo1) = self.offsets(take(&mut corners))?;
        let (hi0, hi1) = self.offsets(take(&mut corners))?;
        Ok(KindAnnotation::Local(vec![(lo0, hi0), (lo1, hi1)]))
    }

    fn offsets(&mut self, node: Node) -> Built<(Expr, Expr)> {
        let mut inner = parts(node);
        Ok((self.expr(take(&mut inner))?, self.expr(take(&mut inner))?))
    }

    /// `real[..]`: whether complex, and the shape.
    fn value_type(&mut self, node: Node) -> Built<(bool, Vec<Expr>)> {
        let mut inner = parts(node);
        let complex = take(&mut inner).as_str() == "complex";
        Ok((
            complex,
            inner.next().map_or(Ok(Vec::new()), |n| self.exprs(n))?,
        ))
    }

    fn param(&mut self, node: Node) -> Built<ParamStmt> {
        let mut inner = parts(node);
        let name = self.ident(take(&mut inner));
        let (complex, shape) = self.value_type(take(&mut inner))?;
        let mut param = ParamStmt {
            name,
            complex,
            shape,
            per: ParamPer::Whole,
            init: None,
        };
        for part in inner {
            match part.as_rule() {
                Rule::per => {
                    let mut inner = parts(part);
                    let set = take(&mut inner);
                    let of = self.expr(take(&mut inner))?;
                    param.per = match set.as_str() {
                        "site" => ParamPer::Site(of),
                        "displacement" => ParamPer::Displacement(of),
                        "momentum" => ParamPer::Momentum(of),
                        _ => ParamPer::Pair(of),
                    };
                }
                _ => param.init = Some(self.expr(first(part))?),
            }
        }
        Ok(param)
    }

    fn repeat(&mut self, node: Node) -> Built<StmtKind> {
        let (mut var, mut from, mut to, mut label, mut shared, mut body) =
            (None, None, None, None, false, None);
        for part in parts(node) {
            match part.as_rule() {
                Rule::repeat_from => {
                    let mut inner = parts(part);
                    var = Some(self.ident(take(&mut inner)));
                    from = Some(self.expr(take(&mut inner))?);
                }
                Rule::expr => to = Some(self.expr(part)?),
                Rule::repeat_label => label = Some(self.ident(first(part))),
                Rule::shared_mark => shared = true,
                _ => body = Some(self.block(part)?),
            }
        }
        let mut to = to.expect("the grammar puts a bound here");
        // In `repeat div(n, 2) as block {` the label was read as the call's. A
        // bound has no parameters, so it belongs to the `repeat`.
        if label.is_none() {
            label = take_last_label(&mut to);
        }
        let body = body.expect("the grammar puts a block here");
        Ok(StmtKind::Repeat {
            var,
            from,
            to,
            label,
            shared,
            body,
        })
    }

    /// `else if` becomes a block with one `if` inside; its span has no braces.
    fn if_stmt(&mut self, node: Node) -> Built<Stmt> {
        let whole = self.span(&node);
        let mut branches = Vec::new();
        let mut otherwise = None;
        let mut start = whole.start;
        let mut inner = node.into_inner();
        while let Some(part) = inner.next() {
            match part.as_rule() {
                Rule::kw_if => start = self.span(&part).start,
                rule if is_token(rule) => {}
                Rule::expr => branches.push((start, part, take(&mut inner))),
                _ => otherwise = Some(part),
            }
        }
        self.nested(2 * branches.len(), whole, |builder| {
            let mut otherwise = otherwise.map(|n| builder.block(n)).transpose()?;
            let mut result = None;
            for (start, cond, then) in branches.into_iter().rev() {
                let (cond, then) = (builder.expr(cond)?, builder.block(then)?);
                let span = Span { start, ..whole };
                let stmt = Stmt {
                    kind: StmtKind::If {
                        cond,
                        then,
                        otherwise: otherwise.take(),
                    },
                    span,
                };
                if start == whole.start {
                    result = Some(stmt);
                } else {
                    otherwise = Some(Block {
                        stmts: vec![stmt],
                        span,
                    });
                }
            }
            Ok(result.expect("the grammar starts with one branch"))
        })
    }

    fn op_block(&mut self, node: Node) -> Built<Vec<OpStmt>> {
        let place = self.span(&node);
        self.nested(1, place, |builder| {
            parts(node).map(|n| builder.op_stmt(n)).collect()
        })
    }

    fn op_stmt(&mut self, node: Node) -> Built<OpStmt> {
        let span = self.span(&node);
        let kind = match node.as_rule() {
            Rule::op_let => {
                let mut inner = parts(node);
                OpStmtKind::Let {
                    name: self.ident(take(&mut inner)),
                    value: self.expr(take(&mut inner))?,
                }
            }
            Rule::op_term => OpStmtKind::Term(self.expr(first(node))?),
            Rule::op_for => {
                let mut inner = parts(node);
                let domain = self.domain(take(&mut inner))?;
                let mut next = take(&mut inner);
                let mut cond = None;
                if next.as_rule() == Rule::condition {
                    cond = Some(self.expr(first(next))?);
                    next = take(&mut inner);
                }
                OpStmtKind::For {
                    domain,
                    cond,
                    term: self.expr(next)?,
                }
            }
            _ => return self.op_if(node),
        };
        Ok(OpStmt { kind, span })
    }

    fn domain(&mut self, node: Node) -> Built<ForDomain> {
        let rule = node.as_rule();
        let mut inner = parts(node);
        let name = self.ident(take(&mut inner));
        Ok(match rule {
            Rule::bonds_domain => {
                let second = self.ident(take(&mut inner));
                ForDomain::Bonds(name, second, self.expr(take(&mut inner))?)
            }
            Rule::pairs_domain => ForDomain::Pairs(name, self.ident(take(&mut inner))),
            Rule::range_domain => ForDomain::Range(
                name,
                self.expr(take(&mut inner))?,
                self.expr(take(&mut inner))?,
            ),
            _ => ForDomain::Sites(name),
        })
    }

    fn op_if(&mut self, node: Node) -> Built<OpStmt> {
        let whole = self.span(&node);
        let mut branches = Vec::new();
        let mut last = None;
        let mut start = whole.start;
        let mut inner = node.into_inner();
        while let Some(part) = inner.next() {
            match part.as_rule() {
                Rule::kw_if => start = self.span(&part).start,
                rule if is_token(rule) => {}
                Rule::expr => branches.push((start, part, take(&mut inner))),
                _ => last = Some(part),
            }
        }
        self.nested(branches.len(), whole, |builder| {
            let mut otherwise = last.map_or(Ok(Vec::new()), |n| builder.op_block(n))?;
            let mut result = None;
            for (start, cond, then) in branches.into_iter().rev() {
                let (cond, then) = (builder.expr(cond)?, builder.op_block(then)?);
                let span = Span { start, ..whole };
                let stmt = OpStmt {
                    kind: OpStmtKind::If {
                        cond,
                        then,
                        otherwise,
                    },
                    span,
                };
                otherwise = Vec::new();
                if start == whole.start {
                    result = Some(stmt);
                } else {
                    otherwise.push(stmt);
                }
            }
            Ok(result.expect("the grammar starts with one branch"))
        })
    }
}

fn take_last_label(bound: &mut Expr) -> Option<Ident> {
    match &mut bound.kind {
        ExprKind::Call(call) | ExprKind::Pipe(_, call) => call.label.take(),
        ExprKind::Binary(_, _, right) | ExprKind::Unary(_, right) => take_last_label(right),
        _ => None,
    }
}

fn mixer_class(text: &str) -> MixerClass {
    match text {
        "stencil" => MixerClass::Stencil,
        "state_space" => MixerClass::StateSpace,
        "toeplitz" => MixerClass::Toeplitz,
        _ => MixerClass::Dense,
    }
}

fn static_type(text: &str) -> StaticType {
    match text {
        "nat" => StaticType::Nat,
        "int" => StaticType::Int,
        "real" => StaticType::Real,
        _ => StaticType::Bool,
    }
}
