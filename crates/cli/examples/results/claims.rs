//! A verdict for each claim of the paper: a rule over differences, never worded by hand.

use crate::cost::{self, Cost};
use crate::study::{Answer, Study, between};
use crate::{Suite, tables};
use sibo_report::{Cell, Column, Document, Table};
use sibo_tasks::{metrics, stats};
use sibo_train::signs;

const RULE: &str = "The unit is a test: a study (rows and a method) on one of its test sets; the interval is Student's over tests. \
    Confirmed: the whole interval lies on the claimed side of zero. Contradicted: it lies on the \
    other side. Otherwise not decidable at this size, and the interval says how large an effect may be hidden. A verdict stays open \
    until all studies of its suite that are planned are done. Tests of one study share its training and studies of one task \
    their rows, so the intervals are narrower than those of independent tests. What SIBO costs is taken from the interleaved timings of \
    `docs/performance.md`, a test being a workload on a machine: these cells ran beside other work. The first two rules stood before any run. That lambda's optimum is \
    only described, how full fine-tuning is held against SIBO, what counts as larger, that of an answer and another model's solution \
    the answer counts, and how small a fall of similarity is none, was settled when some results were known.";

/// The section of verdicts.
pub(crate) fn section(all: &[(&Suite, Vec<Study>)], cost: &Option<Cost>, page: &mut Document) {
    let mut table = Table::new("The paper's claims")
        .column(Column::text("claim"))
        .column(Column::text("what was measured"))
        .column(Column::number("tests", 0))
        .column(Column::number("value [95 %]", 4))
        .column(Column::text("verdict"));
    for (suite, studies) in all.iter().filter(|(suite, _)| suite.planned > 0) {
        let own: Vec<&Study> = studies.iter().filter(|s| !s.is_baseline()).collect();
        scores(&mut table, suite, &own);
        smoothing(&mut table, suite, &own);
        lambdas(&mut table, suite, &own);
        if suite.baselines > 0 {
            full(&mut table, suite, studies);
        }
    }
    larger(&mut table, all);
    if let Some(cost) = cost {
        marginal(&mut table, cost);
    }
    if !table.rows.is_empty() {
        page.section("Verdicts", RULE).push(table.into());
    }
}

/// SIBO scores higher: in distribution, and out of it. Of a worked solution and its answer, the answer counts.
fn scores(table: &mut Table, suite: &Suite, studies: &[&Study]) {
    for (near, words) in
        [(true, "SIBO scores higher than the plain method"), (false, "and out of distribution")]
    {
        let gains = gains(suite, studies, near);
        if !gains.is_empty() {
            let place = if suite.has_far {
                if near { ", in distribution" } else { ", out of distribution" }
            } else {
                ""
            };
            let measured = format!("SIBO - plain, {}{place}", suite.unit);
            Claim { claim: words, measured, side: 1.0, least: 0.0 }.push(table, suite, studies.len(), &gains);
        }
    }
}

/// Whether a suite's verdicts go by this answer's metric.
fn judges(suite: &Suite, answer: &Answer) -> bool {
    suite.metric.is_none_or(|metric| answer.metric == metric)
}

fn gains(suite: &Suite, studies: &[&Study], near: bool) -> Vec<f64> {
    let answers = studies.iter().flat_map(|s| s.answers());
    answers
        .filter(|a| a.near == near && !a.reading.ends_with("reasoning"))
        .filter(|a| judges(suite, a))
        .map(|a| a.difference.estimate)
        .collect()
}

/// Over-smoothing falls, and what that has to do with the score.
fn smoothing(table: &mut Table, suite: &Suite, studies: &[&Study]) {
    let falls: Vec<f64> = studies.iter().filter_map(|s| s.fall()).collect();
    let measured = "similarity of the last layer on validation rows, SIBO - plain".into();
    let claim = Claim { claim: "over-smoothing falls", measured, side: -1.0, least: signs::UNCHANGED };
    claim.push(table, suite, studies.len(), &falls);
    let own = |s: &Study| s.answers().into_iter().find(|a| judges(suite, a));
    let pair = |s: &&Study| Some((s.fall()?, own(s)?.difference.estimate));
    let (changes, gains): (Vec<f64>, Vec<f64>) = studies.iter().filter_map(pair).unzip();
    if changes.len() >= 4
        && let Some(r) = metrics::rank_correlation(&changes, &gains)
    {
        let measured = "Spearman's correlation of the two differences over studies (below 0: they go together), Fieller's interval";
        table.push(row(
            suite,
            "less smoothing goes with a better score",
            measured,
            changes.len(),
            correlated(r, changes.len()),
            "described, not tested".into(),
        ));
    }
}

/// A rank correlation of `n` pairs with its interval: on Fisher's scale its variance is 1.06 / (n - 3) (Fieller, Hartley and
/// Pearson, Biometrika 44, 1957).
fn correlated(r: f64, n: usize) -> Cell {
    let half = 1.96 * (1.06 / (n - 3) as f64).sqrt();
    let z = r.clamp(-0.999_999, 0.999_999).atanh();
    let (low, high) = ((z - half).tanh(), (z + half).tanh());
    between(stats::Interval { estimate: r, low, high, level: stats::LEVEL })
}

/// What SIBO costs, in time and memory, of training, scoring and writing.
fn marginal(table: &mut Table, cost: &Cost) {
    for (what, ratio) in [("time", &cost.time), ("memory", &cost.memory)] {
        let measured = format!(
            "cost: {what} with SIBO / without, geometric mean over workloads of `bench`, on {} machines; marginal is {} at most",
            cost.machines,
            cost::MARGINAL
        );
        table.push(vec![
            "SIBO costs little".into(),
            measured.into(),
            (cost.count as f64).into(),
            between(*ratio),
            cost::verdict(ratio).into(),
        ]);
    }
}

/// Where lambda's optimum lies. The lowest of several losses lies below one loss by chance alone, so this is only described.
fn lambdas(table: &mut Table, suite: &Suite, studies: &[&Study]) {
    let lowest = |s: &&Study| tables::above_plain(s).into_iter().map(|(_, above)| above).reduce(f64::min);
    let best: Vec<f64> = studies.iter().filter_map(lowest).collect();
    let below = best.iter().filter(|above| **above < 0.0).count();
    let measured = format!(
        "best validation loss of the lambdas above zero, per cent above plain's; below it in {below} of {} studies (the best of \
         several lies below one by chance alone)",
        best.len()
    );
    let value = stats::mean_interval(&best, stats::LEVEL).map_or(Cell::Missing, between);
    let described = "described, not tested".into();
    table.push(row(suite, "lambda has an optimum above zero", &measured, best.len(), value, described));
}

/// An adapter with SIBO is level with full fine-tuning. The best of the methods is taken on the test rows, which is SIBO's
/// best case: only that full is better even so is a finding.
fn full(table: &mut Table, suite: &Suite, studies: &[Study]) {
    let below = |base: &Study| {
        let scores = base.scores();
        let full = scores.iter().find(|s| s.0.starts_with("full"))?.1;
        let answers = studies.iter().filter(|s| s.learned == base.learned).flat_map(Study::answers);
        Some(answers.map(|a| a.boosted).reduce(f64::max)? - full)
    };
    let differences: Vec<f64> = studies.iter().filter(|s| s.is_baseline()).filter_map(below).collect();
    let measured = format!("best of the methods with SIBO, taken on the test rows, - full; {}", suite.unit);
    let interval = stats::mean_interval(&differences, stats::LEVEL);
    let found = match &interval {
        Ok(i) if i.high < 0.0 => "contradicted",
        Ok(_) => "not contradicted",
        Err(_) => "too few to say",
    };
    let verdict = opened(differences.len(), suite.baselines, found);
    let value = interval.map_or(Cell::Missing, between);
    let claim = "SIBO-adapters are level with full fine-tuning";
    table.push(row(suite, claim, &measured, differences.len(), value, verdict));
}

/// Gains are larger on reasoning than on language understanding, where both are shares of right answers.
fn larger(table: &mut Table, all: &[(&Suite, Vec<Study>)]) {
    let of = |name: &str| {
        let (suite, studies) = all.iter().find(|(suite, _)| suite.name == name)?;
        let answers: Vec<_> =
            studies.iter().flat_map(Study::answers).filter(|a| a.near && a.metric == "acc").collect();
        let done = studies.iter().filter(|s| !s.is_baseline()).count();
        Some((*suite, done, answers.iter().map(|a| a.difference.estimate).collect::<Vec<f64>>()))
    };
    let (Some((suite, done, reasoning)), Some((other, others_done, glue))) = (of("commonsense"), of("GLUE"))
    else {
        return;
    };
    let (Ok(a), Ok(b)) =
        (stats::mean_interval(&reasoning, stats::LEVEL), stats::mean_interval(&glue, stats::LEVEL))
    else {
        return;
    };
    // Two independent groups: the halves of both intervals add as squares.
    let half = ((a.high - a.low).hypot(b.high - b.low)) / 2.0;
    let estimate = a.estimate - b.estimate;
    let interval =
        stats::Interval { estimate, low: estimate - half, high: estimate + half, level: stats::LEVEL };
    let measured = format!(
        "gain in accuracy, in distribution ({:+.4}), - gain on GLUE's tasks that measure accuracy ({:+.4})",
        a.estimate, b.estimate
    );
    // Where reasoning itself gains nothing, the other's loss is all that the difference tells.
    let found = match (judge(&interval, 1.0, 0.0), a.low > 0.0) {
        ("confirmed", false) => "not confirmed: SIBO costs less there, and gains nothing",
        (found, _) => found,
    };
    let verdict = opened(done + others_done, suite.planned + other.planned, found);
    let tests = reasoning.len() + glue.len();
    table.push(row(suite, "gains are larger on reasoning", &measured, tests, between(interval), verdict));
}

/// A verdict, or that it is open until all studies are done.
fn opened(done: usize, planned: usize, found: &str) -> String {
    match done < planned {
        true => format!("open, {done} of {planned} studies done; by those alone: {found}"),
        false => found.into(),
    }
}

struct Claim<'a> {
    claim: &'a str,
    measured: String,
    /// The side of zero that is claimed: above (1) or below (-1).
    side: f64,
    /// A value nearer zero than this is none, however narrow its interval.
    least: f64,
}

impl Claim<'_> {
    fn push(&self, table: &mut Table, suite: &Suite, studies: usize, values: &[f64]) {
        let Ok(interval) = stats::mean_interval(values, stats::LEVEL) else { return };
        let found = judge(&interval, self.side, self.least);
        let verdict = opened(studies, suite.planned, found);
        table.push(row(suite, self.claim, &self.measured, values.len(), between(interval), verdict));
    }
}

fn judge(interval: &stats::Interval, side: f64, least: f64) -> &'static str {
    let (low, high) = (side * interval.low, side * interval.high);
    if interval.low.abs().max(interval.high.abs()) < least {
        return "contradicted: too small to be called one";
    }
    match (low > 0.0 && high > 0.0, low < 0.0 && high < 0.0) {
        (true, _) => "confirmed",
        (_, true) => "contradicted",
        _ => "not decidable at this size",
    }
}

fn row(suite: &Suite, claim: &str, measured: &str, tests: usize, value: Cell, verdict: String) -> Vec<Cell> {
    vec![
        claim.into(),
        format!("{}: {measured}", suite.name).into(),
        (tests as f64).into(),
        value,
        verdict.into(),
    ]
}
