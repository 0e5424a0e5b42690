//! What can be wrong with a node.

use crate::check::core::{Dim, Place, Token};
use crate::ir::NodeType;

/// A node that breaks a typing rule.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("node {node} ({op}): {fault}")]
pub struct Invalid {
    /// Index of the node.
    pub node: usize,
    /// Its operation.
    pub op: String,
    /// The rule broken.
    pub fault: Fault,
}

/// A broken typing rule. Operands are counted from 0.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Wrong number of operands.
    #[error("{expected} operands expected, {found} given")]
    OperandCount {
        /// How many the operation takes.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// An operand that does not precede its user.
    #[error("operand {0} does not precede the node")]
    Order(usize),
    /// An operand on the wrong index set.
    #[error("operand {operand} lives on {found:?}, not on {expected}")]
    OperandPlace {
        /// Which.
        operand: usize,
        /// What the operation wants.
        expected: &'static str,
        /// Where it is.
        found: Place,
    },
    /// Operands on different index sets.
    #[error("operands live on {0:?} and {1:?}")]
    PlacesDiffer(Place, Place),
    /// An operand of the wrong shape.
    #[error("operand {operand} has shape {found:?}, not {expected:?}")]
    OperandShape {
        /// Which.
        operand: usize,
        /// What the operation wants.
        expected: Vec<Dim>,
        /// What it has.
        found: Vec<Dim>,
    },
    /// A shape without the leading axis the operation demands.
    #[error("operand {operand} of shape {found:?} lacks the leading axes {expected:?}")]
    LeadingAxis {
        /// Which.
        operand: usize,
        /// The axes wanted.
        expected: Vec<Dim>,
        /// What it has.
        found: Vec<Dim>,
    },
    /// Shapes that do not broadcast.
    #[error("shapes {0:?} and {1:?} do not broadcast")]
    Broadcast(Vec<Dim>, Vec<Dim>),
    /// An axis the operand does not have, or one of run-time length.
    #[error("axis {axis} of shape {shape:?} does not exist or has no static length")]
    Axis {
        /// Which.
        axis: usize,
        /// The shape.
        shape: Vec<Dim>,
    },
    /// A part that reaches beyond its axis.
    #[error("elements {start}..{start}+{len} of an axis of length {axis_len}")]
    Range {
        /// First element.
        start: usize,
        /// Elements.
        len: usize,
        /// Length of the axis.
        axis_len: usize,
    },
    /// A lattice axis other than 0 and 1.
    #[error("the lattice has no axis {0}")]
    LatticeAxis(usize),
    /// Letters of a contraction that fit neither operands nor each other.
    #[error("contraction: {0}")]
    Letters(String),
    /// Reversed or overlong window.
    #[error("offsets {lo:?}..={hi:?} are no window")]
    Window {
        /// First offsets.
        lo: [i64; 2],
        /// Last offsets.
        hi: [i64; 2],
    },
    /// Tokens or patches of zero spins, or that do not divide each other.
    #[error("ratio {ratio:?} does not fit tokens {token:?}")]
    Ratio {
        /// The ratio.
        ratio: [usize; 2],
        /// The token.
        token: Token,
    },
    /// A type with an empty token or a length without meaning.
    #[error("{0:?} is no type")]
    Meaningless(NodeType),
    /// A gradient of an operand the scan does not have.
    #[error("the scan has no coefficient operand {0}")]
    ScanOperand(usize),
    /// An index beyond `Graph::params`.
    #[error("there is no parameter {0}")]
    NoParam(u32),
    /// The declared type is not the one the operation yields.
    #[error("declared {declared:?}, but the operation yields {yields:?}")]
    Type {
        /// Of the node.
        declared: NodeType,
        /// By the rules.
        yields: NodeType,
    },
    /// The declared type is not among those the operation can yield.
    #[error("the operation cannot yield {0:?}")]
    Declared(NodeType),
    /// The operation does not determine its type.
    #[error("the operation does not determine its type")]
    Undetermined,
}
