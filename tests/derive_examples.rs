//! The recurrence of every example that has one, in every format, beside the
//! program it was derived from.

mod networks;

use dnet::pass::cluster::Cluster;
use dnet::pass::derive::{Format, derive};
use dnet::pass::normal_form::NormalForm;
use dnet::pipeline;

#[test]
fn every_example_in_every_format() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("out/derive");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut derived = 0;
    for (file, program) in networks::examples() {
        let source = std::fs::read_to_string(networks::path(&file)).expect("readable");
        for info in networks::networks(&program) {
            let name = &info.name;
            let graph = pipeline::amplitude(&pipeline::graph(&info));
            let Ok(form) = NormalForm::new(&graph) else {
                assert!(info.full, "{name} has no normal form");
                continue;
            };
            derived += 1;
            for (suffix, format) in [
                ("text", Format::Text),
                ("latex", Format::Latex),
                ("json", Format::Json),
                ("dot", Format::Dot),
            ] {
                let written = derive(&graph, &form, &Cluster::single(), format);
                if format == Format::Latex {
                    well_formed(&written);
                }
                settings.set_description(source.lines().next().unwrap_or_default());
                settings.bind(|| insta::assert_snapshot!(format!("{name}_{suffix}"), written));
            }
        }
    }
    assert!(derived >= 15, "only {derived} examples have a recurrence");
}

/// What TeX would complain about: braces, environments, `$`, columns of tables.
fn well_formed(tex: &str) {
    let plain = tex.replace("\\{", "").replace("\\}", "").replace("\\_", "");
    let mut depth = 0;
    for c in plain.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        assert!(depth >= 0, "a brace too many\n{tex}");
    }
    assert_eq!(depth, 0, "{tex}");
    assert_eq!(tex.matches('$').count() % 2, 0, "{tex}");
    let mut open: Vec<String> = vec![];
    let mut columns = 0;
    for line in plain.lines() {
        let name = |part: &str| part.split('}').next().unwrap_or_default().to_owned();
        for part in line.split("\\begin{").skip(1) {
            open.push(name(part));
            let spec = part.split_once("tabular}{");
            // `p` with its width is one column.
            let count = |s: &str| s.find(['{', '}']).unwrap_or(0);
            columns = spec.map_or(columns, |(_, s)| count(s));
        }
        let inside = open.last().map(String::as_str);
        assert!(!line.trim().is_empty() || inside != Some("align"), "{tex}");
        // Names with underscores belong in text, escaped; in formulas scripts are braced.
        let outside: String = line.split('$').step_by(2).collect();
        let formula = inside == Some("align");
        assert!(formula || !outside.contains(['_', '^']), "{line}\n{tex}");
        if inside == Some("tabular") && line.trim_end().ends_with("\\\\") {
            assert_eq!(line.matches('&').count() + 1, columns, "{line}\n{tex}");
        }
        for part in line.split("\\end{").skip(1) {
            assert_eq!(open.pop(), Some(name(part)), "{tex}");
        }
    }
    assert!(open.is_empty(), "{tex}");
}
