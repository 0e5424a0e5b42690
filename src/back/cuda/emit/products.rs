//! Sums of products: small matrices times rows, rows times rows, sums over sites.

use super::super::ast::{Expr, Stmt, Type};
use super::super::constants::{Block, Data, DenseClass, dense_classes};
use super::super::names::{Comment, Name, counted};
use super::{Emitter, Lanes};
use crate::kernel::{DenseGroup, OuterGroup, Row, Space};

/// Batch products with at most so many results and at least so many terms are
/// summed by whole warps.
const FEW_RESULTS: usize = 32;
const MANY_TERMS: usize = 64;

fn v(name: &'static str) -> Expr {
    Expr::var(name)
}

fn typed(name: &'static str, ty: Type) -> Expr {
    Expr::Var(name.into(), ty)
}

fn fma(a: Expr, b: Expr, c: Expr) -> Expr {
    let ty = a.ty();
    Expr::call("fma", vec![a, b, c], ty)
}

fn warp_sum(name: &'static str) -> Expr {
    Expr::call("warp_sum", vec![typed(name, Type::Double)], Type::Double)
}

fn add_to(name: &'static str, ty: Type, a: Expr, b: Expr) -> Stmt {
    Stmt::Set(name.into(), fma(a, b, typed(name, ty)))
}

impl Emitter<'_> {
    pub(super) fn dense(&mut self, space: Space, groups: &[DenseGroup]) -> Vec<Stmt> {
        let lanes = self.lanes(space);
        let mut code = Vec::new();
        for class in dense_classes(groups, space) {
            let [k, o] = [class.inner, class.outs];
            let members: Vec<&DenseGroup> = class.members.iter().map(|&g| &groups[g]).collect();
            let x: Vec<Row> = members.iter().flat_map(|g| g.x.iter().copied()).collect();
            let out: Vec<Row> = members.iter().flat_map(|g| g.out.iter().copied()).collect();
            let data = Data::Weights {
                number: self.weight_blocks(),
                double: lanes.ty == Type::Double,
                numbers: class.weights(groups),
            };
            let weights = self.constant(data, lanes.ty, class.length());
            code.push(Stmt::Comment(Comment::new(format!(
                "{} [{o} x {k}]",
                counted(members.len(), "product")
            ))));
            let results = members.len() * o;
            let warps = lanes.sites == 1 && results <= FEW_RESULTS && k >= MANY_TERMS;
            code.push(if warps {
                self.dense_by_warps(&lanes, &class, &weights, &x, &out)
            } else {
                self.dense_by_threads(&lanes, &class, &weights, &x, &out)
            });
        }
        code
    }

    fn weight_blocks(&self) -> usize {
        let weights = |b: &&Block| matches!(b.data, Data::Weights { .. });
        self.blocks.iter().filter(weights).count()
    }

    /// A register tile of results per thread.
    fn dense_by_threads(
        &mut self,
        lanes: &Lanes,
        class: &DenseClass,
        weights: &Name,
        x: &[Row],
        out: &[Row],
    ) -> Stmt {
        let (k, o, tile, ty) = (class.inner, class.outs, class.tile, lanes.ty);
        let tiles = o.div_ceil(tile);
        let groups = class.members.len();
        self.each(groups * tiles, lanes, |e, r, at| {
            let mut code = Vec::new();
            let mut named = |name: &'static str, value: Expr| {
                if matches!(value, Expr::Int(_) | Expr::Var(..)) {
                    return value;
                }
                code.push(Stmt::Let(name.into(), value));
                v(name)
            };
            let group = if groups == 1 {
                Expr::Int(0)
            } else {
                named("g", r.clone() / Expr::int(tiles))
            };
            let first = if tiles == 1 {
                Expr::Int(0)
            } else {
                let number = if groups == 1 {
                    r.clone()
                } else {
                    r.clone() % Expr::int(tiles)
                };
                named("o", number * Expr::int(tile))
            };
            let from = e.row2(x, k, [&group, &v("c")]) + at.clone();
            let weight = |t: Expr| {
                let row = group.clone() * Expr::int(k) + v("c");
                let index = row * Expr::int(tiles * tile) + first.clone() + t;
                Expr::load(weights.clone(), index, ty)
            };
            if tile == 1 {
                code.push(Stmt::Var("sum".into(), Expr::Number(0.0, ty)));
                let product = add_to(
                    "sum",
                    ty,
                    weight(Expr::Int(0)),
                    Expr::load(lanes.memory, from, ty),
                );
                code.push(Stmt::For("c".into(), Expr::int(k), vec![product]));
                let to = e.row2(out, o, [&group, &first]) + at.clone();
                code.push(Stmt::Store(lanes.memory.into(), to, typed("sum", ty)));
                return code;
            }
            code.push(Stmt::Array("sum".into(), ty, tile));
            let sum = Expr::load("sum", v("t"), ty);
            code.push(Stmt::For(
                "c".into(),
                Expr::int(k),
                vec![
                    Stmt::Let("x".into(), Expr::load(lanes.memory, from, ty)),
                    Stmt::Unroll(
                        "t".into(),
                        tile,
                        vec![Stmt::Store(
                            "sum".into(),
                            v("t"),
                            fma(weight(v("t")), typed("x", ty), sum.clone()),
                        )],
                    ),
                ],
            ));
            let to = e.row2(out, o, [&group, &(first.clone() + v("t"))]) + at.clone();
            let store = Stmt::Store(lanes.memory.into(), to, sum);
            let guarded = if o % tile == 0 {
                store
            } else {
                Stmt::If((first + v("t")).less(Expr::int(o)), vec![store])
            };
            code.push(Stmt::Unroll("t".into(), tile, vec![guarded]));
            code
        })
    }

    /// A result per warp: few results, many terms.
    fn dense_by_warps(
        &mut self,
        lanes: &Lanes,
        class: &DenseClass,
        weights: &Name,
        x: &[Row],
        out: &[Row],
    ) -> Stmt {
        let (k, o, ty) = (class.inner, class.outs, lanes.ty);
        self.widest = self.widest.max(32 * out.len());
        let (group, result) = (v("r") / Expr::int(o), v("r") % Expr::int(o));
        let row = group.clone() * Expr::int(k) + v("c");
        let weight = row * Expr::int(o.next_multiple_of(class.tile)) + result;
        let from = self.row2(x, k, [&group, &v("c")]);
        let product = add_to(
            "sum",
            ty,
            Expr::load(weights.clone(), weight, ty),
            Expr::load(lanes.memory, from, ty),
        );
        let to = self.row(out, &v("r"));
        Stmt::Warps(
            "r".into(),
            Expr::int(out.len()),
            vec![
                Stmt::Var("sum".into(), Expr::Number(0.0, ty)),
                Stmt::Lanes("c".into(), Expr::int(k), vec![product]),
                Stmt::Set("sum".into(), warp_sum("sum")),
                Stmt::If(
                    v("lane").equal(Expr::Int(0)),
                    vec![Stmt::Store(lanes.memory.into(), to, typed("sum", ty))],
                ),
            ],
        )
    }

    pub(super) fn dot(&mut self, space: Space, rows: &[(Row, Vec<(Row, Row)>)]) -> Vec<Stmt> {
        let lanes = self.lanes(space);
        let mut lengths: Vec<usize> = rows.iter().map(|r| r.1.len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let mut code = Vec::new();
        for terms in lengths {
            let chosen: Vec<_> = rows.iter().filter(|r| r.1.len() == terms).collect();
            let factors = |k: usize| -> Vec<Row> {
                let pick = |f: &(Row, Row)| if k == 0 { f.0 } else { f.1 };
                chosen.iter().flat_map(|r| r.1.iter().map(pick)).collect()
            };
            let (a, b) = (factors(0), factors(1));
            let out: Vec<Row> = chosen.iter().map(|r| r.0).collect();
            code.push(Stmt::Comment(Comment::new(format!(
                "{} sums of {terms} products of rows",
                out.len()
            ))));
            code.push(self.each(out.len(), &lanes, |e, r, at| {
                let mut load = |rows: &[Row]| {
                    let position = e.row2(rows, terms, [r, &v("c")]) + at.clone();
                    Expr::load(lanes.memory, position, lanes.ty)
                };
                let product = add_to("sum", lanes.ty, load(&a), load(&b));
                let to = e.row(&out, r) + at.clone();
                vec![
                    Stmt::Var("sum".into(), Expr::Number(0.0, lanes.ty)),
                    Stmt::For("c".into(), Expr::int(terms), vec![product]),
                    Stmt::Store(lanes.memory.into(), to, typed("sum", lanes.ty)),
                ]
            }));
        }
        code
    }

    pub(super) fn pool(&mut self, rows: &[(Row, Row)]) -> Vec<Stmt> {
        let lanes = self.lanes(self.space(&rows[0].0));
        let (x, out): (Vec<Row>, Vec<Row>) = rows.iter().copied().unzip();
        self.widest = self.widest.max(32 * rows.len());
        let from = self.row(&x, &v("r")) + lanes.at(v("i"));
        let term = Expr::load(lanes.memory, from, lanes.ty).cast(Type::Double);
        let to = self.row(&out, &v("r"));
        vec![
            Stmt::Comment(Comment::new(format!(
                "sums of {} rows over sites",
                rows.len()
            ))),
            Stmt::Warps(
                "r".into(),
                Expr::int(rows.len()),
                vec![
                    Stmt::Var("sum".into(), Expr::Number(0.0, Type::Double)),
                    Stmt::Lanes(
                        "i".into(),
                        Expr::int(lanes.sites),
                        vec![Stmt::Set("sum".into(), typed("sum", Type::Double) + term)],
                    ),
                    Stmt::Set("sum".into(), warp_sum("sum")),
                    Stmt::If(
                        v("lane").equal(Expr::Int(0)),
                        vec![Stmt::Store(
                            "numbers".into(),
                            to,
                            typed("sum", Type::Double),
                        )],
                    ),
                ],
            ),
        ]
    }

    pub(super) fn pool_product(&mut self, space: Space, groups: &[OuterGroup]) -> Vec<Stmt> {
        let lanes = self.lanes(space);
        let mut shapes: Vec<[usize; 2]> = groups.iter().map(|g| [g.a.len(), g.b.len()]).collect();
        shapes.sort_unstable();
        shapes.dedup();
        let mut code = Vec::new();
        for [na, nb] in shapes {
            let chosen: Vec<&OuterGroup> = groups
                .iter()
                .filter(|g| [g.a.len(), g.b.len()] == [na, nb])
                .collect();
            let all = |pick: &dyn Fn(&OuterGroup) -> Vec<Row>| -> Vec<Row> {
                chosen.iter().flat_map(|g| pick(g)).collect()
            };
            let a = all(&|g| g.a.clone());
            let b = all(&|g| g.b.clone());
            let out = all(&|g| g.out.clone());
            code.push(Stmt::Comment(Comment::new(format!(
                "{} [{na} x {nb}] summed over sites",
                counted(chosen.len(), "outer product")
            ))));
            code.push(self.outer_products(&lanes, [na, nb], [&a, &b, &out]));
        }
        code
    }

    /// A register tile of sums per warp.
    fn outer_products(
        &mut self,
        lanes: &Lanes,
        [na, nb]: [usize; 2],
        [a, b, out]: [&[Row]; 3],
    ) -> Stmt {
        let (ta, tb) = (na.min(4), nb.min(4));
        let tiles = [na.div_ceil(ta), nb.div_ceil(tb)];
        let per_group = tiles[0] * tiles[1];
        let count = a.len() / na * per_group;
        self.widest = self.widest.max(32 * count);
        let double = Type::Double;
        let within = |index: Expr, n: usize, tile: usize| {
            if n.is_multiple_of(tile) {
                index
            } else {
                // results beyond the last are computed and not stored
                Expr::call("smaller", vec![index, Expr::int(n - 1)], Type::Int)
            }
        };
        let at = lanes.at(v("i"));
        let left = self.row2(a, na, [&v("g"), &within(v("p") + v("s"), na, ta)]) + at.clone();
        let right = self.row2(b, nb, [&v("g"), &within(v("q") + v("t"), nb, tb)]) + at;
        let load = |position| Expr::load(lanes.memory, position, lanes.ty).cast(double);
        let slot = v("s") * Expr::int(tb) + v("t");
        let sum = Expr::load("sum", slot.clone(), double);
        let product = fma(
            Expr::load("left", v("s"), double),
            Expr::load("right", v("t"), double),
            sum.clone(),
        );
        let tile = |body: Vec<Stmt>| {
            Stmt::Unroll("s".into(), ta, vec![Stmt::Unroll("t".into(), tb, body)])
        };
        let inner = vec![
            Stmt::Array("left".into(), double, ta),
            Stmt::Array("right".into(), double, tb),
            Stmt::Unroll(
                "s".into(),
                ta,
                vec![Stmt::Store("left".into(), v("s"), load(left))],
            ),
            Stmt::Unroll(
                "t".into(),
                tb,
                vec![Stmt::Store("right".into(), v("t"), load(right))],
            ),
            tile(vec![Stmt::Store("sum".into(), slot.clone(), product)]),
        ];
        // all sums of the tile at once: every few lanes end up with one of them
        let sums = (ta * tb).next_power_of_two();
        let lanes_each = Expr::int(32 / sums);
        let index = (v("p") + v("s")) * Expr::int(nb) + v("q") + v("t");
        let to = self.row2(out, na * nb, [&v("g"), &v("result")]);
        let mut inside = (v("lane") % lanes_each.clone()).equal(Expr::Int(0));
        if sums > ta * tb {
            inside = inside.and(v("s").less(Expr::int(ta)));
        }
        if !na.is_multiple_of(ta) {
            inside = inside.and((v("p") + v("s")).less(Expr::int(na)));
        }
        if !nb.is_multiple_of(tb) {
            inside = inside.and((v("q") + v("t")).less(Expr::int(nb)));
        }
        let finish = vec![
            Stmt::Let(
                "total".into(),
                Expr::call("warp_sums", vec![typed("sum", double), v("lane")], double),
            ),
            Stmt::Let("s".into(), v("lane") / lanes_each.clone() / Expr::int(tb)),
            Stmt::Let("t".into(), v("lane") / lanes_each % Expr::int(tb)),
            Stmt::Let("result".into(), index),
            Stmt::If(
                inside,
                vec![Stmt::Store("numbers".into(), to, typed("total", double))],
            ),
        ];
        let number = v("r") % Expr::int(per_group);
        Stmt::Warps(
            "r".into(),
            Expr::int(count),
            vec![
                Stmt::Let("g".into(), v("r") / Expr::int(per_group)),
                Stmt::Let(
                    "p".into(),
                    number.clone() / Expr::int(tiles[1]) * Expr::int(ta),
                ),
                Stmt::Let("q".into(), number % Expr::int(tiles[1]) * Expr::int(tb)),
                Stmt::Sums("sum".into(), sums),
                Stmt::Lanes("i".into(), Expr::int(lanes.sites), inner),
            ]
            .into_iter()
            .chain(finish)
            .collect(),
        )
    }
}
