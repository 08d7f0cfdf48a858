//! The ways in which a tokenizer, a template or a row can be wrong, each with what would be right.

use std::path::PathBuf;

/// What can be wrong with a tokenizer, a template, or a row of text.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The folder has no tokenizer that can be read.
    #[error("{}: no tokenizer.json here. {hint}", folder.display())]
    NoTokenizer {
        /// The model folder.
        folder: PathBuf,
        /// What was found instead, and how to get a `tokenizer.json`.
        hint: String,
    },
    /// A file could not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file was read, but does not hold what its name says.
    #[error("{}: {why}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong inside.
        why: String,
    },
    /// The tokenizer can produce an id for which the model has no row.
    #[error(
        "wrong tokenizer for the vocabulary: token {token:?} has id {id}, but the model's embedding \
         has {rows} rows (ids 0 to {}). Take the tokenizer.json that came with this model.",
        rows.saturating_sub(1)
    )]
    VocabularyTooSmall {
        /// The token with the largest id.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the model's embedding.
        rows: usize,
    },
    /// The tokenizer refused a text or a list of ids.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
    /// The length limit leaves no room for text beside the special tokens.
    #[error(
        "a maximum length of {limit} leaves no room for text: the tokenizer adds {special} special \
         tokens, so {} is the least",
        special + 1
    )]
    NoRoom {
        /// The limit that was asked for.
        limit: usize,
        /// Special tokens that the post-processor adds.
        special: usize,
    },
    /// No template of this name, and no file either.
    #[error(
        "no template {name:?}: {known} are built in, `chat` is the model's own, and a path ends in .toml or .jinja{suggestion}"
    )]
    UnknownTemplate {
        /// What was asked for.
        name: String,
        /// The built-in names.
        known: String,
        /// Empty, or a sentence with the nearest name.
        suggestion: String,
    },
    /// The model has no chat template.
    #[error(
        "{}: the model has no chat template (looked in chat_template.jinja, chat_template.json and tokenizer_config.json). \
         Choose an instruction template such as `alpaca`, or give a .jinja file",
        folder.display()
    )]
    NoChatTemplate {
        /// The model folder.
        folder: PathBuf,
    },
    /// A template does not parse, or failed on a row.
    #[error("template {name}: {why}")]
    Template {
        /// Its name or path.
        name: String,
        /// The engine's reason, with the line.
        why: String,
    },
    /// A row does not fit the template.
    #[error("template {name} cannot take this row: {why}")]
    RowAndTemplate {
        /// The template's name.
        name: String,
        /// What the template takes, and what the row has.
        why: String,
    },
    /// A training row has nothing to learn.
    #[error("the row has no answer to train on: its completion is empty")]
    EmptyCompletion,
    /// A row came out with fewer than two tokens, so nothing can be predicted.
    #[error("the row has {tokens} token(s); a causal model needs two or more to have one to predict")]
    TooShort {
        /// Tokens in the row.
        tokens: usize,
    },
}

impl TextError {
    /// An unreadable file.
    pub(crate) fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        TextError::Unreadable { path: path.to_owned(), source }
    }

    /// A file with the wrong content.
    pub(crate) fn bad(path: &std::path::Path, why: impl ToString) -> Self {
        TextError::BadFile { path: path.to_owned(), why: why.to_string() }
    }
}
