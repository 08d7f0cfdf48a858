//! RMSNorm: y = x rstd w, with rstd = 1 / sqrt(mean(x^2) + eps).

use crate::Rows;
use crate::isa::{isa, kernel};
use crate::math::{dot, madd, sum_by};
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
        let (w, dy) = (&w[..width], &dy[..width]);
        let along_x = rstd * sum_by(width, |i| dy[i] * w[i] * x[i]) / width as f32;
        for (((dx, x), dy), w) in dx.iter_mut().zip(x).zip(dy).zip(w) {
            *dx = rstd * madd::<FMA>(-(x * rstd), along_x, dy * w);
        }
    }
}

kernel!(fn weight_columns(x: &[f32], stats: &[f32], dy: &[f32], width: usize, at: usize, dw: &mut [f32]) = weight_body);

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
