//! `dnetc derive`

use super::common::{CliError, NetworkArgs, Ui, print, write_atomically};
use crate::pass::cluster::Cluster;
use crate::pass::derive::{Format, derive};
use crate::pass::normal_form::NormalForm;
use crate::pipeline;
use std::path::PathBuf;

/// Arguments of `derive`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    /// Flipped spins: `1`, `pair:r` or a list of offsets `0,1,3`
    #[arg(long, default_value = "1", value_parser = parse_cluster)]
    flip: Cluster,
    /// Output format: text, latex, json or dot
    #[arg(long, default_value = "text", value_parser = parse_format)]
    format: Format,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn parse_cluster(text: &str) -> Result<Cluster, String> {
    text.parse()
        .map_err(|e: crate::pass::cluster::BadCluster| e.to_string())
}

fn parse_format(text: &str) -> Result<Format, String> {
    text.parse()
}

/// Writes the ABACUS recurrence of a network.
pub fn run(args: &Args, ui: &Ui) -> Result<(), CliError> {
    let (_, info) = args.network.check(ui)?;
    let graph = pipeline::amplitude(&pipeline::graph(&info));
    let form = NormalForm::new(&graph).map_err(|e| {
        CliError::new(
            format!("`{}` has no O(1) updates: {e}", info.name),
            "it is evaluated in full after every change; `dnetc inspect` shows what that costs",
        )
    })?;
    let text = derive(&graph, &form, &args.flip, args.format);
    match &args.output {
        Some(path) => write_atomically(path, text.as_bytes()),
        None => print(&text),
    }
}
