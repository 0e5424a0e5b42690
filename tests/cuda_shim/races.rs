//! The race detector, `races.cpp`: compiled once, found by all kernels that are loaded.

use dnet::back::cuda::device::Span;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::c_void;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// What makes g++ call it before every access to memory.
pub const OPTIONS: [&str; 2] = [
    "-fsanitize=thread",
    "--param=tsan-instrument-func-entry-exit=0",
];

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cuda_shim/races.cpp");

/// Its functions.
struct Functions {
    new: unsafe extern "C" fn() -> *mut c_void,
    delete: unsafe extern "C" fn(*mut c_void),
    allocated: unsafe extern "C" fn(*mut c_void, u64, u64),
    released: unsafe extern "C" fn(*mut c_void, u64),
    set: unsafe extern "C" fn(*mut c_void, u64, u64, bool),
    enter: unsafe extern "C" fn(*mut c_void),
    strict: unsafe extern "C" fn(bool),
}

/// The shared object of the source as it is.
fn object() -> PathBuf {
    let mut hash = DefaultHasher::new();
    let text = std::fs::read_to_string(SOURCE).expect("the race detector's source");
    (text, include_str!("../../kernels/shim_races.h")).hash(&mut hash);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = target.join(format!("races-{:016x}.so", hash.finish()));
    if path.exists() {
        return path;
    }
    let made = target.join(format!("races-{}.so", std::process::id()));
    let output = Command::new("g++")
        .args(["-std=c++20", "-O2", "-fno-omit-frame-pointer", "-shared"])
        .args(["-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-o"])
        .args([made.as_os_str(), SOURCE.as_ref()])
        .output()
        .expect("g++ runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.is_empty(), "{text}");
    std::fs::rename(&made, &path).expect("moves the race detector");
    path
}

static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    // SAFETY: a library without initialisers, never unloaded; its functions have these
    // types.
    unsafe {
        let library = Library::open(Some(object()), RTLD_NOW | RTLD_GLOBAL);
        let library: &Library = Box::leak(Box::new(library.expect("the race detector loads")));
        macro_rules! function {
            ($name:literal) => {
                *library.get($name.as_bytes()).expect($name)
            };
        }
        Functions {
            new: function!("dnet_races_new"),
            delete: function!("dnet_races_delete"),
            allocated: function!("dnet_races_allocated"),
            released: function!("dnet_races_released"),
            set: function!("dnet_races_set"),
            enter: function!("dnet_races_enter"),
            strict: function!("dnet_races_strict"),
        }
    }
});

/// Who wrote and read the memory of a device.
pub struct Races(*mut c_void);

// SAFETY: it belongs to the device's queues, of which a lock lets in one thread at a time.
unsafe impl Send for Races {}

impl Races {
    /// Of a device without memory.
    pub fn new() -> Races {
        // SAFETY: has no arguments.
        Races(unsafe { (FUNCTIONS.new)() })
    }

    /// New memory, never written.
    pub fn allocated(&self, of: Span) {
        // SAFETY: alive until it is dropped, as in the functions below.
        unsafe { (FUNCTIONS.allocated)(self.0, of.address, of.bytes as u64) }
    }

    /// Memory that is gone.
    pub fn released(&self, address: u64) {
        unsafe { (FUNCTIONS.released)(self.0, address) }
    }

    /// Bytes that the host wrote, or that hold nothing any more.
    pub fn set(&self, of: Span, written: bool) {
        unsafe { (FUNCTIONS.set)(self.0, of.address, of.bytes as u64, written) }
    }

    /// Launches until the next call are on this device, or nobody watches them.
    pub fn enter(&self, watched: bool) {
        let device = if watched {
            self.0
        } else {
            std::ptr::null_mut()
        };
        unsafe { (FUNCTIONS.enter)(device) }
    }
}

impl Drop for Races {
    fn drop(&mut self) {
        unsafe {
            (FUNCTIONS.enter)(std::ptr::null_mut());
            (FUNCTIONS.delete)(self.0);
        }
    }
}

/// Whether the next launches must not read what was never written.
pub fn be_strict(strict: bool) {
    // SAFETY: sets a variable.
    unsafe { (FUNCTIONS.strict)(strict) }
}

/// Whether a kernel of a text reads, and does not use, what nobody wrote: lookups on a
/// ring those lanes that belong to no site, see `kernel::Step::Lookup`; a Cholesky
/// factorisation what is above the diagonal.
pub fn reads_anything(text: &str, kernel: &str) -> bool {
    kernel.starts_with("cholesky_") || text.contains("= nearest(")
}

/// Whether the detector says so, not the shim.
pub fn found(error: &str) -> bool {
    ["race: ", "unwritten: ", "stack: "]
        .iter()
        .any(|kind| error.contains(kind))
}

/// Lines of the text in place of offsets into its shared object: `compile` makes it
/// again, with tables of lines and otherwise the same.
pub fn with_lines(error: &str, text: &str, compile: impl Fn() -> Option<PathBuf>) -> String {
    let Some(object) = compile() else {
        return error.to_owned();
    };
    let mut out = String::new();
    let mut rest = error;
    while let Some((before, after)) = rest.split_once('<') {
        let (offsets, after) = after.split_once('>').unwrap_or((after, ""));
        let lines = lines(&object, offsets, text).unwrap_or_else(|| offsets.to_owned());
        out += &format!("{before}({lines})");
        rest = after;
    }
    let _ = std::fs::remove_file(object);
    out + rest
}

/// Functions, and lines of the text where they are; `None` without `addr2line`.
fn lines(object: &Path, offsets: &str, text: &str) -> Option<String> {
    let output = Command::new("addr2line")
        .args(["-f", "-s", "-C", "-e"])
        .arg(object)
        .args(offsets.split(' '))
        .output()
        .ok()?;
    let found = String::from_utf8(output.stdout).ok()?;
    let found: Vec<&str> = found.lines().collect();
    let line = |pair: &[&str]| {
        let (function, place) = (pair[0], pair[pair.len() - 1]);
        let function = function.split('(').next().unwrap_or(function);
        let number = place.strip_prefix("text:").and_then(|p| {
            let digits: String = p.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<usize>().ok()
        });
        let line = number.and_then(|n| text.lines().nth(n - 1));
        line.map(|l| format!("{function}, line {}: {}", number.unwrap_or(0), l.trim()))
    };
    let each: Vec<String> = found.chunks(2).filter_map(line).collect();
    Some(each.join(" | called in "))
}
