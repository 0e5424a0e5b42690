//! What numbers of an operator may ask of a lattice.

/// A lattice of sites; row-major indices, x slowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Sites along each axis; `[N, 1]` for a chain.
    pub extent: [usize; 2],
    /// A ring or torus.
    pub periodic: bool,
}

impl Geometry {
    /// Number of sites.
    pub fn sites(&self) -> usize {
        self.extent[0] * self.extent[1]
    }

    /// The coordinates of a site.
    pub fn coordinates(&self, site: usize) -> [usize; 2] {
        [site / self.extent[1], site % self.extent[1]]
    }

    /// The site at a displacement; `None` beyond an open end.
    pub fn shift(&self, site: usize, by: [i64; 2]) -> Option<usize> {
        let from = self.coordinates(site);
        let mut to = [0; 2];
        for axis in 0..2 {
            let length = self.extent[axis] as i64;
            let at = (from[axis] as i64).checked_add(by[axis])?;
            if !self.periodic && !(0..length).contains(&at) {
                return None;
            }
            to[axis] = at.rem_euclid(length) as usize;
        }
        Some(to[0] * self.extent[1] + to[1])
    }

    /// The site with an absolute index: modulo N where periodic, `None`
    /// beyond an open end.
    pub fn absolute(&self, index: i64) -> Option<usize> {
        let sites = self.sites() as i64;
        if !self.periodic && !(0..sites).contains(&index) {
            return None;
        }
        Some(index.rem_euclid(sites) as usize)
    }

    /// The square of the Euclidean length of the shortest displacement.
    pub fn distance_squared(&self, d: [i64; 2]) -> u64 {
        let mut total = 0;
        for (axis, along) in d.iter().enumerate() {
            let mut r = along.unsigned_abs();
            if self.periodic {
                r %= self.extent[axis] as u64;
                r = r.min(self.extent[axis] as u64 - r);
            }
            total += r * r;
        }
        total
    }

    /// The distance between two sites.
    pub fn distance(&self, i: usize, j: usize) -> f64 {
        let (a, b) = (self.coordinates(i), self.coordinates(j));
        let squared = self.distance_squared([b[0] as i64 - a[0] as i64, b[1] as i64 - a[1] as i64]);
        let root = (squared as f64).sqrt();
        // exact where it is an integer: chains have integer distances
        if root.round() * root.round() == squared as f64 {
            root.round()
        } else {
            root
        }
    }

    /// One of each pair of opposite displacements between different sites,
    /// the first positive one; with it whether it is its own opposite.
    pub fn half_displacements(&self) -> impl Iterator<Item = ([i64; 2], bool)> {
        let [lx, ly] = self.extent.map(|l| l as i64);
        let periodic = self.periodic;
        (0..lx).flat_map(move |dx| {
            let dys = if periodic { 0..ly } else { 1 - ly..ly };
            dys.filter_map(move |dy| {
                if periodic {
                    let opposite = [(lx - dx) % lx, (ly - dy) % ly];
                    let own = opposite == [dx, dy];
                    ((dx, dy) != (0, 0) && [dx, dy] <= opposite).then_some(([dx, dy], own))
                } else {
                    ((dx, dy) > (0, 0)).then_some(([dx, dy], false))
                }
            })
        })
    }

    /// Some site i for which `i + d` is on the lattice too, for a displacement
    /// of [`half_displacements`](Self::half_displacements).
    pub fn representative(&self, d: [i64; 2]) -> usize {
        if self.periodic {
            0
        } else {
            (-d[1]).max(0) as usize
        }
    }

    /// The displacements at the k-th shortest distance, k = 1, 2, ...
    pub fn shell(&self, k: usize) -> Vec<([i64; 2], bool)> {
        let mut lengths: Vec<u64> = self
            .half_displacements()
            .map(|(d, _)| self.distance_squared(d))
            .collect();
        lengths.sort_unstable();
        lengths.dedup();
        let Some(&length) = k.checked_sub(1).and_then(|k| lengths.get(k)) else {
            return Vec::new();
        };
        self.half_displacements()
            .filter(|&(d, _)| self.distance_squared(d) == length)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_displacements_reach_every_pair_once() {
        for extent in [[6, 1], [7, 1], [4, 4], [3, 5], [2, 2]] {
            for periodic in [true, false] {
                let g = Geometry { extent, periodic };
                let mut pairs = Vec::new();
                for (d, own) in g.half_displacements() {
                    let start = g.representative(d);
                    assert!(g.shift(start, d).is_some_and(|j| j != start));
                    for i in 0..g.sites() {
                        if let Some(j) = g.shift(i, d).filter(|&j| !own || i < j) {
                            pairs.push((i.min(j), i.max(j)));
                        }
                    }
                }
                let count = pairs.len();
                pairs.sort_unstable();
                pairs.dedup();
                assert_eq!(
                    (count, pairs.len()),
                    (g.sites() * (g.sites() - 1) / 2, count),
                    "{g:?}"
                );
            }
        }
    }

    #[test]
    fn shells_of_the_square_lattice() {
        let g = Geometry {
            extent: [6, 6],
            periodic: true,
        };
        let lengths: Vec<u64> = (1..5)
            .map(|k| g.distance_squared(g.shell(k)[0].0))
            .collect();
        assert_eq!(lengths, [1, 2, 4, 5]);
        assert!(g.shell(0).is_empty() && g.shell(100).is_empty());
        assert_eq!(
            Geometry {
                extent: [5, 1],
                periodic: false
            }
            .shell(4),
            [([4, 0], false)]
        );
    }
}
