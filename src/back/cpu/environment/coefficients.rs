//! Local coefficients of single sites, from compiled code.
//!
//! The graph of [`Vertices`] has no mixers, so a site's coefficients are the same
//! wherever its window of spins is. Two ways to read them, both by the network's
//! own compiled kernels in working precision:
//!
//! * *tables*: one run over a de Bruijn chain, in which every pattern occurs, fills
//!   a table per coefficient whose window is short, indexed by the spins in it;
//! * *runs* over a short open chain that contains the sites asked for and what they
//!   see: of the other coefficients, or of all at the ends of an open chain.
//!
//! Where a few spins were flipped, only coefficients that see them are looked at.

use super::features::{CHUNK, Features};
use super::placing::{Element, Entry, Fixed, Placed, Placing};
use super::segment::{SiteLayout, Window};
use crate::back::cpu::compiled::{CompileError, Compiled};
use crate::back::cpu::exec::SiteValues;
use crate::back::cpu::simd::Real;
use crate::back::cpu::work::work;
use crate::interp::{Context, Tensor};
use crate::ir::{Boundary, Graph, Lattice, NodeId};
use crate::kernel::table::de_bruijn;
use crate::pass::vertices::Vertices;

/// Spins of the largest pattern for which tables are made.
const TABLE_BITS: usize = 14;

/// Bytes of a table, at most.
const TABLE_BYTES: usize = 16 << 20;

/// Tokens evaluated at once beyond those that are only seen, at least.
const STRETCH: usize = 16;

/// A table of one coefficient: the bits of its window as index.
struct Table<T> {
    shift: usize,
    mask: usize,
    rows: Vec<T>,
}

/// Code for some of the coefficients.
struct Run<T: Real> {
    compiled: Compiled<T>,
    /// The coefficients, as numbers of [`Placed`].
    which: Vec<usize>,
    /// Where every site output of the graph is among those of the code.
    rows: Vec<usize>,
}

/// Tokens that were flipped, as numbers of the sites that are fetched: from one to
/// another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flipped {
    pub first: isize,
    pub last: isize,
    /// Whether tokens count downwards.
    pub backward: bool,
}

impl Flipped {
    /// Whether a coefficient of a site sees them.
    pub fn seen(&self, window: Window, site: usize) -> bool {
        let Some([lo, hi]) = window else {
            return false;
        };
        let (near, far) = (self.first - site as isize, self.last - site as isize);
        let (near, far) = if self.backward {
            (-far, -near)
        } else {
            (near, far)
        };
        far as i64 >= lo && near as i64 <= hi
    }
}

/// Sites to fetch: the token of the first one, how many, whether tokens count
/// downwards, and if given what was flipped: only what sees it is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub first: usize,
    pub count: usize,
    pub backward: bool,
    pub flipped: Option<Flipped>,
}

impl Wanted {
    fn has(&self, placed: &Placed, site: usize) -> bool {
        self.flipped.is_none_or(|f| f.seen(placed.window, site))
    }
}

/// See the [module](self).
pub(super) struct Coefficients<T: Real> {
    pub layout: SiteLayout,
    graph: Graph,
    /// Spins per token.
    token: usize,
    tokens: usize,
    ring: bool,
    /// First and last token a site sees.
    pub window: [i64; 2],
    /// The same for what is tabulated.
    pattern: [i64; 2],
    placed: Vec<Placed>,
    fixed_nodes: Vec<Fixed>,
    fixed: Vec<f64>,
    /// Of all coefficients, where tables do not hold.
    every: Option<Run<T>>,
    /// Of those without a table.
    rest: Option<Run<T>>,
    patterns: Option<Run<T>>,
    tables: Vec<(usize, Table<T>)>,
}

impl<T: Real> Coefficients<T> {
    /// Compiles the graph for a chain or ring with these parameters.
    pub fn new(
        vertices: Vertices,
        lattice: Lattice,
        theta: &[f64],
        features: &Features,
    ) -> Result<Coefficients<T>, CompileError> {
        let token = vertices.token.0[0];
        let tokens = lattice.extent[0] / token;
        let window = vertices.window();
        let ring = lattice.boundary == Boundary::Periodic;
        let mut place = Placing::default();
        place.all(&vertices, features.count);
        let compile = |tokens: usize, which: Vec<usize>| {
            Run::new(&vertices, &place, theta, tokens * token, which)
        };
        let (some, pattern) = tabulated(&place.placed, token, size_of::<T>());
        let mut patterns = None;
        if !some.is_empty() {
            let order = (pattern[1] - pattern[0] + 1) as usize;
            let chain = (1usize << (order * token)) + order - 1;
            // without tables everything is evaluated by runs
            patterns = compile(chain, some.clone()).ok();
        }
        let seen = (window[1] - window[0]) as usize;
        let length = seen + STRETCH.max(seen + 1);
        let length = if ring { length } else { length.min(tokens) };
        let (mut every, mut rest) = (None, None);
        if !ring || patterns.is_none() {
            every = Some(compile(length, (0..place.placed.len()).collect())?);
        }
        let others: Vec<usize> = (0..place.placed.len())
            .filter(|p| !some.contains(p))
            .collect();
        if patterns.is_some() && !others.is_empty() {
            rest = Some(compile(length, others)?);
        }
        let mut coefficients = Coefficients {
            layout: place.layout,
            graph: vertices.graph,
            token,
            tokens,
            ring,
            window,
            pattern,
            placed: place.placed,
            fixed_nodes: place.fixed,
            fixed: Vec::new(),
            every,
            rest,
            patterns,
            tables: Vec::new(),
        };
        coefficients.fill(theta, features)?;
        Ok(coefficients)
    }

    /// Follows new parameters.
    pub fn set_params(&mut self, theta: &[f64], features: &Features) -> Result<(), CompileError> {
        let runs = self.every.iter_mut().chain(&mut self.rest);
        for run in runs.chain(&mut self.patterns) {
            let prepared = run.compiled.prepare(theta)?;
            run.compiled.install(prepared);
        }
        self.fill(theta, features)
    }

    /// How coefficients are found.
    pub fn describe(&self) -> &'static str {
        match (&self.patterns, &self.rest) {
            (Some(_), None) => "looked up",
            (Some(_), Some(_)) => "looked up where windows are short",
            (None, _) => "evaluated",
        }
    }

    /// Work of finding them for one proposal, in the units of [`work`].
    pub fn work(&self) -> f64 {
        let run = if self.patterns.is_some() {
            &self.rest
        } else {
            &self.every
        };
        run.as_ref().map_or(0.0, |run| {
            let numbers: usize = run.which.iter().map(|&p| self.placed[p].len).sum();
            let seen = (self.window[1] - self.window[0] + 1) as f64;
            work(run.compiled.program()) + 4.0 * seen * numbers as f64
        })
    }

    /// Bytes of the tables.
    pub fn bytes(&self) -> usize {
        let rows = |t: &(usize, Table<T>)| t.1.rows.len() * size_of::<T>();
        self.tables.iter().map(rows).sum()
    }

    /// The table of a coefficient, a number of [`Placed`]: all of a pattern, then of the
    /// next; the first spin of its own window is the lowest bit.
    pub fn rows(&self, coefficient: usize) -> Option<&[T]> {
        self.tables
            .iter()
            .find(|t| t.0 == coefficient)
            .map(|t| &t.1.rows[..])
    }

    /// Constants and tables.
    fn fill(&mut self, theta: &[f64], features: &Features) -> Result<(), CompileError> {
        self.fixed = constants(&self.graph, &self.fixed_nodes, theta, self.token)?;
        self.tables.clear();
        let Some(patterns) = &self.patterns else {
            return Ok(());
        };
        let (letters, order) = (
            1usize << self.token,
            (self.pattern[1] - self.pattern[0] + 1) as usize,
        );
        let cycle = de_bruijn(letters, order);
        let chain: Vec<usize> = cycle.iter().chain(&cycle[..order - 1]).copied().collect();
        let spins: Vec<i8> = chain
            .iter()
            .flat_map(|&letter| {
                (0..self.token).map(move |b| if letter >> b & 1 == 1 { 1 } else { -1 })
            })
            .collect();
        let mut tables: Vec<(usize, Table<T>, Vec<bool>)> = (patterns.which.iter())
            .map(|&p| {
                let placed = &self.placed[p];
                let own = bits(placed.window, self.token);
                let first = placed
                    .window
                    .map_or(0, |w| (w[0] - self.pattern[0]) as usize);
                let table = Table {
                    shift: first * self.token,
                    mask: (1 << own) - 1,
                    rows: vec![T::default(); placed.len << own],
                };
                (p, table, vec![false; 1 << own])
            })
            .collect();
        let mut block = vec![T::default(); self.layout.size];
        patterns.compiled.evaluate_sites(&spins, &mut |_, sites| {
            let mut bits = 0usize;
            for (at, letter) in chain.iter().enumerate() {
                // the first token of the window is the lowest digit
                bits = bits >> self.token | letter << (self.token * (order - 1));
                let Some(first) = (at + 1).checked_sub(order) else {
                    continue;
                };
                let site = (first as i64 - self.pattern[0]) as usize;
                for (p, table, known) in &mut tables {
                    let placed = &self.placed[*p];
                    let key = bits >> table.shift & table.mask;
                    if std::mem::replace(&mut known[key], true) {
                        continue;
                    }
                    let own = &mut block[placed.start..placed.start + placed.len];
                    self.read(placed, (&patterns.rows, sites), site, features, own);
                    table.rows[key * placed.len..][..placed.len].copy_from_slice(own);
                }
            }
        });
        self.tables = tables.into_iter().map(|(p, table, _)| (p, table)).collect();
        Ok(())
    }

    fn read(
        &self,
        placed: &Placed,
        (rows, sites): (&[usize], &[SiteValues<T>]),
        site: usize,
        features: &Features,
        out: &mut [T],
    ) {
        out.fill(T::default());
        let value = |entry: &Entry| match entry.element {
            Element::Site(k) => sites[rows[k]].at(site),
            Element::Fixed(k) => self.fixed[k],
        };
        for entry in placed.entries.iter().filter(|e| e.pooled.is_none()) {
            out[entry.to - placed.start] = T::rounded(value(entry));
        }
        // the pooled components of one column follow each other
        let column = |a: &Entry, b: &Entry| a.to == b.to;
        for entries in placed.entries.chunk_by(column) {
            if entries[0].pooled.is_none() {
                continue;
            }
            let to = &mut out[entries[0].to - placed.start..][..features.count];
            for (k, to) in to.chunks_mut(CHUNK).enumerate() {
                let mut sums = [0.0; CHUNK];
                for (r, entry) in entries.iter().filter_map(|e| Some((e.pooled?, e))) {
                    let x = value(entry);
                    let weights = &features.weights(r)[k * CHUNK..][..CHUNK];
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum += weight * x;
                    }
                }
                to.iter_mut()
                    .zip(sums)
                    .for_each(|(to, sum)| *to = T::rounded(sum));
            }
        }
    }

    /// Blocks of tokens, upwards or downwards, around a ring if need be. Coefficients
    /// that are not wanted are left alone.
    pub fn fetch(
        &self,
        spins: &[i8],
        wanted: Wanted,
        features: &Features,
        patch: &mut Vec<i8>,
        out: &mut [T],
    ) {
        let Wanted { first, count, .. } = wanted;
        let size = self.layout.size;
        let token = |k: usize| {
            if wanted.backward {
                (first + self.tokens - k % self.tokens) % self.tokens
            } else {
                (first + k) % self.tokens
            }
        };
        let known = |k: usize| !self.tables.is_empty() && self.inside(token(k));
        for k in (0..count).filter(|&k| known(k)) {
            self.look_up(spins, token(k), (&wanted, k), &mut out[k * size..][..size]);
        }
        let mut k = 0;
        while k < count {
            let run = if known(k) { &self.rest } else { &self.every };
            let asked = |run: &&Run<T>| {
                let mut all = run.which.iter();
                all.any(|&p| wanted.has(&self.placed[p], k))
            };
            let Some(run) = run.as_ref().filter(asked) else {
                k += 1;
                continue;
            };
            // as many as one run gives
            let same = (k..count).take_while(|&j| known(j) == known(k)).count();
            let part = (token(k), k, same);
            k += self.evaluate(run, spins, (&wanted, part), features, patch, out);
        }
    }

    /// Whether all a token sees lies on the chain.
    fn inside(&self, token: usize) -> bool {
        let (lo, hi) = (token as i64 + self.window[0], token as i64 + self.window[1]);
        self.ring || (lo >= 0 && hi < self.tokens as i64)
    }

    fn look_up(&self, spins: &[i8], token: usize, (wanted, k): (&Wanted, usize), out: &mut [T]) {
        let sites = spins.len();
        let length = (self.pattern[1] - self.pattern[0] + 1) as usize * self.token;
        let start = token as i64 + self.pattern[0];
        let mut at = start.rem_euclid(self.tokens as i64) as usize * self.token;
        let mut bits = 0;
        for b in 0..length {
            bits |= usize::from(spins[at] > 0) << b;
            at += 1;
            if at == sites {
                at = 0;
            }
        }
        for (p, table) in &self.tables {
            let placed = &self.placed[*p];
            if wanted.has(placed, k) {
                let key = bits >> table.shift & table.mask;
                let row = &table.rows[key * placed.len..][..placed.len];
                out[placed.start..placed.start + placed.len].copy_from_slice(row);
            }
        }
    }

    /// One run of compiled code: blocks from site k, token `here`, on, `most` at most;
    /// returns how many.
    fn evaluate(
        &self,
        run: &Run<T>,
        spins: &[i8],
        (wanted, (here, k, most)): (&Wanted, (usize, usize, usize)),
        features: &Features,
        patch: &mut Vec<i8>,
        out: &mut [T],
    ) -> usize {
        let length = run.compiled.lattice().extent[0] / self.token;
        let (before, after) = (-self.window[0], self.window[1]);
        let tokens = self.tokens as i64;
        // tokens of the patch whose values are right
        let valid = |start: i64| {
            let open = |end: bool| !self.ring && end;
            let lo = if open(start == 0) { 0 } else { start + before };
            let end = start + length as i64;
            (
                lo,
                if open(end == tokens) {
                    end
                } else {
                    end - after
                },
            )
        };
        let here = here as i64;
        let mut start = if wanted.backward {
            here + after + 1 - length as i64
        } else {
            here - before
        };
        if !self.ring {
            start = start.clamp(0, tokens - length as i64);
        }
        let (lo, hi) = valid(start);
        patch.clear();
        for k in start..start + length as i64 {
            let at = k.rem_euclid(tokens) as usize * self.token;
            patch.extend_from_slice(&spins[at..at + self.token]);
        }
        let mut done = 0;
        run.compiled.evaluate_sites(patch, &mut |_, sites| {
            while done < most {
                let site = if wanted.backward {
                    here - done as i64
                } else {
                    here + done as i64
                };
                if site < lo || site >= hi {
                    break;
                }
                let block = &mut out[(k + done) * self.layout.size..][..self.layout.size];
                let all = run.which.iter().map(|&p| &self.placed[p]);
                for placed in all.filter(|placed| wanted.has(placed, k + done)) {
                    let own = &mut block[placed.start..placed.start + placed.len];
                    let site = (site - start) as usize;
                    self.read(placed, (&run.rows, sites), site, features, own);
                }
                done += 1;
            }
        });
        debug_assert!(
            done > 0,
            "a run evaluates at least the token it is made for"
        );
        done.max(1)
    }
}

impl<T: Real> Run<T> {
    fn new(
        vertices: &Vertices,
        place: &Placing,
        theta: &[f64],
        spins: usize,
        which: Vec<usize>,
    ) -> Result<Run<T>, CompileError> {
        let mut used = vec![false; place.outputs];
        for entry in which.iter().flat_map(|&p| &place.placed[p].entries) {
            if let Element::Site(k) = entry.element {
                used[k] = true;
            }
        }
        let (mut rows, mut sites, mut count) = (vec![0; place.outputs], Vec::new(), 0);
        for (k, &node) in place.sites.iter().enumerate() {
            let end = place.starts.get(k + 1).copied().unwrap_or(place.outputs);
            let own = place.starts[k]..end;
            if used[own.clone()].contains(&true) {
                sites.push(node);
                for (row, at) in rows[own].iter_mut().zip(count..) {
                    *row = at;
                }
                count += end - place.starts[k];
            }
        }
        let chain = Lattice::chain(spins, Boundary::Open);
        let graph = vertices.graph.clone();
        Ok(Run {
            compiled: Compiled::without_tables(graph, chain, theta, &sites)?,
            which,
            rows,
        })
    }
}

/// Spins in a window.
fn bits(window: Window, token: usize) -> usize {
    window.map_or(0, |w| (w[1] - w[0] + 1) as usize) * token
}

/// The coefficients with tables, shortest windows first while all fit one pattern, and
/// that pattern.
fn tabulated(placed: &[Placed], token: usize, number: usize) -> (Vec<usize>, [i64; 2]) {
    let mut order: Vec<usize> = (0..placed.len()).collect();
    order.sort_by_key(|&p| bits(placed[p].window, token));
    let (mut some, mut pattern): (Vec<usize>, Window) = (Vec::new(), None);
    for p in order {
        let Placed { window, len, .. } = placed[p];
        let own = bits(window, token);
        let both = match (pattern, window) {
            (Some(a), Some(b)) => Some([a[0].min(b[0]), a[1].max(b[1])]),
            (a, b) => a.or(b),
        };
        if bits(both, token) <= TABLE_BITS && (len * number) << own <= TABLE_BYTES {
            pattern = both;
            some.push(p);
        }
    }
    (some, pattern.unwrap_or([0, 0]))
}

/// Constant elements of the graph.
pub(super) fn constants(
    graph: &Graph,
    wanted: &[Fixed],
    theta: &[f64],
    token: usize,
) -> Result<Vec<f64>, CompileError> {
    use crate::back::cpu::constants::ConstantError;
    use crate::check::core::Dim;
    let mut params = Vec::new();
    let mut at = 0;
    for p in &graph.params {
        let shape: Vec<usize> =
            p.ty.shape
                .iter()
                .map(|d| match d {
                    Dim::Static(n) => *n,
                    // refused when the graph was made
                    Dim::Sites { .. } => 0,
                })
                .collect();
        let len = shape.iter().product::<usize>();
        params.push(Tensor {
            shape,
            data: theta[at..at + len].to_vec(),
        });
        at += len;
    }
    let lattice = Lattice::chain(token, Boundary::Open);
    let spins = vec![1; token];
    let context = Context::new(lattice, &params, &spins).map_err(ConstantError::from)?;
    let roots: Vec<NodeId> = wanted.iter().map(|w| w.0).collect();
    let values = super::values(graph, &context, &roots)?;
    Ok(wanted.iter().map(|(n, e)| values[n].data[*e]).collect())
}
