//! The packed form of a weight under bf16 compute.
//!
//! Panels of 32 out features; in a panel, pairs of in features; for each pair, one 32-bit word per
//! out feature with the even in feature in its low half: `[out / 32][in / 2][32][2]`. This is the
//! order in which the kernel of the forward reads it, so the forward packs nothing. Missing
//! features are zeros.

use super::Store;
use crate::gemm::Span;
use crate::isa::{Isa, kernel};
use crate::pool::{Lasting, Plain};
use rayon::prelude::*;

/// Out features in a panel.
pub(super) const PANEL: usize = 32;

/// The bits of infinity; those of what is not a number are more.
const INFINITY: u32 = f32::INFINITY.to_bits();
/// The bits of a bf16 without its sign.
const MAGNITUDE: u32 = 0x7fff;

/// The bits of a magnitude: more where it is larger, and most where it is not a number.
pub(super) fn magnitude(x: f32) -> u32 {
    x.abs().to_bits()
}

/// One cache line of words: half the out features of a panel, for one pair.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line([u32; 16]);

// SAFETY: words of zeros are words.
unsafe impl Plain for Line {}

const LINES: usize = PANEL / 16;

/// What is known of any weight in panels.
pub(super) struct Facts {
    pub(super) out: usize,
    pub(super) inp: usize,
    /// Pairs of in features, the last possibly half empty.
    pub(super) pairs: usize,
    /// The bits, as f32, of the largest magnitude as it was read, or of more than that: those of infinity or more where a
    /// value is infinite or not a number.
    pub(super) largest: u32,
}

impl Facts {
    pub(super) fn new(out: usize, inp: usize) -> Facts {
        Facts { out, inp, pairs: inp.div_ceil(2), largest: 0 }
    }

    /// Whether a value, as it was read, is infinite or not a number.
    pub(super) fn non_finite(&self) -> bool {
        self.largest >= INFINITY
    }

    /// Panels of [`PANEL`] out features.
    pub(super) fn panels(&self) -> usize {
        self.out.div_ceil(PANEL)
    }

    /// The out features of panel `p`.
    pub(super) fn rows(&self, p: usize) -> std::ops::Range<usize> {
        p * PANEL..self.out.min((p + 1) * PANEL)
    }
}

/// Who packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// All threads of the pool.
    All,
    /// The calling thread, beside others that compute.
    One,
}

impl By {
    /// Calls `pack` for every piece of `size` items; the largest that it says of any.
    pub(super) fn each<T: Send>(
        self,
        items: &mut [T],
        size: usize,
        pack: impl Fn(usize, &mut [T]) -> u32 + Sync,
    ) -> u32 {
        let size = size.max(1);
        match self {
            By::All => {
                let pieces = items.par_chunks_mut(size).enumerate();
                pieces.map(|(p, piece)| pack(p, piece)).reduce(|| 0, u32::max)
            }
            By::One => {
                items.chunks_mut(size).enumerate().fold(0, |most, (p, piece)| most.max(pack(p, piece)))
            }
        }
    }
}

/// Pairs that are turned at a time: so many words of 32 rows, and the lines that they go to, stay in the first cache.
const TURN: usize = 16;

/// Calls `put(j, k, word)` for the words of some rows and `pairs` pairs, in an order that reads cache lines whole and
/// keeps near what is written.
pub(super) fn turned<W>(
    rows: std::ops::Range<usize>,
    pairs: usize,
    word: impl Fn(usize, usize) -> W,
    mut put: impl FnMut(usize, usize, W),
) {
    for first in (0..pairs).step_by(TURN) {
        for (j, i) in rows.clone().enumerate() {
            for k in first..pairs.min(first + TURN) {
                put(j, k, word(i, k));
            }
        }
    }
}

/// A weight in bf16 panels.
pub(super) struct Packed {
    pub(super) facts: Facts,
    lines: Lasting<Line>,
}

/// The upper half of x after rounding to nearest, ties to even; NaN stays NaN (made quiet).
#[inline(always)]
pub(crate) fn round_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    (if x.is_nan() { quiet } else { rounded }) as u16
}

kernel!(
    /// alpha x, rounded to bf16 and widened again.
    pub(crate) fn round(alpha: f32, x: &[f32], to: &mut [f32]) = round_body
);

#[inline(always)]
fn round_body<const FMA: bool>(alpha: f32, x: &[f32], to: &mut [f32]) {
    for (to, x) in to.iter_mut().zip(x) {
        *to = widen(u32::from(round_to_bf16(alpha * *x)));
    }
}

/// The f32 with this upper half.
#[inline(always)]
pub(super) fn widen(half: u32) -> f32 {
    f32::from_bits(half << 16)
}

impl Packed {
    /// Room for a weight.
    pub(super) fn empty(out: usize, inp: usize) -> Packed {
        let facts = Facts::new(out, inp);
        let lines = Lasting::zeros(facts.panels() * facts.pairs * LINES);
        Packed { facts, lines }
    }

    /// Rounds and packs a weight of this shape, one panel at a time, so that no second copy of it exists.
    pub(super) fn fill(&mut self, store: &Store, by: By) {
        let Packed { facts, lines } = self;
        let size = facts.pairs * LINES;
        facts.largest = match store {
            Store::Bf16(values) if facts.inp.is_multiple_of(2) => by.each(lines, size, |p, lines| {
                let mut most = 0;
                let word = |i: usize, k: usize| {
                    let at = i * facts.inp + 2 * k;
                    (u32::from(values[at].to_bits()), u32::from(values[at + 1].to_bits()))
                };
                turned(facts.rows(p), facts.pairs, word, |j, k, (even, odd)| {
                    most = most.max(even & MAGNITUDE).max(odd & MAGNITUDE);
                    lines[k * LINES + j / 16].0[j % 16] = even | odd << 16;
                });
                most << 16
            }),
            _ => by.each(lines, size, |p, lines| {
                let mut row = vec![0.0; facts.inp];
                let mut most = 0;
                for (j, i) in facts.rows(p).enumerate() {
                    store.row(i, &mut row);
                    most = row.iter().fold(most, |most, v| most.max(magnitude(*v)));
                    pack_row(&row, j, lines);
                }
                most
            }),
        };
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.lines[..])
    }

    /// The word of panel `p`, pair `k` for the first out feature.
    pub(super) fn at(&self, p: usize, k: usize) -> *const u32 {
        self.lines[(p * self.facts.pairs + k) * LINES..].as_ptr().cast()
    }

    /// The words of panel `p`.
    pub(super) fn panel(&self, p: usize) -> &[[u32; PANEL]] {
        let pairs = self.facts.pairs;
        let lines = &self.lines[p * pairs * LINES..][..pairs * LINES];
        // SAFETY: so many times two lines are so many times 32 words without padding, and the alignment of a line is that
        // of a word or more.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), pairs) }
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
