//! The parser, the formatter and their limits.

use dnet::syntax::ast::SourceMap;

#[test]
fn parses_samples() {
    for path in ["network", "operator"] {
        let text = std::fs::read_to_string(format!("tests/in/syntax/{path}.dnet")).unwrap();
        let mut sources = SourceMap::default();
        let file = sources.add(path, text);
        let module = dnet::syntax::parse(&sources, file);
        println!("{module:#?}");
        module.unwrap();
    }
}
#[test]
fn err_scratch() {
    for text in ["fn f(x = 3", "network a() { let x = 3 4 }", "fn f(x) = 3;", "fn f(x) = (3, 4", "network a() on ring { }", "fn f(x) = 2x + 1",
        "let x = 3", "autoregressive network f() {}", "fn cell(x) = 3", "network a() { let for = 3 }", "fn f(x) = a ** b", "fn f(x) = \"abc", "mixer f(x) { }", "fn f(x: foo) = 1",
        "network a() { x == 3 }", "network a() {\n let y = (3\n let x = 3\n}\nfn f() = 1", "network a() { let x: foo = 3 }", "network a() { repeat 3 as b }", "operator h() { for i < 3: X(i) }", "operator h() { X(i) }",
        "fn f(x) = x |> 3", "fn f(x) = é", "fn f(x) = .5", "fn f(x) = 5.", "fn f(x) = f(a b)", "use std::", "use std::nn::{a b}", "const x 3", "fn f(x) = if a { b }", "network a() { param x = 3 }", "network a() { while x {} }"] {
        let mut sources = SourceMap::default();
        let file = sources.add("f", text);
        for e in dnet::syntax::parse(&sources, file).unwrap_err() {
            println!("{text:?}: {} [{}..{}: {}] {:?} {:?}", e.message, e.primary.span.start, e.primary.span.end, e.primary.message, e.secondary.iter().map(|s| &s.message).collect::<Vec<_>>(), e.help);
        }
    }
}
