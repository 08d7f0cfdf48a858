//! Paired tests: over seeds (t), over rows (bootstrap, McNemar).

use super::{Interval, mean_and_deviation, t_half_width};
use crate::metrics::Bootstrap;
use crate::{Error, order};
use serde::Serialize;

/// The paired t test of b - a; the unit is the pair (the seed).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PairedT {
    /// Mean of b - a with its t interval.
    pub difference: Interval,
    /// The statistic; infinite where every difference is the same.
    pub t: f64,
    /// Two-sided p; 1 where every difference is zero.
    pub p: f64,
    /// Effect size: the mean difference in deviations of the differences (Cohen's d_z).
    pub effect: f64,
}

/// Tests whether b - a is zero over pairs, two or more.
pub fn paired_t(a: &[f64], b: &[f64], level: f64) -> Result<PairedT, Error> {
    if a.len() != b.len() {
        return Err(Error::numbers("paired t test", format!("{} values against {}", a.len(), b.len())));
    }
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
    let (mean, deviation) = mean_and_deviation(&differences, "paired t test")?;
    let n = differences.len();
    let half = t_half_width(deviation, n, level);
    let effect = if mean == 0.0 { 0.0 } else { mean / deviation };
    let t = effect * (n as f64).sqrt();
    let p = 2.0 * super::distribution::t_cdf(-t.abs(), n as f64 - 1.0);
    let difference = Interval { estimate: mean, low: mean - half, high: mean + half, level };
    Ok(PairedT { difference, t, p, effect })
}

/// McNemar's exact test on rows that two systems answered; the unit is the row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct McNemar {
    /// Rows that only a got right.
    pub only_a: usize,
    /// Rows that only b got right.
    pub only_b: usize,
    /// Two-sided exact binomial p.
    pub p: f64,
}

/// McNemar's exact test of right-or-not answers, row by row.
pub fn mcnemar(a: &[bool], b: &[bool]) -> Result<McNemar, Error> {
    if a.len() != b.len() || a.is_empty() {
        return Err(Error::numbers("McNemar's test", format!("{} rows against {}", a.len(), b.len())));
    }
    let only_a = a.iter().zip(b).filter(|(a, b)| **a && !**b).count();
    let only_b = a.iter().zip(b).filter(|(a, b)| !**a && **b).count();
    Ok(McNemar { only_a, only_b, p: two_sided_half(only_a.min(only_b), only_a + only_b) })
}

/// Two-sided p of `fewer` heads or less in `n` throws of a fair coin.
fn two_sided_half(fewer: usize, n: usize) -> f64 {
    let n = n as f64;
    let ln_choose = |k: f64| libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0);
    let tail: f64 = (0..=fewer).map(|k| (ln_choose(k as f64) - n * std::f64::consts::LN_2).exp()).sum();
    (2.0 * tail).min(1.0)
}

/// The percentile interval of a statistic over resampled rows.
///
/// `statistic` gets row indices below `n` (repeats count) and gives the paired difference on them, so that
/// both systems are always seen on the same rows.
pub fn paired_bootstrap(
    n: usize,
    bootstrap: &Bootstrap,
    level: f64,
    mut statistic: impl FnMut(&[usize]) -> f64,
) -> Result<Interval, Error> {
    if n < 2 || bootstrap.resamples < 100 {
        let problem = format!("{n} rows, {} resamples; it needs 2 and 100 or more", bootstrap.resamples);
        return Err(Error::numbers("paired bootstrap", problem));
    }
    let mut rows: Vec<usize> = (0..n).collect();
    let estimate = statistic(&rows);
    let mut rng = order::stream(order::Purpose::Bootstrap, bootstrap.seed);
    let mut values: Vec<f64> = (0..bootstrap.resamples)
        .map(|_| {
            rows.iter_mut().for_each(|row| *row = order::below(&mut rng, n));
            statistic(&rows)
        })
        .collect();
    if values.iter().any(|v| v.is_nan()) {
        return Err(Error::numbers("paired bootstrap", "the statistic is not a number on some resamples"));
    }
    values.sort_by(f64::total_cmp);
    let at = |share: f64| interpolated(&values, share);
    Ok(Interval { estimate, low: at(0.5 - level / 2.0), high: at(0.5 + level / 2.0), level })
}

/// The quantile of sorted values, linear between neighbours (numpy's default).
fn interpolated(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paired_t_test_is_scipys() {
        let a = [0.812, 0.797, 0.834, 0.806, 0.821];
        let b = [0.829, 0.801, 0.847, 0.811, 0.838];
        let t = paired_t(&a, &b, 0.95).unwrap();
        // scipy 1.17.1: ttest_rel(b, a) with confidence_interval(.95); mean / std(ddof=1)
        assert!((t.t - 3.949_935_448_808_158).abs() < 1e-9, "{t:?}");
        assert!((t.p - 0.016_818_918_094_487_847).abs() < 1e-10);
        assert!((t.difference.low - 0.003_327_419_401_854_232).abs() < 1e-10);
        assert!((t.difference.high - 0.019_072_580_598_145_743).abs() < 1e-10);
        assert!((t.effect - 1.766_464_834_054_236_6).abs() < 1e-9);
        let same = paired_t(&a, &a, 0.95).unwrap();
        assert_eq!((same.p, same.effect, same.difference.holds_zero()), (1.0, 0.0, true));
        assert!(paired_t(&a, &b[..3], 0.95).is_err());
    }

    #[test]
    fn mcnemar_is_the_exact_binomial_test() {
        // scipy 1.17.1: binomtest(min, n10 + n01, .5).pvalue
        for (only_a, only_b, p) in [
            (5, 14, 0.063_568_115_234_375),
            (3, 3, 1.0),
            (0, 1, 1.0),
            (40, 71, 0.004_195_534_185_394_861),
            (0, 0, 1.0),
        ] {
            let row = |a: bool, b: bool, n: usize| std::iter::repeat_n((a, b), n);
            let rows = row(true, false, only_a).chain(row(false, true, only_b)).chain(row(true, true, 7));
            let (a, b): (Vec<bool>, Vec<bool>) = rows.unzip();
            let m = mcnemar(&a, &b).unwrap();
            assert_eq!((m.only_a, m.only_b), (only_a, only_b));
            assert!((m.p - p).abs() < 1e-12, "{m:?}");
        }
    }

    #[test]
    fn the_bootstrap_of_a_mean_is_near_its_normal_interval() {
        let values: Vec<f64> = (0..300).map(|i| f64::from(i % 7) * 0.3 - 0.1).collect();
        let mean = |rows: &[usize]| rows.iter().map(|i| values[*i]).sum::<f64>() / rows.len() as f64;
        let b = Bootstrap { resamples: 4000, seed: 3 };
        let i = paired_bootstrap(300, &b, 0.95, mean).unwrap();
        let (m, sd) = mean_and_deviation(&values, "").unwrap();
        let half = 1.96 * sd / 300f64.sqrt();
        assert!((i.low - (m - half)).abs() < 0.1 * half && (i.high - (m + half)).abs() < 0.1 * half, "{i:?}");
        assert_eq!(paired_bootstrap(300, &b, 0.95, mean).unwrap(), i);
        assert!(paired_bootstrap(1, &b, 0.95, mean).is_err());
        assert_eq!(interpolated(&[1.0, 2.0, 4.0], 0.75), 3.0);
    }
}
