//! Numbers of an operator: expressions in the lattice and in loop variables.
//!
//! Couplings are known when an operator is elaborated, so most numbers fold to
//! constants. What remains mentions N, the boundary, positions and distances,
//! and is evaluated per lattice (and per turn of a loop).

use super::geometry::Geometry;
use crate::check::core::Static;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// What a site is counted from.
#[derive(Clone, Debug, PartialEq)]
pub enum Base {
    /// The first variable of the loop.
    First,
    /// The second variable of a loop over pairs.
    Second,
    /// An absolute site index.
    Absolute(Number),
}

/// A site: a base and a displacement.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// What it is counted from.
    pub base: Base,
    /// Displacement along each axis.
    pub offset: [i64; 2],
}

/// Types of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberType {
    /// Integer.
    Int,
    /// Real.
    Real,
    /// Truth value.
    Bool,
}

/// Functions of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `-a`
    Neg,
    /// `not a`
    Not,
    /// Exponential.
    Exp,
    /// Natural logarithm.
    Log,
    /// log(1 + a)
    Log1p,
    /// Square root.
    Sqrt,
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
    /// Hyperbolic tangent.
    Tanh,
    /// Size.
    Abs,
    /// -1, 0 or 1.
    Sign,
    /// Largest integer not above.
    Floor,
}

/// Operations on two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`, real
    Div,
    /// `div(a, b)`: rounded down
    IntDiv,
    /// `a % b`, with the sign of b
    Rem,
    /// `a ^ b`
    Pow,
    /// Smaller
    Min,
    /// Larger
    Max,
    /// `a == b`
    Eq,
    /// `a != b`
    Ne,
    /// `a < b`
    Lt,
    /// `a <= b`
    Le,
    /// `a and b`
    And,
    /// `a or b`
    Or,
}

/// A number, possibly still open.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    /// Its type.
    pub ty: NumberType,
    node: Arc<Node>,
}

#[derive(Debug, PartialEq)]
enum Node {
    Constant(Static),
    /// N.
    Sites,
    Periodic,
    Distance(Site, Site),
    Coordinate(usize, Site),
    Parity(Site),
    /// The variable of the sum with this number.
    Variable(u32),
    Unary(Function, Number),
    Binary(Operation, Number, Number),
    If(Number, Number, Number),
    Sum {
        variable: u32,
        from: Number,
        to: Number,
        term: Number,
    },
}

/// Why constants do not fold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoldError {
    /// An integer does not fit (E0204).
    Overflow,
    /// No value, e.g. `div(1, 0)` (E0207).
    Undefined,
}

/// Most terms of one `sum`.
const SUM_LIMIT: i64 = 1 << 24;

impl Number {
    fn new(ty: NumberType, node: Node) -> Number {
        Number {
            ty,
            node: Arc::new(node),
        }
    }

    /// A known value.
    pub fn constant(value: Static) -> Number {
        let ty = match value {
            Static::Int(_) => NumberType::Int,
            Static::Real(_) => NumberType::Real,
            Static::Bool(_) => NumberType::Bool,
        };
        Number::new(ty, Node::Constant(value))
    }

    /// A known integer.
    pub fn int(value: i64) -> Number {
        Number::constant(Static::Int(value))
    }

    /// A known real number.
    pub fn real(value: f64) -> Number {
        Number::constant(Static::Real(value))
    }

    /// The number of sites.
    pub fn sites() -> Number {
        Number::new(NumberType::Int, Node::Sites)
    }

    /// Whether the lattice is periodic.
    pub fn periodic() -> Number {
        Number::new(NumberType::Bool, Node::Periodic)
    }

    /// The distance between two sites.
    pub fn distance(i: Site, j: Site) -> Number {
        Number::new(NumberType::Real, Node::Distance(i, j))
    }

    /// A coordinate of a site.
    pub fn coordinate(axis: usize, site: Site) -> Number {
        Number::new(NumberType::Int, Node::Coordinate(axis, site))
    }

    /// The coordinate sum of a site modulo 2.
    pub fn parity(site: Site) -> Number {
        Number::new(NumberType::Int, Node::Parity(site))
    }

    /// The variable of a sum.
    pub fn variable(variable: u32) -> Number {
        Number::new(NumberType::Int, Node::Variable(variable))
    }

    /// `sum(variable in from..to: term)`
    pub fn sum(variable: u32, from: Number, to: Number, term: Number) -> Number {
        let ty = if term.ty == NumberType::Int {
            NumberType::Int
        } else {
            NumberType::Real
        };
        Number::new(
            ty,
            Node::Sum {
                variable,
                from,
                to,
                term,
            },
        )
    }

    /// `if condition { a } else { b }`, folded where the condition is known.
    pub fn select(condition: Number, a: Number, b: Number) -> Number {
        match condition.known() {
            Some(Static::Bool(true)) => a,
            Some(_) => b,
            None => Number::new(join(a.ty, b.ty), Node::If(condition, a, b)),
        }
    }

    /// Its value, if it depends on nothing.
    pub fn known(&self) -> Option<Static> {
        match *self.node {
            Node::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// Its value as an integer, if known.
    pub fn known_int(&self) -> Option<i64> {
        match self.known() {
            Some(Static::Int(value)) => Some(value),
            _ => None,
        }
    }

    /// A function of a number.
    ///
    /// # Errors
    /// An integer beyond 64 bits.
    pub fn unary(function: Function, a: Number) -> Result<Number, FoldError> {
        let ty = match function {
            Function::Not => NumberType::Bool,
            Function::Neg | Function::Abs => a.ty,
            Function::Sign | Function::Floor => NumberType::Int,
            _ => NumberType::Real,
        };
        match a.known() {
            Some(Static::Int(v)) if function == Function::Neg => {
                v.checked_neg().map(Number::int).ok_or(FoldError::Overflow)
            }
            Some(v) => from_f64(apply(function, as_f64(v)), ty),
            None => Ok(Number::new(ty, Node::Unary(function, a))),
        }
    }

    /// An operation on two numbers of suitable types.
    ///
    /// # Errors
    /// An integer beyond 64 bits, or integer division by zero.
    pub fn binary(operation: Operation, a: Number, b: Number) -> Result<Number, FoldError> {
        use Operation::*;
        let ty = match operation {
            Eq | Ne | Lt | Le | And | Or => NumberType::Bool,
            Div => NumberType::Real,
            IntDiv | Rem => NumberType::Int,
            // a negative exponent makes a fraction
            Pow if b.known_int().is_none_or(|b| b < 0) => NumberType::Real,
            _ => join(a.ty, b.ty),
        };
        if let (Some(x), Some(y)) = (a.known(), b.known()) {
            return fold(operation, x, y, ty);
        }
        // 1 * a, a * 1 and 0 + a come up in every expansion
        let is = |n: &Number, v: f64| {
            n.known()
                .is_some_and(|s| as_f64(s) == v && !matches!(s, Static::Bool(_)))
        };
        match operation {
            Mul if is(&a, 1.0) => return Ok(b),
            Mul | Div if is(&b, 1.0) => return Ok(a),
            Add if is(&a, 0.0) => return Ok(b),
            Add | Sub if is(&b, 0.0) => return Ok(a),
            _ => {}
        }
        Ok(Number::new(ty, Node::Binary(operation, a, b)))
    }

    /// Whether its value differs between turns of a translated loop: it
    /// mentions coordinates, or distances from absolute sites.
    pub fn depends_on_position(&self) -> bool {
        self.any(&|node| match node {
            Node::Coordinate(_, site) | Node::Parity(site) => {
                !matches!(site.base, Base::Absolute(_))
            }
            Node::Distance(a, b) => {
                matches!(a.base, Base::Absolute(_)) != matches!(b.base, Base::Absolute(_))
            }
            _ => false,
        })
    }

    /// Whether it mentions a loop variable or the variable of a sum outside it.
    pub(super) fn is_open(&self) -> bool {
        let mut bound = Vec::new();
        self.open(&mut bound)
    }

    fn open(&self, bound: &mut Vec<u32>) -> bool {
        let site = |s: &Site, bound: &mut Vec<u32>| match &s.base {
            Base::First | Base::Second => true,
            Base::Absolute(index) => index.open(bound),
        };
        match &*self.node {
            Node::Constant(_) | Node::Sites | Node::Periodic => false,
            Node::Variable(v) => !bound.contains(v),
            Node::Distance(a, b) => site(a, bound) || site(b, bound),
            Node::Coordinate(_, a) | Node::Parity(a) => site(a, bound),
            Node::Unary(_, a) => a.open(bound),
            Node::Binary(_, a, b) => a.open(bound) || b.open(bound),
            Node::If(a, b, c) => a.open(bound) || b.open(bound) || c.open(bound),
            Node::Sum {
                variable,
                from,
                to,
                term,
            } => {
                if from.open(bound) || to.open(bound) {
                    return true;
                }
                bound.push(*variable);
                let open = term.open(bound);
                bound.pop();
                open
            }
        }
    }

    fn any(&self, test: &dyn Fn(&Node) -> bool) -> bool {
        let site = |s: &Site| matches!(&s.base, Base::Absolute(index) if index.any(test));
        test(&self.node)
            || match &*self.node {
                Node::Constant(_) | Node::Sites | Node::Periodic | Node::Variable(_) => false,
                Node::Distance(a, b) => site(a) || site(b),
                Node::Coordinate(_, a) | Node::Parity(a) => site(a),
                Node::Unary(_, a) => a.any(test),
                Node::Binary(_, a, b) => a.any(test) || b.any(test),
                Node::If(a, b, c) => a.any(test) || b.any(test) || c.any(test),
                Node::Sum { from, to, term, .. } => {
                    from.any(test) || to.any(test) || term.any(test)
                }
            }
    }
}

fn join(a: NumberType, b: NumberType) -> NumberType {
    if a == b { a } else { NumberType::Real }
}

fn as_f64(value: Static) -> f64 {
    match value {
        Static::Int(v) => v as f64,
        Static::Real(v) => v,
        Static::Bool(v) => f64::from(u8::from(v)),
    }
}

fn from_f64(value: f64, ty: NumberType) -> Result<Number, FoldError> {
    match ty {
        NumberType::Real => Ok(Number::real(value)),
        NumberType::Bool => Ok(Number::constant(Static::Bool(value != 0.0))),
        NumberType::Int if value.is_nan() => Err(FoldError::Undefined),
        NumberType::Int if value.abs() >= 9.2e18 => Err(FoldError::Overflow),
        NumberType::Int => Ok(Number::int(value as i64)),
    }
}

fn fold(operation: Operation, x: Static, y: Static, ty: NumberType) -> Result<Number, FoldError> {
    use Operation::*;
    if let (Static::Int(a), Static::Int(b), NumberType::Int) = (x, y, ty) {
        let exact = match operation {
            Add => a.checked_add(b),
            Sub => a.checked_sub(b),
            Mul => a.checked_mul(b),
            Pow => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
            IntDiv | Rem if b == 0 => return Err(FoldError::Undefined),
            IntDiv => a.checked_div_euclid(b).map(|q| {
                if b < 0 && a.rem_euclid(b) != 0 {
                    q - 1
                } else {
                    q
                }
            }),
            Rem => a.checked_rem(b).map(|r| {
                if r != 0 && (r < 0) != (b < 0) {
                    r + b
                } else {
                    r
                }
            }),
            Min => Some(a.min(b)),
            _ => Some(a.max(b)),
        };
        return exact.map(Number::int).ok_or(FoldError::Overflow);
    }
    from_f64(combine(operation, as_f64(x), as_f64(y)), ty)
}

fn apply(function: Function, a: f64) -> f64 {
    match function {
        Function::Neg => -a,
        Function::Not => f64::from(u8::from(a == 0.0)),
        Function::Exp => a.exp(),
        Function::Log => a.ln(),
        Function::Log1p => a.ln_1p(),
        Function::Sqrt => a.sqrt(),
        Function::Sin => a.sin(),
        Function::Cos => a.cos(),
        Function::Tanh => a.tanh(),
        Function::Abs => a.abs(),
        Function::Sign if a == 0.0 => 0.0,
        Function::Sign => a.signum(),
        Function::Floor => a.floor(),
    }
}

fn combine(operation: Operation, a: f64, b: f64) -> f64 {
    let truth = |t: bool| f64::from(u8::from(t));
    match operation {
        Operation::Add => a + b,
        Operation::Sub => a - b,
        Operation::Mul => a * b,
        Operation::Div => a / b,
        Operation::IntDiv => (a / b).floor(),
        Operation::Rem => a - b * (a / b).floor(),
        Operation::Pow => a.powf(b),
        Operation::Min => a.min(b),
        Operation::Max => a.max(b),
        Operation::Eq => truth(a == b),
        Operation::Ne => truth(a != b),
        Operation::Lt => truth(a < b),
        Operation::Le => truth(a <= b),
        Operation::And => truth(a != 0.0 && b != 0.0),
        Operation::Or => truth(a != 0.0 || b != 0.0),
    }
}

/// Evaluates numbers on one lattice; sums that do not depend on the loop are
/// evaluated once.
pub struct Evaluator {
    geometry: Geometry,
    sums: RefCell<HashMap<*const Node, f64>>,
}

/// One turn of a loop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// The site of the first variable.
    pub first: usize,
    /// The site of the second.
    pub second: usize,
}

impl Evaluator {
    /// For numbers that outlive the evaluator.
    pub fn new(geometry: Geometry) -> Evaluator {
        Evaluator {
            geometry,
            sums: RefCell::default(),
        }
    }

    /// Its lattice.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The site meant in a turn; `None` beyond an open end.
    pub fn site(&self, site: &Site, turn: Turn) -> Option<usize> {
        self.locate(site, turn, &mut Vec::new())
    }

    /// The value; NaN where there is none. Truth values are 0 and 1.
    pub fn value(&self, number: &Number, turn: Turn) -> f64 {
        self.evaluate(number, turn, &mut Vec::new())
    }

    /// Whether a condition holds.
    pub fn holds(&self, condition: &Number, turn: Turn) -> bool {
        let value = self.value(condition, turn);
        value != 0.0 && !value.is_nan()
    }

    fn locate(&self, site: &Site, turn: Turn, variables: &mut Vec<(u32, i64)>) -> Option<usize> {
        let base = match &site.base {
            Base::First => turn.first,
            Base::Second => turn.second,
            Base::Absolute(index) => {
                let index = self.evaluate(index, turn, variables);
                if index.is_nan() {
                    return None;
                }
                self.geometry.absolute(index as i64)?
            }
        };
        self.geometry.shift(base, site.offset)
    }

    fn evaluate(&self, number: &Number, turn: Turn, variables: &mut Vec<(u32, i64)>) -> f64 {
        match &*number.node {
            Node::Constant(value) => as_f64(*value),
            Node::Sites => self.geometry.sites() as f64,
            Node::Periodic => f64::from(u8::from(self.geometry.periodic)),
            Node::Variable(v) => variables
                .iter()
                .rev()
                .find(|b| b.0 == *v)
                .map_or(f64::NAN, |b| b.1 as f64),
            Node::Distance(a, b) => match (
                self.locate(a, turn, variables),
                self.locate(b, turn, variables),
            ) {
                (Some(i), Some(j)) => self.geometry.distance(i, j),
                _ => f64::NAN,
            },
            Node::Coordinate(axis, site) => self
                .locate(site, turn, variables)
                .map_or(f64::NAN, |s| self.geometry.coordinates(s)[*axis] as f64),
            Node::Parity(site) => self.locate(site, turn, variables).map_or(f64::NAN, |s| {
                let [x, y] = self.geometry.coordinates(s);
                ((x + y) % 2) as f64
            }),
            Node::Unary(function, a) => apply(*function, self.evaluate(a, turn, variables)),
            Node::Binary(operation, a, b) => combine(
                *operation,
                self.evaluate(a, turn, variables),
                self.evaluate(b, turn, variables),
            ),
            Node::If(condition, a, b) => {
                let chosen = if self.evaluate(condition, turn, variables) != 0.0 {
                    a
                } else {
                    b
                };
                self.evaluate(chosen, turn, variables)
            }
            Node::Sum {
                variable,
                from,
                to,
                term,
            } => {
                let key = Arc::as_ptr(&number.node);
                if let Some(&value) = self.sums.borrow().get(&key) {
                    return value;
                }
                let (from, to) = (
                    self.evaluate(from, turn, variables),
                    self.evaluate(to, turn, variables),
                );
                if from.is_nan() || to.is_nan() || to - from > SUM_LIMIT as f64 {
                    return f64::NAN;
                }
                let mut total = 0.0;
                for value in from as i64..to as i64 {
                    variables.push((*variable, value));
                    total += self.evaluate(term, turn, variables);
                    variables.pop();
                }
                if !number.is_open() {
                    self.sums.borrow_mut().insert(key, total);
                }
                total
            }
        }
    }
}
