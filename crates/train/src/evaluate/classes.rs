//! A class head's answers.

use super::{Session, TaskEvaluation, doc};
use crate::data::{Dataset, Label, Limits, for_classes};
use crate::validate;
use crate::{Error, prepare};
use sibo_tasks::Task;
use sibo_tasks::metrics::Predictions;
use sibo_tasks::results::{NO_FILTER, Sample};

pub(super) fn evaluate(session: &mut Session<'_, '_>) -> Result<TaskEvaluation, Error> {
    let (asked, task, options) = (session.asked, session.task, session.options);
    let limits = Limits { cutoff: options.cutoff, train_on_inputs: false };
    // All at once, so that what is told of them is told once.
    let mut done = for_classes(task, &session.split.examples, asked.tokenizer, asked.model.arch(), &limits)?;
    done.check(asked.model)?;
    let mut scores = Vec::new();
    session.in_chunks(|chunk| {
        let rows = done.rows[scores.len()..scores.len() + chunk.len()].to_vec();
        let part = Dataset { rows, place: done.place.clone(), ..Dataset::default() };
        scores.extend(validate::class_scores(asked.model, &part, options.batch)?);
        Ok(())
    })?;
    done.rows.truncate(scores.len());
    let predictions = validate::judged(&done, &scores);
    let samples = samples(session, &done, &scores, &predictions);
    let all = task.metrics(None).into_iter().map(|m| (m, NO_FILTER.to_string(), predictions.clone()));
    let evaluation = session.finish(None, all.collect(), samples, vec![])?;
    Ok(TaskEvaluation { notes: done.notes, ..evaluation })
}

/// A head of another size than the task's classes answers another question.
pub(super) fn check_head(has: usize, task: &Task) -> Result<(), Error> {
    match prepare::class_outputs(task) {
        Some(wanted) if wanted == has => Ok(()),
        Some(wanted) => Err(Error::Refused(format!(
            "task `{}` needs a head with {wanted} output{}, and this model's has {has}",
            task.name(),
            if wanted == 1 { "" } else { "s" }
        ))),
        None => Err(Error::Refused(format!(
            "task `{}` is for language models; a class head answers classification and regression only",
            task.name()
        ))),
    }
}

fn samples(
    session: &Session<'_, '_>,
    data: &Dataset,
    scores: &[Vec<f32>],
    predictions: &Predictions,
) -> Vec<Sample> {
    let labels = &session.task.spec().labels;
    let name = |class: u32| labels.get(class as usize).cloned().unwrap_or_else(|| class.to_string());
    let right = predictions.right();
    let one = |i: usize| {
        let example = &session.split.examples[i];
        let (target, answer) = match (&data.rows[i].label, &scores[i]) {
            (Label::Class(class), scores) => (name(*class), name(validate::greatest(scores))),
            (Label::Value(value), scores) => {
                (value.to_string(), scores.first().map_or(String::new(), f32::to_string))
            }
            (Label::Tokens(_), _) => (String::new(), String::new()),
        };
        let metrics = session.task.metrics(None).into_iter().filter(|m| m.is_share());
        Sample {
            doc_id: example.id,
            doc: doc(example),
            target,
            arguments: vec![(example.all_text().into_owned(), String::new())],
            responses: scores[i].iter().map(f32::to_string).collect(),
            filtered: vec![answer],
            filter: NO_FILTER.into(),
            metrics: right
                .as_ref()
                .map(|right| metrics.map(|m| (m, f64::from(u8::from(right[i])))).collect())
                .unwrap_or_default(),
        }
    };
    (0..data.rows.len()).map(one).collect()
}
