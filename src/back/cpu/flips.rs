//! All single flips of a configuration by one run of a compiled flip program.

use super::compiled::{CompileError, Compiled};
use super::kernels::Kernels;
use super::simd::Real;
use super::work::work;
use crate::check::core::Token;
use crate::interp::TokenLattice;
use crate::pass::flips::{Derived, FlipProgram, NoFlips, common_token, single_spins};
use crate::pass::normal_form::NormalForm;
use num_complex::Complex64;

/// Why flips of a network are evaluated in full.
#[derive(Debug, thiserror::Error)]
pub enum FlipError {
    /// No flip program exists.
    #[error(transparent)]
    Derivation(#[from] NoFlips),
    /// It could not be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// The flip program of one network, compiled.
pub struct Flips<T: Real> {
    changes: Compiled<T>,
    readout: Compiled<T>,
    derived: Vec<Derived>,
    tokens: TokenLattice,
    token: Token,
    /// Elements of the frontier.
    width: usize,
}

impl<T: Real> Flips<T> {
    /// Derives and compiles the program of all single-spin flips.
    ///
    /// # Errors
    /// See [`FlipError`].
    pub fn new(network: &Compiled<T>) -> Result<Flips<T>, FlipError> {
        let (graph, lattice) = (network.graph(), network.lattice());
        let form = NormalForm::new(graph).map_err(NoFlips::from)?;
        let shapes = single_spins(common_token(graph, &form)?);
        let program = FlipProgram::new(graph, lattice, &shapes)?;
        let tokens =
            TokenLattice::new(lattice, program.token).map_err(|e| CompileError::Lower(e.into()))?;
        let theta = extended(network, &program.derived)?;
        let sites: Vec<_> = program.changes.iter().flatten().copied().collect();
        let changes = Compiled::with(program.graph, lattice, &theta, &[], &sites, false)?;
        let readout = Compiled::with(
            program.readout,
            lattice,
            network.params(),
            &program.inputs,
            &[],
            false,
        )?;
        Ok(Flips {
            width: changes.outputs(),
            changes,
            readout,
            derived: program.derived,
            tokens,
            token: program.token,
        })
    }

    /// Follows new parameters of the network.
    ///
    /// # Errors
    /// See [`CompileError`]; the old parameters then stay in force.
    pub fn set_params(&mut self, network: &Compiled<T>) -> Result<(), CompileError> {
        let theta = extended(network, &self.derived)?;
        let changes = self.changes.prepare(&theta)?;
        let readout = self.readout.prepare(network.params())?;
        self.changes.install(changes);
        self.readout.install(readout);
        Ok(())
    }

    /// The compiled program of changes.
    pub fn changes(&self) -> &Compiled<T> {
        &self.changes
    }

    /// Estimated work of one run, in the units of [`work`].
    pub fn work(&self) -> f64 {
        work(self.changes.program()) + work(self.readout.program()) * self.spins() as f64
    }

    fn spins(&self) -> usize {
        self.tokens.count() * self.token.volume()
    }

    /// `log psi(s') - log psi(s)` for every single-spin flip, in site order.
    ///
    /// # Panics
    /// If `spins` or `out` does not have one entry per spin.
    pub fn ratios(&self, spins: &[i8], out: &mut [Complex64]) {
        assert_eq!(out.len(), self.spins(), "one ratio per spin");
        let (width, columns) = (self.width, self.tokens.extent[1] * self.token.0[1]);
        let mut inputs = vec![0.0; (out.len() + 1) * width];
        self.changes
            .evaluate_sites(spins, &mut |background, sites| {
                inputs[..width].copy_from_slice(background);
                for (shape, changes) in sites.chunks_exact(width).enumerate() {
                    let part = [shape / self.token.0[1], shape % self.token.0[1]];
                    for token in 0..self.tokens.count() {
                        let at = self.tokens.coordinates(token);
                        let spin = (at[0] * self.token.0[0] + part[0]) * columns
                            + at[1] * self.token.0[1]
                            + part[1];
                        let set = &mut inputs[(spin + 1) * width..][..width];
                        for ((x, old), change) in set.iter_mut().zip(background).zip(changes) {
                            *x = old + change.at(token);
                        }
                    }
                }
            });
        let mut old = Complex64::ZERO;
        let sets: Vec<&[f64]> = inputs.chunks_exact(width).collect();
        let at_once = self.readout.samples_at_a_time().max(1);
        for (k, chunk) in sets.chunks(at_once).enumerate() {
            let set = |s: usize| chunk[s];
            self.readout.map_here(chunk.len(), &set, &mut |s, value| {
                let z = Complex64::new(value[0], value.get(1).copied().unwrap_or(0.0));
                match (k * at_once + s).checked_sub(1) {
                    None => old = z,
                    Some(spin) => out[spin] = z - old,
                }
            });
        }
    }
}

fn extended<T: Real>(network: &Compiled<T>, derived: &[Derived]) -> Result<Vec<f64>, CompileError> {
    let mut theta = network.params().to_vec();
    if !derived.is_empty() {
        let kernels = Kernels::new(network.graph(), network.program(), network.params())?;
        for d in derived {
            theta.extend(kernels.derived(d));
        }
    }
    Ok(theta)
}
