//! Losses and what is read off logits.

use crate::Rows;
use crate::isa::{isa, kernel};
use crate::math::{exp, max};
use crate::split::length;
use rayon::prelude::*;

/// Runs `task(row index, row)` on all rows, in parallel, and returns its answers in the order of the rows.
fn per_row<T: Send>(rows: &mut Rows, task: impl Fn(usize, &mut [f32]) -> T + Sync) -> Vec<T> {
    let width = rows.width();
    assert!(width > 0, "logits have no columns");
    rows.data_mut().par_chunks_mut(width).enumerate().map(|(t, row)| task(t, row)).collect()
}

#[track_caller]
fn assert_targets(targets: &[u32], logits: &Rows) {
    length("targets", targets.len(), logits.rows());
    if let Some(t) = targets.iter().position(|t| *t as usize >= logits.width()) {
        panic!("target {} of row {t} is outside the {} classes", targets[t], logits.width());
    }
}

kernel!(
    /// row = e^(row - top); returns the sum.
    fn exponentials(top: f32, row: &mut [f32]) -> f32 = exponentials_body
);

#[inline(always)]
fn exponentials_body<const FMA: bool>(top: f32, row: &mut [f32]) -> f32 {
    const LANES: usize = crate::math::LANES;
    let mut acc = [0.0f32; LANES];
    let mut chunks = row.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for (x, a) in chunk.iter_mut().zip(&mut acc) {
            *x = exp::<FMA>(*x - top);
            *a += *x;
        }
    }
    for (x, a) in chunks.into_remainder().iter_mut().zip(&mut acc) {
        *x = exp::<FMA>(*x - top);
        *a += *x;
    }
    crate::math::sum(&acc)
}

kernel!(
    /// The sum of e^(row - top).
    fn exponential_sum(top: f32, row: &[f32]) -> f32 = exponential_sum_body
);

#[inline(always)]
fn exponential_sum_body<const FMA: bool>(top: f32, row: &[f32]) -> f32 {
    const LANES: usize = crate::math::LANES;
    let mut acc = [0.0f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (x, a) in chunk.iter().zip(&mut acc) {
            *a += exp::<FMA>(*x - top);
        }
    }
    for (x, a) in rest.iter().zip(&mut acc) {
        *a += exp::<FMA>(*x - top);
    }
    crate::math::sum(&acc)
}

kernel!(fn largest(row: &[f32]) -> f32 = largest_body);

#[inline(always)]
fn largest_body<const FMA: bool>(row: &[f32]) -> f32 {
    max(row)
}

kernel!(fn multiply(a: f32, row: &mut [f32]) = multiply_body);

#[inline(always)]
fn multiply_body<const FMA: bool>(a: f32, row: &mut [f32]) {
    for x in row {
        *x *= a;
    }
}

/// The sum over rows of -log softmax(logits)[target]; logits (T, V), targets (T).
/// With `want_grad`, logits become scale (softmax - onehot); without, their contents are spent and unspecified.
pub fn cross_entropy(logits: &mut Rows, targets: &[u32], scale: f32, want_grad: bool) -> f64 {
    assert_targets(targets, logits);
    let isa = isa();
    let losses = per_row(logits, |t, row| {
        let target = targets[t] as usize;
        let top = largest(isa, row);
        let chosen = row[target];
        if !want_grad {
            let sum = exponential_sum(isa, top, row);
            return f64::from(sum).ln() + f64::from(top) - f64::from(chosen);
        }
        let sum = exponentials(isa, top, row);
        multiply(isa, scale / sum, row);
        row[target] -= scale;
        f64::from(sum).ln() + f64::from(top) - f64::from(chosen)
    });
    losses.iter().sum()
}

/// log softmax(logits)[target] of every row; logits (T, V), targets (T).
pub fn log_probs(logits: &Rows, targets: &[u32]) -> Vec<f32> {
    assert_targets(targets, logits);
    let isa = isa();
    let row_log = |(t, target): (usize, &u32)| {
        let row = logits.row(t);
        let top = largest(isa, row);
        let sum = exponential_sum(isa, top, row);
        (f64::from(row[*target as usize]) - f64::from(top) - f64::from(sum).ln()) as f32
    };
    targets.par_iter().enumerate().map(row_log).collect()
}

/// logits = log softmax(logits), row by row, in place; (T, V).
pub fn log_softmax(logits: &mut Rows) {
    let isa = isa();
    per_row(logits, |_, row| {
        let top = largest(isa, row);
        let log = f64::from(exponential_sum(isa, top, row)).ln() as f32;
        for x in row {
            *x = (*x - top) - log;
        }
    });
}

/// The column of the largest logit of every row, the first of equals; (T, V) gives (T).
pub fn argmax(logits: &Rows) -> Vec<u32> {
    let isa = isa();
    let row_argmax = |t| {
        let row = logits.row(t);
        let top = largest(isa, row);
        row.iter().position(|x| *x == top).unwrap_or(0) as u32
    };
    (0..logits.rows()).into_par_iter().map(row_argmax).collect()
}

/// The sum of (pred - target)^2; dpred = 2 scale (pred - target), overwritten; all of one length.
pub fn squared_error(pred: &[f32], target: &[f32], scale: f32, dpred: &mut [f32]) -> f64 {
    length("target", target.len(), pred.len());
    length("dpred", dpred.len(), pred.len());
    let mut sum = 0.0;
    for ((d, p), t) in dpred.iter_mut().zip(pred).zip(target) {
        let difference = p - t;
        *d = 2.0 * scale * difference;
        sum += f64::from(difference) * f64::from(difference);
    }
    sum
}
