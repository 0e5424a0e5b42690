//! ABACUS where the normal form degenerates, and the claims it rests on.

mod abacus_nets;

use abacus_nets::{Mix, Net, Plan, Rng};
use dnet::check::core::{Place, Token, Window};
use dnet::interp::evaluate_with;
use dnet::ir::{Boundary, Lattice, MapFn, Op, ZipFn};
use dnet::pass::abacus::{AbacusError, Background, Network, probe};
use dnet::pass::link::{LinkStrategy, plan};
use dnet::pass::normal_form::{Coefficient, MixerClass, NoNormalForm, NormalForm, PoolKind};
use std::collections::HashMap;

/// Worst error of log psi over all single flips and some pairs.
fn worst(net: Net) -> f64 {
    let Net {
        graph,
        params,
        lattice,
        mut rng,
    } = net;
    let n = lattice.sites();
    let network = Network::new(&graph, lattice, params).unwrap();
    let spins = rng.spins(n);
    let background = Background::new(&network, &spins).unwrap();
    let mut links = background.links(None);
    let mut error = 0.0_f64;
    for flips in (0..n)
        .map(|i| vec![i])
        .chain((0..n).map(|i| vec![i, (3 * i + 1) % n]))
    {
        let (changed, _) = network.flipped(&spins, &flips).unwrap();
        let exact = network.evaluate(&changed).unwrap().log_psi();
        let got = background.update(&mut links, &flips).unwrap().log_psi;
        error = error.max((got - exact).norm() / exact.norm().max(1.0));
    }
    probe(&background, &[n / 2]).unwrap();
    error
}

#[test]
fn a_restricted_boltzmann_machine_is_a_dense_mixer_without_vertices() {
    for boundary in [Boundary::Periodic, Boundary::Open] {
        let mut n = Net::new(Lattice::chain(10, boundary), 1);
        let site = Place::Site(Token::SPIN);
        let spins = n.typed(Op::Spins, &[], site, &[]);
        // Three hidden units per site.
        let visible = n.typed(Op::Broadcast, &[spins], site, &[3]);
        let w = n.param(Place::Pair(Token::SPIN), 100, &[3], |r| r.sym());
        let theta = n.op(
            Op::Mix {
                complex: false,
                transposed: false,
            },
            &[visible, w],
        );
        let bias = n.param(site, 10, &[3], |r| r.sym());
        let theta = n.zip(ZipFn::Add, theta, bias);
        let hidden = n.op(Op::Gather, &[theta]);
        let hidden = n.map(MapFn::LogCosh, hidden);
        let out = n.einsum("ia->", &[hidden]);
        n.graph.outputs.push(out);
        let form = NormalForm::new(&n.graph).unwrap();
        assert_eq!(form.mixers.len(), 1);
        assert_eq!(form.pools[0].kind, PoolKind::Gather);
        assert!(form.mixers[0].affine.vertices.is_empty());
        assert_eq!(form.pools[0].affine.coefficient(0), Coefficient::Const);
        assert_eq!(form.pools[0].affine.source, Coefficient::Const);
        assert!(worst(n) < 1e-12);
    }
}

#[test]
fn weights_over_all_hidden_units_are_a_summed_pool() {
    // theta = sum_i s_i W_i with W in R^{N x 2N}: no mixer at all.
    let mut n = Net::new(Lattice::chain(6, Boundary::Open), 2);
    let site = Place::Site(Token::SPIN);
    let spins = n.typed(Op::Spins, &[], site, &[]);
    let w = n.param(site, 6, &[12], |r| r.sym());
    let terms = n.zip(ZipFn::Mul, spins, w);
    let theta = n.op(Op::Sum, &[terms]);
    let hidden = n.map(MapFn::LogCosh, theta);
    let out = n.einsum("h->", &[hidden]);
    n.graph.outputs.push(out);
    assert!(NormalForm::new(&n.graph).unwrap().mixers.is_empty());
    assert!(worst(n) < 1e-12);
}

#[test]
fn tokens_may_change_size_on_the_linear_stream() {
    for boundary in [Boundary::Periodic, Boundary::Open] {
        let mut n = Net::new(Lattice::chain(12, boundary), 3);
        let plan = Plan {
            token: [2, 1],
            ..Plan::dysonnet(2, (-1, 1), &[])
        };
        let (fine, coarse) = (Token::SPIN, Token([2, 1]));
        let spins = n.typed(Op::Spins, &[], Place::Site(fine), &[]);
        let x = n.typed(Op::Broadcast, &[spins], Place::Site(fine), &[2]);
        let y = n.mixer(Mix::ScanReal, x, fine, 2);
        let gated = n.zip(ZipFn::Mul, spins, y);
        let joined = n.op(Op::Patch { ratio: [2, 1] }, &[gated]);
        let local = n.op(Op::Patch { ratio: [2, 1] }, &[spins]);
        let phi = n.dense(local, 2, 2);
        let phi = n.map(MapFn::Tanh, phi);
        let h = n.einsum("rc->c", &[joined]);
        let h = n.zip(ZipFn::Mul, phi, h);
        let z = n.mixer(Mix::ScanComplex, h, coarse, 2);
        // Back to fine tokens and forth again.
        let both = n.op(
            Op::WindowAdjoint {
                lo: [0, 0],
                hi: [1, 0],
            },
            &[joined],
        );
        let z = n.zip(ZipFn::Add, z, both);
        let net = n.read(z, phi, &plan);
        let form = NormalForm::new(&net.graph).unwrap();
        let classes: Vec<MixerClass> = form.mixers.iter().map(|m| m.class).collect();
        use MixerClass::*;
        assert_eq!(classes, [StateSpace, Coarsening, StateSpace, Stencil]);
        assert!(worst(net) < 1e-10);
    }
}

#[test]
fn constants_and_networks_without_mixers() {
    let lattice = Lattice::chain(9, Boundary::Periodic);
    // A convolutional network: local throughout.
    let net = Net::build(lattice, &Plan::dysonnet(1, (-1, 1), &[]), 4);
    assert!(NormalForm::new(&net.graph).unwrap().mixers.is_empty());
    assert!(worst(net) < 1e-12);
}

#[test]
fn each_coefficient_has_its_own_window() {
    // Fig. 1c with tokens of 2 spins and stencils -1..2: a flip changes gate 1 on
    // 1 token, gate 2 and source 1 on 4, source 2 on 7.
    let lattice = Lattice::chain(40, Boundary::Periodic);
    let plan = Plan::dysonnet(2, (-1, 2), &[Mix::ScanComplex, Mix::ScanComplex]);
    let net = Net::build(lattice, &plan, 5);
    let form = NormalForm::new(&net.graph).unwrap();
    let tokens = |c: Coefficient| {
        let w: Window = c.window().unwrap();
        (w.tokens(Token([2, 1]), 0), w)
    };
    assert_eq!(tokens(form.mixers[0].affine.source).0, (-1, 2));
    assert_eq!(tokens(form.vertex(1, 0)).0, (0, 0));
    assert_eq!(tokens(form.mixers[1].affine.source).0, (-2, 4));
    assert_eq!(tokens(form.pools[0].affine.coefficient(1)).0, (-1, 2));
    assert_eq!(form.mixers[1].affine.vertices[&0].form.gates.len(), 1);
}

#[test]
fn a_wrong_window_is_an_internal_error() {
    let lattice = Lattice::chain(11, Boundary::Open);
    let net = Net::build(
        lattice,
        &Plan::dysonnet(1, (-1, 2), &[Mix::ScanReal, Mix::Convolve]),
        6,
    );
    let shrunk = Coefficient::Local(Window {
        lo: [0, 0],
        hi: [1, 0],
    });
    type Claim = Box<dyn Fn(&mut NormalForm)>;
    let mut claims: Vec<Claim> = vec![
        Box::new(move |f| f.mixers[0].affine.source = shrunk),
        Box::new(move |f| f.mixers[1].affine.source = shrunk),
        Box::new(move |f| f.pools[0].affine.vertices.get_mut(&1).unwrap().coefficient = shrunk),
        Box::new(move |f| {
            f.mixers[1].affine.vertices.get_mut(&0).unwrap().coefficient = Coefficient::Const
        }),
    ];
    // A vertex that is missing altogether.
    claims.push(Box::new(|f| drop(f.mixers[1].affine.vertices.remove(&0))));
    for claim in claims {
        let mut network = Network::new(&net.graph, lattice, net.params.clone()).unwrap();
        let spins = Rng(1).spins(11);
        let sound = Background::new(&network, &spins).unwrap();
        probe(&sound, &[5]).unwrap();
        claim(&mut network.form);
        let background = Background::new(&network, &spins).unwrap();
        let fault = probe(&background, &[5]).unwrap_err();
        assert!(matches!(fault, AbacusError::Internal(_)), "{fault}");
    }
}

#[test]
fn links_are_the_jacobians_of_the_evaluated_network() {
    for boundary in [Boundary::Periodic, Boundary::Open] {
        let lattice = Lattice::chain(6, boundary);
        let mut spec = Plan::dysonnet(1, (0, 1), &[Mix::ScanComplex, Mix::Pairs, Mix::Convolve]);
        spec.skips = true;
        let net = Net::build(lattice, &spec, 7);
        let network = Network::new(&net.graph, lattice, net.params.clone()).unwrap();
        let spins = Rng(2).spins(6);
        let background = Background::new(&network, &spins).unwrap();
        let form = &network.form;
        let mut links = background.links(None);
        for k in 0..form.mixers.len() {
            let node = form.mixers[k].output;
            for j in 0..6 {
                for c in 0..2 {
                    let mut unit = [0.0; 2];
                    unit[c] = 1.0;
                    // y_k changed by G_k applied to a unit emission at site j.
                    let mut y = background.values.value(node).clone();
                    for (i, y) in y.data.chunks_exact_mut(2).enumerate() {
                        background.kernels[k].apply(i, j, &unit, y);
                    }
                    let substitutes = HashMap::from([(node, y)]);
                    let shifted =
                        evaluate_with(&net.graph, lattice, &net.params, &spins, &substitutes)
                            .unwrap();
                    for m in k..form.mixers.len() {
                        let (old, new) = (
                            background.values.value(form.mixers[m].output),
                            shifted.value(form.mixers[m].output),
                        );
                        for i in 0..6 {
                            let mut dy = [0.0; 2];
                            links.apply((m, k), i, j, &unit, &mut dy).unwrap();
                            for (r, dy) in dy.iter().enumerate() {
                                let want = new.data[2 * i + r] - old.data[2 * i + r];
                                assert!((dy - want).abs() < 1e-11, "L[{m},{k}]");
                            }
                        }
                    }
                    for (p, pool) in form.pools.iter().enumerate() {
                        let t = background.final_links.get(p, k, j);
                        let (old, new) = (
                            background.values.value(pool.output),
                            shifted.value(pool.output),
                        );
                        for h in 0..old.data.len() {
                            assert!(
                                (t[2 * h + c] - (new.data[h] - old.data[h])).abs() < 1e-11,
                                "T[{k}]"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn strategies_follow_the_topology() {
    let lattice = Lattice::chain(8, Boundary::Periodic);
    let chosen = |spec: &Plan| {
        let net = Net::build(lattice, spec, 8);
        plan(&NormalForm::new(&net.graph).unwrap(), None)
    };
    use LinkStrategy::*;
    let two = chosen(&Plan::dysonnet(1, (0, 1), &[Mix::ScanReal, Mix::Convolve]));
    assert_eq!(two[&(0, 0)], Direct);
    assert_eq!(two[&(1, 0)], Fft);
    let pairs = chosen(&Plan::dysonnet(1, (0, 1), &[Mix::Pairs, Mix::Convolve]));
    assert_eq!(pairs[&(1, 0)], Product);
    let three = chosen(&Plan::dysonnet(
        1,
        (0, 1),
        &[Mix::ScanReal, Mix::Convolve, Mix::Convolve],
    ));
    assert_eq!(three[&(2, 1)], Fft);
    assert_eq!(three[&(2, 0)], Dense);
}

#[test]
fn what_breaks_the_rules_has_no_normal_form() {
    let mut n = Net::new(Lattice::chain(6, Boundary::Periodic), 9);
    let site = Place::Site(Token::SPIN);
    let spins = n.typed(Op::Spins, &[], site, &[]);
    let x = n.typed(Op::Broadcast, &[spins], site, &[2]);
    let y = n.mixer(Mix::Convolve, x, Token::SPIN, 2);
    let t = n.map(MapFn::Tanh, y);
    let o = n.op(Op::Sum, &[t]);
    let o = n.einsum("a->", &[o]);
    n.graph.outputs.push(o);
    let fault = NormalForm::new(&n.graph).unwrap_err();
    assert!(
        matches!(&fault, NoNormalForm::Global { op, .. } if op == "map"),
        "{fault}"
    );
    assert_eq!(
        fault.to_string(),
        "map (node 4) is neither local nor linear: only full re-evaluation is exact"
    );
}

#[test]
fn flips_outside_the_lattice_are_refused() {
    let lattice = Lattice::chain(6, Boundary::Periodic);
    let net = Net::build(lattice, &Plan::dysonnet(1, (0, 1), &[Mix::ScanReal]), 10);
    let network = Network::new(&net.graph, lattice, net.params).unwrap();
    let background = Background::new(&network, &[1; 6]).unwrap();
    let fault = background
        .update(&mut background.links(None), &[6])
        .unwrap_err();
    assert_eq!(
        fault.to_string(),
        "spin 6 is outside the lattice of 6 spins"
    );
    // A site named twice is not flipped.
    let same = background
        .update(&mut background.links(None), &[2, 2])
        .unwrap();
    assert_eq!(same.log_psi, background.log_psi());
}
