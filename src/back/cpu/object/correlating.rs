//! Derivatives with respect to the kernels of mixers inside an object file.

use super::super::compiled::CompileError;
use super::super::simd::Real;
use super::Argument;
use super::fourier::places;
use super::mixing::extent;
use super::section::Section;
use crate::ir::Boundary;
use crate::kernel::{CorrelationKind, Geometry, Row, Step};
use num_complex::Complex64;
use rustfft::FftPlanner;

impl<T: Real> Section<'_, '_, T> {
    /// Derivatives with respect to a kernel: the correlation of adjoint and input at
    /// all displacements, and what they are reduced to.
    pub(super) fn correlate(
        &mut self,
        correlation: usize,
        channels: &[[Vec<Row>; 2]],
        out: &[Vec<Row>],
    ) -> Result<(), CompileError> {
        let c = self.program.correlations[correlation].clone();
        let g = *self.program.geometry(c.space);
        let t = self.transform(&g)?;
        let total = t.size[0] * t.size[1];
        let (lanes, size, width) = (T::PRECISION.lanes(), T::PRECISION.bytes(), channels.len());
        let around = self.around();
        let scale = self.out.tables.numbers(T::PRECISION, [1.0 / total as f64]);
        let taps = taps(&c.kind, &g, t.size);
        let (none, length) = (self.scratch.zero, taps.len());
        let sources = taps
            .iter()
            .flat_map(|four| four.map(|at| at.map_or(none, |at| 16 * at)));
        let sources: Vec<usize> = sources.collect();
        let sources = self.out.tables.offsets(&sources);
        let matrices = self.matrices(correlation, &g);
        for (k, group) in channels.chunks(lanes).enumerate() {
            let [a, b, spare] = [0, 1, 2].map(|k| self.scratch.pair(k));
            let rows = |part: usize| -> Vec<Vec<Row>> {
                group
                    .iter()
                    .map(|c: &[Vec<Row>; 2]| c[part].clone())
                    .collect()
            };
            self.lanes(&g, &t, &rows(0), a, false);
            let left = self.passes(&t, a, spare);
            let free = if left == a { spare } else { a };
            self.lanes(&g, &t, &rows(1), b, false);
            let right = self.passes(&t, b, free);
            let free = if right == b { free } else { b };
            let count = Argument::Number(total as i64);
            let planes = left.into_iter().chain(right).map(Argument::Arena);
            self.call(around.conjugate, planes.chain([count, scale]).collect());
            let swapped = |[re, im]: [i64; 2]| [im, re];
            let z = swapped(self.passes(&t, swapped(left), swapped(free)));
            // `right` holds nothing any more
            let folded = self.scratch.pair(3);
            let planes = z.into_iter().chain(folded).map(Argument::Arena);
            let count = Argument::Number(length as i64);
            self.call(around.fold, planes.chain([sources, count]).collect());
            let first = k * lanes;
            let mut table = Vec::new();
            let Some(matrices) = &matrices else {
                // one result per displacement
                let parts = if c.complex { 2 } else { 1 };
                for e in 0..length {
                    for (part, plane) in folded.iter().enumerate().take(parts) {
                        for lane in 0..group.len() {
                            let row = (parts * e + part) * width + first + lane;
                            let from = *plane as usize + 16 * e + lane * size;
                            table.push((from, self.offset(&out[0][row])));
                        }
                    }
                }
                let widen = self.out.routines.widen;
                self.copies(widen, table.into_iter());
                continue;
            };
            let height = matrices.first().map_or(0, Vec::len);
            let mut numbers = Vec::new();
            for row in 0..height {
                for tap in 0..length {
                    let lane = |l: usize| {
                        let m = matrices.get(first + l);
                        m.map_or(Complex64::ZERO, |m| m[row][tap])
                    };
                    numbers.extend((0..lanes).map(|l| lane(l).re));
                    numbers.extend((0..lanes).map(|l| lane(l).im));
                }
            }
            let matrix = self.out.params.numbers(T::PRECISION, numbers);
            let results = self.scratch.results;
            let [rows, taps] = [height, length].map(|n| Argument::Number(n as i64));
            let planes = folded.map(Argument::Arena).into_iter();
            let results_at = Argument::Arena(results as i64);
            let arguments = planes.chain([matrix, rows, taps, results_at]);
            self.call(around.reduce, arguments.collect());
            let mut row = 0;
            for out in out {
                // per part of the result the entries
                let parts = match &c.kind {
                    CorrelationKind::Scan { scan, .. } => 1 + usize::from(scan.complex),
                    _ => 2,
                };
                let entries = out.len() / width / parts;
                for e in 0..entries {
                    for part in 0..parts {
                        let index = match c.kind {
                            CorrelationKind::Scan { .. } => part * entries + e,
                            _ => 2 * e + part,
                        };
                        for lane in 0..group.len() {
                            let from = results + (2 * row + part) * 16 + lane * size;
                            let to = &out[index * width + first + lane];
                            table.push((from, self.offset(to)));
                        }
                    }
                    row += 1;
                }
            }
            let widen = self.out.routines.widen;
            self.copies(widen, table.into_iter());
        }
        Ok(())
    }

    /// Per channel and result row the coefficients of the folded correlation; `None`
    /// where the correlation is the result.
    fn matrices(&self, correlation: usize, g: &Geometry) -> Option<Vec<Vec<Vec<Complex64>>>> {
        let c = &self.program.correlations[correlation];
        let n = g.sites();
        match &c.kind {
            CorrelationKind::Displacement => None,
            CorrelationKind::Momentum => {
                let [nx, ny] = g.extent;
                let entry = |q: usize, e: usize| {
                    let turn = (q / ny * (e / ny)) as f64 / nx as f64
                        + (q % ny * (e % ny)) as f64 / ny as f64;
                    Complex64::cis(std::f64::consts::TAU * turn) / n as f64
                };
                let all: Vec<Vec<Complex64>> = (0..n)
                    .map(|q| (0..n).map(|e| entry(q, e)).collect())
                    .collect();
                let width = match self.channels(correlation) {
                    0 => 1,
                    width => width,
                };
                Some(vec![all; width])
            }
            CorrelationKind::Scan { .. } => {
                let mut planner = FftPlanner::new();
                let inverse = planner.plan_fft_inverse(n);
                let all = self.constants.correlators[correlation].matrices();
                let row = |numbers: &[T]| {
                    let (re, im) = numbers.split_at(n);
                    let mut row: Vec<Complex64> = (re.iter().zip(im))
                        .map(|(re, im)| Complex64::new(re.widened(), im.widened()))
                        .collect();
                    if g.boundary == Boundary::Periodic {
                        // from momenta to displacements
                        inverse.process(&mut row);
                        row.iter_mut().for_each(|z| *z /= n as f64);
                    }
                    row
                };
                let rows = |m: &Vec<T>| m.chunks_exact(2 * n).map(row).collect();
                Some(all.iter().map(rows).collect())
            }
        }
    }

    fn channels(&self, correlation: usize) -> usize {
        let count = |s: &Step| match s {
            Step::Correlate {
                correlation: k,
                channels,
                ..
            } if *k == correlation => Some(channels.len()),
            _ => None,
        };
        self.program.steps.iter().find_map(count).unwrap_or(0)
    }
}

/// Where the padded correlation has what belongs to each (folded) displacement.
fn taps(kind: &CorrelationKind, g: &Geometry, size: [usize; 2]) -> Vec<[Option<usize>; 4]> {
    let (own, open) = (extent(g), g.boundary == Boundary::Open);
    let at = |d: [i64; 2]| -> Vec<usize> {
        let [xs, ys] = [0, 1].map(|a| places(d[a], own[a], size[a], g.boundary));
        xs.iter()
            .flat_map(|x| ys.iter().map(move |y| x * size[1] + y))
            .collect()
    };
    let four = |all: Vec<usize>| std::array::from_fn(|k| all.get(k).copied());
    let signed = own.map(|n| n as i64);
    match kind {
        CorrelationKind::Scan { scan, .. } => {
            let fold = |k: i64| {
                let (forward, back) = (
                    at([0, k]),
                    at([
                        0,
                        if open {
                            -k
                        } else {
                            (signed[1] - k) % signed[1]
                        },
                    ]),
                );
                four(match (scan.mirror, scan.leftward) {
                    (true, _) => [forward, back].concat(),
                    (false, false) => forward,
                    (false, true) => back,
                })
            };
            (0..signed[1]).map(fold).collect()
        }
        CorrelationKind::Displacement if open => {
            let axis = |a: usize| 1 - signed[a]..signed[a];
            // an axis of one site has one displacement
            axis(0)
                .flat_map(|x| axis(1).map(move |y| [x, y]))
                .map(|d| four(at(d)))
                .collect()
        }
        _ => (0..signed[0])
            .flat_map(|x| (0..signed[1]).map(move |y| [x, y]))
            .map(|d| four(at(d)))
            .collect(),
    }
}
