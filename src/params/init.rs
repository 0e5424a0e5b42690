//! Initial parameters from the initialisers of the language.

use super::{Params, hippo};
use crate::check::core::{Binary, DType, Dim, Hippo, Init, NetworkInfo, Unary, ValueId};
use crate::interp::{Context, EvalError, evaluate_node, map, zip};
use crate::ir::graph::{MapFn, ZipFn};
use crate::ir::{Lattice, Lowered};
use crate::rng::{ChainRng, Stream};
use std::collections::HashMap;

/// Why parameters cannot be initialised.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InitError {
    /// The network does not fit the lattice.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// An initialiser gave NaN or infinity.
    #[error("the initialiser of `{path}` gives {value}")]
    NotFinite {
        /// The parameter.
        path: String,
        /// What it gave.
        value: f64,
    },
    /// The eigensolver failed for HiPPO.
    #[error("HiPPO eigenvalues for {states} states did not converge")]
    Hippo {
        /// Number of states.
        states: usize,
    },
}

/// Random configurations behind `data_mean` and `data_std`: at least, at most.
const DATA_CONFIGURATIONS: [usize; 2] = [8, 64];

/// Spins in these configurations together: no more configurations than that takes.
const DATA_SPINS: usize = 1 << 20;

/// Initial parameters; a pure function of the network, the lattice and `seed`.
/// Parameters are initialised in declaration order, so that `data_mean(x)`
/// sees the final values of everything `x` depends on.
///
/// # Errors
/// A lattice the network does not fit, initialisers that are not finite.
pub fn initialise(
    info: &NetworkInfo,
    lowered: &Lowered,
    lattice: Lattice,
    seed: u64,
) -> Result<Params, InitError> {
    let mut params = Params::zeros(&lowered.graph, lattice)?;
    let [least, most] = DATA_CONFIGURATIONS;
    let count = (DATA_SPINS / lattice.sites().max(1)).clamp(least, most);
    let spins: Vec<Vec<i8>> = (0..count)
        .map(|k| {
            let mut rng = ChainRng::new(seed, k as u32, 0, Stream::Init);
            (0..lattice.sites())
                .map(|_| if rng.bits() & 1 == 0 { 1 } else { -1 })
                .collect()
        })
        .collect();
    let (mut at, mut known) = (0, HashMap::new());
    for p in &info.params {
        let parts = if p.ty.dtype == DType::Complex { 2 } else { 1 };
        for (part, init) in p.init.iter().enumerate().take(parts) {
            let mut e = Evaluator {
                lowered,
                lattice,
                spins: &spins,
                shape: params.tensors[at].shape.clone(),
                lead: params.tensors[at].shape.len() - p.ty.shape.len(),
                params: &params,
                known: &mut known,
                rng: ChainRng::new(seed, at as u32, part as u64, Stream::Parameters),
            };
            let data = e.eval(init)?;
            if let Some(&value) = data.iter().find(|x| !x.is_finite()) {
                return Err(InitError::NotFinite {
                    path: p.path.clone(),
                    value,
                });
            }
            params.tensors[at].data = data;
            at += 1;
        }
    }
    Ok(params)
}

/// Adds independent normal numbers of standard deviation `size` to every
/// parameter: initial values are often zero and hide mistakes.
pub fn perturb(params: &mut Params, size: f64, seed: u64) {
    for (k, t) in params.tensors.iter_mut().enumerate() {
        let mut rng = ChainRng::new(seed, k as u32, 2, Stream::Parameters);
        for x in &mut t.data {
            *x += size * rng.normal();
        }
    }
}

struct Evaluator<'a> {
    lowered: &'a Lowered,
    lattice: Lattice,
    spins: &'a [Vec<i8>],
    /// Full shape, place index first.
    shape: Vec<usize>,
    /// 1 if there is a place index.
    lead: usize,
    params: &'a Params,
    /// Statistics of values, all of whose parameters have been initialised, by the
    /// number of elements they are taken over.
    known: &'a mut HashMap<(ValueId, usize), Statistics>,
    rng: ChainRng,
}

/// Mean and standard deviation over configurations and sites, per element.
type Statistics = (Vec<f64>, Vec<f64>);

impl Evaluator<'_> {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn eval(&mut self, init: &Init) -> Result<Vec<f64>, InitError> {
        let n = self.len();
        Ok(match init {
            Init::Number(x) => vec![*x; n],
            Init::Normal => (0..n).map(|_| self.rng.normal()).collect(),
            Init::Uniform => (0..n).map(|_| self.rng.uniform()).collect(),
            Init::Axis(k) => {
                let axis = k + self.lead;
                let inner: usize = self.shape[axis + 1..].iter().product();
                (0..n)
                    .map(|e| ((e / inner) % self.shape[axis]) as f64)
                    .collect()
            }
            Init::Length(dims) => vec![self.length(dims)?; n],
            Init::Hippo(which, states) => self.hippo(*which, *states)?,
            Init::DataMean(v) => self.data(*v)?.0,
            Init::DataStd(v) => self.data(*v)?.1,
            Init::Unary(f, x) => {
                let x = self.eval(x)?;
                match map_fn(*f) {
                    Some(g) => x.into_iter().map(|v| map(g, v)).collect(),
                    None => x,
                }
            }
            Init::Binary(f, a, b) => {
                let (a, b) = (self.eval(a)?, self.eval(b)?);
                a.into_iter()
                    .zip(b)
                    .map(|(x, y)| zip(zip_fn(*f), x, y))
                    .collect()
            }
        })
    }

    fn length(&self, dims: &[Dim]) -> Result<f64, InitError> {
        let context = Context::new(self.lattice, &[], &self.spins[0])?;
        let mut product = 1.0;
        for d in dims {
            product *= context.dim(*d)? as f64;
        }
        Ok(product)
    }

    fn hippo(&self, which: Hippo, states: usize) -> Result<Vec<f64>, InitError> {
        let h = hippo::basis(states).ok_or(InitError::Hippo { states })?;
        let column: Vec<f64> = match which {
            Hippo::LambdaRe => vec![-0.5; states],
            Hippo::LambdaIm => h.lambda_im,
            Hippo::PRe => h.p.iter().map(|z| z.re).collect(),
            Hippo::PIm => h.p.iter().map(|z| z.im).collect(),
            Hippo::BRe => h.b.iter().map(|z| z.re).collect(),
            Hippo::BIm => h.b.iter().map(|z| z.im).collect(),
        };
        let inner: usize = self.shape[self.lead + 1..].iter().product();
        Ok((0..self.len())
            .map(|e| column[(e / inner) % states])
            .collect())
    }

    fn data(&mut self, value: ValueId) -> Result<Statistics, InitError> {
        let n = self.len();
        if let Some(known) = self.known.get(&(value, n)) {
            return Ok(known.clone());
        }
        let (mut sum, mut squares, mut count) = (vec![0.0; n], vec![0.0; n], 0.0);
        for s in self.spins {
            let node = self.lowered.of(value).re;
            let x = evaluate_node(
                &self.lowered.graph,
                self.lattice,
                &self.params.tensors,
                s,
                node,
            )?;
            for row in x.data.chunks(n) {
                count += 1.0;
                for (k, v) in row.iter().enumerate() {
                    sum[k] += v;
                    squares[k] += v * v;
                }
            }
        }
        let mean: Vec<f64> = sum.iter().map(|s| s / count).collect();
        let std: Vec<f64> = squares
            .iter()
            .zip(&mean)
            .map(|(q, m)| (q / count - m * m).max(0.0).sqrt().max(1e-6))
            .collect();
        self.known.insert((value, n), (mean.clone(), std.clone()));
        Ok((mean, std))
    }
}

fn map_fn(f: Unary) -> Option<MapFn> {
    Some(match f {
        Unary::Neg => MapFn::Neg,
        Unary::Exp => MapFn::Exp,
        Unary::Log => MapFn::Log,
        Unary::Log1p => MapFn::Log1p,
        Unary::Sqrt => MapFn::Sqrt,
        Unary::Sin => MapFn::Sin,
        Unary::Cos => MapFn::Cos,
        Unary::Tanh => MapFn::Tanh,
        Unary::LogCosh => MapFn::LogCosh,
        Unary::Abs => MapFn::Abs,
        Unary::Sign => MapFn::Sign,
        Unary::Erf => MapFn::Erf,
        Unary::Floor => MapFn::Floor,
        Unary::Re | Unary::Im | Unary::Conj => return None,
    })
}

fn zip_fn(f: Binary) -> ZipFn {
    match f {
        Binary::Add => ZipFn::Add,
        Binary::Sub => ZipFn::Sub,
        Binary::Mul => ZipFn::Mul,
        Binary::Div => ZipFn::Div,
        Binary::Pow => ZipFn::Pow,
        Binary::Max => ZipFn::Max,
        Binary::Min => ZipFn::Min,
        Binary::Atan2 => ZipFn::Atan2,
        Binary::Mod => ZipFn::Mod,
    }
}
