//! A run's folder and its checkpoints: all that a run needs to go on to the same bits, written whole or not at all.
//!
//! ```text
//! runs/first/
//!   recipe.toml                     the resolved recipe
//!   checkpoints/step-0000080/       adapter/, optimiser.safetensors, state.json
//!   best/                           the adapter of the best evaluation
//!   adapter/                        the result
//! ```

mod state;

pub(crate) use state::FREE;
pub use state::{State, identity};

use crate::optim::OptimiserState;
use crate::{Error, card};
use sibo_files::TensorFile;
use sibo_model::Model;
use sibo_peft::{Params, folder};
use std::path::{Path, PathBuf};

/// The checkpoints' folder in a run's folder.
pub const FOLDER: &str = "checkpoints";
/// The best adapter's folder in a run's folder.
pub const BEST: &str = "best";
/// The result's folder in a run's folder.
pub const ADAPTER: &str = "adapter";

const STATE_FILE: &str = "state.json";
const OPTIMISER_FILE: &str = "optimiser.safetensors";
const PREFIX: &str = "step-";

/// What to do with a folder that may hold a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// A new run: refuse a folder that holds one.
    Fresh,
    /// Go on from its last checkpoint, or from the beginning where it was stopped before its first.
    Resume,
    /// Remove what a run left there, and nothing else.
    Overwrite,
}

/// A checkpoint on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its folder.
    pub folder: PathBuf,
    /// Steps done.
    pub step: usize,
    /// Why later ones were passed over: they cannot be read.
    pub passed_over: Vec<String>,
}

/// Takes `run_dir` for a run and writes its `recipe.toml` (unless it goes on from a checkpoint); finds that checkpoint.
pub fn claim(run_dir: &Path, how: Claim, recipe: &str) -> Result<Option<Checkpoint>, Error> {
    recover(run_dir)?;
    let found = traces(run_dir);
    if how == Claim::Resume {
        if let Some(checkpoint) = latest(run_dir)? {
            return Ok(Some(checkpoint));
        }
        // Stopped before its first checkpoint, a run goes on from its beginning: the same bits.
        let begun = std::fs::read_to_string(run_dir.join(crate::recipe::FILE))
            .is_ok_and(|text| crate::recipe::same(&text, recipe));
        if !begun || found.contains(&ADAPTER) {
            return Err(Error::NoCheckpoint { folder: run_dir.into() });
        }
    }
    if how == Claim::Fresh && !found.is_empty() {
        return Err(Error::Occupied { folder: run_dir.into(), found: found.join(", ") });
    }
    // The recipe is replaced, never gone: without it a run that is killed here could not go on.
    for name in found.into_iter().filter(|name| *name != crate::recipe::FILE) {
        let path = run_dir.join(name);
        let removed =
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(|e| Error::io(&path, "remove", e))?;
    }
    sibo_files::write(&run_dir.join(crate::recipe::FILE), recipe.as_bytes())?;
    Ok(None)
}

/// Puts back what a kill left between two names.
fn recover(run_dir: &Path) -> Result<(), Error> {
    [BEST, ADAPTER].iter().try_for_each(|name| Ok(sibo_files::recover(&run_dir.join(name))?))
}

/// Removes what a finished run needs no more: its checkpoints and its best adapter, which the result holds.
pub(crate) fn tidy(run_dir: &Path) -> Result<(), Error> {
    for path in [FOLDER, BEST].map(|name| run_dir.join(name)) {
        if path.is_dir() {
            std::fs::remove_dir_all(&path).map_err(|e| Error::io(&path, "remove", e))?;
        }
    }
    Ok(())
}

/// What a run leaves in its folder.
const TRACES: [&str; 7] =
    [crate::recipe::FILE, FOLDER, BEST, ADAPTER, "metrics.jsonl", "tensorboard", "report.html"];

fn traces(run_dir: &Path) -> Vec<&'static str> {
    TRACES.into_iter().filter(|name| run_dir.join(name).exists()).collect()
}

/// The last checkpoint of a run that can be read: a damaged one costs the steps since the one before it, not the run.
///
/// # Errors
/// There are some, and none can be read.
pub fn latest(run_dir: &Path) -> Result<Option<Checkpoint>, Error> {
    let mut passed_over = Vec::new();
    for found in list(run_dir)?.into_iter().rev() {
        match found.check() {
            Ok(()) => return Ok(Some(Checkpoint { passed_over, ..found })),
            Err(error) => passed_over.push(error.to_string()),
        }
    }
    match passed_over.first() {
        None => Ok(None),
        Some(first) => Err(Error::Refused(format!(
            "{first}\nNo checkpoint of this run can be used; remove {} and it begins anew",
            run_dir.join(FOLDER).display()
        ))),
    }
}

/// All checkpoints of a run, oldest first.
pub fn list(run_dir: &Path) -> Result<Vec<Checkpoint>, Error> {
    let folder = run_dir.join(FOLDER);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(Error::io(&folder, "read the folder", e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io(&folder, "read the folder", e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // A folder that is being written has a dot before its name.
        let step = name.strip_prefix(PREFIX).and_then(|n| n.parse().ok());
        if let Some(step) = step {
            found.push(Checkpoint { folder: entry.path(), step, passed_over: vec![] });
        }
    }
    found.sort_by_key(|c| c.step);
    Ok(found)
}

/// Writes a checkpoint of `model` after `state.step` steps and removes the oldest beyond `keep`.
pub fn save(
    run_dir: &Path,
    model: &Model,
    optimiser: &OptimiserState,
    state: &State,
    keep: usize,
) -> Result<Checkpoint, Error> {
    let parent = run_dir.join(FOLDER);
    std::fs::create_dir_all(&parent).map_err(|e| Error::io(&parent, "create the folder", e))?;
    let folder = parent.join(format!("{PREFIX}{:07}", state.step));
    sibo_files::write_all_or_nothing::<Error>(&folder, |part| {
        let adapter = part.join(ADAPTER);
        std::fs::create_dir_all(&adapter).map_err(|e| Error::io(&adapter, "create the folder", e))?;
        save_adapter_into(model, &adapter, &card::checkpoint(state.step))?;
        write_optimiser(&part.join(OPTIMISER_FILE), model.params(), optimiser)?;
        sibo_files::write(&part.join(STATE_FILE), format!("{:#}\n", state.to_json()).as_bytes())?;
        Ok(())
    })?;
    let mut all = list(run_dir)?;
    all.retain(|c| c.step != state.step);
    let surplus = (all.len() + 1).saturating_sub(keep.max(1));
    for old in all.iter().take(surplus) {
        std::fs::remove_dir_all(&old.folder).map_err(|e| Error::io(&old.folder, "remove", e))?;
    }
    Ok(Checkpoint { folder, step: state.step, passed_over: vec![] })
}

/// Writes the model's adapter as a folder of its own, whole or not at all.
pub fn save_adapter(model: &Model, folder: &Path, card: &str) -> Result<(), Error> {
    if let Some(parent) = folder.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|e| Error::io(parent, "create the folder", e))?;
    }
    sibo_files::write_all_or_nothing(folder, |part| save_adapter_into(model, part, card))
}

fn save_adapter_into(model: &Model, folder: &Path, card: &str) -> Result<(), Error> {
    let adapter = model.adapter().ok_or_else(|| Error::Refused("the model has no adapter to save".into()))?;
    Ok(folder::save_into(&adapter.config, model.params(), folder, model.fingerprint(), card)?)
}

/// Fills the model's parameters from an adapter folder of the same run, and takes the lambda that goes with them.
pub fn load_adapter(model: &mut Model, folder: &Path) -> Result<(), Error> {
    let mut folder = folder::Folder::open(folder)?;
    folder.fill(model.params_mut())?;
    if folder.config.sibo.course.is_some() {
        model.set_lambda(folder.config.sibo.lambda.clone());
    }
    Ok(())
}

fn write_optimiser(path: &Path, params: &Params, state: &OptimiserState) -> Result<(), sibo_files::Error> {
    let kinds = [("first", &state.first), ("second", &state.second)];
    let named: Vec<(String, Vec<usize>, &Vec<f32>)> = kinds
        .iter()
        .flat_map(|(kind, moments)| {
            params
                .iter()
                .zip(moments.iter())
                .filter(|(_, m)| !m.is_empty())
                .map(move |(p, m)| (format!("{kind}.{}", p.name), p.shape.clone(), m))
        })
        .collect();
    let tensors = named.iter().map(|(name, shape, m)| (name.as_str(), shape.as_slice(), m.as_slice()));
    sibo_files::write_tensors(path, tensors, [("updates".to_string(), state.steps.to_string())].into())
}

impl Checkpoint {
    /// Reads what stands beside the tensors.
    pub fn state(&self) -> Result<State, Error> {
        let path = self.folder.join(STATE_FILE);
        State::from_json(&path.display().to_string(), &sibo_files::json::read(&path)?)
    }

    /// Whether its files are whole, by their own headers.
    fn check(&self) -> Result<(), Error> {
        let state = self.state()?;
        if state.step != self.step {
            let place = self.folder.join(STATE_FILE).display().to_string();
            return Err(Error::key(
                &place,
                "step",
                format!("{}, in the folder of step {}", state.step, self.step),
            ));
        }
        folder::Folder::open(&self.folder.join(ADAPTER))?;
        TensorFile::open(&self.folder.join(OPTIMISER_FILE))?;
        Ok(())
    }

    /// Fills the model's parameters and reads the optimiser's memory.
    pub fn restore(&self, model: &mut Model) -> Result<OptimiserState, Error> {
        load_adapter(model, &self.folder.join(ADAPTER))?;
        let path = self.folder.join(OPTIMISER_FILE);
        let mut file = TensorFile::open(&path)?;
        let updates = file.strings().get("updates").and_then(|t| t.parse().ok());
        let steps = updates.ok_or_else(|| {
            Error::Refused(format!("{}: its header does not say how many updates were made", path.display()))
        })?;
        let shapes = file.shapes();
        if steps == 0 {
            return Ok(OptimiserState::default());
        }
        let mut read = |kind: &str| -> Result<Vec<Vec<f32>>, Error> {
            let moments = model.params().iter().map(|param| {
                let name = format!("{kind}.{}", param.name);
                if shapes.contains_key(&name) { Ok(file.read(&name)?.into_f32()) } else { Ok(vec![]) }
            });
            moments.collect()
        };
        Ok(OptimiserState { steps, first: read("first")?, second: read("second")? })
    }
}

#[cfg(test)]
mod tests;
