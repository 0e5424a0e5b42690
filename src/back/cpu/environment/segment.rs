//! A stretch of the chain as an affine two-port that grows at one end (`grow`).
//!
//! States that move with the growth leave at the growing end (*out*), those that
//! move against it enter there (*near*); on a ring there are also states entering
//! (*far*) and leaving at the other end. With mixers feed-forward,
//!
//! ```text
//! out_m   = O_m (1, near_0, far_0, .., near_(m-1), far_(m-1)) + L^len far_m
//! Omega   = total + F (near_0, far_0, .., near_(M-1), far_(M-1))
//! ```
//!
//! and likewise for what leaves at the far end.

use super::mixer::{MixerTables, PAD};
use crate::back::cpu::simd::{Isa, Real};

/// Where the coefficients of one site are inside its block of numbers. Matrices
/// are stored by columns.
#[derive(Clone, Debug, Default)]
pub(super) struct SiteLayout {
    /// Numbers per site.
    pub size: usize,
    /// `S_m`, padded.
    pub source: Vec<usize>,
    /// Per mixer m the (k, `A_mk`), columns padded as `S_m`.
    pub vertices: Vec<Vec<(usize, usize)>>,
    /// q, padded.
    pub constant: usize,
    /// (k, `R_k`), columns padded as q.
    pub readout: Vec<(usize, usize)>,
    /// Features.
    pub features: usize,
    /// Features, padded.
    pub padded: usize,
    /// What the coefficients see.
    pub windows: Windows,
}

/// First and last token that a coefficient sees, relative to its own; `None`: no spin.
pub(super) type Window = Option<[i64; 2]>;

/// Windows of the coefficients of one site, in the order of a [`SiteLayout`].
#[derive(Clone, Debug, Default)]
pub(super) struct Windows {
    /// Of `S_m`.
    pub source: Vec<Window>,
    /// Of `A_mk`.
    pub vertices: Vec<Vec<Window>>,
    /// Of q.
    pub constant: Window,
    /// Of `R_k`.
    pub readout: Vec<Window>,
}

/// What segments need to know about the network.
pub(super) struct Line<'a, T> {
    pub mixers: &'a [MixerTables<T>],
    pub layout: &'a SiteLayout,
    pub isa: Isa,
    pub ring: bool,
    /// Most sites passed at once.
    pub step: usize,
}

/// Columns of a segment.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    /// First column of near_k.
    pub near: Vec<usize>,
    /// First column of far_k.
    pub far: Vec<usize>,
    /// Columns before near_k: what rows of mixer k have; then all columns.
    pub widths: Vec<usize>,
}

impl Ports {
    /// Of a segment that grows to the right, or to the left.
    pub fn new<T: Real>(line: &Line<T>, rightward: bool) -> Ports {
        let mut ports = Ports {
            near: Vec::new(),
            far: Vec::new(),
            widths: vec![PAD],
        };
        let mut at = PAD;
        for m in line.mixers {
            let [along, against] = m.seen(rightward);
            ports.near.push(at);
            at += against.port;
            ports.far.push(at);
            if line.ring {
                at += along.port;
            }
            ports.widths.push(at);
        }
        ports
    }
}

/// A two-port; see the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Segment<T> {
    /// Sites.
    pub len: usize,
    /// `O_m`: states x columns.
    pub out: Vec<Vec<T>>,
    /// Ring: the same for what leaves at the far end.
    pub far: Vec<Vec<T>>,
    /// F: features x columns.
    pub features: Vec<T>,
    /// The part of Omega that needs no input.
    pub total: Vec<f64>,
    /// Ring: `L^len` with the growth, its transpose, and both against it.
    pub through: Vec<[Vec<T>; 4]>,
}

impl<T: Real> Segment<T> {
    /// No sites.
    pub fn empty(line: &Line<T>, ports: &Ports, rightward: bool) -> Segment<T> {
        let zeros = |n: usize| vec![T::default(); n];
        let mut segment = Segment {
            len: 0,
            out: Vec::new(),
            far: Vec::new(),
            features: zeros(line.layout.features * ports.widths[line.mixers.len()]),
            total: vec![0.0; line.layout.features],
            through: Vec::new(),
        };
        for (m, mixer) in line.mixers.iter().enumerate() {
            let [along, against] = mixer.seen(rightward);
            segment.out.push(zeros(along.states * ports.widths[m]));
            if line.ring {
                segment.far.push(zeros(against.states * ports.widths[m]));
                let [a, b] = [along, against].map(|d| d.powers[0].clone());
                segment.through.push([a.clone(), a, b.clone(), b]);
            }
        }
        segment
    }

    /// Numbers held.
    pub fn size(&self) -> usize {
        let all = self.out.iter().chain(&self.far);
        let through = self.through.iter().flatten();
        all.chain(through).map(Vec::len).sum::<usize>() + self.features.len()
    }

    /// Forgets all sites.
    pub fn clear(&mut self, line: &Line<T>, rightward: bool) {
        self.len = 0;
        self.out.iter_mut().for_each(|x| x.fill(T::default()));
        self.far.iter_mut().for_each(|x| x.fill(T::default()));
        self.features.fill(T::default());
        self.total.fill(0.0);
        for (mixer, through) in line.mixers.iter().zip(&mut self.through) {
            let [along, against] = mixer.seen(rightward);
            for (k, m) in through.iter_mut().enumerate() {
                let d = if k < 2 { along } else { against };
                m.copy_from_slice(&d.powers[0]);
            }
        }
    }
}
