//! Networks whose hidden units are affine in the spins.
//!
//! ```text
//! log psi = r(s) + w sum_h log cosh theta_h(s),     r and theta affine in s
//! ```
//!
//! the restricted Boltzmann machine being the first of them. Flipping spins moves
//! `theta_h` by constants, `theta_h -> theta_h - 2 sum_j s_j W_hj`, and the ratio of
//! two products of hyperbolic cosines needs no logarithm per unit: with
//! `p = 1 / (1 + exp(-2 theta))`, `q = 1 - p` and `z = exp(4 W)`
//!
//! ```text
//! cosh(theta + d) / cosh theta = p exp(d) + q exp(-d)
//!                              = exp(-2 sum_j W_hj) ( p prod_{s_j=-1} z_hj + q prod_{s_j=+1} z_hj )
//! ```
//!
//! in which nothing cancels where theta is real. The pass finds the form in the
//! graph and, given parameters, `W` ([`Responses`]).

use super::NoFlips;
use crate::check::core::{Place, Token};
use crate::interp::{Context, EvalError, Evaluation, Operand, Tensor, TokenLattice, eval_node};
use crate::ir::{Graph, Lattice, MapFn, NodeId, NodeType, Op, ZipFn};
use std::collections::HashMap;
use std::rc::Rc;

/// The form of the [module](self), found in a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct HiddenUnits {
    /// theta, or its real and imaginary parts: `Whole` values of one shape.
    pub theta: Vec<NodeId>,
    /// The weight w.
    pub weight: f64,
    /// Per output the terms of r.
    pub rest: Vec<Vec<(f64, NodeId)>>,
}

/// A sum over hidden units, and what each of them is.
#[derive(Clone, Debug, PartialEq)]
enum Unit {
    /// log cosh theta, theta real.
    Real(NodeId),
    /// The real or imaginary part of log cosh (x + i y).
    Complex { parts: [NodeId; 2], imaginary: bool },
}

impl HiddenUnits {
    /// Finds the form.
    ///
    /// # Errors
    /// [`NoFlips::Unsupported`] for any other network.
    pub fn new(graph: &Graph) -> Result<HiddenUnits, NoFlips> {
        let mut found: Vec<(usize, f64, Unit)> = Vec::new();
        let mut rest = Vec::new();
        for (output, &id) in graph.outputs.iter().enumerate() {
            let mut terms = Vec::new();
            collect(graph, id, 1.0, &mut terms);
            let mut others = Vec::new();
            for (weight, term) in terms {
                match unit(graph, term) {
                    Some(unit) => found.push((output, weight, unit)),
                    None => others.push((weight, term)),
                }
            }
            rest.push(others);
        }
        let (theta, weight) = match found.as_slice() {
            [(0, weight, Unit::Real(theta))] => (vec![*theta], *weight),
            [
                (
                    0,
                    weight,
                    Unit::Complex {
                        parts,
                        imaginary: false,
                    },
                ),
                (
                    1,
                    same,
                    Unit::Complex {
                        parts: others,
                        imaginary: true,
                    },
                ),
            ] if parts == others && weight == same => (parts.to_vec(), *weight),
            _ => return Err(NoFlips::new("no sum of log cosh over hidden units")),
        };
        let affine = affine(graph);
        let terms = rest.iter().flatten().map(|(_, term)| term);
        if !theta
            .iter()
            .chain(terms)
            .all(|id| affine[id.index()].is_some())
        {
            return Err(NoFlips::new(
                "hidden units that are not affine in the spins",
            ));
        }
        Ok(HiddenUnits {
            theta,
            weight,
            rest,
        })
    }
}

fn number(graph: &Graph, id: NodeId) -> Option<f64> {
    match graph.op(id) {
        Op::Number(x) => Some(*x),
        Op::Broadcast | Op::Reshape => number(graph, graph.args(id)[0]),
        _ => None,
    }
}

/// The terms of a sum of numbers per configuration, with their factors.
fn collect(graph: &Graph, id: NodeId, factor: f64, terms: &mut Vec<(f64, NodeId)>) {
    let args = graph.args(id);
    match graph.op(id) {
        Op::Zip(ZipFn::Add) => args.iter().for_each(|&a| collect(graph, a, factor, terms)),
        Op::Zip(ZipFn::Sub) => {
            collect(graph, args[0], factor, terms);
            collect(graph, args[1], -factor, terms);
        }
        Op::Map(MapFn::Neg) => collect(graph, args[0], -factor, terms),
        Op::Zip(ZipFn::Mul) => match (number(graph, args[0]), number(graph, args[1])) {
            (Some(c), _) => collect(graph, args[1], factor * c, terms),
            (_, Some(c)) => collect(graph, args[0], factor * c, terms),
            _ => terms.push((factor, id)),
        },
        Op::Zip(ZipFn::Div) => match number(graph, args[1]) {
            Some(c) => collect(graph, args[0], factor / c, terms),
            None => terms.push((factor, id)),
        },
        _ => terms.push((factor, id)),
    }
}

/// Whether a term sums log cosh over all elements of a `Whole` value.
fn unit(graph: &Graph, id: NodeId) -> Option<Unit> {
    let Op::Einsum(e) = graph.op(id) else {
        return None;
    };
    let summed = graph.args(id)[0];
    let whole = graph.ty(summed).place == Place::Whole;
    let distinct =
        |letters: &[char]| (1..letters.len()).all(|k| !letters[..k].contains(&letters[k]));
    if e.inputs.len() != 1 || !e.output.is_empty() || !whole || !distinct(&e.inputs[0]) {
        return None;
    }
    let m = Match(graph);
    m.map(MapFn::LogCosh, summed)
        .map(Unit::Real)
        .or_else(|| m.real_part(summed))
        .or_else(|| m.imaginary_part(summed))
}

/// Recognises how a complex log cosh is written in real functions.
struct Match<'g>(&'g Graph);

impl Match<'_> {
    fn map(&self, f: MapFn, id: NodeId) -> Option<NodeId> {
        (*self.0.op(id) == Op::Map(f)).then(|| self.0.args(id)[0])
    }
    fn zip(&self, f: ZipFn, id: NodeId) -> Option<[NodeId; 2]> {
        let args = self.0.args(id);
        (*self.0.op(id) == Op::Zip(f)).then(|| [args[0], args[1]])
    }
    /// x of `c x`.
    fn scaled(&self, c: f64, id: NodeId) -> Option<NodeId> {
        let [a, b] = self.zip(ZipFn::Mul, id)?;
        if number(self.0, a) == Some(c) {
            Some(b)
        } else {
            (number(self.0, b) == Some(c)).then_some(a)
        }
    }
    /// `(log cosh 2x + log1p(exp(-log cosh 2x) cos 2y) - log 2) / 2`
    fn real_part(&self, id: NodeId) -> Option<Unit> {
        let difference = self.scaled(0.5, id)?;
        let [sum, log2] = self.zip(ZipFn::Sub, difference)?;
        if number(self.0, log2) != Some(std::f64::consts::LN_2) {
            return None;
        }
        let [a, b] = self.zip(ZipFn::Add, sum)?;
        let (l, log) = match self.map(MapFn::LogCosh, a) {
            Some(_) => (a, b),
            None => (b, a),
        };
        let x = self.scaled(2.0, self.map(MapFn::LogCosh, l)?)?;
        let [a, b] = self.zip(ZipFn::Mul, self.map(MapFn::Log1p, log)?)?;
        let (exp, cos) = match self.map(MapFn::Exp, a) {
            Some(exp) => (exp, b),
            None => (self.map(MapFn::Exp, b)?, a),
        };
        let y = self.scaled(2.0, self.map(MapFn::Cos, cos)?)?;
        (self.map(MapFn::Neg, exp)? == l).then_some(Unit::Complex {
            parts: [x, y],
            imaginary: false,
        })
    }
    /// `atan2(tanh x sin y, cos y)`
    fn imaginary_part(&self, id: NodeId) -> Option<Unit> {
        let [ts, cos] = self.zip(ZipFn::Atan2, id)?;
        let y = self.map(MapFn::Cos, cos)?;
        let [a, b] = self.zip(ZipFn::Mul, ts)?;
        let (tanh, sin) = match self.map(MapFn::Tanh, a) {
            Some(_) => (a, b),
            None => (b, a),
        };
        let x = self.map(MapFn::Tanh, tanh)?;
        (self.map(MapFn::Sin, sin)? == y).then_some(Unit::Complex {
            parts: [x, y],
            imaginary: true,
        })
    }
}

/// Per node whether it depends on the spins, for those that [`Responses`] sees to
/// be affine in them.
fn affine(graph: &Graph) -> Vec<Option<bool>> {
    let mut known: Vec<Option<bool>> = Vec::with_capacity(graph.len());
    for id in graph.ids() {
        let args: Option<Vec<bool>> = graph.args(id).iter().map(|a| known[a.index()]).collect();
        let depends = args.and_then(|args| {
            let any = args.contains(&true);
            let fixed = |k: usize| !args[k];
            match graph.op(id) {
                Op::Spins => Some(true),
                _ if !any => Some(false),
                op if is_move(op) => Some(true),
                Op::Map(MapFn::Neg) | Op::Zip(ZipFn::Add | ZipFn::Sub) | Op::Sum => Some(true),
                Op::Zip(ZipFn::Mul) if fixed(0) || fixed(1) => Some(true),
                Op::Zip(ZipFn::Div) | Op::Mix { complex: false, .. } if fixed(1) => Some(true),
                _ => None,
            }
        });
        known.push(depends);
    }
    known
}

/// Operations that only move elements.
fn is_move(op: &Op) -> bool {
    matches!(
        op,
        Op::Reshape
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Concat { .. }
            | Op::Broadcast
            | Op::Window { .. }
            | Op::Patch { .. }
            | Op::Unpatch { .. }
            | Op::Gather
            | Op::Scatter
    )
}

/// How an element of an affine value changes with the spins: (site, derivative).
pub type Response = Rc<Vec<(u32, f64)>>;

/// Derivatives of values affine in the spins, at given parameters.
pub struct Responses<'a> {
    graph: &'a Graph,
    context: Context<'a>,
    lattice: Lattice,
    values: &'a Evaluation,
    known: HashMap<NodeId, Rc<Vec<Response>>>,
    none: Response,
}

impl<'a> Responses<'a> {
    /// `values` are those of any configuration: what does not depend on it is
    /// read from them.
    ///
    /// # Errors
    /// Inputs that do not fit the lattice.
    pub fn new(
        graph: &'a Graph,
        lattice: Lattice,
        params: &'a [Tensor],
        spins: &'a [i8],
        values: &'a Evaluation,
    ) -> Result<Responses<'a>, NoFlips> {
        Ok(Responses {
            graph,
            context: Context::new(lattice, params, spins).map_err(wrong)?,
            lattice,
            values,
            known: HashMap::new(),
            none: Rc::new(Vec::new()),
        })
    }

    /// One response per element of a node's value, place index first.
    ///
    /// # Errors
    /// [`NoFlips::Unsupported`] where the value is not affine in the spins, or
    /// not seen to be.
    pub fn of(&mut self, id: NodeId) -> Result<Rc<Vec<Response>>, NoFlips> {
        if let Some(known) = self.known.get(&id) {
            return Ok(known.clone());
        }
        let (op, args) = (self.graph.op(id), self.graph.args(id));
        let mut operands = Vec::new();
        for &a in args {
            operands.push(self.of(a)?);
        }
        let constant = |k: usize| operands[k].iter().all(|r| r.is_empty());
        let len = self.values.value(id).data.len();
        let all = match op {
            _ if !matches!(op, Op::Spins) && (0..args.len()).all(constant) => {
                vec![self.none.clone(); len]
            }
            Op::Spins => (0..len as u32).map(|j| Rc::new(vec![(j, 1.0)])).collect(),
            op if is_move(op) => self.moved(op, id, &operands)?,
            Op::Map(MapFn::Neg) => operands[0].iter().map(|r| scaled(r, -1.0)).collect(),
            Op::Zip(ZipFn::Add | ZipFn::Sub) => {
                let [a, b] = [0, 1].map(|k| self.spread(args[k], id, &operands[k]));
                let sign = if *op == Op::Zip(ZipFn::Add) {
                    1.0
                } else {
                    -1.0
                };
                let sum = |(a, b): (&Response, &Response)| plus(a, b, sign);
                a?.iter().zip(&b?).map(sum).collect()
            }
            Op::Zip(ZipFn::Mul | ZipFn::Div) if constant(1) || *op == Op::Zip(ZipFn::Mul) => {
                let (x, factor) = if constant(1) { (0, 1) } else { (1, 0) };
                if !constant(factor) {
                    return Err(NoFlips::new("a product of values that depend on spins"));
                }
                let rows = self.spread(args[x], id, &operands[x])?;
                let factors = self.broadcast(args[factor], self.values.value(args[factor]), id)?;
                let power = |f: f64| {
                    if *op == Op::Zip(ZipFn::Div) {
                        1.0 / f
                    } else {
                        f
                    }
                };
                let rows = rows.iter().zip(&factors.data);
                rows.map(|(r, &f)| scaled(r, power(f))).collect()
            }
            Op::Sum => {
                let rows = &operands[0];
                (0..len)
                    .map(|e| total(rows.iter().skip(e).step_by(len), self.lattice.sites()))
                    .collect()
            }
            Op::Mix {
                complex: false,
                transposed,
            } if constant(1) => self.mixed(id, *transposed, &operands[0])?,
            other => {
                let name = crate::pass::normal_form::op_name(other);
                return Err(NoFlips::new(format!("hidden units behind {name}")));
            }
        };
        let all = Rc::new(all);
        self.known.insert(id, all.clone());
        Ok(all)
    }

    /// Operations that only move elements: seen by moving their numbers.
    fn moved(
        &self,
        op: &Op,
        id: NodeId,
        operands: &[Rc<Vec<Response>>],
    ) -> Result<Vec<Response>, NoFlips> {
        let mut first = 1;
        let numbered: Vec<Tensor> = (self.graph.args(id).iter())
            .map(|&a| {
                let from = first;
                let value = self.values.value(a);
                first += value.data.len();
                Tensor::from_fn(&value.shape, |k| (from + k) as f64)
            })
            .collect();
        let given: Vec<Operand> = (self.graph.args(id).iter().zip(&numbered))
            .map(|(&a, value)| Operand {
                ty: self.graph.ty(a),
                value,
            })
            .collect();
        let moved = eval_node(op, self.graph.ty(id), &given, &self.context).map_err(wrong)?;
        let all: Vec<&Response> = operands.iter().flat_map(|o| o.iter()).collect();
        let at = |&k: &f64| match k as usize {
            0 => self.none.clone(),
            k => all[k - 1].clone(),
        };
        Ok(moved.data.iter().map(at).collect())
    }

    fn broadcast(&self, id: NodeId, value: &Tensor, like: NodeId) -> Result<Tensor, NoFlips> {
        let operand = Operand {
            ty: self.graph.ty(id),
            value,
        };
        eval_node(
            &Op::Broadcast,
            self.graph.ty(like),
            &[operand],
            &self.context,
        )
        .map_err(wrong)
    }

    /// Responses of an operand as elements of the result it broadcasts into.
    fn spread(
        &self,
        id: NodeId,
        like: NodeId,
        rows: &[Response],
    ) -> Result<Vec<Response>, NoFlips> {
        let shape = &self.values.value(id).shape;
        let numbers = Tensor::from_fn(shape, |k| k as f64);
        let spread = self.broadcast(id, &numbers, like)?;
        Ok(spread
            .data
            .iter()
            .map(|&k| rows[k as usize].clone())
            .collect())
    }

    /// `y_i = sum_j k(i, j) x_j`.
    fn mixed(
        &self,
        id: NodeId,
        transposed: bool,
        x: &[Response],
    ) -> Result<Vec<Response>, NoFlips> {
        let args = self.graph.args(id);
        let x = self.spread(args[0], id, x)?;
        let ty = self.graph.ty(id);
        let token = match ty.place {
            Place::Site(token) => token,
            _ => Token::SPIN,
        };
        let n = TokenLattice::new(self.lattice, token)
            .map_err(wrong)?
            .count();
        let pairs = NodeType {
            place: Place::Pair(token),
            shape: ty.shape.clone(),
        };
        let operand = Operand {
            ty: self.graph.ty(args[1]),
            value: self.values.value(args[1]),
        };
        let kernel = eval_node(&Op::Broadcast, &pairs, &[operand], &self.context).map_err(wrong)?;
        let width = x.len() / n;
        let mut sums = vec![0.0; self.lattice.sites()];
        let mut all = Vec::with_capacity(x.len());
        for i in 0..n {
            for c in 0..width {
                sums.fill(0.0);
                for j in 0..n {
                    let entry = if transposed { j * n + i } else { i * n + j };
                    let k = kernel.data[entry * width + c];
                    x[j * width + c]
                        .iter()
                        .for_each(|&(s, d)| sums[s as usize] += k * d);
                }
                all.push(Rc::new(entries(&sums)));
            }
        }
        Ok(all)
    }
}

fn wrong(e: EvalError) -> NoFlips {
    NoFlips::new(e.to_string())
}

fn entries(sums: &[f64]) -> Vec<(u32, f64)> {
    let all = sums.iter().enumerate().filter(|(_, d)| **d != 0.0);
    all.map(|(s, &d)| (s as u32, d)).collect()
}

fn scaled(row: &Response, factor: f64) -> Response {
    Rc::new(row.iter().map(|&(s, d)| (s, factor * d)).collect())
}

fn plus(a: &Response, b: &Response, sign: f64) -> Response {
    if b.is_empty() {
        return a.clone();
    }
    let mut sum: HashMap<u32, f64> = a.iter().copied().collect();
    for &(s, d) in b.iter() {
        *sum.entry(s).or_insert(0.0) += sign * d;
    }
    let mut sum: Vec<_> = sum.into_iter().collect();
    sum.sort_unstable_by_key(|e| e.0);
    Rc::new(sum)
}

fn total<'r>(rows: impl Iterator<Item = &'r Response>, sites: usize) -> Response {
    let mut sums = vec![0.0; sites];
    for row in rows {
        row.iter().for_each(|&(s, d)| sums[s as usize] += d);
    }
    Rc::new(entries(&sums))
}
