//! Whether a difference is one: intervals, paired tests, and the sentence that says so.

mod compare;
pub mod distribution;
mod paired;
mod power;

pub use compare::{CompareOptions, Comparison, Verdict, compare};
pub use paired::{McNemar, PairedT, mcnemar, paired_bootstrap, paired_t};
pub use power::{Design, smallest_detectable, smallest_effect};

use crate::Error;
use serde::Serialize;

/// The level of every interval, unless a caller says otherwise.
pub const LEVEL: f64 = 0.95;

/// An estimate and the interval around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The estimate.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Its level, such as 0.95.
    pub level: f64,
}

impl Interval {
    /// Whether zero lies in it, ends included.
    pub fn holds_zero(&self) -> bool {
        self.low <= 0.0 && self.high >= 0.0
    }
}

/// The mean of two values or more (one a seed, say) with its t interval.
pub fn mean_interval(values: &[f64], level: f64) -> Result<Interval, Error> {
    let (mean, deviation) = mean_and_deviation(values, "mean and interval")?;
    let half = t_half_width(deviation, values.len(), level);
    Ok(Interval { estimate: mean, low: mean - half, high: mean + half, level })
}

/// The interval of a share: `right` of `n` rows (Wilson's, which stays within 0 and 1).
pub fn share_interval(right: usize, n: usize, level: f64) -> Result<Interval, Error> {
    if n == 0 || right > n {
        return Err(Error::numbers("interval of a share", format!("{right} right out of {n} rows")));
    }
    let z = distribution::normal_quantile(0.5 + level / 2.0);
    let (n, p) = (n as f64, right as f64 / n as f64);
    let centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    Ok(Interval { estimate: p, low: centre - half, high: centre + half, level })
}

/// Mean and sample deviation of two finite values or more.
fn mean_and_deviation(values: &[f64], what: &str) -> Result<(f64, f64), Error> {
    if values.len() < 2 {
        return Err(Error::numbers(
            what,
            format!("{} value; it needs two or more (seeds, say)", values.len()),
        ));
    }
    if let Some(i) = values.iter().position(|v| !v.is_finite()) {
        return Err(Error::numbers(what, format!("value {i} (from 0) is not a finite number")));
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    Ok((mean, (squares / (n - 1.0)).sqrt()))
}

fn t_half_width(deviation: f64, n: usize, level: f64) -> f64 {
    distribution::t_quantile(0.5 + level / 2.0, n as f64 - 1.0) * deviation / (n as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_scipys() {
        // scipy 1.17.1: stats.t.interval(.95, 4, loc=mean, scale=sem)
        let i = mean_interval(&[0.812, 0.797, 0.834, 0.806, 0.821], LEVEL).unwrap();
        assert!((i.estimate - 0.814).abs() < 1e-12);
        assert!((i.low - 0.796_374_493_167_181_8).abs() < 1e-10, "{i:?}");
        assert!((i.high - 0.831_625_506_832_818_3).abs() < 1e-10);
        // scipy: binomtest(139, 277).proportion_ci(.95, method="wilson")
        let i = share_interval(139, 277, LEVEL).unwrap();
        assert!((i.low - WILSON.0).abs() < 1e-10 && (i.high - WILSON.1).abs() < 1e-10, "{i:?}");
    }

    const WILSON: (f64, f64) = (0.443_303_416_485_177_3, 0.560_257_311_351_087_4);

    #[test]
    fn too_few_or_broken_values_are_refused() {
        assert!(mean_interval(&[0.5], LEVEL).unwrap_err().to_string().contains("1 value; it needs two"));
        assert!(mean_interval(&[0.5, f64::NAN], LEVEL).unwrap_err().to_string().contains("value 1"));
        assert!(share_interval(3, 2, LEVEL).is_err());
    }
}
