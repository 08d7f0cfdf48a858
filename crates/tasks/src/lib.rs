//! Benchmarks as data: specs, readers, prompts, answer reading, metrics, statistics and result files.
//! Knows no tensors and no tokenizer.
//!
//! # Adding a task
//!
//! A task is one TOML file. Write it, and `Task::from_file` (on the command line: its path in place of a
//! name) reads it; put it into `specs/` with a line in `registry.rs` and it has a name. A whole one:
//!
//! ```
//! # let text = r#"
//! name = "colours"                     # becomes a file name: letters, digits, - _ .
//! description = "Which colour has it?"
//! citation = "Somebody 2024"
//! licence = "CC0"
//! version = 1                          # raise it when a change here changes numbers
//! kind = "multiple_choice"             # classification | regression | multiple_choice | generation
//! metrics = ["acc", "acc_norm"]        # see `metrics::Metric`
//! official-rows = { train = 90, dev = 30 }   # by file, so that a part is called one (optional)
//!
//! [splits]                             # which file is which split
//! train = "train"
//! validation = "held-out"              # a seeded tenth of train; or a file
//! test = "dev"
//!
//! [[source]]                           # a layout of the data; several are tried in order
//! format = "json-lines"                # glue-tsv | json-lines | json | parquet | llm-adapters
//! files.train = ["colours/train.jsonl"]      # paths below the data folder, tried in order
//! files.dev = ["colours/dev.jsonl", "colours/validation.jsonl"]
//! columns = { question = "thing", choices = ["a", "b", "c"], label = "gold" }
//! label-base = 1                       # this file counts its choices from 1
//!
//! [llm-adapters]                       # how LLM-Adapters would write a row (optional)
//! instruction = "Choose: {question}\n\n{choices}\n\nAnswer format: {words}"
//! choice = "Option{n}: {choice}"
//! word = "option{n}"
//! most-choices = 3
//! response = "the correct answer is {word}"
//!
//! [prompt.lm-eval]                     # likelihood of the choices
//! context = "Question: What colour is {question}?\nAnswer:"
//!
//! [prompt.clean]                       # instruction and response as in [llm-adapters], the run's template
//! reading = ["label-word"]
//! max-new-tokens = 16
//! # "#;
//! # let spec = sibo_tasks::spec::Spec::parse(text, "doc").unwrap();
//! # assert_eq!(spec.kind, sibo_tasks::spec::Kind::MultipleChoice);
//! ```
//!
//! | field of `columns` | for |
//! |---|---|
//! | `text_a`, `text_b` | classification, regression: the text, or the pair |
//! | `question`, `passage` | choices, generation; a list of columns is joined by a space |
//! | `scored` | the question as likelihoods are asked after, where the harness words it otherwise |
//! | `choices`, `choice_labels` | an array column (a dot enters an object: `choices.text`) or a list of columns |
//! | `label` | class, score or choice: by name, by number (from `label-base`), or true / false |
//! | `answer`, `solution` | generation: the gold answer (after `answer-after`), the worked solution |
//!
//! Without a header (`header = false`) a column is its number, from 0. Integer labels count as on the Hub:
//! the order of `labels` is the class order. A column can be a text made of several, `{ text = "{topic}: {ctx}" }`.
//!
//! | key of a source | for |
//! |---|---|
//! | `choices-split`, `choice-drops`, `choice-names` | choices in one text; what is dropped of each; what `label` calls them |
//! | `labels-beside` | labels in a file beside the rows: the ending of its name |
//! | `skips-broken` | drops rows that the makers' file is known to have broken |
//! | `hub`, `hub-config` | the Hub's data set, so that `sibo tasks NAME` can say how to get it |
//! | `note` | what a score must say, such as `without passage`: it stands beside the task's name in tables |
//!
//! JSON lines that are not there are looked for as parquet in the same place, under the names and in the folders of the
//! Hub: for `set/train.jsonl` that is `train.parquet`, `train-00000-of-00002.parquet` with all its fellows, or `train/0000.parquet`,
//! in `set`, or in the folder of its `hub-config`, `data` or `default` below.
//!
//! A prompt's `choice` writes each choice (`({letter}) {choice}`), its `blank` is a mark in the question that the
//! choices fill. A place may have a filter: `{text_b|stop}`, `{question|unmarked}`, `{ctx_b|capital}`. The data may
//! also lie beside the task's own file.
//!
//! # From a task to numbers
//!
//! [`Task::load`] gives a [`Split`] of [`Example`]s. A classification head reads `text` and `target` as they
//! are; a language model is asked by [`Task::choose`] or [`Task::generate`], judged without writing by
//! [`Task::golds`], and taught by [`Task::lesson`].
//! [`metrics::Metric::score`] measures [`metrics::Predictions`], [`stats::compare`] compares two systems, and
//! [`results::write`] writes both as lm-evaluation-harness would.

pub mod answer;
mod ask;
pub mod deduction;
mod error;
pub mod example;
mod gold;
pub mod llm_adapters;
pub mod metrics;
mod order;
pub mod overlap;
pub mod prompt;
mod read;
mod registry;
pub mod results;
pub mod spec;
pub mod stats;
mod suggest;
mod task;
mod template;

pub use error::{Error, Place};
pub use example::{Example, Message, Role, Target, Text};
pub use gold::{Gold, Golds};
pub use metrics::Metric;
pub use read::instructions::{InstructionFormat, read as read_instructions, read_column};
pub use registry::names;
pub use spec::{Kind, Protocol};
pub use task::{HubRows, SPLIT_SEED, Split, SplitName, Task, Wanted};
