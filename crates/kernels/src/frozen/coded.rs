//! A weight that stays in its 8 or 4 bits, in panels as [`super::pack`] has them: for each pair of in features one
//! code word per out feature (two bytes, or one with the even in feature in its low half), and for each block of in
//! features a scale per out feature. A product expands what it is about to multiply, into the cache.
//!
//! A value is code * scale rounded to bf16, which is what packing the widened weight gives: every product has the same
//! bits as with [`super::pack::Packed`] (with 4 bits: scales below 2^-98 aside), but for those of a few rows that
//! [`super::integers`] makes.

use super::pack::{By, Facts, PANEL, magnitude, round_to_bf16, turned, widen};
use crate::gemm::Span;
use crate::isa::{Isa, kernel};
use crate::pool::{Lasting, Plain};

/// The codes of a pair of in features for one out feature.
pub(super) trait Code: Copy + Send + Sync {
    fn even(self) -> i32;
    fn odd(self) -> i32;
    /// Widens the code words of a pair of in features for some out features.
    fn widen(isa: Isa, words: &[Self], scales: [&[f32]; 2], even: &mut [f32], odd: &mut [f32]);
}

impl Code for u16 {
    #[inline(always)]
    fn even(self) -> i32 {
        i32::from(self as i8)
    }
    #[inline(always)]
    fn odd(self) -> i32 {
        i32::from(self as i16 >> 8)
    }
    fn widen(isa: Isa, words: &[Self], scales: [&[f32]; 2], even: &mut [f32], odd: &mut [f32]) {
        widen_8(isa, words, scales, even, odd);
    }
}

impl Code for u8 {
    #[inline(always)]
    fn even(self) -> i32 {
        i32::from((self << 4) as i8 >> 4)
    }
    #[inline(always)]
    fn odd(self) -> i32 {
        i32::from(self as i8 >> 4)
    }
    fn widen(isa: Isa, words: &[Self], scales: [&[f32]; 2], even: &mut [f32], odd: &mut [f32]) {
        widen_4(isa, words, scales, even, odd);
    }
}

/// The code words of a panel for one pair.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Codes<C: Code>([C; PANEL]);

// SAFETY: the two kinds of code are integers, and zeros are integers.
unsafe impl<C: Code> Plain for Codes<C> {}

/// The scales of a panel for one block.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Scales([f32; PANEL]);

// SAFETY: floats of zeros are 0.
unsafe impl Plain for Scales {}

/// A weight in panels of codes: `[out / 32][in / 2][32]` code words and `[out / 32][blocks][32]` scales.
pub(super) struct Coded<C: Code> {
    pub(super) facts: Facts,
    block: usize,
    blocks: usize,
    codes: Lasting<Codes<C>>,
    scales: Lasting<Scales>,
}

/// Pairs that read the same scales: those before `end` from the one asked for, and the blocks of their even and of
/// their odd in feature (which differ where a block has an odd number of them).
pub(super) struct Run {
    pub(super) end: usize,
    pub(super) even: usize,
    pub(super) odd: usize,
}

impl<C: Code> Coded<C> {
    /// Room for a weight in such blocks.
    pub(super) fn empty(out: usize, inp: usize, block: usize) -> Self {
        let (facts, blocks) = (Facts::new(out, inp), inp.div_ceil(block));
        let codes = Lasting::zeros(facts.panels() * facts.pairs);
        let scales = Lasting::zeros(facts.panels() * blocks);
        Coded { facts, block, blocks, codes, scales }
    }

    /// The columns that share a scale.
    pub(super) fn block(&self) -> usize {
        self.block
    }

    /// Packs a weight of this shape in such blocks: `scale` (out, blocks), and code word of row i, pair k by `word`.
    pub(super) fn fill(&mut self, scale: &[f32], word: impl Fn(usize, usize) -> C + Sync, by: By) {
        let Coded { facts, blocks, codes, scales, .. } = self;
        by.each(codes, facts.pairs, |p, codes| {
            turned(facts.rows(p), facts.pairs, &word, |j, k, word| codes[k].0[j] = word);
            0
        });
        facts.largest = by.each(scales, *blocks, |p, lines| {
            let mut most = 0;
            for (j, i) in facts.rows(p).enumerate() {
                for (line, scale) in lines.iter_mut().zip(&scale[i * *blocks..]) {
                    // No code is larger than 128.
                    most = most.max(magnitude(128.0 * scale));
                    line.0[j] = *scale;
                }
            }
            most
        });
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.codes[..]) + size_of_val(&self.scales[..])
    }

    /// The code words of panel `p`, pair `k`.
    #[inline(always)]
    pub(super) fn at(&self, p: usize, k: usize) -> &[C; PANEL] {
        &self.codes[p * self.facts.pairs + k].0
    }

    /// The scales of panel `p`, block `b`.
    #[inline(always)]
    pub(super) fn scales(&self, p: usize, b: usize) -> &[f32; PANEL] {
        &self.scales[p * self.blocks + b].0
    }

    pub(super) fn run(&self, k: usize) -> Run {
        // The half that a last pair lacks has code 0 and takes whatever scale there is.
        let (even, odd) = (2 * k / self.block, ((2 * k + 1) / self.block).min(self.blocks - 1));
        let end = match (self.blocks, self.block.is_multiple_of(2)) {
            (1, _) => self.facts.pairs,
            (_, true) => (even + 1) * self.block / 2,
            (_, false) => k + 1,
        };
        Run { end, even, odd }
    }

    /// Row `i`, widened.
    pub(super) fn row(&self, i: usize, out: &mut [f32]) {
        let (p, j) = (i / PANEL, i % PANEL);
        for (k, pair) in out.chunks_mut(2).enumerate() {
            let (word, run) = (self.at(p, k)[j], self.run(k));
            pair[0] = value(word.even(), self.scales(p, run.even)[j]);
            if let Some(odd) = pair.get_mut(1) {
                *odd = value(word.odd(), self.scales(p, run.odd)[j]);
            }
        }
    }

    /// The words that panel `p` would have in bf16.
    pub(super) fn panel(&self, isa: Isa, p: usize) -> Vec<[u32; PANEL]> {
        let (mut even, mut odd) = ([0.0; PANEL], [0.0; PANEL]);
        let words = |k| {
            let run = self.run(k);
            let scales = [run.even, run.odd].map(|b| &self.scales(p, b)[..]);
            C::widen(isa, self.at(p, k), scales, &mut even, &mut odd);
            std::array::from_fn(|j| even[j].to_bits() >> 16 | odd[j].to_bits())
        };
        (0..self.facts.pairs).map(words).collect()
    }

    /// What [`super::pack::Packed::widen_forward`] gives.
    pub(super) fn widen_forward(&self, isa: Isa, columns: Span, steps: Span, nr: usize, panels: &mut [f32]) {
        for (p, panel) in panels.chunks_exact_mut(nr * steps.count).enumerate() {
            let first = columns.first + p * nr;
            let (source, at) = (first / PANEL, first % PANEL);
            for (k, rows) in (steps.first / 2..).zip(panel.chunks_mut(2 * nr)) {
                let (even, odd) = rows.split_at_mut(nr);
                let run = self.run(k);
                let words = &self.at(source, k)[at..at + nr];
                let scales = [run.even, run.odd].map(|b| &self.scales(source, b)[at..at + nr]);
                C::widen(isa, words, scales, even, odd);
            }
        }
    }

    /// What [`super::pack::Packed::widen_backward`] gives.
    pub(super) fn widen_backward(&self, isa: Isa, columns: Span, steps: Span, nr: usize, panels: &mut [f32]) {
        let mut pair = [[0.0; PANEL]; 2];
        for (p, panel) in panels.chunks_exact_mut(nr * steps.count).enumerate() {
            let first = columns.first + p * nr;
            let end = (columns.first + columns.count).min(first + nr);
            panel.fill(0.0);
            for (s, rows) in panel.chunks_mut(nr * PANEL).enumerate() {
                let source = steps.first / PANEL + s;
                for k in first / 2..end.div_ceil(2) {
                    let run = self.run(k);
                    let scales = [run.even, run.odd].map(|b| &self.scales(source, b)[..]);
                    let [even, odd] = &mut pair;
                    C::widen(isa, self.at(source, k), scales, even, odd);
                    for (n, row) in rows.chunks_exact_mut(nr).enumerate() {
                        row[2 * k - first] = pair[0][n];
                        if 2 * k + 1 < end {
                            row[2 * k + 1 - first] = pair[1][n];
                        }
                    }
                }
            }
        }
    }
}

/// A code's value, as the products see it.
#[inline(always)]
fn value(code: i32, scale: f32) -> f32 {
    widen(u32::from(round_to_bf16(code as f32 * scale)))
}

kernel!(fn widen_8(words: &[u16], scales: [&[f32]; 2], even: &mut [f32], odd: &mut [f32]) = widen_body);
kernel!(fn widen_4(words: &[u8], scales: [&[f32]; 2], even: &mut [f32], odd: &mut [f32]) = widen_body);

#[inline(always)]
fn widen_body<const FMA: bool>(words: &[impl Code], scales: [&[f32]; 2], even: &mut [f32], odd: &mut [f32]) {
    for ((to, word), scale) in even.iter_mut().zip(words).zip(scales[0]) {
        *to = value(word.even(), *scale);
    }
    for ((to, word), scale) in odd.iter_mut().zip(words).zip(scales[1]) {
        *to = value(word.odd(), *scale);
    }
}

#[cfg(test)]
mod tests {
    use crate::Rows;
    use crate::frozen::{Bits, Compute, FrozenWeight, Store, encode};
    use crate::isa::Isa;
    use crate::testing::*;
    use half::bf16;

    /// Rows, in and out features beside panels (32), pairs, cuts of the contraction and segments (256), and blocks of one
    /// row, of even and of odd sizes.
    const CASES: [(usize, usize, usize, usize); 12] = [
        (1, 600, 50, 300),
        (6, 524, 34, 524),
        (3, 70, 161, 14),
        (32, 38, 45, 2),
        (1, 37, 65, 37),
        (1, 2, 1, 1),
        (3, 1090, 33, 109),
        (17, 64, 1100, 16),
        (45, 70, 66, 7),
        (230, 96, 131, 32),
        (2, 1536, 40, 64),
        (4, 12, 97, 3),
    ];

    /// The value that a product sees, from the stored integers alone, and as it is where the product is in integers.
    fn naive(store: &Store, inp: usize, i: usize, c: usize, exact: bool) -> f64 {
        let (code, scale, block) = match store {
            Store::I8 { q, scale, block } => (i32::from(q[i * inp + c]), scale, *block),
            Store::I4 { q, scale, block } => {
                let half = i32::from(q[(i * inp + c) / 2] >> (4 * (c % 2)) & 15);
                (if half > 7 { half - 16 } else { half }, scale, *block)
            }
            _ => unreachable!("not coded"),
        };
        let scale = scale[i * (inp / block) + c / block];
        if exact { f64::from(code) * f64::from(scale) } else { bf16::from_f32(code as f32 * scale).to_f64() }
    }

    fn products(w: &FrozenWeight, x: &Rows, dy: &Rows, start: &Rows) -> Vec<f32> {
        let (mut y, mut dx) = (Rows::scratch(x.rows(), w.out_features()), start.copy());
        w.forward(x, &mut y);
        w.backward(dy, -0.6, &mut dx);
        [y.data(), dx.data()].concat()
    }

    #[test]
    fn products_equal_the_naive_ones_and_those_of_the_widened_weight() {
        for bits in [Bits::Eight, Bits::Four] {
            for (t, inp, out, block) in CASES {
                if bits == Bits::Four && inp % 2 == 1 {
                    continue;
                }
                let store = encode(&noise(out * inp, 1), inp, bits, block).store;
                let coded = FrozenWeight::new(out, inp, store.clone(), Compute::Bf16);
                let exact = FrozenWeight::new(out, inp, store.clone(), Compute::F32);
                let packed = FrozenWeight::new(out, inp, Store::F32(exact.to_f32()), Compute::Bf16);
                let (x, dy, start) = (noise_rows(t, inp, 2), noise_rows(t, out, 3), noise_rows(t, inp, 4));
                let round = |v: f32| bf16::from_f32(v).to_f64();
                let (mut y, mut dx) = ([vec![0.0; t * out], vec![0.0; t * out]], vec![0.0; t * inp]);
                for i in 0..t {
                    for c in 0..inp {
                        dx[i * inp + c] = -0.6 * f64::from(start.row(i)[c]);
                    }
                    for o in 0..out {
                        for c in 0..inp {
                            let (w, x) = (naive(&store, inp, o, c, false), x.row(i)[c]);
                            y[0][i * out + o] += round(x) * w;
                            y[1][i * out + o] += f64::from(x) * naive(&store, inp, o, c, true);
                            dx[i * inp + c] += round(dy.row(i)[o]) * w;
                        }
                    }
                }
                everywhere(
                    || products(&coded, &x, &dy, &start),
                    |isa, found| {
                        let what = format!("{isa} {bits:?} {t}x{inp}x{out} in blocks of {block}");
                        let (fast_y, fast_dx) = found.split_at(t * out);
                        let few = crate::isa::with_isa(isa, || crate::frozen::few::is_few(t));
                        let finer = few && isa > Isa::Scalar && (block % 2 == 0 || block == inp);
                        // In f16 the rows are rounded less and the sums more.
                        let sixteen = isa == Isa::Avx512Fp16;
                        let tolerance = if sixteen { 5e-3 } else { 5e-6 };
                        assert_close(&format!("{what}: dx"), fast_dx, &dx, tolerance);
                        if finer {
                            // x is rounded to 2^-16 of the largest of its segment.
                            return assert_close(&format!("{what}: y"), fast_y, &y[1], 2e-5);
                        }
                        assert_close(&format!("{what}: y"), fast_y, &y[0], tolerance);
                        if sixteen {
                            // The two scale by different bounds of the largest value.
                            return;
                        }
                        let wide = crate::isa::with_isa(isa, || products(&packed, &x, &dy, &start));
                        let same = found.iter().zip(&wide).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{what}: other bits than the widened weight");
                    },
                );
                assert_eq!(coded.to_f32(), packed.to_f32());
            }
        }
    }

    #[test]
    fn memory_is_what_the_bits_say() {
        let (out, inp, block) = (64, 128, 32);
        let bytes = |bits| {
            let store = encode(&noise(out * inp, 5), inp, bits, block).store;
            FrozenWeight::new(out, inp, store, Compute::Bf16).bytes()
        };
        let scales = out * inp / block * 4;
        assert_eq!(bytes(Bits::Eight), out * inp + scales);
        assert_eq!(bytes(Bits::Four), out * inp / 2 + scales);
    }

    #[test]
    fn an_infinite_scale_is_found() {
        let Store::I4 { q, mut scale, block } = encode(&noise(40 * 6, 6), 6, Bits::Four, 3).store else {
            unreachable!("four bits")
        };
        scale[71] = f32::INFINITY;
        assert!(FrozenWeight::new(40, 6, Store::I4 { q, scale, block }, Compute::Bf16).has_non_finite());
    }
}
