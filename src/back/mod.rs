//! Back ends: machines the kernels run on.

pub mod costs;
pub mod cpu;
pub mod cuda;
