//! The command line as a user meets it: exit codes, streams, messages.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Runs `dnetc` at the root of the repository, uncoloured.
fn dnetc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dnetc"))
        .env("DNET_COSTS", "")
        .args(args)
        .env("COLUMNS", "100")
        .output()
        .expect("dnetc runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8 output")
}

/// Asserts the exit code and returns (stdout, stderr).
fn run(code: i32, args: &[&str]) -> (String, String) {
    let out = dnetc(args);
    let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(
        out.status.code(),
        Some(code),
        "{args:?}\n{stdout}\n{stderr}"
    );
    (stdout, stderr)
}

/// Asserts failure with exit code 1 and that stderr says all of `wanted`.
fn fails(args: &[&str], wanted: &[&str]) {
    let (_, stderr) = run(1, args);
    for w in wanted {
        assert!(
            stderr.contains(w),
            "{args:?} should say {w:?}, says\n{stderr}"
        );
    }
}

/// A directory with the given files.
fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).expect("written");
    }
    dir
}

fn path(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

#[test]
fn the_graph_is_printed_before_and_after_simplification() {
    let file = DYSONNET;
    let (after, _) = run(0, &["emit", file, "--target", "ir"]);
    let (before, _) = run(0, &["emit", file, "--target", "ir", "--unsimplified"]);
    for text in [&before, &after] {
        assert!(
            text.starts_with("param 0: ") && text.contains("= spins"),
            "{text}"
        );
        assert!(
            text.lines()
                .last()
                .is_some_and(|l| l.starts_with("outputs %")),
            "{text}"
        );
    }
    assert!(
        after.lines().count() < before.lines().count(),
        "{before}\n{after}"
    );
    let dir = project(&[]);
    let out = path(&dir, "graph.txt");
    run(0, &["emit", file, "--target", "ir", "-o", &out]);
    assert_eq!(std::fs::read_to_string(out).expect("written"), after);
    fails(
        &[
            "emit",
            file,
            "--target",
            "clif",
            "--sites",
            "8",
            "--unsimplified",
        ],
        &["simplified graph only", "--target ir"],
    );
}

#[test]
fn equal_seeds_make_equal_parameter_files() {
    let dir = project(&[]);
    let file = |name: &str, seed: &str| {
        let out = path(&dir, name);
        let example = "examples/dysonnet.dnet";
        run(
            0,
            &["init", example, "--sites", "20", "--seed", seed, "-o", &out],
        );
        std::fs::read(out).expect("written")
    };
    let first = file("a.safetensors", "3");
    assert_eq!(first, file("b.safetensors", "3"));
    assert_ne!(first, file("c.safetensors", "4"));
}

fn all(directory: &str) -> Vec<String> {
    let mut list: Vec<PathBuf> = std::fs::read_dir(directory)
        .expect("a directory")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "dnet"))
        .collect();
    list.sort();
    list.iter().map(|p| p.display().to_string()).collect()
}

const DYSONNET: &str = "examples/dysonnet.dnet";

#[test]
fn examples_and_library_are_clean_and_formatted() {
    let files = [all("examples"), all("stdlib"), all("tests/in/good")].concat();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let (stdout, stderr) = run(0, &[&["check", "--deny-warnings"], &files[..]].concat());
    assert_eq!(stdout, "");
    assert!(stderr.ends_with("files: no problems\n"), "{stderr}");
    let own = [all("examples"), all("stdlib")].concat();
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    run(0, &[&["fmt", "--check"], &own[..]].concat());
}

#[test]
fn check_counts_and_exit_codes() {
    let (_, stderr) = run(1, &["check", "tests/in/bad/several_errors.dnet"]);
    assert!(stderr.contains("error[E0301]") && stderr.contains("error[E0101]"));
    assert!(stderr.ends_with("checked 1 file: 3 errors, 0 warnings\n"));
    assert!(!stderr.contains('\x1b'), "no colours in a pipe");
    let (_, stderr) = run(0, &["check", "tests/in/bad/unused_let.dnet"]);
    assert!(stderr.contains("warning[W0601]"));
    run(
        1,
        &["check", "--deny-warnings", "tests/in/bad/unused_let.dnet"],
    );
}

#[test]
fn messages_as_json_lines() {
    let (stdout, stderr) = run(
        1,
        &[
            "check",
            "--message-format",
            "json",
            "tests/in/bad/several_errors.dnet",
        ],
    );
    assert_eq!(stderr, "");
    let objects: Vec<serde_json::Value> = stdout
        .lines()
        .map(|l| serde_json::from_str(l).expect("one object per line"))
        .collect();
    let codes: Vec<&str> = objects.iter().filter_map(|o| o["code"].as_str()).collect();
    assert_eq!(codes, ["E0301", "E0306", "E0101"]);
    assert_eq!(objects[0]["severity"], "error");
    assert_eq!(objects[0]["spans"][0]["primary"], true);
    assert_eq!(objects[0]["spans"][0]["start"]["line"], 7);
    assert_eq!(
        objects[0]["spans"][0]["file"],
        "tests/in/bad/several_errors.dnet"
    );
    let (stdout, _) = run(1, &["fmt", "--message-format", "json", "no/such.dnet"]);
    let object: serde_json::Value = serde_json::from_str(&stdout).expect("an object");
    assert_eq!(object["severity"], "error");
}

fn inspect(args: &[&str]) -> serde_json::Value {
    let (stdout, _) = run(0, &[&["inspect", "--format", "json"], args].concat());
    serde_json::from_str(&stdout).expect("JSON")
}

#[test]
fn inspect_the_published_network() {
    let json = inspect(&[DYSONNET]);
    assert_eq!(json["parameters"]["total"], 3264);
    let listed = json["parameters"]["list"].as_array().expect("a list");
    let sum: u64 = listed.iter().filter_map(|p| p["count"].as_u64()).sum();
    assert_eq!(sum, 3264);
    assert_eq!(json["mixers"][0]["class"], "state_space");
    let support = |name: &str| {
        let values = json["values"].as_array().expect("a list");
        let value = values.iter().rfind(|v| v["name"] == name);
        value.unwrap_or_else(|| panic!("no {name}"))["support_tokens"].clone()
    };
    assert_eq!(support("tokens"), serde_json::json!([[0, 0]]));
    assert_eq!(support("block_0/phi"), serde_json::json!([[-2, 1]]));
    assert_eq!(support("block_1/phi"), serde_json::json!([[-4, 2]]));
    assert_eq!(support("block_1/h"), serde_json::Value::Null, "linear");
    let deep = inspect(&[DYSONNET, "-D", "depth=3", "-D", "states=6"]);
    assert_eq!(deep["hyperparameters"]["depth"], 3);
    assert_eq!(deep["mixers"].as_array().map(Vec::len), Some(3));
    let text = run(0, &["inspect", DYSONNET, "--sites", "100"]).0;
    for wanted in [
        "parameters: 3264",
        "block_1/s4/log_step",
        "7 (-4..=2)",
        "at 100 sites",
        "ratios of clusters   flip programs",
        "by the costs of",
    ] {
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn inspect_lattices_and_operators() {
    let text = run(0, &["inspect", "examples/vit.dnet", "--sites", "12"]).0;
    assert!(text.contains("full evaluation because of"), "{text}");
    let json = inspect(&["examples/positional.dnet", "--sites", "12"]);
    assert!(
        json["parameters"]["total"].as_u64() > Some(0),
        "known once the sites are"
    );
    let json = inspect(&["examples/operators.dnet", "--sites", "16"]);
    let one = json.as_array().map_or(&json, |list| &list[0]);
    assert_eq!(one["item"], "operator");
    fails(
        &[
            "inspect",
            "tests/in/bad/window_wider_than_lattice.dnet",
            "--sites",
            "4",
        ],
        &["E0501", "wider than the lattice of 4"],
    );
    fails(&["inspect", DYSONNET, "--sites", "7"], &["E0502"]);
    fails(
        &[
            "inspect",
            "examples/fourier.dnet",
            "--sites",
            "40",
            "--boundary",
            "open",
        ],
        &["E0503", "--boundary periodic"],
    );
    fails(
        &["inspect", "examples/dysonnet2d.dnet", "--sites", "12"],
        &["12 sites are not a square", "LX,LY"],
    );
    run(
        0,
        &["inspect", "examples/dysonnet2d.dnet", "--sites", "12,10"],
    );
    fails(&["inspect", DYSONNET, "--sites", "4,6"], &["--sites N"]);
}

#[test]
fn overrides() {
    fails(
        &["inspect", DYSONNET, "-D", "depth=17"],
        &["E0103", "1..=16"],
    );
    fails(
        &["inspect", DYSONNET, "-D", "dim=9223372036854775807"],
        &["E0103"],
    );
    fails(
        &["inspect", DYSONNET, "-D", "depht=3"],
        &["E0101", "`depht`", "`depth`"],
    );
    fails(&["inspect", DYSONNET, "-D", "depth=1.5"], &["E0202"]);
    for wrong in [
        "depth=99999999999999999999",
        "depth",
        "depth=many",
        "depth=nan",
    ] {
        let (_, stderr) = run(2, &["inspect", DYSONNET, "-D", wrong]);
        assert!(stderr.contains("-D <NAME=VALUE>"), "{stderr}");
    }
    fails(
        &["inspect", DYSONNET, "dysonet"],
        &["no network `dysonet`", "dysonnet"],
    );
}

#[test]
fn formatting() {
    let dir = project(&[
        (
            "rough.dnet",
            "network  n( ){log_psi=sum( spins ) // total\n}",
        ),
        ("broken.dnet", "network n( {"),
    ]);
    let rough = path(&dir, "rough.dnet");
    fails(&["fmt", "--check", &rough], &["not formatted"]);
    run(0, &["fmt", &rough]);
    let formatted = std::fs::read_to_string(&rough).expect("readable");
    assert!(formatted.contains("// total") && formatted.starts_with("network n() on chain {\n"));
    run(0, &["fmt", "--check", &rough]);
    let broken = path(&dir, "broken.dnet");
    fails(&["fmt", &broken, &rough], &["E0001"]);
    assert_eq!(
        std::fs::read_to_string(&broken).expect("readable"),
        "network n( {"
    );
}

#[test]
fn a_new_project_compiles() {
    let dir = project(&[]);
    let new = path(&dir, "project");
    let (stdout, _) = run(0, &["new", &new]);
    assert!(stdout.contains("dnetc check"));
    let files = all(&new);
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    assert_eq!(files.len(), 2);
    run(0, &[&["check", "--deny-warnings"], &files[..]].concat());
    run(0, &[&["fmt", "--check"], &files[..]].concat());
    fails(&["new", &new], &["exists already", "nothing was changed"]);
}

#[test]
fn explanations_and_completions() {
    let list = run(0, &["explain"]).0;
    assert!(list.lines().count() >= 33);
    for line in list.lines() {
        let code = line.split(' ').next().expect("a code");
        let page = run(0, &["explain", code]).0;
        assert!(page.starts_with(&format!("# {code}: ")), "{page}");
        assert!(page.contains("```dnet bad") && page.contains("```dnet good"));
    }
    run(0, &["explain", "e0301"]);
    fails(&["explain", "E9999"], &["no code `E9999`"]);
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(run(0, &["completions", shell]).0.contains("inspect"));
    }
}

#[test]
fn colours() {
    let bad = "tests/in/bad/silu_on_mixer.dnet";
    let forced = run(1, &["check", "--color", "always", bad]).1;
    assert!(forced.contains("\x1b["));
    let out = Command::new(env!("CARGO_BIN_EXE_dnetc"))
        .env("DNET_COSTS", "")
        .args(["check", bad])
        .env("NO_COLOR", "1")
        .output()
        .expect("dnetc runs");
    assert!(!text(&out.stderr).contains('\x1b'));
}

#[test]
fn help_texts() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("out/cli");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for verb in ["check", "fmt", "inspect", "explain", "new", "completions"] {
            insta::assert_snapshot!(verb, run(0, &[verb, "--help"]).0);
        }
    });
    let (_, stderr) = run(2, &["chekc"]);
    assert!(stderr.contains("'check'"), "{stderr}");
    run(2, &["check"]);
}

#[test]
fn unreadable_input() {
    let dir = project(&[("bytes.dnet", "")]);
    let bytes = path(&dir, "bytes.dnet");
    std::fs::write(&bytes, [0xff, 0xfe, 0, b'x']).expect("written");
    fails(&["check", &bytes], &["E0003", "UTF-8"]);
    fails(&["fmt", &bytes], &["UTF-8"]);
    let missing = path(&dir, "missing.dnet");
    fails(&["check", &missing], &["E0003", "missing.dnet"]);
    fails(&["inspect", &missing], &["E0003"]);
    fails(&["check", &dir.path().display().to_string()], &["E0003"]);
    fails(&["fmt", &missing], &["check the path"]);
}

/// Checks hostile files: an error of the given code, soon.
fn hostile(files: &[(&str, &str)], code: &str) {
    let dir = project(files);
    let start = Instant::now();
    fails(&["check", &path(&dir, files[0].0)], &[code]);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(20), "{code} took {took:?}");
}

#[test]
fn hostile_input() {
    hostile(&[("a.dnet", "use self::a::{f}\nfn f(x) = x\n")], "E0104");
    hostile(
        &[
            ("a.dnet", "use self::b::{g}\nfn f(x) = g(x)\n"),
            ("b.dnet", "use self::a::{f}\nfn g(x) = f(x)\n"),
        ],
        "E0104",
    );
    hostile(
        &[(
            "a.dnet",
            "fn f(x) = f(x)\nnetwork n() { log_psi = sum(f(spins)) }",
        )],
        "E0104",
    );
    let network = |body: &str| format!("network n() {{ var h = spins {body} log_psi = sum(h) }}");
    let turns = network("repeat 1000000000 { h += spins }");
    hostile(&[("a.dnet", &turns)], "E0002");
    let nested = network("repeat 60000 { repeat 60000 { repeat 60000 { } } }");
    hostile(&[("a.dnet", &nested)], "E0002");
    let values = network("repeat 150000 { h += spins + spins + spins }");
    hostile(&[("a.dnet", &values)], "E0002");
    // 2^40 calls that make no value
    let mut doubling = "fn f0() = 1\n".to_owned();
    for k in 1..40 {
        doubling += &format!("fn f{k}() = f{0}() + f{0}()\n", k - 1);
    }
    let network = format!("{doubling}network n() {{ log_psi = sum(f39() * spins) }}");
    hostile(&[("a.dnet", &network)], "E0002");
    let operator = format!("{doubling}operator o() {{ for i: f39() * Z(i) }}");
    hostile(&[("a.dnet", &operator)], "E0002");
    let deep = format!("const x = {}1{}", "(".repeat(100_000), ")".repeat(100_000));
    hostile(&[("a.dnet", &deep)], "E0002");
    hostile(&[("a.dnet", &"const x = 1\n".repeat(900_000))], "E0102");
    hostile(
        &[(
            "a.dnet",
            "const x = 9223372036854775807 + 1\nnetwork n() { log_psi = sum(x * spins) }",
        )],
        "E0204",
    );
    assert!(Path::new(DYSONNET).exists());
}
