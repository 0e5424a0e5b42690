//! Statistics of Markov-chain samples: means, errors, convergence.
//!
//! Values are complex and ordered chain by chain: sample t of chain c is
//! `values[c * per_chain + t]`. Variances are of complex numbers,
//! `<|x - <x>|^2>`.

use crate::run::values::Values;
use num_complex::Complex64;
use realfft::RealFftPlanner;

/// From this many chains on, the error comes from the scatter of chain means.
const MIN_CHAINS: usize = 32;
/// Chains of at least this length have their autocorrelation summed by FFT.
const MIN_FFT_LENGTH: usize = 32;
/// Lags asked for at first.
const FIRST_LAGS: usize = 64;
/// Sokal's window: the sum stops at the first lag beyond this many tau.
const WINDOW: f64 = 5.0;

/// What a sample says about one quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Sample mean.
    pub mean: Complex64,
    /// Standard error of the mean, correlations included.
    pub error: f64,
    /// Variance of the quantity, `<|x - <x>|^2>`.
    pub variance: f64,
    /// Split potential scale reduction (R-hat); NaN for chains shorter than 4, and
    /// where nothing but rounding varies.
    pub r_hat: f64,
    /// Integrated autocorrelation time `sum_{t>0} rho(t)` in samples: 0 for
    /// independent ones; `error^2 = variance (1 + 2 tau) / n`.
    pub tau: f64,
}

impl Summary {
    /// The progress text, e.g. `-12.7853 ± 0.0029 [σ²=8.6e-03, R̂=1.009]`;
    /// the mean is shown to the digits its error supports. R-hat is left out
    /// where it is undefined.
    pub fn text(&self) -> String {
        let digits = if self.error.is_finite() && self.error > 0.0 {
            (1.0 - self.error.log10().floor()).clamp(0.0, 12.0) as usize
        } else {
            8
        };
        let mut mean = format!("{:.*}", digits, self.mean.re);
        if self.mean.im != 0.0 {
            mean.push_str(&format!("{:+.*}i", digits, self.mean.im));
        }
        let error = if self.error.is_finite() {
            format!("{:.*}", digits, self.error)
        } else {
            "nan".into()
        };
        let r_hat = if self.r_hat.is_finite() {
            format!(", R̂={:.3}", self.r_hat)
        } else {
            String::new()
        };
        format!("{mean} ± {error} [σ²={}{r_hat}]", scientific(self.variance))
    }
}

/// Two significant digits and an exponent of at least two, e.g. `8.6e-03`.
fn scientific(x: f64) -> String {
    let text = format!("{x:.1e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(digits) => ('-', digits),
                None => ('+', exponent),
            };
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

fn mean(values: &[Complex64]) -> Complex64 {
    values.iter().sum::<Complex64>() / values.len() as f64
}

/// `sum |x - m|^2`.
fn scatter(values: &[Complex64], m: Complex64) -> f64 {
    values.iter().map(|x| (x - m).norm_sqr()).sum()
}

/// Summarises `values.len() / per_chain` chains of `per_chain` samples each.
///
/// With fewer than 32 chains the error comes from at least 32 blocks of
/// consecutive samples within chains (fewer where there are not enough
/// samples), enlarged by the autocorrelation time where that is longer.
/// An empty slice, or one that is not whole chains, gives NaN everywhere.
pub fn summarize(values: &dyn Values, per_chain: usize) -> Summary {
    let nan = f64::NAN;
    let n = values.count();
    if n == 0 || per_chain == 0 || !n.is_multiple_of(per_chain) {
        return Summary {
            mean: Complex64::new(nan, nan),
            error: nan,
            variance: nan,
            r_hat: nan,
            tau: nan,
        };
    }
    let (m, scatter) = values.moments();
    let variance = scatter / n as f64;
    let chains = n / per_chain;
    let tau = time_of(values, per_chain, m, variance);
    let error = if chains >= MIN_CHAINS {
        block_error(values, per_chain, m)
    } else {
        let block = (1..=per_chain)
            .rev()
            .find(|b| per_chain.is_multiple_of(*b) && n / b >= MIN_CHAINS)
            .unwrap_or(1);
        let integrated = (variance * (1.0 + 2.0 * tau.max(0.0)) / n as f64).sqrt();
        block_error(values, block, m).max(integrated)
    };
    Summary {
        mean: m,
        error,
        variance,
        r_hat: match varies(m, variance) {
            true => split_r_hat(values, per_chain),
            false => nan,
        },
        tau,
    }
}

/// Whether values of this mean and variance differ by more than rounding does, which
/// carries no information.
fn varies(m: Complex64, variance: f64) -> bool {
    variance > 1e-28 * (1.0 + m.norm_sqr())
}

/// The summary of an exactly weighted sum (weights adding up to one): no
/// statistical error.
pub fn summarize_exact(values: &[Complex64], weights: &[f64]) -> Summary {
    let m: Complex64 = values.iter().zip(weights).map(|(x, w)| x * w).sum();
    let variance = values
        .iter()
        .zip(weights)
        .map(|(x, w)| (x - m).norm_sqr() * w)
        .sum();
    Summary {
        mean: m,
        error: 0.0,
        variance,
        r_hat: f64::NAN,
        tau: 0.0,
    }
}

/// Standard error from the scatter of the means of blocks of `block` values.
fn block_error(values: &dyn Values, block: usize, m: Complex64) -> f64 {
    let count = (values.count() / block) as f64;
    (values.scatter_of_blocks(block, m) / (count * (count - 1.0))).sqrt()
}

/// Split R-hat (Gelman et al., Bayesian Data Analysis, Sec. 11.4): each chain
/// is cut in halves, and the variance between halves compared with that
/// within. NaN for fewer than 4 samples per chain or for zero variance within.
pub fn split_r_hat(values: &dyn Values, per_chain: usize) -> f64 {
    let half = per_chain / 2;
    if half < 2 {
        return f64::NAN;
    }
    let [within, between] = values.scatter_of_halves(per_chain);
    let count = (2 * (values.count() / per_chain)) as f64;
    let within = within / (half - 1) as f64 / count;
    let between = between / (count - 1.0);
    let length = half as f64;
    ((length - 1.0) / length + between / within).sqrt()
}

/// Integrated autocorrelation time `sum_{t>0} rho(t)` in samples.
///
/// Long chains: the autocovariance averaged over chains (by FFT), summed up
/// to Sokal's window. Short ones: from the ratio of the variance of chain
/// means to that expected of independent samples. NaN for a single short
/// chain; 0 for a constant.
pub fn autocorrelation_time(values: &dyn Values, per_chain: usize) -> f64 {
    let (m, scatter) = values.moments();
    time_of(values, per_chain, m, scatter / values.count() as f64)
}

fn time_of(values: &dyn Values, per_chain: usize, m: Complex64, variance: f64) -> f64 {
    if !(variance.is_nan() || varies(m, variance)) {
        return 0.0;
    }
    if per_chain < MIN_FFT_LENGTH {
        let chains = values.count() / per_chain;
        if chains < 2 {
            return f64::NAN;
        }
        let between = values.scatter_of_blocks(per_chain, m) / (chains - 1) as f64;
        return (0.5 * (per_chain as f64 * between / variance - 1.0)).max(0.0);
    }
    // the window is short, mostly
    let mut lags = FIRST_LAGS.min(per_chain);
    loop {
        let covariance = values.autocovariance(per_chain, m, lags);
        let mut tau = 0.0;
        for (lag, c) in covariance.iter().enumerate().skip(1) {
            tau += c / covariance[0];
            if lag as f64 >= WINDOW * (tau + 0.5) {
                return tau;
            }
        }
        if covariance.len() >= per_chain {
            return tau;
        }
        lags = (8 * lags).min(per_chain);
    }
}

impl Values for Vec<Complex64> {
    fn count(&self) -> usize {
        self.len()
    }
    fn all(&self) -> Vec<Complex64> {
        self.clone()
    }
    fn moments(&self) -> (Complex64, f64) {
        let m = mean(self);
        (m, scatter(self, m))
    }
    fn scatter_of_blocks(&self, block: usize, about: Complex64) -> f64 {
        let means: Vec<Complex64> = self.chunks_exact(block).map(mean).collect();
        scatter(&means, about)
    }
    fn scatter_of_halves(&self, per_chain: usize) -> [f64; 2] {
        let half = per_chain / 2;
        let (mut means, mut within) = (Vec::new(), 0.0);
        for chain in self.chunks_exact(per_chain) {
            for part in [&chain[..half], &chain[per_chain - half..]] {
                let m = mean(part);
                within += scatter(part, m);
                means.push(m);
            }
        }
        [within, scatter(&means, mean(&means))]
    }
    /// All lags: one transform gives them.
    fn autocovariance(&self, per_chain: usize, about: Complex64, _lags: usize) -> Vec<f64> {
        autocovariance(self, per_chain, about)
    }
    fn centred(&self, parts: usize) -> Vec<f64> {
        let weight = 1.0 / self.len() as f64;
        let mean: Complex64 = self.iter().map(|x| x * weight).sum();
        let part: [fn(Complex64) -> f64; 2] = [|z| z.re, |z| z.im];
        let each = |f: fn(Complex64) -> f64| self.iter().map(move |x| weight.sqrt() * f(x - mean));
        part[..parts].iter().flat_map(|&f| each(f)).collect()
    }
}

/// Autocovariance about `m` for lags `0..per_chain`, averaged over chains,
/// each lag divided by the number of pairs it has.
fn autocovariance(values: &[Complex64], per_chain: usize, m: Complex64) -> Vec<f64> {
    let padded = (2 * per_chain).next_power_of_two();
    let mut planner = RealFftPlanner::<f64>::new();
    let forward = planner.plan_fft_forward(padded);
    let inverse = planner.plan_fft_inverse(padded);
    let mut signal = forward.make_input_vec();
    let mut spectrum = forward.make_output_vec();
    let mut power = forward.make_output_vec();
    let part: [fn(&Complex64) -> f64; 2] = [|z| z.re, |z| z.im];
    for chain in values.chunks_exact(per_chain) {
        for component in part {
            signal.fill(0.0);
            for (slot, z) in signal.iter_mut().zip(chain) {
                *slot = component(&(z - m));
            }
            // The plan's own buffers always have the right lengths.
            if forward.process(&mut signal, &mut spectrum).is_ok() {
                for (p, z) in power.iter_mut().zip(&spectrum) {
                    p.re += z.norm_sqr();
                }
            }
        }
    }
    if inverse.process(&mut power, &mut signal).is_err() {
        return vec![f64::NAN; per_chain];
    }
    let chains = values.len() / per_chain;
    signal[..per_chain]
        .iter()
        .enumerate()
        .map(|(lag, x)| x / (padded * chains * (per_chain - lag)) as f64)
        .collect()
}

/// V-score (Wu et al., Science 386, 296): `N Var(E) / (E - E_inf)^2` with
/// `E_inf = tr H / dim`, the energy at infinite temperature.
pub fn v_score(sites: usize, energy: f64, variance: f64, energy_infinite: f64) -> f64 {
    sites as f64 * variance / (energy - energy_infinite).powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmc::rng::{ChainRng, Stream};

    /// Stationary `x_t = phi x_{t-1} + noise` of unit variance.
    fn ar1(chains: usize, length: usize, phi: f64, seed: u64) -> Vec<Complex64> {
        let mut values = Vec::with_capacity(chains * length);
        for chain in 0..chains {
            let mut rng = ChainRng::new(seed, chain as u32, 0, Stream::Sweep);
            let mut x = rng.normal();
            for _ in 0..length {
                values.push(Complex64::new(3.0 + x, 0.0));
                x = phi * x + (1.0 - phi * phi).sqrt() * rng.normal();
            }
        }
        values
    }

    #[test]
    fn ar1_has_the_known_autocorrelation_time_and_error() {
        for (phi, chains, length) in [
            (0.0, 64, 1000),
            (0.5, 64, 1000),
            (0.9, 64, 2000),
            (0.8, 4, 20_000),
        ] {
            let s = summarize(&ar1(chains, length, phi, 11), length);
            let tau = phi / (1.0 - phi);
            assert!(
                (s.tau - tau).abs() < 0.1 * (tau + 0.5),
                "phi {phi}: tau {} for {tau}",
                s.tau
            );
            assert!((s.variance - 1.0).abs() < 0.05);
            let error = ((1.0 + 2.0 * tau) / (chains * length) as f64).sqrt();
            assert!(
                (s.error / error - 1.0).abs() < 0.3,
                "phi {phi}: error {} for {error}",
                s.error
            );
            assert!((s.mean.re - 3.0).abs() < 4.0 * error);
            // Means of half chains scatter by 1 + 2 tau, as much as they are long.
            let r_hat = (1.0 + 2.0 * tau / (length / 2) as f64).sqrt();
            assert!(
                (s.r_hat - r_hat).abs() < 0.003,
                "phi {phi}: R-hat {}",
                s.r_hat
            );
        }
    }

    #[test]
    fn short_chains_use_the_scatter_of_chain_means() {
        let s = summarize(&ar1(2000, 16, 0.5, 3), 16);
        // Var(mean of n) n = 1 + 2 sum_t (1 - t/n) phi^t, in place of 1 + 2 tau.
        let expected: f64 = (1..16)
            .map(|t| (1.0 - f64::from(t) / 16.0) * 0.5f64.powi(t))
            .sum();
        assert!((s.tau - expected).abs() < 0.1, "{} for {expected}", s.tau);
    }

    #[test]
    fn r_hat_sees_chains_that_disagree() {
        let mut values = ar1(8, 200, 0.0, 5);
        for x in &mut values[..200] {
            x.re += 3.0;
        }
        assert!(split_r_hat(&values, 200) > 1.2);
        // A drift within every chain is seen as well: that is why it is split.
        let drift: Vec<_> = (0..800)
            .map(|i| Complex64::new(f64::from(i % 200) / 50.0, 0.0))
            .collect();
        assert!(split_r_hat(&drift, 200) > 1.2);
        assert!(split_r_hat(&values, 2).is_nan());
    }

    #[test]
    fn r_hat_of_a_conserved_number_is_undefined() {
        // what is left of 1/6 after sums in another order
        let values: Vec<_> = (0..32)
            .map(|k| Complex64::new(1.0 / 6.0 + 3e-17 * f64::from(k % 3), 0.0))
            .collect();
        let s = summarize(&values, 8);
        assert!(split_r_hat(&values, 8).is_finite(), "rounding has one");
        assert!(s.r_hat.is_nan() && s.tau == 0.0 && s.variance < 1e-30);
        assert!(!s.text().contains('R'), "{}", s.text());
    }

    #[test]
    fn complex_values_constants_and_malformed_input() {
        let values: Vec<_> = ar1(64, 64, 0.0, 9)
            .iter()
            .zip(ar1(64, 64, 0.0, 10))
            .map(|(a, b)| a + Complex64::i() * b)
            .collect();
        let s = summarize(&values, 64);
        assert!((s.variance - 2.0).abs() < 0.1);
        assert!((s.error - (2.0f64 / 4096.0).sqrt()).abs() < 0.3 * s.error);
        assert!((s.mean - Complex64::new(3.0, 3.0)).norm() < 4.0 * s.error);
        let constant = summarize(&vec![Complex64::new(-4.1, 0.0); 128], 4);
        assert_eq!((constant.tau, constant.mean.re.round()), (0.0, -4.0));
        assert!(constant.error < 1e-14);
        assert!(summarize(&Vec::new(), 4).mean.re.is_nan());
        assert!(summarize(&values[..7].to_vec(), 4).error.is_nan());
    }

    #[test]
    fn exact_sums_have_no_error_and_v_score_is_the_definition() {
        let values = [Complex64::new(1.0, 0.0), Complex64::new(3.0, 0.0)];
        let s = summarize_exact(&values, &[0.25, 0.75]);
        assert_eq!((s.mean.re, s.variance, s.error), (2.5, 0.75, 0.0));
        assert_eq!(v_score(10, -5.0, 0.5, 0.0), 0.2);
    }

    #[test]
    fn the_progress_text_is_the_familiar_one() {
        let s = Summary {
            mean: Complex64::new(-12.785_32, 0.0),
            error: 0.002_91,
            variance: 8.6e-3,
            r_hat: 1.0091,
            tau: 0.3,
        };
        assert_eq!(s.text(), "-12.7853 ± 0.0029 [σ²=8.6e-03, R̂=1.009]");
        assert_eq!(scientific(1.0), "1.0e+00");
    }
}
