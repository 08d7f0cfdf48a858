//! `sibo tasks`: the benchmarks, and whether their data is here.

use crate::app::App;
use serde_json::{Value, json};
use sibo_report::{Column, Table, terminal};
use sibo_tasks::{Error, Protocol, SplitName, Task, Wanted};
use std::path::Path;

const LONG_ABOUT: &str = "\
Lists the benchmarks that `sibo eval --tasks` and a recipe's `task` can name, what each asks and measures, \
and which of its splits lie below --data. Data is not part of the program: scripts/get-data fetches it. \
A task of your own is one TOML file; give its path in place of a name.";

/// List the benchmarks and whether their data is here
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {}

/// What lies below the data folder for one split.
enum Here {
    /// So many rows, and what a score on them must say.
    Rows(usize, String),
    NotFound,
    Broken(String),
    /// The task has no such split.
    NoSuchSplit,
}

pub(crate) fn run(app: &App) -> anyhow::Result<()> {
    let root = &app.places.roots().data;
    let mut list = Vec::new();
    for name in sibo_tasks::names() {
        let task = Task::named(name)?;
        let here = SplitName::ALL.map(|split| look(&task, root, split));
        list.push((task, here));
    }
    if app.out.json() {
        let rows: Vec<Value> = list.iter().map(|(task, here)| as_json(task, here)).collect();
        app.out.result(Value::from(rows).to_string());
        return Ok(());
    }
    let mut table = Table::new(format!("Tasks (data below {})", root.display()))
        .column(Column::text("task"))
        .column(Column::text("kind"))
        .column(Column::text("measured"))
        .column(Column::text("rows here: train / validation / test"));
    for (task, here) in &list {
        let metrics: Vec<&str> = task.spec().metrics.iter().map(|m| m.name()).collect();
        let found: Vec<String> = here.iter().map(Here::text).collect();
        let kind = task.spec().kind.name();
        table.push(vec![
            task.name().into(),
            kind.into(),
            metrics.join(", ").into(),
            found.join(" / ").into(),
        ]);
    }
    app.out.result(terminal::table(&table, app.out.style()));
    for (task, here) in &list {
        for split in here {
            if let Here::Broken(why) = split {
                app.out.warn(format!("{}: {why}", task.name()));
            }
        }
    }
    if list.iter().all(|(_, here)| here.iter().all(|h| !matches!(h, Here::Rows(..)))) {
        app.out
            .note(format!("No data below {}: scripts/get-data fetches it, or set --data.", root.display()));
    }
    Ok(())
}

/// Reads a split.
fn look(task: &Task, root: &Path, split: SplitName) -> Here {
    match task.load(root, split, &Wanted { limit: Some(1), ..Wanted::default() }) {
        Ok(found) => {
            // The remark about the limit is ours, not the data's.
            let notes: Vec<String> = found.notes.into_iter().filter(|n| !n.starts_with("1 of ")).collect();
            Here::Rows(found.rows_in_split, notes.join("; "))
        }
        Err(Error::NoSplit { .. }) => Here::NoSuchSplit,
        Err(Error::NoData { .. }) => Here::NotFound,
        Err(broken) => Here::Broken(broken.to_string()),
    }
}

impl Here {
    fn text(&self) -> String {
        match self {
            Here::Rows(rows, _) => rows.to_string(),
            Here::NotFound => "not found".into(),
            Here::Broken(_) => "broken".into(),
            Here::NoSuchSplit => "-".into(),
        }
    }

    fn as_json(&self) -> Value {
        match self {
            Here::Rows(rows, note) => json!({"rows": rows, "note": note}),
            Here::NotFound => json!({"rows": null, "error": "not found"}),
            Here::Broken(why) => json!({"rows": null, "error": why}),
            Here::NoSuchSplit => Value::Null,
        }
    }
}

fn as_json(task: &Task, here: &[Here; 3]) -> Value {
    let spec = task.spec();
    let protocols: Vec<&str> =
        Protocol::ALL.iter().filter(|p| spec.prompt.contains_key(p)).map(|p| p.name()).collect();
    let splits: serde_json::Map<String, Value> =
        SplitName::ALL.iter().zip(here).map(|(split, here)| (split.to_string(), here.as_json())).collect();
    json!({
        "task": task.name(), "description": spec.description, "kind": spec.kind.name(),
        "metrics": spec.metrics.iter().map(|m| m.name()).collect::<Vec<_>>(),
        "protocols": protocols, "licence": spec.licence, "splits": splits,
    })
}
