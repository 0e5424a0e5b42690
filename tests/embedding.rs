//! The compiler as a library.

#[test]
fn a_file_can_be_compiled_into_the_crate() {
    let program = dnet::include_dnet!("../examples/dysonnet.dnet");
    assert!(program.check().is_empty());
    let info = program
        .network("dysonnet")
        .with("depth", 3)
        .check()
        .expect("valid");
    assert_eq!(info.mixers.len(), 3);
}

#[test]
fn errors_show_the_file_and_the_fix() {
    let program = dnet::include_dnet!("in/bad/silu_on_mixer.dnet");
    let error = program.only_network().check().expect_err("it is wrong");
    let shown = error.to_string();
    assert!(shown.contains("error[E0301]") && shown.contains("in/bad/silu_on_mixer.dnet"));
    assert!(program.network("none").check().is_err());
}
