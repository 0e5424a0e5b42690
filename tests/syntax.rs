//! The parser, the formatter and their limits.

#[path = "gen/syntax.rs"]
mod generator;

use dnet::diag::{Code, Diagnostic, render};
use dnet::syntax::ast::{Body, ItemKind, Module, SourceMap, StmtKind};
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

/// Source and tree in one snapshot.
fn snapshot(name: &str) {
    let text = std::fs::read_to_string(format!("tests/in/syntax/{name}.dnet")).unwrap();
    assert_formats(&text);
    let both = format!(
        "{text}\n---- tree\n{}\n---- formatted\n{}",
        dumped(&text),
        format(&text).unwrap()
    );
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("out/syntax");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, both));
}

#[test]
fn networks_and_functions() {
    snapshot("network");
}

#[test]
fn operators() {
    snapshot("operator");
}

#[test]
fn comments_in_odd_places() {
    snapshot("comments");
}

#[test]
fn precedence() {
    snapshot("precedence");
}

/// Every kind of mistake with its message, in one snapshot.
#[test]
fn syntax_errors() {
    let text = std::fs::read_to_string("tests/in/syntax/errors.txt").unwrap();
    let mut out = String::new();
    for case in text.split("----\n") {
        let mut sources = SourceMap::default();
        let file = sources.add("test.dnet", case);
        let errors = parse(&sources, file).expect_err(case);
        assert!(
            errors
                .iter()
                .all(|e| e.primary.span.end as usize <= case.len())
        );
        out += &render::human(&sources, &errors, false);
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("out/syntax");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("errors", out));
}

#[test]
fn every_broken_item_is_reported() {
    let text = "fn a(x) = \n/// fine\nfn b(x) = x\nnetwork c() { let y = (1 \n}\nfn d() = )\noperator e() { }";
    let errors = parsed(text).unwrap_err();
    let starts: Vec<u32> = errors.iter().map(|e| e.primary.span.start).collect();
    assert_eq!(errors.len(), 3, "{errors:#?}");
    assert!(starts.is_sorted());
}

#[test]
fn documentation_is_attached() {
    let module = parsed(
        "//! file\n\n/// one\n///  two\n// no\n/// three\nfn f() = 1\n//// ruler\nfn g() = 2",
    )
    .unwrap();
    assert_eq!(module.docs, ["file"]);
    assert_eq!(module.items[0].docs, ["one", " two", "three"]);
    assert!(module.items[1].docs.is_empty());
    assert_eq!(module.comments.len(), 6);
}

#[test]
fn spans_cover_the_text_exactly() {
    let text = "fn f(x) = a + b // c\n    // d\n\nfn g() { return x |> f(1) as l // e\n }\n";
    let mut sources = SourceMap::default();
    let file = sources.add("test.dnet", text);
    let module = parse(&sources, file).unwrap();
    let of = |span| sources.text(span);
    assert_eq!(of(module.items[0].span), "fn f(x) = a + b");
    assert_eq!(
        of(module.items[1].span),
        "fn g() { return x |> f(1) as l // e\n }"
    );
    let ItemKind::Fn(g) = &module.items[1].kind else {
        panic!()
    };
    let Body::Block(block) = &g.body else {
        panic!()
    };
    assert_eq!(of(block.span), "{ return x |> f(1) as l // e\n }");
    assert_eq!(of(block.stmts[0].span), "return x |> f(1) as l");
    let StmtKind::Return(value) = &block.stmts[0].kind else {
        panic!()
    };
    assert_eq!(of(value.span), "x |> f(1) as l");
}

#[test]
fn limits() {
    let deep = |open: &str, close: &str, n: usize| {
        format!("const a = {}1{}", open.repeat(n), close.repeat(n))
    };
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("f(", ")"),
        ("f(x, k: ", ")"),
        ("if a { 1 } else { ", " }"),
        ("sum(r in 0..2: ", ")"),
    ] {
        assert_eq!(codes(&deep(open, close, 100)), [], "{open}");
        assert_eq!(codes(&deep(open, close, 100_000)), [Code::E0002], "{open}");
        // Without the closing half.
        assert_eq!(codes(&deep(open, "", 100_000)), [Code::E0002], "{open}");
        assert_eq!(codes(&deep("", close, 100_000)), [Code::E0001], "{close}");
    }
    for repeated in [
        "-",
        "not ",
        "1 + ",
        "2 ^ ",
        "1 ^ -",
        "x |> f ",
        "a or ",
        "if a { 1 } else if b { 2 } else ",
        "f(1) |> f(",
        "a < ",
    ] {
        let found = codes(&format!("const a = {} x", repeated.repeat(100_000)));
        assert!(
            found == [Code::E0002] || found == [Code::E0001],
            "{repeated}: {found:?}"
        );
    }
    for (repeated, code) in [
        ("-", Code::E0002),
        ("not ", Code::E0002),
        ("1 + ", Code::E0002),
        ("2 ^ ", Code::E0002),
    ] {
        assert_eq!(
            codes(&format!("const a = {}1", repeated.repeat(300))),
            [],
            "{repeated}"
        );
        assert_eq!(
            codes(&format!("const a = {}1", repeated.repeat(100_000))),
            [code],
            "{repeated}"
        );
    }
    let blocks = format!(
        "network a() {{ {} {} }}",
        "if a { ".repeat(100_000),
        "}".repeat(100_000)
    );
    assert_eq!(codes(&blocks), [Code::E0002]);
    let chain = format!(
        "network a() {{ if a {{ }} {} }}",
        "else if b { }".repeat(50_000)
    );
    assert_eq!(codes(&chain), [Code::E0002]);
    assert_eq!(codes(&" ".repeat((16 << 20) + 1)), [Code::E0002]);
    assert_eq!(
        codes(&format!("const a = {}", "9".repeat(10_000))),
        [Code::E0204]
    );
    assert_eq!(codes("const a = 18446744073709551616"), [Code::E0204]);
    assert_eq!(codes("const a = 1e999"), [Code::E0204]);
    assert_eq!(codes("const a = 18446744073709551615 + 1e308i"), []);
}

#[test]
fn ten_megabytes_on_one_line() {
    for (unit, head) in [
        (" ", ""),
        ("(", "const a = "),
        ("a", "const "),
        ("1+", "const a = "),
        ("/", ""),
        ("\"", "const a = "),
        ("{}", "fn f() "),
        ("é", "const a = "),
        ("f(1,", "const a = "),
        ("fn f() = 1 ", ""),
    ] {
        let text = format!("{head}{}", unit.repeat(10_000_000 / unit.len()));
        let found = codes(&text);
        let valid = matches!(unit, " " | "/" | "fn f() = 1 ");
        assert_eq!(found.is_empty(), valid, "{unit}: {found:?}");
    }
}

#[test]
fn bytes_that_are_not_text() {
    use dnet::syntax::{ast::FileId, source_from_bytes};
    let error = source_from_bytes(FileId(0), "a.dnet", b"fn f()\n = \xff".to_vec()).unwrap_err();
    assert_eq!(error.code, Code::E0003);
    assert_eq!(
        error.message,
        "`a.dnet` is not UTF-8 text (line 2, byte 10)"
    );
    assert_eq!(
        source_from_bytes(FileId(0), "a", vec![b' '; (16 << 20) + 1])
            .unwrap_err()
            .code,
        Code::E0002
    );
    assert_eq!(
        source_from_bytes(FileId(0), "a", "\u{feff}x".into()).unwrap(),
        "x"
    );
    // Line ends of other systems and stray control characters.
    assert_eq!(codes("const a = 1\r\n// remark\r\nconst b = 2\r\n"), []);
    assert_eq!(codes("const a = 1\0"), [Code::E0001]);
}

/// Cutting a valid file anywhere gives a tree or errors with spans inside it.
#[test]
fn truncations() {
    for name in ["network", "operator", "comments"] {
        let text = std::fs::read_to_string(format!("tests/in/syntax/{name}.dnet")).unwrap();
        for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
            if let Err(errors) = parsed(&text[..end]) {
                assert!(
                    errors
                        .iter()
                        .all(|e| e.primary.span.end as usize <= end && !e.message.is_empty())
                );
            }
        }
    }
}

#[test]
fn embedded_and_example_files_parse_and_format() {
    let mut seen = 0;
    for directory in ["stdlib", "examples"] {
        let Ok(entries) = std::fs::read_dir(directory) else {
            continue;
        };
        for path in entries
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == "dnet"))
        {
            assert_formats(&std::fs::read_to_string(path).unwrap());
            seen += 1;
        }
    }
    assert!(seen > 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn formatting_keeps_tree_and_comments(text in generator::module()) {
        assert_formats(&text);
    }

    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        let _ = parsed(&text);
    }

    /// Tokens of the language in any order.
    #[test]
    fn any_tokens_are_answered(tokens in prop::collection::vec(prop::sample::select(TOKENS.to_vec()), 0..60)) {
        let text = tokens.concat();
        if let Err(errors) = parsed(&text) {
            let mut sources = SourceMap::default();
            sources.add("test.dnet", text.as_str());
            prop_assert!(!errors.is_empty());
            prop_assert!(render::human(&sources, &errors, false).contains("error["));
        } else {
            assert_formats(&text);
        }
    }

    /// A valid module with one character replaced.
    #[test]
    fn mutations_are_answered(text in generator::module(), at in any::<prop::sample::Index>(), with in any::<char>()) {
        let mut characters: Vec<char> = text.chars().collect();
        if !characters.is_empty() {
            let at = at.index(characters.len());
            characters[at] = with;
        }
        let _ = parsed(&characters.into_iter().collect::<String>());
    }
}

const TOKENS: [&str; 40] = [
    "fn ",
    "f",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    " network n() ",
    "full ",
    "let ",
    "x",
    " = ",
    "+=",
    "+",
    "-",
    "not ",
    "^",
    "1",
    "0.5",
    "2i",
    "..",
    "..=",
    ",",
    ":",
    "::",
    "|>",
    " as ",
    "if ",
    " else ",
    "repeat ",
    "use ",
    "\"s\"",
    "\"",
    "// c\n",
    "/// d\n",
    "\n\n",
    "sum(",
    " in ",
    "const a",
];
