//! The typing rules of the network graph.
//!
//! [`infer`] says which type an operation yields, where the operation alone
//! determines it; [`validate`] checks every node of a graph, including those
//! whose type is declared (parameters, reshapes, broadcasts, index constants).

mod fault;
mod rules;

pub use fault::{Fault, Invalid};
pub use rules::sites;

use super::{Graph, NodeId, NodeType, Op};
use crate::check::core::{Dim, Place, Token};
use rules::*;
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
