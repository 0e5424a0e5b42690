//! How each node of a graph depends on the configuration.
//!
//! Recomputed from the graph alone, by the rules of the scattering normal form:
//! a value is constant, local through a bounded window, linear (affine in what
//! mixers delivered, with local coefficients), pooled, or global. The checker
//! derives the same facts on the elaborated program; neither trusts the other.

use super::{Graph, MapFn, NodeId, Op, ZipFn};
use crate::check::core::{Place, Token, Window};

/// How a value depends on the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dependence {
    /// Not at all.
    Const,
    /// Per site, through a bounded window of spins.
    Local(Window),
    /// Per site, on all spins, affinely in the outputs of mixers.
    Linear,
    /// One per configuration: sums over sites, gathered sites, functions of them.
    Pooled,
    /// Anything else: only full re-evaluation is exact.
    Global,
}

/// The dependence of every node of one graph.
#[derive(Clone, Debug)]
pub struct Kinds {
    of: Vec<Dependence>,
}

impl Kinds {
    /// Classifies all nodes of `graph`, in one pass over the program.
    pub fn new(graph: &Graph) -> Kinds {
        let mut kinds = Kinds {
            of: Vec::with_capacity(graph.len()),
        };
        for id in graph.ids() {
            let mut d = kinds.rule(graph, id);
            // A pooled value put back on sites is no longer one value per
            // configuration, and no rule of the normal form covers it.
            if d == Dependence::Pooled && graph.ty(id).place != Place::Whole {
                d = Dependence::Global;
            }
            // Windows are defined per site; linear values live on sites.
            let per_site = matches!(d, Dependence::Local(_) | Dependence::Linear);
            if per_site && !matches!(graph.ty(id).place, Place::Site(_)) {
                d = Dependence::Global;
            }
            kinds.of.push(d);
        }
        kinds
    }

    /// The dependence of one node.
    pub fn get(&self, id: NodeId) -> Dependence {
        self.of[id.index()]
    }

    /// The window of a local node.
    pub fn window(&self, id: NodeId) -> Option<Window> {
        match self.get(id) {
            Dependence::Local(w) => Some(w),
            _ => None,
        }
    }

    /// Whether the node is the output of a mixer acting on sites: a scan, a
    /// convolution, modes or a pair kernel with constant coefficients, or a
    /// site-moving operation on a linear value.
    pub fn is_mixer(&self, graph: &Graph, id: NodeId) -> bool {
        if self.get(id) != Dependence::Linear {
            return false;
        }
        match graph.op(id) {
            Op::Scan(_) | Op::Convolve { .. } | Op::Modes { .. } | Op::Mix { .. } => true,
            op => moves_sites(op),
        }
    }

    fn rule(&self, graph: &Graph, id: NodeId) -> Dependence {
        use Dependence::*;
        let args = graph.args(id);
        let kinds = || args.iter().map(|&a| self.get(a));
        if matches!(graph.op(id), Op::Spins) {
            return Local(Window {
                lo: [0, 0],
                hi: [0, 0],
            });
        }
        if kinds().all(|d| d == Const) {
            return Const;
        }
        if kinds().any(|d| d == Global) {
            return Global;
        }
        let first = self.get(args[0]);
        match graph.op(id) {
            Op::Map(MapFn::Neg) => first,
            Op::Map(_) => nonlinear(kinds()),
            Op::Zip(ZipFn::Add | ZipFn::Sub) => sum(kinds()),
            Op::Zip(ZipFn::Mul) => product(kinds()),
            // A linear numerator over a constant or local denominator.
            Op::Zip(ZipFn::Div) => match self.get(args[1]) {
                Linear => Global,
                _ => product(kinds()),
            },
            Op::Zip(_) => nonlinear(kinds()),
            Op::Einsum(_) => product(kinds()),
            Op::Reshape | Op::Slice { .. } | Op::Pad { .. } | Op::Broadcast => first,
            Op::Concat { .. } => sum(kinds()),
            Op::Window { .. }
            | Op::WindowAdjoint { .. }
            | Op::Patch { .. }
            | Op::Unpatch { .. } => match (first, graph.ty(args[0]).place) {
                (Local(w), Place::Site(token)) => {
                    Local(moved(graph.op(id), w, token, graph.ty(id).place))
                }
                (Linear, _) => Linear,
                _ => Global,
            },
            Op::Sum | Op::Gather => match first {
                Local(_) | Linear | Pooled => Pooled,
                other => other,
            },
            Op::Scan(_) | Op::Convolve { .. } | Op::Modes { .. } | Op::Mix { .. } => {
                let fixed = args[1..].iter().all(|&a| self.get(a) == Const);
                match first {
                    Local(_) | Linear if fixed => Linear,
                    _ => Global,
                }
            }
            // Adjoints that sum over sites and land on displacements, momenta
            // or pairs; scattering and pair values have no per-site window.
            _ => Global,
        }
    }
}

/// Site-moving operations: local on local values, mixers on linear ones.
fn moves_sites(op: &Op) -> bool {
    matches!(
        op,
        Op::Window { .. } | Op::WindowAdjoint { .. } | Op::Patch { .. } | Op::Unpatch { .. }
    )
}

/// Window of a site-moving operation's result from its operand's.
fn moved(op: &Op, w: Window, token: Token, to: Place) -> Window {
    match *op {
        Op::Window { lo, hi } => w.widen(token, lo, hi),
        Op::WindowAdjoint { lo, hi } => w.widen(token, [-hi[0], -hi[1]], [-lo[0], -lo[1]]),
        Op::Patch { ratio } => w.patch(token, ratio),
        // The fine token may sit anywhere in the coarse one.
        Op::Unpatch { ratio } => {
            let fine = match to {
                Place::Site(t) => t,
                _ => token,
            };
            w.widen(fine, [1 - ratio[0] as i64, 1 - ratio[1] as i64], [0, 0])
        }
        _ => w,
    }
}

/// Join of two dependences neither of which is global, under a sum.
fn join(a: Dependence, b: Dependence) -> Dependence {
    use Dependence::*;
    match (a, b) {
        (Const, x) | (x, Const) => x,
        (Local(v), Local(w)) => Local(v.hull(w)),
        (Pooled, Pooled) => Pooled,
        (Linear, Local(_) | Linear) | (Local(_), Linear) => Linear,
        _ => Global,
    }
}

fn sum(kinds: impl Iterator<Item = Dependence>) -> Dependence {
    kinds.fold(Dependence::Const, join)
}

fn product(kinds: impl Iterator<Item = Dependence>) -> Dependence {
    let mut linear = 0;
    let joined = kinds
        .inspect(|d| linear += usize::from(*d == Dependence::Linear))
        .fold(Dependence::Const, join);
    if linear > 1 {
        Dependence::Global
    } else {
        joined
    }
}

fn nonlinear(kinds: impl Iterator<Item = Dependence>) -> Dependence {
    match sum(kinds) {
        Dependence::Linear => Dependence::Global,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::core::{Dim, Einsum};
    use crate::ir::NodeType;

    fn site(token: usize, shape: &[usize]) -> NodeType {
        NodeType {
            place: Place::Site(Token([token, 1])),
            shape: shape.iter().map(|&n| Dim::Static(n)).collect(),
        }
    }
    fn whole(shape: &[usize]) -> NodeType {
        NodeType {
            place: Place::Whole,
            ..site(1, shape)
        }
    }
    fn window(lo: i64, hi: i64) -> Dependence {
        Dependence::Local(Window {
            lo: [lo, 0],
            hi: [hi, 0],
        })
    }

    #[test]
    fn windows_grow_by_patches_and_stencils() {
        let mut g = Graph::default();
        let s = g.push(Op::Spins, &[], site(1, &[]));
        let p = g.push(Op::Patch { ratio: [2, 1] }, &[s], site(2, &[2]));
        let w = g.push(
            Op::Window {
                lo: [-1, 0],
                hi: [2, 0],
            },
            &[p],
            site(2, &[4, 2]),
        );
        let t = g.push(Op::Map(MapFn::Tanh), &[w], site(2, &[4, 2]));
        let a = g.push(
            Op::WindowAdjoint {
                lo: [-1, 0],
                hi: [2, 0],
            },
            &[t],
            site(2, &[2]),
        );
        let u = g.push(Op::Unpatch { ratio: [2, 1] }, &[p], site(1, &[]));
        let k = Kinds::new(&g);
        assert_eq!(k.get(p), window(0, 1));
        assert_eq!(k.get(t), window(-2, 5));
        assert_eq!(k.get(a), window(-6, 7));
        assert_eq!(k.get(u), window(-1, 1));
    }

    #[test]
    fn mixers_make_linear_values_and_nonlinearities_of_them_are_global() {
        use Dependence::*;
        let mut g = Graph::default();
        let s = g.push(Op::Spins, &[], site(1, &[]));
        let one = g.push(Op::Number(1.0), &[], whole(&[]));
        let d = g.push(
            Op::Displacement { axis: 0 },
            &[],
            NodeType {
                place: Place::Displacement(Token::SPIN),
                shape: vec![],
            },
        );
        let y = g.push(
            Op::Convolve {
                complex: false,
                transposed: false,
            },
            &[s, d],
            site(1, &[]),
        );
        let z = g.push(Op::Zip(ZipFn::Mul), &[y, s], site(1, &[]));
        let zz = g.push(Op::Zip(ZipFn::Mul), &[y, z], site(1, &[]));
        let q = g.push(Op::Zip(ZipFn::Div), &[y, s], site(1, &[]));
        let iq = g.push(Op::Zip(ZipFn::Div), &[one, y], site(1, &[]));
        let st = g.push(
            Op::Window {
                lo: [0, 0],
                hi: [1, 0],
            },
            &[z],
            site(1, &[2]),
        );
        let e = g.push(
            Op::Einsum(Einsum {
                inputs: vec![vec!['a']],
                output: vec![],
            }),
            &[st],
            site(1, &[]),
        );
        let t = g.push(Op::Map(MapFn::Tanh), &[e], site(1, &[]));
        let o = g.push(Op::Sum, &[e], whole(&[]));
        let f = g.push(Op::Map(MapFn::LogCosh), &[o], whole(&[]));
        let back = g.push(Op::Zip(ZipFn::Add), &[s, f], site(1, &[]));
        let k = Kinds::new(&g);
        let got: Vec<_> = [y, z, zz, q, iq, st, e, t, o, f, back]
            .iter()
            .map(|&n| k.get(n))
            .collect();
        assert_eq!(
            got,
            [
                Linear, Linear, Global, Linear, Global, Linear, Linear, Global, Pooled, Pooled,
                Global
            ]
        );
        assert!(k.is_mixer(&g, y) && k.is_mixer(&g, st) && !k.is_mixer(&g, z));
    }
}
