//! The checker: names, hyperparameters, shapes, kinds.

pub mod core;
pub mod operator;
