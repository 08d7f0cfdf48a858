//! A model that is spoken with: prompts into tokens by the run's own template, new tokens into text.

use crate::places::{ModelArgs, Places};
use crate::{beside, interrupt};
use sibo_model::{BeamSettings, EarlyStopping, Model, Sampler, SamplerSettings, beam_search, continue_rows};
use sibo_text::{
    Message, Purpose, Rendered, Sample, Specials, StopText, StreamDecoder, Template, Tokenizer, encode_prompt,
};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// How new tokens are chosen, under transformers' names.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "How tokens are chosen")]
pub(crate) struct ChoiceArgs {
    /// At most so many new tokens
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) max_new_tokens: usize,
    /// 0 takes the most likely token at each step; 1 draws as the model says; between is more careful
    #[arg(long, value_name = "F", default_value_t = 0.0)]
    pub(crate) temperature: f32,
    /// Draw among the K most likely tokens only; 0 means all
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub(crate) top_k: usize,
    /// Draw among the most likely tokens that together have this probability
    #[arg(long, value_name = "F", default_value_t = 1.0)]
    pub(crate) top_p: f32,
    /// Above 1, tokens that have occurred become less likely
    #[arg(long, value_name = "F", default_value_t = 1.0)]
    pub(crate) repetition_penalty: f32,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// End the text before this string; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// The prompt's form: `none` (as it stands), `chat` (the model's chat template), alpaca, plain,
    /// question-answer, llm-adapters, or a .toml or .jinja file [default: the one that the adapter was
    /// trained with, else the model's chat template, else none]
    #[arg(long, value_name = "NAME")]
    pub(crate) template: Option<String>,
}

/// Beam search, under transformers' names.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Beam search")]
pub(crate) struct BeamArgs {
    /// Beams; above 1, the best of several continuations is searched, and nothing is drawn
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) num_beams: u16,
    /// Above 0 favours longer texts, below 0 shorter ones
    #[arg(long, value_name = "F", default_value_t = 1.0, allow_negative_numbers = true)]
    pub(crate) length_penalty: f64,
    /// When the search may end: `true` (K texts are finished), `false` (a better one is unlikely), `never`
    /// (a better one is impossible)
    #[arg(long, value_name = "WHEN", default_value = "false", value_parser = early_stopping)]
    pub(crate) early_stopping: EarlyStopping,
}

fn early_stopping(word: &str) -> Result<EarlyStopping, String> {
    match word {
        "true" => Ok(EarlyStopping::True),
        "false" => Ok(EarlyStopping::False),
        "never" => Ok(EarlyStopping::Never),
        _ => Err("it is none of true, false, never".into()),
    }
}

impl BeamArgs {
    /// The settings for so many new tokens.
    pub(crate) fn settings(&self, max_new: usize, vocabulary: Option<usize>) -> BeamSettings {
        BeamSettings {
            beams: self.num_beams.into(),
            max_new,
            length_penalty: self.length_penalty,
            early_stopping: self.early_stopping,
            vocabulary,
        }
    }
}

/// What one prompt was answered with.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The text, without special tokens and without the stop string.
    pub(crate) text: String,
    /// New tokens.
    pub(crate) tokens: usize,
    /// `eos`, `stop`, `length` or `interrupted`.
    pub(crate) ended_by: &'static str,
}

/// A model with its tokenizer and template.
pub(crate) struct Speaker {
    pub(crate) model: Model,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) template: Option<Template>,
}

impl Speaker {
    pub(crate) fn load(places: &Places, what: &ModelArgs, template: Option<&str>) -> anyhow::Result<Self> {
        let folder = places.model(&what.model)?;
        let tokenizer = Tokenizer::from_folder(&folder)?;
        let adapter = what.adapter.as_deref().map(|name| places.model(name)).transpose()?;
        let template = choose_template(&tokenizer, adapter.as_deref(), template)?;
        let model = places.load(what)?;
        anyhow::ensure!(
            model.is_causal(),
            "{}: this model has no head that continues text; llama, mistral, qwen2 and gptj models do",
            folder.display()
        );
        tokenizer.check_vocabulary(model.arch().vocab)?;
        Ok(Speaker { model, tokenizer: tokenizer.into(), template })
    }

    /// Tokens of a text to continue or of an instruction to follow.
    pub(crate) fn prompt(&self, text: &str) -> anyhow::Result<Vec<u32>> {
        let rendered = match &self.template {
            None => verbatim(text),
            Some(template) => {
                let sample = Sample::Instruction {
                    instruction: text.into(),
                    input: String::new(),
                    output: String::new(),
                };
                template.render(&sample, Purpose::Evaluation)?
            }
        };
        Ok(encode_prompt(&self.tokenizer, &rendered)?)
    }

    /// Tokens of a conversation up to where the answer begins.
    pub(crate) fn conversation(&self, turns: &[Message]) -> anyhow::Result<Vec<u32>> {
        match &self.template {
            Some(template) => {
                let rendered = template.render(&Sample::Chat(turns.to_vec()), Purpose::Evaluation)?;
                Ok(encode_prompt(&self.tokenizer, &rendered)?)
            }
            None => self.prompt(turns.last().map_or("", |turn| turn.content.as_str())),
        }
    }

    /// Rows of the embedding that are tokens: the rest is never chosen.
    fn vocabulary(&self) -> Option<usize> {
        let last_stop = self.tokenizer.stop_ids().iter().max().map_or(0, |id| *id as usize + 1);
        Some(self.tokenizer.vocabulary_size().max(last_stop))
    }

    /// Continues each prompt, token by token; `show(row, text)` sees the text as it grows, and may end it all.
    pub(crate) fn sample(
        &self,
        prompts: &[Vec<u32>],
        args: &ChoiceArgs,
        mut show: impl FnMut(usize, &str) -> ControlFlow<()>,
    ) -> anyhow::Result<Vec<Answer>> {
        let settings = SamplerSettings {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            repetition_penalty: args.repetition_penalty,
            vocabulary: self.vocabulary(),
            seed: args.seed,
        };
        settings.check().map_err(crate::exit::usage)?;
        let mut sampler = Sampler::new(settings, prompts.len());
        let mut writers: Vec<Writer> = prompts.iter().map(|_| Writer::new(&args.stop)).collect();
        let eos = self.tokenizer.stop_ids();
        let (mut failure, mut enough) = (None, false);
        let new = continue_rows(&self.model, prompts, args.max_new_tokens, eos, |row, scores, so_far| {
            let writer = &mut writers[row];
            if writer.stop.stopped() || interrupt::asked() || failure.is_some() || enough {
                return None;
            }
            let token = sampler.next(row, scores, prompts[row].iter().chain(so_far).copied());
            match writer.push(&self.tokenizer, token) {
                Ok(piece) => enough |= show(row, &piece).is_break(),
                Err(error) => failure = Some(error),
            }
            Some(token)
        })?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        let mut answers = Vec::new();
        for (row, (writer, tokens)) in writers.into_iter().zip(&new).enumerate() {
            let (answer, rest) = writer.finish(&self.tokenizer, tokens, eos)?;
            let _ = show(row, &rest);
            answers.push(answer);
        }
        Ok(answers)
    }

    /// The best continuation of each prompt that a beam search finds.
    pub(crate) fn search(
        &self,
        prompts: &[Vec<u32>],
        args: &ChoiceArgs,
        beams: &BeamArgs,
    ) -> anyhow::Result<Vec<Answer>> {
        let settings = beams.settings(args.max_new_tokens, self.vocabulary());
        let eos = self.tokenizer.stop_ids();
        let new = beam_search(&self.model, prompts, eos, &settings)?;
        new.iter()
            .map(|tokens| {
                let mut writer = Writer::new(&args.stop);
                for token in tokens {
                    writer.push(&self.tokenizer, *token)?;
                }
                Ok(writer.finish(&self.tokenizer, tokens, eos)?.0)
            })
            .collect()
    }
}

/// Text of one row as it grows.
struct Writer {
    decoder: StreamDecoder,
    stop: StopText,
    text: String,
}

impl Writer {
    fn new(stops: &[String]) -> Self {
        Writer {
            decoder: StreamDecoder::new(),
            stop: StopText::new(stops.iter().cloned()),
            text: String::new(),
        }
    }

    /// Adds a token; the text that may be shown now.
    fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> Result<String, sibo_text::TextError> {
        let piece = self.stop.push(&self.decoder.push(tokenizer, token)?);
        self.text.push_str(&piece);
        Ok(piece)
    }

    /// The answer, and the text that was still held back.
    fn finish(
        mut self,
        tokenizer: &Tokenizer,
        tokens: &[u32],
        eos: &[u32],
    ) -> Result<(Answer, String), sibo_text::TextError> {
        let mut rest = self.stop.push(&self.decoder.finish(tokenizer)?);
        let ended_by = match tokens.last() {
            _ if self.stop.stopped() => "stop",
            Some(last) if eos.contains(last) => "eos",
            _ if interrupt::asked() => "interrupted",
            _ => "length",
        };
        rest.push_str(&self.stop.finish());
        self.text.push_str(&rest);
        Ok((Answer { text: self.text, tokens: tokens.len(), ended_by }, rest))
    }
}

fn verbatim(text: &str) -> Rendered {
    Rendered {
        prompt: text.into(),
        completion: String::new(),
        answers: vec![],
        specials: Specials::PostProcessor,
        joint_tokens: false,
    }
}

/// The template asked for; else the one that lies with the adapter, or in the folder of the model where an adapter was merged
/// into it; else the model's own, if it has one.
pub(crate) fn choose_template(
    tokenizer: &Tokenizer,
    adapter: Option<&Path>,
    asked: Option<&str>,
) -> anyhow::Result<Option<Template>> {
    let now = now();
    if let Some(name) = asked {
        return Ok(if name == "none" { None } else { Some(Template::choose(name, tokenizer, now)?) });
    }
    if let Some(template) = template_of_adapter(tokenizer, adapter.or(Some(tokenizer.folder()))) {
        return Ok(Some(template?).filter(|template| !template.is_none()));
    }
    match Template::choose("chat", tokenizer, now) {
        Ok(template) => Ok(Some(template)),
        Err(sibo_text::TextError::NoChatTemplate { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The template that a run left with its adapter.
pub(crate) fn template_of_adapter(
    tokenizer: &Tokenizer,
    adapter: Option<&Path>,
) -> Option<anyhow::Result<Template>> {
    let files = beside::TEMPLATES.map(|name| adapter.map(|folder| folder.join(name)));
    let file = files.into_iter().flatten().find(|file| file.is_file())?;
    Some(Template::choose(&file.display().to_string(), tokenizer, now()).map_err(Into::into))
}

/// Seconds since 1970, for templates that print the date.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(0))
}
