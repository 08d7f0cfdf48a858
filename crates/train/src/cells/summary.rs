//! What cells say together: scores by arm, paired comparisons, signs.

use super::{Judged, Record};
use crate::Error;
use crate::signs::{self, Sign};
use serde::Serialize;
use sibo_tasks::Metric;
use sibo_tasks::metrics::Predictions;
use sibo_tasks::stats::{self, CompareOptions, Comparison, Interval, LEVEL};

/// The probability with which the smallest detectable difference would be found.
const POWER: f64 = 0.8;

/// The accuracy that it is told for before any run.
const EXPECTED_ACCURACY: f64 = 0.8;

/// A number that every cell of a study has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Question {
    /// The task.
    pub task: String,
    /// The rows.
    pub split: String,
    /// How it was asked.
    pub protocol: String,
    /// The metric.
    pub metric: Metric,
    /// The answer reading.
    pub filter: String,
}

/// The question that a number answers.
pub fn question(judged: &Judged) -> Question {
    let Judged { task, split, protocol, metric, filter, .. } = judged;
    Question {
        task: task.clone(),
        split: split.clone(),
        protocol: protocol.clone(),
        metric: *metric,
        filter: filter.clone(),
    }
}

impl Question {
    /// What a cell says to it.
    pub fn of<'r>(&self, record: &'r Record) -> Option<&'r Judged> {
        record.judged.iter().find(|j| question(j) == *self)
    }

    /// `qnli, test: acc`, with the reading where there is one.
    pub fn text(&self) -> String {
        self.text_of(&self.task)
    }

    /// The same with the task as `task` names it.
    pub fn text_of(&self, task: &str) -> String {
        let reading = match self.filter.as_str() {
            sibo_tasks::results::NO_FILTER => String::new(),
            filter => format!(" ({filter})"),
        };
        format!("{task}, {}: {}{reading}", self.split, self.metric.name())
    }
}

/// What one arm scored on one question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmScore {
    /// The arm.
    pub arm: String,
    /// Seed and value of each run.
    pub by_seed: Vec<(u64, f64)>,
    /// Their mean.
    pub mean: f64,
    /// Their sample deviation, with two seeds or more.
    pub deviation: Option<f64>,
    /// Student's interval over seeds, with two or more.
    pub interval: Option<Interval>,
    /// Rows of the question.
    pub rows: usize,
}

/// Every arm's score on `question`, in the order in which arms first occur.
pub fn scores(records: &[Record], question: &Question) -> Vec<ArmScore> {
    let mut arms: Vec<&str> = Vec::new();
    records.iter().for_each(|r| {
        if !arms.contains(&r.arm.as_str()) {
            arms.push(&r.arm);
        }
    });
    let score = |arm: &str| {
        let own = records.iter().filter(|r| r.arm == arm);
        let found: Vec<(u64, &Judged)> = own.filter_map(|r| Some((r.seed, question.of(r)?))).collect();
        let by_seed: Vec<(u64, f64)> = found.iter().map(|(seed, j)| (*seed, j.value)).collect();
        let values: Vec<f64> = by_seed.iter().map(|v| v.1).collect();
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let many = values.len() > 1;
        ArmScore {
            arm: arm.into(),
            mean,
            deviation: many.then(|| (squares / (values.len() - 1) as f64).sqrt()),
            interval: stats::mean_interval(&values, LEVEL).ok(),
            rows: found.first().map_or(0, |(_, j)| j.predictions.len()),
            by_seed,
        }
    };
    arms.into_iter().map(score).filter(|s| !s.by_seed.is_empty()).collect()
}

/// Two arms to hold against each other: the second is asked to be better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairing {
    /// The first arm.
    pub a: String,
    /// The second.
    pub b: String,
}

/// Compares the pairs on every question that all their cells answered.
pub fn verdicts(
    records: &[Record],
    pairs: &[Pairing],
    questions: &[Question],
    options: &CompareOptions,
) -> Result<Vec<(Question, Comparison)>, Error> {
    let mut all = Vec::new();
    for question in questions {
        for Pairing { a, b } in pairs {
            let (first, second) = paired(records, question, a, b);
            if first.is_empty() {
                continue;
            }
            let (a, b) = ((a.as_str(), &first[..]), (b.as_str(), &second[..]));
            all.push((question.clone(), stats::compare(question.metric, a, b, options)?));
        }
    }
    Ok(all)
}

/// The answers of both arms, by the seeds that both have.
fn paired(records: &[Record], question: &Question, a: &str, b: &str) -> (Vec<Predictions>, Vec<Predictions>) {
    let of = |arm: &str, seed: u64| {
        let record = records.iter().find(|r| r.arm == arm && r.seed == seed)?;
        question.of(record).map(|j| j.predictions.clone())
    };
    let seeds = records.iter().filter(|r| r.arm == a).map(|r| r.seed);
    seeds.filter_map(|seed| Some((of(a, seed)?, of(b, seed)?))).unzip()
}

/// Before the first run: the smallest true difference in accuracy that these rows and seeds tell apart with 80 %
/// power, at an accuracy of 0.8.
pub fn expect(rows: usize, seeds: usize) -> Result<f64, Error> {
    Ok(stats::smallest_detectable(&stats::Design::expecting(EXPECTED_ACCURACY, rows, seeds), LEVEL, POWER)?)
}

/// The same for a mean of the rows' log-likelihoods, as a share of the standard deviation of the rows' differences.
pub fn expect_of_likelihoods(rows: usize) -> Result<f64, Error> {
    Ok(stats::smallest_effect(rows, LEVEL, POWER)?)
}

/// The arms with runs that diverged.
pub fn diverged(records: &[Record]) -> Vec<(String, Sign)> {
    let mut all: Vec<(String, Sign)> = Vec::new();
    for record in records {
        let Some(why) = &record.diverged else { continue };
        if all.iter().any(|(arm, _)| *arm == record.arm) {
            continue;
        }
        let own = || records.iter().filter(|r| r.arm == record.arm);
        let runs = own().filter(|r| r.diverged.is_some()).count();
        let first = format!("seed {}: {why}", record.seed);
        all.push((record.arm.clone(), Sign::Diverged { runs, of: own().count(), first }));
    }
    all
}

/// What a reader of arm `b` beside its plain arm `a` should know.
pub fn signs_of(records: &[Record], a: &str, b: &str, comparison: Option<&Comparison>) -> Vec<Sign> {
    let whole = |r: &&Record| r.diverged.is_none();
    let of =
        |arm: &str| records.iter().filter(|r| r.arm == arm).filter(whole).cloned().collect::<Vec<Record>>();
    let (plain, sibo) = (of(a), of(b));
    if sibo.is_empty() {
        return vec![];
    }
    let mean = |runs: &[Record], value: fn(&Record) -> Option<f64>| {
        let all: Option<Vec<f64>> = runs.iter().map(value).collect();
        all.filter(|v| !v.is_empty()).map(|v| v.iter().sum::<f64>() / v.len() as f64)
    };
    let similar = || {
        let before = mean(&plain, |r| r.before.last().map(|l| l.similarity))?;
        let pair = |own: &Record| {
            let twin = plain.iter().find(|r| r.seed == own.seed)?;
            Some((twin.similarity()?, own.similarity()?))
        };
        let pairs: Vec<(f64, f64)> = sibo.iter().filter_map(pair).collect();
        signs::too_low(before, &pairs)
    };
    let ratios: Vec<f64> = sibo.iter().filter_map(|r| r.h0_ratio).collect();
    let ratio = (!ratios.is_empty()).then(|| ratios.iter().sum::<f64>() / ratios.len() as f64);
    let shares: Option<Vec<(f64, f64)>> = sibo.iter().map(|r| r.branch_share).collect();
    let shares = shares.filter(|s| !s.is_empty()).map(|s| {
        let mean = |of: fn(&(f64, f64)) -> f64| s.iter().map(of).sum::<f64>() / s.len() as f64;
        (mean(|v| v.0), mean(|v| v.1))
    });
    // Where the plain loss falls, lambda is what a stall comes from.
    let too_high = signs::too_high(&mean_losses(&plain), &mean_losses(&sibo));
    // And a lambda that stalls the training acts.
    let (noise, low) = match too_high {
        Some(_) => (None, None),
        None => (shares.and_then(|shares| signs::only_noise(shares, &mean_losses(&sibo))), similar()),
    };
    [
        signs::no_site(true, sibo.iter().map(|r| r.injected).sum()),
        too_high,
        noise,
        low,
        ratio.and_then(signs::negligible),
        comparison.and_then(|c| {
            let i = c.interval();
            signs::within_noise(c.difference(), (i.low, i.high))
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Step by step, the mean loss of several runs of one length.
fn mean_losses(runs: &[Record]) -> Vec<f64> {
    let steps = runs.iter().map(|r| r.losses.len()).min().unwrap_or(0);
    (0..steps).map(|i| runs.iter().map(|r| r.losses[i]).sum::<f64>() / runs.len() as f64).collect()
}
