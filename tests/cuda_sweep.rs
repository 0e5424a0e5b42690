//! The exact sweep by environments on a device, compiled for the host, against the
//! sweep on the CPU with the same random numbers.

mod abacus_nets;
#[path = "cuda_shim/mod.rs"]
mod shim;

use abacus_nets::{Mix, Net, Plan, Rng};
use dnet::back::cpu::network::{CpuNetwork, Updates};
use dnet::back::cuda::device::Device;
use dnet::back::cuda::emit::Options;
use dnet::back::cuda::network::CudaNetwork;
use dnet::ir::{Boundary, Graph, Lattice};
use dnet::run::WaveFunction;
use dnet::run::network::Precision;
use dnet::run::walk::{Proposals, Walk};
use dnet::vmc::sampler::{Acceptance, Method, Sampler, SamplerOptions, Target};
use rayon::prelude::*;
use shim::{Order, ShimDevice};
use std::sync::Arc;

/// A network on a lattice with parameters of order one.
struct Case {
    name: String,
    graph: Graph,
    lattice: Lattice,
    theta: Vec<f64>,
}

impl Case {
    fn random(depth: usize, seed: u64, tokens: usize, boundary: Boundary) -> Case {
        let mut rng = Rng(seed);
        let kinds = [Mix::ScanComplex, Mix::ScanReal, Mix::ScanDense];
        let mixers: Vec<Mix> = (0..depth).map(|_| kinds[rng.below(3)]).collect();
        let lo = -(rng.below(3) as i64);
        let hi = lo + rng.below(4) as i64;
        let mut plan = Plan::dysonnet(1 + rng.below(3), (lo, hi), &mixers);
        plan.dim = 2 + 2 * rng.below(2);
        plan.residual = rng.chance(2);
        plan.skips = rng.chance(2);
        plan.matrix = rng.chance(3);
        plan.complex_output = rng.chance(2);
        let lattice = Lattice::chain(tokens * plan.token[0], boundary);
        let net = Net::build(lattice, &plan, seed ^ 0x55);
        Case {
            name: format!("{plan:?}, {tokens} tokens, {boundary:?}, seed {seed}"),
            graph: net.graph,
            lattice,
            theta: net.params.iter().flat_map(|t| t.data.clone()).collect(),
        }
    }

    fn on_cpu(&self, precision: Precision) -> Box<dyn WaveFunction> {
        fn made<T: dnet::back::cpu::simd::Real>(case: &Case) -> CpuNetwork<T> {
            let (graph, theta) = (case.graph.clone(), &case.theta);
            let mut network = CpuNetwork::new(graph, case.lattice, theta).expect("a network");
            network.set_updates(Updates::Abacus);
            network
        }
        match precision {
            Precision::F32 => Box::new(made::<f32>(self)),
            Precision::F64 => Box::new(made::<f64>(self)),
        }
    }

    fn on_device(&self, precision: Precision, order: Order, budget: usize) -> CudaNetwork {
        let device: Arc<dyn Device> = Arc::new(ShimDevice::new(order, 2, budget));
        let options = Options::new(precision);
        let mut network =
            CudaNetwork::new(device, &self.graph, self.lattice, &self.theta, &options)
                .unwrap_or_else(|e| panic!("{}: {e}", self.name));
        network.set_updates(Updates::Abacus);
        network
    }

    /// The same sweeps on both.
    fn compare(
        &self,
        cpu: &dyn WaveFunction,
        device: &CudaNetwork,
        options: &SamplerOptions,
    ) -> (u64, u64) {
        if let Err(e) = device.sweeper() {
            panic!("{}: {e}", self.name);
        }
        // a device that fails leaves chains to the host
        let mut spins = vec![1; self.lattice.sites()];
        let walk = Walk {
            seed: options.seed,
            first: 0,
            step: 0,
            sweeps: 2,
            proposals: Proposals::Sequential,
            heat_bath: true,
            inversion_every: 0,
            uniform_every: 0,
            magnetization: None,
        };
        if let Err(e) = device.try_walk(&mut spins, &walk) {
            panic!("{}: {e}", self.name);
        }
        let [want, got] = [cpu, device].map(|psi| {
            let mut sampler = Sampler::new(options.clone(), self.lattice.sites()).unwrap();
            let before = sampler.advance(Target::new(psi), 1);
            let (samples, report) = sampler.sample(Target::new(psi), 2);
            (samples, sampler.state().clone(), before, report)
        });
        assert_eq!(want, got, "{}", self.name);
        let report = &want.3;
        assert_eq!(report.sweeps_without_environments, 0, "{}", self.name);
        assert!(
            report.not_a_number == 0 && report.accepted > 0,
            "{report:?}"
        );
    }
}

/// Some proposals were accepted and some refused.
fn decides(totals: &[(u64, u64)]) {
    let proposed: u64 = totals.iter().map(|t| t.0).sum();
    let accepted: u64 = totals.iter().map(|t| t.1).sum();
    assert!(0 < accepted && accepted < proposed, "{totals:?}");
}

fn options(seed: u64) -> SamplerOptions {
    SamplerOptions {
        method: Method::Sweep,
        acceptance: [Acceptance::HeatBath, Acceptance::Metropolis][seed as usize % 2],
        chains: 3,
        seed,
        ..SamplerOptions::default()
    }
}

#[test]
fn sweeps_of_random_networks_make_the_decisions_of_the_cpu() {
    let mut cases = Vec::new();
    for depth in 1..=4 {
        for boundary in [Boundary::Open, Boundary::Periodic] {
            for tokens in [3, 23] {
                cases.push((depth, boundary, tokens));
            }
        }
    }
    let totals: Vec<(u64, u64)> = cases
        .par_iter()
        .enumerate()
        .map(|(k, &(depth, boundary, tokens))| {
            let order = [Order::Forward, Order::Backward, Order::Random(k as i32)][k % 3];
            let case = Case::random(depth, k as u64 + 1, tokens, boundary);
            let device = case.on_device(Precision::F64, order, 1 << 26);
            let cpu = case.on_cpu(Precision::F64);
            case.compare(cpu.as_ref(), &device, &options(k as u64))
        })
        .collect();
    decides(&totals);
}
