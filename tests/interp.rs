//! The reference interpreter against values worked out by hand or by another formula.

use dnet::check::core::{Einsum, Place, Token};
use dnet::interp::{EvalError, Tensor, evaluate};
use dnet::ir::{Boundary, Graph, GraphParam, Lattice, MapFn, NodeId, NodeType, Op, Scan, ZipFn};
use std::f64::consts::{PI, TAU};

const SITE: Place = Place::Site(Token::SPIN);

fn param(graph: &mut Graph, place: Place, shape: &[usize]) -> NodeId {
    let path = format!("p{}", graph.params.len());
    graph.params.push(GraphParam {
        path,
        ty: NodeType::fixed(place, shape),
    });
    graph
        .add(Op::Param(graph.params.len() as u32 - 1), &[])
        .expect("declared")
}

fn tensor(shape: &[usize], data: &[f64]) -> Tensor {
    Tensor {
        shape: shape.to_vec(),
        data: data.to_vec(),
    }
}

/// Reproducible numbers in (-1, 1).
fn noise(seed: usize, shape: &[usize]) -> Tensor {
    Tensor::from_fn(shape, |k| {
        (1.0 + seed as f64 * 12.9898 + k as f64 * 78.233).sin()
    })
}

fn value(graph: &Graph, id: NodeId, lattice: Lattice, params: &[Tensor]) -> Vec<f64> {
    let spins: Vec<i8> = (0..lattice.sites())
        .map(|i| if i == 0 { 1 } else { -1 })
        .collect();
    evaluate(graph, lattice, params, &spins)
        .expect("valid")
        .value(id)
        .data
        .clone()
}

fn close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    for (x, y) in a.iter().zip(b) {
        assert!((x - y).abs() < 1e-12 * (1.0 + y.abs()), "{a:?}\n{b:?}");
    }
}

fn chain(n: usize, boundary: Boundary) -> Lattice {
    Lattice::chain(n, boundary)
}

#[test]
fn mean_field_network() {
    let mut g = Graph::default();
    let s = g.add(Op::Spins, &[]).unwrap();
    let total = g.add(Op::Sum, &[s]).unwrap();
    let w = param(&mut g, Place::Whole, &[]);
    let theta = g.add(Op::Zip(ZipFn::Mul), &[w, total]).unwrap();
    let out = g.add(Op::Map(MapFn::LogCosh), &[theta]).unwrap();
    g.outputs = vec![out, theta];
    let w = [Tensor::scalar(0.4)];
    let e = evaluate(&g, chain(4, Boundary::Open), &w, &[1, 1, -1, 1]).unwrap();
    assert!((e.log_psi().re - 0.8f64.cosh().ln()).abs() < 1e-15);
    assert_eq!(e.log_psi().im, 0.8);
}

#[test]
fn windows_wrap_on_a_ring_and_read_zero_outside_a_chain() {
    let mut g = Graph::default();
    let s = g.add(Op::Spins, &[]).unwrap();
    let w = g
        .add(
            Op::Window {
                lo: [-1, 0],
                hi: [1, 0],
            },
            &[s],
        )
        .unwrap();
    let ring = value(&g, w, chain(3, Boundary::Periodic), &[]);
    assert_eq!(ring, [-1., 1., -1., 1., -1., -1., -1., -1., 1.]);
    let open = value(&g, w, chain(3, Boundary::Open), &[]);
    assert_eq!(open, [0., 1., -1., 1., -1., -1., -1., -1., 0.]);
}

#[test]
fn a_window_wider_than_the_ring_wraps_repeatedly() {
    let mut g = Graph::default();
    let s = g.add(Op::Spins, &[]).unwrap();
    let w = g
        .add(
            Op::Window {
                lo: [-3, 0],
                hi: [2, 0],
            },
            &[s],
        )
        .unwrap();
    let ring = value(&g, w, chain(2, Boundary::Periodic), &[]);
    assert_eq!(ring, [-1., 1., -1., 1., -1., 1., 1., -1., 1., -1., 1., -1.]);
}

#[test]
fn patches_of_a_square() {
    let mut g = Graph::default();
    let x = param(&mut g, SITE, &[]);
    let p = g.add(Op::Patch { ratio: [2, 2] }, &[x]).unwrap();
    let back = g.add(Op::Unpatch { ratio: [2, 2] }, &[p]).unwrap();
    let lattice = Lattice {
        extent: [2, 4],
        boundary: Boundary::Open,
    };
    let data: Vec<f64> = (0..8).map(f64::from).collect();
    let params = [tensor(&[8], &data)];
    assert_eq!(
        value(&g, p, lattice, &params),
        [0., 1., 4., 5., 2., 3., 6., 7.]
    );
    assert_eq!(value(&g, back, lattice, &params), data);
}

#[test]
fn contraction_keeps_the_site_and_reads_diagonals() {
    let mut g = Graph::default();
    let x = param(&mut g, SITE, &[2]);
    let k = param(&mut g, Place::Whole, &[2, 2]);
    let letters = |s: &str| s.chars().collect::<Vec<char>>();
    let spec = |a: &str, b: &str, c: &str| {
        Op::Einsum(Einsum {
            inputs: vec![letters(a), letters(b)],
            output: letters(c),
        })
    };
    let y = g.add(spec("a", "ab", "b"), &[x, k]).unwrap();
    let d = g.add(spec("a", "bb", "ba"), &[x, k]).unwrap();
    let params = [
        tensor(&[2, 2], &[1., 2., 3., 4.]),
        tensor(&[2, 2], &[5., 6., 7., 8.]),
    ];
    let lattice = chain(2, Boundary::Open);
    assert_eq!(value(&g, y, lattice, &params), [19., 22., 43., 50.]);
    assert_eq!(
        value(&g, d, lattice, &params),
        [5., 10., 8., 16., 15., 20., 24., 32.]
    );
}

#[test]
fn whole_values_align_with_the_shape_not_with_the_sites() {
    let mut g = Graph::default();
    let x = param(&mut g, SITE, &[2]);
    let k = param(&mut g, Place::Whole, &[3, 1]);
    let y = g.add(Op::Zip(ZipFn::Add), &[x, k]).unwrap();
    let params = [
        tensor(&[2, 2], &[1., 2., 3., 4.]),
        tensor(&[3, 1], &[10., 20., 30.]),
    ];
    let found = value(&g, y, chain(2, Boundary::Open), &params);
    assert_eq!(
        found,
        [11., 12., 21., 22., 31., 32., 13., 14., 23., 24., 33., 34.]
    );
}

#[test]
fn index_constants() {
    let mut g = Graph::default();
    let two = Token([2, 1]);
    let on = |p| NodeType::fixed(p, &[]);
    let i = g.push(Op::SiteIndex { axis: 0 }, &[], on(Place::Site(two)));
    let d = g.push(
        Op::Displacement { axis: 0 },
        &[],
        on(Place::Displacement(two)),
    );
    let n = g.add(Op::SiteCount(two), &[]).unwrap();
    let (open, ring) = (chain(8, Boundary::Open), chain(8, Boundary::Periodic));
    assert_eq!(value(&g, i, open, &[]), [0., 1., 2., 3.]);
    assert_eq!(value(&g, d, open, &[]), [-3., -2., -1., 0., 1., 2., 3.]);
    assert_eq!(value(&g, n, open, &[]), [4.]);
    let k = g.push(Op::Momentum { axis: 0 }, &[], on(Place::Momentum(two)));
    assert_eq!(value(&g, d, ring, &[]), [0., 1., 2., -1.]);
    close(&value(&g, k, ring, &[]), &[0., PI / 2., PI, -PI / 2.]);
    assert_eq!(
        evaluate(&g, open, &[], &[1; 8]).unwrap_err(),
        EvalError::MomentumOnOpenChain
    );
}

#[test]
fn pair_index_has_the_target_slowest() {
    let mut g = Graph::default();
    let ty = NodeType::fixed(Place::Pair(Token::SPIN), &[]);
    let target = g.push(
        Op::PairIndex {
            axis: 0,
            source: false,
        },
        &[],
        ty.clone(),
    );
    let source = g.push(
        Op::PairIndex {
            axis: 0,
            source: true,
        },
        &[],
        ty,
    );
    let rows = g.add(Op::RowSum, &[source]).unwrap();
    let lattice = chain(3, Boundary::Open);
    assert_eq!(
        value(&g, target, lattice, &[]),
        [0., 0., 0., 1., 1., 1., 2., 2., 2.]
    );
    assert_eq!(
        value(&g, source, lattice, &[]),
        [0., 1., 2., 0., 1., 2., 0., 1., 2.]
    );
    assert_eq!(value(&g, rows, lattice, &[]), [3., 3., 3.]);
}

/// A scan of one channel as the sum over sources of `output A^n input`, n the
/// distance walked; on a ring walked round often enough for A^n to vanish.
fn scan_by_walking(scan: Scan, n: usize, boundary: Boundary, t: &[Tensor]) -> Vec<f64> {
    let [x, a, p, q, b, c] = [0, 1, 2, 3, 4, 5].map(|k| &t[k].data);
    let states = b.len();
    let step = |h: &[f64]| -> Vec<f64> {
        let overlap: f64 = q.iter().zip(h).map(|(q, h)| q * h).sum();
        let row = |i: usize| -> f64 {
            if scan.dense {
                (0..states).map(|j| a[i * states + j] * h[j]).sum()
            } else {
                a[i] * h[i]
            }
        };
        (0..states)
            .map(|i| row(i) - if scan.low_rank { p[i] * overlap } else { 0.0 })
            .collect()
    };
    let mut y = vec![0.0; n];
    for (source, &input) in x.iter().enumerate().take(n) {
        for leftward in [false, true] {
            if !scan.mirror && leftward != scan.leftward {
                continue;
            }
            let mut h: Vec<f64> = b.iter().map(|b| b * input).collect();
            for distance in 0..400 * n {
                let out: f64 = c.iter().zip(&h).map(|(c, h)| c * h).sum();
                let target = if leftward {
                    source as i64 - distance as i64
                } else {
                    (source + distance) as i64
                };
                if boundary == Boundary::Periodic || (0..n as i64).contains(&target) {
                    y[target.rem_euclid(n as i64) as usize] += out;
                }
                h = step(&h);
            }
        }
    }
    y
}

#[test]
fn scans_agree_with_walking_the_chain() {
    for bits in 0..32 {
        let bit = |k: usize| bits >> k & 1 == 1;
        let [dense, low_rank, mirror, leftward] = [0, 1, 2, 3].map(bit);
        let scan = Scan {
            complex: false,
            dense,
            low_rank,
            mirror,
            leftward,
        };
        let boundary = if bit(4) {
            Boundary::Periodic
        } else {
            Boundary::Open
        };
        let mut g = Graph::default();
        let x = param(&mut g, SITE, &[1]);
        let a = param(
            &mut g,
            Place::Whole,
            if dense { &[3, 3, 1] } else { &[3, 1] },
        );
        let rest: Vec<NodeId> = (0..4)
            .map(|_| param(&mut g, Place::Whole, &[3, 1]))
            .collect();
        let mut args = vec![x, a];
        args.extend(if low_rank { &rest[..] } else { &rest[2..] });
        let y = g.add(Op::Scan(scan), &args).unwrap();
        let mut params = vec![noise(bits, &[5, 1])];
        for k in 1..6 {
            let shape: &[usize] = if dense && k == 1 { &[3, 3, 1] } else { &[3, 1] };
            let mut t = noise(bits + 7 * k, shape);
            // spectral norm of A below 1
            t.data
                .iter_mut()
                .for_each(|v| *v *= if k < 4 { 0.25 } else { 1.0 });
            params.push(t);
        }
        let found = value(&g, y, chain(5, boundary), &params);
        close(&found, &scan_by_walking(scan, 5, boundary, &params));
    }
}

const PLAIN: Scan = Scan {
    complex: false,
    dense: false,
    low_rank: false,
    mirror: false,
    leftward: false,
};

#[test]
fn a_complex_scan_is_a_rotation() {
    // y_i = output (r e^{i phi})^i input x_0 with output * input = 1
    let mut g = Graph::default();
    let x = param(&mut g, SITE, &[2, 1]);
    let c: Vec<NodeId> = (0..3)
        .map(|_| param(&mut g, Place::Whole, &[2, 1, 1]))
        .collect();
    let y = g
        .add(
            Op::Scan(Scan {
                complex: true,
                ..PLAIN
            }),
            &[x, c[0], c[1], c[2]],
        )
        .unwrap();
    let (r, phi) = (0.8f64, 0.7f64);
    let params = [
        tensor(&[3, 2, 1], &[1., 0., 0., 0., 0., 0.]),
        tensor(&[2, 1, 1], &[r * phi.cos(), r * phi.sin()]),
        tensor(&[2, 1, 1], &[0., 1.]),
        tensor(&[2, 1, 1], &[0., -1.]),
    ];
    let power = |n: i32| {
        [
            r.powi(n) * (phi * n as f64).cos(),
            r.powi(n) * (phi * n as f64).sin(),
        ]
    };
    let expected: Vec<f64> = (0..3).flat_map(power).collect();
    close(&value(&g, y, chain(3, Boundary::Open), &params), &expected);
}

#[test]
fn convolution_modes_and_mix_agree_on_a_torus() {
    let lattice = Lattice {
        extent: [3, 4],
        boundary: Boundary::Periodic,
    };
    let t = Token::SPIN;
    let mut g = Graph::default();
    let x = param(&mut g, SITE, &[2, 2]);
    let k = param(&mut g, Place::Displacement(t), &[2, 2]);
    let full = param(&mut g, Place::Pair(t), &[2, 2]);
    let symbol = param(&mut g, Place::Momentum(t), &[2, 2]);
    let kernel = noise(1, &[12, 2, 2]);
    // k(i - j) as a matrix, and its Fourier transform, both from the definition
    let mut matrix = Tensor::zeros(&[144, 2, 2]);
    let mut transform = Tensor::zeros(&[12, 2, 2]);
    for i in 0..12 {
        for j in 0..12 {
            let n = ((i / 4 + 3 - j / 4) % 3) * 4 + (i % 4 + 4 - j % 4) % 4;
            let entry = 4 * (12 * i + j);
            matrix.data[entry..entry + 4].copy_from_slice(&kernel.data[4 * n..4 * n + 4]);
            let turns = (i / 4 * (j / 4)) as f64 / 3.0 + (i % 4 * (j % 4)) as f64 / 4.0;
            let (sin, cos) = (-TAU * turns).sin_cos();
            for c in 0..2 {
                let [re, im] = [kernel.data[4 * j + c], kernel.data[4 * j + 2 + c]];
                transform.data[4 * i + c] += re * cos - im * sin;
                transform.data[4 * i + 2 + c] += re * sin + im * cos;
            }
        }
    }
    let convolve = g
        .add(
            Op::Convolve {
                complex: true,
                transposed: false,
            },
            &[x, k],
        )
        .unwrap();
    let mix = g
        .add(
            Op::Mix {
                complex: true,
                transposed: false,
            },
            &[x, full],
        )
        .unwrap();
    let modes = g
        .add(
            Op::Modes {
                complex: true,
                transposed: false,
            },
            &[x, symbol],
        )
        .unwrap();
    let params = [noise(2, &[12, 2, 2]), kernel, matrix, transform];
    let expected = value(&g, convolve, lattice, &params);
    close(&value(&g, mix, lattice, &params), &expected);
    close(&value(&g, modes, lattice, &params), &expected);
}

#[test]
fn convolution_on_an_open_chain() {
    let mut g = Graph::default();
    let x = param(&mut g, SITE, &[]);
    let k = param(&mut g, Place::Displacement(Token::SPIN), &[]);
    let y = g
        .add(
            Op::Convolve {
                complex: false,
                transposed: false,
            },
            &[x, k],
        )
        .unwrap();
    let t = g
        .add(
            Op::Convolve {
                complex: false,
                transposed: true,
            },
            &[x, k],
        )
        .unwrap();
    // k(-1) = 2, k(0) = 3, k(1) = 5
    let params = [tensor(&[2], &[1., 10.]), tensor(&[3], &[2., 3., 5.])];
    assert_eq!(value(&g, y, chain(2, Boundary::Open), &params), [23., 35.]);
    assert_eq!(value(&g, t, chain(2, Boundary::Open), &params), [53., 32.]);
}

#[test]
fn bad_inputs_are_errors() {
    let mut g = Graph::default();
    let s = g.add(Op::Spins, &[]).unwrap();
    g.add(Op::Patch { ratio: [2, 1] }, &[s]).unwrap();
    param(&mut g, Place::Whole, &[2]);
    let ok = [tensor(&[2], &[1., 2.])];
    let run = |n: usize, params: &[Tensor], spins: &[i8]| {
        evaluate(&g, chain(n, Boundary::Open), params, spins)
            .map(|_| ())
            .unwrap_err()
    };
    assert!(matches!(
        run(3, &ok, &[1; 3]),
        EvalError::Tiling {
            extent: 3,
            token: 2,
            ..
        }
    ));
    assert!(matches!(
        run(0, &ok, &[]),
        EvalError::EmptyLattice { axis: 0 }
    ));
    assert!(matches!(
        run(4, &[], &[1; 4]),
        EvalError::ParamCount {
            expected: 1,
            found: 0
        }
    ));
    let wrong = [tensor(&[3], &[1., 2., 3.])];
    assert!(matches!(
        run(4, &wrong, &[1; 4]),
        EvalError::ParamShape { .. }
    ));
    assert!(matches!(
        run(4, &ok, &[1; 3]),
        EvalError::SpinCount {
            expected: 4,
            found: 3
        }
    ));
    let spin = run(4, &ok, &[1, 1, 2, 1]);
    assert!(matches!(spin, EvalError::SpinValue { site: 2, value: 2 }));
}

#[test]
fn scans_that_have_no_meaning_are_errors() {
    let mut g = Graph::default();
    let x = param(&mut g, SITE, &[]);
    let c: Vec<NodeId> = (0..3).map(|_| param(&mut g, Place::Whole, &[1])).collect();
    g.add(Op::Scan(PLAIN), &[x, c[0], c[1], c[2]]).unwrap();
    let one = tensor(&[1], &[1.]);
    let params = [tensor(&[2], &[1., 2.]), one.clone(), one.clone(), one];
    let run = |lattice| evaluate(&g, lattice, &params, &[1, 1]).map(|_| ());
    assert_eq!(
        run(chain(2, Boundary::Periodic)),
        Err(EvalError::SingularScan)
    );
    assert_eq!(run(chain(2, Boundary::Open)), Ok(()));
    let square = Lattice {
        extent: [1, 2],
        boundary: Boundary::Open,
    };
    assert_eq!(run(square), Err(EvalError::ScanOnSquare(2)));
}
