//! What can go wrong with the hub, and what to do about it.

use std::path::PathBuf;

use super::RepoId;

/// Why a repository is not here.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Offline, and the cache has no complete copy.
    #[error(
        "{repo}: the cache ({}) has no complete copy, and HF_HUB_OFFLINE forbids to fetch one. \
         Unset it once, or copy the folder here and give its path",
        cache.display()
    )]
    Offline {
        /// The repository.
        repo: RepoId,
        /// The cache that was searched.
        cache: PathBuf,
    },
    /// The hub wants a token, another token, or an accepted licence.
    #[error("{repo}: the hub refuses access (status {status}). {advice}")]
    Refused {
        /// The repository.
        repo: RepoId,
        /// 401 or 403.
        status: u16,
        /// What to do.
        advice: String,
    },
    /// No such repository, revision or file.
    #[error("{repo}: the hub has no such {what}{}", said.as_ref().map(|s| format!(" ({s})")).unwrap_or_default())]
    Missing {
        /// The repository.
        repo: RepoId,
        /// `repository`, `revision "x"`, `file "y"`.
        what: String,
        /// The hub's own words.
        said: Option<String>,
    },
    /// Weights only as pickled files, which are never read.
    #[error(
        "{repo}: its weights are only there as {file}, a pickled file that can run code when it is opened; only safetensors are read. \
         To convert: python3 -c \"from transformers import AutoModel as M; M.from_pretrained('{}').save_pretrained('FOLDER')\", \
         with AutoModelForCausalLM for a generating model; copy the tokenizer files beside it",
        repo.id()
    )]
    OnlyPickled {
        /// The repository.
        repo: RepoId,
        /// The file that was found instead.
        file: String,
    },
    /// No weights that could be read.
    #[error("{repo}: it has no model.safetensors, no model.safetensors.index.json and no adapter_model.safetensors{}",
        other.as_ref().map(|o| format!(" (it has {o}, which is not read)")).unwrap_or_default())]
    NoWeights {
        /// The repository.
        repo: RepoId,
        /// Something like weights that was found instead.
        other: Option<String>,
    },
    /// No data file in a form that is read.
    #[error("{repo}: no .parquet, .json, .jsonl, .csv or .tsv file{}", below.as_ref().map(|b| format!(" below {b:?}")).unwrap_or_default())]
    NoData {
        /// The repository.
        repo: RepoId,
        /// The folder that was asked for.
        below: Option<String>,
    },
    /// The hub could not be reached, or the connection broke.
    #[error(
        "{url}: {why}. What has come is kept and taken up again; HF_ENDPOINT names another hub, and scripts/get-models needs none"
    )]
    Network {
        /// The address.
        url: String,
        /// The reason.
        why: String,
    },
    /// An answer that is not what the hub's protocol says.
    #[error("{url}: unexpected answer: {why}")]
    Answer {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// What came is not what was announced.
    #[error("{url}: {got} came, {wanted} was announced; it was thrown away, try again")]
    Damaged {
        /// The address.
        url: String,
        /// Size or checksum that came.
        got: String,
        /// Size or checksum that was announced.
        wanted: String,
    },
    /// The cache cannot be written or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

impl HubError {
    /// A file of the cache that cannot be written or read.
    pub(super) fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        HubError::Io { path: path.to_owned(), source }
    }
}
