//! Networks of the examples with parameters of order one, on the CPU and on a device.
#![allow(dead_code)] // each test crate uses a part of it

use super::networks;
use super::shim::{Order, ShimDevice};
use dnet::back::cpu::network::CpuNetwork;
use dnet::back::cuda::device::Device;
use dnet::back::cuda::emit::Options;
use dnet::back::cuda::network::CudaNetwork;
use dnet::ir::{Boundary, Graph, Lattice};
use dnet::params::Params;
use dnet::pipeline;
use dnet::rng::{ChainRng, Stream};
use dnet::run::WaveFunction;
use dnet::run::network::Precision;
use dnet::vmc::sampler::Samples;
use std::sync::Arc;

/// A small network on a lattice, with parameters of order one.
pub struct Case {
    pub name: &'static str,
    pub graph: Graph,
    pub lattice: Lattice,
    pub theta: Vec<f64>,
}

impl Case {
    /// The network of an example, as small as it gets.
    pub fn new(name: &'static str, extent: [usize; 2], boundary: Boundary) -> Case {
        let lattice = Lattice { extent, boundary };
        let all = networks::examples();
        let found = all
            .iter()
            .flat_map(|(_, program)| networks::small_networks(program))
            .find(|info| info.name == name);
        let info = found.unwrap_or_else(|| panic!("no network {name}"));
        let graph = pipeline::amplitude(&pipeline::graph(&info));
        let count = Params::zeros(&graph, lattice).expect("exists here").count();
        let mut rng = ChainRng::new(7, 0, 0, Stream::Parameters);
        let theta = (0..count).map(|_| rng.uniform() - 0.5).collect();
        Case {
            name,
            graph,
            lattice,
            theta,
        }
    }

    /// On the CPU.
    pub fn on_cpu(&self, precision: Precision) -> Box<dyn WaveFunction> {
        let (graph, lattice, theta) = (self.graph.clone(), self.lattice, &self.theta);
        match precision {
            Precision::F32 => Box::new(CpuNetwork::<f32>::new(graph, lattice, theta).unwrap()),
            Precision::F64 => Box::new(CpuNetwork::<f64>::new(graph, lattice, theta).unwrap()),
        }
    }

    /// On two blocks, with memory for a few chains at once.
    pub fn on_device(&self, precision: Precision, order: Order) -> CudaNetwork {
        self.with_budget(precision, order, 5 * 2 * (self.lattice.sites() + 8))
    }

    /// On two blocks, with so many bytes of memory.
    pub fn with_budget(&self, precision: Precision, order: Order, budget: usize) -> CudaNetwork {
        self.on(precision, ShimDevice::new(order, 2, budget))
    }

    /// On a device.
    pub fn on(&self, precision: Precision, device: ShimDevice) -> CudaNetwork {
        let device: Arc<dyn Device> = Arc::new(device);
        let options = Options::new(precision);
        CudaNetwork::new(device, &self.graph, self.lattice, &self.theta, &options)
            .unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// Configurations drawn uniformly.
    pub fn samples(&self, count: usize) -> Samples {
        let sites = self.lattice.sites();
        let mut rng = ChainRng::new(5, 0, 0, Stream::Init);
        let spin = |_| if rng.bits() & 1 == 0 { 1 } else { -1 };
        Samples {
            sites,
            per_chain: count,
            spins: (0..count * sites).map(spin).collect(),
            weights: None,
        }
    }
}
