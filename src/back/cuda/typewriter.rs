//! The typewriter on a device: a block moves one chain with ratios from the flip
//! program of single flips.

use super::chains;
use super::code::{CudaError, Source, bytes_of};
use super::device::{Buffer, Device, DeviceError, Launch, Module};
use super::emit::{Kernel, Options, emit_part};
use super::flips::{FlipSource, Flips};
use crate::back::cpu::flips::Place;
use crate::run::network::Precision;
use crate::run::walk::{Proposals, Screened, Tally, Walk};
use std::sync::Arc;

/// What the kernel is made of, to follow the device library.
pub const LIBRARIES: [&str; 2] = [
    chains::LIBRARY,
    include_str!("../../../kernels/typewriter.cuh"),
];

/// Where the orders of the typewriter begin, and those of its launches.
const ORDERS: usize = 16;
const LAUNCHES: usize = 24;

/// Numbers per chain besides the errors.
const NUMBERS: usize = 4;

/// The typewriter of one network on a device. Its constants are those of the flip
/// program.
pub struct Typewriter {
    kernel: Kernel,
    /// Doubles per block of the flip program's two kernels.
    workspace: [usize; 2],
    device: Arc<dyn Device>,
    module: Arc<dyn Module>,
}

/// The text of the kernel, to follow the libraries; how many threads a block
/// has, its shared memory, and the workspace of both parts.
///
/// # Errors
/// See [`CudaError`].
pub fn source(flips: &FlipSource, options: &Options) -> Result<(Kernel, [usize; 2]), CudaError> {
    let parts = flips.parts();
    let threads = parts.iter().map(|s| s.kernel.threads).max().unwrap_or(32);
    let part = |s: &Source, name: &'static str| {
        let inputs = s.inputs();
        emit_part(name.into(), &s.graph, &s.program, inputs, options, threads)
    };
    let changes = part(parts[0], "flip_changes")?;
    let readout = part(parts[1], "flip_readout")?;
    let [x, y] = parts[0].program.lattice.extent;
    let sites = x * y;
    // so many blocks should have room: with all registers to choose from the assembler
    // saves some of them around calls
    let blocks = match options.precision {
        Precision::F32 => 3,
        Precision::F64 => 2,
    };
    let text = [
        changes.text.as_str(),
        readout.text.as_str(),
        &format!(
            "namespace dnet {{

// the flip program on {x} x {y} spins
struct FlipProgram {{
    Launch changes, readout;
    __device__ void compute_changes(int sample) const {{
        flip_changes_code::compute(changes, sample);
    }}
    __device__ void compute_readout(int sample) const {{
        flip_readout_code::compute(readout, sample);
    }}
}};

extern \"C\" __global__ void __launch_bounds__({threads}, {blocks}) typewriter(const __grid_constant__ Launch a) {{
    const FlipProgram program = {{launch_of(a, order::LAUNCHES, 0), launch_of(a, order::LAUNCHES, 1)}};
    for (int sample = blockIdx.x; sample < a.samples; sample += gridDim.x)
        move_typewriter(a, program, sample, {threads}, {sites});
}}

}} // namespace dnet
"
        ),
    ];
    let kernel = Kernel {
        text: text.join("\n"),
        threads,
        shared: changes.shared.max(readout.shared),
        ..Kernel::by_hand("typewriter")
    };
    Ok((kernel, [changes.workspace, readout.workspace]))
}

impl Typewriter {
    /// Compiles and loads the kernel for a flip program whose first family is that
    /// of single flips.
    ///
    /// # Errors
    /// See [`CudaError`].
    pub fn new(
        device: &Arc<dyn Device>,
        flips: &FlipSource,
        options: &Options,
    ) -> Result<Typewriter, CudaError> {
        let (kernel, workspace) = source(flips, options)?;
        let text = [&LIBRARIES[..], &[&kernel.text]].concat().join("\n");
        let module = device.load_kernels(options.precision, &[&text])?;
        Ok(Typewriter {
            kernel,
            workspace,
            device: device.clone(),
            module: Arc::from(module),
        })
    }

    /// Moves chains, their configurations one after the other, and takes note of the
    /// errors seen in `errors`, as many per chain as passes have proposals. Both
    /// change only if all goes well.
    ///
    /// # Errors
    /// Too little memory, failures of the device, ratios that are not finite.
    pub fn walk(
        &self,
        flips: &Flips,
        spins: &mut [i8],
        walk: &Walk,
        errors: &mut [f64],
    ) -> Result<(Tally, Screened), DeviceError> {
        let sites = flips.parts()[0].source.program.lattice.sites();
        let chains = spins.len() / sites;
        if chains == 0 {
            return Ok(Default::default());
        }
        let length = errors.len() / chains;
        let at_once = self.at_once(flips, chains, length);
        let (mut all, mut screened) = (Tally::default(), Screened::default());
        let (mut moved, mut seen) = (Vec::new(), Vec::new());
        let parts = spins
            .chunks(at_once * sites)
            .zip(errors.chunks(at_once * length));
        for (k, (spins, errors)) in parts.enumerate() {
            let first = walk.first.wrapping_add((k * at_once) as u32);
            let walk = Walk { first, ..*walk };
            let done = self.walk_at_once(flips, spins, &walk, errors)?;
            moved.extend(done.spins);
            seen.extend(done.errors);
            all.merge(&done.tally);
            screened.merge(&done.screened);
        }
        if all.uniform_proposed > 0 {
            return Err(DeviceError::new("single flips without finite ratios"));
        }
        spins.copy_from_slice(&moved);
        errors.copy_from_slice(&seen);
        Ok((all, screened))
    }

    /// Chains that fit the device's budget and 32-bit indices.
    fn at_once(&self, flips: &Flips, chains: usize, errors: usize) -> usize {
        let [changes, readout] = flips.parts();
        let spins = 2 * changes.source.program.lattice.sites();
        let each = spins + 8 * (errors + NUMBERS) + changes.memory(1).0 + readout.memory(1).0;
        let blocks = self.device.blocks().min(chains);
        let fixed = 8 * blocks * self.workspace.iter().sum::<usize>();
        let fit = self.device.budget().saturating_sub(fixed) / each;
        fit.min(i32::MAX as usize / each).clamp(1, chains.max(1))
    }

    fn walk_at_once(
        &self,
        flips: &Flips,
        spins: &[i8],
        walk: &Walk,
        errors: &[f64],
    ) -> Result<Done, DeviceError> {
        let device = &self.device;
        let [changes, readout] = flips.parts();
        let sites = changes.source.program.lattice.sites();
        let chains = spins.len() / sites;
        let blocks = device.blocks().min(chains);
        let memory = chains::configurations(device, spins)?;
        let memory_of = |doubles: usize| Buffer::new(device, 8 * doubles);
        let [work, other] = self.workspace.map(|w| memory_of(w * blocks));
        let (work, other) = (work?, other?);
        let background = memory_of(changes.outputs() * chains)?;
        let of_flips = Buffer::new(device, changes.site_bytes() * chains)?;
        let features = memory_of(changes.outputs() * chains)?;
        let log_psi = memory_of(readout.outputs() * chains)?;
        let launches = [
            Launch {
                spins: memory.span(),
                workspace: work.span(),
                outputs: background.span(),
                site_outputs: of_flips.span(),
                ..changes.constants()
            },
            Launch {
                inputs: features.span(),
                workspace: other.span(),
                outputs: log_psi.span(),
                ..readout.constants()
            },
        ];
        let length = errors.len() / chains;
        let orders = Buffer::holding(device, &orders(flips, walk, length, &launches))?;
        let mut results: Vec<f64> = Vec::new();
        for errors in errors.chunks_exact(length) {
            results.extend(errors);
            results.extend([0.0; NUMBERS]);
        }
        let own = 8 * results.len();
        results.extend([0.0; chains::COUNTS]);
        let mut bytes = vec![0; 8 * results.len()];
        for (bytes, x) in bytes.chunks_exact_mut(8).zip(&results) {
            bytes.copy_from_slice(&x.to_ne_bytes());
        }
        let results = Buffer::holding(device, &bytes)?;
        let launch = Launch {
            samples: chains,
            spins: memory.span(),
            site_outputs: memory.span(),
            inputs: orders.span(),
            outputs: results.span(),
            ..Launch::default()
        };
        self.module.launch(&self.kernel, blocks, &launch)?;
        let tally = chains::tally(device, results.span(), own)?;
        let mut done = Done {
            spins: chains::moved(device, &memory, spins.len())?,
            errors: Vec::with_capacity(errors.len()),
            tally,
            screened: Screened::default(),
        };
        for own in results.numbers(own / 8)?.chunks_exact(length + NUMBERS) {
            done.errors.extend(&own[..length]);
            done.screened.merge(&Screened {
                worst_error: own[length],
                worst_error_over_bound: own[length + 1],
                screened: own[length + 2] as u64,
                corrections: own[length + 3] as u64,
            });
        }
        Ok(done)
    }
}

/// What some chains became.
struct Done {
    spins: Vec<i8>,
    errors: Vec<f64>,
    tally: Tally,
    screened: Screened,
}

/// A walk as the numbers that the libraries describe, as bytes.
fn orders(flips: &Flips, walk: &Walk, errors: usize, launches: &[Launch; 2]) -> Vec<u8> {
    let [changes, readout] = flips.parts();
    let sites = changes.source.program.lattice.sites();
    let (width, screened) = match walk.proposals {
        Proposals::Typewriter { width, screened } => (width, screened),
        _ => (1, false),
    };
    let mut all = chains::head(walk, sites);
    all.extend([
        width as u32,
        u32::from(screened),
        changes.outputs() as u32,
        changes.source.kernel.site_outputs as u32,
        flips.tokens() as u32,
        readout.outputs() as u32,
        errors as u32,
        0,
    ]);
    debug_assert_eq!(all.len(), LAUNCHES, "as the library has it");
    all.extend(chains::launches(launches));
    let family = 0;
    all.extend((0..sites).map(|corner| flips.first(Place { family, corner })));
    all.resize(all.len().next_multiple_of(2), 0);
    all[ORDERS - 1] = all.len() as u32;
    bytes_of(&all)
}
