//! The shape of a task's one TOML file. The crate's page shows a whole one and says how to add a task.

mod check;

use crate::answer::Reading;
use crate::llm_adapters::RowForm;
use crate::metrics::Metric;
use crate::read::shards::Shards;
use crate::{Error, SplitName, suggest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// What a task asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One of a few named classes for a text or a pair of texts.
    Classification,
    /// A number for a text or a pair of texts.
    Regression,
    /// The right one of several choices.
    MultipleChoice,
    /// A free answer.
    Generation,
}

impl Kind {
    /// The name in task files.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Classification => "classification",
            Kind::Regression => "regression",
            Kind::MultipleChoice => "multiple_choice",
            Kind::Generation => "generation",
        }
    }

    /// Whether `protocol` lets the model write its answer to such a task, rather than scoring choices.
    pub(crate) fn is_generated(self, protocol: Protocol) -> bool {
        protocol != Protocol::LmEval || self == Kind::Generation
    }
}

/// How a language model is asked and its answer read. Numbers of two protocols are never mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// One render path for training and evaluation: the run's own template.
    Clean,
    /// Likelihoods and answer filters as lm-evaluation-harness has them.
    LmEval,
    /// Prompts byte for byte, beams and answer reading of the LLM-Adapters project.
    LlmAdapters,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Protocol; 3] = [Protocol::Clean, Protocol::LmEval, Protocol::LlmAdapters];

    /// The name in task files, flags and tables.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Clean => "clean",
            Protocol::LmEval => "lm-eval",
            Protocol::LlmAdapters => "llm-adapters",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Protocol::ALL.into_iter().find(|p| p.name() == text).ok_or_else(|| Error::Protocol {
            task: "any".into(),
            protocol: text.into(),
            problem: "is none of `clean`, `lm-eval`, `llm-adapters`".into(),
        })
    }
}

/// The layout of a file's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Tab-separated, quotes are plain characters, a byte-order mark may stand first.
    #[serde(alias = "tsv")]
    GlueTsv,
    /// One JSON object a line.
    #[serde(alias = "jsonl")]
    JsonLines,
    /// One JSON array of objects.
    Json,
    /// A JSON array of `{instruction, input, output, answer}` that follow the task's `[llm-adapters]` form.
    LlmAdapters,
    /// The Hub's form. JSON lines that are not there are looked for in this form too, so that it need not be named.
    Parquet,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// The text to classify, or the first of a pair.
    TextA,
    /// The second of a pair.
    TextB,
    /// The question of a choice or generation task.
    Question,
    /// What the question is about, where the row has it.
    Passage,
    /// The question as likelihoods are asked after, where lm-evaluation-harness words it otherwise.
    Scored,
    /// The choices: an array column, or a list of columns.
    Choices,
    /// The names by which `label` calls the choices (an array column).
    ChoiceLabels,
    /// The gold class, score or choice.
    Label,
    /// The gold answer.
    Answer,
    /// The worked solution that training may teach.
    Solution,
}

/// Where a field stands in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// By position, from 0 (files without a header).
    Index(usize),
    /// By name; a dot enters a nested object.
    Name(String),
    /// Several columns: a list of choices, or texts to be joined by a space.
    Several(Vec<String>),
    /// A text made of columns, at the places of a template.
    Made {
        /// The template.
        text: String,
    },
}

impl Column {
    /// The column's name in messages.
    pub(crate) fn shown(&self) -> String {
        match self {
            Column::Index(i) => format!("{i}"),
            Column::Name(name) => name.clone(),
            Column::Several(names) => names.join("`, `"),
            Column::Made { text } => text.clone(),
        }
    }
}

/// One string or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Alternatives, tried in order.
    Many(Vec<String>),
}

impl OneOrMany {
    /// The alternatives.
    pub fn as_slice(&self) -> &[String] {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }
}

/// One layout in which the task's data may lie.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Source {
    /// How the rows are written.
    pub format: Format,
    /// What a score on this layout must say, such as `without passage`.
    pub note: Option<String>,
    /// Whether a TSV's first line names its columns.
    #[serde(default = "yes")]
    pub header: bool,
    /// Paths below the data root by file name of the split (`train`, `dev`, `test`, ...), tried in order.
    pub files: BTreeMap<String, OneOrMany>,
    /// Which column holds what. The `llm-adapters` format has its own.
    #[serde(default)]
    pub columns: BTreeMap<Field, Column>,
    /// The number that a file gives the first class or choice.
    #[serde(default)]
    pub label_base: u32,
    /// The gold answer is what follows the last of these marks.
    pub answer_after: Option<String>,
    /// A regular expression whose matches are dropped from solutions.
    pub solution_drops: Option<String>,
    /// A regular expression whose matches are dropped from choices.
    pub choice_drops: Option<String>,
    /// A regular expression that stands before each choice of a column that holds them all as one text.
    pub choices_split: Option<String>,
    /// The names by which `label` calls the choices, where no column has them.
    #[serde(default)]
    pub choice_names: Vec<String>,
    /// Labels lie in a file of their own, one a line: its name is the rows' file name with this in place of
    /// its ending.
    pub labels_beside: Option<String>,
    /// Drops rows with too few cells or an empty text, which the makers' own file is known to hold; else
    /// such a row is refused.
    #[serde(default)]
    pub skips_broken: bool,
    /// The Hub's data set that this layout is, written as JSON lines: each file is named as its split.
    pub hub: Option<String>,
    /// The data set's configuration.
    pub hub_config: Option<String>,
}

impl Source {
    /// The paths tried for a file name of the split.
    pub fn files_of(&self, file: &str) -> &[String] {
        self.files.get(file).map(OneOrMany::as_slice).unwrap_or_default()
    }

    /// What would lie at `path`, as the parquet files in which the Hub keeps it.
    pub(crate) fn as_parquet(&self, path: &Path) -> Result<Option<Shards>, Error> {
        match self.format {
            Format::JsonLines | Format::Parquet if self.labels_beside.is_none() => {
                Shards::in_place_of(path, self.hub_config.as_deref())
            }
            _ => Ok(None),
        }
    }
}

fn yes() -> bool {
    true
}

/// Which file serves as which split.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Splits {
    /// The file name of the training rows.
    pub train: Option<String>,
    /// A file name, or [`HELD_OUT`]: a seeded tenth of train.
    pub validation: Option<String>,
    /// The file name of the test rows.
    pub test: Option<String>,
}

/// The value of `splits.validation` that takes validation rows out of train.
pub const HELD_OUT: &str = "held-out";

impl Splits {
    /// The file name that serves `split`.
    pub fn file(&self, split: SplitName) -> Option<&str> {
        match split {
            SplitName::Train => self.train.as_deref(),
            SplitName::Validation => self.validation.as_deref(),
            SplitName::Test => self.test.as_deref(),
        }
    }
}

/// How one protocol asks a language model.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PromptSpec {
    /// Verbatim text before the answer (`lm-eval`); of several, the first whose places the row fills.
    pub context: Option<OneOrMany>,
    /// The instruction that a template wraps; default: the one of `[llm-adapters]`.
    pub instruction: Option<String>,
    /// What training teaches; default: the one of `[llm-adapters]`, or the gold choice or answer.
    pub response: Option<String>,
    /// The choices' texts in class order; default: the row's own, or `labels`.
    pub choices: Option<Vec<String>>,
    /// How a choice is written where it is scored and in `{choices}`: places `n`, `letter`, `choice`.
    pub choice: Option<String>,
    /// Instead of `context`: each choice takes this mark's place in the question; what comes before and the
    /// choice are context, what follows is scored.
    pub blank: Option<String>,
    /// Stands between context and choice or answer.
    #[serde(default = "space")]
    pub delimiter: String,
    /// Ways to read a response; each gives its own number.
    #[serde(default)]
    pub reading: Vec<Reading>,
    /// What is measured under this protocol; default: the task's `metrics`.
    #[serde(default)]
    pub metrics: Vec<Metric>,
    /// Strings that end a response.
    #[serde(default)]
    pub until: Vec<String>,
    /// The longest response in tokens.
    #[serde(default = "default_new_tokens")]
    pub max_new_tokens: usize,
    /// Beams of the search; 1 is greedy.
    #[serde(default = "one")]
    pub beams: usize,
}

fn space() -> String {
    " ".into()
}

/// lm-evaluation-harness's own default length of a response.
fn default_new_tokens() -> usize {
    256
}

fn one() -> usize {
    1
}

/// A task's file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Spec {
    /// The task's name on the command line and in result files.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// Whom to cite.
    pub citation: String,
    /// The data's licence.
    pub licence: String,
    /// Raised whenever a change here changes numbers.
    pub version: u32,
    /// What is asked for.
    pub kind: Kind,
    /// Class names in class order, or the names of fixed choices.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Least and greatest score of a regression.
    pub range: Option<[f32; 2]>,
    /// What is measured.
    pub metrics: Vec<Metric>,
    /// Official sizes by file name, so that a part is called one.
    #[serde(default)]
    pub official_rows: BTreeMap<String, usize>,
    /// Which file is which split.
    pub splits: Splits,
    /// Layouts, tried in order for each split.
    pub source: Vec<Source>,
    /// The LLM-Adapters form of a row.
    pub llm_adapters: Option<RowForm>,
    /// How language models are asked.
    #[serde(default)]
    pub prompt: BTreeMap<Protocol, PromptSpec>,
}

impl Spec {
    /// Reads a spec; `origin` names it in errors.
    pub fn parse(text: &str, origin: &str) -> Result<Spec, Error> {
        let spec: Spec = toml::from_str(text).map_err(|e| Error::SpecSyntax {
            origin: origin.into(),
            message: e.to_string().trim_end().to_owned(),
            hint: suggest::hint_from_serde(e.message()),
        })?;
        spec.check(origin)?;
        Ok(spec)
    }
}
