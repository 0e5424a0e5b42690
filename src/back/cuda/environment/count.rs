//! Multiply-adds of the sweep on a device: those of `kernels/environment`, product by
//! product, under the names of its functions.

use crate::back::cpu::environment::description::{Description, Mixer, Way};

/// Multiply-adds per proposal, by part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Products {
    /// Passing sites with segments.
    pub growth: f64,
    /// What both segments answer to the sources of a slice, and the slice as it is found.
    pub links: f64,
    /// Solving the slice.
    pub slice: f64,
}

impl Products {
    /// Counts them where every `spacing`-th segment ahead is kept. The readout of the
    /// features and coefficients that are evaluated directly are not among them.
    pub fn new(d: &Description, spacing: usize) -> Products {
        let proposals = (d.step * d.token) as f64;
        // sweeps go both ways in turns
        let mut sum = [0.0; 3];
        for right in [true, false] {
            let view = View::new(d, right);
            // segments ahead are built again between those that are kept
            let again = if spacing > 1 { 2.0 } else { 1.0 };
            sum[0] += view.extend(right) + again * view.extend(!right);
            sum[1] += view.link() + view.solve(None);
            sum[2] += view.solve(Some(d.reach[0] + d.reach[1] + 1));
        }
        Products {
            growth: sum[0] / 2.0 / proposals,
            links: sum[1] / 2.0 / proposals,
            slice: sum[2] / 2.0,
        }
    }

    /// All of them.
    pub fn total(&self) -> f64 {
        self.growth + self.links + self.slice
    }
}

/// The chain as a sweep to the right, or to the left, sees it.
struct View<'a> {
    d: &'a Description,
    right: bool,
    /// Ends at which a segment is entered.
    ends: usize,
    /// Tokens between two segments.
    n: usize,
    /// Features.
    h: usize,
}

impl<'a> View<'a> {
    fn new(d: &'a Description, right: bool) -> Self {
        View {
            d,
            right,
            ends: if d.ring { 2 } else { 1 },
            n: (d.step + d.reach[0] + d.reach[1]).min(d.tokens),
            h: d.features.len(),
        }
    }

    /// Directions of a mixer: along and against the sweep.
    fn ways(&self, m: &'a Mixer) -> [&'a Way; 2] {
        directed(m, self.right)
    }

    /// Columns of every mixer's rows in a segment that grows right, or left; then all.
    fn columns(&self, right: bool) -> Vec<usize> {
        let mut all = vec![1];
        for m in &self.d.mixers {
            let [along, against] = directed(m, right);
            let own = against.states + if self.d.ring { along.states } else { 0 };
            all.push(all[all.len() - 1] + own);
        }
        all
    }

    /// `extend`: a segment passes `step` tokens.
    fn extend(&self, right: bool) -> f64 {
        let (n, h, mixers) = (self.d.step, self.h, &self.d.mixers);
        let columns = self.columns(right);
        // rows as functions of what enters at the new end
        let substitute = |m: usize, rows: usize| -> usize {
            let of = |(k, from): (usize, &Mixer)| {
                let against = directed(from, right)[1];
                from.channels * rows * against.p.pow(2) + rows * columns[k] * against.states
            };
            mixers[..m].iter().enumerate().map(of).sum()
        };
        let mut sum = 0;
        for (m, mixer) in mixers.iter().enumerate() {
            let [along, against] = directed(mixer, right);
            let (p, q, c) = (along.p, against.p, columns[m]);
            let (channels, parts, width) = (mixer.channels, mixer.parts, mixer.width);
            let inputs = parts * n;
            // `receive`
            for &(k, _) in &mixer.vertices {
                let from = &mixers[k];
                let [far, near] = directed(from, right).map(|w| w.p);
                let ports = near + if self.d.ring { far } else { 0 };
                sum += n * from.channels * width * ports * from.parts;
                sum += n * width * columns[k] * from.width;
            }
            sum += substitute(m, along.states);
            // `advance`
            sum += channels * p * c * (p + inputs);
            if self.d.ring {
                // `go_around`
                sum += substitute(m, against.states);
                sum += channels * (inputs * q * q + 2 * p.pow(3) + 2 * q.pow(3) + q * c * inputs);
            }
            if m + 1 < mixers.len() {
                // `respond`
                sum += inputs * channels * c * (p + inputs);
                sum += channels * q * c * inputs;
                sum += if self.d.ring {
                    channels * inputs * p * p
                } else {
                    0
                };
            }
            // `pool_mixer`
            sum += inputs * channels * h * q + channels * h * q * q;
            if mixer.readout.is_some() {
                sum += inputs * channels * h * (inputs + p + q);
            }
            sum += if self.d.ring { channels * h * p * p } else { 0 };
            sum += h * c * (n * width + along.states);
        }
        sum as f64
    }

    /// `link`: what sources of the slice make enter it.
    fn link(&self) -> f64 {
        let (h, mixers, ends) = (self.h, &self.d.mixers, self.ends);
        let (first, last) = (&mixers[0], &mixers[mixers.len() - 1]);
        let sources = first.parts * self.n;
        let own = self.ways(first).map(|w| w.p);
        let sides = [self.right, !self.right].map(|right| self.columns(right));
        let mut sum = 0;
        if self.d.ring {
            // `carry`, `read_outside`
            for (k, own) in own.iter().enumerate() {
                let each = mixers.iter().map(|m| m.channels * self.ways(m)[k].p.pow(3));
                sum += each.sum::<usize>() + first.channels * own.pow(2) * sources;
                let (side, way) = (1 - k, self.ways(last)[k]);
                sum += h * sides[side][mixers.len() - 1] * way.states;
                sum += last.channels * h * way.p.pow(2);
            }
        }
        // every end of both segments: what is sent there moves against the way where
        // the number of the end is that of the segment
        let sent = |side: usize, end: usize| own[usize::from(side == end)];
        for mixer in &mixers[1..] {
            // `link_mixer`
            for (k, way) in self.ways(mixer).into_iter().enumerate() {
                let mut each = 0;
                for far in 0..ends {
                    let side = usize::from(k != far);
                    each += (0..ends)
                        .map(|end| way.states * sent(side, end))
                        .sum::<usize>();
                }
                each += if self.d.ring {
                    2 * mixer.channels * way.p.pow(2)
                } else {
                    0
                };
                sum += first.channels * sources * each;
            }
        }
        if mixers.len() > 1 {
            // `link_features`
            for side in 0..2 {
                let each: usize = (0..ends).map(|end| sent(side, end)).sum();
                sum += first.channels * sources * h * each;
            }
        }
        // `read_slice`
        for way in self.ways(last) {
            sum += last.channels * h * way.p * (way.p + last.parts * self.n);
        }
        sum as f64
    }

    /// `solve`: a proposal that so many tokens see, or all of the slice.
    fn solve(&self, seen: Option<usize>) -> f64 {
        let (h, n, mixers, ends) = (self.h, self.n, &self.d.mixers, self.ends);
        let inside = seen.unwrap_or(n).min(n);
        // the first mixer acts by links
        let followed = usize::from(seen.is_some());
        let sides = [self.right, !self.right].map(|right| self.columns(right));
        let known = |side: usize| if followed == 1 { sides[side][1] } else { 0 };
        let active = |m: &Mixer| match m.window {
            Some(w) if m.vertices.is_empty() && followed == 1 => {
                ((w[1] - w[0] + 1).max(0) as usize).min(inside)
            }
            _ if m.vertices.is_empty() => inside,
            _ => n,
        };
        // of the slice, and once more where coefficients change
        let changed = n + inside;
        let first = &mixers[0];
        let mut sum = 0;
        for (m, mixer) in mixers.iter().enumerate() {
            let ways = self.ways(mixer);
            let states: usize = ways.iter().map(|w| w.states).sum();
            let closed = |k: usize| k * ways.iter().map(|w| w.states * w.p).sum::<usize>();
            if m >= followed {
                // `come_back`
                let passed = followed == 0 || m > 1;
                for (k, way) in ways.iter().enumerate().filter(|_| passed) {
                    for far in 0..ends {
                        let side = usize::from(k != far);
                        sum += way.states * (sides[side][m] - known(side));
                    }
                }
                sum += if passed && self.d.ring { closed(2) } else { 0 };
                if followed == 1 {
                    let far = self.d.ring && m + 1 < mixers.len();
                    let numbers = (states * if far { 2 } else { 1 }).next_multiple_of(4);
                    sum += numbers * active(first) * first.width;
                }
            }
            // `change`
            let vertices = mixer.vertices.iter();
            sum += vertices
                .map(|&(k, _)| changed * mixer.width * mixers[k].width)
                .sum::<usize>();
            // `mix`
            sum += 2 * n * mixer.width * active(mixer);
            if m >= followed {
                sum += n * mixer.width * ways.iter().map(|w| w.p).sum::<usize>();
                if m + 1 < mixers.len() {
                    sum += states * mixer.parts * active(mixer) + closed(1);
                    sum += if self.d.ring { closed(1) } else { 0 };
                }
            }
        }
        // `pool`
        let read = mixers.iter().filter(|m| m.readout.is_some());
        sum += h * changed * read.map(|m| m.width).sum::<usize>();
        let last = &mixers[mixers.len() - 1];
        sum += h * active(last) * last.width;
        if mixers.len() > followed {
            sum += h * self.ways(last).iter().map(|w| w.states).sum::<usize>();
            let columns = |side: usize| sides[side][mixers.len() - 1] - known(side);
            sum += h * (columns(0) + columns(1));
        }
        if followed == 1 && mixers.len() > 1 {
            sum += h * active(first) * first.width;
        }
        sum as f64
    }
}

/// Directions of a mixer: along and against a way to the right, or to the left.
fn directed(m: &Mixer, right: bool) -> [&Way; 2] {
    let [a, b] = &m.directions;
    if right { [a, b] } else { [b, a] }
}
