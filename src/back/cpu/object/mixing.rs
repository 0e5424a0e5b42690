//! Mixers inside an object file.
//!
//! On few sites, and for kernels that are no translations, a mixer is its sums;
//! elsewhere as many channels as a vector has lanes are transformed together.

use super::super::compiled::CompileError;
use super::super::constants::{ConstantError, Constants, tensors};
use super::super::kernels::Kernels;
use super::super::math::Precision;
use super::super::response::{Coefficients, Layout};
use super::super::simd::Real;
use super::fourier::{Around, LEAST, Transform, padded};
use super::routines::MixShape;
use super::section::Section;
use super::{Argument, Writer};
use crate::interp::{Tensor, evaluate_node};
use crate::ir::{Boundary, Graph, NodeId, Op};
use crate::kernel::{Geometry, MixChannel, Program, Row, Step};
use num_complex::Complex64;
use rustfft::FftPlanner;

/// A mixer's kernel among the parameters.
pub(super) struct MixKernel {
    /// On channels of (real part, imaginary part).
    complex: bool,
    how: How,
}

enum How {
    /// Per channel real part, imaginary part, and minus the imaginary part; the
    /// [`MixShape`]; bytes from the start of a row to its first site.
    Sums(Vec<[Argument; 3]>, Argument, usize),
    /// Per channel the symbol, divided by the number of momenta.
    Symbols(Vec<Vec<Complex64>>),
}

/// Memory of transforms behind the rows of a section.
pub(super) struct Scratch {
    /// Zeros where there is no row, and a place for what nobody wants.
    none: usize,
    dump: usize,
    planes: usize,
    /// Bytes of a plane.
    plane: usize,
    /// Where in a plane a vector stays zero.
    pub(super) zero: usize,
    pub(super) results: usize,
    end: usize,
}

/// Lines and sites of a line, as transforms see them.
pub(super) fn extent(g: &Geometry) -> [usize; 2] {
    let [nx, ny] = g.extent;
    if ny == 1 && g.stride() == 1 {
        [1, nx]
    } else {
        [nx, ny]
    }
}

fn transformed(g: &Geometry) -> bool {
    g.sites() >= LEAST
}

impl Scratch {
    pub(super) fn new(program: &Program, precision: Precision, arena: usize) -> Scratch {
        let (mut vectors, mut row, mut results) = (0, 0, 0);
        let mut room = |g: &Geometry, rows: usize| {
            vectors = padded(extent(g), g.boundary)
                .iter()
                .product::<usize>()
                .max(vectors);
            row = row.max(g.segment() * precision.bytes());
            results = results.max(rows);
        };
        for step in &program.steps {
            match step {
                Step::Mix { mixer, .. } => {
                    let m = &program.mixers[*mixer];
                    let g = program.geometry(m.space);
                    if !matches!(m.op, Op::Mix { .. }) && transformed(g) {
                        room(g, 0);
                    }
                }
                Step::Correlate {
                    correlation, out, ..
                } => {
                    let g = program.geometry(program.correlations[*correlation].space);
                    room(g, out.iter().map(Vec::len).sum());
                }
                _ => {}
            }
        }
        let mut end = arena.next_multiple_of(64);
        let mut take = |bytes: usize| {
            let at = end;
            end += bytes.next_multiple_of(64);
            at
        };
        let plane = (16 * (vectors + 1)).next_multiple_of(64);
        Scratch {
            none: take(row),
            dump: take(row),
            planes: take(if vectors > 0 { 8 * plane } else { 0 }),
            plane,
            zero: 16 * vectors,
            results: take(32 * results),
            end,
        }
    }

    /// Bytes of the section's memory.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Real and imaginary plane `k` of four.
    pub(super) fn pair(&self, k: usize) -> [i64; 2] {
        [0, 1].map(|part| (self.planes + (2 * k + part) * self.plane) as i64)
    }
}

/// Kernels of all mixers.
///
/// # Errors
/// Coefficients that cannot be evaluated.
pub(super) fn kernels<T: Real>(
    graph: &Graph,
    program: &Program,
    theta: &[f64],
    constants: &Constants<T>,
    out: &mut Writer,
) -> Result<Vec<MixKernel>, CompileError> {
    let invariant = |m: &crate::kernel::Mixer| !matches!(m.op, Op::Mix { .. });
    let kernels = match program.mixers.iter().any(invariant) {
        true => Some(Kernels::new(graph, program, theta)?),
        false => None,
    };
    let mut found = Vec::new();
    for (number, m) in program.mixers.iter().enumerate() {
        let g = program.geometry(m.space);
        let [nx, ny] = extent(g);
        let chain = g.extent[1] == 1 && g.stride() == 1;
        let (n, width) = (g.sites(), m.channels.iter().product::<usize>());
        let signed = [nx, ny].map(|n| n as i64);
        let complex = constants.mixers[number].complex();
        let shape = |first, target, source| MixShape {
            extent: signed,
            line: (g.stride() * T::PRECISION.bytes()) as i64,
            first,
            target,
            source,
        };
        // what counts of a kernel whose imaginary part is dropped
        let part = |z: Complex64| if complex { z } else { z.re.into() };
        let (entries, shape): (Vec<Vec<Complex64>>, MixShape) = match (&m.op, &kernels) {
            (
                Op::Mix {
                    complex,
                    transposed,
                },
                _,
            ) => {
                let value = value(graph, program, theta, m.kernel[0])?;
                let layout = if *complex {
                    Layout::Inner
                } else {
                    Layout::Real
                };
                let k = Coefficients::read(&value, n * n, layout, &m.channels);
                let entry = |i: usize, j: usize| if *transposed { j * n + i } else { i * n + j };
                let matrix = |c: usize| (0..n * n).map(|e| k.at(entry(e / n, e % n), c)).collect();
                let step = signed[0] * signed[1];
                let shape = shape(0, [signed[1] * step, step], signed[1]);
                ((0..width).map(matrix).collect(), shape)
            }
            (_, Some(kernels)) => {
                let at = |d: [i64; 2]| kernels.at(number, if chain { [d[1], 0] } else { d });
                if transformed(g) {
                    let symbols = symbols([nx, ny], g.boundary, width, &|d| at(d), &part);
                    found.push(MixKernel {
                        complex,
                        how: How::Symbols(symbols),
                    });
                    continue;
                }
                // element (a, b) holds the displacement (nx - 1 - a, ny - 1 - b)
                let [lx, ly] = signed.map(|n| 2 * n - 1);
                let all: Vec<Vec<Complex64>> = (0..lx * ly)
                    .map(|e| at([signed[0] - 1 - e / ly, signed[1] - 1 - e % ly]))
                    .collect();
                let shape = shape((signed[0] - 1) * ly + signed[1] - 1, [-ly, -1], ly);
                let channel = |c: usize| all.iter().map(|k| k[c]).collect();
                ((0..width).map(channel).collect(), shape)
            }
            (_, None) => unreachable!("kernels of every mixer that has some"),
        };
        let planes = |k: &Vec<Complex64>| {
            let signs: [fn(&Complex64) -> f64; 3] = [|z| z.re, |z| z.im, |z| -z.im];
            signs.map(|f| out.params.numbers(T::PRECISION, k.iter().map(f)))
        };
        let channels = entries.iter().map(planes).collect();
        let shape: Vec<u8> = shape.entries().map(i64::to_le_bytes).concat();
        let origin = g.origin() * T::PRECISION.bytes();
        found.push(MixKernel {
            complex,
            how: How::Sums(channels, out.tables.bytes(&shape), origin),
        });
    }
    Ok(found)
}

/// The transformed kernels of a mixer, per channel.
fn symbols(
    extent: [usize; 2],
    boundary: Boundary,
    width: usize,
    at: &dyn Fn([i64; 2]) -> Vec<Complex64>,
    part: &dyn Fn(Complex64) -> Complex64,
) -> Vec<Vec<Complex64>> {
    let size = padded(extent, boundary);
    let total = size[0] * size[1];
    let mut kernels = vec![vec![Complex64::ZERO; total]; width];
    // a padded lattice holds every displacement, an unpadded ring each class once
    let range = |a: usize| {
        let n = extent[a] as i64;
        if size[a] == extent[a] { 0..n } else { 1 - n..n }
    };
    for x in range(0) {
        for y in range(1) {
            let [px, py] = [0, 1].map(|a| [x, y][a].rem_euclid(size[a] as i64) as usize);
            for (kernel, z) in kernels.iter_mut().zip(at([x, y])) {
                kernel[px * size[1] + py] = part(z) / total as f64;
            }
        }
    }
    let mut planner = FftPlanner::new();
    let plans = size.map(|n| planner.plan_fft_forward(n));
    let transform = |k| super::super::mixer::transform2(&plans, size, k);
    kernels.into_iter().map(transform).collect()
}

/// The value of a node that depends on parameters only.
fn value(
    graph: &Graph,
    program: &Program,
    theta: &[f64],
    node: NodeId,
) -> Result<Tensor, CompileError> {
    let params = tensors(graph, program, theta, &[]).map_err(ConstantError::from)?;
    let spins = vec![1; program.lattice.sites()];
    let value = evaluate_node(graph, program.lattice, &params, &spins, node);
    Ok(value.map_err(ConstantError::from)?)
}

impl<T: Real> Section<'_, '_, T> {
    pub(super) fn mix(
        &mut self,
        mixer: usize,
        channels: &[MixChannel],
    ) -> Result<(), CompileError> {
        let mixers = std::mem::take(&mut self.mixers);
        let made = match &mixers[mixer].how {
            How::Sums(kernels, shape, origin) => {
                for c in channels {
                    let complex = mixers[mixer].complex;
                    self.sums(complex, c, kernels[c.channel], (*shape, *origin));
                }
                Ok(())
            }
            How::Symbols(symbols) => self.convolutions(mixer, channels, symbols),
        };
        self.mixers = mixers;
        made
    }

    fn sums(
        &mut self,
        complex: bool,
        c: &MixChannel,
        [re, im, minus]: [Argument; 3],
        (shape, origin): (Argument, usize),
    ) {
        let [set, add] = self.out.routines.mix;
        let row = |r: &Row| Argument::Arena((self.offset(r) + origin) as i64);
        let [x, y]: [Vec<Argument>; 2] = [&c.x, &c.out].map(|r| r.iter().map(row).collect());
        let mut calls = vec![(set, x[0], y[0], re)];
        if complex {
            calls.push((add, x[1], y[0], minus));
            calls.push((set, x[0], y[1], im));
            calls.push((add, x[1], y[1], re));
        }
        for (routine, x, y, kernel) in calls {
            self.call(routine, vec![x, y, kernel, shape]);
        }
    }

    fn convolutions(
        &mut self,
        mixer: usize,
        channels: &[MixChannel],
        symbols: &[Vec<Complex64>],
    ) -> Result<(), CompileError> {
        let lanes = T::PRECISION.lanes();
        let geometry = *self.program.geometry(self.program.mixers[mixer].space);
        let transform = self.transform(&geometry)?;
        for group in channels.chunks(lanes) {
            let zeros = vec![Complex64::ZERO; symbols.first().map_or(0, Vec::len)];
            let lane = |l: usize| group.get(l).map_or(&zeros, |c| &symbols[c.channel]);
            let lanes: Vec<&Vec<Complex64>> = (0..lanes).map(lane).collect();
            let mut numbers = Vec::new();
            for k in 0..zeros.len() {
                numbers.extend(lanes.iter().map(|symbol| symbol[k].re));
                numbers.extend(lanes.iter().map(|symbol| symbol[k].im));
            }
            let symbol = self.out.params.numbers(T::PRECISION, numbers);
            let x = group.iter().map(|c| c.x.clone()).collect();
            let y = group.iter().map(|c| c.out.clone()).collect();
            self.convolve(&geometry, &transform, &[x, y], symbol);
        }
        Ok(())
    }

    pub(super) fn transform(&mut self, g: &Geometry) -> Result<Transform, CompileError> {
        if self.out.around.is_none() {
            self.out.around = Some(Around::new(&mut self.out.module, T::PRECISION)?);
        }
        let size = padded(extent(g), g.boundary);
        Ok(Transform::new(size, T::PRECISION, &mut self.out.tables))
    }

    pub(super) fn around(&self) -> Around {
        self.out.around.expect("made with the first transform")
    }

    /// Rows of one sample to or from lanes; a row that is missing is zero, or
    /// nobody's.
    pub(super) fn lanes(
        &mut self,
        g: &Geometry,
        t: &Transform,
        rows: &[Vec<Row>],
        at: [i64; 2],
        save: bool,
    ) {
        let lanes = T::PRECISION.lanes();
        let none = if save {
            self.scratch.dump
        } else {
            self.scratch.none
        };
        let mut table = Vec::new();
        for part in 0..2 {
            for lane in 0..lanes {
                let row = rows.get(lane).and_then(|r| r.get(part));
                table.push(row.map_or(none, |r| self.lines(r).0));
            }
        }
        let [nx, ny] = extent(g);
        let shape = [nx, ny, g.stride() * T::PRECISION.bytes(), t.size[1]];
        let (table, shape) = (
            self.out.tables.offsets(&table),
            self.out.tables.words(&shape),
        );
        let around = self.around();
        let [re, im] = at.map(Argument::Arena);
        if !save && t.size != extent(g) {
            let all = Argument::Number((t.size[0] * t.size[1]) as i64);
            self.call(around.clear, vec![re, im, all]);
        }
        let routine = if save { around.save } else { around.load };
        self.call(routine, vec![Argument::Arena(0), table, re, im, shape]);
    }

    pub(super) fn passes(&mut self, t: &Transform, x: [i64; 2], other: [i64; 2]) -> [i64; 2] {
        let passes = self.around().passes;
        t.run(&passes, x, other, &mut |routine, arguments| {
            self.call(routine, arguments);
        })
    }

    fn convolve(
        &mut self,
        g: &Geometry,
        t: &Transform,
        [x, y]: &[Vec<Vec<Row>>; 2],
        symbol: Argument,
    ) {
        let [a, b] = [0, 1].map(|k| self.scratch.pair(k));
        self.lanes(g, t, x, a, false);
        let z = self.passes(t, a, b);
        let multiply = self.around().multiply;
        let planes = z.into_iter().chain(z).map(Argument::Arena);
        let count = Argument::Number((t.size[0] * t.size[1]) as i64);
        self.call(multiply, planes.chain([symbol, count]).collect());
        let other = if z == a { b } else { a };
        let swapped = |[re, im]: [i64; 2]| [im, re];
        let z = swapped(self.passes(t, swapped(z), swapped(other)));
        self.lanes(g, t, y, z, true);
    }
}
