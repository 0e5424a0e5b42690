//! Variational Monte Carlo: operators, samplers, estimators, optimisers,
//! statistics, exact references. Knows no back end, only [`crate::run`].

pub mod operator;
pub mod ed;
pub mod exact;

pub use crate::rng;
