//! Names: every name used is defined, every name defined is used. Runs once
//! per module on the tree alone, so functions nobody calls are covered too.

use super::builtins;
use super::modules::{Def, ModuleId, Modules, path_text, with_suggestion};
use super::walk;
use crate::diag::{Code, Diagnostic};
use crate::syntax::ast::*;
use std::collections::{HashMap, HashSet};

/// Where a body stands: decides which primitives exist.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Tensor,
    Init,
    Operator,
}

struct Local {
    span: Span,
    used: bool,
}

struct Names<'a> {
    modules: &'a Modules,
    module: ModuleId,
    scopes: Vec<HashMap<String, Local>>,
    used_items: HashSet<String>,
    place: Place,
    diags: Vec<Diagnostic>,
}

/// All name errors and warnings of a module.
pub fn check(modules: &Modules, module: ModuleId) -> Vec<Diagnostic> {
    let mut n = Names {
        modules,
        module,
        scopes: Vec::new(),
        used_items: HashSet::new(),
        place: Place::Tensor,
        diags: Vec::new(),
    };
    let ast = &modules.get(module).ast;
    for item in &ast.items {
        n.item(item);
    }
    n.unused_imports(ast);
    n.diags
}

impl Names<'_> {
    fn item(&mut self, item: &Item) {
        self.place = Place::Tensor;
        match &item.kind {
            ItemKind::Use(_) => {}
            ItemKind::Const(c) => self.scoped(|s| s.expr(&c.value)),
            ItemKind::Fn(f) => {
                let init = f.role.as_ref().is_some_and(|r| r.name == "init");
                if let Some(role) = f
                    .role
                    .as_ref()
                    .filter(|r| r.name != "init" && r.name != "norm")
                {
                    self.diags.push(
                        Diagnostic::new(Code::E0101, format!("unknown role `{}`", role.name), role.span, "not a role")
                            .help("roles are `norm` (a configuration-dependent norm) and `init` (an initialiser)"),
                    );
                }
                self.place = if init { Place::Init } else { Place::Tensor };
                let body = &f.body;
                // A function with site arguments is used by operators, so both
                // vocabularies are open to it.
                self.function(&f.params, |s| s.body(body));
            }
            ItemKind::Mixer(m) => self.function(&m.params, |s| s.body(&m.body)),
            ItemKind::Network(net) => self.function(&net.params, |s| s.stmts(&net.body)),
            ItemKind::Operator(o) => {
                self.place = Place::Operator;
                self.function(&o.params, |s| s.op_stmts(&o.body));
            }
        }
    }

    fn scoped(&mut self, f: impl FnOnce(&mut Self)) {
        self.scopes.push(HashMap::new());
        f(self);
        let scope = self.scopes.pop().expect("pushed above");
        let mut unused: Vec<_> = scope
            .into_iter()
            .filter(|(n, l)| !l.used && !n.starts_with('_'))
            .collect();
        unused.sort_by_key(|(_, l)| l.span.start);
        for (name, local) in unused {
            self.diags.push(
                Diagnostic::new(
                    Code::W0601,
                    format!("`{name}` is never used"),
                    local.span,
                    "defined here",
                )
                .help(format!("remove it, or call it `_{name}`")),
            );
        }
    }

    fn function(&mut self, params: &[FnParam], body: impl FnOnce(&mut Self)) {
        self.scoped(|s| {
            for p in params {
                if let Some(first) = s
                    .scopes
                    .last()
                    .and_then(|sc| sc.get(&p.name.name))
                    .map(|l| l.span)
                {
                    s.diags.push(
                        Diagnostic::new(
                            Code::E0102,
                            format!("argument `{}` is declared twice", p.name.name),
                            p.name.span,
                            "declared again here",
                        )
                        .also(first, "first declared here")
                        .help("rename one of the two"),
                    );
                    continue;
                }
                for e in p
                    .default
                    .iter()
                    .chain(p.range.iter().flat_map(|(a, b)| [a, b]))
                {
                    s.expr(e);
                }
                s.define(&p.name, false);
            }
            body(s);
        });
    }

    fn define(&mut self, name: &Ident, warn_shadow: bool) {
        if warn_shadow {
            let depth = self.scopes.len().saturating_sub(1);
            if let Some(outer) = self.scopes[..depth]
                .iter()
                .rev()
                .find_map(|s| s.get(&name.name).map(|l| l.span))
                .or_else(|| {
                    let items = &self.modules.get(self.module).scope;
                    items.get(&name.name).map(|e| e.span)
                })
            {
                self.diags.push(
                    Diagnostic::new(
                        Code::W0604,
                        format!("`{}` hides an outer name", name.name),
                        name.span,
                        "defined here",
                    )
                    .also(outer, "the hidden one")
                    .help("choose another name; an outer `var` is assigned to without `let`"),
                );
            }
        }
        let scope = self.scopes.last_mut().expect("inside a scope");
        // A second `let` in the same block is E0102 at elaboration; keep the first.
        scope.entry(name.name.clone()).or_insert(Local {
            span: name.span,
            used: false,
        });
    }

    fn body(&mut self, body: &Body) {
        match body {
            Body::Expr(e) => self.expr(e),
            Body::Block(b) => self.stmts(b),
        }
    }

    fn stmts(&mut self, block: &Block) {
        for stmt in &block.stmts {
            match &stmt.kind {
                StmtKind::Let {
                    pattern,
                    annotation,
                    value,
                    ..
                } => {
                    self.annotation(annotation);
                    self.expr(value);
                    for name in pattern {
                        self.define(name, true);
                    }
                }
                StmtKind::Var {
                    name,
                    annotation,
                    value,
                } => {
                    self.annotation(annotation);
                    self.expr(value);
                    self.define(name, true);
                }
                StmtKind::Assign { name, value } => {
                    self.expr(value);
                    if name.name != "log_psi" {
                        self.assigned(name);
                    }
                }
                StmtKind::AddAssign { name, value } => {
                    self.expr(value);
                    self.assigned(name);
                }
                StmtKind::Param(p) => {
                    for e in &p.shape {
                        self.expr(e);
                    }
                    match &p.per {
                        ParamPer::Whole => {}
                        ParamPer::Site(e)
                        | ParamPer::Displacement(e)
                        | ParamPer::Momentum(e)
                        | ParamPer::Pair(e) => self.expr(e),
                    }
                    if let Some(init) = &p.init {
                        let outer = std::mem::replace(&mut self.place, Place::Init);
                        self.expr(init);
                        self.place = outer;
                    }
                    // `if bias { param bias: ... }` reads well: no W0604 here; and a
                    // parameter that influences nothing is W0602, not W0601.
                    self.define(&p.name, false);
                    if let Some(local) =
                        self.scopes.last_mut().and_then(|s| s.get_mut(&p.name.name))
                    {
                        local.used = true;
                    }
                }
                StmtKind::Repeat {
                    var,
                    from,
                    to,
                    body,
                    ..
                } => {
                    for e in from.iter().chain([to]) {
                        self.expr(e);
                    }
                    self.scoped(|s| {
                        if let Some(v) = var {
                            s.define(v, true);
                        }
                        s.stmts(body);
                    });
                }
                StmtKind::If {
                    cond,
                    then,
                    otherwise,
                } => {
                    self.expr(cond);
                    self.scoped(|s| s.stmts(then));
                    if let Some(b) = otherwise {
                        self.scoped(|s| s.stmts(b));
                    }
                }
                StmtKind::Return(e) => self.expr(e),
            }
        }
    }

    fn annotation(&mut self, a: &Option<Annotation>) {
        let Some(a) = a else { return };
        if let Some(KindAnnotation::Local(bounds)) = &a.kind {
            for (lo, hi) in bounds {
                self.expr(lo);
                self.expr(hi);
            }
        }
        for e in a.ty.iter().flat_map(|t| &t.1) {
            self.expr(e);
        }
    }

    fn op_stmts(&mut self, stmts: &[OpStmt]) {
        for stmt in stmts {
            match &stmt.kind {
                OpStmtKind::Let { name, value } => {
                    self.expr(value);
                    self.define(name, true);
                }
                OpStmtKind::Term(e) => self.expr(e),
                OpStmtKind::For { domain, cond, term } => {
                    let vars = match domain {
                        ForDomain::Sites(i) => vec![i],
                        ForDomain::Range(i, a, b) => {
                            self.expr(a);
                            self.expr(b);
                            vec![i]
                        }
                        ForDomain::Pairs(i, j) => vec![i, j],
                        ForDomain::Bonds(i, j, k) => {
                            self.expr(k);
                            vec![i, j]
                        }
                    };
                    self.scoped(|s| {
                        for v in vars {
                            s.define(v, false);
                        }
                        for e in cond.iter().chain([term]) {
                            s.expr(e);
                        }
                    });
                }
                OpStmtKind::If {
                    cond,
                    then,
                    otherwise,
                } => {
                    self.expr(cond);
                    self.scoped(|s| s.op_stmts(then));
                    self.scoped(|s| s.op_stmts(otherwise));
                }
            }
        }
    }

    fn assigned(&mut self, name: &Ident) {
        if !self.scopes.iter().any(|s| s.contains_key(&name.name)) {
            self.diags.push(
                Diagnostic::new(
                    Code::E0101,
                    format!("unknown name `{}`", name.name),
                    name.span,
                    "not defined",
                )
                .help(format!("declare it first: `var {} = ...`", name.name)),
            );
        }
    }

    fn expr(&mut self, e: &Expr) {
        let mut stack = vec![e];
        while let Some(e) = stack.pop() {
            match &e.kind {
                ExprKind::Path(path) => self.used(path, e.span),
                ExprKind::Call(call) => {
                    self.called(call);
                    stack.extend(call.args.iter().map(|(_, a)| a));
                }
                ExprKind::Pipe(first, call) => {
                    self.called(call);
                    stack.push(first);
                    stack.extend(call.args.iter().map(|(_, a)| a));
                }
                ExprKind::Sum(sum) => {
                    self.expr(&sum.from);
                    self.expr(&sum.to);
                    self.scoped(|s| {
                        s.define(&sum.var, false);
                        s.expr(&sum.term);
                    });
                }
                _ => stack.extend(walk::children(e)),
            }
        }
    }

    fn called(&mut self, call: &Call) {
        let at = call.function[0]
            .span
            .to(call.function[call.function.len() - 1].span);
        self.used(&call.function, at);
    }

    fn used(&mut self, path: &[Ident], span: Span) {
        let first = &path[0].name;
        if path.len() == 1 {
            for scope in self.scopes.iter_mut().rev() {
                if let Some(local) = scope.get_mut(first) {
                    local.used = true;
                    return;
                }
            }
        }
        // An imported function may have the name of a primitive of another place.
        self.used_items.insert(first.clone());
        if path.len() == 1 && self.is_primitive(first) {
            return;
        }
        if self.modules.resolve(self.module, path).is_some() {
            return;
        }
        if self.failed_import(first) {
            return;
        }
        let name = path_text(path);
        let scope = &self.modules.get(self.module).scope;
        let locals: Vec<String> = self.scopes.iter().flat_map(|s| s.keys().cloned()).collect();
        let mut known: Vec<&str> = scope.keys().chain(&locals).map(String::as_str).collect();
        known.extend(builtins::FUNCTIONS);
        known.extend(builtins::VALUES);
        known.sort_unstable();
        let mut d = with_suggestion(
            Diagnostic::new(
                Code::E0101,
                format!("unknown name `{name}`"),
                span,
                "not defined",
            ),
            &name,
            known.into_iter(),
        );
        if d.help.is_none()
            && path.len() == 1
            && let Some(home) = self.modules.std_home(first)
        {
            d = d.help(format!(
                "the standard library has it: `use std::{home}::{{{name}}}`"
            ));
        }
        self.diags.push(d);
    }

    /// Whether a `use` names this: unresolved, it has been reported already.
    fn failed_import(&self, name: &str) -> bool {
        let items = &self.modules.get(self.module).ast.items;
        items.iter().any(|item| match &item.kind {
            ItemKind::Use(used) => used
                .names
                .iter()
                .any(|(n, renamed)| renamed.as_ref().unwrap_or(n).name == name),
            _ => false,
        })
    }

    fn is_primitive(&self, name: &str) -> bool {
        let arithmetic = builtins::unary(name).is_some()
            || name == "pi"
            || name == "N"
            || matches!(name, "max" | "min" | "div" | "mod" | "fail");
        let operator = builtins::OPERATOR_NAMES.contains(&name);
        match self.place {
            // Functions may serve operators, too.
            Place::Tensor => {
                arithmetic
                    || operator
                    || builtins::FUNCTIONS.contains(&name)
                    || builtins::VALUES.contains(&name)
            }
            Place::Init => {
                arithmetic
                    || builtins::INIT_FUNCTIONS.contains(&name)
                    || builtins::INIT_VALUES.contains(&name)
                    || builtins::FUNCTIONS.contains(&name)
            }
            Place::Operator => arithmetic || operator,
        }
    }

    fn unused_imports(&mut self, ast: &Module) {
        for item in &ast.items {
            let ItemKind::Use(used) = &item.kind else {
                continue;
            };
            let names: Vec<&Ident> = if used.names.is_empty() {
                used.path.last().into_iter().collect()
            } else {
                used.names
                    .iter()
                    .map(|(n, renamed)| renamed.as_ref().unwrap_or(n))
                    .collect()
            };
            // `use std::nn::dense` brings `dense` into scope, `use std::nn` brings `nn`:
            // the last segment either way.
            for name in names {
                let known = self.modules.get(self.module).scope.get(&name.name);
                let ours = known.is_some_and(|e| e.imported && e.span == name.span);
                let item = known.is_some_and(|e| matches!(e.def, Def::Item(..) | Def::Module(_)));
                if ours && item && !self.used_items.contains(&name.name) {
                    self.diags.push(
                        Diagnostic::new(
                            Code::W0601,
                            format!("`{}` is imported but never used", name.name),
                            name.span,
                            "imported here",
                        )
                        .help("remove it from the `use`"),
                    );
                }
            }
        }
    }
}
