//! Instruction templates: a TOML file with the text around an instruction, its input and its answer.

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, context};
use serde::Deserialize;

use crate::TextError;

/// The templates that come with the program: name and file.
pub const BUILT_IN: [(&str, &str); 5] = [
    ("alpaca", include_str!("../templates/alpaca.toml")),
    ("llm-adapters", include_str!("../templates/llm-adapters.toml")),
    ("none", include_str!("../templates/none.toml")),
    ("plain", include_str!("../templates/plain.toml")),
    ("question-answer", include_str!("../templates/question-answer.toml")),
];

/// What the text is for. Only a template with an `[evaluation]` table (`llm-adapters`) tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A row to learn from.
    Training,
    /// A prompt to answer.
    Evaluation,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Texts {
    with_input: String,
    without_input: String,
    completion: String,
    #[serde(default)]
    joint_tokens: bool,
    evaluation: Option<PromptTexts>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PromptTexts {
    with_input: String,
    without_input: String,
}

/// A parsed instruction template.
#[derive(Debug, Clone)]
pub struct InstructionTemplate {
    name: String,
    source: String,
    texts: Texts,
    env: Environment<'static>,
}

impl InstructionTemplate {
    /// One of [`BUILT_IN`].
    pub fn built_in(name: &str) -> Option<Self> {
        let (name, source) = BUILT_IN.iter().find(|(known, _)| *known == name)?;
        // The files are part of the program and a test parses each of them.
        Some(Self::parse(name, (*source).to_owned()).expect("a built-in template parses"))
    }

    /// A template from a file of one's own.
    ///
    /// # Errors
    /// An unreadable file, wrong keys, or a syntax error in a text.
    pub fn from_file(path: &Path) -> Result<Self, TextError> {
        let source = std::fs::read_to_string(path).map_err(|e| TextError::io(path, e))?;
        Self::parse(&path.display().to_string(), source)
    }

    /// Parse a template's TOML text.
    ///
    /// # Errors
    /// Wrong keys, or a syntax error in one of the texts.
    pub fn parse(name: &str, source: String) -> Result<Self, TextError> {
        let bad = |why: String| TextError::Template { name: name.to_owned(), why };
        let texts: Texts = toml::from_str(&source).map_err(|e| bad(e.to_string()))?;
        let mut env = Environment::new();
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        env.set_syntax(syntax.expect("the default delimiters are valid"));
        env.set_auto_escape_callback(|_| AutoEscape::None);
        for (key, text) in texts.all() {
            env.template_from_str(text).map_err(|e| bad(format!("{key}: {e}")))?;
        }
        Ok(InstructionTemplate { name: name.to_owned(), source, texts, env })
    }

    /// The text up to the answer. An `input` that is empty or blank picks the short text.
    ///
    /// # Errors
    /// A fault in the template.
    pub fn prompt(&self, instruction: &str, input: &str, purpose: Purpose) -> Result<String, TextError> {
        let training = (&self.texts.with_input, &self.texts.without_input);
        let (with, without) = match (&self.texts.evaluation, purpose) {
            (Some(texts), Purpose::Evaluation) => (&texts.with_input, &texts.without_input),
            _ => training,
        };
        let text = if input.trim().is_empty() { without } else { with };
        self.fill(text, instruction, input, "")
    }

    /// The answer as it follows the prompt.
    ///
    /// # Errors
    /// A fault in the template.
    pub fn completion(&self, instruction: &str, input: &str, output: &str) -> Result<String, TextError> {
        self.fill(&self.texts.completion, instruction, input, output)
    }

    fn fill(&self, text: &str, instruction: &str, input: &str, output: &str) -> Result<String, TextError> {
        self.env
            .render_str(text, context! { instruction, input, output })
            .map_err(|e| TextError::Template { name: self.name.clone(), why: e.to_string() })
    }

    /// Whether training and evaluation render alike, as they should.
    pub fn one_text(&self) -> bool {
        self.texts.evaluation.is_none()
    }

    /// Whether prompt and answer are tokenised as one text and split by count, as LLM-Adapters does.
    pub fn joint_tokens(&self) -> bool {
        self.texts.joint_tokens
    }

    /// Its name or path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The TOML text, to be kept with an adapter.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl Texts {
    /// Every text with its key, for checking.
    fn all(&self) -> Vec<(&'static str, &str)> {
        let mut all = vec![
            ("with_input", self.with_input.as_str()),
            ("without_input", &self.without_input),
            ("completion", &self.completion),
        ];
        if let Some(texts) = &self.evaluation {
            all.push(("evaluation.with_input", &texts.with_input));
            all.push(("evaluation.without_input", &texts.without_input));
        }
        all
    }
}
