//! What evaluation and updates cost, as formulas in the number of spins.
//!
//! Multiply-adds and bytes (single precision) of: full evaluation; building
//! links, final links and environments of one background; one update. Values
//! that depend on parameters alone are not counted: they are shared by all
//! configurations. Builds are shared by the N proposals or connected elements
//! that use one background.

mod environments;
mod formula;
mod links;
mod nodes;

pub use environments::Environment;
pub use formula::{Formula, number};

use crate::ir::kinds::{Dependence, Kinds};
use crate::ir::{Boundary, Graph};
use crate::pass::cluster::Cluster;
use crate::pass::normal_form::{NoNormalForm, NormalForm};

/// Bytes per number in working precision.
const WORD: f64 = 4.0;

/// Work and traffic of one task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cost {
    /// Multiply-adds.
    pub operations: Formula,
    /// Bytes read and written.
    pub bytes: Formula,
}

impl Cost {
    fn add(&mut self, operations: Formula, numbers: Formula) {
        self.operations += operations;
        self.bytes += numbers.scaled(WORD);
    }
}

/// Updates from one background by one method.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpdateCost {
    /// Links or environments of a background.
    pub build: Cost,
    /// One update.
    pub update: Cost,
    /// Bytes kept per background.
    pub cache: Formula,
}

impl UpdateCost {
    /// Multiply-adds per update with the build shared by N updates.
    pub fn shared(&self) -> Formula {
        self.build.operations.per_site() + self.update.operations.clone()
    }
}

/// How local changes are evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Full evaluation of the new configuration.
    Full,
    /// Link tensors of the background.
    Links,
    /// Environments left and right of the slice.
    Environments,
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Method::Full => "full evaluation",
            Method::Links => "links",
            Method::Environments => "environments",
        })
    }
}

/// Costs of one network.
#[derive(Clone, Debug)]
pub struct CostModel {
    /// One full evaluation.
    pub full: Cost,
    /// Updates by links, where the network has a normal form.
    pub links: Option<UpdateCost>,
    /// Updates by environments, where every mixer is a recurrence or stencil.
    pub environments: Option<UpdateCost>,
    /// Why there are no updates, if so.
    pub obstacle: Option<NoNormalForm>,
}

/// A method chosen at some N.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The cheapest.
    pub method: Method,
    /// Its multiply-adds per update, builds shared by N updates.
    pub operations: f64,
    /// Those of full evaluation.
    pub full: f64,
}

impl CostModel {
    /// Counts for updates after flips of this shape. The boundary matters to
    /// environments: those of a ring also keep how states pass through.
    pub fn new(graph: &Graph, cluster: &Cluster, boundary: Boundary) -> CostModel {
        let full = full(graph);
        match NormalForm::new(graph) {
            Ok(form) => CostModel {
                full,
                links: Some(links::links(graph, &form, cluster)),
                environments: environments::cost(graph, &form, cluster, boundary),
                obstacle: None,
            },
            Err(obstacle) => CostModel {
                full,
                links: None,
                environments: None,
                obstacle: Some(obstacle),
            },
        }
    }

    fn methods(&self) -> impl Iterator<Item = (Method, Formula)> + '_ {
        let links = self.links.iter().map(|c| (Method::Links, c.shared()));
        let environments = self
            .environments
            .iter()
            .map(|c| (Method::Environments, c.shared()));
        std::iter::once((Method::Full, self.full.operations.clone()))
            .chain(links)
            .chain(environments)
    }

    /// The cheapest method for `n` spins.
    pub fn choose(&self, n: usize) -> Choice {
        let full = self.full.operations.at(n as f64);
        let mut best = Choice {
            method: Method::Full,
            operations: full,
            full,
        };
        for (method, formula) in self.methods() {
            let operations = formula.at(n as f64);
            if operations < best.operations {
                best = Choice {
                    method,
                    operations,
                    full,
                };
            }
        }
        best
    }

    /// The smallest number of spins from which on full evaluation is not the
    /// cheapest, searched up to 2^24; `None` if there is none.
    pub fn crossover(&self) -> Option<usize> {
        let pays = |n: usize| self.choose(n).method != Method::Full;
        let limit = 1usize << 24;
        if !pays(limit) {
            return None;
        }
        // All formulas are polynomials with positive terms, updates of lower degree:
        // once an update pays it keeps paying.
        let (mut no, mut yes) = (0, limit);
        while yes - no > 1 {
            let middle = no + (yes - no) / 2;
            if pays(middle) {
                yes = middle;
            } else {
                no = middle;
            }
        }
        Some(yes)
    }

    /// Growth of one update, builds not included: `O(1)`, `O(N)`, ..; of full
    /// evaluation where there is no update.
    pub fn update_class(&self) -> String {
        let updates = self.links.iter().chain(&self.environments);
        let fastest = updates
            .map(|c| &c.update.operations)
            .min_by_key(|f| f.degree());
        fastest.unwrap_or(&self.full.operations).class()
    }

    /// Growth of one update with its share of the build.
    pub fn shared_class(&self) -> String {
        let fastest = self.methods().map(|(_, f)| f).min_by_key(Formula::degree);
        fastest.unwrap_or_default().class()
    }
}

/// Everything that depends on the configuration, once.
fn full(graph: &Graph) -> Cost {
    let kinds = Kinds::new(graph);
    let mut used = vec![false; graph.len()];
    for &o in &graph.outputs {
        used[o.index()] = true;
    }
    let mut cost = Cost::default();
    for id in graph
        .ids()
        .rev()
        .filter(|&n| kinds.get(n) != Dependence::Const)
    {
        if used[id.index()] {
            graph.args(id).iter().for_each(|a| used[a.index()] = true);
            cost.add(nodes::total(graph, id), nodes::traffic(graph, id));
        }
    }
    cost
}

impl std::fmt::Display for CostModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut line = |task: &str, cost: &Cost| {
            writeln!(
                f,
                "{task:<22} {} multiply-adds, {} bytes",
                cost.operations, cost.bytes
            )
        };
        line("full evaluation", &self.full)?;
        for (name, cost) in [("links", &self.links), ("environments", &self.environments)] {
            if let Some(cost) = cost {
                line(&format!("{name}: build"), &cost.build)?;
                line(&format!("{name}: update"), &cost.update)?;
            }
        }
        for (name, cost) in [("links", &self.links), ("environments", &self.environments)] {
            if let Some(cost) = cost {
                writeln!(f, "{:<22} {} bytes", format!("{name}: cache"), cost.cache)?;
            }
        }
        if let Some(obstacle) = &self.obstacle {
            writeln!(f, "no updates: {obstacle}")?;
        }
        writeln!(f, "update class           {}", self.update_class())?;
        match self.crossover() {
            Some(n) if n > 1 => writeln!(f, "updates pay from       N = {n}"),
            Some(_) => writeln!(f, "updates pay            at every N"),
            None => writeln!(f, "updates pay            at no N"),
        }
    }
}
