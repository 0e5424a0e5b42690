//! Expressions of an operator: numbers, sites, and sums of Pauli strings.

use super::elaborate::Elaborator;
use super::number::{Function, Number, NumberType, Operation};
use super::pauli::Product;
use super::{Base, Site};
use crate::check::core::Static;
use crate::diag::{Code, Diagnostic};
use crate::syntax::ast::*;

/// The problem has been recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported;

/// What an expression stands for.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A real number or truth value.
    Number(Number),
    /// A site.
    Site(Site),
    /// A sum of Pauli strings, or a complex number.
    Operator(Vec<Product>),
    /// Something whose problem was reported where it was defined.
    Unknown,
}

/// Names in scope, innermost last.
#[derive(Clone, Debug)]
pub(super) struct Env {
    /// The file paths are resolved from.
    pub(super) file: FileId,
    names: Vec<(String, Span, Value)>,
}

impl Env {
    pub(super) fn new(file: FileId) -> Env {
        Env {
            file,
            names: Vec::new(),
        }
    }
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }
    pub(super) fn truncate(&mut self, len: usize) {
        self.names.truncate(len);
    }
    pub(super) fn push(&mut self, name: &Ident, value: Value) {
        self.names.push((name.name.clone(), name.span, value));
    }
    pub(super) fn defined(&self, name: &str) -> Option<Span> {
        self.names.iter().rev().find(|n| n.0 == name).map(|n| n.1)
    }
    fn get(&self, name: &str) -> Option<&Value> {
        self.names.iter().rev().find(|n| n.0 == name).map(|n| &n.2)
    }
}

impl Elaborator<'_> {
    /// Evaluates an expression. Chains of infix operators do not recurse on
    /// the left, however long.
    pub(super) fn expr(&mut self, e: &Expr, env: &mut Env) -> Result<Value, Reported> {
        match &e.kind {
            ExprKind::Nat(v) => match i64::try_from(*v) {
                Ok(v) => Ok(Value::Number(Number::int(v))),
                Err(_) => self.fail(Diagnostic::new(
                    Code::E0204,
                    "integer too large",
                    e.span,
                    "does not fit in 64 bits",
                )),
            },
            ExprKind::Real(v) => Ok(Value::Number(Number::real(*v))),
            ExprKind::Imaginary(v) => {
                let mut product = Product::number(Number::real(*v));
                product.quarter = 1;
                product.imaginary = vec![e.span];
                Ok(Value::Operator(vec![product]))
            }
            ExprKind::Bool(v) => Ok(Value::Number(Number::constant(Static::Bool(*v)))),
            ExprKind::Path(path) => self.path(path, e.span, env),
            ExprKind::Call(call) => self.call(None, call, env),
            ExprKind::Pipe(first, call) => {
                let first_value = self.expr(first, env)?;
                self.call(Some((first_value, first.span)), call, env)
            }
            ExprKind::Unary(op, a) => {
                let value = self.expr(a, env)?;
                self.unary(*op, value, a.span)
            }
            ExprKind::Binary(..) => {
                let mut spine = Vec::new();
                let mut left = e;
                while let ExprKind::Binary(op, a, b) = &left.kind {
                    spine.push((*op, &**b, left.span));
                    left = a;
                }
                let mut left_span = left.span;
                let mut value = self.expr(left, env)?;
                for (op, right, span) in spine.into_iter().rev() {
                    let right_value = self.expr(right, env)?;
                    value = self.binary(op, (value, left_span), (right_value, right.span), span)?;
                    left_span = span;
                }
                Ok(value)
            }
            ExprKind::If(condition, a, b) => self.select(condition, a, b, env),
            ExprKind::Sum(sum) => self.sum(sum, env),
            ExprKind::Paren(a) => self.expr(a, env),
            ExprKind::Str(_) | ExprKind::Tuple(_) | ExprKind::List(_) => {
                self.fail(Diagnostic::new(
                    Code::E0402,
                    "not a term of an operator",
                    e.span,
                    "no number, site or Pauli matrix",
                ))
            }
        }
    }

    /// A real number or truth value.
    pub(super) fn number(&mut self, e: &Expr, env: &mut Env) -> Result<Number, Reported> {
        let value = self.expr(e, env)?;
        self.as_number(value, e.span)
    }

    pub(super) fn as_number(&mut self, value: Value, span: Span) -> Result<Number, Reported> {
        match value {
            Value::Number(number) => Ok(number),
            Value::Unknown => Err(Reported),
            Value::Site(_) => self.fail(
                Diagnostic::new(Code::E0106, "a site is not a number", span, "a site")
                    .help("write `x(i)` for its coordinate"),
            ),
            Value::Operator(products) if products.iter().all(|p| p.factors.is_empty()) => {
                self.fail(Diagnostic::new(
                    Code::E0202,
                    "expected a real number",
                    span,
                    "a complex number",
                ))
            }
            Value::Operator(_) => self.fail(
                Diagnostic::new(
                    Code::E0402,
                    "expected a number, found Pauli matrices",
                    span,
                    "an operator",
                )
                .help("only sums, products and powers of X, Y and Z are terms; multiply out functions of them by hand"),
            ),
        }
    }

    /// A sum of Pauli strings; numbers multiply the identity.
    pub(super) fn as_operator(
        &mut self,
        value: Value,
        span: Span,
    ) -> Result<Vec<Product>, Reported> {
        match value {
            Value::Operator(products) => Ok(products),
            Value::Number(number) if number.ty != NumberType::Bool => {
                Ok(vec![Product::number(number)])
            }
            Value::Number(_) => self.fail(
                Diagnostic::new(
                    Code::E0202,
                    "a truth value is not an operator",
                    span,
                    "a truth value",
                )
                .help("write `if c { a } else { b }`"),
            ),
            Value::Site(_) => self.fail(
                Diagnostic::new(Code::E0106, "a site is not an operator", span, "a site")
                    .help("write `X(i)`, `Y(i)`, `Z(i)`, or `x(i)` for its coordinate"),
            ),
            Value::Unknown => Err(Reported),
        }
    }

    /// A site: a loop variable with a displacement, or an integer.
    pub(super) fn as_site(&mut self, value: Value, span: Span) -> Result<Site, Reported> {
        match value {
            Value::Site(site) => Ok(site),
            Value::Number(index) if index.ty == NumberType::Int => Ok(Site {
                base: Base::Absolute(index),
                offset: [0; 2],
            }),
            Value::Unknown => Err(Reported),
            _ => self.fail(
                Diagnostic::new(Code::E0402, "expected a site", span, "not a site")
                    .help("a site is a loop variable plus an integer, or an integer"),
            ),
        }
    }

    fn path(&mut self, path: &[Ident], span: Span, env: &mut Env) -> Result<Value, Reported> {
        if let [name] = path {
            if let Some(value) = env.get(&name.name) {
                return match value {
                    Value::Unknown => Err(Reported),
                    value => Ok(value.clone()),
                };
            }
            match name.name.as_str() {
                "N" => return Ok(Value::Number(Number::sites())),
                "pi" => return Ok(Value::Number(Number::real(std::f64::consts::PI))),
                "periodic" => return Ok(Value::Number(Number::periodic())),
                _ => {}
            }
        }
        let text = path
            .iter()
            .map(|p| p.name.as_str())
            .collect::<Vec<_>>()
            .join("::");
        match self.scope.resolve(env.file, path) {
            Some(ItemKind::Const(item)) => self.nested(span, |this| {
                let mut inner = Env::new(item.name.span.file);
                this.expr(&item.value, &mut inner)
            }),
            Some(_) => self.fail(
                Diagnostic::new(Code::E0106, format!("`{text}` is not a number"), span, "used as a number"),
            ),
            None => self.fail(
                Diagnostic::new(Code::E0101, format!("unknown name `{text}`"), span, "not found")
                    .help("known are couplings, loop variables, `let`s, constants, `N`, `pi` and `periodic`"),
            ),
        }
    }

    /// Runs `body` one call deeper; E0104 where that never ends.
    pub(super) fn nested<T>(
        &mut self,
        span: Span,
        body: impl FnOnce(&mut Self) -> Result<T, Reported>,
    ) -> Result<T, Reported> {
        const DEPTH_LIMIT: usize = 48;
        const CALL_LIMIT: usize = 200_000;
        self.calls += 1;
        if self.calls == CALL_LIMIT {
            return self.fail(
                Diagnostic::new(
                    Code::E0002,
                    format!("the operator takes more than {CALL_LIMIT} function calls"),
                    span,
                    "given up here",
                )
                .help("functions are written out in full; use fewer calls"),
            );
        }
        if self.calls > CALL_LIMIT {
            return Err(Reported);
        }
        if self.depth >= DEPTH_LIMIT {
            return self.fail(
                Diagnostic::new(
                    Code::E0104,
                    "functions call each other without end",
                    span,
                    "called here",
                )
                .help("functions are inlined: they cannot be recursive"),
            );
        }
        self.depth += 1;
        let result = body(self);
        self.depth -= 1;
        result
    }

    fn unary(&mut self, op: UnaryOp, value: Value, span: Span) -> Result<Value, Reported> {
        match (op, value) {
            (UnaryOp::Neg, Value::Operator(mut products)) => {
                products
                    .iter_mut()
                    .for_each(|p| p.quarter = (p.quarter + 2) % 4);
                Ok(Value::Operator(products))
            }
            (UnaryOp::Neg, value) => {
                let number = self.arithmetic(value, span)?;
                let negated = Number::unary(Function::Neg, number);
                self.folded(negated, span).map(Value::Number)
            }
            (UnaryOp::Not, value) => {
                let number = self.typed(value, StaticType::Bool, span)?;
                let negated = Number::unary(Function::Not, number);
                self.folded(negated, span).map(Value::Number)
            }
        }
    }

    /// A number that is no truth value.
    pub(super) fn arithmetic(&mut self, value: Value, span: Span) -> Result<Number, Reported> {
        let number = self.as_number(value, span)?;
        if number.ty == NumberType::Bool {
            return self.fail(Diagnostic::new(
                Code::E0202,
                "expected a number",
                span,
                "a truth value",
            ));
        }
        Ok(number)
    }

    fn binary(
        &mut self,
        op: BinaryOp,
        a: (Value, Span),
        b: (Value, Span),
        span: Span,
    ) -> Result<Value, Reported> {
        use BinaryOp as B;
        match (op, a.0, b.0) {
            (_, Value::Unknown, _) | (_, _, Value::Unknown) => Err(Reported),
            (B::Add | B::Sub, Value::Site(site), Value::Number(by)) => {
                self.displaced(site, by, op == B::Sub, b.1)
            }
            (B::Add, Value::Number(by), Value::Site(site)) => self.displaced(site, by, false, a.1),
            (B::Add | B::Sub | B::Mul | B::Div | B::Pow, Value::Operator(x), y) => {
                self.operators(op, Value::Operator(x), y, a.1, b.1, span)
            }
            (B::Add | B::Sub | B::Mul | B::Div | B::Pow, x, Value::Operator(y)) => {
                self.operators(op, x, Value::Operator(y), a.1, b.1, span)
            }
            (B::MatMul, ..) => self.fail(
                Diagnostic::new(
                    Code::E0402,
                    "`@` has no meaning in an operator",
                    span,
                    "here",
                )
                .help("write `*`"),
            ),
            (B::And | B::Or, x, y) => {
                let x = self.typed(x, StaticType::Bool, a.1)?;
                let y = self.typed(y, StaticType::Bool, b.1)?;
                let op = if op == B::And {
                    Operation::And
                } else {
                    Operation::Or
                };
                self.folded(Number::binary(op, x, y), span)
                    .map(Value::Number)
            }
            (op, x, y) => {
                let mut x = self.arithmetic(x, a.1)?;
                let mut y = self.arithmetic(y, b.1)?;
                if matches!(op, B::Gt | B::Ge) {
                    std::mem::swap(&mut x, &mut y);
                }
                let op = match op {
                    B::Add => Operation::Add,
                    B::Sub => Operation::Sub,
                    B::Mul => Operation::Mul,
                    B::Div => Operation::Div,
                    B::Rem => Operation::Rem,
                    B::Pow => Operation::Pow,
                    B::Eq => Operation::Eq,
                    B::Ne => Operation::Ne,
                    B::Lt | B::Gt => Operation::Lt,
                    _ => Operation::Le,
                };
                if op == Operation::Rem && (x.ty != NumberType::Int || y.ty != NumberType::Int) {
                    return self.fail(Diagnostic::new(
                        Code::E0202,
                        "`%` takes integers",
                        span,
                        "not integers",
                    ));
                }
                self.folded(Number::binary(op, x, y), span)
                    .map(Value::Number)
            }
        }
    }

    fn displaced(
        &mut self,
        site: Site,
        by: Number,
        negative: bool,
        span: Span,
    ) -> Result<Value, Reported> {
        if self.lattice == LatticeKind::Square {
            return self.fail(
                Diagnostic::new(
                    Code::E0402,
                    "a site of a square lattice has two coordinates",
                    span,
                    "one displacement",
                )
                .help("write `shift(i, dx, dy)`"),
            );
        }
        if by.ty != NumberType::Int {
            return self.fail(Diagnostic::new(
                Code::E0202,
                "expected an integer",
                span,
                "not an integer",
            ));
        }
        let Some(by) = by.known_int() else {
            return self.fail(Diagnostic::new(
                Code::E0203,
                "the distance to a site must be a known number",
                span,
                "depends on the lattice",
            ));
        };
        self.moved(
            site,
            [if negative { by.saturating_neg() } else { by }, 0],
            span,
        )
    }

    /// The site at a displacement.
    pub(super) fn moved(
        &mut self,
        site: Site,
        by: [i64; 2],
        span: Span,
    ) -> Result<Value, Reported> {
        // far beyond any lattice, far below overflow
        const FAR: i64 = 1 << 40;
        let offset = [
            site.offset[0].saturating_add(by[0]),
            site.offset[1].saturating_add(by[1]),
        ];
        if offset.iter().any(|o| o.abs() > FAR) {
            return self.fail(Diagnostic::new(
                Code::E0204,
                "displacement too large",
                span,
                "beyond any lattice",
            ));
        }
        Ok(Value::Site(Site { offset, ..site }))
    }

    fn select(
        &mut self,
        condition: &Expr,
        a: &Expr,
        b: &Expr,
        env: &mut Env,
    ) -> Result<Value, Reported> {
        let condition = self.condition(condition, env)?;
        match condition.known() {
            Some(Static::Bool(true)) => return self.expr(a, env),
            Some(_) => return self.expr(b, env),
            None => {}
        }
        let (x, y) = (self.expr(a, env)?, self.expr(b, env)?);
        match (x, y) {
            (Value::Number(x), Value::Number(y))
                if (x.ty == NumberType::Bool) == (y.ty == NumberType::Bool) =>
            {
                Ok(Value::Number(Number::select(condition, x, y)))
            }
            (x, y) => {
                let x = self.as_operator(x, a.span)?;
                let y = self.as_operator(y, b.span)?;
                let gated = |mut p: Product, first: bool| {
                    let (yes, no) = if first {
                        (p.number, Number::int(0))
                    } else {
                        (Number::int(0), p.number)
                    };
                    p.number = Number::select(condition.clone(), yes, no);
                    p
                };
                let x = x.into_iter().map(|p| gated(p, true));
                let y = y.into_iter().map(|p| gated(p, false));
                Ok(Value::Operator(x.chain(y).collect()))
            }
        }
    }

    fn sum(&mut self, sum: &SumLoop, env: &mut Env) -> Result<Value, Reported> {
        let from = self.integer(&sum.from, env)?;
        let to = self.integer(&sum.to, env)?;
        let variable = self.next_variable;
        self.next_variable += 1;
        let depth = env.len();
        self.define(&sum.var, Value::Number(Number::variable(variable)), env);
        let term = self.expr(&sum.term, env);
        env.truncate(depth);
        let term = self.arithmetic(term?, sum.term.span)?;
        Ok(Value::Number(Number::sum(variable, from, to, term)))
    }
}
