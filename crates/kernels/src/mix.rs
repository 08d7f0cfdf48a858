//! SIBO's input, x~ = (1 - lambda) x + lambda s h0: the one place where lambda is applied (arXiv
//! 2402.11896).

use crate::Rows;
use crate::drop::{Mask, RowMask};
use crate::isa::{isa, kernel};
use crate::math::{LANES, dot, madd};
use crate::split::{for_row_blocks, rows_per_task, same_shape};
use rayon::prelude::*;

/// How h0 is scaled before it is mixed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum H0Scale {
    /// As it is (the paper).
    Raw,
    /// Each row brought to the root mean square of its row of x. The scale takes part in no
    /// gradient.
    Rms,
}

kernel!(fn row_scale(x: &[f32], h0: &[f32]) -> f32 = row_scale_body);

/// sqrt(mean(x^2) / mean(h0^2)), or 0 for a row of zeros, which then stays zero.
#[inline(always)]
fn row_scale_body<const FMA: bool>(x: &[f32], h0: &[f32]) -> f32 {
    let size = dot::<FMA>(h0, h0);
    if size == 0.0 { 0.0 } else { (dot::<FMA>(x, x) / size).sqrt() }
}

kernel!(fn blend(a: f32, x: &[f32], b: f32, h: &[f32], out: &mut [f32]) = blend_body);

#[inline(always)]
fn blend_body<const FMA: bool>(a: f32, x: &[f32], b: f32, h: &[f32], out: &mut [f32]) {
    for ((out, x), h) in out.iter_mut().zip(x).zip(h) {
        *out = madd::<FMA>(a, *x, b * h);
    }
}

kernel!(
    fn blend_dropped(mask: RowMask, a: f32, x: &[f32], b: f32, h: &[f32], out: &mut [f32]) = blend_dropped_body
);

#[inline(always)]
fn blend_dropped_body<const FMA: bool>(mask: RowMask, a: f32, x: &[f32], b: f32, h: &[f32], out: &mut [f32]) {
    for (c, ((out, x), h)) in out.iter_mut().zip(x).zip(h).enumerate() {
        *out = mask.apply(c, madd::<FMA>(a, *x, b * h));
    }
}

kernel!(fn accumulate(a: f32, x: &[f32], y: &mut [f32]) = accumulate_body);

#[inline(always)]
fn accumulate_body<const FMA: bool>(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = madd::<FMA>(a, *x, *y);
    }
}

/// out = (1 - lambda) x + lambda s h0; all (T, D). s is 1, or per row as [`H0Scale::Rms`] says.
pub fn forward(lambda: f32, scale: H0Scale, x: &Rows, h0: &Rows, out: &mut Rows) {
    let isa = isa();
    each_row(scale, x, h0, out, |_, s, x, h0, out| blend(isa, 1.0 - lambda, x, lambda * s, h0, out));
}

/// The same, then dropout, in one pass over memory.
pub fn forward_dropped(lambda: f32, scale: H0Scale, x: &Rows, h0: &Rows, mask: &Mask, out: &mut Rows) {
    mask.check(x.rows());
    let isa = isa();
    each_row(scale, x, h0, out, |t, s, x, h0, out| {
        blend_dropped(isa, mask.of_row(t, 0), 1.0 - lambda, x, lambda * s, h0, out);
    });
}

/// `write(t, s, x, h0, out)` for each row.
fn each_row(
    scale: H0Scale,
    x: &Rows,
    h0: &Rows,
    out: &mut Rows,
    write: impl Fn(usize, f32, &[f32], &[f32], &mut [f32]) + Sync,
) {
    same_shape("x", x, "h0", h0);
    same_shape("x", x, "out", out);
    let (isa, width) = (isa(), x.width());
    for_row_blocks(out, |first, rows| {
        for (i, out) in rows.chunks_exact_mut(width).enumerate() {
            let (x, h0) = (x.row(first + i), h0.row(first + i));
            let s = match scale {
                H0Scale::Raw => 1.0,
                H0Scale::Rms => row_scale(isa, x, h0),
            };
            write(first + i, s, x, h0, out);
        }
    });
}

/// The gradient of [`forward`], accumulated where it is wanted: dx += (1 - lambda) dout and, where h0
/// has a gradient, dh0 += lambda s dout; all (T, D). s is held fixed.
pub fn backward(
    lambda: f32,
    scale: H0Scale,
    x: &Rows,
    h0: &Rows,
    dout: &Rows,
    dx: Option<&mut Rows>,
    dh0: Option<&mut Rows>,
) {
    same_shape("x", x, "h0", h0);
    same_shape("x", x, "dout", dout);
    if let Some(dx) = dx {
        same_shape("x", x, "dx", dx);
        crate::elementwise::axpy(1.0 - lambda, dout, dx);
    }
    let Some(dh0) = dh0 else { return };
    same_shape("x", x, "dh0", dh0);
    let (isa, width) = (isa(), x.width());
    for_row_blocks(dh0, |first, rows| {
        for (i, dh0) in rows.chunks_exact_mut(width).enumerate() {
            let t = first + i;
            let s = match scale {
                H0Scale::Raw => 1.0,
                H0Scale::Rms => row_scale(isa, x.row(t), h0.row(t)),
            };
            accumulate(isa, lambda * s, dout.row(t), dh0);
        }
    });
}

/// The gradient of [`forward_dropped`] into x alone, in one pass over memory: dx += (1 - lambda) times what dropout makes
/// of dout; both (T, D).
pub fn backward_dropped(lambda: f32, mask: &Mask, dout: &Rows, dx: &mut Rows) {
    mask.add(1.0 - lambda, dout, dx);
}

/// lambda = sigmoid(theta): what a learned lambda is made of, so that no step leaves 0 < lambda < 1.
pub fn of_theta(theta: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(theta)).exp())) as f32
}

/// The theta of a lambda between 0 and 1.
pub fn to_theta(lambda: f32) -> f32 {
    let lambda = f64::from(lambda);
    (lambda / (1.0 - lambda)).ln() as f32
}

kernel!(fn pull(s: f32, x: &[f32], h: &[f32], d: &[f32]) -> f64 = pull_body);

/// Sum of (s h - x) d, in f64: its terms have either sign.
#[inline(always)]
fn pull_body<const FMA: bool>(s: f32, x: &[f32], h: &[f32], d: &[f32]) -> f64 {
    let mut acc = [0.0f64; LANES];
    let chunks = x.chunks(LANES).zip(h.chunks(LANES)).zip(d.chunks(LANES));
    for ((x, h), d) in chunks {
        for (((x, h), d), acc) in x.iter().zip(h).zip(d).zip(&mut acc) {
            *acc += f64::from(madd::<FMA>(s, *h, -*x)) * f64::from(*d);
        }
    }
    acc.iter().sum()
}

/// d loss / d theta of [`forward`] with lambda = sigmoid(theta): lambda (1 - lambda) times the sum over
/// all rows of (s h0 - x) . dout. s is held fixed. Blocks of fixed size, then the blocks in order.
pub fn theta_gradient(lambda: f32, scale: H0Scale, x: &Rows, h0: &Rows, dout: &Rows) -> f64 {
    same_shape("x", x, "h0", h0);
    same_shape("x", x, "dout", dout);
    let (isa, block) = (isa(), rows_per_task(x.width()));
    let row = |t: usize| {
        let s = match scale {
            H0Scale::Raw => 1.0,
            H0Scale::Rms => row_scale(isa, x.row(t), h0.row(t)),
        };
        pull(isa, s, x.row(t), h0.row(t), dout.row(t))
    };
    let sum = |i: usize| (i * block..((i + 1) * block).min(x.rows())).map(row).sum::<f64>();
    let blocks: Vec<f64> = (0..x.rows().div_ceil(block)).into_par_iter().map(sum).collect();
    let lambda = f64::from(lambda);
    lambda * (1.0 - lambda) * blocks.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    fn scale_of<F: Float>(scale: H0Scale, x: &[F], h: &[F]) -> F {
        let squares = |v: &[F]| v.iter().fold(F::zero(), |a, v| a + *v * *v);
        match scale {
            H0Scale::Raw => F::of(1.0),
            H0Scale::Rms if squares(h) == F::zero() => F::zero(),
            H0Scale::Rms => (squares(x) / squares(h)).sqrt(),
        }
    }

    fn naive<F: Float>(lambda: F, scales: &[F], x: &[F], h0: &[F], d: usize) -> Vec<F> {
        (0..x.len()).map(|i| (F::of(1.0) - lambda) * x[i] + lambda * scales[i / d] * h0[i]).collect()
    }

    fn scales<F: Float>(scale: H0Scale, x: &[F], h0: &[F], d: usize) -> Vec<F> {
        let rows = x.chunks(d).zip(h0.chunks(d));
        rows.map(|(x, h)| scale_of(scale, x, h)).collect()
    }

    #[test]
    fn the_gradient_is_the_derivative_with_the_scale_held() {
        let (d, lambda) = (5, 0.35);
        let [x, h0, dout] = [1, 2, 3].map(|s| wide(&noise(3 * d, s)));
        for scale in [H0Scale::Raw, H0Scale::Rms] {
            let held = scales(scale, &x, &h0, d);
            let dx: Vec<f64> = dout.iter().map(|g| (1.0 - lambda) * g).collect();
            let dh0: Vec<f64> = (0..3 * d).map(|i| lambda * held[i / d] * dout[i]).collect();
            assert_gradient("dx", &x, &dx, |x| inner(&naive(lambda, &held, x, &h0, d), &dout));
            assert_gradient("dh0", &h0, &dh0, |h| inner(&naive(lambda, &held, &x, h, d), &dout));
            let theta = [(lambda / (1.0 - lambda)).ln()];
            let dtheta = [naive_theta(lambda, &held, &x, &h0, &dout, d)];
            let at = |theta: f64| 1.0 / (1.0 + (-theta).exp());
            assert_gradient("dtheta", &theta, &dtheta, |t| inner(&naive(at(t[0]), &held, &x, &h0, d), &dout));
        }
    }

    fn naive_theta<F: Float>(lambda: F, scales: &[F], x: &[F], h0: &[F], dout: &[F], d: usize) -> F {
        let term = |i: usize| (scales[i / d] * h0[i] - x[i]) * dout[i];
        (0..x.len()).fold(F::zero(), |sum, i| sum + term(i)) * lambda * (F::of(1.0) - lambda)
    }

    #[test]
    fn theta_is_lambda_in_other_words() {
        for lambda in [0.001f32, 0.2, 0.5, 0.7, 0.999] {
            assert!((of_theta(to_theta(lambda)) - lambda).abs() < 1e-6, "{lambda}");
        }
        assert_close(
            "theta",
            &[to_theta(0.2), of_theta(-0.5)],
            &[0.25f64.ln(), 1.0 / (1.0 + 0.5f64.exp())],
            1e-6,
        );
    }

    #[test]
    fn fast_theta_equals_naive() {
        // The last is cut into several tasks.
        for (t, d) in [(1, 1), (5, 33), (90, 257)] {
            let (x, mut h0, dout) = (noise_rows(t, d, 4), noise_rows(t, d, 5), noise_rows(t, d, 6));
            if t > 1 {
                h0.row_mut(1).fill(0.0);
            }
            for scale in [H0Scale::Raw, H0Scale::Rms] {
                let [wx, wh, wd] = [&x, &h0, &dout].map(|r| wide(r.data()));
                let expected = naive_theta(f64::from(0.35f32), &scales(scale, &wx, &wh, d), &wx, &wh, &wd, d);
                everywhere(
                    || vec![theta_gradient(0.35, scale, &x, &h0, &dout) as f32],
                    |isa, fast| {
                        // Terms cancel: the error is a share of their sizes, about one each.
                        let off = (f64::from(fast[0]) - expected).abs();
                        assert!(off < 1e-6 * (t * d) as f64, "{isa} {scale:?} {t}x{d}: {fast:?}, {expected}");
                    },
                );
            }
        }
    }

    #[test]
    fn fast_equals_naive() {
        let lambda = 0.35f32;
        for (t, d) in [(1, 1), (5, 33), (90, 257)] {
            let (x, mut h0, dout) = (noise_rows(t, d, 4), noise_rows(t, d, 5), noise_rows(t, d, 6));
            if t > 1 {
                h0.row_mut(1).fill(0.0);
            }
            let (dx0, dh00) = (noise_rows(t, d, 7), noise_rows(t, d, 8));
            for scale in [H0Scale::Raw, H0Scale::Rms] {
                let (wx, wh) = (wide(x.data()), wide(h0.data()));
                let held = scales(scale, &wx, &wh, d);
                let l = f64::from(lambda);
                let out = naive(l, &held, &wx, &wh, d);
                let add = |start: &Rows, f: &dyn Fn(usize) -> f64| -> Vec<f64> {
                    let g = |i: usize| f(i / d) * f64::from(dout.data()[i]);
                    (0..t * d).map(|i| f64::from(start.data()[i]) + g(i)).collect()
                };
                let dx = add(&dx0, &|_| 1.0 - l);
                let dh0 = add(&dh00, &|row| l * held[row]);
                let run = || {
                    let (mut y, mut dx, mut dh) = (Rows::scratch(t, d), dx0.copy(), dh00.copy());
                    forward(lambda, scale, &x, &h0, &mut y);
                    backward(lambda, scale, &x, &h0, &dout, Some(&mut dx), Some(&mut dh));
                    [y.data(), dx.data(), dh.data()].concat()
                };
                everywhere(run, |isa, fast| {
                    for (i, (name, e)) in [("out", &out), ("dx", &dx), ("dh0", &dh0)].iter().enumerate() {
                        let fast = &fast[i * t * d..(i + 1) * t * d];
                        assert_close(&format!("{isa} {scale:?} {t}x{d} {name}"), fast, e, 1e-6);
                    }
                });
            }
        }
    }

    #[test]
    fn dropped_at_once_is_dropped_afterwards() {
        // Cut into several tasks.
        let (t, d) = (90, 257);
        let (x, h0) = (noise_rows(t, d, 4), noise_rows(t, d, 5));
        let mask = Mask { p: 0.3, keys: (0..t as u64).map(|t| t * 977 + 5).collect() };
        let run = || {
            let mut out = Rows::scratch(t, d);
            forward_dropped(0.35, H0Scale::Rms, &x, &h0, &mask, &mut out);
            let mut after = Rows::scratch(t, d);
            forward(0.35, H0Scale::Rms, &x, &h0, &mut after);
            mask.apply(&mut after);
            assert!(out.data() == after.data() && out.data().contains(&0.0));
            let mut masked = x.copy();
            mask.apply(&mut masked);
            let (mut dx, mut after) = (h0.copy(), h0.copy());
            backward_dropped(0.35, &mask, &x, &mut dx);
            backward(0.35, H0Scale::Raw, &x, &h0, &masked, Some(&mut after), None);
            assert!(dx.data() == after.data());
            out.data().to_vec()
        };
        everywhere(run, |_, _| {});
    }

    #[test]
    fn rms_brings_h0_to_the_size_of_x() {
        let (x, h0) = (Rows::from_vec(vec![3.0, -4.0], 2), Rows::from_vec(vec![0.06, 0.08], 2));
        let mut out = Rows::scratch(1, 2);
        forward(0.25, H0Scale::Rms, &x, &h0, &mut out);
        assert_close("out", out.data(), &[0.75 * 3.0 + 0.25 * 3.0, 0.75 * -4.0 + 0.25 * 4.0], 1e-6);
    }
}
