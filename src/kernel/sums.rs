//! Sums of products that share factors, moved to one step.
//!
//! Changes of different spins of a token see the same links. Where their sums are
//! one step, a back end reads every link once for all of them.

use super::{Program, Row, Space, Step};
use crate::kernel::BufferId;
use std::collections::HashSet;

/// A row, wherever it is read.
type Key = (BufferId, u32);

impl Program {
    /// Joins sums over the same first factors, as far as the order of steps allows:
    /// whatever the later sums need is computed before the earlier ones.
    pub fn join_sums(&mut self) {
        let mut first = 0;
        while first < self.steps.len() {
            match self.partner(first) {
                Some((later, needed)) => self.join(first, later, &needed),
                None => first += 1,
            }
        }
    }

    /// A later step of sums over first factors of this one, and the steps between
    /// the two that it needs.
    fn partner(&self, first: usize) -> Option<(usize, HashSet<usize>)> {
        let lists = first_factors(&self.steps[first])?;
        (first + 1..self.steps.len()).find_map(|later| {
            let others = first_factors(&self.steps[later])?;
            let common = lists.0 == others.0 && !lists.1.is_disjoint(&others.1);
            let needed = common.then(|| self.needed(first, later))??;
            Some((later, needed))
        })
    }

    /// The steps after `first` that `later` needs, if they and it can go before.
    fn needed(&self, first: usize, later: usize) -> Option<HashSet<usize>> {
        let (mut reads, _) = self.touched(later);
        let mut needed = HashSet::new();
        for k in (first..later).rev() {
            let (read, written) = self.touched(k);
            if written.is_disjoint(&reads) {
                continue;
            }
            if k == first {
                return None;
            }
            needed.insert(k);
            reads.extend(read);
        }
        // what goes before the others must not write what they read or write
        let mut passed = HashSet::new();
        for k in first..=later {
            let (read, written) = self.touched(k);
            if needed.contains(&k) || k == later {
                if !written.is_disjoint(&passed) {
                    return None;
                }
            } else {
                passed.extend(read);
                passed.extend(written);
            }
        }
        Some(needed)
    }

    /// Rows read and written by a step.
    fn touched(&self, step: usize) -> (HashSet<Key>, HashSet<Key>) {
        if let Step::Halo { buffer } = self.steps[step] {
            let rows = self.buffers[buffer.0 as usize].rows;
            let all: HashSet<Key> = (0..rows).map(|r| (buffer, r)).collect();
            return (all.clone(), all);
        }
        let (mut read, mut written) = (HashSet::new(), HashSet::new());
        let key = |r: Row| (r.buffer, r.row);
        self.steps[step].visit(&mut |r| _ = read.insert(key(r)), &mut |r| {
            written.insert(key(r));
        });
        (read, written)
    }

    fn join(&mut self, first: usize, later: usize, needed: &HashSet<usize>) {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (k, step) in self.steps.drain(first..=later).enumerate() {
            if needed.contains(&(first + k)) {
                before.push(step);
            } else {
                after.push(step);
            }
        }
        if let (Some(Step::Dot { rows: more, .. }), Some(Step::Dot { rows, .. })) =
            (after.pop(), after.first_mut())
        {
            rows.extend(more);
        }
        before.extend(after);
        self.steps.splice(first..first, before);
    }
}

/// The lists of first factors of a step of sums on sites.
fn first_factors(step: &Step) -> Option<(Space, HashSet<Vec<Row>>)> {
    match step {
        Step::Dot { space, rows } if *space != Space::Batch => {
            let list =
                |(_, factors): &(Row, Vec<(Row, Row)>)| factors.iter().map(|(a, _)| *a).collect();
            Some((*space, rows.iter().map(list).collect()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Buffer;

    const CHAIN: Space = Space::Site(crate::check::core::Token::SPIN);

    fn row(buffer: u32) -> Row {
        Row {
            buffer: BufferId(buffer),
            row: 0,
            shift: 0,
        }
    }

    fn sum(out: u32, a: u32, b: u32) -> Step {
        Step::Dot {
            space: CHAIN,
            rows: vec![(row(out), vec![(row(a), row(b))])],
        }
    }

    /// Something that makes one row of another.
    fn made(out: u32, x: u32) -> Step {
        Step::Patch {
            ratio: [1, 1],
            rows: vec![(row(x), [0, 0], row(out))],
        }
    }

    fn joined(steps: Vec<Step>) -> String {
        let mut program = Program {
            lattice: crate::ir::Lattice::chain(4, crate::ir::Boundary::Open),
            geometries: Vec::new(),
            buffers: (0..9)
                .map(|k| Buffer {
                    name: format!("{k}"),
                    space: CHAIN,
                    rows: 1,
                    external: false,
                })
                .collect(),
            steps,
            scalars: Vec::new(),
            statics: Vec::new(),
            mixers: Vec::new(),
            tables: None,
            correlations: Vec::new(),
            outputs: Vec::new(),
            inputs: Vec::new(),
            site_outputs: Vec::new(),
            kept: Vec::new(),
        };
        program.join_sums();
        let show = |step: &Step| match step {
            Step::Dot { rows, .. } => {
                let outs = rows.iter().map(|(out, _)| out.buffer.0.to_string());
                format!("sum {}", outs.collect::<Vec<_>>().join("+"))
            }
            Step::Patch { rows, .. } => format!("{}", rows[0].2.buffer.0),
            _ => "halo".to_string(),
        };
        program
            .steps
            .iter()
            .map(show)
            .collect::<Vec<_>>()
            .join(", ")
    }

    #[test]
    fn later_sums_come_to_the_first() {
        // what the second sum needs goes before, what uses the first one stays
        let steps = vec![
            sum(2, 0, 1),
            made(3, 2),
            made(4, 1),
            sum(5, 0, 4),
            made(6, 5),
        ];
        assert_eq!(joined(steps), "4, sum 2+5, 3, 6");
    }

    #[test]
    fn sums_that_depend_on_each_other_stay() {
        let steps = vec![sum(2, 0, 1), made(3, 2), sum(5, 0, 3)];
        assert_eq!(joined(steps), "sum 2, 3, sum 5");
        let other = vec![sum(2, 0, 1), sum(5, 4, 1)];
        assert_eq!(joined(other), "sum 2, sum 5");
        // row 4 is read before it is written again
        let steps = vec![sum(2, 0, 1), made(3, 4), made(4, 1), sum(5, 0, 4)];
        assert_eq!(joined(steps), "sum 2, 3, 4, sum 5");
        let halo = Step::Halo {
            buffer: BufferId(1),
        };
        let steps = vec![sum(2, 0, 1), halo, sum(5, 0, 1)];
        assert_eq!(joined(steps), "sum 2, halo, sum 5");
    }
}
