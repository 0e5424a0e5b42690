//! Reference files of the paper's architecture: networks and parameters.
#![allow(dead_code)] // each test crate uses a part of it

use dnet::check::Program;
use dnet::check::core::NetworkInfo;
use dnet::interp::Tensor;
use dnet::ir::Graph;
use num_complex::Complex64;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the reference files are.
pub fn golden_dir() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/dysonnet");
    std::env::var_os("DNET_GOLDEN_DIR").map_or(default, PathBuf::from)
}

/// The example network at a file's hyperparameters.
pub fn network(g: &Value) -> NetworkInfo {
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

/// A list of numbers.
pub fn numbers(v: &Value) -> Vec<f64> {
    v.as_array()
        .expect("an array")
        .iter()
        .map(|x| x.as_f64().expect("a number"))
        .collect()
}

/// Complex numbers, given by parts.
pub fn complexes(v: &Value) -> Vec<Complex64> {
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
pub fn params(g: &Value, graph: &Graph) -> Vec<Tensor> {
    let mapping: toml::Table = include_str!("../golden/dysonnet/mapping.toml")
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
