//! The typing rules of the network graph.
//!
//! [`infer`] says which type an operation yields, where the operation alone
//! determines it; [`validate`] checks every node of a graph, including those
//! whose type is declared (parameters, reshapes, broadcasts, index constants).

use super::{Graph, NodeId, NodeType, Op, Scan};
use crate::check::core::{Dim, Einsum, Place, Token};

/// A node that breaks a typing rule.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("node {node} ({op}): {fault}")]
pub struct Invalid {
    /// Index of the node.
    pub node: usize,
    /// Its operation.
    pub op: String,
    /// The rule broken.
    pub fault: Fault,
}

/// A broken typing rule. Operands are counted from 0.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Wrong number of operands.
    #[error("{expected} operands expected, {found} given")]
    OperandCount {
        /// How many the operation takes.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// An operand that does not precede its user.
    #[error("operand {0} does not precede the node")]
    Order(usize),
    /// An operand on the wrong index set.
    #[error("operand {operand} lives on {found:?}, not on {expected}")]
    OperandPlace {
        /// Which.
        operand: usize,
        /// What the operation wants.
        expected: &'static str,
        /// Where it is.
        found: Place,
    },
    /// Operands on different index sets.
    #[error("operands live on {0:?} and {1:?}")]
    PlacesDiffer(Place, Place),
    /// An operand of the wrong shape.
    #[error("operand {operand} has shape {found:?}, not {expected:?}")]
    OperandShape {
        /// Which.
        operand: usize,
        /// What the operation wants.
        expected: Vec<Dim>,
        /// What it has.
        found: Vec<Dim>,
    },
    /// A shape without the leading axis the operation demands.
    #[error("operand {operand} of shape {found:?} lacks the leading axes {expected:?}")]
    LeadingAxis {
        /// Which.
        operand: usize,
        /// The axes wanted.
        expected: Vec<Dim>,
        /// What it has.
        found: Vec<Dim>,
    },
    /// Shapes that do not broadcast.
    #[error("shapes {0:?} and {1:?} do not broadcast")]
    Broadcast(Vec<Dim>, Vec<Dim>),
    /// An axis the operand does not have, or one of run-time length.
    #[error("axis {axis} of shape {shape:?} does not exist or has no static length")]
    Axis {
        /// Which.
        axis: usize,
        /// The shape.
        shape: Vec<Dim>,
    },
    /// A part that reaches beyond its axis.
    #[error("elements {start}..{start}+{len} of an axis of length {axis_len}")]
    Range {
        /// First element.
        start: usize,
        /// Elements.
        len: usize,
        /// Length of the axis.
        axis_len: usize,
    },
    /// A lattice axis other than 0 and 1.
    #[error("the lattice has no axis {0}")]
    LatticeAxis(usize),
    /// Letters of a contraction that fit neither operands nor each other.
    #[error("contraction: {0}")]
    Letters(String),
    /// Reversed or overlong window.
    #[error("offsets {lo:?}..={hi:?} are no window")]
    Window {
        /// First offsets.
        lo: [i64; 2],
        /// Last offsets.
        hi: [i64; 2],
    },
    /// Tokens or patches of zero spins, or that do not divide each other.
    #[error("ratio {ratio:?} does not fit tokens {token:?}")]
    Ratio {
        /// The ratio.
        ratio: [usize; 2],
        /// The token.
        token: Token,
    },
    /// A type with an empty token or a length without meaning.
    #[error("{0:?} is no type")]
    Meaningless(NodeType),
    /// A gradient of an operand the scan does not have.
    #[error("the scan has no coefficient operand {0}")]
    ScanOperand(usize),
    /// An index beyond [`Graph::params`].
    #[error("there is no parameter {0}")]
    NoParam(u32),
    /// The declared type is not the one the operation yields.
    #[error("declared {declared:?}, but the operation yields {yields:?}")]
    Type {
        /// Of the node.
        declared: NodeType,
        /// By the rules.
        yields: NodeType,
    },
    /// The declared type is not among those the operation can yield.
    #[error("the operation cannot yield {0:?}")]
    Declared(NodeType),
    /// The operation does not determine its type.
    #[error("the operation does not determine its type")]
    Undetermined,
}

impl NodeType {
    /// A type.
    pub fn new(place: Place, shape: &[Dim]) -> NodeType {
        NodeType {
            place,
            shape: shape.to_vec(),
        }
    }

    /// A type with static lengths.
    pub fn fixed(place: Place, shape: &[usize]) -> NodeType {
        NodeType {
            place,
            shape: shape.iter().map(|&n| Dim::Static(n)).collect(),
        }
    }
}

impl Graph {
    /// Adds a node whose type the operation determines.
    ///
    /// # Errors
    /// Operands the operation does not accept; operations that do not determine
    /// their type (use [`Graph::push`]).
    pub fn add(&mut self, op: Op, operands: &[NodeId]) -> Result<NodeId, Fault> {
        let ty = match op {
            Op::Param(index) => self
                .params
                .get(index as usize)
                .ok_or(Fault::NoParam(index))?
                .ty
                .clone(),
            _ => {
                let types: Vec<&NodeType> = operands.iter().map(|&o| self.ty(o)).collect();
                infer(&op, &types)?.ok_or(Fault::Undetermined)?
            }
        };
        Ok(self.push(op, operands, ty))
    }
}

/// Checks every node.
///
/// # Errors
/// The first node that breaks a rule.
pub fn validate(graph: &Graph) -> Result<(), Invalid> {
    for id in graph.ids() {
        check(graph, id).map_err(|fault| Invalid {
            node: id.index(),
            op: format!("{:?}", graph.op(id)),
            fault,
        })?;
    }
    Ok(())
}

fn check(graph: &Graph, id: NodeId) -> Result<(), Fault> {
    let (op, ty, args) = (graph.op(id), graph.ty(id), graph.args(id));
    well_formed(ty)?;
    if let Some(k) = args.iter().position(|&a| a >= id) {
        return Err(Fault::Order(k));
    }
    let operands: Vec<&NodeType> = args.iter().map(|&a| graph.ty(a)).collect();
    if let Some(yields) = infer(op, &operands)? {
        let declared = ty.clone();
        return if same_type(ty, &yields) {
            Ok(())
        } else {
            Err(Fault::Type { declared, yields })
        };
    }
    let possible = match op {
        Op::Param(index) => same_type(
            ty,
            &graph
                .params
                .get(*index as usize)
                .ok_or(Fault::NoParam(*index))?
                .ty,
        ),
        Op::SiteIndex { .. } => matches!(ty.place, Place::Site(_)) && ty.shape.is_empty(),
        Op::Displacement { .. } => {
            matches!(ty.place, Place::Displacement(_)) && ty.shape.is_empty()
        }
        Op::Momentum { .. } => matches!(ty.place, Place::Momentum(_)) && ty.shape.is_empty(),
        Op::PairIndex { .. } => matches!(ty.place, Place::Pair(_)) && ty.shape.is_empty(),
        Op::Reshape => {
            ty.place == operands[0].place && elements(&ty.shape) == elements(&operands[0].shape)
        }
        Op::Broadcast => {
            [Place::Whole, ty.place].contains(&operands[0].place)
                && broadcasts_to(&operands[0].shape, &ty.shape)
        }
        Op::Scatter => match (ty.place, operands[0].shape.split_first()) {
            (Place::Site(t), Some((&lead, rest))) => {
                same_dim(lead, sites(t)) && same_dims(rest, &ty.shape)
            }
            _ => false,
        },
        _ => true,
    };
    if possible {
        Ok(())
    } else {
        Err(Fault::Declared(ty.clone()))
    }
}

/// The type an operation yields; `None` where it must be declared (parameters,
/// index constants, `Reshape`, `Broadcast`, `Scatter`).
///
/// # Errors
/// Operands the operation does not accept.
pub fn infer(op: &Op, operands: &[&NodeType]) -> Result<Option<NodeType>, Fault> {
    count(op, operands.len())?;
    let yields = |place: Place, shape: Vec<Dim>| Ok(Some(NodeType { place, shape }));
    match op {
        Op::Param(_) | Op::Reshape | Op::Broadcast => Ok(None),
        Op::SiteIndex { axis }
        | Op::Displacement { axis }
        | Op::Momentum { axis }
        | Op::PairIndex { axis, .. } => lattice_axis(*axis).map(|()| None),
        Op::Scatter => on_whole(operands, 0).map(|()| None),
        Op::Number(_) | Op::SiteCount(_) => yields(Place::Whole, vec![]),
        Op::Extent { axis, .. } => {
            lattice_axis(*axis)?;
            yields(Place::Whole, vec![])
        }
        Op::Spins => yields(Place::Site(Token::SPIN), vec![]),
        Op::Map(_) => Ok(Some(operands[0].clone())),
        Op::Zip(_) => {
            let place = join(operands[0].place, operands[1].place)?;
            yields(place, broadcast(&operands[0].shape, &operands[1].shape)?)
        }
        Op::Einsum(spec) => einsum(spec, operands).map(Some),
        Op::Slice { axis, start, len } => {
            let axis_len = static_axis(operands[0], *axis)?;
            if start.checked_add(*len).is_none_or(|end| end > axis_len) {
                return Err(Fault::Range {
                    start: *start,
                    len: *len,
                    axis_len,
                });
            }
            yields(operands[0].place, with_axis(operands[0], *axis, *len))
        }
        Op::Pad { axis, start, len } => {
            let part = static_axis(operands[0], *axis)?;
            if start.checked_add(part).is_none_or(|end| end > *len) {
                return Err(Fault::Range {
                    start: *start,
                    len: part,
                    axis_len: *len,
                });
            }
            yields(operands[0].place, with_axis(operands[0], *axis, *len))
        }
        Op::Concat { axis } => {
            let first = operands[0];
            let mut len = 0;
            for (k, o) in operands.iter().enumerate() {
                if o.place != first.place {
                    return Err(Fault::PlacesDiffer(first.place, o.place));
                }
                let part = static_axis(o, *axis)?;
                same_shape(k, &o.shape, &with_axis(first, *axis, part))?;
                len += part;
            }
            yields(first.place, with_axis(first, *axis, len))
        }
        Op::Window { lo, hi } => {
            on_sites(operands, 0)?;
            yields(
                operands[0].place,
                prepend(&[Dim::Static(window(*lo, *hi)?)], &operands[0].shape),
            )
        }
        Op::WindowAdjoint { lo, hi } => {
            on_sites(operands, 0)?;
            let rest = strip(operands, 0, &[Dim::Static(window(*lo, *hi)?)])?;
            yields(operands[0].place, rest.to_vec())
        }
        Op::Patch { ratio } => {
            let token = on_sites(operands, 0)?;
            let fault = Fault::Ratio {
                ratio: *ratio,
                token,
            };
            let coarse = [0, 1].map(|axis| token.0[axis].checked_mul(ratio[axis]));
            let (Some(x), Some(y), Some(volume)) = (
                coarse[0],
                coarse[1],
                ratio[0].checked_mul(ratio[1]).filter(|&v| v > 0),
            ) else {
                return Err(fault);
            };
            let shape = prepend(&[Dim::Static(volume)], &operands[0].shape);
            yields(Place::Site(Token([x, y])), shape)
        }
        Op::Unpatch { ratio } => {
            let token = on_sites(operands, 0)?;
            let fits = |axis: usize| ratio[axis] > 0 && token.0[axis].is_multiple_of(ratio[axis]);
            if !fits(0) || !fits(1) {
                return Err(Fault::Ratio {
                    ratio: *ratio,
                    token,
                });
            }
            let rest = strip(operands, 0, &[Dim::Static(ratio[0] * ratio[1])])?;
            let fine = [0, 1].map(|axis| token.0[axis] / ratio[axis]);
            yields(Place::Site(Token(fine)), rest.to_vec())
        }
        Op::Sum => yields(Place::Whole, operands[0].shape.clone()),
        Op::Gather => {
            let token = on_sites(operands, 0)?;
            yields(Place::Whole, prepend(&[sites(token)], &operands[0].shape))
        }
        Op::Scan(scan) => {
            on_sites(operands, 0)?;
            coefficients(*scan, operands, 1)?;
            Ok(Some(operands[0].clone()))
        }
        Op::ScanGrad { scan, wrt } => {
            on_sites(operands, 0)?;
            same_as(operands, 1, operands[0].place, &operands[0].shape)?;
            coefficients(*scan, operands, 2)?;
            match operands.get(wrt + 1) {
                Some(&coefficient) if *wrt >= 1 => Ok(Some(coefficient.clone())),
                _ => Err(Fault::ScanOperand(*wrt)),
            }
        }
        Op::Convolve { complex, .. } => {
            let token = on_sites(operands, 0)?;
            kernel(
                operands,
                *complex,
                *complex,
                Place::Displacement(token),
                "Displacement",
            )
        }
        Op::Mix { complex, .. } => {
            let token = on_sites(operands, 0)?;
            kernel(operands, *complex, *complex, Place::Pair(token), "Pair")
        }
        Op::Modes { complex, .. } => {
            let token = on_sites(operands, 0)?;
            kernel(operands, *complex, true, Place::Momentum(token), "Momentum")
        }
        Op::Correlate { complex } => {
            let (token, shape) = site_pair(operands, *complex)?;
            yields(Place::Displacement(token), shape)
        }
        Op::MixGrad { complex } => {
            let (token, shape) = site_pair(operands, *complex)?;
            yields(Place::Pair(token), shape)
        }
        Op::ModesGrad { complex } => {
            let (token, shape) = site_pair(operands, *complex)?;
            let lead: &[Dim] = if *complex { &[] } else { &COMPLEX };
            yields(Place::Momentum(token), prepend(lead, &shape))
        }
        Op::RowSum => match operands[0].place {
            Place::Pair(t) => yields(Place::Site(t), operands[0].shape.clone()),
            found => Err(Fault::OperandPlace {
                operand: 0,
                expected: "Pair",
                found,
            }),
        },
        Op::RowBroadcast => {
            let token = on_sites(operands, 0)?;
            yields(Place::Pair(token), operands[0].shape.clone())
        }
    }
}

/// The leading axis of complex values.
const COMPLEX: [Dim; 1] = [Dim::Static(2)];

/// Number of coefficient operands of a scan.
fn scan_coefficients(scan: Scan) -> usize {
    if scan.low_rank { 5 } else { 3 }
}

fn count(op: &Op, found: usize) -> Result<(), Fault> {
    let expected = match op {
        Op::Param(_)
        | Op::Number(_)
        | Op::Spins
        | Op::SiteIndex { .. }
        | Op::Displacement { .. }
        | Op::Momentum { .. }
        | Op::PairIndex { .. }
        | Op::SiteCount(_)
        | Op::Extent { .. } => 0,
        Op::Zip(_)
        | Op::Convolve { .. }
        | Op::Correlate { .. }
        | Op::Modes { .. }
        | Op::ModesGrad { .. }
        | Op::Mix { .. }
        | Op::MixGrad { .. } => 2,
        Op::Einsum(spec) => spec.inputs.len().clamp(1, 2),
        Op::Concat { .. } => found.max(1),
        Op::Scan(scan) => 1 + scan_coefficients(*scan),
        Op::ScanGrad { scan, .. } => 2 + scan_coefficients(*scan),
        _ => 1,
    };
    if expected == found {
        Ok(())
    } else {
        Err(Fault::OperandCount { expected, found })
    }
}

fn well_formed(ty: &NodeType) -> Result<(), Fault> {
    let token = match ty.place {
        Place::Whole => Token::SPIN,
        Place::Site(t) | Place::Displacement(t) | Place::Momentum(t) | Place::Pair(t) => t,
    };
    let meaningless = |d: &Dim| matches!(d, Dim::Sites { scale, per } if *scale == 0 || *per == 0);
    if token.0.contains(&0) || ty.shape.iter().any(meaningless) {
        return Err(Fault::Meaningless(ty.clone()));
    }
    Ok(())
}

fn lattice_axis(axis: usize) -> Result<(), Fault> {
    if axis < 2 {
        Ok(())
    } else {
        Err(Fault::LatticeAxis(axis))
    }
}

fn on_whole(operands: &[&NodeType], operand: usize) -> Result<(), Fault> {
    match operands[operand].place {
        Place::Whole => Ok(()),
        found => Err(Fault::OperandPlace {
            operand,
            expected: "Whole",
            found,
        }),
    }
}

fn on_sites(operands: &[&NodeType], operand: usize) -> Result<Token, Fault> {
    match operands[operand].place {
        Place::Site(token) => Ok(token),
        found => Err(Fault::OperandPlace {
            operand,
            expected: "Site",
            found,
        }),
    }
}

/// The place of an elementwise result: `Whole` joins any place.
fn join(a: Place, b: Place) -> Result<Place, Fault> {
    match (a, b) {
        (Place::Whole, p) | (p, Place::Whole) => Ok(p),
        (a, b) if a == b => Ok(a),
        (a, b) => Err(Fault::PlacesDiffer(a, b)),
    }
}

/// The length of an axis that runs over all tokens.
pub fn sites(token: Token) -> Dim {
    Dim::Sites {
        scale: 1,
        per: token.volume(),
    }
}

/// Equal at every number of spins.
fn same_dim(a: Dim, b: Dim) -> bool {
    match (a, b) {
        (Dim::Sites { scale: s, per: p }, Dim::Sites { scale: t, per: q }) => {
            s as u128 * q as u128 == t as u128 * p as u128
        }
        (a, b) => a == b,
    }
}

fn same_dims(a: &[Dim], b: &[Dim]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| same_dim(a, b))
}

fn same_type(a: &NodeType, b: &NodeType) -> bool {
    a.place == b.place && same_dims(&a.shape, &b.shape)
}

fn same_shape(operand: usize, found: &[Dim], expected: &[Dim]) -> Result<(), Fault> {
    if same_dims(found, expected) {
        return Ok(());
    }
    Err(Fault::OperandShape {
        operand,
        expected: expected.to_vec(),
        found: found.to_vec(),
    })
}

fn same_as(
    operands: &[&NodeType],
    operand: usize,
    place: Place,
    shape: &[Dim],
) -> Result<(), Fault> {
    if operands[operand].place != place {
        return Err(Fault::PlacesDiffer(place, operands[operand].place));
    }
    same_shape(operand, &operands[operand].shape, shape)
}

/// NumPy's rule.
fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, Fault> {
    let rank = a.len().max(b.len());
    let at = |s: &[Dim], k: usize| {
        if k + s.len() < rank {
            Dim::Static(1)
        } else {
            s[k + s.len() - rank]
        }
    };
    (0..rank)
        .map(|k| match (at(a, k), at(b, k)) {
            (Dim::Static(1), d) | (d, Dim::Static(1)) => Ok(d),
            (x, y) if same_dim(x, y) => Ok(x),
            _ => Err(Fault::Broadcast(a.to_vec(), b.to_vec())),
        })
        .collect()
}

fn broadcasts_to(from: &[Dim], to: &[Dim]) -> bool {
    broadcast(from, to).is_ok_and(|joint| same_dims(&joint, to))
}

/// Number of elements per place index as (numerator, denominator, power of N), reduced.
fn elements(shape: &[Dim]) -> (u128, u128, u32) {
    let (mut num, mut den, mut power) = (1u128, 1u128, 0);
    for d in shape {
        match *d {
            Dim::Static(n) => num = num.saturating_mul(n as u128),
            Dim::Sites { scale, per } => {
                num = num.saturating_mul(scale as u128);
                den = den.saturating_mul(per as u128);
                power += 1;
            }
        }
        let common = gcd(num, den);
        (num, den) = (num / common, den / common);
    }
    (num, den, power)
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

fn static_axis(ty: &NodeType, axis: usize) -> Result<usize, Fault> {
    match ty.shape.get(axis) {
        Some(&Dim::Static(n)) => Ok(n),
        _ => Err(Fault::Axis {
            axis,
            shape: ty.shape.clone(),
        }),
    }
}

fn with_axis(ty: &NodeType, axis: usize, len: usize) -> Vec<Dim> {
    let mut shape = ty.shape.clone();
    shape[axis] = Dim::Static(len);
    shape
}

fn prepend(lead: &[Dim], shape: &[Dim]) -> Vec<Dim> {
    lead.iter().chain(shape).copied().collect()
}

/// The shape behind the leading axes the operation demands.
fn strip<'a>(operands: &[&'a NodeType], operand: usize, lead: &[Dim]) -> Result<&'a [Dim], Fault> {
    let shape = operands[operand].shape.as_slice();
    if shape.len() < lead.len() || !same_dims(&shape[..lead.len()], lead) {
        let (expected, found) = (lead.to_vec(), shape.to_vec());
        return Err(Fault::LeadingAxis {
            operand,
            expected,
            found,
        });
    }
    Ok(&shape[lead.len()..])
}

/// Number of offsets of a window.
fn window(lo: [i64; 2], hi: [i64; 2]) -> Result<usize, Fault> {
    // far beyond any lattice, and small enough that no product overflows
    const REACH: i64 = 1 << 24;
    let inside = |o: i64| (-REACH..=REACH).contains(&o);
    if (0..2).any(|axis| lo[axis] > hi[axis] || !inside(lo[axis]) || !inside(hi[axis])) {
        return Err(Fault::Window { lo, hi });
    }
    Ok((0..2)
        .map(|axis| (hi[axis] - lo[axis] + 1) as usize)
        .product())
}

fn einsum(spec: &Einsum, operands: &[&NodeType]) -> Result<NodeType, Fault> {
    let fault = |text: String| Err(Fault::Letters(text));
    if spec.inputs.len() != operands.len() {
        return fault(format!(
            "{} words, {} operands",
            spec.inputs.len(),
            operands.len()
        ));
    }
    let mut lengths: Vec<(char, Dim)> = Vec::new();
    for (word, ty) in spec.inputs.iter().zip(operands) {
        if word.len() != ty.shape.len() {
            return fault(format!("{} letters for shape {:?}", word.len(), ty.shape));
        }
        for (&letter, &length) in word.iter().zip(&ty.shape) {
            match lengths.iter().find(|(l, _)| *l == letter) {
                Some((_, known)) if !same_dim(*known, length) => {
                    return fault(format!("`{letter}` is both {known:?} and {length:?}"));
                }
                Some(_) => {}
                None => lengths.push((letter, length)),
            }
        }
    }
    let mut shape = Vec::new();
    for (k, letter) in spec.output.iter().enumerate() {
        match lengths.iter().find(|(l, _)| l == letter) {
            Some((_, length)) if !spec.output[..k].contains(letter) => shape.push(*length),
            Some(_) => return fault(format!("`{letter}` twice in the result")),
            None => return fault(format!("`{letter}` in no operand")),
        }
    }
    let place = match operands {
        [x] => x.place,
        [x, y] => join(x.place, y.place)?,
        _ => return fault(format!("{} operands", operands.len())),
    };
    Ok(NodeType { place, shape })
}

/// Coefficients of a scan whose x is operand 0: `[(2,) states, channels..]`.
fn coefficients(scan: Scan, operands: &[&NodeType], first: usize) -> Result<(), Fault> {
    let lead: &[Dim] = if scan.complex { &COMPLEX } else { &[] };
    let channels = strip(operands, 0, lead)?;
    let last = operands.len() - 1;
    on_whole(operands, last)?;
    let (rest, operand) = (strip(operands, last, lead)?, last);
    let Some(&states @ Dim::Static(_)) = rest.first() else {
        return Err(Fault::Axis {
            axis: lead.len(),
            shape: operands[operand].shape.clone(),
        });
    };
    let vector = prepend(lead, &prepend(&[states], channels));
    let matrix = prepend(lead, &prepend(&[states, states], channels));
    for operand in first..operands.len() {
        let expected = if scan.dense && operand == first {
            &matrix
        } else {
            &vector
        };
        same_as(operands, operand, Place::Whole, expected)?;
    }
    Ok(())
}

/// A mixer with its kernel as operand 1, whose channels broadcast to those of x.
fn kernel(
    operands: &[&NodeType],
    complex: bool,
    kernel_complex: bool,
    place: Place,
    expected: &'static str,
) -> Result<Option<NodeType>, Fault> {
    let lead = |c: bool| -> &[Dim] { if c { &COMPLEX } else { &[] } };
    let channels = strip(operands, 0, lead(complex))?;
    if operands[1].place != place {
        let found = operands[1].place;
        return Err(Fault::OperandPlace {
            operand: 1,
            expected,
            found,
        });
    }
    let own = strip(operands, 1, lead(kernel_complex))?;
    if !broadcasts_to(own, channels) {
        return Err(Fault::Broadcast(own.to_vec(), channels.to_vec()));
    }
    Ok(Some(operands[0].clone()))
}

/// Two site values of one type: gradients of kernels.
fn site_pair(operands: &[&NodeType], complex: bool) -> Result<(Token, Vec<Dim>), Fault> {
    let token = on_sites(operands, 0)?;
    if complex {
        strip(operands, 0, &COMPLEX)?;
    }
    same_as(operands, 1, operands[0].place, &operands[0].shape)?;
    Ok((token, operands[0].shape.clone()))
}
