//! Translation-invariant couplings `sum_{i<j} J(r_j - r_i) Z_i Z_j`.
//!
//! Only `J` per displacement is stored. The energy is `1/2 sum_d J(d) C(d)`
//! with the autocorrelation `C(d) = sum_i s_i s_{i+d}`: term by term where few
//! displacements couple, and otherwise in momentum space,
//! `sum_d J(d) C(d) = (1/P) sum_k J(k) |s(k)|^2`, on a zero-padded torus of P
//! points where the lattice is open.

use crate::ir::{Boundary, Lattice};
use crate::run::Spins;
use crate::run::changes::Pairs;
use realfft::{RealFftPlanner, RealToComplex};
use rustfft::{Fft, FftPlanner, num_complex::Complex64};
use std::fmt;
use std::sync::Arc;

/// Couplings `J(d)` of a lattice, kept per displacement.
#[derive(Clone)]
pub struct PairCoupling {
    lattice: Lattice,
    /// Extents of the torus the displacements live on.
    torus: [usize; 2],
    /// `J` per displacement of the torus, row major, symmetric, zero at 0.
    table: Vec<f64>,
    /// One of each +-d with its coupling (halved where d = -d on the torus).
    half: Vec<([usize; 2], f64)>,
    spectrum: Option<Spectrum>,
}

/// What the momentum-space evaluation needs.
#[derive(Clone)]
struct Spectrum {
    /// `J(k) / 2P`, times 2 where one of +-k stands for both.
    weight: Vec<f64>,
    plan: Plan,
}

#[derive(Clone)]
enum Plan {
    /// One axis: half of the momenta suffice.
    Line(Arc<dyn RealToComplex<f64>>),
    /// Two axes: rows, then columns.
    Plane {
        rows: Arc<dyn Fft<f64>>,
        columns: Arc<dyn Fft<f64>>,
    },
}

impl fmt::Debug for PairCoupling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairCoupling")
            .field("lattice", &self.lattice)
            .field("couplings", &self.half)
            .field("momentum_space", &self.spectrum.is_some())
            .finish()
    }
}

/// The torus on which the displacements of a lattice do not alias.
fn torus_of(lattice: Lattice) -> [usize; 2] {
    lattice.extent.map(|l| match lattice.boundary {
        Boundary::Periodic => l,
        Boundary::Open if l == 1 => 1,
        Boundary::Open => {
            // 2^a or 3 * 2^a: the next length with a fast transform
            let power = (2 * l - 1).next_power_of_two();
            if power / 4 * 3 >= 2 * l - 1 {
                power / 4 * 3
            } else {
                power
            }
        }
    })
}

/// The couplings under construction.
#[derive(Clone, Debug)]
pub(super) struct PairTable {
    lattice: Lattice,
    torus: [usize; 2],
    table: Vec<f64>,
    touched: bool,
}

impl PairTable {
    pub(super) fn new(lattice: Lattice) -> PairTable {
        PairTable {
            lattice,
            torus: torus_of(lattice),
            table: Vec::new(),
            touched: false,
        }
    }

    fn index(&self, d: [i64; 2]) -> usize {
        let [x, y] = [0, 1].map(|a| d[a].rem_euclid(self.torus[a] as i64) as usize);
        x * self.torus[1] + y
    }

    /// Adds `J Z_i Z_{i+d}` for every site i with i + d on the lattice.
    /// Returns false, adding nothing, where d connects a site with itself.
    pub(super) fn add(&mut self, d: [i64; 2], coupling: f64) -> bool {
        if self.lattice.boundary == Boundary::Open
            && (0..2).any(|a| d[a].unsigned_abs() as usize >= self.lattice.extent[a])
        {
            return true;
        }
        let (plus, minus) = (self.index(d), self.index([-d[0], -d[1]]));
        if plus == 0 {
            return false;
        }
        if !self.touched {
            self.table = vec![0.0; self.torus[0] * self.torus[1]];
            self.touched = true;
        }
        self.table[plus] += coupling;
        self.table[minus] += coupling;
        true
    }

    pub(super) fn finish(self) -> Option<PairCoupling> {
        if self.table.iter().all(|&j| j == 0.0) {
            return None;
        }
        Some(PairCoupling::new(self.lattice, self.torus, self.table))
    }
}

impl PairCoupling {
    fn new(lattice: Lattice, torus: [usize; 2], table: Vec<f64>) -> PairCoupling {
        let [px, py] = torus;
        let mut half = Vec::new();
        for x in 0..px {
            for y in 0..py {
                let (d, minus) = (x * py + y, (px - x) % px * py + (py - y) % py);
                if d <= minus && table[d] != 0.0 {
                    half.push(([x, y], if d == minus { table[d] / 2.0 } else { table[d] }));
                }
            }
        }
        let points = px * py;
        // a direct sum costs N per displacement, a transform about 6 log2 P per point
        let direct = half.len() <= 6 * (usize::BITS - points.leading_zeros()) as usize;
        let spectrum = (!direct).then(|| Spectrum::new(torus, &table));
        PairCoupling {
            lattice,
            torus,
            table,
            half,
            spectrum,
        }
    }

    /// One of each +-d with its coupling, halved where d = -d.
    pub fn by_displacement(&self) -> Pairs {
        Pairs {
            extent: self.lattice.extent,
            torus: self.torus,
            couplings: self.half.clone(),
        }
    }

    /// The coupling between two different sites.
    pub fn between(&self, i: usize, j: usize) -> f64 {
        let ly = self.lattice.extent[1];
        let [dx, dy] = [
            (j / ly, i / ly, self.torus[0]),
            (j % ly, i % ly, self.torus[1]),
        ]
        .map(|(to, from, period)| (to + period - from) % period);
        self.table[dx * self.torus[1] + dy]
    }

    /// Number of coupled pairs `i < j`.
    pub fn pair_count(&self) -> usize {
        let total: usize = self.half.iter().map(|&(d, _)| self.partners(d)).sum();
        total
            - self
                .half
                .iter()
                .filter(|&&(d, _)| self.own_inverse(d))
                .map(|&(d, _)| self.partners(d) / 2)
                .sum::<usize>()
    }

    /// Number of sites i for which `i + d` is on the lattice.
    fn partners(&self, d: [usize; 2]) -> usize {
        match self.lattice.boundary {
            Boundary::Periodic => self.lattice.sites(),
            Boundary::Open => (0..2)
                .map(|a| {
                    self.lattice.extent[a]
                        - d[a].min(self.torus[a] - d[a]).min(self.lattice.extent[a])
                })
                .product(),
        }
    }

    fn own_inverse(&self, d: [usize; 2]) -> bool {
        (0..2).all(|a| (2 * d[a]).is_multiple_of(self.torus[a]))
    }

    /// Number of different displacements (+-d counted once) that couple.
    pub fn displacement_count(&self) -> usize {
        self.half.len()
    }

    /// Whether energies are evaluated in momentum space.
    pub fn momentum_space(&self) -> bool {
        self.spectrum.is_some()
    }

    /// `sum_{i<j} J(r_j - r_i) s_i s_j`; `O(N)` per coupled displacement or
    /// `O(N log N)`, whichever is less.
    pub fn energy(&self, spins: &Spins) -> f64 {
        match &self.spectrum {
            Some(spectrum) => spectrum.energy(self.lattice, self.torus, spins),
            None => self
                .half
                .iter()
                .map(|&(d, j)| j * self.autocorrelation(d, spins) as f64)
                .sum(),
        }
    }

    /// `C(d) = sum_i s_i s_{i+d}` over the sites i with i + d on the lattice.
    fn autocorrelation(&self, d: [usize; 2], spins: &Spins) -> i64 {
        let [lx, ly] = self.lattice.extent;
        let dot = |a: &[i8], b: &[i8]| {
            a.iter()
                .zip(b)
                .map(|(&s, &t)| i64::from(s * t))
                .sum::<i64>()
        };
        // a shifted row overlaps the other in one stretch, or two on a torus
        let overlaps = |l: usize, p: usize, d: usize| -> [(usize, usize, usize); 2] {
            if l == p {
                [(0, d, l - d), (l - d, 0, d)]
            } else if d < l {
                [(0, d, l - d), (0, 0, 0)]
            } else {
                // the torus holds -e at p - e
                let e = p - d;
                [(e, 0, l.saturating_sub(e)), (0, 0, 0)]
            }
        };
        let mut total = 0;
        for (x, to_x, nx) in overlaps(lx, self.torus[0], d[0]) {
            for (y, to_y, ny) in overlaps(ly, self.torus[1], d[1]) {
                if ny == ly {
                    total += dot(
                        &spins[x * ly..(x + nx) * ly],
                        &spins[to_x * ly..(to_x + nx) * ly],
                    );
                } else {
                    for k in 0..nx {
                        let (a, b) = ((x + k) * ly + y, (to_x + k) * ly + to_y);
                        total += dot(&spins[a..a + ny], &spins[b..b + ny]);
                    }
                }
            }
        }
        total
    }

    /// The field `sum_{j != i} J(r_j - r_i) s_j` at one site.
    pub fn field(&self, spins: &Spins, site: usize) -> f64 {
        let ly = self.lattice.extent[1];
        if self.half.len() * 2 < spins.len() {
            let mut field = 0.0;
            for &([dx, dy], j) in &self.half {
                let minus = [
                    (self.torus[0] - dx) % self.torus[0],
                    (self.torus[1] - dy) % self.torus[1],
                ];
                for d in [[dx, dy], minus] {
                    field += j * self.target(site, d).map_or(0.0, |t| f64::from(spins[t]));
                }
            }
            return field;
        }
        let [x, y] = [site / ly, site % ly];
        let mut field = 0.0;
        for (row, spins) in spins.chunks_exact(ly).enumerate() {
            let dx = (row + self.torus[0] - x) % self.torus[0];
            let couplings = &self.table[dx * self.torus[1]..(dx + 1) * self.torus[1]];
            for (column, &s) in spins.iter().enumerate() {
                field += couplings[(column + self.torus[1] - y) % self.torus[1]] * f64::from(s);
            }
        }
        field
    }

    /// The site at displacement d of `site`, if on the lattice.
    fn target(&self, site: usize, d: [usize; 2]) -> Option<usize> {
        let [lx, ly] = self.lattice.extent;
        let x = (site / ly + d[0]) % self.torus[0];
        let y = (site % ly + d[1]) % self.torus[1];
        (x < lx && y < ly).then_some(x * ly + y)
    }
}

impl Spectrum {
    fn new(torus: [usize; 2], table: &[f64]) -> Spectrum {
        let [px, py] = torus;
        let scale = 0.5 / (px * py) as f64;
        if py == 1 {
            let plan = RealFftPlanner::<f64>::new().plan_fft_forward(px);
            let mut input = table.to_vec();
            let mut output = plan.make_output_vec();
            plan.process(&mut input, &mut output)
                .expect("buffers were made by the plan");
            let weight = output
                .iter()
                .enumerate()
                .map(|(k, j)| j.re * scale * if k == 0 || 2 * k == px { 1.0 } else { 2.0 })
                .collect();
            return Spectrum {
                weight,
                plan: Plan::Line(plan),
            };
        }
        let mut planner = FftPlanner::new();
        let plan = Plan::Plane {
            rows: planner.plan_fft_forward(py),
            columns: planner.plan_fft_forward(px),
        };
        let mut spectrum = Spectrum {
            weight: Vec::new(),
            plan,
        };
        let input = table.iter().map(|&j| Complex64::new(j, 0.0)).collect();
        spectrum.weight = spectrum
            .plane(torus, input)
            .iter()
            .map(|j| j.re * scale)
            .collect();
        spectrum
    }

    /// Two-dimensional transform; the result is transposed (columns contiguous).
    fn plane(&self, [px, py]: [usize; 2], mut values: Vec<Complex64>) -> Vec<Complex64> {
        let Plan::Plane { rows, columns } = &self.plan else {
            return values;
        };
        rows.process(&mut values);
        let mut transposed = vec![Complex64::new(0.0, 0.0); px * py];
        for x in 0..px {
            for y in 0..py {
                transposed[y * px + x] = values[x * py + y];
            }
        }
        columns.process(&mut transposed);
        transposed
    }

    fn energy(&self, lattice: Lattice, torus: [usize; 2], spins: &Spins) -> f64 {
        match &self.plan {
            Plan::Line(plan) => {
                let mut input = plan.make_input_vec();
                for (value, &s) in input.iter_mut().zip(spins) {
                    *value = f64::from(s);
                }
                let mut output = plan.make_output_vec();
                plan.process(&mut input, &mut output)
                    .expect("buffers were made by the plan");
                output
                    .iter()
                    .zip(&self.weight)
                    .map(|(s, w)| w * s.norm_sqr())
                    .sum()
            }
            Plan::Plane { .. } => {
                let mut values = vec![Complex64::new(0.0, 0.0); torus[0] * torus[1]];
                for (row, spins) in spins.chunks_exact(lattice.extent[1]).enumerate() {
                    for (value, &s) in values[row * torus[1]..].iter_mut().zip(spins) {
                        value.re = f64::from(s);
                    }
                }
                self.plane(torus, values)
                    .iter()
                    .zip(&self.weight)
                    .map(|(s, w)| w * s.norm_sqr())
                    .sum()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every shape, boundary and evaluation against the double sum.
    #[test]
    fn energies_and_fields_equal_the_double_sum() {
        for extent in [[7, 1], [64, 1], [201, 1], [3, 4], [16, 15], [24, 31]] {
            for boundary in [Boundary::Periodic, Boundary::Open] {
                for short in [true, false] {
                    check(Lattice { extent, boundary }, short);
                }
            }
        }
    }

    fn check(lattice: Lattice, short: bool) {
        let [lx, ly] = lattice.extent.map(|l| l as i64);
        let mut table = PairTable::new(lattice);
        let mut terms = Vec::new();
        for dx in 0..lx {
            for dy in -ly + 1..ly {
                let r = dx.abs() + dy.abs();
                if r == 0 || short && r > 2 {
                    continue;
                }
                let j = 1.0 / (1 + r * r + dx) as f64;
                assert!(table.add([dx, dy], j));
                terms.push(([dx, dy], j));
            }
        }
        let pairs = table.finish().unwrap();
        assert!(!short || !pairs.momentum_space());
        let n = lattice.sites();
        let spins: Vec<i8> = (0..n)
            .map(|i| if (i * i * 7 + i / 3) % 5 < 2 { 1 } else { -1 })
            .collect();
        let mut dense = vec![0.0; n * n];
        for &([dx, dy], j) in &terms {
            for i in 0..n as i64 {
                let (x, y) = (i / ly + dx, i % ly + dy);
                let inside = (0..lx).contains(&x) && (0..ly).contains(&y);
                if inside || lattice.boundary == Boundary::Periodic {
                    let to = x.rem_euclid(lx) * ly + y.rem_euclid(ly);
                    dense[i as usize * n + to as usize] += j;
                }
            }
        }
        let mut energy = 0.0;
        for i in 0..n {
            let mut field = 0.0;
            for k in (0..n).filter(|&k| k != i) {
                let j = dense[i * n + k] + dense[k * n + i];
                assert!((pairs.between(i, k) - j).abs() < 1e-14);
                field += j * f64::from(spins[k]);
            }
            energy += 0.5 * field * f64::from(spins[i]);
            assert!(
                (pairs.field(&spins, i) - field).abs() < 1e-11,
                "{lattice:?}"
            );
        }
        assert!(
            (pairs.energy(&spins) - energy).abs() < 1e-10 * n as f64,
            "{lattice:?} {short}"
        );
        let count = (0..n)
            .map(|i| (0..i).filter(|&k| pairs.between(i, k) != 0.0).count())
            .sum::<usize>();
        assert_eq!(pairs.pair_count(), count, "{lattice:?} {short}");
    }
}
