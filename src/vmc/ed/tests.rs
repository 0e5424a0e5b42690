//! Sectors against dense diagonalisation.

use super::*;
use crate::check::operator::Pauli::{self, X, Y, Z};
use crate::ir::{Boundary, Lattice};
use crate::vmc::operator::OperatorBuilder;
use faer::{Mat, Side};

fn build(n: usize, terms: &[(f64, &[(usize, Pauli)])]) -> Operator {
    let mut builder = OperatorBuilder::new(Lattice::chain(n, Boundary::Periodic));
    for &(c, factors) in terms {
        for i in 0..n {
            let moved: Vec<_> = factors.iter().map(|&(d, p)| ((i + d) % n, p)).collect();
            builder.string(c.into(), &moved).unwrap();
        }
    }
    builder.build().unwrap()
}

/// Every eigenvalue, from the row-wise interface alone.
fn dense_spectrum(operator: &Operator) -> Vec<f64> {
    let n = operator.lattice().sites();
    let mut matrix = Mat::<Complex64>::zeros(1 << n, 1 << n);
    for row in 0..1usize << n {
        let spins: Vec<i8> = (0..n)
            .map(|j| if row >> j & 1 == 0 { 1 } else { -1 })
            .collect();
        matrix[(row, row)] += Complex64::from(operator.diagonal(&spins));
        operator.connected(&spins, &mut |flips, element| {
            matrix[(row, flips.iter().fold(row, |bits, f| bits ^ 1 << f))] += element;
        });
    }
    let eigen = matrix.self_adjoint_eigen(Side::Lower).unwrap();
    (0..1 << n)
        .map(|k| eigen.S().column_vector()[k].re)
        .collect()
}

#[test]
fn the_sectors_together_make_the_spectrum() {
    type Model = &'static [(f64, &'static [(usize, Pauli)])];
    let models: [Model; 5] = [
        &[(-1.0, &[(0, Z), (1, Z)]), (-0.7, &[(0, X)])],
        &[
            (0.5, &[(0, X), (1, X)]),
            (0.5, &[(0, Y), (1, Y)]),
            (0.8, &[(0, Z), (1, Z)]),
        ],
        &[
            (0.5, &[(0, X), (1, X)]),
            (0.5, &[(0, Y), (1, Y)]),
            (0.3, &[(0, Z)]),
        ],
        // complex: a Dzyaloshinskii-Moriya term
        &[
            (1.0, &[(0, X), (1, Y)]),
            (-1.0, &[(0, Y), (1, X)]),
            (0.6, &[(0, Z), (1, Z)]),
        ],
        &[
            (1.0, &[(0, Z), (1, X), (2, Z)]),
            (0.4, &[(0, Z)]),
            (0.2, &[(0, Y)]),
        ],
    ];
    for (model, terms) in models.iter().enumerate() {
        for n in [4, 5, 6] {
            let operator = build(n, terms);
            let expected = dense_spectrum(&operator);
            let mut found = Vec::new();
            for sector in Basis::sectors_of(&operator) {
                let all = Options {
                    levels: 64,
                    ..Options::default()
                };
                let spectrum = solve(&operator, sector, &all).unwrap();
                assert!(spectrum.converged && spectrum.energies.len() == spectrum.basis.dim());
                assert!(
                    spectrum.residuals.iter().all(|&r| r < 1e-7),
                    "{:?}",
                    spectrum.residuals
                );
                let paired = operator.commutes_with_inversion()
                    && matches!(sector, Sector::Magnetisation { down } if 2 * down != n);
                for _ in 0..if paired { 2 } else { 1 } {
                    found.extend_from_slice(&spectrum.energies);
                }
            }
            found.sort_by(f64::total_cmp);
            // the sectors of an odd number of balanced spins come in pairs
            assert_eq!(found.len(), expected.len(), "model {model}, n {n}");
            for (a, b) in found.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-9, "model {model}, n {n}: {a} {b}");
            }
        }
    }
}

#[test]
fn degenerate_levels_are_all_found() {
    // classical Ising ring: two ground states, then domain walls
    let operator = build(8, &[(-1.0, &[(0, Z), (1, Z)])]);
    let options = Options {
        levels: 4,
        ..Options::default()
    };
    let spectrum = solve(&operator, Sector::Full, &options).unwrap();
    for (energy, expected) in spectrum.energies.iter().zip([-8.0, -8.0, -4.0, -4.0]) {
        assert!((energy - expected).abs() < 1e-10);
    }
    // a small Krylov space restarts often and ends at the same place
    let field = build(8, &[(-1.0, &[(0, Z), (1, Z)]), (-1.0, &[(0, X)])]);
    let tight = Options {
        memory: 0,
        ..options
    };
    let a = solve(&field, Sector::Full, &options).unwrap();
    let b = solve(&field, Sector::Full, &tight).unwrap();
    assert!(
        a.energies
            .iter()
            .zip(&b.energies)
            .all(|(a, b)| (a - b).abs() < 1e-10)
    );
    assert!(b.converged && b.steps > a.steps);
}

#[test]
fn observables_in_sectors_equal_those_of_the_full_space() {
    let operator = build(
        6,
        &[
            (-0.9, &[(0, Z), (1, Z)]),
            (0.2, &[(0, Z), (2, Z)]),
            (-0.7, &[(0, X)]),
        ],
    );
    let options = Options {
        levels: 1,
        ..Options::default()
    };
    let full = solve(&operator, Sector::Full, &options).unwrap();
    let even = solve(&operator, Sector::Inversion { odd: false }, &options).unwrap();
    let (a, b) = (full.moments(0, |j| j), even.moments(0, |j| j));
    assert!((a.m2 - b.m2).abs() < 1e-9 && (a.staggered_m4 - b.staggered_m4).abs() < 1e-9);
    let field = build(6, &[(1.0, &[(0, X)])]);
    let derivative = even.expectation(&field, 0).unwrap();
    assert!((derivative - full.expectation(&field, 0).unwrap()).abs() < 1e-8);
    // the moments from the operator side
    let mut square = OperatorBuilder::new(operator.lattice());
    (0..36).for_each(|k| {
        square
            .string((1.0 / 36.0).into(), &[(k / 6, Z), (k % 6, Z)])
            .unwrap()
    });
    assert!((even.expectation(&square.build().unwrap(), 0).unwrap() - b.m2).abs() < 1e-12);
    let odd = build(6, &[(1.0, &[(0, Z)])]);
    assert!(matches!(
        even.expectation(&odd, 0),
        Err(EdError::NotConserved { .. })
    ));
    // a state has fidelity one with itself in either basis, whatever its norm
    for spectrum in [&full, &even] {
        let sign = |bits: u32| full.states[0].amplitude(bits as usize);
        let log_psi: Vec<Complex64> = spectrum
            .basis
            .configurations()
            .iter()
            .map(|&bits| sign(bits).ln() + 3.0)
            .collect();
        assert!((spectrum.fidelity(1, &log_psi).unwrap() - 1.0).abs() < 1e-9);
        assert!(spectrum.fidelity(1, &log_psi[1..]).is_err());
    }
}

#[test]
fn sectors_that_are_not_conserved_are_refused() {
    let operator = build(4, &[(1.0, &[(0, X)]), (1.0, &[(0, Z)])]);
    let options = Options::default();
    for sector in [
        Sector::Inversion { odd: false },
        Sector::Magnetisation { down: 2 },
        Sector::Balanced { odd: true },
    ] {
        assert!(matches!(
            solve(&operator, sector, &options),
            Err(EdError::NotConserved { .. })
        ));
    }
}

#[test]
fn the_momenta_together_make_the_spectrum() {
    type Terms = [(f64, &'static [(usize, Pauli)])];
    let models: [&Terms; 4] = [
        &[(-1.0, &[(0, Z), (1, Z)]), (-0.7, &[(0, X)])],
        &[
            (0.5, &[(0, X), (1, X)]),
            (0.5, &[(0, Y), (1, Y)]),
            (0.8, &[(0, Z), (1, Z)]),
        ],
        &[
            (1.0, &[(0, X), (1, Y)]),
            (-1.0, &[(0, Y), (1, X)]),
            (0.6, &[(0, Z), (1, Z)]),
        ],
        &[(1.0, &[(0, Z), (1, X), (2, Z)]), (0.4, &[(0, Z)])],
    ];
    for (model, terms) in models.iter().enumerate() {
        for n in [5, 6] {
            let operator = build(n, terms);
            assert!(operator.commutes_with_translations());
            let mut found = Vec::new();
            for sector in Basis::sectors_of(&operator) {
                for m in 0..n {
                    let all = Options {
                        levels: 64,
                        momentum: Some([m, 0]),
                        ..Options::default()
                    };
                    let spectrum = solve(&operator, sector, &all).unwrap();
                    assert!(spectrum.converged);
                    let paired = operator.commutes_with_inversion()
                        && matches!(sector, Sector::Magnetisation { down } if 2 * down != n);
                    for (level, &energy) in spectrum.energies.iter().enumerate() {
                        // an eigenstate of the whole matrix, not of the rows kept
                        let whole = spectrum.expectation(&operator, level).unwrap();
                        assert!((whole - energy).abs() < 1e-9, "{whole} {energy}");
                        found.extend(vec![energy; if paired { 2 } else { 1 }]);
                    }
                }
            }
            found.sort_by(f64::total_cmp);
            let expected = dense_spectrum(&operator);
            assert_eq!(found.len(), expected.len(), "model {model}, n {n}");
            for (a, b) in found.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-9, "model {model}, n {n}: {a} {b}");
            }
        }
    }
}

#[test]
fn momenta_on_a_torus_and_where_there_are_none() {
    let lattice = Lattice {
        extent: [2, 3],
        boundary: Boundary::Periodic,
    };
    let mut builder = OperatorBuilder::new(lattice);
    builder.pair_coupling([0, 1], -1.0);
    builder.pair_coupling([1, 0], 0.6);
    (0..6).for_each(|i| builder.string((-0.8).into(), &[(i, X)]).unwrap());
    let torus = builder.build().unwrap();
    let mut found = Vec::new();
    for momentum in [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]] {
        for odd in [false, true] {
            let all = Options {
                levels: 64,
                momentum: Some(momentum),
                ..Options::default()
            };
            let spectrum = solve(&torus, Sector::Inversion { odd }, &all).unwrap();
            found.extend(spectrum.energies);
        }
    }
    found.sort_by(f64::total_cmp);
    let expected = dense_spectrum(&torus);
    assert_eq!(found.len(), expected.len());
    assert!(
        found
            .iter()
            .zip(&expected)
            .all(|(a, b)| (a - b).abs() < 1e-9)
    );
    let one = Options {
        momentum: Some([0, 0]),
        ..Options::default()
    };
    let mut uneven = OperatorBuilder::new(Lattice::chain(4, Boundary::Periodic));
    uneven.string(1.0.into(), &[(0, X)]).unwrap();
    let mut open = OperatorBuilder::new(Lattice::chain(4, Boundary::Open));
    (0..4).for_each(|i| open.string(1.0.into(), &[(i, X)]).unwrap());
    let beyond = Options {
        momentum: Some([6, 0]),
        ..one
    };
    for (operator, options) in [
        (uneven.build().unwrap(), one),
        (open.build().unwrap(), one),
        (build(6, &[(1.0, &[(0, X)])]), beyond),
    ] {
        assert!(matches!(
            solve(&operator, Sector::Full, &options),
            Err(EdError::Momentum { .. })
        ));
    }
}
