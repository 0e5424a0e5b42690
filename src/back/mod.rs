//! Back ends: machines the kernels run on.

pub mod cpu;
pub mod cuda;
