//! A rigorous bound for the screened typewriter, derived from the network.
//!
//! The frozen log ratio of flip j misses the interaction of j with the flips F
//! accepted since, a mixed difference of `log psi`. Flips made one after the other
//! split it, and each part is bounded over *all* configurations:
//!
//! ```text
//! | D_F D_j log psi |  <=  sum_{f in F} sup_s | D_f D_j log psi(s) |  =  sum_f B(f, j)
//! ```
//!
//! so that a table of pairs (of distances, on a ring without site-dependent
//! constants) is all a decision reads. `B` follows from the scattering normal form
//! (docs/abacus.md, Secs. 2 and 7): coefficients by enumeration of their windows
//! ([`patterns`]), what mixers carry by absolute kernels ([`envelope`]), the
//! readout by bounds of its derivatives ([`readout`]). It decays with the distance
//! as the kernels do, and is the better the smaller gates and kernels are; a
//! network of order-one parameters and long-range mixers may get a bound above
//! every decision's margin, and then screens nothing.

mod envelope;
mod patterns;
mod readout;

use super::ScreenBound;
use crate::interp::evaluate;
use crate::ir::{Graph, Lattice};
use crate::params::Params;
use crate::pass::abacus::{AbacusError, Network};
use crate::run::network::Precision;
use envelope::Envelope;
use rayon::prelude::*;
use readout::Readout;

/// Why a network has no rigorous bound.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoBound {
    /// The network breaks the rules of the normal form, or does not fit.
    #[error("{0}")]
    Network(String),
    /// A value sees too many spins to go through all their configurations.
    #[error(
        "`{value}` depends on {spins} spins around a site, too many to go through all their configurations"
    )]
    Window {
        /// The value.
        value: String,
        /// Spins in its window.
        spins: usize,
    },
    /// An operation without bounded derivatives.
    #[error("the derivatives of `{0}` are not bounded where the readout uses it")]
    Operation(String),
    /// A value that is not a number or infinite.
    #[error("`{0}` is not finite")]
    NotFinite(String),
}

impl NoBound {
    fn of(error: impl std::fmt::Display) -> NoBound {
        NoBound::Network(error.to_string())
    }
}

impl From<AbacusError> for NoBound {
    fn from(error: AbacusError) -> NoBound {
        NoBound::of(error)
    }
}

/// Relative rounding of the sums of bounds.
const ROUNDING: f64 = 1e-9;

/// `sup_s |D_f D_j Re log psi(s)|` for all pairs of flips of a network with its
/// parameters.
#[derive(Clone, Debug)]
pub struct Rigorous {
    sites: usize,
    /// Where a pair is found: row of j, column of f, both moved together.
    translation: Translation,
    pairs: Vec<f64>,
    single: Vec<f64>,
    /// Added to every bound: rounding of the network's own arithmetic.
    allowance: f64,
}

/// How pairs of spins are brought to those tabulated.
#[derive(Clone, Debug)]
enum Translation {
    /// All pairs are there.
    None,
    /// By spins along a chain that repeats after so many.
    Chain(usize),
    /// By index of both.
    Table(Vec<(u32, u32)>),
}

impl Rigorous {
    /// Derives the bound. `precision` is that of the network whose ratios are
    /// judged: its rounding is allowed for.
    ///
    /// # Errors
    /// See [`NoBound`].
    pub fn new(
        graph: &Graph,
        lattice: Lattice,
        params: &Params,
        precision: Precision,
    ) -> Result<Rigorous, NoBound> {
        let mut graph = graph.clone();
        // probabilities are blind to the phase
        graph.outputs.truncate(1);
        let net = Network::new(&graph, lattice, params.tensors.clone())?;
        let sites = lattice.sites();
        let constants =
            evaluate(&graph, lattice, &net.params, &vec![1; sites]).map_err(NoBound::of)?;
        let envelope = Envelope::new(&net, &constants)?;
        let readout = Readout::new(&net, &constants, &envelope)?;
        let rows: Vec<Vec<f64>> = envelope
            .columns
            .par_iter()
            .map(|&j| {
                let features: Vec<Vec<f64>> = (0..sites)
                    .map(|f| {
                        if f == j {
                            vec![0.0; envelope.width()]
                        } else {
                            envelope.mixed_features([f, j])
                        }
                    })
                    .collect();
                readout.mixed(j, &features)
            })
            .collect();
        // what is not a number must never decide
        let safe = |x: f64| {
            if x.is_nan() {
                f64::INFINITY
            } else {
                x * (1.0 + ROUNDING)
            }
        };
        let count = envelope.columns.len();
        let translation = if count == sites {
            Translation::None
        } else if lattice.extent[1] == 1 {
            Translation::Chain(count)
        } else {
            let pair = |k: usize| {
                let (f, column) = envelope.moved(k % sites, k / sites);
                (f as u32, column as u32)
            };
            Translation::Table((0..sites * sites).map(pair).collect())
        };
        Ok(Rigorous {
            sites,
            translation,
            pairs: rows.into_iter().flatten().map(safe).collect(),
            single: (0..sites).map(|j| safe(readout.single(j))).collect(),
            allowance: match precision {
                Precision::F32 => 1e-4,
                Precision::F64 => 1e-11,
            },
        })
    }

    /// The bound of one pair of distinct spins.
    pub fn pair(&self, f: usize, j: usize) -> f64 {
        let n = self.sites;
        let (f, column) = match &self.translation {
            Translation::None => (f, j),
            Translation::Chain(cell) => {
                let inside = j % cell;
                ((f + n + inside - j) % n, inside)
            }
            Translation::Table(moved) => {
                let (f, column) = moved[j * n + f];
                (f as usize, column as usize)
            }
        };
        self.pairs[column * n + f]
    }
}

impl ScreenBound for Rigorous {
    fn log_error(&self, accepted: &[usize], site: usize) -> f64 {
        let apart: f64 = accepted.iter().map(|&f| self.pair(f, site)).sum();
        // two log ratios of one flip differ by no more than twice its largest
        apart.min(2.0 * self.single[site]) + self.allowance
    }
}

/// A bound that decides nothing: every decision is exact.
#[derive(Clone, Copy, Debug)]
pub struct Unbounded;

impl ScreenBound for Unbounded {
    fn log_error(&self, _: &[usize], _: usize) -> f64 {
        f64::INFINITY
    }
}
