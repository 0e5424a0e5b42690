//! The matrix elements of a mixer.

use crate::interp::{Context, Evaluation, Operand, Tensor, TokenLattice, eval_node};
use crate::ir::{NodeId, Op};
use crate::pass::abacus::site_values::moves;
use crate::pass::abacus::{AbacusError, Network};
use crate::pass::normal_form::MixerClass;
use num_complex::Complex64;

/// `G[target, source]` of one mixer: small sparse blocks, inputs to outputs.
#[derive(Clone, Debug)]
pub struct Kernel {
    source: TokenLattice,
    target: TokenLattice,
    inputs: usize,
    outputs: usize,
    elements: Elements,
}

#[derive(Clone, Debug)]
enum Elements {
    /// One number per channel and displacement (ring: residue, open: difference).
    Displacements {
        complex: bool,
        entries: Vec<Vec<Complex64>>,
    },
    /// One number per channel and pair, target slowest.
    Pairs {
        complex: bool,
        entries: Vec<Vec<Complex64>>,
    },
    /// Per target: (leading index of the output, source, leading index of the
    /// input), each copying `len` components.
    Moves {
        len: usize,
        moves: Vec<Vec<(usize, usize, usize)>>,
    },
}

impl Kernel {
    /// The kernel of mixer `m`, from the mixer's response to unit impulses.
    /// Mixer coefficients are constants: any evaluation gives them.
    ///
    /// # Errors
    /// Those of evaluating the mixer.
    pub fn new(net: &Network, values: &Evaluation, m: usize) -> Result<Kernel, AbacusError> {
        let mixer = &net.form.mixers[m];
        let width = |n: NodeId| values.value(n).shape[1..].iter().product::<usize>();
        let (source, target) = (net.tokens(mixer.input)?, net.tokens(mixer.output)?);
        let (inputs, outputs) = (width(mixer.input), width(mixer.output));
        let elements = match mixer.class {
            MixerClass::Stencil | MixerClass::Coarsening => Elements::Moves {
                len: inputs.min(outputs),
                moves: (0..target.count())
                    .map(|i| moves(net, mixer.output, i))
                    .collect::<Result<_, _>>()?,
            },
            MixerClass::StateSpace | MixerClass::Toeplitz => {
                let complex = is_complex(net.graph.op(mixer.output));
                let count = target.displacements(0) * target.displacements(1);
                let mut entries = vec![vec![]; count];
                // Impulses at the corners reach every displacement, also on an open lattice.
                let corners = |a: usize| [0, target.extent[a] - 1];
                for x in corners(0) {
                    for y in corners(1) {
                        let j = target.site([x, y]);
                        for (i, k) in response(net, values, m, j, complex)?
                            .into_iter()
                            .enumerate()
                        {
                            entries[target.displacement(i, j)] = k;
                        }
                    }
                }
                Elements::Displacements { complex, entries }
            }
            MixerClass::Dense => {
                let complex = is_complex(net.graph.op(mixer.output));
                let n = target.count();
                let mut entries = vec![vec![]; n * n];
                for j in 0..n {
                    for (i, k) in response(net, values, m, j, complex)?
                        .into_iter()
                        .enumerate()
                    {
                        entries[i * n + j] = k;
                    }
                }
                Elements::Pairs { complex, entries }
            }
        };
        Ok(Kernel {
            source,
            target,
            inputs,
            outputs,
            elements,
        })
    }

    /// Components of the input per site.
    pub fn inputs(&self) -> usize {
        self.inputs
    }
    /// Components of the output per site.
    pub fn outputs(&self) -> usize {
        self.outputs
    }
    /// Sites of the input.
    pub fn sources(&self) -> usize {
        self.source.count()
    }
    /// Sites of the output.
    pub fn targets(&self) -> usize {
        self.target.count()
    }
    /// The lattice of the output's sites.
    pub fn target_lattice(&self) -> TokenLattice {
        self.target
    }

    /// Nonzero entries of the block `G[target, source]`: (row, column, value).
    pub fn block(&self, target: usize, source: usize) -> Vec<(usize, usize, f64)> {
        let channels = |complex: bool, entry: &[Complex64]| -> Vec<(usize, usize, f64)> {
            let d = entry.len();
            if !complex {
                return entry
                    .iter()
                    .enumerate()
                    .map(|(c, k)| (c, c, k.re))
                    .collect();
            }
            // Real parts first, then imaginary parts.
            let split = |c: usize, k: &Complex64| {
                [
                    (c, c, k.re),
                    (c, c + d, -k.im),
                    (c + d, c, k.im),
                    (c + d, c + d, k.re),
                ]
            };
            entry
                .iter()
                .enumerate()
                .flat_map(|(c, k)| split(c, k))
                .collect()
        };
        match &self.elements {
            Elements::Displacements { complex, entries } => {
                channels(*complex, &entries[self.target.displacement(target, source)])
            }
            Elements::Pairs { complex, entries } => {
                channels(*complex, &entries[target * self.source.count() + source])
            }
            Elements::Moves { len, moves } => moves[target]
                .iter()
                .filter(|(_, from, _)| *from == source)
                .flat_map(|&(to, _, from)| {
                    (0..*len).map(move |c| (to * len + c, from * len + c, 1.0))
                })
                .collect(),
        }
    }

    /// `out += G[target, source] v`.
    pub fn apply(&self, target: usize, source: usize, v: &[f64], out: &mut [f64]) {
        for (r, c, g) in self.block(target, source) {
            out[r] += g * v[c];
        }
    }
}

fn is_complex(op: &Op) -> bool {
    match *op {
        Op::Scan(scan) => scan.complex,
        Op::Convolve { complex, .. } | Op::Modes { complex, .. } | Op::Mix { complex, .. } => {
            complex
        }
        _ => false,
    }
}

/// Response of all targets to a unit impulse at `source`, all channels at once:
/// mixers act channel by channel.
fn response(
    net: &Network,
    values: &Evaluation,
    m: usize,
    source: usize,
    complex: bool,
) -> Result<Vec<Vec<Complex64>>, AbacusError> {
    let (node, input) = (net.form.mixers[m].output, net.form.mixers[m].input);
    let graph = net.graph;
    let mut x = Tensor::zeros(&values.value(input).shape);
    let width = x.shape[1..].iter().product::<usize>();
    let channels = if complex { width / 2 } else { width };
    x.data[source * width..][..channels].fill(1.0);
    let operands: Vec<Operand> = graph
        .args(node)
        .iter()
        .enumerate()
        .map(|(n, &a)| Operand {
            ty: graph.ty(a),
            value: if n == 0 { &x } else { values.value(a) },
        })
        .collect();
    let spins = vec![1; net.lattice.sites()];
    let context = Context::new(net.lattice, &net.params, &spins)?;
    let y = eval_node(graph.op(node), graph.ty(node), &operands, &context)?;
    Ok(y.data
        .chunks_exact(width)
        .map(|y| {
            (0..channels)
                .map(|c| Complex64::new(y[c], if complex { y[c + channels] } else { 0.0 }))
                .collect()
        })
        .collect())
}
