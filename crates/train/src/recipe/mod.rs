//! A recipe: one TOML file that says all that a run takes. Unknown keys and wrong types are refused by name.

mod default;
mod reader;
mod set;
mod training;

pub use set::set;
pub use training::{ComputeChoice, OptimKind, Training, VALIDATION_ROWS, WARMUP_STEPS};

use crate::Error;
use reader::Reader;
use serde_json::{Map, Value, json};
use sibo_peft::AdapterConfig;
use sibo_tasks::{InstructionFormat, Protocol};
use std::path::{Path, PathBuf};

/// Where a run's rows come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A file of instructions, chats or texts (a path, or a name for the caller to resolve).
    File {
        /// The file.
        data: String,
        /// Its form, told by the first row where none is given.
        format: Option<InstructionFormat>,
        /// A file of validation rows; without it rows are held out.
        validation: Option<String>,
        /// A file of rows to report on; without it `training.test_rows` are held out.
        test: Option<String>,
    },
    /// A benchmark, or several that are learned as one.
    Tasks {
        /// Of each its name, or the path of its TOML file; one or more.
        tasks: Vec<String>,
        /// How a language model is asked; a classifier needs none. Default: `clean`.
        protocol: Option<Protocol>,
    },
}

impl Source {
    /// The tasks; none for a file.
    pub fn tasks(&self) -> &[String] {
        match self {
            Source::Tasks { tasks, .. } => tasks,
            Source::File { .. } => &[],
        }
    }

    /// Whether a name is that of the data file, and not a task's.
    pub fn is_data_file(&self, name: &str) -> bool {
        matches!(self, Source::File { data, .. } if data == name)
    }
}

/// All that a run takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// The base model: a name for the caller to resolve, or a path.
    pub model: String,
    /// Only the first so many of its layers, and the final norm: a damaged model.
    pub num_hidden_layers: Option<usize>,
    /// The rows.
    pub source: Source,
    /// The template around instructions.
    pub template: String,
    /// Where the run's folder is.
    pub output_dir: PathBuf,
    /// Seed of initial values, order and dropout.
    pub seed: u64,
    /// What is trained.
    pub adapter: AdapterConfig,
    /// How.
    pub training: Training,
    /// The `[adapter]` table as it was written.
    adapter_table: Value,
}

/// The file in a run's folder that holds its resolved recipe.
pub const FILE: &str = "recipe.toml";

/// LLM-Adapters' and SIBO's prompt (method.md, section 2).
pub(crate) const DEFAULT_TEMPLATE: &str = "alpaca";

/// The template that rows of a data file choose by what they are ([`crate::own_rows::template`]).
pub const AUTO: &str = "auto";

/// transformers' and LLM-Adapters' default seed.
const DEFAULT_SEED: u64 = 42;

const KEYS: &[&str] = &[
    "model",
    "num_hidden_layers",
    "data",
    "data_format",
    "validation",
    "test",
    "task",
    "protocol",
    "template",
    "output_dir",
    "seed",
    "adapter",
    "training",
];

impl Recipe {
    /// Reads a recipe file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let place = path.display().to_string();
        Recipe::from_value(&place, &Recipe::read_value(path)?)
    }

    /// Reads a recipe file without judging its keys, for [`set`] to change.
    pub fn read_value(path: &Path) -> Result<Value, Error> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
        let place = path.display().to_string();
        let text = String::from_utf8(bytes).map_err(|e| Error::Syntax {
            place: place.clone(),
            message: format!("not UTF-8 from byte {} on", e.utf8_error().valid_up_to()),
        })?;
        Recipe::parse_value(&place, &text)
    }

    /// Parses TOML found in `place`, without judging its keys.
    pub fn parse_value(place: &str, text: &str) -> Result<Value, Error> {
        let table: toml::Table = toml::from_str(text).map_err(|e| Error::Syntax {
            place: place.into(),
            message: e.to_string().trim_end().to_owned(),
        })?;
        set::finite(place, "", &toml::Value::Table(table))
    }

    /// Reads a table found in `place`.
    pub fn from_value(place: &str, value: &Value) -> Result<Self, Error> {
        let mut reader = Reader::new(place, "", value, KEYS)?;
        let model = reader.text("model")?;
        let model = model.ok_or_else(|| reader.error("model", "is missing: a name, a folder or a Hub id"))?;
        let num_hidden_layers = reader.count("num_hidden_layers", 1)?;
        let source = read_source(&mut reader)?;
        let empty = || json!({});
        let adapter_table = reader.take("adapter").unwrap_or_else(empty);
        let training = Training::read(place, &reader.take("training").unwrap_or_else(empty))?;
        crate::mixture::check(place, source.tasks(), &training)?;
        check_test(place, &source, &training)?;
        let template = reader.text("template")?.unwrap_or_else(|| usual_template(&source).into());
        let output_dir = reader.text("output_dir")?;
        let output_dir =
            output_dir.ok_or_else(|| reader.error("output_dir", "is missing: a folder for the run"))?;
        Ok(Recipe {
            model,
            num_hidden_layers,
            source,
            template,
            output_dir: output_dir.into(),
            seed: reader.seed("seed")?.unwrap_or(DEFAULT_SEED),
            adapter: AdapterConfig::from_recipe(place, &adapter_table)?,
            training,
            adapter_table,
        })
    }

    /// The recipe with every default filled in.
    pub fn to_value(&self) -> Value {
        let mut out = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                out.insert(key.into(), value);
            }
        };
        put("model", Some(json!(self.model)));
        put("num_hidden_layers", self.num_hidden_layers.map(|n| json!(n)));
        match &self.source {
            Source::File { data, format, validation, test } => {
                put("data", Some(json!(data)));
                put("data_format", format.map(|f| json!(f.name())));
                put("validation", validation.as_ref().map(|v| json!(v)));
                put("test", test.as_ref().map(|t| json!(t)));
            }
            Source::Tasks { tasks, protocol } => {
                // One is written as it always was: cells and checkpoints are known by this text.
                put("task", Some(if let [task] = tasks.as_slice() { json!(task) } else { json!(tasks) }));
                put("protocol", protocol.map(|p| json!(p.name())));
            }
        }
        put("template", Some(json!(self.template)));
        put("output_dir", Some(json!(self.output_dir.display().to_string())));
        put("seed", Some(json!(self.seed)));
        let mut adapter = self.adapter_table.clone();
        if let Some(table) = adapter.as_object_mut() {
            table.entry("method").or_insert_with(|| json!(self.adapter.method.name()));
        }
        put("adapter", Some(adapter));
        put("training", Some(self.training.to_value()));
        Value::Object(out)
    }

    /// The resolved recipe as TOML.
    pub fn to_toml(&self) -> String {
        // Every value was read from TOML's types, so none is without a form in it.
        toml::to_string_pretty(&self.to_value()).expect("a recipe has a TOML form")
    }

    /// A recipe with every key, its default and one line about it, for `sibo init`.
    pub fn commented_default() -> String {
        default::TEXT.into()
    }
}

/// Whether two texts are the same recipe, in whatever order their keys stand.
pub(crate) fn same(one: &str, other: &str) -> bool {
    let table = |text: &str| text.parse::<toml::Table>().ok();
    table(one).is_some_and(|one| Some(one) == table(other))
}

/// Cells and checkpoints of tasks are known by the template that they always had.
fn usual_template(source: &Source) -> &'static str {
    match source {
        Source::Tasks { .. } => DEFAULT_TEMPLATE,
        Source::File { .. } => AUTO,
    }
}

/// Refuses rows held out for a test that something else gives.
fn check_test(place: &str, source: &Source, training: &Training) -> Result<(), Error> {
    let other = match source {
        _ if training.test_rows.is_none() => return Ok(()),
        Source::Tasks { .. } => "belongs to `data`: a task has test rows of its own",
        Source::File { test: Some(_), .. } => "stands beside a `test` file: give one of them",
        Source::File { test: None, .. } => return Ok(()),
    };
    Err(Error::key(place, "training.test_rows", other))
}

fn read_source(reader: &mut Reader) -> Result<Source, Error> {
    let (data, tasks) = (reader.text("data")?, reader.texts("task")?);
    let format = reader.text("data_format")?;
    let (validation, test) = (reader.text("validation")?, reader.text("test")?);
    let protocol = reader.text("protocol")?;
    match (data, tasks) {
        (Some(data), None) => {
            if protocol.is_some() {
                return Err(
                    reader.error("protocol", "belongs to a task; a data file is asked by its template")
                );
            }
            let named = |name: String| {
                InstructionFormat::named(&name).ok_or_else(|| {
                    let all = InstructionFormat::ALL.map(InstructionFormat::name);
                    reader.error("data_format", format!("\"{name}\" is none of {}", all.join(", ")))
                })
            };
            Ok(Source::File { data, format: format.map(named).transpose()?, validation, test })
        }
        (None, Some(tasks)) => {
            let given = [
                ("data_format", format.is_some()),
                ("validation", validation.is_some()),
                ("test", test.is_some()),
            ];
            if let Some((key, _)) = given.into_iter().find(|(_, given)| *given) {
                return Err(reader.error(key, "belongs to `data`; a task says itself how its rows are read"));
            }
            let protocol = protocol
                .map(|p| {
                    p.parse::<Protocol>().map_err(|_| {
                        let all = Protocol::ALL.map(Protocol::name);
                        reader.error("protocol", format!("\"{p}\" is none of {}", all.join(", ")))
                    })
                })
                .transpose()?;
            Ok(Source::Tasks { tasks, protocol })
        }
        (Some(_), Some(_)) => Err(reader.error("task", "give either `task` or `data`, not both")),
        (None, None) => Err(reader.error("data", "is missing: give `data` (a file) or `task` (a benchmark)")),
    }
}

#[cfg(test)]
mod tests;
