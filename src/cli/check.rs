//! `dnetc check`

use super::common::{CliError, Ui};
use crate::check::Program;
use crate::diag::Severity;
use std::path::PathBuf;

/// Arguments of `check`.
#[derive(clap::Args)]
pub struct Args {
    /// Files to check; each is checked by itself, with the modules it uses
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Treat warnings as errors
    #[arg(long)]
    deny_warnings: bool,
}

/// Checks every file and reports everything found.
pub fn run(args: &Args, ui: &Ui) -> Result<(), CliError> {
    let (mut errors, mut warnings) = (0, 0);
    for file in &args.files {
        let program = Program::load(file);
        let diagnostics = program.check();
        let e = diagnostics
            .iter()
            .filter(|d| d.severity() == Severity::Error)
            .count();
        errors += e;
        warnings += diagnostics.len() - e;
        ui.diagnostics(program.sources(), &diagnostics);
    }
    if !ui.json() {
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let files = plural(args.files.len(), "file");
        if errors + warnings == 0 {
            eprintln!("checked {files}: no problems");
        } else {
            eprintln!(
                "checked {files}: {}, {}",
                plural(errors, "error"),
                plural(warnings, "warning")
            );
        }
    }
    if errors > 0 || (args.deny_warnings && warnings > 0) {
        Err(CliError::Silent)
    } else {
        Ok(())
    }
}
