//! A check of the derivation by experiment: flip spins, see what changed.

use super::site_values::SiteValues;
use super::support::tokens_seeing;
use super::update::Slice;
use super::{AbacusError, Background, SiteCoefficients};
use crate::check::core::Place;
use crate::ir::NodeId;
use crate::pass::normal_form::Affine;
use std::collections::BTreeSet;

/// What a probe looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeReport {
    /// Local values compared, node by node and site by site.
    pub values: usize,
    /// Coefficient vectors and matrices compared.
    pub coefficients: usize,
    /// Mixer inputs and pooled values compared with `S + sum_k A_k y_k`.
    pub affine: usize,
}

/// Flips spins and compares which local values and which coefficients changed
/// with the sites their windows claim, and mixer inputs with their affine form.
///
/// # Errors
/// [`AbacusError::Internal`] names the node, the site and the claim that is
/// wrong: then no update of this network may be trusted.
pub fn probe(background: &Background, flips: &[usize]) -> Result<ProbeReport, AbacusError> {
    let net = background.net;
    let (spins, flips) = net.flipped(&background.spins, flips)?;
    let new = net.evaluate(&spins)?;
    let mut report = ProbeReport::default();
    for &node in &net.form.locals {
        let (Some(window), Place::Site(token)) =
            (net.form.kinds.window(node), net.graph.ty(node).place)
        else {
            return Err(AbacusError::internal(format!(
                "node {} is local but has no window",
                node.index()
            )));
        };
        let claimed = tokens_seeing(window, token, net.lattice, &flips);
        let (a, b) = (background.values.value(node), new.value(node));
        let width = a.shape[1..].iter().product::<usize>();
        for i in (0..a.shape[0]).filter(|i| !claimed.contains(i)) {
            report.values += 1;
            let rows = i * width..(i + 1) * width;
            if a.data[rows.clone()] != b.data[rows] {
                return Err(AbacusError::internal(format!(
                    "flipping {flips:?} changed node {} at site {i}, outside its window {window:?}",
                    node.index()
                )));
            }
        }
    }
    let mut sites = SiteValues::new(net, &background.values, &spins, &flips)?;
    let mut check = |node: NodeId,
                     affine: &Affine,
                     old: &[SiteCoefficients],
                     token|
     -> Result<(), AbacusError> {
        let slice = Slice::new(net, affine, token, &flips);
        let source = super::support::changed(affine.source, token, net.lattice, &flips);
        let value = new.value(node);
        for (i, old) in old.iter().enumerate() {
            let now =
                SiteCoefficients::extract(&mut sites, net, &background.values, node, affine, i)?;
            let fault = |what: &str| {
                AbacusError::internal(format!(
                    "flipping {flips:?} changed {what} of node {} at site {i}, outside its window",
                    node.index()
                ))
            };
            report.coefficients += 1 + old.vertices.len();
            if !source.contains(&i) && now.source != old.source {
                return Err(fault("the source"));
            }
            let none = BTreeSet::new();
            for (k, a) in &old.vertices {
                let claimed = slice.vertices.get(k).unwrap_or(&none);
                if !claimed.contains(&i) && !close(a, &now.vertices[k], 1.0) {
                    return Err(fault(&format!("the coefficient of mixer {k}")));
                }
            }
            // The value itself, from the new coefficients and full mixer outputs.
            let mut affine_value = now.source.clone();
            let mut scale = affine_value.iter().fold(1.0_f64, |s, x| s.max(x.abs()));
            for (&k, a) in &now.vertices {
                let y = new.value(net.form.mixers[k].output);
                let d = y.shape[1..].iter().product::<usize>();
                let y = &y.data[i * d..(i + 1) * d];
                let largest = |x: &[f64]| x.iter().fold(0.0_f64, |s, x| s.max(x.abs()));
                scale = scale.max(largest(a) * largest(y) * d as f64);
                crate::pass::link::multiply_add(a, y, &mut affine_value);
            }
            report.affine += 1;
            let d = affine_value.len();
            if !close(&affine_value, &value.data[i * d..(i + 1) * d], scale) {
                return Err(AbacusError::internal(format!(
                    "node {} at site {i} is not the affine function of mixer outputs it was derived to be",
                    node.index()
                )));
            }
        }
        Ok(())
    };
    for (m, mixer) in net.form.mixers.iter().enumerate() {
        check(
            mixer.input,
            &mixer.affine,
            &background.coefficients.mixers[m],
            mixer.source_token,
        )?;
    }
    for (p, pool) in net.form.pools.iter().enumerate() {
        check(
            pool.input,
            &pool.affine,
            &background.coefficients.pools[p],
            pool.token,
        )?;
    }
    Ok(report)
}

/// Equal up to the rounding of a unit-vector difference at this scale.
fn close(a: &[f64], b: &[f64], scale: f64) -> bool {
    let size = a.iter().chain(b).fold(scale, |s, x| s.max(x.abs()));
    a.iter().zip(b).all(|(x, y)| (x - y).abs() <= 1e-9 * size)
}
