//! The order of things on a device: nothing but what `Device` promises.
//!
//! The device of these tests does what it is asked for as late, and its streams in as
//! harmful an order, as the promises allow; numbers must not change by a bit.

#[path = "cuda_shim/case.rs"]
mod case;
#[path = "networks/mod.rs"]
mod networks;
#[path = "cuda_shim/mod.rs"]
mod shim;
#[path = "support/mod.rs"]
mod support;

use case::Case;
use dnet::back::cuda::device::{
    Buffer, Device, DeviceError, Launch, Module, Step, Stream, in_turns,
};
use dnet::back::cuda::emit::Kernel;
use dnet::back::cuda::linear::Linear;
use dnet::back::cuda::translation_unit;
use dnet::ir::Boundary;
use dnet::run::network::Precision;
use dnet::run::rows::{CentredRows, System};
use dnet::vmc::estimator::local_energies;
use dnet::vmc::sampler::{Method, Sampler, SamplerOptions, Target};
use num_complex::Complex64;
use rayon::prelude::*;
use shim::{Order, ShimDevice, When};
use std::sync::{Arc, Mutex};

/// `outputs[k] = 2 inputs[k] + sizes[0]` for `samples` numbers.
const DOUBLE: &str = "
extern \"C\" __global__ void twice(const __grid_constant__ dnet::Launch a) {
    for (int k = threadIdx.x; k < a.samples; k += 32)
        a.outputs[k] = 2 * a.inputs[k] + a.sizes[0];
}";

struct Twice {
    device: Arc<dyn Device>,
    module: Arc<dyn Module>,
}

impl Twice {
    fn new(when: When) -> Twice {
        // memory may be read before anything is in it
        let device = ShimDevice::doing(when, Order::Forward, 1, 1 << 20).unwatched();
        let device: Arc<dyn Device> = Arc::new(device);
        let unit = translation_unit(Precision::F64, std::iter::once(DOUBLE));
        let module = Arc::from(device.load(&unit).expect("compiles"));
        Twice { device, module }
    }

    fn step(&self, from: &Buffer, to: &Buffer, add: i32) -> Step {
        Step {
            module: self.module.clone(),
            kernel: Arc::new(Kernel {
                threads: 32,
                ..Kernel::by_hand("twice")
            }),
            blocks: 1,
            arguments: Launch {
                samples: to.span().bytes / 8,
                sizes: [add, 0, 0, 0],
                inputs: from.span(),
                outputs: to.span(),
                ..Launch::default()
            },
        }
    }

    fn launch(&self, stream: Stream, s: &Step) {
        let done = (s.module).launch_on(stream, &s.kernel, s.blocks, &s.arguments);
        done.expect("asked for");
    }

    fn holding(&self, stream: Stream, numbers: &[f64]) -> Buffer {
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_ne_bytes()).collect();
        Buffer::holding_on(&self.device, stream, &bytes).expect("memory")
    }

    fn room(&self, stream: Stream) -> Buffer {
        Buffer::on(&self.device, stream, 24).expect("memory")
    }
}

/// `2 x` by another stream than the one that wrote x, ordered or not.
fn across(when: When, ordered: bool) -> Vec<f64> {
    let t = Twice::new(when);
    let [main, side] = [0, 1].map(Stream::in_turn);
    let x = t.holding(main, &[1.0, 2.0, 3.0]);
    let y = t.room(side);
    if ordered {
        t.device.order(main, side).expect("asked for");
    }
    t.launch(side, &t.step(&x, &y, 0));
    if ordered {
        t.device.order(side, main).expect("asked for");
    }
    drop(x);
    y.numbers(3).expect("numbers")
}

#[test]
fn a_missing_dependency_is_seen() {
    let want = [2.0, 4.0, 6.0];
    for when in When::LATER {
        assert_eq!(across(when, true), want, "{when:?}");
    }
    assert_ne!(
        across(When::Late, false),
        want,
        "read before it was written"
    );
    // as a GPU might do it by chance
    assert_eq!(across(When::AtOnce, false), want);
}

#[test]
fn memory_given_back_too_early_is_seen() {
    let run = |when: When, ordered: bool| {
        let t = Twice::new(when);
        let [main, side] = [0, 1].map(Stream::in_turn);
        let x = t.holding(main, &[1.0, 2.0, 3.0]);
        t.device.order(main, side).expect("asked for");
        let y = t.room(side);
        t.launch(side, &t.step(&x, &y, 0));
        if ordered {
            t.device.order(side, main).expect("asked for");
        }
        drop(x);
        // the same memory again
        let z = t.holding(main, &[7.0, 8.0, 9.0]);
        assert_eq!(z.numbers(3).expect("numbers"), [7.0, 8.0, 9.0]);
        y.numbers(3).expect("numbers")
    };
    for when in When::LATER {
        assert_eq!(run(when, true), [2.0, 4.0, 6.0], "{when:?}");
    }
    assert_ne!(run(When::Late, false), [2.0, 4.0, 6.0]);
}

#[test]
fn recordings_are_their_launches() {
    for when in [When::AtOnce, When::Late, When::Random(3)] {
        let t = Twice::new(when);
        let x = t.holding(Stream::MAIN, &[1.0, 2.0, 3.0]);
        let y = t.room(Stream::MAIN);
        // y = 2x + 1, x = 2y: memory is what it is when they are made again
        let recording = t.device.record(vec![t.step(&x, &y, 1), t.step(&y, &x, 0)]);
        let mut want = [1.0, 2.0, 3.0];
        for _ in 0..3 {
            recording.replay(Stream::MAIN).expect("asked for");
            want = want.map(|x| 2.0 * (2.0 * x + 1.0));
        }
        assert_eq!(x.numbers(3).expect("numbers"), want, "{when:?}");
    }
}

#[test]
fn pieces_in_turns_are_finished_in_order_and_may_use_the_main_stream() {
    for when in When::LATER {
        let t = Twice::new(when);
        let x = t.holding(Stream::MAIN, &[1.0, 2.0, 3.0]);
        let mut seen = Vec::new();
        let start = |stream, add: i32| {
            let own = t.holding(stream, &[f64::from(add); 3]);
            let y = t.room(stream);
            t.launch(stream, &t.step(&own, &y, 0));
            let z = t.room(stream);
            t.launch(stream, &t.step(&x, &z, add));
            Ok((y, z))
        };
        in_turns(&*t.device, 0..8, start, |(y, z)| {
            seen.push((y.numbers(3)?[0], z.numbers(3)?[2]));
            Ok(())
        })
        .expect("runs");
        drop(x);
        let want: Vec<(f64, f64)> = (0..8)
            .map(|k| (2.0 * f64::from(k), 6.0 + f64::from(k)))
            .collect();
        assert_eq!(seen, want, "{when:?}");
        // a failure is handed on, and leaves the device usable
        let fail = |_, k: usize| match k {
            5 => Err(DeviceError::new("the fifth")),
            _ => Ok(k),
        };
        let failed = in_turns(&*t.device, 0..8usize, fail, |_| Ok(()));
        assert_eq!(failed, Err(DeviceError::new("the fifth")));
        assert_eq!(t.holding(Stream::MAIN, &[5.0]).numbers(1), Ok(vec![5.0]));
    }
}

#[test]
fn what_goes_wrong_in_a_kernel_is_reported_by_who_waits() {
    let t = Twice::new(When::Late);
    let x = t.holding(Stream::MAIN, &[1.0]);
    let y = t.room(Stream::MAIN);
    let mut step = t.step(&x, &y, 0);
    step.arguments.samples = 2;
    t.launch(Stream::MAIN, &step);
    let error = y.numbers(3).expect_err("beyond the end of x");
    assert!(
        error.to_string().contains("twice: element 1 of 1"),
        "{error}"
    );
}

/// Everything a network is asked for, with memory for a few configurations at once.
fn everything(case: &Case, budget: usize, when: When) -> Vec<Vec<u64>> {
    let device = ShimDevice::doing(when, Order::Forward, 2, budget);
    let launches = device.counter();
    let mut network = case.on(Precision::F64, device);
    let samples = case.samples(7);
    let bits = |z: &[Complex64]| -> Vec<u64> {
        z.iter()
            .flat_map(|z| [z.re.to_bits(), z.im.to_bits()])
            .collect()
    };
    let mut all = Vec::new();
    // other parameters: constants in use are replaced
    for scale in [1.0, 0.5] {
        let theta: Vec<f64> = case.theta.iter().map(|x| scale * x).collect();
        network.try_set_params(&theta).expect("a network");
        let mut log_psi = vec![Complex64::ZERO; 7];
        network
            .try_log_psi(&samples.spins, &mut log_psi)
            .expect("runs");
        all.push(bits(&log_psi));
        let rows = Mutex::new(vec![Vec::new(); 7]);
        let keep = |k: usize, re: &[f64], im: &[f64]| {
            let row = re.iter().chain(im).map(|x| x.to_bits()).collect();
            rows.lock().unwrap()[k] = row;
        };
        network.try_gradients(&samples.spins, &keep).expect("runs");
        all.extend(rows.into_inner().unwrap());
        let operator = support::operator("heisenberg", case.lattice);
        all.push(bits(&local_energies(&network, &operator, &samples)));
        assert!(launches().iter().all(|&n| n > 0), "several pieces at once");
    }
    let random = SamplerOptions::default().method;
    let typewriter = Method::Typewriter {
        width: 3,
        screened: true,
    };
    for method in [random, typewriter] {
        let options = SamplerOptions {
            method,
            chains: 3,
            inversion_every: 2,
            ..SamplerOptions::default()
        };
        let mut sampler = Sampler::new(options, case.lattice.sites()).expect("options");
        sampler.advance(Target::new(&network), 2);
        let spins = &sampler.state().spins;
        all.push(spins.iter().map(|&s| s as u64).collect());
    }
    all
}

#[test]
fn networks_do_not_depend_on_when_things_are_done() {
    use Boundary::{Open, Periodic};
    let cases = [
        (Case::new("dysonnet", [26, 1], Periodic), 3 << 13),
        (Case::new("rbm_complex", [9, 1], Open), 1 << 10),
    ];
    cases.par_iter().for_each(|&(ref case, budget)| {
        let want = everything(case, budget, When::AtOnce);
        for when in When::LATER {
            let got = everything(case, budget, when);
            assert!(got == want, "{} {when:?}", case.name);
        }
    });
}

#[test]
fn stochastic_reconfiguration_does_not_depend_on_when_things_are_done() {
    let case = Case::new("rbm", [24, 1], Boundary::Periodic);
    let run = |when: When| {
        // just enough, so that gradients come in several pieces
        let budget = 8 * (40 * case.theta.len() + 40 * 40);
        let device = ShimDevice::doing(when, Order::Backward, 2, budget);
        let launches = device.counter();
        let network = case.on(Precision::F64, device);
        let samples = case.samples(40);
        let weights = vec![1.0 / 40.0; 40];
        let mut all = Vec::new();
        for shift in [0.01, 0.1] {
            let rows = network.try_centred_rows(&samples.spins, &weights);
            let rows = rows.expect("runs").expect("fits");
            assert!(launches().iter().all(|&n| n > 0), "several pieces at once");
            all.push(rows.mean().to_vec());
            // solved twice: the second time as recorded
            for scale in [1.0, 2.0] {
                let rhs: Vec<f64> = (0..40).map(|k| scale + f64::from(k)).collect();
                let system = System::Rows { scale: None, shift };
                all.push(rows.solve(&system, &rhs).expect("positive definite"));
            }
        }
        all
    };
    let want = run(When::AtOnce);
    let [once, twice] = [1, 2].map(|k| &want[k]);
    assert!(once != twice);
    for when in When::LATER {
        assert!(run(when) == want, "{when:?}");
    }
}

#[test]
fn a_solver_serves_systems_of_other_sizes() {
    let device: Arc<dyn Device> =
        Arc::new(ShimDevice::doing(When::Late, Order::Forward, 2, 1 << 20));
    let linear = Arc::new(Linear::new(&device).expect("compiles"));
    for n in [3, 40, 40, 3] {
        // n e_k: the rows' system is (n^2 + 1) times the unit matrix
        let mut numbers = vec![0.0; n * n];
        (0..n).for_each(|k| numbers[k * n + k] = n as f64);
        let matrix = linear.matrix(n, n, &numbers).expect("memory");
        let system = System::Rows {
            scale: None,
            shift: 1.0,
        };
        let x = matrix.solve(&system, &vec![1.0; n]).expect("runs");
        let want = 1.0 / ((n * n + 1) as f64);
        let x = x.expect("positive definite");
        assert!(x.iter().all(|x| (x - want).abs() < 1e-15), "{n}: {x:?}");
        assert_eq!(linear.kept(), 8 * (n * n + n));
    }
}
