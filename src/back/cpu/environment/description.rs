//! Environments as numbers, for a back end that walks along the chain itself.

use super::coefficients::constants;
use super::mixer::{Direction, MixerTables};
use super::placing::{Element, Placing};
use super::{Environments, Refusal, most};
use crate::back::cpu::compiled::Compiled;
use crate::back::cpu::simd::Real;
use crate::ir::{Graph, Lattice, NodeId};
use crate::pass::flips::Frontier;
use crate::pass::vertices::Vertices;

/// Tokens that are evaluated directly at once, beyond those that are only seen.
const STRETCH: usize = 16;

/// All tables of [`Environments`], of one parameter set. Numbers in working precision
/// are given in f64.
pub(in crate::back) struct Description {
    /// Spins of a token.
    pub token: usize,
    /// Tokens of the chain.
    pub tokens: usize,
    /// Whether it is closed.
    pub ring: bool,
    /// Tokens before and after a flipped one that see it.
    pub reach: [usize; 2],
    /// Tokens a segment may pass, and that may be proposed, at once.
    pub step: usize,
    /// Most tokens between two segments.
    pub most: usize,
    /// The mixers in order.
    pub mixers: Vec<Mixer>,
    /// Coefficients of a token, one after the other.
    pub pieces: Vec<Piece>,
    /// Numbers per token.
    pub block: usize,
    /// The piece of q, and the numbers between columns of the `R_k`.
    pub constant: usize,
    /// Numbers between columns of the `R_k`.
    pub column: usize,
    /// What Omega is without anything pooled.
    pub features: Vec<f64>,
    /// First and last token a token sees.
    pub window: [i64; 2],
    /// Whether all pieces have rows.
    pub tabulated: bool,
    /// Tokens of a chain on which coefficients are evaluated directly, if any are.
    pub patch: Option<usize>,
    /// Constant part of every number of a token.
    pub base: Vec<f64>,
    /// Number of a token, result on sites, weight: what else it is made of, in order.
    pub terms: Vec<(usize, usize, f64)>,
}

/// One coefficient of a token.
pub(in crate::back) struct Piece {
    /// Its first number in the block of the token.
    pub start: usize,
    /// Numbers.
    pub len: usize,
    /// First token it reads, and how many.
    pub window: [i64; 2],
    /// Its numbers for all patterns of spins in its window, the first spin being the
    /// lowest bit; empty if it is evaluated.
    pub rows: Vec<f64>,
}

/// One mixer; see [`MixerTables`].
#[allow(missing_docs)]
pub(in crate::back) struct Mixer {
    pub channels: usize,
    pub parts: usize,
    pub width: usize,
    pub padded: usize,
    pub reach: usize,
    pub toeplitz: Vec<f64>,
    pub lanes: Vec<f64>,
    /// To the right, to the left.
    pub directions: [Way; 2],
    /// The piece of its source, and what that sees.
    pub source: usize,
    pub window: Option<[i64; 2]>,
    /// Earlier mixers and the pieces of the vertices that act on them.
    pub vertices: Vec<(usize, usize)>,
    /// The piece by which features read it.
    pub readout: Option<usize>,
}

/// A direction of a mixer; see [`Direction`].
pub(in crate::back) struct Way {
    /// States of a channel.
    pub p: usize,
    /// All states.
    pub states: usize,
    /// powers, transposed, inject, inject_back, read, readout, sent, sent_back, closure.
    pub tables: [Vec<f64>; 9],
}

/// Environments that can be described anew when parameters change.
pub(in crate::back) trait Described: Send + Sync {
    /// The tables.
    ///
    /// # Errors
    /// See [`Refusal`].
    fn description(&self) -> Result<Description, Refusal>;
    /// Follows new parameters.
    ///
    /// # Errors
    /// See [`Refusal`]; the environments are then of no further use.
    fn set_params(&mut self, theta: &[f64]) -> Result<(), Refusal>;
    /// The graph of the coefficients, and the nodes that are its results on sites.
    fn coefficients(&self) -> (&Graph, &[NodeId]);
    /// The graph from features to log psi, and the parameters that are the features.
    ///
    /// # Errors
    /// See [`Refusal`].
    fn readout(&self) -> Result<(Graph, Vec<u32>), Refusal>;
}

/// Environments of a network in working precision `T`, with the network.
struct Host<T: Real> {
    network: Compiled<T>,
    environments: Environments<T>,
    /// Every coefficient as a node, and where it is in the block of a token.
    vertices: Graph,
    place: Placing,
}

/// Derives environments for a network.
///
/// # Errors
/// See [`Refusal`].
pub(in crate::back) fn describe<T: Real>(
    graph: &Graph,
    lattice: Lattice,
    theta: &[f64],
) -> Result<Box<dyn Described>, Refusal> {
    let network = Compiled::<T>::new(graph.clone(), lattice, theta, false)?;
    let environments = Environments::new(&network)?;
    let vertices = Vertices::new(graph, &environments.form, lattice)?;
    let mut place = Placing::default();
    place.all(&vertices, environments.features.count);
    Ok(Box::new(Host {
        network,
        environments,
        vertices: vertices.graph,
        place,
    }))
}

impl<T: Real> Described for Host<T> {
    fn description(&self) -> Result<Description, Refusal> {
        let (place, token) = (&self.place, self.environments.token);
        let theta = self.network.params();
        let fixed = constants(&self.vertices, &place.fixed, theta, token)?;
        Ok(self.environments.description(place, &fixed))
    }
    fn set_params(&mut self, theta: &[f64]) -> Result<(), Refusal> {
        let prepared = self.network.prepare(theta)?;
        self.network.install(prepared);
        self.environments.set_params(&self.network)
    }
    fn coefficients(&self) -> (&Graph, &[NodeId]) {
        (&self.vertices, &self.place.sites)
    }
    fn readout(&self) -> Result<(Graph, Vec<u32>), Refusal> {
        let graph = self.network.graph();
        let frontier = Frontier::new(graph, &self.environments.form)?;
        Ok(frontier.readout(graph))
    }
}

fn wide<T: Real>(numbers: &[T]) -> Vec<f64> {
    numbers.iter().map(|x| x.widened()).collect()
}

impl Way {
    fn new<T: Real>(d: &Direction<T>) -> Way {
        let joined = |all: &[Vec<T>]| all.iter().flat_map(|m| wide(m)).collect();
        Way {
            p: d.p,
            states: d.states,
            tables: [
                joined(&d.powers),
                joined(&d.transposed),
                wide(&d.inject),
                wide(&d.inject_back),
                wide(&d.read),
                wide(&d.readout),
                wide(&d.sent),
                wide(&d.sent_back),
                wide(&d.closure),
            ],
        }
    }
}

impl<T: Real> Environments<T> {
    /// The tables as numbers.
    fn description(&self, place: &Placing, fixed: &[f64]) -> Description {
        let (c, layout) = (&self.coefficients, &place.layout);
        let piece = |start: usize| {
            let found = place.placed.iter().position(|p| p.start == start);
            found.unwrap_or_else(|| unreachable!("every coefficient was placed"))
        };
        let mixer = |(m, t): (usize, &MixerTables<T>)| {
            let source = piece(layout.source[m]);
            Mixer {
                channels: t.channels,
                parts: t.parts,
                width: t.width,
                padded: t.padded,
                reach: t.reach,
                toeplitz: wide(&t.toeplitz),
                lanes: wide(&t.lanes),
                directions: [Way::new(&t.right), Way::new(&t.left)],
                source,
                window: place.placed[source].window,
                vertices: (layout.vertices[m].iter())
                    .map(|&(k, at)| (k, piece(at)))
                    .collect(),
                readout: (layout.readout.iter())
                    .find(|r| r.0 == m)
                    .map(|r| piece(r.1)),
            }
        };
        let (mut base, mut terms) = (vec![0.0; layout.size], Vec::new());
        let f = &self.features;
        for placed in &place.placed {
            for entry in &placed.entries {
                let mut add = |to: usize, weight: f64| match entry.element {
                    Element::Site(k) => terms.push((to, k, weight)),
                    Element::Fixed(k) => base[to] += weight * fixed[k],
                };
                match entry.pooled {
                    None => add(entry.to, 1.0),
                    Some(r) => (0..f.count).for_each(|h| add(entry.to + h, f.weights(r)[h])),
                }
            }
        }
        terms.sort_by_key(|t| t.0);
        let tabulated = (0..place.placed.len()).all(|k| c.rows(k).is_some());
        let length = (c.window[1] - c.window[0]) as usize + STRETCH;
        Description {
            token: self.token,
            tokens: self.tokens,
            ring: self.ring,
            reach: self.reach,
            step: self.step,
            most: most(self.reach, self.step),
            mixers: self.mixers.iter().enumerate().map(mixer).collect(),
            pieces: (place.placed.iter().enumerate())
                .map(|(k, p)| Piece {
                    start: p.start,
                    len: p.len,
                    window: p.window.map_or([0, 0], |w| [w[0], w[1] - w[0] + 1]),
                    rows: c.rows(k).map_or(Vec::new(), wide),
                })
                .collect(),
            block: layout.size,
            constant: piece(layout.constant),
            column: layout.padded,
            features: f.constant.clone(),
            window: c.window,
            tabulated,
            patch: match self.ring {
                true => (!tabulated).then_some(length),
                false => Some(length.min(self.tokens)),
            },
            base,
            terms,
        }
    }
}
