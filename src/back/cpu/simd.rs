//! Vectors of the width the machine has, behind one trait.

use std::fmt::Debug;

/// A real number type the back end computes in.
pub trait Real: rustfft::FftNum + Copy + Default + Send + Sync + Debug + 'static {
    /// Its precision.
    const PRECISION: super::math::Precision;
    /// Rounds.
    fn rounded(x: f64) -> Self;
    /// Widens.
    fn widened(self) -> f64;
    /// The widest vectors this machine has.
    #[cfg(target_arch = "x86_64")]
    type Wide512: Vector<Element = Self>;
    /// 256-bit vectors.
    #[cfg(target_arch = "x86_64")]
    type Wide256: Vector<Element = Self>;
    /// Vectors any machine has.
    type Portable: Vector<Element = Self>;
}

/// A SIMD vector.
pub trait Vector: Copy {
    /// Its element.
    type Element: Copy;
    /// Number of elements.
    const LANES: usize;
    /// All lanes equal.
    ///
    /// # Safety
    /// The machine has these vectors.
    unsafe fn splat(x: Self::Element) -> Self;
    /// Reads `LANES` elements, any alignment.
    ///
    /// # Safety
    /// Readable memory; the machine has these vectors.
    unsafe fn load(p: *const Self::Element) -> Self;
    /// Writes `LANES` elements, any alignment.
    ///
    /// # Safety
    /// Writable memory; the machine has these vectors.
    unsafe fn store(self, p: *mut Self::Element);
    /// `a self + c`.
    ///
    /// # Safety
    /// The machine has these vectors.
    unsafe fn fma(self, a: Self, c: Self) -> Self;
    /// `self + b`
    ///
    /// # Safety
    /// The machine has these vectors.
    unsafe fn plus(self, b: Self) -> Self;
    /// `self - b`
    ///
    /// # Safety
    /// The machine has these vectors.
    unsafe fn minus(self, b: Self) -> Self;
    /// `self b`
    ///
    /// # Safety
    /// The machine has these vectors.
    unsafe fn times(self, b: Self) -> Self;
    /// The sum of all lanes, pairwise.
    ///
    /// # Safety
    /// The machine has these vectors.
    unsafe fn total(self) -> Self::Element;
    /// Asks for the cache line of an element; any address will do.
    #[inline(always)]
    fn prefetch(p: *const Self::Element) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint, part of what every such machine has.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(p.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = p;
    }
    /// Makes what was written past the caches visible to other threads.
    #[inline(always)]
    fn fence() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: part of what every such machine has.
        unsafe {
            std::arch::x86_64::_mm_sfence();
        }
    }
    /// Transposes a square: `LANES` vectors read at `from(k)` to as many at `to(l)`,
    /// where there is one; with `STREAM` past the caches.
    ///
    /// # Safety
    /// Readable and writable memory, any alignment; with `STREAM` writable memory
    /// aligned to vectors. The machine has these vectors.
    #[inline(always)]
    unsafe fn transpose<const STREAM: bool>(
        from: impl Fn(usize) -> *const Self::Element,
        to: impl Fn(usize) -> Option<*mut Self::Element>,
    ) {
        for l in 0..Self::LANES {
            if let Some(to) = to(l) {
                for k in 0..Self::LANES {
                    unsafe { *to.add(k) = *from(k).add(l) };
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Real, Vector};
    use crate::back::cpu::math::Precision;
    use std::arch::x86_64::*;

    macro_rules! vector {
        ($v:ty, $e:ty, $n:literal, $set:ident, $load:ident, $store:ident, $fma:ident,
         $plus:ident, $minus:ident, $times:ident, $total:path $(, $square:ident, $stream:ident)?) => {
            impl Vector for $v {
                type Element = $e;
                const LANES: usize = $n;
                #[inline(always)]
                unsafe fn splat(x: $e) -> Self {
                    unsafe { $set(x) }
                }
                #[inline(always)]
                unsafe fn load(p: *const $e) -> Self {
                    unsafe { $load(p) }
                }
                #[inline(always)]
                unsafe fn store(self, p: *mut $e) {
                    unsafe { $store(p, self) }
                }
                #[inline(always)]
                unsafe fn fma(self, a: Self, c: Self) -> Self {
                    unsafe { $fma(self, a, c) }
                }
                #[inline(always)]
                unsafe fn plus(self, b: Self) -> Self {
                    unsafe { $plus(self, b) }
                }
                #[inline(always)]
                unsafe fn minus(self, b: Self) -> Self {
                    unsafe { $minus(self, b) }
                }
                #[inline(always)]
                unsafe fn times(self, b: Self) -> Self {
                    unsafe { $times(self, b) }
                }
                #[inline(always)]
                unsafe fn total(self) -> $e {
                    unsafe { $total(self) }
                }
                $(
                    #[inline(always)]
                    unsafe fn transpose<const STREAM: bool>(
                        from: impl Fn(usize) -> *const $e,
                        to: impl Fn(usize) -> Option<*mut $e>,
                    ) {
                        unsafe {
                            let mut rows = [<$v>::splat(0.0); $n];
                            for (k, row) in rows.iter_mut().enumerate() {
                                *row = $load(from(k));
                            }
                            for (l, row) in $square(rows).into_iter().enumerate() {
                                match to(l) {
                                    Some(to) if STREAM => $stream(to, row),
                                    Some(to) => $store(to, row),
                                    None => {}
                                }
                            }
                        }
                    }
                )?
            }
        };
    }
    #[inline(always)]
    unsafe fn total_8(v: __m256) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    unsafe fn total_4(v: __m256d) -> f64 {
        unsafe {
            let two = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd::<1>(v));
            _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
        }
    }
    /// Transposes blocks of four by four numbers of 128 bits each: first inside
    /// them, then the blocks.
    #[inline(always)]
    unsafe fn square_16(r: [__m512; 16]) -> [__m512; 16] {
        unsafe {
            let mut out = r;
            let mut blocks = r;
            for k in (0..16).step_by(4) {
                let (a, b) = (
                    _mm512_unpacklo_ps(r[k], r[k + 1]),
                    _mm512_unpackhi_ps(r[k], r[k + 1]),
                );
                let (c, d) = (
                    _mm512_unpacklo_ps(r[k + 2], r[k + 3]),
                    _mm512_unpackhi_ps(r[k + 2], r[k + 3]),
                );
                for (j, (x, y)) in [(a, c), (b, d)].into_iter().enumerate() {
                    let (x, y) = (_mm512_castps_pd(x), _mm512_castps_pd(y));
                    blocks[k + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
                    blocks[k + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
                }
            }
            for c in 0..4 {
                let (a, b) = (blocks[c], blocks[4 + c]);
                let (d, e) = (blocks[8 + c], blocks[12 + c]);
                let even = [
                    _mm512_shuffle_f32x4::<0x88>(a, b),
                    _mm512_shuffle_f32x4::<0x88>(d, e),
                ];
                let odd = [
                    _mm512_shuffle_f32x4::<0xdd>(a, b),
                    _mm512_shuffle_f32x4::<0xdd>(d, e),
                ];
                out[c] = _mm512_shuffle_f32x4::<0x88>(even[0], even[1]);
                out[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd[0], odd[1]);
                out[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even[0], even[1]);
                out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1]);
            }
            out
        }
    }
    /// As [`square_16`].
    #[inline(always)]
    unsafe fn square_8(r: [__m256; 8]) -> [__m256; 8] {
        unsafe {
            let mut out = r;
            let mut blocks = r;
            for k in [0, 4] {
                let (a, b) = (
                    _mm256_unpacklo_ps(r[k], r[k + 1]),
                    _mm256_unpackhi_ps(r[k], r[k + 1]),
                );
                let (c, d) = (
                    _mm256_unpacklo_ps(r[k + 2], r[k + 3]),
                    _mm256_unpackhi_ps(r[k + 2], r[k + 3]),
                );
                for (j, (x, y)) in [(a, c), (b, d)].into_iter().enumerate() {
                    let (x, y) = (_mm256_castps_pd(x), _mm256_castps_pd(y));
                    blocks[k + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(x, y));
                    blocks[k + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(x, y));
                }
            }
            for c in 0..4 {
                out[c] = _mm256_permute2f128_ps::<0x20>(blocks[c], blocks[4 + c]);
                out[4 + c] = _mm256_permute2f128_ps::<0x31>(blocks[c], blocks[4 + c]);
            }
            out
        }
    }
    vector!(
        __m512,
        f32,
        16,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_mul_ps,
        _mm512_reduce_add_ps,
        square_16,
        _mm512_stream_ps
    );
    vector!(
        __m512d,
        f64,
        8,
        _mm512_set1_pd,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_fmadd_pd,
        _mm512_add_pd,
        _mm512_sub_pd,
        _mm512_mul_pd,
        _mm512_reduce_add_pd
    );
    vector!(
        __m256,
        f32,
        8,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        total_8,
        square_8,
        _mm256_stream_ps
    );
    vector!(
        __m256d,
        f64,
        4,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_fmadd_pd,
        _mm256_add_pd,
        _mm256_sub_pd,
        _mm256_mul_pd,
        total_4
    );

    impl Real for f32 {
        const PRECISION: Precision = Precision::F32;
        fn rounded(x: f64) -> f32 {
            x as f32
        }
        fn widened(self) -> f64 {
            f64::from(self)
        }
        type Wide512 = __m512;
        type Wide256 = __m256;
        type Portable = [f32; 4];
    }
    impl Real for f64 {
        const PRECISION: Precision = Precision::F64;
        fn rounded(x: f64) -> f64 {
            x
        }
        fn widened(self) -> f64 {
            self
        }
        type Wide512 = __m512d;
        type Wide256 = __m256d;
        type Portable = [f64; 2];
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod other {
    use super::Real;
    use crate::back::cpu::math::Precision;
    impl Real for f32 {
        const PRECISION: Precision = Precision::F32;
        fn rounded(x: f64) -> f32 {
            x as f32
        }
        fn widened(self) -> f64 {
            f64::from(self)
        }
        type Portable = [f32; 4];
    }
    impl Real for f64 {
        const PRECISION: Precision = Precision::F64;
        fn rounded(x: f64) -> f64 {
            x
        }
        fn widened(self) -> f64 {
            self
        }
        type Portable = [f64; 2];
    }
}

/// Plain arrays; the compiler finds what vectors there are.
impl<T, const N: usize> Vector for [T; N]
where
    T: Copy + std::ops::Mul<Output = T> + std::ops::Add<Output = T> + std::ops::Sub<Output = T>,
{
    type Element = T;
    const LANES: usize = N;
    #[inline(always)]
    unsafe fn splat(x: T) -> Self {
        [x; N]
    }
    #[inline(always)]
    unsafe fn load(p: *const T) -> Self {
        unsafe { p.cast::<Self>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut T) {
        unsafe { p.cast::<Self>().write_unaligned(self) }
    }
    #[inline(always)]
    unsafe fn fma(self, a: Self, c: Self) -> Self {
        let mut out = c;
        for k in 0..N {
            out[k] = self[k] * a[k] + c[k];
        }
        out
    }
    #[inline(always)]
    unsafe fn plus(self, b: Self) -> Self {
        std::array::from_fn(|k| self[k] + b[k])
    }
    #[inline(always)]
    unsafe fn minus(self, b: Self) -> Self {
        std::array::from_fn(|k| self[k] - b[k])
    }
    #[inline(always)]
    unsafe fn times(self, b: Self) -> Self {
        std::array::from_fn(|k| self[k] * b[k])
    }
    #[inline(always)]
    unsafe fn total(mut self) -> T {
        let mut width = N;
        while width > 1 {
            width /= 2;
            for k in 0..width {
                self[k] = self[k] + self[k + width];
            }
        }
        self[0]
    }
}

/// Instruction sets the micro-kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// 512-bit vectors.
    Avx512,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// Whatever the target guarantees.
    Portable,
}

impl Isa {
    /// The best of this machine.
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
                return Isa::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transposes<V: Vector<Element = f32>>() {
        let x: Vec<f32> = (0..V::LANES * V::LANES).map(|k| k as f32).collect();
        let mut y = vec![0.0; x.len()];
        let to = y.as_mut_ptr();
        // SAFETY: called where the machine has the vectors.
        let from = |k| unsafe { x.as_ptr().add(k * V::LANES) };
        unsafe { V::transpose::<false>(from, |l| Some(to.add(l * V::LANES))) };
        for k in 0..x.len() {
            assert_eq!(y[k % V::LANES * V::LANES + k / V::LANES], x[k]);
        }
    }

    #[test]
    fn squares_are_transposed() {
        transposes::<[f32; 4]>();
        #[cfg(target_arch = "x86_64")]
        {
            if Isa::detect() != Isa::Portable {
                transposes::<<f32 as Real>::Wide256>();
            }
            if Isa::detect() == Isa::Avx512 {
                transposes::<<f32 as Real>::Wide512>();
            }
        }
    }
}
