//! Finite-size scaling collapse: critical point and exponents from data of
//! several sizes, `y L^(k beta/nu) = f( (x - x_c) L^(1/nu) )`.
//!
//! The quality of a collapse is that of Houdayer and Hartmann
//! (Phys. Rev. B 70, 014418): the mean squared deviation of each scaled point
//! from a master curve fitted locally through the *other* sizes, in units of
//! their errors; about 1 for a good collapse. The local fits are straight
//! lines: control parameters must lie close enough for that.

use super::rng::{ChainRng, Stream};

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// System size L.
    pub size: f64,
    /// Control parameter.
    pub x: f64,
    /// Observable.
    pub y: f64,
    /// Its standard error, positive.
    pub error: f64,
}

/// The unknowns of a collapse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exponents {
    /// Critical point x_c.
    pub critical: f64,
    /// Correlation-length exponent.
    pub nu: f64,
    /// Order-parameter exponent.
    pub beta: f64,
}

/// A fitted collapse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Collapse {
    /// Best values.
    pub best: Exponents,
    /// Quality S at the best values; about 1 is good.
    pub quality: f64,
    /// Standard errors from the bootstrap: refits of data scattered by their
    /// errors.
    pub bootstrap: Exponents,
    /// Standard errors from the jackknife: refits with one value of the
    /// control parameter left out at a time.
    pub jackknife: Exponents,
}

/// Why a collapse cannot be fitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollapseError {
    /// Too little data.
    #[error("a collapse needs at least two sizes and eight points")]
    TooLittle,
    /// A bad point.
    #[error("point {0} is not finite, or its size or error is not positive")]
    BadPoint(usize),
    /// The initial guess is unusable, or scales the sizes so far apart that
    /// no two of their curves overlap.
    #[error("the initial guess does not make the curves of different sizes overlap")]
    BadStart,
}

/// The quality S for `y ~ L^(-power beta/nu)` (`power` is 1 for |m|, 2 for
/// m^2). Infinite where fewer than half of the points overlap with others.
pub fn quality(points: &[Point], power: f64, exponents: Exponents) -> f64 {
    let Exponents { critical, nu, beta } = exponents;
    if !(nu > 0.0 && nu.is_finite() && beta.is_finite() && critical.is_finite()) {
        return f64::INFINITY;
    }
    let mut curves: Vec<(f64, Vec<[f64; 3]>)> = Vec::new();
    for p in points {
        let scale = p.size.powf(power * beta / nu);
        let scaled = [
            (p.x - critical) * p.size.powf(1.0 / nu),
            p.y * scale,
            p.error * scale,
        ];
        match curves.iter_mut().find(|(size, _)| *size == p.size) {
            Some((_, curve)) => curve.push(scaled),
            None => curves.push((p.size, vec![scaled])),
        }
    }
    curves
        .iter_mut()
        .for_each(|(_, curve)| curve.sort_by(|a, b| a[0].total_cmp(&b[0])));
    let (mut sum, mut count) = (0.0, 0usize);
    for (i, (_, curve)) in curves.iter().enumerate() {
        for &[x, y, error] in curve {
            let mut neighbours = Vec::new();
            for (j, (_, other)) in curves.iter().enumerate() {
                let above = other.partition_point(|q| q[0] < x);
                if j != i && above > 0 && above < other.len() {
                    neighbours.extend([other[above - 1], other[above]]);
                }
            }
            if let Some((master, variance)) = weighted_line(&neighbours, x) {
                sum += (y - master).powi(2) / (error * error + variance);
                count += 1;
            }
        }
    }
    if 2 * count < points.len() {
        f64::INFINITY
    } else {
        sum / count as f64
    }
}

/// Value and variance at `x` of the least-squares line through the points.
fn weighted_line(points: &[[f64; 3]], x: f64) -> Option<(f64, f64)> {
    let (mut k, mut kx, mut ky, mut kxx, mut kxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for [px, py, error] in points {
        let (w, dx) = (1.0 / (error * error), px - x);
        k += w;
        kx += w * dx;
        ky += w * py;
        kxx += w * dx * dx;
        kxy += w * dx * py;
    }
    // Coordinates are relative to x: the value is the intercept.
    let determinant = k * kxx - kx * kx;
    (determinant > 1e-14 * k * kxx)
        .then(|| ((kxx * ky - kx * kxy) / determinant, kxx / determinant))
}

/// A start for [`fit`]: the best of a coarse grid over the interior of the
/// range of x, `0.4 <= nu <= 3` and `0 < beta <= 1`; components given are kept.
/// `None` where no curves overlap.
pub fn guess(
    points: &[Point],
    power: f64,
    [critical, nu, beta]: [Option<f64>; 3],
) -> Option<Exponents> {
    let low = points.iter().map(|p| p.x).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|p| p.x).fold(f64::NEG_INFINITY, f64::max);
    let grid = |given: Option<f64>, values: Vec<f64>| given.map_or(values, |v| vec![v]);
    let criticals = grid(
        critical,
        (1..20)
            .map(|k| low + (high - low) * f64::from(k) / 20.0)
            .collect(),
    );
    let nus = grid(nu, vec![0.4, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.5, 3.0]);
    let betas = grid(beta, vec![0.03, 0.06, 0.125, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0]);
    let mut best: Option<(f64, Exponents)> = None;
    for &critical in &criticals {
        for &nu in &nus {
            for &beta in &betas {
                let start = Exponents { critical, nu, beta };
                let quality = quality(points, power, start);
                if quality.is_finite() && best.is_none_or(|(least, _)| quality < least) {
                    best = Some((quality, start));
                }
            }
        }
    }
    best.map(|(_, start)| start)
}

/// Fits a collapse, starting from `start`, with `resamples` bootstrap refits
/// (deterministic by `seed`).
///
/// # Errors
/// Too little or unusable data, or a start without overlap.
pub fn fit(
    points: &[Point],
    power: f64,
    start: Exponents,
    resamples: usize,
    seed: u64,
) -> Result<Collapse, CollapseError> {
    let bad = |p: &Point| {
        let positive = p.size > 0.0 && p.error > 0.0;
        !(positive && [p.size, p.x, p.y, p.error].iter().all(|v| v.is_finite()))
    };
    if let Some(index) = points.iter().position(bad) {
        return Err(CollapseError::BadPoint(index));
    }
    if points.len() < 8 || points.iter().all(|p| p.size == points[0].size) {
        return Err(CollapseError::TooLittle);
    }
    let width = points.iter().fold(f64::NEG_INFINITY, |m, p| m.max(p.x))
        - points.iter().fold(f64::INFINITY, |m, p| m.min(p.x));
    let refit = |points: &[Point], from: Exponents| {
        let objective = |v: &[f64; 3]| {
            quality(
                points,
                power,
                Exponents {
                    critical: v[0],
                    nu: v[1],
                    beta: v[2],
                },
            )
        };
        let mut v = [from.critical, from.nu, from.beta];
        // A restart from the optimum frees a simplex that collapsed early.
        for scale in [1.0, 0.3] {
            let steps = [
                0.1 * scale * width,
                0.2 * scale * v[1],
                scale * (0.2 * v[2].abs() + 0.02),
            ];
            v = nelder_mead(&objective, v, steps);
        }
        (
            Exponents {
                critical: v[0],
                nu: v[1],
                beta: v[2],
            },
            objective(&v),
        )
    };
    if quality(points, power, start).is_infinite() {
        return Err(CollapseError::BadStart);
    }
    let (best, quality) = refit(points, start);
    let scattered: Vec<Exponents> = (0..resamples)
        .map(|sample| {
            let mut rng = ChainRng::new(seed, sample as u32, 0, Stream::Resample);
            let data: Vec<Point> = points
                .iter()
                .map(|p| Point {
                    y: p.y + p.error * rng.normal(),
                    ..*p
                })
                .collect();
            refit(&data, best).0
        })
        .collect();
    let mut controls: Vec<f64> = points.iter().map(|p| p.x).collect();
    controls.sort_by(f64::total_cmp);
    controls.dedup();
    let reduced: Vec<Exponents> = controls
        .iter()
        .map(|x| {
            refit(
                &points
                    .iter()
                    .copied()
                    .filter(|p| p.x != *x)
                    .collect::<Vec<_>>(),
                best,
            )
            .0
        })
        .collect();
    let n = reduced.len() as f64;
    Ok(Collapse {
        best,
        quality,
        bootstrap: spread(&scattered, 1.0 / (scattered.len() as f64 - 1.0)),
        jackknife: spread(&reduced, (n - 1.0) / n),
    })
}

/// `sqrt(factor sum (v - mean)^2)` of each component.
fn spread(values: &[Exponents], factor: f64) -> Exponents {
    let component = |get: fn(&Exponents) -> f64| {
        let mean = values.iter().map(get).sum::<f64>() / values.len() as f64;
        (factor * values.iter().map(|v| (get(v) - mean).powi(2)).sum::<f64>()).sqrt()
    };
    Exponents {
        critical: component(|v| v.critical),
        nu: component(|v| v.nu),
        beta: component(|v| v.beta),
    }
}

/// Minimises by the simplex method (Nelder & Mead 1965) from `start` with
/// initial edges `steps`.
fn nelder_mead<const D: usize>(
    f: &dyn Fn(&[f64; D]) -> f64,
    start: [f64; D],
    steps: [f64; D],
) -> [f64; D] {
    let mut simplex: Vec<([f64; D], f64)> = (0..=D)
        .map(|k| {
            let mut v = start;
            if k > 0 {
                v[k - 1] += steps[k - 1];
            }
            (v, f(&v))
        })
        .collect();
    for _ in 0..400 {
        simplex.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (best, worst) = (simplex[0], simplex[D]);
        let size = (0..D)
            .map(|k| (worst.0[k] - best.0[k]).abs() / steps[k].abs().max(1e-300))
            .fold(0.0, f64::max);
        if size < 1e-6 {
            break;
        }
        let mut centre = [0.0; D];
        for (v, _) in &simplex[..D] {
            centre
                .iter_mut()
                .zip(v)
                .for_each(|(c, x)| *c += x / D as f64);
        }
        let along = |t: f64| {
            let mut v = centre;
            v.iter_mut()
                .zip(&worst.0)
                .for_each(|(c, w)| *c += t * (*w - *c));
            (v, f(&v))
        };
        let reflected = along(-1.0);
        if reflected.1 < best.1 {
            let expanded = along(-2.0);
            simplex[D] = if expanded.1 < reflected.1 {
                expanded
            } else {
                reflected
            };
        } else if reflected.1 < simplex[D - 1].1 {
            simplex[D] = reflected;
        } else {
            let contracted = along(if reflected.1 < worst.1 { -0.5 } else { 0.5 });
            if contracted.1 < worst.1.min(reflected.1) {
                simplex[D] = contracted;
            } else {
                for (v, value) in &mut simplex[1..] {
                    v.iter_mut()
                        .zip(&best.0)
                        .for_each(|(x, b)| *x = 0.5 * (*x + b));
                    *value = f(v);
                }
            }
        }
    }
    simplex.sort_by(|a, b| a.1.total_cmp(&b.1));
    simplex[0].0
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUTH: Exponents = Exponents {
        critical: -2.94,
        nu: 1.1,
        beta: 0.15,
    };

    /// `m^2 = L^(-2 beta/nu) f(z)` with a smooth sigmoid f and noise.
    fn data(noise: f64) -> Vec<Point> {
        let mut rng = ChainRng::new(4, 0, 0, Stream::Resample);
        let mut points = Vec::new();
        for size in [40.0f64, 60.0, 80.0, 120.0] {
            for k in 0..25 {
                let x = -3.08 + 0.012 * f64::from(k);
                let z = (x - TRUTH.critical) * size.powf(1.0 / TRUTH.nu);
                let y = size.powf(-2.0 * TRUTH.beta / TRUTH.nu) * (1.2 + (-0.15 * z).tanh());
                points.push(Point {
                    size,
                    x,
                    y: y * (1.0 + noise * rng.normal()),
                    error: noise * y,
                });
            }
        }
        points
    }

    #[test]
    fn known_exponents_come_back_within_their_errors() {
        let start = Exponents {
            critical: -2.9,
            nu: 0.9,
            beta: 0.2,
        };
        let fit = fit(&data(0.003), 2.0, start, 40, 1).unwrap();
        assert!((0.3..2.0).contains(&fit.quality), "quality {}", fit.quality);
        for (name, get, limit) in [
            ("critical", (|e| e.critical) as fn(&Exponents) -> f64, 0.01),
            ("nu", |e| e.nu, 0.1),
            ("beta", |e| e.beta, 0.03),
        ] {
            let (deviation, error) = ((get(&fit.best) - get(&TRUTH)).abs(), get(&fit.bootstrap));
            assert!(
                error > 0.0 && error < limit,
                "{name}: bootstrap error {error}"
            );
            assert!(
                deviation < 4.0 * error,
                "{name}: off by {deviation} with error {error}"
            );
            let ratio = get(&fit.jackknife) / error;
            assert!(
                (0.2..5.0).contains(&ratio),
                "{name}: jackknife over bootstrap {ratio}"
            );
        }
    }

    #[test]
    fn the_guess_is_a_good_enough_start() {
        let points = data(0.003);
        let start = guess(&points, 2.0, [None; 3]).unwrap();
        let from_guess = fit(&points, 2.0, start, 2, 1).unwrap();
        assert!(from_guess.quality < 2.0, "{start:?} {from_guess:?}");
        let kept = guess(&points, 2.0, [None, Some(1.1), None]).unwrap();
        assert_eq!(kept.nu, 1.1);
        assert_eq!(guess(&[], 2.0, [None; 3]), None);
    }

    #[test]
    fn quality_is_worse_away_from_the_truth() {
        let points = data(0.003);
        let best = quality(&points, 2.0, TRUTH);
        for wrong in [
            Exponents {
                critical: -2.8,
                ..TRUTH
            },
            Exponents { nu: 2.0, ..TRUTH },
            Exponents { beta: 0.4, ..TRUTH },
        ] {
            assert!(quality(&points, 2.0, wrong) > 5.0 * best);
        }
        assert!(quality(&points, 2.0, Exponents { nu: -1.0, ..TRUTH }).is_infinite());
    }

    #[test]
    fn the_simplex_finds_the_minimum_of_a_curved_valley() {
        let rosenbrock = |v: &[f64; 2]| (1.0 - v[0]).powi(2) + 100.0 * (v[1] - v[0] * v[0]).powi(2);
        let v = nelder_mead(&rosenbrock, [-1.2, 1.0], [0.5, 0.5]);
        assert!(
            (v[0] - 1.0).abs() < 1e-4 && (v[1] - 1.0).abs() < 1e-4,
            "{v:?}"
        );
    }

    #[test]
    fn unusable_data_is_an_error() {
        let mut points = data(0.01);
        assert_eq!(
            fit(&points[..25], 2.0, TRUTH, 2, 0).unwrap_err(),
            CollapseError::TooLittle
        );
        assert_eq!(
            fit(&[], 2.0, TRUTH, 2, 0).unwrap_err(),
            CollapseError::TooLittle
        );
        let start = Exponents { nu: -1.0, ..TRUTH };
        assert_eq!(
            fit(&points, 2.0, start, 2, 0).unwrap_err(),
            CollapseError::BadStart
        );
        points[7].error = 0.0;
        assert_eq!(
            fit(&points, 2.0, TRUTH, 2, 0).unwrap_err(),
            CollapseError::BadPoint(7)
        );
    }
}
