//! NVIDIA's driver and the GPUs it finds. It is loaded when it is first needed and called
//! through `cudarc`.

use super::device::DeviceError;
use super::nvrtc::Architecture;
use cudarc::driver::sys::{self, CUdevice_attribute as What};
use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::sync::OnceLock;

/// What is called here and in [`super::driver`], [`super::graph`] and [`super::staging`]: `cudarc` panics where a driver lacks one of them.
const FUNCTIONS: [&str; 33] = [
    "cuInit",
    "cuGetErrorString",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuCtxSetCurrent",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemHostAlloc",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuStreamCreate",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuEventDestroy_v2",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphExecDestroy",
    "cuGraphDestroy",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuLaunchKernel",
    "cuOccupancyMaxActiveBlocksPerMultiprocessor",
];

/// Starts the driver, once. Nothing else here is called before.
fn start() -> Result<(), DeviceError> {
    static STARTED: OnceLock<Result<(), DeviceError>> = OnceLock::new();
    let open = || {
        // SAFETY: the driver may be loaded at any time; `cudarc` finds it, and
        // every function, before one is called.
        unsafe {
            if !sys::is_culib_present() {
                let text = "no NVIDIA driver is installed (libcuda was not found)";
                return Err(DeviceError::new(text));
            }
            for name in FUNCTIONS {
                sys::culib()
                    .get::<unsafe extern "C" fn()>(name)
                    .map_err(|_| {
                        DeviceError::new(format!("the NVIDIA driver is too old: no {name}"))
                    })?;
            }
            let status = sys::cuInit(0);
            check("starting the driver", status).map_err(|e| match status {
                sys::CUresult::CUDA_ERROR_STUB_LIBRARY => DeviceError::new(format!(
                    "{e}: the CUDA toolkit's library to link programs with is found before the \
                     driver; take its folder `stubs` out of LD_LIBRARY_PATH"
                )),
                _ => e,
            })
        }
    };
    STARTED.get_or_init(open).clone()
}

pub(super) fn check(doing: &str, status: sys::CUresult) -> Result<(), DeviceError> {
    if status == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut text = ptr::null();
    // SAFETY: the driver's strings are constants.
    let reason = unsafe {
        sys::cuGetErrorString(status, &mut text);
        match text.is_null() {
            true => "unknown".to_owned(),
            false => CStr::from_ptr(text).to_string_lossy().into_owned(),
        }
    };
    let number = status as u32;
    Err(DeviceError::new(format!(
        "{doing} failed: {reason} (CUDA error {number})"
    )))
}

/// What is known of a GPU without taking any of its memory.
#[derive(Clone, Debug)]
pub struct Found {
    /// As NVIDIA calls it.
    pub name: String,
    /// What code it runs.
    pub architecture: Architecture,
    /// Multiprocessors.
    pub processors: usize,
    pub(super) device: sys::CUdevice,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name, self.architecture)
    }
}

impl Found {
    fn new(ordinal: c_int) -> Result<Found, DeviceError> {
        // SAFETY: every result has the type the driver writes.
        unsafe {
            let mut device = 0;
            check("opening the GPU", sys::cuDeviceGet(&mut device, ordinal))?;
            let mut text = [0 as c_char; 128];
            check(
                "naming the GPU",
                sys::cuDeviceGetName(text.as_mut_ptr(), 127, device),
            )?;
            let attribute = |which| {
                let mut value = 0;
                check(
                    "asking the GPU",
                    sys::cuDeviceGetAttribute(&mut value, which, device),
                )?;
                Ok::<u32, DeviceError>(value.max(0) as u32)
            };
            let major = attribute(What::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
            let minor = attribute(What::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
            let processors = attribute(What::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
            Ok(Found {
                name: CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned(),
                architecture: Architecture(10 * major + minor),
                processors: processors as usize,
                device,
            })
        }
    }
}

/// What there is, the first one being that which is used.
///
/// # Errors
/// No driver, or one that does not start.
pub fn found() -> Result<Vec<Found>, DeviceError> {
    start()?;
    let mut count = 0;
    // SAFETY: a plain call.
    check("counting GPUs", unsafe {
        sys::cuDeviceGetCount(&mut count)
    })?;
    (0..count).map(Found::new).collect()
}

/// The driver's CUDA version: (12, 9).
///
/// # Errors
/// No driver, or one that does not start.
pub fn version() -> Result<(u32, u32), DeviceError> {
    start()?;
    let mut number = 0;
    // SAFETY: a plain call.
    check("asking for the version", unsafe {
        sys::cuDriverGetVersion(&mut number)
    })?;
    Ok((number as u32 / 1000, number as u32 % 1000 / 10))
}
