//! Elaboration: a network at given hyperparameters becomes a list of typed
//! values. Functions are inlined, loops unrolled; every rule of shapes, dtypes
//! and kinds is checked on the way. A broken rule is reported once and poisons
//! what depends on it, so that one run finds all independent errors.

mod builtin;
mod call;
mod expr;
mod init;
mod kind;
mod mixing;
mod ops;
mod stmt;
mod views;

use super::core::*;
use super::modules::{ModuleId, Modules};
use crate::diag::{Code, Diagnostic};
use crate::syntax::ast::*;
pub use kind::{show_dim, show_kind, show_shape, show_type};
pub use mixing::class_name;
use std::collections::{BTreeMap, HashMap, HashSet};

/// More values than this is a mistake (a `repeat` bound, say), not a network.
const MAX_VALUES: usize = 200_000;
/// More statements, turns of a `repeat` and calls than this never end in practice.
const MAX_STEPS: usize = 1_000_000;
/// Deeper inlining than this is recursion.
const MAX_DEPTH: usize = 64;

/// What an expression evaluates to.
#[derive(Clone, Debug)]
pub(super) enum Val {
    /// A number known now.
    Static(Static),
    /// A step of the program.
    Tensor(ValueId),
    /// Several values.
    Tuple(Vec<Val>),
    /// A length proportional to the number of sites: `scale * sites`.
    Sites { scale: usize, token: Token },
    /// `[a, b]`
    List(Vec<Dim>),
    /// Text.
    Str(String),
    /// An imaginary number.
    Imaginary(f64),
    /// The result of something already reported.
    Poison,
}

/// An error that has been reported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported;

/// Result of elaboration steps.
pub(super) type R<T> = Result<T, Reported>;

struct Binding {
    val: Val,
    mutable: bool,
    span: Span,
}

/// One inlined function, or the network itself.
struct Frame {
    module: ModuleId,
    /// Innermost scope last.
    scopes: Vec<HashMap<String, Binding>>,
    /// `return` was seen with this value.
    returned: Option<Val>,
}

/// Overrides of hyperparameters by name (`-D name=value`).
pub type Overrides = BTreeMap<String, Static>;

pub(super) struct Elaborator<'a> {
    modules: &'a Modules,
    pub(super) diags: Vec<Diagnostic>,
    seen: HashSet<(Code, Span)>,
    full: bool,
    lattice: LatticeKind,
    values: Vec<Value>,
    params: Vec<ParamInfo>,
    param_index: HashMap<String, (ParamId, ValueId)>,
    mixers: Vec<MixerUse>,
    bindings: Vec<(String, ValueId)>,
    /// Statements, turns and calls so far.
    steps: usize,
    frames: Vec<Frame>,
    /// Calls being inlined: callee, call site, the callee's role.
    via: Vec<(String, Span, Option<String>)>,
    /// Parameter scopes.
    path: Vec<String>,
    /// Scope names already given, with their count, per enclosing path.
    used_scopes: HashMap<String, usize>,
    /// Labels and where they were written, per full path.
    labels: HashMap<String, Span>,
    /// Inside a `shared` repeat on a later turn: paths may recur.
    sharing: usize,
    owns_params: HashMap<(usize, usize), bool>,
    mixer_stack: Vec<(String, u32)>,
    log_psi: Option<(ValueId, Span)>,
    /// Nonlinearities of linear values, by the value they made. Where the value
    /// then gates a linear one, E0303 is the better story; the rest are E0301.
    pending: Vec<(ValueId, Diagnostic)>,
}

impl<'a> Elaborator<'a> {
    fn new(modules: &'a Modules, full: bool, lattice: LatticeKind) -> Self {
        Elaborator {
            modules,
            diags: Vec::new(),
            seen: HashSet::new(),
            full,
            lattice,
            values: Vec::new(),
            params: Vec::new(),
            param_index: HashMap::new(),
            mixers: Vec::new(),
            bindings: Vec::new(),
            steps: 0,
            frames: Vec::new(),
            via: Vec::new(),
            path: Vec::new(),
            used_scopes: HashMap::new(),
            labels: HashMap::new(),
            sharing: 0,
            owns_params: HashMap::new(),
            mixer_stack: Vec::new(),
            log_psi: None,
            pending: Vec::new(),
        }
    }

    /// Where to point for something at `span`: the innermost call site outside
    /// the standard library, unless the program itself is the library.
    fn user_span(&self, span: Span) -> Span {
        if !self.modules.in_std(span) {
            return span;
        }
        self.via
            .iter()
            .rev()
            .map(|v| v.1)
            .find(|s| !self.modules.in_std(*s))
            .unwrap_or(span)
    }

    /// Counts a statement, a turn or a call, so that elaboration ends.
    fn step(&mut self, span: Span) -> R<()> {
        self.steps += 1;
        match self.steps.cmp(&MAX_STEPS) {
            std::cmp::Ordering::Less => Ok(()),
            std::cmp::Ordering::Equal => {
                let d = Diagnostic::new(
                    Code::E0002,
                    format!("the network takes more than {MAX_STEPS} steps to write out"),
                    span,
                    "given up here",
                )
                .help("`repeat` and functions are written out in full; use fewer turns and calls");
                Err(self.report(d))
            }
            std::cmp::Ordering::Greater => Err(Reported),
        }
    }

    /// Whether elaboration was given up.
    fn exhausted(&self) -> bool {
        self.values.len() >= MAX_VALUES || self.steps >= MAX_STEPS
    }

    /// Where a value comes from: its expression, or the user's call that led
    /// into the library.
    fn place_of(&self, id: ValueId) -> Span {
        let v = self.value(id);
        let calls = v.via.iter().rev().map(|c| c.1);
        std::iter::once(v.span)
            .chain(calls)
            .find(|s| !self.modules.in_std(*s))
            .unwrap_or(v.span)
    }

    /// Reports a problem once.
    fn report(&mut self, d: Diagnostic) -> Reported {
        let d = self.located(d);
        if self.seen.insert((d.code, d.primary.span)) {
            self.diags.push(d);
        }
        Reported
    }

    /// Inside the library, the primary label moves to the user's call and the
    /// place in the library becomes secondary.
    fn located(&self, mut d: Diagnostic) -> Diagnostic {
        let inner = d.primary.span;
        let outer = self.user_span(inner);
        if outer != inner {
            let callee = self
                .via
                .iter()
                .rev()
                .find(|v| v.1 == outer)
                .map(|v| v.0.clone())
                .unwrap_or_default();
            let text = std::mem::replace(
                &mut d.primary.message,
                format!("in this call of `{callee}`"),
            );
            d.primary.span = outer;
            d.secondary.insert(
                0,
                crate::diag::Label {
                    span: inner,
                    message: text,
                },
            );
        } else if let Some(v) = self.via.last().filter(|v| !self.modules.in_std(v.1)) {
            d.secondary.push(crate::diag::Label {
                span: v.1,
                message: format!("in this call of `{}`", v.0),
            });
        }
        d
    }

    fn err<T>(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> R<T> {
        Err(self.report(Diagnostic::new(code, message, span, label)))
    }

    fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    fn frame(&mut self) -> &mut Frame {
        self.frames
            .last_mut()
            .expect("elaboration runs inside a frame")
    }

    /// Adds a value of known type and kind.
    fn push(
        &mut self,
        op: CoreOp,
        args: Vec<ValueId>,
        ty: Type,
        kind: Kind,
        span: Span,
    ) -> R<ValueId> {
        if self.values.len() >= MAX_VALUES {
            return self.err(
                Code::E0002,
                span,
                format!("the network has more than {MAX_VALUES} values"),
                "reached here; is a `repeat` bound too large?",
            );
        }
        let elements = ty.shape.iter().try_fold(1usize, |n, d| match d {
            Dim::Static(k) => n.checked_mul((*k).max(1)),
            Dim::Sites { scale, .. } => n.checked_mul((*scale).max(1)),
        });
        if elements.is_none_or(|n| n > 1 << 32) {
            return self.err(
                Code::E0204,
                span,
                "a tensor of this shape is too large",
                "more than 2^32 elements",
            );
        }
        let id = ValueId(self.values.len() as u32);
        let via = self.via.iter().map(|v| (v.0.clone(), v.1)).collect();
        let mixer = self.mixer_stack.last().cloned();
        self.values.push(Value {
            op,
            args,
            ty,
            kind,
            span,
            via,
            name: None,
            mixer,
        });
        Ok(id)
    }

    fn number(&mut self, x: f64, span: Span) -> R<ValueId> {
        let ty = Type {
            place: Place::Whole,
            shape: vec![],
            dtype: DType::Real,
        };
        self.push(CoreOp::Number(x), vec![], ty, Kind::Const, span)
    }

    /// The value as a tensor; numbers become constants.
    fn tensor(&mut self, val: Val, span: Span) -> R<ValueId> {
        let scalar = |dtype| Type {
            place: Place::Whole,
            shape: vec![],
            dtype,
        };
        match val {
            Val::Tensor(id) => Ok(id),
            Val::Static(Static::Int(k)) => self.number(k as f64, span),
            Val::Static(Static::Real(x)) => self.number(x, span),
            Val::Imaginary(x) => self.push(
                CoreOp::Imaginary(x),
                vec![],
                scalar(DType::Complex),
                Kind::Const,
                span,
            ),
            Val::Sites { scale, token } => {
                let n = self.push(
                    CoreOp::SiteCount(token),
                    vec![],
                    scalar(DType::Real),
                    Kind::Const,
                    span,
                )?;
                if scale == 1 {
                    return Ok(n);
                }
                let s = self.number(scale as f64, span)?;
                self.push(
                    CoreOp::Binary(Binary::Mul),
                    vec![s, n],
                    scalar(DType::Real),
                    Kind::Const,
                    span,
                )
            }
            Val::Poison => Err(Reported),
            Val::Static(Static::Bool(_)) => self.err(
                Code::E0106,
                span,
                "a truth value is not a tensor",
                "expected a tensor or a number",
            ),
            Val::Tuple(_) => self.err(
                Code::E0106,
                span,
                "a tuple is not a tensor",
                "expected one tensor; take it apart with `let (a, b) =`",
            ),
            Val::List(_) => self.err(
                Code::E0106,
                span,
                "a shape is not a tensor",
                "expected a tensor or a number",
            ),
            Val::Str(_) => self.err(
                Code::E0106,
                span,
                "a text is not a tensor",
                "expected a tensor or a number",
            ),
        }
    }

    fn lookup(&self, name: &str) -> Option<&Binding> {
        self.frames
            .last()?
            .scopes
            .iter()
            .rev()
            .find_map(|s| s.get(name))
    }

    fn scope_path(&self, name: &str) -> String {
        let mut path = self.path.join("/");
        if !path.is_empty() {
            path.push('/');
        }
        path + name
    }
}

/// A network with hyperparameters in force, or everything that is wrong with it.
pub(super) fn network(
    modules: &Modules,
    module: ModuleId,
    item: &NetworkItem,
    overrides: &Overrides,
) -> (Option<NetworkInfo>, Vec<Diagnostic>) {
    let mut e = Elaborator::new(modules, item.full.is_some(), item.lattice);
    e.frames.push(Frame {
        module,
        scopes: vec![HashMap::new()],
        returned: None,
    });
    let hyper = e.hyperparameters(&item.params, overrides, &item.name);
    if let Ok(hyper) = hyper {
        let _ = e.block_in_scope(&item.body);
        for (_, d) in std::mem::take(&mut e.pending) {
            if e.seen.insert((d.code, d.primary.span)) {
                e.diags.push(d);
            }
        }
        if let Some((log_psi, _)) = e.log_psi {
            if !e
                .diags
                .iter()
                .any(|d| d.severity() == crate::diag::Severity::Error)
            {
                let mut info = NetworkInfo {
                    name: item.name.name.clone(),
                    file: item.name.span.file,
                    full: item.full.is_some(),
                    lattice: item.lattice,
                    hyper,
                    values: std::mem::take(&mut e.values),
                    params: std::mem::take(&mut e.params),
                    mixers: std::mem::take(&mut e.mixers),
                    bindings: std::mem::take(&mut e.bindings),
                    log_psi,
                };
                info.mixers.dedup_by(|a, b| a.output == b.output);
                e.diags.extend(super::unused::warnings(modules, &info));
                return (Some(info), e.diags);
            }
        } else if e.diags.is_empty() {
            e.report(
                Diagnostic::new(
                    Code::E0306,
                    format!("network `{}` never assigns `log_psi`", item.name.name),
                    item.name.span,
                    "this network has no readout",
                )
                .help("end it with `log_psi = ...`, one number per configuration: `mean(h) |> log_cosh_head(2)`, say"),
            );
        }
    }
    (None, e.diags)
}

impl Elaborator<'_> {
    /// Binds hyperparameters: overrides, else defaults; range checks.
    fn hyperparameters(
        &mut self,
        params: &[FnParam],
        overrides: &Overrides,
        owner: &Ident,
    ) -> R<BTreeMap<String, Static>> {
        let mut out = BTreeMap::new();
        let mut failed = false;
        for name in overrides.keys() {
            if !params.iter().any(|p| p.name.name == *name) {
                let d = Diagnostic::new(
                    Code::E0101,
                    format!("`{}` has no hyperparameter `{name}`", owner.name),
                    owner.span,
                    format!(
                        "it has {}",
                        if params.is_empty() {
                            "none".to_owned()
                        } else {
                            params
                                .iter()
                                .map(|p| format!("`{}`", p.name.name))
                                .collect::<Vec<_>>()
                                .join(", ")
                        }
                    ),
                );
                let d = super::modules::with_suggestion(
                    d,
                    name,
                    params.iter().map(|p| p.name.name.as_str()),
                );
                self.report(d);
                failed = true;
            }
        }
        for p in params {
            let Some((ty, _)) = p.ty else {
                let _: R<()> = self.err(
                    Code::E0105,
                    p.name.span,
                    format!("`{}` needs a type", p.name.name),
                    "write `: nat`, `: int`, `: real` or `: bool`",
                );
                failed = true;
                continue;
            };
            let value = match (overrides.get(&p.name.name), &p.default) {
                (Some(v), _) => Ok((*v, p.name.span)),
                (None, Some(d)) => self.static_expr(d).map(|v| (v, d.span)),
                (None, None) => {
                    let d = Diagnostic::new(
                        Code::E0105,
                        format!("hyperparameter `{}` has no default", p.name.name),
                        p.name.span,
                        "no value given",
                    )
                    .help(format!(
                        "write `{0}: ... = VALUE`, or pass `-D {0}=VALUE`",
                        p.name.name
                    ));
                    Err(self.report(d))
                }
            };
            match value.and_then(|(v, span)| self.check_static(p, ty, v, span)) {
                Ok(v) => {
                    out.insert(p.name.name.clone(), v);
                    self.bind(&p.name, Val::Static(v), false);
                }
                Err(Reported) => {
                    failed = true;
                    self.bind(&p.name, Val::Poison, false);
                }
            }
        }
        if failed { Err(Reported) } else { Ok(out) }
    }

    fn bind(&mut self, name: &Ident, val: Val, mutable: bool) {
        let binding = Binding {
            val,
            mutable,
            span: name.span,
        };
        self.frame()
            .scopes
            .last_mut()
            .expect("a frame has a scope")
            .insert(name.name.clone(), binding);
    }
}
