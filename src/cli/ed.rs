//! `dnetc ed`

use super::common::{CliError, LatticeArgs, Ui, print};
use super::model::{Model, OperatorArgs, OperatorSpec, refuse_unused};
use super::trained::{Trained, TrainedArgs};
use crate::ir::Lattice;
use crate::vmc::ed::{self, EdError, Level, Lowest, MAX_SITES, Moments, Options, Sector};
use crate::vmc::exact::Tfim;
use crate::vmc::operator::Operator;
use crate::vmc::sampler::MAX_FULL_SUM_SITES;
use num_complex::Complex64;
use serde_json::{Value as Json, json};
use std::fmt::Write;
use std::path::PathBuf;

/// States closer than this are told apart by no training: fidelities are with
/// the span of the two lowest.
const NEAR_DEGENERATE: f64 = 1e-2;
/// From this many sites on, sectors are announced.
const LONG: usize = 20;

/// Arguments of `ed`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  dnetc ed tfim --sites 12\n  dnetc ed model.dnet my_hamiltonian -D J=0.5 --sites 16 --levels 4\n  \
dnetc ed tfim --sites 16 --params run/params.safetensors"
)]
pub struct Args {
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    lattice: LatticeArgs,
    /// How many of the lowest states
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    levels: u16,
    /// auto (all sectors), full, even or odd (under inversion of all spins), or
    /// sz=M with M half the sum of all Z
    #[arg(long, default_value = "auto", allow_hyphen_values = true)]
    sector: SectorArg,
    /// Only states of momentum 2 pi M / L: M, or MX,MY on a square lattice
    #[arg(long, value_name = "M", value_parser = parse_momentum)]
    momentum: Option<[usize; 2]>,
    /// Also the expectation value of another operator in every state:
    /// NAME of std::operators or FILE.dnet:NAME
    #[arg(long, value_name = "OPERATOR")]
    observe: Vec<OperatorSpec>,
    /// Parameter file of a trained network: its fidelity with the ground state
    #[arg(long, value_name = "FILE")]
    params: Option<PathBuf>,
    #[command(flatten)]
    trained: TrainedArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `--sector` says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum SectorArg {
    Auto,
    Full,
    Inversion {
        odd: bool,
    },
    /// Sum of all Z.
    Magnetisation(i64),
}

impl std::str::FromStr for SectorArg {
    type Err = String;
    fn from_str(text: &str) -> Result<SectorArg, String> {
        match text {
            "auto" => return Ok(SectorArg::Auto),
            "full" => return Ok(SectorArg::Full),
            "even" => return Ok(SectorArg::Inversion { odd: false }),
            "odd" => return Ok(SectorArg::Inversion { odd: true }),
            _ => {}
        }
        let twice = text
            .strip_prefix("sz=")
            .and_then(|m| m.parse::<f64>().ok())
            .map(|m| 2.0 * m)
            .filter(|m| m.abs() < 1e6 && m.fract() == 0.0);
        match twice {
            Some(m) => Ok(SectorArg::Magnetisation(m as i64)),
            None => Err("expected auto, full, even, odd or sz=M with a multiple of 1/2".to_owned()),
        }
    }
}

fn parse_momentum(text: &str) -> Result<[usize; 2], String> {
    let mut parts = text.split(',').map(|m| m.trim().parse::<usize>());
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Ok(m)), None, _) => Ok([m, 0]),
        (Some(Ok(x)), Some(Ok(y)), None) => Ok([x, y]),
        _ => Err("expected a whole number from 0 to L - 1, or two of them".to_owned()),
    }
}

impl SectorArg {
    fn sector(self, sites: usize) -> Result<Option<Sector>, CliError> {
        Ok(match self {
            SectorArg::Auto => None,
            SectorArg::Full => Some(Sector::Full),
            SectorArg::Inversion { odd } => Some(Sector::Inversion { odd }),
            SectorArg::Magnetisation(m) => {
                let n = sites as i64;
                if m.abs() > n || (n - m) % 2 != 0 {
                    return Err(CliError::new(
                        format!("{sites} spins have no sector sz={}", m as f64 / 2.0),
                        format!(
                            "sz runs from {0} down to -{0} in steps of 1",
                            n as f64 / 2.0
                        ),
                    ));
                }
                Some(Sector::Magnetisation {
                    down: ((n - m) / 2) as usize,
                })
            }
        })
    }
}

/// The sector in the words of `--sector`.
fn sector_text(sector: Sector, sites: usize, mirrored: bool) -> String {
    match sector {
        Sector::Full => "full".to_owned(),
        Sector::Inversion { odd } => if odd { "odd" } else { "even" }.to_owned(),
        Sector::Balanced { odd } => format!("sz=0 {}", if odd { "odd" } else { "even" }),
        Sector::Magnetisation { down } => {
            let sz = (sites as f64 - 2.0 * down as f64) / 2.0;
            format!("sz={}", if mirrored { -sz } else { sz })
        }
    }
}

fn failed(error: EdError) -> CliError {
    match error {
        EdError::Size { .. } => CliError::new(
            error.to_string(),
            "use fewer sites, or sample a network with `dnetc observe`",
        ),
        EdError::NotConserved { sector } => CliError::new(
            format!(
                "the operator does not conserve {}",
                match sector {
                    Sector::Magnetisation { .. } => "the magnetisation",
                    Sector::Balanced { .. } => "parity and magnetisation",
                    Sector::Full | Sector::Inversion { .. } =>
                        "the parity under inversion of all spins",
                }
            ),
            "use `--sector auto` for the sectors the operator has, or `full`",
        ),
        EdError::Momentum { .. } => CliError::new(
            error.to_string(),
            "momenta run from 0 to L - 1 along each axis, on rings and tori, for operators with \
             the same couplings everywhere",
        ),
        error => CliError::plain(error.to_string()),
    }
}

/// Diagonalises and reports.
pub fn run(args: &Args, ui: &Ui) -> Result<(), CliError> {
    let shared = args.params.is_some() || !args.observe.is_empty();
    let model = args
        .operator
        .spec()?
        .find(&args.operator.define, shared, ui)?;
    let mut unused = model.unused.clone();
    let mut observables = Vec::new();
    for spec in &args.observe {
        let observable = spec.find(&args.operator.define, true, ui)?;
        unused.retain(|u| observable.unused.contains(u));
        observables.push(observable);
    }
    let trained = match &args.params {
        Some(file) => Some(args.trained.load(file, &unused, &args.lattice, ui)?),
        None => {
            refuse_unused(&unused)?;
            None
        }
    };
    let lattice = match (args.lattice.lattice(model.info.lattice)?, &trained) {
        (Some(lattice), _) => lattice,
        (None, Some(trained)) => trained.lattice,
        (None, None) => {
            return Err(CliError::new(
                "the number of sites is missing",
                "add `--sites N`",
            ));
        }
    };
    let sites = lattice.sites();
    if sites > MAX_SITES {
        return Err(failed(EdError::Size { sites }));
    }
    let operator = model.compile(lattice)?;
    let sector = args.sector.sector(sites)?;
    let options = Options {
        levels: usize::from(args.levels),
        momentum: args.momentum,
        ..Options::default()
    };
    let quiet = sites < LONG || ui.json();
    let lowest = ed::lowest(&operator, sector, &options, &mut |sector| {
        if !quiet {
            eprintln!(
                "diagonalising sector {} ...",
                sector_text(sector, sites, false)
            );
        }
    })
    .map_err(failed)?;
    if lowest.levels.is_empty() {
        return Err(CliError::new(
            "no state of this sector has this momentum",
            "choose another --sector or --momentum",
        ));
    }
    let mut report = Report::new(&lowest, &operator, lattice);
    report.momentum = args.momentum;
    for observable in &observables {
        report.observe(&lowest, observable)?;
    }
    if let Some(trained) = &trained {
        report.fidelity = Some(fidelity(&lowest, trained, sector, lattice)?);
    }
    if args.json {
        let text = serde_json::to_string_pretty(&report.json(&model))
            .map_err(|e| CliError::plain(e.to_string()))?;
        return print(&format!("{text}\n"));
    }
    print(&report.text(&model))
}

/// Fidelity of a network with the ground state, or the span of two.
struct Fidelity {
    network: String,
    value: f64,
    /// Number of states spanned.
    states: usize,
    /// The amplitudes were restricted to this sector.
    restricted: Option<Sector>,
}

fn fidelity(
    lowest: &Lowest,
    trained: &Trained,
    sector: Option<Sector>,
    lattice: Lattice,
) -> Result<Fidelity, CliError> {
    let sites = lattice.sites();
    if trained.lattice != lattice {
        return Err(CliError::plain(format!(
            "the network has {} sites, the operator {sites}",
            trained.lattice.sites()
        )));
    }
    if sites > MAX_FULL_SUM_SITES {
        return Err(CliError::new(
            format!(
                "the fidelity needs all 2^{sites} amplitudes; at most {MAX_FULL_SUM_SITES} sites are summed"
            ),
            "leave out --params, or use fewer sites",
        ));
    }
    // A network trained at fixed magnetisation says nothing about other sectors.
    let restricted = sector.filter(|s| matches!(s, Sector::Magnetisation { .. }));
    let inside = |s: usize| match restricted {
        Some(Sector::Magnetisation { down }) => s.count_ones() as usize == down,
        _ => true,
    };
    let mut psi = vec![Complex64::default(); 1 << sites];
    const BATCH: usize = 4096;
    for (k, out) in psi.chunks_mut(BATCH).enumerate() {
        let spins: Vec<i8> = (0..out.len())
            .flat_map(|i| {
                (0..sites).map(move |j| if (k * BATCH + i) >> j & 1 == 0 { 1 } else { -1 })
            })
            .collect();
        trained.psi.log_psi(&spins, out);
    }
    if psi
        .iter()
        .any(|z| z.re.is_nan() || z.im.is_nan() || z.re == f64::INFINITY)
    {
        return Err(CliError::new(
            "some amplitudes of the network are not numbers",
            "check the parameters: some may be huge",
        ));
    }
    let top = (0..psi.len())
        .filter(|&s| inside(s))
        .map(|s| psi[s].re)
        .fold(f64::NEG_INFINITY, f64::max);
    for (s, z) in psi.iter_mut().enumerate() {
        *z = if inside(s) {
            (*z - top).exp()
        } else {
            Complex64::default()
        };
    }
    let norm: f64 = psi.iter().map(Complex64::norm_sqr).sum();
    let states = 1 + usize::from(near_degenerate(lowest));
    let mut value = 0.0;
    for level in &lowest.levels[..states] {
        let (spectrum, k) = lowest.state(level);
        value += spectrum.overlap(k, &psi, level.mirrored).map_err(failed)? / norm;
    }
    Ok(Fidelity {
        network: trained.name.clone(),
        value,
        states,
        restricted,
    })
}

fn near_degenerate(lowest: &Lowest) -> bool {
    matches!(&lowest.levels[..], [a, b, ..] if b.energy - a.energy < NEAR_DEGENERATE)
}

/// Everything computed.
struct Report<'a> {
    lowest: &'a Lowest,
    lattice: Lattice,
    moments: Vec<Moments>,
    /// Ground-state energy by free fermions.
    exact: Option<f64>,
    infinite_temperature: f64,
    observables: Vec<(String, Vec<f64>)>,
    fidelity: Option<Fidelity>,
    /// In units of 2 pi / L, where one was asked for.
    momentum: Option<[usize; 2]>,
}

impl<'a> Report<'a> {
    fn new(lowest: &'a Lowest, operator: &Operator, lattice: Lattice) -> Report<'a> {
        let ly = lattice.extent[1];
        let moments = lowest.levels.iter().map(|level| {
            let (spectrum, k) = lowest.state(level);
            spectrum.moments(k, |site| site / ly + site % ly)
        });
        Report {
            lowest,
            lattice,
            moments: moments.collect(),
            exact: Tfim::recognise(operator).and_then(|chain| chain.energy()),
            infinite_temperature: operator.infinite_temperature_energy(),
            observables: Vec::new(),
            fidelity: None,
            momentum: None,
        }
    }

    fn observe(&mut self, lowest: &Lowest, observable: &Model) -> Result<(), CliError> {
        let operator = observable.compile(self.lattice)?;
        let values = lowest.levels.iter().map(|level| {
            let (spectrum, k) = lowest.state(level);
            if level.mirrored && !operator.commutes_with_inversion() {
                return Err(CliError::new(
                    format!("`{}` changes sign or form under inversion, which relates two degenerate states", observable.info.name),
                    "choose one sector with `--sector sz=M`",
                ));
            }
            spectrum.expectation(&operator, k).map_err(|e| match e {
                EdError::NotConserved { .. } => CliError::new(
                    format!("`{}` leads out of the sector of a state", observable.info.name),
                    "use `--sector full`",
                ),
                e => failed(e),
            })
        });
        let values = values.collect::<Result<Vec<f64>, CliError>>()?;
        self.observables
            .push((observable.info.name.clone(), values));
        Ok(())
    }

    fn sector(&self, level: &Level) -> String {
        sector_text(level.sector, self.lattice.sites(), level.mirrored)
    }

    fn gap(&self) -> Option<f64> {
        match &self.lowest.levels[..] {
            [a, b, ..] => Some(b.energy - a.energy),
            _ => None,
        }
    }

    fn converged(&self) -> bool {
        self.lowest.sectors.iter().all(|s| s.converged)
    }

    fn text(&self, model: &Model) -> String {
        let n = self.lattice.sites() as f64;
        let mut t = model.heading(self.lattice);
        let _ = writeln!(
            t,
            "\n{:>5}  {:>20}  {:>18}  {:>8}  {:10}  {:>10}  {:>10}  {:>10}  {:>10}",
            "level",
            "energy",
            "per site",
            "residual",
            "sector",
            "<m^2>",
            "<m^4>",
            "<ms^2>",
            "<ms^4>"
        );
        for (k, (level, m)) in self.lowest.levels.iter().zip(&self.moments).enumerate() {
            let _ = writeln!(
                t,
                "{k:>5}  {:>20.12}  {:>18.14}  {:>8.0e}  {:10}  {:>10.8}  {:>10.8}  {:>10.8}  {:>10.8}",
                level.energy,
                level.energy / n,
                level.residual,
                self.sector(level),
                m.m2,
                m.m4,
                m.staggered_m2,
                m.staggered_m4
            );
        }
        t += "m = sum Z / N, ms = the same with alternating signs\n\n";
        if let Some([x, y]) = self.momentum {
            let axes = if self.lattice.extent[1] == 1 {
                format!("{x}")
            } else {
                format!("({x}, {y})")
            };
            let _ = writeln!(t, "momentum       2 pi {axes} / L only");
        }
        if let Some(gap) = self.gap() {
            let _ = writeln!(t, "gap            {gap:.12}");
            if near_degenerate(self.lowest) {
                let _ = writeln!(
                    t,
                    "               the two lowest states are closer than {NEAR_DEGENERATE}: nearly degenerate"
                );
            }
        }
        let _ = writeln!(t, "tr H / dim     {}", self.infinite_temperature);
        if let (Some(exact), Some(ground)) = (self.exact, self.lowest.levels.first()) {
            let _ = writeln!(
                t,
                "free fermions  {exact:.12}   exact ground state; differs by {:.1e}",
                ground.energy - exact
            );
        }
        for (name, values) in &self.observables {
            let shown: Vec<String> = values.iter().map(|v| format!("{v:.10}")).collect();
            let _ = writeln!(t, "<{name}>  {}", shown.join("  "));
        }
        if let Some(f) = &self.fidelity {
            let with = if f.states == 1 {
                "the ground state"
            } else {
                "the span of the two lowest states"
            };
            let _ = writeln!(
                t,
                "fidelity       {:.10}   of {} with {with}; infidelity {:.3e}",
                f.value,
                f.network,
                1.0 - f.value
            );
            if let Some(s) = f.restricted {
                let _ = writeln!(
                    t,
                    "               amplitudes restricted to {}",
                    sector_text(s, self.lattice.sites(), false)
                );
            }
        }
        if !self.converged() {
            t += "warning: not every state met the tolerance; every energy lies within its residual of an eigenvalue\n";
        }
        t
    }

    fn json(&self, model: &Model) -> Json {
        let n = self.lattice.sites() as f64;
        let levels = &self.lowest.levels;
        let mut object = model.json(self.lattice);
        let mut put = |key: &str, value: Json| object.insert(key.to_owned(), value);
        put(
            "energies",
            json!(levels.iter().map(|l| l.energy).collect::<Vec<_>>()),
        );
        put(
            "energies_per_site",
            json!(levels.iter().map(|l| l.energy / n).collect::<Vec<_>>()),
        );
        put(
            "residuals",
            json!(levels.iter().map(|l| l.residual).collect::<Vec<_>>()),
        );
        put("momentum", json!(self.momentum));
        put("gap", json!(self.gap()));
        put("nearly_degenerate", json!(near_degenerate(self.lowest)));
        put("converged", json!(self.converged()));
        let states: Vec<Json> = levels
            .iter()
            .zip(&self.moments)
            .map(|(l, m)| json!({"energy": l.energy, "residual": l.residual, "sector": self.sector(l), "moments": m}))
            .collect();
        put("levels", json!(states));
        let sectors: Vec<Json> = self
            .lowest
            .sectors
            .iter()
            .map(|s| {
                json!({
                    "sector": sector_text(s.sector, self.lattice.sites(), false), "dimension": s.dim, "twin": s.twin,
                    "energies": s.energies, "residuals": s.residuals, "steps": s.steps, "converged": s.converged,
                })
            })
            .collect();
        put("sectors", json!(sectors));
        put(
            "infinite_temperature_energy",
            json!(self.infinite_temperature),
        );
        put(
            "exact",
            self.exact.map_or(
                Json::Null,
                |e| json!({"method": "free fermions", "energy": e}),
            ),
        );
        let observables: serde_json::Map<String, Json> = self
            .observables
            .iter()
            .map(|(name, v)| (name.clone(), json!(v)))
            .collect();
        put("observables", json!(observables));
        let fidelity = self.fidelity.as_ref().map(|f| {
            json!({
                "network": f.network, "value": f.value, "states": f.states,
                "restricted_to": f.restricted.map(|s| sector_text(s, self.lattice.sites(), false)),
            })
        });
        put("fidelity", json!(fidelity));
        Json::Object(object)
    }
}
