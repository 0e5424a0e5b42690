//! Local changes that every configuration has, each with an element that depends on
//! its spins: the rows of a sparse operator, for all configurations at once.

use super::Spins;
use num_complex::Complex64;

/// For a configuration s
///
/// ```text
/// diagonal(s) + sum_k element_k(s) psi(s_k) / psi(s)
/// ```
///
/// where s_k is s with the sites of *cluster* k flipped. An element is a sum of strings,
/// products of spins with a coefficient, and exactly zero where they cancel up to
/// rounding; the diagonal is a constant, strings, and couplings of pairs by
/// displacement, `sum_d J(d) sum_i s_i s_(i+d)`.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    constant: f64,
    diagonal: Strings,
    pairs: Pairs,
    flips: Lists,
    /// Of each cluster, where its strings end.
    string_ends: Vec<usize>,
    strings: Strings,
}

/// Couplings of pairs of spins by displacement, on a torus large enough that those of
/// an open lattice do not alias.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pairs {
    /// Extents of the lattice.
    pub extent: [usize; 2],
    /// Extents of the torus: those of the lattice where it is periodic.
    pub torus: [usize; 2],
    /// Displacements on the torus with their coupling.
    pub couplings: Vec<([usize; 2], f64)>,
}

/// Lists of sites one after the other.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    ends: Vec<usize>,
    sites: Vec<u32>,
}

impl Lists {
    fn push(&mut self, sites: impl IntoIterator<Item = u32>) {
        self.sites.extend(sites);
        self.ends.push(self.sites.len());
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
    /// One of them.
    pub fn get(&self, k: usize) -> &[u32] {
        &self.sites[k.checked_sub(1).map_or(0, |k| self.ends[k])..self.ends[k]]
    }
}

/// Products of spins with their coefficients.
#[derive(Clone, Debug, Default)]
pub struct Strings {
    coefficients: Vec<Complex64>,
    sites: Lists,
}

impl Strings {
    fn push(&mut self, coefficient: Complex64, sites: &[u32]) {
        self.coefficients.push(coefficient);
        self.sites.push(sites.iter().copied());
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.coefficients.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.coefficients.is_empty()
    }
    /// Coefficient and sites of one of them.
    pub fn get(&self, k: usize) -> (Complex64, &[u32]) {
        (self.coefficients[k], self.sites.get(k))
    }
    /// Coefficient times spins.
    fn value(&self, k: usize, spins: &Spins) -> Complex64 {
        let (coefficient, sites) = self.get(k);
        let sign: i8 = sites.iter().map(|&j| spins[j as usize]).product();
        coefficient * f64::from(sign)
    }
}

impl Changes {
    /// Nothing but a constant.
    pub fn new(constant: f64) -> Changes {
        Changes {
            constant,
            ..Changes::default()
        }
    }

    /// Adds a string to the diagonal.
    pub fn push_diagonal(&mut self, coefficient: f64, sites: &[u32]) {
        self.diagonal.push(coefficient.into(), sites);
    }

    /// Sets the couplings of pairs.
    pub fn set_pairs(&mut self, pairs: Pairs) {
        self.pairs = pairs;
    }

    /// Adds a cluster of distinct sites, by coefficients and sites of its strings.
    pub fn push<'s>(
        &mut self,
        flips: &[usize],
        strings: impl IntoIterator<Item = (Complex64, &'s [u32])>,
    ) {
        self.flips.push(flips.iter().map(|&f| f as u32));
        for (coefficient, sites) in strings {
            self.strings.push(coefficient, sites);
        }
        self.string_ends.push(self.strings.len());
    }

    /// Number of clusters.
    pub fn len(&self) -> usize {
        self.flips.len()
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.flips.is_empty()
    }

    /// The sites that cluster k flips.
    pub fn flips(&self, k: usize) -> &[u32] {
        self.flips.get(k)
    }

    /// The strings of cluster k.
    pub fn strings(&self, k: usize) -> impl Iterator<Item = (Complex64, &[u32])> {
        let start = k.checked_sub(1).map_or(0, |k| self.string_ends[k]);
        (start..self.string_ends[k]).map(|s| self.strings.get(s))
    }

    /// The constant of the diagonal.
    pub fn constant(&self) -> f64 {
        self.constant
    }

    /// The strings of the diagonal.
    pub fn diagonal_strings(&self) -> &Strings {
        &self.diagonal
    }

    /// The couplings of the diagonal.
    pub fn pairs(&self) -> &Pairs {
        &self.pairs
    }

    /// Whether no element of these clusters is ever zero: each is one string.
    pub fn never_vanish(&self, clusters: &[usize]) -> bool {
        clusters.iter().all(|&k| {
            let mut strings = self.strings(k);
            let first = strings.next();
            first.is_some_and(|(c, _)| c != Complex64::ZERO) && strings.next().is_none()
        })
    }

    /// The element of cluster k.
    pub fn element(&self, k: usize, spins: &Spins) -> Complex64 {
        let start = k.checked_sub(1).map_or(0, |k| self.string_ends[k]);
        let (mut element, mut largest) = (Complex64::ZERO, 0.0);
        for s in start..self.string_ends[k] {
            element += self.strings.value(s, spins);
            largest = f64::max(largest, self.strings.get(s).0.l1_norm());
        }
        match element.l1_norm() < 1e-13 * largest {
            true => Complex64::ZERO,
            false => element,
        }
    }
}
