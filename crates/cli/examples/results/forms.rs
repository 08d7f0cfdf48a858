//! lambda beyond one number: the forms of `runs/lambda`, by validation loss and on the test rows.

use crate::study::{PLAIN, Study, between, list};
use sibo_report::{Block, Cell, Column, Document, Table};
use sibo_tasks::stats;
use std::path::Path;

const TEXT: &str = "LoRA on the encoder, as under GLUE, with lambda in eight forms (`runs/lambda/README.md`). A learned lambda begins at \
    0.4; what it became is the mean over seeds and sites, with the lowest and the highest. The form is chosen by validation loss, and the test rows were read by the plain method and the \
    best of the others. The differences are paired by seed; with so many forms, one in twenty would be told apart by chance.";

/// The section, as far as its studies are done.
pub(crate) fn section(runs: &Path, page: &mut Document) -> anyhow::Result<()> {
    let studies = Study::read_all(&runs.join("lambda"), "")?;
    if studies.is_empty() {
        return Ok(());
    }
    let section = page.section("lambda beyond one number", TEXT);
    section.push(Block::Table(losses(&studies)));
    section.push(Block::Table(tested(&studies)));
    Ok(())
}

/// Every form against plain, by validation loss.
fn losses(studies: &[Study]) -> Table {
    let mut table = Table::new("Validation loss by the form of lambda, mean of the seeds")
        .column(Column::text("task"))
        .column(Column::text("form"))
        .column(Column::number("loss", 4))
        .column(Column::number("above plain [95 % over seeds]", 4))
        .column(Column::text("learned"));
    for study in studies {
        let plain = study.by_seed(PLAIN, "validation_loss");
        for arm in study.arms() {
            let own = study.by_seed(&arm, "validation_loss");
            let above: Vec<f64> =
                plain.iter().filter_map(|(seed, p)| Some(own.iter().find(|o| o.0 == *seed)?.1 - p)).collect();
            let mean = own.iter().map(|o| o.1).sum::<f64>() / own.len() as f64;
            let difference = match stats::mean_interval(&above, stats::LEVEL) {
                Ok(interval) if arm != PLAIN => between(interval),
                _ => Cell::Missing,
            };
            let became = study.became(&arm).map_or(Cell::Missing, Cell::from);
            table.push(vec![
                study.learned.as_str().into(),
                arm.as_str().into(),
                mean.into(),
                difference,
                became,
            ]);
        }
    }
    table
}

/// The best form against plain on the test rows.
fn tested(studies: &[Study]) -> Table {
    let mut table = Table::new("The best form and plain on test rows, mean of the seeds")
        .column(Column::text("task"))
        .column(Column::text("best form"))
        .column(Column::text("metric"))
        .column(Column::number("rows", 0))
        .column(Column::number("plain", 4))
        .column(Column::number("SIBO", 4))
        .column(Column::number("SIBO - plain [95 %]", 4))
        .column(Column::text("verdict"));
    for (study, answer) in studies.iter().flat_map(|s| s.answers().into_iter().map(move |a| (s, a))) {
        table.push(vec![
            study.learned.as_str().into(),
            answer.boosted_arm().into(),
            answer.metric.as_str().into(),
            (answer.rows as f64).into(),
            answer.plain.into(),
            answer.boosted.into(),
            between(answer.difference),
            answer.verdict("SIBO").into(),
        ]);
    }
    table
}

impl Study {
    /// Its arms, in the order in which they were tried.
    fn arms(&self) -> Vec<String> {
        let mut arms: Vec<String> = Vec::new();
        for arm in list(&self.value["cells"]).filter_map(|cell| cell["arm"].as_str()) {
            if !arms.iter().any(|own| own == arm) {
                arms.push(arm.into());
            }
        }
        arms
    }

    /// What an arm's learned lambdas became: mean, lowest and highest over seeds and what shares one.
    fn became(&self, arm: &str) -> Option<String> {
        let own = list(&self.value["cells"]).filter(|cell| cell["arm"] == arm);
        let all: Vec<f64> = own
            .filter_map(|cell| cell["learned_lambdas"].as_object())
            .flat_map(|lambdas| lambdas.values().filter_map(serde_json::Value::as_f64))
            .collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let (low, high) = (all.iter().copied().reduce(f64::min)?, all.iter().copied().reduce(f64::max)?);
        Some(format!("{mean:.2} ({low:.2} to {high:.2})"))
    }

    /// A number of an arm's cells, by seed.
    fn by_seed(&self, arm: &str, key: &str) -> Vec<(u64, f64)> {
        let own = list(&self.value["cells"]).filter(|cell| cell["arm"] == arm);
        own.filter_map(|cell| Some((cell["seed"].as_u64()?, cell[key].as_f64()?))).collect()
    }
}
