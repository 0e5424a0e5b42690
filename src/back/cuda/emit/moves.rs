//! Steps that move numbers: configurations, frames, copies, inputs and outputs.

use super::super::ast::{Expr, Stmt, Type};
use super::super::constants::Data;
use super::super::names::Comment;
use super::{EmitError, Emitter, coordinates, lane};
use crate::back::cpu::constants::param_shape;
use crate::ir::Boundary;
use crate::kernel::{BufferId, Cell, Row, Space};

fn comment(text: String) -> Stmt {
    Stmt::Comment(Comment::new(text))
}

impl Emitter<'_> {
    pub(super) fn spins(&mut self, out: &Row) -> Vec<Stmt> {
        let lanes = self.lanes(self.space(out));
        let sites = lanes.sites;
        let code = self.each_site(1, sites, |e, _, i| {
            let spin = Expr::var("sample") * Expr::int(sites) + i.clone();
            let value = Expr::load("a.spins", spin, Type::Int).cast(lanes.ty);
            let to = e.row(&[*out], &Expr::Int(0)) + lanes.at(i.clone());
            vec![Stmt::Store(lanes.memory.into(), to, value)]
        });
        vec![comment("the configuration".to_owned()), code]
    }

    pub(super) fn halo(&mut self, buffer: BufferId) -> Vec<Stmt> {
        let b = &self.program.buffers[buffer.0 as usize];
        let g = *self.program.geometry(b.space);
        let lanes = self.lanes(b.space);
        let row = |row: u32| Row {
            buffer,
            row,
            shift: 0,
        };
        let rows: Vec<Row> = (0..b.rows).map(row).collect();
        let ([nx, ny], [hx, hy], stride) = (g.extent, g.halo, g.stride());
        let chain = ny == 1 && hy == 0;
        // cells of the frame of a chain; all cells of a rectangle
        let cells = if chain { 2 * hx } else { g.segment() };
        let code = self.each_site(rows.len(), cells, |e, r, c| {
            let start = e.row(&rows, r);
            let wrapped = |cell: Expr, n: usize, halo: usize| {
                // the site n cells and more further on, to stay above zero
                let turns = halo.div_ceil(n) * n;
                (cell + Expr::int(turns) - Expr::int(halo)) % Expr::int(n) + Expr::int(halo)
            };
            let (cell, source, guard) = if chain {
                let cell = c
                    .clone()
                    .less(Expr::int(hx))
                    .select(c.clone(), c.clone() + Expr::int(nx));
                let cell_name = Expr::var("cell");
                (cell, wrapped(cell_name, nx, hx), None)
            } else {
                let (x, y) = (Expr::var("x"), Expr::var("y"));
                let inside = Expr::call(
                    "inside",
                    vec![
                        x.clone() - Expr::int(hx),
                        Expr::int(nx),
                        y.clone() - Expr::int(hy),
                        Expr::int(ny),
                    ],
                    Type::Bool,
                );
                let source = wrapped(x, nx, hx) * Expr::int(stride) + wrapped(y, ny, hy);
                (c.clone(), source, Some(inside))
            };
            let mut code = vec![Stmt::Let("cell".into(), cell)];
            if guard.is_some() {
                code.push(Stmt::Let("x".into(), Expr::var("cell") / Expr::int(stride)));
                code.push(Stmt::Let("y".into(), Expr::var("cell") % Expr::int(stride)));
            }
            let value = match g.boundary {
                Boundary::Periodic => Expr::load(lanes.memory, start.clone() + source, lanes.ty),
                Boundary::Open => Expr::Number(0.0, lanes.ty),
            };
            let store = Stmt::Store(lanes.memory.into(), start + Expr::var("cell"), value);
            match guard {
                Some(inside) => {
                    let outside = inside.equal(Expr::Var("false".into(), Type::Bool));
                    code.push(Stmt::If(outside, vec![store]));
                }
                None => code.push(store),
            }
            code
        });
        vec![comment(format!("frame of {} rows", rows.len())), code]
    }

    /// Values of a few spins, from a table.
    pub(super) fn lookup(
        &mut self,
        space: Space,
        table: usize,
        index: &Row,
        rows: &[(u32, Row)],
    ) -> Vec<Stmt> {
        let lanes = self.lanes(space);
        let all = self.program.tables.iter().flat_map(|t| &t.tables);
        let sizes = all.map(|t| (t.entries.len(), t.elements.len())).nth(table);
        let (entries, columns) = sizes.unwrap_or((1, 1));
        let values = self.constant(Data::Table(table), Type::Real, entries * columns);
        let wanted: Vec<i64> = rows.iter().map(|r| i64::from(r.0)).collect();
        let out: Vec<Row> = rows.iter().map(|r| r.1).collect();
        // on a ring the frame of the patterns gives the frame of what is looked up
        let ring = self.program.lattice.boundary == Boundary::Periodic;
        let cells = if ring { lanes.stride } else { lanes.sites };
        let code = self.each_site(rows.len(), cells, |e, r, i| {
            let at = if ring { i.clone() } else { lanes.at(i.clone()) };
            let row = Row { shift: 0, ..*index };
            let mut lane = at.clone() + Expr::Int(i64::from(index.shift));
            if ring && index.shift != 0 {
                lane = Expr::call("larger", vec![lane, Expr::Int(0)], Type::Int);
                lane = Expr::call("smaller", vec![lane, Expr::int(cells - 1)], Type::Int);
            }
            let number = Expr::load(lanes.memory, e.row(&[row], &Expr::Int(0)) + lane, lanes.ty);
            let entry = Expr::call("nearest", vec![number, Expr::int(entries)], Type::Int);
            let from = Expr::var("entry") * Expr::int(columns) + e.index(&wanted, r);
            let value = Expr::load(values.clone(), from, Type::Real).cast(lanes.ty);
            let to = e.row(&out, r) + at;
            vec![
                Stmt::Let("entry".into(), entry),
                Stmt::Store(lanes.memory.into(), to, value),
            ]
        });
        let text = format!("{} rows of a table of {entries} patterns", rows.len());
        vec![comment(text), code]
    }

    pub(super) fn spread(&mut self, rows: &[(Row, Row)]) -> Vec<Stmt> {
        let lanes = self.lanes(self.space(&rows[0].1));
        let (x, out): (Vec<Row>, Vec<Row>) = rows.iter().copied().unzip();
        let code = self.each(rows.len(), &lanes, |e, r, at| {
            let value = Expr::load("numbers", e.row(&x, r), Type::Double).cast(lanes.ty);
            let to = e.row(&out, r) + at.clone();
            vec![Stmt::Store(lanes.memory.into(), to, value)]
        });
        vec![
            comment(format!("{} numbers to all sites", rows.len())),
            code,
        ]
    }

    pub(super) fn gather(&mut self, rows: &[(Row, Vec<Row>)]) -> Vec<Stmt> {
        let lanes = self.lanes(self.space(&rows[0].0));
        let x: Vec<Row> = rows.iter().map(|r| r.0).collect();
        let out: Vec<Row> = rows.iter().flat_map(|r| r.1.iter().copied()).collect();
        let code = self.each_site(rows.len(), lanes.sites, |e, r, i| {
            let from = e.row(&x, r) + lanes.at(i.clone());
            let value = Expr::load(lanes.memory, from, lanes.ty).cast(Type::Double);
            let to = e.row2(&out, lanes.sites, [r, i]);
            vec![Stmt::Store("numbers".into(), to, value)]
        });
        vec![
            comment(format!("sites of {} rows as numbers", rows.len())),
            code,
        ]
    }

    /// Every `ratio`-th site of a fine lattice, or back.
    pub(super) fn patch(
        &mut self,
        ratio: [usize; 2],
        rows: &[(Row, [usize; 2], Row)],
        back: bool,
    ) -> Vec<Stmt> {
        let pair = |r: &(Row, [usize; 2], Row)| if back { (r.2, r.0) } else { (r.0, r.2) };
        let (first_fine, first_coarse) = pair(&rows[0]);
        let (fine, coarse) = (self.space(&first_fine), self.space(&first_coarse));
        let (g, c) = (*self.program.geometry(fine), *self.program.geometry(coarse));
        let coarse_lanes = self.lanes(coarse);
        // the part of a token shifts the row it is read from
        let fine_rows: Vec<Row> = rows
            .iter()
            .map(|r| {
                let row = pair(r).0;
                let shift = (r.1[0] * g.stride() + r.1[1]) as i32;
                Row {
                    shift: row.shift + shift,
                    ..row
                }
            })
            .collect();
        let coarse_rows: Vec<Row> = rows.iter().map(|r| pair(r).1).collect();
        let code = self.each_site(rows.len(), c.sites(), |e, r, i| {
            let [x, y] = coordinates(&c, i.clone());
            let fine_at = lane(&g, x * Expr::int(ratio[0]), y * Expr::int(ratio[1]));
            let f = e.row(&fine_rows, r) + fine_at;
            let c = e.row(&coarse_rows, r) + coarse_lanes.at(i.clone());
            let (from, to) = if back { (c, f) } else { (f, c) };
            let value = Expr::load("rows", from, Type::Real);
            vec![Stmt::Store("rows".into(), to, value)]
        });
        let what = if back {
            "tokens to their parts"
        } else {
            "parts of tokens"
        };
        vec![comment(format!("{what}: {} rows", rows.len())), code]
    }

    /// Where the numbers of each host-written input begin, also of those nobody
    /// reads, and how many there are in all.
    fn input_starts(&self) -> (Vec<(u32, usize)>, usize) {
        let mut at = 0;
        let mut starts = Vec::new();
        for &k in self.inputs {
            starts.push((k, at));
            let shape = param_shape(self.program, &self.graph.params[k as usize].ty);
            at += shape.map_or(0, |s| s.iter().product::<usize>());
        }
        (starts, at)
    }

    pub(super) fn input_count(&self) -> usize {
        self.input_starts().1
    }

    /// Host-written inputs: all of a sample one after the other in the order of
    /// their parameters, each with the place index first.
    pub(super) fn inputs(&mut self) {
        let (starts, total) = self.input_starts();
        for &(k, buffer) in &self.program.inputs {
            let Some(&(_, start)) = starts.iter().find(|s| s.0 == k) else {
                continue;
            };
            let b = &self.program.buffers[buffer.0 as usize];
            let lanes = self.lanes(b.space);
            let rows: Vec<Row> = (0..b.rows)
                .map(|row| Row {
                    buffer,
                    row,
                    shift: 0,
                })
                .collect();
            if rows.is_empty() {
                continue;
            }
            let code = self.each_site(rows.len(), lanes.sites, |e, r, i| {
                let element = i.clone() * Expr::int(rows.len()) + r.clone();
                let from = Expr::var("sample") * Expr::int(total) + element + Expr::int(start);
                let value = Expr::load("a.inputs", from, Type::Double).cast(lanes.ty);
                let to = e.row(&rows, r) + lanes.at(i.clone());
                vec![Stmt::Store(lanes.memory.into(), to, value)]
            });
            let what = comment(format!("input of {} rows", rows.len()));
            let access = self.all_rows(buffer.0);
            self.phase(vec![access], false, vec![what, code]);
        }
    }

    /// Results per configuration, then results on sites.
    pub(super) fn outputs(&mut self) -> Result<(), EmitError> {
        let total = self.program.outputs.len();
        self.body.push(Stmt::Barrier);
        self.pending.clear();
        let mut first = 0;
        while first < total {
            let cells = &self.program.outputs[first..];
            let same = |c: &Cell| match (&cells[0], c) {
                (Cell::Row(_), Cell::Row(_)) | (Cell::Scalar(_), Cell::Scalar(_)) => true,
                (Cell::Number(a), Cell::Number(b)) => a.to_bits() == b.to_bits(),
                _ => false,
            };
            let count = cells.iter().take_while(|c| same(c)).count();
            let cells = &cells[..count];
            let code = self.each_site(count, 1, |e, r, _| {
                let value = match cells[0] {
                    Cell::Row(_) => {
                        let rows: Vec<Row> = cells.iter().filter_map(super::as_row).collect();
                        Expr::load("numbers", e.row(&rows, r), Type::Double)
                    }
                    Cell::Scalar(_) => {
                        let numbers: Vec<i64> = cells
                            .iter()
                            .map(|c| {
                                if let Cell::Scalar(k) = c {
                                    i64::from(*k)
                                } else {
                                    0
                                }
                            })
                            .collect();
                        let index = e.index(&numbers, r);
                        Expr::load(e.pool_constants(Type::Double), index, Type::Double)
                    }
                    Cell::Number(x) => Expr::Number(x, Type::Double),
                    Cell::Static(_) => Expr::Number(f64::NAN, Type::Double),
                };
                let to = Expr::var("sample") * Expr::int(total) + r.clone() + Expr::int(first);
                vec![Stmt::Store("a.outputs".into(), to, value)]
            });
            self.body.push(comment(format!("{count} results")));
            self.body.push(code);
            first += count;
        }
        let sites = self.program.site_outputs.clone();
        let Some(row) = sites.first() else {
            return Ok(());
        };
        let space = self.space(row);
        if space == Space::Batch || sites.iter().any(|r| self.space(r) != space) {
            return Err(EmitError::Unsupported(
                "results on several lattices".to_owned(),
            ));
        }
        let lanes = self.lanes(space);
        let code = self.each_site(sites.len(), lanes.sites, |e, r, i| {
            let from = e.row(&sites, r) + lanes.at(i.clone());
            let row = Expr::var("sample") * Expr::int(sites.len()) + r.clone();
            let to = row * Expr::int(lanes.sites) + i.clone();
            let value = Expr::load(lanes.memory, from, lanes.ty);
            vec![Stmt::Store("a.site_outputs".into(), to, value)]
        });
        self.body
            .push(comment(format!("{} results on sites", sites.len())));
        self.body.push(code);
        Ok(())
    }
}
