//! Translation-invariant mixers by FFT (on short chains by their sums), dense ones
//! by products of rows.
//!
//! All kernels become a symbol on (padded) momenta once per parameter set, in
//! f64. Real channels travel in pairs as one complex transform.

use super::dense::Dense;
use super::direct::{Direct, longest};
use super::lanes::Batched;
use super::response::{Coefficients, Layout, Response};
use super::simd::{Isa, Real};
use crate::interp::Tensor;
use crate::ir::{Boundary, Op};
use crate::kernel::{Geometry, MixChannel, Mixer, Row};
use rustfft::num_complex::{Complex, Complex64};
use rustfft::{Fft, FftPlanner};
use std::sync::Arc;

/// A failure to build a mixer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct MixerError(pub String);

/// A mixer ready to run in precision `T`.
pub enum Plan<T: Real> {
    /// By FFT.
    Fourier(Fourier<T>),
    /// By FFT, many channels at once.
    Batched(Batched<T>),
    /// By its sums, on short chains.
    Direct(Direct<T>),
    /// By its matrix.
    Dense(Dense<T>),
    /// A matrix for other back ends.
    Matrix(Matrix<T>),
}

/// `IFFT(symbol FFT x)` on a padded lattice.
pub struct Fourier<T: Real> {
    isa: Isa,
    size: [usize; 2],
    complex: bool,
    forward: [Arc<dyn Fft<T>>; 2],
    inverse: [Arc<dyn Fft<T>>; 2],
    /// Per channel, normalised by the number of momenta.
    symbols: Vec<Vec<Complex<T>>>,
    scratch: usize,
}

/// The kernel of a dense mixer.
pub struct Matrix<T: Real> {
    complex: bool,
    /// Those that differ, target slowest.
    kernels: Vec<Vec<Complex<T>>>,
}

/// Two real channels, or a complex one, that are transformed together.
pub(super) struct Unit {
    /// Channel numbers in the mixer's kernel; equal for a complex channel.
    pub(super) channels: [usize; 2],
    /// Inputs.
    pub(super) x: [Row; 2],
    /// Results; `None`: not wanted.
    pub(super) out: [Option<Row>; 2],
}

/// The channels of a mixer as units, those with the same input side by side.
pub(super) fn units(channels: &[MixChannel]) -> Vec<Unit> {
    let complex = channels.first().is_some_and(|c| c.x.len() == 2);
    let mut units: Vec<Unit> = if complex {
        let unit = |c: &MixChannel| Unit {
            channels: [c.channel; 2],
            x: [c.x[0], c.x[1]],
            out: [Some(c.out[0]), Some(c.out[1])],
        };
        channels.iter().map(unit).collect()
    } else {
        let unit = |pair: &[MixChannel]| {
            let (a, b) = (&pair[0], &pair[pair.len() - 1]);
            Unit {
                channels: [a.channel, b.channel],
                x: [a.x[0], b.x[0]],
                out: [Some(a.out[0]), (pair.len() == 2).then(|| b.out[0])],
            }
        };
        channels.chunks(2).map(unit).collect()
    };
    units.sort_by_key(|u| u.x);
    units
}

/// Smallest 2^a 3^b 5^c not below n.
pub(in crate::back) fn smooth(n: usize) -> usize {
    (n..)
        .find(|&m| {
            [2, 3, 5].iter().fold(m, |m, &p| {
                let mut m = m;
                while m % p == 0 {
                    m /= p;
                }
                m
            }) == 1
        })
        .unwrap_or(n)
}

impl<T: Real> Plan<T> {
    /// Builds a mixer from the values of its coefficient nodes, for the channels it
    /// is applied to; none: as symbols or a matrix, for [`Plan::run`].
    ///
    /// # Errors
    /// A recurrence without periodic solution.
    pub fn new(
        mixer: &Mixer,
        applied: &[MixChannel],
        g: &Geometry,
        values: &[&Tensor],
        planner: &mut (FftPlanner<T>, FftPlanner<f64>),
    ) -> Result<Plan<T>, MixerError> {
        let channels = &mixer.channels;
        let width: usize = channels.iter().product();
        let [nx, ny] = g.extent;
        let open = g.boundary == Boundary::Open;
        let layout = |complex: bool| if complex { Layout::Inner } else { Layout::Real };
        if let Op::Mix {
            complex,
            transposed,
        } = mixer.op
        {
            let n = g.sites();
            let k = Coefficients::read(values[0], n * n, layout(complex), channels);
            let entry = |i: usize, j: usize| if transposed { j * n + i } else { i * n + j };
            let complex = complex && !mixer.real;
            if !applied.is_empty() {
                let cell = |i: usize, j: usize, c: usize| k.at(entry(i, j), c);
                let dense = Dense::new(complex, n, &k.first_alike(), Isa::detect(), cell);
                return Ok(Plan::Dense(dense));
            }
            let kernel = |c: usize| {
                let cell = |e: usize| narrow::<T>(k.at(entry(e / n, e % n), c));
                (0..n * n).map(cell).collect()
            };
            let kernels = mixer.different().into_iter().map(kernel).collect();
            return Ok(Plan::Matrix(Matrix { complex, kernels }));
        }
        let size = if open {
            [nx, ny].map(|n| if n == 1 { 1 } else { smooth(2 * n - 1) })
        } else {
            [nx, ny]
        };
        let total = size[0] * size[1];
        let forward64 = size.map(|n| planner.1.plan_fft_forward(n));
        let transform = |kernel: Vec<Complex64>| transform2(&forward64, size, kernel);
        let reflect = |q: usize| {
            let (x, y) = (q / size[1], q % size[1]);
            (size[0] - x) % size[0] * size[1] + (size[1] - y) % size[1]
        };
        let (complex, mut symbols) = match mixer.op {
            Op::Convolve {
                complex,
                transposed,
            } => {
                let entries = if open {
                    (2 * nx - 1) * (2 * ny - 1)
                } else {
                    nx * ny
                };
                let k = Coefficients::read(values[0], entries, layout(complex), channels);
                let place = |e: usize| {
                    if !open {
                        return e;
                    }
                    let (x, y) = (e / (2 * ny - 1), e % (2 * ny - 1));
                    (x + size[0] + 1 - nx) % size[0] * size[1] + (y + size[1] + 1 - ny) % size[1]
                };
                let symbol = |c: usize| {
                    let mut kernel = vec![Complex64::ZERO; total];
                    for e in 0..entries {
                        let at = if transposed {
                            reflect(place(e))
                        } else {
                            place(e)
                        };
                        kernel[at] = k.at(e, c);
                    }
                    transform(kernel)
                };
                (complex, (0..width).map(symbol).collect::<Vec<_>>())
            }
            Op::Modes {
                complex,
                transposed,
            } => {
                let k = Coefficients::read(values[0], total, Layout::Inner, channels);
                let value = |q: usize, c: usize| {
                    if transposed {
                        k.at(q, c).conj()
                    } else {
                        k.at(q, c)
                    }
                };
                (
                    complex,
                    (0..width)
                        .map(|c| (0..total).map(|q| value(q, c)).collect())
                        .collect(),
                )
            }
            Op::Scan(scan) => {
                let response = Response::new(scan, values, channels);
                let symbol = |c: usize| -> Result<Vec<Complex64>, MixerError> {
                    if open {
                        let mut kernel = vec![Complex64::ZERO; total];
                        for (n, z) in response.impulse(c, nx).into_iter().enumerate() {
                            let back = (size[0] - n) % size[0];
                            if scan.mirror || !scan.leftward {
                                kernel[n] += z;
                            }
                            if scan.mirror || scan.leftward {
                                kernel[back] += z;
                            }
                        }
                        return Ok(transform(kernel));
                    }
                    let one = response.transfer(c, nx)?;
                    Ok((0..nx)
                        .map(|q| match (scan.mirror, scan.leftward) {
                            (true, _) => one[q] + one[reflect(q)],
                            (false, false) => one[q],
                            (false, true) => one[reflect(q)],
                        })
                        .collect())
                };
                (
                    scan.complex,
                    (0..width).map(symbol).collect::<Result<Vec<_>, _>>()?,
                )
            }
            ref other => return Err(MixerError(format!("{other:?} is not a mixer"))),
        };
        let complex = complex && !mixer.real;
        for s in &mut symbols {
            if !complex {
                // the real part of the result is what counts
                *s = (0..total)
                    .map(|q| (s[q] + s[reflect(q)].conj()) * 0.5)
                    .collect();
            }
            s.iter_mut().for_each(|z| *z /= total as f64);
        }
        let isa = Isa::detect();
        if ny == 1
            && g.stride() == 1
            && isa != Isa::Portable
            && let Some(batched) = Batched::new(complex, nx, isa, &symbols, applied)
        {
            return Ok(Plan::Batched(batched));
        }
        if ny == 1 && nx <= longest::<T>(isa) && !applied.is_empty() {
            let inverse = size.map(|n| planner.1.plan_fft_inverse(n));
            let kernels: Vec<Vec<Complex64>> = symbols
                .into_iter()
                .map(|s| transform2(&inverse, size, s))
                .collect();
            return Ok(Plan::Direct(Direct::new(complex, nx, isa, &kernels)));
        }
        let forward = size.map(|n| planner.0.plan_fft_forward(n));
        let inverse = size.map(|n| planner.0.plan_fft_inverse(n));
        let scratch = forward
            .iter()
            .chain(&inverse)
            .map(|p| p.get_inplace_scratch_len())
            .max()
            .unwrap_or(0);
        let symbols = symbols
            .into_iter()
            .map(|s: Vec<Complex64>| s.into_iter().map(narrow::<T>).collect())
            .collect();
        Ok(Plan::Fourier(Fourier {
            isa,
            size,
            complex,
            forward,
            inverse,
            symbols,
            scratch,
        }))
    }

    /// Complex numbers of scratch memory a run needs for so many samples.
    pub fn scratch(&self, samples: usize) -> usize {
        match self {
            Plan::Fourier(f) => 3 * f.size[0] * f.size[1] + f.scratch,
            Plan::Batched(b) => b.scratch(),
            Plan::Direct(d) => d.scratch(),
            Plan::Dense(d) => d.scratch(samples),
            Plan::Matrix(_) => 0,
        }
    }

    /// Per channel its symbol, divided by the number of momenta; or the matrices that
    /// differ, with the target slowest.
    pub(in crate::back) fn kernels(&self) -> &[Vec<Complex<T>>] {
        match self {
            Plan::Fourier(f) => &f.symbols,
            Plan::Matrix(m) => &m.kernels,
            Plan::Batched(_) | Plan::Direct(_) | Plan::Dense(_) => {
                unreachable!("a plan made for no channels is neither")
            }
        }
    }

    /// Whether channels come as (real part, imaginary part).
    pub fn complex(&self) -> bool {
        match self {
            Plan::Fourier(f) => f.complex,
            Plan::Batched(b) => b.complex(),
            Plan::Direct(d) => d.complex(),
            Plan::Dense(d) => d.complex(),
            Plan::Matrix(m) => m.complex,
        }
    }

    /// Applies the mixer to the rows of one or two channels, one sample.
    /// `x` and `out` are segments: real and imaginary part of channel
    /// `channels[0]`, or the real channels `channels[0]` and `channels[1]`.
    /// `again`: the previous call with this scratch had the same `x`, whose
    /// transform is then used again.
    ///
    /// # Panics
    /// If the plan was built for given channels, which are run together, or is a
    /// mere matrix.
    pub fn run(
        &self,
        g: &Geometry,
        channels: [usize; 2],
        x: [&[T]; 2],
        out: [&mut [T]; 2],
        scratch: &mut [Complex<T>],
        again: bool,
    ) {
        match self {
            Plan::Fourier(f) => f.run(g, channels, x, out, scratch, again),
            Plan::Batched(_) | Plan::Dense(_) => {
                unreachable!("plans for given channels run as a whole")
            }
            Plan::Matrix(_) => unreachable!("a matrix for other back ends is not run"),
            Plan::Direct(d) => {
                let first = g.origin();
                let x = x.map(|x| &x[first..]);
                d.run(channels, x, out.map(|y| &mut y[first..]), scratch);
            }
        }
    }
}

fn narrow<T: Real>(z: Complex64) -> Complex<T> {
    Complex::new(T::rounded(z.re), T::rounded(z.im))
}

pub(super) fn transform2(
    plans: &[Arc<dyn Fft<f64>>; 2],
    size: [usize; 2],
    mut data: Vec<Complex64>,
) -> Vec<Complex64> {
    let mut other = vec![Complex64::ZERO; data.len()];
    let mut scratch = vec![
        Complex64::ZERO;
        plans
            .iter()
            .map(|p| p.get_inplace_scratch_len())
            .max()
            .unwrap_or(0)
    ];
    fourier2(plans, size, &mut data, &mut other, &mut scratch);
    data
}

/// Transforms both axes in place; `other` has the size of `data`.
pub(super) fn fourier2<T: Real>(
    plans: &[Arc<dyn Fft<T>>; 2],
    size: [usize; 2],
    data: &mut [Complex<T>],
    other: &mut [Complex<T>],
    scratch: &mut [Complex<T>],
) {
    if size[1] > 1 {
        plans[1].process_with_scratch(data, scratch);
    }
    if size[0] > 1 && size[1] == 1 {
        plans[0].process_with_scratch(data, scratch);
    } else if size[0] > 1 {
        for x in 0..size[0] {
            for y in 0..size[1] {
                other[y * size[0] + x] = data[x * size[1] + y];
            }
        }
        plans[0].process_with_scratch(other, scratch);
        for x in 0..size[0] {
            for y in 0..size[1] {
                data[x * size[1] + y] = other[y * size[0] + x];
            }
        }
    }
}

/// Code around the transforms, compiled for the vectors of the machine.
macro_rules! instance {
    ($name:ident $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $name<T: Real>(
            f: &Fourier<T>,
            g: &Geometry,
            channels: [usize; 2],
            x: [&[T]; 2],
            out: [&mut [T]; 2],
            memory: &mut [Complex<T>],
            again: bool,
        ) {
            f.run_here(g, channels, x, out, memory, again);
        }
    };
}

#[cfg(target_arch = "x86_64")]
instance!(run_512, "avx512f,avx512vl,fma");
#[cfg(target_arch = "x86_64")]
instance!(run_256, "avx2,fma");

impl<T: Real> Fourier<T> {
    fn run(
        &self,
        g: &Geometry,
        channels: [usize; 2],
        x: [&[T]; 2],
        out: [&mut [T]; 2],
        memory: &mut [Complex<T>],
        again: bool,
    ) {
        // SAFETY: the instruction set is that of the machine.
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { run_512(self, g, channels, x, out, memory, again) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { run_256(self, g, channels, x, out, memory, again) },
            _ => self.run_here(g, channels, x, out, memory, again),
        }
    }

    #[inline(always)]
    fn run_here(
        &self,
        g: &Geometry,
        channels: [usize; 2],
        x: [&[T]; 2],
        out: [&mut [T]; 2],
        memory: &mut [Complex<T>],
        again: bool,
    ) {
        let [nx, ny] = g.extent;
        let total = self.size[0] * self.size[1];
        let (spectrum, rest) = memory.split_at_mut(total);
        let (z, rest) = rest.split_at_mut(total);
        let (other, scratch) = rest.split_at_mut(total);
        if !again {
            if total != nx * ny {
                spectrum.fill(Complex::default());
            }
            for (x0, lane, length) in g.lines() {
                let line = &mut spectrum[x0 * self.size[1]..][..length];
                for ((z, &re), &im) in line.iter_mut().zip(&x[0][lane..]).zip(&x[1][lane..]) {
                    *z = Complex::new(re, im);
                }
            }
            fourier2(&self.forward, self.size, spectrum, other, scratch);
        }
        if self.complex || channels[0] == channels[1] {
            let symbol = &self.symbols[channels[0]];
            for ((z, x), s) in z.iter_mut().zip(&*spectrum).zip(symbol) {
                *z = *x * *s;
            }
        } else {
            z.copy_from_slice(spectrum);
            self.pair(channels, z);
        }
        fourier2(&self.inverse, self.size, z, other, scratch);
        let [re, im] = out;
        for (x0, lane, length) in g.lines() {
            let line = &z[x0 * self.size[1]..][..length];
            for ((z, re), im) in line.iter().zip(&mut re[lane..]).zip(&mut im[lane..]) {
                *re = z.re;
                *im = z.im;
            }
        }
    }

    /// Multiplies the spectra of two real channels carried as x + i y:
    /// `(a + b)/2 Z(q) + (a - b)/2 conj Z(-q)`.
    #[inline(always)]
    fn pair(&self, [a, b]: [usize; 2], z: &mut [Complex<T>]) {
        let half = T::rounded(0.5);
        let (a, b) = (&self.symbols[a], &self.symbols[b]);
        let mix = |q: usize, own: Complex<T>, mirrored: Complex<T>| {
            ((a[q] + b[q]) * own + (a[q] - b[q]) * mirrored.conj()) * half
        };
        let [nx, ny] = self.size;
        for x in 0..nx {
            for y in 0..ny {
                let (q, r) = (x * ny + y, (nx - x) % nx * ny + (ny - y) % ny);
                if q <= r {
                    let (zq, zr) = (z[q], z[r]);
                    z[q] = mix(q, zq, zr);
                    z[r] = mix(r, zr, zq);
                }
            }
        }
    }
}
