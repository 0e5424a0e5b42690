//! Emitted CUDA text, compiled for the host, against the reference interpreter.
//!
//! Every network of every example in both precisions, on one lattice each; with
//! `DNET_CUDA_ALL=1` on every lattice, and single flips of all of them.

#[path = "gen/networks.rs"]
#[allow(dead_code)] // a part of it
mod networks;
#[path = "cuda_shim/mod.rs"]
mod shim;

use dnet::back::cuda::device::Device;
use dnet::back::cuda::emit::Options;
use dnet::back::cuda::network::CudaNetwork;
use dnet::check::Program;
use dnet::interp::{Context, Tensor, evaluate};
use dnet::ir::{Boundary, Graph, Lattice, lower};
use dnet::pass::reverse::parameter_gradients;
use dnet::run::network::Precision;
use networks::{Random, error};
use num_complex::Complex64;
use rayon::prelude::*;
use shim::{Order, ShimDevice};
use std::sync::{Arc, Mutex};

/// Every network of every example as a graph.
fn examples() -> Vec<(String, Graph)> {
    let mut all = Vec::new();
    for file in networks::examples() {
        let program = Program::load(&file);
        for n in program.networks() {
            let info = program.network(&n.name.name).check();
            let info = info.unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            all.push((n.name.name.clone(), lower(&info).graph));
        }
    }
    all
}

/// Whether to compare everything.
fn everything() -> bool {
    std::env::var_os("DNET_CUDA_ALL").is_some_and(|v| v != "0")
}

/// A network on a lattice with parameters of order one, and what the interpreter
/// says about it.
struct Case {
    name: String,
    graph: Graph,
    lattice: Lattice,
    tensors: Vec<Tensor>,
    spins: Vec<i8>,
    log_psi: Vec<Complex64>,
}

impl Case {
    /// `None` where the network does not exist on the lattice or is not finite.
    fn new(name: &str, graph: &Graph, lattice: Lattice, samples: usize) -> Option<Case> {
        let seed = name.bytes().fold(lattice.sites() as u64, |h, b| {
            h.wrapping_mul(31).wrapping_add(u64::from(b))
        });
        let mut random = Random(seed);
        let up = vec![1; lattice.sites()];
        let context = Context::new(lattice, &[], &up).ok()?;
        let mut tensors = Vec::new();
        for p in &graph.params {
            let shape = context.shape(&p.ty).ok()?;
            tensors.push(Tensor::from_fn(&shape, |_| random.uniform() - 0.5));
        }
        let spins: Vec<i8> = (0..samples)
            .flat_map(|_| random.spins(lattice.sites()))
            .collect();
        let mut case = Case {
            name: name.to_owned(),
            graph: graph.clone(),
            lattice,
            tensors,
            spins,
            log_psi: Vec::new(),
        };
        for s in case.spins.chunks(lattice.sites()) {
            let z = evaluate(graph, lattice, &case.tensors, s).ok()?.log_psi();
            case.log_psi.push(z.is_finite().then_some(z)?);
        }
        Some(case)
    }

    fn theta(&self) -> Vec<f64> {
        let all = self.tensors.iter().flat_map(|t| t.data.iter().copied());
        all.collect()
    }

    fn network(&self, precision: Precision, order: Order) -> CudaNetwork {
        // two blocks: workspaces are used again; little memory: batches are cut
        let device: Arc<dyn Device> = Arc::new(ShimDevice::new(order, 2, 1 << 22));
        let options = Options::new(precision);
        CudaNetwork::new(device, &self.graph, self.lattice, &self.theta(), &options)
            .unwrap_or_else(|e| panic!("{} on {:?}: {e}", self.name, self.lattice))
    }

    fn log_psi_of(&self, spins: &[i8]) -> Complex64 {
        let e = evaluate(&self.graph, self.lattice, &self.tensors, spins);
        e.expect("evaluates").log_psi()
    }
}

/// Chains and rectangles with these boundaries.
fn lattices(boundaries: &[Boundary]) -> Vec<Lattice> {
    let extent = [4, 6];
    let each = boundaries.iter().flat_map(|&boundary| {
        let square = Lattice { extent, boundary };
        [Lattice::chain(14, boundary), square]
    });
    each.collect()
}

/// Every example where it exists: on the first lattice of every second boundary,
/// beginning with `first`, or on all of them.
fn cases(first: usize, samples: usize) -> Vec<Case> {
    let boundaries = [Boundary::Periodic, Boundary::Open];
    let of = |(k, (name, graph)): (usize, &(String, Graph))| -> Vec<Case> {
        let here = boundaries[(first + k) % 2];
        let there = boundaries[(first + k + 1) % 2];
        let lattices = lattices(&[here, there]);
        let found = lattices
            .into_iter()
            .filter_map(|l| Case::new(name, graph, l, samples));
        if everything() {
            found.collect()
        } else {
            let one: Vec<Case> = found.take(1).collect();
            assert!(!one.is_empty(), "{name} exists nowhere");
            one
        }
    };
    examples().iter().enumerate().flat_map(of).collect()
}

/// The gradient of one output by the interpreter.
fn gradient(case: &Case, output: usize, spins: &[i8]) -> Vec<f64> {
    let reversed = parameter_gradients(&case.graph, case.graph.outputs[output]).expect("smooth");
    let e = evaluate(&reversed.graph, case.lattice, &case.tensors, spins).expect("evaluates");
    let each = reversed
        .gradients
        .iter()
        .flat_map(|&g| e.value(g).data.clone());
    each.collect()
}

/// log psi and its gradients in f64 against the interpreter.
fn compare_in_f64(case: &Case, order: Order) {
    let network = case.network(Precision::F64, order);
    let what = format!("{} on {:?}", case.name, case.lattice);
    let mut got = vec![Complex64::ZERO; 3];
    network
        .try_log_psi(&case.spins, &mut got)
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    for (g, w) in got.iter().zip(&case.log_psi) {
        assert!(
            error(*g, *w) <= 1e-11 * w.norm().max(1.0),
            "{what}: {g} instead of {w}"
        );
    }
    let n = case.lattice.sites();
    let seen = Mutex::new(0);
    let compare = |sample: usize, got: [&[f64]; 2]| {
        *seen.lock().unwrap() += 1;
        let spins = &case.spins[sample * n..(sample + 1) * n];
        for (output, got) in got.iter().enumerate().take(case.graph.outputs.len()) {
            let want = gradient(case, output, spins);
            assert_eq!(got.len(), want.len(), "{what}");
            let scale = want.iter().fold(1.0, |m: f64, w| m.max(w.abs()));
            for (k, (g, w)) in got.iter().zip(&want).enumerate() {
                let off = (g - w).abs();
                assert!(
                    off <= 1e-10 * scale,
                    "{what}, parameter {k}: {g} instead of {w}"
                );
            }
        }
    };
    let two = &case.spins[..2 * n];
    network
        .try_gradients(two, &|sample, re, im| compare(sample, [re, im]))
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(*seen.lock().unwrap(), 2);
}

#[test]
fn log_psi_and_gradients_of_every_example_in_f64() {
    let cases = cases(0, 3);
    assert!(cases.len() >= 21, "only {} cases", cases.len());
    cases.par_iter().enumerate().for_each(|(k, case)| {
        let order = [Order::Forward, Order::Backward, Order::Random(k as i32)][k % 3];
        compare_in_f64(case, order);
    });
}

#[test]
fn log_psi_and_gradients_on_the_smallest_lattices() {
    let fewest = [
        ("jastrow", 1, Boundary::Periodic),
        ("jastrow", 1, Boundary::Open),
        ("jastrow", 2, Boundary::Periodic),
        ("recurrent_mixers", 1, Boundary::Periodic),
        ("recurrent_mixers", 1, Boundary::Open),
        ("rbm_complex", 1, Boundary::Open),
        ("vit", 2, Boundary::Periodic),
    ];
    let examples = examples();
    fewest.par_iter().for_each(|&(name, sites, boundary)| {
        let example = examples.iter().find(|e| e.0 == name);
        let (_, graph) = example.unwrap_or_else(|| panic!("no example {name}"));
        let case = Case::new(name, graph, Lattice::chain(sites, boundary), 3);
        let case = case.unwrap_or_else(|| panic!("{name} does not exist on {sites} sites"));
        compare_in_f64(&case, Order::Backward);
    });
}

#[test]
fn log_psi_and_gradients_of_every_example_in_f32() {
    let cases = cases(1, 3);
    assert!(cases.len() >= 21, "only {} cases", cases.len());
    cases.par_iter().enumerate().for_each(|(k, case)| {
        let order = [Order::Random(k as i32), Order::Forward, Order::Backward][k % 3];
        let network = case.network(Precision::F32, order);
        let what = format!("{} on {:?}", case.name, case.lattice);
        let mut got = vec![Complex64::ZERO; 3];
        network
            .try_log_psi(&case.spins, &mut got)
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        for k in 0..3 {
            let (g, w) = (got[k] - got[0], case.log_psi[k] - case.log_psi[0]);
            assert!(error(g, w) <= 2e-5, "{what}: ratio {g} instead of {w}");
        }
        let one = &case.spins[..case.lattice.sites()];
        let want = gradient(case, 0, one);
        let scale = want.iter().fold(1.0, |m: f64, w| m.max(w.abs()));
        let check = |_, re: &[f64], _: &[f64]| {
            for (k, (g, w)) in re.iter().zip(&want).enumerate() {
                let off = (g - w).abs();
                assert!(
                    off <= 1e-4 * scale,
                    "{what}, parameter {k}: {g} instead of {w}"
                );
            }
        };
        network
            .try_gradients(one, &check)
            .unwrap_or_else(|e| panic!("{what}: {e}"));
    });
}

/// Networks whose single flips are always compared, rings first.
const FLIPPED: [&str; 8] = [
    "dysonnet",
    "rbm",
    "dysonnet_complex",
    "positional",
    "cnn",
    "jastrow",
    "deep",
    "graph",
];

#[test]
fn single_flips_of_examples_with_a_flip_program() {
    let [ring, open] = [Boundary::Periodic, Boundary::Open].map(|b| Lattice::chain(26, b));
    let mut cases = Vec::new();
    for (name, graph) in examples() {
        let listed = FLIPPED.contains(&name.as_str());
        for (lattice, usual) in [(ring, listed), (open, name == "dysonnet")] {
            if usual || everything() {
                cases.extend(Case::new(&name, &graph, lattice, 2));
            }
        }
    }
    let with_program: usize = cases
        .par_iter()
        .enumerate()
        .map(|(k, case)| {
            let precision = if k % 4 == 3 {
                Precision::F32
            } else {
                Precision::F64
            };
            let order = [Order::Backward, Order::Random(k as i32), Order::Forward][k % 3];
            let mut network = case.network(precision, order);
            // other parameters first: the program must follow them
            let theta = case.theta();
            let other: Vec<f64> = theta.iter().map(|x| 0.5 * x).collect();
            network.try_set_params(&other).expect("a network");
            if network.flips().is_err() {
                return 0;
            }
            network.try_set_params(&theta).expect("a network");
            let what = format!("{} on {:?}", case.name, case.lattice);
            let mut got = vec![Complex64::ZERO; case.spins.len()];
            let flips = network.flips().unwrap_or_else(|e| panic!("{what}: {e}"));
            flips
                .ratios(&case.spins, &mut got)
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            let n = case.lattice.sites();
            let bound = if precision == Precision::F64 {
                1e-10
            } else {
                2e-5
            };
            for (k, got) in got.iter().enumerate() {
                let mut spins = case.spins[k / n * n..][..n].to_vec();
                spins[k % n] = -spins[k % n];
                let want = case.log_psi_of(&spins) - case.log_psi[k / n];
                assert!(
                    error(*got, want) <= bound,
                    "{what} flip {k}: {got} instead of {want}"
                );
            }
            1
        })
        .sum();
    let expected = if everything() { 18 } else { 6 };
    assert!(
        with_program >= expected,
        "only {with_program} flip programs"
    );
}

#[test]
fn batches_are_cut_to_fit_the_memory() {
    let (name, graph) = examples().swap_remove(0);
    let case = Case::new(&name, &graph, Lattice::chain(12, Boundary::Periodic), 9);
    let case = case.expect("a ring of twelve");
    let run = |budget: usize, blocks: usize| {
        let device: Arc<dyn Device> = Arc::new(ShimDevice::new(Order::Forward, blocks, budget));
        let options = Options::new(Precision::F64);
        let network = CudaNetwork::new(device, &graph, case.lattice, &case.theta(), &options);
        let network = network.expect("compiles");
        let mut log_psi = vec![Complex64::ZERO; 9];
        network
            .try_log_psi(&case.spins, &mut log_psi)
            .expect("runs");
        let gradients = Mutex::new(vec![Vec::new(); 9]);
        let keep = |k: usize, re: &[f64], _: &[f64]| gradients.lock().unwrap()[k] = re.to_vec();
        network.try_gradients(&case.spins, &keep).expect("runs");
        (log_psi, gradients.into_inner().unwrap())
    };
    let all = run(1 << 30, 16);
    assert!(all.1.iter().all(|g| !g.is_empty()));
    assert_eq!(all, run(0, 1), "one configuration at a time");
    assert_eq!(all, run(20_000, 2), "a few at a time");
}

#[test]
fn a_background_follows_accepted_flips() {
    let examples = examples();
    let (name, graph) = examples
        .iter()
        .find(|e| e.0 == "dysonnet")
        .expect("the example");
    let lattice = Lattice::chain(26, Boundary::Periodic);
    let case = Case::new(name, graph, lattice, 1).expect("a ring");
    let network = case.network(Precision::F64, Order::Forward);
    let network: &dyn dnet::run::WaveFunction = &network;
    let mut spins = case.spins.clone();
    let mut background = network.background(&spins);
    for accepted in [vec![3], vec![2, 11, 12]] {
        let clusters: [&[usize]; 3] = [&[7], &[1, 2], &[25]];
        let mut got = [Complex64::ZERO; 3];
        background.log_ratios(&clusters.concat(), &[1, 3, 4], &mut got);
        let mut all = vec![Complex64::ZERO; 26];
        background.single_flips(&mut all);
        assert!(error(all[7], got[0]) < 1e-12);
        for (cluster, got) in clusters.iter().zip(got) {
            let mut s = spins.clone();
            cluster.iter().for_each(|&f| s[f] = -s[f]);
            let want = case.log_psi_of(&s) - case.log_psi_of(&spins);
            assert!(error(got, want) < 1e-11, "{cluster:?}");
        }
        background.accept(&accepted);
        accepted.iter().for_each(|&f| spins[f] = -spins[f]);
        assert!(error(background.log_psi(), case.log_psi_of(&spins)) < 1e-11);
    }
}
