//! Costs of updates by environments, counted from their recurrences.
//!
//! With `f, g` the right- and left-moving states of a mixer (module
//! [`realisation`](crate::pass::link::realisation)), everything left of a bond is
//!
//! ```text
//! f_m = F_m + sum_{k<m} E_mk g_k,      Omega = w + sum_k t_k g_k
//! ```
//!
//! affine in the left-moving states `g_k` that arrive over the bond. One site
//! more, with `g'_k` arriving behind it, is in order m = 1..M
//!
//! ```text
//! v_m  = S_m + sum_k A_mk y_k
//! g_m  = Lb g'_m + Bb v_m
//! f'_m = Lf ( F_m + sum_k ( E_mk Lb g'_k + (E_mk Bb) v_k ) ) + Bf v_m
//! y_m  = D v_m + Cf f'_m + (Cb Lb) g'_m
//! w, t <- the same with t_k, and + q + sum_k R_k y_k
//! ```
//!
//! every line once per column: the constant and one per component of the `g'_k`
//! it depends on. On a ring the states `phi_k` that enter at the far end are
//! columns too, the left end's outputs are kept as well, and each `f_m` carries
//! its own transmission, block by block. Right environments mirror left ones.
//! Zeros by structure are not counted: transitions are diagonal, diagonal plus
//! rank one, or dense per channel; stencils copy. Coefficients of a complex
//! recurrence count as complex, also those that happen to be real.

use super::UpdateCost;
use super::formula::Formula;
use super::links::{Sites, hull, local_part};
use super::nodes::{entries, width};
use crate::check::core::{Dim, Place};
use crate::ir::{Boundary, Graph, NodeId, Op};
use crate::pass::cluster::Cluster;
use crate::pass::normal_form::{MixerClass, NormalForm, PoolKind};

/// A mixer as a pair of recurrences: sizes, and multiply-adds per state.
#[derive(Clone, Copy, Debug)]
struct States {
    inputs: usize,
    outputs: usize,
    right: usize,
    left: usize,
    /// Of `L x`.
    transition: usize,
    /// Nonzero elements per row of a power of L.
    coupled: usize,
    /// Of `B v` and of `C f`.
    signal: usize,
    /// Nonzero elements of D.
    direct: usize,
}

impl States {
    fn new(graph: &Graph, id: NodeId) -> Option<States> {
        let count = |id: NodeId| -> Option<usize> {
            let fixed = |d: &Dim| match *d {
                Dim::Static(n) => Some(n),
                Dim::Sites { .. } => None,
            };
            graph.ty(id).shape.iter().map(fixed).product()
        };
        let (inputs, outputs) = (count(graph.args(id)[0])?, count(id)?);
        // Shift registers hold the site itself and the neighbours on their side.
        let stencil = |before: i64, after: i64| States {
            inputs,
            outputs,
            right: (before.max(0) as usize + 1) * inputs,
            left: (after.max(0) as usize + 1) * inputs,
            transition: 0,
            coupled: 0,
            signal: 0,
            direct: 0,
        };
        match *graph.op(id) {
            Op::Scan(scan) => {
                let output = graph.ty(*graph.args(id).last()?);
                let Some(&Dim::Static(n)) = output.shape.get(usize::from(scan.complex)) else {
                    return None;
                };
                let parts = if scan.complex { 2 } else { 1 };
                let block = if scan.dense || scan.low_rank { n } else { 1 };
                let transition = if scan.dense { n } else { 1 } + if scan.low_rank { 2 } else { 0 };
                let directions = [!scan.leftward || scan.mirror, scan.leftward || scan.mirror];
                let [right, left] = directions.map(|d| if d { n * inputs } else { 0 });
                Some(States {
                    inputs,
                    outputs,
                    right,
                    left,
                    transition: parts * transition,
                    coupled: parts * block,
                    signal: parts,
                    // y reads the left-moving state after the site has entered it.
                    direct: if left > 0 { inputs * parts } else { 0 },
                })
            }
            Op::Window { lo, hi } if lo[1] == 0 && hi[1] == 0 => Some(stencil(-lo[0], hi[0])),
            Op::WindowAdjoint { lo, hi } if lo[1] == 0 && hi[1] == 0 => {
                Some(stencil(hi[0], -lo[0]))
            }
            _ => None,
        }
    }

    /// The other direction: `y = (D + Cf Bf - Cb Bb) v + Cb g_i + Cf Lf f_(i-1)`.
    fn mirrored(self) -> States {
        States {
            right: self.left,
            left: self.right,
            direct: if self.right > 0 {
                self.inputs * self.signal
            } else {
                0
            },
            ..self
        }
    }
}

/// Counts for one environment of a network and for its application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Multiply-adds of one site more on the left environment.
    pub extend_left_part: usize,
    /// Multiply-adds of one site more on the right environment.
    pub extend_right_part: usize,
    /// Numbers of a left environment.
    pub left_part: usize,
    /// Numbers of a right environment.
    pub right_part: usize,
    /// Multiply-adds of features between both, per slice site and apart from it.
    pub apply: [usize; 2],
}

impl Environment {
    /// Counts for a network whose mixers are recurrences or stencils along a chain
    /// of tokens of one size; `None` for others.
    pub fn new(graph: &Graph, form: &NormalForm, boundary: Boundary) -> Option<Environment> {
        let token = form.mixers.first()?.source_token;
        let one_token = form
            .mixers
            .iter()
            .all(|m| m.source_token == token && m.class != MixerClass::Coarsening)
            && form
                .pools
                .iter()
                .all(|p| p.token == token && p.kind == PoolKind::Sum);
        if !one_token || token.0[1] != 1 {
            return None;
        }
        let mixers: Vec<States> = form
            .mixers
            .iter()
            .map(|m| States::new(graph, m.output))
            .collect::<Option<_>>()?;
        let features = form
            .pools
            .iter()
            .map(|p| width(graph.ty(p.output)).at(1.0) as usize)
            .collect();
        let ring = boundary == Boundary::Periodic;
        let count = Count {
            form,
            mixers,
            features,
            ring,
        };
        let mirror = Count {
            mixers: count.mixers.iter().map(|m| m.mirrored()).collect(),
            features: count.features.clone(),
            ..count
        };
        Some(Environment {
            extend_left_part: count.extend(),
            extend_right_part: mirror.extend(),
            left_part: count.kept(),
            right_part: mirror.kept(),
            apply: [count.per_site(), count.between() + mirror.between()],
        })
    }
}

/// Counting for a left environment; for a right one with the directions exchanged.
struct Count<'a> {
    form: &'a NormalForm,
    mixers: Vec<States>,
    features: Vec<usize>,
    ring: bool,
}

impl Count<'_> {
    /// The mixers that reach mixer m's input.
    fn reach(&self, m: usize) -> impl Iterator<Item = usize> + '_ {
        (0..m).filter(move |&k| self.form.linked(m, k))
    }
    /// The mixers that reach the features of a pool.
    fn pooled(&self, p: usize) -> impl Iterator<Item = usize> + '_ {
        let vertices = &self.form.pools[p].affine.vertices;
        let read = |l: usize| vertices.get(&l).is_some_and(|v| !v.coefficient.is_zero());
        (0..self.mixers.len())
            .filter(move |&k| (k..self.mixers.len()).any(|l| read(l) && self.form.linked(l, k)))
    }
    /// Columns of one mixer's states.
    fn own(&self, k: usize) -> usize {
        self.mixers[k].left + if self.ring { self.mixers[k].right } else { 0 }
    }
    /// Columns of `v_m`.
    fn columns(&self, m: usize) -> usize {
        1 + self.reach(m).map(|k| self.own(k)).sum::<usize>()
    }
    /// Columns of `y_m`: also the mixer's own states.
    fn columns_out(&self, m: usize) -> usize {
        let own = &self.mixers[m];
        // A component of y sees the states of its own channel only.
        let seen = |states: usize| (states * own.signal).div_ceil(own.outputs.max(1));
        let mine = seen(own.left) + if self.ring { seen(own.right) } else { 0 };
        self.columns(m) + mine
    }
    /// Multiply-adds of `X g_k` for the rows of X, `g_k = Lb g'_k + Bb v_k`.
    fn substitute(&self, rows: usize, k: usize) -> usize {
        let from = &self.mixers[k];
        if from.left == 0 {
            return 0;
        }
        rows * (from.left * (from.transition + from.signal) + from.inputs * self.columns(k))
    }
    /// Multiply-adds of the vertices that read mixer outputs into `rows` rows.
    fn read(&self, rows: usize, from: impl Iterator<Item = usize>) -> usize {
        from.map(|k| rows * self.mixers[k].outputs * self.columns_out(k))
            .sum()
    }

    /// One site more.
    fn extend(&self) -> usize {
        let form = self.form;
        let mut total = 0;
        for (m, own) in self.mixers.iter().enumerate() {
            let columns = self.columns(m);
            let vertices = form.mixers[m].affine.vertices.iter();
            let vertices = vertices.filter(|(_, v)| !v.coefficient.is_zero());
            total += self.read(own.inputs, vertices.map(|(&k, _)| k));
            // g_m = Lb g'_m + Bb v_m is used through E Bb and E Lb only.
            total += self
                .reach(m)
                .map(|k| self.substitute(own.right, k))
                .sum::<usize>();
            total += own.right * (own.transition + own.signal) * columns;
            total += (own.direct + own.right * own.signal) * columns;
            if self.ring {
                // Transmission moves on and is read; the far end's outputs follow.
                total += own.right * own.coupled * (own.transition + own.signal);
                total += self
                    .reach(m)
                    .map(|k| self.substitute(own.left, k))
                    .sum::<usize>();
                total += own.left * own.coupled * (own.transition + own.signal);
                total += own.left * own.signal * columns;
            }
        }
        for (p, pool) in form.pools.iter().enumerate() {
            let rows = self.features[p];
            let vertices = pool.affine.vertices.iter();
            let vertices = vertices.filter(|(_, v)| !v.coefficient.is_zero());
            total += self.read(rows, vertices.map(|(&k, _)| k));
            total += self
                .pooled(p)
                .map(|k| self.substitute(rows, k))
                .sum::<usize>();
        }
        total
    }

    /// Numbers kept: F, E, w, t; on a ring also the far end's and transmission.
    fn kept(&self) -> usize {
        let mixers = self.mixers.iter().enumerate().map(|(m, own)| {
            let near = own.right * self.columns(m);
            if self.ring {
                near + own.left * self.columns(m) + (own.right + own.left) * own.coupled
            } else {
                near
            }
        });
        let pools = self
            .features
            .iter()
            .enumerate()
            .map(|(p, rows)| rows * (1 + self.pooled(p).map(|k| self.own(k)).sum::<usize>()));
        mixers.sum::<usize>() + pools.sum::<usize>()
    }

    /// Numbers of the environment applied once: states on its bond and features.
    fn between(&self) -> usize {
        let mixers = self.mixers.iter().enumerate().map(|(m, own)| {
            let linked: usize = self.reach(m).map(|k| self.own(k)).sum();
            if self.ring {
                // Both ends; the loop is closed through each of three stretches.
                (own.right + own.left) * linked + 3 * own.right * own.coupled
            } else {
                own.right * linked
            }
        });
        let pools = self
            .features
            .iter()
            .enumerate()
            .map(|(p, rows)| rows * self.pooled(p).map(|k| self.own(k)).sum::<usize>());
        mixers.sum::<usize>() + pools.sum::<usize>()
    }

    /// One site of the slice: numbers instead of columns.
    fn per_site(&self) -> usize {
        let form = self.form;
        let read = |rows: usize, affine: &crate::pass::normal_form::Affine| -> usize {
            let vertices = affine.vertices.iter();
            let vertices = vertices.filter(|(_, v)| !v.coefficient.is_zero());
            vertices.map(|(&k, _)| rows * self.mixers[k].outputs).sum()
        };
        let mixers = self.mixers.iter().enumerate().map(|(m, own)| {
            // On a ring the states of the slice pass it once more to find its start.
            let passes = if self.ring { 2 } else { 1 };
            let states = own.right + own.left;
            read(own.inputs, &form.mixers[m].affine)
                + passes * states * (own.transition + own.signal)
                + states * own.signal
                + own.direct
        });
        let pools = form.pools.iter().enumerate();
        let pools = pools.map(|(p, pool)| read(self.features[p], &pool.affine));
        mixers.sum::<usize>() + pools.sum::<usize>()
    }
}

/// Updates by environments, where they exist.
pub(super) fn cost(
    graph: &Graph,
    form: &NormalForm,
    cluster: &Cluster,
    boundary: Boundary,
) -> Option<UpdateCost> {
    let one = Environment::new(graph, form, boundary)?;
    let token = form.mixers.first()?.source_token;
    let sites = Sites { form, cluster };
    let mut cost = UpdateCost::default();
    local_part(graph, form, &sites, &mut cost);
    let mixers = form.mixers.iter().flat_map(|m| m.affine.coefficients());
    let pools = form.pools.iter().flat_map(|p| p.affine.coefficients());
    let slice = hull(mixers.chain(pools)).map_or(0, |w| cluster.stretch(w, token));
    let number = |x: usize| Formula::constant(x as f64);
    let count = entries(Place::Site(token));
    let kept = one.left_part + one.right_part;
    // Every bond's two environments, each read and written once.
    cost.build.add(
        count.scaled((one.extend_left_part + one.extend_right_part) as f64),
        count.scaled(2.0 * kept as f64),
    );
    let [per_site, between] = one.apply;
    cost.update
        .add(number(slice * per_site + between), number(kept));
    cost.cache = count.scaled(kept as f64 * super::WORD);
    let full = super::full(graph);
    cost.build.operations += full.operations;
    cost.build.bytes += full.bytes;
    Some(cost)
}
