//! `dnetc`, the command line.
fn main() {}
