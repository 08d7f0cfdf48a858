//! What the tests of this crate share: numbers, comparisons, and runs under every instruction set
//! and on one and two threads. Nothing here is used by a fast path.

use crate::Rows;
use crate::isa::{Isa, with_isa};
use std::fmt::Debug;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// The arithmetic of the naive twins: f32 as the fast path has it, f64 for finite differences.
pub(crate) trait Float:
    Copy
    + Debug
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    fn of(x: f64) -> Self;
    fn to(self) -> f64;
    fn exp(self) -> Self {
        Self::of(libm::exp(self.to()))
    }
    fn ln(self) -> Self {
        Self::of(libm::log(self.to()))
    }
    fn tanh(self) -> Self {
        Self::of(libm::tanh(self.to()))
    }
    fn erf(self) -> Self {
        Self::of(libm::erf(self.to()))
    }
    fn sqrt(self) -> Self {
        Self::of(libm::sqrt(self.to()))
    }
    fn zero() -> Self {
        Self::of(0.0)
    }
}

impl Float for f32 {
    fn of(x: f64) -> f32 {
        x as f32
    }
    fn to(self) -> f64 {
        f64::from(self)
    }
}

impl Float for f64 {
    fn of(x: f64) -> f64 {
        x
    }
    fn to(self) -> f64 {
        self
    }
}

/// Values in (-1, 1), none of them 0, that look random and are the same each time.
pub(crate) fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 41) as f32 + 0.5) / (1 << 22) as f32 - 1.0
        })
        .collect()
}

/// The same as rows.
pub(crate) fn noise_rows(rows: usize, width: usize, seed: u64) -> Rows {
    Rows::from_vec(noise(rows * width, seed), width)
}

/// Values widened.
pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|v| f64::from(*v)).collect()
}

/// Asserts that `fast` agrees with `naive` to `tolerance` times the largest entry of `naive`.
#[track_caller]
pub(crate) fn assert_close<F: Float>(what: &str, fast: &[f32], naive: &[F], tolerance: f64) {
    assert_eq!(fast.len(), naive.len(), "{what}: lengths differ");
    let largest = naive.iter().fold(0.0, |m: f64, v| m.max(v.to().abs()));
    for (i, (f, n)) in fast.iter().zip(naive).enumerate() {
        let (f, n) = (f64::from(*f), n.to());
        assert!(
            (f - n).abs() <= tolerance * largest.max(1e-30),
            "{what}[{i}]: fast {f}, naive {n}, largest {largest}"
        );
    }
}

/// Runs `work` under every instruction set of this machine on one and on two threads, asserts that
/// the thread count changes no bit, and hands each answer to `check`.
pub(crate) fn everywhere(work: impl Fn() -> Vec<f32> + Sync, check: impl Fn(Isa, &[f32])) {
    for isa in Isa::available() {
        let run = |threads| {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started");
            pool.install(|| with_isa(isa, &work))
        };
        let (one, two) = (run(1), run(2));
        let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert!(bits(&one) == bits(&two), "{isa}: two threads differ from one");
        check(isa, &one);
    }
}

/// Checks `gradient`, of the scalar function `f` at `x`, by central differences in f64.
#[track_caller]
pub(crate) fn assert_gradient(what: &str, x: &[f64], gradient: &[f64], f: impl Fn(&[f64]) -> f64) {
    assert_eq!(x.len(), gradient.len(), "{what}: lengths differ");
    let step = 1e-5;
    for i in 0..x.len() {
        let mut moved = x.to_vec();
        moved[i] = x[i] + step;
        let above = f(&moved);
        moved[i] = x[i] - step;
        let slope = (above - f(&moved)) / (2.0 * step);
        assert!(
            (slope - gradient[i]).abs() <= 1e-6 * (1.0 + slope.abs()),
            "{what}[{i}]: difference quotient {slope}, gradient {}",
            gradient[i]
        );
    }
}

/// The inner product, which makes a scalar of an output and a gradient of `weights`.
pub(crate) fn inner(y: &[f64], weights: &[f64]) -> f64 {
    y.iter().zip(weights).map(|(y, w)| y * w).sum()
}
