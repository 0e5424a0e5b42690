//! Linear algebra of stochastic reconfiguration on a device, in f64: kernels of
//! `kernels/linear.cuh`, which says what each of them reads and writes.

use super::LIBRARY;
use super::device::{Buffer, Device, DeviceError, Launch, Module, Span};
use super::emit::Kernel;
use crate::run::rows::{CentredRows, System};
use std::sync::Arc;

/// The kernels.
const KERNELS: &str = include_str!("../../../kernels/linear.cuh");

/// Sizes of the text: results per side of a tile, terms at a time, columns of a
/// Cholesky step, rows of a piece of a panel, threads of most blocks.
const TILE: usize = 64;
const DEPTH: usize = 16;
const PANEL: usize = 32;
const PANEL_ROWS: usize = 64;
const THREADS: usize = 256;

/// The text the device runs.
pub fn text() -> String {
    format!("// f64 throughout\ntypedef double real;\n\n{LIBRARY}\n{KERNELS}")
}

/// Tiles of a lower triangle.
fn lower_tiles(n: usize) -> usize {
    let side = n.div_ceil(TILE);
    side * (side + 1) / 2
}

/// A kernel of the text: its name, threads, and doubles of shared memory.
#[derive(Clone, Copy)]
struct Routine(&'static str, usize, usize);

const GRAM_SHARED: usize = 2 * DEPTH * (TILE + 1);
const GRAM_OF_ROWS: Routine = Routine("gram_of_rows", THREADS, GRAM_SHARED);
const GRAM_OF_COLUMNS: Routine = Routine("gram_of_columns", THREADS, GRAM_SHARED);
const APPLY: Routine = Routine("apply", THREADS, 0);
const ADJOINT: Routine = Routine("adjoint", THREADS, THREADS);
const COLUMN_SQUARES: Routine = Routine("column_squares", THREADS, THREADS);
const PLACE_ROWS: Routine = Routine("place_rows", THREADS, 0);
const CENTRE_ROWS: Routine = Routine("centre_rows", THREADS, 0);
const SHIFT_DIAGONAL: Routine = Routine("shift_diagonal", THREADS, 0);
const BLOCK: Routine = Routine("cholesky_block", 32, PANEL * (PANEL + 1));
const BELOW: Routine = Routine(
    "cholesky_panel",
    PANEL_ROWS,
    (PANEL + PANEL_ROWS) * (PANEL + 1),
);
const UPDATE: Routine = Routine("cholesky_update", THREADS, GRAM_SHARED);
const SOLVE: Routine = Routine("cholesky_solve", THREADS, PANEL);

/// The kernels on a device.
pub struct Linear {
    device: Arc<dyn Device>,
    module: Box<dyn Module>,
}

/// What a routine works on besides sizes.
#[derive(Clone, Copy, Default)]
struct Operands {
    matrix: Span,
    vectors: Span,
    out: Span,
    flags: Span,
}

impl Linear {
    /// Compiles and loads the kernels.
    ///
    /// # Errors
    /// Compilation failures.
    pub fn new(device: &Arc<dyn Device>) -> Result<Linear, DeviceError> {
        Ok(Linear {
            device: device.clone(),
            module: device.load(&text())?,
        })
    }

    /// Runs a routine on so many pieces of work.
    fn run(
        &self,
        Routine(name, threads, shared): Routine,
        pieces: usize,
        sizes: &[usize],
        on: Operands,
    ) -> Result<(), DeviceError> {
        if pieces == 0 {
            return Ok(());
        }
        let too_many = || DeviceError::new("a matrix is too large for the GPU");
        if pieces > i32::MAX as usize || sizes.iter().any(|&n| n > i32::MAX as usize) {
            return Err(too_many());
        }
        let sizes = self.upload(&sizes.iter().map(|&n| n as f64).collect::<Vec<_>>())?;
        let kernel = Kernel {
            name: name.to_owned(),
            text: String::new(),
            threads,
            shared: 8 * shared,
            workspace: 0,
            blocks: vec![],
            constants: 0,
            constants64: 0,
            spins: 0,
            inputs: 0,
            outputs: 0,
            site_outputs: 0,
        };
        let launch = Launch {
            samples: pieces,
            constants: sizes.span(),
            inputs: on.matrix,
            constants64: on.vectors,
            outputs: on.out,
            workspace: on.flags,
            ..Launch::default()
        };
        let blocks = pieces.min(self.device.blocks().max(1));
        self.module.launch(&kernel, blocks, &launch)
    }

    fn upload(&self, numbers: &[f64]) -> Result<Buffer, DeviceError> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_ne_bytes()).collect();
        Buffer::holding(&self.device, &bytes)
    }

    fn numbers(&self, count: usize) -> Result<Buffer, DeviceError> {
        Buffer::new(&self.device, 8 * count)
    }

    /// A matrix given row by row.
    ///
    /// # Errors
    /// Too little memory, failures of the device.
    ///
    /// # Panics
    /// If there are not `rows * columns` numbers.
    pub fn matrix(
        self: &Arc<Self>,
        rows: usize,
        columns: usize,
        numbers: &[f64],
    ) -> Result<Matrix, DeviceError> {
        assert_eq!(numbers.len(), rows * columns, "a full matrix");
        Ok(Matrix {
            data: self.upload(numbers)?,
            linear: self.clone(),
            rows,
            columns,
        })
    }

    /// Cholesky of the n x n matrix in `matrix` (lower triangle), in place; whether
    /// it was positive definite.
    fn factor(&self, n: usize, matrix: &Buffer) -> Result<bool, DeviceError> {
        let flags = self.upload(&[0.0])?;
        let on = Operands {
            out: matrix.span(),
            flags: flags.span(),
            ..Operands::default()
        };
        for first in (0..n).step_by(PANEL) {
            let below = n.saturating_sub(first + PANEL);
            let sizes = [n, first];
            self.run(BLOCK, 1, &sizes, on)?;
            self.run(BELOW, below.div_ceil(PANEL_ROWS), &sizes, on)?;
            self.run(UPDATE, lower_tiles(below), &sizes, on)?;
        }
        Ok(flags.numbers(1)? == [0.0])
    }

    /// Solves `L L^T x = b`.
    fn substitute(&self, n: usize, factor: &Buffer, b: &[f64]) -> Result<Vec<f64>, DeviceError> {
        let x = self.upload(b)?;
        let on = Operands {
            matrix: factor.span(),
            out: x.span(),
            ..Operands::default()
        };
        self.run(SOLVE, 1, &[n], on)?;
        x.numbers(n)
    }
}

/// A matrix in device memory, row by row.
pub struct Matrix {
    linear: Arc<Linear>,
    data: Buffer,
    rows: usize,
    columns: usize,
}

impl Matrix {
    /// Its elements on the device.
    pub fn span(&self) -> Span {
        self.data.span()
    }

    /// `A x`.
    ///
    /// # Errors
    /// Failures of the device.
    pub fn apply(&self, x: &[f64]) -> Result<Vec<f64>, DeviceError> {
        assert_eq!(x.len(), self.columns, "one number per column");
        let pieces = self.rows.div_ceil(THREADS / 32);
        self.reduce(APPLY, pieces, x, self.rows)
    }

    /// `A^T y`.
    ///
    /// # Errors
    /// Failures of the device.
    pub fn adjoint(&self, y: &[f64]) -> Result<Vec<f64>, DeviceError> {
        assert_eq!(y.len(), self.rows, "one number per row");
        self.reduce(ADJOINT, self.columns.div_ceil(32), y, self.columns)
    }

    /// The diagonal of `A^T A`.
    ///
    /// # Errors
    /// Failures of the device.
    pub fn column_squares(&self) -> Result<Vec<f64>, DeviceError> {
        let pieces = self.columns.div_ceil(32);
        self.reduce(COLUMN_SQUARES, pieces, &[], self.columns)
    }

    fn reduce(
        &self,
        routine: Routine,
        pieces: usize,
        vector: &[f64],
        results: usize,
    ) -> Result<Vec<f64>, DeviceError> {
        let vector = self.linear.upload(vector)?;
        let out = self.linear.numbers(results)?;
        let on = Operands {
            matrix: self.data.span(),
            vectors: vector.span(),
            out: out.span(),
            ..Operands::default()
        };
        self.linear
            .run(routine, pieces, &[self.rows, self.columns], on)?;
        out.numbers(results)
    }

    /// The matrix of a system (lower triangle), and its size.
    fn system(&self, system: &System) -> Result<(usize, Buffer), DeviceError> {
        let (routine, n, scale, shift) = match system {
            System::Parameters { absolute, relative } => (
                GRAM_OF_COLUMNS,
                self.columns,
                None,
                [*absolute, *relative, 1.0],
            ),
            System::Rows { scale, shift } => {
                (GRAM_OF_ROWS, self.rows, scale.as_ref(), [*shift, 0.0, 0.0])
            }
        };
        let out = self.linear.numbers(n * n)?;
        let scaled = usize::from(scale.is_some());
        let scale = self.linear.upload(scale.map_or(&[], |s| s))?;
        let on = Operands {
            matrix: self.data.span(),
            vectors: scale.span(),
            out: out.span(),
            ..Operands::default()
        };
        let sizes = [self.rows, self.columns, scaled];
        self.linear.run(routine, lower_tiles(n), &sizes, on)?;
        let shift = self.linear.upload(&shift)?;
        let on = Operands {
            vectors: shift.span(),
            out: out.span(),
            ..Operands::default()
        };
        self.linear
            .run(SHIFT_DIAGONAL, n.div_ceil(THREADS), &[n], on)?;
        Ok((n, out))
    }

    /// The matrix of a system with `A` for `Obar`, row by row; what is above the
    /// diagonal is undefined.
    ///
    /// # Errors
    /// Too little memory, failures of the device.
    pub fn gram(&self, system: &System) -> Result<Vec<f64>, DeviceError> {
        let (n, matrix) = self.system(system)?;
        matrix.numbers(n * n)
    }

    /// The solution of a system by Cholesky; `None` where its matrix is not positive
    /// definite.
    ///
    /// # Errors
    /// Too little memory, failures of the device.
    pub fn solve(&self, system: &System, rhs: &[f64]) -> Result<Option<Vec<f64>>, DeviceError> {
        let (n, matrix) = self.system(system)?;
        assert_eq!(rhs.len(), n, "one number per equation");
        if !self.linear.factor(n, &matrix)? {
            return Ok(None);
        }
        let x = self.linear.substitute(n, &matrix, rhs)?;
        Ok(x.iter().all(|x| x.is_finite()).then_some(x))
    }
}

/// Centred gradients on a device.
pub struct DeviceRows {
    matrix: Matrix,
    mean: Vec<f64>,
}

/// Collects gradients of `n` samples on a device before they are centred.
pub struct RowBuilder {
    matrix: Matrix,
    samples: usize,
    parts: usize,
}

impl RowBuilder {
    /// Room for gradients of `samples` configurations by `columns` parameters.
    ///
    /// # Errors
    /// Too little memory.
    pub fn new(
        linear: &Arc<Linear>,
        samples: usize,
        parts: usize,
        columns: usize,
    ) -> Result<RowBuilder, DeviceError> {
        let rows = samples * parts;
        let data = linear.numbers(rows * columns)?;
        let linear = linear.clone();
        let matrix = Matrix {
            linear,
            data,
            rows,
            columns,
        };
        Ok(RowBuilder {
            matrix,
            samples,
            parts,
        })
    }

    /// Takes gradients of `count` samples from number `start` on: device memory,
    /// [sample, part, parameter].
    ///
    /// # Errors
    /// Failures of the device.
    pub fn place(&self, start: usize, count: usize, values: Span) -> Result<(), DeviceError> {
        let m = &self.matrix;
        let on = Operands {
            matrix: values,
            out: m.data.span(),
            ..Operands::default()
        };
        let sizes = [m.columns, self.parts, self.samples, start];
        m.linear.run(PLACE_ROWS, count * self.parts, &sizes, on)
    }

    /// Subtracts the weighted means and multiplies by the roots of the weights.
    ///
    /// # Errors
    /// Failures of the device.
    ///
    /// # Panics
    /// If there is not one weight per sample.
    pub fn centre(self, weights: &[f64]) -> Result<DeviceRows, DeviceError> {
        assert_eq!(weights.len(), self.samples, "one weight per sample");
        let m = &self.matrix;
        let mut mean = Vec::with_capacity(self.parts * m.columns);
        for part in 0..self.parts {
            let mut y = vec![0.0; m.rows];
            y[part * self.samples..(part + 1) * self.samples].copy_from_slice(weights);
            mean.extend(m.adjoint(&y)?);
        }
        let vectors = m.linear.upload(&[weights, &mean].concat())?;
        let on = Operands {
            vectors: vectors.span(),
            out: m.data.span(),
            ..Operands::default()
        };
        m.linear
            .run(CENTRE_ROWS, m.rows, &[m.columns, self.samples], on)?;
        Ok(DeviceRows {
            matrix: self.matrix,
            mean,
        })
    }
}

/// The numbers, or NaN where the device failed.
fn or_nan(result: Result<Vec<f64>, DeviceError>, count: usize) -> Vec<f64> {
    result.unwrap_or_else(|e| {
        tracing::error!("the device failed: {e}");
        vec![f64::NAN; count]
    })
}

impl CentredRows for DeviceRows {
    fn mean(&self) -> &[f64] {
        &self.mean
    }
    fn apply(&self, x: &[f64]) -> Vec<f64> {
        or_nan(self.matrix.apply(x), self.matrix.rows)
    }
    fn adjoint(&self, y: &[f64]) -> Vec<f64> {
        or_nan(self.matrix.adjoint(y), self.matrix.columns)
    }
    fn column_squares(&self) -> Vec<f64> {
        or_nan(self.matrix.column_squares(), self.matrix.columns)
    }
    fn matrix(&self, system: &System) -> Vec<f64> {
        let n = match system {
            System::Parameters { .. } => self.matrix.columns,
            System::Rows { .. } => self.matrix.rows,
        };
        or_nan(self.matrix.gram(system), n * n)
    }
    fn solve(&self, system: &System, rhs: &[f64]) -> Option<Vec<f64>> {
        self.matrix.solve(system, rhs).unwrap_or_else(|e| {
            tracing::error!("the device failed: {e}");
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_text() {
        let sizes = [
            ("THREADS", THREADS),
            ("TILE", TILE),
            ("DEPTH", DEPTH),
            ("PANEL", PANEL),
            ("PANEL_ROWS", PANEL_ROWS),
        ];
        for (name, value) in sizes {
            let line = format!("constexpr int {name} = {value};");
            assert!(KERNELS.contains(&line), "{line}");
        }
        assert_eq!([0, 1, 64, 65, 129].map(lower_tiles), [0, 1, 1, 3, 6]);
    }
}
