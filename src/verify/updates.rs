//! Everything derived for local changes against full evaluation.

use super::report::{Case, Check, Report};
use crate::interp::{
    Context, EvalError, Evaluation, Operand, Tensor, eval_node, evaluate, evaluate_with,
};
use crate::pass::abacus::{AbacusError, Background, Network, Update, probe};
use crate::pass::link::environment::Environments;
use crate::pass::link::sweep::sweep;
use crate::pass::link::{LinkStrategy, applies, multiply_add};
use crate::pass::normal_form::PoolKind;
use crate::rng::ChainRng;
use num_complex::Complex64;
use std::collections::HashMap;
use std::f64::consts::TAU;

const STRATEGIES: [LinkStrategy; 4] = [
    LinkStrategy::Direct,
    LinkStrategy::Fft,
    LinkStrategy::Product,
    LinkStrategy::Dense,
];
/// Clusters whose windows are probed: each re-extracts all coefficients.
const PROBES: usize = 4;

/// Compares updates, links, environments, sweeps and windows of a background
/// with full evaluations of its graph, at the given clusters. Contradictions in
/// the derivation are recorded, not returned.
///
/// # Errors
/// Inputs that do not fit the network.
pub fn check(
    report: &mut Report,
    case: &Case,
    background: &Background,
    clusters: &[Vec<usize>],
    rng: &mut ChainRng,
) -> Result<(), EvalError> {
    let net = background.net;
    let mut exact = vec![];
    for flips in clusters {
        let mut spins = background.spins.clone();
        flips.iter().for_each(|&i| spins[i] = -spins[i]);
        exact.push(full(net, &spins)?);
    }
    let wanted = [
        None,
        Some(LinkStrategy::Fft),
        Some(LinkStrategy::Product),
        Some(LinkStrategy::Dense),
    ];
    for strategy in wanted {
        let mut links = background.links(strategy);
        // A strategy no link can follow is the preferred plan once more.
        if strategy.is_some_and(|s| !links.plan().values().any(|&p| p == s)) {
            continue;
        }
        for (flips, exact) in clusters.iter().zip(&exact) {
            let check = Check::Update(strategy);
            match background.update(&mut links, flips) {
                Ok(u) => compare_update(report, check, case, background, &u, (flips, exact)),
                Err(e) => report.contradiction(case.with(flips, check.to_string()), e),
            }
        }
    }
    for flips in clusters.iter().take(PROBES) {
        let at = case.with(flips, "window probe");
        match probe(background, flips) {
            Ok(_) => report.compare(Check::Window, 0.0, || at),
            Err(e) => report.contradiction(at, e),
        }
    }
    for source in 0..net.form.mixers.len() {
        link_columns(report, case, background, source, rng)?;
    }
    match Environments::new(background) {
        Ok(environments) => {
            for (flips, exact) in clusters.iter().zip(&exact) {
                let at = || case.with(flips, "log psi");
                match environments.log_psi(flips) {
                    Ok(z) => {
                        report.compare(Check::Environment, distance(z, exact.log_psi()), at);
                    }
                    Err(e) => report.contradiction(at(), e),
                }
            }
            sweeps(report, case, background, rng)?;
        }
        Err(AbacusError::Strategy { reason, .. }) => {
            report
                .notes
                .insert(format!("no environments and sweeps: {reason}"));
        }
        Err(e) => report.contradiction(case.with(&[], "environments"), e),
    }
    Ok(())
}

fn full(net: &Network, spins: &[i8]) -> Result<Evaluation, EvalError> {
    evaluate(net.graph, net.lattice, &net.params, spins)
}

/// Distance of two log amplitudes: relative, phases modulo 2 pi.
pub fn distance(a: Complex64, b: Complex64) -> f64 {
    let mut d = a - b;
    d.im -= TAU * (d.im / TAU).round();
    d.norm() / b.norm().max(1.0)
}

fn largest(x: &[f64]) -> f64 {
    x.iter().fold(1.0, |s, x| s.max(x.abs()))
}

/// Largest difference relative to the larger of the largest reference and 1.
fn worst(found: &[f64], expected: &[f64], scale: f64) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let differences = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs() / scale);
    // NaN must win.
    differences.fold(0.0, |w, d| if d <= w { w } else { d })
}

fn compare_update(
    report: &mut Report,
    check: Check,
    case: &Case,
    background: &Background,
    update: &Update,
    (flips, exact): (&[usize], &Evaluation),
) {
    let form = &background.net.form;
    for (p, (pool, features)) in form.pools.iter().zip(&update.features).enumerate() {
        let expected = &exact.value(pool.output).data;
        let error = worst(&features.data, expected, largest(expected));
        report.compare(check, error, || {
            case.with(flips, format!("pooled features {p}"))
        });
    }
    for (&(m, i), change) in &update.outputs {
        let node = form.mixers[m].output;
        let (old, new) = (background.values.value(node), exact.value(node));
        let d = change.len();
        let expected: Vec<f64> = (i * d..(i + 1) * d)
            .map(|at| new.data[at] - old.data[at])
            .collect();
        let error = worst(change, &expected, largest(&new.data));
        report.compare(check, error, || {
            case.with(flips, format!("output of mixer {m} at token {i}"))
        });
    }
    let error = distance(update.log_psi, exact.log_psi());
    report.compare(check, error, || case.with(flips, "log psi"));
}

/// One column of the background Jacobian, `d y_m / d v_k` and `d Omega / d v_k`
/// applied to a random emission at a random token, by every strategy and by two
/// full evaluations: mixers are linear and coefficients local, so the difference
/// is exact.
fn link_columns(
    report: &mut Report,
    case: &Case,
    background: &Background,
    k: usize,
    rng: &mut ChainRng,
) -> Result<(), EvalError> {
    let (net, before) = (background.net, &background.values);
    let mixers = &net.form.mixers;
    let kernel = &background.kernels[k];
    let source = rng.below(kernel.sources() as u32) as usize;
    let emission: Vec<f64> = (0..kernel.inputs()).map(|_| rng.normal()).collect();

    let mut impulse = Tensor::zeros(&before.value(mixers[k].input).shape);
    let d = kernel.inputs();
    impulse.data[source * d..(source + 1) * d].copy_from_slice(&emission);
    let context = Context::new(net.lattice, &net.params, &background.spins)?;
    let output = mixers[k].output;
    let operands: Vec<Operand> = net
        .graph
        .args(output)
        .iter()
        .map(|&a| Operand {
            ty: net.graph.ty(a),
            value: if a == mixers[k].input {
                &impulse
            } else {
                before.value(a)
            },
        })
        .collect();
    let mut moved = eval_node(
        net.graph.op(output),
        net.graph.ty(output),
        &operands,
        &context,
    )?;
    for (y, old) in moved.data.iter_mut().zip(&before.value(output).data) {
        *y += old;
    }
    let after = evaluate_with(
        net.graph,
        net.lattice,
        &net.params,
        &background.spins,
        &HashMap::from([(output, moved)]),
    )?;

    for strategy in STRATEGIES {
        let mut links = background.links(Some(strategy));
        for m in (k..mixers.len()).filter(|&m| applies(&net.form, m, k, strategy)) {
            if links.plan().get(&(m, k)).is_some_and(|&s| s != strategy) {
                continue;
            }
            let node = mixers[m].output;
            let (old, new) = (&before.value(node).data, &after.value(node).data);
            let d = background.kernels[m].outputs();
            let scale = largest(new);
            for target in 0..background.kernels[m].targets() {
                let at = || {
                    let what = format!("L[{m},{k}] from token {source} to token {target}");
                    case.with(&[], what)
                };
                let mut found = vec![0.0; d];
                if let Err(e) = links.apply((m, k), target, source, &emission, &mut found) {
                    report.contradiction(at(), e);
                    continue;
                }
                let expected: Vec<f64> = (target * d..(target + 1) * d)
                    .map(|i| new[i] - old[i])
                    .collect();
                report.compare(Check::Link(strategy), worst(&found, &expected, scale), at);
            }
        }
    }
    for (p, pool) in net.form.pools.iter().enumerate() {
        if pool.kind == PoolKind::Gather {
            continue;
        }
        let (old, new) = (before.value(pool.output), after.value(pool.output));
        let mut found = old.data.clone();
        multiply_add(
            background.final_links.get(p, k, source),
            &emission,
            &mut found,
        );
        let error = worst(&found, &new.data, largest(&new.data));
        report.compare(Check::FinalLink, error, || {
            case.with(&[], format!("T[{k}] of features {p} at token {source}"))
        });
    }
    Ok(())
}

/// One sweep in each direction; every other proposal is accepted at random.
fn sweeps(
    report: &mut Report,
    case: &Case,
    background: &Background,
    rng: &mut ChainRng,
) -> Result<(), EvalError> {
    for reverse in [false, true] {
        let mut current = background.spins.clone();
        let mut log_psi = background.log_psi();
        let mut fault = None;
        let result = sweep(background, reverse, &mut |site, ratio| {
            current[site] = -current[site];
            let new = match full(background.net, &current) {
                Ok(e) => e.log_psi(),
                Err(e) => {
                    fault = Some(e);
                    return false;
                }
            };
            report.compare(Check::Sweep, distance(log_psi + ratio, new), || {
                let way = if reverse { "backward" } else { "forward" };
                case.with(&[site], format!("log ratio in a {way} sweep"))
            });
            let accept = rng.bits() & 1 == 0;
            if accept {
                log_psi = new;
            } else {
                current[site] = -current[site];
            }
            accept
        });
        if let Some(e) = fault {
            return Err(e);
        }
        match result {
            Ok(spins) if spins == current => {}
            Ok(_) => report.contradiction(
                case.with(&[], "exact sweep"),
                "the configuration after a sweep is not the one of the accepted moves",
            ),
            Err(e) => report.contradiction(case.with(&[], "exact sweep"), e),
        }
    }
    Ok(())
}
