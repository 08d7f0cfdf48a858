//! Panels whose columns are rows of the source: the weight of a forward product.

use crate::isa::Isa;

/// Side of the squares that are transposed at once.
const SIDE: usize = 8;
/// Steps that are written before the next columns: they stay in the first-level cache meanwhile.
const STEPS: usize = 64;

/// A panel of `nr` columns, each a row of the source, `column` apart: element (k, j) at k * nr + j. Columns from
/// `width` on are zeros.
///
/// # Safety
/// The source holds `width` rows of `depth` contiguous values; `panel` has room for `depth` steps of `nr`, a
/// multiple of 8.
pub(crate) unsafe fn pack_transposed(
    isa: Isa,
    start: *const f32,
    column: usize,
    width: usize,
    depth: usize,
    nr: usize,
    panel: *mut f32,
) {
    let whole = depth / SIDE * SIDE;
    // SAFETY: the caller's promise; squares lie inside (nr, whole), and those of AVX run where it is.
    unsafe {
        for from in (0..whole).step_by(STEPS) {
            let to = (from + STEPS).min(whole);
            for j in (0..nr).step_by(SIDE) {
                let (start, panel) = (start.wrapping_add(j * column), panel.add(j));
                if j + SIDE > width || isa == Isa::Scalar {
                    let width = width.saturating_sub(j).min(SIDE);
                    turn_plain(start, column, width, (from, to), nr, panel);
                } else {
                    #[cfg(target_arch = "x86_64")]
                    turn_avx(start, column, (from, to), nr, panel);
                }
            }
        }
        for j in (0..nr).step_by(SIDE) {
            let start = start.wrapping_add(j * column);
            let width = width.saturating_sub(j).min(SIDE);
            turn_plain(start, column, width, (whole, depth), nr, panel.add(j));
        }
    }
}

/// Steps `from..to` of eight columns, of which the source has `width`.
unsafe fn turn_plain(
    start: *const f32,
    column: usize,
    width: usize,
    (from, to): (usize, usize),
    nr: usize,
    panel: *mut f32,
) {
    for k in from..to {
        for j in 0..SIDE {
            // SAFETY: the promise of `pack_transposed`.
            unsafe {
                *panel.add(k * nr + j) = if j < width { *start.add(j * column + k) } else { 0.0 };
            }
        }
    }
}

/// The same for eight columns that exist and steps in eights.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn turn_avx(start: *const f32, column: usize, (from, to): (usize, usize), nr: usize, panel: *mut f32) {
    use std::arch::x86_64::*;
    for k in (from..to).step_by(SIDE) {
        for half in [0, 4] {
            // Four values of row i in the low half of a register, of row i + 4 in the high half: what is left is
            // a transpose of 4 x 4 in each half.
            let rows: [__m256; 4] = std::array::from_fn(|i| {
                let at = |row: usize| start.wrapping_add(row * column + k + half);
                // SAFETY: rows 0..8 have values k..k + 8.
                unsafe { _mm256_set_m128(_mm_loadu_ps(at(i + 4)), _mm_loadu_ps(at(i))) }
            });
            let (a, b) = (_mm256_unpacklo_ps(rows[0], rows[1]), _mm256_unpackhi_ps(rows[0], rows[1]));
            let (c, d) = (_mm256_unpacklo_ps(rows[2], rows[3]), _mm256_unpackhi_ps(rows[2], rows[3]));
            let turned = [
                _mm256_shuffle_ps::<0x44>(a, c),
                _mm256_shuffle_ps::<0xee>(a, c),
                _mm256_shuffle_ps::<0x44>(b, d),
                _mm256_shuffle_ps::<0xee>(b, d),
            ];
            for (i, line) in turned.into_iter().enumerate() {
                // SAFETY: the panel has these steps, and eight columns from here.
                unsafe { _mm256_storeu_ps(panel.add((k + half + i) * nr), line) };
            }
        }
    }
}
