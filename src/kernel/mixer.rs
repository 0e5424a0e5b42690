//! Mixers as steps.

use super::geometry::Space;
use super::lower::{Lowering, Value, cells};
use super::materialise::Tree;
use super::shape::{broadcast_map, dims};
use super::{Cell, LowerError, MixChannel, Mixer, Row, Step};
use crate::ir::{NodeId, Op};
use std::rc::Rc;

impl Lowering<'_> {
    /// Whether all users take the first entry of the leading axis alone.
    fn only_real_part_used(&self, id: NodeId) -> bool {
        let part = |op: &Op| {
            matches!(
                op,
                Op::Slice {
                    axis: 0,
                    start: 0,
                    len: 1
                }
            )
        };
        !self.graph().outputs.contains(&id)
            && self
                .graph()
                .users(id)
                .filter(|(user, _)| self.live(*user))
                .all(|(user, _)| part(self.graph().op(user)))
    }

    pub(super) fn mixer(&mut self, id: NodeId, at: Space) -> Result<Value, LowerError> {
        let args = self.graph().args(id);
        if args[1..].iter().any(|a| self.dynamic(*a)) {
            return Err(LowerError::Unsupported(
                "a mixer that depends on the configuration".to_owned(),
            ));
        }
        let complex = match *self.graph().op(id) {
            Op::Convolve { complex, .. } | Op::Modes { complex, .. } | Op::Mix { complex, .. } => {
                complex
            }
            Op::Scan(s) => s.complex,
            _ => false,
        };
        let mut x = self.operand(args[0], at)?;
        let mut channels = self.dims(id)?;
        if complex {
            channels.remove(0);
        }
        let width: usize = channels.iter().product();
        // half the transforms if only the real part for real input is wanted
        let real = complex && vanishes(&x[width..]) && self.only_real_part_used(id);
        if real {
            x.truncate(width);
        }
        let x = self.rows(&x, at, id)?;
        let out = self.buffer(self.name(id), at, x.len());
        let parts = |rows: &[Row], c: usize| {
            if complex && !real {
                vec![rows[c], rows[c + width]]
            } else {
                vec![rows[c]]
            }
        };
        let rows = (0..width)
            .map(|c| MixChannel {
                x: parts(&x, c),
                out: parts(&out, c),
                channel: c,
            })
            .collect();
        let op = self.graph().op(id).clone();
        let matrices = match op {
            Op::Mix { complex, .. } => {
                let own = dims(self.program.lattice, self.graph().ty(args[1]))?;
                broadcast_map(&own[usize::from(complex)..], &channels)
            }
            _ => Vec::new(),
        };
        self.program.mixers.push(Mixer {
            op,
            space: at,
            kernel: args[1..].to_vec(),
            channels,
            matrices,
            real,
        });
        self.program.steps.push(Step::Mix {
            mixer: self.program.mixers.len() - 1,
            channels: rows,
        });
        let mut value = cells(&out);
        if real {
            // nobody reads the imaginary part
            let unread = Rc::new(Tree::Cell(Cell::Number(f64::NAN)));
            value.extend(std::iter::repeat_n(unread, width));
        }
        Ok(value)
    }
}

/// Whether all elements are zero.
pub(super) fn vanishes(x: &[Rc<Tree>]) -> bool {
    x.iter()
        .all(|t| matches!(**t, Tree::Cell(Cell::Number(x)) if x == 0.0))
}
