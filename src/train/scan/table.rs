//! The results of a scan, as rows.

use super::super::TrainError;
use super::grid::{Axis, AxisKind, Grid, Point, text};
use crate::check::core::Static;
use crate::vmc::log::write_atomically;
use crate::vmc::plot::{Curve, Figure, PlotError, Scale};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::path::Path;

/// Columns taken from the result of a point: name and place in `result.json`.
const COLUMNS: [(&str, &str); 24] = [
    ("size", "/sites"),
    ("energy", "/energy"),
    ("energy_error", "/energy_error"),
    ("energy_per_site", "/energy_per_site"),
    ("variance", "/variance"),
    ("v_score", "/v_score"),
    ("exact_energy", "/exact/energy"),
    ("relative_error", "/relative_error"),
    ("relative_error_error", "/relative_error_error"),
    ("m_abs", "/magnetisation/abs/mean"),
    ("m_abs_error", "/magnetisation/abs/error"),
    ("m2", "/magnetisation/m2/mean"),
    ("m2_error", "/magnetisation/m2/error"),
    ("binder", "/magnetisation/binder"),
    ("binder_error", "/magnetisation/binder_error"),
    ("staggered_m_abs", "/staggered_magnetisation/abs/mean"),
    (
        "staggered_m_abs_error",
        "/staggered_magnetisation/abs/error",
    ),
    ("staggered_m2", "/staggered_magnetisation/m2/mean"),
    ("staggered_m2_error", "/staggered_magnetisation/m2/error"),
    ("staggered_binder", "/staggered_magnetisation/binder"),
    (
        "staggered_binder_error",
        "/staggered_magnetisation/binder_error",
    ),
    ("r_hat", "/r_hat"),
    ("tau", "/tau"),
    ("acceptance", "/acceptance"),
];

/// Curves of one plot that can still be told apart.
const MAX_CURVES: usize = 10;

/// One point.
#[derive(Clone, Debug)]
pub struct Row {
    point: Point,
    /// `result.json`; null where the optimisation failed.
    result: Value,
    /// Why it failed.
    failure: Option<String>,
}

impl Row {
    pub(super) fn finished(point: &Point, result: Value) -> Row {
        Row {
            point: point.clone(),
            result,
            failure: None,
        }
    }

    pub(super) fn failed(point: &Point, why: &str) -> Row {
        Row {
            point: point.clone(),
            result: Value::Null,
            failure: Some(why.to_owned()),
        }
    }

    /// A number of the result.
    fn number(&self, column: &str) -> Option<f64> {
        let (_, place) = COLUMNS.iter().find(|c| c.0 == column)?;
        self.result.pointer(place)?.as_f64()
    }
}

/// Rows in the order of the grid.
#[derive(Clone, Debug)]
pub struct Table {
    axes: Vec<Axis>,
    samples: usize,
    pub(super) rows: Vec<Row>,
}

impl Table {
    pub(super) fn new(grid: &Grid, samples: usize) -> Table {
        Table {
            axes: grid.axes.clone(),
            samples,
            rows: Vec::new(),
        }
    }

    /// Rows so far.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Points whose optimisation failed.
    pub fn failures(&self) -> usize {
        self.rows.iter().filter(|r| r.failure.is_some()).count()
    }

    /// One object with the axes and a list of points; numbers that do not exist
    /// are null.
    pub fn json(&self) -> Value {
        let points = self.rows.iter().map(|row| {
            let mut entry = Map::new();
            for (axis, &value) in self.axes.iter().zip(&row.point.values) {
                entry.insert(axis.name.clone(), json!(value));
            }
            entry.insert(
                "directory".into(),
                json!(format!("points/{}", row.point.directory)),
            );
            entry.insert("failure".into(), json!(row.failure));
            for (name, place) in COLUMNS {
                let value = row.result.pointer(place).cloned();
                entry.insert(name.into(), value.unwrap_or(Value::Null));
            }
            Value::Object(entry)
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "convention": self.rows.iter().find_map(|r| r.result.get("convention")),
            "samples": self.samples,
            "axes": self.axes,
            "points": points.collect::<Vec<Value>>(),
        })
    }

    /// Comma-separated values with a header; fields without a number are empty.
    /// Points that failed are left out.
    pub fn csv(&self) -> String {
        // the size is always there, under one name
        let axes: Vec<usize> = (0..self.axes.len())
            .filter(|&k| self.axes[k].kind != AxisKind::Sites)
            .collect();
        let mut header: Vec<&str> = axes.iter().map(|&k| self.axes[k].name.as_str()).collect();
        header.extend(COLUMNS.map(|c| c.0));
        let mut t = header.join(",") + "\n";
        for row in self.rows.iter().filter(|r| r.failure.is_none()) {
            let mut fields: Vec<String> = axes.iter().map(|&k| text(row.point.values[k])).collect();
            fields.extend(
                COLUMNS.map(|(name, _)| row.number(name).map_or(String::new(), |x| x.to_string())),
            );
            t += &(fields.join(",") + "\n");
        }
        t
    }

    /// For people.
    pub fn text(&self) -> String {
        let width = |k: usize| {
            let values = self.axes[k].values.iter().map(|&v| text(v).len());
            values.max().unwrap_or(0).max(self.axes[k].name.len())
        };
        let widths: Vec<usize> = (0..self.axes.len()).map(width).collect();
        let mut t = String::new();
        for (axis, w) in self.axes.iter().zip(&widths) {
            let _ = write!(t, "{:>w$}  ", axis.name);
        }
        let _ = writeln!(
            t,
            "{:>16} {:>8}  {:>16}  {:>9}  {:>9}",
            "energy", "error", "(E - E0) / |E0|", "V-score", "<m^2>"
        );
        for row in &self.rows {
            for (value, w) in row.point.values.iter().zip(&widths) {
                let _ = write!(t, "{:>w$}  ", text(*value));
            }
            if let Some(why) = &row.failure {
                let _ = writeln!(t, "failed: {why}");
                continue;
            }
            let show =
                |name: &str, form: fn(f64) -> String| row.number(name).map_or("-".to_owned(), form);
            let _ = writeln!(
                t,
                "{:>16} {:>8}  {:>16}  {:>9}  {:>9}",
                show("energy", |x| format!("{x:.8}")),
                show("energy_error", |x| format!("{x:.1e}")),
                show("relative_error", |x| format!("{x:.1e}")),
                show("v_score", |x| format!("{x:.1e}")),
                show("m2", |x| format!("{x:.6}")),
            );
        }
        t
    }

    /// `results.json` and `results.csv`.
    pub(super) fn write(&self, directory: &Path) -> Result<(), TrainError> {
        // Plain numbers, texts and maps with text keys always serialise.
        let json = serde_json::to_string_pretty(&self.json()).unwrap_or_default() + "\n";
        super::write(&directory.join("results.json"), &json)?;
        super::write(&directory.join("results.csv"), &self.csv())
    }

    /// Plots against the fastest axis of numbers, a curve for every combination
    /// of the others; returns what was not drawn.
    pub(super) fn plots(&self, directory: &Path) -> Result<Vec<String>, TrainError> {
        let numeric = |a: &Axis| {
            let reals = a.values.iter().all(|v| number(*v).is_some());
            reals && a.values.len() > 1 && a.kind != AxisKind::Seed
        };
        let Some(x) = (0..self.axes.len()).rev().find(|&k| numeric(&self.axes[k])) else {
            return Ok(Vec::new());
        };
        let curves = self.curves(x);
        if curves.len() > MAX_CURVES {
            return Ok(vec![format!(
                "no plots: {} curves in one are too many; results.csv has all numbers",
                curves.len()
            )]);
        }
        let mut undrawn = Vec::new();
        for (file, title, y, error, scale) in [
            (
                "energy.svg",
                "Energy per site",
                "energy_per_site",
                None,
                Scale::Linear,
            ),
            (
                "error.svg",
                "Relative error of the energy",
                "relative_error",
                Some("relative_error_error"),
                Scale::Log,
            ),
            (
                "m2.svg",
                "Magnetisation squared",
                "m2",
                Some("m2_error"),
                Scale::Linear,
            ),
        ] {
            let curves = curves.iter().map(|(label, rows)| Curve {
                label,
                points: rows.iter().filter_map(|r| point(r, x, y, error)).collect(),
                line: false,
            });
            let figure = Figure {
                title,
                x_label: &self.axes[x].name,
                y_label: y,
                x_scale: Scale::Linear,
                y_scale: scale,
                reference: None,
                curves: curves.collect(),
            };
            let path = directory.join(file);
            match figure.svg() {
                Ok(svg) => write_atomically(&path, svg.as_bytes())
                    .map_err(|e| TrainError::io("write", &path, &e))?,
                // no exact energies, no plot of errors
                Err(PlotError::Empty(_)) if y == "relative_error" => {}
                Err(e) => undrawn.push(format!("no {file}: {e}")),
            }
        }
        Ok(undrawn)
    }

    /// Rows with the same values on all axes but `x`, and those values.
    fn curves(&self, x: usize) -> Vec<(String, Vec<&Row>)> {
        let mut curves: Vec<(String, Vec<&Row>)> = Vec::new();
        for row in self.rows.iter().filter(|r| r.failure.is_none()) {
            let others = (0..self.axes.len()).filter(|&k| k != x);
            let parts: Vec<String> = others
                .map(|k| format!("{} = {}", self.axes[k].name, text(row.point.values[k])))
                .collect();
            let label = parts.join(", ");
            match curves.iter_mut().find(|c| c.0 == label) {
                Some(curve) => curve.1.push(row),
                None => curves.push((label, vec![row])),
            }
        }
        curves
    }
}

fn number(value: Static) -> Option<f64> {
    match value {
        Static::Int(x) => Some(x as f64),
        Static::Real(x) => Some(x),
        Static::Bool(_) => None,
    }
}

fn point(row: &Row, x: usize, y: &str, error: Option<&str>) -> Option<(f64, f64, f64)> {
    let error = error.and_then(|e| row.number(e)).unwrap_or(0.0);
    Some((number(row.point.values[x])?, row.number(y)?, error))
}
