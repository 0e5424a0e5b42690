//! Mixers: translation-invariant ones by FFT, dense ones by their matrix.
//!
//! Real rows travel in pairs as one complex transform. Every input is transformed
//! once, whatever the number of channels that read it; results are made a few at
//! a time, as many as keep the block busy.

use super::super::ast::{Expr, Stmt, Type};
use super::super::constants::Data;
use super::super::names::{Comment, Name};
use super::super::sizes::{mixer_size, radices};
use super::Emitter;
use crate::ir::Op;
use crate::kernel::{Geometry, MixChannel, Row};

/// Complex numbers a group of transforms should have, to occupy a block.
const BUSY: usize = 1024;

pub(super) fn v(name: &'static str) -> Expr {
    Expr::var(name)
}

pub(super) fn c(name: &'static str) -> Expr {
    Expr::Var(name.into(), Type::Complex)
}

pub(super) fn complex(name: impl Into<Name>, index: Expr) -> Expr {
    Expr::load(name, index, Type::Complex)
}

/// A padded lattice and the transforms on it.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub(super) size: [usize; 2],
    pub(super) geometry: Geometry,
}

/// Where transforms are: a pointer and a first element.
pub(super) type Spot = (&'static str, Expr);

impl Grid {
    pub(super) fn total(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Transforms to do at once.
    pub(super) fn group(&self, transforms: usize) -> usize {
        BUSY.div_ceil(self.total()).min(transforms).max(1)
    }

    /// Position in a row of the padded position `q`, and whether there is one.
    fn site(&self, q: Expr) -> (Expr, Option<Expr>) {
        let g = &self.geometry;
        let [x, y] = match self.size {
            [_, 1] => [q, Expr::Int(0)],
            [1, _] => [Expr::Int(0), q],
            [_, ny] => [q.clone() / Expr::int(ny), q % Expr::int(ny)],
        };
        let mut inside = None;
        for (at, axis) in [(&x, 0), (&y, 1)] {
            if self.size[axis] > g.extent[axis] {
                let one = at.clone().less(Expr::int(g.extent[axis]));
                inside = Some(match inside {
                    None => one,
                    Some(other) => Expr::and(other, one),
                });
            }
        }
        (super::lane(g, x, y), inside)
    }

    /// Padded position of a site.
    fn padded(&self, site: Expr) -> Expr {
        let [x, y] = super::coordinates(&self.geometry, site);
        x * Expr::int(self.size[1]) + y
    }

    /// `-q`
    pub(super) fn mirrored(&self, q: Expr) -> Expr {
        let name = Name::instance("mirrored", &self.size.map(|n| n as i64));
        Expr::call(name, vec![q], Type::Int)
    }
}

impl Emitter<'_> {
    /// Loads padded transforms `first..first + count` from pairs of rows into a spot.
    pub(super) fn load(
        &mut self,
        grid: &Grid,
        count: Expr,
        [re, im]: [&[Row]; 2],
        first: &Expr,
        (to, start): &Spot,
    ) -> Stmt {
        let total = grid.total();
        let number = first.clone() + v("k") / Expr::int(total);
        let (at, inside) = grid.site(v("q"));
        let mut part = |rows: &[Row]| {
            let position = self.row(rows, &v("t")) + v("at");
            let value = Expr::load("rows", position, Type::Real);
            match &inside {
                Some(_) => Expr::Select(
                    Box::new(Expr::Var("inside_".into(), Type::Bool)),
                    Box::new(value),
                    Box::new(Expr::Number(0.0, Type::Real)),
                ),
                None => value,
            }
        };
        let value = Expr::call("make_complex", vec![part(re), part(im)], Type::Complex);
        let mut code = vec![
            Stmt::Let("t".into(), number),
            Stmt::Let("q".into(), v("k") % Expr::int(total)),
        ];
        if let Some(inside) = inside {
            code.push(Stmt::Let("inside_".into(), inside));
        }
        code.push(Stmt::Let("at".into(), at));
        code.push(Stmt::Store((*to).into(), start.clone() + v("k"), value));
        Stmt::Each("k".into(), count * Expr::int(total), code)
    }

    /// Transforms in place of `from`, forward or back; returns the code, each
    /// stage after a barrier, and where the result is. The last stage writes to
    /// `to` if given.
    pub(super) fn transform(
        &mut self,
        grid: &Grid,
        count: &Expr,
        forward: bool,
        from: &'static str,
        to: Option<Spot>,
    ) -> (Vec<Stmt>, &'static str) {
        let mut stages = Vec::new();
        for axis in [1, 0] {
            let n = grid.size[axis];
            let mut done = 1;
            for radix in radices(n) {
                stages.push((axis, radix, done));
                done *= radix;
            }
        }
        let swapped = |name: &'static str| if name == "work" { "other" } else { "work" };
        let mut at = from;
        let mut code = Vec::new();
        let last = stages.len();
        for (k, (axis, radix, done)) in stages.into_iter().enumerate() {
            let n = grid.size[axis];
            let (lines, stride, line_stride) = match axis {
                1 => (grid.size[0], 1, n),
                _ => (grid.size[1], grid.size[1], 1),
            };
            let roots = self.constant(Data::Roots(n), Type::Complex, n);
            let numbers = [radix, n, done, lines, stride, line_stride].map(|x| x as i64);
            let mut numbers = numbers.to_vec();
            numbers.push(if forward { -1 } else { 1 });
            let (target, start) = match &to {
                Some((name, start)) if k + 1 == last => (*name, start.clone()),
                _ => (swapped(at), Expr::Int(0)),
            };
            code.push(Stmt::Barrier);
            let arguments = vec![
                v("thread"),
                v("threads"),
                count.clone(),
                c(at),
                c(target),
                start,
                Expr::Var(roots, Type::Complex),
            ];
            let stage = Name::instance("fourier_stage", &numbers);
            code.push(Stmt::Do(Expr::call(stage, arguments, Type::Int)));
            at = target;
        }
        (code, at)
    }

    /// Groups of at most `group` of `count` things: `body(first, number)`.
    pub(super) fn grouped(
        &mut self,
        count: usize,
        group: usize,
        body: impl FnOnce(&mut Self, &Expr, &Expr) -> Vec<Stmt>,
    ) -> Vec<Stmt> {
        if count <= group {
            return body(self, &Expr::Int(0), &Expr::int(count));
        }
        let mut all = vec![Stmt::Let(
            "count".into(),
            Expr::call(
                "smaller",
                vec![Expr::int(group), Expr::int(count) - v("first")],
                Type::Int,
            ),
        )];
        all.extend(body(self, &v("first"), &v("count")));
        all.push(Stmt::Barrier);
        vec![Stmt::Chunks("first".into(), count, group, all)]
    }

    pub(super) fn mix(&mut self, mixer: usize, channels: &[MixChannel]) -> Vec<Stmt> {
        let m = &self.program.mixers[mixer];
        let g = *self.program.geometry(m.space);
        let is_complex = channels.first().is_some_and(|c| c.x.len() == 2);
        if let Op::Mix { .. } = m.op {
            return self.dense_mixer(mixer, &g, is_complex, channels);
        }
        let grid = Grid {
            size: mixer_size(&g),
            geometry: g,
        };
        let total = grid.total();
        // inputs, each once; per channel the number of its input
        let mut inputs: Vec<Vec<Row>> = Vec::new();
        let mut input_of: Vec<i64> = Vec::new();
        for channel in channels {
            let known = inputs.iter().position(|x| *x == channel.x);
            input_of.push(known.unwrap_or(inputs.len()) as i64);
            if known.is_none() {
                inputs.push(channel.x.clone());
            }
        }
        let pairs: Vec<[Row; 2]> = if is_complex {
            inputs.iter().map(|x| [x[0], x[1]]).collect()
        } else {
            let single: Vec<Row> = inputs.iter().map(|x| x[0]).collect();
            single.chunks(2).map(|p| [p[0], p[p.len() - 1]]).collect()
        };
        let [re, im] = [0, 1].map(|k| pairs.iter().map(|p| p[k]).collect::<Vec<Row>>());
        let transforms = pairs.len();
        let group = grid.group(transforms);
        self.spectra = self.spectra.max(transforms * total);
        self.work = self.work.max(group * total);
        self.widest = self.widest.max(group * total);
        let how = if is_complex { "complex" } else { "real" };
        let mut code = vec![Stmt::Comment(Comment::new(format!(
            "mixer {mixer}: {} {how} channels on {} x {} momenta, {} inputs",
            channels.len(),
            grid.size[0],
            grid.size[1],
            inputs.len()
        )))];
        let no_stages = grid.size.iter().all(|&n| n == 1);
        code.extend(self.grouped(transforms, group, |e, first, count| {
            let spectra = ("spectra", first.clone() * Expr::int(total));
            if no_stages {
                return vec![e.load(&grid, count.clone(), [&re, &im], first, &spectra)];
            }
            let work = ("work", Expr::Int(0));
            let mut code = vec![e.load(&grid, count.clone(), [&re, &im], first, &work)];
            code.extend(e.transform(&grid, count, true, "work", Some(spectra)).0);
            code
        }));
        code.push(Stmt::Barrier);
        code.extend(self.mixed(mixer, &grid, is_complex, channels, &input_of));
        code
    }

    /// From spectra to results.
    fn mixed(
        &mut self,
        mixer: usize,
        grid: &Grid,
        is_complex: bool,
        channels: &[MixChannel],
        input_of: &[i64],
    ) -> Vec<Stmt> {
        let total = grid.total();
        let width: usize = self.program.mixers[mixer].channels.iter().product();
        let symbols = self.constant(Data::Symbols(mixer), Type::Complex, width * total);
        let mut kernels: Vec<i64> = channels.iter().map(|c| c.channel as i64).collect();
        let mut inputs = input_of.to_vec();
        let part =
            |k: usize| -> Vec<i64> { channels.iter().map(|c| self.position(&c.out[k])).collect() };
        let mut targets = if is_complex {
            [part(0), part(1)]
        } else {
            [part(0), Vec::new()]
        };
        if !is_complex {
            if channels.len() % 2 == 1 {
                kernels.extend(kernels.last().copied());
                inputs.extend(inputs.last().copied());
                targets[0].push(self.spare());
            }
            let all = std::mem::take(&mut targets[0]);
            for (k, position) in all.into_iter().enumerate() {
                targets[k % 2].push(position);
            }
        }
        let results = targets[0].len();
        let group = grid.group(results);
        self.work = self.work.max(group * total);
        self.widest = self.widest.max(group * total);
        let buffer = channels[0].out[0].buffer;
        let anchor = (
            self.buffer_name(buffer.0),
            self.offsets[buffer.0 as usize] as i64,
        );
        self.used.insert(buffer.0);
        self.grouped(results, group, |e, first, count| {
            let mut code = Vec::new();
            let number = first.clone() + v("k") / Expr::int(total);
            let mut product = |channel: &Expr| {
                let kernel = e.index(&kernels, channel) * Expr::int(total) + v("q");
                let input = e.index(&inputs, channel);
                let spectrum = if is_complex {
                    complex("spectra", input * Expr::int(total) + v("q"))
                } else {
                    let arguments = vec![
                        c("spectra"),
                        Expr::int(total),
                        input,
                        v("q"),
                        grid.mirrored(v("q")),
                    ];
                    Expr::call("split", arguments, Type::Complex)
                };
                complex(symbols.clone(), kernel) * spectrum
            };
            let value = if is_complex {
                product(&v("t"))
            } else {
                let channel = v("t") * Expr::Int(2);
                let (a, b) = (
                    product(&channel),
                    product(&(channel.clone() + Expr::Int(1))),
                );
                a + Expr::call("times_i", vec![b], Type::Complex)
            };
            code.push(Stmt::Each(
                "k".into(),
                count.clone() * Expr::int(total),
                vec![
                    Stmt::Let("t".into(), number),
                    Stmt::Let("q".into(), v("k") % Expr::int(total)),
                    Stmt::Store("work".into(), v("k"), value),
                ],
            ));
            let (stages, at) = e.transform(grid, count, false, "work", None);
            code.extend(stages);
            code.push(Stmt::Barrier);
            let sites = grid.geometry.sites();
            let from = v("k") / Expr::int(sites) * Expr::int(total) + grid.padded(v("i"));
            let mut store = |targets: &[i64], part: &'static str| {
                let anchor = |value: i64| (value >= anchor.1).then(|| anchor.clone());
                let to = e.positions.at(targets, &v("t"), &anchor) + v("at");
                let value = Expr::call(part, vec![c("z")], Type::Real);
                Stmt::Store("rows".into(), to, value)
            };
            let [x, y] = super::coordinates(&grid.geometry, v("i"));
            let body = vec![
                Stmt::Let("t".into(), first.clone() + v("k") / Expr::int(sites)),
                Stmt::Let("i".into(), v("k") % Expr::int(sites)),
                Stmt::Let("at".into(), super::lane(&grid.geometry, x, y)),
                Stmt::Let("z".into(), complex(at, from)),
                store(&targets[0], "real_part"),
                store(&targets[1], "imaginary_part"),
            ];
            code.push(Stmt::Each(
                "k".into(),
                count.clone() * Expr::int(sites),
                body,
            ));
            code
        })
    }

    /// `y_i = sum_j k(i, j) x_j`
    fn dense_mixer(
        &mut self,
        mixer: usize,
        g: &Geometry,
        is_complex: bool,
        channels: &[MixChannel],
    ) -> Vec<Stmt> {
        let n = g.sites();
        let lanes = self.lanes(g.space());
        let matrices = &self.program.mixers[mixer].matrices;
        let different = self.program.mixers[mixer].different().len();
        let ty = if is_complex {
            Type::Complex
        } else {
            Type::Real
        };
        let data = Data::Matrix {
            mixer,
            complex: is_complex,
        };
        let matrix = self.constant(data, ty, different * n * n);
        let kernels = channels.iter().map(|c| matrices[c.channel] as i64);
        let kernels: Vec<i64> = kernels.collect();
        let rows =
            |pick: &dyn Fn(&MixChannel) -> Row| -> Vec<Row> { channels.iter().map(pick).collect() };
        let code = self.each_site(channels.len(), n, |e, r, i| {
            let entry = (e.index(&kernels, r) * Expr::int(n) + v("j")) * Expr::int(n) + i.clone();
            let weight = Expr::load(matrix.clone(), entry, ty);
            let mut load = |pick: &dyn Fn(&MixChannel) -> Row| {
                let from = e.row(&rows(pick), r) + lanes.at(v("j"));
                Expr::load("rows", from, Type::Real)
            };
            let x = if is_complex {
                let parts = vec![load(&|c| c.x[0]), load(&|c| c.x[1])];
                Expr::call("make_complex", parts, Type::Complex)
            } else {
                load(&|c| c.x[0])
            };
            let sum = Expr::Var("sum".into(), ty);
            let zero = if is_complex {
                let zero = Expr::Number(0.0, Type::Real);
                Expr::call("make_complex", vec![zero.clone(), zero], Type::Complex)
            } else {
                Expr::Number(0.0, Type::Real)
            };
            let mut code = vec![
                Stmt::Var("sum".into(), zero),
                Stmt::For(
                    "j".into(),
                    Expr::int(n),
                    vec![Stmt::Set("sum".into(), sum.clone() + weight * x)],
                ),
                Stmt::Let("at".into(), lanes.at(i.clone())),
            ];
            let mut store = |pick: &dyn Fn(&MixChannel) -> Row, value: Expr| {
                let to = e.row(&rows(pick), r) + v("at");
                code.push(Stmt::Store("rows".into(), to, value));
            };
            if is_complex {
                let part = |name: &'static str| Expr::call(name, vec![sum.clone()], Type::Real);
                store(&|c| c.out[0], part("real_part"));
                store(&|c| c.out[1], part("imaginary_part"));
            } else {
                store(&|c| c.out[0], sum);
            }
            code
        });
        let what = format!(
            "mixer {mixer}: {} dense channels, {different} matrices",
            channels.len()
        );
        vec![Stmt::Comment(Comment::new(what)), code]
    }
}
