//! Passing a few more sites at the growing end of a segment.
//!
//! With n sites at once, numbered away from the segment,
//!
//! ```text
//! v_m[j]  = S_m[j] + sum_k A_mk[j] y_k[j]
//! near_m <- L^n near_m + N_m,    N_m = sum_j L^j B v_m[j]
//! O_m    <- L^n ( O_m with near replaced ) + sum_j L^(n-1-j) B v_m[j]
//! y_m[j]  = sum_j' G_m(j-j') v_m[j'] + C L^(j+1) O_m + C L^(n-1-j+1) near_m
//! ```
//!
//! where every signal is a row of columns (1, near_0, far_0, ..): all of it is
//! products of small matrices with long rows. The columns of a mixer's own ports in
//! `y_m` are the tables themselves and never written down. Few features read many
//! signals, so they are pulled back through the step instead:
//! `Omega += g O_m + sum_j h[j] v_m[j]` with small g and h.

use super::mixer::{Direction, MixerTables, PAD};
use super::product::{Left, Rows, RowsMut, apply_to, multiply, sum};
use super::segment::{Line, Ports, Segment};
use crate::back::cpu::simd::Real;

/// Memory for one growing step.
pub(super) struct Scratch<T> {
    /// Rows (site, component), columns of mixer m's rows.
    v: Vec<Vec<T>>,
    y: Vec<Vec<T>>,
    /// `O_m` seen from the new end, without its last far columns, which stay.
    seen: Vec<Vec<T>>,
    /// `N_m`, and its column of constants by itself.
    emitted: Vec<Vec<T>>,
    constant: Vec<Vec<T>>,
    /// Ring: `C L^(j+1)` of a state that came through the segment.
    read: Vec<Vec<T>>,
    /// Ring: `L^j B` on its way through.
    inject: Vec<T>,
    /// Features pulled back: onto states, onto inputs, and their near ports.
    states: Vec<T>,
    inputs: Vec<T>,
    ports: Vec<T>,
    sums: Vec<T>,
}

impl<T: Real> Scratch<T> {
    /// For segments that grow one way.
    pub fn new(line: &Line<T>, ports: &Ports, rightward: bool) -> Scratch<T> {
        let zeros = |n: usize| vec![T::default(); n];
        let (mut states, mut inputs, mut inject) = (0, 0, 0);
        let mut scratch = Scratch {
            v: Vec::new(),
            y: Vec::new(),
            seen: Vec::new(),
            emitted: Vec::new(),
            constant: Vec::new(),
            read: Vec::new(),
            inject: Vec::new(),
            states: Vec::new(),
            inputs: Vec::new(),
            ports: Vec::new(),
            sums: Vec::new(),
        };
        for (m, mixer) in line.mixers.iter().enumerate() {
            let [along, against] = mixer.seen(rightward);
            let (rows, x) = (mixer.width * line.step, ports.widths[m]);
            scratch.v.push(zeros(rows * x));
            scratch.y.push(zeros(rows * x));
            scratch.seen.push(zeros(along.states * x));
            scratch.emitted.push(zeros(against.states * x));
            scratch.constant.push(zeros(against.states));
            scratch.read.push(zeros(rows * along.p));
            states = states.max(along.states).max(against.states);
            inputs = inputs.max(rows);
            inject = inject.max(rows * against.p);
        }
        let wide = line.layout.padded;
        scratch.inject = zeros(inject);
        scratch.states = zeros(states * wide);
        scratch.ports = zeros(states * wide);
        scratch.inputs = zeros(inputs * wide);
        scratch.sums = zeros(states.max(line.layout.features));
        scratch
    }
}

/// One growing step: n sites, in order of growth.
pub(super) struct Step<'a, T> {
    pub line: &'a Line<'a, T>,
    pub ports: &'a Ports,
    pub rightward: bool,
    /// Coefficients, one block after the other.
    pub blocks: &'a [T],
    pub n: usize,
}

impl<T: Real> Step<'_, T> {
    /// `new` = `old` with the sites added; both have the same size, `new` holds
    /// anything.
    pub fn extend(&self, old: &Segment<T>, new: &mut Segment<T>, s: &mut Scratch<T>) {
        let (line, last) = (self.line, self.line.mixers.len() - 1);
        for (m, mixer) in line.mixers.iter().enumerate() {
            let [along, against] = mixer.seen(self.rightward);
            self.receive(m, s);
            let mut seen = std::mem::take(&mut s.seen[m]);
            self.substitute(m, along.states, &old.out[m], &mut seen, s);
            s.seen[m] = seen;
            self.advance(m, along, &old.out[m], s, &mut new.out[m]);
            if line.ring {
                self.substitute(m, against.states, &old.far[m], &mut new.far[m], s);
                let stay = self.last_far(m);
                let rows = old.far[m].chunks_exact(stay.end.max(1));
                for (new, old) in new.far[m].chunks_exact_mut(stay.end.max(1)).zip(rows) {
                    new[stay.clone()].copy_from_slice(&old[stay.clone()]);
                }
                self.arrive(m, against, &old.through[m][3], &mut new.far[m], s);
                let (d, a) = old.through[m].split_at(2);
                let (new_d, new_a) = new.through[m].split_at_mut(2);
                self.pass(mixer.channels, along, d, new_d);
                self.pass(mixer.channels, against, a, new_a);
            }
            if m < last {
                self.respond(m, along, &old.out[m], s);
                self.emit(m, against, s);
                if line.ring {
                    self.come_through(m, along, &old.through[m][0], s);
                }
            }
        }
        self.pool(old, new, s);
        new.len = old.len + self.n;
    }

    /// Rows of the signal of one channel: (site, part).
    fn channel<'v>(&self, v: &'v [T], m: usize, c: usize) -> Rows<'v, T> {
        let (mixer, x) = (&self.line.mixers[m], self.ports.widths[m]);
        Rows::new(v, c * x, mixer.channels * x)
    }

    /// `v_m`: sources, and vertices acting on earlier mixers.
    fn receive(&self, m: usize, s: &mut Scratch<T>) {
        let (line, n) = (self.line, self.n);
        let (mixer, x) = (&line.mixers[m], self.ports.widths[m]);
        let (isa, layout) = (line.isa, line.layout);
        let v = &mut s.v[m];
        let vertices = &layout.vertices[m];
        for j in 0..n {
            let block = &self.blocks[j * layout.size..][..layout.size];
            let rows = &mut v[j * mixer.width * x..(j + 1) * mixer.width * x];
            let source = &block[layout.source[m]..][..mixer.width];
            for (row, value) in rows.chunks_exact_mut(x).zip(source) {
                row[..PAD].fill(T::default());
                row[0] = *value;
            }
            // the states of mixer k itself enter through k alone, so far
            for (k, from) in line.mixers[..m].iter().enumerate() {
                let ports = self.ports.widths[k]..self.ports.widths[k + 1];
                let Some(&(_, at)) = vertices.iter().find(|v| v.0 == k) else {
                    for row in rows.chunks_exact_mut(x) {
                        row[ports.clone()].fill(T::default());
                    }
                    continue;
                };
                let [along, against] = from.seen(self.rightward);
                let stretch = from.reach + 1;
                let sides = [
                    (
                        against,
                        &against.read,
                        stretch,
                        n - 1 - j,
                        self.ports.near[k],
                    ),
                    (along, &s.read[k], n, j, self.ports.far[k]),
                ];
                for (d, read, stretch, j, port) in &sides[..if line.ring { 2 } else { 1 }] {
                    let p = d.p;
                    for c in 0..from.channels {
                        let a = Left {
                            data: block,
                            origin: at + c * mixer.padded,
                            row: 1,
                            column: (from.channels * mixer.padded) as isize,
                        };
                        let read = Rows::new(read, (c * stretch + j) * from.parts * p, p);
                        let out = RowsMut::new(rows, port + c * p, x);
                        multiply(isa, [mixer.width, p, from.parts], a, read, out, false);
                    }
                }
            }
            for &(k, at) in vertices {
                let (from, wide) = (&line.mixers[k], self.ports.widths[k]);
                let a = Left {
                    data: block,
                    origin: at,
                    row: 1,
                    column: mixer.padded as isize,
                };
                let y = Rows::new(&s.y[k], j * from.width * wide, wide);
                let out = RowsMut::new(rows, 0, x);
                multiply(isa, [mixer.width, wide, from.width], a, y, out, true);
            }
        }
    }

    /// The columns of mixer m's rows that no new site changes: the far port of the
    /// mixer before it.
    fn last_far(&self, m: usize) -> std::ops::Range<usize> {
        let end = self.ports.widths[m];
        m.checked_sub(1).map_or(end, |k| self.ports.far[k])..end
    }

    /// `O_m` of a channel seen from the new end, by column ranges: first column,
    /// number of columns, rows.
    fn seen<'v>(
        &self,
        m: usize,
        first: usize,
        (seen, old): (&'v [T], &'v [T]),
    ) -> [(usize, usize, Rows<'v, T>); 2] {
        let (stay, x) = (self.last_far(m), self.ports.widths[m]);
        [
            (0, stay.start, Rows::new(seen, first * x, x)),
            (
                stay.start,
                stay.len(),
                Rows::new(old, first * x + stay.start, x),
            ),
        ]
    }

    /// Rows of mixer m seen from the new growing end, without the columns that stay.
    fn substitute(&self, m: usize, count: usize, old: &[T], new: &mut [T], s: &mut Scratch<T>) {
        let (isa, x) = (self.line.isa, self.ports.widths[m]);
        let rows = || (0..count).map(|r| r * x);
        rows().for_each(|r| new[r..r + PAD].copy_from_slice(&old[r..r + PAD]));
        for (k, mixer) in self.line.mixers[..m].iter().enumerate() {
            let (near, far) = (self.ports.near[k], self.ports.far[k]);
            let [_, against] = mixer.seen(self.rightward);
            let p = against.p;
            for c in 0..mixer.channels {
                let power = Rows::new(&against.powers[self.n], c * p * p, p);
                let out = RowsMut::new(new, near + c * p, x);
                let a = Left::rows(old, near + c * p, x);
                multiply(isa, [count, p, p], a, power, out, false);
            }
            if k + 1 == m {
                continue;
            }
            let kept = far..self.ports.widths[k + 1];
            rows().for_each(|r| {
                new[r + kept.start..r + kept.end]
                    .copy_from_slice(&old[r + kept.start..r + kept.end]);
            });
        }
        for k in 0..m {
            let (near, wide) = (self.ports.near[k], self.ports.widths[k]);
            let [_, against] = self.line.mixers[k].seen(self.rightward);
            // most columns before the first port are padding
            let sums = &mut s.sums[..count];
            sums.fill(T::default());
            let first = &old[near.min(old.len())..];
            apply_to(isa, first, x, &s.constant[k][..against.states], sums);
            rows()
                .zip(&*sums)
                .for_each(|(r, sum)| new[r] = new[r] + *sum);
            let emitted = Rows::new(&s.emitted[k], PAD, wide);
            let out = RowsMut::new(new, PAD, x);
            let a = Left::rows(old, near, x);
            multiply(
                isa,
                [count, wide - PAD, against.states],
                a,
                emitted,
                out,
                true,
            );
        }
    }

    /// `O_m <- L^n O_m + sum_j L^(n-1-j) B v[j]`.
    fn advance(&self, m: usize, along: &Direction<T>, old: &[T], s: &Scratch<T>, out: &mut [T]) {
        let (mixer, x) = (&self.line.mixers[m], self.ports.widths[m]);
        let (p, inputs) = (along.p, mixer.parts * self.n);
        for c in 0..mixer.channels {
            let power = Left::rows(&along.powers[self.n], c * p * p, p);
            let first = (c + 1) * (mixer.reach + 1) - self.n;
            let inject = Left {
                data: &along.inject_back,
                origin: first * mixer.parts * p,
                row: 1,
                column: p as isize,
            };
            for (start, columns, states) in self.seen(m, c * p, (&s.seen[m], old)) {
                let mut signal = self.channel(&s.v[m], m, c);
                signal.origin += start;
                let target = RowsMut::new(out, c * p * x + start, x);
                let terms = [(p, power, states), (inputs, inject, signal)];
                sum(self.line.isa, [p, columns], terms, target, false);
            }
        }
    }

    /// `N_m = sum_j L^j B v[j]`.
    fn emit(&self, m: usize, against: &Direction<T>, s: &mut Scratch<T>) {
        let (mixer, x) = (&self.line.mixers[m], self.ports.widths[m]);
        let (p, inputs) = (against.p, mixer.parts * self.n);
        for c in 0..mixer.channels {
            let inject = Left {
                data: &against.inject,
                origin: c * (mixer.reach + 1) * mixer.parts * p,
                row: 1,
                column: p as isize,
            };
            let target = RowsMut::new(&mut s.emitted[m], c * p * x, x);
            let rows = self.channel(&s.v[m], m, c);
            multiply(self.line.isa, [p, x, inputs], inject, rows, target, false);
        }
        let column = s.emitted[m].iter().step_by(x);
        s.constant[m]
            .iter_mut()
            .zip(column)
            .for_each(|(to, from)| *to = *from);
    }

    /// Ring: what the new sites send to the far end, through the old ones.
    fn arrive(
        &self,
        m: usize,
        against: &Direction<T>,
        through: &[T],
        far: &mut [T],
        s: &mut Scratch<T>,
    ) {
        let (mixer, x) = (&self.line.mixers[m], self.ports.widths[m]);
        let (p, isa, inputs) = (against.p, self.line.isa, mixer.parts * self.n);
        for c in 0..mixer.channels {
            let origin = c * (mixer.reach + 1) * mixer.parts * p;
            let inject = Left::rows(&against.inject, origin, p);
            let moved = RowsMut::new(&mut s.inject, 0, p);
            let power = Rows::new(through, c * p * p, p);
            multiply(isa, [inputs, p, p], inject, power, moved, false);
            let inject = Left {
                data: &s.inject,
                origin: 0,
                row: 1,
                column: p as isize,
            };
            let target = RowsMut::new(far, c * p * x, x);
            let rows = self.channel(&s.v[m], m, c);
            multiply(isa, [p, x, inputs], inject, rows, target, true);
        }
    }

    /// Ring: how the new sites read a state that enters at the far end.
    fn come_through(&self, m: usize, along: &Direction<T>, through: &[T], s: &mut Scratch<T>) {
        let mixer = &self.line.mixers[m];
        let (p, rows) = (along.p, mixer.parts * self.n);
        for c in 0..mixer.channels {
            let read = Left::rows(&along.read, c * (mixer.reach + 1) * mixer.parts * p, p);
            let power = Rows::new(through, c * p * p, p);
            let out = RowsMut::new(&mut s.read[m], c * rows * p, p);
            multiply(self.line.isa, [rows, p, p], read, power, out, false);
        }
    }

    /// `y_m` on the new sites, without the columns of the mixer's own ports.
    fn respond(&self, m: usize, along: &Direction<T>, old: &[T], s: &mut Scratch<T>) {
        let (line, n) = (self.line, self.n);
        let (mixer, x) = (&line.mixers[m], self.ports.widths[m]);
        let (parts, count, row) = (mixer.parts, mixer.channels, mixer.width * x);
        let y = &mut s.y[m];
        for c in 0..count {
            let read = Left::rows(
                &along.read,
                c * (mixer.reach + 1) * parts * along.p,
                along.p,
            );
            for (start, columns, rows) in self.seen(m, c * along.p, (&s.seen[m], old)) {
                let out = RowsMut::new(y, c * x + start, count * x);
                let shape = [parts * n, columns, along.p];
                multiply(line.isa, shape, read, rows, out, false);
            }
            for (to, from) in pairs(parts) {
                let rows = Rows::new(&s.v[m], (from * count + c) * x, row);
                let out = RowsMut::new(y, (to * count + c) * x, row);
                let kernel = self.kernel(mixer, c, [to, from], false);
                multiply(line.isa, [n, x, n], kernel, rows, out, true);
            }
        }
    }

    /// `G(j - j')` in the order of growth, or transposed in the sites.
    fn kernel<'k>(
        &self,
        mixer: &'k MixerTables<T>,
        c: usize,
        [to, from]: [usize; 2],
        transposed: bool,
    ) -> Left<'k, T> {
        let (parts, line) = (mixer.parts, 2 * mixer.reach + 1);
        let forward = if self.rightward != transposed { 1 } else { -1 };
        Left {
            data: &mixer.toeplitz,
            origin: ((c * parts + to) * parts + from) * line + mixer.reach,
            row: forward,
            column: -forward,
        }
    }

    /// `L^len` and its transpose.
    fn pass(&self, channels: usize, d: &Direction<T>, old: &[Vec<T>], new: &mut [Vec<T>]) {
        let (p, isa) = (d.p, self.line.isa);
        let (plain, transposed) = new.split_at_mut(1);
        for c in 0..channels {
            let at = c * p * p;
            let power = Left::rows(&d.powers[self.n], at, p);
            let target = RowsMut::new(&mut plain[0], at, p);
            multiply(
                isa,
                [p, p, p],
                power,
                Rows::new(&old[0], at, p),
                target,
                false,
            );
            let before = Left::rows(&old[1], at, p);
            let power = Rows::new(&d.transposed[self.n], at, p);
            let target = RowsMut::new(&mut transposed[0], at, p);
            multiply(isa, [p, p, p], before, power, target, false);
        }
    }

    /// The features: constants, what the new sites add, and old ones seen from the
    /// new end.
    fn pool(&self, old: &Segment<T>, new: &mut Segment<T>, s: &mut Scratch<T>) {
        let (line, layout) = (self.line, self.line.layout);
        let (h, x) = (layout.features, self.ports.widths[line.mixers.len()]);
        new.total.copy_from_slice(&old.total);
        for block in self.blocks.chunks_exact(layout.size).take(self.n) {
            for (total, q) in new.total.iter_mut().zip(&block[layout.constant..]) {
                *total += q.widened();
            }
        }
        new.features.copy_from_slice(&old.features);
        for m in 0..line.mixers.len() {
            self.pull_back(m, &old.features, s);
            self.own_ports(m, old, &mut new.features, s);
            let (wide, mixer) = (self.ports.widths[m], &line.mixers[m]);
            let [along, _] = mixer.seen(self.rightward);
            let pulled = |data| Left {
                data,
                origin: 0,
                row: 1,
                column: layout.padded as isize,
            };
            let sites = self.n * mixer.width;
            let (states, inputs) = (pulled(&s.states), pulled(&s.inputs));
            let out = RowsMut::new(&mut new.features, 0, x);
            let rows = Rows::new(&s.v[m], 0, wide);
            multiply(line.isa, [h, wide, sites], inputs, rows, out, true);
            for (start, columns, rows) in self.seen(m, 0, (&s.seen[m], &old.out[m])) {
                let out = RowsMut::new(&mut new.features, start, x);
                let shape = [h, columns, along.states];
                multiply(line.isa, shape, states, rows, out, true);
            }
        }
        // constants add up in f64
        for (r, total) in new.total.iter_mut().enumerate() {
            *total += new.features[r * x].widened();
            new.features[r * x] = T::default();
        }
    }

    /// Derivatives of all features by `O_m` and by `v_m` on the new sites.
    fn pull_back(&self, m: usize, old: &[T], s: &mut Scratch<T>) {
        let (line, n, layout) = (self.line, self.n, self.line.layout);
        let (isa, h, w, size) = (line.isa, layout.features, layout.padded, layout.size);
        let mixer = &line.mixers[m];
        let (parts, count, stretch) = (mixer.parts, mixer.channels, mixer.reach + 1);
        let [along, against] = mixer.seen(self.rightward);
        let x = self.ports.widths[line.mixers.len()];
        // what sees the states sent backwards
        for state in 0..against.states {
            for r in 0..h {
                s.ports[state * w + r] = old[r * x + self.ports.near[m] + state];
            }
        }
        s.inputs[..n * mixer.width * w].fill(T::default());
        s.states[..along.states * w].fill(T::default());
        let at = layout.readout.iter().find(|r| r.0 == m).map(|r| r.1);
        for c in 0..count {
            for part in 0..parts {
                let component = part * count + c;
                let sent = Left {
                    data: &against.inject,
                    origin: (c * stretch * parts + part) * against.p,
                    row: (parts * against.p) as isize,
                    column: 1,
                };
                let ports = Rows::new(&s.ports, c * against.p * w, w);
                let out = RowsMut::new(&mut s.inputs, component * w, mixer.width * w);
                multiply(isa, [n, w, against.p], sent, ports, out, true);
                let Some(at) = at else { continue };
                let read = Left {
                    data: &along.read,
                    origin: (c * stretch * parts + part) * along.p,
                    row: 1,
                    column: (parts * along.p) as isize,
                };
                let readout = Rows::new(self.blocks, at + component * w, size);
                let out = RowsMut::new(&mut s.states, c * along.p * w, w);
                multiply(isa, [along.p, w, n], read, readout, out, true);
                for to in 0..parts {
                    let kernel = self.kernel(mixer, c, [to, part], true);
                    let readout = Rows::new(self.blocks, at + (to * count + c) * w, size);
                    let out = RowsMut::new(&mut s.inputs, component * w, mixer.width * w);
                    multiply(isa, [n, w, n], kernel, readout, out, true);
                }
            }
        }
    }

    /// Features as functions of the mixer's own ports, seen from the new end.
    fn own_ports(&self, m: usize, old: &Segment<T>, new: &mut [T], s: &mut Scratch<T>) {
        let (line, n, layout) = (self.line, self.n, self.line.layout);
        let (isa, h, w) = (line.isa, layout.features, layout.padded);
        let mixer = &line.mixers[m];
        let (parts, count, stretch) = (mixer.parts, mixer.channels, mixer.reach + 1);
        let [along, against] = mixer.seen(self.rightward);
        let (near, far) = (self.ports.near[m], self.ports.far[m]);
        let x = self.ports.widths[line.mixers.len()];
        let at = layout.readout.iter().find(|r| r.0 == m).map(|r| r.1);
        let p = against.p;
        s.ports[..against.states * w].fill(T::default());
        for c in 0..count {
            let power = Rows::new(&against.powers[n], c * p * p, p);
            let moved = Left::rows(&old.features, near + c * p, x);
            let out = RowsMut::new(new, near + c * p, x);
            multiply(isa, [h, p, p], moved, power, out, false);
            let Some(at) = at else { continue };
            for part in 0..parts {
                let read = Left {
                    data: &against.read,
                    origin: ((c * stretch + n - 1) * parts + part) * p,
                    row: 1,
                    column: -((parts * p) as isize),
                };
                let readout = Rows::new(self.blocks, at + (part * count + c) * w, layout.size);
                let out = RowsMut::new(&mut s.ports, c * p * w, w);
                multiply(isa, [p, w, n], read, readout, out, true);
            }
        }
        for state in 0..against.states {
            for r in 0..h {
                let to = &mut new[r * x + near + state];
                *to = *to + s.ports[state * w + r];
            }
        }
        if line.ring {
            let p = along.p;
            for c in 0..count {
                let states = Left {
                    data: &s.states,
                    origin: c * p * w,
                    row: 1,
                    column: w as isize,
                };
                let power = Rows::new(&old.through[m][0], c * p * p, p);
                let out = RowsMut::new(new, far + c * p, x);
                multiply(isa, [h, p, p], states, power, out, true);
            }
        }
    }
}

/// All pairs of parts.
fn pairs(parts: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..parts).flat_map(move |a| (0..parts).map(move |b| (a, b)))
}
