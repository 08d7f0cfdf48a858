//! Training rows at hand, and which benchmarks' test rows are among them.

use crate::app::App;
use crate::exit::usage;
use crate::record::METRICS;
use sibo_tasks::overlap::{Overlap, Seen};
use sibo_tasks::{Error, Example, SplitName, Target, Task, Text, Wanted, read_instructions};
use sibo_train::cells::TRAINED;
use sibo_train::mixture;
use sibo_train::recipe::{self, Recipe, Source};
use std::path::Path;

/// What training leaves beside the adapter that it makes: a run its records, a cell of a study this mark.
const MADE_HERE: [&str; 2] = [METRICS, TRAINED];

/// Training rows and their name.
pub(crate) struct Training {
    /// What the person called them.
    pub(crate) name: String,
    /// Rows, and the task that they belong to where there is one.
    parts: Vec<(Option<Task>, Vec<Example>)>,
}

impl Training {
    /// A task's training rows with those held out of them, or a file's rows; `column` names the text of a file
    /// whose rows have no known form.
    pub(crate) fn open(name: &str, column: Option<&str>, app: &App) -> anyhow::Result<Training> {
        let own = name.to_owned();
        if column.is_none() && is_task(name) {
            let task = Task::open(name)?;
            let rows = train_rows(&task, &app.places.roots().data, &Wanted::default())?;
            return Ok(Training { name: own, parts: vec![(Some(task), rows)] });
        }
        let path = app.places.data(name)?;
        let rows = match column {
            // What was asked is all that is compared: rows without an answer to learn can be checked too.
            None => match read_instructions(&path, None) {
                Ok(rows) => rows,
                Err(error) => texts(&path, "instruction").map_err(|_| error)?,
            },
            Some(column) => texts(&path, column)?,
        };
        Ok(Training { name: own, parts: vec![(None, rows)] })
    }

    /// These rows of a file.
    pub(crate) fn of_rows(name: &str, rows: Vec<Example>) -> Training {
        Training { name: name.into(), parts: vec![(None, rows)] }
    }

    /// The rows that a recipe of tasks learns from or validates by.
    pub(crate) fn of_recipe(recipe: &Recipe, app: &App) -> anyhow::Result<Training> {
        let names = recipe.source.tasks();
        let mut all = Training { name: mixture::named(names), parts: vec![] };
        for name in names {
            let task = Task::open(name)?;
            let rows = train_rows(&task, &app.places.roots().data, &recipe.wanted(name))?;
            all.parts.push((Some(task), rows));
        }
        Ok(all)
    }

    /// All rows of these tasks and files.
    pub(crate) fn all(names: &[String], app: &App) -> anyhow::Result<Training> {
        let mut all = Training { name: mixture::named(names), parts: vec![] };
        for name in names {
            all.parts.extend(Training::open(name, None, app)?.parts);
        }
        Ok(all)
    }

    /// The rows of these tasks and files without a task's validation rows, for those are to be scored: of a task that
    /// `recipe` names, what its run learned from.
    pub(crate) fn learned(names: &[String], recipe: Option<&Recipe>, app: &App) -> anyhow::Result<Training> {
        let mut all = Training { name: mixture::named(names), parts: vec![] };
        for name in names {
            if !is_task(name) {
                all.parts.extend(Training::open(name, None, app)?.parts);
                continue;
            }
            let task = Task::open(name)?;
            let wanted = recipe.and_then(|recipe| wanted(recipe, &task)).unwrap_or_default();
            let rows = task.load(&app.places.roots().data, SplitName::Train, &wanted)?.examples;
            all.parts.push((Some(task), rows));
        }
        Ok(all)
    }

    /// Where a test of `task` stands to these rows; none where they are no task's.
    pub(crate) fn distribution(&self, task: &Task) -> Option<&'static str> {
        let names: Vec<&str> = self.parts.iter().filter_map(|(own, _)| Some(own.as_ref()?.name())).collect();
        let same = names.contains(&task.name());
        (!names.is_empty()).then_some(if same { "in distribution" } else { "out of distribution" })
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|(_, rows)| rows.len()).sum()
    }

    /// The rows, ready to be searched for runs of `ngram` words.
    pub(crate) fn seen(&self, ngram: usize) -> Seen {
        let parts: Vec<_> = self.parts.iter().map(|(task, rows)| (rows.as_slice(), task.as_ref())).collect();
        Seen::of(&parts, ngram)
    }
}

/// The recipe of the run, or of the study's cell, that made an adapter; none where that is not known. Any other recipe
/// in the folder above tells nothing of the adapter: `sibo init` writes one wherever it is asked to.
pub(crate) fn recipe_of(adapter: &Path, app: &App) -> Option<Recipe> {
    let folder = adapter.parent()?;
    let file = folder.join(recipe::FILE);
    let made_here = MADE_HERE.iter().any(|mark| folder.join(mark).is_file());
    if !made_here || !file.is_file() {
        return None;
    }
    let told = |reason| app.out.note(format!("how the adapter was trained is not known: {reason}"));
    Recipe::read(&file).map_err(told).ok()
}

/// What a recipe learns from, by name.
pub(crate) fn names(source: &Source) -> &[String] {
    match source {
        Source::Tasks { tasks, .. } => tasks,
        Source::File { data, .. } => std::slice::from_ref(data),
    }
}

/// Which rows of a task a recipe takes; none where it is a recipe of other tasks. It may know the task by another path.
pub(crate) fn wanted(recipe: &Recipe, task: &Task) -> Option<Wanted> {
    let same = |own: &&String| Task::open(own).is_ok_and(|own| own.name() == task.name());
    recipe.source.tasks().iter().find(same).map(|own| recipe.wanted(own))
}

/// Whether what rows are named by is a task's, and not a file's.
fn is_task(name: &str) -> bool {
    name.ends_with(".toml") || sibo_tasks::names().any(|own| own == name)
}

/// Validation rows are chosen by, so a test row among them leaks too.
fn train_rows(task: &Task, root: &Path, wanted: &Wanted) -> Result<Vec<Example>, Error> {
    let mut rows = task.load(root, SplitName::Train, wanted)?.examples;
    match task.load(root, SplitName::Validation, wanted) {
        Ok(validation) => rows.extend(validation.examples),
        Err(Error::NoData { .. } | Error::NoSplit { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(rows)
}

/// A text column of JSON rows, whatever else they have.
fn texts(path: &Path, column: &str) -> anyhow::Result<Vec<Example>> {
    let text = |(id, text)| Example { id, text: Text::Plain(text), target: Target::InText };
    let rows = sibo_tasks::read_column(path, column)?;
    Ok((0..).zip(rows).map(text).collect())
}

/// What a table says of a benchmark that leaks.
pub(crate) fn mark(overlap: &Overlap) -> Option<String> {
    mark_of(overlap, SplitName::Test)
}

/// The same of another split that was looked at.
pub(crate) fn mark_of(overlap: &Overlap, split: SplitName) -> Option<String> {
    let (rows, of) = (overlap.whole(), overlap.test_rows);
    overlap.leaks().then(|| format!("{rows} of {of} {split} rows are also training rows"))
}

/// Refuses runs of no words.
pub(crate) fn check_ngram(ngram: usize) -> anyhow::Result<()> {
    match ngram {
        0 => Err(usage("--ngram must be 1 or more words")),
        _ => Ok(()),
    }
}
