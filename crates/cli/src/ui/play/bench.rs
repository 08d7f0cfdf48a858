//! The model's side of the playground: it answers one request after the other, on the main thread.

use super::ask::{Ask, ColumnAsk};
use super::desk::Job;
use super::{AdapterFacts, Facts, Playground};
use crate::exit::{sentence, usage};
use crate::interrupt;
use crate::places::{CutArgs, NumbersArgs, Places};
use crate::speaker::{Speaker, choose_template};
use serde_json::{Value, json};
use sibo_model::{Batch, LoadOptions, Model, Row};
use sibo_peft::folder::Folder;
use sibo_peft::{Lambda, TaskType};
use sibo_report::{Axis, Block, LineChart, Series, Tone, html, number};
use sibo_text::Tokenizer;
use sibo_train::probe;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Columns whose adapters stay placed; their frozen matrices are the base's.
const MOST_KEPT: usize = 12;

/// The base, and the adapters that were asked for.
pub(crate) struct Bench {
    base: Model,
    tokenizer: Arc<Tokenizer>,
    adapters: Vec<(String, PathBuf)>,
    kept: Vec<(ColumnAsk, Speaker)>,
    playground: Arc<Playground>,
}

impl Bench {
    /// Loads the base once and looks at every adapter, so that what cannot be is refused before the server starts.
    pub(crate) fn load(
        places: &Places,
        model: &str,
        adapters: &[String],
        numbers: NumbersArgs,
        cut: CutArgs,
    ) -> anyhow::Result<Self> {
        let folder = places.model(model)?;
        let adapters = adapters
            .iter()
            .map(|name| Ok((name.clone(), places.model(name)?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let classes =
            adapters.iter().map(|(_, path)| Ok(classes(path)?)).collect::<anyhow::Result<Vec<_>>>()?;
        let options = LoadOptions {
            compute: numbers.of(&folder),
            classes: classes.into_iter().flatten().next(),
            keep_layers: cut.layers,
            ..LoadOptions::default()
        };
        let loaded = Model::load(&folder, &options)?;
        places.tell_unknown(&loaded.unknown_keys);
        let base = loaded.model;
        let tokenizer = Tokenizer::from_folder(&folder)?;
        tokenizer.check_vocabulary(base.arch().vocab)?;
        let whole = base.made_new().is_empty();
        if !base.is_causal() && (base.classes().is_none() || (!whole && adapters.is_empty())) {
            return Err(usage(format!(
                "{model}: this model neither continues text nor has classes to choose from; give an adapter with a classification head by --adapter"
            )));
        }
        let facts = Facts {
            model: model.into(),
            classes: class_names(&base, &folder, &adapters)?,
            base: whole,
            adapters: adapters
                .iter()
                .map(|(name, path)| facts(&base, name, path))
                .collect::<anyhow::Result<_>>()?,
            template: match (base.is_causal(), choose_template(&tokenizer, None, None)?) {
                (false, _) => "as it stands".into(),
                (true, Some(template)) => format!("by the template {}", template.name()),
                (true, None) => "as it stands".into(),
            },
        };
        let playground = Arc::new(Playground::new(facts));
        Ok(Bench { base, tokenizer: tokenizer.into(), adapters, kept: vec![], playground })
    }

    /// The pages' side.
    pub(crate) fn playground(&self) -> Arc<Playground> {
        self.playground.clone()
    }

    /// Answers the next request, if one comes within this time.
    pub(crate) fn answer_next(&mut self, within: Duration) {
        let playground = self.playground.clone();
        let Some(job) = playground.desk.take(within) else { return };
        if job.withdrawn() {
            return;
        }
        let mut curves = Vec::new();
        for at in 0..job.ask.columns.len() {
            if job.withdrawn() || interrupt::asked() {
                return;
            }
            match self.column(&job, at) {
                Ok(curve) => curves.push((at, curve)),
                Err(error) => {
                    job.tell("failed", &json!({"column": at, "sentence": format!("{}.", sentence(&error))}));
                }
            }
        }
        if let Some(chart) = self.similarity(&job.ask, curves) {
            job.tell("similarity", &json!({"html": html::block(&Block::Lines(chart))}));
        }
        job.tell("done", &json!({}));
    }

    /// One column: its answer, and the similarity of the text's tokens by layer where there are two or more.
    fn column(&mut self, job: &Job<Ask>, at: usize) -> anyhow::Result<Option<Vec<f64>>> {
        let (ask, column) = (&job.ask, job.ask.columns[at]);
        job.tell("begin", &json!({"column": at, "name": self.name(column)}));
        let classes = self.playground.facts.classes.clone();
        let speaker = self.speaker(column)?;
        let row = match &classes {
            None => speak(speaker, job, at)?,
            Some(names) => {
                judge(speaker, ask, names, |data| job.tell("classes", &with(data, "column", json!(at))))?
            }
        };
        let probe = probe::counted(&row, &speaker.tokenizer);
        match probe.places.len() {
            0 | 1 => Ok(None),
            _ => Ok(Some(probe::of_sequence(&speaker.model, &probe)?)),
        }
    }

    /// The model of a column; its frozen matrices are shared with all others.
    fn speaker(&mut self, column: ColumnAsk) -> anyhow::Result<&Speaker> {
        if let Some(at) = self.kept.iter().position(|(own, _)| *own == column) {
            // What was asked for last is dropped last.
            let found = self.kept.remove(at);
            self.kept.push(found);
        } else {
            let path = column.adapter.map(|n| self.adapters[n].1.as_path());
            let model = match path {
                None => self.base.clone(),
                Some(path) => self.base.with_adapter(path, |config| {
                    if let Some(lambda) = column.lambda {
                        config.sibo.lambda = Lambda::Same(lambda);
                        config.sibo.course = None;
                    }
                })?,
            };
            let template =
                if model.is_causal() { choose_template(&self.tokenizer, path, None)? } else { None };
            let speaker = Speaker { model, tokenizer: self.tokenizer.clone(), template };
            if self.kept.len() >= MOST_KEPT {
                self.kept.remove(0);
            }
            self.kept.push((column, speaker));
        }
        Ok(&self.kept.last().expect("one was just put there").1)
    }

    /// `base`, or `runs/a/adapter, lambda 0.35`.
    fn name(&self, column: ColumnAsk) -> String {
        let facts = &self.playground.facts;
        match (column.adapter, column.lambda) {
            (None, _) => format!("{}, without an adapter", facts.model),
            (Some(n), None) => format!("{}: {}", facts.adapters[n].name, facts.adapters[n].what),
            (Some(n), Some(lambda)) => format!("{}: lambda {lambda}", facts.adapters[n].name),
        }
    }

    fn similarity(&self, ask: &Ask, curves: Vec<(usize, Option<Vec<f64>>)>) -> Option<LineChart> {
        let mut tones = (Some(Tone::Plain), Some(Tone::Sibo), 0u8);
        let mut tone = |column: ColumnAsk| {
            let lambda =
                column.lambda.or(column.adapter.and_then(|n| self.playground.facts.adapters[n].lambda));
            let own = match (column.adapter, lambda) {
                (None, _) => Some(Tone::Base),
                (_, Some(0.0)) => tones.0.take(),
                _ => tones.1.take(),
            };
            own.unwrap_or_else(|| {
                tones.2 += 1;
                Tone::Other(tones.2 - 1)
            })
        };
        let one = |(at, curve): (usize, Option<Vec<f64>>)| {
            let (column, curve) = (ask.columns[at], curve?);
            let points = curve.into_iter().enumerate().map(|(layer, value)| (layer as f64, value));
            Some(Series::new(self.name(column), tone(column), points))
        };
        let series: Vec<Series> = curves.into_iter().filter_map(one).collect();
        (!series.is_empty()).then(|| LineChart {
            title: "Token similarity by layer, on this text".into(),
            caption: "Mean cosine of all pairs of the text's tokens, special ones left out: one text, and so no interval."
                .into(),
            x: Axis::new("layer (0 is what enters the first)", 0),
            y: Axis::new("mean cosine", 3),
            series,
            band: None,
        })
    }
}

fn with(mut value: Value, key: &str, own: Value) -> Value {
    value[key] = own;
    value
}

/// The number of classes that an adapter's head has.
fn classes(adapter: &Path) -> Result<Option<usize>, sibo_peft::Error> {
    let folder = Folder::open(adapter)?;
    Ok(folder.classes().filter(|_| folder.config.task_type == Some(TaskType::SeqCls)))
}

/// Puts the adapter on once, which refuses what does not fit.
fn facts(base: &Model, name: &str, path: &Path) -> anyhow::Result<AdapterFacts> {
    let model = base.with_adapter(path, |_| {})?;
    let adapter = model.adapter().ok_or_else(|| anyhow::anyhow!("{}: no adapter", path.display()))?;
    let (method, sibo) = (&adapter.config.method, &adapter.config.sibo);
    let lambda = match &sibo.lambda {
        Lambda::Same(lambda) => Some(*lambda),
        _ => None,
    };
    let what = match method.takes_sibo() {
        true => format!("{}, lambda {}", method.name(), sibo.lambda_in_words()),
        false => method.name().into(),
    };
    // A learned lambda is among the adapter's tensors, and another one would leave them without a place.
    let learned = matches!(sibo.lambda, Lambda::Learned(_));
    Ok(AdapterFacts { name: name.into(), what, lambda, takes_sibo: method.takes_sibo() && !learned })
}

/// What the classes are called: as the first adapter says that knows as many, else as the model's own file does.
fn class_names(
    base: &Model,
    folder: &Path,
    adapters: &[(String, PathBuf)],
) -> anyhow::Result<Option<Vec<String>>> {
    let Some(count) = base.classes() else { return Ok(None) };
    for (_, path) in adapters {
        let known = crate::classes::of(folder, Some(path))?;
        if known.labels.len() == count {
            return Ok(Some(known.labels));
        }
    }
    Ok(Some(crate::classes::of(folder, None)?.names(count)))
}

/// Continues the text, as `sibo generate` does; the prompt's tokens.
fn speak(speaker: &Speaker, job: &Job<Ask>, at: usize) -> anyhow::Result<Row> {
    let prompt = speaker.prompt(&job.ask.text)?;
    let began = Instant::now();
    let answers = speaker.sample(std::slice::from_ref(&prompt), &job.ask.choice, |_, piece| {
        if !piece.is_empty() {
            job.tell("piece", &json!({"column": at, "text": piece}));
        }
        if job.withdrawn() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(answer) = answers.first() {
        let seconds = began.elapsed().as_secs_f64();
        let why = match answer.ended_by {
            "eos" => "ended by the model",
            "length" => "ended by the limit of new tokens",
            _ => "cut short",
        };
        let words = format!("{} tokens in {}, {why}", answer.tokens, number::duration(seconds));
        job.tell("end", &json!({"column": at, "words": words}));
    }
    Ok(Row { ids: prompt, ..Row::default() })
}

/// Class probabilities, or the value of a regression; the text's tokens.
fn judge(speaker: &Speaker, ask: &Ask, names: &[String], tell: impl FnOnce(Value)) -> anyhow::Result<Row> {
    let arch = speaker.model.arch();
    let limit = speaker.model.max_len();
    let encoded = match &ask.second {
        Some(second) => speaker.tokenizer.encode_pair(&ask.text, second, limit)?,
        None => speaker.tokenizer.encode(&ask.text, limit)?,
    };
    let types = if arch.types > 1 { encoded.type_ids } else { vec![] };
    let row = Row { ids: encoded.ids, types, sample: 0 };
    let batch = Batch::new(arch, std::slice::from_ref(&row))?;
    let scores = speaker.model.class_scores(&batch);
    let scores: Vec<f64> = scores.row(0).iter().map(|s| f64::from(*s)).collect();
    let cut =
        if encoded.dropped > 0 { format!("{} tokens were cut off", encoded.dropped) } else { String::new() };
    tell(match scores.as_slice() {
        [value] => json!({"value": value, "words": cut}),
        _ => {
            let one = |(name, p): (&String, f64)| json!({"name": name, "probability": p});
            let all: Vec<Value> = names.iter().zip(softmax(&scores)).map(one).collect();
            json!({"classes": all, "words": cut})
        }
    });
    Ok(row)
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let all: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
    let sum: f64 = all.iter().sum();
    all.into_iter().map(|e| e / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_even_for_large_scores() {
        let p = softmax(&[1000.0, 998.5, -3.0]);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((p[0] / p[1] - 1.5f64.exp()).abs() < 1e-9 && p[2] < 1e-300);
    }
}
