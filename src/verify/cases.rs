//! Lattices, parameters, configurations and clusters to verify on.

use crate::check::core::{NetworkInfo, Place, Token};
use crate::interp::{EvalError, evaluate};
use crate::ir::{Boundary, Lattice, Lowered};
use crate::params::{InitError, Params, initialise, perturb};
use crate::rng::{ChainRng, Stream};
use crate::syntax::ast::LatticeKind;

/// Largest number of tokens along an axis that is tried.
const MAX_TOKENS: usize = 64;
/// Parameters are drawn closer to their initial values until |log psi| stays below this.
const LARGEST_LOG_PSI: f64 = 100.0;
/// Standard deviation added to initial parameters.
pub const PERTURBATION: f64 = 0.4;

/// Rings and open lattices of several sizes: the smallest the network fits (its
/// slices wrap around or cover everything), one token more (the other parity),
/// and a larger one; those that `fits` accepts.
pub fn lattices(info: &NetworkInfo, fits: &dyn Fn(Lattice) -> bool) -> Vec<Lattice> {
    let unit = [0, 1].map(|axis| {
        info.values.iter().fold(1, |unit, v| match v.ty.place {
            Place::Whole => unit,
            Place::Site(Token(t))
            | Place::Displacement(Token(t))
            | Place::Momentum(Token(t))
            | Place::Pair(Token(t)) => lcm(unit, t[axis]),
        })
    });
    let of = |tokens: [usize; 2], boundary| Lattice {
        extent: match info.lattice {
            LatticeKind::Chain => [tokens[0] * unit[0], 1],
            LatticeKind::Square => [tokens[0] * unit[0], tokens[1] * unit[1]],
        },
        boundary,
    };
    let mut all = vec![];
    for boundary in [Boundary::Periodic, Boundary::Open] {
        let Some(least) = (3..=MAX_TOKENS).find(|&n| fits(of([n, n], boundary))) else {
            continue;
        };
        let sizes: &[[usize; 2]] = match info.lattice {
            LatticeKind::Chain => &[[0, 0], [1, 0], [4, 0]],
            LatticeKind::Square => &[[0, 0], [0, 1]],
        };
        all.extend(
            sizes
                .iter()
                .map(|s| of([least + s[0], least + s[1]], boundary)),
        );
    }
    all.retain(|&l| fits(l));
    all
}

fn lcm(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b.max(1));
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x * b.max(1)
}

/// Random numbers of one sample on one lattice, whatever else is verified.
pub fn random(lattice: Lattice, seed: u64, sample: usize) -> ChainRng {
    let ring = u32::from(lattice.boundary == Boundary::Periodic);
    let size = (lattice.extent[0] << 16 ^ lattice.extent[1]) as u64;
    ChainRng::new(seed, 2 * sample as u32 + ring, size, Stream::Resample)
}

/// Uniformly random spins.
pub fn configuration(lattice: Lattice, rng: &mut ChainRng) -> Vec<i8> {
    (0..lattice.sites())
        .map(|_| if rng.bits() & 1 == 0 { 1 } else { -1 })
        .collect()
}

/// Parameters to verify with.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// Initial values plus normal numbers.
    pub params: Params,
    /// Standard deviation of what was added: [`PERTURBATION`], halved until
    /// `log psi` was moderate and every recurrence had a periodic solution.
    pub perturbation: f64,
}

impl Drawn {
    /// What to say if the parameters are not of order one.
    pub fn note(&self, lattice: Lattice) -> Option<String> {
        let boundary = match lattice.boundary {
            Boundary::Periodic => "periodic",
            Boundary::Open => "open",
        };
        let sites = match lattice.extent {
            [n, 1] => n.to_string(),
            [x, y] => format!("{x}x{y}"),
        };
        (self.perturbation < PERTURBATION).then(|| {
            format!(
                "on {sites} {boundary} parameters are initial values plus normal numbers of width {} \
                 instead of {PERTURBATION}, to keep |log psi| below {LARGEST_LOG_PSI} and recurrences solvable",
                self.perturbation
            )
        })
    }
}

/// Initial parameters plus normal numbers, of order one where `log psi` allows.
///
/// # Errors
/// A lattice the network does not fit.
pub fn parameters(
    info: &NetworkInfo,
    lowered: &Lowered,
    lattice: Lattice,
    seed: u64,
    spins: &[i8],
) -> Result<Drawn, InitError> {
    let initial = initialise(info, lowered, lattice, seed)?;
    let mut perturbation = PERTURBATION;
    for _ in 0..8 {
        let mut params = initial.clone();
        perturb(&mut params, perturbation, seed);
        match evaluate(&lowered.graph, lattice, &params.tensors, spins) {
            Ok(e) if e.log_psi().norm() < LARGEST_LOG_PSI => {
                return Ok(Drawn {
                    params,
                    perturbation,
                });
            }
            Ok(_) | Err(EvalError::SingularScan) => perturbation /= 2.0,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Drawn {
        params: initial,
        perturbation: 0.0,
    })
}

/// Flips of single sites, pairs, disjoint and adjacent groups, everything.
pub fn clusters(lattice: Lattice, rng: &mut ChainRng) -> Vec<Vec<usize>> {
    let n = lattice.sites();
    let mut random = |size: usize| -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        rng.shuffle(&mut all);
        all.truncate(size.min(n));
        all
    };
    let mut clusters = vec![vec![0], vec![n - 1], vec![n / 2]];
    clusters.extend((0..3).map(|_| random(1)));
    for distance in [1, 2, 3, n / 2] {
        let first = random(1)[0];
        if distance % n != 0 {
            clusters.push(vec![first, (first + distance) % n]);
        }
    }
    // Disjoint groups, one of them around the cut.
    clusters.push(vec![n - 1, 0, n / 2]);
    clusters.push(random(3));
    clusters.push(random(5));
    clusters.push((0..n).collect());
    for c in &mut clusters {
        c.sort_unstable();
        c.dedup();
    }
    clusters
}
