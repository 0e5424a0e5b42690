//! Expressions, and arithmetic on numbers known at compile time.

use super::*;
use crate::check::builtins;
use crate::check::core::Dim;
use crate::check::modules::{Def, path_text, with_suggestion};

impl Elaborator<'_> {
    /// Evaluates an expression.
    pub(super) fn expr(&mut self, e: &Expr) -> R<Val> {
        match &e.kind {
            ExprKind::Nat(n) => match i64::try_from(*n) {
                Ok(k) => Ok(Val::Static(Static::Int(k))),
                Err(_) => self.err(
                    Code::E0204,
                    e.span,
                    "integer too large",
                    "does not fit in 64 bits",
                ),
            },
            ExprKind::Real(x) => Ok(Val::Static(Static::Real(*x))),
            ExprKind::Imaginary(x) => Ok(Val::Imaginary(*x)),
            ExprKind::Bool(b) => Ok(Val::Static(Static::Bool(*b))),
            ExprKind::Str(s) => Ok(Val::Str(s.clone())),
            ExprKind::Path(path) => self.path(path, e.span),
            ExprKind::Call(call) => self.call(None, call),
            ExprKind::Pipe(first, call) => {
                let val = self.expr(first)?;
                self.call(Some((val, first.span)), call)
            }
            ExprKind::Unary(UnaryOp::Neg, x) => {
                let val = self.expr(x)?;
                self.negate(val, e.span)
            }
            ExprKind::Unary(UnaryOp::Not, x) => {
                Ok(Val::Static(Static::Bool(!self.static_bool(x)?)))
            }
            ExprKind::Binary(op @ (BinaryOp::And | BinaryOp::Or), a, b) => {
                let a = self.static_bool(a)?;
                let b = self.static_bool(b)?;
                Ok(Val::Static(Static::Bool(if *op == BinaryOp::And {
                    a && b
                } else {
                    a || b
                })))
            }
            ExprKind::Binary(..) => self.binary_chain(e),
            ExprKind::Tuple(parts) => Ok(Val::Tuple(
                parts.iter().map(|p| self.expr(p)).collect::<R<_>>()?,
            )),
            ExprKind::List(parts) => Ok(Val::List(
                parts.iter().map(|p| self.dim_expr(p)).collect::<R<_>>()?,
            )),
            ExprKind::If(cond, then, otherwise) => {
                if self.static_bool(cond)? {
                    self.expr(then)
                } else {
                    self.expr(otherwise)
                }
            }
            ExprKind::Paren(inner) => self.expr(inner),
            ExprKind::Sum(_) => self.err(
                Code::E0106,
                e.span,
                "`sum(r in a..b: ...)` belongs to operators",
                "not usable here",
            ),
        }
    }

    /// Left-nested chains of operators, without recursing once per operator.
    fn binary_chain(&mut self, e: &Expr) -> R<Val> {
        let mut stack = Vec::new();
        let mut at = e;
        while let ExprKind::Binary(op, a, b) = &at.kind {
            if matches!(op, BinaryOp::And | BinaryOp::Or) {
                break;
            }
            stack.push((*op, b, at.span));
            at = a;
        }
        let mut span = at.span;
        let mut val = self.expr(at);
        while let Some((op, b, whole)) = stack.pop() {
            let right = self.expr(b);
            val = match (val, right) {
                (Ok(a), Ok(r)) => self.binary(op, a, r, span, b.span, whole),
                _ => Err(Reported),
            };
            span = whole;
        }
        val
    }

    fn path(&mut self, path: &[Ident], span: Span) -> R<Val> {
        if let [name] = path {
            if let Some(b) = self.lookup(&name.name) {
                return match &b.val {
                    Val::Poison => Err(Reported),
                    val => Ok(val.clone()),
                };
            }
            match name.name.as_str() {
                "pi" => return Ok(Val::Static(Static::Real(std::f64::consts::PI))),
                "N" => {
                    return Ok(Val::Sites {
                        scale: 1,
                        token: Token::SPIN,
                    });
                }
                "spins" => {
                    let ty = Type {
                        place: Place::Site(Token::SPIN),
                        shape: vec![],
                        dtype: DType::Real,
                    };
                    let window = Window {
                        lo: [0, 0],
                        hi: [0, 0],
                    };
                    return Ok(Val::Tensor(self.push(
                        CoreOp::Spins,
                        vec![],
                        ty,
                        Kind::Local(window),
                        span,
                    )?));
                }
                _ => {}
            }
        }
        let module = self.frame().module;
        match self.modules.resolve(module, path) {
            Some(def @ Def::Item(m, _)) => match self.modules.item(def).map(|i| &i.kind) {
                Some(ItemKind::Const(c)) => self.constant(m, c, span),
                _ => {
                    let d = Diagnostic::new(
                        Code::E0106,
                        format!("`{}` is not a value", path_text(path)),
                        span,
                        "used as a value here",
                    )
                    .help(format!("call it: `{}(...)`", path_text(path)));
                    Err(self.report(d))
                }
            },
            Some(Def::Module(_)) => self.err(
                Code::E0106,
                span,
                format!("`{}` is a module", path_text(path)),
                "used as a value here",
            ),
            None if builtins::is_reserved_function(&path[0].name) && path.len() == 1 => {
                let name = &path[0].name;
                let label = if builtins::INIT_VALUES.contains(&name.as_str()) {
                    "only usable in the initialiser of a `param`"
                } else {
                    "a primitive function, used as a value here"
                };
                self.err(Code::E0106, span, format!("`{name}` is not a value"), label)
            }
            None => Err(self.unknown(path, span)),
        }
    }

    /// Reports an unknown name with the nearest known one.
    pub(super) fn unknown(&mut self, path: &[Ident], span: Span) -> Reported {
        let name = path_text(path);
        let module = self.frame().module;
        let scope = &self.modules.get(module).scope;
        let frame = self.frames.last().expect("elaboration runs inside a frame");
        let locals = frame
            .scopes
            .iter()
            .flat_map(|s| s.keys().map(String::as_str));
        let known = scope
            .keys()
            .map(String::as_str)
            .chain(locals)
            .chain(builtins::FUNCTIONS.iter().copied())
            .chain(builtins::VALUES.iter().copied());
        let mut d = with_suggestion(
            Diagnostic::new(
                Code::E0101,
                format!("unknown name `{name}`"),
                span,
                "not defined",
            ),
            &name,
            known,
        );
        if d.help.is_none()
            && let [only] = path
            && let Some(home) = self.modules.std_home(&only.name)
        {
            d = d.help(format!(
                "the standard library has it: `use std::{home}::{name}`"
            ));
        }
        self.report(d)
    }

    fn constant(&mut self, module: ModuleId, c: &ConstItem, span: Span) -> R<Val> {
        if self.via.len() >= MAX_DEPTH {
            return self.err(
                Code::E0104,
                span,
                format!("`{}` is defined by itself", c.name.name),
                "evaluated here",
            );
        }
        self.frames.push(Frame {
            module,
            scopes: vec![HashMap::new()],
            returned: None,
        });
        self.via.push((c.name.name.clone(), span, None));
        let val = self.expr(&c.value);
        self.via.pop();
        self.frames.pop();
        match val? {
            v @ (Val::Static(_) | Val::Imaginary(_)) => Ok(v),
            _ => self.err(
                Code::E0203,
                c.value.span,
                "a constant must be a number known at compile time",
                "not a number",
            ),
        }
    }

    /// A number known at compile time.
    pub(super) fn static_expr(&mut self, e: &Expr) -> R<Static> {
        match self.expr(e)? {
            Val::Static(s) => Ok(s),
            Val::Tensor(id) => {
                let label = format!("this is {}", self.describe(id));
                let d = Diagnostic::new(
                    Code::E0203,
                    "expected a number known at compile time",
                    e.span,
                    label,
                )
                .help("bounds and shapes come from hyperparameters and literals");
                Err(self.report(d))
            }
            Val::Sites { .. } => {
                let d = Diagnostic::new(
                    Code::E0203,
                    "the number of sites is known only at run time",
                    e.span,
                    "depends on N",
                )
                .help("use a hyperparameter; N may appear in shapes (`real[2 * N]`) and as a real constant only");
                Err(self.report(d))
            }
            _ => self.err(
                Code::E0203,
                e.span,
                "expected a number known at compile time",
                "not a number",
            ),
        }
    }

    pub(super) fn static_int(&mut self, e: &Expr, what: &str) -> R<i64> {
        match self.static_expr(e)? {
            Static::Int(k) => Ok(k),
            Static::Real(_) => {
                let d = Diagnostic::new(
                    Code::E0203,
                    format!("{what} must be an integer"),
                    e.span,
                    "a real number",
                )
                .help("`/` is always real: write `div(a, b)` for integer division");
                Err(self.report(d))
            }
            Static::Bool(_) => self.err(
                Code::E0203,
                e.span,
                format!("{what} must be an integer"),
                "a truth value",
            ),
        }
    }

    pub(super) fn static_bool(&mut self, e: &Expr) -> R<bool> {
        match self.static_expr(e)? {
            Static::Bool(b) => Ok(b),
            _ => self.err(
                Code::E0203,
                e.span,
                "expected a truth value known at compile time",
                "a number",
            ),
        }
    }

    /// A length in a shape.
    pub(super) fn dim_expr(&mut self, e: &Expr) -> R<Dim> {
        match self.expr(e)? {
            Val::Static(Static::Int(k)) if (1..=1 << 31).contains(&k) => {
                Ok(Dim::Static(k as usize))
            }
            Val::Static(Static::Int(k)) => self.err(
                Code::E0207,
                e.span,
                format!("{k} is not a length"),
                "lengths are at least 1 and below 2^31",
            ),
            Val::Sites { scale, token } => Ok(Dim::Sites {
                scale,
                per: token.volume(),
            }),
            Val::Tensor(id) => {
                let label = format!("this is {}", self.describe(id));
                self.err(
                    Code::E0203,
                    e.span,
                    "a shape must be known at compile time",
                    label,
                )
            }
            _ => {
                let d = Diagnostic::new(
                    Code::E0203,
                    "a length must be an integer",
                    e.span,
                    "not an integer",
                )
                .help("`/` is always real: write `div(a, b)` for integer division");
                Err(self.report(d))
            }
        }
    }

    /// Arithmetic on numbers known at compile time; `None` where the operator
    /// does not apply to numbers.
    pub(super) fn static_binary(
        &mut self,
        op: BinaryOp,
        a: Static,
        b: Static,
        span: Span,
    ) -> R<Option<Static>> {
        use BinaryOp as B;
        let overflow = |s: &mut Self| -> R<Option<Static>> {
            s.err(
                Code::E0204,
                span,
                "arithmetic overflow",
                "the result does not fit in 64 bits",
            )
        };
        if let (Static::Int(x), Static::Int(y)) = (a, b) {
            let exact = match op {
                B::Add => x.checked_add(y),
                B::Sub => x.checked_sub(y),
                B::Mul => x.checked_mul(y),
                B::Rem if y == 0 => {
                    return self.err(
                        Code::E0207,
                        span,
                        "division by zero",
                        "remainder of a division by 0",
                    );
                }
                B::Rem => x.checked_rem_euclid(y),
                B::Pow if y >= 0 => u32::try_from(y).ok().and_then(|y| x.checked_pow(y)),
                _ => Some(0),
            };
            match op {
                B::Add | B::Sub | B::Mul | B::Rem => {
                    return match exact {
                        Some(k) => Ok(Some(Static::Int(k))),
                        None => overflow(self),
                    };
                }
                B::Pow if y >= 0 => {
                    return match exact {
                        Some(k) => Ok(Some(Static::Int(k))),
                        None => overflow(self),
                    };
                }
                B::Eq => return Ok(Some(Static::Bool(x == y))),
                B::Ne => return Ok(Some(Static::Bool(x != y))),
                B::Lt => return Ok(Some(Static::Bool(x < y))),
                B::Le => return Ok(Some(Static::Bool(x <= y))),
                B::Gt => return Ok(Some(Static::Bool(x > y))),
                B::Ge => return Ok(Some(Static::Bool(x >= y))),
                _ => {}
            }
        }
        if let (Static::Bool(x), Static::Bool(y)) = (a, b) {
            return match op {
                B::Eq => Ok(Some(Static::Bool(x == y))),
                B::Ne => Ok(Some(Static::Bool(x != y))),
                _ => self.err(
                    Code::E0106,
                    span,
                    "arithmetic on truth values",
                    "use `and`, `or`, `not`",
                ),
            };
        }
        let (Some(x), Some(y)) = (real(a), real(b)) else {
            return self.err(
                Code::E0106,
                span,
                "arithmetic between a number and a truth value",
                "mixed here",
            );
        };
        let value = match op {
            B::Add => x + y,
            B::Sub => x - y,
            B::Mul => x * y,
            B::Div => x / y,
            B::Pow => x.powf(y),
            B::Rem => x.rem_euclid(y),
            B::Eq => return Ok(Some(Static::Bool(x == y))),
            B::Ne => return Ok(Some(Static::Bool(x != y))),
            B::Lt => return Ok(Some(Static::Bool(x < y))),
            B::Le => return Ok(Some(Static::Bool(x <= y))),
            B::Gt => return Ok(Some(Static::Bool(x > y))),
            B::Ge => return Ok(Some(Static::Bool(x >= y))),
            B::MatMul | B::And | B::Or => return Ok(None),
        };
        if value.is_finite() {
            Ok(Some(Static::Real(value)))
        } else {
            self.err(
                Code::E0207,
                span,
                "the result is not a finite number",
                format!("this gives {value}"),
            )
        }
    }

    /// A static value against its declared type and range.
    pub(super) fn check_static(
        &mut self,
        p: &FnParam,
        ty: StaticType,
        v: Static,
        span: Span,
    ) -> R<Static> {
        let name = &p.name.name;
        let v = match (ty, v) {
            (StaticType::Nat, Static::Int(k)) if k >= 0 => v,
            (StaticType::Nat, Static::Int(k)) => {
                let d = Diagnostic::new(
                    Code::E0103,
                    format!("`{name}` = {k} is out of range"),
                    span,
                    "a `nat` is at least 0",
                )
                .also(p.name.span, "declared here");
                return Err(self.report(d));
            }
            (StaticType::Int, Static::Int(_)) | (StaticType::Real, Static::Real(_)) => v,
            (StaticType::Real, Static::Int(k)) => Static::Real(k as f64),
            (StaticType::Bool, Static::Bool(_)) => v,
            _ => {
                let want = static_type_name(ty);
                let d = Diagnostic::new(
                    Code::E0202,
                    format!("`{name}` is a `{want}`, but got {}", show_static(v)),
                    span,
                    format!("expected a `{want}`"),
                )
                .also(p.name.span, "declared here");
                return Err(self.report(d));
            }
        };
        if let Some((lo, hi)) = &p.range {
            let (lo_v, hi_v) = (self.static_expr(lo)?, self.static_expr(hi)?);
            if let (Some(x), Some(a), Some(b)) = (real(v), real(lo_v), real(hi_v))
                && !(a..=b).contains(&x)
            {
                let d = Diagnostic::new(
                    Code::E0103,
                    format!("`{name}` = {} is out of range", show_static(v)),
                    span,
                    format!("must be in {}..={}", show_static(lo_v), show_static(hi_v)),
                )
                .also(lo.span.to(hi.span), "range declared here")
                .help(format!(
                    "choose a value between {} and {}",
                    show_static(lo_v),
                    show_static(hi_v)
                ));
                return Err(self.report(d));
            }
        }
        Ok(v)
    }
}

/// The number as a real, if it is one.
pub(super) fn real(s: Static) -> Option<f64> {
    match s {
        Static::Int(k) => Some(k as f64),
        Static::Real(x) => Some(x),
        Static::Bool(_) => None,
    }
}

/// As a user would write it.
pub(super) fn show_static(s: Static) -> String {
    match s {
        Static::Int(k) => k.to_string(),
        Static::Real(x) => format!("{x}"),
        Static::Bool(b) => b.to_string(),
    }
}

/// The keyword of a static type.
pub(super) fn static_type_name(ty: StaticType) -> &'static str {
    match ty {
        StaticType::Nat => "nat",
        StaticType::Int => "int",
        StaticType::Real => "real",
        StaticType::Bool => "bool",
    }
}
