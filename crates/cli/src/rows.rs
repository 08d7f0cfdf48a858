//! Rows whose tokens are looked at without training: what `sibo smoothing` measures, and what a lambda is suggested from.

use crate::app::App;
use anyhow::Context;
use sibo_model::{Model, Row};
use sibo_tasks::{Example, SplitName, Task, Wanted};
use sibo_text::{Template, Tokenizer};
use sibo_train::Dataset;
use sibo_train::data::{self, Label, LabelledRow, Limits};
use sibo_train::evaluate::Asked;
use sibo_train::prepare;
use sibo_train::probe::{self, ProbeRow};

/// The template of instructions, unless told otherwise: what is looked at are the texts that training would see.
pub(crate) const TEMPLATE: &str = "alpaca";

/// Most rows, unless told otherwise.
pub(crate) const LIMIT: usize = 200;

/// Longest row in tokens, unless told otherwise.
pub(crate) const CUTOFF: usize = 256;

/// Rows at a time, unless told otherwise.
pub(crate) const BATCH: u16 = 16;

/// Which rows are wanted.
pub(crate) enum From<'a> {
    /// Of a task, with so many of its train rows held out for validation where it is not left to the task.
    Task(&'a Task, SplitName, Option<usize>),
    /// Of a file.
    File(&'a str),
    /// Those of a file that a recipe learns from, and the file's name.
    Learned(Vec<Example>, &'a str),
}

/// How many, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most {
    pub(crate) rows: usize,
    pub(crate) tokens: usize,
}

/// Rows with two ordinary tokens or more in this template, and where they came from in words.
pub(crate) fn read(
    template: &Template,
    from: &From<'_>,
    most: Most,
    model: &Model,
    tokenizer: &Tokenizer,
    app: &App,
) -> anyhow::Result<(Vec<ProbeRow>, String)> {
    let asked = Asked { model, tokenizer, template };
    let (data, source) = match from {
        From::Task(task, split, held_out) => of_task((task, *split, *held_out), most, asked, app)?,
        From::File(file) => {
            let rows = sibo_tasks::read_instructions(&app.places.data(file)?, None)?;
            (of_file(&rows, file, most, asked)?, file.to_string())
        }
        From::Learned(rows, file) => {
            (of_file(rows, file, most, asked)?, format!("{file}, {}", SplitName::Train))
        }
    };
    let rows = probe::rows(&data, tokenizer, most.rows);
    let tokens: usize = rows.iter().map(|r| r.places.len()).sum();
    let source = format!("{source}: {} sequences, {tokens} ordinary tokens", rows.len());
    Ok((rows, source))
}

fn limits(most: Most) -> Limits {
    Limits { cutoff: most.tokens, train_on_inputs: true }
}

fn of_task(
    (task, which, held_out): (&Task, SplitName, Option<usize>),
    most: Most,
    Asked { model, tokenizer, template }: Asked<'_>,
    app: &App,
) -> anyhow::Result<(Dataset, String)> {
    let wanted = Wanted { limit: Some(most.rows), validation_rows: held_out, ..Wanted::default() };
    let split = task.load(&app.places.roots().data, which, &wanted)?;
    let source = format!("{}, {which}", task.name());
    let data = if model.is_causal() {
        let protocol = Some(task.usual_protocol());
        prepare::task_rows(task, protocol, &split.examples, template, tokenizer, model, &limits(most))?
    } else if prepare::class_outputs(task).is_some() {
        data::for_classes(task, &split.examples, tokenizer, model.arch(), &limits(most))?
    } else {
        texts(&split.examples, most, model, tokenizer)?
    };
    Ok((data, source))
}

/// The first of the rows of a file.
fn of_file(
    rows: &[Example],
    file: &str,
    most: Most,
    Asked { model, tokenizer, template }: Asked<'_>,
) -> anyhow::Result<Dataset> {
    let rows = &rows[..rows.len().min(most.rows)];
    if !model.is_causal() {
        return texts(rows, most, model, tokenizer);
    }
    Ok(data::for_instructions(rows, file, template, tokenizer, model.arch(), &limits(most))?)
}

/// An encoder reads all texts of a row as one.
fn texts(examples: &[Example], most: Most, model: &Model, tokenizer: &Tokenizer) -> anyhow::Result<Dataset> {
    let cutoff = model.max_len().map_or(most.tokens, |longest| longest.min(most.tokens));
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
