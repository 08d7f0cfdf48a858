//! What training runs left, as tables and curves: shared by `sibo report` and `sibo ui`.

mod find;
mod page;

pub(crate) use find::{Found, Kind, find};
pub(crate) use page::{document, looks_of, table};

use crate::record::METRICS;
use serde_json::Value;
use sibo_peft::Sibo;
use sibo_report::metrics::{Columns, Metrics, column};
use sibo_train::checkpoint;
use sibo_train::recipe::{self, Recipe};
use std::path::{Path, PathBuf};

/// A training run, as far as it has come.
pub(crate) struct Run {
    pub(crate) name: String,
    folder: PathBuf,
    /// The resolved recipe, and as it stands in the file.
    pub(crate) recipe: Value,
    pub(crate) toml: String,
    metrics: Metrics,
    /// Whether its result is there.
    pub(crate) finished: bool,
}

/// Whether a folder holds a run of `sibo train`.
pub(crate) fn is_run(folder: &Path) -> bool {
    folder.join(METRICS).is_file() && folder.join(recipe::FILE).is_file()
}

impl Run {
    /// The run in a folder, its metrics not read yet; a file of more than `most` bytes will be refused.
    pub(crate) fn open(name: String, folder: &Path, most: u64) -> anyhow::Result<Self> {
        let recipe = Recipe::read(&folder.join(recipe::FILE))?;
        Ok(Run {
            name,
            folder: folder.into(),
            recipe: recipe.to_value(),
            toml: recipe.to_toml(),
            metrics: Metrics::new(&folder.join(METRICS), most),
            finished: false,
        })
    }

    /// Reads what is new; says whether anything was.
    pub(crate) fn refresh(&mut self) -> anyhow::Result<bool> {
        let finished = self.folder.join(checkpoint::ADAPTER).is_dir();
        let changed = std::mem::replace(&mut self.finished, finished) != finished;
        Ok(self.metrics.refresh()? || changed)
    }

    pub(crate) fn steps(&self) -> &Columns {
        &self.metrics.steps
    }

    pub(crate) fn evaluations(&self) -> &Columns {
        &self.metrics.evaluations
    }

    /// What it saw of its tokens, look by look.
    pub(crate) fn probes(&self) -> &[Value] {
        &self.metrics.probes
    }

    /// What it has under one key on its last step.
    pub(crate) fn last(&self, key: &str) -> Option<f64> {
        column(self.steps(), key).last().map(|p| p.1)
    }

    /// Steps done.
    pub(crate) fn done(&self) -> usize {
        column(self.steps(), "loss").last().map_or(0, |p| p.0 as usize)
    }

    /// The lowest validation loss.
    pub(crate) fn best_validation(&self) -> Option<f64> {
        let best = column(self.evaluations(), "eval_loss").iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
        best.is_finite().then_some(best)
    }

    pub(crate) fn method(&self) -> &str {
        self.recipe.pointer("/adapter/method").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether lambda is ever above zero: as a number, a list, on a schedule or learned.
    pub(crate) fn is_boosted(&self) -> bool {
        let sibo = self.recipe.pointer("/adapter/sibo");
        sibo.is_some_and(|sibo| Sibo::from_json("recipe", sibo).is_ok_and(|sibo| !sibo.is_plain()))
    }

    /// Lambda as the recipe has it: a number, a list, or `learned`.
    pub(crate) fn lambda(&self) -> Value {
        self.recipe.pointer("/adapter/sibo/lambda").cloned().unwrap_or(Value::from(0))
    }
}
