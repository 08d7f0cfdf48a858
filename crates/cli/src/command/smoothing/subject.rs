//! What `sibo smoothing` is asked to look at: a model with adapters, or runs, which name theirs.

use super::Args;
use crate::app::App;
use crate::exit::usage;
use crate::{leaks, rows, speaker};
use sibo_tasks::Task;
use sibo_text::{Template, Tokenizer};
use sibo_train::checkpoint::ADAPTER;
use sibo_train::recipe::{self, Recipe, Source};
use std::path::{Path, PathBuf};

/// Where the rows come from.
pub(super) enum Seen {
    Task(Box<Task>),
    File(String),
}

/// One base, its adapters, and rows.
pub(super) struct Subject {
    /// The base as it was named.
    pub(super) model: String,
    pub(super) folder: PathBuf,
    pub(super) layers: Option<usize>,
    /// Each as it was named, and its folder.
    pub(super) adapters: Vec<(String, PathBuf)>,
    pub(super) seen: Seen,
    /// How the first adapter was trained, where that is known.
    recipe: Option<Recipe>,
}

impl Subject {
    pub(super) fn of(args: &Args, app: &App) -> anyhow::Result<Self> {
        let is_run = |name: &&String| Path::new(name.as_str()).join(recipe::FILE).is_file();
        let runs: Vec<&String> = args.what.iter().filter(is_run).collect();
        let named = match (&args.task, &args.rows) {
            (Some(task), _) => Some(Seen::Task(Box::new(Task::open(task)?))),
            (None, Some(file)) => Some(Seen::File(file.clone())),
            (None, None) => None,
        };
        let what = match (args.what.as_slice(), runs.as_slice()) {
            ([model], []) => Named { model: model.clone(), layers: args.cut.layers, ..Named::default() },
            (all, runs) if all.len() == runs.len() => of_runs(runs, args)?,
            (all, _) => {
                let other = all.iter().find(|name| !is_run(name)).expect("not all are runs");
                return Err(usage(format!(
                    "{other}: no folder of a run, which has a {}; give one model, or folders of runs only",
                    recipe::FILE
                )));
            }
        };
        let Named { model, layers, mut adapters, own, recipe } = what;
        let seen =
            named.or(own).ok_or_else(|| usage("what is looked at? Give --task TASK or --rows FILE (runs of one task or file know their own)"))?;
        for name in &args.adapter {
            adapters.push((name.clone(), app.places.model(name)?));
        }
        let beside = || leaks::recipe_of(&adapters.first()?.1, app);
        let recipe = recipe.or_else(beside);
        Ok(Subject { folder: app.places.model(&model)?, model, layers, adapters, seen, recipe })
    }

    /// The template asked for; else the one that the first adapter was trained with; else the usual one.
    pub(super) fn template(&self, tokenizer: &Tokenizer, asked: Option<&str>) -> anyhow::Result<Template> {
        let first = self.adapters.first().map(|(_, folder)| folder.as_path());
        if let Some(own) = speaker::template_of_adapter(tokenizer, first).filter(|_| asked.is_none()) {
            return own;
        }
        let of_recipe = self.recipe.as_ref().map(|recipe| recipe.template.as_str());
        let of_recipe = of_recipe.filter(|name| *name != recipe::AUTO);
        let name = asked.or(of_recipe).unwrap_or(rows::TEMPLATE);
        Ok(Template::choose(name, tokenizer, speaker::now())?)
    }

    /// The longest row asked for; else that of the first adapter's training; else the usual one.
    pub(super) fn cutoff(&self, asked: Option<usize>) -> usize {
        let of_recipe = self.recipe.as_ref().map(|recipe| recipe.training.cutoff_len);
        asked.or(of_recipe).unwrap_or(rows::CUTOFF)
    }
}

/// What the words or the runs say.
#[derive(Default)]
struct Named {
    model: String,
    layers: Option<usize>,
    adapters: Vec<(String, PathBuf)>,
    own: Option<Seen>,
    recipe: Option<Recipe>,
}

/// The model that all runs share, its layers, their adapters, what the first was trained on, and its recipe.
fn of_runs(runs: &[&String], args: &Args) -> anyhow::Result<Named> {
    if args.suggest_lambda {
        return Err(usage("--suggest-lambda reads the base alone; name the model in place of runs"));
    }
    let (mut adapters, mut first): (Vec<(String, PathBuf)>, Option<Recipe>) = (Vec::new(), None);
    for run in runs {
        let folder = Path::new(run.as_str());
        let recipe = Recipe::read(&folder.join(recipe::FILE))?;
        let adapter = folder.join(ADAPTER);
        anyhow::ensure!(
            adapter.is_dir(),
            "{run}: no {ADAPTER} in it, so the run has not come to its end; `sibo train` with its recipe goes on"
        );
        let first = first.get_or_insert_with(|| recipe.clone());
        if (&recipe.model, recipe.num_hidden_layers) != (&first.model, first.num_hidden_layers) {
            return Err(usage(format!(
                "{run}: its model is {}, that of {} is {}; runs beside one another are of one model",
                in_words(&recipe),
                runs[0],
                in_words(first)
            )));
        }
        adapters.push(((*run).clone(), adapter));
    }
    let first = first.ok_or_else(|| usage("give a model or a run"))?;
    let own = match &first.source {
        Source::Tasks { tasks, .. } => match tasks.as_slice() {
            [task] => Some(Seen::Task(Box::new(Task::open(task)?))),
            // Which of a mixture's tasks is looked at is for the person to say.
            _ => None,
        },
        Source::File { data, .. } => Some(Seen::File(data.clone())),
    };
    let layers = args.cut.layers.or(first.num_hidden_layers);
    Ok(Named { model: first.model.clone(), layers, adapters, own, recipe: Some(first) })
}

fn in_words(recipe: &Recipe) -> String {
    let layers = recipe.num_hidden_layers.map(|n| format!(", its first {n} layers"));
    format!("{}{}", recipe.model, layers.unwrap_or_default())
}
