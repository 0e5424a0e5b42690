//! The parser generated from `grammar/dnet.pest`: one [`Rule`] per rule there.
#![allow(missing_docs)]

/// The generated parser.
#[derive(pest_derive::Parser)]
#[grammar = "../grammar/dnet.pest"]
pub struct Grammar;
