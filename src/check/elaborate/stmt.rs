//! Statements.

use super::*;
use crate::check::core::{Dim, Place};

impl Elaborator<'_> {
    /// Statements in a scope of their own.
    pub(super) fn block(&mut self, block: &Block) -> R<()> {
        self.frame().scopes.push(HashMap::new());
        let result = self.block_in_scope(block);
        self.frame().scopes.pop();
        result
    }

    /// Statements in the scope that is open.
    pub(super) fn block_in_scope(&mut self, block: &Block) -> R<()> {
        let mut result = Ok(());
        for stmt in &block.stmts {
            if self.frame().returned.is_some() {
                return self.err(
                    Code::E0105,
                    stmt.span,
                    "nothing is executed after `return`",
                    "unreachable",
                );
            }
            if self.exhausted() {
                return Err(Reported);
            }
            if self.statement(stmt).is_err() {
                result = Err(Reported);
            }
        }
        result
    }

    fn statement(&mut self, stmt: &Stmt) -> R<()> {
        self.step(stmt.span)?;
        match &stmt.kind {
            StmtKind::Let {
                pattern,
                tuple,
                annotation,
                value,
            } => {
                let val = self.expr(value).unwrap_or(Val::Poison);
                if !tuple {
                    return self.define(&pattern[0], annotation.as_ref(), val, value.span, false);
                }
                let parts = match val {
                    Val::Tuple(parts) if parts.len() == pattern.len() => parts,
                    Val::Poison => vec![Val::Poison; pattern.len()],
                    other => {
                        let got = match &other {
                            Val::Tuple(parts) => format!("a tuple of {}", parts.len()),
                            _ => "one value".to_owned(),
                        };
                        let _: R<()> = self.err(
                            Code::E0105,
                            value.span,
                            format!("{} names for {got}", pattern.len()),
                            format!("this is {got}"),
                        );
                        vec![Val::Poison; pattern.len()]
                    }
                };
                for (name, part) in pattern.iter().zip(parts) {
                    self.define(name, None, part, value.span, false)?;
                }
                Ok(())
            }
            StmtKind::Var {
                name,
                annotation,
                value,
            } => {
                let val = self.expr(value).unwrap_or(Val::Poison);
                self.define(name, annotation.as_ref(), val, value.span, true)
            }
            StmtKind::Assign { name, value } if name.name == "log_psi" => self.readout(name, value),
            StmtKind::Assign { name, value } => {
                let val = self.expr(value).unwrap_or(Val::Poison);
                self.assign(name, val)
            }
            StmtKind::AddAssign { name, value } => {
                let added = self.expr(value).unwrap_or(Val::Poison);
                let old = match self.lookup(&name.name) {
                    Some(b) => b.val.clone(),
                    None => return self.unknown_variable(name),
                };
                let sum = self.binary(BinaryOp::Add, old, added, name.span, value.span, stmt.span);
                self.assign(name, sum.unwrap_or(Val::Poison))
            }
            StmtKind::Param(param) => {
                let declared = self.param(param, stmt.span);
                if declared.is_err() && self.lookup(&param.name.name).is_none() {
                    self.bind(&param.name, Val::Poison, false);
                }
                declared
            }
            StmtKind::Repeat {
                var,
                from,
                to,
                label,
                shared,
                body,
            } => {
                let from = match from {
                    Some(e) => self.static_int(e, "a `repeat` bound")?,
                    None => 0,
                };
                let bound = self.static_int(to, "a `repeat` bound")?;
                if bound.saturating_sub(from) > MAX_VALUES as i64 {
                    return self.err(
                        Code::E0002,
                        to.span,
                        format!("{} turns are too many", bound.saturating_sub(from)),
                        "this bound",
                    );
                }
                let label = label
                    .as_ref()
                    .map_or("block", |l| l.name.as_str())
                    .to_owned();
                let base = self.scope_path(&label);
                let mut result = Ok(());
                // Numbering goes on when a label recurs, so that paths stay unique.
                let start = *self.used_scopes.get(&base).unwrap_or(&0);
                let common = if start == 0 {
                    label.clone()
                } else {
                    format!("{label}_{start}")
                };
                for turn in from..bound {
                    let offset = (turn - from) as usize;
                    self.path.push(if *shared {
                        common.clone()
                    } else {
                        format!("{label}_{}", start + offset)
                    });
                    let share = *shared && turn > from;
                    let scopes_before = share.then(|| self.reset_scopes());
                    self.sharing += usize::from(share);
                    self.frame().scopes.push(HashMap::new());
                    if let Some(v) = var {
                        self.bind(v, Val::Static(Static::Int(turn)), false);
                    }
                    let r = self
                        .step(stmt.span)
                        .and_then(|()| self.block_in_scope(body));
                    self.frame().scopes.pop();
                    self.sharing -= usize::from(share);
                    if let Some(saved) = scopes_before {
                        self.used_scopes.extend(saved);
                    }
                    self.path.pop();
                    if r.is_err() {
                        result = r;
                        if self.exhausted() {
                            break;
                        }
                    }
                }
                let turns = bound.saturating_sub(from).max(0) as usize;
                let used = if *shared { 1 } else { turns };
                self.used_scopes.insert(base, start + used);
                result
            }
            StmtKind::If {
                cond,
                then,
                otherwise,
            } => {
                if self.static_bool(cond)? {
                    self.block(then)
                } else if let Some(block) = otherwise {
                    self.block(block)
                } else {
                    Ok(())
                }
            }
            StmtKind::Return(value) => {
                if self.frames.len() == 1 {
                    return self.err(
                        Code::E0105,
                        stmt.span,
                        "`return` outside a function",
                        "a network assigns `log_psi`",
                    );
                }
                let val = self.expr(value).unwrap_or(Val::Poison);
                self.frame().returned = Some(val);
                Ok(())
            }
        }
    }

    /// Forgets the scope names handed out below the present path, so that the
    /// next turn of a shared `repeat` gets the same ones.
    fn reset_scopes(&mut self) -> HashMap<String, usize> {
        let prefix = self.scope_path("");
        let below: Vec<String> = self
            .used_scopes
            .keys()
            .filter(|k| k.starts_with(&prefix))
            .cloned()
            .collect();
        below
            .into_iter()
            .filter_map(|k| self.used_scopes.remove_entry(&k))
            .collect()
    }

    fn define(
        &mut self,
        name: &Ident,
        annotation: Option<&Annotation>,
        val: Val,
        span: Span,
        mutable: bool,
    ) -> R<()> {
        if crate::check::builtins::is_reserved_function(&name.name) {
            let d = Diagnostic::new(
                Code::E0102,
                format!("`{}` is a primitive of the language", name.name),
                name.span,
                "defined again here",
            )
            .help("choose another name");
            self.report(d);
        } else if let Some(first) = self
            .frames
            .last()
            .and_then(|f| f.scopes.last())
            .and_then(|s| s.get(&name.name))
            .map(|b| b.span)
        {
            let d = Diagnostic::new(
                Code::E0102,
                format!("`{}` is defined twice in this block", name.name),
                name.span,
                "defined again here",
            )
            .also(first, "first defined here")
            .help(format!(
                "choose another name, or declare `var {0}` and assign `{0} = ...`",
                name.name
            ));
            self.report(d);
        }
        self.record(name, &val);
        if let Val::Tensor(id) = val {
            let path = self.scope_path(&name.name);
            let depth = self.via.len();
            let value = &mut self.values[id.0 as usize];
            if value.name.is_none() && (depth == 0 || !self.path.is_empty()) {
                value.name = Some(path);
            }
        }
        let checked = match annotation {
            Some(a) => self.check_annotation(a, &val, span),
            None => Ok(()),
        };
        self.bind(name, val, mutable);
        checked
    }

    /// Remembers what the network's own statements bind.
    fn record(&mut self, name: &Ident, val: &Val) {
        if let (Val::Tensor(id), 1) = (val, self.frames.len()) {
            let path = self.scope_path(&name.name);
            self.bindings.push((path, *id));
        }
    }

    fn assign(&mut self, name: &Ident, val: Val) -> R<()> {
        self.record(name, &val);
        let frame = self
            .frames
            .last_mut()
            .expect("elaboration runs inside a frame");
        match frame
            .scopes
            .iter_mut()
            .rev()
            .find_map(|s| s.get_mut(&name.name))
        {
            Some(binding) if binding.mutable => {
                binding.val = val;
                Ok(())
            }
            Some(binding) => {
                let first = binding.span;
                let d = Diagnostic::new(
                    Code::E0106,
                    format!("`{}` cannot be assigned", name.name),
                    name.span,
                    "assigned here",
                )
                .also(first, "not declared with `var`")
                .help(format!("declare it as `var {} = ...`", name.name));
                Err(self.report(d))
            }
            None => self.unknown_variable(name),
        }
    }

    fn unknown_variable(&mut self, name: &Ident) -> R<()> {
        let d = Diagnostic::new(
            Code::E0101,
            format!("unknown name `{}`", name.name),
            name.span,
            "not defined",
        )
        .help(format!("declare it first: `var {} = ...`", name.name));
        Err(self.report(d))
    }

    fn readout(&mut self, name: &Ident, value: &Expr) -> R<()> {
        let val = self.expr(value)?;
        let id = self.tensor(val, value.span)?;
        if let Some((_, first)) = self.log_psi {
            let d = Diagnostic::new(
                Code::E0102,
                "`log_psi` is assigned twice",
                name.span,
                "assigned again here",
            )
            .also(first, "first assigned here")
            .help("a network has one readout");
            return Err(self.report(d));
        }
        let v = self.value(id).clone();
        let ones = v.ty.shape.iter().all(|d| *d == Dim::Static(1));
        let problem = if v.ty.place != Place::Whole {
            Some((
                "it has one value per site",
                "pool over sites first: `mean(...)` or `sum(...)`",
            ))
        } else if !ones {
            Some((
                "it has several components",
                "reduce them: `channel_sum(...)`, or a readout head",
            ))
        } else if v.kind == Kind::Const {
            Some((
                "it does not depend on the configuration",
                "use `spins` somewhere",
            ))
        } else {
            None
        };
        if let Some((what, help)) = problem {
            let d = Diagnostic::new(
                Code::E0306,
                format!("`log_psi` must be one number per configuration, but {what}"),
                value.span,
                format!("this is {}", self.describe(id)),
            )
            .help(help);
            return Err(self.report(d));
        }
        let id = if v.ty.shape.is_empty() {
            id
        } else {
            let ty = Type {
                shape: vec![],
                ..v.ty
            };
            self.push(CoreOp::Reshape, vec![id], ty, v.kind, value.span)?
        };
        self.log_psi = Some((id, name.span));
        Ok(())
    }

    fn param(&mut self, p: &ParamStmt, span: Span) -> R<()> {
        let mut shape = Vec::new();
        for e in &p.shape {
            shape.push(self.dim_expr(e)?);
        }
        let place = match &p.per {
            ParamPer::Whole => Place::Whole,
            ParamPer::Site(x) => Place::Site(self.token_of(x)?),
            ParamPer::Displacement(x) => Place::Displacement(self.token_of(x)?),
            ParamPer::Momentum(x) => Place::Momentum(self.token_of(x)?),
            ParamPer::Pair(x) => Place::Pair(self.token_of(x)?),
        };
        let dtype = if p.complex {
            DType::Complex
        } else {
            DType::Real
        };
        let ty = Type {
            place,
            shape,
            dtype,
        };
        let path = self.scope_path(&p.name.name);
        if let Some(&(id, value)) = self.param_index.get(&path) {
            let first = &self.params[id.0 as usize];
            if self.sharing == 0 {
                let first = first.span;
                let d = Diagnostic::new(
                    Code::E0102,
                    format!("parameter `{path}` is declared twice"),
                    p.name.span,
                    "again here",
                )
                .also(first, "first declared here")
                .help("give one of the calls a label: `f(...) as name`");
                return Err(self.report(d));
            }
            if first.ty != ty {
                let text = format!(
                    "{} here, {} on an earlier turn",
                    show_type(&ty),
                    show_type(&first.ty)
                );
                return self.err(
                    Code::E0201,
                    p.name.span,
                    format!("the shared parameter `{path}` changes its shape"),
                    text,
                );
            }
            self.bind(&p.name, Val::Tensor(value), false);
            return Ok(());
        }
        let (init, init_text) = self.param_init(p, &ty)?;
        let id = ParamId(self.params.len() as u32);
        let value = self.push(CoreOp::Param(id), vec![], ty.clone(), Kind::Const, span)?;
        self.params.push(ParamInfo {
            path: path.clone(),
            ty,
            init,
            init_text,
            span: p.name.span,
        });
        self.param_index.insert(path.clone(), (id, value));
        self.values[value.0 as usize].name = Some(path);
        self.bind(&p.name, Val::Tensor(value), false);
        Ok(())
    }

    /// The token of a per-site value, for `per site of x`.
    pub(super) fn token_of(&mut self, e: &Expr) -> R<Token> {
        let val = self.expr(e)?;
        let id = self.tensor(val, e.span)?;
        match self.value(id).ty.place {
            Place::Site(token) => Ok(token),
            _ => {
                let label = format!("this is {}", self.describe(id));
                self.err(Code::E0206, e.span, "expected a per-site value", label)
            }
        }
    }

    fn check_annotation(&mut self, a: &Annotation, val: &Val, span: Span) -> R<()> {
        let Val::Tensor(id) = *val else {
            if matches!(val, Val::Poison) {
                return Ok(());
            }
            return self.err(
                Code::E0205,
                a.span,
                "only tensors can be annotated",
                "not a tensor",
            );
        };
        let v = self.value(id).clone();
        let mut wrong: Option<String> = None;
        if let Some(kind) = &a.kind {
            let fits = match (kind, v.kind) {
                (KindAnnotation::Const, Kind::Const)
                | (KindAnnotation::Linear, Kind::Linear { .. } | Kind::Local(_))
                | (KindAnnotation::Pooled, Kind::Pooled)
                | (KindAnnotation::Global, _) => true,
                (KindAnnotation::Local(bounds), Kind::Local(w)) => {
                    let token = match v.ty.place {
                        Place::Site(t) => t,
                        _ => Token::SPIN,
                    };
                    let mut fits = true;
                    for (axis, (lo, hi)) in bounds.iter().enumerate().take(2) {
                        let lo = self.static_int(lo, "a window bound")?;
                        let hi = self.static_int(hi, "a window bound")?;
                        fits &= w.tokens(token, axis) == (lo, hi);
                    }
                    fits
                }
                _ => false,
            };
            if !fits {
                wrong = Some("kind".to_owned());
            }
        }
        if let Some((complex, dims)) = &a.ty {
            let mut shape = Vec::new();
            for d in dims {
                shape.push(self.dim_expr(d)?);
            }
            let dtype = if *complex {
                DType::Complex
            } else {
                DType::Real
            };
            if v.ty.dtype != dtype {
                wrong = Some("dtype".to_owned());
            } else if v.ty.shape != shape {
                wrong = Some("shape".to_owned());
            }
        }
        if let Some(what) = wrong {
            let label = format!("this is {}", self.describe(id));
            let d = Diagnostic::new(
                Code::E0205,
                format!("the annotated {what} does not hold"),
                span,
                label,
            )
            .also(a.span, "annotated here")
            .help("correct the annotation, or leave it out: kinds and shapes are inferred");
            return Err(self.report(d));
        }
        Ok(())
    }
}
