//! Tabulated local windows against computed ones and the reference interpreter.

#[path = "gen/program.rs"]
mod program;

use dnet::back::cpu::compiled::Compiled;
use dnet::check::Program;
use dnet::check::lattice::{Sites, check};
use dnet::interp::arbitrary::Random;
use dnet::interp::{Context, Tensor, evaluate};
use dnet::ir::{Boundary, Graph, Lattice, lower};
use dnet::verify::cases;
use num_complex::Complex64;
use std::path::Path;

/// Roundings of all parameters that conditioning is measured by.
const ROUNDINGS: usize = 4;

/// Of how many times the effect of a rounding of the parameters the effect of all
/// roundings on the way may be.
const FACTOR: f64 = 8.0;

/// Parameters of order one.
fn params(graph: &Graph, lattice: Lattice, random: &mut Random) -> Option<Vec<Tensor>> {
    let spins = vec![1; lattice.sites()];
    let context = Context::new(lattice, &[], &spins).ok()?;
    let tensor = |ty| {
        let shape = context.shape(ty).ok()?;
        Some(Tensor::from_fn(&shape, |_| random.unit() - 0.5))
    };
    graph.params.iter().map(|p| &p.ty).map(tensor).collect()
}

fn value(outputs: &[f64]) -> Complex64 {
    Complex64::new(outputs[0], outputs.get(1).copied().unwrap_or(0.0))
}

fn distance(a: Complex64, b: Complex64) -> f64 {
    let phase = (Complex64::new(0.0, a.im).exp() - Complex64::new(0.0, b.im).exp()).norm();
    (a.re - b.re).abs().max(phase)
}

/// Compares tables, no tables and the interpreter on a few configurations;
/// whether there were tables, `None` where the network does not exist there.
fn compare(name: &str, graph: &Graph, lattice: Lattice, random: &mut Random) -> Option<bool> {
    let n = lattice.sites();
    let tensors = params(graph, lattice, random)?;
    let theta: Vec<f64> = tensors.iter().flat_map(|t| t.data.clone()).collect();
    let batch: Vec<i8> = (0..7).flat_map(|_| random.spins(n)).collect();
    let oracle = |s: &[i8]| Some(evaluate(graph, lattice, &tensors, s).ok()?.log_psi());
    let want: Option<Vec<Complex64>> = batch.chunks(n).map(oracle).collect();
    let want = want.filter(|w| w.iter().all(|z| z.is_finite()))?;
    // what one rounding of every parameter changes: random recurrences may be
    // close to singular
    let mut sensitivity = 0.0f64;
    for _ in 0..ROUNDINGS {
        let mut round = |x: &f64| x * (1.0 + f64::EPSILON * (random.unit() - 0.5));
        let mut rounded = |t: &Tensor| Tensor {
            shape: t.shape.clone(),
            data: t.data.iter().map(&mut round).collect(),
        };
        let near: Vec<Tensor> = tensors.iter().map(&mut rounded).collect();
        for (s, w) in batch.chunks(n).zip(&want) {
            let e = evaluate(graph, lattice, &near, s).ok()?;
            sensitivity = sensitivity.max(distance(e.log_psi(), *w));
        }
    }
    let slack = FACTOR * sensitivity;
    let half: Vec<f64> = theta.iter().map(|x| 0.5 * x).collect();
    let mut tabulated = Compiled::<f64>::new(graph.clone(), lattice, &half, false)
        .unwrap_or_else(|e| panic!("{name} on {lattice:?}: {e}"));
    // tables follow the parameters
    let prepared = tabulated.prepare(&theta).expect("as many as before");
    tabulated.install(prepared);
    let plain = Compiled::<f64>::without_tables(graph.clone(), lattice, &theta, &[])
        .expect("as with tables");
    assert!(plain.program().tables.is_none());
    for network in [&tabulated, &plain] {
        let mut got = vec![Complex64::ZERO; want.len()];
        network.evaluate(&batch, &mut got, &value);
        for (g, w) in got.iter().zip(&want) {
            let beyond = distance(*g, *w) - 1e-12 * w.norm().max(1.0);
            if beyond > 0.0 {
                println!(
                    "{:.1} roundings of the parameters, {:e}",
                    beyond / sensitivity,
                    distance(*g, *w)
                );
            }
            assert!(
                distance(*g, *w) <= 1e-12 * w.norm().max(1.0) + slack,
                "{name} on {lattice:?}, tables {}: {g} instead of {w}, slack {slack:e}",
                network.program().tables.is_some()
            );
        }
    }
    Some(tabulated.program().tables.is_some())
}

#[test]
fn random_programs_with_and_without_tables() {
    let mut with = [0, 0];
    for seed in 0..40 {
        let text = program::program(seed).text;
        let loaded = Program::parse("generated.dnet", &text);
        let info = loaded.only_network().check().expect("a valid program");
        let graph = lower(&info).graph;
        let lattices = cases::lattices(&info, &|l: Lattice| {
            let sites = Sites {
                extent: l.extent,
                periodic: l.boundary == Boundary::Periodic,
            };
            check(loaded.modules(), &info, sites).is_empty()
        });
        let mut random = Random::new(seed);
        for boundary in [Boundary::Periodic, Boundary::Open] {
            let of = lattices.iter().filter(|l| l.boundary == boundary);
            // the smallest is often smaller than the windows
            for &lattice in of.filter(|l| l.sites() <= 64).take(3) {
                let name = format!("seed {seed}\n{text}\n");
                if compare(&name, &graph, lattice, &mut random) == Some(true) {
                    with[usize::from(boundary == Boundary::Open)] += 1;
                }
            }
        }
    }
    assert!(with[0] > 10 && with[1] > 10, "only {with:?} with tables");
}

#[test]
fn the_published_network_on_lattices_smaller_than_its_windows() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/dysonnet.dnet");
    let loaded = Program::load(&file);
    let info = loaded.only_network().check().expect("the example");
    let graph = lower(&info).graph;
    let mut random = Random::new(3);
    for boundary in [Boundary::Periodic, Boundary::Open] {
        let mut with = 0;
        for n in [4, 6, 8, 10, 14, 26] {
            let lattice = Lattice::chain(n, boundary);
            with += usize::from(compare("dysonnet", &graph, lattice, &mut random) == Some(true));
        }
        assert!(with >= 4, "{boundary:?}: only {with} with tables");
    }
}
