//! What lies beside an adapter's own files and must go with it wherever it goes.

use sibo_train::outputs;
use std::path::{Path, PathBuf};

/// Files that keep a template beside an adapter, or beside the model that it was merged into: without it, prompts would be
/// rendered in other words than were learned.
pub(crate) const TEMPLATES: [&str; 2] = ["template.toml", "chat_template.jinja"];

/// Names and contents of a folder's templates, and of what the outputs of its class head stand for.
pub(crate) fn all(folder: &Path) -> anyhow::Result<Vec<(&'static str, Vec<u8>)>> {
    let names = TEMPLATES.into_iter().chain([outputs::FILE]);
    let there = names.map(|name| (name, folder.join(name))).filter(|(_, file)| file.is_file());
    let read = |(name, file): (&'static str, PathBuf)| {
        Ok((name, std::fs::read(&file).map_err(|e| sibo_files::Error::io(&file, "read", e))?))
    };
    there.map(read).collect()
}
