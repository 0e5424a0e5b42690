//! The costs strategies are chosen by: where they come from, what keeps them.

use dnet::back::cpu::calibrate::{counts, solve};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const JASTROW: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/jastrow.dnet");

/// A folder with a cache of its own.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().expect("a folder"))
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    fn write(&self, machine: &str, function: &str) {
        let text = format!(
            "machine = \"{machine}\"\nfunction = {function}\noperation = 1.5\ndot = 2.0\n\
             transform = 9.0\nlookup = 1.0\ncopy = 1.0\nstep = 30.0\n"
        );
        std::fs::create_dir_all(self.path("cache")).expect("a folder");
        std::fs::write(self.path("cache/costs.toml"), text).expect("written");
    }
    fn dnetc(&self, args: &[&str]) -> Output {
        self.dnetc_with(args, None)
    }
    /// With a file named in `DNET_COSTS`.
    fn dnetc_with(&self, args: &[&str], costs: Option<&Path>) -> Output {
        Command::new(env!("CARGO_BIN_EXE_dnetc"))
            .args(args)
            .current_dir(self.0.path())
            .env("DNET_CACHE", self.path("cache"))
            .env_remove("DNET_COSTS")
            .envs(costs.map(|path| ("DNET_COSTS", path)))
            .output()
            .expect("dnetc runs")
    }
    fn succeeds(&self, args: &[&str]) -> (String, String) {
        let done = self.dnetc(args);
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        let (out, err) = (text(&done.stdout), text(&done.stderr));
        assert!(done.status.success(), "{args:?}: {err}");
        (out, err)
    }
    /// The machine whose costs a checkpoint stores.
    fn stored(&self, run: &str) -> String {
        let path: &Path = &self.path(run).join("checkpoint.json");
        let text = std::fs::read_to_string(path).expect("a checkpoint");
        let saved: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        saved["costs"]["machine"]
            .as_str()
            .expect("a name")
            .to_owned()
    }
}

#[test]
fn inspect_names_the_costs_in_force() {
    let place = Place::new();
    let inspect = ["inspect", JASTROW, "--sites", "8"];
    let (out, err) = place.succeeds(&inspect);
    assert!(out.contains("reference machine"), "{out}");
    assert!(!err.contains("calibration"), "{err}");
    place.write("a calibrated machine", "7.25");
    let (out, _) = place.succeeds(&inspect);
    assert!(
        out.contains("a calibrated machine: function 7.250"),
        "{out}"
    );
    for wrong in ["-1.0", "\"much\"", "nan"] {
        place.write("a broken machine", wrong);
        let (out, err) = place.succeeds(&inspect);
        assert!(out.contains("reference machine"), "{out}");
        for words in ["costs.toml", "cannot be used", "bench --calibrate"] {
            assert!(err.contains(words), "{wrong}: {err}");
        }
    }
}

/// A file that is named counts, an empty name none at all; and the library itself reads
/// nothing that it was not told to read.
#[test]
fn a_variable_names_the_costs() {
    let place = Place::new();
    place.write("in the cache folder", "7.25");
    let named = place.path("elsewhere.toml");
    std::fs::copy(place.path("cache/costs.toml"), &named).expect("copied");
    let text = std::fs::read_to_string(&named).expect("readable");
    std::fs::write(&named, text.replace("in the cache folder", "elsewhere")).expect("written");
    let inspect = ["inspect", JASTROW, "--sites", "8"];
    for (costs, words) in [
        (None, "in the cache folder: function 7.250"),
        (Some(named.as_path()), "elsewhere: function 7.250"),
        (Some(Path::new("")), "reference machine"),
    ] {
        let done = place.dnetc_with(&inspect, costs);
        let out = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success() && out.contains(words), "{out}");
    }
    let done = place.dnetc_with(&["bench", "--calibrate"], Some(Path::new("")));
    let err = String::from_utf8_lossy(&done.stderr);
    assert!(
        !done.status.success() && err.contains("DNET_COSTS"),
        "{err}"
    );
    assert_eq!(
        dnet::back::costs::in_force().machine,
        dnet::back::costs::REFERENCE
    );
}

#[test]
fn a_resumed_run_keeps_its_costs() {
    let place = Place::new();
    place.write("first", "10.0");
    let train = [
        "train",
        JASTROW,
        "--operator",
        "tfim",
        "--sites",
        "6",
        "--no-plots",
    ];
    let small = ["--samples", "32", "--chains", "4", "-o", "run"];
    let start = [&train[..], &small, &["--iterations", "2"]].concat();
    place.succeeds(&start);
    assert_eq!(place.stored("run"), "first");
    place.write("second", "40.0");
    place.succeeds(&[
        "train",
        "--resume",
        "run",
        "--iterations",
        "4",
        "--no-plots",
    ]);
    assert_eq!(place.stored("run"), "first");
    let other = [
        &train[..],
        &small[..4],
        &["-o", "other", "--iterations", "2"],
    ]
    .concat();
    place.succeeds(&other);
    assert_eq!(place.stored("other"), "second");
}

/// What it measures is the machine's business; that it is written and used is ours.
#[test]
fn calibration_needs_no_network_and_measuring_does() {
    let place = Place::new();
    let done = place.dnetc(&["bench"]);
    let err = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && err.contains("<FILE>"), "{err}");
    let (out, _) = place.succeeds(&["bench", "--calibrate"]);
    assert!(out.contains("costs.toml"), "{out}");
    let written = std::fs::read_to_string(place.path("cache/costs.toml")).expect("written");
    let environment = |line: &&str| line.starts_with("environment = ");
    let cost: f64 = (written.lines().find(environment))
        .and_then(|line| line.split_once(" = ")?.1.parse().ok())
        .expect("the cost of environments");
    assert!(cost > 0.0, "{written}");
    let (out, err) = place.succeeds(&["inspect", JASTROW, "--sites", "8"]);
    assert!(!out.contains("reference machine"), "{out}");
    assert!(!err.contains("cannot be used"), "{err}");
}

/// From times that known costs would give the probes, those costs come back; and every
/// term matters to some probe.
#[test]
fn costs_are_found_from_times() {
    let known = [0.1, 1.0, 0.2, 0.15, 0.9, 0.3, 0.25, 40.0];
    let samples: Vec<([f64; 8], f64)> = (counts().expect("probes").iter())
        .map(|counts| {
            let terms = counts.terms();
            (terms, terms.iter().zip(known).map(|(n, x)| n * x).sum())
        })
        .collect();
    for (term, known) in known.iter().enumerate() {
        let share = |(counts, time): &([f64; 8], f64)| counts[term] * known / time;
        let most = samples.iter().map(share).fold(0.0, f64::max);
        assert!(
            most > 0.1,
            "no probe spends its time on term {term}: {most}"
        );
    }
    for (k, (found, known)) in solve(&samples).iter().zip(known).enumerate() {
        let error = (found / known - 1.0).abs();
        assert!(error < 0.05, "term {k}: {found} instead of {known}");
    }
}
