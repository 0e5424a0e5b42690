//! Primitive functions: which one is meant, and those that need few words.

use super::call::Args;
use super::kind::{show_shape, show_type};
use super::*;
use crate::check::builtins;
use crate::check::core::Dim;

impl Elaborator<'_> {
    /// A primitive function.
    pub(super) fn primitive(&mut self, name: &str, args: Args) -> R<Val> {
        let span = args.span;
        if name == "scan" {
            return self.scan(args).map(Val::Tensor);
        }
        if let Some((key, ..)) = args.named.first() {
            return self.err(
                Code::E0105,
                key.span,
                format!("`{name}` has no argument `{}`", key.name),
                "not an argument",
            );
        }
        let a = &args.positional;
        if let Some(f) = builtins::unary(name) {
            let [(x, at)] = self.exactly::<1>(name, &args, "one value")?;
            // Numbers stay numbers where that is exact enough to be useful.
            if let (Val::Static(s), Some(g)) = (&x, static_function(f))
                && let Some(v) = super::expr::real(*s)
            {
                let y = g(v);
                if !y.is_finite() {
                    return self.err(
                        Code::E0207,
                        span,
                        format!("`{name}({v})` is not a finite number"),
                        "evaluated here",
                    );
                }
                return Ok(Val::Static(Static::Real(y)));
            }
            let x = self.tensor(x, at)?;
            return self.unary(f, x, name, span).map(Val::Tensor);
        }
        match name {
            "max" | "min" | "atan2" | "mod" => {
                let [(x, sx), (y, sy)] = self.exactly::<2>(name, &args, "two values")?;
                if let (Val::Static(Static::Int(p)), Val::Static(Static::Int(q))) = (&x, &y)
                    && (name == "max" || name == "min")
                {
                    return Ok(Val::Static(Static::Int(if name == "max" {
                        *p.max(q)
                    } else {
                        *p.min(q)
                    })));
                }
                let (x, y) = (self.tensor(x, sx)?, self.tensor(y, sy)?);
                let f = match name {
                    "max" => Binary::Max,
                    "min" => Binary::Min,
                    "atan2" => Binary::Atan2,
                    _ => Binary::Mod,
                };
                self.elementwise(f, x, y, &format!("`{name}`"), span)
                    .map(Val::Tensor)
            }
            "div" => {
                let [(x, sx), (y, sy)] = self.exactly::<2>(name, &args, "two integers")?;
                match (x, y) {
                    (Val::Static(Static::Int(_)), Val::Static(Static::Int(0))) => {
                        self.err(Code::E0207, sy, "division by zero", "this is 0")
                    }
                    (Val::Static(Static::Int(p)), Val::Static(Static::Int(q))) => {
                        match p.checked_div_euclid(q) {
                            Some(k) => Ok(Val::Static(Static::Int(k))),
                            None => self.err(
                                Code::E0204,
                                span,
                                "arithmetic overflow",
                                "the result does not fit in 64 bits",
                            ),
                        }
                    }
                    _ => self.err(
                        Code::E0203,
                        sx.to(sy),
                        "`div` divides integers known at compile time",
                        "not integers",
                    ),
                }
            }
            "fail" => {
                let text = match &a[..] {
                    [(Val::Str(s), _)] => s.clone(),
                    _ => "assertion failed".to_owned(),
                };
                self.err(Code::E0207, span, text, "rejected here")
            }
            "dim" => {
                if a.is_empty() || a.len() > 2 {
                    return self.err(
                        Code::E0105,
                        span,
                        "`dim` takes a value and optionally an axis",
                        "in this call",
                    );
                }
                let x = self.tensor(a[0].0.clone(), a[0].1)?;
                let shape = self.value(x).ty.shape.clone();
                let axis = match a.get(1) {
                    None => shape.len() as i64 - 1,
                    Some((Val::Static(Static::Int(k)), _)) => *k,
                    Some((_, at)) => {
                        return self.err(
                            Code::E0203,
                            *at,
                            "an axis must be an integer",
                            "not an integer",
                        );
                    }
                };
                match usize::try_from(axis).ok().and_then(|k| shape.get(k)) {
                    Some(Dim::Static(n)) => Ok(Val::Static(Static::Int(*n as i64))),
                    Some(Dim::Sites { scale, per }) => {
                        let token = match self.value(x).ty.place {
                            Place::Site(t) if t.volume() == *per => t,
                            _ => Token([*per, 1]),
                        };
                        Ok(Val::Sites {
                            scale: *scale,
                            token,
                        })
                    }
                    None => {
                        let label = format!("this is {}", self.describe(x));
                        let d =
                            Diagnostic::new(Code::E0201, format!("no axis {axis}"), a[0].1, label)
                                .help("`patch(spins, 1)` gives spins an axis");
                        Err(self.report(d))
                    }
                }
            }
            "rank" | "is_complex" => {
                let [(x, at)] = self.exactly::<1>(name, &args, "one value")?;
                let x = self.tensor(x, at)?;
                let ty = &self.value(x).ty;
                Ok(Val::Static(if name == "rank" {
                    Static::Int(ty.shape.len() as i64)
                } else {
                    Static::Bool(ty.dtype == DType::Complex)
                }))
            }
            "einsum" => self.einsum(&args),
            "reshape" => {
                let [(x, sx), (s, ss)] = self.exactly::<2>(name, &args, "a value and a shape")?;
                let x = self.tensor(x, sx)?;
                let Val::List(shape) = s else {
                    return self.err(
                        Code::E0105,
                        ss,
                        "expected a shape such as `[2, 7]`",
                        "not a shape",
                    );
                };
                let old = self.value(x).ty.clone();
                if volume(&old.shape) != volume(&shape) {
                    let label = format!("this is {}", show_type(&old));
                    return self.err(
                        Code::E0201,
                        sx,
                        format!(
                            "cannot reshape {} to {}: different numbers of elements",
                            show_shape(&old.shape),
                            show_shape(&shape)
                        ),
                        label,
                    );
                }
                let kind = self.value(x).kind;
                self.push(CoreOp::Reshape, vec![x], Type { shape, ..old }, kind, span)
                    .map(Val::Tensor)
            }
            "slice" => {
                let [(x, sx), (lo, _), (hi, sh)] =
                    self.exactly::<3>(name, &args, "a value and two bounds")?;
                let x = self.tensor(x, sx)?;
                let (Val::Static(Static::Int(lo)), Val::Static(Static::Int(hi))) = (lo, hi) else {
                    return self.err(
                        Code::E0203,
                        sh,
                        "bounds of `slice` must be integers known at compile time",
                        "not integers",
                    );
                };
                self.slice(x, lo, hi, span).map(Val::Tensor)
            }
            "split" => {
                let [(x, sx), (n, sn)] =
                    self.exactly::<2>(name, &args, "a value and a number of parts")?;
                let x = self.tensor(x, sx)?;
                let Val::Static(Static::Int(n)) = n else {
                    return self.err(
                        Code::E0203,
                        sn,
                        "the number of parts must be an integer known at compile time",
                        "not an integer",
                    );
                };
                match self.value(x).ty.shape.last() {
                    Some(Dim::Static(len)) if n > 0 && *len as i64 % n == 0 => {
                        let part = *len as i64 / n;
                        let parts = (0..n)
                            .map(|k| {
                                self.slice(x, k * part, (k + 1) * part, span)
                                    .map(Val::Tensor)
                            })
                            .collect::<R<Vec<_>>>()?;
                        Ok(if n == 1 {
                            parts[0].clone()
                        } else {
                            Val::Tuple(parts)
                        })
                    }
                    _ => {
                        let label = format!("this is {}", self.describe(x));
                        self.err(
                            Code::E0201,
                            span,
                            format!("the last axis cannot be split into {n} equal parts"),
                            label,
                        )
                    }
                }
            }
            "concat" => self.concat(&args).map(Val::Tensor),
            "window" => self.window(&args).map(Val::Tensor),
            "patch" => self.patch(&args).map(Val::Tensor),
            "sum" | "gather" => {
                let [(x, sx)] = self.exactly::<1>(name, &args, "one per-site value")?;
                let x = self.tensor(x, sx)?;
                let v = self.value(x).clone();
                let Place::Site(token) = v.ty.place else {
                    let label = format!("this is {}", self.describe(x));
                    let d = Diagnostic::new(
                        Code::E0206,
                        format!("`{name}` pools a per-site value"),
                        sx,
                        label,
                    )
                    .help("for a sum over components use `channel_sum`");
                    return Err(self.report(d));
                };
                let kind = match v.kind {
                    Kind::Local(_) | Kind::Linear { .. } => Kind::Pooled,
                    other => other,
                };
                let mut shape = v.ty.shape.clone();
                let op = if name == "sum" {
                    CoreOp::Sum
                } else {
                    shape.insert(
                        0,
                        Dim::Sites {
                            scale: 1,
                            per: token.volume(),
                        },
                    );
                    CoreOp::Gather
                };
                self.push(
                    op,
                    vec![x],
                    Type {
                        place: Place::Whole,
                        shape,
                        dtype: v.ty.dtype,
                    },
                    kind,
                    span,
                )
                .map(Val::Tensor)
            }
            "sites" => {
                let [(x, sx)] = self.exactly::<1>(name, &args, "one per-site value")?;
                let x = self.tensor(x, sx)?;
                let token = self.site_token(x, sx)?;
                Ok(Val::Sites { scale: 1, token })
            }
            "extent" => {
                let [(x, sx), (axis, sa)] =
                    self.exactly::<2>(name, &args, "a per-site value and an axis")?;
                let x = self.tensor(x, sx)?;
                let token = self.site_token(x, sx)?;
                let axes = self.axes();
                match axis {
                    Val::Static(Static::Int(k)) if (0..axes as i64).contains(&k) => {
                        let ty = Type {
                            place: Place::Whole,
                            shape: vec![],
                            dtype: DType::Real,
                        };
                        self.push(
                            CoreOp::Extent {
                                axis: k as usize,
                                token,
                            },
                            vec![],
                            ty,
                            Kind::Const,
                            span,
                        )
                        .map(Val::Tensor)
                    }
                    _ => self.err(
                        Code::E0207,
                        sa,
                        format!("this lattice has {axes} axes"),
                        "not one of them",
                    ),
                }
            }
            "index" | "displacement" | "momentum" | "pair_index" => {
                let [(x, sx)] = self.exactly::<1>(name, &args, "one per-site value")?;
                let x = self.tensor(x, sx)?;
                let token = self.site_token(x, sx)?;
                self.coordinates(name, token, span)
            }
            "convolve" | "modes" | "mix" => self.convolution(name, &args).map(Val::Tensor),
            "row_sum" => {
                let [(x, sx)] = self.exactly::<1>(name, &args, "one value per pair")?;
                let x = self.tensor(x, sx)?;
                let v = self.value(x).clone();
                let Place::Pair(token) = v.ty.place else {
                    let label = format!("this is {}", self.describe(x));
                    return self.err(
                        Code::E0206,
                        sx,
                        "`row_sum` needs a value per pair of sites",
                        label,
                    );
                };
                self.push(
                    CoreOp::RowSum,
                    vec![x],
                    Type {
                        place: Place::Site(token),
                        ..v.ty
                    },
                    v.kind,
                    span,
                )
                .map(Val::Tensor)
            }
            _ => self.err(
                Code::E0106,
                span,
                format!("`{name}` cannot be called here"),
                "in this call",
            ),
        }
    }

    /// Exactly `N` positional arguments.
    pub(super) fn exactly<const K: usize>(
        &mut self,
        name: &str,
        args: &Args,
        what: &str,
    ) -> R<[(Val, Span); K]> {
        match <[(Val, Span); K]>::try_from(args.positional.clone()) {
            Ok(a) => Ok(a),
            Err(_) => self.err(
                Code::E0105,
                args.span,
                format!(
                    "`{name}` takes {what}, {} arguments were given",
                    args.positional.len()
                ),
                "in this call",
            ),
        }
    }

    /// Number of lattice axes.
    pub(super) fn axes(&self) -> usize {
        match self.lattice {
            LatticeKind::Chain => 1,
            LatticeKind::Square => 2,
        }
    }
}

fn volume(shape: &[Dim]) -> Option<(usize, usize, usize)> {
    // (static product, site factors, denominator product) as a canonical form
    let (mut n, mut k, mut per) = (1usize, 0, 1usize);
    for d in shape {
        match d {
            Dim::Static(m) => n = n.checked_mul(*m)?,
            Dim::Sites { scale, per: p } => {
                n = n.checked_mul(*scale)?;
                per = per.checked_mul(*p)?;
                k += 1;
            }
        }
    }
    Some((n, k, per))
}

fn static_function(f: Unary) -> Option<fn(f64) -> f64> {
    Some(match f {
        Unary::Exp => f64::exp,
        Unary::Log => f64::ln,
        Unary::Log1p => f64::ln_1p,
        Unary::Sqrt => f64::sqrt,
        Unary::Sin => f64::sin,
        Unary::Cos => f64::cos,
        Unary::Tanh => f64::tanh,
        Unary::Abs => f64::abs,
        Unary::Floor => f64::floor,
        _ => return None,
    })
}
