//! What can be wrong with a task, its data or a set of predictions: one variant per way, a sentence each.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where in a file a row stands, counted from 1 as an editor counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A line of a line-based file (TSV, JSON lines).
    Line(usize),
    /// An element of a JSON array.
    Row(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(n) => write!(f, "line {n}"),
            Place::Row(n) => write!(f, "row {n}"),
        }
    }
}

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No embedded task has this name, and no file either.
    #[error("no task is called `{name}`{hint}; there are {known}, or give the path of a task's .toml file")]
    UnknownTask {
        /// What was asked for.
        name: String,
        /// The names that exist.
        known: String,
        /// A "did you mean", or nothing.
        hint: String,
    },
    /// A file could not be read.
    #[error("{}: cannot read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A task file that is not TOML, or has a key or type that tasks do not have.
    #[error("{origin}: not a task: {message}{hint}")]
    SpecSyntax {
        /// The file, or the embedded spec's name.
        origin: String,
        /// The parser's words, with the line.
        message: String,
        /// A "did you mean", or nothing.
        hint: String,
    },
    /// A task file whose keys contradict one another.
    #[error("{origin}: `{key}` {problem}")]
    SpecValue {
        /// The file, or the embedded spec's name.
        origin: String,
        /// The key.
        key: String,
        /// What is wrong with it and what would be right.
        problem: String,
    },
    /// None of the files that a task names for a split is there.
    #[error(
        "task `{task}`: no data for its {split} split. Looked for:\n{looked}\n`sibo tasks {task}` says how to get them (LLM-Adapters' JSON, GLUE's TSV, JSON lines, and in their place the Hub's parquet, such as train-00000-of-00001.parquet, are read); or point --data elsewhere"
    )]
    NoData {
        /// The task.
        task: String,
        /// train, validation or test.
        split: String,
        /// The paths tried, one a line.
        looked: String,
    },
    /// The task has no such split at all.
    #[error("task `{task}` has no {split} split; it has {has}")]
    NoSplit {
        /// The task.
        task: String,
        /// The split.
        split: String,
        /// Those it has.
        has: String,
    },
    /// A parquet file that cannot be read.
    #[error("{}: {problem}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the column or row, and what would be right.
        problem: String,
    },
    /// An arrow file.
    #[error("{}: arrow files are not read; write it as parquet or JSON lines (in Python: `dataset.to_parquet(path)`) and name that file", path.display())]
    Arrow {
        /// The file.
        path: PathBuf,
    },
    /// A folder in which no file can be told to hold the rows.
    #[error("{}: {problem}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is in it and what would be right.
        problem: String,
    },
    /// Bytes that are no UTF-8.
    #[error("{}: line {line}: not UTF-8 (byte {byte} of the line is 0x{value:02x}); save the file as UTF-8", path.display())]
    Utf8 {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// 1-based byte of that line.
        byte: usize,
        /// The byte.
        value: u8,
    },
    /// Broken JSON.
    #[error("{}: broken JSON at line {line}, column {column}: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// 1-based column.
        column: usize,
        /// The parser's words.
        reason: String,
    },
    /// A row that is no JSON object, or a file that is no array of rows.
    #[error("{}: {place}: expected {expected}, found {found}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// Where.
        place: Place,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A row without a column that the task maps.
    #[error("{}: {place}: no column `{column}`; the row has {has}", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// Where.
        place: Place,
        /// The column.
        column: String,
        /// Those that are there.
        has: String,
    },
    /// A TSV row with another number of cells than its file's first row.
    #[error("{}: line {line}: {found} tab-separated cells, expected {expected}; quotes do not protect tabs in this layout", path.display())]
    Cells {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// Cells there.
        found: usize,
        /// Cells expected.
        expected: usize,
    },
    /// A label that is none of the task's.
    #[error("{}: {place}: column `{column}`: label `{value}` is none of {allowed}", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// Where.
        place: Place,
        /// The column.
        column: String,
        /// What is there.
        value: String,
        /// What may be there.
        allowed: String,
    },
    /// A number that is none, or lies outside its range.
    #[error("{}: {place}: column `{column}`: `{value}` is not {expected}", path.display())]
    Number {
        /// The file.
        path: PathBuf,
        /// Where.
        place: Place,
        /// The column.
        column: String,
        /// What is there.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// A file of labels that does not fit its rows.
    #[error("{}: {labels} labels for {rows} rows; there must be one a line", path.display())]
    Labels {
        /// The file of labels.
        path: PathBuf,
        /// Its lines.
        labels: usize,
        /// The rows beside it.
        rows: usize,
    },
    /// A text with nothing in it.
    #[error("{}: {place}: column `{column}` is empty; a row needs text", path.display())]
    EmptyText {
        /// The file.
        path: PathBuf,
        /// Where.
        place: Place,
        /// The column.
        column: String,
    },
    /// A file without rows.
    #[error("{}: no rows in it", path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// An instruction that does not follow the task's LLM-Adapters template.
    #[error("{}: {place}: the instruction does not follow the task's llm-adapters template: {reason}", path.display())]
    RowForm {
        /// The file.
        path: PathBuf,
        /// Where.
        place: Place,
        /// Which part does not fit.
        reason: String,
    },
    /// Training rows of no known form.
    #[error("{}: cannot tell the rows' format from the keys {keys}; known: {known}", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Keys of its first row.
        keys: String,
        /// The formats with their keys.
        known: String,
    },
    /// A chat that cannot be learned from.
    #[error("{}: {place}: {problem}", path.display())]
    Chat {
        /// The file.
        path: PathBuf,
        /// Where.
        place: Place,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A split request that the data cannot fill.
    #[error("task `{task}`: {problem}")]
    Split {
        /// The task.
        task: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A task that cannot be asked under this protocol in this way.
    #[error("task `{task}`, protocol {protocol}: {problem}")]
    Protocol {
        /// The task.
        task: String,
        /// The protocol.
        protocol: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Predictions that a metric or a statistic cannot be computed from.
    #[error("{what}: {problem}")]
    Numbers {
        /// The metric or test.
        what: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Saved results that cannot be read again.
    #[error("{}: {problem}", path.display())]
    Saved {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A result file could not be written.
    #[error(transparent)]
    Write(#[from] sibo_files::Error),
}

impl Error {
    /// A failure to read `path`.
    pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
        Error::Read { path: path.to_owned(), source }
    }

    /// A set of numbers that `what` cannot be computed from.
    pub(crate) fn numbers(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Error::Numbers { what: what.into(), problem: problem.into() }
    }
}
