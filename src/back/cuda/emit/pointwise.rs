//! Fused elementwise code: one inline function per expression.

use super::super::ast::{Expr, Function, Stmt, Type};
use super::super::constants::Data;
use super::super::names::{Comment, Name, counted};
use super::{Emitter, as_row};
use crate::ir::{MapFn, ZipFn};
use crate::kernel::expr::ExprNode;
use crate::kernel::{Cell, MapRow, Row, Space};

impl Emitter<'_> {
    pub(super) fn map(
        &mut self,
        space: Space,
        expr: &crate::kernel::Expr,
        rows: &[MapRow],
    ) -> Vec<Stmt> {
        let lanes = self.lanes(space);
        let function = self.function(expr, lanes.ty);
        let out: Vec<Row> = rows.iter().map(|r| r.out).collect();
        let comment = Stmt::Comment(Comment::new(counted(rows.len(), "row")));
        let code = self.each(rows.len(), &lanes, |e, r, at| {
            let leaves = (0..expr.leaves().len())
                .map(|l| {
                    let cells: Vec<Cell> = rows.iter().map(|r| r.leaves[l]).collect();
                    e.leaf(&cells, r, at, lanes.memory, lanes.ty)
                })
                .collect();
            let value = Expr::call(function, leaves, lanes.ty);
            let to = e.row(&out, r) + at.clone();
            vec![Stmt::Store(lanes.memory.into(), to, value)]
        });
        vec![comment, code]
    }

    /// The operand of every row: all cells are of one kind.
    fn leaf(
        &mut self,
        cells: &[Cell],
        r: &Expr,
        at: &Expr,
        memory: &'static str,
        ty: Type,
    ) -> Expr {
        match cells[0] {
            Cell::Row(_) => {
                let rows: Vec<Row> = cells.iter().filter_map(as_row).collect();
                Expr::load(memory, self.row(&rows, r) + at.clone(), ty)
            }
            Cell::Static(_) => {
                let starts = self.static_rows();
                let positions: Vec<i64> = cells
                    .iter()
                    .map(|c| match c {
                        Cell::Static(s) => starts[s.row as usize] as i64 + i64::from(s.shift),
                        _ => 0,
                    })
                    .collect();
                let length = starts.last().copied().unwrap_or(0);
                let name = self.constant(Data::Statics, Type::Real, length);
                Expr::load(name, self.index(&positions, r) + at.clone(), ty)
            }
            Cell::Scalar(_) | Cell::Number(_) => {
                let numbers: Vec<i64> = cells
                    .iter()
                    .map(|c| match c {
                        Cell::Scalar(k) => i64::from(*k),
                        _ => 0,
                    })
                    .collect();
                let index = self.index(&numbers, r);
                Expr::load(self.pool_constants(ty), index, ty)
            }
        }
    }

    /// The pool in a type.
    pub(super) fn pool_constants(&mut self, ty: Type) -> Name {
        let data = if ty == Type::Double {
            Data::Pool64
        } else {
            Data::Pool
        };
        self.constant(data, ty, self.program.scalars.len())
    }

    /// First element of each static row, and their total length.
    fn static_rows(&self) -> Vec<usize> {
        let mut at = 0;
        let mut starts = vec![0];
        for (space, _) in &self.program.statics {
            at += self.lanes(*space).stride;
            starts.push(at);
        }
        starts
    }

    /// The function of an expression, made on first use.
    fn function(&mut self, expr: &crate::kernel::Expr, ty: Type) -> Name {
        if let Some((_, _, name)) = self.maps.iter().find(|(e, t, _)| e == expr && *t == ty) {
            return name.clone();
        }
        let name = Name::numbered("map_", self.maps.len());
        self.maps.push((expr.clone(), ty, name.clone()));
        let argument = |l: usize| Name::numbered("x", l);
        let mut uses = vec![0; expr.nodes().len()];
        for node in expr.nodes() {
            match *node {
                ExprNode::Leaf(_) | ExprNode::Number(_) => {}
                ExprNode::Map(_, a) | ExprNode::Sigmoid(a) => uses[a] += 1,
                ExprNode::Zip(_, a, b) => [a, b].iter().for_each(|&k| uses[k] += 1),
                ExprNode::Fma(a, b, c) => [a, b, c].iter().for_each(|&k| uses[k] += 1),
            }
        }
        let mut body = Vec::new();
        let mut values: Vec<Expr> = Vec::new();
        for (k, node) in expr.nodes().iter().enumerate() {
            let of = |n: usize| values[n].clone();
            let call = |f: &'static str, a: &[usize]| {
                Expr::call(f, a.iter().map(|&n| of(n)).collect(), ty)
            };
            let value = match *node {
                ExprNode::Leaf(l) => Expr::Var(argument(l), ty),
                ExprNode::Number(bits) => Expr::Number(f64::from_bits(bits), ty),
                ExprNode::Sigmoid(a) => call("sigmoid", &[a]),
                ExprNode::Fma(a, b, c) => call("fma", &[a, b, c]),
                ExprNode::Map(MapFn::Neg, a) => Expr::Negative(Box::new(of(a))),
                ExprNode::Map(f, a) => call(map_name(f), &[a]),
                ExprNode::Zip(ZipFn::Add, a, b) => of(a) + of(b),
                ExprNode::Zip(ZipFn::Sub, a, b) => of(a) - of(b),
                ExprNode::Zip(ZipFn::Mul, a, b) => of(a) * of(b),
                ExprNode::Zip(ZipFn::Div, a, b) => of(a) / of(b),
                ExprNode::Zip(f, a, b) => call(zip_name(f), &[a, b]),
            };
            let shared = uses[k] > 1 && !matches!(value, Expr::Var(..) | Expr::Number(..));
            values.push(if shared {
                let v = Name::numbered("v", k);
                body.push(Stmt::Let(v.clone(), value));
                Expr::Var(v, ty)
            } else {
                value
            });
        }
        let result = values.pop().unwrap_or(Expr::Number(0.0, ty));
        body.push(Stmt::Return(result));
        self.functions.push(Function {
            comment: Comment::new(expr.to_string()),
            name: name.clone(),
            arguments: (0..expr.leaves().len())
                .map(|l| (argument(l), ty))
                .collect(),
            result: ty,
            body,
        });
        name
    }
}

fn map_name(f: MapFn) -> &'static str {
    match f {
        MapFn::Neg => "negative",
        MapFn::Exp => "exp",
        MapFn::Log => "log",
        MapFn::Log1p => "log1p",
        MapFn::Sqrt => "sqrt",
        MapFn::Sin => "sin",
        MapFn::Cos => "cos",
        MapFn::Tanh => "tanh",
        MapFn::LogCosh => "log_cosh",
        MapFn::Abs => "magnitude",
        MapFn::Sign => "sign",
        MapFn::Erf => "erf",
        MapFn::Floor => "floor",
        MapFn::Recip => "reciprocal",
    }
}

fn zip_name(f: ZipFn) -> &'static str {
    match f {
        ZipFn::Add => "sum",
        ZipFn::Sub => "difference",
        ZipFn::Mul => "product",
        ZipFn::Div => "quotient",
        ZipFn::Pow => "pow",
        ZipFn::Max => "larger",
        ZipFn::Min => "smaller",
        ZipFn::Atan2 => "atan2",
        ZipFn::Mod => "modulo",
        ZipFn::Greater => "greater",
    }
}
