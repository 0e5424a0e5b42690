//! The network graph: nodes, types, construction.

use crate::check::core::{Dim, Einsum, Place, Token};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

/// A node of the graph. Operands always have smaller ids than their users.
pub type NodeId = NodeIndex<u32>;

/// Type of a node: every value is a real tensor, indexed by its place, then by
/// its shape (row major).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeType {
    /// Index set.
    pub place: Place,
    /// Axes per index, slowest first.
    pub shape: Vec<Dim>,
}

/// Real elementwise functions of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MapFn {
    /// -x
    Neg,
    /// e^x
    Exp,
    /// Natural logarithm
    Log,
    /// log(1 + x)
    Log1p,
    /// Square root
    Sqrt,
    /// Sine
    Sin,
    /// Cosine
    Cos,
    /// Hyperbolic tangent
    Tanh,
    /// log cosh x = |x| + log1p(exp(-2|x|)) - log 2
    LogCosh,
    /// |x|
    Abs,
    /// -1, 0 or 1
    Sign,
    /// Error function
    Erf,
    /// Largest integer not above x
    Floor,
    /// 1 / x
    Recip,
}

/// Real elementwise functions of two arguments, broadcasting as NumPy does on
/// shapes, and `Whole` into any place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ZipFn {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a b
    Mul,
    /// a / b
    Div,
    /// a^b for a > 0
    Pow,
    /// The larger one
    Max,
    /// The smaller one
    Min,
    /// Angle of (b, a)
    Atan2,
    /// a - b floor(a / b)
    Mod,
    /// 1 where a > b, 0 elsewhere (derivatives of max and min)
    Greater,
}

/// Directions and operands of a scan; complex operands come as a leading axis
/// of length 2 (real, imaginary) on x and on every coefficient.
///
/// Semantics per channel, complex arithmetic if `complex`:
/// `h_i = A h_{i-1} + input x_i`, `y_i = sum_n output_n h_{i,n}`, with
/// `A = diag(decay) - p q^T` or dense. On a ring `h` is the periodic solution; on an open chain
/// h before the first site is 0. `leftward` runs from high to low sites;
/// `mirror` adds the other direction. No skip term: lowered to a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scan {
    /// x and the coefficients are complex.
    pub complex: bool,
    /// A is a dense matrix.
    pub dense: bool,
    /// A has the rank-one part - p q^T.
    pub low_rank: bool,
    /// The other direction is added.
    pub mirror: bool,
    /// From high to low sites.
    pub leftward: bool,
}

/// Operations. "Operand" numbers follow the order of [`Graph::args`].
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Real parameter tensor, by index into [`Graph::params`].
    Param(u32),
    /// A number.
    Number(f64),
    /// The configuration, `Site(SPIN)`, shape `[]`.
    Spins,
    /// Token coordinate along an axis, per site.
    SiteIndex {
        /// Of the lattice, 0 or 1.
        axis: usize,
    },
    /// Displacement target - source along an axis; ring: in (-T/2, T/2].
    Displacement {
        /// Of the lattice, 0 or 1.
        axis: usize,
    },
    /// Momentum along an axis, in (-pi, pi]; ring only.
    Momentum {
        /// Of the lattice, 0 or 1.
        axis: usize,
    },
    /// Coordinate of the target or the source of a pair.
    PairIndex {
        /// Of the lattice, 0 or 1.
        axis: usize,
        /// Of the source; otherwise of the target.
        source: bool,
    },
    /// Number of tokens.
    SiteCount(Token),
    /// Tokens along an axis.
    Extent {
        /// Of the lattice, 0 or 1.
        axis: usize,
        /// What is counted.
        token: Token,
    },
    /// Elementwise.
    Map(MapFn),
    /// Elementwise with broadcasting.
    Zip(ZipFn),
    /// Contraction of one or two operands; `Whole` operands broadcast into the
    /// place of the other.
    Einsum(Einsum),
    /// New shape (the node's own), same elements.
    Reshape,
    /// Part of one axis.
    Slice {
        /// Of the shape.
        axis: usize,
        /// First element.
        start: usize,
        /// Elements.
        len: usize,
    },
    /// Zeros around the operand along one axis (adjoint of `Slice`): result length `len`.
    Pad {
        /// Of the shape.
        axis: usize,
        /// Where the operand starts.
        start: usize,
        /// Elements of the result.
        len: usize,
    },
    /// Join along an axis.
    Concat {
        /// Of the shape.
        axis: usize,
    },
    /// Explicit broadcast to the node's place and shape (NumPy alignment).
    Broadcast,
    /// Neighbours at offsets lo..=hi as leading axis; zero outside an open lattice.
    Window {
        /// First offset per lattice axis.
        lo: [i64; 2],
        /// Last offset per lattice axis, included.
        hi: [i64; 2],
    },
    /// Adjoint of `Window`: `y_i = sum_r x_{i-r}[r]`, leading axis removed.
    WindowAdjoint {
        /// First offset per lattice axis.
        lo: [i64; 2],
        /// Last offset per lattice axis, included.
        hi: [i64; 2],
    },
    /// `ratio` fine tokens as leading axis of a coarse token.
    Patch {
        /// Fine tokens per coarse token along each lattice axis.
        ratio: [usize; 2],
    },
    /// Adjoint of `Patch`.
    Unpatch {
        /// Fine tokens per coarse token along each lattice axis.
        ratio: [usize; 2],
    },
    /// Sum over the place; result `Whole`. Operand on any place.
    Sum,
    /// All sites as a leading axis; result `Whole`.
    Gather,
    /// Adjoint of `Gather`: leading axis becomes the sites of the node's place.
    Scatter,
    /// Recurrence. Operands: x, decay | transition, [p, q], input, output.
    Scan(Scan),
    /// Gradient of `sum(g * scan(x, ..))` with respect to coefficient operand
    /// `wrt` (1-based as in `Scan`). Operands: g, x, then the coefficients.
    ScanGrad {
        /// The recurrence.
        scan: Scan,
        /// Which operand of it.
        wrt: usize,
    },
    /// `y_i = sum_j k(i-j) x_j`; operands x, k. `transposed`: k(j-i).
    /// `complex`: leading axis 2 on both; transposed does not conjugate.
    Convolve {
        /// Leading axis 2: real and imaginary parts.
        complex: bool,
        /// The adjoint (transposed) operation.
        transposed: bool,
    },
    /// Gradient with respect to the kernel: `k(n) = sum_i g_i x_{i-n}`;
    /// operands g, x; result on `Displacement`. `complex`: `Re`-adjoint pairing,
    /// i.e. `conj` on x.
    Correlate {
        /// Leading axis 2: real and imaginary parts.
        complex: bool,
    },
    /// Multiplication in momentum space; operands x, symbol (leading axis 2:
    /// always complex). x and y real if not `complex` (real part taken), else
    /// leading axis 2. `transposed`: symbol conjugated (adjoint).
    Modes {
        /// Leading axis 2: real and imaginary parts.
        complex: bool,
        /// The adjoint (transposed) operation.
        transposed: bool,
    },
    /// Gradient with respect to the symbol; operands g, x; leading axis 2.
    ModesGrad {
        /// Leading axis 2: real and imaginary parts.
        complex: bool,
    },
    /// `y_i = sum_j k(i,j) x_j`; operands x, k on `Pair`.
    Mix {
        /// Leading axis 2: real and imaginary parts.
        complex: bool,
        /// The adjoint (transposed) operation.
        transposed: bool,
    },
    /// Gradient with respect to the pair kernel: `g_i x_j`.
    MixGrad {
        /// Leading axis 2: real and imaginary parts.
        complex: bool,
    },
    /// Sum over sources of a `Pair` value: per site.
    RowSum,
    /// Adjoint of `RowSum`: per-site value copied to every source.
    RowBroadcast,
}

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// Its type.
    pub ty: NodeType,
    /// The user's name for it, if any.
    pub name: Option<String>,
    operands: Vec<NodeId>,
}

/// A real parameter tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphParam {
    /// Its key in saved files.
    pub path: String,
    /// Place and shape.
    pub ty: NodeType,
}

/// A network as a graph of real tensors; see the [module essay](super).
#[derive(Clone, Debug, Default)]
pub struct Graph {
    graph: DiGraph<Node, usize, u32>,
    /// Parameters, in order of declaration.
    pub params: Vec<GraphParam>,
    /// The results: for a network `[Re log psi]` or `[Re log psi, Im log psi]`.
    pub outputs: Vec<NodeId>,
}

impl Graph {
    /// Adds a node. Operands must exist. The type is taken as given; see
    /// [`super::valid`] for the rules it must obey.
    pub fn push(&mut self, op: Op, operands: &[NodeId], ty: NodeType) -> NodeId {
        let id = self.graph.add_node(Node {
            op,
            ty,
            name: None,
            operands: operands.to_vec(),
        });
        for (k, &o) in operands.iter().enumerate() {
            self.graph.add_edge(o, id, k);
        }
        id
    }
    /// Names a node (the first name given stays).
    pub fn set_name(&mut self, id: NodeId, name: &str) {
        self.graph[id].name.get_or_insert_with(|| name.to_owned());
    }
    /// The node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.graph[id]
    }
    /// Its operation.
    pub fn op(&self, id: NodeId) -> &Op {
        &self.graph[id].op
    }
    /// Its type.
    pub fn ty(&self, id: NodeId) -> &NodeType {
        &self.graph[id].ty
    }
    /// Its operands in order.
    pub fn args(&self, id: NodeId) -> &[NodeId] {
        &self.graph[id].operands
    }
    /// Its users, each with the operand position it is used at.
    pub fn users(&self, id: NodeId) -> impl Iterator<Item = (NodeId, usize)> + '_ {
        self.graph.edges(id).map(|e| (e.target(), *e.weight()))
    }
    /// All nodes, operands before users.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.graph.node_count() as u32).map(NodeId::from)
    }
    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }
    /// No nodes at all.
    pub fn is_empty(&self) -> bool {
        self.graph.node_count() == 0
    }
    /// The underlying petgraph, for its algorithms and `dot` output.
    pub fn petgraph(&self) -> &DiGraph<Node, usize, u32> {
        &self.graph
    }
}
