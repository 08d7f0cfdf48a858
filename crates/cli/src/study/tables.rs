//! Tables of a study.

use sibo_report::{Cell, Column, Estimate, Table};
use sibo_tasks::stats::{Comparison, McNemar};
use sibo_train::cells::{self, Question, Record};

/// What the tables of scores say below them.
pub(super) const SCORES_NOTE: &str =
    "Intervals: Student's t over seeds; other rows could move a mean too, see the comparisons.";

/// What the tables of differences say below them.
pub(super) const COMPARISONS_NOTE: &str = "Interval: as far as other rows (paired bootstrap) or other seeds (paired t) \
     could move it; told apart where it does not hold zero, of 6 rows or more. Effect: mean difference in deviations of the seeds' \
     differences (Cohen's d_z). McNemar: exact, seed by seed.";

/// Every arm on one question.
pub(super) fn scores(records: &[Record], question: &Question, text: &str) -> Table {
    let all = cells::scores(records, question);
    let rows = all.first().map_or(0, |s| s.rows);
    let mut seeds: Vec<u64> = Vec::new();
    for record in records {
        if !seeds.contains(&record.seed) {
            seeds.push(record.seed);
        }
    }
    let own = records.first().is_none_or(|r| r.learned(&question.task));
    let far = if own { "" } else { ", out of distribution" };
    let mut table = Table::new(format!("{text}, {rows} rows, asked as {}{far}", question.protocol))
        .column(Column::text("configuration"))
        .column(Column::number("mean [95 %, seeds]", 4))
        .column(Column::number("deviation", 4))
        .column(Column::text(format!("seeds {}", listed(&seeds))))
        .column(Column::number("a run", 1).unit("s"))
        .column(Column::number("trained", 0));
    let mut notes = Vec::new();
    if question.metric.is_share() && all.iter().all(|s| s.by_seed.iter().all(|(_, value)| *value == 0.0)) {
        notes.push("At its floor: nobody had a row right, so this number tells nothing apart.".to_string());
    }
    for score in &all {
        let runs: Vec<bool> = records
            .iter()
            .filter(|r| r.arm == score.arm)
            .filter_map(|r| question.of(r).map(|judged| judged.predictions.are_alike()))
            .collect();
        let alike = runs.iter().filter(|alike| **alike).count();
        if alike > 0 {
            let (arm, of) = (&score.arm, runs.len());
            notes.push(format!(
                "{arm}: {alike} of {of} runs give every row the same class, and learned nothing."
            ));
        }
    }
    if !notes.is_empty() {
        table = table.note(notes.join(" "));
    }
    let best = all.iter().map(|s| s.mean).fold(f64::NEG_INFINITY, f64::max);
    let alone = all.iter().filter(|s| s.mean == best).count() == 1;
    for score in &all {
        let own: Vec<&Record> = records.iter().filter(|r| r.arm == score.arm).collect();
        let seconds = own.iter().map(|r| r.seconds).sum::<f64>() / own.len().max(1) as f64;
        let of_seed = |seed: &u64| score.by_seed.iter().find(|v| v.0 == *seed).map(|v| v.1);
        let shown = |value: Option<f64>| value.map_or("-".to_string(), |v| format!("{v:.3}"));
        let by_seed: Vec<String> = seeds.iter().map(|seed| shown(of_seed(seed))).collect();
        let mean = match &score.interval {
            Some(i) => {
                // Student's interval knows no bounds; the metric does.
                let (least, most) = question.metric.bounds();
                Cell::Estimate(Estimate::between(score.mean, i.low.max(least), i.high.min(most)))
            }
            None => Cell::Number(score.mean),
        };
        let row = vec![
            score.arm.as_str().into(),
            mean,
            score.deviation.map_or(Cell::Missing, Cell::Number),
            by_seed.join(" ").into(),
            Cell::Number(seconds),
            Cell::Number(own.first().map_or(0, |r| r.trained_numbers) as f64),
        ];
        if alone && score.mean == best { table.push_emphasised(row) } else { table.push(row) }
    }
    table
}

fn listed(seeds: &[u64]) -> String {
    seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

/// An effect size that only rounding gives.
const BEYOND: f64 = 1e6;

/// Every comparison on one question, with its tests; in bold what can be told apart.
pub(super) fn comparisons(all: &[(Question, Comparison)], question: &Question, text: &str) -> Table {
    let mut table = Table::new(format!("{text}: differences of pairs with the same seeds, order and rows"))
        .column(Column::text("configuration"))
        .column(Column::text("minus"))
        .column(Column::number("difference [95 %]", 4))
        .column(Column::number("p, seeds", 3))
        .column(Column::number("effect", 2))
        .column(Column::text("McNemar p"))
        .column(Column::text("told apart"));
    for (_, c) in all.iter().filter(|(q, _)| q == question) {
        let i = c.interval();
        let told = c.told_apart();
        // Differences that are the same with every seed (but for rounding) have no deviation to be measured in.
        let seeds = c.over_seeds.filter(|t| t.effect.abs() < BEYOND);
        let row = vec![
            c.b.as_str().into(),
            c.a.as_str().into(),
            Cell::Estimate(Estimate::between(c.difference(), i.low, i.high)),
            seeds.map(|t| t.p).into(),
            seeds.map(|t| t.effect).into(),
            mcnemar(&c.mcnemar).into(),
            if told { "yes" } else { "no" }.into(),
        ];
        if told { table.push_emphasised(row) } else { table.push(row) }
    }
    table
}

/// Each seed's p, or their range where they are many.
fn mcnemar(all: &[McNemar]) -> String {
    let all: Vec<f64> = all.iter().map(|m| m.p).collect();
    if all.len() <= 3 {
        return all.iter().map(|p| format!("{p:.2}")).collect::<Vec<_>>().join(" ");
    }
    let (low, high) = all.iter().fold((1.0f64, 0.0f64), |(l, h), p| (l.min(*p), h.max(*p)));
    format!("{low:.2} to {high:.2}")
}

/// Variations that cannot be, and why.
pub(super) fn refused(all: &[(String, String)]) -> Table {
    let mut table =
        Table::new("Not applicable").column(Column::text("variation")).column(Column::text("why"));
    all.iter().for_each(|(name, why)| table.push(vec![name.as_str().into(), why.as_str().into()]));
    table
}
