//! `T_m = d Omega / d v_m`: one adjoint pass through the linear network.

use super::Kernel;
use crate::pass::abacus::{Coefficients, Network};
use crate::pass::normal_form::PoolKind;

/// Final links of all mixers at all sites, per summed pool.
#[derive(Clone, Debug)]
pub struct FinalLinks {
    /// `[pool][m][site]`: matrix features x inputs, row major; empty for
    /// gathered pools, whose features keep their sites.
    tensors: Vec<Vec<Vec<Vec<f64>>>>,
}

impl FinalLinks {
    /// From kernels and background coefficients, in order m = M..1:
    /// `T_m[j] = sum_i ( R_m[i] + sum_{l>m} T_l[i] A_lm[i] ) G_m[i, j]`.
    pub fn new(net: &Network, kernels: &[Kernel], coefficients: &Coefficients) -> FinalLinks {
        let of_pool = |p: usize| -> Vec<Vec<Vec<f64>>> {
            if net.form.pools[p].kind == PoolKind::Gather {
                return vec![];
            }
            let features = coefficients.pools[p][0].source.len();
            let mut t: Vec<Vec<Vec<f64>>> = vec![vec![]; kernels.len()];
            for m in (0..kernels.len()).rev() {
                let kernel = &kernels[m];
                let (rows, columns) = (kernel.outputs(), kernel.inputs());
                let mut links = vec![vec![0.0; features * columns]; kernel.sources()];
                for i in 0..kernel.targets() {
                    // Gradient of Omega with respect to y_m at site i.
                    let mut weight = vec![0.0; features * rows];
                    if let Some(r) = coefficients.pools[p]
                        .get(i)
                        .and_then(|c| c.vertices.get(&m))
                    {
                        weight.copy_from_slice(r);
                    }
                    for l in m + 1..kernels.len() {
                        if let Some(a) = coefficients.mixers[l]
                            .get(i)
                            .and_then(|c| c.vertices.get(&m))
                        {
                            let d = kernels[l].inputs();
                            for h in 0..features {
                                for (b, row) in a.chunks_exact(rows).enumerate() {
                                    let t = t[l][i][h * d + b];
                                    for (w, a) in
                                        weight[h * rows..(h + 1) * rows].iter_mut().zip(row)
                                    {
                                        *w += t * a;
                                    }
                                }
                            }
                        }
                    }
                    for (j, link) in links.iter_mut().enumerate() {
                        for (r, c, g) in kernel.block(i, j) {
                            for h in 0..features {
                                link[h * columns + c] += weight[h * rows + r] * g;
                            }
                        }
                    }
                }
                t[m] = links;
            }
            t
        };
        FinalLinks {
            tensors: (0..net.form.pools.len()).map(of_pool).collect(),
        }
    }

    /// `T_m[site]` for a summed pool: features x inputs of mixer m, row major.
    pub fn get(&self, pool: usize, m: usize, site: usize) -> &[f64] {
        &self.tensors[pool][m][site]
    }
}
