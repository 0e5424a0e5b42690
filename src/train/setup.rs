//! From a run file to everything checked and compiled.

use super::TrainError;
use super::run_file::{BoundKind, OptimiserMethod, RunFile, SamplerMethod, Sites};
use crate::check::core::NetworkInfo;
use crate::check::operator::OperatorInfo;
use crate::check::{CheckError, Program, lattice};
use crate::diag::{Diagnostic, Severity};
use crate::ir::{Boundary, Lattice, Lowered};
use crate::params::{Metadata, Params, initialise, load};
use crate::pipeline;
use crate::run::WaveFunction;
use crate::run::network::{Backend, build};
use crate::syntax::ast::LatticeKind;
use crate::vmc::driver::VmcOptions;
use crate::vmc::operator::{Operator, compile};
use crate::vmc::optim::{
    Adam, Form, GuardOptions, Method as OptimMethod, OptimOptions, Schedule, Shift, SrOptions,
};
use crate::vmc::sampler::{Acceptance, MAX_FULL_SUM_SITES, Method, Move, Rigorous, SamplerOptions};
use std::path::Path;

/// Most spins in samples drawn at once, one byte each.
pub const MAX_SPINS: usize = 1 << 34;

/// Largest basis that is summed in the final measurement without being asked.
const MAX_EXACT: u64 = 1 << 18;

/// A run, checked: every error that can be found before the first sample is
/// drawn has been found.
#[derive(Debug)]
pub struct Setup {
    /// The run file in force.
    pub run: RunFile,
    /// The network's file and what it imports.
    pub program: Program,
    /// The network at its hyperparameters.
    pub info: NetworkInfo,
    /// Its graph.
    pub lowered: Lowered,
    /// The lattice.
    pub lattice: Lattice,
    /// What parameters belong to.
    pub metadata: Metadata,
    /// The operator as elaborated.
    pub operator_info: OperatorInfo,
    /// The operator on the lattice.
    pub operator: Operator,
    /// Options of the driver.
    pub options: VmcOptions,
    /// Warnings about the network.
    pub warnings: Vec<Diagnostic>,
}

impl Setup {
    /// Loads, checks and compiles what the run file names.
    ///
    /// # Errors
    /// Files that are missing or wrong, numbers that make no sense; each with
    /// the key and a way out.
    pub fn new(run: RunFile) -> Result<Setup, TrainError> {
        if run.scan.is_some() {
            return Err(TrainError::new(
                "the run file has a [scan] table",
                "run the whole grid with `dnetc scan`, or leave the table out to train one point",
            ));
        }
        let Some(file) = &run.network.file else {
            return Err(TrainError::new(
                "no network is given",
                "name a .dnet file: `dnetc train NETWORK.dnet ...`, or the key `file` of [network]",
            ));
        };
        let program = Program::load(file);
        let (info, warnings) = network(&run, &program)?;
        let lattice = lattice_of(&run, &info)?;
        fits(&program, &info, lattice)?;
        let operator_info = operator(&run, &program)?;
        let operator = compile(&operator_info, lattice).map_err(|e| {
            TrainError::new(
                match e.to_string() {
                    // lattices and couplings name it already
                    text if text.starts_with("operator `") => text,
                    text => format!("operator `{}`: {text}", operator_info.name),
                },
                "choose other couplings, another number of sites or another boundary",
            )
        })?;
        let options = options(&run, &operator)?;
        Ok(Setup {
            lowered: pipeline::graph(&info),
            metadata: Metadata::new(&program, &info, lattice),
            run,
            program,
            info,
            lattice,
            operator_info,
            operator,
            options,
            warnings,
        })
    }

    /// Initial parameters from the seed.
    ///
    /// # Errors
    /// Initialisers that are not finite on this lattice.
    pub fn initial(&self) -> Result<Params, TrainError> {
        initialise(&self.info, &self.lowered, self.lattice, self.run.seed).map_err(|e| {
            TrainError::new(
                format!("network `{}`: {e}", self.info.name),
                "change the initialiser, the hyperparameters or the number of sites",
            )
        })
    }

    /// Parameters of another run: of another size, other couplings. Names and
    /// shapes have to agree.
    ///
    /// # Errors
    /// A file that cannot be read, or one line per parameter that differs.
    pub fn warm(&self, path: &Path) -> Result<Params, TrainError> {
        let file = match path {
            p if p.is_dir() => p.join("params.safetensors"),
            p if p.extension().is_some_and(|e| e == "json") => {
                p.with_file_name("params.safetensors")
            }
            p => p.to_owned(),
        };
        let wrong = |e: &dyn std::fmt::Display| {
            TrainError::new(
                e.to_string(),
                "--from takes the output directory or the params.safetensors of a run of the same network; \
                 parameters that depend on the number of sites keep it from changing",
            )
        };
        let like = Params::zeros(&self.lowered.graph, self.lattice).map_err(|e| wrong(&e))?;
        load(&file, &like, None, &Default::default()).map_err(|e| wrong(&e))
    }

    /// The network with these parameters on the back end of the run file.
    ///
    /// # Errors
    /// What the back end cannot do.
    pub fn wave_function(&self, params: &Params) -> Result<Box<dyn WaveFunction>, TrainError> {
        let run = &self.run;
        build(
            &pipeline::amplitude(&self.lowered),
            self.lattice,
            params,
            run.precision,
            run.backend,
        )
        .map_err(|e| {
            TrainError::new(
                format!("network `{}` cannot be compiled: {e}", self.info.name),
                match run.backend {
                    Backend::Cuda => "try `--backend cpu`",
                    _ => "try `--backend reference`",
                },
            )
        })
    }

    /// The rigorous bound of the screened typewriter at these parameters, where
    /// the run file asks for it.
    ///
    /// # Errors
    /// Networks that have none, and why.
    pub fn screen_bound(&self, params: &Params) -> Result<Option<Rigorous>, TrainError> {
        if self.run.sampler.bound == BoundKind::Empirical {
            return Ok(None);
        }
        let graph = pipeline::amplitude(&self.lowered);
        match Rigorous::new(&graph, self.lattice, params, self.run.precision) {
            Ok(bound) => Ok(Some(bound)),
            Err(e) => Err(TrainError::new(
                format!(
                    "network `{}` has no rigorous screening bound: {e}",
                    self.info.name
                ),
                "set `sampler.bound = \"empirical\"`, or `sampler.method = \"sweep\"`, \
                 which is exact for every network",
            )),
        }
    }

    /// Whether the final measurement sums the basis.
    pub fn sums_exactly(&self) -> bool {
        let sites = self.lattice.sites();
        if sites > MAX_FULL_SUM_SITES {
            return false;
        }
        let configurations = match self.options.sampler.magnetization {
            None => 1 << sites,
            Some(m) => {
                let down = (sites as i64 - m) as u64 / 2;
                // a binomial coefficient, whole at every step
                (0..down).fold(1, |c, i| c * (sites as u64 - i) / (i + 1))
            }
        };
        let small = configurations <= MAX_EXACT;
        self.run.evaluation.exact.unwrap_or(small)
    }

    /// Options of the sampler for the final measurement: the same sampler,
    /// other random numbers.
    pub fn evaluation_sampler(&self) -> SamplerOptions {
        SamplerOptions {
            // any constant: seeds of runs are small numbers
            seed: self.options.sampler.seed ^ 0x5eed_0f0e_7a1a_0001,
            ..self.options.sampler.clone()
        }
    }
}

fn network(run: &RunFile, program: &Program) -> Result<(NetworkInfo, Vec<Diagnostic>), TrainError> {
    let names: Vec<&str> = program
        .networks()
        .iter()
        .map(|n| n.name.name.as_str())
        .collect();
    if run.network.name.is_none() && names.len() > 1 {
        return Err(TrainError::new(
            format!(
                "the file has {} networks: {}",
                names.len(),
                names.join(", ")
            ),
            "name one of them: the key `name` of [network], or the second argument",
        ));
    }
    let mut request = match &run.network.name {
        Some(name) => program.network(name),
        None => program.only_network(),
    };
    for (name, value) in &run.network.hyperparameters {
        request = request.with(name, *value);
    }
    Ok(request.check_with_warnings()?)
}

fn lattice_of(run: &RunFile, info: &NetworkInfo) -> Result<Lattice, TrainError> {
    let bad = |what: String, help: &str| Err(TrainError::new(what, help));
    let extent = match (run.lattice.sites, info.lattice) {
        (None, _) => {
            return bad(
                "the number of sites is missing".into(),
                "add `--sites N`, or the key `sites` of [lattice]",
            );
        }
        (Some(Sites::Total(n)), LatticeKind::Chain) => [n, 1],
        (Some(Sites::Extent([n, 0 | 1])), LatticeKind::Chain) => [n, 1],
        (Some(Sites::Extent([a, b])), LatticeKind::Chain) => {
            return bad(
                format!("two extents, {a} and {b}, for a network on a chain"),
                "give one number of sites",
            );
        }
        (Some(Sites::Extent([n, 0]) | Sites::Total(n)), LatticeKind::Square) => {
            let l = n.isqrt();
            if l * l != n {
                return bad(
                    format!("{n} sites are not a square"),
                    "give both extents: `--sites LX,LY`, or `sites = [LX, LY]`",
                );
            }
            [l, l]
        }
        (Some(Sites::Extent(extent)), LatticeKind::Square) => extent,
    };
    if extent.contains(&0) || extent[0].saturating_mul(extent[1]) > 1 << 28 {
        return bad(
            format!("{} x {} sites are out of range", extent[0], extent[1]),
            "give a positive number of sites",
        );
    }
    Ok(Lattice {
        extent,
        boundary: run.lattice.boundary,
    })
}

fn fits(program: &Program, info: &NetworkInfo, on: Lattice) -> Result<(), TrainError> {
    let sites = lattice::Sites {
        extent: on.extent,
        periodic: on.boundary == Boundary::Periodic,
    };
    let diagnostics = lattice::check(program.modules(), info, sites);
    if diagnostics.iter().any(|d| d.severity() == Severity::Error) {
        let sources = program.sources().clone();
        return Err(CheckError {
            diagnostics,
            sources,
        }
        .into());
    }
    Ok(())
}

fn operator(run: &RunFile, network: &Program) -> Result<OperatorInfo, TrainError> {
    let own;
    let program = match &run.operator.file {
        Some(file) => {
            own = Program::load(file);
            &own
        }
        None => network,
    };
    let operators = program.operators();
    let name = match (&run.operator.name, &operators[..]) {
        (Some(name), _) => name.clone(),
        (None, [only]) => only.name.name.clone(),
        (None, found) => {
            let list: Vec<&str> = found.iter().map(|o| o.name.name.as_str()).collect();
            let what = if list.is_empty() {
                "no operator is given".to_owned()
            } else {
                format!("the file has {} operators: {}", list.len(), list.join(", "))
            };
            return Err(TrainError::new(
                what,
                "add `--operator NAME`, or the key `name` of [operator]; \
                 std::operators has tfim, heisenberg, j1j2_marshall and more",
            ));
        }
    };
    Ok(program.operator(&name, &run.operator.couplings)?)
}

fn options(run: &RunFile, operator: &Operator) -> Result<VmcOptions, TrainError> {
    let t = &run.sampler;
    let key = |key: &str, what: String, help: &str| {
        Err(TrainError::new(format!("`{key}`: {what}"), help))
    };
    if t.chains == 0 {
        return key(
            "sampler.chains",
            "0 chains draw no samples".into(),
            "give at least 1",
        );
    }
    for (name, samples, least) in [
        ("sampler.samples", t.samples, 1),
        ("evaluation.samples", run.evaluation.samples, 0),
    ] {
        if samples < least || samples % t.chains != 0 {
            let up = samples.max(1).next_multiple_of(t.chains);
            return key(
                name,
                format!("{samples} samples cannot be shared by {} chains", t.chains),
                &format!("give a multiple of the number of chains, e.g. {up}"),
            );
        }
    }
    let sites = operator.lattice().sites();
    let spins = t.samples.max(run.evaluation.samples).checked_mul(sites);
    if spins.is_none_or(|s| s > MAX_SPINS) {
        return key(
            "sampler.samples, evaluation.samples",
            format!("the samples of {sites} spins do not fit in memory"),
            "draw fewer samples",
        );
    }
    if run.output.checkpoint_every == 0 || run.output.log_every == 0 {
        return key(
            "output.checkpoint_every, output.log_every",
            "0 iterations between writes".into(),
            "give at least 1",
        );
    }
    if run.evaluation.exact == Some(true) && sites > MAX_FULL_SUM_SITES {
        return key(
            "evaluation.exact",
            format!("all configurations of {sites} spins are too many"),
            "leave the key out, or use at most 20 spins",
        );
    }
    if operator.cluster_count() == 0 {
        return key(
            "operator.name",
            "the operator is diagonal: its ground state is a configuration, not a wave function"
                .into(),
            "choose an operator with X or Y",
        );
    }
    if t.magnetization.is_some() && !operator.conserves_magnetisation() {
        return key(
            "sampler.magnetization",
            "the operator does not conserve the magnetisation".into(),
            "leave the key out",
        );
    }
    if t.bound == BoundKind::Rigorous && t.method != Some(SamplerMethod::Typewriter) {
        return key(
            "sampler.bound",
            "only the typewriter decides by bounds, all other samplers are exact".into(),
            "leave the key out, or set `sampler.method = \"typewriter\"`",
        );
    }
    let sampler = sampler(run, operator);
    // The sampler's own check, now rather than at the first sample.
    if let Err(e) = crate::vmc::sampler::Sampler::new(
        SamplerOptions {
            chains: 1,
            ..sampler.clone()
        },
        operator.lattice().sites(),
    ) {
        return key("sampler", e.to_string(), "change the keys of [sampler]");
    }
    let optim = optimiser(run)?;
    Ok(VmcOptions {
        iterations: run.optimiser.iterations,
        samples_per_chain: t.samples / t.chains,
        burn_in: t.burn_in,
        discard: t.discard,
        sampler,
        optim,
        guard: GuardOptions::default(),
    })
}

fn sampler(run: &RunFile, operator: &Operator) -> SamplerOptions {
    let t = &run.sampler;
    let chosen = t.method.unwrap_or(match t.magnetization {
        Some(_) => SamplerMethod::Exchange,
        None => SamplerMethod::Sweep,
    });
    let method = match chosen {
        SamplerMethod::Sweep => Method::Sweep,
        SamplerMethod::Metropolis => Method::Metropolis {
            moves: vec![Move::Single],
            proposals: None,
        },
        SamplerMethod::Exchange => Method::Metropolis {
            moves: vec![exchange(operator)],
            proposals: None,
        },
        SamplerMethod::Typewriter => Method::Typewriter {
            width: t.width,
            screened: true,
        },
        SamplerMethod::FullSum => Method::FullSum,
    };
    let symmetric = operator.commutes_with_inversion() && t.magnetization.is_none_or(|m| m == 0);
    let acceptance = t.acceptance.unwrap_or(match method {
        Method::Metropolis { .. } => Acceptance::Metropolis,
        _ => Acceptance::HeatBath,
    });
    SamplerOptions {
        method,
        acceptance,
        chains: t.chains,
        sweeps_per_sample: t.sweeps,
        uniform_every: t.uniform,
        inversion_every: t.inversion.unwrap_or(u64::from(symmetric)),
        magnetization: t.magnetization,
        seed: run.seed,
    }
}

/// Exchanges along the pairs the operator flips, if it flips any.
fn exchange(operator: &Operator) -> Move {
    let mut pairs: Vec<[usize; 2]> = (0..operator.cluster_count())
        .filter_map(|k| operator.flips(k).try_into().ok())
        .collect();
    pairs.sort_unstable();
    pairs.dedup();
    if pairs.is_empty() {
        Move::Exchange
    } else {
        Move::ExchangePairs(pairs)
    }
}

fn optimiser(run: &RunFile) -> Result<OptimOptions, TrainError> {
    let t = &run.optimiser;
    let over = t.iterations.max(1);
    let rate = t.rate.resolve(|peak| Schedule::paper(peak, over));
    let shift = t.shift.map_or(
        Schedule::Linear {
            from: 1e-2,
            to: 1e-4,
            over,
        },
        |s| s.resolve(Schedule::Constant),
    );
    let relative = t
        .relative_shift
        .map_or(Schedule::Constant(0.0), |s| s.resolve(Schedule::Constant));
    for (key, schedule) in [
        ("rate", &rate),
        ("shift", &shift),
        ("relative_shift", &relative),
    ] {
        if !schedule.is_valid() {
            return Err(TrainError::new(
                format!("`optimiser.{key}`: a value is negative, infinite or not a number"),
                "give finite numbers of at least 0 (above 0 for peak and end of a decay)",
            ));
        }
    }
    if !(0.0..1.0).contains(&t.momentum) {
        return Err(TrainError::new(
            format!("`optimiser.momentum`: {} is not in 0..1", t.momentum),
            "give a number of at least 0 and below 1",
        ));
    }
    if t.max_norm.is_some_and(|n| n.is_nan() || n <= 0.0) {
        return Err(TrainError::new(
            "`optimiser.max_norm`: must be positive",
            "give a positive number or leave the key out",
        ));
    }
    let sr = |form| {
        OptimMethod::Sr(SrOptions {
            shift: Shift {
                absolute: shift,
                relative,
            },
            form,
            momentum: t.momentum,
            max_norm: t.max_norm,
            ..SrOptions::default()
        })
    };
    let method = match t.method {
        OptimiserMethod::Auto => sr(Form::Auto),
        OptimiserMethod::Sr => sr(Form::Parameters),
        OptimiserMethod::MinSr => sr(Form::Samples),
        OptimiserMethod::Sgd => OptimMethod::Sgd,
        OptimiserMethod::Adam => OptimMethod::Adam(Adam::default()),
    };
    Ok(OptimOptions { method, rate })
}
