//! Gradients of `log psi` with respect to the parameters.
//!
//! The graph is cut where values that depend on parameters alone meet values
//! that depend on the configuration. Above the cut, code on sites gives the
//! derivatives with respect to the values at the cut, sample by sample. Below
//! it, the chain from there to the parameters is a program without sites that
//! many samples go through at once. Values at the cut (recurrence coefficients,
//! kernels, weights) are computed once per parameter set.

use super::budget::Budget;
use super::compiled::{CompileError, Compiled, Prepared};
use super::constants::{ConstantError, constant_values, tensors};
use super::simd::Real;
use super::work::flops;
use crate::interp::Tensor;
use crate::ir::{Graph, GraphParam, Lattice, NodeId, Op, ZipFn};
use crate::kernel::Program;
use crate::pass::reverse::{ReverseError, gradient, pullback};
use crate::run::{GradientRow, Room};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Compiled derivatives of one network on one lattice.
pub struct GradientCode<T: Real> {
    /// The original graph.
    graph: Graph,
    cut: Vec<NodeId>,
    /// Configurations to derivatives at the cut, output after output.
    above: Compiled<T>,
    /// Derivatives at the cut to derivatives with respect to parameters.
    below: Compiled<T>,
    /// Where the derivatives are at the cut already: ranges in the order of the
    /// parameters.
    direct: Option<Vec<Range<usize>>>,
    /// Outputs of the network: real part, imaginary part.
    outputs: usize,
    /// Numbers at the cut, and parameters.
    lengths: [usize; 2],
}

impl<T: Real> GradientCode<T> {
    /// Differentiates and compiles a graph whose outputs are single numbers.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn new(graph: &Graph, lattice: Lattice, theta: &[f64]) -> Result<Self, CompileError> {
        let cut = cut(graph);
        let below = Compiled::with_inputs(
            below(graph, &cut)?,
            lattice,
            theta,
            &(0..cut.len())
                .map(|k| (graph.params.len() + k) as u32)
                .collect::<Vec<_>>(),
            false,
        )?;
        let values = values_at(graph, &cut, below.program(), theta)?;
        let above = Compiled::new(above(graph, &cut)?, lattice, &values, false)?;
        let params = tensors(graph, below.program(), theta, &[]).map_err(ConstantError::from)?;
        Ok(GradientCode {
            direct: direct(graph, &cut, &params),
            graph: graph.clone(),
            cut,
            above,
            below,
            outputs: graph.outputs.len(),
            lengths: [values.len(), theta.len()],
        })
    }

    /// What new parameters change.
    ///
    /// # Errors
    /// Parameters that define no network.
    pub fn prepare(&self, theta: &[f64]) -> Result<[Prepared<T>; 2], CompileError> {
        let below = self.below.prepare(theta)?;
        let values = values_at(&self.graph, &self.cut, self.below.program(), theta)?;
        Ok([self.above.prepare(&values)?, below])
    }

    /// Puts prepared parameters in force.
    pub fn install(&mut self, [above, below]: [Prepared<T>; 2]) {
        self.above.install(above);
        self.below.install(below);
    }

    /// The loop-level programs above and below the cut.
    pub fn programs(&self) -> [&Program; 2] {
        [self.above.program(), self.below.program()]
    }

    /// Floating-point operations of one gradient.
    pub fn flops(&self) -> f64 {
        let below = flops(self.below.program()) * self.outputs as f64;
        flops(self.above.program()) + below
    }

    /// Calls `row(sample, re, im)` with the gradient of every configuration, from
    /// several threads; `im` is empty for real networks.
    ///
    /// # Panics
    /// If the batch is not a whole number of configurations.
    pub fn run(&self, batch: &[i8], row: GradientRow) {
        let sites = self.above.lattice().sites();
        assert!(batch.len().is_multiple_of(sites), "whole configurations");
        let count = batch.len() / sites;
        let fair = count.div_ceil(rayon::current_num_threads());
        let samples = fair.clamp(1, self.samples_at_a_time());
        batch
            .par_chunks(samples * sites)
            .enumerate()
            .for_each(|(k, spins)| self.chunk(spins, k * samples, row));
    }

    /// As many as fill both programs, while their derivatives take no more than a
    /// part of the memory there is.
    fn samples_at_a_time(&self) -> usize {
        let above = self.above.samples_at_a_time();
        let fill = match self.direct {
            Some(_) => above,
            None => above.max(self.below.samples_at_a_time()),
        };
        let kept = self.kept();
        let share = self.above.budget().limit() / rayon::current_num_threads() / 8;
        fill.min(share / kept.max(1)).max(1)
    }

    /// Bytes of derivatives of one sample.
    fn kept(&self) -> usize {
        8 * self.outputs * (self.lengths[0] + self.lengths[1])
    }

    /// Bytes of what depends on parameters alone.
    pub fn constant_bytes(&self) -> usize {
        self.above.constant_bytes() + self.below.constant_bytes()
    }

    /// Works in the memory of a budget.
    ///
    /// # Errors
    /// A single configuration does not fit.
    pub fn work_within(&mut self, budget: &Arc<Budget>) -> Result<(), CompileError> {
        self.above.work_within(budget)?;
        self.below.work_within(budget)
    }

    /// Working memory: samples at a time, and bytes per thread.
    pub fn memory(&self) -> Room {
        let samples = self.samples_at_a_time();
        let room = |c: &Compiled<T>| {
            let rooms = c.memory();
            let fits = rooms.iter().find(|r| r.samples >= samples);
            fits.or(rooms.last()).map_or(0, |r| r.bytes)
        };
        let below = self.direct.is_none().then(|| room(&self.below));
        Room {
            samples,
            bytes: room(&self.above) + below.unwrap_or(0) + samples * self.kept(),
        }
    }

    fn chunk(&self, spins: &[i8], first: usize, row: GradientRow) {
        let count = spins.len() / self.above.lattice().sites();
        let [inner, params] = self.lengths;
        let mut at_cut = vec![0.0; count * self.outputs * inner];
        self.above.outputs_here(spins, &mut at_cut);
        let part = |output: usize, sample: usize| {
            let start = (sample * self.outputs + output) * inner;
            &at_cut[start..start + inner]
        };
        if let Some(ranges) = &self.direct {
            let mut ordered = [Vec::new(), Vec::new()];
            for sample in 0..count {
                let mut parts = [&[][..]; 2];
                let slots = parts.iter_mut().zip(&mut ordered);
                for (output, (slot, ordered)) in slots.enumerate().take(self.outputs) {
                    let values = part(output, sample);
                    *slot = match ranges.as_slice() {
                        [range] => &values[range.clone()],
                        _ => {
                            ordered.clear();
                            let pieces = ranges.iter().map(|r| &values[r.clone()]);
                            pieces.for_each(|piece| ordered.extend_from_slice(piece));
                            ordered
                        }
                    };
                }
                row(first + sample, parts[0], parts[1]);
            }
            return;
        }
        let mut gradients = vec![0.0; self.outputs * count * params];
        // no more than the program below takes at a time
        let at_once = self.below.samples_at_a_time();
        for output in 0..self.outputs {
            for start in (0..count).step_by(at_once) {
                let samples = at_once.min(count - start);
                let first = output * count + start;
                self.below
                    .map_here(samples, &|s| part(output, start + s), &mut |s, values| {
                        gradients[(first + s) * params..][..params].copy_from_slice(values);
                    });
            }
        }
        let of = |output: usize, sample: usize| match output < self.outputs {
            true => &gradients[(output * count + sample) * params..][..params],
            false => &[],
        };
        // the caller may do anything, so no workspace is held
        for sample in 0..count {
            row(first + sample, of(0, sample), of(1, sample));
        }
    }
}

/// Where the derivatives with respect to the parameters are among those at the
/// cut, if every parameter is one node of it.
fn direct(graph: &Graph, cut: &[NodeId], params: &[Tensor]) -> Option<Vec<Range<usize>>> {
    let mut starts = vec![None; params.len()];
    let mut at = 0;
    for &id in cut {
        let Op::Param(k) = *graph.op(id) else {
            return None;
        };
        let length = params[k as usize].data.len();
        if starts[k as usize].replace(at..at + length).is_some() {
            return None;
        }
        at += length;
    }
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for range in starts {
        let range = range?;
        match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
    Some(ranges)
}

/// For every node whether it depends on the configuration and on parameters.
fn dependence(graph: &Graph) -> Vec<(bool, bool)> {
    let mut of: Vec<(bool, bool)> = Vec::with_capacity(graph.len());
    for id in graph.ids() {
        let mut d = match graph.op(id) {
            Op::Spins => (true, false),
            Op::Param(_) => (false, true),
            _ => (false, false),
        };
        for a in graph.args(id) {
            let (spins, params) = of[a.index()];
            d = (d.0 || spins, d.1 || params);
        }
        of.push(d);
    }
    of
}

/// The nodes that depend on parameters alone and meet the configuration.
/// Broadcasts are passed: their operands are smaller.
pub(in crate::back) fn cut(graph: &Graph) -> Vec<NodeId> {
    let of = dependence(graph);
    let mut live = vec![false; graph.len()];
    let mut inside = vec![false; graph.len()];
    for o in &graph.outputs {
        live[o.index()] = true;
    }
    for id in graph.ids().rev().filter(|id| of[id.index()].0) {
        if live[id.index()] {
            graph.args(id).iter().for_each(|a| live[a.index()] = true);
        }
    }
    for id in graph.ids().rev() {
        let k = id.index();
        let fixed = live[k] && !of[k].0 && of[k].1;
        if fixed && matches!(graph.op(id), Op::Broadcast) {
            graph.args(id).iter().for_each(|a| live[a.index()] = true);
        } else {
            inside[k] = fixed;
        }
    }
    graph.ids().filter(|id| inside[id.index()]).collect()
}

/// The graph with the nodes of the cut as its parameters, and the derivatives of
/// all outputs with respect to them.
pub(in crate::back) fn above(graph: &Graph, cut: &[NodeId]) -> Result<Graph, CompileError> {
    let of = dependence(graph);
    let mut top = Graph::default();
    let mut placed: Vec<Option<NodeId>> = vec![None; graph.len()];
    for id in graph.ids() {
        let ty = graph.ty(id).clone();
        let copy = if cut.contains(&id) {
            let index = top.params.len() as u32;
            top.params.push(GraphParam {
                path: format!("cut_{}", id.index()),
                ty: ty.clone(),
            });
            Some(top.push(Op::Param(index), &[], ty))
        } else {
            let args: Option<Vec<NodeId>> =
                graph.args(id).iter().map(|a| placed[a.index()]).collect();
            // what lies below the cut is not needed above it
            let wanted = !matches!(graph.op(id), Op::Param(_));
            args.filter(|_| wanted)
                .map(|args| top.push(graph.op(id).clone(), &args, ty))
        };
        debug_assert!(copy.is_some() || !of[id.index()].0 || !graph.outputs.contains(&id));
        placed[id.index()] = copy;
    }
    let wanted: Vec<NodeId> = cut.iter().filter_map(|c| placed[c.index()]).collect();
    let mut gradients = Vec::new();
    for o in &graph.outputs {
        let Some(output) = placed[o.index()] else {
            return Err(ReverseError::NotScalar(o.index()).into());
        };
        let reversed = gradient(&top, output, &wanted)?;
        top = reversed.graph;
        gradients.extend(reversed.gradients);
    }
    top.outputs = gradients;
    Ok(top)
}

/// The derivatives with respect to all parameters from those at the cut, which
/// are further parameters.
pub(in crate::back) fn below(graph: &Graph, cut: &[NodeId]) -> Result<Graph, CompileError> {
    let mut bottom = graph.clone();
    let mut cotangents = Vec::with_capacity(cut.len());
    for &c in cut {
        let ty = graph.ty(c).clone();
        let index = bottom.params.len() as u32;
        bottom.params.push(GraphParam {
            path: format!("d_{}", c.index()),
            ty: ty.clone(),
        });
        cotangents.push((c, bottom.push(Op::Param(index), &[], ty)));
    }
    // one node per parameter, also for those nobody reads
    let uses: Vec<(usize, NodeId)> = graph
        .ids()
        .filter_map(|id| match graph.op(id) {
            Op::Param(k) => Some((*k as usize, id)),
            _ => None,
        })
        .collect();
    let wanted: Vec<NodeId> = uses.iter().map(|u| u.1).collect();
    let reversed = pullback(&bottom, &cotangents, &wanted)?;
    let mut bottom = reversed.graph;
    let mut outputs = Vec::with_capacity(graph.params.len());
    for (k, p) in graph.params.iter().enumerate() {
        let mut sum: Option<NodeId> = None;
        for (_, &g) in uses
            .iter()
            .zip(&reversed.gradients)
            .filter(|(u, _)| u.0 == k)
        {
            sum = Some(match sum {
                None => g,
                Some(s) => bottom
                    .add(Op::Zip(ZipFn::Add), &[s, g])
                    .map_err(ReverseError::from)?,
            });
        }
        outputs.push(match sum {
            Some(g) => g,
            None => {
                let zero = bottom
                    .add(Op::Number(0.0), &[])
                    .map_err(ReverseError::from)?;
                bottom.push(Op::Broadcast, &[zero], p.ty.clone())
            }
        });
    }
    bottom.outputs = outputs;
    Ok(bottom)
}

/// The values at the cut, one after the other.
pub(in crate::back) fn values_at(
    graph: &Graph,
    cut: &[NodeId],
    program: &Program,
    theta: &[f64],
) -> Result<Vec<f64>, CompileError> {
    let evaluate = || {
        let params = tensors(graph, program, theta, &[])?;
        let roots = cut.iter().copied();
        let values = constant_values(graph, program.lattice, &params, roots)?;
        let at_cut = cut.iter().filter_map(|c| values[c.index()].as_ref());
        Ok::<_, crate::interp::EvalError>(at_cut.flat_map(|t| t.data.iter().copied()).collect())
    };
    Ok(evaluate().map_err(ConstantError::from)?)
}
