//! From text to a syntax tree with spans, and back.

pub mod ast;
