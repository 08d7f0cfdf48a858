//! Losses and what is read off logits.

use crate::Rows;
use crate::isa::{isa, kernel};
use crate::math::{exp, max};
use crate::split::length;
use rayon::prelude::*;

/// Runs `task(row index, row)` on all rows, in parallel, and returns its answers in the order of
/// the rows.
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

/// The sum over rows of `-log softmax(logits)[target]`; logits (T, V), targets (T). With `want_grad`,
/// logits become scale (softmax - onehot); without, their contents are spent and unspecified.
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

/// `log softmax(logits)[target]` of every row; logits (T, V), targets (T).
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    fn naive_log_softmax<F: Float>(row: &[F]) -> Vec<F> {
        let top = row.iter().fold(row[0], |a, v| if *v > a { *v } else { a });
        let sum = row.iter().fold(F::zero(), |a, v| a + (*v - top).exp());
        row.iter().map(|v| *v - top - sum.ln()).collect()
    }

    fn naive_loss<F: Float>(logits: &[F], targets: &[u32], v: usize) -> F {
        let rows = logits.chunks(v).zip(targets);
        rows.fold(F::zero(), |a, (row, t)| a - naive_log_softmax(row)[*t as usize])
    }

    fn naive_gradient<F: Float>(logits: &[F], targets: &[u32], v: usize, scale: F) -> Vec<F> {
        let rows = logits.chunks(v).zip(targets);
        rows.flat_map(|(row, t)| {
            let mut g: Vec<F> = naive_log_softmax(row).into_iter().map(Float::exp).collect();
            g[*t as usize] = g[*t as usize] - F::of(1.0);
            g.into_iter().map(|g| scale * g).collect::<Vec<_>>()
        })
        .collect()
    }

    fn targets(t: usize, v: usize) -> Vec<u32> {
        (0..t).map(|i| (i * 31 % v) as u32).collect()
    }

    #[test]
    fn the_naive_gradient_is_the_derivative() {
        let (t, v) = (3, 5);
        let x: Vec<f64> = wide(&noise(t * v, 1)).iter().map(|x| 4.0 * x).collect();
        let targets = targets(t, v);
        let g = naive_gradient(&x, &targets, v, 0.3);
        assert_gradient("dlogits", &x, &g, |x| 0.3 * naive_loss(x, &targets, v));
    }

    #[test]
    fn fast_equals_naive() {
        for (t, v) in [(1, 7), (5, 33), (37, 1009)] {
            let logits = Rows::from_vec(noise(t * v, 2).iter().map(|x| 6.0 * x + 50.0).collect(), v);
            let (targets, scale) = (targets(t, v), 0.3);
            let w = wide(logits.data());
            let loss = naive_loss(&w, &targets, v);
            let gradient = naive_gradient(&w, &targets, v, f64::from(scale));
            let logs: Vec<f64> = w.chunks(v).flat_map(naive_log_softmax).collect();
            let chosen: Vec<f64> = (0..t).map(|i| logs[i * v + targets[i] as usize]).collect();
            let run = || {
                let [mut a, mut b, mut c] = [(); 3].map(|()| logits.copy());
                let losses = [
                    cross_entropy(&mut a, &targets, scale, true) as f32,
                    cross_entropy(&mut b, &targets, scale, false) as f32,
                ];
                log_softmax(&mut c);
                [a.data(), c.data(), &log_probs(&logits, &targets), &losses].concat()
            };
            everywhere(run, |isa, out| {
                let (g, rest) = out.split_at(t * v);
                let (l, rest) = rest.split_at(t * v);
                let (c, losses) = rest.split_at(t);
                let name = |n| format!("{isa} {t}x{v} {n}");
                assert_close(&name("dlogits"), g, &gradient, 3e-6);
                assert_close(&name("log softmax"), l, &logs, 1e-6);
                assert_close(&name("log probs"), c, &chosen, 1e-6);
                assert_close(&name("losses"), losses, &[loss, loss], 1e-6);
            });
        }
    }

    #[test]
    fn argmax_takes_the_first_of_equals() {
        let mut x = noise_rows(3, 50, 3);
        for (t, at) in [(0, vec![17]), (1, vec![30, 49]), (2, vec![0, 48])] {
            at.iter().for_each(|c| x.row_mut(t)[*c] = 2.5);
        }
        for isa in crate::isa::Isa::available() {
            assert_eq!(crate::isa::with_isa(isa, || argmax(&x)), [17, 30, 0]);
        }
    }

    #[test]
    fn squared_error_and_its_gradient() {
        let (p, t) = (wide(&noise(7, 4)), noise(7, 5));
        let pred: Vec<f32> = p.iter().map(|p| *p as f32).collect();
        let mut d = vec![f32::NAN; 7];
        let loss = |p: &[f64]| p.iter().zip(&t).map(|(p, t)| (p - f64::from(*t)).powi(2)).sum::<f64>();
        let found = squared_error(&pred, &t, 0.3, &mut d);
        assert!((found - loss(&p)).abs() < 1e-6);
        assert_gradient("dpred", &p, &wide(&d), |p| f64::from(0.3f32) * loss(p));
    }

    #[test]
    #[should_panic(expected = "target 5 of row 1 is outside the 5 classes")]
    fn a_target_outside_is_named() {
        log_probs(&Rows::zeros(2, 5), &[4, 5]);
    }
}
