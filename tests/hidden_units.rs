//! Ratios by hidden units against full evaluation.

use dnet::back::cpu::network::{CpuNetwork, LocalUpdates};
use dnet::back::cpu::simd::Real;
use dnet::check::Program;
use dnet::interp::evaluate;
use dnet::ir::{Boundary, Graph, Lattice};
use dnet::pass::flips::units::HiddenUnits;
use dnet::pipeline;
use dnet::run::WaveFunction;
use num_complex::Complex64;
use std::path::Path;

#[path = "gen/networks.rs"]
mod networks;

use networks::{Random, error, examples, graphs, params};

/// Ratios of random clusters of networks with hidden units, between accepted
/// changes, at parameters uniform in +-scale/2.
fn compare_units<T: Real>(
    name: &str,
    graph: &Graph,
    lattice: Lattice,
    scale: f64,
    tolerance: f64,
    random: &mut Random,
) {
    let mut tensors = params(graph, lattice, random).expect("a chain");
    for t in &mut tensors {
        t.data.iter_mut().for_each(|x| *x *= scale);
    }
    let theta: Vec<f64> = tensors
        .iter()
        .flat_map(|t| t.data.iter().copied())
        .collect();
    // other parameters first: the tables must follow them
    let zero = vec![0.25; theta.len()];
    let mut network = CpuNetwork::<T>::new(graph.clone(), lattice, &zero).expect("compiles");
    assert_eq!(network.local_updates(), LocalUpdates::HiddenUnits, "{name}");
    network.set_params(&theta);
    let n = lattice.sites();
    let mut spins = random.spins(n);
    let log_psi = |s: &[i8]| {
        evaluate(graph, lattice, &tensors, s)
            .expect("evaluates")
            .log_psi()
    };
    let mut background = network.background(&spins);
    for step in 0..36 {
        let size = 1 + (random.uniform() * 6.0) as usize % n;
        let mut cluster: Vec<usize> = (0..size)
            .map(|_| (random.uniform() * n as f64) as usize)
            .collect();
        cluster.sort_unstable();
        cluster.dedup();
        if step % 4 == 0 {
            let old = log_psi(&spins);
            let singles = [step % n, (step + 5) % n];
            let mut sites = cluster.clone();
            sites.extend(singles);
            let ends = [cluster.len(), cluster.len() + 1, cluster.len() + 2];
            let mut got = [Complex64::ZERO; 3];
            background.log_ratios(&sites, &ends, &mut got);
            let all: [&[usize]; 3] = [&cluster, &singles[..1], &singles[1..]];
            for (flips, got) in all.iter().zip(got) {
                let mut s = spins.clone();
                flips.iter().for_each(|&f| s[f] = -s[f]);
                let want = log_psi(&s) - old;
                assert!(
                    error(got, want) <= tolerance * want.norm().max(1.0),
                    "{name} {lattice:?} scale {scale}, step {step}, {flips:?}: {got} instead of {want}"
                );
            }
        }
        background.accept(&cluster);
        cluster.iter().for_each(|&f| spins[f] = -spins[f]);
    }
}

#[test]
fn hidden_units_small_and_large() {
    let mut random = Random(37);
    for file in examples() {
        for (name, graph) in graphs(&file).iter().filter(|g| g.0.starts_with("rbm")) {
            for (n, boundary) in [(7, Boundary::Open), (34, Boundary::Periodic)] {
                let lattice = Lattice::chain(n, boundary);
                // beyond 1 log psi of a complex network comes close to its zeros
                let scales: &[f64] = if name == "rbm" {
                    &[1.0, 6.0, 60.0, 800.0]
                } else {
                    &[0.3, 1.0]
                };
                for &scale in scales {
                    compare_units::<f64>(name, graph, lattice, scale, 1e-11, &mut random);
                    compare_units::<f32>(name, graph, lattice, scale, 2e-5, &mut random);
                }
            }
        }
    }
}

#[test]
fn several_hidden_units_per_site() {
    let mut random = Random(41);
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for name in ["rbm", "rbm_complex"] {
        let program = Program::load(&dir.join(format!("{name}.dnet")));
        let info = program.network(name).with("features", 3).check();
        let graph = pipeline::amplitude(&pipeline::graph(&info.expect("the example is correct")));
        let lattice = Lattice::chain(11, Boundary::Periodic);
        compare_units::<f64>(name, &graph, lattice, 1.0, 1e-11, &mut random);
        compare_units::<f32>(name, &graph, lattice, 1.0, 2e-5, &mut random);
    }
}

/// What full evaluation says of products of hidden units is not all there is:
/// cosh of other things, or twice, is no such network.
#[test]
fn other_networks_have_no_hidden_units() {
    for file in examples() {
        for (name, graph) in graphs(&file) {
            let found = HiddenUnits::new(&graph).is_ok();
            let expected = name.starts_with("rbm");
            assert_eq!(found, expected, "{name}");
            let lattice = Lattice {
                extent: if file.ends_with("dysonnet2d.dnet") {
                    [4, 4]
                } else {
                    [8, 1]
                },
                boundary: Boundary::Periodic,
            };
            let mut random = Random(43);
            let Some(tensors) = params(&graph, lattice, &mut random) else {
                continue;
            };
            let theta: Vec<f64> = tensors.iter().flat_map(|t| t.data.clone()).collect();
            let Ok(network) = CpuNetwork::<f64>::new(graph, lattice, &theta) else {
                continue;
            };
            let units = network.local_updates() == LocalUpdates::HiddenUnits;
            assert_eq!(units, expected, "{name}");
        }
    }
}
