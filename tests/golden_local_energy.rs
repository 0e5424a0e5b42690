//! Local energies of the paper's architecture against independent numbers:
//! network and operator from the language, ratios by ABACUS updates and by
//! full evaluation.

mod dysonnet_files;
mod support;

use dnet::back::cpu::network::{CpuNetwork, Updates};
use dnet::check::core::Static;
use dnet::ir::{Boundary, Lattice, lower};
use dnet::params::Params;
use dnet::pass::abacus;
use dnet::pass::link::{LinkStrategy, Links};
use dnet::run::network::{Backend, Precision, build};
use dnet::run::{Background, WaveFunction};
use dnet::vmc::estimator::local_energy;
use dnet::vmc::operator::Operator;
use dysonnet_files::{golden_dir, network, numbers, params};
use num_complex::Complex64;
use serde_json::Value;
use std::collections::BTreeMap;
use support::{golden, operator_with};

/// Agreement demanded, relative to energies beyond 1.
const TOLERANCE: f64 = 1e-11;

/// Ratios by ABACUS updates of one background.
struct Abacus<'b> {
    background: &'b abacus::Background<'b>,
    links: Links<'b>,
}

impl Background for Abacus<'_> {
    fn log_psi(&self) -> Complex64 {
        self.background.log_psi()
    }
    fn log_ratio(&mut self, flips: &[usize]) -> Complex64 {
        let update = self.background.update(&mut self.links, flips).unwrap();
        update.log_psi - self.background.log_psi()
    }
    fn accept(&mut self, _: &[usize]) {
        unreachable!("local energies accept no flips")
    }
}

/// The operator of an entry and the factor to the entry's unit of energy.
fn operator(entry: &Value, lattice: Lattice) -> (Operator, f64) {
    let coupling = |key: &'static str| (key, Static::Real(entry[key].as_f64().unwrap()));
    match entry["model"].as_str().unwrap() {
        "tfim" => {
            let couplings = ["J", "alpha", "h"].map(coupling);
            (operator_with("long_range_tfim", lattice, &couplings), 1.0)
        }
        // S.S is a quarter of the sum of Pauli matrices
        "j1j2_marshall_pauli" => {
            let couplings = ["J1", "J2"].map(coupling);
            (operator_with("j1j2_marshall", lattice, &couplings), 4.0)
        }
        model => panic!("unknown model {model}"),
    }
}

#[test]
fn golden_local_energies() {
    let entries = golden("dysonnet/local_energies.json");
    let mut by_network: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for entry in entries.as_array().unwrap() {
        by_network
            .entry(entry["golden"].as_str().unwrap())
            .or_default()
            .push(entry);
    }
    let mut compared = 0;
    for (name, entries) in by_network {
        let text = std::fs::read_to_string(golden_dir().join(format!("{name}.json"))).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        let lattice = Lattice::chain(file["N"].as_u64().unwrap() as usize, Boundary::Periodic);
        let graph = lower(&network(&file)).graph;
        let tensors = params(&file, &graph);
        let all = Params {
            paths: graph.params.iter().map(|p| p.path.clone()).collect(),
            tensors: tensors.clone(),
        };
        let reference = build(&graph, lattice, &all, Precision::F64, Backend::Reference).unwrap();
        let theta = all.flat();
        let compiled = [Updates::Full, Updates::Abacus, Updates::Automatic].map(|updates| {
            let mut psi = CpuNetwork::<f64>::new(graph.clone(), lattice, &theta).unwrap();
            psi.set_updates(updates);
            (format!("native code, {updates:?}"), psi)
        });
        let net = abacus::Network::new(&graph, lattice, tensors).unwrap();
        for entry in entries {
            let (operator, unit) = operator(entry, lattice);
            let spins: Vec<Vec<i8>> = entry["spins"]
                .as_array()
                .unwrap()
                .iter()
                .map(|s| numbers(s).iter().map(|x| *x as i8).collect())
                .collect();
            let wanted: Vec<Complex64> = match entry.get("E_loc_re") {
                Some(re) => numbers(re)
                    .into_iter()
                    .zip(numbers(&entry["E_loc_im"]))
                    .map(|(re, im)| Complex64::new(re, im))
                    .collect(),
                None => numbers(&entry["E_loc_total_noconst"])
                    .into_iter()
                    .map(Into::into)
                    .collect(),
            };
            assert_eq!(spins.len(), wanted.len());
            for (k, (spins, want)) in spins.iter().zip(wanted).enumerate() {
                let background = abacus::Background::new(&net, spins).unwrap();
                let mut ways: Vec<(&str, Box<dyn Background + '_>)> =
                    vec![("interpreter", reference.background(spins))];
                for (way, psi) in &compiled {
                    ways.push((way, psi.background(spins)));
                }
                for strategy in [
                    LinkStrategy::Dense,
                    LinkStrategy::Product,
                    LinkStrategy::Fft,
                ] {
                    let links = background.links(Some(strategy));
                    ways.push((
                        "ABACUS",
                        Box::new(Abacus {
                            background: &background,
                            links,
                        }),
                    ));
                }
                for (way, background) in ways {
                    let energy = local_energy(&operator, spins, || background) * unit;
                    let error = (energy - want).norm() / want.norm().max(1.0);
                    assert!(
                        error < TOLERANCE,
                        "{name} {} configuration {k} by {way}: {energy}, not {want} ({error:e})",
                        entry["model"]
                    );
                    compared += 1;
                }
            }
        }
    }
    assert!(compared >= 8 * 4 * 7, "{compared}");
}
