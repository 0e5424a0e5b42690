//! Compiled kernels on disk.

use super::nvrtc::Architecture;
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

/// A compiled translation unit is known by its text, the GPU it was compiled for,
/// our own version, and what is known of driver and compiler without loading the
/// latter, which takes longer than all the rest.
pub struct Key(String);

impl Key {
    /// The key of a translation unit; `tools` are the driver's version and the
    /// compilers there are.
    pub fn new(text: &str, architecture: Architecture, tools: &str) -> Key {
        let mut hash = Sha256::new();
        let head = format!("{} {architecture} {tools}\n", env!("CARGO_PKG_VERSION"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_apart_what_matters() {
        let key = |text: &str, sm: u32, tools: &str| Key::new(text, Architecture(sm), tools).0;
        let one = key("a", 90, "12.9");
        assert_eq!(one, key("a", 90, "12.9"));
        for other in [
            key("b", 90, "12.9"),
            key("a", 80, "12.9"),
            key("a", 90, "13.0"),
        ] {
            assert_ne!(one, other);
        }
    }
}
