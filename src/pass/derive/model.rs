//! The recurrence of one network and one cluster shape, as data.

use crate::check::core::{Dim, Token, Window};
use crate::ir::kinds::Dependence;
use crate::ir::{Graph, NodeId};
use crate::pass::cluster::Cluster;
use crate::pass::link::plan;
use crate::pass::normal_form::{Coefficient, NormalForm, PoolKind};
use std::collections::BTreeSet;

/// Tokens relative to the token of the first flipped spin.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Support {
    /// Every token of the lattice.
    Everywhere(&'static str),
    /// These tokens.
    Tokens(BTreeSet<[i64; 2]>),
}

impl Support {
    /// All tokens.
    pub fn everywhere() -> Support {
        Support::Everywhere("everywhere")
    }
    /// Number of tokens; `None` for all.
    pub fn size(&self) -> Option<usize> {
        match self {
            Support::Everywhere(_) => None,
            Support::Tokens(t) => Some(t.len()),
        }
    }
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.size() == Some(0)
    }
}

impl std::fmt::Display for Support {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Support::Tokens(tokens) = self else {
            return f.write_str("all");
        };
        let axis = |a: usize| tokens.iter().map(|t| t[a]).collect::<BTreeSet<i64>>();
        let (x, y) = (axis(0), axis(1));
        if x.len() * y.len() != tokens.len() {
            let list: Vec<String> = tokens
                .iter()
                .map(|t| format!("({}, {})", t[0], t[1]))
                .collect();
            return write!(f, "{{{}}}", list.join(", "));
        }
        let interval = |s: &BTreeSet<i64>| -> String {
            match (s.first(), s.last()) {
                (Some(lo), Some(hi)) if hi - lo + 1 == s.len() as i64 => {
                    if lo == hi {
                        format!("{{{lo}}}")
                    } else {
                        format!("[{lo}, {hi}]")
                    }
                }
                _ => format!(
                    "{{{}}}",
                    s.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
                ),
            }
        };
        if y.len() == 1 && y.contains(&0) {
            f.write_str(&interval(&x))
        } else {
            write!(f, "{} x {}", interval(&x), interval(&y))
        }
    }
}

/// One coefficient of an affine value.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Term {
    /// Mixer whose output it multiplies, from 1; `None` for the source.
    pub from: Option<usize>,
    /// Whether a path without gates contributes (sources: always).
    pub constant: bool,
    /// Local values that act as diagonal gates, each on a path of its own.
    pub gates: Vec<String>,
    /// Local values that enter by contraction, or together on one path.
    pub matrices: Vec<String>,
    /// Shape of the coefficient: `[14]` or `[14 x 14]`.
    pub shape: String,
    /// Spins it reads relative to its token, per axis `[lo, hi]`; `None` if constant.
    pub window: Option<[[i64; 2]; 2]>,
    /// Tokens where it changes.
    pub support: Support,
}

impl Term {
    /// How the coefficient of a mixer's output is made: `constant + gated by a + matrix of b, c`.
    pub fn form(&self) -> String {
        let mut parts = vec![];
        if self.constant {
            parts.push("constant".to_owned());
        }
        if !self.gates.is_empty() {
            parts.push(format!("gated by {}", self.gates.join(", ")));
        }
        if !self.matrices.is_empty() {
            parts.push(format!("matrix of {}", self.matrices.join(", ")));
        }
        parts.join(" + ")
    }
}

/// A mixer and what enters it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MixerEntry {
    /// From 1.
    pub index: usize,
    /// The user's name of the output, if any.
    pub name: Option<String>,
    /// Class.
    pub class: String,
    /// Spins per token of the input.
    pub token: [usize; 2],
    /// Shape of `v_m` per token.
    pub input: String,
    /// Shape of `y_m` per token.
    pub output: String,
    /// Coefficients of `v_m` that are not zero.
    pub terms: Vec<Term>,
    /// Tokens of the emission.
    pub emission: Support,
    /// Tokens where the update of the output is needed.
    pub targets: Support,
}

/// A link tensor in use.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LinkEntry {
    /// m, from 1.
    pub to: usize,
    /// k, from 1.
    pub from: usize,
    /// How it is computed.
    pub strategy: String,
    /// Shape of a block.
    pub shape: String,
    /// Where it ends.
    pub targets: Support,
    /// Where it starts.
    pub sources: Support,
    /// Different displacements target - source; `None` if they grow with N.
    pub diagonals: Option<usize>,
}

/// A pool and what enters it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PoolEntry {
    /// From 1.
    pub index: usize,
    /// Sum or gather.
    pub kind: PoolKind,
    /// Shape of the features.
    pub features: String,
    /// Spins per token of the input.
    pub token: [usize; 2],
    /// Coefficients q and R_k that are not zero.
    pub terms: Vec<Term>,
    /// Tokens where q or some R_k changes.
    pub support: Support,
    /// Final links `T_m` in use: mixers whose emissions reach the features.
    pub final_links: Vec<usize>,
}

/// The recurrence.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Recurrence {
    /// The cluster.
    pub cluster: String,
    /// Mixers in order.
    pub mixers: Vec<MixerEntry>,
    /// Links in use.
    pub links: Vec<LinkEntry>,
    /// Pooled features.
    pub pools: Vec<PoolEntry>,
    /// Nodes evaluated again in the readout.
    pub readout: usize,
}

impl Recurrence {
    /// Derives the recurrence for flips of this shape.
    pub fn new(graph: &Graph, form: &NormalForm, cluster: &Cluster) -> Recurrence {
        let support = |c: Coefficient, t: Token| {
            Support::Tokens(
                c.window()
                    .map_or_else(BTreeSet::new, |w| cluster.support(w, t)),
            )
        };
        let shape_of = |id: NodeId| dims(&graph.ty(id).shape);
        let names = |ids: &[NodeId]| ids.iter().map(|&id| called(graph, form, id)).collect();
        let terms =
            |node: NodeId, affine: &crate::pass::normal_form::Affine, token: Token| -> Vec<Term> {
                let mut terms = vec![];
                if !affine.source.is_zero() {
                    terms.push(Term {
                        from: None,
                        constant: true,
                        gates: vec![],
                        matrices: vec![],
                        shape: shape_of(node),
                        window: affine.source.window().map(spins),
                        support: support(affine.source, token),
                    });
                }
                for (&k, v) in &affine.vertices {
                    terms.push(Term {
                        from: Some(k + 1),
                        constant: v.form.constant,
                        gates: names(&v.form.gates),
                        matrices: names(&v.form.matrices),
                        shape: matrix(&shape_of(node), &shape_of(form.mixers[k].output)),
                        window: v.coefficient.window().map(spins),
                        support: support(v.coefficient, token),
                    });
                }
                terms
            };
        let union = |terms: &[Term]| -> Support {
            Support::Tokens(
                terms
                    .iter()
                    .filter_map(|t| match &t.support {
                        Support::Tokens(t) => Some(t.iter().copied()),
                        Support::Everywhere(_) => None,
                    })
                    .flatten()
                    .collect(),
            )
        };
        let mut mixers: Vec<MixerEntry> = form
            .mixers
            .iter()
            .enumerate()
            .map(|(m, mixer)| {
                let terms = terms(mixer.input, &mixer.affine, mixer.source_token);
                MixerEntry {
                    index: m + 1,
                    name: graph.node(mixer.output).name.clone(),
                    class: mixer.class.to_string(),
                    token: mixer.source_token.0,
                    input: shape_of(mixer.input),
                    output: shape_of(mixer.output),
                    emission: union(&terms),
                    terms,
                    targets: Support::Tokens(BTreeSet::new()),
                }
            })
            .collect();
        let pools: Vec<PoolEntry> = form
            .pools
            .iter()
            .enumerate()
            .map(|(p, pool)| {
                let terms = terms(pool.input, &pool.affine, pool.token);
                let reaches = |m: &usize| {
                    pool.affine.vertices.keys().any(|&l| form.linked(l, *m))
                        && !mixers[*m].emission.is_empty()
                };
                PoolEntry {
                    index: p + 1,
                    kind: pool.kind,
                    features: shape_of(pool.output),
                    token: pool.token.0,
                    support: union(&terms),
                    terms,
                    final_links: match pool.kind {
                        PoolKind::Sum => (0..mixers.len()).filter(reaches).map(|m| m + 1).collect(),
                        PoolKind::Gather => vec![],
                    },
                }
            })
            .collect();
        for m in 0..mixers.len() {
            let kept = pools.iter().any(|p| {
                p.kind == PoolKind::Gather && p.terms.iter().any(|t| t.from == Some(m + 1))
            });
            let readers = mixers
                .iter()
                .flat_map(|x| &x.terms)
                .chain(pools.iter().flat_map(|p| &p.terms));
            let wanted: Vec<Term> = readers.filter(|t| t.from == Some(m + 1)).cloned().collect();
            mixers[m].targets = if kept {
                Support::everywhere()
            } else {
                union(&wanted)
            };
        }
        let links = plan(form, None)
            .iter()
            .map(|(&(m, k), strategy)| {
                let (targets, sources) = (mixers[m].targets.clone(), mixers[k].emission.clone());
                LinkEntry {
                    to: m + 1,
                    from: k + 1,
                    strategy: strategy.to_string(),
                    shape: matrix(&mixers[m].output, &mixers[k].input),
                    diagonals: diagonals(&targets, &sources),
                    targets,
                    sources,
                }
            })
            .filter(|l| !l.targets.is_empty() && !l.sources.is_empty())
            .collect();
        Recurrence {
            cluster: cluster.to_string(),
            mixers,
            links,
            pools,
            readout: form.readout.len(),
        }
    }

    /// The links ending in mixer `m` (from 1).
    pub fn links_into(&self, m: usize) -> impl Iterator<Item = &LinkEntry> {
        self.links.iter().filter(move |l| l.to == m)
    }
}

fn diagonals(targets: &Support, sources: &Support) -> Option<usize> {
    let (Support::Tokens(to), Support::Tokens(from)) = (targets, sources) else {
        return None;
    };
    let all: BTreeSet<[i64; 2]> = to
        .iter()
        .flat_map(|t| from.iter().map(move |s| [t[0] - s[0], t[1] - s[1]]))
        .collect();
    Some(all.len())
}

/// What a local value is called: its name, or what it is a function of.
fn called(graph: &Graph, form: &NormalForm, id: NodeId) -> String {
    if let Some(name) = &graph.node(id).name {
        return name.clone();
    }
    // The nearest named values it depends on, in order of computation.
    let mut named: BTreeSet<NodeId> = BTreeSet::new();
    let mut seen: BTreeSet<NodeId> = BTreeSet::new();
    let mut open = vec![id];
    while let Some(at) = open.pop() {
        for &a in graph.args(at) {
            if form.kinds.get(a) == Dependence::Const || !seen.insert(a) {
                continue;
            }
            if graph.node(a).name.is_some() || graph.args(a).is_empty() {
                named.insert(a);
            } else {
                open.push(a);
            }
        }
    }
    let name = |&id: &NodeId| graph.node(id).name.clone().unwrap_or("spins".to_owned());
    let names: Vec<String> = named.iter().map(name).collect();
    format!("f({})", names.join(", "))
}

fn spins(w: Window) -> [[i64; 2]; 2] {
    [[w.lo[0], w.hi[0]], [w.lo[1], w.hi[1]]]
}

fn dims(shape: &[Dim]) -> String {
    let one = |d: &Dim| match *d {
        Dim::Static(n) => n.to_string(),
        Dim::Sites { scale: 1, per: 1 } => "N".to_owned(),
        Dim::Sites { scale, per: 1 } => format!("{scale} N"),
        Dim::Sites { scale: 1, per } => format!("N/{per}"),
        Dim::Sites { scale, per } => format!("{scale} N/{per}"),
    };
    format!("[{}]", shape.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn matrix(rows: &str, columns: &str) -> String {
    format!("{rows} x {columns}")
}
