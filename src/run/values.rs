//! Complex values of samples, where they were computed.

use num_complex::Complex64;

/// One complex value per sample, chain by chain: sample t of chain c is number
/// `c * per_chain + t`. They may be on a device, which adds them up there: nobody
/// else gets more than a few numbers unless he asks for [`Values::all`]. Sums are f64,
/// in an order that depends on their number alone. What a failing device returns is
/// NaN.
pub trait Values: Send + Sync {
    /// How many there are.
    fn count(&self) -> usize;
    /// All of them.
    fn all(&self) -> Vec<Complex64>;
    /// The mean m, and `sum |x - m|^2`.
    fn moments(&self) -> (Complex64, f64);
    /// `sum |m_b - about|^2` over the means m_b of blocks of so many values.
    fn scatter_of_blocks(&self, block: usize, about: Complex64) -> f64;
    /// Over both halves (of `per_chain / 2` values, at least one) of every chain:
    /// `sum |x - m_h|^2` about their means m_h, and that of the means about their own.
    fn scatter_of_halves(&self, per_chain: usize) -> [f64; 2];
    /// Autocovariance about a number for the first lags, at least so many of them or
    /// `per_chain`, averaged over chains, each lag divided by its number of pairs.
    fn autocovariance(&self, per_chain: usize, about: Complex64, lags: usize) -> Vec<f64>;
    /// `(x - mean) / sqrt(count)`: real parts, then for two parts imaginary ones.
    fn centred(&self, parts: usize) -> Vec<f64>;
}
