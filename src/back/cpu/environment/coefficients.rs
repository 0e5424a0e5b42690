//! Local coefficients of single sites, from compiled code.
//!
//! The graph of [`Vertices`] has no mixers, so a site's coefficients are the same
//! wherever its window of spins is. Two ways to read them, both by the network's
//! own compiled kernels in working precision:
//!
//! * *tables*: where all windows fit [`TABLE_BITS`] spins, one run over a de Bruijn
//!   chain, in which every pattern occurs, fills a table per coefficient, indexed
//!   by the coefficient's own window;
//! * *directly*: a run over a short open chain that contains the sites asked for
//!   and what they see. Always right, also at the ends of an open chain.

use super::features::Features;
use super::placing::{Element, Fixed, Placed, Placing};
use super::segment::SiteLayout;
use crate::back::cpu::compiled::{CompileError, Compiled};
use crate::back::cpu::exec::SiteValues;
use crate::back::cpu::simd::Real;
use crate::interp::{Context, Tensor};
use crate::ir::{Boundary, Graph, Lattice, NodeId};
use crate::pass::vertices::Vertices;

/// Spins of the largest window for which tables are made.
const TABLE_BITS: usize = 14;

/// Tokens evaluated at once beyond those that are only seen.
const STRETCH: usize = 24;

/// A table of one coefficient: the bits of its window as index.
struct Table<T> {
    shift: usize,
    mask: usize,
    rows: Vec<T>,
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
    placed: Vec<Placed>,
    fixed_nodes: Vec<Fixed>,
    fixed: Vec<f64>,
    direct: Option<Compiled<T>>,
    patterns: Option<Compiled<T>>,
    tables: Vec<Table<T>>,
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
        let Placing {
            layout,
            placed,
            sites,
            fixed: fixed_nodes,
            ..
        } = place;
        let bits = (window[1] - window[0] + 1) as usize * token;
        let compile = |tokens: usize| {
            let chain = Lattice::chain(tokens * token, Boundary::Open);
            Compiled::without_tables(vertices.graph.clone(), chain, theta, &sites)
        };
        let mut patterns = None;
        if bits <= TABLE_BITS {
            let order = bits / token;
            let chain = (1usize << bits) + order - 1;
            // without tables everything is evaluated directly
            patterns = compile(chain).ok();
        }
        let mut direct = None;
        if !ring || patterns.is_none() {
            let seen = (window[1] - window[0]) as usize;
            let count = seen + STRETCH;
            direct = Some(compile(if ring { count } else { count.min(tokens) })?);
        }
        let mut coefficients = Coefficients {
            layout,
            graph: vertices.graph,
            token,
            tokens,
            ring,
            window,
            placed,
            fixed_nodes,
            fixed: Vec::new(),
            direct,
            patterns,
            tables: Vec::new(),
        };
        coefficients.fill(theta, features)?;
        Ok(coefficients)
    }

    /// Follows new parameters.
    pub fn set_params(&mut self, theta: &[f64], features: &Features) -> Result<(), CompileError> {
        for compiled in self.direct.iter_mut().chain(&mut self.patterns) {
            let prepared = compiled.prepare(theta)?;
            compiled.install(prepared);
        }
        self.fill(theta, features)
    }

    /// Whether coefficients are looked up.
    pub fn tabulated(&self) -> bool {
        self.patterns.is_some()
    }

    /// The table of a coefficient, a number of [`Placed`]: all of a pattern, then of the
    /// next; the first spin of its own window is the lowest bit.
    pub fn rows(&self, coefficient: usize) -> Option<&[T]> {
        self.tables.get(coefficient).map(|t| &t.rows[..])
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
            (self.window[1] - self.window[0] + 1) as usize,
        );
        let cycle = de_bruijn(letters, order);
        let chain: Vec<usize> = cycle.iter().chain(&cycle[..order - 1]).copied().collect();
        let spins: Vec<i8> = chain
            .iter()
            .flat_map(|&letter| {
                (0..self.token).map(move |b| if letter >> b & 1 == 1 { 1 } else { -1 })
            })
            .collect();
        let mut tables: Vec<(Table<T>, Vec<bool>)> = self
            .placed
            .iter()
            .map(|p| {
                let own = p.window.map_or(0, |w| (w[1] - w[0] + 1) as usize) * self.token;
                let first = p.window.map_or(0, |w| (w[0] - self.window[0]) as usize);
                let table = Table {
                    shift: first * self.token,
                    mask: (1 << own) - 1,
                    rows: vec![T::default(); p.len << own],
                };
                (table, vec![false; 1 << own])
            })
            .collect();
        let mut block = vec![T::default(); self.layout.size];
        patterns.evaluate_sites(&spins, &mut |_, sites| {
            let mut bits = 0usize;
            for (at, letter) in chain.iter().enumerate() {
                // the first token of the window is the lowest digit
                bits = bits >> self.token | letter << (self.token * (order - 1));
                let Some(first) = (at + 1).checked_sub(order) else {
                    continue;
                };
                let site = (first as i64 - self.window[0]) as usize;
                for (placed, (table, known)) in self.placed.iter().zip(&mut tables) {
                    let key = bits >> table.shift & table.mask;
                    if std::mem::replace(&mut known[key], true) {
                        continue;
                    }
                    let own = &mut block[placed.start..placed.start + placed.len];
                    self.read(placed, sites, site, features, own);
                    table.rows[key * placed.len..][..placed.len].copy_from_slice(own);
                }
            }
        });
        self.tables = tables.into_iter().map(|(table, _)| table).collect();
        Ok(())
    }

    fn read(
        &self,
        placed: &Placed,
        sites: &[SiteValues<T>],
        site: usize,
        features: &Features,
        out: &mut [T],
    ) {
        out.fill(T::default());
        for entry in &placed.entries {
            let value = match entry.element {
                Element::Site(k) => sites[k].at(site),
                Element::Fixed(k) => self.fixed[k],
            };
            let to = entry.to - placed.start;
            match entry.pooled {
                None => out[to] = T::rounded(value),
                Some(r) => {
                    for (h, out) in out[to..].iter_mut().enumerate().take(features.count) {
                        let weight = features.weights[h * features.pooled + r];
                        *out = T::rounded(out.widened() + weight * value);
                    }
                }
            }
        }
    }

    /// Blocks of `count` tokens from `first` on, upwards or downwards, around a
    /// ring if need be.
    pub fn fetch(
        &self,
        spins: &[i8],
        (first, count, backward): (usize, usize, bool),
        features: &Features,
        patch: &mut Vec<i8>,
        out: &mut [T],
    ) {
        let size = self.layout.size;
        let token = |k: usize| {
            if backward {
                (first + self.tokens - k % self.tokens) % self.tokens
            } else {
                (first + k) % self.tokens
            }
        };
        let mut k = 0;
        while k < count {
            let here = token(k);
            if !self.tables.is_empty() && self.inside(here) {
                self.look_up(spins, here, &mut out[k * size..(k + 1) * size]);
                k += 1;
                continue;
            }
            // as many as one run gives
            let wanted = (here, count - k, backward);
            k += self.evaluate(spins, wanted, features, patch, &mut out[k * size..]);
        }
    }

    /// Whether all a token sees lies on the chain.
    fn inside(&self, token: usize) -> bool {
        let (lo, hi) = (token as i64 + self.window[0], token as i64 + self.window[1]);
        self.ring || (lo >= 0 && hi < self.tokens as i64)
    }

    fn look_up(&self, spins: &[i8], token: usize, out: &mut [T]) {
        let sites = spins.len();
        let length = (self.window[1] - self.window[0] + 1) as usize * self.token;
        let start = token as i64 + self.window[0];
        let mut at = start.rem_euclid(self.tokens as i64) as usize * self.token;
        let mut bits = 0;
        for b in 0..length {
            bits |= usize::from(spins[at] > 0) << b;
            at += 1;
            if at == sites {
                at = 0;
            }
        }
        for (placed, table) in self.placed.iter().zip(&self.tables) {
            let key = bits >> table.shift & table.mask;
            let row = &table.rows[key * placed.len..][..placed.len];
            out[placed.start..placed.start + placed.len].copy_from_slice(row);
        }
    }

    /// One run of the compiled graph: blocks from `here` on; returns how many.
    fn evaluate(
        &self,
        spins: &[i8],
        (here, run, backward): (usize, usize, bool),
        features: &Features,
        patch: &mut Vec<i8>,
        out: &mut [T],
    ) -> usize {
        let Some(direct) = &self.direct else {
            return run;
        };
        let length = direct.lattice().extent[0] / self.token;
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
        let mut start = if backward {
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
        direct.evaluate_sites(patch, &mut |_, sites| {
            while done < run {
                let site = if backward {
                    here - done as i64
                } else {
                    here + done as i64
                };
                if site < lo || site >= hi {
                    break;
                }
                let block = &mut out[done * self.layout.size..][..self.layout.size];
                for placed in &self.placed {
                    let own = &mut block[placed.start..placed.start + placed.len];
                    self.read(placed, sites, (site - start) as usize, features, own);
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

/// A cyclic sequence over `letters` letters in which every word of length `order`
/// occurs once (concatenated Lyndon words).
fn de_bruijn(letters: usize, order: usize) -> Vec<usize> {
    let mut word = vec![0; letters * order + 1];
    let mut sequence = Vec::new();
    // iterative form of the recursion over prefixes and their periods
    let mut stack = vec![(1usize, 1usize, 0usize)];
    while let Some((t, p, next)) = stack.pop() {
        if t > order {
            if order.is_multiple_of(p) {
                sequence.extend_from_slice(&word[1..=p]);
            }
            continue;
        }
        if next == 0 {
            word[t] = word[t - p];
            stack.push((t, p, word[t] + 1));
            stack.push((t + 1, p, 0));
        } else if next < letters {
            word[t] = next;
            stack.push((t, p, next + 1));
            stack.push((t + 1, t, 0));
        }
    }
    sequence
}

#[cfg(test)]
mod tests {
    use super::de_bruijn;
    use std::collections::BTreeSet;

    #[test]
    fn every_word_occurs_once() {
        for (letters, order) in [(2, 1), (2, 5), (4, 3), (8, 2), (4, 1)] {
            let s = de_bruijn(letters, order);
            assert_eq!(s.len(), letters.pow(order as u32));
            let words: BTreeSet<Vec<usize>> = (0..s.len())
                .map(|i| (0..order).map(|k| s[(i + k) % s.len()]).collect())
                .collect();
            assert_eq!(words.len(), s.len());
        }
    }
}
