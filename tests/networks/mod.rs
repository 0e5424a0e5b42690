//! The networks of the examples, as they are or at sizes small enough for
//! everything to be checked element by element.
#![allow(dead_code)] // each test crate uses a part of it

use dnet::check::Program;
use dnet::check::core::NetworkInfo;
use dnet::check::lattice::{Sites, check};
use dnet::ir::{Boundary, Lattice};
use dnet::verify::cases;
use std::path::{Path, PathBuf};

/// Sizes of small networks: structure as in the file, tensors small.
const SMALL: [(&str, i64); 5] = [
    ("dim", 4),
    ("states", 2),
    ("hidden", 2),
    ("features", 1),
    ("kernel", 3),
];

/// The path of an example.
pub fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(file)
}

/// All files with networks or operators among the examples, by name.
pub fn examples() -> Vec<(String, Program)> {
    let mut all: Vec<(String, Program)> = std::fs::read_dir(path(""))
        .expect("the examples")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "dnet"))
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            (name.into_owned(), Program::load(&path))
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Every network of a file, as written.
pub fn networks(program: &Program) -> Vec<NetworkInfo> {
    let names = program.networks().into_iter().map(|n| &n.name.name);
    names
        .map(|name| {
            let info = program.network(name).check();
            info.unwrap_or_else(|e| panic!("{e}"))
        })
        .collect()
}

/// Every network of a file, made small.
pub fn small_networks(program: &Program) -> Vec<NetworkInfo> {
    let small = |plain: NetworkInfo| {
        let mut request = program.network(&plain.name);
        for (key, value) in SMALL.iter().filter(|(k, _)| plain.hyper.contains_key(*k)) {
            request = request.with(key, *value);
        }
        request.check().unwrap_or_else(|e| panic!("{e}"))
    };
    networks(program).into_iter().map(small).collect()
}

/// The lattices a network is verified on; see [`cases::lattices`].
pub fn lattices(program: &Program, info: &NetworkInfo) -> Vec<Lattice> {
    cases::lattices(info, &|l| {
        let sites = Sites {
            extent: l.extent,
            periodic: l.boundary == Boundary::Periodic,
        };
        check(program.modules(), info, sites).is_empty()
    })
}
