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
                settings.set_description(source.lines().next().unwrap_or_default());
                settings.bind(|| insta::assert_snapshot!(format!("{name}_{suffix}"), written));
            }
        }
    }
    assert!(derived >= 15, "only {derived} examples have a recurrence");
}
