//! Segments ahead that are kept: for every c-th block of a sweep, and for the blocks
//! of one group in between.

use super::segment::Segment;
use crate::back::cpu::simd::Real;

/// Where a segment ahead is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ahead {
    /// Where it was made.
    Here,
    /// Kept for a group: that of its last block.
    Stored(usize),
    /// Kept for a block of the current group.
    Group(usize),
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct Kept<T> {
    stored: Vec<Segment<T>>,
    group: Vec<Segment<T>>,
}

impl<T: Real> Kept<T> {
    /// A kept segment.
    pub fn get(&self, place: Ahead) -> Option<&Segment<T>> {
        match place {
            Ahead::Here => None,
            Ahead::Stored(at) => self.stored.get(at),
            Ahead::Group(at) => self.group.get(at),
        }
    }

    /// Keeps a segment, leaving other memory of its size behind.
    pub fn keep(&mut self, place: Ahead, segment: &mut Segment<T>) {
        let (list, at) = match place {
            Ahead::Here => return,
            Ahead::Stored(at) => (&mut self.stored, at),
            Ahead::Group(at) => (&mut self.group, at),
        };
        while list.len() <= at {
            list.push(segment.clone());
        }
        std::mem::swap(&mut list[at], segment);
    }
}
