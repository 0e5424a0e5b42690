//! Random programs of the language, as a user could have written them: updates,
//! links, environments, sweeps and windows are exact, gradients match differences.

#[path = "gen/program.rs"]
mod program;

use dnet::check::Program;
use dnet::check::core::NetworkInfo;
use dnet::check::lattice::{Sites, check};
use dnet::ir::valid::validate;
use dnet::ir::{Boundary, Lattice, lower};
use dnet::pass::simplify::simplify;
use dnet::pipeline;
use dnet::verify::{Check, Options, cases, verify};
use rayon::prelude::*;

/// Programs verified.
const PROGRAMS: u64 = 60;
/// Larger lattices are left to the command line.
const MAX_SITES: usize = 40;

fn checked(seed: u64) -> (String, Program, NetworkInfo) {
    let text = program::program(seed).text;
    let loaded = Program::parse("generated.dnet", &text);
    let info = loaded.only_network().check();
    let info = info.unwrap_or_else(|e| panic!("seed {seed}\n{text}\n{e}"));
    (text, loaded, info)
}

/// The smallest lattice of each boundary and the next one.
fn lattices(program: &Program, info: &NetworkInfo) -> Vec<Lattice> {
    let all = cases::lattices(info, &|l| {
        let sites = Sites {
            extent: l.extent,
            periodic: l.boundary == Boundary::Periodic,
        };
        check(program.modules(), info, sites).is_empty()
    });
    let of = |b: Boundary| {
        let fits = all.iter().copied().filter(move |l| l.boundary == b);
        fits.filter(|l| l.sites() <= MAX_SITES).take(2)
    };
    of(Boundary::Periodic).chain(of(Boundary::Open)).collect()
}

#[test]
fn random_programs_verify() {
    let reached: Vec<[usize; 4]> = (0..PROGRAMS)
        .into_par_iter()
        .map(|seed| {
            let (text, program, info) = checked(seed);
            let options = Options { seed, samples: 1 };
            let lattices = lattices(&program, &info);
            let report = verify(&info, &lattices, &options)
                .unwrap_or_else(|e| panic!("seed {seed}: {e}\n{text}"));
            assert!(
                report.passed(),
                "seed {seed}, {lattices:?}\n{text}\n{report}"
            );
            let count = |check| report.row(check).map_or(0, |r| r.comparisons);
            let open = lattices.iter().filter(|l| l.boundary == Boundary::Open);
            [
                count(Check::Update(None)),
                count(Check::Environment),
                open.count(),
                count(Check::GradientIm),
            ]
        })
        .collect();
    // The sample reaches what it is meant to reach.
    for kind in 0..4 {
        assert!(
            reached.iter().filter(|r| r[kind] > 0).count() >= 5,
            "{reached:?}"
        );
    }
}

#[test]
fn every_pass_keeps_programs_valid() {
    for seed in 0..200 {
        let (text, _, info) = checked(seed);
        let fault = |e: &dyn std::fmt::Display| -> String { format!("seed {seed}: {e}\n{text}") };
        validate(&lower(&info).graph).unwrap_or_else(|e| panic!("{}", fault(&e)));
        let lowered = pipeline::graph(&info);
        validate(&lowered.graph).unwrap_or_else(|e| panic!("{}", fault(&e)));
        assert_eq!(lowered.parts.len(), info.values.len());
        let graph = pipeline::amplitude(&lowered);
        validate(&graph).unwrap_or_else(|e| panic!("{}", fault(&e)));
        assert!(graph.len() <= lowered.graph.len());
        assert_eq!(graph.params, lowered.graph.params);
        let gradients = pipeline::gradients(&graph).unwrap_or_else(|e| panic!("{}", fault(&e)));
        validate(&gradients.graph).unwrap_or_else(|e| panic!("{}", fault(&e)));
        assert_eq!(simplify(&graph, &[]).graph.len(), graph.len());
    }
}
