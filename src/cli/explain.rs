//! `dnetc explain`

use super::common::{CliError, print};
use crate::diag::{self, Code};

/// Arguments of `explain`.
#[derive(clap::Args)]
pub struct Args {
    /// A code such as E0301; without one, all codes are listed
    code: Option<String>,
}

/// Prints the page of a code.
pub fn run(args: &Args) -> Result<(), CliError> {
    let Some(text) = &args.code else {
        let list: String = Code::ALL
            .iter()
            .map(|c| format!("{}  {}\n", c.as_str(), c.title()))
            .collect();
        return print(&list);
    };
    match Code::parse(text) {
        Some(code) => print(diag::page(code)),
        None => Err(CliError::new(
            format!("there is no code `{text}`"),
            "`dnetc explain` lists all codes",
        )),
    }
}
