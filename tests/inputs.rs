//! Programs that must be accepted, programs that must be rejected with given
//! codes, and the examples of the explanation pages.
//!
//! Comment lines at the top of a program say what the test is to do:
//! `// expect: E0301, W0601` (the set of codes), `// sites: 8` and
//! `// boundary: open` (check it on this lattice, too).

use dnet::check::Program;
use dnet::check::lattice::{self, Sites};
use dnet::diag::{Code, Diagnostic, render};
use dnet::syntax::ast::LatticeKind;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A path of the repository; tests run at its root, so that messages show no
/// directory of this machine.
fn directory(name: &str) -> PathBuf {
    PathBuf::from(name)
}

/// The `.dnet` files of a directory, sorted.
fn files(name: &str) -> Vec<PathBuf> {
    let mut list: Vec<PathBuf> = std::fs::read_dir(directory(name))
        .unwrap_or_else(|e| panic!("{name}: {e}"))
        .map(|e| e.expect("a directory entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "dnet"))
        .collect();
    list.sort();
    list
}

/// The value of `// key: value` among the comment lines at the top.
fn directive<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.lines()
        .take_while(|l| l.starts_with("//"))
        .find_map(|l| {
            l.trim_start_matches('/')
                .trim()
                .strip_prefix(key)?
                .strip_prefix(':')
        })
        .map(str::trim)
}

/// Everything a program gives, on the lattice its directives name, too.
fn diagnostics(program: &Program, text: &str) -> Vec<Diagnostic> {
    let mut all = program.check();
    if let Some(n) =
        directive(text, "sites").map(|n| n.parse::<usize>().expect("a number of sites"))
    {
        let periodic = directive(text, "boundary") != Some("open");
        for network in program.networks() {
            let extent = if network.lattice == LatticeKind::Chain {
                [n, 1]
            } else {
                [n, n]
            };
            if let Ok(info) = program.network(&network.name.name).check() {
                all.extend(lattice::check(
                    program.modules(),
                    &info,
                    Sites { extent, periodic },
                ));
            }
        }
    }
    all
}

/// Every code a program gives, with its message for the failure report.
fn found(program: &Program, text: &str) -> (BTreeSet<Code>, String) {
    let all = diagnostics(program, text);
    let report: Vec<String> = all
        .iter()
        .map(|d| format!("{}: {}", d.code.as_str(), d.message))
        .collect();
    (all.iter().map(|d| d.code).collect(), report.join("\n"))
}

#[test]
fn good_programs_are_accepted() {
    let list = files("tests/in/good");
    assert!(list.len() >= 15);
    for path in list {
        let text = std::fs::read_to_string(&path).expect("readable");
        let (codes, report) = found(&Program::load(&path), &text);
        assert!(codes.is_empty(), "{}:\n{report}", path.display());
    }
}

#[test]
fn bad_programs_give_exactly_their_codes() {
    let mut wrong = Vec::new();
    for path in files("tests/in/bad") {
        let text = std::fs::read_to_string(&path).expect("readable");
        let expected = directive(&text, "expect")
            .unwrap_or_else(|| panic!("{}: no `// expect:`", path.display()));
        let expected: BTreeSet<Code> = expected
            .split(',')
            .map(|c| Code::parse(c.trim()).unwrap_or_else(|| panic!("{c}: not a code")))
            .collect();
        let (codes, report) = found(&Program::load(&path), &text);
        if codes != expected {
            wrong.push(format!(
                "{}: expected {expected:?}, found\n{report}",
                path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// The messages as a terminal shows them, beside the program they are about.
#[test]
fn messages_read_well() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("out/diag");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for path in files("tests/in/bad") {
        let text = std::fs::read_to_string(&path).expect("readable");
        let program = Program::load(&path);
        let all = diagnostics(&program, &text);
        let shown = render::human(program.sources(), &all, false);
        let name = path.file_stem().expect("a name").to_string_lossy();
        settings.bind(|| insta::assert_snapshot!(&*name, format!("{text}\n----\n{shown}")));
    }
}

/// The text of a page's ```` ```dnet KIND ```` block.
fn fenced<'t>(page: &'t str, kind: &str) -> &'t str {
    let start = page
        .split_once(&format!("```dnet {kind}\n"))
        .unwrap_or_else(|| panic!("no {kind} example"))
        .1;
    start.split_once("```").expect("a closed block").0
}

#[test]
fn explanation_pages_hold_what_they_say() {
    let mut wrong = Vec::new();
    for &code in Code::ALL {
        let path = directory("src/diag/codes").join(format!("{}.md", code.as_str()));
        let page =
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let title = format!("# {}: {}\n", code.as_str(), code.title());
        assert!(
            page.starts_with(&title),
            "{} must start with {title}",
            path.display()
        );
        for (kind, expected) in [("bad", BTreeSet::from([code])), ("good", BTreeSet::new())] {
            let text = fenced(&page, kind);
            let (codes, report) = found(&Program::parse("page.dnet", text), text);
            if codes != expected {
                wrong.push(format!(
                    "{} ({kind}): expected {expected:?}, found\n{report}",
                    code.as_str()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_code_has_a_bad_program() {
    let covered: BTreeSet<Code> = files("tests/in/bad")
        .iter()
        .flat_map(|p| {
            let text = std::fs::read_to_string(p).expect("readable");
            let expected = directive(&text, "expect").unwrap_or("").to_owned();
            expected
                .split(',')
                .filter_map(|c| Code::parse(c.trim()))
                .collect::<Vec<_>>()
        })
        .collect();
    let missing: Vec<&Code> = Code::ALL.iter().filter(|c| !covered.contains(c)).collect();
    assert!(missing.is_empty(), "no bad program for {missing:?}");
}
