//! Which values are functions of a few spins near a site, and which of them are
//! the same function.
//!
//! A local, translation-invariant value is `f(s_1, .., s_b)` with the spins at
//! fixed offsets from its site. Two nodes with the same f, applied to other spins
//! or to flipped ones, share one table: the value of a gate three tokens away
//! with the second spin flipped is the gate's own table read at another pattern.
//! Nodes are classed by structure: views are resolved, and a node is its operation
//! applied to the classes of its operands.

use crate::check::core::{Dim, Place, Token, Window};
use crate::ir::{Boundary, Graph, Lattice, MapFn, NodeId, Op};
use std::collections::HashMap;

/// More spins than this are never tabulated.
pub(super) const MAX_BITS: usize = 10;

/// A spin a value depends on, relative to the first spin of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Read {
    pub(super) at: [i64; 2],
    /// The function sees the flipped spin.
    pub(super) flipped: bool,
}

/// A value as a function of spins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern {
    /// Which function.
    pub(super) class: usize,
    /// Its arguments, by offset.
    pub(super) reads: Vec<Read>,
    /// Spins whose absence (beyond an open lattice) it notices: a box.
    pub(super) reach: Option<Window>,
}

/// An operand: a class, and which of the joint reads it takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Part {
    class: usize,
    reads: Vec<u8>,
}

/// What a class is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Spin,
    /// Parts with a new leading axis.
    Stack(Vec<Part>),
    /// The part with another shape.
    Reshape(Part),
    /// Zero where the token at an offset is beyond the lattice.
    Inside([i64; 2], Token, Part),
    Op(String, Vec<Part>),
}

type Id = (Key, Vec<Dim>);

/// Classes of the nodes of one graph.
pub(super) struct Patterns {
    of: Vec<Option<Pattern>>,
    classes: Vec<Id>,
    known: HashMap<Id, usize>,
    open: bool,
}

fn shift(at: [i64; 2], token: Token, by: [i64; 2]) -> [i64; 2] {
    [0, 1].map(|a| at[a] + token.0[a] as i64 * by[a])
}

impl Pattern {
    fn shifted(&self, token: Token, by: [i64; 2]) -> Pattern {
        let mut moved = self.clone();
        for r in &mut moved.reads {
            r.at = shift(r.at, token, by);
        }
        moved.reach = moved.reach.map(|w| w.widen(token, by, by));
        moved
    }
}

impl Patterns {
    pub(super) fn new(graph: &Graph, lattice: Lattice, inputs: &[u32]) -> Patterns {
        let mut patterns = Patterns {
            of: Vec::with_capacity(graph.len()),
            classes: Vec::new(),
            known: HashMap::new(),
            open: lattice.boundary == Boundary::Open,
        };
        for id in graph.ids() {
            let pattern = patterns.node(graph, id, inputs);
            let few = pattern.filter(|p| p.reads.len() <= MAX_BITS);
            patterns.of.push(few);
        }
        patterns
    }

    /// For graphs nothing is tabulated in.
    pub(super) fn none() -> Patterns {
        Patterns {
            of: Vec::new(),
            classes: Vec::new(),
            known: HashMap::new(),
            open: false,
        }
    }

    /// The node as a function of a few spins.
    pub(super) fn get(&self, id: NodeId) -> Option<&Pattern> {
        self.of.get(id.index())?.as_ref()
    }

    fn class(&mut self, key: Key, shape: &[Dim]) -> usize {
        let id = (key, shape.to_vec());
        if let Some(&k) = self.known.get(&id) {
            return k;
        }
        self.classes.push(id.clone());
        self.known.insert(id, self.classes.len() - 1);
        self.classes.len() - 1
    }

    fn shape(&self, class: usize) -> &[Dim] {
        &self.classes[class].1
    }

    /// The joint reads of several values and each value's part of them; `None`
    /// if a spin is seen both as it is and flipped.
    fn join(values: &[Pattern]) -> Option<(Vec<Part>, Vec<Read>, Option<Window>)> {
        let mut reads: Vec<Read> = values.iter().flat_map(|v| v.reads.clone()).collect();
        reads.sort_unstable();
        reads.dedup();
        if reads.windows(2).any(|w| w[0].at == w[1].at) || reads.len() > u8::MAX as usize {
            return None;
        }
        let part = |v: &Pattern| Part {
            class: v.class,
            reads: v
                .reads
                .iter()
                .filter_map(|r| reads.binary_search(r).ok().map(|k| k as u8))
                .collect(),
        };
        let parts = values.iter().map(part).collect();
        let reach = values.iter().filter_map(|v| v.reach).reduce(Window::hull);
        Some((parts, reads, reach))
    }

    /// A part of a value as a value.
    fn part(&self, of: &Pattern, part: &Part) -> Pattern {
        Pattern {
            class: part.class,
            reads: part.reads.iter().map(|&k| of.reads[k as usize]).collect(),
            reach: of.reach,
        }
    }

    fn reshaped(&mut self, x: Pattern, shape: &[Dim]) -> Option<Pattern> {
        if self.shape(x.class) == shape {
            return Some(x);
        }
        if let (Key::Reshape(inner), _) = &self.classes[x.class] {
            let inner = self.part(&x, &inner.clone());
            return self.reshaped(inner, shape);
        }
        self.combined(&[x], shape, |mut parts| Key::Reshape(parts.swap_remove(0)))
    }

    fn combined(
        &mut self,
        values: &[Pattern],
        shape: &[Dim],
        key: impl FnOnce(Vec<Part>) -> Key,
    ) -> Option<Pattern> {
        let (parts, reads, reach) = Patterns::join(values)?;
        let class = self.class(key(parts), shape);
        Some(Pattern {
            class,
            reads,
            reach,
        })
    }

    fn stacked(&mut self, values: &[Pattern], shape: &[Dim]) -> Option<Pattern> {
        match values {
            [one] => self.reshaped(one.clone(), shape),
            _ => self.combined(values, shape, Key::Stack),
        }
    }

    /// Zero where the token at an offset is missing.
    fn inside(&mut self, x: Pattern, token: Token, at: [i64; 2]) -> Option<Pattern> {
        if !self.open || at == [0, 0] {
            return Some(x);
        }
        let shape = self.shape(x.class).to_vec();
        let mut masked = self.combined(&[x], &shape, |mut parts| {
            Key::Inside(at, token, parts.swap_remove(0))
        })?;
        let own = Window {
            lo: [0, 0],
            hi: [0, 1].map(|a| token.0[a] as i64 - 1),
        };
        let there = own.widen(token, at, at);
        masked.reach = Some(masked.reach.map_or(there, |w| w.hull(there)));
        Some(masked)
    }

    fn node(&mut self, graph: &Graph, id: NodeId, inputs: &[u32]) -> Option<Pattern> {
        let (op, ty) = (graph.op(id), graph.ty(id));
        if !matches!(ty.place, Place::Whole | Place::Site(_))
            || ty.shape.iter().any(|d| matches!(d, Dim::Sites { .. }))
        {
            return None;
        }
        let shape = ty.shape.as_slice();
        let mut args = Vec::with_capacity(graph.args(id).len());
        for a in graph.args(id) {
            args.push(self.of[a.index()].clone()?);
        }
        let token_of = |id: NodeId| match graph.ty(id).place {
            Place::Site(t) => t,
            _ => Token::SPIN,
        };
        match op {
            Op::Spins => Some(Pattern {
                class: self.class(Key::Spin, shape),
                reads: vec![Read {
                    at: [0, 0],
                    flipped: false,
                }],
                reach: None,
            }),
            Op::Param(k) if inputs.contains(k) || ty.place != Place::Whole => None,
            Op::Map(MapFn::Neg) if self.classes[args[0].class].0 == Key::Spin => {
                let mut x = args.swap_remove(0);
                x.reads[0].flipped ^= true;
                Some(x)
            }
            Op::Reshape => self.reshaped(args.swap_remove(0), shape),
            Op::Broadcast if self.shape(args[0].class) == shape => Some(args.swap_remove(0)),
            Op::Window { lo, hi } => {
                let token = token_of(id);
                let mut parts = Vec::new();
                for x in lo[0]..=hi[0] {
                    for y in lo[1]..=hi[1] {
                        let moved = args[0].shifted(token, [x, y]);
                        parts.push(self.inside(moved, token, [x, y])?);
                    }
                }
                self.stacked(&parts, shape)
            }
            Op::Patch { ratio } => {
                let fine = token_of(graph.args(id)[0]);
                let parts: Vec<Pattern> = (0..ratio[0] as i64)
                    .flat_map(|x| (0..ratio[1] as i64).map(move |y| [x, y]))
                    .map(|at| args[0].shifted(fine, at))
                    .collect();
                self.stacked(&parts, shape)
            }
            Op::Slice {
                axis: 0,
                start,
                len,
            } if matches!(self.classes[args[0].class].0, Key::Stack(_)) => {
                let x = &args[0];
                let Key::Stack(parts) = self.classes[x.class].0.clone() else {
                    return None;
                };
                let parts: Vec<Pattern> = parts[*start..start + len]
                    .iter()
                    .map(|p| self.part(x, p))
                    .collect();
                self.stacked(&parts, shape)
            }
            Op::Concat { axis: 0 }
                if args
                    .iter()
                    .all(|a| self.shape(a.class).first() == Some(&Dim::Static(1))) =>
            {
                let mut parts = Vec::with_capacity(args.len());
                for a in args {
                    let inner = self.shape(a.class)[1..].to_vec();
                    parts.push(self.reshaped(a, &inner)?);
                }
                self.stacked(&parts, shape)
            }
            Op::Param(_)
            | Op::Number(_)
            | Op::Map(_)
            | Op::Zip(_)
            | Op::Einsum(_)
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Concat { .. }
            | Op::Broadcast => {
                let name = format!("{op:?}");
                self.combined(&args, shape, |parts| Key::Op(name, parts))
            }
            _ => None,
        }
    }
}
