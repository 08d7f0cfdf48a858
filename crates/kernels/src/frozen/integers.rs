//! y = x W^T for a few rows of x and a weight in codes, in integers: codes as they are, x in 16 bits with a scale for each
//! segment of columns, exact sums of a segment's products, and both scales after them. 64 values take about six
//! instructions with 8 bits and twelve with 4, so that reading the codes is what takes the time.
//!
//! A row is rounded to 2^-16 of the largest value of its segment, and the weight's value is code * scale itself, where the
//! products of more rows round both to bf16.

mod avx2;

use super::coded::{Code, Coded};
use super::pack::PANEL;
use crate::gemm::Target;
use crate::isa::{Isa, kernel};
use std::arch::x86_64::*;
use std::ops::Range;

/// Pairs of a segment at most: 2 * 128 products of a code (128 at most) and 2^15 fit 31 bits.
const LONGEST: usize = 128;

/// Rows that read a panel together.
const GROUP: usize = 4;

/// Pairs that are asked for ahead of their turn.
const AHEAD: usize = 16;

/// The largest magnitude of a segment of x.
const MOST: f32 = 32767.0;

/// Pairs that have one scale in every out feature, and one in every row of x.
struct Segment {
    pairs: Range<usize>,
    block: usize,
}

/// The segments of a weight, in order; they depend on its blocks alone.
fn segments<C: Code>(w: &Coded<C>) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut k = 0;
    while k < w.facts.pairs {
        let run = w.run(k);
        let end = run.end.min(k + LONGEST).min(w.facts.pairs);
        segments.push(Segment { pairs: k..end, block: run.even });
        k = end;
    }
    segments
}

/// Whether the even and the odd in feature of a pair share a scale, so that their products may be added.
pub(super) fn serves<C: Code>(w: &Coded<C>) -> bool {
    w.block().is_multiple_of(2) || w.block() >= w.facts.inp
}

/// Rows in 16 bits for the weights of one block size.
pub(super) struct Quantised {
    segments: Vec<Segment>,
    /// (rows, pairs): the even value in the low half.
    words: Vec<u32>,
    /// (rows, segments)
    scales: Vec<f32>,
}

impl Quantised {
    /// `rows`, each as wide as w's input.
    pub(super) fn of<'a, C: Code>(isa: Isa, w: &Coded<C>, rows: impl Iterator<Item = &'a [f32]>) -> Self {
        let segments = segments(w);
        let (mut words, mut scales) = (Vec::new(), Vec::new());
        for row in rows {
            for segment in &segments {
                let columns = 2 * segment.pairs.start..row.len().min(2 * segment.pairs.end);
                let most = largest(isa, &row[columns.clone()]);
                let scale = most / MOST;
                // What is too small for an inverse is nothing; what is not finite stays so by its scale.
                let (scale, inverse) =
                    if scale < f32::MIN_POSITIVE { (0.0, 0.0) } else { (scale, 1.0 / scale) };
                scales.push(scale);
                let first = words.len();
                words.resize(first + segment.pairs.len(), 0);
                quantise(isa, &row[columns], inverse, &mut words[first..]);
            }
        }
        Quantised { segments, words, scales }
    }

    fn rows(&self) -> usize {
        self.scales.len() / self.segments.len().max(1)
    }

    /// The words of row `t`.
    fn words(&self, t: usize) -> &[u32] {
        let pairs = self.words.len() / self.rows();
        &self.words[t * pairs..(t + 1) * pairs]
    }
}

/// The largest magnitude; NaN if there is one.
fn largest(isa: Isa, x: &[f32]) -> f32 {
    let mut bits = 0;
    largest_bits(isa, x, &mut bits);
    f32::from_bits(bits)
}

kernel!(fn largest_bits(x: &[f32], most: &mut u32) = largest_body);
kernel!(fn quantise(x: &[f32], inverse: f32, words: &mut [u32]) = quantise_body);

/// Bits of magnitudes are in their order, those of NaN above infinity's.
#[inline(always)]
fn largest_body<const FMA: bool>(x: &[f32], most: &mut u32) {
    *most = x.iter().fold(0, |m, v| m.max(v.to_bits() & 0x7fff_ffff));
}

#[inline(always)]
fn quantise_body<const FMA: bool>(x: &[f32], inverse: f32, words: &mut [u32]) {
    /// Adding it leaves the nearest integer in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let code = |v: f32| (v * inverse + ROUND).to_bits() & 0xffff;
    let whole = x.len() / 2;
    for (word, pair) in words.iter_mut().zip(x.as_chunks::<2>().0) {
        *word = code(pair[0]) | code(pair[1]) << 16;
    }
    if let (1, Some(word)) = (x.len() % 2, words.get_mut(whole)) {
        *word = code(x[2 * whole]);
    }
}

/// y = beta y + x W^T for the out features of panels `panels`.
///
/// # Safety
/// The CPU has AVX2, as `isa` says; x was made for w's block size ([`serves`]) and input; y (`target`, whose alpha is 1) has
/// the out features of these panels, for as many rows as x, and nothing else reads or writes them meanwhile.
pub(super) unsafe fn few_rows<C: Code>(
    isa: Isa,
    w: &Coded<C>,
    panels: Range<usize>,
    x: &Quantised,
    target: Target,
) {
    let rows = x.rows();
    let mut made = [[0.0; PANEL]; GROUP];
    for p in panels {
        let columns = w.facts.rows(p);
        // What has no products of pairs has no count of its own for them.
        match isa.has_bf16() {
            true => crate::work::add_bf16_pairs(rows * columns.len() * w.facts.pairs),
            false => crate::work::add_f32(rows * columns.len() * w.facts.inp),
        }
        let group = if isa.has_bf16() { GROUP } else { GROUP / 2 };
        for first in (0..rows).step_by(group) {
            let count = group.min(rows - first);
            // SAFETY: the caller's promise; what has BF16 here has VNNI.
            unsafe {
                match (isa.has_bf16(), count) {
                    (true, 1) => panel::<C, 1>(w, p, x, first, &mut made),
                    (true, 2) => panel::<C, 2>(w, p, x, first, &mut made),
                    (true, 3) => panel::<C, 3>(w, p, x, first, &mut made),
                    (true, _) => panel::<C, GROUP>(w, p, x, first, &mut made),
                    (false, 1) => avx2::panel::<C, 1>(w, p, x, first, &mut made),
                    (false, _) => avx2::panel::<C, { GROUP / 2 }>(w, p, x, first, &mut made),
                }
                made[..count]
                    .iter()
                    .zip(first..)
                    .for_each(|(made, t)| target.store(t, columns.clone(), made));
            }
        }
    }
}

/// The results of rows `first` to `first + T` and the out features of panel `p`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn panel<C: Code, const T: usize>(
    w: &Coded<C>,
    p: usize,
    x: &Quantised,
    first: usize,
    made: &mut [[f32; PANEL]; GROUP],
) {
    let rows: [&[u32]; T] = std::array::from_fn(|t| x.words(first + t));
    let mut sums = [[_mm512_setzero_ps(); 2]; T];
    for (s, segment) in x.segments.iter().enumerate() {
        // Two sums each, or every product would wait for the one before.
        let mut acc = [[[_mm512_setzero_si512(); 2]; 2]; T];
        let mut k = segment.pairs.start;
        while k + 1 < segment.pairs.end {
            for j in 0..2 {
                // SAFETY: the caller's promise.
                unsafe { step(w, p, k + j, &rows, &mut acc, j) };
            }
            k += 2;
        }
        if k < segment.pairs.end {
            // SAFETY: the caller's promise.
            unsafe { step(w, p, k, &rows, &mut acc, 0) };
        }
        let scales = w.scales(p, segment.block);
        // SAFETY: two vectors of sixteen are the 32 scales.
        let scales = unsafe { [_mm512_loadu_ps(scales.as_ptr()), _mm512_loadu_ps(scales.as_ptr().add(16))] };
        for (t, (sums, acc)) in sums.iter_mut().zip(acc).enumerate() {
            let own = _mm512_set1_ps(x.scales[(first + t) * x.segments.len() + s]);
            for h in 0..2 {
                let whole = _mm512_cvtepi32_ps(_mm512_add_epi32(acc[0][h], acc[1][h]));
                sums[h] = _mm512_fmadd_ps(whole, _mm512_mul_ps(own, scales[h]), sums[h]);
            }
        }
    }
    for (sums, made) in sums.iter().zip(made) {
        // SAFETY: a row of a panel has 32 results.
        unsafe {
            _mm512_storeu_ps(made.as_mut_ptr(), sums[0]);
            _mm512_storeu_ps(made.as_mut_ptr().add(16), sums[1]);
        }
    }
}

/// Adds the products of pair `k` to the sums `j` of each row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn step<C: Code, const T: usize>(
    w: &Coded<C>,
    p: usize,
    k: usize,
    rows: &[&[u32]; T],
    acc: &mut [[[__m512i; 2]; 2]; T],
    j: usize,
) {
    let words = w.at(p, k);
    // SAFETY: the CPU has what it takes; an address that is only asked for may be any.
    let codes = unsafe {
        _mm_prefetch::<_MM_HINT_T0>(words.as_ptr().wrapping_add(AHEAD * PANEL).cast());
        expand(words)
    };
    for (acc, row) in acc.iter_mut().zip(rows) {
        let value = _mm512_set1_epi32(row[k] as i32);
        for h in 0..2 {
            acc[j][h] = _mm512_dpwssd_epi32(acc[j][h], value, codes[h]);
        }
    }
}

/// The codes of a pair as pairs of 16-bit integers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn expand<C: Code>(words: &[C; PANEL]) -> [__m512i; 2] {
    [0, 16].map(|first| {
        let at = words[first..].as_ptr();
        // SAFETY: sixteen code words, of two bytes or of one.
        unsafe {
            if size_of::<C>() == 2 {
                return _mm512_cvtepi8_epi16(_mm256_loadu_si256(at.cast()));
            }
            // Each byte into the upper half of two words, then its halves to the top, and down again with their signs.
            let bytes = _mm512_broadcast_i32x4(_mm_loadu_si128(at.cast()));
            let four = |d: i32| i32::from_le_bytes([0x80, d as u8, 0x80, d as u8]);
            let order = _mm512_setr_epi32(
                four(0),
                four(1),
                four(2),
                four(3),
                four(4),
                four(5),
                four(6),
                four(7),
                four(8),
                four(9),
                four(10),
                four(11),
                four(12),
                four(13),
                four(14),
                four(15),
            );
            let apart = _mm512_shuffle_epi8(bytes, order);
            let top = _mm512_sllv_epi16(apart, _mm512_set1_epi32(4));
            _mm512_srai_epi16::<12>(top)
        }
    })
}
