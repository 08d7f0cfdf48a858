//! `sibo rescore`: saved answers, read again without a model.

use crate::app::App;
use serde_json::{Value, json};
use sibo_report::{Cell, Column, Table, terminal};
use sibo_tasks::Task;
use sibo_tasks::answer::Reading;
use sibo_tasks::results::rescore::{self, Rereading, Rescored};
use sibo_tasks::results::{self, RunResults};
use std::path::PathBuf;
use std::time::SystemTime;

const LONG_ABOUT: &str = "\
Reads the answers that `sibo eval --output FOLDER --log-samples` saved once more, by the task files and rules of \
now, or by another reading; nothing is generated again:

    sibo rescore results
    sibo rescore results --reading strict-match,last-number
    sibo rescore results --task my-task.toml --output results-again

Of several results in a folder the last is read; a results_<date>.json can be named instead.";

/// Read saved answers again, without generating them again
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    /// The folder of results, or one `results_<date>.json`
    #[arg(value_name = "RESULTS")]
    results: PathBuf,
    /// Readings instead of the task's own, separated by commas: last-number, first-letter, answer-is-letter,
    /// last-letter, label-word, answer-is, strict-match, flexible-extract
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = reading)]
    reading: Vec<Reading>,
    /// TOML files that say how tasks are read, instead of the program's own or those that were evaluated
    #[arg(long, value_name = "FILE")]
    task: Vec<PathBuf>,
    /// A folder for the new results and samples
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

fn reading(word: &str) -> Result<Reading, String> {
    Reading::ALL.into_iter().find(|r| r.name() == word).ok_or_else(|| {
        let names = Reading::ALL.map(Reading::name);
        format!("the readings are {}", names.join(", "))
    })
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    if let Some(folder) = &args.output {
        crate::places::check_folder(folder)?;
    }
    let tasks = args.task.iter().map(|path| Task::from_file(path)).collect::<Result<_, _>>()?;
    let rereading = Rereading { tasks, readings: args.reading };
    let file = match args.results.is_dir() {
        true => rescore::latest(&args.results)?,
        false => args.results,
    };
    let done = rescore::rescore(&file, &rereading)?;
    show(&done, &file.display().to_string(), app);
    if let Some(folder) = &args.output {
        let old: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        let (tasks, samples) =
            done.into_iter().map(|d| (d.result.clone(), (d.result.task, d.samples))).unzip();
        let run = RunResults {
            config: old["config"].clone(),
            date: SystemTime::now(),
            seconds: 0.0,
            model: old["model_name"].as_str().unwrap_or_default().into(),
            program: env!("CARGO_PKG_VERSION").into(),
            tasks,
        };
        let samples: Vec<_> = samples;
        let written = results::write(folder, &run, &samples)?;
        app.out.note(format!("results: {}", written.results.display()));
    }
    Ok(())
}

fn show(done: &[Rescored], file: &str, app: &App) {
    if app.out.json() {
        let rows: Vec<Value> = done.iter().flat_map(as_json).collect();
        app.out.result(Value::from(rows).to_string());
        return;
    }
    let mut table = Table::new(format!("Read again: {file}"))
        .column(Column::text("task"))
        .column(Column::text("asked as"))
        .column(Column::text("metric"))
        .column(Column::number("saved", 4))
        .column(Column::number("now", 4))
        .column(Column::number("standard error", 4))
        .column(Column::number("rows", 0));
    for one in done {
        let config = &one.result.config;
        let name = crate::describe::task_name(&one.result.task, config);
        for (score, before) in one.result.scores.iter().zip(&one.before) {
            let filter = match score.filter.as_str() {
                results::NO_FILTER => String::new(),
                filter => format!(", {filter}"),
            };
            table.push(vec![
                name.clone().into(),
                config["protocol"].as_str().unwrap_or_default().into(),
                format!("{}{filter}", score.metric.name()).into(),
                before.map_or(Cell::Missing, Cell::Number),
                Cell::Number(score.score.value),
                score.score.stderr.map_or(Cell::Missing, Cell::Number),
                Cell::Number(one.result.effective as f64),
            ]);
        }
    }
    app.out.result(terminal::table(&table, app.out.style()));
    for one in done.iter().filter(|d| d.changed > 0) {
        app.out.note(format!("{}: {} saved judgements are another now", one.result.task, one.changed));
    }
}

fn as_json(one: &Rescored) -> Vec<Value> {
    let rows = one.result.scores.iter().zip(&one.before).map(|(score, before)| {
        json!({
            "task": one.result.task, "protocol": one.result.config["protocol"],
            "variant": one.result.config["variant"], "metric": score.metric.name(), "filter": score.filter,
            "saved": before, "now": score.score.value, "stderr": score.score.stderr,
            "rows": one.result.effective, "changed": one.changed,
        })
    });
    rows.collect()
}
