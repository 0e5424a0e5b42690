//! Dense test wave functions written out by hand.

use dnet::ir::{Boundary, Lattice};
use dnet::run::{Background, Spins, WaveFunction};
use dnet::vmc::estimator::LocalOperator;
use dnet::vmc::rng::{ChainRng, Stream};
use dnet::vmc::sampler::ScreenBound;
use num_complex::Complex64;

/// A restricted Boltzmann machine on a ring,
/// `log psi = sum_j a_j s_j + sum_h log cosh(b_h + sum_j W_hj s_j)`.
/// Parameters `a, b, W` (row major), then their imaginary parts if complex.
pub struct Rbm {
    sites: usize,
    hidden: usize,
    complex: bool,
    /// Whether `sweep` is offered.
    pub sweeps: bool,
    theta: Vec<f64>,
}

fn log_cosh(z: Complex64) -> Complex64 {
    let z = if z.re < 0.0 { -z } else { z };
    z + (Complex64::new(1.0, 0.0) + (-2.0 * z).exp()).ln() - std::f64::consts::LN_2
}

impl Rbm {
    /// Normal parameters of standard deviation `scale / sqrt(sites)`.
    pub fn random(sites: usize, hidden: usize, complex: bool, scale: f64, seed: u64) -> Rbm {
        let count = (sites + hidden + sites * hidden) * if complex { 2 } else { 1 };
        let mut rng = ChainRng::new(seed, 0, 0, Stream::Parameters);
        let sigma = scale / (sites as f64).sqrt();
        let theta = (0..count).map(|_| sigma * rng.normal()).collect();
        Rbm {
            sites,
            hidden,
            complex,
            sweeps: false,
            theta,
        }
    }

    /// A real one with a hidden unit per site that sees the sites at distance
    /// one and less; normal parameters of standard deviation `scale`.
    pub fn local(sites: usize, scale: f64, seed: u64) -> Rbm {
        let mut rbm = Rbm::random(sites, sites, false, scale * (sites as f64).sqrt(), seed);
        for h in 0..sites {
            for j in (0..sites).filter(|j| {
                !matches!((j + sites - h) % sites, 0 | 1) && (h + sites - j) % sites != 1
            }) {
                rbm.theta[2 * sites + h * sites + j] = 0.0;
            }
        }
        rbm
    }

    fn parameter(&self, k: usize) -> Complex64 {
        let half = self.sites + self.hidden + self.sites * self.hidden;
        Complex64::new(
            self.theta[k],
            if self.complex {
                self.theta[half + k]
            } else {
                0.0
            },
        )
    }
    fn a(&self, j: usize) -> Complex64 {
        self.parameter(j)
    }
    fn w(&self, h: usize, j: usize) -> Complex64 {
        self.parameter(self.sites + self.hidden + h * self.sites + j)
    }
    fn angles(&self, spins: &Spins) -> Vec<Complex64> {
        (0..self.hidden)
            .map(|h| {
                let sum: Complex64 = spins
                    .iter()
                    .enumerate()
                    .map(|(j, &s)| self.w(h, j) * f64::from(s))
                    .sum();
                self.parameter(self.sites + h) + sum
            })
            .collect()
    }
    fn evaluate(&self, spins: &Spins) -> Complex64 {
        let linear: Complex64 = spins
            .iter()
            .enumerate()
            .map(|(j, &s)| self.a(j) * f64::from(s))
            .sum();
        linear
            + self
                .angles(spins)
                .into_iter()
                .map(log_cosh)
                .sum::<Complex64>()
    }
}

impl WaveFunction for Rbm {
    fn lattice(&self) -> Lattice {
        Lattice::chain(self.sites, Boundary::Periodic)
    }
    fn param_count(&self) -> usize {
        self.theta.len()
    }
    fn is_complex(&self) -> bool {
        self.complex
    }
    fn set_params(&mut self, theta: &[f64]) {
        self.theta.copy_from_slice(theta);
    }
    fn params(&self) -> &[f64] {
        &self.theta
    }
    fn log_psi(&self, batch: &Spins, out: &mut [Complex64]) {
        for (spins, out) in batch.chunks(self.sites).zip(out) {
            *out = self.evaluate(spins);
        }
    }
    fn gradients(&self, batch: &Spins, row: &(dyn Fn(usize, &[f64], &[f64]) + Sync)) {
        for (sample, spins) in batch.chunks(self.sites).enumerate() {
            let tanh: Vec<Complex64> = self.angles(spins).iter().map(|z| z.tanh()).collect();
            let mut o: Vec<Complex64> = spins.iter().map(|&s| f64::from(s).into()).collect();
            o.extend(&tanh);
            o.extend(
                tanh.iter()
                    .flat_map(|t| spins.iter().map(move |&s| t * f64::from(s))),
            );
            if self.complex {
                let rotated: Vec<Complex64> = o.iter().map(|z| z * Complex64::i()).collect();
                o.extend(rotated);
            }
            let re: Vec<f64> = o.iter().map(|z| z.re).collect();
            let im: Vec<f64> = if self.complex {
                o.iter().map(|z| z.im).collect()
            } else {
                Vec::new()
            };
            row(sample, &re, &im);
        }
    }
    fn background<'a>(&'a self, spins: &Spins) -> Box<dyn Background + 'a> {
        Box::new(RbmBackground {
            rbm: self,
            angles: self.angles(spins),
            spins: spins.to_vec(),
        })
    }
    fn sweep(
        &self,
        spins: &mut Spins,
        reverse: bool,
        decide: &mut dyn FnMut(usize, Complex64) -> bool,
    ) -> Option<()> {
        if !self.sweeps {
            return None;
        }
        let mut angles = self.angles(spins);
        for k in 0..self.sites {
            let j = if reverse { self.sites - 1 - k } else { k };
            let step = |h: usize| -2.0 * f64::from(spins[j]) * self.w(h, j);
            let change: Complex64 = angles
                .iter()
                .enumerate()
                .map(|(h, z)| log_cosh(z + step(h)) - log_cosh(*z))
                .sum();
            if decide(j, change - 2.0 * f64::from(spins[j]) * self.a(j)) {
                for (h, z) in angles.iter_mut().enumerate() {
                    *z += step(h);
                }
                spins[j] = -spins[j];
            }
        }
        Some(())
    }
}

struct RbmBackground<'a> {
    rbm: &'a Rbm,
    angles: Vec<Complex64>,
    spins: Vec<i8>,
}

impl RbmBackground<'_> {
    fn shift(&self, h: usize, flips: &[usize]) -> Complex64 {
        flips
            .iter()
            .map(|&j| -2.0 * f64::from(self.spins[j]) * self.rbm.w(h, j))
            .sum()
    }
}

impl Background for RbmBackground<'_> {
    fn log_psi(&self) -> Complex64 {
        self.rbm.evaluate(&self.spins)
    }
    fn log_ratio(&mut self, flips: &[usize]) -> Complex64 {
        let linear: Complex64 = flips
            .iter()
            .map(|&j| -2.0 * f64::from(self.spins[j]) * self.rbm.a(j))
            .sum();
        let hidden: Complex64 = self
            .angles
            .iter()
            .enumerate()
            .map(|(h, z)| log_cosh(z + self.shift(h, flips)) - log_cosh(*z))
            .sum();
        linear + hidden
    }
    fn accept(&mut self, flips: &[usize]) {
        for h in 0..self.angles.len() {
            let shift = self.shift(h, flips);
            self.angles[h] += shift;
        }
        for &j in flips {
            self.spins[j] = -self.spins[j];
        }
    }
}

/// For real RBMs: the missing mixed difference of `log cosh` over shifts x and
/// y is at most `min(2 |x|, 2 |y|, |x y|)`, its derivatives being below one.
pub struct RbmBound<'a>(pub &'a Rbm);

impl ScreenBound for RbmBound<'_> {
    fn log_error(&self, accepted: &[usize], site: usize) -> f64 {
        let missing: f64 = (0..self.0.hidden)
            .map(|h| {
                let x: f64 = accepted
                    .iter()
                    .map(|&f| 2.0 * self.0.w(h, f).re.abs())
                    .sum();
                let y = 2.0 * self.0.w(h, site).re.abs();
                (2.0 * x).min(2.0 * y).min(x * y)
            })
            .sum();
        missing + 1e-12
    }
}

/// `-J sum Z_i Z_{i+1} - h sum X_i + y sum Y_i` on a ring.
pub struct Ising {
    pub j: f64,
    pub h: f64,
    pub y: f64,
}

impl LocalOperator for Ising {
    fn diagonal(&self, spins: &Spins) -> f64 {
        let n = spins.len();
        -self.j
            * (0..n)
                .map(|i| f64::from(spins[i] * spins[(i + 1) % n]))
                .sum::<f64>()
    }
    fn connected(&self, spins: &Spins, term: &mut dyn FnMut(&[usize], Complex64)) {
        for (i, &s) in spins.iter().enumerate() {
            // <s|Y|-s> = -i s.
            term(&[i], Complex64::new(-self.h, -self.y * f64::from(s)));
        }
    }
}
