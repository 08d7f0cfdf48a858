//! Answers that the model writes, and how they are read.

use super::{Asked, Session, TaskEvaluation, doc};
use crate::Error;
use crate::data::render_prompt;
use sibo_model::{BeamSettings, EarlyStopping, beam_search, continue_rows};
use sibo_tasks::answer::{Judged, Tally};
use sibo_tasks::metrics::Predictions;
use sibo_tasks::prompt::{Generate, Prompt};
use sibo_tasks::results::Sample;
use sibo_tasks::{Example, Metric, Protocol};
use sibo_text::{Cut, StopText, StreamDecoder, encode_prompt, shorten_prompt};

/// One row's request, response and judgements.
struct Answer {
    request: Generate,
    shown: String,
    response: String,
    judged: Vec<Judged>,
}

pub(super) fn evaluate(session: &mut Session<'_, '_>) -> Result<TaskEvaluation, Error> {
    let (asked, task, options) = (session.asked, session.task, session.options);
    let protocol = options.protocol;
    let shots = match protocol {
        Protocol::LmEval => task.few_shot(&options.shots)?,
        _ => String::new(),
    };
    let mut answers: Vec<Answer> = Vec::new();
    session.in_chunks(|chunk| {
        let mut asked_rows = Vec::new();
        for example in chunk {
            let mut request = task.generate(example, protocol)?;
            request.beams = options.beams.unwrap_or(request.beams);
            request.max_new_tokens = options.max_new_tokens.unwrap_or(request.max_new_tokens);
            if let Prompt::Verbatim(text) = &mut request.prompt {
                text.insert_str(0, &shots);
            }
            let (shown, ids) =
                prompt(&request, asked).map_err(|reason| Error::row(example.id, task.name(), reason))?;
            asked_rows.push((request, shown, ids));
        }
        let responses = write(&asked_rows, asked)?;
        for ((request, shown, _), response) in asked_rows.into_iter().zip(responses) {
            let judged = request.judge(&response);
            answers.push(Answer { request, shown, response, judged });
        }
        Ok(())
    })?;
    let readings = answers.first().map(|a| a.request.readings.clone()).unwrap_or_default();
    let (mut predictions, mut without) = (Vec::new(), Vec::new());
    for reading in readings {
        let tally = Tally::of(reading, answers.iter().flat_map(|a| &a.judged));
        without.push((reading.name().to_string(), tally.without_answer));
        let right = Predictions::Right(tally.right);
        predictions.push((Metric::ExactMatch, reading.name().to_string(), right));
    }
    let examples = &session.split.examples;
    let samples = answers.iter().zip(examples).flat_map(|(a, e)| samples(e, a)).collect();
    session.finish(Some(protocol), predictions, samples, without)
}

/// The prompt as text and as tokens; one that leaves no room for the response loses its beginning.
fn prompt(request: &Generate, asked: Asked<'_>) -> Result<(String, Vec<u32>), String> {
    let rendered = render_prompt(&request.prompt, asked.template).map_err(|e| e.to_string())?;
    let mut ids = encode_prompt(asked.tokenizer, &rendered).map_err(|e| e.to_string())?;
    if ids.is_empty() {
        return Err("the prompt holds no token".into());
    }
    if let Some(most) = asked.model.max_len() {
        let room = most.checked_sub(request.max_new_tokens).filter(|room| *room > 0);
        let room = room.ok_or_else(|| {
            format!(
                "{} new tokens leave no room for a prompt in the model's {most} positions; ask for fewer",
                request.max_new_tokens
            )
        })?;
        shorten_prompt(asked.tokenizer, &mut ids, room, Cut::Left);
    }
    Ok((rendered.prompt, ids))
}

/// Responses to the requests: greedy rows together, or each by its beams.
fn write(rows: &[(Generate, String, Vec<u32>)], asked: Asked<'_>) -> Result<Vec<String>, Error> {
    let prompts: Vec<Vec<u32>> = rows.iter().map(|(_, _, ids)| ids.clone()).collect();
    let Some((first, _, _)) = rows.first() else { return Ok(vec![]) };
    let eos = asked.tokenizer.stop_ids();
    let vocabulary = asked.tokenizer.vocabulary_size();
    if first.beams > 1 {
        let settings = BeamSettings {
            beams: first.beams,
            max_new: first.max_new_tokens,
            // transformers' defaults.
            length_penalty: 1.0,
            early_stopping: EarlyStopping::False,
            vocabulary: Some(vocabulary),
        };
        let new = beam_search(asked.model, &prompts, eos, &settings)?;
        return new.iter().map(|ids| Ok(asked.tokenizer.decode(ids)?)).collect();
    }
    let mut streams: Vec<Stream> = rows.iter().map(|(request, _, _)| Stream::new(request)).collect();
    let mut failed = None;
    continue_rows(asked.model, &prompts, first.max_new_tokens, eos, |row, scores, _| {
        let known = vocabulary.min(scores.len());
        let token = crate::validate::greatest(&scores[..known]);
        if eos.contains(&token) {
            return Some(token);
        }
        match streams[row].push(asked, token) {
            Ok(goes_on) => goes_on.then_some(token),
            Err(error) => {
                failed = Some(error);
                None
            }
        }
    })?;
    match failed {
        Some(error) => Err(error),
        None => streams.into_iter().map(|s| s.finish(asked)).collect(),
    }
}

/// One row's text while it comes.
struct Stream {
    decoder: StreamDecoder,
    stop: StopText,
    text: String,
}

impl Stream {
    fn new(request: &Generate) -> Self {
        Stream {
            decoder: StreamDecoder::new(),
            stop: StopText::new(request.until.clone()),
            text: String::new(),
        }
    }

    /// Takes a token; false once a stop string has come.
    fn push(&mut self, asked: Asked<'_>, token: u32) -> Result<bool, Error> {
        let text = self.decoder.push(asked.tokenizer, token)?;
        self.text += &self.stop.push(&text);
        Ok(!self.stop.stopped())
    }

    fn finish(mut self, asked: Asked<'_>) -> Result<String, Error> {
        if !self.stop.stopped() {
            let rest = self.decoder.finish(asked.tokenizer)?;
            self.text += &self.stop.push(&rest);
            self.text += &self.stop.finish();
        }
        Ok(self.text)
    }
}

/// One record for each reading.
fn samples(example: &Example, answer: &Answer) -> Vec<Sample> {
    let settings = serde_json::json!({
        "until": answer.request.until,
        "max_gen_toks": answer.request.max_new_tokens,
        "num_beams": answer.request.beams,
        "do_sample": false,
    });
    let one = |judged: &Judged| Sample {
        doc_id: example.id,
        doc: doc(example),
        target: answer.request.gold.clone(),
        arguments: vec![(answer.shown.clone(), settings.to_string())],
        responses: vec![answer.response.clone()],
        filtered: vec![judged.answer.clone().unwrap_or_default()],
        filter: judged.reading.name().into(),
        metrics: vec![(Metric::ExactMatch, f64::from(u8::from(judged.right)))],
    };
    answer.judged.iter().map(one).collect()
}
