//! Operations without a step of their own: sums and copies over entries of places.

use super::super::ast::{Expr, Stmt, Type};
use super::super::names::Comment;
use super::{EmitError, Emitter};
use crate::ir::{NodeId, Op};
use crate::kernel::{Row, Space};

fn v(name: &'static str) -> Expr {
    Expr::var(name)
}

impl Emitter<'_> {
    pub(super) fn reference(
        &mut self,
        node: NodeId,
        operands: &[Option<Vec<Row>>],
        out: &[Row],
    ) -> Result<Vec<Stmt>, EmitError> {
        let op = self.graph.op(node);
        let name: String = format!("{op:?}")
            .chars()
            .take_while(|c| c.is_alphanumeric())
            .collect();
        let unsupported = || EmitError::Unsupported(format!("the operation {name}"));
        let rows: Option<Vec<&[Row]>> = operands.iter().map(|o| o.as_deref()).collect();
        let rows = rows.ok_or_else(unsupported)?;
        let places: Vec<Space> = rows
            .iter()
            .map(|r| r.first().map_or(Space::Batch, |r| self.space(r)))
            .collect();
        let to = out.first().map_or(Space::Batch, |r| self.space(r));
        if out.is_empty() {
            return Ok(Vec::new());
        }
        let code = match (op, places.as_slice(), to) {
            (Op::Gather | Op::Reshape, [Space::Batch], Space::Batch) => self.copied(rows[0], out),
            (Op::Sum, [Space::Batch], Space::Batch) => self.entries_summed(rows[0], out),
            (Op::Scatter, [Space::Batch], Space::Site(_)) => self.scattered(rows[0], out),
            (Op::RowSum, [Space::Batch], Space::Site(_)) => self.sources_summed(rows[0], out),
            (Op::RowBroadcast, [Space::Site(_)], Space::Batch) => self.repeated(rows[0], out),
            (Op::MixGrad { complex }, [Space::Site(a), Space::Site(b)], Space::Batch)
                if a == b && rows[0].len() == rows[1].len() =>
            {
                self.pairs(*complex, [rows[0], rows[1]], out)
            }
            _ => return Err(unsupported()),
        };
        Ok(vec![Stmt::Comment(Comment::new(name)), code])
    }

    fn copied(&mut self, x: &[Row], out: &[Row]) -> Stmt {
        self.each_site(out.len(), 1, |e, r, _| {
            let value = Expr::load("numbers", e.row(x, r), Type::Double);
            vec![Stmt::Store("numbers".into(), e.row(out, r), value)]
        })
    }

    /// `out[e] = sum over entries of x[entry, e]`
    fn entries_summed(&mut self, x: &[Row], out: &[Row]) -> Stmt {
        let entries = x.len() / out.len();
        self.each_site(out.len(), 1, |e, r, _| {
            let from = e.row2(x, out.len(), [&v("n"), r]);
            let sum = Expr::Var("sum".into(), Type::Double);
            let add = sum.clone() + Expr::load("numbers", from, Type::Double);
            vec![
                Stmt::Var("sum".into(), Expr::Number(0.0, Type::Double)),
                Stmt::For(
                    "n".into(),
                    Expr::int(entries),
                    vec![Stmt::Set("sum".into(), add)],
                ),
                Stmt::Store("numbers".into(), e.row(out, r), sum),
            ]
        })
    }

    fn scattered(&mut self, x: &[Row], out: &[Row]) -> Stmt {
        let lanes = self.lanes(self.space(&out[0]));
        self.each_site(out.len(), lanes.sites, |e, r, i| {
            let from = e.row2(x, out.len(), [i, r]);
            let value = Expr::load("numbers", from, Type::Double).cast(lanes.ty);
            let to = e.row(out, r) + lanes.at(i.clone());
            vec![Stmt::Store(lanes.memory.into(), to, value)]
        })
    }

    /// `out_i = sum_j x(i, j)`
    fn sources_summed(&mut self, x: &[Row], out: &[Row]) -> Stmt {
        let lanes = self.lanes(self.space(&out[0]));
        let n = lanes.sites;
        self.each_site(out.len(), n, |e, r, i| {
            let pair = i.clone() * Expr::int(n) + v("j");
            let from = e.row2(x, out.len(), [&pair, r]);
            let sum = Expr::Var("sum".into(), Type::Double);
            let add = sum.clone() + Expr::load("numbers", from, Type::Double);
            let to = e.row(out, r) + lanes.at(i.clone());
            vec![
                Stmt::Var("sum".into(), Expr::Number(0.0, Type::Double)),
                Stmt::For("j".into(), Expr::int(n), vec![Stmt::Set("sum".into(), add)]),
                Stmt::Store(lanes.memory.into(), to, sum.cast(lanes.ty)),
            ]
        })
    }

    /// `out(i, j) = x_i`
    fn repeated(&mut self, x: &[Row], out: &[Row]) -> Stmt {
        let lanes = self.lanes(self.space(&x[0]));
        let n = lanes.sites;
        self.each_site(x.len(), n * n, |e, r, ij| {
            let from = e.row(x, r) + lanes.at(ij.clone() / Expr::int(n));
            let value = Expr::load(lanes.memory, from, lanes.ty).cast(Type::Double);
            let to = e.row2(out, x.len(), [ij, r]);
            vec![Stmt::Store("numbers".into(), to, value)]
        })
    }

    /// `out(i, j) = g_i conj(x_j)`
    fn pairs(&mut self, complex: bool, [g, x]: [&[Row]; 2], out: &[Row]) -> Stmt {
        let lanes = self.lanes(self.space(&g[0]));
        let n = lanes.sites;
        let width = if complex { g.len() / 2 } else { g.len() };
        self.each_site(width, n * n, |e, r, ij| {
            let (i, j) = (ij.clone() / Expr::int(n), ij.clone() % Expr::int(n));
            let mut load = |rows: &[Row], site: &Expr| {
                let from = e.row(rows, r) + lanes.at(site.clone());
                Expr::load(lanes.memory, from, lanes.ty).cast(Type::Double)
            };
            let (gr, xr) = (load(&g[..width], &i), load(&x[..width], &j));
            if !complex {
                let to = e.row2(out, width, [ij, r]);
                return vec![Stmt::Store("numbers".into(), to, gr * xr)];
            }
            let (gi, xi) = (load(&g[width..], &i), load(&x[width..], &j));
            let name = |n: &'static str| Expr::Var(n.into(), Type::Double);
            let entry = ij.clone() * Expr::Int(2);
            let re = e.row2(out, width, [&entry, r]);
            let im = e.row2(out, width, [&(entry + Expr::Int(1)), r]);
            let (a, b, c, d) = (name("gr"), name("gi"), name("xr"), name("xi"));
            vec![
                Stmt::Let("gr".into(), gr),
                Stmt::Let("gi".into(), gi),
                Stmt::Let("xr".into(), xr),
                Stmt::Let("xi".into(), xi),
                Stmt::Store(
                    "numbers".into(),
                    re,
                    a.clone() * c.clone() + b.clone() * d.clone(),
                ),
                Stmt::Store("numbers".into(), im, b * c - a * d),
            ]
        })
    }
}
