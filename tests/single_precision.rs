//! Errors of single precision against the conditioning of the network: what f32
//! gets wrong must be what rounding of the parameters alone would change.

use dnet::back::cpu::network::{CpuNetwork, Updates};
use dnet::check::Program;
use dnet::interp::arbitrary::Random;
use dnet::interp::{Context, Tensor};
use dnet::ir::{Boundary, Graph, Lattice, lower};
use dnet::run::WaveFunction;
use num_complex::Complex64;
use std::path::Path;

/// Roundings of all parameters that conditioning is measured by.
const ROUNDINGS: usize = 4;

/// Of how many times the effect of a rounding of the parameters the effect of all
/// roundings on the way may be, as for tables of local values (seen: up to 0.5).
const FACTOR: f64 = 8.0;

/// Parameters in (-size, size).
fn params(graph: &Graph, lattice: Lattice, size: f64, random: &mut Random) -> Vec<f64> {
    let spins = vec![1; lattice.sites()];
    let context = Context::new(lattice, &[], &spins).expect("a lattice");
    let tensor = |ty| {
        let shape = context.shape(ty).expect("a shape");
        Tensor::from_fn(&shape, |_| size * (2.0 * random.unit() - 1.0)).data
    };
    graph
        .params
        .iter()
        .map(|p| &p.ty)
        .flat_map(tensor)
        .collect()
}

fn worst(a: &[Complex64], b: &[Complex64]) -> f64 {
    let one = |(a, b): (&Complex64, &Complex64)| {
        let phase = Complex64::new(0.0, a.im).exp() - Complex64::new(0.0, b.im).exp();
        (a.re - b.re).abs().max(phase.norm())
    };
    a.iter().zip(b).map(one).fold(0.0, f64::max)
}

#[test]
fn flip_ratios_are_as_good_as_the_parameters() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/complex_readout.dnet");
    let loaded = Program::load(&file);
    let info = loaded
        .network("dysonnet_complex")
        .check()
        .expect("the example");
    let graph = lower(&info).graph;
    let lattice = Lattice::chain(26, Boundary::Periodic);
    let mut double: Option<CpuNetwork<f64>> = None;
    let mut single: Option<CpuNetwork<f32>> = None;
    let mut ill_conditioned = 0;
    for seed in 0..24 {
        let mut random = Random::new(seed);
        // from harmless to hopeless
        let size = [0.4, 0.5, 0.6, 0.7, 0.8, 1.0][seed as usize % 6];
        let theta = params(&graph, lattice, size, &mut random);
        let spins = random.spins(lattice.sites());
        let mut build64 = || CpuNetwork::new(graph.clone(), lattice, &theta).expect("compiles");
        let double = double.get_or_insert_with(&mut build64);
        double.set_updates(Updates::Abacus);
        let build32 = || CpuNetwork::new(graph.clone(), lattice, &theta).expect("compiles");
        let single = single.get_or_insert_with(build32);
        single.set_updates(Updates::Abacus);
        let ratios = |network: &mut dyn WaveFunction, theta: &[f64]| {
            network.set_params(theta);
            let mut out = vec![Complex64::ZERO; lattice.sites()];
            network.background(&spins).single_flips(&mut out);
            out
        };
        let want = ratios(double, &theta);
        let error = worst(&ratios(single, &theta), &want);
        // the change that one rounding of every parameter to f32 makes
        let sensitivity = (0..ROUNDINGS)
            .map(|_| {
                let unit = f64::from(f32::EPSILON) / 2.0;
                let mut near = |x: &f64| x * (1.0 + unit * (2.0 * random.unit() - 1.0));
                let rounded: Vec<f64> = theta.iter().map(&mut near).collect();
                worst(&ratios(double, &rounded), &want)
            })
            .fold(0.0, f64::max);
        let largest = want.iter().map(|z| z.norm()).fold(0.0, f64::max);
        println!(
            "size {size}: ratios up to {largest:.1e}, off by {error:.1e}, one rounding of the parameters {sensitivity:.1e}"
        );
        ill_conditioned += usize::from(sensitivity > 1e-6);
        assert!(
            error <= 2e-5 + FACTOR * sensitivity,
            "seed {seed}: off by {error:e}, one rounding of the parameters makes {sensitivity:e}"
        );
    }
    println!("{ill_conditioned} of 24 ill-conditioned");
}
