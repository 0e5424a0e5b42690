//! What a proposal of a long sweep takes: multiply-adds and memory.

use super::mixer::{Direction, MixerTables};
use super::segment::Ports;
use super::slice::Received;
use super::walk::spacing;
use super::{Environments, most};
use crate::back::cpu::simd::Real;

/// Multiply-adds per proposal, by part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Products {
    /// Passing sites with segments.
    pub growth: f64,
    /// Linking the sites of a slice.
    pub links: f64,
    /// Solving the slice.
    pub slice: f64,
}

impl Products {
    /// All of them.
    pub fn total(&self) -> f64 {
        self.growth + self.links + self.slice
    }
}

impl<T: Real> Environments<T> {
    /// Multiply-adds per proposal.
    pub fn products(&self) -> Products {
        let line = self.line();
        let ports = Ports::new(&line, true);
        let (n, ring) = (self.step as f64, self.ring);
        let spins = self.token as f64;
        let sides = if ring { 2.0 } else { 1.0 };
        let sizes = |m: &MixerTables<T>| {
            let states = (m.right.states + m.left.states) as f64 / 2.0;
            (states, m.right.p.max(m.left.p) as f64, m.parts as f64)
        };
        let mut products = Products {
            growth: 0.0,
            links: 0.0,
            slice: 0.0,
        };
        // all sites are passed by the segment behind and the one ahead, which may be
        // built again between the blocks that are kept
        let passes = if self.kept().0 > 1 { 3.0 } else { 2.0 };
        let slice = (self.step + self.reach[0] + self.reach[1]) as f64;
        let seen = (self.reach[0] + self.reach[1] + 1) as f64;
        let first = &self.mixers[0];
        let (_, p0, parts0) = sizes(first);
        for (m, mixer) in self.mixers.iter().enumerate() {
            let (states, p, parts) = sizes(mixer);
            let columns = ports.widths[m] as f64;
            let middle = if m + 1 < self.mixers.len() { 1.0 } else { 0.0 };
            let width = mixer.width as f64;
            // inputs, old states, and on a ring the far end
            let advance = states * columns * (p / n + sides * parts);
            let vertices = mixer.width as f64 * columns * 2.0;
            let moved: f64 = self.mixers[..m]
                .iter()
                .map(|k| sides * states * sizes(k).0 * sizes(k).1 / n)
                .sum();
            let mixed = width * columns * (p + parts * n) + states * columns * parts;
            let each = advance + vertices + moved + middle * mixed;
            products.growth += passes * each / spins;
            if m > 0 {
                let rows = (line.layout.features as f64 / 2.0 + states) * 2.0 * sides;
                let inputs = slice * parts0 * first.channels as f64;
                products.links += rows * sides * p0 * inputs / (n * spins);
                let at = Received::of(mixer, true, ring).size as f64;
                let followed = columns - ports.widths[1] as f64;
                products.slice += at * (seen * first.padded as f64 + followed);
                products.slice += 2.0 * states * (5.0 * p + slice * parts * 2.0);
            }
            products.slice += slice * width * (2.0 * slice + 2.0 * width);
        }
        products
    }

    /// Numbers of a segment.
    fn segment(&self) -> usize {
        let line = self.line();
        let ports = Ports::new(&line, true);
        let sides = if self.ring { 2 } else { 1 };
        let mut segment = line.layout.features * ports.widths[self.mixers.len()];
        for (m, mixer) in self.mixers.iter().enumerate() {
            let states = mixer.right.states.max(mixer.left.states);
            let p = mixer.right.p.max(mixer.left.p);
            segment += sides * states * ports.widths[m];
            segment += if self.ring { 4 * states * p } else { 0 };
        }
        segment
    }

    /// Blocks per segment ahead that is kept, and how many are kept at once.
    fn kept(&self) -> (usize, usize) {
        let blocks = self.tokens.div_ceil(self.step);
        let apart = spacing(blocks, self.segment(), self.stored);
        let group = if apart > 1 { apart } else { 0 };
        (apart, blocks.div_ceil(apart) + group)
    }

    /// Bytes of one sweep's memory: segments, growing steps, the slice and its links.
    pub fn bytes(&self) -> usize {
        let (line, segment) = (self.line(), self.segment());
        let ports = Ports::new(&line, true);
        let most = most(self.reach, self.step);
        let received = |m| Received::of(m, true, self.ring).size;
        let links = line.layout.padded + self.mixers.iter().map(received).sum::<usize>();
        let mut numbers = (self.kept().1 + 4) * segment;
        numbers += most * self.mixers[0].padded * links;
        for (m, mixer) in self.mixers.iter().enumerate() {
            let states = mixer.right.states.max(mixer.left.states);
            let rows = mixer.width * self.step;
            let growing = 2 * rows + 2 * states;
            numbers += 2 * growing * ports.widths[m];
            numbers += 4 * most * mixer.padded;
        }
        let blocks = 2 * most + self.step;
        numbers += blocks * line.layout.size;
        numbers * size_of::<T>()
    }

    /// Bytes of what depends on parameters alone: powers of transitions, tables of
    /// coefficients.
    pub fn constant_bytes(&self) -> usize {
        let direction = |d: &Direction<T>| {
            let powers = d.powers.iter().chain(&d.transposed).map(Vec::len);
            let lines = [&d.inject, &d.inject_back, &d.read, &d.readout, &d.sent];
            powers.sum::<usize>() + lines.map(Vec::len).iter().sum::<usize>() + d.sent_back.len()
        };
        let mixer = |m: &MixerTables<T>| {
            direction(&m.right) + direction(&m.left) + m.toeplitz.len() + m.lanes.len()
        };
        let numbers: usize = self.mixers.iter().map(mixer).sum();
        numbers * size_of::<T>() + self.coefficients.bytes()
    }
}
