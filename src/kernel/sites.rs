//! Code that moves values between sites: windows, patches, gathers, and the
//! operations left to the reference interpreter.

use super::geometry::Space;
use super::lower::{Lowering, Value, cells};
use super::materialise::Tree;
use super::shape::space;
use super::{Cell, DenseGroup, LowerError, Row, StaticRow, Step};
use crate::ir::{Boundary, NodeId, Op};
use std::rc::Rc;

impl Lowering<'_> {
    pub(super) fn window(
        &mut self,
        id: NodeId,
        (lo, hi): ([i64; 2], [i64; 2]),
        at: Space,
    ) -> Result<Value, LowerError> {
        let a = self.operand(self.graph().args(id)[0], at)?;
        let name = self.name(id);
        let geometry = *self.program.geometry(at);
        let shifted = |t: &Rc<Tree>| match **t {
            Tree::Cell(Cell::Row(r)) => r.shift != 0,
            Tree::Cell(Cell::Static(r)) => r.shift != 0,
            _ => false,
        };
        let zero = |t: &Rc<Tree>| matches!(**t, Tree::Cell(Cell::Number(x)) if x == 0.0);
        let open = geometry.boundary == Boundary::Open;
        let mut source = Vec::with_capacity(a.len());
        for t in &a {
            let in_memory = matches!(**t, Tree::Cell(Cell::Row(_) | Cell::Static(_)));
            let exact = (in_memory && !(open && shifted(t)))
                || zero(t)
                || (!open && matches!(**t, Tree::Cell(_)));
            source.push(if exact {
                t.clone()
            } else {
                self.materialise(std::slice::from_ref(t), at, &name)?[0].clone()
            });
        }
        let mut value = Vec::new();
        for x in lo[0]..=hi[0] {
            for y in lo[1]..=hi[1] {
                let by = (x * geometry.stride() as i64 + y) as i32;
                value.extend(source.iter().map(|t| match **t {
                    Tree::Cell(Cell::Row(r)) => Rc::new(Tree::Cell(Cell::Row(Row {
                        shift: r.shift + by,
                        ..r
                    }))),
                    Tree::Cell(Cell::Static(r)) => Rc::new(Tree::Cell(Cell::Static(StaticRow {
                        shift: r.shift + by,
                        ..r
                    }))),
                    _ => t.clone(),
                }));
            }
        }
        Ok(value)
    }

    /// `y_i = sum_r x_{i-r}[r]`: a sum of rows, each shifted.
    pub(super) fn window_adjoint(
        &mut self,
        id: NodeId,
        (lo, hi): ([i64; 2], [i64; 2]),
        at: Space,
    ) -> Result<Value, LowerError> {
        let a = self.operand(self.graph().args(id)[0], at)?;
        let own = self.rows(&a, at, id)?;
        // a row that is itself shifted has its own boundary: copy it
        let mut x = Vec::with_capacity(own.len());
        for r in own {
            x.push(if r.shift == 0 {
                r
            } else {
                self.copy(r, at, id)?
            });
        }
        let stride = self.program.geometry(at).stride() as i64;
        let offsets: Vec<i32> = (lo[0]..=hi[0])
            .flat_map(|dx| (lo[1]..=hi[1]).map(move |dy| -(dx * stride + dy) as i32))
            .collect();
        let width = x.len() / offsets.len().max(1);
        let out = self.buffer(self.name(id), at, width);
        let groups = (0..width)
            .map(|k| {
                let term = |(r, &shift): (usize, &i32)| Row {
                    shift,
                    ..x[r * width + k]
                };
                DenseGroup {
                    out: vec![out[k]],
                    x: offsets.iter().enumerate().map(term).collect(),
                    weights: vec![Cell::Number(1.0); offsets.len()],
                }
            })
            .collect();
        self.program.steps.push(Step::Dense { space: at, groups });
        Ok(cells(&out))
    }

    fn copy(&mut self, r: Row, at: Space, user: NodeId) -> Result<Row, LowerError> {
        let tree = [Rc::new(Tree::Cell(Cell::Row(r)))];
        let name = format!("{}_copy", self.name(user));
        let value = self.materialise(&tree, at, &name)?;
        match *value[0] {
            Tree::Cell(Cell::Row(r)) => Ok(r),
            _ => Err(LowerError::Unsupported("a copy without memory".to_owned())),
        }
    }

    /// An operation left to the reference interpreter, sample by sample.
    pub(super) fn reference(&mut self, id: NodeId, at: Space) -> Result<Value, LowerError> {
        let mut operands = Vec::new();
        for &a in self.graph().args(id) {
            operands.push(if self.dynamic(a) {
                let from = space(self.graph().ty(a).place);
                let value = self.operand(a, from)?;
                Some(self.rows(&value, from, id)?)
            } else {
                self.program.kept.push(a);
                None
            });
        }
        let out = self.buffer(self.name(id), at, self.dims(id)?.iter().product());
        self.program.steps.push(Step::Reference {
            node: id,
            operands,
            out: out.clone(),
        });
        Ok(cells(&out))
    }

    /// All sites of rows as rows per configuration, sites slowest.
    pub(super) fn gather(&mut self, x: &[Row], name: String) -> Vec<Row> {
        let space = x
            .first()
            .map(|r| self.program.buffers[r.buffer.0 as usize].space);
        let sites = space.map_or(0, |s| self.program.geometry(s).sites());
        let out = self.buffer(name, Space::Batch, sites * x.len());
        let column = |k: usize| out.iter().skip(k).step_by(x.len()).copied().collect();
        let rows = x.iter().enumerate().map(|(k, &r)| (r, column(k))).collect();
        self.program.steps.push(Step::Gather { rows });
        out
    }

    pub(super) fn patch(
        &mut self,
        id: NodeId,
        ratio: [usize; 2],
        at: Space,
    ) -> Result<Value, LowerError> {
        let arg = self.graph().args(id)[0];
        let from = space(self.graph().ty(arg).place);
        let x = self.operand(arg, from)?;
        let x = self.rows(&x, from, id)?;
        let parts: Vec<[usize; 2]> = (0..ratio[0] * ratio[1])
            .map(|p| [p / ratio[1], p % ratio[1]])
            .collect();
        let gathering = matches!(self.graph().op(id), Op::Patch { .. });
        let width = if gathering {
            x.len()
        } else {
            x.len() / parts.len()
        };
        let out = self.buffer(
            self.name(id),
            at,
            if gathering {
                width * parts.len()
            } else {
                width
            },
        );
        let mut rows = Vec::new();
        for (p, &part) in parts.iter().enumerate() {
            for k in 0..width {
                let (fine, coarse) = (k, p * width + k);
                rows.push(if gathering {
                    (x[fine], part, out[coarse])
                } else {
                    (x[coarse], part, out[fine])
                });
            }
        }
        self.program.steps.push(if gathering {
            Step::Patch { ratio, rows }
        } else {
            Step::Unpatch { ratio, rows }
        });
        Ok(cells(&out))
    }
}
