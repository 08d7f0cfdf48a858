//! `sibo report`: one page over finished runs and studies.

use crate::app::{self, App};
use crate::exit::usage;
use crate::looks::{self, Looks};
use crate::places;
use crate::record::{METRICS, PROBE};
use serde_json::Value;
use sibo_report::{
    Axis, Block, Cell, Column, Document, LineChart, Section, Series, Table, Tone, jsonl, number, terminal,
};
use sibo_train::checkpoint;
use sibo_train::recipe::{self, Recipe};
use std::path::{Path, PathBuf};

const LONG_ABOUT: &str = "\
Makes one page of runs that `sibo train` left (their loss and validation curves, speed, memory, and how their \
recipes differ) and of studies that `compare`, `sweep`, `ablate`, `smoothing` or `quickstart` left. The page is one \
file that opens from disk; every table is there as Markdown and CSV, every plot as SVG.

    sibo report runs/plain runs/sibo
    sibo report runs/first --output-dir runs/first";

/// Points over which a loss curve is averaged.
const SMOOTHING_PARTS: usize = 12;

/// Make one page of finished runs and studies
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    /// Folders of runs or studies
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// The folder for the page
    #[arg(long, alias = "output", value_name = "FOLDER", default_value = "runs/report")]
    output_dir: PathBuf,
}

/// What a training run left.
struct Run {
    name: String,
    recipe: Value,
    toml: String,
    steps: Vec<Value>,
    evaluations: Vec<Value>,
    /// The tokens of validation rows, layer by layer, where it was told to look.
    looks: Vec<Value>,
    finished: bool,
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    places::check_folder(&args.output_dir)?;
    let (mut runs, mut studies) = (Vec::new(), Vec::new());
    for folder in &args.runs {
        let study = folder.join("report.json");
        if folder.join(METRICS).is_file() && folder.join(recipe::FILE).is_file() {
            runs.push(read(folder)?);
        } else if study.is_file() {
            studies.push((folder.display().to_string(), Document::read(&study)?));
        } else {
            return Err(usage(format!(
                "{}: neither a run of `sibo train` ({METRICS} and {}) nor a study's folder (report.json)",
                folder.display(),
                recipe::FILE
            )));
        }
    }
    let page = document(&runs, &studies);
    let html = sibo_report::save(&page, &args.output_dir)?;
    sibo_report::save::save_parts(&page, &args.output_dir.join("parts"))?;
    if app.out.json() {
        app.out.result(page.to_json());
        return Ok(());
    }
    if !runs.is_empty() {
        app.out.result(terminal::table(&table(&runs), app.out.style()));
        let looks = looks_of(&runs);
        if !looks.is_empty() {
            app.out.result("");
            app.out.result(terminal::table(&looks::table(&looks), app.out.style()));
        }
    }
    for (name, study) in &studies {
        app.out.result(format!("{name}: {}", study.verdict));
    }
    app.out.result(format!("Report: {}", html.display()));
    Ok(())
}

fn read(folder: &Path) -> anyhow::Result<Run> {
    let file = folder.join(recipe::FILE);
    let recipe = Recipe::read(&file)?;
    let all = jsonl::read::<Value>(&folder.join(METRICS))?.records;
    let kind = |name: &str| all.iter().filter(|r| r["kind"] == name).cloned().collect();
    Ok(Run {
        name: folder.display().to_string(),
        recipe: recipe.to_value(),
        toml: recipe.to_toml(),
        steps: kind("step"),
        evaluations: kind("evaluation"),
        looks: kind(PROBE),
        finished: folder.join(checkpoint::ADAPTER).is_dir(),
    })
}

/// A value of each record, over its step.
fn points(records: &[Value], key: &str) -> Vec<(f64, f64)> {
    let point = |r: &Value| Some((r["step"].as_f64()?, r[key].as_f64()?));
    records.iter().filter_map(point).collect()
}

/// What a run has under one key on its last step.
fn last(run: &Run, key: &str) -> Option<f64> {
    points(&run.steps, key).last().map(|p| p.1)
}

/// Of two runs the first is plain and the second boosted in the colours too, where their lambdas say so.
fn tone(runs: &[Run], at: usize) -> Tone {
    let lambda =
        |run: &Run| run.recipe.pointer("/adapter/sibo/lambda").and_then(Value::as_f64).unwrap_or(0.0);
    match (runs.len() <= 2, lambda(&runs[at]) > 0.0) {
        (true, false) if at == 0 || lambda(&runs[0]) > 0.0 => Tone::Plain,
        (true, true) if at == 1 || runs.len() == 1 || lambda(&runs[1]) == 0.0 => Tone::Sibo,
        _ => Tone::Other(at as u8),
    }
}

fn document(runs: &[Run], studies: &[(String, Document)]) -> Document {
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
        section.push(Block::Table(differences(runs)));
        let curves = page.section("Curves", "");
        curves.push(chart(runs, "Training loss", "loss", |r| points(&r.steps, "loss"), true).into());
        curves.push(
            chart(runs, "Validation loss", "loss", |r| points(&r.evaluations, "eval_loss"), false).into(),
        );
        curves.push(
            chart(runs, "Norm of the gradient", "norm", |r| points(&r.steps, "grad_norm"), true).into(),
        );
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

fn looks_of(runs: &[Run]) -> Vec<Looks> {
    runs.iter().enumerate().filter_map(|(at, run)| Looks::of(&run.name, tone(runs, at), &run.looks)).collect()
}

fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn table(runs: &[Run]) -> Table {
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
        let method = run.recipe.pointer("/adapter/method").and_then(Value::as_str).unwrap_or_default();
        let lambda = run.recipe.pointer("/adapter/sibo/lambda").cloned().unwrap_or(Value::from(0));
        let best =
            points(&run.evaluations, "eval_loss").into_iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
        let seconds: f64 = points(&run.steps, "seconds").iter().map(|p| p.1).sum();
        let tokens: f64 = points(&run.steps, "tokens").iter().map(|p| p.1).sum();
        let state = if run.finished { "" } else { " (not finished)" };
        table.push(vec![
            format!("{}{state}", run.name).into(),
            method.into(),
            lambda.to_string().into(),
            run.recipe["seed"].as_f64().into(),
            Cell::Number(run.steps.len() as f64),
            last(run, "loss").into(),
            best.is_finite().then_some(best).into(),
            (seconds > 0.0).then(|| tokens / seconds).into(),
            last(run, "peak_memory_mib").into(),
        ]);
    }
    table
}

/// Keys of the recipes that are not the same in all runs.
fn differences(runs: &[Run]) -> Table {
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
    runs: &[Run],
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
