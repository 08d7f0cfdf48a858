//! Names of models, adapters and data to folders, with the downloads told on the way.

use crate::args::Global;
use crate::exit::usage;
use crate::output::Output;
use crate::record::METRICS;
use serde_json::Value;
use sibo_model::{Compute, LoadOptions, Model};
use sibo_text::hub::{Hub, Progress, RepoId, Settings};
use sibo_text::resolve::{self, Found, Origin, Roots};
use sibo_train::recipe::{Recipe, Source};
use sibo_train::{cells, prepare};
use std::path::{Path, PathBuf};

/// Where names lead.
pub(crate) struct Places {
    roots: Roots,
    hub: Hub,
    out: Output,
}

impl Places {
    pub(crate) fn new(global: &Global, out: Output) -> Self {
        let roots = Roots::new(global.models.as_deref(), global.data.as_deref());
        Places { roots, hub: Hub::new(Settings::from_env()), out }
    }

    /// The folders below which names are looked up.
    pub(crate) fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The folder of a model or adapter.
    pub(crate) fn model(&self, name: &str) -> anyhow::Result<PathBuf> {
        let found = resolve::model(name, &self.roots, &self.hub, &mut |p| self.tell(p))?;
        Ok(self.told(name, found))
    }

    /// The folder or file of a data set.
    pub(crate) fn data(&self, name: &str) -> anyhow::Result<PathBuf> {
        let found = resolve::data(name, &self.roots, &self.hub, &mut |p| self.tell(p))?;
        Ok(self.told(name, found))
    }

    /// Where a recipe's names lead.
    pub(crate) fn of_recipe(&self, recipe: &Recipe) -> anyhow::Result<prepare::Places> {
        let named = |name: &Option<String>| name.as_deref().map(|name| self.data(name)).transpose();
        let (data, validation, test) = match &recipe.source {
            Source::Tasks { .. } => (None, None, None),
            Source::File { data, validation, test, .. } => {
                (Some(self.data(data)?), named(validation)?, named(test)?)
            }
        };
        let root = self.roots.data.clone();
        Ok(prepare::Places { model: self.model(&recipe.model)?, root, data, validation, test })
    }

    /// A model with an adapter on it, where one is named; what `config.json` left to say is told once.
    pub(crate) fn load(&self, what: &ModelArgs) -> anyhow::Result<Model> {
        let mut model = self.open(what)?;
        model.read_base(0)?;
        Ok(model)
    }

    /// The same without reading the layers: see [`Model::open`].
    pub(crate) fn open(&self, what: &ModelArgs) -> anyhow::Result<Model> {
        let folder = self.model(&what.model)?;
        let options = LoadOptions {
            compute: what.numbers.of(&folder),
            keep_layers: what.cut.layers,
            ..LoadOptions::default()
        };
        let loaded = match &what.adapter {
            None => Model::open(&folder, &options)?,
            Some(name) => Model::open_with_adapter(&folder, &self.model(name)?, options)?,
        };
        self.tell_unknown(&loaded.unknown_keys);
        self.tell_damage(&loaded.model);
        Ok(loaded.model)
    }

    /// That a model is not whole.
    pub(crate) fn tell_damage(&self, model: &Model) {
        if let Some(damage) = model.arch().damage() {
            self.out.warn(damage);
        }
    }

    /// Keys of a model's `config.json` that nothing here knows.
    pub(crate) fn tell_unknown(&self, keys: &[String]) {
        if !keys.is_empty() {
            self.out.note(format!(
                "config.json has keys that sibo does not know and passes over: {}",
                keys.join(", ")
            ));
        }
    }

    /// The names of the files of a data set of the hub.
    pub(crate) fn hub_files(&self, repo: &RepoId) -> anyhow::Result<Vec<String>> {
        Ok(self.hub.files(repo)?)
    }

    /// A folder of a data set of the hub, fetched into the cache where it is not there yet.
    pub(crate) fn hub_folder(&self, repo: &RepoId, below: &str) -> anyhow::Result<PathBuf> {
        let snapshot = self.hub.snapshot(repo, Some(below), &mut |p| self.tell(p))?;
        Ok(snapshot.folder.join(below))
    }

    fn told(&self, name: &str, found: Found) -> PathBuf {
        if let Origin::Hub { repo, commit } = &found.origin {
            self.out.note(format!("{name}: {repo} at commit {commit}"));
        }
        found.path
    }

    fn tell(&self, progress: Progress<'_>) {
        if let Progress::File { name, number, of, bytes } = progress {
            let size = sibo_report::number::bytes(bytes);
            self.out.note(format!("fetching {name} ({size}), file {number} of {of}"));
        }
    }
}

/// Refuses a folder for results that cannot be one, before the work for them is done.
pub(crate) fn check_folder(folder: &Path) -> anyhow::Result<()> {
    let there = folder.ancestors().find(|path| path.exists() || path.as_os_str().is_empty());
    let there = there.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    anyhow::ensure!(
        there.is_dir(),
        "{}: cannot be made, for {} is a file",
        folder.display(),
        there.display()
    );
    let trial = there.join(format!(".sibo-{}", std::process::id()));
    std::fs::write(&trial, "").map_err(|e| sibo_files::Error::io(there, "write into the folder", e))?;
    std::fs::remove_file(&trial)
        .map_err(|e| sibo_files::Error::io(there, "remove a file from the folder", e))?;
    Ok(())
}

/// A command's numbers, in the folder of its results.
const RESULTS: &str = "results.json";

/// The key of [`RESULTS`] that names the command.
const MADE_BY: &str = "made_by";

/// Writes the results of `command`, named by it.
pub(crate) fn write_results(folder: &Path, command: &str, results: &mut Value) -> anyhow::Result<()> {
    results[MADE_BY] = command.into();
    Ok(sibo_files::write(&folder.join(RESULTS), format!("{results:#}\n").as_bytes())?)
}

/// [`check_folder`] for the results of `command`; those of another command, and what a run or a study left, would be lost
/// or mixed.
pub(crate) fn check_results(folder: &Path, command: &str) -> anyhow::Result<()> {
    check_study(folder, command)?;
    match folder.join(cells::FILE).is_file() {
        true => taken(folder, "a study"),
        false => Ok(()),
    }
}

/// The same for a study, which goes on from the cells that are there.
pub(crate) fn check_study(folder: &Path, command: &str) -> anyhow::Result<()> {
    check_folder(folder)?;
    let results = folder.join(RESULTS);
    if results.is_file() {
        match sibo_files::json::read(&results).map(|own| own[MADE_BY].as_str().map(String::from)) {
            Ok(Some(other)) if other != command => {
                return taken(folder, &format!("the results of `sibo {other}`, which would be lost"));
            }
            Ok(_) => {}
            Err(_) => return taken(folder, &format!("a {RESULTS} that cannot be read, which would be lost")),
        }
    }
    match folder.join(METRICS).is_file() {
        true => taken(folder, "a training run"),
        false => Ok(()),
    }
}

fn taken(folder: &Path, what: &str) -> anyhow::Result<()> {
    Err(usage(format!("{}: holds {what}; give another folder by --output-dir", folder.display())))
}

/// Which model, and what stands on it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ModelArgs {
    /// The base model: a name below --models, a folder in Hugging Face's form, or a hub id (org/name or org/name@revision)
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,
    /// The adapter: a folder that PEFT, adapter-hub or `sibo train` wrote, or a hub id; without it, the base model
    #[arg(long, value_name = "ADAPTER")]
    pub(crate) adapter: Option<String>,
    #[command(flatten)]
    pub(crate) cut: CutArgs,
    #[command(flatten)]
    pub(crate) numbers: NumbersArgs,
}

/// In which numbers a model computes.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct NumbersArgs {
    /// Numbers in which the frozen products are computed [default: f32, or bf16 for a base in 8 or 4 bits, which f32 would
    /// widen]
    #[arg(long, value_enum)]
    pub(crate) compute: Option<ComputeArg>,
}

impl NumbersArgs {
    /// Those for the model in this folder.
    pub(crate) fn of(self, folder: &Path) -> Compute {
        self.compute.map_or_else(|| sibo_model::usual_compute(folder), Compute::from)
    }
}

/// How much of a model is used.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct CutArgs {
    /// Use only the model's first K layers, and its final norm: a damaged model, for experiments on depth
    #[arg(long, value_name = "K")]
    pub(crate) layers: Option<usize>,
}

/// `--compute`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ComputeArg {
    /// 32-bit floats throughout: exact, and the same bits on every run
    F32,
    /// 16-bit operands, summed in 32 bits
    Bf16,
}

impl From<ComputeArg> for Compute {
    fn from(arg: ComputeArg) -> Self {
        match arg {
            ComputeArg::F32 => Compute::F32,
            ComputeArg::Bf16 => Compute::Bf16,
        }
    }
}
