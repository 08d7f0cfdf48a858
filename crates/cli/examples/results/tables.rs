//! The tables of one suite.

use crate::study::{PLAIN, Study, between};
use sibo_report::{Block, Cell, Column, Document, Table};
use sibo_tasks::stats;
use std::collections::{BTreeMap, BTreeSet};

/// The section of a suite.
pub(crate) fn suite(title: &str, note: &str, studies: &[Study], page: &mut Document) {
    let (cells, seconds) =
        studies.iter().map(Study::cost).fold((0, 0.0), |sum, own| (sum.0 + own.0, sum.1 + own.1));
    let text = format!(
        "{}, {cells} cells, {} of training. {note}lambda is the best of the grid above zero by validation loss; the \
         interval is the wider of what other rows and other seeds could have given.",
        match studies.len() {
            1 => "1 study".into(),
            n => format!("{n} studies"),
        },
        sibo_report::number::duration(seconds)
    );
    let mut blocks = vec![Block::Table(pairs(studies)), Block::Table(profile(studies))];
    blocks.extend(baselines(studies).map(Block::Table));
    let section = page.section(title, text);
    for block in blocks {
        section.push(block);
    }
}

/// Plain against boosted on the test rows.
fn pairs(studies: &[Study]) -> Table {
    let several = studies.iter().any(|s| s.answers().len() > 1);
    let mut table = Table::new("Plain and SIBO on test rows, mean of the seeds")
        .column(Column::text(if several { "learned" } else { "task" }))
        .column(Column::text("method"));
    if several {
        table = table.column(Column::text("tested on")).column(Column::text("distribution"));
    }
    table = table
        .column(Column::text("metric"))
        .column(Column::number("rows", 0))
        .column(Column::number("plain", 4))
        .column(Column::text("lambda"))
        .column(Column::number("SIBO", 4))
        .column(Column::number("SIBO - plain [95 %]", 4))
        .column(Column::text("verdict"))
        .column(Column::number("similarity, plain", 3))
        .column(Column::number("SIBO", 3));
    for study in studies.iter().filter(|s| !s.is_baseline()) {
        let similarity = study.by_arm("similarity");
        let of = |arm: &str| similarity.get(arm).copied();
        for answer in study.answers() {
            let mut row: Vec<Cell> = vec![study.learned.as_str().into(), study.method.as_str().into()];
            if several {
                row.extend([answer.task.as_str().into(), if answer.near { "in" } else { "out" }.into()]);
            }
            row.extend([
                match answer.reading.as_str() {
                    "" => answer.metric.as_str().into(),
                    // A likelihood is of a text, a share of what was read.
                    reading if answer.metric.starts_with("loglik") => {
                        format!("{} of the {reading}", answer.metric).into()
                    }
                    reading => format!("{}, {reading}", answer.metric).into(),
                },
                (answer.rows as f64).into(),
                answer.plain.into(),
                answer.lambda.as_str().into(),
                answer.boosted.into(),
                between(answer.difference),
                answer.verdict("SIBO").into(),
                of(PLAIN).into(),
                of(&answer.boosted_arm()).into(),
            ]);
            table.push(row);
        }
    }
    table
}

/// Validation loss over lambda, relative to lambda 0, mean over the studies of a method.
fn profile(studies: &[Study]) -> Table {
    let mut losses: BTreeMap<&str, BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    for study in studies.iter().filter(|s| !s.is_baseline()) {
        for (lambda, above) in above_plain(study) {
            losses.entry(&study.method).or_default().entry(lambda).or_default().push(above);
        }
    }
    let lambdas: BTreeSet<String> = losses.values().flat_map(|m| m.keys().cloned()).collect();
    let mut table = Table::new(
        "Validation loss over lambda: per cent above plain, mean of the studies [95 % over studies]",
    )
    .column(Column::text("method"));
    for lambda in &lambdas {
        table = table.column(Column::number(format!("lambda {lambda}"), 2));
    }
    for (method, own) in &losses {
        let cell = |lambda: &String| match own.get(lambda) {
            Some(values) => match stats::mean_interval(values, stats::LEVEL) {
                Ok(interval) => between(interval),
                Err(_) => values[0].into(),
            },
            None => Cell::Missing,
        };
        table.push(std::iter::once((*method).into()).chain(lambdas.iter().map(cell)).collect());
    }
    table
}

/// Of each lambda above zero, by how many per cent its validation loss is above the plain method's.
pub(crate) fn above_plain(study: &Study) -> Vec<(String, f64)> {
    let losses = study.by_arm("validation_loss");
    let Some(plain) = losses.get(PLAIN) else { return vec![] };
    let boosted = losses.iter().filter(|(arm, _)| *arm != PLAIN);
    boosted
        .map(|(arm, loss)| (arm.trim_start_matches("lambda ").to_string(), 100.0 * (loss / plain - 1.0)))
        .collect()
}

/// Baselines beside the adapters, plain and boosted.
fn baselines(studies: &[Study]) -> Option<Table> {
    let methods = ["head", "bitfit", "full"];
    let mut table =
        Table::new("Beside the baselines, test rows, mean of the seeds").column(Column::text("task"));
    for method in methods {
        table = table.column(Column::number(method, 4));
    }
    table = table.column(Column::number("best plain adapter", 4)).column(Column::number("best with SIBO", 4));
    for base in studies.iter().filter(|s| s.is_baseline()) {
        let scores = base.scores();
        let of = |arm: &str| scores.iter().find(|s| s.0.starts_with(arm)).map(|s| s.1);
        let answers: Vec<_> =
            studies.iter().filter(|s| s.learned == base.learned).flat_map(Study::answers).collect();
        let plain = answers.iter().map(|a| a.plain).reduce(f64::max);
        let boosted = answers.iter().map(|a| a.boosted).reduce(f64::max);
        let mut row: Vec<Cell> = vec![base.learned.as_str().into()];
        row.extend(methods.iter().map(|m| Cell::from(of(m))));
        row.extend([plain.into(), boosted.into()]);
        table.push(row);
    }
    (!table.rows.is_empty()).then_some(table)
}
