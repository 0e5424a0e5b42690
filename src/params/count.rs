//! Numbers of parameters as polynomials in the number of sites.

use crate::check::core::{DType, Dim, NetworkInfo, Place, Token, Type};
use crate::ir::{Boundary, Lattice};
use std::collections::BTreeMap;
use std::fmt;

/// A sum of terms `scale * N^power / per`, plus `corner` corrections for kernels
/// on open chains (which have 2T-1 displacements instead of T).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParamCount {
    /// (power of N, denominator) -> numerator.
    terms: BTreeMap<(std::cmp::Reverse<u32>, usize), usize>,
    /// Tensors indexed by displacement, counted exactly by [`ParamCount::at`].
    displaced: Vec<(Token, usize)>,
}

impl ParamCount {
    /// Of all parameters of a network; a complex element counts twice.
    pub fn of(info: &NetworkInfo) -> ParamCount {
        let mut sum = ParamCount::default();
        for p in &info.params {
            let one = ParamCount::of_type(&p.ty);
            for (k, v) in one.terms {
                *sum.terms.entry(k).or_insert(0) += v;
            }
            sum.displaced.extend(one.displaced);
        }
        sum
    }

    /// Of one tensor.
    pub fn of_type(ty: &Type) -> ParamCount {
        let mut scale = if ty.dtype == DType::Complex {
            2usize
        } else {
            1
        };
        let (mut power, mut per) = (0u32, 1usize);
        for d in &ty.shape {
            match *d {
                Dim::Static(n) => scale = scale.saturating_mul(n),
                Dim::Sites { scale: s, per: p } => {
                    scale = scale.saturating_mul(s);
                    per = per.saturating_mul(p);
                    power += 1;
                }
            }
        }
        let mut displaced = Vec::new();
        let copies = match ty.place {
            Place::Whole => None,
            Place::Site(t) | Place::Momentum(t) => Some((t, 1)),
            Place::Displacement(t) => {
                displaced.push((t, scale));
                Some((t, 1))
            }
            Place::Pair(t) => Some((t, 2)),
        };
        if let Some((t, k)) = copies {
            power += k;
            per = per.saturating_mul(t.volume().saturating_pow(k));
        }
        ParamCount {
            terms: BTreeMap::from([((std::cmp::Reverse(power), per), scale)]),
            displaced,
        }
    }

    /// The number, where it does not depend on the sites.
    pub fn constant(&self) -> Option<usize> {
        let only_constant = self.terms.keys().all(|(p, _)| p.0 == 0);
        only_constant.then(|| self.terms.values().sum())
    }

    /// The number on a lattice; `None` where tokens do not tile it.
    pub fn at(&self, lattice: Lattice) -> Option<usize> {
        let n = lattice.sites();
        let mut total = 0usize;
        for (&(power, per), &scale) in &self.terms {
            let value = n.checked_pow(power.0)?.checked_mul(scale)?;
            if value % per != 0 {
                return None;
            }
            total = total.checked_add(value / per)?;
        }
        if lattice.boundary == Boundary::Open {
            for (t, scale) in &self.displaced {
                let tokens = [lattice.extent[0] / t.0[0], lattice.extent[1] / t.0[1]];
                let open = (2 * tokens[0] - 1) * (2 * tokens[1] - 1);
                total += scale * (open - tokens[0] * tokens[1]);
            }
        }
        Some(total)
    }
}

impl fmt::Display for ParamCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return write!(f, "0");
        }
        for (k, (&(power, per), scale)) in self.terms.iter().enumerate() {
            if k > 0 {
                write!(f, " + ")?;
            }
            match (power.0, *scale) {
                (0, s) => write!(f, "{s}")?,
                (1, 1) => write!(f, "N")?,
                (1, s) => write!(f, "{s} N")?,
                (p, 1) => write!(f, "N^{p}")?,
                (p, s) => write!(f, "{s} N^{p}")?,
            }
            if per > 1 {
                write!(f, " / {per}")?;
            }
        }
        Ok(())
    }
}
