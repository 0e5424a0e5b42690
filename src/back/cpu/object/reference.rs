//! Operations without a step of their own: sums and copies over entries of places.

use super::super::compiled::CompileError;
use super::super::jit::JitError;
use super::super::math::Precision;
use super::super::simd::Real;
use super::routines::{Code, Defined, define, local, scalar};
use super::section::Section;
use super::{Argument, unsupported};
use crate::ir::{NodeId, Op};
use crate::kernel::{Row, Space};
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use cranelift_module::FuncId;
use cranelift_object::ObjectModule;

/// Their routines.
#[derive(Clone, Copy)]
pub(super) struct Entries {
    /// `(arena, table, n)`: at table[0] the sum of the n numbers at table[1..], f64.
    sum: FuncId,
    /// The same with a result in working precision.
    sum_narrow: FuncId,
    /// `(arena, table, out, n, step)`: `g_i x_j` every `step` bytes, from tables of the
    /// sites of g and x.
    pairs: FuncId,
    /// The same for complex numbers, `g_i conj(x_j)`: real parts, then imaginary parts of
    /// g, then of x; imaginary parts of the result half a step behind real ones.
    pairs_complex: FuncId,
}

impl Entries {
    pub(super) fn new(module: &mut ObjectModule, p: Precision) -> Result<Entries, JitError> {
        Ok(Entries {
            sum: sum(module, "sum_entries", types::F64)?,
            sum_narrow: sum(module, "sum_sources", scalar(p))?,
            pairs: pairs(module, p, false)?,
            pairs_complex: pairs(module, p, true)?,
        })
    }
}

fn sum(module: &mut ObjectModule, name: &str, to: Type) -> Defined {
    define(module, local(name), (3, None), |_, c, given| {
        let &[arena, table, n] = given else {
            unreachable!("three arguments")
        };
        let sum = c.sum(types::F64);
        c.for_each(n, |c, k| {
            let from = c.entry(arena, table, k, 1);
            let x = c.load(types::F64, from);
            let old = c.b.use_var(sum);
            let new = c.b.ins().fadd(old, x);
            c.b.def_var(sum, new);
        });
        let zero = c.number(0);
        let at = c.entry(arena, table, zero, 0);
        let total = c.b.use_var(sum);
        let total = c.convert(total, types::F64, to);
        c.store(total, at);
        None
    })
}

fn pairs(module: &mut ObjectModule, p: Precision, complex: bool) -> Defined {
    let name = if complex { "pairs_complex" } else { "pairs" };
    define(module, local(name), (5, None), |_, c, given| {
        let &[arena, table, out, n, step] = given else {
            unreachable!("five arguments")
        };
        // row `part` of the table, site `k`
        let read = |c: &mut Code, part: i64, k: Value| {
            let first = c.b.ins().imul_imm_s(n, part);
            let at = c.add(first, k);
            let at = c.entry(arena, table, at, 0);
            let x = c.load(scalar(p), at);
            c.convert(x, scalar(p), types::F64)
        };
        c.for_each(n, |c, i| {
            let left: Vec<Value> = (0..1 + i64::from(complex)).map(|k| read(c, k, i)).collect();
            let line = c.b.ins().imul(i, n);
            c.for_each(n, |c, j| {
                let parts = left.len() as i64;
                let right: Vec<Value> = (0..parts).map(|k| read(c, parts + k, j)).collect();
                let pair = c.add(line, j);
                let skip = c.b.ins().imul(pair, step);
                let to = c.add(out, skip);
                let re = c.b.ins().fmul(left[0], right[0]);
                if !complex {
                    c.store(re, to);
                    return;
                }
                let re = c.b.ins().fma(left[1], right[1], re);
                c.store(re, to);
                let im = c.b.ins().fmul(left[1], right[0]);
                let minus = c.b.ins().fneg(left[0]);
                let im = c.b.ins().fma(minus, right[1], im);
                let half = c.b.ins().ushr_imm_u(step, 1);
                let to = c.add(to, half);
                c.store(im, to);
            });
        });
        None
    })
}

impl<T: Real> Section<'_, '_, T> {
    /// A node that has no kernel elsewhere.
    ///
    /// # Errors
    /// Operations that only the interpreter evaluates.
    pub(super) fn reference(
        &mut self,
        node: NodeId,
        operands: &[Option<Vec<Row>>],
        out: &[Row],
    ) -> Result<(), CompileError> {
        let op = self.graph.op(node).clone();
        let name = format!("{op:?}");
        let name: String = name.chars().take_while(|c| c.is_alphanumeric()).collect();
        let refused = || {
            unsupported(&format!(
                "the operation {name}, which the interpreter evaluates,"
            ))
        };
        let rows: Option<Vec<&[Row]>> = operands.iter().map(|o| o.as_deref()).collect();
        let rows = rows.ok_or_else(refused)?;
        if out.is_empty() {
            return Ok(());
        }
        let space = |r: &[Row]| {
            let space = |r: &Row| self.program.buffers[r.buffer.0 as usize].space;
            r.first().map_or(Space::Batch, space)
        };
        let places: Vec<Space> = rows.iter().map(|r| space(r)).collect();
        match (&op, places.as_slice(), space(out)) {
            (Op::Gather | Op::Reshape, [Space::Batch], Space::Batch) => {
                let pairs: Vec<_> = rows[0]
                    .iter()
                    .zip(out)
                    .map(|(x, o)| self.both(x, o))
                    .collect();
                let routine = self.out.routines.copy64;
                self.copies(routine, pairs.into_iter());
            }
            (Op::Sum, [Space::Batch], Space::Batch) => {
                let routine = self.entries()?.sum;
                for (e, o) in out.iter().enumerate() {
                    let terms = rows[0].iter().skip(e).step_by(out.len());
                    self.sum(routine, terms, self.offset(o));
                }
            }
            (Op::Scatter, [Space::Batch], Space::Site(_)) => {
                let mut pairs = Vec::new();
                for (r, o) in out.iter().enumerate() {
                    let values = rows[0].iter().skip(r).step_by(out.len());
                    let values: Vec<usize> = values.map(|x| self.offset(x)).collect();
                    pairs.extend(values.into_iter().zip(self.sites(o)));
                }
                let routine = self.out.routines.narrow;
                self.copies(routine, pairs.into_iter());
            }
            (Op::RowSum, [Space::Batch], Space::Site(_)) => {
                let routine = self.entries()?.sum_narrow;
                for (r, o) in out.iter().enumerate() {
                    let sites = self.sites(o);
                    let n = sites.len();
                    for (i, to) in sites.into_iter().enumerate() {
                        let terms = (0..n).map(|j| &rows[0][(i * n + j) * out.len() + r]);
                        self.sum(routine, terms, to);
                    }
                }
            }
            (Op::RowBroadcast, [Space::Site(_)], Space::Batch) => {
                let mut pairs = Vec::new();
                for (r, x) in rows[0].iter().enumerate() {
                    let sites = self.sites(x);
                    let n = sites.len();
                    for ij in 0..n * n {
                        let to = self.offset(&out[ij * rows[0].len() + r]);
                        pairs.push((sites[ij / n], to));
                    }
                }
                let routine = self.out.routines.widen;
                self.copies(routine, pairs.into_iter());
            }
            (&Op::MixGrad { complex }, [Space::Site(a), Space::Site(b)], Space::Batch)
                if a == b && rows[0].len() == rows[1].len() =>
            {
                let parts = 1 + usize::from(complex);
                let width = rows[0].len() / parts;
                let entries = self.entries()?;
                let routine = [entries.pairs, entries.pairs_complex][parts - 1];
                for channel in 0..width {
                    let part = |rows: &[Row], k: usize| self.sites(&rows[k * width + channel]);
                    let left = (0..parts).flat_map(|k| part(rows[0], k));
                    let right = (0..parts).flat_map(|k| part(rows[1], k));
                    let table: Vec<usize> = left.chain(right).collect();
                    let n = table.len() / (2 * parts);
                    // results are consecutive rows of one buffer
                    let first = self.offset(&out[channel]);
                    let step = match (out.get(parts * width + channel), complex) {
                        (Some(next), _) => self.offset(next) - first,
                        (None, true) => 2 * (self.offset(&out[width + channel]) - first),
                        (None, false) => 0,
                    };
                    let table = self.out.tables.offsets(&table);
                    let [n, step] = [n, step].map(|x| Argument::Number(x as i64));
                    let out = Argument::Arena(first as i64);
                    self.call(routine, vec![Argument::Arena(0), table, out, n, step]);
                }
            }
            _ => return Err(refused()),
        }
        Ok(())
    }

    fn both(&self, x: &Row, out: &Row) -> (usize, usize) {
        (self.offset(x), self.offset(out))
    }

    fn sum<'r>(&mut self, routine: FuncId, terms: impl Iterator<Item = &'r Row>, to: usize) {
        let terms: Vec<usize> = terms.map(|x| self.offset(x)).collect();
        let count = Argument::Number(terms.len() as i64);
        let table: Vec<usize> = [to].into_iter().chain(terms).collect();
        let table = self.out.tables.offsets(&table);
        self.call(routine, vec![Argument::Arena(0), table, count]);
    }

    fn entries(&mut self) -> Result<Entries, CompileError> {
        Ok(match self.out.entries {
            Some(known) => known,
            None => {
                let new = Entries::new(&mut self.out.module, T::PRECISION)?;
                *self.out.entries.insert(new)
            }
        })
    }
}
