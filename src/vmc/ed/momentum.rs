//! Sectors of fixed momentum.
//!
//! With G the group of lattice translations (times the inversion of all spins
//! where the sector has a parity) and chi its character, a state of the sector is
//! fixed by one amplitude per orbit. Let a be the least configuration of an orbit
//! and |G_a| the number of group elements that leave it alone,
//!
//! ```text
//! psi(g a) = x_a chi(g)^* sqrt(|G_a| / |G|)
//! (H x)_b  = sum_s' <b|H|s'> chi(g)^* sqrt(|G_a| / |G_b|) x_a,    s' = g a
//! ```
//!
//! Orbits on which chi is not trivial on G_a carry nothing. The matrix has N times
//! fewer rows and is stored; eigenvectors are written out on the basis of the
//! sector without momentum, where observables are computed.

use super::apply::{Amplitude, SectorMatrix};
use super::{Basis, EdError, Options, Spectrum, State, lanczos};
use crate::ir::{Boundary, Lattice};
use crate::vmc::operator::Operator;
use num_complex::Complex64;
use rayon::prelude::*;
use std::f64::consts::TAU;

/// The symmetry group of a sector with its character.
struct Group {
    extent: [usize; 2],
    /// Multiples of `2 pi / L` per axis.
    momentum: [usize; 2],
    /// Eigenvalue of the inversion.
    parity: Option<f64>,
    /// All configurations' bits.
    all: u32,
    /// Sites in the first column.
    column: u32,
}

impl Group {
    fn new(lattice: Lattice, momentum: [usize; 2], parity: Option<f64>) -> Group {
        let [lx, ly] = lattice.extent;
        Group {
            extent: lattice.extent,
            momentum,
            parity,
            all: u32::MAX >> (32 - lx * ly),
            column: (0..lx).fold(0, |bits, x| bits | 1 << (x * ly)),
        }
    }

    fn order(&self) -> f64 {
        (self.extent[0] * self.extent[1]) as f64 * if self.parity.is_some() { 2.0 } else { 1.0 }
    }

    /// One step along the slow axis.
    fn along_x(&self, s: u32) -> u32 {
        let ly = self.extent[1];
        let sites = self.extent[0] * ly;
        if sites == ly {
            return s;
        }
        (s << ly | s >> (sites - ly)) & self.all
    }

    /// One step along the fast axis.
    fn along_y(&self, s: u32) -> u32 {
        let ly = self.extent[1];
        if ly == 1 {
            return s;
        }
        (s << 1 & self.all & !self.column) | (s >> (ly - 1) & self.column)
    }

    /// Calls `visit(g s, translation, inverted)` for every group element g.
    fn orbit(&self, s: u32, mut visit: impl FnMut(u32, [usize; 2], bool)) {
        let mut row = s;
        for x in 0..self.extent[0] {
            let mut image = row;
            for y in 0..self.extent[1] {
                visit(image, [x, y], false);
                if self.parity.is_some() {
                    visit(!image & self.all, [x, y], true);
                }
                image = self.along_y(image);
            }
            row = self.along_x(row);
        }
    }

    /// The character of a translation, with the inversion or without.
    fn character(&self, [x, y]: [usize; 2], inverted: bool) -> Complex64 {
        let [lx, ly] = self.extent;
        // exact multiples of a turn are removed first
        let turns = (self.momentum[0] * x % lx) as f64 / lx as f64
            + (self.momentum[1] * y % ly) as f64 / ly as f64;
        let parity = match self.parity {
            Some(p) if inverted => p,
            _ => 1.0,
        };
        let exact = |z: f64| if z.abs() < 1e-15 { 0.0 } else { z };
        let z = Complex64::cis(TAU * turns);
        Complex64::new(exact(z.re), exact(z.im)) * parity
    }

    /// The least configuration a of the orbit of s, and `chi(g)` with `s = g a`.
    fn canonical(&self, s: u32) -> (u32, Complex64) {
        let (mut least, mut by) = (s, ([0, 0], false));
        self.orbit(s, |image, shift, inverted| {
            if image < least {
                (least, by) = (image, (shift, inverted));
            }
        });
        // a = h s, so g is the inverse of h
        (least, self.character(by.0, by.1).conj())
    }

    /// The number of elements that leave s alone; 0 where the character is not
    /// trivial on them.
    fn stabiliser(&self, s: u32) -> f64 {
        let mut sum = Complex64::ZERO;
        self.orbit(s, |image, shift, inverted| {
            if image == s {
                sum += self.character(shift, inverted);
            }
        });
        sum.re.round()
    }

    /// Whether every character is real.
    fn is_real(&self) -> bool {
        (0..2).all(|a| (2 * self.momentum[a]).is_multiple_of(self.extent[a]))
    }
}

/// The matrix, row by row, on the orbits that carry a state.
struct Reduced<T> {
    group: Group,
    /// Least configurations, ascending.
    least: Vec<u32>,
    /// Sizes of stabilisers.
    weight: Vec<f64>,
    diagonal: Vec<f64>,
    ends: Vec<usize>,
    columns: Vec<u32>,
    elements: Vec<T>,
}

impl<T: Amplitude> Reduced<T> {
    fn new(matrix: &SectorMatrix<T>, basis: &Basis, group: Group) -> Reduced<T> {
        let found: Vec<(u32, f64)> = (0..basis.dim())
            .into_par_iter()
            .filter_map(|k| {
                let s = basis.state(k);
                if group.canonical(s).0 != s {
                    return None;
                }
                let weight = group.stabiliser(s);
                (weight > 0.0).then_some((s, weight))
            })
            .collect();
        let (least, weight): (Vec<u32>, Vec<f64>) = found.into_iter().unzip();
        let rows: Vec<Vec<(u32, T)>> = (0..least.len())
            .into_par_iter()
            .map(|row| {
                let mut entries = Vec::new();
                matrix.connected(least[row], &mut |target, element| {
                    let (a, character) = group.canonical(target);
                    // an orbit without a state receives nothing
                    if let Ok(column) = least.binary_search(&a) {
                        let factor = character.conj() * (weight[column] / weight[row]).sqrt();
                        entries.push((column as u32, element * T::from_complex(factor)));
                    }
                });
                entries
            })
            .collect();
        let mut reduced = Reduced {
            diagonal: least
                .iter()
                .map(|&s| matrix.diagonal_of(basis.index(s).0))
                .collect(),
            group,
            least,
            weight,
            ends: Vec::with_capacity(rows.len()),
            columns: Vec::new(),
            elements: Vec::new(),
        };
        for row in rows {
            for (column, element) in row {
                reduced.columns.push(column);
                reduced.elements.push(element);
            }
            reduced.ends.push(reduced.columns.len());
        }
        reduced
    }

    fn apply(&self, x: &[T], y: &mut [T]) {
        y.par_iter_mut().enumerate().for_each(|(row, y)| {
            let start = row.checked_sub(1).map_or(0, |r| self.ends[r]);
            let range = start..self.ends[row];
            *y = x[row] * self.diagonal[row];
            for (&column, &element) in self.columns[range.clone()]
                .iter()
                .zip(&self.elements[range])
            {
                *y += element * x[column as usize];
            }
        });
    }

    /// Amplitudes on the basis of the sector without momentum.
    fn expand(&self, x: &[T], basis: &Basis) -> Vec<T> {
        // (|s> + p |-s>) / sqrt 2 holds two equal contributions
        let pair = if basis.parity().is_some() { 2.0 } else { 1.0 };
        (0..basis.dim())
            .into_par_iter()
            .map(|k| {
                let (a, character) = self.group.canonical(basis.state(k));
                match self.least.binary_search(&a) {
                    Ok(row) => {
                        let size = (pair * self.weight[row] / self.group.order()).sqrt();
                        x[row] * T::from_complex(character.conj() * size)
                    }
                    Err(_) => T::default(),
                }
            })
            .collect()
    }
}

/// The lowest states of momentum `2 pi m / L` per axis in a sector.
///
/// # Errors
/// Lattices with edges, momenta that do not exist, operators that are not
/// translation invariant.
pub(super) fn solve(
    operator: &Operator,
    basis: Basis,
    momentum: [usize; 2],
    options: &Options,
) -> Result<Spectrum, EdError> {
    let lattice = operator.lattice();
    let exists = (0..2).all(|a| momentum[a] < lattice.extent[a]);
    if lattice.boundary == Boundary::Open || !exists || !operator.commutes_with_translations() {
        return Err(EdError::Momentum { momentum });
    }
    let group = Group::new(lattice, momentum, basis.parity());
    if operator.is_real() && group.is_real() {
        solve_as::<f64>(operator, basis, group, options, State::Real)
    } else {
        solve_as::<Complex64>(operator, basis, group, options, State::Complex)
    }
}

fn solve_as<T: Amplitude>(
    operator: &Operator,
    basis: Basis,
    group: Group,
    options: &Options,
    wrap: fn(Vec<T>) -> State,
) -> Result<Spectrum, EdError> {
    let matrix = SectorMatrix::<T>::new(operator, &basis);
    let scale = matrix.largest_coefficient();
    let reduced = Reduced::new(&matrix, &basis, group);
    let dim = reduced.least.len();
    let pairs =
        lanczos::Lanczos::new::<T>(options, dim, scale).run::<T>(dim, &|x, y| reduced.apply(x, y));
    let expand = |x: Vec<T>| wrap(reduced.expand(&x, &basis));
    Ok(Spectrum {
        energies: pairs.values,
        residuals: pairs.residuals,
        states: pairs.vectors.into_iter().map(expand).collect(),
        steps: pairs.steps,
        converged: pairs.converged,
        dim,
        basis,
    })
}
