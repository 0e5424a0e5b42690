//! NVIDIA GPUs: one kernel per loop-level program.
//!
//! A [`crate::kernel::Program`] becomes a tree of CUDA C++ ([`ast`], made by
//! [`mod@emit`]), the tree becomes text ([`mod@print`]) that follows a small device
//! library ([`LIBRARY`], written by hand) and needs no headers. The text is
//! compiled at run time by NVRTC, or, for tests without a GPU, by a C++ compiler
//! behind a header that runs every CUDA thread as a fiber.
//!
//! The host's side ([`driver`], [`found`], graphs, memory, staging, [`nvrtc`], [`cache`]) is tested
//! without a GPU as well: `tests/cuda_driver` has stand-ins for NVIDIA's driver and compiler, for
//! the whole of `dnetc`. A failure that leaves NaN in place of numbers is kept by the
//! [`device::Device`]; who finds the NaN asks it why.

pub mod ast;
mod background;
pub mod cache;
pub mod chains;
mod clusters;
pub mod code;
pub mod constants;
pub mod device;
pub mod driver;
pub mod emit;
pub mod environment;
pub mod flips;
pub mod found;
mod graph;
pub mod index;
pub mod linear;
mod memory;
pub mod names;
pub mod network;
pub mod nvrtc;
pub mod peak;
pub mod print;
pub mod sizes;
mod staging;
pub mod sums;
mod table;
pub mod typewriter;
pub mod units;
pub mod values;

use crate::run::network::Precision;

/// The device library.
pub const LIBRARY: &str = include_str!("../../../kernels/dnet.cuh");

/// A complete translation unit: the working precision, the device library, kernels.
pub fn translation_unit<'k>(
    precision: Precision,
    kernels: impl Iterator<Item = &'k str>,
) -> String {
    let real = match precision {
        Precision::F32 => "float",
        Precision::F64 => "double",
    };
    let mut text = format!("// working precision\ntypedef {real} real;\n\n{LIBRARY}");
    for k in kernels {
        text.push('\n');
        text.push_str(k);
    }
    text
}
