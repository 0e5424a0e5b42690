//! Elementwise expressions: what a fused loop computes for one element.

use crate::ir::{MapFn, ZipFn};
use std::fmt;

/// Where an operand of an expression lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leaf {
    /// A row of the arena: one value per lane, depends on the configuration.
    Row,
    /// A row that depends on parameters only.
    Static,
    /// One number for all lanes, depends on parameters only.
    Scalar,
}

/// One operation; operands are indices of earlier nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExprNode {
    /// Operand number k.
    Leaf(usize),
    /// A number, by its bits.
    Number(u64),
    /// Function of one argument.
    Map(MapFn, usize),
    /// `1 / (1 + exp(-x))`
    Sigmoid(usize),
    /// `a b + c`
    Fma(usize, usize, usize),
    /// Function of two arguments.
    Zip(ZipFn, usize, usize),
}

/// A straight-line elementwise program with one result, its last node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Expr {
    nodes: Vec<ExprNode>,
    leaves: Vec<Leaf>,
}

impl Expr {
    /// Nodes in order.
    pub fn nodes(&self) -> &[ExprNode] {
        &self.nodes
    }
    /// Classes of the operands.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }
    /// Adds a node unless an equal one exists; returns its index.
    pub fn push(&mut self, node: ExprNode) -> usize {
        if let Some(k) = self.nodes.iter().position(|n| *n == node) {
            return k;
        }
        self.nodes.push(node);
        self.nodes.len() - 1
    }
    /// Adds an operand; returns the index of its node.
    pub fn leaf(&mut self, class: Leaf) -> usize {
        self.leaves.push(class);
        self.nodes.push(ExprNode::Leaf(self.leaves.len() - 1));
        self.nodes.len() - 1
    }
    /// Floating-point operations per element, a transcendental counted as its
    /// polynomial.
    pub fn flops(&self) -> usize {
        let cost = |n: &ExprNode| match n {
            ExprNode::Leaf(_) | ExprNode::Number(_) => 0,
            ExprNode::Fma(..) => 2,
            ExprNode::Sigmoid(_) => 24,
            ExprNode::Map(f, _) => match f {
                MapFn::Neg
                | MapFn::Abs
                | MapFn::Sign
                | MapFn::Floor
                | MapFn::Sqrt
                | MapFn::Recip => 1,
                MapFn::Exp => 20,
                _ => 40,
            },
            ExprNode::Zip(f, ..) => match f {
                ZipFn::Pow | ZipFn::Atan2 => 60,
                ZipFn::Mod => 4,
                _ => 1,
            },
        };
        self.nodes.iter().map(cost).sum()
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn show(e: &Expr, k: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match e.nodes[k] {
                ExprNode::Leaf(l) => match e.leaves[l] {
                    Leaf::Row => write!(f, "${l}"),
                    Leaf::Static => write!(f, "static ${l}"),
                    Leaf::Scalar => write!(f, "scalar ${l}"),
                },
                ExprNode::Number(bits) => write!(f, "{}", f64::from_bits(bits)),
                ExprNode::Map(g, a) => call(e, &format!("{g:?}").to_lowercase(), &[a], f),
                ExprNode::Sigmoid(a) => call(e, "sigmoid", &[a], f),
                ExprNode::Fma(a, b, c) => call(e, "fma", &[a, b, c], f),
                ExprNode::Zip(g, a, b) => call(e, &format!("{g:?}").to_lowercase(), &[a, b], f),
            }
        }
        fn call(e: &Expr, name: &str, args: &[usize], f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{name}(")?;
            for (n, &a) in args.iter().enumerate() {
                if n > 0 {
                    f.write_str(", ")?;
                }
                show(e, a, f)?;
            }
            f.write_str(")")
        }
        if self.nodes.is_empty() {
            Ok(())
        } else {
            show(self, self.nodes.len() - 1, f)
        }
    }
}
