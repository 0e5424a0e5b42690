//! `dnetc bench`

use super::common::{
    BoundaryArg, CliError, LatticeArgs, NetworkArgs, ParamArgs, Ui, check_lattice, parse_sites,
    print,
};
use crate::ir::Lattice;
use crate::pipeline;
use crate::run::clock::processor_time;
use crate::run::network::{Backend, Precision, build};
use crate::run::{Background, WaveFunction};
use clap::ValueEnum;
use num_complex::Complex64;
use std::time::{Duration, Instant};

/// Configurations in a batch.
const BATCH: usize = 64;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    /// Numbers of sites, `;` or blanks between square lattices: 100,1000 or "4x6 8x8"
    #[arg(long, value_name = "LIST", default_value = "100,1000")]
    sites: String,
    /// Boundary of the lattice
    #[arg(long, value_enum, default_value_t = BoundaryArg::Periodic)]
    boundary: BoundaryArg,
    #[command(flatten)]
    params: ParamArgs,
    /// Working precision
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    precision: Precision,
    /// Back end
    #[arg(long, value_enum, default_value_t = Backend::Cpu)]
    backend: Backend,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

/// A measured operation.
struct Timing {
    what: &'static str,
    /// Per what: sample, element, proposal or set.
    per: &'static str,
    processor: Duration,
    elapsed: Duration,
    /// How many of them one call does.
    count: usize,
}

/// Medians over at least five calls and a fifth of a second.
fn measure(what: &'static str, per: &'static str, count: usize, mut call: impl FnMut()) -> Timing {
    call();
    let (mut processor, mut elapsed) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    while processor.len() < 5
        || (begin.elapsed() < Duration::from_millis(200) && processor.len() < 1001)
    {
        let (p, e) = (processor_time(), Instant::now());
        call();
        elapsed.push(e.elapsed());
        processor.push(processor_time() - p);
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    Timing {
        what,
        per,
        processor: median(processor),
        elapsed: median(elapsed),
        count: count.max(1),
    }
}

/// A reproducible configuration without structure.
fn configuration(sites: usize, seed: usize) -> Vec<i8> {
    let mut state = seed as u64 + 1;
    let mut spin = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        if state >> 63 == 0 { 1 } else { -1 }
    };
    (0..sites).map(|_| spin()).collect()
}

/// Measures everything a sampler or an estimator asks of a network.
fn timings(psi: &mut dyn WaveFunction) -> Vec<Timing> {
    let sites = psi.lattice().sites();
    let batch: Vec<i8> = (0..BATCH).flat_map(|k| configuration(sites, k)).collect();
    let mut spins = batch[..sites].to_vec();
    let mut one = [Complex64::ZERO];
    let mut many = vec![Complex64::ZERO; BATCH];
    let mut all = vec![Complex64::ZERO; sites];
    let mut found = vec![
        measure("log_psi", "sample", 1, || psi.log_psi(&spins, &mut one)),
        measure("log_psi_batch", "sample", BATCH, || {
            psi.log_psi(&batch, &mut many)
        }),
        measure("gradient", "sample", 1, || {
            psi.gradients(&spins, &|_, _, _| {})
        }),
        measure("gradient_batch", "sample", BATCH, || {
            psi.gradients(&batch, &|_, _, _| {})
        }),
        measure("background", "sample", 1, || drop(psi.background(&spins))),
    ];
    {
        // A background keeps the ratios it has computed: a fresh one each time,
        // so that its build is shared by the elements as in a local energy.
        found.push(measure("local_estimator", "element", sites, || {
            psi.background(&spins).single_flips(&mut all);
        }));
        let mut site = 0;
        let mut next = || {
            site = (site + 7) % sites;
            site
        };
        found.push(measure("log_ratio", "first element", 1, || {
            std::hint::black_box(psi.background(&spins).log_ratio(&[next()]));
        }));
        let mut background = psi.background(&spins);
        found.push(measure("metropolis", "proposal", 2, || {
            metropolis(&mut *background, &mut next)
        }));
    }
    let mut accept = |site: usize, _: Complex64| site.is_multiple_of(2);
    if psi.sweep(&mut spins, false, &mut accept).is_some() {
        found.push(measure("sweep", "proposal", sites, || {
            psi.sweep(&mut spins, false, &mut accept);
        }));
    }
    let theta = psi.params().to_vec();
    found.push(measure("set_params", "set", 1, || psi.set_params(&theta)));
    found
}

/// Two proposals, one of them accepted.
fn metropolis(background: &mut dyn Background, next: &mut dyn FnMut() -> usize) {
    let site = next();
    std::hint::black_box(background.log_ratio(&[site]));
    background.accept(&[site]);
    std::hint::black_box(background.log_ratio(&[next()]));
}

fn lattices(args: &Args) -> Result<Vec<LatticeArgs>, CliError> {
    let separators: &[char] = if args.sites.contains(['x', ';']) {
        &[';', ' ']
    } else {
        &[',', ';', ' ']
    };
    let parts = args.sites.split(separators).filter(|s| !s.is_empty());
    parts
        .map(|s| {
            Ok(LatticeArgs {
                sites: Some(
                    parse_sites(s).map_err(|e| CliError::new(e, "write `--sites 100,1000`"))?,
                ),
                boundary: args.boundary,
            })
        })
        .collect()
}

/// Times of a network's operations.
pub fn run(args: &Args, ui: &Ui) -> Result<(), CliError> {
    let (program, info) = args.network.check(ui)?;
    let lowered = pipeline::graph(&info);
    let graph = pipeline::amplitude(&lowered);
    for wanted in lattices(args)? {
        let Some(lattice) = wanted.lattice(info.lattice)? else {
            continue;
        };
        check_lattice(&program, &info, lattice)?;
        let params = args.params.load(&program, &info, &lowered, lattice)?;
        let mut psi = build(&graph, lattice, &params, args.precision, args.backend)
            .map_err(|e| CliError::plain(e.to_string()))?;
        report(args, &info.name, lattice, &timings(&mut *psi))?;
    }
    Ok(())
}

fn report(args: &Args, name: &str, lattice: Lattice, timings: &[Timing]) -> Result<(), CliError> {
    let (precision, backend) = (word(&args.precision), word(&args.backend));
    let us = |d: Duration, count: usize| d.as_secs_f64() * 1e6 / count as f64;
    let mut text = String::new();
    if !args.json {
        let [x, y] = lattice.extent;
        text += &format!(
            "{name} on {x} x {y} sites, {precision}, {backend}; medians in microseconds\n"
        );
        text += &format!("{:<16} {:>12} {:>12}\n", "", "processor", "elapsed");
    }
    for t in timings {
        let (processor, elapsed) = (us(t.processor, t.count), us(t.elapsed, t.count));
        if args.json {
            let line = serde_json::json!({
                "what": t.what, "per": t.per, "sites": lattice.sites(), "extent": lattice.extent,
                "cpu_us": processor, "wall_us": elapsed,
                "precision": precision, "backend": backend,
            });
            text += &format!("{line}\n");
        } else {
            text += &format!(
                "{:<16} {processor:>12.2} {elapsed:>12.2}  per {}\n",
                t.what, t.per
            );
        }
    }
    print(&text)
}

/// The word a flag is written with.
fn word(value: &impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |v| v.get_name().to_owned())
}
