//! The coefficients of the normal form at a configuration, as numbers.

use super::site_values::{MixerOutputs, SiteValues};
use super::{AbacusError, Network};
use crate::interp::Evaluation;
use crate::ir::NodeId;
use crate::pass::normal_form::Affine;
use std::collections::BTreeMap;

/// One affine value at one site: `S + sum_k A_k y_k`.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteCoefficients {
    /// S (or q), the components of the value.
    pub source: Vec<f64>,
    /// A_k (or R_k) by mixer k: rows are components of the value, columns those of `y_k`.
    pub vertices: BTreeMap<usize, Vec<f64>>,
}

impl SiteCoefficients {
    /// Reads the coefficients of `node` at `site` off the site-local code, by
    /// pushing zero and each unit vector through it.
    ///
    /// # Errors
    /// Those of the evaluation.
    pub fn extract(
        values: &mut SiteValues,
        net: &Network,
        background: &Evaluation,
        node: NodeId,
        affine: &Affine,
        site: usize,
    ) -> Result<SiteCoefficients, AbacusError> {
        values.set_outputs(MixerOutputs::Unit(None));
        let source = values.at(node, site)?.data;
        let mut vertices = BTreeMap::new();
        for &k in affine.vertices.keys() {
            let y = background.value(net.form.mixers[k].output);
            let width = y.shape[1..].iter().product::<usize>();
            let mut matrix = vec![0.0; source.len() * width];
            for c in 0..width {
                values.set_outputs(MixerOutputs::Unit(Some((k, c))));
                let column = values.at(node, site)?.data;
                for (r, (v, s)) in column.iter().zip(&source).enumerate() {
                    matrix[r * width + c] = v - s;
                }
            }
            vertices.insert(k, matrix);
        }
        Ok(SiteCoefficients { source, vertices })
    }
}

/// All coefficients of one configuration.
#[derive(Clone, Debug)]
pub struct Coefficients {
    /// `S_m, A_mk` per mixer and site.
    pub mixers: Vec<Vec<SiteCoefficients>>,
    /// `q, R_k` per pool and site.
    pub pools: Vec<Vec<SiteCoefficients>>,
}

impl Coefficients {
    /// Extracts every coefficient at every site of the configuration of `values`.
    ///
    /// # Errors
    /// Those of the evaluation.
    pub fn extract(
        values: &mut SiteValues,
        net: &Network,
        background: &Evaluation,
    ) -> Result<Coefficients, AbacusError> {
        let mut all =
            |node: NodeId, affine: &Affine| -> Result<Vec<SiteCoefficients>, AbacusError> {
                (0..net.tokens(node)?.count())
                    .map(|i| SiteCoefficients::extract(values, net, background, node, affine, i))
                    .collect()
            };
        Ok(Coefficients {
            mixers: net
                .form
                .mixers
                .iter()
                .map(|m| all(m.input, &m.affine))
                .collect::<Result<_, _>>()?,
            pools: net
                .form
                .pools
                .iter()
                .map(|p| all(p.input, &p.affine))
                .collect::<Result<_, _>>()?,
        })
    }
}
