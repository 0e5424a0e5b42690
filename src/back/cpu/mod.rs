//! The CPU: Cranelift for fused elementwise code, Rust micro-kernels where
//! vectors wider than 128 bits pay, rustfft for translation-invariant mixers.
//!
//! [`network`] offers the result as a [`crate::run::WaveFunction`]. On the way: a
//! [`crate::kernel::Program`] is compiled ([`jit`]), bound to memory for a number
//! of samples ([`bind`]), given its constants ([`constants`]) and run ([`exec`]).
//! Local changes run programs of their own ([`flips`]); [`object`] writes the same
//! code to an object file; [`calibrate`] measures what the choices between them are
//! based on.

pub mod arena;
mod background;
pub mod bind;
pub mod budget;
pub mod calibrate;
mod clusters;
pub mod compiled;
pub mod constants;
pub mod correlation;
pub mod dense;
pub mod direct;
pub mod environment;
pub mod exec;
mod fft;
pub mod flips;
pub mod gradient;
pub mod jit;
pub mod kernels;
pub mod lanes;
pub mod lookup;
mod loops;
pub mod math;
pub mod microkernel;
pub mod mixer;
pub mod network;
pub mod object;
pub mod outer;
mod paths;
pub mod peak;
mod response;
pub mod simd;
pub(in crate::back) mod tables;
mod units;
pub mod work;
