//! The sites between two segments, solved mixer by mixer.
//!
//! `behind` is the segment the sweep leaves behind, `ahead` the one it has not
//! seen yet. Signals of the current configuration are kept; a proposal is the
//! change of all signals, so that no digits are lost between extensive numbers:
//!
//! ```text
//! Dv_m[j] = S'_m + sum_k A'_mk ( y_k + Dy_k ) - v_m     where coefficients change
//!         = sum_k A_mk Dy_k                             elsewhere
//! ```
//!
//! The states on both bonds follow from the segments, on a ring closed by
//! `(1 - L^N)^-1`, everything at a cost that does not depend on N.

use super::mixer::{Direction, MixerTables, PAD};
use super::product::{Left, Rows, RowsMut, apply_to, convolve, multiply};
use super::segment::{Line, Ports, Segment};
use crate::back::cpu::simd::{Isa, Real};
use std::ops::Range;

/// Which way the sweep goes, and the ports of both segments.
pub(super) struct Frame {
    pub rightward: bool,
    pub behind: Ports,
    pub ahead: Ports,
}

impl Frame {
    pub fn new<T: Real>(line: &Line<T>, rightward: bool) -> Frame {
        Frame {
            rightward,
            behind: Ports::new(line, rightward),
            ahead: Ports::new(line, !rightward),
        }
    }
}

/// Signals of one mixer on the slice: rows of components.
#[derive(Clone)]
struct Signals<T> {
    v: Vec<T>,
    y: Vec<T>,
    dv: Vec<T>,
    dy: Vec<T>,
    /// Where dv does not vanish.
    active: Range<usize>,
}

/// The slice and everything needed to propose changes of it.
pub(super) struct Slice<T> {
    /// Sites.
    pub n: usize,
    /// Coefficients of the current configuration, one block per site.
    pub blocks: Vec<T>,
    /// Change of the features in the last proposal.
    pub change: Vec<f64>,
    signals: Vec<Signals<T>>,
    /// Features of each site, and their changes.
    pooled: Vec<T>,
    dpooled: Vec<T>,
    into_behind: Vec<T>,
    into_ahead: Vec<T>,
    states: States<T>,
    exchanged: Vec<T>,
    sum: Vec<T>,
    read: Vec<T>,
}

/// States of one mixer at the ends of the slice.
struct States<T> {
    entering: [Vec<T>; 2],
    emitted: [Vec<T>; 2],
    far: [Vec<T>; 2],
    leaving: [Vec<T>; 2],
    turned: Vec<T>,
}

/// The coefficients of a proposal: `blocks` for the sites in `sites`.
#[derive(Clone)]
pub(super) struct Changed<'a, T> {
    pub blocks: &'a [T],
    pub sites: Range<usize>,
}

impl<T: Real> Slice<T> {
    /// For up to `most` sites.
    pub fn new(line: &Line<T>, frame: &Frame, most: usize) -> Slice<T> {
        let zeros = |n: usize| vec![T::default(); n];
        let all = line.mixers.len();
        let signals = |m: &MixerTables<T>| Signals {
            v: zeros(most * m.padded),
            y: zeros(most * m.padded),
            dv: zeros(most * m.padded),
            dy: zeros(most * m.padded),
            active: 0..0,
        };
        let most_of =
            |f: &dyn Fn(&MixerTables<T>) -> usize| line.mixers.iter().map(f).max().unwrap_or(0);
        let states = most_of(&|m| m.right.port.max(m.left.port));
        let width = most_of(&|m| m.padded);
        let lines = most_of(&|m| m.parts * (m.reach + 1));
        let pair = || [zeros(states), zeros(states)];
        Slice {
            n: 0,
            blocks: zeros(most * line.layout.size),
            change: vec![0.0; line.layout.features],
            signals: line.mixers.iter().map(signals).collect(),
            pooled: zeros(most * line.layout.padded),
            dpooled: zeros(most * line.layout.padded),
            into_behind: zeros(frame.behind.widths[all]),
            into_ahead: zeros(frame.ahead.widths[all]),
            states: States {
                entering: pair(),
                emitted: pair(),
                far: pair(),
                leaving: pair(),
                turned: zeros(states),
            },
            exchanged: zeros(most * width),
            sum: zeros(width.max(line.layout.padded)),
            read: zeros(lines),
        }
    }
}

/// A slice between its segments.
pub(super) struct Between<'a, T> {
    pub line: &'a Line<'a, T>,
    pub frame: &'a Frame,
    pub behind: &'a Segment<T>,
    pub ahead: &'a Segment<T>,
}

impl<T: Real> Between<'_, T> {
    /// Computes all signals of the current configuration; returns Omega without
    /// its constant in `slice.change`.
    pub fn settle(&self, slice: &mut Slice<T>) {
        let n = slice.n;
        for signals in &mut slice.signals {
            signals.v.fill(T::default());
            signals.y.fill(T::default());
        }
        slice.pooled.fill(T::default());
        let one = T::rounded(1.0);
        (slice.into_behind[0], slice.into_ahead[0]) = (one, one);
        let blocks = std::mem::take(&mut slice.blocks);
        let changed = Changed {
            blocks: &blocks,
            sites: 0..n,
        };
        self.solve(slice, &changed);
        self.accept(slice);
        slice.blocks = blocks;
        (slice.into_behind[0], slice.into_ahead[0]) = (T::default(), T::default());
        for segment in [self.behind, self.ahead] {
            for (sum, total) in slice.change.iter_mut().zip(&segment.total) {
                *sum += total;
            }
        }
    }

    /// The change of the features when coefficients change, in `slice.change`.
    pub fn propose(&self, slice: &mut Slice<T>, changed: &Changed<T>) {
        self.solve(slice, changed);
    }

    /// Makes the last proposal current, except for `slice.blocks`.
    fn accept(&self, slice: &mut Slice<T>) {
        let add = |x: &mut [T], dx: &[T]| x.iter_mut().zip(dx).for_each(|(x, d)| *x = *x + *d);
        for (mixer, s) in self.line.mixers.iter().zip(&mut slice.signals) {
            let (active, all) = (s.active.clone(), slice.n * mixer.padded);
            let active = active.start * mixer.padded..active.end * mixer.padded;
            add(&mut s.v[active.clone()], &s.dv[active]);
            add(&mut s.y[..all], &s.dy[..all]);
        }
        add(&mut slice.pooled, &slice.dpooled);
    }

    /// Makes the last proposal current.
    pub fn commit(&self, slice: &mut Slice<T>, changed: &Changed<T>) {
        self.accept(slice);
        let size = self.line.layout.size;
        let first = changed.sites.start * size;
        let len = changed.sites.len() * size;
        slice.blocks[first..first + len].copy_from_slice(&changed.blocks[..len]);
    }

    fn solve(&self, slice: &mut Slice<T>, changed: &Changed<T>) {
        let line = self.line;
        for m in 0..line.mixers.len() {
            self.receive(m, slice, changed);
            self.propagate(m, slice);
        }
        self.pool(slice, changed);
    }

    /// `Dv_m`.
    fn receive(&self, m: usize, slice: &mut Slice<T>, changed: &Changed<T>) {
        let (line, layout) = (self.line, self.line.layout);
        let mixer = &line.mixers[m];
        let w = mixer.padded;
        let vertices = &layout.vertices[m];
        let (earlier, rest) = slice.signals.split_at_mut(m);
        let own = &mut rest[0];
        own.active = if vertices.is_empty() {
            changed.sites.clone()
        } else {
            0..slice.n
        };
        for j in own.active.clone() {
            let inside = changed.sites.contains(&j);
            let block = if inside {
                &changed.blocks[(j - changed.sites.start) * layout.size..][..layout.size]
            } else {
                &slice.blocks[j * layout.size..][..layout.size]
            };
            let dv = &mut own.dv[j * w..(j + 1) * w];
            if inside {
                dv.copy_from_slice(&block[layout.source[m]..][..w]);
            } else {
                dv.fill(T::default());
            }
            for &(k, at) in vertices {
                let (from, s) = (&line.mixers[k], &earlier[k]);
                let dy = &s.dy[j * from.padded..][..from.padded];
                let sum = &mut slice.sum[..from.padded];
                let y = if inside {
                    total(&s.y[j * from.padded..], dy, sum);
                    sum
                } else {
                    dy
                };
                matrix(line.isa, block, at, (w, from.width), y, dv);
            }
            if inside {
                dv.iter_mut()
                    .zip(&own.v[j * w..(j + 1) * w])
                    .for_each(|(d, v)| *d = *d - *v);
            }
        }
    }

    /// `Dy_m` on the slice and the states that leave it.
    fn propagate(&self, m: usize, slice: &mut Slice<T>) {
        let (line, n) = (self.line, slice.n);
        let mixer = &line.mixers[m];
        let isa = line.isa;
        let [along, against] = mixer.seen(self.frame.rightward);
        let Slice {
            signals,
            into_behind,
            into_ahead,
            states,
            exchanged,
            read,
            ..
        } = slice;
        let s = &mut signals[m];
        let w = mixer.padded;
        let (xb, xa) = (into_behind, into_ahead);
        let widths = (self.frame.behind.widths[m], self.frame.ahead.widths[m]);
        let sizes = [along.states, against.states];
        // what the segments send in by themselves
        for (entering, size) in states.entering.iter_mut().zip(sizes) {
            entering[..size].fill(T::default());
        }
        let [from_behind, from_ahead] = &mut states.entering;
        if self.behind.len > 0 {
            let x = &xb[..widths.0];
            apply_to(
                isa,
                &self.behind.out[m],
                widths.0,
                x,
                &mut from_behind[..sizes[0]],
            );
        }
        if self.ahead.len > 0 {
            let x = &xa[..widths.1];
            apply_to(
                isa,
                &self.ahead.out[m],
                widths.1,
                x,
                &mut from_ahead[..sizes[1]],
            );
        }
        // what the slice emits
        emit(
            isa,
            mixer,
            along,
            &s.dv,
            s.active.clone(),
            Some(n),
            &mut states.emitted[0],
        );
        emit(
            isa,
            mixer,
            against,
            &s.dv,
            s.active.clone(),
            None,
            &mut states.emitted[1],
        );
        let channels = mixer.channels;
        if line.ring {
            states.far.iter_mut().for_each(|x| x.fill(T::default()));
            if self.ahead.len > 0 {
                let x = &xa[..widths.1];
                apply_to(
                    isa,
                    &self.ahead.far[m],
                    widths.1,
                    x,
                    &mut states.far[0][..sizes[0]],
                );
            }
            if self.behind.len > 0 {
                let x = &xb[..widths.0];
                apply_to(
                    isa,
                    &self.behind.far[m],
                    widths.0,
                    x,
                    &mut states.far[1][..sizes[1]],
                );
            }
            let (behind, ahead) = (&self.behind.through[m], &self.ahead.through[m]);
            // through the segment before the slice and the one after it, transposed
            let loops = [
                (along, &behind[1], &ahead[3]),
                (against, &ahead[1], &behind[3]),
            ];
            for (d, (direction, before, after)) in loops.into_iter().enumerate() {
                let p = direction.p;
                let size = sizes[d];
                let turned = &mut states.turned[..size];
                let (entering, far) = (&mut states.entering[d][..size], &mut states.far[d][..size]);
                let leaving = &mut states.leaving[d][..size];
                // leaving = K ( emitted + L^n ( entering + before far ) )
                turned.copy_from_slice(entering);
                blocks(isa, channels, p, before, far, turned);
                let emitted = &mut states.emitted[d][..size];
                blocks(isa, channels, p, &direction.transposed[n], turned, emitted);
                leaving.fill(T::default());
                blocks(isa, channels, p, &direction.closure, emitted, leaving);
                // far = far + after leaving; entering = entering + before far
                blocks(isa, channels, p, after, leaving, far);
                blocks(isa, channels, p, before, far, entering);
            }
        } else {
            for (d, direction) in [along, against].into_iter().enumerate() {
                let (p, size) = (direction.p, sizes[d]);
                let leaving = &mut states.leaving[d][..size];
                leaving.copy_from_slice(&states.emitted[d][..size]);
                let entering = &states.entering[d][..size];
                blocks(
                    isa,
                    channels,
                    p,
                    &direction.transposed[n],
                    entering,
                    leaving,
                );
            }
        }
        let ports = (&self.frame.behind, &self.frame.ahead);
        xb[ports.0.near[m]..][..sizes[1]].copy_from_slice(&states.leaving[1][..sizes[1]]);
        xa[ports.1.near[m]..][..sizes[0]].copy_from_slice(&states.leaving[0][..sizes[0]]);
        if line.ring {
            xb[ports.0.far[m]..][..sizes[0]].copy_from_slice(&states.far[0][..sizes[0]]);
            xa[ports.1.far[m]..][..sizes[1]].copy_from_slice(&states.far[1][..sizes[1]]);
        }
        // signals
        let dy = &mut s.dy[..n * w];
        dy.fill(T::default());
        let exchanged = if mixer.parts == 2 {
            let used = s.active.start * w..s.active.end * w;
            for (to, from) in exchanged[used.clone()]
                .chunks_exact_mut(2)
                .zip(s.dv[used].chunks_exact(2))
            {
                (to[0], to[1]) = (from[1], from[0]);
            }
            &exchanged[..]
        } else {
            &s.dv[..]
        };
        let kernel = (&mixer.lanes[..], mixer.reach, !self.frame.rightward);
        convolve(isa, kernel, [&s.dv, exchanged], s.active.clone(), dy, w);
        for (d, direction) in [along, against].into_iter().enumerate() {
            let (p, parts, row) = (direction.p, mixer.parts, mixer.reach + 1);
            if p == 0 {
                continue;
            }
            for c in 0..channels {
                let rows = Rows::new(&direction.readout, c * p * parts * row, parts * row);
                let out = RowsMut::new(read, 0, parts * row);
                let x = Left::rows(&states.entering[d], c * p, p);
                multiply(isa, [1, parts * row, p], x, rows, out, false);
                for part in 0..parts {
                    let line = &read[part * row..][..n];
                    let own = dy[c * parts + part..].iter_mut().step_by(w);
                    if d == 0 {
                        own.zip(line).for_each(|(y, r)| *y = *y + *r);
                    } else {
                        own.zip(line.iter().rev()).for_each(|(y, r)| *y = *y + *r);
                    }
                }
            }
        }
    }

    /// Features of the slice and of both segments.
    fn pool(&self, slice: &mut Slice<T>, changed: &Changed<T>) {
        let (line, layout) = (self.line, self.line.layout);
        let (h, w, all) = (layout.features, layout.padded, line.mixers.len());
        slice.change.fill(0.0);
        for j in 0..slice.n {
            let inside = changed.sites.contains(&j);
            let block = if inside {
                &changed.blocks[(j - changed.sites.start) * layout.size..][..layout.size]
            } else {
                &slice.blocks[j * layout.size..][..layout.size]
            };
            let out = &mut slice.dpooled[j * w..(j + 1) * w];
            if inside {
                out.copy_from_slice(&block[layout.constant..][..w]);
            } else {
                out.fill(T::default());
            }
            for &(k, at) in &layout.readout {
                let (from, s) = (&line.mixers[k], &slice.signals[k]);
                let dy = &s.dy[j * from.padded..][..from.padded];
                let sum = &mut slice.sum[..from.padded];
                let y = if inside {
                    total(&s.y[j * from.padded..], dy, sum);
                    sum
                } else {
                    dy
                };
                matrix(line.isa, block, at, (w, from.width), y, out);
            }
            if inside {
                let old = &slice.pooled[j * w..(j + 1) * w];
                out.iter_mut().zip(old).for_each(|(d, x)| *d = *d - *x);
            }
            for (sum, d) in slice.change.iter_mut().zip(&*out) {
                *sum += d.widened();
            }
        }
        for (segment, x, ports) in [
            (self.behind, &slice.into_behind, &self.frame.behind),
            (self.ahead, &slice.into_ahead, &self.frame.ahead),
        ] {
            if segment.len == 0 {
                continue;
            }
            let sum = &mut slice.sum[..h];
            sum.fill(T::default());
            let columns = ports.widths[all];
            // the constant column is kept in the segment's total
            apply_to(line.isa, &segment.features, columns, &x[..columns], sum);
            for (change, x) in slice.change.iter_mut().zip(sum) {
                *change += x.widened();
            }
        }
    }
}

fn total<T: Real>(x: &[T], dx: &[T], sum: &mut [T]) {
    for ((sum, x), dx) in sum.iter_mut().zip(x).zip(dx) {
        *sum = *x + *dx;
    }
}

/// `out += A x` with A stored by columns of `rows` numbers.
fn matrix<T: Real>(
    isa: Isa,
    block: &[T],
    at: usize,
    (rows, columns): (usize, usize),
    x: &[T],
    out: &mut [T],
) {
    let a = Rows::new(block, at, rows);
    let out = RowsMut::new(out, 0, rows);
    multiply(
        isa,
        [1, rows, columns],
        Left::rows(x, 0, columns),
        a,
        out,
        true,
    );
}

/// `y += diag(matrices) x`, matrices given transposed.
fn blocks<T: Real>(isa: Isa, channels: usize, p: usize, transposed: &[T], x: &[T], y: &mut [T]) {
    for c in 0..channels {
        let rows = Rows::new(transposed, c * p * p, p);
        let out = RowsMut::new(y, c * p, p);
        multiply(isa, [1, p, p], Left::rows(x, c * p, p), rows, out, true);
    }
}

/// The state a slice emits: `sum_j L^(n-1-j) B v[j]` along (`end` = n), or
/// `sum_j L^j B v[j]` against.
fn emit<T: Real>(
    isa: Isa,
    mixer: &MixerTables<T>,
    direction: &Direction<T>,
    v: &[T],
    active: Range<usize>,
    end: Option<usize>,
    out: &mut [T],
) {
    let (p, parts, w) = (direction.p, mixer.parts, mixer.padded);
    out[..direction.states].fill(T::default());
    if active.is_empty() {
        return;
    }
    let (first, step, power) = match end {
        Some(n) => (active.end - 1, -(w as isize), n - active.end),
        None => (active.start, w as isize, active.start),
    };
    for c in 0..mixer.channels {
        for part in 0..parts {
            let x = Left {
                data: v,
                origin: first * w + c * parts + part,
                row: 0,
                column: step,
            };
            let rows = Rows::new(
                &direction.inject,
                ((c * (mixer.reach + 1) + power) * parts + part) * p,
                parts * p,
            );
            let target = RowsMut::new(out, c * p, p);
            multiply(isa, [1, p, active.len()], x, rows, target, true);
        }
    }
}

const _: () = assert!(PAD.is_multiple_of(16), "rows are whole vectors");
