//! ABACUS: exact amplitudes after local changes, from cached links.
//!
//! With a background configuration whose `v, y, Omega` are known (see
//! [`normal_form`](super::normal_form)), flipping a cluster of spins changes the
//! coefficients `S, A, R, q` on a few sites P only, each coefficient on its own.
//! In order m = 1..M,
//!
//! ```text
//! e_m[P]  = DS_m + sum_{k<m} DA_mk ( y_k + Dy_k )           emission into mixer m
//! Dy_m    = sum_{k<=m} L_mk e_k                              on the sites asked for
//! DOmega  = sum_P ( Dq + sum_k DR_k ( y_k + Dy_k ) ) + sum_m T_m e_m
//! ```
//!
//! `L_mk = d y_m / d v_k` are the link tensors ([`link`](super::link)) and
//! `T_m = d Omega / d v_m` the final links, both of the background. The update is
//! exact for any cluster; only the number of sites grows. Everything here is
//! executed in f64 by the reference interpreter, one site at a time: the oracle
//! of compiled updates, itself tested against full evaluation.

mod background;
mod coefficients;
mod probe;
pub mod site_values;
pub mod support;
mod update;

pub use background::Background;
pub use coefficients::{Coefficients, SiteCoefficients};
pub use probe::{ProbeReport, probe};
pub(crate) use update::readout;
pub use update::{Emission, Update};

use crate::interp::{EvalError, Evaluation, Tensor, evaluate};
use crate::ir::{Graph, Lattice};
use crate::pass::normal_form::{NoNormalForm, NormalForm};

/// Why an update cannot be derived or executed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AbacusError {
    /// The network breaks the rules ABACUS needs.
    #[error(transparent)]
    NoNormalForm(#[from] NoNormalForm),
    /// The inputs do not fit the graph.
    #[error(transparent)]
    Eval(Box<EvalError>),
    /// A link strategy that cannot represent this network.
    #[error("{strategy} does not apply: {reason}")]
    Strategy {
        /// The strategy asked for.
        strategy: &'static str,
        /// Why it cannot be used.
        reason: String,
    },
    /// A spin outside the lattice.
    #[error("spin {site} is outside the lattice of {sites} spins")]
    Flip {
        /// Where.
        site: usize,
        /// Number of spins.
        sites: usize,
    },
    /// A derivation contradicts itself: never a wrong number.
    #[error("internal error in the derivation: {0}")]
    Internal(String),
}

impl From<EvalError> for AbacusError {
    fn from(e: EvalError) -> AbacusError {
        AbacusError::Eval(Box::new(e))
    }
}

impl AbacusError {
    pub(crate) fn internal(text: impl Into<String>) -> AbacusError {
        AbacusError::Internal(text.into())
    }
}

/// A network in normal form with parameters, on a lattice.
#[derive(Clone, Debug)]
pub struct Network<'g> {
    /// The network.
    pub graph: &'g Graph,
    /// Its normal form.
    pub form: NormalForm,
    /// Lattice and boundary.
    pub lattice: Lattice,
    /// One tensor per parameter of the graph.
    pub params: Vec<Tensor>,
}

impl<'g> Network<'g> {
    /// Brings `graph` into normal form and binds lattice and parameters.
    ///
    /// # Errors
    /// [`AbacusError::NoNormalForm`] for networks that need full evaluation.
    pub fn new(
        graph: &'g Graph,
        lattice: Lattice,
        params: Vec<Tensor>,
    ) -> Result<Network<'g>, AbacusError> {
        Ok(Network {
            graph,
            form: NormalForm::new(graph)?,
            lattice,
            params,
        })
    }

    /// Evaluates everything at one configuration.
    ///
    /// # Errors
    /// See [`evaluate`].
    pub fn evaluate(&self, spins: &[i8]) -> Result<Evaluation, AbacusError> {
        Ok(evaluate(self.graph, self.lattice, &self.params, spins)?)
    }

    /// The configuration with `flips` flipped (a site named twice is flipped
    /// back), and the sites that differ, ascending.
    ///
    /// # Errors
    /// [`AbacusError::Flip`] for a spin outside the lattice.
    pub fn flipped(
        &self,
        spins: &[i8],
        flips: &[usize],
    ) -> Result<(Vec<i8>, Vec<usize>), AbacusError> {
        let mut new = spins.to_vec();
        for &site in flips {
            let spin = new.get_mut(site).ok_or(AbacusError::Flip {
                site,
                sites: spins.len(),
            })?;
            *spin = -*spin;
        }
        let differ = (0..spins.len()).filter(|&i| new[i] != spins[i]).collect();
        Ok((new, differ))
    }
}
