//! The derivation on random networks, on the language's examples, and against
//! reverse mode.

mod networks;

use dnet::check::core::{Kind, NetworkInfo, Place};
use dnet::interp::arbitrary::{Random, Sample, network, program};
use dnet::interp::{Tensor, evaluate};
use dnet::ir::kinds::{Dependence, Kinds};
use dnet::ir::{Boundary, Graph, Lattice, Op, lower};
use dnet::params::{initialise, perturb};
use dnet::pass::abacus::{AbacusError, Background, Network, probe};
use dnet::pass::cluster::Cluster;
use dnet::pass::cost::CostModel;
use dnet::pass::link::environment::Environments;
use dnet::pass::normal_form::{NormalForm, PoolKind};
use dnet::pass::reverse::pullback;
use dnet::pipeline;

const TOLERANCE: f64 = 1e-10;

/// Worst error of ABACUS (and environments, where they exist) against full
/// evaluation, relative to the larger of 1 and |log psi|.
fn worst(
    graph: &Graph,
    lattice: Lattice,
    params: Vec<Tensor>,
    seed: u64,
) -> Result<f64, AbacusError> {
    let net = Network::new(graph, lattice, params)?;
    let mut random = Random::new(seed);
    let n = lattice.sites();
    let spins = random.spins(n);
    let background = Background::new(&net, &spins)?;
    let environments = Environments::new(&background).ok();
    let mut links = background.links(None);
    let mut error = 0.0_f64;
    let mut clusters: Vec<Vec<usize>> = (0..n.min(12)).map(|_| vec![random.below(n)]).collect();
    clusters.extend((2..6).map(|size| (0..size).map(|_| random.below(n)).collect()));
    for flips in &clusters {
        let (changed, _) = net.flipped(&spins, flips)?;
        let exact = net.evaluate(&changed)?.log_psi();
        let mut compare = |got: num_complex::Complex64| {
            error = error.max((got - exact).norm() / exact.norm().max(1.0));
        };
        compare(background.update(&mut links, flips)?.log_psi);
        if let Some(environments) = &environments {
            compare(environments.log_psi(flips)?);
        }
    }
    probe(&background, &clusters[0])?;
    Ok(error)
}

#[test]
fn random_networks() {
    for seed in 0..150 {
        let Sample {
            graph,
            lattice,
            params,
            ..
        } = network(seed, 7, true);
        let error = worst(&graph, lattice, params, seed).unwrap();
        assert!(error < TOLERANCE, "seed {seed}: {error:e}");
    }
}

#[test]
fn random_programs_are_exact_or_refused() {
    let mut derived = 0;
    for seed in 0..300 {
        let Sample {
            graph,
            lattice,
            params,
            ..
        } = program(seed, 12);
        match worst(&graph, lattice, params, seed) {
            Ok(error) => {
                assert!(error < TOLERANCE, "seed {seed}: {error:e}");
                derived += 1;
            }
            Err(AbacusError::NoNormalForm(_)) => {}
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    assert!(derived > 10, "only {derived} programs have a normal form");
}

#[test]
fn windows_of_random_programs_hold() {
    // Also of programs without normal form: flip every spin, see what changes.
    use dnet::pass::abacus::support::tokens_seeing;
    for seed in 0..150 {
        let Sample {
            graph,
            lattice,
            params,
            spins,
        } = program(seed, 12);
        let kinds = Kinds::new(&graph);
        let old = evaluate(&graph, lattice, &params, &spins).unwrap();
        for flip in 0..spins.len() {
            let mut changed = spins.clone();
            changed[flip] = -changed[flip];
            let new = evaluate(&graph, lattice, &params, &changed).unwrap();
            for id in graph.ids() {
                let (a, b) = (old.value(id), new.value(id));
                match (kinds.get(id), graph.ty(id).place) {
                    (Dependence::Const, _) => assert_eq!(a, b, "seed {seed} node {}", id.index()),
                    (Dependence::Local(w), Place::Site(token)) => {
                        let claimed = tokens_seeing(w, token, lattice, &[flip]);
                        let len: usize = a.shape[1..].iter().product();
                        for i in (0..a.shape[0]).filter(|i| !claimed.contains(i)) {
                            let rows = i * len..(i + 1) * len;
                            assert_eq!(
                                a.data[rows.clone()],
                                b.data[rows],
                                "seed {seed} node {}",
                                id.index()
                            );
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn final_links_are_what_reverse_mode_finds() {
    for seed in 0..40 {
        let Sample {
            graph,
            lattice,
            params,
            spins,
        } = network(seed, 6, false);
        let net = Network::new(&graph, lattice, params.clone()).unwrap();
        let background = Background::new(&net, &spins).unwrap();
        let form = &net.form;
        let wanted: Vec<_> = form.mixers.iter().map(|m| m.output).collect();
        for (p, pool) in form.pools.iter().enumerate() {
            if pool.kind != PoolKind::Sum {
                continue;
            }
            let width = background.values.value(pool.output).data.len();
            for h in 0..width {
                // The cotangent picks feature h: a parameter of the extended graph.
                let mut graph = graph.clone();
                let index = graph.params.len() as u32;
                let ty = graph.ty(pool.output).clone();
                graph.params.push(dnet::ir::GraphParam {
                    path: "cotangent".into(),
                    ty: ty.clone(),
                });
                let seed_node = graph.push(Op::Param(index), &[], ty);
                let mut params = params.clone();
                let mut unit = Tensor::zeros(&background.values.value(pool.output).shape);
                unit.data[h] = 1.0;
                params.push(unit);
                let reversed = pullback(&graph, &[(pool.output, seed_node)], &wanted).unwrap();
                let values = evaluate(&reversed.graph, lattice, &params, &spins).unwrap();
                for (m, &g) in reversed.gradients.iter().enumerate() {
                    // d Omega / d v_m = G_m^T d Omega / d y_m.
                    let kernel = &background.kernels[m];
                    let dy = &values.value(g).data;
                    for j in 0..kernel.sources() {
                        let mut t = vec![0.0; kernel.inputs()];
                        for i in 0..kernel.targets() {
                            for (r, c, k) in kernel.block(i, j) {
                                t[c] += dy[i * kernel.outputs() + r] * k;
                            }
                        }
                        let ours =
                            &background.final_links.get(p, m, j)[h * t.len()..(h + 1) * t.len()];
                        for (a, b) in ours.iter().zip(&t) {
                            assert!(
                                (a - b).abs() < 1e-10 * a.abs().max(1.0),
                                "seed {seed}: {a} {b}"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Every example network at reduced size.
fn examples() -> Vec<(String, NetworkInfo)> {
    let all = networks::examples();
    let small = all.iter().flat_map(|(_, p)| networks::small_networks(p));
    small.map(|info| (info.name.clone(), info)).collect()
}

#[test]
fn checker_and_graph_agree_on_every_value_of_the_examples() {
    for (name, info) in examples() {
        let lowered = lower(&info);
        let kinds = Kinds::new(&lowered.graph);
        for (value, parts) in info.values.iter().zip(&lowered.parts) {
            for node in [Some(parts.re), parts.im].into_iter().flatten() {
                let found = kinds.get(node);
                let agree = match (value.kind, found) {
                    (Kind::Const, Dependence::Const)
                    | (Kind::Linear { .. }, Dependence::Linear)
                    | (Kind::Pooled, Dependence::Pooled)
                    | (Kind::Global { .. }, Dependence::Global) => true,
                    (Kind::Local(a), Dependence::Local(b)) => a == b,
                    // An imaginary or real part may vanish identically.
                    (_, Dependence::Const) => value.ty.dtype == dnet::check::core::DType::Complex,
                    _ => false,
                };
                assert!(
                    agree,
                    "{name}: {:?} is {:?}, its node {found:?}",
                    value.op, value.kind
                );
            }
        }
    }
}

#[test]
fn every_example_is_updated_exactly() {
    for (name, info) in examples() {
        let lowered = lower(&info);
        let square = info.lattice == dnet::syntax::ast::LatticeKind::Square;
        for boundary in [Boundary::Periodic, Boundary::Open] {
            let lattice = if square {
                Lattice {
                    extent: [4, 4],
                    boundary,
                }
            } else {
                Lattice::chain(12, boundary)
            };
            // Some networks exist on rings only; none of those is refused there.
            let Ok(mut params) = initialise(&info, &lowered, lattice, 3) else {
                assert_eq!(boundary, Boundary::Open, "{name}");
                continue;
            };
            perturb(&mut params, 0.3, 4);
            match worst(&lowered.graph, lattice, params.tensors, 5) {
                Ok(error) => assert!(
                    error < TOLERANCE && !info.full,
                    "{name} {boundary:?}: {error:e}"
                ),
                Err(AbacusError::NoNormalForm(_)) => assert!(info.full, "{name}"),
                Err(AbacusError::Eval(e)) => assert_eq!(boundary, Boundary::Open, "{name}: {e}"),
                Err(e) => panic!("{name} {boundary:?}: {e}"),
            }
        }
    }
}

/// Growth of an update with N for the rows of the paper's Table 1, and from where
/// on updates pay, of the examples as they are.
#[test]
fn rows_of_table_one() {
    let mut table = String::new();
    let mut classes = std::collections::BTreeMap::new();
    let all = networks::examples();
    for info in all.iter().flat_map(|(_, p)| networks::networks(p)) {
        let graph = pipeline::amplitude(&pipeline::graph(&info));
        let model = CostModel::new(&graph, &Cluster::single(), Boundary::Periodic);
        let crossover = model
            .crossover()
            .map_or("never".to_owned(), |n| n.to_string());
        let depth = NormalForm::new(&graph).map_or("-".to_owned(), |f| f.mixers.len().to_string());
        let (full, update) = (model.full.operations.class(), model.update_class());
        table += &format!(
            "{:<20} M {depth:<2} full {full:<10} update {update:<8} from N {crossover}\n",
            info.name
        );
        classes.insert(info.name.clone(), (full, update));
    }
    let rows: [(&[&str], &str); 4] = [
        // DysonNet: mixers of all classes that stay cheap, at any depth, and CNNs.
        (
            &[
                "dysonnet",
                "dysonnet_complex",
                "dysonnet_fourier",
                "dysonnet_power_law",
                "dysonnet2d",
                "marshall",
                "deep",
                "shared_weights",
                "recurrent_mixers",
                "matrix_vertex",
                "experts",
                "jastrow",
                "cnn",
                "resnet",
            ],
            "O(1)",
        ),
        // Any matrix as mixer: its rows or all hidden units.
        (&["rbm", "rbm_complex", "positional", "graph"], "O(N)"),
        // Full evaluation: attention, with and without softmax, and after a mixer.
        (&["vit", "vit_linear"], "O(N^2)"),
        (&["vit_kernel"], "O(N)"),
    ];
    let mut named = 0;
    for (names, class) in rows {
        for name in names {
            named += 1;
            let (full, update) = &classes[*name];
            assert_eq!(update, class, "{name}");
            let updates = !name.starts_with("vit");
            assert_eq!(full != update, updates, "{name}");
        }
    }
    assert_eq!(named, classes.len(), "a row for every example");
    insta::assert_snapshot!(table);
}
