//! Samplers and estimators on a device, compiled for the host, against those on
//! the CPU with the same random numbers.

#[path = "cuda_shim/case.rs"]
mod case;
#[path = "networks/mod.rs"]
mod networks;
#[path = "cuda_shim/mod.rs"]
mod shim;
#[path = "support/mod.rs"]
mod support;

use case::Case;
use dnet::back::cuda::chains::ChainSource;
use dnet::back::cuda::code::Source;
use dnet::back::cuda::emit::Options;
use dnet::ir::Boundary;
use dnet::pass::flips::Family;
use dnet::run::WaveFunction;
use dnet::run::network::Precision;
use dnet::run::walk::{Proposals, Walk};
use dnet::verify::backend::{decisions, sums};
use dnet::vmc::estimator::local_energies;
use dnet::vmc::sampler::{Acceptance, Method, Move, Report, Sampler, SamplerOptions, Target};
use rayon::prelude::*;
use shim::Order;

/// Chains, a ring and an open chain, a torus, real and complex, with tables and
/// without.
fn cases() -> Vec<Case> {
    use Boundary::{Open, Periodic};
    vec![
        Case::new("dysonnet", [14, 1], Periodic),
        Case::new("dysonnet", [12, 1], Open),
        Case::new("dysonnet2d", [4, 4], Periodic),
        Case::new("rbm_complex", [9, 1], Periodic),
        Case::new("cnn", [10, 1], Periodic),
        Case::new("positional", [12, 1], Open),
    ]
}

/// Every kind of move and every global one.
fn ways(sites: usize) -> Vec<SamplerOptions> {
    let random = |moves, proposals| Method::Metropolis { moves, proposals };
    let common = SamplerOptions {
        chains: 7,
        sweeps_per_sample: 2,
        ..SamplerOptions::default()
    };
    let clusters = vec![vec![0, 3, 1], vec![sites - 1], vec![2, 4]];
    let pairs = (1..sites).map(|i| [i - 1, i]).collect();
    vec![
        SamplerOptions {
            seed: 0x1234_5678_9abc_def0,
            inversion_every: 2,
            uniform_every: 3,
            ..common.clone()
        },
        SamplerOptions {
            method: random(
                vec![Move::Single, Move::Pair, Move::Clusters(clusters)],
                None,
            ),
            acceptance: Acceptance::Metropolis,
            inversion_every: 1,
            ..common.clone()
        },
        SamplerOptions {
            method: random(vec![Move::Exchange, Move::ExchangePairs(pairs)], Some(9)),
            magnetization: Some((sites % 2) as i64),
            inversion_every: 1 - sites as u64 % 2,
            uniform_every: 1,
            seed: 3,
            ..common.clone()
        },
        SamplerOptions {
            method: random(vec![Move::Single], Some(1)),
            ..common
        },
    ]
}

/// What must be the same: who moves the chains is no part of it.
fn counts(report: &Report) -> Report {
    Report {
        sweeps_without_environments: 0,
        ..report.clone()
    }
}

#[test]
fn chains_on_the_device_make_the_decisions_of_the_cpu() {
    let cases = cases();
    cases.par_iter().enumerate().for_each(|(k, case)| {
        let order = [Order::Forward, Order::Backward, Order::Random(k as i32)][k % 3];
        // few enough proposals that rounding decides none of them
        let precision = [Precision::F64, Precision::F64, Precision::F32][k % 3];
        let (cpu, device) = (case.on_cpu(precision), case.on_device(precision, order));
        let sites = case.lattice.sites();
        let mut total = Report::default();
        for (way, options) in ways(sites).into_iter().enumerate() {
            let what = format!("{} on {:?}, way {way}", case.name, case.lattice);
            let mut both = [cpu.as_ref(), &device].map(|psi| {
                let mut sampler = Sampler::new(options.clone(), sites).unwrap();
                let before = sampler.advance(Target::new(psi), 1);
                let (samples, report) = sampler.sample(Target::new(psi), 2);
                (sampler.state().clone(), before, samples, report)
            });
            for all in &mut both {
                total.merge(&all.3);
                (all.1, all.3) = (counts(&all.1), counts(&all.3));
            }
            assert_eq!(both[0], both[1], "{what}");
        }
        let all = [
            (total.proposed, total.accepted),
            (total.inversions, total.inverted),
            (total.uniform_proposed, total.uniform_accepted),
        ];
        assert!(
            all.iter().all(|&(p, a)| 0 < a && a < p),
            "{}: {all:?} decide nothing",
            case.name
        );
        assert_eq!(total.not_a_number, 0);
    });
}

#[test]
fn local_energies_of_many_samples_are_those_of_the_cpu() {
    use Boundary::{Open, Periodic};
    // families of one and two spins by flip programs, or everything in full
    let cases = [
        (Case::new("dysonnet", [26, 1], Periodic), true),
        (Case::new("dysonnet", [26, 1], Open), true),
        (Case::new("dysonnet_complex", [26, 1], Periodic), true),
        (Case::new("cnn", [16, 1], Open), true),
        (Case::new("rbm_complex", [8, 1], Periodic), false),
        (Case::new("vit", [8, 1], Periodic), false),
    ];
    cases
        .par_iter()
        .enumerate()
        .for_each(|(k, (case, programs))| {
            let order = [Order::Backward, Order::Random(k as i32), Order::Forward][k % 3];
            // memory for two or three samples at once
            let mut device = case.with_budget(Precision::F64, order, 3 << 13);
            let mut cpu = case.on_cpu(Precision::F64);
            let samples = case.samples(5);
            // once more with other parameters: programs must follow them
            let other: Vec<f64> = case.theta.iter().map(|x| 0.5 * x).collect();
            for (name, theta) in [
                ("heisenberg", &case.theta),
                ("tfim", &other),
                ("heisenberg", &other),
            ] {
                let operator = support::operator(name, case.lattice);
                cpu.set_params(theta);
                device.try_set_params(theta).expect("a network");
                let want = local_energies(cpu.as_ref(), &operator, &samples);
                let got = local_energies(&device, &operator, &samples);
                for (got, want) in got.iter().zip(&want) {
                    let off = (got - want).norm();
                    let scale = want.norm().max(1.0);
                    assert!(
                        off <= 1e-9 * scale,
                        "{} {name}: {got} instead of {want}",
                        case.name
                    );
                }
            }
            assert_eq!(device.flips().is_ok(), *programs, "{}", case.name);
        });
}

#[test]
fn a_back_end_is_compared_in_sums_and_decisions() {
    let case = Case::new("rbm_complex", [9, 1], Boundary::Periodic);
    let mut device = case.on_device(Precision::F64, Order::Forward);
    let cpu = case.on_cpu(Precision::F64);
    let batch = case.samples(3).spins;
    let error = sums(cpu.as_ref(), &device, &batch).expect("sums");
    assert!(error < 1e-12, "{error}");
    assert_eq!(decisions(&device, 1, 6, 250), Some(0.0));
    // the CPU has neither, and another network is seen
    assert_eq!(sums(cpu.as_ref(), cpu.as_ref(), &batch), None);
    assert_eq!(decisions(cpu.as_ref(), 1, 6, 250), None);
    let other: Vec<f64> = case.theta.iter().map(|x| x + 1e-3).collect();
    device.try_set_params(&other).expect("a network");
    assert!(sums(cpu.as_ref(), &device, &batch).expect("sums") > 1e-6);
}

#[test]
fn clusters_of_a_family_are_changed_by_one_program() {
    let case = Case::new("dysonnet", [60, 1], Boundary::Periodic);
    let device = case.with_budget(Precision::F32, Order::Forward, 1 << 20);
    let family = |cluster: &[usize]| Family::of(case.lattice, cluster).expect("small").0;
    let asked = [
        (family(&[3, 4]), 600),
        (family(&[7]), 600),
        (family(&[0, 5, 9]), 1),
    ];
    let program = device.flips_of(10, &asked).expect("it pays");
    assert_eq!(program.families()[0], Family::single());
    assert!(program.families().contains(&asked[0].0));
    // nothing pays for one cluster
    assert!(device.flips_of(1, &[(family(&[7]), 1)]).is_none());
}

#[test]
fn text_of_the_chain_kernel() {
    let ends = ["dysonnet", "rbm"].map(|name| {
        let case = Case::new(name, [12, 1], Boundary::Periodic);
        let options = Options::new(Precision::F32);
        let graph = case.graph.clone();
        let full = Source::new("log_psi", graph, case.lattice, &[], &[], &options);
        let full = full.expect("a kernel");
        let chains = ChainSource::new(&full, &options).expect("a kernel").kernel;
        // the same code as log psi, with the same constants, but for the kernel itself
        let parts = |text: &str| {
            let at = text.find("constexpr int threads").expect("a kernel");
            let (code, kernel) = text[at..].split_once("extern \"C\" ").expect("a kernel");
            (code.to_owned(), kernel.to_owned())
        };
        let [(code, plain), (same, kernel)] = [&full.kernel.text, &chains.text].map(|t| parts(t));
        assert_eq!(code, same, "{name}");
        assert_eq!(full.kernel.blocks, chains.blocks);
        assert_eq!(full.kernel.workspace, chains.workspace);
        assert_ne!(plain, kernel);
        let end = kernel.find("\n}\n").expect("the end");
        format!("{name}\n{}\n}}\n", &kernel[..end])
    });
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("out/cuda");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("chains", ends.concat()));
}

#[test]
fn typewriters_on_the_device_make_the_decisions_of_the_cpu() {
    let cases = [
        (Case::new("dysonnet", [26, 1], Boundary::Periodic), 3),
        (Case::new("dysonnet", [28, 1], Boundary::Open), 5),
        (Case::new("cnn", [18, 1], Boundary::Periodic), 2),
    ];
    let totals = cases.par_iter().enumerate().map(|(k, (case, width))| {
        let order = [Order::Backward, Order::Random(k as i32), Order::Forward][k % 3];
        let cpu = case.on_cpu(Precision::F64);
        let device = case.with_budget(Precision::F64, order, 3 << 13);
        assert!(device.flips().is_ok(), "{}", case.name);
        let sites = case.lattice.sites();
        let mut total = Report::default();
        for screened in [true, false] {
            let options = SamplerOptions {
                method: Method::Typewriter {
                    width: *width,
                    screened,
                },
                acceptance: [Acceptance::HeatBath, Acceptance::Metropolis][k % 2],
                chains: 3,
                inversion_every: 2,
                seed: k as u64,
                ..SamplerOptions::default()
            };
            let [want, got] = [cpu.as_ref(), &device].map(|psi| {
                let mut sampler = Sampler::new(options.clone(), sites).unwrap();
                sampler.advance(Target::new(psi), 2);
                let (samples, report) = sampler.sample(Target::new(psi), 2);
                (sampler.state().clone(), samples, report)
            });
            let what = format!("{} on {:?}", case.name, case.lattice);
            assert_eq!(want.1, got.1, "{what}");
            assert_eq!(want.0.spins, got.0.spins, "{what}");
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(1.0);
            for count in 1..=sites {
                let [a, b] = [&want, &got].map(|r| r.0.buffer.bound(count));
                assert!(near(a, b), "{what}: bound {b} instead of {a}");
            }
            assert!(near(want.2.worst_error, got.2.worst_error), "{what}");
            let rounded = |r: &Report| Report {
                worst_error: 0.0,
                worst_error_over_bound: 0.0,
                ..r.clone()
            };
            assert_eq!(rounded(&want.2), rounded(&got.2), "{what}");
            total.merge(&got.2);
        }
        assert!(total.screened > 0 && total.corrections > 0, "{total:?}");
        assert!(0 < total.accepted && total.accepted < total.proposed);
        // it was the device that moved them
        let mut spins = vec![1; sites];
        let walk = Walk {
            seed: 1,
            first: 0,
            step: 0,
            sweeps: 1,
            proposals: Proposals::Typewriter {
                width: *width,
                screened: true,
            },
            heat_bath: true,
            inversion_every: 0,
            uniform_every: 0,
            magnetization: None,
        };
        let mut errors = vec![f64::NAN; sites.div_ceil(*width).div_ceil(2)];
        let moved = device.typewriter(&mut spins, &walk, &mut errors);
        let (tally, _) = moved.expect("the device has a typewriter");
        assert!(tally.proposed > 0);
        let none = device.typewriter(&mut [], &walk, &mut []);
        assert_eq!(none.expect("no chains").0, Default::default());
        total
    });
    let mut total = Report::default();
    let totals: Vec<Report> = totals.collect();
    totals.iter().for_each(|t| total.merge(t));
    assert!(0 < total.inverted && total.inverted < total.inversions);
}
