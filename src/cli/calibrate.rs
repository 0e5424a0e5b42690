//! `dnetc bench --calibrate`

use super::common::{CliError, print};
use crate::back::costs;
use crate::back::cpu::calibrate::calibrate;
use crate::back::cpu::simd::Isa;

/// Measures this machine's costs and keeps them.
pub fn run() -> Result<(), CliError> {
    let Some(path) = costs::file() else {
        return Err(CliError::new(
            "there is no place to keep the costs in",
            "name a file in the variable DNET_COSTS, or a folder in DNET_CACHE",
        ));
    };
    let (costs, nanoseconds) = calibrate(machine()).map_err(|e| {
        CliError::new(
            format!("this machine's costs cannot be measured: {e}"),
            "without them those of a reference machine are used",
        )
    })?;
    costs
        .write(&path)
        .map_err(|e| CliError::io("write", &path, &e))?;
    print(&format!(
        "costs of {costs}\n  relative to a multiply-add in small matrix products, {nanoseconds:.4} ns\n\
         kept in {}; strategies are chosen by them from now on\n",
        path.display()
    ))
}

/// The processor's name and its vectors.
fn machine() -> String {
    let model = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|l| l.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
    let model = model.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    format!("{model}, {:?}", Isa::detect()).to_lowercase()
}
