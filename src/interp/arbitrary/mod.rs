//! Random valid graphs with inputs, for property tests of every pass and back end.
//!
//! [`program`] covers every operation, in any order; [`network`] stays within
//! the kinds (linear mixers, local nonlinearities), as the language does.
//! Deterministic in the seed. Values are of order one, recurrences stable, and
//! kinks (abs, floor, max, ...) are met with probability zero only.

mod network;
mod program;

pub use network::network;
pub use program::program;

use super::Tensor;
use crate::check::core::{Dim, Place, Token};
use crate::ir::{Boundary, Graph, GraphParam, Lattice, MapFn, NodeId, NodeType, Op, ZipFn};

/// A graph and inputs to evaluate it on.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The graph; outputs `[Re log psi, Im log psi]`.
    pub graph: Graph,
    /// The lattice.
    pub lattice: Lattice,
    /// One tensor per parameter.
    pub params: Vec<Tensor>,
    /// A random configuration.
    pub spins: Vec<i8>,
}

/// The splitmix64 generator: small, seedable, good enough for test inputs.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts a stream.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in 0..n.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n.max(1) as u64) as usize
    }

    /// Uniform in lo..=hi.
    pub fn between(&mut self, lo: i64, hi: i64) -> i64 {
        lo + self.below((hi - lo + 1) as usize) as i64
    }

    /// True with probability 1/2.
    pub fn coin(&mut self) -> bool {
        self.bits() >> 63 == 1
    }

    /// Uniform in (-1, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// One of several.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// A configuration of `n` spins.
    pub fn spins(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| if self.coin() { 1 } else { -1 }).collect()
    }
}

/// A graph under construction together with its parameter values.
struct Draft {
    random: Random,
    graph: Graph,
    lattice: Lattice,
    /// Tokens in use besides single spins.
    token: Token,
    params: Vec<Tensor>,
}

impl Draft {
    /// Chooses a lattice: a chain of up to `max_tokens` tokens of 1 to 4 spins, or a
    /// rectangle of up to 3 x 3 tokens of up to 2 x 2.
    fn new(seed: u64, max_tokens: usize, squares: bool) -> Draft {
        let mut random = Random::new(seed);
        let boundary = random.pick(&[Boundary::Periodic, Boundary::Open]);
        let square = squares && random.below(3) == 0;
        let token = if square {
            Token([1 + random.below(2), 1 + random.below(2)])
        } else {
            Token([1 + random.below(4), 1])
        };
        let tokens = if square {
            [1 + random.below(3), 2 + random.below(2)]
        } else {
            [1 + random.below(max_tokens), 1]
        };
        let extent = [tokens[0] * token.0[0], tokens[1] * token.0[1]];
        let lattice = Lattice { extent, boundary };
        Draft {
            random,
            graph: Graph::default(),
            lattice,
            token,
            params: Vec::new(),
        }
    }

    fn ring(&self) -> bool {
        self.lattice.boundary == Boundary::Periodic
    }

    fn chain(&self) -> bool {
        self.lattice.extent[1] == 1
    }

    /// A node whose type follows from its operands, which fit by construction.
    fn add(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        match self.graph.add(op.clone(), operands) {
            Ok(id) => id,
            Err(fault) => panic!("the generator built an invalid {op:?}: {fault}"),
        }
    }

    fn map(&mut self, f: MapFn, x: NodeId) -> NodeId {
        self.add(Op::Map(f), &[x])
    }

    fn zip(&mut self, f: ZipFn, a: NodeId, b: NodeId) -> NodeId {
        self.add(Op::Zip(f), &[a, b])
    }

    fn scaled(&mut self, factor: f64, x: NodeId) -> NodeId {
        let factor = self.add(Op::Number(factor), &[]);
        self.zip(ZipFn::Mul, factor, x)
    }

    fn einsum(&mut self, spec: &str, operands: &[NodeId]) -> NodeId {
        let (inputs, output) = spec.split_once("->").unwrap_or((spec, ""));
        let inputs = inputs.split(',').map(|w| w.chars().collect()).collect();
        let spec = crate::check::core::Einsum {
            inputs,
            output: output.chars().collect(),
        };
        self.add(Op::Einsum(spec), operands)
    }

    fn reshape(&mut self, x: NodeId, shape: &[usize]) -> NodeId {
        let ty = NodeType::fixed(self.graph.ty(x).place, shape);
        self.graph.push(Op::Reshape, &[x], ty)
    }

    /// A parameter with elements uniform in (-size, size).
    fn param(&mut self, place: Place, shape: &[usize], size: f64) -> NodeId {
        let ty = NodeType::fixed(place, shape);
        let spins = vec![1; self.lattice.sites()];
        let full = super::Context::new(self.lattice, &[], &spins).and_then(|c| c.shape(&ty));
        let full = match full {
            Ok(full) => full,
            Err(error) => panic!("the generator placed a parameter badly: {error}"),
        };
        let value = Tensor::from_fn(&full, |_| size * self.random.unit());
        let index = self.params.len();
        self.params.push(value);
        self.graph.params.push(GraphParam {
            path: format!("p{index}"),
            ty,
        });
        self.add(Op::Param(index as u32), &[])
    }

    /// Coefficient operands of a stable scan over `channels`: the transition's
    /// norm is below 0.9.
    fn scan_coefficients(&mut self, scan: crate::ir::Scan, channels: &[usize]) -> Vec<NodeId> {
        let states = 1 + self.random.below(2);
        let shape = |dims: &[usize]| -> Vec<usize> {
            let lead: &[usize] = if scan.complex { &[2] } else { &[] };
            [lead, dims, channels].concat()
        };
        let vector = shape(&[states]);
        let matrix = shape(&[states, states]);
        let decay = if scan.dense {
            self.param(Place::Whole, &matrix, 0.25)
        } else {
            self.param(Place::Whole, &vector, if scan.complex { 0.4 } else { 0.6 })
        };
        let mut operands = vec![decay];
        if scan.low_rank {
            operands.extend([0, 1].map(|_| self.param(Place::Whole, &vector, 0.2)));
        }
        operands.extend([0, 1].map(|_| self.param(Place::Whole, &vector, 0.8)));
        operands
    }

    /// A random kind of scan.
    fn scan_kind(&mut self, complex: bool) -> crate::ir::Scan {
        let [dense, low_rank, mirror, leftward] = [(); 4].map(|()| self.random.coin());
        crate::ir::Scan {
            complex,
            dense,
            low_rank,
            mirror,
            leftward,
        }
    }

    fn finish(mut self, outputs: Vec<NodeId>) -> Sample {
        self.graph.outputs = outputs;
        let spins = self.random.spins(self.lattice.sites());
        Sample {
            graph: self.graph,
            lattice: self.lattice,
            params: self.params,
            spins,
        }
    }
}

/// Static lengths of a shape; `None` if one depends on the number of sites.
fn lengths(ty: &NodeType) -> Option<Vec<usize>> {
    ty.shape
        .iter()
        .map(|d| match d {
            Dim::Static(n) => Some(*n),
            Dim::Sites { .. } => None,
        })
        .collect()
}
