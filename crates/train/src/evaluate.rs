//! A task on a model: classes from a head, likelihoods of choices, or read answers; with a record of each row.

mod choices;
mod classes;
mod gold;
pub mod shared;
mod written;

use crate::Error;
use serde_json::{Value, json};
use sibo_model::Model;
use sibo_tasks::metrics::{Bootstrap, Predictions};
use sibo_tasks::results::{BY_LIKELIHOOD, Sample, TaskResult, TaskScore};
use sibo_tasks::{Example, Metric, Protocol, Split, Task};
use sibo_text::{Template, Tokenizer};
use std::sync::atomic::{AtomicBool, Ordering};

/// The model that is asked, with what it reads and writes text by. An adapter need not be attached: then the
/// numbers are the base's.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The model.
    pub model: &'a Model,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The template of instructions.
    pub template: &'a Template,
}

/// By what a language model's answer to a task of written answers is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum By {
    /// By what it writes.
    #[default]
    Written,
    /// By the log-likelihood of the gold answer, and of the benchmark's own worked solution where there is one.
    Likelihood,
}

/// How a task is asked.
#[derive(Debug, Clone)]
pub struct EvalOptions {
    /// How a language model is asked; of no meaning for a class head.
    pub protocol: Protocol,
    /// How a written answer is judged; of no meaning where choices are scored and for a class head.
    pub by: By,
    /// Rows at a time.
    pub batch: usize,
    /// Longest row of a class head in tokens.
    pub cutoff: usize,
    /// Worked rows of train before each prompt (`lm-eval` only).
    pub shots: Vec<Example>,
    /// Beams instead of the protocol's own number.
    pub beams: Option<usize>,
    /// New tokens instead of the protocol's own number.
    pub max_new_tokens: Option<usize>,
    /// Standard errors of metrics that have no closed form.
    pub bootstrap: Bootstrap,
}

impl Default for EvalOptions {
    fn default() -> Self {
        EvalOptions {
            protocol: Protocol::Clean,
            by: By::Written,
            batch: 8,
            cutoff: 512,
            shots: vec![],
            beams: None,
            max_new_tokens: None,
            bootstrap: Bootstrap::default(),
        }
    }
}

/// What a task gave.
#[derive(Debug, Clone)]
pub struct TaskEvaluation {
    /// Its numbers, for [`sibo_tasks::results::write`].
    pub result: TaskResult,
    /// One record a row and filter.
    pub samples: Vec<Sample>,
    /// Predictions by metric and filter, for comparing two systems; in the order of `result.scores`.
    pub predictions: Vec<(Metric, String, Predictions)>,
    /// What a person should know of the rows of a class head: how many were shortened.
    pub notes: Vec<String>,
    /// Whether the interruption flag ended it early: the numbers are of the rows until then.
    pub interrupted: bool,
}

/// Rows done and rows in all.
pub type Progress<'p> = &'p mut dyn FnMut(usize, usize);

/// Asks `task` of a model, row by row. A class head answers classification and regression; a language model is
/// asked as `options.protocol` says.
pub fn evaluate(
    asked: Asked<'_>,
    task: &Task,
    split: &Split,
    options: &EvalOptions,
    progress: Progress<'_>,
    interrupt: &AtomicBool,
) -> Result<TaskEvaluation, Error> {
    check(asked.model, task, options.protocol)?;
    let mut session = Session { asked, task, split, options, progress, interrupt, interrupted: false };
    if asked.model.classes().is_some() {
        return classes::evaluate(&mut session);
    }
    match (task.is_generated(options.protocol), options.by) {
        (true, By::Written) => written::evaluate(&mut session),
        (true, By::Likelihood) => gold::evaluate(&mut session),
        (false, _) => choices::evaluate(&mut session),
    }
}

/// Refuses a task that a model cannot be asked, before anything is done for it.
///
/// # Errors
/// A class head of another size than the task's classes, a model that has no head, and a protocol that the task has no
/// prompts for.
pub fn check(model: &Model, task: &Task, protocol: Protocol) -> Result<(), Error> {
    match model.classes() {
        Some(outputs) => classes::check_head(outputs, task),
        None if model.is_causal() => Ok(task.check_protocol(protocol)?),
        None => Err(Error::Refused(format!(
            "task `{}` needs a model with an answer: a class head (train one, or name an adapter that has one) or a causal head",
            task.name()
        ))),
    }
}

/// One evaluation under way.
struct Session<'a, 'p> {
    asked: Asked<'a>,
    task: &'a Task,
    split: &'a Split,
    options: &'a EvalOptions,
    progress: Progress<'p>,
    interrupt: &'a AtomicBool,
    interrupted: bool,
}

impl<'a> Session<'a, '_> {
    /// Rows in chunks until the end or the interruption; tells the progress between them.
    fn in_chunks(&mut self, mut work: impl FnMut(&[Example]) -> Result<(), Error>) -> Result<(), Error> {
        let all: &'a [Example] = &self.split.examples;
        let mut done = 0;
        for chunk in all.chunks(self.options.batch.max(1)) {
            if self.interrupt.load(Ordering::Relaxed) {
                self.interrupted = true;
                break;
            }
            work(chunk)?;
            done += chunk.len();
            (self.progress)(done, all.len());
        }
        if done == 0 {
            return Err(Error::Refused(format!(
                "task `{}`: interrupted before a row was done",
                self.task.name()
            )));
        }
        Ok(())
    }

    /// Gathers numbers and records.
    fn finish(
        &self,
        protocol: Option<Protocol>,
        predictions: Vec<(Metric, String, Predictions)>,
        samples: Vec<Sample>,
        without_answer: Vec<(String, usize)>,
    ) -> Result<TaskEvaluation, Error> {
        let scores = predictions
            .iter()
            .map(|(metric, filter, predictions)| {
                let score = metric.score(predictions, &self.options.bootstrap)?;
                Ok(TaskScore { metric: *metric, filter: filter.clone(), score })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let result = TaskResult {
            task: self.task.name().into(),
            version: self.task.spec().version,
            scores,
            original: self.split.rows_in_split,
            effective: predictions.first().map_or(0, |(_, _, p)| p.len()),
            shots: self.options.shots.len(),
            without_answer,
            config: self.config(protocol),
        };
        Ok(TaskEvaluation { result, samples, predictions, notes: vec![], interrupted: self.interrupted })
    }

    fn config(&self, protocol: Option<Protocol>) -> Value {
        let by_likelihood =
            protocol.is_some_and(|p| self.task.is_generated(p)) && self.options.by == By::Likelihood;
        json!({
            "judged_by": by_likelihood.then_some(BY_LIKELIHOOD),
            "protocol": protocol.map_or("class head", Protocol::name),
            "template": protocol.map(|_| self.asked.template.name()),
            "file": self.split.file.display().to_string(),
            "rows_in_file": self.split.rows_in_file,
            "official_rows": self.split.official_rows,
            "notes": self.split.notes,
            "variant": self.split.variant,
            "task_file": self.task.own_file().map(|file| file.display().to_string()),
        })
    }
}

fn doc(example: &Example) -> Value {
    // An example holds texts and finite numbers only, so it has a JSON form.
    serde_json::to_value(example).unwrap_or_default()
}

#[cfg(test)]
mod tests;
