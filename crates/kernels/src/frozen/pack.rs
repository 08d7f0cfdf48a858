//! The packed form of a weight under bf16 compute.
//!
//! Panels of 32 out features; in a panel, pairs of in features; for each pair, one 32-bit word per
//! out feature with the even in feature in its low half: `[out / 32][in / 2][32][2]`. This is the
//! order in which the kernel of the forward reads it, so the forward packs nothing. Missing
//! features are zeros.

use super::{Store, hash_weight};
use crate::gemm::Span;
use crate::isa::Isa;
use rayon::prelude::*;

/// Out features in a panel.
pub(super) const PANEL: usize = 32;

/// One cache line of words: half the out features of a panel, for one pair.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line([u32; 16]);

const LINES: usize = PANEL / 16;

/// What is known of any weight in panels.
pub(super) struct Facts {
    pub(super) out: usize,
    pub(super) inp: usize,
    /// Pairs of in features, the last possibly half empty.
    pub(super) pairs: usize,
    /// Of the values as they were read.
    pub(super) hash: u64,
    pub(super) non_finite: bool,
}

impl Facts {
    /// The hash of a panel's values, and whether all are finite.
    pub(super) fn of_panel(values: &[f32]) -> (u64, bool) {
        (hash_values(values), values.iter().all(|v| v.is_finite()))
    }

    /// From those of its panels.
    pub(super) fn new(out: usize, inp: usize, panels: Vec<(u64, bool)>) -> Facts {
        let hashes: Vec<u64> = panels.iter().map(|f| f.0).collect();
        let non_finite = !panels.iter().all(|f| f.1);
        Facts { out, inp, pairs: inp.div_ceil(2), hash: hash_weight(out, inp, &hashes), non_finite }
    }
}

/// A weight in bf16 panels.
pub(super) struct Packed {
    pub(super) facts: Facts,
    lines: Vec<Line>,
}

/// One step of a 64-bit multiplicative hash (a large odd constant; the high bits are folded down).
pub(super) fn fold(h: u64, value: u64) -> u64 {
    let h = (h.rotate_left(23) ^ value ^ 0x3c6e_f372_fe94_f82b).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^ (h >> 32)
}

/// A hash of values: 16 interleaved 32-bit hashes (each step is a bijection, so that one changed
/// value always changes its lane), folded.
pub(super) fn hash_values(values: &[f32]) -> u64 {
    let mut lanes: [u32; 16] = std::array::from_fn(|i| i as u32);
    let step = |lane: &mut u32, value: &f32| {
        *lane = (*lane ^ value.to_bits()).wrapping_mul(0x9e37_79b1);
        *lane ^= *lane >> 15;
    };
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(l, v)| step(l, v));
    }
    lanes.iter_mut().zip(rest).for_each(|(l, v)| step(l, v));
    lanes.iter().fold(values.len() as u64, |h, lane| fold(h, u64::from(*lane)))
}

/// The upper half of x after rounding to nearest, ties to even; NaN stays NaN (made quiet).
#[inline(always)]
pub(crate) fn round_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    (if x.is_nan() { quiet } else { rounded }) as u16
}

/// The f32 with this upper half.
#[inline(always)]
pub(super) fn widen(half: u32) -> f32 {
    f32::from_bits(half << 16)
}

impl Packed {
    /// Rounds and packs a weight, one panel at a time, so that no second copy of it exists.
    pub(super) fn new(out: usize, inp: usize, store: &Store) -> Packed {
        let (panels, pairs) = (out.div_ceil(PANEL), inp.div_ceil(2));
        let mut lines = vec![Line([0; 16]); panels * pairs * LINES];
        let pack = |(p, lines): (usize, &mut [Line])| {
            let rows = PANEL.min(out - p * PANEL);
            let mut values = vec![0.0; rows * inp];
            for (j, row) in values.chunks_exact_mut(inp).enumerate() {
                store.row(p * PANEL + j, row);
                pack_row(row, j, lines);
            }
            Facts::of_panel(&values)
        };
        let facts = lines.par_chunks_mut((pairs * LINES).max(1)).enumerate().map(pack).collect();
        Packed { facts: Facts::new(out, inp, facts), lines }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.lines[..])
    }

    /// The word of panel `p`, pair `k` for the first out feature.
    pub(super) fn at(&self, p: usize, k: usize) -> *const u32 {
        self.lines[(p * self.facts.pairs + k) * LINES..].as_ptr().cast()
    }

    /// The 32 words of panel `p`, pair `k`.
    fn words(&self, p: usize, k: usize) -> &[u32; PANEL] {
        let at = (p * self.facts.pairs + k) * LINES;
        let lines: &[Line; LINES] = self.lines[at..].first_chunk().expect("a panel holds whole pairs");
        // SAFETY: two lines are 32 words without padding, and the alignment of a line is that of a
        // word or more.
        unsafe { &*lines.as_ptr().cast() }
    }

    /// Row `i`, widened.
    pub(super) fn row(&self, i: usize, out: &mut [f32]) {
        for (k, pair) in out.chunks_mut(2).enumerate() {
            let word = self.words(i / PANEL, k)[i % PANEL];
            pair[0] = widen(word & 0xffff);
            if let Some(odd) = pair.get_mut(1) {
                *odd = widen(word >> 16);
            }
        }
    }

    /// In features `columns` of out features `steps`, widened, as panels of `nr` columns with one
    /// step for each out feature: the right operand of the input gradient for f32 kernels.
    pub(super) fn widen_backward(
        &self,
        _isa: Isa,
        columns: Span,
        steps: Span,
        nr: usize,
        panels: &mut [f32],
    ) {
        for (p, panel) in panels.chunks_exact_mut(nr * steps.count).enumerate() {
            let first = columns.first + p * nr;
            let end = (columns.first + columns.count).min(first + nr);
            panel.fill(0.0);
            for k in first / 2..end.div_ceil(2) {
                for (n, row) in panel.chunks_exact_mut(nr).enumerate() {
                    let n = steps.first + n;
                    let word = self.words(n / PANEL, k)[n % PANEL];
                    row[2 * k - first] = widen(word & 0xffff);
                    if 2 * k + 1 < end {
                        row[2 * k + 1 - first] = widen(word >> 16);
                    }
                }
            }
        }
    }

    /// Out features `columns` of in features `steps`, widened, as panels of `nr` columns with one
    /// step for each in feature: the right operand of the forward for f32 kernels. `steps` starts
    /// at an even feature.
    pub(super) fn widen_forward(&self, _isa: Isa, columns: Span, steps: Span, nr: usize, panels: &mut [f32]) {
        for (p, panel) in panels.chunks_exact_mut(nr * steps.count).enumerate() {
            let first = columns.first + p * nr;
            // `nr` divides 32, so a panel here lies in one panel there.
            let (source, at) = (first / PANEL, first % PANEL);
            for (k, rows) in panel.chunks_mut(2 * nr).enumerate() {
                let words = &self.words(source, steps.first / 2 + k)[at..at + nr];
                let (even, odd) = rows.split_at_mut(nr);
                even.iter_mut().zip(words).for_each(|(v, w)| *v = widen(w & 0xffff));
                odd.iter_mut().zip(words).for_each(|(v, w)| *v = widen(w >> 16));
            }
        }
    }
}

fn pack_row(row: &[f32], j: usize, lines: &mut [Line]) {
    for (k, pair) in row.chunks(2).enumerate() {
        let odd = pair.get(1).map_or(0, |v| u32::from(round_to_bf16(*v)));
        let word = u32::from(round_to_bf16(pair[0])) | odd << 16;
        lines[k * LINES + j / 16].0[j % 16] = word;
    }
}
