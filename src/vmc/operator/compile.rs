//! From an elaborated operator of the language to a compiled one.

use super::{Operator, OperatorBuilder, OperatorError};
use crate::check::operator::{ExpandError, Geometry, OperatorInfo, Pauli, Sink};
use crate::ir::{Boundary, Lattice};
use crate::syntax::ast::LatticeKind;
use num_complex::Complex64;

impl Sink for OperatorBuilder {
    type Error = OperatorError;

    fn string(
        &mut self,
        coefficient: Complex64,
        factors: &[(usize, Pauli)],
    ) -> Result<(), OperatorError> {
        OperatorBuilder::string(self, coefficient, factors)
    }

    fn pair_coupling(&mut self, d: [i64; 2], coupling: f64) -> Result<(), OperatorError> {
        OperatorBuilder::pair_coupling(self, d, coupling);
        Ok(())
    }
}

/// Instantiates an operator on a lattice.
///
/// # Errors
/// A lattice of the wrong kind or too small for a term, numbers without a
/// value, too many strings, or a sum that is not Hermitian on this lattice.
pub fn compile(info: &OperatorInfo, lattice: Lattice) -> Result<Operator, OperatorError> {
    if info.lattice == LatticeKind::Chain && lattice.extent[1] != 1 {
        let [x, y] = lattice.extent;
        return Err(OperatorError::Lattice(format!(
            "operator `{}` lives on a chain, the lattice is {x} x {y}",
            info.name
        )));
    }
    if lattice.sites() == 0 {
        return Err(OperatorError::Lattice("the lattice has no sites".into()));
    }
    let geometry = Geometry {
        extent: lattice.extent,
        periodic: lattice.boundary == Boundary::Periodic,
    };
    let mut builder = OperatorBuilder::new(lattice);
    info.expand(geometry, &mut builder)
        .map_err(|error| match error {
            ExpandError::Sink(error) => error,
            ExpandError::TooSmall { .. } => {
                OperatorError::Lattice(format!("operator `{}`: {error}", info.name))
            }
            ExpandError::NotFinite { .. } => {
                OperatorError::Number(format!("operator `{}`: {error}", info.name))
            }
        })?;
    builder.build()
}
