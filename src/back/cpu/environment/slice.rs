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

use super::coefficients::Flipped;
use super::links::{Links, Outside};
use super::mixer::{MixerTables, PAD};
use super::product::{Left, Rows, RowsMut, apply_to, convolve, multiply};
use super::segment::{Line, Ports, Window};
use super::vectors::{blocks, emit, matrix, total};
use crate::back::cpu::simd::Real;
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
    pub links: Links<T>,
    exchanged: Vec<T>,
    sum: Vec<T>,
    read: Vec<T>,
}

/// Where the coefficients of an affine value are in a site's block.
struct Affine<'a> {
    source: usize,
    vertices: &'a [(usize, usize)],
    /// What the source sees, and the vertices.
    windows: (Window, &'a [Window]),
    width: usize,
}

/// States of one mixer at the ends of the slice: along the way, against it.
struct States<T> {
    /// What the segments add, see [`Received`].
    received: Vec<T>,
    entering: [Vec<T>; 2],
    emitted: [Vec<T>; 2],
    leaving: [Vec<T>; 2],
}

/// Where the states of one mixer that come from the segments are, along and against:
/// entering the slice, and on a ring the segments' far ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub entering: [usize; 2],
    pub far: [usize; 2],
    pub size: usize,
}

impl Received {
    /// Of a mixer as seen by somebody who walks right, or left.
    pub fn of<T: Real>(mixer: &MixerTables<T>, rightward: bool, ring: bool) -> Received {
        let [a, b] = mixer.seen(rightward).map(|d| d.port);
        Received {
            entering: [0, a],
            far: [a + b, a + b + a],
            size: if ring { 2 * (a + b) } else { a + b },
        }
    }
}

/// The coefficients of a proposal: `blocks` for the sites in `sites`. If it is said
/// what was flipped, counted from the first of them, only those that see it are there.
#[derive(Clone)]
pub(super) struct Changed<'a, T> {
    pub blocks: &'a [T],
    pub sites: Range<usize>,
    pub flipped: Option<Flipped>,
}

impl<T> Changed<'_, T> {
    /// Whether a coefficient of a site of the slice may differ.
    fn sees(&self, window: Window, site: usize) -> bool {
        let own = |f: Flipped| f.seen(window, site - self.sites.start);
        self.sites.contains(&site) && self.flipped.is_none_or(own)
    }
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
                received: zeros(4 * states),
                entering: pair(),
                emitted: pair(),
                leaving: pair(),
            },
            links: Links::new(line, most),
            exchanged: zeros(most * width),
            sum: zeros(width.max(line.layout.padded)),
            read: zeros(lines),
        }
    }
}

/// A slice between its segments.
pub(super) struct Between<'a, T>(pub Outside<'a, T>);

impl<T: Real> Between<'_, T> {
    /// Computes the links and all signals of the current configuration; returns Omega
    /// without its constant in `slice.change`.
    pub fn settle(&self, slice: &mut Slice<T>) {
        let n = slice.n;
        slice.links.build(&self.0, n);
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
            flipped: None,
        };
        self.solve(slice, &changed, 0);
        self.accept(slice);
        slice.blocks = blocks;
        (slice.into_behind[0], slice.into_ahead[0]) = (T::default(), T::default());
        for segment in [self.0.behind, self.0.ahead] {
            for (sum, total) in slice.change.iter_mut().zip(&segment.total) {
                *sum += total;
            }
        }
    }

    /// The change of the features when coefficients change, in `slice.change`.
    pub fn propose(&self, slice: &mut Slice<T>, changed: &Changed<T>) {
        self.solve(slice, changed, 1);
    }

    /// Makes the last proposal current, except for `slice.blocks`.
    fn accept(&self, slice: &mut Slice<T>) {
        let add = |x: &mut [T], dx: &[T]| x.iter_mut().zip(dx).for_each(|(x, d)| *x = *x + *d);
        for (mixer, s) in self.0.line.mixers.iter().zip(&mut slice.signals) {
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
        let (line, layout) = (self.0.line, self.0.line.layout);
        let (size, windows) = (layout.size, &layout.windows);
        let mut copy = |start: usize, len: usize, window: Window| {
            for j in changed.sites.clone().filter(|&j| changed.sees(window, j)) {
                let new = &changed.blocks[(j - changed.sites.start) * size + start..][..len];
                slice.blocks[j * size + start..][..len].copy_from_slice(new);
            }
        };
        for (m, mixer) in line.mixers.iter().enumerate() {
            copy(layout.source[m], mixer.padded, windows.source[m]);
            for (&(k, at), &window) in layout.vertices[m].iter().zip(&windows.vertices[m]) {
                copy(at, mixer.padded * line.mixers[k].width, window);
            }
        }
        copy(layout.constant, layout.padded, windows.constant);
        for (&(k, at), &window) in layout.readout.iter().zip(&windows.readout) {
            copy(at, layout.padded * line.mixers[k].width, window);
        }
    }

    /// `first` is the first mixer whose states are followed: those before it act
    /// through links.
    fn solve(&self, slice: &mut Slice<T>, changed: &Changed<T>, first: usize) {
        for m in 0..self.0.line.mixers.len() {
            self.receive(m, slice, changed);
            self.mix(m, slice);
            if m >= first {
                self.come_back(m, slice, first);
                self.leave(m, slice);
            }
        }
        self.pool(slice, changed, first);
    }

    /// `Dv_m`.
    fn receive(&self, m: usize, slice: &mut Slice<T>, changed: &Changed<T>) {
        let layout = self.0.line.layout;
        let w = self.0.line.mixers[m].padded;
        let vertices = &layout.vertices[m];
        let (earlier, rest) = slice.signals.split_at_mut(m);
        let own = &mut rest[0];
        own.active = if vertices.is_empty() {
            changed.sites.clone()
        } else {
            0..slice.n
        };
        let value = Affine {
            source: layout.source[m],
            vertices,
            windows: (layout.windows.source[m], &layout.windows.vertices[m]),
            width: w,
        };
        for j in own.active.clone() {
            let (v, dv) = (&own.v[j * w..][..w], &mut own.dv[j * w..][..w]);
            let coefficients = (changed, &slice.blocks[..]);
            self.change(&value, j, coefficients, (earlier, &mut slice.sum), (v, dv));
        }
        if vertices.is_empty() {
            let silent = |j: usize| {
                own.dv[j * w..(j + 1) * w]
                    .iter()
                    .all(|x| *x == T::default())
            };
            let active = &mut own.active;
            while active.start < active.end && silent(active.start) {
                active.start += 1;
            }
            while active.start < active.end && silent(active.end - 1) {
                active.end -= 1;
            }
        }
    }

    /// The change of an affine value at site j of the slice, which was `old`.
    fn change(
        &self,
        value: &Affine,
        j: usize,
        (changed, current): (&Changed<T>, &[T]),
        (signals, sum): (&[Signals<T>], &mut [T]),
        (old, out): (&[T], &mut [T]),
    ) {
        let (line, size) = (self.0.line, self.0.line.layout.size);
        let inside = changed.sites.contains(&j);
        // compared with the old value as a whole, or coefficient by coefficient
        let whole = inside && changed.flipped.is_none();
        let block = |inside: bool| {
            if inside {
                &changed.blocks[(j - changed.sites.start) * size..][..size]
            } else {
                &current[j * size..][..size]
            }
        };
        if changed.sees(value.windows.0, j) {
            out.copy_from_slice(&block(true)[value.source..][..value.width]);
            if !whole {
                let old = &block(false)[value.source..][..value.width];
                out.iter_mut().zip(old).for_each(|(d, x)| *d = *d - *x);
            }
        } else {
            out.fill(T::default());
        }
        for (&(k, at), &window) in value.vertices.iter().zip(value.windows.1) {
            let (from, s) = (&line.mixers[k], &signals[k]);
            let (y, dy) = (&s.y[j * from.padded..], &s.dy[j * from.padded..]);
            let (y, dy) = (&y[..from.padded], &dy[..from.padded]);
            let (sum, shape) = (&mut sum[..from.padded], (value.width, from.width));
            let seen = changed.sees(window, j);
            if !seen {
                matrix(line.isa, block(false), at, shape, dy, out);
                continue;
            }
            total(y, dy, sum);
            matrix(line.isa, block(true), at, shape, sum, out);
            if !whole {
                sum.iter_mut()
                    .zip(y)
                    .for_each(|(x, y)| *x = T::default() - *y);
                matrix(line.isa, block(false), at, shape, sum, out);
            }
        }
        if whole {
            out.iter_mut().zip(old).for_each(|(d, x)| *d = *d - *x);
        }
    }

    /// What `Dv_m` does to `Dy_m` directly.
    fn mix(&self, m: usize, slice: &mut Slice<T>) {
        let mixer = &self.0.line.mixers[m];
        let (s, exchanged) = (&mut slice.signals[m], &mut slice.exchanged);
        let w = mixer.padded;
        let dy = &mut s.dy[..slice.n * w];
        dy.fill(T::default());
        let exchanged = if mixer.parts == 2 {
            for j in s.active.clone() {
                let (re, im) = s.dv[j * w..][..mixer.width].split_at(mixer.channels);
                let (to_re, to_im) = exchanged[j * w..][..mixer.width].split_at_mut(mixer.channels);
                to_re.copy_from_slice(im);
                to_im.copy_from_slice(re);
            }
            &exchanged[..]
        } else {
            &s.dv[..]
        };
        let kernel = (&mixer.lanes[..], mixer.reach, !self.0.frame.rightward);
        convolve(
            self.0.line.isa,
            kernel,
            [&s.dv, exchanged],
            s.active.clone(),
            dy,
            w,
        );
    }

    /// States that come back from the segments, and what they do to `Dy_m`.
    fn come_back(&self, m: usize, slice: &mut Slice<T>, first: usize) {
        let Outside {
            line,
            frame,
            behind,
            ahead,
        } = self.0;
        let (isa, n, mixer) = (line.isa, slice.n, &line.mixers[m]);
        let directions = mixer.seen(frame.rightward);
        let at = Received::of(mixer, frame.rightward, line.ring);
        let states = &mut slice.states;
        let received = &mut states.received[..at.size];
        received.fill(T::default());
        if first > 0 {
            let (source, s) = (&line.mixers[0], &slice.signals[0]);
            let (start, end) = (s.active.start * source.padded, s.active.end * source.padded);
            let links = Rows::new(&slice.links.states[m], start * at.size, at.size);
            let inputs = Left::rows(&s.dv, start, end - start);
            let out = RowsMut::new(received, 0, at.size);
            multiply(isa, [1, at.size, end - start], inputs, links, out, true);
        }
        let sizes = directions.map(|d| d.states);
        let mut add = |matrix: &[T], ports: &Ports, x: &[T], at: usize, rows: usize| {
            let start = if first > 0 { ports.widths[first] } else { 0 };
            let (start, end) = (start.min(ports.widths[m]), ports.widths[m]);
            if start < end && rows > 0 {
                let out = &mut received[at..at + rows];
                apply_to(isa, &matrix[start..], end, &x[start..end], out);
            }
        };
        let (xb, xa) = (&slice.into_behind, &slice.into_ahead);
        add(&behind.out[m], &frame.behind, xb, at.entering[0], sizes[0]);
        add(&ahead.out[m], &frame.ahead, xa, at.entering[1], sizes[1]);
        if line.ring {
            add(&ahead.far[m], &frame.ahead, xa, at.far[0], sizes[0]);
            add(&behind.far[m], &frame.behind, xb, at.far[1], sizes[1]);
        }
        let dy = &mut slice.signals[m].dy[..n * mixer.padded];
        for (d, direction) in directions.into_iter().enumerate() {
            let (p, channels) = (direction.p, mixer.channels);
            let entering = &mut states.entering[d][..sizes[d]];
            let from = &received[at.entering[d]..][..sizes[d]];
            if line.ring {
                entering.fill(T::default());
                blocks(isa, channels, p, &direction.closure, from, entering);
                let far = &received[at.far[d]..][..sizes[d]];
                blocks(isa, channels, p, &slice.links.carried[m][d], far, entering);
            } else {
                entering.copy_from_slice(from);
            }
            let (parts, row) = (mixer.parts, mixer.parts * (mixer.reach + 1));
            if p == 0 {
                continue;
            }
            for c in 0..channels {
                let table = Rows::new(&direction.readout, c * p * row, row);
                let line = &mut slice.read[..parts * n];
                let x = Left::rows(entering, c * p, p);
                multiply(
                    isa,
                    [1, parts * n, p],
                    x,
                    table,
                    RowsMut::new(line, 0, row),
                    false,
                );
                for (j, read) in line.chunks_exact(parts).enumerate() {
                    let j = if d == 0 { j } else { n - 1 - j };
                    let y = dy[j * mixer.padded + c..].iter_mut().step_by(channels);
                    y.zip(read).for_each(|(y, r)| *y = *y + *r);
                }
            }
        }
    }

    /// States that leave the slice, into both segments.
    fn leave(&self, m: usize, slice: &mut Slice<T>) {
        let Outside {
            line,
            frame,
            behind,
            ahead,
        } = self.0;
        let (isa, n, mixer) = (line.isa, slice.n, &line.mixers[m]);
        let directions = mixer.seen(frame.rightward);
        let at = Received::of(mixer, frame.rightward, line.ring);
        let (states, s) = (&mut slice.states, &slice.signals[m]);
        let (xb, xa) = (&mut slice.into_behind, &mut slice.into_ahead);
        for (d, direction) in directions.into_iter().enumerate() {
            let (p, size) = (direction.p, direction.states);
            let end = (d == 0).then_some(n);
            let emitted = &mut states.emitted[d];
            emit(isa, mixer, direction, &s.dv, s.active.clone(), end, emitted);
            let leaving = &mut states.leaving[d][..size];
            if line.ring {
                leaving.fill(T::default());
                blocks(isa, mixer.channels, p, &direction.closure, emitted, leaving);
            } else {
                leaving.copy_from_slice(&emitted[..size]);
            }
            let power = &direction.transposed[n];
            blocks(isa, mixer.channels, p, power, &states.entering[d], leaving);
            let (near, far) = if d == 0 {
                (&mut xa[frame.ahead.near[m]..], frame.behind.far[m])
            } else {
                (&mut xb[frame.behind.near[m]..], frame.ahead.far[m])
            };
            near[..size].copy_from_slice(leaving);
            if line.ring {
                let (far, after) = if d == 0 {
                    (&mut xb[far..far + size], &ahead.through[m][3])
                } else {
                    (&mut xa[far..far + size], &behind.through[m][3])
                };
                far.copy_from_slice(&states.received[at.far[d]..][..size]);
                blocks(isa, mixer.channels, p, after, leaving, far);
            }
        }
    }

    /// Features of the slice and of both segments.
    fn pool(&self, slice: &mut Slice<T>, changed: &Changed<T>, first: usize) {
        let (line, layout) = (self.0.line, self.0.line.layout);
        let (h, w, all) = (layout.features, layout.padded, line.mixers.len());
        slice.change.fill(0.0);
        let value = Affine {
            source: layout.constant,
            vertices: &layout.readout,
            windows: (layout.windows.constant, &layout.windows.readout),
            width: w,
        };
        for j in 0..slice.n {
            let (x, dx) = (
                &slice.pooled[j * w..][..w],
                &mut slice.dpooled[j * w..][..w],
            );
            let coefficients = (changed, &slice.blocks[..]);
            let signals = (&slice.signals[..], &mut slice.sum[..]);
            self.change(&value, j, coefficients, signals, (x, dx));
            for (sum, d) in slice.change.iter_mut().zip(&*dx) {
                *sum += d.widened();
            }
        }
        let frame = self.0.frame;
        let sum = &mut slice.sum[..w];
        sum.fill(T::default());
        if first > 0 {
            let (source, s) = (&line.mixers[0], &slice.signals[0]);
            let (start, end) = (s.active.start * source.padded, s.active.end * source.padded);
            let links = Rows::new(&slice.links.features, start * w, w);
            let inputs = Left::rows(&s.dv, start, end - start);
            let out = RowsMut::new(sum, 0, w);
            multiply(line.isa, [1, w, end - start], inputs, links, out, true);
        }
        for (segment, x, ports) in [
            (self.0.behind, &slice.into_behind, &frame.behind),
            (self.0.ahead, &slice.into_ahead, &frame.ahead),
        ] {
            let start = if first > 0 { ports.widths[first] } else { 0 };
            // the constant column is kept in the segment's total
            let (x, columns) = (&x[start..ports.widths[all]], ports.widths[all]);
            if !x.is_empty() {
                apply_to(
                    line.isa,
                    &segment.features[start..],
                    columns,
                    x,
                    &mut sum[..h],
                );
            }
        }
        for (change, x) in slice.change.iter_mut().zip(sum) {
            *change += x.widened();
        }
    }
}

const _: () = assert!(PAD.is_multiple_of(16), "rows are whole vectors");
