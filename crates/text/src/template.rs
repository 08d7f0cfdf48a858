//! The one render path: a row and a template in, the prompt's text and the answer's text out.
//!
//! Training, evaluation and chat all come through [`Template::render`], so a model is asked with
//! the text that it was trained on.

use std::ops::Range;
use std::path::Path;

use crate::chat::{ChatTemplate, Message};
use crate::instruction::{BUILT_IN, InstructionTemplate, Purpose};
use crate::{TextError, Tokenizer};

/// A row of instruction data, in one of the shapes that people have.
#[derive(Debug, Clone, PartialEq)]
pub enum Sample {
    /// Alpaca's three columns. `input` may be empty; `output` is empty where an answer is asked for.
    Instruction {
        /// What to do.
        instruction: String,
        /// What to do it with.
        input: String,
        /// The answer.
        output: String,
    },
    /// A conversation. If the last turn is the assistant's, it is the answer; else an answer is asked for.
    Chat(Vec<Message>),
    /// Two texts that no template touches.
    Pair {
        /// The text before the answer.
        prompt: String,
        /// The answer.
        completion: String,
    },
    /// Running text: every token is learned.
    Text(String),
}

/// A row as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text up to the answer.
    pub prompt: String,
    /// The answer; empty where one is asked for.
    pub completion: String,
    /// Where the prompt holds answers that the assistant gave before, in bytes: training learns them too.
    pub answers: Vec<Range<usize>>,
    /// Where the special tokens around the text come from.
    pub specials: Specials,
    /// Tokenise both texts as one and split by the prompt's token count (LLM-Adapters' way).
    pub joint_tokens: bool,
}

/// Who writes BOS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Specials {
    /// The tokenizer's post-processor, unless the text begins with it already.
    PostProcessor,
    /// The chat template, and nobody else; as transformers' `apply_chat_template` has it.
    InText,
}

/// A template, chosen once per run.
#[derive(Debug, Clone)]
pub enum Template {
    /// The model's own chat template, or a `.jinja` file.
    Chat(ChatTemplate),
    /// A built-in instruction template, or a `.toml` file.
    Instruction(InstructionTemplate),
}

impl Template {
    /// The template of that name: a built-in one, `chat` or `chat:NAME` for the model's own, or a path
    /// ending in `.toml` or `.jinja`. `now` is for templates that print the date (seconds since 1970).
    ///
    /// # Errors
    /// An unknown name (with the nearest known one), a model without a chat template, a broken file.
    pub fn choose(name: &str, tokenizer: &Tokenizer, now: i64) -> Result<Self, TextError> {
        if let Some(built_in) = InstructionTemplate::built_in(name) {
            return Ok(Template::Instruction(built_in));
        }
        if name == "chat" {
            return Ok(Template::Chat(ChatTemplate::of_model(tokenizer, None, now)?));
        }
        if let Some(named) = name.strip_prefix("chat:") {
            return Ok(Template::Chat(ChatTemplate::of_model(tokenizer, Some(named), now)?));
        }
        match Path::new(name).extension().and_then(|e| e.to_str()) {
            Some("toml") => Ok(Template::Instruction(InstructionTemplate::from_file(Path::new(name))?)),
            Some("jinja" | "j2") => {
                let source = std::fs::read_to_string(name).map_err(|e| TextError::io(Path::new(name), e))?;
                Ok(Template::Chat(ChatTemplate::from_source(name, source, tokenizer.special(), now)?))
            }
            _ => Err(unknown(name)),
        }
    }

    /// The row's prompt and answer.
    ///
    /// # Errors
    /// A row of a shape that the template does not take, or what the template itself raises.
    pub fn render(&self, sample: &Sample, purpose: Purpose) -> Result<Rendered, TextError> {
        match (self, sample) {
            (_, Sample::Pair { prompt, completion }) => Ok(raw(prompt, completion)),
            (_, Sample::Text(text)) => Ok(raw("", text)),
            (Template::Instruction(t), Sample::Instruction { instruction, input, output }) => {
                with_instruction(t, [instruction, input, output], purpose)
            }
            (Template::Instruction(t), Sample::Chat(turns)) => {
                let (question, answer) = one_turn(t, turns)?;
                with_instruction(t, [question, "", answer], purpose)
            }
            (Template::Chat(t), Sample::Chat(turns)) => with_chat(t, turns),
            (Template::Chat(t), Sample::Instruction { instruction, input, output }) => {
                with_chat(t, &as_turns(instruction, input, output))
            }
        }
    }

    /// Whether it puts nothing around a text: the built-in `none`, or the copy of it that lies with an adapter.
    pub fn is_none(&self) -> bool {
        let none = InstructionTemplate::built_in("none");
        matches!((self, none), (Template::Instruction(own), Some(none)) if own.source() == none.source())
    }

    /// Its name or path.
    pub fn name(&self) -> &str {
        match self {
            Template::Chat(t) => t.name(),
            Template::Instruction(t) => t.name(),
        }
    }

    /// The file that keeps it with an adapter: name and text. [`Template::choose`] reads it again.
    pub fn file(&self) -> (&'static str, &str) {
        match self {
            Template::Chat(t) => ("chat_template.jinja", t.source()),
            Template::Instruction(t) => ("template.toml", t.source()),
        }
    }
}

fn unknown(name: &str) -> TextError {
    let known = BUILT_IN.map(|(known, _)| known);
    let near = known
        .iter()
        .chain(&["chat"])
        .map(|candidate| (strsim::osa_distance(candidate, name), candidate))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    TextError::UnknownTemplate {
        name: name.to_owned(),
        known: known.join(", "),
        suggestion: near.map_or(String::new(), |(_, n)| format!(". Did you mean `{n}`?")),
    }
}

fn raw(prompt: &str, completion: &str) -> Rendered {
    Rendered {
        prompt: prompt.to_owned(),
        completion: completion.to_owned(),
        answers: vec![],
        specials: Specials::PostProcessor,
        joint_tokens: false,
    }
}

fn with_instruction(
    t: &InstructionTemplate,
    row: [&str; 3],
    purpose: Purpose,
) -> Result<Rendered, TextError> {
    let [instruction, input, output] = row;
    let completion = match output {
        "" => String::new(),
        output => t.completion(instruction, input, output)?,
    };
    Ok(Rendered {
        prompt: t.prompt(instruction, input, purpose)?,
        completion,
        answers: vec![],
        specials: Specials::PostProcessor,
        joint_tokens: t.joint_tokens(),
    })
}

/// The prompt is the conversation up to the answer, with the marks that ask for one; the answer is
/// what the whole conversation adds to it.
fn with_chat(t: &ChatTemplate, turns: &[Message]) -> Result<Rendered, TextError> {
    let answered = turns.last().is_some_and(|turn| turn.role == "assistant");
    let asked = if answered { &turns[..turns.len() - 1] } else { turns };
    if asked.is_empty() {
        return Err(misfit(t.name(), "a conversation needs a turn before the assistant's answer"));
    }
    let prompt = t.render(asked, None, true)?;
    let completion = if answered {
        let whole = t.render(turns, None, false)?;
        let rest = whole.strip_prefix(&prompt).ok_or_else(|| {
            misfit(
                t.name(),
                "the text of the whole conversation does not begin with the text that asks for its last answer, \
                 so training and chat would see different prompts",
            )
        })?;
        rest.to_owned()
    } else {
        String::new()
    };
    let answers = if answered { earlier_answers(t, asked, &prompt) } else { vec![] };
    Ok(Rendered { prompt, completion, answers, specials: Specials::InText, joint_tokens: false })
}

/// The assistant's turns before the last: what each adds to the text that asked for it. A template may write an earlier
/// turn otherwise than the last one (without its thoughts): such a turn is none that anybody generates, and is left out.
fn earlier_answers(t: &ChatTemplate, turns: &[Message], prompt: &str) -> Vec<Range<usize>> {
    let answer = |i: usize| {
        let before = t.render(&turns[..i], None, true).ok()?;
        let through = t.render(&turns[..=i], None, false).ok()?;
        let as_asked = prompt.starts_with(&through) && through.starts_with(&before);
        as_asked.then_some(before.len()..through.len())
    };
    (1..turns.len()).filter(|i| turns[*i].role == "assistant").filter_map(answer).collect()
}

/// A conversation for a template that knows one question and one answer.
fn one_turn<'a>(t: &InstructionTemplate, turns: &'a [Message]) -> Result<(&'a str, &'a str), TextError> {
    match turns {
        [q] if q.role == "user" => Ok((&q.content, "")),
        [q, a] if q.role == "user" && a.role == "assistant" => Ok((&q.content, &a.content)),
        _ => {
            let roles: Vec<_> = turns.iter().map(|turn| turn.role.as_str()).collect();
            let why = format!(
                "it takes one user turn and its answer, this row has [{}]; `template = \"chat\"` (--set template=chat) takes conversations",
                roles.join(", ")
            );
            Err(misfit(t.name(), &why))
        }
    }
}

fn as_turns(instruction: &str, input: &str, output: &str) -> Vec<Message> {
    let question = match input.trim() {
        "" => instruction.to_owned(),
        _ => format!("{instruction}\n\n{input}"),
    };
    let mut turns = vec![Message::new("user", &question)];
    if !output.is_empty() {
        turns.push(Message::new("assistant", output));
    }
    turns
}

fn misfit(name: &str, why: &str) -> TextError {
    TextError::RowAndTemplate { name: name.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
