//! Whether a vertex keeps the channels of two mixers apart.
//!
//! Seen in the graph, not in numbers: it holds for all parameters.

use super::NoFlips;
use super::values::Values;
use crate::check::core::Dim;
use crate::ir::kinds::Dependence;
use crate::ir::{NodeId, Op};
use std::collections::{BTreeSet, HashMap};

/// Per element of a node the elements of a mixer's output it depends on; `None` if none
/// of them does.
type Reads = Option<Vec<BTreeSet<usize>>>;

impl Values<'_> {
    /// Whether every channel of what mixer `m` receives depends on the same channel of
    /// mixer `k` alone.
    pub(super) fn keeps_channels(&self, m: usize, k: usize) -> Result<bool, NoFlips> {
        let ((_, c), (_, d)) = (self.channels(k)?, self.channels(m)?);
        let mut known = HashMap::new();
        let reads = self.reads(self.form.mixers[m].input, k, &mut known)?;
        let mut elements = reads.iter().flatten().enumerate();
        Ok(c == d && elements.all(|(e, of)| of.iter().all(|x| x % c == e % c)))
    }

    /// Which elements of the output of mixer `k` the elements of a node depend on.
    fn reads<'r>(
        &self,
        id: NodeId,
        k: usize,
        known: &'r mut HashMap<NodeId, Reads>,
    ) -> Result<&'r Reads, NoFlips> {
        if !known.contains_key(&id) {
            let found = self.find_reads(id, k, known)?;
            known.insert(id, found);
        }
        Ok(&known[&id])
    }

    fn find_reads(
        &self,
        id: NodeId,
        k: usize,
        known: &mut HashMap<NodeId, Reads>,
    ) -> Result<Reads, NoFlips> {
        if id == self.form.mixers[k].output {
            let all = 0..self.width(id)?;
            return Ok(Some(all.map(|e| BTreeSet::from([e])).collect()));
        }
        if self.form.kinds.get(id) != Dependence::Linear || self.form.mixer_of(id).is_some() {
            return Ok(None);
        }
        let (op, args) = (self.graph.op(id), self.graph.args(id));
        let mut any = false;
        for &a in args {
            any |= self.reads(a, k, known)?.is_some();
        }
        if !any {
            return Ok(None);
        }
        let shape = self.static_shape(id)?;
        let mut reads = vec![BTreeSet::new(); self.width(id)?];
        for (position, &a) in args.iter().enumerate() {
            let Some(from) = &known[&a] else { continue };
            let own = self.static_shape(a)?;
            let mut add = |to: usize, x: usize| reads[to].extend(from[x].iter().copied());
            match op {
                Op::Einsum(e) => {
                    let mut letters: Vec<char> = e.inputs[position].clone();
                    letters.extend(e.output.iter().filter(|l| !e.inputs[position].contains(l)));
                    let size = |l: &char| {
                        let at = |all: &[char], shape: &[usize]| {
                            all.iter().position(|x| x == l).map(|p| shape[p])
                        };
                        at(&e.inputs[position], &own).or(at(&e.output, &shape))
                    };
                    let sizes: Vec<usize> = letters.iter().filter_map(size).collect();
                    for index in indices(&sizes) {
                        let pick = |all: &[char], shape: &[usize]| {
                            let at = |l: &char| letters.iter().position(|x| x == l).unwrap_or(0);
                            flat(all.iter().map(|l| index[at(l)]), shape)
                        };
                        add(pick(&e.output, &shape), pick(&e.inputs[position], &own));
                    }
                }
                Op::Slice { axis, start, .. } => {
                    for (to, mut index) in indices(&shape).enumerate() {
                        index[*axis] += start;
                        add(to, flat(index.into_iter(), &own));
                    }
                }
                Op::Pad { axis, start, .. } => {
                    for (x, mut index) in indices(&own).enumerate() {
                        index[*axis] += start;
                        add(flat(index.into_iter(), &shape), x);
                    }
                }
                Op::Concat { axis } => {
                    let mut before = 0;
                    for &b in &args[..position] {
                        before += self.static_shape(b)?[*axis];
                    }
                    for (x, mut index) in indices(&own).enumerate() {
                        index[*axis] += before;
                        add(flat(index.into_iter(), &shape), x);
                    }
                }
                Op::Reshape => (0..reads.len()).for_each(|e| reads[e] = from[e].clone()),
                // element by element
                _ => {
                    for (to, index) in indices(&shape).enumerate() {
                        let behind = &index[shape.len().saturating_sub(own.len())..];
                        let at = behind.iter().zip(&own).map(|(&i, &n)| i.min(n - 1));
                        add(to, flat(at, &own));
                    }
                }
            }
        }
        Ok(Some(reads))
    }

    fn static_shape(&self, id: NodeId) -> Result<Vec<usize>, NoFlips> {
        let shape = &self.graph.ty(id).shape;
        let dims = shape.iter().map(|d| match d {
            Dim::Static(n) => Ok(*n),
            Dim::Sites { .. } => Err(NoFlips::new("an axis over all sites")),
        });
        dims.collect()
    }
}

/// All indices of a shape, the last one fastest.
fn indices(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> + use<> {
    let shape = shape.to_vec();
    let count: usize = shape.iter().product();
    (0..count).map(move |mut k| {
        let mut index = vec![0; shape.len()];
        for (i, n) in index.iter_mut().zip(&shape).rev() {
            (*i, k) = (k % n, k / n);
        }
        index
    })
}

/// The number of an element.
fn flat(index: impl Iterator<Item = usize>, shape: &[usize]) -> usize {
    index.zip(shape).fold(0, |sum, (i, n)| sum * n + i)
}
