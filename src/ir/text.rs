//! The network graph as text, one line per node, and as a Graphviz drawing.
//!
//! A line reads `%7: site(2x1)[4, N/2] = zip(add) %3, %5  # name`: id, place
//! with spins per token and axis, shape, operation, operands, the user's name.

use super::{Graph, NodeId, NodeType, Op, Scan};
use crate::check::core::{Dim, Place, Token};
use std::fmt::{self, Display, Formatter, Write};

impl Display for NodeType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Whole => f.write_str("whole")?,
            Place::Site(t) => write!(f, "site({})", token(t))?,
            Place::Displacement(t) => write!(f, "displacement({})", token(t))?,
            Place::Momentum(t) => write!(f, "momentum({})", token(t))?,
            Place::Pair(t) => write!(f, "pair({})", token(t))?,
        }
        let axes: Vec<String> = self.shape.iter().map(|&d| dim(d)).collect();
        write!(f, "[{}]", axes.join(", "))
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let pair = |lo: &[i64; 2], hi: &[i64; 2]| {
            let axis = |k: usize| format!("{}..={}", lo[k], hi[k]);
            // chains have no second axis
            if lo[1] == 0 && hi[1] == 0 {
                axis(0)
            } else {
                format!("{}, {}", axis(0), axis(1))
            }
        };
        let flag = |set: bool, name: &'static str| if set { name } else { "" };
        let mixer = |name: &str, complex: bool, transposed: bool| {
            listed(
                name,
                &[flag(complex, "complex"), flag(transposed, "transposed")],
            )
        };
        let text = match self {
            Op::Param(k) => format!("param {k}"),
            Op::Number(x) => format!("{x:?}"),
            Op::Spins => "spins".into(),
            Op::SiteIndex { axis } => format!("site_index(axis {axis})"),
            Op::Displacement { axis } => format!("displacement(axis {axis})"),
            Op::Momentum { axis } => format!("momentum(axis {axis})"),
            Op::PairIndex { axis, source } => {
                format!(
                    "pair_index({}, axis {axis})",
                    if *source { "source" } else { "target" }
                )
            }
            Op::SiteCount(t) => format!("site_count({})", token(*t)),
            Op::Extent { axis, token: t } => format!("extent({}, axis {axis})", token(*t)),
            Op::Map(g) => format!("{g:?}").to_lowercase(),
            Op::Zip(g) => format!("{g:?}").to_lowercase(),
            Op::Einsum(spec) => {
                let words: Vec<String> = spec.inputs.iter().map(|w| w.iter().collect()).collect();
                let output: String = spec.output.iter().collect();
                format!("einsum({}->{output})", words.join(","))
            }
            Op::Reshape => "reshape".into(),
            Op::Slice { axis, start, len } => {
                format!("slice(axis {axis}, {start}..{})", start + len)
            }
            Op::Pad { axis, start, len } => format!("pad(axis {axis}, at {start} of {len})"),
            Op::Concat { axis } => format!("concat(axis {axis})"),
            Op::Broadcast => "broadcast".into(),
            Op::Window { lo, hi } => format!("window({})", pair(lo, hi)),
            Op::WindowAdjoint { lo, hi } => format!("window_adjoint({})", pair(lo, hi)),
            Op::Patch { ratio } => format!("patch({})", token(Token(*ratio))),
            Op::Unpatch { ratio } => format!("unpatch({})", token(Token(*ratio))),
            Op::Sum => "sum".into(),
            Op::Gather => "gather".into(),
            Op::Scatter => "scatter".into(),
            Op::Scan(scan) => listed("scan", &scan_flags(*scan)),
            Op::ScanGrad { scan, wrt } => {
                let wrt = format!("operand {wrt}");
                let flags: Vec<&str> = [&[wrt.as_str()][..], &scan_flags(*scan)].concat();
                listed("scan_grad", &flags)
            }
            Op::Convolve {
                complex,
                transposed,
            } => mixer("convolve", *complex, *transposed),
            Op::Correlate { complex } => mixer("correlate", *complex, false),
            Op::Modes {
                complex,
                transposed,
            } => mixer("modes", *complex, *transposed),
            Op::ModesGrad { complex } => mixer("modes_grad", *complex, false),
            Op::Mix {
                complex,
                transposed,
            } => mixer("mix", *complex, *transposed),
            Op::MixGrad { complex } => mixer("mix_grad", *complex, false),
            Op::RowSum => "row_sum".into(),
            Op::RowBroadcast => "row_broadcast".into(),
        };
        f.write_str(&text)
    }
}

/// The graph as text: parameters, one line per node, outputs.
pub fn text(graph: &Graph) -> String {
    let mut lines = String::new();
    for (k, p) in graph.params.iter().enumerate() {
        let _ = writeln!(lines, "param {k}: {} = {}", p.ty, p.path);
    }
    for id in graph.ids() {
        let _ = writeln!(lines, "{}", line(graph, id));
    }
    let outputs: Vec<String> = graph.outputs.iter().map(|&o| number(o)).collect();
    let _ = writeln!(lines, "outputs {}", outputs.join(", "));
    lines
}

/// One node as a line of [`text`].
pub fn line(graph: &Graph, id: NodeId) -> String {
    let node = graph.node(id);
    let operands: Vec<String> = graph.args(id).iter().map(|&a| number(a)).collect();
    let mut line = format!("{}: {} = {}", number(id), node.ty, node.op);
    if !operands.is_empty() {
        line += &format!(" {}", operands.join(", "));
    }
    if let Some(name) = &node.name {
        line += &format!("  # {name}");
    }
    line
}

/// The graph in the Graphviz language; outputs have a double border.
pub fn dot(graph: &Graph) -> String {
    let mut lines = String::from("digraph network {\n  node [shape=box, fontname=monospace];\n");
    for id in graph.ids() {
        let node = graph.node(id);
        let label = match (&node.op, &node.name) {
            (Op::Param(k), _) => graph
                .params
                .get(*k as usize)
                .map_or(node.op.to_string(), |p| p.path.clone()),
            (op, Some(name)) => format!("{name}\n{op}"),
            (op, None) => op.to_string(),
        };
        let label = escape(&format!("{label}\n{}", node.ty));
        let border = if graph.outputs.contains(&id) {
            ", peripheries=2"
        } else {
            ""
        };
        let _ = writeln!(lines, "  n{} [label=\"{label}\"{border}];", id.index());
        for &a in graph.args(id) {
            let _ = writeln!(lines, "  n{} -> n{};", a.index(), id.index());
        }
    }
    lines + "}\n"
}

fn escape(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn number(id: NodeId) -> String {
    format!("%{}", id.index())
}

fn token(t: Token) -> String {
    format!("{}x{}", t.0[0], t.0[1])
}

fn dim(d: Dim) -> String {
    match d {
        Dim::Static(n) => n.to_string(),
        Dim::Sites { scale: 1, per: 1 } => "N".into(),
        Dim::Sites { scale: 1, per } => format!("N/{per}"),
        Dim::Sites { scale, per: 1 } => format!("{scale}N"),
        Dim::Sites { scale, per } => format!("{scale}N/{per}"),
    }
}

fn scan_flags(scan: Scan) -> [&'static str; 5] {
    [
        if scan.complex { "complex" } else { "" },
        if scan.dense { "dense" } else { "" },
        if scan.low_rank { "low_rank" } else { "" },
        if scan.mirror { "mirror" } else { "" },
        if scan.leftward { "leftward" } else { "" },
    ]
}

/// `name(flag, flag)`, without parentheses if no flag is set.
fn listed(name: &str, flags: &[&str]) -> String {
    let set: Vec<&str> = flags.iter().copied().filter(|f| !f.is_empty()).collect();
    if set.is_empty() {
        name.into()
    } else {
        format!("{name}({})", set.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{GraphParam, MapFn};

    fn small() -> Graph {
        let mut g = Graph::default();
        g.params.push(GraphParam {
            path: "head/w".into(),
            ty: NodeType::fixed(Place::Whole, &[3]),
        });
        let s = g.add(Op::Spins, &[]).expect("no operands");
        let w = g.add(Op::Param(0), &[]).expect("declared");
        let around = g
            .add(
                Op::Window {
                    lo: [-1, 0],
                    hi: [1, 0],
                },
                &[s],
            )
            .expect("a site value");
        let letters = |s: &str| s.chars().collect::<Vec<char>>();
        let spec = crate::check::core::Einsum {
            inputs: vec![letters("a"), letters("a")],
            output: vec![],
        };
        let y = g
            .add(Op::Einsum(spec), &[around, w])
            .expect("equal lengths");
        g.set_name(y, "y");
        let all = g.add(Op::Gather, &[y]).expect("a site value");
        let even = g.add(Op::Map(MapFn::LogCosh), &[all]).expect("any value");
        g.outputs = vec![even];
        g
    }

    #[test]
    fn one_line_per_node() {
        let expected = "\
param 0: whole[3] = head/w
%0: site(1x1)[] = spins
%1: whole[3] = param 0
%2: site(1x1)[3] = window(-1..=1) %0
%3: site(1x1)[] = einsum(a,a->) %2, %1  # y
%4: whole[N] = gather %3
%5: whole[N] = logcosh %4
outputs %5
";
        assert_eq!(text(&small()), expected);
    }

    #[test]
    fn drawing_has_every_node_and_edge() {
        let drawing = dot(&small());
        assert_eq!(drawing.matches("label=").count(), 6);
        assert_eq!(
            drawing.matches("->").count() - drawing.matches("a,a->").count(),
            5
        );
        assert_eq!(drawing.matches("peripheries=2").count(), 1);
        assert!(drawing.contains("head/w\\nwhole[3]"), "{drawing}");
    }
}
