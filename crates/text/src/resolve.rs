//! Names to folders: below `./models` or `./data`, then as a path, then as a repository of the hub.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::hub::{Hub, HubError, Kind, Progress, RepoId};

/// The folders below which names are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// Models: `--models`, else `SIBO_MODELS`, else `./models`.
    pub models: PathBuf,
    /// Data: `--data`, else `SIBO_DATA`, else `./data`.
    pub data: PathBuf,
}

impl Roots {
    /// From the flags where given, else the environment, else the defaults.
    pub fn new(models: Option<&Path>, data: Option<&Path>) -> Self {
        Self::from_vars(models, data, |name| std::env::var_os(name).map(PathBuf::from))
    }

    fn from_vars(models: Option<&Path>, data: Option<&Path>, var: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let pick = |flag: Option<&Path>, name: &str, default: &str| {
            let set = flag.map(Path::to_owned).or_else(|| var(name));
            set.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| PathBuf::from(default))
        };
        Roots { models: pick(models, "SIBO_MODELS", "models"), data: pick(data, "SIBO_DATA", "data") }
    }
}

/// How a name was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Below the root.
    Named,
    /// A path of its own.
    Path,
    /// A repository of the hub.
    Hub {
        /// `org/name[@revision]`.
        repo: RepoId,
        /// The commit that the revision is.
        commit: String,
    },
}

/// A name that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The folder (for data also: the file).
    pub path: PathBuf,
    /// How it was found.
    pub origin: Origin,
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Looked everywhere.
    #[error("{0}")]
    NotFound(Box<NotFound>),
    /// Not on this disk, and the hub did not give it.
    #[error("{looked}; on the hub: {source}")]
    Hub {
        /// Where it was looked for before.
        looked: String,
        /// The hub's refusal.
        source: Box<HubError>,
    },
}

/// Where a name was looked for, and what could be meant.
#[derive(Debug)]
pub struct NotFound {
    kind: Kind,
    name: String,
    looked: Vec<String>,
    root: PathBuf,
    have: Vec<String>,
}

/// Ends that a data name may leave out.
const DATA_ENDS: [&str; 5] = ["json", "jsonl", "tsv", "csv", "parquet"];

/// Most names listed in an error.
const SHOWN: usize = 12;

/// The folder of a model or adapter.
///
/// # Errors
/// Where it was looked for, the nearest name, and how to get models.
pub fn model(
    name: &str,
    roots: &Roots,
    hub: &Hub,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Found, ResolveError> {
    let (mut looked, mut there) = (Vec::new(), false);
    for (path, origin) in candidates(name, &roots.models) {
        there |= path.exists();
        match model_folder(&path) {
            Ok(()) => return Ok(Found { path, origin }),
            Err(why) => looked.push(format!("{} ({why})", shown(&path))),
        }
    }
    // What lies here was meant, not a repository of that name.
    let Some(repo) = RepoId::parse(Kind::Model, name).filter(|_| !there) else {
        return Err(not_found(Kind::Model, name, looked, &roots.models));
    };
    from_hub(repo, None, looked, hub, progress)
}

/// The folder or file of a data set. `name` may leave out a file's ending; a hub id may end in
/// `:folder` for one configuration of a data set (`nyu-mll/glue:qnli`).
///
/// # Errors
/// Where it was looked for, the nearest name, and how to get data.
pub fn data(
    name: &str,
    roots: &Roots,
    hub: &Hub,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Found, ResolveError> {
    let mut looked = Vec::new();
    for (path, origin) in candidates(name, &roots.data) {
        if path.exists() {
            return Ok(Found { path, origin });
        }
        let ended = DATA_ENDS.iter().map(|end| PathBuf::from(format!("{}.{end}", path.display())));
        if let Some(path) = ended.into_iter().find(|path| path.is_file()) {
            return Ok(Found { path, origin });
        }
        looked.push(format!("{} (not there)", shown(&path)));
    }
    let (id, below) = match name.split_once(':') {
        Some((id, below)) => (id, Some(below)),
        None => (name, None),
    };
    // Nobody names a repository like a file.
    let file =
        below.is_none() && Path::new(id).extension().is_some_and(|end| DATA_ENDS.iter().any(|e| end == *e));
    let Some(repo) = RepoId::parse(Kind::Dataset, id).filter(|_| !file) else {
        return Err(not_found(Kind::Dataset, name, looked, &roots.data));
    };
    from_hub(repo, below, looked, hub, progress)
}

/// Below the root, where the name stays inside it, and as a path.
fn candidates(name: &str, root: &Path) -> Vec<(PathBuf, Origin)> {
    let path = Path::new(name);
    let inside = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let mut out = Vec::new();
    if inside && !name.is_empty() {
        out.push((root.join(path), Origin::Named));
    }
    if !name.is_empty() {
        out.push((path.to_owned(), Origin::Path));
    }
    out
}

fn model_folder(path: &Path) -> Result<(), &'static str> {
    if path.is_file() {
        let gguf = path.extension().is_some_and(|end| end == "gguf");
        return Err(if gguf { "GGUF files are not read" } else { "a file; give the folder that it is in" });
    }
    let has = |name: &str| path.join(name).is_file();
    match path.is_dir() {
        true if has("config.json") || has("adapter_config.json") => Ok(()),
        true if path.join("adapter/adapter_config.json").is_file() => {
            Err("a run; its adapter is the folder `adapter` in it")
        }
        true => Err("a folder without config.json or adapter_config.json"),
        false => Err("not there"),
    }
}

fn from_hub(
    repo: RepoId,
    below: Option<&str>,
    looked: Vec<String>,
    hub: &Hub,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Found, ResolveError> {
    let got = hub.snapshot(&repo, below, progress);
    let got = got.map_err(|source| ResolveError::Hub {
        looked: format!("looked for {}", looked.join(", ")),
        source: Box::new(source),
    })?;
    let path = below.map_or(got.folder.clone(), |folder| got.folder.join(folder));
    Ok(Found { path, origin: Origin::Hub { repo, commit: got.commit } })
}

fn not_found(kind: Kind, name: &str, looked: Vec<String>, root: &Path) -> ResolveError {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut have: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|entry| !entry.starts_with('.'))
        .collect();
    have.sort();
    ResolveError::NotFound(Box::new(NotFound {
        kind,
        name: name.to_owned(),
        looked,
        root: root.to_owned(),
        have,
    }))
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, script, id) = match self.kind {
            Kind::Model => ("model", "scripts/get-models", "HuggingFaceTB/SmolLM2-135M-Instruct"),
            Kind::Dataset => ("data", "scripts/get-data", "nyu-mll/glue:qnli"),
        };
        write!(f, "no {what} {:?}: looked for {}", self.name, self.looked.join(", "))?;
        let close = |other: &&String| strsim::osa_distance(other, &self.name) <= self.name.len().min(6) / 2;
        match self.have.iter().filter(close).min_by_key(|other| strsim::osa_distance(other, &self.name)) {
            Some(near) => write!(f, ". Did you mean `{near}`?")?,
            None if self.have.is_empty() => write!(f, ". {} has nothing", shown(&self.root))?,
            None => {
                let more = if self.have.len() > SHOWN { ", ..." } else { "" };
                let some = &self.have[..self.have.len().min(SHOWN)];
                write!(f, ". {} has: {}{more}", shown(&self.root), some.join(", "))?;
            }
        }
        write!(f, ". To get some: {script}, or a hub id (org/name[@revision]) such as {id}")
    }
}

/// A path as a person would write it.
fn shown(path: &Path) -> String {
    match path.is_relative() && !path.starts_with(".") && !path.starts_with("..") {
        true => format!("./{}", path.display()),
        false => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Settings;

    fn hub(cache: &Path) -> Hub {
        Hub::new(Settings {
            endpoint: "http://127.0.0.1:9".into(),
            cache: cache.into(),
            token: None,
            offline: true,
        })
    }

    fn made() -> (tempfile::TempDir, Roots, Hub) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let roots = Roots { models: folder.path().join("m"), data: folder.path().join("d") };
        for model in ["minilm-l6", "org/tiny"] {
            std::fs::create_dir_all(roots.models.join(model)).expect("a folder");
            std::fs::write(roots.models.join(model).join("config.json"), "{}").expect("a file");
        }
        std::fs::create_dir_all(roots.models.join("empty")).expect("a folder");
        std::fs::create_dir_all(roots.data.join("gsm8k")).expect("a folder");
        std::fs::write(roots.data.join("gsm8k/train.jsonl"), "{}").expect("a file");
        let hub = hub(&folder.path().join("cache"));
        (folder, roots, hub)
    }

    fn said(name: &str) -> String {
        let (_folder, roots, hub) = made();
        model(name, &roots, &hub, &mut |_| {}).expect_err("leads nowhere").to_string()
    }

    #[test]
    fn a_flag_counts_before_the_environment_and_that_before_the_default() {
        let var = |name: &str| (name == "SIBO_MODELS").then(|| PathBuf::from("/env"));
        let roots = Roots::from_vars(None, Some(Path::new("/flag")), var);
        assert_eq!(roots, Roots { models: "/env".into(), data: "/flag".into() });
        assert_eq!(
            Roots::from_vars(None, None, |_| None),
            Roots { models: "models".into(), data: "data".into() }
        );
        assert_eq!(Roots::from_vars(Some(Path::new("/f")), None, var).models, PathBuf::from("/f"));
    }

    #[test]
    fn names_below_the_root_come_before_paths_and_the_hub() {
        let (_folder, roots, hub) = made();
        for name in ["minilm-l6", "org/tiny"] {
            let found = model(name, &roots, &hub, &mut |_| {}).expect("there");
            assert_eq!(found, Found { path: roots.models.join(name), origin: Origin::Named });
        }
        let path = roots.models.join("minilm-l6").display().to_string();
        assert_eq!(model(&path, &roots, &hub, &mut |_| {}).expect("there").origin, Origin::Path);
    }

    #[test]
    fn data_may_leave_out_its_ending() {
        let (_folder, roots, hub) = made();
        let found = data("gsm8k/train", &roots, &hub, &mut |_| {}).expect("there");
        assert_eq!(found.path, roots.data.join("gsm8k/train.jsonl"));
        assert_eq!(data("gsm8k", &roots, &hub, &mut |_| {}).expect("there").path, roots.data.join("gsm8k"));
        let said = data("gsm9k", &roots, &hub, &mut |_| {}).expect_err("no such").to_string();
        assert!(said.contains("Did you mean `gsm8k`?") && said.contains("scripts/get-data"), "{said}");
    }

    #[test]
    fn a_name_not_found_says_where_it_looked_and_how_to_get_it() {
        let text = said("minilm-16");
        assert!(
            text.starts_with("no model \"minilm-16\": looked for ")
                && text.contains("/m/minilm-16 (not there), ./minilm-16"),
            "{text}"
        );
        assert!(text.contains("Did you mean `minilm-l6`?") && text.contains("scripts/get-models"), "{text}");
        assert!(said("zzzzzzzz").contains("/m has: empty, minilm-l6, org."), "{}", said("zzzzzzzz"));
        assert!(said("empty").contains("/m/empty (a folder without config.json"), "{}", said("empty"));
    }

    #[test]
    fn a_hub_id_that_cannot_be_had_says_where_else_it_looked() {
        let text = said("org/other");
        assert!(text.contains("/m/org/other (not there)") && text.contains("HF_HUB_OFFLINE"), "{text}");
    }

    #[test]
    fn what_lies_here_or_is_named_like_a_file_is_not_asked_of_the_hub() {
        let (_folder, roots, hub) = made();
        let run = roots.models.join("org/run");
        std::fs::create_dir_all(run.join("adapter")).expect("a folder");
        std::fs::write(run.join("adapter/adapter_config.json"), "{}").expect("a file");
        let text = model("org/run", &roots, &hub, &mut |_| {}).expect_err("a run").to_string();
        assert!(
            text.contains("its adapter is the folder `adapter` in it") && !text.contains("on the hub"),
            "{text}"
        );
        let text = data("d/nope.jsonl", &roots, &hub, &mut |_| {}).expect_err("no file").to_string();
        assert!(text.starts_with("no data \"d/nope.jsonl\"") && !text.contains("HF_HUB_OFFLINE"), "{text}");
        let text = data("d/nope", &roots, &hub, &mut |_| {}).expect_err("no cache").to_string();
        assert!(text.contains("HF_HUB_OFFLINE"), "{text}");
    }

    #[test]
    fn a_cached_repository_is_found_by_its_id() {
        let (folder, roots, hub) = made();
        let root = folder.path().join("cache/models--a--b");
        let snapshot = root.join("snapshots/0123abcd");
        std::fs::create_dir_all(&snapshot).expect("a folder");
        std::fs::create_dir_all(root.join("refs")).expect("a folder");
        std::fs::write(root.join("refs/main"), "0123abcd\n").expect("a file");
        for name in ["config.json", "model.safetensors"] {
            std::fs::write(snapshot.join(name), "{}").expect("a file");
        }
        let found = model("a/b", &roots, &hub, &mut |_| {}).expect("cached");
        assert_eq!(found.path, snapshot);
        assert!(matches!(found.origin, Origin::Hub { commit, .. } if commit == "0123abcd"));
    }
}
