//! Which parquet files together are a split, as the Hub names them: `train.parquet`, `train-00000-of-00002.parquet` with
//! its fellows, or, in the copies that the Hub makes itself, a folder `train` with `0000.parquet` and so on.

use crate::Error;
use std::path::{Path, PathBuf};

/// A split's files in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shards {
    /// What stands for all of them in messages: the file, or the first with a word on the others.
    pub(crate) shown: PathBuf,
    /// The files.
    pub(crate) files: Vec<PathBuf>,
}

impl Shards {
    /// One file that is all there is.
    pub(crate) fn one(file: PathBuf) -> Self {
        Shards { shown: file.clone(), files: vec![file] }
    }

    /// All shards of a split, sorted by name; refused where some are lacking or the split is there twice.
    pub(crate) fn whole(files: Vec<PathBuf>) -> Result<Self, Error> {
        let parts: Vec<Part> = files.iter().map(|file| Part::of(file)).collect();
        let folder = files[0].parent().unwrap_or(Path::new("")).to_owned();
        let wrong = |problem: String| Err(Error::Folder { path: folder.clone(), problem });
        let split = &parts[0].split;
        let Some((_, count)) = parts[0].at else {
            return match files.as_slice() {
                [_] => Ok(Shards::one(files[0].clone())),
                _ => wrong(format!("holds split `{split}` more than once; name one file")),
            };
        };
        let lacks = |i: &usize| !parts.iter().any(|part| part.at.is_some_and(|(at, _)| at == *i));
        let last = parts.iter().filter_map(|part| part.at).map(|(at, _)| at + 1).max();
        let total = count.or(last).unwrap_or_default();
        if parts.len() > total || parts.iter().any(|part| part.at.is_none_or(|(_, n)| n != count)) {
            return wrong(format!(
                "holds the shards of split `{split}` more than once; keep one set of them"
            ));
        }
        if let Some(gone) = (0..total).find(lacks) {
            let problem = "a part of a split would pass for the whole: get the others";
            return wrong(format!(
                "{} of {total} shards of split `{split}`; number {gone} is not here; {problem}",
                parts.len()
            ));
        }
        match files.as_slice() {
            [_] => Ok(Shards::one(files[0].clone())),
            [first, ..] => {
                Ok(Shards { shown: first.with_file_name(format!("{split} ({total} parquet files)")), files })
            }
            [] => wrong("no file".into()),
        }
    }

    /// The split whose JSON lines would lie at `path`, as parquet: beside it, or where a repository of the Hub has it,
    /// in the folder of its configuration or in `data` or `default`.
    pub(crate) fn in_place_of(path: &Path, config: Option<&str>) -> Result<Option<Self>, Error> {
        let (Some(folder), Some(split)) = (path.parent(), path.file_stem().and_then(|stem| stem.to_str()))
        else {
            return Ok(None);
        };
        let below = [config, Some("data"), Some("default")];
        let below = below.into_iter().flatten().map(|name| folder.join(name));
        for folder in std::iter::once(folder.to_owned()).chain(below) {
            for place in [folder.clone(), folder.join(split)] {
                let mut files = parquet_files(&place)?;
                files.retain(|file| Part::of(file).split == split);
                if !files.is_empty() {
                    return Shards::whole(files).map(Some);
                }
            }
        }
        Ok(None)
    }
}

/// The parquet files that lie directly in a folder, sorted; none where there is no such folder.
fn parquet_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).map_err(|e| Error::read(folder, e))?;
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|e| e.path())).collect();
    let mut paths = paths.map_err(|e| Error::read(folder, e))?;
    paths.retain(|path| super::parquet::is(path) && path.is_file());
    paths.sort();
    Ok(paths)
}

/// What a file's name says of its place in a split.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The split.
    pub(crate) split: String,
    /// Which shard it is, and of how many where the name tells.
    at: Option<(usize, Option<usize>)>,
}

impl Part {
    pub(crate) fn of(file: &Path) -> Self {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let digits =
            |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        if let (Some(at), Some(folder)) = (digits(&stem), file.parent().and_then(Path::file_name)) {
            return Part { split: folder.to_string_lossy().into_owned(), at: Some((at, None)) };
        }
        // Older files of the Hub end in a hash: train-00000-of-00001-a1b2c3.
        if let Some((front, back)) = stem.split_once("-of-")
            && let Some((split, at)) = front.rsplit_once('-')
            && let (Some(at), Some(count)) = (digits(at), digits(back.split('-').next().unwrap_or_default()))
        {
            return Part { split: split.to_owned(), at: Some((at, Some(count))) };
        }
        Part { split: stem, at: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        root
    }

    fn found(files: &[&str]) -> Vec<String> {
        let root = made(files);
        let found = Shards::in_place_of(&root.path().join("set/train.jsonl"), Some("main"));
        let names = |file: &PathBuf| file.strip_prefix(root.path()).unwrap().display().to_string();
        match found {
            Ok(found) => found.map(|shards| shards.files.iter().map(names).collect()).unwrap_or_default(),
            Err(error) => vec![error.to_string()],
        }
    }

    #[test]
    fn a_split_is_found_where_the_hub_keeps_it() {
        assert_eq!(found(&["set/train.parquet", "set/test.parquet"]), ["set/train.parquet"]);
        let two = ["set/data/train-00001-of-00002.parquet", "set/data/train-00000-of-00002-ab12.parquet"];
        assert_eq!(found(&two), [two[1], two[0]], "in order");
        assert_eq!(
            found(&["set/main/train-00000-of-00001.parquet", "set/data/x"]),
            ["set/main/train-00000-of-00001.parquet"]
        );
        let made_by_hub = ["set/default/train/0000.parquet", "set/default/train/0001.parquet"];
        assert_eq!(found(&made_by_hub), made_by_hub);
        assert!(
            found(&["set/train-extra-00000-of-00001.parquet", "set/trainer.parquet", "set/train.json"])
                .is_empty()
        );
        assert!(found(&["elsewhere/x"]).is_empty());
    }

    #[test]
    fn a_split_that_is_not_whole_is_refused() {
        let said = |files: &[&str]| found(files).concat();
        let e = said(&["set/train-00000-of-00003.parquet", "set/train-00002-of-00003.parquet"]);
        assert!(e.contains("set: 2 of 3 shards of split `train`; number 1 is not here"), "{e}");
        let e = said(&["set/train-00000-of-00001.parquet", "set/train-00000-of-00002.parquet"]);
        assert!(e.contains("the shards of split `train` more than once"), "{e}");
        let e = said(&["set/train.parquet", "set/train-00000-of-00001.parquet"]);
        assert!(e.contains("more than once"), "{e}");
        let e = said(&["set/train/0000.parquet", "set/train/0002.parquet"]);
        assert!(e.contains("2 of 3 shards of split `train`; number 1 is not here"), "{e}");
    }
}
