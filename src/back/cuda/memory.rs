//! Device memory that was given back, kept for who asks next.

use super::device::Stream;
use std::collections::HashMap;

/// Device memory by who had it: allocation is slow.
#[derive(Default)]
pub(super) struct Memory {
    /// Given back, by its stream and size.
    pub idle: HashMap<(Stream, usize), Vec<u64>>,
    /// Stream and size of all that was allocated.
    pub known: HashMap<u64, (Stream, usize)>,
}

impl Memory {
    /// Bytes that are idle.
    pub fn idle_bytes(&self) -> usize {
        let bytes = |(key, all): (&(Stream, usize), &Vec<u64>)| key.1 * all.len();
        self.idle.iter().map(bytes).sum()
    }
}

/// A few sizes for each power of two, at most an eighth more than asked for, so that
/// memory given back serves again.
pub(super) fn rounded(bytes: usize) -> usize {
    let step = 1 << (bytes / 8).max(1).ilog2();
    bytes
        .checked_next_multiple_of(step)
        .unwrap_or(bytes)
        .max(256)
}

#[cfg(test)]
mod tests {
    use super::rounded;
    use std::collections::HashSet;

    #[test]
    fn sizes_of_memory_are_few_and_near() {
        let asked = || {
            (0..4000)
                .map(|k| 257 + 997 * k)
                .chain([usize::MAX, usize::MAX / 2])
        };
        for bytes in asked() {
            let size = rounded(bytes);
            assert!(
                size >= bytes && size - bytes <= bytes / 8,
                "{size} for {bytes}"
            );
        }
        let few: HashSet<usize> = asked().map(rounded).collect();
        assert!(few.len() < 150, "{} sizes", few.len());
        assert_eq!(rounded(0), 256);
    }
}
