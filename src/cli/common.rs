//! What all verbs share: loading, printing, flags.

use crate::back::cpu::budget::limit_process;
use crate::check::core::{NetworkInfo, Static};
use crate::check::{CheckError, Program};
use crate::diag::{Diagnostic, Severity, render};
use crate::ir::{Boundary, Lattice};
use crate::run::WaveFunction;
use crate::syntax::ast::{LatticeKind, SourceMap};
use crate::train::TrainError;
use clap::ValueEnum;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Diagnostics shown to people at once.
const MAX_SHOWN: usize = 100;

/// How diagnostics are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MessageFormat {
    /// With source excerpts
    Human,
    /// One JSON object per line
    Json,
}

/// Why a verb failed.
#[derive(Debug)]
pub enum CliError {
    /// Problems in `.dnet` files.
    Check(CheckError),
    /// Anything else: what happened, and the way out.
    Message {
        /// One sentence.
        what: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// Stopped by the user; the files are complete.
    Interrupted {
        /// One sentence.
        what: String,
        /// How to go on.
        help: String,
    },
    /// Everything has been said already.
    Silent,
}

impl CliError {
    /// An error with a way out.
    pub fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        CliError::Message {
            what: what.into(),
            help: Some(help.into()),
        }
    }
    /// An error that speaks for itself.
    pub fn plain(what: impl Into<String>) -> Self {
        CliError::Message {
            what: what.into(),
            help: None,
        }
    }
    /// The exit code: 130 after an interruption, as shells have it.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, CliError::Interrupted { .. }) {
            130
        } else {
            1
        }
    }
    /// A failure to read or write a file.
    pub fn io(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => "check the path",
            std::io::ErrorKind::PermissionDenied => "check the permissions",
            std::io::ErrorKind::StorageFull => "free some space; nothing was overwritten",
            _ => "the file was left as it was",
        };
        CliError::new(
            format!("cannot {doing} `{}`: {error}", path.display()),
            help,
        )
    }
}

/// Numbers that are missing: the machine the network runs on failed, or else `otherwise`.
pub fn without_numbers(psi: &dyn WaveFunction, otherwise: CliError) -> CliError {
    match psi.failure() {
        Some(reason) => CliError::new(
            reason,
            "`--backend cpu` needs no GPU, `dnetc doctor` says what was found",
        ),
        None => otherwise,
    }
}

impl From<TrainError> for CliError {
    fn from(e: TrainError) -> Self {
        match e {
            TrainError::Check(e) => CliError::Check(e),
            TrainError::Diverged { what, help } | TrainError::Message { what, help } => {
                CliError::new(what, help)
            }
        }
    }
}

impl From<CheckError> for CliError {
    fn from(e: CheckError) -> Self {
        CliError::Check(e)
    }
}

/// Where messages go and how they look.
pub struct Ui {
    colour: bool,
    format: MessageFormat,
}

impl Ui {
    /// `colour`: forced on or off, or decided by the terminal and NO_COLOR.
    pub fn new(colour: Option<bool>, format: MessageFormat) -> Ui {
        let auto = || {
            std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        };
        Ui {
            colour: colour.unwrap_or_else(auto),
            format,
        }
    }

    /// Prints diagnostics to stderr (JSON lines to stdout).
    pub fn diagnostics(&self, sources: &SourceMap, diagnostics: &[Diagnostic]) {
        if diagnostics.is_empty() {
            return;
        }
        // A wall of text helps nobody; the counts at the end stay complete.
        let shown = &diagnostics[..diagnostics.len().min(MAX_SHOWN)];
        let hidden = diagnostics.len() - shown.len();
        match self.format {
            MessageFormat::Human => {
                let _ = write!(
                    std::io::stderr(),
                    "{}",
                    render::human(sources, shown, self.colour)
                );
                if hidden > 0 {
                    eprintln!(
                        "... and {hidden} more problems; mend the first ones and check again\n"
                    );
                }
            }
            MessageFormat::Json => {
                let _ = print(&render::json(sources, diagnostics));
            }
        }
    }

    /// Prints an error.
    pub fn error(&self, error: &CliError) {
        match error {
            CliError::Check(e) => self.diagnostics(&e.sources, &e.diagnostics),
            CliError::Message { what, help } => {
                if self.format == MessageFormat::Json {
                    let object =
                        serde_json::json!({"severity": "error", "message": what, "help": help});
                    let _ = print(&format!("{object}\n"));
                    return;
                }
                let (on, off) = if self.colour {
                    ("\x1b[1;31m", "\x1b[0m")
                } else {
                    ("", "")
                };
                let mut text = format!("{on}error{off}: {what}\n");
                if let Some(help) = help {
                    text += &format!("  help: {help}\n");
                }
                let _ = write!(std::io::stderr(), "{text}");
            }
            CliError::Interrupted { what, help } => self.note(&format!("{what}\n  {help}")),
            CliError::Silent => {}
        }
    }

    /// Prints a remark to stderr.
    pub fn note(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// Whether messages are machine-readable.
    pub fn json(&self) -> bool {
        self.format == MessageFormat::Json
    }
}

/// Prints to stdout. A closed pipe (`| head`) ends quietly.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::plain(format!("cannot write the output: {e}")))
        }
        _ => Ok(()),
    }
}

/// A file, one of its networks, and overrides.
#[derive(clap::Args, Clone, Debug)]
pub struct NetworkArgs {
    /// The .dnet file
    pub file: PathBuf,
    /// The network (may be left out if the file has one)
    pub network: Option<String>,
    /// Override a hyperparameter
    #[arg(short = 'D', value_name = "NAME=VALUE", value_parser = parse_override)]
    pub define: Vec<(String, Static)>,
}

impl NetworkArgs {
    /// Loads the file and checks the network; warnings are printed.
    pub fn check(&self, ui: &Ui) -> Result<(Program, NetworkInfo), CliError> {
        let program = Program::load(&self.file);
        let (info, warnings) = self.check_in(&program)?;
        ui.diagnostics(program.sources(), &warnings);
        Ok((program, info))
    }

    /// Checks the network of a loaded program.
    pub fn check_in(&self, program: &Program) -> Result<(NetworkInfo, Vec<Diagnostic>), CliError> {
        let names: Vec<&str> = program
            .networks()
            .iter()
            .map(|n| n.name.name.as_str())
            .collect();
        if self.network.is_none() && names.len() > 1 {
            return Err(CliError::new(
                format!("`{}` has {} networks", self.file.display(), names.len()),
                format!("name one of them: {}", names.join(", ")),
            ));
        }
        let mut request = match &self.network {
            Some(name) => program.network(name),
            None => program.only_network(),
        };
        for (name, value) in &self.define {
            request = request.with(name, *value);
        }
        Ok(request.check_with_warnings()?)
    }
}

/// `depth=3`, `open=true`, `J=-0.5`
pub fn parse_override(text: &str) -> Result<(String, Static), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let value = value.trim();
    let parsed = match value {
        "true" => Static::Bool(true),
        "false" => Static::Bool(false),
        _ => match (value.parse::<i64>(), value.parse::<f64>()) {
            (Ok(k), _) => Static::Int(k),
            (_, Ok(x))
                if x.is_finite() && !value.bytes().all(|b| b.is_ascii_digit() || b == b'-') =>
            {
                Static::Real(x)
            }
            (_, Ok(_)) => return Err(format!("`{value}` is out of range")),
            _ => {
                return Err(format!(
                    "`{value}` is neither a number nor `true` nor `false`"
                ));
            }
        },
    };
    Ok((name.trim().to_owned(), parsed))
}

/// The lattice flags.
#[derive(clap::Args, Clone, Debug)]
pub struct LatticeArgs {
    /// Number of sites; on a square lattice `LX,LY` or the total of a square
    #[arg(long, value_name = "N", value_parser = parse_sites)]
    pub sites: Option<[usize; 2]>,
    /// Boundary of the lattice
    #[arg(long, value_enum, default_value_t = BoundaryArg::Periodic)]
    pub boundary: BoundaryArg,
}

/// The boundary flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BoundaryArg {
    /// A ring or torus
    Periodic,
    /// An open chain or rectangle
    Open,
}

/// `100`, `4,6` or `4x6`. A single number has second extent 0: to be decided
/// by the lattice kind.
pub fn parse_sites(text: &str) -> Result<[usize; 2], String> {
    let parts: Vec<&str> = text.split([',', 'x']).collect();
    let number = |s: &str| match s.trim().parse::<usize>() {
        Ok(n) if (1..=1 << 28).contains(&n) => Ok(n),
        Ok(n) => Err(format!("{n} sites are out of range")),
        Err(_) => Err(format!("`{s}` is not a number of sites")),
    };
    match parts[..] {
        [n] => Ok([number(n)?, 0]),
        [a, b] => Ok([number(a)?, number(b)?]),
        _ => Err("expected N or LX,LY".to_owned()),
    }
}

impl LatticeArgs {
    /// The lattice for a network or operator of this kind, if sites were given.
    pub fn lattice(&self, kind: LatticeKind) -> Result<Option<Lattice>, CliError> {
        let Some([a, b]) = self.sites else {
            return Ok(None);
        };
        let boundary = match self.boundary {
            BoundaryArg::Periodic => Boundary::Periodic,
            BoundaryArg::Open => Boundary::Open,
        };
        let extent = match (kind, b) {
            (LatticeKind::Chain, 0 | 1) => [a, 1],
            (LatticeKind::Chain, _) => {
                return Err(CliError::new(
                    "two extents were given for a chain",
                    "write `--sites N`",
                ));
            }
            (LatticeKind::Square, 0) => {
                let l = a.isqrt();
                if l * l != a {
                    return Err(CliError::new(
                        format!("{a} sites are not a square"),
                        "write both extents: `--sites LX,LY`",
                    ));
                }
                [l, l]
            }
            (LatticeKind::Square, b) => [a, b],
        };
        Ok(Some(Lattice { extent, boundary }))
    }
}

/// Fails with the lattice's diagnostics, if there are any.
pub fn check_lattice(
    program: &Program,
    info: &NetworkInfo,
    lattice: Lattice,
) -> Result<(), CliError> {
    let sites = crate::check::lattice::Sites {
        extent: lattice.extent,
        periodic: lattice.boundary == Boundary::Periodic,
    };
    let diagnostics = crate::check::lattice::check(program.modules(), info, sites);
    if diagnostics.iter().any(|d| d.severity() == Severity::Error) {
        return Err(CliError::Check(CheckError {
            diagnostics,
            sources: program.sources().clone(),
        }));
    }
    Ok(())
}

/// Writes beside the target, then renames: readers see the old file or the
/// new one, never half of it.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    crate::params::write_atomically(path, bytes).map_err(|e| CliError::io("write", path, &e))
}

/// What a parameter file of this network records.
pub fn metadata(
    program: &Program,
    info: &NetworkInfo,
    lattice: Lattice,
) -> crate::params::Metadata {
    crate::params::Metadata::new(program, info, lattice)
}

/// Where parameters come from: a file, or the initialisers.
#[derive(clap::Args, Clone, Debug)]
pub struct ParamArgs {
    /// Parameter file; without one, parameters are initialised from the seed
    #[arg(long, value_name = "FILE")]
    pub params: Option<PathBuf>,
    /// TOML file with a table [parameters] of "our path" = "their name"
    #[arg(long, value_name = "FILE", requires = "params")]
    pub mapping: Option<PathBuf>,
    /// Use parameters although they were made for another source or other hyperparameters
    #[arg(long, requires = "params")]
    pub force: bool,
    /// Seed of initial parameters
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl ParamArgs {
    /// The parameters of a network on a lattice.
    pub fn load(
        &self,
        program: &Program,
        info: &NetworkInfo,
        lowered: &crate::ir::Lowered,
        lattice: Lattice,
    ) -> Result<crate::params::Params, CliError> {
        let plain = |e: &dyn std::fmt::Display| CliError::plain(e.to_string());
        let Some(file) = &self.params else {
            return crate::params::initialise(info, lowered, lattice, self.seed)
                .map_err(|e| plain(&e));
        };
        let like = crate::params::Params::zeros(&lowered.graph, lattice).map_err(|e| plain(&e))?;
        let map = match &self.mapping {
            Some(m) => crate::params::mapping(m).map_err(|e| plain(&e))?,
            None => Default::default(),
        };
        let meta = metadata(program, info, lattice);
        let strict = !self.force && self.mapping.is_none();
        crate::params::load(file, &like, strict.then_some(&meta), &map).map_err(|e| match e {
            crate::params::FileError::Mismatch { .. } => CliError::new(
                e.to_string(),
                "pass the same -D flags as for `init`; `--force` accepts another source if names and shapes agree",
            ),
            e => plain(&e),
        })
    }
}

/// How much memory to work in.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct MemoryArgs {
    /// Memory that networks on the CPU work in, say "4 GB" [default: half of the machine's]
    #[arg(long, value_name = "LIMIT", value_parser = parse_memory)]
    memory: Option<usize>,
}

impl MemoryArgs {
    /// Puts the limit in force; before any network is built.
    pub fn apply(&self) {
        if let Some(bytes) = self.memory {
            limit_process(bytes);
        }
    }
}

/// A number of bytes with a unit: kB, MB, GB, TB, or KiB to TiB.
pub fn parse_memory(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let powers = ["B", "K", "M", "G", "T"];
    let unit = unit.to_ascii_uppercase();
    let power = powers.iter().position(|p| unit.starts_with(p));
    let scale = match (power, unit.get(1..)) {
        (Some(0), Some("")) => Some(1.0),
        (Some(k), Some("" | "B")) if k > 0 => Some(1000f64.powi(k as i32)),
        (Some(k), Some("IB")) if k > 0 => Some(1024f64.powi(k as i32)),
        _ => None,
    };
    match (number.trim().parse::<f64>(), scale) {
        (Ok(x), Some(scale)) if x > 0.0 && x.is_finite() => Ok((x * scale) as usize),
        _ => Err("give a size with its unit, such as \"4 GB\" or 500MB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_memory;

    #[test]
    fn sizes_of_memory() {
        for (text, bytes) in [
            ("4 GB", 4_000_000_000),
            ("500mb", 500_000_000),
            ("1.5G", 1_500_000_000),
            ("2 GiB", 2 << 30),
            ("100 B", 100),
        ] {
            assert_eq!(parse_memory(text), Ok(bytes), "{text}");
        }
        for wrong in [
            "", "4", "GB", "-1 GB", "4 XB", "inf GB", "0 MB", "1 Bi", "3 µB",
        ] {
            assert!(parse_memory(wrong).is_err(), "{wrong}");
        }
    }
}
