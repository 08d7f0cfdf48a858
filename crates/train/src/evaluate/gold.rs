//! Likelihoods of what a model should have written: one pass over a row, where writing takes one a token.

use super::choices::{Continued, score};
use super::{Asked, Session, TaskEvaluation, doc};
use crate::Error;
use crate::data::render_answer;
use sibo_tasks::metrics::Predictions;
use sibo_tasks::results::Sample;
use sibo_tasks::{Example, Gold, Golds, Metric, Protocol};
use sibo_text::{Cut, EncodeOptions, Rendered, encode_example};

/// Per token first: texts of different lengths compare by it.
const METRICS: [Metric; 2] = [Metric::LoglikToken, Metric::Loglik];

/// One gold text of a row and what the model gave it.
struct Said {
    gold: Gold,
    shown: Rendered,
    tokens: usize,
    sum: f64,
}

impl Said {
    fn value(&self, metric: Metric) -> f64 {
        match metric {
            Metric::LoglikToken => self.sum / self.tokens as f64,
            _ => self.sum,
        }
    }
}

pub(super) fn evaluate(session: &mut Session<'_, '_>) -> Result<TaskEvaluation, Error> {
    let (asked, task, split, options) = (session.asked, session.task, session.split, session.options);
    let protocol = options.protocol;
    let shots = match protocol {
        Protocol::LmEval => task.few_shot(&options.shots)?,
        _ => String::new(),
    };
    let mut answers: Vec<Vec<Said>> = Vec::new();
    session.in_chunks(|chunk| {
        let mut rows: Vec<Vec<(Gold, Rendered, Continued)>> = Vec::new();
        for example in chunk {
            let golds = task.golds(example, protocol, split.own_solutions)?;
            let texts = texts(golds, &shots, protocol, asked);
            rows.push(texts.map_err(|reason| Error::row(example.id, task.name(), reason))?);
        }
        let tokens: Vec<Vec<Continued>> =
            rows.iter().map(|row| row.iter().map(|(_, _, tokens)| tokens.clone()).collect()).collect();
        let requests: Vec<&[Continued]> = tokens.iter().map(Vec::as_slice).collect();
        for (row, sums) in rows.into_iter().zip(score(&requests, asked)?) {
            let said = |((gold, shown, (_, after)), sum): ((Gold, Rendered, Continued), f64)| Said {
                gold,
                shown,
                tokens: after.len(),
                sum,
            };
            answers.push(row.into_iter().zip(sums).map(said).collect());
        }
        Ok(())
    })?;
    let mut predictions = Vec::new();
    for metric in METRICS {
        for gold in Gold::ALL {
            let value = |row: &Vec<Said>| row.iter().find(|s| s.gold == gold).map(|s| s.value(metric));
            let values: Vec<f64> = answers.iter().filter_map(value).collect();
            // Of another model's solutions only some are right; with one row there is nothing to compare.
            let enough = match gold {
                Gold::OthersReasoning => values.len() > 1,
                _ => values.len() == answers.len(),
            };
            if enough {
                predictions.push((metric, gold.name().to_string(), Predictions::Each(values)));
            }
        }
    }
    let samples = answers.iter().zip(&split.examples);
    let samples = samples.flat_map(|(row, e)| row.iter().map(|said| sample(e, said))).collect();
    session.finish(Some(protocol), predictions, samples, vec![])
}

/// The gold texts as training would have shown them, split into prompt and text; no token ends the text, for what
/// follows an answer is no part of it.
fn texts(
    golds: Golds,
    shots: &str,
    protocol: Protocol,
    asked: Asked<'_>,
) -> Result<Vec<(Gold, Rendered, Continued)>, String> {
    let options = EncodeOptions {
        cutoff: asked.model.max_len().unwrap_or(usize::MAX),
        train_on_inputs: false,
        add_eos: false,
        cut: Cut::Left,
    };
    let one = |(gold, text): (Gold, String)| {
        let rendered = render_answer(&golds.prompt, &text, protocol, asked.template);
        let mut rendered = rendered.map_err(|e| e.to_string())?;
        rendered.prompt.insert_str(0, shots);
        let row = encode_example(asked.tokenizer, &rendered, &options).map_err(|e| e.to_string())?;
        if row.cut_completion > 0 || row.prompt_len == 0 {
            return Err(format!(
                "its gold {} does not fit the model's {} positions after a prompt",
                gold.name(),
                options.cutoff
            ));
        }
        let mut before = row.input_ids;
        let after = before.split_off(row.prompt_len);
        Ok((gold, rendered, (before, after)))
    };
    golds.texts.into_iter().map(one).collect()
}

fn sample(example: &Example, said: &Said) -> Sample {
    Sample {
        doc_id: example.id,
        doc: doc(example),
        target: said.shown.completion.clone(),
        arguments: vec![(said.shown.prompt.clone(), said.shown.completion.clone())],
        responses: vec![said.sum.to_string()],
        filtered: vec![said.tokens.to_string()],
        filter: said.gold.name().into(),
        metrics: METRICS.map(|m| (m, said.value(m))).into(),
    }
}
