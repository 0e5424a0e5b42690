//! The paper's architecture against independently computed log-amplitudes.
//!
//! Every `g*.json` of the directory `DNET_GOLDEN_DIR` (default: the copies in
//! `tests/golden/dysonnet`) is evaluated through the language's example
//! networks and the reference interpreter.

use dnet::check::Program;
use dnet::check::core::NetworkInfo;
use dnet::interp::{Tensor, evaluate};
use dnet::ir::{Boundary, Graph, Lattice, lower};
use num_complex::Complex64;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn golden_dir() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/dysonnet");
    std::env::var_os("DNET_GOLDEN_DIR").map_or(default, PathBuf::from)
}

fn network(g: &Value) -> NetworkInfo {
    let complex = g["complex_output"].as_bool().unwrap_or(false);
    let file = if complex {
        "complex_readout.dnet"
    } else {
        "dysonnet.dnet"
    };
    let program = Program::load(
        &Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("examples")
            .join(file),
    );
    let name = program.networks()[0].name.name.clone();
    let number = |key: &str| g[key].as_i64().unwrap_or_else(|| panic!("{key} missing"));
    program
        .network(&name)
        .with("depth", number("n_layers"))
        .with("dim", number("d_model"))
        .with("states", number("s4_state"))
        .with("kernel", number("conv_kernel"))
        .with("token", number("token_size"))
        .with("hidden", number("logcosh_hidden"))
        .check()
        .unwrap_or_else(|e| panic!("{e}"))
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array()
        .expect("an array")
        .iter()
        .map(|x| x.as_f64().expect("a number"))
        .collect()
}

fn complexes(v: &Value) -> Vec<Complex64> {
    if v.get("data").is_some() {
        return numbers(&v["data"])
            .into_iter()
            .map(Complex64::from)
            .collect();
    }
    let (re, im) = (numbers(&v["re"]), numbers(&v["im"]));
    re.into_iter()
        .zip(im)
        .map(|(re, im)| Complex64::new(re, im))
        .collect()
}

/// Our parameters in the graph's order, from the file's names.
fn params(g: &Value, graph: &Graph) -> Vec<Tensor> {
    let mapping: toml::Table = include_str!("golden/dysonnet/mapping.toml")
        .parse()
        .expect("the mapping file is valid TOML");
    let complex = g["complex_output"].as_bool().unwrap_or(false);
    let mut map: BTreeMap<String, String> = BTreeMap::new();
    let mut add = |t: &toml::Value| {
        for (k, v) in t.as_table().expect("a table") {
            map.insert(k.clone(), v.as_str().expect("a string").to_owned());
        }
    };
    add(&mapping["parameters"]);
    add(&mapping["readout"][if complex { "complex" } else { "real" }]);
    graph
        .params
        .iter()
        .map(|p| {
            let digits: String = p.path.strip_prefix("block_").map_or(String::new(), |r| {
                r.chars().take_while(char::is_ascii_digit).collect()
            });
            let starred = p.path.replacen(
                &format!("block_{digits}/"),
                "block_*/",
                usize::from(!digits.is_empty()),
            );
            let theirs = map
                .get(&starred)
                .unwrap_or_else(|| panic!("no mapping for {}", p.path))
                .replace('*', &digits);
            let (name, part) = match theirs.rsplit_once('.') {
                Some((n, part @ ("re" | "im"))) => (n, part),
                _ => (theirs.as_str(), "data"),
            };
            let entry = &g["params"][name];
            let data = numbers(&entry[part]);
            let shape: Vec<usize> =
                p.ty.shape
                    .iter()
                    .map(|d| match d {
                        dnet::check::core::Dim::Static(n) => *n,
                        d => panic!("unexpected length {d:?}"),
                    })
                    .collect();
            assert_eq!(data.len(), shape.iter().product::<usize>(), "{}", p.path);
            Tensor { shape, data }
        })
        .collect()
}

fn close(got: Complex64, want: Complex64, what: &str) {
    // Phases are compared through exp: they are defined modulo 2 pi.
    let error = (got.re - want.re)
        .abs()
        .max((Complex64::new(0.0, got.im).exp() - Complex64::new(0.0, want.im).exp()).norm());
    assert!(
        error <= 1e-11 * want.norm().max(1.0),
        "{what}: got {got}, want {want}, error {error:e}"
    );
}

#[test]
fn golden_log_amplitudes() {
    let dir = golden_dir();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|f| f.expect("a directory entry").path())
        .filter(|p| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with('g'))
                && p.extension().is_some_and(|e| e == "json")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no g*.json in {}", dir.display());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        let g: Value = serde_json::from_str(&text).expect("valid JSON");
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let info = network(&g);
        let graph = lower(&info).graph;
        let params = params(&g, &graph);
        let lattice = Lattice::chain(g["N"].as_u64().expect("N") as usize, Boundary::Periodic);
        let log_psi = |s: &[i8]| {
            evaluate(&graph, lattice, &params, s)
                .unwrap_or_else(|e| panic!("{name}: {e}"))
                .log_psi()
        };
        let spins: Vec<Vec<i8>> = g["spins"]
            .as_array()
            .expect("spins")
            .iter()
            .map(|c| numbers(c).iter().map(|x| *x as i8).collect())
            .collect();
        let want = complexes(&g["log_psi"]);
        let single = complexes(&g["log_ratio_single_flip"]);
        assert_eq!(
            (want.len(), single.len()),
            (spins.len(), spins.len() * lattice.sites())
        );
        for (k, s) in spins.iter().enumerate() {
            let base = log_psi(s);
            close(base, want[k], &format!("{name} configuration {k}"));
            let ratios = &single[k * lattice.sites()..(k + 1) * lattice.sites()];
            for (i, r) in ratios.iter().enumerate() {
                let mut t = s.clone();
                t[i] = -t[i];
                close(
                    log_psi(&t) - base,
                    *r,
                    &format!("{name} configuration {k} flip {i}"),
                );
            }
        }
        let doubles = g["double_flips_of_conf0"].as_array().expect("double flips");
        let want = complexes(&g["log_ratio_double_flip"]);
        for (pair, want) in doubles.iter().zip(want) {
            let mut t = spins[0].clone();
            for i in numbers(pair) {
                t[i as usize] = -t[i as usize];
            }
            close(
                log_psi(&t) - log_psi(&spins[0]),
                want,
                &format!("{name} double flip {pair}"),
            );
        }
    }
}
