//! The lowest states of an operator over all its sectors.

use super::{Basis, EdError, Options, Sector, Spectrum, solve};
use crate::vmc::operator::Operator;

/// One of the lowest states.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Total energy.
    pub energy: f64,
    /// `|H v - E v|`.
    pub residual: f64,
    /// Its sector; of a mirrored state that of its twin.
    pub sector: Sector,
    /// Whether it is the inverse of a state of that sector, in the sector of
    /// opposite magnetisation.
    pub mirrored: bool,
    spectrum: usize,
    level: usize,
}

/// What was computed in one sector.
#[derive(Clone, Debug, PartialEq)]
pub struct SectorSummary {
    /// The sector.
    pub sector: Sector,
    /// Number of its basis states.
    pub dim: usize,
    /// Whether the sector of opposite magnetisation has the same energies and
    /// was not computed again.
    pub twin: bool,
    /// Its lowest energies, ascending.
    pub energies: Vec<f64>,
    /// Their residuals.
    pub residuals: Vec<f64>,
    /// Applications of the matrix.
    pub steps: usize,
    /// Whether every residual met the tolerance.
    pub converged: bool,
}

/// The lowest states over one or all sectors.
#[derive(Clone, Debug)]
pub struct Lowest {
    /// The lowest states, ascending, degenerate ones one by one.
    pub levels: Vec<Level>,
    /// What was computed, sector by sector.
    pub sectors: Vec<SectorSummary>,
    spectra: Vec<Spectrum>,
}

impl Lowest {
    /// The spectrum a level belongs to and its number there.
    pub fn state(&self, level: &Level) -> (&Spectrum, usize) {
        (&self.spectra[level.spectrum], level.level)
    }
}

/// The `options.levels` lowest states of an operator in one sector, or, without
/// one, over all sectors it splits into ([`Basis::sectors_of`]). Only the
/// vectors of these states are kept. `progress` hears of every sector before
/// it is solved.
///
/// # Errors
/// Too many spins, or a sector that does not exist or is not conserved.
pub fn lowest(
    operator: &Operator,
    sector: Option<Sector>,
    options: &Options,
    progress: &mut dyn FnMut(Sector),
) -> Result<Lowest, EdError> {
    let sites = operator.lattice().sites();
    if sites == 0 || sites > super::MAX_SITES {
        return Err(EdError::Size { sites });
    }
    let inversion = operator.commutes_with_inversion();
    let sectors = sector.map_or_else(|| Basis::sectors_of(operator), |s| vec![s]);
    let mut found = Lowest {
        levels: Vec::new(),
        sectors: Vec::new(),
        spectra: Vec::new(),
    };
    for one in sectors {
        progress(one);
        let spectrum = solve(operator, one, options)?;
        let twin = match one {
            Sector::Magnetisation { down } => sector.is_none() && inversion && 2 * down != sites,
            _ => false,
        };
        for (level, &energy) in spectrum.energies.iter().enumerate() {
            for mirrored in [false, true].into_iter().take(1 + usize::from(twin)) {
                found.levels.push(Level {
                    energy,
                    residual: spectrum.residuals[level],
                    sector: one,
                    mirrored,
                    spectrum: found.spectra.len(),
                    level,
                });
            }
        }
        found.sectors.push(SectorSummary {
            sector: one,
            dim: spectrum.dim,
            twin,
            energies: spectrum.energies.clone(),
            residuals: spectrum.residuals.clone(),
            steps: spectrum.steps,
            converged: spectrum.converged,
        });
        found.spectra.push(spectrum);
        found.levels.sort_by(|a, b| a.energy.total_cmp(&b.energy));
        found.levels.truncate(options.levels);
        for (k, spectrum) in found.spectra.iter_mut().enumerate() {
            let used = |level: usize| {
                let is = |l: &Level| l.spectrum == k && l.level == level;
                found.levels.iter().any(is)
            };
            let last = (0..spectrum.states.len()).rev().find(|&level| used(level));
            spectrum.states.truncate(last.map_or(0, |level| level + 1));
        }
    }
    Ok(found)
}
