//! Metrics with their standard errors, as scikit-learn and lm-evaluation-harness compute them.

pub mod choice;
mod classes;
mod correlation;

use crate::spec::Kind;
use crate::{Error, order};
use serde::{Deserialize, Serialize};

/// What is measured. All are better when higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of rows whose class or choice is right.
    Acc,
    /// The same with choice likelihoods divided by the choice's length in characters.
    AccNorm,
    /// The same with choice likelihoods divided by the choice's length in bytes.
    AccBytes,
    /// F1 of class 1.
    F1,
    /// Matthews correlation coefficient.
    Mcc,
    /// Pearson correlation.
    Pearson,
    /// Spearman correlation, ties averaged.
    Spearman,
    /// Share of free responses that are right.
    ExactMatch,
    /// Log-likelihood (nats) of a row's gold text after its prompt, for each of its tokens; the mean of the rows.
    LoglikToken,
    /// The same summed over the text's tokens.
    Loglik,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Metric; 10] = [
        Metric::Acc,
        Metric::AccNorm,
        Metric::AccBytes,
        Metric::F1,
        Metric::Mcc,
        Metric::Pearson,
        Metric::Spearman,
        Metric::ExactMatch,
        Metric::LoglikToken,
        Metric::Loglik,
    ];

    /// The name in task files and result files.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Acc => "acc",
            Metric::AccNorm => "acc_norm",
            Metric::AccBytes => "acc_bytes",
            Metric::F1 => "f1",
            Metric::Mcc => "mcc",
            Metric::Pearson => "pearson",
            Metric::Spearman => "spearman",
            Metric::ExactMatch => "exact_match",
            Metric::LoglikToken => "loglik_token",
            Metric::Loglik => "loglik",
        }
    }

    /// The metric of that name.
    pub fn named(name: &str) -> Option<Metric> {
        Metric::ALL.into_iter().find(|m| m.name() == name)
    }

    /// The choice that this metric judges.
    pub fn pick(self, picks: &choice::Picks) -> usize {
        match self {
            Metric::AccNorm => picks.by_chars,
            Metric::AccBytes => picks.by_bytes,
            _ => picks.plain,
        }
    }

    /// Whether the metric is a share of rows that are right, so that each row is 0 or 1.
    pub fn is_share(self) -> bool {
        matches!(self, Metric::Acc | Metric::AccNorm | Metric::AccBytes | Metric::ExactMatch)
    }

    /// Whether the metric is the likelihood of gold texts, so that each row has a number of its own.
    pub fn is_likelihood(self) -> bool {
        matches!(self, Metric::LoglikToken | Metric::Loglik)
    }

    /// The least and the greatest value that it can take.
    pub fn bounds(self) -> (f64, f64) {
        match self {
            Metric::Mcc | Metric::Pearson | Metric::Spearman => (-1.0, 1.0),
            Metric::LoglikToken | Metric::Loglik => (f64::NEG_INFINITY, 0.0),
            _ => (0.0, 1.0),
        }
    }

    /// Whether a task of this kind can be measured so.
    pub(crate) fn suits(self, kind: Kind, labels: usize) -> Result<(), String> {
        let right = match self {
            Metric::Acc => kind != Kind::Regression && kind != Kind::Generation,
            Metric::AccNorm | Metric::AccBytes => kind == Kind::MultipleChoice,
            Metric::F1 => labels == 2,
            Metric::Mcc => kind == Kind::Classification,
            Metric::Pearson | Metric::Spearman => kind == Kind::Regression,
            Metric::ExactMatch => kind == Kind::Generation,
            // Of whatever has a gold text, when it is asked for: no task's file names them.
            Metric::LoglikToken | Metric::Loglik => false,
        };
        let kind = kind.name();
        if right {
            Ok(())
        } else {
            Err(format!("has `{}`, which a {kind} task with {labels} labels lacks", self.name()))
        }
    }

    /// The value over all rows with its standard error.
    pub fn score(self, predictions: &Predictions, bootstrap: &Bootstrap) -> Result<Score, Error> {
        predictions.check(self)?;
        let rows: Vec<usize> = (0..predictions.len()).collect();
        let value = self.value(predictions, &rows);
        let stderr = match predictions {
            Predictions::Each(values) => values_stderr(value, values),
            _ if self.is_share() => share_stderr(value, rows.len()),
            _ => self.bootstrap_stderr(predictions, bootstrap),
        };
        Ok(Score { value, stderr })
    }

    /// The value over some rows (repeats count): the statistic that resampling needs.
    ///
    /// Predictions of another kind than the metric's give NaN; [`Metric::score`] refuses them first.
    pub fn value(self, predictions: &Predictions, rows: &[usize]) -> f64 {
        match predictions {
            Predictions::Each(values) => rows.iter().map(|i| values[*i]).sum::<f64>() / rows.len() as f64,
            Predictions::Right(right) if self.is_share() => {
                rows.iter().filter(|i| right[**i]).count() as f64 / rows.len() as f64
            }
            Predictions::Classes { gold, predicted } => {
                let pairs = rows.iter().map(|i| (gold[*i], predicted[*i]));
                match self {
                    Metric::F1 => classes::f1(pairs),
                    Metric::Mcc => classes::matthews(pairs),
                    _ => classes::accuracy(pairs),
                }
            }
            Predictions::Values { gold, predicted } => {
                let gold: Vec<f64> = rows.iter().map(|i| gold[*i]).collect();
                let predicted: Vec<f64> = rows.iter().map(|i| predicted[*i]).collect();
                match self {
                    Metric::Spearman => correlation::spearman(&gold, &predicted),
                    _ => correlation::pearson(&gold, &predicted),
                }
            }
            Predictions::Right(_) => f64::NAN,
        }
    }

    /// Standard deviation of the metric over resampled rows, as lm-evaluation-harness estimates it.
    fn bootstrap_stderr(self, predictions: &Predictions, bootstrap: &Bootstrap) -> Option<f64> {
        let n = predictions.len();
        if bootstrap.resamples < 2 || n < 2 {
            return None;
        }
        let mut rng = order::stream(order::Purpose::Bootstrap, bootstrap.seed);
        let mut rows = vec![0; n];
        let values: Vec<f64> = (0..bootstrap.resamples)
            .map(|_| {
                rows.iter_mut().for_each(|row| *row = order::below(&mut rng, n));
                self.value(predictions, &rows)
            })
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        Some((squares / (values.len() - 1) as f64).sqrt())
    }
}

/// Spearman's correlation of two lists of one length, ties averaged; none where one of them does not vary.
pub fn rank_correlation(x: &[f64], y: &[f64]) -> Option<f64> {
    let varies = |list: &[f64]| list.iter().any(|v| *v != list[0]);
    (varies(x) && varies(y)).then(|| correlation::spearman(x, y))
}

/// Sample deviation over the root of n.
fn values_stderr(mean: f64, values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt())
}

/// The same of zeros and ones, in closed form.
fn share_stderr(mean: f64, n: usize) -> Option<f64> {
    (n > 1).then(|| (mean * (1.0 - mean) / (n - 1) as f64).sqrt())
}

/// A value and its standard error, where one can be had (two rows or more).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// The metric.
    pub value: f64,
    /// Its standard error.
    pub stderr: Option<f64>,
}

/// How rows are resampled for standard errors without a closed form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    /// How often.
    pub resamples: usize,
    /// The stream.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Bootstrap { resamples: 1000, seed: 1234 }
    }
}

/// What was predicted, row by row, beside what is right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predictions {
    /// Classes or choices, from 0.
    Classes {
        /// The right ones.
        gold: Vec<u32>,
        /// Those predicted.
        predicted: Vec<u32>,
    },
    /// Scores.
    Values {
        /// The right ones.
        gold: Vec<f64>,
        /// Those predicted.
        predicted: Vec<f64>,
    },
    /// Right or not: read answers, choices.
    Right(Vec<bool>),
    /// A value of its own: likelihoods.
    Each(Vec<f64>),
}

impl Predictions {
    /// Whether every one of several rows is given the same class, though the right ones differ.
    pub fn are_alike(&self) -> bool {
        let same = |all: &[u32]| all.iter().all(|class| *class == all[0]);
        matches!(self, Predictions::Classes { gold, predicted } if same(predicted) && !same(gold))
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        match self {
            Predictions::Classes { gold, .. } => gold.len(),
            Predictions::Values { gold, .. } => gold.len(),
            Predictions::Right(right) => right.len(),
            Predictions::Each(values) => values.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Right or not, row by row; none for scores and likelihoods.
    pub fn right(&self) -> Option<Vec<bool>> {
        match self {
            Predictions::Classes { gold, predicted } => {
                Some(gold.iter().zip(predicted).map(|(g, p)| g == p).collect())
            }
            Predictions::Right(right) => Some(right.clone()),
            Predictions::Values { .. } | Predictions::Each(_) => None,
        }
    }

    /// Refuses what `metric` cannot be computed from.
    pub(crate) fn check(&self, metric: Metric) -> Result<(), Error> {
        let (golds, predicted) = match self {
            Predictions::Classes { gold, predicted } => (gold.len(), predicted.len()),
            Predictions::Values { gold, predicted } => (gold.len(), predicted.len()),
            Predictions::Right(_) | Predictions::Each(_) => (self.len(), self.len()),
        };
        let fail = |problem: String| Err(Error::numbers(metric.name(), problem));
        if golds != predicted {
            return fail(format!("{golds} gold values but {predicted} predictions; there must be one a row"));
        }
        if golds == 0 {
            return fail("no rows; it needs one or more".into());
        }
        let fits = match self {
            Predictions::Classes { .. } => metric.is_share() || matches!(metric, Metric::F1 | Metric::Mcc),
            Predictions::Values { .. } => matches!(metric, Metric::Pearson | Metric::Spearman),
            Predictions::Right(_) => metric.is_share(),
            Predictions::Each(_) => metric.is_likelihood(),
        };
        if !fits {
            return fail("cannot be computed from predictions of this kind".into());
        }
        if let Predictions::Values { gold, predicted } = self
            && let Some(row) = gold.iter().zip(predicted).position(|(g, p)| !(g.is_finite() && p.is_finite()))
        {
            return fail(format!("row {row} (from 0) is not a finite number"));
        }
        if let Predictions::Each(values) = self
            && let Some(row) = values.iter().position(|v| !v.is_finite())
        {
            return fail(format!("row {row} (from 0) is not a finite number"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes() -> Predictions {
        Predictions::Classes {
            gold: vec![1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0],
            predicted: vec![1, 0, 0, 1, 1, 1, 0, 1, 1, 0, 0],
        }
    }

    #[test]
    fn shares_have_the_closed_form_error() {
        let score = Metric::Acc.score(&classes(), &Bootstrap::default()).unwrap();
        // numpy: x = [1]*7 + [0]*4; np.std(x, ddof=1) / sqrt(11)
        assert!((score.value - 7.0 / 11.0).abs() < 1e-15);
        assert!((score.stderr.unwrap() - 0.152_120_004_824_377_38).abs() < 1e-12);
        let one = Metric::Acc.score(&Predictions::Right(vec![true]), &Bootstrap::default()).unwrap();
        assert_eq!(one.stderr, None);
    }

    #[test]
    fn bootstrapped_errors_are_seeded_and_near_the_closed_form() {
        let b = Bootstrap { resamples: 4000, seed: 7 };
        let boot = Metric::Acc.bootstrap_stderr(&classes(), &b).unwrap();
        // The bootstrap of a mean is the closed form without Bessel's correction.
        assert!((boot - 0.152_12 * (10.0f64 / 11.0).sqrt()).abs() < 0.004, "{boot}");
        assert_eq!(Metric::Acc.bootstrap_stderr(&classes(), &b), Some(boot));
        let other = Bootstrap { seed: 8, ..b };
        assert_ne!(Metric::Acc.bootstrap_stderr(&classes(), &other), Some(boot));
        assert!(Metric::Mcc.score(&classes(), &b).unwrap().stderr.unwrap() > 0.1);
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let message = |m: Metric, p: &Predictions| m.score(p, &Bootstrap::default()).unwrap_err().to_string();
        let uneven = Predictions::Classes { gold: vec![1, 0], predicted: vec![1] };
        assert!(message(Metric::Acc, &uneven).contains("2 gold values but 1 predictions"));
        assert!(message(Metric::Acc, &Predictions::Right(vec![])).contains("no rows"));
        assert!(message(Metric::Pearson, &classes()).contains("predictions of this kind"));
        let nan = Predictions::Values { gold: vec![1.0, 2.0], predicted: vec![0.5, f64::NAN] };
        assert!(message(Metric::Spearman, &nan).contains("row 1 (from 0) is not a finite"));
    }

    #[test]
    fn likelihoods_are_means_of_values_with_their_own_deviation() {
        let values = vec![-1.5, -0.25, -3.0, -0.75, -2.0];
        let score = Metric::Loglik.score(&Predictions::Each(values.clone()), &Bootstrap::default()).unwrap();
        assert!((score.value + 1.5).abs() < 1e-15);
        // numpy: np.std(values, ddof=1) / sqrt(5)
        assert!((score.stderr.unwrap() - 0.480_884_601_541_785_13).abs() < 1e-12, "{score:?}");
        let said = |m: Metric, v: Vec<f64>| {
            m.score(&Predictions::Each(v), &Bootstrap::default()).unwrap_err().to_string()
        };
        assert!(said(Metric::Acc, values).contains("predictions of this kind"));
        assert!(said(Metric::LoglikToken, vec![-1.0, f64::NEG_INFINITY]).contains("row 1 (from 0)"));
        assert!(Metric::Loglik.score(&classes(), &Bootstrap::default()).is_err());
    }

    #[test]
    fn names_are_those_of_the_files() {
        for metric in Metric::ALL {
            assert_eq!(serde_json::to_value(metric).unwrap(), metric.name());
            assert_eq!(Metric::named(metric.name()), Some(metric));
        }
    }
}
