//! Is the sum Hermitian? Pauli strings are, and independent: their
//! coefficients must be real.

use super::expand::Sink;
use super::{Geometry, OperatorInfo, Pauli, Summand};
use crate::diag::{Code, Diagnostic};
use crate::syntax::ast::LatticeKind;
use num_complex::Complex64;
use std::collections::HashMap;
use std::convert::Infallible;

/// Relative size of what cancellations leave.
const ROUNDING: f64 = 1e-12;

/// E0401 if a Pauli string keeps an imaginary coefficient.
///
/// Undecided cases (imaginary parts that may cancel, sites that coincide in
/// some turns) are expanded on small lattices; one that cannot be expanded
/// there is checked when the operator is built.
pub(super) fn check(info: &OperatorInfo) -> Option<Diagnostic> {
    let products = info
        .families
        .iter()
        .flat_map(|f| &f.summands)
        .flat_map(|s| &s.products);
    if products.clone().all(|p| p.certainly_real()) {
        return None;
    }
    let extents: &[[usize; 2]] = match info.lattice {
        LatticeKind::Chain => &[[8, 1], [9, 1]],
        LatticeKind::Square => &[[4, 5], [6, 4]],
    };
    for &extent in extents {
        for periodic in [true, false] {
            let mut strings = Strings::default();
            let geometry = Geometry { extent, periodic };
            if info.expand(geometry, &mut strings).is_ok()
                && let Some(origin) = strings.imaginary()
            {
                let summand = &info.families[origin.0].summands[origin.1];
                return Some(report(summand, geometry));
            }
        }
    }
    None
}

fn report(summand: &Summand, geometry: Geometry) -> Diagnostic {
    let lattice = if geometry.periodic {
        "periodic"
    } else {
        "open"
    };
    let diagnostic = Diagnostic::new(
        Code::E0401,
        "operator is not Hermitian: a Pauli string has a complex coefficient",
        summand.span,
        format!(
            "not Hermitian, e.g. on {} sites with {lattice} boundary",
            geometry.sites()
        ),
    );
    let imaginary = summand
        .products
        .iter()
        .find(|p| p.quarter % 2 == 1)
        .map(|p| p.imaginary.as_slice());
    match imaginary.unwrap_or_default() {
        [left, .., right] => diagnostic
            .also(*left, "this factor")
            .also(
                *right,
                "does not commute with this one, and their product is imaginary",
            )
            .help("add the Hermitian conjugate: the factors in reverse order"),
        [one] => diagnostic
            .also(*one, "imaginary here")
            .help("a Hermitian sum of Pauli strings has real coefficients"),
        [] => diagnostic.help("sites of one term that may coincide must commute"),
    }
}

/// Indices of a family and of a summand in it.
type Origin = (usize, usize);

/// Adds strings up, remembering which summand made each imaginary.
#[derive(Default)]
struct Strings {
    total: HashMap<Vec<(usize, Pauli)>, (Complex64, Origin)>,
    origin: Origin,
    scale: f64,
}

impl Strings {
    fn imaginary(&self) -> Option<Origin> {
        let bound = ROUNDING * self.scale;
        self.total
            .values()
            .filter(|(c, _)| c.im.abs() > bound)
            .map(|(_, origin)| *origin)
            .min()
    }
}

impl Sink for Strings {
    type Error = Infallible;

    fn begin(&mut self, family: usize, summand: usize) {
        self.origin = (family, summand);
    }

    fn string(
        &mut self,
        coefficient: Complex64,
        factors: &[(usize, Pauli)],
    ) -> Result<(), Infallible> {
        let mut coefficient = coefficient;
        let mut sorted = factors.to_vec();
        sorted.sort_by_key(|f| f.0);
        let mut merged: Vec<(usize, Pauli)> = Vec::with_capacity(sorted.len());
        for (site, pauli) in sorted {
            match merged.last() {
                Some(&(last, left)) if last == site => {
                    merged.pop();
                    if let Some((phase, product)) = left.times(pauli) {
                        coefficient *= phase;
                        merged.push((site, product));
                    }
                }
                _ => merged.push((site, pauli)),
            }
        }
        self.scale = self.scale.max(coefficient.norm());
        let entry = self
            .total
            .entry(merged)
            .or_insert((Complex64::new(0.0, 0.0), self.origin));
        entry.0 += coefficient;
        if coefficient.im != 0.0 {
            entry.1 = self.origin;
        }
        Ok(())
    }

    fn pair_coupling(&mut self, _: [i64; 2], _: f64) -> Result<(), Infallible> {
        // real by construction
        Ok(())
    }
}
