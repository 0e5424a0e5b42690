//! Object files linked into a C program, against the reference interpreter.

use dnet::back::cpu::object::{Object, object};
use dnet::back::cpu::simd::Real;
use dnet::check::Program;
use dnet::check::core::NetworkInfo;
use dnet::interp::evaluate;
use dnet::ir::{Boundary, Lattice, lower};
use dnet::params::{Params, initialise, perturb};
use dnet::pipeline;
use dnet::run::WaveFunction;
use dnet::run::reference::Reference;
use num_complex::Complex64;
use std::path::Path;
use std::process::Command;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

/// A program that uses every function of an object: reads configurations and a block
/// of other parameters, checks the sizes and the errors, and prints log psi and
/// gradients of all configurations; then, of the first one, the background's log psi,
/// the ratio of every single flip and of flipping sites 1 and 4; and for the other
/// parameters log psi and the ratio of flipping site 2.
const MAIN: &str = r#"
#include "net.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static void show(const double *x, size_t n) {
    for (size_t k = 0; k < n; k++) printf("%.17g\n", x[k]);
}
static void *memory(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    /* whatever was there must not matter, and nothing is written behind the end */
    memset(p, 0x7f, bytes + 64);
    return p;
}
static void guard(const void *p, size_t bytes) {
    for (size_t k = 0; k < 64; k++) if (((const char *)p)[bytes + k] != 0x7f) exit(20);
}
int main(int argc, char **argv) {
    static int8_t spins[1 << 16];
    FILE *file = argc > 2 ? fopen(argv[1], "rb") : 0;
    if (!file) return 2;
    size_t sites = NAME_sites(), outputs = NAME_outputs(), params = NAME_param_count();
    size_t count = fread(spins, 1, sizeof spins, file) / sites;
    if (sites != UPPER_SITES || outputs != UPPER_OUTPUTS) return 3;
    if (NAME_workspace_bytes() != UPPER_WORKSPACE_BYTES) return 4;
    if (NAME_background_bytes() != UPPER_BACKGROUND_BYTES) return 5;
    if (NAME_block_bytes() != UPPER_BLOCK_BYTES || NAME_abi() != UPPER_ABI) return 6;
    void *block = memory(UPPER_BLOCK_BYTES);
    FILE *other = fopen(argv[2], "rb");
    if (!other || fread(block, 1, UPPER_BLOCK_BYTES + 1, other) != UPPER_BLOCK_BYTES) return 7;
    void *workspace = memory(UPPER_WORKSPACE_BYTES);
    double *out = malloc(count * outputs * sizeof *out);
    if (NAME_log_psi(spins, count, NULL, out, workspace)) return 8;
    show(out, count * outputs);
    guard(workspace, UPPER_WORKSPACE_BYTES);
    memset(workspace, 0xff, UPPER_WORKSPACE_BYTES);
    double *re = malloc(count * params * sizeof *re), *im = malloc(count * params * sizeof *im);
    if (NAME_gradient(spins, count, NULL, re, outputs > 1 ? im : NULL, workspace)) return 9;
    for (size_t k = 0; k < count; k++) {
        show(re + k * params, params);
        if (outputs > 1) show(im + k * params, params);
    }
    guard(workspace, UPPER_WORKSPACE_BYTES);
    void *background = memory(UPPER_BACKGROUND_BYTES);
    if (NAME_background(spins, NULL, out, background)) return 10;
    show(out, outputs);
    for (size_t k = 0; k < sites; k++) {
        if (NAME_log_ratio(&k, 1, out, background)) return 11;
        show(out, outputs);
    }
    size_t flips[3] = {1, 4, 1}, beyond = sites;
    if (NAME_log_ratio(flips, 2, out, background)) return 12;
    show(out, outputs);
    if (NAME_log_ratio(flips, 3, out, background) != UPPER_WRONG_SITE) return 13;
    if (NAME_log_ratio(&beyond, 1, out, background) != UPPER_WRONG_SITE) return 14;
    guard(background, UPPER_BACKGROUND_BYTES);
    if (NAME_log_psi(spins, 1, block, out, workspace)) return 15;
    show(out, outputs);
    flips[0] = 2;
    if (NAME_background(spins, block, out, background)) return 16;
    if (NAME_log_ratio(flips, 1, out, background)) return 17;
    show(out, outputs);
    ((char *)block)[0] ^= 1;
    if (NAME_log_psi(spins, 1, block, out, workspace) != UPPER_WRONG_BLOCK) return 18;
    if (NAME_background(spins, block, out, background) != UPPER_WRONG_BLOCK) return 19;
    return 0;
}
"#;

/// Writes files, compiles `main.c` among them with the object and runs it in the
/// directory.
fn link(dir: &Path, files: &[(&str, &[u8])], arguments: &[&str]) -> String {
    for (name, bytes) in files {
        std::fs::write(dir.join(name), bytes).expect("written");
    }
    let compiled = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Werror", "-o", "main"])
        .args(["main.c", "net.o", "-lm"])
        .current_dir(dir)
        .output()
        .expect("this test needs a C compiler: install gcc or clang so that `cc` runs");
    let messages = String::from_utf8_lossy(&compiled.stderr);
    assert!(compiled.status.success(), "cc refuses: {messages}");
    let ran = Command::new(dir.join("main"))
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("it runs");
    let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{:?} after\n{printed}", ran.status);
    printed
}

/// Links an object with the program and returns the numbers it prints.
fn run(made: &Object, other: &[u8], name: &str, spins: &[i8]) -> Vec<f64> {
    let main = MAIN
        .replace("NAME", &format!("dnet_{name}"))
        .replace("UPPER", &format!("DNET_{}", name.to_uppercase()));
    let bytes: Vec<u8> = spins.iter().map(|&s| s as u8).collect();
    let dir = tempfile::tempdir().expect("a directory");
    let files: [(&str, &[u8]); 5] = [
        ("net.o", &made.bytes),
        ("net.h", made.header.as_bytes()),
        ("main.c", main.as_bytes()),
        ("spins", &bytes),
        ("block", other),
    ];
    let printed = link(dir.path(), &files, &["spins", "block"]);
    let number = |l: &str| l.parse().expect("a number");
    printed.lines().map(number).collect()
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

/// How far a complex number is off; phases are modulo 2 pi.
fn error(got: &[f64], want: Complex64) -> f64 {
    let turns = got
        .get(1)
        .map_or(0.0, |im| (im - want.im) / std::f64::consts::TAU);
    let im = (turns - turns.round()).abs() * std::f64::consts::TAU;
    (got[0] - want.re).abs().max(im)
}

fn compare<T: Real>(info: &NetworkInfo, lattice: Lattice, tolerance: f64) {
    let (name, lowered) = (&info.name, pipeline::graph(info));
    let graph = pipeline::amplitude(&lowered);
    let [params, others] = [5, 8].map(|seed| {
        let mut params = initialise(info, &lowered, lattice, seed).expect("parameters");
        perturb(&mut params, 0.3, seed + 1);
        params
    });
    let made = |p: &Params| {
        let made = object::<T>(&graph, lattice, &p.flat(), name);
        made.unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    let (made, block) = (made(&params), made(&others).block);
    let (sites, count) = (lattice.sites(), 2);
    let spins = configurations(sites, count);
    let printed = run(&made, &block, name, &spins);
    let width = graph.outputs.len();
    let log_psi = |p: &Params, s: &[i8]| {
        let e = evaluate(&graph, lattice, &p.tensors, s);
        e.expect("evaluates").log_psi()
    };
    let flipped = |sites: &[usize], p: &Params| {
        let mut s = spins[..lattice.sites()].to_vec();
        sites.iter().for_each(|&k| s[k] = -s[k]);
        log_psi(p, &s) - log_psi(p, &spins[..lattice.sites()])
    };
    let mut rest = printed.as_slice();
    let check = |rest: &mut &[f64], what: &str, want: Complex64| {
        let (got, more) = rest.split_at(width);
        *rest = more;
        let off = error(got, want);
        assert!(
            off <= tolerance * want.norm().max(1.0),
            "{name} on {lattice:?}, {what}: {got:?} instead of {want}"
        );
    };
    for s in spins.chunks(sites) {
        check(&mut rest, "log psi", log_psi(&params, s));
    }
    let psi = Reference::new(graph.clone(), lattice, params.clone()).expect("a network");
    let rows = std::sync::Mutex::new(vec![Vec::new(); count]);
    psi.gradients(&spins, &|sample, re, im| {
        rows.lock().expect("no panic")[sample] = [re, im].concat();
    });
    let wanted = rows.into_inner().expect("no panic").concat();
    let (gradients, more) = rest.split_at(wanted.len());
    let size = wanted.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
    for (k, (got, want)) in gradients.iter().zip(&wanted).enumerate() {
        let off = (got - want).abs();
        assert!(
            off <= tolerance * size,
            "{name} on {lattice:?}, derivative {k}: {got} instead of {want}"
        );
    }
    rest = more;
    let mut check = |what: &str, want: Complex64| check(&mut rest, what, want);
    check("background", log_psi(&params, &spins[..sites]));
    for site in 0..sites {
        check(&format!("flip {site}"), flipped(&[site], &params));
    }
    check("two flips", flipped(&[1, 4], &params));
    check("other parameters", log_psi(&others, &spins[..sites]));
    check("their flip", flipped(&[2], &others));
    assert!(rest.is_empty(), "{name}: {} numbers too many", rest.len());
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

/// Mixers by transforms: of lengths with small factors, of others on a ring, padded
/// on an open chain; flip programs.
#[test]
fn long_chains_from_c() {
    for (file, sites) in [
        ("dysonnet.dnet", [100, 106]),
        ("power_law.dnet", [100, 98]),
        ("fourier.dnet", [120, 98]),
        ("recurrent_mixers.dnet", [50, 53]),
    ] {
        let info = network(file);
        for n in sites {
            compare::<f64>(&info, Lattice::chain(n, Boundary::Periodic), 1e-11);
        }
        compare::<f32>(&info, Lattice::chain(sites[0], Boundary::Periodic), 2e-5);
        if file != "fourier.dnet" {
            compare::<f64>(&info, Lattice::chain(sites[0], Boundary::Open), 1e-11);
        }
    }
}

#[test]
fn squares_from_c() {
    let info = network("dysonnet2d.dnet");
    for boundary in [Boundary::Periodic, Boundary::Open] {
        for extent in [[4, 6], [16, 14]] {
            compare::<f64>(&info, Lattice { extent, boundary }, 1e-11);
        }
        let extent = [4, 6];
        compare::<f32>(&info, Lattice { extent, boundary }, 2e-5);
    }
}

#[test]
fn the_same_object_twice() {
    let info = network("dysonnet.dnet");
    let (lattice, lowered) = (Lattice::chain(12, Boundary::Open), lower(&info));
    let params = initialise(&info, &lowered, lattice, 1).expect("parameters");
    let theta = params.flat();
    let make = || object::<f32>(&lowered.graph, lattice, &theta, &info.name).expect("an object");
    let [a, b] = [make(), make()];
    assert!(a.bytes == b.bytes, "object files differ from run to run");
    assert_eq!(a.header, b.header);
    assert!(a.block == b.block);
    assert!(
        a.bytes.windows(a.block.len()).any(|w| w == a.block),
        "the object holds the block of its parameters"
    );
}

/// The program of docs/ahead-of-time.md, made by its commands.
#[test]
fn the_documented_program() {
    let docs = include_str!("../docs/ahead-of-time.md");
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("a name").to_owned();
    let mut commands = 0;
    for line in docs
        .lines()
        .filter_map(|l| l.strip_prefix("    dnetc emit "))
    {
        let mut args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let file = args.pop().expect("a file");
        args.push(path(&file));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (ok, _, err) = emit(&args);
        assert!(ok, "{err}");
        commands += 1;
    }
    assert_eq!(commands, 3);
    let program = docs.split("```").find_map(|part| part.strip_prefix("c\n"));
    let program = program.expect("a program in C");
    let printed = link(dir.path(), &[("main.c", program.as_bytes())], &[]);
    let number = |line: &str| line.rsplit(' ').next().and_then(|x| x.parse::<f64>().ok());
    let numbers: Vec<f64> = printed.lines().filter_map(number).collect();
    let info = network("jastrow.dnet");
    let (lattice, lowered) = (
        Lattice::chain(8, Boundary::Periodic),
        pipeline::graph(&info),
    );
    let graph = pipeline::amplitude(&lowered);
    let log_psi = |seed: u64, flip: Option<usize>, first: usize| {
        let params = initialise(&info, &lowered, lattice, seed).expect("parameters");
        let spin = |k: usize| if (k + first).is_multiple_of(3) { -1 } else { 1 };
        let mut spins: Vec<i8> = (0..8).map(spin).collect();
        flip.into_iter().for_each(|k| spins[k] = -spins[k]);
        let e = evaluate(&graph, lattice, &params.tensors, &spins);
        e.expect("evaluates").log_psi().re
    };
    let [second, gradient, ratio, other] = numbers[..] else {
        panic!("four lines, not\n{printed}")
    };
    assert!((second - log_psi(1, None, 8)).abs() < 1e-11, "{printed}");
    assert!(gradient > 0.0);
    let want = log_psi(1, Some(3), 0) - log_psi(1, None, 0);
    assert!((ratio - want).abs() < 1e-11, "{printed}");
    assert!((other - log_psi(2, None, 0)).abs() < 1e-11, "{printed}");
}

fn emit(args: &[&str]) -> (bool, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_dnetc"))
        .env("DNET_COSTS", "")
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
    let (ok, out, err) = with(&["--target", "block"]);
    assert!(
        !ok && out.is_empty() && err.contains("-o net.block"),
        "{err}"
    );
    let (ok, _, err) = with(&["--target", "obj", "-o", path]);
    assert!(ok, "{err}");
    assert!(std::fs::read(path).expect("an object").len() > 1000);
    let (ok, header, err) = with(&["--target", "header"]);
    assert!(ok, "{err}");
    for line in [
        "#define DNET_JASTROW_SITES 8",
        "int32_t dnet_jastrow_log_psi(const int8_t *spins, size_t count, const void *block, double *out,",
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
