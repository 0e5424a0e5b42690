//! The flip programs of a network on a device: made on demand, kept, chosen by
//! cost.

use super::code::CudaError;
use super::device::{Buffer, Device};
use super::emit::Options;
use super::flips::{FlipError, FlipSource, Flips};
use crate::back::cpu::work::work;
use crate::ir::{Graph, Lattice};
use crate::kernel::Program;
use crate::pass::flips::Family;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// Families of one program.
const FAMILIES: usize = 16;

/// What programs are made from.
#[derive(Clone, Copy)]
pub(super) struct Network<'a> {
    pub(super) device: &'a Arc<dyn Device>,
    pub(super) graph: &'a Graph,
    pub(super) program: &'a Program,
    pub(super) theta: &'a [f64],
    pub(super) options: &'a Options,
}

/// Work of one run of a program, and of one change after that.
type Estimate = (f64, f64);

/// See the module.
#[derive(Default)]
pub(super) struct Clusters {
    singles: OnceLock<Result<Arc<Flips>, FlipError>>,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    /// By sorted families; `None` without program.
    estimates: HashMap<Vec<Family>, Option<Estimate>>,
    programs: HashMap<Vec<Family>, Option<Arc<Flips>>>,
}

/// New parameters of all programs, for [`Clusters::install`].
#[derive(Default)]
pub(super) struct Prepared {
    singles: Option<[[Buffer; 2]; 2]>,
    programs: HashMap<Vec<Family>, [[Buffer; 2]; 2]>,
}

impl Network<'_> {
    fn lattice(&self) -> Lattice {
        self.program.lattice
    }

    pub(super) fn source(&self, families: &[Family]) -> Result<FlipSource, FlipError> {
        FlipSource::new(self.graph, self.lattice(), families, self.options)
    }

    fn flips(&self, families: &[Family]) -> Result<Arc<Flips>, FlipError> {
        let source = self.source(families)?;
        let network = (self.graph, self.program);
        Ok(Arc::new(Flips::new(
            source,
            self.device,
            network,
            self.theta,
        )?))
    }
}

impl Clusters {
    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The program of single flips, or why there is none.
    pub(super) fn singles(&self, network: Network) -> Result<&Arc<Flips>, &FlipError> {
        let new = || network.flips(&[Family::single()]);
        self.singles.get_or_init(new).as_ref()
    }

    /// The program for families of which so many clusters of `samples`
    /// configurations are asked for, if it is less work than full evaluation.
    pub(super) fn choose(
        &self,
        network: Network,
        samples: usize,
        asked: &[(Family, usize)],
    ) -> Option<Arc<Flips>> {
        let mut asked = asked.to_vec();
        asked.retain(|(f, _)| self.estimate(network, std::slice::from_ref(f)).is_some());
        asked.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        asked.truncate(FAMILIES);
        // all of them, else without those asked for least often
        let full = work(network.program);
        while !asked.is_empty() {
            let mut wanted: Vec<Family> = asked.iter().map(|a| a.0.clone()).collect();
            wanted.sort_unstable();
            let changes = asked.iter().map(|a| a.1).sum::<usize>() as f64 / samples.max(1) as f64;
            let pays = |(build, each): Estimate| build + changes * each < changes * full;
            if self.estimate(network, &wanted).is_some_and(pays)
                && let Some(program) = self.program(network, wanted)
            {
                return Some(program);
            }
            asked.pop();
        }
        None
    }

    fn estimate(&self, network: Network, families: &[Family]) -> Option<Estimate> {
        let made = &mut *self.made();
        if let Some(&known) = made.estimates.get(families) {
            return known;
        }
        let source = network.source(families).ok();
        let new = source.map(|s| (s.work(0.0), s.work(1.0) - s.work(0.0)));
        made.estimates.insert(families.to_vec(), new);
        new
    }

    fn program(&self, network: Network, families: Vec<Family>) -> Option<Arc<Flips>> {
        if families == [Family::single()] {
            return self.singles(network).ok().cloned();
        }
        let made = &mut *self.made();
        let new = || network.flips(&families).ok();
        made.programs
            .entry(families.clone())
            .or_insert_with(new)
            .clone()
    }

    /// What new parameters change, for [`Clusters::install`].
    ///
    /// # Errors
    /// See [`CudaError`].
    pub(super) fn prepare(&self, network: Network) -> Result<Prepared, CudaError> {
        let pair = (network.graph, network.program);
        let prepare = |p: &Arc<Flips>| p.prepare(pair, network.theta);
        let singles = self.singles.get().and_then(|s| s.as_ref().ok());
        let mut programs = HashMap::new();
        for (families, program) in &self.made().programs {
            if let Some(program) = program {
                programs.insert(families.clone(), prepare(program)?);
            }
        }
        Ok(Prepared {
            singles: singles.map(prepare).transpose()?,
            programs,
        })
    }

    /// Puts prepared parameters in force.
    pub(super) fn install(&mut self, mut prepared: Prepared) {
        // nobody else holds a program, for whoever asks borrows the network; one
        // that is held all the same is made anew when it is needed
        let install = |p: &mut Arc<Flips>, new| match Arc::get_mut(p) {
            Some(p) => {
                p.install(new);
                true
            }
            None => false,
        };
        if let Some(Ok(p)) = self.singles.get_mut()
            && !prepared.singles.is_some_and(|new| install(p, new))
        {
            self.singles = OnceLock::new();
        }
        let made = self.made.get_mut().unwrap_or_else(|e| e.into_inner());
        made.programs.retain(|families, program| match program {
            None => true,
            Some(p) => prepared
                .programs
                .remove(families)
                .is_some_and(|new| install(p, new)),
        });
    }
}
