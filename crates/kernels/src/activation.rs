//! Activation functions, alone and gated (SwiGLU and its kin).

use crate::Rows;
use crate::isa::{isa, kernel};
use crate::math::{erf, exp, madd, sigmoid, tanh};
use crate::split::{for_blocks, same_shape};

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
    madd::<FMA>(x * DENSITY, exp::<FMA>(-0.5 * x * x), area)
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

/// The gradient of [`forward`]: `dy_dx` (T, D) holds dy on entry and dx = dy f'(x) on return; x is the input.
pub fn backward(kind: Activation, x: &Rows, dy_dx: &mut Rows) {
    same_shape("x", x, "dy_dx", dy_dx);
    let isa = isa();
    for_blocks(dy_dx.data_mut(), |at, d| {
        backward_block(isa, kind, &x.data()[at..at + d.len()], d);
    });
}

/// The gated form, h = f(gate) up.
pub mod gated;
