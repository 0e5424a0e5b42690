//! Mixers with an explicit kernel: Toeplitz, in momentum space, dense.
//!
//! All arithmetic is complex; real operands have zero imaginary parts.

use super::places::TokenLattice;
use super::tensor::{Tensor, for_each_offset, strides};
use num_complex::Complex64;
use std::f64::consts::TAU;

/// Complex values `[entries][channels]`.
#[derive(Clone, Debug)]
pub(super) struct Channels {
    /// Channels per entry.
    pub(super) width: usize,
    /// `entries * width` values.
    pub(super) data: Vec<Complex64>,
}

impl Channels {
    /// All zero.
    pub(super) fn zeros(entries: usize, width: usize) -> Channels {
        Channels {
            width,
            data: vec![Complex64::ZERO; entries * width],
        }
    }

    /// Reads a tensor `[entries, (2,) own..]`, repeating `own` to `channels`
    /// (NumPy alignment).
    pub(super) fn read(
        x: &Tensor,
        entries: usize,
        complex: bool,
        own: &[usize],
        channels: &[usize],
    ) -> Channels {
        let size: usize = own.iter().product();
        let steps = strides(own);
        let mut aligned = vec![0; channels.len()];
        for k in 0..own.len() {
            let to = channels.len() - own.len() + k;
            if own[k] == channels[to] {
                aligned[to] = steps[k];
            }
        }
        let mut data = Vec::with_capacity(entries * channels.iter().product::<usize>());
        for e in 0..entries {
            for_each_offset(channels, [&aligned], |[o]| {
                data.push(if complex {
                    Complex64::new(x.data[2 * e * size + o], x.data[(2 * e + 1) * size + o])
                } else {
                    x.data[e * size + o].into()
                });
            });
        }
        Channels {
            width: channels.iter().product(),
            data,
        }
    }

    /// Writes a tensor of this shape, `[entries, (2,) channels..]`; the real
    /// part unless `complex`.
    pub(super) fn write(&self, complex: bool, shape: &[usize]) -> Tensor {
        let mut data = Vec::with_capacity(shape.iter().product());
        for entry in self.data.chunks_exact(self.width.max(1)) {
            data.extend(entry.iter().map(|z| z.re));
            if complex {
                data.extend(entry.iter().map(|z| z.im));
            }
        }
        Tensor {
            shape: shape.to_vec(),
            data,
        }
    }

    /// The channels of one entry.
    pub(super) fn at(&self, entry: usize) -> &[Complex64] {
        &self.data[entry * self.width..(entry + 1) * self.width]
    }

    /// The channels of one entry.
    pub(super) fn at_mut(&mut self, entry: usize) -> &mut [Complex64] {
        &mut self.data[entry * self.width..(entry + 1) * self.width]
    }

    /// `self[entry] += a * b`, channel by channel.
    fn add_product(&mut self, entry: usize, a: &[Complex64], b: &[Complex64]) {
        for ((y, a), b) in self.at_mut(entry).iter_mut().zip(a).zip(b) {
            *y += a * b;
        }
    }

    /// The complex conjugate.
    pub(super) fn conj(mut self) -> Channels {
        self.data.iter_mut().for_each(|z| *z = z.conj());
        self
    }
}

/// `y_i = sum_j k(entry(i, j)) x_j` over all pairs of sites.
pub(super) fn contract(
    sites: usize,
    x: &Channels,
    k: &Channels,
    entry: impl Fn(usize, usize) -> usize,
) -> Channels {
    let mut y = Channels::zeros(sites, x.width);
    for i in 0..sites {
        for j in 0..sites {
            y.add_product(i, k.at(entry(i, j)), x.at(j));
        }
    }
    y
}

/// The gradient of `Re sum_i conj(g_i) y_i` with respect to the kernel of
/// [`contract`]: `k(entry(i, j)) = sum g_i conj(x_j)`.
pub(super) fn contract_gradient(
    sites: usize,
    entries: usize,
    g: &Channels,
    x: Channels,
    entry: impl Fn(usize, usize) -> usize,
) -> Channels {
    let x = x.conj();
    let mut k = Channels::zeros(entries, x.width);
    for i in 0..sites {
        for j in 0..sites {
            k.add_product(entry(i, j), g.at(i), x.at(j));
        }
    }
    k
}

/// `X(q) = sum_i x_i exp(-+ 2 pi i q i / T)` over every axis; minus forward.
fn fourier(sites: &TokenLattice, x: &Channels, forward: bool) -> Channels {
    let sign = if forward { -1.0 } else { 1.0 };
    let roots: [Vec<Complex64>; 2] = sites.extent.map(|extent| {
        let angle = sign * TAU / extent as f64;
        (0..extent)
            .map(|n| Complex64::cis(angle * n as f64))
            .collect()
    });
    let mut y = Channels::zeros(sites.count(), x.width);
    for q in 0..sites.count() {
        let momentum = sites.coordinates(q);
        for i in 0..sites.count() {
            let at = sites.coordinates(i);
            let phase: Complex64 = (0..2)
                .map(|axis| roots[axis][momentum[axis] * at[axis] % sites.extent[axis]])
                .product();
            for (y, x) in y.at_mut(q).iter_mut().zip(x.at(i)) {
                *y += phase * x;
            }
        }
    }
    y
}

/// `IFFT(symbol FFT x)`.
pub(super) fn modes(sites: &TokenLattice, x: &Channels, symbol: &Channels) -> Channels {
    let mut spectrum = fourier(sites, x, true);
    for (x, s) in spectrum.data.iter_mut().zip(&symbol.data) {
        *x *= s / sites.count() as f64;
    }
    fourier(sites, &spectrum, false)
}

/// The gradient of `Re sum_i conj(g_i) modes(x)_i` with respect to the symbol:
/// `G(q) conj(X(q)) / T`.
pub(super) fn modes_gradient(sites: &TokenLattice, g: &Channels, x: &Channels) -> Channels {
    let mut symbol = fourier(sites, g, true);
    for (g, x) in symbol.data.iter_mut().zip(&fourier(sites, x, true).data) {
        *g *= x.conj() / sites.count() as f64;
    }
    symbol
}
