//! Likelihoods of choices, as lm-evaluation-harness asks for them.

use super::{Session, TaskEvaluation, doc};
use crate::Error;
use sibo_model::{Batch, Row, RowScore};
use sibo_tasks::metrics::Predictions;
use sibo_tasks::metrics::choice::Picks;
use sibo_tasks::prompt::Choose;
use sibo_tasks::results::{NO_FILTER, Sample};
use sibo_tasks::{Example, Metric};
use sibo_text::encode_continuation;

pub(super) fn evaluate(session: &mut Session<'_, '_>) -> Result<TaskEvaluation, Error> {
    let (asked, task, options) = (session.asked, session.task, session.options);
    let protocol = options.protocol;
    let shots = task.few_shot(&options.shots)?;
    let mut answers: Vec<(Choose, Vec<RowScore>, Picks)> = Vec::new();
    session.in_chunks(|chunk| {
        let mut requests = Vec::new();
        for example in chunk {
            let mut request = task.choose(example, protocol)?;
            request.context.insert_str(0, &shots);
            requests.push((example, request));
        }
        let scores = score(&requests, asked, task.name())?;
        for ((_, request), scores) in requests.into_iter().zip(scores) {
            let likelihoods: Vec<f64> = scores.iter().map(|s| s.log_prob).collect();
            let picks = Picks::of(&likelihoods, &request.choices)?;
            answers.push((request, scores, picks));
        }
        Ok(())
    })?;
    let metrics = task.metrics(Some(protocol));
    let of = |metric: Metric| {
        let gold = answers.iter().map(|(r, _, _)| r.gold as u32).collect();
        let predicted = answers.iter().map(|(_, _, p)| pick(metric, p) as u32).collect();
        (metric, NO_FILTER.to_string(), Predictions::Classes { gold, predicted })
    };
    let predictions = metrics.iter().map(|m| of(*m)).collect();
    let examples = &session.split.examples;
    let samples = answers.iter().zip(examples).map(|(a, e)| sample(e, a, &metrics)).collect();
    session.finish(Some(protocol), predictions, samples, vec![])
}

/// The choice that a metric judges.
fn pick(metric: Metric, picks: &Picks) -> usize {
    match metric {
        Metric::AccNorm => picks.by_chars,
        Metric::AccBytes => picks.by_bytes,
        _ => picks.plain,
    }
}

/// Scores of every choice of every request, in one packed batch.
fn score(
    requests: &[(&Example, Choose)],
    asked: super::Asked<'_>,
    place: &str,
) -> Result<Vec<Vec<RowScore>>, Error> {
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    for (example, request) in requests {
        for continuation in &request.continuations {
            let (row, label) = tokens(&request.context, continuation, asked)
                .map_err(|reason| Error::row(example.id, place, reason))?;
            rows.push(Row { ids: row, types: vec![], sample: example.id });
            labels.push(label);
        }
    }
    let batch = Batch::new(asked.model.arch(), &rows)?;
    let mut scores = asked.model.row_scores(&batch, &labels).into_iter();
    Ok(requests.iter().map(|(_, r)| scores.by_ref().take(r.continuations.len()).collect()).collect())
}

/// Tokens of context and continuation, the continuation labelled; a context past the model's positions loses its
/// beginning, as in the harness, and an empty one becomes the token that begins texts.
fn tokens(
    context: &str,
    continuation: &str,
    asked: super::Asked<'_>,
) -> Result<(Vec<u32>, Vec<i64>), String> {
    let (mut before, after) =
        encode_continuation(asked.tokenizer, context, continuation).map_err(|e| e.to_string())?;
    if after.is_empty() {
        return Err(format!("the choice {continuation:?} holds no token"));
    }
    if before.is_empty() {
        let special = asked.tokenizer.special();
        let first = special.bos.as_ref().or(special.eos.as_ref()).map(|t| t.id);
        before.push(first.ok_or("the context is empty, and the model has no token that begins a text")?);
    }
    if let Some(most) = asked.model.max_len() {
        let room = most.saturating_sub(after.len()).max(1);
        before.drain(..before.len().saturating_sub(room));
    }
    let labels = std::iter::repeat_n(-100, before.len()).chain(after.iter().map(|id| i64::from(*id)));
    let labels = labels.collect();
    before.extend(after);
    Ok((before, labels))
}

fn sample(
    example: &Example,
    (request, scores, picks): &(Choose, Vec<RowScore>, Picks),
    metrics: &[Metric],
) -> Sample {
    let arguments = request.continuations.iter().map(|c| (request.context.clone(), c.clone()));
    let right = |m: &Metric| f64::from(u8::from(pick(*m, picks) == request.gold));
    Sample {
        doc_id: example.id,
        doc: doc(example),
        target: request.gold.to_string(),
        arguments: arguments.collect(),
        responses: scores.iter().map(|s| s.log_prob.to_string()).collect(),
        filtered: vec![picks.plain.to_string()],
        filter: NO_FILTER.into(),
        metrics: metrics.iter().filter(|m| m.is_mean()).map(|m| (*m, right(m))).collect(),
    }
}
