//! All local changes of one shape as a single site-local program.
//!
//! A *shape* is a set of spins relative to the first spin of a token: `[0]` the
//! first spin of the token, `[0, 1]` it and its right neighbour. Changing the
//! shape at every token of a background gives as many configurations as there
//! are tokens; here they are evaluated side by side. Whatever changed at offset a
//! from the token is a value *per token*, namely a function of the background
//! seen through a window shifted by a, with the changed spins substituted. So
//! the update
//!
//! ```text
//! e_m    = DS_m + sum_{k<m} DA_mk ( y_k + Dy_k )      emission into mixer m
//! Dy_m   = sum_{k<=m} L_mk e_k                         where a changed coefficient reads it
//! DOmega = sum ( Dq + sum_k DR_k ( y_k + Dy_k ) ) + sum_m T_m e_m
//! ```
//!
//! is a graph on tokens like any other, and back ends compile it like any other.
//! It contains the background (the network itself), the final links `T_m` (a
//! reverse pass) and the links `L_mk` with k < m (the vertices `A_mk` convolved, or
//! multiplied by a matrix where a mixer is dense, `links`). Kernels of mixers enter as derived parameters
//! ([`Derived`]): functions of the network's parameters that the host computes
//! once per parameter set.
//!
//! The program ends at the *frontier*: the last values that are still affine in
//! the pooled features. It delivers the background's frontier per configuration
//! and its change per token; a second graph maps a frontier to log psi, to be
//! evaluated in f64, so that no digits are lost between extensive numbers.
//!
//! Clusters that are translates of each other are a [`Family`]; its shapes are the
//! places its corner can have inside a token. Networks of hidden units affine in
//! the spins have a shorter way ([`units`]).

mod family;
mod frontier;
mod links;
pub mod paths;
mod reads;
pub mod units;
mod values;

use crate::check::core::{Dim, Place, Token};
use crate::interp::TokenLattice;
use crate::ir::kinds::Dependence;
use crate::ir::valid::Fault;
use crate::ir::{Boundary, Graph, GraphParam, Lattice, NodeId};
use crate::pass::normal_form::{MixerClass, NoNormalForm, NormalForm, PoolKind};
use crate::pass::reverse::ReverseError;
pub use family::Family;
pub(crate) use frontier::Frontier;
use paths::Path;
use values::Values;

/// Spins of a local change, relative to the first spin of a token.
pub type Shape = Vec<[i64; 2]>;

/// Largest number of frontier elements: each needs a reverse pass.
const MAX_FRONTIER: usize = 32;

/// Most numbers of derived parameters on pairs of tokens, which grow with the square of the
/// lattice.
const MAX_PAIRS: usize = 1 << 25;

/// Why local changes of a network have no such program.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoFlips {
    /// The network breaks the rules of the normal form.
    #[error(transparent)]
    NormalForm(#[from] NoNormalForm),
    /// Something the program cannot express.
    #[error("{0}")]
    Unsupported(String),
    /// The windows of a change cover the lattice.
    #[error("a local change reaches {tokens} tokens of an axis that has {extent}")]
    Covers {
        /// Tokens reached along the axis.
        tokens: i64,
        /// Tokens there are.
        extent: i64,
    },
    /// Final links could not be derived.
    #[error(transparent)]
    Reverse(#[from] ReverseError),
    /// A node that could not be built.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl NoFlips {
    fn new(text: impl Into<String>) -> NoFlips {
        NoFlips::Unsupported(text.into())
    }
}

/// A parameter of the program computed from kernels of mixers, numbered as in
/// the normal form. `G(D)` is the kernel at displacement D = target - source,
/// per channel.
#[derive(Clone, Debug, PartialEq)]
pub enum Derived {
    /// `G_m(D)` for a list of displacements. Real: `[n, C]`; complex:
    /// `[n, 2, 2, C]`, the real matrix (part of the input, part of the result).
    Direct {
        /// The mixer.
        mixer: usize,
        /// D, tokens per axis.
        displacements: Vec<[i64; 2]>,
    },
    /// `C_D(n) = G_m(n + D) G_k(-n)` on displacements n: `[2, |D|, C, R]` if
    /// either is complex, else `[|D|, C, R]`; C channels of k, R of m.
    Chain {
        /// m.
        last: usize,
        /// k.
        first: usize,
        /// D, tokens per axis.
        displacements: Vec<[i64; 2]>,
        /// `G_k` conjugated.
        conjugate: bool,
    },
    /// As [`Derived::Direct`] where the kernel depends on both ends: per token i the
    /// kernel `G(i + a, i + b)` for a list of (a, b), zero beyond an open lattice.
    DirectPairs {
        /// The mixer.
        mixer: usize,
        /// (a, b), tokens per axis.
        places: Vec<([i64; 2], [i64; 2])>,
    },
    /// As [`Derived::Chain`] where a kernel depends on both ends: on pairs (i, j)
    /// `C_D(i, j) = G_m(i + D, j) G_k(j, i)`, zero beyond an open lattice, of those
    /// channels that differ.
    ChainPairs {
        /// m.
        last: usize,
        /// k.
        first: usize,
        /// Numbers of these channels, of m and of k.
        channels: [Vec<usize>; 2],
        /// D, tokens per axis.
        displacements: Vec<[i64; 2]>,
        /// `G_k` conjugated.
        conjugate: bool,
    },
    /// A path `K(i + a, i + b)` for a list of (a, b), per token i unless it depends on
    /// displacements only: `[n, parts of the input, parts of the result, blocks]`, zero
    /// beyond an open lattice.
    Path {
        /// K.
        path: Path,
        /// (a, b), tokens per axis.
        places: Vec<([i64; 2], [i64; 2])>,
    },
    /// `C_D(i, j) = K(i + D, j) K'(j, i)` for two paths K and K': on pairs (i, j), or on
    /// displacements i - j if both depend on these only; zero beyond an open lattice.
    /// The axes are parts of the input of K', parts of the result of K, D, then those in
    /// between: parts of the result of K' and parts of the input of K for equal blocks,
    /// or for all pairs of blocks, each part followed by its block.
    Joined {
        /// K.
        last: Path,
        /// K'.
        first: Path,
        /// Only equal blocks.
        diagonal: bool,
        /// D, tokens per axis.
        displacements: Vec<[i64; 2]>,
    },
}

impl Derived {
    /// Its paths.
    fn paths(&self) -> Vec<&Path> {
        match self {
            Derived::Path { path, .. } => vec![path],
            Derived::Joined { last, first, .. } => vec![last, first],
            _ => Vec::new(),
        }
    }
}

/// The program; see the [module](self).
#[derive(Clone, Debug)]
pub struct FlipProgram {
    /// The network's graph, extended. Its outputs are the background's frontier;
    /// its parameters the network's, then one per entry of `derived`.
    pub graph: Graph,
    /// How to compute the additional parameters.
    pub derived: Vec<Derived>,
    /// Tokens the changes are counted by.
    pub token: Token,
    /// Per shape the nodes with the change of the frontier, per token; their
    /// elements are those of `graph.outputs`, in order.
    pub changes: Vec<Vec<NodeId>>,
    /// From frontier to log psi. Its parameters are the network's, then one
    /// `Whole` input per frontier node.
    pub readout: Graph,
    /// Indices of those inputs.
    pub inputs: Vec<u32>,
}

impl FlipProgram {
    /// Derives the program for the given shapes.
    ///
    /// # Errors
    /// See [`NoFlips`]: then changes are evaluated in full.
    pub fn new(graph: &Graph, lattice: Lattice, shapes: &[Shape]) -> Result<FlipProgram, NoFlips> {
        let form = NormalForm::new(graph)?;
        let token = common_token(graph, &form)?;
        let tokens = TokenLattice::new(lattice, token).map_err(|e| NoFlips::new(e.to_string()))?;
        let frontier = Frontier::new(graph, &form)?;
        if frontier.elements(graph)? > MAX_FRONTIER {
            return Err(NoFlips::new("too many pooled features"));
        }
        let mut extended = graph.clone();
        let finals = frontier.final_links(&mut extended, &form)?;
        let mut values = Values::new(extended, &form, token, lattice.boundary);
        values.links(shapes)?;
        let mut changes = Vec::new();
        for shape in shapes {
            values.begin(shape);
            changes.push(frontier.changes(&mut values, &finals)?);
        }
        for axis in 0..2 {
            let (reached, extent) = (values.reach(axis), tokens.extent[axis] as i64);
            if reached > extent {
                return Err(NoFlips::Covers {
                    tokens: reached,
                    extent,
                });
            }
        }
        let (readout, inputs) = frontier.readout(graph);
        let (mut extended, derived) = values.finish();
        let numbers = |p: &GraphParam| match p.ty.place {
            Place::Pair(_) => {
                let entries = tokens.entries(p.ty.place).unwrap_or(usize::MAX);
                let dims = p.ty.shape.iter().map(|d| match d {
                    Dim::Static(n) => *n,
                    Dim::Sites { .. } => tokens.count(),
                });
                dims.fold(entries, usize::saturating_mul)
            }
            _ => 0,
        };
        let of_pairs = (extended.params[graph.params.len()..].iter().map(numbers))
            .fold(0, usize::saturating_add);
        let of_path = derived.iter().flat_map(Derived::paths);
        let of_path = of_path.map(|p| p.numbers(&tokens)).max().unwrap_or(0);
        if of_pairs.max(of_path) > MAX_PAIRS {
            let numbers = of_pairs.max(of_path);
            return Err(NoFlips::new(format!("links of {numbers} numbers")));
        }
        extended.outputs = frontier.nodes.clone();
        Ok(FlipProgram {
            graph: extended,
            derived,
            token,
            changes,
            readout,
            inputs,
        })
    }
}

/// The tokens of a network's mixers, or of its coarsest pool: changes are
/// counted by them.
///
/// # Errors
/// Mixers on different tokens, of classes without cheap links, and pools that
/// keep their sites.
pub fn common_token(graph: &Graph, form: &NormalForm) -> Result<Token, NoFlips> {
    let mut token = Token::SPIN;
    for pool in &form.pools {
        if pool.kind == PoolKind::Gather {
            return Err(NoFlips::new("features proportional to the number of sites"));
        }
        if pool.token.volume() > token.volume() {
            token = pool.token;
        }
    }
    for mixer in &form.mixers {
        if !matches!(
            mixer.class,
            MixerClass::StateSpace | MixerClass::Toeplitz | MixerClass::Dense
        ) {
            return Err(NoFlips::new(format!(
                "links through a {} mixer",
                mixer.class
            )));
        }
        if mixer.source_token != token {
            return Err(NoFlips::new("mixers and pools on different tokens"));
        }
    }
    for &id in form.locals.iter().chain(&form.linears) {
        if let Place::Site(t) = graph.ty(id).place {
            let divides = (0..2).all(|a| token.0[a].is_multiple_of(t.0[a]));
            let linear = form.kinds.get(id) == Dependence::Linear;
            if !divides || (linear && t != token) {
                return Err(NoFlips::new(
                    "values on tokens that do not divide those of the mixers",
                ));
            }
        }
    }
    Ok(token)
}

/// Whether anything lies beyond the lattice.
fn is_open(boundary: Boundary) -> bool {
    boundary == Boundary::Open
}
