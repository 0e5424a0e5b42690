//! Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011).
//!
//! A number is a pure function of (seed, chain, step, stream, position), so a
//! run does not depend on the number of threads, can be resumed at any step,
//! and can be reproduced on a GPU: only 32-bit integer arithmetic is used up
//! to the final conversion to `f64`.

use rand::rand_core::TryRng;
use std::convert::Infallible;

/// Independent purposes for which one chain draws numbers at one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Stream {
    /// Initial configurations.
    Init = 0,
    /// Proposals and acceptances of local moves.
    Sweep = 1,
    /// Global inversions.
    Global = 2,
    /// Resampling of data (bootstrap).
    Resample = 3,
    /// Initial parameters.
    Parameters = 4,
    /// Uniform proposals.
    Uniform = 5,
}

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The Philox4x32-10 block function: ten rounds of `counter` under `key`.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key[0] = key[0].wrapping_add(WEYL[0]);
            key[1] = key[1].wrapping_add(WEYL[1]);
        }
        let a = u64::from(MULTIPLIER[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIER[1]) * u64::from(counter[2]);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
    }
    counter
}

/// The sequence of numbers of one (seed, chain, step, stream).
///
/// Layout: the key is the seed; the counter's words are position, chain, step
/// (low 32 bits), and step (bits 32..48) above the stream (16 bits).
#[derive(Clone, Debug)]
pub struct ChainRng {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl ChainRng {
    /// The numbers of `chain` at `step` (below 2^48) for one purpose.
    pub fn new(seed: u64, chain: u32, step: u64, stream: Stream) -> ChainRng {
        ChainRng {
            key: [seed as u32, (seed >> 32) as u32],
            counter: [
                0,
                chain,
                step as u32,
                ((step >> 32) as u32) << 16 | u32::from(stream as u16),
            ],
            block: [0; 4],
            used: 4,
        }
    }

    /// Uniform 32 bits.
    pub fn bits(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox4x32(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// Uniform 64 bits, low word drawn first.
    pub fn bits64(&mut self) -> u64 {
        let low = self.bits();
        u64::from(self.bits()) << 32 | u64::from(low)
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform integer in `0..bound`, without bias (Lemire's multiplication
    /// with rejection). A bound of 0 gives 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        let mut product = u64::from(self.bits()) * u64::from(bound);
        if (product as u32) < bound {
            let threshold = bound.wrapping_neg() % bound;
            while (product as u32) < threshold {
                product = u64::from(self.bits()) * u64::from(bound);
            }
        }
        (product >> 32) as u32
    }

    /// Standard normal (Box-Muller; the second value is not kept, so that the
    /// position in the stream stays obvious).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// A random permutation of `items` (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u32 + 1) as usize);
        }
    }
}

impl TryRng for ChainRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.bits())
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.bits64())
    }
    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for chunk in dst.chunks_mut(4) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_the_published_vectors() {
        assert_eq!(
            philox4x32([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn streams_differ_and_repeat() {
        let first = |seed, chain, step, stream| ChainRng::new(seed, chain, step, stream).bits64();
        let base = first(1, 2, 3, Stream::Sweep);
        assert_eq!(base, first(1, 2, 3, Stream::Sweep));
        for other in [
            first(2, 2, 3, Stream::Sweep),
            first(1, 3, 3, Stream::Sweep),
            first(1, 2, 4, Stream::Sweep),
            first(1, 2, 3 + (1 << 32), Stream::Sweep),
            first(1, 2, 3, Stream::Global),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn moments_of_uniforms_integers_and_normals() {
        let mut rng = ChainRng::new(7, 0, 0, Stream::Sweep);
        let n = 100_000;
        let (mut sum, mut square, mut counts) = (0.0, 0.0, [0u32; 6]);
        let mut normals = [0.0; 3];
        for _ in 0..n {
            let u = rng.uniform();
            assert!((0.0..1.0).contains(&u));
            sum += u;
            square += u * u;
            counts[rng.below(6) as usize] += 1;
            let z = rng.normal();
            normals[0] += z;
            normals[1] += z * z;
            normals[2] += z.powi(4);
        }
        let n = f64::from(n);
        // Four standard errors of each estimate.
        assert!((sum / n - 0.5).abs() < 4.0 * (1.0 / 12.0 / n).sqrt());
        assert!((square / n - 1.0 / 3.0).abs() < 4.0 * (4.0 / 45.0 / n).sqrt());
        let chi2: f64 = counts
            .iter()
            .map(|&c| (f64::from(c) - n / 6.0).powi(2) / (n / 6.0))
            .sum();
        assert!(
            chi2 < 20.5,
            "chi squared {chi2} of 5 degrees of freedom (p = 0.001)"
        );
        assert!((normals[0] / n).abs() < 4.0 / n.sqrt());
        assert!((normals[1] / n - 1.0).abs() < 4.0 * (2.0 / n).sqrt());
        assert!((normals[2] / n - 3.0).abs() < 4.0 * (96.0 / n).sqrt());
    }
}
