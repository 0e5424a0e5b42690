//! Checkpoints: one JSON file that is complete by itself.

use super::{RunFile, Setup, TrainError};
use crate::back::costs::{self, Costs};
use crate::vmc::driver::{Checkpoint, Timings};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Version of the format written; others are refused.
pub const VERSION: u32 = 1;

const FORMAT: &str = "dnet checkpoint";

/// What is on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    format: String,
    version: u32,
    /// Version of the tool that wrote it.
    tool: String,
    /// [`crate::params::Metadata::hash`] of the network.
    hash: String,
    /// Name of the network.
    network: String,
    /// Hyperparameters as JSON.
    hyperparameters: String,
    /// The network's `.dnet` source.
    source: String,
    /// Sites and boundary.
    lattice: String,
    /// The operator as compiled: name, couplings, size.
    operator: String,
    /// The run file as TOML, which keeps every bit of its numbers.
    run: String,
    /// Constants of the cost model, which decide between ways that round differently.
    #[serde(default)]
    pub costs: Costs,
    /// Seconds of training so far.
    pub seconds: f64,
    /// What they were spent on.
    #[serde(default)]
    pub timings: Timings,
    /// The state of the driver.
    pub state: Checkpoint,
}

/// The part that says whether the rest can be understood.
#[derive(Deserialize)]
struct Header {
    format: String,
    version: u32,
}

/// The keys of a run file that decide numbers, with their values; where files
/// are and what is written does not matter.
fn keys(run: &RunFile) -> BTreeMap<String, String> {
    fn walk(prefix: &str, value: &toml::Value, out: &mut BTreeMap<String, String>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let path = match prefix {
                        "" => key.clone(),
                        _ => format!("{prefix}.{key}"),
                    };
                    walk(&path, value, out);
                }
            }
            value => {
                out.insert(prefix.to_owned(), value.to_string());
            }
        }
    }
    let mut out = BTreeMap::new();
    if let Ok(value) = toml::Value::try_from(run) {
        walk("", &value, &mut out);
    }
    out.retain(|key, _| {
        let no_number = ["output.", "network.file", "operator.file"];
        !no_number.iter().any(|prefix| key.starts_with(prefix))
    });
    out
}

/// Distinguishes operators that give different numbers.
fn fingerprint(setup: &Setup) -> String {
    let o = &setup.operator;
    let couplings = serde_json::to_string(&setup.operator_info.couplings).unwrap_or_default();
    format!(
        "{} {couplings}, {} strings, {} clusters",
        setup.operator_info.name,
        o.string_count(),
        o.cluster_count()
    )
}

impl Saved {
    /// The state of a run of `setup`.
    pub fn new(setup: &Setup, state: Checkpoint, seconds: f64, timings: Timings) -> Saved {
        let m = &setup.metadata;
        Saved {
            format: FORMAT.into(),
            version: VERSION,
            tool: env!("CARGO_PKG_VERSION").into(),
            hash: m.hash(),
            network: m.network.clone(),
            hyperparameters: m.hyperparameters.clone(),
            source: m.source.clone(),
            lattice: m.lattice.clone(),
            operator: fingerprint(setup),
            run: setup.run.to_toml(),
            costs: costs::in_force().clone(),
            seconds,
            timings,
            state,
        }
    }

    /// As JSON.
    ///
    /// # Errors
    /// None is expected: nothing in it depends on the outside.
    pub fn json(&self) -> Result<String, TrainError> {
        serde_json::to_string(self).map_err(|e| {
            TrainError::new(
                format!("the checkpoint cannot be written as JSON: {e}"),
                "this is a mistake in dnetc; the previous checkpoint is intact",
            )
        })
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged or of another version, or holds
    /// parameters that are not finite.
    pub fn load(path: &Path) -> Result<Saved, TrainError> {
        let text = std::fs::read(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => TrainError::new(
                format!("there is no checkpoint `{}`", path.display()),
                "--resume takes the output directory of a run",
            ),
            _ => TrainError::io("read", path, &e),
        })?;
        let bad = |why: String| {
            TrainError::new(
                format!("`{}` is not a usable checkpoint: {why}", path.display()),
                "the parameters may still be usable: start a new run with --from params.safetensors",
            )
        };
        let header: Header = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        if header.format != FORMAT {
            return Err(bad(format!("its format is `{}`", header.format)));
        }
        if header.version != VERSION {
            return Err(bad(format!(
                "it has version {}, this dnetc reads version {VERSION}",
                header.version
            )));
        }
        let saved: Saved = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        if saved.state.params.iter().any(|x| !x.is_finite()) {
            return Err(bad("some parameters are NaN or infinite".into()));
        }
        Ok(saved)
    }

    /// The run file it was made with.
    ///
    /// # Errors
    /// A damaged checkpoint.
    pub fn run_file(&self) -> Result<RunFile, TrainError> {
        RunFile::parse(&self.run).map_err(|e| {
            TrainError::new(
                format!("the run file in the checkpoint is damaged: {e}"),
                "start a new run with --from",
            )
        })
    }

    /// What of the run file has changed since and changes the numbers to come:
    /// `key was old, now it is new`.
    ///
    /// # Errors
    /// A damaged checkpoint.
    pub fn changes(&self, run: &RunFile) -> Result<Vec<String>, TrainError> {
        let (old, new) = (keys(&self.run_file()?), keys(run));
        let all: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let shown = |v: Option<&String>| v.map_or("the default", String::as_str).to_owned();
        Ok(all
            .into_iter()
            .filter(|key| old.get(*key) != new.get(*key))
            .map(|key| {
                let (was, is) = (shown(old.get(key)), shown(new.get(key)));
                format!("{key} was {was}, now it is {is}")
            })
            .collect())
    }

    /// Whether it belongs to this network, lattice, operator and seed.
    ///
    /// # Errors
    /// Everything that differs.
    pub fn check(&self, setup: &Setup) -> Result<(), TrainError> {
        let m = &setup.metadata;
        let mut differences = Vec::new();
        let seeds = [self.run_file()?.seed, setup.run.seed].map(|s| s.to_string());
        let operator = fingerprint(setup);
        for (what, have, want) in [
            ("network", &self.network, &m.network),
            ("hyperparameters", &self.hyperparameters, &m.hyperparameters),
            ("lattice", &self.lattice, &m.lattice),
            ("operator", &self.operator, &operator),
            ("seed", &seeds[0], &seeds[1]),
        ] {
            if have != want {
                differences.push(format!(
                    "  {what}: the checkpoint has {have}, now it is {want}"
                ));
            }
        }
        if self.source != m.source {
            differences.push("  the .dnet source has changed since".into());
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(TrainError::new(
            format!(
                "the checkpoint belongs to another run:\n{}",
                differences.join("\n")
            ),
            "restore what has changed, or start a new run from its parameters with --from",
        ))
    }
}
