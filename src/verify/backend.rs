//! A back end against the reference interpreter, on one lattice.

use super::updates::distance;
use super::{VerifyError, cases};
use crate::check::core::NetworkInfo;
use crate::ir::Lattice;
use crate::pipeline;
use crate::run::network::{Backend, BuildError, Precision, build};
use crate::run::{Spins, WaveFunction};
use num_complex::Complex64;
use std::sync::Mutex;

/// Configurations compared per lattice.
const SAMPLES: usize = 4;

/// Why a back end could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The inputs do not fit the network.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The back end has no code for the network, or no device.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Comparison {
    /// What was compared.
    pub what: &'static str,
    /// Largest difference, relative to the size of what is compared (at least 1).
    pub error: f64,
    /// Largest difference accepted.
    pub tolerance: f64,
}

impl Comparison {
    /// Whether the back end agrees.
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// Compares amplitudes, gradients, single flips and a cluster.
///
/// # Errors
/// See [`BackendError`].
pub fn compare(
    info: &NetworkInfo,
    lattice: Lattice,
    seed: u64,
    backend: Backend,
    precision: Precision,
) -> Result<Vec<Comparison>, BackendError> {
    let lowered = pipeline::graph(info);
    let graph = pipeline::amplitude(&lowered);
    let mut rng = cases::random(lattice, seed, 0);
    let batch: Vec<i8> = (0..SAMPLES)
        .flat_map(|_| cases::configuration(lattice, &mut rng))
        .collect();
    let spins = &batch[..lattice.sites()];
    let drawn = cases::parameters(info, &lowered, lattice, seed, spins);
    let params = drawn.map_err(VerifyError::from)?.params;
    let make = |backend, precision| build(&graph, lattice, &params, precision, backend);
    let reference = make(Backend::Reference, Precision::F64)?;
    let tested = make(backend, precision)?;
    let single = precision == Precision::F32;
    let tolerance = |double: f64, float: f64| if single { float } else { double };
    let log_psi = {
        let all = |psi: &dyn WaveFunction| {
            let mut out = vec![Complex64::ZERO; SAMPLES];
            psi.log_psi(&batch, &mut out);
            out
        };
        // only ratios mean anything
        let [want, got] = [all(&*reference), all(&*tested)];
        let ratio = |k: usize| distance(got[k] - got[0], want[k] - want[0]);
        (1..SAMPLES).map(ratio).fold(0.0, worse)
    };
    let flips = ratios(&*reference, &*tested, spins);
    let gradient = gradients(&*reference, &*tested, spins);
    Ok(vec![
        Comparison {
            what: "log psi",
            error: log_psi,
            tolerance: tolerance(1e-11, 2e-5),
        },
        Comparison {
            what: "single flips and a cluster",
            error: flips,
            tolerance: tolerance(1e-10, 2e-5),
        },
        Comparison {
            what: "gradient",
            error: gradient,
            tolerance: tolerance(1e-10, 1e-4),
        },
    ])
}

/// The larger one; anything is better than NaN.
fn worse(a: f64, b: f64) -> f64 {
    if b.is_nan() { f64::INFINITY } else { a.max(b) }
}

fn ratios(reference: &dyn WaveFunction, tested: &dyn WaveFunction, spins: &Spins) -> f64 {
    let n = spins.len();
    let all = |psi: &dyn WaveFunction| {
        let mut background = psi.background(spins);
        let mut out = vec![Complex64::ZERO; n + 1];
        background.single_flips(&mut out[..n]);
        out[n] = background.log_ratio(&[0, n / 2, n - 1]);
        out
    };
    let [want, got] = [all(reference), all(tested)];
    got.iter()
        .zip(&want)
        .map(|(g, w)| distance(*g, *w))
        .fold(0.0, worse)
}

fn gradients(reference: &dyn WaveFunction, tested: &dyn WaveFunction, spins: &Spins) -> f64 {
    let all = |psi: &dyn WaveFunction| {
        let found = Mutex::new(Vec::new());
        psi.gradients(spins, &|_, re, im| {
            let mut found = found.lock().unwrap_or_else(|e| e.into_inner());
            found.extend(re.iter().chain(im).copied());
        });
        found.into_inner().unwrap_or_else(|e| e.into_inner())
    };
    let [want, got] = [all(reference), all(tested)];
    if want.len() != got.len() {
        return f64::INFINITY;
    }
    let scale = want.iter().fold(1.0, |m: f64, w| m.max(w.abs()));
    let off = want.iter().zip(&got).map(|(w, g)| (w - g).abs());
    off.fold(0.0, worse) / scale
}
