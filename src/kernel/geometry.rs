//! How the sites of a lattice lie in the lanes of a row.

use crate::check::core::Token;
use crate::interp::{EvalError, TokenLattice};
use crate::ir::{Boundary, Lattice};

/// Numbers of the working precision in a cache line, or in several.
const LINE: usize = 16;
/// Sites of a chain from which on a halo of whole cache lines costs nothing.
const LONG: usize = 64 * LINE;

/// What the lanes of a row run over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Sites of the lattice with these tokens, sample after sample.
    Site(Token),
    /// Samples.
    Batch,
}

/// The lanes of one sample: the sites in row-major order inside a frame of
/// `halo` sites per axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Spins per site.
    pub token: Token,
    /// Sites per axis.
    pub extent: [usize; 2],
    /// Halo per axis, on either side.
    pub halo: [usize; 2],
    /// Boundary.
    pub boundary: Boundary,
}

impl Geometry {
    /// Without halo.
    ///
    /// # Errors
    /// Tokens that do not tile the lattice.
    pub fn new(lattice: Lattice, token: Token) -> Result<Geometry, EvalError> {
        let tokens = TokenLattice::new(lattice, token)?;
        Ok(Geometry {
            token,
            extent: tokens.extent,
            halo: [0, 0],
            boundary: lattice.boundary,
        })
    }
    /// Of a long chain, with the first site at the start of a cache line.
    pub(super) fn aligned(mut self) -> Geometry {
        if self.extent[1] == 1 && self.extent[0] >= LONG && self.halo[1] == 0 {
            self.halo[0] = self.halo[0].next_multiple_of(LINE);
        }
        self
    }
    /// The space it describes.
    pub fn space(&self) -> Space {
        Space::Site(self.token)
    }
    /// Number of sites.
    pub fn sites(&self) -> usize {
        self.extent[0] * self.extent[1]
    }
    /// Lanes from one x to the next.
    pub fn stride(&self) -> usize {
        self.extent[1] + 2 * self.halo[1]
    }
    /// Lanes of one sample.
    pub fn segment(&self) -> usize {
        (self.extent[0] + 2 * self.halo[0]) * self.stride()
    }
    /// Lane of the site (0, 0).
    pub fn origin(&self) -> usize {
        self.halo[0] * self.stride() + self.halo[1]
    }
    /// Lane of a site given by its row-major index.
    #[inline]
    pub fn lane(&self, site: usize) -> usize {
        // divisions take longer than what most callers do with a site
        if self.extent[1] == 1 {
            return self.origin() + site * self.stride();
        }
        self.origin() + (site / self.extent[1]) * self.stride() + site % self.extent[1]
    }
    /// Runs of sites in consecutive lanes: (x of the first, its lane, length). A
    /// chain is one run.
    #[inline(always)]
    pub fn lines(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let ([nx, ny], stride, origin) = (self.extent, self.stride(), self.origin());
        let chain = ny == 1 && stride == 1;
        let (count, length) = if chain { (1, nx) } else { (nx, ny) };
        (0..count).map(move |x| (x, origin + x * stride, length))
    }
    /// Copies site values into a segment and fills its halo.
    pub fn scatter<T: Copy + Default>(&self, values: impl Fn(usize) -> T, segment: &mut [T]) {
        for site in 0..self.sites() {
            segment[self.lane(site)] = values(site);
        }
        self.fill_halo(segment);
    }
    /// Wraps (ring) or clears (open) the halo of a segment.
    pub fn fill_halo<T: Copy + Default>(&self, segment: &mut [T]) {
        let ([nx, ny], [hx, hy], stride) = (self.extent, self.halo, self.stride());
        if hy > 0 {
            for x in hx..hx + nx {
                let line = &mut segment[x * stride..(x + 1) * stride];
                fill_line(line, ny, hy, 1, self.boundary);
            }
        }
        if hx > 0 {
            fill_line(segment, nx, hx, stride, self.boundary);
        }
    }
}

/// Halo of one axis: `halo + n + halo` blocks of `width` lanes.
fn fill_line<T: Copy + Default>(
    line: &mut [T],
    n: usize,
    halo: usize,
    width: usize,
    boundary: Boundary,
) {
    let end = (halo + n) * width;
    match boundary {
        Boundary::Open => {
            line[..halo * width].fill(T::default());
            line[end..end + halo * width].fill(T::default());
        }
        Boundary::Periodic if halo <= n => {
            line.copy_within(n * width..(n + halo) * width, 0);
            line.copy_within(halo * width..2 * halo * width, end);
        }
        Boundary::Periodic => {
            for k in 0..halo {
                // block k holds the site k - halo, block halo + n + k the site n + k
                let left = halo + (k as i64 - halo as i64).rem_euclid(n as i64) as usize;
                let right = halo + k % n;
                line.copy_within(left * width..(left + 1) * width, k * width);
                line.copy_within(right * width..(right + 1) * width, end + k * width);
            }
        }
    }
}
