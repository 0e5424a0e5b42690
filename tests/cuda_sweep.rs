//! The exact sweep by environments on a device, compiled for the host, against the
//! sweep on the CPU with the same random numbers.
//!
//! `DNET_SKIP_NVRTC=1` leaves out what needs NVIDIA's compiler.

mod abacus_nets;
#[path = "gen/nvrtc.rs"]
mod compiler;
#[path = "networks/mod.rs"]
mod networks;
#[path = "cuda_shim/mod.rs"]
mod shim;

use abacus_nets::{Mix, Net, Plan, Rng};
use dnet::back::cpu::network::{CpuNetwork, Updates};
use dnet::back::cpu::simd::Real;
use dnet::back::cuda::code::Source;
use dnet::back::cuda::device::{Device, DeviceError, Module, Span, Stream as Queue};
use dnet::back::cuda::emit::{Kernel, Options};
use dnet::back::cuda::environment::{self, NoSweep, SweepSource};
use dnet::back::cuda::network::CudaNetwork;
use dnet::back::cuda::nvrtc::{Architecture, Form};
use dnet::back::cuda::translation_unit;
use dnet::check::Program;
use dnet::check::core::NetworkInfo;
use dnet::ir::{Boundary, Graph, Lattice};
use dnet::params::Params;
use dnet::pipeline;
use dnet::rng::{ChainRng, Stream};
use dnet::run::network::Precision;
use dnet::run::walk::{Proposals, Walk};
use dnet::run::{Task, WaveFunction};
use dnet::vmc::sampler::{Acceptance, Method, Sampler, SamplerOptions, Target};
use num_complex::Complex64;
use rayon::prelude::*;
use shim::{Order, ShimDevice};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

const BOUNDARIES: [Boundary; 2] = [Boundary::Open, Boundary::Periodic];

/// Room for all segments.
const AMPLE: usize = 1 << 26;

/// A network on a lattice with parameters of order one.
struct Case {
    name: String,
    graph: Graph,
    lattice: Lattice,
    theta: Vec<f64>,
}

impl Case {
    fn built(plan: &Plan, seed: u64, tokens: usize, boundary: Boundary) -> Case {
        let lattice = Lattice::chain(tokens * plan.token[0], boundary);
        let net = Net::build(lattice, plan, seed ^ 0x55);
        Case {
            name: format!("{plan:?}, {tokens} tokens, {boundary:?}, seed {seed}"),
            graph: net.graph,
            lattice,
            theta: net.params.iter().flat_map(|t| t.data.clone()).collect(),
        }
    }

    fn random(depth: usize, seed: u64, tokens: usize, boundary: Boundary) -> Case {
        let plan = Plan::of_recurrences(depth, &mut Rng(seed));
        Case::built(&plan, seed, tokens, boundary)
    }

    /// A network of the examples, made small or as published.
    fn example(name: &str, spins: usize, boundary: Boundary, small: bool) -> Case {
        let all = networks::examples();
        let some = |program| match small {
            true => networks::small_networks(program),
            false => networks::networks(program),
        };
        let found = all.iter().flat_map(|(_, program)| some(program));
        let info = found.into_iter().find(|info| info.name == name);
        let info = info.unwrap_or_else(|| panic!("no network {name}"));
        Case::checked(&info, spins, boundary)
    }

    /// The published network with channels of so many complex states.
    fn with_states(states: i64, spins: usize, boundary: Boundary) -> Case {
        let program = Program::load(&networks::path("dysonnet.dnet"));
        let request = program.network("dysonnet");
        let request = request.with("dim", 4).with("states", states);
        let info = request.check().unwrap_or_else(|e| panic!("{e}"));
        Case::checked(&info, spins, boundary)
    }

    fn checked(info: &NetworkInfo, spins: usize, boundary: Boundary) -> Case {
        let name = &info.name;
        let graph = pipeline::amplitude(&pipeline::graph(info));
        let lattice = Lattice::chain(spins, boundary);
        let count = Params::zeros(&graph, lattice).expect("exists here").count();
        let mut rng = ChainRng::new(7, 0, 0, Stream::Parameters);
        Case {
            name: format!("{name} on {spins} spins, {boundary:?}"),
            graph,
            lattice,
            theta: (0..count).map(|_| rng.uniform() - 0.5).collect(),
        }
    }

    fn compiled<T: Real>(&self) -> CpuNetwork<T> {
        let graph = self.graph.clone();
        let mut network = CpuNetwork::new(graph, self.lattice, &self.theta)
            .unwrap_or_else(|e| panic!("{}: {e}", self.name));
        network.set_updates(Updates::Abacus);
        network
    }

    /// On two blocks.
    fn on_device(&self, precision: Precision, order: Order, budget: usize) -> CudaNetwork {
        self.on_device_with(&Options::new(precision), order, budget)
    }

    fn on_device_with(&self, options: &Options, order: Order, budget: usize) -> CudaNetwork {
        let device: Arc<dyn Device> = Arc::new(ShimDevice::new(order, 2, budget));
        let mut network = CudaNetwork::new(device, &self.graph, self.lattice, &self.theta, options)
            .unwrap_or_else(|e| panic!("{}: {e}", self.name));
        network.set_updates(Updates::Abacus);
        if let Err(e) = network.sweeper() {
            panic!("{}: {e}", self.name);
        }
        network
    }

    /// The same sweeps, and global moves if asked for, on both: proposals, and those
    /// accepted.
    fn compare(
        &self,
        cpu: &dyn WaveFunction,
        device: &CudaNetwork,
        options: &SamplerOptions,
    ) -> [u64; 2] {
        // a device that fails leaves chains to the host
        let mut spins = vec![1; self.lattice.sites()];
        if let Err(e) = device.try_walk(&mut spins, &walk(options.seed)) {
            panic!("{}: {e}", self.name);
        }
        let [want, got] = [cpu, device].map(|psi| {
            let mut sampler = Sampler::new(options.clone(), self.lattice.sites()).unwrap();
            let before = sampler.advance(Target::new(psi), 1);
            let (samples, report) = sampler.sample(Target::new(psi), 2);
            (samples, sampler.state().clone(), before, report)
        });
        assert_eq!(want, got, "{}", self.name);
        let report = &want.3;
        assert_eq!(report.sweeps_without_environments, 0, "{}", self.name);
        assert_eq!(report.not_a_number, 0, "{}", self.name);
        [report.proposed, report.accepted]
    }

    /// Ratios of one sweep on the device, over those of the network evaluated in full
    /// in f64 along the same decisions: the largest error, relative to
    /// max(1, |log ratio|).
    fn error_of_ratios(&self, device: &CudaNetwork, seed: u64) -> f64 {
        let exact = self.compiled::<f64>();
        let sites = self.lattice.sites();
        let mut rng = Rng(seed);
        let mut spins: Vec<i8> = (0..2).flat_map(|_| rng.spins(sites)).collect();
        let before = spins.clone();
        let mut walk = walk(seed);
        let mut worst = 0.0_f64;
        for step in 0..2 {
            let before = if step == 0 {
                before.clone()
            } else {
                spins.clone()
            };
            walk.step = step;
            let (_, ratios) = device
                .sweep_with_ratios(&mut spins, &walk)
                .unwrap_or_else(|e| panic!("{}: {e}", self.name));
            for chain in 0..2 {
                let mut current = before[chain * sites..][..sites].to_vec();
                let (own, after) = (&ratios[chain * sites..], &spins[chain * sites..]);
                for k in 0..sites {
                    let site = if step == 1 { sites - 1 - k } else { k };
                    let mut both = current.repeat(2);
                    both[sites + site] = -both[sites + site];
                    let mut z = [Complex64::ZERO; 2];
                    exact.log_psi(&both, &mut z);
                    let want = (z[1] - z[0]).re;
                    let error = (own[site] - want).abs() / want.abs().max(1.0);
                    worst = worst.max(if error.is_nan() { f64::INFINITY } else { error });
                    current[site] = after[site];
                }
            }
        }
        worst
    }
}

fn walk<'a>(seed: u64) -> Walk<'a> {
    Walk {
        seed,
        first: 0,
        step: 0,
        sweeps: 1,
        proposals: Proposals::Sequential,
        heat_bath: true,
        inversion_every: 0,
        uniform_every: 0,
        magnetization: None,
    }
}

fn options(seed: u64) -> SamplerOptions {
    SamplerOptions {
        method: Method::Sweep,
        acceptance: [Acceptance::HeatBath, Acceptance::Metropolis][seed as usize % 2],
        chains: 3,
        seed,
        ..SamplerOptions::default()
    }
}

fn order(k: usize) -> Order {
    [Order::Forward, Order::Backward, Order::Random(k as i32)][k % 3]
}

/// Some proposals were accepted and some refused.
fn decides(totals: &[[u64; 2]]) {
    let [proposed, accepted] = [0, 1].map(|k| totals.iter().map(|t| t[k]).sum::<u64>());
    assert!(0 < accepted && accepted < proposed, "{totals:?}");
}

#[test]
fn sweeps_of_random_networks_make_the_decisions_of_the_cpu() {
    let cases: Vec<Case> = (0..8)
        .map(|k| {
            let (depth, tokens) = (k / 2 + 1, [3, 23, 9, 34][(k / 2 + k) % 4]);
            Case::random(depth, k as u64 + 1, tokens, BOUNDARIES[k % 2])
        })
        .collect();
    let totals: Vec<[u64; 2]> = (cases.par_iter().enumerate())
        .map(|(k, case)| {
            let device = case.on_device(Precision::F64, order(k), AMPLE);
            case.compare(&case.compiled::<f64>(), &device, &options(k as u64))
        })
        .collect();
    decides(&totals);
}

#[test]
fn sweeps_of_examples_follow_parameters_and_make_global_moves() {
    use Boundary::{Open, Periodic};
    let cases = [
        // so little memory that segments are built again: one in three, or so, is kept
        (Case::example("dysonnet", 150, Periodic, true), 1 << 19),
        (Case::example("dysonnet_complex", 60, Open, true), AMPLE),
        (Case::example("recurrent_mixers", 44, Periodic, true), AMPLE),
    ];
    let totals: Vec<[u64; 2]> = (cases.par_iter().enumerate())
        .map(|(k, (case, budget))| {
            let mut device = case.on_device(Precision::F64, order(k + 1), *budget);
            let mut cpu = case.compiled::<f64>();
            let options = SamplerOptions {
                inversion_every: 2,
                uniform_every: 3,
                sweeps_per_sample: 2,
                ..options(k as u64)
            };
            let before = case.compare(&cpu, &device, &options);
            let other: Vec<f64> = case.theta.iter().map(|x| 0.7 * x).collect();
            cpu.set_params(&other);
            device.try_set_params(&other).expect("a network");
            let after = case.compare(&cpu, &device, &options);
            [before[0] + after[0], before[1] + after[1]]
        })
        .collect();
    decides(&totals);
}

#[test]
fn segments_grow_by_blocks_of_any_width() {
    // shared memory for: a part of a channel of 12 states, one channel, no block at all
    let cases = [
        (37 << 9, Boundary::Periodic),
        (48 << 9, Boundary::Periodic),
        (16 << 9, Boundary::Open),
    ];
    let totals: Vec<[u64; 2]> = (cases.par_iter().enumerate())
        .map(|(k, &(shared, boundary))| {
            let case = Case::with_states(6, 46, boundary);
            let options_here = Options {
                shared,
                ..Options::new(Precision::F64)
            };
            let device = case.on_device_with(&options_here, order(k), AMPLE);
            case.compare(&case.compiled::<f64>(), &device, &options(k as u64))
        })
        .collect();
    decides(&totals);
}

#[test]
fn coefficients_of_wide_windows_are_evaluated_on_the_device() {
    // too many spins for tables: emitted code, on a ring and at the ends of a chain
    let totals: Vec<[u64; 2]> = (BOUNDARIES.par_iter().enumerate())
        .map(|(k, &boundary)| {
            let mixers = [Mix::ScanComplex, Mix::ScanReal];
            let case = Case::built(&Plan::dysonnet(3, (-3, 2), &mixers), 5, 33, boundary);
            let device = case.on_device(Precision::F64, order(k + 2), AMPLE);
            case.compare(&case.compiled::<f64>(), &device, &options(k as u64))
        })
        .collect();
    decides(&totals);
}

#[test]
fn ratios_of_sweeps_are_exact() {
    let cases = [
        (Case::random(3, 21, 21, Boundary::Periodic), Precision::F64),
        (Case::random(4, 22, 19, Boundary::Open), Precision::F64),
        (
            Case::example("dysonnet", 48, Boundary::Periodic, true),
            Precision::F32,
        ),
        (
            Case::example("deep", 48, Boundary::Open, true),
            Precision::F32,
        ),
    ];
    cases
        .par_iter()
        .enumerate()
        .for_each(|(k, (case, precision))| {
            let device = case.on_device(*precision, order(k), AMPLE);
            let error = case.error_of_ratios(&device, k as u64 + 3);
            // f32: a few roundings of sums over the chain, and states reduced to 5e-7
            let most = match precision {
                Precision::F64 => 1e-11,
                Precision::F32 => 2e-5,
            };
            assert!(error < most, "{}: {error:e}", case.name);
        });
}

#[test]
fn networks_without_environments_are_evaluated_in_full() {
    let network = |case: &Case| {
        let device: Arc<dyn Device> = Arc::new(ShimDevice::new(Order::Forward, 2, AMPLE));
        let options = Options::new(Precision::F64);
        CudaNetwork::new(device, &case.graph, case.lattice, &case.theta, &options)
            .unwrap_or_else(|e| panic!("{}: {e}", case.name))
    };
    let case = Case::example("rbm", 8, Boundary::Periodic, true);
    let mut psi = network(&case);
    psi.set_updates(Updates::Abacus);
    assert!(matches!(psi.sweeper(), Err(NoSweep::Refused(_))));
    assert!(psi.why_in_full(Task::Sweep).is_some());
    let mut spins = vec![1; 8];
    let tally = psi.try_walk(&mut spins, &walk(1)).expect("chains");
    assert_eq!((tally.proposed, tally.by_environments), (8, 0));
    // on short chains they do not pay
    let case = Case::example("dysonnet", 26, Boundary::Periodic, false);
    let psi = network(&case);
    assert!(matches!(psi.sweeper(), Err(NoSweep::Dear { .. })));
}

/// The published network's kernel, on a ring with tables or an open chain.
fn published(boundary: Boundary, precision: Precision) -> SweepSource {
    let case = Case::example("dysonnet", 100, boundary, false);
    let options = Options::new(precision);
    let graph = case.graph.clone();
    let full = Source::new("log_psi", graph, case.lattice, &[], &[], &options);
    let full = full.expect("a kernel");
    SweepSource::new(&full, &case.theta, &options).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn segments_are_kept_as_far_as_memory_goes() {
    let case = Case::example("dysonnet", 1600, Boundary::Open, false);
    let options = Options::new(Precision::F32);
    let graph = case.graph.clone();
    let full = Source::new("log_psi", graph, case.lattice, &[], &[], &options);
    let full = full.expect("a kernel");
    let source = SweepSource::new(&full, &case.theta, &options).unwrap_or_else(|e| panic!("{e}"));
    let bytes = |limit: usize| source.bytes(limit).unwrap_or_else(|e| panic!("{e}"));
    let (all, least) = (bytes(usize::MAX), bytes(0));
    // behind 50 blocks of 16 tokens: all of them, or 7 and those of a group of 8
    assert!(2 * least < all, "{least} of {all} bytes");
    let some = bytes((all + least) / 2);
    assert!(least < some && some <= (all + least) / 2);
    // environments are cheaper than 800 tokens
    assert!(source.work() < 1e6, "{}", source.work());
}

/// Multiply-adds of the library's products, counted by the kernels themselves.
static COUNTED: AtomicI64 = AtomicI64::new(0);

/// A device whose sweeps count their multiply-adds.
struct Counting(ShimDevice);

impl Device for Counting {
    fn name(&self) -> String {
        self.0.name()
    }
    fn load(&self, unit: &str) -> Result<Box<dyn Module>, DeviceError> {
        let count = format!("++*(long*){:#x}ull", COUNTED.as_ptr() as usize);
        let mut library = environment::LIBRARY.to_owned();
        // what a tile computes beyond the results is not wanted
        let inside = "i + r < p.rows && j + c * across < p.columns";
        for (sum, wanted) in [
            ("sum[r][c] = fma(", format!("({inside} ? {count} : 0), ")),
            (" sum = fma(", format!(" {count}, ")),
            ("sum.part[e] = fma(", format!("{count}, ")),
        ] {
            assert!(library.contains(sum), "products are formed otherwise");
            library = library.replace(sum, &format!("{wanted}{sum}"));
        }
        self.0.load(&unit.replace(environment::LIBRARY, &library))
    }
    fn allocate(&self, stream: Queue, bytes: usize) -> Result<u64, DeviceError> {
        self.0.allocate(stream, bytes)
    }
    fn release(&self, address: u64) {
        self.0.release(address);
    }
    fn upload_on(&self, stream: Queue, bytes: &[u8], to: Span) -> Result<(), DeviceError> {
        self.0.upload_on(stream, bytes, to)
    }
    fn download_on(&self, stream: Queue, from: Span, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.0.download_on(stream, from, bytes)
    }
    fn order(&self, earlier: Queue, later: Queue) -> Result<(), DeviceError> {
        self.0.order(earlier, later)
    }
    fn blocks(&self) -> usize {
        self.0.blocks()
    }
    fn budget(&self) -> usize {
        self.0.budget()
    }
}

#[test]
fn work_is_that_of_the_kernel() {
    use Boundary::{Open, Periodic};
    // segments that are all kept, and some; both ways in turns
    for (name, sites, boundary, budget) in [
        ("dysonnet", 600, Periodic, AMPLE),
        ("dysonnet", 600, Periodic, 1 << 19),
        ("recurrent_mixers", 300, Open, AMPLE),
    ] {
        let case = Case::example(name, sites, boundary, true);
        let shim = ShimDevice::new(Order::Forward, 1, budget);
        let device: Arc<dyn Device> = Arc::new(Counting(shim));
        let options = Options::new(Precision::F32);
        let psi = CudaNetwork::new(device, &case.graph, case.lattice, &case.theta, &options);
        let mut psi = psi.unwrap_or_else(|e| panic!("{name}: {e}"));
        psi.set_updates(Updates::Abacus);
        let expected = psi.sweeper().expect("a sweep").products();
        let mut spins = vec![1; case.lattice.sites()];
        let walk = Walk {
            sweeps: 2,
            ..walk(3)
        };
        COUNTED.store(0, Ordering::Relaxed);
        let tally = psi.try_walk(&mut spins, &walk).expect("chains");
        let found = COUNTED.load(Ordering::Relaxed) as f64 / tally.proposed as f64;
        // segments are shorter than the chain, and the last slices than the others
        assert!(
            (0.8..1.1).contains(&(found / expected)),
            "{name}: {found} in place of {expected}"
        );
    }
}

fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("out/cuda");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn text_of_the_sweep_kernel() {
    let own = |text: String| {
        let at = text.find("// a chain of").expect("the kernel");
        text[at..].to_owned()
    };
    let texts = BOUNDARIES.map(|b| published(b, Precision::F32).texts());
    assert_eq!(texts.each_ref().map(Vec::len), [1, 2], "a ring is cut");
    let texts: Vec<String> = texts.into_iter().flatten().map(own).collect();
    snapshot("sweep", &texts.join("\n"));
}

#[test]
fn nvrtc_compiles_the_sweep() {
    let Some(library) = compiler::nvrtc() else {
        return;
    };
    let jobs = [
        (Boundary::Periodic, Precision::F32, 70),
        (Boundary::Periodic, Precision::F32, 80),
        (Boundary::Periodic, Precision::F32, 90),
        (Boundary::Periodic, Precision::F32, 100),
        (Boundary::Open, Precision::F32, 80),
        (Boundary::Open, Precision::F32, 100),
        (Boundary::Periodic, Precision::F64, 90),
    ];
    // those of CUDA 13 begin with sm_75
    let known = library.architectures();
    let jobs: Vec<_> = (jobs.into_iter())
        .filter(|job| known.contains(&Architecture(job.2)))
        .collect();
    let lines = |&(boundary, precision, architecture): &(Boundary, Precision, u32)| {
        let source = published(boundary, precision);
        let kernels = [Some(&source.kernel), source.at_cut.as_ref()];
        let one = |(kernel, text): (&Kernel, String)| {
            let unit = translation_unit(precision, std::iter::once(text.as_str()));
            let architecture = Architecture(architecture);
            let binary = library.compile(&unit, architecture, Form::Cubin);
            let binary = binary.unwrap_or_else(|e| panic!("{architecture}: {e}"));
            let r = &binary.resources[0];
            assert_eq!((&*r.kernel, binary.resources.len()), (&*kernel.name, 1));
            assert_eq!(r.shared, 0, "all shared memory is asked for at launch");
            assert!(kernel.shared <= 48 << 10, "granted without being asked");
            // other compilers than the one that is fetched may save a few registers of
            // what steers around calls, once per slice
            let most = if library.version() == (12, 9) { 0 } else { 128 };
            let (name, spills, of) = (&kernel.name, r.spills, &r.functions);
            assert!(
                spills <= most,
                "{name} {architecture}: {spills} bytes: {of:?}"
            );
            format!(
                "dysonnet {precision:?} {boundary:?} {architecture}, {}: {} threads, {} registers, {} bytes spilled, {} bytes of shared memory\n",
                kernel.name, kernel.threads, r.registers, r.spills, kernel.shared
            )
        };
        let of_texts = kernels.into_iter().flatten().zip(source.texts());
        of_texts.map(one).collect::<String>()
    };
    let lines: Vec<String> = jobs.par_iter().map(lines).collect();
    if library.version() == (12, 9) {
        snapshot("sweep_resources", &lines.concat());
    }
}
