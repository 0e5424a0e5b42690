//! From trees of elementwise operations to fused loops.

use super::geometry::Space;
use super::lower::{Lowering, Value, cells};
use super::{Cell, LowerError, MapRow, Row, Step};
use crate::ir::{MapFn, NodeId, ZipFn};
use crate::kernel::expr::{Expr, ExprNode, Leaf};
use std::collections::HashMap;
use std::rc::Rc;

/// One element of a value as an expression over cells.
#[derive(Clone, Debug)]
pub(super) enum Tree {
    Cell(Cell),
    Map(MapFn, Rc<Tree>),
    Zip(ZipFn, Rc<Tree>, Rc<Tree>),
}

impl Tree {
    fn number(&self) -> Option<f64> {
        match self {
            Tree::Cell(Cell::Number(x)) => Some(*x),
            _ => None,
        }
    }

    pub(super) fn map(f: MapFn, a: Rc<Tree>) -> Rc<Tree> {
        Rc::new(Tree::Map(f, a))
    }

    /// With additions of 0 and products with 0 and 1 removed (zeros come from
    /// padding: rows outside the support of a change).
    pub(super) fn zip(f: ZipFn, a: Rc<Tree>, b: Rc<Tree>) -> Rc<Tree> {
        match (f, a.number(), b.number()) {
            (ZipFn::Add, Some(0.0), _) => b,
            (ZipFn::Add | ZipFn::Sub, _, Some(0.0)) => a,
            (ZipFn::Sub, Some(0.0), _) => Tree::map(MapFn::Neg, b),
            (ZipFn::Mul, Some(1.0), _) => b,
            (ZipFn::Mul | ZipFn::Div, _, Some(1.0)) => a,
            (ZipFn::Mul, Some(0.0), _) | (ZipFn::Mul, _, Some(0.0)) => {
                Rc::new(Tree::Cell(Cell::Number(0.0)))
            }
            (ZipFn::Div, Some(1.0), _) => Tree::map(MapFn::Recip, b),
            _ => Rc::new(Tree::Zip(f, a, b)),
        }
    }

    /// x, if this is `1 / (1 + exp(-x))`.
    fn sigmoid_argument(&self) -> Option<&Rc<Tree>> {
        let Tree::Map(MapFn::Recip, d) = self else {
            return None;
        };
        let Tree::Zip(ZipFn::Add, a, b) = &**d else {
            return None;
        };
        let e = if a.number() == Some(1.0) {
            b
        } else if b.number() == Some(1.0) {
            a
        } else {
            return None;
        };
        let Tree::Map(MapFn::Exp, minus) = &**e else {
            return None;
        };
        let Tree::Map(MapFn::Neg, x) = &**minus else {
            return None;
        };
        Some(x)
    }
}

/// Builds the expression of one element and its operands.
struct Builder {
    expr: Expr,
    leaves: Vec<(Cell, usize)>,
    /// Nodes of shared subtrees, by address.
    seen: HashMap<*const Tree, usize>,
}

impl Builder {
    fn build(tree: &Rc<Tree>) -> (Expr, Vec<Cell>) {
        let mut b = Builder {
            expr: Expr::default(),
            leaves: Vec::new(),
            seen: HashMap::new(),
        };
        b.node(tree);
        (b.expr, b.leaves.into_iter().map(|(c, _)| c).collect())
    }

    fn node(&mut self, tree: &Rc<Tree>) -> usize {
        if let Some(&k) = self.seen.get(&Rc::as_ptr(tree)) {
            return k;
        }
        let k = self.fresh(tree);
        self.seen.insert(Rc::as_ptr(tree), k);
        k
    }

    fn fresh(&mut self, tree: &Rc<Tree>) -> usize {
        if let Some(x) = tree.sigmoid_argument() {
            let x = self.node(x);
            return self.expr.push(ExprNode::Sigmoid(x));
        }
        match &**tree {
            Tree::Cell(Cell::Number(x)) => self.expr.push(ExprNode::Number(x.to_bits())),
            Tree::Cell(cell) => {
                if let Some((_, k)) = self.leaves.iter().find(|(c, _)| c == cell) {
                    return *k;
                }
                let class = match cell {
                    Cell::Row(_) => Leaf::Row,
                    Cell::Static(_) => Leaf::Static,
                    _ => Leaf::Scalar,
                };
                let k = self.expr.leaf(class);
                self.leaves.push((*cell, k));
                k
            }
            Tree::Map(f, a) => {
                let a = self.node(a);
                self.expr.push(ExprNode::Map(*f, a))
            }
            Tree::Zip(ZipFn::Add, a, b) => {
                let product = |t: &Rc<Tree>| matches!(&**t, Tree::Zip(ZipFn::Mul, ..));
                let (p, c) = if product(a) { (a, b) } else { (b, a) };
                if let (true, Tree::Zip(_, x, y)) = (product(p), &**p) {
                    let (x, y, c) = (self.node(x), self.node(y), self.node(c));
                    return self.expr.push(ExprNode::Fma(x, y, c));
                }
                let (a, b) = (self.node(a), self.node(b));
                self.expr.push(ExprNode::Zip(ZipFn::Add, a, b))
            }
            Tree::Zip(ZipFn::Div, a, b) => {
                // a / (1 + exp(-x)) = a sigmoid(x)
                let recip = Tree::map(MapFn::Recip, b.clone());
                if let Some(x) = recip.sigmoid_argument() {
                    let (a, x) = (self.node(a), self.node(x));
                    let s = self.expr.push(ExprNode::Sigmoid(x));
                    return self.expr.push(ExprNode::Zip(ZipFn::Mul, a, s));
                }
                let (a, b) = (self.node(a), self.node(b));
                self.expr.push(ExprNode::Zip(ZipFn::Div, a, b))
            }
            Tree::Zip(f, a, b) => {
                let (a, b) = (self.node(a), self.node(b));
                self.expr.push(ExprNode::Zip(*f, a, b))
            }
        }
    }
}

impl Lowering<'_> {
    /// Puts elements into rows of a new buffer, one fused loop per expression.
    pub(super) fn materialise(
        &mut self,
        value: &[Rc<Tree>],
        at: Space,
        name: &str,
    ) -> Result<Value, LowerError> {
        let out = self.buffer(name.to_owned(), at, value.len());
        let mut groups: Vec<(Expr, Vec<MapRow>)> = Vec::new();
        let mut index: HashMap<Expr, usize> = HashMap::new();
        for (tree, &out) in value.iter().zip(&out) {
            let (expr, leaves) = Builder::build(tree);
            let k = *index.entry(expr.clone()).or_insert_with(|| {
                groups.push((expr, Vec::new()));
                groups.len() - 1
            });
            groups[k].1.push(MapRow { out, leaves });
        }
        for (expr, rows) in groups {
            self.program.steps.push(Step::Map {
                space: at,
                expr,
                rows,
            });
        }
        Ok(cells(&out))
    }

    /// The rows of elements, copying what is not in the arena. An element that
    /// occurs several times is copied once.
    pub(super) fn rows(
        &mut self,
        value: &[Rc<Tree>],
        at: Space,
        user: NodeId,
    ) -> Result<Vec<Row>, LowerError> {
        let row = |t: &Rc<Tree>| match **t {
            Tree::Cell(Cell::Row(r)) => Some(r),
            _ => None,
        };
        let mut index: HashMap<*const Tree, usize> = HashMap::new();
        let mut missing: Vec<Rc<Tree>> = Vec::new();
        for t in value.iter().filter(|t| row(t).is_none()) {
            index.entry(Rc::as_ptr(t)).or_insert_with(|| {
                missing.push(t.clone());
                missing.len() - 1
            });
        }
        let copies = if missing.is_empty() {
            Vec::new()
        } else {
            let name = format!("{}_operand", self.name(user));
            self.materialise(&missing, at, &name)?
        };
        value
            .iter()
            .map(|t| {
                let copy = || index.get(&Rc::as_ptr(t)).and_then(|&k| row(&copies[k]));
                row(t)
                    .or_else(copy)
                    .ok_or_else(|| LowerError::Unsupported("an operand without memory".to_owned()))
            })
            .collect()
    }
}
