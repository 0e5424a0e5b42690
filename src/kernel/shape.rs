//! Shapes of values on a lattice, as rows.

use super::geometry::Space;
use crate::check::core::{Dim, Place};
use crate::interp::{EvalError, TokenLattice};
use crate::ir::{Lattice, NodeType};

/// Shape of a node type on a lattice, without the place.
pub(crate) fn dims(lattice: Lattice, ty: &NodeType) -> Result<Vec<usize>, EvalError> {
    let length = |d: &Dim| match *d {
        Dim::Static(n) => Ok(n),
        Dim::Sites { scale, per } => {
            let sites = lattice.sites();
            if per == 0 || !(scale * sites).is_multiple_of(per) {
                return Err(EvalError::FractionalLength { scale, sites, per });
            }
            Ok(scale * sites / per)
        }
    };
    ty.shape.iter().map(length).collect()
}

/// For every row-major index of `to` the index of the element of `from` it
/// reads under NumPy broadcasting.
pub(crate) fn broadcast_map(from: &[usize], to: &[usize]) -> Vec<usize> {
    let len: usize = to.iter().product();
    let mut map = vec![0; len];
    let (mut stride, mut block) = (1, 1);
    for (axis, &n) in to.iter().enumerate().rev() {
        let own = (axis + from.len())
            .checked_sub(to.len())
            .map_or(1, |k| from[k]);
        if own > 1 {
            for (k, m) in map.iter_mut().enumerate() {
                *m += (k / block % n) * stride;
            }
        }
        stride *= own;
        block *= n;
    }
    map
}

/// Values on displacements, momenta or pairs that depend on the configuration
/// are rows per configuration, one per entry and element.
pub(super) fn space(place: Place) -> Space {
    match place {
        Place::Site(token) => Space::Site(token),
        _ => Space::Batch,
    }
}

/// Number of entries of a place that become a leading axis of rows.
fn entries(lattice: Lattice, place: Place) -> Result<Option<usize>, EvalError> {
    match place {
        Place::Whole | Place::Site(_) => Ok(None),
        Place::Displacement(t) | Place::Momentum(t) | Place::Pair(t) => {
            Ok(Some(TokenLattice::new(lattice, t)?.entries(place)?))
        }
    }
}

/// Shape of a value as rows: entries of its place, if rows, then its axes.
pub(super) fn row_shape(lattice: Lattice, ty: &NodeType) -> Result<Vec<usize>, EvalError> {
    let mut shape: Vec<usize> = entries(lattice, ty.place)?.into_iter().collect();
    shape.extend(dims(lattice, ty)?);
    Ok(shape)
}
