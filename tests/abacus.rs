//! ABACUS against full evaluation: exact for every topology, cluster, boundary and strategy.

mod abacus_nets;

use abacus_nets::{Mix, Net, Plan, Rng};
use dnet::ir::{Boundary, Lattice};
use dnet::pass::abacus::{Background, Network, probe};
use dnet::pass::link::LinkStrategy;

/// Relative agreement demanded of every update.
const TOLERANCE: f64 = 1e-10;

const BOUNDARIES: [Boundary; 2] = [Boundary::Periodic, Boundary::Open];

/// Single flips at every site, pairs, disjoint clusters, clusters around the
/// cut, and everything.
fn clusters(n: usize, rng: &mut Rng) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = (0..n).map(|i| vec![i]).collect();
    all.extend([
        vec![0, n - 1],
        vec![0, 1],
        vec![n / 2, n / 2 + 1],
        vec![1, n / 2],
    ]);
    for size in [2, 3, 5] {
        all.push((0..size).map(|_| rng.below(n)).collect());
    }
    all.push((0..n).collect());
    all
}

/// Worst error of all clusters under all strategies, relative to the largest of
/// the features and amplitudes involved.
fn worst(net: Net) -> f64 {
    let Net {
        graph,
        params,
        lattice,
        mut rng,
    } = net;
    let network = Network::new(&graph, lattice, params).unwrap();
    let spins = rng.spins(lattice.sites());
    let background = Background::new(&network, &spins).unwrap();
    let wanted = [
        None,
        Some(LinkStrategy::Dense),
        Some(LinkStrategy::Product),
        Some(LinkStrategy::Fft),
    ];
    let mut links: Vec<_> = wanted.map(|w| background.links(w)).into();
    let mut error = 0.0_f64;
    for flips in clusters(lattice.sites(), &mut rng) {
        let (changed, _) = network.flipped(&spins, &flips).unwrap();
        let exact = network.evaluate(&changed).unwrap();
        for links in &mut links {
            let update = background.update(links, &flips).unwrap();
            let mut compare = |got: f64, want: f64, scale: f64| {
                assert!(got.is_finite());
                error = error.max((got - want).abs() / scale.abs().max(1.0));
            };
            for (pool, features) in network.form.pools.iter().zip(&update.features) {
                let want = exact.value(pool.output);
                let scale = want.data.iter().fold(0.0_f64, |s, x| s.max(x.abs()));
                for (got, want) in features.data.iter().zip(&want.data) {
                    compare(*got, *want, scale);
                }
            }
            let want = exact.log_psi();
            compare(update.log_psi.re, want.re, want.norm());
            compare(update.log_psi.im, want.im, want.norm());
            for (&(m, i), dy) in &update.outputs {
                let node = network.form.mixers[m].output;
                let (old, new) = (background.values.value(node), exact.value(node));
                let scale = new.data.iter().fold(0.0_f64, |s, x| s.max(x.abs()));
                for (c, dy) in dy.iter().enumerate() {
                    let at = i * dy_len(old) + c;
                    compare(*dy, new.data[at] - old.data[at], scale);
                }
            }
        }
    }
    for flips in [
        vec![0],
        vec![lattice.sites() / 2],
        vec![1, lattice.sites() - 1],
    ] {
        let report = probe(&background, &flips).unwrap();
        assert!(report.affine > 0);
    }
    error
}

fn dy_len(y: &dnet::interp::Tensor) -> usize {
    y.shape[1..].iter().product()
}

fn check(lattice: Lattice, plan: &Plan, seed: u64) {
    let error = worst(Net::build(lattice, plan, seed));
    assert!(
        error < TOLERANCE,
        "error {error:e} for {plan:?} on {lattice:?}, seed {seed}"
    );
}

#[test]
fn dysonnets_of_depth_one_to_six() {
    for (depth, n) in [(1, 9), (2, 10), (3, 11), (4, 8), (5, 9), (6, 8)] {
        for boundary in BOUNDARIES {
            let kinds = [
                Mix::ScanComplex,
                Mix::ScanReal,
                Mix::Convolve,
                Mix::ScanDense,
            ];
            let mixers: Vec<Mix> = (0..depth).map(|l| kinds[l % 4]).collect();
            check(
                Lattice::chain(n, boundary),
                &Plan::dysonnet(1, (-1, 1), &mixers),
                depth as u64,
            );
        }
    }
}

#[test]
fn tokens_and_kernels() {
    for (token, tokens) in [(1, 9), (2, 7), (3, 5), (4, 4)] {
        for kernel in [(0, 0), (0, 1), (-1, 1), (-1, 2), (-2, 2), (-2, 3)] {
            for boundary in BOUNDARIES {
                let plan = Plan::dysonnet(token, kernel, &[Mix::ScanComplex, Mix::ScanReal]);
                check(
                    Lattice::chain(token * tokens, boundary),
                    &plan,
                    token as u64,
                );
            }
        }
    }
}

#[test]
fn every_mixer_class_after_every_other() {
    let kinds = [
        Mix::ScanReal,
        Mix::ScanComplex,
        Mix::ScanDense,
        Mix::Convolve,
        Mix::ConvolveComplex,
        Mix::Modes,
        Mix::Pairs,
    ];
    for boundary in BOUNDARIES {
        for a in kinds {
            for b in kinds {
                if boundary == Boundary::Open && [a, b].contains(&Mix::Modes) {
                    continue;
                }
                check(
                    Lattice::chain(7, boundary),
                    &Plan::dysonnet(1, (0, 1), &[a, b]),
                    3,
                );
            }
        }
    }
}

#[test]
fn topologies() {
    for seed in 0..24_u64 {
        let mut rng = Rng(seed + 100);
        let kinds = [Mix::ScanReal, Mix::ScanComplex, Mix::Convolve, Mix::Pairs];
        let depth = 1 + rng.below(3);
        let mut plan = Plan::dysonnet(1 + rng.below(2), (-1, 1), &[]);
        plan.mixers = (0..depth).map(|_| kinds[rng.below(4)]).collect();
        plan.kernel = (-(rng.below(3) as i64), rng.below(3) as i64);
        plan.residual = rng.chance(2);
        plan.skips = rng.chance(2);
        plan.matrix = rng.chance(2);
        plan.twin = rng.chance(3);
        plan.stencil = rng.chance(2);
        plan.final_mixer = rng.chance(2);
        plan.weighted = rng.chance(2);
        plan.gather = rng.chance(2);
        plan.complex_output = rng.chance(2);
        let n = plan.token[0] * (6 + rng.below(3));
        check(Lattice::chain(n, BOUNDARIES[rng.below(2)]), &plan, seed);
    }
}

#[test]
fn square_lattices() {
    for boundary in BOUNDARIES {
        for token in [[1, 1], [2, 1], [1, 2]] {
            let mut plan = Plan::dysonnet(1, (-1, 1), &[Mix::Convolve, Mix::Convolve]);
            plan.token = token;
            let lattice = Lattice {
                extent: [3 * token[0], 4 * token[1]],
                boundary,
            };
            check(lattice, &plan, 5);
            plan.kernel = (0, 1);
            plan.stencil = true;
            check(lattice, &plan, 6);
        }
    }
}
