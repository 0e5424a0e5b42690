//! Clusters of flips up to translation.

use super::Shape;
use crate::check::core::Token;
use crate::ir::{Boundary, Lattice};

/// Clusters that are translates of each other: the spins of one of them relative
/// to its corner, sorted. On a ring the corner is chosen such that the cluster
/// does not wrap, whatever its place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Family(Vec<[i64; 2]>);

impl Family {
    /// Largest number of spins of a cluster that belongs to a family.
    pub const LARGEST: usize = 8;

    /// Single flips.
    pub fn single() -> Family {
        Family(vec![[0, 0]])
    }

    /// The family of a cluster of distinct sites, and the site of its corner;
    /// `None` for no spins and for more than [`Family::LARGEST`].
    pub fn of(lattice: Lattice, flips: &[usize]) -> Option<(Family, usize)> {
        if flips.is_empty() || flips.len() > Family::LARGEST {
            return None;
        }
        if let [site] = *flips {
            return Some((Family::single(), site));
        }
        let columns = lattice.extent[1];
        let at = |site: usize| [(site / columns) as i64, (site % columns) as i64];
        let [first, second] = [0, 1].map(|axis| corners(lattice, axis, flips));
        let mut best: Option<(Family, usize)> = None;
        for &x in &first {
            for &y in &second {
                let corner = [x, y];
                let mut offsets: Vec<[i64; 2]> = flips
                    .iter()
                    .map(|&site| {
                        [0, 1]
                            .map(|a| (at(site)[a] - corner[a]).rem_euclid(lattice.extent[a] as i64))
                    })
                    .collect();
                offsets.sort_unstable();
                if best.as_ref().is_none_or(|(b, _)| offsets < b.0) {
                    let site = x as usize * columns + y as usize;
                    best = Some((Family(offsets), site));
                }
            }
        }
        best
    }

    /// One shape per place of the corner in a token, in row-major order.
    pub fn shapes(&self, token: Token) -> Vec<Shape> {
        let [nx, ny] = token.0.map(|t| t as i64);
        (0..nx)
            .flat_map(|x| (0..ny).map(move |y| [x, y]))
            .map(|[x, y]| self.0.iter().map(|o| [o[0] + x, o[1] + y]).collect())
            .collect()
    }
}

/// Coordinates at which a cluster begins along an axis: its lowest, or on a ring
/// every one behind a largest gap.
fn corners(lattice: Lattice, axis: usize, flips: &[usize]) -> Vec<i64> {
    let columns = lattice.extent[1];
    let mut along: Vec<i64> = flips
        .iter()
        .map(|&site| [site / columns, site % columns][axis] as i64)
        .collect();
    along.sort_unstable();
    along.dedup();
    let n = lattice.extent[axis] as i64;
    if lattice.boundary == Boundary::Open || along.len() == 1 {
        return along[..1].to_vec();
    }
    let gap = |k: usize| {
        let before = along[(k + along.len() - 1) % along.len()];
        (along[k] - before).rem_euclid(n)
    };
    let largest = (0..along.len()).map(gap).max().unwrap_or(0);
    let widest = (0..along.len()).filter(|&k| gap(k) == largest);
    widest.map(|k| along[k]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translates_are_one_family_wherever_they_wrap() {
        let clusters: [&[[usize; 2]]; 5] = [
            &[[0, 0], [3, 0]],
            &[[0, 0], [5, 0]],
            &[[0, 0], [0, 2], [1, 1]],
            &[[0, 0], [5, 2], [5, 5], [0, 3]],
            &[[0, 0], [2, 0], [4, 0], [6, 0], [8, 0]],
        ];
        let lattice = Lattice {
            extent: [10, 6],
            boundary: Boundary::Periodic,
        };
        for cluster in clusters {
            let moved = |d: [usize; 2]| -> Vec<usize> {
                let site = |c: &[usize; 2]| (c[0] + d[0]) % 10 * 6 + (c[1] + d[1]) % 6;
                cluster.iter().map(site).collect()
            };
            let (family, _) = Family::of(lattice, &moved([0, 0])).unwrap();
            for x in 0..10 {
                for y in 0..6 {
                    let mut sites = moved([x, y]);
                    sites.rotate_left((x + y) % cluster.len());
                    let (same, corner) = Family::of(lattice, &sites).unwrap();
                    assert_eq!(same, family);
                    // the corner and the offsets give back the sites
                    let mut back: Vec<usize> = family
                        .0
                        .iter()
                        .map(|o| {
                            (corner / 6 + o[0] as usize) % 10 * 6 + (corner % 6 + o[1] as usize) % 6
                        })
                        .collect();
                    back.sort_unstable();
                    sites.sort_unstable();
                    assert_eq!(back, sites);
                }
            }
        }
    }

    #[test]
    fn open_lattices_do_not_wrap() {
        let lattice = Lattice::chain(10, Boundary::Open);
        let ends = Family::of(lattice, &[9, 0]).unwrap();
        assert_eq!(ends, (Family(vec![[0, 0], [9, 0]]), 0));
        assert_eq!(Family::of(lattice, &[4, 3]), Family::of(lattice, &[3, 4]));
        assert_eq!(Family::of(lattice, &[]), None);
        assert_eq!(Family::of(lattice, &(0..9).collect::<Vec<_>>()), None);
    }
}
