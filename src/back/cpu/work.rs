//! How much work a program is: what strategies are compared by.

use crate::kernel::expr::ExprNode;
use crate::kernel::{Program, Space, Step};

/// Vector operations on one number per transcendental function.
const FUNCTION: f64 = 12.0;

/// Estimated work of one run for one configuration, in multiply-adds of the
/// micro-kernels. Meant for ratios between programs of one network.
pub fn work(program: &Program) -> f64 {
    let lanes = |space: Space| match space {
        Space::Batch => 1.0,
        space => program.geometry(space).segment() as f64,
    };
    let site = |row: &crate::kernel::Row| lanes(program.buffers[row.buffer.0 as usize].space);
    program
        .steps
        .iter()
        .map(|step| match step {
            Step::Spins { out } => site(out),
            Step::Map { space, expr, rows } => {
                let cost = |n: &ExprNode| match n {
                    ExprNode::Map(..) | ExprNode::Sigmoid(_) => FUNCTION,
                    _ => 1.0,
                };
                let each: f64 = expr.nodes().iter().map(cost).sum();
                lanes(*space) * rows.len() as f64 * each
            }
            Step::Dense { space, groups } => {
                let each = |g: &crate::kernel::DenseGroup| (g.out.len() * g.x.len()) as f64;
                lanes(*space) * groups.iter().map(each).sum::<f64>()
            }
            Step::Dot { space, rows } => {
                let each = rows.iter().map(|r| r.1.len() as f64).sum::<f64>();
                2.0 * lanes(*space) * each
            }
            Step::Halo { .. } => 0.0,
            Step::Lookup { space, rows, .. } => lanes(*space) * (1 + rows.len()) as f64,
            Step::Mix { mixer, channels } => {
                let n = lanes(program.mixers[*mixer].space);
                10.0 * channels.len() as f64 * n * n.log2().max(1.0)
            }
            Step::Pool { rows } | Step::Spread { rows } => {
                rows.iter().map(|(x, o)| site(x).max(site(o))).sum()
            }
            Step::Gather { rows } => rows.iter().map(|(x, _)| site(x)).sum(),
            Step::Patch { rows, .. } | Step::Unpatch { rows, .. } => {
                rows.iter().map(|(x, _, o)| site(x).max(site(o))).sum()
            }
            // products of gradients only: never part of an update
            Step::PoolProduct { .. } | Step::Correlate { .. } => 0.0,
            Step::Reference { operands, out, .. } => {
                let rows = operands.iter().flatten().flatten().chain(out);
                100.0 * rows.map(site).sum::<f64>()
            }
        })
        .sum()
}

/// Floating-point operations of one run for one configuration: a multiply-add
/// counts two, a transform of n numbers `5 n log2 n`.
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
            let parts = channels.iter().map(|c| c.x.len()).sum::<usize>() as f64 / 2.0;
            parts * (10.0 * n * n.log2() + 6.0 * n)
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
