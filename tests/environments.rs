//! Environments and exact sweeps against full evaluation, at any depth, open and ring.

mod abacus_nets;

use abacus_nets::{Mix, Net, Plan, Rng};
use dnet::ir::{Boundary, Lattice};
use dnet::pass::abacus::{Background, Network};
use dnet::pass::link::{Realisation, environment::Environments, sweep::sweep};

const TOLERANCE: f64 = 1e-10;
const BOUNDARIES: [Boundary; 2] = [Boundary::Periodic, Boundary::Open];

fn plans() -> Vec<(usize, Plan)> {
    let kinds = [Mix::ScanComplex, Mix::ScanReal, Mix::ScanDense];
    let mut plans = vec![];
    for depth in 1..=4 {
        let mixers: Vec<Mix> = (0..depth).map(|l| kinds[l % 3]).collect();
        let mut plan = Plan::dysonnet(1 + depth % 3, (-1, depth as i64 % 3), &mixers);
        plan.residual = depth % 2 == 0;
        plan.skips = depth > 2;
        plan.stencil = depth == 2;
        plan.matrix = depth == 3;
        plan.weighted = depth == 4;
        plan.complex_output = depth == 2;
        plans.push((7 + 2 * depth, plan));
    }
    plans
}

#[test]
fn environments_reproduce_full_evaluation() {
    for (tokens, plan) in plans() {
        for boundary in BOUNDARIES {
            let lattice = Lattice::chain(tokens * plan.token[0], boundary);
            let net = Net::build(lattice, &plan, tokens as u64);
            let network = Network::new(&net.graph, lattice, net.params).unwrap();
            let mut rng = Rng(7);
            let spins = rng.spins(lattice.sites());
            let background = Background::new(&network, &spins).unwrap();
            let environments = Environments::new(&background).unwrap();
            let n = lattice.sites();
            let mut clusters: Vec<Vec<usize>> = (0..n).map(|i| vec![i]).collect();
            clusters.extend([vec![], vec![0, n - 1], vec![2, n / 2], (0..n).collect()]);
            for flips in clusters {
                let (changed, _) = network.flipped(&spins, &flips).unwrap();
                let exact = network.evaluate(&changed).unwrap().log_psi();
                let got = environments.log_psi(&flips).unwrap();
                let error = (got - exact).norm() / exact.norm().max(1.0);
                assert!(
                    error < TOLERANCE,
                    "{error:e}: {flips:?}, {plan:?}, {boundary:?}"
                );
            }
        }
    }
}

#[test]
fn sweeps_are_exact_with_accepted_moves() {
    for (tokens, plan) in plans() {
        for boundary in BOUNDARIES {
            for (reverse, tokens) in [
                (false, tokens),
                (true, tokens),
                (false, 3),
                (true, 2 * tokens),
            ] {
                let lattice = Lattice::chain(tokens * plan.token[0], boundary);
                let net = Net::build(lattice, &plan, 11);
                let network = Network::new(&net.graph, lattice, net.params).unwrap();
                let mut rng = Rng(tokens as u64);
                let mut current = rng.spins(lattice.sites());
                let background = Background::new(&network, &current).unwrap();
                let mut order = vec![];
                let (mut worst, mut accepted) = (0.0_f64, 0);
                let result = sweep(&background, reverse, &mut |site, ratio| {
                    order.push(site);
                    let old = network.evaluate(&current).unwrap().log_psi();
                    current[site] = -current[site];
                    let new = network.evaluate(&current).unwrap().log_psi();
                    worst = worst.max((ratio - (new - old)).norm() / new.norm().max(1.0));
                    let accept = rng.chance(2);
                    if accept {
                        accepted += 1;
                    } else {
                        current[site] = -current[site];
                    }
                    accept
                })
                .unwrap();
                let mut expected: Vec<usize> = (0..lattice.sites()).collect();
                if reverse {
                    expected.reverse();
                }
                assert_eq!(order, expected);
                assert_eq!(result, current);
                assert!(accepted > 0);
                assert!(
                    worst < TOLERANCE,
                    "{worst:e}: {plan:?}, {boundary:?}, {tokens} tokens"
                );
            }
        }
    }
}

#[test]
fn networks_without_recurrences_are_refused() {
    let lattice = Lattice::chain(8, Boundary::Periodic);
    for mix in [Mix::Convolve, Mix::Pairs, Mix::Modes] {
        let net = Net::build(
            lattice,
            &Plan::dysonnet(1, (0, 1), &[Mix::ScanReal, mix]),
            1,
        );
        let network = Network::new(&net.graph, lattice, net.params).unwrap();
        let background = Background::new(&network, &[1; 8]).unwrap();
        let text = Environments::new(&background).err().unwrap().to_string();
        assert!(
            text.contains("mixer 2") && text.contains("not a recurrence"),
            "{text}"
        );
        assert!(Realisation::new(&network, &background.values, &background.kernels[0], 0).is_ok());
    }
}
