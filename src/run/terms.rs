//! Sums over local changes of a configuration.

use num_complex::Complex64;

/// `diagonal + sum_k element_k psi(s_k) / psi(s)` over local changes s_k of one
/// configuration s.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    /// What does not change s.
    pub diagonal: Complex64,
    /// Sites that all changes flip, one after the other.
    pub flips: Vec<usize>,
    /// Where the sites of each change end in `flips`.
    pub ends: Vec<usize>,
    /// The element of each change.
    pub elements: Vec<Complex64>,
}

impl Terms {
    /// Adds a change by its distinct sites.
    pub fn push(&mut self, flips: &[usize], element: Complex64) {
        self.flips.extend_from_slice(flips);
        self.ends.push(self.flips.len());
        self.elements.push(element);
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets all changes, and nothing else.
    pub fn clear(&mut self) {
        self.flips.clear();
        self.ends.clear();
        self.elements.clear();
    }

    /// The sites of every change.
    pub fn clusters(&self) -> impl Iterator<Item = &[usize]> {
        (0..self.len())
            .map(|k| &self.flips[k.checked_sub(1).map_or(0, |k| self.ends[k])..self.ends[k]])
    }
}
