//! Matrices rounded to bf16 for the kernels that multiply pairs: rows as a left operand, panels as a right one.

use super::transpose::pack_transposed;
use crate::Rows;
use crate::isa::Isa;
use crate::split::{GRAIN, rows_per_task};
use rayon::prelude::*;
use std::arch::x86_64::*;

/// Words, that is pairs, in a cache line: a tile's part of a row.
pub(super) const SIDE: usize = 16;
/// Columns of a panel.
pub(super) const PANEL: usize = 32;

/// A left operand (rows, 2 pairs): pairs along each row, filled up with zeros to whole tiles. The rows that fill up the
/// last tile hold whatever was there: a row of a product depends on no other.
pub(crate) struct Halves {
    pub(super) words: Rows,
    pub(super) rows: usize,
    pub(super) pairs: usize,
}

impl Halves {
    fn scratch(rows: usize, pairs: usize) -> Halves {
        // An odd number of cache lines, so that the rows of a tile do not fall into one cache set.
        let width = (pairs.div_ceil(SIDE) | 1) * SIDE;
        Halves { words: Rows::scratch(rows.next_multiple_of(SIDE), width), rows, pairs }
    }

    /// x, rounded.
    ///
    /// # Safety
    /// The CPU has AVX-512 BF16.
    pub(crate) unsafe fn of(x: &Rows) -> Halves {
        let (rows, width) = (x.rows(), x.width());
        let mut made = Halves::scratch(rows, width.div_ceil(2));
        let stride = made.words.width();
        let to = &mut made.words.data_mut()[..rows * stride];
        let task = |(from, to): (&[f32], &mut [f32])| {
            for (from, to) in from.chunks_exact(width).zip(to.chunks_exact_mut(stride)) {
                // SAFETY: the caller's promise.
                unsafe { narrow(1.0, from, to) };
            }
        };
        in_blocks(x.data(), width, to, stride, task);
        made
    }

    /// The transpose of x, rounded: (x's width, x's rows).
    ///
    /// # Safety
    /// The CPU has AVX-512 BF16.
    pub(super) unsafe fn of_columns(alpha: f32, x: &Rows) -> Halves {
        let (rows, pairs) = (x.width(), x.rows().div_ceil(2));
        let mut made = Halves::scratch(rows, pairs);
        let stride = made.words.width();
        // Panels of the columns are pairs outermost; here they are wanted innermost.
        // SAFETY: the caller's promise.
        let panels = unsafe { HalfPanels::of_columns(alpha, x.data(), x.width()) };
        let to = &mut made.words.data_mut()[..rows * stride];
        to.chunks_mut(PANEL * stride).enumerate().for_each(|(p, to)| {
            let high = PANEL.min(rows - p * PANEL);
            for (k, words) in panels.panel(p).chunks_exact(PANEL).enumerate() {
                (0..high).for_each(|j| to[j * stride + k] = words[j]);
            }
            to.chunks_mut(stride).for_each(|row| row[pairs..].fill(0.0));
        });
        made
    }
}

/// Calls `task` for blocks of rows of two matrices, in parallel where there are several.
fn in_blocks(
    from: &[f32],
    width: usize,
    to: &mut [f32],
    to_width: usize,
    task: impl Fn((&[f32], &mut [f32])) + Send + Sync,
) {
    if from.len() <= GRAIN {
        task((from, to));
    } else {
        let rows = rows_per_task(width);
        from.par_chunks(rows * width).zip(to.par_chunks_mut(rows * to_width)).for_each(task);
    }
}

/// A right operand (2 pairs, columns) as panels `[columns / 32][pairs][32][2]`. Columns and halves of pairs that the
/// matrix does not have are zeros.
pub(crate) struct HalfPanels {
    words: Rows,
    pub(super) columns: usize,
    pub(super) pairs: usize,
}

impl HalfPanels {
    fn scratch(columns: usize, pairs: usize) -> HalfPanels {
        HalfPanels { words: Rows::scratch(columns.div_ceil(PANEL) * pairs, PANEL), columns, pairs }
    }

    /// The words of panel `p`.
    pub(super) fn panel(&self, p: usize) -> &[f32] {
        &self.words.data()[p * self.pairs * PANEL..(p + 1) * self.pairs * PANEL]
    }

    /// The transpose of alpha w, rounded; w (columns, `depth`).
    ///
    /// # Safety
    /// The CPU has AVX-512 BF16.
    pub(super) unsafe fn of_rows(alpha: f32, w: &[f32], depth: usize) -> HalfPanels {
        let (columns, pairs) = (w.len() / depth.max(1), depth.div_ceil(2));
        let mut made = HalfPanels::scratch(columns, pairs);
        let task = |(w, panel): (&[f32], &mut [f32])| {
            let stride = pairs.next_multiple_of(SIDE);
            let mut rows = vec![0.0; PANEL * stride];
            for (row, to) in w.chunks_exact(depth).zip(rows.chunks_exact_mut(stride)) {
                // SAFETY: the caller's promise.
                unsafe { narrow(alpha, row, to) };
            }
            // SAFETY: 32 rows of `pairs` words; the panel holds as many.
            unsafe {
                pack_transposed(Isa::Avx512, rows.as_ptr(), stride, PANEL, pairs, PANEL, panel.as_mut_ptr())
            };
        };
        if pairs > 0 {
            let panels = made.words.data_mut();
            if w.len() <= GRAIN {
                w.chunks(PANEL * depth).zip(panels.chunks_exact_mut(pairs * PANEL)).for_each(task);
            } else {
                w.par_chunks(PANEL * depth).zip(panels.par_chunks_exact_mut(pairs * PANEL)).for_each(task);
            }
        }
        made
    }

    /// alpha x, rounded: pairs of its rows, which are `width` long.
    ///
    /// # Safety
    /// The CPU has AVX-512 BF16.
    pub(super) unsafe fn of_columns(alpha: f32, x: &[f32], width: usize) -> HalfPanels {
        let rows = x.len() / width.max(1);
        let mut made = HalfPanels::scratch(width, rows.div_ceil(2));
        let pairs = made.pairs;
        let task = |(p, panel): (usize, &mut [f32])| {
            let (first, wide) = (p * PANEL, PANEL.min(width - p * PANEL));
            for (k, words) in panel.chunks_exact_mut(PANEL).enumerate() {
                let row = |r: usize| x.get(r * width + first..r * width + first + wide).unwrap_or(&[]);
                // SAFETY: the caller's promise.
                unsafe { interleave(alpha, row(2 * k), row(2 * k + 1), words) };
            }
        };
        if pairs > 0 {
            let panels = made.words.data_mut();
            if x.len() <= GRAIN {
                panels.chunks_exact_mut(pairs * PANEL).enumerate().for_each(task);
            } else {
                panels.par_chunks_exact_mut(pairs * PANEL).enumerate().for_each(task);
            }
        }
        made
    }
}

/// The vector at `at` of `x`, zeros where it ends, times alpha.
#[inline]
#[target_feature(enable = "avx512f")]
fn scaled(alpha: __m512, x: &[f32], at: usize) -> __m512 {
    let left = x.len().saturating_sub(at).min(16);
    let mask = ((1u32 << left) - 1) as u16;
    // SAFETY: the mask names elements that exist.
    unsafe { _mm512_mul_ps(alpha, _mm512_maskz_loadu_ps(mask, x.as_ptr().wrapping_add(at))) }
}

/// alpha x as pairs of bf16, filled up with zeros to a whole tile's row.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn narrow(alpha: f32, x: &[f32], to: &mut [f32]) {
    let alpha = _mm512_set1_ps(alpha);
    for (i, to) in to.as_chunks_mut::<SIDE>().0.iter_mut().enumerate().take(x.len().div_ceil(2 * SIDE)) {
        let (low, high) = (scaled(alpha, x, 32 * i), scaled(alpha, x, 32 * i + 16));
        // SAFETY: 512 bits of plain data, as many as `to` has.
        unsafe {
            let words: __m512 = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_ps(to.as_mut_ptr(), words);
        }
    }
}

/// Pairs of alpha a and alpha b, up to 32 of them; `to` takes 32.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn interleave(alpha: f32, a: &[f32], b: &[f32], to: &mut [f32]) {
    let alpha = _mm512_set1_ps(alpha);
    let order = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18,
        2, 17, 1, 16, 0,
    );
    for (i, to) in to.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
        let both = _mm512_cvtne2ps_pbh(scaled(alpha, b, 16 * i), scaled(alpha, a, 16 * i));
        // SAFETY: 512 bits of plain data, as many as `to` has.
        unsafe {
            let words = _mm512_permutexvar_epi16(order, std::mem::transmute::<__m512bh, __m512i>(both));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), words);
        }
    }
}
