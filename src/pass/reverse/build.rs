//! Building blocks of adjoints.

use super::ReverseError;
use crate::check::core::{Dim, Einsum, Place};
use crate::ir::{Graph, MapFn, NodeId, NodeType, Op, ZipFn};

pub(super) type Built = Result<NodeId, ReverseError>;

/// A graph under extension.
pub(super) struct Builder {
    pub(super) graph: Graph,
}

impl Builder {
    pub(super) fn new(graph: Graph) -> Builder {
        Builder { graph }
    }

    /// The type of a node.
    pub(super) fn ty(&self, id: NodeId) -> NodeType {
        self.graph.ty(id).clone()
    }

    /// A node whose type the operation determines.
    pub(super) fn add(&mut self, op: Op, operands: &[NodeId]) -> Built {
        Ok(self.graph.add(op, operands)?)
    }

    pub(super) fn number(&mut self, x: f64) -> Built {
        self.add(Op::Number(x), &[])
    }

    pub(super) fn map(&mut self, f: MapFn, x: NodeId) -> Built {
        self.add(Op::Map(f), &[x])
    }

    pub(super) fn zip(&mut self, f: ZipFn, a: NodeId, b: NodeId) -> Built {
        self.add(Op::Zip(f), &[a, b])
    }

    pub(super) fn mul(&mut self, a: NodeId, b: NodeId) -> Built {
        self.zip(ZipFn::Mul, a, b)
    }

    pub(super) fn neg(&mut self, x: NodeId) -> Built {
        self.map(MapFn::Neg, x)
    }

    /// `factor * x`
    pub(super) fn scale(&mut self, factor: f64, x: NodeId) -> Built {
        let factor = self.number(factor)?;
        self.mul(factor, x)
    }

    /// `sum + part`, both of one type.
    pub(super) fn accumulate(&mut self, sum: Option<NodeId>, part: NodeId) -> Built {
        match sum {
            Some(sum) => self.zip(ZipFn::Add, sum, part),
            None => Ok(part),
        }
    }

    pub(super) fn zeros(&mut self, ty: &NodeType) -> Built {
        let zero = self.number(0.0)?;
        Ok(self.broadcast(zero, ty))
    }

    /// `x` repeated to fill a type it broadcasts to.
    pub(super) fn broadcast(&mut self, x: NodeId, ty: &NodeType) -> NodeId {
        if self.graph.ty(x) == ty {
            x
        } else {
            self.graph.push(Op::Broadcast, &[x], ty.clone())
        }
    }

    /// `x` with another shape.
    pub(super) fn reshape(&mut self, x: NodeId, shape: &[Dim]) -> NodeId {
        let ty = NodeType {
            place: self.graph.ty(x).place,
            shape: shape.to_vec(),
        };
        if *self.graph.ty(x) == ty {
            x
        } else {
            self.graph.push(Op::Reshape, &[x], ty)
        }
    }

    /// Contraction of one operand, axes numbered by letters.
    pub(super) fn permute(&mut self, x: NodeId, from: &[char], to: &[char]) -> Built {
        if from == to {
            return Ok(x);
        }
        self.add(
            Op::Einsum(Einsum {
                inputs: vec![from.to_vec()],
                output: to.to_vec(),
            }),
            &[x],
        )
    }

    /// The adjoint of broadcasting a value of type `ty` to that of `g`: sums over
    /// repeated axes, and over the place if `ty` is `Whole`.
    pub(super) fn reduce(&mut self, g: NodeId, ty: &NodeType) -> Built {
        let from = self.ty(g);
        let new_axes = from.shape.len() - ty.shape.len();
        let letters = letters(from.shape.len());
        let one = Dim::Static(1);
        let repeated = |axis: usize| ty.shape[axis] == one;
        let kept: Vec<char> = letters
            .iter()
            .enumerate()
            .filter(|&(k, _)| k >= new_axes && !(repeated(k - new_axes) && from.shape[k] != one))
            .map(|(_, &l)| l)
            .collect();
        let mut sum = self.permute(g, &letters, &kept)?;
        if ty.place == Place::Whole && from.place != Place::Whole {
            sum = self.add(Op::Sum, &[sum])?;
        }
        Ok(self.reshape(sum, &ty.shape))
    }

    /// As [`Builder::reduce`] for kernels whose channels broadcast behind `lead`
    /// leading axes.
    pub(super) fn reduce_channels(&mut self, g: NodeId, ty: &NodeType, lead: usize) -> Built {
        let missing = self.graph.ty(g).shape.len() - ty.shape.len();
        let mut padded = ty.clone();
        padded
            .shape
            .splice(lead..lead, std::iter::repeat_n(Dim::Static(1), missing));
        let sum = self.reduce(g, &padded)?;
        Ok(self.reshape(sum, &ty.shape))
    }

    /// The complex conjugate: the second half of the leading axis changes sign.
    pub(super) fn conj(&mut self, x: NodeId) -> Built {
        let re = self.add(
            Op::Slice {
                axis: 0,
                start: 0,
                len: 1,
            },
            &[x],
        )?;
        let im = self.add(
            Op::Slice {
                axis: 0,
                start: 1,
                len: 1,
            },
            &[x],
        )?;
        let im = self.neg(im)?;
        self.add(Op::Concat { axis: 0 }, &[re, im])
    }

    /// [`Builder::conj`] where `complex`.
    pub(super) fn conj_if(&mut self, complex: bool, x: NodeId) -> Built {
        if complex { self.conj(x) } else { Ok(x) }
    }

    /// `[n, ..]` to `[n, n, ..]`, zero off the diagonal: the diagonal is every
    /// (n+1)-th element, so pad each row by n zeros and cut the rows at length n.
    pub(super) fn diagonal(&mut self, x: NodeId) -> Built {
        let shape = self.ty(x).shape;
        let Some((&Dim::Static(n), rest)) = shape.split_first() else {
            return Err(ReverseError::RuntimeDiagonal);
        };
        let with = |lead: &[usize]| -> Vec<Dim> {
            lead.iter()
                .map(|&n| Dim::Static(n))
                .chain(rest.iter().copied())
                .collect()
        };
        let column = self.reshape(x, &with(&[n, 1]));
        let padded = self.add(
            Op::Pad {
                axis: 1,
                start: 0,
                len: n + 1,
            },
            &[column],
        )?;
        let flat = self.reshape(padded, &with(&[n * (n + 1)]));
        let cut = self.add(
            Op::Slice {
                axis: 0,
                start: 0,
                len: n * n,
            },
            &[flat],
        )?;
        Ok(self.reshape(cut, &with(&[n, n])))
    }
}

/// `n` different letters.
pub(super) fn letters(n: usize) -> Vec<char> {
    (0..n)
        .filter_map(|k| char::from_u32('a' as u32 + k as u32))
        .collect()
}
