//! Columns of the background Jacobian, by pushing unit vectors forward.

use super::{Kernel, multiply_add};
use crate::pass::abacus::Coefficients;
use std::collections::HashMap;

/// Responses of all later mixers to unit emissions at one site.
pub(super) struct Column {
    first: usize,
    /// `[m - first][component][site * outputs + row]`.
    responses: Vec<Vec<Vec<f64>>>,
    outputs: Vec<usize>,
}

impl Column {
    /// `out += L_mk[target, source] e`.
    pub(super) fn apply(&self, m: usize, target: usize, emission: &[f64], out: &mut [f64]) {
        let d = self.outputs[m - self.first];
        for (response, e) in self.responses[m - self.first].iter().zip(emission) {
            for (y, r) in out.iter_mut().zip(&response[target * d..(target + 1) * d]) {
                *y += r * e;
            }
        }
    }
}

/// Columns computed so far, by mixer and source.
#[derive(Default)]
pub(super) struct Columns(HashMap<(usize, usize), Column>);

impl Columns {
    pub(super) fn column(
        &mut self,
        kernels: &[Kernel],
        coefficients: &Coefficients,
        k: usize,
        source: usize,
    ) -> &Column {
        self.0.entry((k, source)).or_insert_with(|| {
            let mut responses = vec![vec![]; kernels.len() - k];
            for component in 0..kernels[k].inputs() {
                let mut unit = vec![0.0; kernels[k].inputs()];
                unit[component] = 1.0;
                for (m, y) in push(kernels, coefficients, k, source, &unit)
                    .into_iter()
                    .enumerate()
                {
                    responses[m].push(y);
                }
            }
            let outputs = kernels[k..].iter().map(Kernel::outputs).collect();
            Column {
                first: k,
                responses,
                outputs,
            }
        })
    }
}

/// `[y_k, .., y_M]` (site-major) in response to `emission` at one source of mixer
/// k, in the linear network whose vertices are the background's.
fn push(
    kernels: &[Kernel],
    coefficients: &Coefficients,
    k: usize,
    source: usize,
    emission: &[f64],
) -> Vec<Vec<f64>> {
    let mut outputs: Vec<Vec<f64>> = vec![];
    for (m, kernel) in kernels.iter().enumerate().skip(k) {
        let (d, n) = (kernel.outputs(), kernel.targets());
        let mut y = vec![0.0; n * d];
        if m == k {
            for (i, y) in y.chunks_exact_mut(d).enumerate() {
                kernel.apply(i, source, emission, y);
            }
        } else {
            for j in 0..kernel.sources() {
                let mut v = vec![0.0; kernel.inputs()];
                for (&l, a) in coefficients.mixers[m][j].vertices.range(k..) {
                    let dl = kernels[l].outputs();
                    multiply_add(a, &outputs[l - k][j * dl..(j + 1) * dl], &mut v);
                }
                for (i, y) in y.chunks_exact_mut(d).enumerate() {
                    kernel.apply(i, j, &v, y);
                }
            }
        }
        outputs.push(y);
    }
    outputs
}
