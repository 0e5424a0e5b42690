//! The rules of kinds (docs/abacus.md Sec. 1) and how their violation is told.

use super::*;

/// How a value is going to be used, for the message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Argument of a nonlinear function.
    Nonlinear,
    /// Factor of a product.
    Product,
}

impl Elaborator<'_> {
    /// Kind of a sum, or of operands put side by side.
    pub(super) fn joined(&mut self, ids: &[ValueId], span: Span) -> R<Kind> {
        let mut kind = Kind::Const;
        for &id in ids {
            kind = self.join_two(kind, id, span)?;
        }
        self.keep_off_sites(kind, ids, span)
    }

    fn join_two(&mut self, a: Kind, id: ValueId, _span: Span) -> R<Kind> {
        let b = self.value(id).kind;
        Ok(match (a, b) {
            (g @ Kind::Global { .. }, _) | (_, g @ Kind::Global { .. }) => g,
            (Kind::Pooled, _) | (_, Kind::Pooled) => Kind::Pooled,
            (l @ Kind::Linear { .. }, _) | (_, l @ Kind::Linear { .. }) => l,
            (Kind::Local(x), Kind::Local(y)) => Kind::Local(x.hull(y)),
            (l @ Kind::Local(_), Kind::Const) | (Kind::Const, l @ Kind::Local(_)) => l,
            (Kind::Const, Kind::Const) => Kind::Const,
        })
    }

    /// A pooled value that meets a per-site one is put back on the sites.
    fn keep_off_sites(&mut self, kind: Kind, ids: &[ValueId], span: Span) -> R<Kind> {
        if kind != Kind::Pooled {
            return Ok(kind);
        }
        let Some(&pooled) = ids.iter().find(|&&i| self.value(i).kind == Kind::Pooled) else {
            return Ok(kind);
        };
        let Some(&site) = ids
            .iter()
            .find(|&&i| self.value(i).ty.place != Place::Whole)
        else {
            return Ok(kind);
        };
        self.global(
            span,
            |s| {
                let gathered = s.value(pooled).ty.shape.iter().any(|d| matches!(d, Dim::Sites { .. }));
                let (code, what, help) = if gathered {
                    (
                        Code::E0305,
                        "mixing coefficients depend on the configuration",
                        "use a mixer with constant coefficients (`s4`, `power_law`, `positional_attention`), or write `full network`",
                    )
                } else {
                    (
                        Code::E0303,
                        "a per-site value depends on a pooled one",
                        "gate with local values only, move this after the pooling, or write `full network`",
                    )
                };
                let at = s.place_of(pooled);
                Diagnostic::new(code, what, span, format!("put back on the sites here ({})", s.describe(site)))
                    .also(at, format!("this is {}", s.describe(pooled)))
                    .help(help)
            },
        )
    }

    /// Kind of a product (elementwise or contracted); `square` if both factors
    /// are the same value.
    pub(super) fn product(&mut self, a: ValueId, b: ValueId, span: Span) -> R<Kind> {
        let (ka, kb) = (self.value(a).kind, self.value(b).kind);
        if let (Kind::Linear { .. }, Kind::Linear { .. }) = (ka, kb) {
            return self.violation(&[a, b], Use::Product, span);
        }
        let linear = [(a, ka), (b, kb)]
            .into_iter()
            .find(|(_, k)| matches!(k, Kind::Linear { .. }));
        for kind in [ka, kb] {
            if let (Kind::Global { since }, Some((gated, _))) = (kind, linear) {
                self.gated_by_pending(since, gated, span)?;
            }
        }
        let other = [(a, ka), (b, kb)]
            .into_iter()
            .find(|(_, k)| matches!(k, Kind::Pooled | Kind::Global { .. }));
        if let (Some((lin, _)), Some((gate, Kind::Pooled))) = (linear, other) {
            let gathered = self
                .value(gate)
                .ty
                .shape
                .iter()
                .any(|d| matches!(d, Dim::Sites { .. }));
            if !gathered {
                return self.global(span, |s| {
                    Diagnostic::new(
                        Code::E0303,
                        "the gate depends on all spins",
                        span,
                        "this product",
                    )
                    .also(
                        s.place_of(gate),
                        format!("the gate is {}", s.describe(gate)),
                    )
                    .also(
                        s.place_of(lin),
                        format!("the gated value is {}", s.describe(lin)),
                    )
                    .help("a gate may depend on local values only; or write `full network`")
                });
            }
        }
        self.joined(&[a, b], span)
    }

    /// A nonlinear function of a linear value multiplies a linear one: E0303
    /// instead of the pending E0301, unless both happen inside one function of
    /// the library (`silu(h)` is `h * sigmoid(h)`).
    fn gated_by_pending(&mut self, since: ValueId, gated: ValueId, span: Span) -> R<()> {
        let Some(at) = self.pending.iter().position(|(id, _)| *id == since) else {
            return Ok(());
        };
        let outer = self.user_span(span);
        if self.pending[at].1.primary.span == outer {
            return Ok(());
        }
        let (_, first) = self.pending.remove(at);
        let mut d = Diagnostic::new(
            Code::E0303,
            "the gate depends on a linear value",
            span,
            "this product",
        )
        .also(
            first.primary.span,
            "the gate is a nonlinear function of a linear value",
        )
        .also(
            self.place_of(gated),
            format!("the gated value is {}", self.describe(gated)),
        );
        d.secondary.extend(
            first
                .secondary
                .into_iter()
                .filter(|l| l.message.starts_with("linear since")),
        );
        let d = d
            .help("compute the gate from local values (before any mixer), or write `full network`");
        Err(self.report(d))
    }

    /// Kind of a nonlinear function of these values.
    pub(super) fn nonlinear(&mut self, ids: &[ValueId], span: Span) -> R<Kind> {
        if ids
            .iter()
            .any(|&i| matches!(self.value(i).kind, Kind::Linear { .. }))
        {
            return self.violation(ids, Use::Nonlinear, span);
        }
        self.joined(ids, span)
    }

    /// A linear value is used as it may not be: an error, or a global value in
    /// a `full network`.
    fn violation(&mut self, ids: &[ValueId], how: Use, span: Span) -> R<Kind> {
        let in_norm = self.via.iter().any(|v| v.2.as_deref() == Some("norm"));
        // What the user called, not what the library calls inside.
        let callee = self
            .via
            .iter()
            .rev()
            .find(|v| !self.modules.in_std(v.1))
            .map(|v| v.0.clone());
        let diagnostic = |s: &Self| {
            let linear: Vec<ValueId> = ids
                .iter()
                .copied()
                .filter(|&i| matches!(s.value(i).kind, Kind::Linear { .. }))
                .collect();
            let first = linear[0];
            let Kind::Linear { since } = s.value(first).kind else {
                unreachable!("filtered above")
            };
            let origin = s.place_of(since);
            let mixer = match &s.value(since).mixer {
                Some((name, _)) => format!("`{name}`"),
                None => "a mixer".to_owned(),
            };
            let since_text =
                format!("linear since this mixer: {mixer} made it depend on all spins");
            if in_norm {
                let name = s
                    .via
                    .iter()
                    .find(|v| v.2.as_deref() == Some("norm"))
                    .map_or("norm".to_owned(), |v| v.0.clone());
                return Diagnostic::new(
                    Code::E0304,
                    format!("`{name}` normalises a linear value by itself"),
                    span,
                    "the norm depends on the configuration here",
                )
                .also(origin, since_text)
                .help("use `actnorm` (a constant affine map per channel), normalise a local value, or write `full network`");
            }
            match how {
                Use::Product => Diagnostic::new(
                    Code::E0302,
                    "product of two linear values",
                    span,
                    format!(
                        "{} times {}",
                        s.describe(linear[0]),
                        s.describe(*linear.get(1).unwrap_or(&linear[0]))
                    ),
                )
                .also(origin, since_text)
                .help("multiply by a local or constant value instead, or write `full network`"),
                Use::Nonlinear => {
                    let what = callee
                        .filter(|_| s.modules.in_std(span))
                        .map_or("nonlinearity".to_owned(), |c| format!("`{c}`"));
                    Diagnostic::new(
                        Code::E0301,
                        format!("{what} applied to a linear value"),
                        span,
                        format!("the argument is {}", s.describe(first)),
                    )
                    .also(origin, since_text)
                    .help(
                        "apply the nonlinearity before mixing, gate with it (`silu(local) * linear`), \
                         apply it after pooling, or write `full network`",
                    )
                }
            }
        };
        if self.full || in_norm || how == Use::Product {
            return self.global(span, diagnostic);
        }
        let since = ValueId(self.values.len() as u32);
        let d = self.located(diagnostic(self));
        self.pending.push((since, d));
        Ok(Kind::Global { since })
    }

    /// `Global` in a full network, else the diagnostic.
    pub(super) fn global(
        &mut self,
        _span: Span,
        diagnostic: impl FnOnce(&Self) -> Diagnostic,
    ) -> R<Kind> {
        if self.full {
            return Ok(Kind::Global {
                since: ValueId(self.values.len() as u32),
            });
        }
        let d = diagnostic(self);
        Err(self.report(d))
    }

    /// Kind, shape and dtype in words: `linear real[14]`.
    pub(super) fn describe(&self, id: ValueId) -> String {
        let v = self.value(id);
        format!(
            "{} {}",
            show_kind(v.kind, v.ty.place, self.lattice),
            show_type(&v.ty)
        )
    }
}

/// `local[-1, 2]`, `linear`, ... Windows in tokens of the value's own lattice.
pub fn show_kind(kind: Kind, place: Place, lattice: LatticeKind) -> String {
    match kind {
        Kind::Const => "const".to_owned(),
        Kind::Local(w) => {
            let token = match place {
                Place::Site(t) => t,
                _ => Token::SPIN,
            };
            let (lo, hi) = w.tokens(token, 0);
            match lattice {
                LatticeKind::Chain => format!("local[{lo}, {hi}]"),
                LatticeKind::Square => {
                    let (lo1, hi1) = w.tokens(token, 1);
                    format!("local[({lo}, {lo1}), ({hi}, {hi1})]")
                }
            }
        }
        Kind::Linear { .. } => "linear".to_owned(),
        Kind::Pooled => "pooled".to_owned(),
        Kind::Global { .. } => "global".to_owned(),
    }
}

/// `real[2, 14]`, with the index set if there is one worth a word.
pub fn show_type(ty: &Type) -> String {
    let dtype = match ty.dtype {
        DType::Real => "real",
        DType::Complex => "complex",
    };
    let place = match ty.place {
        Place::Whole => "",
        Place::Site(_) => " per site",
        Place::Displacement(_) => " per displacement",
        Place::Momentum(_) => " per momentum",
        Place::Pair(_) => " per pair",
    };
    let token = match ty.place {
        Place::Site(Token(t)) if t != [1, 1] => {
            if t[1] == 1 {
                format!(" of {} spins", t[0])
            } else {
                format!(" of {}x{} spins", t[0], t[1])
            }
        }
        _ => String::new(),
    };
    format!("{dtype}{}{place}{token}", show_shape(&ty.shape))
}

/// `[2, 14]`, `[3 * N / 2]`
pub fn show_shape(shape: &[Dim]) -> String {
    if shape.is_empty() {
        return String::new();
    }
    format!(
        "[{}]",
        shape
            .iter()
            .map(|d| show_dim(*d))
            .collect::<Vec<_>>()
            .join(", ")
    )
}

/// `14`, `2 * N / 3`
pub fn show_dim(dim: Dim) -> String {
    match dim {
        Dim::Static(n) => n.to_string(),
        Dim::Sites { scale: 1, per: 1 } => "N".to_owned(),
        Dim::Sites { scale, per: 1 } => format!("{scale} * N"),
        Dim::Sites { scale: 1, per } => format!("N / {per}"),
        Dim::Sites { scale, per } => format!("{scale} * N / {per}"),
    }
}
