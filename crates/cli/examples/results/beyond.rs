//! What goes beyond the paper: the rule for lambda judged against the sweeps, and where h0 enters.

use crate::study::{PLAIN, Study, between};
use sibo_report::{Cell, Column, Document, Table};
use sibo_tasks::stats;
use std::path::Path;

/// Both sections, as far as their studies are done.
pub(crate) fn sections(runs: &Path, page: &mut Document) -> anyhow::Result<()> {
    let (rule, sweeps) = (Study::read_all(&runs.join("rule"), "")?, Study::read_all(&runs.join("glue"), "")?);
    if let Some((table, verdict)) = judged(&rule, &sweeps) {
        page.section("The rule for lambda", RULE)
            .push(table.into())
            .push(sibo_report::Block::Paragraph(verdict));
    }
    let placements = Study::read_all(&runs.join("placement"), "")?;
    if !placements.is_empty() {
        page.section("Where h0 enters", PLACEMENT).push(placed(&placements).into());
    }
    Ok(())
}

const RULE: &str = "`docs/lambda.md` states a rule that reads a lambda off one forward pass, without labels; it was written, with its \
    predictions, before any sweep ran but SST-2's, which is shown and does not count. Each line holds its validation loss (mean of five seeds, the same as the \
    sweep's; the instruction set may be another, which cells of before 28 November 2026 do not record, so equal settings need not give equal bits) against the plain method's and against the best of the sweep's grid, 0 among it. Below 0 the rule is better.";

const PLACEMENT: &str = "The same recipe with h0 entering elsewhere or otherwise, each against the plain method with the same seeds, by \
    validation rows. \"Every site\" and \"after attention and FFN\" are the paper's placement.";

/// The task whose sweep had run when the rule was written.
const SEEN: &str = "sst2";

/// Each study of the rule beside its sweep.
fn judged(rule: &[Study], sweeps: &[Study]) -> Option<(Table, String)> {
    let mut table =
        Table::new("The suggested lambda against plain and against the best of the grid, by validation loss")
            .column(Column::text("task"))
            .column(Column::text("method"))
            .column(Column::text("suggested"))
            .column(Column::number("its loss", 4))
            .column(Column::number("plain", 4))
            .column(Column::text("best of the grid"))
            .column(Column::number("its loss", 4))
            .column(Column::number("per cent above plain", 2))
            .column(Column::number("per cent above the best", 2));
    let (mut over_plain, mut over_best) = (Vec::new(), Vec::new());
    for study in rule {
        let own = study.by_arm("validation_loss");
        let Some((arm, loss)) = own.iter().find(|(arm, _)| arm.contains("suggested")) else { continue };
        let same = |s: &&Study| s.learned == study.learned && s.method == study.method;
        let Some(grid) = sweeps.iter().find(same).map(|s| s.by_arm("validation_loss")) else { continue };
        let (Some(plain), Some(best)) = (grid.get(PLAIN), grid.iter().min_by(|a, b| a.1.total_cmp(b.1)))
        else {
            continue;
        };
        let above = |other: f64| 100.0 * (loss / other - 1.0);
        if study.learned != SEEN {
            over_plain.push(above(*plain));
            over_best.push(above(*best.1));
        }
        table.push(vec![
            study.learned.as_str().into(),
            study.method.as_str().into(),
            arm.trim_start_matches("lambda suggested ").into(),
            (*loss).into(),
            (*plain).into(),
            best.0.trim_start_matches("lambda ").into(),
            (*best.1).into(),
            above(*plain).into(),
            above(*best.1).into(),
        ]);
    }
    if over_plain.is_empty() {
        return None;
    }
    let interval = |values: &[f64]| match stats::mean_interval(values, stats::LEVEL) {
        Ok(i) => format!("{:+.2} % (95 % over studies: {:+.2} to {:+.2})", i.estimate, i.low, i.high),
        Err(_) => format!("{:+.2} % (one study)", values[0]),
    };
    let helps = match stats::mean_interval(&over_plain, stats::LEVEL) {
        Ok(i) if i.high < 0.0 => "It helps.",
        Ok(i) if i.low > 0.0 => "It does not: no SIBO at all would have been the better choice.",
        _ => "Whether it helps is not decidable from these.",
    };
    let worse = over_plain.iter().filter(|above| **above > 0.0).count();
    let text = format!(
        "Over the {} studies that count, the suggested lambda's loss is above the plain method's in {worse}; it is {} from the plain method's and {} above the best of the grid. {helps}",
        over_plain.len(),
        interval(&over_plain),
        interval(&over_best)
    );
    Some((table, text))
}

/// Every variation against its plain method.
fn placed(studies: &[Study]) -> Table {
    let mut table = Table::new("Variations of where and how h0 enters, validation rows, mean of the seeds")
        .column(Column::text("task"))
        .column(Column::text("method"))
        .column(Column::text("variation"))
        .column(Column::text("metric"))
        .column(Column::number("plain", 4))
        .column(Column::number("varied", 4))
        .column(Column::number("varied - plain [95 %]", 4))
        .column(Column::text("verdict"));
    for study in studies {
        for answer in study.answers_on("validation") {
            let row: Vec<Cell> = vec![
                study.learned.as_str().into(),
                study.method.as_str().into(),
                answer.lambda.as_str().into(),
                answer.metric.as_str().into(),
                answer.plain.into(),
                answer.boosted.into(),
                between(answer.difference),
                answer.verdict("variation").into(),
            ];
            table.push(row);
        }
    }
    table
}
