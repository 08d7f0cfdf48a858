//! Runs and studies as one document.

use super::Run;
use crate::app;
use crate::looks::{self, Looks};
use serde_json::Value;
use sibo_report::metrics::column;
use sibo_report::{Axis, Block, Cell, Column, Document, LineChart, Section, Series, Table, Tone, number};

/// Points over which a loss curve is averaged.
const SMOOTHING_PARTS: usize = 12;

/// Of two runs the first is plain and the second boosted in the colours too, where their lambdas say so.
fn tone(runs: &[&Run], at: usize) -> Tone {
    match (runs.len() <= 2, runs[at].is_boosted()) {
        (true, false) if at == 0 || runs[0].is_boosted() => Tone::Plain,
        (true, true) if at == 1 || runs.len() == 1 || !runs[1].is_boosted() => Tone::Sibo,
        _ => Tone::Other(at as u8),
    }
}

/// The page of these runs and of the documents that studies left, each with its folder's name.
pub(crate) fn document(runs: &[&Run], studies: &[(String, Document)]) -> Document {
    let verdict = match (runs.len(), studies.first()) {
        (0, Some((_, study))) if studies.len() == 1 => study.verdict.clone(),
        (runs, _) => {
            format!("{} and {}.", count(runs, "run", "runs"), count(studies.len(), "study", "studies"))
        }
    };
    let mut page = Document::new("Runs and studies", verdict);
    page.made_by = app::made_by();
    if !runs.is_empty() {
        let section = page.section("Runs", "");
        section.push(table(runs).into());
        if runs.len() > 1 {
            section.push(Block::Table(differences(runs)));
        }
        page.section("Curves", "").blocks = curves(runs).into_iter().map(Block::from).collect();
        let looks = looks_of(runs);
        if !looks.is_empty() {
            let text = "How alike the tokens of the same validation rows became as the runs went on (`probe_every`).";
            page.section("Over-smoothing over training", text).blocks = looks::blocks(&looks);
        }
    }
    for (name, study) in studies {
        let facts: Vec<String> =
            study.facts.iter().map(|(label, value)| format!("{label}: {value}")).collect();
        let head = page.section(format!("{}: {}", name, study.title), study.verdict.clone());
        if !facts.is_empty() {
            head.push(Block::Notes(facts));
        }
        let named = |s: &Section| Section { heading: format!("{name}: {}", s.heading), ..s.clone() };
        page.sections.extend(study.sections.iter().map(named));
    }
    if !runs.is_empty() {
        let recipes = page.section("Recipes", "What each run took, every default filled in.");
        for run in runs {
            recipes.push(Block::Paragraph(format!("`{}`", run.name)));
            recipes.push(Block::Code { language: "toml".into(), text: run.toml.clone() });
        }
    }
    page
}

/// Loss, validation loss and size of the gradient over steps, as far as there are any.
fn curves(runs: &[&Run]) -> Vec<LineChart> {
    let steps = |name: &'static str| move |r: &Run| column(r.steps(), name).to_vec();
    let validation = |r: &Run| column(r.evaluations(), "eval_loss").to_vec();
    let all = [
        chart(runs, "Training loss", "loss", steps("loss"), true),
        chart(runs, "Validation loss", "loss", validation, false),
        chart(runs, "Norm of the gradient", "norm", steps("grad_norm"), true),
    ];
    all.into_iter().filter(|chart| chart.series.iter().any(|s| !s.points.is_empty())).collect()
}

/// Those runs that looked at their tokens while they trained.
pub(crate) fn looks_of(runs: &[&Run]) -> Vec<Looks> {
    runs.iter()
        .enumerate()
        .filter_map(|(at, run)| Looks::of(&run.name, tone(runs, at), run.probes()))
        .collect()
}

fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// What each run came to.
pub(crate) fn table(runs: &[&Run]) -> Table {
    let mut table = Table::new("Runs of sibo train")
        .column(Column::text("run"))
        .column(Column::text("method"))
        .column(Column::text("lambda"))
        .column(Column::number("seed", 0))
        .column(Column::number("steps", 0))
        .column(Column::number("last loss", 4))
        .column(Column::number("best validation loss", 4))
        .column(Column::number("tokens/s", 0))
        .column(Column::number("peak", 0).unit("MiB"))
        .note("Last loss: of the last step's rows only. A run without its adapter has not finished.");
    for run in runs {
        let sum = |name: &str| column(run.steps(), name).iter().map(|p| p.1).sum::<f64>();
        let (seconds, tokens) = (sum("seconds"), sum("tokens"));
        let state = if run.finished { "" } else { " (not finished)" };
        table.push(vec![
            format!("{}{state}", run.name).into(),
            run.method().into(),
            run.lambda().to_string().into(),
            run.recipe["seed"].as_f64().into(),
            Cell::Number(run.done() as f64),
            run.last("loss").into(),
            run.best_validation().into(),
            (seconds > 0.0).then(|| tokens / seconds).into(),
            run.last("peak_memory_mib").into(),
        ]);
    }
    table
}

/// Keys of the recipes that are not the same in all runs.
fn differences(runs: &[&Run]) -> Table {
    let mut table = Table::new("Where the recipes differ").column(Column::text("key"));
    for run in runs {
        table = table.column(Column::text(run.name.clone()));
    }
    let flat: Vec<Vec<(String, String)>> = runs.iter().map(|r| flatten("", &r.recipe)).collect();
    let mut keys: Vec<&String> = flat.iter().flatten().map(|(key, _)| key).collect();
    keys.sort();
    keys.dedup();
    for key in keys.into_iter().filter(|k| *k != "output_dir") {
        let value = |own: &Vec<(String, String)>| own.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
        let values: Vec<Option<String>> = flat.iter().map(value).collect();
        if values.iter().any(|v| *v != values[0]) {
            table.push(
                std::iter::once(key.clone().into()).chain(values.into_iter().map(Cell::from)).collect(),
            );
        }
    }
    table
}

fn flatten(prefix: &str, value: &Value) -> Vec<(String, String)> {
    match value.as_object() {
        Some(table) => {
            let path = |key: &String| if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            table.iter().flat_map(|(key, value)| flatten(&path(key), value)).collect()
        }
        None => vec![(prefix.into(), value.to_string())],
    }
}

fn chart(
    runs: &[&Run],
    title: &str,
    axis: &str,
    of: impl Fn(&Run) -> Vec<(f64, f64)>,
    smooth: bool,
) -> LineChart {
    let longest = runs.iter().map(|r| of(r).len()).max().unwrap_or(0);
    let window = if smooth { (longest / SMOOTHING_PARTS).max(1) } else { 1 };
    let series = runs
        .iter()
        .enumerate()
        .map(|(at, run)| Series::new(run.name.clone(), tone(runs, at), of(run)).smoothed(window));
    let caption = match window {
        1 => String::new(),
        n => format!("Mean over the last {} steps.", number::fixed(n as f64, 0)),
    };
    LineChart {
        title: title.into(),
        caption,
        x: Axis::new("optimiser step", 0),
        y: Axis::new(axis, 4),
        series: series.collect(),
        band: None,
    }
}
