//! LayerNorm: y = (x - mean) rstd w + b, with rstd = 1 / sqrt(var + eps) and the biased variance.

use crate::Rows;
use crate::isa::{isa, kernel};
use crate::math::{madd, sum, sum1, sum3};
use crate::split::{for_columns, for_row_blocks, for_row_blocks_with, length, same_shape};

kernel!(
    fn forward_rows(
        x: &[f32], w: &[f32], b: &[f32], eps: f32, y: &mut [f32], stats: &mut [f32],
    ) = forward_body
);

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
        let squares = sum1(x, |x| (x - mean) * (x - mean));
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
        let along_one = sum3(dy, w, x, |dy, w, _| dy * w) / width as f32;
        let along_x = sum3(dy, w, x, |dy, w, x| dy * w * ((x - mean) * rstd)) / width as f32;
        for (((dx, x), dy), w) in dx.iter_mut().zip(x).zip(dy).zip(w) {
            let unit = (x - mean) * rstd;
            *dx = rstd * madd::<FMA>(-unit, along_x, dy * w - along_one);
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
    for (t, stats) in stats.chunks_exact(2).enumerate() {
        let from = t * width + at;
        let (x, dy) = (&x[from..from + dw.len()], &dy[from..from + dw.len()]);
        for ((dw, x), dy) in dw.iter_mut().zip(x).zip(dy) {
            *dw = madd::<FMA>((x - stats[0]) * stats[1], *dy, *dw);
        }
    }
}

/// The gradient of [`forward`]: dx (T, D) is overwritten; dwb = (dw (D), db (D)), where wanted,
/// accumulates.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    fn naive_forward<F: Float>(x: &[F], w: &[F], b: &[F], eps: F) -> (Vec<F>, Vec<F>) {
        let d = w.len();
        let (mut y, mut stats) = (Vec::new(), Vec::new());
        for row in x.chunks(d) {
            let n = F::of(d as f64);
            let mean = row.iter().fold(F::zero(), |a, v| a + *v) / n;
            let var = row.iter().fold(F::zero(), |a, v| a + (*v - mean) * (*v - mean)) / n;
            let rstd = F::of(1.0) / (var + eps).sqrt();
            for c in 0..d {
                y.push((row[c] - mean) * rstd * w[c] + b[c]);
            }
            stats.extend([mean, rstd]);
        }
        (y, stats)
    }

    /// dx, dw, db by the textbook sums.
    fn naive_backward<F: Float>(x: &[F], w: &[F], stats: &[F], dy: &[F]) -> [Vec<F>; 3] {
        let d = w.len();
        let n = F::of(d as f64);
        let (mut dx, mut dw, mut db) = (Vec::new(), vec![F::zero(); d], vec![F::zero(); d]);
        for (t, row) in x.chunks(d).enumerate() {
            let (mean, rstd, dy) = (stats[2 * t], stats[2 * t + 1], &dy[t * d..]);
            let (mut one, mut along) = (F::zero(), F::zero());
            for c in 0..d {
                let unit = (row[c] - mean) * rstd;
                one = one + dy[c] * w[c];
                along = along + dy[c] * w[c] * unit;
                dw[c] = dw[c] + dy[c] * unit;
                db[c] = db[c] + dy[c];
            }
            for c in 0..d {
                let unit = (row[c] - mean) * rstd;
                dx.push(rstd * (dy[c] * w[c] - one / n - unit * along / n));
            }
        }
        [dx, dw, db]
    }

    const EPS: f32 = 1e-3;

    #[test]
    fn the_naive_backward_is_the_derivative() {
        let (t, d) = (3, 7);
        let [x, w, b, dy] = [(t * d, 1), (d, 2), (d, 3), (t * d, 4)].map(|(n, s)| wide(&noise(n, s)));
        let eps = f64::from(EPS);
        let loss = |x: &[f64], w: &[f64], b: &[f64]| inner(&naive_forward(x, w, b, eps).0, &dy);
        let [dx, dw, db] = naive_backward(&x, &w, &naive_forward(&x, &w, &b, eps).1, &dy);
        assert_gradient("dx", &x, &dx, |x| loss(x, &w, &b));
        assert_gradient("dw", &w, &dw, |w| loss(&x, w, &b));
        assert_gradient("db", &b, &db, |b| loss(&x, &w, b));
    }

    #[test]
    fn fast_equals_naive() {
        for (t, d) in [(1, 1), (1, 19), (5, 33), (70, 257), (129, 576)] {
            let mut x = noise_rows(t, d, 5);
            // A mean far from 0, where one pass over the squares would lose its digits.
            x.data_mut().iter_mut().for_each(|v| *v = 0.7 * *v + 30.0);
            let (w, b, dy) = (noise(d, 6), noise(d, 7), noise_rows(t, d, 8));
            let start = noise(2 * d, 9);
            let (y, stats) = naive_forward(&wide(x.data()), &wide(&w), &wide(&b), f64::from(EPS));
            let [dx, dw, db] = naive_backward(&wide(x.data()), &wide(&w), &stats, &wide(dy.data()));
            let add = |g: &[f64], s: &[f32]| -> Vec<f64> {
                g.iter().zip(s).map(|(g, s)| g + f64::from(*s)).collect()
            };
            let (dw, db) = (add(&dw, &start[..d]), add(&db, &start[d..]));
            let run = || {
                let (mut y, mut dx) = (Rows::scratch(t, d), Rows::scratch(t, d));
                let mut stats = vec![f32::NAN; 2 * t];
                let mut grads = start.clone();
                forward(&x, &w, &b, EPS, &mut y, &mut stats);
                let (dw, db) = grads.split_at_mut(d);
                backward(&x, &w, &stats, &dy, &mut dx, Some((dw, db)));
                [y.data(), dx.data(), &grads].concat()
            };
            everywhere(run, |isa, out| {
                let (fast_y, rest) = out.split_at(t * d);
                let (fast_dx, grads) = rest.split_at(t * d);
                let name = |n| format!("{isa} {t}x{d} {n}");
                // With one column the variance is 0 and dx is exactly 0 in theory: only y and db
                // say anything.
                assert_close(&name("y"), fast_y, &y, 3e-5);
                if d > 1 {
                    assert_close(&name("dx"), fast_dx, &dx, 3e-5);
                    assert_close(&name("dw"), &grads[..d], &dw, 3e-5);
                }
                assert_close(&name("db"), &grads[d..], &db, 3e-6);
            });
        }
    }
}
