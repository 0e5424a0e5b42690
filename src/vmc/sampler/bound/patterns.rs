//! Everything a local coefficient can be.
//!
//! A coefficient of the normal form depends on the few spins of its window. All
//! their configurations are evaluated, so that its range, its change by one flip
//! and its mixed change by two are known as they are, without interval arithmetic
//! through normalisations and nonlinearities. Sites that see the same code of the
//! same constants form a class and share what is found.

use super::NoBound;
use crate::check::core::{Place, Token, Window};
use crate::interp::{Context, Evaluation, Operand, Tensor, TokenLattice, eval_node};
use crate::ir::kinds::Dependence;
use crate::ir::{Boundary, NodeId, Op};
use crate::pass::abacus::Network;
use crate::vmc::rng::{ChainRng, Stream};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Most spins a coefficient may depend on.
pub(super) const MAX_SPINS: usize = 16;
/// Most numbers kept of one coefficient while its ranges are found.
const MAX_VALUES: usize = 1 << 24;
/// Configurations evaluated in parallel.
const BATCH: usize = 32;

/// The ranges of a coefficient of `width` numbers at every site.
pub(super) struct Ranges {
    /// Spins each site depends on.
    seen: Vec<Vec<usize>>,
    class_of: Vec<usize>,
    classes: Vec<Class>,
}

/// The ranges at the sites of a class; spins are numbered as the sites see them.
struct Class {
    middle: Vec<f64>,
    radius: Vec<f64>,
    /// Largest change by the flip of a spin.
    first: Vec<Vec<f64>>,
    /// Largest mixed change by the flips of spins b < a, at `a (a - 1) / 2 + b`.
    second: Vec<Vec<f64>>,
}

impl Ranges {
    /// The centre of the values at a site.
    pub(super) fn middle(&self, site: usize) -> &[f64] {
        &self.classes[self.class_of[site]].middle
    }
    /// How far from it they reach.
    pub(super) fn radius(&self, site: usize) -> &[f64] {
        &self.classes[self.class_of[site]].radius
    }
    /// Largest change when `spin` flips; none where the site does not see it.
    pub(super) fn first(&self, site: usize, spin: usize) -> Option<&[f64]> {
        let at = self.position(site, spin)?;
        Some(&self.classes[self.class_of[site]].first[at])
    }
    /// Largest mixed change when both spins flip; none where the site does not
    /// see both.
    pub(super) fn second(&self, site: usize, spins: [usize; 2]) -> Option<&[f64]> {
        let [a, b] = [
            self.position(site, spins[0])?,
            self.position(site, spins[1])?,
        ];
        let (low, high) = (a.min(b), a.max(b));
        if low == high {
            return None;
        }
        Some(&self.classes[self.class_of[site]].second[high * (high - 1) / 2 + low])
    }
    /// The spins a site sees.
    pub(super) fn seen(&self, site: usize) -> &[usize] {
        &self.seen[site]
    }

    fn position(&self, site: usize, spin: usize) -> Option<usize> {
        self.seen[site].iter().position(|&s| s == spin)
    }
}

/// Evaluates local code on whole configurations, with mixer outputs prescribed.
pub(super) struct Explorer<'a> {
    net: &'a Network<'a>,
    constants: &'a Evaluation,
    /// No constant distinguishes one site from another.
    uniform: bool,
    /// Spins per axis after which the lattice of tokens repeats.
    cell: [usize; 2],
}

impl<'a> Explorer<'a> {
    pub(super) fn new(
        net: &'a Network<'a>,
        constants: &'a Evaluation,
        uniform: bool,
        cell: [usize; 2],
    ) -> Self {
        Explorer {
            net,
            constants,
            uniform,
            cell,
        }
    }

    /// The ranges of the coefficient of mixer output `of` in a value; of what the
    /// value has without mixers for none.
    pub(super) fn ranges(
        &self,
        node: NodeId,
        of: Option<usize>,
        window: Option<Window>,
    ) -> Result<Ranges, NoBound> {
        let (Place::Site(token), tokens) = (self.net.graph.ty(node).place, self.net.tokens(node)?)
        else {
            return Err(NoBound::Operation("a value off the sites".to_owned()));
        };
        let seen: Vec<Vec<usize>> = (0..tokens.count())
            .map(|i| window.map_or_else(Vec::new, |w| self.spins_seen(w, token, tokens, i)))
            .collect();
        let widest = seen.iter().map(Vec::len).max().unwrap_or(0);
        let width = self.width(node) * of.map_or(1, |k| self.width(self.net.form.mixers[k].output));
        let class_of = self.classes(node, token, tokens);
        let count = class_of.iter().max().map_or(0, |c| c + 1);
        if widest > MAX_SPINS || (count * width) << widest > MAX_VALUES {
            return Err(NoBound::Window {
                value: self.name(node),
                spins: widest,
            });
        }
        let mut tables: Vec<Table> = vec![Table::default(); count];
        for (&class, seen) in class_of.iter().zip(&seen) {
            if tables[class].known.is_empty() {
                tables[class] = Table::new(seen.len(), width);
            }
        }
        self.fill(&mut tables, node, of, (&class_of, &seen))?;
        if !tables.iter().flat_map(|t| &t.values).all(|x| x.is_finite()) {
            return Err(NoBound::NotFinite(self.name(node)));
        }
        Ok(Ranges {
            seen,
            class_of,
            classes: tables.iter().map(Table::class).collect(),
        })
    }

    fn width(&self, node: NodeId) -> usize {
        self.constants.value(node).shape[1..].iter().product()
    }

    fn name(&self, node: NodeId) -> String {
        let node = self.net.graph.node(node);
        (node.name.clone()).unwrap_or_else(|| crate::pass::normal_form::op_name(&node.op))
    }

    /// The distinct spins in the window of a token, in the order of their offsets.
    fn spins_seen(&self, w: Window, token: Token, tokens: TokenLattice, site: usize) -> Vec<usize> {
        let extent = self.net.lattice.extent;
        let at = tokens.coordinates(site);
        let axis = |a: usize| -> Vec<usize> {
            let (home, n) = ((at[a] * token.0[a]) as i64, extent[a] as i64);
            let inside = |d: i64| match self.net.lattice.boundary {
                Boundary::Periodic => Some((home + d).rem_euclid(n) as usize),
                Boundary::Open => (0..n).contains(&(home + d)).then_some((home + d) as usize),
            };
            let mut found = Vec::new();
            for spin in (w.lo[a]..=w.hi[a]).filter_map(inside) {
                if !found.contains(&spin) {
                    found.push(spin);
                }
            }
            found
        };
        let columns = axis(1);
        let rows = axis(0).into_iter();
        rows.flat_map(|x| columns.iter().map(move |y| x * extent[1] + y))
            .collect()
    }

    /// Sites of one number run the same code on the same constants.
    fn classes(&self, node: NodeId, token: Token, tokens: TokenLattice) -> Vec<usize> {
        let lattice = self.net.lattice;
        let reach = self.reach(node);
        let mut numbers: BTreeMap<[usize; 3], usize> = BTreeMap::new();
        (0..tokens.count())
            .map(|site| {
                let at = tokens.coordinates(site);
                let inside = (0..2).all(|a| {
                    let home = (at[a] * token.0[a]) as i64;
                    home + reach.lo[a] >= 0 && home + reach.hi[a] < lattice.extent[a] as i64
                });
                let alike = self.uniform && (lattice.boundary == Boundary::Periodic || inside);
                let key = if alike {
                    [0, 1].map(|a| at[a] * token.0[a] % self.cell[a])
                } else {
                    at
                };
                let next = numbers.len();
                *numbers
                    .entry([usize::from(alike), key[0], key[1]])
                    .or_insert(next)
            })
            .collect()
    }

    /// All spins whose presence any step towards the value takes for granted: wider
    /// than the window where the code goes one way and back.
    fn reach(&self, node: NodeId) -> Window {
        let graph = self.net.graph;
        let order = self.order(node);
        let own = |id: NodeId| match graph.ty(id).place {
            Place::Site(t) => Window {
                lo: [0, 0],
                hi: t.0.map(|x| x as i64 - 1),
            },
            _ => Window {
                lo: [0, 0],
                hi: [0, 0],
            },
        };
        let mut found: BTreeMap<NodeId, Window> = BTreeMap::new();
        for &id in &order {
            let mut reach = own(id);
            for a in graph.args(id) {
                let x = found.get(a).copied().unwrap_or_else(|| own(*a));
                let fine = match graph.ty(*a).place {
                    Place::Site(t) => t,
                    _ => Token::SPIN,
                };
                reach = reach.hull(match graph.op(id) {
                    Op::Window { lo, hi } => x.widen(fine, *lo, *hi),
                    Op::WindowAdjoint { lo, hi } => x.widen(fine, hi.map(|h| -h), lo.map(|l| -l)),
                    Op::Patch { ratio } => x.patch(fine, *ratio),
                    Op::Unpatch { ratio } => {
                        let back = |a: usize| (fine.0[a] - fine.0[a] / ratio[a]) as i64;
                        Window {
                            lo: [x.lo[0] - back(0), x.lo[1] - back(1)],
                            hi: x.hi,
                        }
                    }
                    _ => x,
                });
            }
            found.insert(id, reach);
        }
        found.get(&node).copied().unwrap_or_else(|| own(node))
    }

    /// Local and linear nodes a value is made of, mixers' inputs left out.
    fn order(&self, node: NodeId) -> Vec<NodeId> {
        let form = &self.net.form;
        let (mut needed, mut stack) = (vec![], vec![node]);
        while let Some(id) = stack.pop() {
            let local = matches!(form.kinds.get(id), Dependence::Local(_));
            let linear = form.kinds.get(id) == Dependence::Linear && form.mixer_of(id).is_none();
            if (local || linear) && !needed.contains(&id) {
                needed.push(id);
                stack.extend(self.net.graph.args(id));
            }
        }
        needed.sort_unstable();
        needed
    }

    /// Evaluates configurations until every class has seen every pattern.
    fn fill(
        &self,
        tables: &mut [Table],
        node: NodeId,
        of: Option<usize>,
        (class_of, seen): (&[usize], &[Vec<usize>]),
    ) -> Result<(), NoBound> {
        let order = self.order(node);
        let sites = self.net.lattice.sites();
        let mut rng = ChainRng::new(0, 0, 0, Stream::Init);
        let mut from = 0;
        while tables.iter().any(|t| t.missing > 0) {
            for table in tables.iter_mut() {
                table.next = 0;
            }
            let batch: Vec<Vec<i8>> = (0..BATCH)
                .map(|_| {
                    // what is not prescribed is drawn: it may be new as well
                    let mut spins: Vec<i8> = (0..sites)
                        .map(|_| if rng.bits() & 1 == 0 { 1 } else { -1 })
                        .collect();
                    let mut fixed = vec![false; sites];
                    from += 1;
                    for k in 0..seen.len() {
                        let site = (from + k) % seen.len();
                        if seen[site].iter().any(|&s| fixed[s]) {
                            continue;
                        }
                        let Some(pattern) = tables[class_of[site]].take() else {
                            continue;
                        };
                        for (bit, &s) in seen[site].iter().enumerate() {
                            spins[s] = if pattern >> bit & 1 == 0 { 1 } else { -1 };
                            fixed[s] = true;
                        }
                    }
                    spins
                })
                .collect();
            let values: Vec<Tensor> = batch
                .par_iter()
                .map(|spins| self.coefficients(node, of, &order, spins))
                .collect::<Result<_, _>>()?;
            for (spins, values) in batch.iter().zip(&values) {
                let width = values.data.len() / seen.len();
                for (site, value) in values.data.chunks_exact(width.max(1)).enumerate() {
                    let pattern = seen[site]
                        .iter()
                        .enumerate()
                        .fold(0, |p, (bit, &s)| p | usize::from(spins[s] < 0) << bit);
                    tables[class_of[site]].note(pattern, value);
                }
            }
        }
        Ok(())
    }

    /// The coefficient at every site, one row of numbers each: of a matrix, rows
    /// are components of the value and columns those of the mixer's output.
    fn coefficients(
        &self,
        node: NodeId,
        of: Option<usize>,
        order: &[NodeId],
        spins: &[i8],
    ) -> Result<Tensor, NoBound> {
        let none = self.value(node, None, order, spins)?;
        let Some(k) = of else { return Ok(none) };
        let columns = self.width(self.net.form.mixers[k].output);
        let mut all = Tensor::zeros(&[none.data.len(), columns]);
        for c in 0..columns {
            let unit = self.value(node, Some((k, c)), order, spins)?;
            for (row, (u, n)) in unit.data.iter().zip(&none.data).enumerate() {
                all.data[row * columns + c] = u - n;
            }
        }
        Ok(all)
    }

    /// The value of a node with all mixer outputs zero, except one component of one.
    fn value(
        &self,
        node: NodeId,
        unit: Option<(usize, usize)>,
        order: &[NodeId],
        spins: &[i8],
    ) -> Result<Tensor, NoBound> {
        let net = self.net;
        let context = Context::new(net.lattice, &net.params, spins).map_err(NoBound::of)?;
        let mut values: BTreeMap<NodeId, Tensor> = BTreeMap::new();
        for (m, mixer) in net.form.mixers.iter().enumerate() {
            let mut y = Tensor::zeros(&self.constants.value(mixer.output).shape);
            if let Some((k, c)) = unit
                && k == m
            {
                let width = self.width(mixer.output);
                y.data
                    .iter_mut()
                    .skip(c)
                    .step_by(width)
                    .for_each(|y| *y = 1.0);
            }
            values.insert(mixer.output, y);
        }
        for &id in order {
            let operands: Vec<Operand> = net
                .graph
                .args(id)
                .iter()
                .map(|a| Operand {
                    ty: net.graph.ty(*a),
                    value: values.get(a).unwrap_or_else(|| self.constants.value(*a)),
                })
                .collect();
            let value = eval_node(net.graph.op(id), net.graph.ty(id), &operands, &context)
                .map_err(NoBound::of)?;
            values.insert(id, value);
        }
        Ok((values.remove(&node)).unwrap_or_else(|| self.constants.value(node).clone()))
    }
}

/// The values of a coefficient by pattern: bit b is set where spin b is down.
#[derive(Clone, Default)]
struct Table {
    spins: usize,
    width: usize,
    known: Vec<bool>,
    missing: usize,
    /// Patterns below are known or under way.
    next: usize,
    values: Vec<f64>,
}

impl Table {
    fn new(spins: usize, width: usize) -> Table {
        Table {
            spins,
            width,
            known: vec![false; 1 << spins],
            missing: 1 << spins,
            next: 0,
            values: vec![0.0; width << spins],
        }
    }

    /// A pattern nobody has seen.
    fn take(&mut self) -> Option<usize> {
        let found = (self.next..self.known.len()).find(|&p| !self.known[p]);
        self.next = found.map_or(self.known.len(), |p| p + 1);
        found
    }

    fn note(&mut self, pattern: usize, value: &[f64]) {
        if !std::mem::replace(&mut self.known[pattern], true) {
            self.values[pattern * self.width..][..self.width].copy_from_slice(value);
            self.missing -= 1;
        }
    }

    fn class(&self) -> Class {
        let row = |p: usize| &self.values[p * self.width..][..self.width];
        let patterns = 0..self.known.len();
        let (mut low, mut high) = (row(0).to_vec(), row(0).to_vec());
        for p in patterns.clone() {
            for (c, &x) in row(p).iter().enumerate() {
                low[c] = low[c].min(x);
                high[c] = high[c].max(x);
            }
        }
        let half = |sign: f64| -> Vec<f64> {
            let ends = low.iter().zip(&high);
            ends.map(|(l, h)| 0.5 * (h + sign * l)).collect()
        };
        // the largest |sum of signs * values| over patterns without the bits
        let largest = |bits: usize, terms: &[(f64, usize)]| -> Vec<f64> {
            let mut worst = vec![0.0_f64; self.width];
            for p in patterns.clone().filter(|p| p & bits == 0) {
                for (c, worst) in worst.iter_mut().enumerate() {
                    let sum: f64 = terms.iter().map(|(s, q)| s * row(p | q)[c]).sum();
                    *worst = worst.max(sum.abs());
                }
            }
            worst
        };
        let flip = |a: usize| 1 << a;
        Class {
            middle: half(1.0),
            radius: half(-1.0),
            first: (0..self.spins)
                .map(|a| largest(flip(a), &[(1.0, flip(a)), (-1.0, 0)]))
                .collect(),
            second: (0..self.spins)
                .flat_map(|a| (0..a).map(move |b| (flip(a), flip(b))))
                .map(|(a, b)| largest(a | b, &[(1.0, a | b), (-1.0, a), (-1.0, b), (1.0, 0)]))
                .collect(),
        }
    }
}
