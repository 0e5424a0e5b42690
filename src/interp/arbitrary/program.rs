//! Random programs over all operations.

use super::{Draft, Sample, lengths};
use crate::check::core::{Dim, Place, Token};
use crate::ir::{MapFn, NodeId, NodeType, Op, ZipFn};

/// Elements per place index above which values are not used further.
const MAX_ELEMENTS: usize = 24;
/// Axes beyond which values are not used further.
const MAX_RANK: usize = 4;

/// A random program of `steps` operations on random earlier values, and a
/// scalar output that depends on many of them.
pub fn program(seed: u64, steps: usize) -> Sample {
    let mut p = Program {
        d: Draft::new(seed, 4, true),
        pool: Vec::new(),
    };
    p.start();
    for _ in 0..steps {
        p.step();
    }
    let outputs = vec![p.readout(), p.readout()];
    p.d.finish(outputs)
}

struct Program {
    d: Draft,
    pool: Vec<NodeId>,
}

impl Program {
    /// Spins, tokens, and the index constants.
    fn start(&mut self) {
        let t = self.d.token;
        let spins = self.d.add(Op::Spins, &[]);
        let tokens = self.d.add(Op::Patch { ratio: t.0 }, &[spins]);
        self.pool.extend([spins, tokens]);
        for token in [t, Token::SPIN] {
            let x = self.param(Place::Site(token), &[2, 2]);
            self.pool.push(x);
        }
        let axis = self.d.random.below(2);
        let mut index = |op, place| self.d.graph.push(op, &[], NodeType::new(place, &[]));
        let mut constants = vec![
            index(Op::SiteIndex { axis }, Place::Site(t)),
            index(Op::Displacement { axis }, Place::Displacement(t)),
            index(
                Op::PairIndex {
                    axis,
                    source: axis == 0,
                },
                Place::Pair(t),
            ),
        ];
        if self.d.ring() {
            constants.push(self.d.graph.push(
                Op::Momentum { axis },
                &[],
                NodeType::new(Place::Momentum(t), &[]),
            ));
        }
        constants.push(self.d.add(Op::Extent { axis, token: t }, &[]));
        constants.push(self.d.add(Op::SiteCount(t), &[]));
        for c in constants {
            let small = self.d.scaled(0.3, c);
            self.pool.push(small);
        }
    }

    fn param(&mut self, place: Place, shape: &[usize]) -> NodeId {
        self.d.param(place, shape, 0.9)
    }

    fn ty(&self, x: NodeId) -> NodeType {
        self.d.graph.ty(x).clone()
    }

    /// A value of the pool satisfying a condition.
    fn find(&mut self, wanted: impl Fn(&NodeType) -> bool) -> Option<NodeId> {
        let fitting: Vec<NodeId> = self
            .pool
            .iter()
            .copied()
            .filter(|&x| wanted(self.d.graph.ty(x)))
            .collect();
        if fitting.is_empty() {
            None
        } else {
            Some(self.d.random.pick(&fitting))
        }
    }

    fn any(&mut self) -> Option<NodeId> {
        self.find(|_| true)
    }

    fn site(&mut self) -> Option<NodeId> {
        self.find(|ty| matches!(ty.place, Place::Site(_)))
    }

    /// A value with static axes, and their lengths.
    fn fixed(&mut self) -> Option<(NodeId, Vec<usize>)> {
        let x = self.find(|ty| lengths(ty).is_some_and(|s| !s.is_empty()))?;
        Some((x, lengths(self.d.graph.ty(x))?))
    }

    /// Another value of the same type: from the pool, or the value times a parameter.
    fn partner(&mut self, x: NodeId) -> NodeId {
        let ty = self.ty(x);
        match self.find(|other| *other == ty) {
            Some(y) if y != x || self.d.random.coin() => y,
            _ => {
                let p = self.param(Place::Whole, &[]);
                self.d.zip(ZipFn::Mul, x, p)
            }
        }
    }

    /// Performs one random operation, if the pool has operands for it.
    fn step(&mut self) {
        let made = match self.d.random.below(14) {
            0 | 1 => self.mapped(),
            2 | 3 => self.zipped(),
            4 => self.contracted(),
            5 => self.unary_contraction(),
            6 => self.reshaped(),
            7 => self.cut(),
            8 => self.moved(),
            9 => self.whole(),
            10 => self.scanned(),
            11 => self.translation_invariant(),
            12 => self.paired(),
            _ => self.in_momentum_space(),
        };
        let Some(made) = made else { return };
        let x = if self.d.random.coin() {
            self.d.scaled(0.5, made)
        } else {
            let f = self.d.random.pick(&[MapFn::Tanh, MapFn::Sin]);
            self.d.map(f, made)
        };
        let ty = self.ty(x);
        let size: usize = ty
            .shape
            .iter()
            .map(|d| if let Dim::Static(n) = d { *n } else { 3 })
            .product();
        if (1..=MAX_ELEMENTS).contains(&size) && ty.shape.len() <= MAX_RANK {
            self.pool.push(x);
        }
    }

    /// A value in (0.5, 2.5).
    fn positive(&mut self, x: NodeId) -> NodeId {
        let s = self.d.map(MapFn::Tanh, x);
        let c = self.d.add(Op::Number(1.5), &[]);
        self.d.zip(ZipFn::Add, s, c)
    }

    /// A value shifted by a random constant: kinks are met with probability zero.
    fn shifted(&mut self, x: NodeId) -> NodeId {
        let shift = self.param(Place::Whole, &[]);
        self.d.zip(ZipFn::Add, x, shift)
    }

    fn mapped(&mut self) -> Option<NodeId> {
        let x = self.any()?;
        let f = self.d.random.pick(&MAPS);
        let x = match f {
            MapFn::Log | MapFn::Sqrt | MapFn::Recip => self.positive(x),
            MapFn::Exp | MapFn::Log1p => {
                let half = self.d.map(MapFn::Sin, x);
                self.d.scaled(0.8, half)
            }
            MapFn::Abs | MapFn::Sign | MapFn::Floor => self.shifted(x),
            _ => x,
        };
        Some(self.d.map(f, x))
    }

    fn zipped(&mut self) -> Option<NodeId> {
        let a = self.any()?;
        let ty = self.ty(a);
        let b = match self.d.random.below(4) {
            // a Whole value of fewer or length-1 axes
            0 => {
                let lead = lengths(&ty).map_or(vec![], |s| s.iter().map(|_| 1).collect::<Vec<_>>());
                self.param(Place::Whole, &lead)
            }
            1 => match lengths(&ty).filter(|s| !s.is_empty()) {
                Some(s) => self.param(Place::Whole, &s[1..]),
                None => self.partner(a),
            },
            // more axes than a
            2 if ty.shape.len() < 2 => {
                let lead = [&[2][..], &lengths(&ty).unwrap_or_default()].concat();
                if lengths(&ty).is_some() {
                    self.param(Place::Whole, &lead)
                } else {
                    self.partner(a)
                }
            }
            _ => self.partner(a),
        };
        let f = self.d.random.pick(&ZIPS);
        let (a, b) = match f {
            ZipFn::Div | ZipFn::Mod => (self.shifted(a), self.positive(b)),
            ZipFn::Pow => (self.positive(a), b),
            ZipFn::Max | ZipFn::Min | ZipFn::Greater => (self.shifted(a), b),
            ZipFn::Atan2 => (a, self.positive(b)),
            _ => (a, b),
        };
        Some(
            if self.d.random.coin()
                || matches!(f, ZipFn::Div | ZipFn::Mod | ZipFn::Pow | ZipFn::Atan2)
            {
                self.d.zip(f, a, b)
            } else {
                self.d.zip(f, b, a)
            },
        )
    }

    fn contracted(&mut self) -> Option<NodeId> {
        let (x, shape) = self.fixed()?;
        let n = shape[0];
        let rest = &"xyzw"[..shape.len() - 1];
        Some(match self.d.random.below(6) {
            0 => {
                let w = self.param(Place::Whole, &[n, 3]);
                self.d.einsum(&format!("a{rest},ab->{rest}b"), &[x, w])
            }
            1 => {
                let w = self.param(Place::Whole, &[2, n]);
                self.d.einsum(&format!("ba,a{rest}->b{rest}"), &[w, x])
            }
            2 => {
                let y = self.partner(x);
                self.d.einsum(&format!("a{rest},a{rest}->{rest}"), &[x, y])
            }
            // letters summed alone on either side
            3 => {
                let w = self.param(Place::Whole, &[2, 3]);
                self.d.einsum(&format!("a{rest},bc->{rest}c"), &[x, w])
            }
            // repeated letters within an operand
            4 => {
                let w = self.param(Place::Whole, &[n, n, 2]);
                self.d.einsum(&format!("a{rest},aab->{rest}b"), &[x, w])
            }
            _ => self.d.einsum(&format!("a{rest},a{rest}->a{rest}"), &[x, x]),
        })
    }

    fn unary_contraction(&mut self) -> Option<NodeId> {
        let (x, shape) = self.fixed()?;
        let all: String = "abcd".chars().take(shape.len()).collect();
        let reversed: String = all.chars().rev().collect();
        let square = shape.len() >= 2 && shape[0] == shape[1];
        let diagonal = format!("aa{}", &all[2.min(all.len())..]);
        Some(match self.d.random.below(4) {
            0 if square => self
                .d
                .einsum(&format!("{diagonal}->{}", &diagonal[1..]), &[x]),
            1 if square => self
                .d
                .einsum(&format!("{diagonal}->{}", &diagonal[2..]), &[x]),
            2 => self.d.einsum(&format!("{all}->{}", &all[1..]), &[x]),
            _ => self.d.einsum(&format!("{all}->{reversed}"), &[x]),
        })
    }

    fn reshaped(&mut self) -> Option<NodeId> {
        let (x, shape) = self.fixed()?;
        let size: usize = shape.iter().product();
        let mut options = vec![vec![size], vec![1, size]];
        if size.is_multiple_of(2) {
            options.extend([vec![2, size / 2], vec![size / 2, 1, 2]]);
        }
        let to = self.d.random.pick(&options);
        Some(self.d.reshape(x, &to))
    }

    fn cut(&mut self) -> Option<NodeId> {
        let (x, shape) = self.fixed()?;
        let axis = self.d.random.below(shape.len());
        let n = shape[axis];
        let start = self.d.random.below(n);
        Some(match self.d.random.below(4) {
            0 => {
                let len = 1 + self.d.random.below(n - start);
                self.d.add(Op::Slice { axis, start, len }, &[x])
            }
            1 => {
                let len = n + start + self.d.random.below(2);
                self.d.add(Op::Pad { axis, start, len }, &[x])
            }
            2 => {
                let y = self.partner(x);
                self.d.add(Op::Concat { axis }, &[x, y, x])
            }
            _ => {
                let mut ty = self.ty(x);
                ty.shape.insert(0, Dim::Static(2));
                if ty.place == Place::Whole {
                    ty.place = Place::Site(self.d.token);
                }
                self.d.graph.push(Op::Broadcast, &[x], ty)
            }
        })
    }

    /// Between sites, and between lattices.
    fn moved(&mut self) -> Option<NodeId> {
        let (lo, hi) = self.d.offsets();
        let width: i64 = (0..2).map(|axis| hi[axis] - lo[axis] + 1).product();
        let width = Dim::Static(width as usize);
        let (t, volume) = (self.d.token, Dim::Static(self.d.token.volume()));
        match self.d.random.below(4) {
            0 => {
                let x = self.site()?;
                Some(self.d.add(Op::Window { lo, hi }, &[x]))
            }
            1 => {
                let x = self.find(|ty| {
                    matches!(ty.place, Place::Site(_)) && ty.shape.first() == Some(&width)
                })?;
                Some(self.d.add(Op::WindowAdjoint { lo, hi }, &[x]))
            }
            2 => {
                let x = self.find(|ty| ty.place == Place::Site(Token::SPIN))?;
                Some(self.d.add(Op::Patch { ratio: t.0 }, &[x]))
            }
            _ => {
                let x = self
                    .find(|ty| ty.place == Place::Site(t) && ty.shape.first() == Some(&volume))?;
                Some(self.d.add(Op::Unpatch { ratio: t.0 }, &[x]))
            }
        }
    }

    /// Values of the whole lattice.
    fn whole(&mut self) -> Option<NodeId> {
        match self.d.random.below(3) {
            0 => {
                let x = self.any()?;
                let sum = self.d.add(Op::Sum, &[x]);
                Some(self.d.scaled(0.1, sum))
            }
            1 => {
                let x = self.find(|ty| matches!(ty.place, Place::Site(_)) && ty.shape.len() < 3)?;
                Some(self.d.add(Op::Gather, &[x]))
            }
            _ => {
                let tokens = [self.d.token, Token::SPIN];
                let token = self.d.random.pick(&tokens);
                let lead = crate::ir::valid::sites(token);
                let x = self.find(|ty| {
                    ty.place == Place::Whole
                        && ty.shape.first() == Some(&lead)
                        && !ty.shape[1..].contains(&lead)
                })?;
                let shape = self.ty(x).shape[1..].to_vec();
                Some(self.d.graph.push(
                    Op::Scatter,
                    &[x],
                    NodeType::new(Place::Site(token), &shape),
                ))
            }
        }
    }

    /// A site value on which complex channels are meant or not.
    fn channels(&mut self) -> Option<(NodeId, bool, Vec<usize>)> {
        let x = self.site()?;
        let shape = lengths(self.d.graph.ty(x))?;
        let complex = shape.first() == Some(&2) && self.d.random.below(3) > 0;
        Some((x, complex, shape))
    }

    fn scanned(&mut self) -> Option<NodeId> {
        if !self.d.chain() {
            return None;
        }
        let (x, complex, shape) = self.channels()?;
        let kind = self.d.scan_kind(complex);
        let coefficients = self
            .d
            .scan_coefficients(kind, &shape[usize::from(complex)..]);
        if self.d.random.coin() {
            let operands = [vec![x], coefficients].concat();
            return Some(self.d.add(Op::Scan(kind), &operands));
        }
        let g = self.partner(x);
        let wrt = 1 + self.d.random.below(coefficients.len());
        let operands = [vec![g, x], coefficients].concat();
        Some(self.d.add(Op::ScanGrad { scan: kind, wrt }, &operands))
    }

    /// Channels of a kernel: those of x, or fewer.
    fn kernel_shape(&mut self, complex: bool, lead: bool, shape: &[usize]) -> Vec<usize> {
        let mut channels = shape[usize::from(complex)..].to_vec();
        if self.d.random.below(3) == 0 {
            channels.clear();
        } else if self.d.random.below(3) == 0 {
            channels.fill(1);
        }
        if lead {
            channels.insert(0, 2);
        }
        channels
    }

    fn translation_invariant(&mut self) -> Option<NodeId> {
        let (x, complex, shape) = self.channels()?;
        let Place::Site(token) = self.ty(x).place else {
            return None;
        };
        if self.d.random.coin() {
            let g = self.partner(x);
            return Some(self.d.add(Op::Correlate { complex }, &[g, x]));
        }
        let kernel = self.kernel_shape(complex, complex, &shape);
        let ty = NodeType::fixed(Place::Displacement(token), &kernel);
        let k = match self.find(|other| *other == ty) {
            Some(k) => k,
            None => self.param(ty.place, &kernel),
        };
        let transposed = self.d.random.coin();
        Some(self.d.add(
            Op::Convolve {
                complex,
                transposed,
            },
            &[x, k],
        ))
    }

    fn paired(&mut self) -> Option<NodeId> {
        match self.d.random.below(4) {
            0 => {
                let x = self.site()?;
                Some(self.d.add(Op::RowBroadcast, &[x]))
            }
            1 => {
                let x = self.find(|ty| matches!(ty.place, Place::Pair(_)))?;
                Some(self.d.add(Op::RowSum, &[x]))
            }
            2 => {
                let (x, complex, _) = self.channels()?;
                let g = self.partner(x);
                Some(self.d.add(Op::MixGrad { complex }, &[g, x]))
            }
            _ => {
                let (x, complex, shape) = self.channels()?;
                let Place::Site(token) = self.ty(x).place else {
                    return None;
                };
                let kernel = self.kernel_shape(complex, complex, &shape);
                let ty = NodeType::fixed(Place::Pair(token), &kernel);
                let k = match self.find(|other| *other == ty) {
                    Some(k) => k,
                    None => self.param(ty.place, &kernel),
                };
                let transposed = self.d.random.coin();
                Some(self.d.add(
                    Op::Mix {
                        complex,
                        transposed,
                    },
                    &[x, k],
                ))
            }
        }
    }

    fn in_momentum_space(&mut self) -> Option<NodeId> {
        if !self.d.ring() {
            return None;
        }
        let (x, complex, shape) = self.channels()?;
        let Place::Site(token) = self.ty(x).place else {
            return None;
        };
        if self.d.random.coin() {
            let g = self.partner(x);
            return Some(self.d.add(Op::ModesGrad { complex }, &[g, x]));
        }
        let symbol = self.kernel_shape(complex, true, &shape);
        let k = self.param(Place::Momentum(token), &symbol);
        let transposed = self.d.random.coin();
        Some(self.d.add(
            Op::Modes {
                complex,
                transposed,
            },
            &[x, k],
        ))
    }

    /// The mean of weighted values from the whole pool.
    fn readout(&mut self) -> NodeId {
        let mut total = self.d.add(Op::Number(0.0), &[]);
        for x in self.pool.clone() {
            let weight = self.param(Place::Whole, &[]);
            let weighted = self.d.zip(ZipFn::Mul, x, weight);
            let letters: String = "abcdefgh".chars().take(self.ty(x).shape.len()).collect();
            let per_entry = self.d.einsum(&format!("{letters}->"), &[weighted]);
            let sum = self.d.add(Op::Sum, &[per_entry]);
            let bounded = self.d.scaled(0.1, sum);
            let part = self.d.map(MapFn::Sin, bounded);
            total = self.d.zip(ZipFn::Add, total, part);
        }
        total
    }
}

const MAPS: [MapFn; 14] = [
    MapFn::Neg,
    MapFn::Exp,
    MapFn::Log,
    MapFn::Log1p,
    MapFn::Sqrt,
    MapFn::Sin,
    MapFn::Cos,
    MapFn::Tanh,
    MapFn::LogCosh,
    MapFn::Abs,
    MapFn::Sign,
    MapFn::Erf,
    MapFn::Floor,
    MapFn::Recip,
];

const ZIPS: [ZipFn; 10] = [
    ZipFn::Add,
    ZipFn::Sub,
    ZipFn::Mul,
    ZipFn::Div,
    ZipFn::Pow,
    ZipFn::Max,
    ZipFn::Min,
    ZipFn::Atan2,
    ZipFn::Mod,
    ZipFn::Greater,
];
