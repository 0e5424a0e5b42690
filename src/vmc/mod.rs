//! Variational Monte Carlo: operators, samplers, estimators, optimisers,
//! statistics, exact references. Knows no back end, only [`crate::run`].

pub mod collapse;
pub mod driver;
pub mod ed;
pub mod estimator;
pub mod exact;
pub mod log;
pub mod lossless;
pub mod observe;
pub mod operator;
pub mod optim;
pub mod plot;
pub mod sampler;
pub mod stats;
pub mod table;

pub use crate::rng;
