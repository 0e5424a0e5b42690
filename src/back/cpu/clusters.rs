//! The flip programs of a network: made on demand, kept, chosen by cost.

use super::compiled::{CompileError, Compiled};
use super::flips::{Estimate, FlipError, Flips, PreparedFlips};
use super::kernels::Kernels;
use super::network::Updates;
use super::simd::Real;
use super::work::work;
use crate::pass::flips::Family;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// Programs kept besides that of single flips.
const PROGRAMS: usize = 12;
/// Families of one program.
const FAMILIES: usize = 16;
/// Estimates kept.
const ESTIMATES: usize = 1024;

/// See the module.
pub(super) struct Clusters<T: Real> {
    singles: OnceLock<Result<Arc<Flips<T>>, FlipError>>,
    made: Mutex<Made<T>>,
    /// Work of one full evaluation.
    full: f64,
}

struct Made<T: Real> {
    /// By sorted families; `None` without program.
    estimates: HashMap<Vec<Family>, Option<Estimate>>,
    /// The most recently used last.
    programs: Vec<Arc<Flips<T>>>,
}

/// New parameters of all programs there are.
pub(super) struct PreparedClusters<T: Real> {
    singles: Option<PreparedFlips<T>>,
    programs: Vec<PreparedFlips<T>>,
}

impl<T: Real> Clusters<T> {
    pub(super) fn new(network: &Compiled<T>) -> Self {
        Clusters {
            full: work(network.program()),
            singles: OnceLock::new(),
            made: Mutex::new(Made {
                estimates: HashMap::new(),
                programs: Vec::new(),
            }),
        }
    }

    fn made(&self) -> MutexGuard<'_, Made<T>> {
        self.made.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The program of single flips, or why there is none.
    pub(super) fn singles(&self, network: &Compiled<T>) -> Result<&Arc<Flips<T>>, &FlipError> {
        let new = || Flips::new(network, &[Family::single()]).map(Arc::new);
        self.singles.get_or_init(new).as_ref()
    }

    /// The program for families of which so many clusters of one configuration
    /// are asked for: those for which it is less work than full evaluation.
    pub(super) fn choose(
        &self,
        network: &Compiled<T>,
        updates: Updates,
        asked: &[(Family, usize)],
    ) -> Option<Arc<Flips<T>>> {
        let full = self.full;
        let single = self.estimate(network, &[Family::single()])?;
        let wanted = match updates {
            Updates::Full => return None,
            Updates::Abacus => {
                let exists = |f: &Family| self.estimate(network, std::slice::from_ref(f)).is_some();
                let mut wanted: Vec<Family> = asked.iter().map(|a| a.0.clone()).collect();
                wanted.retain(exists);
                wanted.truncate(FAMILIES);
                wanted.sort_unstable();
                wanted
            }
            Updates::Automatic => {
                // every program contains the evaluation of the background
                let saved = |family: &Family, count: usize| {
                    let least = 0.5 * (single.build - full);
                    if (count as f64) * full < least {
                        return None;
                    }
                    let e = self.estimate(network, std::slice::from_ref(family))?;
                    let saved = count as f64 * (full - e.each) - (e.build - full);
                    (saved > 0.0).then_some(saved)
                };
                let mut paying: Vec<(f64, &Family, usize)> = asked
                    .iter()
                    .filter_map(|(f, count)| Some((saved(f, *count)?, f, *count)))
                    .collect();
                paying.sort_by(|a, b| b.0.total_cmp(&a.0));
                paying.truncate(FAMILIES);
                let clusters: usize = paying.iter().map(|p| p.2).sum();
                let mut wanted: Vec<Family> = paying.into_iter().map(|p| p.1.clone()).collect();
                wanted.sort_unstable();
                if wanted.is_empty() {
                    return None;
                }
                let e = self.estimate(network, &wanted)?;
                if e.build + clusters as f64 * e.each > clusters as f64 * full {
                    return None;
                }
                wanted
            }
        };
        if wanted.is_empty() {
            return None;
        }
        if wanted == [Family::single()] {
            return self.singles(network).ok().cloned();
        }
        self.compiled(network, &wanted)
    }

    fn estimate(&self, network: &Compiled<T>, families: &[Family]) -> Option<Estimate> {
        let made = &mut *self.made();
        if let Some(&known) = made.estimates.get(families) {
            return known;
        }
        if made.estimates.len() >= ESTIMATES {
            made.estimates.clear();
        }
        let new = Flips::estimate(network, families).ok();
        made.estimates.insert(families.to_vec(), new);
        new
    }

    /// The program of exactly these families: what a background computes must not
    /// depend on what others have asked for.
    fn compiled(&self, network: &Compiled<T>, wanted: &[Family]) -> Option<Arc<Flips<T>>> {
        let made = &mut *self.made();
        let found = made.programs.iter().position(|p| p.families() == wanted);
        let program = match found {
            Some(k) => made.programs.remove(k),
            None => match Flips::new(network, wanted) {
                Ok(program) => Arc::new(program),
                Err(_) => {
                    made.estimates.insert(wanted.to_vec(), None);
                    return None;
                }
            },
        };
        if made.programs.len() == PROGRAMS {
            made.programs.remove(0);
        }
        made.programs.push(program.clone());
        Some(program)
    }

    /// What new parameters change, for [`Clusters::install`].
    ///
    /// # Errors
    /// Parameters for which a mixer does not exist.
    pub(super) fn prepare(
        &self,
        network: &Compiled<T>,
        theta: &[f64],
    ) -> Result<PreparedClusters<T>, CompileError> {
        let made = self.made();
        let singles = self.singles.get().and_then(|s| s.as_ref().ok());
        if singles.is_none() && made.programs.is_empty() {
            return Ok(PreparedClusters {
                singles: None,
                programs: Vec::new(),
            });
        }
        let kernels = Kernels::new(network.graph(), network.program(), theta)?;
        let prepare = |p: &Arc<Flips<T>>| p.prepare(&kernels, theta);
        Ok(PreparedClusters {
            singles: singles.map(prepare).transpose()?,
            programs: made
                .programs
                .iter()
                .map(prepare)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Puts prepared parameters in force.
    pub(super) fn install(&mut self, prepared: PreparedClusters<T>) {
        // nobody else holds a program, for backgrounds borrow the network; one
        // that is held all the same is made anew when it is needed
        let install = |p: &mut Arc<Flips<T>>, new| match Arc::get_mut(p) {
            Some(p) => {
                p.install(new);
                true
            }
            None => false,
        };
        if let (Some(Ok(p)), Some(new)) = (self.singles.get_mut(), prepared.singles)
            && !install(p, new)
        {
            self.singles = OnceLock::new();
        }
        let made = self.made.get_mut().unwrap_or_else(|e| e.into_inner());
        let mut new = prepared.programs.into_iter();
        (made.programs).retain_mut(|p| new.next().is_some_and(|new| install(p, new)));
    }
}
