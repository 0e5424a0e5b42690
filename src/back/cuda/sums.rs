//! Sums over local changes of many configurations, as local energies are.

use super::device::DeviceError;
use super::flips::Sets;
use super::network::CudaNetwork;
use crate::back::cpu::flips::Place;
use crate::ir::Lattice;
use crate::pass::flips::Family;
use crate::run::terms::Terms;
use crate::run::{Spins, WaveFunction};
use num_complex::Complex64;
use std::collections::HashMap;

/// Bytes of configurations evaluated in full at once.
const AT_ONCE: usize = 1 << 24;

/// A change to be evaluated in full: configuration, sites, element.
type Alone<'t> = (usize, &'t [usize], Complex64);

/// Families of the changes asked for.
#[derive(Default)]
struct Asked<'t> {
    /// With how many changes belong to each.
    families: Vec<(Family, usize)>,
    index: HashMap<Family, usize>,
    /// Clusters come again in every configuration.
    known: HashMap<&'t [usize], Option<Place>>,
}

impl<'t> Asked<'t> {
    /// The family of a cluster, counted, and where it is.
    fn place(&mut self, lattice: Lattice, cluster: &'t [usize]) -> Option<Place> {
        let place = match self.known.get(cluster) {
            Some(&known) => known,
            None => {
                let place = Family::of(lattice, cluster).map(|(family, corner)| {
                    let family = *self.index.entry(family).or_insert_with_key(|family| {
                        self.families.push((family.clone(), 0));
                        self.families.len() - 1
                    });
                    Place { family, corner }
                });
                self.known.insert(cluster, place);
                place
            }
        };
        if let Some(place) = place {
            self.families[place.family].1 += 1;
        }
        place
    }
}

impl CudaNetwork {
    /// As [`WaveFunction::local_sums`].
    ///
    /// # Errors
    /// Too little memory, failures of the device.
    ///
    /// # Panics
    /// If `batch`, `terms` and `out` are of different numbers of configurations.
    pub fn try_local_sums(
        &self,
        batch: &Spins,
        terms: &[Terms],
        out: &mut [Complex64],
    ) -> Result<(), DeviceError> {
        assert_eq!(terms.len(), out.len(), "one sum per configuration");
        let lattice = self.lattice();
        let mut asked = Asked::default();
        let clusters = terms.iter().flat_map(Terms::clusters);
        let places: Vec<Option<Place>> = clusters.map(|c| asked.place(lattice, c)).collect();
        let program = self.flips_of(terms.len(), &asked.families);
        // families by their numbers in the program
        let number = |(family, _): &(Family, usize)| {
            let program = program.as_ref()?;
            program.families().iter().position(|f| f == family)
        };
        let numbers: Vec<Option<usize>> = asked.families.iter().map(number).collect();
        let (mut sets, mut alone, mut places) = (Sets::default(), Vec::new(), places.iter());
        for (sample, terms) in terms.iter().enumerate() {
            sets.begin(terms.diagonal);
            let each = terms.clusters().zip(&terms.elements).zip(&mut places);
            for ((cluster, &element), place) in each {
                let place = place.and_then(|p| {
                    let (family, corner) = (numbers[p.family]?, p.corner);
                    Some(Place { family, corner })
                });
                match (place, &program) {
                    (Some(place), Some(program)) => sets.push(program.first(place), element),
                    _ => alone.push((sample, cluster, element)),
                }
            }
        }
        match &program {
            Some(program) => {
                program.sums(batch, &sets, out)?;
                // windows may read sites beyond an open lattice, where a network
                // need not be finite
                let lost = |sample: &usize| !out[*sample].is_finite();
                let lost: Vec<usize> = (0..out.len()).filter(lost).collect();
                alone.retain(|a| lost.binary_search(&a.0).is_err());
                for &sample in &lost {
                    out[sample] = terms[sample].diagonal;
                    let each = terms[sample].clusters().zip(&terms[sample].elements);
                    alone.extend(each.map(|(cluster, &element)| (sample, cluster, element)));
                }
            }
            None => {
                let diagonals = terms.iter().map(|t| t.diagonal);
                out.iter_mut().zip(diagonals).for_each(|(o, d)| *o = d);
            }
        }
        self.add_in_full(batch, &alone, out)
    }

    /// Adds `element psi(s') / psi(s)`.
    fn add_in_full(
        &self,
        batch: &Spins,
        alone: &[Alone],
        out: &mut [Complex64],
    ) -> Result<(), DeviceError> {
        if alone.is_empty() {
            return Ok(());
        }
        let sites = self.lattice().sites();
        let mut old = vec![Complex64::ZERO; out.len()];
        self.try_log_psi(batch, &mut old)?;
        let mut changed = Vec::new();
        for alone in alone.chunks((AT_ONCE / sites).max(1)) {
            changed.clear();
            for &(sample, cluster, _) in alone {
                let first = changed.len();
                changed.extend_from_slice(&batch[sample * sites..(sample + 1) * sites]);
                for &site in cluster {
                    changed[first + site] = -changed[first + site];
                }
            }
            let mut new = vec![Complex64::ZERO; alone.len()];
            self.try_log_psi(&changed, &mut new)?;
            for (&(sample, _, element), new) in alone.iter().zip(new) {
                out[sample] += element * (new - old[sample]).exp();
            }
        }
        Ok(())
    }
}
