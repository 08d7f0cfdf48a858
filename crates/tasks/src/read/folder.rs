//! A folder of rows: a repository of the hub arrives as one, and its file has a name that nobody knows by heart.

use super::shards::{Part, Shards};
use crate::Error;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files of a data set's repository that hold no rows.
const DESCRIPTIONS: [&str; 3] = ["dataset_infos.json", "dataset_dict.json", "dataset_info.json"];

/// `path` itself if it is a file; of a folder, its only file of rows, or of several the one called `train`. Parquet shards
/// of one split count as one file, and all of them are given.
pub(super) fn rows_files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    collect(path, &mut found)?;
    found.sort();
    let ends = |file: &PathBuf, ends: &[&str]| {
        file.extension().is_some_and(|end| ends.iter().any(|e| end.eq_ignore_ascii_case(e)))
    };
    // By folder and split; a JSON file is a split of its own.
    let mut splits: BTreeMap<(Option<PathBuf>, String), Vec<PathBuf>> = BTreeMap::new();
    for file in found.iter().filter(|file| ends(file, &["json", "jsonl", "parquet"])) {
        let name = match super::parquet::is(file) {
            true => Part::of(file).split,
            false => shown(path, file),
        };
        splits.entry((file.parent().map(Path::to_owned), name)).or_default().push(file.clone());
    }
    let train = |files: &&Vec<PathBuf>| match super::parquet::is(&files[0]) {
        true => Part::of(&files[0]).split == "train",
        false => files[0].file_stem().is_some_and(|stem| stem == "train"),
    };
    let sets: Vec<&Vec<PathBuf>> = splits.values().collect();
    match (sets.as_slice(), splits.values().filter(train).collect::<Vec<_>>().as_slice()) {
        ([only], _) => whole(only),
        (_, [train]) => whole(train),
        ([], _) => Err(match found.iter().find(|file| ends(file, &["arrow"])) {
            Some(file) => Error::Arrow { path: file.to_owned() },
            None => {
                folder(path, "a folder without a .parquet, .json or .jsonl file; name a file of rows".into())
            }
        }),
        (several, _) => {
            let mut names: Vec<String> = several.iter().map(|files| shown(path, &files[0])).collect();
            names.sort();
            Err(folder(path, format!("a folder with several files of rows, {}; name one", names.join(", "))))
        }
    }
}

fn whole(files: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    match super::parquet::is(&files[0]) {
        true => Ok(Shards::whole(files.to_vec())?.files),
        false => Ok(files.to_vec()),
    }
}

fn folder(path: &Path, problem: String) -> Error {
    Error::Folder { path: path.to_owned(), problem }
}

fn shown(folder: &Path, file: &Path) -> String {
    file.strip_prefix(folder).unwrap_or(file).display().to_string()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(|e| Error::read(folder, e))? {
        let entry = entry.map_err(|e| Error::read(folder, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        // The hub's cache keeps links to files; a link to a folder could lead round in a circle.
        let real_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        match name.starts_with('.') || DESCRIPTIONS.contains(&name.as_str()) {
            true => {}
            false if real_folder => collect(&path, found)?,
            false if path.is_file() => found.push(path),
            false => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(files: &[&str]) -> (tempfile::TempDir, Result<Vec<PathBuf>, String>) {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "{}").unwrap();
        }
        let found = rows_files(root.path()).map_err(|e| e.to_string());
        (root, found)
    }

    #[test]
    fn the_only_file_or_the_one_called_train() {
        let (root, found) =
            made(&["README.md", "alpaca_cleaned.json", "dataset_infos.json", ".cache/x.json"]);
        assert_eq!(found.unwrap(), [root.path().join("alpaca_cleaned.json")]);
        let (root, found) = made(&["main/train.jsonl", "main/test.jsonl"]);
        assert_eq!(found.unwrap(), [root.path().join("main/train.jsonl")]);
        let file = root.path().join("main/test.jsonl");
        assert_eq!(rows_files(&file).unwrap(), std::slice::from_ref(&file), "a file is taken as it is");
    }

    #[test]
    fn shards_of_one_split_are_one_file() {
        let shards = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"];
        let (root, found) = made(&[shards[1], shards[0], "data/test-00000-of-00001.parquet", "README.md"]);
        assert_eq!(found.unwrap(), shards.map(|name| root.path().join(name)));
        let (root, found) = made(&["default/train/0000.parquet", "default/test/0000.parquet"]);
        assert_eq!(found.unwrap(), [root.path().join("default/train/0000.parquet")]);
    }

    #[test]
    fn anything_else_gets_a_sentence() {
        let said = |files: &[&str]| made(files).1.unwrap_err();
        assert!(
            said(&["a.jsonl", "b/c.json"]).contains("several files of rows, a.jsonl, b/c.json; name one")
        );
        assert!(said(&["README.md"]).contains("without a .parquet, .json or .jsonl file"));
        assert!(said(&["data/data-00000-of-00001.arrow"]).contains("arrow files are not read"));
        assert!(said(&["train-00000-of-00002.parquet"]).contains("1 of 2 shards of split `train`; number 1"));
        assert!(said(&["a/train.json", "b/train.json"]).contains("name one"));
    }
}
