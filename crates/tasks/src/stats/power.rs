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
}

impl Design {
    /// A design before any run, at an expected accuracy.
    pub fn expecting(accuracy: f64, rows: usize, seeds: usize) -> Design {
        Design { rows, seeds, disagreement: 2.0 * accuracy * (1.0 - accuracy) }
    }
}

/// The smallest true difference in accuracy that a comparison finds with probability `power`, where its rows and its
/// seeds must both tell the two apart at `level` (two-sided).
///
/// With D the disagreement, the rows' bootstrap has the variance D / rows: more seeds do not make a small test set large.
/// Student's t over S seeds has differences to go on that vary by D / rows at least, each seed answering by itself:
/// (t(level) + t(power)) sqrt(D / (rows S)), which is the larger one for two and three seeds. The quantile of the central
/// t stands for the noncentral one, so with few seeds the power is approximate.
pub fn smallest_detectable(design: &Design, level: f64, power: f64) -> Result<f64, Error> {
    let Design { rows, seeds, disagreement } = *design;
    if rows == 0 || seeds == 0 || !(0.0..=1.0).contains(&disagreement) || disagreement == 0.0 {
        let problem = format!("{rows} rows, {seeds} seeds, disagreement {disagreement}: all must be above 0");
        return Err(Error::numbers("smallest detectable difference", problem));
    }
    let variance = disagreement / rows as f64;
    let both = |quantile: &dyn Fn(f64) -> f64| quantile(0.5 + level / 2.0) + quantile(power);
    let by_rows = both(&normal_quantile) * variance.sqrt();
    if seeds == 1 {
        return Ok(by_rows);
    }
    let by_seeds = both(&|p| t_quantile(p, seeds as f64 - 1.0)) * (variance / seeds as f64).sqrt();
    Ok(by_rows.max(by_seeds))
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
        // (1.959964 + 0.841621) * sqrt(0.32 / 500), by hand; five seeds tell more than the rows do.
        for seeds in [1, 5] {
            let d = smallest_detectable(&Design::expecting(0.8, 500, seeds), 0.95, 0.8).unwrap();
            assert!((d - 2.801_585_218 * (0.32f64 / 500.0).sqrt()).abs() < 1e-8, "{d}");
        }
        // (4.302653 + 1.060660) * sqrt(0.32 / 1500), t with 2 degrees; (12.706205 + 1.376382) with 1.
        for (seeds, quantiles) in [(3, 5.363_312_9), (2, 14.082_586_6)] {
            let d = smallest_detectable(&Design::expecting(0.8, 500, seeds), 0.95, 0.8).unwrap();
            assert!((d - quantiles * (0.00064 / seeds as f64).sqrt()).abs() < 1e-6, "{d}");
        }
        assert!(smallest_detectable(&Design::expecting(1.0, 500, 3), 0.95, 0.8).is_err());
        // 2.801585 / 10, by hand.
        assert!((smallest_effect(100, 0.95, 0.8).unwrap() - 0.280_158_521_8).abs() < 1e-9);
        assert!(smallest_effect(0, 0.95, 0.8).is_err());
    }
}
