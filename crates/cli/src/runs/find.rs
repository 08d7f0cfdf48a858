//! Runs and studies below a folder.

use crate::record::METRICS;
use sibo_train::{cells, recipe};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Folders below the first; studies keep the runs of their cells three below.
const DEEPEST: usize = 5;
/// Entries looked at; a folder with more is none that this program wrote.
const MOST_ENTRIES: usize = 50_000;
/// Folders in which a run keeps what is no run.
const INSIDE: [&str; 5] = ["checkpoints", "adapter", "best", "tensorboard", "parts"];

/// What a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A run of `sibo train`.
    Run,
    /// A study that has its page.
    Study,
    /// A study of cells that has none yet.
    Cells,
    /// A part of a run only: which file is missing is said where it is opened.
    Part,
}

/// A folder with something in it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Its path below the folder that was searched, with slashes.
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) kind: Kind,
    /// When its newest record was written.
    pub(crate) written: Option<SystemTime>,
}

/// All runs and studies below `root`, the newest first, and whether that is all: links are not followed, and a folder
/// that cannot be read is passed over.
pub(crate) fn find(root: &Path) -> (Vec<Found>, bool) {
    let (mut found, mut left) = (Vec::new(), MOST_ENTRIES);
    walk(root, "", DEEPEST, false, &mut left, &mut found);
    found.sort_by(|a, b| b.written.cmp(&a.written).then_with(|| a.name.cmp(&b.name)));
    (found, left > 0)
}

fn walk(folder: &Path, name: &str, deeper: usize, in_study: bool, left: &mut usize, found: &mut Vec<Found>) {
    let kind = kind(folder);
    // A cell that keeps no metrics is told by its study.
    if let Some(kind) = kind.filter(|kind| !(in_study && *kind == Kind::Part)) {
        let shown = if name.is_empty() { "." } else { name };
        let written = written(folder);
        found.push(Found { name: shown.into(), folder: folder.into(), kind, written });
    }
    let Some(deeper) = deeper.checked_sub(1) else { return };
    let in_study = in_study || matches!(kind, Some(Kind::Study | Kind::Cells));
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let own = entry.file_name();
        // A name that is no UTF-8 could not stand in an address.
        let Some(own) = own.to_str().filter(|n| !n.starts_with('.') && !INSIDE.contains(n)) else { continue };
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            let name = if name.is_empty() { own.to_string() } else { format!("{name}/{own}") };
            walk(&entry.path(), &name, deeper, in_study, left, found);
        }
    }
}

fn kind(folder: &Path) -> Option<Kind> {
    let has = |file: &str| folder.join(file).is_file();
    match (has(METRICS), has(recipe::FILE)) {
        (true, true) => Some(Kind::Run),
        _ if has("report.json") => Some(Kind::Study),
        _ if has(cells::FILE) => Some(Kind::Cells),
        (false, false) => None,
        _ => Some(Kind::Part),
    }
}

fn written(folder: &Path) -> Option<SystemTime> {
    let files = [METRICS, cells::FILE, "report.json", recipe::FILE];
    let times = files.iter().filter_map(|file| folder.join(file).metadata().ok()?.modified().ok());
    times.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_what_their_files_say() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        for path in [
            "plain/metrics.jsonl",
            "plain/recipe.toml",
            "plain/adapter/report.json",
            "early/recipe.toml",
            "deep/er/study/report.json",
            "deep/er/study/cells/ab/recipe.toml",
            "going/cells.jsonl",
            ".hidden/report.json",
            "1/2/3/4/5/6/report.json",
        ] {
            write(path);
        }
        let (mut found, all) = find(root.path());
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let found: Vec<(&str, Kind)> = found.iter().map(|f| (f.name.as_str(), f.kind)).collect();
        let expected = [
            ("deep/er/study", Kind::Study),
            ("early", Kind::Part),
            ("going", Kind::Cells),
            ("plain", Kind::Run),
        ];
        assert!(all);
        assert_eq!(found, expected);
        assert_eq!(find(&root.path().join("none")).0.len(), 0);
    }
}
