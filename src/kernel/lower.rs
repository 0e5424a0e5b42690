//! From the network graph to loop-level code.
//!
//! One pass over the live nodes in order. The value of a node is a list of
//! `Tree`s, one per element of its shape: views only rename them, elementwise
//! operations grow them, and they are turned into rows of memory where somebody
//! needs memory (contractions, mixers, windows, pools) or where recomputation
//! would cost more than a load (several uses).

use super::geometry::{Geometry, Space};
use super::materialise::Tree;
use super::{
    Buffer, BufferId, Cell, DenseGroup, LowerError, MixChannel, Mixer, Program, Row, Source,
    StaticRow, Step,
};
use crate::check::core::{Dim, Place, Token};
use crate::interp::{EvalError, TokenLattice};
use crate::ir::{Boundary, Graph, Lattice, NodeId, NodeType, Op};
use std::collections::HashMap;
use std::rc::Rc;

/// Lowers `graph` on `lattice`. Parameters listed in `inputs` (placed on sites
/// or `Whole`) are not parameters but values per configuration, written by the
/// host before each run.
///
/// # Errors
/// Tokens that do not tile the lattice, and operations without kernels.
pub fn lower(graph: &Graph, lattice: Lattice, inputs: &[u32]) -> Result<Program, LowerError> {
    lower_with_sites(graph, lattice, inputs, &[])
}

/// As [`lower`], with the values of some nodes on sites as further results
/// ([`Program::site_outputs`]): element after element, node after node.
///
/// # Errors
/// As [`lower`].
pub fn lower_with_sites(
    graph: &Graph,
    lattice: Lattice,
    inputs: &[u32],
    sites: &[NodeId],
) -> Result<Program, LowerError> {
    let mut lowering = Lowering::new(graph, lattice, inputs, sites)?;
    for id in graph.ids() {
        if lowering.facts.live[id.index()] && lowering.facts.dynamic[id.index()] {
            let value = lowering.node(id)?;
            lowering.values[id.index()] = value;
        }
    }
    lowering.finish(sites)
}

/// What is known about every node before code is made.
struct Facts {
    live: Vec<bool>,
    dynamic: Vec<bool>,
    /// Must be rows of memory.
    memory: Vec<bool>,
    /// Evaluations per element if inlined into its users.
    uses: Vec<f64>,
}

pub(super) struct Lowering<'g> {
    graph: &'g Graph,
    lattice: Lattice,
    inputs: &'g [u32],
    facts: Facts,
    values: Vec<Vec<Rc<Tree>>>,
    pub(super) program: Program,
    scalars: HashMap<NodeId, u32>,
    statics: HashMap<(Space, Source), u32>,
    /// Steps that correlate the operands of a recurrence's derivatives.
    pub(super) scan_gradients: HashMap<(crate::ir::Scan, Vec<NodeId>), usize>,
}

pub(super) type Value = Vec<Rc<Tree>>;

/// Shape of a node type on a lattice, without the place.
pub(crate) fn dims(lattice: Lattice, ty: &NodeType) -> Result<Vec<usize>, EvalError> {
    let length = |d: &Dim| match *d {
        Dim::Static(n) => Ok(n),
        Dim::Sites { scale, per } => {
            let sites = lattice.sites();
            if per == 0 || !(scale * sites).is_multiple_of(per) {
                return Err(EvalError::FractionalLength { scale, sites, per });
            }
            Ok(scale * sites / per)
        }
    };
    ty.shape.iter().map(length).collect()
}

/// For every row-major index of `to` the index of the element of `from` it
/// reads under NumPy broadcasting.
pub(super) fn broadcast_map(from: &[usize], to: &[usize]) -> Vec<usize> {
    let len: usize = to.iter().product();
    let mut map = vec![0; len];
    let (mut stride, mut block) = (1, 1);
    for (axis, &n) in to.iter().enumerate().rev() {
        let own = (axis + from.len())
            .checked_sub(to.len())
            .map_or(1, |k| from[k]);
        if own > 1 {
            for (k, m) in map.iter_mut().enumerate() {
                *m += (k / block % n) * stride;
            }
        }
        stride *= own;
        block *= n;
    }
    map
}

fn is_view(graph: &Graph, id: NodeId) -> bool {
    match graph.op(id) {
        Op::Reshape
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Concat { .. }
        | Op::Broadcast
        | Op::Window { .. } => true,
        Op::Einsum(e) => e.inputs.len() == 1 && super::contract::summed(e).is_empty(),
        _ => false,
    }
}

fn is_elementwise(graph: &Graph, id: NodeId) -> bool {
    match graph.op(id) {
        Op::Map(_) | Op::Zip(_) => true,
        Op::Einsum(e) => e.inputs.len() == 2 && super::contract::summed(e).is_empty(),
        _ => false,
    }
}

/// Values on displacements, momenta or pairs that depend on the configuration
/// are rows per configuration, one per entry and element.
pub(super) fn space(place: Place) -> Space {
    match place {
        Place::Site(token) => Space::Site(token),
        _ => Space::Batch,
    }
}

/// Number of entries of a place that become a leading axis of rows.
fn entries(lattice: Lattice, place: Place) -> Result<Option<usize>, EvalError> {
    match place {
        Place::Whole | Place::Site(_) => Ok(None),
        Place::Displacement(t) | Place::Momentum(t) | Place::Pair(t) => {
            Ok(Some(TokenLattice::new(lattice, t)?.entries(place)?))
        }
    }
}

/// Shape of a value as rows: entries of its place, if rows, then its axes.
fn row_shape(lattice: Lattice, ty: &NodeType) -> Result<Vec<usize>, EvalError> {
    let mut shape: Vec<usize> = entries(lattice, ty.place)?.into_iter().collect();
    shape.extend(dims(lattice, ty)?);
    Ok(shape)
}

impl Facts {
    fn new(
        graph: &Graph,
        lattice: Lattice,
        inputs: &[u32],
        sites: &[NodeId],
    ) -> Result<Facts, LowerError> {
        let n = graph.len();
        let mut dynamic = vec![false; n];
        for id in graph.ids() {
            dynamic[id.index()] = match graph.op(id) {
                Op::Spins => true,
                Op::Param(k) => inputs.contains(k),
                _ => graph.args(id).iter().any(|a| dynamic[a.index()]),
            };
        }
        let (mut live, mut memory, mut uses) = (vec![false; n], vec![false; n], vec![0.0; n]);
        for o in graph.outputs.iter().chain(sites) {
            live[o.index()] = true;
            memory[o.index()] = true;
        }
        let size = |id: NodeId| {
            Ok::<f64, EvalError>(row_shape(lattice, graph.ty(id))?.iter().product::<usize>() as f64)
        };
        for id in graph.ids().rev().filter(|id| dynamic[id.index()]) {
            if !live[id.index()] {
                continue;
            }
            for &a in graph.args(id) {
                live[a.index()] = true;
                if !dynamic[a.index()] {
                    continue;
                }
                let copies = size(id)? / size(a)?.max(1.0);
                let moved = graph.ty(a).place != graph.ty(id).place;
                if is_view(graph, id) {
                    uses[a.index()] += uses[id.index()] * copies;
                    memory[a.index()] |=
                        memory[id.index()] || moved || matches!(graph.op(id), Op::Window { .. });
                } else if is_elementwise(graph, id) {
                    uses[a.index()] += copies.max(1.0);
                    memory[a.index()] |= moved;
                } else if matches!(graph.op(id), Op::Sum) {
                    // products are summed without being stored
                    uses[a.index()] += 1.0;
                } else {
                    memory[a.index()] = true;
                }
            }
        }
        Ok(Facts {
            live,
            dynamic,
            memory,
            uses,
        })
    }
}

/// The largest lane offset any window reads at, per token lattice and axis.
fn halos(graph: &Graph) -> HashMap<Token, [usize; 2]> {
    let mut reach: Vec<[usize; 2]> = vec![[0, 0]; graph.len()];
    let mut halos: HashMap<Token, [usize; 2]> = HashMap::new();
    for id in graph.ids() {
        let adjoint = matches!(graph.op(id), Op::WindowAdjoint { .. });
        if !is_view(graph, id) && !adjoint {
            continue;
        }
        let mut r = [0, 0];
        for a in graph.args(id) {
            r = [0, 1].map(|k| r[k].max(reach[a.index()][k]));
        }
        if let Op::Window { lo, hi } | Op::WindowAdjoint { lo, hi } = graph.op(id) {
            r = [0, 1].map(|k| r[k] + lo[k].unsigned_abs().max(hi[k].unsigned_abs()) as usize);
        }
        reach[id.index()] = if adjoint { [0, 0] } else { r };
        if let Place::Site(token) = graph.ty(id).place {
            let h = halos.entry(token).or_default();
            *h = [0, 1].map(|k| h[k].max(r[k]));
        }
    }
    halos
}

impl<'g> Lowering<'g> {
    fn new(
        graph: &'g Graph,
        lattice: Lattice,
        inputs: &'g [u32],
        sites: &[NodeId],
    ) -> Result<Self, LowerError> {
        let facts = Facts::new(graph, lattice, inputs, sites)?;
        let halos = halos(graph);
        let mut geometries: Vec<Geometry> = Vec::new();
        for id in graph.ids() {
            if let Place::Site(token) = graph.ty(id).place {
                let known = geometries.iter().any(|g| g.token == token);
                if facts.live[id.index()] && !known {
                    let mut g = Geometry::new(lattice, token)?;
                    g.halo = halos.get(&token).copied().unwrap_or_default();
                    geometries.push(g);
                }
            }
        }
        let program = Program {
            lattice,
            geometries,
            buffers: Vec::new(),
            steps: Vec::new(),
            scalars: Vec::new(),
            statics: Vec::new(),
            mixers: Vec::new(),
            correlations: Vec::new(),
            outputs: Vec::new(),
            inputs: Vec::new(),
            site_outputs: Vec::new(),
            kept: Vec::new(),
        };
        Ok(Lowering {
            graph,
            lattice,
            inputs,
            facts,
            values: vec![Vec::new(); graph.len()],
            program,
            scalars: HashMap::new(),
            statics: HashMap::new(),
            scan_gradients: HashMap::new(),
        })
    }

    /// Shape of a node's rows.
    pub(super) fn dims(&self, id: NodeId) -> Result<Vec<usize>, LowerError> {
        Ok(row_shape(self.lattice, self.graph.ty(id))?)
    }

    /// Whether the entries of the node's place lead its rows.
    pub(super) fn leading(&self, id: NodeId) -> bool {
        !matches!(self.graph.ty(id).place, Place::Whole | Place::Site(_))
    }

    /// Shape of a node's rows for broadcasting to `rank` axes: the entries stay
    /// in front.
    fn aligned(&self, id: NodeId, rank: usize) -> Result<Vec<usize>, LowerError> {
        let mut shape = self.dims(id)?;
        if self.leading(id) {
            while shape.len() < rank {
                shape.insert(1, 1);
            }
        }
        Ok(shape)
    }

    /// Whether a node depends on the configuration.
    pub(super) fn dynamic(&self, id: NodeId) -> bool {
        self.facts.dynamic[id.index()]
    }

    pub(super) fn graph(&self) -> &'g Graph {
        self.graph
    }

    /// A new buffer; its rows in order.
    pub(super) fn buffer(&mut self, name: String, space: Space, rows: usize) -> Vec<Row> {
        let buffer = BufferId(self.program.buffers.len() as u32);
        self.program.buffers.push(Buffer {
            name,
            space,
            rows: rows as u32,
            external: false,
        });
        (0..rows as u32)
            .map(|row| Row {
                buffer,
                row,
                shift: 0,
            })
            .collect()
    }

    pub(super) fn name(&self, id: NodeId) -> String {
        let node = self.graph.node(id);
        node.name.clone().unwrap_or_else(|| {
            let op = format!("{:?}", node.op);
            let word: String = op.chars().take_while(|c| c.is_alphanumeric()).collect();
            format!("{}_{}", word.to_lowercase(), id.index())
        })
    }

    /// The elements of an operand as seen from code running in `space`.
    pub(super) fn operand(&mut self, id: NodeId, at: Space) -> Result<Value, LowerError> {
        if !self.facts.dynamic[id.index()] {
            return self.constant(id, at);
        }
        let own = space(self.graph.ty(id).place);
        let value = self.values[id.index()].clone();
        if own == at {
            return Ok(value);
        }
        if own != Space::Batch {
            return Err(LowerError::Unsupported(format!(
                "a value of {own:?} used in {at:?}"
            )));
        }
        let rows = self.rows(&value, own, id)?;
        let spread = self.buffer(format!("{}_spread", self.name(id)), at, rows.len());
        self.program.steps.push(Step::Spread {
            rows: rows.into_iter().zip(spread.iter().copied()).collect(),
        });
        Ok(cells(&spread))
    }

    /// The number a node repeats, if it is one known now.
    fn number(&self, id: NodeId) -> Option<f64> {
        match self.graph.op(id) {
            Op::Number(x) => Some(*x),
            Op::Broadcast | Op::Reshape | Op::Slice { .. } => self.number(self.graph.args(id)[0]),
            _ => None,
        }
    }

    fn constant(&mut self, id: NodeId, at: Space) -> Result<Value, LowerError> {
        let len: usize = self.dims(id)?.iter().product();
        if let Some(x) = self.number(id) {
            let cell = Rc::new(Tree::Cell(Cell::Number(x)));
            return Ok(std::iter::repeat_n(cell, len).collect());
        }
        let cell: Box<dyn FnMut(usize) -> Cell> = match self.graph.ty(id).place {
            place if space(place) == Space::Batch => {
                let pool = &mut self.program.scalars;
                let base = *self.scalars.entry(id).or_insert_with(|| {
                    let base = pool.len() as u32;
                    pool.extend((0..len as u32).map(|element| Source { node: id, element }));
                    base
                });
                Box::new(move |k| Cell::Scalar(base + k as u32))
            }
            Place::Site(token) if at == Space::Site(token) => {
                let (known, statics) = (&mut self.statics, &mut self.program.statics);
                Box::new(move |k| {
                    let source = Source {
                        node: id,
                        element: k as u32,
                    };
                    let row = *known.entry((at, source)).or_insert_with(|| {
                        statics.push((at, source));
                        statics.len() as u32 - 1
                    });
                    Cell::Static(StaticRow { row, shift: 0 })
                })
            }
            other => {
                return Err(LowerError::Unsupported(format!(
                    "a constant on {other:?} in elementwise code"
                )));
            }
        };
        Ok((0..len).map(cell).map(|c| Rc::new(Tree::Cell(c))).collect())
    }

    fn node(&mut self, id: NodeId) -> Result<Value, LowerError> {
        let graph = self.graph;
        let (args, shape) = (graph.args(id), self.dims(id)?);
        let at = space(graph.ty(id).place);
        let value = match graph.op(id) {
            Op::Spins => {
                let out = self.buffer("spins".to_owned(), at, 1);
                self.program.steps.push(Step::Spins { out: out[0] });
                cells(&out)
            }
            Op::Param(k) => {
                let out = self.buffer(
                    graph.params[*k as usize].path.clone(),
                    at,
                    shape.iter().product(),
                );
                if let Some(first) = out.first() {
                    self.program.buffers[first.buffer.0 as usize].external = true;
                    self.program.inputs.push((*k, first.buffer));
                }
                debug_assert!(self.inputs.contains(k));
                cells(&out)
            }
            Op::Map(f) => {
                let a = self.operand(args[0], at)?;
                a.into_iter().map(|a| Tree::map(*f, a)).collect()
            }
            Op::Zip(f) => {
                let (a, b) = (self.operand(args[0], at)?, self.operand(args[1], at)?);
                let ma = broadcast_map(&self.aligned(args[0], shape.len())?, &shape);
                let mb = broadcast_map(&self.aligned(args[1], shape.len())?, &shape);
                ma.iter()
                    .zip(&mb)
                    .map(|(&i, &j)| Tree::zip(*f, a[i].clone(), b[j].clone()))
                    .collect()
            }
            Op::Einsum(e) => self.einsum(id, e, at)?,
            Op::Reshape => self.operand(args[0], at)?,
            Op::Broadcast => {
                let a = self.operand(args[0], at)?;
                broadcast_map(&self.aligned(args[0], shape.len())?, &shape)
                    .into_iter()
                    .map(|i| a[i].clone())
                    .collect()
            }
            Op::Slice { axis, start, len } => {
                let axis = &(axis + usize::from(self.leading(id)));
                let (a, from) = (self.operand(args[0], at)?, self.dims(args[0])?);
                let inner: usize = from[axis + 1..].iter().product();
                let index = |k: usize| {
                    let (outer, mid, low) = (k / (len * inner), k / inner % len, k % inner);
                    (outer * from[*axis] + mid + start) * inner + low
                };
                (0..shape.iter().product())
                    .map(|k| a[index(k)].clone())
                    .collect()
            }
            Op::Pad { axis, start, .. } => {
                let axis = &(axis + usize::from(self.leading(id)));
                let (a, from) = (self.operand(args[0], at)?, self.dims(args[0])?);
                let inner: usize = from[axis + 1..].iter().product();
                let zero = Rc::new(Tree::Cell(Cell::Number(0.0)));
                let element = |k: usize| {
                    let (outer, mid, low) = (
                        k / (shape[*axis] * inner),
                        k / inner % shape[*axis],
                        k % inner,
                    );
                    match mid.checked_sub(*start) {
                        Some(m) if m < from[*axis] => {
                            a[(outer * from[*axis] + m) * inner + low].clone()
                        }
                        _ => zero.clone(),
                    }
                };
                (0..shape.iter().product()).map(element).collect()
            }
            Op::Concat { axis } => {
                let axis = &(axis + usize::from(self.leading(id)));
                let inner: usize = shape[axis + 1..].iter().product();
                let outer: usize = shape[..*axis].iter().product();
                let mut parts = Vec::new();
                for &a in args {
                    let width = self.dims(a)?[*axis] * inner;
                    parts.push((self.operand(a, at)?, width));
                }
                (0..outer)
                    .flat_map(|o| {
                        parts
                            .iter()
                            .flat_map(move |(v, w)| v[o * w..(o + 1) * w].iter().cloned())
                    })
                    .collect()
            }
            Op::Window { lo, hi } => self.window(id, (*lo, *hi), at)?,
            Op::WindowAdjoint { lo, hi } => self.window_adjoint(id, (*lo, *hi), at)?,
            Op::Patch { ratio } | Op::Unpatch { ratio } => self.patch(id, *ratio, at)?,
            Op::Sum => {
                let from = space(graph.ty(args[0]).place);
                if from == Space::Batch {
                    return self.reference(id, at);
                }
                let x = self.operand(args[0], from)?;
                self.pool(id, &x, from)?
            }
            Op::Gather => {
                let from = space(graph.ty(args[0]).place);
                if from == Space::Batch {
                    return self.reference(id, at);
                }
                let x = self.operand(args[0], from)?;
                let rows = self.rows(&x, from, id)?;
                cells(&self.gather(&rows, self.name(id)))
            }
            Op::Convolve { .. } | Op::Modes { .. } | Op::Scan(_) | Op::Mix { .. } => {
                return self.mixer(id, at);
            }
            Op::ScanGrad { .. } | Op::Correlate { .. } | Op::ModesGrad { .. } => {
                match self.correlate(id)? {
                    Some(value) => value,
                    None => self.reference(id, at)?,
                }
            }
            _ => self.reference(id, at)?,
        };
        let k = id.index();
        if self.facts.memory[k] || self.facts.uses[k] > 1.0 {
            let view = is_view(graph, id);
            // a view of rows needs no memory of its own
            let plain = |t: &Rc<Tree>| matches!(**t, Tree::Cell(_));
            if !(view && value.iter().all(plain)
                || value
                    .iter()
                    .all(|t| matches!(**t, Tree::Cell(Cell::Row(_)))))
            {
                return self.materialise(&value, at, &self.name(id));
            }
        }
        Ok(value)
    }

    fn window(
        &mut self,
        id: NodeId,
        (lo, hi): ([i64; 2], [i64; 2]),
        at: Space,
    ) -> Result<Value, LowerError> {
        let a = self.operand(self.graph.args(id)[0], at)?;
        let name = self.name(id);
        let geometry = *self.program.geometry(at);
        let shifted = |t: &Rc<Tree>| match **t {
            Tree::Cell(Cell::Row(r)) => r.shift != 0,
            Tree::Cell(Cell::Static(r)) => r.shift != 0,
            _ => false,
        };
        let zero = |t: &Rc<Tree>| matches!(**t, Tree::Cell(Cell::Number(x)) if x == 0.0);
        let open = geometry.boundary == Boundary::Open;
        let mut source = Vec::with_capacity(a.len());
        for t in &a {
            let in_memory = matches!(**t, Tree::Cell(Cell::Row(_) | Cell::Static(_)));
            let exact = (in_memory && !(open && shifted(t)))
                || zero(t)
                || (!open && matches!(**t, Tree::Cell(_)));
            source.push(if exact {
                t.clone()
            } else {
                self.materialise(std::slice::from_ref(t), at, &name)?[0].clone()
            });
        }
        let mut value = Vec::new();
        for x in lo[0]..=hi[0] {
            for y in lo[1]..=hi[1] {
                let by = (x * geometry.stride() as i64 + y) as i32;
                value.extend(source.iter().map(|t| match **t {
                    Tree::Cell(Cell::Row(r)) => Rc::new(Tree::Cell(Cell::Row(Row {
                        shift: r.shift + by,
                        ..r
                    }))),
                    Tree::Cell(Cell::Static(r)) => Rc::new(Tree::Cell(Cell::Static(StaticRow {
                        shift: r.shift + by,
                        ..r
                    }))),
                    _ => t.clone(),
                }));
            }
        }
        Ok(value)
    }

    /// `y_i = sum_r x_{i-r}[r]`: a sum of rows, each shifted.
    fn window_adjoint(
        &mut self,
        id: NodeId,
        (lo, hi): ([i64; 2], [i64; 2]),
        at: Space,
    ) -> Result<Value, LowerError> {
        let a = self.operand(self.graph.args(id)[0], at)?;
        let own = self.rows(&a, at, id)?;
        // a row that is itself shifted has its own boundary: copy it
        let mut x = Vec::with_capacity(own.len());
        for r in own {
            x.push(if r.shift == 0 {
                r
            } else {
                self.copy(r, at, id)?
            });
        }
        let stride = self.program.geometry(at).stride() as i64;
        let offsets: Vec<i32> = (lo[0]..=hi[0])
            .flat_map(|dx| (lo[1]..=hi[1]).map(move |dy| -(dx * stride + dy) as i32))
            .collect();
        let width = x.len() / offsets.len().max(1);
        let out = self.buffer(self.name(id), at, width);
        let groups = (0..width)
            .map(|k| {
                let term = |(r, &shift): (usize, &i32)| Row {
                    shift,
                    ..x[r * width + k]
                };
                DenseGroup {
                    out: vec![out[k]],
                    x: offsets.iter().enumerate().map(term).collect(),
                    weights: vec![Cell::Number(1.0); offsets.len()],
                }
            })
            .collect();
        self.program.steps.push(Step::Dense { space: at, groups });
        Ok(cells(&out))
    }

    fn copy(&mut self, r: Row, at: Space, user: NodeId) -> Result<Row, LowerError> {
        let tree = [Rc::new(Tree::Cell(Cell::Row(r)))];
        let name = format!("{}_copy", self.name(user));
        let value = self.materialise(&tree, at, &name)?;
        match *value[0] {
            Tree::Cell(Cell::Row(r)) => Ok(r),
            _ => Err(LowerError::Unsupported("a copy without memory".to_owned())),
        }
    }

    /// An operation left to the reference interpreter, sample by sample.
    fn reference(&mut self, id: NodeId, at: Space) -> Result<Value, LowerError> {
        let mut operands = Vec::new();
        for &a in self.graph.args(id) {
            operands.push(if self.facts.dynamic[a.index()] {
                let from = space(self.graph.ty(a).place);
                let value = self.operand(a, from)?;
                Some(self.rows(&value, from, id)?)
            } else {
                self.program.kept.push(a);
                None
            });
        }
        let out = self.buffer(self.name(id), at, self.dims(id)?.iter().product());
        self.program.steps.push(Step::Reference {
            node: id,
            operands,
            out: out.clone(),
        });
        Ok(cells(&out))
    }

    /// All sites of rows as rows per configuration, sites slowest.
    fn gather(&mut self, x: &[Row], name: String) -> Vec<Row> {
        let space = x
            .first()
            .map(|r| self.program.buffers[r.buffer.0 as usize].space);
        let sites = space.map_or(0, |s| self.program.geometry(s).sites());
        let out = self.buffer(name, Space::Batch, sites * x.len());
        let column = |k: usize| out.iter().skip(k).step_by(x.len()).copied().collect();
        let rows = x.iter().enumerate().map(|(k, &r)| (r, column(k))).collect();
        self.program.steps.push(Step::Gather { rows });
        out
    }

    fn patch(&mut self, id: NodeId, ratio: [usize; 2], at: Space) -> Result<Value, LowerError> {
        let arg = self.graph.args(id)[0];
        let from = space(self.graph.ty(arg).place);
        let x = self.operand(arg, from)?;
        let x = self.rows(&x, from, id)?;
        let parts: Vec<[usize; 2]> = (0..ratio[0] * ratio[1])
            .map(|p| [p / ratio[1], p % ratio[1]])
            .collect();
        let gathering = matches!(self.graph.op(id), Op::Patch { .. });
        let width = if gathering {
            x.len()
        } else {
            x.len() / parts.len()
        };
        let out = self.buffer(
            self.name(id),
            at,
            if gathering {
                width * parts.len()
            } else {
                width
            },
        );
        let mut rows = Vec::new();
        for (p, &part) in parts.iter().enumerate() {
            for k in 0..width {
                let (fine, coarse) = (k, p * width + k);
                rows.push(if gathering {
                    (x[fine], part, out[coarse])
                } else {
                    (x[coarse], part, out[fine])
                });
            }
        }
        self.program.steps.push(if gathering {
            Step::Patch { ratio, rows }
        } else {
            Step::Unpatch { ratio, rows }
        });
        Ok(cells(&out))
    }

    /// Whether all users take the first entry of the leading axis alone.
    fn only_real_part_used(&self, id: NodeId) -> bool {
        let part = |op: &Op| {
            matches!(
                op,
                Op::Slice {
                    axis: 0,
                    start: 0,
                    len: 1
                }
            )
        };
        !self.graph.outputs.contains(&id)
            && self
                .graph
                .users(id)
                .filter(|(user, _)| self.facts.live[user.index()])
                .all(|(user, _)| part(self.graph.op(user)))
    }

    fn mixer(&mut self, id: NodeId, at: Space) -> Result<Value, LowerError> {
        let args = self.graph.args(id);
        if args[1..].iter().any(|a| self.facts.dynamic[a.index()]) {
            return Err(LowerError::Unsupported(
                "a mixer that depends on the configuration".to_owned(),
            ));
        }
        let complex = match *self.graph.op(id) {
            Op::Convolve { complex, .. } | Op::Modes { complex, .. } | Op::Mix { complex, .. } => {
                complex
            }
            Op::Scan(s) => s.complex,
            _ => false,
        };
        let mut x = self.operand(args[0], at)?;
        let mut channels = self.dims(id)?;
        if complex {
            channels.remove(0);
        }
        let width: usize = channels.iter().product();
        // half the transforms if only the real part for real input is wanted
        let real = complex && vanishes(&x[width..]) && self.only_real_part_used(id);
        if real {
            x.truncate(width);
        }
        let x = self.rows(&x, at, id)?;
        let out = self.buffer(self.name(id), at, x.len());
        let parts = |rows: &[Row], c: usize| {
            if complex && !real {
                vec![rows[c], rows[c + width]]
            } else {
                vec![rows[c]]
            }
        };
        let rows = (0..width)
            .map(|c| MixChannel {
                x: parts(&x, c),
                out: parts(&out, c),
                channel: c,
            })
            .collect();
        let op = self.graph.op(id).clone();
        self.program.mixers.push(Mixer {
            op,
            space: at,
            kernel: args[1..].to_vec(),
            channels,
            real,
        });
        self.program.steps.push(Step::Mix {
            mixer: self.program.mixers.len() - 1,
            channels: rows,
        });
        let mut value = cells(&out);
        if real {
            // nobody reads the imaginary part
            let unread = Rc::new(Tree::Cell(Cell::Number(f64::NAN)));
            value.extend(std::iter::repeat_n(unread, width));
        }
        Ok(value)
    }

    fn finish(mut self, sites: &[NodeId]) -> Result<Program, LowerError> {
        for &o in sites {
            let at = space(self.graph.ty(o).place);
            let value = self.operand(o, at)?;
            let rows = self.rows(&value, at, o)?;
            self.program.site_outputs.extend(rows);
        }
        for &o in &self.graph.outputs {
            let at = space(self.graph.ty(o).place);
            let mut value = self.operand(o, at)?;
            if at != Space::Batch {
                let rows = self.rows(&value, at, o)?;
                value = cells(&self.gather(&rows, format!("{}_sites", self.name(o))));
            }
            for t in value {
                match *t {
                    Tree::Cell(cell) => self.program.outputs.push(cell),
                    _ => {
                        return Err(LowerError::Unsupported(
                            "an output without memory".to_owned(),
                        ));
                    }
                }
            }
        }
        self.program.fill_halos();
        Ok(self.program)
    }
}

/// Whether all elements are zero.
pub(super) fn vanishes(x: &[Rc<Tree>]) -> bool {
    x.iter()
        .all(|t| matches!(**t, Tree::Cell(Cell::Number(x)) if x == 0.0))
}

pub(super) fn cells(rows: &[Row]) -> Value {
    rows.iter()
        .map(|&r| Rc::new(Tree::Cell(Cell::Row(r))))
        .collect()
}

impl Program {
    /// Inserts the halo steps: before the first shifted read of each buffer.
    fn fill_halos(&mut self) {
        let mut done: Vec<bool> = self.buffers.iter().map(|_| false).collect();
        let steps = std::mem::take(&mut self.steps);
        for step in steps {
            let mut needed = Vec::new();
            step.visit(
                &mut |r| {
                    if r.shift != 0 && !done[r.buffer.0 as usize] {
                        done[r.buffer.0 as usize] = true;
                        needed.push(r.buffer);
                    }
                },
                &mut |_| {},
            );
            self.steps
                .extend(needed.into_iter().map(|buffer| Step::Halo { buffer }));
            self.steps.push(step);
        }
    }
}
