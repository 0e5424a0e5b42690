//! The multiply-add throughput of this machine.

use super::simd::{Isa, Real, Vector};
use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;

/// Independent sums, enough to hide the latency of a multiply-add.
const SUMS: usize = 12;

#[inline(always)]
unsafe fn sums<V: Vector>(rounds: usize) -> usize
where
    V::Element: Real,
{
    unsafe {
        let factor = V::splat(V::Element::rounded(black_box(0.5)));
        let mut acc = [factor; SUMS];
        for _ in 0..rounds {
            for a in &mut acc {
                *a = factor.fma(*a, factor);
            }
        }
        for a in acc {
            black_box(a.total());
        }
    }
    2 * rounds * SUMS * V::LANES
}

macro_rules! instance {
    ($name:ident, $width:ident $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $name<T: Real>(rounds: usize) -> usize {
            unsafe { sums::<T::$width>(rounds) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instance!(sums_512, Wide512, "avx512f,avx512vl,fma");
#[cfg(target_arch = "x86_64")]
instance!(sums_256, Wide256, "avx2,fma");
instance!(sums_portable, Portable);

/// Floating-point operations per nanosecond of one core in precision `T`, the
/// best of several short runs; measured once.
pub fn gflops<T: Real>() -> f64 {
    static PEAK: [OnceLock<f64>; 2] = [OnceLock::new(), OnceLock::new()];
    let once = &PEAK[usize::from(T::PRECISION.bytes() == 8)];
    *once.get_or_init(|| {
        let isa = Isa::detect();
        let run = || {
            let start = Instant::now();
            // SAFETY: the instruction set is that of the machine.
            let flops = unsafe {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => sums_512::<T>(50_000),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => sums_256::<T>(50_000),
                    _ => sums_portable::<T>(50_000),
                }
            };
            flops as f64 / start.elapsed().as_nanos().max(1) as f64
        };
        (0..20).map(|_| run()).fold(0.0, f64::max)
    })
}
