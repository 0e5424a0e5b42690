//! Adjoints of recurrences and of the gradients of their coefficients.

use super::ReverseError;
use super::build::{Builder, Built, letters};
use crate::check::core::{Dim, Einsum};
use crate::ir::{NodeId, Op, Scan, ZipFn};

impl Builder {
    /// The adjoint of x: the same recurrence in the other direction, with
    /// `A^H = diag(conj decay) - conj(q) conj(p)^T`, input and output exchanged.
    pub(super) fn scan_input_adjoint(&mut self, scan: Scan, g: NodeId, args: &[NodeId]) -> Built {
        let mut conj = Vec::new();
        for &a in &args[1..] {
            conj.push(self.conj_if(scan.complex, a)?);
        }
        if scan.dense {
            let axes = letters(self.ty(conj[0]).shape.len());
            let mut swapped = axes.clone();
            let lead = usize::from(scan.complex);
            swapped.swap(lead, lead + 1);
            conj[0] = self.permute(conj[0], &axes, &swapped)?;
        }
        if scan.low_rank {
            conj.swap(1, 2);
        }
        let last = conj.len() - 1;
        conj.swap(last - 1, last);
        let operands: Vec<NodeId> = [g].into_iter().chain(conj).collect();
        self.add(
            Op::Scan(Scan {
                leftward: !scan.leftward,
                ..scan
            }),
            &operands,
        )
    }

    /// `L = <b, ScanGrad(g, x, c; wrt)>` is `<g, tangent>`, where `tangent` is the
    /// derivative of the scan when coefficient `wrt` moves along `b`. The tangent
    /// is a scan itself, so its own adjoint gives the derivatives of L.
    pub(super) fn scan_grad_adjoint(
        &mut self,
        scan: Scan,
        wrt: usize,
        args: &[NodeId],
        k: usize,
        b: NodeId,
    ) -> Result<Option<NodeId>, ReverseError> {
        if k == 0 {
            return Ok(Some(self.scan_tangent(scan, wrt, &args[1..], b)?));
        }
        // an operand may be used at several positions: give this one a node of its own
        let own = self.copy(args[k]);
        let mut operands = args[1..].to_vec();
        operands[k - 1] = own;
        let floor = self.graph.len();
        let tangent = self.scan_tangent(scan, wrt, &operands, b)?;
        Ok(self.pull(&[(tangent, args[0])], &[own], floor)?[0])
    }

    /// A copy of a value as a node of its own.
    fn copy(&mut self, x: NodeId) -> NodeId {
        let ty = self.ty(x);
        self.graph.push(Op::Reshape, &[x], ty)
    }

    /// The derivative of `scan(x, c..)` when coefficient `wrt` moves along `b`.
    /// Operands: x, c... For the transition the state is doubled to (h, dh):
    /// `dh_i = A dh_{i-1} + dA h_{i-1}`.
    fn scan_tangent(&mut self, scan: Scan, wrt: usize, args: &[NodeId], b: NodeId) -> Built {
        let coefficients = args.len() - 1;
        if wrt + 1 >= coefficients {
            // linear in input and output
            let mut moved = args.to_vec();
            moved[wrt] = b;
            return self.add(Op::Scan(scan), &moved);
        }
        let a = self.dense_transition(scan, &args[1..])?;
        let da = match wrt {
            1 if scan.dense => b,
            1 => self.diagonal_states(scan, b)?,
            2 => self.minus_outer(scan, b, args[3])?,
            _ => self.minus_outer(scan, args[2], b)?,
        };
        let lead = usize::from(scan.complex);
        let (row, column) = (Op::Concat { axis: lead + 1 }, Op::Concat { axis: lead });
        let zero = self.zeros(&self.ty(a))?;
        let top = self.add(row.clone(), &[a, zero])?;
        let bottom = self.add(row, &[da, a])?;
        let transition = self.add(column.clone(), &[top, bottom])?;
        let (input, output) = (args[coefficients - 1], args[coefficients]);
        let zero = self.zeros(&self.ty(input))?;
        let input = self.add(column.clone(), &[input, zero])?;
        let output = self.add(column, &[zero, output])?;
        let doubled = Scan {
            dense: true,
            low_rank: false,
            ..scan
        };
        self.add(Op::Scan(doubled), &[args[0], transition, input, output])
    }

    /// A as a dense matrix `[(2,) states, states, channels..]`.
    fn dense_transition(&mut self, scan: Scan, c: &[NodeId]) -> Built {
        let plain = if scan.dense {
            c[0]
        } else {
            self.diagonal_states(scan, c[0])?
        };
        if !scan.low_rank {
            return Ok(plain);
        }
        let outer = self.minus_outer(scan, c[1], c[2])?;
        self.zip(ZipFn::Add, plain, outer)
    }

    /// `[(2,) states, ..]` on the diagonal of `[(2,) states, states, ..]`.
    fn diagonal_states(&mut self, scan: Scan, x: NodeId) -> Built {
        if !scan.complex {
            return self.diagonal(x);
        }
        let axes = letters(self.ty(x).shape.len());
        let mut front = axes.clone();
        front.swap(0, 1);
        let moved = self.permute(x, &axes, &front)?;
        let spread = self.diagonal(moved)?;
        // [n, m, 2, ..] to [2, n, m, ..]
        let from = letters(axes.len() + 1);
        let mut to = from.clone();
        to[..3].rotate_right(1);
        self.permute(spread, &from, &to)
    }

    /// `-p q^T` per channel, `[(2,) states, states, channels..]`.
    fn minus_outer(&mut self, scan: Scan, p: NodeId, q: NodeId) -> Built {
        if !scan.complex {
            let outer = self.outer(p, q)?;
            return self.neg(outer);
        }
        let part = |this: &mut Builder, x: NodeId, start: usize| -> Built {
            let half = this.add(
                Op::Slice {
                    axis: 0,
                    start,
                    len: 1,
                },
                &[x],
            )?;
            let shape: Vec<Dim> = this.ty(half).shape[1..].to_vec();
            Ok(this.reshape(half, &shape))
        };
        let (pr, pi) = (part(self, p, 0)?, part(self, p, 1)?);
        let (qr, qi) = (part(self, q, 0)?, part(self, q, 1)?);
        let (rr, ii) = (self.outer(pr, qr)?, self.outer(pi, qi)?);
        let (ri, ir) = (self.outer(pr, qi)?, self.outer(pi, qr)?);
        let re = self.zip(ZipFn::Sub, ii, rr)?;
        let cross = self.zip(ZipFn::Add, ri, ir)?;
        let im = self.neg(cross)?;
        let mut halves = Vec::new();
        for x in [re, im] {
            let mut shape = self.ty(x).shape;
            shape.insert(0, Dim::Static(1));
            halves.push(self.reshape(x, &shape));
        }
        self.add(Op::Concat { axis: 0 }, &halves)
    }

    /// `p_n q_m` per channel.
    fn outer(&mut self, p: NodeId, q: NodeId) -> Built {
        let all = letters(self.ty(p).shape.len() + 1);
        let (n, m, channels) = (all[0], all[1], &all[2..]);
        let word = |lead: &[char]| -> Vec<char> { lead.iter().chain(channels).copied().collect() };
        let spec = Einsum {
            inputs: vec![word(&[n]), word(&[m])],
            output: word(&[n, m]),
        };
        self.add(Op::Einsum(spec), &[p, q])
    }
}
