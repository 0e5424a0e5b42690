//! Real-space kernels of mixers, and the parameters of flip programs made of them.

use super::compiled::CompileError;
use super::constants::{ConstantError, constant_values, tensors};
use super::mixer::Plan;
use super::response::{Coefficients, Layout};
use crate::interp::{Tensor, TokenLattice};
use crate::ir::{Boundary, Graph, Op};
use crate::kernel::{Geometry, Mixer, Program};
use crate::pass::flips::Derived;
use rustfft::FftPlanner;
use rustfft::num_complex::{Complex, Complex64};

/// `G_m(D)` of translation-invariant mixers, in f64.
pub struct Kernels {
    mixers: Vec<Kernel>,
}

struct Kernel {
    lattice: TokenLattice,
    /// The graph's values are complex, also where only real parts matter.
    complex: bool,
    entries: Entries,
}

/// The channels of a kernel.
enum Entries {
    /// Per displacement.
    Translations(Vec<Vec<Complex64>>),
    /// Per pair of sites, target slowest.
    Pairs(Vec<Vec<Complex64>>),
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
            let lattice =
                TokenLattice::new(program.lattice, geometry.token).map_err(ConstantError::from)?;
            if let Op::Mix {
                complex,
                transposed,
            } = m.op
            {
                let entries = Entries::Pairs(pairs(m, kernel[0], lattice.count(), transposed));
                mixers.push(Kernel {
                    lattice,
                    complex,
                    entries,
                });
                continue;
            }
            let plan = Plan::<f64>::new(m, &[], geometry, &kernel, &mut planner)
                .map_err(ConstantError::from)?;
            let channels = m.channels.iter().product();
            let complex = match m.op {
                Op::Scan(s) => s.complex,
                Op::Convolve { complex, .. } | Op::Modes { complex, .. } => complex,
                _ => plan.complex(),
            };
            let kernel = Kernel::new(program, geometry, &plan, channels)?;
            mixers.push(Kernel { complex, ..kernel });
        }
        Ok(Kernels { mixers })
    }

    /// `G_m(D)`, per channel.
    pub(super) fn at(&self, mixer: usize, displacement: [i64; 2]) -> Vec<Complex64> {
        self.mixers[mixer].at(displacement)
    }

    /// The values of a derived parameter.
    pub fn derived(&self, what: &Derived) -> Vec<f64> {
        match what {
            Derived::Direct {
                mixer,
                displacements,
            } => {
                let kernel = &self.mixers[*mixer];
                let mut data = Vec::new();
                for &d in displacements {
                    kernel.push_matrix(&kernel.at(d), &mut data);
                }
                data
            }
            Derived::DirectPairs { mixer, pairs } => {
                let kernel = &self.mixers[*mixer];
                let mut data = Vec::new();
                for q in 0..kernel.lattice.count() {
                    for &pair in pairs {
                        let [target, source] = pair.map(|d| kernel.moved(q, d));
                        kernel.push_matrix(&kernel.between(target, source), &mut data);
                    }
                }
                data
            }
            Derived::ChainPairs {
                last,
                first,
                displacements,
                conjugate,
            } => {
                let (last, first) = (&self.mixers[*last], &self.mixers[*first]);
                let count = last.lattice.count();
                let parts = if last.complex || first.complex { 2 } else { 1 };
                let mut data = Vec::new();
                for q in 0..count {
                    let targets: Vec<_> = displacements.iter().map(|&d| last.moved(q, d)).collect();
                    for j in 0..count {
                        let mut right = first.between(Some(j), Some(q));
                        if *conjugate {
                            right.iter_mut().for_each(|z| *z = z.conj());
                        }
                        let lefts: Vec<Vec<Complex64>> =
                            targets.iter().map(|&t| last.between(t, Some(j))).collect();
                        push_products(&lefts, &right, parts, &mut data);
                    }
                }
                data
            }
            Derived::Chain {
                last,
                first,
                displacements,
                conjugate,
            } => {
                let (last, first) = (&self.mixers[*last], &self.mixers[*first]);
                let parts = if last.complex || first.complex { 2 } else { 1 };
                let mut data = Vec::new();
                for n in last.displacements() {
                    let right = first.at([-n[0], -n[1]]);
                    let lefts: Vec<Vec<Complex64>> = displacements
                        .iter()
                        .map(|d| last.at([n[0] + d[0], n[1] + d[1]]))
                        .collect();
                    let right: Vec<Complex64> = (right.into_iter())
                        .map(|g| if *conjugate { g.conj() } else { g })
                        .collect();
                    push_products(&lefts, &right, parts, &mut data);
                }
                data
            }
        }
    }
}

/// Per pair of sites, target slowest, the channels of a dense mixer.
fn pairs(m: &Mixer, value: &Tensor, sites: usize, transposed: bool) -> Vec<Vec<Complex64>> {
    let layout = match m.op {
        Op::Mix { complex: true, .. } => Layout::Inner,
        _ => Layout::Real,
    };
    let width: usize = m.channels.iter().product();
    let k = Coefficients::read(value, sites * sites, layout, &m.channels);
    let entry = |e: usize| {
        let (i, j) = (e / sites, e % sites);
        if transposed { j * sites + i } else { e }
    };
    (0..sites * sites)
        .map(|e| (0..width).map(|c| k.at(entry(e), c)).collect())
        .collect()
}

/// Real parts (and imaginary parts) of all products, right factors slower than
/// elements of the left ones.
fn push_products(lefts: &[Vec<Complex64>], right: &[Complex64], parts: usize, data: &mut Vec<f64>) {
    for part in 0..parts {
        for left in lefts {
            for g in right {
                data.extend(left.iter().map(|h| {
                    let z = h * g;
                    if part == 0 { z.re } else { z.im }
                }));
            }
        }
    }
}

impl Kernel {
    /// A token away from another; `None` beyond an open lattice.
    fn moved(&self, token: usize, d: [i64; 2]) -> Option<usize> {
        let columns = self.lattice.extent[1];
        let mut at = [token / columns, token % columns];
        for (a, at) in at.iter_mut().enumerate() {
            let n = self.lattice.extent[a] as i64;
            let to = *at as i64 + d[a];
            *at = match self.lattice.boundary {
                Boundary::Periodic => to.rem_euclid(n) as usize,
                Boundary::Open if (0..n).contains(&to) => to as usize,
                Boundary::Open => return None,
            };
        }
        Some(self.lattice.site(at))
    }

    /// The kernel between two tokens; zero where one does not exist.
    fn between(&self, target: Option<usize>, source: Option<usize>) -> Vec<Complex64> {
        let none = || vec![Complex64::ZERO; self.channels()];
        let (Some(i), Some(j)) = (target, source) else {
            return none();
        };
        match &self.entries {
            Entries::Pairs(all) => all[i * self.lattice.count() + j].clone(),
            Entries::Translations(all) => all[self.lattice.displacement(i, j)].clone(),
        }
    }

    fn channels(&self) -> usize {
        let (Entries::Translations(all) | Entries::Pairs(all)) = &self.entries;
        all.first().map_or(0, Vec::len)
    }

    /// A kernel's channels; of a complex one the real matrix (part of the input, part
    /// of the result).
    fn push_matrix(&self, g: &[Complex64], data: &mut Vec<f64>) {
        if self.complex {
            data.extend(g.iter().map(|z| z.re));
            data.extend(g.iter().map(|z| z.im));
            data.extend(g.iter().map(|z| -z.im));
        }
        data.extend(g.iter().map(|z| z.re));
    }

    fn new(
        program: &Program,
        geometry: &Geometry,
        plan: &Plan<f64>,
        channels: usize,
    ) -> Result<Kernel, CompileError> {
        let lattice =
            TokenLattice::new(program.lattice, geometry.token).map_err(ConstantError::from)?;
        let count = lattice.displacements(0) * lattice.displacements(1);
        let mut entries = vec![vec![Complex64::ZERO; channels]; count];
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
                        let entry: &mut Vec<Complex64> =
                            &mut entries[lattice.displacement(target, source)];
                        entry[c] = Complex64::new(re[lane], im);
                    }
                }
            }
        }
        Ok(Kernel {
            lattice,
            complex: plan.complex(),
            entries: Entries::Translations(entries),
        })
    }

    /// The kernel at a displacement: zero if no two sites have it.
    fn at(&self, d: [i64; 2]) -> Vec<Complex64> {
        let mut entry = 0;
        for (a, d) in d.into_iter().enumerate() {
            let t = self.lattice.extent[a] as i64;
            let n = match self.lattice.boundary {
                Boundary::Periodic => d.rem_euclid(t),
                Boundary::Open if d.abs() < t => d + t - 1,
                Boundary::Open => return vec![Complex64::ZERO; self.channels()],
            };
            entry = entry * self.lattice.displacements(a) + n as usize;
        }
        match &self.entries {
            Entries::Translations(all) => all[entry].clone(),
            Entries::Pairs(_) => unreachable!("links of dense mixers are made for pairs"),
        }
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
