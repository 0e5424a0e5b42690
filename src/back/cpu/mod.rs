//! The CPU: Cranelift for fused elementwise code, Rust micro-kernels where
//! vectors wider than 128 bits pay, rustfft for translation-invariant mixers.
//!
//! [`network`] offers the result as a [`crate::run::WaveFunction`]. On the way: a
//! [`crate::kernel::Program`] is compiled ([`jit`]), bound to memory for a number
//! of samples ([`bind`]), given its constants ([`constants`]) and run ([`exec`]).

pub mod arena;
pub mod bind;
pub mod compiled;
pub mod constants;
pub mod correlation;
pub mod environment;
pub mod exec;
pub mod flips;
pub mod gradient;
pub mod jit;
pub mod kernels;
pub mod math;
pub mod microkernel;
pub mod mixer;
pub mod network;
pub mod outer;
mod response;
pub mod simd;
pub mod work;
