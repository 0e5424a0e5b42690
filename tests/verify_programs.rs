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

/// Comparisons of updates, environments and phase gradients, and open lattices;
/// or what is wrong.
fn verified(seed: u64) -> Result<[usize; 4], String> {
    let (text, program, info) = checked(seed);
    let options = Options { seed, samples: 1 };
    let lattices = lattices(&program, &info);
    let report = verify(&info, &lattices, &options)
        .map_err(|e| format!("seed {seed}, {lattices:?}: {e}\n{text}"))?;
    if !report.passed() {
        return Err(format!("seed {seed}, {lattices:?}\n{text}\n{report}"));
    }
    let count = |check| report.row(check).map_or(0, |r| r.comparisons);
    let open = lattices.iter().filter(|l| l.boundary == Boundary::Open);
    Ok([
        count(Check::Update(None)),
        count(Check::Environment),
        count(Check::GradientIm),
        open.count(),
    ])
}

#[test]
fn random_programs_verify() {
    let all: Vec<_> = (0..PROGRAMS).into_par_iter().map(verified).collect();
    let wrong: Vec<&String> = all.iter().filter_map(|r| r.as_ref().err()).collect();
    for w in &wrong {
        eprintln!("{w}");
    }
    assert!(wrong.is_empty(), "{} programs are wrong", wrong.len());
    // The sample reaches what it is meant to reach.
    for kind in 0..4 {
        let reached = all.iter().flatten().filter(|r| r[kind] > 0).count();
        assert!(reached >= 5, "kind {kind}: {reached} programs");
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
