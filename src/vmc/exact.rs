//! Exact solutions to compare with.
//!
//! The transverse-field Ising chain `H = -J sum Z_i Z_{i+1} - h sum X_i` is a
//! chain of free fermions. With `M` holding h on its diagonal and J above it
//! (and, on a ring, the corner `M[N-1, 0] = (-1)^(N+1) J` of the even sector), the
//! singular values of `M = U S V^T` are half the single-particle energies and
//! `G = U V^T` is the only non-trivial contraction:
//!
//! ```text
//! E0 = -sum S      <X_i> = G_ii      <Z_i Z_j> = det G[i..j-1, i+1..j]
//! ```
//!
//! Energies are totals, in Pauli matrices.

use crate::ir::Boundary;
use crate::vmc::operator::Operator;
use faer::Mat;
use std::f64::consts::PI;

/// A transverse-field Ising chain plus a constant, whatever it was called.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tfim {
    /// Number of spins.
    pub sites: usize,
    /// Ring or open chain.
    pub boundary: Boundary,
    /// Coupling J of `-J Z_i Z_{i+1}`.
    pub j: f64,
    /// Field h of `-h X_i`.
    pub h: f64,
    /// Coefficient of the identity.
    pub constant: f64,
}

impl Tfim {
    /// Recognises a transverse-field Ising chain by its strings: one uniform
    /// coupling of neighbours, one uniform field, nothing else.
    pub fn recognise(operator: &Operator) -> Option<Tfim> {
        let lattice = operator.lattice();
        let [sites, 1] = lattice.extent else {
            return None;
        };
        let ring = lattice.boundary == Boundary::Periodic;
        let pairs = operator.pairs()?;
        if sites < if ring { 3 } else { 2 }
            || operator.diagonal_strings().len() > 0
            || pairs.displacement_count() != 1
            || pairs.between(0, 1) == 0.0
        {
            return None;
        }
        let fields = operator.cluster_count();
        if fields != 0 && fields != sites {
            return None;
        }
        let mut h = None;
        for k in 0..fields {
            let mut strings = operator.cluster_strings(k);
            let (c, []) = strings.next()? else {
                return None;
            };
            let uniform = c.im == 0.0 && *h.get_or_insert(-c.re) == -c.re;
            if operator.flips(k).len() != 1 || !uniform || strings.next().is_some() {
                return None;
            }
        }
        Some(Tfim {
            sites,
            boundary: lattice.boundary,
            j: -pairs.between(0, 1),
            h: h.unwrap_or(0.0),
            constant: operator.constant(),
        })
    }

    /// The total ground-state energy; `None` for frustrated rings.
    pub fn energy(&self) -> Option<f64> {
        let free = match self.boundary {
            Boundary::Open => tfim_open_energy(self.sites, self.j, self.h)?,
            Boundary::Periodic => f64::min(
                tfim_ring_energy(self.sites, self.j, self.h, false)?,
                tfim_ring_energy(self.sites, self.j, self.h, true)?,
            ),
        };
        Some(free + self.constant)
    }
}

/// The ground-state energy of the transverse-field Ising chain of n spins.
/// `None` for a frustrated ring (odd n, antiferromagnetic J) and for n < 2,
/// (n < 3 on a ring, where the two bonds between two spins would be ambiguous).
pub fn tfim_energy(n: usize, boundary: Boundary, j: f64, h: f64) -> Option<f64> {
    match boundary {
        Boundary::Periodic => tfim_ring_energy(n, j, h, false),
        Boundary::Open => tfim_open_energy(n, j, h),
    }
}

/// The lowest energy of the ring in the sector `prod X = +1` (or -1 for
/// `odd`) in closed form,
///
/// ```text
/// E_even = -sum_k e_k,               k = 2 pi (m + 1/2) / N
/// E_odd  = -sum_{k != 0} e_k + |h| - |J|,   k = 2 pi m / N
/// e_k = sqrt(J^2 + h^2 - 2 |J h| cos k)
/// ```
///
/// for h > 0 (a negative h exchanges the sectors of odd n). `None` as in
/// [`tfim_energy`].
pub fn tfim_ring_energy(n: usize, j: f64, h: f64, odd: bool) -> Option<f64> {
    // turning every second spin about X changes the sign of J, if n is even
    if n < 3 || (j < 0.0 && n % 2 == 1) || !(j.is_finite() && h.is_finite()) {
        return None;
    }
    // prod Z turns h into -h and prod X into (-1)^n prod X
    let odd = odd ^ (h < 0.0 && n % 2 == 1);
    let (j, h) = (j.abs(), h.abs());
    let shift = if odd { 0.0 } else { 0.5 };
    let mode = |m: usize| {
        // (J - h)^2 + 4 J h sin^2(k/2): no cancellation at criticality
        let sine = (PI * (m as f64 + shift) / n as f64).sin();
        ((j - h).powi(2) + 4.0 * j * h * sine * sine).sqrt()
    };
    let energy: f64 = (usize::from(odd)..n).map(mode).sum();
    Some(if odd { h - j - energy } else { -energy })
}

/// Energies of the open chain: singular values of a bidiagonal matrix.
fn tfim_open_energy(n: usize, j: f64, h: f64) -> Option<f64> {
    TfimChain::new(n, Boundary::Open, j, h).map(|chain| chain.energy)
}

/// The ground state of a transverse-field Ising chain, with correlations;
/// on a ring the lowest state of the even sector. Costs `O(n^3)` once.
#[derive(Clone, Debug)]
pub struct TfimChain {
    /// Total energy.
    pub energy: f64,
    contraction: Mat<f64>,
}

impl TfimChain {
    /// Solves the chain; rings of even n, or of odd n with J, h >= 0. `None`
    /// where [`tfim_energy`] has none either.
    pub fn new(n: usize, boundary: Boundary, j: f64, h: f64) -> Option<TfimChain> {
        let ring = boundary == Boundary::Periodic;
        let odd_ring = ring && n % 2 == 1;
        if n < if ring { 3 } else { 2 }
            || odd_ring && (j < 0.0 || h < 0.0)
            || !(j.is_finite() && h.is_finite())
        {
            return None;
        }
        let mut m = Mat::<f64>::zeros(n, n);
        for i in 0..n {
            m[(i, i)] = h;
            if i + 1 < n {
                m[(i, i + 1)] = j;
            } else if ring {
                // antiperiodic fermions; the alternating gauge that makes
                // the other J positive leaves a sign on odd rings
                m[(i, 0)] = if odd_ring { j } else { -j };
            }
        }
        let svd = m.svd().ok()?;
        let energy = -svd.S().column_vector().iter().sum::<f64>();
        Some(TfimChain {
            energy,
            contraction: svd.U() * svd.V().transpose(),
        })
    }

    /// Number of spins.
    pub fn sites(&self) -> usize {
        self.contraction.nrows()
    }

    /// `<X_i>`; `None` beyond the chain.
    pub fn transverse(&self, i: usize) -> Option<f64> {
        (i < self.sites()).then(|| self.contraction[(i, i)])
    }

    /// `<Z_i Z_j>`; `None` beyond the chain.
    pub fn correlation(&self, i: usize, j: usize) -> Option<f64> {
        let (i, j) = (i.min(j), i.max(j));
        if j >= self.sites() {
            return None;
        }
        if i == j {
            return Some(1.0);
        }
        let block = self.contraction.as_ref().submatrix(i, i + 1, j - i, j - i);
        Some(determinant(block.to_owned()))
    }
}

/// Gaussian elimination with partial pivoting.
fn determinant(mut matrix: Mat<f64>) -> f64 {
    let n = matrix.nrows();
    let mut determinant = 1.0;
    for k in 0..n {
        let pivot = (k..n)
            .max_by(|&a, &b| matrix[(a, k)].abs().total_cmp(&matrix[(b, k)].abs()))
            .unwrap_or(k);
        if matrix[(pivot, k)] == 0.0 {
            return 0.0;
        }
        if pivot != k {
            determinant = -determinant;
            for c in k..n {
                let swapped = matrix[(pivot, c)];
                matrix[(pivot, c)] = matrix[(k, c)];
                matrix[(k, c)] = swapped;
            }
        }
        determinant *= matrix[(k, k)];
        for c in k + 1..n {
            let ratio = matrix[(k, c)] / matrix[(k, k)];
            for r in k + 1..n {
                let below = matrix[(r, k)];
                matrix[(r, c)] -= ratio * below;
            }
        }
    }
    determinant
}
