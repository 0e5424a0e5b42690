//! Where the coefficients of a site are in its block of numbers.

use super::mixer::PAD;
use super::segment::SiteLayout;
use crate::ir::NodeId;
use crate::pass::vertices::{AffineValue, Part, Piece, Vertices};
use std::collections::{BTreeMap, HashMap};

/// Where an element of a coefficient comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Element {
    /// Site output of the compiled graph.
    Site(usize),
    /// Constant.
    Fixed(usize),
}

/// An element and where it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub element: Element,
    pub to: usize,
    /// The pooled component it is: spread over all features.
    pub pooled: Option<usize>,
}

/// One coefficient inside a site's block.
pub(super) struct Placed {
    pub start: usize,
    pub len: usize,
    pub window: Option<[i64; 2]>,
    pub entries: Vec<Entry>,
}

/// A constant element: a node and an element of it.
pub(super) type Fixed = (NodeId, usize);

/// Lays out the blocks and collects what the graph must deliver.
#[derive(Default)]
pub(super) struct Placing {
    pub layout: SiteLayout,
    pub placed: Vec<Placed>,
    pub sites: Vec<NodeId>,
    /// First site output of every node in `sites`.
    pub starts: Vec<usize>,
    /// Site outputs of all nodes.
    pub outputs: usize,
    /// First site output of a node.
    first: HashMap<NodeId, usize>,
    pub fixed: Vec<Fixed>,
}

impl Placing {
    /// Everything, for so many features.
    pub fn all(&mut self, vertices: &Vertices, features: usize) {
        self.layout.features = features;
        self.layout.padded = features.next_multiple_of(PAD);
        for value in &vertices.mixers {
            let padded = value.width.next_multiple_of(PAD);
            let start = self.start(padded);
            self.layout.source.push(start);
            self.layout.windows.source.push(value.source.window);
            self.matrix(&value.source, value.width, (start, padded));
            let (mut all, mut windows) = (Vec::new(), Vec::new());
            for (k, piece) in &value.vertices {
                let start = self.start(padded * vertices.outputs[*k]);
                all.push((*k, start));
                windows.push(piece.window);
                self.matrix(piece, value.width, (start, padded));
            }
            self.layout.vertices.push(all);
            self.layout.windows.vertices.push(windows);
        }
        self.pools(&vertices.pools, vertices);
    }

    fn start(&mut self, len: usize) -> usize {
        self.layout.size += len;
        self.layout.size - len
    }

    fn element(&mut self, part: Part, element: usize, width: usize) -> Element {
        if part.dynamic {
            if !self.first.contains_key(&part.node) {
                self.first.insert(part.node, self.outputs);
                self.sites.push(part.node);
                self.starts.push(self.outputs);
                self.outputs += width;
            }
            Element::Site(self.first[&part.node] + element)
        } else {
            self.fixed.push((part.node, element));
            Element::Fixed(self.fixed.len() - 1)
        }
    }

    /// A coefficient, by columns.
    fn matrix(&mut self, piece: &Piece, width: usize, (start, padded): (usize, usize)) {
        let mut entries = Vec::new();
        for (c, column) in piece.columns.iter().enumerate() {
            let Some(part) = *column else { continue };
            for r in 0..width {
                entries.push(Entry {
                    element: self.element(part, r, width),
                    to: start + c * padded + r,
                    pooled: None,
                });
            }
        }
        self.placed.push(Placed {
            start,
            len: piece.columns.len() * padded,
            window: piece.window,
            entries,
        });
    }

    /// q and `R_k` of all pools together.
    fn pools(&mut self, pools: &[AffineValue], vertices: &Vertices) {
        let padded = self.layout.padded;
        let hull = |a: Option<[i64; 2]>, b: Option<[i64; 2]>| match (a, b) {
            (Some(a), Some(b)) => Some([a[0].min(b[0]), a[1].max(b[1])]),
            (a, b) => a.or(b),
        };
        let mut all: BTreeMap<Option<usize>, Placed> = BTreeMap::new();
        let used = pools
            .iter()
            .flat_map(|p| p.vertices.iter().map(|(k, _)| Some(*k)));
        let mut keys: Vec<Option<usize>> = std::iter::once(None).chain(used).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let len = padded * key.map_or(1, |k| vertices.outputs[k]);
            let start = self.start(len);
            match key {
                None => self.layout.constant = start,
                Some(k) => self.layout.readout.push((k, start)),
            }
            let placed = Placed {
                start,
                len,
                window: None,
                entries: Vec::new(),
            };
            all.insert(key, placed);
        }
        let mut first = 0;
        for pool in pools {
            let pieces = std::iter::once((None, &pool.source))
                .chain(pool.vertices.iter().map(|(k, p)| (Some(*k), p)));
            for (key, piece) in pieces {
                let Some(mut placed) = all.remove(&key) else {
                    continue;
                };
                placed.window = hull(placed.window, piece.window);
                for (c, column) in piece.columns.iter().enumerate() {
                    let Some(part) = *column else { continue };
                    for r in 0..pool.width {
                        placed.entries.push(Entry {
                            element: self.element(part, r, pool.width),
                            to: placed.start + c * padded,
                            pooled: Some(first + r),
                        });
                    }
                }
                all.insert(key, placed);
            }
            first += pool.width;
        }
        let window = |key: Option<usize>| all.get(&key).and_then(|placed| placed.window);
        self.layout.windows.constant = window(None);
        let readout = self.layout.readout.iter().map(|r| window(Some(r.0)));
        self.layout.windows.readout = readout.collect();
        self.placed.extend(all.into_values());
    }
}
