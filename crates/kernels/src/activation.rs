//! Activation functions, alone and gated (SwiGLU and its kin).

use crate::Rows;
use crate::isa::{isa, kernel};
use crate::math::{erf, exp_below, madd, sigmoid, tanh};
use crate::split::{for_block_pairs, for_blocks, same_shape};

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x (1 + erf(x / sqrt 2)) / 2: `gelu` of BERT and RoBERTa.
    GeluErf,
    /// x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2: `gelu_new` of GPT-J.
    GeluTanh,
    /// x / (1 + e^-x): `silu` of LLaMA.
    Silu,
    /// max(x, 0); its slope at 0 is 0, as in PyTorch.
    Relu,
    /// tanh x.
    Tanh,
}

const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// 1 / sqrt(2 pi), the height of the normal density.
const DENSITY: f32 = 0.398_942_3;
/// sqrt(2 / pi), and the weight of the cube, of the tanh form.
const TANH_SCALE: f32 = 0.797_884_6;
const TANH_CUBE: f32 = 0.044_715;

#[inline(always)]
fn gelu_erf<const FMA: bool>(x: f32) -> f32 {
    0.5 * x * (1.0 + erf::<FMA>(x * SQRT_HALF))
}

#[inline(always)]
fn gelu_erf_slope<const FMA: bool>(x: f32) -> f32 {
    let area = 0.5 * (1.0 + erf::<FMA>(x * SQRT_HALF));
    madd::<FMA>(x * DENSITY, exp_below::<FMA>(-0.5 * x * x), area)
}

#[inline(always)]
fn gelu_tanh<const FMA: bool>(x: f32) -> f32 {
    let inner = TANH_SCALE * x * madd::<FMA>(TANH_CUBE * x, x, 1.0);
    0.5 * x * (1.0 + tanh::<FMA>(inner))
}

#[inline(always)]
fn gelu_tanh_slope<const FMA: bool>(x: f32) -> f32 {
    let inner = TANH_SCALE * x * madd::<FMA>(TANH_CUBE * x, x, 1.0);
    let t = tanh::<FMA>(inner);
    let inner_slope = TANH_SCALE * madd::<FMA>(3.0 * TANH_CUBE * x, x, 1.0);
    madd::<FMA>(0.5 * x * (1.0 - t * t), inner_slope, 0.5 * (1.0 + t))
}

#[inline(always)]
fn silu<const FMA: bool>(x: f32) -> f32 {
    x * sigmoid::<FMA>(x)
}

#[inline(always)]
fn silu_slope<const FMA: bool>(x: f32) -> f32 {
    let s = sigmoid::<FMA>(x);
    s * madd::<FMA>(x, 1.0 - s, 1.0)
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    // A comparison that is false for NaN keeps it.
    if x < 0.0 { 0.0 } else { x }
}

#[inline(always)]
fn relu_slope(x: f32) -> f32 {
    if x > 0.0 { 1.0 } else { 0.0 }
}

#[inline(always)]
fn tanh_slope<const FMA: bool>(x: f32) -> f32 {
    let t = tanh::<FMA>(x);
    1.0 - t * t
}

kernel!(fn forward_block(kind: Activation, x: &[f32], y: &mut [f32]) = forward_body);

#[inline(always)]
fn forward_body<const FMA: bool>(kind: Activation, x: &[f32], y: &mut [f32]) {
    #[inline(always)]
    fn run(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = f(*x);
        }
    }
    match kind {
        Activation::GeluErf => run(x, y, gelu_erf::<FMA>),
        Activation::GeluTanh => run(x, y, gelu_tanh::<FMA>),
        Activation::Silu => run(x, y, silu::<FMA>),
        Activation::Relu => run(x, y, relu),
        Activation::Tanh => run(x, y, tanh::<FMA>),
    }
}

/// y = f(x); both (T, D).
pub fn forward(kind: Activation, x: &Rows, y: &mut Rows) {
    same_shape("x", x, "y", y);
    let isa = isa();
    for_blocks(y.data_mut(), |at, y| {
        forward_block(isa, kind, &x.data()[at..at + y.len()], y);
    });
}

kernel!(fn both_block(kind: Activation, x: &mut [f32], y: &mut [f32]) = both_body);

#[inline(always)]
fn both_body<const FMA: bool>(kind: Activation, x: &mut [f32], y: &mut [f32]) {
    #[inline(always)]
    fn run(x: &mut [f32], y: &mut [f32], both: impl Fn(f32) -> (f32, f32)) {
        for (y, x) in y.iter_mut().zip(x) {
            (*y, *x) = both(*x);
        }
    }
    match kind {
        Activation::GeluErf => run(x, y, |x| (gelu_erf::<FMA>(x), gelu_erf_slope::<FMA>(x))),
        Activation::GeluTanh => run(x, y, |x| (gelu_tanh::<FMA>(x), gelu_tanh_slope::<FMA>(x))),
        Activation::Silu => run(x, y, |x| (silu::<FMA>(x), silu_slope::<FMA>(x))),
        Activation::Relu => run(x, y, |x| (relu(x), relu_slope(x))),
        Activation::Tanh => run(x, y, |x| (tanh::<FMA>(x), tanh_slope::<FMA>(x))),
    }
}

/// y = f(x) and, in the place of x, f'(x); both (T, D). What the two have in common is computed once.
pub fn forward_with_slope(kind: Activation, x_slope: &mut Rows, y: &mut Rows) {
    same_shape("x", x_slope, "y", y);
    let isa = isa();
    for_block_pairs(x_slope.data_mut(), y.data_mut(), |_, x, y| both_block(isa, kind, x, y));
}

kernel!(fn backward_block(kind: Activation, x: &[f32], d: &mut [f32]) = backward_body);

#[inline(always)]
fn backward_body<const FMA: bool>(kind: Activation, x: &[f32], d: &mut [f32]) {
    #[inline(always)]
    fn run(x: &[f32], d: &mut [f32], slope: impl Fn(f32) -> f32) {
        for (d, x) in d.iter_mut().zip(x) {
            *d *= slope(*x);
        }
    }
    match kind {
        Activation::GeluErf => run(x, d, gelu_erf_slope::<FMA>),
        Activation::GeluTanh => run(x, d, gelu_tanh_slope::<FMA>),
        Activation::Silu => run(x, d, silu_slope::<FMA>),
        Activation::Relu => run(x, d, relu_slope),
        Activation::Tanh => run(x, d, tanh_slope::<FMA>),
    }
}

/// The gradient of [`forward`]: `dy_dx` (T, D) holds dy on entry and dx = dy f'(x) on return; x is
/// the input.
pub fn backward(kind: Activation, x: &Rows, dy_dx: &mut Rows) {
    same_shape("x", x, "dy_dx", dy_dx);
    let isa = isa();
    for_blocks(dy_dx.data_mut(), |at, d| {
        backward_block(isa, kind, &x.data()[at..at + d.len()], d);
    });
}

/// The gated form, h = f(gate) up.
pub mod gated;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    pub(super) const ALL: [Activation; 5] =
        [Activation::GeluErf, Activation::GeluTanh, Activation::Silu, Activation::Relu, Activation::Tanh];

    pub(super) fn naive<F: Float>(kind: Activation, x: F) -> F {
        let (one, half) = (F::of(1.0), F::of(0.5));
        match kind {
            Activation::GeluErf => half * x * (one + (x / F::of(2.0).sqrt()).erf()),
            Activation::GeluTanh => {
                let c = F::of(2.0 / std::f64::consts::PI).sqrt();
                half * x * (one + (c * (x + F::of(0.044715) * x * x * x)).tanh())
            }
            Activation::Silu => x / (one + (-x).exp()),
            Activation::Relu => {
                if x > F::zero() {
                    x
                } else {
                    F::zero()
                }
            }
            Activation::Tanh => x.tanh(),
        }
    }

    pub(super) fn naive_slope<F: Float>(kind: Activation, x: F) -> F {
        let (one, half) = (F::of(1.0), F::of(0.5));
        match kind {
            Activation::GeluErf => {
                let density = (-(x * x) * half).exp() / F::of(2.0 * std::f64::consts::PI).sqrt();
                half * (one + (x / F::of(2.0).sqrt()).erf()) + x * density
            }
            Activation::GeluTanh => {
                let c = F::of(2.0 / std::f64::consts::PI).sqrt();
                let t = (c * (x + F::of(0.044715) * x * x * x)).tanh();
                half * (one + t) + half * x * (one - t * t) * c * (one + F::of(3.0 * 0.044715) * x * x)
            }
            Activation::Silu => {
                let s = one / (one + (-x).exp());
                s + x * s * (one - s)
            }
            Activation::Relu => F::of(if x > F::zero() { 1.0 } else { 0.0 }),
            Activation::Tanh => one - x.tanh() * x.tanh(),
        }
    }

    /// From -8 to 8, dense near 0 but never so near that a difference quotient would cross ReLU's
    /// corner.
    pub(super) fn inputs(n: usize, seed: u64) -> Vec<f32> {
        let cube = |v: f32| 8.0 * v * v * v + 0.01 * v.signum();
        noise(n, seed).into_iter().map(cube).collect()
    }

    #[test]
    fn the_naive_slope_is_the_derivative() {
        let x = wide(&inputs(41, 1));
        for kind in ALL {
            for x in &x {
                assert_gradient(&format!("{kind:?}"), &[*x], &[naive_slope(kind, *x)], |x| naive(kind, x[0]));
            }
        }
    }

    #[test]
    fn fast_equals_naive() {
        for (t, d) in [(1, 5), (3, 37), (130, 301)] {
            for kind in ALL {
                let (x, dy) = (Rows::from_vec(inputs(t * d, 2), d), noise_rows(t, d, 3));
                let y: Vec<f64> = wide(x.data()).iter().map(|x| naive(kind, *x)).collect();
                let dx: Vec<f64> = wide(x.data())
                    .iter()
                    .zip(dy.data())
                    .map(|(x, dy)| f64::from(*dy) * naive_slope(kind, *x))
                    .collect();
                let run = || {
                    let (mut y, mut grad) = (Rows::scratch(t, d), dy.copy());
                    forward(kind, &x, &mut y);
                    backward(kind, &x, &mut grad);
                    let (mut slope, mut same, mut one) =
                        (x.copy(), Rows::scratch(t, d), Rows::from_vec(vec![1.0; t * d], d));
                    forward_with_slope(kind, &mut slope, &mut same);
                    backward(kind, &x, &mut one);
                    assert_eq!((same.data(), slope.data()), (y.data(), one.data()), "{kind:?}");
                    [y.data(), grad.data()].concat()
                };
                everywhere(run, |isa, out| {
                    let (fast_y, fast_dx) = out.split_at(t * d);
                    assert_close(&format!("{isa} {kind:?} {t}x{d} y"), fast_y, &y, 1e-6);
                    assert_close(&format!("{isa} {kind:?} {t}x{d} dx"), fast_dx, &dx, 1e-6);
                });
            }
        }
    }
}
