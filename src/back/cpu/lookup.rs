//! Reading tables: rows of values for rows of pattern numbers.
//!
//! A table is stored in quads of columns, entry after entry, so that four values
//! of a lane are one load and sixteen lanes make four rows by transposition in
//! registers. Tables of few entries fit in two registers altogether, a row then
//! is a permutation.

use super::math::Precision;
use super::simd::{Isa, Real};

/// Lanes looked up together.
const LANES: usize = 16;

/// Entries that fit in two registers.
const SMALL: usize = 32;

/// The values of a table in working precision.
pub struct TableData<T> {
    entries: usize,
    /// `[quad][entry][4]`
    quads: Vec<T>,
    /// `[column][SMALL]` for small tables, else empty.
    columns: Vec<T>,
}

impl<T: Real> TableData<T> {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        (self.quads.len() + self.columns.len()) * size_of::<T>()
    }

    /// From `value(entry, column)`.
    pub fn new(entries: usize, columns: usize, value: impl Fn(usize, usize) -> f64) -> Self {
        let at = |e: usize, c: usize| {
            if c < columns {
                T::rounded(value(e, c))
            } else {
                T::default()
            }
        };
        let quads = (0..columns.div_ceil(4))
            .flat_map(|q| (0..entries).flat_map(move |e| (0..4).map(move |k| (e, 4 * q + k))))
            .map(|(e, c)| at(e, c))
            .collect();
        let small = if entries <= SMALL { columns } else { 0 };
        let columns = (0..4 * small.div_ceil(4))
            .flat_map(|c| (0..SMALL).map(move |e| (e, c)))
            .map(|(e, c)| if e < entries { at(e, c) } else { T::default() })
            .collect();
        TableData {
            entries,
            quads,
            columns,
        }
    }
}

/// Destinations of four neighbouring columns.
#[derive(Clone, Copy, Debug)]
pub struct Quad {
    /// Which columns: `4 quad .. 4 quad + 4`.
    pub quad: usize,
    /// Byte offsets of the rows; `None`: not wanted.
    pub out: [Option<i32>; 4],
}

/// Groups pairs (column, byte offset of a row) into quads.
pub fn quads(rows: impl Iterator<Item = (u32, i32)>) -> Vec<Quad> {
    let mut quads: Vec<Quad> = Vec::new();
    for (column, offset) in rows {
        let (quad, k) = (column as usize / 4, column as usize % 4);
        let position = quads.iter().position(|q| q.quad == quad);
        let at = position.unwrap_or_else(|| {
            quads.push(Quad {
                quad,
                out: [None; 4],
            });
            quads.len() - 1
        });
        quads[at].out[k] = Some(offset);
    }
    quads
}

/// Looks up all lanes of the rows of some columns.
///
/// # Safety
/// `index` and all destinations are byte offsets of rows of `T` with `lanes` lanes
/// (a multiple of 16) inside the arena, and the machine has `isa`.
pub unsafe fn lookup<T: Real>(
    isa: Isa,
    arena: *mut u8,
    table: &TableData<T>,
    index: usize,
    quads: &[Quad],
    lanes: usize,
) {
    unsafe {
        match (isa, T::PRECISION) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, Precision::F32) => {
                // SAFETY: T is f32.
                let table = &*std::ptr::from_ref(table).cast::<TableData<f32>>();
                x86::lookup_512(arena, table, index, quads, lanes)
            }
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Precision::F32) => {
                // SAFETY: T is f32.
                let table = &*std::ptr::from_ref(table).cast::<TableData<f32>>();
                x86::lookup_256(arena, table, index, quads, lanes)
            }
            _ => portable(arena, table, index, quads, lanes),
        }
    }
}

unsafe fn portable<T: Real>(
    arena: *mut u8,
    table: &TableData<T>,
    index: usize,
    quads: &[Quad],
    lanes: usize,
) {
    let last = table.entries - 1;
    for lane in (0..lanes).step_by(LANES) {
        let mut at = [0; LANES];
        for (k, at) in at.iter_mut().enumerate() {
            let x = unsafe { *arena.add(index).cast::<T>().add(lane + k) };
            // saturates, and is zero where x is no number
            *at = ((x.widened() + 0.5) as usize).min(last);
        }
        for q in quads {
            let base = 4 * q.quad * table.entries;
            for (k, out) in q.out.iter().enumerate() {
                let Some(out) = out else { continue };
                for (j, &e) in at.iter().enumerate() {
                    unsafe {
                        let out = arena.offset(*out as isize).cast::<T>().add(lane + j);
                        *out = *table.quads.get_unchecked(base + 4 * e + k);
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LANES, Quad, SMALL, TableData};
    use std::arch::x86_64::*;

    /// Pattern numbers of sixteen lanes.
    #[inline(always)]
    unsafe fn entries_512(x: *const f32, last: usize) -> __m512i {
        unsafe {
            let e = _mm512_cvtps_epi32(_mm512_loadu_ps(x));
            _mm512_min_epu32(e, _mm512_set1_epi32(last as i32))
        }
    }

    #[target_feature(enable = "avx512f,avx512vl,fma")]
    pub(super) unsafe fn lookup_512(
        arena: *mut u8,
        table: &TableData<f32>,
        index: usize,
        quads: &[Quad],
        lanes: usize,
    ) {
        unsafe {
            let pattern = arena.add(index).cast::<f32>();
            let row = |out: i32| arena.offset(out as isize).cast::<f32>();
            if table.entries <= SMALL {
                for q in quads {
                    for (k, out) in q.out.iter().enumerate() {
                        let Some(out) = *out else { continue };
                        let column = table.columns.as_ptr().add((4 * q.quad + k) * SMALL);
                        let low = _mm512_loadu_ps(column);
                        let high = _mm512_loadu_ps(column.add(16));
                        for lane in (0..lanes).step_by(LANES) {
                            let e = entries_512(pattern.add(lane), table.entries - 1);
                            let value = _mm512_permutex2var_ps(low, e, high);
                            _mm512_storeu_ps(row(out).add(lane), value);
                        }
                    }
                }
                return;
            }
            for lane in (0..lanes).step_by(LANES) {
                let mut e = [0u32; LANES];
                let four = _mm512_slli_epi32(entries_512(pattern.add(lane), table.entries - 1), 2);
                _mm512_storeu_si512(e.as_mut_ptr().cast(), four);
                for q in quads {
                    let base = table.quads.as_ptr().add(4 * q.quad * table.entries);
                    let four = |k: usize| _mm_loadu_ps(base.add(e[k] as usize));
                    let rows = |k: usize| {
                        let a = _mm512_castps128_ps512(four(k));
                        let a = _mm512_insertf32x4::<1>(a, four(k + 4));
                        let a = _mm512_insertf32x4::<2>(a, four(k + 8));
                        _mm512_insertf32x4::<3>(a, four(k + 12))
                    };
                    let (a, b, c, d) = (rows(0), rows(1), rows(2), rows(3));
                    let (ab, cd) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
                    let (ab2, cd2) = (_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
                    let pair = |lo, hi| {
                        let (lo, hi) = (_mm512_castps_pd(lo), _mm512_castps_pd(hi));
                        [
                            _mm512_castpd_ps(_mm512_unpacklo_pd(lo, hi)),
                            _mm512_castpd_ps(_mm512_unpackhi_pd(lo, hi)),
                        ]
                    };
                    let [v0, v1] = pair(ab, cd);
                    let [v2, v3] = pair(ab2, cd2);
                    for (out, v) in q.out.iter().zip([v0, v1, v2, v3]) {
                        if let Some(out) = *out {
                            _mm512_storeu_ps(row(out).add(lane), v);
                        }
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn lookup_256(
        arena: *mut u8,
        table: &TableData<f32>,
        index: usize,
        quads: &[Quad],
        lanes: usize,
    ) {
        unsafe {
            let pattern = arena.add(index).cast::<f32>();
            let row = |out: i32| arena.offset(out as isize).cast::<f32>();
            let last = _mm256_set1_epi32(table.entries as i32 - 1);
            for lane in (0..lanes).step_by(8) {
                let mut e = [0u32; 8];
                let at = _mm256_cvtps_epi32(_mm256_loadu_ps(pattern.add(lane)));
                let four = _mm256_slli_epi32(_mm256_min_epu32(at, last), 2);
                _mm256_storeu_si256(e.as_mut_ptr().cast(), four);
                for q in quads {
                    let base = table.quads.as_ptr().add(4 * q.quad * table.entries);
                    let four = |k: usize| _mm_loadu_ps(base.add(e[k] as usize));
                    let rows = |k: usize| _mm256_set_m128(four(k + 4), four(k));
                    let (a, b, c, d) = (rows(0), rows(1), rows(2), rows(3));
                    let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                    let (ab2, cd2) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
                    let pair = |lo, hi| {
                        let (lo, hi) = (_mm256_castps_pd(lo), _mm256_castps_pd(hi));
                        [
                            _mm256_castpd_ps(_mm256_unpacklo_pd(lo, hi)),
                            _mm256_castpd_ps(_mm256_unpackhi_pd(lo, hi)),
                        ]
                    };
                    let [v0, v1] = pair(ab, cd);
                    let [v2, v3] = pair(ab2, cd2);
                    for (out, v) in q.out.iter().zip([v0, v1, v2, v3]) {
                        if let Some(out) = *out {
                            _mm256_storeu_ps(row(out).add(lane), v);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Real>(isa: Isa) {
        let lanes = 48;
        for (entries, columns) in [(2, 1), (4, 14), (32, 3), (33, 5), (256, 14)] {
            let value = |e: usize, c: usize| (e * 31 + c * 7) as f64;
            let table = TableData::<T>::new(entries, columns, value);
            let mut arena: Vec<T> = vec![T::default(); (columns + 1) * lanes];
            for (lane, x) in arena[..lanes].iter_mut().enumerate() {
                *x = T::rounded(((lane * 13) % entries) as f64);
            }
            // lanes of no site hold anything
            arena[5] = T::rounded(f64::NAN);
            arena[6] = T::rounded(1e30);
            arena[7] = T::rounded(-3.0);
            let bytes = T::PRECISION.bytes();
            let wanted: Vec<(u32, i32)> = (0..columns)
                .filter(|c| c % 3 != 1)
                .map(|c| (c as u32, ((c + 1) * lanes * bytes) as i32))
                .collect();
            let quads = quads(wanted.iter().copied());
            unsafe { lookup(isa, arena.as_mut_ptr().cast(), &table, 0, &quads, lanes) };
            for c in 0..columns {
                for lane in (0..lanes).filter(|l| !(5..8).contains(l)) {
                    let got = arena[(c + 1) * lanes + lane].widened();
                    let want = if c % 3 == 1 {
                        0.0
                    } else {
                        value((lane * 13) % entries, c)
                    };
                    assert_eq!(got, want, "{isa:?} entries {entries} column {c}");
                }
            }
        }
    }

    #[test]
    fn lookups_on_every_instruction_set() {
        check::<f32>(Isa::Portable);
        check::<f64>(Isa::detect());
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                check::<f32>(Isa::Avx2);
            }
            if Isa::detect() == Isa::Avx512 {
                check::<f32>(Isa::Avx512);
            }
        }
    }
}
