//! A background configuration with everything updates need.

use super::site_values::SiteValues;
use super::{AbacusError, Coefficients, Network, Update};
use crate::interp::Evaluation;
use crate::pass::link::{FinalLinks, Kernel, LinkStrategy, Links};
use num_complex::Complex64;

/// The cached state of one configuration: values of all nodes, coefficients,
/// kernels and final links. Links are computed when an update asks for them.
pub struct Background<'a> {
    /// The network.
    pub net: &'a Network<'a>,
    /// The configuration.
    pub spins: Vec<i8>,
    /// Every node's value.
    pub values: Evaluation,
    /// Kernels of all mixers.
    pub kernels: Vec<Kernel>,
    /// Coefficients of the normal form.
    pub coefficients: Coefficients,
    /// `T_m` of all summed pools.
    pub final_links: FinalLinks,
}

impl<'a> Background<'a> {
    /// Evaluates the network at `spins` and prepares updates.
    ///
    /// # Errors
    /// Inputs that do not fit the network.
    pub fn new(net: &'a Network<'a>, spins: &[i8]) -> Result<Background<'a>, AbacusError> {
        let values = net.evaluate(spins)?;
        let kernels = (0..net.form.mixers.len())
            .map(|m| Kernel::new(net, &values, m))
            .collect::<Result<Vec<_>, _>>()?;
        let coefficients = {
            let mut sites = SiteValues::new(net, &values, spins, &[])?;
            Coefficients::extract(&mut sites, net, &values)?
        };
        let final_links = FinalLinks::new(net, &kernels, &coefficients);
        Ok(Background {
            net,
            spins: spins.to_vec(),
            values,
            kernels,
            coefficients,
            final_links,
        })
    }

    /// `log psi` of the background.
    pub fn log_psi(&self) -> Complex64 {
        self.values.log_psi()
    }

    /// Links of this background; `wanted` is preferred where it applies.
    pub fn links(&self, wanted: Option<LinkStrategy>) -> Links<'_> {
        Links::new(self.net, &self.kernels, &self.coefficients, wanted)
    }

    /// Everything that changes when `flips` are flipped.
    ///
    /// # Errors
    /// Flips outside the lattice.
    pub fn update(&self, links: &mut Links, flips: &[usize]) -> Result<Update, AbacusError> {
        Update::new(self, links, flips)
    }
}
