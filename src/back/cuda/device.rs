//! What a network asks of the machine its kernels run on.

use super::emit::Kernel;
use super::translation_unit;
use crate::run::network::Precision;
use std::sync::Arc;

/// A failure of a device, as a sentence.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct DeviceError(pub String);

impl DeviceError {
    /// With this text.
    pub fn new(text: impl Into<String>) -> DeviceError {
        DeviceError(text.into())
    }
}

/// An address in device memory and how many bytes follow; 0 and 0 for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub address: u64,
    /// Bytes.
    pub bytes: usize,
}

/// Arguments of a launch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Launch {
    /// Configurations.
    pub samples: usize,
    /// Configurations, one byte per spin.
    pub spins: Span,
    /// Host-written numbers, f64.
    pub inputs: Span,
    /// Constants in working precision.
    pub constants: Span,
    /// Constants in f64.
    pub constants64: Span,
    /// Memory of the blocks, f64.
    pub workspace: Span,
    /// Results, f64.
    pub outputs: Span,
    /// Results on sites, in working precision.
    pub site_outputs: Span,
}

/// Kernels that were loaded together, ready to launch.
pub trait Module: Send + Sync {
    /// Runs a kernel, after everything the device was asked for before. It need not
    /// have ended when this returns: downloads wait for it, and memory released
    /// meanwhile is written again only by what comes later.
    ///
    /// # Errors
    /// Failures of the launch; those of the kernel may be reported by what follows.
    fn launch(&self, kernel: &Kernel, blocks: usize, a: &Launch) -> Result<(), DeviceError>;
}

/// A machine with memory of its own.
pub trait Device: Send + Sync {
    /// What it is, for people.
    fn name(&self) -> String;
    /// Compiles and loads a translation unit.
    ///
    /// # Errors
    /// Compilation failures, with the compiler's messages.
    fn load(&self, unit: &str) -> Result<Box<dyn Module>, DeviceError>;
    /// Compiles and loads kernels; a device may compile each on its own, and
    /// several at once.
    ///
    /// # Errors
    /// Compilation failures, with the compiler's messages.
    fn load_kernels(
        &self,
        precision: Precision,
        kernels: &[&str],
    ) -> Result<Box<dyn Module>, DeviceError> {
        self.load(&translation_unit(precision, kernels.iter().copied()))
    }
    /// New memory.
    ///
    /// # Errors
    /// Not enough of it.
    fn allocate(&self, bytes: usize) -> Result<u64, DeviceError>;
    /// Gives memory back.
    fn release(&self, address: u64);
    /// Copies to the device.
    ///
    /// # Errors
    /// Failures of the copy.
    fn upload(&self, bytes: &[u8], to: Span) -> Result<(), DeviceError>;
    /// Copies from the device.
    ///
    /// # Errors
    /// Failures of the copy.
    fn download(&self, from: Span, bytes: &mut [u8]) -> Result<(), DeviceError>;
    /// Blocks worth having in flight.
    fn blocks(&self) -> usize;
    /// Bytes a network may use for one batch.
    fn budget(&self) -> usize;
}

/// Memory of a device, given back when dropped.
pub struct Buffer {
    device: Arc<dyn Device>,
    span: Span,
}

impl Buffer {
    /// New memory; nothing for no bytes.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(device: &Arc<dyn Device>, bytes: usize) -> Result<Buffer, DeviceError> {
        let address = if bytes == 0 {
            0
        } else {
            device.allocate(bytes)?
        };
        Ok(Buffer {
            device: device.clone(),
            span: Span { address, bytes },
        })
    }

    /// New memory holding these bytes.
    ///
    /// # Errors
    /// Not enough memory, or a failed copy.
    pub fn holding(device: &Arc<dyn Device>, bytes: &[u8]) -> Result<Buffer, DeviceError> {
        let buffer = Buffer::new(device, bytes.len())?;
        if !bytes.is_empty() {
            device.upload(bytes, buffer.span)?;
        }
        Ok(buffer)
    }

    /// Its first `bytes` bytes.
    pub fn part(&self, bytes: usize) -> Span {
        debug_assert!(bytes <= self.span.bytes, "inside the buffer");
        Span { bytes, ..self.span }
    }

    /// All of it.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Its first numbers.
    ///
    /// # Errors
    /// A failed copy.
    pub fn numbers(&self, count: usize) -> Result<Vec<f64>, DeviceError> {
        let mut bytes = vec![0; 8 * count];
        if count > 0 {
            self.device.download(self.part(8 * count), &mut bytes)?;
        }
        let number =
            |b: &[u8]| f64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
        Ok(bytes.chunks_exact(8).map(number).collect())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.span.bytes > 0 {
            self.device.release(self.span.address);
        }
    }
}
