//! The run file: everything that decides the numbers of a training run.
//!
//! TOML; every table and every key may be left out, unknown keys are errors.
//! The command line overrides single keys. What was in force is written to
//! `run.toml` in the output directory and kept in checkpoints.
//!
//! ```
//! let run = dnet::train::RunFile::parse(
//!     "seed = 3
//!      [network]
//!      file = 'dysonnet.dnet'
//!      hyperparameters = { dim = 8 }
//!      [operator]
//!      name = 'tfim'
//!      couplings = { J = 1, h = 0.5 }
//!      [lattice]
//!      sites = 32
//!      [optimiser]
//!      iterations = 200
//!      rate = 0.05",
//! )
//! .unwrap();
//! assert_eq!((run.seed, run.sampler.chains), (3, 256));
//! let wrong = dnet::train::RunFile::parse("[sampler]\nchians = 4").unwrap_err();
//! assert!(wrong.contains("chians") && wrong.contains("chains"));
//! ```

use super::scan::ScanTable;
use super::schedule::ScheduleSpec;
use crate::check::core::Static;
use crate::ir::Boundary;
use crate::run::network::{Backend, Precision};
use crate::vmc::sampler::Acceptance;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A run file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunFile {
    /// Seed of the initial parameters and of all chains.
    pub seed: u64,
    /// Floating-point type of the network; sums and solves are always f64.
    pub precision: Precision,
    /// What evaluates the network.
    pub backend: Backend,
    /// The network.
    pub network: NetworkTable,
    /// The operator whose energy is minimised.
    pub operator: OperatorTable,
    /// The lattice.
    pub lattice: LatticeTable,
    /// How configurations are drawn.
    pub sampler: SamplerTable,
    /// How parameters move.
    #[serde(alias = "optimizer")]
    pub optimiser: OptimiserTable,
    /// The measurement with frozen parameters at the end.
    pub evaluation: EvaluationTable,
    /// What is written where.
    pub output: OutputTable,
    /// The grid of a scan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scan: Option<ScanTable>,
}

/// `[network]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkTable {
    /// The `.dnet` file, relative to the run file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The network in it; needed where the file has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Hyperparameters other than the defaults.
    pub hyperparameters: BTreeMap<String, Static>,
}

/// `[operator]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OperatorTable {
    /// Name of the operator, in the file or in `std::operators`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The `.dnet` file, relative to the run file; the network's by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Couplings other than the defaults.
    pub couplings: BTreeMap<String, Static>,
}

/// `[lattice]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LatticeTable {
    /// Number of sites, or `[LX, LY]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sites: Option<Sites>,
    /// `"periodic"` (the default) or `"open"`.
    pub boundary: Boundary,
}

impl Default for LatticeTable {
    fn default() -> Self {
        LatticeTable {
            sites: None,
            boundary: Boundary::Periodic,
        }
    }
}

/// A number of sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number of sites or a pair [LX, LY], all at least 1"
)]
pub enum Sites {
    /// In all: a chain, or a square.
    Total(usize),
    /// Per axis.
    Extent([usize; 2]),
}

/// Kinds of samplers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SamplerMethod {
    /// Every site once, in order, with exact ratios
    Sweep,
    /// Single flips at random sites
    Metropolis,
    /// Exchanges of two spins: along the operator's pairs, or any two
    Exchange,
    /// The screened typewriter: blocks of sites, even blocks first
    Typewriter,
    /// No sampling: the whole basis with exact weights (few sites)
    FullSum,
}

/// What decides for the typewriter where no exact ratio is evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BoundKind {
    /// The largest error seen so far: learnt, proves nothing
    #[default]
    Empirical,
    /// Derived from the network at every parameter set: decisions are exact
    Rigorous,
}

/// `[sampler]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplerTable {
    /// `"sweep"`, `"metropolis"`, `"exchange"`, `"typewriter"` or
    /// `"full-sum"`. By default exchange at fixed magnetisation, else sweep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<SamplerMethod>,
    /// Chains in parallel.
    pub chains: usize,
    /// Samples per iteration, over all chains: a multiple of `chains`.
    pub samples: usize,
    /// Sweeps (N proposals each) before each sample.
    pub sweeps: usize,
    /// Sweeps before the first iteration.
    pub burn_in: usize,
    /// Sweeps dropped at the beginning of each iteration.
    pub discard: usize,
    /// `"heat-bath"` or `"metropolis"`. By default the heat bath for sweeps
    /// and the typewriter, else Metropolis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acceptance: Option<Acceptance>,
    /// A global inversion is proposed after every this many sweeps; 0: never.
    /// By default 1 where the operator has this symmetry, else 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inversion: Option<u64>,
    /// A uniformly drawn configuration is proposed after every this many sweeps;
    /// 0: never. By default 1; the typewriter makes no such proposals.
    pub uniform: u64,
    /// Fixed sum of all spins, +1 and -1 each.
    #[serde(skip_serializing_if = "Option::is_none", alias = "magnetisation")]
    pub magnetization: Option<i64>,
    /// Sites per block of the typewriter.
    pub width: usize,
    /// What screens for the typewriter: `"empirical"` (the default), the largest
    /// error seen so far, or `"rigorous"`, derived from the network.
    #[serde(skip_serializing_if = "is_default")]
    pub bound: BoundKind,
}

fn is_default(bound: &BoundKind) -> bool {
    *bound == BoundKind::default()
}

impl Default for SamplerTable {
    fn default() -> Self {
        SamplerTable {
            method: None,
            chains: 256,
            samples: 1024,
            sweeps: 1,
            burn_in: 20,
            discard: 0,
            acceptance: None,
            inversion: None,
            uniform: 1,
            magnetization: None,
            width: 8,
            bound: BoundKind::Empirical,
        }
    }
}

/// Kinds of optimisers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OptimiserMethod {
    /// Stochastic reconfiguration, in the smaller of parameter and sample space
    #[default]
    Auto,
    /// Stochastic reconfiguration in parameter space
    Sr,
    /// Stochastic reconfiguration in sample space
    MinSr,
    /// Plain gradient descent
    Sgd,
    /// Adam
    Adam,
}

/// `[optimiser]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimiserTable {
    /// `"auto"`, `"sr"`, `"min-sr"`, `"sgd"` or `"adam"`.
    pub method: OptimiserMethod,
    /// Steps to take.
    pub iterations: usize,
    /// Learning rate. A number is the peak of the default schedule: warm-up
    /// from a tenth of it over 3/8 of the iterations, then exponential decay
    /// back to a tenth. Or a schedule, e.g. `{ constant = 0.02 }`.
    pub rate: ScheduleSpec,
    /// Added to the diagonal of S: a number (a constant) or a schedule. By
    /// default it falls linearly from 1e-2 to 1e-4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<ScheduleSpec>,
    /// The same in units of the diagonal; 0 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative_shift: Option<ScheduleSpec>,
    /// SPRING's decay of the previous step; 0 is plain SR.
    pub momentum: f64,
    /// Longest step (Euclidean norm of the direction); none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_norm: Option<f64>,
}

impl Default for OptimiserTable {
    fn default() -> Self {
        OptimiserTable {
            method: OptimiserMethod::Auto,
            iterations: 400,
            rate: ScheduleSpec::Number(0.1),
            shift: None,
            relative_shift: None,
            momentum: 0.0,
            max_norm: None,
        }
    }
}

/// `[evaluation]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationTable {
    /// Samples, over all chains: a multiple of the number of chains; 0: none.
    pub samples: usize,
    /// Sweeps before the first of them.
    pub burn_in: usize,
    /// Whether the whole basis is summed instead. By default where it has at most
    /// 2^18 configurations (of the magnetisation, if one is fixed).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<bool>,
}

impl Default for EvaluationTable {
    fn default() -> Self {
        EvaluationTable {
            samples: 8192,
            burn_in: 20,
            exact: None,
        }
    }
}

/// `[output]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputTable {
    /// The directory, relative to where the command runs. By default named
    /// after the run file or the network, numbered if that is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// Whether SVG plots are drawn at the end.
    pub plots: bool,
    /// Iterations between checkpoints.
    pub checkpoint_every: usize,
    /// Iterations between writes of the log.
    pub log_every: usize,
}

impl Default for OutputTable {
    fn default() -> Self {
        OutputTable {
            directory: None,
            plots: true,
            checkpoint_every: 25,
            log_every: 10,
        }
    }
}

impl RunFile {
    /// Reads TOML.
    ///
    /// # Errors
    /// The place and the key that is wrong, as text.
    pub fn parse(text: &str) -> Result<RunFile, String> {
        toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())
    }

    /// Paths of files relative to `base` become independent of where the
    /// command runs.
    pub fn anchor(&mut self, base: &Path) {
        for file in [&mut self.network.file, &mut self.operator.file]
            .into_iter()
            .flatten()
        {
            let joined = base.join(&*file);
            *file = std::path::absolute(&joined).unwrap_or(joined);
        }
    }

    /// As TOML; [`RunFile::parse`] reads back the same bits.
    pub fn to_toml(&self) -> String {
        // Only maps with keys that are no text fail, and there are none.
        toml::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        let mut run = RunFile::parse(
            "seed = 7\nprecision = 'f32'\n[network]\nfile = 'a.dnet'\n\
             hyperparameters = { dim = 3, bias = true, scale = 0.1 }\n\
             [lattice]\nsites = [4, 6]\nboundary = 'open'\n\
             [optimizer]\nrate = { linear = { from = 0.1, to = 0.01, over = 30 } }\nshift = 1e-3\n",
        )
        .unwrap();
        assert_eq!(run.lattice.sites, Some(Sites::Extent([4, 6])));
        run.anchor(Path::new("/some/where"));
        assert_eq!(
            run.network.file.as_deref(),
            Some(Path::new("/some/where/a.dnet"))
        );
        run.optimiser.momentum = 0.1 + 0.2;
        assert_eq!(RunFile::parse(&run.to_toml()).unwrap(), run);
        let empty = RunFile::default();
        assert_eq!(RunFile::parse(&empty.to_toml()).unwrap(), empty);
    }

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        let text = include_str!("../../docs/training.md");
        let block = text.split("```").nth(1).unwrap().trim_start_matches("toml");
        let run = RunFile::parse(block).unwrap();
        let plain = RunFile::default();
        let documented = SamplerTable {
            method: None,
            acceptance: None,
            inversion: None,
            ..run.sampler.clone()
        };
        assert_eq!(documented, plain.sampler);
        let documented = OptimiserTable {
            shift: None,
            relative_shift: None,
            ..run.optimiser.clone()
        };
        assert_eq!(documented, plain.optimiser);
        let documented = OutputTable {
            directory: None,
            ..run.output.clone()
        };
        assert_eq!(documented, plain.output);
        assert_eq!(run.evaluation, plain.evaluation);
        assert_eq!(
            (run.seed, run.precision, run.backend, run.lattice.boundary),
            (
                plain.seed,
                plain.precision,
                plain.backend,
                plain.lattice.boundary
            )
        );
    }

    #[test]
    fn run_files_of_the_examples_parse() {
        let runs = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/runs");
        let mut count = 0;
        for entry in std::fs::read_dir(runs).unwrap() {
            let path = entry.unwrap().path();
            let mut run = RunFile::parse(&std::fs::read_to_string(&path).unwrap())
                .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            run.anchor(Path::new(runs));
            crate::train::Setup::new(run).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            count += 1;
        }
        assert!(count >= 14);
    }

    #[test]
    fn errors_name_the_key_and_what_was_expected() {
        for (text, parts) in [
            ("[sampler]\nmethod = 'gibbs'", ["gibbs", "full-sum"]),
            ("[lattice]\nsites = -3", ["sites", "[LX, LY]"]),
            ("[optimiser]\nrate = 'fast'", ["rate", "a number"]),
            ("[optimiser]\nrate = { linaer = 1 }", ["linaer", "linear"]),
            (
                "[network]\nhyperparameters = { dim = 'big' }",
                ["dim", "a number"],
            ),
            ("[nettwork]", ["nettwork", "network"]),
        ] {
            let message = RunFile::parse(text).unwrap_err();
            for part in parts {
                assert!(message.contains(part), "{part} not in: {message}");
            }
        }
    }
}
