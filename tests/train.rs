//! `dnetc train` from outside: results, interruption, and everything that can
//! go wrong. Each error is one message with a way out, and loses nothing.

mod workplace;

use std::fs;
use std::process::{Command, Output};
use workplace::{Workplace, contains_all, json, stderr};

const RBM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/rbm.dnet");
const RESNET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/resnet.dnet");

/// A run of seconds: an RBM on a ring of six spins.
const SMALL: &[&str] = &[
    "--operator",
    "tfim",
    "--sites",
    "6",
    "--chains",
    "32",
    "--samples",
    "128",
    "--iterations",
    "8",
    "--evaluation-samples",
    "512",
    "--precision",
    "f64",
    "--rate",
    "0.05",
];

/// Where `dnetc train` runs.
struct Place(Workplace);

impl std::ops::Deref for Place {
    type Target = Workplace;
    fn deref(&self) -> &Workplace {
        &self.0
    }
}

/// The arguments of `dnetc train`.
fn training<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["train"], args].concat()
}

impl Place {
    fn new() -> Place {
        Place(Workplace::new())
    }
    fn command(&self, args: &[&str]) -> Command {
        self.0.command(&training(args))
    }
    fn train(&self, args: &[&str]) -> Output {
        self.dnetc(&training(args))
    }
    /// An RBM run into `out`, which must succeed.
    fn small(&self, out: &str, more: &[&str]) -> Output {
        self.succeeds(&training(&[&[RBM, "-o", out], SMALL, more].concat()))
    }
    /// A run that must fail: its message.
    fn fails(&self, args: &[&str]) -> String {
        self.0.fails(&training(args))
    }
}

#[test]
fn a_run_writes_results_log_checkpoint_and_plots() {
    let place = Place::new();
    let output = place.small("out", &["--iterations", "60", "--samples", "256"]);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    contains_all(
        &table,
        &[
            "exact E0",
            "-7.7274",
            "free fermions",
            "V-score",
            "Pauli",
            "ring of 6 sites",
        ],
    );
    contains_all(&stderr(&output), &["60/60 Energy=-", "σ²="]);
    let result = json(&place.path("out/result.json"));
    let exact = result["exact"]["energy"].as_f64().unwrap();
    assert!((exact + 2.0 / (std::f64::consts::PI / 12.0).sin()).abs() < 1e-10);
    let error = result["relative_error"].as_f64().unwrap();
    let sigma = result["relative_error_error"].as_f64().unwrap();
    assert!(
        error > -4.0 * sigma && error < 0.01,
        "relative error {error} +- {sigma}"
    );
    let log = json(&place.path("out/log.json"));
    for column in ["iters", "Mean", "Variance", "Sigma", "R_hat", "TauCorr"] {
        assert_eq!(
            log["Energy"][column].as_array().unwrap().len(),
            60,
            "{column}"
        );
    }
    for file in ["checkpoint.json", "params.safetensors", "run.toml"] {
        assert!(place.path("out").join(file).exists(), "{file}");
    }
    for plot in ["energy.svg", "error.svg", "correlations.svg"] {
        assert!(
            fs::read_to_string(place.path("out").join(plot))
                .unwrap()
                .starts_with("<svg")
        );
    }
    // what was in force is a run file: the same numbers again
    let again = place.train(&["out/run.toml", "-o", "again"]);
    assert!(again.status.success(), "{}", stderr(&again));
    assert_eq!(log, json(&place.path("again/log.json")));
}

#[test]
fn without_arguments_it_helps() {
    let output = Place::new().train(&[]);
    assert_eq!(output.status.code(), Some(2));
    contains_all(&stderr(&output), &["dnetc train", "--operator", "--resume"]);
}

#[test]
fn output_directories_are_numbered_and_never_overwritten() {
    let place = Place::new();
    let toml = place.write(
        "ising.toml",
        &format!(
            "[network]\nfile = '{RBM}'\n[operator]\nname = 'tfim'\n[lattice]\nsites = 4\n\
             [sampler]\nchains = 8\nsamples = 8\n[optimiser]\niterations = 2\n\
             [evaluation]\nsamples = 0\n[output]\nplots = false\n"
        ),
    );
    for _ in 0..2 {
        let output = place.train(&[&toml]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert!(
        place.path("ising/checkpoint.json").exists()
            && place.path("ising-2/checkpoint.json").exists()
    );
    let before = fs::read(place.path("ising/checkpoint.json")).unwrap();
    let text = place.fails(&[&toml, "-o", "ising"]);
    contains_all(&text, &["holds a run", "--resume", "--overwrite"]);
    assert_eq!(
        before,
        fs::read(place.path("ising/checkpoint.json")).unwrap()
    );
}

/// Runs to the end in parts, ended by `signal` each, and compares.
#[cfg(unix)]
#[test]
fn a_killed_run_resumes_to_the_same_bits() {
    let place = Place::new();
    let long = [
        "--iterations",
        "160",
        "--checkpoint-every",
        "3",
        "--no-plots",
    ];
    place.small("whole", &long);
    for (signal, code) in [("-TERM", Some(130)), ("-INT", Some(130)), ("-KILL", None)] {
        let out = format!("parts{signal}");
        let args = [&[RBM, "-o", &out], SMALL, &long].concat();
        let due = |line: &str| line.starts_with("8/160");
        let (rest, ended) = place.interrupted(&training(&args), signal, due);
        assert_eq!(ended, code, "{rest}");
        assert!(
            !place.path(&out).join("result.json").exists(),
            "it was too fast to be killed"
        );
        if code.is_some() {
            contains_all(&rest, &["everything is saved", "--resume"]);
        }
        let resumed = place.train(&["--resume", &out]);
        assert!(resumed.status.success(), "{}", stderr(&resumed));
        contains_all(&stderr(&resumed), &["continuing after"]);
        let log = |dir: &str| fs::read(place.path(dir).join("log.json")).unwrap();
        assert!(log("whole") == log(&out), "the log differs after {signal}");
        let numbers = |dir: &str| {
            // after the header, whose entries are in no order
            let bytes = fs::read(place.path(dir).join("params.safetensors")).unwrap();
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            bytes[8 + header..].to_vec()
        };
        assert!(
            numbers("whole") == numbers(&out),
            "parameters differ after {signal}"
        );
        let energy = |dir: &str| json(&place.path(dir).join("result.json"))["energy"].clone();
        assert_eq!(energy("whole"), energy(&out));
    }
}

#[test]
fn time_limits_checkpoint_and_leave() {
    let place = Place::new();
    let args = [&[RBM, "-o", "out", "--max-time", "0s"], SMALL].concat();
    let output = place.train(&args);
    assert!(output.status.success());
    contains_all(&stderr(&output), &["time is up", "--resume out"]);
    assert!(place.train(&["--resume", "out"]).status.success());
    place.small("whole", &[]);
    assert_eq!(
        json(&place.path("whole/log.json")),
        json(&place.path("out/log.json"))
    );
}

#[test]
fn warm_starts_take_other_sizes_and_couplings_and_say_what_differs() {
    let place = Place::new();
    let model = ["-D", "channels=2", "-D", "depth=1"];
    let first = [&[RESNET, "-o", "first"], SMALL, &model].concat();
    assert!(place.train(&first).status.success());
    let second = [
        &[RESNET, "-o", "second"],
        SMALL,
        &model,
        &["--sites", "8", "-C", "h=0.9", "--from", "first"],
    ]
    .concat();
    let output = place.train(&second);
    assert!(output.status.success(), "{}", stderr(&output));
    // the energy continues where the other run ended
    let per_site = |dir: &str, at: usize, n: f64| {
        json(&place.path(dir).join("log.json"))["Energy"]["Mean"][at]
            .as_f64()
            .unwrap()
            / n
    };
    assert!((per_site("second", 0, 8.0) - per_site("first", 7, 6.0)).abs() < 0.25);
    let wider = [
        &[RESNET, "-o", "third"],
        SMALL,
        &["-D", "channels=3", "-D", "depth=1", "--from", "first"],
    ]
    .concat();
    let text = place.fails(&wider);
    contains_all(&text, &["shape", "embedding", "first/params.safetensors"]);
    place.small("rbm", &[]);
    let text = place.fails(
        &[
            &[RBM, "-o", "larger", "--from", "rbm"],
            SMALL,
            &["--sites", "8"],
        ]
        .concat(),
    );
    contains_all(&text, &["hidden_units/weights", "shape", "number of sites"]);
}

#[test]
fn what_changes_on_resuming_is_said() {
    let place = Place::new();
    place.small("out", &[]);
    let same = place.train(&["--resume", "out", "--no-plots"]);
    assert!(
        same.status.success() && !stderr(&same).contains("note:"),
        "{}",
        stderr(&same)
    );
    let output = place.train(&[
        "--resume",
        "out",
        "--rate",
        "0.01",
        "--shift",
        "0.5",
        "--iterations",
        "10",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    contains_all(
        &stderr(&output),
        &[
            "optimiser.rate was 0.05, now it is 0.01",
            "optimiser.shift was the default, now it is 0.5",
            "optimiser.iterations was 8, now it is 10",
        ],
    );
}

/// Where every part of an iteration's time goes, in the table and as it runs.
#[test]
fn times_are_broken_down() {
    let place = Place::new();
    let output = place.small("out", &["-v"]);
    contains_all(&stderr(&output), &["seconds: sampling ", "solve "]);
    let result = json(&place.path("out/result.json"));
    let parts = result["seconds_by_part"].as_object().unwrap();
    let sum: f64 = parts.values().map(|v| v.as_f64().unwrap()).sum();
    assert_eq!(parts.len(), 5);
    assert!(sum > 0.0 && sum <= result["seconds_training"].as_f64().unwrap());
    assert!(String::from_utf8_lossy(&output.stdout).contains("(sampling "));
}

#[test]
fn damaged_checkpoints_are_refused() {
    let place = Place::new();
    place.small("out", &[]);
    let path = place.path("out/checkpoint.json");
    let good = fs::read_to_string(&path).unwrap();
    let first = good.find("\"params\":\"").unwrap() + "\"params\":\"".len();
    let nan = format!("{}7ff8000000000000{}", &good[..first], &good[first + 16..]);
    for (text, part) in [
        (good[..good.len() / 2].to_owned(), "EOF"),
        (String::new(), "EOF"),
        (
            good.replace("\"version\":1", "\"version\":99"),
            "version 99",
        ),
        (
            good.replace("dnet checkpoint", "something else"),
            "something else",
        ),
        (nan, "NaN"),
    ] {
        fs::write(&path, text).unwrap();
        contains_all(
            &place.fails(&["--resume", "out"]),
            &["checkpoint", part, "--from"],
        );
    }
    contains_all(
        &place.fails(&["--resume", "nowhere"]),
        &["no checkpoint", "nowhere"],
    );
    fs::write(&path, good).unwrap();
    assert!(place.train(&["--resume", "out"]).status.success());
}

#[test]
fn checkpoints_of_another_network_are_refused() {
    let place = Place::new();
    let file = place.write("net.dnet", &fs::read_to_string(RBM).unwrap());
    let output = place.train(&[&[file.as_str(), "-o", "out"], SMALL].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    contains_all(
        &place.fails(&["--resume", "out", "-D", "features=2"]),
        &["hyperparameters", "features"],
    );
    contains_all(
        &place.fails(&["--resume", "out", "-C", "h=2"]),
        &["operator", "--from"],
    );
    contains_all(
        &place.fails(&["--resume", "out", "--sites", "8"]),
        &["lattice", "6 periodic"],
    );
    contains_all(
        &place.fails(&["--resume", "out", "--chains", "64"]),
        &["chains"],
    );
    contains_all(
        &place.fails(&["--resume", "out", "--seed", "7"]),
        &["seed: the checkpoint has 0, now it is 7", "--from"],
    );
    let changed = fs::read_to_string(RBM).unwrap().replace("0.05 *", "0.06 *");
    fs::write(&file, changed).unwrap();
    contains_all(&place.fails(&["--resume", "out"]), &["source has changed"]);
}

#[test]
fn parameters_that_are_not_numbers_are_refused() {
    let place = Place::new();
    place.small("out", &[]);
    let file = place.path("out/params.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len();
    bytes[end - 8..].copy_from_slice(&f64::NAN.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    let text = place.fails(&[&[RBM, "-o", "next", "--from", "out"], SMALL].concat());
    contains_all(&text, &["NaN or infinity"]);
}

#[test]
fn impossible_values_are_named() {
    let place = Place::new();
    let odd = place.write("odd.dnet", "operator h() on chain { for i: X(i) * Y(i) }");
    let bare = place.write("z.dnet", "operator h() on chain { for i: Z(i) }");
    for (more, parts) in [
        (&["-D", "features=0"][..], &["features", "1..=64"][..]),
        (&["-D", "depth=3"], &["depth"]),
        (&["-C", "g=3"], &["g"]),
        (&["--operator", "tfmi"], &["tfmi", "tfim"]),
        (
            &["--operator-file", &odd, "--operator", "h"],
            &["Hermitian"],
        ),
        (
            &["--operator-file", &bare, "--operator", "h"],
            &["diagonal"],
        ),
        (&["--samples", "100"], &["100 samples", "32 chains", "128"]),
        (&["--chains", "0"], &["sampler.chains"]),
        (&["--bound", "rigorous"], &["sampler.bound", "typewriter"]),
        (&["--rate", "nan"], &["optimiser.rate"]),
        (&["--rate", "-1"], &["optimiser.rate", "negative"]),
        (&["--shift=-1"], &["optimiser.shift"]),
        (&["--magnetization", "0"], &["magnetization", "conserve"]),
        (
            &["--sampler", "full-sum", "--sites", "40"],
            &["full sum", "40"],
        ),
        (&["--samples", "3200000000000000000"], &["memory"]),
        (&["--from", "nowhere"], &["nowhere"]),
    ] {
        let text = place.fails(&[&[RBM, "-o", "out"], SMALL, more].concat());
        contains_all(&text, parts);
    }
    contains_all(
        &place.fails(&[RBM, "--operator", "tfim"]),
        &["number of sites", "--sites"],
    );
    contains_all(
        &place.fails(&[RBM, "--sites", "4"]),
        &["no operator", "--operator"],
    );
    contains_all(
        &place.fails(&["nothing.dnet", "--sites", "4"]),
        &["nothing.dnet"],
    );
    contains_all(&place.fails(&["nothing.toml"]), &["nothing.toml"]);
    let toml = place.write("bad.toml", "[sampler]\nchians = 3\n");
    contains_all(&place.fails(&[&toml]), &["chians", "chains", "line 2"]);
}

#[test]
fn the_typewriter_says_what_its_bound_did() {
    let place = Place::new();
    let typewriter = ["--sampler", "typewriter", "--iterations", "3"];
    for bound in ["empirical", "rigorous"] {
        // a basis of so many states is not summed in the end
        let more = [&typewriter[..], &["--bound", bound, "--sites", "20"]].concat();
        let output = place.small(bound, &more);
        let table = String::from_utf8_lossy(&output.stdout).into_owned();
        contains_all(&table, &["screening", bound]);
        let screening = &json(&place.path(bound).join("result.json"))["screening"];
        assert_eq!(screening["bound"], bound);
        assert!(screening["corrections"].as_u64().unwrap() > 0);
        let worst = screening["worst_error_over_bound"].as_f64().unwrap();
        assert!(bound == "empirical" || worst <= 1.0, "{worst}");
        let resumed = place.train(&["--resume", bound]);
        assert!(resumed.status.success(), "{}", stderr(&resumed));
    }
    place.small("sweep", &["--sites", "20", "--iterations", "1"]);
    let result = json(&place.path("sweep/result.json"));
    assert!(result["screening"].is_null());
}

#[test]
fn an_optimisation_that_diverges_is_stopped() {
    let place = Place::new();
    // a rate so large that every step overflows the network
    let args = [
        &[RBM, "-o", "out"],
        SMALL,
        &["--rate", "1e300", "--iterations", "30"],
    ]
    .concat();
    let text = place.fails(&args);
    contains_all(&text, &["optimisation failed", "optimiser.rate", "note:"]);
    let saved = fs::read_to_string(place.path("out/checkpoint.json")).unwrap();
    assert!(saved.contains("\"format\":\"dnet checkpoint\""));
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let place = Place::new();
    place.write("file", "in the way");
    for dir in ["file", "file/below", "/dev/null/below"] {
        let text = place.fails(&[&[RBM, "-o", dir], SMALL].concat());
        contains_all(&text, &[dir, "-o DIR"]);
    }
    assert_eq!(
        fs::read_to_string(place.path("file")).unwrap(),
        "in the way"
    );
}

/// A limit on file sizes stands for the full disk: writes fail half-way.
#[cfg(unix)]
#[test]
fn a_full_disk_loses_nothing() {
    let place = Place::new();
    place.small("out", &["--no-plots"]);
    let files = [
        "checkpoint.json",
        "params.safetensors",
        "log.json",
        "result.json",
    ];
    let read = || files.map(|f| fs::read(place.path("out").join(f)).unwrap());
    let before = read();
    let output = Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 4; exec \"$0\" train --resume out --iterations 200",
        ])
        .arg(env!("CARGO_BIN_EXE_dnetc"))
        .env("DNET_COSTS", "")
        .current_dir(place.path(""))
        .output()
        .unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    contains_all(
        &text,
        &["error: cannot write", "free some space", "--resume"],
    );
    let after = read();
    for k in [0, 1, 3] {
        assert!(before[k] == after[k], "{} was touched", files[k]);
    }
    assert_eq!(
        fs::read_dir(place.path("out")).unwrap().count(),
        5,
        "nothing is left lying about"
    );
    assert!(
        place
            .train(&["--resume", "out", "--iterations", "12"])
            .status
            .success()
    );
}

/// The table cannot be printed, the files are complete.
#[cfg(target_os = "linux")]
#[test]
fn standard_output_may_be_full() {
    let place = Place::new();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let args = [&[RBM, "-o", "out"], SMALL].concat();
    let output = place.command(&args).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    contains_all(&stderr(&output), &["cannot write the output"]);
    assert!(place.path("out/result.json").exists());
}
