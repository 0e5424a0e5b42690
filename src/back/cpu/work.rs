//! How much work a program is: what strategies are compared by.

use crate::back::costs::{self, Costs};
use crate::ir::Op;
use crate::kernel::expr::ExprNode;
use crate::kernel::{Program, Space, Step};

/// What a run of a program for one configuration consists of, in the terms of
/// [`Costs`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Multiply-adds of small matrices with rows.
    pub products: f64,
    /// Transcendental functions.
    pub functions: f64,
    /// Other operations of fused loops.
    pub operations: f64,
    /// Summed products of site values.
    pub dots: f64,
    /// `n log2 n` of transforms.
    pub transforms: f64,
    /// Values read from tables.
    pub lookups: f64,
    /// Numbers summed up, copied or rearranged.
    pub copies: f64,
    /// Steps.
    pub steps: f64,
}

impl Counts {
    /// Counts one run.
    pub fn new(program: &Program) -> Counts {
        let mut counts = Counts::default();
        for step in &program.steps {
            counts.add(program, step);
        }
        counts
    }

    fn add(&mut self, program: &Program, step: &Step) {
        let lanes = |space: Space| match space {
            Space::Batch => 1.0,
            space => program.geometry(space).segment() as f64,
        };
        let site = |row: &crate::kernel::Row| lanes(program.buffers[row.buffer.0 as usize].space);
        self.steps += 1.0;
        match step {
            Step::Spins { out } => self.copies += site(out),
            Step::Map { space, expr, rows } => {
                let numbers = lanes(*space) * rows.len() as f64;
                for n in expr.nodes() {
                    match n {
                        ExprNode::Map(..) | ExprNode::Sigmoid(_) => self.functions += numbers,
                        _ => self.operations += numbers,
                    }
                }
            }
            Step::Dense { space, groups } => {
                let each = |g: &crate::kernel::DenseGroup| (g.out.len() * g.x.len()) as f64;
                self.products += lanes(*space) * groups.iter().map(each).sum::<f64>();
            }
            Step::Dot { space, rows } => {
                let each = rows.iter().map(|r| r.1.len() as f64).sum::<f64>();
                self.dots += lanes(*space) * each;
            }
            Step::Halo { .. } => {}
            Step::Lookup { space, rows, .. } => {
                self.lookups += lanes(*space) * (1 + rows.len()) as f64;
            }
            Step::Mix { mixer, channels } => {
                let n = lanes(program.mixers[*mixer].space);
                let channels = channels.iter().map(|c| c.x.len().pow(2) as f64);
                match program.mixers[*mixer].op {
                    Op::Mix { .. } => self.products += n * n * channels.sum::<f64>(),
                    _ => self.transforms += channels.count() as f64 * n * n.log2().max(1.0),
                }
            }
            Step::Pool { rows } | Step::Spread { rows } => {
                self.copies += rows.iter().map(|(x, o)| site(x).max(site(o))).sum::<f64>();
            }
            Step::Gather { rows } => self.copies += rows.iter().map(|(x, _)| site(x)).sum::<f64>(),
            Step::Patch { rows, .. } | Step::Unpatch { rows, .. } => {
                let each = rows.iter().map(|(x, _, o)| site(x).max(site(o)));
                self.copies += each.sum::<f64>();
            }
            // products of gradients only: never part of an update
            Step::PoolProduct { .. } | Step::Correlate { .. } => {}
            Step::Reference { operands, out, .. } => {
                let rows = operands.iter().flatten().flatten().chain(out);
                self.copies += REFERENCE * rows.map(site).sum::<f64>();
            }
        }
    }

    /// The counts in the order of [`Costs::entries`], multiply-adds first.
    pub fn terms(&self) -> [f64; 8] {
        [
            self.products,
            self.functions,
            self.operations,
            self.dots,
            self.transforms,
            self.lookups,
            self.copies,
            self.steps,
        ]
    }

    /// In multiply-adds.
    pub fn work(&self, costs: &Costs) -> f64 {
        let [products, rest @ ..] = self.terms();
        let rest = rest.iter().zip(costs.entries());
        products + rest.map(|(n, (_, cost))| n * cost).sum::<f64>()
    }
}

/// Numbers copied per number that the interpreter works on.
const REFERENCE: f64 = 100.0;

/// Estimated work of one run for one configuration, in multiply-adds of the
/// micro-kernels. Meant for ratios between programs of one network.
pub fn work(program: &Program) -> f64 {
    Counts::new(program).work(costs::in_force())
}

/// Floating-point operations of one run for one configuration: a multiply-add
/// counts two, a transform of n numbers `5 n log2 n`; mixers that have a matrix are
/// products, all others two transforms each.
pub fn flops(program: &Program) -> f64 {
    let sites = |space: Space| match space {
        Space::Batch => 1.0,
        space => program.geometry(space).sites() as f64,
    };
    let count = |step: &Step| match step {
        Step::Map { space, expr, rows } => sites(*space) * (rows.len() * expr.flops()) as f64,
        Step::Dense { space, groups } => {
            let each = |g: &crate::kernel::DenseGroup| g.out.len() * g.x.len();
            2.0 * sites(*space) * groups.iter().map(each).sum::<usize>() as f64
        }
        Step::Dot { space, rows } => {
            2.0 * sites(*space) * rows.iter().map(|r| r.1.len()).sum::<usize>() as f64
        }
        Step::Mix { mixer, channels } => {
            let n = sites(program.mixers[*mixer].space);
            let parts = channels.iter().map(|c| c.x.len() as f64);
            match program.mixers[*mixer].op {
                Op::Mix { .. } => 2.0 * n * n * parts.map(|p| p * p).sum::<f64>(),
                _ => (5.0 * n * n.log2() + 3.0 * n) * parts.sum::<f64>(),
            }
        }
        Step::Correlate {
            correlation,
            channels,
            out,
        } => {
            let n = sites(program.correlations[*correlation].space);
            let rows = out.iter().map(Vec::len).sum::<usize>() as f64;
            10.0 * n * n.log2() * channels.len() as f64 + 4.0 * n * rows
        }
        Step::PoolProduct { space, groups } => {
            let each = |g: &crate::kernel::OuterGroup| g.out.len();
            2.0 * sites(*space) * groups.iter().map(each).sum::<usize>() as f64
        }
        Step::Pool { rows } => rows
            .iter()
            .map(|(x, _)| sites(program.buffers[x.buffer.0 as usize].space))
            .sum(),
        _ => 0.0,
    };
    program.steps.iter().map(count).sum()
}
