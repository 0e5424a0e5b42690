//! `dnetc observe`

use super::arrays::write_npz;
use super::common::{CliError, LatticeArgs, Ui, parse_override, print, without_numbers};
use super::model::{CONVENTION, Model, OperatorSpec, deliver, lattice_text};
use super::trained::{Trained, TrainedArgs};
use crate::check::core::Static;
use crate::train::MAX_SPINS;
use crate::vmc::estimator::{estimates, summary};
use crate::vmc::exact::Tfim;
use crate::vmc::observe::{
    Correlation, Estimate, OrderParameter, StructureFactor, correlations, order_parameter,
    structure_factor,
};
use crate::vmc::operator::Operator;
use crate::vmc::sampler::{Method, Move, Report, Sampler, SamplerOptions, Samples, Target};
use crate::vmc::stats::{Summary, v_score};
use serde_json::{Value as Json, json};
use std::fmt::Write;
use std::path::PathBuf;

/// Arguments of `observe`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  dnetc observe params.safetensors --hamiltonian tfim -D h=1\n  \
dnetc observe params.safetensors --operator transverse_magnetisation --exact --output observables.json"
)]
pub struct Args {
    /// Parameter file of a trained network
    params: PathBuf,
    #[command(flatten)]
    trained: TrainedArgs,
    #[command(flatten)]
    lattice: LatticeArgs,
    /// Energy, variance and V-score of this operator: NAME of std::operators or FILE.dnet:NAME
    #[arg(long, value_name = "OPERATOR")]
    hamiltonian: Option<OperatorSpec>,
    /// Mean and error of another operator; may be repeated
    #[arg(long, value_name = "OPERATOR")]
    operator: Vec<OperatorSpec>,
    /// Override a coupling (or a hyperparameter of the network)
    #[arg(short = 'D', value_name = "NAME=VALUE", value_parser = parse_override)]
    define: Vec<(String, Static)>,
    /// Number of samples, rounded up to whole chains
    #[arg(long, default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// Number of Markov chains
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    chains: u32,
    /// Sweeps of every chain before the first sample
    #[arg(long, default_value_t = 100)]
    burn_in: u32,
    /// Sweeps before every sample
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    sweeps: u32,
    /// Seed; the same seed gives the same samples
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Fix half the sum of all Z and move by exchanges
    #[arg(long, value_name = "M", allow_hyphen_values = true)]
    sz: Option<f64>,
    /// Also propose the inversion of all spins, once per sweep
    #[arg(long, conflicts_with = "exact")]
    inversion: bool,
    /// Sum over all configurations instead of sampling
    #[arg(long)]
    exact: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write everything to a .json or .npz file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Samples the network and reports what was asked for.
pub fn run(args: &Args, ui: &Ui) -> Result<(), CliError> {
    let format = match &args.output {
        None => None,
        Some(path) => match path.extension().and_then(|e| e.to_str()) {
            Some("json") => Some(Format::Json),
            Some("npz") => Some(Format::Npz),
            _ => {
                return Err(CliError::new(
                    format!("`{}` ends neither in .json nor in .npz", path.display()),
                    "the ending chooses the format",
                ));
            }
        },
    };
    let mut unused = args.define.clone();
    let mut find = |spec: &OperatorSpec| -> Result<Model, CliError> {
        let model = spec.find(&args.define, true, ui)?;
        unused.retain(|u| model.unused.contains(u));
        Ok(model)
    };
    let hamiltonian = args.hamiltonian.as_ref().map(&mut find).transpose()?;
    let observables = args
        .operator
        .iter()
        .map(find)
        .collect::<Result<Vec<_>, _>>()?;
    // What no operator takes is a hyperparameter; the network refuses others.
    let trained = args
        .trained
        .load(&args.params, &unused, &args.lattice, ui)?;
    let compile = |model: Model| -> Result<(Model, Operator), CliError> {
        let operator = model.compile(trained.lattice)?;
        Ok((model, operator))
    };
    let hamiltonian = hamiltonian.map(compile).transpose()?;
    let observables = observables
        .into_iter()
        .map(compile)
        .collect::<Result<Vec<_>, _>>()?;
    let (samples, sampling) = draw(args, &trained)?;
    let results = Results::measure(&trained, &samples, sampling, hamiltonian, observables)?;
    match (format, &args.output) {
        (Some(Format::Json), output) => deliver(output.as_deref(), &results.json_text()?)?,
        (Some(Format::Npz), Some(path)) => results.npz(path)?,
        _ => {}
    }
    if args.json {
        print(&results.json_text()?)
    } else {
        print(&results.text())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Npz,
}

fn draw(args: &Args, trained: &Trained) -> Result<(Samples, Report), CliError> {
    let sites = trained.lattice.sites();
    let per_chain = args.samples.div_ceil(args.chains) as usize;
    let spins = (args.chains as usize * per_chain).saturating_mul(sites);
    if !args.exact && spins > MAX_SPINS {
        return Err(CliError::new(
            format!("the samples of {sites} spins do not fit in memory"),
            "draw fewer samples, or from fewer chains",
        ));
    }
    let magnetization = match args.sz {
        None => None,
        Some(m) if (2.0 * m).fract() == 0.0 && m.abs() < 1e9 => Some((2.0 * m) as i64),
        Some(m) => {
            return Err(CliError::new(
                format!("--sz {m} is not a multiple of 1/2"),
                "sz is half the sum of all Z",
            ));
        }
    };
    let method = if args.exact {
        Method::FullSum
    } else if magnetization.is_some() {
        Method::Metropolis {
            moves: vec![Move::Exchange],
            proposals: None,
        }
    } else {
        Method::Sweep
    };
    let options = SamplerOptions {
        method,
        chains: args.chains as usize,
        sweeps_per_sample: args.sweeps as usize,
        inversion_every: u64::from(args.inversion),
        magnetization,
        seed: args.seed,
        ..SamplerOptions::default()
    };
    let refused = |e: crate::vmc::sampler::SamplerError| {
        CliError::new(
            e.to_string(),
            "see `dnetc observe --help` for how samples are drawn",
        )
    };
    let mut sampler = Sampler::new(options, sites).map_err(refused)?;
    let target = Target::new(&*trained.psi);
    sampler.advance(target, args.burn_in as usize);
    let (samples, report) = sampler.sample(target, per_chain);
    let broken = report.not_a_number > 0 || samples.weights.iter().flatten().any(|w| w.is_nan());
    if broken {
        let wrong = CliError::new(
            "some amplitudes of the network are not numbers",
            "check the parameters: some may be huge",
        );
        return Err(without_numbers(&*trained.psi, wrong));
    }
    Ok((samples, report))
}

/// An operator's local estimator over the samples.
struct Measured {
    model: Model,
    summary: Summary,
    infinite_temperature: f64,
    exact: Option<f64>,
}

struct Results<'a> {
    trained: &'a Trained,
    count: usize,
    exact_sum: bool,
    sampling: Report,
    energy: Option<Measured>,
    observables: Vec<Measured>,
    uniform: OrderParameter,
    staggered: OrderParameter,
    correlations: Vec<Correlation>,
    structure: Vec<StructureFactor>,
}

impl<'a> Results<'a> {
    fn measure(
        trained: &'a Trained,
        samples: &Samples,
        sampling: Report,
        hamiltonian: Option<(Model, Operator)>,
        observables: Vec<(Model, Operator)>,
    ) -> Result<Results<'a>, CliError> {
        let measure = |(model, operator): (Model, Operator)| {
            let summary = summary(samples, &*estimates(&*trained.psi, &operator, samples));
            if !summary.mean.is_finite() {
                let wrong = CliError::new(
                    format!("the mean of `{}` is not a number", model.info.name),
                    "some amplitudes may vanish or overflow; try `--precision f64`",
                );
                return Err(without_numbers(&*trained.psi, wrong));
            }
            Ok(Measured {
                exact: Tfim::recognise(&operator).and_then(|chain| chain.energy()),
                infinite_temperature: operator.infinite_temperature_energy(),
                model,
                summary,
            })
        };
        let ly = trained.lattice.extent[1];
        Ok(Results {
            trained,
            count: samples.len(),
            exact_sum: samples.weights.is_some(),
            sampling,
            energy: hamiltonian.map(measure).transpose()?,
            observables: observables
                .into_iter()
                .map(measure)
                .collect::<Result<_, _>>()?,
            uniform: order_parameter(samples, |_| 1),
            staggered: order_parameter(samples, |j| 1 - 2 * ((j / ly + j % ly) % 2) as i32),
            correlations: correlations(samples, trained.lattice),
            structure: structure_factor(samples, trained.lattice),
        })
    }

    fn chain(&self) -> bool {
        self.trained.kind == crate::syntax::ast::LatticeKind::Chain
    }

    fn text(&self) -> String {
        let n = self.trained.lattice.sites() as f64;
        let mut t = format!(
            "network {} on {}\n",
            self.trained.name,
            lattice_text(self.trained.kind, self.trained.lattice)
        );
        let _ = if self.exact_sum {
            writeln!(t, "  summed over {} configurations", self.count)
        } else {
            writeln!(
                t,
                "  {} samples, acceptance {:.3}",
                self.count,
                self.sampling.acceptance()
            )
        };
        let _ = if self.energy.is_none() {
            writeln!(t, "  {CONVENTION}\n")
        } else {
            writeln!(t)
        };
        if let Some(e) = &self.energy {
            let s = &e.summary;
            let _ = writeln!(t, "{}", e.model.heading(self.trained.lattice).trim_end());
            let _ = writeln!(t, "{:28}{}", "energy", s.text());
            let _ = writeln!(
                t,
                "{:28}{}",
                "energy per site",
                value_text(s.mean.re / n, s.error / n)
            );
            let _ = writeln!(t, "{:28}{:.6e}", "variance", s.variance);
            let _ = writeln!(
                t,
                "{:28}{:.3e}",
                "V-score",
                v_score(n as usize, s.mean.re, s.variance, e.infinite_temperature)
            );
            if let Some(exact) = e.exact {
                let relative = ((s.mean.re - exact) / exact).abs();
                let _ = writeln!(
                    t,
                    "{:28}{exact:.12}   relative error {relative:.2e}",
                    "free fermions"
                );
            }
            t.push('\n');
        }
        for o in &self.observables {
            let _ = writeln!(
                t,
                "{:28}{}",
                o.model.info.name,
                value_text(o.summary.mean.re, o.summary.error)
            );
        }
        for (name, m) in [
            ("m = sum Z / N", &self.uniform),
            ("staggered m", &self.staggered),
        ] {
            let _ = writeln!(t, "{name}");
            for (what, e) in [
                ("<m>", &m.m),
                ("<|m|>", &m.abs),
                ("<m^2>", &m.m2),
                ("<m^4>", &m.m4),
            ] {
                let _ = writeln!(t, "  {what:26}{}", value_text(e.mean, e.error));
            }
            let _ = writeln!(
                t,
                "  {:20}{}",
                "Binder cumulant",
                value_text(m.binder, m.binder_error)
            );
        }
        let _ = writeln!(t, "\n{:>12}  {:>12}  {:>9}", "r", "C(r)", "error");
        for c in &self.correlations {
            let [x, y] = c.displacement;
            let r = if self.chain() {
                x.to_string()
            } else {
                format!("({x}, {y})")
            };
            let _ = writeln!(
                t,
                "{r:>12}  {:>12.8}  {:>9.1e}",
                c.value.mean, c.value.error
            );
        }
        let _ = writeln!(t, "\n{:>18}  {:>12}  {:>9}", "k / pi", "S(k)", "error");
        for s in &self.structure {
            let [x, y] = s.k.map(|k| k / std::f64::consts::PI);
            let k = if self.chain() {
                format!("{x:.5}")
            } else {
                format!("({x:.4}, {y:.4})")
            };
            let _ = writeln!(
                t,
                "{k:>18}  {:>12.8}  {:>9.1e}",
                s.value.mean, s.value.error
            );
        }
        t
    }

    fn json(&self) -> Json {
        let measured = |m: &Measured| {
            let mut object = m.model.json(self.trained.lattice);
            let mut put = |key: &str, value: Json| object.insert(key.to_owned(), value);
            put("mean", json!(m.summary.mean.re));
            put("error", json!(m.summary.error));
            put("variance", json!(m.summary.variance));
            put("r_hat", json!(m.summary.r_hat));
            put("tau", json!(m.summary.tau));
            put("infinite_temperature_energy", json!(m.infinite_temperature));
            Json::Object(object)
        };
        let energy = self.energy.as_ref().map(|e| {
            let mut object = measured(e);
            let n = self.trained.lattice.sites();
            object["v_score"] = json!(v_score(
                n,
                e.summary.mean.re,
                e.summary.variance,
                e.infinite_temperature
            ));
            object["exact"] = json!(e.exact);
            object
        });
        json!({
            "network": self.trained.name,
            "extent": self.trained.lattice.extent,
            "samples": self.count,
            "exact_sum": self.exact_sum,
            "acceptance": self.sampling.acceptance(),
            "convention": CONVENTION,
            "energy": energy,
            "observables": self.observables.iter().map(measured).collect::<Vec<_>>(),
            "magnetisation": self.uniform,
            "staggered_magnetisation": self.staggered,
            "correlations": self.correlations,
            "structure_factor": self.structure,
        })
    }

    fn json_text(&self) -> Result<String, CliError> {
        serde_json::to_string_pretty(&self.json())
            .map(|text| text + "\n")
            .map_err(|e| CliError::plain(e.to_string()))
    }

    /// Arrays `x` and `x_error` for every quantity.
    fn npz(&self, path: &std::path::Path) -> Result<(), CliError> {
        let mut arrays: Vec<(String, Vec<usize>, Vec<f64>)> = Vec::new();
        let mut put = |name: &str, values: Vec<f64>, errors: Vec<f64>| {
            let shape = vec![values.len()];
            arrays.push((name.to_owned(), shape.clone(), values));
            arrays.push((format!("{name}_error"), shape, errors));
        };
        let list = |estimates: &[Estimate]| -> (Vec<f64>, Vec<f64>) {
            estimates.iter().map(|e| (e.mean, e.error)).unzip()
        };
        let (values, errors) = list(
            &self
                .correlations
                .iter()
                .map(|c| c.value)
                .collect::<Vec<_>>(),
        );
        put("correlation", values, errors);
        let (values, errors) = list(&self.structure.iter().map(|s| s.value).collect::<Vec<_>>());
        put("structure_factor", values, errors);
        for (prefix, m) in [("m", &self.uniform), ("staggered_m", &self.staggered)] {
            for (name, e) in [("", &m.m), ("_abs", &m.abs), ("2", &m.m2), ("4", &m.m4)] {
                put(&format!("{prefix}{name}"), vec![e.mean], vec![e.error]);
            }
            put(
                &format!("{prefix}_binder"),
                vec![m.binder],
                vec![m.binder_error],
            );
        }
        for o in self.observables.iter().chain(&self.energy) {
            put(
                &o.model.info.name,
                vec![o.summary.mean.re],
                vec![o.summary.error],
            );
        }
        if let Some(e) = &self.energy {
            arrays.push((
                "energy_variance".to_owned(),
                vec![1],
                vec![e.summary.variance],
            ));
        }
        let displacements = self
            .correlations
            .iter()
            .flat_map(|c| c.displacement.map(|d| d as f64))
            .collect();
        arrays.push((
            "displacement".to_owned(),
            vec![self.correlations.len(), 2],
            displacements,
        ));
        let momenta = self.structure.iter().flat_map(|s| s.k).collect();
        arrays.push((
            "momentum".to_owned(),
            vec![self.structure.len(), 2],
            momenta,
        ));
        let arrays: Vec<(&str, Vec<usize>, Vec<f64>)> = arrays
            .iter()
            .map(|(n, s, d)| (n.as_str(), s.clone(), d.clone()))
            .collect();
        write_npz(path, &arrays)
    }
}

/// `0.12345 +- 0.00012`, to the digits the error supports.
fn value_text(value: f64, error: f64) -> String {
    if error > 0.0 && error.is_finite() {
        let digits = (1.0 - error.log10().floor()).clamp(0.0, 15.0) as usize;
        format!("{value:.digits$} +- {error:.digits$}")
    } else {
        format!("{value:.12}")
    }
}
