//! Values of single sites, computed on demand.
//!
//! After a local change only a few sites carry new local values. This evaluator
//! computes the value of a node at one site from what it needs and nothing else:
//! unchanged local values and constants come from the background, mixer outputs
//! from the background plus the updates found so far.

use super::support::tokens_seeing;
use super::{AbacusError, Network};
use crate::check::core::Place;
use crate::interp::{Context, Evaluation, Operand, Tensor, TokenLattice, eval_node};
use crate::ir::kinds::Dependence;
use crate::ir::{NodeId, NodeType, Op};
use std::collections::{BTreeSet, HashMap};

/// Where a mixer's output is taken from.
#[derive(Clone, Debug, PartialEq)]
pub enum MixerOutputs {
    /// The background's, plus updates where present: `y_k + Dy_k`, by (mixer, site).
    Updated(HashMap<(usize, usize), Vec<f64>>),
    /// Zero except one component of one mixer: (mixer, component). Gives
    /// coefficients instead of values.
    Unit(Option<(usize, usize)>),
}

/// On-demand values of one configuration that differs from a background on a
/// cluster of spins.
pub struct SiteValues<'a> {
    net: &'a Network<'a>,
    background: &'a Evaluation,
    context: Context<'a>,
    /// Tokens at which a local node differs from the background, per node.
    stale: HashMap<NodeId, BTreeSet<usize>>,
    flips: Vec<usize>,
    locals: HashMap<(NodeId, usize), Tensor>,
    linears: HashMap<(NodeId, usize), Tensor>,
    outputs: MixerOutputs,
}

impl<'a> SiteValues<'a> {
    /// Values of `spins`, which is the background with `flips` flipped.
    ///
    /// # Errors
    /// A configuration that does not fit the lattice.
    pub fn new(
        net: &'a Network<'a>,
        background: &'a Evaluation,
        spins: &'a [i8],
        flips: &[usize],
    ) -> Result<SiteValues<'a>, AbacusError> {
        Ok(SiteValues {
            net,
            background,
            context: Context::new(net.lattice, &net.params, spins)?,
            stale: HashMap::new(),
            flips: flips.to_vec(),
            locals: HashMap::new(),
            linears: HashMap::new(),
            outputs: MixerOutputs::Updated(HashMap::new()),
        })
    }

    /// Changes where mixer outputs come from; forgets linear values.
    pub fn set_outputs(&mut self, outputs: MixerOutputs) {
        if self.outputs != outputs {
            self.outputs = outputs;
            self.linears.clear();
        }
    }

    /// The value of a constant, local or linear node at one site.
    ///
    /// # Errors
    /// [`AbacusError::Internal`] if the node has no value per site.
    pub fn at(&mut self, node: NodeId, site: usize) -> Result<Tensor, AbacusError> {
        match self.net.form.kinds.get(node) {
            Dependence::Const => Ok(self.row(node, site)),
            Dependence::Local(window) => {
                let (graph, lattice) = (self.net.graph, self.net.lattice);
                let Place::Site(token) = graph.ty(node).place else {
                    return Err(AbacusError::internal("a local value off the sites"));
                };
                let flips = &self.flips;
                let stale = self
                    .stale
                    .entry(node)
                    .or_insert_with(|| tokens_seeing(window, token, lattice, flips));
                if !stale.contains(&site) {
                    return Ok(self.row(node, site));
                }
                if let Some(v) = self.locals.get(&(node, site)) {
                    return Ok(v.clone());
                }
                let value = self.compute(node, site)?;
                self.locals.insert((node, site), value.clone());
                Ok(value)
            }
            Dependence::Linear => {
                if let Some(m) = self.net.form.mixer_of(node) {
                    return Ok(self.output(m, node, site));
                }
                if let Some(v) = self.linears.get(&(node, site)) {
                    return Ok(v.clone());
                }
                let value = self.compute(node, site)?;
                self.linears.insert((node, site), value.clone());
                Ok(value)
            }
            _ => Err(AbacusError::internal(
                "a pooled value was asked for at a site",
            )),
        }
    }

    fn output(&self, m: usize, node: NodeId, site: usize) -> Tensor {
        let mut y = self.row(node, site);
        match &self.outputs {
            MixerOutputs::Updated(updates) => {
                if let Some(dy) = updates.get(&(m, site)) {
                    y.data.iter_mut().zip(dy).for_each(|(y, d)| *y += d);
                }
            }
            MixerOutputs::Unit(unit) => {
                y.data.fill(0.0);
                if let Some((k, component)) = *unit
                    && k == m
                {
                    y.data[component] = 1.0;
                }
            }
        }
        y
    }

    /// The background's value at a site; the whole value if it has no sites.
    fn row(&self, node: NodeId, site: usize) -> Tensor {
        let value = self.background.value(node);
        if self.net.graph.ty(node).place == Place::Whole {
            return value.clone();
        }
        let shape = value.shape[1..].to_vec();
        let len = shape.iter().product::<usize>();
        Tensor {
            shape,
            data: value.data[site * len..(site + 1) * len].to_vec(),
        }
    }

    fn compute(&mut self, node: NodeId, site: usize) -> Result<Tensor, AbacusError> {
        let graph = self.net.graph;
        let args = graph.args(node);
        match graph.op(node) {
            Op::Spins => return Ok(Tensor::scalar(f64::from(self.context.spins()[site]))),
            Op::Window { .. }
            | Op::WindowAdjoint { .. }
            | Op::Patch { .. }
            | Op::Unpatch { .. } => {
                return self.gathered(node, site);
            }
            _ => {}
        }
        let mut values = Vec::with_capacity(args.len());
        for &a in args {
            let place = graph.ty(a).place;
            if !matches!(place, Place::Whole | Place::Site(_)) {
                return Err(AbacusError::internal(
                    "a site-local operation reads a value off the sites",
                ));
            }
            values.push((whole(graph.ty(a)), self.at(a, site)?));
        }
        let operands: Vec<Operand> = values
            .iter()
            .map(|(ty, value)| Operand { ty, value })
            .collect();
        Ok(eval_node(
            graph.op(node),
            &whole(graph.ty(node)),
            &operands,
            &self.context,
        )?)
    }

    /// Site-moving operations, one result site from the operand's sites.
    fn gathered(&mut self, node: NodeId, site: usize) -> Result<Tensor, AbacusError> {
        let operand = self.net.graph.args(node)[0];
        let ty = self.net.graph.ty(node).clone();
        let shape = ty
            .shape
            .iter()
            .map(|&d| Ok(self.context.dim(d)?))
            .collect::<Result<Vec<_>, AbacusError>>()?;
        let mut out = Tensor::zeros(&shape);
        for (to, from_site, from) in moves(self.net, node, site)? {
            let x = self.at(operand, from_site)?;
            let len = match self.net.graph.op(node) {
                Op::WindowAdjoint { .. } | Op::Unpatch { .. } => out.data.len(),
                _ => x.data.len(),
            };
            for c in 0..len {
                out.data[to * len + c] += x.data[from * len + c];
            }
        }
        Ok(out)
    }
}

/// What a site-moving operation reads for one result site: (leading index of
/// the result, operand site, leading index of the operand); a leading index is
/// 0 where that side has no such axis.
///
/// # Errors
/// [`AbacusError::Internal`] if the node moves no sites.
pub fn moves(
    net: &Network,
    node: NodeId,
    site: usize,
) -> Result<Vec<(usize, usize, usize)>, AbacusError> {
    let graph = net.graph;
    let to = net.tokens(node)?;
    let from = net.tokens(graph.args(node)[0])?;
    let offsets = |lo: [i64; 2], hi: [i64; 2]| {
        (lo[0]..=hi[0])
            .flat_map(move |x| (lo[1]..=hi[1]).map(move |y| [x, y]))
            .enumerate()
    };
    Ok(match *graph.op(node) {
        Op::Window { lo, hi } => offsets(lo, hi)
            .filter_map(|(r, d)| Some((r, from.neighbour(site, d)?, 0)))
            .collect(),
        Op::WindowAdjoint { lo, hi } => offsets(lo, hi)
            .filter_map(|(r, d)| Some((0, from.neighbour(site, [-d[0], -d[1]])?, r)))
            .collect(),
        Op::Patch { ratio } => {
            let at = to.coordinates(site);
            parts(ratio)
                .map(|(r, p)| {
                    (
                        r,
                        from.site([at[0] * ratio[0] + p[0], at[1] * ratio[1] + p[1]]),
                        0,
                    )
                })
                .collect()
        }
        Op::Unpatch { ratio } => {
            let at = to.coordinates(site);
            let home = from.site([at[0] / ratio[0], at[1] / ratio[1]]);
            vec![(0, home, (at[0] % ratio[0]) * ratio[1] + at[1] % ratio[1])]
        }
        _ => {
            return Err(AbacusError::internal(
                "an operation that moves no sites was asked for its moves",
            ));
        }
    })
}

fn parts(ratio: [usize; 2]) -> impl Iterator<Item = (usize, [usize; 2])> {
    (0..ratio[0])
        .flat_map(move |x| (0..ratio[1]).map(move |y| [x, y]))
        .enumerate()
}

fn whole(ty: &NodeType) -> NodeType {
    NodeType {
        place: Place::Whole,
        shape: ty.shape.clone(),
    }
}

impl Network<'_> {
    /// The lattice of tokens a node lives on.
    ///
    /// # Errors
    /// Tokens that do not tile the lattice.
    pub fn tokens(&self, node: NodeId) -> Result<TokenLattice, AbacusError> {
        match self.graph.ty(node).place {
            Place::Site(token) => Ok(TokenLattice::new(self.lattice, token)?),
            _ => Err(AbacusError::internal(
                "a value off the sites was asked for its tokens",
            )),
        }
    }
}
