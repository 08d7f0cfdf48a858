//! Which files of a repository are wanted.

use std::collections::BTreeSet;
use std::path::Path;

use super::{HubError, Kind, RepoId};

/// The list of a sharded model's files.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// One-file weights, in the order in which they are taken.
const WEIGHTS: [&str; 4] = ["model.safetensors", INDEX, "adapter_model.safetensors", "adapter.safetensors"];

/// Configuration and tokenizer files.
const BESIDE: [&str; 14] = [
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    // The head of an adapter-hub adapter.
    "head_config.json",
    "model_head.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "chat_template.jinja",
    "chat_template.json",
    "template.toml",
    "head.json",
    "sibo.json",
];

/// Forms in which data is read.
const DATA: [&str; 5] = [".parquet", ".json", ".jsonl", ".csv", ".tsv"];

/// The files to fetch from `have`, small ones first. A sharded model's shards come later, by [`shards`].
pub(super) fn files(repo: &RepoId, have: &[String], below: Option<&str>) -> Result<Vec<String>, HubError> {
    match repo.kind() {
        Kind::Model => model_files(repo, have),
        Kind::Dataset => data_files(repo, have, below),
    }
}

fn model_files(repo: &RepoId, have: &[String]) -> Result<Vec<String>, HubError> {
    let Some(weights) = WEIGHTS.into_iter().find(|name| have.iter().any(|file| file == name)) else {
        return Err(without_weights(repo, have));
    };
    let template = |file: &str| file.starts_with("additional_chat_templates/") && file.ends_with(".jinja");
    let mut wanted: Vec<String> =
        have.iter().filter(|file| BESIDE.contains(&file.as_str()) || template(file)).cloned().collect();
    wanted.push(weights.to_owned());
    Ok(wanted)
}

fn without_weights(repo: &RepoId, have: &[String]) -> HubError {
    let ends = |ends: &[&str]| have.iter().find(|file| ends.iter().any(|end| file.ends_with(end))).cloned();
    match ends(&[".bin", ".pt", ".pth", ".ckpt"]) {
        Some(file) => HubError::OnlyPickled { repo: repo.clone(), file },
        None => HubError::NoWeights {
            repo: repo.clone(),
            other: ends(&[".safetensors", ".gguf", ".h5", ".msgpack", ".onnx"]),
        },
    }
}

fn data_files(repo: &RepoId, have: &[String], below: Option<&str>) -> Result<Vec<String>, HubError> {
    let inside = |file: &str| match below {
        Some(folder) => file.strip_prefix(folder.trim_matches('/')).is_some_and(|rest| rest.starts_with('/')),
        None => true,
    };
    let wanted: Vec<String> = have
        .iter()
        .filter(|file| inside(file) && DATA.iter().any(|end| file.ends_with(end)) && safe(file))
        .cloned()
        .collect();
    if wanted.is_empty() {
        return Err(HubError::NoData { repo: repo.clone(), below: below.map(str::to_owned) });
    }
    Ok(wanted)
}

/// The files that an index names, each of which the repository must have.
pub(super) fn shards(repo: &RepoId, index: &Path, have: &[String]) -> Result<Vec<String>, HubError> {
    let names = shard_names(index).map_err(|why| HubError::Answer { url: format!("{repo}/{INDEX}"), why })?;
    if let Some(absent) = names.iter().find(|name| !have.contains(name)) {
        let what = format!("file {absent:?}, which its index names");
        return Err(HubError::Missing { repo: repo.clone(), what, said: None });
    }
    Ok(names)
}

/// The distinct files of an index's `weight_map`.
pub(super) fn shard_names(index: &Path) -> Result<Vec<String>, String> {
    let bytes = std::fs::read(index).map_err(|e| e.to_string())?;
    let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| format!("broken JSON: {e}"))?;
    let map = json["weight_map"].as_object().ok_or("it has no weight_map")?;
    let names: BTreeSet<&str> = map.values().filter_map(|v| v.as_str()).collect();
    match names.iter().find(|name| !safe(name) || !name.ends_with(".safetensors")) {
        Some(bad) => Err(format!("weight_map names {bad:?}, which is no safetensors file of this folder")),
        None => Ok(names.into_iter().map(str::to_owned).collect()),
    }
}

/// A path that stays inside its folder, on every system.
pub(super) fn safe(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', ':'])
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
