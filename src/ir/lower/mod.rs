//! From the elaborated program to the network graph: complex values become
//! pairs of real nodes.

mod complex;

use crate::check::core::{
    Binary, CoreOp, DType, Dim, Einsum, NetworkInfo, ParamId, Place, ScanShape, Type, Value,
    ValueId,
};
use crate::ir::graph::{Graph, GraphParam, MapFn, NodeId, NodeType, Op, Scan, ZipFn};

/// A lowered value: its real part, and its imaginary part if it is complex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Real part.
    pub re: NodeId,
    /// Imaginary part.
    pub im: Option<NodeId>,
}

/// The graph of a network and where each value of the program went.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The graph; its outputs are Re and, for complex readouts, Im log psi.
    pub graph: Graph,
    /// Nodes of each value, by [`ValueId`].
    pub parts: Vec<Parts>,
}

/// Lowers a checked network.
pub fn lower(info: &NetworkInfo) -> Lowered {
    let mut l = Lowering {
        graph: Graph::default(),
        parts: Vec::with_capacity(info.values.len()),
        params: Vec::new(),
    };
    for p in &info.params {
        let ty = NodeType {
            place: p.ty.place,
            shape: p.ty.shape.clone(),
        };
        let re = l.graph.params.len() as u32;
        let mut add = |suffix: &str| {
            l.graph.params.push(GraphParam {
                path: format!("{}{suffix}", p.path),
                ty: ty.clone(),
            })
        };
        if p.ty.dtype == DType::Complex {
            add(".re");
            add(".im");
        } else {
            add("");
        }
        l.params.push(re);
    }
    for v in &info.values {
        let before = l.graph.len();
        let parts = l.value(v);
        if let Some(name) = &v.name {
            l.graph.set_name(parts.re, name);
            if let Some(im) = parts.im {
                l.graph.set_name(im, &format!("{name}.im"));
            }
        }
        // What moves values between sites is called after the mixer it belongs to.
        if let Some((mixer, _)) = &v.mixer {
            for id in l.graph.ids().skip(before) {
                if let Op::Scan(_)
                | Op::Convolve { .. }
                | Op::Modes { .. }
                | Op::Mix { .. }
                | Op::Window { .. } = l.graph.op(id)
                {
                    l.graph.set_name(id, mixer);
                }
            }
        }
        l.parts.push(parts);
    }
    let out = l.parts[info.log_psi.0 as usize];
    l.graph.outputs = [Some(out.re), out.im].into_iter().flatten().collect();
    Lowered {
        graph: l.graph,
        parts: l.parts,
    }
}

struct Lowering {
    graph: Graph,
    parts: Vec<Parts>,
    /// First graph parameter of each parameter.
    params: Vec<u32>,
}

fn real(re: NodeId) -> Parts {
    Parts { re, im: None }
}

impl Lowering {
    fn value(&mut self, v: &Value) -> Parts {
        let ty = NodeType {
            place: v.ty.place,
            shape: v.ty.shape.clone(),
        };
        let args: Vec<Parts> = v.args.iter().map(|a| self.parts[a.0 as usize]).collect();
        match &v.op {
            CoreOp::Number(x) => real(self.graph.push(Op::Number(*x), &[], ty)),
            CoreOp::Imaginary(x) => {
                let zero = self.graph.push(Op::Number(0.0), &[], ty.clone());
                Parts {
                    re: zero,
                    im: Some(self.graph.push(Op::Number(*x), &[], ty)),
                }
            }
            CoreOp::Param(p) => self.param(*p, v, ty),
            CoreOp::Spins => real(self.graph.push(Op::Spins, &[], ty)),
            CoreOp::SiteIndex { axis, .. } => {
                real(self.graph.push(Op::SiteIndex { axis: *axis }, &[], ty))
            }
            CoreOp::Displacement { axis, .. } => {
                real(self.graph.push(Op::Displacement { axis: *axis }, &[], ty))
            }
            CoreOp::Momentum { axis, .. } => {
                real(self.graph.push(Op::Momentum { axis: *axis }, &[], ty))
            }
            CoreOp::PairIndex { axis, source, .. } => real(self.graph.push(
                Op::PairIndex {
                    axis: *axis,
                    source: *source,
                },
                &[],
                ty,
            )),
            CoreOp::SiteCount(token) => real(self.graph.push(Op::SiteCount(*token), &[], ty)),
            CoreOp::Extent { axis, token } => real(self.graph.push(
                Op::Extent {
                    axis: *axis,
                    token: *token,
                },
                &[],
                ty,
            )),
            CoreOp::Unary(f) => self.unary(*f, args[0]),
            CoreOp::Binary(f) => self.binary(*f, args[0], args[1]),
            CoreOp::Einsum(spec) => self.einsum(spec, &args, ty),
            CoreOp::Reshape => self.each(&args, ty, Op::Reshape),
            CoreOp::Slice { axis, start, len } => self.each(
                &args,
                ty,
                Op::Slice {
                    axis: *axis,
                    start: *start,
                    len: *len,
                },
            ),
            CoreOp::Concat { axis } => self.concat(*axis, &args, v, ty),
            CoreOp::Window { lo, hi } => self.each(&args, ty, Op::Window { lo: *lo, hi: *hi }),
            CoreOp::Patch { ratio } => self.each(&args, ty, Op::Patch { ratio: *ratio }),
            CoreOp::Sum => self.each(&args, ty, Op::Sum),
            CoreOp::Gather => self.each(&args, ty, Op::Gather),
            CoreOp::RowSum => self.each(&args, ty, Op::RowSum),
            CoreOp::Scan(shape) => self.scan(*shape, &args, &v.ty),
            CoreOp::Convolve => self.convolve(&args, ty, false),
            CoreOp::Mix => self.convolve(&args, ty, true),
            CoreOp::Modes => self.modes(&args, ty),
        }
    }

    fn param(&mut self, p: ParamId, v: &Value, ty: NodeType) -> Parts {
        let first = self.params[p.0 as usize];
        let re = self.graph.push(Op::Param(first), &[], ty.clone());
        let im =
            (v.ty.dtype == DType::Complex).then(|| self.graph.push(Op::Param(first + 1), &[], ty));
        Parts { re, im }
    }

    /// The same linear operation on real and imaginary part.
    fn each(&mut self, args: &[Parts], ty: NodeType, op: Op) -> Parts {
        let re = self.graph.push(op.clone(), &[args[0].re], ty.clone());
        let im = args[0].im.map(|im| self.graph.push(op, &[im], ty));
        Parts { re, im }
    }

    fn number(&mut self, x: f64) -> NodeId {
        self.graph.push(
            Op::Number(x),
            &[],
            NodeType {
                place: Place::Whole,
                shape: vec![],
            },
        )
    }

    fn map(&mut self, f: MapFn, x: NodeId) -> NodeId {
        let ty = self.graph.ty(x).clone();
        self.graph.push(Op::Map(f), &[x], ty)
    }

    fn zip(&mut self, f: ZipFn, a: NodeId, b: NodeId) -> NodeId {
        let (ta, tb) = (self.graph.ty(a), self.graph.ty(b));
        let place = if ta.place == Place::Whole {
            tb.place
        } else {
            ta.place
        };
        let n = ta.shape.len().max(tb.shape.len());
        let at = |s: &[Dim], k: usize| {
            if k + s.len() >= n {
                s[k + s.len() - n]
            } else {
                Dim::Static(1)
            }
        };
        let shape = (0..n)
            .map(|k| match (at(&ta.shape, k), at(&tb.shape, k)) {
                (Dim::Static(1), y) => y,
                (x, _) => x,
            })
            .collect();
        self.graph
            .push(Op::Zip(f), &[a, b], NodeType { place, shape })
    }

    fn scaled(&mut self, s: f64, x: NodeId) -> NodeId {
        let s = self.number(s);
        self.zip(ZipFn::Mul, s, x)
    }

    /// A tensor of zeros like `x`.
    fn zeros_like(&mut self, x: NodeId) -> NodeId {
        let ty = self.graph.ty(x).clone();
        let zero = self.number(0.0);
        self.graph.push(Op::Broadcast, &[zero], ty)
    }

    /// `x` broadcast to the type of `like`.
    fn like(&mut self, x: NodeId, like: NodeId) -> NodeId {
        let ty = self.graph.ty(like).clone();
        if *self.graph.ty(x) == ty {
            x
        } else {
            self.graph.push(Op::Broadcast, &[x], ty)
        }
    }

    fn einsum(&mut self, spec: &Einsum, args: &[Parts], ty: NodeType) -> Parts {
        let op = Op::Einsum(spec.clone());
        let [a, b] = args else {
            return self.each(args, ty, op);
        };
        let mut f = |x: NodeId, y: NodeId| self.graph.push(op.clone(), &[x, y], ty.clone());
        match (a.im, b.im) {
            (None, None) => real(f(a.re, b.re)),
            (Some(x), None) => Parts {
                re: f(a.re, b.re),
                im: Some(f(x, b.re)),
            },
            (None, Some(y)) => Parts {
                re: f(a.re, b.re),
                im: Some(f(a.re, y)),
            },
            (Some(x), Some(y)) => {
                let (rr, ii, ri, ir) = (f(a.re, b.re), f(x, y), f(a.re, y), f(x, b.re));
                Parts {
                    re: self.zip(ZipFn::Sub, rr, ii),
                    im: Some(self.zip(ZipFn::Add, ri, ir)),
                }
            }
        }
    }

    fn concat(&mut self, axis: usize, args: &[Parts], v: &Value, ty: NodeType) -> Parts {
        let place = v.ty.place;
        let spread = |l: &mut Self, x: NodeId| {
            let own = l.graph.ty(x).clone();
            if own.place == place {
                x
            } else {
                l.graph.push(Op::Broadcast, &[x], NodeType { place, ..own })
            }
        };
        let re: Vec<NodeId> = args.iter().map(|a| spread(self, a.re)).collect();
        let complex = args.iter().any(|a| a.im.is_some());
        let im = complex.then(|| {
            let parts: Vec<NodeId> = args
                .iter()
                .zip(&re)
                .map(|(a, &r)| match a.im {
                    Some(im) => spread(self, im),
                    None => self.zeros_like(r),
                })
                .collect();
            self.graph.push(Op::Concat { axis }, &parts, ty.clone())
        });
        Parts {
            re: self.graph.push(Op::Concat { axis }, &re, ty),
            im,
        }
    }

    /// Real and imaginary part as a leading axis of length 2.
    fn pack(&mut self, x: Parts) -> NodeId {
        let ty = self.graph.ty(x.re).clone();
        let lead = |n: usize| {
            let mut shape = ty.shape.clone();
            shape.insert(0, Dim::Static(n));
            NodeType {
                place: ty.place,
                shape,
            }
        };
        let im = match x.im {
            Some(im) => self.like(im, x.re),
            None => self.zeros_like(x.re),
        };
        let re = self.graph.push(Op::Reshape, &[x.re], lead(1));
        let im = self.graph.push(Op::Reshape, &[im], lead(1));
        self.graph.push(Op::Concat { axis: 0 }, &[re, im], lead(2))
    }

    /// Component `k` of a packed value.
    fn unpack(&mut self, x: NodeId, k: usize) -> NodeId {
        let ty = self.graph.ty(x).clone();
        let mut one = ty.clone();
        one.shape[0] = Dim::Static(1);
        let part = self.graph.push(
            Op::Slice {
                axis: 0,
                start: k,
                len: 1,
            },
            &[x],
            one,
        );
        self.graph.push(
            Op::Reshape,
            &[part],
            NodeType {
                place: ty.place,
                shape: ty.shape[1..].to_vec(),
            },
        )
    }

    fn scan(&mut self, shape: ScanShape, args: &[Parts], ty: &Type) -> Parts {
        let (coefficients, skip) = if shape.skip {
            args[1..].split_at(args.len() - 2)
        } else {
            (&args[1..], &args[..0])
        };
        let x = args[0];
        let complex = x.im.is_some() || coefficients.iter().any(|c| c.im.is_some());
        let scan = Scan {
            complex,
            dense: shape.dense,
            low_rank: shape.low_rank,
            mirror: shape.mirror,
            leftward: shape.leftward,
        };
        let mut operands = Vec::new();
        for &a in [x].iter().chain(coefficients) {
            operands.push(if complex { self.pack(a) } else { a.re });
        }
        let out_ty = self.graph.ty(operands[0]).clone();
        let y = self.graph.push(Op::Scan(scan), &operands, out_ty);
        let mut out = if complex {
            let re = self.unpack(y, 0);
            let im = (ty.dtype == DType::Complex).then(|| self.unpack(y, 1));
            Parts { re, im }
        } else {
            real(y)
        };
        if let [s] = skip {
            let mut direct = self.binary(Binary::Mul, *s, x);
            if ty.dtype == DType::Real {
                direct.im = None;
            }
            out = self.binary(Binary::Add, out, direct);
        }
        out
    }

    /// `convolve` and `mix`: one node, with real and imaginary channels side by
    /// side where only one operand is complex.
    fn convolve(&mut self, args: &[Parts], ty: NodeType, pairs: bool) -> Parts {
        let (x, k) = (args[0], args[1]);
        let op = |complex| {
            if pairs {
                Op::Mix {
                    complex,
                    transposed: false,
                }
            } else {
                Op::Convolve {
                    complex,
                    transposed: false,
                }
            }
        };
        if x.im.is_none() && k.im.is_none() {
            return real(self.graph.push(op(false), &[x.re, k.re], ty));
        }
        let mut packed_ty = ty.clone();
        packed_ty.shape.insert(0, Dim::Static(2));
        let (px, pk, complex) = match (x.im, k.im) {
            (Some(_), Some(_)) => (self.pack(x), self.packed_kernel(k, ty.shape.len()), true),
            (Some(_), None) => (self.pack(x), k.re, false),
            _ => {
                let wide = self.graph.push(Op::Broadcast, &[x.re], packed_ty.clone());
                (wide, self.packed_kernel(k, ty.shape.len()), false)
            }
        };
        let y = self.graph.push(op(complex), &[px, pk], packed_ty);
        Parts {
            re: self.unpack(y, 0),
            im: Some(self.unpack(y, 1)),
        }
    }

    /// A packed kernel whose leading axis lines up with that of packed channels.
    fn packed_kernel(&mut self, k: Parts, rank: usize) -> NodeId {
        let aligned = |l: &mut Self, x: NodeId| {
            let own = l.graph.ty(x).clone();
            let missing = rank - own.shape.len();
            if missing == 0 {
                return x;
            }
            let shape = std::iter::repeat_n(Dim::Static(1), missing)
                .chain(own.shape)
                .collect();
            l.graph.push(
                Op::Reshape,
                &[x],
                NodeType {
                    place: own.place,
                    shape,
                },
            )
        };
        let re = aligned(self, k.re);
        let im = k.im.map(|im| aligned(self, im));
        self.pack(Parts { re, im })
    }

    fn modes(&mut self, args: &[Parts], ty: NodeType) -> Parts {
        let (x, symbol) = (args[0], self.packed_kernel(args[1], ty.shape.len()));
        if x.im.is_none() {
            return real(self.graph.push(
                Op::Modes {
                    complex: false,
                    transposed: false,
                },
                &[x.re, symbol],
                ty,
            ));
        }
        let px = self.pack(x);
        let packed = self.graph.ty(px).clone();
        let y = self.graph.push(
            Op::Modes {
                complex: true,
                transposed: false,
            },
            &[px, symbol],
            packed,
        );
        Parts {
            re: self.unpack(y, 0),
            im: Some(self.unpack(y, 1)),
        }
    }
}

impl Lowered {
    /// The nodes of a value.
    pub fn of(&self, id: ValueId) -> Parts {
        self.parts[id.0 as usize]
    }
}
