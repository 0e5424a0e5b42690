//! The ABACUS recurrence of a network, written out.
//!
//! For a flip cluster of given shape: which coefficients change and where, the
//! emissions, the links in use with their strategy, the update of the pooled
//! features. In the notation of the paper, as text, LaTeX, JSON or a graph.

mod dot;
mod latex;
mod model;
mod text;

pub use model::{LinkEntry, MixerEntry, PoolEntry, Recurrence, Support, Term};

use crate::ir::Graph;
use crate::pass::cluster::Cluster;
use crate::pass::normal_form::NormalForm;

/// How the recurrence is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Plain text for a terminal.
    Text,
    /// A LaTeX document with the equations.
    Latex,
    /// A machine-readable record.
    Json,
    /// Mixers, vertices and pools as a Graphviz graph.
    Dot,
}

impl std::str::FromStr for Format {
    type Err = String;
    fn from_str(s: &str) -> Result<Format, String> {
        match s {
            "text" => Ok(Format::Text),
            "latex" => Ok(Format::Latex),
            "json" => Ok(Format::Json),
            "dot" => Ok(Format::Dot),
            _ => Err(format!("`{s}` is no format: text, latex, json or dot")),
        }
    }
}

/// Writes the recurrence of `graph`, whose normal form is `form`, for flips of
/// the given shape.
pub fn derive(graph: &Graph, form: &NormalForm, cluster: &Cluster, format: Format) -> String {
    let recurrence = Recurrence::new(graph, form, cluster);
    match format {
        Format::Text => text::write(&recurrence),
        Format::Latex => latex::write(&recurrence),
        // Maps with string keys, numbers and strings only: cannot fail.
        Format::Json => serde_json::to_string_pretty(&recurrence).unwrap_or_default() + "\n",
        Format::Dot => dot::write(&recurrence),
    }
}
