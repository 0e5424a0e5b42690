//! Local changes as `kernels/sums.cuh` reads them.

use super::device::{Buffer, Device, DeviceError};
use super::sums::words;
use crate::run::changes::Changes;
use num_complex::Complex64;
use std::sync::Arc;

/// Some clusters of [`Changes`] on a device.
pub struct Table {
    /// Spins of a configuration.
    pub sites: usize,
    /// How many clusters.
    pub clusters: usize,
    /// Whether none of their elements is ever zero.
    pub certain: bool,
    /// Whether the diagonal is there too.
    pub diagonal: bool,
    /// `sums::Table::words`, so many numbers.
    pub words: Buffer,
    /// How many.
    pub numbers: usize,
    /// `sums::Table::coefficients`.
    pub coefficients: Buffer,
    /// What `changed_spins` reads, and how many numbers.
    pub flipped: (Buffer, usize),
}

/// Strings as lists: where the sites of each end, the sites, coefficients.
#[derive(Default)]
struct Flat {
    ends: Vec<u32>,
    sites: Vec<u32>,
    coefficients: Vec<Complex64>,
}

impl Flat {
    fn push(&mut self, coefficient: Complex64, sites: &[u32]) {
        self.sites.extend_from_slice(sites);
        self.ends.push(self.sites.len() as u32);
        self.coefficients.push(coefficient);
    }
}

impl Table {
    /// Copies some clusters to a device, each by what a list of sets is to say of it.
    ///
    /// # Errors
    /// Too little memory, more numbers than kernels can count.
    pub fn new(
        device: &Arc<dyn Device>,
        sites: usize,
        changes: &Changes,
        (clusters, firsts): (&[usize], &[u32]),
        diagonal: bool,
    ) -> Result<Table, DeviceError> {
        let mut flat = Flat::default();
        let mut places = Vec::with_capacity(2 * clusters.len() + 2);
        let mut flips = vec![0];
        let mut flipped = Vec::new();
        flat.coefficients.push(changes.constant().into());
        for (&k, &first) in clusters.iter().zip(firsts) {
            places.extend([first, flat.ends.len() as u32]);
            for (coefficient, sites) in changes.strings(k) {
                flat.push(coefficient, sites);
            }
            flipped.extend_from_slice(changes.flips(k));
            flips.push(flipped.len() as u32);
        }
        let strings = flat.ends.len();
        places.extend([0, strings as u32]);
        let (mut own, mut displacements) = (0, Vec::new());
        let pairs = changes.pairs();
        if diagonal {
            let all = changes.diagonal_strings();
            own = all.len();
            for k in 0..own {
                let (coefficient, sites) = all.get(k);
                flat.push(coefficient, sites);
            }
            for &([x, y], coupling) in &pairs.couplings {
                displacements.extend([x as u32, y as u32]);
                flat.coefficients.push(coupling.into());
            }
        }
        let head = [clusters.len(), strings, own, displacements.len() / 2];
        let head = head.into_iter().chain(pairs.extent).chain(pairs.torus);
        let mut all: Vec<u32> = head.map(|n| n as u32).collect();
        all.extend(places);
        all.push(0);
        all.extend(flat.ends);
        all.extend(displacements);
        all.extend(flat.sites);
        flips.extend(flipped);
        let numbers = all.len();
        if numbers.max(flips.len()) > i32::MAX as usize {
            return Err(DeviceError::new("the operator is too large for the GPU"));
        }
        let coefficients = flat.coefficients.iter().flat_map(|z| [z.re, z.im]);
        let coefficients: Vec<u8> = coefficients.flat_map(f64::to_ne_bytes).collect();
        Ok(Table {
            sites,
            clusters: clusters.len(),
            certain: changes.never_vanish(clusters),
            diagonal,
            words: words(device, all)?,
            numbers,
            coefficients: Buffer::holding(device, &coefficients)?,
            flipped: (words(device, flips.clone())?, flips.len()),
        })
    }
}
