//! The run log, in the JSON history format of NetKet, and atomic files.

use super::lossless;
use super::stats::Summary;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// One quantity over the iterations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Series {
    name: String,
    /// Columns of a [`Summary`]; a scalar has a value only.
    scalar: bool,
    /// Whether the mean is written as real and imaginary part.
    complex: bool,
    iters: Vec<u64>,
    #[serde(with = "lossless::floats")]
    real: Vec<f64>,
    #[serde(with = "lossless::floats")]
    imag: Vec<f64>,
    #[serde(with = "lossless::floats")]
    variance: Vec<f64>,
    #[serde(with = "lossless::floats")]
    sigma: Vec<f64>,
    #[serde(with = "lossless::floats")]
    r_hat: Vec<f64>,
    #[serde(with = "lossless::floats")]
    tau: Vec<f64>,
}

/// Everything recorded in a run. Its serde form keeps every bit, for
/// checkpoints; [`RunLog::json`] is the form for readers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunLog {
    series: Vec<Series>,
}

impl RunLog {
    fn series(&mut self, name: &str, scalar: bool, complex: bool) -> &mut Series {
        let index = match self.series.iter().position(|s| s.name == name) {
            Some(index) => index,
            None => {
                self.series.push(Series {
                    name: name.into(),
                    scalar,
                    complex,
                    ..Series::default()
                });
                self.series.len() - 1
            }
        };
        &mut self.series[index]
    }

    /// Records an estimate; `complex` decides how the mean is written and
    /// must not change within a quantity.
    pub fn push(&mut self, name: &str, iteration: usize, summary: &Summary, complex: bool) {
        let series = self.series(name, false, complex);
        series.iters.push(iteration as u64);
        series.real.push(summary.mean.re);
        series.imag.push(summary.mean.im);
        series.variance.push(summary.variance);
        series.sigma.push(summary.error);
        series.r_hat.push(summary.r_hat);
        series.tau.push(summary.tau);
    }

    /// Records a plain number.
    pub fn push_scalar(&mut self, name: &str, iteration: usize, value: f64) {
        let series = self.series(name, true, false);
        series.iters.push(iteration as u64);
        series.real.push(value);
    }

    /// Iterations, (real) means or values, and errors (empty for scalars).
    pub fn get(&self, name: &str) -> Option<(&[u64], &[f64], &[f64])> {
        let series = self.series.iter().find(|s| s.name == name)?;
        Some((&series.iters, &series.real, &series.sigma))
    }

    /// The history object: `{"Energy": {"iters", "Mean", "Variance", "Sigma",
    /// "R_hat", "TauCorr"}}`, scalars as `{"iters", "value"}`, complex means as
    /// `{"real", "imag"}`, NaN and infinities as null.
    pub fn json(&self) -> Value {
        let mut root = Map::new();
        for s in &self.series {
            let mean = if s.complex {
                json!({"real": s.real, "imag": s.imag})
            } else {
                json!(s.real)
            };
            let entry = if s.scalar {
                json!({"iters": s.iters, "value": mean})
            } else {
                json!({
                    "iters": s.iters, "Mean": mean, "Variance": s.variance, "Sigma": s.sigma,
                    "R_hat": s.r_hat, "TauCorr": s.tau,
                })
            };
            root.insert(s.name.clone(), entry);
        }
        Value::Object(root)
    }

    /// Writes [`RunLog::json`] to `path`, atomically.
    ///
    /// # Errors
    /// Those of the file system; the old file is then still there.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        write_atomically(path, self.json().to_string().as_bytes())
    }
}

/// The progress text `Energy=-12.7853 ± 0.0029 [σ²=8.6e-03, R̂=1.009]`.
pub fn progress(name: &str, summary: &Summary) -> String {
    format!("{name}={}", summary.text())
}

/// Writes a file so that a reader, or a crash, sees the old contents or the
/// new ones: a temporary file beside it, synchronised, then renamed.
///
/// # Errors
/// Those of the file system; the temporary file is removed.
pub fn write_atomically(path: &Path, contents: &[u8]) -> io::Result<()> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a file name",
        ));
    };
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(temporary_name);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_complex::Complex64;

    fn summary(mean: Complex64) -> Summary {
        Summary {
            mean,
            error: 0.5,
            variance: 2.0,
            r_hat: f64::NAN,
            tau: 0.25,
        }
    }

    #[test]
    fn the_json_is_the_history_format() {
        let mut log = RunLog::default();
        log.push("Energy", 0, &summary(Complex64::new(-1.5, 0.0)), false);
        log.push("Energy", 1, &summary(Complex64::new(-2.5, 0.0)), false);
        log.push("Momentum", 0, &summary(Complex64::new(1.0, 2.0)), true);
        log.push_scalar("acceptance", 1, 0.75);
        assert_eq!(
            log.json().to_string(),
            concat!(
                r#"{"Energy":{"iters":[0,1],"Mean":[-1.5,-2.5],"Variance":[2.0,2.0],"#,
                r#""Sigma":[0.5,0.5],"R_hat":[null,null],"TauCorr":[0.25,0.25]},"#,
                r#""Momentum":{"iters":[0],"Mean":{"real":[1.0],"imag":[2.0]},"Variance":[2.0],"#,
                r#""Sigma":[0.5],"R_hat":[null],"TauCorr":[0.25]},"#,
                r#""acceptance":{"iters":[1],"value":[0.75]}}"#
            )
        );
        assert_eq!(log.get("Energy").unwrap().1, [-1.5, -2.5]);
        let stored = serde_json::to_string(&log).unwrap();
        let back: RunLog = serde_json::from_str(&stored).unwrap();
        assert_eq!(back.json(), log.json());
        assert!(back.series[0].r_hat[0].is_nan());
    }

    #[test]
    fn writing_replaces_the_file_or_leaves_everything_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        for text in ["one", "two"] {
            write_atomically(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        // The target is a directory: renaming fails, nothing is left behind.
        let blocked = dir.path().join("blocked");
        fs::create_dir(&blocked).unwrap();
        fs::write(blocked.join("inside"), "x").unwrap();
        assert!(write_atomically(&blocked, b"three").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(write_atomically(&dir.path().join("none").join("run.json"), b"x").is_err());
    }

    #[test]
    fn progress_names_the_quantity() {
        let s = Summary {
            r_hat: 1.009,
            ..summary(Complex64::new(-3.0, 0.0))
        };
        assert_eq!(
            progress("Energy", &s),
            "Energy=-3.00 ± 0.50 [σ²=2.0e+00, R̂=1.009]"
        );
    }
}
