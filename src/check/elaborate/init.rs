//! Initialisers: expressions over the elements of a parameter.

use super::*;
use crate::check::builtins;
use crate::check::modules::{Def, path_text};

/// Names visible in an initialiser: arguments of `init` functions.
type Scope = HashMap<String, Init>;

/// The parameter an initialiser is for.
struct Target<'t> {
    ty: &'t Type,
    depth: usize,
    module: ModuleId,
}

impl Elaborator<'_> {
    /// Initialisers of the real and the imaginary part, and their text.
    pub(super) fn param_init(&mut self, p: &ParamStmt, ty: &Type) -> R<([Init; 2], String)> {
        let Some(e) = &p.init else {
            return Ok(([Init::Number(0.0), Init::Number(0.0)], "0".to_owned()));
        };
        let text = self
            .modules
            .sources
            .text(e.span)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let module = self.frame().module;
        let t = Target {
            ty,
            depth: 0,
            module,
        };
        let mut inner = e;
        while let ExprKind::Paren(x) = &inner.kind {
            inner = x;
        }
        let init = match &inner.kind {
            ExprKind::Tuple(parts) if p.complex && parts.len() == 2 => [
                self.init(&parts[0], &Scope::new(), &t)?,
                self.init(&parts[1], &Scope::new(), &t)?,
            ],
            _ => {
                let one = self.init(e, &Scope::new(), &t)?;
                [one.clone(), one]
            }
        };
        Ok((init, text))
    }

    fn init(&mut self, e: &Expr, scope: &Scope, t: &Target) -> R<Init> {
        match &e.kind {
            ExprKind::Paren(x) => self.init(x, scope, t),
            ExprKind::Nat(_) | ExprKind::Real(_) => {
                let s = self.static_expr(e)?;
                Ok(Init::Number(super::expr::real(s).unwrap_or(0.0)))
            }
            ExprKind::Unary(UnaryOp::Neg, x) => Ok(fold_unary(Unary::Neg, self.init(x, scope, t)?)),
            ExprKind::Binary(op, a, b) => {
                let f = match op {
                    BinaryOp::Add => Binary::Add,
                    BinaryOp::Sub => Binary::Sub,
                    BinaryOp::Mul => Binary::Mul,
                    BinaryOp::Div => Binary::Div,
                    BinaryOp::Pow => Binary::Pow,
                    _ => {
                        return self.err(
                            Code::E0105,
                            e.span,
                            "this operator is not usable in an initialiser",
                            "elementwise arithmetic only",
                        );
                    }
                };
                Ok(fold_binary(
                    f,
                    self.init(a, scope, t)?,
                    self.init(b, scope, t)?,
                ))
            }
            ExprKind::If(c, a, b) => {
                let cond = self.static_bool(c)?;
                self.init(if cond { a } else { b }, scope, t)
            }
            ExprKind::Path(path) => self.init_name(path, e, scope, t),
            ExprKind::Call(call) => self.init_call(None, call, scope, t),
            ExprKind::Pipe(first, call) => self.init_call(Some(first), call, scope, t),
            _ => self.err(
                Code::E0105,
                e.span,
                "not usable in an initialiser",
                "expected elementwise arithmetic",
            ),
        }
    }

    fn init_name(&mut self, path: &[Ident], e: &Expr, scope: &Scope, t: &Target) -> R<Init> {
        if let [name] = path {
            if let Some(known) = scope.get(&name.name) {
                return Ok(known.clone());
            }
            let shape = &t.ty.shape;
            match name.name.as_str() {
                "random_normal" => return Ok(Init::Normal),
                "random_uniform" => return Ok(Init::Uniform),
                "fan_in" => return Ok(length(&shape[..shape.len().saturating_sub(1)])),
                "fan_out" => return Ok(length(shape.get(1..).unwrap_or(&[]))),
                "N" if self.lookup("N").is_none() => {
                    return Ok(length(&[Dim::Sites { scale: 1, per: 1 }]));
                }
                _ => {}
            }
        }
        let s = self.static_in(t.module, e)?;
        match super::expr::real(s) {
            Some(x) => Ok(Init::Number(x)),
            None => self.err(
                Code::E0106,
                e.span,
                "a truth value is not a number",
                "in an initialiser",
            ),
        }
    }

    /// A static expression inside an `init` function sees that function's
    /// module; at the top it sees the frame of the `param`.
    fn static_in(&mut self, module: ModuleId, e: &Expr) -> R<Static> {
        if module == self.frame().module {
            return self.static_expr(e);
        }
        self.frames.push(Frame {
            module,
            scopes: vec![HashMap::new()],
            returned: None,
        });
        let v = self.static_expr(e);
        self.frames.pop();
        v
    }

    fn init_call(
        &mut self,
        first: Option<&Expr>,
        call: &Call,
        scope: &Scope,
        t: &Target,
    ) -> R<Init> {
        let span = call.span;
        let args: Vec<(Option<&Ident>, &Expr)> = first
            .into_iter()
            .map(|e| (None, e))
            .chain(call.args.iter().map(|(n, e)| (n.as_ref(), e)))
            .collect();
        let name = path_text(&call.function);
        let def = self.modules.resolve(t.module, &call.function);
        if let Some(Def::Item(m, index)) = def
            && let ItemKind::Fn(f) = &self.modules.get(m).ast.items[index].kind
        {
            if f.role.as_ref().is_none_or(|r| r.name != "init") {
                let d = Diagnostic::new(
                    Code::E0106,
                    format!("`{name}` is not an initialiser"),
                    span,
                    "in an initialiser",
                )
                .also(f.name.span, "declared here")
                .help(format!("declare it `fn {name}(...) : init = ...`"));
                return Err(self.report(d));
            }
            if t.depth > MAX_DEPTH {
                return self.err(
                    Code::E0104,
                    span,
                    format!("`{name}` calls itself"),
                    "recursion cannot end",
                );
            }
            let inner = Target {
                ty: t.ty,
                depth: t.depth + 1,
                module: m,
            };
            let mut bound = Scope::new();
            let mut next = 0;
            for (key, value) in &args {
                let k = match key {
                    Some(key) => f.params.iter().position(|p| p.name.name == key.name),
                    None => {
                        next += 1;
                        Some(next - 1).filter(|k| *k < f.params.len())
                    }
                };
                let Some(k) = k else {
                    return self.err(
                        Code::E0105,
                        value.span,
                        format!("`{name}` does not take this argument"),
                        "too many or unknown",
                    );
                };
                let v = self.init(value, scope, t)?;
                bound.insert(f.params[k].name.name.clone(), v);
            }
            for p in &f.params {
                if !bound.contains_key(&p.name.name) {
                    let Some(default) = &p.default else {
                        return self.err(
                            Code::E0105,
                            span,
                            format!("argument `{}` of `{name}` is missing", p.name.name),
                            "in this call",
                        );
                    };
                    let v = self.init(default, &Scope::new(), &inner)?;
                    bound.insert(p.name.name.clone(), v);
                }
            }
            return match &f.body {
                Body::Expr(e) => self.init(e, &bound, &inner),
                Body::Block(b) => {
                    for stmt in &b.stmts {
                        match &stmt.kind {
                            StmtKind::Let {
                                pattern,
                                tuple: false,
                                value,
                                ..
                            } => {
                                let v = self.init(value, &bound, &inner)?;
                                bound.insert(pattern[0].name.clone(), v);
                            }
                            StmtKind::Return(e) => return self.init(e, &bound, &inner),
                            _ => {
                                return self.err(
                                    Code::E0105,
                                    stmt.span,
                                    "initialisers use `let` and `return` only",
                                    "not allowed here",
                                );
                            }
                        }
                    }
                    self.err(
                        Code::E0105,
                        b.span,
                        format!("`{name}` returns nothing"),
                        "no `return` at the end",
                    )
                }
            };
        }
        if def.is_some() {
            return self.err(
                Code::E0106,
                span,
                format!("`{name}` is not an initialiser"),
                "in an initialiser",
            );
        }
        if let Some(f) = builtins::unary(&name) {
            return match args[..] {
                [(None, x)] => Ok(fold_unary(f, self.init(x, scope, t)?)),
                _ => self.err(
                    Code::E0105,
                    span,
                    format!("`{name}` takes one argument"),
                    "in this call",
                ),
            };
        }
        let two = match name.as_str() {
            "max" => Some(Binary::Max),
            "min" => Some(Binary::Min),
            "mod" => Some(Binary::Mod),
            _ => None,
        };
        match (two, &args[..]) {
            (Some(f), [(None, a), (None, b)]) => {
                return Ok(fold_binary(
                    f,
                    self.init(a, scope, t)?,
                    self.init(b, scope, t)?,
                ));
            }
            (Some(_), _) => {
                return self.err(
                    Code::E0105,
                    span,
                    format!("`{name}` takes two arguments"),
                    "in this call",
                );
            }
            _ => {}
        }
        if builtins::FUNCTIONS.contains(&name.as_str()) {
            // `dim(x)`, `div(a, b)` and the like: numbers of the frame the `param` is in.
            return match self.call(None, call)? {
                Val::Static(s) if super::expr::real(s).is_some() => {
                    Ok(Init::Number(super::expr::real(s).unwrap_or(0.0)))
                }
                Val::Sites { scale, token } => Ok(length(&[Dim::Sites {
                    scale,
                    per: token.volume(),
                }])),
                _ => self.err(
                    Code::E0203,
                    span,
                    "expected a number known at compile time",
                    "in an initialiser",
                ),
            };
        }
        let [(None, arg)] = args[..] else {
            if builtins::INIT_FUNCTIONS.contains(&name.as_str()) {
                return self.err(
                    Code::E0105,
                    span,
                    format!("`{name}` takes one argument"),
                    "in this call",
                );
            }
            return Err(self.unknown(&call.function, span));
        };
        let hippo = match name.as_str() {
            "hippo_lambda_re" => Some(Hippo::LambdaRe),
            "hippo_lambda_im" => Some(Hippo::LambdaIm),
            "hippo_p_re" => Some(Hippo::PRe),
            "hippo_p_im" => Some(Hippo::PIm),
            "hippo_b_re" => Some(Hippo::BRe),
            "hippo_b_im" => Some(Hippo::BIm),
            _ => None,
        };
        if let Some(which) = hippo {
            let n = match self.init(arg, scope, t)? {
                Init::Number(x) if x >= 1.0 && x.fract() == 0.0 => x as usize,
                _ => {
                    return self.err(
                        Code::E0207,
                        arg.span,
                        "the number of states must be a positive integer",
                        "not one",
                    );
                }
            };
            if n > 1024 {
                return self.err(
                    Code::E0207,
                    arg.span,
                    "more than 1024 states are not supported",
                    "too many",
                );
            }
            if t.ty.shape.first() != Some(&Dim::Static(n)) {
                let label = format!("the parameter is {}", super::show_type(t.ty));
                return self.err(
                    Code::E0201,
                    span,
                    format!("`{name}({n})` needs a first axis of length {n}"),
                    label,
                );
            }
            return Ok(Init::Hippo(which, n));
        }
        match name.as_str() {
            "axis" => {
                let k = match self.init(arg, scope, t)? {
                    Init::Number(x) if x >= 0.0 && x.fract() == 0.0 => x as usize,
                    _ => {
                        return self.err(
                            Code::E0207,
                            arg.span,
                            "an axis is a non-negative integer",
                            "not one",
                        );
                    }
                };
                if k >= t.ty.shape.len() {
                    let label = format!("the parameter is {}", super::show_type(t.ty));
                    return self.err(
                        Code::E0201,
                        arg.span,
                        format!("the parameter has no axis {k}"),
                        label,
                    );
                }
                Ok(Init::Axis(k))
            }
            "data_mean" | "data_std" => {
                let val = self.expr(arg)?;
                let id = self.tensor(val, arg.span)?;
                let v = self.value(id).clone();
                let site = matches!(v.ty.place, Place::Site(_));
                if !site || v.ty.dtype == DType::Complex {
                    let label = format!("this is {}", self.describe(id));
                    return self.err(
                        Code::E0206,
                        arg.span,
                        format!("`{name}` needs a real per-site value"),
                        label,
                    );
                }
                if v.ty.shape != t.ty.shape || t.ty.place != Place::Whole {
                    let label = format!(
                        "this is {}, the parameter is {}",
                        super::show_type(&v.ty),
                        super::show_type(t.ty)
                    );
                    return self.err(
                        Code::E0201,
                        arg.span,
                        format!("`{name}` needs a value of the parameter's shape"),
                        label,
                    );
                }
                Ok(if name == "data_mean" {
                    Init::DataMean(id)
                } else {
                    Init::DataStd(id)
                })
            }
            _ => Err(self.unknown(&call.function, span)),
        }
    }
}

fn length(dims: &[Dim]) -> Init {
    let mut product = 1usize;
    for d in dims {
        match d {
            Dim::Static(n) => product = product.saturating_mul(*n),
            Dim::Sites { .. } => return Init::Length(dims.to_vec()),
        }
    }
    Init::Number(product as f64)
}

fn fold_unary(f: Unary, x: Init) -> Init {
    match (f, &x) {
        (Unary::Neg, Init::Number(v)) => Init::Number(-v),
        (Unary::Sqrt, Init::Number(v)) if *v >= 0.0 => Init::Number(v.sqrt()),
        (Unary::Log, Init::Number(v)) if *v > 0.0 => Init::Number(v.ln()),
        _ => Init::Unary(f, Box::new(x)),
    }
}

fn fold_binary(f: Binary, a: Init, b: Init) -> Init {
    if let (Init::Number(x), Init::Number(y)) = (&a, &b) {
        let v = match f {
            Binary::Add => x + y,
            Binary::Sub => x - y,
            Binary::Mul => x * y,
            Binary::Div => x / y,
            _ => f64::NAN,
        };
        if v.is_finite() {
            return Init::Number(v);
        }
    }
    Init::Binary(f, Box::new(a), Box::new(b))
}
