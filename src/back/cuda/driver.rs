//! The NVIDIA driver: a GPU as a [`Device`]. Loaded when it is first needed.

use super::cache::Key;
use super::device::{Device, DeviceError, Launch, Module, Span};
use super::emit::Kernel;
use super::nvrtc::{Architecture, Form, Nvrtc};
use libloading::Library;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, OnceLock};

#[cfg(windows)]
const DRIVER: &str = "nvcuda.dll";
#[cfg(not(windows))]
const DRIVER: &str = "libcuda.so.1";

/// Attributes of devices and functions, as the driver numbers them.
const MULTIPROCESSORS: c_int = 16;
const CAPABILITY_MAJOR: c_int = 75;
const CAPABILITY_MINOR: c_int = 76;

/// Blocks per multiprocessor to keep in flight.
const BLOCKS_PER_PROCESSOR: usize = 8;

/// Part of the free memory a network may use.
const BUDGET: f64 = 0.8;

type Handle = *mut c_void;

/// The functions of the driver.
struct Driver {
    error_string: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int,
    version: unsafe extern "C" fn(*mut c_int) -> c_int,
    count: unsafe extern "C" fn(*mut c_int) -> c_int,
    get: unsafe extern "C" fn(*mut c_int, c_int) -> c_int,
    name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int,
    attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int,
    retain: unsafe extern "C" fn(*mut Handle, c_int) -> c_int,
    set_current: unsafe extern "C" fn(Handle) -> c_int,
    synchronise: unsafe extern "C" fn() -> c_int,
    memory: unsafe extern "C" fn(*mut usize, *mut usize) -> c_int,
    allocate: unsafe extern "C" fn(*mut u64, usize) -> c_int,
    free: unsafe extern "C" fn(u64) -> c_int,
    to_device: unsafe extern "C" fn(u64, *const c_void, usize) -> c_int,
    to_host: unsafe extern "C" fn(*mut c_void, u64, usize) -> c_int,
    load: unsafe extern "C" fn(*mut Handle, *const c_void) -> c_int,
    unload: unsafe extern "C" fn(Handle) -> c_int,
    function: unsafe extern "C" fn(*mut Handle, Handle, *const c_char) -> c_int,
    launch: unsafe extern "C" fn(
        Handle,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        Handle,
        *mut *mut c_void,
        *mut *mut c_void,
    ) -> c_int,
    // keeps the functions alive
    _library: Library,
}

impl Driver {
    /// The driver, opened once.
    fn find() -> Result<&'static Driver, DeviceError> {
        static FOUND: OnceLock<Result<Driver, DeviceError>> = OnceLock::new();
        FOUND
            .get_or_init(Driver::open)
            .as_ref()
            .map_err(Clone::clone)
    }

    fn open() -> Result<Driver, DeviceError> {
        // SAFETY: the driver's library may be loaded at any time; its functions
        // have had these types since CUDA 4.
        unsafe {
            let library = Library::new(DRIVER).map_err(|_| {
                DeviceError::new(format!(
                    "no NVIDIA driver is installed ({DRIVER} was not found)"
                ))
            })?;
            let bad = |e: libloading::Error| DeviceError::new(format!("{DRIVER}: {e}"));
            macro_rules! function {
                ($name:literal) => {
                    *library.get($name).map_err(bad)?
                };
            }
            let init: unsafe extern "C" fn(c_uint) -> c_int = function!(b"cuInit");
            let driver = Driver {
                error_string: function!(b"cuGetErrorString"),
                version: function!(b"cuDriverGetVersion"),
                count: function!(b"cuDeviceGetCount"),
                get: function!(b"cuDeviceGet"),
                name: function!(b"cuDeviceGetName"),
                attribute: function!(b"cuDeviceGetAttribute"),
                retain: function!(b"cuDevicePrimaryCtxRetain"),
                set_current: function!(b"cuCtxSetCurrent"),
                synchronise: function!(b"cuCtxSynchronize"),
                memory: function!(b"cuMemGetInfo_v2"),
                allocate: function!(b"cuMemAlloc_v2"),
                free: function!(b"cuMemFree_v2"),
                to_device: function!(b"cuMemcpyHtoD_v2"),
                to_host: function!(b"cuMemcpyDtoH_v2"),
                load: function!(b"cuModuleLoadData"),
                unload: function!(b"cuModuleUnload"),
                function: function!(b"cuModuleGetFunction"),
                launch: function!(b"cuLaunchKernel"),
                _library: library,
            };
            driver.check("starting the driver", init(0))?;
            Ok(driver)
        }
    }

    fn check(&self, doing: &str, status: c_int) -> Result<(), DeviceError> {
        if status == 0 {
            return Ok(());
        }
        let mut text = ptr::null();
        // SAFETY: the driver's strings are constants.
        let reason = unsafe {
            (self.error_string)(status, &mut text);
            match text.is_null() {
                true => "unknown".to_owned(),
                false => CStr::from_ptr(text).to_string_lossy().into_owned(),
            }
        };
        Err(DeviceError::new(format!(
            "{doing} failed: {reason} (CUDA error {status})"
        )))
    }
}

/// What there is: one line per GPU, or why there is none.
///
/// # Errors
/// No driver, or one that does not start.
pub fn found() -> Result<Vec<String>, DeviceError> {
    let driver = Driver::find()?;
    let mut count = 0;
    // SAFETY: plain calls.
    driver.check("counting GPUs", unsafe { (driver.count)(&mut count) })?;
    (0..count).map(|k| Ok(Gpu::open(k)?.name())).collect()
}

/// The driver's CUDA version: (12, 9).
///
/// # Errors
/// No driver, or one that does not start.
pub fn version() -> Result<(u32, u32), DeviceError> {
    let driver = Driver::find()?;
    let mut number = 0;
    // SAFETY: a plain call.
    driver.check("asking for the version", unsafe {
        (driver.version)(&mut number)
    })?;
    Ok((number as u32 / 1000, number as u32 % 1000 / 10))
}

/// A GPU in its primary context.
pub struct Gpu {
    driver: &'static Driver,
    context: usize,
    name: String,
    architecture: Architecture,
    processors: usize,
    /// Memory given back, by size: allocation is slow.
    idle: Mutex<HashMap<usize, Vec<u64>>>,
    sizes: Mutex<HashMap<u64, usize>>,
}

impl Gpu {
    /// The first GPU, opened once.
    ///
    /// # Errors
    /// No driver, no GPU.
    pub fn first() -> Result<Arc<dyn Device>, DeviceError> {
        static FIRST: OnceLock<Result<Arc<Gpu>, DeviceError>> = OnceLock::new();
        let open = || Gpu::open(0).map(Arc::new);
        let gpu = FIRST.get_or_init(open).clone()?;
        Ok(gpu)
    }

    fn open(ordinal: c_int) -> Result<Gpu, DeviceError> {
        let driver = Driver::find()?;
        // SAFETY: every result has the type the driver writes.
        unsafe {
            let mut count = 0;
            driver.check("counting GPUs", (driver.count)(&mut count))?;
            if count <= ordinal {
                return Err(DeviceError::new("the NVIDIA driver finds no GPU"));
            }
            let mut device = 0;
            driver.check("opening the GPU", (driver.get)(&mut device, ordinal))?;
            let mut text = [0 as c_char; 128];
            driver.check(
                "naming the GPU",
                (driver.name)(text.as_mut_ptr(), 127, device),
            )?;
            let name = CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned();
            let attribute = |which| {
                let mut value = 0;
                driver.check(
                    "asking the GPU",
                    (driver.attribute)(&mut value, which, device),
                )?;
                Ok::<u32, DeviceError>(value.max(0) as u32)
            };
            let capability = 10 * attribute(CAPABILITY_MAJOR)? + attribute(CAPABILITY_MINOR)?;
            let processors = attribute(MULTIPROCESSORS)? as usize;
            let mut context = ptr::null_mut();
            driver.check("opening the GPU", (driver.retain)(&mut context, device))?;
            Ok(Gpu {
                driver,
                context: context as usize,
                name,
                architecture: Architecture(capability),
                processors,
                idle: Mutex::default(),
                sizes: Mutex::default(),
            })
        }
    }

    /// Makes this GPU that of the calling thread.
    fn enter(&self) -> Result<&'static Driver, DeviceError> {
        // SAFETY: the primary context lives as long as the process.
        let status = unsafe { (self.driver.set_current)(self.context as Handle) };
        self.driver.check("entering the GPU", status)?;
        Ok(self.driver)
    }

    /// Code for this GPU, from the cache or the compiler.
    fn code(&self, unit: &str) -> Result<Vec<u8>, DeviceError> {
        let nvrtc = Nvrtc::find().map_err(|e| DeviceError::new(e.to_string()))?;
        let known = nvrtc.architectures();
        // a GPU newer than the compiler: the driver translates PTX
        let (target, form) = match known.contains(&self.architecture) {
            true => (self.architecture, Form::Cubin),
            false => {
                let older = known.iter().rev().find(|&&a| a < self.architecture);
                let older = older.ok_or_else(|| {
                    DeviceError::new(format!(
                        "the CUDA compiler found ({}) no longer supports {}",
                        nvrtc.path().display(),
                        self.architecture
                    ))
                })?;
                (*older, Form::Ptx)
            }
        };
        let key = Key::new(unit, target, form, nvrtc.version());
        if let Some(code) = key.read() {
            return Ok(code);
        }
        let binary = nvrtc.compile(unit, target, form);
        let mut code = binary.map_err(|e| DeviceError::new(e.to_string()))?.code;
        if form == Form::Ptx && code.last() != Some(&0) {
            code.push(0);
        }
        key.write(&code);
        Ok(code)
    }
}

/// A loaded translation unit.
struct Loaded {
    gpu: &'static Driver,
    context: usize,
    module: usize,
    functions: Mutex<HashMap<String, usize>>,
}

/// The kernels' argument: `struct Launch` of the device library.
#[repr(C)]
struct Arguments {
    samples: c_int,
    pointers: [u64; 7],
}

impl Module for Loaded {
    fn launch(&self, kernel: &Kernel, blocks: usize, a: &Launch) -> Result<(), DeviceError> {
        let driver = self.gpu;
        // SAFETY: the function was compiled with these arguments.
        unsafe {
            let entered = (driver.set_current)(self.context as Handle);
            driver.check("entering the GPU", entered)?;
            let function = {
                let mut known = self.functions.lock().unwrap_or_else(|e| e.into_inner());
                match known.get(&kernel.name) {
                    Some(&f) => f,
                    None => {
                        let name = CString::new(kernel.name.as_str()).unwrap_or_default();
                        let mut f = ptr::null_mut();
                        let module = self.module as Handle;
                        let status = (driver.function)(&mut f, module, name.as_ptr());
                        driver.check("finding the kernel", status)?;
                        known.insert(kernel.name.clone(), f as usize);
                        f as usize
                    }
                }
            };
            let spans = [
                a.spins,
                a.inputs,
                a.constants,
                a.constants64,
                a.workspace,
                a.outputs,
                a.site_outputs,
            ];
            let mut arguments = Arguments {
                samples: a.samples as c_int,
                pointers: spans.map(|s| s.address),
            };
            let mut list = [(&raw mut arguments).cast::<c_void>()];
            let status = (driver.launch)(
                function as Handle,
                blocks as c_uint,
                1,
                1,
                kernel.threads as c_uint,
                1,
                1,
                kernel.shared as c_uint,
                ptr::null_mut(),
                list.as_mut_ptr(),
                ptr::null_mut(),
            );
            driver.check(&format!("launching {}", kernel.name), status)?;
            driver.check(&format!("running {}", kernel.name), (driver.synchronise)())
        }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: loaded by this driver; nothing runs, launches wait.
        unsafe {
            (self.gpu.set_current)(self.context as Handle);
            (self.gpu.unload)(self.module as Handle);
        }
    }
}

impl Device for Gpu {
    fn name(&self) -> String {
        format!("{} ({})", self.name, self.architecture)
    }

    fn load(&self, unit: &str) -> Result<Box<dyn Module>, DeviceError> {
        let code = self.code(unit)?;
        let driver = self.enter()?;
        let mut module = ptr::null_mut();
        // SAFETY: machine code, or PTX that ends in a zero.
        let status = unsafe { (driver.load)(&mut module, code.as_ptr().cast()) };
        driver.check("loading the kernels", status)?;
        Ok(Box::new(Loaded {
            gpu: driver,
            context: self.context,
            module: module as usize,
            functions: Mutex::default(),
        }))
    }

    fn allocate(&self, bytes: usize) -> Result<u64, DeviceError> {
        // few different sizes, so that memory given back serves again
        let size = bytes.next_power_of_two().max(256);
        let lock = |e: std::sync::PoisonError<_>| e.into_inner();
        let mut idle = self.idle.lock().unwrap_or_else(lock);
        if let Some(address) = idle.get_mut(&size).and_then(Vec::pop) {
            return Ok(address);
        }
        let driver = self.enter()?;
        let mut address = 0;
        // SAFETY: plain calls; addresses in `idle` were allocated here.
        let mut status = unsafe { (driver.allocate)(&mut address, size) };
        if status != 0 && !idle.is_empty() {
            for a in idle.drain().flat_map(|(_, all)| all) {
                unsafe { (driver.free)(a) };
            }
            status = unsafe { (driver.allocate)(&mut address, size) };
        }
        driver.check(&format!("allocating {size} bytes on the GPU"), status)?;
        self.sizes
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .insert(address, size);
        Ok(address)
    }

    fn release(&self, address: u64) {
        let size = {
            let sizes = self.sizes.lock().unwrap_or_else(|e| e.into_inner());
            sizes.get(&address).copied()
        };
        if let Some(size) = size {
            let mut idle = self.idle.lock().unwrap_or_else(|e| e.into_inner());
            idle.entry(size).or_default().push(address);
        }
    }

    fn upload(&self, bytes: &[u8], to: Span) -> Result<(), DeviceError> {
        let driver = self.enter()?;
        let length = bytes.len().min(to.bytes);
        // SAFETY: both have `length` bytes.
        let status = unsafe { (driver.to_device)(to.address, bytes.as_ptr().cast(), length) };
        driver.check("copying to the GPU", status)
    }

    fn download(&self, from: Span, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let driver = self.enter()?;
        let length = bytes.len().min(from.bytes);
        // SAFETY: both have `length` bytes.
        let status = unsafe { (driver.to_host)(bytes.as_mut_ptr().cast(), from.address, length) };
        driver.check("copying from the GPU", status)
    }

    fn blocks(&self) -> usize {
        self.processors * BLOCKS_PER_PROCESSOR
    }

    fn budget(&self) -> usize {
        let (mut free, mut total) = (0, 0);
        let Ok(driver) = self.enter() else { return 0 };
        // SAFETY: a plain call.
        let status = unsafe { (driver.memory)(&mut free, &mut total) };
        if status == 0 {
            // powers of two: up to twice what was asked for is taken
            (free as f64 * BUDGET / 2.0) as usize
        } else {
            0
        }
    }
}
