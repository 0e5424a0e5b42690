//! Linear algebra of stochastic reconfiguration on a device, in f64: kernels of
//! `kernels/linear.cuh`, which says what each of them reads and writes.

use super::device::{Buffer, Device, DeviceError, Launch, Module, Recording, Span, Step, Stream};
use super::driver::BLOCKS_PER_PROCESSOR;
use super::emit::Kernel;
use crate::run::network::Precision;
use crate::run::rows::{CentredRows, System};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The kernels, to follow the device library with `real` = double.
pub const KERNELS: &str = include_str!("../../../kernels/linear.cuh");

/// Sizes of the text: results per side of a tile and of a large one, terms at a time, columns of a
/// Cholesky step, rows of a piece of a panel, threads of most blocks.
const TILE: usize = 64;
const LARGE: usize = 128;
const DEPTH: usize = 16;
const PANEL: usize = 32;
const PANEL_ROWS: usize = 64;
const THREADS: usize = 256;

/// Tiles of a lower triangle.
fn lower_tiles(n: usize, tile: usize) -> usize {
    let side = n.div_ceil(tile);
    side * (side + 1) / 2
}

/// A kernel of the text: its name, threads, and doubles of shared memory.
#[derive(Clone, Copy)]
struct Routine(&'static str, usize, usize);

const GRAM_SHARED: usize = 2 * DEPTH * (TILE + 1);
const GRAM_OF_ROWS: Routine = Routine("gram_of_rows", THREADS, GRAM_SHARED);
const GRAM_OF_COLUMNS: Routine = Routine("gram_of_columns", THREADS, GRAM_SHARED);
const LARGE_SHARED: usize = 2 * DEPTH * (LARGE + 1);
const LARGE_GRAM_OF_ROWS: Routine = Routine("large_gram_of_rows", THREADS, LARGE_SHARED);
const LARGE_GRAM_OF_COLUMNS: Routine = Routine("large_gram_of_columns", THREADS, LARGE_SHARED);
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

const ROUTINES: [Routine; 14] = [
    GRAM_OF_ROWS,
    GRAM_OF_COLUMNS,
    LARGE_GRAM_OF_ROWS,
    LARGE_GRAM_OF_COLUMNS,
    APPLY,
    ADJOINT,
    COLUMN_SQUARES,
    PLACE_ROWS,
    CENTRE_ROWS,
    SHIFT_DIAGONAL,
    BLOCK,
    BELOW,
    UPDATE,
    SOLVE,
];

/// The names of all kernels.
pub const NAMES: [&str; ROUTINES.len()] = {
    let mut names = [""; ROUTINES.len()];
    let mut k = 0;
    while k < names.len() {
        names[k] = ROUTINES[k].0;
        k += 1;
    }
    names
};

/// All kernels, as the host launches them.
pub fn kernels() -> Vec<Kernel> {
    ROUTINES.iter().map(Routine::kernel).collect()
}

impl Routine {
    fn kernel(&self) -> Kernel {
        let Routine(name, threads, shared) = *self;
        Kernel {
            threads,
            shared: 8 * shared,
            ..Kernel::by_hand(name)
        }
    }
}

/// The kernels on a device.
pub struct Linear {
    device: Arc<dyn Device>,
    module: Arc<dyn Module>,
    /// That of the last system: the next one is of the same size, mostly.
    solver: Mutex<Option<Solver>>,
}

/// Solves systems of one size: memory, and the launches that are the same every time.
struct Solver {
    size: usize,
    /// Becomes the factor of the matrix.
    matrix: Buffer,
    /// Becomes the solution in place of the right-hand side.
    vector: Buffer,
    /// Becomes 1 where the matrix is not positive definite.
    flag: Buffer,
    launches: Box<dyn Recording>,
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
            module: Arc::from(device.load_kernels(Precision::F64, &[KERNELS])?),
            solver: Mutex::new(None),
        })
    }

    /// A routine on so many pieces of work, at most four sizes; nothing for none.
    fn step(
        &self,
        routine: Routine,
        pieces: usize,
        sizes: &[usize],
        on: Operands,
    ) -> Result<Option<Step>, DeviceError> {
        if pieces == 0 {
            return Ok(None);
        }
        let too_large = |_| DeviceError::new("a matrix is too large for the GPU");
        i32::try_from(pieces).map_err(too_large)?;
        let mut own = [0; 4];
        for (own, &size) in own.iter_mut().zip(sizes) {
            *own = i32::try_from(size).map_err(too_large)?;
        }
        Ok(Some(Step {
            module: self.module.clone(),
            kernel: Arc::new(routine.kernel()),
            blocks: pieces.min(self.device.blocks().max(1)),
            arguments: Launch {
                samples: pieces,
                sizes: own,
                inputs: on.matrix,
                constants64: on.vectors,
                outputs: on.out,
                workspace: on.flags,
                ..Launch::default()
            },
        }))
    }

    /// Runs a routine on so many pieces of work.
    fn run(
        &self,
        stream: Stream,
        routine: Routine,
        pieces: usize,
        sizes: &[usize],
        on: Operands,
    ) -> Result<(), DeviceError> {
        match self.step(routine, pieces, sizes, on)? {
            Some(s) => (self.module).launch_on(stream, &s.kernel, s.blocks, &s.arguments),
            None => Ok(()),
        }
    }

    fn upload(&self, numbers: &[f64]) -> Result<Buffer, DeviceError> {
        Buffer::holding(&self.device, &bytes_of(numbers))
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

    /// Cholesky of an n x n matrix (lower triangle) in place, then `L L^T x = b`.
    fn solver(&self, n: usize) -> Result<Solver, DeviceError> {
        let (matrix, vector) = (self.numbers(n * n)?, self.numbers(n)?);
        let flag = self.numbers(1)?;
        let on = Operands {
            out: matrix.span(),
            flags: flag.span(),
            ..Operands::default()
        };
        let mut steps = Vec::new();
        for first in (0..n).step_by(PANEL) {
            let below = n.saturating_sub(first + PANEL);
            let sizes = [n, first];
            steps.extend(self.step(BLOCK, 1, &sizes, on)?);
            steps.extend(self.step(BELOW, below.div_ceil(PANEL_ROWS), &sizes, on)?);
            steps.extend(self.step(UPDATE, lower_tiles(below, TILE), &sizes, on)?);
        }
        let on = Operands {
            matrix: matrix.span(),
            out: vector.span(),
            ..Operands::default()
        };
        steps.extend(self.step(SOLVE, 1, &[n], on)?);
        Ok(Solver {
            size: n,
            matrix,
            vector,
            flag,
            launches: self.device.record(steps),
        })
    }

    /// Bytes kept from one system to the next.
    pub fn kept(&self) -> usize {
        let solver = self.solver.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = |s: &Solver| s.matrix.span().bytes + s.vector.span().bytes;
        solver.as_ref().map_or(0, bytes)
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
    pub fn data(&self) -> &Buffer {
        &self.data
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
        let sizes = [self.rows, self.columns];
        self.linear.run(Stream::MAIN, routine, pieces, &sizes, on)?;
        out.numbers(results)
    }

    /// Equations of a system.
    fn equations(&self, system: &System) -> usize {
        match system {
            System::Parameters { .. } => self.columns,
            System::Rows { .. } => self.rows,
        }
    }

    /// Writes the matrix of a system (lower triangle).
    fn system(&self, system: &System, out: &Buffer) -> Result<(), DeviceError> {
        let n = self.equations(system);
        // large tiles take a multiprocessor each: enough of them to have none idle
        let enough = (self.linear.device.blocks() / BLOCKS_PER_PROCESSOR).max(1);
        let large = lower_tiles(n, LARGE) >= enough;
        let (routine, scale, shift) = match system {
            System::Parameters { absolute, relative } => {
                let routine = [GRAM_OF_COLUMNS, LARGE_GRAM_OF_COLUMNS][usize::from(large)];
                (routine, None, [*absolute, *relative, 1.0])
            }
            System::Rows { scale, shift } => {
                let routine = [GRAM_OF_ROWS, LARGE_GRAM_OF_ROWS][usize::from(large)];
                (routine, scale.as_ref(), [*shift, 0.0, 0.0])
            }
        };
        let tiles = lower_tiles(n, if large { LARGE } else { TILE });
        let scaled = usize::from(scale.is_some());
        let scale = self.linear.upload(scale.map_or(&[], |s| s))?;
        let shift = self.linear.upload(&shift)?;
        let on = Operands {
            matrix: self.data.span(),
            vectors: scale.span(),
            out: out.span(),
            ..Operands::default()
        };
        let sizes = [self.rows, self.columns, scaled];
        let run = |routine, pieces, sizes: &[usize], on| {
            self.linear.run(Stream::MAIN, routine, pieces, sizes, on)
        };
        run(routine, tiles, &sizes, on)?;
        let on = Operands {
            vectors: shift.span(),
            out: out.span(),
            ..Operands::default()
        };
        run(SHIFT_DIAGONAL, n.div_ceil(THREADS), &[n], on)
    }

    /// The matrix of a system with `A` for `Obar`, row by row; what is above the
    /// diagonal is undefined.
    ///
    /// # Errors
    /// Too little memory, failures of the device.
    pub fn gram(&self, system: &System) -> Result<Vec<f64>, DeviceError> {
        let n = self.equations(system);
        let matrix = self.linear.numbers(n * n)?;
        self.system(system, &matrix)?;
        matrix.numbers(n * n)
    }

    /// The solution of a system by Cholesky; `None` where its matrix is not positive
    /// definite.
    ///
    /// # Errors
    /// Too little memory, failures of the device.
    pub fn solve(&self, system: &System, rhs: &[f64]) -> Result<Option<Vec<f64>>, DeviceError> {
        let n = self.equations(system);
        assert_eq!(rhs.len(), n, "one number per equation");
        let mut kept = self
            .linear
            .solver
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_some_and(|s| s.size != n) {
            *kept = None;
        }
        let solver = match kept.take() {
            Some(solver) => solver,
            None => self.linear.solver(n)?,
        };
        let solver = kept.insert(solver);
        solver.vector.write(&bytes_of(rhs))?;
        solver.flag.write(&0f64.to_ne_bytes())?;
        self.system(system, &solver.matrix)?;
        solver.launches.replay(Stream::MAIN)?;
        if solver.flag.numbers(1)? != [0.0] {
            return Ok(None);
        }
        let x = solver.vector.numbers(n)?;
        Ok(x.iter().all(|x| x.is_finite()).then_some(x))
    }
}

/// Numbers as the device has them.
fn bytes_of(numbers: &[f64]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_ne_bytes()).collect()
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

    /// Takes gradients of some samples on the stream they belong to: [sample, part,
    /// parameter]. Another stream than the main one is ordered after it before the
    /// first call, and before it after the last.
    ///
    /// # Errors
    /// Failures of the device.
    pub fn place(&self, samples: &Range<usize>, values: &Buffer) -> Result<(), DeviceError> {
        let m = &self.matrix;
        let on = Operands {
            matrix: values.span(),
            out: m.data.span(),
            ..Operands::default()
        };
        let sizes = [m.columns, self.parts, self.samples, samples.start];
        let pieces = samples.len() * self.parts;
        m.linear
            .run(values.stream(), PLACE_ROWS, pieces, &sizes, on)
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
        let sizes = [m.columns, self.samples];
        m.linear
            .run(Stream::MAIN, CENTRE_ROWS, m.rows, &sizes, on)?;
        Ok(DeviceRows {
            matrix: self.matrix,
            mean,
        })
    }
}

impl DeviceRows {
    /// The numbers, or NaN where the device failed.
    fn or_nan(&self, result: Result<Vec<f64>, DeviceError>, count: usize) -> Vec<f64> {
        result.unwrap_or_else(|e| {
            self.matrix.linear.device.report(&e);
            vec![f64::NAN; count]
        })
    }
}

impl CentredRows for DeviceRows {
    fn mean(&self) -> &[f64] {
        &self.mean
    }
    fn apply(&self, x: &[f64]) -> Vec<f64> {
        self.or_nan(self.matrix.apply(x), self.matrix.rows)
    }
    fn adjoint(&self, y: &[f64]) -> Vec<f64> {
        self.or_nan(self.matrix.adjoint(y), self.matrix.columns)
    }
    fn column_squares(&self) -> Vec<f64> {
        self.or_nan(self.matrix.column_squares(), self.matrix.columns)
    }
    fn matrix(&self, system: &System) -> Vec<f64> {
        let n = self.matrix.equations(system);
        self.or_nan(self.matrix.gram(system), n * n)
    }
    fn solve(&self, system: &System, rhs: &[f64]) -> Option<Vec<f64>> {
        self.matrix.solve(system, rhs).unwrap_or_else(|e| {
            self.matrix.linear.device.report(&e);
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
            ("LARGE", LARGE),
            ("DEPTH", DEPTH),
            ("PANEL", PANEL),
            ("PANEL_ROWS", PANEL_ROWS),
        ];
        for (name, value) in sizes {
            let line = format!("constexpr int {name} = {value};");
            assert!(KERNELS.contains(&line), "{line}");
        }
        let tiles = [0, 1, 64, 65, 129].map(|n| lower_tiles(n, TILE));
        assert_eq!(tiles, [0, 1, 1, 3, 6]);
    }
}
