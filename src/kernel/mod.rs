//! Loop-level code shared by all back ends.

pub mod expr;
