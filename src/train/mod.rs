//! Training a network to a ground state: from a run file to results on disk.
//!
//! [`RunFile`] says what to do, [`Setup`] is the same, checked and compiled,
//! and [`run`] does it: it drives [`crate::vmc::driver::Vmc`], writes the log
//! and checkpoints, measures with frozen parameters at the end, and draws the
//! plots. Terminals, signals and flags are the command line's affair.
//!
//! An output directory holds
//!
//! | file | contents |
//! | --- | --- |
//! | `run.toml` | the run file in force |
//! | `log.json` | energies by iteration, in NetKet's history format |
//! | `checkpoint.json` | all that is needed to continue with the same bits |
//! | `params.safetensors` | the parameters, for other programs |
//! | `result.json` | the final measurement |
//! | `energy.svg`, `error.svg`, `correlations.svg` | plots |
//!
//! Every file is replaced atomically: it holds the old contents or the new.

mod checkpoint;
mod job;
mod output;
mod reference;
mod result;
mod run_file;
pub mod scan;
mod schedule;
mod setup;

pub use checkpoint::{Saved, VERSION};
pub use job::{Ended, Event, Start, run};
pub use output::{Output, claim_directory};
pub use reference::{Exact, exact_energy};
pub use result::Results;
pub use run_file::{
    BoundKind, EvaluationTable, LatticeTable, NetworkTable, OperatorTable, OptimiserMethod,
    OptimiserTable, OutputTable, RunFile, SamplerMethod, SamplerTable, Sites,
};
pub use schedule::ScheduleSpec;
pub use setup::{MAX_SPINS, Setup};

use crate::check::CheckError;
use std::path::Path;

/// Why training cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Problems in `.dnet` files.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// No acceptable step was found; the last good parameters are saved.
    #[error("{what}")]
    Diverged {
        /// What happened, in one sentence.
        what: String,
        /// A way out.
        help: String,
    },
    /// Anything else.
    #[error("{what}")]
    Message {
        /// What happened, in one sentence.
        what: String,
        /// A way out.
        help: String,
    },
}

impl TrainError {
    /// An error with a way out.
    pub fn new(what: impl Into<String>, help: impl Into<String>) -> TrainError {
        TrainError::Message {
            what: what.into(),
            help: help.into(),
        }
    }

    /// The same error, of one of several runs.
    pub(crate) fn at(self, label: &str) -> TrainError {
        match self {
            TrainError::Message { what, help } => TrainError::new(format!("{label}: {what}"), help),
            error => error,
        }
    }

    /// A file that cannot be read or written.
    pub fn io(doing: &str, path: &Path, error: &std::io::Error) -> TrainError {
        use std::io::ErrorKind;
        let help = match error.kind() {
            ErrorKind::NotFound => "check the path",
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "check the permissions",
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                "free some space, then continue with --resume; files already written are intact"
            }
            _ => "files already written are intact",
        };
        TrainError::new(
            format!("cannot {doing} `{}`: {error}", path.display()),
            help,
        )
    }
}
