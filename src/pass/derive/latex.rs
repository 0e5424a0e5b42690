//! The recurrence as a LaTeX document.

use super::model::{Recurrence, Support, Term};
use crate::pass::normal_form::PoolKind;
use std::fmt::Write;

/// Writes a complete document; equations in the paper's notation.
pub(super) fn write(r: &Recurrence) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = document(r, &mut out);
    out
}

fn document(r: &Recurrence, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "\\documentclass{{article}}\n\\usepackage[margin=2.5cm]{{geometry}}\n\\usepackage{{amsmath,booktabs}}\n\\begin{{document}}"
    )?;
    writeln!(
        out,
        "Update after flips \\texttt{{{}}}. Tokens are counted from that of the first flipped spin; \
         $\\Delta X = X(s') - X(s)$, everything else is the background's.\n",
        r.cluster
    )?;
    let mut equations: Vec<String> = vec![];
    for m in &r.mixers {
        let mut sum = vec![];
        for t in m.terms.iter().filter(|t| !t.support.is_empty()) {
            sum.push(change(t, &format!("S^{{({})}}_i", m.index), |k| {
                format!("A^{{({},{k})}}_i", m.index)
            }));
        }
        if sum.is_empty() {
            equations.push(format!("e^{{({})}}_i &= 0", m.index));
        } else {
            equations.push(format!(
                "e^{{({})}}_i &= {}, && {}",
                m.index,
                broken(&sum),
                range(&m.emission)
            ));
        }
        let links: Vec<String> = r
            .links_into(m.index)
            .map(|l| {
                format!(
                    "\\sum_{{j}} L^{{({},{})}}_{{ij}} e^{{({})}}_j",
                    l.to, l.from, l.from
                )
            })
            .collect();
        if !m.targets.is_empty() && !links.is_empty() {
            let sum = broken(&links);
            equations.push(format!(
                "\\Delta y^{{({})}}_i &= {sum}, && {}",
                m.index,
                range(&m.targets)
            ));
        }
    }
    let several = r.pools.len() > 1;
    for p in &r.pools {
        let (at, index) = if several {
            (format!("_{{{}}}", p.index), format!("_{{{},i}}", p.index))
        } else {
            (String::new(), "_i".to_owned())
        };
        let read = |k: usize| format!("R^{{({k})}}{index}");
        let source = format!("q{index}");
        let changing = || p.terms.iter().filter(|t| !t.support.is_empty());
        if p.kind == PoolKind::Gather {
            let kept = p
                .terms
                .iter()
                .filter_map(|t| t.from)
                .map(|k| format!("{} \\Delta y^{{({k})}}_i", read(k)));
            let changes = changing().map(|t| change(t, &source, read));
            let all: Vec<String> = changes.chain(kept).collect();
            equations.push(format!("\\Delta\\Omega{index} &= {}", broken(&all)));
            continue;
        }
        let mut all: Vec<String> = changing()
            .map(|t| {
                let domain = symbol(&t.support);
                format!("\\sum_{{i \\in {domain}}} {}", change(t, &source, read))
            })
            .collect();
        for &m in &p.final_links {
            let domain = symbol(&r.mixers[m - 1].emission);
            all.push(format!(
                "\\sum_{{i \\in {domain}}} T^{{({m})}}{index} e^{{({m})}}_i"
            ));
        }
        equations.push(format!("\\Delta\\Omega{at} &= {}", broken(&all)));
    }
    equations.push("\\log\\psi(s') &= F\\bigl(\\Omega + \\Delta\\Omega\\bigr)".to_owned());
    writeln!(
        out,
        "\\begin{{align}}\n  {}\n\\end{{align}}",
        equations.join(" \\\\\n  ")
    )?;
    writeln!(
        out,
        "with $y^{{(m)}} = G^{{(m)}} v^{{(m)}}$, $L^{{(m,k)}} = \\partial y^{{(m)}} / \\partial v^{{(k)}}$ \
         and $T^{{(m)}} = \\partial \\Omega / \\partial v^{{(m)}}$.\n"
    )?;
    coefficients(r, out)?;
    links(r, out)?;
    writeln!(out, "\\end{{document}}")
}

/// Every coefficient: its shape, the spins it reads, where it changes, its form.
fn coefficients(r: &Recurrence, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "\\begin{{center}}\\begin{{tabular}}{{llllp{{5.5cm}}}}\\toprule\n\
         coefficient & shape & reads spins & changes on & form \\\\ \\midrule"
    )?;
    let several = r.pools.len() > 1;
    for m in &r.mixers {
        for t in &m.terms {
            let name = match t.from {
                None => format!("S^{{({})}}", m.index),
                Some(k) => format!("A^{{({},{k})}}", m.index),
            };
            row(out, &name, t)?;
        }
    }
    for p in &r.pools {
        let at = if several {
            format!("_{{{}}}", p.index)
        } else {
            String::new()
        };
        for t in &p.terms {
            let name = match t.from {
                None => format!("q{at}"),
                Some(k) => format!("R^{{({k})}}{at}"),
            };
            row(out, &name, t)?;
        }
    }
    writeln!(out, "\\bottomrule\\end{{tabular}}\\end{{center}}\n")
}

fn row(out: &mut String, name: &str, t: &Term) -> std::fmt::Result {
    let window = match t.window {
        None => "---".to_owned(),
        Some([x, [0, 0]]) => format!("$[{}, {}]$", x[0], x[1]),
        Some([x, y]) => format!("$[{}, {}] \\times [{}, {}]$", x[0], x[1], y[0], y[1]),
    };
    let changes = if t.support.is_empty() {
        "nowhere".to_owned()
    } else {
        format!("${}$", symbol(&t.support))
    };
    let form = t.from.map_or("source".to_owned(), |_| t.form());
    writeln!(
        out,
        "${name}$ & ${}$ & {window} & {changes} & {} \\\\",
        t.shape.replace('x', "\\times"),
        form.replace('_', "\\_")
    )
}

/// Every link in use: strategy, shape of its blocks, ends.
fn links(r: &Recurrence, out: &mut String) -> std::fmt::Result {
    if r.links.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\\begin{{center}}\\begin{{tabular}}{{llllll}}\\toprule"
    )?;
    writeln!(
        out,
        "link & strategy & block & targets $i$ & sources $j$ & displacements \\\\ \\midrule"
    )?;
    for l in &r.links {
        let diagonals = l.diagonals.map_or("$O(N)$".to_owned(), |d| d.to_string());
        writeln!(
            out,
            "$L^{{({},{})}}$ & {} & ${}$ & ${}$ & ${}$ & {diagonals} \\\\",
            l.to,
            l.from,
            l.strategy,
            l.shape.replace('x', "\\times"),
            symbol(&l.targets),
            symbol(&l.sources)
        )?;
    }
    writeln!(out, "\\bottomrule\\end{{tabular}}\\end{{center}}")
}

fn change(t: &Term, source: &str, vertex: impl Fn(usize) -> String) -> String {
    match t.from {
        None => format!("\\Delta {source}"),
        Some(k) => {
            format!(
                "\\Delta {} \\bigl( y^{{({k})}}_i + \\Delta y^{{({k})}}_i \\bigr)",
                vertex(k)
            )
        }
    }
}

/// A sum, two terms per line: those of deep networks have many.
fn broken(all: &[String]) -> String {
    if all.is_empty() {
        return "0".to_owned();
    }
    let lines: Vec<String> = all.chunks(2).map(|pair| pair.join(" + ")).collect();
    lines.join(" \\notag\\\\\n  &\\quad + ")
}

fn range(support: &Support) -> String {
    match support {
        Support::Everywhere(_) => "\\text{all } i".to_owned(),
        Support::Tokens(_) => format!("i \\in {}", symbol(support)),
    }
}

/// A set of tokens in mathematics.
fn symbol(support: &Support) -> String {
    match support {
        Support::Everywhere(_) => "\\text{all}".to_owned(),
        Support::Tokens(_) => support
            .to_string()
            .replace('{', "\\{")
            .replace('}', "\\}")
            .replace('x', "\\times"),
    }
}
