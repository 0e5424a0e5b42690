//! The operators of the standard library against dense matrices built from
//! Kronecker products, and the golden local energies.

mod support;

use dnet::check::core::Static;
use dnet::check::operator::Pauli::{self, X, Y, Z};
use dnet::ir::{Boundary, Lattice};
use dnet::vmc::operator::Operator;
use num_complex::Complex64;
use support::{chain, operator, operator_with};

/// A sum of (coefficient, factors), entered by hand.
type Terms = Vec<(f64, Vec<(usize, Pauli)>)>;

/// `<row|terms|column>` as products of 2 x 2 matrices, site by site; bit j of
/// a row set: spin j is down.
fn kronecker(terms: &Terms, n: usize, row: usize, column: usize) -> Complex64 {
    let i = Complex64::new(0.0, 1.0);
    let (one, zero) = (Complex64::new(1.0, 0.0), Complex64::new(0.0, 0.0));
    terms
        .iter()
        .map(|(coefficient, factors)| {
            let mut element = one * coefficient;
            for site in 0..n {
                let matrix = match factors.iter().find(|f| f.0 == site).map(|f| f.1) {
                    None => [[one, zero], [zero, one]],
                    Some(X) => [[zero, one], [one, zero]],
                    Some(Y) => [[zero, -i], [i, zero]],
                    Some(Z) => [[one, zero], [zero, -one]],
                };
                element *= matrix[row >> site & 1][column >> site & 1];
                if element == zero {
                    break;
                }
            }
            element
        })
        .sum()
}

fn assert_equal(operator: &Operator, terms: &Terms, what: &str) {
    let n = operator.lattice().sites();
    for row in 0..1usize << n {
        let spins: Vec<i8> = (0..n)
            .map(|j| if row >> j & 1 == 0 { 1 } else { -1 })
            .collect();
        let mut entries = vec![Complex64::new(0.0, 0.0); 1 << n];
        entries[row].re = operator.diagonal(&spins);
        operator.connected(&spins, &mut |flips, element| {
            entries[flips.iter().fold(row, |bits, f| bits ^ 1 << f)] += element;
        });
        for (column, entry) in entries.iter().enumerate() {
            let expected = kronecker(terms, n, row, column);
            assert!(
                (entry - expected).norm() < 1e-12,
                "{what}: <{row:b}|H|{column:b}> = {entry}, not {expected}"
            );
        }
    }
}

const BOTH: [Boundary; 2] = [Boundary::Periodic, Boundary::Open];

/// Pairs (i, i + r) of a chain.
fn bonds(n: usize, r: usize, boundary: Boundary) -> Vec<(usize, usize)> {
    (0..n)
        .filter(|i| boundary == Boundary::Periodic || i + r < n)
        .map(|i| (i, (i + r) % n))
        .collect()
}

fn exchange(terms: &mut Terms, (i, j): (usize, usize), coefficient: f64, signs: [f64; 3]) {
    for (pauli, sign) in [X, Y, Z].into_iter().zip(signs) {
        terms.push((coefficient * sign / 4.0, vec![(i, pauli), (j, pauli)]));
    }
}

#[test]
fn ising_chains() {
    let n = 6;
    for boundary in BOTH {
        let h = operator_with(
            "tfim",
            chain(n, boundary),
            &[("J", Static::Real(0.7)), ("h", Static::Real(1.3))],
        );
        let mut terms: Terms = bonds(n, 1, boundary)
            .into_iter()
            .map(|(i, j)| (-0.7, vec![(i, Z), (j, Z)]))
            .collect();
        terms.extend((0..n).map(|i| (-1.3, vec![(i, X)])));
        assert_equal(&h, &terms, "tfim");

        let d = |i: usize, j: usize| {
            let r = i.abs_diff(j);
            (if boundary == Boundary::Periodic {
                r.min(n - r)
            } else {
                r
            }) as f64
        };
        let kac = 1.0 + (1..n).map(|r| d(0, r).powf(-1.5)).sum::<f64>();
        let couplings = [("J", Static::Real(-2.0)), ("alpha", Static::Real(1.5))];
        let h = operator_with("long_range_tfim", chain(n, boundary), &couplings);
        let mut terms: Terms = (0..n).map(|i| (-1.0, vec![(i, X)])).collect();
        for j in 0..n {
            terms.extend((0..j).map(|i| (-2.0 / kac * d(i, j).powf(-1.5), vec![(i, Z), (j, Z)])));
        }
        assert_equal(&h, &terms, "long_range_tfim");
        assert!(h.pairs().is_some() && h.cluster_count() == n);

        let rydberg = [
            ("omega", Static::Real(2.0)),
            ("delta", Static::Real(0.3)),
            ("V", Static::Int(5)),
        ];
        let h = operator_with("rydberg", chain(n, boundary), &rydberg);
        let mut terms: Terms = Vec::new();
        for i in 0..n {
            terms.extend([(1.0, vec![(i, X)]), (-0.15, vec![]), (0.15, vec![(i, Z)])]);
        }
        for j in 0..n {
            for i in 0..j {
                let v = 1.25 * d(i, j).powi(-6);
                terms.extend([
                    (v, vec![]),
                    (-v, vec![(i, Z)]),
                    (-v, vec![(j, Z)]),
                    (v, vec![(i, Z), (j, Z)]),
                ]);
            }
        }
        assert_equal(&h, &terms, "rydberg");
        assert!((h.infinite_temperature_energy() - kronecker_trace(&terms, n)).abs() < 1e-12);
    }
}

fn kronecker_trace(terms: &Terms, n: usize) -> f64 {
    (0..1 << n)
        .map(|k| kronecker(terms, n, k, k).re)
        .sum::<f64>()
        / f64::from(1 << n)
}

#[test]
fn exchange_chains() {
    let plain = [1.0; 3];
    for boundary in BOTH {
        for n in [5, 6] {
            let mut terms = Vec::new();
            bonds(n, 1, boundary)
                .into_iter()
                .for_each(|b| exchange(&mut terms, b, 0.9, [1.0, 1.0, 1.6]));
            let couplings = [("J", Static::Real(0.9)), ("delta", Static::Real(1.6))];
            assert_equal(
                &operator_with("xxz", chain(n, boundary), &couplings),
                &terms,
                "xxz",
            );

            let mut terms = Vec::new();
            bonds(n, 1, boundary)
                .into_iter()
                .for_each(|b| exchange(&mut terms, b, 1.0, plain));
            assert_equal(
                &operator("heisenberg", chain(n, boundary)),
                &terms,
                "heisenberg",
            );
            bonds(n, 2, boundary)
                .into_iter()
                .for_each(|b| exchange(&mut terms, b, 0.4, plain));
            let j2 = [("J2", Static::Real(0.4))];
            assert_equal(
                &operator_with("j1j2", chain(n, boundary), &j2),
                &terms,
                "j1j2",
            );

            // rotating every second site about Z changes the sign of its X and Y
            for (_, factors) in terms.iter_mut() {
                factors.sort_by_key(|f| f.0);
            }
            for (coefficient, factors) in terms.iter_mut() {
                let turned = factors.iter().filter(|f| f.0 % 2 == 1 && f.1 != Z).count();
                *coefficient *= if turned % 2 == 1 { -1.0 } else { 1.0 };
            }
            assert_equal(
                &operator_with("j1j2_marshall", chain(n, boundary), &j2),
                &terms,
                "j1j2_marshall",
            );
        }
    }
}

#[test]
fn cluster_chains() {
    let n = 6;
    for boundary in BOTH {
        let ring = boundary == Boundary::Periodic;
        let mut terms: Terms = (0..n)
            .filter(|&i| ring || i > 0 && i + 1 < n)
            .map(|i| (-1.0, vec![((i + n - 1) % n, Z), (i, X), ((i + 1) % n, Z)]))
            .collect();
        if !ring {
            terms.extend([
                (-1.0, vec![(0, X), (1, Z)]),
                (-1.0, vec![(n - 2, Z), (n - 1, X)]),
            ]);
        }
        assert_equal(&operator("cluster", chain(n, boundary)), &terms, "cluster");
    }
    let mut terms: Terms = vec![
        (-1.0, vec![(0, Z), (1, X)]),
        (-1.0, vec![(n - 3, X), (n - 2, Z), (n - 1, Z)]),
        (-1.0, vec![(n - 2, X), (n - 1, X)]),
    ];
    terms.extend((1..n - 2).map(|i| (-1.0, vec![(i - 1, X), (i, Z), (i + 1, X)])));
    let h = operator("cluster_rotated", chain(n, Boundary::Open));
    assert_equal(&h, &terms, "cluster_rotated");
    let shapes = h.cluster_shapes();
    assert!(shapes.iter().all(|s| s.extent[0] <= 3), "{shapes:?}");
    assert_eq!(
        shapes.iter().map(|s| s.count).sum::<usize>(),
        h.cluster_count()
    );
}

#[test]
fn square_lattices() {
    for boundary in BOTH {
        let extent = [3, 3];
        let lattice = Lattice { extent, boundary };
        let pairs = |steps: [[i64; 2]; 2]| {
            let mut pairs = Vec::new();
            for x in 0..3i64 {
                for y in 0..3i64 {
                    for [dx, dy] in steps {
                        let (tx, ty) = (x + dx, y + dy);
                        if boundary == Boundary::Periodic
                            || (0..3).contains(&tx) && (0..3).contains(&ty)
                        {
                            pairs.push((
                                (x * 3 + y) as usize,
                                (tx.rem_euclid(3) * 3 + ty.rem_euclid(3)) as usize,
                            ));
                        }
                    }
                }
            }
            pairs
        };
        let (near, diagonal) = (pairs([[1, 0], [0, 1]]), pairs([[1, 1], [1, -1]]));
        let mut terms: Terms = near
            .iter()
            .map(|&(i, j)| (-1.0, vec![(i, Z), (j, Z)]))
            .collect();
        terms.extend((0..9).map(|i| (-3.0, vec![(i, X)])));
        assert_equal(
            &operator_with("square_tfim", lattice, &[("h", Static::Int(3))]),
            &terms,
            "square_tfim",
        );
        let mut terms = Vec::new();
        near.iter()
            .for_each(|&b| exchange(&mut terms, b, 1.0, [1.0; 3]));
        assert_equal(
            &operator("square_heisenberg", lattice),
            &terms,
            "square_heisenberg",
        );
        diagonal
            .iter()
            .for_each(|&b| exchange(&mut terms, b, 0.5, [1.0; 3]));
        assert_equal(&operator("square_j1j2", lattice), &terms, "square_j1j2");
        let sign = |i: usize| {
            if (i / 3 + i % 3).is_multiple_of(2) {
                1.0
            } else {
                -1.0
            }
        };
        let terms = (0..9).map(|i| (sign(i) / 9.0, vec![(i, Z)])).collect();
        assert_equal(
            &operator("square_staggered_magnetisation", lattice),
            &terms,
            "staggered",
        );
        let terms = (0..9).map(|i| (1.0 / 9.0, vec![(i, Z)])).collect();
        assert_equal(
            &operator("square_magnetisation", lattice),
            &terms,
            "magnetisation",
        );
    }
}

#[test]
fn magnetisations() {
    let lattice = chain(5, Boundary::Open);
    let along = |pauli, sign: f64| {
        (0..5)
            .map(|i| (0.2 * sign.powi(i as i32), vec![(i, pauli)]))
            .collect::<Terms>()
    };
    assert_equal(
        &operator("magnetisation", lattice),
        &along(Z, 1.0),
        "magnetisation",
    );
    assert_equal(
        &operator("staggered_magnetisation", lattice),
        &along(Z, -1.0),
        "staggered",
    );
    assert_equal(
        &operator("transverse_magnetisation", lattice),
        &along(X, 1.0),
        "transverse",
    );
}

/// Diagonal energies, and number and size of the flips, of the golden files;
/// the amplitudes come from elsewhere.
#[test]
fn golden_diagonal_energies() {
    let golden = support::golden("dysonnet/local_energies.json");
    let real = |value: &serde_json::Value| value.as_f64().unwrap();
    let mut compared = 0;
    for case in golden.as_array().unwrap() {
        let configurations = case["spins"].as_array().unwrap();
        for (k, spins) in configurations.iter().enumerate() {
            let spins: Vec<i8> = spins
                .as_array()
                .unwrap()
                .iter()
                .map(|s| s.as_i64().unwrap() as i8)
                .collect();
            let lattice = chain(spins.len(), Boundary::Periodic);
            if case["model"] == "tfim" {
                let couplings =
                    ["J", "alpha", "h"].map(|name| (name, Static::Real(real(&case[name]))));
                let h = operator_with("long_range_tfim", lattice, &couplings);
                assert!((h.diagonal(&spins) - real(&case["E_zz_total"][k])).abs() < 1e-11);
                h.connected(&spins, &mut |flips, element| {
                    assert_eq!((flips.len(), element), (1, (-1.0).into()))
                });
                compared += 1;
            } else {
                // Pauli units: four times S.S
                let couplings =
                    ["J1", "J2"].map(|name| (name, Static::Real(4.0 * real(&case[name]))));
                let h = operator_with("j1j2_marshall", lattice, &couplings);
                h.connected(&spins, &mut |flips, element| {
                    let near = flips[1] - flips[0] == 1 || flips[1] - flips[0] == spins.len() - 1;
                    let expected = if near {
                        -2.0 * real(&case["J1"])
                    } else {
                        2.0 * real(&case["J2"])
                    };
                    assert_eq!(element, expected.into());
                    assert_ne!(spins[flips[0]], spins[flips[1]]);
                });
            }
        }
    }
    assert_eq!(compared, 16);
}

/// Building and evaluating stay linear in memory: a list of all pairs at this
/// size would take hundreds of gigabytes.
#[test]
fn long_range_ising_chain_of_a_hundred_thousand_spins() {
    let n = 100_000;
    for boundary in BOTH {
        let h = operator("long_range_tfim", chain(n, boundary));
        let up = vec![1; n];
        let neel: Vec<i8> = (0..n).map(|i| if i % 2 == 0 { 1 } else { -1 }).collect();
        assert!(h.diagonal(&up) < h.diagonal(&neel));
        assert_eq!(h.cluster_count(), n);
        if boundary == Boundary::Periodic {
            // K = 1 + 2 N-independent sums: J/K sum_{i<j} d^-3 = -(K - 1) N / 2K
            let kac = 1.0 + (1..n).map(|r| (r.min(n - r) as f64).powi(-3)).sum::<f64>();
            let expected = -(kac - 1.0) * n as f64 / (2.0 * kac);
            assert!((h.diagonal(&up) / expected - 1.0).abs() < 1e-11);
        }
    }
}
