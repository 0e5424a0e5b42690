//! Observables that are diagonal in the Z basis, from samples of `|psi|^2`:
//! correlations, structure factor, moments of the magnetisation.
//!
//! Every mean comes with its standard error; where the basis was summed
//! exactly, errors are zero.

use super::estimator::summary;
use super::sampler::Samples;
use super::stats::Summary;
use crate::ir::{Boundary, Lattice};
use num_complex::Complex64;
use rayon::prelude::*;
use serde::Serialize;
use std::f64::consts::TAU;

/// A mean with its standard error and the health of the chains behind it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Sample mean.
    pub mean: f64,
    /// Standard error.
    pub error: f64,
    /// Split R-hat; NaN where undefined.
    pub r_hat: f64,
    /// Integrated autocorrelation time in samples.
    pub tau: f64,
}

impl From<Summary> for Estimate {
    /// The real part.
    fn from(s: Summary) -> Estimate {
        Estimate {
            mean: s.mean.re,
            error: s.error,
            r_hat: s.r_hat,
            tau: s.tau,
        }
    }
}

/// The estimate of a real function of configurations.
fn estimate(samples: &Samples, f: impl Fn(&[i8]) -> f64 + Sync) -> Estimate {
    summary(samples, &values(samples, f)).into()
}

fn values(samples: &Samples, f: impl Fn(&[i8]) -> f64 + Sync) -> Vec<Complex64> {
    (0..samples.len())
        .into_par_iter()
        .map(|i| f(samples.get(i)).into())
        .collect()
}

/// `C(d) = <Z_i Z_{i+d}>` averaged over the sites i for which i + d exists.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Correlation {
    /// The displacement along each axis.
    pub displacement: [usize; 2],
    /// The correlator.
    #[serde(flatten)]
    pub value: Estimate,
}

/// Correlators at all displacements with non-negative components: up to half
/// the extent around a ring or torus, to the far end otherwise. On a square
/// lattice (dx, dy) and (dx, -dy) are averaged.
pub fn correlations(samples: &Samples, lattice: Lattice) -> Vec<Correlation> {
    let reach = lattice.extent.map(|l| match lattice.boundary {
        Boundary::Periodic => l / 2,
        Boundary::Open => l - 1,
    });
    let mut all = Vec::new();
    for dx in 0..=reach[0] {
        for dy in 0..=reach[1] {
            let mut pairs = partners(lattice, [dx, dy]);
            if dx > 0 && dy > 0 {
                pairs.extend(partners(lattice, [dx, dy]).into_iter().map(|(i, j)| {
                    // exchange the columns of both ends: (dx, dy) -> (dx, -dy)
                    let ly = lattice.extent[1];
                    (i - i % ly + j % ly, j - j % ly + i % ly)
                }));
            }
            let value = estimate(samples, |s| {
                let sum: i32 = pairs.iter().map(|&(i, j)| i32::from(s[i] * s[j])).sum();
                f64::from(sum) / pairs.len() as f64
            });
            all.push(Correlation {
                displacement: [dx, dy],
                value,
            });
        }
    }
    all
}

/// The pairs of sites (i, i + d).
fn partners(lattice: Lattice, d: [usize; 2]) -> Vec<(usize, usize)> {
    let [lx, ly] = lattice.extent;
    let mut pairs = Vec::new();
    for x in 0..lx {
        for y in 0..ly {
            let (tx, ty) = (x + d[0], y + d[1]);
            let inside = tx < lx && ty < ly;
            if inside || lattice.boundary == Boundary::Periodic {
                pairs.push((x * ly + y, tx % lx * ly + ty % ly));
            }
        }
    }
    pairs
}

/// `S(k) = <|sum_j exp(i k r_j) Z_j|^2> / N`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StructureFactor {
    /// The momentum in radians per lattice constant.
    pub k: [f64; 2],
    /// The structure factor.
    #[serde(flatten)]
    pub value: Estimate,
}

/// The structure factor at `k = 2 pi m / L`, one of each k and -k.
pub fn structure_factor(samples: &Samples, lattice: Lattice) -> Vec<StructureFactor> {
    let [lx, ly] = lattice.extent;
    let n = lattice.sites() as f64;
    let mut all = Vec::new();
    for mx in 0..=lx / 2 {
        for my in 0..ly {
            // on the lines that -k maps to themselves, half of the momenta
            let own_line = (2 * mx).is_multiple_of(lx);
            if own_line && my > ly / 2 {
                continue;
            }
            let phases: Vec<Complex64> = (0..lx * ly)
                .map(|j| {
                    // exact multiples of the lattice period are removed first
                    let turns = (j / ly * mx % lx) as f64 / lx as f64
                        + (j % ly * my % ly) as f64 / ly as f64;
                    Complex64::cis(TAU * turns)
                })
                .collect();
            let value = estimate(samples, |s| {
                let sum: Complex64 = phases.iter().zip(s).map(|(p, &s)| p * f64::from(s)).sum();
                sum.norm_sqr() / n
            });
            let k = [
                TAU * mx as f64 / lx as f64,
                // in (-pi, pi]
                TAU * (if 2 * my > ly {
                    my as f64 - ly as f64
                } else {
                    my as f64
                }) / ly as f64,
            ];
            all.push(StructureFactor { k, value });
        }
    }
    all
}

/// Moments of an order parameter per spin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OrderParameter {
    /// `<m>`
    pub m: Estimate,
    /// `<|m|>`
    pub abs: Estimate,
    /// `<m^2>`
    pub m2: Estimate,
    /// `<m^4>`
    pub m4: Estimate,
    /// Binder cumulant `1 - <m^4> / (3 <m^2>^2)`: 2/3 in order, 0 in disorder.
    pub binder: f64,
    /// Its standard error by the jackknife over chains (or blocks).
    pub binder_error: f64,
}

/// Moments of `m = (1/N) sum_j sign(j) Z_j`.
pub fn order_parameter(samples: &Samples, sign: impl Fn(usize) -> i32 + Sync) -> OrderParameter {
    let signs: Vec<i32> = (0..samples.sites).map(&sign).collect();
    let m = |s: &[i8]| {
        let sum: i32 = s
            .iter()
            .zip(&signs)
            .map(|(&s, sign)| i32::from(s) * sign)
            .sum();
        f64::from(sum) / samples.sites as f64
    };
    let second = values(samples, |s| m(s).powi(2));
    let fourth = values(samples, |s| m(s).powi(4));
    let (binder, binder_error) = binder(samples, &second, &fourth);
    OrderParameter {
        m: estimate(samples, m),
        abs: estimate(samples, |s| m(s).abs()),
        m2: summary(samples, &second).into(),
        m4: summary(samples, &fourth).into(),
        binder,
        binder_error,
    }
}

/// Blocks of the jackknife where there are fewer chains.
const BLOCKS: usize = 32;

/// The Binder cumulant and its jackknife error.
fn binder(samples: &Samples, second: &[Complex64], fourth: &[Complex64]) -> (f64, f64) {
    let cumulant = |m2: f64, m4: f64| 1.0 - m4 / (3.0 * m2 * m2);
    let total = |values: &[Complex64]| -> f64 {
        (0..values.len())
            .map(|i| values[i].re * samples.weight(i))
            .sum()
    };
    let value = cumulant(total(second), total(fourth));
    if samples.weights.is_some() {
        return (value, 0.0);
    }
    let n = samples.len();
    let block = if n / samples.per_chain >= BLOCKS {
        samples.per_chain
    } else {
        n.div_ceil(BLOCKS)
    };
    let sum = |values: &[Complex64]| values.iter().map(|v| v.re).sum::<f64>();
    let (all2, all4) = (sum(second), sum(fourth));
    let without: Vec<f64> = second
        .chunks(block)
        .zip(fourth.chunks(block))
        .map(|(two, four)| {
            let rest = (n - two.len()) as f64;
            cumulant((all2 - sum(two)) / rest, (all4 - sum(four)) / rest)
        })
        .collect();
    let count = without.len() as f64;
    let mean = without.iter().sum::<f64>() / count;
    let scatter: f64 = without.iter().map(|v| (v - mean).powi(2)).sum();
    (value, ((count - 1.0) / count * scatter).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All configurations with weights.
    fn weighted(sites: usize, weight: impl Fn(&[i8]) -> f64) -> Samples {
        let spins: Vec<i8> = (0..1usize << sites)
            .flat_map(|k| (0..sites).map(move |j| if k >> j & 1 == 0 { 1 } else { -1 }))
            .collect();
        let weights: Vec<f64> = spins.chunks(sites).map(weight).collect();
        let norm: f64 = weights.iter().sum();
        Samples {
            sites,
            per_chain: 1,
            spins,
            weights: Some(weights.iter().map(|w| w / norm).collect()),
        }
    }

    #[test]
    fn the_classical_ising_ring_has_its_textbook_correlations() {
        let (n, coupling) = (10usize, 0.4f64);
        let samples = weighted(n, |s| {
            let bonds: i32 = (0..n).map(|j| i32::from(s[j] * s[(j + 1) % n])).sum();
            (coupling * f64::from(bonds)).exp()
        });
        // transfer matrix: C(r) = (t^r + t^(N-r)) / (1 + t^N)
        let t = coupling.tanh();
        let exact =
            |r: usize| (t.powi(r as i32) + t.powi((n - r) as i32)) / (1.0 + t.powi(n as i32));
        let ring = Lattice::chain(n, Boundary::Periodic);
        let c = correlations(&samples, ring);
        assert_eq!(c.len(), n / 2 + 1);
        for c in &c {
            let r = c.displacement[0];
            assert!((c.value.mean - exact(r)).abs() < 1e-12 && c.value.error == 0.0);
        }
        // S(k) = sum_r C(r) cos(k r), and S(0) = N <m^2>
        let factors = structure_factor(&samples, ring);
        assert_eq!(factors.len(), n / 2 + 1);
        for f in &factors {
            let sum: f64 = (0..n).map(|r| exact(r) * (f.k[0] * r as f64).cos()).sum();
            assert!((f.value.mean - sum).abs() < 1e-12);
        }
        let m = order_parameter(&samples, |_| 1);
        assert!((factors[0].value.mean - n as f64 * m.m2.mean).abs() < 1e-12);
        assert!(m.m.mean.abs() < 1e-12);
        let staggered = order_parameter(&samples, |j| 1 - 2 * (j as i32 % 2));
        assert!((factors[n / 2].value.mean - n as f64 * staggered.m2.mean).abs() < 1e-12);
    }

    #[test]
    fn open_and_square_lattices_count_their_pairs() {
        // independent spins with <Z_j> = p_j: C = mean of p_i p_j over the pairs
        let p = |j: usize| 0.1 * j as f64 - 0.3;
        let samples = weighted(6, |s| {
            (0..6).map(|j| 1.0 + p(j) * f64::from(s[j])).product()
        });
        for boundary in [Boundary::Open, Boundary::Periodic] {
            for extent in [[6, 1], [2, 3], [3, 2]] {
                let lattice = Lattice { extent, boundary };
                for c in correlations(&samples, lattice) {
                    let [dx, dy] = c.displacement.map(|d| d as i64);
                    let (mut sum, mut count) = (0.0, 0.0);
                    for i in 0..6 {
                        for signed in [[dx, dy], [dx, -dy]] {
                            let at = [i / extent[1], i % extent[1]];
                            let to = [0, 1].map(|a| at[a] as i64 + signed[a]);
                            let inside = (0..2).all(|a| (0..extent[a] as i64).contains(&to[a]));
                            if inside || boundary == Boundary::Periodic {
                                let [x, y] =
                                    [0, 1].map(|a| to[a].rem_euclid(extent[a] as i64) as usize);
                                let j = x * extent[1] + y;
                                sum += if i == j { 1.0 } else { p(i) * p(j) };
                                count += 1.0;
                            }
                        }
                    }
                    let what = format!("{lattice:?} {:?}", c.displacement);
                    assert!((c.value.mean - sum / count).abs() < 1e-12, "{what}");
                }
                // the sum rule: S summed over all k is N
                let total: f64 = structure_factor(&samples, lattice)
                    .iter()
                    .map(|f| {
                        let own = (0..2).all(|a| {
                            let turns = f.k[a] / std::f64::consts::PI;
                            (turns - turns.round()).abs() < 1e-9
                        });
                        f.value.mean * if own { 1.0 } else { 2.0 }
                    })
                    .sum();
                assert!((total - 6.0).abs() < 1e-10, "{lattice:?}: {total}");
            }
        }
    }

    #[test]
    fn the_binder_cumulant_of_independent_samples_is_within_its_error() {
        use crate::vmc::rng::{ChainRng, Stream};
        // independent spins: <m^2> = 1/N, <m^4> = (3 N - 2) / N^3, U = 2 / (3 N)
        let (sites, per_chain) = (8, 64);
        for chains in [4, 64] {
            let mut spins = Vec::new();
            for chain in 0..chains * 32 {
                let mut rng = ChainRng::new(5, chain, 0, Stream::Init);
                spins.extend(
                    (0..sites * per_chain / 32).map(|_| if rng.bits() & 1 == 0 { 1i8 } else { -1 }),
                );
            }
            let samples = Samples {
                sites,
                per_chain,
                spins,
                weights: None,
            };
            let m = order_parameter(&samples, |_| 1);
            let (deviation, error) = (m.binder - 2.0 / 24.0, m.binder_error);
            assert!(error > 0.0 && error < 0.2, "{error}");
            assert!(deviation.abs() < 4.0 * error, "{deviation} +- {error}");
            assert!((m.m2.mean - 0.125).abs() < 4.0 * m.m2.error);
        }
    }
}
