//! `dnetc eval`

use super::arrays::{read_spins, write_npz};
use super::common::{
    CliError, LatticeArgs, MemoryArgs, NetworkArgs, ParamArgs, Ui, check_lattice, print,
    without_numbers,
};
use crate::interp::evaluate;
use crate::pipeline;
use crate::run::network::{Backend, Precision, build};
use num_complex::Complex64;
use std::path::PathBuf;

/// Arguments of `eval`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    /// Configurations: a .npy array of +1/-1, `[samples, sites]` or `[sites]`
    #[arg(long, value_name = "FILE")]
    configs: PathBuf,
    #[command(flatten)]
    params: ParamArgs,
    #[command(flatten)]
    lattice: LatticeArgs,
    /// Also evaluate log psi(s') - log psi(s) after flips
    #[arg(long, value_enum)]
    flips: Option<Flips>,
    /// Evaluate with a back end instead of the reference interpreter
    #[arg(long, value_enum, default_value_t = Backend::Reference)]
    backend: Backend,
    /// Working precision of the back end
    #[arg(long, value_enum, default_value_t = Precision::F64)]
    precision: Precision,
    #[command(flatten)]
    memory: MemoryArgs,
    /// The .npz file to write; without it, log psi is printed
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Flips {
    /// Every single spin
    All,
}

fn not_a_number() -> CliError {
    CliError::new(
        "log psi is not a number",
        "check the parameters: some may be huge",
    )
}

/// log psi and log ratios.
pub fn run(args: &Args, ui: &Ui) -> Result<(), CliError> {
    args.memory.apply();
    let (program, info) = args.network.check(ui)?;
    let (sites, batch) = read_spins(&args.configs)?;
    let mut wanted = args.lattice.clone();
    let given = *wanted.sites.get_or_insert([sites, 0]);
    let lattice = wanted
        .lattice(info.lattice)?
        .expect("sites were given or read");
    if lattice.sites() != sites {
        return Err(CliError::new(
            format!(
                "the configurations have {sites} spins, --sites says {}",
                given[0].max(1) * given[1].max(1)
            ),
            "leave out --sites on a chain",
        ));
    }
    check_lattice(&program, &info, lattice)?;
    let lowered = pipeline::graph(&info);
    let params = args.params.load(&program, &info, &lowered, lattice)?;
    let graph = pipeline::amplitude(&lowered);
    let log_psi = |s: &[i8]| -> Result<Complex64, CliError> {
        let z = evaluate(&graph, lattice, &params.tensors, s)
            .map_err(|e| CliError::plain(e.to_string()))?
            .log_psi();
        if z.re.is_nan() || z.im.is_nan() {
            return Err(not_a_number());
        }
        Ok(z)
    };
    let mut amplitudes = Vec::new();
    let mut ratios = Vec::new();
    if args.backend != Backend::Reference {
        let psi = build(&graph, lattice, &params, args.precision, args.backend)
            .map_err(|e| CliError::plain(e.to_string()))?;
        amplitudes = vec![Complex64::ZERO; batch.len() / sites];
        psi.log_psi(&batch, &mut amplitudes);
        if args.flips == Some(Flips::All) {
            ratios = vec![Complex64::ZERO; batch.len()];
            for (s, out) in batch.chunks(sites).zip(ratios.chunks_mut(sites)) {
                psi.background(s).single_flips(out);
            }
        }
        if amplitudes
            .iter()
            .chain(&ratios)
            .any(|z| z.re.is_nan() || z.im.is_nan())
        {
            return Err(without_numbers(&*psi, not_a_number()));
        }
    }
    let by_interpreter = match args.backend {
        Backend::Reference => &batch[..],
        _ => &[],
    };
    for s in by_interpreter.chunks(sites) {
        let base = log_psi(s)?;
        amplitudes.push(base);
        if args.flips == Some(Flips::All) {
            let mut t = s.to_vec();
            for i in 0..sites {
                t[i] = -t[i];
                ratios.push(log_psi(&t)? - base);
                t[i] = -t[i];
            }
        }
    }
    let samples = amplitudes.len();
    match &args.output {
        Some(path) => {
            let mut arrays = vec![("log_psi", vec![samples], amplitudes)];
            if args.flips.is_some() {
                arrays.push(("log_ratio", vec![samples, sites], ratios));
            }
            write_npz(path, &arrays)?;
            print(&format!(
                "{samples} configurations written to {}\n",
                path.display()
            ))
        }
        None => {
            let complex = lowered.graph.outputs.len() > 1;
            let show = |z: &Complex64| {
                if complex {
                    format!("{:.15} {:+.15}i", z.re, z.im)
                } else {
                    format!("{:.15}", z.re)
                }
            };
            let mut text = String::new();
            for (k, z) in amplitudes.iter().enumerate() {
                text += &format!("{}\n", show(z));
                for r in
                    ratios
                        .iter()
                        .skip(k * sites)
                        .take(if ratios.is_empty() { 0 } else { sites })
                {
                    text += &format!("  {}\n", show(r));
                }
            }
            print(&text)
        }
    }
}
