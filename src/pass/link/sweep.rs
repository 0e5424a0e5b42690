//! Exact sequential sweeps: every spin proposed once, O(N) in total.
//!
//! Environments ahead of the sweep are built once; the one behind follows the
//! accepted moves, one site at a time. A proposal is the slice between them,
//! evaluated in the proposed configuration, so every ratio is exact whatever was
//! accepted before. On a ring the two halves are swept with the cut on the
//! opposite side, where no window crosses it.

use super::environment::{Chain, block_at, blocks, rotate, slice_of};
use super::segment::{Segment, SiteBlock};
use crate::ir::Boundary;
use crate::pass::abacus::site_values::SiteValues;
use crate::pass::abacus::{AbacusError, Background};
use num_complex::Complex64;
use std::collections::BTreeMap;

/// Proposes every single-spin flip once, in site order or in reverse, each with
/// the exact `log psi(s') - log psi(s)` of the current configuration `s`; flips
/// where `decide(site, log_ratio)` says so. Returns the final configuration.
///
/// # Errors
/// Networks without environments (see [`Chain::new`]).
pub fn sweep(
    background: &Background,
    reverse: bool,
    decide: &mut dyn FnMut(usize, Complex64) -> bool,
) -> Result<Vec<i8>, AbacusError> {
    let chain = Chain::new(background)?;
    let spins = background.spins.len();
    let mut walk = Walk {
        background,
        blocks: blocks(background),
        chain,
        spins: background.spins.clone(),
        log_psi: background.log_psi(),
        origin: 0,
    };
    let (half, sites) = (spins / 2, walk.chain.sites);
    let mut phases = match walk.chain.boundary {
        Boundary::Open => vec![(0, 0..spins)],
        // Spins of one half are seen from a cut in the middle of the other.
        Boundary::Periodic => vec![(sites * 3 / 4, 0..half), (sites / 4, half..spins)],
    };
    if reverse {
        phases.reverse();
    }
    for (origin, proposals) in phases {
        walk.origin = origin;
        let mut proposals: Vec<usize> = proposals.collect();
        if reverse {
            proposals.reverse();
        }
        walk.phase(&proposals, reverse, decide)?;
    }
    Ok(walk.spins)
}

struct Walk<'b, 'a> {
    background: &'b Background<'a>,
    chain: Chain,
    /// Coefficients of the current configuration.
    blocks: Vec<SiteBlock>,
    spins: Vec<i8>,
    log_psi: Complex64,
    origin: usize,
}

impl Walk<'_, '_> {
    /// Proposals in one direction with the cut in one place.
    fn phase(
        &mut self,
        proposals: &[usize],
        reverse: bool,
        decide: &mut dyn FnMut(usize, Complex64) -> bool,
    ) -> Result<(), AbacusError> {
        let sites = self.chain.sites;
        // Slices as ranges of rotated sites.
        let ranges: Vec<std::ops::Range<usize>> = proposals
            .iter()
            .map(|&spin| {
                let slice = slice_of(self.background.net, &[spin]);
                let rotated = slice.iter().map(|&i| (i + sites - self.origin) % sites);
                let (lo, hi) = rotated.fold((sites, 0), |(lo, hi), i| (lo.min(i), hi.max(i + 1)));
                lo.min(hi)..hi
            })
            .collect();
        // The environment ahead stays valid only if slices move with the sweep;
        // where windows cross the cut (small rings) every slice is the whole ring.
        let ordered = ranges.windows(2).all(|w| {
            if reverse {
                w[1].start <= w[0].start && w[1].end <= w[0].end
            } else {
                w[0].start <= w[1].start && w[0].end <= w[1].end
            }
        });
        let wraps = |r: &std::ops::Range<usize>| r.start == 0 && r.end == sites;
        let whole =
            self.chain.boundary == Boundary::Periodic && (!ordered || ranges.iter().any(wraps));
        let ranges: Vec<_> = if whole {
            vec![0..sites; proposals.len()]
        } else {
            ranges
        };
        let rotated = rotate(&self.blocks, self.origin);
        let ahead = if whole {
            vec![]
        } else if reverse {
            self.chain.prefixes(&rotated)
        } else {
            self.chain.suffixes(&rotated)
        };
        let mut behind = self.chain.empty();
        let mut reached = if reverse { sites } else { 0 };
        for (&spin, range) in proposals.iter().zip(ranges) {
            while !whole && reverse && reached > range.end {
                reached -= 1;
                behind = self.chain.extend_left(&behind, self.block(reached));
            }
            while !whole && !reverse && reached < range.start {
                behind = self.chain.extend_right(&behind, self.block(reached));
                reached += 1;
            }
            let empty = self.chain.empty();
            let (left, right): (&Segment, &Segment) = match (whole, reverse) {
                (true, _) => (&empty, &empty),
                (false, false) => (&behind, &ahead[range.end]),
                (false, true) => (&ahead[range.start], &behind),
            };
            self.propose(spin, range, left, right, decide)?;
        }
        Ok(())
    }

    fn block(&self, rotated: usize) -> &SiteBlock {
        &self.blocks[(rotated + self.origin) % self.chain.sites]
    }

    fn propose(
        &mut self,
        spin: usize,
        range: std::ops::Range<usize>,
        left: &Segment,
        right: &Segment,
        decide: &mut dyn FnMut(usize, Complex64) -> bool,
    ) -> Result<(), AbacusError> {
        let background = self.background;
        self.spins[spin] = -self.spins[spin];
        let differ: Vec<usize> = (0..self.spins.len())
            .filter(|&i| self.spins[i] != background.spins[i])
            .collect();
        let mut new = BTreeMap::new();
        {
            let mut values =
                SiteValues::new(background.net, &background.values, &self.spins, &differ)?;
            for i in slice_of(background.net, &[spin]) {
                new.insert(i, block_at(&mut values, background, i)?);
            }
        }
        let sites = self.chain.sites;
        let slice: Vec<&SiteBlock> = range
            .map(|i| {
                let site = (i + self.origin) % sites;
                new.get(&site).unwrap_or(&self.blocks[site])
            })
            .collect();
        let features = self.chain.features(left, &slice, right)?;
        let log_psi = background.readout(&features, &self.spins)?;
        if decide(spin, log_psi - self.log_psi) {
            self.log_psi = log_psi;
            for (i, block) in new {
                self.blocks[i] = block;
            }
        } else {
            self.spins[spin] = -self.spins[spin];
        }
        Ok(())
    }
}
