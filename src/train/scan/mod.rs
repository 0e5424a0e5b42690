//! Scans: one run per point of a grid, collected in a table.
//!
//! A run file with a `[scan]` table describes a grid of couplings,
//! hyperparameters, lattice sizes and seeds. Every point is a run of its own in
//! a directory of its own, so whatever continues a run continues a scan: points
//! with a result are skipped, a point with a checkpoint is resumed, and the
//! numbers are those of a scan that was never interrupted.
//!
//! | file | contents |
//! | --- | --- |
//! | `scan.toml` | the run file in force |
//! | `points/001-J=0.5/` | the run of a point, as [`crate::train`] leaves it |
//! | `results.csv`, `results.json` | one row per finished point, rewritten after each |
//! | `energy.svg`, `error.svg`, `m2.svg` | results against the fastest axis |

mod grid;
mod table;

pub use grid::{Axis, AxisKind, Grid, Point, ScanTable, Values};
pub use table::{Row, Table};

use super::{Ended, Event, Output, RunFile, Saved, Setup, Start, TrainError};
use crate::vmc::log::write_atomically;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The run file of a scan in its directory.
pub const RUN_FILE: &str = "scan.toml";

/// Left in the directory of a point whose optimisation failed.
const FAILED: &str = "failed.txt";

/// A scan, checked: every point of it can start.
#[derive(Debug)]
pub struct Scan {
    run: RunFile,
    grid: Grid,
}

/// What a scan tells while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum ScanEvent<'a> {
    /// A point begins or goes on.
    Point {
        /// Its number, from 1.
        number: usize,
        /// Points in all.
        total: usize,
        /// Its values, for people.
        label: &'a str,
    },
    /// From the run of the point.
    Run(Event<'a>),
    /// Something the user should know.
    Message(&'a str),
}

/// How a scan ended.
#[derive(Clone, Debug)]
pub enum ScanEnded {
    /// All points are done.
    Finished(Table),
    /// By the stop flag or the time limit, after so many points; all is saved.
    Stopped {
        /// Points done.
        done: usize,
        /// Whether it was the time limit.
        time_up: bool,
    },
}

impl Scan {
    /// Checks the run file of a scan and the runs of all its points.
    ///
    /// # Errors
    /// A grid that makes no sense, or whatever keeps a point from starting.
    pub fn new(run: RunFile) -> Result<Scan, TrainError> {
        let Some(spec) = &run.scan else {
            return Err(TrainError::new(
                "the run file has no [scan] table",
                "add one, or train this one point with `dnetc train`",
            ));
        };
        if run.evaluation.samples == 0 {
            return Err(TrainError::new(
                "`evaluation.samples`: a scan collects measurements, and 0 samples measure nothing",
                "give at least as many as there are chains",
            ));
        }
        let grid = Grid::new(spec)?;
        let scan = Scan { run, grid };
        for point in scan.grid.points() {
            scan.setup(&point).map_err(|e| e.at(&point.label))?;
        }
        Ok(scan)
    }

    /// The run file.
    pub fn run_file(&self) -> &RunFile {
        &self.run
    }

    /// The grid.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    fn setup(&self, point: &Point) -> Result<Setup, TrainError> {
        Setup::new(self.grid.run_at(point, &self.run))
    }

    /// Runs every point that is not done yet. Files go to `directory`, which
    /// exists; `stop` may be raised from outside.
    ///
    /// # Errors
    /// Files that cannot be read or written. An optimisation that fails is a row
    /// of the table, not an error.
    pub fn run(
        &self,
        directory: &Path,
        stop: &AtomicBool,
        max_time: Option<Duration>,
        tell: &mut dyn FnMut(ScanEvent),
    ) -> Result<ScanEnded, TrainError> {
        let started = Instant::now();
        write(&directory.join(RUN_FILE), &self.run.to_toml())?;
        let points = self.grid.points();
        let total = points.len();
        let mut table = Table::new(&self.grid, self.run.evaluation.samples);
        for (k, point) in points.iter().enumerate() {
            let place = self.place(directory, point);
            if let Some(row) = finished(&place, point)? {
                table.rows.push(row);
                continue;
            }
            tell(ScanEvent::Point {
                number: k + 1,
                total,
                label: &point.label,
            });
            let left = max_time.map(|limit| limit.saturating_sub(started.elapsed()));
            let time_up = left.is_some_and(|left| left.is_zero());
            if time_up || stop.load(Ordering::Relaxed) {
                return Ok(ScanEnded::Stopped { done: k, time_up });
            }
            match self.train(directory, point, stop, left, tell) {
                Ok(Ended::Finished(_) | Ended::Unmeasured) => {}
                Ok(Ended::Stopped(_)) => {
                    return Ok(ScanEnded::Stopped {
                        done: k,
                        time_up: false,
                    });
                }
                Ok(Ended::TimeUp(_)) => {
                    return Ok(ScanEnded::Stopped {
                        done: k,
                        time_up: true,
                    });
                }
                Err(TrainError::Diverged { what, .. }) => {
                    tell(ScanEvent::Message(&format!("{}: {what}", point.label)));
                    write(&place.join(FAILED), &format!("{what}\n"))?;
                }
                Err(error) => return Err(error),
            }
            // read back, so that a row does not depend on when it was made
            let row = finished(&place, point)?;
            table.rows.extend(row);
            table.write(directory)?;
        }
        table.write(directory)?;
        if self.run.output.plots {
            for text in table.plots(directory)? {
                tell(ScanEvent::Message(&text));
            }
        }
        Ok(ScanEnded::Finished(table))
    }

    /// The directory of a point.
    fn place(&self, directory: &Path, point: &Point) -> PathBuf {
        directory.join("points").join(&point.directory)
    }

    /// The run of one point, from where it stands.
    fn train(
        &self,
        directory: &Path,
        point: &Point,
        stop: &AtomicBool,
        max_time: Option<Duration>,
        tell: &mut dyn FnMut(ScanEvent),
    ) -> Result<Ended, TrainError> {
        let place = self.place(directory, point);
        std::fs::create_dir_all(&place).map_err(|e| TrainError::io("create", &place, &e))?;
        let setup = self.setup(point)?;
        let checkpoint = place.join("checkpoint.json");
        let start = if checkpoint.exists() {
            let saved = Saved::load(&checkpoint)?;
            saved.check(&setup)?;
            Start::Resume(Box::new(saved))
        } else {
            self.beginning(directory, point, &setup, tell)?
        };
        let output = Output::new(&place);
        super::run(&setup, start, &output, stop, max_time, &mut |event| {
            tell(ScanEvent::Run(event));
        })
    }

    /// Where a point starts: from its predecessor's parameters, if they fit.
    fn beginning(
        &self,
        directory: &Path,
        point: &Point,
        setup: &Setup,
        tell: &mut dyn FnMut(ScanEvent),
    ) -> Result<Start, TrainError> {
        let Some(before) = self.grid.predecessor(point) else {
            return Ok(Start::Fresh);
        };
        let place = self.place(directory, &before);
        match setup.warm(&place) {
            Ok(_) => Ok(Start::Warm(place)),
            // parameters that count sites do not carry over to another size
            Err(error) if self.grid.sizes_differ(point, &before) => {
                tell(ScanEvent::Message(&format!(
                    "{}: starts from initial parameters, those of {} do not fit: {error}",
                    point.label, before.label
                )));
                Ok(Start::Fresh)
            }
            Err(error) => Err(error),
        }
    }
}

/// The row of a point that is done.
fn finished(place: &Path, point: &Point) -> Result<Option<Row>, TrainError> {
    let read = |name: &str| {
        let path = place.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(TrainError::io("read", &path, &e)),
        }
    };
    if let Some(text) = read("result.json")? {
        let result = serde_json::from_str(&text).map_err(|e| {
            TrainError::new(
                format!("`{}` is damaged: {e}", place.join("result.json").display()),
                "delete it: the point is then measured again",
            )
        })?;
        return Ok(Some(Row::finished(point, result)));
    }
    Ok(read(FAILED)?.map(|why| Row::failed(point, why.trim())))
}

fn write(path: &Path, text: &str) -> Result<(), TrainError> {
    write_atomically(path, text.as_bytes()).map_err(|e| TrainError::io("write", path, &e))
}
