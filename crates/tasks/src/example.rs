//! One row of a task or of training data, read and checked.

use serde::Serialize;
use std::borrow::Cow;

/// Who speaks in a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sets the scene.
    System,
    /// Asks.
    User,
    /// Answers; what training teaches.
    Assistant,
}

impl Role {
    /// The name that chat templates know.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// One turn of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// What the model reads.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Text {
    /// One text to classify.
    Single(String),
    /// Two texts to classify together.
    Pair(String, String),
    /// A question, with the passage it is about where the row has one.
    Question {
        /// The question.
        question: String,
        /// What it is about.
        passage: Option<String>,
        /// The question as likelihoods are asked after, where that differs.
        #[serde(skip_serializing_if = "Option::is_none")]
        scored: Option<String>,
    },
    /// An instruction, with an input that may be empty.
    Prompt {
        /// What to do.
        instruction: String,
        /// What to do it to; often empty.
        input: String,
    },
    /// Text that is followed directly by its [`Target::Response`], without a template.
    Verbatim(String),
    /// A whole conversation, whose last message is the assistant's and all of whose answers are learned; or one up to the
    /// answer that is its [`Target::Response`], which alone is.
    Chat(Vec<Message>),
    /// Running text, all of it to be learned.
    Plain(String),
}

/// What is right.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The class, from 0.
    Class(u32),
    /// The score.
    Value(f32),
    /// The choices and which of them is right, from 0.
    Choice {
        /// Their texts.
        choices: Vec<String>,
        /// The right one.
        gold: usize,
    },
    /// The answer, and the worked solution where the row has one.
    Answer {
        /// A number or a word, as [`crate::answer`] reads it from a response.
        gold: String,
        /// What training may teach.
        solution: Option<String>,
    },
    /// The response that training teaches.
    Response(String),
    /// Nothing apart from the text itself ([`Text::Chat`], [`Text::Plain`]).
    InText,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Example {
    /// The row's index in its file, from 0: the same whatever split, limit or order it is read in.
    pub id: u64,
    /// What the model reads.
    pub text: Text,
    /// What is right.
    pub target: Target,
}

impl Example {
    /// The value of a template's place, where this row has it.
    pub(crate) fn place(&self, name: &str) -> Option<Cow<'_, str>> {
        let text = match (name, &self.text) {
            ("text_a", Text::Single(a) | Text::Pair(a, _)) => a,
            ("text_b", Text::Pair(_, b)) => b,
            ("question", Text::Question { question, .. }) => question,
            ("passage", Text::Question { passage: Some(passage), .. }) => passage,
            ("scored", Text::Question { scored: Some(scored), .. }) => scored,
            _ => return self.target_place(name),
        };
        Some(Cow::from(text))
    }

    fn target_place(&self, name: &str) -> Option<Cow<'_, str>> {
        let text = match (name, &self.target) {
            ("choice", Target::Choice { choices, gold }) => choices.get(*gold)?,
            ("answer", Target::Answer { gold, .. }) => gold,
            ("solution", Target::Answer { solution: Some(solution), .. }) => solution,
            _ => return None,
        };
        Some(Cow::from(text))
    }

    /// Every text that the model reads, joined by a space (for finding leaks).
    pub fn all_text(&self) -> Cow<'_, str> {
        match &self.text {
            Text::Single(a) | Text::Plain(a) | Text::Verbatim(a) => Cow::from(a),
            Text::Pair(a, b) => Cow::from(format!("{a} {b}")),
            Text::Question { question, passage, .. } => match passage {
                Some(passage) => Cow::from(format!("{passage} {question}")),
                None => Cow::from(question),
            },
            Text::Prompt { instruction, input } => Cow::from(format!("{instruction} {input}")),
            Text::Chat(messages) => {
                let turns: Vec<&str> = messages.iter().map(|m| m.content.as_str()).collect();
                Cow::from(turns.join(" "))
            }
        }
    }
}
