//! One node from the values of its operands.

use super::mixers::{self, Channels};
use super::places::TokenLattice;
use super::scan::Coefficients;
use super::{Context, EvalError, Tensor, pointwise, scan, structure};
use crate::check::core::Place;
use crate::ir::{NodeType, Op, Scan};

/// An operand: its type says which axes of the value are place and shape.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// Type of the node it comes from.
    pub ty: &'a NodeType,
    /// Its value; place index first unless `Whole`.
    pub value: &'a Tensor,
}

impl Operand<'_> {
    /// Number of place indices.
    fn entries(&self) -> usize {
        if self.ty.place == Place::Whole {
            1
        } else {
            self.value.shape[0]
        }
    }

    /// Lengths of the axes of its shape.
    fn axes(&self) -> &[usize] {
        &self.value.shape[usize::from(self.ty.place != Place::Whole)..]
    }

    /// Lengths of the channel axes: the shape, without the leading axis of complex values.
    fn channels(&self, complex: bool) -> &[usize] {
        &self.axes()[usize::from(complex)..]
    }

    /// Its values as complex numbers, channels repeated to those given.
    fn read(&self, complex: bool, channels: &[usize]) -> Channels {
        let own = self.channels(complex);
        Channels::read(self.value, self.entries(), complex, own, channels)
    }
}

/// Computes a node of type `ty` from its operands. The operands must have the
/// types the operation demands ([`crate::ir::valid`]).
///
/// # Errors
/// Places that do not exist on the lattice, scans off a chain or without a
/// periodic solution.
pub fn eval_node(
    op: &Op,
    ty: &NodeType,
    operands: &[Operand],
    context: &Context,
) -> Result<Tensor, EvalError> {
    let shape = context.shape(ty)?;
    let sites = context.tokens_of(ty.place)?;
    let placed = ty.place != Place::Whole;
    let first_axis = usize::from(placed);
    let per_entry = |f: &dyn Fn(usize) -> f64| Tensor::from_fn(&shape, f);
    let keep = |x: &Operand| Tensor {
        shape: shape.clone(),
        data: x.value.data.clone(),
    };
    Ok(match op {
        Op::Param(index) => context.param(*index)?.clone(),
        Op::Number(x) => per_entry(&|_| *x),
        Op::Spins => per_entry(&|i| f64::from(context.spins()[i])),
        Op::SiteIndex { axis } => per_entry(&|i| sites.coordinates(i)[*axis] as f64),
        Op::Displacement { axis } => per_entry(&|n| sites.displacement_value(n, *axis)),
        Op::Momentum { axis } => per_entry(&|q| sites.momentum_value(q, *axis)),
        Op::PairIndex { axis, source } => {
            let of = |ij: usize| {
                if *source {
                    ij % sites.count()
                } else {
                    ij / sites.count()
                }
            };
            per_entry(&|ij| sites.coordinates(of(ij))[*axis] as f64)
        }
        Op::SiteCount(token) => Tensor::scalar(context.tokens(*token)?.count() as f64),
        Op::Extent { axis, token } => Tensor::scalar(context.tokens(*token)?.extent[*axis] as f64),
        Op::Map(f) => {
            let data = operands[0]
                .value
                .data
                .iter()
                .map(|&x| pointwise::map(*f, x))
                .collect();
            Tensor { shape, data }
        }
        Op::Zip(f) => {
            let f = |a, b| pointwise::zip(*f, a, b);
            structure::zip(&operands[0], &operands[1], &shape, placed, f)
        }
        Op::Einsum(spec) => structure::einsum(spec, operands, &shape, placed),
        Op::Reshape | Op::Gather | Op::Scatter => keep(&operands[0]),
        Op::Broadcast => structure::broadcast(&operands[0], &shape, placed),
        Op::Slice { axis, start, len } => {
            let mut y = Tensor::zeros(&shape);
            structure::copy_along(
                operands[0].value,
                &mut y,
                axis + first_axis,
                [*start, 0, *len],
            );
            y
        }
        Op::Pad { axis, start, .. } => {
            let mut y = Tensor::zeros(&shape);
            let axis = axis + first_axis;
            let len = operands[0].value.shape[axis];
            structure::copy_along(operands[0].value, &mut y, axis, [0, *start, len]);
            y
        }
        Op::Concat { axis } => {
            let mut y = Tensor::zeros(&shape);
            let (axis, mut to) = (axis + first_axis, 0);
            for x in operands {
                let len = x.value.shape[axis];
                structure::copy_along(x.value, &mut y, axis, [0, to, len]);
                to += len;
            }
            y
        }
        Op::Window { lo, hi } => structure::window(&sites, operands[0].value, &shape, [*lo, *hi]),
        Op::WindowAdjoint { lo, hi } => {
            structure::window_adjoint(&sites, operands[0].value, &shape, [*lo, *hi])
        }
        Op::Patch { ratio } => {
            let fine = context.tokens_of(operands[0].ty.place)?;
            let rows = structure::parts(&fine, &sites, *ratio);
            structure::take_rows(operands[0].value, &rows, &shape)
        }
        Op::Unpatch { ratio } => {
            let coarse = context.tokens_of(operands[0].ty.place)?;
            let rows = structure::parts(&sites, &coarse, *ratio);
            structure::put_rows(operands[0].value, &rows, &shape)
        }
        Op::Sum if operands[0].ty.place == Place::Whole => keep(&operands[0]),
        Op::Sum => structure::sum_leading(operands[0].value, 1, &shape),
        Op::RowSum => structure::sum_leading(operands[0].value, sites.count(), &shape),
        Op::RowBroadcast => {
            let targets: Vec<usize> = (0..sites.count().pow(2))
                .map(|ij| ij / sites.count())
                .collect();
            let x = operands[0].value;
            let inner = x.data.len() / sites.count();
            let rows = targets
                .iter()
                .flat_map(|&i| &x.data[i * inner..(i + 1) * inner]);
            Tensor {
                shape,
                data: rows.copied().collect(),
            }
        }
        Op::Scan(kind) => {
            chain(&sites)?;
            let channels = operands[0].channels(kind.complex);
            let x = operands[0].read(kind.complex, channels);
            let c = coefficients(*kind, &operands[1..], channels);
            let y = scan::scan(&c, &x, sites.count(), sites.boundary)?;
            y.write(kind.complex, &shape)
        }
        Op::ScanGrad { scan: kind, wrt } => {
            let sites = context.tokens_of(operands[0].ty.place)?;
            chain(&sites)?;
            let channels = operands[0].channels(kind.complex);
            let [g, x] = [0, 1].map(|k| operands[k].read(kind.complex, channels));
            let c = coefficients(*kind, &operands[2..], channels);
            let y = scan::scan_gradient(&c, *wrt, &g, &x, sites.count(), sites.boundary)?;
            whole_complex(y, kind.complex, shape)
        }
        Op::Convolve {
            complex,
            transposed,
        } => {
            let [x, k] = pair(operands, *complex);
            let y = mixers::contract(sites.count(), &x, &k, |i, j| {
                if *transposed {
                    sites.displacement(j, i)
                } else {
                    sites.displacement(i, j)
                }
            });
            y.write(*complex, &shape)
        }
        Op::Correlate { complex } => {
            let [g, x] = pair(operands, *complex);
            let entry = |i, j| sites.displacement(i, j);
            let k = mixers::contract_gradient(sites.count(), shape[0], &g, x, entry);
            k.write(*complex, &shape)
        }
        Op::Mix {
            complex,
            transposed,
        } => {
            let [x, k] = pair(operands, *complex);
            let n = sites.count();
            let y = mixers::contract(
                n,
                &x,
                &k,
                |i, j| {
                    if *transposed { j * n + i } else { i * n + j }
                },
            );
            y.write(*complex, &shape)
        }
        Op::MixGrad { complex } => {
            let [g, x] = pair(operands, *complex);
            let n = sites.count();
            let k = mixers::contract_gradient(n, n * n, &g, x, |i, j| i * n + j);
            k.write(*complex, &shape)
        }
        Op::Modes {
            complex,
            transposed,
        } => {
            let channels = operands[0].channels(*complex);
            let x = operands[0].read(*complex, channels);
            let symbol = operands[1].read(true, channels);
            let symbol = if *transposed { symbol.conj() } else { symbol };
            mixers::modes(&sites, &x, &symbol).write(*complex, &shape)
        }
        Op::ModesGrad { complex } => {
            let [g, x] = pair(operands, *complex);
            mixers::modes_gradient(&sites, &g, &x).write(true, &shape)
        }
    })
}

/// Both operands with the channels of the first.
fn pair(operands: &[Operand], complex: bool) -> [Channels; 2] {
    let channels = operands[0].channels(complex);
    [0, 1].map(|k| operands[k].read(complex, channels))
}

fn chain(sites: &TokenLattice) -> Result<(), EvalError> {
    if sites.extent[1] == 1 {
        Ok(())
    } else {
        Err(EvalError::ScanOnSquare(sites.extent[1]))
    }
}

/// Coefficient operands, one entry per state (per pair of states).
fn coefficients(kind: Scan, operands: &[Operand], channels: &[usize]) -> Coefficients {
    let width = channels.iter().product();
    let values = operands
        .iter()
        .map(|o| {
            let own = o.channels(kind.complex);
            Channels {
                width,
                data: Channels::read(o.value, 1, kind.complex, own, own).data,
            }
        })
        .collect();
    let states = operands[operands.len() - 1].channels(kind.complex)[0];
    Coefficients::new(kind, states, values)
}

/// Writes `[(2,) entries.., channels..]`: the complex axis before the states.
fn whole_complex(mut y: Channels, complex: bool, shape: Vec<usize>) -> Tensor {
    y.width = y.data.len();
    y.write(complex, &shape)
}
