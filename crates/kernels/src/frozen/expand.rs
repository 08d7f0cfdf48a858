//! Codes into bf16 words with AVX-512 BF16: sixteen code words, 32 values, in seven (8 bits) or ten (4 bits)
//! instructions.

use super::coded::{Code, Coded, Run};
use super::pack::{Facts, PANEL};
use super::turn::{Square, Turnable};
use crate::gemm::Span;
use std::arch::x86_64::*;

impl<C: Code> Turnable for Coded<C> {
    fn facts(&self) -> &Facts {
        &self.facts
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
    let end = first + words.len() / PANEL;
    let mut k = first;
    while k < end {
        let run = w.run(k);
        // SAFETY: the CPU has what it takes.
        let scales = unsafe { scales(w, p, &run) };
        let stop = run.end.min(end);
        for words in words[(k - first) * PANEL..(stop - first) * PANEL].chunks_exact_mut(PANEL) {
            // SAFETY: the code words and the words of a pair are 32.
            unsafe {
                let [low, high] = expand(w.at(p, k), &scales);
                _mm512_storeu_si512(words.as_mut_ptr().cast(), low);
                _mm512_storeu_si512(words.as_mut_ptr().add(16).cast(), high);
            }
            k += 1;
        }
    }
}

/// What the codes of each half of a panel are multiplied by. Eight bits: the scales of the first and of the last eight
/// out features, each for the even and the odd in feature side by side, as their bytes lie. Four bits: the scales of
/// the even in features, which take back a shift by 28 bits, and those of the odd ones.
type Factors = [[__m512; 2]; 2];

/// The factors of a run of pairs in panel `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn scales<C: Code>(w: &Coded<C>, p: usize, run: &Run) -> Factors {
    let (even, odd) = (w.scales(p, run.even), w.scales(p, run.odd));
    [0, 16].map(|h| {
        // SAFETY: two vectors of sixteen are the 32 scales.
        let (even, odd) =
            unsafe { (_mm512_loadu_ps(even.as_ptr().add(h)), _mm512_loadu_ps(odd.as_ptr().add(h))) };
        if size_of::<C>() == 2 {
            let first = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
            let last = _mm512_add_epi32(first, _mm512_set1_epi32(8));
            [_mm512_permutex2var_ps(even, first, odd), _mm512_permutex2var_ps(even, last, odd)]
        } else {
            [_mm512_mul_ps(even, _mm512_set1_ps(1.0 / 268_435_456.0)), odd]
        }
    })
}

/// The code words of a pair as pairs of bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn expand<C: Code>(codes: &[C; PANEL], factors: &Factors) -> [__m512i; 2] {
    let at: *const C = codes.as_ptr();
    let half = |h: usize| {
        let [first, last] = factors[h];
        // SAFETY: sixteen of the 32 code words; both results are 512 bits of plain data.
        unsafe {
            if size_of::<C>() == 2 {
                let at = at.add(16 * h).cast::<__m128i>();
                let low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(at)));
                let high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(at.add(1))));
                let both = _mm512_cvtne2ps_pbh(_mm512_mul_ps(high, last), _mm512_mul_ps(low, first));
                std::mem::transmute::<__m512bh, __m512i>(both)
            } else {
                let words = _mm512_cvtepi8_epi32(_mm_loadu_si128(at.add(16 * h).cast()));
                let even = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_slli_epi32::<28>(words)), first);
                let odd = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srai_epi32::<4>(words)), last);
                // Sixteen even values, then sixteen odd ones; they are wanted side by side.
                let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(odd, even));
                let order = _mm512_set_epi16(
                    31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
                    19, 3, 18, 2, 17, 1, 16, 0,
                );
                _mm512_permutexvar_epi16(order, both)
            }
        }
    };
    [half(0), half(1)]
}
