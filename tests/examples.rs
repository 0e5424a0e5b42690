//! What the examples are: sizes, mixers, windows, and the formulas of those
//! that have one.

mod networks;

use dnet::check::Program;
use dnet::check::core::{Dim, Kind, NetworkInfo, Place, Token};
use dnet::interp::{Context, Tensor, evaluate};
use dnet::ir::text::text;
use dnet::ir::{Boundary, Graph, Lattice, lower};
use dnet::pipeline;
use dnet::run::WaveFunction;
use dnet::run::network::{Backend, Precision, build};
use dnet::verify::cases;
use num_complex::Complex64;
use rayon::prelude::*;
use std::sync::Mutex;

fn network(file: &str) -> NetworkInfo {
    networks::networks(&Program::load(&networks::path(file))).remove(0)
}

/// Number of real parameters that do not depend on the lattice, and whether
/// there are others.
fn size(info: &NetworkInfo) -> (usize, bool) {
    let mut total = 0;
    let mut more = false;
    for p in &info.params {
        let parts = if p.ty.dtype == dnet::check::core::DType::Complex {
            2
        } else {
            1
        };
        let volume: Option<usize> =
            p.ty.shape
                .iter()
                .map(|d| {
                    if let Dim::Static(n) = d {
                        Some(*n)
                    } else {
                        None
                    }
                })
                .product();
        match (p.ty.place, volume) {
            (Place::Whole, Some(n)) => total += parts * n,
            _ => more = true,
        }
    }
    (total, more)
}

#[test]
fn every_example_is_clean() {
    let mut count = 0;
    for (file, program) in networks::examples() {
        count += 1;
        let found: Vec<String> = program
            .check()
            .iter()
            .map(|d| format!("{} {}", d.code.as_str(), d.message))
            .collect();
        assert!(found.is_empty(), "{file}: {found:#?}");
    }
    assert!(count >= 20, "only {count} examples found");
}

#[test]
fn sizes_and_mixers() {
    // file, parameters per network, further ones per site or pair, mixers, full
    let table = [
        ("dysonnet.dnet", 3264, false, 2, false),
        ("marshall.dnet", 3264, false, 2, false),
        ("complex_readout.dnet", 3294, false, 2, false),
        ("deep.dnet", 2348, false, 5, false),
        ("shared_weights.dnet", 442, false, 3, false),
        ("power_law.dnet", 732, false, 2, false),
        ("fourier.dnet", 792, false, 2, false),
        ("recurrent_mixers.dnet", 628, false, 3, false),
        ("matrix_vertex.dnet", 944, false, 2, false),
        ("experts.dnet", 1618, false, 2, false),
        ("graph.dnet", 324, false, 2, false),
        ("dysonnet2d.dnet", 636, false, 2, false),
        ("cnn.dnet", 1036, false, 0, false),
        ("resnet.dnet", 900, false, 0, false),
        ("jastrow.dnet", 0, true, 1, false),
        ("rbm.dnet", 0, true, 1, false),
        ("rbm_complex.dnet", 0, true, 1, false),
        ("positional.dnet", 586, true, 2, false),
        ("vit.dnet", 3544, true, 0, true),
        ("vit_kernel.dnet", 2654, true, 0, true),
        ("vit_linear.dnet", 1694, true, 2, true),
    ];
    for (file, parameters, more, mixers, full) in table {
        let info = network(file);
        assert_eq!(
            (size(&info), info.mixers.len(), info.full),
            ((parameters, more), mixers, full),
            "{file}"
        );
    }
}

/// Tokens that change when the first spin of a token flips, as (first, last).
fn support(info: &NetworkInfo, name: &str) -> (i64, i64) {
    let value = info
        .values
        .iter()
        .find(|v| v.name.as_deref() == Some(name))
        .unwrap_or_else(|| panic!("no value {name}"));
    let (Kind::Local(window), Place::Site(token)) = (value.kind, value.ty.place) else {
        panic!("{name} is not local")
    };
    assert_eq!(token, Token([2, 1]));
    let both = [0, 1].map(|inside| window.support(token, 0, inside));
    assert_eq!(both[0], both[1], "both spins of a token have one support");
    both[0]
}

#[test]
fn supports_of_the_published_network() {
    let info = network("dysonnet.dnet");
    assert_eq!(support(&info, "block_0/gate"), (0, 0));
    assert_eq!(support(&info, "block_0/c"), (-2, 1));
    assert_eq!(support(&info, "block_1/gate"), (-2, 1));
    assert_eq!(support(&info, "block_1/c"), (-4, 2));
}

/// Log psi and the parameters of a network without hyperparameters set.
fn evaluated(file: &str, spins: &[i8]) -> (Complex64, Vec<(String, Vec<f64>)>) {
    let graph = lower(&network(file)).graph;
    let lattice = Lattice::chain(spins.len(), Boundary::Periodic);
    let context = Context::new(lattice, &[], spins).expect("a valid configuration");
    let params: Vec<Tensor> = graph
        .params
        .iter()
        .enumerate()
        .map(|(p, x)| {
            Tensor::from_fn(&context.shape(&x.ty).expect("a shape"), |k| {
                ((7 * p + 3 * k + 1) as f64).sin()
            })
        })
        .collect();
    let log_psi = evaluate(&graph, lattice, &params, spins)
        .expect("evaluates")
        .log_psi();
    (
        log_psi,
        graph
            .params
            .iter()
            .zip(params)
            .map(|(p, t)| (p.path.clone(), t.data))
            .collect(),
    )
}

fn data<'a>(params: &'a [(String, Vec<f64>)], path: &str) -> &'a [f64] {
    &params
        .iter()
        .find(|p| p.0 == path)
        .unwrap_or_else(|| panic!("no parameter {path}"))
        .1
}

const SPINS: [i8; 6] = [1, -1, -1, 1, -1, 1];

#[test]
fn jastrow_is_a_quadratic_form() {
    let (log_psi, params) = evaluated("jastrow.dnet", &SPINS);
    let coupling = data(&params, "toeplitz/kernel");
    let mut want = 0.0;
    for i in 0..6 {
        for j in 0..6 {
            want += coupling[(i + 6 - j) % 6] * f64::from(SPINS[i] * SPINS[j]) / 2.0;
        }
    }
    assert!((log_psi - want).norm() < 1e-12, "{log_psi} {want}");
}

#[test]
fn boltzmann_machines() {
    let (log_psi, params) = evaluated("rbm.dnet", &SPINS);
    let weights = data(&params, "hidden_units/weights");
    let mut want: f64 = (0..6)
        .map(|i| data(&params, "a")[i] * f64::from(SPINS[i]))
        .sum();
    for j in 0..6 {
        let theta: f64 = (0..6)
            .map(|i| weights[j * 6 + i] * f64::from(SPINS[i]))
            .sum();
        want += (theta + data(&params, "b")[j]).cosh().ln();
    }
    assert!((log_psi - want).norm() < 1e-12, "{log_psi} {want}");

    let (log_psi, params) = evaluated("rbm_complex.dnet", &SPINS);
    let z = |path: &str, k: usize| {
        Complex64::new(
            data(&params, &format!("{path}.re"))[k],
            data(&params, &format!("{path}.im"))[k],
        )
    };
    let mut psi: Complex64 = (0..6)
        .map(|i| z("a", i) * f64::from(SPINS[i]))
        .sum::<Complex64>()
        .exp();
    for j in 0..6 {
        let theta: Complex64 = (0..6)
            .map(|i| z("hidden_units/weights", j * 6 + i) * f64::from(SPINS[i]))
            .sum();
        psi *= (theta + z("b", j)).cosh();
    }
    assert!(
        (log_psi.exp() - psi).norm() < 1e-12 * psi.norm(),
        "{} {psi}",
        log_psi.exp()
    );
}

/// The graph of some networks as text, as lowered and as everything works on it.
#[test]
fn graphs_of_some_examples() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("out/ir");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for file in ["jastrow.dnet", "dysonnet.dnet", "rbm_complex.dnet"] {
        let info = network(file);
        let stages = [
            ("lowered", lower(&info).graph),
            ("simplified", pipeline::amplitude(&pipeline::graph(&info))),
        ];
        for (stage, graph) in stages {
            let name = format!("{}_{stage}", info.name);
            settings.bind(|| insta::assert_snapshot!(name, text(&graph)));
        }
    }
}

/// What runs is compiled from the simplified graph: its amplitudes, ratios and
/// gradients are those of the graph as lowered.
#[test]
fn compiled_code_of_simplified_graphs_agrees() {
    let all = networks::examples();
    let small: Vec<(&Program, NetworkInfo)> = all
        .iter()
        .flat_map(|(_, p)| networks::small_networks(p).into_iter().map(move |n| (p, n)))
        .collect();
    small.par_iter().for_each(|(program, info)| {
        let lowered = pipeline::graph(info);
        for boundary in [Boundary::Periodic, Boundary::Open] {
            let fits = networks::lattices(program, info);
            let Some(&lattice) = fits.iter().find(|l| l.boundary == boundary) else {
                continue;
            };
            let mut rng = cases::random(lattice, 5, 0);
            let spins = cases::configuration(lattice, &mut rng);
            let drawn = cases::parameters(info, &lowered, lattice, 5, &spins);
            let params = drawn.expect("fits").params;
            let build = |graph: &Graph, backend| {
                build(graph, lattice, &params, Precision::F64, backend)
                    .unwrap_or_else(|e| panic!("{} on {lattice:?}: {e}", info.name))
            };
            let wanted = build(&lower(info).graph, Backend::Reference);
            let found = build(&pipeline::amplitude(&lowered), Backend::Cpu);
            let answers = |psi: &dyn WaveFunction| {
                let mut log_psi = [Complex64::ZERO];
                psi.log_psi(&spins, &mut log_psi);
                let mut ratios = vec![Complex64::ZERO; spins.len()];
                psi.background(&spins).single_flips(&mut ratios);
                let gradients = Mutex::new(vec![]);
                psi.gradients(&spins, &|_, re, im| {
                    let all = re.iter().chain(im).copied();
                    gradients.lock().expect("unpoisoned").extend(all);
                });
                let amplitudes = log_psi.into_iter().chain(ratios);
                (
                    // Phases through their sine and cosine: they are defined modulo 2 pi.
                    amplitudes
                        .flat_map(|z| [z.re, z.im.cos(), z.im.sin()])
                        .collect::<Vec<f64>>(),
                    gradients.into_inner().expect("unpoisoned"),
                )
            };
            let (wanted, found) = (answers(&*wanted), answers(&*found));
            for (what, w, f) in [
                ("log psi", &wanted.0, &found.0),
                ("gradients", &wanted.1, &found.1),
            ] {
                assert_eq!(w.len(), f.len(), "{what} of {}", info.name);
                let size = w.iter().fold(1.0_f64, |s, x| s.max(x.abs()));
                for (w, f) in w.iter().zip(f) {
                    assert!(
                        (w - f).abs() <= 1e-10 * size,
                        "{what} of {} on {lattice:?}: {f} instead of {w}",
                        info.name
                    );
                }
            }
        }
    });
}
