//! Readable form of a program.

use super::{BufferId, Cell, Program, Row, Space, Step};
use std::fmt::{self, Write};

impl Program {
    fn row(&self, r: Row) -> String {
        let Buffer { name, .. } = self.name(r.buffer);
        match r.shift {
            0 => format!("{name}[{}]", r.row),
            s => format!("{name}[{}]@{s:+}", r.row),
        }
    }
    fn name(&self, b: BufferId) -> Buffer {
        Buffer {
            name: format!("%{} {}", b.0, self.buffers[b.0 as usize].name),
        }
    }
    fn cell(&self, c: Cell) -> String {
        match c {
            Cell::Row(r) => self.row(r),
            Cell::Static(s) if s.shift == 0 => format!("static[{}]", s.row),
            Cell::Static(s) => format!("static[{}]@{:+}", s.row, s.shift),
            Cell::Scalar(k) => format!("pool[{k}]"),
            Cell::Number(x) => format!("{x}"),
        }
    }
    /// First and last of a list.
    fn span(&self, rows: impl DoubleEndedIterator<Item = Row> + ExactSizeIterator) -> String {
        let n = rows.len();
        let mut ends = rows;
        match (ends.next(), ends.next_back()) {
            (Some(a), Some(b)) => format!("{} .. {} ({n} rows)", self.row(a), self.row(b)),
            (Some(a), None) => self.row(a),
            _ => "nothing".to_owned(),
        }
    }
    fn step(&self, step: &Step, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match step {
            Step::Spins { out } => write!(f, "spins   {}", self.row(*out)),
            Step::Map { expr, rows, .. } => {
                write!(
                    f,
                    "map     {} = {expr}",
                    self.span(rows.iter().map(|r| r.out))
                )?;
                let leaves = rows
                    .first()
                    .map(|r| r.leaves.as_slice())
                    .unwrap_or_default();
                let mut text = String::new();
                for (k, &c) in leaves.iter().enumerate() {
                    write!(
                        text,
                        "{} ${k} = {}",
                        if k == 0 { "" } else { "," },
                        self.cell(c)
                    )?;
                }
                if text.is_empty() {
                    Ok(())
                } else {
                    write!(f, "\n          first row:{text}")
                }
            }
            Step::Dense { groups, .. } => {
                write!(f, "dense   {} products", groups.len())?;
                for g in groups {
                    let (o, k) = (g.out.len(), g.x.len());
                    let (out, x) = (
                        self.span(g.out.iter().copied()),
                        self.span(g.x.iter().copied()),
                    );
                    write!(f, "\n          {out} = [{o} x {k}] {x}")?;
                }
                Ok(())
            }
            Step::Dot { rows, .. } => {
                let terms: usize = rows.iter().map(|r| r.1.len()).sum();
                write!(
                    f,
                    "dot     {} = {terms} products of rows",
                    self.span(rows.iter().map(|r| r.0))
                )
            }
            Step::Halo { buffer } => write!(f, "halo    {}", self.name(*buffer).name),
            Step::Lookup {
                table, index, rows, ..
            } => {
                let out = self.span(rows.iter().map(|r| r.1));
                write!(f, "lookup  {out} = table {table} at {}", self.row(*index))
            }
            Step::Mix { mixer, channels } => {
                let x = self.span(channels.iter().map(|c| c.x[0]));
                let out = self.span(channels.iter().map(|c| c.out[0]));
                write!(f, "mix     {out} = mixer {mixer} of {x}")
            }
            Step::Pool { rows } => {
                write!(
                    f,
                    "pool    {} = sum {}",
                    self.span(rows.iter().map(|r| r.1)),
                    self.span(rows.iter().map(|r| r.0))
                )
            }
            Step::PoolProduct { groups, .. } => {
                write!(f, "outer   {} products summed over sites", groups.len())?;
                for g in groups {
                    let [out, a, b] = [&g.out, &g.a, &g.b].map(|r| self.span(r.iter().copied()));
                    write!(f, "\n          {out} = sum {a} x {b}")?;
                }
                Ok(())
            }
            Step::Correlate {
                correlation,
                channels,
                out,
            } => {
                let [g, x] = [0, 1].map(|k| self.span(channels.iter().map(|c| c[k][0])));
                let rows: usize = out.iter().map(Vec::len).sum();
                write!(
                    f,
                    "correl  {rows} rows = correlation {correlation} of {g} and {x}"
                )
            }
            Step::Spread { rows } => {
                write!(
                    f,
                    "spread  {} = {}",
                    self.span(rows.iter().map(|r| r.1)),
                    self.span(rows.iter().map(|r| r.0))
                )
            }
            Step::Reference { node, out, .. } => {
                let out = self.span(out.iter().copied());
                write!(f, "interp  {out} = node {}", node.index())
            }
            Step::Gather { rows } => write!(
                f,
                "gather  sites of {}",
                self.span(rows.iter().map(|r| r.0))
            ),
            Step::Patch { ratio, rows } => {
                write!(
                    f,
                    "patch   {} by {ratio:?}",
                    self.span(rows.iter().map(|r| r.2))
                )
            }
            Step::Unpatch { ratio, rows } => {
                write!(
                    f,
                    "unpatch {} by {ratio:?}",
                    self.span(rows.iter().map(|r| r.2))
                )
            }
        }
    }
}

struct Buffer {
    name: String,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y] = self.lattice.extent;
        writeln!(f, "program on {x} x {y} spins, {:?}", self.lattice.boundary)?;
        for g in &self.geometries {
            writeln!(
                f,
                "space   tokens {:?}: {} x {} sites, halo {} x {}, {} lanes",
                g.token.0,
                g.extent[0],
                g.extent[1],
                g.halo[0],
                g.halo[1],
                g.segment()
            )?;
        }
        writeln!(
            f,
            "pool    {} numbers, {} static rows",
            self.scalars.len(),
            self.statics.len()
        )?;
        for (k, b) in self.buffers.iter().enumerate() {
            let space = match b.space {
                Space::Batch => "batch".to_owned(),
                Space::Site(t) => format!("tokens {:?}", t.0),
            };
            writeln!(f, "buffer  %{k} {}: {} rows, {space}", b.name, b.rows)?;
        }
        for (k, m) in self.mixers.iter().enumerate() {
            writeln!(f, "mixer   {k}: {:?}, channels {:?}", m.op, m.channels)?;
        }
        if let Some(tables) = &self.tables {
            let [x, y] = tables.lattice.extent;
            let count = tables.configurations.len() / tables.lattice.sites();
            writeln!(f, "tables  from {count} configurations of {x} x {y} spins")?;
            for (k, t) in tables.tables.iter().enumerate() {
                let name = tables.graph.node(t.node).name.clone();
                let name = name.unwrap_or_else(|| format!("node {}", t.node.index()));
                let (rows, columns) = (t.entries.len(), t.elements.len());
                writeln!(f, "table   {k} {name}: {rows} entries, {columns} columns")?;
            }
        }
        for s in &self.steps {
            self.step(s, f)?;
            writeln!(f)?;
        }
        for &c in &self.outputs {
            writeln!(f, "output  {}", self.cell(c))?;
        }
        Ok(())
    }
}
