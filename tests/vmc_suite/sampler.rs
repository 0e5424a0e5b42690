//! Samplers against exact distributions, and against each other.

use crate::support::{Rbm, RbmBound};
use dnet::run::WaveFunction;
use dnet::vmc::sampler::*;
use dnet::vmc::stats::summarize;
use num_complex::Complex64;

/// Observables of different parity, range and nonlinearity.
fn observables(s: &[i8]) -> Vec<f64> {
    let n = s.len();
    let z = |i: usize| f64::from(s[i % n]);
    let m: f64 = (0..n).map(z).sum::<f64>() / n as f64;
    let neighbours = (0..n).map(|i| z(i) * z(i + 1)).sum::<f64>() / n as f64;
    let all_first_up = f64::from(u8::from((0..3).all(|i| s[i] > 0)));
    vec![
        m,
        m * m,
        m.abs(),
        neighbours,
        z(0),
        z(0) * z(n / 2),
        z(1) * z(2) * z(5),
        all_first_up,
    ]
}

/// Samples and compares with the exact sum, four standard errors each.
fn against_exact(
    psi: &Rbm,
    options: SamplerOptions,
    per_chain: usize,
    bound: Option<&dyn ScreenBound>,
) -> Report {
    let exact = full_sum(psi, options.magnetization);
    let expected = |k: usize| -> f64 {
        (0..exact.len())
            .map(|i| exact.weight(i) * observables(exact.get(i))[k])
            .sum()
    };
    let mut sampler = Sampler::new(options, psi.lattice().sites()).unwrap();
    let target = Target { psi, bound };
    sampler.advance(target, 50);
    let (samples, report) = sampler.sample(target, per_chain);
    let values: Vec<Vec<f64>> = (0..samples.len())
        .map(|i| observables(samples.get(i)))
        .collect();
    for k in 0..values[0].len() {
        let column: Vec<Complex64> = values.iter().map(|v| v[k].into()).collect();
        let s = summarize(&column, per_chain);
        // Of a plain sum: a conserved quantity has no statistical error.
        let rounding = values.len() as f64 * f64::EPSILON;
        let deviation = (s.mean.re - expected(k)).abs();
        assert!(
            deviation <= 4.0 * s.error + rounding,
            "observable {k}: {} ± {} for {}",
            s.mean.re,
            s.error,
            expected(k)
        );
        assert!(
            s.error < 0.02,
            "observable {k}: error {} says nothing",
            s.error
        );
    }
    report
}

fn options(method: Method, acceptance: Acceptance) -> SamplerOptions {
    SamplerOptions {
        method,
        acceptance,
        chains: 128,
        seed: 17,
        ..Default::default()
    }
}

fn metropolis(moves: Vec<Move>) -> Method {
    Method::Metropolis {
        moves,
        proposals: None,
    }
}

#[test]
fn the_full_sum_is_the_born_distribution() {
    let psi = Rbm::random(8, 6, true, 1.5, 1);
    let samples = full_sum(&psi, None);
    assert_eq!(samples.len(), 256);
    let mut total = 0.0;
    let log_psi = |s: &[i8]| {
        let mut out = [Complex64::default()];
        psi.log_psi(s, &mut out);
        out[0].re
    };
    for i in 0..256 {
        total += samples.weight(i);
        let ratio = (2.0 * (log_psi(samples.get(i)) - log_psi(samples.get(0)))).exp();
        assert!((samples.weight(i) / samples.weight(0) / ratio - 1.0).abs() < 1e-12);
    }
    assert!((total - 1.0).abs() < 1e-13);
    assert_eq!(full_sum(&psi, Some(0)).len(), 70);
}

#[test]
fn metropolis_samples_the_exact_distribution() {
    for (complex, moves) in [
        (false, vec![Move::Single]),
        (true, vec![Move::Single, Move::Pair]),
        (
            false,
            vec![
                Move::Single,
                Move::Clusters(vec![vec![0, 1, 2], vec![3, 7], vec![4]]),
            ],
        ),
    ] {
        let psi = Rbm::random(8, 6, complex, 1.5, 2);
        let report = against_exact(
            &psi,
            options(metropolis(moves), Acceptance::Metropolis),
            500,
            None,
        );
        assert_eq!(report.proposed, 128 * 500 * 8);
        assert!(
            (0.05..0.95).contains(&report.acceptance()),
            "acceptance {}",
            report.acceptance()
        );
    }
}

#[test]
fn sequential_sweeps_sample_the_exact_distribution() {
    for (sweeps, rule) in [
        (true, Acceptance::HeatBath),
        (false, Acceptance::HeatBath),
        (true, Acceptance::Metropolis),
    ] {
        let mut psi = Rbm::random(9, 6, false, 1.5, 3);
        psi.sweeps = sweeps;
        let report = against_exact(&psi, options(Method::Sweep, rule), 500, None);
        assert_eq!(
            report.sweeps_without_environments,
            if sweeps { 0 } else { 128 * 500 }
        );
    }
}

#[test]
fn exchange_moves_sample_one_magnetisation() {
    let pairs: Vec<[usize; 2]> = (0..10).map(|i| [i, (i + 1) % 10]).collect();
    for (magnetization, moves) in [
        (0, vec![Move::Exchange]),
        (4, vec![Move::ExchangePairs(pairs), Move::Exchange]),
    ] {
        let psi = Rbm::random(10, 5, true, 1.0, 4);
        let mut options = options(metropolis(moves), Acceptance::Metropolis);
        options.magnetization = Some(magnetization);
        options.inversion_every = if magnetization == 0 { 3 } else { 0 };
        against_exact(&psi, options, 600, None);
    }
}

#[test]
fn the_screened_typewriter_samples_the_exact_distribution() {
    let psi = Rbm::local(10, 0.7, 5);
    let bound = RbmBound(&psi);
    for (width, bound) in [(1, Some(&bound as &dyn ScreenBound)), (3, None)] {
        let method = Method::Typewriter {
            width,
            screened: true,
        };
        let report = against_exact(&psi, options(method, Acceptance::Metropolis), 400, bound);
        assert!(
            report.screened > 1000 && report.corrections > 1000,
            "{report:?}"
        );
        if bound.is_some() {
            assert!(report.worst_error_over_bound <= 1.0, "{report:?}");
        }
    }
}

#[test]
fn screened_decisions_equal_exact_metropolis_decisions() {
    // The same seed with and without screening: one different decision among
    // the 2e5 proposals would send the chains apart.
    let psi = Rbm::local(10, 1.0, 6);
    let bound = RbmBound(&psi);
    let run = |screened| {
        let mut options = options(
            Method::Typewriter { width: 1, screened },
            Acceptance::Metropolis,
        );
        options.chains = 100;
        let mut sampler = Sampler::new(options, 10).unwrap();
        sampler.sample(
            Target {
                psi: &psi,
                bound: Some(&bound),
            },
            200,
        )
    };
    let (exact, reference) = run(false);
    let (fast, report) = run(true);
    assert_eq!(reference.screened, 0);
    assert_eq!(report.proposed, 200_000);
    assert!(report.screened > 10_000, "{report:?}");
    assert_eq!(exact, fast);
    assert_eq!(reference.accepted, report.accepted);
    assert!(report.worst_error > 0.01 && report.worst_error_over_bound <= 1.0);
}

#[test]
fn both_paths_of_the_sweep_decide_alike() {
    let run = |sweeps| {
        let mut psi = Rbm::random(10, 6, true, 1.5, 7);
        psi.sweeps = sweeps;
        let mut sampler = Sampler::new(options(Method::Sweep, Acceptance::Metropolis), 10).unwrap();
        sampler.sample(Target::new(&psi), 100)
    };
    let ((a, ra), (b, rb)) = (run(true), run(false));
    assert_eq!(ra.proposed, 128_000);
    assert_eq!((a, ra.accepted), (b, rb.accepted));
}

#[test]
fn heat_bath_sweeps_mix_flat_distributions_and_metropolis_sweeps_do_not() {
    let psi = Rbm::random(8, 2, false, 0.0, 0);
    let run = |rule| {
        let mut sampler = Sampler::new(options(Method::Sweep, rule), 8).unwrap();
        let (samples, _) = sampler.sample(Target::new(&psi), 50);
        let values: Vec<Complex64> = (0..samples.len())
            .map(|i| observables(samples.get(i))[1].into())
            .collect();
        summarize(&values, 50)
    };
    assert!((run(Acceptance::HeatBath).r_hat - 1.0).abs() < 0.02);
    assert!(run(Acceptance::HeatBath).tau < 0.1);
    // m^2 never changes: every chain keeps the value it began with.
    assert!(run(Acceptance::Metropolis).r_hat > 10.0);
}

#[test]
fn inversion_reaches_the_other_half_of_a_frozen_pair_of_states() {
    // Deep in the ordered phase single flips never get across.
    let mut psi = Rbm::random(10, 1, false, 0.0, 0);
    let mut theta = vec![0.0; psi.param_count()];
    theta[11..].fill(2.0);
    psi.set_params(&theta);
    for (every, crosses) in [(0, false), (2, true)] {
        let mut options = options(Method::Sweep, Acceptance::HeatBath);
        options.inversion_every = every;
        let mut sampler = Sampler::new(options, 10).unwrap();
        sampler.advance(Target::new(&psi), 20);
        let before = sampler.state().spins.clone();
        let (samples, report) = sampler.sample(Target::new(&psi), 20);
        let m = |s: &[i8]| s.iter().map(|&x| i32::from(x)).sum::<i32>();
        let crossed = (0..128)
            .filter(|&c| m(&before[10 * c..10 * c + 10]) * m(samples.get(20 * c + 19)) < 0)
            .count();
        assert_eq!(crossed > 0, crosses, "{crossed} chains crossed");
        assert_eq!(report.inversions, if crosses { 128 * 10 } else { 0 });
    }
}

#[test]
fn results_depend_on_nothing_but_seed_chain_and_step() {
    let mut psi = Rbm::random(9, 5, false, 1.5, 8);
    psi.sweeps = true;
    let methods = [
        Method::Sweep,
        metropolis(vec![Move::Single, Move::Pair]),
        Method::Typewriter {
            width: 2,
            screened: true,
        },
    ];
    for method in methods {
        let mut options = options(method, Acceptance::HeatBath);
        options.inversion_every = 3;
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                let mut sampler = Sampler::new(options.clone(), 9).unwrap();
                let first = sampler.sample(Target::new(&psi), 5);
                // Through the text form a checkpoint would have.
                let text = serde_json::to_string(sampler.state()).unwrap();
                let state = serde_json::from_str(&text).unwrap();
                let mut resumed = Sampler::resume(options.clone(), 9, state).unwrap();
                let second = sampler.sample(Target::new(&psi), 5);
                assert_eq!(second, resumed.sample(Target::new(&psi), 5));
                assert_eq!(sampler.state(), resumed.state());
                (first, second)
            })
        };
        assert_eq!(run(1), run(3));
    }
}

#[test]
fn impossible_options_are_refused() {
    let refuse = |change: &dyn Fn(&mut SamplerOptions), expected: SamplerError| {
        let mut options = SamplerOptions::default();
        change(&mut options);
        assert_eq!(Sampler::new(options, 25).unwrap_err(), expected);
    };
    refuse(
        &|o| o.chains = 0,
        SamplerError::Zero("the number of chains"),
    );
    refuse(
        &|o| o.magnetization = Some(2),
        SamplerError::Magnetization {
            sites: 25,
            magnetization: 2,
        },
    );
    refuse(
        &|o| o.magnetization = Some(1),
        SamplerError::LeavesSector("the sequential sweep"),
    );
    refuse(&|o| o.method = Method::FullSum, SamplerError::TooLarge(25));
    refuse(
        &|o| o.method = metropolis(vec![Move::Clusters(vec![vec![1, 1]])]),
        SamplerError::Cluster(vec![1, 1]),
    );
    refuse(
        &|o| o.method = metropolis(vec![]),
        SamplerError::Zero("the number of kinds of moves"),
    );
    let state = Sampler::new(SamplerOptions::default(), 24)
        .unwrap()
        .state()
        .clone();
    let foreign = Sampler::resume(SamplerOptions::default(), 25, state).unwrap_err();
    assert_eq!(foreign, SamplerError::ForeignState);
}
