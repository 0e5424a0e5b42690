//! Calls: argument binding, parameter scopes, inlining.

use super::*;
use crate::check::builtins;
use crate::check::modules::{Def, path_text};

/// Arguments of a call after evaluation: positional, then named.
pub(super) struct Args {
    pub positional: Vec<(Val, Span)>,
    pub named: Vec<(Ident, Val, Span)>,
    pub span: Span,
}

impl Elaborator<'_> {
    pub(super) fn call(&mut self, first: Option<(Val, Span)>, call: &Call) -> R<Val> {
        let span = match &first {
            Some((_, s)) if s.file == call.span.file => s.to(call.span),
            _ => call.span,
        };
        let single = (call.function.len() == 1).then(|| call.function[0].name.as_str());
        let module = self.frame().module;
        let local = single.is_some_and(|n| self.lookup(n).is_some());
        let def = if local {
            None
        } else {
            self.modules.resolve(module, &call.function)
        };
        let primitive = single.filter(|n| {
            !local
                && def.is_none()
                && (builtins::unary(n).is_some() || builtins::FUNCTIONS.contains(n))
        });
        if def.is_none() && primitive.is_none() {
            let at = call.function[0]
                .span
                .to(call.function[call.function.len() - 1].span);
            if local {
                let name = path_text(&call.function);
                return self.err(
                    Code::E0106,
                    at,
                    format!("`{name}` is a value, not a function"),
                    "called here",
                );
            }
            if let Some(name) = single
                && (builtins::INIT_FUNCTIONS.contains(&name)
                    || builtins::INIT_VALUES.contains(&name))
            {
                return self.err(
                    Code::E0106,
                    at,
                    format!("`{name}` belongs to initialisers"),
                    "only usable after `param ... =` and in `fn ... : init`",
                );
            }
            return Err(self.unknown(&call.function, at));
        }
        let mut args = Args {
            positional: first.into_iter().collect(),
            named: Vec::new(),
            span,
        };
        let mut failed = false;
        for (name, value) in &call.args {
            let val = self.expr(value).unwrap_or_else(|Reported| {
                failed = true;
                Val::Poison
            });
            match name {
                Some(n) => args.named.push((n.clone(), val, value.span)),
                None => args.positional.push((val, value.span)),
            }
        }
        if failed {
            return Err(Reported);
        }
        if let Some(name) = primitive {
            if let Some(label) = &call.label {
                return self.err(
                    Code::E0105,
                    label.span,
                    format!("`{name}` is a primitive and owns no parameters"),
                    "this label names nothing",
                );
            }
            return self.primitive(name, args);
        }
        let Some(Def::Item(m, index)) = def else {
            return self.err(
                Code::E0106,
                call.span,
                format!("`{}` is a module", path_text(&call.function)),
                "called here",
            );
        };
        let item = &self.modules.get(m).ast.items[index];
        match &item.kind {
            ItemKind::Fn(f) => {
                let role = f.role.as_ref().map(|r| r.name.clone());
                if role.as_deref() == Some("init") {
                    let name = &f.name.name;
                    return self.err(
                        Code::E0106,
                        call.span,
                        format!("`{name}` is an initialiser"),
                        "only usable after `param ... =`",
                    );
                }
                self.inline(
                    m,
                    index,
                    &f.name,
                    &f.params,
                    role,
                    &f.body,
                    args,
                    call.label.as_ref(),
                )
            }
            ItemKind::Mixer(x) => {
                let first_arg = args.positional.first().map(|p| p.0.clone());
                let start = self.values.len();
                let number = self.mixers.iter().filter(|u| u.name == x.name.name).count() as u32;
                self.mixer_stack.push((x.name.name.clone(), number));
                let out = self.inline(
                    m,
                    index,
                    &x.name,
                    &x.params,
                    None,
                    &x.body,
                    args,
                    call.label.as_ref(),
                );
                self.mixer_stack.pop();
                let out = out?;
                if let (Some(Val::Tensor(input)), Val::Tensor(output)) = (first_arg, &out) {
                    self.check_mixer(x, input, *output, start, span)?;
                }
                Ok(out)
            }
            ItemKind::Network(_)
            | ItemKind::Operator(_)
            | ItemKind::Const(_)
            | ItemKind::Use(_) => {
                let name = path_text(&call.function);
                self.err(
                    Code::E0106,
                    call.span,
                    format!("`{name}` cannot be called"),
                    "not a function or mixer",
                )
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn inline(
        &mut self,
        module: ModuleId,
        index: usize,
        name: &Ident,
        params: &[FnParam],
        role: Option<String>,
        body: &Body,
        args: Args,
        label: Option<&Ident>,
    ) -> R<Val> {
        if self.via.len() >= MAX_DEPTH {
            return self.err(
                Code::E0104,
                args.span,
                format!("`{}` calls itself", name.name),
                "functions are inlined, so recursion cannot end",
            );
        }
        let call_span = args.span;
        self.step(call_span)?;
        let bound = self.bind_args(name, params, args)?;
        let scoped = self.owns_params(module, index, 0);
        if let (Some(label), false) = (label, scoped) {
            let d = Diagnostic::new(
                Code::E0105,
                format!("`{}` owns no parameters", name.name),
                label.span,
                "this label names nothing",
            )
            .help("remove the label");
            return Err(self.report(d));
        }
        if scoped {
            let segment = self.scope_name(label, &name.name)?;
            self.path.push(segment);
        }
        let mut scope = HashMap::new();
        for (p, val) in params.iter().zip(&bound) {
            scope.insert(
                p.name.name.clone(),
                Binding {
                    val: val.clone(),
                    mutable: false,
                    span: p.name.span,
                },
            );
        }
        self.frames.push(Frame {
            module,
            scopes: vec![scope],
            returned: None,
        });
        self.via.push((name.name.clone(), call_span, role));
        let mut failed = false;
        for (p, val) in params.iter().zip(&bound) {
            if let (Some((ty, _)), Val::Static(v)) = (p.ty, val) {
                match self.check_static(p, ty, *v, p.name.span) {
                    Ok(v) => {
                        let scope = self.frame().scopes.last_mut().expect("a frame has a scope");
                        scope.insert(
                            p.name.name.clone(),
                            Binding {
                                val: Val::Static(v),
                                mutable: false,
                                span: p.name.span,
                            },
                        );
                    }
                    Err(Reported) => failed = true,
                }
            }
        }
        let result = if failed {
            Err(Reported)
        } else {
            match body {
                Body::Expr(e) => self.expr(e),
                Body::Block(block) => {
                    let r = self.block_in_scope(block);
                    match (self.frame().returned.take(), r) {
                        (Some(Val::Poison), _) | (_, Err(Reported)) => Err(Reported),
                        (Some(val), Ok(())) => Ok(val),
                        (None, Ok(())) => self.err(
                            Code::E0105,
                            block.span,
                            format!("`{}` returns nothing", name.name),
                            "no `return` at the end",
                        ),
                    }
                }
            }
        };
        self.via.pop();
        self.frames.pop();
        if scoped {
            self.path.pop();
        }
        result
    }

    /// Values for the parameters of a function, in their order.
    fn bind_args(&mut self, name: &Ident, params: &[FnParam], args: Args) -> R<Vec<Val>> {
        let mut slots: Vec<Option<(Val, Span)>> = vec![None; params.len()];
        let signature = || {
            let parts: Vec<String> = params
                .iter()
                .map(|p| match p.ty {
                    Some((ty, _)) => {
                        format!("{}: {}", p.name.name, super::expr::static_type_name(ty))
                    }
                    None => p.name.name.clone(),
                })
                .collect();
            format!("`{}({})`", name.name, parts.join(", "))
        };
        let count = args.positional.len();
        for (k, (val, span)) in args.positional.into_iter().enumerate() {
            if k >= params.len() {
                let d = Diagnostic::new(
                    Code::E0105,
                    format!(
                        "`{}` takes {} arguments, {count} were given",
                        name.name,
                        params.len()
                    ),
                    span,
                    "one too many",
                )
                .help(format!("it is {}", signature()));
                return Err(self.report(d));
            }
            slots[k] = Some((val, span));
        }
        for (key, val, span) in args.named {
            let Some(k) = params.iter().position(|p| p.name.name == key.name) else {
                let d = Diagnostic::new(
                    Code::E0105,
                    format!("`{}` has no argument `{}`", name.name, key.name),
                    key.span,
                    "not an argument",
                )
                .help(format!("it is {}", signature()));
                return Err(self.report(d));
            };
            if slots[k].is_some() {
                return self.err(
                    Code::E0105,
                    key.span,
                    format!("argument `{}` is given twice", key.name),
                    "again here",
                );
            }
            slots[k] = Some((val, span));
        }
        let mut out = Vec::new();
        for (p, slot) in params.iter().zip(slots) {
            let val = match (slot, &p.default) {
                (Some((val, span)), _) => match (p.ty, val) {
                    (Some((ty, _)), val) if !matches!(val, Val::Static(_)) => {
                        let what = match &val {
                            Val::Tensor(id) => self.describe(*id),
                            Val::Sites { .. } => "a length known at run time".to_owned(),
                            _ => "something else".to_owned(),
                        };
                        let d = Diagnostic::new(
                            Code::E0203,
                            format!(
                                "argument `{}` must be a `{}` known at compile time",
                                p.name.name,
                                super::expr::static_type_name(ty)
                            ),
                            span,
                            format!("this is {what}"),
                        )
                        .also(p.name.span, "declared here");
                        return Err(self.report(d));
                    }
                    (Some((ty, _)), Val::Static(v)) => {
                        Val::Static(self.check_static(p, ty, v, span)?)
                    }
                    (_, val) => val,
                },
                (None, Some(default)) => self.expr(default)?,
                (None, None) => {
                    let d = Diagnostic::new(
                        Code::E0105,
                        format!("argument `{}` of `{}` is missing", p.name.name, name.name),
                        args.span,
                        "in this call",
                    )
                    .help(format!("it is {}", signature()));
                    return Err(self.report(d));
                }
            };
            out.push(val);
        }
        Ok(out)
    }

    /// The path segment of a call that owns parameters.
    fn scope_name(&mut self, label: Option<&Ident>, function: &str) -> R<String> {
        if let Some(label) = label {
            let full = self.scope_path(&label.name);
            if self.sharing == 0
                && let Some(first) = self.labels.insert(full.clone(), label.span)
            {
                let d = Diagnostic::new(
                    Code::E0102,
                    format!("the label `{}` is used twice in this scope", label.name),
                    label.span,
                    "used again here",
                )
                .also(first, "first used here")
                .help("parameters are saved under their labels: choose different ones");
                return Err(self.report(d));
            }
            return Ok(label.name.clone());
        }
        let base = self.scope_path(function);
        let count = self.used_scopes.entry(base).or_insert(0);
        *count += 1;
        Ok(if *count == 1 {
            function.to_owned()
        } else {
            format!("{function}_{}", *count - 1)
        })
    }

    /// Whether a function declares parameters, itself or through calls.
    fn owns_params(&mut self, module: ModuleId, index: usize, depth: usize) -> bool {
        if let Some(&known) = self.owns_params.get(&(module.0, index)) {
            return known;
        }
        if depth > MAX_DEPTH {
            return false;
        }
        let body = match &self.modules.get(module).ast.items[index].kind {
            ItemKind::Fn(f) => &f.body,
            ItemKind::Mixer(m) => &m.body,
            _ => return false,
        };
        let mut found = false;
        let mut callees = Vec::new();
        crate::check::walk::body(body, &mut |node| match node {
            crate::check::walk::Node::Param => found = true,
            crate::check::walk::Node::Call(call) => callees.push(call.function.clone()),
        });
        for path in callees {
            if found {
                break;
            }
            if let Some(Def::Item(m, k)) = self.modules.resolve(module, &path) {
                found = self.owns_params(m, k, depth + 1);
            }
        }
        self.owns_params.insert((module.0, index), found);
        found
    }
}
