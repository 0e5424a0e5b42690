//! The exact sweep by environments on a device: a block moves one chain.
//!
//! The mathematics, and the way along the chain, are those of
//! `back::cpu::environment`: segments that grow by several tokens at once, a slice
//! between two of them that is solved for every proposal, links that say what the
//! segments answer to the sources of a slice. Decisions, and the random numbers they
//! use, are those of every other sequential sweep.
//!
//! * *Tables* of the mixers (with reduced states) and of the coefficients are made by
//!   the CPU's code in f64 and uploaded as data. Sizes that depend on them, and where
//!   everything is, are the `plan` of whole numbers that the kernel copies to shared
//!   memory. New parameters never compile anything.
//! * *Text*: the hand-written library [`LIBRARY`], the same for every network, and three
//!   emitted programs: the coefficients of a stretch of the chain (only where they are
//!   not looked up), log psi from the features in f64, and log psi of a configuration
//!   for the few proposals of a ring whose slices cross the cut: a kernel of its own that
//!   follows every sweep, compiled beside the other one.
//! * *Memory* is that of the blocks in flight, whatever the number of chains. What a
//!   proposal reads and writes lies in shared memory as far as it goes; segments ahead
//!   are kept behind every c-th block of proposals, c as small as the device's memory
//!   allows, and built again in between.

mod count;
mod plan;

use super::chains;
use super::code::{Code, CudaError, Source, bytes, bytes_of};
use super::device::{Buffer, Device, DeviceError, Launch, Module};
use super::emit::{Kernel, Options, emit_part};
use crate::back::cpu::environment::{Described, Refusal, describe};
use crate::back::cpu::work::work;
use crate::ir::{Boundary, Lattice};
use crate::run::network::Precision;
use crate::run::walk::{Proposals, Tally, Walk};
use count::Products;
use plan::{HEAD, Plan, RECORD, Room};
use std::iter;
use std::sync::Arc;

/// What the kernel is made of, to follow the device library and that of chains.
pub const LIBRARY: &str = concat!(
    include_str!("../../../../kernels/environment/plan.cuh"),
    include_str!("../../../../kernels/environment/segments.cuh"),
    include_str!("../../../../kernels/environment/links.cuh"),
    include_str!("../../../../kernels/environment/slice.cuh"),
    include_str!("../../../../kernels/environment/walk.cuh"),
);

/// What the kernel's text follows, after the device library.
pub const LIBRARIES: [&str; 2] = [chains::LIBRARY, LIBRARY];

/// Guards the libraries where both kernels are one translation unit.
const GUARD: &str = "DNET_SWEEP_LIBRARIES";

/// Threads of a block.
const THREADS: usize = 128;

/// Blocks that are to be resident on a multiprocessor: the compiler takes no more registers
/// than leave room for them. Four are also what shared memory has room for.
const fn resident_blocks(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 4,
        Precision::F64 => 3,
    }
}

/// Shared memory that the emitted programs of coefficients and of the readout may use,
/// in bytes.
const SHARED: usize = 8 << 10;

/// Multiply-adds a block could do while it waits at a barrier: a phase is at least two
/// loads from the cache of the device that need each other, some 500 cycles, of the 32
/// lanes that are a block's share of a multiprocessor's 128 when four blocks are resident.
/// Evaluations in full wait by the same measure.
const WAITING: f64 = 500.0 * 32.0;

/// Barriers of emitted code, which runs straight through.
fn barriers(text: &str) -> f64 {
    text.matches("__syncthreads();").count() as f64
}

/// Numbers before the plan among the orders: those of every walk, and the arrays of
/// three launches.
const PLAN: usize = 100;

/// Why a network has no sweep of its own on a device.
#[derive(Debug, thiserror::Error)]
pub enum NoSweep {
    /// It has no environments.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No kernel.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// Full evaluation is estimated to be less work.
    #[error(
        "with what could be done at barriers full evaluation takes {full:.2e} multiply-adds per proposal, environments {environments:.2e}"
    )]
    Dear {
        /// Of full evaluation.
        full: f64,
        /// Of environments.
        environments: f64,
    },
}

impl From<DeviceError> for NoSweep {
    fn from(e: DeviceError) -> NoSweep {
        NoSweep::Cuda(e.into())
    }
}

/// The sweep's kernel and its emitted programs, before there is a device.
pub struct SweepSource {
    /// The kernel.
    pub kernel: Kernel,
    /// On a ring the kernel of those few proposals of a sweep whose slices cross the cut.
    pub at_cut: Option<Kernel>,
    coefficients: Option<Source>,
    readout: Source,
    environments: Box<dyn Described>,
    precision: Precision,
    /// Shared memory a block may use, and what the programs use of it, in bytes.
    limit: usize,
    taken: usize,
    /// Barriers of a proposal.
    barriers: f64,
    /// Multiply-adds of a proposal where all segments ahead are kept.
    products: f64,
    /// As [`SweepSource::work`], of evaluation in full.
    work_in_full: f64,
}

impl SweepSource {
    /// Derives environments for a network and emits the kernel; `full` is its log psi.
    ///
    /// # Errors
    /// See [`NoSweep`].
    pub fn new(full: &Source, theta: &[f64], options: &Options) -> Result<SweepSource, NoSweep> {
        let (graph, lattice) = (&full.graph, full.program.lattice);
        let environments = match options.precision {
            Precision::F32 => describe::<f32>(graph, lattice, theta)?,
            Precision::F64 => describe::<f64>(graph, lattice, theta)?,
        };
        let small = Options {
            shared: SHARED.min(options.shared / 4),
            ..options.clone()
        };
        let description = environments.description()?;
        let (needed, limit) = (plan::bytes(&description), options.shared);
        if needed > limit / 2 {
            let text = format!("its plan of {needed} bytes leaves no shared memory of {limit}");
            return Err(Refusal::Derivation(text).into());
        }
        let coefficients = match description.patch {
            Some(tokens) => {
                let (graph, sites) = environments.coefficients();
                let chain = Lattice::chain(tokens * description.token, Boundary::Open);
                let name = "sweep_coefficients";
                Some(Source::new(name, graph.clone(), chain, &[], sites, &small)?)
            }
            None => None,
        };
        let (graph, inputs) = environments.readout()?;
        let readout = Source::new("sweep_readout", graph, lattice, &inputs, &[], &small)?;
        let part = |s: &Source, name: &'static str, options: &Options| {
            let (graph, inputs) = (&s.graph, s.inputs());
            emit_part(name.into(), graph, &s.program, inputs, options, THREADS)
                .map_err(CudaError::from)
        };
        let mut texts = Vec::new();
        let mut taken = 0;
        let mut calls = Vec::new();
        let sources = [
            ("coefficients", "sweep_coefficients", coefficients.as_ref()),
            ("readout", "sweep_readout", Some(&readout)),
        ];
        for (short, name, source) in sources {
            let mut body = String::new();
            if let Some(source) = source {
                let kernel = part(source, name, &small)?;
                taken = taken.max(kernel.shared);
                body = format!(" {name}_code::compute(of_{short}, sample); ");
                texts.push(kernel.text);
            }
            calls.push((short, body));
        }
        let width = full.kernel.outputs;
        let kernel_text = |name: &str, calls: &[(&str, String)]| {
            kernel_text(
                name,
                lattice,
                width,
                resident_blocks(options.precision),
                calls,
            )
        };
        texts.push(kernel_text("sweep", &calls));
        let by_hand = |name: &'static str, texts: &[String]| Kernel {
            text: texts.join("\n"),
            threads: THREADS,
            shared: options.shared,
            ..Kernel::by_hand(name)
        };
        // does a slice cross the cut? as `sweep_once` decides
        let seen: usize = description.reach.iter().sum();
        let crossed = description.ring && seen > 0 && description.tokens >= 2 * seen;
        let mut at_cut = None;
        if crossed {
            let below = Options {
                shared: limit - needed,
                ..options.clone()
            };
            let all = part(full, "sweep_log_psi", &below)?;
            let body = " sweep_log_psi_code::compute(of_log_psi, sample); ".to_owned();
            let text = kernel_text("sweep_at_cut", &[("full", body)]);
            at_cut = Some(Kernel {
                workspace: all.workspace,
                ..by_hand("sweep_at_cut", &[all.text, text])
            });
        }
        // a spin is flipped, perhaps back again, and its coefficients are found; mixers are
        // solved, with states that come back from those between the first and the last;
        // features are added up and read
        let mixers = description.mixers.len() as f64;
        let back = if description.ring { 2.0 } else { 1.0 };
        let own = 5.0 + 2.0 * mixers + back * (mixers - 2.0).max(0.0) + 2.0;
        let own = own + barriers(&readout.kernel.text);
        let in_full = 4.0 + barriers(&full.kernel.text);
        Ok(SweepSource {
            kernel: by_hand("sweep", &texts),
            at_cut,
            coefficients,
            readout,
            environments,
            precision: options.precision,
            limit: options.shared,
            taken: taken.next_multiple_of(8),
            barriers: own,
            products: Products::new(&description, 1).total(),
            work_in_full: work(&full.program) + WAITING * in_full,
        })
    }

    /// The texts of the kernels, each to follow the device library.
    pub fn texts(&self) -> Vec<String> {
        let libraries = LIBRARIES.join("\n");
        let libraries = format!("#ifndef {GUARD}\n#define {GUARD}\n\n{libraries}\n#endif\n");
        (iter::once(&self.kernel).chain(&self.at_cut))
            .map(|kernel| format!("{libraries}\n{}", kernel.text))
            .collect()
    }

    /// The plan of the parameters in force for blocks with so many bytes of workspace.
    fn plan(&self, workspace: usize) -> Result<Plan, NoSweep> {
        let description = self.environments.description()?;
        let rows = self.coefficients.as_ref().map(|s| &s.program.site_outputs);
        let room = Room {
            shared: self.limit,
            taken: self.taken,
            workspace,
            real: bytes(self.precision),
            patch_rows: rows.map_or(0, Vec::len),
            results: self.readout.kernel.outputs,
        };
        Ok(Plan::new(&description, room))
    }

    /// Bytes of device memory of a block, and thus of a chain in flight: as many segments
    /// are kept as stay below `limit`, and at least a few.
    ///
    /// # Errors
    /// See [`NoSweep`].
    pub fn bytes(&self, limit: usize) -> Result<usize, NoSweep> {
        Ok(8 * self.plan(limit)?.workspace)
    }

    /// Multiply-adds per proposal where all segments ahead are kept, and those a block
    /// could do while it waits.
    pub fn work(&self) -> f64 {
        self.products + WAITING * self.barriers
    }

    /// The same of a proposal that is evaluated in full.
    pub fn work_in_full(&self) -> f64 {
        self.work_in_full
    }
}

/// The emitted programs as the library calls them, and the kernel.
fn kernel_text(
    name: &str,
    lattice: Lattice,
    width: usize,
    resident: usize,
    calls: &[(&str, String)],
) -> String {
    let sites = lattice.sites();
    let boundary = lattice.boundary;
    let at_cut = name != "sweep";
    let program = if at_cut { "CutProgram" } else { "SweepProgram" };
    let evaluates = (calls.iter()).any(|(name, body)| *name == "coefficients" && !body.is_empty());
    let calls: String = (calls.iter())
        .map(|(name, body)| {
            format!("    __device__ void compute_{name}(int sample) const {{{body}}}\n")
        })
        .collect();
    format!(
        "namespace dnet {{

static_assert(plan::HEAD == {HEAD} && plan::RECORD == {RECORD} && order::PLAN == {PLAN}); // as the host has it

// a chain of {sites} spins, {boundary:?}
struct {program} : Programs {{
    static constexpr bool AT_CUT = {at_cut};
    static constexpr bool EVALUATES = {evaluates}; // coefficients that tables lack
{calls}}};

extern \"C\" __global__ void __launch_bounds__({THREADS}, {resident}) {name}(const __grid_constant__ Launch a) {{
    Mover<{program}> mover;
    begin_moving(a, mover, {THREADS}, {sites}, {width});
    move_chains(mover);
}}

}} // namespace dnet
"
    )
}

/// Moves chains by evaluating proposals in full.
type InFull<'a> = &'a dyn Fn(&mut [i8], &Walk) -> Result<Tally, DeviceError>;

/// The sweep of one network on a device.
pub struct Sweeper {
    source: SweepSource,
    plan: Plan,
    device: Arc<dyn Device>,
    module: Arc<dyn Module>,
    /// Constants of coefficients and readout, in working precision and f64.
    parts: [[Buffer; 2]; 2],
    tables: [Buffer; 2],
}

impl Sweeper {
    /// Compiles and loads the kernel.
    ///
    /// # Errors
    /// See [`NoSweep`].
    pub fn new(
        device: &Arc<dyn Device>,
        source: SweepSource,
        theta: &[f64],
    ) -> Result<Sweeper, NoSweep> {
        let texts = source.texts();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let module: Arc<dyn Module> = Arc::from(device.load_kernels(source.precision, &texts)?);
        let (plan, parts, tables) = prepare(device, &*module, &source, theta)?;
        Ok(Sweeper {
            source,
            plan,
            device: device.clone(),
            module,
            parts,
            tables,
        })
    }

    /// Follows new parameters; nothing is compiled.
    ///
    /// # Errors
    /// See [`NoSweep`]; the sweep is then of no further use.
    pub fn set_params(&mut self, theta: &[f64]) -> Result<(), NoSweep> {
        self.source.environments.set_params(theta)?;
        (self.plan, self.parts, self.tables) =
            prepare(&self.device, &*self.module, &self.source, theta)?;
        Ok(())
    }

    /// Multiply-adds per proposal.
    pub fn products(&self) -> f64 {
        self.plan.products
    }

    /// Bytes of device memory per chain in flight.
    pub fn bytes(&self) -> usize {
        8 * self.plan.workspace
    }

    /// Sweeps of chains whose log psi is that of `full`, one configuration after the
    /// other, and the global moves due after them, which `in_full` makes;
    /// configurations change only if all goes well.
    ///
    /// # Errors
    /// Too little memory, failures of the device.
    pub fn walk(
        &self,
        full: &Code,
        spins: &mut [i8],
        walk: &Walk,
        in_full: InFull<'_>,
    ) -> Result<Tally, DeviceError> {
        let (mut moved, mut all) = (spins.to_vec(), Tally::default());
        let due = |every: u64, step: u64| every > 0 && (step + 1).is_multiple_of(every);
        let global = |step: u64| due(walk.inversion_every, step) || due(walk.uniform_every, step);
        let end = walk.step + walk.sweeps as u64;
        let mut step = walk.step;
        while step < end {
            let last = (step..end).find(|&k| global(k)).unwrap_or(end - 1);
            let own = Walk {
                step,
                sweeps: (last + 1 - step) as usize,
                ..*walk
            };
            all.merge(&self.sweep(full, &mut moved, &own, None)?);
            if global(last) {
                let own = Walk {
                    step: last,
                    sweeps: 1,
                    proposals: Proposals::Random {
                        kinds: &[],
                        count: 0,
                    },
                    ..*walk
                };
                all.merge(&in_full(&mut moved, &own)?);
            }
            step = last + 1;
        }
        spins.copy_from_slice(&moved);
        Ok(all)
    }

    /// Sweeps without global moves. `ratios`, one number per spin, are those of the
    /// flips proposed in the last one, `Re log psi(s')/psi(s)`.
    ///
    /// # Errors
    /// Too little memory, failures of the device; some configurations may then have
    /// changed.
    pub fn sweep(
        &self,
        full: &Code,
        spins: &mut [i8],
        walk: &Walk,
        mut ratios: Option<&mut Vec<f64>>,
    ) -> Result<Tally, DeviceError> {
        let sites = full.source.program.lattice.sites();
        let width = full.outputs();
        let at_once = (i32::MAX as usize / (2 * sites)).min(self.device.budget() / (4 * sites));
        let mut all = Tally::default();
        for (k, spins) in spins.chunks_mut(at_once.max(1) * sites).enumerate() {
            let chains = spins.len() / sites;
            let device = &self.device;
            let blocks = self.blocks(chains);
            let first = walk.first.wrapping_add((k * at_once.max(1)) as u32);
            let memory = chains::configurations(device, spins)?;
            let doubles = |n: usize| Buffer::new(device, 8 * n);
            let source = &self.source;
            let patch = source.coefficients.as_ref().map(|s| &s.kernel);
            let none = Kernel::by_hand("none");
            let patch = patch.unwrap_or(&none);
            let real = bytes(source.precision);
            let [c, r, f] = [
                patch.workspace,
                source.readout.kernel.workspace,
                source.at_cut.as_ref().map_or(0, |k| k.workspace),
            ];
            let work = [
                doubles(c * blocks)?,
                doubles(r * blocks)?,
                doubles(f * blocks)?,
            ];
            let patches = Buffer::new(device, patch.spins * blocks)?;
            let values = Buffer::new(device, real * patch.site_outputs * blocks)?;
            let features = doubles(source.readout.kernel.inputs * blocks)?;
            let results = doubles(source.readout.kernel.outputs * blocks)?;
            let log_psi = doubles(width * chains)?;
            let constants = |k: usize| Launch {
                constants: self.parts[k][0].span(),
                constants64: self.parts[k][1].span(),
                workspace: work[k].span(),
                ..Launch::default()
            };
            let launches = [
                Launch {
                    spins: patches.span(),
                    site_outputs: values.span(),
                    ..constants(0)
                },
                Launch {
                    inputs: features.span(),
                    outputs: results.span(),
                    ..constants(1)
                },
                Launch {
                    spins: memory.span(),
                    outputs: log_psi.span(),
                    workspace: work[2].span(),
                    ..full.constants()
                },
            ];
            let wanted = ratios.is_some();
            let results = chains::COUNTS + if wanted { spins.len() } else { 0 };
            let counts = Buffer::holding(device, &vec![0; 8 * results])?;
            let own = doubles(self.plan.workspace * blocks)?;
            let launch = Launch {
                samples: chains,
                site_outputs: memory.span(),
                outputs: counts.span(),
                constants: self.tables[0].span(),
                constants64: self.tables[1].span(),
                workspace: own.span(),
                ..Launch::default()
            };
            // all sweeps at once, or each of them before what crosses its cut
            let kernels: Vec<Kernel> = (iter::once(&source.kernel).chain(&source.at_cut))
                .map(|kernel| Kernel {
                    text: String::new(),
                    ..kernel.clone()
                })
                .collect();
            let at_once = if kernels.len() > 1 { 1 } else { walk.sweeps };
            for k in (0..walk.sweeps).step_by(at_once.max(1)) {
                let own = Walk {
                    first,
                    step: walk.step + k as u64,
                    sweeps: at_once,
                    ..*walk
                };
                let orders = self.orders(&own, sites, &launches, wanted);
                let orders = Buffer::holding(device, &orders)?;
                let launch = Launch {
                    inputs: orders.span(),
                    ..launch
                };
                for kernel in &kernels {
                    self.module.launch(kernel, blocks, &launch)?;
                }
            }
            all.merge(&chains::tally(device, counts.span(), 0)?);
            if let Some(ratios) = &mut ratios {
                ratios.extend(&counts.numbers(results)?[chains::COUNTS..]);
            }
            spins.copy_from_slice(&chains::moved(device, &memory, spins.len())?);
        }
        Ok(Tally {
            by_environments: (spins.len() / sites * walk.sweeps) as u64,
            ..all
        })
    }

    /// Blocks in flight: as many as the device works on at the same time and its memory
    /// holds. More would wait for these to end, and take memory from their segments.
    fn blocks(&self, chains: usize) -> usize {
        let fit = self.device.budget() / (2 * self.bytes()).max(1);
        resident(&self.device, &*self.module, &self.source)
            .min(chains)
            .min(fit)
            .max(1)
    }

    /// A walk as the numbers that the library describes, as bytes.
    fn orders(&self, walk: &Walk, sites: usize, launches: &[Launch; 3], ratios: bool) -> Vec<u8> {
        let mut all = chains::head(walk, sites);
        all.extend(chains::launches(launches));
        debug_assert_eq!(all.len(), PLAN, "as the library has it");
        all.extend(self.plan.numbers.iter().map(|&x| x as u32));
        all[PLAN + plan::RATIOS] = u32::from(ratios);
        all.resize(all.len().next_multiple_of(2), 0);
        all[chains::LENGTH] = all.len() as u32;
        bytes_of(&all)
    }
}

/// The plan, constants of the programs and tables of these parameters.
type Prepared = (Plan, [[Buffer; 2]; 2], [Buffer; 2]);

/// Blocks that a device works on at the same time.
fn resident(device: &Arc<dyn Device>, module: &dyn Module, source: &SweepSource) -> usize {
    let known = module.resident(&source.kernel);
    known.unwrap_or_else(|| device.blocks())
}

fn prepare(
    device: &Arc<dyn Device>,
    module: &dyn Module,
    source: &SweepSource,
    theta: &[f64],
) -> Result<Prepared, NoSweep> {
    let blocks = resident(device, module, source).max(1);
    let plan = source.plan(device.budget() / (2 * blocks))?;
    let put = |numbers: &[Vec<f64>; 2]| super::code::upload(device, source.precision, numbers);
    let coefficients = match &source.coefficients {
        Some(s) => s.constants(theta)?,
        None => Default::default(),
    };
    let parts = [put(&coefficients)?, put(&source.readout.constants(theta)?)?];
    let tables = put(&[plan.tables.clone(), plan.tables64.clone()])?;
    Ok((plan, parts, tables))
}
