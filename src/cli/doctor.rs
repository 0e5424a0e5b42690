//! `dnetc doctor`

use super::common::{CliError, print};
use crate::back::cuda::{cache, driver, nvrtc};

/// Reports what the back ends find on this machine.
pub fn run() -> Result<(), CliError> {
    print(&report())
}

fn report() -> String {
    let mut lines = vec![
        format!("dnetc {}", env!("CARGO_PKG_VERSION")),
        format!("CPU: {} threads, ready", rayon::current_num_threads()),
    ];
    match (driver::version(), driver::found()) {
        (Ok((major, minor)), Ok(gpus)) => {
            lines.push(format!("NVIDIA driver: CUDA {major}.{minor}"));
            if gpus.is_empty() {
                lines.push("GPU: none".to_owned());
            }
            lines.extend(gpus.into_iter().map(|g| format!("GPU: {g}")));
        }
        (Err(e), _) | (_, Err(e)) => {
            lines.push(format!("GPU: {e}"));
            lines.push("  to use a GPU, install NVIDIA's driver for it".to_owned());
        }
    }
    match nvrtc::Nvrtc::find() {
        Ok(library) => {
            let (major, minor) = library.version();
            let list: Vec<String> = library
                .architectures()
                .iter()
                .map(ToString::to_string)
                .collect();
            lines.push(format!(
                "CUDA compiler: {major}.{minor}, {}",
                library.path().display()
            ));
            lines.push(format!("  compiles for {}", list.join(", ")));
        }
        Err(e) => lines.push(format!("CUDA compiler: {e}")),
    }
    match cache::directory() {
        Some(d) => lines.push(format!("compiled kernels are kept in {}", d.display())),
        None => lines.push("compiled kernels are not kept: no home folder".to_owned()),
    }
    lines.join("\n") + "\n"
}
