//! A stretch of the chain as an affine two-port that grows at one end.
//!
//! States that move with the growth leave at the growing end (*out*), those that
//! move against it enter there (*near*); on a ring there are also states entering
//! (*far*) and leaving at the other end. With mixers feed-forward,
//!
//! ```text
//! out_m   = O_m (1, near_0, far_0, .., near_(m-1), far_(m-1)) + L^len far_m
//! Omega   = total + F (near_0, far_0, .., near_(M-1), far_(M-1))
//! ```
//!
//! and likewise for what leaves at the far end. Passing n more sites at once,
//!
//! ```text
//! v_m[j]  = S_m[j] + sum_k A_mk[j] y_k[j]
//! near_m <- L^n near_m + N_m,    N_m = sum_j L^j B v_m[j]
//! O_m    <- L^n ( O_m with near replaced ) + sum_j L^(n-1-j) B v_m[j]
//! y_m[j]  = sum_j' G_m(j-j') v_m[j'] + C L^(j+1) O_m + C L^(n-j) near_m
//! ```
//!
//! where every signal is a row of columns (1, near_0, far_0, ..): all of it is
//! products of small matrices with long rows.

use super::mixer::{Direction, MixerTables, PAD};
use super::product::{Left, Rows, RowsMut, multiply};
use crate::back::cpu::simd::{Isa, Real};

/// Where the coefficients of one site are inside its block of numbers. Matrices
/// are stored by columns.
#[derive(Clone, Debug, Default)]
pub(super) struct SiteLayout {
    /// Numbers per site.
    pub size: usize,
    /// `S_m`, padded.
    pub source: Vec<usize>,
    /// Per mixer m the (k, `A_mk`), columns padded as `S_m`.
    pub vertices: Vec<Vec<(usize, usize)>>,
    /// q, padded.
    pub constant: usize,
    /// (k, `R_k`), columns padded as q.
    pub readout: Vec<(usize, usize)>,
    /// Features.
    pub features: usize,
    /// Features, padded.
    pub padded: usize,
}

/// What segments need to know about the network.
pub(super) struct Line<'a, T> {
    pub mixers: &'a [MixerTables<T>],
    pub layout: &'a SiteLayout,
    pub isa: Isa,
    pub ring: bool,
    /// Most sites passed at once.
    pub step: usize,
}

/// Columns of a segment.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    /// First column of near_k.
    pub near: Vec<usize>,
    /// First column of far_k.
    pub far: Vec<usize>,
    /// Columns before near_k: what rows of mixer k have; then all columns.
    pub widths: Vec<usize>,
}

impl Ports {
    /// Of a segment that grows to the right, or to the left.
    pub fn new<T: Real>(line: &Line<T>, rightward: bool) -> Ports {
        let mut ports = Ports {
            near: Vec::new(),
            far: Vec::new(),
            widths: vec![PAD],
        };
        let mut at = PAD;
        for m in line.mixers {
            let [along, against] = m.seen(rightward);
            ports.near.push(at);
            at += against.port;
            ports.far.push(at);
            if line.ring {
                at += along.port;
            }
            ports.widths.push(at);
        }
        ports
    }
}

/// A two-port; see the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Segment<T> {
    /// Sites.
    pub len: usize,
    /// `O_m`: states x columns.
    pub out: Vec<Vec<T>>,
    /// Ring: the same for what leaves at the far end.
    pub far: Vec<Vec<T>>,
    /// F: features x columns.
    pub features: Vec<T>,
    /// The part of Omega that needs no input.
    pub total: Vec<f64>,
    /// Ring: `L^len` with the growth, its transpose, and both against it.
    pub through: Vec<[Vec<T>; 4]>,
}

impl<T: Real> Segment<T> {
    /// No sites.
    pub fn empty(line: &Line<T>, ports: &Ports, rightward: bool) -> Segment<T> {
        let zeros = |n: usize| vec![T::default(); n];
        let mut segment = Segment {
            len: 0,
            out: Vec::new(),
            far: Vec::new(),
            features: zeros(line.layout.features * ports.widths[line.mixers.len()]),
            total: vec![0.0; line.layout.features],
            through: Vec::new(),
        };
        for (m, mixer) in line.mixers.iter().enumerate() {
            let [along, against] = mixer.seen(rightward);
            segment.out.push(zeros(along.states * ports.widths[m]));
            if line.ring {
                segment.far.push(zeros(against.states * ports.widths[m]));
                let [a, b] = [along, against].map(|d| d.powers[0].clone());
                segment.through.push([a.clone(), a, b.clone(), b]);
            }
        }
        segment
    }

    /// Numbers held.
    pub fn size(&self) -> usize {
        let all = self.out.iter().chain(&self.far);
        let through = self.through.iter().flatten();
        all.chain(through).map(Vec::len).sum::<usize>() + self.features.len()
    }

    /// Forgets all sites.
    pub fn clear(&mut self, line: &Line<T>, rightward: bool) {
        self.len = 0;
        self.out.iter_mut().for_each(|x| x.fill(T::default()));
        self.far.iter_mut().for_each(|x| x.fill(T::default()));
        self.features.fill(T::default());
        self.total.fill(0.0);
        for (mixer, through) in line.mixers.iter().zip(&mut self.through) {
            let [along, against] = mixer.seen(rightward);
            for (k, m) in through.iter_mut().enumerate() {
                let d = if k < 2 { along } else { against };
                m.copy_from_slice(&d.powers[0]);
            }
        }
    }
}

/// Memory for one growing step.
pub(super) struct Scratch<T> {
    v: Vec<Vec<T>>,
    y: Vec<Vec<T>>,
    emitted: Vec<Vec<T>>,
    seen: Vec<T>,
}

impl<T: Real> Scratch<T> {
    /// For segments that grow one way.
    pub fn new(line: &Line<T>, ports: &Ports, rightward: bool) -> Scratch<T> {
        let zeros = |n: usize| vec![T::default(); n];
        let mut scratch = Scratch {
            v: Vec::new(),
            y: Vec::new(),
            emitted: Vec::new(),
            seen: Vec::new(),
        };
        for (m, mixer) in line.mixers.iter().enumerate() {
            let [along, against] = mixer.seen(rightward);
            let rows = mixer.width * line.step;
            scratch.v.push(zeros(rows * ports.widths[m]));
            scratch.y.push(zeros(rows * ports.widths[m + 1]));
            scratch
                .emitted
                .push(zeros(against.states * ports.widths[m]));
            let size = along.states * ports.widths[m];
            if size > scratch.seen.len() {
                scratch.seen = zeros(size);
            }
        }
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
        let (line, n) = (self.line, self.n);
        for (m, mixer) in line.mixers.iter().enumerate() {
            let [along, against] = mixer.seen(self.rightward);
            let x = self.ports.widths[m];
            self.receive(m, s);
            let mut seen = std::mem::take(&mut s.seen);
            self.substitute(m, along.states, &old.out[m], &mut seen, &s.emitted);
            self.advance(mixer, along, x, (&seen, &s.v[m]), &mut new.out[m]);
            self.respond(m, (old, &seen), &s.v[m], &mut s.y[m]);
            s.seen = seen;
            let (before, rest) = s.emitted.split_at_mut(m);
            self.emit(mixer, against, x, &s.v[m], &mut rest[0]);
            if line.ring {
                self.substitute(m, against.states, &old.far[m], &mut new.far[m], before);
                let p = against.p;
                for c in 0..mixer.channels {
                    let rows = Rows::new(&rest[0], c * p * x, x);
                    let out = RowsMut::new(&mut new.far[m], c * p * x, x);
                    let through = Left::rows(&old.through[m][2], c * p * p, p);
                    multiply(line.isa, [p, x, p], through, rows, out, true);
                }
                self.pass(
                    mixer.channels,
                    along,
                    &old.through[m][..2],
                    &mut new.through[m][..2],
                );
                self.pass(
                    mixer.channels,
                    against,
                    &old.through[m][2..],
                    &mut new.through[m][2..],
                );
            }
        }
        self.pool(old, new, s);
        new.len = old.len + n;
    }

    /// `v_m`: sources, and vertices acting on earlier mixers.
    fn receive(&self, m: usize, s: &mut Scratch<T>) {
        let (line, step) = (self.line, self.line.step);
        let (mixer, x) = (&line.mixers[m], self.ports.widths[m]);
        let v = &mut s.v[m];
        v.fill(T::default());
        for j in 0..self.n {
            let block = &self.blocks[j * line.layout.size..][..line.layout.size];
            let source = &block[line.layout.source[m]..][..mixer.width];
            for (r, value) in source.iter().enumerate() {
                v[(r * step + j) * x] = *value;
            }
            for &(k, at) in &line.layout.vertices[m] {
                let (from, y, xk) = (&line.mixers[k], &s.y[k], self.ports.widths[k + 1]);
                let mut part = |[first, columns]: [usize; 2], [component, count]: [usize; 2]| {
                    let a = Left {
                        data: block,
                        origin: at + component * mixer.padded,
                        row: 1,
                        column: mixer.padded as isize,
                    };
                    let rows = Rows::new(y, (component * step + j) * xk + first, step * xk);
                    let out = RowsMut::new(v, j * x + first, step * x);
                    multiply(line.isa, [mixer.width, columns, count], a, rows, out, true);
                };
                part([0, self.ports.widths[k]], [0, from.width]);
                // a channel of k reads its own states only
                let [along, against] = from.seen(self.rightward);
                for c in 0..from.channels {
                    let components = [c * from.parts, from.parts];
                    part([self.ports.near[k] + c * against.p, against.p], components);
                    if line.ring {
                        part([self.ports.far[k] + c * along.p, along.p], components);
                    }
                }
            }
        }
    }

    /// Rows of mixer m (or of the features) seen from the new growing end.
    fn substitute(&self, m: usize, count: usize, old: &[T], new: &mut [T], emitted: &[Vec<T>]) {
        let (line, x) = (self.line, self.ports.widths[m]);
        new[..count * x].copy_from_slice(&old[..count * x]);
        for k in 0..m {
            let (mixer, near) = (&line.mixers[k], self.ports.near[k]);
            let [_, against] = mixer.seen(self.rightward);
            let p = against.p;
            for c in 0..mixer.channels {
                let rows = Rows::new(&against.powers[self.n], c * p * p, p);
                let out = RowsMut::new(new, near + c * p, x);
                let a = Left::rows(old, near + c * p, x);
                multiply(line.isa, [count, p, p], a, rows, out, false);
            }
        }
        for (k, emitted) in emitted.iter().enumerate().take(m) {
            let (near, xk) = (self.ports.near[k], self.ports.widths[k]);
            let [_, against] = line.mixers[k].seen(self.rightward);
            let rows = Rows::new(emitted, 0, xk);
            let out = RowsMut::new(new, 0, x);
            let a = Left::rows(old, near, x);
            multiply(line.isa, [count, xk, against.states], a, rows, out, true);
        }
    }

    /// `O_m <- L^n O_m + sum_j L^(n-1-j) B v[j]`.
    fn advance(
        &self,
        mixer: &MixerTables<T>,
        along: &Direction<T>,
        x: usize,
        (seen, v): (&[T], &[T]),
        out: &mut [T],
    ) {
        let (p, parts, n) = (along.p, mixer.parts, self.n);
        for c in 0..mixer.channels {
            let rows = Rows::new(seen, c * p * x, x);
            let power = Left::rows(&along.powers[n], c * p * p, p);
            multiply(
                self.line.isa,
                [p, x, p],
                power,
                rows,
                RowsMut::new(out, c * p * x, x),
                false,
            );
            for part in 0..parts {
                let inject = Left {
                    data: &along.inject,
                    origin: ((c * (mixer.reach + 1) + n - 1) * parts + part) * p,
                    row: 1,
                    column: -((parts * p) as isize),
                };
                let rows = self.signal(v, c * parts + part, x);
                multiply(
                    self.line.isa,
                    [p, x, n],
                    inject,
                    rows,
                    RowsMut::new(out, c * p * x, x),
                    true,
                );
            }
        }
    }

    fn signal<'v>(&self, v: &'v [T], component: usize, x: usize) -> Rows<'v, T> {
        Rows::new(v, component * self.line.step * x, x)
    }

    /// `N_m = sum_j L^j B v[j]`.
    fn emit(
        &self,
        mixer: &MixerTables<T>,
        against: &Direction<T>,
        x: usize,
        v: &[T],
        out: &mut [T],
    ) {
        let (p, parts) = (against.p, mixer.parts);
        for c in 0..mixer.channels {
            for part in 0..parts {
                let inject = Left {
                    data: &against.inject,
                    origin: (c * (mixer.reach + 1) * parts + part) * p,
                    row: 1,
                    column: (parts * p) as isize,
                };
                let target = RowsMut::new(out, c * p * x, x);
                let rows = self.signal(v, c * parts + part, x);
                multiply(
                    self.line.isa,
                    [p, x, self.n],
                    inject,
                    rows,
                    target,
                    part > 0,
                );
            }
        }
    }

    /// `y_m` on the new sites, with the columns of the mixer's own ports.
    fn respond(&self, m: usize, (old, seen): (&Segment<T>, &[T]), v: &[T], y: &mut [T]) {
        let (line, n, step) = (self.line, self.n, self.line.step);
        let mixer = &line.mixers[m];
        let [along, against] = mixer.seen(self.rightward);
        let (x, wide) = (self.ports.widths[m], self.ports.widths[m + 1]);
        let (parts, reach) = (mixer.parts, mixer.reach);
        let forward = if self.rightward { 1 } else { -1 };
        for c in 0..mixer.channels {
            for part in 0..parts {
                let row = (c * parts + part) * step * wide;
                let read = Left {
                    data: &along.readout,
                    origin: (c * along.p * parts + part) * (reach + 1),
                    row: 1,
                    column: (parts * (reach + 1)) as isize,
                };
                let rows = Rows::new(seen, c * along.p * x, x);
                multiply(
                    line.isa,
                    [n, x, along.p],
                    read,
                    rows,
                    RowsMut::new(y, row, wide),
                    false,
                );
                for from in 0..parts {
                    let kernel = Left {
                        data: &mixer.toeplitz,
                        origin: ((c * parts + part) * parts + from) * (2 * reach + 1) + reach,
                        row: forward,
                        column: -forward,
                    };
                    let rows = self.signal(v, c * parts + from, x);
                    multiply(
                        line.isa,
                        [n, x, n],
                        kernel,
                        rows,
                        RowsMut::new(y, row, wide),
                        true,
                    );
                }
                let p = against.p;
                for j in 0..n {
                    let out = &mut y[row + j * wide + self.ports.near[m] + c * p..][..p];
                    for (q, out) in out.iter_mut().enumerate() {
                        let at = ((c * p + q) * parts + part) * (reach + 1) + n - 1 - j;
                        *out = against.readout[at];
                    }
                }
                if line.ring {
                    let rows = Rows::new(&old.through[m][0], c * along.p * along.p, along.p);
                    let out = RowsMut::new(y, row + self.ports.far[m] + c * along.p, wide);
                    multiply(line.isa, [n, along.p, along.p], read, rows, out, false);
                }
            }
        }
    }

    /// `L^len` and its transpose.
    fn pass(&self, channels: usize, d: &Direction<T>, old: &[Vec<T>], new: &mut [Vec<T>]) {
        let p = d.p;
        let (plain, transposed) = new.split_at_mut(1);
        let rows = |data, c: usize| Rows::new(data, c * p * p, p);
        for c in 0..channels {
            let power = Left::rows(&d.powers[self.n], c * p * p, p);
            let target = RowsMut::new(&mut plain[0], c * p * p, p);
            multiply(
                self.line.isa,
                [p, p, p],
                power,
                rows(&old[0], c),
                target,
                false,
            );
            let before = Left::rows(&old[1], c * p * p, p);
            let power = rows(&d.transposed[self.n], c);
            let target = RowsMut::new(&mut transposed[0], c * p * p, p);
            multiply(self.line.isa, [p, p, p], before, power, target, false);
        }
    }

    fn pool(&self, old: &Segment<T>, new: &mut Segment<T>, s: &Scratch<T>) {
        let (line, layout, step) = (self.line, self.line.layout, self.line.step);
        let all = line.mixers.len();
        let (h, x) = (layout.features, self.ports.widths[all]);
        self.substitute(all, h, &old.features, &mut new.features, &s.emitted);
        new.total.copy_from_slice(&old.total);
        for j in 0..self.n {
            let block = &self.blocks[j * layout.size..][..layout.size];
            for (total, q) in new.total.iter_mut().zip(&block[layout.constant..]) {
                *total += q.widened();
            }
            for &(k, at) in &layout.readout {
                let (mixer, wide) = (&line.mixers[k], self.ports.widths[k + 1]);
                let a = Left {
                    data: block,
                    origin: at,
                    row: 1,
                    column: layout.padded as isize,
                };
                let rows = Rows::new(&s.y[k], j * wide, step * wide);
                let out = RowsMut::new(&mut new.features, 0, x);
                multiply(line.isa, [h, wide, mixer.width], a, rows, out, true);
            }
        }
        // constants add up in f64
        for (r, total) in new.total.iter_mut().enumerate() {
            *total += new.features[r * x].widened();
            new.features[r * x] = T::default();
        }
    }
}
