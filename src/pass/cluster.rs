//! Shapes of flip clusters, independent of where they are placed.

use crate::check::core::{Token, Window};
use crate::ir::{Boundary, Lattice};
use crate::pass::abacus::support::tokens_seeing;
use std::collections::BTreeSet;
use std::str::FromStr;

/// The spins flipped together, relative to the first of them, in units of
/// spins; on a square along its first axis unless given as pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    offsets: Vec<[i64; 2]>,
}

/// A cluster that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no cluster: write `1`, `pair:R`, or a list of distinct offsets such as `0,1,4` or `0:0,1:1`"
)]
pub struct BadCluster(String);

impl Cluster {
    /// One flip.
    pub fn single() -> Cluster {
        Cluster {
            offsets: vec![[0, 0]],
        }
    }
    /// Two flips at distance `r` > 0.
    pub fn pair(r: u32) -> Cluster {
        Cluster {
            offsets: vec![[0, 0], [i64::from(r), 0]],
        }
    }
    /// Offsets of the flipped spins.
    pub fn offsets(&self) -> &[[i64; 2]] {
        &self.offsets
    }
    /// Number of flipped spins.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }
    /// Never: a cluster has at least one spin.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The tokens whose window sees the cluster, as offsets from the token of the
    /// first flipped spin, united over all places the first spin can have in it.
    pub fn support(&self, window: Window, token: Token) -> BTreeSet<[i64; 2]> {
        let mut all = BTreeSet::new();
        for x in 0..token.0[0] {
            for y in 0..token.0[1] {
                all.extend(self.support_from(window, token, [x, y]));
            }
        }
        all
    }

    /// The largest number of tokens that see the cluster, over its placements.
    pub fn support_size(&self, window: Window, token: Token) -> usize {
        (0..token.0[0])
            .flat_map(|x| (0..token.0[1]).map(move |y| [x, y]))
            .map(|inside| self.support_from(window, token, inside).len())
            .max()
            .unwrap_or(0)
    }

    /// Tokens along the chain from the first to the last that sees the cluster, at
    /// most, over its placements.
    pub fn stretch(&self, window: Window, token: Token) -> usize {
        let along = |x: usize| {
            let support = self.support_from(window, token, [x, 0]);
            let (lo, hi) = (support.first()?[0], support.last()?[0]);
            Some((hi - lo + 1) as usize)
        };
        (0..token.0[0]).filter_map(along).max().unwrap_or(0)
    }

    fn support_from(&self, window: Window, token: Token, inside: [usize; 2]) -> BTreeSet<[i64; 2]> {
        // A lattice that no window reaches around, with the cluster in its middle.
        let reach = |a: usize| -> i64 {
            let widest = self.offsets.iter().map(|o| o[a].abs()).max().unwrap_or(0);
            window.lo[a].abs().max(window.hi[a].abs()) + widest + token.0[a] as i64
        };
        let half = [0, 1].map(|a| (reach(a) / token.0[a] as i64 + 1) as usize);
        let extent = [0, 1].map(|a| (2 * half[a] + 1) * token.0[a]);
        let lattice = Lattice {
            extent,
            boundary: Boundary::Open,
        };
        let first = [0, 1].map(|a| (half[a] * token.0[a] + inside[a]) as i64);
        let spins: Vec<usize> = self
            .offsets
            .iter()
            .map(|o| ((first[0] + o[0]) * extent[1] as i64 + first[1] + o[1]) as usize)
            .collect();
        let columns = 2 * half[1] + 1;
        tokens_seeing(window, token, lattice, &spins)
            .into_iter()
            .map(|i| {
                [
                    (i / columns) as i64 - half[0] as i64,
                    (i % columns) as i64 - half[1] as i64,
                ]
            })
            .collect()
    }
}

impl FromStr for Cluster {
    type Err = BadCluster;
    fn from_str(text: &str) -> Result<Cluster, BadCluster> {
        let bad = || BadCluster(text.to_owned());
        // Offsets beyond this are typing errors, not clusters.
        let number = |s: &str| {
            s.trim()
                .parse::<i64>()
                .ok()
                .filter(|n| n.abs() <= 1 << 20)
                .ok_or_else(bad)
        };
        if text.trim() == "1" {
            return Ok(Cluster::single());
        }
        if let Some(r) = text.trim().strip_prefix("pair:") {
            return match number(r)? {
                r @ 1.. => Ok(Cluster {
                    offsets: vec![[0, 0], [r, 0]],
                }),
                _ => Err(bad()),
            };
        }
        let mut offsets = vec![];
        for item in text.split(',') {
            offsets.push(match item.split_once(':') {
                Some((x, y)) => [number(x)?, number(y)?],
                None => [number(item)?, 0],
            });
        }
        let distinct: BTreeSet<_> = offsets.iter().collect();
        if distinct.len() != offsets.len() {
            return Err(bad());
        }
        let first = offsets[0];
        Ok(Cluster {
            offsets: offsets
                .iter()
                .map(|o| [o[0] - first[0], o[1] - first[1]])
                .collect(),
        })
    }
}

impl std::fmt::Display for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.offsets.as_slice() {
            [_] => f.write_str("1"),
            [_, [r, 0]] if *r > 0 => write!(f, "pair:{r}"),
            all => {
                for (n, o) in all.iter().enumerate() {
                    let comma = if n > 0 { "," } else { "" };
                    if o[1] == 0 {
                        write!(f, "{comma}{}", o[0])?;
                    } else {
                        write!(f, "{comma}{}:{}", o[0], o[1])?;
                    }
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_read_and_print() {
        for text in ["1", "pair:3", "0,1,4", "0,1:1"] {
            assert_eq!(text.parse::<Cluster>().unwrap().to_string(), text);
        }
        assert_eq!("2,3".parse::<Cluster>().unwrap(), Cluster::pair(1));
        for text in ["", "pair:0", "pair:x", "0,0", "a", "99999999999"] {
            assert!(text.parse::<Cluster>().is_err(), "{text}");
        }
    }

    #[test]
    fn supports_of_the_paper() {
        let t = Token([2, 1]);
        let tokens = |lo, hi, c: &Cluster| -> Vec<i64> {
            let w = Window {
                lo: [lo, 0],
                hi: [hi, 0],
            };
            c.support(w, t).into_iter().map(|o| o[0]).collect()
        };
        let one = Cluster::single();
        assert_eq!(tokens(0, 1, &one), [0]);
        assert_eq!(tokens(-2, 5, &one), [-2, -1, 0, 1]);
        assert_eq!(tokens(-4, 9, &one), [-4, -3, -2, -1, 0, 1, 2]);
        // A neighbour may sit in the same token or in the next.
        assert_eq!(tokens(0, 1, &Cluster::pair(1)), [0, 1]);
        let w = Window {
            lo: [0, 0],
            hi: [1, 0],
        };
        assert_eq!(Cluster::pair(1).support_size(w, t), 2);
        assert_eq!(tokens(0, 1, &Cluster::pair(6)), [0, 3]);
        assert_eq!(Cluster::pair(6).support_size(w, t), 2);
        assert_eq!(Cluster::pair(6).stretch(w, t), 4);
    }
}
