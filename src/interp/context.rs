//! What a node may depend on besides its operands.

use super::places::{TokenLattice, token};
use super::{EvalError, Tensor};
use crate::check::core::{Dim, Place, Token};
use crate::ir::{Graph, Lattice, NodeType};

/// Lattice, parameters and configuration, checked.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    lattice: Lattice,
    params: &'a [Tensor],
    spins: &'a [i8],
}

impl<'a> Context<'a> {
    /// Checks the configuration against the lattice.
    ///
    /// # Errors
    /// Empty lattices, wrong number of spins, spins other than +1 and -1.
    pub fn new(
        lattice: Lattice,
        params: &'a [Tensor],
        spins: &'a [i8],
    ) -> Result<Context<'a>, EvalError> {
        TokenLattice::new(lattice, Token::SPIN)?;
        if spins.len() != lattice.sites() {
            let (expected, found) = (lattice.sites(), spins.len());
            return Err(EvalError::SpinCount { expected, found });
        }
        if let Some((site, &value)) = spins.iter().enumerate().find(|(_, s)| s.abs() != 1) {
            return Err(EvalError::SpinValue { site, value });
        }
        Ok(Context {
            lattice,
            params,
            spins,
        })
    }

    /// Checks the parameter tensors against the declarations of `graph`.
    ///
    /// # Errors
    /// Wrong number or shapes.
    pub fn check_params(&self, graph: &Graph) -> Result<(), EvalError> {
        let (expected, found) = (graph.params.len(), self.params.len());
        if expected != found {
            return Err(EvalError::ParamCount { expected, found });
        }
        for (declared, given) in graph.params.iter().zip(self.params) {
            let expected = self.shape(&declared.ty)?;
            if expected != given.shape || given.data.len() != expected.iter().product::<usize>() {
                let (path, found) = (declared.path.clone(), given.shape.clone());
                return Err(EvalError::ParamShape {
                    path,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }

    /// The lattice of spins.
    pub fn lattice(&self) -> Lattice {
        self.lattice
    }

    /// The configuration, one spin per site.
    pub fn spins(&self) -> &'a [i8] {
        self.spins
    }

    /// A parameter tensor.
    ///
    /// # Errors
    /// An index beyond the tensors given.
    pub fn param(&self, index: u32) -> Result<&'a Tensor, EvalError> {
        let found = self.params.len();
        let expected = index as usize + 1;
        self.params
            .get(index as usize)
            .ok_or(EvalError::ParamCount { expected, found })
    }

    /// The lattice of tokens.
    ///
    /// # Errors
    /// Tokens that do not tile the lattice.
    pub fn tokens(&self, token: Token) -> Result<TokenLattice, EvalError> {
        TokenLattice::new(self.lattice, token)
    }

    /// The lattice of tokens a place is built on; the lattice of spins for `Whole`.
    pub(super) fn tokens_of(&self, place: Place) -> Result<TokenLattice, EvalError> {
        self.tokens(token(place).unwrap_or(Token::SPIN))
    }

    /// A length at this number of spins.
    ///
    /// # Errors
    /// Lengths that are no integers.
    pub fn dim(&self, dim: Dim) -> Result<usize, EvalError> {
        match dim {
            Dim::Static(n) => Ok(n),
            Dim::Sites { scale, per } => {
                let sites = self.lattice.sites();
                if per == 0 || !(scale * sites).is_multiple_of(per) {
                    return Err(EvalError::FractionalLength { scale, sites, per });
                }
                Ok(scale * sites / per)
            }
        }
    }

    /// The shape of a tensor of this type: place index first unless `Whole`.
    ///
    /// # Errors
    /// Places and lengths that do not exist on this lattice.
    pub fn shape(&self, ty: &NodeType) -> Result<Vec<usize>, EvalError> {
        let mut shape = Vec::with_capacity(ty.shape.len() + 1);
        if ty.place != Place::Whole {
            shape.push(self.tokens_of(ty.place)?.entries(ty.place)?);
        }
        for &d in &ty.shape {
            shape.push(self.dim(d)?);
        }
        Ok(shape)
    }
}
