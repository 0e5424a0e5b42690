//! Emitted CUDA text, compiled for the host, against the reference interpreter.

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
use num_complex::Complex64;
use rayon::prelude::*;
use shim::{Order, ShimDevice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A small deterministic generator: uniform numbers in [0, 1).
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mut x = self.0;
        x ^= x >> 33;
        x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
        x ^= x >> 33;
        (x >> 11) as f64 / (1u64 << 53) as f64
    }
    fn spins(&mut self, n: usize) -> Vec<i8> {
        (0..n)
            .map(|_| if self.uniform() < 0.5 { 1 } else { -1 })
            .collect()
    }
}

/// Every network of every example as a graph.
fn examples() -> Vec<(String, Graph)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("the examples")
        .map(|f| f.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "dnet"))
        .collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let program = Program::load(&file);
        for n in program.networks() {
            let info = program.network(&n.name.name).check();
            let info = info.unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            all.push((n.name.name.clone(), lower(&info).graph));
        }
    }
    all
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
        let seed = name.bytes().fold(lattice.sites() as u64, |h, b| h * 31 + u64::from(b));
        let mut random = Random(seed);
        let up = vec![1; lattice.sites()];
        let context = Context::new(lattice, &[], &up).ok()?;
        let mut tensors = Vec::new();
        for p in &graph.params {
            let shape = context.shape(&p.ty).ok()?;
            tensors.push(Tensor::from_fn(&shape, |_| random.uniform() - 0.5));
        }
        let spins: Vec<i8> = (0..samples).flat_map(|_| random.spins(lattice.sites())).collect();
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

fn error(got: Complex64, want: Complex64) -> f64 {
    let phase = (Complex64::new(0.0, got.im).exp() - Complex64::new(0.0, want.im).exp()).norm();
    let worst = (got.re - want.re).abs().max(phase);
    if worst.is_nan() { f64::INFINITY } else { worst }
}

fn lattices() -> Vec<Lattice> {
    let mut all = Vec::new();
    for boundary in [Boundary::Periodic, Boundary::Open] {
        all.push(Lattice::chain(14, boundary));
        let extent = [4, 6];
        all.push(Lattice { extent, boundary });
    }
    all
}

fn cases(lattices: &[Lattice], samples: usize) -> Vec<Case> {
    let examples = examples();
    let each = examples.iter().flat_map(|(name, graph)| {
        lattices.iter().filter_map(|&l| Case::new(name, graph, l, samples))
    });
    each.collect()
}

/// The gradient of one output by the interpreter.
fn gradient(case: &Case, output: usize, spins: &[i8]) -> Vec<f64> {
    let reversed = parameter_gradients(&case.graph, case.graph.outputs[output]).expect("smooth");
    let e = evaluate(&reversed.graph, case.lattice, &case.tensors, spins).expect("evaluates");
    let each = reversed.gradients.iter().flat_map(|&g| e.value(g).data.clone());
    each.collect()
}

#[test]
fn log_psi_and_gradients_of_every_example_in_f64() {
    let cases = cases(&lattices(), 3);
    assert!(cases.len() > 40, "only {} cases", cases.len());
    cases.par_iter().enumerate().for_each(|(k, case)| {
        let order = [Order::Forward, Order::Backward, Order::Random(k as i32)][k % 3];
        let network = case.network(Precision::F64, order);
        let what = format!("{} on {:?}", case.name, case.lattice);
        let mut got = vec![Complex64::ZERO; 3];
        network.try_log_psi(&case.spins, &mut got).unwrap_or_else(|e| panic!("{what}: {e}"));
        for (g, w) in got.iter().zip(&case.log_psi) {
            assert!(error(*g, *w) <= 1e-11 * w.norm().max(1.0), "{what}: {g} instead of {w}");
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
                    assert!(off <= 1e-10 * scale, "{what}, parameter {k}: {g} instead of {w}");
                }
            }
        };
        let two = &case.spins[..2 * n];
        network
            .try_gradients(two, &|sample, re, im| compare(sample, [re, im]))
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(*seen.lock().unwrap(), 2);
    });
}
