//! From a task's rows, or a file of instructions, to the tokens and labels that a model learns from.

use crate::Error;
use crate::recipe::Training;
use sibo_model::{Arch, HeadKind, Labels, Model, Row};
use sibo_tasks::prompt::Prompt;
use sibo_tasks::{Example, Protocol, Target, Task, Text};
use sibo_text::{
    Cut, EncodeOptions, EncodeStats, Message, Purpose, Rendered, Sample, Specials, Template, Tokenizer,
    encode_example,
};

/// What one row should give.
#[derive(Debug, Clone, PartialEq)]
pub enum Label {
    /// One id or -100 for each token; the label at t is predicted from t - 1.
    Tokens(Vec<i64>),
    /// A class, from 0.
    Class(u32),
    /// A number.
    Value(f32),
}

/// A row as the model reads it, and what it should give.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledRow {
    /// The tokens; `row.sample` is the row's index in its file ([`Dataset::origin`] where there are
    /// several), the address of its dropout masks.
    pub row: Row,
    /// The label.
    pub label: Label,
}

impl LabelledRow {
    /// Labelled tokens, or 1: what the row adds to the denominator of a mean loss.
    pub fn count(&self) -> usize {
        match &self.label {
            Label::Tokens(labels) => labels.iter().skip(1).filter(|l| **l != -100).count(),
            Label::Class(_) | Label::Value(_) => 1,
        }
    }
}

/// Rows to learn from or to judge by; all labels are of one kind.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    /// The rows, in their file's order.
    pub rows: Vec<LabelledRow>,
    /// Where they came from, for messages.
    pub place: String,
    /// Where the parts of a mixture came from; nothing where there is one.
    pub parts: Vec<String>,
    /// What a person should know of them: shortened rows, a part of the official rows.
    pub notes: Vec<String>,
}

impl Dataset {
    /// All tokens.
    pub fn tokens(&self) -> usize {
        self.rows.iter().map(|r| r.row.ids.len()).sum()
    }

    /// Tokens of the longest row.
    pub fn longest(&self) -> usize {
        self.rows.iter().map(|r| r.row.ids.len()).max().unwrap_or(0)
    }

    /// Labelled tokens or rows.
    pub fn labelled(&self) -> usize {
        self.rows.iter().map(LabelledRow::count).sum()
    }

    /// Tokens of each row.
    pub fn lengths(&self) -> Vec<usize> {
        self.rows.iter().map(|r| r.row.ids.len()).collect()
    }

    /// The chosen rows and their labels, as a model takes them.
    pub fn gather(&self, at: &[usize]) -> (Vec<Row>, Labels) {
        let rows = at.iter().map(|i| self.rows[*i].row.clone()).collect();
        let labels = at.iter().map(|i| &self.rows[*i].label);
        let labels = match at.first().map(|i| &self.rows[*i].label) {
            None => Labels::None,
            Some(Label::Tokens(_)) => Labels::Tokens(
                labels.map(|l| if let Label::Tokens(t) = l { t.clone() } else { vec![] }).collect(),
            ),
            Some(Label::Class(_)) => {
                Labels::Classes(labels.map(|l| if let Label::Class(c) = l { *c } else { u32::MAX }).collect())
            }
            Some(Label::Value(_)) => {
                Labels::Values(labels.map(|l| if let Label::Value(v) = l { *v } else { f32::NAN }).collect())
            }
        };
        (rows, labels)
    }

    /// Refuses, by its id, the first row that this model cannot take, before anything is trained.
    pub fn check(&self, model: &Model) -> Result<(), Error> {
        if self.rows.is_empty() {
            return Err(Error::Refused(format!("{}: no row to learn from", self.place)));
        }
        for (i, row) in self.rows.iter().enumerate() {
            let (rows, labels) = self.gather(&[i]);
            let checked =
                sibo_model::Batch::new(model.arch(), &rows).and_then(|_| labels.check(&rows, model.arch()));
            let fits = checked.map_err(|e| match e {
                sibo_model::Error::Row { reason, .. } => reason,
                other => other.to_string(),
            });
            let fits = fits.and_then(|()| {
                model
                    .takes(&labels)
                    .then_some(())
                    .ok_or_else(|| "its label is of another kind than the model's head gives".to_string())
            });
            fits.map_err(|reason| {
                let (id, place) = self.origin(row.row.sample);
                Error::row(id, place, reason)
            })?;
        }
        Ok(())
    }

    /// A hash of every token and label (FNV-1a): by it a resumed run knows its data again.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut take = |value: u64| hash = (hash ^ value).wrapping_mul(0x100_0000_01b3);
        for LabelledRow { row, label } in &self.rows {
            take(row.sample);
            row.ids.iter().chain(&row.types).for_each(|id| take(u64::from(*id)));
            match label {
                Label::Tokens(labels) => labels.iter().for_each(|l| take(*l as u64)),
                Label::Class(class) => take(u64::from(*class)),
                Label::Value(value) => take(u64::from(value.to_bits())),
            }
        }
        hash
    }
}

/// How rows become tokens, whatever their kind.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest row in tokens.
    pub cutoff: usize,
    /// Learn the prompt's tokens too.
    pub train_on_inputs: bool,
}

impl Limits {
    /// Those of a recipe.
    pub(crate) fn of(training: &Training) -> Limits {
        Limits { cutoff: training.cutoff_len, train_on_inputs: training.train_on_inputs }
    }

    /// The cutoff, but never past the model's positions.
    pub(crate) fn length(&self, arch: &Arch) -> usize {
        [arch.max_len, arch.window].into_iter().flatten().fold(self.cutoff, usize::min)
    }

    fn options(&self, arch: &Arch) -> EncodeOptions {
        EncodeOptions {
            cutoff: self.length(arch),
            train_on_inputs: self.train_on_inputs,
            add_eos: true,
            cut: Cut::Middle,
        }
    }
}

/// Rows of a classification or regression task for a model with a class head: text or pair, cut at the longer
/// text's end, with token types where the model has them.
pub fn for_classes(
    task: &Task,
    examples: &[Example],
    tokenizer: &Tokenizer,
    arch: &Arch,
    limits: &Limits,
) -> Result<Dataset, Error> {
    let mut data = Dataset { place: task.name().into(), ..Dataset::default() };
    let mut shortened = 0;
    for example in examples {
        let (row, dropped) = class_row(example, tokenizer, arch, limits.length(arch))
            .map_err(|reason| Error::row(example.id, task.name(), reason))?;
        shortened += usize::from(dropped > 0);
        let label = match &example.target {
            Target::Class(class) => Label::Class(*class),
            Target::Value(value) => Label::Value(*value),
            Target::Choice { gold, .. } => Label::Class(*gold as u32),
            _ => {
                return Err(Error::row(
                    example.id,
                    task.name(),
                    "has no class and no score for a class head",
                ));
            }
        };
        if let (Label::Class(class), HeadKind::Classes(n)) = (&label, arch.head)
            && *class as usize >= n
        {
            let reason = format!("class {class} is outside the {n} classes of the head, 0 to {}", n - 1);
            return Err(Error::row(example.id, task.name(), reason));
        }
        data.rows.push(LabelledRow { row, label });
    }
    if shortened > 0 {
        data.notes.push(format!("{shortened} rows were shortened to {} tokens", limits.length(arch)));
    }
    Ok(data)
}

/// A text or a pair as one input row, and how many tokens the limit took.
pub(crate) fn class_row(
    example: &Example,
    tokenizer: &Tokenizer,
    arch: &Arch,
    limit: usize,
) -> Result<(Row, usize), String> {
    let filled = |text: &str| match text.trim().is_empty() {
        true => Err("holds an empty text; every text needs one character at least".to_string()),
        false => Ok(()),
    };
    let encoded = match &example.text {
        Text::Pair(a, b) => {
            filled(a).and(filled(b))?;
            tokenizer.encode_pair(a, b, Some(limit))
        }
        Text::Question { question, passage: Some(passage), .. } => {
            tokenizer.encode_pair(question, passage, Some(limit))
        }
        Text::Single(text) | Text::Question { question: text, .. } => {
            filled(text)?;
            tokenizer.encode(text, Some(limit))
        }
        _ => return Err("is an instruction or a chat; a class head reads a text or a pair of texts".into()),
    };
    let encoded = encoded.map_err(|e| e.to_string())?;
    let types = if arch.types > 1 { encoded.type_ids } else { vec![] };
    Ok((Row { ids: encoded.ids, types, sample: example.id }, encoded.dropped))
}

/// Rows of a task as lessons for a language model under `protocol`.
pub fn for_lessons(
    task: &Task,
    examples: &[Example],
    protocol: Protocol,
    template: &Template,
    tokenizer: &Tokenizer,
    arch: &Arch,
    limits: &Limits,
) -> Result<Dataset, Error> {
    encode_all(examples, task.name(), tokenizer, &limits.options(arch), |example| {
        let lesson = task.lesson(example, protocol)?;
        Ok(render_answer(&lesson.prompt, &lesson.response, protocol, template)?)
    })
}

/// Rows of a file of instructions, chats or texts.
pub fn for_instructions(
    examples: &[Example],
    place: &str,
    template: &Template,
    tokenizer: &Tokenizer,
    arch: &Arch,
    limits: &Limits,
) -> Result<Dataset, Error> {
    encode_all(examples, place, tokenizer, &limits.options(arch), |example| {
        let sample = sample(example).ok_or_else(|| {
            Error::row(example.id, place, "is no instruction, chat or text that a language model could learn")
        })?;
        let mut rendered = template.render(&sample, Purpose::Training)?;
        if let Target::Response(_) = example.target {
            // Answers in a prompt are given.
            rendered.answers.clear();
        }
        Ok(rendered)
    })
}

fn encode_all(
    examples: &[Example],
    place: &str,
    tokenizer: &Tokenizer,
    options: &EncodeOptions,
    render: impl Fn(&Example) -> Result<Rendered, Error>,
) -> Result<Dataset, Error> {
    let mut data = Dataset { place: place.into(), ..Dataset::default() };
    let mut stats = EncodeStats::default();
    for example in examples {
        let wrong = |e: Error| match e {
            row @ (Error::Row { .. } | Error::Task(_)) => row,
            other => Error::row(example.id, place, other),
        };
        let rendered = render(example).map_err(wrong)?;
        let encoded = encode_example(tokenizer, &rendered, options).map_err(|e| wrong(Error::Text(e)))?;
        stats.add(&encoded);
        data.rows.push(LabelledRow {
            row: Row { ids: encoded.input_ids, types: vec![], sample: example.id },
            label: Label::Tokens(encoded.labels.into_iter().map(i64::from).collect()),
        });
    }
    data.notes = stats.warnings(options.cutoff);
    Ok(data)
}

/// A row of a data file in the form that a template takes.
fn sample(example: &Example) -> Option<Sample> {
    Some(match (&example.text, &example.target) {
        (Text::Prompt { instruction, input }, Target::Response(output)) => Sample::Instruction {
            instruction: instruction.clone(),
            input: input.clone(),
            output: output.clone(),
        },
        (Text::Verbatim(prompt), Target::Response(completion)) => {
            Sample::Pair { prompt: prompt.clone(), completion: completion.clone() }
        }
        (Text::Chat(turns), target) => {
            let answer = match target {
                Target::Response(answer) => Some(Message::new("assistant", answer)),
                _ => None,
            };
            Sample::Chat(turns.iter().map(turn).chain(answer).collect())
        }
        (Text::Plain(text), _) => Sample::Text(text.clone()),
        _ => return None,
    })
}

fn turn(message: &sibo_tasks::Message) -> Message {
    Message::new(message.role.name(), &message.content)
}

/// A prompt with its answer as text. `llm-adapters` tokenises its two texts as one, as that project does.
pub(crate) fn render_answer(
    prompt: &Prompt,
    response: &str,
    protocol: Protocol,
    template: &Template,
) -> Result<Rendered, sibo_text::TextError> {
    let sample = match prompt {
        Prompt::Verbatim(text) => {
            let rendered = Rendered {
                prompt: text.clone(),
                completion: response.into(),
                answers: vec![],
                specials: Specials::PostProcessor,
                joint_tokens: protocol == Protocol::LlmAdapters,
            };
            return Ok(rendered);
        }
        Prompt::Instruction { instruction, input } => Sample::Instruction {
            instruction: instruction.clone(),
            input: input.clone(),
            output: response.into(),
        },
        Prompt::Chat(turns) => {
            let answer = Message::new("assistant", response);
            Sample::Chat(turns.iter().map(turn).chain([answer]).collect())
        }
    };
    template.render(&sample, Purpose::Training)
}

/// The prompt of a request as text, exactly as training would have shown it.
pub(crate) fn render_prompt(prompt: &Prompt, template: &Template) -> Result<Rendered, sibo_text::TextError> {
    let sample = match prompt {
        Prompt::Verbatim(text) => Sample::Pair { prompt: text.clone(), completion: String::new() },
        Prompt::Instruction { instruction, input } => Sample::Instruction {
            instruction: instruction.clone(),
            input: input.clone(),
            output: String::new(),
        },
        Prompt::Chat(turns) => Sample::Chat(turns.iter().map(turn).collect()),
    };
    template.render(&sample, Purpose::Evaluation)
}

#[cfg(test)]
mod tests;
