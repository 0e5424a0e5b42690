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
//! # Embedding
//!
//! The command line does nothing the library cannot:
//!
//! ```
//! use dnet::check::Program;
//!
//! let program = Program::parse(
//!     "gated.dnet",
//!     "use std::nn::{dense, mean, silu, log_cosh_head}
//!      use std::mixers::s4
//!      network gated(dim: nat = 4, depth: nat in 1..=8 = 1) {
//!          let phi = patch(spins, 2) |> dense(dim)
//!          var h = phi
//!          repeat depth { h += silu(dense(phi, dim)) * s4(h, 3) }
//!          log_psi = mean(h) |> log_cosh_head(2)
//!      }",
//! );
//! assert!(program.check().is_empty(), "no errors, no warnings");
//! let network = program.network("gated").with("depth", 3).check()?;
//! assert_eq!(network.mixers.len(), 3);
//! let graph = dnet::ir::lower(&network).graph; // what every later stage works on
//! assert!(graph.len() > 0);
//!
//! // What is wrong is data, and reads like the command line's message.
//! let wrong = Program::parse("wrong.dnet", "network n() { log_psi = spin }");
//! let message = wrong.only_network().check().unwrap_err().to_string();
//! assert!(message.contains("unknown name `spin`"));
//! # Ok::<(), dnet::check::CheckError>(())
//! ```
//!
//! [`include_dnet!`] compiles a file into a crate.
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

/// The [`check::Program`] of a `.dnet` file compiled into the crate; the path is
/// relative to the calling source file. `use self::` finds nothing in it.
///
/// ```
/// let program = dnet::include_dnet!("../examples/dysonnet.dnet");
/// let network = program.network("dysonnet").with("depth", 4).check()?;
/// assert_eq!(network.mixers.len(), 4);
/// # Ok::<(), dnet::check::CheckError>(())
/// ```
#[macro_export]
macro_rules! include_dnet {
    ($path:literal) => {
        $crate::check::Program::parse($path, include_str!($path))
    };
}
