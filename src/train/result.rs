//! What a run found: numbers for programs, a table for people.

use super::Setup;
use super::reference::{Exact, exact_correlations, exact_energy};
use super::run_file::BoundKind;
use crate::check::core::Static;
use crate::ir::Boundary;
use crate::run::network::{Backend, Precision};
use crate::vmc::driver::{Evaluation, Timings};
use crate::vmc::estimator::ring_correlations;
use crate::vmc::observe::{OrderParameter, order_parameter};
use crate::vmc::sampler::{Method, Report};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// How energies are to be read.
const CONVENTION: &str = "total energies of the operator as written; X, Y, Z are Pauli matrices, s = +1 or -1 is the value of Z";

/// A bound that decides a smaller fraction costs more than it saves.
const USELESS: f64 = 0.05;

/// The final measurement, with frozen parameters. Numbers that do not exist
/// are NaN here and null in `result.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// Version of the tool.
    pub version: &'static str,
    /// How energies are to be read.
    pub convention: &'static str,
    /// Name of the network.
    pub network: String,
    /// Its hyperparameters.
    pub hyperparameters: BTreeMap<String, Static>,
    /// Number of real parameters.
    pub parameters: usize,
    /// Name of the operator.
    pub operator: String,
    /// Its couplings.
    pub couplings: BTreeMap<String, Static>,
    /// Number of sites.
    pub sites: usize,
    /// Sites per axis.
    pub extent: [usize; 2],
    /// Boundary.
    pub boundary: Boundary,
    /// Iterations of training.
    pub iterations: usize,
    /// Seed.
    pub seed: u64,
    /// Precision of the network.
    pub precision: Precision,
    /// Back end.
    pub backend: Backend,
    /// Total energy.
    pub energy: f64,
    /// Its imaginary part: zero up to sampling errors.
    pub energy_imaginary: f64,
    /// Its standard error.
    pub energy_error: f64,
    /// Energy per site.
    pub energy_per_site: f64,
    /// Variance of the local energies.
    pub variance: f64,
    /// `N Var(E) / (E - E_inf)^2`.
    pub v_score: f64,
    /// Split R-hat of the local energies.
    pub r_hat: f64,
    /// Integrated autocorrelation time in samples.
    pub tau: f64,
    /// Accepted moves per proposed one.
    pub acceptance: f64,
    /// What the typewriter's bound did; none for other samplers.
    pub screening: Option<Screening>,
    /// Samples drawn.
    pub samples: usize,
    /// The exact energy, where it is known.
    pub exact: Option<Exact>,
    /// `(E - E0) / |E0|`.
    pub relative_error: Option<f64>,
    /// Its standard error.
    pub relative_error_error: Option<f64>,
    /// `C(r) = <Z_i Z_(i+r)>`, r = 0..=N/2, and standard errors, on a ring.
    pub correlations: Vec<[f64; 2]>,
    /// The exact ones, where they are known.
    pub exact_correlations: Option<Vec<f64>>,
    /// Moments of `m = (1/N) sum_j Z_j`.
    pub magnetisation: OrderParameter,
    /// Moments of the same with alternating signs.
    pub staggered_magnetisation: OrderParameter,
    /// Seconds of training, over all parts of a resumed run.
    pub seconds_training: f64,
    /// What they were spent on; the rest went into compiling, burn-in and files.
    pub seconds_by_part: Timings,
    /// Seconds of this measurement.
    pub seconds_evaluation: f64,
}

/// What the typewriter's bound did during the final measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Screening {
    /// Where the bound comes from.
    pub bound: BoundKind,
    /// Decisions made by the bound, of those after an accepted flip.
    pub fraction: f64,
    /// Decisions that needed the exact ratio.
    pub corrections: u64,
    /// Largest error seen of a frozen log ratio.
    pub worst_error: f64,
    /// Largest error seen divided by its bound. Above 1 a decision may have been
    /// wrong.
    pub worst_error_over_bound: f64,
}

impl Screening {
    fn of(setup: &Setup, report: &Report) -> Option<Screening> {
        let Method::Typewriter { .. } = setup.options.sampler.method else {
            return None;
        };
        (report.proposed > 0).then(|| Screening {
            bound: setup.run.sampler.bound,
            fraction: report.screened_fraction(),
            corrections: report.corrections,
            worst_error: report.worst_error,
            worst_error_over_bound: report.worst_error_over_bound,
        })
    }

    fn text(&self) -> String {
        let kind = match self.bound {
            BoundKind::Empirical => "empirical",
            BoundKind::Rigorous => "rigorous",
        };
        if self.fraction.is_nan() {
            return format!("nothing left to the {kind} bound: no flip was accepted");
        }
        if self.fraction < USELESS {
            return format!(
                "the {kind} bound is too wide for this network: it decided {:.1} %, the rest was evaluated",
                100.0 * self.fraction
            );
        }
        format!(
            "{:.0} % decided by the {kind} bound; worst error seen {:.1e}, {:.2} of its bound",
            100.0 * self.fraction,
            self.worst_error,
            self.worst_error_over_bound
        )
    }
}

impl Results {
    /// Collects the results of a measurement.
    pub(super) fn new(
        setup: &Setup,
        parameters: usize,
        iterations: usize,
        (seconds, parts): (f64, Timings),
        e: &Evaluation,
    ) -> Results {
        let operator = &setup.operator;
        let mean = e.energy.mean.re;
        let exact = exact_energy(operator, setup.options.sampler.magnetization);
        let relative = exact.as_ref().map(|x| (mean - x.energy) / x.energy.abs());
        let ring = setup.lattice.extent[1] == 1 && setup.lattice.boundary == Boundary::Periodic;
        let correlations = if ring {
            ring_correlations(&e.samples)
                .iter()
                .map(|s| [s.mean.re, s.error])
                .collect()
        } else {
            Vec::new()
        };
        let ly = setup.lattice.extent[1];
        let staggered = |j: usize| 1 - 2 * ((j / ly + j % ly) % 2) as i32;
        Results {
            version: env!("CARGO_PKG_VERSION"),
            convention: CONVENTION,
            network: setup.info.name.clone(),
            hyperparameters: setup.info.hyper.clone().into_iter().collect(),
            parameters,
            operator: setup.operator_info.name.clone(),
            couplings: setup.operator_info.couplings.clone(),
            sites: setup.lattice.sites(),
            extent: setup.lattice.extent,
            boundary: setup.lattice.boundary,
            iterations,
            seed: setup.run.seed,
            precision: setup.run.precision,
            backend: setup.run.backend,
            energy: mean,
            energy_imaginary: e.energy.mean.im,
            energy_error: e.energy.error,
            energy_per_site: mean / setup.lattice.sites() as f64,
            variance: e.energy.variance,
            v_score: e.v_score(operator.infinite_temperature_energy()),
            r_hat: e.energy.r_hat,
            tau: e.energy.tau,
            acceptance: e.report.acceptance(),
            screening: Screening::of(setup, &e.report),
            samples: e.samples.len(),
            relative_error: relative,
            relative_error_error: exact.as_ref().map(|x| e.energy.error / x.energy.abs()),
            exact,
            correlations,
            exact_correlations: exact_correlations(operator),
            magnetisation: order_parameter(&e.samples, |_| 1),
            staggered_magnetisation: order_parameter(&e.samples, staggered),
            seconds_training: seconds,
            seconds_by_part: parts,
            seconds_evaluation: e.time.as_secs_f64(),
        }
    }

    /// As JSON, indented.
    pub fn json(&self) -> String {
        // Plain numbers, texts and maps with text keys always serialise.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// For people.
    pub fn table(&self) -> String {
        let n = self.sites as f64;
        let digits = match self.energy_error {
            e if e.is_finite() && e > 0.0 => (1.0 - e.log10().floor()).clamp(0.0, 12.0) as usize,
            _ => 10,
        };
        let with_error = |x: f64, e: f64, d: usize| {
            if e > 0.0 {
                format!("{x:.d$} ± {e:.d$}")
            } else {
                format!("{x:.d$}")
            }
        };
        let couplings: Vec<String> = self
            .couplings
            .iter()
            .map(|(k, v)| match v {
                Static::Int(x) => format!("{k} = {x}"),
                Static::Real(x) => format!("{k} = {x}"),
                Static::Bool(x) => format!("{k} = {x}"),
            })
            .collect();
        let shape = match (self.extent, self.boundary) {
            ([_, 1], Boundary::Periodic) => format!("ring of {} sites", self.sites),
            ([_, 1], Boundary::Open) => format!("open chain of {} sites", self.sites),
            ([x, y], Boundary::Periodic) => format!("{x} x {y} torus"),
            ([x, y], Boundary::Open) => format!("{x} x {y} rectangle"),
        };
        let mut t = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(t, "  {name:<15} {value}");
        };
        let model = if couplings.is_empty() {
            self.operator.clone()
        } else {
            format!("{}({})", self.operator, couplings.join(", "))
        };
        line("operator", format!("{model} on a {shape}"));
        line(
            "network",
            format!("{}, {} parameters", self.network, self.parameters),
        );
        line(
            "energy E",
            with_error(self.energy, self.energy_error, digits),
        );
        line(
            "E / N",
            with_error(
                self.energy_per_site,
                self.energy_error / n,
                (digits + n.log10() as usize).min(14),
            ),
        );
        if let (Some(exact), Some(relative), Some(error)) =
            (&self.exact, self.relative_error, self.relative_error_error)
        {
            line(
                "exact E0",
                format!("{:.1$} ({2})", exact.energy, digits.max(6), exact.method),
            );
            line(
                "(E - E0) / |E0|",
                if error > 0.0 {
                    format!("{relative:.1e} ± {error:.1e}")
                } else {
                    format!("{relative:.1e}")
                },
            );
        }
        line("variance", format!("{:.2e}", self.variance));
        line("V-score", format!("{:.2e}", self.v_score));
        let shown = |x: f64, d: usize| {
            if x.is_finite() {
                format!("{x:.d$}")
            } else {
                "-".into()
            }
        };
        if self.energy_error == 0.0 {
            let what = format!("all {} configurations, no sampling error", self.samples);
            line("summed over", what);
        } else {
            line(
                "sampling",
                format!(
                    "{} samples, R-hat {}, tau {}, acceptance {}",
                    self.samples,
                    shown(self.r_hat, 3),
                    shown(self.tau, 2),
                    shown(self.acceptance, 2)
                ),
            );
        }
        if let Some(screening) = &self.screening {
            line("screening", screening.text());
        }
        line(
            "time",
            format!(
                "training {:.1} s ({}), measurement {:.1} s",
                self.seconds_training,
                self.seconds_by_part.text(),
                self.seconds_evaluation
            ),
        );
        line("convention", self.convention.into());
        t
    }
}
