//! Mixers: the primitives of the four classes, and the check that a declared
//! mixer is linear and of its class.

use super::call::Args;
use super::kind::{show_shape, show_type};
use super::*;
use crate::check::core::Dim;

impl Elaborator<'_> {
    /// The kind a mixer gives: constants stay constant.
    fn mixed(&mut self, x: ValueId, coefficients: &[ValueId], span: Span) -> R<Kind> {
        if let Some(&c) = coefficients
            .iter()
            .find(|&&c| self.value(c).kind != Kind::Const)
        {
            return self.global(span, |s| {
                Diagnostic::new(Code::E0305, "mixing coefficients depend on the configuration", span, "this mixer")
                    .also(s.place_of(c), format!("this coefficient is {}", s.describe(c)))
                    .help("mixers need constant coefficients; gate their input or output instead, or write `full network`")
            });
        }
        Ok(match self.value(x).kind {
            Kind::Const => Kind::Const,
            global @ Kind::Global { .. } => global,
            _ => Kind::Linear {
                since: ValueId(self.values.len() as u32),
            },
        })
    }

    /// `convolve`, `modes`, `mix`.
    pub(super) fn convolution(&mut self, name: &str, args: &Args) -> R<ValueId> {
        let span = args.span;
        let [(x, sx), (k, sk)] = self.exactly::<2>(name, args, "a per-site value and a kernel")?;
        let x = self.tensor(x, sx)?;
        let k = self.tensor(k, sk)?;
        let token = self.site_token(x, sx)?;
        let (op, want, source) = match name {
            "convolve" => (
                CoreOp::Convolve,
                Place::Displacement(token),
                "displacement(x)",
            ),
            "modes" => (CoreOp::Modes, Place::Momentum(token), "momentum(x)"),
            _ => (CoreOp::Mix, Place::Pair(token), "pair_index(x)"),
        };
        let (tx, tk) = (self.value(x).ty.clone(), self.value(k).ty.clone());
        if tk.place != want && self.value(k).kind == Kind::Const {
            let d = Diagnostic::new(
                Code::E0206,
                format!("`{name}` needs a kernel made from `{source}`"),
                sk,
                format!("this is {}", self.describe(k)),
            )
            .also(
                self.place_of(x),
                format!("the mixed value is {}", self.describe(x)),
            );
            return Err(self.report(d));
        }
        match super::ops::broadcast(&tx.shape, &tk.shape) {
            Some(s) if s == tx.shape => {}
            _ => {
                let d = Diagnostic::new(
                    Code::E0201,
                    format!(
                        "the kernel {} does not broadcast to the channels {}",
                        show_shape(&tk.shape),
                        show_shape(&tx.shape)
                    ),
                    sk,
                    format!("this is {}", show_type(&tk)),
                )
                .also(self.place_of(x), format!("this is {}", show_type(&tx)))
                .help("a mixer acts on each channel by itself; mix channels with `dense` before or after");
                return Err(self.report(d));
            }
        }
        let kind = self.mixed(x, &[k], span)?;
        self.push(op, vec![x, k], result_type(name, tx, &tk), kind, span)
    }

    /// `scan(x, decay: .., p: .., q: .., input: .., output: .., skip: .., mirror: .., leftward: ..)`
    pub(super) fn scan(&mut self, args: Args) -> R<ValueId> {
        let span = args.span;
        let [(x, sx)] = self.exactly::<1>("scan", &args, "one value and named coefficients")?;
        let x = self.tensor(x, sx)?;
        self.site_token(x, sx)?;
        if self.lattice == LatticeKind::Square {
            let d = Diagnostic::new(
                Code::E0503,
                "recurrences run along a chain",
                span,
                "on a square lattice here",
            )
            .help("use `convolve` or `modes` on a square lattice");
            return Err(self.report(d));
        }
        let mut tensors: HashMap<&str, (ValueId, Span)> = HashMap::new();
        let (mut mirror, mut leftward) = (false, false);
        for (key, val, at) in &args.named {
            match key.name.as_str() {
                name @ ("mirror" | "leftward") => {
                    let Val::Static(Static::Bool(b)) = val else {
                        return self.err(
                            Code::E0203,
                            *at,
                            format!("`{name}` must be `true` or `false`"),
                            "not a truth value",
                        );
                    };
                    if name == "mirror" {
                        mirror = *b;
                    } else {
                        leftward = *b;
                    }
                }
                name @ ("decay" | "transition" | "p" | "q" | "input" | "output" | "skip") => {
                    let name = [("decay"), "transition", "p", "q", "input", "output", "skip"]
                        .into_iter()
                        .find(|n| *n == name)
                        .expect("matched above");
                    let id = self.tensor(val.clone(), *at)?;
                    if tensors.insert(name, (id, *at)).is_some() {
                        return self.err(
                            Code::E0105,
                            key.span,
                            format!("`{name}` is given twice"),
                            "again here",
                        );
                    }
                }
                other => {
                    let d = Diagnostic::new(Code::E0105, format!("`scan` has no argument `{other}`"), key.span, "not an argument")
                        .help("it takes decay (or transition), p, q, input, output, skip, mirror, leftward");
                    return Err(self.report(d));
                }
            }
        }
        let dense = tensors.contains_key("transition");
        let low_rank = tensors.contains_key("p") || tensors.contains_key("q");
        let skip = tensors.contains_key("skip");
        let first = if dense { "transition" } else { "decay" };
        if dense && (tensors.contains_key("decay") || low_rank) {
            return self.err(
                Code::E0105,
                span,
                "give either `transition` or `decay` (with p and q), not both",
                "in this call",
            );
        }
        let mut order = vec![first];
        if low_rank {
            order.extend(["p", "q"]);
        }
        order.extend(["input", "output"]);
        if skip {
            order.push("skip");
        }
        let channels = self.value(x).ty.shape.clone();
        let mut states: Option<Dim> = None;
        let mut ids = Vec::new();
        for name in order {
            let Some(&(id, at)) = tensors.get(name) else {
                return self.err(
                    Code::E0105,
                    span,
                    format!("`scan` needs `{name}`"),
                    "missing in this call",
                );
            };
            let ty = self.value(id).ty.clone();
            if self.value(id).kind == Kind::Const && ty.place != Place::Whole {
                let label = format!("this is {}", self.describe(id));
                return self.err(
                    Code::E0206,
                    at,
                    format!("`{name}` must not depend on the site"),
                    label,
                );
            }
            let lead = match name {
                "skip" => 0,
                "transition" => 2,
                _ => 1,
            };
            let n = *states.get_or_insert(ty.shape.first().copied().unwrap_or(Dim::Static(1)));
            let want: Vec<Dim> = std::iter::repeat_n(n, lead)
                .chain(channels.iter().copied())
                .collect();
            if ty.shape != want && ty.place == Place::Whole {
                let d = Diagnostic::new(
                    Code::E0201,
                    format!("`{name}` of a scan must have shape {}, has {}", show_shape(&want), show_shape(&ty.shape)),
                    at,
                    format!("this is {}", show_type(&ty)),
                )
                .also(self.place_of(x), format!("the channels are {}", show_shape(&channels)))
                .help("coefficients are `[states, channels]`, `skip` is `[channels]`, `transition` is `[states, states, channels]`");
                return Err(self.report(d));
            }
            ids.push(id);
        }
        if !matches!(states, Some(Dim::Static(_))) {
            return self.err(
                Code::E0203,
                span,
                "the number of states must be static",
                "depends on N",
            );
        }
        let kind = self.mixed(x, &ids, span)?;
        let ty = self.value(x).ty.clone();
        let mut operands = vec![x];
        operands.extend(ids);
        self.push(
            CoreOp::Scan(ScanShape {
                dense,
                low_rank,
                skip,
                mirror,
                leftward,
            }),
            operands,
            ty,
            kind,
            span,
        )
    }

    /// A declared mixer just inlined as values `start..`: linear in its input,
    /// and made of the primitives of its class.
    pub(super) fn check_mixer(
        &mut self,
        item: &MixerItem,
        input: ValueId,
        output: ValueId,
        start: usize,
        span: Span,
    ) -> R<()> {
        let mut degree: HashMap<ValueId, bool> = HashMap::from([(input, true)]);
        for k in start..self.values.len() {
            let id = ValueId(k as u32);
            let v = self.value(id).clone();
            let dependent: Vec<bool> = v
                .args
                .iter()
                .map(|a| degree.get(a).copied().unwrap_or(false))
                .collect();
            if !dependent.iter().any(|d| *d) {
                continue;
            }
            degree.insert(id, true);
            let both = dependent.iter().filter(|d| **d).count() > 1;
            let linear = match &v.op {
                CoreOp::Unary(f) => matches!(f, Unary::Neg | Unary::Re | Unary::Im | Unary::Conj),
                CoreOp::Binary(Binary::Add | Binary::Sub) => dependent.iter().all(|d| *d),
                CoreOp::Binary(Binary::Mul) | CoreOp::Einsum(_) => !both,
                CoreOp::Binary(Binary::Div) => !dependent[1],
                CoreOp::Binary(_) => false,
                CoreOp::Sum | CoreOp::Gather | CoreOp::RowSum => false,
                CoreOp::Scan(_) | CoreOp::Convolve | CoreOp::Modes | CoreOp::Mix => {
                    !dependent[1..].iter().any(|d| *d)
                }
                _ => true,
            };
            if !linear {
                let d = Diagnostic::new(
                    Code::E0307,
                    format!(
                        "mixer `{}` is not linear in `{}`",
                        item.name.name,
                        item.params.first().map_or("x", |p| &p.name.name)
                    ),
                    v.span,
                    "this is not a linear function of the mixed value",
                )
                .also(item.name.span, "declared as a mixer here")
                .help("move nonlinear parts out of the mixer, or make it a `fn`");
                return Err(self.report(d));
            }
            let class = match v.op {
                CoreOp::Scan(_) => Some(MixerClass::StateSpace),
                CoreOp::Convolve | CoreOp::Modes => Some(MixerClass::Toeplitz),
                CoreOp::Mix => Some(MixerClass::Dense),
                _ => None,
            };
            if let Some(class) = class
                && class != item.class.0
            {
                let d = Diagnostic::new(
                    Code::E0307,
                    format!(
                        "mixer `{}` is declared `{}`",
                        item.name.name,
                        class_name(item.class.0)
                    ),
                    v.span,
                    format!("this primitive is of class `{}`", class_name(class)),
                )
                .also(item.class.1, "declared here")
                .help(format!("declare it `: {}`", class_name(class)));
                return Err(self.report(d));
            }
        }
        if !degree.contains_key(&output) {
            let d = Diagnostic::new(
                Code::E0307,
                format!("mixer `{}` ignores its input", item.name.name),
                span,
                "in this call",
            )
            .also(item.name.span, "declared as a mixer here");
            return Err(self.report(d));
        }
        if let Place::Site(_) = self.value(output).ty.place {
            self.mixers.push(MixerUse {
                name: item.name.name.clone(),
                class: item.class.0,
                input,
                output,
                span,
            });
            Ok(())
        } else {
            let label = format!("it returns {}", self.describe(output));
            self.err(
                Code::E0307,
                span,
                format!("mixer `{}` must return a per-site value", item.name.name),
                label,
            )
        }
    }
}

fn result_type(name: &str, x: Type, kernel: &Type) -> Type {
    // Real input gives real output with `modes` (the real part is taken);
    // a complex kernel makes `convolve` and `mix` complex.
    if name == "modes" || kernel.dtype == DType::Real {
        x
    } else {
        Type {
            dtype: DType::Complex,
            ..x
        }
    }
}

/// The keyword of a class.
pub fn class_name(class: MixerClass) -> &'static str {
    match class {
        MixerClass::Stencil => "stencil",
        MixerClass::StateSpace => "state_space",
        MixerClass::Toeplitz => "toeplitz",
        MixerClass::Dense => "dense",
    }
}
