//! The products of a panel's codes without VNNI: AVX2 multiplies pairs of 16-bit integers and adds the two products, which
//! is the same integer.

use super::{AHEAD, Coded, PANEL, Quantised};
use crate::frozen::coded::Code;
use std::arch::x86_64::*;

/// Vectors of eight out features in a panel.
const PARTS: usize = PANEL / 8;

/// What [`super::panel`] makes, to the bit.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn panel<C: Code, const T: usize>(
    w: &Coded<C>,
    p: usize,
    x: &Quantised,
    first: usize,
    made: &mut [[f32; PANEL]],
) {
    let rows: [&[u32]; T] = std::array::from_fn(|t| x.words(first + t));
    let mut sums = [[_mm256_setzero_ps(); PARTS]; T];
    for (s, segment) in x.segments.iter().enumerate() {
        let mut acc = [[_mm256_setzero_si256(); PARTS]; T];
        for k in segment.pairs.clone() {
            let words = w.at(p, k);
            // SAFETY: fetching reads nothing and faults nowhere; a panel has 32 code words for a pair.
            let codes: [__m256i; PARTS] = unsafe {
                _mm_prefetch::<_MM_HINT_T0>(words.as_ptr().wrapping_add(AHEAD * PANEL).cast());
                std::array::from_fn(|q| expand(words[8 * q..].as_ptr()))
            };
            for (acc, row) in acc.iter_mut().zip(&rows) {
                let value = _mm256_set1_epi32(row[k] as i32);
                for (acc, codes) in acc.iter_mut().zip(codes) {
                    *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(codes, value));
                }
            }
        }
        let scales = w.scales(p, segment.block);
        for (t, (sums, acc)) in sums.iter_mut().zip(acc).enumerate() {
            let own = _mm256_set1_ps(x.scales[(first + t) * x.segments.len() + s]);
            for (q, (sum, acc)) in sums.iter_mut().zip(acc).enumerate() {
                // SAFETY: a panel has 32 scales.
                let scale = unsafe { _mm256_loadu_ps(scales[8 * q..].as_ptr()) };
                *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc), _mm256_mul_ps(own, scale), *sum);
            }
        }
    }
    for (sums, made) in sums.iter().zip(made) {
        for (q, sum) in sums.iter().enumerate() {
            // SAFETY: a row of a panel has 32 results.
            unsafe { _mm256_storeu_ps(made[8 * q..].as_mut_ptr(), *sum) };
        }
    }
}

/// Eight code words, of two bytes or of one, as pairs of 16-bit integers.
///
/// # Safety
/// They are there.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn expand<C: Code>(words: *const C) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        if size_of::<C>() == 2 {
            return _mm256_cvtepi8_epi16(_mm_loadu_si128(words.cast()));
        }
        // Each byte twice, its lower half to the top of the even word and its upper half to that of the odd one, and down
        // again with their signs.
        let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(words.cast()));
        let twice = _mm256_or_si256(bytes, _mm256_slli_epi32::<16>(bytes));
        let top = _mm256_mullo_epi16(twice, _mm256_set1_epi32(0x0100_1000));
        _mm256_srai_epi16::<12>(top)
    }
}
