//! Operators of the language: sums of Pauli strings over loops of sites.
//!
//! [`elaborate`] multiplies every loop body out into Pauli strings on symbolic
//! sites with real coefficient trees ([`Number`]), inlining functions, and
//! decides whether the sum is Hermitian: symbolically where every string's
//! coefficient is real by itself, and otherwise by expanding on small
//! lattices of both boundaries. What it returns depends on no lattice;
//! [`OperatorInfo::expand`] writes the strings of a given one to a [`Sink`],
//! loops over pairs that depend on the distance alone as translation-invariant
//! couplings.

mod call;
mod elaborate;
mod expand;
mod expr;
mod geometry;
mod hermitian;
mod number;
mod pauli;
mod strings;
#[cfg(test)]
mod tests;

pub use elaborate::elaborate;
pub use expand::{ExpandError, Sink};
pub use geometry::Geometry;
pub use number::{Base, Evaluator, FoldError, Function, Number, NumberType, Operation, Site, Turn};
pub use pauli::{Factor, Pauli, Product};

use crate::check::core::Static;
use crate::syntax::ast::{FileId, Ident, ItemKind, LatticeKind, Module, Span};
use std::collections::BTreeMap;

/// Where the functions and constants of operators are looked up.
pub trait Scope {
    /// What a path written in `file` stands for, if it is an item.
    fn resolve(&self, file: FileId, path: &[Ident]) -> Option<&ItemKind>;
}

/// A module on its own: its items, no imports.
impl Scope for Module {
    fn resolve(&self, _: FileId, path: &[Ident]) -> Option<&ItemKind> {
        let [name] = path else { return None };
        self.items
            .iter()
            .map(|item| &item.kind)
            .find(|kind| match kind {
                ItemKind::Fn(f) => f.name.name == name.name,
                ItemKind::Const(c) => c.name.name == name.name,
                ItemKind::Mixer(m) => m.name.name == name.name,
                ItemKind::Network(n) => n.name.name == name.name,
                ItemKind::Operator(o) => o.name.name == name.name,
                ItemKind::Use(_) => false,
            })
    }
}

/// An elaborated, Hermitian operator; see the [module](self).
#[derive(Clone, Debug)]
pub struct OperatorInfo {
    /// Its name.
    pub name: String,
    /// Couplings in force.
    pub couplings: BTreeMap<String, Static>,
    /// The kind of lattice it lives on.
    pub lattice: LatticeKind,
    /// Its loops, in order.
    pub families: Vec<Family>,
}

/// One loop (or single term).
#[derive(Clone, Debug)]
pub struct Family {
    /// What it runs over.
    pub domain: Domain,
    /// Static conditions around it, all of which must hold on the lattice.
    pub guards: Vec<Number>,
    /// Its `where`.
    pub condition: Option<Number>,
    /// The summands of its body.
    pub summands: Vec<Summand>,
    /// The statement.
    pub span: Span,
}

/// What a loop runs over.
#[derive(Clone, Debug)]
pub enum Domain {
    /// Nothing: added once.
    Once,
    /// Every site.
    Sites,
    /// Sites from..to of a chain.
    Range(Number, Number),
    /// Every pair of sites i < j.
    Pairs,
    /// Pairs at the k-th shortest distance, each once; the second site lies
    /// in positive direction of the first.
    Bonds(usize),
}

/// A summand of a loop body, expanded. Where one of its sites is beyond an
/// open end, all of it is dropped.
#[derive(Clone, Debug)]
pub struct Summand {
    /// The sites it mentions.
    pub sites: Vec<Site>,
    /// Its Pauli strings.
    pub products: Vec<Product>,
    /// The expression.
    pub span: Span,
}
