//! Elementwise operations and contractions: shapes, dtypes, kinds.

use super::kind::{show_shape, show_type};
use super::*;
use crate::check::builtins;
use crate::check::core::{Dim, Einsum};

/// NumPy broadcasting, aligned at the last axis.
pub(super) fn broadcast(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let n = a.len().max(b.len());
    let at = |s: &[Dim], k: usize| {
        if k + s.len() >= n {
            s[k + s.len() - n]
        } else {
            Dim::Static(1)
        }
    };
    (0..n)
        .map(|k| match (at(a, k), at(b, k)) {
            (x, y) if x == y => Some(x),
            (Dim::Static(1), y) => Some(y),
            (x, Dim::Static(1)) => Some(x),
            _ => None,
        })
        .collect()
}

fn op_name(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add => "addition",
        BinaryOp::Sub => "subtraction",
        BinaryOp::Mul => "multiplication",
        BinaryOp::Div => "division",
        BinaryOp::MatMul => "`@`",
        BinaryOp::Pow => "power",
        _ => "operation",
    }
}

impl Elaborator<'_> {
    /// An infix operator other than `and`, `or`.
    pub(super) fn binary(
        &mut self,
        op: BinaryOp,
        a: Val,
        b: Val,
        sa: Span,
        sb: Span,
        span: Span,
    ) -> R<Val> {
        use BinaryOp as B;
        match (&a, &b) {
            (Val::Poison, _) | (_, Val::Poison) => return Err(Reported),
            (Val::Static(x), Val::Static(y)) => {
                if let Some(v) = self.static_binary(op, *x, *y, span)? {
                    return Ok(Val::Static(v));
                }
            }
            (Val::Sites { scale, token }, Val::Static(Static::Int(k)))
            | (Val::Static(Static::Int(k)), Val::Sites { scale, token })
                if op == B::Mul && *k > 0 =>
            {
                let Some(scale) = usize::try_from(*k).ok().and_then(|k| scale.checked_mul(k))
                else {
                    return self.err(
                        Code::E0204,
                        span,
                        "arithmetic overflow",
                        "this length is too large",
                    );
                };
                return Ok(Val::Sites {
                    scale,
                    token: *token,
                });
            }
            (Val::Imaginary(x), Val::Static(s)) | (Val::Static(s), Val::Imaginary(x))
                if op == B::Mul =>
            {
                if let Some(y) = super::expr::real(*s) {
                    return Ok(Val::Imaginary(x * y));
                }
            }
            _ => {}
        }
        match op {
            B::Eq | B::Ne | B::Lt | B::Le | B::Gt | B::Ge => {
                let d = Diagnostic::new(
                    Code::E0203,
                    "only numbers known at compile time can be compared",
                    span,
                    "a tensor is compared here",
                )
                .help("use `max`, `min`, `sign` or `mod` for elementwise choices");
                return Err(self.report(d));
            }
            B::Rem => {
                let d = Diagnostic::new(
                    Code::E0106,
                    "`%` is for integers known at compile time",
                    span,
                    "on tensors here",
                )
                .help("write `mod(a, b)` for tensors");
                return Err(self.report(d));
            }
            _ => {}
        }
        if op == B::Pow
            && let Val::Static(Static::Int(k)) = b
            && (-8..=8).contains(&k)
        {
            let base = self.tensor(a, sa)?;
            return self.power(base, k, span).map(Val::Tensor);
        }
        let x = self.tensor(a, sa)?;
        let y = self.tensor(b, sb)?;
        if op == B::MatMul {
            return self.matmul(x, y, span).map(Val::Tensor);
        }
        let f = match op {
            B::Add => Binary::Add,
            B::Sub => Binary::Sub,
            B::Mul => Binary::Mul,
            B::Div => Binary::Div,
            B::Pow => Binary::Pow,
            _ => unreachable!("other operators returned above"),
        };
        self.elementwise(f, x, y, op_name(op), span)
            .map(Val::Tensor)
    }

    fn power(&mut self, base: ValueId, k: i64, span: Span) -> R<ValueId> {
        let kind = if k == 1 {
            self.value(base).kind
        } else {
            self.nonlinear(&[base], span)?
        };
        if k == 0 {
            return self.number(1.0, span);
        }
        let ty = self.value(base).ty.clone();
        let mut out = base;
        for _ in 1..k.unsigned_abs() {
            out = self.push(
                CoreOp::Binary(Binary::Mul),
                vec![out, base],
                ty.clone(),
                kind,
                span,
            )?;
        }
        if k < 0 {
            let one = self.number(1.0, span)?;
            out = self.push(CoreOp::Binary(Binary::Div), vec![one, out], ty, kind, span)?;
        }
        Ok(out)
    }

    /// Elementwise with broadcasting.
    pub(super) fn elementwise(
        &mut self,
        f: Binary,
        a: ValueId,
        b: ValueId,
        what: &str,
        span: Span,
    ) -> R<ValueId> {
        let (ta, tb) = (self.value(a).ty.clone(), self.value(b).ty.clone());
        let complex = ta.dtype == DType::Complex || tb.dtype == DType::Complex;
        if complex && !matches!(f, Binary::Add | Binary::Sub | Binary::Mul | Binary::Div) {
            let d = Diagnostic::new(
                Code::E0202,
                format!("{what} of complex values"),
                span,
                "needs real operands",
            )
            .help("take `re(x)`, `im(x)` or `abs(x)` first");
            return Err(self.report(d));
        }
        let place = self.join_places(a, b, span)?;
        let Some(shape) = broadcast(&ta.shape, &tb.shape) else {
            let d = Diagnostic::new(
                Code::E0201,
                format!(
                    "shapes do not match in {what}: {} and {}",
                    shape_words(&ta.shape),
                    shape_words(&tb.shape)
                ),
                span,
                "axes are aligned from the last and must agree or be 1",
            )
            .also(self.place_of(a), format!("this is {}", show_type(&ta)))
            .also(self.place_of(b), format!("this is {}", show_type(&tb)));
            return Err(self.report(d));
        };
        let kind = match f {
            Binary::Add | Binary::Sub => self.joined(&[a, b], span)?,
            Binary::Mul => self.product(a, b, span)?,
            Binary::Div if matches!(self.value(b).kind, Kind::Linear { .. }) => {
                self.nonlinear(&[b], span)?
            }
            Binary::Div => self.product(a, b, span)?,
            _ => self.nonlinear(&[a, b], span)?,
        };
        let dtype = if complex { DType::Complex } else { DType::Real };
        self.push(
            CoreOp::Binary(f),
            vec![a, b],
            Type {
                place,
                shape,
                dtype,
            },
            kind,
            span,
        )
    }

    /// The common index set of two operands.
    fn join_places(&mut self, a: ValueId, b: ValueId, span: Span) -> R<Place> {
        match (self.value(a).ty.place, self.value(b).ty.place) {
            (x, y) if x == y => Ok(x),
            (Place::Whole, y) => Ok(y),
            (x, Place::Whole) => Ok(x),
            _ => {
                let d = Diagnostic::new(
                    Code::E0206,
                    "the operands live on different lattices",
                    span,
                    "combined here",
                )
                .also(self.place_of(a), format!("this is {}", self.describe(a)))
                .also(self.place_of(b), format!("this is {}", self.describe(b)))
                .help("bring both to the same tokens with `patch`");
                Err(self.report(d))
            }
        }
    }

    pub(super) fn negate(&mut self, val: Val, span: Span) -> R<Val> {
        match val {
            Val::Static(Static::Int(k)) => match k.checked_neg() {
                Some(k) => Ok(Val::Static(Static::Int(k))),
                None => self.err(
                    Code::E0204,
                    span,
                    "arithmetic overflow",
                    "the result does not fit in 64 bits",
                ),
            },
            Val::Static(Static::Real(x)) => Ok(Val::Static(Static::Real(-x))),
            Val::Imaginary(x) => Ok(Val::Imaginary(-x)),
            other => {
                let id = self.tensor(other, span)?;
                self.unary(Unary::Neg, id, "-", span).map(Val::Tensor)
            }
        }
    }

    /// An elementwise primitive on a tensor.
    pub(super) fn unary(&mut self, f: Unary, x: ValueId, name: &str, span: Span) -> R<ValueId> {
        let mut ty = self.value(x).ty.clone();
        if ty.dtype == DType::Complex && !builtins::complex_allowed(f) {
            let d = Diagnostic::new(
                Code::E0202,
                format!("`{name}` of a complex value"),
                span,
                format!("the argument is {}", self.describe(x)),
            )
            .help("take `re(x)`, `im(x)` or `abs(x)` first");
            return Err(self.report(d));
        }
        if ty.dtype == DType::Real && matches!(f, Unary::Re | Unary::Conj) {
            return Ok(x);
        }
        let kind = match f {
            Unary::Neg | Unary::Re | Unary::Im | Unary::Conj => self.value(x).kind,
            _ => self.nonlinear(&[x], span)?,
        };
        if matches!(f, Unary::Re | Unary::Im | Unary::Abs) {
            ty.dtype = DType::Real;
        }
        self.push(CoreOp::Unary(f), vec![x], ty, kind, span)
    }

    fn matmul(&mut self, a: ValueId, b: ValueId, span: Span) -> R<ValueId> {
        let (sa, sb) = (
            self.value(a).ty.shape.clone(),
            self.value(b).ty.shape.clone(),
        );
        let (Some(inner), Some(outer)) = (sa.last(), sb.first()) else {
            let which = if sa.is_empty() { a } else { b };
            let d = Diagnostic::new(
                Code::E0201,
                "`@` needs at least one axis on both sides",
                span,
                format!("one side is {}", self.describe(which)),
            )
            .help(
                "use `*` for products with numbers; `patch(spins, 1)` makes an axis of the spins",
            );
            return Err(self.report(d));
        };
        if inner != outer {
            let d = Diagnostic::new(
                Code::E0201,
                format!(
                    "shapes do not match in `@`: {} and {}",
                    shape_words(&sa),
                    shape_words(&sb)
                ),
                span,
                format!(
                    "contracts {} with {}",
                    show_shape(&sa[sa.len() - 1..]),
                    show_shape(&sb[..1])
                ),
            )
            .also(self.place_of(a), format!("this is {}", self.describe(a)))
            .also(self.place_of(b), format!("this is {}", self.describe(b)));
            return Err(self.report(d));
        }
        let letters: Vec<char> = ('a'..='z').collect();
        let (na, nb) = (sa.len(), sb.len());
        if na + nb > letters.len() {
            return self.err(
                Code::E0201,
                span,
                "too many axes",
                "at most 26 in a contraction",
            );
        }
        let left = letters[..na].to_vec();
        let right = letters[na - 1..na - 1 + nb].to_vec();
        let output = left[..na - 1].iter().chain(&right[1..]).copied().collect();
        self.contract(
            Einsum {
                inputs: vec![left, right],
                output,
            },
            vec![a, b],
            span,
        )
    }

    /// A contraction whose letters are known to be well formed or are checked here.
    pub(super) fn contract(
        &mut self,
        einsum: Einsum,
        args: Vec<ValueId>,
        span: Span,
    ) -> R<ValueId> {
        let mut lengths: HashMap<char, Dim> = HashMap::new();
        for (letters, &arg) in einsum.inputs.iter().zip(&args) {
            let shape = self.value(arg).ty.shape.clone();
            if shape.len() != letters.len() {
                let text: String = letters.iter().collect();
                let label = format!("this is {}", self.describe(arg));
                let d = Diagnostic::new(
                    Code::E0201,
                    format!(
                        "\"{text}\" names {} axes, the operand has {}",
                        letters.len(),
                        shape.len()
                    ),
                    span,
                    "in this contraction",
                )
                .also(self.place_of(arg), label);
                return Err(self.report(d));
            }
            for (&c, &d) in letters.iter().zip(&shape) {
                let known = *lengths.entry(c).or_insert(d);
                if known != d {
                    return self.err(
                        Code::E0201,
                        span,
                        format!(
                            "axis `{c}` has two lengths: {} and {}",
                            show_shape(&[known]),
                            show_shape(&[d])
                        ),
                        "in this contraction",
                    );
                }
            }
        }
        let mut shape = Vec::new();
        for c in &einsum.output {
            match lengths.get(c) {
                Some(d) => shape.push(*d),
                None => {
                    return self.err(
                        Code::E0201,
                        span,
                        format!("output axis `{c}` is in no operand"),
                        "in this contraction",
                    );
                }
            }
        }
        let place = match args[..] {
            [a, b] => self.join_places(a, b, span)?,
            _ => self.value(args[0]).ty.place,
        };
        let kind = match args[..] {
            [a, b] => self.product(a, b, span)?,
            _ => self.value(args[0]).kind,
        };
        let complex = args
            .iter()
            .any(|&a| self.value(a).ty.dtype == DType::Complex);
        let dtype = if complex { DType::Complex } else { DType::Real };
        self.push(
            CoreOp::Einsum(einsum),
            args,
            Type {
                place,
                shape,
                dtype,
            },
            kind,
            span,
        )
    }
}

fn shape_words(shape: &[Dim]) -> String {
    if shape.is_empty() {
        "one number".to_owned()
    } else {
        show_shape(shape)
    }
}
