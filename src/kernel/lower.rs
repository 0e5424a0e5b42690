//! From the network graph to loop-level code.
//!
//! One pass over the live nodes in order. The value of a node is a list of
//! `Tree`s, one per element of its shape: views only rename them, elementwise
//! operations grow them, and they are turned into rows of memory where somebody
//! needs memory (contractions, mixers, windows, pools) or where recomputation
//! would cost more than a load (several uses).

use super::facts::{Facts, dynamic, halos, is_view};
use super::geometry::{Geometry, Space};
use super::materialise::Tree;
use super::shape::{broadcast_map, row_shape, space};
use super::table::Tabulation;
use super::{Buffer, BufferId, Cell, LowerError, Program, Row, Source, StaticRow, Step};
use crate::check::core::{Place, Token};
use crate::ir::{Boundary, Graph, Lattice, NodeId, Op};
use std::collections::{HashMap, HashSet};
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
    let dynamic = dynamic(graph, inputs);
    let roots: Vec<NodeId> = graph.outputs.iter().chain(sites).copied().collect();
    let tabulation = Tabulation::new(graph, lattice, inputs, &dynamic, &roots);
    run(graph, lattice, inputs, sites, dynamic, tabulation)
}

/// As [`lower_with_sites`], computing everything: no tables.
///
/// # Errors
/// As [`lower`].
pub fn lower_without_tables(
    graph: &Graph,
    lattice: Lattice,
    inputs: &[u32],
    sites: &[NodeId],
) -> Result<Program, LowerError> {
    let dynamic = dynamic(graph, inputs);
    run(
        graph,
        lattice,
        inputs,
        sites,
        dynamic,
        Tabulation::none(graph),
    )
}

fn run(
    graph: &Graph,
    lattice: Lattice,
    inputs: &[u32],
    sites: &[NodeId],
    dynamic: Vec<bool>,
    tabulation: Tabulation,
) -> Result<Program, LowerError> {
    let facts = Facts::new(graph, lattice, dynamic, sites, &tabulation)?;
    let mut lowering = Lowering::new(graph, lattice, inputs, facts, tabulation)?;
    for id in graph.ids() {
        if lowering.facts.live[id.index()] && lowering.facts.dynamic[id.index()] {
            let value = lowering.node(id)?;
            lowering.values[id.index()] = value;
        }
    }
    lowering.finish(sites)
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
    pub(super) tabulation: Tabulation,
    /// The configuration as a row, once there is one.
    spins: Option<Row>,
    /// Steps that correlate the operands of a recurrence's derivatives.
    pub(super) scan_gradients: HashMap<(crate::ir::Scan, Vec<NodeId>), usize>,
}

pub(super) type Value = Vec<Rc<Tree>>;

impl<'g> Lowering<'g> {
    fn new(
        graph: &'g Graph,
        lattice: Lattice,
        inputs: &'g [u32],
        facts: Facts,
        tabulation: Tabulation,
    ) -> Result<Self, LowerError> {
        let halos = halos(graph, &facts.live, &tabulation);
        let mut geometries: Vec<Geometry> = Vec::new();
        for id in graph.ids() {
            if let Place::Site(token) = graph.ty(id).place {
                let known = geometries.iter().any(|g| g.token == token);
                let spins = matches!(graph.op(id), Op::Spins);
                if (facts.live[id.index()] || spins) && !known {
                    let mut g = Geometry::new(lattice, token)?;
                    g.halo = halos.get(&token).copied().unwrap_or_default();
                    geometries.push(g.aligned());
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
            tables: None,
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
            tabulation,
            spins: None,
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

    /// Whether a node is needed.
    pub(super) fn live(&self, id: NodeId) -> bool {
        self.facts.live[id.index()]
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

    /// The configuration as a row.
    pub(super) fn spins(&mut self) -> Row {
        if let Some(row) = self.spins {
            return row;
        }
        let out = self.buffer("spins".to_owned(), Space::Site(Token::SPIN), 1)[0];
        self.program.steps.push(Step::Spins { out });
        self.spins = Some(out);
        out
    }

    fn node(&mut self, id: NodeId) -> Result<Value, LowerError> {
        let graph = self.graph;
        let (args, shape) = (graph.args(id), self.dims(id)?);
        let at = space(graph.ty(id).place);
        if self.tabulation.has(id) {
            return self.lookup(id, at);
        }
        let value = match graph.op(id) {
            Op::Spins => cells(&[self.spins()]),
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
        self.finish_tables();
        self.program.fill_halos();
        Ok(self.program)
    }
}

pub(super) fn cells(rows: &[Row]) -> Value {
    rows.iter()
        .map(|&r| Rc::new(Tree::Cell(Cell::Row(r))))
        .collect()
}

impl Program {
    /// Inserts the halo steps: before the first shifted read of each buffer. On a
    /// ring a table read at a pattern beyond the lattice is the value there: the
    /// halo of the patterns serves all rows looked up.
    fn fill_halos(&mut self) {
        let ring = self.lattice.boundary == Boundary::Periodic;
        let mut shifted: HashSet<BufferId> = HashSet::new();
        let mut looked_up: HashMap<BufferId, BufferId> = HashMap::new();
        for step in &self.steps {
            let mut see = |r: Row| {
                if r.shift != 0 {
                    shifted.insert(r.buffer);
                }
            };
            step.visit(&mut see, &mut |_| {});
            if let Step::Lookup { index, rows, .. } = step
                && ring
            {
                looked_up.extend(rows.iter().map(|(_, out)| (out.buffer, index.buffer)));
            }
        }
        let mut done: HashSet<BufferId> = HashSet::new();
        let steps = std::mem::take(&mut self.steps);
        for step in steps {
            let (mut needed, mut written) = (Vec::new(), Vec::new());
            step.visit(
                &mut |r| {
                    if r.shift != 0 && !looked_up.contains_key(&r.buffer) {
                        needed.push(r.buffer);
                    }
                },
                &mut |r| {
                    if shifted.contains(&r.buffer) {
                        written.extend(looked_up.get(&r.buffer));
                    }
                },
            );
            needed.append(&mut written);
            needed.retain(|&buffer| done.insert(buffer));
            self.steps
                .extend(needed.into_iter().map(|buffer| Step::Halo { buffer }));
            self.steps.push(step);
        }
    }
}
