//! Walking along the chain: the exact sequential sweep, and all changes of one
//! configuration.
//!
//! Sites are numbered by x along the way, from the cut; a sweep to the left sees
//! the chain mirrored. Proposals go block by block. For each block the segment
//! behind ends where the first proposal is seen, the one ahead starts behind the
//! last; segments ahead are built from the far end and kept for every block, or,
//! where memory matters, for every c-th one and rebuilt in between. On a ring the
//! cut lies where no slice crosses it. The slices of the last few tokens do: a sweep
//! evaluates their few proposals in full, which costs less than segments for another
//! cut; changes of one configuration are visited with the cut elsewhere. Rings too
//! small for a cut are one slice.

use super::Environments;
use super::coefficients::{Flipped, Wanted};
use super::grow::{Scratch, Step};
use super::kept::{Ahead, Kept};
use super::links::Outside;
use super::most;
use super::segment::{Line, Segment};
use super::slice::{Between, Changed, Frame, Slice};
use crate::back::cpu::budget::{Idle, Loan};
use crate::back::cpu::compiled::Compiled;
use crate::back::cpu::simd::Real;
use crate::run::Spins;
use num_complex::Complex64;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

/// Numbers kept in segments ahead, at most.
pub(super) const STORED: usize = 1 << 24;

/// Memory of one sweep.
pub(super) struct Workspace<T> {
    frame: Frame,
    slice: Slice<T>,
    /// For segments behind, and ahead.
    scratch: [Scratch<T>; 2],
    behind: [Segment<T>; 2],
    ahead: [Segment<T>; 2],
    kept: Kept<T>,
    blocks: Vec<T>,
    proposed: Vec<T>,
    patch: Vec<i8>,
    _loans: [Loan; 2],
}

/// Memory of finished sweeps one way.
pub(super) struct IdleSweeps<T>(Mutex<Vec<Workspace<T>>>);

impl<T> Default for IdleSweeps<T> {
    fn default() -> Self {
        IdleSweeps(Mutex::default())
    }
}

impl<T> IdleSweeps<T> {
    fn all(&self) -> MutexGuard<'_, Vec<Workspace<T>>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl<T: Send> Idle for IdleSweeps<T> {
    fn release(&self) {
        let all = std::mem::take(&mut *self.all());
        drop(all);
    }
}

impl<T: Real> Workspace<T> {
    fn new(line: &Line<T>, rightward: bool, most: usize, loans: [Loan; 2]) -> Workspace<T> {
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
            kept: Kept::default(),
            blocks: vec![T::default(); line.step * line.layout.size],
            proposed: vec![T::default(); most * line.layout.size],
            patch: Vec::new(),
            _loans: loans,
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
    /// The few tokens whose slices the first cut crosses.
    last: bool,
}

/// Sites to fetch: the first one, how many, whether along the way, what was flipped.
type Which = (usize, usize, bool, Option<Flipped>);

/// Called with a proposal (a site, or the number of a cluster) and its exact log
/// ratio; made if true.
type Decide<'d> = &'d mut dyn FnMut(usize, Complex64) -> bool;

/// What is proposed at a token.
enum Proposals<'p> {
    /// Every spin, in walking order; what is left is evaluated by this.
    Spins(&'p dyn Fn(&Spins) -> Complex64),
    /// Clusters that start there: per token their numbers.
    Clusters {
        at: Vec<Vec<usize>>,
        sites: &'p [usize],
        ends: &'p [usize],
    },
}

impl<T: Real> Environments<T> {
    /// One exact sequential sweep, see [`crate::run::WaveFunction::sweep`]; `full`
    /// evaluates whole configurations of the same network.
    ///
    /// # Panics
    /// If `spins` is not one configuration.
    pub fn sweep(
        &self,
        full: &Compiled<T>,
        spins: &mut Spins,
        reverse: bool,
        decide: &mut dyn FnMut(usize, Complex64) -> bool,
    ) {
        let log_psi = |spins: &Spins| {
            let mut out = [Complex64::ZERO];
            full.evaluate(spins, &mut out, &|value| {
                Complex64::new(value[0], value.get(1).copied().unwrap_or(0.0))
            });
            out[0]
        };
        self.walk(spins, reverse, 0, &Proposals::Spins(&log_psi), decide);
    }

    /// `log psi(s') - log psi(s)` for clusters of flips, as in
    /// [`crate::run::Background::log_ratios`]. Returns the clusters that are spread
    /// too wide for a slice, whose results are left alone.
    ///
    /// # Panics
    /// If `spins` is not one configuration or clusters leave the lattice.
    pub fn log_ratios(
        &self,
        spins: &Spins,
        sites: &[usize],
        ends: &[usize],
        out: &mut [Complex64],
    ) -> Vec<usize> {
        let mut at = vec![Vec::new(); self.tokens];
        let (mut wide, mut widest) = (Vec::new(), 0);
        let seen = self.reach[0] + self.reach[1];
        let whole = self.ring && self.tokens <= most(self.reach, self.step);
        for k in 0..ends.len() {
            let cluster = &sites[k.checked_sub(1).map_or(0, |k| ends[k])..ends[k]];
            let (start, span) = self.arc(cluster);
            let fits = !self.ring || self.tokens >= 2 * (seen + span).max(1);
            if span < self.step && (fits || whole) {
                at[start].push(k);
                widest = widest.max(span);
            } else {
                wide.push(k);
            }
        }
        let proposals = Proposals::Clusters { at, sites, ends };
        let mut spins = spins.to_vec();
        self.walk(&mut spins, false, widest, &proposals, &mut |k, ratio| {
            out[k] = ratio;
            false
        });
        wide
    }

    /// The shortest stretch of tokens that holds a cluster: the first one, and how
    /// many more.
    fn arc(&self, cluster: &[usize]) -> (usize, usize) {
        let mut tokens: Vec<usize> = cluster.iter().map(|s| s / self.token).collect();
        tokens.sort_unstable();
        let (Some(&first), Some(&last)) = (tokens.first(), tokens.last()) else {
            return (0, 0);
        };
        let mut best = (first, last - first);
        if self.ring {
            for pair in tokens.windows(2) {
                let span = pair[0] + self.tokens - pair[1];
                if span < best.1 {
                    best = (pair[1], span);
                }
            }
        }
        best
    }

    fn walk(
        &self,
        spins: &mut Spins,
        reverse: bool,
        span: usize,
        proposals: &Proposals,
        decide: Decide,
    ) {
        assert_eq!(spins.len(), self.tokens * self.token, "a configuration");
        let line = self.line();
        let idle = &self.idle[usize::from(reverse)];
        let free = idle.all().pop();
        let mut w = free.unwrap_or_else(|| {
            let bytes = self.bytes();
            let loans = self.budgets.each_ref().map(|b| b.take(bytes));
            Workspace::new(&line, !reverse, most(self.reach, self.step), loans)
        });
        let [before, after] = self.reach;
        let mut walk = Walk {
            all: self,
            line,
            reverse,
            reach: if reverse {
                [after, before]
            } else {
                [before, after + span]
            },
            step: self.step - span,
            span,
            proposals,
            omega: Vec::new(),
            log_psi: Complex64::ZERO,
        };
        for phase in walk.phases() {
            match proposals {
                Proposals::Spins(log_psi) if phase.last => {
                    walk.in_full(&phase, spins, log_psi, decide)
                }
                _ => walk.phase(&phase, spins, &mut w, decide),
            }
        }
        idle.all().push(w);
    }
}

struct Walk<'a, T: Real> {
    all: &'a Environments<T>,
    line: Line<'a, T>,
    reverse: bool,
    /// Tokens before and after the first one of a proposal that see it, in walking
    /// order.
    reach: [usize; 2],
    /// Tokens proposed between two segments.
    step: usize,
    /// Tokens behind the first one of a proposal that it may flip, too.
    span: usize,
    proposals: &'a Proposals<'a>,
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
                last: false,
            }];
        }
        let mut phases = vec![Phase {
            origin: tokens - back,
            range: back..tokens - ahead,
            whole,
            last: false,
        }];
        if seen > 0 {
            phases.push(Phase {
                origin: (2 * tokens - ahead - 2 * back) % tokens,
                range: back..back + seen,
                whole,
                last: true,
            });
        }
        phases
    }

    /// Proposes the spins of a phase by evaluating everything.
    fn in_full(
        &self,
        phase: &Phase,
        spins: &mut Spins,
        log_psi: &dyn Fn(&Spins) -> Complex64,
        decide: Decide,
    ) {
        let token = self.all.token;
        let mut known = log_psi(spins);
        for x in phase.range.clone() {
            let here = self.token(phase, x);
            for part in 0..token {
                let part = if self.reverse { token - 1 - part } else { part };
                let site = here * token + part;
                spins[site] = -spins[site];
                let new = log_psi(spins);
                if decide(site, new - known) {
                    known = new;
                } else {
                    spins[site] = -spins[site];
                }
            }
        }
    }

    fn token(&self, phase: &Phase, x: usize) -> usize {
        let tokens = self.all.tokens;
        let at = (phase.origin + x) % tokens;
        if self.reverse { tokens - 1 - at } else { at }
    }

    /// The sites of a slice that see a proposal at x, to be fetched.
    fn seeing(&self, bonds: &Range<usize>, sites: Range<usize>, x: usize) -> Which {
        let start = bonds.start + sites.start;
        let first = x as isize - start as isize;
        let flipped = Flipped {
            first,
            last: first + self.span as isize,
            backward: self.reverse,
        };
        (start, sites.len(), true, Some(flipped))
    }

    /// Coefficients of sites from x on, in walking order or against it; only those
    /// that see what was flipped, if that is said.
    fn fetch(
        &self,
        phase: &Phase,
        spins: &[i8],
        (x, count, along, flipped): Which,
        patch: &mut Vec<i8>,
        out: &mut [T],
    ) {
        let wanted = Wanted {
            first: self.token(phase, x),
            count,
            backward: along == self.reverse,
            flipped,
        };
        let all = self.all;
        all.coefficients
            .fetch(spins, wanted, &all.features, patch, out);
    }

    /// Grows the segment behind, or the one ahead from where it is, leaving it in the
    /// first of its pair.
    fn grow(
        &self,
        phase: &Phase,
        spins: &[i8],
        (from, to): (usize, usize),
        w: &mut Workspace<T>,
        ahead: Option<Ahead>,
    ) {
        let mut at = from;
        let behind = ahead.is_none();
        let Workspace {
            frame,
            scratch,
            behind: segments_behind,
            ahead: segments_ahead,
            kept,
            blocks,
            patch,
            ..
        } = w;
        let (pair, scratch, ports, rightward) = if behind {
            let ports = &frame.behind;
            (segments_behind, &mut scratch[0], ports, frame.rightward)
        } else {
            let ports = &frame.ahead;
            (segments_ahead, &mut scratch[1], ports, !frame.rightward)
        };
        let mut first = ahead.and_then(|place| kept.get(place));
        while at != to {
            let n = at.abs_diff(to).min(self.line.step);
            let site = if behind { at } else { at - 1 };
            self.fetch(phase, spins, (site, n, behind, None), patch, blocks);
            let step = Step {
                line: &self.line,
                ports,
                rightward,
                blocks,
                n,
            };
            let [old, new] = pair;
            step.extend(first.take().unwrap_or(old), new, scratch);
            pair.swap(0, 1);
            at = if behind { at + n } else { at - n };
        }
        if let Some(same) = first {
            pair[0].clone_from(same);
        }
    }

    fn phase(&mut self, phase: &Phase, spins: &mut [i8], w: &mut Workspace<T>, decide: Decide) {
        let tokens = self.all.tokens;
        let [back, ahead] = self.reach;
        let step = self.step;
        let starts: Vec<usize> = phase.range.clone().step_by(step).collect();
        let block = |b: usize| starts[b]..(starts[b] + step).min(phase.range.end);
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
        let spacing = spacing(count, w.ahead[0].size(), self.all.stored);
        let (mut at, mut from) = (tokens, Ahead::Here);
        for b in (0..count).rev() {
            let to = bonds(b).end;
            self.grow(phase, spins, (at, to), w, Some(from));
            (at, from) = (to, Ahead::Here);
            if b % spacing == spacing - 1 || b == count - 1 {
                from = Ahead::Stored(b / spacing);
                w.kept.keep(from, &mut w.ahead[0]);
            }
        }
        let mut reached = 0;
        for first in (0..count).step_by(spacing) {
            // the segments of one group
            let last = (first + spacing).min(count) - 1;
            let mut from = Ahead::Stored(first / spacing);
            for b in (first..last).rev() {
                self.grow(
                    phase,
                    spins,
                    (bonds(b + 1).end, bonds(b).end),
                    w,
                    Some(from),
                );
                from = Ahead::Group(b - first);
                w.kept.keep(from, &mut w.ahead[0]);
            }
            for b in first..=last {
                let Range { start, end } = bonds(b);
                if start > reached {
                    self.grow(phase, spins, (reached, start), w, None);
                    reached = start;
                }
                let ahead = match b == last {
                    true => Ahead::Stored(first / spacing),
                    false => Ahead::Group(b - first),
                };
                self.block(phase, block(b), start..end, (spins, ahead), w, decide);
            }
        }
    }

    /// Proposes every spin of a block.
    fn block(
        &mut self,
        phase: &Phase,
        block: Range<usize>,
        bonds: Range<usize>,
        (spins, ahead): (&mut [i8], Ahead),
        w: &mut Workspace<T>,
        decide: Decide,
    ) {
        let Workspace {
            frame,
            slice,
            behind,
            ahead: here,
            kept,
            proposed,
            patch,
            ..
        } = w;
        let between = Between(Outside {
            line: &self.line,
            frame,
            behind: &behind[0],
            ahead: kept.get(ahead).unwrap_or(&here[0]),
        });
        slice.n = bonds.len();
        let every = (bonds.start, slice.n, true, None);
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
        let (mut current, mut known) = (std::mem::take(&mut self.omega), self.log_psi);
        let mut omega = vec![0.0; current.len()];
        let this = &*self;
        let seen_from = |x: usize| {
            if phase.whole {
                return 0..bonds.len();
            }
            let [back, ahead] = this.reach;
            let (lo, hi) = (x.saturating_sub(back), x + ahead + 1);
            lo.max(bonds.start) - bonds.start..hi.min(bonds.end) - bonds.start
        };
        let mut propose = |(id, flips): (usize, &[usize]), sites: Range<usize>, x: usize| {
            flips.iter().for_each(|&site| spins[site] = -spins[site]);
            let mut which = this.seeing(&bonds, sites.clone(), x);
            if phase.whole {
                which.3 = None;
            }
            let flipped = which.3;
            this.fetch(phase, spins, which, patch, proposed);
            let changed = Changed {
                blocks: proposed,
                sites,
                flipped,
            };
            between.propose(slice, &changed);
            for ((new, old), change) in omega.iter_mut().zip(&current).zip(&slice.change) {
                *new = old + change;
            }
            let log_psi = this.all.readout.log_psi(&omega);
            if decide(id, log_psi - known) {
                between.commit(slice, &changed);
                current.copy_from_slice(&omega);
                known = log_psi;
            } else {
                flips.iter().for_each(|&site| spins[site] = -spins[site]);
            }
        };
        for x in block {
            let here = this.token(phase, x);
            let sites = seen_from(x);
            match this.proposals {
                Proposals::Spins(_) => {
                    for part in 0..token {
                        let part = if this.reverse { token - 1 - part } else { part };
                        let site = here * token + part;
                        propose((site, &[site]), sites.clone(), x);
                    }
                }
                Proposals::Clusters {
                    at,
                    sites: all,
                    ends,
                } => {
                    for &k in &at[here] {
                        let first = k.checked_sub(1).map_or(0, |k| ends[k]);
                        propose((k, &all[first..ends[k]]), sites.clone(), x);
                    }
                }
            }
        }
        (self.omega, self.log_psi) = (current, known);
    }
}

/// Blocks per stored segment: one if `stored` numbers are enough.
pub(super) fn spacing(blocks: usize, size: usize, stored: usize) -> usize {
    if blocks * size <= stored {
        return 1;
    }
    let root = (blocks as f64).sqrt().ceil() as usize;
    let fits = |c: &usize| (blocks.div_ceil(*c) + c) * size <= stored;
    (1..root).find(fits).unwrap_or(root.max(1))
}
