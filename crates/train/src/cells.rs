//! A study as cells: each cell is one recipe, trained and judged, and one line of `cells.jsonl` when it is done. A
//! finished cell is never run again; one that was stopped goes on from its own checkpoint.
//!
//! ```text
//! <folder>/cells.jsonl            one line for each finished cell ([`Record`])
//! <folder>/cells/<training>/      the cell's run: recipe.toml, adapter/, and while it trains checkpoints/
//! ```
//!
//! [`compare`](crate::study::compare) is the study in memory, of configurations on one loaded model.

mod ask;
mod grid;
mod jobs;
mod placement;
mod record;
mod run;
mod sources;
mod summary;

pub use grid::{Axis, grid};
pub use jobs::{Jobs, room, run_all};
pub use placement::{Variation, variations};
pub use record::{Judged, LayerLook, Log, Ran, Record};
pub use run::{Now, TRAINED, Watch};
pub use sources::Sources;
pub use summary::{
    ArmScore, Pairing, Question, diverged, expect, expect_of_likelihoods, question, scores, signs_of,
    verdicts,
};

use crate::Error;
use crate::evaluate::By;
use crate::prepare::Places;
use crate::recipe::Recipe;
use serde_json::{Value, json};
use sibo_tasks::SplitName;
use sibo_tasks::results::BY_LIKELIHOOD;
use std::path::{Path, PathBuf};

/// The file with one line for each finished cell.
pub const FILE: &str = "cells.jsonl";

/// The folder of the cells' runs.
const RUNS: &str = "cells";

/// By what a cell is judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Judge {
    /// A task's name, or the path of its TOML file; for a recipe of a data file, that file.
    pub task: String,
    /// Which of its rows.
    pub split: SplitName,
    /// At most so many, in a fixed seeded choice.
    pub limit: Option<usize>,
    /// How a written answer is judged.
    pub by: By,
}

impl Judge {
    /// What the cell's name knows of it. Keys are on disk: what is at its default stands in none of them.
    fn identity(&self) -> Value {
        let mut all = vec![json!(self.task), json!(self.split.to_string()), json!(self.limit)];
        if self.by == By::Likelihood {
            all.push(json!(BY_LIKELIHOOD));
        }
        Value::Array(all)
    }
}

/// One run of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The configuration that it is a run of; cells of one arm differ in their seed.
    pub arm: String,
    /// What is trained, and how; its `output_dir` is not looked at.
    pub recipe: Recipe,
    /// Where the recipe's names led.
    pub places: Places,
    /// By what it is judged.
    pub judges: Vec<Judge>,
    /// Validation rows whose tokens are looked at; below 2, none.
    pub look_rows: usize,
}

impl Cell {
    /// The name of the training: cells that differ in their judges only share it, and its adapter.
    pub fn training(&self) -> String {
        hash(&canonical(&self.identity()))
    }

    /// The name of the cell: what is trained and by what it is judged.
    pub fn key(&self) -> String {
        let judges: Vec<Value> = self.judges.iter().map(Judge::identity).collect();
        hash(&canonical(&json!([self.identity(), judges, self.look_rows])))
    }

    /// Whatever changes a number of the training, with every default filled in.
    fn identity(&self) -> Value {
        let mut value = self.recipe.to_value();
        if let Some(table) = value.as_object_mut() {
            table.remove("output_dir");
            table.insert("adapter".into(), self.recipe.adapter.to_json());
        }
        if let Some(training) = value.get_mut("training").and_then(Value::as_object_mut) {
            training.retain(|key, _| !crate::checkpoint::FREE.contains(&key.as_str()));
        }
        value
    }

    /// The cell's run folder below a study's.
    pub fn run_dir(&self, folder: &Path) -> PathBuf {
        folder.join(RUNS).join(self.training())
    }

    /// Refuses, before anything is trained, a cell whose adapter the model cannot take.
    pub fn check(&self, base: &sibo_model::Model) -> Result<(), Error> {
        let mut model = base.clone();
        crate::prepare::attach(&mut model, &self.recipe.adapter, &self.recipe.model, self.recipe.seed)
    }
}

/// A value as text that does not depend on the order of its keys.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let pairs: Vec<String> =
                keys.into_iter().map(|k| format!("{}:{}", json!(k), canonical(&map[k]))).collect();
            format!("{{{}}}", pairs.join(","))
        }
        Value::Array(list) => {
            format!("[{}]", list.iter().map(canonical).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// FNV-1a in 16 digits: it names cells of one study, and guards against nothing but mistakes.
fn hash(text: &str) -> String {
    format!("{:016x}", fold(START, text.as_bytes()))
}

/// FNV-1a's hash of nothing.
const START: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of what `hash` is of, and `bytes` after it.
fn fold(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests;
