//! `dnetc` with stand-ins for NVIDIA's driver and runtime compiler: see `libcuda.cpp`
//! and `libnvrtc.cpp` beside this file for what they do and what they forbid.

use super::workplace::{Workplace, json, stderr};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");

/// The sources: a change of any of them makes new libraries.
const SOURCES: [&str; 6] = [
    include_str!("build"),
    include_str!("common.h"),
    include_str!("device.h"),
    include_str!("libcuda.cpp"),
    include_str!("libnvrtc.cpp"),
    TESTS,
];

/// The folder of both libraries, compiled on first use.
fn libraries(options: &[&str]) -> PathBuf {
    let mut hash = DefaultHasher::new();
    (SOURCES, options).hash(&mut hash);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = target.join(format!("standin-{:016x}", hash.finish()));
    if folder.is_dir() {
        return folder;
    }
    let work = tempfile::tempdir_in(target).expect("a folder");
    let output = Command::new(Path::new(TESTS).join("cuda_driver/build"))
        .arg(work.path())
        .args(options)
        .output()
        .expect("g++ runs");
    let text = stderr(&output);
    assert!(output.status.success() && text.is_empty(), "{text}");
    // another process may have been faster
    let moved = std::fs::rename(work.path(), &folder);
    assert!(moved.is_ok() || folder.is_dir(), "{moved:?}");
    folder
}

/// The folder of the libraries.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| libraries(&[]))
}

/// The runtime compiler.
pub fn nvrtc() -> PathBuf {
    folder().join("libnvrtc.so.12")
}

/// Where it keeps what it made.
pub fn objects() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("standin-objects");
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// A place to run `dnetc` in, with a GPU of its own.
pub struct Gpu {
    pub here: Workplace,
    driver: PathBuf,
    settings: Vec<(String, String)>,
}

impl Gpu {
    /// One multiprocessor with 64 MB of memory, and no kernels kept from before.
    pub fn new() -> Gpu {
        let here = Workplace::new();
        let path = |name: &str| here.path(name).display().to_string();
        let (cache, report, compiled) = (path("cache"), path("report"), path("compiled"));
        let mut gpu = Gpu {
            here,
            driver: folder().to_owned(),
            settings: Vec::new(),
        };
        for (name, value) in [
            ("DNET_NVRTC", nvrtc().display().to_string()),
            ("DNET_CACHE", cache),
            ("DNET_STANDIN_OBJECTS", objects().display().to_string()),
            ("DNET_STANDIN_PROCESSORS", "1".to_owned()),
            ("DNET_STANDIN_MEMORY", (64 << 20).to_string()),
            ("DNET_STANDIN_REPORT", report),
            ("DNET_STANDIN_COMPILED", compiled),
        ] {
            gpu.set(name, value);
        }
        gpu
    }

    /// Sets a variable; an empty value counts as none.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.settings.retain(|(n, _)| n != name);
        self.settings.push((name.to_owned(), value.to_string()));
    }

    /// As [`Gpu::set`].
    pub fn with(mut self, name: &str, value: impl ToString) -> Gpu {
        self.set(name, value);
        self
    }

    /// With an older driver that lacks a function.
    pub fn without(mut self, function: &str) -> Gpu {
        self.driver = libraries(&[&format!("-D{function}=absent")]);
        self
    }

    /// `dnetc` with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.here.command(args);
        command
            .env("LD_LIBRARY_PATH", &self.driver)
            .env_remove("CUDA_HOME")
            .env_remove("CUDA_PATH")
            .envs(self.settings.iter().map(|(n, v)| (n, v)));
        command
    }

    pub fn dnetc(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("dnetc runs")
    }

    /// What a call that must succeed prints.
    pub fn succeeds(&self, args: &[&str]) -> String {
        let output = self.dnetc(args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {text}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The sentence of a call that must fail: exactly one error, no panic, no signal.
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.dnetc(args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
        assert_eq!(text.matches("error: ").count(), 1, "{text}");
        assert!(!text.contains("ERROR") && !text.contains("WARN"), "{text}");
        text
    }

    /// What the driver counted in the last call: of all, and at its end.
    pub fn counts(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(self.here.path("report")).expect("a report");
        let last: serde_json::Value =
            serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
        last[name].as_u64().expect("a count")
    }

    /// Texts compiled so far.
    pub fn compiled(&self) -> usize {
        let text = std::fs::read_to_string(self.here.path("compiled"));
        text.map_or(0, |t| t.lines().count())
    }

    /// A file of a run's folder.
    pub fn json(&self, name: &str) -> serde_json::Value {
        json(&self.here.path(name))
    }
}
