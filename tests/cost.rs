//! The cost model: classes of Table 1, strategy and crossover.

mod abacus_nets;

use abacus_nets::{Mix, Net, Plan};
use dnet::check::core::{Dim, Place, Token};
use dnet::ir::{Boundary, Lattice, MapFn, NodeType, Op};
use dnet::pass::cluster::Cluster;
use dnet::pass::cost::{CostModel, Method};

fn model(plan: &Plan) -> CostModel {
    let net = Net::build(Lattice::chain(24, Boundary::Periodic), plan, 1);
    CostModel::new(&net.graph, &Cluster::single(), Boundary::Periodic)
}

#[test]
fn dysonnet_updates_are_constant_and_evaluation_linear() {
    let m = model(&Plan::paper());
    assert_eq!(m.update_class(), "O(1)");
    assert_eq!(m.full.operations.class(), "O(N)");
    assert_eq!(m.shared_class(), "O(1)");
    let links = m.links.as_ref().unwrap();
    assert_eq!(links.build.operations.class(), "O(N log N)");
    // An update costs the same at any N; full evaluation ten times more at ten times N.
    let (a, b) = (m.choose(100), m.choose(10_000));
    assert!(b.full > 99.0 * a.full);
    assert_ne!(b.method, Method::Full);
    assert!(b.operations < 0.1 * b.full);
    let n = m.crossover().unwrap();
    assert_ne!(m.choose(n).method, Method::Full);
    assert!(n == 1 || m.choose(n - 1).method == Method::Full);
}

#[test]
fn convolutional_networks_have_constant_updates() {
    let m = model(&Plan::dysonnet(1, (-1, 1), &[]));
    assert_eq!(m.update_class(), "O(1)");
    assert_eq!(m.full.operations.class(), "O(N)");
}

#[test]
fn restricted_boltzmann_machines_are_linear() {
    let n = Net::boltzmann(10);
    let m = CostModel::new(&n.graph, &Cluster::single(), Boundary::Periodic);
    assert_eq!(m.full.operations.class(), "O(N^2)");
    assert_eq!(m.update_class(), "O(N)");
}

#[test]
fn attention_is_quadratic_and_evaluated_in_full() {
    // Softmax attention between gathered sites: scores N x N.
    let mut n = Net::new(Lattice::chain(10, Boundary::Periodic), 1);
    let site = Place::Site(Token::SPIN);
    let spins = n.typed(Op::Spins, &[], site, &[]);
    let x = n.typed(Op::Broadcast, &[spins], site, &[4]);
    let all = n.op(Op::Gather, &[x]);
    let scores = n.einsum("id,jd->ij", &[all, all]);
    let weights = n.map(MapFn::Exp, scores);
    let mixed = n.einsum("ij,jd->id", &[weights, all]);
    let ty = NodeType {
        place: site,
        shape: vec![Dim::Static(4)],
    };
    let back = n.graph.push(Op::Scatter, &[mixed], ty);
    let out = n.op(Op::Sum, &[back]);
    let out = n.einsum("d->", &[out]);
    n.graph.outputs.push(out);
    let m = CostModel::new(&n.graph, &Cluster::single(), Boundary::Periodic);
    assert!(m.links.is_none() && m.obstacle.is_some());
    assert_eq!(m.update_class(), "O(N^2)");
    assert_eq!(m.choose(1000).method, Method::Full);
    assert_eq!(m.crossover(), None);
    assert!(m.to_string().contains("no updates: scatter"));
}

#[test]
fn deeper_toeplitz_chains_fall_back_to_dense_links() {
    let three = model(&Plan::dysonnet(1, (-1, 1), &[Mix::Convolve; 3]));
    assert!(three.environments.is_none());
    assert_eq!(three.update_class(), "O(1)");
    let build = three.links.unwrap().build.operations.class();
    assert_eq!(build, "O(N^2 log N)");
}

#[test]
fn larger_clusters_cost_more() {
    let net = Net::build(Lattice::chain(24, Boundary::Periodic), &Plan::paper(), 1);
    let cost = |cluster: &Cluster| {
        CostModel::new(&net.graph, cluster, Boundary::Periodic)
            .links
            .unwrap()
            .update
            .operations
            .at(1000.0)
    };
    let (one, two, far) = (
        cost(&Cluster::single()),
        cost(&Cluster::pair(1)),
        cost(&Cluster::pair(40)),
    );
    assert!(one < two && two < far, "{one} {two} {far}");
}

#[test]
fn the_printed_form_names_every_task() {
    let text = model(&Plan::paper()).to_string();
    for part in [
        "full evaluation",
        "links: build",
        "environments: update",
        "cache",
        "update class           O(1)",
        "pay from",
    ] {
        assert!(text.contains(part), "{text}");
    }
}
