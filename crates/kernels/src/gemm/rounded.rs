//! The three products of a linear layer whose weight trains, under bf16 compute: operands rounded to bf16, sums in f32.
//! The weight and its gradient stay f32.
//!
//! `alpha` multiplies one operand before it is rounded: the weight, or for the weight gradient the narrower of the two.
//! Up to `FEW_ROWS` rows go as f32: rounding would take longer than it saves.
//!
//! With AMX and AVX-512-BF16 both operands are packed in pairs once. With AVX-512-FP16 nothing is rounded. Elsewhere the
//! f32 kernels multiply rounded copies: the rounding points are the same as for pairs, the order of summation is not.

use super::FEW_ROWS;
#[cfg(target_arch = "x86_64")]
use super::halves::{HalfPanels, Halves};
use crate::Rows;
use crate::frozen::round;
use crate::isa::{Isa, isa};
use crate::split::{for_blocks, length};

/// y = beta y + alpha x w^T; x (T, K), w (N, K), y (T, N).
pub fn nt(alpha: f32, x: &Rows, w: &[f32], beta: f32, y: &mut Rows) {
    assert_eq!(x.rows(), y.rows(), "x and y differ in rows");
    length("w", w.len(), y.width() * x.width());
    if stays_f32(x, y.width()) {
        return super::nt(alpha, x, w, beta, y);
    }
    #[cfg(target_arch = "x86_64")]
    if isa().has_bf16() {
        crate::work::add_bytes(size_of_val(w));
        // SAFETY: the CPU has AVX-512 BF16.
        let (left, right) = unsafe { (Halves::of(x), HalfPanels::of_rows(alpha, w, x.width())) };
        return pairs::product(&left, &right, beta, y.data_mut());
    }
    super::nt(1.0, &rounded(1.0, x.data(), x.width()), rounded(alpha, w, x.width()).data(), beta, y);
}

/// dx = beta dx + alpha dy w; dy (T, N), w (N, K), dx (T, K).
pub fn nn(alpha: f32, dy: &Rows, w: &[f32], beta: f32, dx: &mut Rows) {
    assert_eq!(dy.rows(), dx.rows(), "dy and dx differ in rows");
    length("w", w.len(), dy.width() * dx.width());
    if stays_f32(dy, dx.width()) {
        return super::nn(alpha, dy, w, beta, dx);
    }
    #[cfg(target_arch = "x86_64")]
    if isa().has_bf16() {
        crate::work::add_bytes(size_of_val(w));
        // SAFETY: the CPU has AVX-512 BF16.
        let (left, right) = unsafe { (Halves::of(dy), HalfPanels::of_columns(alpha, w, dx.width())) };
        return pairs::product(&left, &right, beta, dx.data_mut());
    }
    super::nn(1.0, &rounded(1.0, dy.data(), dy.width()), rounded(alpha, w, dx.width()).data(), beta, dx);
}

/// dw = beta dw + alpha dy^T x; dy (T, N), x (T, K), dw (N, K).
pub fn tn(alpha: f32, dy: &Rows, x: &Rows, beta: f32, dw: &mut [f32]) {
    assert_eq!(dy.rows(), x.rows(), "dy and x differ in rows");
    length("dw", dw.len(), dy.width() * x.width());
    if stays_f32(dy, x.width()) {
        return super::tn(alpha, dy, x, beta, dw);
    }
    let turned = x.width() < dy.width();
    #[cfg(target_arch = "x86_64")]
    if isa().has_bf16() {
        let (narrow, wide) = if turned { (x, dy) } else { (dy, x) };
        // SAFETY: the CPU has AVX-512 BF16.
        let (left, right) = unsafe {
            (Halves::of_columns(alpha, narrow), HalfPanels::of_columns(1.0, wide.data(), wide.width()))
        };
        if !turned {
            return pairs::product(&left, &right, beta, dw);
        }
        let mut made = Rows::scratch(x.width(), dy.width());
        pairs::product(&left, &right, 0.0, made.data_mut());
        return add_transposed(&made, beta, dw);
    }
    let (by_dy, by_x) = if turned { (1.0, alpha) } else { (alpha, 1.0) };
    super::tn(1.0, &rounded(by_dy, dy.data(), dy.width()), &rounded(by_x, x.data(), x.width()), beta, dw);
}

/// Whether these stay products of f32: of few rows, of nothing, and where no kernel that multiplies rounded operands faster
/// takes weights that train.
fn stays_f32(x: &Rows, columns: usize) -> bool {
    x.rows() <= FEW_ROWS || x.width() == 0 || columns == 0 || isa() == Isa::Avx512Fp16
}

/// alpha x, rounded to bf16, in f32.
fn rounded(alpha: f32, x: &[f32], width: usize) -> Rows {
    let mut made = Rows::scratch(x.len() / width, width);
    let isa = isa();
    for_blocks(made.data_mut(), |at, to| round(isa, alpha, &x[at..at + to.len()], to));
    made
}

/// dw = beta dw + m^T; m (K, N), dw (N, K).
#[cfg(target_arch = "x86_64")]
fn add_transposed(m: &Rows, beta: f32, dw: &mut [f32]) {
    use rayon::prelude::*;
    /// Rows of dw in one task.
    const ROWS: usize = 64;
    let depth = m.rows();
    let task = |(i, dw): (usize, &mut [f32])| {
        for k in 0..depth {
            let from = &m.row(k)[i * ROWS..];
            for (row, value) in dw.chunks_exact_mut(depth).zip(from) {
                let old = if beta == 0.0 { 0.0 } else { beta * row[k] };
                row[k] = old + value;
            }
        }
    };
    dw.par_chunks_mut(ROWS * depth).enumerate().for_each(task);
}

/// Products of packed pairs.
#[cfg(target_arch = "x86_64")]
mod pairs {
    use super::super::halves::{HalfPanels, Halves, PANEL};
    use super::super::micro::{A_STRIDE, Ahead, Order};
    use super::super::{Operands, Product, Span, Target, tiles};
    use super::{Isa, isa};

    /// c = beta c + a b; c (rows of a, columns of b).
    pub(super) fn product(a: &Halves, b: &HalfPanels, beta: f32, c: &mut [f32]) {
        assert!(a.pairs == b.pairs && c.len() == a.rows * b.columns, "shapes of a product of pairs");
        let target = Target { alpha: 1.0, beta, c: c.as_mut_ptr(), row: b.columns };
        let operands = Packed { a, b };
        // SAFETY: the operands cover the shape, c is borrowed exclusively, and pairs were packed because the CPU
        // multiplies them.
        unsafe {
            if isa() == Isa::Amx {
                let right = |columns, steps, buffer| operands.right(Isa::Amx, columns, steps, PANEL, buffer);
                tiles::multiply(&[tiles::Tiled { left: a, columns: b.columns, right, ready: true, target }]);
            } else {
                Product { shape: (a.rows, b.columns, a.pairs), operands, target }.compute_pairs(true);
            }
        }
    }

    #[derive(Clone, Copy)]
    struct Packed<'a> {
        a: &'a Halves,
        b: &'a HalfPanels,
    }

    impl Operands for Packed<'_> {
        const COUNT: fn(usize) = crate::work::add_bf16_pairs;

        fn order(&self) -> Order {
            Order::Rows
        }

        unsafe fn left(&self, _isa: Isa, rows: Span, steps: Span, height: usize, tile: *mut f32) {
            for r in 0..height {
                // SAFETY: the tile has room for `height` rows of `steps.count` words.
                let to = unsafe { std::slice::from_raw_parts_mut(tile.add(r * A_STRIDE), steps.count) };
                if r < rows.count {
                    let row = self.a.words.row(rows.first + r);
                    to.copy_from_slice(&row[steps.first..steps.first + steps.count]);
                } else {
                    to.fill(0.0);
                }
            }
        }

        fn ahead(&self, rows: Span, steps: Span) -> Ahead {
            let width = self.a.words.width();
            let start = self.a.words.data().as_ptr().wrapping_add(rows.first * width + steps.first);
            Ahead::of(start, rows.count, width, steps.count)
        }

        unsafe fn right(
            &self,
            _isa: Isa,
            columns: Span,
            steps: Span,
            nr: usize,
            _buffer: *mut f32,
        ) -> (*const f32, usize) {
            debug_assert_eq!(nr, PANEL);
            let start = self.b.panel(columns.first / PANEL)[steps.first * PANEL..].as_ptr();
            (start, self.b.pairs * PANEL)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;
    use half::bf16;

    fn r(x: f32) -> f64 {
        bf16::from_f32(x).to_f64()
    }

    /// Rows, in and out features: the few rows that stay f32, sizes beside tiles (16, 32), pairs and pieces of the
    /// contraction (384 pairs), both sides of the narrower operand, and several tasks.
    const SHAPES: [(usize, usize, usize); 9] = [
        (3, 37, 65),
        (33, 1, 1),
        (34, 5, 70),
        (47, 131, 8),
        (64, 32, 96),
        (97, 801, 33),
        (129, 33, 1100),
        (230, 71, 66),
        (801, 40, 130),
    ];

    #[test]
    fn products_equal_the_naive_ones_of_rounded_operands() {
        for (t, k, n) in SHAPES {
            for (alpha, beta) in [(1.0f32, 0.0f32), (-0.7, 1.0), (1.3, -1.6)] {
                let (x, dy, w) = (noise_rows(t, k, 1), noise_rows(t, n, 2), noise(n * k, 3));
                let starts = [noise(t * n, 4), noise(t * k, 5), noise(n * k, 6)];
                let expected = |exact: bool| {
                    let one = |v: f32| if exact { f64::from(v) } else { r(v) };
                    let scaled = |v: f32| if exact { f64::from(alpha) * f64::from(v) } else { r(alpha * v) };
                    let mut sums = [vec![0.0; t * n], vec![0.0; t * k], vec![0.0; n * k]];
                    for (e, s) in sums.iter_mut().zip(&starts) {
                        if beta != 0.0 {
                            e.iter_mut().zip(s).for_each(|(e, s)| *e = f64::from(beta) * f64::from(*s));
                        }
                    }
                    for i in 0..t {
                        for o in 0..n {
                            for c in 0..k {
                                let (x, dy, w) = (x.row(i)[c], dy.row(i)[o], w[o * k + c]);
                                sums[0][i * n + o] += one(x) * scaled(w);
                                sums[1][i * k + c] += one(dy) * scaled(w);
                                sums[2][o * k + c] +=
                                    if k < n { one(dy) * scaled(x) } else { scaled(dy) * one(x) };
                            }
                        }
                    }
                    sums
                };
                let of = [expected(false), expected(true)];
                let run = || {
                    let mut y = Rows::from_slice(&starts[0], n);
                    let mut dx = Rows::from_slice(&starts[1], k);
                    let mut dw = starts[2].clone();
                    nt(alpha, &x, &w, beta, &mut y);
                    nn(alpha, &dy, &w, beta, &mut dx);
                    tn(alpha, &dy, &x, beta, &mut dw);
                    [y.data(), dx.data(), &dw].concat()
                };
                everywhere(run, |isa, found| {
                    let (y, rest) = found.split_at(t * n);
                    let (dx, dw) = rest.split_at(t * k);
                    let expected = &of[usize::from(t <= FEW_ROWS || isa == Isa::Avx512Fp16)];
                    for (name, found, expected) in
                        [("y", y, &expected[0]), ("dx", dx, &expected[1]), ("dw", dw, &expected[2])]
                    {
                        assert_close(&format!("{isa} {t}x{k}x{n} {name}"), found, expected, 5e-6);
                    }
                });
            }
        }
    }
}
