//! Reverse-mode idioms: sums over sites of products, derivatives of mixers with
//! respect to their kernels.

use super::geometry::Space;
use super::lower::{Lowering, Value, cells};
use super::materialise::Tree;
use super::mixer::vanishes;
use super::shape::space;
use super::{Cell, LowerError, Row, Step};
use crate::ir::{NodeId, Op, Scan, ZipFn};
use std::collections::HashMap;
use std::rc::Rc;

/// `out[i * b.len() + j] = sum over sites of a[i] b[j]`, per sample.
#[derive(Clone, Debug)]
pub struct OuterGroup {
    /// Left factors.
    pub a: Vec<Row>,
    /// Right factors.
    pub b: Vec<Row>,
    /// Batch rows.
    pub out: Vec<Row>,
}

/// A derivative with respect to a mixer's kernel: `sum_i g_i conj(x_{i-n})`.
#[derive(Clone, Debug)]
pub struct Correlation {
    /// The lattice it works on.
    pub space: Space,
    /// Whether channels are complex.
    pub complex: bool,
    /// What is made of it.
    pub kind: CorrelationKind,
}

/// What a correlation is reduced to.
#[derive(Clone, Debug)]
pub enum CorrelationKind {
    /// One row per displacement, (part,) channel.
    Displacement,
    /// One row per momentum, part, channel.
    Momentum,
    /// Derivatives with respect to the coefficients of a recurrence; each result
    /// has one row per (part,) state (or pair of states), channel.
    Scan {
        /// The recurrence.
        scan: Scan,
        /// Its coefficients: decay | transition, [p, q], input, output.
        kernel: Vec<NodeId>,
        /// Shape of one site value, without a leading complex axis.
        channels: Vec<usize>,
        /// Which coefficient each result belongs to, 1-based.
        wrt: Vec<usize>,
    },
}

impl Lowering<'_> {
    /// The sums over sites of elements. Products of values that are in memory
    /// anyway are not stored: their sums are one matrix product over the sites.
    pub(super) fn pool(
        &mut self,
        id: NodeId,
        x: &[Rc<Tree>],
        from: Space,
    ) -> Result<Value, LowerError> {
        let out = self.buffer(self.name(id), Space::Batch, x.len());
        let mut times: HashMap<*const Tree, usize> = HashMap::new();
        for t in x {
            if let Tree::Zip(ZipFn::Mul, a, b) = &**t {
                for f in [a, b] {
                    *times.entry(Rc::as_ptr(f)).or_default() += 1;
                }
            }
        }
        let factor = |t: &Rc<Tree>| match **t {
            Tree::Cell(Cell::Row(_)) => true,
            Tree::Cell(Cell::Scalar(_) | Cell::Number(_)) => false,
            _ => times.get(&Rc::as_ptr(t)).is_some_and(|&n| n > 1),
        };
        let (mut left, mut right, mut products) = (Vec::new(), Vec::new(), Vec::new());
        let (mut plain, mut sums) = (Vec::new(), Vec::new());
        for (t, &o) in x.iter().zip(&out) {
            match &**t {
                Tree::Zip(ZipFn::Mul, a, b) if factor(a) && factor(b) => {
                    left.push(a.clone());
                    right.push(b.clone());
                    products.push(o);
                }
                _ => {
                    plain.push(t.clone());
                    sums.push(o);
                }
            }
        }
        if !plain.is_empty() {
            let rows = self.rows(&plain, from, id)?;
            self.program.steps.push(Step::Pool {
                rows: rows.into_iter().zip(sums).collect(),
            });
        }
        if !products.is_empty() {
            let both: Vec<Rc<Tree>> = left.into_iter().chain(right).collect();
            let rows = self.rows(&both, from, id)?;
            let (a, b) = rows.split_at(products.len());
            self.program.steps.push(Step::PoolProduct {
                space: from,
                groups: outer_products(a, b, &products),
            });
        }
        Ok(cells(&out))
    }

    /// A derivative of a mixer with respect to its kernel; `None` if the mixer
    /// is none that correlations express.
    pub(super) fn correlate(&mut self, id: NodeId) -> Result<Option<Value>, LowerError> {
        let graph = self.graph();
        let args = graph.args(id);
        let at = space(graph.ty(args[0]).place);
        let fixed = args[2..].iter().all(|&a| !self.dynamic(a));
        if at == Space::Batch || !fixed || !args[..2].iter().all(|&a| self.dynamic(a)) {
            return Ok(None);
        }
        let complex = match *graph.op(id) {
            Op::ScanGrad { scan, .. } => scan.complex,
            Op::Correlate { complex } | Op::ModesGrad { complex } => complex,
            _ => return Ok(None),
        };
        let rows = self.dims(id)?.iter().product();
        let mut channels = self.dims(args[0])?;
        if complex {
            channels.remove(0);
        }
        let width: usize = channels.iter().product();
        let kind = match *graph.op(id) {
            Op::ScanGrad { scan, wrt } => {
                let key = (scan, args.to_vec());
                let out = self.buffer(self.name(id), Space::Batch, rows);
                if let Some(&k) = self.scan_gradients.get(&key)
                    && let Step::Correlate {
                        correlation,
                        out: results,
                        ..
                    } = &mut self.program.steps[k]
                    && let CorrelationKind::Scan { wrt: known, .. } =
                        &mut self.program.correlations[*correlation].kind
                {
                    known.push(wrt);
                    results.push(out.clone());
                    return Ok(Some(cells(&out)));
                }
                let kind = CorrelationKind::Scan {
                    scan,
                    kernel: args[2..].to_vec(),
                    channels,
                    wrt: vec![wrt],
                };
                let value = self.push_correlation(args, at, complex, kind, width, out)?;
                self.scan_gradients
                    .insert(key, self.program.steps.len() - 1);
                return Ok(Some(value));
            }
            Op::ModesGrad { .. } => CorrelationKind::Momentum,
            _ => CorrelationKind::Displacement,
        };
        let out = self.buffer(self.name(id), Space::Batch, rows);
        self.push_correlation(args, at, complex, kind, width, out)
            .map(Some)
    }

    fn push_correlation(
        &mut self,
        args: &[NodeId],
        at: Space,
        complex: bool,
        kind: CorrelationKind,
        width: usize,
        out: Vec<Row>,
    ) -> Result<Value, LowerError> {
        let mut operands = Vec::with_capacity(2);
        for &a in &args[..2] {
            operands.push(self.operand(a, at)?);
        }
        // coefficients of a recurrence may be complex where its values are real
        let scan = matches!(kind, CorrelationKind::Scan { .. });
        let complex = complex && !(scan && operands.iter().all(|v| vanishes(&v[width..])));
        let mut rows = Vec::with_capacity(2);
        for (mut value, &a) in operands.into_iter().zip(args) {
            if !complex {
                value.truncate(width);
            }
            rows.push(self.rows(&value, at, a)?);
        }
        let parts = |rows: &[Row], c: usize| match complex {
            true => vec![rows[c], rows[c + width]],
            false => vec![rows[c]],
        };
        let channels = (0..width)
            .map(|c| [parts(&rows[0], c), parts(&rows[1], c)])
            .collect();
        self.program.correlations.push(super::Correlation {
            space: at,
            complex,
            kind,
        });
        let value = cells(&out);
        self.program.steps.push(Step::Correlate {
            correlation: self.program.correlations.len() - 1,
            channels,
            out: vec![out],
        });
        Ok(value)
    }
}

/// Collects products `out = sum a b` into outer products: left factors that
/// meet the same right factors in the same order.
fn outer_products(a: &[Row], b: &[Row], out: &[Row]) -> Vec<OuterGroup> {
    let mut order: Vec<Row> = Vec::new();
    let mut partners: HashMap<Row, (Vec<Row>, Vec<Row>)> = HashMap::new();
    for ((&a, &b), &out) in a.iter().zip(b).zip(out) {
        let entry = partners.entry(a).or_insert_with(|| {
            order.push(a);
            Default::default()
        });
        entry.0.push(b);
        entry.1.push(out);
    }
    let mut groups: Vec<OuterGroup> = Vec::new();
    let mut index: HashMap<Vec<Row>, usize> = HashMap::new();
    for row in order {
        let (b, out) = partners.remove(&row).unwrap_or_default();
        let k = *index.entry(b.clone()).or_insert_with(|| {
            groups.push(OuterGroup {
                a: Vec::new(),
                b,
                out: Vec::new(),
            });
            groups.len() - 1
        });
        groups[k].a.push(row);
        groups[k].out.extend(out);
    }
    groups
}
