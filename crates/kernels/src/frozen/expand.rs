//! Codes into bf16 words with AVX-512 BF16: sixteen code words, 32 values, in ten instructions.

use super::coded::{Code, Coded};
use super::pack::PANEL;
use super::turn::{Square, Turnable};
use crate::gemm::Span;
use std::arch::x86_64::*;

impl<C: Code> Turnable for Coded<C> {
    fn pairs(&self) -> usize {
        self.facts.pairs
    }

    unsafe fn square<'a>(&'a self, p: usize, first: usize, count: usize, aside: &'a mut Square) -> &'a [u32] {
        let words = &mut aside[..count * PANEL];
        // SAFETY: the caller's promise.
        unsafe { pairs(self, p, first, words) };
        words
    }
}

/// Out features `columns` of pairs of in features `steps`, as panels of 32 columns: `[columns / 32][steps][32]`.
///
/// # Safety
/// The CPU has AVX-512 F, BW and BF16.
pub(super) unsafe fn forward<C: Code>(w: &Coded<C>, columns: Span, steps: Span, panels: &mut [u32]) {
    for (p, panel) in panels.chunks_exact_mut(PANEL * steps.count).enumerate() {
        // SAFETY: the caller's promise.
        unsafe { pairs(w, columns.first / PANEL + p, steps.first, panel) };
    }
}

/// Pairs `first` on of panel `p`, as many as `words` has room for.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pairs<C: Code>(w: &Coded<C>, p: usize, first: usize, words: &mut [u32]) {
    let shares = if size_of::<C>() == 2 { 1.0 / 16_777_216.0 } else { 1.0 / 268_435_456.0 };
    let share = _mm512_set1_ps(shares);
    let end = first + words.len() / PANEL;
    let mut k = first;
    while k < end {
        let run = w.run(k);
        let (even, odd) = (w.scales(p, run.even), w.scales(p, run.odd));
        // SAFETY: two vectors of sixteen are the 32 scales.
        let scales = [0, 16].map(|h| unsafe {
            let even = _mm512_loadu_ps(even.as_ptr().add(h));
            (_mm512_mul_ps(even, share), _mm512_loadu_ps(odd.as_ptr().add(h)))
        });
        let stop = run.end.min(end);
        for words in words[(k - first) * PANEL..(stop - first) * PANEL].chunks_exact_mut(PANEL) {
            let codes = w.at(p, k).as_ptr();
            for (h, (even, odd)) in scales.into_iter().enumerate() {
                // SAFETY: sixteen of the 32 code words and of the 32 words of a pair.
                unsafe {
                    let made = expand(codes.add(16 * h), even, odd);
                    _mm512_storeu_si512(words.as_mut_ptr().add(16 * h).cast(), made);
                }
            }
            k += 1;
        }
    }
}

/// Sixteen code words as pairs of bf16. The even code is shifted to the top of its word, which its scale takes back:
/// powers of two cost no rounding.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn expand<C: Code>(codes: *const C, even: __m512, odd: __m512) -> __m512i {
    // SAFETY: the caller's promise of sixteen code words.
    let (low, high) = unsafe {
        if size_of::<C>() == 2 {
            let words = _mm512_cvtepi16_epi32(_mm256_loadu_si256(codes.cast()));
            (_mm512_slli_epi32::<24>(words), _mm512_srai_epi32::<8>(words))
        } else {
            let words = _mm512_cvtepi8_epi32(_mm_loadu_si128(codes.cast()));
            (_mm512_slli_epi32::<28>(words), _mm512_srai_epi32::<4>(words))
        }
    };
    let low = _mm512_mul_ps(_mm512_cvtepi32_ps(low), even);
    let high = _mm512_mul_ps(_mm512_cvtepi32_ps(high), odd);
    // Sixteen even values, then sixteen odd ones; they are wanted side by side.
    let both: __m512i = unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) };
    let order = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18,
        2, 17, 1, 16, 0,
    );
    _mm512_permutexvar_epi16(order, both)
}
