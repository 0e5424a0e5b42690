//! The checker: names, hyperparameters, shapes, kinds.

pub mod core;
