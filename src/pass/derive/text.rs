//! The recurrence as plain text.

use super::model::{Recurrence, Support, Term};
use crate::pass::normal_form::PoolKind;
use std::fmt::Write;

/// Width of the column of equations.
const EQUATION: usize = 58;

/// Writes everything; supports are tokens relative to the flipped one.
pub(super) fn write(r: &Recurrence) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = sections(r, &mut out);
    out
}

fn sections(r: &Recurrence, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "ABACUS recurrence for flips `{}`; tokens are counted from the flipped one.",
        r.cluster
    )?;
    writeln!(out, "\nMixers")?;
    if r.mixers.is_empty() {
        writeln!(out, "  none: the network is local throughout")?;
    }
    for m in &r.mixers {
        let name = m
            .name
            .as_deref()
            .map_or(String::new(), |n| format!("   {n}"));
        writeln!(
            out,
            "  y{0} = G{0} v{0}   {1}, {2} -> {3}, {4} per token{name}",
            m.index,
            m.class,
            m.input,
            m.output,
            spins(m.token)
        )?;
        for t in &m.terms {
            writeln!(
                out,
                "    {}",
                coefficient(t, &format!("S{}", m.index), &|k| format!(
                    "A{}{}",
                    m.index,
                    sub(k)
                ))
            )?;
        }
    }
    for p in &r.pools {
        let what = match p.kind {
            PoolKind::Sum => "sum over tokens",
            PoolKind::Gather => "all tokens kept",
        };
        writeln!(
            out,
            "  Omega{}   {what}, {} features, {} per token",
            p.index,
            p.features,
            spins(p.token)
        )?;
        for t in &p.terms {
            writeln!(
                out,
                "    {}",
                coefficient(t, &format!("q{}", p.index), &|k| format!(
                    "R{}{}",
                    p.index,
                    sub(k)
                ))
            )?;
        }
    }
    if !r.mixers.is_empty() {
        writeln!(out, "\nEmissions and mixer outputs")?;
    }
    for m in &r.mixers {
        let changes = changes(&m.terms, &format!("S{}", m.index), &|k| {
            format!("A{}{}", m.index, sub(k))
        });
        line(
            out,
            &format!("e{}[i] = {}", m.index, sum(&changes)),
            &m.emission,
            "",
        )?;
        let links: Vec<String> = r
            .links_into(m.index)
            .map(|l| format!("L{}{}[i,j] e{}[j]", l.to, sub(l.from), l.from))
            .collect();
        if !m.targets.is_empty() && !links.is_empty() {
            line(
                out,
                &format!("Δy{}[i] = sum_j {}", m.index, sum(&links)),
                &m.targets,
                "",
            )?;
        }
    }
    if !r.links.is_empty() {
        writeln!(out, "\nLinks of the background")?;
    }
    for l in &r.links {
        let diagonals = l.diagonals.map_or("O(N) displacements".to_owned(), |d| {
            format!("{d} displacements")
        });
        writeln!(
            out,
            "  L{}{}[i,j]   {}, blocks {}, i in {}, j in {}, {diagonals}",
            l.to,
            sub(l.from),
            l.strategy,
            l.shape,
            l.targets,
            l.sources
        )?;
    }
    writeln!(out, "\nPooled features")?;
    for p in &r.pools {
        let changes = changes(&p.terms, &format!("q{}", p.index), &|k| {
            format!("R{}{}", p.index, sub(k))
        });
        if p.kind == PoolKind::Gather {
            let kept: Vec<String> = p
                .terms
                .iter()
                .filter_map(|t| {
                    t.from
                        .map(|k| format!("R{}{}[i] Δy{k}[i]", p.index, sub(k)))
                })
                .collect();
            let support = if kept.is_empty() {
                p.support.clone()
            } else {
                Support::everywhere()
            };
            line(
                out,
                &format!("ΔOmega{}[i] = {}", p.index, sum(&[changes, kept].concat())),
                &support,
                "",
            )?;
            continue;
        }
        line(
            out,
            &format!("ΔOmega{} = sum_i {}", p.index, sum(&changes)),
            &p.support,
            "",
        )?;
        for &m in &p.final_links {
            let support = &r.mixers[m - 1].emission;
            line(
                out,
                &format!("  + sum_i T{m}[i] e{m}[i]"),
                support,
                "final link",
            )?;
        }
    }
    writeln!(
        out,
        "\nlog psi = F(Omega + ΔOmega)   {} operations of the readout",
        r.readout
    )
}

/// One equation with the tokens it holds on.
fn line(out: &mut String, equation: &str, support: &Support, note: &str) -> std::fmt::Result {
    let count = match support.size() {
        None => String::new(),
        Some(0) => return writeln!(out, "  {equation:<EQUATION$} nowhere"),
        Some(n) => format!("   {n} token{}", if n == 1 { "" } else { "s" }),
    };
    let note = if note.is_empty() {
        String::new()
    } else {
        format!("   {note}")
    };
    writeln!(out, "  {equation:<EQUATION$} i in {support}{count}{note}")
}

fn coefficient(t: &Term, source: &str, vertex: &dyn Fn(usize) -> String) -> String {
    let name = t.from.map_or_else(|| source.to_owned(), vertex);
    let what = match t.from {
        None => String::new(),
        Some(_) if t.gates.is_empty() => format!("   {}", t.form),
        Some(_) => format!("   {} {}", t.form, t.gates.join(", ")),
    };
    let window = match t.window {
        None => "constant".to_owned(),
        Some([x, [0, 0]]) => format!("reads spins [{}, {}]", x[0], x[1]),
        Some([x, y]) => format!("reads spins [{}, {}] x [{}, {}]", x[0], x[1], y[0], y[1]),
    };
    let changes = if t.support.is_empty() {
        String::new()
    } else {
        format!(", changes on {}", t.support)
    };
    format!("{name}{what}   {}   {window}{changes}", t.shape)
}

/// The coefficients that change, each times what it multiplies.
fn changes(terms: &[Term], source: &str, vertex: &dyn Fn(usize) -> String) -> Vec<String> {
    terms
        .iter()
        .filter(|t| !t.support.is_empty())
        .map(|t| match t.from {
            None => format!("Δ{source}[i]"),
            Some(k) => format!("Δ{}[i] (y{k} + Δy{k})[i]", vertex(k)),
        })
        .collect()
}

fn sum(parts: &[String]) -> String {
    if parts.is_empty() {
        "0".to_owned()
    } else {
        parts.join(" + ")
    }
}

fn sub(k: usize) -> String {
    format!(",{k}")
}

fn spins(token: [usize; 2]) -> String {
    match token {
        [1, 1] => "1 spin".to_owned(),
        [t, 1] => format!("{t} spins"),
        [x, y] => format!("{x} x {y} spins"),
    }
}
