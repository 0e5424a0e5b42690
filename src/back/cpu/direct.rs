//! Short chains: translation-invariant mixers by their sums.
//!
//! `y_i = sum_j k(i - j) x_j` costs as much as two transforms where a chain has
//! about as many sites as a few vectors have lanes; below that the sum wins.

use super::simd::{Isa, Real, Vector};
use rustfft::num_complex::{Complex, Complex64};

/// Vectors of results kept in registers together.
const WIDE: usize = 4;

/// Longest chain on which sums beat transforms.
pub(super) fn longest<T: Real>(isa: Isa) -> usize {
    let bits = match isa {
        Isa::Avx512 => 512,
        Isa::Avx2 => 256,
        Isa::Portable => 128,
    };
    bits / T::PRECISION.bytes() * 3 / 4
}

/// A mixer given by its kernels at every displacement.
pub struct Direct<T: Real> {
    complex: bool,
    sites: usize,
    isa: Isa,
    /// Per channel the kernel at displacements `1 - n ..`, real then imaginary
    /// parts, each padded to `length`.
    kernels: Vec<Vec<T>>,
    length: usize,
}

impl<T: Real> Direct<T> {
    /// From cyclic kernels: entry d mod their length is displacement d.
    pub(super) fn new(complex: bool, sites: usize, isa: Isa, cyclic: &[Vec<Complex64>]) -> Self {
        // the last vectors of a kernel read beyond its end
        let length = 2 * sites + 2 * WIDE * 16;
        let kernel = |k: &Vec<Complex64>| {
            let mut parts = vec![T::default(); 2 * length];
            for at in 0..2 * sites - 1 {
                let z = k[(at + k.len() + 1 - sites) % k.len()];
                parts[at] = T::rounded(z.re);
                parts[length + at] = T::rounded(z.im);
            }
            parts
        };
        Direct {
            complex,
            sites,
            isa,
            kernels: cyclic.iter().map(kernel).collect(),
            length,
        }
    }

    /// Whether channels come as (real part, imaginary part).
    pub(super) fn complex(&self) -> bool {
        self.complex
    }

    /// Complex numbers of scratch memory.
    pub(super) fn scratch(&self) -> usize {
        self.room()
    }

    /// Results with room for whole vectors.
    fn room(&self) -> usize {
        self.sites.next_multiple_of(WIDE * 16)
    }

    /// See [`super::mixer::Plan::run`]; segments start at the first site.
    pub(super) fn run(
        &self,
        channels: [usize; 2],
        x: [&[T]; 2],
        out: [&mut [T]; 2],
        memory: &mut [Complex<T>],
    ) {
        let n = self.sites;
        let kernel = |c: usize| {
            let k = self.kernels[c].as_slice();
            [&k[..self.length], &k[self.length..]]
        };
        // SAFETY: a complex number is two numbers.
        let flat: &mut [T] = unsafe {
            std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast::<T>(), 2 * self.room())
        };
        let (re, im) = flat.split_at_mut(self.room());
        let x = x.map(|x| &x[..n]);
        // SAFETY: the instruction set is that of the machine.
        unsafe {
            if self.complex {
                convolve(self.isa, kernel(channels[0]), Some(x), x[0], re, im);
            } else {
                convolve(self.isa, kernel(channels[0]), None, x[0], re, im);
                if channels[0] != channels[1] {
                    convolve(self.isa, kernel(channels[1]), None, x[1], im, &mut []);
                }
            }
        }
        let [first, second] = out;
        first[..n].copy_from_slice(&re[..n]);
        second[..n].copy_from_slice(&im[..n]);
    }
}

/// Writes `sum_j k(i - j) x_j` to `re` and `im`; `None`: real kernel and input,
/// result in `re`.
#[inline(always)]
unsafe fn sums<V: Vector, const W: usize>(
    k: [&[V::Element]; 2],
    complex: Option<[&[V::Element]; 2]>,
    x: &[V::Element],
    re: &mut [V::Element],
    im: &mut [V::Element],
    first: usize,
    zero: V,
) where
    V::Element: Real,
{
    unsafe {
        let n = x.len();
        let start = |part: usize, j: usize| k[part].as_ptr().add(first + n - 1 - j);
        let (mut a, mut b) = ([zero; W], [zero; W]);
        match complex {
            Some([xr, xi]) => {
                for j in 0..n {
                    let (r, i) = (xr[j], xi[j]);
                    let (r, i, minus) = (V::splat(r), V::splat(i), V::splat(-i));
                    for (w, (a, b)) in a.iter_mut().zip(&mut b).enumerate() {
                        let kr = V::load(start(0, j).add(w * V::LANES));
                        let ki = V::load(start(1, j).add(w * V::LANES));
                        *a = ki.fma(minus, kr.fma(r, *a));
                        *b = ki.fma(r, kr.fma(i, *b));
                    }
                }
                for (w, b) in b.into_iter().enumerate() {
                    b.store(im.as_mut_ptr().add(first + w * V::LANES));
                }
            }
            None => {
                for (j, &x) in x.iter().enumerate() {
                    let x = V::splat(x);
                    for (w, a) in a.iter_mut().enumerate() {
                        let kr = V::load(start(0, j).add(w * V::LANES));
                        *a = kr.fma(x, *a);
                    }
                }
            }
        }
        for (w, a) in a.into_iter().enumerate() {
            a.store(re.as_mut_ptr().add(first + w * V::LANES));
        }
    }
}

macro_rules! instance {
    ($name:ident, $width:ident $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $name<T: Real>(
            k: [&[T]; 2],
            complex: Option<[&[T]; 2]>,
            x: &[T],
            re: &mut [T],
            im: &mut [T],
        ) {
            // SAFETY: the machine has these vectors; kernels and results have room
            // for whole ones behind the last site.
            unsafe {
                let zero = T::$width::splat(T::default());
                let lanes = <T::$width as Vector>::LANES;
                let mut first = 0;
                while first < x.len() {
                    match (x.len() - first).div_ceil(lanes) {
                        1 => sums::<T::$width, 1>(k, complex, x, re, im, first, zero),
                        2 => sums::<T::$width, 2>(k, complex, x, re, im, first, zero),
                        3 => sums::<T::$width, 3>(k, complex, x, re, im, first, zero),
                        _ => sums::<T::$width, 4>(k, complex, x, re, im, first, zero),
                    }
                    first += WIDE * lanes;
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instance!(convolve_512, Wide512, "avx512f,avx512vl,fma");
#[cfg(target_arch = "x86_64")]
instance!(convolve_256, Wide256, "avx2,fma");
instance!(convolve_portable, Portable);

unsafe fn convolve<T: Real>(
    isa: Isa,
    k: [&[T]; 2],
    complex: Option<[&[T]; 2]>,
    x: &[T],
    re: &mut [T],
    im: &mut [T],
) {
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => convolve_512(k, complex, x, re, im),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => convolve_256(k, complex, x, re, im),
            _ => convolve_portable(k, complex, x, re, im),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Real>(isa: Isa, sites: usize, cyclic: usize, complex: bool) {
        let z = |k: usize, s: f64| Complex64::new((k as f64 * s).sin(), (k as f64 * s).cos());
        let kernels: Vec<Vec<Complex64>> = (0..2)
            .map(|c| (0..cyclic).map(|k| z(k + 7 * c, 0.7)).collect())
            .collect();
        let x: Vec<Complex64> = (0..sites).map(|k| z(k, 1.3)).collect();
        let part =
            |f: fn(&Complex64) -> f64| -> Vec<T> { x.iter().map(|z| T::rounded(f(z))).collect() };
        let rows = [part(|z| z.re), part(|z| z.im)];
        let mixer = Direct::<T>::new(complex, sites, isa, &kernels);
        let mut out = [vec![T::default(); sites], vec![T::default(); sites]];
        let mut memory = vec![Complex::default(); mixer.scratch()];
        let [re, im] = &mut out;
        let channels = if complex { [1, 1] } else { [0, 1] };
        mixer.run(channels, [&rows[0], &rows[1]], [re, im], &mut memory);
        for i in 0..sites {
            let sum = |c: usize, f: &dyn Fn(Complex64, Complex64) -> Complex64| -> Complex64 {
                (0..sites)
                    .map(|j| f(kernels[c][(i + cyclic - j) % cyclic], x[j]))
                    .sum()
            };
            let want = if complex {
                sum(1, &|k, x| k * x)
            } else {
                let real = |c: usize, f: fn(Complex64) -> f64| {
                    sum(c, &|k, x| Complex64::from(k.re * f(x))).re
                };
                Complex64::new(real(0, |x| x.re), real(1, |x| x.im))
            };
            let got = Complex64::new(out[0][i].widened(), out[1][i].widened());
            assert!(
                (got - want).norm() < 1e-4,
                "{isa:?}, {sites} sites, site {i}"
            );
        }
    }

    #[test]
    fn sums_on_every_instruction_set() {
        let mut sets = vec![Isa::Portable, Isa::detect()];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            sets.push(Isa::Avx2);
        }
        for isa in sets {
            for (sites, cyclic) in [(1, 1), (7, 7), (16, 31), (50, 50), (77, 160), (96, 96)] {
                for complex in [false, true] {
                    check::<f32>(isa, sites, cyclic, complex);
                    check::<f64>(isa, sites, cyclic, complex);
                }
            }
        }
    }
}
