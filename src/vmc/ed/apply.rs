//! An operator as a matrix on the basis of a sector.

use super::basis::Basis;
use crate::vmc::operator::Operator;
use num_complex::Complex64;
use rayon::prelude::*;
use std::ops::{Add, AddAssign, Mul, Sub};

/// Real or complex amplitudes.
pub trait Amplitude:
    Copy
    + Send
    + Sync
    + Default
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Mul<f64, Output = Self>
    + AddAssign
{
    /// From a matrix element; the imaginary part is zero for real operators.
    fn from_complex(value: Complex64) -> Self;
    /// To the general form.
    fn to_complex(self) -> Complex64;
    /// Complex conjugate.
    fn conj(self) -> Self;
    /// Real part.
    fn re(self) -> f64;
}

impl Amplitude for f64 {
    fn from_complex(value: Complex64) -> f64 {
        value.re
    }
    fn to_complex(self) -> Complex64 {
        Complex64::new(self, 0.0)
    }
    fn conj(self) -> f64 {
        self
    }
    fn re(self) -> f64 {
        self
    }
}

impl Amplitude for Complex64 {
    fn from_complex(value: Complex64) -> Complex64 {
        value
    }
    fn to_complex(self) -> Complex64 {
        self
    }
    fn conj(self) -> Complex64 {
        Complex64::conj(&self)
    }
    fn re(self) -> f64 {
        self.re
    }
}

/// Basis states handled together, small enough to stay in the first cache.
const BLOCK: usize = 2048;

/// `H` restricted to a sector it leaves invariant.
pub struct SectorMatrix<'a, T> {
    basis: &'a Basis,
    diagonal: Vec<f64>,
    clusters: Vec<ClusterMask<T>>,
}

/// One flip cluster in bits.
struct ClusterMask<T> {
    flip: u32,
    /// Coefficient of the strings without signs.
    plain: T,
    /// Coefficients and signed sites of the others.
    signed: Vec<(T, u32)>,
    /// Vanishes unless as many spins go up as down.
    exchange: bool,
}

impl<T: Amplitude> ClusterMask<T> {
    /// The matrix element from a configuration; none where it vanishes for a
    /// reason known in advance.
    fn element(&self, state: u32) -> Option<T> {
        if self.exchange && 2 * (state & self.flip).count_ones() != self.flip.count_ones() {
            return None;
        }
        let mut element = self.plain;
        for &(coefficient, signs) in &self.signed {
            element += coefficient * sign(state & signs);
        }
        Some(element)
    }
}

fn mask(sites: impl IntoIterator<Item = usize>) -> u32 {
    sites.into_iter().fold(0, |bits, site| bits | 1 << site)
}

fn sign(bits: u32) -> f64 {
    1.0 - 2.0 * f64::from(bits.count_ones() & 1)
}

impl<'a, T: Amplitude> SectorMatrix<'a, T> {
    /// The matrix of an operator that commutes with the sector's symmetry.
    pub fn new(operator: &Operator, basis: &'a Basis) -> SectorMatrix<'a, T> {
        let fixed = matches!(
            basis.sector(),
            super::Sector::Magnetisation { .. } | super::Sector::Balanced { .. }
        );
        let clusters = (0..operator.cluster_count()).map(|k| {
            let mut plain = T::default();
            let mut signed = Vec::new();
            for (coefficient, sites) in operator.cluster_strings(k) {
                let coefficient = T::from_complex(coefficient);
                match mask(sites.iter().map(|&s| s as usize)) {
                    0 => plain += coefficient,
                    signs => signed.push((coefficient, signs)),
                }
            }
            ClusterMask {
                flip: mask(operator.flips(k).iter().copied()),
                plain,
                signed,
                exchange: fixed,
            }
        });
        SectorMatrix {
            basis,
            diagonal: diagonal(operator, basis),
            clusters: clusters.collect(),
        }
    }

    /// The dimension of the sector.
    pub fn dim(&self) -> usize {
        self.basis.dim()
    }

    /// The size of the largest diagonal element or cluster coefficient: the
    /// scale of rounding errors.
    pub(super) fn largest_coefficient(&self) -> f64 {
        let clusters = self
            .clusters
            .iter()
            .flat_map(|c| c.signed.iter().map(|s| s.0).chain([c.plain]));
        let largest = clusters
            .map(|c| c.to_complex().l1_norm())
            .fold(0.0, f64::max);
        self.diagonal
            .iter()
            .fold(largest, |m, d| m.max(d.abs()))
            .max(f64::MIN_POSITIVE)
    }

    /// Calls `visit(s', <s|H|s'>)` for every configuration a configuration is
    /// connected to, itself excluded.
    pub(super) fn connected(&self, state: u32, visit: &mut dyn FnMut(u32, T)) {
        for cluster in &self.clusters {
            if let Some(element) = cluster.element(state) {
                visit(state ^ cluster.flip, element);
            }
        }
    }

    /// The diagonal element of a basis state.
    pub(super) fn diagonal_of(&self, index: usize) -> f64 {
        self.diagonal[index]
    }

    /// `y = H x`.
    pub fn apply(&self, x: &[T], y: &mut [T]) {
        let parity = self.basis.parity().unwrap_or(1.0);
        y.par_chunks_mut(BLOCK).enumerate().for_each(|(block, y)| {
            let start = block * BLOCK;
            for (k, y) in y.iter_mut().enumerate() {
                *y = x[start + k] * self.diagonal[start + k];
            }
            for cluster in &self.clusters {
                for (k, y) in y.iter_mut().enumerate() {
                    let state = self.basis.state(start + k);
                    let Some(element) = cluster.element(state) else {
                        continue;
                    };
                    let (source, inverse) = self.basis.index(state ^ cluster.flip);
                    let amplitude = if inverse {
                        x[source] * parity
                    } else {
                        x[source]
                    };
                    *y += element * amplitude;
                }
            }
        });
    }
}

/// All diagonal elements by one Walsh-Hadamard transform: with `c_m` the
/// coefficient of the string of Z on the set m,
/// `<s|H|s> = sum_m c_m (-1)^{|m & s|}`.
fn diagonal(operator: &Operator, basis: &Basis) -> Vec<f64> {
    let sites = basis.sites();
    // with the last spin up its sign is +1: the upper half is never needed
    let bits = if basis.parity().is_some() {
        sites - 1
    } else {
        sites
    };
    let keep = (1usize << bits) - 1;
    let mut values = vec![0.0; 1 << bits];
    values[0] = operator.constant();
    let strings = operator.diagonal_strings();
    for k in 0..strings.len() {
        let (coefficient, signs) = strings.get(k);
        values[mask(signs.iter().map(|&s| s as usize)) as usize & keep] += coefficient;
    }
    if let Some(pairs) = operator.pairs() {
        for j in 0..sites {
            for i in 0..j {
                values[mask([i, j]) as usize & keep] += pairs.between(i, j);
            }
        }
    }
    let butterfly = |a: &mut f64, b: &mut f64| (*a, *b) = (*a + *b, *a - *b);
    let small = values.len().min(1 << 14);
    // short strides within blocks of the second cache, long ones across
    values.par_chunks_mut(small).for_each(|block| {
        let mut stride = 1;
        while stride < small {
            for pair in block.chunks_exact_mut(2 * stride) {
                let (a, b) = pair.split_at_mut(stride);
                a.iter_mut().zip(b).for_each(|(a, b)| butterfly(a, b));
            }
            stride *= 2;
        }
    });
    let mut stride = small;
    while stride < values.len() {
        for pair in values.chunks_exact_mut(2 * stride) {
            let (a, b) = pair.split_at_mut(stride);
            a.par_chunks_mut(BLOCK)
                .zip(b.par_chunks_mut(BLOCK))
                .for_each(|(a, b)| {
                    a.iter_mut().zip(b).for_each(|(a, b)| butterfly(a, b));
                });
        }
        stride *= 2;
    }
    if basis.dim() == values.len() {
        return values;
    }
    (0..basis.dim())
        .map(|k| values[basis.state(k) as usize])
        .collect()
}
