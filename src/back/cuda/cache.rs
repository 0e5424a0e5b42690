//! Compiled kernels on disk.

use super::nvrtc::{Architecture, Form};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// Our folder: `$DNET_CACHE`, or `dnet` in the user's cache folder.
pub fn directory() -> Option<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    variable("DNET_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|d| d.join("dnet")))
        .or_else(|| variable("HOME").map(|d| d.join(".cache/dnet")))
}

/// A compiled translation unit is known by its text, what it was compiled to, and
/// the compiler's and our own version.
pub struct Key(String);

impl Key {
    /// The key of a translation unit.
    pub fn new(text: &str, architecture: Architecture, form: Form, nvrtc: (u32, u32)) -> Key {
        let mut hash = Sha256::new();
        let head = format!(
            "{} {architecture} {form:?} {}.{}\n",
            env!("CARGO_PKG_VERSION"),
            nvrtc.0,
            nvrtc.1
        );
        hash.update(head.as_bytes());
        hash.update(text.as_bytes());
        let digest = hash.finalize();
        Key(digest.iter().map(|b| format!("{b:02x}")).collect())
    }

    fn path(&self) -> Option<PathBuf> {
        Some(directory()?.join("kernels").join(&self.0))
    }

    /// What was stored. Files carry their own checksum: half-written or damaged
    /// ones count as absent.
    pub fn read(&self) -> Option<Vec<u8>> {
        let mut bytes = std::fs::read(self.path()?).ok()?;
        let body = bytes.len().checked_sub(32)?;
        let sum = bytes.split_off(body);
        (Sha256::digest(&bytes)[..] == sum[..]).then_some(bytes)
    }

    /// Stores code; a cache that cannot be written is no error.
    pub fn write(&self, code: &[u8]) {
        let Some(path) = self.path() else { return };
        let mut bytes = code.to_vec();
        bytes.extend_from_slice(&Sha256::digest(code));
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written = folder.and_then(|()| crate::params::write_atomically(&path, &bytes));
        if let Err(e) = written {
            tracing::debug!("compiled kernels are not kept: {e}");
        }
    }
}
