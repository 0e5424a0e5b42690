//! What to ask of exact eigenstates.

use super::{Amplitude, EdError, SectorMatrix, Spectrum, State, conserves, lanczos};
use crate::vmc::operator::Operator;
use num_complex::Complex64;
use rayon::prelude::*;

/// Moments of the magnetisation per spin, `m = (1/N) sum_i Z_i`.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Moments {
    /// `<m^2>`
    pub m2: f64,
    /// `<m^4>`
    pub m4: f64,
    /// `<m_s^2>` with `m_s = (1/N) sum_i (-1)^(x+y) Z_i`
    pub staggered_m2: f64,
    /// `<m_s^4>`
    pub staggered_m4: f64,
}

/// Basis states per partial sum.
const BLOCK: usize = 4096;

impl Spectrum {
    /// Moments of the magnetisation in one eigenstate. Spin j of the lattice
    /// is on sublattice `sublattice(j)` (0 or 1).
    ///
    /// # Panics
    /// If there is no such level.
    pub fn moments(&self, level: usize, sublattice: impl Fn(usize) -> usize) -> Moments {
        let sites = self.basis.sites();
        let odd = (0..sites)
            .filter(|&j| sublattice(j) % 2 == 1)
            .fold(0u32, |bits, j| bits | 1 << j);
        let state = &self.states[level];
        let n = sites as f64;
        let partial: Vec<[f64; 4]> = (0..self.basis.dim())
            .into_par_iter()
            .step_by(BLOCK)
            .map(|start| {
                let mut sums = [0.0; 4];
                for k in start..(start + BLOCK).min(self.basis.dim()) {
                    let weight = state.amplitude(k).norm_sqr();
                    let bits = self.basis.state(k);
                    let m = 1.0 - 2.0 * f64::from(bits.count_ones()) / n;
                    let flipped = bits ^ odd;
                    let staggered = 1.0 - 2.0 * f64::from(flipped.count_ones()) / n;
                    for (sum, power) in sums.iter_mut().zip([
                        m * m,
                        m.powi(4),
                        staggered.powi(2),
                        staggered.powi(4),
                    ]) {
                        *sum += weight * power;
                    }
                }
                sums
            })
            .collect();
        let mut total = [0.0; 4];
        for sums in partial {
            total.iter_mut().zip(sums).for_each(|(t, s)| *t += s);
        }
        let [m2, m4, staggered_m2, staggered_m4] = total;
        Moments {
            m2,
            m4,
            staggered_m2,
            staggered_m4,
        }
    }

    /// The expectation value of an observable in one eigenstate.
    ///
    /// # Errors
    /// An observable on another number of spins, or one that leaves the sector.
    ///
    /// # Panics
    /// If there is no such level.
    pub fn expectation(&self, observable: &Operator, level: usize) -> Result<f64, EdError> {
        let (expected, given) = (self.basis.sites(), observable.lattice().sites());
        if expected != given {
            return Err(EdError::Length { expected, given });
        }
        let sector = self.basis.sector();
        if !conserves(observable, sector) {
            return Err(EdError::NotConserved { sector });
        }
        let complex: Vec<Complex64> = match &self.states[level] {
            State::Real(v) if observable.is_real() => return Ok(self.quadratic_form(observable, v)),
            State::Real(v) => v.iter().map(|&a| a.into()).collect(),
            State::Complex(v) => return Ok(self.quadratic_form(observable, v)),
        };
        Ok(self.quadratic_form(observable, &complex))
    }

    fn quadratic_form<T: Amplitude>(&self, observable: &Operator, v: &[T]) -> f64 {
        let mut w = vec![T::default(); v.len()];
        SectorMatrix::<T>::new(observable, &self.basis).apply(v, &mut w);
        lanczos::dot(v, &w).re()
    }

    /// `|<k|psi>|^2` of eigenstate k = `level` with the amplitudes of all `2^N`
    /// configurations (bit j of the index: spin j down); with `mirrored`, of
    /// the eigenstate with all spins inverted. The amplitudes are taken as
    /// they are: normalise them for a fidelity.
    ///
    /// # Errors
    /// A wrong number of amplitudes.
    ///
    /// # Panics
    /// If there is no such level.
    pub fn overlap(&self, level: usize, psi: &[Complex64], mirrored: bool) -> Result<f64, EdError> {
        let (expected, given) = (1 << self.basis.sites(), psi.len());
        if expected != given {
            return Err(EdError::Length { expected, given });
        }
        let state = &self.states[level];
        let inverse = |s: usize| !s & (expected - 1);
        let sum: Complex64 = (0..self.basis.dim())
            .map(|k| {
                let s = self.basis.state(k) as usize;
                let component = match self.basis.parity() {
                    Some(p) => (psi[s] + psi[inverse(s)] * p) * std::f64::consts::FRAC_1_SQRT_2,
                    None if mirrored => psi[inverse(s)],
                    None => psi[s],
                };
                state.amplitude(k).conj() * component
            })
            .sum();
        Ok(sum.norm_sqr())
    }

    /// The weight of a wave function in the span of the lowest `levels`
    /// states, `sum_k |<k|psi>|^2 / <psi|psi>`. `log_psi` holds its log
    /// amplitudes for the [`configurations`](super::Basis::configurations) of
    /// the sector, in this order; their common size does not matter.
    ///
    /// # Errors
    /// A wrong number of amplitudes.
    pub fn fidelity(&self, levels: usize, log_psi: &[Complex64]) -> Result<f64, EdError> {
        let dim = self.basis.dim();
        let parity = self.basis.parity();
        let expected = if parity.is_some() { 2 * dim } else { dim };
        if log_psi.len() != expected {
            return Err(EdError::Length {
                expected,
                given: log_psi.len(),
            });
        }
        let largest = log_psi
            .iter()
            .map(|l| l.re)
            .fold(f64::NEG_INFINITY, f64::max);
        let psi = |k: usize| (log_psi[k] - largest).exp();
        let norm: f64 = (0..expected).map(|k| psi(k).norm_sqr()).sum();
        let weight: f64 = self
            .states
            .iter()
            .take(levels)
            .map(|state| {
                let overlap: Complex64 = (0..dim)
                    .map(|k| {
                        let component = match parity {
                            Some(p) => {
                                (psi(k) + psi(dim + k) * p) * std::f64::consts::FRAC_1_SQRT_2
                            }
                            None => psi(k),
                        };
                        state.amplitude(k).conj() * component
                    })
                    .sum();
                overlap.norm_sqr()
            })
            .sum();
        Ok(weight / norm)
    }
}
