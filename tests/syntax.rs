//! The parser, the formatter and their limits.

#[path = "gen/syntax.rs"]
mod generator;

use dnet::diag::{Code, Diagnostic, render};
use dnet::syntax::ast::{Module, SourceMap};
use dnet::syntax::{dump, format, parse};
use proptest::prelude::*;

fn parsed(text: &str) -> Result<Module, Vec<Diagnostic>> {
    let mut sources = SourceMap::default();
    let file = sources.add("test.dnet", text);
    parse(&sources, file)
}

fn dumped(text: &str) -> String {
    match parsed(text) {
        Ok(module) => dump::module(&module),
        Err(errors) => panic!("{errors:#?}\n{text}"),
    }
}

fn codes(text: &str) -> Vec<Code> {
    parsed(text).map_or_else(
        |errors| errors.iter().map(|e| e.code).collect(),
        |_| Vec::new(),
    )
}

/// Comments in order.
fn comments(text: &str) -> Vec<String> {
    parsed(text)
        .unwrap()
        .comments
        .into_iter()
        .map(|c| c.text)
        .collect()
}

fn assert_formats(text: &str) {
    let once = format(text).unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"));
    assert_eq!(
        dumped(text),
        dumped(&once),
        "the tree changed:\n{text}\n--- to ---\n{once}"
    );
    assert_eq!(
        comments(text),
        comments(&once),
        "comments changed:\n{text}\n--- to ---\n{once}"
    );
    let twice = format(&once).unwrap();
    assert_eq!(once, twice, "not a fixed point");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn formatting_keeps_tree_and_comments(text in generator::module()) {
        assert_formats(&text);
    }
}
