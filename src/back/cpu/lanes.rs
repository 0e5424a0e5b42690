//! Mixers on chains by FFT, one channel per vector lane.
//!
//! Rows are transposed to sites times lanes, transformed together, multiplied by
//! the symbols of their channels, transformed back and transposed to rows again.
//! Channels that share an input share its transform.

use super::arena::Memory;
use super::fft::{Around, Planes, TOGETHER, Transform};
use super::mixer::{Unit, units};
use super::simd::{Isa, Real, Vector};
use crate::kernel::{Geometry, MixChannel};
use rustfft::num_complex::{Complex, Complex64};
use std::ops::Range;

/// Bytes a transform and its spectrum may take; more than this leaves all caches.
const CACHE: usize = 16 << 20;

/// A mixer on a chain, ready to run.
pub struct Batched<T: Real> {
    complex: bool,
    sites: usize,
    isa: Isa,
    transform: Transform<T>,
    length: usize,
    /// Vector lanes.
    width: usize,
    groups: Vec<Group>,
    /// Of all groups.
    symbols: Memory,
}

/// Bytes of results from which on they are written past the caches: whoever reads
/// them would find only the last ones there.
const STREAM: usize = 16 << 20;

/// Inputs transformed together.
struct Group {
    /// A unit with each input.
    inputs: Vec<usize>,
    uses: Vec<Use>,
}

/// One multiplication of a group's spectra.
struct Use {
    /// Per lane the unit that gets the result.
    units: Vec<Option<usize>>,
    /// Where its symbols start: per place of the spectrum the real and the imaginary
    /// parts of all lanes; for pairs of real channels half the sum and half the
    /// difference, four rows.
    symbols: usize,
}

/// Most lanes a vector has.
const MOST: usize = 16;

/// Byte offsets of the rows of a unit: inputs, results.
pub(super) type Offsets = ([usize; 2], [Option<usize>; 2]);

fn lanes<T: Real>(bits: usize) -> usize {
    bits / 8 / T::PRECISION.bytes()
}

/// Groups of lanes, each lane with the units it serves; a last group that would be
/// half empty has its inputs in several lanes.
fn deal(inputs: &[Vec<usize>], width: usize) -> Vec<Vec<Vec<usize>>> {
    let lanes = |some: &[Vec<usize>]| {
        let room = width / some.len();
        let copies = |units: &Vec<usize>| {
            let units = units.clone();
            let n = room.min(units.len());
            (0..n).map(move |c| units.iter().copied().skip(c).step_by(n).collect())
        };
        some.iter().flat_map(copies).collect()
    };
    inputs.chunks(width).map(lanes).collect()
}

/// How often a group's spectra are used.
fn uses(group: &[Vec<usize>]) -> usize {
    group.iter().map(Vec::len).max().unwrap_or(0)
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
        let units = units(channels);
        // the first unit of every input, and all its units
        let mut inputs: Vec<Vec<usize>> = Vec::new();
        for (k, unit) in units.iter().enumerate() {
            match inputs.last_mut() {
                Some(last) if units[last[0]].x == unit.x => last.push(k),
                _ => inputs.push(vec![k]),
            }
        }
        // a spectrum and its product
        let fits = |bits: usize| 4 * length * bits / 8 <= CACHE;
        let possible = match isa {
            Isa::Avx512 => [256, 512].as_slice(),
            Isa::Avx2 => &[256],
            Isa::Portable => &[],
        };
        // measured: half the width takes three fifths of the time
        let time = |bits: &usize| {
            let groups = deal(&inputs, lanes::<T>(*bits));
            let transforms = groups.iter().map(|group| 1 + uses(group));
            transforms.sum::<usize>() * (bits + 128)
        };
        let possible = possible.iter().copied().filter(|b| fits(*b));
        let bits = possible.min_by_key(time)?;
        let width = lanes::<T>(bits);
        let transform = Transform::new(length, bits / 8)?;
        let mut numbers: Vec<T> = Vec::new();
        let groups = deal(&inputs, width)
            .iter()
            .map(|group| Group {
                inputs: group.iter().map(|units| units[0]).collect(),
                uses: (0..uses(group))
                    .map(|k| {
                        let pick = |i: &Vec<usize>| i.get(k).copied();
                        let mut lanes: Vec<Option<usize>> = group.iter().map(pick).collect();
                        lanes.resize(width, None);
                        let first = numbers.len();
                        let all = interleaved(complex, &transform, symbols, &units, &lanes);
                        numbers.extend(all.into_iter().map(T::rounded));
                        Use {
                            units: lanes,
                            symbols: first,
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
            symbols: Memory::of(&numbers),
        })
    }

    #[inline(always)]
    fn symbols(&self, one: &Use) -> *const T {
        let start = self.symbols.as_ptr().cast::<T>();
        start.wrapping_add(one.symbols)
    }

    pub(super) fn complex(&self) -> bool {
        self.complex
    }

    /// Complex numbers of scratch memory.
    pub(super) fn scratch(&self) -> usize {
        // two pairs of planes, two short ones, and room to align them
        2 * (self.length + self.transform.near()) * self.width + 64
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
        let start = scratch.as_mut_ptr().cast::<T>();
        let skip = start.cast::<u8>().align_offset(64) / T::PRECISION.bytes();
        let (plane, short) = (self.length * V::LANES, self.transform.near() * V::LANES);
        let planes = |at: usize, plane: usize| unsafe {
            let p = start.add(skip + at);
            [p, p.add(plane)]
        };
        let (spectrum, z) = (planes(0, plane), planes(2 * plane, plane));
        let near = [0, 2].map(|k| planes(4 * plane + k * short, short));
        let results = units.iter().flat_map(|u| u.1).flatten().count();
        let bytes = T::PRECISION.bytes();
        let large = results * self.sites * bytes >= STREAM;
        // rows differ by whole cache lines
        let line = TOGETHER * bytes;
        let lead = unsafe { arena.cast::<T>().add(first) } as usize % line;
        let lead = lead.wrapping_neg() % line / bytes;
        let row = |offset: usize| unsafe { arena.add(offset).cast::<T>().add(first) };
        for group in &self.groups {
            unsafe {
                for (part, x) in spectrum.into_iter().enumerate() {
                    let from: [*const T; MOST] = std::array::from_fn(|l| {
                        let unit = group.inputs.get(l).unwrap_or(&group.inputs[0]);
                        row(units[*unit].0[part]).cast_const()
                    });
                    gather::<V>(self.sites, &from[..V::LANES], x);
                    let padding = (self.length - self.sites) * V::LANES;
                    x.add(self.sites * V::LANES).write_bytes(0, padding);
                }
                self.transform.forward::<V>(spectrum, near);
                for one in &group.uses {
                    let to: [[Option<*mut T>; MOST]; 2] = std::array::from_fn(|part| {
                        std::array::from_fn(|l| {
                            let unit = one.units.get(l).copied().flatten();
                            unit.and_then(|u| units[u].1[part]).map(row)
                        })
                    });
                    let product = Product::<V> {
                        mixer: self,
                        one,
                        spectrum,
                        z,
                        to: &to,
                        lead,
                        large,
                    };
                    self.transform.inverse::<V>(z, near, &product);
                }
            }
        }
        if large {
            V::fence();
        }
    }
}

/// The product of a spectrum with symbols, on its way to the rows of the results.
struct Product<'a, V: Vector>
where
    V::Element: Real,
{
    mixer: &'a Batched<V::Element>,
    one: &'a Use,
    spectrum: Planes<V::Element>,
    z: Planes<V::Element>,
    /// Per part and lane.
    to: &'a [[Option<*mut V::Element>; MOST]; 2],
    /// Sites before the first one at the start of a cache line.
    lead: usize,
    /// Whether results leave the caches at once.
    large: bool,
}

impl<V: Vector> Around for Product<'_, V>
where
    V::Element: Real,
{
    #[inline(always)]
    unsafe fn fill(&self, places: Range<usize>) {
        let (complex, width) = (self.mixer.complex, V::LANES);
        let rows = if complex { 2 } else { 4 };
        unsafe {
            let zero = V::splat(V::Element::default());
            let symbols = self.mixer.symbols(self.one);
            for place in places {
                let symbol = symbols.add(rows * place * width);
                let x = pair::<V>(self.spectrum, place);
                let mut z = times_plus::<V>(symbol, x, [zero; 2]);
                if !complex {
                    let [re, im] = pair(self.spectrum, self.mixer.transform.mirrored(place));
                    z = times_plus::<V>(symbol.add(2 * width), [re, zero.minus(im)], z);
                }
                z[0].store(self.z[0].add(place * width));
                z[1].store(self.z[1].add(place * width));
            }
        }
    }

    #[inline(always)]
    unsafe fn will_fill(&self, places: Range<usize>) {
        let rows = if self.mixer.complex { 2 } else { 4 };
        let symbols = self.mixer.symbols(self.one);
        for place in places.start * rows..places.end * rows {
            V::prefetch(symbols.wrapping_add(place * V::LANES));
        }
    }

    #[inline(always)]
    unsafe fn will_be_done(&self, sites: Range<usize>) {
        let last = sites.end.min(self.mixer.sites);
        if sites.start < last && !self.large {
            for to in self.to.iter().flat_map(|to| &to[..V::LANES]).flatten() {
                unsafe {
                    V::prefetch(to.add(sites.start));
                    V::prefetch(to.add(last - 1));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn done(&self, sites: Range<usize>) {
        let sites = sites.start..sites.end.min(self.mixer.sites);
        for (to, z) in self.to.iter().zip(self.z) {
            let (sites, to) = (sites.clone(), &to[..V::LANES]);
            unsafe {
                if self.large && sites.start % V::LANES == self.lead % V::LANES {
                    scatter::<V, true>(sites, z, to)
                } else {
                    scatter::<V, false>(sites, z, to)
                }
            }
        }
    }

    #[inline(always)]
    fn lead(&self) -> usize {
        self.lead
    }
}

#[inline(always)]
unsafe fn pair<V: Vector>(planes: Planes<V::Element>, at: usize) -> [V; 2] {
    planes.map(|p| unsafe { V::load(p.add(at * V::LANES)) })
}

/// `s x + c`, with s the two vectors at `symbol`.
#[inline(always)]
unsafe fn times_plus<V: Vector>(symbol: *const V::Element, x: [V; 2], c: [V; 2]) -> [V; 2]
where
    V::Element: Real,
{
    unsafe {
        let (re, im) = (V::load(symbol), V::load(symbol.add(V::LANES)));
        let minus = V::splat(V::Element::default()).minus(im);
        [
            minus.fma(x[1], re.fma(x[0], c[0])),
            im.fma(x[0], re.fma(x[1], c[1])),
        ]
    }
}

/// The symbols of some units as [`Use`] keeps them.
fn interleaved<T: Real>(
    complex: bool,
    transform: &Transform<T>,
    symbols: &[Vec<Complex64>],
    units: &[Unit],
    lanes: &[Option<usize>],
) -> Vec<f64> {
    let mut numbers = Vec::new();
    let symbol = |q: usize, lane: &Option<usize>, c: usize| {
        lane.map_or(Complex64::ZERO, |u| symbols[units[u].channels[c]][q])
    };
    for q in (0..symbols[0].len()).map(|place| transform.momentum(place)) {
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
unsafe fn gather<V: Vector>(sites: usize, from: &[*const V::Element], to: *mut V::Element) {
    unsafe {
        let mut site = 0;
        while site + V::LANES <= sites {
            let to = |k| Some(to.add((site + k) * V::LANES));
            V::transpose::<false>(|l| from[l].add(site), to);
            site += V::LANES;
        }
        for site in site..sites {
            for (l, from) in from.iter().enumerate() {
                *to.add(site * V::LANES + l) = *from.add(site);
            }
        }
    }
}

/// Some sites times lanes to the rows of lanes that have one; with `STREAM` whole
/// vectors past the caches, if `sites` begins on a cache line.
#[inline(always)]
unsafe fn scatter<V: Vector, const STREAM: bool>(
    sites: Range<usize>,
    from: *const V::Element,
    to: &[Option<*mut V::Element>],
) {
    unsafe {
        let mut site = sites.start;
        while site + V::LANES <= sites.end {
            let row = |l: usize| to[l].map(|p| p.add(site));
            V::transpose::<STREAM>(|k| from.add((site + k) * V::LANES), row);
            site += V::LANES;
        }
        for site in site..sites.end {
            for (l, to) in to.iter().enumerate() {
                if let Some(to) = to {
                    *to.add(site) = *from.add(site * V::LANES + l);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::core::Token;
    use crate::ir::Boundary;
    use crate::kernel::{BufferId, Row};
    use std::f64::consts::TAU;

    /// Channels that shift a ring, each by another distance, in rows of which the first
    /// site is `halo` numbers behind the start of a cache line.
    fn shifts(count: usize, sites: usize, halo: usize) {
        const INPUTS: usize = 20;
        let distance = |k: usize| 7 * k % sites;
        let symbol = |k: usize, q: usize| {
            let angle = -TAU * (distance(k) * q % sites) as f64 / sites as f64;
            Complex64::from_polar(1.0 / sites as f64, angle)
        };
        let symbols: Vec<Vec<Complex64>> = (0..count)
            .map(|k| (0..sites).map(|q| symbol(k, q)).collect())
            .collect();
        let row = |buffer: u32, number: usize, part: usize| Row {
            buffer: BufferId(buffer),
            row: (2 * number + part) as u32,
            shift: 0,
        };
        let rows = |buffer, number| (0..2).map(|part| row(buffer, number, part)).collect();
        let channels: Vec<MixChannel> = (0..count)
            .map(|k| MixChannel {
                x: rows(0, k % INPUTS),
                out: rows(1, k),
                channel: k,
            })
            .collect();
        let mixer = Batched::<f32>::new(true, sites, Isa::detect(), &symbols, &channels);
        let Some(mixer) = mixer else {
            assert_eq!(Isa::detect(), Isa::Portable);
            return;
        };
        let g = Geometry {
            token: Token([1, 1]),
            extent: [sites, 1],
            halo: [halo, 0],
            boundary: Boundary::Periodic,
        };
        let stride = (4 * g.segment()).next_multiple_of(64);
        let offset = |r: Row| (r.buffer.0 as usize * 2 * INPUTS + r.row as usize) * stride;
        let mut arena = Memory::new((2 * INPUTS + 2 * count) * stride);
        let numbers = |arena: &mut Memory, r: Row| unsafe {
            let start = arena.as_mut_ptr().add(offset(r)).cast::<f32>();
            std::slice::from_raw_parts_mut(start.add(g.origin()), sites)
        };
        let input = |number: usize, part: usize, site: usize| {
            ((3 * site + 17 * number + 5 * part) as f64 * 0.1).sin() as f32
        };
        for (number, part) in (0..INPUTS).flat_map(|n| [(n, 0), (n, 1)]) {
            let x = numbers(&mut arena, row(0, number, part));
            (0..sites).for_each(|site| x[site] = input(number, part, site));
        }
        let all: Vec<Offsets> = units(&channels)
            .iter()
            .map(|u| (u.x.map(offset), u.out.map(|r| r.map(offset))))
            .collect();
        let mut scratch = vec![Complex::default(); mixer.scratch()];
        // SAFETY: rows of the arena.
        unsafe { mixer.run(&g, &all, arena.as_mut_ptr(), 0, &mut scratch) };
        for (k, part) in (0..count).flat_map(|k| [(k, 0), (k, 1)]) {
            let y = numbers(&mut arena, row(1, k, part));
            for (site, y) in y.iter().enumerate() {
                let want = input(k % INPUTS, part, (site + sites - distance(k)) % sites);
                assert!(
                    (y - want).abs() < 2e-6,
                    "channel {k}, site {site}: {y} {want}"
                );
            }
        }
    }

    #[test]
    fn small_results_and_results_past_the_caches() {
        let many = STREAM / (2 * 4 * 6000) + 1;
        for halo in [0, 3, 16] {
            shifts(3, 90, halo);
            shifts(37, 1500, halo);
            shifts(many, 6000, halo);
        }
    }
}
