//! RMSNorm: y = x rstd w, with rstd = 1 / sqrt(mean(x^2) + eps).

use crate::Rows;
use crate::isa::{isa, kernel};
use crate::math::{dot, madd, sum3};
use crate::split::{for_columns, for_row_blocks, for_row_blocks_with, length, same_shape};

kernel!(fn forward_rows(x: &[f32], w: &[f32], eps: f32, y: &mut [f32], stats: &mut [f32]) = forward_body);

#[inline(always)]
fn forward_body<const FMA: bool>(x: &[f32], w: &[f32], eps: f32, y: &mut [f32], stats: &mut [f32]) {
    let width = w.len();
    let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width));
    for ((x, y), rstd) in rows.zip(stats) {
        *rstd = 1.0 / (dot::<FMA>(x, x) / width as f32 + eps).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
            *y = (x * *rstd) * w;
        }
    }
}

/// y = RMSNorm(x); x, y (T, D); w (D); stats (T) receives rstd for [`backward`].
pub fn forward(x: &Rows, w: &[f32], eps: f32, y: &mut Rows, stats: &mut [f32]) {
    same_shape("x", x, "y", y);
    length("w", w.len(), x.width());
    length("stats", stats.len(), x.rows());
    let (isa, width) = (isa(), x.width());
    for_row_blocks_with(y, stats, 1, |first, y, stats| {
        let x = &x.data()[first * width..first * width + y.len()];
        forward_rows(isa, x, w, eps, y, stats);
    });
}

kernel!(fn backward_rows(x: &[f32], w: &[f32], stats: &[f32], dy: &[f32], dx: &mut [f32]) = backward_body);

#[inline(always)]
fn backward_body<const FMA: bool>(x: &[f32], w: &[f32], stats: &[f32], dy: &[f32], dx: &mut [f32]) {
    let width = w.len();
    let rows = x.chunks_exact(width).zip(dy.chunks_exact(width));
    for ((x, dy), (dx, rstd)) in rows.zip(dx.chunks_exact_mut(width).zip(stats)) {
        let along_x = rstd * sum3(dy, w, x, |dy, w, x| dy * w * x) / width as f32;
        for (((dx, x), dy), w) in dx.iter_mut().zip(x).zip(dy).zip(w) {
            *dx = rstd * madd::<FMA>(-(x * rstd), along_x, dy * w);
        }
    }
}

kernel!(
    fn weight_columns(
        x: &[f32], stats: &[f32], dy: &[f32], width: usize, at: usize, dw: &mut [f32],
    ) = weight_body
);

#[inline(always)]
fn weight_body<const FMA: bool>(
    x: &[f32],
    stats: &[f32],
    dy: &[f32],
    width: usize,
    at: usize,
    dw: &mut [f32],
) {
    for (t, rstd) in stats.iter().enumerate() {
        let from = t * width + at;
        let (x, dy) = (&x[from..from + dw.len()], &dy[from..from + dw.len()]);
        for ((dw, x), dy) in dw.iter_mut().zip(x).zip(dy) {
            *dw = madd::<FMA>(x * rstd, *dy, *dw);
        }
    }
}

/// The gradient of [`forward`]: dx (T, D) is overwritten; dw (D), where wanted, accumulates.
pub fn backward(x: &Rows, w: &[f32], stats: &[f32], dy: &Rows, dx: &mut Rows, dw: Option<&mut [f32]>) {
    same_shape("x", x, "dy", dy);
    same_shape("x", x, "dx", dx);
    length("w", w.len(), x.width());
    length("stats", stats.len(), x.rows());
    let (isa, width) = (isa(), x.width());
    for_row_blocks(dx, |first, dx| {
        let part = first * width..first * width + dx.len();
        let stats = &stats[first..first + dx.len() / width];
        backward_rows(isa, &x.data()[part.clone()], w, stats, &dy.data()[part], dx);
    });
    if let Some(dw) = dw {
        length("dw", dw.len(), width);
        for_columns(dw, x.rows(), |at, dw| {
            weight_columns(isa, x.data(), stats, dy.data(), width, at, dw);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    fn naive_forward<F: Float>(x: &[F], w: &[F], eps: F) -> (Vec<F>, Vec<F>) {
        let d = w.len();
        let (mut y, mut stats) = (Vec::new(), Vec::new());
        for row in x.chunks(d) {
            let square = row.iter().fold(F::zero(), |a, v| a + *v * *v) / F::of(d as f64);
            let rstd = F::of(1.0) / (square + eps).sqrt();
            for c in 0..d {
                y.push(row[c] * rstd * w[c]);
            }
            stats.push(rstd);
        }
        (y, stats)
    }

    fn naive_backward<F: Float>(x: &[F], w: &[F], stats: &[F], dy: &[F]) -> [Vec<F>; 2] {
        let d = w.len();
        let (mut dx, mut dw) = (Vec::new(), vec![F::zero(); d]);
        for (t, row) in x.chunks(d).enumerate() {
            let (rstd, dy) = (stats[t], &dy[t * d..]);
            let mut along = F::zero();
            for c in 0..d {
                along = along + dy[c] * w[c] * row[c] * rstd;
                dw[c] = dw[c] + dy[c] * row[c] * rstd;
            }
            for c in 0..d {
                dx.push(rstd * (dy[c] * w[c] - row[c] * rstd * along / F::of(d as f64)));
            }
        }
        [dx, dw]
    }

    const EPS: f32 = 1e-3;

    #[test]
    fn the_naive_backward_is_the_derivative() {
        let (t, d) = (3, 7);
        let [x, w, dy] = [(t * d, 1), (d, 2), (t * d, 4)].map(|(n, s)| wide(&noise(n, s)));
        let eps = f64::from(EPS);
        let loss = |x: &[f64], w: &[f64]| inner(&naive_forward(x, w, eps).0, &dy);
        let [dx, dw] = naive_backward(&x, &w, &naive_forward(&x, &w, eps).1, &dy);
        assert_gradient("dx", &x, &dx, |x| loss(x, &w));
        assert_gradient("dw", &w, &dw, |w| loss(&x, w));
    }

    #[test]
    fn fast_equals_naive() {
        for (t, d) in [(1, 1), (1, 19), (5, 33), (70, 257), (129, 576)] {
            let (x, w, dy) = (noise_rows(t, d, 5), noise(d, 6), noise_rows(t, d, 8));
            let start = noise(d, 9);
            let (y, stats) = naive_forward(&wide(x.data()), &wide(&w), f64::from(EPS));
            let [dx, mut dw] = naive_backward(&wide(x.data()), &wide(&w), &stats, &wide(dy.data()));
            dw.iter_mut().zip(&start).for_each(|(g, s)| *g += f64::from(*s));
            let run = || {
                let (mut y, mut dx) = (Rows::scratch(t, d), Rows::scratch(t, d));
                let (mut stats, mut dw) = (vec![f32::NAN; t], start.clone());
                forward(&x, &w, EPS, &mut y, &mut stats);
                backward(&x, &w, &stats, &dy, &mut dx, Some(&mut dw));
                [y.data(), dx.data(), &dw].concat()
            };
            everywhere(run, |isa, out| {
                let (fast_y, rest) = out.split_at(t * d);
                let (fast_dx, fast_dw) = rest.split_at(t * d);
                let name = |n| format!("{isa} {t}x{d} {n}");
                assert_close(&name("y"), fast_y, &y, 2e-6);
                // One column: dx is eps-sized, the difference of two numbers of size 1.
                assert_close(&name("dx"), fast_dx, &dx, if d == 1 { 1e-2 } else { 3e-6 });
                assert_close(&name("dw"), fast_dw, &dw, 3e-6);
            });
        }
    }
}
