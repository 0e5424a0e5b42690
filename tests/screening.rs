//! The rigorous bound of the screened typewriter, and decisions of the sweep and
//! the typewriter against exact Metropolis with the same random numbers.

mod abacus_nets;
mod dysonnet_files;

use abacus_nets::{Mix, Net, Plan, Rng};
use dnet::back::cpu::network::{CpuNetwork, Updates};
use dnet::check::Program;
use dnet::interp::{Tensor, evaluate};
use dnet::ir::{Boundary, Graph, Lattice};
use dnet::params::{Params, initialise, perturb};
use dnet::pipeline;
use dnet::run::WaveFunction;
use dnet::run::network::Precision;
use dnet::vmc::rng::{ChainRng, Stream};
use dnet::vmc::sampler::*;
use num_complex::Complex64;
use std::path::Path;

const BOUNDARIES: [Boundary; 2] = [Boundary::Periodic, Boundary::Open];

/// A network with parameters on a lattice.
struct Case {
    name: String,
    graph: Graph,
    lattice: Lattice,
    params: Params,
}

impl Case {
    fn new(name: String, graph: Graph, lattice: Lattice, tensors: Vec<Tensor>) -> Case {
        let mut params = Params::zeros(&graph, lattice).unwrap();
        params.tensors = tensors;
        Case {
            name,
            graph,
            lattice,
            params,
        }
    }
    fn of(name: String, net: Net) -> Case {
        Case::new(name, net.graph, net.lattice, net.params)
    }
    fn log_psi(&self, spins: &[i8]) -> f64 {
        evaluate(&self.graph, self.lattice, &self.params.tensors, spins)
            .unwrap_or_else(|e| panic!("{}: {e}", self.name))
            .log_psi()
            .re
    }
    fn bound(&self) -> Rigorous {
        Rigorous::new(&self.graph, self.lattice, &self.params, Precision::F64)
            .unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }
    fn compiled(&self) -> CpuNetwork<f64> {
        CpuNetwork::new(self.graph.clone(), self.lattice, &self.params.flat()).unwrap()
    }

    /// What the frozen log ratio of `site` misses after the flips `accepted`.
    fn error(&self, spins: &[i8], accepted: &[usize], site: usize) -> f64 {
        let at = |flips: &[usize]| {
            let mut s = spins.to_vec();
            flips.iter().for_each(|&f| s[f] = -s[f]);
            self.log_psi(&s)
        };
        let both: Vec<usize> = accepted.iter().copied().chain([site]).collect();
        ((at(&both) - at(accepted)) - (at(&[site]) - at(&[]))).abs()
    }

    /// Random backgrounds and flips; the largest error over its bound.
    fn attack(&self, attempts: usize, rng: &mut Rng) -> f64 {
        let n = self.lattice.sites();
        let bound = self.bound();
        let mut worst = 0.0_f64;
        for _ in 0..attempts {
            let spins = rng.spins(n);
            let site = rng.below(n);
            let mut accepted: Vec<usize> = (0..1 + rng.below(4))
                // near and far
                .map(|_| {
                    if rng.chance(2) {
                        rng.below(n)
                    } else {
                        (site + 1 + rng.below(3)) % n
                    }
                })
                .filter(|&f| f != site)
                .collect();
            accepted.sort_unstable();
            accepted.dedup();
            if accepted.is_empty() {
                continue;
            }
            let (error, promised) = (
                self.error(&spins, &accepted, site),
                bound.log_error(&accepted, site),
            );
            assert!(
                error <= promised,
                "{}: flips {accepted:?} then {site}: {error} > {promised}",
                self.name
            );
            assert!(promised.is_finite(), "{}", self.name);
            worst = worst.max(error / promised);
        }
        worst
    }
}

/// The published network, small: parameters as at the start of a training, then
/// perturbed by `size`.
fn dysonnet(sites: usize, boundary: Boundary, size: f64) -> Case {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let program = Program::load(&examples.join("dysonnet.dnet"));
    let info = program
        .only_network()
        .with("dim", 4)
        .with("states", 3)
        .with("kernel", 2)
        .check()
        .unwrap_or_else(|e| panic!("{e}"));
    let lowered = pipeline::graph(&info);
    let lattice = Lattice::chain(sites, boundary);
    let mut params = initialise(&info, &lowered, lattice, 7).unwrap();
    perturb(&mut params, size, 3);
    Case {
        name: format!("dysonnet, {sites} sites, {boundary:?}, perturbed by {size}"),
        graph: pipeline::amplitude(&lowered),
        lattice,
        params,
    }
}

/// Networks of every class of mixers, parameters of order one.
fn random_networks() -> Vec<Case> {
    let kinds = [
        Mix::ScanComplex,
        Mix::ScanReal,
        Mix::ScanDense,
        Mix::Convolve,
        Mix::ConvolveComplex,
        Mix::Pairs,
        Mix::Modes,
    ];
    let mut cases = Vec::new();
    for seed in 0..28 {
        let mut rng = Rng(seed);
        let boundary = BOUNDARIES[seed as usize % 2];
        let depth = 1 + rng.below(3);
        // momenta exist on rings only
        let known = if boundary == Boundary::Periodic { 7 } else { 6 };
        let mixers: Vec<Mix> = (0..depth).map(|_| kinds[rng.below(known)]).collect();
        let lo = -(rng.below(2) as i64);
        let token = 1 + rng.below(2);
        let mut plan = Plan::dysonnet(token, (lo, lo + rng.below(2) as i64), &mixers);
        plan.residual = rng.chance(2);
        plan.skips = rng.chance(3);
        plan.matrix = rng.chance(3);
        plan.stencil = rng.chance(4);
        plan.final_mixer = rng.chance(4);
        plan.weighted = rng.chance(4);
        plan.gather = rng.chance(4);
        plan.complex_output = rng.chance(4);
        let lattice = Lattice::chain(token * (4 + rng.below(4)), boundary);
        let net = Net::build(lattice, &plan, seed ^ 0x77);
        cases.push(Case::of(format!("{plan:?}, {lattice:?}, seed {seed}"), net));
    }
    cases.push(Case::of("boltzmann".into(), Net::boltzmann(9)));
    let mut plan = Plan::dysonnet(1, (0, 1), &[Mix::Convolve]);
    plan.token = [1, 2];
    let torus = Lattice {
        extent: [3, 4],
        boundary: Boundary::Periodic,
    };
    cases.push(Case::of("torus".into(), Net::build(torus, &plan, 5)));
    cases
}

#[test]
fn no_error_exceeds_the_rigorous_bound() {
    let mut best = 0.0_f64;
    for (seed, case) in random_networks().iter().enumerate() {
        best = best.max(case.attack(60, &mut Rng(seed as u64)));
    }
    // a bound that is nowhere near any error would pass whatever it said
    assert!(best > 0.2, "no error reached {best} of its bound");
    for boundary in BOUNDARIES {
        for size in [0.0, 0.1] {
            dysonnet(16, boundary, size).attack(60, &mut Rng(9));
        }
    }
}

#[test]
fn the_bound_of_a_pair_covers_every_configuration() {
    for (seed, boundary) in [(1, Boundary::Periodic), (2, Boundary::Open)] {
        let lattice = Lattice::chain(6, boundary);
        let plan = Plan::dysonnet(1, (0, 1), &[Mix::ScanComplex, Mix::Convolve]);
        let case = Case::of(format!("{boundary:?}"), Net::build(lattice, &plan, seed));
        let bound = case.bound();
        let all: Vec<f64> = (0..1u32 << 6)
            .map(|s| {
                let spins: Vec<i8> = (0..6).map(|i| 1 - 2 * (s >> i & 1) as i8).collect();
                case.log_psi(&spins)
            })
            .collect();
        for f in 0..6 {
            for j in (0..6).filter(|&j| j != f) {
                let worst = (0..1usize << 6)
                    .map(|s| {
                        let (a, b) = (1 << f, 1 << j);
                        (all[s ^ a ^ b] - all[s ^ a] - all[s ^ b] + all[s]).abs()
                    })
                    .fold(0.0, f64::max);
                assert!(
                    worst <= bound.pair(f, j),
                    "{f}, {j}: {worst} > {}",
                    bound.pair(f, j)
                );
            }
        }
    }
}

#[test]
fn networks_without_a_bound_say_why() {
    let refusal = |text: &str, sites| {
        let program = Program::parse("net.dnet", text);
        let info = program
            .only_network()
            .check()
            .unwrap_or_else(|e| panic!("{e}"));
        let lowered = pipeline::graph(&info);
        let lattice = Lattice::chain(sites, Boundary::Periodic);
        let params = initialise(&info, &lowered, lattice, 1).unwrap();
        let graph = pipeline::amplitude(&lowered);
        Rigorous::new(&graph, lattice, &params, Precision::F64)
            .expect_err("no bound")
            .to_string()
    };
    let text = refusal(
        "use std::nn::{dense, mean, log_cosh_head}
         network wide() { log_psi = mean(tanh(dense(patch(spins, 20), 4))) |> log_cosh_head(2) }",
        40,
    );
    assert!(text.contains("20 spins around a site"), "{text}");
    let text = refusal(
        "use std::nn::{dense, mean, log_cosh_head}
         use std::mixers::exponential
         full network deep() { log_psi = mean(tanh(exponential(dense(patch(spins, 2), 4), 2))) |> log_cosh_head(2) }",
        12,
    );
    assert!(text.contains("only full re-evaluation"), "{text}");
}

/// One chain of exact Metropolis or heat-bath sampling by full evaluation,
/// written out, with the random numbers of the sampler's chain.
struct Exact<'a> {
    network: &'a CpuNetwork<f64>,
    rule: Acceptance,
    spins: Vec<i8>,
    log_psi: f64,
    accepted: u64,
}

impl<'a> Exact<'a> {
    fn new(network: &'a CpuNetwork<f64>, rule: Acceptance, spins: &[i8]) -> Exact<'a> {
        let mut exact = Exact {
            network,
            rule,
            spins: spins.to_vec(),
            log_psi: 0.0,
            accepted: 0,
        };
        exact.log_psi = exact.evaluate();
        exact
    }
    fn evaluate(&self) -> f64 {
        let mut out = [Complex64::ZERO];
        self.network.log_psi(&self.spins, &mut out);
        out[0].re
    }
    fn propose(&mut self, site: usize, u: f64) {
        self.spins[site] = -self.spins[site];
        let new = self.evaluate();
        let ratio = (2.0 * (new - self.log_psi)).exp();
        let probability = match self.rule {
            Acceptance::Metropolis => ratio.min(1.0),
            Acceptance::HeatBath => ratio / (1.0 + ratio),
        };
        if u < probability {
            self.log_psi = new;
            self.accepted += 1;
        } else {
            self.spins[site] = -self.spins[site];
        }
    }
    fn sweep(&mut self, rng: &mut ChainRng, step: u64) {
        let n = self.spins.len();
        for k in 0..n {
            let site = if step % 2 == 1 { n - 1 - k } else { k };
            let u = rng.uniform();
            self.propose(site, u);
        }
    }
    fn typewriter(&mut self, rng: &mut ChainRng, width: usize) {
        let n = self.spins.len();
        for pass in 0..2 * width {
            for block in (pass % 2..n.div_ceil(width)).step_by(2) {
                let length = width.min(n - block * width);
                let site = block * width + rng.below(length as u32) as usize;
                let u = rng.uniform();
                self.propose(site, u);
            }
        }
    }
}

/// Samples and compares every chain after every sweep; returns the report.
fn against_exact(
    case: &Case,
    method: Method,
    rule: Acceptance,
    sweeps: usize,
    bound: Option<&dyn ScreenBound>,
) -> Report {
    const CHAINS: usize = 16;
    const SEED: u64 = 23;
    let n = case.lattice.sites();
    let mut network = case.compiled();
    network.set_updates(Updates::Abacus);
    let mut plain = case.compiled();
    plain.set_updates(Updates::Full);
    let options = SamplerOptions {
        method: method.clone(),
        acceptance: rule,
        chains: CHAINS,
        seed: SEED,
        ..Default::default()
    };
    let mut sampler = Sampler::new(options, n).unwrap();
    let mut chains: Vec<Exact> = (sampler.state().spins.chunks_exact(n))
        .map(|spins| Exact::new(&plain, rule, spins))
        .collect();
    let target = Target {
        psi: &network,
        bound,
    };
    let (samples, report) = sampler.sample(target, sweeps);
    for (c, exact) in chains.iter_mut().enumerate() {
        for step in 0..sweeps as u64 {
            let mut rng = ChainRng::new(SEED, c as u32, step, Stream::Sweep);
            match method {
                Method::Typewriter { width, .. } => exact.typewriter(&mut rng, width),
                _ => exact.sweep(&mut rng, step),
            }
            assert_eq!(
                samples.get(c * sweeps + step as usize),
                exact.spins,
                "{}: {method:?}, chain {c}, sweep {step}",
                case.name
            );
        }
    }
    let accepted: u64 = chains.iter().map(|c| c.accepted).sum();
    assert_eq!(report.accepted, accepted);
    assert_eq!(report.proposed, (CHAINS * sweeps * n) as u64);
    assert!((0.05..0.95).contains(&report.acceptance()), "{report:?}");
    assert_eq!(report.sweeps_without_environments, 0);
    report
}

/// Recurrences between small gates, where the bound is tight enough to decide.
fn weak(boundary: Boundary) -> Case {
    let plan = Plan::dysonnet(1, (0, 1), &[Mix::ScanReal, Mix::ScanComplex]);
    let mut net = Net::build(Lattice::chain(24, boundary), &plan, 4);
    let small = |t: &mut Tensor| t.data.iter_mut().for_each(|x| *x *= 0.5);
    net.params.iter_mut().for_each(small);
    Case::of(format!("weak, {boundary:?}"), net)
}

#[test]
fn a_hundred_thousand_decisions_are_those_of_exact_metropolis() {
    let mut proposed = 0;
    for boundary in BOUNDARIES {
        let cases = [
            dysonnet(32, boundary, 0.02),
            dysonnet(24, boundary, 0.3),
            weak(boundary),
        ];
        for case in cases {
            let bound = case.bound();
            let sweep = against_exact(&case, Method::Sweep, Acceptance::HeatBath, 20, None);
            let method = |screened| Method::Typewriter { width: 4, screened };
            let rule = Acceptance::Metropolis;
            let screened = against_exact(&case, method(true), rule, 20, Some(&bound));
            let plain = against_exact(&case, method(false), rule, 20, None);
            println!("{}: {screened:?}", case.name);
            assert_eq!(plain.screened, 0);
            assert!(screened.worst_error_over_bound <= 1.0, "{screened:?}");
            if case.name.starts_with("weak") {
                assert!(screened.screened > 1000, "{screened:?}");
            }
            proposed += sweep.proposed + screened.proposed + plain.proposed;
        }
    }
    assert!(proposed >= 100_000, "{proposed}");
}

/// The bound as a training run has it: for the network in force.
#[test]
fn the_bound_follows_the_precision() {
    let case = dysonnet(12, Boundary::Periodic, 0.1);
    let of = |precision| {
        Rigorous::new(&case.graph, case.lattice, &case.params, precision)
            .unwrap()
            .log_error(&[0], 6)
    };
    let (f32, f64) = (of(Precision::F32), of(Precision::F64));
    assert!(f32 > f64, "{f32} {f64}");
}
