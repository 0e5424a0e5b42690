//! Chains that the wave function's back end moves by itself.

use super::moves::{Acceptance, Move};
use super::options::{Method, SamplerOptions};
use super::report::Report;
use crate::run::WaveFunction;
use crate::run::walk::{Kind, Proposals, Tally, Walk};

/// `rounds` times `sweeps` sweeps of all chains after sweep number `step`, each
/// round recorded in `out` as [`super::Samples`] has them. `None`, with nothing touched,
/// where the back end leaves chains to the host.
pub(super) fn walk(
    options: &SamplerOptions,
    psi: &dyn WaveFunction,
    (rounds, sweeps): (usize, usize),
    step: u64,
    spins: &mut [i8],
    out: Option<&mut [i8]>,
) -> Option<Report> {
    let sites = psi.lattice().sites();
    let kinds: Vec<Kind>;
    let proposals = match &options.method {
        Method::Sweep => Proposals::Sequential,
        Method::Metropolis { moves, proposals } => {
            kinds = moves.iter().map(kind).collect();
            Proposals::Random {
                kinds: &kinds,
                count: proposals.unwrap_or(sites),
            }
        }
        Method::Typewriter { .. } | Method::FullSum => return None,
    };
    let (mut moved, mut recorded) = (spins.to_vec(), Vec::new());
    let mut tally = Tally::default();
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
        tally.merge(&psi.walk(&mut moved, &walk)?);
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
    let alone = match options.method {
        Method::Sweep => rounds * sweeps * (spins.len() / sites),
        _ => 0,
    };
    Some(Report {
        proposed: tally.proposed,
        accepted: tally.accepted,
        not_a_number: tally.not_a_number,
        inversions: tally.inversions,
        inverted: tally.inverted,
        uniform_proposed: tally.uniform_proposed,
        uniform_accepted: tally.uniform_accepted,
        sweeps_without_environments: alone as u64,
        ..Report::default()
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
