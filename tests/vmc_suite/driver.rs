//! Whole runs: ground states, resumption, interruption, rejected steps.

use crate::support::{Ising, Rbm};
use dnet::run::{Background, Spins, WaveFunction};
use dnet::vmc::driver::*;
use dnet::vmc::estimator::{local_energies, summary};
use dnet::vmc::optim::*;
use dnet::vmc::sampler::{
    Acceptance, Method as Walk, Move, Sampler, SamplerOptions, Target, full_sum,
};
use num_complex::Complex64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const CRITICAL: Ising = Ising {
    j: 1.0,
    h: 1.0,
    y: 0.0,
};

fn options(iterations: usize) -> VmcOptions {
    let sr = SrOptions {
        shift: Shift {
            absolute: Schedule::Linear {
                from: 1e-2,
                to: 1e-4,
                over: 80,
            },
            relative: Schedule::Constant(1e-3),
        },
        ..Default::default()
    };
    VmcOptions {
        iterations,
        samples_per_chain: 4,
        burn_in: 10,
        discard: 1,
        sampler: SamplerOptions {
            chains: 128,
            inversion_every: 4,
            seed: 5,
            ..Default::default()
        },
        optim: OptimOptions {
            method: Method::Sr(sr),
            rate: Schedule::WarmupDecay {
                from: 0.02,
                peak: 0.1,
                end: 0.02,
                warmup: 20,
                total: 120,
            },
        },
        guard: GuardOptions::default(),
    }
}

fn run_to_end(psi: &mut dyn WaveFunction, options: VmcOptions) -> Checkpoint {
    let mut vmc = Vmc::new(psi, &CRITICAL, None, options).unwrap();
    let outcome = vmc
        .run(&AtomicBool::new(false), None, &mut |_, _| {})
        .unwrap();
    assert_eq!(outcome, Outcome::Finished);
    vmc.checkpoint()
}

#[test]
fn the_critical_ring_of_ten_sites_is_found() {
    // -2 / sin(pi / 2N), by free fermions.
    let exact = -2.0 / (std::f64::consts::PI / 20.0).sin();
    let mut psi = Rbm::random(10, 10, false, 0.1, 1);
    psi.sweeps = true;
    let checkpoint = run_to_end(&mut psi, options(120));
    assert_eq!(checkpoint.log.get("Energy").unwrap().0.len(), 120);
    let basis = full_sum(&psi, None);
    let energy = summary(&basis, &local_energies(&psi, &CRITICAL, &basis));
    let error = (energy.mean.re - exact) / exact.abs();
    assert!((0.0..1e-3).contains(&error), "relative error {error:.2e}");
    // The sampled evaluation agrees with the sum over the basis.
    let mut sampler = Sampler::new(
        SamplerOptions {
            seed: 77,
            ..Default::default()
        },
        10,
    )
    .unwrap();
    let measured = evaluate(Target::new(&psi), &CRITICAL, &mut sampler, 20, 20);
    assert!((measured.energy.mean.re - energy.mean.re).abs() < 4.0 * measured.energy.error);
    assert!((measured.energy.r_hat - 1.0).abs() < 0.05);
    assert!(
        (0.0..1e-2).contains(&measured.v_score(0.0)),
        "{}",
        measured.v_score(0.0)
    );
}

#[test]
fn first_order_methods_and_momentum_descend() {
    let adam = Method::Adam(Adam::default());
    let spring = Method::Sr(SrOptions {
        momentum: 0.8,
        max_norm: Some(5.0),
        ..Default::default()
    });
    for (method, rate) in [(Method::Sgd, 0.02), (adam, 0.02), (spring, 0.03)] {
        let mut psi = Rbm::random(6, 6, false, 0.1, 2);
        let mut options = options(250);
        options.optim = OptimOptions {
            method,
            rate: Schedule::Constant(rate),
        };
        options.sampler.method = Walk::FullSum;
        let log = run_to_end(&mut psi, options).log;
        let energies = log.get("Energy").unwrap().1;
        let exact = -2.0 / (std::f64::consts::PI / 12.0).sin();
        let error = (energies[249] - exact) / exact.abs();
        assert!((0.0..2e-2).contains(&error), "relative error {error:.2e}");
    }
}

#[test]
fn a_resumed_run_repeats_the_uninterrupted_one_bit_for_bit() {
    let metropolis = Walk::Metropolis {
        moves: vec![Move::Single, Move::Pair],
        proposals: None,
    };
    let typewriter = Walk::Typewriter {
        width: 2,
        screened: true,
    };
    for (method, complex) in [
        (Walk::Sweep, true),
        (metropolis, false),
        (typewriter, false),
    ] {
        let mut options = options(12);
        options.sampler.method = method;
        options.sampler.chains = 40;
        options.sampler.acceptance = Acceptance::Metropolis;
        if let Method::Sr(sr) = &mut options.optim.method {
            sr.momentum = 0.5;
        }
        let fresh = || Rbm::random(8, 4, complex, 0.3, 3);
        let whole = run_to_end(&mut fresh(), options.clone());
        let mut psi = fresh();
        let mut vmc = Vmc::new(&mut psi, &CRITICAL, None, options.clone()).unwrap();
        let stop = AtomicBool::new(false);
        let outcome = vmc.run(&stop, None, &mut |vmc, _| {
            if vmc.iteration() == 5 {
                stop.store(true, Ordering::Relaxed);
            }
        });
        assert_eq!(outcome.unwrap(), Outcome::Stopped);
        let text = serde_json::to_string(&vmc.checkpoint()).unwrap();
        let stored: Checkpoint = serde_json::from_str(&text).unwrap();
        assert_eq!(stored.iteration, 5);
        let mut other = fresh();
        let mut vmc = Vmc::resume(&mut other, &CRITICAL, None, options, stored).unwrap();
        vmc.run(&AtomicBool::new(false), None, &mut |_, _| {})
            .unwrap();
        // R-hat may be NaN, so bits are compared through the stored form.
        let bits = |c: &Checkpoint| serde_json::to_string(c).unwrap();
        assert_eq!(bits(&vmc.checkpoint()), bits(&whole));
    }
}

#[test]
fn time_limits_and_foreign_checkpoints() {
    let mut psi = Rbm::random(6, 3, false, 0.3, 3);
    let mut vmc = Vmc::new(&mut psi, &CRITICAL, None, options(5)).unwrap();
    let outcome = vmc
        .run(
            &AtomicBool::new(false),
            Some(Duration::ZERO),
            &mut |_, _| {},
        )
        .unwrap();
    assert_eq!((outcome, vmc.iteration()), (Outcome::TimeUp, 0));
    let checkpoint = vmc.checkpoint();
    let mut other = Rbm::random(6, 4, false, 0.3, 3);
    let error = Vmc::resume(&mut other, &CRITICAL, None, options(5), checkpoint.clone())
        .err()
        .unwrap();
    assert_eq!(
        error,
        VmcError::ForeignCheckpoint {
            stored: 27,
            needed: 34
        }
    );
    let mut fewer = options(5);
    fewer.sampler.chains = 3;
    assert!(matches!(
        Vmc::resume(&mut psi, &CRITICAL, None, fewer, checkpoint),
        Err(VmcError::Sampler(_))
    ));
}

#[test]
fn impossible_options_are_one_clear_error() {
    let refuse = |change: &dyn Fn(&mut VmcOptions), part: &str| {
        let mut psi = Rbm::random(6, 3, false, 0.3, 3);
        let mut options = options(5);
        change(&mut options);
        let text = Vmc::new(&mut psi, &CRITICAL, None, options)
            .err()
            .unwrap()
            .to_string();
        assert!(text.contains(part), "{text}");
    };
    refuse(&|o| o.samples_per_chain = 0, "samples per chain");
    refuse(
        &|o| o.optim.rate = Schedule::Constant(f64::NAN),
        "learning rate",
    );
    refuse(&|o| o.sampler.chains = 0, "chains");
    refuse(&|o| o.guard.shrink = 1.0, "shrink");
}

/// An RBM that turns to NaN outside a box of parameters.
struct Fragile(Rbm);

impl Fragile {
    fn broken(&self) -> bool {
        self.0.params().iter().any(|x| x.abs() > 0.75)
    }
}

impl WaveFunction for Fragile {
    fn lattice(&self) -> dnet::ir::Lattice {
        self.0.lattice()
    }
    fn param_count(&self) -> usize {
        self.0.param_count()
    }
    fn is_complex(&self) -> bool {
        false
    }
    fn set_params(&mut self, theta: &[f64]) {
        self.0.set_params(theta);
    }
    fn params(&self) -> &[f64] {
        self.0.params()
    }
    fn log_psi(&self, batch: &Spins, out: &mut [Complex64]) {
        self.0.log_psi(batch, out);
        if self.broken() {
            out.fill(Complex64::new(f64::NAN, 0.0));
        }
    }
    fn gradients(&self, batch: &Spins, row: &(dyn Fn(usize, &[f64], &[f64]) + Sync)) {
        self.0.gradients(batch, row);
    }
    fn background<'a>(&'a self, spins: &Spins) -> Box<dyn Background + 'a> {
        struct Broken;
        impl Background for Broken {
            fn log_psi(&self) -> Complex64 {
                Complex64::new(f64::NAN, 0.0)
            }
            fn log_ratio(&mut self, _: &[usize]) -> Complex64 {
                Complex64::new(f64::NAN, 0.0)
            }
            fn accept(&mut self, _: &[usize]) {}
        }
        if self.broken() {
            Box::new(Broken)
        } else {
            self.0.background(spins)
        }
    }
    fn sweep(
        &self,
        _: &mut Spins,
        _: bool,
        _: &mut dyn FnMut(usize, Complex64) -> bool,
    ) -> Option<()> {
        None
    }
}

#[test]
fn a_step_into_nan_is_taken_back_and_made_smaller() {
    let mut psi = Fragile(Rbm::random(6, 6, false, 0.3, 9));
    let mut hasty = options(15);
    hasty.optim.rate = Schedule::Constant(3.0);
    let mut messages = Vec::new();
    let mut vmc = Vmc::new(&mut psi, &CRITICAL, None, hasty).unwrap();
    let outcome = vmc.run(&AtomicBool::new(false), None, &mut |_, event| {
        if let Event::Message(text) = event {
            messages.push(text.to_string());
        }
    });
    assert!(
        messages
            .iter()
            .any(|m| m.contains("not finite") && m.contains("rejected")),
        "{messages:?}"
    );
    // Done, or stuck at the edge of the box: never with NaN in the log.
    match outcome {
        Ok(outcome) => assert_eq!(outcome, Outcome::Finished),
        Err(error) => assert!(error.to_string().contains("in a row")),
    }
    let checkpoint = vmc.checkpoint();
    let energies = checkpoint.log.get("Energy").unwrap().1;
    assert!(energies.len() > 1 && energies.iter().all(|e| e.is_finite()));
    assert!(energies[energies.len() - 1] < energies[0]);
}

#[test]
fn parameters_that_are_not_numbers_end_the_run() {
    let mut psi = Fragile(Rbm::random(6, 2, false, 0.3, 9));
    psi.set_params(&[1.0; 20]);
    let mut vmc = Vmc::new(&mut psi, &CRITICAL, None, options(5)).unwrap();
    let error = vmc
        .run(&AtomicBool::new(false), None, &mut |_, _| {})
        .unwrap_err();
    assert!(error.to_string().contains("not finite"), "{error}");
}
