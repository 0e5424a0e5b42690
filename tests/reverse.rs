//! Reverse mode against central differences.

use dnet::interp::arbitrary::{Random, Sample, network, program};
use dnet::interp::{Context, Evaluation, Operand, Tensor, eval_node, evaluate, evaluate_with};
use dnet::ir::valid::validate;
use dnet::ir::{MapFn, NodeId, Op, ZipFn};
use dnet::pass::reverse::{gradient, parameter_gradients};
use std::collections::HashMap;

/// `d output(h) / d h` at 0 by central differences of order 6, with steps that
/// cross no kink.
fn slope(s: &Sample, output: NodeId, at: impl Fn(f64) -> Evaluation) -> f64 {
    for h in [2e-3, 2e-4, 2e-5, 2e-6] {
        let points: Vec<Evaluation> = (-3..=3).map(|k| at(h * f64::from(k))).collect();
        if points.iter().any(|e| pieces(s, e) != pieces(s, &points[3])) {
            continue;
        }
        let f = |k: usize| points[k].value(output).data[0];
        let d = |k: usize| f(3 + k) - f(3 - k);
        return (45.0 * d(1) - 9.0 * d(2) + d(3)) / (60.0 * h);
    }
    panic!("a kink within 6e-6 of the sample");
}

/// Which smooth piece of each piecewise function every argument lies on.
fn pieces(s: &Sample, e: &Evaluation) -> Vec<f64> {
    let context = Context::new(s.lattice, &s.params, &s.spins).expect("a valid sample");
    let mut pieces = Vec::new();
    for id in s.graph.ids() {
        let test = match s.graph.op(id) {
            Op::Map(MapFn::Abs | MapFn::Sign) => Op::Map(MapFn::Sign),
            Op::Map(MapFn::Floor) => Op::Map(MapFn::Floor),
            Op::Zip(ZipFn::Max | ZipFn::Min | ZipFn::Greater) => Op::Zip(ZipFn::Greater),
            Op::Zip(ZipFn::Mod) => Op::Zip(ZipFn::Div),
            _ => continue,
        };
        let operands: Vec<Operand> = s
            .graph
            .args(id)
            .iter()
            .map(|&a| Operand {
                ty: s.graph.ty(a),
                value: e.value(a),
            })
            .collect();
        let found = eval_node(&test, s.graph.ty(id), &operands, &context).expect("as before");
        pieces.extend(found.data.iter().map(|x| x.floor()));
    }
    pieces
}

fn run(s: &Sample) -> Evaluation {
    evaluate(&s.graph, s.lattice, &s.params, &s.spins).expect("a valid sample")
}

fn assert_close(found: f64, expected: f64, what: &str) {
    let error = (found - expected).abs() / (1.0 + expected.abs());
    assert!(
        error < 1e-8,
        "{what}: {found} but differences give {expected}"
    );
}

fn moved(x: &Tensor, along: &Tensor, h: f64) -> Tensor {
    Tensor {
        shape: x.shape.clone(),
        data: x
            .data
            .iter()
            .zip(&along.data)
            .map(|(x, d)| x + h * d)
            .collect(),
    }
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.shape, b.shape);
    a.data.iter().zip(&b.data).map(|(a, b)| a * b).sum()
}

/// Compares all parameter gradients of both outputs along random directions,
/// and the gradients with respect to every intermediate value of `nodes`.
fn check(s: &Sample, seed: u64, nodes: usize) {
    let mut random = Random::new(seed);
    for &output in &s.graph.outputs {
        let reversed = parameter_gradients(&s.graph, output).expect("differentiable");
        validate(&reversed.graph).expect("adjoints are valid");
        let e = evaluate(&reversed.graph, s.lattice, &s.params, &s.spins).expect("same inputs");
        for (&g, p) in reversed.gradients.iter().zip(&s.graph.params) {
            assert_eq!(reversed.graph.ty(g), &p.ty);
        }
        for _ in 0..3 {
            // along a few parameters at a time
            let along: Vec<Tensor> = s
                .params
                .iter()
                .map(|p| {
                    let on = f64::from(u8::from(random.below(3) == 0));
                    Tensor::from_fn(&p.shape, |_| on * random.unit())
                })
                .collect();
            let expected = slope(s, output, |h| {
                let params = s
                    .params
                    .iter()
                    .zip(&along)
                    .map(|(p, d)| moved(p, d, h))
                    .collect();
                run(&Sample {
                    params,
                    ..s.clone()
                })
            });
            let found = reversed
                .gradients
                .iter()
                .zip(&along)
                .map(|(&g, d)| dot(e.value(g), d))
                .sum();
            assert_close(found, expected, &format!("seed {seed}, parameters"));
        }
        let before = run(s);
        let wanted: Vec<NodeId> = (0..nodes)
            .map(|_| NodeId::new(random.below(s.graph.len())))
            .collect();
        let reversed = gradient(&s.graph, output, &wanted).expect("differentiable");
        let e = evaluate(&reversed.graph, s.lattice, &s.params, &s.spins).expect("same inputs");
        for (&w, &g) in wanted.iter().zip(&reversed.gradients) {
            let x = before.value(w);
            let along = Tensor::from_fn(&x.shape, |_| random.unit());
            let expected = slope(s, output, |h| {
                let instead = HashMap::from([(w, moved(x, &along, h))]);
                evaluate_with(&s.graph, s.lattice, &s.params, &s.spins, &instead)
                    .expect("same types")
            });
            let what = format!("seed {seed}, node {} ({:?})", w.index(), s.graph.op(w));
            assert_close(dot(e.value(g), &along), expected, &what);
        }
    }
}

#[test]
fn random_networks() {
    for seed in 0..150 {
        check(&network(seed, 6, true), seed, 6);
    }
}

#[test]
fn random_programs() {
    for seed in 0..300 {
        check(&program(seed, 20), seed, 8);
    }
}

#[test]
fn second_derivatives() {
    for seed in 0..60 {
        let mut s = program(1000 + seed, 10);
        let output = s.graph.outputs[0];
        let first = parameter_gradients(&s.graph, output).expect("differentiable");
        // the squared norm of the gradient
        s.graph = first.graph;
        let mut total = s.graph.add(Op::Number(0.0), &[]).expect("a number");
        for g in first.gradients {
            let rank = s.graph.ty(g).shape.len();
            let word: Vec<char> = ('a'..='z').take(rank).collect();
            let spec = dnet::check::core::Einsum {
                inputs: vec![word.clone(), word],
                output: vec![],
            };
            let square = s.graph.add(Op::Einsum(spec), &[g, g]).expect("same axes");
            let square = s.graph.add(Op::Sum, &[square]).expect("any place");
            total = s
                .graph
                .add(Op::Zip(ZipFn::Add), &[total, square])
                .expect("numbers");
        }
        s.graph.outputs = vec![total];
        check(&s, seed, 4);
    }
}

/// The samples reach every operation, else the tests above prove less than they say.
#[test]
fn samples_cover_every_operation() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let s = program(seed, 20);
        for id in s.graph.ids() {
            let text = format!("{:?}", s.graph.op(id));
            let (name, rest) = text.split_once(['(', ' ']).unwrap_or((&text, ""));
            let detail = if matches!(name, "Map" | "Zip") {
                rest
            } else {
                ""
            };
            seen.insert(format!("{name} {detail}"));
        }
    }
    let all = [
        "Param",
        "Number",
        "Spins",
        "SiteIndex",
        "Displacement",
        "Momentum",
        "PairIndex",
        "SiteCount",
        "Extent",
        "Einsum",
        "Reshape",
        "Slice",
        "Pad",
        "Concat",
        "Broadcast",
        "Window",
        "WindowAdjoint",
        "Patch",
        "Unpatch",
        "Sum",
        "Gather",
        "Scatter",
        "Scan",
        "ScanGrad",
        "Convolve",
        "Correlate",
        "Modes",
        "ModesGrad",
        "Mix",
        "MixGrad",
        "RowSum",
        "RowBroadcast",
    ];
    for name in all {
        assert!(seen.contains(&format!("{name} ")), "{name} never occurs");
    }
    let count = |name: &str| seen.iter().filter(|s| s.starts_with(name)).count();
    assert_eq!((count("Map "), count("Zip ")), (14, 10));
}
