//! The paper's architecture against independently computed log-amplitudes.
//!
//! Every `g*.json` of the directory `DNET_GOLDEN_DIR` (default: the copies in
//! `tests/golden/dysonnet`) is evaluated through the language's example
//! networks and the reference interpreter.

mod dysonnet_files;

use dnet::interp::evaluate;
use dnet::ir::{Boundary, Lattice, lower};
use dysonnet_files::{complexes, golden_dir, network, numbers, params};
use num_complex::Complex64;
use serde_json::Value;
use std::path::PathBuf;

fn close(got: Complex64, want: Complex64, what: &str) {
    // Phases are compared through exp: they are defined modulo 2 pi.
    let error = (got.re - want.re)
        .abs()
        .max((Complex64::new(0.0, got.im).exp() - Complex64::new(0.0, want.im).exp()).norm());
    assert!(
        error <= 1e-11 * want.norm().max(1.0),
        "{what}: got {got}, want {want}, error {error:e}"
    );
}

#[test]
fn golden_log_amplitudes() {
    let dir = golden_dir();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|f| f.expect("a directory entry").path())
        .filter(|p| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with('g'))
                && p.extension().is_some_and(|e| e == "json")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no g*.json in {}", dir.display());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        let g: Value = serde_json::from_str(&text).expect("valid JSON");
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let info = network(&g);
        let graph = lower(&info).graph;
        let params = params(&g, &graph);
        let lattice = Lattice::chain(g["N"].as_u64().expect("N") as usize, Boundary::Periodic);
        let log_psi = |s: &[i8]| {
            evaluate(&graph, lattice, &params, s)
                .unwrap_or_else(|e| panic!("{name}: {e}"))
                .log_psi()
        };
        let spins: Vec<Vec<i8>> = g["spins"]
            .as_array()
            .expect("spins")
            .iter()
            .map(|c| numbers(c).iter().map(|x| *x as i8).collect())
            .collect();
        let want = complexes(&g["log_psi"]);
        let single = complexes(&g["log_ratio_single_flip"]);
        assert_eq!(
            (want.len(), single.len()),
            (spins.len(), spins.len() * lattice.sites())
        );
        for (k, s) in spins.iter().enumerate() {
            let base = log_psi(s);
            close(base, want[k], &format!("{name} configuration {k}"));
            let ratios = &single[k * lattice.sites()..(k + 1) * lattice.sites()];
            for (i, r) in ratios.iter().enumerate() {
                let mut t = s.clone();
                t[i] = -t[i];
                close(
                    log_psi(&t) - base,
                    *r,
                    &format!("{name} configuration {k} flip {i}"),
                );
            }
        }
        let doubles = g["double_flips_of_conf0"].as_array().expect("double flips");
        let want = complexes(&g["log_ratio_double_flip"]);
        for (pair, want) in doubles.iter().zip(want) {
            let mut t = spins[0].clone();
            for i in numbers(pair) {
                t[i as usize] = -t[i as usize];
            }
            close(
                log_psi(&t) - log_psi(&spins[0]),
                want,
                &format!("{name} double flip {pair}"),
            );
        }
    }
}
