//! Reverse-mode derivatives against central differences.

use super::report::{Case, Check, Report};
use crate::interp::{EvalError, Tensor, evaluate};
use crate::ir::{Graph, Lattice};
use crate::pipeline::Gradients;
use crate::rng::ChainRng;
use num_complex::Complex64;
use std::f64::consts::TAU;

/// Steps tried in turn: the first is the most accurate one unless a kink (abs,
/// floor, ...) or a strong curvature is near.
const STEPS: [f64; 4] = [2e-3, 3e-4, 4e-5, 1e-2];
/// An error this much below the tolerance needs no other step.
const GOOD: f64 = 1e-8;

/// Compares the derivatives of `log psi` along one random direction in every
/// parameter tensor with differences of order 6. Errors are relative to the
/// typical derivative along such a direction, |gradient| / sqrt(elements).
///
/// # Errors
/// Inputs that do not fit the graph.
pub fn check(
    report: &mut Report,
    case: &Case,
    (graph, gradients): (&Graph, &Gradients),
    lattice: Lattice,
    params: &[Tensor],
    spins: &[i8],
    rng: &mut ChainRng,
) -> Result<(), EvalError> {
    let values = evaluate(&gradients.graph, lattice, params, spins)?;
    let mut moved = params.to_vec();
    for (p, declared) in graph.params.iter().enumerate() {
        let elements = params[p].data.len().max(1);
        let direction: Vec<f64> = params[p]
            .data
            .iter()
            .map(|_| (2.0 * rng.uniform() - 1.0) / (elements as f64).sqrt())
            .collect();
        let checks = [Check::GradientRe, Check::GradientIm];
        let found: Vec<(f64, f64)> = gradients
            .nodes
            .iter()
            .map(|nodes| {
                let g = &values.value(nodes[p]).data;
                let along = g.iter().zip(&direction).map(|(g, d)| g * d).sum();
                let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
                (along, norm / (elements as f64).sqrt())
            })
            .collect();
        // Differences cannot resolve derivatives far below log psi itself.
        let resolution = 1e-5 * values.log_psi().norm().max(1.0);
        let mut best = vec![f64::INFINITY; found.len()];
        for h in STEPS {
            let mut at = |k: f64| -> Result<Complex64, EvalError> {
                for ((x, old), d) in moved[p]
                    .data
                    .iter_mut()
                    .zip(&params[p].data)
                    .zip(&direction)
                {
                    *x = old + k * h * d;
                }
                Ok(evaluate(graph, lattice, &moved, spins)?.log_psi())
            };
            let mut slope = Complex64::ZERO;
            for (k, weight) in [(1.0, 45.0), (2.0, -9.0), (3.0, 1.0)] {
                let mut difference = at(k)? - at(-k)?;
                // The phase is defined modulo 2 pi.
                difference.im -= TAU * (difference.im / TAU).round();
                slope += weight * difference / (60.0 * h);
            }
            for (n, (along, scale)) in found.iter().enumerate() {
                let slope = if n == 0 { slope.re } else { slope.im };
                let error = (along - slope).abs() / scale.max(resolution);
                best[n] = best[n].min(error);
            }
            if best.iter().all(|&e| e < GOOD) {
                break;
            }
        }
        moved[p].data.clone_from(&params[p].data);
        for (n, &error) in best.iter().enumerate() {
            report.compare(checks[n.min(1)], error, || case.with(&[], &declared.path));
        }
    }
    Ok(())
}
