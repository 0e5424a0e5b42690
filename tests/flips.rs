//! Compiled flip programs against full evaluation.

use dnet::back::cpu::network::{CpuNetwork, Updates};
use dnet::check::Program;
use dnet::interp::{Tensor, evaluate};
use dnet::ir::{Boundary, Graph, Lattice, lower};
use dnet::pass::flips::NoFlips;
use dnet::run::WaveFunction;
use num_complex::Complex64;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("the examples")
        .map(|f| f.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "dnet"))
        .collect();
    files.sort();
    files
}

fn graphs(file: &Path) -> Vec<(String, Graph)> {
    let program = Program::load(file);
    let graph = |name: &str| {
        let info = program.network(name).check();
        lower(&info.unwrap_or_else(|e| panic!("{}: {e}", file.display()))).graph
    };
    program
        .networks()
        .iter()
        .map(|n| (n.name.name.clone(), graph(&n.name.name)))
        .collect()
}

/// Parameters of order one.
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

fn error(got: Complex64, want: Complex64) -> f64 {
    let phase = (Complex64::new(0.0, got.im).exp() - Complex64::new(0.0, want.im).exp()).norm();
    (got.re - want.re).abs().max(phase)
}

/// The interpreter's ratios for all single flips.
fn oracle(
    graph: &Graph,
    lattice: Lattice,
    params: &[Tensor],
    spins: &[i8],
) -> Option<Vec<Complex64>> {
    let log_psi = |s: &[i8]| {
        let e = evaluate(graph, lattice, params, s).ok()?;
        e.log_psi().is_finite().then(|| e.log_psi())
    };
    let old = log_psi(spins)?;
    (0..spins.len())
        .map(|k| {
            let mut s = spins.to_vec();
            s[k] = -s[k];
            Some(log_psi(&s)? - old)
        })
        .collect()
}

/// Compares all single flips of one network on one lattice; whether it has a
/// flip program there.
fn compare(name: &str, graph: &Graph, lattice: Lattice, random: &mut Random) -> Option<bool> {
    let tensors = params(graph, lattice, random)?;
    let spins = random.spins(lattice.sites());
    let want = oracle(graph, lattice, &tensors, &spins)?;
    let theta: Vec<f64> = tensors
        .iter()
        .flat_map(|t| t.data.iter().copied())
        .collect();
    let mut got = vec![Complex64::ZERO; want.len()];
    // other parameters first: the program must follow them
    let zero = vec![0.25; theta.len()];
    let mut double = CpuNetwork::<f64>::new(graph.clone(), lattice, &zero).ok()?;
    double.set_updates(Updates::Abacus);
    let has_program = double.flips().is_ok();
    if let Err(e) = double.flips() {
        println!("{name} on {lattice:?}: {e}");
    }
    double.set_params(&theta);
    double.background(&spins).single_flips(&mut got);
    for (site, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!(
            error(*g, *w) <= 1e-11 * w.norm().max(1.0),
            "{name} f64 on {lattice:?}, flip {site}: {g} instead of {w}"
        );
    }
    if has_program {
        let mut single = CpuNetwork::<f32>::new(graph.clone(), lattice, &theta).ok()?;
        single.set_updates(Updates::Abacus);
        single.background(&spins).single_flips(&mut got);
        let worst = got
            .iter()
            .zip(&want)
            .map(|(g, w)| error(*g, *w))
            .fold(0.0, f64::max);
        assert!(worst <= 2e-5, "{name} f32 on {lattice:?}: off by {worst:e}");
    }
    Some(has_program)
}

#[test]
fn single_flips_of_chains() {
    let mut random = Random(3);
    let mut programs = BTreeSet::new();
    for file in files() {
        for (name, graph) in graphs(&file) {
            for boundary in [Boundary::Periodic, Boundary::Open] {
                // windows that wrap, odd and even numbers of tokens
                for n in [8, 26, 40] {
                    let lattice = Lattice::chain(n, boundary);
                    if compare(&name, &graph, lattice, &mut random) == Some(true) {
                        programs.insert((name.clone(), boundary == Boundary::Open));
                    }
                }
            }
        }
    }
    for name in [
        "dysonnet",
        "dysonnet_complex",
        "dysonnet_power_law",
        "cnn",
        "resnet",
        "experts",
        "marshall",
        "matrix_vertex",
        "jastrow",
    ] {
        for open in [false, true] {
            let key = (name.to_owned(), open);
            assert!(programs.contains(&key), "{key:?} has no flip program");
        }
    }
    assert!(programs.contains(&("dysonnet_fourier".to_owned(), false)));
}

#[test]
fn single_flips_of_squares() {
    let mut random = Random(5);
    let mut programs = 0;
    for file in files().iter().filter(|f| f.ends_with("dysonnet2d.dnet")) {
        for (name, graph) in graphs(file) {
            for boundary in [Boundary::Periodic, Boundary::Open] {
                for extent in [[4, 6], [14, 16]] {
                    let lattice = Lattice { extent, boundary };
                    programs +=
                        usize::from(compare(&name, &graph, lattice, &mut random) == Some(true));
                }
            }
        }
    }
    assert_eq!(programs, 2, "of the larger square, for both boundaries");
}

#[test]
fn windows_that_cover_the_ring_are_refused() {
    let file = files()
        .into_iter()
        .find(|f| f.ends_with("dysonnet.dnet"))
        .expect("the example");
    let (_, graph) = graphs(&file).swap_remove(0);
    let shapes = [vec![[0, 0]], vec![[1, 0]]];
    let new = |n| {
        let lattice = Lattice::chain(n, Boundary::Periodic);
        dnet::pass::flips::FlipProgram::new(&graph, lattice, &shapes)
    };
    assert!(matches!(new(8), Err(NoFlips::Covers { extent: 4, .. })));
    assert_eq!(new(40).expect("room enough").changes.len(), 2);
}

#[test]
fn flips_and_clusters_of_a_changing_background() {
    let mut random = Random(13);
    let file = files()
        .into_iter()
        .find(|f| f.ends_with("dysonnet.dnet"))
        .expect("the example");
    let (_, graph) = graphs(&file).swap_remove(0);
    let lattice = Lattice::chain(30, Boundary::Periodic);
    let tensors = params(&graph, lattice, &mut random).expect("a chain");
    let theta: Vec<f64> = tensors
        .iter()
        .flat_map(|t| t.data.iter().copied())
        .collect();
    let log_psi = |s: &[i8], flips: &[usize]| {
        let mut s = s.to_vec();
        flips.iter().for_each(|&f| s[f] = -s[f]);
        let e = evaluate(&graph, lattice, &tensors, &s);
        e.expect("evaluates").log_psi()
    };
    for updates in [Updates::Automatic, Updates::Abacus, Updates::Full] {
        let mut network = CpuNetwork::<f64>::new(graph.clone(), lattice, &theta).expect("compiles");
        network.set_updates(updates);
        let mut spins = random.spins(30);
        let mut background = network.background(&spins);
        for accepted in [vec![3], vec![0, 29], vec![2, 11, 12]] {
            let clusters: [&[usize]; 4] = [&[7], &[1, 2], &[29], &[0, 10, 20]];
            let sites: Vec<usize> = clusters.concat();
            let ends = [1, 3, 4, 7];
            let mut got = [Complex64::ZERO; 4];
            background.log_ratios(&sites, &ends, &mut got);
            for (cluster, got) in clusters.iter().zip(got) {
                let want = log_psi(&spins, cluster) - log_psi(&spins, &[]);
                assert!(error(got, want) < 1e-11, "{updates:?} {cluster:?}");
                let alone = background.log_ratio(cluster);
                assert!(error(alone, want) < 1e-11, "{updates:?} {cluster:?} alone");
            }
            background.accept(&accepted);
            accepted.iter().for_each(|&f| spins[f] = -spins[f]);
            assert!(error(background.log_psi(), log_psi(&spins, &[])) < 1e-11);
        }
    }
}
