//! The paper's architecture against independently computed log-amplitudes.
//!
//! Every `g*.json` of the directory `DNET_GOLDEN_DIR` (default: the copies in
//! `tests/golden/dysonnet`) is evaluated through the language's example
//! networks, by the reference interpreter, by updates, and by native code.

mod dysonnet_files;

use dnet::back::cpu::network::{CpuNetwork, Updates};
use dnet::interp::{Tensor, evaluate};
use dnet::ir::{Boundary, Graph, Lattice};
use dnet::params::Params;
use dnet::pass::abacus::{Background, Network};
use dnet::pass::link::LinkStrategy;
use dnet::pass::link::environment::Environments;
use dnet::pass::link::sweep::sweep;
use dnet::pipeline;
use dnet::run::WaveFunction;
use dnet::run::reference::Reference;
use dysonnet_files::{complexes, golden_dir, network, numbers, params};
use num_complex::Complex64;
use rayon::prelude::*;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

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

/// One file of reference data, as numbers.
struct Golden {
    name: String,
    graph: Graph,
    lattice: Lattice,
    params: Vec<Tensor>,
    /// Configurations and their log psi.
    states: Vec<(Vec<i8>, Complex64)>,
    /// Flipped sites and log ratio, by configuration.
    flips: Vec<Vec<(Vec<usize>, Complex64)>>,
}

impl Golden {
    fn read(file: &Path) -> Golden {
        let text = std::fs::read_to_string(file).expect("readable");
        let g: Value = serde_json::from_str(&text).expect("valid JSON");
        let graph = pipeline::amplitude(&pipeline::graph(&network(&g)));
        let sites = g["N"].as_u64().expect("N") as usize;
        let entries = |key: &str| g[key].as_array().unwrap_or_else(|| panic!("{key} missing"));
        let spins = entries("spins")
            .iter()
            .map(|c| numbers(c).iter().map(|x| *x as i8).collect());
        let states: Vec<(Vec<i8>, Complex64)> = spins.zip(complexes(&g["log_psi"])).collect();
        let single = complexes(&g["log_ratio_single_flip"]);
        assert_eq!(single.len(), states.len() * sites);
        let mut flips: Vec<Vec<(Vec<usize>, Complex64)>> = single
            .chunks(sites)
            .map(|c| c.iter().enumerate().map(|(i, &r)| (vec![i], r)).collect())
            .collect();
        let pairs = entries("double_flips_of_conf0").iter();
        let pairs = pairs.map(|p| numbers(p).iter().map(|&i| i as usize).collect());
        flips[0].extend(pairs.zip(complexes(&g["log_ratio_double_flip"])));
        Golden {
            name: file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            params: params(&g, &graph),
            lattice: Lattice::chain(sites, Boundary::Periodic),
            graph,
            states,
            flips,
        }
    }

    fn full(&self, spins: &[i8]) -> Complex64 {
        let e = evaluate(&self.graph, self.lattice, &self.params, spins);
        e.unwrap_or_else(|e| panic!("{}: {e}", self.name)).log_psi()
    }
}

/// Applies `test` to every file, on all cores.
fn every_file(test: impl Fn(&Golden) + Sync) {
    let dir = golden_dir();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|f| f.expect("a directory entry").path())
        .filter(|p| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with('g'))
        })
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no g*.json in {}", dir.display());
    files.par_iter().for_each(|file| test(&Golden::read(file)));
}

#[test]
fn full_evaluation() {
    every_file(|g| {
        for (k, ((spins, log_psi), flips)) in g.states.iter().zip(&g.flips).enumerate() {
            let base = g.full(spins);
            close(base, *log_psi, &format!("{} configuration {k}", g.name));
            for (sites, ratio) in flips {
                let mut new = spins.clone();
                sites.iter().for_each(|&i| new[i] = -new[i]);
                let what = format!("{} configuration {k} flipping {sites:?}", g.name);
                close(g.full(&new) - base, *ratio, &what);
            }
        }
    });
}

#[test]
fn updates_with_links() {
    every_file(|g| {
        let net = Network::new(&g.graph, g.lattice, g.params.clone()).expect("has a normal form");
        for (k, ((spins, _), flips)) in g.states.iter().zip(&g.flips).enumerate() {
            let background = Background::new(&net, spins).expect("evaluates");
            // Without a preference everywhere; the other strategies, some of which are
            // slow, where double flips are listed.
            let all = [
                None,
                Some(LinkStrategy::Fft),
                Some(LinkStrategy::Product),
                Some(LinkStrategy::Dense),
            ];
            for &strategy in &all[..if k == 0 { all.len() } else { 1 }] {
                let mut links = background.links(strategy);
                for (sites, ratio) in flips {
                    let update = background.update(&mut links, sites).expect("an update");
                    let what = format!(
                        "{} configuration {k} flipping {sites:?}, strategy {strategy:?}",
                        g.name
                    );
                    close(update.log_psi - background.log_psi(), *ratio, &what);
                }
            }
        }
    });
}

/// Cut at the slice of every listed flip; of the first configuration also one site
/// at a time along a sweep.
#[test]
fn updates_with_environments() {
    every_file(|g| {
        let net = Network::new(&g.graph, g.lattice, g.params.clone()).expect("has a normal form");
        for (k, ((spins, _), flips)) in g.states.iter().zip(&g.flips).enumerate() {
            let background = Background::new(&net, spins).expect("evaluates");
            let environments = Environments::new(&background).expect("all mixers are recurrences");
            for (sites, ratio) in flips {
                let log_psi = environments.log_psi(sites).expect("an update");
                let what = format!("{} configuration {k} flipping {sites:?}", g.name);
                close(log_psi - background.log_psi(), *ratio, &what);
            }
            if k > 0 {
                continue;
            }
            // A sweep that accepts nothing proposes every listed single flip.
            let mut proposed = 0;
            let rest = sweep(&background, false, &mut |site, ratio| {
                let (sites, expected) = &flips[site];
                assert_eq!(*sites, [site]);
                close(ratio, *expected, &format!("{} sweeping {site}", g.name));
                proposed += 1;
                false
            });
            assert_eq!(&rest.expect("a sweep"), spins);
            assert_eq!(proposed, spins.len());
        }
    });
}

/// The compiled network in f64: amplitudes one by one and in a batch, every listed
/// ratio by each way of updating, a sweep that accepts nothing, and gradients
/// (which the files do not list) against the interpreter's.
#[test]
fn native_code() {
    every_file(|g| {
        let theta: Vec<f64> = (g.params.iter())
            .flat_map(|t| t.data.iter().copied())
            .collect();
        let mut cpu = CpuNetwork::<f64>::new(g.graph.clone(), g.lattice, &theta).expect("compiles");
        let batch: Vec<i8> = g.states.iter().flat_map(|s| s.0.iter().copied()).collect();
        let mut all = vec![Complex64::ZERO; g.states.len()];
        cpu.log_psi(&batch, &mut all);
        for updates in [Updates::Full, Updates::Abacus, Updates::Automatic] {
            cpu.set_updates(updates);
            for (k, ((spins, log_psi), flips)) in g.states.iter().zip(&g.flips).enumerate() {
                let what = |more: &str| format!("{} configuration {k}, {updates:?}{more}", g.name);
                let mut one = [Complex64::ZERO];
                cpu.log_psi(spins, &mut one);
                close(one[0], *log_psi, &what(""));
                close(all[k], *log_psi, &what(" in a batch"));
                let mut background = cpu.background(spins);
                close(background.log_psi(), *log_psi, &what(" as background"));
                for (sites, ratio) in flips {
                    let got = background.log_ratio(sites);
                    close(got, *ratio, &what(&format!(", flipping {sites:?}")));
                }
                let mut singles = vec![Complex64::ZERO; spins.len()];
                background.single_flips(&mut singles);
                for (site, got) in singles.into_iter().enumerate() {
                    close(got, flips[site].1, &what(&format!(", site {site} of all")));
                }
            }
        }
        cpu.set_updates(Updates::Abacus);
        for ((spins, _), flips) in g.states.iter().zip(&g.flips) {
            let (mut after, mut proposed) = (spins.clone(), 0);
            let done = cpu.sweep(&mut after, false, &mut |site, ratio| {
                close(ratio, flips[site].1, &format!("{} sweeping {site}", g.name));
                proposed += 1;
                false
            });
            assert!(done.is_some(), "{} has environments", g.name);
            assert_eq!((proposed, &after), (spins.len(), spins));
        }
        let params = Params {
            paths: g.graph.params.iter().map(|p| p.path.clone()).collect(),
            tensors: g.params.clone(),
        };
        let reference = Reference::new(g.graph.clone(), g.lattice, params).expect("fits");
        let rows = |psi: &dyn WaveFunction| {
            let rows = Mutex::new(vec![Vec::new(); g.states.len()]);
            psi.gradients(&batch, &|sample, re, im| {
                rows.lock().expect("no panic")[sample] = [re, im].concat();
            });
            rows.into_inner().expect("no panic")
        };
        for (k, (got, want)) in rows(&cpu).iter().zip(rows(&reference)).enumerate() {
            assert_eq!(got.len(), want.len());
            let size = want.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
            for (p, (a, b)) in got.iter().zip(&want).enumerate() {
                let error = (a - b).abs() / size;
                let what = format!("{} configuration {k}, derivative {p}", g.name);
                assert!(error <= 1e-11, "{what}: {a} instead of {b}");
            }
        }
    });
}
