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
