//! The output directory.

use super::result::Results;
use super::{RunFile, Saved, TrainError};
use crate::params::{Metadata, Params, save, write_atomically};
use crate::vmc::log::RunLog;
use crate::vmc::plot::{
    Curve, Figure, PlotError, correlation_figure, energy_figure, relative_error_figure,
};
use std::path::{Path, PathBuf};

/// A directory a run writes to.
#[derive(Clone, Debug)]
pub struct Output {
    directory: PathBuf,
}

/// The directory of a new run. The one the run file names must not hold a run,
/// which is known by the file `marker`, unless `overwrite` (None: it cannot be
/// overwritten at all); without one, `stem`,
/// `stem-2`, ... whichever is free.
///
/// # Errors
/// A directory that holds a run, or cannot be made.
pub fn claim_directory(
    run: &RunFile,
    stem: &str,
    marker: &str,
    overwrite: Option<bool>,
) -> Result<PathBuf, TrainError> {
    let make = |path: &Path| {
        std::fs::create_dir_all(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotADirectory => {
                TrainError::new(
                    format!(
                        "the output directory `{}` cannot be made: a file is in the way",
                        path.display()
                    ),
                    "choose another with `-o DIR`",
                )
            }
            _ => TrainError::new(
                format!(
                    "cannot create the output directory `{}`: {e}",
                    path.display()
                ),
                "choose another with `-o DIR`",
            ),
        })
    };
    if let Some(directory) = &run.output.directory {
        if directory.join(marker).exists() && overwrite != Some(true) {
            return Err(TrainError::new(
                format!("`{}` holds a run already", directory.display()),
                format!(
                    "continue it with `--resume {}`, or choose another directory with `-o DIR`{}",
                    directory.display(),
                    overwrite.map_or("", |_| ", or add --overwrite")
                ),
            ));
        }
        make(directory)?;
        return Ok(directory.clone());
    }
    for k in 1.. {
        let path = PathBuf::from(if k == 1 {
            stem.to_owned()
        } else {
            format!("{stem}-{k}")
        });
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(_) => {
                make(&path)?;
                return Ok(path);
            }
        }
    }
    unreachable!("some number is free")
}

impl Output {
    /// Writes to `directory`, which exists.
    pub fn new(directory: impl Into<PathBuf>) -> Output {
        Output {
            directory: directory.into(),
        }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn write(&self, name: &str, text: &str) -> Result<(), TrainError> {
        let path = self.directory.join(name);
        write_atomically(&path, text.as_bytes()).map_err(|e| TrainError::io("write", &path, &e))
    }

    /// `run.toml`
    ///
    /// # Errors
    /// Those of the file system, as for all that follow.
    pub fn run_file(&self, run: &RunFile) -> Result<(), TrainError> {
        self.write("run.toml", &run.to_toml())
    }

    /// `log.json`
    ///
    /// # Errors
    /// Those of the file system.
    pub fn log(&self, log: &RunLog) -> Result<(), TrainError> {
        self.write("log.json", &log.json().to_string())
    }

    /// `params.safetensors`, then `checkpoint.json`, which is complete without
    /// the former: a crash in between loses nothing.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn checkpoint(
        &self,
        saved: &Saved,
        params: &Params,
        metadata: &Metadata,
    ) -> Result<(), TrainError> {
        let path = self.directory.join("params.safetensors");
        save(&path, params, metadata).map_err(|e| match e {
            crate::params::FileError::Io { error, .. } => TrainError::io("write", &path, &error),
            e => TrainError::new(e.to_string(), "files already written are intact"),
        })?;
        self.write("checkpoint.json", &saved.json()?)
    }

    /// `result.json`
    ///
    /// # Errors
    /// Those of the file system.
    pub fn result(&self, results: &Results) -> Result<(), TrainError> {
        self.write("result.json", &results.json())
    }

    /// The plots; returns what could not be drawn.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn plots(
        &self,
        log: &RunLog,
        results: Option<&Results>,
    ) -> Result<Vec<String>, TrainError> {
        let mut undrawn = Vec::new();
        let mut draw = |name: &str, figure: Figure| {
            let path = self.directory.join(name);
            match figure.write(&path) {
                Ok(()) => Ok(()),
                Err(PlotError::Io(e)) => Err(TrainError::io("write", &path, &e)),
                Err(e) => {
                    undrawn.push(format!("no {name}: {e}"));
                    Ok(())
                }
            }
        };
        let exact = results.and_then(|r| r.exact.as_ref()).map(|e| e.energy);
        if let Some((iters, mean, sigma)) = log.get("Energy") {
            draw("energy.svg", energy_figure(iters, mean, sigma, exact))?;
            if let Some(exact) = exact {
                draw(
                    "error.svg",
                    relative_error_figure(iters, mean, sigma, exact),
                )?;
            }
        }
        let measured = results.map_or(&[][..], |r| &r.correlations);
        if measured.len() > 2 {
            let numbered = |values: &[[f64; 2]]| -> Vec<(f64, f64, f64)> {
                let points = values.iter().enumerate().skip(1);
                points.map(|(r, c)| (r as f64, c[0], c[1])).collect()
            };
            let mut figure = correlation_figure(numbered(measured));
            if let Some(exact) = results.and_then(|r| r.exact_correlations.as_ref()) {
                let points: Vec<[f64; 2]> = exact.iter().map(|c| [*c, 0.0]).collect();
                figure.curves.push(Curve {
                    label: "exact",
                    points: numbered(&points),
                    line: true,
                });
            }
            draw("correlations.svg", figure)?;
        }
        Ok(undrawn)
    }
}
