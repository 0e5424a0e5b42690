//! Gradients, Gram matrices and natural gradients against brute force.

use crate::support::{Ising, Rbm};
use dnet::run::WaveFunction;
use dnet::run::values::Values;
use dnet::vmc::estimator::{local_energies, summary};
use dnet::vmc::optim::*;
use dnet::vmc::sampler::{Sampler, SamplerOptions, Samples, Target, full_sum};
use num_complex::Complex64;

const H: Ising = Ising {
    j: 1.0,
    h: 0.7,
    y: 0.3,
};
const PLENTY: usize = 1 << 24;

fn energy(psi: &Rbm) -> f64 {
    let samples = full_sum(psi, None);
    summary(&samples, &local_energies(psi, &H, &samples))
        .mean
        .re
}

fn drawn(psi: &Rbm, chains: usize) -> Samples {
    let mut sampler = Sampler::new(
        SamplerOptions {
            chains,
            seed: 3,
            ..Default::default()
        },
        6,
    )
    .unwrap();
    sampler.advance(Target::new(psi), 10);
    sampler.sample(Target::new(psi), 2).0
}

fn assert_close(a: &[f64], b: &[f64], tolerance: f64) {
    let scale = b.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    assert_eq!(a.len(), b.len());
    for (k, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= tolerance * scale, "entry {k}: {x} for {y}");
    }
}

#[test]
fn the_energy_is_that_of_the_matrix_and_real() {
    let psi = Rbm::random(6, 4, true, 1.0, 1);
    let samples = full_sum(&psi, None);
    let mut amplitudes = vec![Complex64::default(); 64];
    psi.log_psi(&samples.spins, &mut amplitudes);
    amplitudes.iter_mut().for_each(|z| *z = z.exp());
    let mut expectation = Complex64::default();
    for (i, psi_i) in amplitudes.iter().enumerate() {
        let z = |k: usize| 1.0 - 2.0 * ((i >> (k % 6)) & 1) as f64;
        let zz: f64 = (0..6).map(|k| z(k) * z(k + 1)).sum();
        expectation -= zz * psi_i.norm_sqr();
        for k in 0..6 {
            // X and Y by their 2 x 2 matrices.
            let y = if z(k) > 0.0 {
                -Complex64::i()
            } else {
                Complex64::i()
            };
            expectation += psi_i.conj() * (0.3 * y - 0.7) * amplitudes[i ^ (1 << k)];
        }
    }
    expectation /= amplitudes.iter().map(Complex64::norm_sqr).sum::<f64>();
    let s = summary(&samples, &local_energies(&psi, &H, &samples));
    assert!((s.mean - expectation).norm() < 1e-12 && s.mean.im.abs() < 1e-12);
}

#[test]
fn the_force_is_half_the_derivative_of_the_energy() {
    for complex in [false, true] {
        let mut psi = Rbm::random(6, 3, complex, 1.0, 2);
        let samples = full_sum(&psi, None);
        let energies = local_energies(&psi, &H, &samples);
        let force = Jacobian::new(&psi, &samples, &energies, PLENTY)
            .unwrap()
            .force();
        let theta = psi.params().to_vec();
        for k in (0..theta.len()).step_by(5) {
            let mut at = |step: f64| {
                let mut moved = theta.clone();
                moved[k] += step;
                psi.set_params(&moved);
                energy(&psi)
            };
            let derivative = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!(
                (2.0 * force[k] - derivative).abs() < 1e-8,
                "{k}: {} for {derivative}",
                2.0 * force[k]
            );
        }
    }
}

#[test]
fn the_metric_is_its_definition_held_or_streamed() {
    for complex in [false, true] {
        let psi = Rbm::random(6, 3, complex, 1.0, 4);
        let samples = drawn(&psi, 15);
        let energies = local_energies(&psi, &H, &samples);
        let (n, p) = (samples.len(), psi.param_count());
        let rows = std::sync::Mutex::new(vec![vec![Complex64::default(); p]; n]);
        psi.gradients(&samples.spins, &|s, re, im| {
            let o = &mut rows.lock().unwrap()[s];
            for (k, (o, re)) in o.iter_mut().zip(re).enumerate() {
                *o = Complex64::new(*re, im.get(k).copied().unwrap_or(0.0));
            }
        });
        let o = rows.into_inner().unwrap();
        let mean = |f: &dyn Fn(usize) -> Complex64| (0..n).map(f).sum::<Complex64>() / n as f64;
        let covariance = |k: usize, l: usize| {
            (mean(&|s| o[s][k].conj() * o[s][l]) - mean(&|s| o[s][k]).conj() * mean(&|s| o[s][l]))
                .re
        };
        let full = Jacobian::new(&psi, &samples, &energies, PLENTY).unwrap();
        // Room for about seven samples: blocks of three, the last one shorter.
        let memory = 8 * p * 7 * if complex { 2 } else { 1 };
        let streamed = Jacobian::new(&psi, &samples, &energies, memory).unwrap();
        assert!(full.is_held() && !streamed.is_held());
        for jacobian in [&full, &streamed] {
            let s = jacobian.metric();
            for k in 0..p {
                for l in 0..=k {
                    assert!((s[(k, l)] - covariance(k, l)).abs() < 1e-13, "S[{k},{l}]");
                }
                assert!((jacobian.metric_diagonal()[k] - covariance(k, k)).abs() < 1e-13);
            }
            let gram = jacobian.sample_gram(&vec![1.0; p]);
            // T y = Obar (Obar^T y), by two independent routes.
            let y: Vec<f64> = (0..jacobian.rows())
                .map(|r| (r as f64 * 0.37).sin())
                .collect();
            let direct: Vec<f64> = (0..y.len())
                .map(|r| {
                    (0..y.len())
                        .map(|c| gram[(r.max(c), r.min(c))] * y[c])
                        .sum()
                })
                .collect();
            assert_close(&direct, &jacobian.apply(&jacobian.adjoint(&y)), 1e-12);
        }
        assert_close(&streamed.force(), &full.force(), 1e-13);
        assert_close(streamed.eps(), full.eps(), 0.0);
    }
}

#[test]
fn both_forms_give_the_same_step() {
    for complex in [false, true] {
        let psi = Rbm::random(6, 4, complex, 1.0, 5);
        let samples = drawn(&psi, 12);
        let energies = local_energies(&psi, &H, &samples);
        let previous: Vec<f64> = (0..psi.param_count())
            .map(|k| 0.1 * (k as f64).cos())
            .collect();
        for (absolute, relative, momentum) in [
            (1e-2, 0.0, 0.0),
            (0.0, 0.05, 0.0),
            (1e-2, 0.02, 0.0),
            (1e-2, 0.0, 0.9),
            (1e-3, 0.05, 0.8),
        ] {
            let run = |form, memory| {
                let options = SrOptions {
                    shift: Shift {
                        absolute: Schedule::Constant(absolute),
                        relative: Schedule::Constant(relative),
                    },
                    form,
                    momentum,
                    ..Default::default()
                };
                let jacobian = Jacobian::new(&psi, &samples, &energies, memory).unwrap();
                let step = natural_gradient(&options, 0, &jacobian, &previous).unwrap();
                assert!(step.messages.is_empty());
                step
            };
            let sr = run(Form::Parameters, PLENTY);
            let min_sr = run(Form::Samples, PLENTY);
            assert_close(&min_sr.direction, &sr.direction, 1e-9);
            assert_close(&run(Form::Samples, 5000).direction, &sr.direction, 1e-9);
            assert_close(&run(Form::Parameters, 5000).direction, &sr.direction, 1e-9);
            // 34 (68) parameters, 24 (48) rows.
            assert_eq!(run(Form::Auto, PLENTY).form, Form::Samples);
            // The defining equation (S + D)(delta - phi) = F - S phi.
            let jacobian = Jacobian::new(&psi, &samples, &energies, PLENTY).unwrap();
            let diagonal = jacobian.metric_diagonal();
            let s_delta = jacobian.adjoint(&jacobian.apply(&sr.direction));
            let left: Vec<f64> = (0..s_delta.len())
                .map(|k| {
                    let moved = sr.direction[k] - momentum * previous[k];
                    s_delta[k] + (absolute + relative * diagonal[k]) * moved
                })
                .collect();
            assert_close(&left, &jacobian.force(), 1e-9);
        }
    }
}

#[test]
fn without_a_shift_the_singular_system_is_solved_with_a_message() {
    let psi = Rbm::random(6, 4, false, 1.0, 6);
    let samples = drawn(&psi, 8);
    let energies = local_energies(&psi, &H, &samples);
    let zero = Schedule::Constant(0.0);
    let mut options = SrOptions {
        shift: Shift {
            absolute: zero,
            relative: zero,
        },
        ..Default::default()
    };
    let jacobian = Jacobian::new(&psi, &samples, &energies, PLENTY).unwrap();
    options.form = Form::Samples;
    let step = natural_gradient(&options, 0, &jacobian, &[]).unwrap();
    assert!(step.direction.iter().all(|x| x.is_finite()));
    assert!(
        step.messages
            .iter()
            .any(|m| m.contains("diagonal shift of 0")),
        "{:?}",
        step.messages
    );
    options.form = Form::Parameters;
    let step = natural_gradient(&options, 0, &jacobian, &[]).unwrap();
    assert!(step.direction.iter().all(|x| x.is_finite()));
    assert!(
        step.messages.iter().any(|m| m.contains("Cholesky")),
        "{:?}",
        step.messages
    );
    options.max_norm = Some(1e-3);
    let short = natural_gradient(&options, 0, &jacobian, &[]).unwrap();
    let norm = short.direction.iter().map(|x| x * x).sum::<f64>().sqrt();
    assert!((norm - 1e-3).abs() < 1e-12);
}

#[test]
fn numbers_that_are_not_finite_are_errors() {
    let mut psi = Rbm::random(6, 2, false, 1.0, 7);
    let samples = full_sum(&psi, None);
    let mut energies = local_energies(&psi, &H, &samples);
    energies[3].re = f64::NAN;
    let run = |psi: &Rbm, energies: &dyn Values| {
        Jacobian::new(psi, &samples, energies, PLENTY)
            .err()
            .unwrap()
    };
    assert_eq!(run(&psi, &energies), SrError::NotFinite("a local energy"));
    energies[3].re = 0.0;
    let mut theta = psi.params().to_vec();
    theta[8] = f64::NAN;
    psi.set_params(&theta);
    assert_eq!(run(&psi, &energies), SrError::NotFinite("a gradient"));
}
