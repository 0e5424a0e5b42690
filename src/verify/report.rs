//! What was compared and how far apart it was.

use crate::ir::{Boundary, Lattice};
use crate::pass::link::LinkStrategy;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

/// Two ways to the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// log psi of the simplified graph against the graph as lowered.
    Simplification,
    /// An update against full evaluation: features, mixer outputs, log psi.
    /// `None`: the strategies the compiler prefers.
    Update(Option<LinkStrategy>),
    /// Link tensors of one strategy against the Jacobian from full evaluations.
    Link(LinkStrategy),
    /// Final links `T_m` against the Jacobian from full evaluations.
    FinalLink,
    /// Environments against full evaluation.
    Environment,
    /// Every ratio of a sweep with accepted moves against full evaluation.
    Sweep,
    /// Values and coefficients outside their windows do not change.
    Window,
    /// d Re log psi against central differences, per parameter tensor.
    GradientRe,
    /// d Im log psi against central differences, per parameter tensor.
    GradientIm,
}

impl Check {
    /// Largest error accepted, relative to the size of what is compared (at least 1).
    pub fn tolerance(self) -> f64 {
        match self {
            Check::Simplification => 1e-12,
            Check::Window => 0.0,
            Check::GradientRe | Check::GradientIm => 1e-6,
            _ => 1e-10,
        }
    }
}

impl Display for Check {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Check::Simplification => f.pad("simplified graph"),
            Check::Update(None) => f.pad("update"),
            Check::Update(Some(s)) => f.pad(&format!("update, {s} links")),
            Check::Link(s) => f.pad(&format!("links, {s}")),
            Check::FinalLink => f.pad("final links"),
            Check::Environment => f.pad("environments"),
            Check::Sweep => f.pad("exact sweep"),
            Check::Window => f.pad("windows"),
            Check::GradientRe => f.pad("gradient, Re log psi"),
            Check::GradientIm => f.pad("gradient, Im log psi"),
        }
    }
}

/// Where a comparison was made: enough to repeat it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// Spins along each axis.
    pub extent: [usize; 2],
    /// Boundary.
    pub boundary: Boundary,
    /// Seed of parameters, configurations and clusters.
    pub seed: u64,
    /// Which of the samples of this lattice.
    pub sample: usize,
    /// `+` and `-` per site, row-major.
    pub configuration: String,
    /// The flipped sites.
    pub cluster: Vec<usize>,
    /// The quantity compared.
    pub quantity: String,
}

impl Case {
    /// A comparison at a configuration.
    pub fn new(lattice: Lattice, seed: u64, sample: usize, spins: &[i8]) -> Case {
        Case {
            extent: lattice.extent,
            boundary: lattice.boundary,
            seed,
            sample,
            configuration: spins
                .iter()
                .map(|&s| if s > 0 { '+' } else { '-' })
                .collect(),
            cluster: vec![],
            quantity: String::new(),
        }
    }

    /// The same place, another cluster and quantity.
    pub fn with(&self, cluster: &[usize], quantity: impl Into<String>) -> Case {
        Case {
            cluster: cluster.to_vec(),
            quantity: quantity.into(),
            ..self.clone()
        }
    }
}

impl Display for Case {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let boundary = match self.boundary {
            Boundary::Periodic => "periodic",
            Boundary::Open => "open",
        };
        let sites = match self.extent {
            [n, 1] => n.to_string(),
            [x, y] => format!("{x},{y}"),
        };
        write!(
            f,
            "{} at --sites {sites} --boundary {boundary} --seed {}, sample {}, configuration {}",
            self.quantity, self.seed, self.sample, self.configuration
        )?;
        if !self.cluster.is_empty() {
            write!(f, ", flipping {:?}", self.cluster)?;
        }
        Ok(())
    }
}

/// The comparisons of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was compared.
    pub check: String,
    /// How often.
    pub comparisons: usize,
    /// Worst relative error; infinite if something was not a number.
    pub worst: f64,
    /// Largest error accepted.
    pub tolerance: f64,
    /// Where the worst error was found.
    pub at: Option<Case>,
}

impl Row {
    /// Whether every error was within the tolerance.
    pub fn passed(&self) -> bool {
        self.worst <= self.tolerance
    }
}

/// A derivation that contradicts itself or cannot be executed.
#[derive(Clone, Debug, Serialize)]
pub struct Contradiction {
    /// Where.
    pub at: Case,
    /// What was found.
    pub message: String,
}

/// Everything that was compared.
#[derive(Clone, Debug, Default)]
pub struct Report {
    rows: BTreeMap<Check, Row>,
    /// Internal errors: then none of the derived programs may be trusted.
    pub contradictions: Vec<Contradiction>,
    /// What was left out, and why.
    pub notes: BTreeSet<String>,
}

impl Report {
    /// Records one comparison; `error` is relative, NaN counts as infinite.
    pub fn compare(&mut self, check: Check, error: f64, at: impl FnOnce() -> Case) {
        let row = self.rows.entry(check).or_insert_with(|| Row {
            check: check.to_string(),
            comparisons: 0,
            worst: 0.0,
            tolerance: check.tolerance(),
            at: None,
        });
        row.comparisons += 1;
        let error = if error.is_nan() { f64::INFINITY } else { error };
        if error > row.worst {
            row.worst = error;
            row.at = Some(at());
        }
    }

    /// Records an internal error.
    pub fn contradiction(&mut self, at: Case, message: impl Display) {
        let message = message.to_string();
        self.contradictions.push(Contradiction { at, message });
    }

    /// The comparisons, in a fixed order.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// The comparisons of one kind, if there were any.
    pub fn row(&self, check: Check) -> Option<&Row> {
        self.rows.get(&check)
    }

    /// Whether all errors are within tolerance and nothing contradicts itself.
    pub fn passed(&self) -> bool {
        self.contradictions.is_empty() && self.rows.values().all(Row::passed)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {:24} {:>11}  {:>11}  {:>9}",
            "check", "comparisons", "worst error", "tolerance"
        )?;
        for row in self.rows() {
            let verdict = if row.passed() { "" } else { "  FAILED" };
            let tolerance = if row.tolerance == 0.0 {
                "exact".to_owned()
            } else {
                format!("{:.0e}", row.tolerance)
            };
            writeln!(
                f,
                "  {:24} {:>11}  {:>11.1e}  {:>9}{verdict}",
                row.check, row.comparisons, row.worst, tolerance
            )?;
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        for row in self.rows().filter(|r| !r.passed()) {
            if let Some(at) = &row.at {
                writeln!(f, "  {} is off by {:.1e}: {at}", row.check, row.worst)?;
            }
        }
        for c in &self.contradictions {
            writeln!(f, "  {}: {}", c.message, c.at)?;
        }
        Ok(())
    }
}
