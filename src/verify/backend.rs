//! A back end against the reference interpreter, on one lattice.

use super::updates::distance;
use super::{VerifyError, cases};
use crate::check::core::NetworkInfo;
use crate::ir::Lattice;
use crate::pipeline;
use crate::run::changes::Changes;
use crate::run::network::{Backend, BuildError, Precision, build};
use crate::run::{Background, GradientRow, Spins, WaveFunction};
use crate::vmc::sampler::{Sampler, SamplerOptions, Target};
use num_complex::Complex64;
use std::sync::{Arc, Mutex};

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
    /// The device failed.
    #[error("{0}; `--backend cpu` needs no GPU, `dnetc doctor` says more")]
    Machine(String),
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

/// Compares amplitudes, gradients, single flips and a cluster; sums over changes of
/// many configurations, and chains, where the back end has its own way with them.
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
    let mut all = vec![
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
    ];
    if let Some(error) = sums(&*reference, &*tested, &batch) {
        all.push(Comparison {
            what: "sums over local changes",
            error,
            tolerance: tolerance(1e-9, 1e-3),
        });
    }
    if let Some(error) = decisions(&*tested, seed, CHAINS, PROPOSALS) {
        all.push(Comparison {
            what: "decisions of chains",
            error,
            tolerance: 0.0,
        });
    }
    match tested.failure() {
        Some(reason) if !all.iter().all(Comparison::passed) => Err(BackendError::Machine(reason)),
        _ => Ok(all),
    }
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

/// Worst error of the sums over single flips and neighbouring pairs of some
/// configurations, relative to the sum of all sizes; `None` where the back end has no
/// such sums.
pub fn sums(reference: &dyn WaveFunction, tested: &dyn WaveFunction, batch: &Spins) -> Option<f64> {
    let n = reference.lattice().sites();
    let mut changes = Changes::new(0.5);
    changes.push_diagonal(0.25, &[0, n as u32 - 1]);
    for i in 0..n {
        changes.push(&[i], [(Complex64::new(-1.0, 0.25), &[][..])]);
        if i > 0 {
            // zero where both spins are equal
            let both = [i as u32 - 1, i as u32];
            let strings = [(0.5.into(), &[][..]), ((-0.5).into(), &both[..])];
            changes.push(&[i - 1, i], strings);
        }
    }
    let changes = Arc::new(changes);
    let got = tested.local_sums(batch, &changes)?.all();
    let error = |(spins, got): (&Spins, &Complex64)| {
        let (mut flips, mut ends, mut elements) = (Vec::new(), Vec::new(), Vec::new());
        for k in 0..changes.len() {
            flips.extend(changes.flips(k).iter().map(|&f| f as usize));
            ends.push(flips.len());
            elements.push(changes.element(k, spins));
        }
        let mut ratios = vec![Complex64::ZERO; ends.len()];
        (reference.background(spins)).log_ratios(&flips, &ends, &mut ratios);
        let each: Vec<Complex64> = ratios
            .iter()
            .zip(&elements)
            .map(|(ratio, element)| element * ratio.exp())
            .collect();
        let diagonal = 0.5 + 0.25 * f64::from(spins[0] * spins[n - 1]);
        let want = diagonal + each.iter().sum::<Complex64>();
        let size = each.iter().map(|z| z.norm()).sum::<f64>().max(1.0);
        (got - want).norm() / size
    };
    Some(batch.chunks(n).zip(&got).map(error).fold(0.0, worse))
}

/// Chains of the comparison of decisions.
const CHAINS: usize = 256;

/// Proposals of the comparison of decisions.
const PROPOSALS: usize = 100_000;

/// Part of the spins that differ between chains the back end moves and those that
/// are moved from outside, by the same random numbers and log psi, after at least so
/// many proposals of all of them; `None` where the back end moves none.
pub fn decisions(
    tested: &dyn WaveFunction,
    seed: u64,
    chains: usize,
    proposals: usize,
) -> Option<f64> {
    let n = tested.lattice().sites();
    let options = SamplerOptions {
        chains,
        inversion_every: 3,
        uniform_every: 4,
        seed,
        ..SamplerOptions::default()
    };
    let sweeps = proposals.div_ceil(chains * n);
    let moved = |psi: &dyn WaveFunction| {
        let mut sampler = Sampler::new(options.clone(), n).ok()?;
        sampler.advance(Target::new(psi), sweeps);
        Some(sampler.state().spins.clone())
    };
    tested.moves_chains().then_some(())?;
    let [own, outside] = [moved(tested)?, moved(&Outside(tested))?];
    let differ = own.iter().zip(&outside).filter(|(a, b)| a != b).count();
    Some(differ as f64 / own.len() as f64)
}

/// A wave function that does nothing by itself: its chains are moved, its local sums
/// formed and the rows of its gradients held from outside.
pub struct Outside<'a>(pub &'a dyn WaveFunction);

impl WaveFunction for Outside<'_> {
    fn lattice(&self) -> Lattice {
        self.0.lattice()
    }
    fn param_count(&self) -> usize {
        self.0.param_count()
    }
    fn is_complex(&self) -> bool {
        self.0.is_complex()
    }
    fn set_params(&mut self, _theta: &[f64]) {}
    fn params(&self) -> &[f64] {
        self.0.params()
    }
    fn log_psi(&self, batch: &Spins, out: &mut [Complex64]) {
        self.0.log_psi(batch, out);
    }
    fn gradients(&self, batch: &Spins, row: GradientRow) {
        self.0.gradients(batch, row);
    }
    fn background<'a>(&'a self, spins: &Spins) -> Box<dyn Background + 'a> {
        self.0.background(spins)
    }
    fn sweep(
        &self,
        _spins: &mut Spins,
        _reverse: bool,
        _decide: &mut dyn FnMut(usize, Complex64) -> bool,
    ) -> Option<()> {
        None
    }
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
