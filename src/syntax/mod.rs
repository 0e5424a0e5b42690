//! From text to a syntax tree with spans, and back.
//!
//! [`parser::parse`] reads a file in three steps: `scan` finds comments,
//! nesting and item boundaries in one pass over the bytes; the grammar
//! (`grammar/dnet.pest`) is run on one item at a time; `build` turns its
//! pairs into [`ast`] nodes and gives operators their precedence.

pub mod ast;
mod build;
mod build_expr;
pub mod dump;
pub mod format;
mod format_expr;
mod format_op;
mod grammar;
mod layout;
mod message;
pub mod parser;
mod scan;

pub use format::format;
pub use parser::{parse, source_from_bytes};
