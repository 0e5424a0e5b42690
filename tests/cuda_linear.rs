//! Linear algebra of stochastic reconfiguration on a device, run by the shim,
//! against the CPU's.

#[path = "cuda_shim/mod.rs"]
mod shim;

use dnet::back::cuda::device::Device;
use dnet::back::cuda::emit::Options;
use dnet::back::cuda::linear::{Linear, Matrix, RowBuilder};
use dnet::back::cuda::network::CudaNetwork;
use dnet::check::Program;
use dnet::ir::{Boundary, Lattice};
use dnet::pipeline;
use dnet::rng::{ChainRng, Stream};
use dnet::run::WaveFunction;
use dnet::run::network::Precision;
use dnet::run::rows::{CentredRows, System};
use dnet::verify::backend::Outside;
use dnet::vmc::optim::{Form, Jacobian, Schedule, SrOptions, natural_gradient};
use dnet::vmc::sampler::Samples;
use faer::linalg::solvers::Solve;
use faer::{Mat, Side};
use num_complex::Complex64;
use shim::{Order, ShimDevice};
use std::path::Path;
use std::sync::Arc;

fn device(order: Order) -> Arc<dyn Device> {
    with_blocks(order, 3)
}

/// Few blocks get large tiles, many blocks small ones.
fn with_blocks(order: Order, blocks: usize) -> Arc<dyn Device> {
    Arc::new(ShimDevice::new(order, blocks, 1 << 30))
}

fn numbers(seed: u64, count: usize) -> Vec<f64> {
    let mut rng = ChainRng::new(seed, 0, 0, Stream::Sweep);
    (0..count).map(|_| 2.0 * rng.uniform() - 1.0).collect()
}

fn close(got: &[f64], want: &[f64], bound: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1.0, |m: f64, w| m.max(w.abs()));
    for (k, (g, w)) in got.iter().zip(want).enumerate() {
        let off = (g - w).abs();
        assert!(
            off <= bound * scale,
            "{what}, number {k}: {g} instead of {w}"
        );
    }
}

/// The matrix of a system by faer, in full.
fn system_of(a: &Mat<f64>, system: &System) -> Mat<f64> {
    match system {
        System::Parameters { absolute, relative } => {
            let mut s = a.transpose() * a;
            for k in 0..s.nrows() {
                s[(k, k)] += absolute + relative * s[(k, k)];
                if s[(k, k)] == 0.0 {
                    s[(k, k)] = 1.0;
                }
            }
            s
        }
        System::Rows { scale, shift } => {
            let scaled = Mat::from_fn(a.nrows(), a.ncols(), |i, k| {
                a[(i, k)] * scale.as_ref().map_or(1.0, |s| s[k])
            });
            let mut t = scaled * a.transpose();
            (0..t.nrows()).for_each(|k| t[(k, k)] += shift);
            t
        }
    }
}

#[test]
fn products_and_solutions_are_those_of_faer() {
    // less than a panel, whole panels and tiles, ragged ones, several of each
    let shapes = [[1, 1], [5, 40], [64, 32], [33, 70], [70, 131], [135, 20]];
    let ways = shapes.into_iter().flat_map(|s| [(s, 3), (s, 99)]);
    for (k, ([rows, columns], blocks)) in ways.enumerate() {
        let order = [Order::Forward, Order::Backward, Order::Random(k as i32)][k % 3];
        let linear = Linear::new(&with_blocks(order, blocks)).expect("compiles");
        let linear = Arc::new(linear);
        let data = numbers(k as u64, rows * columns);
        let a = Mat::from_fn(rows, columns, |i, j| data[i * columns + j]);
        let matrix = linear.matrix(rows, columns, &data).expect("fits");
        let what = format!("{rows} x {columns}");
        let (x, y) = (numbers(90, columns), numbers(91, rows));
        let product = |v: &[f64], m: Mat<f64>| -> Vec<f64> {
            let r = m * Mat::from_fn(v.len(), 1, |i, _| v[i]);
            (0..r.nrows()).map(|i| r[(i, 0)]).collect()
        };
        let want = product(&x, a.clone());
        close(&matrix.apply(&x).expect("runs"), &want, 1e-13, &what);
        let want = product(&y, a.transpose().to_owned());
        close(&matrix.adjoint(&y).expect("runs"), &want, 1e-13, &what);
        let want: Vec<f64> = (0..columns)
            .map(|j| (0..rows).map(|i| a[(i, j)] * a[(i, j)]).sum())
            .collect();
        close(&matrix.column_squares().expect("runs"), &want, 1e-13, &what);
        let scale = numbers(92, columns).iter().map(|x| x.abs() + 0.1).collect();
        let systems = [
            System::Parameters {
                absolute: 0.3,
                relative: 0.2,
            },
            System::Rows {
                scale: None,
                shift: 0.5,
            },
            System::Rows {
                scale: Some(scale),
                shift: 1.0,
            },
        ];
        systems.iter().for_each(|s| compare(&matrix, &a, s, &what));
    }
}

fn compare(matrix: &Matrix, a: &Mat<f64>, system: &System, what: &str) {
    let want = system_of(a, system);
    let n = want.nrows();
    let got = matrix.gram(system).expect("runs");
    let scale = (0..n).map(|k| want[(k, k)]).fold(1.0, f64::max);
    for i in 0..n {
        for j in 0..=i {
            let off = (got[i * n + j] - want[(i, j)]).abs();
            assert!(off <= 1e-13 * scale, "{what} {system:?} ({i}, {j})");
        }
    }
    let rhs = numbers(93, n);
    let b = Mat::from_fn(n, 1, |i, _| rhs[i]);
    let x = want.llt(Side::Lower).expect("positive definite").solve(&b);
    let x: Vec<f64> = (0..n).map(|i| x[(i, 0)]).collect();
    let got = matrix
        .solve(system, &rhs)
        .expect("runs")
        .expect("a solution");
    close(&got, &x, 1e-11, &format!("{what} {system:?}"));
}

#[test]
fn matrices_that_are_not_positive_definite_are_refused() {
    let linear = Arc::new(Linear::new(&device(Order::Forward)).expect("compiles"));
    // more rows than columns: without a shift the matrix of the rows is singular,
    // with a negative one it is indefinite
    let mut data = numbers(5, 50 * 40);
    let indefinite = System::Rows {
        scale: None,
        shift: -0.5,
    };
    let rhs = numbers(6, 50);
    let matrix = linear.matrix(50, 40, &data).expect("fits");
    assert_eq!(matrix.solve(&indefinite, &rhs).expect("runs"), None);
    // a number that is none, in the second panel
    data[45 * 40] = f64::NAN;
    let matrix = linear.matrix(50, 40, &data).expect("fits");
    let shifted = System::Rows {
        scale: None,
        shift: 1.0,
    };
    assert_eq!(matrix.solve(&shifted, &rhs).expect("runs"), None);
}

#[test]
fn rows_of_weight_zero_count_for_nothing() {
    let linear = Arc::new(Linear::new(&device(Order::Backward)).expect("compiles"));
    let (samples, columns) = (4, 3);
    let mut values = numbers(7, samples * 2 * columns);
    values[2 * 2 * columns + 1] = f64::INFINITY;
    let weights = [0.5, 0.25, 0.0, 0.25];
    let builder = RowBuilder::new(&linear, samples, 2, columns).expect("fits");
    let all = linear.matrix(samples * 2, columns, &values).expect("fits");
    builder.place(&(0..samples), all.data()).expect("runs");
    let rows = builder.centre(&weights).expect("runs");
    assert!(rows.mean().iter().all(|m| m.is_finite()));
    let column = rows.apply(&[0.0, 1.0, 0.0]);
    assert_eq!(column[2], 0.0, "the sample of weight zero");
    // centred: the weighted rows add up to zero
    let roots: Vec<f64> = (0..8).map(|r| f64::sqrt(weights[r % 4])).collect();
    let part = |p: usize| -> Vec<f64> {
        let inside = |r: usize| if r / 4 == p { roots[r] } else { 0.0 };
        rows.adjoint(&(0..8).map(inside).collect::<Vec<_>>())
    };
    close(&part(0), &[0.0; 3], 1e-14, "real parts");
    close(&part(1), &[0.0; 3], 1e-14, "imaginary parts");
}

#[test]
fn steps_of_stochastic_reconfiguration_are_those_of_the_host() {
    let lattice = Lattice::chain(12, Boundary::Periodic);
    for name in ["rbm", "rbm_complex"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.dnet"));
        let program = Program::load(&file);
        let info = program.network(name).check().expect("checks");
        let graph = pipeline::amplitude(&pipeline::graph(&info));
        let count = dnet::params::Params::zeros(&graph, lattice)
            .expect("a lattice")
            .flat()
            .len();
        let theta: Vec<f64> = numbers(11, count).iter().map(|x| 0.5 * x).collect();
        // little memory: gradients come in several pieces
        let device: Arc<dyn Device> = Arc::new(ShimDevice::new(Order::Forward, 2, 1 << 18));
        let options = Options::new(Precision::F64);
        let network = CudaNetwork::new(device, &graph, lattice, &theta, &options);
        let network = network.expect("compiles");
        let samples = Samples {
            sites: 12,
            spins: numbers(12, 9 * 12)
                .iter()
                .map(|x| if *x < 0.0 { -1 } else { 1 })
                .collect(),
            weights: None,
            per_chain: 1,
        };
        let energies: Vec<Complex64> = numbers(13, 9)
            .iter()
            .zip(numbers(14, 9))
            .map(|(a, b)| Complex64::new(*a, b))
            .collect();
        let host = Outside(&network);
        let there = Jacobian::new(&network, &samples, &energies, 1 << 30).expect("finite");
        let here = Jacobian::new(&host, &samples, &energies, 1 << 30).expect("finite");
        let weights = vec![1.0 / 9.0; 9];
        assert!(network.centred_rows(&samples.spins, &weights).is_some());
        for form in [Form::Parameters, Form::Samples] {
            for relative in [0.0, 0.1] {
                let mut options = SrOptions {
                    form,
                    momentum: 0.8,
                    ..SrOptions::default()
                };
                options.shift.absolute = Schedule::Constant(1e-2);
                options.shift.relative = Schedule::Constant(relative);
                let previous = numbers(15, count);
                let [a, b] = [&there, &here].map(|j| {
                    let step = natural_gradient(&options, 3, j, &previous);
                    step.expect("a step").direction
                });
                close(&a, &b, 1e-9, &format!("{name} {form:?} {relative}"));
            }
        }
        // where Cholesky fails on the device the host's rule applies
        let singular = System::Rows {
            scale: None,
            shift: -1e-3,
        };
        let rhs = numbers(16, there.rows());
        let [a, b] = [&there, &here].map(|j| j.solve(&singular, &rhs).expect("a solution"));
        assert!(a.message.is_some() && b.message.is_some());
        close(&a.x, &b.x, 1e-7, "the pseudo-inverse");
    }
}
