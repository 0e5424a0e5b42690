//! `dnetc new`

use super::common::{CliError, print};
use std::path::PathBuf;

/// Arguments of `new`.
#[derive(clap::Args)]
pub struct Args {
    /// The directory to create
    dir: PathBuf,
}

const NETWORK: &str = include_str!("../../examples/dysonnet.dnet");
const MODEL: &str = "\
//! The Hamiltonian.

/// Transverse-field Ising chain, H = -J sum Z_i Z_{i+1} - h sum X_i.
/// Critical at J = h.
operator model(J: real = 1, h: real = 1) on chain {
    for i: -J * Z(i) * Z(i + 1)
    for i: -h * X(i)
}
";

/// Creates the directory; never overwrites anything.
pub fn run(args: &Args) -> Result<(), CliError> {
    let dir = &args.dir;
    if dir.exists() {
        return Err(CliError::new(
            format!("`{}` exists already", dir.display()),
            "choose another name; nothing was changed",
        ));
    }
    std::fs::create_dir_all(dir).map_err(|e| CliError::io("create", dir, &e))?;
    for (name, text) in [("network.dnet", NETWORK), ("model.dnet", MODEL)] {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|e| CliError::io("write", &path, &e))?;
    }
    print(&format!(
        "created {0}/network.dnet and {0}/model.dnet\n\
         check them:   dnetc check {0}/*.dnet\n\
         look inside:  dnetc inspect {0}/network.dnet --sites 100\n\
         train it:     dnetc train {0}/network.dnet --operator-file {0}/model.dnet --sites 32\n",
        dir.display()
    ))
}
