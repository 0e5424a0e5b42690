//! Times of the CPU back end on the published network, in microseconds.
//!
//! `cargo bench --bench cpu -- [sites ...]`; `DNET_ONLY=flips` (or `log_psi`,
//! `gradient`, `set_params`) repeats one operation for a profiler, with
//! `DNET_REPEAT=5` exactly five times (`benches/instructions.sh`).

use dnet::back::cpu::network::{CpuNetwork, Updates};
use dnet::check::Program;
use dnet::ir::{Boundary, Lattice};
use dnet::pipeline;
use dnet::run::WaveFunction;
use dnet::run::clock::processor_time;
use num_complex::Complex64;
use std::path::Path;
use std::time::Instant;

/// Median over repetitions of the processor time of one call.
fn median_us(mut f: impl FnMut()) -> f64 {
    f();
    let mut times: Vec<f64> = (0..31)
        .map(|_| {
            let start = processor_time();
            f();
            (processor_time() - start).as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let sites: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|a| a.parse().ok())
        .collect();
    let sites = if sites.is_empty() {
        vec![20, 100, 200, 1000]
    } else {
        sites
    };
    let program =
        Program::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/dysonnet.dnet"));
    let info = program
        .network("dysonnet")
        .check()
        .expect("the example is correct");
    for n in sites {
        let lattice = Lattice::chain(n, Boundary::Periodic);
        let start = Instant::now();
        let graph = pipeline::amplitude(&pipeline::graph(&info));
        let count: usize = graph
            .params
            .iter()
            .map(|p| {
                p.ty.shape
                    .iter()
                    .map(|d| match d {
                        dnet::check::core::Dim::Static(n) => *n,
                        dnet::check::core::Dim::Sites { .. } => 0,
                    })
                    .product::<usize>()
            })
            .sum();
        let theta: Vec<f64> = (0..count)
            .map(|k| 0.5 * (k as f64 * 0.7391).sin())
            .collect();
        let mut network = CpuNetwork::<f32>::new(graph, lattice, &theta).expect("compiles");
        let compile = start.elapsed().as_secs_f64() * 1e3;
        let spins: Vec<i8> = (0..n)
            .map(|k| if (k * k + 3 * k) % 7 < 3 { 1 } else { -1 })
            .collect();
        let mut out = [Complex64::ZERO];
        if let Ok(only) = std::env::var("DNET_ONLY") {
            let mut flips = vec![Complex64::ZERO; n];
            network.set_updates(Updates::Abacus);
            let mut call = || match only.as_str() {
                "flips" => network.background(&spins).single_flips(&mut flips),
                "gradient" => network.gradients(&spins, &|_, _, _| {}),
                "set_params" => network.set_params(&theta),
                _ => network.log_psi(&spins, &mut out),
            };
            if let Ok(count) = std::env::var("DNET_REPEAT") {
                // what is prepared at the first call belongs to no call
                call();
                (0..count.parse().unwrap_or(1)).for_each(|_| call());
                continue;
            }
            println!("{only}, N {n}: {:.1} microseconds", median_us(call));
            if let Ok(f) = network.flips()
                && std::env::var_os("DNET_PROFILE").is_some()
            {
                println!("{}", f.changes().program());
            }
            continue;
        }
        let one = median_us(|| network.log_psi(&spins, &mut out));
        let batch: Vec<i8> = spins.iter().copied().cycle().take(64 * n).collect();
        let mut many = vec![Complex64::ZERO; 64];
        let batched = median_us(|| network.log_psi(&batch, &mut many)) / 64.0;
        let gradient = median_us(|| network.gradients(&spins, &|_, _, _| {}));
        let gradients = median_us(|| network.gradients(&batch, &|_, _, _| {})) / 64.0;
        let params = median_us(|| network.set_params(&theta));
        println!(
            "N {n}: compile {compile:.1} ms, set_params {params:.0}, log_psi {one:.1}, in a batch of 64 {batched:.1}, gradient {gradient:.1}, in a batch of 64 {gradients:.1} (processor time)"
        );
        let mut flips = vec![Complex64::ZERO; n];
        let mut background = |updates| {
            network.set_updates(updates);
            network.background(&spins).single_flips(&mut flips);
            median_us(|| network.background(&spins).single_flips(&mut flips)) / n as f64
        };
        let abacus = background(Updates::Abacus);
        let full = if n <= 1000 {
            background(Updates::Full)
        } else {
            f64::NAN
        };
        let automatic = background(Updates::Automatic);
        println!("  per flip: abacus {abacus:.3}, full (wall) {full:.3}, automatic {automatic:.3}");
        match network.flips() {
            Ok(f) => println!(
                "  estimated work per flip: abacus {:.0}, full {:.0}",
                f.work() / n as f64,
                dnet::back::cpu::work::work(network.program())
            ),
            Err(e) => println!("  no flip program: {e}"),
        }
        if std::env::var_os("DNET_PROFILE").is_some() {
            println!("{}", network.program());
            println!("{}", network.gradient_programs()[0]);
        }
    }
}
