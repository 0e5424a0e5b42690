//! Stretches of steps that run block of lanes after block of lanes.
//!
//! On long lattices a row no longer stays in the cache until the next step reads
//! it. Consecutive steps that work lane by lane are therefore all done on one
//! block before the next, as long as none of them reads a neighbouring lane of
//! what another one writes.

use crate::kernel::{BufferId, Program, Space, Step};
use std::collections::HashSet;
use std::ops::Range;

/// Lanes of a block: a multiple of what micro-kernels do at a time.
pub(super) const BLOCK: usize = 512;

/// The space of a step that works lane by lane.
fn space(step: &Step) -> Option<Space> {
    match step {
        Step::Map { space, .. }
        | Step::Dense { space, .. }
        | Step::Dot { space, .. }
        | Step::Lookup { space, .. } => Some(*space).filter(|s| *s != Space::Batch),
        _ => None,
    }
}

/// All steps as stretches, in order; those that do not work lane by lane are
/// alone.
pub(super) fn stretches(program: &Program) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> = Vec::new();
    let mut current: Option<Space> = None;
    let mut written: HashSet<BufferId> = HashSet::new();
    let mut beside: HashSet<BufferId> = HashSet::new();
    for (k, step) in program.steps.iter().enumerate() {
        let (mut shifted, mut results) = (HashSet::new(), HashSet::new());
        step.visit(
            &mut |r| {
                if r.shift != 0 {
                    shifted.insert(r.buffer);
                }
            },
            &mut |r| {
                results.insert(r.buffer);
            },
        );
        let joins = current.is_some()
            && current == space(step)
            && shifted.is_disjoint(&written)
            && results.is_disjoint(&beside);
        match all.last_mut() {
            Some(last) if joins => last.end = k + 1,
            _ => {
                all.push(k..k + 1);
                written.clear();
                beside.clear();
            }
        }
        current = space(step);
        written.extend(results);
        beside.extend(shifted);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Program as Source;
    use crate::ir::{Boundary, Lattice};
    use crate::kernel::lower::lower_without_tables;
    use crate::pipeline;

    #[test]
    fn no_lane_is_read_before_it_is_written() {
        let source = Source::parse(
            "dysonnet.dnet",
            include_str!("../../../examples/dysonnet.dnet"),
        );
        let info = source.network("dysonnet").check().expect("the example");
        let graph = pipeline::amplitude(&pipeline::graph(&info));
        let lattice = Lattice::chain(20, Boundary::Periodic);
        let program = lower_without_tables(&graph, lattice, &[], &[]).expect("a chain");
        let stretches = stretches(&program);
        assert!(stretches.iter().any(|s| s.len() > 1), "{program}");
        let covered: Vec<usize> = stretches.iter().cloned().flatten().collect();
        assert!(covered.into_iter().eq(0..program.steps.len()));
        for s in stretches.iter().filter(|s| s.len() > 1) {
            let steps = &program.steps[s.clone()];
            for (k, step) in steps.iter().enumerate() {
                step.visit(
                    &mut |read| {
                        let by = |other: &Step| {
                            let mut found = false;
                            other.visit(&mut |_| {}, &mut |w| found |= w.buffer == read.buffer);
                            found
                        };
                        let writer = steps.iter().position(by);
                        let in_time = writer.is_none_or(|w| w <= k && read.shift == 0);
                        assert!(in_time, "step {k} of {s:?}\n{program}");
                    },
                    &mut |_| {},
                );
            }
        }
    }
}
