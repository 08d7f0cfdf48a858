//! SIBO's input, x~ = (1 - lambda) x + lambda s h0: the one place where lambda is applied (arXiv 2402.11896).

use crate::Rows;
use crate::isa::{isa, kernel};
use crate::math::{dot, madd};
use crate::split::{for_row_blocks, same_shape};

/// How h0 is scaled before it is mixed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum H0Scale {
    /// As it is (the paper).
    Raw,
    /// Each row brought to the root mean square of its row of x. The scale takes part in no gradient.
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

kernel!(fn accumulate(a: f32, x: &[f32], y: &mut [f32]) = accumulate_body);

#[inline(always)]
fn accumulate_body<const FMA: bool>(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = madd::<FMA>(a, *x, *y);
    }
}

/// out = (1 - lambda) x + lambda s h0; all (T, D). s is 1, or per row as [`H0Scale::Rms`] says.
pub fn forward(lambda: f32, scale: H0Scale, x: &Rows, h0: &Rows, out: &mut Rows) {
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
            blend(isa, 1.0 - lambda, x, lambda * s, h0, out);
        }
    });
}

/// The gradient of [`forward`], accumulated: dx += (1 - lambda) dout and, where h0 has a gradient,
/// dh0 += lambda s dout; all (T, D). s is held fixed.
pub fn backward(
    lambda: f32,
    scale: H0Scale,
    x: &Rows,
    h0: &Rows,
    dout: &Rows,
    dx: &mut Rows,
    dh0: Option<&mut Rows>,
) {
    same_shape("x", x, "h0", h0);
    same_shape("x", x, "dout", dout);
    same_shape("x", x, "dx", dx);
    crate::elementwise::axpy(1.0 - lambda, dout, dx);
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
