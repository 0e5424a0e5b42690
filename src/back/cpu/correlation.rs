//! Derivatives with respect to the kernels of mixers, by FFT.
//!
//! With adjoint g and input x of a mixer `Y = H X` the derivative of
//! `Re sum_i conj(g_i) y_i` with respect to the symbol is `G(q) conj X(q) / T`.
//! Whatever the symbol or kernel is made of, what remains is linear with
//! coefficients that depend on parameters alone: one matrix per channel for a
//! recurrence, whose derivatives follow from the resolvent `(1 - u A)^-1`.

use super::mixer::{MixerError, fourier2, smooth, transform2};
use super::outer::{ROW_BLOCK, Split, conjugate_product};
use super::response::Response;
use super::simd::{Isa, Real};
use crate::interp::Tensor;
use crate::ir::{Boundary, Scan};
use crate::kernel::{Correlation, CorrelationKind, Geometry};
use rustfft::num_complex::{Complex, Complex64};
use rustfft::{Fft, FftPlanner};
use std::sync::Arc;

/// A correlation ready to run in precision `T`.
pub struct Correlator<T: Real> {
    size: [usize; 2],
    complex: bool,
    forward: [Arc<dyn Fft<T>>; 2],
    inverse: [Arc<dyn Fft<T>>; 2],
    fft_scratch: usize,
    result: Reduction<T>,
}

enum Reduction<T> {
    /// Padded position of each displacement.
    Displacement(Vec<usize>),
    Momentum,
    Scan(ScanReduction<T>),
}

/// Per channel a matrix from spectra (ring) or correlations (open chain), folded
/// to one direction, to coefficients.
struct ScanReduction<T> {
    scan: Scan,
    /// Columns: momenta or displacements.
    taps: usize,
    /// In real space, not in momentum space.
    open: bool,
    /// Rows per result.
    entries: Vec<usize>,
    /// Result and entry of every row.
    places: Vec<(usize, usize)>,
    /// Per channel, as [`conjugate_product`] reads them.
    matrices: Vec<Vec<T>>,
}

macro_rules! instance {
    ($name:ident, $feature:literal) => {
        #[target_feature(enable = $feature)]
        #[allow(clippy::too_many_arguments)]
        unsafe fn $name<T: Real>(
            c: &Correlator<T>,
            isa: Isa,
            g: &Geometry,
            channel: (usize, usize),
            adjoint: &[&[T]],
            input: &[&[T]],
            memory: &mut [Complex<T>],
            put: &mut dyn FnMut(usize, usize, f64),
        ) {
            c.correlate(isa, g, channel, adjoint, input, memory, put);
        }
    };
}

#[cfg(target_arch = "x86_64")]
instance!(run_512, "avx512f,avx512vl,fma");
#[cfg(target_arch = "x86_64")]
instance!(run_256, "avx2,fma");

impl<T: Real> Correlator<T> {
    /// Builds a correlation from the values of the coefficients.
    ///
    /// # Errors
    /// A recurrence without periodic solution.
    pub fn new(
        c: &Correlation,
        g: &Geometry,
        values: &[&Tensor],
        planner: &mut (FftPlanner<T>, FftPlanner<f64>),
    ) -> Result<Correlator<T>, MixerError> {
        let [nx, ny] = g.extent;
        let open = g.boundary == Boundary::Open;
        let size = if open {
            [nx, ny].map(|n| if n == 1 { 1 } else { smooth(2 * n) })
        } else {
            [nx, ny]
        };
        let result = match &c.kind {
            CorrelationKind::Momentum => Reduction::Momentum,
            CorrelationKind::Displacement if !open => {
                Reduction::Displacement((0..nx * ny).collect())
            }
            CorrelationKind::Displacement => {
                let place = |e: usize| {
                    let (x, y) = (e / (2 * ny - 1), e % (2 * ny - 1));
                    (x + size[0] + 1 - nx) % size[0] * size[1] + (y + size[1] + 1 - ny) % size[1]
                };
                Reduction::Displacement((0..(2 * nx - 1) * (2 * ny - 1)).map(place).collect())
            }
            CorrelationKind::Scan {
                scan,
                channels,
                wrt,
                ..
            } => {
                let response = Response::new(*scan, values, channels);
                let entries: Vec<usize> = wrt.iter().map(|&w| response.entries(w)).collect();
                let numbered = entries.iter().enumerate();
                let mut reduction = ScanReduction {
                    places: numbered
                        .flat_map(|(result, &n)| (0..n).map(move |e| (result, e)))
                        .collect(),
                    scan: *scan,
                    taps: nx,
                    open,
                    entries,
                    matrices: Vec::new(),
                };
                let width: usize = channels.iter().product();
                for channel in 0..width {
                    let d = Derivatives::new(&response, channel, nx, open, size[0], planner)?;
                    let rows = wrt
                        .iter()
                        .flat_map(|&w| d.rows(&response, channel, w, planner));
                    let height = reduction.height();
                    let mut matrix = vec![T::default(); 2 * height * nx];
                    for (r, row) in rows.enumerate() {
                        for (k, z) in row.iter().enumerate() {
                            matrix[2 * k * height + r] = T::rounded(z.re);
                            matrix[(2 * k + 1) * height + r] = T::rounded(z.im);
                        }
                    }
                    reduction.matrices.push(matrix);
                }
                Reduction::Scan(reduction)
            }
        };
        let forward = size.map(|n| planner.0.plan_fft_forward(n));
        let inverse = size.map(|n| planner.0.plan_fft_inverse(n));
        let fft_scratch = forward
            .iter()
            .chain(&inverse)
            .map(|p| p.get_inplace_scratch_len())
            .max()
            .unwrap_or(0);
        Ok(Correlator {
            size,
            complex: c.complex,
            forward,
            inverse,
            fft_scratch,
            result,
        })
    }

    /// Per channel the derivatives of a recurrence: per coefficient the real, then
    /// the imaginary parts.
    pub(in crate::back) fn matrices(&self) -> Vec<Vec<T>> {
        match &self.result {
            Reduction::Scan(scan) => scan.matrices.iter().map(|m| scan.by_rows(m)).collect(),
            _ => Vec::new(),
        }
    }

    /// Complex numbers of scratch memory [`Correlator::run`] needs.
    pub fn scratch(&self) -> usize {
        3 * self.size[0] * self.size[1] + self.fft_scratch
    }

    /// Correlates one channel of one sample; see `correlate`, compiled here for the
    /// vectors of the machine.
    #[allow(clippy::too_many_arguments)]
    pub fn run(
        &self,
        isa: Isa,
        g: &Geometry,
        channel: (usize, usize),
        adjoint: &[&[T]],
        input: &[&[T]],
        memory: &mut [Complex<T>],
        put: &mut dyn FnMut(usize, usize, f64),
    ) {
        // SAFETY: the instruction set is that of the machine.
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { run_512(self, isa, g, channel, adjoint, input, memory, put) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { run_256(self, isa, g, channel, adjoint, input, memory, put) },
            _ => self.correlate(isa, g, channel, adjoint, input, memory, put),
        }
    }

    /// Correlates one channel of one sample: segments of the adjoint and of the
    /// input, (real part, imaginary part) if complex. Calls
    /// `put(result, index, value)` for every element of the channel; `index` is
    /// that of the row: (part,) entry, channel as the result orders them.
    #[allow(clippy::too_many_arguments)]
    #[inline(always)]
    fn correlate(
        &self,
        isa: Isa,
        g: &Geometry,
        (channel, width): (usize, usize),
        adjoint: &[&[T]],
        input: &[&[T]],
        memory: &mut [Complex<T>],
        put: &mut dyn FnMut(usize, usize, f64),
    ) {
        let total = self.size[0] * self.size[1];
        let (z, rest) = memory.split_at_mut(total);
        let (second, rest) = rest.split_at_mut(total);
        let (other, scratch) = rest.split_at_mut(total);
        if self.complex {
            self.load(g, [adjoint[0], adjoint[1]], z);
            self.load(g, [input[0], input[1]], second);
            fourier2(&self.forward, self.size, z, other, scratch);
            fourier2(&self.forward, self.size, second, other, scratch);
            for (g, x) in z.iter_mut().zip(second.iter()) {
                *g = *g * x.conj();
            }
        } else {
            // one transform for both: g + i x
            self.load(g, [adjoint[0], input[0]], second);
            fourier2(&self.forward, self.size, second, other, scratch);
            let quarter = T::rounded(0.25);
            let [nx, ny] = self.size;
            for x in 0..nx {
                for y in 0..ny {
                    let (q, r) = (x * ny + y, (nx - x) % nx * ny + (ny - y) % ny);
                    let (own, mirrored) = (second[q], second[r].conj());
                    let (g, ix) = (own + mirrored, own - mirrored);
                    // conj(x) = conj(-i (i x)) = i conj(i x)
                    let x = Complex::new(ix.im, ix.re);
                    z[q] = g * x * quarter;
                }
            }
        }
        let scale = T::rounded(1.0 / total as f64);
        z.iter_mut().for_each(|z| *z = *z * scale);
        match &self.result {
            Reduction::Momentum => {
                for (q, z) in z.iter().enumerate() {
                    put(0, 2 * q * width + channel, z.re.widened());
                    put(0, (2 * q + 1) * width + channel, z.im.widened());
                }
            }
            Reduction::Displacement(places) => {
                fourier2(&self.inverse, self.size, z, other, scratch);
                for (e, &at) in places.iter().enumerate() {
                    if self.complex {
                        put(0, 2 * e * width + channel, z[at].re.widened());
                        put(0, (2 * e + 1) * width + channel, z[at].im.widened());
                    } else {
                        put(0, e * width + channel, z[at].re.widened());
                    }
                }
            }
            Reduction::Scan(scan) => {
                if scan.open {
                    fourier2(&self.inverse, self.size, z, other, scratch);
                }
                let folded = scan.fold(z, second);
                scan.apply(isa, (channel, width), folded, put);
            }
        }
    }

    #[inline(always)]
    fn load(&self, g: &Geometry, x: [&[T]; 2], z: &mut [Complex<T>]) {
        let [nx, ny] = g.extent;
        if z.len() != nx * ny {
            z.fill(Complex::default());
        }
        for (x0, lane, length) in g.lines() {
            let line = &mut z[x0 * self.size[1]..][..length];
            for ((z, &re), &im) in line.iter_mut().zip(&x[0][lane..]).zip(&x[1][lane..]) {
                *z = Complex::new(re, im);
            }
        }
    }
}

impl<T: Real> ScanReduction<T> {
    /// Rows of the matrices, with padding.
    fn height(&self) -> usize {
        self.places.len().next_multiple_of(ROW_BLOCK)
    }

    /// A matrix row by row without padding: real parts, then imaginary parts.
    fn by_rows(&self, matrix: &[T]) -> Vec<T> {
        let mut all = Vec::with_capacity(2 * self.places.len() * self.taps);
        for row in 0..self.places.len() {
            for part in 0..2 {
                let element = |k: usize| matrix[(2 * k + part) * self.height() + row];
                all.extend((0..self.taps).map(element));
            }
        }
        all
    }

    /// Both directions folded to the one the matrices are for; real parts, then
    /// imaginary parts, written over `memory`.
    #[inline(always)]
    fn fold<'m>(&self, z: &[Complex<T>], memory: &'m mut [Complex<T>]) -> Split<'m, T> {
        let n = self.taps;
        // SAFETY: a complex number is two numbers.
        let flat: &mut [T] = unsafe {
            std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast::<T>(), 2 * memory.len())
        };
        for k in 0..n {
            let back = (z.len() - k) % z.len();
            let value = match (self.scan.mirror, self.scan.leftward) {
                (true, _) => z[k] + z[back],
                (false, false) => z[k],
                (false, true) => z[back],
            };
            flat[k] = value.re;
            flat[n + k] = value.im;
        }
        let (re, im) = flat[..2 * n].split_at(n);
        Split { re, im }
    }

    fn apply(
        &self,
        isa: Isa,
        (channel, width): (usize, usize),
        x: Split<T>,
        put: &mut dyn FnMut(usize, usize, f64),
    ) {
        // SAFETY: the instruction set is that of the machine.
        unsafe {
            conjugate_product(
                isa,
                &self.matrices[channel],
                self.height(),
                &x,
                &mut |row, [re, im]| {
                    let Some(&(result, e)) = self.places.get(row) else {
                        return;
                    };
                    put(result, e * width + channel, re);
                    if self.scan.complex {
                        put(result, (self.entries[result] + e) * width + channel, im);
                    }
                },
            );
        }
    }
}

/// The states of a recurrence driven by its input, `h = (1 - u A)^-1 b`, and the
/// adjoint ones, `l = (1 - u A^T)^-1 c`, at all momenta.
struct Derivatives {
    /// Displacements to keep; `None`: stay in momentum space.
    keep: Option<usize>,
    momenta: usize,
    /// `exp(-2 pi i q / momenta)`
    phases: Vec<Complex64>,
    /// Per state, per momentum.
    h: Vec<Vec<Complex64>>,
    l: Vec<Vec<Complex64>>,
}

impl Derivatives {
    fn new<T: Real>(
        response: &Response,
        channel: usize,
        sites: usize,
        open: bool,
        padded: usize,
        planner: &mut (FftPlanner<T>, FftPlanner<f64>),
    ) -> Result<Derivatives, MixerError> {
        let states = response.states();
        // one site has no lag of one, where some derivatives begin: it must not wrap around
        let momenta = if open { padded.max(2) } else { sites };
        let mut sequences = [false, true].map(|_| vec![vec![Complex64::ZERO; momenta]; states]);
        for (transposed, rows) in [false, true].into_iter().zip(&mut sequences) {
            if open {
                for (n, v) in response
                    .powers(channel, transposed, sites)
                    .into_iter()
                    .enumerate()
                {
                    rows.iter_mut().zip(v).for_each(|(row, v)| row[n] = v);
                }
                let plans = [momenta, 1].map(|n| planner.1.plan_fft_forward(n));
                for row in rows {
                    *row = transform2(&plans, [momenta, 1], std::mem::take(row));
                }
            } else {
                for q in 0..momenta {
                    let v = response.resolvent(channel, transposed, phase(q, momenta))?;
                    rows.iter_mut().zip(v).for_each(|(row, v)| row[q] = v);
                }
            }
        }
        let [h, l] = sequences;
        Ok(Derivatives {
            keep: open.then_some(sites),
            phases: (0..momenta).map(|q| phase(q, momenta)).collect(),
            momenta,
            h,
            l,
        })
    }

    /// Derivatives of the symbol (ring) or the kernel (open chain) with respect
    /// to all entries of a coefficient.
    fn rows<T: Real>(
        &self,
        response: &Response,
        channel: usize,
        wrt: usize,
        planner: &mut (FftPlanner<T>, FftPlanner<f64>),
    ) -> Vec<Vec<Complex64>> {
        let states = response.states();
        let last = response.operands();
        let weighted = |rows: &[Vec<Complex64>], w: &[Complex64]| -> Vec<Complex64> {
            (0..self.momenta)
                .map(|q| rows.iter().zip(w).map(|(r, w)| r[q] * w).sum())
                .collect()
        };
        let product = |l: &[Complex64], h: &[Complex64], sign: f64| -> Vec<Complex64> {
            (0..self.momenta)
                .map(|q| sign * self.phases[q] * l[q] * h[q])
                .collect()
        };
        let rows: Vec<Vec<Complex64>> = if wrt == last {
            self.h.clone()
        } else if wrt + 1 == last {
            self.l.clone()
        } else if wrt == 1 && response.scan().dense {
            (0..states * states)
                .map(|k| product(&self.l[k / states], &self.h[k % states], 1.0))
                .collect()
        } else if wrt == 1 {
            (0..states)
                .map(|n| product(&self.l[n], &self.h[n], 1.0))
                .collect()
        } else if wrt == 2 {
            let qh = weighted(&self.h, &response.vector(2, channel));
            self.l.iter().map(|l| product(l, &qh, -1.0)).collect()
        } else {
            let pl = weighted(&self.l, &response.vector(1, channel));
            self.h.iter().map(|h| product(&pl, h, -1.0)).collect()
        };
        match self.keep {
            None => rows,
            Some(sites) => {
                let plans = [self.momenta, 1].map(|n| planner.1.plan_fft_inverse(n));
                let back = |row| {
                    let mut kernel = transform2(&plans, [self.momenta, 1], row);
                    kernel.truncate(sites);
                    kernel.iter_mut().for_each(|z| *z /= self.momenta as f64);
                    kernel
                };
                rows.into_iter().map(back).collect()
            }
        }
    }
}

fn phase(q: usize, momenta: usize) -> Complex64 {
    Complex64::cis(-std::f64::consts::TAU * q as f64 / momenta as f64)
}
