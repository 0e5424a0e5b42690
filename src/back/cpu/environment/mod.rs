//! Exact updates at any depth for chains of recurrences, and the exact sweep.
//!
//! A network in normal form whose mixers are all recurrences is cut into the
//! sites around a proposal and two `segment`s, stretches of the chain as affine
//! two-ports in the states of the mixers (docs/abacus.md Secs. 5 and 6). The
//! `slice` between them is solved exactly for every proposal; the segment behind
//! follows the accepted moves, those ahead were built once and stay valid (`walk`,
//! `kept`).
//!
//! Everything is a product of small matrices with long rows (`product`). Segments
//! `grow` by several tokens at once, so that dense powers of the state matrices cost
//! no more than structured ones (`recurrence`, `mixer`); what both segments answer to
//! the sources of a slice is worked out once for all proposals between them
//! (`links`); local coefficients come from tables or short runs of the network's own
//! compiled code (`coefficients`, `placing`); pooled features are reduced to the last
//! affine values and read out in f64 (`features`). On a ring segments also carry the
//! states through, and every mixer is closed by `(1 - L^N)^-1`.
//!
//! Work per proposal is `O(M^2 S^2)` for S states of a mixer, independent of N
//! (`count`).

mod coefficients;
mod count;
pub(in crate::back) mod description;
mod features;
mod grow;
mod kept;
mod links;
mod mixer;
mod placing;
mod product;
mod recurrence;
mod reduce;
mod segment;
mod slice;
mod vectors;
mod walk;

use super::budget::Budget;
use super::compiled::{CompileError, Compiled};
use super::constants::{ConstantError, tensors};
use super::math::Precision;
use super::simd::{Isa, Real};
use crate::back::costs;
use crate::interp::{Context, Operand, Tensor, eval_node};
use crate::ir::{Boundary, Graph, NodeId, Op};
use crate::pass::normal_form::{NoNormalForm, NormalForm};
use crate::pass::vertices::{NoVertices, Vertices};
use coefficients::Coefficients;
pub use count::Products;
pub(in crate::back) use description::{Described, describe};
use features::{Features, Readout};
use mixer::MixerTables;
use recurrence::Channel;
use reduce::reduced;
use segment::Line;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use walk::IdleSweeps;

/// Tokens passed by a segment in one step, and proposed between two steps.
const STEP: usize = 16;

/// Change of a mixer's kernel allowed when its states are reduced, relative to the
/// sum of its elements: a few roundings of f32, as a sum over the chain makes.
const TOLERANCE: f64 = 5e-7;

/// Why a network has no environments.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It breaks the rules of the normal form.
    #[error(transparent)]
    NormalForm(#[from] NoNormalForm),
    /// Its coefficients or mixers are of another kind.
    #[error(transparent)]
    Vertices(#[from] NoVertices),
    /// Something that could not be derived.
    #[error("{0}")]
    Derivation(String),
    /// Something that could not be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// They do not fit the memory that networks may work in.
    #[error(
        "environments need {needed} bytes of at most {limit}, half of what networks may work in: \
         raise `--memory`"
    )]
    Memory {
        /// Bytes of one sweep.
        needed: usize,
        /// Bytes there are.
        limit: usize,
    },
    /// No periodic solution for these parameters.
    #[error("a recurrence has no periodic solution on {0} tokens")]
    Singular(usize),
}

/// Environments of a network on one lattice; see the [module](self).
pub struct Environments<T: Real> {
    form: NormalForm,
    mixers: Vec<MixerTables<T>>,
    coefficients: Coefficients<T>,
    features: Features,
    readout: Readout<T>,
    /// Spins per token.
    token: usize,
    tokens: usize,
    ring: bool,
    /// Tokens before and after a flipped one that see it.
    reach: [usize; 2],
    /// Tokens passed by a segment at once, and proposed between two segments.
    step: usize,
    isa: Isa,
    /// Numbers kept in segments ahead, at most.
    stored: usize,
    /// Where the memory comes from: the network's budget, and a half of it that all
    /// sweeps share. The rest is left to what is evaluated on the way.
    budgets: [Arc<Budget>; 2],
    /// Memory of finished sweeps: to the right, to the left.
    idle: [Arc<IdleSweeps<T>>; 2],
}

impl<T: Real> Environments<T> {
    /// Derives and compiles environments for a compiled network.
    ///
    /// # Errors
    /// See [`Refusal`]: then changes are evaluated some other way.
    pub fn new(network: &Compiled<T>) -> Result<Environments<T>, Refusal> {
        let (graph, lattice) = (network.graph(), network.lattice());
        let form = NormalForm::new(graph)?;
        let vertices = Vertices::new(graph, &form, lattice)?;
        let token = vertices.token.0[0];
        if !lattice.extent[0].is_multiple_of(token) {
            return Err(Refusal::Derivation("tokens do not tile the chain".into()));
        }
        let tokens = lattice.extent[0] / token;
        let ring = lattice.boundary == Boundary::Periodic;
        let readout = Readout::new(network, &form)?;
        let features = readout.features(network, &form)?;
        let window = vertices.window();
        let reach = [window[1] as usize, -window[0] as usize];
        let mixers = tables(network, &form, &vertices.outputs, most(reach, STEP))?;
        let theta = network.params();
        let coefficients = Coefficients::new(vertices, lattice, theta, &features)?;
        let budget = network.budget();
        let half = Budget::new(budget.limit() / 2);
        let mut environments = Environments {
            form,
            mixers,
            coefficients,
            features,
            readout,
            token,
            tokens,
            ring,
            reach,
            step: STEP,
            isa: Isa::detect(),
            stored: 0,
            budgets: [Arc::new(half), budget.clone()],
            idle: Default::default(),
        };
        environments.plan_memory()?;
        Ok(environments)
    }

    /// How much is kept: all there is room for when every thread sweeps.
    fn plan_memory(&mut self) -> Result<(), Refusal> {
        // memory is laid out by the order of the states
        self.idle = Default::default();
        for budget in &self.budgets {
            for idle in &self.idle {
                let weak: Weak<IdleSweeps<T>> = Arc::downgrade(idle);
                budget.register(weak);
            }
        }
        let limit = self.budgets[0].limit();
        self.stored = 0;
        let least = self.bytes();
        if least > limit {
            return Err(Refusal::Memory {
                needed: least,
                limit,
            });
        }
        let share = limit / rayon::current_num_threads();
        self.stored = (share.saturating_sub(least) / size_of::<T>()).min(walk::STORED);
        Ok(())
    }

    /// Follows new parameters of the network.
    ///
    /// # Errors
    /// See [`Refusal`]; the environments are then of no further use.
    pub fn set_params(&mut self, network: &Compiled<T>) -> Result<(), Refusal> {
        let widths: Vec<usize> = self.mixers.iter().map(|m| m.width).collect();
        self.mixers = tables(network, &self.form, &widths, most(self.reach, self.step))?;
        self.readout.set_params(network.params())?;
        self.features = self.readout.features(network, &self.form)?;
        self.coefficients
            .set_params(network.params(), &self.features)?;
        self.plan_memory()
    }

    /// States per channel and direction of every mixer, after reduction, and how
    /// coefficients are found.
    pub fn describe(&self) -> String {
        let states = |m: &MixerTables<T>| format!("{} x {}", m.channels, m.right.p.max(m.left.p));
        let mixers: Vec<String> = self.mixers.iter().map(states).collect();
        let how = self.coefficients.describe();
        format!("states {}; coefficients {how}", mixers.join(", "))
    }

    /// Work per proposal, in the units of [`super::work::work`].
    pub fn work(&self) -> f64 {
        let costs = costs::in_force();
        let products = costs.environment * self.products().total();
        costs.proposal + products + self.coefficients.work()
    }

    fn line(&self) -> Line<'_, T> {
        Line {
            mixers: &self.mixers,
            layout: &self.coefficients.layout,
            isa: self.isa,
            ring: self.ring,
            step: self.step,
        }
    }
}

/// Most sites between two segments.
fn most(reach: [usize; 2], step: usize) -> usize {
    let seen = reach[0] + reach[1];
    (step + seen).max(2 * seen)
}

/// The tables of all mixers.
fn tables<T: Real>(
    network: &Compiled<T>,
    form: &NormalForm,
    widths: &[usize],
    most: usize,
) -> Result<Vec<MixerTables<T>>, Refusal> {
    let (graph, lattice, program) = (network.graph(), network.lattice(), network.program());
    let params = tensors(graph, program, network.params(), &[])
        .map_err(|e| CompileError::from(ConstantError::from(e)))?;
    let roots: Vec<NodeId> = form
        .mixers
        .iter()
        .flat_map(|m| graph.args(m.output)[1..].iter().copied())
        .collect();
    let spins = vec![1; lattice.sites()];
    let context = Context::new(lattice, &params, &spins)
        .map_err(|e| CompileError::from(ConstantError::from(e)))?;
    let values = values(graph, &context, &roots)?;
    // powers up to the longest slice; rows of whole vectors
    let reach = (most + 1).next_multiple_of(16) - 1;
    let mut tables = Vec::new();
    for (mixer, &width) in form.mixers.iter().zip(widths) {
        let Op::Scan(scan) = *graph.op(mixer.output) else {
            return Err(Refusal::Derivation("a mixer that is no scan".into()));
        };
        let coefficients: Vec<&Tensor> = graph.args(mixer.output)[1..]
            .iter()
            .map(|a| &values[a])
            .collect();
        let tokens = lattice.extent[0] / mixer.source_token.0[0];
        let ring = (lattice.boundary == Boundary::Periodic).then_some(tokens);
        let order = |channels: Vec<Channel>| match T::PRECISION {
            Precision::F32 => reduced(channels, tokens, ring.is_some(), TOLERANCE),
            Precision::F64 => channels,
        };
        let table = MixerTables::new(scan, &coefficients, width, reach, ring, &order)
            .ok_or(Refusal::Singular(tokens))?;
        tables.push(table);
    }
    Ok(tables)
}

/// Values of constant nodes.
fn values(
    graph: &Graph,
    context: &Context,
    roots: &[NodeId],
) -> Result<HashMap<NodeId, Tensor>, CompileError> {
    let mut needed = vec![false; graph.len()];
    roots.iter().for_each(|n| needed[n.index()] = true);
    for id in graph.ids().rev() {
        if needed[id.index()] {
            graph.args(id).iter().for_each(|a| needed[a.index()] = true);
        }
    }
    let mut values: HashMap<NodeId, Tensor> = HashMap::new();
    for id in graph.ids().filter(|id| needed[id.index()]) {
        let operands: Vec<Operand> = graph
            .args(id)
            .iter()
            .map(|&a| Operand {
                ty: graph.ty(a),
                value: &values[&a],
            })
            .collect();
        let value = eval_node(graph.op(id), graph.ty(id), &operands, context)
            .map_err(ConstantError::from)?;
        values.insert(id, value);
    }
    Ok(values)
}
