//! The self-check passes for every example, and finds what is broken on purpose.

mod networks;

use dnet::check::Program;
use dnet::check::core::Window;
use dnet::interp::arbitrary::network;
use dnet::ir::{Boundary, Lattice};
use dnet::params::{initialise, perturb};
use dnet::pass::abacus::{Background, Network};
use dnet::pass::normal_form::{Affine, Coefficient};
use dnet::pipeline;
use dnet::rng::{ChainRng, Stream};
use dnet::verify::{Case, Check, Options, Report, Subject, cases, check, updates, verify};
use networks::{examples, lattices, small_networks};

fn verified(half: usize) {
    let mut networks = 0;
    for (k, (file, program)) in examples().into_iter().enumerate() {
        if k % 2 != half {
            continue;
        }
        for info in small_networks(&program) {
            networks += 1;
            let lattices = lattices(&program, &info);
            assert!(!lattices.is_empty(), "{file}: no lattice");
            let options = Options {
                seed: 3,
                samples: 1,
            };
            let report = verify(&info, &lattices, &options).unwrap_or_else(|e| panic!("{e}"));
            assert!(report.passed(), "{file}, network {}\n{report}", info.name);
            let gradient = report.row(Check::GradientRe).map_or(0, |r| r.comparisons);
            let tensors = dnet::ir::lower(&info).graph.params.len();
            assert_eq!(gradient, tensors * lattices.len(), "{file}");
            let updates = report.row(Check::Update(None)).map_or(0, |r| r.comparisons);
            assert_eq!(updates == 0, info.full, "{file}\n{report}");
        }
    }
    assert!(networks >= 10);
}

#[test]
fn examples_verify() {
    verified(0);
}

#[test]
fn other_examples_verify() {
    verified(1);
}

#[test]
fn random_graphs_verify() {
    for seed in 0..60 {
        let s = network(seed, 6, true);
        let gradients = pipeline::gradients(&s.graph).expect("differentiable");
        let subject = Subject {
            graph: &s.graph,
            gradients: &gradients,
            lattice: s.lattice,
            params: &s.params,
        };
        let mut report = Report::default();
        let case = Case::new(s.lattice, seed, 0, &s.spins);
        let mut rng = cases::random(s.lattice, seed, 0);
        check(&mut report, &case, &subject, true, &s.spins, &mut rng).expect("a valid sample");
        assert!(report.passed(), "seed {seed}\n{report}");
    }
}

/// A small DysonNet with parameters of order one and what `break_it` makes of
/// its derivation; the report of all checks on it.
fn tampered(
    derivation: impl Fn(&mut Network),
    cache: impl Fn(&mut Background),
    boundary: Boundary,
) -> Report {
    let (_, program) = examples()
        .into_iter()
        .find(|e| e.0 == "dysonnet.dnet")
        .expect("the example");
    let info = &small_networks(&program)[0];
    let lowered = pipeline::graph(info);
    let graph = pipeline::amplitude(&lowered);
    let lattice = Lattice::chain(18, boundary);
    let mut params = initialise(info, &lowered, lattice, 5).expect("fits");
    perturb(&mut params, 0.4, 5);
    let mut network = Network::new(&graph, lattice, params.tensors).expect("has a normal form");
    derivation(&mut network);
    let mut rng = ChainRng::new(5, 0, 0, Stream::Init);
    let spins = cases::configuration(lattice, &mut rng);
    let mut background = Background::new(&network, &spins).expect("evaluates");
    cache(&mut background);
    let mut report = Report::default();
    let case = Case::new(lattice, 5, 0, &spins);
    let clusters = cases::clusters(lattice, &mut rng);
    updates::check(&mut report, &case, &background, &clusters, &mut rng).expect("evaluates");
    report
}

fn failed(report: &Report, check: Check) -> bool {
    report.row(check).is_some_and(|r| !r.passed())
}

const BOUNDARIES: [Boundary; 2] = [Boundary::Periodic, Boundary::Open];

#[test]
fn nothing_is_found_where_nothing_is_broken() {
    for boundary in BOUNDARIES {
        let report = tampered(|_| (), |_| (), boundary);
        assert!(report.passed(), "{report}");
    }
}

/// One token less on the left, as a hand-written update might have it.
fn narrower(c: &mut Coefficient) {
    if let Coefficient::Local(Window { lo, .. }) = c {
        lo[0] += 2;
    }
}

#[test]
fn a_window_too_narrow_is_found() {
    for boundary in BOUNDARIES {
        // All coefficients of a mixer's input, or of the pooled value.
        let input = tampered(
            |n| all_narrower(&mut n.form.mixers[1].affine),
            |_| (),
            boundary,
        );
        let pooled = tampered(
            |n| all_narrower(&mut n.form.pools[0].affine),
            |_| (),
            boundary,
        );
        for report in [input, pooled] {
            assert!(internal_error(&report), "{report}");
            assert!(failed(&report, Check::Update(None)), "{report}");
        }
        // A vertex alone: a source at the same sites may hide it from every
        // update, but not from the probe.
        let vertex = tampered(
            |n| {
                let vertices = n.form.mixers[1].affine.vertices.values_mut();
                vertices.for_each(|v| narrower(&mut v.coefficient));
            },
            |_| (),
            boundary,
        );
        assert!(internal_error(&vertex), "{vertex}");
    }
}

fn all_narrower(a: &mut Affine) {
    narrower(&mut a.source);
    a.vertices
        .values_mut()
        .for_each(|v| narrower(&mut v.coefficient));
}

fn internal_error(report: &Report) -> bool {
    let found = report.contradictions.first();
    found.is_some_and(|c| c.message.contains("internal error in the derivation"))
}

#[test]
fn wrong_links_are_found() {
    for boundary in BOUNDARIES {
        // One vertex of the background, seen by all links from mixer 0 to mixer 1.
        let report = tampered(
            |_| (),
            |b| {
                let site = &mut b.coefficients.mixers[1][4];
                let vertex = site.vertices.get_mut(&0).expect("a vertex");
                vertex.iter_mut().for_each(|a| *a += 1e-6);
            },
            boundary,
        );
        assert!(failed(&report, Check::Update(None)), "{report}");
        for check in report.rows().filter(|r| r.check.starts_with("links")) {
            assert_eq!(check.passed(), check.check.ends_with("direct"), "{report}");
        }
        // A mixer forgotten in one direction.
        let report = tampered(|_| (), |b| b.kernels.swap(0, 1), boundary);
        assert!(failed(&report, Check::Update(None)), "{report}");
        // The kernel of a source that is linked nowhere else.
        let report = tampered(
            |_| (),
            |b| {
                let rows = &mut b.coefficients.pools[0];
                rows[3].vertices.values_mut().for_each(|r| r[0] += 1e-6);
                let (kernels, coefficients) = (b.kernels.clone(), b.coefficients.clone());
                b.final_links = dnet::pass::link::FinalLinks::new(b.net, &kernels, &coefficients);
            },
            boundary,
        );
        assert!(failed(&report, Check::FinalLink), "{report}");
    }
}

/// A network whose amplitude explodes at parameters of order one is verified
/// closer to its initial values, and the report says so.
#[test]
fn smaller_perturbations_are_reported() {
    let network = |factor: &str| {
        let text = format!(
            "use std::nn::{{channel_sum, mean}}
             network n() {{
                 param w: real[4]
                 log_psi = channel_sum({factor} * w * w) + mean(channel_sum(sin(w * spins)))
             }}"
        );
        let program = Program::parse("large.dnet", &text);
        program
            .only_network()
            .check()
            .unwrap_or_else(|e| panic!("{e}"))
    };
    let options = Options {
        seed: 3,
        samples: 1,
    };
    let lattice = Lattice::chain(6, Boundary::Open);
    let report = |factor: &str| {
        verify(&network(factor), &[lattice], &options).unwrap_or_else(|e| panic!("{e}"))
    };
    let plain = report("1");
    assert!(plain.passed() && plain.notes.iter().all(|n| !n.contains("instead of 0.4")));
    let large = report("1000");
    let note = large.notes.iter().find(|n| n.contains("instead of 0.4"));
    let note = note.unwrap_or_else(|| panic!("{large}"));
    assert!(
        note.starts_with("on 6 open") && large.to_string().contains(note),
        "{large}"
    );
    let width = note
        .split("width ")
        .nth(1)
        .and_then(|t| t.split(' ').next());
    let width: f64 = width.and_then(|w| w.parse().ok()).expect("a number");
    assert!(width < 0.4 && (0.4 / width).log2().fract() == 0.0, "{note}");
    assert!(large.passed(), "{large}");
}

#[test]
fn wrong_gradients_are_found() {
    let s = network(7, 6, false);
    let mut gradients = pipeline::gradients(&s.graph).expect("differentiable");
    let largest = s
        .params
        .iter()
        .enumerate()
        .max_by_key(|(_, p)| p.data.len());
    let p = largest.expect("parameters").0;
    let node = gradients.nodes[0][p];
    let graph = &mut gradients.graph;
    let factor = graph
        .add(dnet::ir::Op::Number(1.0 + 1e-4), &[])
        .expect("a number");
    gradients.nodes[0][p] = graph
        .add(dnet::ir::Op::Zip(dnet::ir::ZipFn::Mul), &[node, factor])
        .expect("broadcasts");
    let subject = Subject {
        graph: &s.graph,
        gradients: &gradients,
        lattice: s.lattice,
        params: &s.params,
    };
    let mut report = Report::default();
    let case = Case::new(s.lattice, 7, 0, &s.spins);
    let mut rng = cases::random(s.lattice, 7, 0);
    check(&mut report, &case, &subject, false, &s.spins, &mut rng).expect("a valid sample");
    assert!(failed(&report, Check::GradientRe), "{report}");
    let at = report.row(Check::GradientRe).and_then(|r| r.at.clone());
    assert_eq!(at.expect("a case").quantity, s.graph.params[p].path);
}
