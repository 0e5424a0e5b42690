//! What the integration tests of operators share.
#![allow(dead_code)] // each test crate uses a part of it

use dnet::check::core::Static;
use dnet::check::operator::{OperatorInfo, elaborate};
use dnet::diag::Diagnostic;
use dnet::ir::{Boundary, Lattice};
use dnet::syntax::ast::{ItemKind, SourceMap};
use dnet::vmc::operator::{Operator, compile};

/// A chain of n spins.
pub fn chain(n: usize, boundary: Boundary) -> Lattice {
    Lattice::chain(n, boundary)
}

/// Elaborates one operator of a text.
pub fn elaborate_text(
    text: &str,
    name: &str,
    couplings: &[(&str, Static)],
) -> Result<OperatorInfo, Vec<Diagnostic>> {
    let mut sources = SourceMap::default();
    let file = sources.add("<test>", text);
    let module = dnet::syntax::parser::parse(&sources, file)?;
    let item = module.items.iter().find_map(|item| match &item.kind {
        ItemKind::Operator(o) if o.name.name == name => Some(o),
        _ => None,
    });
    let couplings = couplings
        .iter()
        .map(|&(name, value)| (name.to_owned(), value))
        .collect();
    elaborate(
        item.unwrap_or_else(|| panic!("no operator {name}")),
        &module,
        &couplings,
    )
}

/// An operator of the standard library on a lattice.
pub fn operator_with(name: &str, lattice: Lattice, couplings: &[(&str, Static)]) -> Operator {
    let text = include_str!("../../stdlib/operators.dnet");
    let info = elaborate_text(text, name, couplings).unwrap_or_else(|d| panic!("{name}: {d:#?}"));
    compile(&info, lattice).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// With its default couplings.
#[allow(dead_code)] // not every test file needs it
pub fn operator(name: &str, lattice: Lattice) -> Operator {
    operator_with(name, lattice, &[])
}

/// A file of reference data.
pub fn golden(name: &str) -> serde_json::Value {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")))
        .unwrap()
}
