//! Local windows that are read from tables.
//!
//! The numbers of a table follow from parameters and are part of their block, entry
//! by entry the columns that are wanted. A vector of lanes reads as many vectors of
//! columns, one per lane, and transposes them in registers.

use super::super::bind::BoundStep;
use super::super::math::Precision;
use super::super::simd::Real;
use super::routines::{Code, Defined, define, local, scalar, vector};
use super::section::Section;
use super::{Argument, unsupported};
use crate::back::cpu::compiled::CompileError;
use crate::kernel::Row;
use cranelift_codegen::ir::{ConstantData, Endianness, InstBuilder, MemFlagsData, Value, types};
use cranelift_object::ObjectModule;

/// `(arena, table, groups, values, width, last, lanes)`: offsets of the row of pattern
/// numbers, then of the results, a vector of them per group; bytes of an entry; the
/// last entry. Lanes that belong to no site may hold any number.
pub(super) fn lookup(module: &mut ObjectModule, p: Precision) -> Defined {
    define(module, local("lookup"), (7, None), |_, c, given| {
        let &[arena, table, groups, values, width, last, lanes] = given else {
            unreachable!("seven arguments")
        };
        let (size, many) = (p.bytes() as i64, p.lanes() as i64);
        let zero = c.number(0);
        let index = c.entry(arena, table, zero, 0);
        let shift = i64::from(many.trailing_zeros());
        let vectors = c.b.ins().ushr_imm_u(lanes, shift);
        c.for_each(vectors, |c, v| {
            let at = c.at(index, v, 16);
            let mut entries = Vec::new();
            for lane in 0..many {
                let at = c.b.ins().iadd_imm_s(at, lane * size);
                let x = c.load(scalar(p), at);
                let half = match p {
                    Precision::F32 => c.b.ins().f32const(0.5),
                    Precision::F64 => c.b.ins().f64const(0.5),
                };
                let x = c.b.ins().fadd(x, half);
                // saturates, and is zero where x is no number
                let entry = c.b.ins().fcvt_to_sint_sat(types::I64, x);
                let entry = c.b.ins().smax(entry, zero);
                let entry = c.b.ins().smin(entry, last);
                let bytes = c.b.ins().imul(entry, width);
                entries.push(c.add(values, bytes));
            }
            c.for_each(groups, |c, g| {
                let mut rows = Vec::new();
                for &entry in &entries {
                    let at = c.at(entry, g, 16);
                    rows.push(c.load(vector(p), at));
                }
                let first = c.b.ins().imul_imm_s(g, many);
                for (k, x) in transposed(c, p, &rows).into_iter().enumerate() {
                    let row = c.entry(arena, table, first, 1 + k as i32);
                    let to = c.at(row, v, 16);
                    c.store(x, to);
                }
            });
        });
        None
    })
}

/// A square of vectors with rows and columns exchanged.
fn transposed(c: &mut Code, p: Precision, rows: &[Value]) -> Vec<Value> {
    let bytes: Vec<Value> = rows.iter().map(|&x| cast(c, x, types::I8X16)).collect();
    let mut pair = |a: usize, b: usize, from: &[Value], size: u8, high: u8| {
        interleaved(c, from[a], from[b], size, high)
    };
    let turned = match p {
        Precision::F32 => {
            let halves = [
                pair(0, 1, &bytes, 4, 0),
                pair(2, 3, &bytes, 4, 0),
                pair(0, 1, &bytes, 4, 1),
                pair(2, 3, &bytes, 4, 1),
            ];
            vec![
                pair(0, 1, &halves, 8, 0),
                pair(0, 1, &halves, 8, 1),
                pair(2, 3, &halves, 8, 0),
                pair(2, 3, &halves, 8, 1),
            ]
        }
        Precision::F64 => vec![pair(0, 1, &bytes, 8, 0), pair(0, 1, &bytes, 8, 1)],
    };
    turned.into_iter().map(|x| cast(c, x, vector(p))).collect()
}

/// Numbers of `size` bytes from the lower or the higher half of two vectors in turn.
fn interleaved(c: &mut Code, a: Value, b: Value, size: u8, high: u8) -> Value {
    let number = |k: u8| 8 * high + k / 2 * size + 16 * (k % 2);
    let bytes = (0..16 / size).flat_map(|k| (0..size).map(move |byte| number(k) + byte));
    let bytes: Vec<u8> = bytes.collect();
    let mask = c.b.func.dfg.immediates.push(ConstantData::from(&bytes[..]));
    c.b.ins().shuffle(a, b, mask)
}

fn cast(c: &mut Code, x: Value, to: types::Type) -> Value {
    let flags = MemFlagsData::new().with_endianness(Endianness::Little);
    c.b.ins().bitcast(to, flags, x)
}

impl<T: Real> Section<'_, '_, T> {
    /// Reads columns of a table: pairs of a column and its row.
    pub(super) fn look_up(
        &mut self,
        number: usize,
        (table, index): (usize, &Row),
        rows: &[(u32, Row)],
    ) -> Result<(), CompileError> {
        let (Some(tables), BoundStep::Lookup { lanes, .. }) =
            (&self.program.tables, &self.bound.steps[number])
        else {
            return Err(unsupported("a table without numbers"));
        };
        let (many, width) = (T::PRECISION.lanes(), tables.tables[table].elements.len());
        let lanes = *lanes as i64;
        let Some(&last) = rows.last() else {
            return Ok(());
        };
        // whole vectors of columns: the last one may be read, and written, again
        let mut wanted = rows.to_vec();
        wanted.resize(rows.len().next_multiple_of(many), last);
        let values = &self.tables[table];
        let entries = values.len() / width;
        let columns = wanted.iter().map(|w| w.0 as usize);
        let numbers: Vec<f64> = (0..entries)
            .flat_map(|e| columns.clone().map(move |c| e * width + c))
            .map(|k| values[k])
            .collect();
        let mut offsets = vec![self.offset(index)];
        offsets.extend(wanted.iter().map(|w| self.offset(&w.1)));
        let values = self.out.params.numbers(T::PRECISION, numbers);
        let offsets = self.out.tables.offsets(&offsets);
        let bytes = wanted.len() * T::PRECISION.bytes();
        let [groups, bytes, last] = [wanted.len() / many, bytes, entries - 1];
        let number = |n: usize| Argument::Number(n as i64);
        let routine = self.out.routines.lookup;
        let arena = Argument::Arena(0);
        let sizes = [number(bytes), number(last), Argument::Number(lanes)];
        let arguments = [arena, offsets, number(groups), values];
        self.call(routine, arguments.into_iter().chain(sizes).collect());
        Ok(())
    }
}
