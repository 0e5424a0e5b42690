//! The recurrence as plain text.

use super::model::{Recurrence, Support, Term};
use crate::pass::normal_form::PoolKind;
use std::fmt::{Result, Write};

/// Width of the column of equations.
const EQUATION: usize = 46;
/// Width of the column of tokens.
const TOKENS: usize = 26;

/// Writes everything; supports are tokens relative to the flipped one.
pub(super) fn write(r: &Recurrence) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = sections(r, &mut out);
    out
}

fn sections(r: &Recurrence, out: &mut String) -> Result {
    writeln!(
        out,
        "ABACUS recurrence for flips `{}`; tokens are counted from the flipped one.",
        r.cluster
    )?;
    coefficients(r, out)?;
    if !r.mixers.is_empty() {
        emissions(r, out)?;
    }
    if !r.links.is_empty() {
        links(r, out)?;
    }
    pooled(r, out)?;
    writeln!(
        out,
        "\nlog psi = F(Omega + ΔOmega)   {} of the readout",
        counted(r.readout, "operation")
    )
}

/// Mixers and pools with the coefficients that enter them.
fn coefficients(r: &Recurrence, out: &mut String) -> Result {
    writeln!(out, "\nMixers")?;
    if r.mixers.is_empty() {
        writeln!(out, "  none: the network is local throughout")?;
    }
    for m in &r.mixers {
        // A mixer called after its class needs no second word.
        let name = m.name.iter().filter(|n| **n != m.class);
        let name: String = name.map(|n| format!("{n}, ")).collect();
        let (index, class) = (m.index, &m.class);
        writeln!(
            out,
            "  y{index} = G{index} v{index}   {name}{class}: {} -> {}, {} per token",
            m.input,
            m.output,
            spins(m.token)
        )?;
        for t in &m.terms {
            coefficient(out, t, &symbol(t, "S", "A", index))?;
        }
    }
    writeln!(out, "\nPooled values")?;
    for p in &r.pools {
        let what = match p.kind {
            PoolKind::Sum => "sum over tokens",
            PoolKind::Gather => "all tokens kept",
        };
        writeln!(
            out,
            "  Omega{}   {what}: {} features, {} per token",
            p.index,
            p.features,
            spins(p.token)
        )?;
        for t in &p.terms {
            coefficient(out, t, &symbol(t, "q", "R", p.index))?;
        }
    }
    Ok(())
}

fn emissions(r: &Recurrence, out: &mut String) -> Result {
    writeln!(out, "\nEmissions and mixer outputs")?;
    for m in &r.mixers {
        let mut sum = Sum::new(format!("e{}[i]", m.index));
        for t in &m.terms {
            sum.change(t, &symbol(t, "S", "A", m.index));
        }
        sum.write(out)?;
        if m.targets.is_empty() {
            continue;
        }
        let mut sum = Sum::new(format!("Δy{}[i]", m.index));
        for l in r.links_into(m.index) {
            let term = format!("sum_j L{},{}[i,j] e{}[j]", l.to, l.from, l.from);
            let sources = format!("j in {}", l.sources);
            sum.term(term, on(&m.targets), sources);
        }
        sum.write(out)?;
    }
    Ok(())
}

fn links(r: &Recurrence, out: &mut String) -> Result {
    writeln!(out, "\nLinks of the background")?;
    for l in &r.links {
        let diagonals = l.diagonals.map_or("O(N) displacements".to_owned(), |d| {
            counted(d, "displacement")
        });
        writeln!(
            out,
            "  L{},{}[i,j]   {}, blocks {}, {}, j in {}, {diagonals}",
            l.to,
            l.from,
            l.strategy,
            l.shape,
            on(&l.targets),
            l.sources
        )?;
    }
    Ok(())
}

fn pooled(r: &Recurrence, out: &mut String) -> Result {
    writeln!(out, "\nPooled features")?;
    for p in &r.pools {
        let kept = p.kind == PoolKind::Gather;
        let at = if kept { "[i]" } else { "" };
        let mut sum = Sum::new(format!("ΔOmega{}{at}", p.index));
        if !kept {
            sum.over = "sum_i ";
        }
        for t in &p.terms {
            sum.change(t, &symbol(t, "q", "R", p.index));
        }
        for t in p.terms.iter().filter(|_| kept) {
            if let Some(k) = t.from {
                let term = format!("R{},{k}[i] Δy{k}[i]", p.index);
                sum.term(term, on(&Support::everywhere()), String::new());
            }
        }
        for &m in &p.final_links {
            let emission = &r.mixers[m - 1].emission;
            sum.term(
                format!("sum_i T{m}[i] e{m}[i]"),
                on(emission),
                format!("{}, final link", size(emission)),
            );
        }
        sum.write(out)?;
    }
    Ok(())
}

/// A sum, one term per line, each with the tokens it runs over.
struct Sum {
    name: String,
    /// Written before the change of a coefficient.
    over: &'static str,
    terms: Vec<[String; 3]>,
}

impl Sum {
    fn new(name: String) -> Sum {
        Sum {
            name,
            over: "",
            terms: vec![],
        }
    }
    fn term(&mut self, term: String, tokens: String, note: String) {
        self.terms.push([term, tokens, note]);
    }
    /// The change of a coefficient times what it multiplies, where it changes.
    fn change(&mut self, t: &Term, symbol: &str) {
        if t.support.is_empty() {
            return;
        }
        let times = t
            .from
            .map_or(String::new(), |k| format!(" (y{k} + Δy{k})[i]"));
        let term = format!("{}Δ{symbol}[i]{times}", self.over);
        self.term(term, on(&t.support), size(&t.support));
    }
    fn write(&self, out: &mut String) -> Result {
        if self.terms.is_empty() {
            return writeln!(out, "  {} = 0", self.name);
        }
        let indent = " ".repeat(self.name.chars().count());
        for (n, [term, tokens, note]) in self.terms.iter().enumerate() {
            let start = if n == 0 {
                format!("{} =", self.name)
            } else {
                format!("{indent} +")
            };
            let equation = format!("{start} {term}");
            let line = format!("  {equation:<EQUATION$} {tokens:<TOKENS$} {note}");
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The coefficient of a term: `S2`, `A2,1`, `q1`, `R1,2`.
fn symbol(t: &Term, source: &str, vertex: &str, index: usize) -> String {
    match t.from {
        None => format!("{source}{index}"),
        Some(k) => format!("{vertex}{index},{k}"),
    }
}

fn coefficient(out: &mut String, t: &Term, name: &str) -> Result {
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
    let form = match t.from {
        None => String::new(),
        Some(_) if t.window.is_none() => String::new(),
        Some(_) => format!("   {}", t.form()),
    };
    writeln!(out, "    {name:<4} {}   {window}{changes}{form}", t.shape)
}

/// Where an equation holds.
fn on(support: &Support) -> String {
    match support {
        Support::Everywhere(_) => "all i".to_owned(),
        Support::Tokens(_) => format!("i in {support}"),
    }
}

fn size(support: &Support) -> String {
    support
        .size()
        .map_or(String::new(), |n| counted(n, "token"))
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn spins(token: [usize; 2]) -> String {
    match token {
        [t, 1] => counted(t, "spin"),
        [x, y] => format!("{x} x {y} spins"),
    }
}
