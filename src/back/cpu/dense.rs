//! Dense mixers: a matrix times rows, for all samples of a run at once.
//!
//! The matrix is packed in panels of results, source after source, so that it
//! streams once by however many samples there are; a tile of samples times results
//! stays in registers. Channels of the same matrix are like more samples. A result is the sum of its terms in the order of the
//! sources, block by block, whatever the samples beside it: it does not depend on
//! how samples were batched.

use super::lanes::Offsets;
use super::simd::{Isa, Real, Vector};
use crate::kernel::Geometry;
use rustfft::num_complex::{Complex, Complex64};

/// Largest number of samples in a tile.
const SAMPLES: usize = 6;
/// Vectors of results in a tile of full width.
const VECTORS: usize = 4;
/// Samples that are worth streaming a matrix: channels that share it are put together
/// up to so many.
const TOGETHER: usize = 24;
/// Sources summed in registers; with a panel of results they fill the first cache.
const BLOCK: usize = 128;

/// `y_i = sum_j k(i, j) x_j`.
pub struct Dense<T: Real> {
    isa: Isa,
    complex: bool,
    sites: usize,
    /// Which matrix a channel has.
    matrix: Vec<usize>,
    /// Most channels that have the same.
    sharing: usize,
    /// Per matrix and part of the result the panels: source slowest.
    packed: Vec<Vec<T>>,
}

/// A channel of one unit: a product with a matrix.
#[derive(Clone, Copy)]
struct Product<'a> {
    matrix: usize,
    /// Rows, by part.
    inputs: &'a [usize],
    outputs: [Option<usize>; 2],
}

/// Lanes of the vectors used on a machine.
fn lanes<T: Real>(isa: Isa) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => <T::Wide512 as Vector>::LANES,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => <T::Wide256 as Vector>::LANES,
        _ => <T::Portable as Vector>::LANES,
    }
}

/// Panels that cover `n` results: (first result, vectors).
fn panels(n: usize, lanes: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut first = 0;
    std::iter::from_fn(move || {
        let left = n.checked_sub(first).filter(|&left| left > 0)?;
        let vectors = if left > (VECTORS - 1) * lanes {
            VECTORS
        } else {
            1
        };
        first += vectors * lanes;
        Some((first - vectors * lanes, vectors))
    })
}

/// Tiles that cover a number of samples evenly: (first sample, samples).
fn tiles(samples: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = samples.div_ceil(SAMPLES).max(1);
    (0..count).map(move |k| {
        let [from, to] = [k, k + 1].map(|k| samples * k / count);
        (from, to - from)
    })
}

impl<T: Real> Dense<T> {
    /// From the entries `k(target, source, channel)`; real ones, or complex ones
    /// for channels of a real and an imaginary row. `alike` says for every channel
    /// which is the first with the same entries.
    pub(super) fn new(
        complex: bool,
        sites: usize,
        alike: &[usize],
        isa: Isa,
        entry: impl Fn(usize, usize, usize) -> Complex64,
    ) -> Dense<T> {
        let lanes = lanes::<T>(isa);
        let parts = 1 + usize::from(complex);
        let weight = |channel: usize, part: usize, target: usize, source: usize| {
            if target >= sites {
                return T::zero();
            }
            let k = entry(target, source % sites, channel);
            T::rounded(match (part, source / sites) {
                (0, 0) | (1, 1) => k.re,
                (0, _) => -k.im,
                _ => k.im,
            })
        };
        let pack = |channel: usize, part: usize| {
            let mut packed = Vec::new();
            for (first, vectors) in panels(sites, lanes) {
                for source in 0..parts * sites {
                    let targets = first..first + vectors * lanes;
                    packed.extend(targets.map(|t| weight(channel, part, t, source)));
                }
            }
            packed
        };
        let mut different = alike.to_vec();
        different.sort_unstable();
        different.dedup();
        let matrix = |c: &usize| different.binary_search(c).unwrap_or(0);
        let shared = |c: &usize| alike.iter().filter(|a| *a == c).count();
        let packed = (0..different.len() * parts).map(|k| pack(different[k / parts], k % parts));
        Dense {
            isa,
            complex,
            sites,
            matrix: alike.iter().map(matrix).collect(),
            sharing: different.iter().map(shared).max().unwrap_or(1),
            packed: packed.collect(),
        }
    }

    /// Whether channels come as (real part, imaginary part).
    pub(super) fn complex(&self) -> bool {
        self.complex
    }

    /// Rows per channel.
    fn parts(&self) -> usize {
        1 + usize::from(self.complex)
    }

    /// Results with those that fill the last vector.
    fn padded(&self) -> usize {
        self.sites.next_multiple_of(lanes::<T>(self.isa))
    }

    /// Channels that are put together.
    fn together(&self, samples: usize) -> usize {
        (TOGETHER / samples.max(1)).clamp(1, self.sharing)
    }

    /// Complex numbers of scratch memory for so many samples or fewer.
    pub(super) fn scratch(&self, samples: usize) -> usize {
        // a run of fewer samples puts more channels together
        let columns = samples.max(TOGETHER.min(samples * self.sharing));
        (columns * (self.parts() * self.sites + self.padded())).div_ceil(2)
    }

    /// Applies the mixer to all samples of the units `channels` with rows `rows`.
    ///
    /// # Safety
    /// The rows are byte offsets of rows of `T` on the sites of `g` inside the
    /// arena, for at least `samples` samples.
    pub(super) unsafe fn run(
        &self,
        g: &Geometry,
        (channels, rows): (&[[usize; 2]], &[Offsets]),
        arena: *mut u8,
        samples: usize,
        scratch: &mut [Complex<T>],
    ) {
        // SAFETY: a complex number is two numbers.
        let memory = unsafe {
            std::slice::from_raw_parts_mut(scratch.as_mut_ptr().cast::<T>(), 2 * scratch.len())
        };
        let segment = |row: usize, sample: usize| unsafe {
            let start = arena.add(row).cast::<T>().add(sample * g.segment());
            std::slice::from_raw_parts_mut(start, g.segment())
        };
        let mut products = Vec::with_capacity(2 * channels.len());
        for (channels, (inputs, outputs)) in channels.iter().zip(rows) {
            let matrix = channels.map(|c| self.matrix[c]);
            let mut add = |matrix, inputs, outputs| {
                if outputs != [None; 2] {
                    products.push(Product {
                        matrix,
                        inputs,
                        outputs,
                    });
                }
            };
            // a complex channel is one product with both rows, two real ones are two
            if self.complex {
                add(matrix[0], inputs.as_slice(), *outputs);
            } else {
                add(matrix[0], &inputs[..1], [outputs[0], None]);
                add(matrix[1], &inputs[1..], [outputs[1], None]);
            }
        }
        products.sort_by_key(|p| p.matrix);
        let alike = products.chunk_by(|a, b| a.matrix == b.matrix);
        let mut loaded: Vec<&[usize]> = Vec::new();
        for group in alike.flat_map(|all| all.chunks(self.together(samples))) {
            let columns = group.len() * samples;
            let (x, rest) = memory.split_at_mut(columns * self.parts() * self.sites);
            let y = &mut rest[..columns * self.padded()];
            let inputs: Vec<&[usize]> = group.iter().map(|p| p.inputs).collect();
            if loaded != inputs {
                self.load(g, x, columns, |part, column| {
                    segment(inputs[column / samples][part], column % samples)
                });
                loaded = inputs;
            }
            for part in 0..self.parts() {
                if group.iter().all(|p| p.outputs[part].is_none()) {
                    continue;
                }
                let packed = &self.packed[group[0].matrix * self.parts() + part];
                self.multiply(packed, x, y, columns);
                for (column, y) in y.chunks_exact(self.padded()).enumerate() {
                    let Some(row) = group[column / samples].outputs[part] else {
                        continue;
                    };
                    let out = segment(row, column % samples);
                    for (first, lane, length) in g.lines() {
                        let line = &y[first * g.extent[1]..][..length];
                        out[lane..lane + length].copy_from_slice(line);
                    }
                }
            }
        }
    }

    /// The inputs, tile by tile: source slowest, sample fastest.
    fn load<'s>(
        &self,
        g: &Geometry,
        x: &mut [T],
        samples: usize,
        segment: impl Fn(usize, usize) -> &'s mut [T],
    ) {
        let sources = self.parts() * self.sites;
        for (first, height) in tiles(samples) {
            let tile = &mut x[first * sources..(first + height) * sources];
            for (part, tile) in tile.chunks_exact_mut(height * self.sites).enumerate() {
                for sample in 0..height {
                    let from = &*segment(part, first + sample);
                    for (site, lane, length) in g.lines() {
                        let to = tile[height * site * g.extent[1] + sample..]
                            .iter_mut()
                            .step_by(height);
                        let values = &from[lane..lane + length];
                        to.zip(values).for_each(|(to, &x)| *to = x);
                    }
                }
            }
        }
    }

    fn multiply(&self, packed: &[T], x: &[T], y: &mut [T], samples: usize) {
        let sources = self.parts() * self.sites;
        assert!(packed.len() == sources * self.padded() && x.len() == sources * samples);
        assert_eq!(y.len(), samples * self.padded());
        let shape = [self.sites, sources, samples];
        // SAFETY: the machine has `isa`, and all sizes fit.
        unsafe {
            match self.isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => product_512(packed, x, y, shape),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => product_256(packed, x, y, shape),
                _ => product_portable(packed, x, y, shape),
            }
        }
    }
}

/// Adds `count` sources to `R` samples times `W` vectors of results; the first block
/// of sources replaces what was there.
#[inline(always)]
unsafe fn tile<V: Vector, const R: usize, const W: usize>(
    w: *const V::Element,
    x: *const V::Element,
    count: usize,
    y: *mut V::Element,
    (stride, first): (usize, bool),
    zero: V,
) {
    unsafe {
        let mut acc = [[zero; W]; R];
        for k in 0..count {
            let mut weights = [zero; W];
            for (j, weight) in weights.iter_mut().enumerate() {
                *weight = V::load(w.add((k * W + j) * V::LANES));
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = V::splat(*x.add(k * R + r));
                for (acc, weight) in acc.iter_mut().zip(weights) {
                    *acc = x.fma(weight, *acc);
                }
            }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            for (j, acc) in acc.into_iter().enumerate() {
                let y = y.add(r * stride + j * V::LANES);
                let sum = if first { acc } else { acc.plus(V::load(y)) };
                sum.store(y);
            }
        }
    }
}

#[inline(always)]
unsafe fn product<V: Vector>(
    packed: *const V::Element,
    x: *const V::Element,
    y: *mut V::Element,
    [results, sources, samples]: [usize; 3],
    zero: V,
) {
    let stride = results.next_multiple_of(V::LANES);
    for from in (0..sources).step_by(BLOCK) {
        let count = BLOCK.min(sources - from);
        for (first, vectors) in panels(results, V::LANES) {
            for (sample, height) in tiles(samples) {
                // SAFETY: panels and tiles lie one after the other in their memory.
                unsafe {
                    let w = packed.add(first * sources + from * vectors * V::LANES);
                    let x = x.add(sample * sources + from * height);
                    let y = y.add(sample * stride + first);
                    let how = (stride, from == 0);
                    macro_rules! tiles {
                        ($($r:literal)*) => {
                            match (height, vectors) {
                                $(
                                    ($r, 1) => tile::<V, $r, 1>(w, x, count, y, how, zero),
                                    ($r, _) => tile::<V, $r, VECTORS>(w, x, count, y, how, zero),
                                )*
                                _ => {}
                            }
                        };
                    }
                    tiles!(1 2 3 4 5 6);
                }
            }
        }
    }
}

macro_rules! instance {
    ($name:ident, $width:ident $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $name<T: Real>(packed: &[T], x: &[T], y: &mut [T], shape: [usize; 3]) {
            // SAFETY: the machine has these vectors.
            unsafe {
                let zero = T::$width::splat(T::default());
                product::<T::$width>(packed.as_ptr(), x.as_ptr(), y.as_mut_ptr(), shape, zero)
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instance!(product_512, Wide512, "avx512f,avx512vl,fma");
#[cfg(target_arch = "x86_64")]
instance!(product_256, Wide256, "avx2,fma");
instance!(product_portable, Portable);

/// Factors of the derivative with respect to a matrix, and where it goes.
pub(super) struct Pairs<'a> {
    /// Complex channels: all real rows come first.
    pub(super) complex: bool,
    /// Byte offsets of the rows of the adjoint and of the input.
    pub(super) factors: [&'a [usize]; 2],
    /// Byte offsets of rows of f64 with a lane per sample: target, source, row.
    pub(super) out: &'a [usize],
}

impl Pairs<'_> {
    /// `d(i, j) = g_i conj(x_j)` for all samples.
    ///
    /// # Safety
    /// All offsets are those of rows inside the arena for at least `samples`
    /// samples: factors of `T` on the sites of `g`, results of f64.
    pub(super) unsafe fn run<T: Real>(&self, g: &Geometry, arena: *mut u8, samples: usize) {
        let (sites, rows) = (g.sites(), self.factors[0].len());
        // site, row, sample
        let [a, b] = self.factors.map(|factor| {
            let mut values = Vec::with_capacity(sites * rows * samples);
            for site in 0..sites {
                for &row in factor {
                    for sample in 0..samples {
                        let lane = sample * g.segment() + g.lane(site);
                        let x = unsafe { *arena.add(row).cast::<T>().add(lane) };
                        values.push(x.widened());
                    }
                }
            }
            values
        });
        let width = if self.complex { rows / 2 } else { rows };
        for (pair, out) in self.out.chunks_exact(rows).enumerate() {
            let at = |values: &'_ [f64], site: usize, row: usize| -> *const f64 {
                let first = (site * rows + row) * samples;
                values[first..first + samples].as_ptr()
            };
            let (i, j) = (pair / sites, pair % sites);
            for (row, &out) in out.iter().enumerate() {
                // SAFETY: all of them are `samples` numbers.
                unsafe {
                    let out = std::slice::from_raw_parts_mut(arena.add(out).cast::<f64>(), samples);
                    let read = |p: *const f64| std::slice::from_raw_parts(p, samples);
                    if !self.complex {
                        let (a, b) = (read(at(&a, i, row)), read(at(&b, j, row)));
                        (out.iter_mut().zip(a).zip(b)).for_each(|((o, a), b)| *o = a * b);
                        continue;
                    }
                    let c = row % width;
                    let [ar, ai] = [c, c + width].map(|r| read(at(&a, i, r)));
                    let [br, bi] = [c, c + width].map(|r| read(at(&b, j, r)));
                    for (s, o) in out.iter_mut().enumerate() {
                        *o = match row < width {
                            true => ar[s] * br[s] + ai[s] * bi[s],
                            false => ai[s] * br[s] - ar[s] * bi[s],
                        };
                    }
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

    fn number(k: usize) -> f64 {
        (k as f64 * 0.37).sin()
    }

    /// Products on a lattice with halo: exact sums, and the same bits whatever the
    /// number of samples.
    fn check<T: Real>(
        isa: Isa,
        (complex, alike): (bool, [usize; 2]),
        extent: [usize; 2],
        tolerance: f64,
    ) {
        let g = Geometry {
            token: Token::SPIN,
            extent,
            halo: [2, usize::from(extent[1] > 1)],
            boundary: Boundary::Open,
        };
        let (n, most) = (g.sites(), 15);
        let lanes = most * g.segment();
        let entry = |i: usize, j: usize, c: usize| {
            let c = alike[c];
            Complex64::new(number(i * n + j + c), number(i + 3 * j * n + c))
        };
        let dense = Dense::<T>::new(complex, n, &alike, isa, entry);
        let bytes = T::PRECISION.bytes();
        let row = |r: usize| r * lanes * bytes;
        let parts = dense.parts();
        // two complex channels, or two real ones in a pair and one without partner
        let (channels, rows) = if complex {
            let unit = |c: usize| {
                (
                    [row(2 * c), row(2 * c + 1)],
                    [4, 5].map(|k| Some(row(k + 2 * c))),
                )
            };
            (vec![[0, 0], [1, 1]], vec![unit(0), unit(1)])
        } else {
            let pair = ([row(0), row(1)], [Some(row(4)), Some(row(5))]);
            let single = ([row(2), row(2)], [Some(row(6)), None]);
            (vec![[0, 1], [1, 1]], vec![pair, single])
        };
        let arena: Vec<T> = (0..8 * lanes).map(|k| T::rounded(number(7 * k))).collect();
        let run = |samples: usize| {
            let mut memory = arena.clone();
            let mut scratch = vec![Complex::default(); dense.scratch(most)];
            let units = (channels.as_slice(), rows.as_slice());
            let start = memory.as_mut_ptr().cast();
            unsafe { dense.run(&g, units, start, samples, &mut scratch) };
            memory
        };
        let all = run(most);
        let at =
            |r: usize, sample: usize, site: usize| r * lanes + sample * g.segment() + g.lane(site);
        let results = if complex { 4 } else { 3 };
        for result in 0..results {
            let channel = if complex {
                result / 2
            } else {
                [0, 1, 1][result]
            };
            for sample in 0..most {
                for i in 0..n {
                    let term = |j: usize| {
                        let k = entry(i, j, channel);
                        let x = |part: usize| {
                            let r = if complex { 2 * channel + part } else { result };
                            arena[at(r, sample, j)].widened()
                        };
                        match (complex, result % 2) {
                            (false, _) => k.re * x(0),
                            (true, 0) => k.re * x(0) - k.im * x(1),
                            (true, _) => k.im * x(0) + k.re * x(1),
                        }
                    };
                    let want: f64 = (0..n).map(term).sum();
                    let got = all[at(4 + result, sample, i)].widened();
                    assert!(
                        (got - want).abs() < tolerance,
                        "{isa:?} {result}: {got} {want}"
                    );
                }
            }
        }
        for samples in [1, 2, 7, 12] {
            let some = run(samples);
            for result in 0..results {
                for k in (0..samples * n).map(|k| at(4 + result, k / n, k % n)) {
                    assert_eq!(some[k], all[k], "{parts} parts, {samples} samples");
                }
            }
        }
    }

    #[test]
    fn products_on_every_instruction_set() {
        let mut machines = vec![Isa::Portable, Isa::detect()];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            machines.push(Isa::Avx2);
        }
        for isa in machines {
            for extent in [[5, 1], [150, 1], [7, 11]] {
                for channels in [false, true]
                    .into_iter()
                    .flat_map(|c| [(c, [0, 1]), (c, [0, 0])])
                {
                    check::<f32>(isa, channels, extent, 1e-4);
                    check::<f64>(isa, channels, extent, 1e-12);
                }
            }
        }
    }

    #[test]
    fn panels_and_tiles_cover() {
        assert_eq!(
            panels(100, 16).collect::<Vec<_>>(),
            [(0, 4), (64, 1), (80, 1), (96, 1)]
        );
        assert_eq!(panels(49, 16).collect::<Vec<_>>(), [(0, 4)]);
        assert_eq!(tiles(16).collect::<Vec<_>>(), [(0, 5), (5, 5), (10, 6)]);
    }
}
