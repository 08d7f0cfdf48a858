//! Operands in f16 (see [`crate::gemm::f16`]): rows as they come, weights out of their panels on the way into the cache.

use super::pack::PANEL;
use super::panels::each;
use super::product::{Direction, Frozen};
use super::turn::{SIDE, Square, Turnable};
use crate::gemm::f16::{WIDE, left_row, no_row, scale};
use crate::gemm::{A_STRIDE, Ahead, Operands, Order, Span, pack_transposed};
use crate::isa::Isa;
use crate::work;
use std::arch::x86_64::*;

/// A step is one index of the contraction.
#[derive(Clone, Copy)]
pub(super) struct Sixteen<'a>(pub(super) Frozen<'a>);

impl Operands for Sixteen<'_> {
    const COUNT: fn(usize) = work::add_f16;

    fn order(&self) -> Order {
        Order::Rows
    }

    unsafe fn left(&self, _isa: Isa, rows: Span, steps: Span, height: usize, tile: *mut f32) {
        let (_, undo) = scale(self.0.w.facts().largest);
        for r in 0..height {
            // SAFETY: the tile has `height` rows; the rows and elements read exist; the CPU has AVX-512.
            unsafe {
                let to = tile.add(r * A_STRIDE);
                match r < rows.count {
                    true => left_row(self.0.left_row(rows.first + r, steps), undo, to),
                    false => no_row(steps, to),
                }
            }
        }
    }

    fn ahead(&self, rows: Span, steps: Span) -> Ahead {
        self.0.ahead(rows, steps)
    }

    unsafe fn right(
        &self,
        isa: Isa,
        columns: Span,
        steps: Span,
        nr: usize,
        buffer: *mut f32,
    ) -> (*const f32, usize) {
        debug_assert_eq!(nr, WIDE);
        let distance = WIDE / 2 * steps.count;
        let (by, _) = scale(self.0.w.facts().largest);
        // SAFETY: the buffer has room for whole panels; the CPU has AVX-512 BF16.
        unsafe {
            let panels = std::slice::from_raw_parts_mut(buffer.cast(), columns.count.div_ceil(nr) * distance);
            each!(self.0.w, w => match self.0.direction {
                Direction::Forward => forward(w, by, columns, steps, panels),
                Direction::Backward => backward(isa, w, by, columns, steps, panels),
            });
        }
        (buffer, distance)
    }
}

/// Sixteen words of bf16, times `by`, as f16: the lower halves and the upper ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn narrow(words: __m512i, by: __m512) -> [__m256i; 2] {
    let even = _mm512_slli_epi32::<16>(words);
    let odd = _mm512_and_si512(words, _mm512_set1_epi32(0xffff_0000_u32 as i32));
    [even, odd].map(|wide| {
        let scaled = _mm512_mul_ps(by, _mm512_castsi512_ps(wide));
        _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(scaled)
    })
}

/// Out features `columns` of in features `steps`: `[columns / 64][steps][64]` f16.
///
/// # Safety
/// They exist and start at multiples of 64 and 32; the CPU has AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn forward(w: &impl Turnable, by: f32, columns: Span, steps: Span, panels: &mut [u32]) {
    let (by, mut aside) = (_mm512_set1_ps(by), [0; PANEL * SIDE]);
    for (q, panel) in panels.chunks_exact_mut(WIDE / 2 * steps.count).enumerate() {
        for half in 0..2 {
            let p = columns.first / PANEL + 2 * q + half;
            let steps_of = panel.chunks_mut(WIDE / 2 * 2 * SIDE);
            if p == w.facts().panels() {
                steps_of.flat_map(|s| s.chunks_exact_mut(WIDE / 2)).for_each(|row| row[PANEL / 2..].fill(0));
                continue;
            }
            for (s, rows) in steps_of.enumerate() {
                let count = rows.len().div_ceil(WIDE);
                // SAFETY: a panel has these pairs.
                let words = unsafe { w.square(p, steps.first / 2 + s * SIDE, count, &mut aside) };
                for (words, rows) in words.as_chunks::<PANEL>().0.iter().zip(rows.chunks_mut(WIDE)) {
                    for (v, words) in words.as_chunks::<16>().0.iter().enumerate() {
                        // SAFETY: sixteen words; a step has 32, of which these are eight, and the odd one may be missing.
                        unsafe {
                            let [even, odd] = narrow(_mm512_loadu_si512(words.as_ptr().cast()), by);
                            let to = rows.as_mut_ptr().add(half * PANEL / 2 + 8 * v);
                            _mm256_storeu_si256(to.cast(), even);
                            if rows.len() == WIDE {
                                _mm256_storeu_si256(to.add(WIDE / 2).cast(), odd);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// In features `columns` of out features `steps`: `[columns / 64][steps][64]` f16.
///
/// # Safety
/// They exist and start at multiples of 64 and 32; the CPU has AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn backward(isa: Isa, w: &impl Turnable, by: f32, columns: Span, steps: Span, panels: &mut [u32]) {
    let by = _mm512_set1_ps(by);
    let mut aside: Square = [0; PANEL * SIDE];
    let mut narrowed = [0u32; 2 * PANEL * SIDE];
    for (q, panel) in panels.chunks_exact_mut(WIDE / 2 * steps.count).enumerate() {
        let first = columns.first / 2 + q * WIDE / 2;
        let pairs = (WIDE / 2).min(w.facts().pairs - first);
        for (s, rows) in panel.chunks_mut(WIDE / 2 * PANEL).enumerate() {
            for (from, to) in
                (first..first + pairs).step_by(SIDE).zip(narrowed.chunks_exact_mut(PANEL * SIDE))
            {
                let count = SIDE.min(first + pairs - from);
                // SAFETY: a panel has these pairs.
                let words = unsafe { w.square(steps.first / PANEL + s, from, count, &mut aside) };
                for (words, to) in words.as_chunks::<16>().0.iter().zip(to.as_chunks_mut::<16>().0) {
                    // SAFETY: sixteen words each.
                    unsafe {
                        let [even, odd] = narrow(_mm512_loadu_si512(words.as_ptr().cast()), by);
                        let odd = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(odd));
                        let both = _mm512_or_si512(_mm512_cvtepu16_epi32(even), odd);
                        _mm512_storeu_si512(to.as_mut_ptr().cast(), both);
                    }
                }
            }
            let (from, to) = (narrowed.as_ptr().cast(), rows.as_mut_ptr().cast());
            // SAFETY: a word for each of 32 out features and up to 32 pairs; the rows are words for as many pairs.
            unsafe { pack_transposed(isa, from, PANEL, pairs, rows.len() / (WIDE / 2), WIDE / 2, to) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Direction;
    use crate::Rows;
    use crate::frozen::{Bits, Compute, FrozenWeight, Store, encode};
    use crate::isa::{Isa, with_isa};
    use crate::testing::*;

    /// Rows as they occur: of all magnitudes, some with a value that dwarfs the others; the middle one is zeros.
    fn rows(t: usize, width: usize, seed: u64) -> Rows {
        let mut x = noise_rows(t, width, seed);
        for i in 0..t {
            let by = if i == t / 2 { 0.0 } else { [1.0, 3e-9, 4e5, 0.02, 1e-30][i % 5] };
            x.row_mut(i).iter_mut().for_each(|v| *v *= by);
            if i % 3 == 1 {
                x.row_mut(i)[i % width] *= 900.0;
            }
        }
        x
    }

    /// The product with w, rows of `inp`, or with its transpose, in f64.
    fn exact(x: &Rows, w: &[f64], inp: usize, direction: Direction) -> Vec<f64> {
        let mut made = Vec::new();
        for i in 0..x.rows() {
            let x = wide(x.row(i));
            match direction {
                Direction::Forward => {
                    made.extend(w.chunks(inp).map(|w| w.iter().zip(&x).map(|(w, x)| w * x).sum::<f64>()));
                }
                Direction::Backward => {
                    made.extend((0..inp).map(|c| w.chunks(inp).zip(&x).map(|(w, x)| w[c] * x).sum::<f64>()))
                }
            }
        }
        made
    }

    /// The error of each row's product beside the product, as the root of a mean of squares over rows that are not zeros.
    fn off(found: &Rows, right: &[f64]) -> f64 {
        let squares = |found: &[f32], right: &[f64]| {
            let wrong: f64 = found.iter().zip(right).map(|(f, r)| (f64::from(*f) - r).powi(2)).sum();
            wrong / right.iter().map(|r| r * r).sum::<f64>()
        };
        let rows = (0..found.rows()).zip(right.chunks(found.width())).filter(|(i, _)| *i != found.rows() / 2);
        let errors: Vec<f64> = rows.map(|(i, right)| squares(found.row(i), right)).collect();
        (errors.iter().sum::<f64>() / errors.len() as f64).sqrt()
    }

    /// Against the products of rows that nobody rounded: at sizes beside the panels (64 of two times 32), stages (86), the
    /// pairs that are packed at once (16), tiles (14) and cuts of the contraction (512), whatever the weight is stored as.
    #[test]
    fn f16_products_are_nearer_than_rounding_to_bf16() {
        if !Isa::Avx512Fp16.is_available() {
            return;
        }
        for (t, inp, out) in [(45, 70, 66), (45, 71, 66), (230, 97, 131), (61, 1091, 75), (40, 130, 690)] {
            let values: Vec<f32> = noise(out * inp, 1).iter().map(|v| 0.03 * v).collect();
            let mut stores = vec![Store::F32(values.clone()), encode(&values, inp, Bits::Eight, inp).store];
            if inp % 2 == 0 {
                stores.push(encode(&values, inp, Bits::Four, inp / 5).store);
            }
            for store in stores {
                let w = FrozenWeight::new(out, inp, store, Compute::Bf16);
                let (wide, x, dy) = (wide(&w.to_f32()), rows(t, inp, 2), rows(t, out, 3));
                let product = |isa, direction| {
                    let mut made = match direction {
                        Direction::Forward => Rows::scratch(t, out),
                        Direction::Backward => Rows::scratch(t, inp),
                    };
                    with_isa(isa, || match direction {
                        Direction::Forward => w.forward(&x, &mut made),
                        Direction::Backward => w.backward(&dy, 0.0, &mut made),
                    });
                    made
                };
                for direction in [Direction::Forward, Direction::Backward] {
                    let of = if direction == Direction::Forward { &x } else { &dy };
                    let right = exact(of, &wide, inp, direction);
                    let sixteen = product(Isa::Avx512Fp16, direction);
                    assert!(sixteen.row(t / 2).iter().all(|v| *v == 0.0), "a row of zeros");
                    let (found, rounded) =
                        (off(&sixteen, &right), off(&product(Isa::Avx512, direction), &right));
                    assert!(
                        found < rounded,
                        "{t} x {inp} x {out}: {found:.2e}, rounding alone {rounded:.2e}"
                    );
                }
            }
        }
    }
}
