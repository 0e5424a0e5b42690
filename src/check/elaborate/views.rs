//! Primitives that rearrange: coordinates, slices, joins, windows, patches,
//! contractions.

use super::call::Args;
use super::*;
use crate::check::core::Dim;

/// Offsets beyond this are mistakes.
const MAX_OFFSET: i64 = 1 << 20;

impl Elaborator<'_> {
    pub(super) fn site_token(&mut self, x: ValueId, span: Span) -> R<Token> {
        match self.value(x).ty.place {
            Place::Site(t) => Ok(t),
            _ => {
                let label = format!("this is {}", self.describe(x));
                self.err(Code::E0206, span, "expected a per-site value", label)
            }
        }
    }

    pub(super) fn coordinates(&mut self, name: &str, token: Token, span: Span) -> R<Val> {
        let place = match name {
            "index" => Place::Site(token),
            "displacement" => Place::Displacement(token),
            "momentum" => Place::Momentum(token),
            _ => Place::Pair(token),
        };
        let ty = Type {
            place,
            shape: vec![],
            dtype: DType::Real,
        };
        let axes = self.axes();
        let mut ops = Vec::new();
        for source in [false, true] {
            for axis in 0..axes {
                match name {
                    "index" => ops.push(CoreOp::SiteIndex { axis, token }),
                    "displacement" => ops.push(CoreOp::Displacement { axis, token }),
                    "momentum" => ops.push(CoreOp::Momentum { axis, token }),
                    _ => ops.push(CoreOp::PairIndex {
                        axis,
                        source,
                        token,
                    }),
                }
            }
            if name != "pair_index" {
                break;
            }
        }
        let mut parts = Vec::new();
        for op in ops {
            parts.push(Val::Tensor(self.push(
                op,
                vec![],
                ty.clone(),
                Kind::Const,
                span,
            )?));
        }
        Ok(if parts.len() == 1 {
            parts.remove(0)
        } else {
            Val::Tuple(parts)
        })
    }

    pub(super) fn slice(&mut self, x: ValueId, lo: i64, hi: i64, span: Span) -> R<ValueId> {
        let v = self.value(x).clone();
        let Some(Dim::Static(len)) = v.ty.shape.last().copied() else {
            let label = format!("this is {}", self.describe(x));
            return self.err(
                Code::E0201,
                span,
                "only an axis of static length can be sliced",
                label,
            );
        };
        if lo < 0 || hi <= lo || hi > len as i64 {
            return self.err(
                Code::E0201,
                span,
                format!("slice {lo}..{hi} of an axis of length {len}"),
                "out of bounds or empty",
            );
        }
        if lo == 0 && hi == len as i64 {
            return Ok(x);
        }
        let axis = v.ty.shape.len() - 1;
        let mut ty = v.ty.clone();
        ty.shape[axis] = Dim::Static((hi - lo) as usize);
        self.push(
            CoreOp::Slice {
                axis,
                start: lo as usize,
                len: (hi - lo) as usize,
            },
            vec![x],
            ty,
            v.kind,
            span,
        )
    }

    pub(super) fn concat(&mut self, args: &Args) -> R<ValueId> {
        let span = args.span;
        if args.positional.is_empty() {
            return self.err(
                Code::E0105,
                span,
                "`concat` needs at least one value",
                "in this call",
            );
        }
        let mut ids = Vec::new();
        for (v, at) in &args.positional {
            ids.push(self.tensor(v.clone(), *at)?);
        }
        let first = self.value(ids[0]).ty.clone();
        let Some(axis) = first.shape.len().checked_sub(1) else {
            return self.err(
                Code::E0201,
                span,
                "`concat` joins along the last axis, but there is none",
                "in this call",
            );
        };
        let mut total = 0usize;
        let mut place = first.place;
        let mut dtype = DType::Real;
        for &id in &ids {
            let ty = self.value(id).ty.clone();
            let fits =
                ty.shape.len() == first.shape.len() && ty.shape[..axis] == first.shape[..axis];
            let (Some(Dim::Static(n)), true) = (ty.shape.last().copied(), fits) else {
                let label = format!("this is {}", self.describe(id));
                let d = Diagnostic::new(
                    Code::E0201,
                    "parts of `concat` must agree in all axes but the last, which must be static",
                    span,
                    format!("the first is {}", self.describe(ids[0])),
                )
                .also(self.place_of(id), label);
                return Err(self.report(d));
            };
            total += n;
            if ty.dtype == DType::Complex {
                dtype = DType::Complex;
            }
            if place == Place::Whole {
                place = ty.place;
            }
            if ty.place != place && ty.place != Place::Whole {
                let label = format!("this is {}", self.describe(id));
                return self.err(
                    Code::E0206,
                    span,
                    "parts of `concat` live on different lattices",
                    label,
                );
            }
        }
        let kind = self.joined(&ids, span)?;
        let mut shape = first.shape;
        shape[axis] = Dim::Static(total);
        self.push(
            CoreOp::Concat { axis },
            ids,
            Type {
                place,
                shape,
                dtype,
            },
            kind,
            span,
        )
    }

    /// An integer per axis: `3` on a chain, `(1, 2)` on a square.
    pub(super) fn offsets(&mut self, val: &Val, span: Span) -> R<[i64; 2]> {
        let axes = self.axes();
        let got = match (val, axes) {
            (Val::Static(Static::Int(k)), 1) => Some([*k, 0]),
            (Val::Tuple(parts), 2) => match parts[..] {
                [Val::Static(Static::Int(a)), Val::Static(Static::Int(b))] => Some([a, b]),
                _ => None,
            },
            _ => None,
        };
        match got {
            Some(o) if o.iter().all(|k| k.abs() <= MAX_OFFSET) => Ok(o),
            Some(_) => self.err(
                Code::E0204,
                span,
                format!("offsets beyond {MAX_OFFSET} are not supported"),
                "too large",
            ),
            None if axes == 2 => self.err(
                Code::E0105,
                span,
                "on a square lattice offsets are pairs of integers",
                "expected `(a, b)`, known at compile time",
            ),
            None => self.err(
                Code::E0203,
                span,
                "an offset must be an integer known at compile time",
                "not an integer",
            ),
        }
    }

    pub(super) fn window(&mut self, args: &Args) -> R<ValueId> {
        let span = args.span;
        let [(x, sx), (lo, sl), (hi, sh)] =
            self.exactly::<3>("window", args, "a per-site value and two offsets")?;
        let x = self.tensor(x, sx)?;
        let token = self.site_token(x, sx)?;
        let lo = self.offsets(&lo, sl)?;
        let hi = self.offsets(&hi, sh)?;
        if lo[0] > hi[0] || lo[1] > hi[1] {
            return self.err(
                Code::E0207,
                sl.to(sh),
                "the window is empty",
                "the first offset is larger than the second",
            );
        }
        let v = self.value(x).clone();
        let kind = match v.kind {
            Kind::Local(w) => Kind::Local(w.widen(token, lo, hi)),
            other => other,
        };
        let count = ((hi[0] - lo[0] + 1) * (hi[1] - lo[1] + 1)) as usize;
        let mut shape = v.ty.shape.clone();
        shape.insert(0, Dim::Static(count));
        self.push(
            CoreOp::Window { lo, hi },
            vec![x],
            Type { shape, ..v.ty },
            kind,
            span,
        )
    }

    pub(super) fn patch(&mut self, args: &Args) -> R<ValueId> {
        let span = args.span;
        let [(x, sx), (t, st)] =
            self.exactly::<2>("patch", args, "a per-site value and a token size")?;
        let x = self.tensor(x, sx)?;
        let token = self.site_token(x, sx)?;
        let mut ratio = self.offsets(&t, st)?;
        if self.axes() == 1 {
            ratio[1] = 1;
        }
        if ratio.iter().any(|r| *r < 1) {
            return self.err(
                Code::E0207,
                st,
                "a token has at least one site",
                "not positive",
            );
        }
        let ratio = [ratio[0] as usize, ratio[1] as usize];
        let v = self.value(x).clone();
        let kind = match v.kind {
            Kind::Local(w) => Kind::Local(w.patch(token, ratio)),
            other => other,
        };
        let (Some(a), Some(b)) = (
            token.0[0].checked_mul(ratio[0]),
            token.0[1].checked_mul(ratio[1]),
        ) else {
            return self.err(Code::E0204, st, "token too large", "arithmetic overflow");
        };
        let mut shape = v.ty.shape.clone();
        shape.insert(0, Dim::Static(ratio[0] * ratio[1]));
        let ty = Type {
            place: Place::Site(Token([a, b])),
            shape,
            dtype: v.ty.dtype,
        };
        self.push(CoreOp::Patch { ratio }, vec![x], ty, kind, span)
    }

    pub(super) fn einsum(&mut self, args: &Args) -> R<Val> {
        let span = args.span;
        let text = match args.positional.first() {
            Some((Val::Str(s), at)) => (s.clone(), *at),
            _ => {
                return self.err(
                    Code::E0105,
                    span,
                    "`einsum` starts with a text such as \"hd,de->he\"",
                    "in this call",
                );
            }
        };
        let operands = &args.positional[1..];
        let parsed = parse_einsum(&text.0);
        let Some(einsum) = parsed else {
            let d = Diagnostic::new(
                Code::E0105,
                format!("cannot read the contraction \"{}\"", text.0),
                text.1,
                "here",
            )
            .help("write letters per operand, `->`, letters of the result: \"ab,bc->ac\"");
            return Err(self.report(d));
        };
        if einsum.inputs.len() != operands.len() || operands.len() > 2 || operands.is_empty() {
            return self.err(
                Code::E0105,
                span,
                format!(
                    "\"{}\" names {} operands, {} were given",
                    text.0,
                    einsum.inputs.len(),
                    operands.len()
                ),
                "one or two operands are possible",
            );
        }
        let mut ids = Vec::new();
        for (v, at) in operands {
            ids.push(self.tensor(v.clone(), *at)?);
        }
        self.contract(einsum, ids, span).map(Val::Tensor)
    }
}

fn parse_einsum(text: &str) -> Option<Einsum> {
    let (inputs, output) = text.split_once("->")?;
    let letters = |s: &str| -> Option<Vec<char>> {
        let s = s.trim();
        s.chars()
            .all(|c| c.is_ascii_lowercase())
            .then(|| s.chars().collect())
    };
    let inputs: Vec<Vec<char>> = inputs.split(',').map(letters).collect::<Option<_>>()?;
    let output = letters(output)?;
    let distinct = |v: &[char]| v.iter().enumerate().all(|(k, c)| !v[..k].contains(c));
    if !distinct(&output) || inputs.iter().any(|v| !distinct(v)) {
        return None;
    }
    Some(Einsum { inputs, output })
}
