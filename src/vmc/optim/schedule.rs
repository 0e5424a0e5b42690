//! Numbers that change with the iteration: learning rates, shifts.

use serde::{Deserialize, Serialize};

/// A function of the iteration, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// Always the same.
    Constant(f64),
    /// From one value to another, then constant.
    Linear {
        /// Value at iteration 0.
        from: f64,
        /// Value at iteration `over` and later.
        to: f64,
        /// Iterations it takes.
        over: usize,
    },
    /// Linear warm-up to a peak, then exponential decay down to `end`.
    WarmupDecay {
        /// Value at iteration 0.
        from: f64,
        /// Value when the warm-up ends.
        peak: f64,
        /// Value at iteration `total` and later.
        end: f64,
        /// Iterations of the warm-up.
        warmup: usize,
        /// Iterations in all.
        total: usize,
    },
    /// `from * factor^iteration`, not below `floor`.
    Exponential {
        /// Value at iteration 0.
        from: f64,
        /// Factor per iteration.
        factor: f64,
        /// Lower limit.
        floor: f64,
    },
}

impl Schedule {
    /// The paper's learning rate: warm-up over 150 of 400 iterations, stretched
    /// to `total`, then decay to a tenth of the peak.
    pub fn paper(peak: f64, total: usize) -> Schedule {
        Schedule::WarmupDecay {
            from: 0.1 * peak,
            peak,
            end: 0.1 * peak,
            warmup: total * 3 / 8,
            total,
        }
    }

    /// The value at `iteration`.
    pub fn at(&self, iteration: usize) -> f64 {
        let linear = |from: f64, to: f64, over: usize| {
            if iteration >= over {
                to
            } else {
                from + (to - from) * iteration as f64 / over as f64
            }
        };
        match *self {
            Schedule::Constant(value) => value,
            Schedule::Linear { from, to, over } => linear(from, to, over),
            Schedule::WarmupDecay {
                from, peak, warmup, ..
            } if iteration < warmup => linear(from, peak, warmup),
            Schedule::WarmupDecay { end, total, .. } if iteration >= total => end,
            Schedule::WarmupDecay {
                peak,
                end,
                warmup,
                total,
                ..
            } => {
                let done = (iteration - warmup) as f64 / (total - warmup) as f64;
                peak * (end / peak).powf(done)
            }
            Schedule::Exponential {
                from,
                factor,
                floor,
            } => (from * factor.powf(iteration as f64)).max(floor),
        }
    }

    /// Whether all its values are finite and not negative (positive where a
    /// power of them is taken).
    pub fn is_valid(&self) -> bool {
        let fine = |values: &[f64]| values.iter().all(|v| v.is_finite() && *v >= 0.0);
        match *self {
            Schedule::Constant(value) => fine(&[value]),
            Schedule::Linear { from, to, .. } => fine(&[from, to]),
            Schedule::WarmupDecay {
                from, peak, end, ..
            } => fine(&[from, peak, end]) && peak > 0.0 && end > 0.0,
            Schedule::Exponential {
                from,
                factor,
                floor,
            } => fine(&[from, factor, floor]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_pass_through_their_corners() {
        let s = Schedule::WarmupDecay {
            from: 0.0,
            peak: 0.1,
            end: 0.001,
            warmup: 150,
            total: 400,
        };
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-15, "{a} for {b}");
        close(s.at(0), 0.0);
        close(s.at(75), 0.05);
        close(s.at(150), 0.1);
        close(s.at(275), 0.01);
        close(s.at(400), 0.001);
        close(s.at(9999), 0.001);
        let s = Schedule::Linear {
            from: 1e-2,
            to: 1e-4,
            over: 10,
        };
        close(s.at(5), 5.05e-3);
        close(s.at(10), 1e-4);
        close(
            Schedule::Linear {
                from: 1.0,
                to: 2.0,
                over: 0,
            }
            .at(0),
            2.0,
        );
        close(
            Schedule::Exponential {
                from: 1.0,
                factor: 0.5,
                floor: 0.2,
            }
            .at(2),
            0.25,
        );
        close(
            Schedule::Exponential {
                from: 1.0,
                factor: 0.5,
                floor: 0.2,
            }
            .at(3),
            0.2,
        );
        let empty = Schedule::WarmupDecay {
            from: 1.0,
            peak: 1.0,
            end: 0.5,
            warmup: 4,
            total: 4,
        };
        close(empty.at(4), 0.5);
        assert!(!Schedule::Constant(f64::NAN).is_valid() && !Schedule::Constant(-1.0).is_valid());
    }
}
