//! The rows that are looked at.

use super::Args;
use crate::app::App;
use crate::speaker;
use anyhow::Context;
use sibo_model::{Model, Row};
use sibo_tasks::{Example, Protocol, Task, Wanted};
use sibo_text::{Template, Tokenizer};
use sibo_train::Dataset;
use sibo_train::data::{self, Label, LabelledRow, Limits};
use sibo_train::prepare;
use sibo_train::probe::{self, ProbeRow};

/// The template of instructions: what is looked at are the texts that training would see.
const TEMPLATE: &str = "alpaca";

/// Rows with two ordinary tokens or more, and where they came from in words.
pub(super) fn read(
    args: &Args,
    model: &Model,
    tokenizer: &Tokenizer,
    app: &App,
) -> anyhow::Result<(Vec<ProbeRow>, String)> {
    let (data, source) = match (&args.task, &args.rows) {
        (Some(task), _) => of_task(task, args, model, tokenizer, app)?,
        (None, Some(file)) => of_file(file, args, model, tokenizer, app)?,
        (None, None) => anyhow::bail!("give --task or --rows"),
    };
    let rows = probe::rows(&data, tokenizer, args.limit);
    let tokens: usize = rows.iter().map(|r| r.places.len()).sum();
    let source = format!("{source}: {} sequences, {tokens} ordinary tokens", rows.len());
    Ok((rows, source))
}

fn limits(args: &Args) -> Limits {
    Limits { cutoff: args.cutoff_len, train_on_inputs: true }
}

fn of_task(
    name: &str,
    args: &Args,
    model: &Model,
    tokenizer: &Tokenizer,
    app: &App,
) -> anyhow::Result<(Dataset, String)> {
    let task = Task::open(name)?;
    let wanted = Wanted { limit: Some(args.limit), ..Wanted::default() };
    let split = task.load(&app.places.roots().data, args.split, &wanted)?;
    let source = format!("{}, {}", task.name(), args.split);
    let data = if model.is_causal() {
        let template = Template::choose(TEMPLATE, tokenizer, speaker::now())?;
        let protocol = Some(Protocol::Clean);
        prepare::task_rows(&task, protocol, &split.examples, &template, tokenizer, model, &limits(args))?
    } else if prepare::class_outputs(&task).is_some() {
        data::for_classes(&task, &split.examples, tokenizer, model.arch(), &limits(args))?
    } else {
        texts(&split.examples, args, model, tokenizer)?
    };
    Ok((data, source))
}

fn of_file(
    file: &str,
    args: &Args,
    model: &Model,
    tokenizer: &Tokenizer,
    app: &App,
) -> anyhow::Result<(Dataset, String)> {
    let path = app.places.data(file)?;
    let mut rows = sibo_tasks::read_instructions(&path, None)?;
    rows.truncate(args.limit);
    let data = if model.is_causal() {
        let template = Template::choose(TEMPLATE, tokenizer, speaker::now())?;
        let place = path.display().to_string();
        data::for_instructions(&rows, &place, &template, tokenizer, model.arch(), &limits(args))?
    } else {
        texts(&rows, args, model, tokenizer)?
    };
    Ok((data, file.to_owned()))
}

/// An encoder reads all texts of a row as one.
fn texts(examples: &[Example], args: &Args, model: &Model, tokenizer: &Tokenizer) -> anyhow::Result<Dataset> {
    let cutoff = model.max_len().map_or(args.cutoff_len, |most| most.min(args.cutoff_len));
    let row = |example: &Example| {
        let encoded = tokenizer
            .encode(&example.all_text(), Some(cutoff))
            .with_context(|| format!("row {}", example.id))?;
        let types = if model.arch().types > 1 { encoded.type_ids } else { vec![] };
        let row = Row { ids: encoded.ids, types, sample: example.id };
        // Probes read no label.
        Ok(LabelledRow { row, label: Label::Class(0) })
    };
    let rows = examples.iter().map(row).collect::<anyhow::Result<_>>()?;
    Ok(Dataset { rows, ..Dataset::default() })
}
