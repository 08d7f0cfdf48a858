//! h = f(gate) up, the inner part of a gated feed-forward block.

use super::{Activation, gelu_erf, gelu_erf_slope, gelu_tanh, gelu_tanh_slope, relu, relu_slope};
use super::{silu, silu_slope, tanh_slope};
use crate::Rows;
use crate::isa::{isa, kernel};
use crate::math::tanh;
use crate::split::{for_block_pairs, for_blocks, same_shape};

kernel!(fn forward_block(kind: Activation, gate: &[f32], up: &[f32], h: &mut [f32]) = forward_body);

#[inline(always)]
fn forward_body<const FMA: bool>(kind: Activation, gate: &[f32], up: &[f32], h: &mut [f32]) {
    #[inline(always)]
    fn run(gate: &[f32], up: &[f32], h: &mut [f32], f: impl Fn(f32) -> f32) {
        for ((h, gate), up) in h.iter_mut().zip(gate).zip(up) {
            *h = f(*gate) * up;
        }
    }
    match kind {
        Activation::GeluErf => run(gate, up, h, gelu_erf::<FMA>),
        Activation::GeluTanh => run(gate, up, h, gelu_tanh::<FMA>),
        Activation::Silu => run(gate, up, h, silu::<FMA>),
        Activation::Relu => run(gate, up, h, relu),
        Activation::Tanh => run(gate, up, h, tanh::<FMA>),
    }
}

/// h = f(gate) up; all (T, F).
pub fn forward(kind: Activation, gate: &Rows, up: &Rows, h: &mut Rows) {
    same_shape("gate", gate, "up", up);
    same_shape("gate", gate, "h", h);
    let isa = isa();
    for_blocks(h.data_mut(), |at, h| {
        let part = at..at + h.len();
        forward_block(isa, kind, &gate.data()[part.clone()], &up.data()[part], h);
    });
}

kernel!(
    fn backward_block(
        kind: Activation, gate: &[f32], up: &[f32], dh: &[f32], dgate: &mut [f32], dup: &mut [f32],
    ) = backward_body
);

#[inline(always)]
fn backward_body<const FMA: bool>(
    kind: Activation,
    gate: &[f32],
    up: &[f32],
    dh: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    #[inline(always)]
    fn run(
        (gate, up, dh): (&[f32], &[f32], &[f32]),
        (dgate, dup): (&mut [f32], &mut [f32]),
        f: impl Fn(f32) -> f32,
        slope: impl Fn(f32) -> f32,
    ) {
        let inputs = gate.iter().zip(up).zip(dh);
        for ((dgate, dup), ((gate, up), dh)) in dgate.iter_mut().zip(dup).zip(inputs) {
            *dgate = dh * up * slope(*gate);
            *dup = dh * f(*gate);
        }
    }
    let (i, o) = ((gate, up, dh), (dgate, dup));
    match kind {
        Activation::GeluErf => run(i, o, gelu_erf::<FMA>, gelu_erf_slope::<FMA>),
        Activation::GeluTanh => run(i, o, gelu_tanh::<FMA>, gelu_tanh_slope::<FMA>),
        Activation::Silu => run(i, o, silu::<FMA>, silu_slope::<FMA>),
        Activation::Relu => run(i, o, relu, relu_slope),
        Activation::Tanh => run(i, o, tanh::<FMA>, tanh_slope::<FMA>),
    }
}

/// The gradient of [`forward`]: dgate = dh up f'(gate) and dup = dh f(gate), both overwritten; all
/// (T, F).
pub fn backward(kind: Activation, gate: &Rows, up: &Rows, dh: &Rows, dgate: &mut Rows, dup: &mut Rows) {
    same_shape("gate", gate, "up", up);
    same_shape("gate", gate, "dh", dh);
    same_shape("gate", gate, "dgate", dgate);
    same_shape("gate", gate, "dup", dup);
    let isa = isa();
    for_block_pairs(dgate.data_mut(), dup.data_mut(), |at, dgate, dup| {
        let part = at..at + dgate.len();
        let (gate, up) = (&gate.data()[part.clone()], &up.data()[part.clone()]);
        backward_block(isa, kind, gate, up, &dh.data()[part], dgate, dup);
    });
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ALL, inputs, naive, naive_slope};
    use super::*;
    use crate::testing::*;

    #[test]
    fn fast_equals_naive() {
        for (t, d) in [(1, 3), (7, 45), (97, 257)] {
            for kind in ALL {
                let gate = Rows::from_vec(inputs(t * d, 1), d);
                let (up, dh) = (noise_rows(t, d, 2), noise_rows(t, d, 3));
                let each = |f: &dyn Fn(f64, f64, f64) -> f64| -> Vec<f64> {
                    let inputs = gate.data().iter().zip(up.data()).zip(dh.data());
                    inputs.map(|((g, u), d)| f(f64::from(*g), f64::from(*u), f64::from(*d))).collect()
                };
                let expected = [
                    each(&|g, u, _| naive(kind, g) * u),
                    each(&|g, u, d| d * u * naive_slope(kind, g)),
                    each(&|g, _, d| d * naive(kind, g)),
                ];
                let run = || {
                    let [mut h, mut dgate, mut dup] = [(); 3].map(|()| Rows::scratch(t, d));
                    forward(kind, &gate, &up, &mut h);
                    backward(kind, &gate, &up, &dh, &mut dgate, &mut dup);
                    [h.data(), dgate.data(), dup.data()].concat()
                };
                everywhere(run, |isa, out| {
                    for (i, name) in ["h", "dgate", "dup"].iter().enumerate() {
                        let fast = &out[i * t * d..(i + 1) * t * d];
                        assert_close(&format!("{isa} {kind:?} {t}x{d} {name}"), fast, &expected[i], 1e-6);
                    }
                });
            }
        }
    }

    #[test]
    fn the_naive_gradient_is_the_derivative() {
        for kind in ALL {
            let f = |v: &[f64]| naive(kind, v[0]) * v[1];
            let (gate, up) = (-0.83, 1.7);
            let gradient = [up * naive_slope(kind, gate), naive(kind, gate)];
            assert_gradient(&format!("{kind:?}"), &[gate, up], &gradient, f);
        }
    }
}
