//! Optimiser steps on one tensor, as PyTorch computes them.

use crate::isa::{isa, kernel};
use crate::math::madd;
use crate::split::{GRAIN, length};
use rayon::prelude::*;

kernel!(fn block_squares(g: &[f32]) -> f64 = block_squares_body);

#[inline(always)]
fn block_squares_body<const FMA: bool>(g: &[f32]) -> f64 {
    const LANES: usize = crate::math::LANES;
    let mut acc = [0.0f64; LANES];
    let chunks = g.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (g, a) in chunk.iter().zip(&mut acc) {
            let g = f64::from(*g);
            *a += g * g;
        }
    }
    for (g, a) in rest.iter().zip(&mut acc) {
        let g = f64::from(*g);
        *a += g * g;
    }
    acc.iter().sum()
}

/// The sum of squares in f64: blocks of fixed size, then the blocks in order.
pub fn sum_squares(g: &[f32]) -> f64 {
    let isa = isa();
    if g.len() <= GRAIN {
        return block_squares(isa, g);
    }
    let blocks: Vec<f64> = g.par_chunks(GRAIN).map(|g| block_squares(isa, g)).collect();
    blocks.iter().sum()
}

#[derive(Clone, Copy)]
struct AdamConstants {
    decay: f32,
    /// 1 - beta1, subtracted in f64 as PyTorch does: in f32 the second one would be off by 1e-5 of itself.
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    step_size: f32,
    /// 1 / sqrt(1 - beta2^step)
    v_scale: f32,
    eps: f32,
}

kernel!(fn adam_block(c: AdamConstants, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) = adam_body);

#[inline(always)]
fn adam_body<const FMA: bool>(c: AdamConstants, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let state = m.iter_mut().zip(v);
    for ((p, g), (m, v)) in p.iter_mut().zip(g).zip(state) {
        *m = madd::<FMA>(c.one_minus_beta1, *g - *m, *m);
        *v = madd::<FMA>(c.beta2, *v, c.one_minus_beta2 * g * g);
        let denominator = madd::<FMA>(v.sqrt(), c.v_scale, c.eps);
        *p = madd::<FMA>(-c.step_size, *m / denominator, *p * c.decay);
    }
}

/// One step of AdamW as `torch.optim.AdamW` takes it; all slices of one length; `step` counts from
/// 1.
///
/// p = p (1 - lr decay) - lr / (1 - beta1^step) m / (sqrt(v / (1 - beta2^step)) + eps)
pub fn adamw(
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    step: u64,
) {
    length("g", g.len(), p.len());
    length("m", m.len(), p.len());
    length("v", v.len(), p.len());
    assert!(step >= 1, "steps count from 1");
    let steps = step as f64;
    let constants = AdamConstants {
        decay: (1.0 - lr * weight_decay) as f32,
        one_minus_beta1: (1.0 - beta1) as f32,
        beta2: beta2 as f32,
        one_minus_beta2: (1.0 - beta2) as f32,
        step_size: (lr / (1.0 - beta1.powf(steps))) as f32,
        v_scale: (1.0 / (1.0 - beta2.powf(steps)).sqrt()) as f32,
        eps: eps as f32,
    };
    let isa = isa();
    p.par_chunks_mut(GRAIN)
        .zip(g.par_chunks(GRAIN))
        .zip(m.par_chunks_mut(GRAIN).zip(v.par_chunks_mut(GRAIN)))
        .for_each(|((p, g), (m, v))| adam_block(isa, constants, p, g, m, v));
}

kernel!(fn sgd_block(lr: f32, weight_decay: f32, p: &mut [f32], g: &[f32]) = sgd_body);

#[inline(always)]
fn sgd_body<const FMA: bool>(lr: f32, weight_decay: f32, p: &mut [f32], g: &[f32]) {
    for (p, g) in p.iter_mut().zip(g) {
        *p = madd::<FMA>(-lr, madd::<FMA>(weight_decay, *p, *g), *p);
    }
}

kernel!(
    fn momentum_block(
        lr: f32, momentum: f32, weight_decay: f32, p: &mut [f32], g: &[f32], buffer: &mut [f32],
    ) = momentum_body
);

#[inline(always)]
fn momentum_body<const FMA: bool>(
    lr: f32,
    momentum: f32,
    weight_decay: f32,
    p: &mut [f32],
    g: &[f32],
    buffer: &mut [f32],
) {
    for ((p, g), b) in p.iter_mut().zip(g).zip(buffer) {
        *b = madd::<FMA>(momentum, *b, madd::<FMA>(weight_decay, *p, *g));
        *p = madd::<FMA>(-lr, *b, *p);
    }
}

/// One step of `torch.optim.SGD` (no dampening, no Nesterov); all slices of one length. A momentum
/// buffer starts as zeros, which gives PyTorch's first step (the buffer becomes the gradient).
pub fn sgd(p: &mut [f32], g: &[f32], buffer: Option<&mut [f32]>, lr: f64, momentum: f64, weight_decay: f64) {
    length("g", g.len(), p.len());
    let (isa, lr, momentum, weight_decay) = (isa(), lr as f32, momentum as f32, weight_decay as f32);
    let blocks = p.par_chunks_mut(GRAIN).zip(g.par_chunks(GRAIN));
    match buffer {
        None => blocks.for_each(|(p, g)| sgd_block(isa, lr, weight_decay, p, g)),
        Some(buffer) => {
            length("buffer", buffer.len(), g.len());
            blocks
                .zip(buffer.par_chunks_mut(GRAIN))
                .for_each(|((p, g), b)| momentum_block(isa, lr, momentum, weight_decay, p, g, b));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    const N: [usize; 3] = [1, 37, GRAIN + 19];

    #[test]
    fn sum_of_squares() {
        for n in N {
            let g = noise(n, 1);
            let expected: f64 = g.iter().map(|g| f64::from(*g).powi(2)).sum();
            // Two halves carry the f64 past f32: the sum and what f32 drops of it.
            let run = || {
                let s = sum_squares(&g);
                vec![s as f32, (s - f64::from(s as f32)) as f32]
            };
            everywhere(run, |isa, s| {
                let found = f64::from(s[0]) + f64::from(s[1]);
                assert!((found / expected - 1.0).abs() < 1e-12, "{isa} {n}: {found} {expected}");
            });
        }
    }

    /// torch.optim.AdamW, in f64, for three steps.
    #[test]
    fn adamw_equals_its_formula() {
        let (lr, b1, b2, eps, decay) = (0.03, 0.87, 0.93, 1e-4, 0.2);
        for n in N {
            let p0 = noise(n, 1);
            let gradients = [2, 3, 4].map(|s| noise(n, s));
            let (mut p, mut m, mut v) = (wide(&p0), vec![0.0; n], vec![0.0; n]);
            for (i, g) in gradients.iter().enumerate() {
                let step = (i + 1) as f64;
                for j in 0..n {
                    let g = f64::from(g[j]);
                    p[j] *= 1.0 - lr * decay;
                    m[j] = b1 * m[j] + (1.0 - b1) * g;
                    v[j] = b2 * v[j] + (1.0 - b2) * g * g;
                    let m_hat = m[j] / (1.0 - b1.powf(step));
                    let v_hat = v[j] / (1.0 - b2.powf(step));
                    p[j] -= lr * m_hat / (v_hat.sqrt() + eps);
                }
            }
            let run = || {
                let (mut p, mut m, mut v) = (p0.clone(), vec![0.0; n], vec![0.0; n]);
                for (i, g) in gradients.iter().enumerate() {
                    adamw(&mut p, g, &mut m, &mut v, lr, b1, b2, eps, decay, i as u64 + 1);
                }
                [p, m, v].concat()
            };
            let expected = [p, m, v].concat();
            everywhere(run, |isa, out| assert_close(&format!("{isa} {n}"), out, &expected, 2e-6));
        }
    }

    /// At PyTorch's betas a subtraction in f32 would leave 1 - beta2 off by 1.3e-5 of itself.
    #[test]
    fn adamw_moments_keep_their_weight_near_one() {
        let g = noise(9, 5);
        let (mut p, mut m, mut v) = (noise(9, 6), vec![0.0; 9], vec![0.0; 9]);
        adamw(&mut p, &g, &mut m, &mut v, 0.01, 0.9, 0.999, 1e-8, 0.1, 1);
        for (j, g) in g.iter().map(|g| f64::from(*g)).enumerate() {
            let (m, v) = (f64::from(m[j]), f64::from(v[j]));
            assert!((m / (0.1 * g) - 1.0).abs() < 5e-7, "first moment: {m} for {g}");
            assert!((v / (0.001 * g * g) - 1.0).abs() < 5e-7, "second moment: {v} for {g}");
        }
    }

    #[test]
    fn sgd_equals_its_formula() {
        let (lr, momentum, decay) = (0.1, 0.8, 0.3);
        for n in N {
            let p0 = noise(n, 1);
            let gradients = [2, 3].map(|s| noise(n, s));
            let (mut plain, mut heavy, mut buffer) = (wide(&p0), wide(&p0), vec![0.0; n]);
            for (i, g) in gradients.iter().enumerate() {
                for j in 0..n {
                    let g = f64::from(g[j]);
                    plain[j] -= lr * (g + decay * plain[j]);
                    let d = g + decay * heavy[j];
                    buffer[j] = if i == 0 { d } else { momentum * buffer[j] + d };
                    heavy[j] -= lr * buffer[j];
                }
            }
            let run = || {
                let (mut plain, mut heavy, mut buffer) = (p0.clone(), p0.clone(), vec![0.0; n]);
                for g in &gradients {
                    sgd(&mut plain, g, None, lr, 0.0, decay);
                    sgd(&mut heavy, g, Some(&mut buffer), lr, momentum, decay);
                }
                [plain, heavy, buffer].concat()
            };
            let expected = [&plain[..], &heavy, &buffer].concat();
            everywhere(run, |isa, out| assert_close(&format!("{isa} {n}"), out, &expected, 1e-6));
        }
    }
}
