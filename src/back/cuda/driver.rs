//! A GPU as a [`Device`], by NVIDIA's driver.
//!
//! The order of things is that of [`super::device`]. The streams here are our own, not
//! the default one, which waits for others. What goes to the GPU passes through
//! page-locked memory of ours; what comes back is waited for.

use super::cache::Key;
use super::device::{Device, DeviceError, Launch, Module, Recording, Span, Step, Stream};
use super::emit::Kernel;
use super::found::{Found, check, found, version};
use super::graph::Graph;
use super::memory::{Memory, rounded};
use super::nvrtc::{self, Form, Nvrtc};
use super::staging::Staging;
use super::translation_unit;
use crate::run::network::Precision;
use cudarc::driver::sys;
use std::collections::HashMap;
use std::ffi::{CString, c_int, c_uint, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// Blocks per multiprocessor to keep in flight.
pub(super) const BLOCKS_PER_PROCESSOR: usize = 8;

/// Part of the free memory a network may use.
const BUDGET: f64 = 0.8;

/// A GPU in its primary context.
pub struct Gpu {
    found: Found,
    streams: Arc<Streams>,
    memory: Mutex<Memory>,
    /// By stream.
    uploads: [Mutex<Staging>; Stream::COUNT],
    /// The first failure nobody has asked for yet.
    failure: Mutex<Option<DeviceError>>,
}

/// Streams of a GPU, and one on which launches are recorded.
pub(super) struct Streams {
    pub(super) context: usize,
    all: Vec<usize>,
    /// Held while launches are recorded.
    recorder: Mutex<usize>,
}

impl Streams {
    fn new(context: usize) -> Result<Streams, DeviceError> {
        enter(context)?;
        let create = || {
            let mut stream = ptr::null_mut();
            let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as c_uint;
            // SAFETY: a plain call.
            check("making a stream", unsafe {
                sys::cuStreamCreate(&mut stream, flags)
            })?;
            Ok::<usize, DeviceError>(stream as usize)
        };
        Ok(Streams {
            context,
            all: (0..Stream::COUNT)
                .map(|_| create())
                .collect::<Result<_, _>>()?,
            recorder: Mutex::new(create()?),
        })
    }

    pub(super) fn handle(&self, stream: Stream) -> sys::CUstream {
        self.all[stream.number()] as sys::CUstream
    }

    /// The stream on which launches are recorded, for one thread at a time.
    pub(super) fn recorder(&self) -> MutexGuard<'_, usize> {
        self.recorder.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Makes their GPU that of the calling thread.
    pub(super) fn enter(&self) -> Result<(), DeviceError> {
        enter(self.context)
    }

    /// Waits until everything that was asked for is done. Stream by stream: a context
    /// cannot be waited for while another thread records launches.
    fn wait(&self) -> Result<(), DeviceError> {
        self.enter()?;
        // SAFETY: streams of ours, which live as long as the process.
        let wait = |&s: &usize| unsafe { sys::cuStreamSynchronize(s as sys::CUstream) };
        let all = self.all.iter();
        all.map(wait)
            .try_for_each(|status| check("waiting for the GPU", status))
    }
}

impl Gpu {
    /// The first GPU, opened once.
    ///
    /// # Errors
    /// No driver, no GPU.
    pub fn first() -> Result<Arc<dyn Device>, DeviceError> {
        static FIRST: OnceLock<Result<Arc<Gpu>, DeviceError>> = OnceLock::new();
        let open = || {
            let none = || DeviceError::new("the NVIDIA driver finds no GPU");
            let first = found()?.into_iter().next().ok_or_else(none)?;
            Gpu::open(first).map(Arc::new)
        };
        let gpu = FIRST.get_or_init(open).clone()?;
        Ok(gpu)
    }

    fn open(found: Found) -> Result<Gpu, DeviceError> {
        let mut context = ptr::null_mut();
        // SAFETY: a device the driver named, a result of the type it writes.
        let status = unsafe { sys::cuDevicePrimaryCtxRetain(&mut context, found.device) };
        check("opening the GPU", status)?;
        Ok(Gpu {
            found,
            streams: Arc::new(Streams::new(context as usize)?),
            memory: Mutex::default(),
            uploads: Default::default(),
            failure: Mutex::default(),
        })
    }

    /// Makes this GPU that of the calling thread.
    fn enter(&self) -> Result<(), DeviceError> {
        self.streams.enter()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Code for this GPU, from the cache or the compiler.
    fn code(&self, unit: &str) -> Result<Vec<u8>, DeviceError> {
        let (driver, own) = (version()?, self.found.architecture);
        let tools = format!("{}.{} {}", driver.0, driver.1, nvrtc::installed());
        let key = Key::new(unit, own, &tools);
        if let Some(code) = key.read() {
            return Ok(code);
        }
        let nvrtc = Nvrtc::find_for(own, driver);
        let nvrtc = nvrtc.map_err(|e| DeviceError::new(e.to_string()))?;
        let target = nvrtc.target(own);
        let (target, form) = target.map_err(|e| DeviceError::new(e.to_string()))?;
        let binary = nvrtc.compile(unit, target, form);
        let mut code = binary.map_err(|e| DeviceError::new(e.to_string()))?.code;
        if form == Form::Ptx && code.last() != Some(&0) {
            code.push(0);
        }
        key.write(&code);
        Ok(code)
    }

    /// Why code was not loaded, and a way out where the compiler is later than the driver.
    fn not_loaded(&self, e: &DeviceError) -> DeviceError {
        let driver = version().unwrap_or_default();
        let later = Nvrtc::find_for(self.found.architecture, driver);
        match later.ok().filter(|n| n.version() > driver) {
            Some(nvrtc) => {
                let ((a, b), (c, d)) = (nvrtc.version(), driver);
                DeviceError::new(format!(
                    "{e}: the compiler is that of CUDA {a}.{b}, the driver that of CUDA {c}.{d}; \
                     `pip install 'nvidia-cuda-nvrtc-cu{c}<={c}.{d}.999'` brings one that fits, \
                     a newer driver does as well"
                ))
            }
            None => e.clone(),
        }
    }
}

impl Gpu {
    /// Compiles translation units at the same time, and loads them.
    ///
    /// In threads of their own: a thread of the pool that waits takes up other work,
    /// which may want the very kernels it waits for.
    fn load_units(&self, units: &[String]) -> Result<Box<dyn Module>, DeviceError> {
        let codes: Vec<Result<Vec<u8>, DeviceError>> = std::thread::scope(|scope| {
            let started: Vec<_> = units
                .iter()
                .map(|unit| scope.spawn(|| self.code(unit)))
                .collect();
            let lost = |_| Err(DeviceError::new("the CUDA compiler was interrupted"));
            started
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(lost))
                .collect()
        });
        self.enter()?;
        // dropped on an error, which unloads what is loaded already
        let mut loaded = Loaded {
            streams: self.streams.clone(),
            processors: self.found.processors,
            modules: Vec::new(),
            functions: Mutex::default(),
        };
        for code in codes {
            let code = code?;
            let mut module = ptr::null_mut();
            // SAFETY: machine code, or PTX that ends in a zero.
            let status = unsafe { sys::cuModuleLoadData(&mut module, code.as_ptr().cast()) };
            check("loading the kernels", status).map_err(|e| self.not_loaded(&e))?;
            loaded.modules.push(module as usize);
        }
        Ok(Box::new(loaded))
    }
}

/// Makes a GPU, by its context, that of the calling thread.
fn enter(context: usize) -> Result<(), DeviceError> {
    // SAFETY: the primary context lives as long as the process.
    let status = unsafe { sys::cuCtxSetCurrent(context as sys::CUcontext) };
    check("entering the GPU", status)
}

/// Loaded translation units.
struct Loaded {
    streams: Arc<Streams>,
    processors: usize,
    modules: Vec<usize>,
    functions: Mutex<HashMap<String, usize>>,
}

impl Loaded {
    /// A kernel by its name.
    fn function(&self, name: &str) -> Result<usize, DeviceError> {
        let mut known = self.functions.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(&f) = known.get(name) {
            return Ok(f);
        }
        let text = CString::new(name).unwrap_or_default();
        let mut status = sys::CUresult::CUDA_ERROR_NOT_FOUND;
        let mut f = ptr::null_mut();
        for &module in &self.modules {
            // SAFETY: modules loaded by this driver, a text that ends in a zero.
            status =
                unsafe { sys::cuModuleGetFunction(&mut f, module as sys::CUmodule, text.as_ptr()) };
            if status == sys::CUresult::CUDA_SUCCESS {
                break;
            }
        }
        check("finding the kernel", status)?;
        known.insert(name.to_owned(), f as usize);
        Ok(f as usize)
    }
}

/// The kernels' argument: `struct Launch` of the device library.
#[repr(C)]
struct Arguments {
    samples: c_int,
    sizes: [c_int; 4],
    pointers: [u64; 7],
}

/// Pieces of work as a kernel counts them.
fn counted(kernel: &str, pieces: usize) -> Result<c_int, DeviceError> {
    c_int::try_from(pieces).map_err(|_| {
        let text = format!("{kernel}: {pieces} pieces of work at once");
        DeviceError::new(format!("{text} are more than a kernel can count"))
    })
}

impl Loaded {
    fn launch_in(
        &self,
        stream: sys::CUstream,
        kernel: &Kernel,
        blocks: usize,
        a: &Launch,
    ) -> Result<(), DeviceError> {
        self.streams.enter()?;
        let function = self.function(&kernel.name)?;
        let spans = a.arrays();
        let mut arguments = Arguments {
            samples: counted(&kernel.name, a.samples)?,
            sizes: a.sizes,
            pointers: spans.map(|s| s.address),
        };
        let mut list = [(&raw mut arguments).cast::<c_void>()];
        // SAFETY: the function was compiled with these arguments.
        let status = unsafe {
            sys::cuLaunchKernel(
                function as sys::CUfunction,
                blocks as c_uint,
                1,
                1,
                kernel.threads as c_uint,
                1,
                1,
                kernel.shared as c_uint,
                stream,
                list.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        check(&format!("launching {}", kernel.name), status)
    }
}

impl Module for Loaded {
    fn launch_on(
        &self,
        stream: Stream,
        kernel: &Kernel,
        blocks: usize,
        a: &Launch,
    ) -> Result<(), DeviceError> {
        self.launch_in(self.streams.handle(stream), kernel, blocks, a)
    }

    fn launch_recorded(
        &self,
        recorder: usize,
        kernel: &Kernel,
        blocks: usize,
        a: &Launch,
    ) -> Result<(), DeviceError> {
        self.launch_in(recorder as sys::CUstream, kernel, blocks, a)
    }

    fn resident(&self, kernel: &Kernel) -> Option<usize> {
        self.streams.enter().ok()?;
        let function = self.function(&kernel.name).ok()?;
        let mut blocks = 0;
        // SAFETY: a kernel loaded by this driver, and a number to write to.
        let status = unsafe {
            sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(
                &mut blocks,
                function as sys::CUfunction,
                kernel.threads as c_int,
                kernel.shared,
            )
        };
        let known = status == sys::CUresult::CUDA_SUCCESS && blocks > 0;
        known.then_some(self.processors * blocks as usize)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // after a failure nothing runs any more, and nothing can be unloaded
        if self.streams.wait().is_ok() {
            for &module in &self.modules {
                // SAFETY: loaded by this driver; nothing runs once the GPU is idle.
                unsafe { sys::cuModuleUnload(module as sys::CUmodule) };
            }
        }
    }
}

impl Device for Gpu {
    fn name(&self) -> String {
        self.found.to_string()
    }

    fn load(&self, unit: &str) -> Result<Box<dyn Module>, DeviceError> {
        self.load_units(&[unit.to_owned()])
    }

    fn load_kernels(
        &self,
        precision: Precision,
        kernels: &[&str],
    ) -> Result<Box<dyn Module>, DeviceError> {
        let unit = |k: &&str| translation_unit(precision, std::iter::once(*k));
        self.load_units(&kernels.iter().map(unit).collect::<Vec<_>>())
    }

    fn allocate(&self, stream: Stream, bytes: usize) -> Result<u64, DeviceError> {
        let size = rounded(bytes);
        let mut memory = self.memory();
        let own = memory.idle.get_mut(&(stream, size));
        if let Some(address) = own.and_then(Vec::pop) {
            return Ok(address);
        }
        self.enter()?;
        let mut address = 0;
        // SAFETY: plain calls; nothing uses what is idle once the GPU is idle.
        let mut status = unsafe { sys::cuMemAlloc_v2(&mut address, size) };
        if status != sys::CUresult::CUDA_SUCCESS && memory.idle_bytes() > 0 {
            self.streams.wait()?;
            let idle: Vec<u64> = memory.idle.drain().flat_map(|(_, all)| all).collect();
            for a in idle {
                memory.known.remove(&a);
                unsafe { sys::cuMemFree_v2(a) };
            }
            status = unsafe { sys::cuMemAlloc_v2(&mut address, size) };
        }
        check(&format!("allocating {size} bytes on the GPU"), status).map_err(|e| {
            DeviceError::new(format!("{e}; fewer chains or samples at a time need less"))
        })?;
        memory.known.insert(address, (stream, size));
        Ok(address)
    }

    fn release(&self, address: u64) {
        let mut memory = self.memory();
        if let Some(&key) = memory.known.get(&address) {
            memory.idle.entry(key).or_default().push(address);
        }
    }

    fn upload_on(&self, stream: Stream, bytes: &[u8], to: Span) -> Result<(), DeviceError> {
        self.enter()?;
        let bytes = &bytes[..bytes.len().min(to.bytes)];
        let uploads = &self.uploads[stream.number()];
        let mut uploads = uploads.lock().unwrap_or_else(|e| e.into_inner());
        uploads.upload(self.streams.handle(stream), bytes, to.address)
    }

    fn download_on(&self, stream: Stream, from: Span, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.enter()?;
        let length = bytes.len().min(from.bytes);
        let stream = self.streams.handle(stream);
        // SAFETY: both have `length` bytes, which stay until the copy has ended.
        let (asked, waited) = unsafe {
            let to = bytes.as_mut_ptr().cast();
            let asked = sys::cuMemcpyDtoHAsync_v2(to, from.address, length, stream);
            (asked, sys::cuStreamSynchronize(stream))
        };
        check("copying from the GPU", asked)?;
        check("copying from the GPU", waited)
    }

    fn order(&self, earlier: Stream, later: Stream) -> Result<(), DeviceError> {
        self.enter()?;
        let [earlier, later] = [earlier, later].map(|s| self.streams.handle(s));
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as c_uint;
        let mut event = ptr::null_mut();
        // SAFETY: plain calls; an event that is waited for outlives its destruction.
        unsafe {
            let doing = "ordering streams";
            check(doing, sys::cuEventCreate(&mut event, flags))?;
            let done = check(doing, sys::cuEventRecord(event, earlier))
                .and_then(|()| check(doing, sys::cuStreamWaitEvent(later, event, 0)));
            sys::cuEventDestroy_v2(event);
            done
        }
    }

    fn record(&self, steps: Vec<Step>) -> Box<dyn Recording> {
        Box::new(Graph::new(self.streams.clone(), steps))
    }

    fn blocks(&self) -> usize {
        self.found.processors * BLOCKS_PER_PROCESSOR
    }

    fn budget(&self) -> usize {
        let (mut free, mut total) = (0, 0);
        if self.enter().is_err() {
            return 0;
        }
        // SAFETY: a plain call.
        let status = unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) };
        if status == sys::CUresult::CUDA_SUCCESS {
            let free = free + self.memory().idle_bytes();
            // sizes are rounded up
            (free as f64 * BUDGET * 8.0 / 9.0) as usize
        } else {
            0
        }
    }

    fn report(&self, failure: &DeviceError) {
        tracing::debug!("the GPU failed: {failure}");
        let mut first = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        first.get_or_insert_with(|| failure.clone());
    }

    fn failure(&self) -> Option<DeviceError> {
        let mut first = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        first.take()
    }
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn more_pieces_than_a_kernel_counts_are_refused() {
        assert_eq!(counted("log_psi", 0), Ok(0));
        assert_eq!(counted("log_psi", i32::MAX as usize), Ok(i32::MAX));
        // in 32 bits these are -2^31, 0 and 5
        for pieces in [1 << 31, 1 << 32, (1 << 32) + 5] {
            let text = counted("log_psi", pieces)
                .expect_err("too many")
                .to_string();
            assert!(
                text.starts_with(&format!("log_psi: {pieces} pieces")),
                "{text}"
            );
        }
    }
}
