//! Mixers, vertices and pools as a Graphviz graph.

use super::model::{Recurrence, Term};
use std::fmt::Write;

/// Writes a digraph: solid edges are vertices and readout coefficients, labelled
/// with their form and the tokens on which a flip changes them.
pub(super) fn write(r: &Recurrence) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = graph(r, &mut out);
    out
}

fn graph(r: &Recurrence, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "digraph abacus {{\n  rankdir=LR;\n  node [shape=box];\n  spins [shape=plaintext];"
    )?;
    for m in &r.mixers {
        let name = m.name.as_deref().unwrap_or("mixer");
        writeln!(
            out,
            "  m{0} [label=\"G{0}: {1}\\n{2}\"];",
            m.index,
            escape(name),
            m.class
        )?;
        edges(out, &m.terms, &format!("m{}", m.index))?;
    }
    for p in &r.pools {
        writeln!(
            out,
            "  p{} [shape=ellipse, label=\"Omega {}\\n{}\"];",
            p.index, p.index, p.features
        )?;
        edges(out, &p.terms, &format!("p{}", p.index))?;
        writeln!(out, "  p{} -> readout;", p.index)?;
    }
    writeln!(out, "  readout [shape=plaintext, label=\"log psi\"];\n}}")
}

fn edges(out: &mut String, terms: &[Term], to: &str) -> std::fmt::Result {
    for t in terms {
        let from = t.from.map_or("spins".to_owned(), |k| format!("m{k}"));
        let style = if t.support.is_empty() {
            ", style=dashed"
        } else {
            ""
        };
        // What makes the coefficient, then where a flip changes it.
        let form = t.from.map_or("source".to_owned(), |_| t.form());
        let label = if t.support.is_empty() {
            form
        } else {
            format!("{form}\non {}", t.support)
        };
        writeln!(
            out,
            "  {from} -> {to} [label=\"{}\"{style}];",
            escape(&label)
        )?;
    }
    Ok(())
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
