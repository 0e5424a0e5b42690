//! NVIDIA's compiler for tests.

use dnet::back::cuda::nvrtc::Nvrtc;
use std::path::Path;
use std::process::Command;

/// NVIDIA's compiler, fetched by `scripts/fetch-nvrtc` if `DNET_NVRTC` names none;
/// `None` if tests with it are not wanted.
pub fn nvrtc() -> Option<Nvrtc> {
    if std::env::var_os("DNET_SKIP_NVRTC").is_some_and(|v| v == "1") {
        return None;
    }
    if let Some(path) = std::env::var_os("DNET_NVRTC").filter(|p| Path::new(p).is_file()) {
        return Some(Nvrtc::open(Path::new(&path)).expect("the library DNET_NVRTC names"));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/fetch-nvrtc");
    let output = Command::new(script)
        .output()
        .expect("scripts/fetch-nvrtc runs");
    assert!(
        output.status.success(),
        "scripts/fetch-nvrtc could not fetch NVIDIA's compiler; run it where there is a network, \
         set DNET_NVRTC to a libnvrtc.so.12, or leave these tests out with DNET_SKIP_NVRTC=1:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let file = Path::new(&folder).join("nvidia/cuda_nvrtc/lib/libnvrtc.so.12");
    Some(Nvrtc::open(&file).expect("the library that was fetched"))
}
