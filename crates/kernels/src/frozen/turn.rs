//! Panels for the input gradient out of panels for the forward. `vdpbf16ps` pairs along the
//! contraction, which is in features for the one and out features for the other, so blocks are
//! turned on the way into the cache; a second copy of every weight would cost more than the few
//! percent of time that this takes.

use super::pack::{Facts, PANEL, Packed};
use crate::gemm::Span;
use std::arch::x86_64::*;

/// Pairs of in features, and of out features, that are turned at once: a panel's out features.
pub(super) const SIDE: usize = PANEL / 2;

/// Pairs of in features of one panel, 32 words each, at most [`SIDE`] of them.
pub(super) type Square = [u32; PANEL * SIDE];

/// A weight whose panels can be had as bf16.
pub(super) trait Turnable {
    /// What is known of it.
    fn facts(&self) -> &Facts;

    /// The words of panel `p`, pairs `first` to `first + count`: where they lie, or made in `aside`.
    ///
    /// # Safety
    /// They exist, and are no more than [`SIDE`] pairs; the CPU has AVX-512 BF16.
    unsafe fn square<'a>(&'a self, p: usize, first: usize, count: usize, aside: &'a mut Square) -> &'a [u32];
}

impl Turnable for Packed {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    unsafe fn square<'a>(&'a self, p: usize, first: usize, count: usize, _: &'a mut Square) -> &'a [u32] {
        // SAFETY: the pairs of a panel lie behind one another, 32 words each.
        unsafe { std::slice::from_raw_parts(self.at(p, first), count * PANEL) }
    }
}

/// In features `columns` of pairs of out features `steps`, as panels of 32 columns:
/// `[columns / 32][steps][32][2]`. `columns` starts at a multiple of 32 and `steps` at one of 16;
/// `panels` holds whole panels.
///
/// # Safety
/// The CPU has AVX-512 F, BW and BF16.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn turn(w: &impl Turnable, columns: Span, steps: Span, panels: &mut [u32]) {
    let mut aside = [0; PANEL * SIDE];
    for (p, panel) in panels.chunks_exact_mut(PANEL * steps.count).enumerate() {
        let first = columns.first / 2 + p * SIDE;
        let count = SIDE.min(w.facts().pairs - first);
        for (s, rows) in panel.chunks_mut(PANEL * SIDE).enumerate() {
            // SAFETY: the caller's promise, and `count` stops at the last pair.
            let source = unsafe { w.square(steps.first / SIDE + s, first, count, &mut aside) };
            match (source.try_into(), rows.as_mut().try_into()) {
                (Ok(source), Ok(rows)) => turn_square(source, rows),
                _ => turn_part(source, rows),
            }
        }
    }
}

/// `source`: up to 16 pairs of in features, 32 out features each; `rows`: up to 16 pairs of out
/// features, 32 in features each. The four bf16 of two out features and a pair of in features
/// change places.
fn turn_part(source: &[u32], rows: &mut [u32]) {
    for (m, row) in rows.chunks_exact_mut(PANEL).enumerate() {
        row.fill(0);
        for (words, out) in source.chunks_exact(PANEL).zip(row.chunks_exact_mut(2)) {
            let (first, second) = (words[2 * m], words[2 * m + 1]);
            out[0] = (first & 0xffff) | (second << 16);
            out[1] = (first >> 16) | (second & 0xffff_0000);
        }
    }
}

/// The same for whole squares, in blocks of 8 x 8 that stay in registers.
#[target_feature(enable = "avx512f,avx512bw")]
fn turn_square(source: &Square, rows: &mut Square) {
    // In each 64 bits (two out features, one pair of in features): bf16 0, 2, 1, 3.
    let swap = _mm512_set1_epi64(0x0706_0302_0504_0100);
    let lanes = _mm512_set_epi64(
        0x0808_0808_0808_0808,
        0,
        0x0808_0808_0808_0808,
        0,
        0x0808_0808_0808_0808,
        0,
        0x0808_0808_0808_0808,
        0,
    );
    let order = _mm512_add_epi8(swap, lanes);
    for k in (0..SIDE).step_by(8) {
        for m in (0..SIDE).step_by(8) {
            let block: [__m512i; 8] = std::array::from_fn(|i| {
                // SAFETY: eight 64-bit values from pair k + i, out features 2 m on, lie inside the
                // 16 x 32 words.
                let line = unsafe { _mm512_loadu_si512(source.as_ptr().add((k + i) * PANEL + 2 * m).cast()) };
                _mm512_shuffle_epi8(line, order)
            });
            for (l, line) in transpose(block).into_iter().enumerate() {
                // SAFETY: as above, the other way round.
                unsafe { _mm512_storeu_si512(rows.as_mut_ptr().add((m + l) * PANEL + 2 * k).cast(), line) };
            }
        }
    }
}

/// The transpose of 8 x 8 values of 64 bits.
#[target_feature(enable = "avx512f")]
fn transpose(r: [__m512i; 8]) -> [__m512i; 8] {
    let mut out = r;
    for odd in 0..2 {
        let pair = |i: usize| {
            if odd == 0 {
                _mm512_unpacklo_epi64(r[i], r[i + 1])
            } else {
                _mm512_unpackhi_epi64(r[i], r[i + 1])
            }
        };
        let t = [pair(0), pair(2), pair(4), pair(6)];
        // 128-bit lanes 0 and 2, then 1 and 3, of two registers; twice, this gathers one lane of
        // four.
        let (a, b) = (_mm512_shuffle_i64x2::<0x88>(t[0], t[1]), _mm512_shuffle_i64x2::<0xdd>(t[0], t[1]));
        let (c, d) = (_mm512_shuffle_i64x2::<0x88>(t[2], t[3]), _mm512_shuffle_i64x2::<0xdd>(t[2], t[3]));
        out[odd] = _mm512_shuffle_i64x2::<0x88>(a, c);
        out[odd + 2] = _mm512_shuffle_i64x2::<0x88>(b, d);
        out[odd + 4] = _mm512_shuffle_i64x2::<0xdd>(a, c);
        out[odd + 6] = _mm512_shuffle_i64x2::<0xdd>(b, d);
    }
    out
}
