//! Exact diagonalisation and free fermions against independent tables.
//!
//! By default sizes up to 12 to 16 spins; with `DNET_ED_FULL` set every entry of the
//! tables that fits is computed (four minutes of processor time).

mod support;

use dnet::check::core::Static;
use dnet::ir::{Boundary, Lattice};
use dnet::vmc::ed::{self, Basis, Options, Sector};
use dnet::vmc::exact::{TfimChain, tfim_energy, tfim_ring_energy};
use dnet::vmc::operator::Operator;
use serde_json::Value;
use support::{chain, golden, operator_with};

/// The accuracy the tables ask for.
const TOLERANCE: f64 = 1e-9;

fn full() -> bool {
    std::env::var_os("DNET_ED_FULL").is_some()
}

fn lowest(operator: &Operator, sector: Sector) -> f64 {
    let spectrum = ed::solve(
        operator,
        sector,
        &Options {
            levels: 1,
            ..Options::default()
        },
    )
    .unwrap();
    assert!(spectrum.converged && spectrum.residuals[0] < 1e-6);
    spectrum.energies[0]
}

fn assert_close(value: f64, expected: f64, what: &str) {
    assert!(
        (value - expected).abs() < TOLERANCE,
        "{what}: {value}, not {expected}"
    );
}

/// The numbers of a key such as `N16_a1.5_J-2.94` or `4x4_h3.0_P`.
fn numbers(key: &str) -> Vec<f64> {
    let part = |p: &str| {
        p.trim_start_matches(|c: char| c.is_alphabetic())
            .parse()
            .ok()
    };
    key.split(['_', 'x']).filter_map(part).collect()
}

fn table(name: &str) -> Vec<(String, Value)> {
    let golden = golden("exact_energies.json");
    golden[name]
        .as_object()
        .unwrap()
        .iter()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

const EVEN: Sector = Sector::Inversion { odd: false };
const ODD: Sector = Sector::Inversion { odd: true };

#[test]
fn free_fermions_reproduce_the_ising_tables() {
    for (name, boundary) in [
        ("tfim_chain_pbc", Boundary::Periodic),
        ("tfim_chain_obc", Boundary::Open),
    ] {
        for (key, energy) in table(name) {
            let [n, h] = numbers(&key)[..] else {
                panic!("{key}")
            };
            let energy = energy.as_f64().unwrap();
            if n > 300.0 && boundary == Boundary::Open && !full() {
                continue;
            }
            let exact = tfim_energy(n as usize, boundary, 1.0, h).unwrap();
            assert!(
                (exact / energy - 1.0).abs() < 1e-11,
                "{name} {key}: {exact}, not {energy}"
            );
        }
    }
    for (key, energy) in table("tfim_chain_inf_per_site") {
        let exact = tfim_energy(100_000, Boundary::Periodic, 1.0, numbers(&key)[0]).unwrap() / 1e5;
        assert_close(exact, energy.as_f64().unwrap(), &key);
    }
}

#[test]
fn ising_chains_by_diagonalisation() {
    for (name, boundary) in [
        ("tfim_chain_pbc", Boundary::Periodic),
        ("tfim_chain_obc", Boundary::Open),
    ] {
        let mut compared = 0;
        for (key, energy) in table(name) {
            let [n, h] = numbers(&key)[..] else {
                panic!("{key}")
            };
            if n > if full() { 24.0 } else { 16.0 } {
                continue;
            }
            let operator = operator_with(
                "tfim",
                chain(n as usize, boundary),
                &[("h", Static::Real(h))],
            );
            assert_close(lowest(&operator, EVEN), energy.as_f64().unwrap(), &key);
            compared += 1;
        }
        assert!(compared >= 8, "{name}: {compared}");
    }
}

#[test]
fn free_fermions_equal_diagonalisation_off_criticality() {
    for (n, j, h) in [
        (8, 1.0, 0.4),
        (8, -0.8, 1.1),
        (7, 0.9, 0.5),
        (7, 0.9, -0.5),
        (6, 1.0, 1.0),
        (5, 0.3, 2.0),
    ] {
        for boundary in [Boundary::Periodic, Boundary::Open] {
            let couplings = [("J", Static::Real(j)), ("h", Static::Real(h))];
            let operator = operator_with("tfim", chain(n, boundary), &couplings);
            let what = format!("{n} {j} {h} {boundary:?}");
            let whole = lowest(&operator, Sector::Full);
            assert_close(
                tfim_energy(n, boundary, j, h).unwrap().min(match boundary {
                    Boundary::Periodic => tfim_ring_energy(n, j, h, true).unwrap(),
                    Boundary::Open => f64::INFINITY,
                }),
                whole,
                &what,
            );
            if boundary == Boundary::Periodic {
                for (sector, odd) in [(EVEN, false), (ODD, true)] {
                    assert_close(
                        tfim_ring_energy(n, j, h, odd).unwrap(),
                        lowest(&operator, sector),
                        &what,
                    );
                }
            }
            let Some(fermions) = TfimChain::new(n, boundary, j, h) else {
                continue;
            };
            let options = Options {
                levels: 1,
                tolerance: 1e-11,
                ..Options::default()
            };
            // a negative field makes the ground state of an odd chain odd
            let sector = if h < 0.0 && n % 2 == 1 { ODD } else { EVEN };
            let spectrum = ed::solve(&operator, sector, &options).unwrap();
            assert_close(fermions.energy, spectrum.energies[0], &what);
            for i in 0..n {
                let text = "operator x(i: nat = 0) { term X(i) } operator zz(i: nat = 0) { term Z(0) * Z(i) }";
                let observe = |name: &str| {
                    let info = support::elaborate_text(text, name, &[("i", Static::Int(i as i64))])
                        .unwrap();
                    let observable =
                        dnet::vmc::operator::compile(&info, operator.lattice()).unwrap();
                    spectrum.expectation(&observable, 0).unwrap()
                };
                assert!(
                    (fermions.transverse(i).unwrap() - observe("x")).abs() < 1e-8,
                    "{what}"
                );
                assert!(
                    (fermions.correlation(0, i).unwrap() - observe("zz")).abs() < 1e-8,
                    "{what} {i}"
                );
            }
        }
    }
    assert_eq!(tfim_energy(7, Boundary::Periodic, -1.0, 1.0), None);
    assert!(TfimChain::new(2, Boundary::Periodic, 1.0, 1.0).is_none());
}

#[test]
fn critical_correlations_decay_with_the_chord() {
    // 0.6450 chord^(-1/4) on the critical ring, corrections of order chord^-2
    let n = 64;
    let ring = TfimChain::new(n, Boundary::Periodic, 1.0, 1.0).unwrap();
    for r in [8, 16, 32] {
        let chord =
            n as f64 / std::f64::consts::PI * (std::f64::consts::PI * r as f64 / n as f64).sin();
        let amplitude = ring.correlation(3, 3 + r).unwrap() * chord.powf(0.25);
        assert!((amplitude - 0.6450).abs() < 5e-4, "{r}: {amplitude}");
    }
}

#[test]
fn long_range_ising_table() {
    let mut compared = 0;
    for (key, entry) in table("lr_tfim_chain_pbc") {
        let [n, alpha, j] = numbers(&key)[..] else {
            panic!("{key}")
        };
        if n > if full() { 24.0 } else { 14.0 } {
            continue;
        }
        let couplings = [("alpha", Static::Real(alpha)), ("J", Static::Real(j))];
        let operator = operator_with(
            "long_range_tfim",
            chain(n as usize, Boundary::Periodic),
            &couplings,
        );
        assert_close(
            lowest(&operator, EVEN),
            entry["E_even"].as_f64().unwrap(),
            &key,
        );
        assert_close(
            lowest(&operator, ODD),
            entry["E_odd"].as_f64().unwrap(),
            &key,
        );
        compared += 1;
    }
    assert!(compared >= 40, "{compared}");
}

#[test]
fn heisenberg_and_j1j2_tables() {
    let mut compared = 0;
    for name in ["heisenberg_chain_pbc", "j1j2_chain_pbc"] {
        for (key, energy) in table(name) {
            let parts = numbers(&key.replace("_J2", "_"));
            let n = parts[0] as usize;
            if n > if full() { 24 } else { 16 } {
                continue;
            }
            let expected = energy.as_f64().unwrap();
            let ring = chain(n, Boundary::Periodic);
            let operators = match parts.get(1) {
                None => vec![operator_with("heisenberg", ring, &[])],
                Some(&j2) => ["j1j2", "j1j2_marshall"]
                    .map(|name| operator_with(name, ring, &[("J2", Static::Real(j2))]))
                    .to_vec(),
            };
            for operator in operators {
                let energy = [false, true].map(|odd| lowest(&operator, Sector::Balanced { odd }));
                assert_close(energy[0].min(energy[1]), expected, &key);
                compared += 1;
            }
        }
    }
    assert!(compared >= 40, "{compared}");
}

#[test]
fn square_lattice_tables() {
    for (key, energy) in table("tfim_square") {
        let [lx, ly, h] = numbers(&key)[..] else {
            panic!("{key}")
        };
        let boundary = if key.ends_with('P') {
            Boundary::Periodic
        } else {
            Boundary::Open
        };
        let lattice = Lattice {
            extent: [lx as usize, ly as usize],
            boundary,
        };
        let operator = operator_with("square_tfim", lattice, &[("h", Static::Real(h))]);
        assert_close(lowest(&operator, EVEN), energy.as_f64().unwrap(), &key);
    }
    let lattice = Lattice {
        extent: [4, 4],
        boundary: Boundary::Periodic,
    };
    for (key, energy) in table("square_4x4_pbc_heis_j1j2") {
        let j2 = key.trim_start_matches("J2").parse().unwrap();
        let operator = operator_with("square_j1j2", lattice, &[("J2", Static::Real(j2))]);
        assert_close(
            lowest(&operator, Sector::Balanced { odd: false }),
            energy.as_f64().unwrap(),
            &key,
        );
    }
}

#[test]
fn energies_and_moments_of_the_published_grid() {
    let golden = golden("dysonnet/ed.json");
    let real = |entry: &Value, key: &str| entry[key].as_f64().unwrap();
    for entry in golden["tfim"].as_array().unwrap() {
        let n = real(entry, "N") as usize;
        if n > 12 && !full() {
            continue;
        }
        let couplings = ["J", "alpha", "h"].map(|key| (key, Static::Real(real(entry, key))));
        let ring = chain(n, Boundary::Periodic);
        let operator = operator_with("long_range_tfim", ring, &couplings);
        let options = Options {
            levels: 2,
            ..Options::default()
        };
        let [even, odd] = [EVEN, ODD].map(|sector| ed::solve(&operator, sector, &options).unwrap());
        let what = format!("{n} {couplings:?}");
        assert_close(
            even.energies[0].min(odd.energies[0]),
            real(entry, "E0_total"),
            &what,
        );
        let mut levels: Vec<f64> = even.energies.iter().chain(&odd.energies).copied().collect();
        levels.sort_by(f64::total_cmp);
        assert_close(levels[1], real(entry, "E1_total"), &what);
        let ground = if even.energies[0] <= odd.energies[0] {
            &even
        } else {
            &odd
        };
        let moments = ground.moments(0, |site| site);
        assert!(
            (moments.m2 - real(entry, "m2")).abs() < 1e-7,
            "{what}: {moments:?}"
        );
        assert!(
            (moments.staggered_m2 - real(entry, "staggered_m2")).abs() < 1e-7,
            "{what}: {moments:?}"
        );
        let transverse = operator_with("transverse_magnetisation", ring, &[]);
        assert!(
            (ground.expectation(&transverse, 0).unwrap() - real(entry, "sigma_x")).abs() < 1e-7,
            "{what}"
        );
    }
    for entry in golden["j1j2"].as_array().unwrap() {
        let n = real(entry, "N") as usize;
        if n > 16 && !full() {
            continue;
        }
        let operator = operator_with(
            "j1j2_marshall",
            chain(n, Boundary::Periodic),
            &[
                ("J1", Static::Real(real(entry, "J1"))),
                ("J2", Static::Real(real(entry, "J2"))),
            ],
        );
        let options = Options {
            levels: 2,
            ..Options::default()
        };
        let spectrum =
            ed::solve(&operator, Sector::Magnetisation { down: n / 2 }, &options).unwrap();
        assert_close(spectrum.energies[0], real(entry, "E0_total_SS"), "j1j2");
        assert_close(spectrum.energies[1], real(entry, "E1_total_SS_Sz0"), "j1j2");
        assert_close(
            4.0 * spectrum.energies[0],
            real(entry, "E0_total_pauli_code"),
            "j1j2",
        );
    }
}

#[test]
fn cluster_chains_have_energy_minus_n_and_gap_two() {
    let n = 9;
    for (name, boundary) in [
        ("cluster", Boundary::Periodic),
        ("cluster", Boundary::Open),
        ("cluster_rotated", Boundary::Open),
    ] {
        let operator = operator_with(name, chain(n, boundary), &[]);
        let spectrum = ed::solve(&operator, Sector::Full, &Options::default()).unwrap();
        assert_close(spectrum.energies[0], -(n as f64), name);
        assert_close(spectrum.energies[1], 2.0 - n as f64, name);
    }
    assert_eq!(
        Basis::sectors_of(&operator_with(
            "cluster_rotated",
            chain(6, Boundary::Open),
            &[]
        )),
        [Sector::Full]
    );
}
