//! Mixers on chains by FFT, one channel per vector lane.
//!
//! Rows are transposed to sites times lanes, transformed together, multiplied by
//! the symbols of their channels, transformed back and transposed to rows again.
//! Channels that share an input share its transform.

use super::fft::{Planes, Transform};
use super::math::Precision;
use super::mixer::{Unit, units};
use super::simd::{Isa, Real, Vector};
use crate::kernel::{Geometry, MixChannel};
use rustfft::num_complex::{Complex, Complex64};

/// Bytes a transform may work in; more than this leaves the cache.
const CACHE: usize = 768 << 10;

/// A mixer on a chain, ready to run.
pub struct Batched<T: Real> {
    complex: bool,
    sites: usize,
    isa: Isa,
    transform: Transform<T>,
    length: usize,
    /// Vector lanes.
    width: usize,
    groups: Vec<Group<T>>,
}

/// Inputs transformed together.
struct Group<T> {
    /// A unit with each input.
    inputs: Vec<usize>,
    uses: Vec<Use<T>>,
}

/// One multiplication of a group's spectra.
struct Use<T> {
    /// Per lane the unit that gets the result.
    units: Vec<Option<usize>>,
    /// Symbols: per momentum the real and the imaginary parts of all lanes; for
    /// pairs of real channels half the sum and half the difference, four rows.
    symbols: Vec<T>,
}

/// Byte offsets of the rows of a unit: inputs, results.
pub(super) type Offsets = ([usize; 2], [Option<usize>; 2]);

fn lanes<T: Real>(bits: usize) -> usize {
    bits / 8 / T::PRECISION.bytes()
}

impl<T: Real> Batched<T> {
    /// From symbols per channel, normalised; `None` where transforms one by one
    /// are better.
    pub(super) fn new(
        complex: bool,
        sites: usize,
        isa: Isa,
        symbols: &[Vec<Complex64>],
        channels: &[MixChannel],
    ) -> Option<Batched<T>> {
        if channels.is_empty() {
            return None;
        }
        let length = symbols.first()?.len();
        let transform = Transform::new(length)?;
        let units = units(channels);
        // the first unit of every input, and all its units
        let mut inputs: Vec<Vec<usize>> = Vec::new();
        for (k, unit) in units.iter().enumerate() {
            match inputs.last_mut() {
                Some(last) if units[last[0]].x == unit.x => last.push(k),
                _ => inputs.push(vec![k]),
            }
        }
        // a transform moves between two pairs of planes
        let fits = |bits: usize| 4 * length * bits / 8 <= CACHE;
        let bits = match isa {
            Isa::Avx512 if inputs.len() > lanes::<T>(256) && fits(512) => 512,
            Isa::Avx512 | Isa::Avx2 if fits(256) => 256,
            _ => return None,
        };
        let width = lanes::<T>(bits);
        let groups = inputs
            .chunks(width)
            .map(|inputs| Group {
                inputs: inputs.iter().map(|i| i[0]).collect(),
                uses: (0..inputs.iter().map(Vec::len).max().unwrap_or(0))
                    .map(|k| {
                        let pick = |i: &Vec<usize>| i.get(k).copied();
                        let mut lanes: Vec<Option<usize>> = inputs.iter().map(pick).collect();
                        lanes.resize(width, None);
                        let numbers = interleaved(complex, length, symbols, &units, &lanes);
                        Use {
                            units: lanes,
                            symbols: numbers.into_iter().map(T::rounded).collect(),
                        }
                    })
                    .collect(),
            })
            .collect();
        Some(Batched {
            complex,
            sites,
            isa,
            transform,
            length,
            width,
            groups,
        })
    }

    pub(super) fn complex(&self) -> bool {
        self.complex
    }

    /// Complex numbers of scratch memory.
    pub(super) fn scratch(&self) -> usize {
        // three pairs of planes, and room to align them
        3 * self.length * self.width + 64
    }

    /// Applies the mixer to all units of one sample, whose segment starts `lane`
    /// lanes into each row.
    ///
    /// # Safety
    /// All offsets are rows of `T` in the arena with the sites of `g` in
    /// consecutive lanes.
    pub(super) unsafe fn run(
        &self,
        g: &Geometry,
        units: &[Offsets],
        arena: *mut u8,
        lane: usize,
        scratch: &mut [Complex<T>],
    ) {
        let first = lane + g.origin();
        // SAFETY: the machine has these vectors.
        unsafe {
            match (self.isa, self.width * T::PRECISION.bytes()) {
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx512, 64) => run_512(self, units, arena, first, scratch),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx512 | Isa::Avx2, 32) => run_256(self, units, arena, first, scratch),
                _ => run_portable(self, units, arena, first, scratch),
            }
        }
    }

    #[inline(always)]
    unsafe fn run_here<V: Vector<Element = T>>(
        &self,
        units: &[Offsets],
        arena: *mut u8,
        first: usize,
        scratch: &mut [Complex<T>],
    ) {
        let plane = self.length * self.width;
        let start = scratch.as_mut_ptr().cast::<T>();
        let skip = start.cast::<u8>().align_offset(64) / T::PRECISION.bytes();
        let planes = |k: usize| unsafe {
            let p = start.add(skip + 2 * k * plane);
            [p, p.add(plane)]
        };
        let row = |offset: usize| unsafe { arena.add(offset).cast::<T>().add(first) };
        for group in &self.groups {
            unsafe {
                let (input, spare, other) = (planes(0), planes(1), planes(2));
                for (part, input) in input.into_iter().enumerate() {
                    let x = |l: usize| {
                        let unit = group.inputs.get(l).unwrap_or(&group.inputs[0]);
                        row(units[*unit].0[part]).cast_const()
                    };
                    gather(self.sites, self.width, &x, input);
                    let padding = (self.length - self.sites) * self.width;
                    input.add(self.sites * self.width).write_bytes(0, padding);
                }
                let (spectrum, free) = self.transform.run::<V>(input, spare);
                for one in &group.uses {
                    self.multiply::<V>(one, spectrum, free);
                    // the inverse: parts exchanged on both sides
                    let swapped = |p: Planes<T>| [p[1], p[0]];
                    let (result, _) = self.transform.run::<V>(swapped(free), swapped(other));
                    let result = swapped(result);
                    for (part, result) in result.into_iter().enumerate() {
                        let out = |l: usize| {
                            let unit = one.units.get(l).copied().flatten();
                            unit.and_then(|u| units[u].1[part]).map(row)
                        };
                        scatter(self.sites, self.width, result, &out);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply<V: Vector<Element = T>>(
        &self,
        one: &Use<T>,
        spectrum: Planes<T>,
        out: Planes<T>,
    ) {
        let width = V::LANES;
        unsafe {
            let zero = V::splat(T::default());
            let load = |q: usize| {
                let at = q * width;
                [V::load(spectrum[0].add(at)), V::load(spectrum[1].add(at))]
            };
            // c + s x
            let product = |s: [V; 2], x: [V; 2], c: [V; 2]| {
                let minus = zero.minus(s[1]);
                [
                    minus.fma(x[1], s[0].fma(x[0], c[0])),
                    s[1].fma(x[0], s[0].fma(x[1], c[1])),
                ]
            };
            for q in 0..self.length {
                let symbol = |k: usize| {
                    let rows = if self.complex { 2 } else { 4 };
                    V::load(one.symbols.as_ptr().add((rows * q + k) * width))
                };
                let mut z = product([symbol(0), symbol(1)], load(q), [zero; 2]);
                if !self.complex {
                    let [re, im] = load((self.length - q) % self.length);
                    z = product([symbol(2), symbol(3)], [re, zero.minus(im)], z);
                }
                z[0].store(out[0].add(q * width));
                z[1].store(out[1].add(q * width));
            }
        }
    }
}

/// The symbols of some units as [`Use`] keeps them.
fn interleaved(
    complex: bool,
    length: usize,
    symbols: &[Vec<Complex64>],
    units: &[Unit],
    lanes: &[Option<usize>],
) -> Vec<f64> {
    let mut numbers = Vec::new();
    let symbol = |q: usize, lane: &Option<usize>, c: usize| {
        lane.map_or(Complex64::ZERO, |u| symbols[units[u].channels[c]][q])
    };
    for q in 0..length {
        let at = |lane: &Option<usize>, c: usize| symbol(q, lane, c);
        let mut put = |value: &dyn Fn(&Option<usize>) -> Complex64| {
            numbers.extend(lanes.iter().map(|l| value(l).re));
            numbers.extend(lanes.iter().map(|l| value(l).im));
        };
        if complex {
            put(&|l| at(l, 0));
        } else {
            // x + i y: (a + b)/2 Z(q) + (a - b)/2 conj Z(-q)
            put(&|l| (at(l, 0) + at(l, 1)) * 0.5);
            put(&|l| (at(l, 0) - at(l, 1)) * 0.5);
        }
    }
    numbers
}

macro_rules! instance {
    ($name:ident, $width:ident $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $name<T: Real>(
            mixer: &Batched<T>,
            units: &[Offsets],
            arena: *mut u8,
            first: usize,
            scratch: &mut [Complex<T>],
        ) {
            unsafe { mixer.run_here::<T::$width>(units, arena, first, scratch) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instance!(run_512, Wide512, "avx512f,avx512vl,fma");
#[cfg(target_arch = "x86_64")]
instance!(run_256, Wide256, "avx2,fma");
instance!(run_portable, Portable);

/// Rows to sites times lanes.
#[inline(always)]
unsafe fn gather<T: Real>(
    sites: usize,
    width: usize,
    row: &impl Fn(usize) -> *const T,
    out: *mut T,
) {
    unsafe {
        for lane in (0..width).step_by(4) {
            let four: [*const T; 4] = std::array::from_fn(|k| row((lane + k).min(width - 1)));
            let whole = blocks::<T>(sites, width);
            for site in (0..whole).step_by(4) {
                let from = four.map(|p| p.add(site));
                let to = std::array::from_fn(|k| out.add((site + k) * width + lane));
                transpose(from, to);
            }
            for site in whole..sites {
                for (k, p) in four.iter().enumerate().take(width - lane) {
                    *out.add(site * width + lane + k) = *p.add(site);
                }
            }
        }
    }
}

/// Sites times lanes to rows.
#[inline(always)]
unsafe fn scatter<T: Real>(
    sites: usize,
    width: usize,
    x: *const T,
    row: &impl Fn(usize) -> Option<*mut T>,
) {
    unsafe {
        for lane in (0..width).step_by(4) {
            let four: [Option<*mut T>; 4] = std::array::from_fn(|k| row(lane + k));
            let mut whole = 0;
            if let [Some(a), Some(b), Some(c), Some(d)] = four {
                whole = blocks::<T>(sites, width);
                for site in (0..whole).step_by(4) {
                    let from = std::array::from_fn(|k| x.add((site + k) * width + lane));
                    transpose(from, [a, b, c, d].map(|p| p.add(site)));
                }
            }
            for (k, p) in four.iter().enumerate() {
                let Some(p) = *p else { continue };
                for site in whole..sites {
                    *p.add(site) = *x.add(site * width + lane + k);
                }
            }
        }
    }
}

/// Sites that are transposed in blocks of four.
#[inline(always)]
fn blocks<T: Real>(sites: usize, width: usize) -> usize {
    let possible = cfg!(target_arch = "x86_64") && width.is_multiple_of(4);
    if possible && T::PRECISION == Precision::F32 {
        sites / 4 * 4
    } else {
        0
    }
}

/// Transposes four by four numbers of 32 bits.
#[inline(always)]
unsafe fn transpose<T>(from: [*const T; 4], to: [*mut T; 4]) {
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::*;
        let [a, b, c, d] = from.map(|p| _mm_loadu_ps(p.cast()));
        let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
        let (ab2, cd2) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
        _mm_storeu_ps(to[0].cast(), _mm_movelh_ps(ab, cd));
        _mm_storeu_ps(to[1].cast(), _mm_movehl_ps(cd, ab));
        _mm_storeu_ps(to[2].cast(), _mm_movelh_ps(ab2, cd2));
        _mm_storeu_ps(to[3].cast(), _mm_movehl_ps(cd2, ab2));
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        // `blocks` is zero there
        let _ = (from, to);
    }
}
