//! The emitted CUDA text itself: snapshots, hostile names, NVRTC.
//!
//! `DNET_CUDA_ALL=1` compiles everything for every architecture (minutes),
//! `DNET_SKIP_NVRTC=1` leaves out what needs NVIDIA's compiler.

#[path = "gen/nvrtc.rs"]
mod compiler;

use compiler::nvrtc;
use dnet::back::cuda::code::Source;
use dnet::back::cuda::emit::{Kernel, Options};
use dnet::back::cuda::linear;
use dnet::back::cuda::network::NetworkSource;
use dnet::back::cuda::nvrtc::{Architecture, Form, Nvrtc};
use dnet::back::cuda::translation_unit;
use dnet::back::cuda::units::{SWEEP, UNITS, Unit, listing, sweep, unit_of, units};
use dnet::check::Program;
use dnet::ir::{Boundary, Graph, Lattice};
use dnet::params::Params;
use dnet::pipeline;
use dnet::rng::{ChainRng, Stream};
use dnet::run::network::Precision;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every network of every example as a graph, with the file's name.
fn examples() -> Vec<(String, Graph)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("examples"))
        .expect("the examples")
        .map(|f| f.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "dnet"))
        .collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let program = Program::load(&file);
        for n in program.networks() {
            let info = program.network(&n.name.name).check();
            let info = info.unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            all.push((
                n.name.name.clone(),
                pipeline::amplitude(&pipeline::graph(&info)),
            ));
        }
    }
    all
}

fn example(name: &str) -> Graph {
    let all = examples();
    all.into_iter()
        .find(|e| e.0 == name)
        .expect("the example")
        .1
}

/// The kernel of log psi on the smallest ring of 20 spins or torus of 4 x 4.
fn log_psi(graph: &Graph) -> Option<Source> {
    let square = Lattice {
        extent: [4, 4],
        boundary: Boundary::Periodic,
    };
    let options = Options::new(Precision::F32);
    [Lattice::chain(20, Boundary::Periodic), square]
        .into_iter()
        .find_map(|l| Source::new("log_psi", graph.clone(), l, &[], &[], &options).ok())
}

/// Compares a text with tests/out/cuda.
fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("out/cuda");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn text_of_every_example() {
    for (name, graph) in examples() {
        let source = log_psi(&graph).unwrap_or_else(|| panic!("no kernel for {name}"));
        snapshot(&name, &source.kernel.text);
    }
}

#[test]
fn names_of_a_file_cannot_inject_code() {
    let hostile = [
        "x */ }\n#include \"/etc/passwd\"\nint y; /*",
        "back\\\nslash // \r\u{2028}",
        "\"quotes\" ' ` ; } { $(rm) %s ??/",
    ];
    let plain = example("dysonnet");
    let mut named = plain.clone();
    for (k, id) in plain.ids().enumerate() {
        // the first name given stays: give it to nodes that have none
        named.set_name(id, hostile[k % hostile.len()]);
    }
    let lattice = Lattice::chain(26, Boundary::Periodic);
    let options = Options::new(Precision::F32);
    let count = Params::zeros(&plain, lattice).expect("exists here").count();
    let mut rng = ChainRng::new(7, 0, 0, Stream::Parameters);
    let theta: Vec<f64> = (0..count).map(|_| rng.uniform() - 0.5).collect();
    let [plain, named] = [plain, named].map(|g| {
        let (mut units, missing) = units(&g, lattice, &options, None).expect("kernels");
        assert!(missing.is_none(), "a flip program");
        units.extend(sweep(&g, lattice, &theta, &options).expect("environments"));
        units
    });
    assert_eq!(
        plain.len(),
        UNITS.len() + 1 + SWEEP.len(),
        "every kernel there is"
    );
    let mangled = ["_x_include_etc_passwd_int_y", "_back_slash", "_quotes_rm_s"];
    for (plain, named) in plain.iter().zip(&named) {
        // those written by hand have no text of their own
        if plain.text.is_empty() {
            assert_eq!(named.text, "");
            continue;
        }
        assert!(
            plain.text == named.text || mangled.iter().any(|n| named.text.contains(n)),
            "{}: the names are used, or there are none",
            plain.name
        );
        for line in named.text.lines() {
            let code = line.split("//").next().unwrap_or_default();
            let fine =
                |c: char| c.is_ascii_alphanumeric() || " _.,:;+-*=~()[]{}<>%/&?!\"#".contains(c);
            assert!(line.is_ascii() && !line.contains('\\'), "{line}");
            assert!(code.chars().all(fine), "{line}");
            assert!(
                !code.contains('#')
                    || code.trim().trim_end_matches([' ', '1', '2', '4']) == "#pragma unroll",
                "{line}"
            );
            assert!(
                !code.contains('"') || code.starts_with("extern \"C\""),
                "{line}"
            );
        }
        let lines = |u: &Unit| u.text.lines().count();
        assert_eq!(lines(plain), lines(named), "{}: no line more", plain.name);
    }
    assert!(named[0].text.contains("_x_include_etc_passwd_int_y"));
}

#[test]
fn units_are_found_by_the_names_of_their_kernels() {
    for (name, unit) in [
        ("log_psi", "log_psi"),
        ("flip_features", "flips"),
        ("sum_ratios", "sums"),
        ("cholesky_solve", "linear"),
        ("linear", "linear"),
        ("sweep", "sweep"),
    ] {
        assert_eq!(unit_of(name), Some(unit));
    }
    assert_eq!(unit_of("nothing"), None);
    // a listing has every library once; units for themselves have them all
    let lattice = Lattice::chain(26, Boundary::Periodic);
    let options = Options::new(Precision::F32);
    let (all, _) = units(&example("dysonnet"), lattice, &options, None).expect("kernels");
    let text = listing(&all);
    assert_eq!(text.matches("Device library of dnet").count(), 1);
    assert_eq!(text.matches("struct Chain {").count(), 1);
    for kernel in all.iter().flat_map(|u| &u.kernels) {
        let head = format!("{}(", kernel.name);
        assert!(
            text.split_whitespace().any(|word| word.starts_with(&head)),
            "{head}"
        );
    }
    let unit = all.iter().find(|u| u.name == "typewriter").expect("a unit");
    let text = unit.translation_unit();
    assert!(text.contains("struct Chain {") && text.contains("Device library of dnet"));
}

#[test]
fn equal_steps_are_one_function() {
    // what a kernel costs to compile is how long its functions are
    let lattice = Lattice::chain(100, Boundary::Periodic);
    let options = Options::new(Precision::F32);
    for (name, most) in [("flip_changes", 80), ("typewriter", 85)] {
        let made = units(&example("dysonnet"), lattice, &options, Some(name));
        let (made, _) = made.expect("a kernel");
        let text = &made[0].text;
        let functions = text.matches("__noinline__ void phase_").count();
        let rows = text.split("const int steps[] = {\n").nth(1).expect("steps");
        let rows = rows.lines().take_while(|l| !l.contains("END")).count();
        assert!(rows > 5 * functions, "{name}: {functions} functions");
        // what calls them has each of them once
        let calls = text
            .lines()
            .filter(|l| l.trim_start().starts_with("phase_"));
        assert_eq!(calls.count(), functions, "{name}");
        assert!(functions <= most, "{name}: {functions} functions");
    }
}

#[test]
fn text_of_the_typewriter() {
    let lattice = Lattice::chain(26, Boundary::Periodic);
    let options = Options::new(Precision::F32);
    let made = units(&example("cnn"), lattice, &options, Some("typewriter"));
    let (made, _) = made.expect("a kernel");
    snapshot("typewriter", &made[0].text);
}

/// The calls of a large kernel; functions look as in other texts.
#[test]
fn text_of_a_table_of_calls() {
    let lattice = Lattice::chain(20, Boundary::Periodic);
    let options = Options::new(Precision::F32);
    let made = units(&example("graph"), lattice, &options, Some("flip_changes"));
    let (made, _) = made.expect("a kernel");
    let (_, table) = (made[0].text)
        .split_once("// What is done for a sample")
        .expect("a table");
    snapshot("table_of_calls", table);
}

/// Whether to compile everything for every architecture.
fn everything() -> bool {
    std::env::var_os("DNET_CUDA_ALL").is_some_and(|v| v != "0")
}

/// A translation unit to compile: log psi alone, or with its derivatives.
struct Job {
    network: &'static str,
    precision: Precision,
    architecture: u32,
    derivatives: bool,
}

impl Job {
    /// What each of its kernels takes on a ring of 100 spins, one line each.
    fn run(&self, library: &Nvrtc) -> Vec<String> {
        let options = Options::new(self.precision);
        let lattice = Lattice::chain(100, Boundary::Periodic);
        let graph = example(self.network);
        let kernels = if self.derivatives {
            let source = NetworkSource::new(&graph, lattice, &options).expect("kernels");
            source.sources().map(|s| s.kernel.clone()).to_vec()
        } else {
            let source = Source::new("log_psi", graph, lattice, &[], &[], &options);
            vec![source.expect("a kernel").kernel]
        };
        let architecture = Architecture(self.architecture);
        let line = |k: &Kernel| {
            // as on a GPU: each kernel is a translation unit
            let text = translation_unit(self.precision, std::iter::once(k.text.as_str()));
            let binary = library.compile(&text, architecture, Form::Cubin);
            let binary = binary.unwrap_or_else(|e| panic!("{} {architecture}: {e}", self.label()));
            assert!(binary.code.len() > 1000);
            let r = binary.resources.iter().find(|r| r.kernel == k.name);
            let r = r.unwrap_or_else(|| panic!("no remarks on {}", k.name));
            // what the others spill is in the snapshot; on sm_70, and with other
            // compilers than the one that is fetched, calls of phases save a register
            // or two, once per sample
            let saved = if library.version() == (12, 9) { 0 } else { 32 };
            assert!(
                k.name != "log_psi" || self.architecture < 80 || r.spills <= saved,
                "{} {architecture}: {} bytes of registers are spilled",
                self.label(),
                r.spills
            );
            assert_eq!(r.shared, 0, "all shared memory is asked for at launch");
            format!(
                "{:<12} {:<19} {architecture:<6} {:>3} threads, {:>3} registers, {} bytes spilled, {:>5} bytes of shared memory\n",
                self.label(),
                k.name,
                k.threads,
                r.registers,
                r.spills,
                k.shared
            )
        };
        kernels.iter().map(line).collect()
    }

    fn label(&self) -> String {
        format!("{} {:?}", self.network, self.precision)
    }
}

#[test]
fn nvrtc_compiles_for_every_architecture() {
    let Some(library) = nvrtc() else { return };
    let mut jobs = Vec::new();
    // the slowest first
    for derivatives in [true, false] {
        for network in ["dysonnet", "rbm"] {
            for precision in [Precision::F32, Precision::F64] {
                for architecture in [70, 80, 90, 100] {
                    // those of CUDA 13 begin with sm_75
                    if !library
                        .architectures()
                        .contains(&Architecture(architecture))
                    {
                        continue;
                    }
                    let usual = (network, precision, architecture)
                        == ("dysonnet", Precision::F32, 90)
                        || network == "rbm" && architecture == 90;
                    if !derivatives || usual || everything() {
                        jobs.push(Job {
                            network,
                            precision,
                            architecture,
                            derivatives,
                        });
                    }
                }
            }
        }
    }
    let lines: Vec<Vec<String>> = jobs.par_iter().map(|job| job.run(&library)).collect();
    let mut lines = lines.concat();
    lines.sort();
    lines.dedup();
    // registers differ from compiler to compiler
    if library.version() == (12, 9) && !everything() {
        snapshot("resources", &lines.concat());
    }
}

#[test]
fn nvrtc_compiles_the_linear_algebra_without_spills() {
    let Some(library) = nvrtc() else { return };
    let text = translation_unit(Precision::F64, std::iter::once(linear::KERNELS));
    let known = library.architectures();
    let architectures = [70, 80, 90, 100].map(Architecture);
    architectures.par_iter().for_each(|&a| {
        if !known.contains(&a) {
            return;
        }
        let binary = library.compile(&text, a, Form::Cubin);
        let binary = binary.unwrap_or_else(|e| panic!("{a}: {e}"));
        assert_eq!(binary.resources.len(), text.matches("__global__").count());
        for r in &binary.resources {
            assert_eq!(r.spills, 0, "{} spills on {a}", r.kernel);
        }
    });
}

#[test]
fn nvrtc_compiles_log_psi_of_examples() {
    let Some(library) = nvrtc() else { return };
    let some = [
        "dysonnet_complex",
        "dysonnet2d",
        "positional",
        "cnn",
        "jastrow",
    ];
    let mut examples = examples();
    examples.retain(|(name, _)| everything() || some.contains(&name.as_str()));
    assert!(examples.len() >= some.len());
    // one translation unit would clash in names: one each
    examples.par_iter().for_each(|(name, graph)| {
        let source = log_psi(graph).unwrap_or_else(|| panic!("no kernel for {name}"));
        let unit = translation_unit(Precision::F32, std::iter::once(source.kernel.text.as_str()));
        let binary = library.compile(&unit, Architecture(90), Form::Cubin);
        let binary = binary.unwrap_or_else(|e| panic!("{name}: {e}"));
        let r = &binary.resources[0];
        assert_eq!(r.spills, 0, "{name}: registers are spilled");
        assert!(binary.code.len() > 1000);
    });
}

#[test]
fn nvrtc_compiles_samplers_and_estimators() {
    let Some(library) = nvrtc() else { return };
    let options = Options::new(Precision::F32);
    let lattice = Lattice::chain(100, Boundary::Periodic);
    let unit = |network: &str, name: &str| {
        let made = units(&example(network), lattice, &options, Some(name));
        made.expect("kernels").0.swap_remove(0)
    };
    let chains = unit("rbm", "chains");
    let flips = unit("dysonnet", "flips");
    let sums = unit("vit", "sums");
    let mut jobs = Vec::new();
    for architecture in [70, 80, 90, 100] {
        jobs.push((chains.clone(), architecture));
        jobs.push((sums.clone(), architecture));
        for precision in [Precision::F32, Precision::F64] {
            let flips = Unit {
                precision,
                ..flips.clone()
            };
            jobs.push((flips, architecture));
        }
    }
    jobs.par_iter().for_each(|(unit, architecture)| {
        let architecture = Architecture(*architecture);
        let binary = library.compile(&unit.translation_unit(), architecture, Form::Cubin);
        let binary = binary.unwrap_or_else(|e| panic!("{architecture}: {e}"));
        assert_eq!(binary.resources.len(), unit.kernels.len(), "{architecture}");
        for r in &binary.resources {
            // other compilers than the one that is fetched may save a few registers
            // of the loop over proposals around calls, once per proposal
            let by_hand = r.kernel.starts_with("flip_") || unit.name == "sums";
            let most = match library.version() {
                (12, 9) => 0,
                _ if by_hand => 0,
                _ => 128,
            };
            let (name, spills) = (&r.kernel, r.spills);
            assert!(
                spills <= most,
                "{name} {architecture}: {spills} bytes spilled"
            );
        }
    });
}

#[test]
fn nvrtc_compiles_flip_programs_without_spills() {
    let Some(library) = nvrtc() else { return };
    let lattice = Lattice::chain(100, Boundary::Periodic);
    let some = ["cnn", "jastrow", "dysonnet"];
    let mut jobs = Vec::new();
    for (network, graph) in examples() {
        if !everything() && !some.contains(&network.as_str()) {
            continue;
        }
        for precision in [Precision::F32, Precision::F64] {
            let options = Options::new(precision);
            // those without a flip program, or not on a chain
            let Ok((mut made, None)) = units(&graph, lattice, &options, None) else {
                continue;
            };
            made.retain(|u| ["typewriter", "flip_changes", "flip_readout"].contains(&u.name));
            for (unit, architecture) in made.iter().flat_map(|u| [70, 80, 90, 100].map(|a| (u, a)))
            {
                // the large one where it was worst
                let usual = match network.as_str() {
                    "dysonnet" => [(Precision::F32, 90), (Precision::F64, 80)]
                        .contains(&(precision, architecture)),
                    _ => unit.name == "typewriter",
                };
                let known = library
                    .architectures()
                    .contains(&Architecture(architecture));
                if known && (usual || everything()) {
                    jobs.push((network.clone(), unit.clone(), Architecture(architecture)));
                }
            }
        }
    }
    assert!(jobs.len() >= 18);
    jobs.par_iter().for_each(|(network, unit, architecture)| {
        let what = format!(
            "{network} {} {:?} {architecture}",
            unit.name, unit.precision
        );
        let binary = library.compile(&unit.translation_unit(), *architecture, Form::Cubin);
        let binary = binary.unwrap_or_else(|e| panic!("{what}: {e}"));
        // as for other samplers, with compilers than the one that is fetched
        let most = if library.version() == (12, 9) { 0 } else { 128 };
        for r in &binary.resources {
            assert!(r.spills <= most, "{what}: {} bytes spilled", r.spills);
            assert!(
                most > 0 || r.functions.is_empty(),
                "{what}: {:?}",
                r.functions
            );
        }
    });
}

#[test]
fn what_nvrtc_refuses_is_said() {
    let Some(library) = nvrtc() else { return };
    let wrong = library.compile("int x", Architecture(90), Form::Ptx);
    let text = wrong.expect_err("no semicolon").to_string();
    assert!(
        text.contains("rejected") && text.contains("dnet.cu(1)"),
        "{text}"
    );
    let old = library.compile("", Architecture(51), Form::Ptx);
    let text = old.expect_err("no such GPU").to_string();
    assert!(
        text.contains("sm_90") && text.contains("not for sm_51"),
        "{text}"
    );
    let none = Nvrtc::open(Path::new("/no/such/libnvrtc.so.12"));
    let text = none.err().expect("no such file").to_string();
    assert!(text.contains("/no/such/libnvrtc.so.12"), "{text}");
}
