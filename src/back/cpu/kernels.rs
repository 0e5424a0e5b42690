//! Real-space kernels of mixers, and the parameters of flip programs made of them.

use super::compiled::CompileError;
use super::constants::{ConstantError, constant_values, tensors};
use super::mixer::Plan;
use super::paths::{Products, all, between_places, inside, joined};
use super::response::{Coefficients, Layout};
use crate::interp::{Tensor, TokenLattice};
use crate::ir::{Boundary, Graph, Op};
use crate::kernel::{Geometry, Program};
use crate::pass::flips::Derived;
use rustfft::FftPlanner;
use rustfft::num_complex::{Complex, Complex64};

/// Kernels of mixers, in f64.
pub struct Kernels {
    mixers: Vec<Kernel>,
    products: Products,
}

/// The kernel of a mixer.
pub(super) struct Kernel {
    lattice: TokenLattice,
    /// Whether it depends on both ends, not on their displacement alone.
    dense: bool,
    /// The graph's values are complex, also where only real parts matter.
    complex: bool,
    channels: usize,
    /// The channels of every displacement, or of every pair (target slowest).
    entries: Vec<Complex64>,
}

impl Kernels {
    /// Responses of a network's mixers to unit impulses.
    ///
    /// # Errors
    /// Parameters for which a mixer does not exist.
    pub fn new(graph: &Graph, program: &Program, theta: &[f64]) -> Result<Kernels, CompileError> {
        let params = tensors(graph, program, theta, &[]).map_err(ConstantError::from)?;
        let mut planner = (FftPlanner::new(), FftPlanner::new());
        let roots = program.mixers.iter().flat_map(|m| m.kernel.iter().copied());
        let values =
            constant_values(graph, program.lattice, &params, roots).map_err(ConstantError::from)?;
        let mut mixers = Vec::with_capacity(program.mixers.len());
        for m in &program.mixers {
            let geometry = program.geometry(m.space);
            let kernel: Vec<&Tensor> = m
                .kernel
                .iter()
                .filter_map(|k| values[k.index()].as_ref())
                .collect();
            let channels = m.channels.iter().product();
            if let Op::Mix {
                complex,
                transposed,
            } = m.op
            {
                let lattice = TokenLattice::new(program.lattice, geometry.token)
                    .map_err(ConstantError::from)?;
                let n = lattice.count();
                let layout = if complex { Layout::Inner } else { Layout::Real };
                let k = Coefficients::read(kernel[0], n * n, layout, &m.channels);
                let pair = |e: usize| if transposed { e % n * n + e / n } else { e };
                let channel = |e: usize| (0..channels).map(move |c| (e, c));
                let entries = (0..n * n).flat_map(channel).map(|(e, c)| k.at(pair(e), c));
                mixers.push(Kernel {
                    dense: true,
                    complex,
                    channels,
                    entries: entries.collect(),
                    lattice,
                });
                continue;
            }
            let plan = Plan::<f64>::new(m, &[], geometry, &kernel, &mut planner)
                .map_err(ConstantError::from)?;
            let complex = match m.op {
                Op::Scan(s) => s.complex,
                Op::Convolve { complex, .. } | Op::Modes { complex, .. } => complex,
                _ => plan.complex(),
            };
            let kernel = Kernel::new(program, geometry, &plan, channels)?;
            mixers.push(Kernel { complex, ..kernel });
        }
        Ok(Kernels {
            mixers,
            products: Products::new(program.lattice, params),
        })
    }

    /// `G_m(D)` of a translation-invariant mixer, per channel: zero if no two sites
    /// have this displacement.
    pub(super) fn at(&self, mixer: usize, displacement: [i64; 2]) -> Vec<Complex64> {
        let kernel = &self.mixers[mixer];
        let zero = || vec![Complex64::ZERO; kernel.channels];
        kernel.at(displacement).map_or_else(zero, <[_]>::to_vec)
    }

    /// The values of a derived parameter.
    ///
    /// # Errors
    /// What the reference evaluator reports of vertices between mixers.
    pub fn derived(&self, what: &Derived) -> Result<Vec<f64>, CompileError> {
        let along = |path| {
            let along = self.products.along(&self.mixers, path);
            along.map_err(ConstantError::from)
        };
        let mut data = Vec::new();
        match what {
            Derived::Direct {
                mixer,
                displacements,
            } => {
                let kernel = &self.mixers[*mixer];
                for &d in displacements {
                    kernel.add_matrix(kernel.at(d), &mut data);
                }
            }
            Derived::DirectPairs { mixer, places } => {
                let kernel = &self.mixers[*mixer];
                for i in all(&kernel.lattice) {
                    for &(a, b) in places {
                        let g = kernel.between(moved(i, a), moved(i, b));
                        kernel.add_matrix(g, &mut data);
                    }
                }
            }
            Derived::Chain {
                last,
                first,
                displacements,
                conjugate,
            } => {
                let link = self.link([*last, *first], None, *conjugate);
                for n in link.last.displacements() {
                    let right = link.first.at([-n[0], -n[1]]);
                    let lefts = displacements.iter().map(|&d| link.last.at(moved(n, d)));
                    link.add_products(right, lefts, &mut data);
                }
            }
            Derived::ChainPairs {
                last,
                first,
                channels,
                displacements,
                conjugate,
            } => {
                let link = self.link([*last, *first], Some(channels), *conjugate);
                for i in all(&link.last.lattice) {
                    for j in all(&link.last.lattice) {
                        let right = link.first.between(j, i);
                        let lefts =
                            (displacements.iter()).map(|&d| link.last.between(moved(i, d), j));
                        link.add_products(right, lefts, &mut data);
                    }
                }
            }
            Derived::Path { path, places } => {
                let lattice = &self.mixers[path.last].lattice;
                data = between_places((&along(path)?, path), lattice, places);
            }
            Derived::Joined {
                last,
                first,
                diagonal,
                displacements,
            } => {
                let [left, right] = [along(last)?, along(first)?];
                let lattice = &self.mixers[last.last].lattice;
                let paths = [(&left, last), (&right, first)];
                data = joined(paths, lattice, *diagonal, displacements);
            }
        }
        Ok(data)
    }
}

pub(super) fn moved(site: [i64; 2], by: [i64; 2]) -> [i64; 2] {
    [site[0] + by[0], site[1] + by[1]]
}

/// Two kernels whose products are wanted, for some channels of each.
struct Link<'k> {
    last: &'k Kernel,
    first: &'k Kernel,
    channels: [Vec<usize>; 2],
    conjugate: bool,
    /// Real parts alone, or imaginary parts too.
    parts: usize,
}

impl Kernels {
    fn link(
        &self,
        [last, first]: [usize; 2],
        channels: Option<&[Vec<usize>; 2]>,
        conjugate: bool,
    ) -> Link<'_> {
        let [last, first] = [last, first].map(|m| &self.mixers[m]);
        let all = || [last, first].map(|kernel| (0..kernel.channels).collect());
        Link {
            last,
            first,
            channels: channels.cloned().unwrap_or_else(all),
            conjugate,
            parts: if last.complex || first.complex { 2 } else { 1 },
        }
    }
}

impl Link<'_> {
    /// Part by part, for every left entry all products with the right one, channels of
    /// the left one fastest.
    fn add_products<'k>(
        &self,
        right: Option<&[Complex64]>,
        lefts: impl Iterator<Item = Option<&'k [Complex64]>> + Clone,
        data: &mut Vec<f64>,
    ) {
        let [of_left, of_right] = &self.channels;
        for part in 0..self.parts {
            for left in lefts.clone() {
                let (Some(right), Some(left)) = (right, left) else {
                    let numbers = of_left.len() * of_right.len();
                    data.extend(std::iter::repeat_n(0.0, numbers));
                    continue;
                };
                for &g in of_right {
                    let g = match self.conjugate {
                        true => right[g].conj(),
                        false => right[g],
                    };
                    data.extend(of_left.iter().map(|&h| {
                        let z = left[h] * g;
                        if part == 0 { z.re } else { z.im }
                    }));
                }
            }
        }
    }
}

impl Kernel {
    fn new(
        program: &Program,
        geometry: &Geometry,
        plan: &Plan<f64>,
        channels: usize,
    ) -> Result<Kernel, CompileError> {
        let lattice =
            TokenLattice::new(program.lattice, geometry.token).map_err(ConstantError::from)?;
        let count = lattice.displacements(0) * lattice.displacements(1);
        let mut entries = vec![Complex64::ZERO; count * channels];
        let mut scratch = vec![Complex::default(); plan.scratch(1)];
        let segment = geometry.segment();
        let (mut re, mut im) = (vec![0.0; segment], vec![0.0; segment]);
        let zero = vec![0.0; segment];
        // impulses at the corners reach every displacement, also on an open lattice
        let corners = |a: usize| [0, lattice.extent[a] - 1];
        for x in corners(0) {
            for y in corners(1) {
                let source = lattice.site([x, y]);
                let mut impulse = zero.clone();
                impulse[geometry.lane(source)] = 1.0;
                for c in 0..channels {
                    let out = [re.as_mut_slice(), im.as_mut_slice()];
                    plan.run(
                        geometry,
                        [c, c],
                        [&impulse, &zero],
                        out,
                        &mut scratch,
                        false,
                    );
                    for target in 0..lattice.count() {
                        let lane = geometry.lane(target);
                        let im = if plan.complex() { im[lane] } else { 0.0 };
                        let entry = lattice.displacement(target, source);
                        entries[entry * channels + c] = Complex64::new(re[lane], im);
                    }
                }
            }
        }
        Ok(Kernel {
            lattice,
            dense: false,
            complex: plan.complex(),
            channels,
            entries,
        })
    }

    fn entry(&self, number: usize) -> &[Complex64] {
        &self.entries[number * self.channels..][..self.channels]
    }

    /// What a change of one value does to another: nothing if it does not exist; real,
    /// or the real matrix (part of the input, part of the result).
    fn add_matrix(&self, g: Option<&[Complex64]>, data: &mut Vec<f64>) {
        let Some(g) = g else {
            let numbers = if self.complex { 4 } else { 1 } * self.channels;
            return data.extend(std::iter::repeat_n(0.0, numbers));
        };
        if self.complex {
            data.extend(g.iter().map(|z| z.re));
            data.extend(g.iter().map(|z| z.im));
            data.extend(g.iter().map(|z| -z.im));
        }
        data.extend(g.iter().map(|z| z.re));
    }

    /// The kernel between two sites, wherever they are on a ring; `None` beyond an
    /// open lattice.
    pub(super) fn between(&self, target: [i64; 2], source: [i64; 2]) -> Option<&[Complex64]> {
        let site = |at| inside(&self.lattice, at);
        let (target, source) = (site(target)?, site(source)?);
        Some(self.entry(match self.dense {
            true => target * self.lattice.count() + source,
            false => self.lattice.displacement(target, source),
        }))
    }

    /// Its tokens.
    pub(super) fn lattice(&self) -> &TokenLattice {
        &self.lattice
    }

    /// Channels, complex ones if their values are.
    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// Real numbers of a channel.
    pub(super) fn parts(&self) -> usize {
        1 + usize::from(self.complex)
    }

    /// Number of tokens.
    pub(super) fn sites(&self) -> usize {
        self.lattice.count()
    }

    /// The kernel at a displacement; `None` if no two sites have it.
    fn at(&self, d: [i64; 2]) -> Option<&[Complex64]> {
        let mut entry = 0;
        for (a, d) in d.into_iter().enumerate() {
            let t = self.lattice.extent[a] as i64;
            let n = match self.lattice.boundary {
                Boundary::Periodic => d.rem_euclid(t),
                Boundary::Open if d.abs() < t => d + t - 1,
                Boundary::Open => return None,
            };
            entry = entry * self.lattice.displacements(a) + n as usize;
        }
        Some(self.entry(entry))
    }

    /// Every displacement, in order of the entries.
    fn displacements(&self) -> Vec<[i64; 2]> {
        let axis = |a: usize| {
            let shift = match self.lattice.boundary {
                Boundary::Periodic => 0,
                Boundary::Open => self.lattice.extent[a] as i64 - 1,
            };
            (0..self.lattice.displacements(a) as i64).map(move |n| n - shift)
        };
        axis(0).flat_map(|x| axis(1).map(move |y| [x, y])).collect()
    }
}
