//! What a device can do at best, measured: what times of kernels are compared with.

use super::device::{Buffer, Device, DeviceError, Launch, Module, Stream};
use super::emit::Kernel;
use crate::run::Peak;
use crate::run::network::Precision;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The kernels, to follow the device library.
pub const LIBRARY: &str = include_str!("../../../kernels/peak.cuh");

/// Threads of a block, and independent sums of a thread, as the text has them.
const THREADS: usize = 256;
const CHAINS: usize = 8;

/// A run takes at least so long, so that asking for it counts for nothing.
const LONG: Duration = Duration::from_millis(20);

/// Most rounds of multiply-adds in a launch, most copies in a run, and of so many bytes.
const ROUNDS: usize = 1 << 24;
const COPIES: usize = 1 << 10;
const BYTES: usize = 1 << 30;

struct Runs<'d> {
    device: &'d Arc<dyn Device>,
    module: Box<dyn Module>,
    result: Buffer,
}

impl Runs<'_> {
    /// Elapsed time of so many launches, one after the other.
    fn time(&self, name: &str, a: &Launch, times: usize) -> Result<Duration, DeviceError> {
        let kernel = Kernel {
            threads: THREADS,
            ..Kernel::by_hand(name)
        };
        self.result.numbers(1)?;
        let begin = Instant::now();
        let blocks = self.device.blocks().max(1);
        for _ in 0..times {
            self.module.launch_on(Stream::MAIN, &kernel, blocks, a)?;
        }
        self.result.numbers(1)?;
        Ok(begin.elapsed())
    }

    /// The best of three runs, `amount` for each round, per nanosecond, after doubling
    /// the rounds until a run is long. A run of so many rounds is a launch, made so many
    /// times.
    fn best(
        &self,
        name: &str,
        most: usize,
        launch: &dyn Fn(usize) -> (Launch, usize),
        amount: f64,
    ) -> Result<f64, DeviceError> {
        let time = |rounds: usize| {
            let (launch, times) = launch(rounds);
            self.time(name, &launch, times)
        };
        let mut rounds = 1;
        while time(rounds)? < LONG && rounds < most {
            rounds = (2 * rounds).min(most);
        }
        let mut best = 0.0;
        for _ in 0..3 {
            let elapsed = time(rounds)?.as_nanos().max(1) as f64;
            best = f64::max(best, amount * rounds as f64 / elapsed);
        }
        Ok(best)
    }
}

/// Multiply-adds in a precision, and memory read and written by a copy.
///
/// # Errors
/// Failures of the device.
pub fn measure(device: &Arc<dyn Device>, precision: Precision) -> Result<Peak, DeviceError> {
    let runs = Runs {
        device,
        module: device.load_kernels(Precision::F64, &[LIBRARY])?,
        result: Buffer::holding(device, &[0; 8])?,
    };
    let name = match precision {
        Precision::F32 => "fma_single",
        Precision::F64 => "fma_double",
    };
    let each = 2 * CHAINS * THREADS * device.blocks().max(1);
    let multiply = |rounds: usize| {
        let launch = Launch {
            samples: 1,
            sizes: [rounds as i32, 0, 0, 0],
            outputs: runs.result.span(),
            ..Launch::default()
        };
        (launch, 1)
    };
    let flops = runs.best(name, ROUNDS, &multiply, each as f64)?;
    // far more than any cache holds, where there is room for it
    let unit = 1 << 10;
    let parts = (BYTES.min(device.budget() / 4) / (8 * unit)).max(1);
    let [from, to] = [0, 1].map(|_| Buffer::holding(device, &vec![0; 8 * unit * parts]));
    let (from, to) = (from?, to?);
    let copy = |times: usize| {
        let launch = Launch {
            samples: parts,
            sizes: [unit as i32, 0, 0, 0],
            inputs: from.span(),
            outputs: to.span(),
            ..Launch::default()
        };
        (launch, times)
    };
    let bytes = runs.best("copy_memory", COPIES, &copy, (16 * unit * parts) as f64)?;
    Ok(Peak { flops, bytes })
}
