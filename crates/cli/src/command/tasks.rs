//! `sibo tasks`: the benchmarks, whether their data is here, and how to get it.

mod download;

use crate::app::App;
use serde_json::{Map, Value, json};
use sibo_report::{Column, Table, terminal};
use sibo_tasks::{Error, Protocol, SplitName, Task, Wanted};
use std::path::Path;

const LONG_ABOUT: &str = "\
Lists the benchmarks that `sibo eval --tasks` and a recipe's `task` can name, what each measures, and which of \
its splits lie below --data. With names, tells all about these tasks: how they are asked, whom to cite, which \
files are looked for, and how to get what is not here:

    sibo tasks
    sibo tasks hellaswag mnli
    sibo tasks hellaswag mnli --download

Data is not part of the program; --download fetches what the Hugging Face hub has of it. A task of your own is one TOML file; give its path in place of a name.";

/// List the benchmarks, whether their data is here, and how to get it
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    /// Tasks to tell all about: names or paths of TOML files
    #[arg(value_name = "TASK")]
    tasks: Vec<String>,
    /// Fetch the splits of these tasks that are not found from the hub into the data folder, as parquet
    #[arg(long, requires = "tasks")]
    download: bool,
}

/// What lies below the data folder for one split.
enum Here {
    /// Rows of the split, what a score on them must say, and the file.
    Rows(usize, String, String),
    NotFound,
    Broken(String),
    /// The task has no such split.
    NoSuchSplit,
}

/// A task and its splits.
struct Found {
    task: Task,
    here: [Here; 3],
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    let root = &app.places.roots().data;
    let opened: Vec<Task> = match args.tasks.is_empty() {
        true => sibo_tasks::names().map(Task::named).collect::<Result<_, _>>()?,
        false => args.tasks.iter().map(|name| Task::open(name)).collect::<Result<_, _>>()?,
    };
    let find = |task: Task| Found { here: SplitName::ALL.map(|split| look(&task, root, split)), task };
    let mut list: Vec<Found> = opened.into_iter().map(find).collect();
    if args.download {
        for found in &list {
            download::fetch_all(&found.task, &found.missing(), root, app)?;
        }
        list = list.into_iter().map(|found| find(found.task)).collect();
    }
    if app.out.json() {
        let rows: Vec<Value> = list.iter().map(|found| found.as_json(root)).collect();
        app.out.result(Value::from(rows).to_string());
        return Ok(());
    }
    if args.tasks.is_empty() {
        overview(&list, root, app);
    } else {
        let all: Vec<String> = list.iter().map(|found| found.all(root)).collect();
        app.out.result(all.join("\n\n"));
    }
    for Found { task, here } in &list {
        for split in here {
            if let Here::Broken(why) = split {
                app.out.warn(format!("{}: {why}", task.name()));
            }
        }
    }
    Ok(())
}

fn overview(list: &[Found], root: &Path, app: &App) {
    let mut table = Table::new(format!("Tasks (data below {})", root.display()))
        .column(Column::text("task"))
        .column(Column::text("measured"))
        .column(Column::text("train / validation / test"))
        .column(Column::text("test rows here"))
        .note("`sibo tasks NAME` tells how a task is asked and how to get what is not found.");
    for Found { task, here } in list {
        let metrics: Vec<&str> = task.spec().metrics.iter().map(|m| m.name()).collect();
        let found: Vec<String> = here.iter().map(Here::text).collect();
        let test = match &here[2] {
            Here::Rows(_, note, _) if note.is_empty() => "all".into(),
            Here::Rows(_, note, _) => note.clone(),
            _ => "none".into(),
        };
        table.push(vec![
            task.name().into(),
            metrics.join(", ").into(),
            found.join(" / ").into(),
            test.into(),
        ]);
    }
    app.out.result(terminal::table(&table, app.out.style()));
    if list.iter().all(|found| found.here.iter().all(|h| !matches!(h, Here::Rows(..)))) {
        app.out
            .note(format!("No data below {}: scripts/get-data fetches it, or set --data.", root.display()));
    }
}

/// Reads a split.
fn look(task: &Task, root: &Path, split: SplitName) -> Here {
    match task.load(root, split, &Wanted { limit: Some(1), ..Wanted::default() }) {
        Ok(found) => {
            // The remark about the limit is ours, not the data's.
            let notes: Vec<String> = found.notes.into_iter().filter(|n| !n.starts_with("1 of ")).collect();
            Here::Rows(found.rows_in_split, notes.join("; "), found.file.display().to_string())
        }
        Err(Error::NoSplit { .. }) => Here::NoSuchSplit,
        Err(Error::NoData { .. }) => Here::NotFound,
        Err(broken) => Here::Broken(broken.to_string()),
    }
}

impl Here {
    fn text(&self) -> String {
        match self {
            Here::Rows(rows, ..) => rows.to_string(),
            Here::NotFound => "not found".into(),
            Here::Broken(_) => "broken".into(),
            Here::NoSuchSplit => "-".into(),
        }
    }

    fn as_json(&self) -> Value {
        match self {
            Here::Rows(rows, note, file) => json!({"rows": rows, "note": note, "file": file}),
            Here::NotFound => json!({"rows": null, "error": "not found"}),
            Here::Broken(why) => json!({"rows": null, "error": why}),
            Here::NoSuchSplit => Value::Null,
        }
    }
}

impl Found {
    fn protocols(&self) -> Vec<&'static str> {
        let has = |p: &&Protocol| self.task.spec().prompt.contains_key(p);
        Protocol::ALL.iter().filter(has).map(|p| p.name()).collect()
    }

    fn as_json(&self, root: &Path) -> Value {
        let spec = self.task.spec();
        let splits = SplitName::ALL.iter().zip(&self.here);
        let splits: Map<String, Value> =
            splits.map(|(split, here)| (split.to_string(), here.as_json())).collect();
        json!({
            "task": self.task.name(), "description": spec.description, "kind": spec.kind.name(),
            "metrics": spec.metrics.iter().map(|m| m.name()).collect::<Vec<_>>(),
            "protocols": self.protocols(), "version": spec.version, "citation": spec.citation,
            "licence": spec.licence, "splits": splits, "get": self.how_to_get(root),
        })
    }

    /// All about the task, for people.
    fn all(&self, root: &Path) -> String {
        let spec = self.task.spec();
        let metrics: Vec<&str> = spec.metrics.iter().map(|m| m.name()).collect();
        let asked = match self.protocols().as_slice() {
            [] => "by a class head only".into(),
            some if spec.labels.is_empty() || spec.kind == sibo_tasks::Kind::MultipleChoice => {
                some.join(", ")
            }
            some => format!("by a class head, or {}", some.join(", ")),
        };
        let mut lines = vec![
            format!("{} (version {}): {}", self.task.name(), spec.version, spec.description),
            format!("  kind        {}, measured by {}", spec.kind.name(), metrics.join(", ")),
            format!("  asked       {asked}"),
            format!("  cite        {}", spec.citation),
            format!("  licence     {}", spec.licence),
        ];
        for (split, here) in SplitName::ALL.iter().zip(&self.here) {
            let text = match here {
                Here::Rows(rows, note, file) if note.is_empty() => format!("{rows} rows in {file}"),
                Here::Rows(rows, note, file) => format!("{rows} rows in {file} ({note})"),
                Here::NoSuchSplit => "the task has none".into(),
                other => other.text(),
            };
            lines.push(format!("  {:<12}{text}", split.to_string()));
        }
        let get = self.how_to_get(root);
        if !get.is_empty() {
            lines.push("  to get what is not found, one of:".into());
            lines.extend(get.iter().map(|way| format!("    {way}")));
        }
        lines.join("\n")
    }

    /// Splits that are not found.
    fn missing(&self) -> Vec<SplitName> {
        let splits = SplitName::ALL.into_iter().zip(&self.here);
        splits.filter(|(_, here)| matches!(here, Here::NotFound)).map(|(split, _)| split).collect()
    }

    /// Ways to get the files of splits that are not found; empty where nothing is missing.
    fn how_to_get(&self, root: &Path) -> Vec<String> {
        let missing = self.missing();
        let mut ways = Vec::new();
        if scripted(self.task.name(), &missing) {
            ways.push(format!("scripts/get-data {} --into {}", self.task.name(), root.display()));
        }
        if !self.task.hub_rows(&missing).is_empty() {
            let name =
                self.task.own_file().map_or(self.task.name().into(), |file| file.display().to_string());
            ways.push(format!("sibo tasks {name} --download --data {}", root.display()));
        }
        let files = self.task.files_wanted(root, &missing);
        ways.extend(files.into_iter().map(|file| format!("a file of your own: {file}")));
        ways
    }
}

/// Whether scripts/get-data has rows of one of these splits: what may not be passed on, or is no plain file, it lacks.
fn scripted(task: &str, missing: &[SplitName]) -> bool {
    let known = sibo_tasks::names().any(|name| name == task);
    known
        && missing.iter().any(|split| match (task, split) {
            ("mrpc" | "qqp", _) | ("openbookqa", SplitName::Validation) => false,
            ("piqa" | "siqa" | "winogrande", split) => *split == SplitName::Test,
            _ => true,
        })
}
