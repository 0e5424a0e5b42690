//! The part of an operand's adjoint that flows through one node.

use super::ReverseError;
use super::build::{Builder, Built};
use crate::check::core::{Dim, Einsum, Place};
use crate::ir::{MapFn, NodeId, NodeType, Op, ZipFn};
use std::f64::consts::FRAC_2_SQRT_PI;

type Part = Result<Option<NodeId>, ReverseError>;

impl Builder {
    /// The adjoint of operand `k` of node `id` due to the adjoint `g` of the
    /// node, of the operand's type; `None` if it is zero.
    pub(super) fn operand_adjoint(&mut self, id: NodeId, k: usize, g: NodeId) -> Part {
        let args = self.graph.args(id).to_vec();
        let operand = self.ty(args[k]);
        let part = match self.graph.op(id).clone() {
            // no operands
            Op::Param(_)
            | Op::Number(_)
            | Op::Spins
            | Op::SiteIndex { .. }
            | Op::Displacement { .. }
            | Op::Momentum { .. }
            | Op::PairIndex { .. }
            | Op::SiteCount(_)
            | Op::Extent { .. } => return Ok(None),
            Op::Map(f) => return self.map_adjoint(f, args[0], id, g),
            Op::Zip(f) => {
                let Some(part) = self.zip_adjoint(f, k, [args[0], args[1]], id, g)? else {
                    return Ok(None);
                };
                self.reduce(part, &operand)?
            }
            Op::Einsum(spec) => self.einsum_adjoint(&spec, &args, k, g)?,
            Op::Reshape => self.reshape(g, &operand.shape),
            Op::Broadcast => self.reduce(g, &operand)?,
            Op::Slice { axis, start, .. } => self.add(
                Op::Pad {
                    axis,
                    start,
                    len: fixed(&operand, axis),
                },
                &[g],
            )?,
            Op::Pad { axis, start, .. } => self.add(
                Op::Slice {
                    axis,
                    start,
                    len: fixed(&operand, axis),
                },
                &[g],
            )?,
            Op::Concat { axis } => {
                let start = args[..k]
                    .iter()
                    .map(|&a| fixed(self.graph.ty(a), axis))
                    .sum();
                self.add(
                    Op::Slice {
                        axis,
                        start,
                        len: fixed(&operand, axis),
                    },
                    &[g],
                )?
            }
            Op::Window { lo, hi } => self.add(Op::WindowAdjoint { lo, hi }, &[g])?,
            Op::WindowAdjoint { lo, hi } => self.add(Op::Window { lo, hi }, &[g])?,
            Op::Patch { ratio } => self.add(Op::Unpatch { ratio }, &[g])?,
            Op::Unpatch { ratio } => self.add(Op::Patch { ratio }, &[g])?,
            Op::Sum => self.broadcast(g, &operand),
            Op::Gather => self.graph.push(Op::Scatter, &[g], operand),
            Op::Scatter => self.add(Op::Gather, &[g])?,
            Op::RowSum => self.add(Op::RowBroadcast, &[g])?,
            Op::RowBroadcast => self.add(Op::RowSum, &[g])?,
            Op::Scan(scan) if k == 0 => self.scan_input_adjoint(scan, g, &args)?,
            Op::Scan(scan) => {
                let operands: Vec<NodeId> = [g].into_iter().chain(args).collect();
                self.add(Op::ScanGrad { scan, wrt: k }, &operands)?
            }
            Op::ScanGrad { scan, wrt } => return self.scan_grad_adjoint(scan, wrt, &args, k, g),
            Op::Convolve {
                complex,
                transposed,
            } => {
                let back = Op::Convolve {
                    complex,
                    transposed: !transposed,
                };
                self.mixer_adjoint(
                    k,
                    &args,
                    g,
                    complex,
                    back,
                    Op::Correlate { complex },
                    transposed,
                )?
            }
            Op::Mix {
                complex,
                transposed,
            } => {
                let back = Op::Mix {
                    complex,
                    transposed: !transposed,
                };
                self.mixer_adjoint(
                    k,
                    &args,
                    g,
                    complex,
                    back,
                    Op::MixGrad { complex },
                    transposed,
                )?
            }
            Op::Correlate { complex } => {
                let forward = |transposed| Op::Convolve {
                    complex,
                    transposed,
                };
                self.kernel_gradient_adjoint(k, &args, g, complex, forward)?
            }
            Op::MixGrad { complex } => {
                let forward = |transposed| Op::Mix {
                    complex,
                    transposed,
                };
                self.kernel_gradient_adjoint(k, &args, g, complex, forward)?
            }
            Op::Modes {
                complex,
                transposed,
            } if k == 0 => self.add(
                Op::Modes {
                    complex,
                    transposed: !transposed,
                },
                &[g, args[1]],
            )?,
            Op::Modes {
                complex,
                transposed,
            } => {
                // conj(G conj(X)) = X conj(G)
                let pair = if transposed {
                    [args[0], g]
                } else {
                    [g, args[0]]
                };
                let full = self.add(Op::ModesGrad { complex }, &pair)?;
                self.reduce_channels(full, &operand, 1)?
            }
            Op::ModesGrad { complex } => self.add(
                Op::Modes {
                    complex,
                    transposed: k == 1,
                },
                &[args[1 - k], g],
            )?,
        };
        Ok(Some(part))
    }

    fn map_adjoint(&mut self, f: MapFn, x: NodeId, y: NodeId, g: NodeId) -> Part {
        let slope = match f {
            MapFn::Sign | MapFn::Floor => return Ok(None),
            MapFn::Neg => return self.neg(g).map(Some),
            MapFn::Exp => y,
            MapFn::Log => self.map(MapFn::Recip, x)?,
            MapFn::Log1p => {
                let one = self.number(1.0)?;
                let sum = self.zip(ZipFn::Add, one, x)?;
                self.map(MapFn::Recip, sum)?
            }
            MapFn::Sqrt => {
                let r = self.map(MapFn::Recip, y)?;
                self.scale(0.5, r)?
            }
            MapFn::Sin => self.map(MapFn::Cos, x)?,
            MapFn::Cos => {
                let s = self.map(MapFn::Sin, x)?;
                self.neg(s)?
            }
            MapFn::Tanh => {
                let square = self.mul(y, y)?;
                let one = self.number(1.0)?;
                self.zip(ZipFn::Sub, one, square)?
            }
            MapFn::LogCosh => self.map(MapFn::Tanh, x)?,
            MapFn::Abs => self.map(MapFn::Sign, x)?,
            MapFn::Erf => {
                let square = self.mul(x, x)?;
                let minus = self.neg(square)?;
                let gauss = self.map(MapFn::Exp, minus)?;
                self.scale(FRAC_2_SQRT_PI, gauss)?
            }
            MapFn::Recip => {
                let square = self.mul(y, y)?;
                self.neg(square)?
            }
        };
        self.mul(g, slope).map(Some)
    }

    /// The part for operand `k` before the reduction to its type.
    fn zip_adjoint(
        &mut self,
        f: ZipFn,
        k: usize,
        [a, b]: [NodeId; 2],
        y: NodeId,
        g: NodeId,
    ) -> Part {
        let part = match (f, k) {
            (ZipFn::Greater, _) => return Ok(None),
            (ZipFn::Add, _) | (ZipFn::Sub | ZipFn::Mod, 0) => g,
            (ZipFn::Sub, _) => self.neg(g)?,
            (ZipFn::Mul, 0) => self.mul(g, b)?,
            (ZipFn::Mul, _) => self.mul(g, a)?,
            (ZipFn::Div, 0) => self.zip(ZipFn::Div, g, b)?,
            (ZipFn::Div, _) => {
                let slope = self.zip(ZipFn::Div, y, b)?;
                let part = self.mul(g, slope)?;
                self.neg(part)?
            }
            (ZipFn::Pow, 0) => {
                let one = self.number(1.0)?;
                let exponent = self.zip(ZipFn::Sub, b, one)?;
                let power = self.zip(ZipFn::Pow, a, exponent)?;
                let slope = self.mul(b, power)?;
                self.mul(g, slope)?
            }
            (ZipFn::Pow, _) => {
                let log = self.map(MapFn::Log, a)?;
                let slope = self.mul(y, log)?;
                self.mul(g, slope)?
            }
            (ZipFn::Max | ZipFn::Min, _) => {
                // at a tie the second operand is the one taken
                let pair = if f == ZipFn::Max { [a, b] } else { [b, a] };
                let first = self.zip(ZipFn::Greater, pair[0], pair[1])?;
                let taken = self.mul(g, first)?;
                if k == 0 {
                    taken
                } else {
                    self.zip(ZipFn::Sub, g, taken)?
                }
            }
            (ZipFn::Atan2, _) => {
                let (aa, bb) = (self.mul(a, a)?, self.mul(b, b)?);
                let square = self.zip(ZipFn::Add, aa, bb)?;
                let slope = self.zip(ZipFn::Div, if k == 0 { b } else { a }, square)?;
                let part = self.mul(g, slope)?;
                if k == 0 { part } else { self.neg(part)? }
            }
            (ZipFn::Mod, _) => {
                let ratio = self.zip(ZipFn::Div, a, b)?;
                let turns = self.map(MapFn::Floor, ratio)?;
                let part = self.mul(g, turns)?;
                self.neg(part)?
            }
        };
        Ok(Some(part))
    }

    /// Contraction of the adjoint with the other operand. Letters found nowhere
    /// else were summed alone: their adjoint is constant along them. Letters
    /// repeated in the operand read a diagonal: theirs is zero off it.
    fn einsum_adjoint(&mut self, spec: &Einsum, args: &[NodeId], k: usize, g: NodeId) -> Built {
        let (word, ty) = (&spec.inputs[k], self.ty(args[k]));
        let length = |l: char| ty.shape[word.iter().position(|&m| m == l).unwrap_or(0)];
        let mut unique: Vec<char> = Vec::new();
        for &l in word {
            if !unique.contains(&l) {
                unique.push(l);
            }
        }
        let (mut inputs, mut operands) = (vec![spec.output.clone()], vec![g]);
        if args.len() == 2 {
            inputs.push(spec.inputs[1 - k].clone());
            operands.push(args[1 - k]);
        }
        let output: Vec<char> = unique
            .iter()
            .copied()
            .filter(|l| inputs.iter().flatten().any(|m| m == l))
            .collect();
        let lengths = |spread: bool| -> Vec<Dim> {
            let dim = |l: char| {
                if output.contains(&l) || spread {
                    length(l)
                } else {
                    Dim::Static(1)
                }
            };
            unique.iter().map(|&l| dim(l)).collect()
        };
        let op = Op::Einsum(Einsum {
            inputs,
            output: output.clone(),
        });
        let mut part = self.add(op, &operands)?;
        if ty.place == Place::Whole && self.ty(part).place != Place::Whole {
            part = self.add(Op::Sum, &[part])?;
        }
        part = self.reshape(part, &lengths(false));
        part = self.broadcast(
            part,
            &NodeType {
                place: ty.place,
                shape: lengths(true),
            },
        );
        self.spread_diagonals(part, unique, word)
    }

    /// A value with axes `unique` put on the diagonals of a value with axes
    /// `word`, in which letters repeat.
    fn spread_diagonals(&mut self, part: NodeId, unique: Vec<char>, word: &[char]) -> Built {
        let (mut part, mut axes, mut labels) = (part, unique, Vec::new());
        for (k, &l) in word.iter().enumerate() {
            if !word[..k].contains(&l) {
                labels.push(l);
                continue;
            }
            let mut front = axes.clone();
            front.retain(|&m| m != l);
            front.insert(0, l);
            part = self.permute(part, &axes, &front)?;
            part = self.diagonal(part)?;
            // labels outside the letters of any program
            let fresh = char::from_u32(0xE000 + k as u32).unwrap_or(l);
            front.insert(0, fresh);
            labels.push(fresh);
            axes = front;
        }
        self.permute(part, &axes, &labels)
    }

    /// `y = K x` with a kernel that is operand 1: `back` is K transposed,
    /// `gradient` gives `g conj(x)` on the kernel's place.
    #[allow(clippy::too_many_arguments)]
    fn mixer_adjoint(
        &mut self,
        k: usize,
        args: &[NodeId],
        g: NodeId,
        complex: bool,
        back: Op,
        gradient: Op,
        transposed: bool,
    ) -> Built {
        let (x, kernel) = (args[0], args[1]);
        if k == 0 {
            let kernel = self.conj_if(complex, kernel)?;
            return self.add(back, &[g, kernel]);
        }
        let full = if transposed {
            // sum g_i conj(x_j) at (j, i) is sum conj(x_j) conj(conj(g_i))
            let pair = [self.conj_if(complex, x)?, self.conj_if(complex, g)?];
            self.add(gradient, &pair)?
        } else {
            self.add(gradient, &[g, x])?
        };
        let ty = self.ty(kernel);
        self.reduce_channels(full, &ty, usize::from(complex))
    }

    /// `k = g conj(x)` on a kernel's place: bilinear, with the mixer of kernel
    /// `b` (the adjoint of k) as derivative.
    fn kernel_gradient_adjoint(
        &mut self,
        k: usize,
        args: &[NodeId],
        b: NodeId,
        complex: bool,
        forward: impl Fn(bool) -> Op,
    ) -> Built {
        if k == 0 {
            self.add(forward(false), &[args[1], b])
        } else {
            let b = self.conj_if(complex, b)?;
            self.add(forward(true), &[args[0], b])
        }
    }
}

/// The length of an axis that validity demands to be static.
fn fixed(ty: &NodeType, axis: usize) -> usize {
    match ty.shape[axis] {
        Dim::Static(n) => n,
        Dim::Sites { .. } => unreachable!("slices, pads and joins act on static axes"),
    }
}
