//! Self-check of everything the compiler derives for a network.
//!
//! On random parameters, configurations and clusters: ABACUS updates under every
//! link strategy, links against Jacobians, environments, exact sweeps and windows
//! against full evaluation by the reference interpreter, and reverse-mode
//! gradients against central differences. All cases follow from one seed.

pub mod backend;
pub mod cases;
pub mod gradient;
mod report;
pub mod updates;

pub use report::{Case, Check, Contradiction, Report, Row};

use crate::check::core::NetworkInfo;
use crate::interp::{EvalError, Tensor, evaluate};
use crate::ir::{Graph, Lattice, lower};
use crate::params::InitError;
use crate::pass::abacus::{AbacusError, Background, Network};
use crate::pass::reverse::ReverseError;
use crate::pipeline::{self, Gradients};
use crate::rng::ChainRng;

/// Why a network cannot be verified at all.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum VerifyError {
    /// The inputs do not fit the network.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// No parameters.
    #[error(transparent)]
    Init(#[from] InitError),
    /// No gradients.
    #[error(transparent)]
    Reverse(#[from] ReverseError),
}

/// What to verify on.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of parameters, configurations and clusters.
    pub seed: u64,
    /// Parameters and configurations per lattice.
    pub samples: usize,
}

/// A graph with parameters on a lattice.
pub struct Subject<'a> {
    /// Simplified, outputs only.
    pub graph: &'a Graph,
    /// Its gradients.
    pub gradients: &'a Gradients,
    /// Lattice and boundary.
    pub lattice: Lattice,
    /// One tensor per parameter.
    pub params: &'a [Tensor],
}

/// Verifies a checked network on these lattices (see [`cases::lattices`]). `full`
/// networks have no updates: only their graph and gradients are checked.
///
/// # Errors
/// Lattices the network does not fit.
pub fn verify(
    info: &NetworkInfo,
    lattices: &[Lattice],
    options: &Options,
) -> Result<Report, VerifyError> {
    let plain = lower(info).graph;
    let lowered = pipeline::graph(info);
    let graph = pipeline::amplitude(&lowered);
    let gradients = pipeline::gradients(&graph)?;
    let mut report = Report::default();
    if info.full {
        let note = "a full network: updates are full evaluations, nothing else is derived";
        report.notes.insert(note.to_owned());
    }
    for &lattice in lattices {
        for sample in 0..options.samples {
            let mut rng = cases::random(lattice, options.seed, sample);
            let spins = cases::configuration(lattice, &mut rng);
            let seed = options.seed.wrapping_add((sample as u64) << 32);
            let drawn = cases::parameters(info, &lowered, lattice, seed, &spins)?;
            report.notes.extend(drawn.note(lattice));
            let params = drawn.params.tensors;
            let case = Case::new(lattice, options.seed, sample, &spins);
            let reference = evaluate(&plain, lattice, &params, &spins)?.log_psi();
            let simplified = evaluate(&graph, lattice, &params, &spins)?.log_psi();
            let error = updates::distance(simplified, reference);
            report.compare(Check::Simplification, error, || case.with(&[], "log psi"));
            let subject = Subject {
                graph: &graph,
                gradients: &gradients,
                lattice,
                params: &params,
            };
            check(&mut report, &case, &subject, !info.full, &spins, &mut rng)?;
        }
    }
    Ok(report)
}

/// Verifies one graph at one configuration: gradients, and whatever is derived
/// for local changes if `updates`.
///
/// # Errors
/// Inputs that do not fit the graph.
pub fn check(
    report: &mut Report,
    case: &Case,
    subject: &Subject,
    updates: bool,
    spins: &[i8],
    rng: &mut ChainRng,
) -> Result<(), EvalError> {
    let &Subject {
        graph,
        gradients,
        lattice,
        params,
    } = subject;
    gradient::check(
        report,
        case,
        (graph, gradients),
        lattice,
        params,
        spins,
        rng,
    )?;
    if !updates {
        return Ok(());
    }
    let clusters = cases::clusters(lattice, rng);
    let network = match Network::new(graph, lattice, params.to_vec()) {
        Ok(network) => network,
        Err(e) => {
            report.contradiction(case.with(&[], "normal form"), e);
            return Ok(());
        }
    };
    match Background::new(&network, spins) {
        Ok(background) => updates::check(report, case, &background, &clusters, rng),
        Err(AbacusError::Eval(e)) => Err(*e),
        Err(e) => {
            report.contradiction(case.with(&[], "background"), e);
            Ok(())
        }
    }
}
