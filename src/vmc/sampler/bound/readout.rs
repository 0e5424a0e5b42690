//! Mixed changes through the readout.
//!
//! For `z = f(x)` with `|f'| <= a` and `|f''| <= b` on the range of x,
//!
//! ```text
//! |D_j  z| <= a |D_j x|
//! |D_fj z| <= a |D_fj x| + min( b |D_f x| |D_j x|, 2 a min(|D_f x|, |D_j x|) )
//! ```
//!
//! (continue f linearly beyond the range: the four values of x lie inside, and the
//! derivatives are bounded everywhere), and for bilinear `z = x y` the four terms
//! of the product rule.

use super::NoBound;
use super::envelope::Envelope;
use crate::interp::{Context, Evaluation, Operand, Tensor, eval_node, map};
use crate::ir::{MapFn, NodeId, Op, ZipFn};
use crate::pass::abacus::Network;
use crate::pass::normal_form::op_name;
use std::collections::BTreeMap;
use std::f64::consts::PI;

/// Most products of elements written out for one bilinear operation.
const MAX_PRODUCTS: usize = 1 << 14;

/// Row, column and coefficient of a matrix.
type Entry = (usize, usize, f64);

/// One step of the readout.
enum Step {
    /// `z_row = offset + sum coefficient x_column`, per operand.
    Affine(Vec<(NodeId, Vec<Entry>)>),
    /// `z_row = sum coefficient x_column y_column`.
    Bilinear([NodeId; 2], Vec<(usize, [usize; 2], f64)>),
    /// Per element bounds of the first and second derivative.
    Function(NodeId, Vec<[f64; 2]>),
}

/// Range and single changes of a value: one row of `sites` numbers per element.
struct Value {
    middle: Vec<f64>,
    radius: Vec<f64>,
    single: Vec<f64>,
}

/// The readout with the ranges of everything in it.
pub(super) struct Readout {
    sites: usize,
    values: BTreeMap<NodeId, Value>,
    steps: Vec<(NodeId, Step)>,
    /// Node and range of features, by pool.
    pools: Vec<(NodeId, std::ops::Range<usize>)>,
    output: NodeId,
}

impl Readout {
    pub(super) fn new(
        net: &Network,
        constants: &Evaluation,
        envelope: &Envelope,
    ) -> Result<Readout, NoBound> {
        let sites = net.lattice.sites();
        let singles: Vec<Vec<f64>> = (0..sites).map(|j| envelope.single_features(j)).collect();
        let mut readout = Readout {
            sites,
            values: BTreeMap::new(),
            steps: Vec::new(),
            pools: Vec::new(),
            output: net.graph.outputs[0],
        };
        let mut first = 0;
        for pool in &net.form.pools {
            let range = first..first + constants.value(pool.output).data.len();
            first = range.end;
            let part = |k: usize| envelope.features[k][range.clone()].to_vec();
            let value = Value {
                middle: part(0),
                radius: part(1),
                single: (range.clone())
                    .flat_map(|a| singles.iter().map(move |d| d[a]))
                    .collect(),
            };
            readout.values.insert(pool.output, value);
            readout.pools.push((pool.output, range));
        }
        let spins = vec![1; sites];
        let context = Context::new(net.lattice, &net.params, &spins).map_err(NoBound::of)?;
        for &id in &net.form.readout {
            readout.push(net, constants, &context, id)?;
        }
        Ok(readout)
    }

    /// `|D_j log psi|`.
    pub(super) fn single(&self, j: usize) -> f64 {
        self.values
            .get(&self.output)
            .map_or(0.0, |value| value.single[j])
    }

    /// `|D_fj log psi|` for every f, given that of the features for every f.
    pub(super) fn mixed(&self, j: usize, features: &[Vec<f64>]) -> Vec<f64> {
        let n = self.sites;
        let mut mixed: BTreeMap<NodeId, Vec<f64>> = BTreeMap::new();
        for (node, range) in &self.pools {
            let rows = range.clone();
            let values = rows.flat_map(|a| features.iter().map(move |d| d[a]));
            mixed.insert(*node, values.collect());
        }
        for (id, step) in &self.steps {
            let mut out = vec![0.0; self.values[id].middle.len() * n];
            let row = |m: &'_ [f64], e: usize| m[e * n..(e + 1) * n].to_vec();
            match step {
                Step::Affine(parts) => {
                    for (x, entries) in parts {
                        for &(to, from, c) in entries {
                            let out = out[to * n..(to + 1) * n].iter_mut();
                            let x = &mixed[x][from * n..(from + 1) * n];
                            out.zip(x).for_each(|(o, x)| *o += c.abs() * x);
                        }
                    }
                }
                Step::Bilinear([x, y], entries) => {
                    let (vx, vy) = (&self.values[x], &self.values[y]);
                    for &(to, [a, b], c) in entries {
                        let (mx, my) = (row(&mixed[x], a), row(&mixed[y], b));
                        let size = |v: &Value, e: usize| v.middle[e].abs() + v.radius[e];
                        let (sx, sy) = (size(vx, a), size(vy, b));
                        let (dx, dy) = (&vx.single[a * n..], &vy.single[b * n..]);
                        for f in 0..n {
                            out[to * n + f] +=
                                c.abs() * (mx[f] * sy + dx[j] * dy[f] + dx[f] * dy[j] + sx * my[f]);
                        }
                    }
                }
                Step::Function(x, derivatives) => {
                    let (d, m) = (&self.values[x].single, &mixed[x]);
                    for (e, [first, second]) in derivatives.iter().enumerate() {
                        let d = &d[e * n..(e + 1) * n];
                        for f in 0..n {
                            out[e * n + f] =
                                first * m[e * n + f] + curved(*first, *second, d[f], d[j]);
                        }
                    }
                }
            }
            mixed.insert(*id, out);
        }
        mixed.remove(&self.output).unwrap_or_else(|| vec![0.0; n])
    }

    fn push(
        &mut self,
        net: &Network,
        constants: &Evaluation,
        context: &Context,
        id: NodeId,
    ) -> Result<(), NoBound> {
        let (op, args) = (net.graph.op(id), net.graph.args(id));
        let refuse = || NoBound::Operation(op_name(op));
        if let Op::Map(f) = op {
            let x = &self.values[&args[0]];
            let derivatives: Vec<[f64; 2]> = x
                .middle
                .iter()
                .zip(&x.radius)
                .map(|(m, r)| derivatives(*f, m - r, m + r).ok_or_else(refuse))
                .collect::<Result<_, _>>()?;
            let value = Value {
                middle: x.middle.iter().map(|m| map(*f, *m)).collect(),
                radius: (x.radius.iter().zip(&derivatives))
                    .map(|(r, d)| d[0] * r)
                    .collect(),
                single: (x.single.iter().enumerate())
                    .map(|(k, d)| derivatives[k / self.sites][0] * d)
                    .collect(),
            };
            self.values.insert(id, value);
            self.steps.push((id, Step::Function(args[0], derivatives)));
            return Ok(());
        }
        let moving: Vec<usize> = (0..args.len())
            .filter(|&k| self.values.contains_key(&args[k]))
            .collect();
        let linear = match op {
            Op::Zip(ZipFn::Add | ZipFn::Sub)
            | Op::Reshape
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Concat { .. }
            | Op::Broadcast => true,
            Op::Zip(ZipFn::Mul) | Op::Einsum(_) => moving.len() == 1,
            Op::Zip(ZipFn::Div) if moving == [0] => true,
            _ => return Err(refuse()),
        };
        // the operation with unit vectors in place of what moves
        let apply = |units: &[(usize, Option<usize>)]| -> Result<Tensor, NoBound> {
            let values: Vec<Tensor> = (args.iter().enumerate())
                .map(|(k, &a)| {
                    let mut value = constants.value(a).clone();
                    if let Some((_, unit)) = units.iter().find(|(operand, _)| *operand == k) {
                        value.data.fill(0.0);
                        if let Some(e) = unit {
                            value.data[*e] = 1.0;
                        }
                    }
                    value
                })
                .collect();
            let operands: Vec<Operand> = (args.iter().zip(&values))
                .map(|(a, value)| Operand {
                    ty: net.graph.ty(*a),
                    value,
                })
                .collect();
            eval_node(op, net.graph.ty(id), &operands, context).map_err(NoBound::of)
        };
        let length = |k: usize| self.values[&args[k]].middle.len();
        let zeros: Vec<(usize, Option<usize>)> = moving.iter().map(|&k| (k, None)).collect();
        let offset = apply(&zeros)?.data;
        let mut value = Value {
            middle: offset.clone(),
            radius: vec![0.0; offset.len()],
            single: vec![0.0; offset.len() * self.sites],
        };
        let n = self.sites;
        let step = if linear {
            let mut parts = Vec::new();
            for &k in &moving {
                let x = &self.values[&args[k]];
                let mut entries = Vec::new();
                for from in 0..length(k) {
                    let mut units = zeros.clone();
                    units.retain(|u| u.0 != k);
                    units.push((k, Some(from)));
                    for (to, (with, without)) in apply(&units)?.data.iter().zip(&offset).enumerate()
                    {
                        let c = with - without;
                        if c == 0.0 {
                            continue;
                        }
                        entries.push((to, from, c));
                        value.middle[to] += c * x.middle[from];
                        value.radius[to] += c.abs() * x.radius[from];
                        for f in 0..n {
                            value.single[to * n + f] += c.abs() * x.single[from * n + f];
                        }
                    }
                }
                parts.push((args[k], entries));
            }
            Step::Affine(parts)
        } else {
            let [a, b] = moving[..] else {
                return Err(refuse());
            };
            if length(a) * length(b) > MAX_PRODUCTS {
                return Err(refuse());
            }
            let (x, y) = (&self.values[&args[a]], &self.values[&args[b]]);
            let mut entries = Vec::new();
            for i in 0..length(a) {
                for k in 0..length(b) {
                    let products = apply(&[(a, Some(i)), (b, Some(k))])?.data;
                    for (to, &c) in products.iter().enumerate().filter(|(_, c)| **c != 0.0) {
                        let (mx, my) = (x.middle[i], y.middle[k]);
                        let (rx, ry) = (x.radius[i], y.radius[k]);
                        entries.push((to, [i, k], c));
                        value.middle[to] += c * mx * my;
                        value.radius[to] += c.abs() * (mx.abs() * ry + rx * my.abs() + rx * ry);
                        for f in 0..n {
                            let (dx, dy) = (x.single[i * n + f], y.single[k * n + f]);
                            value.single[to * n + f] +=
                                c.abs() * (dx * (my.abs() + ry) + (mx.abs() + rx) * dy);
                        }
                    }
                }
            }
            Step::Bilinear([args[a], args[b]], entries)
        };
        self.values.insert(id, value);
        self.steps.push((id, step));
        Ok(())
    }
}

/// `min(second a b, 2 first min(a, b))`.
fn curved(first: f64, second: f64, a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 {
        return 0.0;
    }
    (second * a * b).min(2.0 * first * a.min(b))
}

/// Largest sizes of the first and second derivative of a function on an interval;
/// none where it has jumps or no values.
fn derivatives(f: MapFn, low: f64, high: f64) -> Option<[f64; 2]> {
    let nearest = if low <= 0.0 && high >= 0.0 {
        0.0
    } else {
        low.abs().min(high.abs())
    };
    let farthest = low.abs().max(high.abs());
    let slope = |x: f64| 1.0 - x.tanh().powi(2);
    Some(match f {
        MapFn::Neg => [1.0, 0.0],
        MapFn::Exp => [high.exp(); 2],
        MapFn::Log if low > 0.0 => [low.recip(), low.powi(-2)],
        MapFn::Log1p if low > -1.0 => [(1.0 + low).recip(), (1.0 + low).powi(-2)],
        MapFn::Sqrt if low > 0.0 => [0.5 * low.powf(-0.5), 0.25 * low.powf(-1.5)],
        MapFn::Sin | MapFn::Cos => [1.0, 1.0],
        // |tanh''| = 2 |tanh| sech^2 is largest, 4 / (3 sqrt 3), where tanh^2 = 1/3
        MapFn::Tanh => [slope(nearest), 4.0 / 27.0_f64.sqrt()],
        MapFn::LogCosh => [farthest.tanh(), slope(nearest)],
        MapFn::Abs => [1.0, if nearest > 0.0 { 0.0 } else { f64::INFINITY }],
        // |erf''| = 4 |x| exp(-x^2) / sqrt pi is largest where x^2 = 1/2
        MapFn::Erf => [
            2.0 / PI.sqrt() * (-nearest * nearest).exp(),
            4.0 / PI.sqrt() * (-0.5_f64).exp() * 0.5_f64.sqrt(),
        ],
        MapFn::Recip if nearest > 0.0 => [nearest.powi(-2), 2.0 * nearest.powi(-3)],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivative_bounds_hold_and_are_reached() {
        let all = [
            (MapFn::Exp, -2.0, 0.7),
            (MapFn::Log, 0.3, 2.0),
            (MapFn::Log1p, -0.5, 2.0),
            (MapFn::Sqrt, 0.2, 3.0),
            (MapFn::Tanh, -2.0, 2.0),
            (MapFn::Tanh, 0.2, 2.0),
            (MapFn::LogCosh, -0.7, 0.4),
            (MapFn::LogCosh, 0.5, 2.0),
            (MapFn::Erf, -2.0, 2.0),
            (MapFn::Recip, -2.0, -0.3),
            (MapFn::Abs, 0.1, 2.0),
            (MapFn::Sin, -2.0, 2.0),
            (MapFn::Cos, -2.0, 2.0),
        ];
        for (f, low, high) in all {
            let [first, second] = derivatives(f, low, high).unwrap();
            let step = 1e-3;
            let points = ((high - low) / step) as usize;
            let (mut steepest, mut most_curved) = (0.0_f64, 0.0_f64);
            for k in 1..points {
                let x = low + step * k as f64;
                let [a, b, c] = [x - step, x, x + step].map(|x| map(f, x));
                steepest = steepest.max((c - b).abs() / step);
                most_curved = most_curved.max((a - 2.0 * b + c).abs() / (step * step));
            }
            assert!(
                steepest <= first * (1.0 + 1e-5),
                "{f:?}: {steepest} > {first}"
            );
            assert!(steepest >= 0.99 * first, "{f:?}: {steepest}, not {first}");
            assert!(
                most_curved <= second * (1.0 + 1e-4) + 1e-6,
                "{f:?}: {most_curved} > {second}"
            );
            assert!(
                most_curved >= 0.98 * second,
                "{f:?}: {most_curved}, not {second}"
            );
        }
        assert_eq!(derivatives(MapFn::Sign, -1.0, 1.0), None);
        assert_eq!(derivatives(MapFn::Recip, -1.0, 1.0), None);
        assert_eq!(
            derivatives(MapFn::Abs, -1.0, 1.0),
            Some([1.0, f64::INFINITY])
        );
        // an infinite curvature still leaves the changes themselves
        assert_eq!(curved(1.0, f64::INFINITY, 0.3, 0.5), 0.6);
        assert_eq!(curved(1.0, f64::INFINITY, 0.0, 0.5), 0.0);
    }
}
