//! NVIDIA's runtime compiler, loaded when it is first needed.
//!
//! It needs neither a driver nor a GPU. The few functions that every version has are
//! looked up here, by the library's path: those of CUDA 12 and 13 may be used side
//! by side, whatever else a process has loaded.

use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;

/// Why nothing could be compiled.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NvrtcError {
    /// The library is not installed, or not where we look.
    #[error(
        "the CUDA runtime compiler (libnvrtc) was not found; install the CUDA toolkit (12 or 13), or `pip install nvidia-cuda-nvrtc-cu12`, or set DNET_NVRTC to the library"
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
    #[error("this libnvrtc (CUDA {version}) compiles for {known}, not for {asked}{hint}")]
    Architecture {
        /// Its version.
        version: String,
        /// What it knows.
        known: String,
        /// What was asked for.
        asked: String,
        /// A way out, if there is one.
        hint: &'static str,
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
        f.pad(&format!("sm_{}", self.0))
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
    /// Functions it calls that spill registers, as the assembler names them, and how
    /// many bytes.
    pub functions: Vec<(String, usize)>,
}

type Program = *mut c_void;
type Status = c_int;
type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status;
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> Status;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status;
type Destroy = unsafe extern "C" fn(*mut Program) -> Status;
type SizeOf = unsafe extern "C" fn(Program, *mut usize) -> Status;
type Get = unsafe extern "C" fn(Program, *mut c_char) -> Status;
type Numbers = unsafe extern "C" fn(*mut c_int) -> Status;

/// What is called here, `nvrtcResult` being 0 where all went well.
struct Functions {
    version: Version,
    create: Create,
    compile: Compile,
    destroy: Destroy,
    log: (SizeOf, Get),
    cubin: (SizeOf, Get),
    ptx: (SizeOf, Get),
    architecture_count: Numbers,
    architectures: Numbers,
}

impl Functions {
    /// # Safety
    /// The library must be NVIDIA's.
    unsafe fn of(library: &Library) -> Result<Functions, libloading::Error> {
        // SAFETY: the types are those of nvrtc.h, the same in CUDA 12 and 13.
        unsafe {
            Ok(Functions {
                version: *library.get(b"nvrtcVersion")?,
                create: *library.get(b"nvrtcCreateProgram")?,
                compile: *library.get(b"nvrtcCompileProgram")?,
                destroy: *library.get(b"nvrtcDestroyProgram")?,
                log: (
                    *library.get(b"nvrtcGetProgramLogSize")?,
                    *library.get(b"nvrtcGetProgramLog")?,
                ),
                cubin: (
                    *library.get(b"nvrtcGetCUBINSize")?,
                    *library.get(b"nvrtcGetCUBIN")?,
                ),
                ptx: (
                    *library.get(b"nvrtcGetPTXSize")?,
                    *library.get(b"nvrtcGetPTX")?,
                ),
                architecture_count: *library.get(b"nvrtcGetNumSupportedArchs")?,
                architectures: *library.get(b"nvrtcGetSupportedArchs")?,
            })
        }
    }
}

/// The library.
pub struct Nvrtc {
    path: PathBuf,
    version: (u32, u32),
    functions: Functions,
    /// Keeps the functions valid.
    _library: Library,
    _builtins: Option<Library>,
}

impl Nvrtc {
    /// The libraries in the places we look, best first, each opened once and only
    /// when it is reached.
    fn all() -> impl Iterator<Item = Result<&'static Nvrtc, NvrtcError>> {
        type Place = (PathBuf, OnceLock<Result<Nvrtc, NvrtcError>>);
        static PLACES: OnceLock<Vec<Place>> = OnceLock::new();
        let places = PLACES.get_or_init(|| {
            let mut paths = candidates();
            if paths.is_empty() {
                // wherever the system's loader looks
                paths = NAMES.iter().map(PathBuf::from).collect();
                paths.retain(|p| Nvrtc::open(p).is_ok());
            }
            paths.into_iter().map(|p| (p, OnceLock::new())).collect()
        });
        let open = |(path, opened): &'static Place| {
            let opened = opened.get_or_init(|| Nvrtc::open(path));
            opened.as_ref().map_err(Clone::clone)
        };
        places.iter().map(open)
    }

    /// The library in the first place that has one.
    ///
    /// # Errors
    /// [`NvrtcError::Missing`] and libraries that cannot be used.
    pub fn find() -> Result<&'static Nvrtc, NvrtcError> {
        let mut failure = NvrtcError::Missing;
        for place in Nvrtc::all() {
            match place {
                Ok(library) => return Ok(library),
                Err(e) => failure = e,
            }
        }
        Err(failure)
    }

    /// The best library for a GPU: one that knows its architecture, and whose
    /// code a driver of CUDA `driver` can load; else one that knows it; else any.
    ///
    /// # Errors
    /// As [`Nvrtc::find`].
    pub fn find_for(
        architecture: Architecture,
        driver: (u32, u32),
    ) -> Result<&'static Nvrtc, NvrtcError> {
        let knows = |n: &&Nvrtc| n.architectures().contains(&architecture);
        let fits = |n: &&Nvrtc| n.version.0 <= driver.0 && knows(n);
        let all = || Nvrtc::all().flatten();
        match all().find(fits).or_else(|| all().find(knows)) {
            Some(library) => Ok(library),
            None => Nvrtc::find(),
        }
    }

    /// The library at a path.
    ///
    /// # Errors
    /// A file that is no such library.
    pub fn open(path: &Path) -> Result<Nvrtc, NvrtcError> {
        let unusable = |reason: String| NvrtcError::Unusable {
            path: path.display().to_string(),
            reason,
        };
        let (mut major, mut minor) = (0, 0);
        // SAFETY: NVIDIA's library may be loaded at any time, and stays loaded as
        // long as its functions are known.
        let (library, functions) = unsafe {
            let library = Library::new(path).map_err(|e| unusable(e.to_string()))?;
            let functions = Functions::of(&library).map_err(|e| unusable(e.to_string()))?;
            (functions.version)(&mut major, &mut minor);
            (library, functions)
        };
        if major < 12 {
            let reason = format!("it is that of CUDA {major}.{minor}, dnet needs 12 or 13");
            return Err(unusable(reason));
        }
        Ok(Nvrtc {
            path: path.to_owned(),
            version: (major as u32, minor as u32),
            functions,
            _library: library,
            _builtins: builtins(path, (major, minor)),
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
            (self.functions.architecture_count)(&mut count);
            let mut numbers = vec![0; count.max(0) as usize];
            (self.functions.architectures)(numbers.as_mut_ptr());
            numbers
        };
        numbers.sort_unstable();
        numbers
            .into_iter()
            .map(|n| Architecture(n as u32))
            .collect()
    }

    /// What to compile for a GPU: machine code, or PTX of the latest architecture before
    /// its own, which the driver translates, where it is newer than the library.
    ///
    /// # Errors
    /// The library no longer supports it.
    pub fn target(&self, architecture: Architecture) -> Result<(Architecture, Form), NvrtcError> {
        let known = self.architectures();
        if known.contains(&architecture) {
            return Ok((architecture, Form::Cubin));
        }
        let older = known.iter().rev().find(|&&a| a < architecture);
        let older = older.ok_or_else(|| self.unknown(architecture))?;
        Ok((*older, Form::Ptx))
    }

    /// That it does not compile for an architecture, and what would.
    fn unknown(&self, architecture: Architecture) -> NvrtcError {
        let known = self.architectures();
        let list: Vec<String> = known.iter().map(Architecture::to_string).collect();
        NvrtcError::Architecture {
            version: format!("{}.{}", self.version.0, self.version.1),
            known: list.join(", "),
            asked: architecture.to_string(),
            hint: match known.first() {
                Some(&oldest) if architecture < oldest && self.version.0 > 12 => {
                    "; older GPUs need that of CUDA 12: `pip install nvidia-cuda-nvrtc-cu12`"
                }
                _ => "",
            },
        }
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
        if !self.architectures().contains(&architecture) {
            return Err(self.unknown(architecture));
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
        // SAFETY: the program lives from create to destroy; every buffer has the
        // size the library asked for.
        unsafe {
            let f = &self.functions;
            let mut program: Program = ptr::null_mut();
            let (name, none) = (c"dnet.cu".as_ptr(), ptr::null());
            let made = (f.create)(&mut program, text.as_ptr(), name, 0, none, none);
            if made != 0 {
                return Err(NvrtcError::Rejected(format!(
                    "it does not start (nvrtcResult {made})"
                )));
            }
            let count = pointers.len() as c_int;
            let status = (f.compile)(program, count, pointers.as_ptr());
            let read = |(size, get): (SizeOf, Get)| {
                let mut length = 0;
                let mut bytes = Vec::new();
                if size(program, &mut length) == 0 {
                    bytes.resize(length, 0u8);
                    get(program, bytes.as_mut_ptr().cast());
                }
                bytes
            };
            let log = read(f.log);
            let log = CStr::from_bytes_until_nul(&log).map(CStr::to_string_lossy);
            let log = log.map(|l| l.into_owned()).unwrap_or_default();
            let code = match form {
                Form::Cubin => read(f.cubin),
                Form::Ptx => read(f.ptx),
            };
            (f.destroy)(&mut program);
            if status != 0 || code.is_empty() {
                return Err(NvrtcError::Rejected(log));
            }
            Ok(Binary {
                code,
                resources: resources(&log),
            })
        }
    }
}

/// What the library loads by its name when it compiles, from beside it: that of CUDA 13
/// does not look there.
fn builtins(path: &Path, (major, minor): (c_int, c_int)) -> Option<Library> {
    let beside = path.with_file_name(format!("libnvrtc-builtins.so.{major}.{minor}"));
    // SAFETY: a part of NVIDIA's library, which may be loaded at any time.
    (beside.is_file()).then(|| unsafe { Library::new(beside) }.ok())?
}

#[cfg(windows)]
const NAMES: [&str; 2] = ["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"];
#[cfg(not(windows))]
const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

/// Libraries in the usual places, best first; in Python's packages only if there
/// are no others, as Python takes a while to say where they are.
fn candidates() -> Vec<PathBuf> {
    let found = usual_places();
    if !found.is_empty() {
        return found;
    }
    let packages = site_packages();
    let folders = packages.iter().flat_map(|d| wheel(d));
    folders.flat_map(|f| libraries(&f)).collect()
}

/// The compilers in the usual places, for those who keep what they made: paths,
/// sizes and times of change.
pub fn installed() -> String {
    let mut text = String::new();
    for path in usual_places() {
        let data = std::fs::metadata(&path).ok();
        let changed = data.as_ref().and_then(|m| m.modified().ok());
        let _ = write!(
            text,
            "{} {:?} {changed:?};",
            path.display(),
            data.map(|m| m.len())
        );
    }
    text
}

/// The libraries in a folder.
fn libraries(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = NAMES.iter().map(|n| folder.join(n)).collect();
    all.retain(|p| p.is_file());
    all
}

/// `$DNET_NVRTC` (a file or a folder), `$CUDA_HOME` and `$CUDA_PATH`, toolkits in
/// /usr/local, our own cache.
fn usual_places() -> Vec<PathBuf> {
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
    found.extend(folders.iter().flat_map(|f| libraries(f)));
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
    let mut function = String::new();
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
        if let Some((_, name)) = line.split_once("Function properties for ") {
            function = name.trim().to_owned();
        }
        if line.contains("bytes stack frame") {
            // also of the functions it calls
            r.stack = r.stack.max(before(line, " bytes stack frame"));
            let spilled = before(line, " bytes spill stores") + before(line, " bytes spill loads");
            r.spills += spilled;
            if spilled > 0 && function != r.kernel {
                r.functions.push((std::mem::take(&mut function), spilled));
            }
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
