//! `dnetc scan` from outside: a grid is run, interrupted, resumed.

mod workplace;

use std::fs;
use std::path::Path;
use workplace::{Workplace, json, stderr};

const RESNET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/resnet.dnet");

/// Four points of seconds: two sizes, two fields.
const GRID: &str = "sites = [6, 8]\ncouplings = { h = [1.2, 0.8] }\n";

fn run_file(iterations: usize, scan: &str) -> String {
    format!(
        "seed = 2\nprecision = 'f64'\n[network]\nfile = '{RESNET}'\n\
         hyperparameters = {{ channels = 2, depth = 1 }}\n[operator]\nname = 'tfim'\n\
         [sampler]\nchains = 32\nsamples = 64\nburn_in = 4\n\
         [optimiser]\niterations = {iterations}\nrate = 0.05\n\
         [evaluation]\nsamples = 256\nburn_in = 4\n[output]\ncheckpoint_every = 4\n\
         [scan]\n{scan}"
    )
}

/// Everything a finished scan says, byte by byte.
fn finished(place: &Workplace, scan: &str) -> [Vec<u8>; 2] {
    ["results.csv", "results.json"].map(|f| fs::read(place.path(scan).join(f)).unwrap())
}

#[test]
fn a_grid_becomes_a_table_and_plots() {
    let place = Workplace::new();
    place.write("grid.toml", &run_file(12, GRID));
    let listed = place.succeeds(&["scan", "grid.toml", "--list"]);
    assert_eq!(
        String::from_utf8_lossy(&listed.stdout),
        "sites=6, h=1.2\nsites=6, h=0.8   (from sites=6, h=1.2)\n\
         sites=8, h=1.2   (from sites=6, h=1.2)\nsites=8, h=0.8   (from sites=8, h=1.2)\n"
    );
    let output = place.succeeds(&["scan", "grid.toml"]);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        table.contains("<m^2>") && table.contains("files: grid"),
        "{table}"
    );
    assert!(stderr(&output).contains("point 4 of 4: sites=8, h=0.8"));
    let results = json(&place.path("grid/results.json"));
    let points = results["points"].as_array().unwrap();
    assert_eq!(points.len(), 4);
    for (point, (sites, h)) in points.iter().zip([(6, 1.2), (6, 0.8), (8, 1.2), (8, 0.8)]) {
        assert_eq!(
            (point["sites"].as_u64(), point["h"].as_f64()),
            (Some(sites), Some(h))
        );
        let own = place
            .path("grid")
            .join(point["directory"].as_str().unwrap());
        let result = json(&own.join("result.json"));
        assert_eq!(point["energy"], result["energy"]);
        assert_eq!(result["couplings"]["h"], h);
        let (energy, error) = (&point["energy"], &point["energy_error"]);
        let exact = point["exact_energy"].as_f64().unwrap();
        let above = energy.as_f64().unwrap() - exact;
        assert!(
            above > -4.0 * error.as_f64().unwrap() && above < 0.2 * exact.abs(),
            "{point}"
        );
        assert!(point["m2"].as_f64().unwrap() > 0.0);
    }
    // all points but the first began better than from initial parameters
    place.write("cold.toml", &run_file(1, &format!("warm = false\n{GRID}")));
    place.succeeds(&["scan", "cold.toml"]);
    for (k, point) in points.iter().enumerate() {
        let log = Path::new(point["directory"].as_str().unwrap()).join("log.json");
        let first = |scan: &str| {
            let log = json(&place.path(scan).join(&log));
            log["Energy"]["Mean"][0].as_f64().unwrap()
        };
        let (warm, cold) = (first("grid"), first("cold"));
        assert!(
            if k == 0 { warm == cold } else { warm < cold },
            "{warm} {cold}"
        );
    }
    // columns that `collapse` understands
    let csv = fs::read_to_string(place.path("grid/results.csv")).unwrap();
    let header: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    for name in ["h", "size", "energy", "m2", "m2_error"] {
        assert!(header.contains(&name), "{name} in {header:?}");
    }
    assert_eq!(csv.lines().count(), 5);
    let width = header.len();
    assert!(csv.lines().all(|l| l.split(',').count() == width));
    for plot in ["energy.svg", "error.svg", "m2.svg"] {
        let svg = fs::read_to_string(place.path("grid").join(plot)).unwrap();
        assert_eq!(svg.matches("<circle").count(), 4, "{plot}");
    }
    // again: nothing is left to do, and nothing changes
    let before = finished(&place, "grid");
    let again = place.succeeds(&["scan", "--resume", "grid"]);
    assert!(!stderr(&again).contains("point 1"));
    assert_eq!(before, finished(&place, "grid"));
    let text = place.fails(&["scan", "grid.toml", "-o", "grid"]);
    assert!(
        text.contains("holds a run") && text.contains("--resume grid"),
        "{text}"
    );
}

/// Ended by a signal in the middle of a point, by a limit between points.
#[cfg(unix)]
#[test]
fn an_interrupted_scan_resumes_to_the_same_bytes() {
    let place = Workplace::new();
    place.write("grid.toml", &run_file(40, GRID));
    place.succeeds(&["scan", "grid.toml", "-o", "whole"]);
    for signal in ["-INT", "-KILL"] {
        let out = format!("parts{signal}");
        let mut second = false;
        let due = |line: &str| {
            second |= line.starts_with("point 2");
            second && line.starts_with("6/40")
        };
        let args = ["scan", "grid.toml", "-o", &out];
        let (rest, code) = place.interrupted(&args, signal, due);
        if signal == "-INT" {
            assert_eq!(code, Some(130), "{rest}");
            assert!(
                rest.contains("after 1 points") && rest.contains("dnetc scan --resume"),
                "{rest}"
            );
        }
        let first = fs::read_dir(place.path(&out).join("points"))
            .unwrap()
            .count();
        assert_eq!(first, 2, "it was to end in the second point");
        let output = place.succeeds(&["scan", "--resume", &out, "--max-time", "1h"]);
        assert!(
            !stderr(&output).contains("point 1 of"),
            "{}",
            stderr(&output)
        );
        assert!(stderr(&output).contains("continuing after") || signal == "-KILL");
        assert!(
            finished(&place, "whole") == finished(&place, &out),
            "{signal}"
        );
    }
    let output = place.succeeds(&["scan", "grid.toml", "-o", "late", "--max-time", "0s"]);
    assert!(stderr(&output).contains("time is up after 0 points"));
    place.succeeds(&["scan", "--resume", "late"]);
    assert!(finished(&place, "whole") == finished(&place, "late"));
}

#[test]
fn what_cannot_be_scanned_is_said_before_the_first_point() {
    let place = Workplace::new();
    for (scan, parts) in [
        ("sites = [6]\ncouplings = { g = [1] }", ["`g`", "coupling"]),
        ("couplings = { h = [1, 1] }", ["twice", "once"]),
        (
            "sites = [6]\nhyperparameters = { channels = [2, 0] }",
            ["channels", "1..="],
        ),
        ("sites = [6, 0]", ["sites=0", "positive"]),
        ("", ["no axis", "couplings"]),
        ("coupling = { h = [1] }", ["coupling", "couplings"]),
    ] {
        place.write("bad.toml", &run_file(2, scan));
        let output = place.dnetc(&["scan", "bad.toml"]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        for part in parts {
            assert!(text.contains(part), "`{part}` is not in:\n{text}");
        }
        assert!(!place.path("bad/points").exists(), "something was started");
    }
    place.write("grid.toml", &run_file(2, GRID));
    let text = place.fails(&["train", "grid.toml"]);
    assert!(
        text.contains("[scan]") && text.contains("dnetc scan"),
        "{text}"
    );
    let plain = run_file(2, "").replace("[scan]\n", "");
    place.write("plain.toml", &plain);
    assert!(place.fails(&["scan", "plain.toml"]).contains("dnetc train"));
    assert!(
        place
            .fails(&["scan", "--resume", "nowhere"])
            .contains("holds no scan")
    );
}

#[test]
fn a_point_that_diverges_is_a_row_and_the_scan_goes_on() {
    let place = Workplace::new();
    let scan = "seeds = [1, 2]\n[scan.couplings]\nh = [0.5]\n";
    let text = run_file(30, scan).replace("rate = 0.05", "rate = 1e300");
    let text = text.replace("[optimiser]", "[lattice]\nsites = 6\n[optimiser]");
    place.write("wild.toml", &text);
    let said = place.fails(&["scan", "wild.toml"]);
    assert!(
        said.contains("2 of 2 points failed") && said.contains("optimisation failed"),
        "{said}"
    );
    let results = json(&place.path("wild/results.json"));
    for point in results["points"].as_array().unwrap() {
        assert!(
            point["failure"]
                .as_str()
                .unwrap()
                .contains("optimisation failed")
        );
        assert_eq!(point["energy"], serde_json::Value::Null);
    }
    let before = finished(&place, "wild");
    assert!(
        place
            .fails(&["scan", "--resume", "wild"])
            .contains("2 of 2")
    );
    assert_eq!(before, finished(&place, "wild"));
}
