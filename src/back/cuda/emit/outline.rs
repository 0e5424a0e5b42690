//! Steps between the barriers of a kernel: what threads do one after the other.
//!
//! Inside one large kernel the compiler keeps addresses and indices of all steps
//! in registers at once; as functions of their own they share none.

use super::super::ast::{Expr, Phase, Stmt};
use super::super::names::Name;

/// A loop dealt to threads or a call, with the remarks before it.
pub(super) struct Piece {
    /// Integers it takes besides the launch and the sample.
    pub(super) arguments: Vec<Name>,
    /// Its code, without barriers.
    pub(super) body: Vec<Stmt>,
}

impl Piece {
    /// What every call gives first.
    pub(super) fn given(arguments: &[Name]) -> Vec<Expr> {
        let first = ["a", "sample"].map(Name::from);
        first
            .iter()
            .chain(arguments)
            .cloned()
            .map(Expr::var)
            .collect()
    }
}

/// A kernel's body without its pieces.
pub(super) enum Part {
    /// The piece of this number.
    Piece(usize),
    /// What is left in the kernel.
    Stmt(Stmt),
    /// [`Stmt::Chunks`] with its parts.
    Chunks(Name, usize, usize, Vec<Part>),
}

/// Takes the pieces out of a kernel's body.
pub(super) fn outline(body: Vec<Stmt>) -> (Vec<Piece>, Vec<Part>) {
    let mut pieces = Vec::new();
    let parts = split(body, &[], &mut pieces);
    (pieces, parts)
}

fn split(body: Vec<Stmt>, arguments: &[&'static str], pieces: &mut Vec<Piece>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut remarks = Vec::new();
    for s in body {
        match s {
            Stmt::Comment(_) => remarks.push(s),
            Stmt::Barrier => parts.push(Part::Stmt(s)),
            Stmt::Chunks(first, count, step, mut inner) => {
                // the number of things in this chunk comes first
                let mut all = vec![Part::Stmt(inner.remove(0))];
                let mut body = std::mem::take(&mut remarks);
                body.append(&mut inner);
                all.extend(split(body, &Phase::TAKEN, pieces));
                parts.push(Part::Chunks(first, count, step, all));
            }
            other => {
                let mut body = std::mem::take(&mut remarks);
                body.push(other);
                parts.push(Part::Piece(pieces.len()));
                pieces.push(Piece {
                    arguments: arguments.iter().map(|&n| n.into()).collect(),
                    body,
                });
            }
        }
    }
    parts
}
