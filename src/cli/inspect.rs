//! `dnetc inspect`

use super::common::{CliError, LatticeArgs, NetworkArgs, Ui, check_lattice, print};
use crate::back::costs;
use crate::back::cpu::compiled::in_units;
use crate::back::cpu::network::{CpuNetwork, LocalUpdates};
use crate::check::Program;
use crate::check::core::{CoreOp, Kind, NetworkInfo, Place, Static, Token, Value};
use crate::check::elaborate::{class_name, show_kind, show_shape, show_type};
use crate::ir::{Boundary, Lattice};
use crate::params::count::ParamCount;
use crate::params::initialise;
use crate::pass::cluster::Cluster;
use crate::pass::cost::{Cost, CostModel, UpdateCost, number};
use crate::pipeline;
use crate::run::{Room, Task, WaveFunction};
use crate::syntax::ast::{LatticeKind, OperatorItem};
use serde_json::{Value as Json, json};
use std::fmt::Write;

/// Arguments of `inspect`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    lattice: LatticeArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Also list every intermediate value, named or not
    #[arg(long)]
    all: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Inspects the networks and operators asked for.
pub fn run(args: &Args, ui: &Ui) -> Result<(), CliError> {
    let program = Program::load(&args.network.file);
    let wanted = args.network.network.as_deref();
    let operators: Vec<&OperatorItem> = program
        .operators()
        .into_iter()
        .filter(|o| wanted.is_none_or(|w| w == o.name.name))
        .collect();
    let networks: Vec<String> = program
        .networks()
        .into_iter()
        .filter(|n| wanted.is_none_or(|w| w == n.name.name))
        .map(|n| n.name.name.clone())
        .collect();
    if networks.is_empty() && operators.is_empty() {
        // Gives the right error: a file that does not parse, or an unknown name.
        args.network.check_in(&program)?;
    }
    let mut objects = Vec::new();
    let mut text = String::new();
    for name in networks {
        let mut request = args.network.clone();
        request.network = Some(name);
        let (info, warnings) = request.check_in(&program)?;
        ui.diagnostics(program.sources(), &warnings);
        let lattice = args.lattice.lattice(info.lattice)?;
        if let Some(l) = lattice {
            check_lattice(&program, &info, l)?;
        }
        let view = View::new(&info, lattice, args.all);
        match args.format {
            Format::Text => text += &view.text(&args.network.file.display().to_string()),
            Format::Json => objects.push(view.json()),
        }
    }
    for operator in operators {
        let report =
            super::operator::report(&program, operator, &args.network.define, &args.lattice, ui)?;
        match args.format {
            Format::Text => text += &report.text,
            Format::Json => objects.push(report.json),
        }
    }
    if args.format == Format::Json {
        let value = if objects.len() == 1 {
            objects.remove(0)
        } else {
            Json::Array(objects)
        };
        text = serde_json::to_string_pretty(&value).map_err(|e| CliError::plain(e.to_string()))?
            + "\n";
    }
    print(&text)
}

struct View<'a> {
    info: &'a NetworkInfo,
    lattice: Option<Lattice>,
    count: ParamCount,
    cost: CostModel,
    values: Vec<(String, &'a Value)>,
    native: Option<Native>,
}

/// The compiled network in single precision at initial parameters; or why there is
/// none.
struct Native(Result<Compiled, String>);

struct Compiled {
    /// What a thread works in, by entry point.
    memory: Vec<(&'static str, Room)>,
    /// Bytes of what depends on parameters alone.
    constants: usize,
    /// Bytes of a sample's gradient where the optimiser keeps it.
    row: usize,
    /// Ratios of clusters.
    ratios: LocalUpdates,
    /// All single flips of a configuration: the cheaper way.
    flips: &'static str,
    /// Sequential sweeps: how, and why there are no environments.
    sweeps: (&'static str, Option<String>),
}

impl Native {
    fn new(info: &NetworkInfo, lattice: Lattice) -> Native {
        let lowered = pipeline::graph(info);
        let params = initialise(info, &lowered, lattice, 1).map_err(|e| e.to_string());
        let network = params.and_then(|params| {
            let graph = pipeline::amplitude(&lowered);
            CpuNetwork::<f32>::new(graph, lattice, &params.flat()).map_err(|e| e.to_string())
        });
        let tasks = [
            ("log_psi", Task::LogPsi),
            ("gradient", Task::Gradient),
            ("single_flips", Task::Flips),
        ];
        Native(network.map(|network| {
            let sweep = network.environments().is_ok();
            let sweep = sweep.then_some(("sweep", Task::Sweep));
            let parts = if network.is_complex() { 2 } else { 1 };
            Compiled {
                memory: (tasks.into_iter().chain(sweep))
                    .filter_map(|(name, task)| Some((name, network.room(task)?)))
                    .collect(),
                constants: network.constant_bytes(),
                row: 8 * parts * network.param_count(),
                ratios: network.local_updates(),
                flips: network.strategy(Task::Flips).name,
                sweeps: match (network.environments(), network.sweeps_by_environments()) {
                    (Ok(_), true) => ("environments", None),
                    (Ok(_), false) => ("full evaluation, less work than environments", None),
                    (Err(e), _) => ("full evaluation", Some(e.to_string())),
                },
            }
        }))
    }

    fn text(&self) -> String {
        let mut t = String::new();
        let code = match &self.0 {
            Ok(code) => code,
            Err(why) => return format!("\nno native code on the CPU: {why}\n"),
        };
        let _ = writeln!(t, "\nworking memory per thread on the CPU (32 bit):");
        for (name, room) in &code.memory {
            let bytes = in_units(room.bytes);
            let _ = writeln!(t, "  {name:12}  {bytes:>9}  for {} at a time", room.samples);
        }
        let (constants, row) = (in_units(code.constants), in_units(code.row));
        let _ = writeln!(
            t,
            "and for all threads together:\n  constants     {constants:>9}\n  \
             gradients     {row:>9}  per sample, kept by the optimiser while there is room"
        );
        let (sweeps, why) = &code.sweeps;
        let why = (why.as_ref()).map_or(String::new(), |w| format!(" because of {w}"));
        let _ = writeln!(
            t,
            "\nlocal changes on the CPU:\n  ratios of clusters   {}\n  all single flips     {}\n  \
             sequential sweeps    {sweeps}{why}\n  by the costs of      {}",
            code.ratios,
            code.flips,
            costs::in_force()
        );
        t
    }

    fn json(&self) -> Json {
        match &self.0 {
            Err(why) => json!({ "refused": why }),
            Ok(code) => json!({
                "ratios": code.ratios.to_string(), "single_flips": code.flips,
                "sweeps": code.sweeps.0, "no_environments": code.sweeps.1,
                "costs": costs::in_force(),
            }),
        }
    }

    fn memory(&self) -> Json {
        let rooms = self.0.iter().flat_map(|code| &code.memory);
        let rooms = rooms.map(|(name, r)| {
            let room = json!({"samples": r.samples, "bytes": r.bytes});
            (name.to_string(), room)
        });
        let shared = self.0.iter().flat_map(|code| {
            let bytes = |n: usize| json!({ "bytes": n });
            [
                ("constants".to_owned(), bytes(code.constants)),
                ("gradient_row".to_owned(), bytes(code.row)),
            ]
        });
        rooms.chain(shared).collect()
    }
}

fn static_json(s: Static) -> Json {
    match s {
        Static::Int(k) => json!(k),
        Static::Real(x) => json!(x),
        Static::Bool(b) => json!(b),
    }
}

/// Tokens whose value changes when one spin flips: offsets per axis from the
/// flipped token, the widest over the spin's position in its token.
fn support(v: &Value, axes: usize) -> Option<Vec<(i64, i64)>> {
    let (Kind::Local(w), Place::Site(token)) = (v.kind, v.ty.place) else {
        return None;
    };
    Some(
        (0..axes)
            .map(|axis| {
                (0..token.0[axis])
                    .map(|inside| w.support(token, axis, inside))
                    .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
                    .unwrap_or((0, 0))
            })
            .collect(),
    )
}

fn support_text(s: &[(i64, i64)]) -> String {
    let count: i64 = s.iter().map(|(a, b)| b - a + 1).product();
    let ranges: Vec<String> = s.iter().map(|(a, b)| format!("{a}..={b}")).collect();
    format!("{count} ({})", ranges.join(" x "))
}

impl<'a> View<'a> {
    fn new(info: &'a NetworkInfo, lattice: Option<Lattice>, all: bool) -> Self {
        let mut values: Vec<(String, &Value)> = info
            .bindings
            .iter()
            .map(|(name, id)| (name.clone(), info.value(*id)))
            .collect();
        values.push(("log_psi".to_owned(), info.value(info.log_psi)));
        if all {
            let intermediate = |(k, v): (usize, &'a Value)| {
                let name = v.name.clone().unwrap_or_else(|| format!("%{k}"));
                (!matches!(v.op, CoreOp::Param(_))).then_some((name, v))
            };
            values = info
                .values
                .iter()
                .enumerate()
                .filter_map(intermediate)
                .collect();
        }
        View {
            info,
            lattice,
            count: ParamCount::of(info),
            cost: CostModel::new(
                &pipeline::amplitude(&pipeline::graph(info)),
                &Cluster::single(),
                lattice.map_or(Boundary::Periodic, |l| l.boundary),
            ),
            native: lattice.map(|l| Native::new(info, l)),
            values,
        }
    }

    fn axes(&self) -> usize {
        if self.info.lattice == LatticeKind::Chain {
            1
        } else {
            2
        }
    }

    fn total(&self) -> Option<usize> {
        match self.lattice {
            Some(l) => self.count.at(l),
            None => self.count.constant(),
        }
    }

    fn text(&self, file: &str) -> String {
        let info = self.info;
        let mut t = String::new();
        let full = if info.full { "full network" } else { "network" };
        let lattice = if self.axes() == 1 {
            "chain"
        } else {
            "square lattice"
        };
        let _ = writeln!(t, "{full} {} on a {lattice}  ({file})", info.name);
        let hyper: Vec<String> = info
            .hyper
            .iter()
            .map(|(k, v)| format!("{k} = {}", static_json(*v)))
            .collect();
        if !hyper.is_empty() {
            let _ = writeln!(t, "  {}", hyper.join(", "));
        }
        let out = info.value(info.log_psi);
        let _ = writeln!(t, "  log_psi: {}", show_type(&out.ty));
        let total = self
            .total()
            .map_or_else(|| self.count.to_string(), |n| n.to_string());
        let _ = writeln!(t, "\nparameters: {total}");
        let width = info.params.iter().map(|p| p.path.len()).max().unwrap_or(0);
        for p in &info.params {
            let _ = writeln!(
                t,
                "  {:width$}  {:18}  {:>8}  {}",
                p.path,
                show_type(&p.ty),
                ParamCount::of_type(&p.ty).to_string(),
                p.init_text
            );
        }
        if !info.mixers.is_empty() {
            let _ = writeln!(t, "\nmixers: {}", info.mixers.len());
            for m in &info.mixers {
                let input = info.value(m.input);
                let _ = writeln!(
                    t,
                    "  {:20} {:12} {} {}",
                    m.name,
                    class_name(m.class),
                    show_kind(input.kind, input.ty.place, info.lattice),
                    show_type(&input.ty)
                );
            }
        }
        let _ = writeln!(t, "\nvalues (tokens that change when one spin flips):");
        let width = self.values.iter().map(|(n, _)| n.len()).max().unwrap_or(0);
        for (name, v) in &self.values {
            let s = support(v, self.axes()).map_or(String::new(), |s| support_text(&s));
            let kind = show_kind(v.kind, v.ty.place, info.lattice);
            let line = format!("  {name:width$}  {kind:16}  {:32}  {s}", show_type(&v.ty));
            let _ = writeln!(t, "{}", line.trim_end());
        }
        let _ = writeln!(
            t,
            "\ncost of one configuration or single-spin update (N spins, 32 bit):"
        );
        for line in self.cost.to_string().lines() {
            let _ = writeln!(t, "  {line}");
        }
        if let Some(l) = self.lattice {
            let choice = self.cost.choose(l.sites());
            let _ = writeln!(
                t,
                "\nat {} sites: tokens and windows fit; cheapest update by {}: {} multiply-adds, full evaluation {}",
                l.sites(),
                choice.method,
                number(choice.operations),
                number(choice.full)
            );
        }
        if let Some(native) = &self.native {
            t += &native.text();
        }
        t.push('\n');
        t
    }

    fn json(&self) -> Json {
        let info = self.info;
        let hyper: serde_json::Map<String, Json> = info
            .hyper
            .iter()
            .map(|(k, v)| (k.clone(), static_json(*v)))
            .collect();
        let kind = |v: &Value| match v.kind {
            Kind::Const => "const",
            Kind::Local(_) => "local",
            Kind::Linear { .. } => "linear",
            Kind::Pooled => "pooled",
            Kind::Global { .. } => "global",
        };
        let values: Vec<Json> = self
            .values
            .iter()
            .map(|(name, v)| {
                let token = match v.ty.place {
                    Place::Site(Token(t)) => Some(t[..self.axes()].to_vec()),
                    _ => None,
                };
                let window = match v.kind {
                    Kind::Local(w) => Some((0..self.axes()).map(|a| (w.lo[a], w.hi[a])).collect::<Vec<_>>()),
                    _ => None,
                };
                json!({
                    "name": name, "kind": kind(v), "shape": show_shape(&v.ty.shape), "type": show_type(&v.ty),
                    "token": token, "window_spins": window, "support_tokens": support(v, self.axes()),
                })
            })
            .collect();
        json!({
            "item": "network", "name": info.name, "full": info.full,
            "lattice": if self.axes() == 1 { "chain" } else { "square" },
            "hyperparameters": hyper,
            "sites": self.lattice.map(|l| l.sites()),
            "log_psi": show_type(&info.value(info.log_psi).ty),
            "parameters": {
                "total": self.total(),
                "formula": self.count.to_string(),
                "list": info.params.iter().map(|p| json!({
                    "path": p.path, "type": show_type(&p.ty), "shape": show_shape(&p.ty.shape),
                    "count": self.lattice.map_or_else(|| ParamCount::of_type(&p.ty).constant(), |l| ParamCount::of_type(&p.ty).at(l)),
                    "formula": ParamCount::of_type(&p.ty).to_string(), "init": p.init_text,
                })).collect::<Vec<_>>(),
            },
            "mixers": info.mixers.iter().map(|m| json!({
                "name": m.name, "class": class_name(m.class),
                "input": show_type(&info.value(m.input).ty),
                "input_kind": kind(info.value(m.input)),
            })).collect::<Vec<_>>(),
            "values": values,
            "memory": self.native.as_ref().map(Native::memory),
            "cost": self.cost_json(),
            "native": self.native.as_ref().map(Native::json),
        })
    }

    fn cost_json(&self) -> Json {
        let n = self.lattice.map(|l| l.sites() as f64);
        let one = |c: &Cost| {
            json!({
                "operations": c.operations.to_string(), "bytes": c.bytes.to_string(),
                "operations_at": n.map(|n| c.operations.at(n)), "bytes_at": n.map(|n| c.bytes.at(n)),
            })
        };
        let update = |c: &UpdateCost| {
            json!({
                "build": one(&c.build), "update": one(&c.update), "cache_bytes": c.cache.to_string(),
                "cache_bytes_at": n.map(|n| c.cache.at(n)),
            })
        };
        json!({
            "full": one(&self.cost.full),
            "links": self.cost.links.as_ref().map(update),
            "environments": self.cost.environments.as_ref().map(update),
            "update_class": self.cost.update_class(),
            "crossover_sites": self.cost.crossover(),
            "choice": self.lattice.map(|l| self.cost.choose(l.sites()).method.to_string()),
        })
    }
}
