//! `dnetc train`

use super::common::{BoundaryArg, CliError, MemoryArgs, Ui, parse_override, parse_sites, print};
use super::progress::{Show, Signals};
use crate::check::core::Static;
use crate::ir::Boundary;
use crate::run::network::{Backend, Precision};
use crate::train::{
    BoundKind, Ended, Event, OptimiserMethod, Output, RunFile, SamplerMethod, Saved, ScheduleSpec,
    Setup, Sites, Start, claim_directory,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Arguments of `train`.
#[derive(clap::Args)]
#[command(arg_required_else_help = true, args_override_self = true)]
#[command(after_help = "Examples:\n  \
dnetc train examples/runs/tfim_critical.toml\n  \
dnetc train network.dnet --operator tfim -C h=0.8 --sites 32\n  \
dnetc train --resume tfim_critical\n\n\
Flags override the run file. Results, log, checkpoints and plots go to one directory.")]
pub struct Args {
    /// A run file (.toml) or a network (.dnet)
    #[arg(required_unless_present = "resume", conflicts_with = "resume")]
    run: Option<PathBuf>,
    /// The network, if the .dnet file has several
    #[arg(conflicts_with = "resume")]
    network: Option<String>,
    /// Continue the run in this output directory
    #[arg(long, value_name = "DIR", conflicts_with = "from")]
    resume: Option<PathBuf>,
    /// Start from the parameters of another run: its directory or params.safetensors
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,
    /// Stop and checkpoint after this time: 90s, 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    max_time: Option<Duration>,
    /// Output directory
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Use the output directory although it holds a run
    #[arg(long)]
    overwrite: bool,
    /// Draw no plots
    #[arg(long)]
    no_plots: bool,
    /// Also print the seconds every part of an iteration takes
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    memory: MemoryArgs,
    #[command(flatten, next_help_heading = "What is trained")]
    model: Model,
    #[command(flatten, next_help_heading = "How")]
    how: How,
}

#[derive(clap::Args)]
struct Model {
    /// Override a hyperparameter
    #[arg(short = 'D', value_name = "NAME=VALUE", value_parser = parse_override)]
    define: Vec<(String, Static)>,
    /// The operator: of the network's file, of --operator-file, or of std::operators
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// The .dnet file of the operator
    #[arg(long, value_name = "FILE")]
    operator_file: Option<PathBuf>,
    /// Override a coupling
    #[arg(short = 'C', long = "coupling", value_name = "NAME=VALUE", value_parser = parse_override)]
    couplings: Vec<(String, Static)>,
    /// Number of sites; on a square lattice `LX,LY` or the total of a square
    #[arg(long, value_name = "N", value_parser = parse_sites)]
    sites: Option<[usize; 2]>,
    /// Boundary of the lattice
    #[arg(long, value_enum)]
    boundary: Option<BoundaryArg>,
}

#[derive(clap::Args)]
struct How {
    /// Steps to take
    #[arg(long, value_name = "COUNT")]
    iterations: Option<usize>,
    /// Peak of the learning rate
    #[arg(long, allow_negative_numbers = true)]
    rate: Option<f64>,
    /// Diagonal shift (constant)
    #[arg(long, allow_negative_numbers = true)]
    shift: Option<f64>,
    /// The optimiser
    #[arg(long, value_enum, alias = "optimizer")]
    optimiser: Option<OptimiserMethod>,
    /// The sampler
    #[arg(long, value_enum)]
    sampler: Option<SamplerMethod>,
    /// What screens for the typewriter
    #[arg(long, value_enum)]
    bound: Option<BoundKind>,
    /// Markov chains
    #[arg(long, value_name = "COUNT")]
    chains: Option<usize>,
    /// Samples per iteration
    #[arg(long, value_name = "COUNT")]
    samples: Option<usize>,
    /// Sweeps before each sample
    #[arg(long, value_name = "COUNT")]
    sweeps: Option<usize>,
    /// Fixed sum of all spins (+1 and -1 each)
    #[arg(
        long,
        value_name = "SUM",
        alias = "magnetisation",
        allow_negative_numbers = true
    )]
    magnetization: Option<i64>,
    /// Samples of the final measurement; 0 for none
    #[arg(long, value_name = "COUNT")]
    evaluation_samples: Option<usize>,
    /// Seed of parameters and chains
    #[arg(long)]
    seed: Option<u64>,
    /// Precision of the network
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// What evaluates the network
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    /// Iterations between checkpoints
    #[arg(long, value_name = "COUNT")]
    checkpoint_every: Option<usize>,
}

pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| c.is_ascii_alphabetic()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let scale = match unit {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{unit}` is no unit of time: use s, m or h")),
    };
    let number: f64 = number
        .trim()
        .parse()
        .map_err(|_| format!("`{number}` is not a number"))?;
    Duration::try_from_secs_f64(number * scale).map_err(|_| format!("`{text}` is not a time"))
}

/// Trains, measures, and prints the results.
pub fn run(args: &Args, ui: &Ui) -> Result<(), CliError> {
    args.memory.apply();
    let (run, start) = wanted(args)?;
    let setup = Setup::new(run)?;
    ui.diagnostics(setup.program.sources(), &setup.warnings);
    if let Start::Resume(saved) = &start {
        saved.check(&setup)?;
        for change in saved.changes(&setup.run)? {
            ui.note(&format!("note: {change}"));
        }
    }
    let directory = match &args.resume {
        Some(directory) => directory.clone(),
        None => claim_directory(
            &setup.run,
            &stem(args, &setup),
            "checkpoint.json",
            Some(args.overwrite),
        )?,
    };
    let output = Output::new(&directory);
    let resume = format!("dnetc train --resume {}", directory.display());
    let signals = Signals::install(&resume)?;
    let mut show = Show::new(ui, args.verbose);
    let result = crate::train::run(
        &setup,
        start,
        &output,
        &signals.stop,
        args.max_time,
        &mut |event| {
            if matches!(event, Event::Evaluating { .. }) {
                signals.saved.store(true, Ordering::Relaxed);
            }
            show.event(event);
        },
    );
    show.finish();
    let resume = format!("continue with: {resume}");
    match result? {
        Ended::Finished(results) if ui.json() => {
            print(&format!("{}\n", serde_json::json!(results)))
        }
        Ended::Finished(results) => print(&format!(
            "{}  files           {}\n",
            results.table(),
            directory.display()
        )),
        Ended::Unmeasured => print(&format!(
            "trained; parameters are in {}\n",
            directory.display()
        )),
        Ended::Stopped(done) => Err(CliError::Interrupted {
            what: format!("stopped after {done} iterations; everything is saved"),
            help: resume,
        }),
        Ended::TimeUp(done) => {
            ui.note(&format!(
                "the time is up after {done} iterations; everything is saved\n  {resume}"
            ));
            Ok(())
        }
    }
}

/// The run file with the flags in it, and where to start.
fn wanted(args: &Args) -> Result<(RunFile, Start), CliError> {
    let mut start = Start::Fresh;
    let here = PathBuf::new();
    let mut run = if let Some(directory) = &args.resume {
        let saved = Saved::load(&directory.join("checkpoint.json"))?;
        let run = saved.run_file()?;
        start = Start::Resume(Box::new(saved));
        run
    } else {
        let file = args.run.clone().unwrap_or_default();
        if file.extension().is_some_and(|e| e == "toml") {
            let text =
                std::fs::read_to_string(&file).map_err(|e| CliError::io("read", &file, &e))?;
            let mut run = RunFile::parse(&text).map_err(|e| {
                CliError::new(
                    format!("run file `{}`: {e}", file.display()),
                    "`dnetc train --help` lists what can be set",
                )
            })?;
            run.anchor(file.parent().unwrap_or(Path::new("")));
            run
        } else {
            let mut run = RunFile::default();
            run.network.file = Some(file);
            run.anchor(&here);
            run
        }
    };
    if let Some(from) = &args.from {
        start = Start::Warm(from.clone());
    }
    overrides(args, &mut run);
    Ok((run, start))
}

fn overrides(args: &Args, run: &mut RunFile) {
    fn set<T: Clone>(key: &mut T, flag: &Option<T>) {
        if let Some(value) = flag {
            key.clone_from(value);
        }
    }
    fn set_some<T: Clone>(key: &mut Option<T>, flag: &Option<T>) {
        if flag.is_some() {
            key.clone_from(flag);
        }
    }
    let (model, how) = (&args.model, &args.how);
    set_some(&mut run.network.name, &args.network);
    run.network
        .hyperparameters
        .extend(model.define.iter().cloned());
    set_some(&mut run.operator.name, &model.operator);
    if let Some(file) = &model.operator_file {
        run.operator.file = Some(std::path::absolute(file).unwrap_or_else(|_| file.clone()));
    }
    run.operator
        .couplings
        .extend(model.couplings.iter().cloned());
    set_some(
        &mut run.lattice.sites,
        &model.sites.map(|s| {
            if s[1] == 0 {
                Sites::Total(s[0])
            } else {
                Sites::Extent(s)
            }
        }),
    );
    set(
        &mut run.lattice.boundary,
        &model.boundary.map(|b| match b {
            BoundaryArg::Periodic => Boundary::Periodic,
            BoundaryArg::Open => Boundary::Open,
        }),
    );
    set(&mut run.optimiser.iterations, &how.iterations);
    set(&mut run.optimiser.rate, &how.rate.map(ScheduleSpec::Number));
    set_some(
        &mut run.optimiser.shift,
        &how.shift.map(ScheduleSpec::Number),
    );
    set(&mut run.optimiser.method, &how.optimiser);
    set_some(&mut run.sampler.method, &how.sampler);
    set(&mut run.sampler.bound, &how.bound);
    set(&mut run.sampler.chains, &how.chains);
    set(&mut run.sampler.samples, &how.samples);
    set(&mut run.sampler.sweeps, &how.sweeps);
    set_some(&mut run.sampler.magnetization, &how.magnetization);
    set(&mut run.evaluation.samples, &how.evaluation_samples);
    set(&mut run.seed, &how.seed);
    set(&mut run.precision, &how.precision);
    set(&mut run.backend, &how.backend);
    set(&mut run.output.checkpoint_every, &how.checkpoint_every);
    set_some(&mut run.output.directory, &args.output);
    run.output.plots &= !args.no_plots;
}

/// What the output directory is called where nobody says.
fn stem(args: &Args, setup: &Setup) -> String {
    match &args.run {
        Some(file) if file.extension().is_some_and(|e| e == "toml") => file
            .file_stem()
            .map_or("run".into(), |s| s.to_string_lossy().into_owned()),
        _ => format!(
            "{}-{}-{}",
            setup.info.name,
            setup.operator_info.name,
            setup.lattice.sites()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [("30s", 30.0), ("1.5m", 90.0), ("2h", 7200.0), ("7", 7.0)] {
            assert_eq!(parse_time(text).unwrap().as_secs_f64(), seconds);
        }
        for bad in ["", "s", "3d", "-1s", "nan", "1e300h"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
