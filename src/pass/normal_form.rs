//! Scattering normal form: mixers and the site-local, affine code between them.
//!
//! A network that keeps the rules is, with mixers m in topological order,
//!
//! ```text
//! v_m[i] = S_m[i;s] + sum_{k<m} A_mk[i;s] y_k[i]      input of mixer m
//! y_m    = G_m v_m                                      its output
//! Omega  = sum_i ( q[i;s] + sum_k R_k[i;s] y_k[i] )     pooled features
//! log psi = F(Omega)                                    readout
//! ```
//!
//! Nothing is rewritten: `v_m`, `y_m` and the operands of the pools are nodes of
//! the graph, and what lies between them is site-local. What this pass computes
//! is which nodes they are and, for every coefficient, whether it vanishes, is
//! constant, or depends on the configuration, and through which window. A
//! site-moving operation (stencil, patch) on a linear value is a mixer too, with
//! a sparse kernel.

use crate::check::core::{Place, Token, Window};
use crate::ir::kinds::{Dependence, Kinds};
use crate::ir::{Graph, NodeId, Op};
use std::collections::BTreeMap;

/// How a coefficient of the normal form depends on the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coefficient {
    /// Structurally zero.
    Zero,
    /// The same for all configurations.
    Const,
    /// Through a window of spins around the site.
    Local(Window),
}

impl Coefficient {
    /// Of a sum of two coefficients.
    pub fn plus(self, o: Coefficient) -> Coefficient {
        use Coefficient::*;
        match (self, o) {
            (Zero, x) | (x, Zero) | (Const, x) | (x, Const) => x,
            (Local(a), Local(b)) => Local(a.hull(b)),
        }
    }
    /// Of a product of a coefficient with a value of this dependence.
    pub fn times(self, gate: Coefficient) -> Coefficient {
        match (self, gate) {
            (Coefficient::Zero, _) | (_, Coefficient::Zero) => Coefficient::Zero,
            (a, b) => a.plus(b),
        }
    }
    /// Whether it is structurally zero.
    pub fn is_zero(self) -> bool {
        self == Coefficient::Zero
    }
    /// Its window if it depends on the configuration.
    pub fn window(self) -> Option<Window> {
        match self {
            Coefficient::Local(w) => Some(w),
            _ => None,
        }
    }
}

/// The factored form of a vertex `A_mk` (or readout coefficient): a constant
/// matrix, plus `sum_t U_t diag(g_t) V_t` with constant U, V, plus a rest that
/// is neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VertexForm {
    /// A constant path exists (a residual connection, a fixed matrix).
    pub constant: bool,
    /// Local nodes that act as diagonal gates, each on one path.
    pub gates: Vec<NodeId>,
    /// Local nodes entering by contraction or as second gate on a path.
    pub matrices: Vec<NodeId>,
}

impl VertexForm {
    fn plus(&mut self, o: &VertexForm) {
        self.constant |= o.constant;
        for (mine, theirs) in [
            (&mut self.gates, &o.gates),
            (&mut self.matrices, &o.matrices),
        ] {
            for &n in theirs {
                if !mine.contains(&n) {
                    mine.push(n);
                }
            }
        }
    }
    fn times(&self, gate: NodeId, diagonal: bool) -> VertexForm {
        if diagonal && self.gates.is_empty() && self.matrices.is_empty() && self.constant {
            return VertexForm {
                gates: vec![gate],
                ..VertexForm::default()
            };
        }
        let mut matrices = self.matrices.clone();
        for &n in self.gates.iter().chain([&gate]) {
            if !matrices.contains(&n) {
                matrices.push(n);
            }
        }
        VertexForm {
            matrices,
            ..VertexForm::default()
        }
    }
}

/// One term `A_mk y_k` or `R_k y_k`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vertex {
    /// Dependence on the configuration.
    pub coefficient: Coefficient,
    /// How it factors.
    pub form: VertexForm,
}

/// A linear value as an affine function of mixer outputs at the same site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affine {
    /// The part that received nothing from mixers: S or q.
    pub source: Coefficient,
    /// Coefficient of each mixer's output, by mixer; absent means zero.
    pub vertices: BTreeMap<usize, Vertex>,
}

impl Affine {
    /// The coefficient of mixer `k`'s output.
    pub fn coefficient(&self, k: usize) -> Coefficient {
        self.vertices
            .get(&k)
            .map_or(Coefficient::Zero, |v| v.coefficient)
    }
    /// All coefficients, the source first.
    pub fn coefficients(&self) -> impl Iterator<Item = Coefficient> + '_ {
        std::iter::once(self.source).chain(self.vertices.values().map(|v| v.coefficient))
    }
}

/// What a mixer is made of; decides which link strategies apply to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MixerClass {
    /// Linear recurrences.
    StateSpace,
    /// Any translation-invariant kernel.
    Toeplitz,
    /// Any pair kernel.
    Dense,
    /// A stencil on a linear value.
    Stencil,
    /// A change of token size of a linear value.
    Coarsening,
}

impl std::fmt::Display for MixerClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            MixerClass::StateSpace => "state space",
            MixerClass::Toeplitz => "toeplitz",
            MixerClass::Dense => "dense",
            MixerClass::Stencil => "stencil",
            MixerClass::Coarsening => "coarsening",
        })
    }
}

/// Mixer m of the normal form.
#[derive(Clone, Debug)]
pub struct Mixer {
    /// The node `v_m`.
    pub input: NodeId,
    /// The node `y_m`.
    pub output: NodeId,
    /// Its class.
    pub class: MixerClass,
    /// Tokens `v_m` lives on.
    pub source_token: Token,
    /// Tokens `y_m` lives on (differs from the source's for coarsenings only).
    pub target_token: Token,
    /// `v_m` as an affine function of `y_k`, k < m.
    pub affine: Affine,
}

/// How a pool turns a per-site value into features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolKind {
    /// Sum over sites.
    Sum,
    /// All sites kept: features proportional to N.
    Gather,
}

/// One group of pooled features.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The per-site node that is pooled.
    pub input: NodeId,
    /// The features (a `Whole` node).
    pub output: NodeId,
    /// Sum or gather.
    pub kind: PoolKind,
    /// Tokens the input lives on.
    pub token: Token,
    /// The input as an affine function of mixer outputs: q and R_k.
    pub affine: Affine,
}

/// A network in scattering normal form.
#[derive(Clone, Debug)]
pub struct NormalForm {
    /// Dependence of every node of the graph.
    pub kinds: Kinds,
    /// Mixers that reach the readout, in topological order.
    pub mixers: Vec<Mixer>,
    /// Pooled features.
    pub pools: Vec<Pool>,
    /// Nodes computed from pooled features (and constants), in order.
    pub readout: Vec<NodeId>,
    /// Per-site local nodes in use, in order: what must be re-evaluated on the slice.
    pub locals: Vec<NodeId>,
    /// Per-site linear nodes in use except mixer outputs, in order.
    pub linears: Vec<NodeId>,
}

/// Why a graph has no normal form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoNormalForm {
    /// A node in use is neither local, linear nor pooled.
    #[error("{op} (node {node}) is neither local nor linear: only full re-evaluation is exact")]
    Global {
        /// Index of the first such node.
        node: usize,
        /// Its operation.
        op: String,
    },
    /// An output is not one value per configuration.
    #[error("output {0} is not one value per configuration")]
    Output(usize),
}

impl NormalForm {
    /// Brings `graph` into normal form.
    ///
    /// # Errors
    /// [`NoNormalForm`] if a node the outputs depend on is global, or an output
    /// is still per site.
    pub fn new(graph: &Graph) -> Result<NormalForm, NoNormalForm> {
        let kinds = Kinds::new(graph);
        let used = reachable(graph);
        for id in graph.ids().filter(|n| used[n.index()]) {
            if kinds.get(id) == Dependence::Global {
                return Err(NoNormalForm::Global {
                    node: id.index(),
                    op: op_name(graph.op(id)),
                });
            }
        }
        for (n, &o) in graph.outputs.iter().enumerate() {
            if !matches!(kinds.get(o), Dependence::Const | Dependence::Pooled) {
                return Err(NoNormalForm::Output(n));
            }
        }
        let mut form = NormalForm {
            kinds,
            mixers: vec![],
            pools: vec![],
            readout: vec![],
            locals: vec![],
            linears: vec![],
        };
        let mut affine: BTreeMap<NodeId, Affine> = BTreeMap::new();
        for id in graph.ids().filter(|n| used[n.index()]) {
            match form.kinds.get(id) {
                Dependence::Local(_) => form.locals.push(id),
                Dependence::Linear if form.kinds.is_mixer(graph, id) => {
                    let input = graph.args(id)[0];
                    let m = form.mixers.len();
                    form.mixers.push(Mixer {
                        input,
                        output: id,
                        class: class_of(graph.op(id)),
                        source_token: token_of(graph, input),
                        target_token: token_of(graph, id),
                        affine: form.affine_of(&affine, input),
                    });
                    let form = VertexForm {
                        constant: true,
                        ..VertexForm::default()
                    };
                    let unit = Vertex {
                        coefficient: Coefficient::Const,
                        form,
                    };
                    affine.insert(
                        id,
                        Affine {
                            source: Coefficient::Zero,
                            vertices: BTreeMap::from([(m, unit)]),
                        },
                    );
                }
                Dependence::Linear => {
                    form.linears.push(id);
                    let a = form.propagate(graph, &affine, id);
                    affine.insert(id, a);
                }
                Dependence::Pooled => {
                    let first = graph.args(id)[0];
                    let kind = match graph.op(id) {
                        Op::Sum => Some(PoolKind::Sum),
                        Op::Gather => Some(PoolKind::Gather),
                        _ => None,
                    };
                    match (kind, form.kinds.get(first)) {
                        (Some(kind), Dependence::Local(_) | Dependence::Linear) => {
                            form.pools.push(Pool {
                                input: first,
                                output: id,
                                kind,
                                token: token_of(graph, first),
                                affine: form.affine_of(&affine, first),
                            })
                        }
                        _ => form.readout.push(id),
                    }
                }
                Dependence::Const | Dependence::Global => {}
            }
        }
        Ok(form)
    }

    /// The mixer whose output `node` is.
    pub fn mixer_of(&self, node: NodeId) -> Option<usize> {
        self.mixers.iter().position(|m| m.output == node)
    }

    /// The coefficient `A_mk`; zero for k >= m.
    pub fn vertex(&self, m: usize, k: usize) -> Coefficient {
        self.mixers[m].affine.coefficient(k)
    }

    /// Whether the link `L_mk` (k <= m) can be nonzero: mixer k's output reaches
    /// mixer m's input through vertices and mixers in between.
    pub fn linked(&self, m: usize, k: usize) -> bool {
        m == k || (k < m && (k..m).any(|l| !self.vertex(m, l).is_zero() && self.linked(l, k)))
    }

    /// The sites of the affine value, dependence of a node seen as coefficient.
    fn affine_of(&self, known: &BTreeMap<NodeId, Affine>, node: NodeId) -> Affine {
        known.get(&node).cloned().unwrap_or_else(|| Affine {
            source: self.coefficient(node),
            vertices: BTreeMap::new(),
        })
    }

    fn coefficient(&self, node: NodeId) -> Coefficient {
        match self.kinds.get(node) {
            Dependence::Local(w) => Coefficient::Local(w),
            _ => Coefficient::Const,
        }
    }

    fn propagate(&self, graph: &Graph, known: &BTreeMap<NodeId, Affine>, id: NodeId) -> Affine {
        let args = graph.args(id);
        let is_linear = |n: &&NodeId| self.kinds.get(**n) == Dependence::Linear;
        let is_product = matches!(
            graph.op(id),
            Op::Einsum(_) | Op::Zip(crate::ir::ZipFn::Mul | crate::ir::ZipFn::Div)
        );
        if !is_product {
            // Sums, joins and reshapes: coefficients add.
            let mut total = Affine {
                source: Coefficient::Zero,
                vertices: BTreeMap::new(),
            };
            for &a in args {
                let part = self.affine_of(known, a);
                total.source = total.source.plus(part.source);
                for (k, v) in part.vertices {
                    total
                        .vertices
                        .entry(k)
                        .and_modify(|t| {
                            t.coefficient = t.coefficient.plus(v.coefficient);
                            t.form.plus(&v.form);
                        })
                        .or_insert(v);
                }
            }
            return total;
        }
        let linear = args
            .iter()
            .find(is_linear)
            .expect("a linear product has a linear factor");
        let mut value = self.affine_of(known, *linear);
        let diagonal = !matches!(graph.op(id), Op::Einsum(_));
        for &factor in args.iter().filter(|a| !is_linear(a)) {
            let gate = self.coefficient(factor);
            value.source = value.source.times(gate);
            for v in value.vertices.values_mut() {
                v.coefficient = v.coefficient.times(gate);
                if gate.window().is_some() {
                    v.form = v.form.times(factor, diagonal);
                }
            }
        }
        value
    }
}

/// A short name of an operation for messages.
pub fn op_name(op: &Op) -> String {
    let text = format!("{op:?}");
    text.split([' ', '(', '{'])
        .next()
        .unwrap_or_default()
        .to_lowercase()
}

fn class_of(op: &Op) -> MixerClass {
    match op {
        Op::Scan(_) => MixerClass::StateSpace,
        Op::Convolve { .. } | Op::Modes { .. } => MixerClass::Toeplitz,
        Op::Window { .. } | Op::WindowAdjoint { .. } => MixerClass::Stencil,
        Op::Patch { .. } | Op::Unpatch { .. } => MixerClass::Coarsening,
        _ => MixerClass::Dense,
    }
}

fn token_of(graph: &Graph, node: NodeId) -> Token {
    match graph.ty(node).place {
        Place::Site(t) => t,
        // Linear and local nodes live on sites: `Kinds` made anything else global.
        _ => Token::SPIN,
    }
}

fn reachable(graph: &Graph) -> Vec<bool> {
    let mut used = vec![false; graph.len()];
    for &o in &graph.outputs {
        used[o.index()] = true;
    }
    for id in graph.ids().rev() {
        if used[id.index()] {
            for a in graph.args(id) {
                used[a.index()] = true;
            }
        }
    }
    used
}
