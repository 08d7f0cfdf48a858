//! Elementary functions as short polynomials, written so that a loop over them vectorises (no call,
//! no branch).
//!
//! Errors against the exact value are a few units in the last place over the ranges that the
//! operations use; the tests below measure them against `libm` in `f64`.

/// `a * b + c`, fused where the instruction set has it, two roundings elsewhere.
#[inline(always)]
pub(crate) fn madd<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 cut in two, so that `x - n ln 2` is exact to beyond f32.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// Adding and taking away 1.5 * 2^23 rounds to the nearest integer; the integer is in the low bits
/// of the sum.
const ROUNDER: f32 = 12_582_912.0;

/// e^x. Below -87.3 the result is 0 and above 88.7 it is infinite; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    let clamped = if x < -87.3 { -87.3 } else { x };
    let clamped = if clamped > 88.7 { 88.7 } else { clamped };
    let (p, n) = parts_of_exp::<FMA>(clamped);
    // 2^n in two factors, because n may be 128.
    let half = n >> 1;
    let value = p * power_of_two(half) * power_of_two(n.wrapping_sub(half));
    let value = if x < -87.3 { 0.0 } else { value };
    if x > 88.7 { f32::INFINITY } else { value }
}

/// The bits of [`exp`] for x up to 88, in fewer instructions: what is taken of differences to a maximum and of squares.
#[inline(always)]
pub(crate) fn exp_below<const FMA: bool>(x: f32) -> f32 {
    let clamped = if x < -87.3 { -87.3 } else { x };
    let (p, n) = parts_of_exp::<FMA>(clamped);
    if x < -87.3 { 0.0 } else { p * power_of_two(n) }
}

/// e^x as p 2^n.
#[inline(always)]
fn parts_of_exp<const FMA: bool>(x: f32) -> (f32, i32) {
    let shifted = madd::<FMA>(x, LOG2_E, ROUNDER);
    let n = shifted - ROUNDER;
    let r = madd::<FMA>(n, -LN_2_LOW, madd::<FMA>(n, -LN_2_HIGH, x));
    // Taylor to the seventh power on |r| <= ln(2) / 2: the rest is below 2^-27.
    let p = madd::<FMA>(1.0 / 5040.0, r, 1.0 / 720.0);
    let p = madd::<FMA>(p, r, 1.0 / 120.0);
    let p = madd::<FMA>(p, r, 1.0 / 24.0);
    let p = madd::<FMA>(p, r, 1.0 / 6.0);
    let p = madd::<FMA>(p, r, 0.5);
    let p = madd::<FMA>(p, r * r, r) + 1.0;
    (p, (shifted.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32))
}

/// 2^e for the exponents of normal numbers.
#[inline(always)]
fn power_of_two(e: i32) -> f32 {
    f32::from_bits((e.wrapping_add(127) as u32) << 23)
}

/// tanh x = sign(x) (1 - e) / (1 + e) with e = exp(-2 |x|); an odd polynomial near 0, where the
/// difference cancels.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    let a = x.abs();
    let e = exp_below::<FMA>(-2.0 * a);
    let far = ((1.0 - e) / (1.0 + e)).copysign(x);
    let s = x * x;
    // The Taylor series of tanh(x) / x, good below 0.4.
    let p = madd::<FMA>(s, -929_569.0 / 638_512_875.0, 21_844.0 / 6_081_075.0);
    let p = madd::<FMA>(p, s, -1382.0 / 155_925.0);
    let p = madd::<FMA>(p, s, 62.0 / 2835.0);
    let p = madd::<FMA>(p, s, -17.0 / 315.0);
    let p = madd::<FMA>(p, s, 2.0 / 15.0);
    let p = madd::<FMA>(p, s, -1.0 / 3.0);
    let near = madd::<FMA>(p * s, x, x);
    if a < 0.4 { near } else { far }
}

/// The logistic function 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// The error function. A polynomial in x^2 below 1; from there 1 - e^(p(x)), with p fitted to ln
/// erfc (both interpolate at Chebyshev nodes; absolute error below one unit in the last place of
/// 1).
#[inline(always)]
pub(crate) fn erf<const FMA: bool>(x: f32) -> f32 {
    let a = x.abs();
    let s = a * a;
    let p = madd::<FMA>(s, -9.667_044e-6, 1.126_595_9e-4);
    let p = madd::<FMA>(p, s, -8.484_08e-4);
    let p = madd::<FMA>(p, s, 5.221_031_8e-3);
    let p = madd::<FMA>(p, s, -2.686_543e-2);
    let p = madd::<FMA>(p, s, 0.112_837_83);
    let p = madd::<FMA>(p, s, -0.376_126_38);
    let near = x * madd::<FMA>(p, s, std::f32::consts::FRAC_2_SQRT_PI);
    // erfc(4) is 1.5e-8: beyond it erf is 1 in f32. The fit is in t = (a - 2.5) / 1.5.
    let t = (if a > 4.0 { 4.0 } else { a } - 2.5) * (2.0 / 3.0);
    let q = madd::<FMA>(t, 4.195_84e-5, -2.274_995e-4);
    let q = madd::<FMA>(q, t, 8.803_971e-4);
    let q = madd::<FMA>(q, t, -3.190_305_4e-3);
    let q = madd::<FMA>(q, t, 1.096_184_9e-2);
    let q = madd::<FMA>(q, t, -3.664_757_8e-2);
    let q = madd::<FMA>(q, t, -2.123_760_8);
    let q = madd::<FMA>(q, t, -8.029_021);
    let q = madd::<FMA>(q, t, -7.806_815);
    let far = (1.0 - exp_below::<FMA>(q)).copysign(x);
    if a < 1.0 { near } else { far }
}

/// Floats that are added side by side in a reduction: one AVX-512 vector, two of AVX2.
pub(crate) const LANES: usize = 16;
/// Values that a reduction takes in one step: independent partial sums hide the latency of the
/// addition.
const BLOCK: usize = 4 * LANES;

/// The sum of `term(x[i], y[i], z[i])` over three slices of one length, in a fixed order: 64
/// interleaved partial sums, then a tree.
#[inline(always)]
pub(crate) fn sum3(x: &[f32], y: &[f32], z: &[f32], term: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut acc = [0.0f32; BLOCK];
    let (xs, x) = x.as_chunks::<BLOCK>();
    let (ys, y) = y.as_chunks::<BLOCK>();
    let (zs, z) = z.as_chunks::<BLOCK>();
    for ((x, y), z) in xs.iter().zip(ys).zip(zs) {
        for i in 0..BLOCK {
            acc[i] += term(x[i], y[i], z[i]);
        }
    }
    let mut tail = 0.0;
    for ((x, y), z) in x.iter().zip(y).zip(z) {
        tail += term(*x, *y, *z);
    }
    tree(&acc) + tail
}

/// The sum of `term(x[i])`, in the order of [`sum3`].
#[inline(always)]
pub(crate) fn sum1(x: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut acc = [0.0f32; BLOCK];
    let (xs, rest) = x.as_chunks::<BLOCK>();
    for x in xs {
        for i in 0..BLOCK {
            acc[i] += term(x[i]);
        }
    }
    let mut tail = 0.0;
    for x in rest {
        tail += term(*x);
    }
    tree(&acc) + tail
}

/// The sum of the partial sums, halving until one is left.
#[inline(always)]
fn tree(acc: &[f32; BLOCK]) -> f32 {
    let mut acc = *acc;
    let mut half = BLOCK / 2;
    while half > 0 {
        for l in 0..half {
            acc[l] += acc[l + half];
        }
        half /= 2;
    }
    acc[0]
}

/// The sum of the values.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    sum1(x, |x| x)
}

/// The inner product of two slices of one length, with fused additions where the instruction set
/// has them.
#[inline(always)]
pub(crate) fn dot<const FMA: bool>(x: &[f32], y: &[f32]) -> f32 {
    let mut acc = [0.0f32; BLOCK];
    let (xs, x) = x.as_chunks::<BLOCK>();
    let (ys, y) = y.as_chunks::<BLOCK>();
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..BLOCK {
            acc[i] = madd::<FMA>(x[i], y[i], acc[i]);
        }
    }
    let (xs, x) = x.as_chunks::<LANES>();
    let (ys, y) = y.as_chunks::<LANES>();
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..LANES {
            acc[i] = madd::<FMA>(x[i], y[i], acc[i]);
        }
    }
    let mut tail = 0.0;
    for (x, y) in x.iter().zip(y) {
        tail = madd::<FMA>(*x, *y, tail);
    }
    tree(&acc) + tail
}

/// The largest value; minus infinity for none. NaN is passed over unless the first of its lane.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; LANES];
    let mut chunks = x.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (a, v) in acc.iter_mut().zip(chunk) {
            *a = if *v > *a { *v } else { *a };
        }
    }
    let rest = chunks.remainder().iter().copied();
    acc.into_iter().chain(rest).fold(f32::NEG_INFINITY, |a, v| if v > a { v } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Isa, kernel};

    kernel!(fn exps(x: &[f32], y: &mut [f32]) = exps_body);
    #[inline(always)]
    fn exps_body<const FMA: bool>(x: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = exp::<FMA>(*x));
    }

    kernel!(fn tanhs(x: &[f32], y: &mut [f32]) = tanhs_body);
    #[inline(always)]
    fn tanhs_body<const FMA: bool>(x: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = tanh::<FMA>(*x));
    }

    kernel!(fn erfs(x: &[f32], y: &mut [f32]) = erfs_body);
    #[inline(always)]
    fn erfs_body<const FMA: bool>(x: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = erf::<FMA>(*x));
    }

    kernel!(fn sigmoids(x: &[f32], y: &mut [f32]) = sigmoids_body);
    #[inline(always)]
    fn sigmoids_body<const FMA: bool>(x: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = sigmoid::<FMA>(*x));
    }

    type Loop = fn(Isa, &[f32], &mut [f32]);

    /// The largest error in units of the last place over an even grid, under every instruction set.
    fn worst(run: Loop, exact: fn(f64) -> f64, from: f64, to: f64) -> f64 {
        let n = 100_003;
        let x: Vec<f32> =
            (0..n).map(|i| (from + (to - from) * f64::from(i) / f64::from(n - 1)) as f32).collect();
        let mut y = vec![0.0; x.len()];
        let mut worst = 0.0f64;
        for isa in Isa::available() {
            run(isa, &x, &mut y);
            for (x, y) in x.iter().zip(&y) {
                let e = exact(f64::from(*x));
                let ulp = f64::from(f32::EPSILON) * e.abs().max(f64::from(f32::MIN_POSITIVE));
                worst = worst.max((f64::from(*y) - e).abs() / ulp);
            }
        }
        worst
    }

    #[test]
    fn functions_are_good_to_a_few_units_in_the_last_place() {
        let exp_error = worst(exps, libm::exp, -87.0, 88.5);
        assert!(exp_error < 1.5, "exp: {exp_error}");
        let tanh_error = worst(tanhs, libm::tanh, -12.0, 12.0).max(worst(tanhs, libm::tanh, -0.5, 0.5));
        assert!(tanh_error < 3.0, "tanh: {tanh_error}");
        let erf_error = worst(erfs, libm::erf, -5.0, 5.0).max(worst(erfs, libm::erf, -1.1, 1.1));
        assert!(erf_error < 3.0, "erf: {erf_error}");
        let sigmoid_error = worst(sigmoids, |x| 1.0 / (1.0 + libm::exp(-x)), -80.0, 80.0);
        assert!(sigmoid_error < 3.0, "sigmoid: {sigmoid_error}");
    }

    kernel!(fn exps_below(x: &[f32], y: &mut [f32]) = exps_below_body);
    #[inline(always)]
    fn exps_below_body<const FMA: bool>(x: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = exp_below::<FMA>(*x));
    }

    #[test]
    fn the_short_exponential_has_the_bits_of_the_long_one() {
        let mut x: Vec<f32> = (0..200_001u32).map(|i| -100.0 + 188.0 * i as f32 / 200_000.0).collect();
        x.extend([f32::NEG_INFINITY, -87.3, -87.299_99, -87.300_01, 0.0, -0.0]);
        for isa in Isa::available() {
            let (mut long, mut short) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            exps(isa, &x, &mut long);
            exps_below(isa, &x, &mut short);
            assert!(long.iter().zip(&short).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa}");
            exps_below(isa, &[f32::NAN], &mut short[..1]);
            assert!(short[0].is_nan(), "{isa}");
        }
    }

    #[test]
    fn ends_of_the_range() {
        for isa in Isa::available() {
            let x = [f32::NEG_INFINITY, -1e4, -87.4, 0.0, 88.8, 1e4, f32::INFINITY, f32::NAN];
            let mut y = [0.0; 8];
            exps(isa, &x, &mut y);
            assert_eq!(y[..7], [0.0, 0.0, 0.0, 1.0, f32::INFINITY, f32::INFINITY, f32::INFINITY]);
            assert!(y[7].is_nan());
            for (run, low) in [(tanhs as Loop, -1.0), (erfs as Loop, -1.0), (sigmoids as Loop, 0.0)] {
                run(isa, &x, &mut y);
                assert_eq!((y[0], y[1], y[5], y[6]), (low, low, 1.0, 1.0));
                assert!(y[7].is_nan());
            }
        }
    }

    #[test]
    fn reductions_see_every_element() {
        for n in [0, 1, 15, 16, 17, 63, 64, 65, 200] {
            let x: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            let expected = (n * (n + 1) / 2) as f32;
            assert_eq!(sum(&x), expected);
            assert_eq!(dot::<true>(&x, &vec![1.0; n]), expected);
            assert_eq!(dot::<false>(&vec![1.0; n], &x), expected);
            assert_eq!(max(&x), if n == 0 { f32::NEG_INFINITY } else { n as f32 });
            for i in 0..n {
                let mut y = vec![-3.0; n];
                y[i] = -1.5;
                assert_eq!(max(&y), -1.5);
            }
        }
    }
}
