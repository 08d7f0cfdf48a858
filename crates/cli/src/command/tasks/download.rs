//! Rows of the Hub below the data folder, where a task looks for them.

use crate::app::App;
use sibo_tasks::{HubRows, SplitName, Task};
use sibo_text::hub::{Kind, RepoId};
use std::path::Path;

/// The branch on which the Hub keeps every data set as parquet, `<configuration>/<split>/0000.parquet`, whatever form its
/// makers gave it.
const BRANCH: &str = "refs/convert/parquet";

/// Fetches the splits of a task that are not below `root`.
pub(super) fn fetch_all(task: &Task, splits: &[SplitName], root: &Path, app: &App) -> anyhow::Result<()> {
    if splits.is_empty() {
        return Ok(());
    }
    let all = task.hub_rows(splits);
    anyhow::ensure!(
        !all.is_empty(),
        "{}: the hub has no data set that this task knows; `sibo tasks {0}` says which files it looks for",
        task.name()
    );
    all.iter().try_for_each(|rows| fetch(rows, root, app))
}

fn fetch(rows: &HubRows, root: &Path, app: &App) -> anyhow::Result<()> {
    let HubRows { repo: name, split, .. } = rows;
    let repo = RepoId::parse(Kind::Dataset, &format!("{name}@{BRANCH}"))
        .ok_or_else(|| anyhow::anyhow!("{name}: no name of a data set, which is org/name"))?;
    let files = app.places.hub_files(&repo)?;
    let config = configuration(rows, &files)?;
    let from = app.places.hub_folder(&repo, &format!("{config}/{split}"))?;
    let folder = root.join(&rows.folder);
    let place = folder.join(split);
    anyhow::ensure!(
        !place.exists(),
        "{}: is there already, without rows that can be read; move it away, and it is fetched anew",
        place.display()
    );
    // Shards have no count in their names, so they take their place all at once.
    let part = folder.join(format!("{split}.part"));
    let io = |path: &Path, action, e| sibo_files::Error::io(path, action, e);
    if part.exists() {
        std::fs::remove_dir_all(&part).map_err(|e| io(&part, "remove", e))?;
    }
    std::fs::create_dir_all(&part).map_err(|e| io(&part, "make", e))?;
    // By the hub's list: a cache may hold fewer.
    let below = format!("{config}/{split}/");
    for name in
        files.iter().filter_map(|file| file.strip_prefix(&below)).filter(|name| name.ends_with(".parquet"))
    {
        let to = part.join(name);
        std::fs::copy(from.join(name), &to).map_err(|e| io(&from.join(name), "copy", e))?;
    }
    std::fs::rename(&part, &place).map_err(|e| io(&place, "move into place", e))?;
    app.out.note(format!("{name}, {config}, {split}: {}", place.display()));
    Ok(())
}

/// The configuration that has the split: the task's, or the only one.
fn configuration(rows: &HubRows, files: &[String]) -> anyhow::Result<String> {
    let HubRows { repo, split, .. } = rows;
    let with_split = |file: &String| {
        let (config, rest) = file.split_once('/')?;
        let (own, shard) = rest.split_once('/')?;
        (own == split && shard.ends_with(".parquet")).then(|| config.to_string())
    };
    let mut found: Vec<String> = files.iter().filter_map(with_split).collect();
    found.dedup();
    if let Some(config) = &rows.config {
        anyhow::ensure!(
            found.contains(config),
            "{repo}: the hub has no split {split} of configuration {config}"
        );
        return Ok(config.clone());
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => anyhow::bail!("{repo}: the hub has no split {split} as parquet"),
        several => anyhow::bail!(
            "{repo}: the hub has split {split} of several configurations ({}); name one by `hub-config` in the task's file",
            several.join(", ")
        ),
    }
}
