//! Student's t and the normal distribution: probabilities by formula, quantiles by bisection.

/// P(T <= t) of Student's t with `df` degrees of freedom (any positive number).
pub fn t_cdf(t: f64, df: f64) -> f64 {
    let tail = 0.5 * incomplete_beta(df / 2.0, 0.5, df / (df + t * t));
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// The t below which a share `p` of Student's t lies, 0 < p < 1.
pub fn t_quantile(p: f64, df: f64) -> f64 {
    bisect(p, |t| t_cdf(t, df))
}

/// P(Z <= z) of the standard normal distribution.
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

/// The z below which a share `p` of the normal distribution lies, 0 < p < 1.
pub fn normal_quantile(p: f64) -> f64 {
    bisect(p, normal_cdf)
}

/// Where the rising function `cdf` reaches `p`: doubles a bracket, then halves it to the last bit.
fn bisect(p: f64, cdf: impl Fn(f64) -> f64) -> f64 {
    let mut high = 1.0;
    while cdf(high) < p && high < 1e12 {
        high *= 2.0;
    }
    let mut low = -1.0;
    while cdf(low) > p && low > -1e12 {
        low *= 2.0;
    }
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if cdf(middle) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    // The fraction converges fast below the mean only; the other side is its mirror.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let ln_front = libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * x.ln() + b * (1.0 - x).ln();
    ln_front.exp() / a / fraction(a, b, x)
}

/// 1 + d1 / (1 + d2 / (1 + ...)), evaluated from the front (Lentz).
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let (mut value, mut c, mut d) = (1.0, 1.0, 0.0);
    for i in 1..10_000 {
        let m = f64::from(i / 2);
        let numerator = if i % 2 == 0 {
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        } else {
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        };
        let nonzero = |v: f64| if v.abs() < TINY { TINY } else { v };
        d = 1.0 / nonzero(1.0 + numerator * d);
        c = nonzero(1.0 + numerator / c);
        value *= c * d;
        if (c * d - 1.0).abs() < 1e-15 {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy 1.17.1: (df, p, stats.t.ppf(p, df), stats.t.cdf(1.3, df))
    const STUDENT: [(f64, f64, f64, f64); 6] = [
        (1.0, 0.975, 12.706_204_736_174_694, 0.791_285_599_839_847_3),
        (2.0, 0.975, 4.302_652_729_749_462, 0.838_376_484_091_979_8),
        (4.0, 0.975, 2.776_445_105_197_793_4, 0.868_274_201_764_388),
        (7.5, 0.9, 1.405_211_846_415_953_3, 0.883_936_610_592_195_6),
        (29.0, 0.995, 2.756_385_903_670_605, 0.898_080_408_168_985),
        (1000.0, 0.975, 1.962_339_080_826_408_3, 0.903_049_735_792_271_3),
    ];

    #[test]
    fn student_is_scipys() {
        for (df, p, quantile, below) in STUDENT {
            assert!((t_quantile(p, df) - quantile).abs() < 1e-8 * quantile, "df {df}: {}", t_quantile(p, df));
            assert!((t_cdf(1.3, df) - below).abs() < 1e-11, "df {df}: {}", t_cdf(1.3, df));
            assert!((t_quantile(1.0 - p, df) + quantile).abs() < 1e-8 * quantile);
        }
    }

    #[test]
    fn the_normal_is_scipys() {
        for (p, z) in
            [(0.975, 1.959_963_984_540_054), (0.8, 0.841_621_233_572_914_3), (0.001, -3.090_232_306_167_813)]
        {
            assert!((normal_quantile(p) - z).abs() < 1e-10, "{}", normal_quantile(p));
        }
    }
}
