//! Two systems on the same rows and seeds, and the sentence about them.

use super::{Interval, LEVEL, McNemar, PairedT, mcnemar, paired_bootstrap, paired_t};
use crate::Error;
use crate::metrics::{Bootstrap, Metric, Predictions};
use serde::Serialize;
use std::fmt;

/// How a comparison is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompareOptions {
    /// Level of the intervals.
    pub level: f64,
    /// Resampling of rows.
    pub bootstrap: Bootstrap,
}

impl Default for CompareOptions {
    fn default() -> Self {
        CompareOptions { level: LEVEL, bootstrap: Bootstrap::default() }
    }
}

/// What two systems scored, and what their difference is worth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The first system's name.
    pub a: String,
    /// The second's.
    pub b: String,
    /// What was measured.
    pub metric: Metric,
    /// Test rows.
    pub rows: usize,
    /// The first's metric, seed by seed.
    pub a_by_seed: Vec<f64>,
    /// The second's, in the same order.
    pub b_by_seed: Vec<f64>,
    /// Mean of b - a over seeds with the interval that resampling rows gives; the unit is the row.
    pub over_rows: Interval,
    /// The paired t test over seeds, with two seeds or more; the unit is the seed.
    pub over_seeds: Option<PairedT>,
    /// McNemar's test, seed by seed, where answers are right or wrong.
    pub mcnemar: Vec<McNemar>,
}

/// Compares b with a: one set of predictions a seed, the same seeds and rows in the same order.
pub fn compare(
    metric: Metric,
    (a_name, a): (&str, &[Predictions]),
    (b_name, b): (&str, &[Predictions]),
    options: &CompareOptions,
) -> Result<Comparison, Error> {
    check(metric, a, b)?;
    let rows = a[0].len();
    let mean = |runs: &[Predictions], rows: &[usize]| {
        runs.iter().map(|run| metric.value(run, rows)).sum::<f64>() / runs.len() as f64
    };
    let difference = |rows: &[usize]| mean(b, rows) - mean(a, rows);
    let over_rows = paired_bootstrap(rows, &options.bootstrap, options.level, difference)?;
    let every: Vec<usize> = (0..rows).collect();
    let by_seed = |runs: &[Predictions]| runs.iter().map(|r| metric.value(r, &every)).collect::<Vec<f64>>();
    let (a_by_seed, b_by_seed) = (by_seed(a), by_seed(b));
    let over_seeds = match a.len() {
        1 => None,
        _ => Some(paired_t(&a_by_seed, &b_by_seed, options.level)?),
    };
    let mcnemar = a
        .iter()
        .zip(b)
        .filter_map(|(a, b)| Some(mcnemar(&a.right()?, &b.right()?)))
        .collect::<Result<Vec<McNemar>, Error>>()?;
    let (a, b) = (a_name.to_owned(), b_name.to_owned());
    Ok(Comparison { a, b, metric, rows, a_by_seed, b_by_seed, over_rows, over_seeds, mcnemar })
}

fn check(metric: Metric, a: &[Predictions], b: &[Predictions]) -> Result<(), Error> {
    let fail = |problem: String| Err(Error::numbers("comparison", problem));
    if a.len() != b.len() || a.is_empty() {
        return fail(format!("{} seeds against {}; they must be the same, one or more", a.len(), b.len()));
    }
    for run in a.iter().chain(b) {
        run.check(metric)?;
        if run.len() != a[0].len() {
            return fail(format!("{} rows against {}; they must be the same rows", a[0].len(), run.len()));
        }
        let same = match (run, &a[0]) {
            (Predictions::Classes { gold: x, .. }, Predictions::Classes { gold: y, .. }) => x == y,
            (Predictions::Values { gold: x, .. }, Predictions::Values { gold: y, .. }) => x == y,
            (Predictions::Right(_), Predictions::Right(_)) | (Predictions::Each(_), Predictions::Each(_)) => {
                true
            }
            _ => false,
        };
        if !same {
            return fail(
                "the gold answers differ between runs; they must be the same rows in one order".into(),
            );
        }
    }
    Ok(())
}

/// Rows below which nothing is told apart: of five that all differ one way a sign test says p = 0.0625, and resampling
/// them never gives a zero.
const LEAST_ROWS: usize = 6;

/// What may be said.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// One is better, by this much.
    Better {
        /// The better one.
        winner: String,
        /// The other.
        loser: String,
        /// How much, above zero.
        by: f64,
    },
    /// Zero lies within an interval.
    NoDifference,
}

impl Comparison {
    /// b - a, averaged over seeds.
    pub fn difference(&self) -> f64 {
        self.over_rows.estimate
    }

    /// The wider reach of both intervals: what other rows *and* other seeds could have given.
    pub fn interval(&self) -> Interval {
        let rows = self.over_rows;
        match self.over_seeds.map(|t| t.difference) {
            Some(seeds) => Interval { low: rows.low.min(seeds.low), high: rows.high.max(seeds.high), ..rows },
            None => rows,
        }
    }

    /// Whether the arms can be told apart: neither other rows nor other seeds could plausibly undo the difference. One seed
    /// says nothing of others, and two runs of one configuration often differ on more rows than chance gives.
    pub fn told_apart(&self) -> bool {
        self.rows >= LEAST_ROWS && self.over_seeds.is_some() && !self.interval().holds_zero()
    }

    /// One is called better only where they can be told apart.
    pub fn verdict(&self) -> Verdict {
        let by = self.difference();
        if !self.told_apart() {
            return Verdict::NoDifference;
        }
        let (winner, loser) = if by > 0.0 { (&self.b, &self.a) } else { (&self.a, &self.b) };
        Verdict::Better { winner: winner.clone(), loser: loser.clone(), by: by.abs() }
    }
}

impl fmt::Display for Comparison {
    /// The verdict as a sentence with the numbers that it stands on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (interval, metric) = (self.interval(), self.metric.name());
        match self.verdict() {
            Verdict::Better { winner, loser, by } => {
                write!(f, "{winner} is better than {loser} by {by:.4} {metric}")?;
            }
            Verdict::NoDifference => {
                write!(f, "no difference can be told apart between {} and {} in {metric}", self.a, self.b)?;
            }
        }
        let (seeds, rows) = (self.a_by_seed.len(), self.rows);
        let plural = if seeds == 1 { "seed" } else { "seeds" };
        write!(
            f,
            ": {} - {} = {:+.4}, {:.0} % interval {:+.4} to {:+.4} ({seeds} {plural}, {rows} rows)",
            self.b,
            self.a,
            self.difference(),
            100.0 * interval.level,
            interval.low,
            interval.high
        )?;
        match self.over_seeds {
            None if self.rows >= LEAST_ROWS => {
                f.write_str("; that is of other rows, and one seed cannot say what others would give")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(wrong_every: usize, shift: usize) -> Predictions {
        let gold: Vec<u32> = (0..400).map(|i| (i % 3 == 0) as u32).collect();
        let flip = |(i, g): (usize, &u32)| if (i + shift).is_multiple_of(wrong_every) { 1 - g } else { *g };
        Predictions::Classes { predicted: gold.iter().enumerate().map(flip).collect(), gold }
    }

    #[test]
    fn a_plain_difference_is_called_and_signed() {
        let plain = [run(4, 0), run(4, 1), run(4, 2)];
        let sibo = [run(11, 0), run(11, 1), run(11, 2)];
        let c = compare(Metric::Acc, ("plain", &plain), ("SIBO", &sibo), &CompareOptions::default()).unwrap();
        assert!((c.difference() - (0.25 - 110.0 / 1200.0)).abs() < 0.002, "{c}");
        let sentence = c.to_string();
        assert!(sentence.starts_with("SIBO is better than plain by 0.15"), "{sentence}");
        assert!(sentence.ends_with("(3 seeds, 400 rows)"), "{sentence}");
        let swapped =
            compare(Metric::Mcc, ("SIBO", &sibo), ("plain", &plain), &CompareOptions::default()).unwrap();
        assert!(
            matches!(swapped.verdict(), Verdict::Better { winner, by, .. } if winner == "SIBO" && by > 0.0)
        );
        assert_eq!(c.mcnemar.len(), 3);
        assert!(c.mcnemar[0].only_b > c.mcnemar[0].only_a);
    }

    #[test]
    fn seeds_that_disagree_leave_no_verdict() {
        let plain = [run(10, 0), run(10, 1), run(10, 2)];
        let sibo = [run(40, 0), run(9, 1), run(15, 2)];
        let c = compare(Metric::Acc, ("plain", &plain), ("SIBO", &sibo), &CompareOptions::default()).unwrap();
        assert_eq!(c.verdict(), Verdict::NoDifference);
        assert!(
            c.to_string().starts_with("no difference can be told apart between plain and SIBO in acc"),
            "{c}"
        );
        assert!(c.over_seeds.unwrap().difference.holds_zero());
    }

    #[test]
    fn other_rows_or_seeds_are_refused() {
        let options = CompareOptions::default();
        let message = |a: &[Predictions], b: &[Predictions]| {
            compare(Metric::Acc, ("a", a), ("b", b), &options).unwrap_err().to_string()
        };
        assert!(message(&[run(4, 0)], &[]).contains("1 seeds against 0"));
        let short = Predictions::Classes { gold: vec![1, 0], predicted: vec![1, 0] };
        assert!(message(&[run(4, 0)], &[short]).contains("400 rows against 2"));
        let Predictions::Classes { mut gold, predicted } = run(4, 0) else { panic!() };
        gold[5] = 1 - gold[5];
        assert!(
            message(&[run(4, 0)], &[Predictions::Classes { gold, predicted }])
                .contains("gold answers differ")
        );
    }

    #[test]
    fn one_seed_or_five_rows_tell_nothing_apart() {
        let one = compare(
            Metric::Acc,
            ("plain", &[run(4, 0)]),
            ("SIBO", &[run(11, 0)]),
            &CompareOptions::default(),
        )
        .unwrap();
        assert!(!one.interval().holds_zero() && !one.told_apart());
        assert!(one.to_string().ends_with("one seed cannot say what others would give"), "{one}");
        let each = |value: f64, rows: usize| {
            let run = |seed: usize| {
                Predictions::Each((0..rows).map(|i| value + 1e-3 * (i * seed) as f64).collect())
            };
            [run(1), run(2), run(3)]
        };
        let told = |rows: usize| {
            let (a, b) = (each(-2.0, rows), each(-1.5, rows));
            let options = CompareOptions::default();
            compare(Metric::LoglikToken, ("plain", &a), ("SIBO", &b), &options).unwrap().told_apart()
        };
        assert!(!told(5) && told(6));
    }

    /// Two runs of one configuration: each row has a difficulty, each seed a luck of its own, and nothing else
    /// tells the two apart. A verdict is a false alarm, and of a hundred there may be seven at most.
    #[test]
    fn identical_configurations_are_told_apart_in_7_of_100_at_most() {
        use crate::order::{Purpose, below, stream};
        let options =
            CompareOptions { bootstrap: Bootstrap { resamples: 400, seed: 5 }, ..Default::default() };
        for seeds in [1, 3] {
            let mut alarms = 0;
            for repeat in 0..100u64 {
                let mut rng = stream(Purpose::Bootstrap, 7_000 + repeat);
                let hard: Vec<usize> = (0..150).map(|_| 500 + below(&mut rng, 500)).collect();
                let mut answers = || {
                    let luck = below(&mut rng, 60);
                    let right = |h: &usize| below(&mut rng, 1000) + 30 < h + luck;
                    Predictions::Right(hard.iter().map(right).collect())
                };
                let a: Vec<Predictions> = (0..seeds).map(|_| answers()).collect();
                let b: Vec<Predictions> = (0..seeds).map(|_| answers()).collect();
                let found = compare(Metric::Acc, ("one", &a), ("the same", &b), &options).unwrap();
                alarms += usize::from(found.verdict() != Verdict::NoDifference);
            }
            assert!(alarms <= 7, "{seeds} seeds: {alarms} of 100");
        }
    }
}
