//! The CPU back end against the reference interpreter, on every example.

use dnet::back::cpu::budget::Budget;
use dnet::back::cpu::compiled::CompileError;
use dnet::back::cpu::network::{CpuNetwork, Updates};
use dnet::interp::evaluate;
use dnet::ir::{Boundary, Lattice};
use dnet::pass::reverse::parameter_gradients;
use dnet::run::{Task, WaveFunction};
use num_complex::Complex64;
use std::path::Path;
use std::sync::{Arc, Mutex};

#[path = "gen/networks.rs"]
mod networks;

use networks::{Random, error, examples, graphs, params};

fn lattices() -> Vec<Lattice> {
    let mut all = Vec::new();
    for boundary in [Boundary::Periodic, Boundary::Open] {
        all.push(Lattice::chain(12, boundary));
        all.push(Lattice::chain(40, boundary));
        all.push(Lattice {
            extent: [4, 6],
            boundary,
        });
    }
    all
}

#[test]
fn log_psi_of_every_example() {
    let mut random = Random(7);
    let mut compared = 0;
    for file in examples() {
        for (name, graph) in graphs(&file) {
            for lattice in lattices() {
                let Some(tensors) = params(&graph, lattice, &mut random) else {
                    continue;
                };
                let spins: Vec<i8> = (0..5).flat_map(|_| random.spins(lattice.sites())).collect();
                let oracle = |s: &[i8]| evaluate(&graph, lattice, &tensors, s).map(|e| e.log_psi());
                let want: Result<Vec<Complex64>, _> =
                    spins.chunks(lattice.sites()).map(oracle).collect();
                let Ok(want) = want else { continue };
                if want.iter().any(|w| !w.is_finite()) {
                    continue;
                }
                let theta: Vec<f64> = tensors
                    .iter()
                    .flat_map(|t| t.data.iter().copied())
                    .collect();
                let double = CpuNetwork::<f64>::new(graph.clone(), lattice, &theta)
                    .unwrap_or_else(|e| panic!("{name} on {lattice:?}: {e}"));
                let single =
                    CpuNetwork::<f32>::new(graph.clone(), lattice, &theta).expect("as in f64");
                let mut got = vec![Complex64::ZERO; want.len()];
                double.log_psi(&spins, &mut got);
                for (g, w) in got.iter().zip(&want) {
                    assert!(
                        error(*g, *w) <= 1e-11 * w.norm().max(1.0),
                        "{name} f64 on {lattice:?}: {g} instead of {w}"
                    );
                }
                // one configuration alone takes another path
                let mut alone = [Complex64::ZERO];
                double.log_psi(&spins[..lattice.sites()], &mut alone);
                assert!(
                    error(alone[0], want[0]) <= 1e-11 * want[0].norm().max(1.0),
                    "{name} on {lattice:?} alone"
                );
                single.log_psi(&spins, &mut got);
                for k in 0..want.len() {
                    let (g, w) = (got[k] - got[0], want[k] - want[0]);
                    assert!(
                        error(g, w) <= 2e-5,
                        "{name} f32 on {lattice:?}: ratio {g} instead of {w}"
                    );
                }
                compared += 1;
            }
        }
    }
    assert!(compared > 40, "only {compared} comparisons");
}

#[test]
fn gradients_of_every_example() {
    let mut random = Random(11);
    let mut compared = 0;
    for file in examples() {
        for (name, graph) in graphs(&file) {
            let few = lattices().into_iter().filter(|l| l.sites() < 30);
            let one = [Boundary::Periodic, Boundary::Open].map(|b| Lattice::chain(1, b));
            for lattice in few.chain(one) {
                let Some(tensors) = params(&graph, lattice, &mut random) else {
                    continue;
                };
                let spins: Vec<i8> = (0..2).flat_map(|_| random.spins(lattice.sites())).collect();
                let theta: Vec<f64> = tensors
                    .iter()
                    .flat_map(|t| t.data.iter().copied())
                    .collect();
                let oracle = |output| {
                    let reversed =
                        parameter_gradients(&graph, output).expect("a differentiable example");
                    let values: Result<Vec<Vec<f64>>, _> = spins
                        .chunks(lattice.sites())
                        .map(|s| {
                            let e = evaluate(&reversed.graph, lattice, &tensors, s)?;
                            Ok::<_, dnet::interp::EvalError>(
                                reversed
                                    .gradients
                                    .iter()
                                    .flat_map(|&g| e.value(g).data.clone())
                                    .collect(),
                            )
                        })
                        .collect();
                    values
                };
                let Ok(re) = oracle(graph.outputs[0]) else {
                    continue;
                };
                let im = graph
                    .outputs
                    .get(1)
                    .map(|&o| oracle(o).expect("as the real part"));
                let network =
                    CpuNetwork::<f64>::new(graph.clone(), lattice, &theta).expect("compiles");
                let seen = Mutex::new(0);
                network.gradients(&spins, &|sample, got_re, got_im| {
                    *seen.lock().unwrap() += 1;
                    let compare = |got: &[f64], want: &[f64]| {
                        assert_eq!(got.len(), want.len(), "{name}");
                        let scale = want.iter().fold(1.0, |m: f64, w| m.max(w.abs()));
                        for (k, (g, w)) in got.iter().zip(want).enumerate() {
                            assert!(
                                (g - w).abs() <= 1e-10 * scale,
                                "{name} on {lattice:?}, parameter {k}: {g} instead of {w}"
                            );
                        }
                    };
                    compare(got_re, &re[sample]);
                    match &im {
                        Some(im) => compare(got_im, &im[sample]),
                        None => assert!(got_im.is_empty()),
                    }
                });
                assert_eq!(*seen.lock().unwrap(), 2);
                compared += 1;
            }
        }
    }
    assert!(compared > 20, "only {compared} comparisons");
}

#[test]
fn ratios_of_local_changes() {
    let mut random = Random(13);
    for file in examples()
        .into_iter()
        .filter(|f| f.ends_with("dysonnet.dnet") || f.ends_with("rbm_complex.dnet"))
    {
        for (name, graph) in graphs(&file) {
            let lattice = Lattice::chain(20, Boundary::Periodic);
            let tensors = params(&graph, lattice, &mut random).expect("a chain");
            let theta: Vec<f64> = tensors
                .iter()
                .flat_map(|t| t.data.iter().copied())
                .collect();
            let network = CpuNetwork::<f64>::new(graph.clone(), lattice, &theta).expect("compiles");
            let mut spins = random.spins(20);
            let log_psi = |s: &[i8]| {
                evaluate(&graph, lattice, &tensors, s)
                    .expect("evaluates")
                    .log_psi()
            };
            let flipped = |s: &[i8], flips: &[usize]| {
                let mut t = s.to_vec();
                flips.iter().for_each(|&f| t[f] = -t[f]);
                t
            };
            let mut background = network.background(&spins);
            for flips in [vec![3], vec![0, 19], vec![2, 11, 12]] {
                let mut single = vec![Complex64::ZERO; 20];
                background.single_flips(&mut single);
                for (site, got) in single.iter().enumerate() {
                    let want = log_psi(&flipped(&spins, &[site])) - log_psi(&spins);
                    assert!(
                        error(*got, want) < 1e-11,
                        "{name} flip {site}: {got} instead of {want}"
                    );
                }
                let want = log_psi(&flipped(&spins, &flips)) - log_psi(&spins);
                assert!(
                    error(background.log_ratio(&flips), want) < 1e-11,
                    "{name} {flips:?}"
                );
                background.accept(&flips);
                spins = flipped(&spins, &flips);
                assert!(
                    error(background.log_psi(), log_psi(&spins)) < 1e-11,
                    "{name} accepted {flips:?}"
                );
            }
        }
    }
}

/// The loop-level code of one network on a ring of 20 spins.
fn loops(example: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(example);
    let (_, graph) = graphs(&file).remove(0);
    let lattice = Lattice::chain(20, Boundary::Periodic);
    dnet::kernel::lower::lower(&graph, lattice, &[])
        .expect("a chain")
        .to_string()
}

#[test]
fn loop_code_of_a_restricted_boltzmann_machine() {
    insta::assert_snapshot!(loops("rbm.dnet"));
}

#[test]
fn loop_code_of_dysonnet() {
    insta::assert_snapshot!(loops("dysonnet.dnet"));
}

/// Everything a network can be asked for, on a batch and one by one.
fn answers(network: &CpuNetwork<f32>, batch: &[i8]) -> (Vec<Complex64>, Vec<Vec<f64>>) {
    let n = network.lattice().sites();
    let mut values = vec![Complex64::ZERO; batch.len() / n];
    network.log_psi(batch, &mut values);
    for spins in batch.chunks(n).take(3) {
        let mut some = vec![Complex64::ZERO; n + 1];
        network.log_psi(spins, &mut some[..1]);
        network.background(spins).single_flips(&mut some[1..]);
        values.extend(some);
    }
    let rows = Mutex::new(vec![Vec::new(); batch.len() / n]);
    network.gradients(batch, &|k, re, im| {
        rows.lock().unwrap()[k] = [re, im].concat()
    });
    (values, rows.into_inner().unwrap())
}

#[test]
fn results_do_not_depend_on_the_memory_limit() {
    let mut random = Random(19);
    let mut reduced = 0;
    for (example, sites) in [
        ("dysonnet.dnet", 28),
        ("rbm.dnet", 70),
        ("rbm_complex.dnet", 24),
        ("jastrow.dnet", 40),
    ] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        for (name, graph) in graphs(&file.join(example)) {
            let lattice = Lattice::chain(sites, Boundary::Periodic);
            let Some(tensors) = params(&graph, lattice, &mut random) else {
                continue;
            };
            let theta: Vec<f64> = tensors.iter().flat_map(|t| t.data.clone()).collect();
            let mut network = CpuNetwork::<f32>::new(graph, lattice, &theta).expect("compiles");
            let batch: Vec<i8> = (0..41).flat_map(|_| random.spins(sites)).collect();
            let want = answers(&network, &batch);
            let room = |network: &CpuNetwork<f32>, task| network.room(task).expect("planned");
            let many = room(&network, Task::LogPsi).samples;
            // just enough for one configuration, whatever it is asked for
            let single = network.memory()[0].bytes;
            let flips = room(&network, Task::Flips).bytes;
            let least = (single.max(flips)..)
                .step_by(10_000)
                .find(|&bytes| network.work_within(&Arc::new(Budget::new(bytes))).is_ok())
                .expect("a limit that is large enough");
            reduced += usize::from(room(&network, Task::LogPsi).samples < many);
            assert!(
                answers(&network, &batch) == want,
                "{name} within {least} bytes"
            );
            let refused = network.work_within(&Arc::new(Budget::new(single - 1)));
            match refused {
                Err(CompileError::Memory { needed, limit }) => {
                    assert_eq!((needed, limit), (single, single - 1), "{name}");
                }
                other => panic!("{name}: {:?}", other.map_err(|e| e.to_string())),
            }
        }
    }
    assert!(reduced > 0, "no limit took effect");
}

/// Rows longer than the blocks that steps run on together.
#[test]
fn long_lattices() {
    let mut random = Random(23);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    // rings are transformed many channels at a time where tokens have no prime factors
    // beyond 5; 2,300 spins have
    for (example, sites) in [
        ("dysonnet.dnet", 2300),
        ("dysonnet.dnet", 2400),
        ("power_law.dnet", 600),
        ("cnn.dnet", 1200),
    ] {
        for (name, graph) in graphs(&file.join(example)) {
            for boundary in [Boundary::Periodic, Boundary::Open] {
                let lattice = Lattice::chain(sites, boundary);
                let Some(tensors) = params(&graph, lattice, &mut random) else {
                    continue;
                };
                let theta: Vec<f64> = tensors.iter().flat_map(|t| t.data.clone()).collect();
                let spins = random.spins(sites);
                let log_psi = |s: &[i8]| {
                    let e = evaluate(&graph, lattice, &tensors, s).expect("a chain");
                    e.log_psi()
                };
                let old = log_psi(&spins);
                let mut network =
                    CpuNetwork::<f64>::new(graph.clone(), lattice, &theta).expect("compiles");
                let mut got = [Complex64::ZERO];
                network.log_psi(&spins, &mut got);
                assert!(error(got[0], old) <= 1e-11 * old.norm().max(1.0), "{name}");
                network.set_updates(Updates::Abacus);
                if network.flips().is_err() {
                    continue;
                }
                let mut ratios = vec![Complex64::ZERO; sites];
                network.background(&spins).single_flips(&mut ratios);
                for site in [0, sites / 2 - 1, sites - 1] {
                    let mut flipped = spins.clone();
                    flipped[site] = -flipped[site];
                    let want = log_psi(&flipped) - old;
                    let off = error(ratios[site], want);
                    assert!(off <= 1e-10, "{name} {boundary:?}, flip {site}: {off:e}");
                }
            }
        }
    }
}

#[test]
fn rejected_parameters_change_nothing() {
    let mut random = Random(17);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/rbm.dnet");
    let (_, graph) = graphs(&file).remove(0);
    let lattice = Lattice::chain(8, Boundary::Periodic);
    let tensors = params(&graph, lattice, &mut random).expect("a chain");
    let theta: Vec<f64> = tensors.iter().flat_map(|t| t.data.clone()).collect();
    let mut network = CpuNetwork::<f64>::new(graph, lattice, &theta).expect("compiles");
    let spins = random.spins(8);
    let mut before = [Complex64::ZERO];
    network.log_psi(&spins, &mut before);
    assert!(network.try_set_params(&theta[1..]).is_err());
    let mut after = [Complex64::ZERO];
    network.log_psi(&spins, &mut after);
    assert_eq!((before, theta.as_slice()), (after, network.params()));
    let moved: Vec<f64> = theta.iter().map(|x| 0.5 * x).collect();
    network.try_set_params(&moved).expect("the right number");
    network.log_psi(&spins, &mut after);
    assert_ne!(before, after);
}
