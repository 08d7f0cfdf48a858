//! What a cell is made from, in hashes: a study that goes on knows by them that its model and its rows are still the
//! same.

use super::{Cell, Record, START, fold};
use crate::Error;
use crate::recipe::{Recipe, Source};
use sibo_tasks::{Example, SplitName, Task, Wanted};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The bytes of a model's file that are read at a time, and how often at most: a file of more than 64 MiB is looked
/// at in places that are spread evenly over it, and other weights differ nearly everywhere.
const PIECE: u64 = 1 << 16;
const PIECES: u64 = 1 << 10;

/// Hashes of what a cell is made from, by the names of it: `model.safetensors`, `rte, train`.
pub type Sources = BTreeMap<String, String>;

/// One thing that a cell is made from, as it lies there now.
#[derive(Debug, Clone)]
pub(super) struct Found {
    name: String,
    /// Its file, for messages.
    place: String,
    hash: String,
}

/// What was read already: cells of one study share nearly all.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<String, Vec<Found>>);

impl Seen {
    /// What a cell would be made from now. What cannot be read is left out: the cell that needs it says why.
    pub(super) fn of(&mut self, cell: &Cell) -> Vec<Found> {
        let folder = &cell.places.model;
        let mut all = self.once(folder.display().to_string(), || model(folder));
        all.extend(self.files(cell));
        all.extend(self.tasks(cell));
        all
    }

    fn once(&mut self, key: String, read: impl FnOnce() -> Vec<Found>) -> Vec<Found> {
        self.0.entry(key).or_insert_with(read).clone()
    }

    /// The files of a recipe of a data file; that of the test where it judges.
    fn files(&mut self, cell: &Cell) -> Vec<Found> {
        let tests = cell.judges.iter().any(|judge| judge.split == SplitName::Test);
        let places = &cell.places;
        let test = places.test.as_ref().filter(|_| tests);
        let named =
            [("data", places.data.as_ref()), ("validation", places.validation.as_ref()), ("test", test)];
        let read = |(name, file): (&str, Option<&PathBuf>)| {
            let file = file?;
            Some(self.once(format!("{name} {}", file.display()), || own(name, file, &cell.recipe)))
        };
        named.into_iter().filter_map(read).flatten().collect()
    }

    /// The rows of the recipe's tasks, and of those that judge: all of a split, whatever part of it is used.
    fn tasks(&mut self, cell: &Cell) -> Vec<Found> {
        let learned = cell.recipe.source.tasks().iter();
        let learned = learned.flat_map(|task| [(task, SplitName::Train), (task, SplitName::Validation)]);
        let mut all: Vec<Found> = Vec::new();
        let judges = cell.judges.iter().filter(|judge| !cell.recipe.source.is_data_file(&judge.task));
        for (task, split) in learned.chain(judges.map(|judge| (&judge.task, judge.split))) {
            let wanted = Wanted { limit: None, ..cell.recipe.wanted(task) };
            let root = &cell.places.root;
            let key = format!("{task} {split} {wanted:?} {}", root.display());
            for read in self.once(key, || rows(task, root, split, &wanted)) {
                if all.iter().all(|own| own.name != read.name) {
                    all.push(read);
                }
            }
        }
        all
    }
}

/// By name, what a record keeps.
pub(super) fn kept(now: &[Found]) -> Sources {
    now.iter().map(|read| (read.name.clone(), read.hash.clone())).collect()
}

/// The first thing that is another one now than it was; of what only one side knows, nothing can be said.
fn changed<'a>(then: &Sources, now: &'a [Found]) -> Option<&'a Found> {
    now.iter().find(|read| then.get(&read.name).is_some_and(|hash| *hash != read.hash))
}

/// Refuses a finished cell that was made from something else than lies there now.
pub(super) fn check_record(record: &Record, now: &[Found], log: &Path) -> Result<(), Error> {
    let Some(Found { name, place, .. }) = changed(&record.sources, now) else { return Ok(()) };
    let log = log.display();
    Err(Error::Refused(format!(
        "{place}: not what it was when {}, seed {}, was run ({name} has another hash in {log}), and one study cannot be of both. Put it back as it was; or give another --output-dir; or remove {log} and the folder {} beside it, and every cell is run anew",
        record.arm,
        record.seed,
        super::RUNS
    )))
}

/// Refuses the adapter of a run folder that was trained on something else than lies there now.
pub(super) fn check_trained(then: &Sources, now: &[Found], run_dir: &Path) -> Result<(), Error> {
    let Some(Found { place, .. }) = changed(then, now) else { return Ok(()) };
    Err(Error::Refused(format!(
        "{place}: not what it was when the adapter in {} was trained. Put it back as it was, or remove that folder, and the cell is trained anew",
        run_dir.display()
    )))
}

/// The files of a model's folder that change a number.
fn model(folder: &Path) -> Vec<Found> {
    let counts = |name: &str| {
        name.ends_with(".safetensors") || ["config.json", "tokenizer.json", "vocab.txt"].contains(&name)
    };
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names: BTreeSet<String> = names.filter(|name| counts(name)).collect();
    let read = |name: String| {
        let path = folder.join(&name);
        let hash = of_file(&path).ok()?;
        Some(Found { name, place: path.display().to_string(), hash })
    };
    names.into_iter().filter_map(read).collect()
}

fn of_file(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let pieces = length.div_ceil(PIECE).min(PIECES);
    // Of a large file, the last piece ends where the file does.
    let start = |number: u64| match length <= PIECE * PIECES {
        true => number * PIECE,
        false => number * (length - PIECE) / (PIECES - 1),
    };
    let mut hash = START;
    let mut piece = Vec::new();
    for number in 0..pieces {
        file.seek(SeekFrom::Start(start(number)))?;
        piece.clear();
        (&mut file).take(PIECE).read_to_end(&mut piece)?;
        hash = fold(hash, &piece);
    }
    Ok(format!("{length} bytes, {hash:016x}"))
}

fn own(name: &str, file: &Path, recipe: &Recipe) -> Vec<Found> {
    let Source::File { format, .. } = &recipe.source else { return vec![] };
    let rows = sibo_tasks::read_instructions(file, *format);
    let read = |rows: Vec<Example>| Found {
        name: name.into(),
        place: file.display().to_string(),
        hash: of_rows(&rows),
    };
    rows.ok().map(read).into_iter().collect()
}

fn rows(task: &str, root: &Path, split: SplitName, wanted: &Wanted) -> Vec<Found> {
    let read = || -> Result<Found, sibo_tasks::Error> {
        let task = Task::open(task)?;
        let rows = task.load(root, split, wanted)?;
        let name = format!("{}, {split}", task.name());
        Ok(Found { name, place: rows.file.display().to_string(), hash: of_rows(&rows.examples) })
    };
    read().into_iter().collect()
}

/// Of the rows themselves: the same rows in another layout are the same.
fn of_rows(rows: &[Example]) -> String {
    // A row holds texts and finite numbers only, so it has a JSON form.
    let text = |row: &Example| serde_json::to_string(row).unwrap_or_default();
    let hash = rows.iter().fold(START, |hash, row| fold(hash, text(row).as_bytes()));
    format!("{} rows, {hash:016x}", rows.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_file_is_known_by_places_all_over_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights");
        let hash = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            of_file(&path).unwrap()
        };
        let mut bytes = vec![7u8; (PIECE * PIECES + 3 * PIECE) as usize];
        let whole = hash(&bytes);
        let last = bytes.len() - 1;
        bytes[last] = 8;
        assert_ne!(hash(&bytes), whole);
        bytes[last] = 7;
        bytes[0] = 8;
        assert_ne!(hash(&bytes), whole);
        // A small one by every byte.
        let mut bytes = vec![7u8; 3 * PIECE as usize + 5];
        let whole = hash(&bytes);
        bytes[PIECE as usize * 2 - 1] = 8;
        assert_ne!(hash(&bytes), whole);
        bytes[PIECE as usize * 2 - 1] = 7;
        assert_eq!(hash(&bytes), whole);
    }
}
