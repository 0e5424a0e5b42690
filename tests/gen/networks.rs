//! The networks of the examples with random parameters and configurations.

use dnet::check::Program;
use dnet::interp::Tensor;
use dnet::ir::{Graph, Lattice};
use dnet::pipeline;
use num_complex::Complex64;
use std::path::{Path, PathBuf};

/// A small deterministic generator: uniform numbers in [0, 1).
pub struct Random(pub u64);

impl Random {
    /// In [0, 1).
    pub fn uniform(&mut self) -> f64 {
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
    /// A configuration.
    pub fn spins(&mut self, n: usize) -> Vec<i8> {
        (0..n)
            .map(|_| if self.uniform() < 0.5 { 1 } else { -1 })
            .collect()
    }
}

/// All files of examples.
pub fn examples() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("the examples")
        .map(|f| f.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "dnet"))
        .collect();
    files.sort();
    files
}

/// Every network of a file as a graph.
pub fn graphs(file: &Path) -> Vec<(String, Graph)> {
    let program = Program::load(file);
    program
        .networks()
        .iter()
        .map(|n| {
            let info = program
                .network(&n.name.name)
                .check()
                .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            let graph = pipeline::amplitude(&pipeline::graph(&info));
            (n.name.name.clone(), graph)
        })
        .collect()
}

/// Parameters of order one, with their tensors' shapes on the lattice.
pub fn params(graph: &Graph, lattice: Lattice, random: &mut Random) -> Option<Vec<Tensor>> {
    let spins = vec![1; lattice.sites()];
    let context = dnet::interp::Context::new(lattice, &[], &spins).ok()?;
    let mut tensors = Vec::new();
    for p in &graph.params {
        let shape = context.shape(&p.ty).ok()?;
        tensors.push(Tensor::from_fn(&shape, |_| random.uniform() - 0.5));
    }
    Some(tensors)
}

/// The distance of two logarithms of amplitudes; phases modulo 2 pi. Infinite where one
/// of them is no number.
pub fn error(got: Complex64, want: Complex64) -> f64 {
    let phase = (Complex64::new(0.0, got.im).exp() - Complex64::new(0.0, want.im).exp()).norm();
    let size = (got.re - want.re).abs();
    if size.is_nan() || phase.is_nan() {
        return f64::INFINITY;
    }
    size.max(phase)
}
