//! Exact energies to compare with, where they are known.

use crate::ir::Boundary;
use crate::vmc::ed::{self, Basis, Sector};
use crate::vmc::exact::{TfimChain, tfim_energy};
use crate::vmc::operator::Operator;

/// Largest sector that is diagonalised without being asked.
const MAX_DIMENSION: usize = 1 << 18;

/// An exact ground-state energy.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Exact {
    /// Total energy.
    pub energy: f64,
    /// How it is known.
    pub method: &'static str,
}

/// `(J, h)` of an operator that is the transverse-field Ising chain
/// `-J sum Z_i Z_{i+1} - h sum X_i`, decided from its compiled terms.
pub fn tfim_couplings(operator: &Operator) -> Option<(f64, f64)> {
    let lattice = operator.lattice();
    let n = lattice.sites();
    let pairs = operator.pairs()?;
    let bonds = n - usize::from(lattice.boundary == Boundary::Open);
    let chain = lattice.extent[1] == 1
        && n >= 3
        && operator.constant() == 0.0
        && operator.diagonal_strings().len() == 0
        && pairs.displacement_count() == 1
        && pairs.pair_count() == bonds
        && operator.cluster_count() == n;
    let j = -pairs.between(0, 1);
    if !chain || j == 0.0 {
        return None;
    }
    let mut field = None;
    let mut seen = vec![false; n];
    for k in 0..n {
        let [site] = *operator.flips(k) else {
            return None;
        };
        let strings: Vec<_> = operator.cluster_strings(k).collect();
        let [(coefficient, signs)] = strings[..] else {
            return None;
        };
        let same = *field.get_or_insert(coefficient.re) == coefficient.re;
        if !same || coefficient.im != 0.0 || !signs.is_empty() || seen[site] {
            return None;
        }
        seen[site] = true;
    }
    Some((j, -field?))
}

/// The exact ground-state energy: free fermions for the transverse-field
/// Ising chain, diagonalisation where the sectors that hold the ground state
/// (at this magnetisation, if one is fixed) are small.
pub fn exact_energy(operator: &Operator, magnetization: Option<i64>) -> Option<Exact> {
    let lattice = operator.lattice();
    let n = lattice.sites();
    if let (Some((j, h)), None) = (tfim_couplings(operator), magnetization)
        && let Some(energy) = tfim_energy(n, lattice.boundary, j, h)
    {
        let method = "free fermions";
        return Some(Exact { energy, method });
    }
    if n > ed::MAX_SITES {
        return None;
    }
    let sectors = match magnetization {
        Some(m) => {
            let down = usize::try_from((n as i64 - m) / 2).ok()?;
            vec![Sector::Magnetisation { down }]
        }
        None => Basis::sectors_of(operator),
    };
    let largest = sectors
        .iter()
        .filter_map(|s| Basis::new(n, *s).ok())
        .map(|b| b.dim())
        .max()?;
    if largest > MAX_DIMENSION {
        return None;
    }
    let options = ed::Options {
        levels: 1,
        ..ed::Options::default()
    };
    let mut energy = f64::INFINITY;
    for sector in sectors {
        let spectrum = ed::solve(operator, sector, &options).ok()?;
        if !spectrum.converged {
            return None;
        }
        energy = spectrum.energies.first().copied()?.min(energy);
    }
    let method = "exact diagonalisation";
    energy.is_finite().then_some(Exact { energy, method })
}

/// Exact `<Z_0 Z_r>`, r = 0..=N/2, of a transverse-field Ising ring.
pub fn exact_correlations(operator: &Operator) -> Option<Vec<f64>> {
    let lattice = operator.lattice();
    if lattice.boundary != Boundary::Periodic {
        return None;
    }
    let (j, h) = tfim_couplings(operator)?;
    // turning all spins about Z changes the sign of h and no correlation
    let chain = TfimChain::new(lattice.sites(), lattice.boundary, j, h.abs())?;
    (0..=lattice.sites() / 2)
        .map(|r| chain.correlation(0, r))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Program;
    use crate::ir::Lattice;
    use crate::vmc::operator::compile;

    fn operator(text: &str, n: usize, boundary: Boundary) -> Operator {
        let program = Program::parse("h.dnet", text);
        let info = program.operator("h", &Default::default()).unwrap();
        compile(&info, Lattice::chain(n, boundary)).unwrap()
    }

    #[test]
    fn the_ising_chain_is_recognised_from_its_terms() {
        let tfim = "operator h() on chain { for i: -0.5 * X(i)  for i: 1.5 * Z(i + 1) * Z(i) }";
        for boundary in [Boundary::Periodic, Boundary::Open] {
            let h = operator(tfim, 8, boundary);
            assert_eq!(tfim_couplings(&h), Some((-1.5, 0.5)));
            let exact = exact_energy(&h, None).unwrap();
            assert_eq!(exact.method, "free fermions");
            let ed = ed::solve(&h, Sector::Full, &ed::Options::default()).unwrap();
            assert!((exact.energy - ed.energies[0]).abs() < 1e-8);
        }
        for other in [
            "operator h() on chain { for i: -X(i)  for i: -Z(i) * Z(i + 2) }",
            "operator h() on chain { for i: -X(i)  for i: -Z(i) * Z(i + 1)  for i: 0.1 * Z(i) }",
            "operator h() on chain { for i: -(1 + parity(i)) * X(i)  for i: -Z(i) * Z(i + 1) }",
            "operator h() on chain { for i: -X(i) * Z(i + 1)  for i: -Z(i) * Z(i + 1) }",
            "operator h() on chain { for i: -X(i)  for i: -Z(i) * Z(i + 1)  term 1 }",
        ] {
            let h = operator(other, 8, Boundary::Periodic);
            assert_eq!(tfim_couplings(&h), None, "{other}");
            let exact = exact_energy(&h, None).unwrap();
            let ed = ed::solve(&h, Sector::Full, &ed::Options::default()).unwrap();
            assert_eq!(exact.method, "exact diagonalisation");
            assert!((exact.energy - ed.energies[0]).abs() < 1e-8, "{other}");
        }
    }

    #[test]
    fn fixed_magnetisation_looks_in_its_sector() {
        let h = operator(
            "operator h() on chain { for i: X(i) * X(i + 1) + Y(i) * Y(i + 1)  for i: 3 * Z(i) }",
            8,
            Boundary::Periodic,
        );
        let free = exact_energy(&h, None).unwrap().energy;
        let zero = exact_energy(&h, Some(0)).unwrap().energy;
        assert!(free < zero - 1.0);
    }

    #[test]
    fn correlations_start_at_one_and_decay() {
        let h = operator(
            "operator h() on chain { for i: X(i)  for i: -Z(i) * Z(i + 1) }",
            10,
            Boundary::Periodic,
        );
        let c = exact_correlations(&h).unwrap();
        assert_eq!((c.len(), c[0]), (6, 1.0));
        assert!(c.windows(2).all(|w| w[1] < w[0]) && c[5] > 0.0);
    }
}
