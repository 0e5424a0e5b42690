//! What a sweep finds where: the plan the kernel reads, and its tables.
//!
//! Every index below has its name in `namespace plan` of kernels/environment/plan.cuh.

use super::count::Products;
use crate::back::cpu::environment::description::{Description, Mixer, Way};

/// Numbers of the first part of the plan.
pub(super) const HEAD: usize = 62;
/// Numbers per mixer: its own, then directions, then sides of segments.
pub(super) const RECORD: usize = SIDES + 2 * SIDE;
const DIRECTIONS: usize = 26;
const SIDES: usize = DIRECTIONS + 2 * DIRECTION;
/// Numbers per direction.
const DIRECTION: usize = 12;
/// Numbers per side.
const SIDE: usize = 9;
/// Numbers per piece.
const PIECE: usize = 5;
/// Columns that a segment grows by at once where shared memory holds none.
const WIDE: usize = 32;
/// Segments that come and go: two behind, two ahead.
const SPARE: usize = 4;

/// Where the plan says that ratios are wanted.
pub(super) const RATIOS: usize = HEAD - 1;

/// Limits of the memory of one block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Bytes of shared memory, and those before them that are taken.
    pub shared: usize,
    /// See above.
    pub taken: usize,
    /// Bytes of workspace one would like to stay below.
    pub workspace: usize,
    /// Bytes of a number in working precision.
    pub real: usize,
    /// Results on sites of the coefficients' program, results of the readout.
    pub patch_rows: usize,
    /// See above.
    pub results: usize,
}

/// A plan with its tables.
pub(super) struct Plan {
    /// What the kernel reads: the plan, then the terms of coefficients.
    pub numbers: Vec<i32>,
    /// Constants in working precision.
    pub tables: Vec<f64>,
    /// Constants in f64.
    pub tables64: Vec<f64>,
    /// Doubles of workspace of a block.
    pub workspace: usize,
    /// Multiply-adds per proposal.
    pub products: f64,
}

/// Memory of a block as it is dealt out.
struct Memory {
    own: usize,
    shared: usize,
    limit: usize,
}

impl Memory {
    /// An array of the workspace: its rows may be read four numbers at once.
    fn cold(&mut self, numbers: usize) -> i32 {
        self.own = self.own.next_multiple_of(4) + numbers;
        (self.own - numbers) as i32
    }
    /// An array that had better be in shared memory.
    fn hot(&mut self, numbers: usize) -> i32 {
        if self.shared + numbers > self.limit {
            return self.cold(numbers);
        }
        self.shared += numbers;
        !((self.shared - numbers) as i32)
    }
}

/// The block of columns that a step of growth takes at once.
struct Block {
    /// Columns at most, and numbers between rows: odd, so that rows lie in different banks.
    columns: usize,
    apart: usize,
    /// Numbers of what the new sites receive, and of states of the old ones before that.
    inputs: usize,
    states: usize,
}

impl Block {
    /// As wide as fits `limit` numbers of shared memory, but not wider than a port.
    fn new(d: &Description, limit: usize) -> Block {
        let ways = || d.mixers.iter().flat_map(|m| &m.directions);
        let width = d.mixers.iter().map(|m| m.width).max().unwrap_or(0);
        let states = ways().map(|w| w.states).max().unwrap_or(0);
        let p = ways().map(|w| w.p).max().unwrap_or(0);
        let rows = d.step * width + states;
        // whole channels, or tiles of four columns; less than two of these are not worth it
        let fit = (limit / rows.max(1)).saturating_sub(1);
        let columns = match fit {
            ..8 => WIDE,
            _ if p > 0 && fit >= p => fit / p * p,
            _ => fit / 4 * 4,
        };
        let columns = columns.min(states).max(1);
        let apart = columns | 1;
        Block {
            columns,
            apart,
            // rows of the segment are put there first, at least one at a time
            inputs: (d.step * width * apart).max(columns.max(p) | 1),
            states: states * apart,
        }
    }

    /// Its arrays, with those of the terms that features gain. A proposal has no use for
    /// them, nor they for what it keeps in shared memory, which is all used again.
    fn place(&self, memory: &mut Memory, d: &Description) -> [i32; 3] {
        let used = std::mem::take(&mut memory.shared);
        let channels = d.mixers.iter().map(|m| m.channels).max().unwrap_or(0);
        let terms = (d.step + channels) * d.features.len() * self.columns;
        let arrays = [self.inputs, self.states, terms].map(|n| memory.hot(n));
        memory.shared = memory.shared.max(used);
        arrays
    }
}

/// Columns and parts of a segment that grows one way.
struct Segment {
    /// Per mixer: near, far, columns, out, far out, L^len along, against.
    sides: Vec<[usize; SIDE]>,
    columns: usize,
    features: usize,
    size: usize,
}

impl Segment {
    fn new(d: &Description, rightward: bool) -> Segment {
        let (mut sides, mut at, mut columns) = (Vec::new(), 0, 1);
        for m in &d.mixers {
            let [along, against] = if rightward { [0, 1] } else { [1, 0] };
            let own = columns;
            let near = own;
            let far = near + m.directions[against].states;
            columns = far
                + if d.ring {
                    m.directions[along].states
                } else {
                    0
                };
            let mut take = |n: usize| {
                at += n;
                at - n
            };
            let out = take(m.directions[along].states * own);
            let mut side = [near, far, own, out, 0, 0, 0, 0, 0];
            if d.ring {
                side[4] = take(m.directions[against].states * own);
                for (k, way) in [along, along, against, against].into_iter().enumerate() {
                    side[5 + k] = take(m.channels * m.directions[way].p.pow(2));
                }
            }
            sides.push(side);
        }
        Segment {
            sides,
            columns,
            features: at,
            size: at + d.features.len() * columns,
        }
    }
}

/// The tables of a direction in the order of the plan, with those that neighbouring
/// threads read together: `[state of a channel][tokens][component]` of what is read, and
/// `[tokens][part][state]` of what is sent.
fn lanes(m: &Mixer, way: &Way) -> Vec<Vec<f64>> {
    let (p, states, parts, stretch) = (way.p, way.states, m.parts, m.reach + 1);
    let [
        powers,
        transposed,
        inject,
        inject_back,
        read,
        _,
        sent,
        sent_back,
        closure,
    ] = &way.tables;
    let (mut reading, mut sending) = (vec![0.0; read.len()], vec![0.0; sent.len()]);
    for channel in 0..if p > 0 { m.channels } else { 0 } {
        for j in 0..stretch {
            for part in 0..parts {
                let component = part * m.channels + channel;
                for t in 0..p {
                    reading[(t * stretch + j) * m.width + component] =
                        read[((channel * stretch + j) * parts + part) * p + t];
                    sending[(j * parts + part) * states + channel * p + t] =
                        sent[((channel * p + t) * stretch + j) * parts + part];
                }
            }
        }
    }
    let first = [powers, transposed, inject, inject_back, read].map(Clone::clone);
    let then = [sent, sent_back, closure].map(Clone::clone);
    let mut all = first.to_vec();
    all.push(reading);
    all.extend(then);
    all.push(sending);
    all
}

/// Where pieces and vertices are in the plan, and its length.
fn places(d: &Description) -> (usize, usize, usize) {
    let first_piece = HEAD + d.mixers.len() * RECORD;
    let first_vertex = first_piece + d.pieces.len() * PIECE;
    let vertices: usize = d.mixers.iter().map(|m| m.vertices.len()).sum();
    (first_piece, first_vertex, first_vertex + 2 * vertices)
}

/// Bytes of shared memory that the plan takes, at its end.
pub(super) fn bytes(d: &Description) -> usize {
    8 * places(d).2.div_ceil(2)
}

impl Plan {
    /// Lays everything out.
    pub fn new(d: &Description, room: Room) -> Plan {
        let (h, mixers, pieces) = (d.features.len(), d.mixers.len(), d.pieces.len());
        let segments = [true, false].map(|right| Segment::new(d, right));
        let size = segments[0].size.max(segments[1].size).next_multiple_of(4);
        let (first_piece, first_vertex, length) = places(d);
        let place = room.shared - bytes(d);
        let free = place.saturating_sub(room.taken);
        let mut memory = Memory {
            own: 0,
            shared: 0,
            limit: free / room.real,
        };
        let mut tables = Vec::new();
        let mut table = |numbers: &[f64]| {
            // tables begin on 128-byte lines
            tables.resize(tables.len().next_multiple_of(32), 0.0);
            tables.extend_from_slice(numbers);
            (tables.len() - numbers.len()) as i32
        };
        let mut n = vec![0; length];
        let states = |m: &Mixer| m.directions[0].states.max(m.directions[1].states);
        let most = |f: &dyn Fn(&Mixer) -> usize| d.mixers.iter().map(f).max().unwrap_or(0);
        let widest = most(&states);
        let wide = segments[0].columns.max(segments[1].columns);
        let first = &d.mixers[0];
        // what every proposal reads and writes comes first
        let into = [memory.hot(wide), memory.hot(wide)];
        let received = memory.hot(6 * widest);
        let entering = memory.hot(2 * widest);
        let leaving = memory.hot(2 * widest);
        let signals: Vec<[i32; 4]> = (d.mixers.iter())
            .map(|m| [(); 4].map(|()| memory.hot(d.most * m.width)))
            .collect();
        let pooled = [memory.hot(d.most * h), memory.hot(d.most * h)];
        let last = &d.mixers[mixers - 1];
        let leaving_last: usize = last.directions.iter().map(|w| w.states).sum();
        let read_entering = memory.hot(h * leaving_last);
        let read_inputs = memory.hot(h * d.most * last.width);
        let growth = Block::new(d, memory.limit);
        let [v, seen, gained] = growth.place(&mut memory, d);
        let slice = memory.cold(d.most * d.block);
        let grown = memory.cold(d.step * d.block);
        let proposed = memory.cold(if d.patch.is_some() {
            d.most * d.block
        } else {
            0
        });
        let rows = d.most * first.width;
        let linked = memory.cold(rows * h);
        let before_last = segments.each_ref().map(|s| s.sides[mixers - 1][2]);
        let read_sides = before_last.map(|columns| memory.cold(h * columns));
        let read_leaving = memory.cold(h * leaving_last);
        let (mut sent, mut unclosed) = (0, 0);
        if d.ring {
            let both: usize = first.directions.iter().map(|w| w.states).sum();
            sent = memory.cold(both * first.parts * d.most);
            unclosed = memory.cold(first.parts * d.most * 2 * widest);
        }
        let mut vertex = first_vertex;
        for (k, m) in d.mixers.iter().enumerate() {
            let at = HEAD + k * RECORD;
            let [back, ahead] = m.window.map_or([-1, 0], |w| [w[1], -w[0]]);
            let both: usize = m.directions.iter().map(|w| w.states).sum();
            // the far ends of the last mixer matter to features only
            let far = d.ring && k + 1 < mixers;
            let size_of_links = (if far { 2 * both } else { both }).next_multiple_of(4);
            let links = if k == 0 { 0 } else { rows * size_of_links };
            let carried = if d.ring {
                m.channels * m.directions.iter().map(|w| w.p * w.p).max().unwrap_or(0)
            } else {
                0
            };
            // later mixers use what this one answers to a block of columns: the first has
            // no columns but the constants
            let answers = match k {
                _ if k + 1 == mixers => 0,
                0 => 1,
                _ => growth.apart,
            };
            let passed = if d.ring {
                states(m) * m.parts * d.step
            } else {
                0
            };
            let fields = [
                m.channels as i32,
                m.parts as i32,
                m.width as i32,
                m.padded as i32,
                m.reach as i32,
                table(&m.toeplitz),
                table(&m.lanes),
                m.source as i32,
                m.vertices.len() as i32,
                vertex as i32,
                m.readout.map_or(-1, |p| p as i32),
                back as i32,
                ahead as i32,
                memory.cold(d.step * m.width * answers),
                memory.cold(states(m) * answers),
                memory.cold(passed),
                memory.cold(passed),
                memory.cold(d.step * m.width * h),
                memory.cold(states(m) * h),
                signals[k][0],
                signals[k][1],
                signals[k][2],
                signals[k][3],
                memory.cold(links),
                memory.cold(carried),
                memory.cold(carried),
            ];
            n[at..at + DIRECTIONS].copy_from_slice(&fields);
            for (w, way) in m.directions.iter().enumerate() {
                let at = at + DIRECTIONS + w * DIRECTION;
                n[at..at + 2].copy_from_slice(&[way.p as i32, way.states as i32]);
                for (t, numbers) in lanes(m, way).iter().enumerate() {
                    n[at + 2 + t] = table(numbers);
                }
            }
            for (s, segment) in segments.iter().enumerate() {
                let at = at + SIDES + s * SIDE;
                for (to, x) in n[at..at + SIDE].iter_mut().zip(segment.sides[k]) {
                    *to = x as i32;
                }
            }
            for &(from, piece) in &m.vertices {
                n[vertex..vertex + 2].copy_from_slice(&[from as i32, piece as i32]);
                vertex += 2;
            }
        }
        for (k, p) in d.pieces.iter().enumerate() {
            let spins = d.token as i64;
            n[first_piece + k * PIECE..][..PIECE].copy_from_slice(&[
                p.start as i32,
                p.len as i32,
                (p.window[0] * spins) as i32,
                (p.window[1] * spins) as i32,
                if p.rows.is_empty() {
                    -1
                } else {
                    table(&p.rows)
                },
            ]);
        }
        memory.own = memory.own.next_multiple_of(4);
        // doubles, whole numbers, and as many segments as the room allows
        let blocks = d.tokens.div_ceil(d.step);
        let places = (d.most * pieces).div_ceil(2);
        let doubles = |own: usize, kept: usize| {
            let reals = own + (SPARE + kept) * size;
            let reals = (reals * room.real).div_ceil(8).next_multiple_of(4);
            (reals, reals + (SPARE + kept) * h + 2 * h + places)
        };
        let kept = |spacing: usize| match spacing {
            1 => blocks,
            c => blocks.div_ceil(c) + c,
        };
        let root = ((blocks as f64).sqrt().ceil() as usize).max(1);
        let fits = |c: &usize| 8 * doubles(memory.own, kept(*c)).1 <= room.workspace;
        let spacing = (1..root).find(fits).unwrap_or(root);
        let (reals, all) = doubles(memory.own, kept(spacing));
        let own = all.next_multiple_of(4);
        let totals = reals;
        let change = totals + (SPARE + kept(spacing)) * h;
        let mut rows: Vec<i32> = vec![0; d.block + 1];
        d.terms.iter().for_each(|t| rows[t.0 + 1] += 1);
        for k in 0..d.block {
            rows[k + 1] += rows[k];
        }
        rows.extend(d.terms.iter().map(|t| t.1 as i32));
        let head = [
            length,
            mixers,
            usize::from(d.ring),
            d.tokens,
            d.token,
            d.step,
            d.reach[0],
            d.reach[1],
            h,
            d.column,
            d.block,
            d.constant,
            pieces,
            first_piece,
            HEAD,
            spacing,
            size,
            SPARE + blocks.div_ceil(spacing),
            usize::from(d.tabulated),
        ];
        let mut k = 0;
        let mut put = |x: i32| {
            n[k] = x;
            k += 1;
        };
        head.iter().for_each(|&x| put(x as i32));
        d.window.iter().for_each(|&x| put(x as i32));
        put(d.patch.unwrap_or(0) as i32);
        put(length as i32);
        put(room.patch_rows as i32);
        put(room.results as i32);
        put((place / 8) as i32);
        put((room.taken / 8) as i32);
        put(own as i32);
        put(memory.shared as i32);
        segments.iter().for_each(|s| put(s.columns as i32));
        segments.iter().for_each(|s| put(s.features as i32));
        for at in [
            grown, slice, proposed, pooled[0], pooled[1], into[0], into[1],
        ] {
            put(at);
        }
        for at in [received, entering, leaving, sent, unclosed, linked] {
            put(at);
        }
        for at in [
            read_sides[0],
            read_sides[1],
            read_leaving,
            read_entering,
            read_inputs,
        ] {
            put(at);
        }
        for at in [v, seen, gained] {
            put(at);
        }
        put(growth.inputs as i32);
        put(growth.columns as i32);
        put(memory.own as i32);
        for at in [totals, change, change + h, change + 2 * h] {
            put(at as i32);
        }
        // whether ratios are wanted is known at the launch
        put(0);
        debug_assert_eq!(k, HEAD, "as the library has it");
        n.extend(rows);
        let mut tables64 = d.features.clone();
        tables64.extend(&d.base);
        tables64.extend(d.terms.iter().map(|t| t.2));
        Plan {
            numbers: n,
            tables,
            tables64,
            workspace: own,
            products: Products::new(d, spacing).total(),
        }
    }
}
