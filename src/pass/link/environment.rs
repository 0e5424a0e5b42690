//! Environments: exact updates at any depth for networks of recurrences.
//!
//! The chain is cut left and right of the slice of changed sites. Everything
//! outside is two [`Segment`]s that no longer change, so the new pooled features
//! follow from the slice's sites and the states on its two bonds, solved mixer by
//! mixer, at a cost that does not depend on N. On a ring the loop is closed for
//! each mixer in turn by `(1 - transmission around the ring)^-1`.

use super::realisation::{Direction, Matrix};
use super::segment::{Ports, Segment, SiteBlock};
use super::{Realisation, multiply_add};
use crate::interp::Tensor;
use crate::ir::Boundary;
use crate::pass::abacus::site_values::SiteValues;
use crate::pass::abacus::{AbacusError, Background, Network, SiteCoefficients};
use crate::pass::normal_form::PoolKind;
use num_complex::Complex64;
use std::collections::BTreeSet;

/// A network whose mixers are all recurrences, ready to be cut.
pub struct Chain {
    /// The mixers.
    pub mixers: Vec<Realisation>,
    /// Columns of two-ports.
    pub ports: Ports,
    /// Features per pool.
    pub features: Vec<usize>,
    /// Number of sites (tokens).
    pub sites: usize,
    /// Ring or open.
    pub boundary: Boundary,
}

impl Chain {
    /// # Errors
    /// [`AbacusError::Strategy`] if a mixer is no recurrence along the chain, tokens
    /// change size in between, or features keep their sites.
    pub fn new(background: &Background) -> Result<Chain, AbacusError> {
        let net = background.net;
        let refuse = |reason: &str| AbacusError::Strategy {
            strategy: "environments",
            reason: reason.to_owned(),
        };
        let mixers = (0..net.form.mixers.len())
            .map(|m| Realisation::new(net, &background.values, &background.kernels[m], m))
            .collect::<Result<Vec<_>, _>>()?;
        let Some(first) = net.form.mixers.first() else {
            return Err(refuse("there is no mixer"));
        };
        let token = first.source_token;
        let same = net
            .form
            .mixers
            .iter()
            .all(|m| m.source_token == token && m.target_token == token);
        if !same || net.form.pools.iter().any(|p| p.token != token) {
            return Err(refuse("tokens of several sizes are in use"));
        }
        if net.form.pools.iter().any(|p| p.kind == PoolKind::Gather) {
            return Err(refuse("pooled features keep their sites"));
        }
        Ok(Chain {
            ports: Ports::new(&mixers),
            mixers,
            features: background
                .coefficients
                .pools
                .iter()
                .map(|p| p[0].source.len())
                .collect(),
            sites: net.tokens(first.input)?.count(),
            boundary: net.lattice.boundary,
        })
    }

    /// The empty segment.
    pub fn empty(&self) -> Segment {
        Segment::empty(&self.ports, &self.features)
    }
    /// One site more on the right: O(M^2 S (S + d)) for S states.
    pub fn extend_right(&self, segment: &Segment, block: &SiteBlock) -> Segment {
        segment.join(
            &Segment::site(&self.ports, &self.mixers, block),
            &self.ports,
        )
    }
    /// One site more on the left.
    pub fn extend_left(&self, segment: &Segment, block: &SiteBlock) -> Segment {
        Segment::site(&self.ports, &self.mixers, block).join(segment, &self.ports)
    }
    /// `[empty, site 0, sites 0..=1, ..]` of these blocks.
    pub fn prefixes(&self, blocks: &[&SiteBlock]) -> Vec<Segment> {
        let mut all = vec![self.empty()];
        for block in blocks {
            let next = self.extend_right(&all[all.len() - 1], block);
            all.push(next);
        }
        all
    }
    /// `[all sites, .., last site, empty]` of these blocks.
    pub fn suffixes(&self, blocks: &[&SiteBlock]) -> Vec<Segment> {
        let mut all = vec![self.empty()];
        for block in blocks.iter().rev() {
            let next = self.extend_left(&all[all.len() - 1], block);
            all.push(next);
        }
        all.reverse();
        all
    }

    /// Pooled features of `left`, then the sites of `slice`, then `right`, with the
    /// ends open or joined to a ring.
    ///
    /// # Errors
    /// A recurrence without a periodic solution on the ring.
    pub fn features(
        &self,
        left: &Segment,
        slice: &[&SiteBlock],
        right: &Segment,
    ) -> Result<Vec<Vec<f64>>, AbacusError> {
        let ports = &self.ports;
        let width = slice.len();
        // Inputs of both segments, found mixer by mixer; not yet known ones are zero
        // and not read, except a mixer's own, added separately.
        let mut into_left = vec![0.0; ports.columns];
        let mut into_right = vec![0.0; ports.columns];
        into_left[0] = 1.0;
        into_right[0] = 1.0;
        let mut outputs: Vec<Vec<Vec<f64>>> = vec![vec![]; width];
        for (m, mixer) in self.mixers.iter().enumerate() {
            let v: Vec<Vec<f64>> = slice
                .iter()
                .zip(&outputs)
                .map(|(b, y)| affine(&b.mixers[m], y))
                .collect();
            let (phi, states) = (ports.phi[m], ports.rightward[m]);
            // Rightward: phi -> left segment -> slice -> right segment -> phi.
            let mut enter = apply(&left.right[m], &into_left);
            let first = if self.boundary == Boundary::Periodic {
                let mut around = run(&mixer.right, enter.clone(), v.iter());
                around = add(
                    apply(&right.right[m], &into_right),
                    &part(&right.right[m], phi, states),
                    &around,
                );
                let loops = [
                    &part(&right.right[m], phi, states),
                    &power(&mixer.right.transition, width),
                    &part(&left.right[m], phi, states),
                ];
                close(loops, around)?
            } else {
                vec![0.0; states]
            };
            enter = add(enter, &part(&left.right[m], phi, states), &first);
            into_left[phi..phi + states].copy_from_slice(&first);
            let mut f = enter;
            let mut y: Vec<Vec<f64>> = vec![];
            for v in &v {
                f = run(&mixer.right, f, std::iter::once(v));
                let mut out = vec![0.0; mixer.outputs()];
                multiply_add(&mixer.direct.data, v, &mut out);
                multiply_add(&mixer.right.output.data, &f, &mut out);
                y.push(out);
            }
            into_right[phi..phi + states].copy_from_slice(&f);
            // Leftward: gam -> right segment -> slice -> left segment -> gam.
            let (gam, states) = (ports.gam[m], ports.leftward[m]);
            let mut enter = apply(&right.left[m], &into_right);
            let last = if self.boundary == Boundary::Periodic {
                let mut around = run(&mixer.left, enter.clone(), v.iter().rev());
                around = add(
                    apply(&left.left[m], &into_left),
                    &part(&left.left[m], gam, states),
                    &around,
                );
                let loops = [
                    &part(&left.left[m], gam, states),
                    &power(&mixer.left.transition, width),
                    &part(&right.left[m], gam, states),
                ];
                close(loops, around)?
            } else {
                vec![0.0; states]
            };
            enter = add(enter, &part(&right.left[m], gam, states), &last);
            into_right[gam..gam + states].copy_from_slice(&last);
            let mut g = enter;
            for (v, y) in v.iter().zip(&mut y).rev() {
                let mut moved = vec![0.0; states];
                multiply_add(&mixer.left.transition.data, &g, &mut moved);
                multiply_add(&mixer.left.output.data, &moved, y);
                multiply_add(&mixer.left.input.data, v, &mut moved);
                g = moved;
            }
            into_left[gam..gam + states].copy_from_slice(&g);
            for (all, y) in outputs.iter_mut().zip(y) {
                all.push(y);
            }
        }
        Ok((0..self.features.len())
            .map(|p| {
                let mut omega = apply(&left.features[p], &into_left);
                multiply_add(&right.features[p].data, &into_right, &mut omega);
                for (block, y) in slice.iter().zip(&outputs) {
                    omega
                        .iter_mut()
                        .zip(affine(&block.pools[p], y))
                        .for_each(|(o, x)| *o += x);
                }
                omega
            })
            .collect())
    }
}

/// Site blocks of a whole configuration, from a background's coefficients.
pub fn blocks(background: &Background) -> Vec<SiteBlock> {
    let c = &background.coefficients;
    let sites = c.mixers.first().map_or(0, Vec::len);
    let at = |all: &[Vec<SiteCoefficients>], i: usize| all.iter().map(|x| x[i].clone()).collect();
    (0..sites)
        .map(|i| SiteBlock {
            mixers: at(&c.mixers, i),
            pools: at(&c.pools, i),
        })
        .collect()
}

/// The block of one site in the configuration of `values`.
///
/// # Errors
/// Those of the evaluation.
pub fn block_at(
    values: &mut SiteValues,
    background: &Background,
    site: usize,
) -> Result<SiteBlock, AbacusError> {
    let net = background.net;
    let mut of = |node, affine: &_| {
        SiteCoefficients::extract(values, net, &background.values, node, affine, site)
    };
    Ok(SiteBlock {
        mixers: net
            .form
            .mixers
            .iter()
            .map(|m| of(m.input, &m.affine))
            .collect::<Result<_, _>>()?,
        pools: net
            .form
            .pools
            .iter()
            .map(|p| of(p.input, &p.affine))
            .collect::<Result<_, _>>()?,
    })
}

/// All sites at which some coefficient changes when `flips` are flipped.
pub fn slice_of(net: &Network, flips: &[usize]) -> BTreeSet<usize> {
    use crate::pass::abacus::support::changed;
    let form = &net.form;
    let mixers = form.mixers.iter().map(|m| (&m.affine, m.source_token));
    mixers
        .chain(form.pools.iter().map(|p| (&p.affine, p.token)))
        .flat_map(|(a, token)| {
            a.coefficients()
                .flat_map(move |c| changed(c, token, net.lattice, flips))
        })
        .collect()
}

/// Environments of one background for every slice, cut at two places of a ring
/// so that every slice is whole in one of them.
pub struct Environments<'a> {
    background: &'a Background<'a>,
    chain: Chain,
    blocks: Vec<SiteBlock>,
    cuts: Vec<Cut>,
}

struct Cut {
    origin: usize,
    prefixes: Vec<Segment>,
    suffixes: Vec<Segment>,
}

impl<'a> Environments<'a> {
    /// Builds all left and right environments, O(N).
    ///
    /// # Errors
    /// See [`Chain::new`].
    pub fn new(background: &'a Background<'a>) -> Result<Environments<'a>, AbacusError> {
        let chain = Chain::new(background)?;
        let blocks = blocks(background);
        let origins = match chain.boundary {
            Boundary::Periodic => vec![0, chain.sites / 2],
            Boundary::Open => vec![0],
        };
        let cuts = origins
            .into_iter()
            .map(|origin| {
                let rotated: Vec<&SiteBlock> = rotate(&blocks, origin);
                Cut {
                    origin,
                    prefixes: chain.prefixes(&rotated),
                    suffixes: chain.suffixes(&rotated),
                }
            })
            .collect();
        Ok(Environments {
            background,
            chain,
            blocks,
            cuts,
        })
    }

    /// `log psi` with `flips` flipped.
    ///
    /// # Errors
    /// Flips outside the lattice.
    pub fn log_psi(&self, flips: &[usize]) -> Result<Complex64, AbacusError> {
        let background = self.background;
        let (spins, flips) = background.net.flipped(&background.spins, flips)?;
        let slice = slice_of(background.net, &flips);
        let mut values = SiteValues::new(background.net, &background.values, &spins, &flips)?;
        let mut new = std::collections::BTreeMap::new();
        for &i in &slice {
            new.insert(i, block_at(&mut values, background, i)?);
        }
        let block = |i: usize| new.get(&i).unwrap_or(&self.blocks[i]);
        let sites = self.chain.sites;
        let best = self
            .cuts
            .iter()
            .map(|cut| {
                let rotated = slice.iter().map(|&i| (i + sites - cut.origin) % sites);
                let (lo, hi) = rotated.fold((sites, 0), |(lo, hi), i| (lo.min(i), hi.max(i + 1)));
                (hi.max(lo) - lo.min(hi), lo.min(hi), hi, cut)
            })
            .min_by_key(|(width, ..)| *width);
        let Some((_, lo, hi, cut)) = best else {
            return Err(AbacusError::internal("a chain without cuts"));
        };
        let inside: Vec<&SiteBlock> = (lo..hi).map(|i| block((i + cut.origin) % sites)).collect();
        let features = self
            .chain
            .features(&cut.prefixes[lo], &inside, &cut.suffixes[hi])?;
        background.readout(&features, &spins)
    }
}

impl Background<'_> {
    /// `log psi` from pooled features (one flat vector per pool).
    pub(crate) fn readout(
        &self,
        features: &[Vec<f64>],
        spins: &[i8],
    ) -> Result<Complex64, AbacusError> {
        let tensors: Vec<Tensor> = self
            .net
            .form
            .pools
            .iter()
            .zip(features)
            .map(|(p, f)| Tensor {
                shape: self.values.value(p.output).shape.clone(),
                data: f.clone(),
            })
            .collect();
        crate::pass::abacus::readout(self, &tensors, spins)
    }
}

/// The blocks of a ring as seen from another origin.
pub fn rotate(blocks: &[SiteBlock], origin: usize) -> Vec<&SiteBlock> {
    (0..blocks.len())
        .map(|i| &blocks[(i + origin) % blocks.len()])
        .collect()
}

fn affine(c: &SiteCoefficients, outputs: &[Vec<f64>]) -> Vec<f64> {
    let mut v = c.source.clone();
    for (&k, a) in &c.vertices {
        multiply_add(a, &outputs[k], &mut v);
    }
    v
}

fn apply(matrix: &Matrix, x: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; matrix.rows];
    multiply_add(&matrix.data, x, &mut y);
    y
}

fn add(mut y: Vec<f64>, matrix: &Matrix, x: &[f64]) -> Vec<f64> {
    multiply_add(&matrix.data, x, &mut y);
    y
}

fn part(matrix: &Matrix, first: usize, columns: usize) -> Matrix {
    let data = matrix
        .data
        .chunks_exact(matrix.columns)
        .flat_map(|row| &row[first..first + columns])
        .copied()
        .collect();
    Matrix {
        rows: matrix.rows,
        columns,
        data,
    }
}

/// The state after passing sites with these inputs.
fn run<'v>(
    direction: &Direction,
    mut state: Vec<f64>,
    inputs: impl Iterator<Item = &'v Vec<f64>>,
) -> Vec<f64> {
    for v in inputs {
        let mut next = vec![0.0; state.len()];
        multiply_add(&direction.transition.data, &state, &mut next);
        multiply_add(&direction.input.data, v, &mut next);
        state = next;
    }
    state
}

fn power(matrix: &Matrix, n: usize) -> Matrix {
    let mut result = Matrix::zeros(matrix.rows, matrix.rows);
    for i in 0..matrix.rows {
        *result.at(i, i) = 1.0;
    }
    for _ in 0..n {
        result = matrix.times(&result);
    }
    result
}

/// Solves `x = b + a1 a2 a3 x`: the state entering a ring of three stretches.
fn close([a1, a2, a3]: [&Matrix; 3], b: Vec<f64>) -> Result<Vec<f64>, AbacusError> {
    let n = b.len();
    let around = a1.times(&a2.times(a3));
    let mut rows: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let mut row: Vec<f64> = (0..n)
                .map(|j| f64::from(u8::from(i == j)) - around.data[i * n + j])
                .collect();
            row.push(b[i]);
            row
        })
        .collect();
    // Gaussian elimination with partial pivoting.
    for c in 0..n {
        let pivot = (c..n)
            .max_by(|&i, &j| rows[i][c].abs().total_cmp(&rows[j][c].abs()))
            .unwrap_or(c);
        rows.swap(c, pivot);
        if rows[c][c] == 0.0 || !rows[c][c].is_finite() {
            return Err(crate::interp::EvalError::SingularScan.into());
        }
        for i in c + 1..n {
            let factor = rows[i][c] / rows[c][c];
            if factor != 0.0 {
                let (done, below) = rows.split_at_mut(i);
                for (x, p) in below[0].iter_mut().zip(&done[c]).skip(c) {
                    *x -= factor * p;
                }
            }
        }
    }
    let mut x = vec![0.0; n];
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| rows[i][j] * x[j]).sum();
        x[i] = (rows[i][n] - known) / rows[i][i];
    }
    Ok(x)
}
