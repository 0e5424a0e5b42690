//! The recurrence of every example that has one, in every format, beside the
//! program it was derived from.

use dnet::check::Program;
use dnet::ir::lower;
use dnet::pass::cluster::Cluster;
use dnet::pass::derive::{Format, derive};
use dnet::pass::normal_form::NormalForm;
use std::path::Path;

#[test]
fn every_example_in_every_format() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut files: Vec<_> = std::fs::read_dir(&examples)
        .expect("the examples")
        .map(|f| f.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "dnet"))
        .collect();
    files.sort();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("out/derive");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut derived = 0;
    for file in files {
        let program = Program::load(&file);
        for network in program.networks() {
            let name = &network.name.name;
            let info = program
                .network(name)
                .check()
                .unwrap_or_else(|e| panic!("{e}"));
            let graph = lower(&info).graph;
            let Ok(form) = NormalForm::new(&graph) else {
                assert!(info.full, "{name} has no normal form");
                continue;
            };
            derived += 1;
            let source = std::fs::read_to_string(&file).expect("readable");
            for (suffix, format) in [
                ("text", Format::Text),
                ("latex", Format::Latex),
                ("json", Format::Json),
                ("dot", Format::Dot),
            ] {
                let written = derive(&graph, &form, &Cluster::single(), format);
                settings.set_description(source.lines().next().unwrap_or_default());
                settings.bind(|| insta::assert_snapshot!(format!("{name}_{suffix}"), written));
            }
        }
    }
    assert!(derived >= 15, "only {derived} examples have a recurrence");
}
