//! Local windows as tables.
//!
//! A local value that depends on the configuration through `b` spins takes
//! `2^b` values. Where that is few, they are computed once per parameter set, and
//! code on sites only looks them up: [`Tables`] says what to evaluate on which
//! configurations, [`Step::Lookup`](super::Step::Lookup) reads the result. The pattern of a site is a
//! number in a row like any other, a sum of shifted spins with powers of two as
//! weights; on an open lattice it also counts, per axis, how many of the window's
//! tokens are missing on either side, and every such class has its own entries.

use super::Row;
use super::facts::is_view;
use super::geometry::Space;
use super::pattern::{Patterns, Read};
use super::shape::row_shape;
use crate::check::core::{Place, Token, Window};
use crate::interp::TokenLattice;
use crate::ir::{Boundary, Graph, GraphParam, Lattice, NodeId, Op};
use std::collections::{HashMap, HashSet};

/// Largest number of spins in a block of the configurations tables are read off.
const MAX_BLOCK: usize = 12;

/// Largest number of values in a table.
const MAX_VALUES: usize = 1 << 16;

/// What to evaluate, once per parameter set, for the tables of a program.
#[derive(Clone, Debug)]
pub struct Tables {
    /// The local part of the network.
    pub graph: Graph,
    /// For each of its parameters the index among the network's.
    pub params: Vec<u32>,
    /// The lattice its configurations live on.
    pub lattice: Lattice,
    /// Configurations, one after the other, in which every pattern occurs.
    pub configurations: Vec<i8>,
    /// The tables.
    pub tables: Vec<Table>,
}

/// The values of a few elements of one node for every pattern.
#[derive(Clone, Debug)]
pub struct Table {
    /// The node of [`Tables::graph`].
    pub node: NodeId,
    /// Row-major indices in its shape: the columns.
    pub elements: Vec<u32>,
    /// For every pattern where it occurs: (configuration, site). `None`: never
    /// looked up.
    pub entries: Vec<Option<(u32, u32)>>,
}

/// A table before its columns are known.
pub(super) struct Draft {
    node: NodeId,
    token: Token,
    reads: Vec<Read>,
    pub(super) reach: Reach,
    pub(super) open: bool,
}

/// First and last token of a window, per axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reach {
    pub(super) lo: [i64; 2],
    pub(super) hi: [i64; 2],
}

impl Reach {
    fn new(token: Token, reads: &[Read], noticed: Option<Window>) -> Reach {
        let own = Window {
            lo: [0, 0],
            hi: [0, 1].map(|a| token.0[a] as i64 - 1),
        };
        let seen = reads.iter().map(|r| Window { lo: r.at, hi: r.at });
        let all = seen.chain(noticed).fold(own, Window::hull);
        let tokens = [0, 1].map(|a| all.tokens(token, a));
        Reach {
            lo: tokens.map(|t| t.0),
            hi: tokens.map(|t| t.1),
        }
    }
    fn width(self) -> [usize; 2] {
        [0, 1].map(|a| (self.hi[a] - self.lo[a] + 1) as usize)
    }
}

impl Draft {
    /// Ways in which tokens of the window can be missing.
    fn classes(&self) -> usize {
        let axis = |a: usize| ((1 - self.reach.lo[a]) * (1 + self.reach.hi[a])) as usize;
        if self.open { axis(0) * axis(1) } else { 1 }
    }
    pub(super) fn patterns(&self) -> usize {
        1 << self.reads.len()
    }
    /// The pattern at a site of a lattice, class included.
    fn entry(&self, tokens: &TokenLattice, lattice: Lattice, spins: &[i8], site: usize) -> usize {
        let at = tokens.coordinates(site);
        let (mut class, mut factor) = (0, 1);
        if self.open {
            for (a, (i, n)) in at.into_iter().zip(tokens.extent).enumerate() {
                let (i, n) = (i as i64, n as i64);
                let (lo, hi) = (self.reach.lo[a], self.reach.hi[a]);
                let missing = [(-lo - i).max(0), (hi - (n - 1 - i)).max(0)];
                class += factor * (missing[0] + (1 - lo) * missing[1]);
                factor *= (1 - lo) * (1 + hi);
            }
        }
        let fine = TokenLattice {
            extent: lattice.extent,
            boundary: lattice.boundary,
        };
        let first = fine.site([0, 1].map(|a| at[a] * self.token.0[a]));
        let bit = |r: &Read| match fine.neighbour(first, r.at) {
            Some(spin) => usize::from((spins[spin] > 0) != r.flipped),
            None => 0,
        };
        let bits = self.reads.iter().enumerate();
        class as usize * self.patterns() + bits.map(|(k, r)| bit(r) << k).sum::<usize>()
    }
}

/// Which nodes are looked up, and in which tables.
pub(super) struct Tabulation {
    pub(super) patterns: Patterns,
    /// Table of every node that is looked up.
    pub(super) table: Vec<Option<usize>>,
    pub(super) drafts: Vec<Draft>,
    /// Rows of patterns made so far.
    pub(super) indices: HashMap<(Space, Vec<Read>, Option<Reach>), Row>,
    pub(super) spins: HashMap<Token, Vec<Row>>,
    pub(super) inside: HashMap<Token, Row>,
}

impl Tabulation {
    /// No tables.
    pub(super) fn none(graph: &Graph) -> Tabulation {
        Tabulation {
            patterns: Patterns::none(),
            table: vec![None; graph.len()],
            drafts: Vec::new(),
            indices: HashMap::new(),
            spins: HashMap::new(),
            inside: HashMap::new(),
        }
    }

    /// Decides what to look up: the last nodes on every way from the spins that
    /// are functions of few of them, where that saves work.
    pub(super) fn new(
        graph: &Graph,
        lattice: Lattice,
        inputs: &[u32],
        dynamic: &[bool],
        roots: &[NodeId],
    ) -> Tabulation {
        let patterns = Patterns::new(graph, lattice, inputs);
        let mut tabulation = Tabulation {
            patterns,
            ..Tabulation::none(graph)
        };
        let costs = Costs::new(graph, lattice);
        let mut live = vec![false; graph.len()];
        roots.iter().for_each(|r| live[r.index()] = true);
        let mut chosen = Vec::new();
        for id in graph.ids().rev() {
            if !live[id.index()] || !dynamic[id.index()] {
                continue;
            }
            if tabulation.pays(graph, lattice, id, &costs) {
                chosen.push(id);
            } else {
                graph.args(id).iter().for_each(|a| live[a.index()] = true);
            }
        }
        tabulation.assign(graph, lattice, chosen);
        tabulation
    }

    fn pays(&self, graph: &Graph, lattice: Lattice, id: NodeId, costs: &Costs) -> bool {
        let Some(pattern) = self.patterns.get(id).filter(|p| !p.reads.is_empty()) else {
            return false;
        };
        let Place::Site(token) = graph.ty(id).place else {
            return false;
        };
        if is_view(graph, id) {
            return false;
        }
        let elements = costs.elements[id.index()];
        let reach = Reach::new(token, &pattern.reads, pattern.reach);
        let open = lattice.boundary == Boundary::Open;
        let fits = |a: usize| reach.width()[a] * token.0[a] <= lattice.extent[a];
        let values = (1 << pattern.reads.len()) * elements as usize;
        let block: usize = (0..2).map(|a| reach.width()[a] * token.0[a]).product();
        block <= MAX_BLOCK
            && values <= MAX_VALUES
            && (!open || (0..2).all(fits) && !pattern.reads.iter().any(|r| r.flipped))
            && costs.below(graph, id) > 2.0 * elements + 2.0 * pattern.reads.len() as f64
    }

    /// Gives every chosen node its table.
    fn assign(&mut self, graph: &Graph, lattice: Lattice, mut chosen: Vec<NodeId>) {
        chosen.sort_unstable();
        let open = lattice.boundary == Boundary::Open;
        let mut known: HashMap<(usize, Vec<Read>), usize> = HashMap::new();
        let (mut token, mut block) = (Token::SPIN, [1, 1]);
        for id in chosen {
            let (Some(pattern), Place::Site(own)) = (self.patterns.get(id), graph.ty(id).place)
            else {
                continue;
            };
            // one function, whichever spins it is applied to; near an edge the
            // place matters
            let place = if open {
                pattern.reads.clone()
            } else {
                Vec::new()
            };
            let key = (pattern.class, place);
            let draft = Draft {
                node: id,
                token: own,
                reads: pattern.reads.clone(),
                reach: Reach::new(own, &pattern.reads, pattern.reach),
                open,
            };
            if let Some(&k) = known.get(&key) {
                if !open || self.drafts[k].reach == draft.reach {
                    self.table[id.index()] = Some(k);
                }
                continue;
            }
            // one block must hold every window, in whole tokens of all of them
            let common = Token([0, 1].map(|a| token.0[a].max(own.0[a])));
            let divides = |t: Token| (0..2).all(|a| common.0[a].is_multiple_of(t.0[a]));
            let spins = [0, 1].map(|a| {
                let width = (draft.reach.width()[a] * own.0[a]).max(block[a]);
                width.next_multiple_of(common.0[a])
            });
            let fits = (0..2).all(|a| !open || spins[a] <= lattice.extent[a]);
            if !divides(token) || !divides(own) || spins[0] * spins[1] > MAX_BLOCK || !fits {
                continue;
            }
            (token, block) = (common, spins);
            self.table[id.index()] = Some(self.drafts.len());
            known.insert(key, self.drafts.len());
            self.drafts.push(draft);
        }
    }

    /// Whether a node is looked up.
    pub(super) fn has(&self, id: NodeId) -> bool {
        self.table[id.index()].is_some()
    }

    /// Tokens in whose space patterns are formed, with the halo that takes.
    pub(super) fn halos<'t>(
        &'t self,
        graph: &'t Graph,
    ) -> impl Iterator<Item = (Token, [usize; 2])> + 't {
        graph.ids().filter(|&id| self.has(id)).filter_map(|id| {
            let (Place::Site(token), Some(p)) = (graph.ty(id).place, self.patterns.get(id)) else {
                return None;
            };
            let reach = Reach::new(token, &p.reads, p.reach);
            let far = |a: usize| reach.lo[a].unsigned_abs().max(reach.hi[a].unsigned_abs());
            Some((token, [far(0) as usize, far(1) as usize]))
        })
    }

    /// The tables with the columns that are read.
    pub(super) fn finish(
        &self,
        graph: &Graph,
        lattice: Lattice,
        columns: &[Vec<u32>],
    ) -> Option<Tables> {
        if self.drafts.is_empty() {
            return None;
        }
        let nodes: Vec<NodeId> = self.drafts.iter().map(|d| d.node).collect();
        let (local, copies, params) = part(graph, &nodes);
        let (lattice, configurations) = self.configurations(lattice);
        let spins = lattice.sites();
        let mut tables = Vec::with_capacity(nodes.len());
        for (draft, columns) in self.drafts.iter().zip(columns) {
            let tokens = TokenLattice::new(lattice, draft.token).ok()?;
            let mut entries = vec![None; draft.classes() * draft.patterns()];
            for (k, s) in configurations.chunks_exact(spins).enumerate() {
                for site in 0..tokens.count() {
                    let entry = draft.entry(&tokens, lattice, s, site);
                    entries[entry].get_or_insert((k as u32, site as u32));
                }
            }
            tables.push(Table {
                node: copies[&draft.node],
                elements: columns.clone(),
                entries,
            });
        }
        Some(Tables {
            graph: local,
            params,
            lattice,
            configurations,
            tables,
        })
    }

    /// A lattice and configurations in which every pattern of every table occurs.
    fn configurations(&self, lattice: Lattice) -> (Lattice, Vec<i8>) {
        let (mut token, mut block) = ([1, 1], [1, 1]);
        for d in &self.drafts {
            for a in 0..2 {
                token[a] = token[a].max(d.token.0[a]);
                block[a] = block[a].max(d.reach.width()[a] * d.token.0[a]);
            }
        }
        let block = [0, 1].map(|a| block[a].next_multiple_of(token[a]));
        let volume = block[0] * block[1];
        let spin = |bits: usize, k: usize| if bits >> k & 1 == 1 { 1i8 } else { -1 };
        let blocks = (0..1usize << volume).flat_map(|p| (0..volume).map(move |k| spin(p, k)));
        if lattice.boundary == Boundary::Open {
            let extent = block;
            return (Lattice { extent, ..lattice }, blocks.collect());
        }
        if block[1] == 1 {
            // a ring on which every sequence of tokens occurs once
            let word = block[0] / token[0];
            let letters = de_bruijn(1 << token[0], word);
            let spins: Vec<i8> = letters
                .iter()
                .flat_map(|&l| (0..token[0]).map(move |k| spin(l, k)))
                .collect();
            let extent = [spins.len(), 1];
            return (Lattice { extent, ..lattice }, spins);
        }
        // blocks side by side along x; y winds around a block
        let extent = [block[0] << volume, block[1]];
        (Lattice { extent, ..lattice }, blocks.collect())
    }
}

/// A cyclic sequence over `0..letters` in which every word of a length occurs
/// exactly once: the concatenated Lyndon words whose lengths divide it.
pub(crate) fn de_bruijn(letters: usize, length: usize) -> Vec<usize> {
    let mut sequence = Vec::new();
    let mut word = vec![0; 1];
    loop {
        if length.is_multiple_of(word.len()) {
            sequence.extend_from_slice(&word);
        }
        // Duval's successor: repeat, then increase the last letter that can be
        let period = word.len();
        while word.len() < length {
            word.push(word[word.len() - period]);
        }
        while word.last() == Some(&(letters - 1)) {
            word.pop();
        }
        match word.last_mut() {
            Some(last) => *last += 1,
            None => return sequence,
        }
    }
}

/// The part of a graph that some nodes need, where they went, and which
/// parameters are left.
fn part(graph: &Graph, nodes: &[NodeId]) -> (Graph, HashMap<NodeId, NodeId>, Vec<u32>) {
    let mut needed = vec![false; graph.len()];
    nodes.iter().for_each(|n| needed[n.index()] = true);
    for id in graph.ids().rev().filter(|id| graph.len() > id.index()) {
        if needed[id.index()] {
            graph.args(id).iter().for_each(|a| needed[a.index()] = true);
        }
    }
    let mut local = Graph::default();
    let (mut copies, mut params): (HashMap<NodeId, NodeId>, Vec<u32>) = Default::default();
    for id in graph.ids().filter(|id| needed[id.index()]) {
        let op = match graph.op(id) {
            Op::Param(k) => {
                let known = params.iter().position(|p| p == k);
                let index = known.unwrap_or_else(|| {
                    params.push(*k);
                    let GraphParam { path, ty } = graph.params[*k as usize].clone();
                    local.params.push(GraphParam { path, ty });
                    params.len() - 1
                });
                Op::Param(index as u32)
            }
            op => op.clone(),
        };
        let args: Vec<NodeId> = graph.args(id).iter().map(|a| copies[a]).collect();
        let copy = local.push(op, &args, graph.ty(id).clone());
        if let Some(name) = &graph.node(id).name {
            local.set_name(copy, name);
        }
        copies.insert(id, copy);
    }
    (local, copies, params)
}

/// Operations per site.
struct Costs {
    elements: Vec<f64>,
    own: Vec<f64>,
}

impl Costs {
    fn new(graph: &Graph, lattice: Lattice) -> Costs {
        let size = |id: NodeId| {
            let shape = row_shape(lattice, graph.ty(id)).unwrap_or_default();
            shape.iter().product::<usize>() as f64
        };
        let elements: Vec<f64> = graph.ids().map(size).collect();
        let own = |id: NodeId| {
            let n = elements[id.index()];
            match graph.op(id) {
                _ if is_view(graph, id) => 0.0,
                Op::Map(_) => 10.0 * n,
                Op::Einsum(_) => {
                    let operands = graph.args(id).iter().map(|a| elements[a.index()]);
                    operands.fold(n, f64::max)
                }
                _ => n,
            }
        };
        Costs {
            own: graph.ids().map(own).collect(),
            elements,
        }
    }
    /// Operations of a node and everything on sites that it needs.
    fn below(&self, graph: &Graph, id: NodeId) -> f64 {
        let mut seen = HashSet::from([id]);
        let mut stack = vec![id];
        let mut sum = 0.0;
        while let Some(id) = stack.pop() {
            if matches!(graph.ty(id).place, Place::Site(_)) {
                sum += self.own[id.index()];
                let args = graph.args(id).iter();
                stack.extend(args.filter(|a| seen.insert(**a)));
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::de_bruijn;
    use std::collections::BTreeSet;

    #[test]
    fn every_word_occurs_once() {
        for (letters, length) in [(2, 1), (4, 1), (2, 4), (4, 3), (8, 2), (2, 10)] {
            let s = de_bruijn(letters, length);
            assert_eq!(s.len(), letters.pow(length as u32));
            let word = |i: usize| {
                (0..length)
                    .map(|k| s[(i + k) % s.len()])
                    .collect::<Vec<_>>()
            };
            let words: BTreeSet<Vec<usize>> = (0..s.len()).map(word).collect();
            assert_eq!(words.len(), s.len());
        }
    }
}
