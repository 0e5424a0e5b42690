//! The CPU: Cranelift for fused elementwise code, Rust micro-kernels where
//! vectors wider than 128 bits pay, rustfft for translation-invariant mixers.

pub mod jit;
pub mod math;
