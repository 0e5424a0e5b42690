//! Rejection of steps that went wrong.

use crate::vmc::stats::Summary;
use serde::{Deserialize, Serialize};

/// When a step counts as gone wrong, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardOptions {
    /// An energy this many standard deviations (error of either energy, and
    /// spread of the previous local energies' mean) above the last good one is
    /// a jump.
    pub jump_sigmas: f64,
    /// Jumps smaller than this fraction of `1 + |E|` are let pass.
    pub jump_fraction: f64,
    /// Factor on the rate after a rejection.
    pub shrink: f64,
    /// Factor on the rate (up to the scheduled one) after a good step.
    pub recover: f64,
    /// Rejections in a row after which the run stops.
    pub patience: u32,
}

impl Default for GuardOptions {
    fn default() -> Self {
        GuardOptions {
            jump_sigmas: 20.0,
            jump_fraction: 0.02,
            shrink: 0.25,
            recover: 1.2,
            patience: 10,
        }
    }
}

/// The judgement on an energy.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Go on from here.
    Good,
    /// Go back to the last good parameters; the text says why.
    Reject(String),
    /// Too many rejections in a row.
    GiveUp(String),
}

/// Remembers the last good energy and the current factor on the rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// Bits of energy and error of the last good iteration.
    last: Option<[u64; 2]>,
    factor_bits: u64,
    rejected: u32,
}

impl Default for Guard {
    fn default() -> Self {
        Guard {
            last: None,
            factor_bits: 1f64.to_bits(),
            rejected: 0,
        }
    }
}

impl Guard {
    /// Factor on the scheduled rate.
    pub fn factor(&self) -> f64 {
        f64::from_bits(self.factor_bits)
    }

    /// Notes that a step could not be taken (`reason`), or that its outcome
    /// was bad.
    pub fn reject(&mut self, options: &GuardOptions, reason: &str) -> Verdict {
        self.rejected += 1;
        let factor = self.factor() * options.shrink;
        self.factor_bits = factor.to_bits();
        if self.rejected > options.patience {
            return Verdict::GiveUp(format!(
                "{reason}; {} steps in a row were rejected",
                self.rejected
            ));
        }
        Verdict::Reject(format!(
            "{reason}: step rejected, going on with {factor:.3e} of the scheduled rate"
        ))
    }

    /// Judges the energy found after a step. A good one counts only once the
    /// next step has been found: see [`Guard::accept`].
    pub fn judge(&mut self, options: &GuardOptions, energy: &Summary) -> Verdict {
        let now = energy.mean.re;
        if !(energy.mean.re.is_finite()
            && energy.mean.im.is_finite()
            && energy.variance.is_finite())
        {
            // a step too long leaves the chains where psi all but vanishes: there
            // ratios of amplitudes overflow, in any precision
            return self.reject(
                options,
                "the energy is not finite (local energies overflow or are not numbers)",
            );
        }
        let error = if energy.error.is_finite() {
            energy.error
        } else {
            0.0
        };
        if let Some([last, last_error]) = self.last.map(|l| l.map(f64::from_bits)) {
            let allowed = (options.jump_sigmas * error.hypot(last_error))
                .max(options.jump_fraction * (1.0 + last.abs()));
            if now - last > allowed {
                return self.reject(
                    options,
                    &format!("the energy jumped from {last:.6} to {now:.6}"),
                );
            }
        }
        Verdict::Good
    }

    /// Takes a good energy, from which a step was found, as the new reference;
    /// the rate recovers.
    pub fn accept(&mut self, options: &GuardOptions, energy: &Summary) {
        let error = if energy.error.is_finite() {
            energy.error
        } else {
            0.0
        };
        self.last = Some([energy.mean.re.to_bits(), error.to_bits()]);
        self.rejected = 0;
        self.factor_bits = (self.factor() * options.recover).min(1.0).to_bits();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_complex::Complex64;

    fn energy(mean: f64, error: f64) -> Summary {
        Summary {
            mean: Complex64::from(mean),
            error,
            variance: 1.0,
            r_hat: 1.0,
            tau: 0.0,
        }
    }

    fn good(guard: &mut Guard, mean: f64) {
        let (options, energy) = (GuardOptions::default(), energy(mean, 0.01));
        assert_eq!(guard.judge(&options, &energy), Verdict::Good);
        guard.accept(&options, &energy);
    }

    #[test]
    fn jumps_and_nans_are_rejected_and_the_rate_recovers() {
        let options = GuardOptions::default();
        let mut guard = Guard::default();
        good(&mut guard, -10.0);
        good(&mut guard, -9.85);
        assert!(matches!(
            guard.judge(&options, &energy(-3.0, 0.01)),
            Verdict::Reject(_)
        ));
        assert_eq!(guard.factor(), 0.25);
        assert!(matches!(
            guard.judge(&options, &energy(f64::NAN, 0.0)),
            Verdict::Reject(_)
        ));
        assert_eq!(guard.factor(), 0.0625);
        for _ in 0..20 {
            good(&mut guard, -10.0);
        }
        assert_eq!(guard.factor(), 1.0);
        for _ in 0..options.patience {
            assert!(matches!(
                guard.judge(&options, &energy(0.0, 0.01)),
                Verdict::Reject(_)
            ));
        }
        assert!(matches!(
            guard.judge(&options, &energy(0.0, 0.01)),
            Verdict::GiveUp(_)
        ));
    }
}
