//! Derivatives with respect to the kernels of mixers, by FFT.

use super::super::ast::{Expr, Stmt, Type};
use super::super::constants::Data;
use super::super::names::Comment;
use super::super::sizes::{correlation_size, scan_entries};
use super::Emitter;
use super::fourier::{Grid, c, complex, v};
use crate::ir::{Boundary, Scan};
use crate::kernel::{CorrelationKind, Row};

/// What one channel's correlation is reduced to.
struct Reduction<'r> {
    /// Where the correlation or its spectrum is.
    at: &'static str,
    first: &'r Expr,
    count: &'r Expr,
    /// Channels.
    width: usize,
    complex: bool,
    out: &'r [Vec<Row>],
}

impl Emitter<'_> {
    pub(super) fn correlate(
        &mut self,
        correlation: usize,
        channels: &[[Vec<Row>; 2]],
        out: &[Vec<Row>],
    ) -> Vec<Stmt> {
        let k = &self.program.correlations[correlation];
        let g = *self.program.geometry(k.space);
        let grid = Grid {
            size: correlation_size(&g),
            geometry: g,
        };
        let open = g.boundary == Boundary::Open;
        let (total, width, is_complex) = (grid.total(), channels.len(), k.complex);
        // real rows: adjoint and input share one transform
        let per = if is_complex { 2 } else { 1 };
        let pick = |which: usize, part: usize| channels.iter().map(move |c| c[which][part]);
        let [re, im]: [Vec<Row>; 2] = if is_complex {
            let both = |part: usize| {
                pick(0, part)
                    .zip(pick(1, part))
                    .flat_map(|(g, x)| [g, x])
                    .collect()
            };
            [both(0), both(1)]
        } else {
            [pick(0, 0).collect(), pick(1, 0).collect()]
        };
        let group = grid.group(per * width).div_ceil(per);
        self.work = self.work.max(per * group * total);
        self.widest = self.widest.max(per * group * total);
        let mut code = vec![Stmt::Comment(Comment::new(format!(
            "correlation {correlation}: {width} channels on {} x {} momenta",
            grid.size[0], grid.size[1]
        )))];
        let kind = k.kind.clone();
        let back = match &kind {
            CorrelationKind::Displacement => true,
            CorrelationKind::Momentum => false,
            CorrelationKind::Scan { .. } => open,
        };
        code.extend(self.grouped(width, group, |e, first, count| {
            let transforms = count.clone() * Expr::int(per);
            let first_transform = first.clone() * Expr::int(per);
            let work = ("work", Expr::Int(0));
            let mut code = vec![e.load(
                &grid,
                transforms.clone(),
                [&re, &im],
                &first_transform,
                &work,
            )];
            let (stages, at) = e.transform(&grid, &transforms, true, "work", None);
            code.extend(stages);
            let free = if at == "work" { "other" } else { "work" };
            code.push(Stmt::Barrier);
            code.push(product(&grid, count, is_complex, at, free));
            let mut result = free;
            if back {
                let (stages, at) = e.transform(&grid, count, false, free, None);
                code.extend(stages);
                result = at;
            }
            code.push(Stmt::Barrier);
            let reduction = Reduction {
                at: result,
                first,
                count,
                width,
                complex: is_complex,
                out,
            };
            code.push(match &kind {
                CorrelationKind::Momentum => e.momenta(&grid, &reduction),
                CorrelationKind::Displacement => e.displacements(&grid, &reduction),
                CorrelationKind::Scan {
                    scan, wrt, kernel, ..
                } => {
                    let entries = scan_entries(e.graph, e.program, *scan, kernel, wrt);
                    e.recurrence(correlation, &grid, &reduction, *scan, &entries)
                }
            });
            code
        }));
        code
    }

    fn momenta(&mut self, grid: &Grid, r: &Reduction) -> Stmt {
        let places: Vec<usize> = (0..grid.total()).collect();
        self.entries(grid, r, &places, true)
    }

    fn displacements(&mut self, grid: &Grid, r: &Reduction) -> Stmt {
        let [nx, ny] = grid.geometry.extent;
        let size = grid.size;
        let places: Vec<usize> = match grid.geometry.boundary {
            Boundary::Periodic => (0..nx * ny).collect(),
            Boundary::Open => {
                let place = |e: usize| {
                    let (x, y) = (e / (2 * ny - 1), e % (2 * ny - 1));
                    (x + size[0] + 1 - nx) % size[0] * size[1] + (y + size[1] + 1 - ny) % size[1]
                };
                (0..(2 * nx - 1) * (2 * ny - 1)).map(place).collect()
            }
        };
        self.entries(grid, r, &places, r.complex)
    }

    /// Elements of the correlation as they are, one row per place (and part).
    fn entries(&mut self, grid: &Grid, r: &Reduction, places: &[usize], both: bool) -> Stmt {
        let parts = if both { 2 } else { 1 };
        let n = places.len();
        let rows = |part: usize| -> Vec<Row> {
            let row = |channel: usize, e: usize| r.out[0][(parts * e + part) * r.width + channel];
            (0..r.width)
                .flat_map(|c| (0..n).map(move |e| row(c, e)))
                .collect()
        };
        let places: Vec<i64> = places.iter().map(|&p| p as i64).collect();
        let from = v("k") / Expr::int(n) * Expr::int(grid.total()) + self.index(&places, &v("e"));
        let mut code = vec![
            Stmt::Let("t".into(), r.first.clone() + v("k") / Expr::int(n)),
            Stmt::Let("e".into(), v("k") % Expr::int(n)),
            Stmt::Let("z".into(), complex(r.at, from)),
        ];
        for (part, name) in ["real_part", "imaginary_part"]
            .into_iter()
            .enumerate()
            .take(parts)
        {
            let to = self.row2(&rows(part), n, [&v("t"), &v("e")]);
            let value = Expr::call(name, vec![c("z")], Type::Real).cast(Type::Double);
            code.push(Stmt::Store("numbers".into(), to, value));
        }
        Stmt::Each("k".into(), r.count.clone() * Expr::int(n), code)
    }

    /// A matrix per channel: derivatives with respect to coefficients.
    fn recurrence(
        &mut self,
        correlation: usize,
        grid: &Grid,
        r: &Reduction,
        scan: Scan,
        entries: &[usize],
    ) -> Stmt {
        let (taps, total) = (grid.geometry.extent[0], grid.total());
        let per_channel: usize = entries.iter().sum();
        let data = Data::Reduction(correlation);
        let matrix = self.constant(data, Type::Real, r.width * per_channel * 2 * taps);
        let parts = if scan.complex { 2 } else { 1 };
        let rows = |part: usize| -> Vec<Row> {
            let mut rows = Vec::new();
            for channel in 0..r.width {
                for (result, &n) in entries.iter().enumerate() {
                    rows.extend((0..n).map(|e| r.out[result][(part * n + e) * r.width + channel]));
                }
            }
            rows
        };
        let z = |index: Expr| {
            let start = v("k") / Expr::int(per_channel) * Expr::int(total);
            complex(r.at, start + index)
        };
        let mirrored = grid.mirrored(v("n"));
        let folded = match (scan.mirror, scan.leftward) {
            (true, _) => z(v("n")) + z(mirrored),
            (false, false) => z(v("n")),
            (false, true) => z(mirrored),
        };
        let number = v("t") * Expr::int(per_channel) + v("e");
        let weight = |part: usize| {
            let index = number.clone() * Expr::int(2 * taps) + Expr::int(part * taps) + v("n");
            Expr::load(matrix.clone(), index, Type::Real).cast(Type::Double)
        };
        let part =
            |name: &'static str| Expr::call(name, vec![c("f")], Type::Real).cast(Type::Double);
        let double = |name: &'static str| Expr::Var(name.into(), Type::Double);
        // conj(m) f
        let terms = vec![
            Stmt::Let("f".into(), folded),
            Stmt::Let("mr".into(), weight(0)),
            Stmt::Let("mi".into(), weight(1)),
            Stmt::Set(
                "re".into(),
                double("re")
                    + double("mr") * part("real_part")
                    + double("mi") * part("imaginary_part"),
            ),
            Stmt::Set(
                "im".into(),
                double("im") + double("mr") * part("imaginary_part")
                    - double("mi") * part("real_part"),
            ),
        ];
        self.widest = self.widest.max(32 * r.width * per_channel);
        let mut code = vec![
            Stmt::Let(
                "t".into(),
                r.first.clone() + v("k") / Expr::int(per_channel),
            ),
            Stmt::Let("e".into(), v("k") % Expr::int(per_channel)),
            Stmt::Var("re".into(), Expr::Number(0.0, Type::Double)),
            Stmt::Var("im".into(), Expr::Number(0.0, Type::Double)),
            Stmt::Lanes("n".into(), Expr::int(taps), terms),
        ];
        let mut stores = Vec::new();
        for (part, name) in ["re", "im"].into_iter().enumerate().take(parts) {
            let sum = Expr::call("warp_sum", vec![double(name)], Type::Double);
            code.push(Stmt::Set(name.into(), sum));
            let to = self.row2(&rows(part), per_channel, [&v("t"), &v("e")]);
            stores.push(Stmt::Store("numbers".into(), to, double(name)));
        }
        code.push(Stmt::If(v("lane").equal(Expr::Int(0)), stores));
        Stmt::Warps("k".into(), r.count.clone() * Expr::int(per_channel), code)
    }
}

/// `G(q) conj X(q) / T` from spectra to another place.
fn product(
    grid: &Grid,
    count: &Expr,
    is_complex: bool,
    at: &'static str,
    to: &'static str,
) -> Stmt {
    let total = Expr::int(grid.total());
    let spectrum = |which: usize| {
        let number = v("t") * Expr::Int(2) + Expr::int(which);
        if is_complex {
            return complex(at, number * total.clone() + v("q"));
        }
        let arguments = vec![c(at), total.clone(), number, v("q"), grid.mirrored(v("q"))];
        Expr::call("split", arguments, Type::Complex)
    };
    let scale = Expr::Number(1.0 / grid.total() as f64, Type::Real);
    let value = Expr::call(
        "conjugate_product",
        vec![spectrum(0), spectrum(1), scale],
        Type::Complex,
    );
    Stmt::Each(
        "k".into(),
        count.clone() * total.clone(),
        vec![
            Stmt::Let("t".into(), v("k") / total.clone()),
            Stmt::Let("q".into(), v("k") % total),
            Stmt::Store(to.into(), v("k"), value),
        ],
    )
}
