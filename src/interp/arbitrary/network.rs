//! Random networks of linear mixers and local nonlinearities.

use super::{Draft, Sample, lengths};
use crate::check::core::{Place, Token};
use crate::ir::{MapFn, NodeId, Op, ZipFn};

/// A random network: embedded tokens, a local stream, one to three mixers with
/// gates and skips, pooled features, a nonlinear readout. Chains have up to
/// `max_tokens` tokens; a third of the lattices are rectangles if `squares`.
pub fn network(seed: u64, max_tokens: usize, squares: bool) -> Sample {
    let mut d = Draft::new(seed, max_tokens.max(1), squares);
    let dim = 2 * (1 + d.random.below(2));
    let spins = d.add(Op::Spins, &[]);
    let tokens = d.add(Op::Patch { ratio: d.token.0 }, &[spins]);
    let embedding = d.param(Place::Whole, &[d.token.volume(), dim], 0.8);
    let embedded = d.einsum("t,td->d", &[tokens, embedding]);
    let bias = d.param(Place::Whole, &[dim], 0.5);
    let mut phi = d.zip(ZipFn::Add, embedded, bias);
    let mut stream: Option<NodeId> = None;
    for _ in 0..1 + d.random.below(3) {
        let mut input = d.dense(phi, dim);
        if let Some(h) = stream.filter(|_| d.random.below(4) > 0) {
            let h = d.dense(h, dim);
            let vertex = d.gated(h, phi, dim);
            input = d.zip(ZipFn::Add, input, vertex);
        }
        let mixed = d.mixer(input, dim);
        let out = d.dense(mixed, dim);
        let out = d.gated(out, phi, dim);
        stream = Some(match stream {
            Some(h) => d.zip(ZipFn::Add, h, out),
            None => out,
        });
        let next = d.stencil(phi, dim);
        let f = d.random.pick(&[MapFn::Tanh, MapFn::Sin, MapFn::Erf]);
        let next = d.map(f, next);
        phi = d.zip(ZipFn::Add, phi, next);
    }
    let h = stream.unwrap_or(phi);
    let head = d.gated(h, phi, dim);
    let mut omega = d.add(Op::Sum, &[head]);
    if d.random.coin() {
        let f = d.map(MapFn::Tanh, phi);
        let q = d.add(Op::Sum, &[f]);
        omega = d.zip(ZipFn::Add, omega, q);
    }
    let count = d.add(Op::SiteCount(d.token), &[]);
    let mean = d.zip(ZipFn::Div, omega, count);
    let mut outputs = Vec::new();
    for f in [MapFn::LogCosh, MapFn::Sin] {
        let theta = d.dense(mean, 2);
        let theta = d.map(f, theta);
        outputs.push(d.einsum("d->", &[theta]));
    }
    d.finish(outputs)
}

impl Draft {
    /// A constant site matrix.
    fn dense(&mut self, x: NodeId, out: usize) -> NodeId {
        let dim = lengths(self.graph.ty(x)).map_or(1, |s| s[0]);
        let w = self.param(Place::Whole, &[dim, out], 1.0 / (dim as f64).sqrt());
        self.einsum("a,ab->b", &[x, w])
    }

    /// Neighbours contracted with a constant kernel.
    fn stencil(&mut self, x: NodeId, dim: usize) -> NodeId {
        let (lo, hi) = self.offsets();
        let around = self.add(Op::Window { lo, hi }, &[x]);
        let width = lengths(self.graph.ty(around)).map_or(1, |s| s[0]);
        let kernel = self.param(Place::Whole, &[width, dim], 0.7);
        self.einsum("rd,rd->d", &[around, kernel])
    }

    /// Offsets of a small window, along the axes the lattice has.
    pub(super) fn offsets(&mut self) -> ([i64; 2], [i64; 2]) {
        let (mut lo, mut hi) = ([0; 2], [0; 2]);
        for axis in 0..if self.chain() { 1 } else { 2 } {
            lo[axis] = self.random.between(-2, 1);
            hi[axis] = lo[axis] + self.random.between(0, 2);
        }
        (lo, hi)
    }

    /// `x`, or `x` times a nonlinear function of the local stream.
    fn gated(&mut self, x: NodeId, phi: NodeId, dim: usize) -> NodeId {
        if self.random.below(3) == 0 {
            return x;
        }
        let gate = if self.random.coin() {
            self.dense(phi, dim)
        } else {
            self.stencil(phi, dim)
        };
        let gate = self.map(MapFn::Tanh, gate);
        self.zip(ZipFn::Mul, gate, x)
    }

    /// A random linear mixer on `[dim]` channels, real or complex.
    fn mixer(&mut self, x: NodeId, dim: usize) -> NodeId {
        let complex = self.random.coin();
        let channels = if complex { [2, dim / 2] } else { [1, dim] };
        let shape = &channels[usize::from(!complex)..];
        let x = self.reshape(x, shape);
        let t: Token = self.token;
        let transposed = self.random.coin();
        let choices: &[u8] = match (self.chain(), self.ring()) {
            (true, true) => &[0, 0, 1, 2, 3, 4],
            (true, false) => &[0, 0, 1, 2, 4],
            (false, true) => &[1, 2, 3, 4],
            (false, false) => &[1, 2, 4],
        };
        let y = match self.random.pick(choices) {
            0 => {
                let kind = self.scan_kind(complex);
                let coefficients = self.scan_coefficients(kind, &channels[1..]);
                let operands: Vec<NodeId> = [x].into_iter().chain(coefficients).collect();
                self.add(Op::Scan(kind), &operands)
            }
            1 => {
                let k = self.param(Place::Displacement(t), shape, 0.5);
                self.add(
                    Op::Convolve {
                        complex,
                        transposed,
                    },
                    &[x, k],
                )
            }
            2 => {
                let k = self.param(Place::Pair(t), shape, 0.5);
                self.add(
                    Op::Mix {
                        complex,
                        transposed,
                    },
                    &[x, k],
                )
            }
            3 => {
                let k = self.param(Place::Momentum(t), &[2, channels[1]], 0.8);
                self.add(
                    Op::Modes {
                        complex,
                        transposed,
                    },
                    &[x, k],
                )
            }
            _ => {
                let flat = self.reshape(x, &[dim]);
                self.stencil(flat, dim)
            }
        };
        self.reshape(y, &[dim])
    }
}
