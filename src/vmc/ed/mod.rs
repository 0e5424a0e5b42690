//! Exact diagonalisation: the lowest states of an operator on up to
//! [`MAX_SITES`] spins, in the symmetry sectors it has.
//!
//! The matrix is never stored: diagonal elements come from one Walsh-Hadamard
//! transform, off-diagonal ones from bit masks of the operator's clusters.
//!
//! ```
//! use dnet::check::operator::Pauli::{X, Z};
//! use dnet::ir::{Boundary, Lattice};
//! use dnet::vmc::{ed, operator::OperatorBuilder};
//!
//! let mut h = OperatorBuilder::new(Lattice::chain(10, Boundary::Periodic));
//! h.pair_coupling([1, 0], -1.0);
//! for i in 0..10 {
//!     h.string((-1.0).into(), &[(i, X)])?;
//! }
//! let spectrum = ed::solve(&h.build()?, ed::Sector::Inversion { odd: false }, &ed::Options::default())?;
//! // the critical ring: E0 = -2 / sin(pi / 2N)
//! assert!((spectrum.energies[0] + 2.0 / (std::f64::consts::PI / 20.0).sin()).abs() < 1e-10);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod apply;
mod basis;
mod lanczos;
mod lowest;
mod momentum;
mod observe;
#[cfg(test)]
mod tests;

pub use apply::{Amplitude, SectorMatrix};
pub use basis::{Basis, Sector};
pub use lowest::{Level, Lowest, SectorSummary, lowest};
pub use observe::Moments;

use crate::vmc::operator::Operator;
use num_complex::Complex64;

/// Most spins that can be diagonalised.
pub const MAX_SITES: usize = 24;

/// Why a diagonalisation cannot be done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EdError {
    /// Too few or too many spins.
    #[error("exact diagonalisation takes 1 to {MAX_SITES} spins, not {sites}")]
    Size {
        /// Number of spins asked for.
        sites: usize,
    },
    /// A sector that does not exist.
    #[error("{sites} spins have no sector {sector:?}")]
    Sector {
        /// Number of spins.
        sites: usize,
        /// The sector.
        sector: Sector,
    },
    /// The operator mixes the sector with others.
    #[error("the operator does not conserve what defines the sector {sector:?}")]
    NotConserved {
        /// The sector.
        sector: Sector,
    },
    /// A momentum the lattice or the operator does not have.
    #[error("the operator has no states of momentum {momentum:?} (in units of 2 pi / L)")]
    Momentum {
        /// Per axis.
        momentum: [usize; 2],
    },
    /// An operator on another lattice, or amplitudes of another number.
    #[error("{given} given where {expected} were expected")]
    Length {
        /// How many were expected.
        expected: usize,
        /// How many were given.
        given: usize,
    },
}

/// How to diagonalise.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many of the lowest states.
    pub levels: usize,
    /// Residual norm `|H v - E v|` relative to the largest coupling energy;
    /// energies are then accurate to its square over the gap.
    pub tolerance: f64,
    /// Bytes for Krylov vectors.
    pub memory: usize,
    /// Most applications of the matrix.
    pub max_steps: usize,
    /// Of the start vectors.
    pub seed: u64,
    /// Only states of momentum `2 pi m / L` per axis.
    pub momentum: Option<[usize; 2]>,
}

impl Default for Options {
    /// Two levels, residuals of 1e-9, two gibibytes.
    fn default() -> Options {
        Options {
            levels: 2,
            tolerance: 1e-9,
            memory: 2 << 30,
            max_steps: 20_000,
            seed: 1,
            momentum: None,
        }
    }
}

/// An eigenvector in the basis of its sector.
#[derive(Clone, Debug)]
pub enum State {
    /// Of a real operator.
    Real(Vec<f64>),
    /// Of a complex one.
    Complex(Vec<Complex64>),
}

impl State {
    /// The amplitude of a basis state.
    pub fn amplitude(&self, index: usize) -> Complex64 {
        match self {
            State::Real(v) => v[index].into(),
            State::Complex(v) => v[index],
        }
    }
}

/// The lowest states of one sector.
#[derive(Clone, Debug)]
pub struct Spectrum {
    /// Total energies, ascending.
    pub energies: Vec<f64>,
    /// `|H v - E v|` of each: an eigenvalue lies within this distance.
    pub residuals: Vec<f64>,
    /// Normalised eigenvectors.
    pub states: Vec<State>,
    /// The basis they refer to.
    pub basis: Basis,
    /// Rows of the matrix: fewer than the basis has where a momentum is fixed.
    pub dim: usize,
    /// Applications of the matrix.
    pub steps: usize,
    /// Whether every residual met the tolerance.
    pub converged: bool,
}

/// Whether a sector is invariant under an operator.
pub fn conserves(operator: &Operator, sector: Sector) -> bool {
    match sector {
        Sector::Full => true,
        Sector::Inversion { .. } => operator.commutes_with_inversion(),
        Sector::Magnetisation { .. } => operator.conserves_magnetisation(),
        Sector::Balanced { .. } => {
            operator.commutes_with_inversion() && operator.conserves_magnetisation()
        }
    }
}

/// The lowest states of an operator in one sector.
///
/// # Errors
/// Too many spins, a sector that does not exist or is not conserved, or a momentum
/// that is not.
pub fn solve(operator: &Operator, sector: Sector, options: &Options) -> Result<Spectrum, EdError> {
    let basis = Basis::new(operator.lattice().sites(), sector)?;
    if !conserves(operator, sector) {
        return Err(EdError::NotConserved { sector });
    }
    if let Some(momentum) = options.momentum {
        return momentum::solve(operator, basis, momentum, options);
    }
    if operator.is_real() {
        solve_as::<f64>(operator, basis, options, State::Real)
    } else {
        solve_as::<Complex64>(operator, basis, options, State::Complex)
    }
}

fn solve_as<T: Amplitude>(
    operator: &Operator,
    basis: Basis,
    options: &Options,
    wrap: fn(Vec<T>) -> State,
) -> Result<Spectrum, EdError> {
    let matrix = SectorMatrix::<T>::new(operator, &basis);
    let scale = matrix.largest_coefficient();
    let lanczos = lanczos::Lanczos::new::<T>(options, matrix.dim(), scale);
    let pairs = lanczos.run::<T>(matrix.dim(), &|x, y| matrix.apply(x, y));
    Ok(Spectrum {
        energies: pairs.values,
        residuals: pairs.residuals,
        states: pairs.vectors.into_iter().map(wrap).collect(),
        steps: pairs.steps,
        converged: pairs.converged,
        dim: matrix.dim(),
        basis,
    })
}

/// The lowest states in each of the sectors an operator splits into
/// ([`Basis::sectors_of`]), one sector after the other.
///
/// # Errors
/// Too many spins.
pub fn solve_all(operator: &Operator, options: &Options) -> Result<Vec<Spectrum>, EdError> {
    Basis::sectors_of(operator)
        .into_iter()
        .map(|sector| solve(operator, sector, options))
        .collect()
}
