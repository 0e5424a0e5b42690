//! Operators of the language: elaboration and checks.

mod pauli;

pub use pauli::Pauli;
