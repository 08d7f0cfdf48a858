//! `sibo predict`: what a class head says of texts that have no label.

use crate::app::App;
use crate::exit::{Interrupted, usage};
use crate::places::ModelArgs;
use crate::progress::Meter;
use crate::{classes, interrupt};
use serde_json::{Map, Value, json};
use sibo_report::{Cell, Column, Table, terminal};
use sibo_tasks::{Text, read_column};
use sibo_text::Tokenizer;
use sibo_train::evaluate::EvalOptions;
use sibo_train::outputs::Outputs;
use sibo_train::predict::{Prediction, longest, predict};
use std::io::Read;
use std::path::{Path, PathBuf};

const LONG_ABOUT: &str = "\
Asks a classification or regression head about new texts: the class and its probability, or the number.

    sibo predict --model minilm-l6 --adapter runs/sst2/adapter \"A joy from start to end.\"
    sibo predict --model minilm-l6 --adapter runs/mrpc/adapter \"It rained.\" --text-b \"Rain fell.\"
    sibo predict --model minilm-l6 --adapter runs/rte/adapter --file new.jsonl --columns s1,s2
    cut -f2 texts.tsv | sibo predict --model minilm-l6 --adapter runs/sst2/adapter

The classes have the names that the adapter was trained with (head.json beside it), else those of the model's own \
config.json. With --json a list comes back with every class's probability.";

/// Ask a class head about new texts
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    /// Texts [default: those on stdin, one a line]
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    texts: Vec<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// The second text, for a head that reads pairs
    #[arg(long, alias = "text_b", value_name = "TEXT", requires = "texts", conflicts_with = "file")]
    text_b: Option<String>,
    /// A file of rows: JSON, JSON lines or parquet with --columns, else a text a line (a tab parts the two of a pair)
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The column of the text, or the two of a pair [default: text, or text_a,text_b]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "file", conflicts_with = "texts")]
    columns: Vec<String>,
    /// Rows at a time
    #[arg(long, alias = "batch_size", value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Longest row in tokens [default: that of the run that made the adapter, else 512]
    #[arg(long, alias = "cutoff_len", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cutoff_len: Option<u32>,
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    let folder = app.places.model(&args.model.model)?;
    let adapter = args.model.adapter.as_deref().map(|name| app.places.model(name)).transpose()?;
    let known = classes::of(&folder, adapter.as_deref())?;
    let (place, texts) = texts(&args, &known)?;
    let tokenizer = Tokenizer::from_folder(&folder)?;
    let model = app.places.load(&args.model)?;
    tokenizer.check_vocabulary(model.arch().vocab)?;
    let Some(outputs) = model.classes() else {
        return Err(usage(format!(
            "{}: has no class head to ask; give an adapter that has one by --adapter, or ask a language model by `sibo generate`",
            args.model.adapter.as_ref().unwrap_or(&args.model.model)
        )));
    };
    anyhow::ensure!(
        adapter.is_some() || model.made_new().is_empty(),
        "{}: has no trained class head; give an adapter that has one by --adapter",
        args.model.model
    );
    let cutoff =
        args.cutoff_len.map(|n| n as usize).or(known.cutoff).unwrap_or(EvalOptions::default().cutoff);
    interrupt::listen();
    let mut meter = Meter::new(app.out, texts.len() as u64, 0);
    let size = (cutoff, args.batch_size.into());
    let mut at = |done: usize| meter.at(done as u64);
    let found = predict(&model, &tokenizer, &texts, size, &place, &mut at, &interrupt::STOP)?;
    meter.finish();
    if outputs > 1 && !known.labels.is_empty() && known.labels.len() != outputs {
        app.out.warn(format!(
            "the head has {outputs} classes and {} names are known; they are numbered instead",
            known.labels.len()
        ));
    }
    let names = if outputs == 1 { vec![] } else { known.names(outputs) };
    show(&texts[..found.len()], &found, &names, app);
    let short = found.iter().filter(|p| p.dropped > 0).count();
    if short > 0 {
        let most = longest(&model, cutoff);
        app.out.note(format!("{short} of {} rows cut to {most} tokens", found.len()));
    }
    if found.len() < texts.len() {
        return Err(Interrupted(format!(
            "the lines above are the first {} of {} rows",
            found.len(),
            texts.len()
        ))
        .into());
    }
    Ok(())
}

/// The rows, and what an error calls the place that they come from.
fn texts(args: &Args, known: &Outputs) -> anyhow::Result<(String, Vec<Text>)> {
    let (place, rows) = match &args.file {
        Some(file) => (file.display().to_string(), of_file(file, &args.columns, known)?),
        None if !args.texts.is_empty() => ("the texts given".into(), given(args)?),
        None => {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes)?;
            ("stdin".into(), lines(bytes, "stdin")?)
        }
    };
    anyhow::ensure!(
        !rows.is_empty(),
        "{place}: no text in it; give one as an argument, by --file, or a line of stdin"
    );
    let wrong = |row: &Text| known.texts.is_some_and(|texts| texts != size(row));
    if let Some(at) = rows.iter().position(wrong) {
        let task = known.task.as_deref().unwrap_or("its task");
        let (reads, how) = match known.texts {
            Some(2) => {
                ("pairs of texts", "give the second by --text-b, after a tab, or as a second of --columns")
            }
            _ => ("one text a row", "leave the second out"),
        };
        let row = at + 1;
        return Err(usage(format!(
            "row {row} of {place}: this head learned {task} and reads {reads}; {how}"
        )));
    }
    Ok((place, rows))
}

fn size(row: &Text) -> usize {
    if matches!(row, Text::Pair(..)) { 2 } else { 1 }
}

fn given(args: &Args) -> anyhow::Result<Vec<Text>> {
    match (&args.text_b, &args.texts[..]) {
        (None, texts) => Ok(texts.iter().cloned().map(Text::Single).collect()),
        (Some(second), [first]) => Ok(vec![Text::Pair(first.clone(), second.clone())]),
        (Some(_), _) => Err(usage("--text-b belongs to one text; give several pairs by --file")),
    }
}

fn of_file(file: &Path, columns: &[String], known: &Outputs) -> anyhow::Result<Vec<Text>> {
    let ending = file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
    let rows = file.is_dir() || ["json", "jsonl", "ndjson", "parquet"].contains(&ending.as_str());
    let delimited = ending == "csv" || (ending == "tsv" && !columns.is_empty());
    if delimited {
        return Err(usage(format!(
            "{}: columns are read of JSON, JSON lines and parquet; of other files a text is a line, and a tab parts the two of a pair",
            file.display()
        )));
    }
    if !rows && columns.is_empty() {
        let bytes = std::fs::read(file).map_err(|e| sibo_files::Error::io(file, "read", e))?;
        return lines(bytes, &file.display().to_string());
    }
    let names: Vec<&str> = match (columns, known.texts) {
        ([], Some(2)) => vec!["text_a", "text_b"],
        ([], _) => vec!["text"],
        (given, _) => given.iter().map(String::as_str).collect(),
    };
    let read = |name: &&str| read_column(file, name);
    match (names.iter().map(read).collect::<Result<Vec<_>, _>>()?.as_mut_slice(), names.len()) {
        ([one], _) => Ok(std::mem::take(one).into_iter().map(Text::Single).collect()),
        ([a, b], _) => {
            let (a, b) = (std::mem::take(a), std::mem::take(b));
            Ok(a.into_iter().zip(b).map(|(a, b)| Text::Pair(a, b)).collect())
        }
        (_, n) => Err(usage(format!("--columns names {n}; a class head reads one text or two"))),
    }
}

/// One row a line, a tab between the texts of a pair; empty lines at the end are none, nor is a mark of UTF-8 at the
/// beginning.
fn lines(bytes: Vec<u8>, place: &str) -> anyhow::Result<Vec<Text>> {
    let text = super::generate::utf8(bytes, place)?;
    let row = |line: &str| match line.split_once('\t') {
        Some((a, b)) => Text::Pair(a.into(), b.into()),
        None => Text::Single(line.into()),
    };
    let mut lines: Vec<&str> = text.trim_start_matches('\u{feff}').lines().collect();
    while lines.last().is_some_and(|line| line.trim_matches(' ').is_empty()) {
        lines.pop();
    }
    Ok(lines.into_iter().map(row).collect())
}

fn show(texts: &[Text], found: &[Prediction], names: &[String], app: &App) {
    if app.out.json() {
        let rows: Vec<Value> = texts.iter().zip(found).map(|(text, p)| as_json(text, p, names)).collect();
        app.out.result(Value::from(rows).to_string());
        return;
    }
    // Of many classes the likeliest's probability is all that fits beside the text.
    let each = (2..=MOST_COLUMNS).contains(&names.len());
    let mut table = Table::new("");
    table = match names.is_empty() {
        true => table.column(Column::number("number", 4)),
        false => table.column(Column::text("class")),
    };
    for name in names.iter().filter(|_| each) {
        table = table.column(Column::number(name.clone(), 4));
    }
    if names.len() > MOST_COLUMNS {
        table = table.column(Column::number("probability", 4));
    }
    table = table.column(Column::text("text"));
    if texts.iter().any(|text| size(text) == 2) {
        table = table.column(Column::text("second text"));
    }
    for (text, prediction) in texts.iter().zip(found) {
        let values = prediction.values.iter().map(|v| Cell::Number(f64::from(*v)));
        let mut row: Vec<Cell> = match names.get(prediction.class()) {
            None => values.collect(),
            Some(name) if each => std::iter::once(name.as_str().into()).chain(values).collect(),
            Some(name) => {
                vec![name.as_str().into(), Cell::Number(f64::from(prediction.values[prediction.class()]))]
            }
        };
        match text {
            Text::Pair(a, b) => row.extend([a.as_str().into(), b.as_str().into()]),
            Text::Single(a) => row.push(a.as_str().into()),
            _ => {}
        }
        table.push(row);
    }
    app.out.result(terminal::table(&table, app.out.style()));
}

/// Classes that each get a column of their own.
const MOST_COLUMNS: usize = 4;

fn as_json(text: &Text, prediction: &Prediction, names: &[String]) -> Value {
    let mut row: Map<String, Value> = match text {
        Text::Pair(a, b) => {
            [("text_a", a), ("text_b", b)].map(|(key, t)| (key.into(), json!(t))).into_iter().collect()
        }
        Text::Single(a) => std::iter::once(("text".into(), json!(a))).collect(),
        _ => Map::new(),
    };
    match names.get(prediction.class()) {
        None => {
            row.insert("value".into(), json!(prediction.values[0]));
        }
        Some(name) => {
            let each: Map<String, Value> =
                names.iter().zip(&prediction.values).map(|(name, p)| (name.clone(), json!(p))).collect();
            row.insert("label".into(), json!(name));
            row.insert("class".into(), json!(prediction.class()));
            row.insert("probabilities".into(), each.into());
        }
    }
    row.into()
}
