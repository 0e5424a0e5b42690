//! `dnetc scan`

use super::common::{CliError, Ui, print};
use super::progress::{Show, Signals};
use super::train::parse_time;
use crate::train::scan::{RUN_FILE, Scan, ScanEnded, ScanEvent};
use crate::train::{Event, RunFile, claim_directory};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Arguments of `scan`.
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
#[command(after_help = "Examples:\n  \
dnetc scan ising.toml\n  \
dnetc scan --resume ising\n\n\
The grid is the table [scan] of the run file:\n  \
[scan]\n  \
sites = [16, 32]\n  \
couplings = { h = { from = 0.5, to = 1.5, count = 11 } }\n\n\
Rows go to results.csv and results.json; `dnetc collapse` reads the former.")]
pub struct Args {
    /// A run file with a [scan] table
    #[arg(required_unless_present = "resume", conflicts_with = "resume")]
    run: Option<PathBuf>,
    /// Continue the scan in this output directory
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    resume: Option<PathBuf>,
    /// Stop and checkpoint after this time: 90s, 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    max_time: Option<Duration>,
    /// Output directory
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// List the points in order and train none
    #[arg(long)]
    list: bool,
    /// Also print the seconds every part of an iteration takes
    #[arg(short, long)]
    verbose: bool,
    /// Print the results as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the grid and prints the table.
pub fn run(args: &Args, ui: &Ui) -> Result<(), CliError> {
    let scan = Scan::new(wanted(args)?)?;
    if args.list {
        let lines = scan.grid().points().into_iter().map(|point| {
            let from = scan.grid().predecessor(&point);
            let from = from.map_or(String::new(), |p| format!("   (from {})", p.label));
            format!("{}{from}\n", point.label)
        });
        return print(&lines.collect::<String>());
    }
    let directory = match &args.resume {
        Some(directory) => directory.clone(),
        None => {
            let stem = args.run.as_deref().and_then(Path::file_stem);
            let stem = stem.map_or("scan".into(), |s| s.to_string_lossy());
            claim_directory(scan.run_file(), &stem, RUN_FILE, None)?
        }
    };
    let resume = format!("dnetc scan --resume {}", directory.display());
    let signals = Signals::install(&resume)?;
    let mut show = Show::new(ui, args.verbose);
    let ended = scan.run(
        &directory,
        &signals.stop,
        args.max_time,
        &mut |event| match event {
            ScanEvent::Point {
                number,
                total,
                label,
            } => {
                signals.saved.store(false, Ordering::Relaxed);
                show.line(&format!("point {number} of {total}: {label}"));
            }
            ScanEvent::Run(event) => {
                if matches!(event, Event::Evaluating { .. }) {
                    signals.saved.store(true, Ordering::Relaxed);
                }
                show.event(event);
            }
            ScanEvent::Message(text) => show.line(&format!("note: {text}")),
        },
    );
    show.finish();
    match ended? {
        ScanEnded::Finished(table) => {
            let failures = table.failures();
            if args.json || ui.json() {
                print(&format!("{}\n", table.json()))?;
            } else {
                print(&format!(
                    "{}\nfiles: {}\n",
                    table.text(),
                    directory.display()
                ))?;
            }
            if failures == 0 {
                return Ok(());
            }
            Err(CliError::new(
                format!("{failures} of {} points failed", table.rows().len()),
                "lower `optimiser.rate` or raise `optimiser.shift`; delete the directory of a point to repeat it",
            ))
        }
        ScanEnded::Stopped { done, time_up } => {
            let what = if time_up { "the time is up" } else { "stopped" };
            let what = format!("{what} after {done} points; everything is saved");
            let help = format!("continue with: {resume}");
            if time_up {
                ui.note(&format!("{what}\n  {help}"));
                return Ok(());
            }
            Err(CliError::Interrupted { what, help })
        }
    }
}

/// The run file, of the directory or of the command line.
fn wanted(args: &Args) -> Result<RunFile, CliError> {
    let file = match &args.resume {
        Some(directory) => directory.join(RUN_FILE),
        None => args.run.clone().unwrap_or_default(),
    };
    let text = std::fs::read_to_string(&file).map_err(|e| match &args.resume {
        Some(directory) if e.kind() == std::io::ErrorKind::NotFound => CliError::new(
            format!("`{}` holds no scan", directory.display()),
            "--resume takes the output directory of a scan",
        ),
        _ => CliError::io("read", &file, &e),
    })?;
    let mut run = RunFile::parse(&text).map_err(|e| {
        CliError::new(
            format!("run file `{}`: {e}", file.display()),
            "see docs/training.md for what can be set",
        )
    })?;
    run.anchor(file.parent().unwrap_or(Path::new("")));
    if args.output.is_some() {
        run.output.directory.clone_from(&args.output);
    }
    Ok(run)
}
