//! Kernels of mixers as data of an object file.

use super::super::compiled::{CompileError, Compiled};
use super::super::constants::{ConstantError, Constants, tensors};
use super::super::kernels::Kernels;
use super::super::response::{Coefficients, Layout};
use super::super::simd::Real;
use super::routines::MixShape;
use super::{Argument, Data};
use crate::interp::{Tensor, evaluate_node};
use crate::ir::{NodeId, Op};
use crate::kernel::Program;
use num_complex::Complex64;

/// Where a mixer's kernel lies in the data: per channel real part, imaginary part,
/// and minus the imaginary part.
pub(super) struct MixKernel {
    /// On channels of (real part, imaginary part).
    pub(super) complex: bool,
    pub(super) channels: Vec<[Argument; 3]>,
    /// Its [`MixShape`].
    pub(super) shape: Argument,
    /// Bytes from the start of a row to its first site.
    pub(super) origin: usize,
}

/// Kernels of all mixers as data.
///
/// # Errors
/// Coefficients that cannot be evaluated.
pub(super) fn kernels<T: Real>(
    network: &Compiled<T>,
    program: &Program,
    constants: &Constants<T>,
    data: &mut Data,
) -> Result<Vec<MixKernel>, CompileError> {
    let invariant = program
        .mixers
        .iter()
        .any(|m| !matches!(m.op, Op::Mix { .. }));
    let kernels = match invariant {
        true => Some(Kernels::new(network.graph(), program, network.params())?),
        false => None,
    };
    let mut found = Vec::new();
    for (number, m) in program.mixers.iter().enumerate() {
        let g = program.geometry(m.space);
        // the sites of a chain follow each other
        let chain = g.extent[1] == 1 && g.stride() == 1;
        let [nx, ny] = if chain { [1, g.extent[0]] } else { g.extent };
        let line = (g.stride() * T::PRECISION.bytes()) as i64;
        let (n, width) = (g.sites(), m.channels.iter().product::<usize>());
        let signed = [nx, ny].map(|n| n as i64);
        let (entries, shape): (Vec<Vec<Complex64>>, MixShape) = match (&m.op, &kernels) {
            (
                Op::Mix {
                    complex,
                    transposed,
                },
                _,
            ) => {
                let value = value(network, m.kernel[0])?;
                let layout = if *complex {
                    Layout::Inner
                } else {
                    Layout::Real
                };
                let k = Coefficients::read(&value, n * n, layout, &m.channels);
                let entry = |i: usize, j: usize| if *transposed { j * n + i } else { i * n + j };
                let matrix = |c: usize| (0..n * n).map(|e| k.at(entry(e / n, e % n), c)).collect();
                let step = signed[0] * signed[1];
                let shape = MixShape {
                    extent: signed,
                    line,
                    first: 0,
                    target: [signed[1] * step, step],
                    source: signed[1],
                };
                ((0..width).map(matrix).collect(), shape)
            }
            (_, Some(kernels)) => {
                // element (a, b) holds the displacement (nx - 1 - a, ny - 1 - b)
                let [lx, ly] = signed.map(|n| 2 * n - 1);
                let at = |e: i64| {
                    let d = [signed[0] - 1 - e / ly, signed[1] - 1 - e % ly];
                    kernels.at(number, if chain { [d[1], 0] } else { d })
                };
                let all: Vec<Vec<Complex64>> = (0..lx * ly).map(at).collect();
                let shape = MixShape {
                    extent: signed,
                    line,
                    first: (signed[0] - 1) * ly + signed[1] - 1,
                    target: [-ly, -1],
                    source: ly,
                };
                let channel = |c: usize| all.iter().map(|k| k[c]).collect();
                ((0..width).map(channel).collect(), shape)
            }
            (_, None) => unreachable!("kernels of every mixer that has some"),
        };
        let planes = |k: &Vec<Complex64>| {
            let signs: [fn(&Complex64) -> f64; 3] = [|z| z.re, |z| z.im, |z| -z.im];
            signs.map(|f| data.numbers(T::PRECISION, k.iter().map(f)))
        };
        let channels = entries.iter().map(planes).collect();
        let shape = shape.entries().map(i64::to_le_bytes).concat();
        found.push(MixKernel {
            complex: constants.mixers[number].complex(),
            channels,
            shape: data.bytes(&shape),
            origin: g.origin() * T::PRECISION.bytes(),
        });
    }
    Ok(found)
}

/// The value of a node that depends on parameters only.
fn value<T: Real>(network: &Compiled<T>, node: NodeId) -> Result<Tensor, CompileError> {
    let params = tensors(network.graph(), network.program(), network.params(), &[]);
    let params = params.map_err(ConstantError::from)?;
    let spins = vec![1; network.lattice().sites()];
    let (graph, lattice) = (network.graph(), network.lattice());
    let value = evaluate_node(graph, lattice, &params, &spins, node);
    Ok(value.map_err(ConstantError::from)?)
}
