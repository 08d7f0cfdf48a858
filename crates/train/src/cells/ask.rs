//! Judging a trained cell: a task is asked, the rows of a data file are scored.

use super::run::{Now, Tell};
use super::{Cell, Judge, Judged};
use crate::Error;
use crate::evaluate::{Asked, EvalOptions, evaluate};
use crate::own_rows::{self, OwnRows};
use crate::prepare::{self, Prepared};
use sibo_model::{Batch, Labels};
use sibo_tasks::metrics::{Bootstrap, Predictions};
use sibo_tasks::{Metric, Protocol, SplitName, Task, Wanted};
use std::sync::atomic::{AtomicBool, Ordering};

/// What is read of a row of a data file: what it teaches, as rows of tasks have an `answer` or a `reasoning`.
const RESPONSE: &str = "response";

/// What one judge says; none when the interruption came.
pub(super) fn ask(
    cell: &Cell,
    judge: &Judge,
    prepared: &Prepared,
    tell: Tell<'_>,
    interrupt: &AtomicBool,
) -> Result<Option<Vec<Judged>>, Error> {
    match cell.recipe.source.is_data_file(&judge.task) {
        true => score_rows(cell, judge, prepared, tell, interrupt),
        false => ask_task(cell, judge, prepared, tell, interrupt),
    }
}

fn ask_task(
    cell: &Cell,
    judge: &Judge,
    prepared: &Prepared,
    tell: Tell<'_>,
    interrupt: &AtomicBool,
) -> Result<Option<Vec<Judged>>, Error> {
    let training = &cell.recipe.training;
    let task = Task::open(&judge.task)?;
    let wanted = Wanted { limit: judge.limit, ..cell.recipe.wanted(&judge.task) };
    let split = task.load(&cell.places.root, judge.split, &wanted)?;
    let protocol = prepare::protocol(&cell.recipe, &prepared.model, &task);
    let options = EvalOptions {
        protocol: protocol.unwrap_or(Protocol::Clean),
        by: judge.by,
        batch: prepared.eval_batch,
        cutoff: training.cutoff_len,
        ..EvalOptions::default()
    };
    let Prepared { model, tokenizer, template, .. } = prepared;
    let mut progress = |done: usize, of: usize| tell(Now::Judging(task.name(), done, of));
    let asked = Asked { model, tokenizer, template };
    let found = match evaluate(asked, &task, &split, &options, &mut progress, interrupt) {
        // Stopped before its first row, there is nothing to tell; any other fault comes again with the same command.
        Err(_) if interrupt.load(Ordering::Relaxed) => return Ok(None),
        found => found?,
    };
    if found.interrupted {
        return Ok(None);
    }
    let scores = found.result.scores.iter().zip(found.predictions);
    let judged = |(score, (_, _, predictions)): (&sibo_tasks::results::TaskScore, (_, _, _))| Judged {
        task: task.name().into(),
        split: judge.split.to_string(),
        protocol: protocol.map_or("class head", Protocol::name).into(),
        metric: score.metric,
        filter: score.filter.clone(),
        value: score.score.value,
        stderr: score.score.stderr,
        predictions,
    };
    Ok(Some(scores.map(judged).collect()))
}

/// The likelihood of what each row of the recipe's own file teaches, per token first: rows of different lengths compare by
/// it.
fn score_rows(
    cell: &Cell,
    judge: &Judge,
    prepared: &Prepared,
    tell: Tell<'_>,
    interrupt: &AtomicBool,
) -> Result<Option<Vec<Judged>>, Error> {
    let (recipe, places) = (&cell.recipe, &cell.places);
    let Prepared { model, tokenizer, template, eval_batch, .. } = prepared;
    let rows = OwnRows::read(recipe, places)?.split(judge.split, judge.limit);
    let file = match judge.split {
        SplitName::Validation => places.validation.as_deref(),
        SplitName::Test => places.test.as_deref(),
        SplitName::Train => None,
    };
    let file = file.unwrap_or(places.data_file()?);
    let data = own_rows::judged(&rows, file, recipe, template, tokenizer, model)?;
    data.check(model)?;
    let (mut per_token, mut whole) = (Vec::new(), Vec::new());
    let all: Vec<usize> = (0..data.rows.len()).collect();
    for at in all.chunks((*eval_batch).max(1)) {
        if interrupt.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let (rows, labels) = data.gather(at);
        let Labels::Tokens(labels) = labels else {
            unreachable!("rows of a data file are labelled token by token")
        };
        for (score, row) in model.row_scores(&Batch::new(model.arch(), &rows)?, &labels).iter().zip(&rows) {
            if score.tokens == 0 {
                let reason = "nothing that it teaches is left within training.cutoff_len; raise that, or leave the row out";
                return Err(Error::row(row.sample, &data.place, reason));
            }
            per_token.push(score.log_prob / score.tokens as f64);
            whole.push(score.log_prob);
        }
        tell(Now::Judging(&judge.task, whole.len(), all.len()));
    }
    let judged = |(metric, values): (Metric, Vec<f64>)| {
        let predictions = Predictions::Each(values);
        let score = metric.score(&predictions, &Bootstrap::default())?;
        Ok(Judged {
            task: judge.task.clone(),
            split: judge.split.to_string(),
            protocol: template.name().into(),
            metric,
            filter: RESPONSE.into(),
            value: score.value,
            stderr: score.stderr,
            predictions,
        })
    };
    let numbers = [(Metric::LoglikToken, per_token), (Metric::Loglik, whole)];
    numbers.into_iter().map(judged).collect::<Result<_, Error>>().map(Some)
}
