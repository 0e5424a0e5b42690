//! Random networks in the family of the paper's Fig. 1c, for tests of the derivation.
#![allow(dead_code)] // each test crate uses a part of it

use dnet::check::core::{Dim, Einsum, Place, Token};
use dnet::interp::Tensor;
use dnet::ir::valid::{infer, validate};
use dnet::ir::{Boundary, Graph, GraphParam, Lattice, MapFn, NodeId, NodeType, Op, Scan, ZipFn};

/// Deterministic random numbers (SplitMix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Uniform in [-1, 1).
    pub fn sym(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.word() % n as u64) as usize
    }
    pub fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
    pub fn spins(&mut self, n: usize) -> Vec<i8> {
        (0..n)
            .map(|_| if self.chance(2) { 1 } else { -1 })
            .collect()
    }
}

/// A graph with parameters of order one.
pub struct Net {
    pub graph: Graph,
    pub params: Vec<Tensor>,
    pub lattice: Lattice,
    pub rng: Rng,
}

/// What kind of mixer a layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    ScanReal,
    ScanComplex,
    ScanDense,
    Convolve,
    ConvolveComplex,
    Modes,
    Pairs,
}

/// Which network to build.
#[derive(Clone, Debug)]
pub struct Plan {
    pub token: [usize; 2],
    pub kernel: (i64, i64),
    pub dim: usize,
    pub mixers: Vec<Mix>,
    /// The linear stream keeps the previous layer's value.
    pub residual: bool,
    /// Gated contributions of layers further back.
    pub skips: bool,
    /// Matrix-valued vertices D(phi) instead of gates.
    pub matrix: bool,
    /// Every layer mixes with the sum of two mixers.
    pub twin: bool,
    /// A stencil on the linear stream after every layer.
    pub stencil: bool,
    /// A mixer after the last vertex, read without a gate.
    pub final_mixer: bool,
    /// Features: site-weighted sum instead of mean.
    pub weighted: bool,
    /// Features that keep their sites (one channel), besides the sum.
    pub gather: bool,
    pub complex_output: bool,
}

impl Plan {
    /// The published network: two blocks of tokens of two spins.
    pub fn paper() -> Plan {
        Plan {
            dim: 14,
            ..Plan::dysonnet(2, (-1, 2), &[Mix::ScanComplex, Mix::ScanComplex])
        }
    }

    /// Any network of so many recurrences.
    pub fn of_recurrences(depth: usize, rng: &mut Rng) -> Plan {
        let kinds = [Mix::ScanComplex, Mix::ScanReal, Mix::ScanDense];
        let mixers: Vec<Mix> = (0..depth).map(|_| kinds[rng.below(3)]).collect();
        let lo = -(rng.below(3) as i64);
        let hi = lo + rng.below(4) as i64;
        let mut plan = Plan::dysonnet(1 + rng.below(3), (lo, hi), &mixers);
        plan.dim = 2 + 2 * rng.below(2);
        plan.residual = rng.chance(2);
        plan.skips = rng.chance(2);
        plan.matrix = rng.chance(3);
        plan.complex_output = rng.chance(2);
        plan
    }

    pub fn dysonnet(token: usize, kernel: (i64, i64), mixers: &[Mix]) -> Plan {
        Plan {
            token: [token, 1],
            kernel,
            dim: 2,
            mixers: mixers.to_vec(),
            residual: true,
            skips: false,
            matrix: false,
            twin: false,
            stencil: false,
            final_mixer: false,
            weighted: false,
            gather: false,
            complex_output: false,
        }
    }
}

pub fn dims(shape: &[usize]) -> Vec<Dim> {
    shape.iter().map(|&n| Dim::Static(n)).collect()
}

fn spec(text: &str) -> Einsum {
    let (inputs, output) = text.split_once("->").unwrap();
    Einsum {
        inputs: inputs.split(',').map(|s| s.chars().collect()).collect(),
        output: output.chars().collect(),
    }
}

impl Net {
    /// A restricted Boltzmann machine: one hidden unit per spin, any couplings.
    pub fn boltzmann(sites: usize) -> Net {
        let mut n = Net::new(Lattice::chain(sites, Boundary::Periodic), 1);
        let spins = n.typed(Op::Spins, &[], Place::Site(Token::SPIN), &[]);
        let w = n.param(Place::Pair(Token::SPIN), sites * sites, &[], |r| r.sym());
        let mix = Op::Mix {
            complex: false,
            transposed: false,
        };
        let theta = n.op(mix, &[spins, w]);
        let hidden = n.op(Op::Gather, &[theta]);
        let hidden = n.map(MapFn::LogCosh, hidden);
        let out = n.einsum("i->", &[hidden]);
        n.graph.outputs.push(out);
        n
    }

    pub fn new(lattice: Lattice, seed: u64) -> Net {
        Net {
            graph: Graph::default(),
            params: vec![],
            lattice,
            rng: Rng(seed),
        }
    }
    pub fn op(&mut self, op: Op, args: &[NodeId]) -> NodeId {
        let types: Vec<&NodeType> = args.iter().map(|&a| self.graph.ty(a)).collect();
        let ty = infer(&op, &types)
            .expect("operands fit")
            .expect("type is determined");
        self.graph.push(op, args, ty)
    }
    pub fn typed(&mut self, op: Op, args: &[NodeId], place: Place, shape: &[usize]) -> NodeId {
        self.graph.push(
            op,
            args,
            NodeType {
                place,
                shape: dims(shape),
            },
        )
    }
    /// A parameter with entries `f(rng)`, `entries` of them per element of shape.
    pub fn param(
        &mut self,
        place: Place,
        entries: usize,
        shape: &[usize],
        mut f: impl FnMut(&mut Rng) -> f64,
    ) -> NodeId {
        let index = self.graph.params.len() as u32;
        let ty = NodeType {
            place,
            shape: dims(shape),
        };
        self.graph.params.push(GraphParam {
            path: format!("p{index}"),
            ty,
        });
        let mut full = shape.to_vec();
        if place != Place::Whole {
            full.insert(0, entries);
        }
        let rng = &mut self.rng;
        self.params.push(Tensor::from_fn(&full, |_| f(rng)));
        self.typed(Op::Param(index), &[], place, shape)
    }
    pub fn normal(&mut self, shape: &[usize], scale: f64) -> NodeId {
        self.param(Place::Whole, 1, shape, |r| 1.7 * scale * r.sym())
    }
    pub fn einsum(&mut self, text: &str, args: &[NodeId]) -> NodeId {
        self.op(Op::Einsum(spec(text)), args)
    }
    pub fn zip(&mut self, f: ZipFn, a: NodeId, b: NodeId) -> NodeId {
        self.op(Op::Zip(f), &[a, b])
    }
    pub fn map(&mut self, f: MapFn, a: NodeId) -> NodeId {
        self.op(Op::Map(f), &[a])
    }
    /// `x W` with a fresh matrix.
    pub fn dense(&mut self, x: NodeId, from: usize, to: usize) -> NodeId {
        let w = self.normal(&[from, to], 1.0 / (from as f64).sqrt());
        self.einsum("a,ab->b", &[x, w])
    }
    fn sites(&self, token: Token) -> [usize; 2] {
        [
            self.lattice.extent[0] / token.0[0],
            self.lattice.extent[1] / token.0[1],
        ]
    }

    /// A mixer with fresh coefficients acting on `v` of shape `[d]`, d even.
    pub fn mixer(&mut self, kind: Mix, v: NodeId, token: Token, d: usize) -> NodeId {
        let site = Place::Site(token);
        let extent = self.sites(token);
        let ring = self.lattice.boundary == Boundary::Periodic;
        let t = extent[0] * extent[1];
        let displacements: usize = extent
            .iter()
            .map(|&e| if ring { e } else { 2 * e - 1 })
            .product();
        let decay = |r: &mut Rng| 0.55 + 0.35 * r.sym();
        match kind {
            Mix::ScanReal => {
                let leftward = self.rng.chance(2);
                let lambda = self.param(Place::Whole, 1, &[2, d], decay);
                let (b, c) = (self.normal(&[2, d], 0.7), self.normal(&[2, d], 0.7));
                let scan = Scan {
                    complex: false,
                    dense: false,
                    low_rank: false,
                    mirror: false,
                    leftward,
                };
                self.op(Op::Scan(scan), &[v, lambda, b, c])
            }
            Mix::ScanComplex => {
                let half = d / 2;
                let z = self.typed(Op::Reshape, &[v], site, &[2, half]);
                let lambda = self.param(Place::Whole, 1, &[2, 2, half], |r| 0.5 * r.sym());
                let p = self.normal(&[2, 2, half], 0.2);
                let q = self.normal(&[2, 2, half], 0.2);
                let (b, c) = (
                    self.normal(&[2, 2, half], 0.6),
                    self.normal(&[2, 2, half], 0.6),
                );
                let scan = Scan {
                    complex: true,
                    dense: false,
                    low_rank: true,
                    mirror: true,
                    leftward: false,
                };
                let y = self.op(Op::Scan(scan), &[z, lambda, p, q, b, c]);
                self.typed(Op::Reshape, &[y], site, &[d])
            }
            Mix::ScanDense => {
                let a = self.param(Place::Whole, 1, &[2, 2, d], |r| 0.4 * r.sym());
                let (b, c) = (self.normal(&[2, d], 0.7), self.normal(&[2, d], 0.7));
                let scan = Scan {
                    complex: false,
                    dense: true,
                    low_rank: false,
                    mirror: true,
                    leftward: true,
                };
                self.op(Op::Scan(scan), &[v, a, b, c])
            }
            Mix::Convolve => {
                let k = self.param(Place::Displacement(token), displacements, &[d], |r| {
                    0.4 * r.sym()
                });
                self.op(
                    Op::Convolve {
                        complex: false,
                        transposed: false,
                    },
                    &[v, k],
                )
            }
            Mix::ConvolveComplex => {
                let z = self.typed(Op::Reshape, &[v], site, &[2, d / 2]);
                let k = self.param(
                    Place::Displacement(token),
                    displacements,
                    &[2, d / 2],
                    |r| 0.4 * r.sym(),
                );
                let y = self.op(
                    Op::Convolve {
                        complex: true,
                        transposed: true,
                    },
                    &[z, k],
                );
                self.typed(Op::Reshape, &[y], site, &[d])
            }
            Mix::Modes => {
                let z = self.typed(Op::Reshape, &[v], site, &[2, d / 2]);
                let k = self.param(Place::Momentum(token), t, &[2, d / 2], |r| 0.7 * r.sym());
                let y = self.op(
                    Op::Modes {
                        complex: true,
                        transposed: false,
                    },
                    &[z, k],
                );
                self.typed(Op::Reshape, &[y], site, &[d])
            }
            Mix::Pairs => {
                let k = self.param(Place::Pair(token), t * t, &[d], |r| 0.4 * r.sym());
                self.op(
                    Op::Mix {
                        complex: false,
                        transposed: false,
                    },
                    &[v, k],
                )
            }
        }
    }

    /// Builds the planned network.
    pub fn build(lattice: Lattice, plan: &Plan, seed: u64) -> Net {
        let mut n = Net::new(lattice, seed);
        let (d, token) = (plan.dim, Token(plan.token));
        let site = Place::Site(token);
        let square = lattice.extent[1] > 1;
        let window = |(lo, hi): (i64, i64)| {
            let y = if square { (lo, hi) } else { (0, 0) };
            (
                Op::Window {
                    lo: [lo, y.0],
                    hi: [hi, y.1],
                },
                ((hi - lo + 1) * (y.1 - y.0 + 1)) as usize,
            )
        };
        let spins = n.typed(Op::Spins, &[], Place::Site(Token::SPIN), &[]);
        let tokens = n.op(Op::Patch { ratio: plan.token }, &[spins]);
        let bias = n.normal(&[d], 0.4);
        let tok = n.dense(tokens, token.volume(), d);
        let tok = n.zip(ZipFn::Add, tok, bias);
        let mut phi = n.map(MapFn::Tanh, tok);
        let mut h = tok;
        let mut history = vec![h];
        for &kind in &plan.mixers {
            let (op, width) = window(plan.kernel);
            let stencil = n.normal(&[width, d], 1.0 / (width as f64).sqrt());
            let near = n.op(op, &[phi]);
            let near = n.einsum("rc,rc->c", &[near, stencil]);
            let c = n.map(MapFn::Tanh, near);
            let mut x = h;
            if plan.skips && history.len() > 1 {
                let far = history[n.rng.below(history.len() - 1)];
                let gate = n.dense(phi, d, d);
                let far = n.zip(ZipFn::Mul, gate, far);
                x = n.zip(ZipFn::Sub, x, far);
            }
            let u = n.dense(x, d, d);
            let v = n.zip(ZipFn::Add, u, c);
            let mut y = n.mixer(kind, v, token, d);
            if plan.twin {
                let other = n.mixer(Mix::Convolve, x, token, d);
                y = n.zip(ZipFn::Add, y, other);
            }
            let y = n.dense(y, d, d);
            let vertex = if plan.matrix {
                let m = n.dense(phi, d, d * d);
                let m = n.map(MapFn::Sin, m);
                let m = n.typed(Op::Reshape, &[m], site, &[d, d]);
                n.einsum("ab,b->a", &[m, y])
            } else {
                let gate = n.dense(phi, d, d);
                let gate = n.map(MapFn::Tanh, gate);
                n.zip(ZipFn::Mul, gate, y)
            };
            h = if plan.residual {
                n.zip(ZipFn::Add, h, vertex)
            } else {
                vertex
            };
            if plan.stencil {
                let (op, width) = window((-1, 1));
                let near = n.op(op, &[h]);
                let k = n.normal(&[width, d], 1.0 / (width as f64).sqrt());
                h = n.einsum("rc,rc->c", &[near, k]);
            }
            history.push(h);
            phi = n.zip(ZipFn::Add, phi, c);
        }
        if plan.final_mixer {
            h = n.mixer(Mix::Convolve, h, token, d);
        }
        n.read(h, phi, plan)
    }

    /// Pools and the nonlinear readout.
    pub fn read(mut self, h: NodeId, phi: NodeId, plan: &Plan) -> Net {
        let n = &mut self;
        let (d, token) = (plan.dim, Token(plan.token));
        let t: usize = n.sites(token).iter().product();
        let mut pooled = h;
        if plan.weighted {
            let w = n.param(Place::Site(token), t, &[d], |r| r.sym());
            pooled = n.zip(ZipFn::Mul, pooled, w);
        }
        let total = n.op(Op::Sum, &[pooled]);
        let count = n.op(Op::SiteCount(token), &[]);
        let mean = n.zip(ZipFn::Div, total, count);
        let theta = n.dense(mean, d, 3);
        let heads = n.map(MapFn::LogCosh, theta);
        let mut value = n.einsum("a->", &[heads]);
        let local = n.op(Op::Sum, &[phi]);
        let local = n.dense(local, d, 1);
        let local = n.einsum("a->", &[local]);
        value = n.zip(ZipFn::Add, value, local);
        if plan.gather {
            let one = n.dense(h, d, 1);
            let all = n.op(Op::Gather, &[one]);
            let all = n.map(MapFn::LogCosh, all);
            let all = n.einsum("ia->", &[all]);
            value = n.zip(ZipFn::Add, value, all);
        }
        n.graph.outputs.push(value);
        if plan.complex_output {
            let phase = n.dense(mean, d, 1);
            let phase = n.map(MapFn::Sin, phase);
            let phase = n.einsum("a->", &[phase]);
            n.graph.outputs.push(phase);
        }
        validate(&n.graph).expect("the builder makes valid graphs");
        self
    }
}
