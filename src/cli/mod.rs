//! `dnetc`: one verb, one file. Everything a verb does beyond reading flags
//! and printing belongs to the library.

mod arrays;
mod bench;
mod calibrate;
mod check;
mod collapse;
mod common;
mod derive;
mod doctor;
mod ed;
mod emit;
mod eval;
mod explain;
mod fmt;
mod init;
mod inspect;
mod model;
mod new;
mod observe;
mod operator;
mod progress;
mod scan;
mod train;
mod trained;
mod verify;

use crate::back::costs;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use std::process::ExitCode;

pub use common::{CliError, MessageFormat, Ui};

/// Compiler for neural quantum states written in the dnet language.
#[derive(Parser)]
#[command(
    name = "dnetc",
    version,
    arg_required_else_help = true,
    max_term_width = 100
)]
#[command(
    after_help = "Start with `dnetc new DIR`, then `dnetc check DIR/*.dnet`.\n\
Every diagnostic has a page: `dnetc explain E0301`."
)]
struct Cli {
    /// When to colour messages (NO_COLOR is respected)
    #[arg(long, value_enum, default_value_t = Colour::Auto, global = true)]
    color: Colour,
    /// How to print diagnostics
    #[arg(long, value_enum, default_value_t = MessageFormat::Human, global = true)]
    message_format: MessageFormat,
    #[command(subcommand)]
    verb: Verb,
}

/// When to colour messages.
#[derive(Clone, Copy, ValueEnum)]
enum Colour {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Subcommand)]
enum Verb {
    /// Check files: syntax, names, shapes, linearity and locality
    Check(check::Args),
    /// Format files in place
    Fmt(fmt::Args),
    /// Show a network's parameters, kinds, windows and mixers, or an operator's terms
    Inspect(inspect::Args),
    /// Write the ABACUS recurrence of a network in the paper's notation
    Derive(derive::Args),
    /// Initial parameters from a seed
    Init(init::Args),
    /// Amplitudes and ratios of given configurations
    Eval(eval::Args),
    /// Train a network to the ground state of an operator
    Train(Box<train::Args>),
    /// Train over a grid of couplings, hyperparameters, sizes and seeds
    Scan(scan::Args),
    /// Exact diagonalisation of up to 24 spins
    Ed(ed::Args),
    /// Observables of a trained network: correlations, moments, energies
    Observe(observe::Args),
    /// Critical point and exponents from the scaling collapse of several sizes
    Collapse(collapse::Args),
    /// Check updates, links and gradients derived for a network against full evaluation
    Verify(verify::Args),
    /// Measure amplitudes, gradients and local updates
    Bench(bench::Args),
    /// Print the code a network is compiled to
    Emit(emit::Args),
    /// Report what was found for each back end on this machine
    Doctor(doctor::Args),
    /// Explain a diagnostic code
    Explain(explain::Args),
    /// Create a directory with a network and a Hamiltonian that compile
    New(new::Args),
    /// Print a shell completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Verb {
    /// Whether strategies of compiled networks are chosen.
    fn compiles(&self) -> bool {
        matches!(
            self,
            Verb::Inspect(_)
                | Verb::Eval(_)
                | Verb::Train(_)
                | Verb::Scan(_)
                | Verb::Observe(_)
                | Verb::Verify(_)
                | Verb::Bench(_)
        )
    }
}

/// Runs the command line; the exit code is 0 on success, 1 on an error in the
/// input, 2 on wrong usage, 130 after an interruption.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .init();
    let ui = Ui::new(
        match cli.color {
            Colour::Auto => None,
            Colour::Always => Some(true),
            Colour::Never => Some(false),
        },
        cli.message_format,
    );
    if cli.verb.compiles() {
        match costs::calibration() {
            Ok(calibration) => calibration.into_iter().for_each(costs::prefer),
            Err(e) => ui.note(&format!(
                "warning: {e}; meanwhile the built-in costs are used"
            )),
        }
    }
    let result = match cli.verb {
        Verb::Check(args) => check::run(&args, &ui),
        Verb::Fmt(args) => fmt::run(&args, &ui),
        Verb::Inspect(args) => inspect::run(&args, &ui),
        Verb::Derive(args) => derive::run(&args, &ui),
        Verb::Init(args) => init::run(&args, &ui),
        Verb::Eval(args) => eval::run(&args, &ui),
        Verb::Train(args) => train::run(&args, &ui),
        Verb::Scan(args) => scan::run(&args, &ui),
        Verb::Ed(args) => ed::run(&args, &ui),
        Verb::Observe(args) => observe::run(&args, &ui),
        Verb::Collapse(args) => collapse::run(&args, &ui),
        Verb::Verify(args) => verify::run(&args, &ui),
        Verb::Bench(args) => bench::run(&args, &ui),
        Verb::Emit(args) => emit::run(&args, &ui),
        Verb::Doctor(args) => doctor::run(&args, &ui),
        Verb::Explain(args) => explain::run(&args),
        Verb::New(args) => new::run(&args),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "dnetc", &mut script);
            common::print(&String::from_utf8_lossy(&script))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ui.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
