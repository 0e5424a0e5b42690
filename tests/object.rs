//! Object files linked into a C program, against the reference interpreter.

use dnet::back::cpu::compiled::Compiled;
use dnet::back::cpu::object::{Object, object};
use dnet::back::cpu::simd::Real;
use dnet::check::Program;
use dnet::check::core::NetworkInfo;
use dnet::interp::evaluate;
use dnet::ir::{Boundary, Lattice, lower};
use dnet::params::{initialise, perturb};
use num_complex::Complex64;
use std::path::{Path, PathBuf};
use std::process::Command;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

/// A program that prints log psi of the configurations in a file of bytes and the
/// log ratio of flipping sites 1 and 4 of the first one, after checking that the
/// object and its header agree.
const MAIN: &str = r#"
#include "net.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
    static int8_t spins[1 << 16];
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : 0;
    if (!file) return 2;
    size_t sites = NAME_sites(), outputs = NAME_outputs();
    size_t count = fread(spins, 1, sizeof spins, file) / sites;
    if (sites != UPPER_SITES || outputs != UPPER_OUTPUTS) return 3;
    if (NAME_workspace_bytes() != UPPER_WORKSPACE_BYTES) return 4;
    void *workspace = aligned_alloc(64, (UPPER_WORKSPACE_BYTES + 63) / 64 * 64);
    /* whatever was there must not matter */
    memset(workspace, 0x7f, UPPER_WORKSPACE_BYTES);
    double *out = malloc(count * outputs * sizeof *out);
    if (NAME_log_psi(spins, count, out, workspace)) return 5;
    for (size_t k = 0; k < count * outputs; k++) printf("%.17g\n", out[k]);
    memset(workspace, 0xff, UPPER_WORKSPACE_BYTES);
    size_t flips[2] = {1, 4};
    if (NAME_log_ratio(spins, flips, 2, out, workspace)) return 6;
    for (size_t k = 0; k < outputs; k++) printf("%.17g\n", out[k]);
    return 0;
}
"#;

/// Links an object with the program and returns the numbers it prints.
fn run(dir: &Path, made: &Object, name: &str, spins: &[i8]) -> Vec<f64> {
    let write = |file: &str, bytes: &[u8]| -> PathBuf {
        let path = dir.join(file);
        std::fs::write(&path, bytes).expect("written");
        path
    };
    let main = MAIN
        .replace("NAME", &format!("dnet_{name}"))
        .replace("UPPER", &format!("DNET_{}", name.to_uppercase()));
    let object = write("net.o", &made.bytes);
    write("net.h", made.header.as_bytes());
    let source = write("main.c", main.as_bytes());
    let bytes: Vec<u8> = spins.iter().map(|&s| s as u8).collect();
    let input = write("spins", &bytes);
    let binary = dir.join("main");
    let compiled = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Werror", "-o"])
        .args([&binary, &source, &object])
        .arg("-lm")
        .output()
        .expect("this test needs a C compiler: install gcc or clang so that `cc` runs");
    let messages = String::from_utf8_lossy(&compiled.stderr);
    assert!(compiled.status.success(), "cc refuses {name}: {messages}");
    let ran = Command::new(&binary).arg(&input).output().expect("it runs");
    assert!(ran.status.success(), "{name}: {:?}", ran.status);
    String::from_utf8(ran.stdout)
        .expect("text")
        .lines()
        .map(|l| l.parse().expect("a number"))
        .collect()
}

fn configurations(sites: usize, count: usize) -> Vec<i8> {
    let mut state = 77u64;
    let mut spin = || {
        state =
            (state.wrapping_mul(6_364_136_223_846_793_005)).wrapping_add(1_442_695_040_888_963_407);
        if state >> 63 == 0 { 1 } else { -1 }
    };
    (0..sites * count).map(|_| spin()).collect()
}

fn compare<T: Real>(info: &NetworkInfo, lattice: Lattice, tolerance: f64) {
    let (name, lowered) = (&info.name, lower(info));
    let mut params = initialise(info, &lowered, lattice, 5).expect("parameters");
    perturb(&mut params, 0.3, 6);
    let graph = &lowered.graph;
    let theta = params.flat();
    let network = Compiled::<T>::new(graph.clone(), lattice, &theta, false).expect("compiles");
    let made = object(&network, name).unwrap_or_else(|e| panic!("{name}: {e}"));
    let (sites, count) = (lattice.sites(), 3);
    let spins = configurations(sites, count);
    let dir = tempfile::tempdir().expect("a directory");
    let printed = run(dir.path(), &made, name, &spins);
    let width = graph.outputs.len();
    assert_eq!(printed.len(), (count + 1) * width, "{name}");
    let log_psi = |s: &[i8]| {
        let e = evaluate(graph, lattice, &params.tensors, s);
        e.expect("evaluates").log_psi()
    };
    let mut want: Vec<Complex64> = spins.chunks(sites).map(log_psi).collect();
    let mut flipped = spins[..sites].to_vec();
    [1, 4]
        .iter()
        .for_each(|&k: &usize| flipped[k] = -flipped[k]);
    want.push(log_psi(&flipped) - want[0]);
    for (k, (got, want)) in printed.chunks(width).zip(want).enumerate() {
        let re = (got[0] - want.re).abs();
        let turns = got
            .get(1)
            .map_or(0.0, |im| (im - want.im) / std::f64::consts::TAU);
        let im = (turns - turns.round()).abs() * std::f64::consts::TAU;
        assert!(
            re.max(im) <= tolerance * want.norm().max(1.0),
            "{name} on {lattice:?}, number {k}: {got:?} instead of {want}"
        );
    }
}

fn network(file: &str) -> NetworkInfo {
    let program = Program::load(&Path::new(EXAMPLES).join(file));
    let info = program.only_network().check();
    info.unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// S4 and stencils, complex readouts (sines and angles), power laws, momentum
/// space, error functions, dense and complex dense mixers, pooled products, phases.
#[test]
fn chains_from_c() {
    for file in [
        "dysonnet.dnet",
        "complex_readout.dnet",
        "power_law.dnet",
        "fourier.dnet",
        "cnn.dnet",
        "jastrow.dnet",
        "positional.dnet",
        "rbm.dnet",
        "rbm_complex.dnet",
        "marshall.dnet",
        "recurrent_mixers.dnet",
    ] {
        let info = network(file);
        // an odd number of tokens of two
        let ring = Lattice::chain(22, Boundary::Periodic);
        compare::<f64>(&info, ring, 1e-12);
        if file != "fourier.dnet" {
            compare::<f64>(&info, Lattice::chain(14, Boundary::Open), 1e-12);
        }
        compare::<f32>(&info, ring, 2e-5);
    }
}

#[test]
fn squares_from_c() {
    let info = network("dysonnet2d.dnet");
    for boundary in [Boundary::Periodic, Boundary::Open] {
        let extent = [4, 6];
        compare::<f64>(&info, Lattice { extent, boundary }, 1e-12);
        compare::<f32>(&info, Lattice { extent, boundary }, 2e-5);
    }
}

#[test]
fn the_same_object_twice() {
    let info = network("dysonnet.dnet");
    let (lattice, lowered) = (Lattice::chain(12, Boundary::Open), lower(&info));
    let params = initialise(&info, &lowered, lattice, 1).expect("parameters");
    let theta = params.flat();
    let network = Compiled::<f32>::new(lowered.graph, lattice, &theta, false).expect("compiles");
    let [a, b] = [(); 2].map(|()| object(&network, &info.name).expect("an object"));
    assert!(a.bytes == b.bytes, "object files differ from run to run");
    assert_eq!(a.header, b.header);
}

fn emit(args: &[&str]) -> (bool, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_dnetc"))
        .arg("emit")
        .args(args)
        .current_dir(EXAMPLES)
        .output()
        .expect("dnetc runs");
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (out.status.success(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn objects_from_the_command_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("net.o");
    let path = path.to_str().expect("a name");
    let net = ["jastrow.dnet", "--sites", "8", "--precision", "f64"];
    let with = |more: &[&str]| emit(&[&net[..], more].concat());
    let (ok, out, err) = with(&["--target", "obj"]);
    assert!(!ok && out.is_empty() && err.contains("-o net.o"), "{err}");
    let (ok, _, err) = with(&["--target", "obj", "-o", path]);
    assert!(ok, "{err}");
    assert!(std::fs::read(path).expect("an object").len() > 1000);
    let (ok, header, err) = with(&["--target", "header"]);
    assert!(ok, "{err}");
    for line in [
        "#define DNET_JASTROW_SITES 8",
        "int32_t dnet_jastrow_log_psi(const int8_t *spins, size_t count, double *out, void *workspace);",
    ] {
        assert!(header.contains(line), "{line} is missing from\n{header}");
    }
    // softmax attention is evaluated by the interpreter
    let vit = ["vit.dnet", "--sites", "8", "--target", "obj", "-o", path];
    let (ok, _, err) = emit(&vit);
    assert!(ok || err.contains("object file"), "{err}");
}

/// Every fused loop of the program has a disassembly, and it says what it uses.
#[test]
fn assembly_of_fused_loops() {
    let net = ["dysonnet.dnet", "--sites", "20"];
    let (ok, asm, err) = emit(&[&net[..], &["--target", "asm"]].concat());
    assert!(ok, "{err}");
    let (ok, clif, err) = emit(&[&net[..], &["--target", "clif"]].concat());
    assert!(ok, "{err}");
    let loops = clif.matches("function u0:").count();
    assert!(loops > 5, "{clif}");
    assert_eq!(asm.matches("block0:").count(), loops, "{asm}");
    if cfg!(target_arch = "x86_64") {
        assert!(asm.contains("addps"), "{asm}");
        let (_, double, _) = emit(&[&net[..], &["--target", "asm", "--precision", "f64"]].concat());
        assert!(
            double.contains("addpd") && !double.contains("addps"),
            "{double}"
        );
    }
}
