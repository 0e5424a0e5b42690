//! dnet: a declarative language and compiler for neural quantum states.
//!
//! The pipeline, one module per stage; arrows run one way:
//!
//! 1. [`syntax`]: text to a tree with spans, and back (the formatter).
//! 2. [`check`]: names, hyperparameters, shapes, and the kinds that decide
//!    whether a network is made of linear mixers and local nonlinearities.
//! 3. [`ir`]: the checked program as a graph of real tensors.
//! 4. [`pass`]: simplification, scattering normal form, ABACUS updates,
//!    environments, gradients, cost model.
//!    [`pipeline`] lists them in order.
//! 5. [`interp`]: the slow reference evaluator, oracle of everything else;
//!    [`mod@verify`] checks all derivations of a network against it.
//! 6. [`params`]: parameters by name: initialisation, files.
//! 7. [`kernel`] and [`back`]: loop-level code and the machines it runs on.
//! 8. [`run`]: networks at run time: parameters, batches, log ratios.
//! 9. [`vmc`]: operators, samplers, optimisers, statistics, exact references.
//! 10. [`train`]: run files, checkpoints, results: a whole run on disk.
//!
//! [`diag`] holds the diagnostics all stages report with, [`rng`] the
//! random numbers.
#![warn(missing_docs)]

pub mod back;
pub mod check;
pub mod cli;
pub mod diag;
pub mod interp;
pub mod ir;
pub mod kernel;
pub mod params;
pub mod pass;
pub mod pipeline;
pub mod rng;
pub mod run;
pub mod syntax;
pub mod train;
pub mod verify;
pub mod vmc;
