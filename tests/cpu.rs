//! The CPU back end against the reference interpreter, on every example.

use dnet::back::cpu::network::{CompileError, FullEvaluation};
use dnet::check::Program;
use dnet::interp::{Tensor, evaluate};
use dnet::ir::{Boundary, Graph, Lattice, lower};
use num_complex::Complex64;
use std::path::{Path, PathBuf};

/// A small deterministic generator: uniform numbers in [0, 1).
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut x = self.0;
        x ^= x >> 33;
        x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
        x ^= x >> 33;
        (x >> 11) as f64 / (1u64 << 53) as f64
    }
    fn spins(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| if self.uniform() < 0.5 { 1 } else { -1 }).collect()
    }
}

fn examples() -> Vec<PathBuf> {
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
fn graphs(file: &Path) -> Vec<(String, Graph)> {
    let program = Program::load(file);
    program
        .networks()
        .iter()
        .map(|n| {
            let info = program.network(&n.name.name).check().unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            (n.name.name.clone(), lower(&info).graph)
        })
        .collect()
}

/// Parameters of order one, with their tensors' shapes on the lattice.
fn params(graph: &Graph, lattice: Lattice, random: &mut Random) -> Option<Vec<Tensor>> {
    let spins = vec![1; lattice.sites()];
    let context = dnet::interp::Context::new(lattice, &[], &spins).ok()?;
    let mut tensors = Vec::new();
    for p in &graph.params {
        let shape = context.shape(&p.ty).ok()?;
        tensors.push(Tensor::from_fn(&shape, |_| random.uniform() - 0.5));
    }
    Some(tensors)
}

fn lattices() -> Vec<Lattice> {
    let mut all = Vec::new();
    for boundary in [Boundary::Periodic, Boundary::Open] {
        all.push(Lattice::chain(12, boundary));
        all.push(Lattice::chain(40, boundary));
        all.push(Lattice { extent: [4, 6], boundary });
    }
    all
}

fn phase_distance(a: f64, b: f64) -> f64 {
    (Complex64::new(0.0, a).exp() - Complex64::new(0.0, b).exp()).norm()
}

fn error(got: Complex64, want: Complex64) -> f64 {
    (got.re - want.re).abs().max(phase_distance(got.im, want.im))
}

/// Examples whose mixing depends on the configuration: no kernels for them.
const ATTENTION: [&str; 3] = ["vit", "vit_kernel", "positional"];

#[test]
fn log_psi_of_every_example() {
    let mut random = Random(7);
    let mut compared = 0;
    for file in examples() {
        for (name, graph) in graphs(&file) {
            for lattice in lattices() {
                let Some(tensors) = params(&graph, lattice, &mut random) else { continue };
                let spins: Vec<i8> = (0..5).flat_map(|_| random.spins(lattice.sites())).collect();
                let oracle = |s: &[i8]| evaluate(&graph, lattice, &tensors, s).map(|e| e.log_psi());
                let want: Result<Vec<Complex64>, _> = spins.chunks(lattice.sites()).map(oracle).collect();
                let Ok(want) = want else { continue };
                if want.iter().any(|w| !w.is_finite()) {
                    continue;
                }
                let theta: Vec<f64> = tensors.iter().flat_map(|t| t.data.iter().copied()).collect();
                let double = match FullEvaluation::<f64>::new(graph.clone(), lattice, &theta, false) {
                    Ok(n) => n,
                    Err(CompileError::Lower(e)) if ATTENTION.contains(&name.as_str()) => {
                        assert!(e.to_string().contains("no kernel"), "{name}: {e}");
                        continue;
                    }
                    Err(e) => panic!("{name} on {lattice:?}: {e}"),
                };
                let single = FullEvaluation::<f32>::new(graph.clone(), lattice, &theta, false).expect("as in f64");
                let mut got = vec![Complex64::ZERO; want.len()];
                double.log_psi(&spins, &mut got);
                for (g, w) in got.iter().zip(&want) {
                    assert!(error(*g, *w) <= 1e-11 * w.norm().max(1.0), "{name} f64 on {lattice:?}: {g} instead of {w}");
                }
                // one configuration alone takes another path
                let mut alone = [Complex64::ZERO];
                double.log_psi(&spins[..lattice.sites()], &mut alone);
                assert!(error(alone[0], want[0]) <= 1e-11 * want[0].norm().max(1.0), "{name} on {lattice:?} alone");
                single.log_psi(&spins, &mut got);
                for k in 0..want.len() {
                    let (g, w) = (got[k] - got[0], want[k] - want[0]);
                    assert!(error(g, w) <= 2e-5, "{name} f32 on {lattice:?}: ratio {g} instead of {w}");
                }
                compared += 1;
            }
        }
    }
    assert!(compared > 40, "only {compared} comparisons");
}
