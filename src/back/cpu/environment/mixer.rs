//! Tables of one mixer: what passing a stretch of sites does to states and signals.

use super::recurrence::{Channel, Matrix, channels, power_of};
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
    /// `L^j B`: `[channel][j][part][state]`, j = 0..=reach.
    pub inject: Vec<T>,
    /// The same with j counted backwards, from reach down to 0.
    pub inject_back: Vec<T>,
    /// `C L^(j+1)`: `[channel][j][part][state]`.
    pub read: Vec<T>,
    /// The same as `[channel][state][j][part]`.
    pub readout: Vec<T>,
    /// What a site sends out of a stretch, on a ring with all its windings,
    /// `(1 - L^sites)^-1 L^j B`: `[channel][state][j][part]`.
    pub sent: Vec<T>,
    /// The same with j counted backwards, from reach down to 0.
    pub sent_back: Vec<T>,
    /// Transposed `(1 - L^sites)^-1` of a ring; empty on an open chain.
    pub closure: Vec<T>,
}

/// One mixer. Components are those of the network: the real parts of all channels,
/// then the imaginary ones.
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
    /// `G(r)` of an open chain: `[channel][part of the result][part of the input][r + reach]`.
    pub toeplitz: Vec<T>,
    /// `G(r)`, on a ring with all windings, as two vectors over components,
    /// `[r + reach][2]`: what multiplies a signal, and what multiplies it with real
    /// and imaginary parts exchanged.
    pub lanes: Vec<T>,
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
            let open = channel.kernel(reach + 1);
            for (r, g) in open.iter().enumerate() {
                let sides = [(right, reach + r), (left, reach - r)];
                for at in sides.into_iter().filter(|s| s.0).map(|s| s.1) {
                    for to in 0..parts {
                        for from in 0..parts {
                            let k = ((c * parts + to) * parts + from) * line + at;
                            toeplitz[k] = toeplitz[k] + T::rounded(g.at(to, from));
                        }
                    }
                }
            }
            let around = match ring {
                Some(sites) => Some(channel.wound(sites, reach)?),
                None => None,
            };
            for at in 0..line {
                let displacement = at as i64 - reach as i64;
                let mut put = |forward: i64| {
                    let g = match &around {
                        Some(around) => around.at(forward),
                        None if forward >= 0 => &open[forward as usize],
                        None => return,
                    };
                    for to in 0..parts {
                        for from in 0..parts {
                            let component = to * count + c;
                            let k = (at * 2 + usize::from(to != from)) * padded + component;
                            lanes[k] = lanes[k] + T::rounded(g.at(to, from));
                        }
                    }
                };
                if right {
                    put(displacement);
                }
                if left {
                    put(-displacement);
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
            inject_back: Vec::new(),
            read: Vec::new(),
            readout: Vec::new(),
            sent: Vec::new(),
            sent_back: Vec::new(),
            closure: Vec::new(),
        };
        for channel in channels {
            let mut power = Matrix::identity(p);
            let first = direction.inject.len();
            for j in 0..=reach {
                direction.powers[j].extend(rounded(&power));
                direction.transposed[j].extend(rounded(&power.transposed()));
                let inject = power.times(&channel.input).transposed();
                direction.inject.extend(rounded(&inject));
                power = channel.transition.times(&power);
                let read = channel.output.times(&power);
                direction.read.extend(rounded(&read));
            }
            let row = parts * p;
            for j in (0..=reach).rev() {
                let at = first + j * row;
                let again = direction.inject[at..at + row].to_vec();
                direction.inject_back.extend(again);
            }
            let mut closure = Matrix::identity(p);
            if let Some(sites) = ring {
                closure = power_of(&channel.transition, sites).resolvent()?;
                direction.closure.extend(rounded(&closure.transposed()));
            }
            let (line, mut power) = (parts * (reach + 1), closure);
            let start = direction.sent.len();
            for table in [
                &mut direction.readout,
                &mut direction.sent,
                &mut direction.sent_back,
            ] {
                table.resize(start + p * line, T::default());
            }
            for j in 0..=reach {
                let sent = power.times(&channel.input);
                power = channel.transition.times(&power);
                for (state, part) in (0..p).flat_map(|s| (0..parts).map(move |k| (s, k))) {
                    let row = start + state * line;
                    let read = direction.read[first + j * parts * p + part * p + state];
                    direction.readout[row + j * parts + part] = read;
                    let x = T::rounded(sent.at(state, part));
                    direction.sent[row + j * parts + part] = x;
                    direction.sent_back[row + (reach - j) * parts + part] = x;
                }
            }
        }
        Some(direction)
    }
}
