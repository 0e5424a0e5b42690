//! Trained networks: a parameter file with its network.

use super::common::{CliError, LatticeArgs, MemoryArgs, Ui, check_lattice, metadata};
use crate::check::Program;
use crate::check::core::Static;
use crate::ir::{Boundary, Lattice};
use crate::params::{self, FileError, Metadata};
use crate::pipeline;
use crate::run::WaveFunction;
use crate::run::network::{Backend, Precision, build};
use crate::syntax::ast::LatticeKind;
use std::path::{Path, PathBuf};

/// How to understand a parameter file.
#[derive(clap::Args, Clone, Debug)]
pub struct TrainedArgs {
    /// The network's .dnet file; without it, the source stored in the parameter file
    #[arg(long, value_name = "FILE")]
    pub network: Option<PathBuf>,
    /// Use parameters although they were made for another source or other hyperparameters
    #[arg(long)]
    pub force: bool,
    /// Where the network runs
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
    /// Working precision of the network
    #[arg(long, value_enum, default_value_t = Precision::F64)]
    pub precision: Precision,
    #[command(flatten)]
    memory: MemoryArgs,
}

/// A network with its parameters on a lattice.
pub struct Trained {
    /// The wave function.
    pub psi: Box<dyn WaveFunction>,
    /// Name of the network.
    pub name: String,
    /// The kind of lattice it lives on.
    pub kind: LatticeKind,
    /// The lattice.
    pub lattice: Lattice,
}

impl TrainedArgs {
    /// Loads a parameter file. Network, hyperparameters and lattice are those
    /// recorded in it, unless flags say otherwise.
    pub fn load(
        &self,
        file: &Path,
        define: &[(String, Static)],
        sites: &LatticeArgs,
        ui: &Ui,
    ) -> Result<Trained, CliError> {
        self.memory.apply();
        let plain = |e: &dyn std::fmt::Display| CliError::plain(e.to_string());
        let recorded = params::metadata(file).map_err(|e| {
            CliError::new(
                e.to_string(),
                "give a parameter file written by `dnetc init` or by training",
            )
        })?;
        let shown = file.display();
        let program = match (&self.network, &recorded) {
            (Some(network), _) => Program::load(network),
            (None, Some(meta)) => {
                Program::parse(&format!("<source stored in {shown}>"), &meta.source)
            }
            (None, None) => {
                return Err(CliError::new(
                    format!("`{shown}` does not say which network it belongs to"),
                    "add `--network FILE.dnet`",
                ));
            }
        };
        let mut request = match &recorded {
            Some(meta)
                if program
                    .networks()
                    .iter()
                    .any(|n| n.name.name == meta.network) =>
            {
                program.network(&meta.network)
            }
            _ => program.only_network(),
        };
        if let Some(meta) = &recorded {
            let hyper: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(&meta.hyperparameters)
                    .map_err(|e| plain(&format!("`{shown}`: hyperparameters: {e}")))?;
            for (name, value) in &hyper {
                let value = match (value.as_bool(), value.as_i64(), value.as_f64()) {
                    (Some(b), _, _) => Static::Bool(b),
                    (_, Some(k), _) => Static::Int(k),
                    (_, _, Some(x)) => Static::Real(x),
                    _ => {
                        return Err(plain(&format!(
                            "`{shown}`: hyperparameter `{name}` is {value}"
                        )));
                    }
                };
                request = request.with(name, value);
            }
        }
        for (name, value) in define {
            request = request.with(name, *value);
        }
        let (info, warnings) = request.check_with_warnings()?;
        if self.network.is_some() {
            ui.diagnostics(program.sources(), &warnings);
        }
        let lattice = match (sites.lattice(info.lattice)?, &recorded) {
            (Some(lattice), _) => lattice,
            (None, Some(meta)) => parse_lattice(meta).ok_or_else(|| {
                CliError::new(
                    format!("`{shown}`: unknown lattice `{}`", meta.lattice),
                    "add `--sites N`",
                )
            })?,
            (None, None) => {
                return Err(CliError::new(
                    "the number of sites is missing",
                    "add `--sites N`",
                ));
            }
        };
        check_lattice(&program, &info, lattice)?;
        let graph = pipeline::amplitude(&pipeline::graph(&info));
        let like = params::Params::zeros(&graph, lattice).map_err(|e| plain(&e))?;
        let expected = metadata(&program, &info, lattice);
        let strict = self.network.is_some() && recorded.is_some() && !self.force;
        let loaded = params::load(
            file,
            &like,
            strict.then_some(&expected),
            &Default::default(),
        )
        .map_err(|e| match e {
            FileError::Mismatch { .. } => CliError::new(
                e.to_string(),
                "leave out --network to use the stored source; `--force` accepts another one",
            ),
            e => plain(&e),
        })?;
        let psi =
            build(&graph, lattice, &loaded, self.precision, self.backend).map_err(|e| plain(&e))?;
        Ok(Trained {
            psi,
            name: info.name.clone(),
            kind: info.lattice,
            lattice,
        })
    }
}

/// `100 periodic`, `4,6 open`
fn parse_lattice(meta: &Metadata) -> Option<Lattice> {
    let (extent, boundary) = meta.lattice.split_once(' ')?;
    let boundary = match boundary {
        "periodic" => Boundary::Periodic,
        "open" => Boundary::Open,
        _ => return None,
    };
    let extent = match extent.split_once(',') {
        Some((a, b)) => [a.parse().ok()?, b.parse().ok()?],
        None => [extent.parse().ok()?, 1],
    };
    extent
        .iter()
        .all(|&n: &usize| n > 0)
        .then_some(Lattice { extent, boundary })
}
