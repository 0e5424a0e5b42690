//! Contractions: matrices on rows, and sums of products of rows.

use super::geometry::Space;
use super::lower::{Lowering, Value, cells};
use super::materialise::Tree;
use super::{Cell, DenseGroup, LowerError, Row, Step};
use crate::check::core::Einsum;
use crate::ir::{NodeId, ZipFn};
use std::collections::HashMap;
use std::rc::Rc;

/// Stands for the entries of a place in a contraction.
const ENTRY: char = '\0';

/// Letters summed over.
pub(super) fn summed(e: &Einsum) -> Vec<char> {
    let mut letters: Vec<char> = e
        .inputs
        .iter()
        .flatten()
        .copied()
        .filter(|c| !e.output.contains(c))
        .collect();
    letters.sort_unstable();
    letters.dedup();
    letters
}

/// Element index of every operand as a function of the letters.
struct Indexing {
    out: Vec<usize>,
    sum: Vec<usize>,
    /// Per operand the stride of each output and each summed letter.
    strides: Vec<(Vec<usize>, Vec<usize>)>,
}

impl Indexing {
    fn new(e: &Einsum, shapes: &[Vec<usize>]) -> Indexing {
        let sum = summed(e);
        let extent = |c: &char| {
            let found = e
                .inputs
                .iter()
                .zip(shapes)
                .find_map(|(l, s)| l.iter().position(|x| x == c).map(|k| s[k]));
            found.unwrap_or(1)
        };
        let stride = |k: usize, c: &char| {
            let (letters, shape) = (&e.inputs[k], &shapes[k]);
            (0..letters.len())
                .filter(|&a| letters[a] == *c)
                .map(|a| shape[a + 1..].iter().product::<usize>())
                .sum()
        };
        let strides = (0..shapes.len())
            .map(|k| {
                (
                    e.output.iter().map(|c| stride(k, c)).collect(),
                    sum.iter().map(|c| stride(k, c)).collect(),
                )
            })
            .collect();
        Indexing {
            out: e.output.iter().map(extent).collect(),
            sum: sum.iter().map(extent).collect(),
            strides,
        }
    }

    fn offset(mut index: usize, extents: &[usize], strides: &[usize]) -> usize {
        let mut offset = 0;
        for (n, s) in extents.iter().zip(strides).rev() {
            offset += index % n * s;
            index /= n;
        }
        offset
    }

    /// Element of operand k at an output and a summed index.
    fn element(&self, k: usize, out: usize, sum: usize) -> usize {
        Self::offset(out, &self.out, &self.strides[k].0)
            + Self::offset(sum, &self.sum, &self.strides[k].1)
    }
}

/// What one term of a contraction multiplies.
enum Term {
    Weighted(Cell, Rc<Tree>),
    Product(Rc<Tree>, Rc<Tree>),
}

fn is_coefficient(t: &Tree) -> Option<Cell> {
    match t {
        Tree::Cell(c @ (Cell::Scalar(_) | Cell::Number(_))) => Some(*c),
        _ => None,
    }
}

impl Lowering<'_> {
    pub(super) fn einsum(
        &mut self,
        id: NodeId,
        e: &Einsum,
        at: Space,
    ) -> Result<Value, LowerError> {
        let args = self.graph().args(id);
        // the entries of a place are one more axis
        let mut e = e.clone();
        for (letters, &a) in e.inputs.iter_mut().zip(args) {
            if self.leading(a) {
                letters.insert(0, ENTRY);
            }
        }
        if self.leading(id) {
            e.output.insert(0, ENTRY);
        }
        let mut shapes = Vec::new();
        let mut operands = Vec::new();
        for &a in args {
            shapes.push(self.dims(a)?);
            operands.push(self.operand(a, at)?);
        }
        let indexing = Indexing::new(&e, &shapes);
        let (outs, sums): (usize, usize) =
            (indexing.out.iter().product(), indexing.sum.iter().product());
        let pick = |k: usize, o: usize, s: usize| operands[k][indexing.element(k, o, s)].clone();
        if indexing.sum.is_empty() {
            let element = |o: usize| match operands.len() {
                1 => pick(0, o, 0),
                _ => Tree::zip(ZipFn::Mul, pick(0, o, 0), pick(1, o, 0)),
            };
            return Ok((0..outs).map(element).collect());
        }
        let mut value: Value = Vec::with_capacity(outs);
        let out = self.buffer(self.name(id), at, outs);
        let (mut dense, mut dot) = (DenseBuilder::default(), Vec::new());
        for o in 0..outs {
            let terms: Vec<Term> = (0..sums)
                .filter_map(|s| {
                    let a = pick(0, o, s);
                    let one = || Rc::new(Tree::Cell(Cell::Number(1.0)));
                    let b = if operands.len() == 2 {
                        pick(1, o, s)
                    } else {
                        one()
                    };
                    let zero =
                        |t: &Rc<Tree>| matches!(**t, Tree::Cell(Cell::Number(x)) if x == 0.0);
                    if zero(&a) || zero(&b) {
                        return None;
                    }
                    Some(match (is_coefficient(&a), is_coefficient(&b)) {
                        (_, Some(w)) => Term::Weighted(w, a),
                        (Some(w), None) => Term::Weighted(w, b),
                        (None, None) => Term::Product(a, b),
                    })
                })
                .collect();
            if terms.is_empty() {
                value.push(Rc::new(Tree::Cell(Cell::Number(0.0))));
                continue;
            }
            value.extend(cells(&out[o..=o]));
            if terms.iter().all(|t| matches!(t, Term::Weighted(..))) {
                let (mut x, mut w) = (Vec::new(), Vec::new());
                for t in &terms {
                    if let Term::Weighted(c, t) = t {
                        w.push(*c);
                        x.push(t.clone());
                    }
                }
                let x = self.rows(&x, at, id)?;
                dense.add(x, out[o], w);
            } else {
                let mut factors = Vec::with_capacity(terms.len());
                for t in terms {
                    let pair = match t {
                        Term::Weighted(c, t) => [Rc::new(Tree::Cell(c)), t],
                        Term::Product(a, b) => [a, b],
                    };
                    let rows = self.rows(&pair, at, id)?;
                    factors.push((rows[0], rows[1]));
                }
                dot.push((out[o], factors));
            }
        }
        if !dense.groups.is_empty() {
            self.program.steps.push(Step::Dense {
                space: at,
                groups: dense.groups,
            });
        }
        if !dot.is_empty() {
            self.program.steps.push(Step::Dot {
                space: at,
                rows: dot,
            });
        }
        Ok(value)
    }
}

/// Collects products with the same operands into matrices.
#[derive(Default)]
struct DenseBuilder {
    groups: Vec<DenseGroup>,
    index: HashMap<Vec<Row>, usize>,
}

impl DenseBuilder {
    fn add(&mut self, x: Vec<Row>, out: Row, weights: Vec<Cell>) {
        let groups = &mut self.groups;
        let k = *self.index.entry(x.clone()).or_insert_with(|| {
            groups.push(DenseGroup {
                out: Vec::new(),
                x,
                weights: Vec::new(),
            });
            groups.len() - 1
        });
        self.groups[k].out.push(out);
        self.groups[k].weights.extend(weights);
    }
}
