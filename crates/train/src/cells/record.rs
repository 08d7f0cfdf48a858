//! What a finished cell leaves: a line of `cells.jsonl`.

use super::sources::{self, Found, Seen, Sources};
use super::{Cell, FILE};
use crate::Error;
pub use crate::probe::LayerLook;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sibo_tasks::metrics::Predictions;
use sibo_tasks::{Metric, Task};
use std::path::{Path, PathBuf};

/// One finished cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`Cell::key`].
    pub key: String,
    /// [`Cell::training`], the folder of its run.
    pub training: String,
    /// The configuration.
    pub arm: String,
    /// The seed.
    pub seed: u64,
    /// The recipe with every default.
    pub recipe: Value,
    /// What it scored.
    pub judged: Vec<Judged>,
    /// Training loss of each step.
    pub losses: Vec<f64>,
    /// Step and scores of each evaluation on validation rows while it trained.
    pub evaluations: Vec<(usize, Vec<(String, f64)>)>,
    /// The step whose values were judged.
    pub holds_step: usize,
    /// Seconds of training.
    pub seconds: f64,
    /// Tokens read in training, a second.
    pub tokens_per_second: f64,
    /// Most bytes of activations at a time, of all cells that ran then.
    pub peak_activations: u64,
    /// Trainable numbers.
    pub trained_numbers: usize,
    /// Branches that SIBO enters.
    pub injected: usize,
    /// Kinds of site at which it does.
    pub sites: Vec<String>,
    /// Mean |h0| / |x| there.
    pub h0_ratio: Option<f64>,
    /// Tokens by layer before the first step.
    pub before: Vec<LayerLook>,
    /// Tokens by layer after the last.
    pub after: Vec<LayerLook>,
    /// Tokens by layer after some steps, with `probe_every`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looks: Vec<(usize, Vec<LayerLook>)>,
    /// How much of what they join the branches' outputs vary by, before the first step and after the last
    /// ([`crate::profile::branch_share`]); none without branches, and in records of before 26 November 2026.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch_share: Option<(f64, f64)>,
    /// Hashes of the model and of the rows that trained and judged it; empty in records of before they were kept, of
    /// which nothing can be said.
    #[serde(default, skip_serializing_if = "Sources::is_empty")]
    pub sources: Sources,
    /// What learned lambdas became, each with what shares it; empty where lambda is a number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learned: Vec<(String, f64)>,
    /// What computed it; none in records of before 28 November 2026, of which it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<Ran>,
    /// Why the cell has no numbers: its loss or a gradient stopped being one. A result, not a mistake of the study's:
    /// the same cell would end so again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diverged: Option<String>,
}

/// What a cell was computed by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// The instruction set, by which numbers differ in their last bits.
    pub isa: String,
    /// Threads, by which none does.
    pub threads: usize,
    /// The version of this program.
    pub version: String,
}

impl Ran {
    /// What computes now.
    pub(super) fn here() -> Self {
        let isa = sibo_kernels::isa::isa().name().into();
        Ran { isa, threads: sibo_kernels::isa::threads(), version: env!("CARGO_PKG_VERSION").into() }
    }
}

/// One number of a cell, with the answers behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The task.
    pub task: String,
    /// The rows.
    pub split: String,
    /// How it was asked.
    pub protocol: String,
    /// The metric.
    pub metric: Metric,
    /// The answer reading, or `none`.
    pub filter: String,
    /// The value.
    pub value: f64,
    /// Its standard error.
    pub stderr: Option<f64>,
    /// The answers, row by row.
    pub predictions: Predictions,
}

impl Record {
    /// Whether a task, or a data file, is one of those that were learned; yes where it cannot be told any more, because a task's file is gone.
    pub fn learned(&self, task: &str) -> bool {
        let own = self.recipe.get("task").unwrap_or(&self.recipe["data"]);
        let list = own.as_array().map_or(std::slice::from_ref(own), Vec::as_slice);
        // A recipe may name a task by its file; a judgement has the task's own name.
        let same = |own: &str| {
            own == task || (own.ends_with(".toml") && Task::open(own).map_or(true, |own| own.name() == task))
        };
        list.iter().filter_map(Value::as_str).any(same)
    }

    /// The last layer's token similarity after training.
    pub fn similarity(&self) -> Option<f64> {
        self.after.last().map(|l| l.similarity)
    }

    /// Validation loss at the step whose values were judged.
    pub fn validation_loss(&self) -> Option<f64> {
        let at = self.evaluations.iter().rfind(|(step, _)| *step == self.holds_step);
        at?.1.iter().find(|(name, _)| name == "loss").map(|(_, value)| *value)
    }
}

fn read_all(path: &Path) -> Result<Vec<Record>, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Error::io(path, "read", e)),
    };
    let read = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| Error::Syntax {
            place: format!("{}, line {}", path.display(), number + 1),
            message: format!("not a cell of this program ({e}); move the file away to start anew"),
        })
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(read).collect()
}

/// The finished cells of a study.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    records: Vec<Record>,
    seen: Seen,
}

impl Log {
    /// Reads the cells that are done in `folder`; there may be none.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let records = read_all(&path)?;
        Ok(Log { path, records, seen: Seen::default() })
    }

    /// The same anew, for whoever holds the folder now: another process may have done cells meanwhile.
    pub(super) fn reload(&mut self) -> Result<(), Error> {
        self.records = read_all(&self.path)?;
        Ok(())
    }

    /// Every record, in the order in which the cells were done.
    pub fn into_records(self) -> Vec<Record> {
        self.records
    }

    /// The record of a cell, if it is done.
    pub fn find(&self, cell: &Cell) -> Option<&Record> {
        let key = cell.key();
        self.records.iter().find(|r| r.key == key)
    }

    /// The records of these cells in their order, if all are done.
    pub fn all(&self, cells: &[Cell]) -> Option<Vec<Record>> {
        // An arm may have had another name when the cell was run: the study at hand names it.
        let named = |cell: &Cell| self.find(cell).map(|r| Record { arm: cell.arm.clone(), ..r.clone() });
        cells.iter().map(named).collect()
    }

    /// What each cell is made from now; refused where a finished one was made from something else.
    pub(super) fn sources(&mut self, cells: &[Cell]) -> Result<Vec<Vec<Found>>, Error> {
        let mut all = Vec::new();
        for cell in cells {
            let now = self.seen.of(cell);
            if let Some(record) = self.find(cell) {
                sources::check_record(record, &now, &self.path)?;
            }
            all.push(now);
        }
        Ok(all)
    }

    /// Adds a finished cell. The file is replaced as a whole: a kill leaves it with the line or without.
    pub fn add(&mut self, record: Record) -> Result<(), Error> {
        self.records.push(record);
        let mut text = String::new();
        for record in &self.records {
            // Every number was checked to be finite, and every key is a string.
            text.push_str(&serde_json::to_string(record).map_err(|e| Error::Refused(e.to_string()))?);
            text.push('\n');
        }
        Ok(sibo_files::write(&self.path, text.as_bytes())?)
    }
}
