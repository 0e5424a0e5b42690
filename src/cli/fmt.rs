//! `dnetc fmt`

use super::common::{CliError, Ui};
use crate::check::CheckError;
use crate::syntax::ast::SourceMap;
use std::path::{Path, PathBuf};

/// Arguments of `fmt`.
#[derive(clap::Args)]
pub struct Args {
    /// Files to format
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Change nothing; fail if a file is not formatted
    #[arg(long)]
    check: bool,
}

/// Formats every file that parses; the others are reported and left alone.
pub fn run(args: &Args, ui: &Ui) -> Result<(), CliError> {
    let mut failed = false;
    for file in &args.files {
        match format_file(file, args.check) {
            Ok(false) => {}
            Ok(true) if args.check => {
                eprintln!("not formatted: {}", file.display());
                failed = true;
            }
            Ok(true) => eprintln!("formatted {}", file.display()),
            Err(e) => {
                ui.error(&e);
                failed = true;
            }
        }
    }
    if failed {
        Err(CliError::Silent)
    } else {
        Ok(())
    }
}

/// Whether the file changed (or would).
fn format_file(path: &Path, check: bool) -> Result<bool, CliError> {
    let bytes = std::fs::read(path).map_err(|e| CliError::io("read", path, &e))?;
    let mut sources = SourceMap::default();
    let name = path.display().to_string();
    let file = crate::syntax::ast::FileId(0);
    let problem = |sources: SourceMap, diagnostics| {
        CliError::Check(CheckError {
            diagnostics,
            sources,
        })
    };
    let text = match crate::syntax::source_from_bytes(file, &name, bytes) {
        Ok(text) => text,
        Err(d) => {
            sources.add(name, "");
            return Err(problem(sources, vec![d]));
        }
    };
    sources.add(name, text.clone());
    let formatted = match crate::syntax::format::format(&text) {
        Ok(f) => f,
        Err(ds) => return Err(problem(sources, ds)),
    };
    if formatted == text {
        return Ok(false);
    }
    if !check {
        super::common::write_atomically(path, formatted.as_bytes())?;
    }
    Ok(true)
}
