//! Local energies and their statistics on a device, compiled for the host, against
//! those of the CPU.

#[path = "cuda_shim/case.rs"]
mod case;
#[path = "networks/mod.rs"]
mod networks;
#[path = "cuda_shim/mod.rs"]
mod shim;

use case::Case;
use dnet::back::cuda::device::Device;
use dnet::back::cuda::peak::measure;
use dnet::back::cuda::sums::Sums;
use dnet::back::cuda::values::DeviceValues;
use dnet::check::operator::Pauli;
use dnet::ir::{Boundary, Lattice};
use dnet::rng::{ChainRng, Stream};
use dnet::run::WaveFunction;
use dnet::run::network::Precision;
use dnet::run::values::Values;
use dnet::vmc::estimator::{estimates, local_energies};
use dnet::vmc::operator::{Operator, OperatorBuilder};
use dnet::vmc::optim::{Form, Jacobian, SrOptions, natural_gradient};
use dnet::vmc::sampler::Samples;
use dnet::vmc::stats::{Summary, summarize};
use num_complex::Complex64;
use rayon::prelude::*;
use shim::{Order, ShimDevice, When};
use std::sync::Arc;

/// Strings of all kinds with coefficients of order one: real and complex elements, some
/// that cancel, clusters of up to four spins, fields, couplings of pairs near and far.
fn random_operator(lattice: Lattice, seed: u64) -> Operator {
    let mut rng = ChainRng::new(seed, 0, 0, Stream::Init);
    let n = lattice.sites();
    let mut builder = OperatorBuilder::new(lattice);
    let mut add = |c: f64, factors: &[(usize, Pauli)]| {
        builder.string(c.into(), factors).expect("a string");
    };
    let mut number = || 2.0 * rng.uniform() - 1.0;
    use Pauli::{X, Y, Z};
    add(number(), &[]);
    for i in 0..n {
        let [j, k] = [(i + 1) % n, (i + 2) % n];
        add(number(), &[(i, Z)]);
        add(number(), &[(i, X)]);
        // vanishes for half of the configurations
        let c = number();
        add(c, &[(i, X), (j, X)]);
        add(c, &[(i, Y), (j, Y)]);
        add(number(), &[(i, Y), (k, Z)]);
        add(number(), &[(i, Z), (j, Z), (k, Z)]);
    }
    add(number(), &[(0, X), (2, Y), (3, X), (n - 1, Y)]);
    let couplings: Vec<f64> = (0..n).map(|_| number()).collect();
    for (d, &j) in couplings.iter().enumerate().skip(1) {
        let [x, y] = [d / lattice.extent[1], d % lattice.extent[1]];
        builder.pair_coupling([x as i64, y as i64], j);
    }
    builder.build().expect("Hermitian")
}

fn close(got: Complex64, want: Complex64, bound: f64, what: &str) {
    let off = (got - want).norm();
    let fine = off <= bound * want.norm().max(1.0);
    assert!(fine, "{what}: {got} instead of {want}");
}

#[test]
fn local_energies_of_any_operator_are_those_of_the_cpu() {
    use Boundary::{Open, Periodic};
    // by flip programs, or everything in full; memory for a few samples at once, and
    // for less than the changes of one
    let cases = [
        (Case::new("dysonnet", [26, 1], Periodic), 5 << 13),
        (Case::new("dysonnet", [26, 1], Open), 1 << 12),
        (Case::new("dysonnet_complex", [26, 1], Periodic), 1 << 20),
        (Case::new("dysonnet2d", [4, 4], Open), 1 << 14),
        (Case::new("rbm_complex", [8, 1], Periodic), 1 << 10),
        (Case::new("vit", [8, 1], Periodic), 1 << 16),
    ];
    cases
        .par_iter()
        .enumerate()
        .for_each(|(k, (case, budget))| {
            let order = [Order::Backward, Order::Random(k as i32), Order::Forward][k % 3];
            let device = case.with_budget(Precision::F64, order, *budget);
            let cpu = case.on_cpu(Precision::F64);
            let samples = case.samples(5);
            for seed in 0..2 {
                let operator = random_operator(case.lattice, seed);
                let want = local_energies(cpu.as_ref(), &operator, &samples);
                let [got, again] = [0, 1].map(|_| estimates(&device, &operator, &samples));
                let what = format!("{} on {:?}", case.name, case.lattice);
                for (got, want) in got.all().iter().zip(&want) {
                    close(*got, *want, 1e-9, &what);
                }
                assert_eq!(got.all(), again.all(), "{what}: the same bits");
                assert_eq!(got.moments(), again.moments(), "{what}: the same bits");
            }
        });
}

#[test]
fn the_diagonal_alone_needs_no_network() {
    for (extent, boundary) in [
        ([9, 1], Boundary::Open),
        ([10, 1], Boundary::Periodic),
        ([4, 6], Boundary::Open),
        ([4, 4], Boundary::Periodic),
    ] {
        let name = if extent[1] == 1 { "rbm" } else { "dysonnet2d" };
        let case = Case::new(name, extent, boundary);
        let device = case.with_budget(Precision::F32, Order::Random(1), 1 << 20);
        let mut builder = OperatorBuilder::new(case.lattice);
        builder.string(0.5.into(), &[(1, Pauli::Z)]).expect("fits");
        for (k, d) in [[1, 0], [0, 1], [2, 1], [1, -1]].into_iter().enumerate() {
            if (0..2).all(|a| d[a] == 0 || extent[a] > 2) {
                builder.pair_coupling(d, 1.0 + k as f64);
            }
        }
        let operator = builder.build().expect("Hermitian");
        let samples = case.samples(4);
        let got = estimates(&device, &operator, &samples).all();
        for (k, got) in got.into_iter().enumerate() {
            let want = Complex64::from(operator.diagonal(samples.get(k)));
            close(got, want, 1e-14, &format!("{extent:?} {boundary:?}"));
        }
    }
}

/// Correlated values: chains that forget slowly, about another mean each.
fn chains(count: usize, length: usize, seed: u64) -> Vec<Complex64> {
    let mut rng = ChainRng::new(seed, 0, 0, Stream::Sweep);
    let mut all = Vec::new();
    for chain in 0..count {
        let mut x = Complex64::ZERO;
        for _ in 0..length {
            let noise = Complex64::new(rng.uniform() - 0.5, 0.1 * rng.uniform());
            x = 0.8 * x + noise;
            all.push(x - 1000.0 + 0.01 * chain as f64);
        }
    }
    all
}

#[test]
fn statistics_of_the_device_are_those_of_the_cpu() {
    for (k, (count, length)) in [
        (1024, 1),
        (40, 2),
        (33, 5),
        (4, 50),
        (2, 400),
        (1, 90),
        (1, 1),
        (1, 3),
    ]
    .into_iter()
    .enumerate()
    {
        let order = [Order::Forward, Order::Backward, Order::Random(k as i32)][k % 3];
        let device: Arc<dyn Device> = Arc::new(ShimDevice::doing(When::Late, order, 3, 1 << 20));
        let sums = Arc::new(Sums::new(&device).expect("compiles"));
        let here = chains(count, length, k as u64);
        let there = DeviceValues::holding(&sums, &here).expect("memory");
        let numbers = |s: Summary| [s.mean.re, s.mean.im, s.error, s.variance, s.r_hat, s.tau];
        let want = numbers(summarize(&here, length));
        let got = numbers(summarize(&there, length));
        for (got, want) in got.into_iter().zip(want) {
            // differences of numbers of size 1000
            let fine = (got - want).abs() <= 1e-12 * want.abs().max(1e-3);
            assert!(
                fine || got.is_nan() && want.is_nan(),
                "{count} x {length}: {got} instead of {want}"
            );
        }
        assert_eq!(there.all(), here);
        for parts in [1, 2] {
            let [want, got] = [here.centred(parts), there.centred(parts)];
            assert_eq!(got.len(), want.len());
            let near = |(g, w): (&f64, &f64)| (g - w).abs() <= 1e-12;
            assert!(got.iter().zip(&want).all(near), "{count} x {length}");
        }
        let again = DeviceValues::holding(&sums, &here).expect("memory");
        assert_eq!(
            numbers(summarize(&again, length)).map(f64::to_bits),
            numbers(summarize(&there, length)).map(f64::to_bits)
        );
    }
}

#[test]
fn steps_from_values_on_the_device_are_those_of_the_cpu() {
    let case = Case::new("rbm_complex", [9, 1], Boundary::Periodic);
    let operator = random_operator(case.lattice, 3);
    let samples = Samples {
        per_chain: 4,
        ..case.samples(60)
    };
    let cpu = case.on_cpu(Precision::F64);
    let device = case.with_budget(Precision::F64, Order::Forward, 1 << 22);
    let [want, got] = [cpu.as_ref(), &device as &dyn WaveFunction].map(|psi| {
        let energies = estimates(psi, &operator, &samples);
        let jacobian = Jacobian::new(psi, &samples, &*energies, 1 << 30).expect("finite");
        let options = SrOptions {
            form: Form::Samples,
            ..SrOptions::default()
        };
        natural_gradient(&options, 0, &jacobian, &[]).expect("solved")
    });
    let size = want.direction.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    for (got, want) in got.direction.iter().zip(&want.direction) {
        assert!((got - want).abs() <= 1e-8 * size, "{got} instead of {want}");
    }
}

#[test]
fn the_peak_of_a_device_is_measured() {
    let device: Arc<dyn Device> = Arc::new(ShimDevice::new(Order::Forward, 1, 1 << 16));
    for precision in [Precision::F32, Precision::F64] {
        let peak = measure(&device, precision).expect("runs");
        // fibers are slow, but they do something
        assert!(peak.flops > 0.0 && peak.flops < 100.0, "{peak:?}");
        assert!(peak.bytes > 0.0 && peak.bytes < 100.0, "{peak:?}");
    }
}
