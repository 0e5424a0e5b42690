//! Compiled flip programs against full evaluation.

use dnet::back::cpu::compiled::Compiled;
use dnet::back::cpu::flips::{Flips, Place};
use dnet::back::cpu::network::{CpuNetwork, Updates};
use dnet::check::Program;
use dnet::interp::{Tensor, evaluate};
use dnet::ir::{Boundary, Graph, Lattice, lower};
use dnet::pass::flips::{Derived, Family, FlipProgram, NoFlips, common_token};
use dnet::pass::normal_form::NormalForm;
use dnet::run::WaveFunction;
use num_complex::Complex64;
use std::collections::BTreeSet;

#[path = "gen/program.rs"]
mod programs;

#[path = "gen/networks.rs"]
mod networks;

use networks::{Random, error, examples, graphs, params};

/// The interpreter's ratios for all single flips.
fn oracle(
    graph: &Graph,
    lattice: Lattice,
    params: &[Tensor],
    spins: &[i8],
) -> Option<Vec<Complex64>> {
    let log_psi = |s: &[i8]| {
        let e = evaluate(graph, lattice, params, s).ok()?;
        e.log_psi().is_finite().then(|| e.log_psi())
    };
    let old = log_psi(spins)?;
    (0..spins.len())
        .map(|k| {
            let mut s = spins.to_vec();
            s[k] = -s[k];
            Some(log_psi(&s)? - old)
        })
        .collect()
}

/// Compares all single flips of one network on one lattice; whether it has a
/// flip program there.
fn compare(name: &str, graph: &Graph, lattice: Lattice, random: &mut Random) -> Option<bool> {
    let tensors = params(graph, lattice, random)?;
    let spins = random.spins(lattice.sites());
    let want = oracle(graph, lattice, &tensors, &spins)?;
    let theta: Vec<f64> = tensors
        .iter()
        .flat_map(|t| t.data.iter().copied())
        .collect();
    let mut got = vec![Complex64::ZERO; want.len()];
    // other parameters first: the program must follow them
    let zero = vec![0.25; theta.len()];
    let mut double = CpuNetwork::<f64>::new(graph.clone(), lattice, &zero).ok()?;
    double.set_updates(Updates::Abacus);
    let has_program = double.flips().is_ok();
    if let Err(e) = double.flips() {
        println!("{name} on {lattice:?}: {e}");
    }
    double.set_params(&theta);
    double.background(&spins).single_flips(&mut got);
    for (site, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!(
            error(*g, *w) <= 1e-11 * w.norm().max(1.0),
            "{name} f64 on {lattice:?}, flip {site}: {g} instead of {w}"
        );
    }
    if has_program {
        let mut single = CpuNetwork::<f32>::new(graph.clone(), lattice, &theta).ok()?;
        single.set_updates(Updates::Abacus);
        single.background(&spins).single_flips(&mut got);
        let worst = got
            .iter()
            .zip(&want)
            .map(|(g, w)| error(*g, *w))
            .fold(0.0, f64::max);
        assert!(worst <= 2e-5, "{name} f32 on {lattice:?}: off by {worst:e}");
    }
    Some(has_program)
}

#[test]
fn single_flips_of_chains() {
    let mut random = Random(3);
    let mut programs = BTreeSet::new();
    for file in examples() {
        for (name, graph) in graphs(&file) {
            for boundary in [Boundary::Periodic, Boundary::Open] {
                // windows that wrap, odd and even numbers of tokens
                for n in [8, 26, 40] {
                    let lattice = Lattice::chain(n, boundary);
                    if compare(&name, &graph, lattice, &mut random) == Some(true) {
                        programs.insert((name.clone(), boundary == Boundary::Open));
                    }
                }
            }
        }
    }
    for name in [
        "dysonnet",
        "dysonnet_complex",
        "dysonnet_power_law",
        "cnn",
        "resnet",
        "experts",
        "marshall",
        "matrix_vertex",
        "jastrow",
        "graph",
    ] {
        for open in [false, true] {
            let key = (name.to_owned(), open);
            assert!(programs.contains(&key), "{key:?} has no flip program");
        }
    }
    assert!(programs.contains(&("dysonnet_fourier".to_owned(), false)));
}

#[test]
fn single_flips_of_squares() {
    let mut random = Random(5);
    let mut programs = 0;
    for file in examples().iter().filter(|f| f.ends_with("dysonnet2d.dnet")) {
        for (name, graph) in graphs(file) {
            for boundary in [Boundary::Periodic, Boundary::Open] {
                for extent in [[4, 6], [14, 16]] {
                    let lattice = Lattice { extent, boundary };
                    programs +=
                        usize::from(compare(&name, &graph, lattice, &mut random) == Some(true));
                }
            }
        }
    }
    assert_eq!(programs, 2, "of the larger square, for both boundaries");
}

/// Spin offsets of clusters: pairs near and far, three spins, a plaquette.
const SHAPES: [&[[usize; 2]]; 5] = [
    &[[0, 0], [1, 0]],
    &[[0, 0], [2, 0]],
    &[[0, 0], [7, 0]],
    &[[0, 0], [3, 0], [4, 0]],
    &[[0, 0], [0, 1], [1, 0], [1, 1]],
];

/// Clusters of the same shape all over a lattice, some of them wrapping.
fn placed(shape: &[[usize; 2]], lattice: Lattice, random: &mut Random) -> Vec<Vec<usize>> {
    let [nx, ny] = lattice.extent;
    let mut clusters = Vec::new();
    for _ in 0..6 {
        let at = [nx, ny].map(|n| (random.uniform() * n as f64) as usize);
        let open = lattice.boundary == Boundary::Open;
        let spins: Vec<[usize; 2]> = (shape.iter())
            .map(|o| [at[0] + o[0], at[1] + o[1]])
            .filter(|s| !open || (s[0] < nx && s[1] < ny))
            .collect();
        if spins.len() == shape.len() && shape.iter().all(|o| o[0] < nx && o[1] < ny) {
            clusters.push(spins.iter().map(|s| s[0] % nx * ny + s[1] % ny).collect());
        }
    }
    clusters
}

/// Compares clusters of several spins computed by their programs with full
/// evaluation; the number of shapes that have one.
fn compare_clusters(name: &str, graph: &Graph, lattice: Lattice, random: &mut Random) -> usize {
    let Some(tensors) = params(graph, lattice, random) else {
        return 0;
    };
    let theta: Vec<f64> = tensors
        .iter()
        .flat_map(|t| t.data.iter().copied())
        .collect();
    let spins = random.spins(lattice.sites());
    let log_psi = |flips: &[usize]| {
        let mut s = spins.to_vec();
        flips.iter().for_each(|&f| s[f] = -s[f]);
        evaluate(graph, lattice, &tensors, &s)
            .ok()
            .map(|e| e.log_psi())
    };
    let Some(old) = log_psi(&[]).filter(|z| z.is_finite()) else {
        return 0;
    };
    let Ok(double) = Compiled::<f64>::new(graph.clone(), lattice, &theta, false) else {
        return 0;
    };
    let single = Compiled::<f32>::new(graph.clone(), lattice, &theta, false).expect("as f64");
    let mut programs = 0;
    for shape in SHAPES {
        let clusters = placed(shape, lattice, random);
        let Some((family, _)) = clusters.first().and_then(|c| Family::of(lattice, c)) else {
            continue;
        };
        let families = [Family::single(), family.clone()];
        let Ok(exact) = Flips::new(&double, &families) else {
            continue;
        };
        programs += 1;
        let rounded = Flips::new(&single, &families).expect("as f64");
        let places: Vec<Place> = clusters
            .iter()
            .map(|c| {
                let (same, corner) = Family::of(lattice, c).expect("a small cluster");
                assert_eq!(same, family, "translates are one family");
                Place { family: 1, corner }
            })
            .collect();
        let mut got = vec![Complex64::ZERO; places.len()];
        exact.ratios(&exact.run(&spins), &places, &mut got);
        let mut got32 = vec![Complex64::ZERO; places.len()];
        rounded.ratios(&rounded.run(&spins), &places, &mut got32);
        for ((cluster, got), got32) in clusters.iter().zip(got).zip(got32) {
            let want = log_psi(cluster).expect("evaluates") - old;
            assert!(
                error(got, want) <= 1e-11 * want.norm().max(1.0),
                "{name} f64 on {lattice:?}, {cluster:?}: {got} instead of {want}"
            );
            assert!(
                error(got32, want) <= 2e-5,
                "{name} f32 on {lattice:?}, {cluster:?}: {got32} instead of {want}"
            );
        }
    }
    programs
}

#[test]
fn clusters_of_chains() {
    let mut random = Random(29);
    let mut programs = 0;
    for file in examples() {
        for (name, graph) in graphs(&file) {
            // a program of its own for every shape takes time to compile
            let boundary = if random.uniform() < 0.5 {
                Boundary::Periodic
            } else {
                Boundary::Open
            };
            let lattice = Lattice::chain(52, boundary);
            programs += compare_clusters(&name, &graph, lattice, &mut random);
        }
    }
    assert!(programs >= 4 * 9, "{programs} programs");
}

#[test]
fn clusters_of_squares() {
    let mut random = Random(31);
    for file in examples().iter().filter(|f| f.ends_with("dysonnet2d.dnet")) {
        for (name, graph) in graphs(file) {
            for boundary in [Boundary::Periodic, Boundary::Open] {
                let lattice = Lattice {
                    extent: [24, 16],
                    boundary,
                };
                let programs = compare_clusters(&name, &graph, lattice, &mut random);
                assert_eq!(programs, SHAPES.len(), "on {lattice:?}");
            }
        }
    }
}

/// Real and complex channels, kernels of displacements and of pairs follow each other.
#[test]
fn mixed_channels() {
    let mut random = Random(47);
    let states = |mixer: &str| match mixer {
        "toeplitz" | "all_pairs" | "complex_pairs" => "",
        "positional_attention" => ", 2",
        _ => ", 3",
    };
    let network = |first: &str, second: &str| {
        format!(
            "use std::nn::{{dense, actnorm, dwconv, silu, mean, log_cosh_head}}\n\
             use std::mixers::{{s4, toeplitz, exponential, lru, all_pairs, positional_attention}}\n\
             mixer complex_pairs(x) : dense {{\n\
               param kernel: complex[dim(x)] per pair of x = 0.05 * random_normal\n\
               return re(mix(x * (1 + 0.5i), kernel)) + im(mix(x, kernel))\n}}\n\
             network mixed() on chain {{\n\
               let t = patch(spins, 2) |> dense(4) as embedding\n\
               param scale: real[4] per site of t = 0.1 * random_normal\n\
               let gate = silu(dwconv(t, 2)) / exp(scale)\n\
               var h = t\n\
               h += gate * {first}(actnorm(h) as norm_1{})\n\
               h += gate * {second}(actnorm(h) as norm_2{})\n\
               log_psi = mean(h) |> log_cosh_head(2)\n}}\n",
            states(first),
            states(second),
        )
    };
    for [first, second] in [
        ["s4", "toeplitz"],
        ["toeplitz", "s4"],
        ["exponential", "lru"],
        ["lru", "exponential"],
        ["all_pairs", "all_pairs"],
        ["s4", "positional_attention"],
        ["positional_attention", "toeplitz"],
        ["complex_pairs", "lru"],
        ["all_pairs", "complex_pairs"],
        ["complex_pairs", "complex_pairs"],
    ] {
        let text = network(first, second);
        let program = Program::parse("mixed.dnet", &text);
        let info = program.only_network().check();
        let graph = lower(&info.unwrap_or_else(|e| panic!("{e}\n{text}"))).graph;
        for boundary in [Boundary::Periodic, Boundary::Open] {
            let lattice = Lattice::chain(26, boundary);
            let name = format!("{first}, then {second}");
            let has = compare(&name, &graph, lattice, &mut random);
            assert_eq!(has, Some(true), "{name} on {lattice:?}");
        }
    }
}

/// Networks in which mixers follow each other without a gate.
#[test]
fn mixers_in_a_row() {
    let mut random = Random(61);
    let network = |mixers: [&str; 3], join: &str| {
        let [first, second, third] = mixers;
        // what has parameters is given a name
        let [one, two, three, four, five] =
            [(0, 1), (1, 2), (2, 3), (2, 4), (1, 5)].map(|(m, label)| match mixers[m] {
                "hops" => String::new(),
                _ => format!(" as mixer_{label}"),
            });
        format!(
            "use std::nn::{{dense, actnorm, dwconv, silu, mean, log_cosh_head}}\n\
             use std::mixers::{{s4, toeplitz, exponential, lru, all_pairs, positional_attention}}\n\
             mixer hops(x) : dense {{\n\
               let (i, j) = pair_index(x)\n\
               let near = exp(-abs(i - j)) + 0.1 * i\n\
               return mix(mix(x, near) / row_sum(near), near) / row_sum(near)\n}}\n\
             mixer complex_pairs(x) : dense {{\n\
               param kernel: complex[dim(x)] per pair of x = 0.05 * random_normal\n\
               return re(mix(x * (1 + 0.5i), kernel)) + im(mix(x, kernel))\n}}\n\
             network row() on chain {{\n\
               let t = patch(spins, 2) |> dense(4) as embedding\n\
               param scale: real[4] per site of t = 0.1 * random_normal\n\
               let gate = silu(dwconv(t, 2))\n\
               let a = {first}(t){one}\n\
               let b = {second}({join}){two}\n\
               let h = b + gate * a + {third}(0.5 * a + gate * b + t){three}\n\
               let last = {second}({third}(h){four}){five}\n\
               log_psi = mean(gate * last + h) |> log_cosh_head(2)\n}}\n",
        )
    };
    let joins = ["a", "a * scale + t", "dense(a, 4, bias: false)", "0.3 * a"];
    let rows = [
        ["hops", "all_pairs", "hops"],
        ["hops", "hops", "hops"],
        ["toeplitz", "exponential", "toeplitz"],
        ["s4", "s4", "s4"],
        ["complex_pairs", "s4", "all_pairs"],
        ["positional_attention", "s4", "toeplitz"],
    ];
    for (k, mixers) in rows.into_iter().enumerate() {
        let text = network(mixers, joins[k % joins.len()]);
        let program = Program::parse("row.dnet", &text);
        let info = program.only_network().check();
        let graph = lower(&info.unwrap_or_else(|e| panic!("{e}\n{text}"))).graph;
        for boundary in [Boundary::Periodic, Boundary::Open] {
            let lattice = Lattice::chain(22, boundary);
            let name = format!("{mixers:?}");
            let has = compare(&name, &graph, lattice, &mut random);
            assert_eq!(has, Some(true), "{name} on {lattice:?}\n{text}");
        }
    }
}

/// Programs nobody wrote: every change by its program is what full evaluation
/// says, and refusals are refusals.
#[test]
fn random_programs() {
    let options = programs::Options {
        max_depth: 2,
        max_token: 3,
        max_kernel: 3,
        ..programs::Options::default()
    };
    compare_programs(options, 10);
}

/// The same where mixers follow each other without a gate.
#[test]
fn random_rows_of_mixers() {
    let options = programs::Options {
        max_depth: 2,
        max_token: 2,
        max_kernel: 2,
        rows: true,
        ..programs::Options::default()
    };
    compare_programs(options, 12);
}

/// Compares so many random programs that have a flip program; with rows of mixers, those
/// that need paths.
fn compare_programs(options: programs::Options, wanted: usize) {
    let mut random = Random(53);
    let (mut derived, mut refused) = (0, BTreeSet::new());
    for seed in 0..200 {
        if derived == wanted {
            break;
        }
        let program = programs::with_options(seed, options);
        let source = Program::parse("generated.dnet", &program.text);
        let info = source.only_network().check();
        let graph = lower(&info.unwrap_or_else(|e| panic!("{e}\n{}", program.text))).graph;
        let open = program.open_possible && seed % 2 == 0;
        let tokens = if program.square { [7, 6] } else { [15, 1] };
        let lattice = Lattice {
            extent: [0, 1].map(|a| tokens[a] * program.token[a]),
            boundary: if open {
                Boundary::Open
            } else {
                Boundary::Periodic
            },
        };
        let Some(tensors) = params(&graph, lattice, &mut random) else {
            continue;
        };
        let theta: Vec<f64> = tensors.iter().flat_map(|t| t.data.clone()).collect();
        let Ok(network) = Compiled::<f64>::new(graph.clone(), lattice, &theta, false) else {
            continue;
        };
        let pair = if program.square {
            [0, lattice.extent[1] + 1]
        } else {
            [0, 2]
        };
        let (family, _) = Family::of(lattice, &pair).expect("a pair");
        if options.rows && !has_paths(&graph, lattice) {
            continue;
        }
        let flips_of = match Flips::new(&network, &[Family::single(), family]) {
            Ok(flips) => flips,
            Err(e) => {
                refused.insert(e.to_string());
                continue;
            }
        };
        derived += 1;
        let spins = random.spins(lattice.sites());
        let log_psi = |flips: &[usize]| {
            let mut s = spins.clone();
            flips.iter().for_each(|&f| s[f] = -s[f]);
            let e = evaluate(&graph, lattice, &tensors, &s).expect("evaluates");
            e.log_psi()
        };
        let old = log_psi(&[]);
        let changes = flips_of.run(&spins);
        for _ in 0..12 {
            let at = (random.uniform() * spins.len() as f64) as usize;
            let mut flips = vec![at];
            let second = at + pair[1];
            // the second spin of a pair that does not leave the lattice
            let column = at % lattice.extent[1] + pair[1] % lattice.extent[1];
            if second < spins.len() && column < lattice.extent[1] && random.uniform() < 0.5 {
                flips.push(second);
            }
            let place = Place {
                family: flips.len() - 1,
                corner: at,
            };
            let mut got = [Complex64::ZERO];
            flips_of.ratios(&changes, &[place], &mut got);
            let want = log_psi(&flips) - old;
            assert!(
                error(got[0], want) <= 1e-10 * old.norm().max(1.0),
                "seed {seed} on {lattice:?}, {flips:?}: {} instead of {want}\n{}",
                got[0],
                program.text
            );
        }
    }
    refused.iter().for_each(|r| println!("{r}"));
    assert_eq!(derived, wanted, "refused: {refused:?}");
}

/// Whether links of a network run through mixers in a row, as far as they are known.
fn has_paths(graph: &Graph, lattice: Lattice) -> bool {
    let Ok(form) = NormalForm::new(graph) else {
        return false;
    };
    let program = common_token(graph, &form)
        .and_then(|token| FlipProgram::new(graph, lattice, &Family::single().shapes(token)));
    let path = |d: &Derived| matches!(d, Derived::Path { .. } | Derived::Joined { .. });
    program.map_or(true, |p| p.derived.iter().any(path))
}

/// A recurrence whose decay is 1 has no solution on a ring: the old parameters
/// stay in force in every program.
#[test]
fn rejected_parameters_leave_all_programs() {
    let text = "use std::nn::{dense, silu, mean, log_cosh_head}\n\
        mixer memory(x): state_space {\n\
          param decay: real[1, dim(x)] = 0.9 * random_uniform\n\
          param weight: real[1, dim(x)] = random_normal // of the memory\n\
          return scan(x, decay: decay, input: weight, output: weight)\n}\n\
        network ring() on chain {\n\
          let t = patch(spins, 1) |> dense(2) as embedding\n\
          let h = silu(t) * memory(t)\n\
          log_psi = mean(h) |> log_cosh_head(2)\n}\n";
    let program = Program::parse("ring.dnet", text);
    let info = program.only_network().check();
    let graph = lower(&info.unwrap_or_else(|e| panic!("{e}"))).graph;
    let lattice = Lattice::chain(16, Boundary::Periodic);
    let mut random = Random(59);
    let tensors = params(&graph, lattice, &mut random).expect("a chain");
    let theta: Vec<f64> = tensors.iter().flat_map(|t| t.data.clone()).collect();
    let mut network = CpuNetwork::<f64>::new(graph, lattice, &theta).expect("compiles");
    network.set_updates(Updates::Abacus);
    let spins = random.spins(16);
    // singles and pairs, each by their program
    let (sites, ends) = ([3, 5, 6, 9], [1, 3, 4]);
    let ratios = |network: &CpuNetwork<f64>| {
        let mut out = [Complex64::ZERO; 3];
        let mut background = network.background(&spins);
        background.log_ratios(&sites, &ends, &mut out);
        let mut all = vec![Complex64::ZERO; 16];
        background.single_flips(&mut all);
        all.extend(out);
        all.push(background.log_psi());
        all
    };
    let before = ratios(&network);
    assert!(network.try_set_params(&vec![1.0; theta.len()]).is_err());
    assert_eq!(ratios(&network), before);
    let moved: Vec<f64> = theta.iter().map(|x| 0.5 * x).collect();
    network.try_set_params(&moved).expect("a decay below 1");
    let after = ratios(&network);
    assert!(before.iter().zip(&after).all(|(a, b)| a != b));
}

/// Links of displacements grow with the lattice, those of pairs with its square.
#[test]
fn only_links_on_pairs_are_bounded_in_size() {
    let program = |name: &str, sites: usize| {
        let file = examples().into_iter().find(|f| f.ends_with(name));
        let (_, graph) = graphs(&file.expect("the example")).remove(0);
        let form = NormalForm::new(&graph).expect("a normal form");
        let token = common_token(&graph, &form).expect("one token");
        let lattice = Lattice::chain(sites, Boundary::Periodic);
        FlipProgram::new(&graph, lattice, &Family::single().shapes(token)).map(|_| ())
    };
    assert_eq!(program("dysonnet.dnet", 1_000_000), Ok(()));
    assert_eq!(program("positional.dnet", 1000), Ok(()));
    let refused = program("positional.dnet", 20_000).expect_err("too large");
    assert!(refused.to_string().contains("numbers"), "{refused}");
}

#[test]
fn windows_that_cover_the_ring_are_refused() {
    let file = examples()
        .into_iter()
        .find(|f| f.ends_with("dysonnet.dnet"))
        .expect("the example");
    let (_, graph) = graphs(&file).swap_remove(0);
    let shapes = [vec![[0, 0]], vec![[1, 0]]];
    let new = |n| {
        let lattice = Lattice::chain(n, Boundary::Periodic);
        dnet::pass::flips::FlipProgram::new(&graph, lattice, &shapes)
    };
    assert!(matches!(new(8), Err(NoFlips::Covers { extent: 4, .. })));
    assert_eq!(new(40).expect("room enough").changes.len(), 2);
}

#[test]
fn flips_and_clusters_of_a_changing_background() {
    let mut random = Random(13);
    let file = examples()
        .into_iter()
        .find(|f| f.ends_with("dysonnet.dnet"))
        .expect("the example");
    let (_, graph) = graphs(&file).swap_remove(0);
    let lattice = Lattice::chain(30, Boundary::Periodic);
    let tensors = params(&graph, lattice, &mut random).expect("a chain");
    let theta: Vec<f64> = tensors
        .iter()
        .flat_map(|t| t.data.iter().copied())
        .collect();
    let log_psi = |s: &[i8], flips: &[usize]| {
        let mut s = s.to_vec();
        flips.iter().for_each(|&f| s[f] = -s[f]);
        let e = evaluate(&graph, lattice, &tensors, &s);
        e.expect("evaluates").log_psi()
    };
    for updates in [Updates::Automatic, Updates::Abacus, Updates::Full] {
        let mut network = CpuNetwork::<f64>::new(graph.clone(), lattice, &theta).expect("compiles");
        network.set_updates(updates);
        let mut spins = random.spins(30);
        let mut background = network.background(&spins);
        for accepted in [vec![3], vec![0, 29], vec![2, 11, 12]] {
            let clusters: [&[usize]; 4] = [&[7], &[1, 2], &[29], &[0, 10, 20]];
            let sites: Vec<usize> = clusters.concat();
            let ends = [1, 3, 4, 7];
            let mut got = [Complex64::ZERO; 4];
            background.log_ratios(&sites, &ends, &mut got);
            for (cluster, got) in clusters.iter().zip(got) {
                let want = log_psi(&spins, cluster) - log_psi(&spins, &[]);
                assert!(error(got, want) < 1e-11, "{updates:?} {cluster:?}");
                let alone = background.log_ratio(cluster);
                assert!(error(alone, want) < 1e-11, "{updates:?} {cluster:?} alone");
            }
            background.accept(&accepted);
            accepted.iter().for_each(|&f| spins[f] = -spins[f]);
            assert!(error(background.log_psi(), log_psi(&spins, &[])) < 1e-11);
        }
    }
}
