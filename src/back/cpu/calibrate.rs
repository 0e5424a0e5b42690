//! Measures the constants of the cost model.
//!
//! Some networks, each dominated by another kind of step, are run one configuration
//! at a time; the costs are what explains their times best, in the sense of least
//! relative squares, none of them negative. Those of environments explain sweeps of
//! networks of several sizes and depths.

use super::compiled::Compiled;
use super::environment::Environments;
use super::work::Counts;
use crate::back::costs::Costs;
use crate::check::Program;
use crate::check::core::Dim;
use crate::ir::{Boundary, Graph, Lattice, lower};
use crate::kernel::lower::{lower as loops, lower_without_tables};
use crate::run::clock::processor_time;
use std::time::{Duration, Instant};

/// Networks, by what they spend their time on; with sites, and whether local values
/// are looked up in tables.
const PROBES: [(&str, usize, bool); 12] = [
    ("products", 512, false),
    ("products", 2048, false),
    ("functions", 512, false),
    ("operations", 512, false),
    ("operations", 4096, false),
    ("dots", 512, false),
    ("transforms", 240, false),
    ("transforms", 2000, false),
    ("lookups", 2048, true),
    ("copies", 2048, false),
    ("steps", 4, false),
    ("steps", 16, false),
];

/// Networks whose sweeps are measured: depth, components.
const SWEEPS: [(i64, i64); 4] = [(1, 4), (2, 8), (3, 8), (3, 16)];

/// Sites of these networks.
const SWEPT: usize = 192;

const SOURCE: &str = "
use std::nn::{dense, mean, log_cosh_head}
use std::mixers::{power_law, s4d}

network products() on chain {
    let x = patch(spins, 1) |> dense(48) as a |> dense(48) as b |> dense(48) as c
    log_psi = mean(x * dense(x, 48) as d) |> log_cosh_head(2)
}
network functions() on chain {
    let x = patch(spins, 1) |> dense(16)
    log_psi = mean(tanh(exp(0.1 * tanh(tanh(x) + x)))) |> log_cosh_head(2)
}
network operations() on chain {
    let x = patch(spins, 1) |> dense(16) as a
    let y = patch(spins, 1) |> dense(16) as b
    log_psi = mean(((x * y + x) * y - x * x) * (y + x * y) + (x - y) * x) |> log_cosh_head(2)
}
network dots() on chain {
    let x = patch(spins, 1) |> dense(16) as a
    let m = patch(spins, 1) |> dense(256) as b
    log_psi = mean(einsum(\"ab,b->a\", reshape(m, [16, 16]), x)) |> log_cosh_head(2)
}
network transforms() on chain {
    let x = patch(spins, 1) |> dense(16)
    var h = power_law(x) as first
    h = power_law(h) as second
    h = power_law(h) as third
    log_psi = mean(h) |> log_cosh_head(2)
}
network lookups() on chain {
    let x = reshape(window(spins, -4, 4), [9]) |> dense(16) as a
    log_psi = mean(tanh(dense(tanh(x), 16) as b)) |> log_cosh_head(2)
}
network copies() on chain {
    let x = patch(spins, 1) |> dense(2)
    log_psi = mean(reshape(window(x, 0, 31), [64]) * 2) |> log_cosh_head(2)
}
network steps() on chain {
    var x = patch(spins, 1) |> dense(2)
    repeat 24 { x = tanh(dense(x, 2)) }
    log_psi = mean(x) |> log_cosh_head(2)
}
network sweeps(depth: nat = 1, dim: nat = 4) on chain {
    let phi = patch(spins, 1) |> dense(dim)
    var h = phi
    repeat depth { h += tanh(dense(phi, dim)) * s4d(h, 4, bidirectional: true) }
    log_psi = mean(h) |> log_cosh_head(2)
}
";

/// Measured costs of this machine, in single precision, and nanoseconds per
/// multiply-add. Takes a few seconds; `machine` names it.
///
/// # Errors
/// A probe that cannot be compiled on this machine.
pub fn calibrate(machine: String) -> Result<(Costs, f64), String> {
    let program = Program::parse("probes.dnet", SOURCE);
    let mut samples = Vec::new();
    for (name, sites, tables) in PROBES {
        let checked = program.network(name).check().map_err(|e| e.to_string())?;
        let graph = lower(&checked).graph;
        samples.push(probe(graph, sites, tables)?);
    }
    let [nanoseconds, rest @ ..] = solve(&samples);
    if nanoseconds <= 0.0 {
        return Err("multiply-adds seem to take no time: the machine is too busy".to_owned());
    }
    let [function, operation, dot, transform, lookup, copy, step] = rest.map(|x| x / nanoseconds);
    let mut sweeps = Vec::new();
    for (depth, dim) in SWEEPS {
        let network = program.network("sweeps").with("depth", depth);
        let checked = network
            .with("dim", dim)
            .check()
            .map_err(|e| e.to_string())?;
        sweeps.push(sweep(lower(&checked).graph)?);
    }
    let [environment, proposal] = solve(&sweeps).map(|x| x / nanoseconds);
    if environment <= 0.0 {
        return Err("environments seem to take no time: the machine is too busy".to_owned());
    }
    let costs = Costs {
        machine,
        function,
        operation,
        dot,
        transform,
        lookup,
        copy,
        step,
        environment,
        proposal,
    };
    Ok((costs, nanoseconds))
}

/// What each probe consists of.
///
/// # Errors
/// A probe that does not fit the language or its lattice.
pub fn counts() -> Result<Vec<Counts>, String> {
    let program = Program::parse("probes.dnet", SOURCE);
    let count = |&(name, sites, tables): &(&str, usize, bool)| {
        let checked = program.network(name).check().map_err(|e| e.to_string())?;
        let (graph, lattice) = (
            lower(&checked).graph,
            Lattice::chain(sites, Boundary::Periodic),
        );
        let lowered = if tables {
            loops(&graph, lattice, &[])
        } else {
            lower_without_tables(&graph, lattice, &[], &[])
        };
        Ok(Counts::new(&lowered.map_err(|e| e.to_string())?))
    };
    PROBES.iter().map(count).collect()
}

/// Some parameters.
fn parameters(graph: &Graph, sites: usize) -> Vec<f64> {
    let length = |d: &Dim| match *d {
        Dim::Static(n) => n,
        Dim::Sites { scale, per } => sites * scale / per,
    };
    let count: usize = (graph.params.iter())
        .map(|p| p.ty.shape.iter().map(length).product::<usize>())
        .sum();
    (0..count).map(|k| 0.3 * (k as f64 * 0.739).sin()).collect()
}

/// A configuration without structure.
fn configuration(sites: usize) -> Vec<i8> {
    let up = |k: usize| (k * k + 3 * k) % 7 < 3;
    (0..sites).map(|k| if up(k) { 1 } else { -1 }).collect()
}

/// Nanoseconds of a call: calls of about 200 microseconds each, the fastest of many.
fn fastest(mut run: impl FnMut()) -> f64 {
    run();
    let start = processor_time();
    (0..3).for_each(|_| run());
    let each = (processor_time() - start).as_secs_f64() / 3.0;
    let calls = (2e-4 / each.max(1e-8)).ceil().max(1.0) as usize;
    let (mut best, begin) = (f64::INFINITY, Instant::now());
    while best.is_infinite() || begin.elapsed() < Duration::from_millis(200) {
        let start = processor_time();
        (0..calls).for_each(|_| run());
        let time = (processor_time() - start).as_secs_f64() / calls as f64;
        best = best.min(time);
    }
    1e9 * best
}

/// What a network consists of, and nanoseconds of one evaluation.
fn probe(graph: Graph, sites: usize, tables: bool) -> Result<([f64; 8], f64), String> {
    let lattice = Lattice::chain(sites, Boundary::Periodic);
    let theta = parameters(&graph, sites);
    let network = if tables {
        Compiled::<f32>::new(graph, lattice, &theta, false)
    } else {
        Compiled::<f32>::without_tables(graph, lattice, &theta, &[])
    };
    let network = network.map_err(|e| e.to_string())?;
    let spins = configuration(sites);
    let time = fastest(|| {
        network.evaluate_here(&spins, &mut |_, out| {
            std::hint::black_box(out[0]);
        })
    });
    Ok((Counts::new(network.program()).terms(), time))
}

/// Multiply-adds of a proposal between environments and the proposal itself, and its
/// nanoseconds.
fn sweep(graph: Graph) -> Result<([f64; 2], f64), String> {
    // an open chain: none of its proposals is evaluated in full
    let lattice = Lattice::chain(SWEPT, Boundary::Open);
    let theta = parameters(&graph, SWEPT);
    let full = Compiled::<f32>::new(graph, lattice, &theta, false).map_err(|e| e.to_string())?;
    let environments = Environments::new(&full).map_err(|e| e.to_string())?;
    let mut spins = configuration(SWEPT);
    let time = fastest(|| {
        environments.sweep(&full, &mut spins, false, &mut |site, _| site % 2 == 0);
    });
    let counts = [environments.products().total(), 1.0];
    Ok((counts, time / SWEPT as f64))
}

/// Costs x >= 0 that minimise the relative errors of `counts . x = time`.
pub fn solve<const N: usize>(samples: &[([f64; N], f64)]) -> [f64; N] {
    let rows: Vec<[f64; N]> = (samples.iter())
        .map(|(counts, time)| counts.map(|n| n / time))
        .collect();
    let mut x = [0.0; N];
    // coordinate by coordinate: the problem is convex
    for turn in 0..N * 20_000 {
        let k = turn % N;
        let (mut up, mut down) = (0.0, 0.0);
        for row in &rows {
            let all: f64 = row.iter().zip(&x).map(|(a, x)| a * x).sum();
            up += row[k] * (1.0 - all + row[k] * x[k]);
            down += row[k] * row[k];
        }
        if down > 0.0 {
            x[k] = f64::max(up / down, 0.0);
        }
    }
    x
}
