//! What all sites outside a slice do to it, for all proposals of a block.
//!
//! The first mixer's inputs are sources, which only a few sites change. So the
//! segments are multiplied once with what each site of the slice sends out, and a
//! proposal adds up the rows of the sites it changes: the states of later mixers
//! that come back (`E L^j B`), and the features far away. On a ring a state may go
//! round any number of times; since powers of one L commute, with
//! `K = (1 - L^N)^-1`, `a` sites ahead and `b` behind,
//!
//! ```text
//! leaving  = K emitted + L^n entering              along the way
//! far      = far' + L^a leaving                    at the far ends of the segments
//! entering = K ( entering' + L^b far' )            primes: what segments add
//! ```

use super::mixer::MixerTables;
use super::product::{Left, Rows, RowsMut, multiply};
use super::segment::{Line, Ports, Segment};
use super::slice::{Frame, Received};
use crate::back::cpu::simd::{Isa, Real};

/// A slice's surroundings.
#[derive(Clone, Copy)]
pub(super) struct Outside<'a, T> {
    pub line: &'a Line<'a, T>,
    pub frame: &'a Frame,
    pub behind: &'a Segment<T>,
    pub ahead: &'a Segment<T>,
}

/// Rows (site, component of the first mixer), as far as a slice is long.
pub(super) struct Links<T> {
    /// Per mixer, columns as in [`Received`]; none for the first one.
    pub states: Vec<Vec<T>>,
    /// Columns: features, padded.
    pub features: Vec<T>,
    /// Ring: transposed `K L^b`, along and against, per mixer.
    pub carried: Vec<[Vec<T>; 2]>,
    /// Ring: what reaches the far ends, along and against.
    far: [Vec<T>; 2],
    block: Vec<T>,
}

impl<T: Real> Links<T> {
    /// For slices of up to `most` sites.
    pub fn new(line: &Line<T>, most: usize) -> Links<T> {
        let zeros = |n: usize| vec![T::default(); n];
        let first = &line.mixers[0];
        let (rows, columns) = (most * first.padded, most * first.parts);
        let p = first.right.p.max(first.left.p);
        let size = |k: usize| {
            if k == 0 {
                0
            } else {
                Received::of(&line.mixers[k], true, line.ring).size
            }
        };
        let carried = |m: &MixerTables<T>| {
            [&m.right, &m.left].map(|_| {
                zeros(if line.ring {
                    m.channels * p.max(m.right.p).max(m.left.p).pow(2)
                } else {
                    0
                })
            })
        };
        let widest = line
            .mixers
            .iter()
            .map(|m| m.right.states.max(m.left.states));
        let height = widest.max().unwrap_or(0).max(line.layout.features);
        Links {
            states: (0..line.mixers.len())
                .map(|k| zeros(rows * size(k)))
                .collect(),
            features: zeros(rows * line.layout.padded),
            carried: line.mixers.iter().map(carried).collect(),
            far: [zeros(p * columns), zeros(p * columns)],
            block: zeros(height * columns),
        }
    }

    /// Links of `n` sites with their surroundings.
    pub fn build(&mut self, outside: &Outside<T>, n: usize) {
        let Outside {
            line,
            frame,
            behind,
            ahead,
        } = *outside;
        if line.ring {
            self.carry(outside);
        }
        let mixer = &line.mixers[0];
        let [along, against] = mixer.seen(frame.rightward);
        let columns = mixer.parts * n;
        for c in 0..mixer.channels {
            let stretch = mixer.parts * (mixer.reach + 1);
            // leaving along the way, the last site is the nearest
            let from = |d: usize| c * d * stretch;
            let sent = [
                Rows::new(&along.sent_back, from(along.p) + stretch - columns, stretch),
                Rows::new(&against.sent, from(against.p), stretch),
            ];
            if line.ring {
                let after = [&ahead.through[0][2], &behind.through[0][2]];
                for (d, p) in [along.p, against.p].into_iter().enumerate() {
                    let power = Left::rows(after[d], c * p * p, p);
                    let out = RowsMut::new(&mut self.far[d], 0, columns);
                    multiply(line.isa, [p, columns, p], power, sent[d], out, false);
                }
            }
            let far = self.far.each_ref().map(|f| Rows::new(f, 0, columns));
            let to_behind = Entering {
                isa: line.isa,
                ports: &frame.behind,
                channel: c,
                near: (against.p, sent[1]),
                far: line.ring.then_some((along.p, far[0])),
                columns,
            };
            let to_ahead = Entering {
                ports: &frame.ahead,
                near: (along.p, sent[0]),
                far: line.ring.then_some((against.p, far[1])),
                ..to_behind
            };
            let place = |block: &[T], rows: usize, out: &mut [T], at: usize, stride: usize| {
                for k in 0..columns {
                    let (site, component) = (k / mixer.parts, k % mixer.parts * mixer.channels + c);
                    let row = &mut out[(site * mixer.padded + component) * stride + at..][..rows];
                    let column = block[k..].iter().step_by(columns);
                    row.iter_mut()
                        .zip(column)
                        .for_each(|(to, from)| *to = *from);
                }
            };
            for m in 1..line.mixers.len() {
                let at = Received::of(&line.mixers[m], frame.rightward, line.ring);
                let [along, against] = line.mixers[m].seen(frame.rightward);
                let mut parts = vec![
                    (&to_behind, &behind.out[m], along.states, at.entering[0]),
                    (&to_ahead, &ahead.out[m], against.states, at.entering[1]),
                ];
                if line.ring {
                    parts.push((&to_ahead, &ahead.far[m], along.states, at.far[0]));
                    parts.push((&to_behind, &behind.far[m], against.states, at.far[1]));
                }
                for (entering, matrix, rows, column) in parts {
                    entering.through(matrix, rows, m, &mut self.block, false);
                    place(&self.block, rows, &mut self.states[m], column, at.size);
                }
            }
            let (all, rows) = (line.mixers.len(), line.layout.features);
            to_behind.through(&behind.features, rows, all, &mut self.block, false);
            to_ahead.through(&ahead.features, rows, all, &mut self.block, true);
            place(&self.block, rows, &mut self.features, 0, line.layout.padded);
        }
    }

    /// `K L^b`.
    fn carry(&mut self, outside: &Outside<T>) {
        let Outside {
            line,
            frame,
            behind,
            ahead,
        } = *outside;
        for (m, mixer) in line.mixers.iter().enumerate() {
            let before = [&behind.through[m][1], &ahead.through[m][1]];
            for (d, direction) in mixer.seen(frame.rightward).into_iter().enumerate() {
                let p = direction.p;
                for c in 0..mixer.channels {
                    let at = c * p * p;
                    let closure = Rows::new(&direction.closure, at, p);
                    let out = RowsMut::new(&mut self.carried[m][d], at, p);
                    let before = Left::rows(before[d], at, p);
                    multiply(line.isa, [p, p, p], before, closure, out, false);
                }
            }
        }
    }
}

/// States of one channel of the first mixer that enter a segment, one column per
/// site and part: (states, columns) at its near end, and at its far end.
#[derive(Clone, Copy)]
struct Entering<'a, T> {
    isa: Isa,
    ports: &'a Ports,
    channel: usize,
    near: (usize, Rows<'a, T>),
    far: Option<(usize, Rows<'a, T>)>,
    columns: usize,
}

impl<T: Real> Entering<'_, T> {
    /// What a matrix of the segment, with the columns of mixer m's rows, makes of them.
    fn through(&self, matrix: &[T], rows: usize, m: usize, block: &mut [T], add: bool) {
        let (x, n) = (self.ports.widths[m], self.columns);
        let (p, states) = self.near;
        let near = Left::rows(matrix, self.ports.near[0] + self.channel * p, x);
        multiply(
            self.isa,
            [rows, n, p],
            near,
            states,
            RowsMut::new(block, 0, n),
            add,
        );
        if let Some((p, states)) = self.far {
            let far = Left::rows(matrix, self.ports.far[0] + self.channel * p, x);
            multiply(
                self.isa,
                [rows, n, p],
                far,
                states,
                RowsMut::new(block, 0, n),
                true,
            );
        }
    }
}
