//! `dnetc bench`

use super::common::{
    BoundaryArg, CliError, LatticeArgs, MemoryArgs, NetworkArgs, ParamArgs, Ui, check_lattice,
    parse_override, parse_sites, print,
};
use crate::check::Program;
use crate::check::core::Static;
use crate::check::operator::Pauli;
use crate::ir::Lattice;
use crate::params::Params;
use crate::pipeline;
use crate::run::clock::processor_time;
use crate::run::network::{Backend, Precision, build};
use crate::run::rows::System;
use crate::run::{Background, Peak, Strategy, Task, WaveFunction};
use crate::vmc::estimator::estimates;
use crate::vmc::operator::{Operator, OperatorBuilder, OperatorError};
use crate::vmc::sampler::{Method, Move, Sampler, SamplerOptions, Samples, Target};
use clap::ValueEnum;
use num_complex::Complex64;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Configurations in a batch.
const BATCH: usize = 64;

/// Proposals per chain of one measurement.
const PROPOSALS: usize = 16;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub struct Args {
    /// The .dnet file
    #[arg(required_unless_present = "calibrate")]
    file: Option<PathBuf>,
    /// The network (may be left out if the file has one)
    network: Option<String>,
    /// Override a hyperparameter
    #[arg(short = 'D', value_name = "NAME=VALUE", value_parser = parse_override)]
    define: Vec<(String, Static)>,
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
    /// Also measure so many chains moved, and samples estimated, together
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    together: Option<u32>,
    /// Measure only these, separated by commas: compile (from the file to code), log_psi, gradient, background,
    /// local_estimator, log_ratio, metropolis, sweep, typewriter, chains,
    /// local_energies, solve, set_params
    #[arg(long, value_name = "LIST")]
    only: Option<String>,
    #[command(flatten)]
    memory: MemoryArgs,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Measure nothing of a network but this machine's costs, by which strategies are
    /// chosen from then on, and keep them in the cache folder
    #[arg(long, conflicts_with_all = ["file", "only", "json"])]
    calibrate: bool,
}

/// What can be measured.
const OPERATIONS: [&str; 13] = [
    "compile",
    "log_psi",
    "gradient",
    "background",
    "local_estimator",
    "log_ratio",
    "metropolis",
    "sweep",
    "typewriter",
    "chains",
    "local_energies",
    "solve",
    "set_params",
];

/// A measured operation.
struct Timing {
    what: &'static str,
    /// Per what: sample, element, proposal, set or file.
    per: &'static str,
    /// Configurations given at once.
    batch: usize,
    processor: Duration,
    elapsed: Duration,
    /// How many of them one call does.
    count: usize,
    /// How many times one call does what the strategy counts.
    times: usize,
    strategy: Strategy,
}

impl Timing {
    fn micros(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.count as f64
    }
    /// Operations per nanosecond: of processor time, or elapsed on a device.
    fn gflops(&self, on_device: bool) -> f64 {
        let time = if on_device {
            self.elapsed
        } else {
            self.processor
        };
        self.strategy.flops * self.times as f64 / time.as_nanos() as f64
    }
    /// Bytes of a device's memory per nanosecond.
    fn gbytes(&self) -> f64 {
        self.strategy.traffic * self.times as f64 / self.elapsed.as_nanos() as f64
    }
}

/// Median processor and elapsed time of at least five calls and a fifth of a second.
fn measure(mut call: impl FnMut()) -> [Duration; 2] {
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
    [processor, elapsed].map(|mut times| {
        times.sort();
        times[times.len() / 2]
    })
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

/// What is done without a strategy of its own.
fn plain(name: &'static str) -> Strategy {
    Strategy {
        name,
        bytes: 0,
        flops: f64::NAN,
        peak: f64::NAN,
        traffic: f64::NAN,
    }
}

/// Measures everything a sampler or an estimator asks of a network; `wanted` says
/// which operations.
fn timings(
    psi: &mut dyn WaveFunction,
    together: Option<usize>,
    wanted: &dyn Fn(&str) -> bool,
) -> Vec<Timing> {
    let sites = psi.lattice().sites();
    let batch: Vec<i8> = (0..BATCH).flat_map(|k| configuration(sites, k)).collect();
    let mut spins = batch[..sites].to_vec();
    let mut found = Vec::new();
    let mut add = |what, per, batch, count: usize, strategy, call: &mut dyn FnMut()| {
        if wanted(what) {
            let [processor, elapsed] = measure(call);
            let times = match (per, what) {
                ("sample", _) | (_, "sweep" | "chains") => count,
                // of every configuration all single flips
                (_, "local_energies" | "solve") => batch,
                _ => 1,
            };
            found.push(Timing {
                times,
                what,
                per,
                batch,
                processor,
                elapsed,
                count: count.max(1),
                strategy,
            });
        }
    };
    let full = psi.strategy(Task::LogPsi);
    let gradient = psi.strategy(Task::Gradient);
    let mut out = vec![Complex64::ZERO; BATCH];
    for n in [1, BATCH] {
        let (batch, out) = (&batch[..n * sites], &mut out[..n]);
        add("log_psi", "sample", n, n, full.clone(), &mut || {
            psi.log_psi(batch, out)
        });
    }
    for n in [1, BATCH] {
        let batch = &batch[..n * sites];
        add("gradient", "sample", n, n, gradient.clone(), &mut || {
            psi.gradients(batch, &|_, _, _| {})
        });
    }
    // A background computes what is asked of it: what all its single flips share,
    // or the flips themselves, which is what a local energy needs of it. A kept one
    // answers from what it knows.
    let mut all = vec![Complex64::ZERO; sites];
    let flips = psi.strategy(Task::Flips);
    if psi.background(&spins).prepare() {
        let how = Strategy {
            bytes: flips.bytes,
            ..plain(flips.name)
        };
        add("background", "sample", 1, 1, how, &mut || {
            psi.background(&spins).prepare();
        });
    } else {
        add("background", "sample", 1, 1, flips.clone(), &mut || {
            psi.background(&spins).single_flips(&mut all);
        });
    }
    let count = sites;
    add(
        "local_estimator",
        "element",
        1,
        count,
        flips.clone(),
        &mut || {
            psi.background(&spins).single_flips(&mut all);
        },
    );
    let mut site = 0;
    let mut next = || {
        site = (site + 7) % sites;
        site
    };
    {
        let mut kept = psi.background(&spins);
        kept.single_flips(&mut all);
        let how = plain(flips.name);
        add("log_ratio", "element", 1, 1, how, &mut || {
            std::hint::black_box(kept.log_ratio(&[next()]));
        });
    }
    {
        let mut background = psi.background(&spins);
        // a configuration that changes keeps hidden units and nothing else
        let name = match flips.name {
            "hidden units" => flips.name,
            _ => full.name,
        };
        add("metropolis", "proposal", 1, 2, plain(name), &mut || {
            metropolis(&mut *background, &mut next)
        });
    }
    let mut accept = |site: usize, _: Complex64| site.is_multiple_of(2);
    // whether or not full evaluation is cheaper here
    if wanted("sweep") && psi.moves_chains() {
        // a machine of its own makes whole sweeps of many chains
        let chains = together.unwrap_or(1);
        let options = SamplerOptions {
            method: Method::Sweep,
            chains,
            ..SamplerOptions::default()
        };
        if let Ok(mut sampler) = Sampler::new(options, sites) {
            let (how, count) = (psi.strategy(Task::Sweep), chains * sites);
            add("sweep", "proposal", chains, count, how, &mut || {
                sampler.advance(Target::new(psi), 1);
            });
        }
    } else if wanted("sweep") && psi.why_in_full(Task::Sweep).is_none() {
        let how = psi.strategy(Task::Sweep);
        add("sweep", "proposal", 1, sites, how, &mut || {
            psi.sweep_by_environments(&mut spins, false, &mut accept);
        });
    }
    if wanted("typewriter") {
        let options = SamplerOptions {
            method: Method::Typewriter {
                width: sites.min(8),
                screened: true,
            },
            chains: 1,
            ..SamplerOptions::default()
        };
        if let Ok(mut sampler) = Sampler::new(options, sites) {
            let pass = sampler.advance(Target::new(psi), 1);
            let count = pass.proposed as usize;
            add(
                "typewriter",
                "proposal",
                1,
                count,
                plain("screened"),
                &mut || {
                    sampler.advance(Target::new(psi), 1);
                },
            );
        }
    }
    if let Some(count) = together.filter(|_| wanted("chains")) {
        let method = Method::Metropolis {
            moves: vec![Move::Single],
            proposals: Some(PROPOSALS),
        };
        let options = SamplerOptions {
            method,
            chains: count,
            ..SamplerOptions::default()
        };
        if let Ok(mut sampler) = Sampler::new(options, sites) {
            let how = match psi.moves_chains() {
                true => full.clone(),
                false => plain("full"),
            };
            add(
                "chains",
                "proposal",
                count,
                count * PROPOSALS,
                how,
                &mut || {
                    sampler.advance(Target::new(psi), 1);
                },
            );
        }
    }
    if let Some(count) = together.filter(|_| wanted("local_energies"))
        && let Ok(field) = field(psi.lattice())
    {
        let samples = Samples {
            sites,
            per_chain: 1,
            spins: (0..count).flat_map(|k| configuration(sites, k)).collect(),
            weights: None,
        };
        let how = Strategy {
            bytes: 0,
            peak: f64::NAN,
            ..flips.clone()
        };
        add(
            "local_energies",
            "element",
            count,
            count * sites,
            how,
            &mut || {
                std::hint::black_box(estimates(psi, &field, &samples).moments());
            },
        );
    }
    if let Some(count) = together.filter(|_| wanted("solve")) {
        let spins: Vec<i8> = (0..count).flat_map(|k| configuration(sites, k)).collect();
        if let Some(rows) = psi.centred_rows(&spins, &vec![1.0 / count as f64; count]) {
            let parts = if psi.is_complex() { 2 } else { 1 };
            let (equations, params) = (parts * count, psi.param_count());
            let system = System::Rows {
                scale: None,
                shift: 1e-3,
            };
            let rhs = vec![1.0; equations];
            // products of rows, Cholesky; the matrix is read and written, `times` per
            // sample
            let n = equations as f64;
            let how = Strategy {
                flops: (n * n * params as f64 + n * n * n / 3.0) / count as f64,
                ..plain("Cholesky, f64")
            };
            add("solve", "system", count, 1, how, &mut || {
                std::hint::black_box(rows.solve(&system, &rhs));
            });
        }
    }
    let theta = psi.params().to_vec();
    add("set_params", "set", 1, 1, plain("f64"), &mut || {
        psi.set_params(&theta)
    });
    found
}

/// A transverse field: all single flips.
fn field(lattice: Lattice) -> Result<Operator, OperatorError> {
    let mut builder = OperatorBuilder::new(lattice);
    for site in 0..lattice.sites() {
        builder.string(Complex64::ONE, &[(site, Pauli::X)])?;
    }
    builder.build()
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
    let help = "write `--sites 100,1000`";
    let one = |s| {
        Ok(LatticeArgs {
            sites: Some(parse_sites(s).map_err(|e| CliError::new(e, help))?),
            boundary: args.boundary,
        })
    };
    let all: Vec<LatticeArgs> = parts.map(one).collect::<Result<_, CliError>>()?;
    match all.is_empty() {
        true => Err(CliError::new("no number of sites is given", help)),
        false => Ok(all),
    }
}

/// Times of a network's operations.
pub fn run(args: &Args, ui: &Ui) -> Result<(), CliError> {
    args.memory.apply();
    if args.calibrate {
        return super::calibrate::run();
    }
    let asked = args.only.iter().flat_map(|list| list.split(','));
    if let Some(unknown) = asked.map(str::trim).find(|w| !OPERATIONS.contains(w)) {
        return Err(CliError::new(
            format!("`--only`: nothing is called `{unknown}`"),
            format!("choose among {}", OPERATIONS.join(", ")),
        ));
    }
    let Some(file) = args.file.clone() else {
        return Err(CliError::new(
            "no network to measure",
            "name a file: `dnetc bench net.dnet`",
        ));
    };
    let network = NetworkArgs {
        file,
        network: args.network.clone(),
        define: args.define.clone(),
    };
    let (program, info) = network.check(ui)?;
    let compile = |lattice, params: &Params| {
        let (info, _) = network.check_in(&Program::load(&network.file))?;
        let graph = pipeline::amplitude(&pipeline::graph(&info));
        build(&graph, lattice, params, args.precision, args.backend)
            .map_err(|e| CliError::plain(e.to_string()))
    };
    let lowered = pipeline::graph(&info);
    let graph = pipeline::amplitude(&lowered);
    let mut peak = None;
    for wanted in lattices(args)? {
        let Some(lattice) = wanted.lattice(info.lattice)? else {
            continue;
        };
        check_lattice(&program, &info, lattice)?;
        let params = args.params.load(&program, &info, &lowered, lattice)?;
        let mut psi = build(&graph, lattice, &params, args.precision, args.backend)
            .map_err(|e| CliError::plain(e.to_string()))?;
        let wanted = |what: &str| match &args.only {
            Some(list) => list.split(',').any(|w| w.trim() == what),
            None => true,
        };
        let peak = match &peak {
            None => peak.insert(psi.peak()),
            Some(peak) => peak,
        };
        let together = args.together.map(|count| count as usize);
        let mut timings = timings(&mut *psi, together, &wanted);
        if let Some(reason) = psi.failure() {
            let what = format!("nothing was measured: {reason}");
            return Err(CliError::new(
                what,
                "`--backend cpu` needs no GPU, `dnetc doctor` says what was found",
            ));
        }
        if wanted("compile") {
            let [processor, elapsed] = measure(|| {
                std::hint::black_box(compile(lattice, &params).is_ok());
            });
            timings.push(Timing {
                what: "compile",
                per: "file",
                batch: 1,
                processor,
                elapsed,
                count: 1,
                times: 1,
                strategy: plain("code"),
            });
        }
        let notes = notes(&*psi, &wanted);
        report(args, &info.name, lattice, (&timings, *peak), &notes)?;
    }
    Ok(())
}

/// What is done in full, and why.
fn notes(psi: &dyn WaveFunction, wanted: &dyn Fn(&str) -> bool) -> Vec<(&'static str, String)> {
    [("local_estimator", Task::Flips), ("sweep", Task::Sweep)]
        .into_iter()
        .filter(|(what, _)| wanted(what))
        .filter_map(|(what, task)| Some((what, psi.why_in_full(task)?)))
        .collect()
}

fn report(
    args: &Args,
    name: &str,
    lattice: Lattice,
    (timings, device): (&[Timing], Option<Peak>),
    notes: &[(&str, String)],
) -> Result<(), CliError> {
    let (precision, backend) = (word(&args.precision), word(&args.backend));
    let mut text = String::new();
    if let Some(peak) = device {
        let (flops, bytes) = (peak.flops, peak.bytes);
        if args.json {
            let line = serde_json::json!({
                "what": "peak", "peak_gflops": flops, "peak_gbytes": bytes,
                "precision": precision, "backend": backend,
            });
            text += &format!("{line}\n");
        } else {
            text += &format!("measured peak: {flops:.0} Gflop/s, {bytes:.0} GB/s\n");
        }
    }
    if !args.json {
        let [x, y] = lattice.extent;
        text += &format!(
            "{name} on {x} x {y} sites, {precision}, {backend}; medians in microseconds\n"
        );
        text += &format!(
            "{:<16} {:>5} {:>11} {:>11} {:>9} {:>8}  strategy\n",
            "", "batch", "processor", "elapsed", "Gflop/s", "of peak"
        );
    }
    for t in timings {
        let (processor, elapsed) = (t.micros(t.processor), t.micros(t.elapsed));
        let gflops = t.gflops(device.is_some());
        let peak = match device {
            // systems are solved in f64
            Some(_) if t.what == "solve" && args.precision == Precision::F32 => f64::NAN,
            Some(device) => device.flops,
            None => t.strategy.peak,
        };
        let (gbytes, copy) = (t.gbytes(), device.map_or(f64::NAN, |d| d.bytes));
        let known = |x: f64| x.is_finite().then_some(x);
        if args.json {
            // parameters are set once per step, not per sample or proposal
            if t.what == "set_params" {
                continue;
            }
            let line = serde_json::json!({
                "what": t.what, "per": t.per, "batch": t.batch,
                "sites": lattice.sites(), "extent": lattice.extent,
                "cpu_us": processor, "wall_us": elapsed, "strategy": t.strategy.name,
                "bytes": t.strategy.bytes, "gflops": known(gflops), "peak_gflops": known(peak),
                "gbytes": known(gbytes), "peak_gbytes": known(copy),
                "precision": precision, "backend": backend,
            });
            text += &format!("{line}\n");
        } else {
            let rate = known(gflops).map_or_else(String::new, |g| format!("{g:.1}"));
            let part =
                known(gflops / peak).map_or_else(String::new, |p| format!("{:.0} %", 100.0 * p));
            let bytes = match t.strategy.bytes {
                0 => String::new(),
                b => format!(", {:.1} MB", b as f64 / 1e6),
            };
            let memory = match known(gbytes / copy) {
                Some(part) => format!(", {gbytes:.0} GB/s ({:.0} %)", 100.0 * part),
                None => String::new(),
            };
            text += &format!(
                "{:<16} {:>5} {processor:>11.2} {elapsed:>11.2} {rate:>9} {part:>8}  {}{bytes}{memory}, per {}\n",
                t.what, t.batch, t.strategy.name, t.per
            );
        }
    }
    if !args.json {
        for (what, why) in notes {
            text += &format!("{what:<16} in full: {why}\n");
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
