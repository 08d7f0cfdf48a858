//! `sibo data check`: test rows that are also training rows.

use crate::app::App;
use crate::exit::usage;
use crate::leaks::{self, Training};
use serde_json::{Value, json};
use sibo_report::{Cell, Column, Table, terminal};
use sibo_tasks::overlap::{Likeness, NGRAM, Overlap};
use sibo_tasks::{Error, Split, SplitName, Task, Wanted};

const LONG_ABOUT: &str = "\
Finds test rows that are also among training rows: the same characters (exact), the same once case, punctuation \
and spacing are dropped (normalised), or a run of words in common (n-gram). Choices count as part of a question, \
passages do not; rows in LLM-Adapters' words are found too. A benchmark of which 1 % or more is found whole is \
marked: a score on it after such training says little. A shared run may also be a phrase, or one text of a pair: \
look at the rows (--show).

    sibo data check
    sibo data check --train math_10k.json --show 3
    sibo data check --train llm-adapters/mawps/trainset.json --column original_text --tasks addsub,multiarith,singleeq";

/// Find test rows that are also among training rows
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(super) struct Args {
    /// Training rows: a task, or a file of rows below --data or anywhere [default: each task's own]
    #[arg(long, value_name = "TASK|FILE")]
    train: Option<String>,
    /// Benchmarks whose test rows are looked for, separated by commas [default: all whose rows are here]
    #[arg(long, value_name = "TASKS", value_delimiter = ',')]
    tasks: Vec<String>,
    /// With a file: the column that holds the text, where its rows are no instructions, chats or texts
    #[arg(long, value_name = "NAME", requires = "train")]
    column: Option<String>,
    /// Words of a run that two rows must share
    #[arg(long, value_name = "N", default_value_t = NGRAM)]
    ngram: usize,
    /// Rows to print of each benchmark; --json prints all
    #[arg(long, value_name = "N", default_value_t = 1)]
    show: usize,
}

/// One benchmark against one set of training rows.
struct Checked {
    train: String,
    train_rows: usize,
    task: String,
    variant: Option<String>,
    overlap: Overlap,
}

pub(super) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    leaks::check_ngram(args.ngram)?;
    let training =
        args.train.as_deref().map(|t| Training::open(t, args.column.as_deref(), app)).transpose()?;
    let seen = training.as_ref().map(|t| t.seen(args.ngram));
    let mut checked = Vec::new();
    for (task, test) in tests(&args, app)? {
        let mut add = |training: &Training, overlap| {
            let (train, train_rows) = (training.name.clone(), training.len());
            let (task, variant) = (task.name().to_owned(), test.variant.clone());
            checked.push(Checked { train, train_rows, task, variant, overlap });
        };
        match (&training, &seen) {
            (Some(training), Some(seen)) => add(training, seen.overlap(&test.examples, Some(&task))),
            _ => {
                // Asked for by name, a task without training rows is a fault; of all tasks, it is passed over.
                let file = task.own_file().map(|file| file.display().to_string());
                let own = match Training::open(file.as_deref().unwrap_or(task.name()), None, app) {
                    Ok(own) => own,
                    Err(_) if args.tasks.is_empty() => continue,
                    Err(error) => return Err(error),
                };
                add(&own, own.seen(args.ngram).overlap(&test.examples, Some(&task)));
            }
        }
    }
    if checked.is_empty() {
        let root = app.places.roots().data.display();
        return Err(usage(format!("no test rows below {root} to look for; `sibo tasks` says what is here")));
    }
    show(&checked, &args, app);
    Ok(())
}

/// The test rows asked for, or all at hand.
fn tests(args: &Args, app: &App) -> anyhow::Result<Vec<(Task, Split)>> {
    let root = &app.places.roots().data;
    let all: Vec<String> = match args.tasks.is_empty() {
        true => sibo_tasks::names().map(String::from).collect(),
        false => args.tasks.clone(),
    };
    let mut tests = Vec::new();
    for name in all {
        let task = Task::open(&name)?;
        match task.load(root, SplitName::Test, &Wanted::default()) {
            Ok(split) => tests.push((task, split)),
            Err(Error::NoData { .. }) if args.tasks.is_empty() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(tests)
}

fn show(checked: &[Checked], args: &Args, app: &App) {
    if app.out.json() {
        app.out.result(Value::from(checked.iter().map(as_json).collect::<Vec<_>>()).to_string());
        return;
    }
    let whose = match (&args.train, checked.first()) {
        (Some(_), Some(one)) => format!("the {} training rows of {}", one.train_rows, one.train),
        _ => "each task's own training rows".into(),
    };
    let mut table = Table::new(format!("Test rows among {whose} (runs of {} words)", args.ngram))
        .column(Column::text("test of"))
        .column(Column::number("rows", 0))
        .column(Column::number("exact", 0))
        .column(Column::number("normalised", 0))
        .column(Column::number("n-gram", 0))
        .column(Column::number("share found whole", 4))
        .column(Column::text("verdict"));
    for one in checked {
        let count = |likeness| Cell::Number(one.overlap.count(likeness) as f64);
        let name = one.variant.as_ref().map_or(one.task.clone(), |v| format!("{} ({v})", one.task));
        table.push(vec![
            name.into(),
            Cell::Number(one.overlap.test_rows as f64),
            count(Likeness::Exact),
            count(Likeness::Normalised),
            count(Likeness::Ngram),
            Cell::Number(one.overlap.share()),
            verdict(&one.overlap).into(),
        ]);
    }
    app.out.result(terminal::table(&table, app.out.style()));
    let lines: Vec<String> = checked.iter().flat_map(|one| lines(one, args.show)).collect();
    if !lines.is_empty() {
        app.out.result(lines.join("\n"));
    }
}

fn verdict(overlap: &Overlap) -> &'static str {
    match overlap.rows.len() {
        0 => "clean",
        _ if overlap.leaks() => "LEAKS",
        _ if overlap.whole() == 0 => "runs of words only",
        _ => "a few rows",
    }
}

/// The first rows found, one a line.
fn lines(one: &Checked, most: usize) -> Vec<String> {
    let line = |m: &sibo_tasks::overlap::Match| {
        let likeness = match m.likeness {
            Likeness::Exact => "is",
            Likeness::Normalised => "reads as",
            Likeness::Ngram => "shares a run of words with",
        };
        let text: String = m.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let short: String = text.chars().take(90).collect();
        let dots = if short.len() < text.len() { "..." } else { "" };
        format!("{} test row {} {likeness} {} row {}: {short}{dots}", one.task, m.test, one.train, m.train)
    };
    one.overlap.rows.iter().take(most).map(line).collect()
}

fn as_json(one: &Checked) -> Value {
    let overlap = &one.overlap;
    json!({
        "train": one.train, "train_rows": one.train_rows, "task": one.task, "variant": one.variant,
        "test_rows": overlap.test_rows, "too_short_for_ngrams": overlap.too_short,
        "exact": overlap.count(Likeness::Exact), "normalised": overlap.count(Likeness::Normalised),
        "ngram": overlap.count(Likeness::Ngram), "share": overlap.share(), "leaks": overlap.leaks(),
        "rows": overlap.rows,
    })
}
