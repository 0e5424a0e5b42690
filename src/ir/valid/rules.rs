//! The rules single operations share: places, shapes, windows, letters.

use super::Fault;
use crate::check::core::{Dim, Einsum, Place, Token};
use crate::ir::{NodeType, Op, Scan};

/// The leading axis of complex values.
pub(super) const COMPLEX: [Dim; 1] = [Dim::Static(2)];

/// Number of coefficient operands of a scan.
pub(super) fn scan_coefficients(scan: Scan) -> usize {
    if scan.low_rank { 5 } else { 3 }
}

pub(super) fn count(op: &Op, found: usize) -> Result<(), Fault> {
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

pub(super) fn well_formed(ty: &NodeType) -> Result<(), Fault> {
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

pub(super) fn lattice_axis(axis: usize) -> Result<(), Fault> {
    if axis < 2 {
        Ok(())
    } else {
        Err(Fault::LatticeAxis(axis))
    }
}

pub(super) fn on_whole(operands: &[&NodeType], operand: usize) -> Result<(), Fault> {
    match operands[operand].place {
        Place::Whole => Ok(()),
        found => Err(Fault::OperandPlace {
            operand,
            expected: "Whole",
            found,
        }),
    }
}

pub(super) fn on_sites(operands: &[&NodeType], operand: usize) -> Result<Token, Fault> {
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
pub(super) fn join(a: Place, b: Place) -> Result<Place, Fault> {
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
pub(super) fn same_dim(a: Dim, b: Dim) -> bool {
    match (a, b) {
        (Dim::Sites { scale: s, per: p }, Dim::Sites { scale: t, per: q }) => {
            s as u128 * q as u128 == t as u128 * p as u128
        }
        (a, b) => a == b,
    }
}

pub(super) fn same_dims(a: &[Dim], b: &[Dim]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| same_dim(a, b))
}

pub(super) fn same_type(a: &NodeType, b: &NodeType) -> bool {
    a.place == b.place && same_dims(&a.shape, &b.shape)
}

pub(super) fn same_shape(operand: usize, found: &[Dim], expected: &[Dim]) -> Result<(), Fault> {
    if same_dims(found, expected) {
        return Ok(());
    }
    Err(Fault::OperandShape {
        operand,
        expected: expected.to_vec(),
        found: found.to_vec(),
    })
}

pub(super) fn same_as(
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
pub(super) fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, Fault> {
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

pub(super) fn broadcasts_to(from: &[Dim], to: &[Dim]) -> bool {
    broadcast(from, to).is_ok_and(|joint| same_dims(&joint, to))
}

/// Number of elements per place index as (numerator, denominator, power of N), reduced.
pub(super) fn elements(shape: &[Dim]) -> (u128, u128, u32) {
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

pub(super) fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

pub(super) fn static_axis(ty: &NodeType, axis: usize) -> Result<usize, Fault> {
    match ty.shape.get(axis) {
        Some(&Dim::Static(n)) => Ok(n),
        _ => Err(Fault::Axis {
            axis,
            shape: ty.shape.clone(),
        }),
    }
}

pub(super) fn with_axis(ty: &NodeType, axis: usize, len: usize) -> Vec<Dim> {
    let mut shape = ty.shape.clone();
    shape[axis] = Dim::Static(len);
    shape
}

pub(super) fn prepend(lead: &[Dim], shape: &[Dim]) -> Vec<Dim> {
    lead.iter().chain(shape).copied().collect()
}

/// The shape behind the leading axes the operation demands.
pub(super) fn strip<'a>(
    operands: &[&'a NodeType],
    operand: usize,
    lead: &[Dim],
) -> Result<&'a [Dim], Fault> {
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
pub(super) fn window(lo: [i64; 2], hi: [i64; 2]) -> Result<usize, Fault> {
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

pub(super) fn einsum(spec: &Einsum, operands: &[&NodeType]) -> Result<NodeType, Fault> {
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
pub(super) fn coefficients(scan: Scan, operands: &[&NodeType], first: usize) -> Result<(), Fault> {
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
pub(super) fn kernel(
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
pub(super) fn site_pair(operands: &[&NodeType], complex: bool) -> Result<(Token, Vec<Dim>), Fault> {
    let token = on_sites(operands, 0)?;
    if complex {
        strip(operands, 0, &COMPLEX)?;
    }
    same_as(operands, 1, operands[0].place, &operands[0].shape)?;
    Ok((token, operands[0].shape.clone()))
}
