//! The kernel that multiplies f16, for processors with AVX-512 FP16: twice the work of an f32 multiplication in the same
//! time, at half the width of everything that is read.
//!
//! A sum of many products in f16 would be worthless, so only [`STAGE`] of them are added in f16 and the rest in f32. Both
//! operands come multiplied by powers of two that bring their largest magnitude near [`TOP`], so that nothing overflows
//! and what is lost below is lost beside something a million times as large. What that costs is measured by
//! `f16_products_are_nearer_than_rounding_to_bf16`.

use super::micro::{A_STRIDE, Ahead, Micro, Order, Tile};
use super::{DEPTH, Span};
use std::arch::x86_64::*;

/// Products that are added in f16 before their sum goes to f32: six stops in a cut of the contraction, which take a tenth of
/// the time of its products. The error grows as the root of this; twice as many would be no better than bf16.
const STAGE: usize = DEPTH.div_ceil(6);
/// Columns of a panel.
pub(crate) const WIDE: usize = 64;
/// The largest magnitude of an operand lies between this and half of it.
const TOP: u32 = 16;
const _: () = assert!(STAGE as u32 * TOP * TOP < 65_504, "a stage's sum is finite in f16");

/// The power of two that brings a largest magnitude, given as the bits of an f32, into [TOP / 2, TOP), and its inverse.
/// What is not finite stays as it is.
pub(crate) fn scale(largest: u32) -> (f32, f32) {
    let exponent = largest >> 23;
    // As exponents of f32 are stored: the power, and 1 for the smallest inverse that is normal.
    let power = if exponent == 255 { 127 } else { (253 + TOP.ilog2() - exponent).min(253) };
    (f32::from_bits(power << 23), f32::from_bits((254 - power) << 23))
}

/// The bits of the largest magnitude in x; more than those of infinity where there is a NaN.
#[target_feature(enable = "avx512f")]
fn largest(x: &[f32]) -> u32 {
    let mut most = _mm512_setzero_si512();
    let magnitude = _mm512_set1_epi32(i32::MAX);
    let (whole, rest) = x.as_chunks::<16>();
    let mut see = |values| {
        most = _mm512_max_epu32(most, _mm512_and_si512(magnitude, _mm512_castps_si512(values)));
    };
    whole.iter().for_each(|values| see(all(values)));
    see(some(rest));
    _mm512_reduce_max_epu32(most)
}

/// Sixteen values.
#[inline]
#[target_feature(enable = "avx512f")]
fn all(values: &[f32; 16]) -> __m512 {
    // SAFETY: there are sixteen.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

/// Fewer than sixteen values, and zeros.
#[inline]
#[target_feature(enable = "avx512f")]
fn some(values: &[f32]) -> __m512 {
    let mask = (1u16 << values.len()) - 1;
    // SAFETY: the mask names values that exist.
    unsafe { _mm512_maskz_loadu_ps(mask, values.as_ptr()) }
}

/// A row of a left operand at `to`: each value twice in a word, as f16, and behind all steps the factor that its products
/// are to be multiplied by, where those of the right operand want `undo`.
///
/// # Safety
/// The CPU has AVX-512; `to` is a row of a tile, `A_STRIDE` words; x has up to `DEPTH` values.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn left_row(x: &[f32], undo: f32, to: *mut f32) {
    let (scale, inverse) = scale(largest(x));
    let scale = _mm512_set1_ps(scale);
    let twice = |values| {
        let halves = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(_mm512_mul_ps(scale, values));
        let words = _mm512_cvtepu16_epi32(halves);
        _mm512_or_si512(words, _mm512_slli_epi32::<16>(words))
    };
    let (whole, rest) = x.as_chunks::<16>();
    // SAFETY: a row has room for `DEPTH` words, a multiple of 16.
    unsafe {
        for (i, values) in whole.iter().enumerate() {
            _mm512_storeu_si512(to.add(16 * i).cast(), twice(all(values)));
        }
        if !rest.is_empty() {
            _mm512_storeu_si512(to.add(16 * whole.len()).cast(), twice(some(rest)));
        }
    }
    // SAFETY: the row has words behind `DEPTH`.
    unsafe { *to.add(DEPTH) = inverse * undo };
}

/// The same for a row that the operand does not have.
///
/// # Safety
/// `to` is a row of a tile.
pub(crate) unsafe fn no_row(steps: Span, to: *mut f32) {
    // SAFETY: a row has room for its steps, and words behind `DEPTH`.
    unsafe {
        std::slice::from_raw_parts_mut(to, steps.count).fill(0.0);
        *to.add(DEPTH) = 0.0;
    }
}

/// 14 x 64 in 28 of the 32 registers.
pub(super) struct Avx512F16;

impl Micro for Avx512F16 {
    const MR: usize = 14;
    const NR: usize = WIDE;
    const COLUMNS: usize = 2 * super::engine::COLUMNS;

    fn height(rows: usize) -> usize {
        match rows {
            0..=1 => 1,
            2..=4 => 4,
            5..=8 => 8,
            _ => 14,
        }
    }

    unsafe fn run(order: Order, height: usize, tile: &Tile) {
        debug_assert!(order == Order::Rows && tile.alpha == 1.0, "left operands of f16 are rows");
        // SAFETY: the caller's promise.
        unsafe {
            match height {
                1 => kernel::<1>(tile),
                4 => kernel::<4>(tile),
                8 => kernel::<8>(tile),
                _ => kernel::<14>(tile),
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512fp16")]
unsafe fn kernel<const HEIGHT: usize>(t: &Tile) {
    let (mut a, mut b) = (t.a.cast::<i32>(), t.b);
    // Both arrive while the first sums are made.
    let mut ahead = Ahead::of(t.c, HEIGHT, t.c_row, WIDE).lines().chain(t.ahead.lines());
    for from in (0..t.depth).step_by(STAGE) {
        let mut sums = [[_mm512_setzero_ph(); 2]; HEIGHT];
        for _ in 0..STAGE.min(t.depth - from) {
            if let Some(line) = ahead.next() {
                _mm_prefetch::<_MM_HINT_T0>(line.cast());
            }
            // SAFETY: `a` and `b` hold `depth` steps.
            unsafe {
                let columns = [b, b.add(16)].map(|b| _mm512_castsi512_ph(_mm512_loadu_si512(b.cast())));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let value = _mm512_castsi512_ph(_mm512_set1_epi32(*a.add(r * A_STRIDE)));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = _mm512_fmadd_ph(value, column, *sum);
                    }
                }
                (a, b) = (a.add(1), b.add(32));
            }
        }
        // A copy, so that the compiler keeps the sums themselves in registers: a loop as long as the next one would index them.
        let mut made = [[_mm512_setzero_ph(); 2]; HEIGHT];
        made.iter_mut().zip(sums).for_each(|(made, sums)| *made = sums);
        let beta = if from == 0 { t.beta } else { 1.0 };
        for (r, made) in made.iter().enumerate() {
            for (v, sum) in made.iter().enumerate() {
                // SAFETY: a row's factor lies behind its steps; `c` is valid for this row and these columns.
                unsafe {
                    let factor = _mm512_set1_ps(*t.a.add(r * A_STRIDE + DEPTH));
                    store(t.c.add(r * t.c_row + 32 * v), beta, factor, *sum);
                }
            }
        }
    }
}

/// c = beta c + factor sum, for 32 columns.
///
/// # Safety
/// c is valid for them.
#[inline]
#[target_feature(enable = "avx512f,avx512fp16")]
unsafe fn store(c: *mut f32, beta: f32, factor: __m512, sum: __m512h) {
    let sum = _mm512_castph_si512(sum);
    let halves = [_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum)];
    for (i, half) in halves.into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let (c, sum) = (c.add(16 * i), _mm512_cvtph_ps(half));
            let made = match beta {
                0.0 => _mm512_mul_ps(factor, sum),
                1.0 => _mm512_fmadd_ps(factor, sum, _mm512_loadu_ps(c)),
                _ => _mm512_fmadd_ps(factor, sum, _mm512_mul_ps(_mm512_set1_ps(beta), _mm512_loadu_ps(c))),
            };
            _mm512_storeu_ps(c, made);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_bring_the_largest_near_the_top_and_are_undone_exactly() {
        for largest in [1e-44f32, 1e-38, 3e-7, 0.9999, 1.0, 7.5, 15.9, 16.0, 1e9, f32::MAX] {
            let (scale, inverse) = scale(largest.to_bits());
            assert_eq!(scale * inverse, 1.0, "{largest:e}");
            assert!(scale.to_bits() & 0x7f_ffff == 0 && inverse.to_bits() & 0x7f_ffff == 0, "powers of two");
            let made = scale * largest;
            assert!(made < 16.0, "{largest:e}: {made}");
            assert!(made >= 8.0 || largest < 1e-36, "{largest:e}: {made}");
        }
        for not in [f32::INFINITY, f32::NAN] {
            assert_eq!(scale(not.to_bits()), (1.0, 1.0));
        }
        assert_eq!(scale(0).0 * 0.0, 0.0);
    }
}
