//! Which sites see a set of spins: supports of changed coefficients.

use crate::check::core::{Token, Window};
use crate::interp::TokenLattice;
use crate::ir::{Boundary, Lattice};
use crate::pass::normal_form::Coefficient;
use std::collections::BTreeSet;

/// The tokens whose window contains at least one of `spins` (sites of the
/// lattice of spins). On a ring windows wrap, also more than once around; on an
/// open lattice they are cut off. Spins outside the lattice are ignored.
pub fn tokens_seeing(
    window: Window,
    token: Token,
    lattice: Lattice,
    spins: &[usize],
) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let extent = [0, 1].map(|a| lattice.extent[a] / token.0[a].max(1));
    for &spin in spins.iter().filter(|&&s| s < lattice.sites()) {
        let at = [spin / lattice.extent[1], spin % lattice.extent[1]];
        let axis = |a: usize| -> Vec<usize> {
            let (home, inside) = (at[a] / token.0[a], at[a] % token.0[a]);
            let (lo, hi) = window.support(token, a, inside);
            let count = extent[a] as i64;
            match lattice.boundary {
                Boundary::Periodic if hi - lo + 1 >= count => (0..extent[a]).collect(),
                Boundary::Periodic => (lo..=hi)
                    .map(|d| (home as i64 + d).rem_euclid(count) as usize)
                    .collect(),
                Boundary::Open => (lo..=hi)
                    .map(|d| home as i64 + d)
                    .filter(|i| (0..count).contains(i))
                    .map(|i| i as usize)
                    .collect(),
            }
        };
        let columns = axis(1);
        for x in axis(0) {
            seen.extend(columns.iter().map(|y| x * extent[1] + y));
        }
    }
    seen
}

/// The tokens at which a coefficient may change when `spins` are flipped.
pub fn changed(
    coefficient: Coefficient,
    token: Token,
    lattice: Lattice,
    spins: &[usize],
) -> BTreeSet<usize> {
    coefficient
        .window()
        .map_or_else(BTreeSet::new, |w| tokens_seeing(w, token, lattice, spins))
}

/// All tokens of a lattice.
pub fn all_tokens(tokens: TokenLattice) -> BTreeSet<usize> {
    (0..tokens.count()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(lo: i64, hi: i64) -> Window {
        Window {
            lo: [lo, 0],
            hi: [hi, 0],
        }
    }
    fn sites(w: Window, t: usize, n: usize, b: Boundary, spins: &[usize]) -> Vec<usize> {
        tokens_seeing(w, Token([t, 1]), Lattice::chain(n, b), spins)
            .into_iter()
            .collect()
    }

    #[test]
    fn one_flip_in_a_chain_of_tokens() {
        // Tokens of two spins that read tokens -1..2: spins -2..5.
        let w = window(-2, 5);
        assert_eq!(sites(w, 2, 20, Boundary::Periodic, &[10]), [3, 4, 5, 6]);
        assert_eq!(sites(w, 2, 20, Boundary::Periodic, &[0]), [0, 1, 8, 9]);
        assert_eq!(sites(w, 2, 20, Boundary::Open, &[0]), [0, 1]);
        assert_eq!(sites(w, 2, 20, Boundary::Open, &[19]), [7, 8, 9]);
    }

    #[test]
    fn wide_windows_cover_small_rings() {
        assert_eq!(
            sites(window(-2, 5), 1, 5, Boundary::Periodic, &[3]),
            [0, 1, 2, 3, 4]
        );
        assert_eq!(
            sites(window(1, 2), 1, 5, Boundary::Periodic, &[0, 1]),
            [0, 3, 4]
        );
    }

    #[test]
    fn every_answer_agrees_with_the_definition() {
        for boundary in [Boundary::Periodic, Boundary::Open] {
            for t in 1..=3 {
                for (lo, hi) in [(0, 0), (-3, 1), (2, 4), (-9, -4), (-1, 7)] {
                    let n = 6 * t;
                    for spin in 0..n {
                        let direct: Vec<usize> = (0..6)
                            .filter(|i| {
                                (lo..=hi).any(|d| {
                                    let s = (i * t) as i64 + d;
                                    match boundary {
                                        Boundary::Periodic => s.rem_euclid(n as i64) == spin as i64,
                                        Boundary::Open => s == spin as i64,
                                    }
                                })
                            })
                            .collect();
                        assert_eq!(sites(window(lo, hi), t, n, boundary, &[spin]), direct);
                    }
                }
            }
        }
    }
}
