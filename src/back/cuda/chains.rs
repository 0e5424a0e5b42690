//! Markov chains on a device: a block moves one chain, whole sweeps per launch.

use super::code::{Code, CudaError, Source, bytes_of};
use super::device::{Buffer, Device, DeviceError, Launch, Module, Span};
use super::emit::{Kernel, Options, emit_chains};
use super::names::Name;
use crate::run::walk::{Kind, Proposals, Tally, Walk};
use std::sync::Arc;

/// What chain kernels are made of, to follow the device library.
pub const LIBRARY: &str = include_str!("../../../kernels/chains.cuh");

/// Numbers of a [`Tally`].
pub(super) const COUNTS: usize = 7;

/// The kernel that moves chains by a program of log psi, before there is a device.
pub struct ChainSource {
    /// The kernel.
    pub kernel: Kernel,
}

impl ChainSource {
    /// Emits the kernel for the program of `full`.
    ///
    /// # Errors
    /// See [`CudaError`].
    pub fn new(full: &Source, options: &Options) -> Result<ChainSource, CudaError> {
        let program = &full.program;
        let [x, y] = program.lattice.extent;
        let boundary = program.lattice.boundary;
        let title = [format!("chains of {x} x {y} spins, {boundary:?}")];
        let name = Name::from("chains");
        let kernel = emit_chains(name, &title, &full.graph, program, options)?;
        Ok(ChainSource { kernel })
    }

    /// The text, to follow the device library.
    pub fn text(&self) -> String {
        format!("{LIBRARY}\n{}", self.kernel.text)
    }
}

/// The chain kernel of one network on a device. Its constants are those of log psi.
pub struct Chains {
    kernel: Kernel,
    device: Arc<dyn Device>,
    module: Arc<dyn Module>,
}

impl Chains {
    /// Compiles and loads the kernel for the program of `full`.
    ///
    /// # Errors
    /// See [`CudaError`].
    pub fn new(
        device: &Arc<dyn Device>,
        full: &Source,
        options: &Options,
    ) -> Result<Chains, CudaError> {
        let source = ChainSource::new(full, options)?;
        Ok(Chains {
            module: Arc::from(device.load_kernels(options.precision, &[&source.text()])?),
            kernel: source.kernel,
            device: device.clone(),
        })
    }

    /// Moves chains whose log psi is that of `full`; their configurations, one after
    /// the other, change only if all goes well.
    ///
    /// # Errors
    /// Too little memory, failures of the device.
    pub fn walk(&self, full: &Code, spins: &mut [i8], walk: &Walk) -> Result<Tally, DeviceError> {
        let sites = full.source.program.lattice.sites();
        let chains = spins.len() / sites;
        let orders = Buffer::holding(&self.device, &orders(walk, sites))?;
        let at_once = self.at_once(full, chains);
        let (mut moved, mut all) = (Vec::with_capacity(spins.len()), Tally::default());
        for (k, spins) in spins.chunks(at_once * sites).enumerate() {
            let first = walk.first.wrapping_add((k * at_once) as u32);
            let number = first.to_ne_bytes();
            let place = Span {
                address: orders.span().address + 4 * FIRST as u64,
                bytes: number.len(),
            };
            self.device.upload(&number, place)?;
            let (spins, tally) = self.walk_at_once(full, spins, orders.span())?;
            moved.extend(spins);
            all.merge(&tally);
        }
        spins.copy_from_slice(&moved);
        Ok(all)
    }

    /// Chains that fit the device's budget and 32-bit indices.
    fn at_once(&self, full: &Code, chains: usize) -> usize {
        let sites = full.source.program.lattice.sites();
        let (each, fixed) = (2 * sites + 8 * self.kernel.outputs, full.memory(chains).1);
        let fit = self.device.budget().saturating_sub(fixed) / each;
        fit.min(i32::MAX as usize / each).clamp(1, chains.max(1))
    }

    fn walk_at_once(
        &self,
        full: &Code,
        spins: &[i8],
        orders: Span,
    ) -> Result<(Vec<i8>, Tally), DeviceError> {
        let chains = spins.len() / full.source.program.lattice.sites();
        let memory = configurations(&self.device, spins)?;
        let log_psi = 8 * self.kernel.outputs * chains;
        let results = vec![0; log_psi + 8 * COUNTS];
        let results = Buffer::holding(&self.device, &results)?;
        let launch = Launch {
            samples: chains,
            spins: memory.span(),
            site_outputs: memory.span(),
            inputs: orders,
            outputs: results.span(),
            ..Launch::default()
        };
        full.launch(&*self.module, &self.kernel, launch)?;
        let tally = tally(&self.device, results.span(), log_psi)?;
        Ok((moved(&self.device, &memory, spins.len())?, tally))
    }
}

/// Configurations on a device, with as much memory again, in whole doubles.
pub(super) fn configurations(
    device: &Arc<dyn Device>,
    spins: &[i8],
) -> Result<Buffer, DeviceError> {
    let mut bytes: Vec<u8> = spins.iter().map(|&s| s as u8).collect();
    bytes.resize((2 * spins.len()).next_multiple_of(8), 0);
    Buffer::holding(device, &bytes)
}

/// What [`configurations`] became.
pub(super) fn moved(
    device: &Arc<dyn Device>,
    memory: &Buffer,
    spins: usize,
) -> Result<Vec<i8>, DeviceError> {
    let mut bytes = vec![0; spins];
    device.download(memory.part(spins), &mut bytes)?;
    Ok(bytes.into_iter().map(|b| b as i8).collect())
}

/// The counts of a launch, so many bytes behind the beginning of its results.
pub(super) fn tally(
    device: &Arc<dyn Device>,
    results: Span,
    from: usize,
) -> Result<Tally, DeviceError> {
    let counts = Span {
        address: results.address + from as u64,
        bytes: 8 * COUNTS,
    };
    let mut words = [0; 8 * COUNTS];
    device.download(counts, &mut words)?;
    let count = |k: usize| {
        let word: [u8; 8] = std::array::from_fn(|b| words[8 * k + b]);
        u64::from_ne_bytes(word)
    };
    Ok(Tally {
        proposed: count(0),
        accepted: count(1),
        not_a_number: count(2),
        inversions: count(3),
        inverted: count(4),
        uniform_proposed: count(5),
        uniform_accepted: count(6),
        by_environments: 0,
    })
}

/// Where the first chain's number is among the orders.
const FIRST: usize = 5;

/// Where the length of all orders is, and the table of kinds begins.
pub(super) const LENGTH: usize = TABLE - 1;
const TABLE: usize = 16;

/// A number in two parts, the low one first.
pub(super) fn wide(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

/// The arrays of launches as kernels that launch nothing themselves find them: address
/// and bytes of each, both [`wide`].
pub(super) fn launches(all: &[Launch]) -> Vec<u32> {
    let arrays = all.iter().flat_map(Launch::arrays);
    arrays
        .flat_map(|a| [wide(a.address), wide(a.bytes as u64)].concat())
        .collect()
}

/// The part of a walk that `namespace order` of the chain library describes.
pub(super) fn head(walk: &Walk, sites: usize) -> Vec<u32> {
    let [seed, step, inversion, uniform] = [
        walk.seed,
        walk.step,
        walk.inversion_every,
        walk.uniform_every,
    ]
    .map(wide);
    let (kinds, count) = match walk.proposals {
        Proposals::Random { kinds, count } => (kinds.len(), count),
        Proposals::Sequential | Proposals::Typewriter { .. } => (0, sites),
    };
    let down = walk.magnetization.map(|m| (sites as i64 - m) / 2);
    vec![
        seed[0],
        seed[1],
        step[0],
        step[1],
        walk.sweeps as u32,
        walk.first,
        u32::from(walk.heat_bath),
        inversion[0],
        inversion[1],
        uniform[0],
        uniform[1],
        u32::from(down.is_some()),
        down.unwrap_or(0) as u32,
        count as u32,
        kinds as u32,
        0,
    ]
}

/// A walk as numbers, as bytes of whole doubles.
fn orders(walk: &Walk, sites: usize) -> Vec<u8> {
    let kinds = match walk.proposals {
        Proposals::Random { kinds, .. } => kinds,
        Proposals::Sequential | Proposals::Typewriter { .. } => &[],
    };
    let mut all = head(walk, sites);
    debug_assert_eq!(all.len(), TABLE, "as the library has it");
    all.resize(TABLE + 3 * kinds.len(), 0);
    for (k, kind) in kinds.iter().enumerate() {
        let first = all.len() as u32;
        let (what, many) = match kind {
            Kind::Single => (0, 0),
            Kind::Pair => (1, 0),
            Kind::Exchange => (2, 0),
            Kind::ExchangePairs(pairs) => {
                all.extend(pairs.iter().flatten().map(|&s| s as u32));
                (3, pairs.len())
            }
            Kind::Clusters(sets) => {
                let mut from = first + 2 * sets.len() as u32;
                for set in *sets {
                    let to = from + set.len() as u32;
                    all.extend([from, to]);
                    from = to;
                }
                all.extend(sets.iter().flatten().map(|&s| s as u32));
                (4, sets.len())
            }
        };
        all[TABLE + 3 * k..][..3].copy_from_slice(&[what, first, many as u32]);
    }
    all.resize(all.len().next_multiple_of(2), 0);
    all[LENGTH] = all.len() as u32;
    bytes_of(&all)
}
