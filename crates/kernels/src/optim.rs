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
    beta1: f32,
    beta2: f32,
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
        *m = madd::<FMA>(1.0 - c.beta1, *g - *m, *m);
        *v = madd::<FMA>(c.beta2, *v, (1.0 - c.beta2) * g * g);
        let denominator = madd::<FMA>(v.sqrt(), c.v_scale, c.eps);
        *p = madd::<FMA>(-c.step_size, *m / denominator, *p * c.decay);
    }
}

/// One step of AdamW as `torch.optim.AdamW` takes it; all slices of one length; `step` counts from 1.
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
        beta1: beta1 as f32,
        beta2: beta2 as f32,
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

kernel!(fn momentum_block(lr: f32, momentum: f32, weight_decay: f32, p: &mut [f32], g: &[f32], buffer: &mut [f32]) = momentum_body);

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

/// One step of `torch.optim.SGD` (no dampening, no Nesterov); all slices of one length.
/// A momentum buffer starts as zeros, which gives PyTorch's first step (the buffer becomes the gradient).
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
