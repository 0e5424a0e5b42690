//! A device without a GPU: emitted text compiled by g++ behind `kernels/shim.h`.
#![allow(dead_code)] // each test crate uses a part of it

mod queues;
mod races;

use dnet::back::cuda::device::{Device, DeviceError, Launch, Module, Span, Stream};
use dnet::back::cuda::emit::Kernel;
use libloading::Library;
pub use queues::When;
use queues::{Op, Queues};
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

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
    queues: Arc<Mutex<Queues>>,
    /// What is done about races and the like that are found.
    found: Found,
}

/// What is done about races, and about bytes that are read and were never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// A panic, with lines of the text: errors of a device may be mended by the host.
    Panic,
    /// An error of the device.
    Error,
}

impl ShimDevice {
    /// A device with room for `budget` bytes that runs `blocks` blocks, and does at
    /// once what it is asked for.
    pub fn new(order: Order, blocks: usize, budget: usize) -> ShimDevice {
        ShimDevice::doing(When::AtOnce, order, blocks, budget)
    }

    /// As [`ShimDevice::new`], doing what it is asked for at other times.
    pub fn doing(when: When, order: Order, blocks: usize, budget: usize) -> ShimDevice {
        ShimDevice {
            order,
            blocks,
            budget,
            queues: Arc::new(Mutex::new(Queues::new(when))),
            found: Found::Panic,
        }
    }

    /// A device that makes an error of what the race detector finds.
    pub fn reporting(self) -> ShimDevice {
        let found = Found::Error;
        ShimDevice { found, ..self }
    }

    /// A device that leaves out the race detector.
    pub fn unwatched(self) -> ShimDevice {
        self.queues().watched = false;
        self
    }

    /// Counts the kernels every stream was asked for, wherever the device goes.
    pub fn counter(&self) -> impl Fn() -> [usize; Stream::COUNT] + use<> {
        let queues = self.queues.clone();
        move || queues.lock().unwrap_or_else(|e| e.into_inner()).launches()
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(|e| e.into_inner())
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
    sizes: [c_int; 4],
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
    code: Arc<Code>,
    order: Order,
    real: usize,
    queues: Arc<Mutex<Queues>>,
    found: Found,
}

/// A translation unit, compiled.
pub struct Code {
    text: String,
    library: Library,
}

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Compiles a translation unit, with more options if there are any.
fn object(unit: &str, options: &[&str]) -> Result<PathBuf, DeviceError> {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let base = dir.join(format!("shim_{}_{number}", std::process::id()));
    let (source, object) = (base.with_extension("cu"), base.with_extension("so"));
    let io = |e: std::io::Error| DeviceError::new(format!("tests/cuda_shim/compile: {e}"));
    std::fs::write(&source, unit).map_err(io)?;
    let output = Command::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/cuda_shim/compile"
    ))
    .args(races::OPTIONS)
    .args(options)
    .args([&source, &object])
    .output()
    .map_err(io)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(DeviceError::new(format!("{}: {text}", source.display())));
    }
    let _ = std::fs::remove_file(&source);
    Ok(object)
}

/// Compiles a translation unit and loads it.
fn compile(unit: &str) -> Result<Code, DeviceError> {
    let object = object(unit, &[])?;
    // SAFETY: the object has no initialisers of its own.
    let library = unsafe { Library::new(&object) }.map_err(|e| DeviceError::new(e.to_string()))?;
    let _ = std::fs::remove_file(&object);
    Ok(Code {
        text: unit.to_owned(),
        library,
    })
}

/// Runs a kernel now.
fn run(
    code: &Code,
    (name, threads, shared): (&str, usize, usize),
    (order, real, found): (Order, usize, Found),
    blocks: usize,
    a: &Launch,
) -> Result<(), DeviceError> {
    let array = |s: Span, size: usize| Array {
        first: s.address as *mut c_void,
        length: (s.bytes / size) as c_long,
    };
    let arguments = Arguments {
        samples: a.samples as c_long,
        sizes: a.sizes,
        arrays: [
            array(a.spins, 1),
            array(a.inputs, 8),
            array(a.constants, real),
            array(a.constants64, 8),
            array(a.workspace, 8),
            array(a.outputs, 8),
            array(a.site_outputs, real),
        ],
    };
    let order = match order {
        Order::Forward => 0,
        Order::Backward => 1,
        Order::Random(seed) => 2 + seed,
    };
    // SAFETY: symbols of the shim, with the types they have there.
    let error = unsafe {
        let symbol = |e: libloading::Error| DeviceError::new(e.to_string());
        let run = code
            .library
            .get::<LaunchFn>(b"dnet_launch")
            .map_err(symbol)?;
        let function = code.library.get::<*const c_void>(name.as_bytes());
        let function = function.map_err(symbol)?;
        let (blocks, threads) = (blocks as c_int, threads as c_int);
        let shared = (shared / 8) as c_long;
        let error = run(*function, &arguments, blocks, threads, shared, order);
        (!error.is_null()).then(|| CStr::from_ptr(error).to_string_lossy().into_owned())
    };
    match error {
        Some(text) if found == Found::Panic && races::found(&text) => {
            let again = || object(&code.text, &["-g"]).ok();
            panic!("{name}: {}", races::with_lines(&text, &code.text, again))
        }
        Some(text) => Err(DeviceError::new(format!("{name}: {text}"))),
        None => Ok(()),
    }
}

impl Module for ShimModule {
    fn launch_on(
        &self,
        stream: Stream,
        kernel: &Kernel,
        blocks: usize,
        a: &Launch,
    ) -> Result<(), DeviceError> {
        let (code, how, a) = (self.code.clone(), (self.order, self.real, self.found), *a);
        let (name, threads, shared) = (kernel.name.clone(), kernel.threads, kernel.shared);
        let strict = !races::reads_anything(&self.code.text, &kernel.name);
        let work = move || {
            races::be_strict(strict);
            run(&code, (&name, threads, shared), how, blocks, &a)
        };
        let mut queues = self.queues.lock().unwrap_or_else(|e| e.into_inner());
        queues.ask(stream, Op::Launch(Box::new(work)))
    }
}

/// What was compiled already, by its text.
type Compiled = Mutex<HashMap<String, Arc<Code>>>;

impl Device for ShimDevice {
    fn name(&self) -> String {
        "fibers".to_owned()
    }
    fn load(&self, unit: &str) -> Result<Box<dyn Module>, DeviceError> {
        static COMPILED: std::sync::LazyLock<Compiled> = std::sync::LazyLock::new(Mutex::default);
        let lock = || COMPILED.lock().unwrap_or_else(|e| e.into_inner());
        let known = lock().get(unit).cloned();
        let code = match known {
            Some(code) => code,
            None => {
                let code = Arc::new(compile(unit)?);
                lock().insert(unit.to_owned(), code.clone());
                code
            }
        };
        let double = unit.contains("typedef double real;");
        Ok(Box::new(ShimModule {
            code,
            order: self.order,
            real: if double { 8 } else { 4 },
            queues: self.queues.clone(),
            found: self.found,
        }))
    }
    fn allocate(&self, stream: Stream, bytes: usize) -> Result<u64, DeviceError> {
        Ok(self.queues().allocate(stream, bytes))
    }
    fn release(&self, address: u64) {
        self.queues().release(address);
    }
    fn upload_on(&self, stream: Stream, bytes: &[u8], to: Span) -> Result<(), DeviceError> {
        assert!(bytes.len() <= to.bytes, "inside the buffer");
        self.queues().ask(stream, Op::Upload(to, bytes.to_vec()))
    }
    fn download_on(&self, stream: Stream, from: Span, bytes: &mut [u8]) -> Result<(), DeviceError> {
        assert!(bytes.len() <= from.bytes, "inside the buffer");
        let mut queues = self.queues();
        queues.wait(stream)?;
        // SAFETY: memory of the queues, which are locked.
        unsafe {
            let from = from.address as *const u8;
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len());
        }
        Ok(())
    }
    fn order(&self, earlier: Stream, later: Stream) -> Result<(), DeviceError> {
        self.queues().order(earlier, later)
    }
    fn blocks(&self) -> usize {
        self.blocks
    }
    fn budget(&self) -> usize {
        self.budget
    }
}
