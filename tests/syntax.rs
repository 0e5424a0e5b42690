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
