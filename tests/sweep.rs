//! Compiled environments: the exact sweep against full evaluation by the
//! reference interpreter, at any depth, on rings and open chains.

mod abacus_nets;
mod dysonnet_files;

use abacus_nets::{Mix, Net, Plan, Rng};
use dnet::back::cpu::budget::Budget;
use dnet::back::cpu::network::{CpuNetwork, Updates};
use dnet::back::cpu::simd::Real;
use dnet::check::Program;
use dnet::interp::{Tensor, evaluate};
use dnet::ir::{Boundary, Graph, Lattice, lower};
use dnet::params::initialise;
use dnet::pipeline;
use dnet::run::{Task, WaveFunction};
use num_complex::Complex64;
use std::sync::Arc;

const BOUNDARIES: [Boundary; 2] = [Boundary::Periodic, Boundary::Open];

/// A network on a lattice with parameters.
struct Case {
    name: String,
    graph: Graph,
    lattice: Lattice,
    params: Vec<Tensor>,
}

impl Case {
    fn theta(&self) -> Vec<f64> {
        self.params.iter().flat_map(|t| t.data.clone()).collect()
    }
    fn exact(&self, spins: &[i8]) -> Complex64 {
        let values = evaluate(&self.graph, self.lattice, &self.params, spins);
        values
            .unwrap_or_else(|e| panic!("{}: {e}", self.name))
            .log_psi()
    }
    fn compiled<T: Real>(&self) -> CpuNetwork<T> {
        let mut network = CpuNetwork::new(self.graph.clone(), self.lattice, &self.theta())
            .unwrap_or_else(|e| panic!("{}: {e}", self.name));
        network.set_updates(Updates::Abacus);
        if let Err(e) = network.environments() {
            panic!("{}: {e}", self.name);
        }
        network
    }

    /// A sweep in which every `one_in`-th proposal is accepted; the largest error
    /// of a log ratio, relative to max(1, |log ratio|).
    fn sweep<T: Real>(&self, network: &CpuNetwork<T>, reverse: bool, rng: &mut Rng) -> f64 {
        let n = self.lattice.sites();
        let mut spins = rng.spins(n);
        let mut current = spins.clone();
        let mut old = self.exact(&current);
        let (mut order, mut worst, mut accepted) = (vec![], 0.0_f64, 0);
        let done = network.sweep(&mut spins, reverse, &mut |site, ratio| {
            order.push(site);
            current[site] = -current[site];
            let new = self.exact(&current);
            let error = (ratio - (new - old)).norm() / (new - old).norm().max(1.0);
            worst = worst.max(if error.is_nan() { f64::INFINITY } else { error });
            let accept = rng.chance(2);
            if accept {
                accepted += 1;
                old = new;
            } else {
                current[site] = -current[site];
            }
            accept
        });
        assert!(done.is_some(), "{}: no sweep", self.name);
        let mut expected: Vec<usize> = (0..n).collect();
        if reverse {
            expected.reverse();
        }
        assert_eq!(order, expected, "{}", self.name);
        assert_eq!(spins, current, "{}: the moves made", self.name);
        assert!(accepted > 0 || n < 8);
        worst
    }
}

fn random_case(depth: usize, seed: u64, tokens: usize, boundary: Boundary) -> Case {
    let plan = Plan::of_recurrences(depth, &mut Rng(seed));
    let lattice = Lattice::chain(tokens * plan.token[0], boundary);
    let net = Net::build(lattice, &plan, seed ^ 0x55);
    Case {
        name: format!("{plan:?}, {tokens} tokens, {boundary:?}, seed {seed}"),
        graph: net.graph,
        lattice,
        params: net.params,
    }
}

/// A network of the standard library's mixers, parameters of order one.
fn program_case(mixers: [&str; 3], tokens: usize, boundary: Boundary, seed: u64) -> Case {
    let text = format!(
        "use std::nn::{{dense, mean, silu, log_cosh_head}}
         use std::mixers::{{s4, s4d, lru, exponential}}
         network mixed() {{
             let phi = patch(spins, 2) |> dense(4)
             var h = phi
             h += silu(dense(phi, 4)) * {}
             h += silu(dense(phi, 4)) * {}
             h += silu(dense(phi, 4)) * {}
             log_psi = mean(h) |> log_cosh_head(3)
         }}",
        mixers[0], mixers[1], mixers[2]
    );
    let program = Program::parse("mixed.dnet", &text);
    let info = program
        .network("mixed")
        .check()
        .unwrap_or_else(|e| panic!("{e}"));
    let graph = pipeline::amplitude(&pipeline::graph(&info));
    let lattice = Lattice::chain(2 * tokens, boundary);
    Case {
        name: format!("{mixers:?}, {tokens} tokens, {boundary:?}"),
        params: order_one(&graph, lattice, seed),
        graph,
        lattice,
    }
}

fn order_one(graph: &Graph, lattice: Lattice, seed: u64) -> Vec<Tensor> {
    let mut rng = Rng(seed);
    let spins = vec![1; lattice.sites()];
    let context = dnet::interp::Context::new(lattice, &[], &spins).expect("a lattice");
    let tensor = |p: &dnet::ir::GraphParam| {
        let shape = context.shape(&p.ty).expect("a shape");
        Tensor::from_fn(&shape, |_| rng.sym())
    };
    graph.params.iter().map(tensor).collect()
}

#[test]
fn sweeps_of_random_networks_are_exact() {
    let (mut seed, mut failures) = (0, vec![]);
    for depth in 1..=4 {
        for boundary in BOUNDARIES {
            for tokens in [1, 3, 8, 23] {
                seed += 1;
                let case = random_case(depth, seed, tokens, boundary);
                let network = case.compiled::<f64>();
                for reverse in [false, true] {
                    let worst = case.sweep(&network, reverse, &mut Rng(seed));
                    if worst >= 1e-10 {
                        failures.push(format!("{worst:e}, reverse {reverse}: {}", case.name));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn sweeps_in_single_precision() {
    for (seed, depth) in [(51, 1), (52, 2), (53, 3)] {
        for boundary in BOUNDARIES {
            let case = random_case(depth, seed, 25, boundary);
            let worst = case.sweep(&case.compiled::<f32>(), false, &mut Rng(seed));
            assert!(worst < 2e-5, "{worst:e}: {}", case.name);
        }
    }
}

/// With less memory fewer segments are kept, others are grown again: the same numbers.
/// Below what one sweep takes there are no environments, and a reason.
#[test]
fn sweeps_keep_to_the_memory_there_is() {
    let case = random_case(2, 63, 230, Boundary::Periodic);
    let mut network = case.compiled::<f32>();
    let spins = Rng(5).spins(case.lattice.sites());
    let want = ratios(&network, &spins);
    let bytes = |network: &CpuNetwork<f32>| network.strategy(Task::Sweep).bytes;
    let most = bytes(&network);
    let threads = rayon::current_num_threads();
    let (mut least, mut refused) = (most, false);
    for part in 1..=40 {
        // half of it is for sweeps
        let limit = 2 * threads * most * (41 - part) / 40;
        if network.work_within(&Arc::new(Budget::new(limit))).is_err() {
            break;
        }
        match network.environments() {
            Ok(_) => {
                assert!(bytes(&network) <= limit / 2);
                least = least.min(bytes(&network));
                assert_eq!(ratios(&network, &spins), want);
            }
            Err(why) => {
                refused = true;
                assert!(why.to_string().contains("--memory"), "{why}");
                assert!(least > limit / 2, "{least} would fit {limit}");
            }
        }
    }
    assert!(least < most, "{least} of {most}");
    let room = 2 * least - 2;
    if network.work_within(&Arc::new(Budget::new(room))).is_ok() {
        refused |= network.environments().is_err();
    }
    assert!(refused, "{least} of {most} bytes");
}

/// The published network at depth 4.
fn published(tokens: usize, boundary: Boundary) -> (Case, Vec<Tensor>) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/dysonnet.dnet");
    let program = Program::load(&file);
    let network = program.network("dysonnet").with("depth", 4);
    let info = network.check().expect("the example");
    let lowered = pipeline::graph(&info);
    let lattice = Lattice::chain(2 * tokens, boundary);
    let initial = initialise(&info, &lowered, lattice, 5).expect("parameters");
    let graph = pipeline::amplitude(&lowered);
    let case = Case {
        name: format!("depth 4, {tokens} tokens, {boundary:?}"),
        params: order_one(&graph, lattice, 6),
        graph,
        lattice,
    };
    (case, initial.tensors)
}

/// Log ratios of a sweep in which every third spin is flipped.
fn ratios<T: Real>(network: &CpuNetwork<T>, spins: &[i8]) -> Vec<Complex64> {
    let (mut spins, mut ratios) = (spins.to_vec(), Vec::new());
    let done = network.sweep(&mut spins, false, &mut |site, ratio| {
        ratios.push(ratio);
        site % 3 == 0
    });
    done.expect("a sweep");
    ratios
}

fn worst(a: &[Complex64], b: &[Complex64]) -> f64 {
    let errors = a.iter().zip(b).map(|(a, b)| (a - b).norm());
    errors.fold(
        0.0,
        |x, e| if e.is_nan() { f64::INFINITY } else { x.max(e) },
    )
}

/// Single precision at depth 4 is good to 2e-5 at the size of initial parameters and
/// around it; with parameters of order one, where the network amplifies, also to eight
/// times what one rounding of every parameter makes (the worst of four).
#[test]
fn depth_four_in_single_precision() {
    for boundary in BOUNDARIES {
        let (mut case, initial) = published(27, boundary);
        let spins = Rng(9).spins(case.lattice.sites());
        let large = std::mem::replace(&mut case.params, initial);
        let mut rng = Rng(10);
        let tensors = case.params.iter_mut();
        tensors.for_each(|t| t.data.iter_mut().for_each(|x| *x += 0.1 * rng.sym()));
        let mut single = case.compiled::<f32>();
        let mut double = case.compiled::<f64>();
        for (size, params) in [("initial", case.params.clone()), ("order one", large)] {
            case.params = params;
            let theta = case.theta();
            single.set_params(&theta);
            let got = ratios(&single, &spins);
            // some of them by the reference interpreter
            let (mut now, mut exact) = (spins.clone(), Vec::new());
            let mut chosen = Vec::new();
            for site in 0..spins.len() {
                let old = now.clone();
                now[site] = -now[site];
                if site % 13 == 5 {
                    exact.push(case.exact(&now) - case.exact(&old));
                    chosen.push(site);
                }
                if site % 3 != 0 {
                    now = old;
                }
            }
            let pick = |all: Vec<Complex64>| -> Vec<Complex64> {
                chosen.iter().map(|&site| all[site]).collect()
            };
            let got = pick(got);
            let roundings = if size == "initial" { 0 } else { 4 };
            let mut sensitivity = 0.0_f64;
            for _ in 0..roundings {
                let unit = f64::from(f32::EPSILON) / 2.0;
                let near: Vec<f64> = theta.iter().map(|x| x * (1.0 + unit * rng.sym())).collect();
                double.set_params(&near);
                let near = pick(ratios(&double, &spins));
                sensitivity = sensitivity.max(worst(&near, &exact));
            }
            let (error, largest) = (
                worst(&got, &exact),
                exact.iter().map(|z| z.norm()).fold(0.0, f64::max),
            );
            println!(
                "{size}, {boundary:?}: {error:.1e}, ratios up to {largest:.1}, one rounding {sensitivity:.1e}"
            );
            let slack = if size == "initial" {
                0.0
            } else {
                8.0 * sensitivity
            };
            assert!(
                error <= 2e-5 + slack,
                "{size}, {}: {error:e}, one rounding of the parameters makes {sensitivity:e}",
                case.name
            );
        }
    }
}

#[test]
fn every_recurrence_of_the_library_sweeps() {
    let all = [
        "s4(h, 3, bidirectional: true)",
        "s4(h, 4)",
        "s4d(h, 2, bidirectional: true)",
        "lru(h, 3, bidirectional: true)",
        "exponential(h, 2)",
    ];
    for k in 0..all.len() {
        let mixers = [all[k], all[(k + 1) % 5], all[(k + 3) % 5]];
        let boundary = BOUNDARIES[k % 2];
        let case = program_case(mixers, 14 + k, boundary, k as u64);
        let worst = case.sweep(&case.compiled::<f64>(), k % 3 == 0, &mut Rng(k as u64));
        assert!(worst < 1e-10, "{worst:e}: {}", case.name);
    }
}

#[test]
fn reference_networks_sweep() {
    let mut files: Vec<_> = std::fs::read_dir(dysonnet_files::golden_dir())
        .expect("reference files")
        .map(|f| f.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .filter(|p| {
            let name = p
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            name.starts_with('g')
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        let g: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
        let graph = pipeline::amplitude(&pipeline::graph(&dysonnet_files::network(&g)));
        let sites = g["N"].as_u64().expect("N") as usize;
        if sites > 40 {
            continue;
        }
        let case = Case {
            name: file.display().to_string(),
            params: dysonnet_files::params(&g, &graph),
            lattice: Lattice::chain(sites, Boundary::Periodic),
            graph,
        };
        let worst = case.sweep(&case.compiled::<f64>(), false, &mut Rng(3));
        assert!(worst < 1e-10, "{worst:e}: {}", case.name);
        let worst = case.sweep(&case.compiled::<f32>(), true, &mut Rng(4));
        assert!(worst < 2e-5, "{worst:e}: {}", case.name);
    }
}

/// Decisions of the sweep and of full evaluation with the same random numbers.
#[test]
fn decisions_are_those_of_exact_metropolis() {
    for boundary in BOUNDARIES {
        let case = random_case(2, 71, 20, boundary);
        let network = case.compiled::<f64>();
        let mut rng = Rng(5);
        let mut spins = rng.spins(case.lattice.sites());
        let mut current = spins.clone();
        let mut old = case.exact(&current);
        for sweep in 0..8 {
            let mut decide = |site: usize, ratio: Complex64| {
                let u = 0.5 * (rng.sym() + 1.0);
                current[site] = -current[site];
                let new = case.exact(&current);
                let exact = 0.5 * u.ln() < (new - old).re;
                assert_eq!(0.5 * u.ln() < ratio.re, exact, "{}", case.name);
                if exact {
                    old = new;
                } else {
                    current[site] = -current[site];
                }
                exact
            };
            network
                .sweep(&mut spins, sweep % 2 == 1, &mut decide)
                .expect("a sweep");
            assert_eq!(spins, current);
        }
    }
}

#[test]
fn sweeps_follow_new_parameters_and_repeat_exactly() {
    let case = random_case(2, 91, 12, Boundary::Periodic);
    let mut network = case.compiled::<f32>();
    let run = |network: &CpuNetwork<f32>| {
        let mut spins = Rng(8).spins(case.lattice.sites());
        let mut ratios = Vec::new();
        network
            .sweep(&mut spins, false, &mut |_, ratio| {
                ratios.push(ratio);
                ratio.re > 0.0
            })
            .expect("a sweep");
        (spins, ratios)
    };
    let first = run(&network);
    let theta: Vec<f64> = case.theta().iter().map(|x| 0.9 * x).collect();
    network.set_params(&theta);
    let second = run(&network);
    assert_ne!(first.1, second.1);
    let mut fresh = CpuNetwork::<f32>::new(case.graph.clone(), case.lattice, &theta).unwrap();
    fresh.set_updates(Updates::Abacus);
    assert_eq!(run(&fresh), second);
    network.set_params(&case.theta());
    assert_eq!(run(&network), first);
}

/// A small network is cheaper to evaluate in full; its environments can be asked for,
/// and give the same sweep as where they are the choice.
#[test]
fn environments_can_be_asked_for() {
    let case = random_case(2, 17, 19, Boundary::Periodic);
    let network = CpuNetwork::<f64>::new(case.graph.clone(), case.lattice, &case.theta()).unwrap();
    assert!(network.why_in_full(Task::Sweep).is_none());
    let spins = Rng(2).spins(case.lattice.sites());
    let sweep = |network: &CpuNetwork<f64>, asked: bool| {
        let (mut spins, mut ratios) = (spins.clone(), Vec::new());
        let mut decide = |_: usize, ratio: Complex64| {
            ratios.push(ratio);
            ratio.re > 0.0
        };
        let done = if asked {
            network.sweep_by_environments(&mut spins, true, &mut decide)
        } else {
            network.sweep(&mut spins, true, &mut decide)
        };
        done.map(|()| (spins, ratios))
    };
    assert_eq!(
        sweep(&network, false),
        None,
        "full evaluation is cheaper here"
    );
    let asked = sweep(&network, true).expect("environments");
    assert_eq!(Some(asked), sweep(&case.compiled::<f64>(), false));
    let cost = network.strategy(Task::Sweep);
    assert_eq!(cost.name, "environments");
    assert!(cost.flops > 0.0 && cost.bytes > 0);
}

#[test]
fn other_networks_have_no_environments() {
    let lattice = Lattice::chain(8, Boundary::Periodic);
    for mix in [Mix::Convolve, Mix::Pairs, Mix::Modes] {
        let plan = Plan::dysonnet(1, (0, 1), &[Mix::ScanReal, mix]);
        let net = Net::build(lattice, &plan, 1);
        let theta: Vec<f64> = net.params.iter().flat_map(|t| t.data.clone()).collect();
        let mut network = CpuNetwork::<f64>::new(net.graph, lattice, &theta).unwrap();
        network.set_updates(Updates::Abacus);
        assert!(network.environments().is_err());
        let done = network.sweep(&mut [1; 8], false, &mut |_, _| unreachable!());
        assert!(done.is_none());
        let done = network.sweep_by_environments(&mut [1; 8], true, &mut |_, _| unreachable!());
        assert!(done.is_none());
        let why = network.why_in_full(Task::Sweep).expect("a reason");
        assert!(why.contains("is not a recurrence"), "{why}");
    }
    let text = "use std::nn::{dense, log_cosh_head}
        network local() { log_psi = mean(tanh(dense(patch(spins, 2), 3))) |> log_cosh_head(2) }
        use std::nn::mean";
    let program = Program::parse("local.dnet", text);
    if let Ok(info) = program.network("local").check() {
        let graph = lower(&info).graph;
        let params = order_one(&graph, lattice, 1);
        let theta: Vec<f64> = params.iter().flat_map(|t| t.data.clone()).collect();
        let network = CpuNetwork::<f64>::new(graph, lattice, &theta).unwrap();
        assert!(network.environments().is_err());
    }
}

#[test]
fn changes_between_environments_are_exact() {
    for (depth, tokens, seed) in [(1, 9, 31), (3, 26, 32), (4, 40, 33)] {
        for boundary in BOUNDARIES {
            let case = random_case(depth, seed, tokens, boundary);
            let network = case.compiled::<f64>();
            let n = case.lattice.sites();
            let spins = Rng(seed).spins(n);
            let old = case.exact(&spins);
            let mut clusters: Vec<Vec<usize>> = (0..n).step_by(3).map(|i| vec![i]).collect();
            clusters.extend([vec![0, 1], vec![n / 2, n / 2 + 2], vec![0, n - 1], vec![]]);
            let sites: Vec<usize> = clusters.concat();
            let mut end = 0;
            let ends: Vec<usize> = clusters
                .iter()
                .map(|c| {
                    end += c.len();
                    end
                })
                .collect();
            let mut out = vec![Complex64::ZERO; clusters.len()];
            network
                .background(&spins)
                .log_ratios(&sites, &ends, &mut out);
            let environments = network.environments().expect("environments");
            let mut own = vec![Complex64::ZERO; clusters.len()];
            let wide = environments.log_ratios(&spins, &sites, &ends, &mut own);
            for (k, cluster) in clusters.iter().enumerate() {
                let mut new = spins.clone();
                cluster.iter().for_each(|&i| new[i] = -new[i]);
                let exact = case.exact(&new) - old;
                let bound = 1e-10 * exact.norm().max(1.0);
                let error = (out[k] - exact).norm();
                assert!(error < bound, "{error:e}, {cluster:?}: {}", case.name);
                let error = (own[k] - exact).norm();
                assert!(
                    wide.contains(&k) || error < bound,
                    "{error:e}, {cluster:?}: {}",
                    case.name
                );
            }
            assert!(wide.len() <= 2, "{wide:?}: {}", case.name);
        }
    }
}
