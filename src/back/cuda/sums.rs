//! Sums over local changes of many configurations, as local energies are.
//!
//! The changes are copied to the device once. There they become a list of what does not
//! vanish for each configuration, its *sets* ([`LIBRARY`]); log psi of the sets comes
//! from a flip program, or, for clusters that none covers, from full evaluations; the
//! sums stay there, as [`DeviceValues`].

use super::code::{Operands, bytes_of, spins};
use super::device::{Buffer, Device, DeviceError, Launch, Module, Span, Stream, in_turns};
use super::emit::Kernel;
use super::flips::Flips;
use super::network::CudaNetwork;
use super::table::Table;
use super::values::DeviceValues;
use crate::back::cpu::flips::Place;
use crate::ir::Lattice;
use crate::pass::flips::Family;
use crate::run::changes::Changes;
use crate::run::network::Precision;
use crate::run::{Spins, WaveFunction};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The kernels written by hand, to follow the device library.
pub const LIBRARY: &str = include_str!("../../../kernels/sums.cuh");

/// Their names.
pub const NAMES: [&str; 10] = [
    "change_counts",
    "change_starts",
    "change_lists",
    "changed_spins",
    "sum_ratios",
    "moments",
    "pieces",
    "among_pieces",
    "autocovariance",
    "centred",
];

/// Threads of their blocks.
pub(super) const THREADS: usize = 256;

/// Operators whose changes stay on the device.
const KEPT: usize = 8;

/// All kernels, as the host launches them.
pub fn kernels() -> Vec<Kernel> {
    NAMES.map(kernel).to_vec()
}

fn kernel(name: &'static str) -> Kernel {
    let alone = ["changed_spins", "sum_ratios", "pieces", "centred"].contains(&name);
    Kernel {
        threads: THREADS,
        shared: if alone { 0 } else { 8 * THREADS },
        ..Kernel::by_hand(name)
    }
}

/// The kernels on a device, and the changes that were asked for.
pub struct Sums {
    pub(super) device: Arc<dyn Device>,
    module: Arc<dyn Module>,
    placed: Mutex<Vec<Arc<Placed>>>,
    kept: Mutex<Vec<Arc<Split>>>,
}

/// Which family every cluster belongs to, and how many belong to each.
struct Placed {
    changes: Arc<Changes>,
    families: Vec<(Family, usize)>,
    places: Vec<Option<Place>>,
}

impl Placed {
    fn new(lattice: Lattice, changes: &Arc<Changes>) -> Placed {
        let mut families: Vec<(Family, usize)> = Vec::new();
        let mut known: HashMap<Family, usize> = HashMap::new();
        let mut place = |k: usize| {
            let flips: Vec<usize> = changes.flips(k).iter().map(|&f| f as usize).collect();
            let (family, corner) = Family::of(lattice, &flips)?;
            let family = *known.entry(family).or_insert_with_key(|family| {
                families.push((family.clone(), 0));
                families.len() - 1
            });
            families[family].1 += 1;
            Some(Place { family, corner })
        };
        let places = (0..changes.len()).map(&mut place).collect();
        Placed {
            changes: changes.clone(),
            families,
            places,
        }
    }
}

/// The one there is, or a new one in place of the oldest.
fn kept<T>(
    all: &Mutex<Vec<Arc<T>>>,
    same: impl Fn(&T) -> bool,
    make: impl FnOnce() -> Result<T, DeviceError>,
) -> Result<Arc<T>, DeviceError> {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = all.iter().find(|known| same(known)) {
        return Ok(known.clone());
    }
    let new = Arc::new(make()?);
    if all.len() == KEPT {
        all.remove(0);
    }
    all.push(new.clone());
    Ok(new)
}

/// Changes on a device: those a flip program covers, and the others.
struct Split {
    changes: Arc<Changes>,
    /// Of the program.
    families: Vec<Family>,
    inside: Option<Table>,
    outside: Option<Table>,
}

/// Some configurations on a device.
struct Part {
    count: usize,
    spins: Buffer,
}

/// Their sets.
struct Sets {
    count: usize,
    /// Where those of every configuration begin.
    starts: Buffer,
    /// A list, see `change_lists`, and behind it the elements.
    list: Buffer,
}

impl Sets {
    fn list(&self) -> Span {
        self.list.part(8 * self.count)
    }
    fn elements(&self) -> Span {
        self.list.span().range(8 * self.count..24 * self.count)
    }
}

/// The number as kernels take it.
pub(super) fn size(n: usize) -> Result<i32, DeviceError> {
    i32::try_from(n).map_err(|_| DeviceError::new("too many local changes for the GPU"))
}

impl Sums {
    /// Compiles and loads the kernels.
    ///
    /// # Errors
    /// Compilation failures.
    pub fn new(device: &Arc<dyn Device>) -> Result<Sums, DeviceError> {
        Ok(Sums {
            module: Arc::from(device.load_kernels(Precision::F64, &[LIBRARY])?),
            device: device.clone(),
            placed: Mutex::default(),
            kept: Mutex::default(),
        })
    }

    pub(super) fn launch(
        &self,
        stream: Stream,
        name: &'static str,
        blocks: usize,
        a: &Launch,
    ) -> Result<(), DeviceError> {
        size(a.samples)?;
        let blocks = blocks.clamp(1, self.device.blocks().max(1));
        self.module.launch_on(stream, &kernel(name), blocks, a)
    }

    /// Which families its clusters belong to.
    fn placed(&self, lattice: Lattice, changes: &Arc<Changes>) -> Result<Arc<Placed>, DeviceError> {
        let same = |p: &Placed| Arc::ptr_eq(&p.changes, changes);
        kept(&self.placed, same, || Ok(Placed::new(lattice, changes)))
    }

    /// The changes on the device, those of `program` apart.
    fn split(
        &self,
        lattice: Lattice,
        placed: &Placed,
        program: Option<&Arc<Flips>>,
    ) -> Result<Arc<Split>, DeviceError> {
        let own = program.map_or(&[][..], |p| p.families());
        let same = |s: &Split| Arc::ptr_eq(&s.changes, &placed.changes) && s.families == own;
        kept(&self.kept, same, || {
            self.divide(lattice, placed, program, own)
        })
    }

    fn divide(
        &self,
        lattice: Lattice,
        placed: &Placed,
        program: Option<&Arc<Flips>>,
        own: &[Family],
    ) -> Result<Split, DeviceError> {
        let number = |(f, _): &(Family, usize)| own.iter().position(|own| own == f);
        let numbers: Vec<Option<usize>> = placed.families.iter().map(number).collect();
        let (mut inside, mut firsts, mut outside) = (Vec::new(), Vec::new(), Vec::new());
        for (k, place) in placed.places.iter().enumerate() {
            let place = place.and_then(|p| {
                let (family, corner) = (numbers[p.family]?, p.corner);
                Some(Place { family, corner })
            });
            match (place, program) {
                (Some(place), Some(program)) => {
                    inside.push(k);
                    firsts.push(program.first(place));
                }
                _ => outside.push(k),
            }
        }
        let (sites, changes) = (lattice.sites(), &placed.changes);
        let (within, without) = (!inside.is_empty(), !outside.is_empty());
        let table = |clusters: &[usize], firsts: &[u32], diagonal| {
            Table::new(&self.device, sites, changes, (clusters, firsts), diagonal)
        };
        let numbers: Vec<u32> = (0..outside.len() as u32).collect();
        Ok(Split {
            changes: changes.clone(),
            families: own.to_vec(),
            inside: (within.then(|| table(&inside, &firsts, true))).transpose()?,
            // who changes nothing still has a diagonal
            outside: ((without || !within).then(|| table(&outside, &numbers, !within)))
                .transpose()?,
        })
    }

    /// What does not vanish for some configurations.
    fn sets(&self, stream: Stream, table: &Table, part: &Part) -> Result<Sets, DeviceError> {
        let starts = Buffer::on(&self.device, stream, 8 * (part.count + 1))?;
        let mut launch = Launch {
            samples: part.count,
            sizes: [size(table.sites)?, size(table.numbers)?, 0, 0],
            spins: part.spins.span(),
            inputs: table.words.span(),
            constants64: table.coefficients.span(),
            outputs: starts.span(),
            ..Launch::default()
        };
        self.launch(stream, "change_counts", part.count, &launch)?;
        self.launch(stream, "change_starts", 1, &launch)?;
        let count = match table.certain {
            true => part.count * (table.clusters + 1),
            false => {
                let last = starts.span().range(8 * part.count..8 * (part.count + 1));
                let mut bytes = [0; 8];
                self.device.download_on(stream, last, &mut bytes)?;
                f64::from_ne_bytes(bytes) as usize
            }
        };
        let list = Buffer::on(&self.device, stream, 24 * count)?;
        launch.sizes[2] = size(2 * count)? / 2;
        launch.sizes[3] = i32::from(table.diagonal);
        launch.outputs = list.span();
        launch.workspace = starts.span();
        self.launch(stream, "change_lists", part.count, &launch)?;
        Ok(Sets {
            count,
            starts,
            list,
        })
    }

    /// Adds up ratios of some configurations, from log psi of their sets.
    fn ratios(
        &self,
        part: &Part,
        sets: &Sets,
        (log_psi, width): (&Buffer, usize),
        (to, add): (Span, bool),
    ) -> Result<(), DeviceError> {
        let launch = Launch {
            samples: part.count,
            sizes: [size(width)?, i32::from(add), 0, 0],
            inputs: log_psi.span(),
            constants64: sets.elements(),
            workspace: sets.starts.span(),
            outputs: to,
            ..Launch::default()
        };
        let blocks = part.count.div_ceil(THREADS / 32);
        self.launch(part.spins.stream(), "sum_ratios", blocks, &launch)
    }
}

impl CudaNetwork {
    /// As [`WaveFunction::local_sums`].
    ///
    /// # Errors
    /// Too little memory, failures of the device.
    ///
    /// # Panics
    /// If the batch is not made of whole configurations.
    pub fn try_local_sums(
        &self,
        batch: &Spins,
        changes: &Arc<Changes>,
    ) -> Result<DeviceValues, DeviceError> {
        let lattice = self.lattice();
        let sites = lattice.sites();
        assert!(batch.len().is_multiple_of(sites), "whole configurations");
        let sums = self.sums()?;
        let placed = sums.placed(lattice, changes)?;
        let program = self.flips_of(1, &placed.families);
        let split = sums.split(lattice, &placed, program.as_ref())?;
        let values = DeviceValues::new(sums, batch.len() / sites)?;
        if let (Some(table), Some(program)) = (&split.inside, &program) {
            self.by_program(batch, (sums, table), program, &values)?;
        }
        if let Some(table) = &split.outside {
            self.in_full(batch, (sums, table), split.inside.is_some(), &values)?;
        }
        // windows may read sites beyond an open lattice, where a network need not be
        // finite
        let (mean, scatter) = values.known_moments()?;
        if split.inside.is_some() && !(mean.is_finite() && scatter.is_finite()) {
            return self.once_more_in_full(batch, sums, changes, &values);
        }
        Ok(values)
    }

    /// Sums over changes that a flip program covers, to `values`.
    fn by_program(
        &self,
        batch: &Spins,
        (sums, table): (&Sums, &Table),
        program: &Flips,
        values: &DeviceValues,
    ) -> Result<(), DeviceError> {
        let (sites, count) = (table.sites, values.count);
        let at_once = program.at_once(count, table.clusters + 1);
        in_turns(
            &*self.device().clone(),
            batch.chunks(at_once * sites).enumerate(),
            |stream, (k, batch)| {
                let part = self.part(stream, batch)?;
                let sets = sums.sets(stream, table, &part)?;
                let spins = (part.count, part.spins.span());
                let log_psi = program.log_psi(stream, spins, (sets.count, sets.list()))?;
                let from = k * at_once;
                let to = (values.range(from..from + part.count), false);
                sums.ratios(&part, &sets, (&log_psi, program.outputs()), to)
            },
            |()| Ok(()),
        )
    }

    /// Sums over changes by full evaluations, to `values`, or to what is there.
    fn in_full(
        &self,
        batch: &Spins,
        (sums, table): (&Sums, &Table),
        add: bool,
        values: &DeviceValues,
    ) -> Result<(), DeviceError> {
        let width = self.full().outputs();
        let each = table.sites + 8 + (table.clusters + 1) * (24 + 8 * width);
        let longest = i32::MAX as usize / (2 * (table.clusters + 1));
        let at_once = (self.device().budget() / 4 / each).clamp(1, longest.max(1));
        for (k, batch) in batch.chunks(at_once * table.sites).enumerate() {
            let part = self.part(Stream::MAIN, batch)?;
            let sets = sums.sets(Stream::MAIN, table, &part)?;
            let log_psi = match table.clusters {
                // nothing but the diagonal
                0 => Buffer::holding(self.device(), &vec![0; 8 * width * sets.count])?,
                _ => self.log_psi_of_sets((sums, table), &part, &sets)?,
            };
            let from = k * at_once;
            let to = (values.range(from..from + part.count), add);
            sums.ratios(&part, &sets, (&log_psi, width), to)?;
        }
        Ok(())
    }

    /// log psi of sets by full evaluations, as many at a time as fit.
    fn log_psi_of_sets(
        &self,
        (sums, table): (&Sums, &Table),
        part: &Part,
        sets: &Sets,
    ) -> Result<Buffer, DeviceError> {
        let (device, width, sites) = (self.device(), self.full().outputs(), table.sites);
        let log_psi = Buffer::new(device, 8 * width * sets.count)?;
        let at_once = self.full().within(device.budget() / 2, sets.count);
        for from in (0..sets.count).step_by(at_once) {
            let to = (from + at_once).min(sets.count);
            let count = to - from;
            let bytes = (count * sites).next_multiple_of(8);
            let changed = Buffer::new(device, bytes)?;
            let launch = Launch {
                samples: count,
                sizes: [
                    size(sites)?,
                    size(table.flipped.1)?,
                    size(table.clusters)?,
                    0,
                ],
                spins: part.spins.span(),
                inputs: table.flipped.0.span(),
                constants64: sets.list().range(8 * from..8 * to),
                outputs: changed.span(),
                ..Launch::default()
            };
            sums.launch(Stream::MAIN, "changed_spins", count, &launch)?;
            let operands = Operands {
                spins: changed.part(count * sites),
                ..Operands::default()
            };
            let results = log_psi.span().range(8 * width * from..8 * width * to);
            (self.full()).run_into(Stream::MAIN, count, operands, results)?;
        }
        Ok(log_psi)
    }

    /// The sums of those configurations anew for which they are not finite.
    fn once_more_in_full(
        &self,
        batch: &Spins,
        sums: &Arc<Sums>,
        changes: &Arc<Changes>,
        values: &DeviceValues,
    ) -> Result<DeviceValues, DeviceError> {
        let sites = self.lattice().sites();
        let mut all = values.download()?;
        let lost: Vec<usize> = (0..all.len()).filter(|&k| !all[k].is_finite()).collect();
        let spins = lost
            .iter()
            .flat_map(|&k| &batch[k * sites..(k + 1) * sites]);
        let spins: Vec<i8> = spins.copied().collect();
        let clusters: Vec<usize> = (0..changes.len()).collect();
        let numbers: Vec<u32> = (0..changes.len() as u32).collect();
        let table = (clusters.as_slice(), numbers.as_slice());
        let table = Table::new(self.device(), sites, changes, table, true)?;
        let anew = DeviceValues::new(sums, lost.len())?;
        self.in_full(&spins, (sums, &table), false, &anew)?;
        for (k, z) in lost.into_iter().zip(anew.download()?) {
            all[k] = z;
        }
        DeviceValues::holding(sums, &all)
    }

    /// Configurations on the device.
    fn part(&self, stream: Stream, batch: &Spins) -> Result<Part, DeviceError> {
        Ok(Part {
            count: batch.len() / self.lattice().sites(),
            spins: spins(self.device(), stream, batch)?,
        })
    }
}

/// Numbers of a table as the device has them: whole doubles.
pub(super) fn words(device: &Arc<dyn Device>, mut all: Vec<u32>) -> Result<Buffer, DeviceError> {
    all.resize(all.len().next_multiple_of(2), 0);
    Buffer::holding(device, &bytes_of(&all))
}
