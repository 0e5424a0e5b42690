//! W0402: flip clusters whose extent grows with the lattice cannot be covered
//! by one slice, so their local energy needs full evaluations.

use super::operator::{Geometry, OperatorInfo, Pauli, Sink};
use crate::diag::{Code, Diagnostic};
use crate::syntax::ast::LatticeKind;
use num_complex::Complex64;
use std::collections::BTreeMap;

/// Largest extent of the flipped sites, per (family, summand).
struct Extents {
    geometry: Geometry,
    at: (usize, usize),
    largest: BTreeMap<(usize, usize), usize>,
}

impl Sink for Extents {
    type Error = std::convert::Infallible;

    fn string(&mut self, _: Complex64, factors: &[(usize, Pauli)]) -> Result<(), Self::Error> {
        let flips: Vec<[usize; 2]> = factors
            .iter()
            .filter(|(_, p)| *p != Pauli::Z)
            .map(|(site, _)| self.geometry.coordinates(*site))
            .collect();
        let extent = (0..2)
            .map(|axis| self.arc(flips.iter().map(|c| c[axis]).collect(), axis))
            .max()
            .unwrap_or(0);
        let largest = self.largest.entry(self.at).or_insert(0);
        *largest = extent.max(*largest);
        Ok(())
    }

    fn pair_coupling(&mut self, _: [i64; 2], _: f64) -> Result<(), Self::Error> {
        Ok(())
    }

    fn begin(&mut self, family: usize, summand: usize) {
        self.at = (family, summand);
    }
}

impl Extents {
    /// Sites between the first and the last, going the shorter way on a ring.
    fn arc(&self, mut at: Vec<usize>, axis: usize) -> usize {
        at.sort_unstable();
        at.dedup();
        let (Some(&first), Some(&last)) = (at.first(), at.last()) else {
            return 0;
        };
        if !self.geometry.periodic {
            return last - first + 1;
        }
        let n = self.geometry.extent[axis];
        let wrap = n - last + first;
        let gap = at.windows(2).map(|w| w[1] - w[0]).fold(wrap, usize::max);
        n - gap + 1
    }
}

/// One warning per summand whose clusters grow with the lattice.
pub fn warnings(info: &OperatorInfo) -> Vec<Diagnostic> {
    let measure = |l: usize| {
        let extent = if info.lattice == LatticeKind::Chain {
            [l * l, 1]
        } else {
            [l, l]
        };
        let geometry = Geometry {
            extent,
            periodic: true,
        };
        let mut sink = Extents {
            geometry,
            at: (0, 0),
            largest: BTreeMap::new(),
        };
        info.expand(geometry, &mut sink).ok().map(|()| sink.largest)
    };
    // Lattices on which the operator does not exist say nothing.
    let (Some(small), Some(large)) = (measure(4), measure(6)) else {
        return Vec::new();
    };
    let grown = large
        .into_iter()
        .filter(|(key, extent)| small.get(key).is_some_and(|s| extent > s));
    grown
        .map(|((family, summand), _)| {
            let span = info.families[family].summands[summand].span;
            Diagnostic::new(
                Code::W0402,
                "flip clusters of this term spread over the whole lattice",
                span,
                "no slice of fixed width covers them",
            )
            .help(
                "each connected element then costs a full evaluation of the network, O(N) or more instead of O(1); \
                 keep flipped sites within a fixed distance where you can",
            )
        })
        .collect()
}
