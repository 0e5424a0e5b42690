//! Positive-definite solves that do not give up.

use faer::linalg::solvers::Solve;
use faer::{Mat, MatRef, Side};

/// Eigenvalues below this fraction of the largest are dropped in the fallback.
const CUTOFF: f64 = 1e-12;

/// A solution and how it was found.
#[derive(Clone, Debug)]
pub struct Solution {
    /// The solution vector.
    pub x: Vec<f64>,
    /// Set where Cholesky failed and the eigendecomposition was used.
    pub message: Option<String>,
}

/// Solves `matrix x = rhs` for a symmetric positive matrix (lower triangle
/// read): by Cholesky, and where that fails or gives something not finite, by
/// the pseudo-inverse with eigenvalues below 1e-12 of the largest dropped.
/// `None` where neither works (an entry is not finite, or all eigenvalues are
/// zero or negative).
pub fn solve_positive(matrix: MatRef<'_, f64>, rhs: &[f64]) -> Option<Solution> {
    let n = rhs.len();
    let b = Mat::from_fn(n, 1, |i, _| rhs[i]);
    if let Ok(factor) = matrix.llt(Side::Lower) {
        let x = factor.solve(&b);
        let x: Vec<f64> = (0..n).map(|i| x[(i, 0)]).collect();
        if x.iter().all(|v| v.is_finite()) {
            return Some(Solution { x, message: None });
        }
    }
    // The eigensolver is not asked about entries it cannot handle.
    let finite = (0..n).all(|j| (j..n).all(|i| matrix[(i, j)].is_finite()));
    if !finite || rhs.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let eigen = matrix.self_adjoint_eigen(Side::Lower).ok()?;
    let values = eigen.S().column_vector();
    let largest = (0..n).map(|k| values[k]).fold(0.0, f64::max);
    if largest <= 0.0 {
        return None;
    }
    let vectors = eigen.U();
    let (mut x, mut kept) = (vec![0.0; n], 0);
    for k in (0..n).filter(|&k| values[k] > CUTOFF * largest) {
        kept += 1;
        let amplitude = (0..n).map(|i| vectors[(i, k)] * rhs[i]).sum::<f64>() / values[k];
        for (i, x) in x.iter_mut().enumerate() {
            *x += amplitude * vectors[(i, k)];
        }
    }
    let message = format!(
        "Cholesky failed; used the {kept} of {n} eigenvalues above {CUTOFF:.0e} of the largest \
         (a larger diagonal shift avoids this)"
    );
    Some(Solution {
        x,
        message: Some(message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definite_singular_and_broken_matrices() {
        let a = Mat::from_fn(3, 3, |i, j| if i == j { 4.0 } else { 1.0 });
        let s = solve_positive(a.as_ref(), &[6.0, 6.0, 6.0]).unwrap();
        assert!(s.message.is_none() && s.x.iter().all(|x| (x - 1.0).abs() < 1e-14));
        // Rank one, right-hand side in its range: the least-norm solution.
        let a = Mat::from_fn(3, 3, |i, j| ((i + 1) * (j + 1)) as f64);
        let singular = Mat::from_fn(3, 3, |i, j| {
            a[(i, j)] - if i == 2 && j == 2 { 1e-13 } else { 0.0 }
        });
        let s = solve_positive(singular.as_ref(), &[14.0, 28.0, 42.0]).unwrap();
        assert!(s.message.is_some());
        for (k, x) in s.x.iter().enumerate() {
            assert!((x - (k + 1) as f64).abs() < 1e-9, "{:?}", s.x);
        }
        let broken = Mat::from_fn(2, 2, |_, _| f64::NAN);
        assert!(solve_positive(broken.as_ref(), &[1.0, 1.0]).is_none());
        assert!(solve_positive(Mat::zeros(2, 2).as_ref(), &[1.0, 1.0]).is_none());
    }
}
