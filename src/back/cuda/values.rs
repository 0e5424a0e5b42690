//! Complex values of configurations that stay on a device, and their statistics: the
//! second half of `kernels/sums.cuh`.

use super::device::{Buffer, DeviceError, Launch, Span, Stream};
use super::sums::{Sums, THREADS, size};
use crate::run::values::Values;
use num_complex::Complex64;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Complex values of configurations on a device.
pub struct DeviceValues {
    sums: Arc<Sums>,
    values: Buffer,
    pub(super) count: usize,
    moments: OnceLock<(Complex64, f64)>,
}

/// Complex numbers as the device has them.
fn interleaved(values: &[Complex64]) -> Vec<u8> {
    let numbers = values.iter().flat_map(|z| [z.re, z.im]);
    numbers.flat_map(f64::to_ne_bytes).collect()
}

impl DeviceValues {
    pub(super) fn new(sums: &Arc<Sums>, count: usize) -> Result<DeviceValues, DeviceError> {
        Ok(DeviceValues {
            values: Buffer::new(&sums.device, 16 * count)?,
            sums: sums.clone(),
            count,
            moments: OnceLock::new(),
        })
    }

    /// These values on a device.
    ///
    /// # Errors
    /// Too little memory.
    pub fn holding(sums: &Arc<Sums>, all: &[Complex64]) -> Result<DeviceValues, DeviceError> {
        let values = DeviceValues::new(sums, all.len())?;
        if !all.is_empty() {
            values.values.write(&interleaved(all))?;
        }
        Ok(values)
    }

    /// Where some of them are.
    pub(super) fn range(&self, of: Range<usize>) -> Span {
        self.values.span().range(16 * of.start..16 * of.end)
    }

    pub(super) fn download(&self) -> Result<Vec<Complex64>, DeviceError> {
        let numbers = self.values.numbers(2 * self.count)?;
        let all = numbers.chunks_exact(2).map(|z| Complex64::new(z[0], z[1]));
        Ok(all.collect())
    }

    /// Runs a kernel on the values, or on `from`: so many numbers as it gives.
    fn run(
        &self,
        name: &'static str,
        (samples, blocks): (usize, usize),
        sizes: &[usize],
        (from, vector): (Option<&Buffer>, &[f64]),
        results: usize,
    ) -> Result<Buffer, DeviceError> {
        let device = &self.sums.device;
        let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_ne_bytes()).collect();
        let vector = Buffer::holding(device, &bytes)?;
        let outputs = Buffer::new(device, 8 * results)?;
        let mut own = [0; 4];
        for (own, &n) in own.iter_mut().zip(sizes) {
            *own = size(n)?;
        }
        let launch = Launch {
            samples,
            sizes: own,
            inputs: from.unwrap_or(&self.values).span(),
            constants64: vector.span(),
            outputs: outputs.span(),
            ..Launch::default()
        };
        self.sums.launch(Stream::MAIN, name, blocks, &launch)?;
        Ok(outputs)
    }

    pub(super) fn known_moments(&self) -> Result<(Complex64, f64), DeviceError> {
        if let Some(&known) = self.moments.get() {
            return Ok(known);
        }
        let found = self.run("moments", (self.count, 1), &[], (None, &[]), 3)?;
        let found = found.numbers(3)?;
        let moments = (Complex64::new(found[0], found[1]), found[2]);
        Ok(*self.moments.get_or_init(|| moments))
    }

    /// What was found, or this where the device failed.
    fn found_or<T>(&self, found: Result<T, DeviceError>, otherwise: T) -> T {
        found.unwrap_or_else(|e| {
            self.sums.device.report(&e);
            otherwise
        })
    }

    /// Sum of the scatters within pieces, and scatter of their means about a number or
    /// their own mean. Pieces: how many, their sizes for the kernel.
    fn pieces(
        &self,
        (count, sizes): (usize, [usize; 3]),
        about: Option<Complex64>,
    ) -> Result<[f64; 2], DeviceError> {
        let blocks = count.div_ceil(THREADS);
        let each = self.run("pieces", (count, blocks), &sizes, (None, &[]), 3 * count)?;
        let numbers = about.map(|z| [z.re, z.im]);
        let about = numbers.as_ref().map_or(&[][..], |z| z);
        let given = [usize::from(!about.is_empty())];
        let found = self.run("among_pieces", (count, 1), &given, (Some(&each), about), 2)?;
        let found = found.numbers(2)?;
        Ok([found[0], found[1]])
    }
}

impl Values for DeviceValues {
    fn count(&self) -> usize {
        self.count
    }
    fn all(&self) -> Vec<Complex64> {
        let nan = Complex64::new(f64::NAN, f64::NAN);
        self.found_or(self.download(), vec![nan; self.count])
    }
    fn moments(&self) -> (Complex64, f64) {
        let nan = Complex64::new(f64::NAN, f64::NAN);
        self.found_or(self.known_moments(), (nan, f64::NAN))
    }
    fn scatter_of_blocks(&self, block: usize, about: Complex64) -> f64 {
        let pieces = (self.count / block, [block, block, 0]);
        self.found_or(self.pieces(pieces, Some(about)), [f64::NAN; 2])[1]
    }
    fn scatter_of_halves(&self, per_chain: usize) -> [f64; 2] {
        let halves = 2 * (self.count / per_chain);
        let pieces = (halves, [per_chain / 2, per_chain, 1]);
        self.found_or(self.pieces(pieces, None), [f64::NAN; 2])
    }
    fn autocovariance(&self, per_chain: usize, about: Complex64, lags: usize) -> Vec<f64> {
        let lags = lags.min(per_chain);
        let sizes = [per_chain, self.count / per_chain];
        let about = [about.re, about.im];
        let found = self.run("autocovariance", (lags, lags), &sizes, (None, &about), lags);
        self.found_or(found.and_then(|f| f.numbers(lags)), vec![f64::NAN; lags])
    }
    fn centred(&self, parts: usize) -> Vec<f64> {
        let (mean, _) = self.moments();
        let root = (self.count as f64).recip().sqrt();
        let (total, blocks) = (parts * self.count, self.count.div_ceil(THREADS));
        let about = [mean.re, mean.im, root];
        let found = self.run(
            "centred",
            (self.count, blocks),
            &[parts],
            (None, &about),
            total,
        );
        self.found_or(found.and_then(|f| f.numbers(total)), vec![f64::NAN; total])
    }
}
