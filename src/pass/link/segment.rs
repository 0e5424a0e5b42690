//! A stretch of the chain as an affine two-port.
//!
//! Inputs are the right-moving states phi_k entering at its left end and the
//! left-moving states gam_k entering at its right end; outputs are the states f_k
//! leaving on the right, g_k leaving on the left, and its part of the pooled
//! features. Mixers are feed-forward, so outputs of mixer m depend on the inputs
//! of mixers k < m through vertices and on its own by plain transmission, and
//! joining two stretches needs no inverse.

use super::Realisation;
use super::realisation::Matrix;
use crate::pass::abacus::SiteCoefficients;

/// Local coefficients of one site: S, A per mixer and q, R per pool.
#[derive(Clone, Debug)]
pub struct SiteBlock {
    /// `S_m, A_mk` by mixer.
    pub mixers: Vec<SiteCoefficients>,
    /// `q, R_k` by pool.
    pub pools: Vec<SiteCoefficients>,
}

/// Where each state sits among the columns: a constant, then all phi, then all gam.
#[derive(Clone, Debug)]
pub struct Ports {
    /// First column of phi_k.
    pub phi: Vec<usize>,
    /// First column of gam_k.
    pub gam: Vec<usize>,
    /// Right-moving states per mixer.
    pub rightward: Vec<usize>,
    /// Left-moving states per mixer.
    pub leftward: Vec<usize>,
    /// Number of columns.
    pub columns: usize,
}

impl Ports {
    /// The columns of a network with these mixers.
    pub fn new(mixers: &[Realisation]) -> Ports {
        let rightward: Vec<usize> = mixers.iter().map(|m| m.right.states()).collect();
        let leftward: Vec<usize> = mixers.iter().map(|m| m.left.states()).collect();
        let mut columns = 1;
        let mut place = |sizes: &[usize]| -> Vec<usize> {
            let mut first = vec![];
            for s in sizes {
                first.push(columns);
                columns += s;
            }
            first
        };
        let (phi, gam) = (place(&rightward), place(&leftward));
        Ports {
            phi,
            gam,
            rightward,
            leftward,
            columns,
        }
    }
    fn identity(&self, first: usize, states: usize) -> Matrix {
        let mut unit = Matrix::zeros(states, self.columns);
        for s in 0..states {
            *unit.at(s, first + s) = 1.0;
        }
        unit
    }
}

/// A two-port; every matrix has [`Ports::columns`] columns.
#[derive(Clone, Debug)]
pub struct Segment {
    /// States leaving on the right, by mixer.
    pub right: Vec<Matrix>,
    /// States leaving on the left, by mixer.
    pub left: Vec<Matrix>,
    /// Features, by pool.
    pub features: Vec<Matrix>,
}

impl Segment {
    /// No sites: states pass unchanged, nothing is pooled.
    pub fn empty(ports: &Ports, features: &[usize]) -> Segment {
        let unit = |first: &[usize], states: &[usize]| -> Vec<Matrix> {
            first
                .iter()
                .zip(states)
                .map(|(&f, &s)| ports.identity(f, s))
                .collect()
        };
        Segment {
            right: unit(&ports.phi, &ports.rightward),
            left: unit(&ports.gam, &ports.leftward),
            features: features
                .iter()
                .map(|&h| Matrix::zeros(h, ports.columns))
                .collect(),
        }
    }

    /// One site.
    pub fn site(ports: &Ports, mixers: &[Realisation], block: &SiteBlock) -> Segment {
        let x = ports.columns;
        let affine = |c: &SiteCoefficients, outputs: &[Matrix]| -> Matrix {
            let mut v = Matrix::zeros(c.source.len(), x);
            for (r, s) in c.source.iter().enumerate() {
                *v.at(r, 0) = *s;
            }
            for (&k, a) in &c.vertices {
                let a = Matrix {
                    rows: c.source.len(),
                    columns: outputs[k].rows,
                    data: a.clone(),
                };
                a.multiply_add(&outputs[k].data, &mut v.data, x);
            }
            v
        };
        let mut segment = Segment {
            right: vec![],
            left: vec![],
            features: vec![],
        };
        let mut outputs: Vec<Matrix> = vec![];
        for (m, mixer) in mixers.iter().enumerate() {
            let v = affine(&block.mixers[m], &outputs);
            let mut f = mixer
                .right
                .transition
                .times(&ports.identity(ports.phi[m], ports.rightward[m]));
            mixer.right.input.multiply_add(&v.data, &mut f.data, x);
            let arriving = mixer
                .left
                .transition
                .times(&ports.identity(ports.gam[m], ports.leftward[m]));
            let mut y = mixer.direct.times(&v);
            mixer.right.output.multiply_add(&f.data, &mut y.data, x);
            mixer
                .left
                .output
                .multiply_add(&arriving.data, &mut y.data, x);
            let mut g = arriving;
            mixer.left.input.multiply_add(&v.data, &mut g.data, x);
            outputs.push(y);
            segment.right.push(f);
            segment.left.push(g);
        }
        segment.features = block.pools.iter().map(|c| affine(c, &outputs)).collect();
        segment
    }

    /// `self` followed by `next` on its right.
    pub fn join(&self, next: &Segment, ports: &Ports) -> Segment {
        let mixers = self.right.len();
        // States on the bond between the two, in order of the mixers.
        let mut f: Vec<Matrix> = vec![];
        let mut g: Vec<Matrix> = vec![];
        for m in 0..mixers {
            f.push(keep_phi(&self.right[m], ports, &g));
            g.push(keep_gam(&next.left[m], ports, &f[..m]));
        }
        let right = next.right.iter().map(|z| keep_gam(z, ports, &f)).collect();
        let left = self.left.iter().map(|z| keep_phi(z, ports, &g)).collect();
        let features = self
            .features
            .iter()
            .zip(&next.features)
            .map(|(a, b)| {
                let mut sum = keep_phi(a, ports, &g);
                sum.data
                    .iter_mut()
                    .zip(keep_gam(b, ports, &f).data)
                    .for_each(|(s, x)| *s += x);
                sum
            })
            .collect();
        Segment {
            right,
            left,
            features,
        }
    }
}

/// `z` with its gam inputs replaced by the states `g` on the inner bond.
fn keep_phi(z: &Matrix, ports: &Ports, g: &[Matrix]) -> Matrix {
    let end = ports.columns - ports.leftward.iter().sum::<usize>();
    substitute(z, ports, 0..end, &ports.gam, g)
}

/// `z` with its phi inputs replaced by the states `f` on the inner bond.
fn keep_gam(z: &Matrix, ports: &Ports, f: &[Matrix]) -> Matrix {
    let start = 1 + ports.rightward.iter().sum::<usize>();
    let mut out = substitute(z, ports, start..ports.columns, &ports.phi, f);
    for r in 0..z.rows {
        *out.at(r, 0) += z.data[r * z.columns];
    }
    out
}

fn substitute(
    z: &Matrix,
    ports: &Ports,
    kept: std::ops::Range<usize>,
    first: &[usize],
    states: &[Matrix],
) -> Matrix {
    let x = ports.columns;
    let mut out = Matrix::zeros(z.rows, x);
    for r in 0..z.rows {
        let row = &z.data[r * x..(r + 1) * x];
        let out = &mut out.data[r * x..(r + 1) * x];
        out[kept.clone()].copy_from_slice(&row[kept.clone()]);
        for (state, &first) in states.iter().zip(first) {
            for (s, line) in state.data.chunks_exact(x).enumerate() {
                let weight = row[first + s];
                if weight != 0.0 {
                    out.iter_mut().zip(line).for_each(|(o, l)| *o += weight * l);
                }
            }
        }
    }
    out
}
