//! Walking along the chain: the exact sequential sweep.
//!
//! Sites are numbered by x along the way, from the cut; a sweep to the left sees
//! the chain mirrored. Proposals go block by block. For each block the segment
//! behind ends where the first proposal is seen, the one ahead starts behind the
//! last; segments ahead are built from the far end and kept for every block, or,
//! where memory matters, for every c-th one and rebuilt in between. On a ring the
//! cut lies where no slice crosses it, the last few tokens are visited with the cut
//! elsewhere, and rings too small for that are one slice.

use super::Environments;
use super::segment::{Line, Scratch, Segment, Step};
use super::slice::{Between, Changed, Frame, Slice};
use super::{STEP, most};
use crate::back::cpu::simd::Real;
use crate::run::Spins;
use num_complex::Complex64;
use std::ops::Range;

/// Numbers kept in segments ahead, at most.
const STORED: usize = 1 << 23;

/// Memory of one sweep.
pub(super) struct Workspace<T> {
    frame: Frame,
    slice: Slice<T>,
    /// For segments behind, and ahead.
    scratch: [Scratch<T>; 2],
    behind: [Segment<T>; 2],
    ahead: [Segment<T>; 2],
    stored: Vec<Segment<T>>,
    group: Vec<Segment<T>>,
    blocks: Vec<T>,
    proposed: Vec<T>,
    patch: Vec<i8>,
}

impl<T: Real> Workspace<T> {
    fn new(line: &Line<T>, rightward: bool, most: usize) -> Workspace<T> {
        let frame = Frame::new(line, rightward);
        let behind = Segment::empty(line, &frame.behind, rightward);
        let ahead = Segment::empty(line, &frame.ahead, !rightward);
        Workspace {
            slice: Slice::new(line, &frame, most),
            scratch: [
                Scratch::new(line, &frame.behind, rightward),
                Scratch::new(line, &frame.ahead, !rightward),
            ],
            behind: [behind.clone(), behind],
            ahead: [ahead.clone(), ahead],
            stored: Vec::new(),
            group: Vec::new(),
            blocks: vec![T::default(); STEP * line.layout.size],
            proposed: vec![T::default(); most * line.layout.size],
            patch: Vec::new(),
            frame,
        }
    }
}

/// Part of a sweep with one cut.
struct Phase {
    /// Token of x = 0, counted in the direction of the sweep.
    origin: usize,
    /// Proposals.
    range: Range<usize>,
    /// The slice is the whole ring.
    whole: bool,
}

/// Called with a site and the exact log ratio of flipping it; flips if true.
pub(super) type Decide<'d> = &'d mut dyn FnMut(usize, Complex64) -> bool;

impl<T: Real> Environments<T> {
    /// One exact sequential sweep, see [`crate::run::WaveFunction::sweep`].
    ///
    /// # Panics
    /// If `spins` is not one configuration.
    pub fn sweep(
        &self,
        spins: &mut Spins,
        reverse: bool,
        decide: &mut dyn FnMut(usize, Complex64) -> bool,
    ) {
        assert_eq!(spins.len(), self.tokens * self.token, "a configuration");
        let line = self.line();
        let idle = &self.idle[usize::from(reverse)];
        let free = idle.lock().unwrap_or_else(|e| e.into_inner()).pop();
        let mut w = free.unwrap_or_else(|| Workspace::new(&line, !reverse, most(self.reach)));
        let mut walk = Walk {
            all: self,
            line,
            reverse,
            reach: if reverse {
                [self.reach[1], self.reach[0]]
            } else {
                self.reach
            },
            omega: Vec::new(),
            log_psi: Complex64::ZERO,
        };
        for phase in walk.phases() {
            walk.phase(&phase, spins, &mut w, decide);
        }
        idle.lock().unwrap_or_else(|e| e.into_inner()).push(w);
    }
}

struct Walk<'a, T: Real> {
    all: &'a Environments<T>,
    line: Line<'a, T>,
    reverse: bool,
    /// Tokens before and after a flipped one that see it, in walking order.
    reach: [usize; 2],
    /// Features of the current configuration; empty until known.
    omega: Vec<f64>,
    log_psi: Complex64,
}

impl<T: Real> Walk<'_, T> {
    fn phases(&self) -> Vec<Phase> {
        let (tokens, [back, ahead]) = (self.all.tokens, self.reach);
        let seen = back + ahead;
        let whole = self.all.ring && tokens < 2 * seen.max(1);
        if !self.all.ring || whole {
            let range = 0..tokens;
            return vec![Phase {
                origin: 0,
                range,
                whole,
            }];
        }
        let mut phases = vec![Phase {
            origin: tokens - back,
            range: back..tokens - ahead,
            whole,
        }];
        if seen > 0 {
            phases.push(Phase {
                origin: (2 * tokens - ahead - 2 * back) % tokens,
                range: back..back + seen,
                whole,
            });
        }
        phases
    }

    fn token(&self, phase: &Phase, x: usize) -> usize {
        let tokens = self.all.tokens;
        let at = (phase.origin + x) % tokens;
        if self.reverse { tokens - 1 - at } else { at }
    }

    /// Coefficients of sites from x on, in walking order or against it.
    fn fetch(
        &self,
        phase: &Phase,
        spins: &[i8],
        (x, count, along): (usize, usize, bool),
        patch: &mut Vec<i8>,
        out: &mut [T],
    ) {
        let which = (self.token(phase, x), count, along == self.reverse);
        let all = self.all;
        all.coefficients
            .fetch(spins, which, &all.features, patch, out);
    }

    /// Grows a segment from one end to the other, leaving it in `pair[0]`.
    fn grow(&self, phase: &Phase, spins: &[i8], (from, to): (usize, usize), w: &mut Workspace<T>) {
        let behind = to > from || (to == from && to == 0);
        let mut at = from;
        let Workspace {
            frame,
            scratch,
            behind: segments_behind,
            ahead: segments_ahead,
            blocks,
            patch,
            ..
        } = w;
        let (pair, scratch, ports, rightward) = if behind {
            (
                segments_behind,
                &mut scratch[0],
                &frame.behind,
                frame.rightward,
            )
        } else {
            (
                segments_ahead,
                &mut scratch[1],
                &frame.ahead,
                !frame.rightward,
            )
        };
        while at != to {
            let n = at.abs_diff(to).min(STEP);
            let first = if behind { at } else { at - 1 };
            self.fetch(phase, spins, (first, n, behind), patch, blocks);
            let step = Step {
                line: &self.line,
                ports,
                rightward,
                blocks,
                n,
            };
            let [old, new] = pair;
            step.extend(old, new, scratch);
            pair.swap(0, 1);
            at = if behind { at + n } else { at - n };
        }
    }

    fn phase(&mut self, phase: &Phase, spins: &mut [i8], w: &mut Workspace<T>, decide: Decide) {
        let tokens = self.all.tokens;
        let [back, ahead] = self.reach;
        let starts: Vec<usize> = phase.range.clone().step_by(STEP).collect();
        let block = |b: usize| starts[b]..(starts[b] + STEP).min(phase.range.end);
        // bonds: where the segment behind ends, and the one ahead starts
        let bonds = |b: usize| {
            if phase.whole {
                return 0..tokens;
            }
            let block = block(b);
            block.start.saturating_sub(back)..(block.end + ahead).min(tokens)
        };
        w.behind[0].clear(&self.line, w.frame.rightward);
        w.ahead[0].clear(&self.line, !w.frame.rightward);
        let count = starts.len();
        let spacing = self.spacing(count, w.ahead[0].size());
        let mut at = tokens;
        for b in (0..count).rev() {
            let to = bonds(b).end;
            self.grow(phase, spins, (at, to), w);
            at = to;
            if b % spacing == spacing - 1 || b == count - 1 {
                keep(&mut w.stored, b / spacing, &w.ahead[0]);
            }
        }
        let mut reached = 0;
        for first in (0..count).step_by(spacing) {
            // the segments of one group
            let last = (first + spacing).min(count) - 1;
            keep(&mut w.group, last - first, &w.stored[first / spacing]);
            if last > first {
                w.ahead[0].clone_from(&w.stored[first / spacing]);
                for b in (first..last).rev() {
                    self.grow(phase, spins, (bonds(b + 1).end, bonds(b).end), w);
                    keep(&mut w.group, b - first, &w.ahead[0]);
                }
            }
            for b in first..=last {
                let Range { start, end } = bonds(b);
                if start > reached {
                    self.grow(phase, spins, (reached, start), w);
                    reached = start;
                }
                self.block(phase, block(b), start..end, (spins, b - first), w, decide);
            }
        }
    }

    /// Blocks per stored segment: one if memory allows.
    fn spacing(&self, blocks: usize, size: usize) -> usize {
        if blocks * size <= STORED {
            return 1;
        }
        let root = (blocks as f64).sqrt().ceil() as usize;
        let fits = |c: &usize| (blocks.div_ceil(*c) + c) * size <= STORED;
        (1..root).find(fits).unwrap_or(root.max(1))
    }

    /// Proposes every spin of a block.
    fn block(
        &mut self,
        phase: &Phase,
        block: Range<usize>,
        bonds: Range<usize>,
        (spins, ahead): (&mut [i8], usize),
        w: &mut Workspace<T>,
        decide: Decide,
    ) {
        let Workspace {
            frame,
            slice,
            behind,
            group,
            proposed,
            patch,
            ..
        } = w;
        let between = Between {
            line: &self.line,
            frame,
            behind: &behind[0],
            ahead: &group[ahead],
        };
        slice.n = bonds.len();
        let every = (bonds.start, slice.n, true);
        self.fetch(phase, spins, every, patch, &mut slice.blocks);
        between.settle(slice);
        if self.omega.is_empty() {
            let constant = &self.all.features.constant;
            self.omega = slice
                .change
                .iter()
                .zip(constant)
                .map(|(x, c)| x + c)
                .collect();
            self.log_psi = self.all.readout.log_psi(&self.omega);
        }
        let token = self.all.token;
        let mut omega = vec![0.0; self.omega.len()];
        for x in block {
            let first = self.token(phase, x) * token;
            let sites = if phase.whole {
                0..slice.n
            } else {
                let [back, ahead] = self.reach;
                let (lo, hi) = (x.saturating_sub(back), x + ahead + 1);
                lo.max(bonds.start) - bonds.start..hi.min(bonds.end) - bonds.start
            };
            for part in 0..token {
                let site = first + if self.reverse { token - 1 - part } else { part };
                spins[site] = -spins[site];
                let which = (bonds.start + sites.start, sites.len(), true);
                self.fetch(phase, spins, which, patch, proposed);
                let changed = Changed {
                    blocks: proposed,
                    sites: sites.clone(),
                };
                between.propose(slice, &changed);
                for ((new, old), change) in omega.iter_mut().zip(&self.omega).zip(&slice.change) {
                    *new = old + change;
                }
                let log_psi = self.all.readout.log_psi(&omega);
                if decide(site, log_psi - self.log_psi) {
                    between.commit(slice, &changed);
                    self.omega.copy_from_slice(&omega);
                    self.log_psi = log_psi;
                } else {
                    spins[site] = -spins[site];
                }
            }
        }
    }
}

/// Puts a copy at a place of a list, reusing its memory.
fn keep<T: Real>(list: &mut Vec<Segment<T>>, at: usize, segment: &Segment<T>) {
    while list.len() <= at {
        list.push(segment.clone());
    }
    list[at].clone_from(segment);
}
