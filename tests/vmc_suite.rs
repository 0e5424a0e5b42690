//! Variational Monte Carlo on small exact wave functions.

#[path = "vmc_suite/driver.rs"]
mod driver;
#[path = "vmc_suite/exact.rs"]
mod exact;
#[path = "vmc_suite/optim.rs"]
mod optim;
#[path = "vmc_suite/sampler.rs"]
mod sampler;
#[path = "vmc_suite/support.rs"]
mod support;
