//! Random valid programs: they check, the formatter keeps their meaning, and
//! their windows are those of a brute-force probe that flips every spin.

#[path = "gen/program.rs"]
mod program;

use dnet::check::Program;
use dnet::check::core::{Kind, NetworkInfo, Place, Window};
use dnet::diag::Severity;
use dnet::interp::{Tensor, TokenLattice, evaluate};
use dnet::ir::{Boundary, Lattice, lower};
use dnet::params::{initialise, perturb};
use dnet::syntax::ast::LatticeKind;
use dnet::syntax::format::format;
use program::Options;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;

/// Checks a text and its only network; the failure report shows both.
fn checked(text: &str) -> NetworkInfo {
    let loaded = Program::parse("generated.dnet", text);
    let errors: Vec<_> = loaded
        .check()
        .into_iter()
        .filter(|d| d.severity() == Severity::Error || !d.code.as_str().starts_with("W06"))
        .collect();
    let shown = dnet::diag::render::human(loaded.sources(), &errors, false);
    assert!(errors.is_empty(), "{text}\n{shown}");
    loaded
        .only_network()
        .check()
        .unwrap_or_else(|e| panic!("{text}\n{e}"))
}

/// All of an elaborated program but where it was written.
fn meaning(info: &NetworkInfo) -> String {
    let values: Vec<_> = info
        .values
        .iter()
        .map(|v| (&v.op, &v.args, &v.ty, &v.kind, &v.name, &v.mixer))
        .collect();
    let params: Vec<_> = info
        .params
        .iter()
        .map(|p| (&p.path, &p.ty, &p.init))
        .collect();
    format!("{values:?}\n{params:?}\n{:?}", info.log_psi)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn programs_check_and_the_formatter_keeps_their_meaning(seed: u64) {
        let text = program::program(seed).text;
        let info = checked(&text);
        let once = format(&text).expect("it parses");
        prop_assert_eq!(&format(&once).expect("it parses"), &once);
        prop_assert_eq!(meaning(&checked(&once)), meaning(&info));
    }
}

/// Every construct the generator knows turns up within a few hundred seeds.
#[test]
fn programs_are_various() {
    let all: Vec<program::Program> = (0..400).map(program::program).collect();
    let text: String = all.iter().map(|p| p.text.as_str()).collect();
    for wanted in [
        "s4(",
        "s4d(",
        "lru(",
        "exponential(",
        "power_law(",
        "power_law2d(",
        "fourier(",
        "toeplitz(",
        "all_pairs(",
        "positional_attention(",
        "translate(",
        "stencil(",
        "stencil2d(",
        "laplacian(",
        "from_the_right(h",
        "stencil_at(m_",
        "dwconv(m_",
        "repeat 2 {",
        "repeat 2 shared",
        "0.5 * h_0",
        "0.5 * h_3",
        "[dim, dim]) @",
        "marshall_phase(",
        "marshall_phase2d(",
        "local_phase(",
        "complex_log_cosh_head(",
        "complex_dense(",
        "layernorm(",
        "actnorm(h) + c_",
        "// 1 layers",
        "// 6 layers",
        "patch(spins, 1)",
        "patch(spins, 4)",
        "patch(spins, (2, 1))",
    ] {
        assert!(text.contains(wanted), "no {wanted} in 400 programs");
    }
    let open = all.iter().filter(|p| p.open_possible).count();
    assert!((100..400).contains(&open));
}

/// Values of the local kind, as (index, token, window, nodes).
fn local_values(info: &NetworkInfo) -> Vec<(usize, dnet::check::core::Token, Window)> {
    info.values
        .iter()
        .enumerate()
        .filter_map(|(k, v)| match (v.kind, v.ty.place) {
            (Kind::Local(window), Place::Site(token)) => Some((k, token, window)),
            _ => None,
        })
        .collect()
}

/// The smallest lattice whose every token sees its whole window and something
/// beyond it; `None` above `limit` spins.
fn roomy_lattice(info: &NetworkInfo, boundary: Boundary, limit: usize) -> Option<Lattice> {
    let locals = local_values(info);
    let mut extent = [1; 2];
    let axes = if info.lattice == LatticeKind::Chain {
        1
    } else {
        2
    };
    for (axis, extent) in extent.iter_mut().enumerate().take(axes) {
        // Also wide enough, if open, for windows that lie beside their token.
        let reach = |(_, _, w): &(usize, _, Window)| w.hi[axis].max(0) - w.lo[axis].min(0) + 1;
        let widest = locals.iter().map(reach).max().unwrap_or(1) as usize;
        let step = locals
            .iter()
            .map(|(_, t, _)| t.0[axis])
            .fold(1, |a, b| if a % b == 0 { a } else { a * b });
        *extent = (widest + 2).div_ceil(step).max(2) * step;
    }
    (extent[0] * extent[1] <= limit).then_some(Lattice { extent, boundary })
}

/// Flips every spin of a few configurations and compares all local values with
/// what their windows allow: nothing changes outside, and both ends are reached.
/// Returns the number of values compared.
fn probe(info: &NetworkInfo, lattice: Lattice, seed: u64, context: &str) -> usize {
    let lowered = lower(info);
    let mut params = initialise(info, &lowered, lattice, seed).expect("initial values");
    perturb(&mut params, 0.4, seed);
    let locals = local_values(info);
    let mut reached = vec![[BTreeSet::new(), BTreeSet::new()]; locals.len()];
    let mut random = dnet::interp::arbitrary::Random::new(seed);
    let mut spins = random.spins(lattice.sites());
    let run = |spins: &[i8]| {
        evaluate(&lowered.graph, lattice, &params.tensors, spins)
            .unwrap_or_else(|e| panic!("{context}\n{e}"))
    };
    let periodic = lattice.boundary == Boundary::Periodic;
    for spin in 0..lattice.sites() {
        let before = run(&spins);
        spins[spin] = -spins[spin];
        let after = run(&spins);
        let at = [spin / lattice.extent[1], spin % lattice.extent[1]];
        for ((index, token, window), reached) in locals.iter().zip(&mut reached) {
            let parts = lowered.parts[*index];
            let tokens = TokenLattice::new(lattice, *token).expect("tokens tile");
            for site in 0..tokens.count() {
                let changed = [Some(parts.re), parts.im]
                    .into_iter()
                    .flatten()
                    .any(|n| differs(before.value(n), after.value(n), site, tokens.count()));
                if !changed {
                    continue;
                }
                let first = tokens.coordinates(site);
                for axis in 0..2 {
                    let n = lattice.extent[axis] as i64;
                    let mut offset = at[axis] as i64 - (first[axis] * token.0[axis]) as i64;
                    if periodic {
                        offset = window.lo[axis] + (offset - window.lo[axis]).rem_euclid(n);
                    }
                    assert!(
                        (window.lo[axis]..=window.hi[axis]).contains(&offset),
                        "{context}\n{:?} claims {window:?}, sees {offset} along axis {axis}",
                        info.values[*index]
                    );
                    reached[axis].insert(offset);
                }
            }
        }
    }
    for ((index, _, window), reached) in locals.iter().zip(&reached) {
        for (axis, seen) in reached.iter().enumerate() {
            let ends = [window.lo[axis], window.hi[axis]];
            assert!(
                ends.iter().all(|e| seen.contains(e)),
                "{context}\n{:?} claims {window:?}, sees only {seen:?} along axis {axis}",
                info.values[*index]
            );
        }
    }
    locals.len()
}

/// Whether any component of a value differs on a site.
fn differs(a: &Tensor, b: &Tensor, site: usize, sites: usize) -> bool {
    let width = a.data.len() / sites;
    let range = site * width..(site + 1) * width;
    a.data[range.clone()] != b.data[range]
}

#[test]
fn windows_are_what_flips_show() {
    let options = Options {
        max_depth: 3,
        ..Options::default()
    };
    let (mut compared, mut squares, mut opens) = (0, 0, 0);
    for seed in 0..120 {
        let p = program::with_options(seed, options);
        let info = checked(&p.text);
        let boundary = if p.open_possible && seed % 3 == 0 {
            Boundary::Open
        } else {
            Boundary::Periodic
        };
        let Some(lattice) = roomy_lattice(&info, boundary, 72) else {
            continue;
        };
        compared += probe(&info, lattice, seed, &p.text);
        squares += usize::from(p.square);
        opens += usize::from(boundary == Boundary::Open);
    }
    assert!(
        compared > 800 && squares >= 5 && opens >= 10,
        "{compared} {squares} {opens}"
    );
}

#[test]
fn windows_of_the_examples_are_what_flips_show() {
    let mut compared = 0;
    for entry in std::fs::read_dir("examples").expect("examples") {
        let path = entry.expect("an entry").path();
        let loaded = Program::load(&path);
        for network in loaded.networks() {
            let name = network.name.name.clone();
            let mut request = loaded.network(&name);
            for p in &network.params {
                // Small networks tell as much.
                match p.name.name.as_str() {
                    "dim" => request = request.with("dim", 4),
                    "states" | "terms" => request = request.with(&p.name.name, 2),
                    "depth" => request = request.with("depth", 2),
                    _ => {}
                }
            }
            let Ok(info) = request.check() else { continue };
            let Some(lattice) = roomy_lattice(&info, Boundary::Periodic, 100) else {
                continue;
            };
            if info.full {
                continue;
            }
            compared += 1;
            probe(&info, lattice, 7, &format!("{} {name}", path.display()));
        }
    }
    assert!(compared >= 14, "only {compared} networks");
}

/// Support (in tokens) of every local value of the published network that is
/// named `phi` or `c`, in order of computation.
fn supports(depth: i64, kernel: i64, token: i64) -> Vec<i64> {
    let loaded = Program::load(Path::new("examples/dysonnet.dnet"));
    let info = loaded
        .network("dysonnet")
        .with("depth", depth)
        .with("kernel", kernel)
        .with("token", token)
        .check()
        .expect("a valid network");
    let mut all: Vec<i64> = local_values(&info)
        .iter()
        .map(|(_, token, window)| {
            let (lo, hi) = window.support(*token, 0, 0);
            hi - lo + 1
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn supports_of_the_published_network() {
    assert_eq!(supports(2, 4, 2), [1, 4, 7]);
    assert_eq!(supports(4, 4, 2), [1, 4, 7, 10, 13], "one kernel per block");
    assert_eq!(supports(2, 3, 2), [1, 3, 5], "kernel - 1 per block");
    assert_eq!(supports(2, 1, 2), [1]);
    for token in [1, 3, 4] {
        assert_eq!(supports(2, 4, token), [1, 4, 7], "counted in tokens");
    }
}
