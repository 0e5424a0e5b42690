//! HiPPO-LegS in the eigenbasis of its normal part (docs/abacus.md Sec. 8).
//!
//! With `A_nk = -sqrt(2n+1) sqrt(2k+1)` below the diagonal, `-(n+1)` on it and
//! `P_n = sqrt(n + 1/2)`, the matrix `A + P P^T` is `-1/2` plus a skew-symmetric
//! one: normal, with unitary eigenvectors V. The initial values are its
//! eigenvalues and `V^H P`, `V^H B` with `B_n = sqrt(2n+1)`.

use faer::{Mat, Side, c64};

/// Eigenvalues (ascending imaginary part) and transformed vectors.
pub(super) struct HippoBasis {
    pub lambda_im: Vec<f64>,
    pub p: Vec<c64>,
    pub b: Vec<c64>,
}

/// The basis for `n` states; `None` if the eigensolver fails.
pub(super) fn basis(n: usize) -> Option<HippoBasis> {
    let root = |k: usize| ((2 * k + 1) as f64).sqrt();
    // Skew part S of A + P P^T + 1/2: S_nk = -r_n r_k / 2 for n > k, + for n < k.
    // -i S is Hermitian with real eigenvalues w, so S has eigenvalues i w.
    let hermitian = Mat::<c64>::from_fn(n, n, |i, k| {
        let s = match i.cmp(&k) {
            std::cmp::Ordering::Greater => -root(i) * root(k) / 2.0,
            std::cmp::Ordering::Less => root(i) * root(k) / 2.0,
            std::cmp::Ordering::Equal => 0.0,
        };
        c64::new(0.0, -s)
    });
    let eigen = hermitian.self_adjoint_eigen(Side::Lower).ok()?;
    let v = eigen.U();
    let transform = |x: &dyn Fn(usize) -> f64| -> Vec<c64> {
        (0..n)
            .map(|m| {
                (0..n)
                    .map(|i| v[(i, m)].conj() * x(i))
                    .fold(c64::new(0.0, 0.0), |a, b| a + b)
            })
            .collect()
    };
    // The phase of an eigenvector is free: make B real and positive.
    let (mut p, mut b) = (transform(&|i| (i as f64 + 0.5).sqrt()), transform(&root));
    for m in 0..n {
        let size = b[m].norm();
        if size > 0.0 {
            let phase = b[m].conj() / size;
            p[m] *= phase;
            b[m] *= phase;
        }
    }
    let lambda_im = (0..n).map(|m| eigen.S()[m].re).collect();
    Some(HippoBasis { lambda_im, p, b })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V diag(lambda) V^H - P P^T gives back HiPPO: checked through its
    /// invariants tr A^k computed from the DPLR form and from A itself.
    #[test]
    fn traces_agree_with_the_matrix() {
        let n = 7;
        let h = basis(n).expect("small matrices converge");
        let lambda: Vec<c64> = h.lambda_im.iter().map(|w| c64::new(-0.5, *w)).collect();
        let dplr = Mat::<c64>::from_fn(n, n, |i, k| {
            let d = if i == k {
                lambda[i]
            } else {
                c64::new(0.0, 0.0)
            };
            d - h.p[i] * h.p[k].conj()
        });
        let direct = Mat::<c64>::from_fn(n, n, |i, k| {
            let r = |k: usize| ((2 * k + 1) as f64).sqrt();
            let x = match i.cmp(&k) {
                std::cmp::Ordering::Greater => -r(i) * r(k),
                std::cmp::Ordering::Equal => -(i as f64 + 1.0),
                std::cmp::Ordering::Less => 0.0,
            };
            c64::new(x, 0.0)
        });
        let trace = |m: &Mat<c64>| (0..n).fold(c64::new(0.0, 0.0), |a, i| a + m[(i, i)]);
        let (mut x, mut y) = (dplr.clone(), direct.clone());
        for power in 1..=4 {
            let (a, b) = (trace(&x), trace(&y));
            assert!((a - b).norm() < 1e-9 * b.norm(), "power {power}: {a} {b}");
            x = &x * &dplr;
            y = &y * &direct;
        }
        // The input vector: B^H A B is basis-independent.
        let quad = |m: &Mat<c64>, b: &[c64]| {
            (0..n)
                .flat_map(|i| (0..n).map(move |k| (i, k)))
                .fold(c64::new(0.0, 0.0), |s, (i, k)| {
                    s + b[i].conj() * m[(i, k)] * b[k]
                })
        };
        let b: Vec<c64> = (0..n)
            .map(|k| c64::new(((2 * k + 1) as f64).sqrt(), 0.0))
            .collect();
        assert!((quad(&dplr, &h.b) - quad(&direct, &b)).norm() < 1e-9 * quad(&direct, &b).norm());
    }
}
