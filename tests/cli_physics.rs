//! The verbs `ed`, `observe` and `collapse`: values against exact ones, and
//! what they say of bad input.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn dnetc(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dnetc"))
        .env("DNET_COSTS", "")
        .current_dir(dir)
        .args(args)
        .output()
        .expect("dnetc runs")
}

/// The output of a run that must succeed.
fn text(dir: &Path, args: &[&str]) -> String {
    let out = dnetc(dir, args);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{args:?}: {stderr}");
    String::from_utf8(out.stdout).expect("UTF-8")
}

fn json(dir: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&text(dir, args)).expect("JSON")
}

/// The message of a run that must fail with exit code `code`.
fn error(dir: &Path, code: i32, args: &[&str]) -> String {
    let out = dnetc(dir, args);
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(code), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    stderr
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap())
        .collect()
}

fn golden(file: &str) -> Value {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn example(name: &str) -> String {
    format!("{}/examples/{name}.dnet", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn ed_of_the_critical_ring_is_exact() {
    let here = Path::new(".");
    let report = json(
        here,
        &[
            "ed",
            "tfim",
            "--sites",
            "10",
            "--json",
            "--observe",
            "transverse_magnetisation",
        ],
    );
    let energies = numbers(&report["energies"]);
    let exact = -2.0 / (std::f64::consts::PI / 20.0).sin();
    assert_eq!(energies.len(), 2);
    assert!((energies[0] - exact).abs() < 1e-9);
    assert!((report["exact"]["energy"].as_f64().unwrap() - exact).abs() < 1e-11);
    assert_eq!(report["levels"][0]["sector"], "even");
    assert_eq!(report["levels"][1]["sector"], "odd");
    // self-duality: <X> = -E / (2 N) at J = h
    let x = numbers(&report["observables"]["transverse_magnetisation"])[0];
    assert!((x + exact / 20.0).abs() < 1e-7);
    assert!((report["gap"].as_f64().unwrap() - (energies[1] - energies[0])).abs() < 1e-14);
    let shown = text(here, &["ed", "tfim", "--sites", "10"]);
    assert!(
        shown.contains("Pauli matrices") && shown.contains("energies are totals"),
        "{shown}"
    );
    assert!(
        shown.contains("free fermions") && shown.contains(&format!("{exact:.10}")[..12]),
        "{shown}"
    );
}

#[test]
fn ed_reproduces_energies_and_moments_of_the_published_grid() {
    let table = golden("dysonnet/ed.json");
    let entries = table["tfim"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["N"] == 10 || e["N"] == 12);
    let mut compared = 0;
    for entry in entries.step_by(2) {
        let value = |key: &str| entry[key].as_f64().unwrap();
        let [sites, j, alpha] = ["N", "J", "alpha"].map(|k| value(k).to_string());
        let define = [format!("J={j}"), format!("alpha={alpha}")];
        let args = [
            "ed",
            "long_range_tfim",
            "-D",
            &define[0],
            "-D",
            &define[1],
            "--sites",
            &sites,
            "--json",
        ];
        let report = json(Path::new("."), &args);
        let energies = numbers(&report["energies"]);
        assert!((energies[0] - value("E0_total")).abs() < 1e-9, "{args:?}");
        assert!((energies[1] - value("E1_total")).abs() < 1e-9, "{args:?}");
        let m2 = report["levels"][0]["moments"]["m2"].as_f64().unwrap();
        // moments of a nearly degenerate pair are not unique
        if report["nearly_degenerate"] == false {
            assert!((m2 - value("m2")).abs() < 1e-7, "{args:?}");
        }
        assert_eq!(report["exact"], Value::Null, "long range is not solvable");
        compared += 1;
    }
    assert!(compared >= 3, "{compared}");
}

#[test]
fn ed_lists_degenerate_states_one_by_one() {
    let here = Path::new(".");
    let report = json(
        here,
        &[
            "ed",
            "heisenberg",
            "--sites",
            "6",
            "--levels",
            "12",
            "--json",
        ],
    );
    let all = numbers(&report["energies"]);
    let full = json(
        here,
        &[
            "ed",
            "heisenberg",
            "--sites",
            "6",
            "--levels",
            "12",
            "--json",
            "--sector",
            "full",
        ],
    );
    for (a, b) in all.iter().zip(numbers(&full["energies"])) {
        assert!((a - b).abs() < 1e-9, "{all:?}");
    }
    // a singlet below a triplet
    assert!(all[1] - all[0] > 0.1 && (all[3] - all[1]).abs() < 1e-9);
    let sector = json(
        here,
        &[
            "ed",
            "heisenberg",
            "--sites",
            "6",
            "--sector",
            "sz=-1",
            "--json",
        ],
    );
    assert!((numbers(&sector["energies"])[0] - all[1]).abs() < 1e-9);
    // 4 x 4 square lattice, one number for the sites
    let square = json(
        here,
        &[
            "ed",
            "square_heisenberg",
            "--sites",
            "16",
            "--levels",
            "1",
            "--json",
        ],
    );
    let wanted = golden("exact_energies.json")["square_4x4_pbc_heis_j1j2"]["J20.0"].as_f64();
    if let Some(wanted) = wanted {
        assert!((numbers(&square["energies"])[0] - wanted).abs() < 1e-9);
    }
    assert!((numbers(&square["energies"])[0] / 16.0 + 0.7017802).abs() < 1e-6);
}

#[test]
fn a_product_state_has_the_fidelity_of_a_product_state() {
    let dir = tempfile::tempdir().unwrap();
    let flat =
        "network flat() {\n    param a: real[] = 0.0\n    log_psi = a * mean(patch(spins, 1))\n}\n";
    let source = format!("use std::nn::{{mean}}\n{flat}");
    std::fs::write(dir.path().join("flat.dnet"), source).unwrap();
    text(dir.path(), &["init", "flat.dnet", "--sites", "8"]);
    // J = 0: the ground state is the product of |+>
    std::fs::write(
        dir.path().join("field.dnet"),
        "operator field(h: real = 1) on chain {\n    for i: -h * X(i)\n}\n",
    )
    .unwrap();
    let args = [
        "ed",
        "field.dnet",
        "-D",
        "h=2",
        "--params",
        "params.safetensors",
        "--json",
    ];
    let report = json(dir.path(), &args);
    assert!((report["fidelity"]["value"].as_f64().unwrap() - 1.0).abs() < 1e-12);
    assert!((numbers(&report["energies"])[0] + 16.0).abs() < 1e-9);
    // <m^2> = 1 / N, energy -h N with zero variance
    let seen = json(
        dir.path(),
        &[
            "observe",
            "params.safetensors",
            "--hamiltonian",
            "field.dnet",
            "-D",
            "h=2",
            "--exact",
            "--json",
        ],
    );
    assert!((seen["energy"]["mean"].as_f64().unwrap() + 16.0).abs() < 1e-12);
    assert!(seen["energy"]["variance"].as_f64().unwrap() < 1e-20);
    assert!((seen["magnetisation"]["m2"]["mean"].as_f64().unwrap() - 0.125).abs() < 1e-12);
    let wrong = error(
        dir.path(),
        1,
        &[
            "ed",
            "field.dnet",
            "-D",
            "g=2",
            "--params",
            "params.safetensors",
        ],
    );
    assert!(wrong.contains('g'), "{wrong}");
    let other = error(
        dir.path(),
        1,
        &[
            "ed",
            "square_tfim",
            "--sites",
            "9",
            "--params",
            "params.safetensors",
        ],
    );
    assert!(other.contains("error"), "{other}");
}

#[test]
fn sampled_observables_agree_with_the_full_sum() {
    let dir = tempfile::tempdir().unwrap();
    let rbm = example("rbm");
    text(
        dir.path(),
        &[
            "init", &rbm, "--sites", "10", "--noise", "0.2", "--seed", "3",
        ],
    );
    let common = [
        "observe",
        "params.safetensors",
        "--hamiltonian",
        "tfim",
        "--operator",
        "transverse_magnetisation",
        "--json",
    ];
    let exact = json(dir.path(), &[&common[..], &["--exact"]].concat());
    let sampled = json(
        dir.path(),
        &[&common[..], &["--samples", "8192", "--output", "all.npz"]].concat(),
    );
    assert!(dir.path().join("all.npz").metadata().unwrap().len() > 1000);
    let check = |what: &str, a: &Value, b: &Value| {
        let [a_mean, b_mean, b_error] =
            [&a["mean"], &b["mean"], &b["error"]].map(|v| v.as_f64().unwrap());
        assert_eq!(a["error"], 0.0);
        let allowed = 5.0 * b_error + 1e-12;
        assert!(
            (a_mean - b_mean).abs() <= allowed,
            "{what}: {a_mean}, {b_mean} +- {b_error}"
        );
        assert!(b_error < 0.3, "{what}: error {b_error}");
    };
    check("energy", &exact["energy"], &sampled["energy"]);
    check("x", &exact["observables"][0], &sampled["observables"][0]);
    for key in ["m", "abs", "m2", "m4"] {
        check(
            key,
            &exact["magnetisation"][key],
            &sampled["magnetisation"][key],
        );
    }
    for (a, b) in exact["correlations"]
        .as_array()
        .unwrap()
        .iter()
        .zip(sampled["correlations"].as_array().unwrap())
    {
        check("C(r)", a, b);
    }
    assert_eq!(exact["correlations"].as_array().unwrap().len(), 6);
    // the energy again, from the operator's own parts
    let nearest = exact["correlations"][1]["mean"].as_f64().unwrap();
    let x = exact["observables"][0]["mean"].as_f64().unwrap();
    assert!((exact["energy"]["mean"].as_f64().unwrap() + 10.0 * (nearest + x)).abs() < 1e-10);
    // the same seed gives the same samples
    let again = json(dir.path(), &[&common[..], &["--samples", "8192"]].concat());
    assert_eq!(sampled, again);
    // the infidelity bounds nothing above 1
    let fidelity = json(
        dir.path(),
        &["ed", "tfim", "--params", "params.safetensors", "--json"],
    );
    let value = fidelity["fidelity"]["value"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&value), "{value}");
}

/// `m^2 = L^(-2 beta/nu) f(z)` of a known collapse, as CSV.
fn collapse_data(dir: &Path) -> PathBuf {
    let (critical, nu, beta) = (-2.94, 1.1, 0.15);
    let mut csv = "# made up\nsites, h ,m2,sigma\n".to_owned();
    let mut noise = 0.37f64;
    for size in [40.0f64, 60.0, 80.0, 120.0] {
        for k in 0..25 {
            let x = -3.08 + 0.012 * f64::from(k);
            let z = (x - critical) * size.powf(1.0 / nu);
            let y = size.powf(-2.0 * beta / nu) * (1.2 + (-0.15f64 * z).tanh());
            // the logistic map scatters well enough
            noise = 3.99 * noise * (1.0 - noise);
            csv += &format!(
                "{size},{x},{},{}\n",
                y * (1.0 + 0.004 * (noise - 0.5)),
                0.0015 * y
            );
        }
    }
    let path = dir.join("data.csv");
    std::fs::write(&path, csv).unwrap();
    path
}

#[test]
fn collapse_finds_known_exponents_without_a_start() {
    let dir = tempfile::tempdir().unwrap();
    collapse_data(dir.path());
    let args = [
        "collapse",
        "data.csv",
        "--columns",
        "sites,h,m2,sigma",
        "--resamples",
        "10",
        "--plot",
        "c.svg",
        "--json",
    ];
    let report = json(dir.path(), &args);
    for (name, wanted) in [("critical", -2.94), ("nu", 1.1), ("beta", 0.15)] {
        let value = report["best"][name].as_f64().unwrap();
        let errors =
            ["bootstrap_error", "jackknife_error"].map(|e| report[e][name].as_f64().unwrap());
        assert!(
            errors.iter().all(|e| *e > 0.0 && *e < 0.1),
            "{name}: {errors:?}"
        );
        let allowed = 5.0 * errors[0].max(errors[1]);
        assert!(
            (value - wanted).abs() < allowed,
            "{name}: {value}, errors {errors:?}"
        );
    }
    let svg = std::fs::read_to_string(dir.path().join("c.svg")).unwrap();
    assert!(svg.contains("L = 40") && svg.matches("<circle").count() >= 100);
}

#[test]
fn bad_input_gives_one_error_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    std::fs::write(d.join("junk.safetensors"), "junk").unwrap();
    std::fs::write(d.join("two.dnet"), "operator a() on chain {\n    for i: X(i)\n}\noperator b() on chain {\n    for i: Z(i)\n}\n").unwrap();
    std::fs::write(d.join("bad.csv"), "size,x,y,error\n1,2,three,4\n").unwrap();
    std::fs::write(
        d.join("few.json"),
        r#"[{"size":8,"x":1,"y":1,"error":0.1}]"#,
    )
    .unwrap();
    let cases: &[(i32, &[&str], &str)] = &[
        (1, &["ed", "tfim", "--sites", "25"], "24"),
        (1, &["ed", "tfim"], "--sites"),
        (1, &["ed", "tfmi", "--sites", "8"], "there are tfim"),
        (
            1,
            &["ed", "tfim", "-D", "g=1", "--sites", "8"],
            "no coupling `g`",
        ),
        (
            1,
            &["ed", "tfim", "--sites", "8", "--sector", "sz=0"],
            "conserve the magnetisation",
        ),
        (
            1,
            &["ed", "heisenberg", "--sites", "8", "--sector", "sz=0.5"],
            "no sector sz=0.5",
        ),
        (
            2,
            &["ed", "heisenberg", "--sites", "8", "--sector", "sz=0.3"],
            "multiple of 1/2",
        ),
        (
            2,
            &["ed", "tfim", "--sites", "8", "--levels", "0"],
            "1..=64",
        ),
        (
            1,
            &["ed", "tfim", "--sites", "6", "--observe", "magnetisation"],
            "--sector full",
        ),
        (
            1,
            &["ed", "two.dnet", "--sites", "6"],
            "name one of them: a, b",
        ),
        (1, &["ed", "missing.dnet", "--sites", "6"], "cannot read"),
        (
            1,
            &["ed", "tfim", "nonsense", "--sites", "6"],
            "no .dnet file",
        ),
        (1, &["ed", "square_tfim", "--sites", "8"], "not a square"),
        (
            1,
            &["ed", "tfim", "--sites", "8", "--params", "junk.safetensors"],
            "not a parameter file",
        ),
        (1, &["observe", "missing.safetensors"], "cannot read"),
        (
            1,
            &["observe", "missing.safetensors", "--output", "x.txt"],
            ".npz",
        ),
        (
            1,
            &["observe", "missing.safetensors", "--hamiltonian", "nope"],
            "no operator `nope`",
        ),
        (
            2,
            &["observe", "missing.safetensors", "--samples", "0"],
            "0 is not in",
        ),
        (1, &["collapse", "missing.csv"], "cannot read"),
        (1, &["collapse", "bad.csv"], "`three` is not a number"),
        (
            1,
            &["collapse", "bad.csv", "--columns", "a,b"],
            "four are needed",
        ),
        (
            1,
            &["collapse", "bad.csv", "--columns", "a,x,y,error"],
            "no column `a`",
        ),
        (1, &["collapse", "few.json"], "help"),
        (
            1,
            &["collapse", "few.json", "--power", "-1"],
            "not positive",
        ),
    ];
    for (code, args, wanted) in cases {
        let message = error(d, *code, args);
        assert!(message.contains(wanted), "{args:?}: {message}");
        assert_eq!(message.matches("error").next(), Some("error"), "{message}");
        assert!(message.contains("help"), "{args:?}: {message}");
    }
}

#[test]
fn observe_refuses_what_cannot_be_sampled() {
    let dir = tempfile::tempdir().unwrap();
    let rbm = example("rbm");
    text(dir.path(), &["init", &rbm, "--sites", "24"]);
    let large = error(dir.path(), 1, &["observe", "params.safetensors", "--exact"]);
    assert!(large.contains("too large"), "{large}");
    let sz = error(
        dir.path(),
        1,
        &["observe", "params.safetensors", "--sz", "0.5"],
    );
    assert!(sz.contains("magnetisation 1"), "{sz}");
    let fraction = error(
        dir.path(),
        1,
        &["observe", "params.safetensors", "--sz", "0.3"],
    );
    assert!(fraction.contains("multiple of 1/2"), "{fraction}");
    let unknown = error(
        dir.path(),
        1,
        &["observe", "params.safetensors", "-D", "nope=1"],
    );
    assert!(unknown.contains("nope"), "{unknown}");
    // at fixed magnetisation the mean is fixed
    let seen = json(
        dir.path(),
        &[
            "observe",
            "params.safetensors",
            "--sz",
            "-2",
            "--samples",
            "256",
            "--chains",
            "64",
            "--json",
        ],
    );
    assert!((seen["magnetisation"]["m"]["mean"].as_f64().unwrap() + 4.0 / 24.0).abs() < 1e-12);
}

#[test]
fn ed_at_fixed_momentum() {
    let here = Path::new(".");
    let ground = |more: &[&str]| {
        let args = [&["ed", "heisenberg", "--sites", "8", "--json"], more].concat();
        json(here, &args)
    };
    let all = ground(&["--levels", "8"]);
    let mut by_momentum: Vec<f64> = (0..8)
        .flat_map(|m| {
            let report = ground(&["--levels", "8", "--momentum", &m.to_string()]);
            assert_eq!(report["momentum"], serde_json::json!([m, 0]));
            let rows = report["sectors"][0]["dimension"].as_u64().unwrap();
            assert!(rows <= 10, "{rows} rows where all momenta have 35");
            numbers(&report["energies"])
        })
        .collect();
    by_momentum.sort_by(f64::total_cmp);
    for (a, b) in by_momentum.iter().zip(numbers(&all["energies"])) {
        assert!((a - b).abs() < 1e-9, "{a} {b}");
    }
    let shown = text(here, &["ed", "tfim", "--sites", "6", "--momentum", "3"]);
    assert!(shown.contains("momentum       2 pi 3 / L only"), "{shown}");
    for args in [
        &["ed", "tfim", "--sites", "6", "--momentum", "6"][..],
        &[
            "ed",
            "tfim",
            "--sites",
            "6",
            "--boundary",
            "open",
            "--momentum",
            "0",
        ],
    ] {
        let message = error(here, 1, args);
        assert!(message.contains("momenta run from 0"), "{message}");
    }
}
