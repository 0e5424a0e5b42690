//! Statements of an operator.

use super::expr::{Env, Reported, Value};
use super::number::{FoldError, Number, NumberType};
use super::{Base, Domain, Family, OperatorInfo, Scope, Site, Summand, hermitian};
use crate::check::core::Static;
use crate::diag::{Code, Diagnostic};
use crate::syntax::ast::*;
use std::collections::BTreeMap;

/// Elaborates an operator with the given couplings in place of its defaults.
///
/// # Errors
/// Every problem found: unknown and duplicate names (E0101, E0102), couplings
/// out of range (E0103), wrong calls (E0105, E0106), types (E0202), numbers
/// that must be known or do not fit (E0203, E0204, E0207), malformed terms
/// (E0402), and, if there are no others, a sum that is not Hermitian (E0401).
pub fn elaborate(
    item: &OperatorItem,
    scope: &dyn Scope,
    overrides: &BTreeMap<String, Static>,
) -> Result<OperatorInfo, Vec<Diagnostic>> {
    let mut elaborator = Elaborator::new(scope, item.lattice);
    let mut env = Env::new(item.name.span.file);
    let mut couplings = BTreeMap::new();
    for param in &item.params {
        if let Ok(value) = elaborator.coupling(param, overrides, &mut env) {
            couplings.insert(param.name.name.clone(), value);
        }
    }
    for name in overrides
        .keys()
        .filter(|n| item.params.iter().all(|p| p.name.name != **n))
    {
        elaborator.diags.push(
            Diagnostic::new(
                Code::E0101,
                format!("operator `{}` has no coupling `{name}`", item.name.name),
                item.name.span,
                "given for this operator",
            )
            .help(known_couplings(item)),
        );
    }
    let mut families = Vec::new();
    if elaborator.diags.is_empty() {
        elaborator.statements(&item.body, &mut env, &mut Vec::new(), &mut families);
    }
    if !elaborator.diags.is_empty() {
        return Err(elaborator.diags);
    }
    let info = OperatorInfo {
        name: item.name.name.clone(),
        couplings,
        lattice: item.lattice,
        families,
    };
    match hermitian::check(&info) {
        Some(diagnostic) => Err(vec![diagnostic]),
        None => Ok(info),
    }
}

fn known_couplings(item: &OperatorItem) -> String {
    let names: Vec<String> = item
        .params
        .iter()
        .map(|p| format!("`{}`", p.name.name))
        .collect();
    if names.is_empty() {
        "it has no couplings".into()
    } else {
        format!("its couplings are {}", names.join(", "))
    }
}

/// Most Pauli strings one loop body may expand to.
pub(super) const PRODUCT_LIMIT: usize = 4096;

pub(super) struct Elaborator<'a> {
    pub(super) scope: &'a dyn Scope,
    pub(super) lattice: LatticeKind,
    pub(super) diags: Vec<Diagnostic>,
    /// Sites the present summand mentions.
    pub(super) mentioned: Vec<Site>,
    /// Number of the next summation variable.
    pub(super) next_variable: u32,
    /// Function calls around the present expression.
    pub(super) depth: usize,
    /// Function calls so far.
    pub(super) calls: usize,
}

impl<'a> Elaborator<'a> {
    fn new(scope: &'a dyn Scope, lattice: LatticeKind) -> Elaborator<'a> {
        Elaborator {
            scope,
            lattice,
            diags: Vec::new(),
            mentioned: Vec::new(),
            next_variable: 0,
            depth: 0,
            calls: 0,
        }
    }

    /// Records a problem.
    pub(super) fn fail<T>(&mut self, diagnostic: Diagnostic) -> Result<T, Reported> {
        self.diags.push(diagnostic);
        Err(Reported)
    }

    pub(super) fn folded<T>(
        &mut self,
        result: Result<T, FoldError>,
        span: Span,
    ) -> Result<T, Reported> {
        result.or_else(|error| {
            self.fail(match error {
                FoldError::Overflow => Diagnostic::new(
                    Code::E0204,
                    "integer overflow",
                    span,
                    "does not fit in 64 bits",
                )
                .help("write one operand with a decimal point to compute with real numbers"),
                FoldError::Undefined => Diagnostic::new(
                    Code::E0207,
                    "number without a value",
                    span,
                    "integer division by zero",
                ),
            })
        })
    }

    fn coupling(
        &mut self,
        param: &FnParam,
        overrides: &BTreeMap<String, Static>,
        env: &mut Env,
    ) -> Result<Static, Reported> {
        let name = &param.name;
        let Some((ty, ty_span)) = param.ty else {
            return self.fail(
                Diagnostic::new(
                    Code::E0106,
                    format!("coupling `{}` has no type", name.name),
                    name.span,
                    "no type",
                )
                .help("write `NAME: real = VALUE`"),
            );
        };
        let given = overrides.get(&name.name).copied();
        let value = match (given, &param.default) {
            (Some(value), _) => Value::Number(Number::constant(value)),
            (None, Some(default)) => self.expr(default, env)?,
            (None, None) => {
                return self.fail(
                    Diagnostic::new(
                        Code::E0106,
                        format!("coupling `{}` has no default", name.name),
                        name.span,
                        "no default",
                    )
                    .help("write `= VALUE` after its type"),
                );
            }
        };
        let span = if given.is_some() {
            name.span
        } else {
            param.default.as_ref().map_or(ty_span, |d| d.span)
        };
        let value = self.typed(value, ty, span)?;
        let Some(known) = value.known() else {
            return self.fail(
                Diagnostic::new(
                    Code::E0203,
                    format!("coupling `{}` is not a known number", name.name),
                    span,
                    "depends on the lattice",
                )
                .help("numbers that depend on N belong into a `let` of the body"),
            );
        };
        self.in_range(param, &value, span, env)?;
        self.define(name, Value::Number(value), env);
        Ok(known)
    }

    /// E0103 unless the value lies in the declared range.
    pub(super) fn in_range(
        &mut self,
        param: &FnParam,
        value: &Number,
        span: Span,
        env: &mut Env,
    ) -> Result<(), Reported> {
        let Some((low, high)) = &param.range else {
            return Ok(());
        };
        let low = self.number(low, env)?;
        let high = self.number(high, env)?;
        let as_real = |n: &Number| match n.known() {
            Some(Static::Int(v)) => Some(v as f64),
            Some(Static::Real(v)) => Some(v),
            _ => None,
        };
        if let (Some(low), Some(high), Some(v)) = (as_real(&low), as_real(&high), as_real(value))
            && !(low..=high).contains(&v)
        {
            return self.fail(
                Diagnostic::new(
                    Code::E0103,
                    format!("`{}` = {v} is out of range", param.name.name),
                    span,
                    format!("must lie in {low}..={high}"),
                )
                .also(param.name.span, "declared here"),
            );
        }
        Ok(())
    }

    /// A number of a declared type; integers serve as reals.
    pub(super) fn typed(
        &mut self,
        value: Value,
        ty: StaticType,
        span: Span,
    ) -> Result<Number, Reported> {
        let number = self.as_number(value, span)?;
        let (fits, want) = match ty {
            StaticType::Nat => (
                number.ty == NumberType::Int && number.known_int().is_none_or(|v| v >= 0),
                "a natural number",
            ),
            StaticType::Int => (number.ty == NumberType::Int, "an integer"),
            StaticType::Real => (number.ty != NumberType::Bool, "a real number"),
            StaticType::Bool => (number.ty == NumberType::Bool, "a truth value"),
        };
        if !fits {
            return self.fail(Diagnostic::new(
                Code::E0202,
                format!("expected {want}"),
                span,
                format!("not {want}"),
            ));
        }
        match (ty, number.known_int()) {
            (StaticType::Real, Some(v)) => Ok(Number::real(v as f64)),
            _ => Ok(number),
        }
    }

    /// Adds a name to the scope; E0102 if it is there already.
    pub(super) fn define(&mut self, name: &Ident, value: Value, env: &mut Env) {
        if let Some(previous) = env.defined(&name.name) {
            self.diags.push(
                Diagnostic::new(
                    Code::E0102,
                    format!("`{}` is defined twice", name.name),
                    name.span,
                    "again here",
                )
                .also(previous, "first here"),
            );
        }
        env.push(name, value);
    }

    fn statements(
        &mut self,
        body: &[OpStmt],
        env: &mut Env,
        guards: &mut Vec<Number>,
        out: &mut Vec<Family>,
    ) {
        let depth = env.len();
        for stmt in body {
            // each statement reports its own problem; the others go on
            let _ = self.statement(stmt, env, guards, out);
        }
        env.truncate(depth);
    }

    fn statement(
        &mut self,
        stmt: &OpStmt,
        env: &mut Env,
        guards: &mut Vec<Number>,
        out: &mut Vec<Family>,
    ) -> Result<(), Reported> {
        match &stmt.kind {
            OpStmtKind::Let { name, value } => {
                let value = self.expr(value, env).unwrap_or(Value::Unknown);
                self.define(name, value, env);
            }
            OpStmtKind::Term(term) => {
                let summands = self.summands(term, env)?;
                out.push(family(Domain::Once, guards, None, summands, stmt.span));
            }
            OpStmtKind::For { domain, cond, term } => {
                let depth = env.len();
                let result = self.domain(domain, env).and_then(|domain| {
                    let condition = cond.as_ref().map(|c| self.condition(c, env)).transpose()?;
                    let summands = self.summands(term, env)?;
                    out.push(family(domain, guards, condition, summands, stmt.span));
                    Ok(())
                });
                env.truncate(depth);
                return result;
            }
            OpStmtKind::If {
                cond,
                then,
                otherwise,
            } => {
                let condition = self.condition(cond, env)?;
                for (branch, wanted) in [(then, true), (otherwise, false)] {
                    match condition.known() {
                        Some(known) if known != Static::Bool(wanted) => {}
                        Some(_) => self.statements(branch, env, guards, out),
                        None => {
                            let guard = if wanted {
                                condition.clone()
                            } else {
                                let negated =
                                    Number::unary(super::Function::Not, condition.clone());
                                self.folded(negated, cond.span)?
                            };
                            guards.push(guard);
                            self.statements(branch, env, guards, out);
                            guards.pop();
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn domain(&mut self, domain: &ForDomain, env: &mut Env) -> Result<Domain, Reported> {
        let site = |base| {
            Value::Site(Site {
                base,
                offset: [0; 2],
            })
        };
        match domain {
            ForDomain::Sites(i) => {
                self.define(i, site(Base::First), env);
                Ok(Domain::Sites)
            }
            ForDomain::Range(i, from, to) => {
                if self.lattice == LatticeKind::Square {
                    return self.fail(
                        Diagnostic::new(
                            Code::E0402,
                            "ranges of sites exist on a chain only",
                            i.span,
                            "on a square lattice",
                        )
                        .help("write `for i where x(i) < ...`"),
                    );
                }
                let from = self.integer(from, env)?;
                let to = self.integer(to, env)?;
                self.define(i, site(Base::First), env);
                Ok(Domain::Range(from, to))
            }
            ForDomain::Pairs(i, j) => {
                self.define(i, site(Base::First), env);
                self.define(j, site(Base::Second), env);
                Ok(Domain::Pairs)
            }
            ForDomain::Bonds(i, j, k) => {
                let shell = self.integer(k, env)?;
                let Some(shell) = shell.known_int() else {
                    return self.fail(Diagnostic::new(
                        Code::E0203,
                        "the shell of `bonds` must be a known number",
                        k.span,
                        "depends on the lattice",
                    ));
                };
                if !(1..=1_000_000).contains(&shell) {
                    return self.fail(
                        Diagnostic::new(
                            Code::E0402,
                            format!("there are no bonds({shell})"),
                            k.span,
                            "counts from 1",
                        )
                        .help("bonds(1) are nearest neighbours, bonds(2) next-nearest"),
                    );
                }
                self.define(i, site(Base::First), env);
                self.define(j, site(Base::Second), env);
                Ok(Domain::Bonds(shell as usize))
            }
        }
    }

    /// A truth value.
    pub(super) fn condition(&mut self, e: &Expr, env: &mut Env) -> Result<Number, Reported> {
        let value = self.expr(e, env)?;
        self.typed(value, StaticType::Bool, e.span)
    }

    /// An integer.
    pub(super) fn integer(&mut self, e: &Expr, env: &mut Env) -> Result<Number, Reported> {
        let value = self.expr(e, env)?;
        self.typed(value, StaticType::Int, e.span)
    }

    /// Splits a loop body at its outermost `+` and `-`.
    fn summands(&mut self, term: &Expr, env: &mut Env) -> Result<Vec<Summand>, Reported> {
        let mut parts = Vec::new();
        let mut stack = vec![(term, false)];
        while let Some((e, negative)) = stack.pop() {
            match &e.kind {
                ExprKind::Paren(inner) => stack.push((inner, negative)),
                ExprKind::Unary(UnaryOp::Neg, inner) => stack.push((inner, !negative)),
                ExprKind::Binary(BinaryOp::Add, a, b) => {
                    stack.extend([(&**b, negative), (&**a, negative)])
                }
                ExprKind::Binary(BinaryOp::Sub, a, b) => {
                    stack.extend([(&**b, !negative), (&**a, negative)])
                }
                _ => parts.push((e, negative)),
            }
        }
        let mut summands = Vec::with_capacity(parts.len());
        for (e, negative) in parts {
            self.mentioned.clear();
            let value = self.expr(e, env)?;
            let mut products = self.as_operator(value, e.span)?;
            if negative {
                products
                    .iter_mut()
                    .for_each(|p| p.quarter = (p.quarter + 2) % 4);
            }
            summands.push(Summand {
                sites: std::mem::take(&mut self.mentioned),
                products,
                span: e.span,
            });
        }
        Ok(summands)
    }
}

fn family(
    domain: Domain,
    guards: &[Number],
    condition: Option<Number>,
    summands: Vec<Summand>,
    span: Span,
) -> Family {
    Family {
        domain,
        guards: guards.to_vec(),
        condition,
        summands,
        span,
    }
}
