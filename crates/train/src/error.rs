//! What can be wrong with a recipe, a run or its folder: one variant per way, a sentence each.

use std::path::{Path, PathBuf};

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be read or written.
    #[error(transparent)]
    File(#[from] sibo_files::Error),
    /// An adapter that cannot be used.
    #[error(transparent)]
    Adapter(#[from] sibo_peft::Error),
    /// A model or a batch that cannot be used.
    #[error(transparent)]
    Model(#[from] sibo_model::Error),
    /// A task or its data.
    #[error(transparent)]
    Task(#[from] sibo_tasks::Error),
    /// A tokenizer, a template or a text.
    #[error(transparent)]
    Text(#[from] sibo_text::TextError),
    /// A recipe that is not TOML.
    #[error("{place}: not a recipe: {message}")]
    Syntax {
        /// The file.
        place: String,
        /// The parser's words, with the line.
        message: String,
    },
    /// A key of a recipe with a value that cannot be.
    #[error("{place}: `{key}`: {reason}")]
    Key {
        /// The file, or what else was read.
        place: String,
        /// The key, with its table.
        key: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A row that cannot be learned from or judged.
    #[error("row {} of {place}: {reason}", id + 1)]
    Row {
        /// The row's index in its file, from 0.
        id: u64,
        /// The file or task.
        place: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A trainable tensor without a usable gradient after the first backward pass.
    #[error(
        "step {step}: the gradient of {report}\nNothing was updated; such a tensor would train to nothing or to nonsense."
    )]
    Gradient {
        /// The step, from 1.
        step: usize,
        /// One line for each tensor.
        report: String,
    },
    /// A run that diverged: a loss or gradient that is no number, or updates that left no gradient at all.
    #[error(
        "step {step}: {what} on rows {rows}; {checkpoint}. A lower learning_rate, a smaller max_grad_norm or compute = \"f32\" usually helps."
    )]
    NotFinite {
        /// The step, from 1.
        step: usize,
        /// What happened, with its verb.
        what: String,
        /// Ids of the rows, separated by commas.
        rows: String,
        /// Where the last good state lies, in words.
        checkpoint: String,
    },
    /// An output folder that already holds a run.
    #[error(
        "{}: holds a run already ({found}). Go on with it by --resume, replace it by --overwrite, or choose another output_dir",
        folder.display()
    )]
    Occupied {
        /// The folder.
        folder: PathBuf,
        /// What shows it.
        found: String,
    },
    /// A checkpoint that another run wrote.
    #[error(
        "{}: this checkpoint belongs to another run; different here:\n{report}\nGo on with the recipe that is saved beside it, or train into another output_dir",
        folder.display()
    )]
    OtherRun {
        /// The checkpoint.
        folder: PathBuf,
        /// One line for each difference.
        report: String,
    },
    /// Nothing to go on from.
    #[error("{}: no checkpoint to resume from (looked in {}/), and no run of this recipe that was stopped before its first; start the run without --resume", folder.display(), crate::checkpoint::FOLDER)]
    NoCheckpoint {
        /// The run's folder.
        folder: PathBuf,
    },
    /// A cell of a study that failed.
    #[error(
        "{arm}, seed {seed}: {error}\nThe cells that are done are kept, and the same command goes on from them once this is put right; a combination that cannot be trained must leave the grid."
    )]
    Cell {
        /// Its configuration.
        arm: String,
        /// Its seed.
        seed: u64,
        /// What went wrong.
        error: Box<Error>,
    },
    /// Anything else that is refused, in a sentence.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// A recipe error at `key` of `place`.
    pub fn key(place: &str, key: &str, reason: impl Into<String>) -> Self {
        Error::Key { place: place.into(), key: key.into(), reason: reason.into() }
    }

    /// A row error.
    pub(crate) fn row(id: u64, place: &str, reason: impl std::fmt::Display) -> Self {
        Error::Row { id, place: place.into(), reason: reason.to_string() }
    }

    /// An I/O failure at `path` while trying to `action`.
    pub(crate) fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        Error::File(sibo_files::Error::io(path, action, source))
    }
}
