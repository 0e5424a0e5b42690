//! All changes of some shapes of a configuration by one run of a compiled program.

use super::compiled::{CompileError, Compiled, Prepared};
use super::kernels::Kernels;
use super::simd::Real;
use super::work::{flops, work};
use crate::check::core::Token;
use crate::interp::TokenLattice;
use crate::ir::NodeId;
use crate::kernel::LowerError;
use crate::kernel::lower::{lower, lower_with_sites};
use crate::pass::flips::{Derived, Family, FlipProgram, NoFlips, common_token};
use crate::pass::normal_form::NormalForm;
use num_complex::Complex64;

/// Why changes of a network are evaluated in full.
#[derive(Debug, thiserror::Error)]
pub enum FlipError {
    /// No flip program exists.
    #[error(transparent)]
    Derivation(#[from] NoFlips),
    /// It could not be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// Work of a flip program, in the units of [`work`].
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    /// One run: all changes of a configuration.
    pub build: f64,
    /// One ratio after that.
    pub each: f64,
}

/// The flip program of one network for some families of clusters, compiled.
pub struct Flips<T: Real> {
    families: Vec<Family>,
    changes: Compiled<T>,
    readout: Compiled<T>,
    derived: Vec<Derived>,
    tokens: TokenLattice,
    token: Token,
}

/// New parameters of a flip program and all that follows from them.
pub struct PreparedFlips<T: Real> {
    changes: Prepared<T>,
    readout: Prepared<T>,
}

/// What a run found: the frontier of the configuration and all its changes.
pub struct Changes {
    background: Vec<f64>,
    log_psi: Complex64,
    /// By shape, token and element.
    by_shape: Vec<f64>,
}

/// A cluster: which of the program's families, and the site of its corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index into [`Flips::families`].
    pub family: usize,
    /// Row-major site of spins.
    pub corner: usize,
}

fn derive<T: Real>(network: &Compiled<T>, families: &[Family]) -> Result<FlipProgram, FlipError> {
    let (graph, lattice) = (network.graph(), network.lattice());
    let form = NormalForm::new(graph).map_err(NoFlips::from)?;
    let token = common_token(graph, &form)?;
    let shapes: Vec<_> = families.iter().flat_map(|f| f.shapes(token)).collect();
    Ok(FlipProgram::new(graph, lattice, &shapes)?)
}

fn sites(program: &FlipProgram) -> Vec<NodeId> {
    program.changes.iter().flatten().copied().collect()
}

impl<T: Real> Flips<T> {
    /// Derives and compiles the program of some families.
    ///
    /// # Errors
    /// See [`FlipError`].
    pub fn new(network: &Compiled<T>, families: &[Family]) -> Result<Flips<T>, FlipError> {
        let lattice = network.lattice();
        let program = derive(network, families)?;
        let tokens = TokenLattice::new(lattice, program.token).map_err(LowerError::from);
        let tokens = tokens.map_err(CompileError::from)?;
        let kernels = Kernels::new(network.graph(), network.program(), network.params())?;
        let theta = extended(&program.derived, &kernels, network.params())?;
        let sites = sites(&program);
        let mut changes = Compiled::with(program.graph, lattice, &theta, &[], &sites, false)?;
        let (inputs, theta) = (program.inputs, network.params());
        let mut readout = Compiled::with(program.readout, lattice, theta, &inputs, &[], false)?;
        for program in [&mut changes, &mut readout] {
            let fits = program.work_within(network.budget());
            fits.inspect_err(|e| tracing::warn!("flips are evaluated one by one: {e}"))?;
        }
        Ok(Flips {
            families: families.to_vec(),
            changes,
            readout,
            derived: program.derived,
            tokens,
            token: program.token,
        })
    }

    /// What the program of some families would cost, without compiling it.
    ///
    /// # Errors
    /// See [`FlipError`].
    pub fn estimate(network: &Compiled<T>, families: &[Family]) -> Result<Estimate, FlipError> {
        let lattice = network.lattice();
        let program = derive(network, families)?;
        let changes = lower_with_sites(&program.graph, lattice, &[], &sites(&program));
        let readout = lower(&program.readout, lattice, &program.inputs);
        Ok(Estimate {
            build: work(&changes.map_err(CompileError::from)?),
            each: work(&readout.map_err(CompileError::from)?),
        })
    }

    /// What new parameters change, for [`Flips::install`].
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn prepare(
        &self,
        kernels: &Kernels,
        theta: &[f64],
    ) -> Result<PreparedFlips<T>, CompileError> {
        Ok(PreparedFlips {
            changes: (self.changes).prepare(&extended(&self.derived, kernels, theta)?)?,
            readout: self.readout.prepare(theta)?,
        })
    }

    /// Puts prepared parameters in force.
    pub fn install(&mut self, prepared: PreparedFlips<T>) {
        self.changes.install(prepared.changes);
        self.readout.install(prepared.readout);
    }

    /// The families it knows.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// The compiled program of changes.
    pub fn changes(&self) -> &Compiled<T> {
        &self.changes
    }

    /// Estimated work of one run and all its ratios, in the units of [`work`].
    pub fn work(&self) -> f64 {
        let ratios = self.families.len() * self.tokens.count() * self.token.volume();
        work(self.changes.program()) + work(self.readout.program()) * ratios as f64
    }

    /// Bytes of working memory of one run.
    pub fn bytes(&self) -> usize {
        self.changes.memory().first().map_or(0, |m| m.bytes)
    }

    /// Floating-point operations of one run and all its ratios.
    pub fn flops(&self) -> f64 {
        let ratios = self.families.len() * self.tokens.count() * self.token.volume();
        flops(self.changes.program()) + flops(self.readout.program()) * ratios as f64
    }

    /// Runs the program on one configuration.
    ///
    /// # Panics
    /// If `spins` is not one configuration.
    pub fn run(&self, spins: &[i8]) -> Changes {
        let mut found = Changes {
            background: Vec::new(),
            log_psi: Complex64::ZERO,
            by_shape: Vec::new(),
        };
        self.changes
            .evaluate_sites(spins, &mut |background, sites| {
                found.background.extend_from_slice(background);
                found.by_shape.reserve(sites.len() * self.tokens.count());
                for changes in sites.chunks_exact(background.len()) {
                    for token in 0..self.tokens.count() {
                        let elements = changes.iter().map(|c| c.at(token));
                        found.by_shape.extend(elements);
                    }
                }
            });
        self.readout
            .map_here(1, &|_| &found.background, &mut |_, value| {
                found.log_psi = complex(value);
            });
        found
    }

    /// `log psi(s') - log psi(s)` for clusters of a run.
    ///
    /// # Panics
    /// If `places` and `out` differ in length or a place does not exist.
    pub fn ratios(&self, changes: &Changes, places: &[Place], out: &mut [Complex64]) {
        assert_eq!(places.len(), out.len(), "one ratio per cluster");
        let width = changes.background.len();
        let at_once = self.readout.samples_at_a_time().max(1);
        let mut inputs = vec![0.0; at_once.min(places.len()) * width];
        for (places, out) in places.chunks(at_once).zip(out.chunks_mut(at_once)) {
            for (set, &place) in inputs.chunks_exact_mut(width).zip(places) {
                let first = self.row(place) * width;
                let change = &changes.by_shape[first..first + width];
                for ((x, old), change) in set.iter_mut().zip(&changes.background).zip(change) {
                    *x = old + change;
                }
            }
            let set = |s: usize| &inputs[s * width..(s + 1) * width];
            self.readout.map_here(places.len(), &set, &mut |s, value| {
                out[s] = complex(value) - changes.log_psi;
            });
        }
    }

    /// Where the change of a cluster is: shape and token as one index.
    fn row(&self, place: Place) -> usize {
        let [nx, ny] = self.token.0;
        let columns = self.tokens.extent[1] * ny;
        let [x, y] = [place.corner / columns, place.corner % columns];
        let shape = place.family * nx * ny + x % nx * ny + y % ny;
        shape * self.tokens.count() + self.tokens.site([x / nx, y / ny])
    }
}

fn complex(value: &[f64]) -> Complex64 {
    Complex64::new(value[0], value.get(1).copied().unwrap_or(0.0))
}

/// The network's parameters and those derived from them.
///
/// # Errors
/// As [`Kernels::derived`].
pub(super) fn extended(
    derived: &[Derived],
    kernels: &Kernels,
    theta: &[f64],
) -> Result<Vec<f64>, CompileError> {
    let mut all = theta.to_vec();
    for d in derived {
        all.extend(kernels.derived(d)?);
    }
    Ok(all)
}
