//! Tables of one mixer: what passing a stretch of sites does to states and signals.

use super::recurrence::{Channel, Matrix, channels};
use crate::back::cpu::simd::Real;
use crate::interp::Tensor;
use crate::ir::Scan;

/// Vectors and columns are padded to multiples of this.
pub(super) const PAD: usize = 16;

/// The recurrence in one direction. Matrices are per channel, then row major.
pub(super) struct Direction<T> {
    /// States of a channel; 0 if the mixer does not run this way.
    pub p: usize,
    /// All states: channels times p.
    pub states: usize,
    /// States, padded: columns of a port.
    pub port: usize,
    /// `L^j` for j = 0..=reach.
    pub powers: Vec<Vec<T>>,
    /// Their transposes.
    pub transposed: Vec<Vec<T>>,
    /// `L^j B`: `[channel][j][part][state]`.
    pub inject: Vec<T>,
    /// `C L^(j+1)`: `[channel][state][part][j]`.
    pub readout: Vec<T>,
    /// Transposed `(1 - L^sites)^-1` of a ring; empty on an open chain.
    pub closure: Vec<T>,
}

/// One mixer. Components are ordered channel by channel: real, then imaginary part.
pub(super) struct MixerTables<T> {
    /// Channels.
    pub channels: usize,
    /// Real numbers per channel: 1 or 2.
    pub parts: usize,
    /// Components.
    pub width: usize,
    /// Components, padded.
    pub padded: usize,
    /// Farthest displacement in the tables.
    pub reach: usize,
    /// The right-moving state.
    pub right: Direction<T>,
    /// The left-moving state.
    pub left: Direction<T>,
    /// `G(r)`: `[channel][part of the result][part of the input][r + reach]`.
    pub toeplitz: Vec<T>,
    /// `G(r)` as two vectors over components, `[r + reach][2]`: what multiplies a
    /// signal, and what multiplies it with real and imaginary parts exchanged.
    pub lanes: Vec<T>,
    /// Number of the network's own component for each component here.
    pub order: Vec<usize>,
}

impl<T: Real> MixerTables<T> {
    /// Tables for stretches of up to `reach` sites; `ring` is the number of sites
    /// to close the recurrence around. `None` if that has no solution.
    pub fn new(
        scan: Scan,
        coefficients: &[&Tensor],
        inputs: usize,
        reach: usize,
        ring: Option<usize>,
        reduce: &dyn Fn(Vec<Channel>) -> Vec<Channel>,
    ) -> Option<MixerTables<T>> {
        let all: Vec<Channel> = channels(scan, coefficients, inputs);
        let reduced = reduce(all.clone());
        let parts = if scan.complex { 2 } else { 1 };
        let count = all.len();
        let (right, left) = (!scan.leftward || scan.mirror, scan.leftward || scan.mirror);
        let none: Vec<Channel> = Vec::new();
        let direction = |there: bool| {
            let used = if there { &reduced } else { &none };
            Direction::new(used, parts, reach, ring)
        };
        let line = 2 * reach + 1;
        let padded = inputs.next_multiple_of(PAD);
        let mut toeplitz = vec![T::default(); count * parts * parts * line];
        let mut lanes = vec![T::default(); line * 2 * padded];
        for (c, channel) in all.iter().enumerate() {
            for (r, g) in channel.kernel(reach + 1).into_iter().enumerate() {
                let sides = [(right, reach + r), (left, reach - r)];
                for at in sides.into_iter().filter(|s| s.0).map(|s| s.1) {
                    for to in 0..parts {
                        for from in 0..parts {
                            let g = T::rounded(g.at(to, from));
                            let k = ((c * parts + to) * parts + from) * line + at;
                            toeplitz[k] = toeplitz[k] + g;
                            let k = (at * 2 + usize::from(to != from)) * padded + c * parts + to;
                            lanes[k] = lanes[k] + g;
                        }
                    }
                }
            }
        }
        Some(MixerTables {
            channels: count,
            parts,
            width: inputs,
            padded,
            reach,
            right: direction(right)?,
            left: direction(left)?,
            toeplitz,
            lanes,
            order: (0..inputs).map(|k| k % parts * count + k / parts).collect(),
        })
    }

    /// The directions as seen by somebody who walks right, or left: along, against.
    pub fn seen(&self, rightward: bool) -> [&Direction<T>; 2] {
        if rightward {
            [&self.right, &self.left]
        } else {
            [&self.left, &self.right]
        }
    }
}

impl<T: Real> Direction<T> {
    fn new(
        channels: &[Channel],
        parts: usize,
        reach: usize,
        ring: Option<usize>,
    ) -> Option<Direction<T>> {
        // channels of one mixer have one size, so that tables are regular
        let p = channels
            .iter()
            .map(|c| c.transition.rows)
            .max()
            .unwrap_or(0);
        let states = channels.len() * p;
        let rounded = |m: &Matrix| m.data.iter().map(|&x| T::rounded(x)).collect::<Vec<T>>();
        let mut direction = Direction {
            p,
            states,
            port: states.next_multiple_of(PAD),
            powers: vec![Vec::new(); reach + 1],
            transposed: vec![Vec::new(); reach + 1],
            inject: Vec::new(),
            readout: Vec::new(),
            closure: Vec::new(),
        };
        for channel in channels {
            let mut power = Matrix::identity(p);
            let mut readout = vec![T::default(); p * parts * (reach + 1)];
            for j in 0..=reach {
                direction.powers[j].extend(rounded(&power));
                direction.transposed[j].extend(rounded(&power.transposed()));
                let inject = power.times(&channel.input).transposed();
                direction.inject.extend(rounded(&inject));
                power = channel.transition.times(&power);
                let read = channel.output.times(&power);
                for part in 0..parts {
                    for q in 0..p {
                        readout[(q * parts + part) * (reach + 1) + j] =
                            T::rounded(read.at(part, q));
                    }
                }
            }
            direction.readout.extend(readout);
            if let Some(sites) = ring {
                let around = power_of(&channel.transition, sites);
                let closure = around.resolvent()?.transposed();
                direction.closure.extend(rounded(&closure));
            }
        }
        Some(direction)
    }
}

/// `m^n` by repeated squaring.
pub(super) fn power_of(m: &Matrix, mut n: usize) -> Matrix {
    let (mut result, mut square) = (Matrix::identity(m.rows), m.clone());
    while n > 0 {
        if n & 1 == 1 {
            result = result.times(&square);
        }
        n >>= 1;
        if n > 0 {
            square = square.times(&square);
        }
    }
    result
}
