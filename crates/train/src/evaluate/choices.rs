//! Likelihoods of choices, as lm-evaluation-harness asks for them.

use super::shared::{self, Tree};
use super::{Asked, Session, TaskEvaluation, doc};
use crate::Error;
use sibo_model::{Batch, Row};
use sibo_tasks::metrics::Predictions;
use sibo_tasks::metrics::choice::Picks;
use sibo_tasks::prompt::Choose;
use sibo_tasks::results::{NO_FILTER, Sample};
use sibo_tasks::{Example, Metric};
use sibo_text::encode_continuation;

/// Tokens of a context and of its continuation.
pub(super) type Continued = (Vec<u32>, Vec<u32>);

/// One row's request and what the model gave.
struct Answer {
    request: Choose,
    likelihoods: Vec<f64>,
    picks: Picks,
}

pub(super) fn evaluate(session: &mut Session<'_, '_>) -> Result<TaskEvaluation, Error> {
    let (asked, task, options) = (session.asked, session.task, session.options);
    let protocol = options.protocol;
    let shots = task.few_shot(&options.shots)?;
    let mut answers: Vec<Answer> = Vec::new();
    session.in_chunks(|chunk| {
        let mut requests = Vec::new();
        for example in chunk {
            let mut request = task.choose(example, protocol)?;
            request.contexts.iter_mut().for_each(|context| context.insert_str(0, &shots));
            let pairs = request.contexts.iter().zip(&request.continuations);
            let rows = pairs.map(|(context, continuation)| tokens(context, continuation, asked));
            let rows = rows.collect::<Result<Vec<_>, _>>();
            let rows = rows.map_err(|reason| Error::row(example.id, task.name(), reason))?;
            requests.push((request, rows));
        }
        let rows: Vec<&[Continued]> = requests.iter().map(|(_, rows)| rows.as_slice()).collect();
        let scores = score(&rows, asked)?;
        for ((request, _), likelihoods) in requests.into_iter().zip(scores) {
            let picks = Picks::of(&likelihoods, &request.choices)?;
            answers.push(Answer { request, likelihoods, picks });
        }
        Ok(())
    })?;
    let metrics = task.metrics(Some(protocol));
    let of = |metric: Metric| {
        let gold = answers.iter().map(|a| a.request.gold as u32).collect();
        let predicted = answers.iter().map(|a| metric.pick(&a.picks) as u32).collect();
        (metric, NO_FILTER.to_string(), Predictions::Classes { gold, predicted })
    };
    let predictions = metrics.iter().map(|m| of(*m)).collect();
    let examples = &session.split.examples;
    let samples = answers.iter().zip(examples).map(|(a, e)| sample(e, a, &metrics)).collect();
    session.finish(Some(protocol), predictions, samples, vec![])
}

/// Log-likelihoods of every continuation of every request. Where all continuations of a request follow the same
/// tokens, those are computed once.
pub(super) fn score(requests: &[&[Continued]], asked: Asked<'_>) -> Result<Vec<Vec<f64>>, Error> {
    let may_share = shared::is_exact(asked.model);
    let (mut trees, mut tree_of) = (Vec::new(), Vec::new());
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    for request in requests {
        let same = request.iter().all(|(before, _)| *before == request[0].0);
        tree_of.push((may_share && same).then_some(trees.len()));
        if may_share && same {
            let continuations = request.iter().map(|(_, after)| after.clone()).collect();
            trees.push(Tree { context: request[0].0.clone(), continuations });
            continue;
        }
        for (before, after) in request.iter() {
            let learned = after.iter().map(|id| i64::from(*id));
            labels.push(std::iter::repeat_n(-100, before.len()).chain(learned).collect::<Vec<i64>>());
            rows.push(Row { ids: [before.as_slice(), after].concat(), ..Row::default() });
        }
    }
    let mut from_trees = if trees.is_empty() { vec![] } else { shared::score(asked.model, &trees)? };
    let alone = match rows.is_empty() {
        true => vec![],
        false => asked.model.row_scores(&Batch::new(asked.model.arch(), &rows)?, &labels),
    };
    let mut alone = alone.into_iter().map(|s| s.log_prob);
    let of = |(request, tree): (&&[Continued], Option<usize>)| match tree {
        Some(tree) => std::mem::take(&mut from_trees[tree]),
        None => alone.by_ref().take(request.len()).collect(),
    };
    Ok(requests.iter().zip(tree_of).map(of).collect())
}

/// Tokens of context and continuation, the continuation labelled; a context past the model's positions loses its
/// beginning, as in the harness, and an empty one becomes the token that begins texts.
fn tokens(context: &str, continuation: &str, asked: Asked<'_>) -> Result<Continued, String> {
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
    Ok((before, after))
}

fn sample(example: &Example, answer: &Answer, metrics: &[Metric]) -> Sample {
    let Answer { request, likelihoods, picks } = answer;
    let arguments = request.contexts.iter().cloned().zip(request.continuations.iter().cloned());
    let right = |m: &Metric| f64::from(u8::from(m.pick(picks) == request.gold));
    Sample {
        doc_id: example.id,
        doc: doc(example),
        target: request.gold.to_string(),
        arguments: arguments.collect(),
        responses: likelihoods.iter().map(f64::to_string).collect(),
        filtered: vec![picks.plain.to_string()],
        filter: NO_FILTER.into(),
        metrics: metrics.iter().filter(|m| m.is_share()).map(|m| (*m, right(m))).collect(),
    }
}
