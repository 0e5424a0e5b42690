//! What a network asks of the machine its kernels run on.
//!
//! # Order
//!
//! A device has a few [`Stream`]s. Launches, and mostly uploads, are only asked for:
//! they happen later, and four rules say what may be relied on.
//!
//! 1. What one stream is asked for happens in the order of asking, whichever host
//!    thread asks. Streams know nothing of each other but for [`Device::order`].
//! 2. An upload has read its bytes when it returns: they may change. A download waits
//!    for what its stream was asked for before, and returns with the bytes.
//! 3. Memory belongs to the stream it was asked for on. Given back, it is handed out
//!    again on that stream only, so what still uses it comes first: no host thread
//!    waits before it drops a [`Buffer`]. Who lets another stream use it orders the
//!    owner before that stream, and that stream before the owner, before the drop.
//! 4. What goes wrong in a kernel is reported by a later call that waits for it.
//!
//! [`in_turns`] keeps to them for pieces of work that are independent of each other;
//! everything else stays on [`Stream::MAIN`].

use super::emit::Kernel;
use super::translation_unit;
use crate::run::network::Precision;
use std::collections::VecDeque;
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

impl Span {
    /// Some of its bytes.
    pub fn range(self, of: std::ops::Range<usize>) -> Span {
        debug_assert!(of.end <= self.bytes, "inside the memory");
        Span {
            address: self.address + of.start as u64,
            bytes: of.len(),
        }
    }
}

/// Arguments of a launch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Launch {
    /// Configurations, or other pieces of work.
    pub samples: usize,
    /// Sizes a kernel written by hand wants to know.
    pub sizes: [i32; 4],
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

impl Launch {
    /// All arrays, in the order of `Launch` of the device library.
    pub fn arrays(&self) -> [Span; 7] {
        [
            self.spins,
            self.inputs,
            self.constants,
            self.constants64,
            self.workspace,
            self.outputs,
            self.site_outputs,
        ]
    }
}

/// A queue of work of a device, see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream(usize);

impl Stream {
    /// Streams of every device.
    pub const COUNT: usize = 3;

    /// Where everything happens that nobody wants elsewhere.
    pub const MAIN: Stream = Stream(0);

    /// The streams in turns.
    pub fn in_turn(k: usize) -> Stream {
        Stream(k % Stream::COUNT)
    }

    /// Its number, below [`Stream::COUNT`].
    pub fn number(self) -> usize {
        self.0
    }
}

/// Kernels that were loaded together, ready to launch.
pub trait Module: Send + Sync {
    /// Runs a kernel after everything the stream was asked for before. It need not
    /// have ended when this returns.
    ///
    /// # Errors
    /// Failures of the launch; those of the kernel may be reported by what follows.
    fn launch_on(
        &self,
        stream: Stream,
        kernel: &Kernel,
        blocks: usize,
        a: &Launch,
    ) -> Result<(), DeviceError>;

    /// As [`Module::launch_on`] a stream that records what it is asked for, by the
    /// device's own handle; only devices with recordings of their own have them.
    ///
    /// # Errors
    /// No such streams here.
    fn launch_recorded(
        &self,
        _recorder: usize,
        kernel: &Kernel,
        _blocks: usize,
        _a: &Launch,
    ) -> Result<(), DeviceError> {
        let text = format!("{} cannot be recorded", kernel.name);
        Err(DeviceError(text))
    }

    /// Blocks of a kernel that the device works on at the same time; `None` if it does
    /// not say.
    fn resident(&self, _kernel: &Kernel) -> Option<usize> {
        None
    }

    /// As [`Module::launch_on`] the main stream.
    ///
    /// # Errors
    /// As there.
    fn launch(&self, kernel: &Kernel, blocks: usize, a: &Launch) -> Result<(), DeviceError> {
        self.launch_on(Stream::MAIN, kernel, blocks, a)
    }
}

/// A launch with all its arguments.
#[derive(Clone)]
pub struct Step {
    /// Where the kernel is.
    pub module: Arc<dyn Module>,
    /// The kernel.
    pub kernel: Arc<Kernel>,
    /// Blocks.
    pub blocks: usize,
    /// Arguments; the memory they name must live as long as the recording.
    pub arguments: Launch,
}

/// Launches that were put together to be made again and again, at the cost of one.
pub trait Recording: Send + Sync {
    /// Makes all launches, in their order, on a stream.
    ///
    /// # Errors
    /// As [`Module::launch_on`].
    fn replay(&self, stream: Stream) -> Result<(), DeviceError>;
}

/// A recording that makes one launch after the other.
pub struct OneByOne(pub Vec<Step>);

impl Recording for OneByOne {
    fn replay(&self, stream: Stream) -> Result<(), DeviceError> {
        self.0.iter().try_for_each(|s| {
            let Step {
                kernel,
                blocks,
                arguments,
                ..
            } = s;
            s.module.launch_on(stream, kernel, *blocks, arguments)
        })
    }
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
    /// New memory that belongs to a stream.
    ///
    /// # Errors
    /// Not enough of it.
    fn allocate(&self, stream: Stream, bytes: usize) -> Result<u64, DeviceError>;
    /// Gives memory back to its stream.
    fn release(&self, address: u64);
    /// Copies to the device, after everything the stream was asked for before.
    ///
    /// # Errors
    /// Failures of the copy.
    fn upload_on(&self, stream: Stream, bytes: &[u8], to: Span) -> Result<(), DeviceError>;
    /// Copies from the device, after everything the stream was asked for before.
    ///
    /// # Errors
    /// Failures of the copy, and of kernels before it.
    fn download_on(&self, stream: Stream, from: Span, bytes: &mut [u8]) -> Result<(), DeviceError>;
    /// What `later` is asked for from now on happens after what `earlier` was asked
    /// for so far.
    ///
    /// # Errors
    /// Failures of the device.
    fn order(&self, earlier: Stream, later: Stream) -> Result<(), DeviceError>;
    /// Puts launches together, to be made again and again.
    fn record(&self, steps: Vec<Step>) -> Box<dyn Recording> {
        Box::new(OneByOne(steps))
    }
    /// As [`Device::upload_on`] the main stream.
    ///
    /// # Errors
    /// As there.
    fn upload(&self, bytes: &[u8], to: Span) -> Result<(), DeviceError> {
        self.upload_on(Stream::MAIN, bytes, to)
    }
    /// As [`Device::download_on`] the main stream.
    ///
    /// # Errors
    /// As there.
    fn download(&self, from: Span, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.download_on(Stream::MAIN, from, bytes)
    }
    /// Blocks worth having in flight.
    fn blocks(&self) -> usize;
    /// Bytes a network may use for one batch.
    fn budget(&self) -> usize;
    /// Notes a failure that leaves NaN in place of numbers.
    fn report(&self, failure: &DeviceError) {
        tracing::error!("the device failed: {failure}");
    }
    /// The first failure reported since this was last asked, where the device keeps it.
    fn failure(&self) -> Option<DeviceError> {
        None
    }
}

/// Does independent pieces of work on the streams in turns. `start` asks a stream for
/// a piece, and may use what the main stream was asked for before; `finish` takes its
/// results, in the order of the pieces. So many pieces as there are streams are under
/// way at once: memory must be enough for them.
///
/// # Errors
/// The first one of `start`, `finish` or the device.
pub fn in_turns<P, T>(
    device: &dyn Device,
    pieces: impl ExactSizeIterator<Item = P>,
    mut start: impl FnMut(Stream, P) -> Result<T, DeviceError>,
    mut finish: impl FnMut(T) -> Result<(), DeviceError>,
) -> Result<(), DeviceError> {
    let streams = pieces.len().min(Stream::COUNT);
    let others = || (1..streams).map(Stream::in_turn);
    others().try_for_each(|s| device.order(Stream::MAIN, s))?;
    let mut under_way = VecDeque::new();
    let work = || {
        for (k, piece) in pieces.enumerate() {
            if under_way.len() == streams
                && let Some(first) = under_way.pop_front()
            {
                finish(first)?;
            }
            under_way.push_back(start(Stream::in_turn(k), piece)?);
        }
        under_way.drain(..).try_for_each(&mut finish)
    };
    let done = work();
    // also after a failure: what the pieces used of the main stream stays until then
    let joined = others().try_for_each(|s| device.order(s, Stream::MAIN));
    done.and(joined)
}

/// Memory of a device, given back when dropped.
pub struct Buffer {
    device: Arc<dyn Device>,
    stream: Stream,
    span: Span,
}

impl Buffer {
    /// New memory of the main stream; nothing for no bytes.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(device: &Arc<dyn Device>, bytes: usize) -> Result<Buffer, DeviceError> {
        Buffer::on(device, Stream::MAIN, bytes)
    }

    /// New memory of a stream; nothing for no bytes.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn on(
        device: &Arc<dyn Device>,
        stream: Stream,
        bytes: usize,
    ) -> Result<Buffer, DeviceError> {
        let address = if bytes == 0 {
            0
        } else {
            device.allocate(stream, bytes)?
        };
        Ok(Buffer {
            device: device.clone(),
            stream,
            span: Span { address, bytes },
        })
    }

    /// New memory of the main stream holding these bytes.
    ///
    /// # Errors
    /// Not enough memory, or a failed copy.
    pub fn holding(device: &Arc<dyn Device>, bytes: &[u8]) -> Result<Buffer, DeviceError> {
        Buffer::holding_on(device, Stream::MAIN, bytes)
    }

    /// New memory of a stream holding these bytes.
    ///
    /// # Errors
    /// Not enough memory, or a failed copy.
    pub fn holding_on(
        device: &Arc<dyn Device>,
        stream: Stream,
        bytes: &[u8],
    ) -> Result<Buffer, DeviceError> {
        let buffer = Buffer::on(device, stream, bytes.len())?;
        if !bytes.is_empty() {
            device.upload_on(stream, bytes, buffer.span)?;
        }
        Ok(buffer)
    }

    /// Copies bytes to its beginning, on its stream.
    ///
    /// # Errors
    /// A failed copy.
    pub fn write(&self, bytes: &[u8]) -> Result<(), DeviceError> {
        let to = self.part(bytes.len());
        self.device.upload_on(self.stream, bytes, to)
    }

    /// Its first `bytes` bytes.
    pub fn part(&self, bytes: usize) -> Span {
        debug_assert!(bytes <= self.span.bytes, "inside the buffer");
        Span { bytes, ..self.span }
    }

    /// The stream it belongs to.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// All of it.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Its first numbers, once its stream has come so far.
    ///
    /// # Errors
    /// A failed copy.
    pub fn numbers(&self, count: usize) -> Result<Vec<f64>, DeviceError> {
        let mut bytes = vec![0; 8 * count];
        if count > 0 {
            let part = self.part(8 * count);
            self.device.download_on(self.stream, part, &mut bytes)?;
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
