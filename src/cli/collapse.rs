//! `dnetc collapse`

use super::common::{CliError, Ui, print};
use super::model::deliver;
use crate::vmc::collapse::{Collapse, Exponents, Point, fit, guess};
use crate::vmc::plot::{Curve, Figure, Scale};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Arguments of `collapse`.
#[derive(clap::Args)]
#[command(
    after_help = "The data are rows of size, control parameter, observable and its standard error:\n  \
size,x,y,error\n  32,-2.90,0.412,0.003\nor, as JSON, a list of such objects."
)]
pub struct Args {
    /// Data: a .csv file or a .json list of objects
    data: PathBuf,
    /// Names of the four columns
    #[arg(
        long,
        value_name = "SIZE,X,Y,ERROR",
        default_value = "size,x,y,error",
        value_delimiter = ','
    )]
    columns: Vec<String>,
    /// Power of the order parameter the data hold: 1 for |m|, 2 for m^2
    #[arg(long, default_value_t = 2.0, allow_negative_numbers = true)]
    power: f64,
    /// Start the fit at this critical point
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    critical: Option<f64>,
    /// Start the fit at this exponent nu
    #[arg(long, value_name = "NU")]
    nu: Option<f64>,
    /// Start the fit at this exponent beta
    #[arg(long, value_name = "BETA")]
    beta: Option<f64>,
    /// Number of bootstrap refits
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(2..))]
    resamples: u16,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write a plot of the collapsed data (SVG)
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write the result to a file instead
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Fits and reports.
pub fn run(args: &Args, ui: &Ui) -> Result<(), CliError> {
    let [size, x, y, error] = &args.columns[..] else {
        return Err(CliError::new(
            format!("--columns names {} columns", args.columns.len()),
            "four are needed: size, control parameter, observable, error",
        ));
    };
    if !(args.power.is_finite() && args.power > 0.0) {
        return Err(CliError::new(
            format!("--power {} is not positive", args.power),
            "1 for |m|, 2 for m^2",
        ));
    }
    let points = read(&args.data, [size, x, y, error])?;
    let Some(found) = guess(&points, args.power, [args.critical, args.nu, args.beta]) else {
        return Err(CliError::new(
            "no start makes the curves of different sizes overlap",
            "the control parameters of different sizes must cover the same range; or give --critical, --nu and --beta",
        ));
    };
    let fitted = fit(
        &points,
        args.power,
        found,
        usize::from(args.resamples),
        args.seed,
    )
    .map_err(|e| {
        CliError::new(
            e.to_string(),
            format!(
                "{} usable rows were read from `{}`",
                points.len(),
                args.data.display()
            ),
        )
    })?;
    if let Some(path) = &args.plot {
        plot(&points, &fitted, args.power, path)?;
    }
    let text = if args.json || ui.json() {
        let triple = |e: Exponents| json!({"critical": e.critical, "nu": e.nu, "beta": e.beta});
        let value = json!({
            "points": points.len(), "power": args.power,
            "best": triple(fitted.best), "quality": fitted.quality,
            "bootstrap_error": triple(fitted.bootstrap), "jackknife_error": triple(fitted.jackknife),
        });
        serde_json::to_string_pretty(&value).map_err(|e| CliError::plain(e.to_string()))? + "\n"
    } else {
        report(&points, &fitted)
    };
    match &args.output {
        Some(path) => deliver(Some(path), &text),
        None => print(&text),
    }
}

fn report(points: &[Point], c: &Collapse) -> String {
    let mut sizes: Vec<f64> = points.iter().map(|p| p.size).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let sizes: Vec<String> = sizes.iter().map(f64::to_string).collect();
    let mut t = format!(
        "collapse of {} points, sizes {}\n\n",
        points.len(),
        sizes.join(", ")
    );
    t += &format!(
        "{:16}{:>12}  {:>12}  {:>12}\n",
        "", "value", "bootstrap", "jackknife"
    );
    for (name, value, bootstrap, jackknife) in [
        (
            "critical point",
            c.best.critical,
            c.bootstrap.critical,
            c.jackknife.critical,
        ),
        ("nu", c.best.nu, c.bootstrap.nu, c.jackknife.nu),
        ("beta", c.best.beta, c.bootstrap.beta, c.jackknife.beta),
    ] {
        t += &format!("{name:16}{value:>12.6}  {bootstrap:>12.6}  {jackknife:>12.6}\n");
    }
    t + &format!(
        "{:16}{:>12.3}   (about 1 is good)\n",
        "quality S", c.quality
    )
}

fn plot(points: &[Point], fitted: &Collapse, power: f64, path: &Path) -> Result<(), CliError> {
    let Exponents { critical, nu, beta } = fitted.best;
    let mut sizes: Vec<f64> = points.iter().map(|p| p.size).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let labels: Vec<String> = sizes.iter().map(|l| format!("L = {l}")).collect();
    let title = format!("Collapse: critical point {critical:.4}, nu {nu:.3}, beta {beta:.3}");
    let curves = sizes.iter().zip(&labels).map(|(&size, label)| {
        let scale = size.powf(power * beta / nu);
        let scaled = |p: &Point| {
            (
                (p.x - critical) * size.powf(1.0 / nu),
                p.y * scale,
                p.error * scale,
            )
        };
        Curve {
            label,
            points: points
                .iter()
                .filter(|p| p.size == size)
                .map(scaled)
                .collect(),
            line: false,
        }
    });
    Figure {
        title: &title,
        x_label: "(x - x_c) L^(1/nu)",
        y_label: "y L^(power beta / nu)",
        x_scale: Scale::Linear,
        y_scale: Scale::Linear,
        reference: None,
        curves: curves.collect(),
    }
    .write(path)
    .map_err(|e| {
        CliError::new(
            format!("cannot write `{}`: {e}", path.display()),
            "check the path",
        )
    })
}

/// Reads the rows of a .csv or .json file.
fn read(path: &Path, columns: [&str; 4]) -> Result<Vec<Point>, CliError> {
    let text = std::fs::read_to_string(path).map_err(|e| CliError::io("read", path, &e))?;
    let rows = if path.extension().is_some_and(|e| e == "json") {
        from_json(&text, columns)
    } else {
        from_csv(&text, columns)
    };
    let rows = rows.map_err(|why| {
        CliError::new(
            format!("`{}`: {why}", path.display()),
            format!(
                "the data need the columns {}; name yours with --columns",
                columns.join(", ")
            ),
        )
    })?;
    Ok(rows
        .into_iter()
        .map(|[size, x, y, error]| Point { size, x, y, error })
        .collect())
}

fn from_json(text: &str, columns: [&str; 4]) -> Result<Vec<[f64; 4]>, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let rows = value.as_array().ok_or("expected a list of objects")?;
    rows.iter()
        .enumerate()
        .map(|(k, row)| {
            let mut out = [0.0; 4];
            for (slot, name) in out.iter_mut().zip(columns) {
                *slot = row
                    .get(name)
                    .and_then(|v| v.as_f64())
                    .ok_or_else(|| format!("entry {k} has no number `{name}`"))?;
            }
            Ok(out)
        })
        .collect()
}

/// Comma-separated values with a header; lines that are empty or begin with
/// `#` are skipped.
fn from_csv(text: &str, columns: [&str; 4]) -> Result<Vec<[f64; 4]>, String> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(k, line)| (k + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let (_, header) = lines.next().ok_or("the file is empty")?;
    let header: Vec<&str> = header
        .split(',')
        .map(|h| h.trim().trim_matches('"'))
        .collect();
    let mut places = [0; 4];
    for (place, name) in places.iter_mut().zip(columns) {
        *place = header
            .iter()
            .position(|h| *h == name)
            .ok_or_else(|| format!("the header has no column `{name}`"))?;
    }
    lines
        .map(|(number, line)| {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            let mut row = [0.0; 4];
            for (slot, place) in row.iter_mut().zip(places) {
                let field = fields
                    .get(place)
                    .ok_or_else(|| format!("line {number} has {} fields", fields.len()))?;
                *slot = field
                    .parse()
                    .map_err(|_| format!("line {number}: `{field}` is not a number"))?;
            }
            Ok(row)
        })
        .collect()
}
