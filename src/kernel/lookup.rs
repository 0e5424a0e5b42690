//! Lookups as steps: rows of pattern numbers, and what is read from tables.

use super::expr::{Expr, ExprNode};
use super::geometry::Space;
use super::lower::{Lowering, Value, cells};
use super::pattern::Read;
use super::{Cell, DenseGroup, MapRow, Program, Row, Step};
use crate::check::core::Token;
use crate::ir::NodeId;
use std::collections::{HashMap, HashSet};

impl Lowering<'_> {
    /// The value of a node that is looked up.
    pub(super) fn lookup(&mut self, id: NodeId, at: Space) -> Result<Value, super::LowerError> {
        let Some(table) = self.tabulation.table[id.index()] else {
            return Err(super::LowerError::Unsupported("a table".to_owned()));
        };
        let reads = match self.tabulation.patterns.get(id) {
            Some(p) => p.reads.clone(),
            None => Vec::new(),
        };
        let index = self.index(table, reads, at);
        let elements = self.dims(id)?.iter().product();
        let out = self.buffer(self.name(id), at, elements);
        self.program.steps.push(Step::Lookup {
            space: at,
            table,
            index,
            rows: (0u32..).zip(out.iter().copied()).collect(),
        });
        Ok(cells(&out))
    }

    /// The row with the number of the pattern at each site: half the shifted spins
    /// weighted by powers of two, completed to whole numbers by what is inside.
    fn index(&mut self, table: usize, reads: Vec<Read>, at: Space) -> Row {
        let draft = &self.tabulation.drafts[table];
        let key = (at, reads, draft.open.then_some(draft.reach));
        if let Some(&row) = self.tabulation.indices.get(&key) {
            return row;
        }
        let reads = &key.1;
        let Space::Site(token) = at else {
            unreachable!("only values on sites are looked up")
        };
        let stride = self.program.geometry(at).stride() as i64;
        let lane = |by: [i64; 2]| (by[0] * stride + by[1]) as i32;
        let spins = self.token_spins(token);
        let inside = self.inside(token);
        let draft = &self.tabulation.drafts[table];
        // weights of the tokens that are there, and a constant
        let (mut there, mut constant): (HashMap<[i64; 2], f64>, f64) = (HashMap::new(), 0.0);
        let (mut x, mut weights) = (Vec::new(), Vec::new());
        for (k, r) in reads.iter().enumerate() {
            let by = [0, 1].map(|a| r.at[a].div_euclid(token.0[a] as i64));
            let inner = [0, 1].map(|a| r.at[a].rem_euclid(token.0[a] as i64) as usize);
            let half = (1 << k) as f64 / 2.0;
            x.push(Row {
                shift: lane(by),
                ..spins[inner[0] * token.0[1] + inner[1]]
            });
            weights.push(if r.flipped { -half } else { half });
            *there
                .entry(if draft.open { by } else { [0, 0] })
                .or_default() += half;
        }
        if draft.open {
            let mut factor = draft.patterns() as f64;
            for a in 0..2 {
                let (lo, hi) = (draft.reach.lo[a], draft.reach.hi[a]);
                for o in lo..=hi {
                    let by = if a == 0 { [o, 0] } else { [0, o] };
                    let weight = match o {
                        ..0 => factor,
                        0 => continue,
                        _ => factor * (1 - lo) as f64,
                    };
                    constant += weight;
                    *there.entry(by).or_default() -= weight;
                }
                factor *= ((1 - lo) * (1 + hi)) as f64;
            }
        }
        *there.entry([0, 0]).or_default() += constant;
        let mut there: Vec<_> = there.into_iter().filter(|t| t.1 != 0.0).collect();
        there.sort_by_key(|t| t.0);
        for (by, weight) in there {
            x.push(Row {
                shift: lane(by),
                ..inside
            });
            weights.push(weight);
        }
        let out = self.buffer("pattern".to_owned(), at, 1);
        self.program.steps.push(Step::Dense {
            space: at,
            groups: vec![DenseGroup {
                out: out.clone(),
                x,
                weights: weights.into_iter().map(Cell::Number).collect(),
            }],
        });
        self.tabulation.indices.insert(key, out[0]);
        out[0]
    }

    /// The spins of each token as rows on tokens.
    fn token_spins(&mut self, token: Token) -> Vec<Row> {
        if let Some(rows) = self.tabulation.spins.get(&token) {
            return rows.clone();
        }
        let spins = self.spins();
        let rows = if token == Token::SPIN {
            vec![spins]
        } else {
            let out = self.buffer("token".to_owned(), Space::Site(token), token.volume());
            let part = |k: usize| [k / token.0[1], k % token.0[1]];
            self.program.steps.push(Step::Patch {
                ratio: token.0,
                rows: out
                    .iter()
                    .enumerate()
                    .map(|(k, &o)| (spins, part(k), o))
                    .collect(),
            });
            out
        };
        self.tabulation.spins.insert(token, rows.clone());
        rows
    }

    /// A row of ones: zero beyond an open lattice.
    fn inside(&mut self, token: Token) -> Row {
        if let Some(&row) = self.tabulation.inside.get(&token) {
            return row;
        }
        let space = Space::Site(token);
        let out = self.buffer("inside".to_owned(), space, 1)[0];
        let mut expr = Expr::default();
        expr.push(ExprNode::Number(1f64.to_bits()));
        self.program.steps.push(Step::Map {
            space,
            expr,
            rows: vec![MapRow {
                out,
                leaves: Vec::new(),
            }],
        });
        self.tabulation.inside.insert(token, out);
        out
    }

    /// Removes what is never read from lookups, and describes the tables.
    pub(super) fn finish_tables(&mut self) {
        let read = self.program.rows_read();
        let mut columns: Vec<Vec<u32>> = vec![Vec::new(); self.tabulation.drafts.len()];
        for step in &mut self.program.steps {
            if let Step::Lookup { table, rows, .. } = step {
                rows.retain(|(_, out)| read.contains(&(out.buffer, out.row)));
                columns[*table].extend(rows.iter().map(|r| r.0));
            }
        }
        for c in &mut columns {
            c.sort_unstable();
            c.dedup();
        }
        for step in &mut self.program.steps {
            if let Step::Lookup { table, rows, .. } = step {
                for (column, _) in rows {
                    *column = columns[*table].partition_point(|c| c < column) as u32;
                }
            }
        }
        let used = |s: &Step| !matches!(s, Step::Lookup { rows, .. } if rows.is_empty());
        self.program.steps.retain(used);
        let lattice = self.program.lattice;
        self.program.tables = self.tabulation.finish(self.graph(), lattice, &columns);
    }
}

impl Program {
    /// Rows that some step or the host reads, whatever their shift.
    fn rows_read(&self) -> HashSet<(super::BufferId, u32)> {
        let mut read = HashSet::new();
        for step in &self.steps {
            step.visit(&mut |r| _ = read.insert((r.buffer, r.row)), &mut |_| {});
        }
        let outputs = self.outputs.iter().filter_map(|c| match c {
            Cell::Row(r) => Some(r),
            _ => None,
        });
        read.extend(outputs.chain(&self.site_outputs).map(|r| (r.buffer, r.row)));
        read
    }
}
