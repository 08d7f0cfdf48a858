//! A folder of rows: a repository of the hub arrives as one, and its file has a name that nobody knows by heart.

use crate::Error;
use std::path::{Path, PathBuf};

/// Files of a data set's repository that hold no rows.
const DESCRIPTIONS: [&str; 3] = ["dataset_infos.json", "dataset_dict.json", "dataset_info.json"];

/// `path` itself if it is a file; of a folder, its only file of rows, or of several the one called `train`.
pub(super) fn rows_file(path: &Path) -> Result<PathBuf, Error> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let mut found = Vec::new();
    collect(path, &mut found)?;
    found.sort();
    let ends = |file: &&PathBuf, ends: &[&str]| {
        file.extension().is_some_and(|end| ends.iter().any(|e| end.eq_ignore_ascii_case(e)))
    };
    let rows: Vec<&PathBuf> = found.iter().filter(|f| ends(f, &["json", "jsonl"])).collect();
    let train = |f: &&&PathBuf| f.file_stem().is_some_and(|stem| stem == "train");
    match (rows.as_slice(), rows.iter().filter(train).collect::<Vec<_>>().as_slice()) {
        ([only], _) => Ok(only.to_path_buf()),
        (_, [train]) => Ok(train.to_path_buf()),
        ([], _) => Err(match found.iter().find(|f| ends(f, &["parquet", "arrow"])) {
            Some(file) => Error::Parquet { path: file.to_owned() },
            None => folder(path, "a folder without a .json or .jsonl file; name a file of rows".into()),
        }),
        (several, _) => {
            let names: Vec<String> = several.iter().map(|f| shown(path, f)).collect();
            Err(folder(path, format!("a folder with several files of rows, {}; name one", names.join(", "))))
        }
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

    fn made(files: &[&str]) -> (tempfile::TempDir, Result<PathBuf, String>) {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "{}").unwrap();
        }
        let found = rows_file(root.path()).map_err(|e| e.to_string());
        (root, found)
    }

    #[test]
    fn the_only_file_or_the_one_called_train() {
        let (root, found) =
            made(&["README.md", "alpaca_cleaned.json", "dataset_infos.json", ".cache/x.json"]);
        assert_eq!(found.unwrap(), root.path().join("alpaca_cleaned.json"));
        let (root, found) = made(&["main/train.jsonl", "main/test.jsonl"]);
        assert_eq!(found.unwrap(), root.path().join("main/train.jsonl"));
        let file = root.path().join("main/test.jsonl");
        assert_eq!(rows_file(&file).unwrap(), file, "a file is taken as it is");
    }

    #[test]
    fn anything_else_gets_a_sentence() {
        let said = |files: &[&str]| made(files).1.unwrap_err();
        assert!(
            said(&["a.jsonl", "b/c.json"]).contains("several files of rows, a.jsonl, b/c.json; name one")
        );
        assert!(said(&["README.md"]).contains("without a .json or .jsonl file"));
        assert!(said(&["data/train-00000-of-00001.parquet"]).contains("to_json"));
        assert!(said(&["a/train.json", "b/train.json"]).contains("name one"));
    }
}
