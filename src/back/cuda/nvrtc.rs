//! NVIDIA's runtime compiler, loaded when it is first needed and called through
//! `cudarc`.
//!
//! It needs neither a driver nor a GPU. `cudarc` opens libraries by name: the one
//! we choose is loaded by its path first, and a library that is loaded is found
//! under its name wherever it lies. The names it asks for are those of CUDA 12.

use cudarc::nvrtc::sys;
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;

/// Why nothing could be compiled.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NvrtcError {
    /// The library is not installed, or not where we look.
    #[error(
        "the CUDA runtime compiler (libnvrtc) was not found; install the CUDA 12 toolkit, or `pip install nvidia-cuda-nvrtc-cu12`, or set DNET_NVRTC to the library"
    )]
    Missing,
    /// A library without a function that every version has.
    #[error("`{path}` is no usable libnvrtc: {reason}")]
    Unusable {
        /// The library.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// It does not compile for this architecture.
    #[error("this libnvrtc (CUDA {version}) compiles for {known}, not for {asked}")]
    Architecture {
        /// Its version.
        version: String,
        /// What it knows.
        known: String,
        /// What was asked for.
        asked: String,
    },
    /// It rejected the text.
    #[error("the CUDA compiler rejected the emitted code:\n{0}")]
    Rejected(String),
}

/// A GPU architecture: compute capability times ten, 90 for `sm_90`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Architecture(pub u32);

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sm_{}", self.0)
    }
}

impl std::str::FromStr for Architecture {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("sm_").unwrap_or(text);
        match number.parse() {
            Ok(n) if (50..1000).contains(&n) => Ok(Architecture(n)),
            _ => Err(format!("`{text}` is no GPU architecture; write `sm_90`")),
        }
    }
}

/// What to compile to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Machine code of one architecture.
    Cubin,
    /// Virtual machine code that a driver translates.
    Ptx,
}

/// Compiled code and the compiler's remarks.
#[derive(Clone, Debug)]
pub struct Binary {
    /// Machine code, or PTX as text.
    pub code: Vec<u8>,
    /// Registers, spills and shared memory per kernel (machine code only).
    pub resources: Vec<Resources>,
}

/// What a kernel takes of a multiprocessor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// The kernel.
    pub kernel: String,
    /// Registers per thread.
    pub registers: usize,
    /// Bytes of stack per thread.
    pub stack: usize,
    /// Bytes of registers stored to memory and loaded again, per thread.
    pub spills: usize,
    /// Bytes of static shared memory.
    pub shared: usize,
}

/// What is called below: `cudarc` panics where a library lacks one of them.
const FUNCTIONS: [&str; 12] = [
    "nvrtcVersion",
    "nvrtcCreateProgram",
    "nvrtcCompileProgram",
    "nvrtcDestroyProgram",
    "nvrtcGetProgramLogSize",
    "nvrtcGetProgramLog",
    "nvrtcGetCUBINSize",
    "nvrtcGetCUBIN",
    "nvrtcGetPTXSize",
    "nvrtcGetPTX",
    "nvrtcGetNumSupportedArchs",
    "nvrtcGetSupportedArchs",
];

type SizeOf = unsafe fn(sys::nvrtcProgram, *mut usize) -> sys::nvrtcResult;
type Get = unsafe fn(sys::nvrtcProgram, *mut c_char) -> sys::nvrtcResult;

/// The library.
pub struct Nvrtc {
    path: PathBuf,
    version: (u32, u32),
}

impl Nvrtc {
    /// The library in the first place that has one, opened once.
    ///
    /// # Errors
    /// [`NvrtcError::Missing`] and libraries that cannot be used.
    pub fn find() -> Result<&'static Nvrtc, NvrtcError> {
        static FOUND: OnceLock<Result<Nvrtc, NvrtcError>> = OnceLock::new();
        let open = || {
            let mut failure = NvrtcError::Missing;
            for path in candidates() {
                match Nvrtc::open(&path) {
                    Ok(found) => return Ok(found),
                    Err(e) => failure = e,
                }
            }
            NAMES
                .iter()
                .find_map(|name| Nvrtc::open(Path::new(name)).ok())
                .ok_or(failure)
        };
        FOUND.get_or_init(open).as_ref().map_err(Clone::clone)
    }

    /// The library at a path. A process uses one library: the first.
    ///
    /// # Errors
    /// A file that is no such library, or not the one in use.
    pub fn open(path: &Path) -> Result<Nvrtc, NvrtcError> {
        let unusable = |reason: String| NvrtcError::Unusable {
            path: path.display().to_string(),
            reason,
        };
        let (mut major, mut minor) = (0, 0);
        // SAFETY: NVIDIA's library may be loaded at any time; `cudarc` finds it,
        // and every function, before one is called.
        unsafe {
            let library = Library::new(path).map_err(|e| unusable(e.to_string()))?;
            if !sys::is_culib_present() {
                let reason = "dnet calls the runtime compiler of CUDA 12 (libnvrtc.so.12)";
                return Err(unusable(reason.to_owned()));
            }
            let in_use = sys::culib();
            for name in FUNCTIONS {
                in_use
                    .get::<unsafe extern "C" fn()>(name)
                    .map_err(|e| unusable(e.to_string()))?;
            }
            let version = |l: &Library| {
                let found = l.get::<unsafe extern "C" fn()>("nvrtcVersion");
                found.ok().map(|f| *f as usize)
            };
            if version(&library) != version(in_use) {
                let reason = "another one, on the library search path or opened before, is in use";
                return Err(unusable(reason.to_owned()));
            }
            sys::nvrtcVersion(&mut major, &mut minor);
        }
        Ok(Nvrtc {
            path: path.to_owned(),
            version: (major as u32, minor as u32),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// CUDA version: (12, 9).
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// Architectures it compiles for, in order.
    pub fn architectures(&self) -> Vec<Architecture> {
        let mut count = 0;
        // SAFETY: the second call fills as many numbers as the first one says.
        let mut numbers = unsafe {
            sys::nvrtcGetNumSupportedArchs(&mut count);
            let mut numbers = vec![0; count.max(0) as usize];
            sys::nvrtcGetSupportedArchs(numbers.as_mut_ptr());
            numbers
        };
        numbers.sort_unstable();
        numbers
            .into_iter()
            .map(|n| Architecture(n as u32))
            .collect()
    }

    /// Compiles a translation unit.
    ///
    /// # Errors
    /// Unknown architectures, and text the compiler rejects.
    pub fn compile(
        &self,
        text: &str,
        architecture: Architecture,
        form: Form,
    ) -> Result<Binary, NvrtcError> {
        let known = self.architectures();
        if !known.contains(&architecture) {
            let list: Vec<String> = known.iter().map(Architecture::to_string).collect();
            return Err(NvrtcError::Architecture {
                version: format!("{}.{}", self.version.0, self.version.1),
                known: list.join(", "),
                asked: architecture.to_string(),
            });
        }
        let target = match form {
            Form::Cubin => format!("--gpu-architecture={architecture}"),
            Form::Ptx => format!("--gpu-architecture=compute_{}", architecture.0),
        };
        let mut options = vec![target, "--std=c++17".to_owned()];
        if form == Form::Cubin {
            options.push("--ptxas-options=-v".to_owned());
        }
        let text = CString::new(text).map_err(|e| NvrtcError::Rejected(e.to_string()))?;
        let options: Vec<CString> = options.into_iter().flat_map(CString::new).collect();
        let pointers: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        let fine = sys::nvrtcResult::NVRTC_SUCCESS;
        // SAFETY: the program lives from create to destroy; every buffer has the
        // size the library asked for.
        unsafe {
            let mut program: sys::nvrtcProgram = ptr::null_mut();
            let (name, none) = (c"dnet.cu".as_ptr(), ptr::null());
            let made = sys::nvrtcCreateProgram(&mut program, text.as_ptr(), name, 0, none, none);
            if made != fine {
                return Err(NvrtcError::Rejected(format!("it does not start: {made:?}")));
            }
            let count = pointers.len() as c_int;
            let status = sys::nvrtcCompileProgram(program, count, pointers.as_ptr());
            let read = |size: SizeOf, get: Get| {
                let mut length = 0;
                let mut bytes = Vec::new();
                if size(program, &mut length) == fine {
                    bytes.resize(length, 0u8);
                    get(program, bytes.as_mut_ptr().cast());
                }
                bytes
            };
            let log = read(sys::nvrtcGetProgramLogSize, sys::nvrtcGetProgramLog);
            let log = CStr::from_bytes_until_nul(&log).map(CStr::to_string_lossy);
            let log = log.map(|l| l.into_owned()).unwrap_or_default();
            let code = match form {
                Form::Cubin => read(sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN),
                Form::Ptx => read(sys::nvrtcGetPTXSize, sys::nvrtcGetPTX),
            };
            sys::nvrtcDestroyProgram(&mut program);
            if status != fine || code.is_empty() {
                return Err(NvrtcError::Rejected(log));
            }
            Ok(Binary {
                code,
                resources: resources(&log),
            })
        }
    }
}

#[cfg(windows)]
const NAMES: [&str; 2] = ["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"];
#[cfg(not(windows))]
const NAMES: [&str; 3] = ["libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so"];

/// Libraries in the usual places, best first: `$DNET_NVRTC` (a file or a folder),
/// `$CUDA_HOME` and `$CUDA_PATH`, toolkits in /usr/local, Python's packages, our
/// own cache.
pub fn candidates() -> Vec<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let mut folders = Vec::new();
    let mut found = Vec::new();
    if let Some(path) = variable("DNET_NVRTC") {
        if path.is_file() {
            found.push(path);
        } else {
            folders.extend(wheel(&path));
            folders.push(path);
        }
    }
    for home in ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable) {
        folders.extend(["lib64", "lib", "bin", "targets/x86_64-linux/lib"].map(|d| home.join(d)));
    }
    let mut toolkits: Vec<PathBuf> = std::fs::read_dir("/usr/local")
        .map(|entries| entries.flatten().map(|e| e.path()).collect())
        .unwrap_or_default();
    toolkits.retain(|p| {
        p.file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with("cuda"))
    });
    toolkits.sort();
    folders.extend(toolkits.into_iter().rev().map(|p| p.join("lib64")));
    folders.extend(
        super::cache::directory()
            .iter()
            .flat_map(|d| wheel(&d.join("nvrtc"))),
    );
    for folder in folders {
        found.extend(
            NAMES
                .map(|n| folder.join(n))
                .into_iter()
                .filter(|p| p.is_file()),
        );
    }
    if found.is_empty() {
        for folder in site_packages().iter().flat_map(|d| wheel(d)) {
            found.extend(
                NAMES
                    .map(|n| folder.join(n))
                    .into_iter()
                    .filter(|p| p.is_file()),
            );
        }
    }
    found
}

/// Where Python's packages of CUDA 12 and 13 keep the library.
fn wheel(packages: &Path) -> [PathBuf; 2] {
    ["nvidia/cuda_nvrtc/lib", "nvidia/cu13/lib"].map(|d| packages.join(d))
}

/// The package folders of the first Python on the path.
fn site_packages() -> Vec<PathBuf> {
    let code = "import site, sysconfig; print(sysconfig.get_path('purelib')); \
                print(site.getusersitepackages())";
    let output = std::process::Command::new("python3")
        .args(["-c", code])
        .output();
    output
        .map(|o| {
            String::from_utf8_lossy(&o.stdout)
                .lines()
                .map(PathBuf::from)
                .collect()
        })
        .unwrap_or_default()
}

/// What the assembler says about every kernel.
fn resources(log: &str) -> Vec<Resources> {
    let mut all: Vec<Resources> = Vec::new();
    // the number before a word
    let before = |line: &str, word: &str| -> usize {
        let head = line.split(word).next().unwrap_or_default();
        let last = head.split_whitespace().next_back();
        last.and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            all.push(Resources {
                kernel,
                ..Resources::default()
            });
        }
        let Some(r) = all.last_mut() else { continue };
        if line.contains("bytes stack frame") {
            // also of the functions it calls
            r.stack = r.stack.max(before(line, " bytes stack frame"));
            r.spills += before(line, " bytes spill stores") + before(line, " bytes spill loads");
        }
        if line.contains(" registers") {
            r.registers = before(line, " registers");
            if line.contains(" bytes smem") {
                r.shared = before(line, " bytes smem");
            }
        }
    }
    all
}

/// A listing of resources, one line per kernel.
pub fn listing(architecture: Architecture, resources: &[Resources]) -> String {
    let mut text = String::new();
    for r in resources {
        let _ = writeln!(
            text,
            "{architecture} {:<20} {:>3} registers, {} bytes spilled, {} bytes of stack, {} bytes of static shared memory",
            r.kernel, r.registers, r.spills, r.stack, r.shared
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assembler_remarks_are_read() {
        let log = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'log_psi' for 'sm_90'\n\
            ptxas info    : Function properties for log_psi\n\
            \x20   16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads\n\
            ptxas info    : Used 40 registers, used 1 barriers, 24 bytes smem, 400 bytes cmem[0]\n\
            ptxas info    : Compiling entry function 'second' for 'sm_90'\n\
            ptxas info    : Used 9 registers\n";
        let found = resources(log);
        assert_eq!(found.len(), 2);
        let first = &found[0];
        let numbers = [first.registers, first.stack, first.spills, first.shared];
        assert_eq!(
            (first.kernel.as_str(), numbers),
            ("log_psi", [40, 16, 12, 24])
        );
        assert_eq!(
            (found[1].kernel.as_str(), found[1].registers),
            ("second", 9)
        );
    }

    #[test]
    fn architectures_are_read_with_and_without_prefix() {
        assert_eq!("sm_90".parse(), Ok(Architecture(90)));
        assert_eq!("100".parse(), Ok(Architecture(100)));
        assert!("ninety".parse::<Architecture>().is_err());
        assert!("sm_7".parse::<Architecture>().is_err());
    }
}
