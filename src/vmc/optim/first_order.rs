//! Adam (Kingma & Ba, 2014).

use crate::vmc::lossless;
use serde::{Deserialize, Serialize};

/// Its constants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adam {
    /// Decay of the mean.
    pub beta1: f64,
    /// Decay of the mean square.
    pub beta2: f64,
    /// Added to the root mean square.
    pub epsilon: f64,
}

impl Default for Adam {
    fn default() -> Self {
        Adam {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
        }
    }
}

/// Its moments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdamState {
    /// Steps made.
    pub steps: u32,
    /// Running mean of the force.
    #[serde(with = "lossless::floats")]
    pub mean: Vec<f64>,
    /// Running mean of its square.
    #[serde(with = "lossless::floats")]
    pub square: Vec<f64>,
}

impl Adam {
    /// The bias-corrected direction; updates the moments.
    pub fn direction(&self, state: &mut AdamState, force: &[f64]) -> Vec<f64> {
        if state.mean.len() != force.len() {
            *state = AdamState {
                steps: 0,
                mean: vec![0.0; force.len()],
                square: vec![0.0; force.len()],
            };
        }
        state.steps += 1;
        let correction = |beta: f64| 1.0 - beta.powf(f64::from(state.steps));
        let (c1, c2) = (correction(self.beta1), correction(self.beta2));
        force
            .iter()
            .zip(state.mean.iter_mut().zip(&mut state.square))
            .map(|(f, (m, v))| {
                *m = self.beta1 * *m + (1.0 - self.beta1) * f;
                *v = self.beta2 * *v + (1.0 - self.beta2) * f * f;
                (*m / c1) / ((*v / c2).sqrt() + self.epsilon)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_has_unit_size_and_it_finds_a_minimum() {
        let adam = Adam::default();
        let mut state = AdamState::default();
        let first = adam.direction(&mut state, &[3.0, -1e-3]);
        assert!((first[0] - 1.0).abs() < 1e-6 && (first[1] + 1.0).abs() < 1e-4);
        let (mut x, mut state) = ([5.0, -3.0], AdamState::default());
        for _ in 0..4000 {
            let step = adam.direction(&mut state, &[x[0] - 1.0, 100.0 * (x[1] - 2.0)]);
            x[0] -= 0.01 * step[0];
            x[1] -= 0.01 * step[1];
        }
        assert!(
            (x[0] - 1.0).abs() < 1e-3 && (x[1] - 2.0).abs() < 1e-3,
            "{x:?}"
        );
    }
}
