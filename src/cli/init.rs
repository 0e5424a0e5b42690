//! `dnetc init`

use super::common::{CliError, LatticeArgs, NetworkArgs, Ui, check_lattice, metadata, print};
use crate::params::{initialise, perturb, save};
use std::path::PathBuf;

/// Arguments of `init`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    lattice: LatticeArgs,
    /// Seed; the same seed gives the same parameters
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Add normal noise of this standard deviation to every parameter
    #[arg(long, value_name = "SIZE")]
    noise: Option<f64>,
    /// The parameter file to write
    #[arg(short, long, default_value = "params.safetensors")]
    output: PathBuf,
}

/// Initial parameters by seed, data-dependent initialisers included.
pub fn run(args: &Args, ui: &Ui) -> Result<(), CliError> {
    let (program, info) = args.network.check(ui)?;
    let lattice = args
        .lattice
        .lattice(info.lattice)?
        .ok_or_else(|| CliError::new("the number of sites is missing", "add `--sites N`"))?;
    check_lattice(&program, &info, lattice)?;
    let lowered = crate::pipeline::graph(&info);
    let mut params = initialise(&info, &lowered, lattice, args.seed)
        .map_err(|e| CliError::plain(e.to_string()))?;
    if let Some(size) = args.noise {
        if !(size.is_finite() && size >= 0.0) {
            return Err(CliError::new(
                format!("--noise {size} is no standard deviation"),
                "give a number of at least 0",
            ));
        }
        perturb(&mut params, size, args.seed);
    }
    save(&args.output, &params, &metadata(&program, &info, lattice))
        .map_err(|e| CliError::plain(e.to_string()))?;
    print(&format!(
        "{} parameters written to {}\n",
        params.count(),
        args.output.display()
    ))
}
