//! Before a comparison: the smallest difference that its test rows and seeds can tell apart.

use super::distribution::{normal_quantile, t_quantile};
use crate::Error;

/// What a comparison will have to go on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Design {
    /// Test rows, the same for both systems.
    pub rows: usize,
    /// Seeds of each system, paired.
    pub seeds: usize,
    /// The share of rows that the two will answer differently. Unknown before the first run: twice
    /// p (1 - p) at an expected accuracy p is what independent answers give, and real pairs agree more.
    pub disagreement: f64,
    /// Deviation of the paired per-seed differences, where earlier runs tell it.
    pub seed_deviation: Option<f64>,
}

impl Design {
    /// A design before any run, at an expected accuracy.
    pub fn expecting(accuracy: f64, rows: usize, seeds: usize) -> Design {
        Design { rows, seeds, disagreement: 2.0 * accuracy * (1.0 - accuracy), seed_deviation: None }
    }
}

/// The smallest true difference in accuracy that a two-sided test at `level` finds with probability `power`.
///
/// Rows and seeds both limit it: with D the disagreement, the variance of the mean difference is
/// D / rows + s^2 / seeds. More seeds do not make a small test set large, so D / rows is not divided by
/// them. Where a seed deviation s and two seeds or more are given, t quantiles replace the normal ones.
pub fn smallest_detectable(design: &Design, level: f64, power: f64) -> Result<f64, Error> {
    let Design { rows, seeds, disagreement, seed_deviation } = *design;
    if rows == 0 || seeds == 0 || !(0.0..=1.0).contains(&disagreement) || disagreement == 0.0 {
        let problem = format!("{rows} rows, {seeds} seeds, disagreement {disagreement}: all must be above 0");
        return Err(Error::numbers("smallest detectable difference", problem));
    }
    let deviation = seed_deviation.unwrap_or(0.0);
    let variance = disagreement / rows as f64 + deviation * deviation / seeds as f64;
    let quantile = |p: f64| match seed_deviation {
        Some(_) if seeds > 1 => t_quantile(p, seeds as f64 - 1.0),
        _ => normal_quantile(p),
    };
    Ok((quantile(0.5 + level / 2.0) + quantile(power)) * variance.sqrt())
}

/// The same for a mean of numbers whose spread nobody knows before the first run (log-likelihoods), by the rows alone: in
/// units of the standard deviation of the rows' own paired differences, (z(level) + z(power)) / sqrt(rows). What seeds
/// differ by comes on top.
pub fn smallest_effect(rows: usize, level: f64, power: f64) -> Result<f64, Error> {
    if rows == 0 {
        return Err(Error::numbers("smallest detectable difference", "no rows"));
    }
    Ok((normal_quantile(0.5 + level / 2.0) + normal_quantile(power)) / (rows as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_textbook_number() {
        // (1.959964 + 0.841621) * sqrt(0.32 / 500), by hand.
        let d = smallest_detectable(&Design::expecting(0.8, 500, 3), 0.95, 0.8).unwrap();
        assert!((d - 2.801_585_218 * (0.32f64 / 500.0).sqrt()).abs() < 1e-8, "{d}");
        // With seeds that vary: (4.302653 + 1.060660) * sqrt(0.32 / 500 + 0.0001 / 3), t with 2 degrees.
        let design = Design { seed_deviation: Some(0.01), ..Design::expecting(0.8, 500, 3) };
        let d = smallest_detectable(&design, 0.95, 0.8).unwrap();
        assert!((d - 5.363_312_9 * (0.00064f64 + 0.0001 / 3.0).sqrt()).abs() < 1e-6, "{d}");
        assert!(smallest_detectable(&Design::expecting(1.0, 500, 3), 0.95, 0.8).is_err());
        // 2.801585 / 10, by hand.
        assert!((smallest_effect(100, 0.95, 0.8).unwrap() - 0.280_158_521_8).abs() < 1e-9);
        assert!(smallest_effect(0, 0.95, 0.8).is_err());
    }
}
