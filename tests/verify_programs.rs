//! Random programs of the language, as a user could have written them: updates,
//! links, environments, sweeps and windows are exact, gradients match differences.

#[path = "gen/program.rs"]
mod program;

use dnet::check::Program;
use dnet::check::core::NetworkInfo;
use dnet::check::lattice::{Sites, check};
use dnet::ir::kinds::{Dependence, Kinds};
use dnet::ir::valid::validate;
use dnet::ir::{Boundary, Graph, Lattice, lower};
use dnet::pass::abacus::support::changed;
use dnet::pass::link::LinkStrategy;
use dnet::pass::normal_form::NormalForm;
use dnet::pass::simplify::simplify;
use dnet::pipeline;
use dnet::verify::{Check, Options, cases, verify};
use rayon::prelude::*;
use std::collections::BTreeSet;

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

/// Whether a program was verified in ways the tests have to reach, by name.
type Facts = BTreeSet<String>;

/// How the slices of single flips lie on a lattice: all of it, around the cut.
fn slices(graph: &Graph, lattice: Lattice) -> Facts {
    let mut facts = Facts::new();
    let Ok(form) = NormalForm::new(graph) else {
        return facts;
    };
    let mixers = form.mixers.iter().map(|m| (&m.affine, m.source_token));
    let pools = form.pools.iter().map(|p| (&p.affine, p.token));
    for (affine, token) in mixers.chain(pools) {
        let tokens = lattice.sites() / token.volume();
        for spin in [0, lattice.sites() - 1] {
            let slice: BTreeSet<usize> = affine
                .coefficients()
                .flat_map(|c| changed(c, token, lattice, &[spin]))
                .collect();
            let around = slice.contains(&0) && slice.contains(&(tokens - 1));
            if slice.len() == tokens {
                facts.insert("a slice covers the lattice".into());
            } else if around && lattice.boundary == Boundary::Periodic {
                facts.insert("a slice wraps around".into());
            }
        }
    }
    facts
}

/// What a program is and what was verified about it; or what is wrong.
fn verified(seed: u64) -> Result<Facts, String> {
    let (text, program, info) = checked(seed);
    let options = Options { seed, samples: 1 };
    let lattices = lattices(&program, &info);
    let report = verify(&info, &lattices, &options)
        .map_err(|e| format!("seed {seed}, {lattices:?}: {e}\n{text}"))?;
    if !report.passed() {
        return Err(format!("seed {seed}, {lattices:?}\n{text}\n{report}"));
    }
    let mut facts = Facts::new();
    let checks = [
        ("updates", Check::Update(None)),
        ("environments", Check::Environment),
        ("sweeps", Check::Sweep),
        ("phases", Check::GradientIm),
        ("fft links", Check::Update(Some(LinkStrategy::Fft))),
        ("product links", Check::Update(Some(LinkStrategy::Product))),
        ("dense links", Check::Update(Some(LinkStrategy::Dense))),
    ];
    for (name, check) in checks {
        if report.row(check).is_some_and(|r| r.comparisons > 0) {
            facts.insert(name.into());
        }
    }
    if !facts.contains("updates") {
        return Ok(facts);
    }
    let graph = pipeline::amplitude(&pipeline::graph(&info));
    let generated = program::program(seed);
    let token = generated.token[0] * generated.token[1];
    facts.insert(format!("tokens of {token} spins"));
    for lattice in lattices {
        facts.extend(slices(&graph, lattice));
        let parity = ["even", "odd"][lattice.sites() / token % 2];
        let kind = if generated.square {
            "squares"
        } else if lattice.boundary == Boundary::Periodic {
            "rings"
        } else {
            "open chains"
        };
        facts.insert(format!("{parity} {kind}"));
    }
    for depth in 1..=6 {
        if text.contains(&format!("// {depth} layers")) {
            facts.insert(format!("depth {depth}"));
        }
        // The width is the last argument of every convolution.
        let width = |call: &str| call.split(')').next()?.rsplit(", ").next()?.parse().ok();
        let mut calls = ["dwconv(", "conv("]
            .iter()
            .flat_map(|f| text.split(f).skip(1));
        if calls.any(|call| width(call) == Some(depth)) {
            facts.insert(format!("kernels of {depth}"));
        }
    }
    for (name, part) in [
        ("residual paths", "h += "),
        ("no residual path", "h = "),
        ("skips over layers", "0.5 * h_"),
        ("mixers of sums", "(actnorm(h) + c_"),
        ("shared weights", "shared {"),
        ("matrix vertices", "[dim, dim]) @ "),
        ("stencils of linear values", "stencil_at(m_"),
        ("complex readouts", "complex_log_cosh_head("),
    ] {
        if text.contains(part) {
            facts.insert(name.into());
        }
    }
    Ok(facts)
}

/// ABACUS, environments and gradients agree with full evaluation, and the sample
/// reaches everything it is meant to reach. Clusters are single flips, pairs,
/// disjoint groups and all spins ([`cases::clusters`]).
#[test]
fn random_programs_verify() {
    let all: Vec<_> = (0..PROGRAMS).into_par_iter().map(verified).collect();
    let wrong: Vec<&String> = all.iter().filter_map(|r| r.as_ref().err()).collect();
    for w in &wrong {
        eprintln!("{w}");
    }
    assert!(wrong.is_empty(), "{} programs are wrong", wrong.len());
    let numbered = (1..=6).flat_map(|n| [format!("depth {n}"), format!("kernels of {n}")]);
    let tokens = (1..=4).map(|n| format!("tokens of {n} spins"));
    let named = [
        "updates",
        "environments",
        "sweeps",
        "phases",
        "fft links",
        "product links",
        "dense links",
        "odd rings",
        "even rings",
        "odd open chains",
        "even open chains",
        "odd squares",
        "even squares",
        "a slice covers the lattice",
        "a slice wraps around",
        "residual paths",
        "no residual path",
        "skips over layers",
        "mixers of sums",
        "shared weights",
        "matrix vertices",
        "stencils of linear values",
        "complex readouts",
    ];
    for fact in numbered.chain(tokens).chain(named.map(String::from)) {
        let reached = all.iter().flatten().filter(|f| f.contains(&fact)).count();
        assert!(reached >= 3, "{fact}: {reached} programs");
    }
}

/// Nodes that depend on the configuration.
fn dynamic(graph: &Graph) -> usize {
    let kinds = Kinds::new(graph);
    let moving = |id| kinds.get(id) != Dependence::Const;
    graph.ids().filter(|&id| moving(id)).count()
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
        // Composed coefficients are new constants; what is left to do per configuration
        // never grows.
        assert!(dynamic(&graph) <= dynamic(&lowered.graph));
        assert_eq!(graph.params, lowered.graph.params);
        let gradients = pipeline::gradients(&graph).unwrap_or_else(|e| panic!("{}", fault(&e)));
        validate(&gradients.graph).unwrap_or_else(|e| panic!("{}", fault(&e)));
        assert_eq!(simplify(&graph, &[]).graph.len(), graph.len());
    }
}
