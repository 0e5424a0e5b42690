//! The points of a scan and their order.

use super::super::{RunFile, Sites, TrainError};
use crate::check::core::Static;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most points of a grid.
const MAX_POINTS: usize = 100_000;

/// `[scan]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScanTable {
    /// Numbers of sites.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sites: Option<Values>,
    /// Seeds: independent runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds: Option<Values>,
    /// Names of the axes (`sites`, `seeds`, couplings, hyperparameters), the one
    /// that varies fastest last. By default seeds, hyperparameters, sites,
    /// couplings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<String>,
    /// Whether a point starts from the parameters of its neighbour in couplings
    /// or sites.
    pub warm: bool,
    /// Values of couplings.
    pub couplings: BTreeMap<String, Values>,
    /// Values of hyperparameters.
    pub hyperparameters: BTreeMap<String, Values>,
}

impl Default for ScanTable {
    fn default() -> Self {
        ScanTable {
            sites: None,
            seeds: None,
            order: Vec::new(),
            warm: true,
            couplings: BTreeMap::new(),
            hyperparameters: BTreeMap::new(),
        }
    }
}

/// The values on one axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a list like [1, 2, 4] or a range like { from = 0, to = 1, count = 11 }"
)]
pub enum Values {
    /// As they are.
    List(Vec<Static>),
    /// Evenly from one to the other, both included.
    Range(Range),
}

/// `{ from, to, count }`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The first value.
    pub from: f64,
    /// The last one.
    pub to: f64,
    /// How many.
    pub count: usize,
}

impl Values {
    /// One by one. Ranges are rounded to 12 digits, so that values read well;
    /// whole numbers are integers.
    fn list(&self) -> Vec<Static> {
        match self {
            Values::List(list) => list.clone(),
            Values::Range(Range { from, to, count }) => (0..*count)
                .map(|k| {
                    let t = k as f64 / (count - 1).max(1) as f64;
                    let exact = from + (to - from) * t;
                    let rounded: f64 = format!("{exact:.11e}").parse().unwrap_or(exact);
                    // what is left of a difference of equal numbers is zero
                    let noise = 1e-12 * from.abs().max(to.abs());
                    let value = if exact.abs() < noise { 0.0 } else { rounded };
                    if value.fract() == 0.0 && value.abs() < 1e15 {
                        Static::Int(value as i64)
                    } else {
                        Static::Real(value)
                    }
                })
                .collect(),
        }
    }
}

/// What an axis changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AxisKind {
    /// The seed of parameters and chains.
    Seed,
    /// A hyperparameter of the network.
    Hyperparameter,
    /// The number of sites.
    Sites,
    /// A coupling of the operator.
    Coupling,
}

/// One axis of the grid.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Axis {
    /// `sites`, `seed`, or the name of a coupling or hyperparameter.
    pub name: String,
    /// What it changes.
    pub kind: AxisKind,
    /// Its values.
    pub values: Vec<Static>,
}

/// A point of the grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Position on every axis, the slowest first.
    pub digits: Vec<usize>,
    /// Its value on every axis.
    pub values: Vec<Static>,
    /// For people, e.g. `J=0.5, sites=16`.
    pub label: String,
    /// Name of its directory, e.g. `003-J=0.5-sites=16`.
    pub directory: String,
}

/// All points, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Axes, the one that varies fastest last.
    pub axes: Vec<Axis>,
    warm: bool,
}

/// A value as it is written.
pub(super) fn text(value: Static) -> String {
    match value {
        Static::Int(x) => x.to_string(),
        Static::Real(x) => x.to_string(),
        Static::Bool(x) => x.to_string(),
    }
}

fn bad(what: String, help: &str) -> TrainError {
    TrainError::new(what, help)
}

impl Grid {
    /// The grid a `[scan]` table describes.
    ///
    /// # Errors
    /// No axis, an axis without values, counts that are no counts, an order that
    /// does not name every axis once.
    pub fn new(table: &ScanTable) -> Result<Grid, TrainError> {
        let axis = |name: &str, kind, values: &Values| Axis {
            name: name.to_owned(),
            kind,
            values: values.list(),
        };
        let mut axes = Vec::new();
        axes.extend(table.seeds.iter().map(|v| axis("seed", AxisKind::Seed, v)));
        for (kind, named) in [
            (AxisKind::Hyperparameter, &table.hyperparameters),
            (AxisKind::Coupling, &table.couplings),
        ] {
            if kind == AxisKind::Coupling {
                axes.extend(
                    table
                        .sites
                        .iter()
                        .map(|v| axis("sites", AxisKind::Sites, v)),
                );
            }
            axes.extend(named.iter().map(|(name, v)| axis(name, kind, v)));
        }
        if axes.is_empty() {
            return Err(bad(
                "the [scan] table has no axis".into(),
                "give values of couplings, hyperparameters, sites or seeds, e.g. \
                 `couplings = { J = [0.5, 1.0] }`",
            ));
        }
        let total = axes
            .iter()
            .fold(1usize, |n, a| n.saturating_mul(a.values.len()));
        if total > MAX_POINTS {
            return Err(bad(
                format!("the grid has {total} points, at most {MAX_POINTS} are scanned"),
                "give fewer values",
            ));
        }
        axes.iter().try_for_each(check)?;
        let grid = Grid {
            axes: ordered(axes, &table.order)?,
            warm: table.warm,
        };
        Ok(grid)
    }

    /// All points in the order they are run.
    pub fn points(&self) -> Vec<Point> {
        let total = self.axes.iter().map(|a| a.values.len()).product();
        (0..total).map(|k| self.point(k)).collect()
    }

    fn point(&self, index: usize) -> Point {
        let mut digits = vec![0; self.axes.len()];
        let mut rest = index;
        for (digit, axis) in digits.iter_mut().zip(&self.axes).rev() {
            *digit = rest % axis.values.len();
            rest /= axis.values.len();
        }
        let values: Vec<Static> = self
            .axes
            .iter()
            .zip(&digits)
            .map(|(axis, &d)| axis.values[d])
            .collect();
        let parts: Vec<String> = self
            .axes
            .iter()
            .zip(&values)
            .map(|(axis, &v)| format!("{}={}", axis.name, text(v)))
            .collect();
        Point {
            label: parts.join(", "),
            directory: format!("{:03}-{}", index + 1, parts.join("-")),
            digits,
            values,
        }
    }

    fn index(&self, digits: &[usize]) -> usize {
        self.axes
            .iter()
            .zip(digits)
            .fold(0, |index, (axis, d)| index * axis.values.len() + d)
    }

    /// The point whose parameters this one starts from: one step back along the
    /// fastest coupling or size that is not at its first value. None at the
    /// first values, and where every point starts on its own.
    pub fn predecessor(&self, point: &Point) -> Option<Point> {
        let steps = |kind| matches!(kind, AxisKind::Coupling | AxisKind::Sites);
        let along = (0..self.axes.len())
            .rev()
            .find(|&a| steps(self.axes[a].kind) && point.digits[a] > 0)?;
        let mut digits = point.digits.clone();
        digits[along] -= 1;
        self.warm.then(|| self.point(self.index(&digits)))
    }

    /// Whether two points have different numbers of sites.
    pub fn sizes_differ(&self, a: &Point, b: &Point) -> bool {
        let sites = self.axes.iter().position(|x| x.kind == AxisKind::Sites);
        sites.is_some_and(|k| a.digits[k] != b.digits[k])
    }

    /// The run file of a point.
    pub fn run_at(&self, point: &Point, base: &RunFile) -> RunFile {
        let mut run = base.clone();
        run.scan = None;
        run.output.directory = None;
        for (axis, &value) in self.axes.iter().zip(&point.values) {
            let count = match value {
                Static::Int(x) => x.max(0) as u64,
                _ => 0,
            };
            match axis.kind {
                AxisKind::Seed => run.seed = count,
                AxisKind::Sites => run.lattice.sites = Some(Sites::Total(count as usize)),
                AxisKind::Coupling => {
                    run.operator.couplings.insert(axis.name.clone(), value);
                }
                AxisKind::Hyperparameter => {
                    run.network.hyperparameters.insert(axis.name.clone(), value);
                }
            }
        }
        run
    }
}

/// Values that can be told apart, and counts where counts are needed.
fn check(axis: &Axis) -> Result<(), TrainError> {
    let name = &axis.name;
    if axis.values.is_empty() {
        return Err(bad(
            format!("the axis `{name}` of [scan] has no values"),
            "list at least one, or leave it out",
        ));
    }
    let texts: Vec<String> = axis.values.iter().map(|&v| text(v)).collect();
    if let Some(k) = (0..texts.len()).find(|&k| texts[..k].contains(&texts[k])) {
        return Err(bad(
            format!(
                "the axis `{name}` of [scan] has the value {} twice",
                texts[k]
            ),
            "list it once",
        ));
    }
    let counts = matches!(axis.kind, AxisKind::Seed | AxisKind::Sites);
    let no_count = |v: &&Static| !matches!(v, Static::Int(x) if *x >= 0);
    match axis.values.iter().find(no_count) {
        Some(&v) if counts => Err(bad(
            format!(
                "`{}` on the axis `{name}` of [scan] is not a whole number",
                text(v)
            ),
            "give whole numbers of at least 0",
        )),
        _ => Ok(()),
    }
}

fn ordered(mut axes: Vec<Axis>, order: &[String]) -> Result<Vec<Axis>, TrainError> {
    let list = |axes: &[Axis]| {
        let names: Vec<&str> = axes.iter().map(|a| a.name.as_str()).collect();
        names.join(", ")
    };
    let twice = (0..axes.len()).find(|&k| axes[..k].iter().any(|a| a.name == axes[k].name));
    if let Some(k) = twice {
        return Err(bad(
            format!("[scan] has two axes called `{}`", axes[k].name),
            "rename the coupling or the hyperparameter",
        ));
    }
    if order.is_empty() {
        return Ok(axes);
    }
    let all = list(&axes);
    let mut sorted = Vec::with_capacity(axes.len());
    for name in order {
        let name = if name == "seeds" { "seed" } else { name };
        match axes.iter().position(|a| a.name == name) {
            Some(k) => sorted.push(axes.remove(k)),
            None => {
                return Err(bad(
                    format!("`scan.order` names `{name}`, which is no axis or named before"),
                    &format!("the axes are {all}"),
                ));
            }
        }
    }
    if axes.is_empty() {
        return Ok(sorted);
    }
    Err(bad(
        format!("`scan.order` leaves out {}", list(&axes)),
        "name every axis, the one that varies fastest last, or leave the key out",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(text: &str) -> Result<Grid, String> {
        let run = RunFile::parse(&format!("[scan]\n{text}"))?;
        Grid::new(&run.scan.unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn couplings_vary_fastest_and_points_follow_their_neighbours() {
        let g = grid(
            "seeds = [3, 4]\nsites = [8, 16]\n[scan.couplings]\n\
             J = { from = 0.1, to = 0.3, count = 3 }\nh = [1]\n",
        )
        .unwrap();
        let points = g.points();
        let labels: Vec<&str> = points.iter().map(|p| p.label.as_str()).collect();
        assert_eq!(labels.len(), 12);
        assert_eq!(labels[0], "seed=3, sites=8, J=0.1, h=1");
        assert_eq!(labels[1], "seed=3, sites=8, J=0.2, h=1");
        assert_eq!(points[4].directory, "005-seed=3-sites=16-J=0.2-h=1");
        let before = |k: usize| g.predecessor(&points[k]).map(|p| p.label);
        assert_eq!(before(0), None);
        assert_eq!(before(2).as_deref(), Some(labels[1]));
        // at the first coupling of the next size: the first one of the size before
        assert_eq!(before(3).as_deref(), Some(labels[0]));
        let range = Values::Range(Range {
            from: -0.3,
            to: 0.3,
            count: 7,
        });
        let shown: Vec<String> = range.list().into_iter().map(text).collect();
        assert_eq!(shown, ["-0.3", "-0.2", "-0.1", "0", "0.1", "0.2", "0.3"]);
        // another seed is another run
        assert_eq!(before(6), None);
        let run = g.run_at(&points[10], &RunFile::default());
        assert_eq!((run.seed, run.lattice.sites), (4, Some(Sites::Total(16))));
        assert_eq!(run.operator.couplings["J"], Static::Real(0.2));
        assert_eq!(run.scan, None);
    }

    #[test]
    fn the_documented_grid_is_one() {
        let manual = include_str!("../../../docs/training.md");
        let block = manual.split("```toml").nth(2).unwrap();
        let run = RunFile::parse(block.split("```").next().unwrap()).unwrap();
        let grid = Grid::new(&run.scan.unwrap()).unwrap();
        let names: Vec<&str> = grid.axes.iter().map(|a| a.name.as_str()).collect();
        assert_eq!(names, ["seed", "depth", "sites", "h"]);
        assert_eq!(grid.points().len(), 2 * 2 * 3 * 9);
    }

    #[test]
    fn an_order_is_kept_and_cold_scans_have_no_predecessors() {
        let g = grid(
            "warm = false\nseeds = [1, 2]\norder = ['J', 'seeds']\ncouplings = { J = [2, 1] }\n",
        )
        .unwrap();
        let labels: Vec<String> = g.points().into_iter().map(|p| p.label).collect();
        assert_eq!(
            labels,
            ["J=2, seed=1", "J=2, seed=2", "J=1, seed=1", "J=1, seed=2"]
        );
        assert!(g.points().iter().all(|p| g.predecessor(p).is_none()));
        let g =
            grid("seeds = [1, 2]\norder = ['J', 'seed']\ncouplings = { J = [2, 1] }\n").unwrap();
        assert_eq!(g.predecessor(&g.points()[3]).unwrap().label, "J=2, seed=2");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, part) in [
            ("", "no axis"),
            ("couplings = { J = [] }", "no values"),
            ("couplings = { J = [1, 1] }", "twice"),
            ("couplings = { J = [1] }\norder = ['K']", "`K`"),
            (
                "couplings = { J = [1], h = [1] }\norder = ['h']",
                "leaves out J",
            ),
            ("sites = [1.5]", "whole number"),
            ("seeds = [-1]", "whole number"),
            ("couplings = { J = 3 }", "a list like"),
            ("couplings = { J = { from = 0, to = 1 } }", "a list like"),
            (
                "couplings = { s = [1] }\nhyperparameters = { s = [1] }",
                "two axes",
            ),
            ("seeds = { from = 0, to = 1e6, count = 1000001 }", "at most"),
        ] {
            let message = grid(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
