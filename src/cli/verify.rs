//! `dnetc verify`

use super::common::{
    BoundaryArg, CliError, LatticeArgs, NetworkArgs, Ui, check_lattice, parse_sites, print,
};
use crate::check::core::NetworkInfo;
use crate::ir::{Boundary, Lattice};
use crate::run::network::{Backend, Precision};
use crate::verify::backend::compare;
use crate::verify::{Options, Report, VerifyError, cases, verify};
use serde_json::json;

/// Arguments of `verify`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    /// Verify on this lattice only; on a square lattice `LX,LY` [default: several sizes]
    #[arg(long, value_name = "N", value_parser = parse_sites)]
    sites: Option<[usize; 2]>,
    /// Verify on this boundary only [default: all the network supports]
    #[arg(long, value_enum)]
    boundary: Option<BoundaryArg>,
    /// Seed of parameters, configurations and clusters
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Parameters and configurations per lattice
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// Compare a back end with the reference interpreter instead
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    /// Working precision of the back end
    #[arg(long, value_enum, default_value_t = Precision::F64, requires = "backend")]
    precision: Precision,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

/// Checks everything derived for a network against full evaluation.
pub fn run(args: &Args, ui: &Ui) -> Result<(), CliError> {
    let (program, info) = args.network.check(ui)?;
    let fits = |l: Lattice| check_lattice(&program, &info, l).is_ok();
    let boundaries: &[BoundaryArg] = match args.boundary {
        Some(BoundaryArg::Periodic) => &[BoundaryArg::Periodic],
        Some(BoundaryArg::Open) => &[BoundaryArg::Open],
        None => &[BoundaryArg::Periodic, BoundaryArg::Open],
    };
    let lattices: Vec<Lattice> = if args.sites.is_some() {
        let mut all = vec![];
        for &boundary in boundaries {
            let wanted = LatticeArgs {
                sites: args.sites,
                boundary,
            };
            all.extend(wanted.lattice(info.lattice)?);
        }
        // Without a boundary given, those the network does not support are left out.
        if args.boundary.is_some() || !all.iter().any(|&l| fits(l)) {
            all.iter()
                .try_for_each(|&l| check_lattice(&program, &info, l))?;
        }
        all.retain(|&l| fits(l));
        all
    } else {
        let wanted = |b: Boundary| match args.boundary {
            None => true,
            Some(BoundaryArg::Periodic) => b == Boundary::Periodic,
            Some(BoundaryArg::Open) => b == Boundary::Open,
        };
        let mut all = cases::lattices(&info, &fits);
        all.retain(|l| wanted(l.boundary));
        all
    };
    if lattices.is_empty() {
        return Err(CliError::new(
            format!("no small lattice fits network `{}`", info.name),
            "choose one: `--sites N --boundary periodic`",
        ));
    }
    if let Some(backend) = args.backend {
        return run_backend(args, &info, &lattices, backend);
    }
    let options = Options {
        seed: args.seed,
        samples: args.samples as usize,
    };
    let report = verify(&info, &lattices, &options).map_err(|e| match e {
        VerifyError::Reverse(e) => CliError::plain(format!("internal error: no gradient: {e}")),
        e => CliError::plain(e.to_string()),
    })?;
    print(&if args.json {
        format!("{:#}\n", to_json(&info.name, &lattices, &report))
    } else {
        format!("network {} on {}\n{report}", info.name, show(&lattices))
    })?;
    if report.passed() {
        return Ok(());
    }
    Err(CliError::new(
        format!(
            "internal error: what was derived for network `{}` is wrong",
            info.name
        ),
        "do not use its updates and gradients; please report the source file and the lines above",
    ))
}

/// Compares a back end with the reference interpreter.
fn run_backend(
    args: &Args,
    info: &NetworkInfo,
    lattices: &[Lattice],
    backend: Backend,
) -> Result<(), CliError> {
    let mut failed = false;
    for &lattice in lattices {
        let rows = compare(info, lattice, args.seed, backend, args.precision)
            .map_err(|e| CliError::plain(e.to_string()))?;
        failed |= rows.iter().any(|r| !r.passed());
        let place = show(&[lattice]);
        let mut text = String::new();
        for r in &rows {
            let verdict = if r.passed() { "ok" } else { "FAILED" };
            text += &if args.json {
                format!(
                    "{}\n",
                    json!({"network": info.name, "lattice": place, "what": r.what,
                        "error": r.error, "tolerance": r.tolerance, "passed": r.passed()})
                )
            } else {
                format!(
                    "{} on {place}: {:<28} {:.1e} (accepted {:.0e})  {verdict}\n",
                    info.name, r.what, r.error, r.tolerance
                )
            };
        }
        print(&text)?;
    }
    match failed {
        false => Ok(()),
        true => Err(CliError::new(
            format!(
                "the back end disagrees with the interpreter on network `{}`",
                info.name
            ),
            "do not use it for this network; please report the source file and the lines above",
        )),
    }
}

fn show(lattices: &[Lattice]) -> String {
    let one = |l: &Lattice| {
        let boundary = if l.boundary == Boundary::Periodic {
            "periodic"
        } else {
            "open"
        };
        match l.extent {
            [n, 1] => format!("{n} {boundary}"),
            [x, y] => format!("{x}x{y} {boundary}"),
        }
    };
    lattices.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn to_json(name: &str, lattices: &[Lattice], report: &Report) -> serde_json::Value {
    let lattices: Vec<_> = lattices
        .iter()
        .map(|l| json!({"extent": l.extent, "boundary": l.boundary}))
        .collect();
    json!({
        "network": name,
        "passed": report.passed(),
        "lattices": lattices,
        "checks": report.rows().collect::<Vec<_>>(),
        "contradictions": report.contradictions,
        "notes": report.notes,
    })
}
