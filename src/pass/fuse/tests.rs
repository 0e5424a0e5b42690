//! Fused graphs against the graphs they were made from.

use super::*;
use crate::check::core::Token;
use crate::interp::arbitrary::{Random, network, program};
use crate::interp::{Tensor, evaluate};
use crate::ir::valid::validate;
use crate::ir::{Boundary, GraphParam, Lattice};
use crate::pass::simplify::simplify;

/// Nodes that depend on the configuration.
fn dynamic(graph: &Graph) -> usize {
    let kinds = Kinds::new(graph);
    let moving = |id: &NodeId| kinds.get(*id) != Dependence::Const;
    graph.ids().filter(moving).count()
}

/// Fuses and compares; the fused and simplified graph.
fn same(graph: &Graph, lattice: Lattice, params: &[Tensor], spins: &[i8], what: &str) -> Graph {
    let fused = fuse(graph);
    validate(&fused).unwrap_or_else(|e| panic!("{what}: {e}"));
    let fused = simplify(&fused, &[]).graph;
    validate(&fused).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(fused.params, graph.params);
    assert!(dynamic(&fused) <= dynamic(graph), "{what}");
    let before = evaluate(graph, lattice, params, spins).expect("a sample");
    let after = evaluate(&fused, lattice, params, spins).expect("as before");
    for (&a, &b) in graph.outputs.iter().zip(&fused.outputs) {
        for (x, y) in before.value(a).data.iter().zip(&after.value(b).data) {
            let error = (x - y).abs() / x.abs().max(1.0);
            assert!(error <= 1e-12, "{what}: {x} became {y}");
        }
    }
    fused
}

#[test]
fn random_graphs_keep_their_values() {
    for seed in 0..150 {
        for s in [program(seed, 25), network(seed, 6, true)] {
            let graph = simplify(&s.graph, &[]).graph;
            let what = format!("seed {seed}");
            let fused = same(&graph, s.lattice, &s.params, &s.spins, &what);
            let again = simplify(&fuse(&fused), &[]).graph;
            assert!(dynamic(&again) <= dynamic(&fused), "{what}");
        }
    }
}

/// A random chain of links on a value `[3, 2]` per site, and its parameters.
fn chain(seed: u64) -> (Graph, Vec<Tensor>) {
    let mut r = Random::new(seed);
    let mut g = Graph::default();
    let mut params = vec![];
    let mut constant = |g: &mut Graph, r: &mut Random, place: Place, shape: &[usize]| {
        let ty = NodeType::fixed(place, shape);
        let path = format!("p{}", params.len());
        g.params.push(GraphParam { path, ty });
        let mut full = shape.to_vec();
        if place != Place::Whole {
            full.insert(0, 4);
        }
        // Away from zero: some are divided by.
        params.push(Tensor::from_fn(&full, |_| {
            (1.0 + r.unit().abs()) * if r.coin() { 1.0 } else { -1.0 }
        }));
        g.add(Op::Param(params.len() as u32 - 1), &[])
            .expect("declared")
    };
    let site = Place::Site(Token::SPIN);
    let s = g.add(Op::Spins, &[]).expect("no operands");
    let start = constant(&mut g, &mut r, site, &[3, 2]);
    let mut x = g.add(Op::Zip(ZipFn::Add), &[s, start]).expect("broadcasts");
    x = g.add(Op::Map(MapFn::Tanh), &[x]).expect("any value");
    for _ in 0..1 + r.below(6) {
        let [rows, columns] = lengths(g.ty(x)).expect("static")[..] else {
            unreachable!("two axes")
        };
        let shape = r.pick(&[vec![], vec![columns], vec![rows, 1], vec![rows, columns]]);
        let spec = |words: [&str; 2], to: &str| Einsum {
            inputs: words.iter().map(|w| w.chars().collect()).collect(),
            output: to.chars().collect(),
        };
        let out = 1 + r.below(3);
        let (op, args) = match r.below(9) {
            0 => (Op::Map(MapFn::Neg), vec![x]),
            k @ 1..=4 => {
                let f = [ZipFn::Add, ZipFn::Sub, ZipFn::Mul, ZipFn::Div][k - 1];
                let place = r.pick(&[Place::Whole, site]);
                let c = constant(&mut g, &mut r, place, &shape);
                let swapped = r.coin() && f != ZipFn::Div;
                (Op::Zip(f), if swapped { vec![c, x] } else { vec![x, c] })
            }
            5 => {
                let c = constant(&mut g, &mut r, Place::Whole, &[columns, out]);
                (Op::Einsum(spec(["ab", "bc"], "ac")), vec![x, c])
            }
            6 => {
                let c = constant(&mut g, &mut r, Place::Whole, &[out, rows]);
                (Op::Einsum(spec(["ca", "ab"], "cb")), vec![c, x])
            }
            7 => {
                let c = constant(&mut g, &mut r, Place::Whole, &[rows, columns, 2, out]);
                (Op::Einsum(spec(["ab", "abcd"], "dc")), vec![x, c])
            }
            _ => {
                let turn = Einsum {
                    inputs: vec![vec!['a', 'b']],
                    output: vec!['b', 'a'],
                };
                (Op::Einsum(turn), vec![x])
            }
        };
        x = g.add(op, &args).expect("fits");
    }
    let y = g.add(Op::Map(MapFn::Tanh), &[x]).expect("any value");
    g.outputs = vec![g.add(Op::Sum, &[y]).expect("any place")];
    (g, params)
}

#[test]
fn random_chains_keep_their_values() {
    let lattice = Lattice::chain(4, Boundary::Open);
    let mut shorter = 0;
    for seed in 0..400 {
        let (graph, params) = chain(seed);
        let graph = simplify(&graph, &[]).graph;
        let fused = same(
            &graph,
            lattice,
            &params,
            &[1, -1, -1, 1],
            &format!("seed {seed}"),
        );
        shorter += usize::from(dynamic(&fused) < dynamic(&graph));
    }
    assert!(shorter > 100, "only {shorter} chains became shorter");
}

/// `(scale x + bias) @ kernel + more` is one product and one sum.
#[test]
fn a_norm_disappears_in_the_layer_behind_it() {
    let mut g = Graph::default();
    for (path, shape) in [
        ("scale", vec![3]),
        ("bias", vec![3]),
        ("kernel", vec![3, 3]),
    ] {
        let ty = NodeType::fixed(Place::Whole, &shape);
        g.params.push(GraphParam {
            path: path.into(),
            ty,
        });
    }
    let s = g.add(Op::Spins, &[]).expect("no operands");
    let p: Vec<NodeId> = (0..3)
        .map(|k| g.add(Op::Param(k), &[]).expect("declared"))
        .collect();
    let zip = |g: &mut Graph, f, a, b| g.add(Op::Zip(f), &[a, b]).expect("broadcasts");
    let x = zip(&mut g, ZipFn::Add, s, p[1]);
    let x = g.add(Op::Map(MapFn::Tanh), &[x]).expect("any value");
    let scaled = zip(&mut g, ZipFn::Mul, p[0], x);
    let shifted = zip(&mut g, ZipFn::Add, scaled, p[1]);
    let spec = Einsum {
        inputs: vec![vec!['a'], vec!['a', 'b']],
        output: vec!['b'],
    };
    let y = g.add(Op::Einsum(spec), &[shifted, p[2]]).expect("fits");
    let y = zip(&mut g, ZipFn::Add, y, p[0]);
    let y = g.add(Op::Map(MapFn::Tanh), &[y]).expect("any value");
    g.outputs = vec![y];
    let fused = simplify(&fuse(&g), &[]).graph;
    // spins, + bias, tanh; product, sum; tanh
    assert_eq!(dynamic(&g), 8);
    assert_eq!(dynamic(&fused), 6, "{}", crate::ir::text::text(&fused));
}
