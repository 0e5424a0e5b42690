//! Centred gradients that a back end holds where it computes them.

/// The system of linear equations of stochastic reconfiguration.
#[derive(Clone, Debug, PartialEq)]
pub enum System {
    /// `Obar^T Obar + D`: parameters by parameters, `D = absolute + relative S_kk` on
    /// the diagonal, which becomes 1 where it would be 0.
    Parameters {
        /// The same for all parameters.
        absolute: f64,
        /// In units of the diagonal itself.
        relative: f64,
    },
    /// `Obar diag(scale) Obar^T + shift`: rows by rows.
    Rows {
        /// One factor per parameter; `None` for ones.
        scale: Option<Vec<f64>>,
        /// Added to the diagonal.
        shift: f64,
    },
}

/// The matrix `Obar` of centred, weighted gradients (see [`crate::vmc::optim`]) on a
/// device: row `p * n + s` belongs to sample s of n and part p (0 real, 1
/// imaginary), columns are parameters. What a failing device returns is NaN.
pub trait CentredRows: Send + Sync {
    /// Weighted mean gradients: real part, then imaginary part.
    fn mean(&self) -> &[f64];
    /// `Obar x`.
    fn apply(&self, x: &[f64]) -> Vec<f64>;
    /// `Obar^T y`.
    fn adjoint(&self, y: &[f64]) -> Vec<f64>;
    /// The diagonal of `Obar^T Obar`.
    fn column_squares(&self) -> Vec<f64>;
    /// The system's matrix, row by row, lower triangle; what is above is undefined.
    fn matrix(&self, system: &System) -> Vec<f64>;
    /// The solution by Cholesky; `None` where the matrix is not positive definite.
    fn solve(&self, system: &System, rhs: &[f64]) -> Option<Vec<f64>>;
}
