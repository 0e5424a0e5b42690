//! Chains that the wave function's back end moves by itself.

use super::Target;
use super::moves::{Acceptance, Move};
use super::options::{Method, SamplerOptions};
use super::report::Report;
use super::typewriter::ErrorBuffer;
use crate::run::walk::{Kind, Proposals, Screened, Tally, Walk};

/// `rounds` times `sweeps` sweeps of all chains after sweep number `step`, each
/// round recorded in `out` as [`super::Samples`] has them. `None`, with nothing
/// touched, where the back end leaves chains to the host.
pub(super) fn walk(
    options: &SamplerOptions,
    target: Target,
    (rounds, sweeps): (usize, usize),
    step: u64,
    (spins, buffer): (&mut [i8], &mut ErrorBuffer),
    out: Option<&mut [i8]>,
) -> Option<Report> {
    let psi = target.psi;
    let sites = psi.lattice().sites();
    let chains = spins.len() / sites;
    let kinds: Vec<Kind>;
    // errors of every chain by number of accepted flips
    let mut errors = Vec::new();
    let proposals = match options.method {
        Method::Sweep => Proposals::Sequential,
        Method::Metropolis {
            ref moves,
            proposals,
        } => {
            kinds = moves.iter().map(kind).collect();
            Proposals::Random {
                kinds: &kinds,
                count: proposals.unwrap_or(sites),
            }
        }
        Method::Typewriter { width, screened } => {
            // bounds of the host are not known there
            if target.bound.is_some() {
                return None;
            }
            let most = sites.div_ceil(width).div_ceil(2);
            let own: Vec<f64> = (1..=most).map(|count| buffer.seen(count)).collect();
            errors = own.repeat(chains);
            Proposals::Typewriter { width, screened }
        }
        Method::FullSum => return None,
    };
    let (mut moved, mut recorded) = (spins.to_vec(), Vec::new());
    let (mut tally, mut screened) = (Tally::default(), Screened::default());
    for round in 0..rounds {
        let walk = Walk {
            seed: options.seed,
            first: 0,
            step: step + (round * sweeps) as u64,
            sweeps,
            proposals,
            heat_bath: options.acceptance == Acceptance::HeatBath,
            inversion_every: options.inversion_every,
            uniform_every: options.uniform_every,
            magnetization: options.magnetization,
        };
        if errors.is_empty() {
            tally.merge(&psi.walk(&mut moved, &walk)?);
        } else {
            let (own, more) = psi.typewriter(&mut moved, &walk, &mut errors)?;
            tally.merge(&own);
            screened.merge(&more);
        }
        if out.is_some() {
            recorded.push(moved.clone());
        }
    }
    if let Some(out) = out {
        for (chain, out) in out.chunks_exact_mut(rounds * sites).enumerate() {
            for (out, all) in out.chunks_exact_mut(sites).zip(&recorded) {
                out.copy_from_slice(&all[chain * sites..][..sites]);
            }
        }
    }
    spins.copy_from_slice(&moved);
    for own in errors.chunks_exact((errors.len() / chains).max(1)) {
        for (k, &error) in own.iter().enumerate().filter(|(_, e)| !e.is_nan()) {
            buffer.observe(k + 1, error);
        }
    }
    let alone = match options.method {
        Method::Sweep => (rounds * sweeps * chains) as u64 - tally.by_environments,
        _ => 0,
    };
    Some(Report {
        proposed: tally.proposed,
        accepted: tally.accepted,
        inversions: tally.inversions,
        inverted: tally.inverted,
        uniform_proposed: tally.uniform_proposed,
        uniform_accepted: tally.uniform_accepted,
        screened: screened.screened,
        corrections: screened.corrections,
        worst_error: screened.worst_error,
        worst_error_over_bound: screened.worst_error_over_bound,
        not_a_number: tally.not_a_number,
        sweeps_without_environments: alone,
    })
}

fn kind(m: &Move) -> Kind<'_> {
    match m {
        Move::Single => Kind::Single,
        Move::Pair => Kind::Pair,
        Move::Exchange => Kind::Exchange,
        Move::ExchangePairs(pairs) => Kind::ExchangePairs(pairs),
        Move::Clusters(sets) => Kind::Clusters(sets),
    }
}
