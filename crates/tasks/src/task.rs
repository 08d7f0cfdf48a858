//! A task: its spec and its rows. How a protocol asks them is in `ask.rs`.

use crate::example::Example;
use crate::read::{columns, shards::Shards};
use crate::spec::{Field, HELD_OUT, Source, Spec};
use crate::{Error, order, registry, suggest};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// Which rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SplitName {
    /// Learned from.
    Train,
    /// Chosen by: settings, lambda and the best checkpoint.
    Validation,
    /// Reported on, once.
    Test,
}

impl SplitName {
    /// All splits.
    pub const ALL: [SplitName; 3] = [SplitName::Train, SplitName::Validation, SplitName::Test];
}

impl fmt::Display for SplitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SplitName::Train => "train",
            SplitName::Validation => "validation",
            SplitName::Test => "test",
        })
    }
}

/// A split of a data set of the Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubRows {
    /// `org/name`.
    pub repo: String,
    /// Its configuration, where it has several.
    pub config: Option<String>,
    /// The split, as the Hub calls it.
    pub split: String,
    /// The folder, below that of all data, in which a task looks for it: as `<split>/0000.parquet`, say.
    pub folder: PathBuf,
}

/// Which rows of a split are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// At most so many rows, drawn in a fixed seeded order: fewer are a subset of more.
    pub limit: Option<usize>,
    /// Rows to hold out of train for validation; default: what the task's file says, a tenth where it says
    /// `held-out`.
    pub validation_rows: Option<usize>,
    /// The seed of both draws; leave it alone when results are to compare.
    pub seed: u64,
}

impl Default for Wanted {
    fn default() -> Self {
        Wanted { limit: None, validation_rows: None, seed: SPLIT_SEED }
    }
}

/// The seed of splits and limits. Not a run's seed: runs with several seeds share their rows.
pub const SPLIT_SEED: u64 = 0;

/// The share of train that `held-out` takes: one in so many rows.
const HELD_OUT_SHARE: usize = 10;

/// The rows of one split and where they came from.
#[derive(Debug, Clone)]
pub struct Split {
    /// The rows, in their file's order.
    pub examples: Vec<Example>,
    /// The file read; of several shards, their folder with the split and their number.
    pub file: PathBuf,
    /// Rows in the file.
    pub rows_in_file: usize,
    /// Rows of the official split, where the task's file knows it.
    pub official_rows: Option<usize>,
    /// Rows of the split before the limit.
    pub rows_in_split: usize,
    /// What every score on these rows must say beside it: a layout's note, a part of the official rows.
    pub notes: Vec<String>,
    /// The layout's note alone: what makes these rows another benchmark than the one of the name, such as
    /// `without passage`. It stands with the name in every table.
    pub variant: Option<String>,
    /// Whether worked solutions in these rows are the benchmark's own: another model's are no gold text.
    pub own_solutions: bool,
}

/// A benchmark.
#[derive(Debug, Clone)]
pub struct Task {
    pub(crate) spec: Spec,
    /// A task's own file, beside which its data may lie too; none for those of the program.
    own_file: Option<PathBuf>,
}

impl Task {
    /// An embedded task by name.
    pub fn named(name: &str) -> Result<Task, Error> {
        let text = registry::embedded(name).ok_or_else(|| Error::UnknownTask {
            name: name.into(),
            known: registry::names().collect::<Vec<_>>().join(", "),
            hint: suggest::hint(name, registry::names()),
        })?;
        Ok(Task { spec: Spec::parse(text, name)?, own_file: None })
    }

    /// A task from a user's own TOML file.
    pub fn from_file(path: &Path) -> Result<Task, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::read(path, e))?;
        let spec = Spec::parse(&text, &path.display().to_string())?;
        Ok(Task { spec, own_file: Some(path.to_owned()) })
    }

    /// An embedded task's name, or the path of a TOML file.
    pub fn open(name_or_path: &str) -> Result<Task, Error> {
        if registry::embedded(name_or_path).is_none() && name_or_path.ends_with(".toml") {
            return Task::from_file(Path::new(name_or_path));
        }
        Task::named(name_or_path)
    }

    /// The task's file.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Texts of a row that a class head reads: 2 where the task is about pairs.
    pub fn texts(&self) -> usize {
        let pairs = self.spec.source.iter().any(|source| source.columns.contains_key(&Field::TextB));
        1 + usize::from(pairs)
    }

    /// The TOML file that the task was read from; none for those of the program.
    pub fn own_file(&self) -> Option<&Path> {
        self.own_file.as_deref()
    }

    /// The task's name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The names of its classes, in their order; none where it has no fixed ones.
    pub fn labels(&self) -> &[String] {
        &self.spec.labels
    }

    /// The rows of a split, from the first of the task's layouts that is there below `root`, or beside the task's
    /// own file.
    pub fn load(&self, root: &Path, split: SplitName, wanted: &Wanted) -> Result<Split, Error> {
        let held_out = self.spec.splits.validation.as_deref() == Some(HELD_OUT);
        let own_rows = wanted.validation_rows.is_some() && self.spec.splits.train.is_some();
        let drawn = held_out || own_rows;
        let from = if split == SplitName::Validation && drawn { SplitName::Train } else { split };
        let mut rows = self.read(root, from)?;
        if drawn && split != SplitName::Test {
            self.draw(&mut rows, split, wanted)?;
        }
        rows.rows_in_split = rows.examples.len();
        if let Some(limit) = wanted.limit.filter(|limit| *limit < rows.examples.len()) {
            let kept = order::choose(order::Purpose::Limit, wanted.seed, rows.examples.len(), limit);
            rows.notes.push(format!("{limit} of {} rows", rows.examples.len()));
            rows.examples = kept.into_iter().map(|i| rows.examples[i].clone()).collect();
        }
        if rows.examples.is_empty() {
            return Err(self.split_error(format!("the limit leaves no row of {split}; ask for 1 or more")));
        }
        Ok(rows)
    }

    /// Keeps of a train file the rows of validation, or those of train.
    fn draw(&self, rows: &mut Split, split: SplitName, wanted: &Wanted) -> Result<(), Error> {
        let n = rows.examples.len();
        let count = wanted.validation_rows.unwrap_or((n / HELD_OUT_SHARE).max(1));
        if count == 0 || count >= n {
            let problem = format!("{count} validation rows out of {n} train rows leave nothing on one side");
            return Err(self.split_error(problem + "; ask for 1 or more and fewer than all"));
        }
        let held = order::choose(order::Purpose::HeldOut, wanted.seed, n, count);
        let mut is_held = vec![false; n];
        held.iter().for_each(|i| is_held[*i] = true);
        let mut at = 0;
        rows.examples.retain(|_| {
            at += 1;
            is_held[at - 1] == (split == SplitName::Validation)
        });
        if split == SplitName::Validation {
            rows.notes.push(format!("{count} rows held out of train, seed {}", wanted.seed));
        }
        Ok(())
    }

    fn read(&self, root: &Path, split: SplitName) -> Result<Split, Error> {
        let Some(file) = self.spec.splits.file(split) else {
            let has = SplitName::ALL.iter().filter(|s| self.spec.splits.file(**s).is_some());
            let has: Vec<String> = has.map(SplitName::to_string).collect();
            let (task, split) = (self.name().to_owned(), split.to_string());
            return Err(Error::NoSplit { task, split, has: has.join(", ") });
        };
        let (source, shards) = self.find(root, split, file)?;
        let examples = columns::examples(&self.spec, source, &shards.files)?;
        let official_rows = self.spec.official_rows.get(file).copied();
        let mut notes: Vec<String> = source.note.iter().cloned().collect();
        if let Some(official) = official_rows.filter(|n| *n != examples.len()) {
            notes.push(format!("{} rows of the official {official} of {file}", examples.len()));
        }
        let rows = examples.len();
        let variant = source.note.clone();
        let (rows_in_file, rows_in_split) = (rows, rows);
        let own_solutions = source.columns.contains_key(&Field::Solution);
        let file = shards.shown;
        Ok(Split {
            examples,
            file,
            rows_in_file,
            official_rows,
            rows_in_split,
            notes,
            variant,
            own_solutions,
        })
    }

    /// Where the Hub has the rows of these splits, each split once; empty where it has none of them.
    pub fn hub_rows(&self, splits: &[SplitName]) -> Vec<HubRows> {
        let mut found: Vec<HubRows> = Vec::new();
        for (source, name) in self.first_files(splits) {
            let file = Path::new(name);
            let (Some(hub), Some(split), Some(folder)) = (&source.hub, file.file_stem(), file.parent())
            else {
                continue;
            };
            let rows = HubRows {
                repo: hub.clone(),
                config: source.hub_config.clone(),
                split: split.to_string_lossy().into_owned(),
                folder: folder.to_owned(),
            };
            if !found.contains(&rows) {
                found.push(rows);
            }
        }
        found
    }

    /// The first file that each layout looks for, for each of these splits.
    pub fn files_wanted(&self, root: &Path, splits: &[SplitName]) -> Vec<String> {
        self.first_files(splits).into_iter().map(|(_, name)| root.join(name).display().to_string()).collect()
    }

    fn first_files(&self, splits: &[SplitName]) -> Vec<(&Source, &String)> {
        let file = |split: &SplitName| match self.spec.splits.file(*split) {
            // Rows held out are rows of train.
            Some(HELD_OUT) => self.spec.splits.train.as_deref(),
            file => file,
        };
        let wanted: BTreeSet<&str> = splits.iter().filter_map(file).collect();
        let mut found = Vec::new();
        for source in &self.spec.source {
            let firsts = wanted.iter().filter_map(|file| source.files_of(file).first());
            found.extend(firsts.map(|name| (source, name)));
        }
        found
    }

    fn find(&self, root: &Path, split: SplitName, file: &str) -> Result<(&Source, Shards), Error> {
        let mut looked = Vec::new();
        let beside = self.own_file().and_then(Path::parent).filter(|folder| *folder != root);
        let folders: Vec<&Path> = std::iter::once(root).chain(beside).collect();
        for source in &self.spec.source {
            for name in source.files_of(file) {
                for path in folders.iter().map(|folder| folder.join(name)) {
                    if path.is_file() {
                        return Ok((source, Shards::one(path)));
                    }
                    if let Some(shards) = source.as_parquet(&path)? {
                        return Ok((source, shards));
                    }
                    looked.push(format!("  {}", path.display()));
                }
            }
        }
        let (task, split) = (self.name().to_owned(), split.to_string());
        Err(Error::NoData { task, split, looked: looked.join("\n") })
    }

    fn split_error(&self, problem: String) -> Error {
        Error::Split { task: self.name().to_owned(), problem }
    }
}
