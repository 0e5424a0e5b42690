//! What loop-level code costs on this machine: the constants by which strategies
//! are compared.
//!
//! Without a calibration they are those of a reference machine, so that the same
//! choices are made everywhere. `dnetc bench --calibrate` measures them and writes
//! a file, which the command line reads; a program with this library in it does so
//! only if it says so ([`prefer`]). A training stores the constants it was started
//! with and goes on with them.

use crate::params::write_atomically;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Name of the calibration in the cache folder.
const FILE: &str = "costs.toml";

/// The machine whose constants are built in.
pub const REFERENCE: &str = "reference machine (AMD EPYC with AVX-512)";

/// Relative to a multiply-add of the micro-kernels, per number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// Where they were measured.
    pub machine: String,
    /// A transcendental function in a fused loop.
    pub function: f64,
    /// Any other operation of a fused loop, memory traffic included.
    pub operation: f64,
    /// A product of two site values that is summed up.
    pub dot: f64,
    /// A Fourier transform of n numbers there and back, per `n log2 n`.
    pub transform: f64,
    /// A value read from a table.
    pub lookup: f64,
    /// A number summed up, copied or rearranged.
    pub copy: f64,
    /// A step of a program, whatever its length.
    pub step: f64,
    /// A multiply-add of segments and slices, see
    /// [`Environments::products`](super::cpu::environment::Environments::products).
    #[serde(default = "reference::environment")]
    pub environment: f64,
    /// A proposal between environments, whatever their size.
    #[serde(default = "reference::proposal")]
    pub proposal: f64,
}

/// Of the reference machine, for calibrations that do not have them yet.
mod reference {
    pub fn environment() -> f64 {
        1.5
    }
    pub fn proposal() -> f64 {
        2e4
    }
}

impl Default for Costs {
    fn default() -> Costs {
        Costs {
            machine: REFERENCE.to_owned(),
            function: 12.0,
            operation: 1.0,
            dot: 2.0,
            transform: 10.0,
            lookup: 1.0,
            copy: 1.0,
            step: 0.0,
            environment: reference::environment(),
            proposal: reference::proposal(),
        }
    }
}

/// A calibration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the calibration `{path}` cannot be used: {why}; repeat `dnetc bench --calibrate`, or remove the file"
)]
pub struct CalibrationError {
    path: String,
    why: String,
}

/// Names the file of the calibration; empty: there is none.
const VARIABLE: &str = "DNET_COSTS";

static IN_FORCE: OnceLock<Costs> = OnceLock::new();
static PREFERRED: OnceLock<Costs> = OnceLock::new();

/// The constants of this process: those set by [`set`], else those of [`prefer`],
/// else the built-in ones.
pub fn in_force() -> &'static Costs {
    IN_FORCE.get_or_init(|| PREFERRED.get().cloned().unwrap_or_default())
}

/// Sets the constants of this process; `false` if others are in force already.
pub fn set(costs: &Costs) -> bool {
    IN_FORCE.get_or_init(|| costs.clone()) == costs
}

/// Prefers constants, say those of [`calibration`], to the built-in ones, until some
/// are in force.
pub fn prefer(costs: Costs) {
    PREFERRED.get_or_init(|| costs);
}

/// The calibration of this machine, if there is one.
///
/// # Errors
/// As [`Costs::read`].
pub fn calibration() -> Result<Option<Costs>, CalibrationError> {
    file().map_or(Ok(None), |path| Costs::read(&path))
}

/// Where the calibration is: the file named in `$DNET_COSTS` (empty: nowhere), or
/// `costs.toml` in `$DNET_CACHE`, or in `dnet` in the user's cache folder.
pub fn file() -> Option<PathBuf> {
    match std::env::var_os(VARIABLE) {
        Some(path) if path.is_empty() => None,
        Some(path) => Some(PathBuf::from(path)),
        None => Some(super::cuda::cache::directory()?.join(FILE)),
    }
}

impl Costs {
    /// Reads a calibration; `None` if there is none.
    ///
    /// # Errors
    /// A file that cannot be read or holds something else.
    pub fn read(path: &Path) -> Result<Option<Costs>, CalibrationError> {
        let bad = |why: String| CalibrationError {
            path: path.display().to_string(),
            why,
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(bad(e.to_string())),
        };
        let costs: Costs = toml::from_str(&text).map_err(|e| bad(e.message().to_owned()))?;
        costs.check().map_err(bad)?;
        Ok(Some(costs))
    }

    /// Whether all constants are possible.
    fn check(&self) -> Result<(), String> {
        for (name, x) in self.entries() {
            if !(0.0..=1e6).contains(&x) {
                return Err(format!("{name} = {x} is no cost"));
            }
        }
        Ok(())
    }

    /// Writes a calibration; its folder is made if there is none.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let text = toml::to_string(self).map_err(std::io::Error::other)?;
        let head = "# Measured by `dnetc bench --calibrate`: costs relative to a multiply-add.\n";
        write_atomically(path, format!("{head}{text}").as_bytes())
    }

    /// The constants by name, first those of
    /// [`Counts::terms`](super::cpu::work::Counts::terms) in their order.
    pub fn entries(&self) -> [(&'static str, f64); 9] {
        [
            ("function", self.function),
            ("operation", self.operation),
            ("dot", self.dot),
            ("transform", self.transform),
            ("lookup", self.lookup),
            ("copy", self.copy),
            ("step", self.step),
            ("environment", self.environment),
            ("proposal", self.proposal),
        ]
    }
}

impl std::fmt::Display for Costs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entries = self.entries().map(|(name, x)| format!("{name} {x:.3}"));
        write!(f, "{}: {}", self.machine, entries.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibrations_come_back_or_say_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/costs.toml");
        assert_eq!(Costs::read(&path).unwrap(), None);
        let costs = Costs {
            machine: "a machine with \"quotes\"".to_owned(),
            function: 7.0 / 3.0,
            ..Costs::default()
        };
        costs.write(&path).unwrap();
        assert_eq!(Costs::read(&path).unwrap(), Some(costs.clone()));
        // one that was made before environments had costs of their own
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.retain(|l| !l.starts_with("environment") && !l.starts_with("proposal"));
        std::fs::write(&path, lines.join("\n")).unwrap();
        assert_eq!(Costs::read(&path).unwrap(), Some(costs.clone()));
        std::fs::write(&path, &text).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for (from, to) in [
            ("step = 0.0", "step = -1.0"),
            ("step = 0.0", "step = nan"),
            ("step = 0.0", ""),
            ("step = 0.0", "step = 0.0\nsteps = 1.0"),
            ("lookup", "look up"),
        ] {
            assert!(text.contains(from), "{text}");
            std::fs::write(&path, text.replace(from, to)).unwrap();
            let message = Costs::read(&path).unwrap_err().to_string();
            assert!(message.contains("bench --calibrate"), "{message}");
            assert!(message.contains("costs.toml"), "{message}");
        }
    }
}
