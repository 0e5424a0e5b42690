//! A device without a GPU: emitted text compiled by g++ behind `kernels/shim.h`.

use dnet::back::cuda::device::{Device, DeviceError, Launch, Module, Span};
use dnet::back::cuda::emit::Kernel;
use libloading::Library;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const PROLOGUE: &str = include_str!("../../kernels/shim.h");
const EPILOGUE: &str = include_str!("../../kernels/shim_launch.h");

/// In what order the threads of a block run.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    Forward,
    Backward,
    Random(i32),
}

/// Host memory behind addresses, and kernels as shared objects.
pub struct ShimDevice {
    order: Order,
    blocks: usize,
    budget: usize,
    memory: Mutex<HashMap<u64, Vec<u64>>>,
}

impl ShimDevice {
    /// A device with room for `budget` bytes that runs `blocks` blocks.
    pub fn new(order: Order, blocks: usize, budget: usize) -> ShimDevice {
        ShimDevice {
            order,
            blocks,
            budget,
            memory: Mutex::default(),
        }
    }
}

/// `struct Array` of the shim.
#[repr(C)]
struct Array {
    first: *mut c_void,
    length: c_long,
}

#[repr(C)]
struct Arguments {
    samples: c_long,
    arrays: [Array; 7],
}

type LaunchFn = unsafe extern "C" fn(
    *const c_void,
    *const Arguments,
    c_int,
    c_int,
    c_long,
    c_int,
) -> *const c_char;

struct ShimModule {
    library: Library,
    order: Order,
    real: usize,
}

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Compiles a translation unit and loads it.
pub fn compile(unit: &str) -> Result<Library, DeviceError> {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let base = dir.join(format!("shim_{}_{number}", std::process::id()));
    let (source, object) = (base.with_extension("cpp"), base.with_extension("so"));
    let text = format!("{PROLOGUE}\n{unit}\n{EPILOGUE}");
    let io = |e: std::io::Error| DeviceError::new(format!("g++: {e}"));
    std::fs::write(&source, text).map_err(io)?;
    let output = Command::new("g++")
        .args(["-std=c++17", "-O0", "-shared", "-fPIC", "-ffp-contract=off"])
        .args(["-fsanitize=bounds", "-fsanitize-undefined-trap-on-error"])
        .args(["-Wall", "-Wno-unused", "-Wno-unknown-pragmas"])
        .arg("-o")
        .args([&object, &source])
        .output()
        .map_err(io)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(DeviceError::new(format!("{}: {text}", source.display())));
    }
    // SAFETY: the object has no initialisers of its own.
    let library = unsafe { Library::new(&object) }.map_err(|e| DeviceError::new(e.to_string()))?;
    let _ = std::fs::remove_file(&source);
    let _ = std::fs::remove_file(&object);
    Ok(library)
}

impl Module for ShimModule {
    fn launch(&self, kernel: &Kernel, blocks: usize, a: &Launch) -> Result<(), DeviceError> {
        let array = |s: Span, size: usize| Array {
            first: s.address as *mut c_void,
            length: (s.bytes / size) as c_long,
        };
        let arguments = Arguments {
            samples: a.samples as c_long,
            arrays: [
                array(a.spins, 1),
                array(a.inputs, 8),
                array(a.constants, self.real),
                array(a.constants64, 8),
                array(a.workspace, 8),
                array(a.outputs, 8),
                array(a.site_outputs, self.real),
            ],
        };
        let order = match self.order {
            Order::Forward => 0,
            Order::Backward => 1,
            Order::Random(seed) => 2 + seed,
        };
        // SAFETY: symbols of the shim, with the types they have there.
        let error = unsafe {
            let symbol = |e: libloading::Error| DeviceError::new(e.to_string());
            let run = self
                .library
                .get::<LaunchFn>(b"dnet_launch")
                .map_err(symbol)?;
            let name = kernel.name.as_bytes();
            let function = self.library.get::<*const c_void>(name).map_err(symbol)?;
            let error = run(
                *function,
                &arguments,
                blocks as c_int,
                kernel.threads as c_int,
                (kernel.shared / 8) as c_long,
                order,
            );
            (!error.is_null()).then(|| CStr::from_ptr(error).to_string_lossy().into_owned())
        };
        match error {
            Some(text) => Err(DeviceError::new(format!("{}: {text}", kernel.name))),
            None => Ok(()),
        }
    }
}

impl Device for ShimDevice {
    fn name(&self) -> String {
        "fibers".to_owned()
    }
    fn load(&self, unit: &str) -> Result<Box<dyn Module>, DeviceError> {
        let double = unit.contains("typedef double real;");
        Ok(Box::new(ShimModule {
            library: compile(unit)?,
            order: self.order,
            real: if double { 8 } else { 4 },
        }))
    }
    fn allocate(&self, bytes: usize) -> Result<u64, DeviceError> {
        // NaN in both precisions: what nobody wrote shows
        let words = vec![u64::MAX; bytes.div_ceil(8)];
        let address = words.as_ptr() as u64;
        self.memory.lock().unwrap().insert(address, words);
        Ok(address)
    }
    fn release(&self, address: u64) {
        let words = self
            .memory
            .lock()
            .unwrap()
            .remove(&address)
            .expect("allocated here");
        drop(words);
    }
    fn upload(&self, bytes: &[u8], to: Span) -> Result<(), DeviceError> {
        assert!(bytes.len() <= to.bytes, "inside the buffer");
        // SAFETY: memory allocated above.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.address as *mut u8, bytes.len()) }
        Ok(())
    }
    fn download(&self, from: Span, bytes: &mut [u8]) -> Result<(), DeviceError> {
        assert!(bytes.len() <= from.bytes, "inside the buffer");
        // SAFETY: memory allocated above.
        unsafe {
            std::ptr::copy_nonoverlapping(
                from.address as *const u8,
                bytes.as_mut_ptr(),
                bytes.len(),
            )
        }
        Ok(())
    }
    fn blocks(&self) -> usize {
        self.blocks
    }
    fn budget(&self) -> usize {
        self.budget
    }
}
