//! LayerNorm: y = (x - mean) rstd w + b, with rstd = 1 / sqrt(var + eps) and the biased variance.

use crate::Rows;
use crate::isa::{isa, kernel};
use crate::math::{madd, sum, sum_by};
use crate::split::{for_columns, for_row_blocks, for_row_blocks_with, length, same_shape};

kernel!(fn forward_rows(x: &[f32], w: &[f32], b: &[f32], eps: f32, y: &mut [f32], stats: &mut [f32]) = forward_body);

#[inline(always)]
fn forward_body<const FMA: bool>(
    x: &[f32],
    w: &[f32],
    b: &[f32],
    eps: f32,
    y: &mut [f32],
    stats: &mut [f32],
) {
    let width = w.len();
    let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width));
    for ((x, y), stats) in rows.zip(stats.chunks_exact_mut(2)) {
        let mean = sum(x) / width as f32;
        let squares = sum_by(width, |i| (x[i] - mean) * (x[i] - mean));
        let rstd = 1.0 / (squares / width as f32 + eps).sqrt();
        for (((y, x), w), b) in y.iter_mut().zip(x).zip(w).zip(b) {
            *y = madd::<FMA>((x - mean) * rstd, *w, *b);
        }
        stats[0] = mean;
        stats[1] = rstd;
    }
}

/// y = LayerNorm(x); x, y (T, D); w, b (D); stats (T, 2) receives mean and rstd for [`backward`].
pub fn forward(x: &Rows, w: &[f32], b: &[f32], eps: f32, y: &mut Rows, stats: &mut [f32]) {
    same_shape("x", x, "y", y);
    length("w", w.len(), x.width());
    length("b", b.len(), x.width());
    length("stats", stats.len(), 2 * x.rows());
    let (isa, width) = (isa(), x.width());
    for_row_blocks_with(y, stats, 2, |first, y, stats| {
        let x = &x.data()[first * width..first * width + y.len()];
        forward_rows(isa, x, w, b, eps, y, stats);
    });
}

kernel!(fn backward_rows(x: &[f32], w: &[f32], stats: &[f32], dy: &[f32], dx: &mut [f32]) = backward_body);

#[inline(always)]
fn backward_body<const FMA: bool>(x: &[f32], w: &[f32], stats: &[f32], dy: &[f32], dx: &mut [f32]) {
    let width = w.len();
    let rows = x.chunks_exact(width).zip(dy.chunks_exact(width));
    for ((x, dy), (dx, stats)) in rows.zip(dx.chunks_exact_mut(width).zip(stats.chunks_exact(2))) {
        let (mean, rstd) = (stats[0], stats[1]);
        let (w, dy) = (&w[..width], &dy[..width]);
        let along_one = sum_by(width, |i| dy[i] * w[i]) / width as f32;
        let along_x = sum_by(width, |i| dy[i] * w[i] * ((x[i] - mean) * rstd)) / width as f32;
        for (((dx, x), dy), w) in dx.iter_mut().zip(x).zip(dy).zip(w) {
            let unit = (x - mean) * rstd;
            *dx = rstd * madd::<FMA>(-unit, along_x, dy * w - along_one);
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
    for (t, stats) in stats.chunks_exact(2).enumerate() {
        let from = t * width + at;
        let (x, dy) = (&x[from..from + dw.len()], &dy[from..from + dw.len()]);
        for ((dw, x), dy) in dw.iter_mut().zip(x).zip(dy) {
            *dw = madd::<FMA>((x - stats[0]) * stats[1], *dy, *dw);
        }
    }
}

/// The gradient of [`forward`]: dx (T, D) is overwritten; dwb = (dw (D), db (D)), where wanted, accumulates.
pub fn backward(
    x: &Rows,
    w: &[f32],
    stats: &[f32],
    dy: &Rows,
    dx: &mut Rows,
    dwb: Option<(&mut [f32], &mut [f32])>,
) {
    same_shape("x", x, "dy", dy);
    same_shape("x", x, "dx", dx);
    length("w", w.len(), x.width());
    length("stats", stats.len(), 2 * x.rows());
    let (isa, width) = (isa(), x.width());
    for_row_blocks(dx, |first, dx| {
        let part = first * width..first * width + dx.len();
        let stats = &stats[2 * first..2 * (first + dx.len() / width)];
        backward_rows(isa, &x.data()[part.clone()], w, stats, &dy.data()[part], dx);
    });
    if let Some((dw, db)) = dwb {
        length("dw", dw.len(), width);
        for_columns(dw, x.rows(), |at, dw| {
            weight_columns(isa, x.data(), stats, dy.data(), width, at, dw);
        });
        crate::elementwise::bias_grad(dy, db);
    }
}
