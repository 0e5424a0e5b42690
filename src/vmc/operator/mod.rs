//! Operators on a concrete lattice: Hamiltonians and observables.
//!
//! An operator is a real combination of Pauli strings, kept in three parts:
//!
//! * translation-invariant couplings `sum_{i<j} J(r_j - r_i) Z_i Z_j`
//!   ([`PairCoupling`]): one number per displacement, energies by FFT where
//!   the range is long;
//! * all other diagonal strings, one by one;
//! * *clusters*: the sets of sites flipped together, each with the strings
//!   that flip exactly this set. Its matrix element is a sum of signs.
//!
//! Conventions: `s = +1, -1` is the eigenvalue of Z; `X|s> = |-s>`;
//! `Y|s> = i s |-s>`, so `<s|Y|-s> = -i s`. With F the flipped sites, Q the
//! sites of Y and Z, and `s' = flip_F s`,
//!
//! ```text
//! <s| c prod X prod Y prod Z |s'> = c (-i)^{#Y} prod_{j in Q} s_j
//! ```

use crate::ir::{Boundary, Lattice};
use crate::run::Spins;
use crate::run::changes::Changes;
use num_complex::Complex64;
use std::sync::{Arc, OnceLock};

mod build;
mod compile;
mod pairs;
#[cfg(test)]
mod tests;

pub use build::{OperatorBuilder, OperatorError, STRING_LIMIT};
pub use compile::compile;
pub use pairs::PairCoupling;

/// A list of (coefficient, sites) with the sites in one array.
#[derive(Clone, Debug)]
pub(crate) struct Strings<T> {
    coefficients: Vec<T>,
    /// End of each string's sites.
    ends: Vec<usize>,
    sites: Vec<u32>,
}

impl<T> Default for Strings<T> {
    fn default() -> Self {
        Strings {
            coefficients: Vec::new(),
            ends: Vec::new(),
            sites: Vec::new(),
        }
    }
}

impl<T: Copy> Strings<T> {
    fn push(&mut self, coefficient: T, sites: &[u32]) {
        self.coefficients.push(coefficient);
        self.sites.extend_from_slice(sites);
        self.ends.push(self.sites.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, k: usize) -> (T, &[u32]) {
        let start = if k == 0 { 0 } else { self.ends[k - 1] };
        (self.coefficients[k], &self.sites[start..self.ends[k]])
    }

    /// Coefficient and product of the spins of one string.
    fn value(&self, k: usize, spins: &Spins) -> (T, i8) {
        let (coefficient, sites) = self.get(k);
        (
            coefficient,
            sites.iter().map(|&j| spins[j as usize]).product(),
        )
    }
}

/// Flipped sites with their strings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clusters {
    flips: Vec<usize>,
    flip_ends: Vec<usize>,
    /// Of each cluster, the end of its strings.
    string_ends: Vec<usize>,
    /// Coefficients include `(-i)^{#Y}`; sites are those of Y and Z.
    strings: Strings<Complex64>,
}

impl Clusters {
    fn push(&mut self, flips: &[u32], coefficient: Complex64, signs: &[u32]) {
        self.strings.push(coefficient, signs);
        let same = self.len() > 0
            && self
                .flips(self.len() - 1)
                .iter()
                .copied()
                .eq(flips.iter().map(|&f| f as usize));
        if same {
            self.string_ends.pop();
        } else {
            self.flips.extend(flips.iter().map(|&f| f as usize));
            self.flip_ends.push(self.flips.len());
        }
        self.string_ends.push(self.strings.len());
    }

    fn len(&self) -> usize {
        self.flip_ends.len()
    }

    fn flips(&self, k: usize) -> &[usize] {
        let start = if k == 0 { 0 } else { self.flip_ends[k - 1] };
        &self.flips[start..self.flip_ends[k]]
    }

    fn strings(&self, k: usize) -> std::ops::Range<usize> {
        let start = if k == 0 { 0 } else { self.string_ends[k - 1] };
        start..self.string_ends[k]
    }
}

/// Sites flipped together, up to translation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct ClusterShape {
    /// The sites relative to the corner of the smallest box around them (which
    /// may wrap around a torus), ascending.
    pub offsets: Vec<[usize; 2]>,
    /// Extents of that box.
    pub extent: [usize; 2],
    /// How many clusters have this shape.
    pub count: usize,
}

/// A Hermitian operator on a lattice; see the [module](self) for its form.
#[derive(Clone, Debug)]
pub struct Operator {
    lattice: Lattice,
    constant: f64,
    pairs: Option<PairCoupling>,
    diagonal: Strings<f64>,
    clusters: Clusters,
    changes: OnceLock<Arc<Changes>>,
}

impl Operator {
    /// The lattice it lives on.
    pub fn lattice(&self) -> Lattice {
        self.lattice
    }

    /// The coefficient of the identity, `tr H / 2^N`.
    pub fn constant(&self) -> f64 {
        self.constant
    }

    /// `tr H / dim`, the energy at infinite temperature: all strings but the
    /// identity are traceless.
    pub fn infinite_temperature_energy(&self) -> f64 {
        self.constant
    }

    /// The translation-invariant couplings, if there are any.
    pub fn pairs(&self) -> Option<&PairCoupling> {
        self.pairs.as_ref()
    }

    /// Number of Pauli strings besides the identity, pair couplings counted
    /// one by one.
    pub fn string_count(&self) -> usize {
        self.diagonal.len()
            + self.clusters.strings.len()
            + self.pairs.as_ref().map_or(0, PairCoupling::pair_count)
    }

    /// Number of clusters: the most connected elements a configuration has.
    pub fn cluster_count(&self) -> usize {
        self.clusters.len()
    }

    /// The sites that cluster k flips, ascending.
    pub fn flips(&self, k: usize) -> &[usize] {
        self.clusters.flips(k)
    }

    /// `<s|H|s'>` for s' = s with cluster k flipped; exactly zero where its
    /// strings cancel up to rounding.
    pub fn element(&self, k: usize, spins: &Spins) -> Complex64 {
        let mut element = Complex64::new(0.0, 0.0);
        let mut largest = 0.0;
        for string in self.clusters.strings(k) {
            let (coefficient, sign) = self.clusters.strings.value(string, spins);
            element += coefficient * f64::from(sign);
            largest = f64::max(largest, coefficient.l1_norm());
        }
        if element.l1_norm() < 1e-13 * largest {
            Complex64::new(0.0, 0.0)
        } else {
            element
        }
    }

    /// Whether every matrix element is real in the Z basis.
    pub fn is_real(&self) -> bool {
        self.clusters
            .strings
            .coefficients
            .iter()
            .all(|c| c.im == 0.0)
    }

    /// `<s|H|s>`.
    pub fn diagonal(&self, spins: &Spins) -> f64 {
        let mut energy = self.constant + self.pairs.as_ref().map_or(0.0, |p| p.energy(spins));
        for k in 0..self.diagonal.len() {
            let (coefficient, sign) = self.diagonal.value(k, spins);
            energy += coefficient * f64::from(sign);
        }
        energy
    }

    /// `<s'|H|s'> - <s|H|s>` for s' = s with `flips` (distinct sites) flipped;
    /// `O(N)` per flipped site at most for couplings, plus one pass over the
    /// other diagonal strings.
    pub fn diagonal_difference(&self, spins: &Spins, flips: &[usize]) -> f64 {
        let mut difference = 0.0;
        if let Some(pairs) = &self.pairs {
            for (n, &i) in flips.iter().enumerate() {
                let s = f64::from(spins[i]);
                difference -= 2.0 * s * pairs.field(spins, i);
                // pairs of flipped sites keep their sign
                for &j in &flips[..n] {
                    difference += 4.0 * s * pairs.between(i, j) * f64::from(spins[j]);
                }
            }
        }
        for k in 0..self.diagonal.len() {
            let (_, sites) = self.diagonal.get(k);
            if sites
                .iter()
                .filter(|&&j| flips.contains(&(j as usize)))
                .count()
                % 2
                == 1
            {
                let (coefficient, sign) = self.diagonal.value(k, spins);
                difference -= 2.0 * coefficient * f64::from(sign);
            }
        }
        difference
    }

    /// Calls `visit(flips, <s|H|s'>)` for every off-diagonal element of row s
    /// that is not zero, each s' once.
    pub fn connected(&self, spins: &Spins, visit: &mut dyn FnMut(&[usize], Complex64)) {
        for k in 0..self.clusters.len() {
            let element = self.element(k, spins);
            if element.re != 0.0 || element.im != 0.0 {
                visit(self.clusters.flips(k), element);
            }
        }
    }

    /// All of it, for back ends that add up rows by themselves.
    pub fn changes(&self) -> Arc<Changes> {
        let make = || {
            let mut all = Changes::new(self.constant);
            if let Some(pairs) = &self.pairs {
                all.set_pairs(pairs.by_displacement());
            }
            for k in 0..self.diagonal.len() {
                let (coefficient, sites) = self.diagonal.get(k);
                all.push_diagonal(coefficient, sites);
            }
            for k in 0..self.clusters.len() {
                all.push(self.flips(k), self.cluster_strings(k));
            }
            Arc::new(all)
        };
        self.changes.get_or_init(make).clone()
    }

    /// The shapes of its clusters, smallest first.
    pub fn cluster_shapes(&self) -> Vec<ClusterShape> {
        let mut shapes: Vec<ClusterShape> = Vec::new();
        let mut index = std::collections::HashMap::new();
        for k in 0..self.clusters.len() {
            let shape = self.shape(self.clusters.flips(k));
            let at = *index.entry(shape.offsets.clone()).or_insert(shapes.len());
            if at == shapes.len() {
                shapes.push(shape);
            } else {
                shapes[at].count += 1;
            }
        }
        shapes.sort_by(|a, b| (a.offsets.len(), a).cmp(&(b.offsets.len(), b)));
        shapes
    }

    fn shape(&self, flips: &[usize]) -> ClusterShape {
        let mut corner = [0; 2];
        let mut extent = [1; 2];
        let coordinate = |site: usize, axis: usize| {
            [site / self.lattice.extent[1], site % self.lattice.extent[1]][axis]
        };
        for axis in 0..2 {
            let mut along: Vec<usize> = flips.iter().map(|&site| coordinate(site, axis)).collect();
            along.sort_unstable();
            along.dedup();
            let (first, last) = (along[0], along[along.len() - 1]);
            (corner[axis], extent[axis]) = (first, last - first + 1);
            if self.lattice.boundary == Boundary::Periodic {
                // the box begins behind the widest gap
                for pair in along.windows(2) {
                    let around = self.lattice.extent[axis] + pair[0] - pair[1] + 1;
                    if around < extent[axis] {
                        (corner[axis], extent[axis]) = (pair[1], around);
                    }
                }
            }
        }
        let relative = |&site: &usize| {
            [0, 1].map(|a| {
                (coordinate(site, a) + self.lattice.extent[a] - corner[a]) % self.lattice.extent[a]
            })
        };
        let mut offsets: Vec<[usize; 2]> = flips.iter().map(relative).collect();
        offsets.sort_unstable();
        ClusterShape {
            offsets,
            extent,
            count: 1,
        }
    }

    /// Whether H commutes with the global spin inversion `prod_i X_i`: every
    /// string has an even number of Y and Z.
    pub fn commutes_with_inversion(&self) -> bool {
        (0..self.diagonal.len()).all(|k| self.diagonal.get(k).1.len().is_multiple_of(2))
            && (0..self.clusters.strings.len())
                .all(|k| self.clusters.strings.get(k).1.len().is_multiple_of(2))
    }

    /// Whether H commutes with the translations of a ring or torus along both
    /// axes; false on lattices with edges. Pair couplings are invariant by
    /// construction.
    pub fn commutes_with_translations(&self) -> bool {
        let [lx, ly] = self.lattice.extent;
        if self.lattice.boundary == Boundary::Open {
            return false;
        }
        let mut all: Vec<(Vec<usize>, Vec<usize>, Complex64)> = Vec::new();
        for k in 0..self.diagonal.len() {
            let (c, sites) = self.diagonal.get(k);
            let signs = sites.iter().map(|&s| s as usize).collect();
            all.push((Vec::new(), signs, c.into()));
        }
        for k in 0..self.clusters.len() {
            for (c, sites) in self.cluster_strings(k) {
                let signs = sites.iter().map(|&s| s as usize).collect();
                all.push((self.flips(k).to_vec(), signs, c));
            }
        }
        let known: std::collections::HashMap<_, _> = all
            .iter()
            .map(|(f, s, c)| ((f.clone(), s.clone()), *c))
            .collect();
        let scale = all.iter().map(|t| t.2.norm()).fold(0.0, f64::max);
        [[1, 0], [0, 1]].iter().all(|[dx, dy]| {
            let moved = |sites: &[usize]| {
                let step = |&i: &usize| (i / ly + dx) % lx * ly + (i % ly + dy) % ly;
                let mut sites: Vec<usize> = sites.iter().map(step).collect();
                sites.sort_unstable();
                sites
            };
            all.iter().all(|(flips, signs, c)| {
                let image = known.get(&(moved(flips), moved(signs)));
                image.is_some_and(|d| (c - d).norm() <= 1e-13 * scale)
            })
        })
    }

    /// Whether H conserves `sum_i Z_i`, decided per cluster by enumerating
    /// the spins its element depends on (false beyond 16 of them).
    pub fn conserves_magnetisation(&self) -> bool {
        let mut spins = vec![1i8; self.lattice.sites()];
        (0..self.clusters.len()).all(|k| {
            let flips = self.clusters.flips(k);
            let mut support: Vec<usize> = flips.to_vec();
            for string in self.clusters.strings(k) {
                support.extend(
                    self.clusters
                        .strings
                        .get(string)
                        .1
                        .iter()
                        .map(|&j| j as usize),
                );
            }
            support.sort_unstable();
            support.dedup();
            support.len() <= 16
                && (0..1u32 << support.len()).all(|bits| {
                    for (n, &site) in support.iter().enumerate() {
                        spins[site] = if bits >> n & 1 == 0 { 1 } else { -1 };
                    }
                    let total: i32 = flips.iter().map(|&site| i32::from(spins[site])).sum();
                    total == 0 || self.element(k, &spins) == Complex64::new(0.0, 0.0)
                })
        })
    }

    /// The diagonal strings other than pair couplings and the identity.
    pub(crate) fn diagonal_strings(&self) -> &Strings<f64> {
        &self.diagonal
    }

    /// The strings of cluster k: coefficients with `(-i)^{#Y}`, sites of Y and Z.
    pub(crate) fn cluster_strings(&self, k: usize) -> impl Iterator<Item = (Complex64, &[u32])> {
        self.clusters
            .strings(k)
            .map(|n| self.clusters.strings.get(n))
    }
}
