//! The emitted CUDA text itself: snapshots, hostile names, NVRTC.

use dnet::back::cuda::code::Source;
use dnet::back::cuda::emit::Options;
use dnet::back::cuda::network::NetworkSource;
use dnet::back::cuda::nvrtc::{Architecture, Form, Nvrtc, listing};
use dnet::check::Program;
use dnet::ir::{Boundary, Graph, Lattice, lower};
use dnet::run::network::Precision;
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::process::Command;

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
            all.push((n.name.name.clone(), lower(&info).graph));
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

#[test]
fn text_of_every_example() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("out/cuda");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for (name, graph) in examples() {
            let source = log_psi(&graph).unwrap_or_else(|| panic!("no kernel for {name}"));
            insta::assert_snapshot!(name, source.kernel.text);
        }
    });
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
    let [plain, named] = [plain, named].map(|g| log_psi(&g).expect("a kernel").kernel.text);
    assert!(
        named.contains("_x_include_etc_passwd_int_y"),
        "the names are used"
    );
    for line in named.lines() {
        let code = line.split("//").next().unwrap_or_default();
        let fine = |c: char| c.is_ascii_alphanumeric() || " _.,:;+-*=()[]{}<>%/&?!\"#".contains(c);
        assert!(line.is_ascii() && !line.contains('\\'), "{line}");
        assert!(code.chars().all(fine), "{line}");
        assert!(
            !code.contains('#') || code.trim() == "#pragma unroll",
            "{line}"
        );
        assert!(
            !code.contains('"') || code.starts_with("extern \"C\""),
            "{line}"
        );
    }
    assert_eq!(plain.lines().count(), named.lines().count(), "no line more");
}

/// NVIDIA's compiler, fetched by `scripts/fetch-nvrtc` if it is not installed.
fn nvrtc() -> Nvrtc {
    if let Some(path) = std::env::var_os("DNET_NVRTC").filter(|p| Path::new(p).is_file()) {
        return Nvrtc::open(Path::new(&path)).expect("the library DNET_NVRTC names");
    }
    let output = Command::new(root().join("scripts/fetch-nvrtc")).output();
    let output = output.expect("scripts/fetch-nvrtc runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/fetch-nvrtc: {text}");
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let file = Path::new(&folder).join("nvidia/cuda_nvrtc/lib/libnvrtc.so.12");
    Nvrtc::open(&file).expect("the library that was fetched")
}

#[test]
fn nvrtc_compiles_the_published_network_without_spills() {
    let library = nvrtc();
    let lattice = Lattice::chain(100, Boundary::Periodic);
    let graph = example("dysonnet");
    let mut jobs = Vec::new();
    for precision in [Precision::F32, Precision::F64] {
        for arch in [70, 80, 90, 100] {
            jobs.push((precision, Architecture(arch)));
        }
    }
    let lines: Vec<String> = jobs
        .par_iter()
        .map(|&(precision, arch)| {
            let options = Options::new(precision);
            let source = NetworkSource::new(&graph, lattice, &options).expect("kernels");
            let binary = library.compile(&source.text(), arch, Form::Cubin);
            let binary = binary.unwrap_or_else(|e| panic!("{arch}: {e}"));
            assert_eq!(binary.resources.len(), 3, "{arch}");
            for r in &binary.resources {
                assert_eq!(r.spills, 0, "{arch} {}: registers are spilled", r.kernel);
            }
            format!("{precision:?}\n{}", listing(arch, &binary.resources))
        })
        .collect();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("out/cuda");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("resources_dysonnet", lines.concat()));
}

#[test]
fn nvrtc_compiles_log_psi_of_every_example() {
    let library = nvrtc();
    let examples = examples();
    // one translation unit would clash in names: one each
    examples.par_iter().for_each(|(name, graph)| {
        let source = log_psi(graph).unwrap_or_else(|| panic!("no kernel for {name}"));
        let unit = dnet::back::cuda::translation_unit(
            Precision::F32,
            std::iter::once(source.kernel.text.as_str()),
        );
        let binary = library.compile(&unit, Architecture(90), Form::Cubin);
        let binary = binary.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            binary.resources[0].spills, 0,
            "{name}: registers are spilled"
        );
        assert!(binary.code.len() > 1000);
    });
    let wrong = library.compile("int x", Architecture(90), Form::Ptx);
    assert!(
        wrong
            .expect_err("no kernel")
            .to_string()
            .contains("rejected")
    );
    let old = library.compile("", Architecture(51), Form::Ptx);
    assert!(old.expect_err("no such GPU").to_string().contains("sm_90"));
}
