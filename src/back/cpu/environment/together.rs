//! Many changes of one configuration at once.
//!
//! Nothing is accepted, so the changes of a block share its signals, links and
//! segments. What `slice` does for one of them is done here for several side by side,
//! one lane each: matrices are read once for all lanes, and what was a vector is a
//! row of lanes. Where only some lanes have other coefficients,
//!
//! ```text
//! Dv_m[j] = sum_k A_mk Dy_k  +  DS_m + sum_k DA_mk ( y_k + Dy_k )
//!           all lanes           lanes whose change is seen from j
//! ```

use super::links::Outside;
use super::mixer::Direction;
use super::product::{Left, Rows, RowsMut, multiply};
use super::segment::{Line, Ports, Window};
use super::slice::{Changed, Frame, Received, Slice, matrix};
use crate::back::cpu::simd::{Isa, Real};
use std::ops::Range;

/// Changes side by side: a whole number of vectors.
pub(super) const LANES: usize = 16;

/// Signals and states of all lanes, rows of [`LANES`] numbers.
pub(super) struct Together<T> {
    /// Per mixer, rows (site, component).
    dv: Vec<Vec<T>>,
    dy: Vec<Vec<T>>,
    /// Features of one site.
    pooled: Vec<T>,
    /// Rows: columns of the segments.
    into_behind: Vec<T>,
    into_ahead: Vec<T>,
    /// Rows as in [`Received`].
    received: Vec<T>,
    /// Along the way, against it.
    entering: [Vec<T>; 2],
    emitted: Vec<T>,
    leaving: Vec<T>,
    sum: Vec<T>,
    /// Changes of the features, by lane.
    pub change: Vec<[f64; LANES]>,
}

impl<T: Real> Together<T> {
    /// For slices of up to `most` sites.
    pub fn new(line: &Line<T>, frame: &Frame, most: usize) -> Together<T> {
        let rows = |n: usize| vec![T::default(); n * LANES];
        let signals = || line.mixers.iter().map(|m| rows(most * m.padded)).collect();
        let all = line.mixers.len();
        let states = line.mixers.iter().map(|m| m.right.port.max(m.left.port));
        let states = states.max().unwrap_or(0);
        let width = line.mixers.iter().map(|m| m.padded).max().unwrap_or(0);
        Together {
            dv: signals(),
            dy: signals(),
            pooled: rows(line.layout.features),
            into_behind: rows(frame.behind.widths[all]),
            into_ahead: rows(frame.ahead.widths[all]),
            received: rows(4 * states),
            entering: [rows(states), rows(states)],
            emitted: rows(states),
            leaving: rows(states),
            sum: vec![T::default(); 2 * width.max(line.layout.padded)],
            change: vec![[0.0; LANES]; line.layout.features],
        }
    }
}

/// A settled slice between its segments, and changes of it.
pub(super) struct Changes<'a, T: Real> {
    pub outside: Outside<'a, T>,
    pub slice: &'a Slice<T>,
    /// At most [`LANES`].
    pub changed: &'a [Changed<'a, T>],
}

/// Where the coefficients of an affine value are, and what they see.
struct Value<'a> {
    source: (usize, Window),
    vertices: &'a [(usize, usize)],
    windows: &'a [Window],
    /// Components, padded and not.
    width: [usize; 2],
}

impl<T: Real> Changes<'_, T> {
    /// The changes of the features, in `t.change`.
    pub fn solve(&self, t: &mut Together<T>) {
        let n = self.slice.n;
        let mut first = 0..n;
        for m in 0..self.outside.line.mixers.len() {
            let active = self.receive(m, t);
            self.mix(m, active.clone(), t);
            if m == 0 {
                first = active;
            } else {
                self.come_back(m, first.clone(), t);
                self.leave(m, active, t);
            }
        }
        self.pool(first, t);
    }

    /// `Dv_m`; returns the sites where it need not vanish.
    fn receive(&self, m: usize, t: &mut Together<T>) -> Range<usize> {
        let (line, n) = (self.outside.line, self.slice.n);
        let (layout, mixer) = (line.layout, &line.mixers[m]);
        let w = mixer.padded;
        let value = Value {
            source: (layout.source[m], layout.windows.source[m]),
            vertices: &layout.vertices[m],
            windows: &layout.windows.vertices[m],
            width: [w, mixer.width],
        };
        let mut active = 0..n;
        if value.vertices.is_empty() {
            let seen = |j: &usize| self.changed.iter().any(|c| c.sees(value.source.1, *j));
            let start = (0..n).find(seen).unwrap_or(0);
            active = start..(start..n).rfind(seen).map_or(start, |j| j + 1);
        }
        let Together { dv, dy, sum, .. } = t;
        dv[m][..n * w * LANES].fill(T::default());
        for j in active.clone() {
            let out = &mut dv[m][j * w * LANES..(j + 1) * w * LANES];
            self.value(&value, j, dy, sum, out);
        }
        active
    }

    /// The change of an affine value at site j in all lanes, added to `out`.
    fn value(&self, value: &Value, j: usize, dy: &[Vec<T>], sum: &mut [T], out: &mut [T]) {
        let (line, size) = (self.outside.line, self.outside.line.layout.size);
        let [padded, width] = value.width;
        let old = &self.slice.blocks[j * size..][..size];
        for &(k, at) in value.vertices {
            let from = &line.mixers[k];
            let a = Left {
                data: old,
                origin: at,
                row: 1,
                column: padded as isize,
            };
            let signals = Rows::new(&dy[k], j * from.padded * LANES, LANES);
            let out = RowsMut::new(out, 0, LANES);
            multiply(line.isa, [width, LANES, from.width], a, signals, out, true);
        }
        for (lane, changed) in self.changed.iter().enumerate() {
            if !changed.sites.contains(&j) {
                continue;
            }
            let new = &changed.blocks[(j - changed.sites.start) * size..][..size];
            let (start, window) = value.source;
            if changed.sees(window, j) {
                let pairs = new[start..].iter().zip(&old[start..]);
                let lanes = out[lane..].iter_mut().step_by(LANES).take(width);
                lanes.zip(pairs).for_each(|(d, (x, y))| *d = *d + *x - *y);
            }
            for (&(k, at), &window) in value.vertices.iter().zip(value.windows) {
                if !changed.sees(window, j) {
                    continue;
                }
                let from = &line.mixers[k];
                let (x, d) = sum.split_at_mut(from.padded);
                let (x, d) = (&mut x[..from.width], &mut d[..padded]);
                let y = &self.slice.signals[k].y[j * from.padded..];
                let lanes = dy[k][j * from.padded * LANES + lane..].iter();
                let lanes = lanes.step_by(LANES);
                for ((x, y), dy) in x.iter_mut().zip(y).zip(lanes) {
                    *x = *y + *dy;
                }
                d.fill(T::default());
                matrix(line.isa, new, at, (padded, from.width), x, d);
                x.iter_mut().for_each(|x| *x = T::default() - *x);
                matrix(line.isa, old, at, (padded, from.width), x, d);
                let lanes = out[lane..].iter_mut().step_by(LANES).take(width);
                lanes.zip(&*d).for_each(|(out, d)| *out = *out + *d);
            }
        }
    }

    /// What `Dv_m` does to `Dy_m` directly.
    fn mix(&self, m: usize, active: Range<usize>, t: &mut Together<T>) {
        let (line, n) = (self.outside.line, self.slice.n);
        let mixer = &line.mixers[m];
        let w = mixer.padded;
        let (dv, dy) = (&t.dv[m], &mut t.dy[m]);
        dy[..n * w * LANES].fill(T::default());
        let forward: isize = if self.outside.frame.rightward { 1 } else { -1 };
        // from one displacement to the next
        let step = forward * (2 * w) as isize;
        for to in 0..mixer.width {
            for part in 0..mixer.parts {
                let from = (to + part * mixer.channels) % mixer.width;
                let zero = (mixer.reach * 2 + part) * w + to;
                let kernel = Left {
                    data: &mixer.lanes,
                    origin: (zero as isize - active.start as isize * step) as usize,
                    row: step,
                    column: -step,
                };
                let signal = Rows::new(dv, (active.start * w + from) * LANES, w * LANES);
                let out = RowsMut::new(dy, to * LANES, w * LANES);
                let shape = [n, LANES, active.len()];
                multiply(line.isa, shape, kernel, signal, out, true);
            }
        }
    }

    /// States that come back from the segments, and what they do to `Dy_m`; `first`
    /// are the sites where the first mixer's input changes.
    fn come_back(&self, m: usize, first: Range<usize>, t: &mut Together<T>) {
        let Outside {
            line,
            frame,
            behind,
            ahead,
        } = self.outside;
        let (isa, n, mixer) = (line.isa, self.slice.n, &line.mixers[m]);
        let directions = mixer.seen(frame.rightward);
        let at = Received::of(mixer, frame.rightward, line.ring);
        let source = line.mixers[0].padded;
        let links = Left {
            data: &self.slice.links.states[m],
            origin: first.start * source * at.size,
            row: 1,
            column: at.size as isize,
        };
        let inputs = Rows::new(&t.dv[0], first.start * source * LANES, LANES);
        let out = RowsMut::new(&mut t.received, 0, LANES);
        let shape = [at.size, LANES, first.len() * source];
        multiply(isa, shape, links, inputs, out, false);
        let sizes = directions.map(|d| d.states);
        let received = &mut t.received;
        let mut add = |matrix: &[T], ports: &Ports, x: &[T], at: usize, rows: usize| {
            let (start, end) = (ports.widths[1], ports.widths[m]);
            let a = Left::rows(matrix, start, end);
            let x = Rows::new(x, start * LANES, LANES);
            let out = RowsMut::new(received, at * LANES, LANES);
            if start < end {
                multiply(isa, [rows, LANES, end - start], a, x, out, true);
            }
        };
        let (xb, xa) = (&t.into_behind, &t.into_ahead);
        add(&behind.out[m], &frame.behind, xb, at.entering[0], sizes[0]);
        add(&ahead.out[m], &frame.ahead, xa, at.entering[1], sizes[1]);
        if line.ring {
            add(&ahead.far[m], &frame.ahead, xa, at.far[0], sizes[0]);
            add(&behind.far[m], &frame.behind, xb, at.far[1], sizes[1]);
        }
        for (d, direction) in directions.into_iter().enumerate() {
            let (p, channels, parts) = (direction.p, mixer.channels, mixer.parts);
            if p == 0 {
                continue;
            }
            let from = &t.received[at.entering[d] * LANES..][..sizes[d] * LANES];
            let entering = &mut t.entering[d];
            if line.ring {
                entering[..sizes[d] * LANES].fill(T::default());
                blocks(isa, channels, p, &direction.closure, from, entering);
                let far = &t.received[at.far[d] * LANES..][..sizes[d] * LANES];
                let carried = &self.slice.links.carried[m][d];
                blocks(isa, channels, p, carried, far, entering);
            } else {
                entering[..sizes[d] * LANES].copy_from_slice(from);
            }
            let row = parts * (mixer.reach + 1);
            let forward: isize = if d == 0 { 1 } else { -1 };
            let nearest = if d == 0 { 0 } else { (n - 1) * parts };
            for (c, part) in (0..channels).flat_map(|c| (0..parts).map(move |k| (c, k))) {
                let table = Left {
                    data: &direction.readout,
                    origin: c * p * row + nearest + part,
                    row: forward * parts as isize,
                    column: row as isize,
                };
                let states = Rows::new(entering, c * p * LANES, LANES);
                let component = part * channels + c;
                let y = RowsMut::new(&mut t.dy[m], component * LANES, mixer.padded * LANES);
                multiply(isa, [n, LANES, p], table, states, y, true);
            }
        }
    }

    /// States that leave the slice, into both segments.
    fn leave(&self, m: usize, active: Range<usize>, t: &mut Together<T>) {
        let Outside {
            line,
            frame,
            behind,
            ahead,
        } = self.outside;
        let (isa, n, mixer) = (line.isa, self.slice.n, &line.mixers[m]);
        let directions = mixer.seen(frame.rightward);
        let at = Received::of(mixer, frame.rightward, line.ring);
        let (xb, xa) = (&mut t.into_behind, &mut t.into_ahead);
        for (d, direction) in directions.into_iter().enumerate() {
            let (p, size) = (direction.p, direction.states * LANES);
            let emitted = &mut t.emitted[..size];
            emitted.fill(T::default());
            for c in 0..mixer.channels {
                for part in 0..mixer.parts {
                    let inject = self.injected(m, direction, (c, part), d, &active);
                    let component = part * mixer.channels + c;
                    let start = (active.start * mixer.padded + component) * LANES;
                    let signal = Rows::new(&t.dv[m], start, mixer.padded * LANES);
                    let out = RowsMut::new(emitted, c * p * LANES, LANES);
                    multiply(isa, [p, LANES, active.len()], inject, signal, out, true);
                }
            }
            let leaving = &mut t.leaving[..size];
            if line.ring {
                leaving.fill(T::default());
                blocks(isa, mixer.channels, p, &direction.closure, emitted, leaving);
            } else {
                leaving.copy_from_slice(emitted);
            }
            let power = &direction.transposed[n];
            blocks(isa, mixer.channels, p, power, &t.entering[d], leaving);
            let (near, far) = if d == 0 {
                (&mut xa[frame.ahead.near[m] * LANES..], frame.behind.far[m])
            } else {
                (&mut xb[frame.behind.near[m] * LANES..], frame.ahead.far[m])
            };
            near[..size].copy_from_slice(leaving);
            if line.ring {
                let (into, after) = if d == 0 {
                    (&mut *xb, &ahead.through[m][3])
                } else {
                    (&mut *xa, &behind.through[m][3])
                };
                let far = &mut into[far * LANES..][..size];
                far.copy_from_slice(&t.received[at.far[d] * LANES..][..size]);
                blocks(isa, mixer.channels, p, after, leaving, far);
            }
        }
    }

    /// `L^power B` of the active sites: to the end of the slice along the way (d = 0),
    /// or to its start.
    fn injected<'d>(
        &self,
        m: usize,
        direction: &'d Direction<T>,
        (c, part): (usize, usize),
        d: usize,
        active: &Range<usize>,
    ) -> Left<'d, T> {
        let mixer = &self.outside.line.mixers[m];
        let (p, parts) = (direction.p, mixer.parts);
        let (power, step) = if d == 0 {
            (self.slice.n - 1 - active.start, -1)
        } else {
            (active.start, 1)
        };
        Left {
            data: &direction.inject,
            origin: ((c * (mixer.reach + 1) + power) * parts + part) * p,
            row: 1,
            column: step * (parts * p) as isize,
        }
    }

    /// Features of the slice and of both segments.
    fn pool(&self, first: Range<usize>, t: &mut Together<T>) {
        let Outside {
            line,
            frame,
            behind,
            ahead,
        } = self.outside;
        let (layout, isa) = (line.layout, line.isa);
        let (h, w, all) = (layout.features, layout.padded, line.mixers.len());
        let value = Value {
            source: (layout.constant, layout.windows.constant),
            vertices: &layout.readout,
            windows: &layout.windows.readout,
            width: [w, h],
        };
        let Together {
            dv,
            dy,
            pooled,
            sum,
            change,
            into_behind,
            into_ahead,
            ..
        } = t;
        change.fill([0.0; LANES]);
        let mut add = |pooled: &[T]| {
            for (change, row) in change.iter_mut().zip(pooled.chunks_exact(LANES)) {
                let lanes = change.iter_mut().zip(row);
                lanes.for_each(|(sum, x)| *sum += x.widened());
            }
        };
        for j in 0..self.slice.n {
            pooled.fill(T::default());
            self.value(&value, j, dy, sum, pooled);
            add(pooled);
        }
        let source = line.mixers[0].padded;
        let links = Left {
            data: &self.slice.links.features,
            origin: first.start * source * w,
            row: 1,
            column: w as isize,
        };
        let inputs = Rows::new(&dv[0], first.start * source * LANES, LANES);
        let shape = [h, LANES, first.len() * source];
        let out = RowsMut::new(pooled, 0, LANES);
        multiply(isa, shape, links, inputs, out, false);
        for (segment, x, ports) in [
            (behind, &*into_behind, &frame.behind),
            (ahead, &*into_ahead, &frame.ahead),
        ] {
            let (start, end) = (ports.widths[1], ports.widths[all]);
            if start < end {
                let a = Left::rows(&segment.features, start, end);
                let x = Rows::new(x, start * LANES, LANES);
                let out = RowsMut::new(pooled, 0, LANES);
                multiply(isa, [h, LANES, end - start], a, x, out, true);
            }
        }
        add(pooled);
    }
}

/// `y += diag(matrices) x` in all lanes, matrices given transposed.
fn blocks<T: Real>(isa: Isa, channels: usize, p: usize, transposed: &[T], x: &[T], y: &mut [T]) {
    for c in 0..channels {
        let a = Left {
            data: transposed,
            origin: c * p * p,
            row: 1,
            column: p as isize,
        };
        let rows = Rows::new(x, c * p * LANES, LANES);
        let out = RowsMut::new(y, c * p * LANES, LANES);
        multiply(isa, [p, LANES, p], a, rows, out, true);
    }
}
