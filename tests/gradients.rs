//! Gradients of every example: every element of every parameter tensor against
//! central differences of its own.

mod networks;

use dnet::check::Program;
use dnet::check::core::NetworkInfo;
use dnet::interp::{Tensor, evaluate};
use dnet::ir::{Boundary, Graph, Lattice};
use dnet::pipeline;
use dnet::verify::cases;
use num_complex::Complex64;
use rayon::prelude::*;
use std::f64::consts::TAU;

/// Largest relative error.
const TOLERANCE: f64 = 1e-6;
/// Steps in turn, until one is small against the nearest kink and large against
/// the rounding of log psi.
const STEPS: [f64; 4] = [3e-3, 5e-4, 6e-5, 2e-2];

/// One network on one lattice at one configuration.
struct Case {
    name: String,
    graph: Graph,
    lattice: Lattice,
    params: Vec<Tensor>,
    spins: Vec<i8>,
}

impl Case {
    fn new(info: &NetworkInfo, lattice: Lattice) -> Case {
        let lowered = pipeline::graph(info);
        let mut rng = cases::random(lattice, 11, 0);
        let spins = cases::configuration(lattice, &mut rng);
        let params = cases::parameters(info, &lowered, lattice, 11, &spins);
        Case {
            name: format!("{} on {lattice:?}", info.name),
            graph: pipeline::amplitude(&lowered),
            lattice,
            params: params.expect("fits").params.tensors,
            spins,
        }
    }

    fn log_psi(&self, params: &[Tensor]) -> Complex64 {
        let e = evaluate(&self.graph, self.lattice, params, &self.spins);
        e.unwrap_or_else(|e| panic!("{}: {e}", self.name)).log_psi()
    }

    /// `d log psi / d theta` by differences of order 6 with step `h`.
    fn slope(&self, moved: &mut [Tensor], (p, k): (usize, usize), h: f64) -> Complex64 {
        let at = self.params[p].data[k];
        let mut slope = Complex64::ZERO;
        for (step, weight) in [(1.0, 45.0), (2.0, -9.0), (3.0, 1.0)] {
            moved[p].data[k] = at + step * h;
            let mut difference = self.log_psi(moved);
            moved[p].data[k] = at - step * h;
            difference -= self.log_psi(moved);
            // The phase is defined modulo 2 pi.
            difference.im -= TAU * (difference.im / TAU).round();
            slope += weight * difference / (60.0 * h);
        }
        moved[p].data[k] = at;
        slope
    }

    /// Compares every element; their number, and the worst relative error.
    fn check(&self) -> (usize, f64) {
        let gradients = pipeline::gradients(&self.graph).expect("differentiable");
        let values = evaluate(&gradients.graph, self.lattice, &self.params, &self.spins)
            .unwrap_or_else(|e| panic!("{}: {e}", self.name));
        // Derivatives this far below log psi are zero to its rounding.
        let floor = 1e-5 * values.log_psi().norm().max(1.0);
        let found = |output: usize, p: usize, k: usize| -> f64 {
            let nodes = gradients.nodes.get(output);
            nodes.map_or(0.0, |nodes| values.value(nodes[p]).data[k])
        };
        let elements: Vec<(usize, usize)> = (0..self.params.len())
            .flat_map(|p| (0..self.params[p].data.len()).map(move |k| (p, k)))
            .collect();
        let errors = elements
            .par_iter()
            .map_with(self.params.clone(), |moved, &(p, k)| {
                let found = [found(0, p, k), found(1, p, k)];
                let mut best = [f64::INFINITY; 2];
                for h in STEPS {
                    let slope = self.slope(moved, (p, k), h);
                    for (n, slope) in [slope.re, slope.im].into_iter().enumerate() {
                        let error = (found[n] - slope).abs() / slope.abs().max(floor);
                        best[n] = best[n].min(error);
                    }
                    if best.iter().all(|&e| e < 0.1 * TOLERANCE) {
                        break;
                    }
                }
                let path = &self.graph.params[p].path;
                for (part, error) in ["Re", "Im"].into_iter().zip(best) {
                    assert!(
                        error < TOLERANCE,
                        "{}: d {part} log psi / d {path}[{k}] = {found:?} is off by {error:e}",
                        self.name
                    );
                }
                best[0].max(best[1])
            });
        let worst = errors.reduce(|| 0.0, f64::max);
        (elements.len(), worst)
    }
}

/// The smallest lattices of both boundaries that the network fits.
fn smallest(program: &Program, info: &NetworkInfo) -> Vec<Lattice> {
    let all = networks::lattices(program, info);
    [Boundary::Periodic, Boundary::Open]
        .into_iter()
        .filter_map(|b| all.iter().copied().find(|l| l.boundary == b))
        .collect()
}

#[test]
fn every_element_of_every_example() {
    let mut all = vec![];
    for (_, program) in networks::examples() {
        for info in networks::small_networks(&program) {
            let lattices = smallest(&program, &info);
            assert!(!lattices.is_empty(), "{}: no lattice", info.name);
            all.extend(lattices.into_iter().map(|l| Case::new(&info, l)));
        }
    }
    let found: Vec<(usize, f64)> = all.par_iter().map(Case::check).collect();
    for (case, (elements, worst)) in all.iter().zip(&found) {
        println!("{:60} {elements:5} elements, worst {worst:.1e}", case.name);
        assert!(*elements > 0, "{}", case.name);
    }
    let total: usize = found.iter().map(|f| f.0).sum();
    assert!(
        all.len() >= 35 && total > 5000,
        "{} cases, {total} elements",
        all.len()
    );
}
