//! What depends on parameters alone, as kernels read it.
//!
//! The host computes it once per parameter set in f64, exactly as for the CPU;
//! here it is laid out for the device: two arrays, one in working precision, one
//! in f64, made of blocks that the emitter asked for.

use super::ast::Type;
use super::names::Name;
use crate::back::cpu::constants::Constants;
use crate::kernel::{Cell, DenseGroup, Program, Space};
use num_complex::Complex64;
use std::f64::consts::TAU;

/// Largest register tile of a dense product.
const MAX_TILE: usize = 8;

/// Products of one shape inside a dense step.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseClass {
    /// Results per product.
    pub outs: usize,
    /// Terms per result.
    pub inner: usize,
    /// Results a thread computes at once.
    pub tile: usize,
    /// Which of the step's products.
    pub members: Vec<usize>,
}

/// The products of a dense step by shape.
pub fn dense_classes(groups: &[DenseGroup], space: Space) -> Vec<DenseClass> {
    let mut classes: Vec<DenseClass> = Vec::new();
    for (k, g) in groups.iter().enumerate() {
        let (outs, inner) = (g.out.len(), g.x.len());
        match classes
            .iter_mut()
            .find(|c| (c.outs, c.inner) == (outs, inner))
        {
            Some(c) => c.members.push(k),
            None => classes.push(DenseClass {
                outs,
                inner,
                tile: if space == Space::Batch { 1 } else { tile(outs) },
                members: vec![k],
            }),
        }
    }
    classes
}

/// The tile with the fewest results computed in vain, the largest such one.
fn tile(outs: usize) -> usize {
    let waste = |t: usize| outs.next_multiple_of(t) - outs;
    let least = MAX_TILE.div_ceil(2).min(outs);
    (least..=MAX_TILE.min(outs))
        .min_by_key(|&t| (waste(t), MAX_TILE - t))
        .unwrap_or(1)
}

impl DenseClass {
    /// Weights with every product's results padded to whole tiles.
    pub fn length(&self) -> usize {
        self.members.len() * self.inner * self.outs.next_multiple_of(self.tile)
    }

    /// Product by product, term by term, result by result.
    pub fn weights(&self, groups: &[DenseGroup]) -> Vec<Cell> {
        let padded = self.outs.next_multiple_of(self.tile);
        let mut weights = Vec::with_capacity(self.length());
        for &m in &self.members {
            for k in 0..self.inner {
                for o in 0..padded {
                    weights.push(match o < self.outs {
                        true => groups[m].weights[o * self.inner + k],
                        false => Cell::Number(0.0),
                    });
                }
            }
        }
        weights
    }
}

/// What a block of constants holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// [`Program::scalars`] in working precision.
    Pool,
    /// [`Program::scalars`] in f64.
    Pool64,
    /// [`Program::statics`], each with its frame.
    Statics,
    /// Matrices of a dense step.
    Weights {
        /// Counts such blocks.
        number: usize,
        /// In f64.
        double: bool,
        /// Scalars and numbers.
        numbers: Vec<Cell>,
    },
    /// `exp(-2 pi i k / n)`, k < n.
    Roots(usize),
    /// A table of [`Program::tables`]: entry, column.
    Table(usize),
    /// Symbols of a mixer: channel, momentum.
    Symbols(usize),
    /// Matrices of a dense mixer, those that differ: number, source, target.
    Matrix {
        /// The mixer.
        mixer: usize,
        /// Complex elements.
        complex: bool,
    },
    /// Derivatives of a recurrence: channel, coefficient, (real parts, imaginary parts).
    Reduction(usize),
}

impl Data {
    /// The pointer's name.
    pub fn name(&self) -> Name {
        match self {
            Data::Pool => "pool".into(),
            Data::Pool64 => "pool64".into(),
            Data::Statics => "statics".into(),
            Data::Weights { number, .. } => Name::numbered("weights_", *number),
            Data::Roots(n) => Name::numbered("roots_", *n),
            Data::Table(k) => Name::numbered("patterns_", *k),
            Data::Symbols(m) => Name::numbered("symbols_", *m),
            Data::Matrix { mixer, .. } => Name::numbered("matrix_", *mixer),
            Data::Reduction(c) => Name::numbered("reduction_", *c),
        }
    }
}

/// A part of the constants.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The pointer's name.
    pub name: Name,
    /// What it holds.
    pub data: Data,
    /// Its elements.
    pub element: Type,
    /// First number among those of its kind.
    pub offset: usize,
    /// Elements.
    pub length: usize,
}

/// Both arrays of constants, in f64: [working precision, f64]. `tables` are the
/// values lookups read, entry by entry.
pub fn pack(
    program: &Program,
    blocks: &[Block],
    lengths: [usize; 2],
    constants: &Constants<f64>,
    tables: &[Vec<f64>],
) -> [Vec<f64>; 2] {
    let mut arrays = lengths.map(|n| vec![0.0; n]);
    for b in blocks {
        let array = &mut arrays[usize::from(b.element == Type::Double)];
        let values = match &b.data {
            Data::Table(k) => tables[*k].clone(),
            data => block(program, data, constants),
        };
        let numbers = b.length * if b.element == Type::Complex { 2 } else { 1 };
        assert_eq!(values.len(), numbers, "numbers of {:?}", b.name);
        array[b.offset..b.offset + values.len()].copy_from_slice(&values);
    }
    arrays
}

fn block(program: &Program, data: &Data, constants: &Constants<f64>) -> Vec<f64> {
    match data {
        Data::Pool | Data::Pool64 => constants.pool64.clone(),
        Data::Statics => {
            let mut all = Vec::new();
            for ((space, _), values) in program.statics.iter().zip(&constants.statics) {
                match space {
                    Space::Batch => all.push(values[0]),
                    Space::Site(_) => {
                        let g = program.geometry(*space);
                        let mut segment = vec![0.0; g.segment()];
                        g.scatter(|site| values[site], &mut segment);
                        all.extend(segment);
                    }
                }
            }
            all
        }
        Data::Weights { numbers, .. } => {
            let number = |cell: &Cell| match *cell {
                Cell::Scalar(k) => constants.pool64[k as usize],
                Cell::Number(x) => x,
                // lowering puts nothing else here
                Cell::Row(_) | Cell::Static(_) => f64::NAN,
            };
            numbers.iter().map(number).collect()
        }
        Data::Roots(n) => {
            let root = |k: usize| Complex64::cis(-TAU * k as f64 / *n as f64);
            (0..*n).map(root).flat_map(|z| [z.re, z.im]).collect()
        }
        // not made of these constants
        Data::Table(_) => Vec::new(),
        Data::Symbols(m) => {
            let symbols = constants.mixers[*m].kernels().iter().flatten();
            symbols.flat_map(|z| [z.re, z.im]).collect()
        }
        Data::Matrix { mixer, complex } => {
            let n = program.geometry(program.mixers[*mixer].space).sites();
            let mut all = Vec::new();
            for kernel in constants.mixers[*mixer].kernels() {
                for source in 0..n {
                    for target in 0..n {
                        let z = kernel[target * n + source];
                        all.push(z.re);
                        if *complex {
                            all.push(z.im);
                        }
                    }
                }
            }
            all
        }
        Data::Reduction(c) => constants.correlators[*c].matrices().concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::tile;

    #[test]
    fn tiles_waste_little() {
        assert_eq!([1, 3, 8, 14, 16, 28, 11].map(tile), [1, 3, 8, 7, 8, 7, 6]);
    }
}
